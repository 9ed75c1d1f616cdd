package proxy

import (
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// parking is where the sockets of relays wait: one epoll set, in which each is
// entered once, for both directions, edge-triggered; nothing is ever changed
// about it. Its workers do what the events are about.
//
// Go's own poller is left aside for single sockets: it needs a goroutine that waits
// for each direction of each, with a stack of at least 2 KB.
//
// Workers wait in one of two ways. While nothing else goes on they block in
// epoll_wait: in an idle Go program, a goroutine that waits for its poller wakes
// slowly, since a thread of the poller finds it, wakes another one to go on polling,
// and that turns around for a while: a NOOP cost the double. But while sessions log
// in, each in a goroutine, a blocked thread holds a processor of the scheduler's,
// which then looks every 20 microseconds whether to take that away: a third of a
// login. So workers wait in Go's poller then, for the epoll set as a whole.
//
// The zero parking is ready; it begins with the first socket.
type parking struct {
	stirred *atomic.Int64 // when a session last began, in nanoseconds since 1970; nil: never

	mu      sync.Mutex // guards the following
	open    bool
	set     int // the epoll set
	bell    int // an eventfd in it that ends the workers
	workers sync.WaitGroup
	helper  sync.WaitGroup
	spare   chan *relay             // that had their share and want more; nil: there are more events
	polled  atomic.Pointer[os.File] // the set, while Go's poller has it; changed under mu

	sockets [maxSockets / socketsTogether]atomic.Pointer[[socketsTogether]atomic.Pointer[parked]] // by descriptor
}

const (
	// maxSockets is the largest descriptor that can wait here; Linux's own bound,
	// fs.nr_open, begins at 1 << 20. Others have a pump.
	maxSockets      = 1 << 22
	socketsTogether = 1 << 12
	// eventsTogether is how many events a worker takes at once: enough to save
	// system calls, few enough to leave the others something.
	eventsTogether = 32
	// awaited is all that can happen to a socket.
	awaited = unix.EPOLLIN | unix.EPOLLPRI | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLET
	// stirs is how long after the beginning of a session others are thought to log in.
	stirs = 250 * time.Millisecond
	// queued is how many busy sessions wait for a turn at most; a worker keeps more.
	queued = 256
)

// port takes a connection out of Go's poller, and out of its hands: the
// descriptor that goes on is a duplicate of its own.
func (p *parking) port(conn net.Conn, r *relay) port {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return newPump(conn, r)
	}
	fd, err := duplicate(tcp)
	if err != nil || fd >= maxSockets || p.begin() != nil {
		if err == nil {
			unix.Close(fd)
		}
		return newPump(conn, r) // which costs memory, and is better than no session
	}
	s := &parked{fd: fd, relay: r, parking: p}
	if s.enter() != nil {
		unix.Close(fd)
		return newPump(conn, r)
	}
	tcp.Close()
	return s
}

func duplicate(conn *net.TCPConn) (fd int, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	if e := raw.Control(func(own uintptr) { fd, err = unix.FcntlInt(own, unix.F_DUPFD_CLOEXEC, 0) }); e != nil {
		return 0, e
	}
	return fd, err
}

// begin opens the set and starts the workers, if need be.
func (p *parking) begin() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.open {
		return nil
	}
	set, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return err
	}
	bell, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		unix.Close(set)
		return err
	}
	if err := unix.EpollCtl(set, unix.EPOLL_CTL_ADD, bell, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(bell)}); err != nil {
		unix.Close(set)
		unix.Close(bell)
		return err
	}
	p.open, p.set, p.bell, p.spare = true, set, bell, make(chan *relay, queued)
	for range max(1, runtime.GOMAXPROCS(0)-1) {
		p.workers.Go(p.newWorker().run)
	}
	p.helper.Go(p.newWorker().help)
	return nil
}

