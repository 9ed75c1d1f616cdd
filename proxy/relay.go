package proxy

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"time"
)

const (
	// lastGasp is the silence allowed once one side has ended: the other may
	// finish what it was sending.
	lastGasp = 30 * time.Second
	// linger is how long a client that was told the end may take to close. A
	// close in its face looks like a failed login to some programs.
	linger = 5 * time.Second
	// quietFor is how long nothing must have moved before a goodbye may be put
	// between two lines of the backend's.
	quietFor = 2 * time.Second
	// restAfter is how long nothing must have moved before a session gives back
	// what it needs only for moving: long enough not to do so between two commands.
	restAfter = time.Second / 2
	// relayShare is how many bytes a session may move before others have their turn:
	// half a millisecond's, where TLS is in it.
	relayShare = 512 << 10
	// recordWork is what a read counts for besides its bytes: a record of one byte takes
	// as long as some thousand bytes, a dozen key updates before it longer.
	recordWork = 2 << 10
	// controlRoom is what a client may be owed besides a chunk of the backend's:
	// answers of TLS itself, to key updates say. A client that does not read
	// them is not heard further.
	controlRoom = 4 << 10
)

// relay carries raw bytes between a client and a backend, both ways, until
// both directions have ended: a half-closed connection goes on in the other
// direction. What was read ahead goes first. A side that does not read holds
// the other back.
//
// A relay in which nothing moves has no goroutine and no buffer. Its ports wake
// it, in whatever goroutine; who finds nobody at work then does all that there is
// to do, with the worker's buffer or one that is borrowed, and goes. So everything
// below is used by one goroutine at a time, but for what is atomic.
type relay struct {
	client, backend *Wire
	near, far       port              // below these, in the same order
	watch           func([]byte) bool // of what the client says first, or nil
	goodbye         string            // what an idle client may be told, or empty
	over            func(*Ending)     // called once, in a goroutine of its own
	mistake         func(any) *Ending // a panic becomes an ending

	due  atomic.Int32  // times it was woken and that are not dealt with; above 0: somebody is at work, or it is over
	asks atomic.Uint32 // what others want of it

	turn      turn
	heard     bool    // there may be something to read from the client
	answered  bool    // and from the backend
	midLine   bool    // the last byte to the client was no line end
	upEnded   bool    // nothing more goes to the backend
	downEnded bool    // nothing more goes to the client
	first     *Ending // the ending that came first
	ended     bool

	wheel      *wheel
	active     atomic.Int64 // tick in which a byte last moved
	limit      atomic.Int64 // ticks of silence allowed now
	lastCall   atomic.Int64 // tick at which it is over whatever moves; 0: none
	warm       atomic.Bool  // something has moved since it last gave back
	next, prev *relay       // in the wheel's slot; guarded by the wheel
	slot       int          // -1: in none
}

// turn is whose it is to speak: a goodbye must not stand in place of a reply, or a
// client sends a mail again that the backend has already taken (RFC 5321 section
// 4.5.3.2.6 grants it ten minutes to say so), and nothing may reach the backend
// behind it.
type turn uint8

const (
	clientsTurn  turn = iota // the backend spoke last
	backendsTurn             // the client spoke last
	saidGoodbye              // the client was told goodbye
)

// What others may want of a relay.
const (
	toEnd   = 1 << iota // at once: the proxy ends
	toLeave             // say goodbye, if this is the moment for it
	toRest              // give back what is needed only for moving
	toCheck             // end if the silence has lasted too long
)

// newRelay joins two wires. Then lodge it, and start it.
func newRelay(client, backend *Wire, idle time.Duration, w *wheel) *relay {
	r := &relay{client: client, backend: backend, wheel: w, slot: -1, heard: true, answered: true}
	r.due.Store(1) // nobody comes in before start
	r.limit.Store(ticks(idle))
	client.beginRelay()
	backend.beginRelay()
	return r
}

// lodge gives it the ports by which it is woken.
func (r *relay) lodge(at func(net.Conn, *relay) port) {
	r.near, r.far = r.client.lodge(at, r), r.backend.lodge(at, r)
}

// start lets it run. It may be over before start returns.
func (r *relay) start() {
	r.wheel.begin(r)
	r.work() // whatever woke it meanwhile
}

// ask has it do something, soon.
func (r *relay) ask(what uint32) {
	r.asks.Or(what)
	r.poke()
}

// poke wakes it.
func (r *relay) poke() {
	if r.due.Add(1) == 1 {
		r.work()
	}
}

