package proxy

// The relay against the simplest one that could be right: random deeds at both
// far ends of real sockets, in clear and in TLS.

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// beginRelay starts the relay under test, in a parking, or with pumps if that is
// nil. It is the only place here that knows how that is done. Ended tells the
// ending; rest has the relay give back, as soon as nothing moves, what it would
// give back after seconds of silence.
func beginRelay(client, backend *Wire, idle time.Duration, p *parking) (ended <-chan *Ending, rest func()) {
	r := newRelay(client, backend, idle, new(wheel))
	over := make(chan *Ending, 1)
	r.over = func(e *Ending) { over <- e }
	r.mistake = func(p any) *Ending { panic(p) }
	if p != nil {
		r.lodge(p.port)
	} else {
		r.lodge(newPump)
	}
	r.start()
	return over, func() {
		r.wheel.ticks.Store(r.active.Load() + ticks(restAfter) + 1)
		r.ask(toRest)
	}
}

// referenceRelay is what the relay is compared with: a goroutine a direction,
// blocking reads and writes, half-closes, no timeouts.
func referenceRelay(client, backend net.Conn, fromClient, fromBackend io.Reader) {
	var down sync.WaitGroup
	down.Go(func() {
		if _, wrong := carry(client, fromBackend); wrong != nil {
			closeBelow(client)
			closeBelow(backend)
			return
		}
		closeWrite(client) // however the backend ended
	})
	switch read, wrong := carry(backend, fromClient); {
	case wrong != nil: // the backend may have said why: down goes on
	case read == io.EOF || errors.Is(read, io.ErrUnexpectedEOF):
		closeWrite(backend)
	default:
		closeBelow(client)
		closeBelow(backend)
	}
	down.Wait()
	closeBelow(client)
	closeBelow(backend)
}

// carry copies until one side fails, and says which.
func carry(to io.Writer, from io.Reader) (reading, writing error) {
	p := make([]byte, 4<<10)
	for {
		n, err := from.Read(p)
		if n > 0 {
			if _, err := to.Write(p[:n]); err != nil {
				return nil, err
			}
		}
		if err != nil {
			return err, nil
		}
	}
}

// closeBelow closes without a close_notify, which might block.
func closeBelow(conn net.Conn) {
	if c, ok := conn.(*tls.Conn); ok {
		conn = c.NetConn()
	}
	conn.Close()
}

// The far ends, as indices.
const (
	theClient = iota
	theBackend
)

var farNames = [...]string{"client", "backend"}

// How a far end speaks.
const (
	inClear = iota
	overTLS12
	overTLS13 // by hand
	manners
)

// scene is one case: how the ends speak, and what they do.
type scene struct {
	manner [2]int
	early  [2]int // bytes sent before the relay begins
	peeked [2]int // of these, looked at by the dialogue
	chunk  [2]int // bytes that a far end reads at once
	pumped bool   // the relay has pumps
	window int    // what the kernel takes of a stream ahead of its reader; 0: as it likes
	tight  bool   // a write is soon more than the kernel takes
	deeds  []deed
}

// deed is what a far end does. Where it cannot, because it does not speak TLS by
// hand say, it does the next best.
type deed struct {
	by      int
	do      string
	n       int  // bytes, or how many
	record  int  // bytes of data in a record, or in a write
	segment int  // bytes in a write to the socket; 0: as they come
	ask     bool // for KeyUpdates in answer to ours
	rash    bool // an ending that does not wait for what was said before
}

var doings = []string{
	"say",   // n bytes
	"say",   // it is said most
	"storm", // n records, each behind two KeyUpdates
	"rekey", // a KeyUpdate
	"empty", // n records without data, or warnings without meaning
	"deaf",  // stop reading
	"hear",  // read again
	"rest",  // the relay is asked to
	"sync",  // wait until all that was said has come
}

// flood is a deed that takes a moment, and so is not drawn at random: to say n
// bytes that the other end does not read before all room on the way is full.
const flood = "flood"

// Endings. After an orderly one the other direction goes on, and nothing is lost.
var orderly = []string{
	"finish", // close_notify and the end of the stream
	"notify", // close_notify alone
	"fin",    // the end of the stream alone
	"torn",   // the same, in the middle of a record
}

