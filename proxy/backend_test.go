package proxy

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// connect tries a backend once, and closes what it gets.
func connect(b *Backend) (address string, err error) {
	l, err := b.connect(context.Background(), Origin{Session: "x"})
	if err != nil {
		return "", err
	}
	l.close()
	return l.address, nil
}

func TestBackendsAreTriedInOrder(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t)
		b := r.newBackend(toy(), "one:1", "two:2", "three:3")
		want := func(address, dialled string) {
			t.Helper()
			r.mu.Lock()
			r.dials = nil
			r.mu.Unlock()
			got, err := connect(b)
			if got != address || r.dialled() != dialled {
				t.Errorf("%q, %v after %s; want %q after %s", got, err, r.dialled(), address, dialled)
			}
		}
		want("one:1", "one:1")
		r.fail["one:1"] = errors.New("refused")
		want("two:2", "one:1 two:2")
		want("two:2", "two:2") // the first failed a moment ago
		r.fail["two:2"] = errors.New("refused")
		want("three:3", "two:2 three:3")
		r.fail["three:3"] = errors.New("refused")
		want("", "three:3 one:1 two:2") // at last, those that failed
		delete(r.fail, "two:2")
		want("two:2", "one:1 two:2")
		want("two:2", "two:2")
		delete(r.fail, "one:1")
		time.Sleep(failedFor)
		want("one:1", "one:1")
	})
}

func TestFailedAddressRecoversAfterATime(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t)
		b := r.newBackend(toy(), "one:1", "two:2")
		r.fail["one:1"] = errors.New("refused")
		connect(b)
		delete(r.fail, "one:1")
		time.Sleep(failedFor - time.Nanosecond)
		if got := b.order()[0]; got != "two:2" {
			t.Errorf("tried first: %s", got)
		}
		time.Sleep(time.Nanosecond)
		if got := b.order()[0]; got != "one:1" {
			t.Errorf("tried first: %s", got)
		}
	})
}

func TestFallbackAfterEachFailure(t *testing.T) {
	for name, test := range map[string]struct {
		serve func(net.Conn)
		fail  error
		takes time.Duration
		err   string
	}{
		"refuses":         {nil, errors.New("connection refused"), 0, "backend one:1: connecting: connection refused"},
		"does not answer": {nil, errHang, 5 * time.Second, "backend one:1: connecting: context deadline exceeded"},
		"does not greet":  {func(c net.Conn) { io.Copy(io.Discard, c); c.Close() }, nil, 10 * time.Second, "backend one:1: reading the greeting: "},
		"greets slowly": {func(c net.Conn) {
			defer c.Close()
			for {
				if _, err := io.WriteString(c, "x"); err != nil {
					return
				}
				time.Sleep(time.Second)
			}
		}, nil, 10 * time.Second, "backend one:1: reading the greeting: "},
		"closes": {func(c net.Conn) { c.Close() }, nil, 0, "backend one:1: reading the greeting: EOF"},
		"greets oddly": {func(c net.Conn) { io.WriteString(c, "* BYE overloaded\r\n"); c.Close() }, nil, 0,
			`backend one:1: reading the greeting: the backend greeted with "* BYE overloaded"`},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				r := newRig(t)
				b := r.newBackend(toy(), "one:1", "two:2")
				r.serve["one:1"], r.fail["one:1"] = test.serve, test.fail
				began := time.Now()
				got, err := connect(b)
				if got != "two:2" || err != nil {
					t.Errorf("%q, %v", got, err)
				}
				if took := time.Since(began); took != test.takes {
					t.Errorf("took %v", took)
				}
				b.Addresses = b.Addresses[:1]
				if _, err = connect(b); err == nil || !strings.HasPrefix(err.Error(), test.err) {
					t.Errorf("%v", err)
				}
				time.Sleep(time.Second) // the slow one's last word
			})
		})
	}
}

func TestBackendWithoutAddresses(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t)
		r.backend.Addresses = nil
		c := r.dial("implicit")
		c.tls("toy.example")
		c.want("HELLO proxy.example")
		c.say("LOGIN anna right")
		c.wantPrefix("NO unavailable ")
		c.close()
	})
}

