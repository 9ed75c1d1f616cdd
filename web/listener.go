package web

// The bound on connections. Help pages share the machine, and its file descriptors,
// with the mail sessions that matter more.

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"mailreeve/policy"
)

const (
	// maxConnections bounds the connections of all listeners together. An answer takes
	// milliseconds, so these are thousands of pages a second.
	maxConnections = 512
	// maxPerClient keeps one client from taking all places. It may be many: a balancer.
	maxPerClient = 64
)

// places has the connections, by client. Where there is no place left, the oldest connection
// gives up its own: of the client who comes, if that one has all that he may have, or else of
// the client who has the most. So nobody can keep a certificate authority, whose challenges
// come at the same port, from being answered by holding connections open: whoever comes is
// answered at once, and a request takes milliseconds.
type places struct {
	mu    sync.Mutex
	total int
	count uint64 // of all connections that there were
	by    map[netip.Prefix][]*placed
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

// take gives a connection a place. The other one, if it is not nil, has lost its own for it.
func (p *places) take(conn net.Conn) (taken, lost *placed) {
	taken = &placed{Conn: conn, places: p, client: client(conn.RemoteAddr())}
	p.mu.Lock()
	defer p.mu.Unlock()
	if own := p.by[taken.client]; len(own) >= maxPerClient {
		lost = own[0]
	} else if p.total >= maxConnections {
		most := 0
		for _, of := range p.by {
			if len(of) > most || len(of) == most && of[0].number < lost.number {
				most, lost = len(of), of[0]
			}
		}
	}
	if lost != nil {
		p.drop(lost)
	}
	if p.by == nil {
		p.by = map[netip.Prefix][]*placed{}
	}
	p.total++
	p.count++
	taken.number = p.count
	p.by[taken.client] = append(p.by[taken.client], taken)
	return taken, lost
}

// drop takes a place back, once. The caller holds mu.
func (p *places) drop(c *placed) {
	of := p.by[c.client]
	i := slices.Index(of, c)
	if i < 0 {
		return
	}
	p.total--
	if of = slices.Delete(of, i, i+1); len(of) == 0 {
		delete(p.by, c.client)
	} else {
		p.by[c.client] = of
	}
}

// bounded is a listener whose connections take a place each. Whatever fails, it accepts until
// it is closed.
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
		taken, lost := l.places.take(conn)
		if lost != nil {
			lost.Conn.Close()
			l.log.Debug("closed the oldest web connection: there are too many", zap.Stringer("network", policy.Network(lost.client.Addr())))
		}
		return taken, nil
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
	places *places
	client netip.Prefix
	number uint64 // by age
}

func (c *placed) Close() error {
	c.places.mu.Lock()
	c.places.drop(c)
	c.places.mu.Unlock()
	return c.Conn.Close()
}