var abrupt = []string{
	"close", // both directions
	"reset",
	"alert", // fatal; n chooses
}

var endings = slices.Concat(orderly, abrupt)

var fatalAlerts = []byte{80, 42, 48, 20} // RFC 8446 section 6.2

// stage is a running scene. Its mutex guards the far ends' counts; the
// condition tells of all their changes.
type stage struct {
	scene
	mu   sync.Mutex
	cond *sync.Cond
	late bool   // the case took too long
	rest func() // of ours
	far  [2]*farEnd
	near [2]*net.TCPConn

	told     [2]bool  // a far end was told to end
	implied  []string // what our ending may be
	certain  bool     // no later deed changes it
	violent  bool     // an ending was abrupt
	promised [2]int64 // bytes said by each that must have come, whatever followed
	ending   *Ending  // of ours
	wires    [2]*Wire // of ours
	workers  sync.WaitGroup
}

// farEnd is one far end. It reads in a goroutine and acts in another.
type farEnd struct {
	*stage
	index   int
	tcp     *net.TCPConn
	cut     *segments
	conn    io.ReadWriter // tcp, or TLS over it
	hand    *handTLS      // conn, if spoken by hand
	todo    chan deed
	useless int // records without data in a row; crypto/tls bears 16

	given, done    int   // deeds
	tried          int64 // bytes, whether or not they could be written
	heard          int64 // bytes from the other
	asked, updated int   // KeyUpdates asked for, and heard
	mayAsk         bool  // a deed was given that asks
	stalls         int   // floods that came to a halt
	deaf           bool
	shut           bool   // deaf until a flood stands
	failed         error  // of speaking
	corrupt        error  // a byte that was not said there
	end            string // of what the other says: closed, torn, reset, or gone by our own deed
}

// segments cuts what is written into pieces; with TCP_NODELAY, which Go sets,
// each becomes a segment.
type segments struct {
	*net.TCPConn
	size    int    // 0: not at all
	stalled func() // called once, when nobody has taken anything for a while; or nil
}

// stallTime is how long a write must be stuck to be a sign that all buffers on
// the way are full.
const stallTime = 100 * time.Millisecond

func (s *segments) Write(p []byte) (written int, err error) {
	size := s.size
	if size == 0 {
		size = max(len(p), 1)
	}
	size = max(size, len(p)/200) // it is about where the cuts are, not how many
	for chunk := range slices.Chunk(p, size) {
		for len(chunk) > 0 {
			if s.stalled != nil {
				s.SetWriteDeadline(time.Now().Add(stallTime))
			}
			n, err := s.TCPConn.Write(chunk)
			written, chunk = written+n, chunk[n:]
			if s.stalled != nil && errors.Is(err, os.ErrDeadlineExceeded) {
				s.SetWriteDeadline(time.Now().Add(caseTime))
				s.stalled()
				s.stalled = nil
			} else if err != nil {
				return written, err
			}
		}
	}
	return written, nil
}

// caseTime bounds one case; most take milliseconds.
const caseTime = 20 * time.Second

// streamByte is byte i of what a far end says: a piece that is lost, doubled or
// misplaced shows at once.
func streamByte(index int, i int64) byte {
	return byte((uint64(i)+1)*0x9E3779B97F4A7C15>>56) + byte(index)
}

