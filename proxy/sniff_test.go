package proxy

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"mailreeve/policy"
)

const plainOnTLS = "BYE Port 4321 needs SSL/TLS. Please switch on SSL/TLS in your program."

func TestPlaintextOnATLSPort(t *testing.T) {
	for _, first := range []string{"a NOOP\r\n", "EHLO x\r\n", "\x00", "x"} {
		bubble(t, func(t *testing.T) {
			r := newRig(t)
			c := r.dial("implicit")
			began := time.Now()
			c.send(first)
			c.want(plainOnTLS)
			if waited := time.Since(began); waited != 0 {
				t.Errorf("answered after %v", waited)
			}
			c.close()
			e := r.wantEnd("PS", "plaintext_on_tls_port")
			if !e.WrongPort || e.TLS != "none" || e.Entry != "plain" || e.Exposed {
				t.Errorf("%+v", e)
			}
		})
	}
	bubble(t, func(t *testing.T) { // waits for a greeting
		r := newRig(t)
		c := r.dial("implicit")
		began := time.Now()
		c.want(plainOnTLS)
		if waited := time.Since(began); waited != 4*time.Second {
			t.Errorf("answered after %v", waited)
		}
		began = time.Now()
		c.wantClose()
		if waited := time.Since(began); waited != linger {
			t.Errorf("closed after %v", waited)
		}
		r.wantEnd("PS", "plaintext_on_tls_port")
	})
	bubble(t, func(t *testing.T) { // in a storm, silence is no sign
		r := newRig(t)
		r.engine.entering.Add(crowd)
		silent, late := r.dial("implicit"), r.dial("implicit")
		began := time.Now()
		time.Sleep(2*silentPlain + time.Second)
		late.tls("toy.example")
		late.want("HELLO proxy.example")
		late.close()
		r.wantEnd("CD", "client_closed")
		silent.want(plainOnTLS)
		if waited := time.Since(began); waited != r.settings.Times.Handshake.Truncate(silentPlain) {
			t.Errorf("answered after %v", waited)
		}
		silent.close()
		r.wantEnd("PS", "plaintext_on_tls_port")
	})
	bubble(t, func(t *testing.T) { // a port scan
		r := newRig(t)
		c := r.dial("implicit")
		time.Sleep(time.Second)
		c.close()
		if e := r.wantEnd("CS", "client_closed"); e.WrongPort || e.TLS != "" || e.Action != "pass" {
			t.Errorf("%+v", e)
		}
	})
	bubble(t, func(t *testing.T) {
		r := newRig(t)
		c := r.dial("implicit")
		c.raw.reset()
		r.wantEnd("CS", "client_reset")
	})
	bubble(t, func(t *testing.T) { // what it goes on to say is thrown away, and bounded
		r := newRig(t)
		c := r.dial("implicit")
		c.say("hello")
		c.want(plainOnTLS)
		p := make([]byte, 10_000)
		for {
			if _, err := c.conn.Write(p); err != nil {
				break
			}
		}
		if e := r.wantEnd("PS", "plaintext_on_tls_port"); e.BytesIn > lingerBytes+wireBuffer {
			t.Errorf("%d bytes were read", e.BytesIn)
		}
	})
}

