package proxy

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"mailreeve/policy"
)

// rsaLeaf is for clients that cannot do ECDSA.
var rsaLeaf = sync.OnceValue(func() *tls.Certificate {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(3), NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<33, 0), DNSNames: []string{"*.example"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		panic(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
})

// bothKinds chooses as the source of certificates does.
func bothKinds(hello *tls.ClientHelloInfo, _ ServerName) (*tls.Certificate, error) {
	if hello.SupportsCertificate(authority().leaf) == nil {
		return authority().leaf, nil
	}
	return rsaLeaf(), nil
}

// does makes a policy in which each requirement does what is said.
func does(t *testing.T, finding policy.Finding, do policy.Action, require ...policy.Term) *policy.Policy {
	t.Helper()
	var all []policy.Requirement
	for i, term := range require {
		all = append(all, policy.Requirement{ID: fmt.Sprint("r", i), Finding: finding, Stages: []policy.Stage{{Do: do}}, Require: policy.Matcher{term}})
	}
	p, err := policy.New("test", all)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

var (
	noOldTLS  = policy.Term{Fact: policy.TLS, Not: true, Values: []string{"1.0", "1.1"}}
	noLegacy  = policy.Term{Fact: policy.CipherClass, Values: []string{policy.Modern}}
	knownHost = policy.Term{Fact: policy.Host, Values: []string{policy.Canonical, policy.Absent}}
)

// shake does a handshake from the client's side; the talker goes on in TLS.
func (c *talker) shake(client *tls.Config) error {
	client.InsecureSkipVerify = true
	if client.ServerName == "" {
		client.ServerName = "toy.example"
	}
	if client.ClientSessionCache != nil {
		c.conn = readAhead(c.conn)
	}
	conn := tls.Client(c.conn, client)
	if err := conn.Handshake(); err != nil {
		return err
	}
	c.conn, c.reader = conn, bufio.NewReader(conn)
	return nil
}

// eager is a connection that takes what comes before it is read, as a socket
// does: a server sends the ticket while the client speaks.
type eager struct {
	net.Conn
	came chan []byte
	rest []byte
}

func readAhead(conn net.Conn) net.Conn {
	e := &eager{Conn: conn, came: make(chan []byte, 100)}
	go func() {
		defer close(e.came)
		for {
			p := make([]byte, 20_000)
			n, err := conn.Read(p)
			if err != nil {
				return
			}
			e.came <- p[:n]
		}
	}()
	return e
}

func (e *eager) Read(p []byte) (int, error) {
	if len(e.rest) == 0 {
		var ok bool
		if e.rest, ok = <-e.came; !ok {
			return 0, io.EOF
		}
	}
	n := copy(p, e.rest)
	e.rest = e.rest[n:]
	return n, nil
}

// TestWaysOfTLS: what a client gets by what it can, what the listener has
// switched on and what policy says. An alert is what the client hears.
func TestWaysOfTLS(t *testing.T) {
	const (
		version   = "remote error: tls: protocol version not supported"
		handshake = "remote error: tls: handshake failure"
	)
	tls10 := func() *tls.Config { return &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS10} }
	only := func(newest uint16, suites ...uint16) func() *tls.Config {
		return func() *tls.Config {
			return &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: newest, CipherSuites: suites}
		}
	}
	everything := func() *tls.Config {
		var suites []uint16
		for _, s := range append(tls.InsecureCipherSuites(), tls.CipherSuites()...) {
			suites = append(suites, s.ID)
		}
		return &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS12, CipherSuites: suites}
	}
	for _, test := range []struct {
		name   string
		client func() *tls.Config
		// by what policy does about TLS below 1.2 and about suites without forward secrecy and AEAD
		enforced, standard, observed, denied, refused string
	}{
		{"anything", func() *tls.Config { return &tls.Config{MinVersion: tls.VersionTLS10} },
			"1.3 modern", "1.3 modern", "1.3 modern", "1.3 modern", "1.3 modern"},
		{"TLS 1.2, all suites", everything, "1.2 modern", "1.2 modern", "1.2 modern", "1.2 modern", "1.2 modern"},
		{"TLS 1.2, CBC", only(tls.VersionTLS12, tls.TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA, tls.TLS_RSA_WITH_AES_128_GCM_SHA256),
			"1.2 legacy", "1.2 legacy", "1.2 legacy", "1.2 legacy", handshake},
		{"TLS 1.2, CBC with SHA-256", only(tls.VersionTLS12, tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256),
			handshake, handshake, "1.2 legacy", "1.2 legacy", handshake},
		{"TLS 1.2, RSA key exchange", only(tls.VersionTLS12, tls.TLS_RSA_WITH_AES_128_GCM_SHA256),
			handshake, handshake, "1.2 legacy", "1.2 legacy", handshake},
		{"TLS 1.1, RSA key exchange", only(tls.VersionTLS11, tls.TLS_RSA_WITH_AES_128_CBC_SHA),
			version, version, "1.1 legacy", "1.1 legacy", version},
		{"TLS 1.1, 3DES", only(tls.VersionTLS11, tls.TLS_RSA_WITH_3DES_EDE_CBC_SHA), version, version, "1.1 legacy", "1.1 legacy", version},
		{"TLS 1.0", tls10, version, version, "1.0 legacy", "1.0 legacy", version},
		{"TLS 1.0, RC4", only(tls.VersionTLS10, tls.TLS_RSA_WITH_RC4_128_SHA, tls.TLS_ECDHE_RSA_WITH_RC4_128_SHA),
			version, version, handshake, handshake, version},
	} {
		for _, way := range []struct {
			name, want string
			old        bool
			policy     *policy.Policy
		}{
			{"enforced", test.enforced, true, policy.Enforced()},
			{"standard", test.standard, false, does(t, policy.TLSOld, policy.Observe, noOldTLS, noLegacy)},
			{"observed", test.observed, true, does(t, policy.TLSOld, policy.Observe, noOldTLS, noLegacy)},
			{"denied", test.denied, true, does(t, policy.TLSOld, policy.Deny, noOldTLS, noLegacy)},
			{"refused", test.refused, true, does(t, policy.TLSOld, policy.Refuse, noOldTLS, noLegacy)},
		} {
			if way.name == "enforced" && strings.HasPrefix(test.name, "TLS 1.2") {
				way.old = false // where it is on, enforced says nothing of suites
			}
			t.Run(test.name+", "+way.name, func(t *testing.T) {
				rsaLeaf()
				bubble(t, func(t *testing.T) {
					r := newRig(t)
					r.settings.Certificate, r.settings.Policy = bothKinds, way.policy
					for _, l := range r.settings.Listeners {
						l.OldTLS = way.old
					}
					c := r.dial("implicit")
					err := c.shake(test.client())
					c.close()
					e := r.event()
					got := e.TLS + " " + e.CipherClass
					if err != nil {
						got = err.Error()
						if e.End != "PT" || e.Reason != "handshake_failed" || e.SNI != "toy.example" || !strings.Contains(e.Sentence, "the client offers TLS 1.") {
							t.Errorf("%+v", e)
						}
						if refused := way.name == "refused"; refused != (e.Action == "refuse" && e.TLS != "" && e.CipherClass == "legacy") &&
							!(way.name == "enforced" && got == version) {
							t.Errorf("%+v", e)
						}
					}
					if got != way.want {
						t.Errorf("got %q, want %q", got, way.want)
					}
				})
			})
		}
	}
}