// work does what is due, with a buffer that is borrowed. Nobody is kept by a session
// that is busy: what is more than its share is a goroutine's.
func (r *relay) work() {
	buffer := relayBuffers.Get().(*[relayBuffer]byte)
	defer relayBuffers.Put(buffer)
	if r.resume(buffer[:]) {
		go r.work()
	}
}

// wake has all done that is due, by the caller or by who is at it already. More
// says that the session has had its share and is not through: whoever called
// must call resume, after others had their turn.
func (r *relay) wake(buffer []byte) (more bool) {
	return r.due.Add(1) == 1 && r.resume(buffer)
}

func (r *relay) resume(buffer []byte) (more bool) {
	for {
		due := r.due.Load()
		if more := r.step(buffer); more {
			return true
		}
		if r.ended {
			return false // due stays: nobody comes in again
		}
		if r.due.CompareAndSwap(due, 0) {
			return false
		}
	}
}

// step does what can be done now.
func (r *relay) step(buffer []byte) (more bool) {
	sane := false
	defer func() {
		if !sane {
			r.first = r.mistake(recover())
			r.finish()
		}
	}()
	r.heard = r.near.heed() || r.heard
	r.answered = r.far.heed() || r.answered
	if asks := r.asks.Swap(0); asks != 0 {
		r.obey(asks)
	}
	share := relayShare
	for share > 0 && !r.ended {
		r.settle(r.near)
		r.settle(r.far)
		work := r.up(buffer) + r.down(buffer)
		if work == 0 {
			break
		}
		share -= work
	}
	if !r.ended && r.downEnded && r.near.owed() == 0 {
		r.bow()
		if r.upEnded && r.far.owed() == 0 {
			r.finish()
		}
	}
	sane = true
	return share <= 0 && !r.ended
}

// up carries what the client says to the backend, and returns how much work it was.
func (r *relay) up(buffer []byte) int {
	if r.ended || r.upEnded {
		return 0
	}
	if r.far.owed() > 0 {
		// What the client has said before cannot be said now. That it has broken off
		// must be noticed all the same: a backend may take nothing for long.
		if err := r.near.reset(); err != nil {
			r.clientFails(err)
		}
		return 0
	}
	if !r.heard || r.near.owed() > relayBuffer+controlRoom {
		return 0
	}
	n, work, err := read(r.client, buffer, r.near)
	r.heard = err == nil
	said := buffer[:n]
	switch {
	case n == 0:
	case r.turn == saidGoodbye:
		said = nil // it is too late
	default:
		r.turn = backendsTurn
		r.touch()
	}
	if len(said) > 0 {
		if r.watch != nil && r.watch(said) {
			r.watch = nil
		}
		if _, err := r.backend.Write(said); err != nil {
			r.backendFails(err) // TLS's own; the port has none
			return work
		}
	}
	if err != nil && err != errAgain {
		r.end(ended(byClient, err), lastGasp)
		r.upEnded = true
		if atEnd(err) {
			r.backend.CloseWrite()
		} else {
			r.finish()
		}
	}
	return work
}

// down carries what the backend says to the client, and returns how much work it was.
func (r *relay) down(buffer []byte) int {
	if r.ended || r.downEnded || !r.answered || r.near.owed() > 0 {
		return 0
	}
	n, work, err := read(r.backend, buffer, r.far)
	r.answered = err == nil
	if n > 0 && r.turn != saidGoodbye { // else it is too late
		r.touch()
		r.midLine = buffer[n-1] != '\n'
		if _, err := r.client.Write(buffer[:n]); err != nil {
			r.clientFails(err)
			return work
		}
		if r.turn == backendsTurn {
			r.turn = clientsTurn
		}
	}
	if err != nil && err != errAgain {
		r.end(ended(byBackend, err), lastGasp)
		r.downEnded = true
		r.client.CloseWrite()
	}
	return work
}

// read fills a buffer with what there is. It returns errAgain where that is less,
// and no error where it stops before the end: each read of TLS is a record, which
// may be one byte and a dozen key updates, and has to be paid like many bytes.
func read(w *Wire, buffer []byte, p port) (n, work int, err error) {
	for n < len(buffer) && work < 2*len(buffer) && p.owed() <= relayBuffer+controlRoom && err == nil {
		var more int
		more, err = w.Read(buffer[n:])
		n += more
		work += more + recordWork
	}
	return n, work, err
}

// settle sends what a port owes, as far as it goes.
func (r *relay) settle(p port) {
	if r.ended || p.owed() == 0 {
		return
	}
	taken, err := p.settle()
	if taken {
		r.touch()
	}
	switch {
	case err == nil:
	case p == r.near:
		r.clientFails(err)
	default:
		r.backendFails(err)
	}
}