// close ends the workers. No relay may be left.
func (p *parking) close() {
	p.mu.Lock()
	open := p.open
	p.open = false
	p.mu.Unlock()
	if !open {
		return
	}
	unix.Write(p.bell, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	p.workers.Wait()
	close(p.spare)
	p.helper.Wait()
	p.leavePoller()
	unix.Close(p.bell)
	unix.Close(p.set)
}

// worker does what events are about. There is one less than Go's scheduler has
// processors, and a helper, which waits until something is left over: so in an idle
// program one processor is free, and the scheduler lets the others wait. With a
// single processor there are both.
type worker struct {
	*parking
	buffer []byte
	events []unix.EpollEvent
	greedy []*relay // had their share and want more
}

func (p *parking) newWorker() *worker {
	return &worker{parking: p, buffer: make([]byte, relayBuffer), events: make([]unix.EpollEvent, eventsTogether)}
}

// run waits for events until the bell rings.
func (w *worker) run() {
	for {
		n := w.wait(w.events, len(w.greedy) > 0)
		if !w.serve(n) {
			return
		}
		w.share()
		if n == len(w.events) {
			select {
			case w.spare <- nil:
			default:
			}
		}
	}
}

// help does what is left over, and looks for events meanwhile.
func (w *worker) help() {
	for r := range w.spare {
		if r != nil {
			w.greedy = append(w.greedy, r)
		}
		for n := 1; n > 0 || len(w.greedy) > 0; {
			if n = w.wait(w.events, true); !w.serve(n) {
				break // and spare is closed
			}
			w.share()
		}
	}
}

// share puts busy sessions at the end of the queue, where there is one, and takes
// one from its head: so all have their turn, whichever worker they came to.
func (w *worker) share() {
	if len(w.greedy) < 2 && len(w.spare) == 0 {
		return
	}
	kept := w.greedy[:0]
	for _, r := range w.greedy {
		select {
		case w.spare <- r:
		default:
			kept = append(kept, r)
		}
	}
	clear(w.greedy[len(kept):])
	w.greedy = kept
	select {
	case r := <-w.spare:
		if r != nil {
			w.greedy = append(w.greedy, r)
		}
	default:
	}
}

// serve does what n events are about, and something for each that wants more.
// It reports whether the bell is silent.
func (w *worker) serve(n int) bool {
	before := len(w.greedy)
	for _, e := range w.events[:n] {
		if int(e.Fd) == w.bell {
			return false
		}
		// A socket that was closed meanwhile is nobody's. Where its number is taken
		// again, a relay is woken in vain, and may ask the system once too often.
		if s := w.at(int(e.Fd)); s != nil {
			s.news.Or(e.Events)
			if s.relay.wake(w.buffer) {
				w.greedy = append(w.greedy, s.relay)
			}
		}
	}
	still := w.greedy[:0]
	for i, r := range w.greedy { // those that have just had their share stay
		if i >= before || r.resume(w.buffer) {
			still = append(still, r)
		}
	}
	clear(w.greedy[len(still):])
	w.greedy = still
	if n == len(w.events) || len(w.greedy) > 0 {
		runtime.Gosched() // under load, logins have their turn too
	}
	return true
}

// wait waits for events and returns how many have come. It may be none.
func (p *parking) wait(events []unix.EpollEvent, hurry bool) (n int) {
	look := func(patience int) bool {
		var err error
		if n, err = unix.EpollWait(p.set, events, patience); err != nil {
			if n = 0; err != unix.EINTR {
				panic(fmt.Sprintf("waiting for sockets: %v", err)) // EBADF and the like: our own mistake
			}
		}
		return n > 0
	}
	alone := func() bool { return p.stirred == nil || time.Now().UnixNano()-p.stirred.Load() > int64(stirs) }
	if hurry {
		look(0)
		return n
	}
	if !alone() {
		if poller := p.joinPoller(); poller != nil {
			if poller.Read(func(uintptr) bool { return look(0) || alone() }) == nil {
				return n
			}
		}
		// Another worker has just left it, or it cannot be joined.
	} else {
		p.leavePoller()
	}
	look(-1)
	return n
}

// joinPoller has Go's poller look after the set; nil: it cannot.
func (p *parking) joinPoller() syscall.RawConn {
	file := p.polled.Load()
	if file == nil {
		p.mu.Lock()
		defer p.mu.Unlock()
		if file = p.polled.Load(); file == nil {
			fd, err := unix.FcntlInt(uintptr(p.set), unix.F_DUPFD_CLOEXEC, 0)
			if err != nil {
				return nil
			}
			unix.SetNonblock(fd, true) // which os.NewFile asks for
			file = os.NewFile(uintptr(fd), "epoll")
			p.polled.Store(file)
		}
	}
	poller, err := file.SyscallConn()
	if err != nil {
		return nil
	}
	return poller
}

// leavePoller takes the set away from Go's poller, which would wake for nothing.
func (p *parking) leavePoller() {
	if p.polled.Load() == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if file := p.polled.Swap(nil); file != nil {
		file.Close()
	}
}

// at returns the socket with a descriptor, or nil.
func (p *parking) at(fd int) *parked {
	if together := p.sockets[fd/socketsTogether].Load(); together != nil {
		return together[fd%socketsTogether].Load()
	}
	return nil
}

// note makes a socket known by its descriptor; nil forgets it.
func (p *parking) note(fd int, s *parked) {
	place := &p.sockets[fd/socketsTogether]
	together := place.Load()
	if together == nil {
		place.CompareAndSwap(nil, new([socketsTogether]atomic.Pointer[parked]))
		together = place.Load()
	}
	together[fd%socketsTogether].Store(s)
}

// parked is a port: a non-blocking TCP socket.
type parked struct {
	fd      int
	relay   *relay
	parking *parking
	news    atomic.Uint32 // of epoll, not yet heeded

	dry    bool // nothing to read: ask no more before there is news
	full   bool // nothing can be sent, likewise
	unsure bool // a short read may not be all: behind it is the end, or urgent data
	gone   bool // both directions have ended, or there is an error
	fin    bool // the stream ends behind what is owed
	sent   bool // the end was sent
	closed bool
	broken error   // of a write
	told   bool    // the relay knows of it
	out    *[]byte // what is owed, but for its first paid bytes; nil: nothing
	paid   int
}

// keeps are lent to sockets that owe something.
var keeps = sync.Pool{New: func() any { return new([]byte) }}

// enter enters the socket in the set.
func (s *parked) enter() error {
	s.parking.note(s.fd, s)
	err := unix.EpollCtl(s.parking.set, unix.EPOLL_CTL_ADD, s.fd, &unix.EpollEvent{Events: awaited, Fd: int32(s.fd)})
	if err != nil {
		s.parking.note(s.fd, nil)
	}
	return err
}

func (s *parked) heed() bool {
	news := s.news.Swap(0)
	const end = unix.EPOLLRDHUP | unix.EPOLLERR | unix.EPOLLHUP
	if news&(unix.EPOLLIN|unix.EPOLLPRI|end) != 0 {
		s.dry = false
	}
	if news&(unix.EPOLLOUT|end) != 0 {
		s.full = false
	}
	if news&(unix.EPOLLPRI|end) != 0 {
		s.unsure = true
	}
	s.gone = s.gone || news&(unix.EPOLLERR|unix.EPOLLHUP) != 0
	return !s.dry
}

func (s *parked) reset() error {
	if !s.gone || s.closed {
		return nil
	}
	code, err := unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err != nil || code == 0 {
		return nil
	}
	return os.NewSyscallError("read", syscall.Errno(code))
}

// Read asks the system no more than it must: what comes short was all (epoll(7)),
// unless the end is behind it, or urgent data, at which the system stops.
func (s *parked) Read(b []byte) (int, error) {
	if s.closed {
		return 0, net.ErrClosed
	}
	for !s.dry {
		n, err := unix.Read(s.fd, b)
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.EAGAIN:
			s.dry = true
			return 0, errAgain
		case err != nil:
			return 0, os.NewSyscallError("read", err)
		case n == 0 && len(b) > 0:
			return 0, io.EOF
		}
		s.dry = n < len(b) && !s.unsure
		return n, nil
	}
	return 0, errAgain
}