func TestClientHelloOnASTARTTLSPort(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t)
		c := r.dial("starttls")
		time.Sleep(100 * time.Millisecond)
		c.tls("toy.example")
		c.want("HELLO proxy.example")
		c.say("QUIT")
		c.want("BYE")
		c.wantClose()
		e := r.wantEnd("CD", "client_quit")
		if !e.WrongPort || e.Entry != "implicit" || e.TLS != "1.3" || e.SNI != "toy.example" {
			t.Errorf("%+v", e)
		}
	})
	bubble(t, func(t *testing.T) { // the greeting waits no longer than it must
		r := newRig(t)
		c := r.dial("starttls")
		began := time.Now()
		c.want("HELLO proxy.example")
		if waited := time.Since(began); waited != sniffPatience {
			t.Errorf("greeted after %v", waited)
		}
		c.close()
		if e := r.wantEnd("CD", "client_closed"); e.WrongPort || e.Entry != "plain" || e.TLS != "none" {
			t.Errorf("%+v", e)
		}
	})
	bubble(t, func(t *testing.T) { // nor for one that speaks first
		r := newRig(t)
		c := r.dial("starttls")
		began := time.Now()
		c.say("NOOP")
		c.want("HELLO proxy.example")
		if waited := time.Since(began); waited != 0 {
			t.Errorf("greeted after %v", waited)
		}
		c.want("OK")
	})
	bubble(t, func(t *testing.T) {
		r := newRig(t)
		c := r.dial("starttls")
		time.Sleep(time.Millisecond)
		c.close()
		r.wantEnd("CS", "client_closed")
	})
	bubble(t, func(t *testing.T) { // switched off
		r := newRig(t)
		r.settings.Listeners[0].ServeHello = false
		c := r.dial("starttls")
		began := time.Now()
		c.want("HELLO proxy.example")
		if time.Since(began) != 0 {
			t.Error("the greeting waited for a ClientHello")
		}
		c.send("\x16\x03\x01\x00\x05hello\r\n")
		c.want("WHAT")
		c.close()
		if e := r.wantEnd("CD", "client_closed"); e.WrongPort {
			t.Errorf("%+v", e)
		}
	})
}

func TestHandshakesThatFail(t *testing.T) {
	for _, test := range []struct {
		name, say   string
		end, reason string
	}{
		{"SSL 2", "\x80\x2e\x01\x03\x01\x00\x15\x00\x00\x00\x10", "PT", "handshake_failed"},
		{"garbage behind a good first byte", "\x16garbage that is no record at all, by any version of TLS", "PT", "handshake_failed"},
		{"half a record", "\x16\x03\x01\x02\x00\x01", "CT", "client_closed"},
	} {
		t.Run(test.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				r := newRig(t)
				c := r.dial("implicit")
				c.send(test.say)
				synctest.Wait()
				c.close()
				if e := r.wantEnd(test.end, test.reason); e.TLS != "" || e.Action != "pass" {
					t.Errorf("%+v", e)
				}
			})
		})
	}
	bubble(t, func(t *testing.T) { // time
		r := newRig(t)
		c := r.dial("implicit")
		time.Sleep(time.Second)
		c.send("\x16")
		began := time.Now()
		for range 100 {
			time.Sleep(time.Second)
			if _, err := c.conn.Write([]byte{3}); err != nil {
				break
			}
		}
		if waited := time.Since(began); waited > r.settings.Times.Handshake+time.Second {
			t.Errorf("a handshake of single bytes took %v", waited)
		}
		r.wantEnd("LT", "handshake_timeout")
	})
	bubble(t, func(t *testing.T) { // a client that does not take our answer
		r := newRig(t)
		c := r.dial("implicit")
		hello := record(t)
		c.send(string(hello))
		time.Sleep(r.settings.Times.Handshake + 10*time.Second)
		r.wantEnd("LT", "handshake_timeout")
	})
	refused := func(name string, client *tls.Config, end, reason, words, alert, version, action string) {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				r := newRig(t)
				c := r.dial("implicit")
				client.ServerName = "mail.old.example"
				if err := tls.Client(c.conn, client).Handshake(); err == nil {
					t.Fatal("the handshake succeeded")
				}
				c.close()
				e := r.wantEnd(end, reason)
				if e.SNI != "mail.old.example" || e.Host != policy.Legacy || e.Alert != alert || e.TLS != version || e.Action != action ||
					!strings.Contains(e.Sentence, words) {
					t.Errorf("%+v", e)
				}
			})
		})
	}
	refused("ALPN", &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2", "http/1.1"}}, "PT", "other_protocol",
		"the client wants another application protocol, h2, http/1.1: alert no_application_protocol", "", "", "deny")
	refused("TLS 1.1", &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}, "PT", "handshake_failed",
		"the TLS handshake failed: the client offers TLS 1.1 at most: alert protocol_version", "", "1.1", "refuse")
	refused("RSA key exchange", &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{
		tls.TLS_RSA_WITH_AES_128_CBC_SHA, tls.TLS_RSA_WITH_AES_256_CBC_SHA, tls.TLS_RSA_WITH_3DES_EDE_CBC_SHA, tls.TLS_RSA_WITH_AES_128_GCM_SHA256}},
		"PT", "handshake_failed", "; the client offers TLS 1.2 at most, with TLS_RSA_WITH_AES_", "", "", "deny")
	refused("certificate", &tls.Config{}, "CT", "certificate_refused",
		"the client does not take the certificate: alert bad_certificate", "bad_certificate", "", "deny")
	refused("certificate, TLS 1.2", &tls.Config{MaxVersion: tls.VersionTLS12}, "CT", "certificate_refused",
		"the client does not take the certificate: alert bad_certificate", "bad_certificate", "", "deny")
}

