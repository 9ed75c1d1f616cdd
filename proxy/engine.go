package proxy

// The engine's outside: sockets, settings and the end. Apply opens what is new
// before it closes what is old, so that a reload refuses nobody; Shutdown gives
// every session its moment. What a session does is in session.go and login.go.

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"mailreeve/events"
	"mailreeve/policy"
)

// Recorder keeps events. Record is called from the goroutines of the sessions,
// many at once, which wait for it, and must not keep the event beyond the call.
// An error is counted and logged: an event lost is a customer not told.
type Recorder interface {
	Record(*events.Session) error
}

// Engine runs sessions. Fill its fields, then [Engine.Apply] settings, as often
// as these change; end it with [Engine.Shutdown].
type Engine struct {
	Log    *zap.Logger // operators' log, which may be kept longer than events and has no client's whole address; nil: none
	Events Recorder    // nil: none

	// Watch, where it points to a function, has that called at each answer to a
	// login, and at the end of a session in which it was not called before, with
	// the event as known then. It is called as a Recorder is, but waits for
	// nothing. It may be changed at any time.
	Watch atomic.Pointer[func(*events.Session)]

	hold      atomic.Pointer[policy.Hold]
	tally     tally
	upgraders upgraders
	warned    warned
	full      sometimes    // "too many connections", in the log
	failures  atomic.Int64 // of Events, since the start
	draining  atomic.Bool
	sessions  sync.WaitGroup // and the goroutines that ask backends for their offers
	accepting sync.WaitGroup
	entering  atomic.Int64 // sessions that are not relayed yet
	stirred   atomic.Int64 // when the last one began, in nanoseconds since 1970
	wheel     wheel
	parking   parking

	mu      sync.Mutex // guards the following
	current *Settings
	sockets map[string]*socket // by address as configured
	live    map[*session]struct{}

	overdue context.Context // ends at a shutdown's deadline; made before the first session
	hurry   context.CancelFunc
}

// socket is an open listening socket. Which listener it serves may change with
// the settings; the socket stays, so a reload refuses nobody.
type socket struct {
	net.Listener
	serving atomic.Pointer[serving]
}

// serving is what a session of a socket is given: one snapshot.
type serving struct {
	settings *Settings
	listener *Listener
}

// Apply checks settings, opens the sockets that are new, hands the settings to
// all sessions from now on and closes the sockets that are no longer wanted.
// On an error nothing has changed. A listener without an address has no socket;
// its sessions come by [Engine.ServeConn].
func (e *Engine) Apply(s *Settings) error {
	s, err := s.prepared()
	if err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.draining.Load() {
		return errors.New("the proxy is shutting down")
	}
	sockets, serves := map[string]*socket{}, map[*socket]*Listener{}
	var opened []*socket
	for _, l := range s.Listeners {
		if l.Address == "" {
			continue
		}
		key := l.Address
		if sockets[key] != nil && strings.HasSuffix(key, ":0") {
			key += " " + l.Name // another port of the system's choice
		}
		if sockets[key] != nil {
			closeAll(opened)
			return fmt.Errorf("listener %s: address %s is used twice", l.Name, l.Address)
		}
		sock := e.sockets[key]
		if sock == nil {
			conf := net.ListenConfig{KeepAliveConfig: keepAlive}
			ln, err := conf.Listen(context.Background(), "tcp", l.Address)
			if err != nil {
				closeAll(opened)
				return &ListenError{Listener: l.Name, Address: l.Address, Err: err}
			}
			sock = &socket{Listener: ln}
			opened = append(opened, sock)
		}
		sockets[key] = sock
		serves[sock] = l
	}
	for sock, l := range serves {
		sock.serving.Store(&serving{s, l})
	}
	for _, sock := range opened {
		e.accepting.Add(1)
		go e.acceptLoop(sock)
	}
	for key, sock := range e.sockets {
		if sockets[key] == nil {
			sock.Close()
		}
	}
	e.sockets, e.current = sockets, s
	return nil
}

// ListenError says which listener could not be opened.
type ListenError struct {
	Listener, Address string
	Err               error
}

func (e *ListenError) Error() string {
	err := e.Err
	if op := (*net.OpError)(nil); errors.As(err, &op) {
		err = op.Err // without the address, which is said already
	}
	return fmt.Sprintf("listener %s: cannot listen on %s: %v", e.Listener, e.Address, err)
}

func (e *ListenError) Unwrap() error { return e.Err }

func closeAll(sockets []*socket) {
	for _, s := range sockets {
		s.Close()
	}
}

// SetHold caps from now on what policy does, in the sessions that are there too,
// from their next decision on; nil lifts it. What it points to must not change.
func (e *Engine) SetHold(h *policy.Hold) { e.hold.Store(h) }

// Addr returns the address that a listener's socket is bound to, or nil.
func (e *Engine) Addr(listener string) net.Addr {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, sock := range e.sockets {
		if s := sock.serving.Load(); s.listener.Name == listener {
			return sock.Addr()
		}
	}
	return nil
}

// Owner returns the brand whose host name it is, canonical or old, for whatever
// protocol, or nil. The name is folded: lower case, no final dot.
func (e *Engine) Owner(name string) *Brand {
	e.mu.Lock()
	s := e.current
	e.mu.Unlock()
	if s == nil {
		return nil
	}
	return s.owner(name)
}