// play plays a scene through the relay under test, or through the reference.
func play(sc scene, p *parking, reference bool) (*stage, error) {
	s := &stage{scene: sc}
	s.cond = sync.NewCond(&s.mu)
	for i := range s.far {
		far, near, err := tcpPair()
		if err != nil {
			return nil, err
		}
		defer near.Close()
		defer far.Close()
		if sc.tight { // a small window would be more, but TCP then waits for its timers
			if err := errors.Join(far.SetWriteBuffer(8<<10), near.SetWriteBuffer(8<<10)); err != nil {
				return nil, err
			}
		}
		if sc.window > 0 {
			if err := errors.Join(far.SetReadBuffer(sc.window), near.SetReadBuffer(sc.window),
				far.SetWriteBuffer(sc.window), near.SetWriteBuffer(sc.window)); err != nil {
				return nil, err
			}
		}
		far.SetDeadline(time.Now().Add(caseTime))
		near.SetDeadline(time.Now().Add(caseTime)) // for handshakes; the relay lifts it
		s.near[i] = near
		s.far[i] = &farEnd{stage: s, index: i, tcp: far, cut: &segments{TCPConn: far}, todo: make(chan deed, 2*len(sc.deeds)+8)}
	}
	watchdog := time.AfterFunc(caseTime, func() { s.change(func() { s.late = true }) })
	defer watchdog.Stop()

	// Until the relay begins, all happens at both sides at once.
	met := make(chan error, 2)
	for _, f := range s.far {
		go func() { met <- f.meet() }()
	}
	over, err := s.open(p, reference)
	if err != nil {
		s.far[0].tcp.Close()
		s.far[1].tcp.Close()
	}
	if err := errors.Join(err, <-met, <-met); err != nil {
		return nil, fmt.Errorf("before the relay: %w", err)
	}
	for _, f := range s.far {
		s.workers.Go(f.listen)
		s.workers.Go(f.act)
	}
	err = s.direct()
	if err == nil {
		select {
		case s.ending = <-over:
		case <-time.After(caseTime):
			err = fmt.Errorf("both sides have ended, the relay goes on: %v", s)
		}
	}
	for i, f := range s.far {
		close(f.todo)
		f.tcp.Close()
		if err != nil { // it may not see an end by itself
			s.near[i].Close()
		}
	}
	s.change(func() { s.hearAll() })
	s.workers.Wait()
	if err != nil && s.ending == nil {
		select {
		case <-over:
		case <-time.After(linger):
			err = fmt.Errorf("%w; and the relay did not end when both sides were gone", err)
		}
	}
	return s, err
}

// meet does the far end's side of a handshake and says what comes early.
func (f *farEnd) meet() (err error) {
	switch f.conn = f.cut; {
	case f.manner[f.index] == overTLS13 && f.index == theClient:
		f.hand, err = handTLSClient(f.cut)
	case f.manner[f.index] == overTLS13:
		f.hand, err = handTLSServer(f.cut)
	case f.manner[f.index] == overTLS12 && f.index == theClient:
		c := tls.Client(f.cut, &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12})
		f.conn, err = c, c.Handshake()
	case f.manner[f.index] == overTLS12:
		c := tls.Server(f.cut, &tls.Config{Certificates: []tls.Certificate{*authority().leaf}, MaxVersion: tls.VersionTLS12})
		f.conn, err = c, c.Handshake()
	}
	if f.hand != nil {
		f.conn = f.hand
		f.hand.onUpdate = func() { f.change(func() { f.updated++ }) }
	}
	if err == nil && f.early[f.index] > 0 {
		f.say(deed{n: f.early[f.index], record: 700})
		err = f.failed
	}
	return err
}

// open does the handshakes of the near ends, looks at what came early, and
// begins to relay.
func (s *stage) open(p *parking, reference bool) (over <-chan *Ending, err error) {
	var conns [2]net.Conn
	var readers [2]*bufio.Reader
	for i, near := range s.near {
		conns[i] = near
		below := net.Conn(near)
		if !reference {
			s.wires[i] = NewWire(near)
			if s.manner[i] != inClear {
				below = s.wires[i].raw()
			}
		}
		if s.manner[i] != inClear {
			var c *tls.Conn
			if i == theClient {
				c = tls.Server(below, &tls.Config{Certificates: []tls.Certificate{*authority().leaf}})
			} else {
				c = tls.Client(below, &tls.Config{InsecureSkipVerify: true})
			}
			if err := c.Handshake(); err != nil {
				return nil, err
			}
			conns[i] = c
			if !reference {
				s.wires[i].secure(c)
			}
		}
		if reference {
			readers[i] = bufio.NewReader(conns[i])
			_, err = readers[i].Peek(s.peeked[i])
		} else {
			_, err = s.wires[i].Peek(s.peeked[i])
		}
		if err != nil {
			return nil, err
		}
	}
	if !reference {
		if s.pumped {
			p = nil
		}
		over, s.rest = beginRelay(s.wires[theClient], s.wires[theBackend], time.Minute, p)
		return over, nil
	}
	done := make(chan *Ending, 1)
	go func() {
		referenceRelay(conns[theClient], conns[theBackend], readers[theClient], readers[theBackend])
		done <- nil
	}()
	return done, nil
}

