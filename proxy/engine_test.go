package proxy

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"mailreeve/events"
)

// loopback makes the STARTTLS listener one of TCP.
func loopback(t *testing.T) *rig {
	r := newRig(t)
	r.settings.Listeners[0].ServeHello = false
	r.settings.Listeners[0].Address = "127.0.0.1:0"
	return r
}

func dialTCP(t *testing.T, addr net.Addr) *talker {
	t.Helper()
	c, err := net.Dial("tcp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return talk(t, c)
}

func TestApplyRefusesAndChangesNothing(t *testing.T) {
	r := loopback(t)
	r.apply()
	defer r.engine.Shutdown(0, 0)
	addr := r.engine.Addr("starttls")
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	freed := free.Addr().String()
	free.Close()
	for _, test := range []struct {
		name   string
		change func(s *Settings)
		want   string
	}{
		{"no brand", func(s *Settings) { s.Brands = nil }, "no brand"},
		{"no policy", func(s *Settings) { s.Policy = nil }, "no policy"},
		{"no certificate", func(s *Settings) { s.Certificate = nil }, "no source of certificates"},
		{"name twice", func(s *Settings) { s.Listeners[1].Name = "starttls" }, "two listeners are named starttls"},
		{"host of two brands", func(s *Settings) {
			s.Brands = append(s.Brands, &Brand{Name: "b", Hosts: map[string][]string{"x": {"TOY.example"}}})
		}, "host name toy.example belongs to two brands, test and b"},
		{"no backend", func(s *Settings) { s.Listeners[0].Brand = &Brand{Name: "b"} }, "listener starttls: brand b has no backend for toy"},
		{"host without a backend", func(s *Settings) {
			s.Brands = append(s.Brands, &Brand{Name: "b", Hosts: map[string][]string{"toy": {"b.example"}}})
		}, "brand b: host name b.example is for toy, and there is no backend for it"},
		{"master without a check", func(s *Settings) { s.Brands[0].Backends["toy"].Master = &Master{User: "boss"} },
			"brand test: the backend for toy has a master, and nowhere to check the customer's password"},
		{"no silence", func(s *Settings) { s.Times.Idle = nil }, "listener starttls: no time of silence is allowed for toy"},
		{"address twice", func(s *Settings) { s.Listeners[0].Address, s.Listeners[1].Address = freed, freed },
			"listener implicit: address " + freed + " is used twice"},
		{"busy", func(s *Settings) { s.Listeners[0].Address, s.Listeners[1].Address = freed, busy.Addr().String() },
			"listener implicit: cannot listen on " + busy.Addr().String()},
		{"no address", func(s *Settings) { s.Listeners[1].Address = "nonsense" }, "listener implicit: cannot listen on nonsense"},
	} {
		t.Run(test.name, func(t *testing.T) {
			bad := newRig(t).settings
			bad.Listeners[0].Address = freed
			test.change(bad)
			err := r.engine.Apply(bad)
			if err == nil || !strings.HasPrefix(err.Error(), test.want) {
				t.Fatalf("%v", err)
			}
			var le *ListenError
			if listen := strings.Contains(test.want, "cannot listen"); errors.As(err, &le) != listen || listen && errors.Unwrap(le) == nil {
				t.Errorf("%#v", err)
			}
			if r.engine.Addr("starttls").String() != addr.String() || r.engine.Addr("implicit") != nil {
				t.Error("the sockets have changed")
			}
			if c, err := net.Dial("tcp", freed); err == nil {
				c.Close()
				t.Error("a socket was left open")
			}
			dialTCP(t, addr).want("HELLO proxy.example")
		})
	}
}

func TestReload(t *testing.T) {
	r := loopback(t)
	r.apply()
	defer r.engine.Shutdown(0, 0)
	addr := r.engine.Addr("starttls")
	old := dialTCP(t, addr)
	old.want("HELLO proxy.example")

	next := *r.settings // same address: same socket, new listener
	next.Hostname = "new.example"
	next.Limits.BadCommands = 1
	next.Listeners = []*Listener{{Name: "renamed", Address: "127.0.0.1:0", Front: r.backend.Front}, r.settings.Listeners[1]}
	if err := r.engine.Apply(&next); err != nil {
		t.Fatal(err)
	}
	if r.engine.Addr("renamed").String() != addr.String() || r.engine.Addr("starttls") != nil {
		t.Error("the socket was opened anew")
	}
	dialTCP(t, addr).want("HELLO new.example")
	old.say("x") // which would end a session of the new settings
	old.want("WHAT")
	old.say("NOOP")
	old.want("OK")

	gone := next
	gone.Listeners = next.Listeners[1:]
	if err := r.engine.Apply(&gone); err != nil {
		t.Fatal(err)
	}
	if c, err := net.Dial("tcp", addr.String()); err == nil {
		c.Close()
		t.Error("a listener that was removed goes on")
	}
	old.say("NOOP")
	old.want("OK")
}

// TestReloadWithTheSameListeners: a caller may hand over listeners that
// sessions are just reading.
func TestReloadWithTheSameListeners(t *testing.T) {
	r := newRig(t)
	r.apply()
	defer r.engine.Shutdown(0, 0)
	var wg sync.WaitGroup
	stop := make(chan bool)
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				r.apply()
			}
		}
	})
	for range 20 {
		ours, theirs := newPair("192.0.2.7:1", "198.51.100.1:993")
		if err := r.engine.ServeConn("implicit", theirs); err != nil {
			t.Fatal(err)
		}
		c := tls.Client(ours, &tls.Config{ServerName: "toy.example", InsecureSkipVerify: true})
		talk(t, c).want("HELLO proxy.example")
		ours.Close()
	}
	close(stop)
	wg.Wait()
	if r.settings.names != nil || r.settings.Listeners[0].tls != nil {
		t.Error("Apply changed the settings that it was given")
	}
}