// record returns a ClientHello.
func record(t *testing.T) []byte {
	t.Helper()
	a, b := newPair("192.0.2.1:1", "192.0.2.2:2")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan bool)
	go func() {
		defer close(done)
		tls.Client(a, &tls.Config{InsecureSkipVerify: true}).HandshakeContext(ctx)
	}()
	hello, err := NewWire(b).Peek(200)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	b.Close()
	<-done
	return hello
}

func TestFactsOfTLS(t *testing.T) {
	for _, test := range []struct {
		name   string
		client *tls.Config
		want   string
	}{
		{"1.3", &tls.Config{ServerName: "toy.example", MinVersion: tls.VersionTLS13}, "1.3 modern canonical toy.example "},
		{"ALPN", &tls.Config{ServerName: "toy.example", NextProtos: []string{"h2", "toy"}}, "1.3 modern canonical toy.example toy"},
		{"1.2", &tls.Config{ServerName: "toy2.example", MaxVersion: tls.VersionTLS12}, "1.2 modern canonical toy2.example "},
		{"1.2 CBC", &tls.Config{ServerName: "other.example", MaxVersion: tls.VersionTLS12,
			CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA}}, "1.2 legacy other_service other.example "},
		{"upper case", &tls.Config{ServerName: "TOY.Example"}, "1.3 modern canonical toy.example "},
		{"legacy pattern", &tls.Config{ServerName: "MAIL.old.example"}, "1.3 modern legacy mail.old.example "},
		{"legacy name", &tls.Config{ServerName: "exact.example"}, "1.3 modern legacy exact.example "},
		{"the pattern's suffix itself", &tls.Config{ServerName: "old.example"}, "1.3 modern unknown old.example "},
		{"unknown", &tls.Config{ServerName: "mx.somewhere.test"}, "1.3 modern unknown mx.somewhere.test "},
		{"no name", &tls.Config{}, "1.3 modern absent  "},
		{"no dot", &tls.Config{ServerName: "mailserver"}, "1.3 modern absent  "},
		{"an address", &tls.Config{ServerName: "192.0.2.1"}, "1.3 modern absent  "},
		{"no DNS name", &tls.Config{ServerName: "my server"}, "1.3 modern absent  "},
	} {
		t.Run(test.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				r := newRig(t)
				c := r.dial("implicit")
				test.client.InsecureSkipVerify = true
				conn := tls.Client(c.conn, test.client)
				if err := conn.Handshake(); err != nil {
					t.Fatal(err)
				}
				c.conn, c.reader = conn, bufio.NewReader(conn)
				c.want("HELLO proxy.example")
				c.close()
				e := r.event()
				if got := strings.Join([]string{e.TLS, e.CipherClass, e.Host, e.SNI, e.ALPN}, " "); got != test.want {
					t.Errorf("got %q, want %q", got, test.want)
				}
				if e.Cipher != tls.CipherSuiteName(conn.ConnectionState().CipherSuite) || e.Entry != "implicit" || e.Brand != "test" {
					t.Errorf("%+v", e)
				}
			})
		})
	}
}