// change makes a change that others may wait for.
func (s *stage) change(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
	s.cond.Broadcast()
}

func (s *stage) await(what string, ok func() bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for !ok() {
		if s.late {
			return fmt.Errorf("waited in vain until %s: %v", what, s)
		}
		s.cond.Wait()
	}
	return nil
}

func (s *stage) String() string {
	var b strings.Builder
	for i, f := range s.far {
		fmt.Fprintf(&b, "[%s: %d of %d deeds, said %d, the other heard %d, KeyUpdates %d for %d, stream %q, %v, %v]",
			farNames[i], f.done, f.given, f.tried, s.far[1-i].heard, f.updated, f.asked, f.end, f.failed, f.corrupt)
	}
	return b.String()
}

func (s *stage) hearAll() {
	for _, f := range s.far {
		f.deaf = false
	}
}

// listen reads what the other end says and holds it against what it must be.
func (f *farEnd) listen() {
	p := make([]byte, max(f.chunk[f.index], 1))
	for {
		f.mu.Lock()
		for f.deaf || f.shut {
			f.cond.Wait()
		}
		at := f.heard
		f.mu.Unlock()
		n, err := f.conn.Read(p)
		var corrupt error
		for i, c := range p[:n] {
			if c != streamByte(1-f.index, at+int64(i)) {
				corrupt = fmt.Errorf("the %s heard a wrong byte at %d", farNames[f.index], at+int64(i))
				break
			}
		}
		f.change(func() {
			f.heard += int64(n)
			if f.corrupt == nil {
				f.corrupt = corrupt
			}
			if err != nil {
				f.end = endWord(err)
			}
		})
		if err != nil {
			return
		}
	}
}

// endWord says how a stream ended.
func endWord(err error) string {
	switch {
	case err == io.EOF:
		return "closed"
	case errors.Is(err, io.ErrUnexpectedEOF):
		return "torn"
	case errors.Is(err, net.ErrClosed):
		return "gone"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "reset"
	}
	return err.Error()
}

// act does the deeds given.
func (f *farEnd) act() {
	for d := range f.todo {
		f.do(d)
		f.change(func() { f.done++ })
	}
}

func (f *farEnd) do(d deed) {
	f.cut.size = d.segment
	switch d.do {
	case "say", "storm":
		f.say(d)
	case flood:
		f.cut.stalled = func() { f.change(func() { f.stalls++; f.far[1-f.index].shut = false }) }
		f.say(d)
		f.cut.stalled = nil
		f.change(func() { f.far[1-f.index].shut = false })
	case "rekey":
		if f.hand != nil {
			f.idle(1)
			if d.ask {
				f.change(func() { f.asked++ })
			}
			f.wrote(f.hand.update(d.ask))
		}
	case "empty":
		if f.hand != nil {
			n := d.n%5 + 1
			f.idle(n)
			f.wrote(f.hand.flight(func(seal func(byte, []byte, int)) {
				for i := range n {
					if i%3 == 2 {
						seal(alertContent, []byte{1, userCanceled}, 0)
					} else {
						seal(dataContent, nil, d.record%300)
					}
				}
			}))
		}
	// An ending may come when the relay is over: it cannot fail.
	case "finish":
		f.notify()
		f.tcp.CloseWrite()
	case "notify":
		if f.notify(); f.manner[f.index] == inClear {
			f.tcp.CloseWrite()
		}
	case "fin":
		f.tcp.CloseWrite()
	case "torn":
		if f.hand != nil {
			f.hand.halfARecord()
		} else if f.manner[f.index] == overTLS12 {
			f.tcp.Write([]byte{dataContent, 3, 3, 0, 100, 1, 2, 3})
		}
		f.tcp.CloseWrite()
	case "close":
		f.tcp.Close()
	case "alert":
		if f.hand != nil {
			f.hand.alert(d.alert())
			break
		}
		fallthrough
	case "reset":
		f.tcp.SetLinger(0)
		f.tcp.Close()
	}
}

func (d deed) alert() byte { return fatalAlerts[d.n%len(fatalAlerts)] }

// notify sends a close_notify.
func (f *farEnd) notify() {
	if f.hand != nil {
		f.hand.alert(closeNotify)
	} else if c, ok := f.conn.(*tls.Conn); ok {
		c.CloseWrite()
	}
}