func TestConnectOverTCP(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan bool)
	go func() {
		defer close(done)
		c, err := ln.Accept()
		if err == nil {
			toyBackend(c, nil)
		}
	}()
	b := &Backend{Front: toy(), Addresses: []string{ln.Addr().String()}, Connect: time.Second, Login: time.Second}
	address, offer, err := b.Probe(t.Context())
	if address != ln.Addr().String() || fmt.Sprint(offer.Mechs) != "[PLAIN XOAUTH2 SIZE]" || err != nil {
		t.Errorf("%s, %v, %v", address, offer, err)
	}
	<-done
	ln.Close()
	if _, _, err := b.Probe(t.Context()); err == nil || !strings.Contains(err.Error(), "connection refused") {
		t.Error(err)
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := b.Probe(cancelled); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestProbeThatGetsNoAnswer(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t)
		r.serve["one:1"] = func(c net.Conn) { io.WriteString(c, "READY\r\n"); c.Read(make([]byte, 100)); c.Close() }
		if address, _, err := r.backend.Probe(t.Context()); address != "one:1" || err == nil || err.Error() != "backend one:1: asking what it offers: EOF" {
			t.Errorf("%s, %v", address, err)
		}
	})
}

// secureBackend is the server's side of a hop with TLS.
func secureBackend(starttls bool, names chan<- string) func(net.Conn) {
	return func(conn net.Conn) {
		defer conn.Close()
		if starttls {
			io.WriteString(conn, "READY\r\n")
			p := make([]byte, len("STARTTLS\r\n"))
			if _, err := io.ReadFull(conn, p); err != nil || string(p) != "STARTTLS\r\n" {
				return
			}
			io.WriteString(conn, "GO\r\n")
		}
		c := tls.Server(conn, &tls.Config{GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			names <- hello.ServerName
			return authority().leaf, nil
		}})
		if c.Handshake() != nil {
			return
		}
		if starttls {
			toyAfterTLS(c)
			return
		}
		toyBackend(c, nil)
	}
}

// toyAfterTLS is the toy backend without a greeting.
func toyAfterTLS(c net.Conn) {
	near, far := net.Pipe()
	go toyBackend(far, nil)
	defer near.Close()
	near.Read(make([]byte, len("READY\r\n")))
	go func() { io.Copy(near, c); near.Close() }()
	io.Copy(c, near)
}

func TestHops(t *testing.T) {
	pin := func(want [32]byte) func(tls.ConnectionState) error {
		return func(s tls.ConnectionState) error {
			if sha256.Sum256(s.PeerCertificates[0].Raw) != want {
				return errors.New("the certificate is not the one pinned")
			}
			return nil
		}
	}
	right := sha256.Sum256(authority().leaf.Certificate[0])
	for _, test := range []struct {
		name    string
		address string
		config  *tls.Config
		sni     string
		err     string
	}{
		{"the address's name", "one:1", &tls.Config{RootCAs: authority().pool}, "one", ""},
		{"an address in brackets", "[::1]:1", &tls.Config{RootCAs: authority().pool}, "", ""},
		{"a name of its own", "10.0.0.1:1", &tls.Config{RootCAs: authority().pool, ServerName: "mail.example"}, "mail.example", ""},
		{"wrong name", "three:3", &tls.Config{RootCAs: authority().pool}, "three", "not three"},
		{"unknown CA", "one:1", &tls.Config{}, "one", "unknown authority"},
		{"no configuration", "one:1", nil, "one", "unknown authority"},
		{"right pin", "three:3", &tls.Config{InsecureSkipVerify: true, VerifyConnection: pin(right)}, "three", ""},
		{"wrong pin", "three:3", &tls.Config{InsecureSkipVerify: true, VerifyConnection: pin([32]byte{1})}, "three", "not the one pinned"},
		{"no host in the address", "nonsense", &tls.Config{RootCAs: authority().pool}, "", "reading the address"},
	} {
		for _, hop := range []Hop{HopImplicit, HopStartTLS} {
			t.Run(fmt.Sprint(test.name, hop), func(t *testing.T) {
				bubble(t, func(t *testing.T) {
					r := newRig(t)
					names := make(chan string, 1)
					b := r.newBackend(toy(), test.address)
					b.Hop, b.TLS = hop, test.config
					r.serve[test.address] = secureBackend(hop == HopStartTLS, names)
					_, offer, err := b.Probe(t.Context())
					if test.err == "" && (err != nil || len(offer.Mechs) != 3) || test.err != "" && (err == nil || !strings.Contains(err.Error(), test.err)) {
						t.Errorf("%v, %v", offer, err)
					}
					if test.address == "nonsense" {
						return
					}
					if got := <-names; got != test.sni {
						t.Errorf("the backend was called %q", got)
					}
					if test.err != "" && !strings.Contains(err.Error(), "in the TLS handshake: ") {
						t.Errorf("%v", err)
					}
				})
			})
		}
	}
}