// TestOldTLSIsTheListenersOwn: a client that must be served by it here is not
// served by it there, and the client of a fallback is told that it is one.
func TestOldTLSIsTheListenersOwn(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t)
		r.settings.Policy = does(t, policy.TLSOld, policy.Observe, noOldTLS)
		r.settings.Listeners[1].OldTLS = true
		if c := r.dial("starttls"); c.shake(&tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}) == nil {
			t.Error("TLS 1.1 on a listener without it")
		}
		r.wantEnd("PT", "handshake_failed")
		if c := r.dial("implicit"); c.shake(&tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}) != nil {
			t.Error("no TLS 1.1 on the listener that has it")
		} else {
			c.close()
		}
		if e := r.event(); r.events() != 2 || e.TLS != "1.1" || e.Action != "observe" || fmt.Sprint(e.By) != "[r0]" {
			t.Errorf("%+v", e)
		}
	})
}

// TestEnvironmentHasNoSay: what Go lets an environment switch on stays off.
func TestEnvironmentHasNoSay(t *testing.T) {
	t.Setenv("GODEBUG", "tls10server=1,tlsrsakex=1,tls3des=1")
	rsaLeaf()
	bubble(t, func(t *testing.T) {
		r := newRig(t)
		r.settings.Certificate = bothKinds
		for _, client := range []*tls.Config{
			{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11},
			{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_RSA_WITH_AES_128_GCM_SHA256, tls.TLS_RSA_WITH_3DES_EDE_CBC_SHA}},
		} {
			if c := r.dial("implicit"); c.shake(client) == nil {
				t.Errorf("a handshake by %s", tls.CipherSuiteName(c.conn.(*tls.Conn).ConnectionState().CipherSuite))
			}
			r.wantEnd("PT", "handshake_failed")
		}
	})
}