func (f *farEnd) wrote(err error) {
	if err != nil {
		f.change(func() {
			if f.failed == nil {
				f.failed = err
			}
		})
	}
}

// idle makes room for n more records without data.
func (f *farEnd) idle(n int) {
	if f.useless+n > 12 {
		f.say(deed{n: 1})
	}
	f.useless += n
}

// say says n bytes, or for a storm n records.
func (f *farEnd) say(d deed) {
	storm := d.do == "storm"
	size := min(max(d.record, 1), 16<<10)
	n := d.n
	if storm {
		n, size = d.n%40*(size%100+1), size%100+1
	}
	size = max(size, n/1000) // records
	var p []byte
	f.change(func() {
		p = make([]byte, n)
		for i := range p {
			p[i] = streamByte(f.index, f.tried+int64(i))
		}
		f.tried += int64(n)
		if storm && d.ask && f.hand != nil {
			f.asked += (n + size - 1) / size
		}
	})
	if n == 0 {
		return
	}
	f.useless = 0
	if f.hand == nil {
		for chunk := range slices.Chunk(p, size) {
			if _, err := f.conn.Write(chunk); err != nil {
				f.wrote(err)
				return
			}
		}
		return
	}
	f.wrote(f.hand.flight(func(seal func(byte, []byte, int)) {
		for chunk := range slices.Chunk(p, size) {
			if storm {
				seal(handshakeContent, updateMessage(d.ask), 0)
				seal(handshakeContent, updateMessage(false), 0)
			}
			padding := 0
			if size%3 == 0 {
				padding = size % 200
			}
			seal(dataContent, chunk, min(padding, 16<<10-len(chunk)))
		}
	}))
}

// direct hands out the deeds, and sees to it that both sides end.
func (s *stage) direct() error {
	for _, d := range s.deeds {
		if err := s.give(d); err != nil {
			return fmt.Errorf("%+v: %w", d, err)
		}
	}
	for i := range s.far {
		if err := s.give(deed{by: i, do: "finish"}); err != nil {
			return fmt.Errorf("at the end of the %s: %w", farNames[i], err)
		}
	}
	s.change(s.hearAll)
	return s.await("both sides saw the end", func() bool {
		for _, f := range s.far {
			if f.done < f.given || f.end == "" {
				return false
			}
		}
		return true
	})
}

func (s *stage) give(d deed) error {
	f, other := s.far[d.by], s.far[1-d.by]
	if s.told[d.by] {
		return nil
	}
	switch {
	case d.do == "sync":
		return s.sync()
	case d.do == "deaf", d.do == "hear":
		s.change(func() { f.deaf = d.do == "deaf" })
		return nil
	case d.do == "rest":
		if s.rest != nil && !s.told[1-d.by] { // time goes on by it, and an end has its time
			s.rest()
		}
		return nil
	case !slices.Contains(endings, d.do):
		// crypto/tls cannot answer a KeyUpdate once it has closed its half, and
		// then does not take the new keys either.
		d.ask = d.ask && !s.told[other.index]
		if d.do == flood {
			s.change(func() { other.shut = true })
		}
		f.mayAsk = f.mayAsk || d.ask
		f.assign(d)
		return nil
	}
	if !d.rash || other.mayAsk { // see above
		if err := s.sync(); err != nil {
			return err
		}
	}
	if !s.certain {
		s.implied = append(s.implied, s.implies(d)...)
		s.certain = !d.rash
	}
	s.violent = s.violent || slices.Contains(abrupt, d.do)
	s.told[d.by] = true
	f.assign(d)
	if d.rash {
		return nil
	}
	// A client that ends in the middle of things ends the session for itself too.
	over := d.by == theClient && slices.Contains(abrupt, d.do)
	return s.await("the other side saw the end", func() bool { return other.end != "" && (!over || f.end != "") })
}

func (f *farEnd) assign(d deed) {
	f.change(func() { f.given++ })
	f.todo <- d
}

// sync waits until all that was said has come and each KeyUpdate that was asked
// for.
func (s *stage) sync() error {
	s.change(s.hearAll)
	err := s.await("all that was said had come", func() bool {
		for i, f := range s.far {
			other := s.far[1-i]
			if f.done < f.given || other.heard < f.tried && other.end == "" || f.updated < f.asked && f.end == "" {
				return false
			}
		}
		return true
	})
	if !s.violent {
		s.change(func() {
			for i, f := range s.far {
				s.promised[i] = f.tried
			}
		})
	}
	return err
}

