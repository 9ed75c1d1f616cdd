package proxy

import (
	"bytes"
	"io"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// busy are relays in clear, side by side in one parking.
type busy struct {
	parking *parking
	stirred atomic.Int64
	wheel   wheel
	over    sync.WaitGroup
}

func newBusy(t *testing.T) *busy {
	b := &busy{parking: new(parking)}
	b.parking.stirred = &b.stirred
	t.Cleanup(b.parking.close)
	return b
}

// session returns the far ends of one more.
func (b *busy) session(t *testing.T) (client, backend *net.TCPConn) {
	t.Helper()
	client, near := tcpEnds(t)
	backend, far := tcpEnds(t)
	for _, conn := range []*net.TCPConn{client, backend} {
		conn.SetDeadline(time.Now().Add(30 * time.Second))
	}
	r := newRelay(NewWire(near), NewWire(far), time.Minute, &b.wheel)
	r.mistake = func(p any) *Ending { panic(p) }
	b.over.Add(1)
	r.over = func(*Ending) { b.over.Done() }
	r.lodge(b.parking.port)
	r.start()
	return client, backend
}

// wait waits until all sessions are over.
func (b *busy) wait(t *testing.T) {
	t.Helper()
	over := make(chan struct{})
	go func() {
		b.over.Wait()
		close(over)
	}()
	select {
	case <-over:
	case <-time.After(caseTime):
		t.Fatal("a session is lost")
	}
}

// TestManyBusySessions: sessions that always have more to move than their share
// are handed from worker to worker, and none is lost on the way; nor is the
// answer of one that has little to say.
func TestManyBusySessions(t *testing.T) {
	const sessions, size, chunk = 12, 16 << 20, 1 << 20
	b := newBusy(t)
	var all sync.WaitGroup
	for i := range sessions {
		client, backend := b.session(t)
		said := bytes.Repeat([]byte{byte('a' + i)}, chunk)
		all.Go(func() {
			for range size / chunk {
				if _, err := backend.Write(said); err != nil {
					t.Errorf("session %d: %v", i, err)
				}
			}
			backend.CloseWrite()
		})
		all.Go(func() {
			n, p := 0, make([]byte, chunk)
			for {
				m, err := io.ReadFull(client, p)
				if n += m; err != nil || !bytes.Equal(p, said) {
					break
				}
			}
			if n != size {
				t.Errorf("session %d: %d bytes of %d came", i, n, size)
			}
			client.Close()
		})
	}
	client, backend := b.session(t)
	all.Go(func() { io.Copy(backend, backend) })
	all.Go(func() {
		p := make([]byte, 6)
		for i := range 300 {
			if b.stirred.Store(0); i/50%2 == 0 { // both ways to wait, and from one to the other
				b.stirred.Store(time.Now().UnixNano())
			}
			if _, err := io.WriteString(client, "NOOP\r\n"); err != nil {
				t.Error(err)
				break
			}
			if _, err := io.ReadFull(client, p); err != nil || string(p) != "NOOP\r\n" {
				t.Errorf("round trip %d: %q, %v", i, p, err)
				break
			}
		}
		client.Close()
		backend.Close()
	})
	all.Wait()
	b.wait(t)
}

// TestManySmallSessions: more events than a worker takes at once.
func TestManySmallSessions(t *testing.T) {
	const sessions, rounds = 5 * eventsTogether, 40
	b := newBusy(t)
	var all sync.WaitGroup
	for i := range sessions {
		client, backend := b.session(t)
		all.Go(func() {
			io.Copy(backend, backend)
			backend.Close()
		})
		all.Go(func() {
			defer client.Close()
			said, heard := []byte{byte(i), byte(i >> 8), '\n'}, make([]byte, 3)
			for range rounds {
				if _, err := client.Write(said); err != nil {
					t.Errorf("session %d: %v", i, err)
					return
				}
				if _, err := io.ReadFull(client, heard); err != nil || !bytes.Equal(heard, said) {
					t.Errorf("session %d: heard %v, %v", i, heard, err)
					return
				}
			}
		})
	}
	all.Wait()
	b.wait(t)
}

// TestParkedSessionsHaveNoGoroutine counts what silent sessions cost.
func TestParkedSessionsHaveNoGoroutine(t *testing.T) {
	b := newBusy(t)
	client, backend := b.session(t)
	defer client.Close()
	defer backend.Close()
	before := runtime.NumGoroutine()
	for range 100 {
		client, backend := b.session(t)
		defer client.Close()
		defer backend.Close()
	}
	if n := runtime.NumGoroutine(); n > before+3 {
		t.Errorf("%d goroutines more for 100 silent sessions", n-before)
	}
}