func TestOldTLSDenied(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t)
		r.settings.Policy = does(t, policy.TLSOld, policy.Deny, noOldTLS)
		r.settings.Listeners[1].OldTLS = true
		c := r.dial("implicit")
		if err := c.shake(&tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS10}); err != nil {
			t.Fatal(err)
		}
		c.want("HELLO proxy.example")
		c.say("ADVERT")
		c.wantPrefix("ADVERT true false false [] [PLAIN XOAUTH2 SIZE] Your password is NOT wrong. The program is too old")
		c.say("AUTH PLAIN")
		c.wantPrefix("NO policy Your password is NOT wrong. The program is too old")
		c.close()
		if e := r.wantEnd("CD", "client_closed"); e.Attempts != 0 || e.Verified || r.dialled() != "one:1" {
			t.Errorf("%+v, %s", e, r.dialled())
		}
	})
}

func TestNamesRefused(t *testing.T) {
	const unrecognized = "remote error: tls: unrecognized name"
	alert := func(t *testing.T, r *rig, listener string, client *tls.Config) {
		t.Helper()
		c := r.dial(listener)
		if err := c.shake(client); err == nil || err.Error() != unrecognized {
			t.Errorf("the client hears %v", err)
		}
		c.close()
	}
	for _, version := range []uint16{tls.VersionTLS10, tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				r := newRig(t)
				r.settings.Policy = does(t, policy.LegacyHostname, policy.Refuse, knownHost)
				r.settings.Listeners[1].OldTLS = true
				client := func(name string) *tls.Config {
					return &tls.Config{ServerName: name, MinVersion: tls.VersionTLS10, MaxVersion: version}
				}
				asked := 0
				r.settings.Certificate = func(*tls.ClientHelloInfo, ServerName) (*tls.Certificate, error) {
					asked++
					return authority().leaf, nil
				}
				alert(t, r, "implicit", client("mail.old.example"))
				e := r.wantEnd("PT", "name_refused")
				if e.SNI != "mail.old.example" || e.Host != "legacy" || e.Action != "refuse" || fmt.Sprint(e.By) != "[r0]" || e.Alert != "" ||
					e.Sentence != "policy refuses the server name mail.old.example (legacy): alert unrecognized_name" || asked != 0 {
					t.Errorf("%d, %+v", asked, e)
				}
				c := r.dial("implicit")
				if err := c.shake(client("toy.example")); err != nil {
					t.Error(err)
				}
				c.close()
				r.wantEnd("CD", "client_closed")
			})
		})
	}
	t.Run("no certificate", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			r := newRig(t)
			var got ServerName
			r.settings.Certificate = func(_ *tls.ClientHelloInfo, n ServerName) (*tls.Certificate, error) {
				got = n
				return nil, nil
			}
			alert(t, r, "implicit", &tls.Config{ServerName: "exact.example"})
			e := r.wantEnd("PT", "name_refused")
			if e.Sentence != "there is no certificate for the server name exact.example (legacy): alert unrecognized_name" || e.Action != "deny" {
				t.Errorf("%+v", e)
			}
			if got.Host != "legacy" || !got.Listed || got.Brand.Name != "test" || got.Fallback != "toy.example" {
				t.Errorf("%+v", got)
			}
			alert(t, r, "implicit", &tls.Config{ServerName: "192.0.2.1"})
			if e := r.event(); e.Sentence != "there is no certificate for a client that names no server: alert unrecognized_name" || e.Host != "absent" {
				t.Errorf("%+v", e)
			}
		})
	})
	t.Run("a session resumed", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			r := newRig(t)
			client := &tls.Config{ServerName: "mail.old.example", ClientSessionCache: tls.NewLRUClientSessionCache(4)}
			c := r.dial("implicit")
			if err := c.shake(client.Clone()); err != nil {
				t.Fatal(err)
			}
			c.want("HELLO proxy.example") // and with it the ticket
			c.close()
			r.settings.Policy = does(t, policy.LegacyHostname, policy.Refuse, knownHost)
			r.apply()
			alert(t, r, "implicit", client.Clone())
			r.wantEnd("PT", "name_refused")
		})
	})
	t.Run("what is refused for something else", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			r := newRig(t)
			r.settings.Policy = does(t, policy.LegacyHostname, policy.Refuse, policy.Term{Fact: policy.Entry, Values: []string{policy.EntryStartTLS}})
			r.settings.Listeners[1].OldTLS = true
			c := r.dial("implicit")
			if err := c.shake(&tls.Config{ServerName: "mail.old.example", MaxVersion: tls.VersionTLS12,
				CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA}}); err != nil {
				t.Error(err) // it is told in the dialogue
			}
			c.close()
			r.wantEnd("CD", "client_closed")
			if c := r.dial("implicit"); c.shake(&tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}) == nil {
				t.Error("old TLS for whom policy refuses anyway")
			}
			r.wantEnd("PT", "handshake_failed")
		})
	})
}