// implies says which endings an ending deed may lead to, if it is the first.
func (s *stage) implies(d deed) []string {
	name := farNames[d.by]
	closed, reset := name+"_closed", name+"_reset"
	switch {
	case slices.Contains(orderly, d.do):
		return []string{closed}
	case d.do != "alert" && d.rash && s.far[d.by].mayAsk:
		// Where crypto/tls cannot answer a KeyUpdate, it does not take the new keys
		// either, and fails at what was said under these.
		return []string{closed, reset, name + "_error"}
	case d.do == "close": // with something unread, that is a reset
		return []string{closed, reset}
	case d.do == "alert" && s.manner[d.by] == overTLS13 && d.by == theBackend:
		return []string{"backend_error"}
	case d.do == "alert" && s.manner[d.by] == overTLS13 && slices.Contains(certificateAlerts, alertNames[d.alert()]):
		return []string{"certificate_refused"}
	case d.do == "alert" && s.manner[d.by] == overTLS13:
		return []string{"client_alert"}
	case d.rash: // the kernel tells of a reset once; a write may have heard it
		return []string{reset, closed}
	}
	return []string{reset}
}

// judge holds what happened against the deeds.
func (s *stage) judge() error {
	var wrong []error
	fail := func(format string, args ...any) { wrong = append(wrong, fmt.Errorf(format, args...)) }
	for i, f := range s.far {
		other := s.far[1-i]
		if f.corrupt != nil {
			wrong = append(wrong, f.corrupt)
		}
		if f.heard < s.promised[1-i] || f.heard > other.tried {
			fail("the %s heard %d bytes of %d; %d had come before the end", farNames[i], f.heard, other.tried, s.promised[1-i])
		}
		if s.violent {
			if !slices.Contains([]string{"closed", "torn", "reset", "gone"}, f.end) {
				fail("the %s saw %q at the end", farNames[i], f.end)
			}
			continue
		}
		if f.heard != other.tried {
			fail("the %s heard %d bytes of %d", farNames[i], f.heard, other.tried)
		}
		if f.failed != nil {
			fail("the %s could not speak: %v", farNames[i], f.failed)
		}
		if f.end != "closed" {
			fail("the %s saw %q at the end of an orderly session", farNames[i], f.end)
		}
		if f.updated != f.asked {
			fail("the %s heard %d KeyUpdates and asked for %d", farNames[i], f.updated, f.asked)
		}
		if w := s.wires[i]; w != nil {
			if in, out := w.Counts(); in != f.tried || out != other.tried {
				fail("the %s's wire counted %d and %d bytes, %d and %d were said", farNames[i], in, out, f.tried, other.tried)
			}
		}
	}
	if e := s.ending; e != nil {
		who := byte(byClient)
		if strings.HasPrefix(e.Reason, "backend") {
			who = byBackend
		}
		if !slices.Contains(s.implied, e.Reason) || e.who != who {
			fail("ended by %c, %v; the deeds imply %v", e.who, e, s.implied)
		}
	} else if s.wires[0] != nil {
		fail("ended without an ending")
	}
	return errors.Join(wrong...)
}