func TestServeConnOfNoListener(t *testing.T) {
	r := newRig(t)
	for range 2 { // before Apply and after
		ours, theirs := newPair("192.0.2.7:1", "198.51.100.1:993")
		if err := r.engine.ServeConn("nobody", theirs); err == nil || err.Error() != "no listener is named nobody" {
			t.Error(err)
		}
		wantEOF(t, ours)
		r.apply()
	}
	r.engine.Shutdown(0, 0)
	ours, theirs := newPair("192.0.2.7:1", "198.51.100.1:993")
	if err := r.engine.ServeConn("implicit", theirs); err == nil || err.Error() != "the proxy is shutting down" {
		t.Error(err)
	}
	wantEOF(t, ours)
	if err := r.engine.Apply(r.settings); err == nil || err.Error() != "the proxy is shutting down" {
		t.Error(err)
	}
}

func TestShutdownOfNothingReturnsAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		began := time.Now()
		new(Engine).Shutdown(time.Minute, time.Hour)
		r := newRig(t)
		c := r.dial("implicit")
		c.close()
		synctest.Wait()
		r.engine.Shutdown(time.Minute, time.Hour)
		r.engine.Shutdown(time.Minute, time.Hour) // once more
		if waited := time.Since(began); waited != 0 {
			t.Errorf("took %v", waited)
		}
	})
}

func TestShutdownBeforeTheLogin(t *testing.T) {
	const words = "BYE The server is restarting. Please connect again."
	for _, test := range []struct {
		name string
		do   func(r *rig) *talker
		want string // last word
		end  string
	}{
		{"talking", func(r *rig) *talker { c := r.dial("starttls"); c.want("HELLO proxy.example"); return c }, words, "DD"},
		{"talking over TLS", func(r *rig) *talker {
			c := r.dial("implicit")
			c.tls("toy.example")
			c.want("HELLO proxy.example")
			return c
		}, words, "DD"},
		{"in a SASL exchange", func(r *rig) *talker {
			c := r.dial("implicit")
			c.tls("toy.example")
			c.want("HELLO proxy.example")
			c.say("AUTH PLAIN")
			return c
		}, words, "DD"},
		{"before a ClientHello", func(r *rig) *talker { return r.dial("implicit") }, "", "DS"},
		{"in a handshake", func(r *rig) *talker { c := r.dial("implicit"); c.send("\x16\x03"); return c }, "", "DT"},
	} {
		t.Run(test.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				r := newRig(t)
				c := test.do(r)
				synctest.Wait()
				began := time.Now()
				over := make(chan time.Duration)
				go func() {
					r.engine.Shutdown(time.Minute, time.Hour)
					over <- time.Since(began)
				}()
				if test.want != "" {
					c.want(test.want)
				}
				c.wantClose()
				if took := <-over; took > linger {
					t.Errorf("took %v", took)
				}
				if e := r.wantEnd(test.end, "shutdown"); e.WrongPort {
					t.Errorf("%+v", e)
				}
			})
		})
	}
	bubble(t, func(t *testing.T) {
		r := balanced(t)
		c := r.dial("implicit", balancer)
		c.send("PROXY")
		synctest.Wait()
		r.engine.Shutdown(time.Minute, time.Hour)
		r.wantEnd("DA", "shutdown")
	})
}