func TestHostNames(t *testing.T) {
	long := strings.Repeat(strings.Repeat("a", 63)+".", 3) + strings.Repeat("b", 61)
	for in, want := range map[string]string{
		"mail.example": "mail.example", "MAIL.Example": "mail.example", "mail.example.": "mail.example", "a_b.c": "a_b.c",
		"xn--mller-kva.example": "xn--mller-kva.example", "localhost": "localhost", long: long,
		"": "", ".": "", "a..b": "", ".a": "", "a.b..": "", "-a.b": "", "a-.b": "", "a b": "", "a\r\nb": "", "a\x00b": "", "müller.example": "",
		"192.0.2.1": "", "2001:db8::1": "", "::ffff:192.0.2.1": "", "a,b": "", `a"b`: "", "a/b": "",
		long + "b": "", strings.Repeat("a", 64) + ".b": "",
	} {
		if got := hostName(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

// TestOneName: a name for two protocols is canonical for both, and for a third
// it is called after them.
func TestOneName(t *testing.T) {
	r := newRig(t)
	r.brand.Hosts["other"] = append(r.brand.Hosts["other"], "toy2.example")
	for _, name := range []string{"other", "third"} {
		front := *toy()
		front.Name, front.Word = name, strings.ToUpper(name)
		r.brand.Backends[name] = r.backend
		r.settings.Times.Idle[name] = time.Minute
		r.settings.Listeners = append(r.settings.Listeners, &Listener{Name: name, Front: &front})
	}
	s, err := r.settings.prepared()
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range map[int]string{0: policy.Canonical, 2: policy.Canonical, 3: policy.OtherService} {
		if n := s.classify(s.Listeners[i], "toy2.example"); n.Host != want {
			t.Errorf("%s: %+v", s.Listeners[i].Name, n)
		}
	}
	if got := s.called("toy2.example") + " " + s.called("toy.example"); got != "OTHER/TOY TOY" {
		t.Errorf("called %q", got)
	}
}

func TestClassify(t *testing.T) {
	r := newRig(t)
	second := &Brand{Name: "second", Hosts: map[string][]string{"toy": {"Toy.Second.example"}, "other": {"second.example"}},
		Legacy: []string{"*.gone.example"}, Backends: map[string]*Backend{"toy": r.backend}}
	third := &Brand{Name: "third", Hosts: map[string][]string{"other": {"third.example"}}, Legacy: []string{"*.example"},
		Backends: map[string]*Backend{"other": r.backend}}
	r.settings.Brands = append(r.settings.Brands, third, second)
	s, err := r.settings.prepared()
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"": "absent test", "toy.example": "canonical test", "toy.second.example": "canonical second", "second.example": "other_service second",
		"x.gone.example": "legacy second", "third.example": "other_service test", "nobody.example": "unknown test",
		"mailserver": "absent test",
	} {
		n := s.classify(s.Listeners[0], name)
		if got := n.Host + " " + n.Brand.Name; got != want {
			t.Errorf("%q: %s, want %s", name, got, want)
		}
	}
}

func TestSTARTTLS(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t)
		for i := range 2 {
			c := r.dial("starttls")
			c.want("HELLO proxy.example")
			c.say("ADVERT")
			// The second time the client is known not to need the warning.
			c.wantPrefix(fmt.Sprintf("ADVERT false false %t [] [PLAIN XOAUTH2 SIZE] Your password is NOT wrong. Encryption is missing", i == 1))
			c.say("NAME injected here")
			c.say("LOGIN anna right")
			c.wantPrefix("NO policy Your password is NOT wrong.")
			c.say("STARTTLS")
			c.want("GO")
			c.tls("toy.example")
			c.say("ADVERT")
			c.want("ADVERT true true false [PLAIN LOGIN XOAUTH2] [PLAIN XOAUTH2 SIZE] -")
			c.close()
			e := r.wantEnd("CD", "client_closed")
			if e.Entry != "starttls" || e.TLS != "1.3" || e.ClientID != nil || e.Hello != "" || e.Mechanism != "" || !e.Exposed {
				t.Errorf("%+v", e)
			}
		}
	})
	bubble(t, func(t *testing.T) { // injection
		r := newRig(t)
		c := r.dial("starttls")
		c.want("HELLO proxy.example")
		c.send("STARTTLS\r\nLOGIN mallory right\r\n")
		c.want("BYE This is not the protocol of this port. Closing.")
		c.close()
		if e := r.wantEnd("PD", "starttls_injection"); e.Attempts != 0 || !strings.Contains(e.Sentence, "21 bytes") {
			t.Errorf("%+v", e)
		}
	})
	bubble(t, func(t *testing.T) { // injection in a packet of its own, with the go-ahead under way
		r := newRig(t)
		c := r.dial("starttls")
		c.want("HELLO proxy.example")
		c.say("STARTTLS")
		c.want("GO")
		c.send("LOGIN mallory right\r\n")
		if e := r.wantEnd("PT", "handshake_failed"); e.Attempts != 0 || e.TLS != "" || e.Action != "pass" || e.Entry != "starttls" {
			t.Errorf("a failed handshake counts as cleartext: %+v", e)
		}
	})
}