// compare plays a scene through both relays.
func compare(sc scene, p *parking) error {
	var played [2]*stage
	for i, name := range []string{"the reference", "ours"} {
		s, err := play(sc, p, i == 0)
		if err == nil {
			err = s.judge()
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		played[i] = s
	}
	ref, ours := played[0], played[1]
	for i, f := range ours.far {
		if r := ref.far[i]; !ours.violent && (f.heard != r.heard || f.end != r.end || f.updated != r.updated) {
			return fmt.Errorf("the %s heard %d bytes and %q, with the reference %d and %q", farNames[i], f.heard, f.end, r.heard, r.end)
		}
	}
	return nil
}

// TestSlowReaders: who does not read holds the other back, and loses nothing.
func TestSlowReaders(t *testing.T) {
	const much = 2 << 20
	park := new(parking)
	t.Cleanup(park.close)
	flooded := func(by int) deed { return deed{by: by, do: flood, n: much, record: 16 << 10} }
	for name, deeds := range map[string][]deed{
		"up":                   {flooded(theClient), {do: "sync"}, flooded(theClient)},
		"down":                 {flooded(theBackend), {do: "sync"}, flooded(theBackend)},
		"both ways":            {flooded(theClient), flooded(theBackend)},
		"the end behind it":    {flooded(theBackend), {by: theBackend, do: "finish", rash: true}},
		"the client's behind":  {flooded(theClient), {by: theClient, do: "finish", rash: true}},
		"a reset in its face":  {flooded(theBackend), {by: theClient, do: "reset", rash: true}},
		"the backend's reset":  {flooded(theClient), {by: theBackend, do: "reset", rash: true}},
		"key updates among it": {flooded(theBackend), {do: "storm", by: theClient, n: 39, record: 50, ask: true}, {do: "sync"}},
	} {
		for _, manner := range []int{inClear, overTLS13} {
			for _, pumped := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/%d/pumped=%t", name, manner, pumped), func(t *testing.T) {
					t.Parallel()
					s, err := play(scene{manner: [2]int{manner, inClear}, chunk: [2]int{30_000, 30_000}, window: 64 << 10, pumped: pumped, deeds: deeds}, park, false)
					if err == nil {
						err = s.judge()
					}
					if err != nil {
						t.Fatal(err)
					}
					for _, d := range deeds {
						if !s.violent && d.do == flood && s.far[d.by].stalls == 0 {
							t.Errorf("the %s was never held back: %d bytes are somewhere", farNames[d.by], much)
						}
					}
				})
			}
		}
	}
}

// TestSmallThings: thousands of records of a byte, and thousands of KeyUpdates
// with data between, from both sides at once.
func TestSmallThings(t *testing.T) {
	park := new(parking)
	defer park.close()
	for name, d := range map[string]deed{
		"tiny records":         {do: "say", n: 1000, record: 1},
		"tiny segments":        {do: "say", n: 200, record: 3, segment: 1},
		"key updates":          {do: "storm", n: 39, record: 1, ask: true},
		"key updates in parts": {do: "storm", n: 39, record: 90, ask: true, segment: 7},
	} {
		for _, pumped := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/pumped=%t", name, pumped), func(t *testing.T) {
				sc := scene{manner: [2]int{overTLS13, overTLS13}, chunk: [2]int{500, 500}, pumped: pumped}
				for range 15 {
					for by := range farNames {
						d.by = by
						sc.deeds = append(sc.deeds, d)
					}
				}
				if err := compare(sc, park); err != nil {
					t.Fatal(err)
				}
			})
		}
	}
}

// TestEndBeforeTheBeginning: words and an end behind them that are there when the
// relay begins are one sign, not two.
func TestEndBeforeTheBeginning(t *testing.T) {
	park := new(parking)
	defer park.close()
	for _, p := range []*parking{park, nil} {
		for by, name := range farNames {
			t.Run(fmt.Sprintf("%s/pumped=%t", name, p == nil), func(t *testing.T) {
				var far [2]*net.TCPConn
				var wires [2]*Wire
				for i := range far {
					conn, near := tcpEnds(t)
					conn.SetDeadline(time.Now().Add(caseTime))
					far[i], wires[i] = conn, NewWire(near)
				}
				if _, err := far[by].Write([]byte("last words")); err != nil {
					t.Fatal(err)
				}
				if err := far[by].CloseWrite(); err != nil {
					t.Fatal(err)
				}
				ended, _ := beginRelay(wires[theClient], wires[theBackend], time.Minute, p)
				if words, err := io.ReadAll(far[1-by]); err != nil || string(words) != "last words" {
					t.Errorf("heard %q and %v", words, err)
				}
				far[1-by].Close()
				if e := <-ended; e.Reason != name+"_closed" {
					t.Error(e)
				}
			})
		}
	}
}

