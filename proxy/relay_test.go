package proxy

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

// joint is a relay with both far ends at hand.
type joint struct {
	*relay
	client, backend *duplex // far ends
	ended           chan *Ending
}

const idleTime = 31 * time.Minute

func newJoint(aheadUp, aheadDown string) *joint {
	client, near := newPair("192.0.2.1:1", "192.0.2.2:2")
	backend, far := newPair("192.0.2.3:3", "192.0.2.2:2")
	up, down := NewWire(near), NewWire(far)
	up.buf, up.w = []byte(aheadUp), len(aheadUp)
	down.buf, down.w = []byte(aheadDown), len(aheadDown)
	j := &joint{client: client, backend: backend, ended: make(chan *Ending, 1)}
	j.relay = newRelay(up, down, idleTime, new(wheel))
	j.relay.over = func(e *Ending) { j.ended <- e }
	j.relay.mistake = func(p any) *Ending { return &Ending{who: byError, Reason: fmt.Sprint(p)} }
	return j
}

func (j *joint) start() {
	j.lodge(new(parking).port)
	j.relay.start()
}

func (j *joint) cut() { j.ask(toEnd) }

// wantEnd wants the relay over now, for a reason; both far ends closed.
func (j *joint) wantEnd(t *testing.T, who byte, reason string) {
	t.Helper()
	synctest.Wait()
	select {
	case e := <-j.ended:
		if e.who != who || e.Reason != reason {
			t.Errorf("ended by %c, %s (%s); want %c, %s", e.who, e.Reason, e.Sentence, who, reason)
		}
	default:
		t.Fatal("the relay goes on")
	}
	for name, conn := range map[string]net.Conn{"client": j.client, "backend": j.backend} {
		conn.SetReadDeadline(time.Now().Add(time.Second))
		if _, err := io.Copy(io.Discard, conn); err != nil && err != io.ErrClosedPipe { // by itself
			t.Errorf("the %s's connection is not closed: %v", name, err)
		}
	}
}

func (j *joint) wantRunning(t *testing.T) {
	t.Helper()
	synctest.Wait()
	select {
	case e := <-j.ended:
		t.Fatalf("ended: %v", e)
	default:
	}
}

func wantBytes(t *testing.T, conn net.Conn, want string) {
	t.Helper()
	p := make([]byte, len(want))
	conn.SetReadDeadline(time.Now().Add(time.Second))
	defer conn.SetReadDeadline(time.Time{})
	if n, err := io.ReadFull(conn, p); err != nil || string(p) != want {
		t.Fatalf("heard %q and %v, want %q", p[:n], err, want)
	}
}

func wantEOF(t *testing.T, conn net.Conn) {
	t.Helper()
	conn.SetReadDeadline(time.Now().Add(time.Second))
	if n, err := conn.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Fatalf("heard %d bytes and %v, want the end", n, err)
	}
}

func relayed(t *testing.T, aheadUp, aheadDown string, f func(*testing.T, *joint)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		j := newJoint(aheadUp, aheadDown)
		j.start()
		defer j.cut()
		f(t, j)
	})
}

func TestReadAheadGoesFirst(t *testing.T) {
	relayed(t, "pipelined\r\n", "early\r\n", func(t *testing.T, j *joint) {
		go io.WriteString(j.client, "then this")
		go io.WriteString(j.backend, "then that")
		wantBytes(t, j.backend, "pipelined\r\nthen this")
		wantBytes(t, j.client, "early\r\nthen that")
		synctest.Wait()
		if j.relay.client.buf != nil || j.relay.backend.buf != nil {
			t.Error("an idle session keeps the dialogue's buffers")
		}
	})
}