func TestShutdownSpreadsGoodbyes(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t)
		const n = 40
		var moments [n]time.Duration
		var wg sync.WaitGroup
		var began time.Time
		ready := make(chan bool)
		for i := range n {
			c := r.login()
			wg.Go(func() {
				<-ready
				c.want("BYE restarting")
				moments[i] = time.Since(began)
				c.close()
			})
		}
		time.Sleep(quietFor)
		began = time.Now()
		close(ready)
		r.engine.Shutdown(time.Minute, time.Hour)
		wg.Wait()
		slices.Sort(moments[:])
		if first, last := moments[0], moments[n-1]; first > 20*time.Second || last < 40*time.Second || last > 62*time.Second {
			t.Errorf("from %v to %v", first, last)
		}
		for i := range n - n/4 {
			if moments[i+n/4]-moments[i] < 2*time.Second {
				t.Errorf("a quarter left within %v", moments[i+n/4]-moments[i])
			}
		}
		if r.events() != n {
			t.Errorf("%d events", r.events())
		}
		for _, e := range r.all {
			if e.End != "DR" || e.Reason != "shutdown" || !e.Verified {
				t.Errorf("%+v", e)
			}
		}
	})
}

func TestShutdownWaitsForBusySessions(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t)
		r.after = func(conn net.Conn, _ *bufio.Reader) { // a line a second for two minutes
			for range 120 {
				if _, err := io.WriteString(conn, "mail\r\n"); err != nil {
					return
				}
				time.Sleep(time.Second)
			}
			conn.Read(make([]byte, 1))
		}
		c := r.login()
		began := time.Now()
		over := make(chan bool)
		go func() { r.engine.Shutdown(time.Second, time.Hour); close(over) }()
		for range 120 {
			c.want("mail")
		}
		c.want("BYE restarting")
		c.close()
		<-over
		if took := time.Since(began); took < 2*time.Minute || took > 2*time.Minute+5*time.Second {
			t.Errorf("took %v", took)
		}
		r.wantEnd("DR", "shutdown")
	})
}

func TestShutdownsDeadlineCuts(t *testing.T) {
	deadline := 10 * time.Second
	for _, test := range []struct {
		name string
		do   func(r *rig)
		end  string
	}{
		{"in the middle of a line", func(r *rig) {
			r.after = func(conn net.Conn, _ *bufio.Reader) { io.WriteString(conn, "half"); conn.Read(make([]byte, 1)) }
			r.login().reader.Peek(4)
		}, "DR"},
		{"a front without a goodbye", func(r *rig) { r.backend.Front.Goodbye = ""; r.login() }, "DR"},
		{"logging in at a backend that hangs", func(r *rig) {
			r.backend.Login = time.Hour
			c := r.dial("implicit")
			c.tls("toy.example")
			c.want("HELLO proxy.example")
			c.say("LOGIN anna hang")
		}, "DL"},
		{"connecting to a backend that does not answer", func(r *rig) {
			r.backend.Connect = time.Hour
			c := r.dial("implicit")
			c.tls("toy.example")
			c.want("HELLO proxy.example")
			r.fail["one:1"] = errHang
			c.say("LOGIN anna right")
		}, "DL"},
		{"waiting for a backend's greeting", func(r *rig) {
			r.backend.Login = time.Hour
			c := r.dial("implicit")
			c.tls("toy.example")
			c.want("HELLO proxy.example")
			r.serve["one:1"] = func(c net.Conn) { io.Copy(io.Discard, c); c.Close() }
			c.say("LOGIN anna right")
		}, "DL"},
	} {
		t.Run(test.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				r := newRig(t)
				test.do(r)
				synctest.Wait()
				began := time.Now()
				r.engine.Shutdown(time.Second, deadline)
				if took := time.Since(began); took < deadline || took > deadline+time.Second {
					t.Errorf("took %v", took)
				}
				r.wantEnd(test.end, "shutdown")
			})
		})
	}
	bubble(t, func(t *testing.T) { // a backend that is being asked what it offers
		r := newRig(t)
		r.backend.Login, r.backend.Connect = time.Hour, time.Hour
		r.fail["one:1"] = errHang
		c := r.dial("starttls")
		c.want("HELLO proxy.example") // after 5 s, without an offer
		c.close()
		began := time.Now()
		r.engine.Shutdown(time.Second, deadline)
		if took := time.Since(began); took != deadline {
			t.Errorf("took %v", took)
		}
	})
}