func TestAlertNames(t *testing.T) {
	for number := range 256 {
		name := alertName(fmt.Errorf("wrapped: %w", alertError(uint8(number))))
		if want, ok := alertNames[uint8(number)]; ok && name != want || !ok && name != fmt.Sprintf("alert_%d", number) {
			t.Errorf("%d: %q", number, name)
		}
	}
	for _, err := range []error{nil, io.EOF, errors.New("remote error: tls: unknown certificate authority"),
		&net.OpError{Op: "local error", Err: tls.AlertError(48)}, &net.OpError{Op: remoteError, Err: io.EOF}, &net.OpError{Op: remoteError}} {
		if name := alertName(err); name != "" {
			t.Errorf("%v: %q", err, name)
		}
	}
}

// TestAlertsInClear: OpenSSL's answer to a certificate that it does not take, in
// TLS 1.3, and other last words that crypto/tls does not pass on.
func TestAlertsInClear(t *testing.T) {
	const change = "\x14\x03\x03\x00\x01\x01"
	for _, test := range []struct {
		name        string
		say         []string
		end, reason string
		alert       string
	}{
		{"at once", []string{change + "\x15\x03\x03\x00\x02\x02\x30"}, "CT", "certificate_refused", "unknown_ca"},
		{"in pieces", []string{change[:2], change[2:] + "\x15\x03", "\x03\x00", "\x02\x02", "\x2a"}, "CT", "certificate_refused", "bad_certificate"},
		{"of another version", []string{"\x15\x03\x01\x00\x02\x02\x2e"}, "CT", "certificate_refused", "certificate_unknown"},
		{"about something else", []string{change + "\x15\x03\x03\x00\x02\x02\x50"}, "CT", "client_alert", "internal_error"},
		{"unheard of", []string{"\x15\x03\x03\x00\x02\x02\xfe"}, "CT", "client_alert", "alert_254"},
		{"just closes", nil, "CT", "client_closed", ""},
		{"no alert", []string{change + "\x15\x03\x03\x00\x02\x07\x30"}, "PT", "handshake_failed", ""},
		{"garbage behind it", []string{"\x15\x03\x03\x00\x02\x02\x30" + "x"}, "PT", "handshake_failed", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				r := newRig(t)
				c := r.dial("implicit")
				c.send(helloOf(t, &tls.Config{}))
				go io.Copy(io.Discard, c.conn)
				synctest.Wait()
				for _, piece := range test.say {
					c.conn.Write([]byte(piece))
					synctest.Wait()
				}
				c.close()
				if e := r.wantEnd(test.end, test.reason); e.Alert != test.alert || e.SNI != "" || e.Host != "absent" || e.TLS != "" {
					t.Errorf("%+v", e)
				}
			})
		})
	}
	t.Run("a warning in TLS 1.2", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			r := newRig(t)
			c := r.dial("implicit")
			c.send(helloOf(t, &tls.Config{MaxVersion: tls.VersionTLS12}))
			go io.Copy(io.Discard, c.conn)
			c.send("\x15\x03\x03\x00\x02\x01\x2a")
			c.close()
			if e := r.wantEnd("CT", "certificate_refused"); e.Alert != "bad_certificate" {
				t.Errorf("%+v", e)
			}
		})
	})
}