func TestClientHalfCloses(t *testing.T) {
	relayed(t, "", "", func(t *testing.T, j *joint) {
		go func() { io.WriteString(j.client, "QUIT\r\n"); j.client.CloseWrite() }()
		wantBytes(t, j.backend, "QUIT\r\n")
		wantEOF(t, j.backend)
		for range 5 { // the backend may go on for longer than the last gasp while it speaks
			time.Sleep(lastGasp - time.Second)
			go io.WriteString(j.backend, "still here\r\n")
			wantBytes(t, j.client, "still here\r\n")
		}
		j.backend.Close()
		wantEOF(t, j.client)
		j.wantEnd(t, byClient, "client_closed")
	})
}

func TestBackendHalfCloses(t *testing.T) {
	relayed(t, "", "", func(t *testing.T, j *joint) {
		go func() { io.WriteString(j.backend, "bye\r\n"); j.backend.CloseWrite() }()
		wantBytes(t, j.client, "bye\r\n")
		wantEOF(t, j.client)
		go io.WriteString(j.client, "a last word")
		wantBytes(t, j.backend, "a last word")
		j.client.Close()
		wantEOF(t, j.backend)
		j.wantEnd(t, byBackend, "backend_closed")
	})
}

func TestClientThatIsNotHeardAnyMoreIsCut(t *testing.T) {
	relayed(t, "", "", func(t *testing.T, j *joint) {
		j.backend.Close()
		wantEOF(t, j.client)
		time.Sleep(linger - time.Millisecond)
		j.wantRunning(t)
		time.Sleep(2 * tick)
		j.wantEnd(t, byBackend, "backend_closed")
	})
}

// TestSlowClientTakesTheLastWords: how long a client may take to close counts from when it
// has taken all, not from when the backend had said all.
func TestSlowClientTakesTheLastWords(t *testing.T) {
	relayed(t, "", "", func(t *testing.T, j *joint) {
		last := strings.Repeat("x", 40<<10)
		go func() { io.WriteString(j.backend, last); j.backend.Close() }()
		heard := 0
		for heard < len(last) {
			time.Sleep(linger) // three minutes in all
			n, err := j.client.Read(make([]byte, 1<<10))
			if heard += n; err != nil {
				t.Fatalf("after %d bytes: %v", heard, err)
			}
		}
		synctest.Wait()
		time.Sleep(linger - time.Second)
		j.wantRunning(t)
		time.Sleep(time.Second + 2*tick)
		j.wantEnd(t, byBackend, "backend_closed")
	})
}

// TestGoodbyeBesideAChattyBackend: who was told goodbye is gone after linger, whatever
// the backend says; and nothing of that counts as told.
func TestGoodbyeBesideAChattyBackend(t *testing.T) {
	relayed(t, "", "", func(t *testing.T, j *joint) {
		j.goodbye = "* BYE restarting\r\n"
		time.Sleep(time.Minute)
		go j.ask(toLeave)
		wantBytes(t, j.client, j.goodbye)
		wantEOF(t, j.client)
		for range 2 {
			io.WriteString(j.backend, "* 5 EXISTS\r\n")
			time.Sleep(linger/2 - tick)
			j.wantRunning(t)
		}
		io.WriteString(j.backend, "* 6 EXISTS\r\n")
		time.Sleep(4 * tick)
		j.wantEnd(t, byDrain, "shutdown")
		if _, out := j.relay.client.Counts(); out != int64(len(j.goodbye)) {
			t.Errorf("%d bytes count as told", out)
		}
	})
}

func TestBackendThatDoesNotAnswerTheEndIsCut(t *testing.T) {
	relayed(t, "", "", func(t *testing.T, j *joint) {
		j.client.CloseWrite()
		time.Sleep(lastGasp - time.Millisecond)
		j.wantRunning(t)
		time.Sleep(2 * tick)
		j.wantEnd(t, byClient, "client_closed")
	})
}