// acceptLoop begins sessions until the socket is closed.
func (e *Engine) acceptLoop(sock *socket) {
	defer e.accepting.Done()
	pause := time.Duration(0)
	for {
		conn, err := sock.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			// No descriptors left, mostly: those in use will come back.
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			e.log().Error("accepting a connection failed, trying again", zap.Duration("after", pause), zap.Error(err))
			time.Sleep(pause)
			continue
		}
		pause = 0
		now := sock.serving.Load()
		if !e.tally.enter(now.settings.Connections) {
			conn.Close()
			if held, ok := e.full.ready(); ok {
				e.log().Warn("turned a connection away: limits.connections is reached",
					zap.Int("limit", now.settings.Connections), zap.Stringer("network", policy.Network(addrPort(conn.RemoteAddr()).Addr())), zap.Int("more", held))
			}
			continue
		}
		e.mu.Lock()
		e.start(now, conn)
		e.mu.Unlock()
	}
}

// ServeConn runs a session of a listener, by name, on a connection that
// somebody else has accepted. It returns at once; the engine closes the connection.
func (e *Engine) ServeConn(listener string, conn net.Conn) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.draining.Load() {
		conn.Close()
		return errors.New("the proxy is shutting down")
	}
	i := -1
	if e.current != nil {
		i = slices.IndexFunc(e.current.Listeners, func(l *Listener) bool { return l.Name == listener })
	}
	if i < 0 {
		conn.Close()
		return fmt.Errorf("no listener is named %s", listener)
	}
	e.tally.enter(0)
	e.start(&serving{e.current, e.current.Listeners[i]}, conn)
	return nil
}

// start begins a session. The caller holds the lock, so that Shutdown either
// sees the session or has kept it from beginning.
func (e *Engine) start(now *serving, conn net.Conn) {
	if e.live == nil {
		e.live = map[*session]struct{}{}
		e.overdue, e.hurry = context.WithCancel(context.Background())
		e.parking.stirred = &e.stirred // before the first relay
	}
	s := newSession(e, now, conn)
	e.live[s] = struct{}{}
	e.sessions.Add(1)
	e.entering.Add(1)
	e.stirred.Store(s.began.UnixNano())
	go s.run()
}

// bury ends what start began.
func (e *Engine) bury(s *session) {
	e.mu.Lock()
	delete(e.live, s)
	e.mu.Unlock()
	e.tally.leave()
	e.sessions.Done()
}

// spawn runs a short task beside the sessions, for one of them. Shutdown waits
// for it, and ends its context at the deadline.
func (e *Engine) spawn(task func(context.Context)) {
	e.sessions.Add(1)
	go func() {
		defer e.sessions.Done()
		task(e.overdue)
	}()
}

// record hands an event over.
func (e *Engine) record(ev *events.Session) {
	if e.Events == nil {
		return
	}
	if err := e.Events.Record(ev); err != nil {
		e.log().Error("recording an event failed", zap.String("session", ev.ID),
			zap.Int64("failures", e.failures.Add(1)), zap.Error(err))
	}
}

// tell has who watches hear of an event.
func (e *Engine) tell(ev *events.Session) {
	if watch := e.Watch.Load(); watch != nil {
		(*watch)(ev)
	}
}

func (e *Engine) log() *zap.Logger {
	if e.Log == nil {
		return zap.NewNop()
	}
	return e.Log
}

// Sessions returns how many sessions there are.
func (e *Engine) Sessions() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.live)
}

// Shutdown ends the engine. It stops accepting, tells clients that have not
// logged in, and says goodbye to idle sessions in their protocol, spread over
// goodbye so that they do not all come back at once (RFC 9051 section 7.1.5:
// BYE; RFC 5321 section 3.8: 421). At deadline everything left is cut.
// It returns when all is over.
func (e *Engine) Shutdown(goodbye, deadline time.Duration) {
	began := time.Now()
	e.mu.Lock()
	e.draining.Store(true)
	for _, sock := range e.sockets {
		sock.Close()
	}
	e.mu.Unlock()
	e.accepting.Wait()

	over := make(chan struct{})
	go func() {
		e.sessions.Wait()
		e.parking.close()
		close(over)
	}()

	// Each session has its moment; one that is busy then is asked again, once
	// a tick, until it falls idle.
	moments := map[*session]time.Duration{}
	tick := time.NewTicker(max(min(goodbye/50, time.Second), 10*time.Millisecond))
	defer tick.Stop()
	end := time.NewTimer(deadline)
	defer end.Stop()
	for {
		for _, s := range e.snapshot() {
			at, ok := moments[s]
			if !ok {
				at = rand.N(max(goodbye, 1))
				moments[s] = at
			}
			s.leave(time.Since(began) >= at)
		}
		select {
		case <-over:
			return
		case <-tick.C:
		case <-end.C:
			for _, s := range e.snapshot() {
				s.cut()
			}
			e.mu.Lock()
			if e.hurry != nil {
				e.hurry() // those who speak with a backend now
			}
			e.mu.Unlock()
			<-over
			return
		}
	}
}

func (e *Engine) snapshot() []*session {
	e.mu.Lock()
	defer e.mu.Unlock()
	all := make([]*session, 0, len(e.live))
	for s := range e.live {
		all = append(all, s)
	}
	return all
}

// addrPort returns a socket's address where it is one of IP.
func addrPort(a net.Addr) netip.AddrPort {
	p, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(p.Addr().Unmap().WithZone(""), p.Port())
}