// helloOf returns the whole first flight of a client.
func helloOf(t *testing.T, client *tls.Config) string {
	t.Helper()
	ours, theirs := newPair("192.0.2.1:1", "192.0.2.2:2")
	done := make(chan bool)
	go func() {
		defer close(done)
		client.InsecureSkipVerify = true
		tls.Client(ours, client).Handshake()
	}()
	w := NewWire(theirs)
	hello, err := w.Peek(5)
	if err == nil {
		hello, err = w.Peek(5 + int(hello[3])<<8 + int(hello[4]))
	}
	if err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	<-done
	return string(hello)
}

// spoiled is a connection whose next bytes are changed on the way.
type spoiled struct {
	net.Conn
	now bool
}

func (s *spoiled) Read(p []byte) (int, error) {
	n, err := s.Conn.Read(p)
	if s.now && n > 0 {
		p[n-1] ^= 1
	}
	return n, err
}

// TestAlertsAfterTheHandshake: GnuTLS and NSS look at the certificate when the
// server thinks that all is well. The alert here is another, the way the same.
func TestAlertsAfterTheHandshake(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for _, where := range []string{"CD", "CR"} {
			bubble(t, func(t *testing.T) {
				r := newRig(t)
				c := r.dial("implicit")
				way := &spoiled{Conn: c.conn}
				c.conn = way
				if err := c.shake(&tls.Config{MaxVersion: version}); err != nil {
					t.Fatal(err)
				}
				c.want("HELLO proxy.example")
				if where == "CR" {
					c.say("LOGIN anna right")
					c.want("OK anna is in")
				}
				way.now = true
				c.say("NOOP")
				if _, err := c.reader.ReadString('\n'); err == nil {
					t.Error("the client took a spoiled line")
				}
				c.close()
				if e := r.wantEnd(where, "client_alert"); e.Alert != "bad_record_mac" || e.Sentence != "the client ended TLS: alert bad_record_mac" {
					t.Errorf("%+v", e)
				}
			})
		}
	}
}

// oneTicket gives the session that it was given last to whoever asks.
type oneTicket struct{ session *tls.ClientSessionState }

func (o *oneTicket) Get(string) (*tls.ClientSessionState, bool) { return o.session, o.session != nil }
func (o *oneTicket) Put(_ string, s *tls.ClientSessionState) {
	if s != nil {
		o.session = s
	}
}

func TestResumption(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for _, test := range []struct {
			name   string
			change func(*rig)
			to     string // listener
			client func(*tls.Config)
			want   bool
		}{
			{"the same", nil, "implicit", nil, true},
			{"upper case", nil, "implicit", func(c *tls.Config) { c.ServerName = "TOY.example" }, true},
			{"a reload", func(r *rig) { r.apply() }, "implicit", nil, true},
			{"a reload without tickets", func(r *rig) { r.settings.Tickets = nil; r.apply() }, "implicit", nil, false},
			{"another listener", nil, "starttls", nil, true},
			{"another name", nil, "implicit", func(c *tls.Config) { c.ServerName = "toy2.example" }, false},
			{"no name", nil, "implicit", func(c *tls.Config) { c.ServerName = "192.0.2.1" }, false},
			{"another front", nil, "another", nil, false},
			{"old TLS switched on", func(r *rig) { r.settings.Listeners[1].OldTLS = true; r.apply() }, "implicit", nil, true},
		} {
			t.Run(tls.VersionName(version)+", "+test.name, func(t *testing.T) {
				bubble(t, func(t *testing.T) {
					r := newRig(t)
					other := *toy()
					other.Name = "another"
					r.brand.Backends["another"], r.brand.Hosts["another"] = r.backend, []string{"toy.example"}
					r.settings.Times.Idle["another"] = time.Minute
					r.settings.Listeners = append(r.settings.Listeners, &Listener{Name: "another", Front: &other, Implicit: true})
					client := &tls.Config{ClientSessionCache: &oneTicket{}, MaxVersion: version}
					once := func(listener string) bool {
						c := r.dial(listener)
						if err := c.shake(client); err != nil {
							t.Fatal(err)
						}
						c.want("HELLO proxy.example")
						c.close()
						e := r.event()
						if did := c.conn.(*tls.Conn).ConnectionState().DidResume; did != e.Resumed {
							t.Errorf("the client resumed: %t, the event says %t", did, e.Resumed)
						}
						return e.Resumed
					}
					if once("implicit") {
						t.Error("resumed the first time")
					}
					if test.change != nil {
						test.change(r)
					}
					if client = client.Clone(); test.client != nil {
						test.client(client)
					}
					if got := once(test.to); got != test.want {
						t.Errorf("resumed: %t", got)
					}
				})
			})
		}
	}
}