func TestResets(t *testing.T) {
	relayed(t, "", "", func(t *testing.T, j *joint) {
		j.client.reset()
		j.wantEnd(t, byClient, "client_reset")
	})
	relayed(t, "", "", func(t *testing.T, j *joint) {
		j.backend.reset()
		wantEOF(t, j.client)
		j.client.Close()
		j.wantEnd(t, byBackend, "backend_reset")
	})
}

// TestBackendsLastWordsReachTheClient: a backend that stops reading may have
// said why.
func TestBackendsLastWordsReachTheClient(t *testing.T) {
	relayed(t, "", "", func(t *testing.T, j *joint) {
		j.backend.in.Close() // writes towards it now fail
		go io.WriteString(j.client, "more\r\n")
		synctest.Wait()
		go func() { io.WriteString(j.backend, "* BYE too much\r\n"); j.backend.CloseWrite() }()
		wantBytes(t, j.client, "* BYE too much\r\n")
		wantEOF(t, j.client)
		j.wantEnd(t, byBackend, "backend_closed")
	})
}

func TestClientThatStopsReadingEndsIt(t *testing.T) {
	relayed(t, "", "", func(t *testing.T, j *joint) {
		j.client.in.Close()
		go io.WriteString(j.backend, "mail\r\n")
		j.wantEnd(t, byClient, "client_closed")
	})
}

func TestIdleTimeout(t *testing.T) {
	relayed(t, "", "", func(t *testing.T, j *joint) {
		time.Sleep(idleTime - time.Nanosecond)
		j.wantRunning(t)
		time.Sleep(2 * tick)
		j.wantEnd(t, byLimit, "idle_timeout")
	})
	relayed(t, "", "", func(t *testing.T, j *joint) {
		// IDLE is renewed every 29 minutes (RFC 2177), in either direction.
		for i := range 20 {
			time.Sleep(29 * time.Minute)
			if i%2 == 0 {
				go io.WriteString(j.client, "DONE\r\n")
				wantBytes(t, j.backend, "DONE\r\n")
			} else {
				go io.WriteString(j.backend, "* OK still here\r\n")
				wantBytes(t, j.client, "* OK still here\r\n")
			}
		}
		time.Sleep(30 * time.Minute) // RFC 9051 section 5.4
		j.wantRunning(t)
		time.Sleep(time.Minute - time.Nanosecond)
		j.wantRunning(t)
		time.Sleep(2 * tick)
		j.wantEnd(t, byLimit, "idle_timeout")
	})
}

func TestIdleTimeoutOfABlockedReader(t *testing.T) {
	relayed(t, "", "", func(t *testing.T, j *joint) {
		go io.WriteString(j.backend, "nobody reads this\r\n")
		time.Sleep(idleTime - time.Second)
		j.wantRunning(t)
		time.Sleep(time.Second + 2*tick)
		j.wantEnd(t, byLimit, "idle_timeout")
	})
}

func TestSlowReaderHoldsTheOtherBack(t *testing.T) {
	for _, way := range []string{"down", "up"} {
		relayed(t, "", "", func(t *testing.T, j *joint) {
			from, to := j.backend, j.client
			if way == "up" {
				from, to = j.client, j.backend
			}
			const size = 4 << 20
			go func() {
				for range size / 1024 {
					if _, err := from.Write(bytes.Repeat([]byte("x"), 1024)); err != nil {
						return
					}
				}
				from.CloseWrite()
			}()
			synctest.Wait()
			if n := from.written.Load(); n > 3*relayBuffer {
				t.Errorf("%s: %d bytes were taken that nobody reads", way, n)
			}
			read := 0
			p := make([]byte, 100_000)
			for range 10 {
				time.Sleep(time.Minute)
				n, err := to.Read(p)
				if err != nil {
					t.Fatal(err)
				}
				read += n
				synctest.Wait()
				if ahead := from.written.Load() - int64(read); ahead > 3*relayBuffer {
					t.Errorf("%s: %d bytes are held", way, ahead)
				}
			}
			n, err := io.Copy(io.Discard, to)
			if err != nil || read+int(n) != size {
				t.Errorf("%s: %d bytes came, %v", way, read+int(n), err)
			}
		})
	}
}