// TestClientsThatDoNotReadDoNotHoldUpAShutdown: each would cost ten seconds.
func TestClientsThatDoNotReadDoNotHoldUpAShutdown(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t)
		for range 20 {
			r.login()
		}
		time.Sleep(quietFor)
		began := time.Now()
		r.engine.Shutdown(time.Second, time.Minute)
		if took := time.Since(began); took > 15*time.Second {
			t.Errorf("took %v", took)
		}
	})
}

func TestShutdownAmidConnectionsAndReloads(t *testing.T) {
	r := loopback(t)
	r.apply()
	addr := r.engine.Addr("starttls")
	var wg sync.WaitGroup
	var refused atomic.Bool
	for range 4 {
		wg.Go(func() {
			for !refused.Load() {
				c, err := net.Dial("tcp", addr.String())
				if err != nil {
					return
				}
				c.Close()
				_, theirs := newPair("192.0.2.7:1", "198.51.100.1:993")
				r.engine.ServeConn("implicit", theirs)
			}
		})
	}
	wg.Go(func() {
		for r.engine.Apply(r.settings) == nil {
		}
		refused.Store(true)
	})
	time.Sleep(30 * time.Millisecond)
	r.engine.Shutdown(0, 100*time.Millisecond)
	if n := r.engine.Sessions(); n != 0 {
		t.Errorf("%d sessions are left", n)
	}
	wg.Wait()
	if c, err := net.Dial("tcp", addr.String()); err == nil {
		c.Close()
		t.Error("it still listens")
	}
}

func TestFailuresToRecordAreCounted(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t)
		r.lose = errors.New("no space left on device")
		for range 3 {
			c := r.dial("implicit")
			c.close()
			synctest.Wait()
		}
		lines := r.logs.FilterMessage("recording an event failed").All()
		if len(lines) != 3 || fmt.Sprint(lines[2].ContextMap()["failures"]) != "3" || r.engine.failures.Load() != 3 {
			t.Errorf("%v", lines)
		}
	})
}

func TestWithoutLogAndEvents(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t)
		r.engine.Log, r.engine.Events = nil, nil
		c := r.dial("implicit")
		c.close()
		synctest.Wait()
		if r.engine.Sessions() != 0 {
			t.Error("the session is left")
		}
	})
}

// madRecorder panics.
type madRecorder struct{}

func (madRecorder) Record(*events.Session) error { panic("a mistake in recording") }

func TestAPanicEndsOneSessionAlone(t *testing.T) {
	for _, test := range []struct {
		name string
		do   func(r *rig, c *talker)
		end  string
	}{
		{"talking", func(_ *rig, c *talker) { c.say("PANIC") }, "ED"},
		{"logging in", func(_ *rig, c *talker) { c.say("LOGIN panic right") }, "EL"},
		{"accepting", func(_ *rig, c *talker) { c.say("LOGIN panic-late right") }, "EL"},
		{"greeting", func(r *rig, c *talker) {
			r.serve["one:1"] = func(c net.Conn) { io.WriteString(c, "PANIC\r\n"); io.Copy(io.Discard, c); c.Close() }
			c.say("LOGIN anna right")
		}, "EL"},
		{"watching", func(_ *rig, c *talker) {
			c.say("LOGIN anna right")
			c.want("OK anna is in")
			c.say("boom")
		}, "ER"},
	} {
		t.Run(test.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				r := newRig(t)
				r.backend.Front.Watch = func(func(map[string]string)) func([]byte) bool {
					return func(p []byte) bool {
						if strings.HasPrefix(string(p), "boom") {
							panic("a mistake in watching")
						}
						return false
					}
				}
				bystander := r.login()
				c := r.dial("implicit")
				c.tls("toy.example")
				c.want("HELLO proxy.example")
				test.do(r, c)
				c.wantClose()
				if e := r.wantEnd(test.end, "internal_error"); strings.Contains(e.Sentence, "right") {
					t.Errorf("%+v", e)
				}
				if n := r.logs.FilterLevelExact(zap.ErrorLevel).FilterMessageSnippet("a session failed").Len(); n != 1 {
					t.Errorf("%d lines in the log", n)
				}
				if n := r.engine.Sessions(); n != 1 {
					t.Errorf("%d sessions", n)
				}
				bystander.say("hello")
				bystander.want("echo hello")
				bystander.close()
				// What is not closed now would hold the bubble.
			})
		})
	}
	bubble(t, func(t *testing.T) { // in describing itself, when all is over
		r := newRig(t)
		c := r.dial("implicit")
		c.tls("toy.example")
		c.want("HELLO proxy.example")
		c.say("MAD")
		c.say("QUIT")
		c.want("BYE")
		c.close()
		r.wantEnd("CD", "client_quit")
	})
	bubble(t, func(t *testing.T) {
		r := newRig(t)
		r.engine.Events = madRecorder{}
		c := r.dial("implicit")
		c.close()
		synctest.Wait()
		if r.engine.Sessions() != 0 || r.logs.FilterMessageSnippet("a session failed").Len() != 1 {
			t.Error("the session is left")
		}
	})
	bubble(t, func(t *testing.T) { // beside the sessions
		r := newRig(t)
		r.serve["one:1"] = func(c net.Conn) {
			io.WriteString(c, "READY\r\n")
			bufio.NewReader(c).ReadString('\n')
			io.WriteString(c, "PANIC\r\n")
			io.Copy(io.Discard, c)
			c.Close()
		}
		c := r.dial("starttls")
		c.want("HELLO proxy.example")
		c.close()
		if lines := r.logs.FilterMessageSnippet("cannot be asked").All(); len(lines) != 1 || !strings.Contains(fmt.Sprint(lines[0].ContextMap()), "a mistake in asking") {
			t.Errorf("%v", lines)
		}
	})
}