// clientFails ends it: nobody is there to be told anything.
func (r *relay) clientFails(err error) {
	r.end(ended(byClient, err), lastGasp)
	r.finish()
}

// backendFails ends the way to the backend; it may have said why before it closed.
func (r *relay) backendFails(err error) {
	r.end(ended(byBackend, err), lastGasp)
	r.upEnded = true
}

// atEnd reports whether a read error is an orderly end. Programs that close TCP
// without a close_notify are many.
func atEnd(err error) bool { return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) }

// touch notes that something moves. Only the first byte after a rest takes the
// wheel's lock, which all sessions share.
func (r *relay) touch() {
	r.active.Store(r.wheel.now())
	if !r.warm.Load() {
		r.warm.Store(true)
		r.wheel.replace(r)
	}
}

// silence returns how long nothing has moved at least.
func (r *relay) silence() time.Duration {
	return time.Duration(r.wheel.now()-r.active.Load()-1) * tick
}

// end keeps the first ending and lets the silence allowed shrink.
func (r *relay) end(e *Ending, silence time.Duration) {
	if r.first == nil {
		r.first = e
	}
	if allowed := ticks(silence); allowed < r.limit.Load() {
		r.limit.Store(allowed)
		r.wheel.replace(r)
	}
}

// bow is the last that the client hears. Nobody listens to it from now on, so it
// need not be waited for longer than it may take to close.
func (r *relay) bow() {
	if r.lastCall.Load() == 0 {
		r.lastCall.Store(r.wheel.now() + ticks(linger))
		r.wheel.replace(r)
	}
}

// obey does what others want.
func (r *relay) obey(asks uint32) {
	if asks&toEnd != 0 {
		r.end(drained(), 0)
		r.dismiss()
		return
	}
	if asks&toCheck != 0 && r.timeUp() {
		r.end(&Ending{who: byLimit, Reason: "idle_timeout", Sentence: fmt.Sprintf("nothing moved for %v", r.silence().Round(time.Second))}, 0)
		r.dismiss()
		return
	}
	if asks&toRest != 0 {
		r.rest()
	}
	if asks&toLeave != 0 {
		r.leave()
	}
}

// timeUp reports whether the time is up.
func (r *relay) timeUp() bool {
	last := r.lastCall.Load()
	return r.wheel.now()-r.active.Load() > r.limit.Load() || last != 0 && r.wheel.now() > last
}

// visit returns the tick at which the wheel must look at it.
func (r *relay) visit() int64 {
	at := r.active.Load() + r.limit.Load()
	if last := r.lastCall.Load(); last != 0 {
		at = min(at, last)
	}
	if r.warm.Load() {
		at = min(at, r.active.Load()+ticks(restAfter))
	}
	return at + 1
}

// wants returns what the wheel must ask of it now.
func (r *relay) wants() uint32 {
	switch {
	case r.timeUp():
		return toCheck
	case r.warm.Load() && r.wheel.now()-r.active.Load() > ticks(restAfter):
		return toRest
	}
	return 0
}

// rest gives back what is needed only for moving.
func (r *relay) rest() {
	if r.wheel.now()-r.active.Load() <= ticks(restAfter) {
		return
	}
	r.warm.Store(false)
	r.client.rest()
	r.backend.rest()
}

// leave says goodbye to a client that is idle between two lines. The client then
// closes, or is cut after linger.
func (r *relay) leave() {
	if r.goodbye == "" || r.silence() < quietFor || r.midLine || r.first != nil || r.turn != clientsTurn || r.near.owed() > 0 {
		return
	}
	r.turn = saidGoodbye
	r.end(drained(), linger)
	r.touch()
	r.bow()
	if err := r.client.Say(r.goodbye); err != nil {
		r.clientFails(err)
		return
	}
	r.client.CloseWrite()
}

// drained is the ending of a session that the proxy's own end cuts short.
func drained() *Ending {
	return &Ending{who: byDrain, Reason: "shutdown", Sentence: "the proxy is shutting down", Bye: ShuttingDown}
}

// dismiss ends it for the client's programs too: TLS that ends without a word looks
// like an attack to some.
func (r *relay) dismiss() {
	if r.near.owed() == 0 {
		r.client.CloseWrite()
		r.near.settle()
	}
	r.finish()
}

// finish closes both wires at once and says why it came.
func (r *relay) finish() {
	if r.ended {
		return
	}
	r.ended = true
	r.wheel.remove(r)
	r.client.Close()
	r.backend.Close()
	go r.over(r.first)
}