// says reports whether the client is now told goodbye.
func (j *joint) says() bool {
	before := j.client.other.written.Load()
	j.ask(toLeave)
	synctest.Wait()
	return j.turn == saidGoodbye && before == j.client.other.written.Load() // the pipe waits for its reader
}

func TestGoodbye(t *testing.T) {
	const goodbye = "* BYE restarting\r\n"
	over := quietFor + 2*tick
	relayed(t, "", "", func(t *testing.T, j *joint) {
		j.goodbye = goodbye
		if j.says() {
			t.Error("said at once: something may be under way")
		}
		time.Sleep(over)
		if !j.says() {
			t.Fatal("no goodbye to an idle client")
		}
		j.ask(toLeave) // a second time
		wantBytes(t, j.client, goodbye)
		wantEOF(t, j.client)
		j.client.Close()
		synctest.Wait()
		j.backend.Close()
		j.wantEnd(t, byDrain, "shutdown")
	})
	relayed(t, "", "", func(t *testing.T, j *joint) {
		j.goodbye = goodbye
		go io.WriteString(j.backend, "* 1 FETCH (BODY {100}\r\nhalf a li")
		wantBytes(t, j.client, "* 1 FETCH (BODY {100}\r\nhalf a li")
		time.Sleep(time.Minute)
		if j.says() {
			t.Error("a goodbye in the middle of a line")
		}
		go io.WriteString(j.backend, "ne\r\n")
		wantBytes(t, j.client, "ne\r\n")
		if j.says() {
			t.Error("a goodbye while bytes move")
		}
		time.Sleep(over)
		if !j.says() {
			t.Fatal("no goodbye at the end of the line")
		}
		time.Sleep(linger + 2*tick) // the client reads nothing: it is cut all the same
		j.wantEnd(t, byDrain, "shutdown")
	})
	relayed(t, "", "", func(t *testing.T, j *joint) {
		j.goodbye = goodbye
		go io.WriteString(j.backend, "a blocked line\r\n")
		time.Sleep(time.Minute)
		if j.says() {
			t.Error("a goodbye into a line that is being written")
		}
	})
	relayed(t, "", "", func(t *testing.T, j *joint) { // POP3 has no word for it
		time.Sleep(time.Minute)
		if j.says() {
			t.Error("a goodbye without words")
		}
	})
	relayed(t, "", "", func(t *testing.T, j *joint) {
		j.goodbye = goodbye
		time.Sleep(time.Minute)
		j.client.CloseWrite()
		synctest.Wait()
		if j.says() {
			t.Error("a goodbye to a client that has left")
		}
	})
}

// TestWatchThatPanics: it is the end of this session, both ways, and of nothing else.
func TestWatchThatPanics(t *testing.T) {
	relayed(t, "", "", func(t *testing.T, j *joint) {
		j.watch = func([]byte) bool { panic("a mistake") }
		go io.WriteString(j.client, "x\r\n")
		j.wantEnd(t, byError, "a mistake")
	})
}

func TestWatchSeesTheBeginning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := newJoint("one", "")
		var seen []string
		j.watch = func(p []byte) bool { seen = append(seen, string(p)); return len(seen) == 2 }
		j.start()
		for _, say := range []string{"two", "three"} {
			go io.WriteString(j.client, say)
			synctest.Wait()
			wantBytes(t, j.backend, map[string]string{"two": "onetwo"[:len("one")], "three": "two"}[say])
			synctest.Wait()
		}
		wantBytes(t, j.backend, "three")
		if fmt.Sprint(seen) != "[one two]" {
			t.Errorf("seen: %v", seen)
		}
		j.cut()
		<-j.ended
	})
}