// TestOldTicketsStayThere: what was agreed on without forward secrecy is not
// resumed once that is over.
func TestOldTicketsStayThere(t *testing.T) {
	for _, client := range []*tls.Config{
		{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS10},
		{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_RSA_WITH_AES_128_GCM_SHA256}},
	} {
		rsaLeaf()
		bubble(t, func(t *testing.T) {
			r := newRig(t)
			r.settings.Certificate, r.settings.Policy = bothKinds, does(t, policy.TLSOld, policy.Observe, noOldTLS, noLegacy)
			r.settings.Listeners[1].OldTLS = true
			cache := &oneTicket{}
			client.ClientSessionCache = cache
			for i := range 2 {
				c := r.dial("implicit")
				if err := c.shake(client.Clone()); err != nil {
					t.Fatal(err)
				}
				c.want("HELLO proxy.example")
				c.close()
				if e := r.event(); e.Resumed != (i == 1) || e.CipherClass != policy.LegacyCiphers {
					t.Errorf("%+v", e)
				}
			}
			r.settings.Listeners[1].OldTLS = false
			r.apply()
			if c := r.dial("implicit"); c.shake(client.Clone()) == nil {
				t.Error("old TLS was resumed")
			}
			r.wantEnd("PT", "handshake_failed")
			// The same client has learnt something better.
			better := &tls.Config{ClientSessionCache: cache, MinVersion: tls.VersionTLS12, MaxVersion: tls.VersionTLS12,
				CipherSuites: append(slices.Clone(aead), tls.TLS_RSA_WITH_AES_128_GCM_SHA256)}
			c := r.dial("implicit")
			if err := c.shake(better); err != nil {
				t.Fatal(err)
			}
			c.close()
			if e := r.event(); e.Resumed || e.CipherClass != policy.Modern {
				t.Errorf("%+v", e)
			}
		})
	}
}

// TestCertificateThatIsOrdered: whoever orders one waits no longer than the
// client may, and a shutdown does not wait for it.
func TestCertificateThatIsOrdered(t *testing.T) {
	slow := func(r *rig) *talker {
		r.settings.Certificate = func(hello *tls.ClientHelloInfo, _ ServerName) (*tls.Certificate, error) {
			<-hello.Context().Done()
			return nil, hello.Context().Err()
		}
		c := r.dial("implicit")
		go c.shake(&tls.Config{})
		synctest.Wait()
		return c
	}
	bubble(t, func(t *testing.T) {
		r := newRig(t)
		began := time.Now()
		slow(r)
		time.Sleep(r.settings.Times.Handshake - time.Second)
		if r.events() != 0 {
			t.Errorf("ended early: %+v", r.event())
		}
		time.Sleep(time.Second)
		if e := r.wantEnd("LT", "handshake_timeout"); e.SNI != "toy.example" || e.Host != "canonical" || time.Since(began) != r.settings.Times.Handshake {
			t.Errorf("%+v", e)
		}
	})
	bubble(t, func(t *testing.T) {
		r := newRig(t)
		slow(r)
		began := time.Now()
		r.engine.Shutdown(time.Hour, 2*time.Hour)
		if waited := time.Since(began); waited > time.Second {
			t.Errorf("the shutdown took %v", waited)
		}
		r.wantEnd("DT", "shutdown")
	})
	bubble(t, func(t *testing.T) { // cut before it began to leave
		r := newRig(t)
		slow(r)
		r.engine.Shutdown(0, 0)
		r.wantEnd("DT", "shutdown")
	})
}