func drawScene(t *rapid.T) (sc scene) {
	for i, name := range farNames {
		sc.manner[i] = rapid.SampledFrom([]int{inClear, overTLS12, overTLS13, overTLS13}).Draw(t, name+" manner")
		sc.early[i] = rapid.OneOf(rapid.Just(0), rapid.IntRange(0, 3000)).Draw(t, name+" early")
		sc.peeked[i] = rapid.IntRange(0, min(sc.early[i], 1500)).Draw(t, name+" peeked")
		sc.chunk[i] = rapid.OneOf(rapid.IntRange(1, 100), rapid.IntRange(1000, 70_000)).Draw(t, name+" reads")
	}
	sc.pumped = rapid.IntRange(0, 3).Draw(t, "pumped") == 3
	sc.tight = rapid.Bool().Draw(t, "tight")
	sc.deeds = rapid.SliceOfN(rapid.Custom(func(t *rapid.T) deed {
		d := deed{by: rapid.IntRange(0, 1).Draw(t, "by")}
		if rapid.IntRange(0, 9).Draw(t, "ending") == 9 {
			d.do = rapid.SampledFrom(endings).Draw(t, "how")
			d.rash = rapid.Bool().Draw(t, "rash")
		} else {
			d.do = rapid.SampledFrom(doings).Draw(t, "do")
			d.ask = rapid.Bool().Draw(t, "ask")
		}
		d.n = rapid.OneOf(rapid.IntRange(0, 100), rapid.IntRange(0, 50_000)).Draw(t, "n")
		d.record = rapid.OneOf(rapid.IntRange(1, 100), rapid.IntRange(1, 16<<10), rapid.Just(16<<10)).Draw(t, "record")
		d.segment = rapid.OneOf(rapid.Just(0), rapid.IntRange(1, 2000)).Draw(t, "segment")
		return d
	}), 0, 25).Draw(t, "deeds")
	return sc
}

func TestRelayLikeTheReference(t *testing.T) {
	p := new(parking)
	defer p.close()
	rapid.Check(t, func(t *rapid.T) {
		if err := compare(drawScene(t), p); err != nil {
			t.Fatal(err)
		}
	})
}

// FuzzRelay plays the deeds that bytes spell: eight for the scene, then five for
// each deed.
func FuzzRelay(f *testing.F) {
	spell := func(scene [8]byte, deeds ...[5]byte) {
		p := scene[:]
		for _, d := range deeds {
			p = append(p, d[:]...)
		}
		f.Add(p)
	}
	words := slices.Concat(doings[1:], endings)
	word := func(w string) byte { return byte(2 * slices.Index(words, w)) }
	const backend = 1
	park := new(parking)
	defer park.close()
	for manner := range byte(manners * manners) {
		spell([8]byte{manner, 10, 5, 3, 1, 200, 200, manner % 2},
			[5]byte{word("say"), 100, 50, 5}, [5]byte{word("say") | backend, 200, 255}, [5]byte{word("deaf")}, [5]byte{word("say") | backend, 255, 255},
			[5]byte{word("rekey"), 0, 0, 0, 1}, [5]byte{word("storm") | backend, 30, 9, 7, 1}, [5]byte{word("hear")}, [5]byte{word("empty"), 7}, [5]byte{word("sync")},
			[5]byte{word("finish") + 2*(manner%7), 1, 0, 0, manner % 2 * 2}, [5]byte{word("say") | backend, 50, 50}, [5]byte{(word("finish") + 2*(manner*3%7)) | backend})
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		if len(p) < 8 || len(p) > 8+5*30 {
			return
		}
		// Roughly a square: small and large numbers are both in reach.
		number := func(b byte) int { return int(b) * int(b) }
		sc := scene{
			manner: [2]int{int(p[0]) % manners, int(p[0]) / manners % manners},
			early:  [2]int{int(p[1]) * 10, int(p[2]) * 10},
			chunk:  [2]int{number(p[5]) + 1, number(p[6]) + 1},
			tight:  p[7]&1 != 0,
			pumped: p[7]&2 != 0,
		}
		for i := range sc.peeked {
			sc.peeked[i] = min(int(p[3+i])*10, sc.early[i], 1500)
		}
		for d := range slices.Chunk(p[8:], 5) {
			if len(d) < 5 {
				break
			}
			sc.deeds = append(sc.deeds, deed{by: int(d[0] & 1), do: words[int(d[0]>>1)%len(words)],
				n: number(d[1]), record: number(d[2])/3 + 1, segment: number(d[3]) / 10, ask: d[4]&1 != 0, rash: d[4]&2 != 0})
		}
		if err := compare(sc, park); err != nil {
			t.Fatal(err)
		}
	})
}