// TestRelayDelivers compares random writes and closes with what a simple
// reference says: all that one side wrote before its end reaches the other.
func TestRelayDelivers(t *testing.T) {
	type deed struct {
		client bool
		kind   string // say, end, pause
		n      int
	}
	rapid.Check(t, func(rt *rapid.T) {
		deeds := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) deed {
			return deed{rapid.Bool().Draw(t, "client"), rapid.SampledFrom([]string{"say", "say", "say", "pause", "end"}).Draw(t, "kind"),
				rapid.IntRange(1, 50_000).Draw(t, "n")}
		}), 0, 20).Draw(rt, "deeds")
		aheadUp := rapid.StringN(0, 50, 50).Draw(rt, "ahead up")
		aheadDown := rapid.StringN(0, 50, 50).Draw(rt, "ahead down")
		overTLS := rapid.Bool().Draw(rt, "tls")
		chunk := rapid.IntRange(1, 70_000).Draw(rt, "read size")
		wantUp, wantDown := []byte(aheadUp), []byte(aheadDown)
		var gotUp, gotDown []byte
		synctest.Test(t, func(t *testing.T) {
			j := newJoint(aheadUp, aheadDown)
			var client, backend interface {
				net.Conn
				CloseWrite() error
			} = j.client, j.backend
			if overTLS {
				server := tls.Server(&replay{Conn: j.relay.client.conn}, &tls.Config{Certificates: []tls.Certificate{*authority().leaf}})
				c := tls.Client(j.client, &tls.Config{InsecureSkipVerify: true})
				go c.Handshake()
				if err := server.Handshake(); err != nil {
					t.Fatal(err)
				}
				j.relay.client.secure(server)
				client = c
			}
			j.start()
			var readers, writers sync.WaitGroup
			take := func(conn net.Conn, got *[]byte) {
				p := make([]byte, chunk)
				for {
					n, err := conn.Read(p)
					*got = append(*got, p[:n]...)
					if err != nil {
						return
					}
				}
			}
			readers.Go(func() { take(client, &gotDown) })
			readers.Go(func() { take(backend, &gotUp) })
			act := func(mine bool, conn interface {
				net.Conn
				CloseWrite() error
			}, want *[]byte) {
				rested := false // two pauses in a row might be longer than linger
				for i, d := range deeds {
					if d.client != mine || d.kind == "pause" && rested {
						continue
					}
					rested = d.kind == "pause"
					switch d.kind {
					case "say":
						p := bytes.Repeat([]byte{byte('a' + i)}, d.n)
						*want = append(*want, p...)
						if _, err := conn.Write(p); err != nil {
							t.Error(err)
						}
					case "pause":
						time.Sleep(time.Duration(d.n) * time.Millisecond / 20) // below linger
					case "end":
						conn.CloseWrite()
						return
					}
				}
				conn.CloseWrite()
			}
			writers.Go(func() { act(true, client, &wantUp) })
			writers.Go(func() { act(false, backend, &wantDown) })
			writers.Wait()
			readers.Wait()
			<-j.ended
		})
		if !bytes.Equal(gotUp, wantUp) {
			rt.Fatalf("the backend got %d bytes, want %d", len(gotUp), len(wantUp))
		}
		if !bytes.Equal(gotDown, wantDown) {
			rt.Fatalf("the client got %d bytes, want %d", len(gotDown), len(wantDown))
		}
	})
}

// TestRelayOverSockets moves megabytes over loopback, TLS on one side.
func TestRelayOverSockets(t *testing.T) {
	parking := new(parking)
	defer parking.close()
	for name, at := range map[string]func(net.Conn, *relay) port{"parked": parking.port, "pumped": newPump} {
		t.Run(name, func(t *testing.T) { relayOverSockets(t, at) })
	}
}