func TestSuiteNames(t *testing.T) {
	for _, test := range []struct {
		ids  []uint16
		want string
	}{
		{nil, "no suite that is known here"},
		{[]uint16{0x0a0a, 0x00ff, tls.TLS_FALLBACK_SCSV, 0xfafa, 0x0039}, "no suite that is known here"},
		{[]uint16{0x00ff, tls.TLS_RSA_WITH_RC4_128_SHA}, "TLS_RSA_WITH_RC4_128_SHA"},
		{[]uint16{0x0033, 0x0035, 0x0039, 0x000a, 0x0016, 0x0005, 0x002f}, "TLS_RSA_WITH_AES_256_CBC_SHA, TLS_RSA_WITH_3DES_EDE_CBC_SHA, TLS_RSA_WITH_RC4_128_SHA and 4 more"},
	} {
		if got := suiteNames(test.ids); got != test.want {
			t.Errorf("%v: %q", test.ids, got)
		}
	}
}

// dot puts a dot behind the server name of a hello, by way of a name that has
// another last byte.
func dot(t *testing.T) []byte {
	t.Helper()
	hello := []byte(helloOf(t, &tls.Config{ServerName: "mail.old.examplex"}))
	at := bytes.Index(hello, []byte("mail.old.examplex"))
	hello[at+len("mail.old.example")] = '.'
	return hello
}

// TestNameWithADot: crypto/tls ends the handshake before it tells the name; the
// event has it all the same.
func TestNameWithADot(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t)
		c := r.dial("implicit")
		c.send(string(dot(t)))
		go io.Copy(io.Discard, c.conn)
		synctest.Wait()
		c.close()
		e := r.wantEnd("PT", "handshake_failed")
		if e.SNI != "mail.old.example" || e.Host != "legacy" || e.Action != "deny" ||
			e.Sentence != "the TLS handshake failed: the server name in the hello ends with a dot, against RFC 6066 section 3: alert decode_error" {
			t.Errorf("%+v", e)
		}
	})
}

func FuzzDottedName(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte("\x16\x03\x01\x00\x05hello"))
	f.Add([]byte("\x16\x03\x01\x00\x3d\x01\x00\x00\x39\x03\x03" + strings.Repeat("r", 32) + "\x00\x00\x02\x13\x01\x01\x00" +
		"\x00\x0e\x00\x00\x00\x0a\x00\x08\x00\x00\x05a.bc."))
	f.Fuzz(func(t *testing.T, first []byte) {
		name := dottedName(first)
		if name != hostName(name) || name != "" && !bytes.Contains(bytes.ToLower(first), []byte(name+".")) {
			t.Errorf("%q", name)
		}
	})
}

func TestLastAlert(t *testing.T) {
	whole := []byte("...............\x15\x03\x03\x00\x02\x02\x30")
	for ahead := 0; ahead <= len(whole); ahead += 5 {
		for size := 1; size <= len(whole); size++ {
			c := &replay{Conn: readOnly{bytes.NewReader(whole[ahead:])}, ahead: whole[:ahead]}
			c.beginWatch()
			p := make([]byte, size)
			for {
				if _, err := c.Read(p); err != nil {
					break
				}
			}
			if number, ok := c.lastAlert(); !ok || number != 48 {
				t.Errorf("%d ahead, %d at once: %d, %t", ahead, size, number, ok)
			}
			if cap(c.tail) > 2*alertRecord {
				t.Errorf("the tail has grown to %d", cap(c.tail))
			}
		}
	}
}

type readOnly struct{ io.Reader }

func (readOnly) Write([]byte) (int, error)        { return 0, io.ErrClosedPipe }
func (readOnly) Close() error                     { return nil }
func (readOnly) LocalAddr() net.Addr              { return nil }
func (readOnly) RemoteAddr() net.Addr             { return nil }
func (readOnly) SetDeadline(time.Time) error      { return nil }
func (readOnly) SetReadDeadline(time.Time) error  { return nil }
func (readOnly) SetWriteDeadline(time.Time) error { return nil }

