package proxy

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// pump makes a port of any connection: a goroutine waits for the peer to speak,
// and another, as long as something is owed, for it to listen. It is the port of
// systems without epoll, and of connections that are no sockets.
type pump struct {
	net.Conn
	relay *relay

	mu     sync.Mutex // guards the following
	more   sync.Cond  // in was used up, or closed set
	buffer *[relayBuffer]byte
	in     []byte // of buffer: what has come
	inErr  error
	out    []byte // what is owed
	outErr error
	taken  bool // the peer has taken something
	told   bool // the relay knows outErr
	fin    bool // the stream ends behind out
	sent   bool // the end was sent
	sender bool // a goroutine sends
	closed bool
}

// pumpChunk is what a peer must take for it to count: a slow one in half a minute.
const pumpChunk = 4 << 10

// newPump begins to listen at once.
func newPump(conn net.Conn, r *relay) port {
	p := &pump{Conn: conn, relay: r}
	p.more.L = &p.mu
	go p.listen()
	return p
}

func (p *pump) heed() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.in) > 0 || p.inErr != nil
}

// reset is known to nobody who does not read.
func (p *pump) reset() error { return nil }

// listen hands over what comes.
func (p *pump) listen() {
	read := p.patient()
	for {
		buffer, n, err := read()
		p.mu.Lock()
		p.buffer, p.in, p.inErr = buffer, buffer[:n], err
		if n == 0 || p.closed {
			p.drop()
		}
		p.mu.Unlock()
		p.relay.poke()
		if err != nil {
			return
		}
		p.mu.Lock()
		for len(p.in) > 0 && !p.closed {
			p.more.Wait()
		}
		closed := p.closed
		p.mu.Unlock()
		if closed {
			return
		}
	}
}

// patient returns a way to read that has no buffer while it waits, where the
// connection is a socket.
func (p *pump) patient() func() (*[relayBuffer]byte, int, error) {
	if c, ok := p.Conn.(syscall.Conn); ok {
		if raw, err := c.SyscallConn(); err == nil {
			return func() (buffer *[relayBuffer]byte, n int, err error) {
				waiting := raw.Read(func(fd uintptr) bool {
					buffer = relayBuffers.Get().(*[relayBuffer]byte)
					for n, err = syscall.Read(int(fd), buffer[:]); err == syscall.EINTR; {
						n, err = syscall.Read(int(fd), buffer[:])
					}
					if err == syscall.EAGAIN {
						relayBuffers.Put(buffer)
						return false
					}
					return true
				})
				switch {
				case waiting != nil:
					return relayBuffers.Get().(*[relayBuffer]byte), 0, waiting
				case err != nil:
					return buffer, 0, os.NewSyscallError("read", err)
				case n == 0:
					return buffer, 0, io.EOF
				}
				return buffer, n, nil
			}
		}
	}
	return func() (*[relayBuffer]byte, int, error) {
		buffer := relayBuffers.Get().(*[relayBuffer]byte)
		n, err := p.Conn.Read(buffer[:])
		return buffer, n, err
	}
}

// drop gives the buffer back.
func (p *pump) drop() {
	if p.buffer != nil {
		relayBuffers.Put(p.buffer)
	}
	p.buffer, p.in = nil, nil
	p.more.Signal()
}

func (p *pump) Read(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.in) == 0 {
		if p.inErr != nil {
			return 0, p.inErr
		}
		return 0, errAgain
	}
	n := copy(b, p.in)
	if p.in = p.in[n:]; len(p.in) == 0 {
		p.drop()
	}
	return n, nil
}

func (p *pump) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.outErr == nil && !p.fin && !p.closed {
		p.out = append(p.out, b...)
		p.send()
	}
	return len(b), nil
}

// send has a goroutine send what is owed, if none does.
func (p *pump) send() {
	if p.sender || p.closed {
		return
	}
	p.sender = true
	go func() {
		defer p.relay.poke()
		p.mu.Lock()
		defer p.mu.Unlock()
		defer func() { p.sender = false }()
		for len(p.out) > 0 && p.outErr == nil {
			chunk := p.out[:min(len(p.out), pumpChunk)]
			p.mu.Unlock()
			n, err := p.Conn.Write(chunk)
			p.mu.Lock()
			p.out, p.outErr, p.taken = p.out[n:], err, true
			p.mu.Unlock()
			p.relay.poke() // it moves, if slowly
			p.mu.Lock()
		}
		p.out = nil
		if p.fin && !p.sent && p.outErr == nil {
			p.sent = true
			p.outErr = closeWrite(p.Conn)
		}
	}()
}

func (p *pump) owed() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.told:
		return 0
	case p.outErr != nil, p.fin && !p.sent:
		return len(p.out) + 1
	}
	return len(p.out)
}

func (p *pump) settle() (taken bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	taken, p.taken = p.taken, false
	if p.told {
		return taken, nil
	}
	p.told = p.outErr != nil
	return taken, p.outErr
}

// Deadlines are the relay's; crypto/tls would set one for its last word.
func (p *pump) SetDeadline(time.Time) error      { return nil }
func (p *pump) SetReadDeadline(time.Time) error  { return nil }
func (p *pump) SetWriteDeadline(time.Time) error { return nil }

func (p *pump) CloseWrite() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fin = true
	p.send()
	return nil
}

// Close drops what is owed.
func (p *pump) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	p.drop()
	return p.Conn.Close()
}