// lame is a listener whose Accept fails a few times.
type lame struct {
	net.Listener
	errors chan error
}

func (l *lame) Accept() (net.Conn, error) {
	if err, ok := <-l.errors; ok {
		return nil, err
	}
	return nil, net.ErrClosed
}

func TestAcceptErrorsPass(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t)
		l := &lame{errors: make(chan error)}
		r.engine.accepting.Add(1)
		go r.engine.acceptLoop(&socket{Listener: l})
		began := time.Now()
		for range 12 {
			l.errors <- errors.New("too many open files")
		}
		close(l.errors)
		r.engine.accepting.Wait()
		if took := time.Since(began); took < 4*time.Second || took > 12*time.Second {
			t.Errorf("12 errors took %v", took)
		}
		lines := r.logs.FilterMessageSnippet("accepting a connection failed").All()
		if len(lines) != 12 || lines[0].ContextMap()["after"] != 5*time.Millisecond || lines[11].ContextMap()["after"] != time.Second {
			t.Errorf("%v", lines)
		}
	})
}

func TestAddrPort(t *testing.T) {
	if got := addrPort(mustAddr("[::ffff:192.0.2.1]:5")).String(); got != "192.0.2.1:5" {
		t.Error(got)
	}
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	if addrPort(a.RemoteAddr()).IsValid() {
		t.Error("a pipe has an address")
	}
}

// TestOverSockets is a whole session over loopback, resumed once.
func TestOverSockets(t *testing.T) {
	r := newRig(t)
	r.settings.Listeners[1].Address = "127.0.0.1:0"
	r.apply()
	cache := tls.NewLRUClientSessionCache(1)
	for range 2 {
		raw := dialTCP(t, r.engine.Addr("implicit")).conn
		c := talk(t, tls.Client(raw, &tls.Config{ServerName: "toy.example", RootCAs: authority().pool, ClientSessionCache: cache, NextProtos: []string{"toy"}}))
		c.want("HELLO proxy.example")
		c.say("LOGIN anna right")
		c.want("OK anna is in")
		c.say("hello")
		c.want("echo hello")
		c.conn.(*tls.Conn).CloseWrite()
		c.wantClose()
	}
	r.engine.Shutdown(0, time.Minute)
	if len(r.all) != 2 {
		t.Fatalf("%d events", len(r.all))
	}
	// The second session may have been over sooner.
	slices.SortFunc(r.all, func(a, b *events.Session) int { return a.Time.Compare(b.Time) })
	for i, e := range r.all {
		if e.End != "CR" || e.IP.String() != "127.0.0.1" || e.Port == 0 || e.Resumed != (i == 1) || e.ALPN != "toy" {
			t.Errorf("%+v", e)
		}
	}
}

// Port 0 is any port, and two listeners may want one each.
func TestPortsOfTheSystemsChoice(t *testing.T) {
	r := newRig(t)
	r.settings.Listeners[0].Address, r.settings.Listeners[1].Address = "127.0.0.1:0", "127.0.0.1:0"
	r.apply()
	a, b := r.engine.Addr("starttls"), r.engine.Addr("implicit")
	if a == nil || b == nil || a.String() == b.String() {
		t.Errorf("%v and %v", a, b)
	}
	r.engine.Shutdown(0, 0)
}