func relayOverSockets(t *testing.T, at func(net.Conn, *relay) port) {
	clientFar, clientNear := tcpEnds(t)
	backendNear, backendFar := tcpEnds(t)
	up, down := NewWire(clientNear), NewWire(backendNear)
	server := tls.Server(up.raw(), &tls.Config{Certificates: []tls.Certificate{*authority().leaf}})
	client := tls.Client(clientFar, &tls.Config{InsecureSkipVerify: true})
	go client.Handshake()
	if err := server.Handshake(); err != nil {
		t.Fatal(err)
	}
	up.secure(server)
	r := newRelay(up, down, time.Minute, new(wheel))
	ended := make(chan *Ending)
	r.over = func(e *Ending) { ended <- e }
	r.lodge(at)
	r.start()
	const size = 3 << 20
	go func() {
		io.Copy(client, strings.NewReader(strings.Repeat("c", size)))
		client.CloseWrite()
	}()
	go func() {
		io.Copy(backendFar, strings.NewReader(strings.Repeat("b", size)))
	}()
	var wg sync.WaitGroup
	wg.Go(func() {
		if n, err := io.Copy(io.Discard, io.LimitReader(client, size)); n != size || err != nil {
			t.Errorf("the client got %d bytes, %v", n, err)
		}
	})
	wg.Go(func() {
		n, err := io.Copy(io.Discard, backendFar)
		if n != size || err != nil {
			t.Errorf("the backend got %d bytes, %v", n, err)
		}
	})
	wg.Wait()
	backendFar.Close()
	if e := <-ended; e.who != byClient || e.Reason != "client_closed" {
		t.Error(e)
	}
	clientFar.Close()
	if in, out := up.Counts(); in != size || out != size {
		t.Errorf("counted %d and %d", in, out)
	}
}

func TestEndings(t *testing.T) {
	sys := func(e syscall.Errno) error { return &net.OpError{Op: "read", Err: os.NewSyscallError("read", e)} }
	for _, test := range []struct {
		err    error
		who    byte
		reason string
	}{
		{io.EOF, 'C', "client_closed"},
		{io.ErrUnexpectedEOF, 'C', "client_closed"},
		{net.ErrClosed, 'C', "client_closed"},
		{os.ErrDeadlineExceeded, 'L', "client_timeout"},
		{sys(syscall.ECONNRESET), 'C', "client_reset"},
		{sys(syscall.EPIPE), 'C', "client_reset"},
		{sys(syscall.ETIMEDOUT), 'C', "client_lost"},
		{sys(syscall.EHOSTUNREACH), 'C', "client_lost"},
		{errors.New("odd"), 'C', "client_error"},
		{fmt.Errorf("reading: %w", ErrLineTooLong), 'P', "line_too_long"},
		{fmt.Errorf("deep: %w", Quit), 'C', "client_quit"},
		{notHTTP([]byte("GET / HTTP/1.1")), 'P', "other_protocol"},
	} {
		e := ended(byClient, test.err)
		if e.who != test.who || e.Reason != test.reason || e.Sentence == "" {
			t.Errorf("%v: %c, %v", test.err, e.who, e)
		}
	}
	if e := ended(byBackend, io.EOF); e.who != 'B' || e.Reason != "backend_closed" || !strings.Contains(e.Error(), "the backend closed") {
		t.Error(e)
	}
	odd := &net.OpError{Op: "read", Net: "tcp", Source: mustAddr("192.0.2.1:993"), Addr: mustAddr("198.51.100.7:40000"), Err: errors.New("odd")}
	if e := ended(byClient, fmt.Errorf("deep: %w", odd)); e.Sentence != "the client: read: odd" {
		t.Errorf("%q: it goes into the operators' log, too", e.Sentence)
	}
	if notHTTP([]byte("GETQUOTA x")) != nil || notHTTP([]byte("a NOOP")) != nil {
		t.Error("taken for HTTP")
	}
	bad := 0
	l := Limits{BadCommands: 2}
	if l.Strike(&bad) != nil || l.Strike(&bad) == nil {
		t.Error("strikes are miscounted")
	}
}