func TestTLSEndsOrderly(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t)
		c := r.dial("implicit")
		conn := tls.Client(c.conn, &tls.Config{MaxVersion: tls.VersionTLS12, InsecureSkipVerify: true})
		c.conn, c.reader = conn, bufio.NewReader(conn)
		c.want("HELLO proxy.example")
		c.say("QUIT")
		c.want("BYE")
		// crypto/tls as a client does not mind; many others do.
		if rest, err := io.ReadAll(c.raw); err != nil || len(rest) == 0 || rest[0] != 21 {
			t.Errorf("no close_notify: %x, %v", rest, err)
		}
	})
}

func TestLoginTimeout(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t)
		c := r.dial("implicit")
		c.tls("toy.example")
		c.want("HELLO proxy.example")
		began := time.Now()
		go func() { // harmless commands do not prolong it
			for range 100 {
				time.Sleep(7 * time.Second)
				if _, err := io.WriteString(c.conn, "NOOP\r\n"); err != nil {
					return
				}
			}
		}()
		line := c.line()
		for line == "OK" {
			line = c.line()
		}
		if line != "BYE The login took too long. Please connect again." {
			t.Errorf("heard %q", line)
		}
		c.wantClose()
		if waited := time.Since(began); waited != r.settings.Times.Login {
			t.Errorf("ended after %v", waited)
		}
		time.Sleep(linger) // the client does not close
		r.wantEnd("LD", "login_timeout")
		time.Sleep(7 * time.Second) // the writer's last
	})
}

func TestPeersThatMisbehave(t *testing.T) {
	for say, reason := range map[string]string{
		"x\r\nx\r\nx\r\n":           "too_many_bad_commands",
		"GET / HTTP/1.1\r\n":        "other_protocol",
		strings.Repeat("x", 1001):   "",
		strings.Repeat("x", 1003):   "line_too_long",
		"NOOP\r\n\r\nx\r\nx\r\n \n": "too_many_bad_commands",
	} {
		bubble(t, func(t *testing.T) {
			r := newRig(t)
			c := r.dial("starttls")
			c.want("HELLO proxy.example")
			go io.WriteString(c.conn, say)
			if reason == "" {
				time.Sleep(time.Second)
				if r.events() != 0 {
					t.Error("a line within its limit ended the session")
				}
				return
			}
			for !strings.HasPrefix(c.line(), "BYE This is not the protocol") {
			}
			c.close()
			r.wantEnd("PD", reason)
		})
	}
}

func TestClientThatDoesNotReadTheGreeting(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t)
		r.dial("starttls")
		time.Sleep(writePatience + sniffPatience + time.Second)
		r.wantEnd("LD", "client_timeout")
	})
}

func TestCertificateSourceThatFails(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t)
		var fallback string
		r.settings.Certificate = func(_ *tls.ClientHelloInfo, n ServerName) (*tls.Certificate, error) {
			fallback = n.Fallback
			return nil, errors.New("no certificate at all")
		}
		c := r.dial("implicit")
		tls.Client(c.conn, &tls.Config{InsecureSkipVerify: true}).Handshake()
		if e := r.wantEnd("PT", "handshake_failed"); !strings.Contains(e.Sentence, "no certificate at all") {
			t.Errorf("%+v", e)
		}
		if fallback != "toy.example" {
			t.Errorf("the fallback name is %q", fallback)
		}
	})
}
