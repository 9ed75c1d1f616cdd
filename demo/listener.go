package demo

import (
	"net"
	"sync"
)

// listener remembers the connections that it has accepted: closing it closes
// them too. The libraries' own Close can miss a connection whose goroutine has
// not run yet, and go-smtp's Shutdown waits for sessions without ending them.
type listener struct {
	net.Listener

	mu    sync.Mutex
	conns map[*conn]struct{} // nil once closed
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	accepted, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conns == nil {
		accepted.Close()
		return nil, net.ErrClosed
	}
	c := &conn{Conn: accepted, listener: l}
	l.conns[c] = struct{}{}
	return c, nil
}

// Close closes the listener and every connection that it has accepted. It may
// be called again, as the libraries do.
func (l *listener) Close() error {
	l.mu.Lock()
	conns := l.conns
	l.conns = nil
	l.mu.Unlock()
	if conns == nil {
		return nil
	}
	for c := range conns {
		c.Conn.Close()
	}
	return l.Listener.Close()
}

// conn is a connection that its listener knows of.
type conn struct {
	net.Conn
	listener *listener
}

// Close implements net.Conn.
func (c *conn) Close() error {
	c.listener.mu.Lock()
	delete(c.listener.conns, c)
	c.listener.mu.Unlock()
	return c.Conn.Close()
}

// handOver is a listener that yields a single connection: go-imap's server
// takes connections in no other way. It is used by one goroutine.
type handOver struct {
	conn net.Conn // nil once accepted
}

// Accept implements net.Listener. The second call ends the server's loop.
func (h *handOver) Accept() (net.Conn, error) {
	if h.conn == nil {
		return nil, net.ErrClosed
	}
	c := h.conn
	h.conn = nil
	return c, nil
}

// Close implements net.Listener. The connection belongs to who accepted it.
func (h *handOver) Close() error { return nil }

// Addr implements net.Listener.
func (h *handOver) Addr() net.Addr { return &net.UnixAddr{Name: "handed over", Net: "pipe"} }
