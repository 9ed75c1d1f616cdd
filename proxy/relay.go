package proxy

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// relayBuffer holds a whole TLS record (RFC 8446 section 5.1).
	relayBuffer = 16 << 10
	// lastGasp is the silence allowed once one side has ended: the other may
	// finish what it was sending.
	lastGasp = 30 * time.Second
	// linger is how long a client that was told the end may take to close. A
	// close in its face looks like a failed login to some programs.
	linger = 5 * time.Second
	// quietFor is how long nothing must have moved before a goodbye may be put
	// between two lines of the backend's.
	quietFor = 2 * time.Second
)

var relayBuffers = sync.Pool{New: func() any { return new([relayBuffer]byte) }}

// relay carries raw bytes between a client and a backend, both ways, until
// both directions have ended: a half-closed connection goes on in the other
// direction. What was read ahead goes first. A side that does not read holds
// the other back, so a slow reader costs two buffers.
//
// The inside of this type is the one place where idle sessions cost memory:
// two goroutines and two buffers each.
type relay struct {
	client, backend *Wire
	idle            time.Duration     // silence allowed
	watch           func([]byte) bool // of what the client says first, or nil; used by up alone
	goodbye         string            // what an idle client may be told, or empty

	began    time.Time              // the origin of active
	active   atomic.Int64           // when a byte last moved
	turn     atomic.Int32           // whose it is to speak
	limit    atomic.Int64           // silence allowed now
	first    atomic.Pointer[Ending] // the ending that came first
	over     atomic.Bool
	watchdog *time.Timer
	speaking sync.Mutex // held while writing to the client; guards midLine
	midLine  bool       // the last byte to the client was no line end
}

// Whose turn it is: a goodbye must not stand in place of a reply, or a client
// sends a mail again that the backend has already taken (RFC 5321 section 4.5.3.2.6
// grants it ten minutes to say so), and nothing may reach the backend behind it.
const (
	clientsTurn  = iota // the backend spoke last
	backendsTurn        // the client spoke last
	saidGoodbye         // the client was told goodbye
)

func newRelay(client, backend *Wire, idle time.Duration) *relay {
	r := &relay{client: client, backend: backend, idle: idle, began: time.Now()}
	r.limit.Store(int64(idle))
	r.watchdog = time.AfterFunc(idle, r.bark)
	client.beginRelay()
	backend.beginRelay()
	return r
}

// run relays until the end, closes both wires and says why it came.
func (r *relay) run() *Ending {
	done := make(chan struct{})
	go r.down(done)
	failed := true
	defer func() {
		if failed { // the front's watch panicked
			r.cut()
		}
		<-done
		r.over.Store(true)
		r.watchdog.Stop()
		r.cut()
	}()
	r.up()
	failed = false
	<-done
	return r.first.Load()
}

// up carries what the client says to the backend.
func (r *relay) up() {
	buffer := relayBuffers.Get().(*[relayBuffer]byte)
	defer relayBuffers.Put(buffer)
	for {
		n, err := r.client.Read(buffer[:])
		if n > 0 && !r.turn.CompareAndSwap(clientsTurn, backendsTurn) && r.turn.Load() == saidGoodbye {
			n = 0 // it is too late
		}
		if n > 0 {
			r.touch()
			if r.watch != nil && r.watch(buffer[:n]) {
				r.watch = nil
			}
			if _, err := r.backend.Write(buffer[:n]); err != nil {
				// The backend may have said why before it closed: down goes on.
				r.end(ended(byBackend, err), lastGasp)
				return
			}
			r.touch()
		}
		if err != nil {
			r.end(ended(byClient, err), lastGasp)
			if atEnd(err) {
				r.backend.CloseWrite()
			} else {
				r.cut()
			}
			return
		}
	}
}

// down carries what the backend says to the client.
func (r *relay) down(done chan<- struct{}) {
	defer close(done)
	buffer := relayBuffers.Get().(*[relayBuffer]byte)
	defer relayBuffers.Put(buffer)
	for {
		n, err := r.backend.Read(buffer[:])
		if n > 0 {
			r.touch()
			if err := r.tell(buffer[:n]); err != nil {
				r.end(ended(byClient, err), lastGasp)
				r.cut()
				return
			}
			r.touch()
		}
		if err != nil {
			r.end(ended(byBackend, err), linger)
			r.client.CloseWrite()
			// Nobody hears the client now: it need not be waited for once it
			// has taken what was sent.
			r.client.SetReadDeadline(time.Now().Add(linger))
			return
		}
	}
}

// atEnd reports whether a read error is an orderly end. Programs that close TCP
// without a close_notify are many.
func atEnd(err error) bool { return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) }

func (r *relay) tell(p []byte) error {
	r.speaking.Lock()
	defer r.speaking.Unlock()
	r.midLine = p[len(p)-1] != '\n'
	_, err := r.client.Write(p)
	r.turn.CompareAndSwap(backendsTurn, clientsTurn)
	return err
}

func (r *relay) touch() { r.active.Store(int64(time.Since(r.began))) }

func (r *relay) silence() time.Duration {
	return time.Since(r.began) - time.Duration(r.active.Load())
}

// end keeps the first ending and lets the silence allowed shrink.
func (r *relay) end(e *Ending, silence time.Duration) {
	r.first.CompareAndSwap(nil, e)
	if silence < time.Duration(r.limit.Load()) {
		r.limit.Store(int64(silence))
		r.watchdog.Reset(silence)
	}
}

// bark cuts the session when nothing has moved for as long as is allowed.
func (r *relay) bark() {
	if r.over.Load() {
		return
	}
	silence := r.silence()
	if rest := time.Duration(r.limit.Load()) - silence; rest > 0 {
		r.watchdog.Reset(rest)
		return
	}
	r.first.CompareAndSwap(nil, &Ending{who: byLimit, Reason: "idle_timeout",
		Sentence: fmt.Sprintf("nothing moved for %v", silence.Round(time.Second))})
	r.cut()
}

// leave decides on a goodbye to a client that is idle between two lines. It
// returns what says it, which may take as long as linger, or nil. The client
// then closes, or is cut after linger.
func (r *relay) leave() (farewell func()) {
	if r.goodbye == "" || r.silence() < quietFor || !r.speaking.TryLock() {
		return nil
	}
	if r.midLine || r.silence() < quietFor || r.first.Load() != nil || !r.turn.CompareAndSwap(clientsTurn, saidGoodbye) {
		r.speaking.Unlock()
		return nil
	}
	r.end(drained(), linger)
	return func() {
		defer r.speaking.Unlock()
		r.client.conn.SetWriteDeadline(time.Now().Add(linger))
		if r.client.Say(r.goodbye) == nil {
			r.client.CloseWrite()
		}
	}
}

// drained is the ending of a session that the proxy's own end cuts short.
func drained() *Ending {
	return &Ending{who: byDrain, Reason: "shutdown", Sentence: "the proxy is shutting down", Bye: ShuttingDown}
}

// cut closes both wires at once.
func (r *relay) cut() {
	r.client.Close()
	r.backend.Close()
}