// TestOldNames: the exact name goes first, then the longest suffix, then the
// label; a brand without a backend for the front has no say.
func TestOldNames(t *testing.T) {
	r := newRig(t)
	brand := func(name string, patterns ...string) *Brand {
		return &Brand{Name: name, Legacy: patterns, Hosts: map[string][]string{"toy": {"toy." + name + ".example"}},
			Backends: map[string]*Backend{"toy": r.backend}}
	}
	without := brand("without", "imap.both.test", "*.both.test", "imap.*")
	without.Backends, without.Hosts = map[string]*Backend{"other": r.backend}, nil
	r.settings.Brands = append(r.settings.Brands, without,
		brand("label", "imap.*", "MAIL.*", "both.test"),
		brand("suffix", "*.customer.test", "*.test", "both.test"),
		brand("longer", "*.big.customer.test", "imap.*"),
		brand("exact", "IMAP.Big.customer.test", "imap.both.test"))
	s, err := r.settings.prepared()
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"imap.big.customer.test":  "legacy exact true toy.exact.example",
		"pop.big.customer.test":   "legacy longer false toy.longer.example",
		"a.b.big.customer.test":   "legacy longer false toy.longer.example",
		"big.customer.test":       "legacy suffix false toy.suffix.example",
		"imap.small.test":         "legacy suffix false toy.suffix.example",
		"imap.customer.invalid":   "legacy label false toy.label.example",
		"mail.a.b.c":              "legacy label false toy.label.example",
		"both.test":               "legacy label true toy.label.example",
		"imap.both.test":          "legacy exact true toy.exact.example",
		"test":                    "absent test false toy.example",
		"imap":                    "absent test false toy.example",
		"imapx.customer.invalid":  "unknown test false toy.example",
		"x.imap.customer.invalid": "unknown test false toy.example",
		"toy.label.example":       "canonical label false toy.label.example",
		"":                        "absent test false toy.example",
	} {
		n := s.classify(s.Listeners[0], name)
		if got := fmt.Sprint(n.Host, " ", n.Brand.Name, " ", n.Listed, " ", n.Fallback); got != want {
			t.Errorf("%q: %s, want %s", name, got, want)
		}
	}
	for name, want := range map[string]string{
		"imap.big.customer.test": "exact", "imap.customer.invalid": "without", "toy.label.example": "label", "both.test": "label",
		"imap": "", "imap.": "without", "": "", ".": "", "www.customer.invalid": "",
	} {
		got := ""
		if b := s.owner(name); b != nil {
			got = b.Name
		}
		if got != want {
			t.Errorf("%q is of %q, want %q", name, got, want)
		}
	}
	for _, pattern := range []string{"", "*", "*.", ".*", "*.*", "a.*.b", "*a.b", "*.a.*", "a*", "a.b.*", "*.a*"} {
		r.settings.Brands = []*Brand{brand("odd", pattern)}
		if _, err := r.settings.prepared(); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("brand odd: %q is no old name", pattern)) {
			t.Errorf("%q: %v", pattern, err)
		}
	}
}

// TestManyOldNames: they cost a look-up, and nothing that the garbage collector sees.
func TestManyOldNames(t *testing.T) {
	r := newRig(t)
	for i := range 50_000 {
		r.brand.Legacy = append(r.brand.Legacy, fmt.Sprintf("imap.customer%d.test", i))
	}
	began := time.Now()
	s, err := r.settings.prepared()
	if err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("taking them in took %v", took)
	}
	for name, want := range map[string]string{"imap.customer49999.test": "legacy", "a.b.c.d.e.f.g.h.test": "unknown", "toy.example": "canonical"} {
		if allocs := testing.AllocsPerRun(100, func() {
			if got := s.classify(s.Listeners[0], name).Host; got != want {
				t.Errorf("%s: %s", name, got)
			}
		}); allocs != 0 {
			t.Errorf("%s: %v allocations", name, allocs)
		}
	}
}

// What is there is sent in records as long as they may be, from the first one on.
func TestRecordsAreLong(t *testing.T) {
	const mail = 48 << 10
	bubble(t, func(t *testing.T) {
		r := newRig(t)
		r.after = func(conn net.Conn, from *bufio.Reader) {
			from.ReadString('\n')
			conn.Write(make([]byte, mail))
			io.Copy(io.Discard, from)
		}
		c := r.login()
		c.say("FETCH")
		records, header := 0, make([]byte, 5)
		for got := 0; got < mail; records++ {
			if _, err := io.ReadFull(c.raw, header); err != nil {
				t.Fatal(err)
			}
			length := int(binary.BigEndian.Uint16(header[3:]))
			if _, err := io.CopyN(io.Discard, c.raw, int64(length)); err != nil {
				t.Fatal(err)
			}
			got += length
		}
		if records > mail/(16<<10)+1 { // the last may be short
			t.Errorf("%d bytes came in %d records", mail, records)
		}
	})
}