func (s *parked) Write(b []byte) (int, error) {
	if s.mute() {
		return len(b), nil
	}
	n := 0
	if s.out == nil {
		n = s.send(b)
	}
	if n < len(b) && s.broken == nil {
		if s.out == nil {
			s.out = keeps.Get().(*[]byte)
		}
		*s.out = append(*s.out, b[n:]...)
	}
	return len(b), nil
}

// mute reports whether nothing can be sent any more.
func (s *parked) mute() bool { return s.broken != nil || s.fin || s.closed }

// send sends what can be sent now.
func (s *parked) send(b []byte) (n int) {
	for n < len(b) && !s.full {
		m, err := unix.Write(s.fd, b[n:])
		switch err {
		case nil:
			n += m
			s.full = n < len(b)
		case unix.EINTR:
		case unix.EAGAIN:
			s.full = true
		default:
			s.broken = os.NewSyscallError("write", err)
			s.release()
			return n
		}
	}
	return n
}

// release gives the memory of what was owed back.
func (s *parked) release() {
	if s.out != nil {
		*s.out = (*s.out)[:0]
		keeps.Put(s.out)
	}
	s.out, s.paid = nil, 0
}

func (s *parked) owed() int {
	n := 0
	if s.out != nil {
		n = len(*s.out) - s.paid
	}
	if s.fin && !s.sent || s.broken != nil && !s.told {
		n++
	}
	return n
}

func (s *parked) settle() (taken bool, err error) {
	if s.out != nil && s.broken == nil {
		n := s.send((*s.out)[s.paid:])
		s.paid += n
		taken = n > 0
		if s.broken == nil && s.paid < len(*s.out) {
			return taken, nil
		}
		s.release()
	}
	if s.fin && !s.sent {
		s.sent = true
		if s.broken == nil {
			if err := unix.Shutdown(s.fd, unix.SHUT_WR); err != nil {
				s.broken = os.NewSyscallError("shutdown", err)
			}
		}
	}
	if s.told {
		return taken, nil
	}
	s.told = s.broken != nil
	return taken, s.broken
}

func (s *parked) CloseWrite() error {
	s.fin = true
	return nil
}

func (s *parked) Close() error {
	if s.closed {
		return nil
	}
	s.closed = true
	if s.out != nil {
		// The peer takes nothing, and what it got is not all: a reset says so at once,
		// where the system would go on offering the rest for minutes.
		unix.SetsockoptLinger(s.fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	}
	s.release()
	s.parking.note(s.fd, nil)
	return unix.Close(s.fd) // which takes it out of the set, since it has no duplicate
}

// Addresses it has none: the session has noted them.
func (*parked) LocalAddr() net.Addr  { return nil }
func (*parked) RemoteAddr() net.Addr { return nil }

// Deadlines are the relay's; crypto/tls would set one for its last word.
func (*parked) SetDeadline(time.Time) error      { return nil }
func (*parked) SetReadDeadline(time.Time) error  { return nil }
func (*parked) SetWriteDeadline(time.Time) error { return nil }
