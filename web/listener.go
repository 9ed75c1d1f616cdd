package web

// The bound on connections. Help pages share the machine, and its file descriptors,
// with the mail sessions that matter more.

import (
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"go.uber.org/zap"
)

const (
	// maxConnections bounds the connections of all listeners together. An answer takes
	// milliseconds, so these are thousands of pages a second.
	maxConnections = 512
	// maxPerClient keeps one client from taking all places, and with them those of the
	// certificate authority, whose challenges come at the same port.
	maxPerClient = 64
)

// places counts connections, in total and per client.
type places struct {
	mu    sync.Mutex
	total int
	by    map[netip.Prefix]int
}

// client is what counts as one client: an IPv4 address, or an IPv6 /64, which is the
// least that a customer is given (RFC 6177).
func client(addr net.Addr) netip.Prefix {
	at, err := netip.ParseAddrPort(addr.String())
	if err != nil {
		return netip.Prefix{} // one client like another
	}
	ip := at.Addr().Unmap().WithZone("")
	bits := ip.BitLen()
	if ip.Is6() {
		bits = 64
	}
	p, _ := ip.Prefix(bits)
	return p
}

// take counts a connection and reports whether there was a place for it.
func (p *places) take(c netip.Prefix) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.total >= maxConnections || p.by[c] >= maxPerClient {
		return false
	}
	if p.by == nil {
		p.by = map[netip.Prefix]int{}
	}
	p.total++
	p.by[c]++
	return true
}

func (p *places) free(c netip.Prefix) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.total--
	if p.by[c]--; p.by[c] <= 0 {
		delete(p.by, c)
	}
}

// bounded is a listener whose connections take a place each; those for which there is
// none are closed. Whatever fails, it accepts until it is closed.
type bounded struct {
	net.Listener
	places *places
	log    *zap.Logger

	once   sync.Once
	closed chan struct{}
}

func (l *bounded) Accept() (net.Conn, error) {
	for pause := time.Duration(0); ; {
		conn, err := l.Listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil, err
		}
		if err != nil {
			// No descriptors left, mostly: those in use will come back.
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			l.log.Error("accepting a web connection failed, trying again", zap.Duration("after", pause), zap.Error(err))
			select {
			case <-time.After(pause):
				continue
			case <-l.closed:
				return nil, net.ErrClosed
			}
		}
		pause = 0
		c := client(conn.RemoteAddr())
		if l.places.take(c) {
			return &placed{Conn: conn, leave: sync.OnceFunc(func() { l.places.free(c) })}, nil
		}
		conn.Close()
		l.log.Debug("turned a web connection away: there are too many", zap.Stringer("client", c.Addr()))
	}
}

// Close ends a pause too.
func (l *bounded) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

// placed is a connection that gives its place back.
type placed struct {
	net.Conn
	leave func()
}

func (c *placed) Close() error {
	c.leave()
	return c.Conn.Close()
}