func TestHopsThatDoNotBecomeSecure(t *testing.T) {
	for name, test := range map[string]struct {
		answer, err string
		takes       time.Duration
	}{
		"not offered": {"NEVER\r\n", `asking for STARTTLS: the backend said "NEVER"`, 0},
		"injection":   {"GO\r\nOK anna is in\r\n", "asking for STARTTLS: 15 bytes came in clear behind the go-ahead", 0},
		"no TLS":      {"GO\r\n", "in the TLS handshake: ", 10 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				r := newRig(t)
				r.backend.Hop, r.backend.TLS = HopStartTLS, &tls.Config{RootCAs: authority().pool}
				r.serve["one:1"] = func(c net.Conn) {
					defer c.Close()
					io.WriteString(c, "READY\r\n")
					c.Read(make([]byte, 100))
					io.WriteString(c, test.answer)
					io.Copy(io.Discard, c)
				}
				began := time.Now()
				if _, err := connect(r.backend); err == nil || !strings.Contains(err.Error(), test.err) {
					t.Errorf("%v", err)
				}
				if took := time.Since(began); took != test.takes {
					t.Errorf("took %v", took)
				}
			})
		})
	}
}

// TestOffers: asked once, refreshed beside the sessions, believed when stale.
func TestOffers(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t)
		b := r.backend
		var slow time.Duration
		r.serve["one:1"] = func(c net.Conn) { time.Sleep(slow); toyBackend(c, nil) }
		spawn := func(task func(context.Context)) { go task(context.Background()) }
		asked := func() int {
			synctest.Wait()
			r.mu.Lock()
			defer r.mu.Unlock()
			return len(r.dials)
		}
		offers := func(want int, waits time.Duration, bad bool) {
			t.Helper()
			began := time.Now()
			o, err := b.offers(context.Background(), spawn)
			if len(o.Mechs) != want || (err != nil) != bad {
				t.Errorf("%v, %v", o, err)
			}
			if waited := time.Since(began); waited != waits {
				t.Errorf("waited %v", waited)
			}
		}
		slow = time.Second
		done := make(chan bool)
		for range 10 { // a herd asks once
			go func() { offers(3, time.Second, false); done <- true }()
		}
		for range 10 {
			<-done
		}
		offers(3, 0, false)
		if asked() != 1 {
			t.Errorf("asked %d times", asked())
		}
		time.Sleep(offerFresh)
		offers(3, 0, false)
		if asked() != 1 {
			t.Errorf("asked %d times within a minute", asked())
		}
		time.Sleep(time.Nanosecond)
		slow = 8 * time.Second
		offers(3, 0, false) // stale, and serves while it is refreshed
		offers(3, 0, false)
		if asked() != 2 {
			t.Errorf("asked %d times", asked())
		}
		time.Sleep(10 * time.Second)
		slow = 0
		r.mu.Lock()
		r.fail["one:1"] = errors.New("refused")
		r.mu.Unlock()
		time.Sleep(offerFresh + 1)
		offers(3, 0, false)
		synctest.Wait()
		offers(3, 0, true) // the old answer stays, and the failure is known
		time.Sleep(offerFailed)
		if offers(3, 0, true); asked() != 3 {
			t.Errorf("asked %d times", asked())
		}
		time.Sleep(time.Millisecond)
		r.mu.Lock()
		delete(r.fail, "one:1")
		r.mu.Unlock()
		offers(3, 0, true)
		synctest.Wait()
		offers(3, 0, false)
	})
	bubble(t, func(t *testing.T) { // a backend that is dead from the beginning
		r := newRig(t)
		r.fail["one:1"] = errHang
		r.backend.Connect = 20 * time.Second
		c := r.dial("starttls")
		began := time.Now()
		c.want("HELLO proxy.example")
		if waited := time.Since(began); waited != sniffPatience+offerPatience {
			t.Errorf("greeted after %v", waited)
		}
		time.Sleep(20 * time.Second)
		for range 3 { // once that is known nobody waits
			c := r.dial("starttls")
			began = time.Now()
			c.want("HELLO proxy.example")
			if waited := time.Since(began); waited != sniffPatience {
				t.Errorf("greeted after %v", waited)
			}
			time.Sleep(30 * time.Second)
			c.close()
		}
	})
	bubble(t, func(t *testing.T) {
		r := newRig(t)
		r.fail["one:1"] = errHang
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := r.backend.offers(ctx, func(task func(context.Context)) { go task(context.Background()) })
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		time.Sleep(time.Minute)
	})
}

func TestSessionFallsBack(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t)
		r.backend.Addresses = []string{"one:1", "two:2"}
		r.fail["one:1"] = errors.New("refused")
		c := r.dial("implicit")
		c.tls("toy.example")
		c.want("HELLO proxy.example")
		c.say("LOGIN anna right")
		c.want("OK anna is in")
		c.close()
		time.Sleep(time.Minute)
		if e := r.event(); e.Backend != "two:2" {
			t.Errorf("%+v", e)
		}
	})
}
