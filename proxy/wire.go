package proxy

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"time"
)

// ErrLineTooLong says that no line end came within the limit.
var ErrLineTooLong = errors.New("line too long")

const (
	// wireBuffer is what a wire begins with: a ClientHello or a few commands.
	wireBuffer = 2 << 10
	// writePatience bounds one write before the relay: a peer that does not
	// take a line of text for so long is gone.
	writePatience = 30 * time.Second
)

// Wire is a connection together with every byte that was read ahead from it.
// One goroutine uses it, in the relay one at a time; before that, any may close it.
//
// Its buffer begins small and grows up to what a caller's limit needs, so a
// session's memory is bounded by the limits that the callers give.
type Wire struct {
	conn    net.Conn
	buf     []byte // buf[r:w] was read and not yet used
	r, w    int
	in, out atomic.Int64
	relayed bool // writes are then bounded by the relay's own watch
}

// NewWire takes over a connection.
func NewWire(conn net.Conn) *Wire { return &Wire{conn: conn} }

// Counts returns how many bytes came in and went out, after TLS was taken off.
func (w *Wire) Counts() (in, out int64) { return w.in.Load(), w.out.Load() }

// Buffered returns the number of bytes read ahead.
func (w *Wire) Buffered() int { return w.w - w.r }

// fill reads once more, with room for at least one byte; limit bounds the buffer.
func (w *Wire) fill(limit int) error {
	if w.r > 0 {
		w.w = copy(w.buf, w.buf[w.r:w.w])
		w.r = 0
	}
	if w.w == len(w.buf) {
		grown := make([]byte, min(max(2*len(w.buf), wireBuffer), max(limit, wireBuffer)))
		if len(grown) <= w.w {
			return ErrLineTooLong
		}
		copy(grown, w.buf[:w.w])
		w.buf = grown
	}
	n, err := w.conn.Read(w.buf[w.w:])
	w.w += n
	w.in.Add(int64(n))
	if n > 0 {
		return nil
	}
	if err == nil {
		return io.ErrNoProgress
	}
	return err
}

// Line reads one line of at most limit bytes and returns it without its end,
// CRLF or a bare LF (old devices send it; before the login nothing can be
// smuggled with it, since every line is answered here). The limit does not
// count the end. The slice is valid until the next read. A longer line is
// ErrLineTooLong and stays unread.
func (w *Wire) Line(limit int) ([]byte, error) {
	seen := 0
	for {
		if i := bytes.IndexByte(w.buf[w.r+seen:w.w], '\n'); i >= 0 {
			i += seen
			line := bytes.TrimSuffix(w.buf[w.r:w.r+i], []byte("\r"))
			if len(line) > limit {
				return nil, ErrLineTooLong
			}
			w.r += i + 1
			return line, nil
		}
		seen = w.w - w.r
		if seen > limit+1 {
			return nil, ErrLineTooLong
		}
		if err := w.fill(limit + 2); err != nil {
			return nil, err
		}
	}
}

// besideToken is what a command line may have besides a SASL response: a tag, the
// command and the mechanism.
const besideToken = 256

// Command reads a command line of a client within its limits: the longer one
// of a SASL response holds where carries says that there is one on the line.
func (w *Wire) Command(l Limits, carries func(line string) bool) (string, error) {
	line, err := w.Line(max(l.Line, l.Token+besideToken))
	if err != nil {
		return "", err
	}
	if err := notHTTP(line); err != nil {
		return "", err
	}
	if len(line) > l.Line && !carries(string(line)) {
		return "", ErrLineTooLong
	}
	return string(line), nil
}

// Bytes reads exactly n bytes, a literal say, into memory of their own. The
// caller has checked n.
func (w *Wire) Bytes(n int) ([]byte, error) {
	p := make([]byte, n)
	if _, err := io.ReadFull(w, p); err != nil {
		return nil, err
	}
	return p, nil
}

// Peek returns the next n bytes, or what there is of them with the error that
// stopped it, without using them.
func (w *Wire) Peek(n int) ([]byte, error) {
	for w.w-w.r < n {
		if err := w.fill(n); err != nil {
			return w.buf[w.r:w.w], err
		}
	}
	return w.buf[w.r : w.r+n], nil
}

// Read returns bytes read ahead first.
func (w *Wire) Read(p []byte) (int, error) {
	if w.r < w.w {
		n := copy(p, w.buf[w.r:w.w])
		w.r += n
		return n, nil
	}
	if w.relayed {
		w.buf, w.r, w.w = nil, 0, 0
	}
	n, err := w.conn.Read(p)
	w.in.Add(int64(n))
	return n, err
}

// Write sends p. Until the relay begins it gives up after writePatience.
func (w *Wire) Write(p []byte) (int, error) {
	if !w.relayed {
		if err := w.conn.SetWriteDeadline(time.Now().Add(writePatience)); err != nil {
			return 0, err
		}
	}
	n, err := w.conn.Write(p)
	w.out.Add(int64(n))
	return n, err
}

// Say sends text as it is.
func (w *Wire) Say(text string) error {
	_, err := w.Write([]byte(text))
	return err
}

// skip takes n bytes that are not the peer's own out of the count.
func (w *Wire) skip(n int) { w.in.Add(-int64(n)) }

// SetReadDeadline bounds reading.
func (w *Wire) SetReadDeadline(t time.Time) { w.conn.SetReadDeadline(t) }

// replay puts bytes read ahead back in front of a connection, for TLS, and
// keeps the last ones of a handshake.
type replay struct {
	net.Conn
	ahead []byte
	tail  []byte // what was read last, alertRecord bytes at most; nil: it is not kept
}

// alertRecord is the length of a TLS record with an alert in clear (RFC 8446
// sections 5.1 and 6).
const alertRecord = 7

func (c *replay) Read(p []byte) (n int, err error) {
	if len(c.ahead) > 0 {
		n = copy(p, c.ahead)
		if c.ahead = c.ahead[n:]; len(c.ahead) == 0 {
			c.ahead = nil // its memory too
		}
	} else {
		n, err = c.Conn.Read(p)
	}
	if c.tail != nil {
		c.tail = append(c.tail, p[max(0, n-alertRecord):n]...)
		c.tail = append(c.tail[:0], c.tail[max(0, len(c.tail)-alertRecord):]...)
	}
	return n, err
}

// beginWatch keeps the last bytes read, until endWatch.
func (c *replay) beginWatch() { c.tail = make([]byte, 0, 2*alertRecord) }

func (c *replay) endWatch() { c.tail = nil }

// lastAlert returns the alert that the last bytes read are in clear. OpenSSL,
// as a client of TLS 1.3, sends it so, since it switches its keys only when it
// has taken the certificate; crypto/tls does not understand it. It also drops
// warnings, by which old clients take their leave.
func (c *replay) lastAlert() (number uint8, ok bool) {
	t := c.tail
	if len(t) < alertRecord || t[0] != 21 || t[1] != 3 || t[3] != 0 || t[4] != 2 || t[5] != 1 && t[5] != 2 {
		return 0, false
	}
	return t[6], t[6] != 0 // close_notify is no complaint
}

// CloseWrite half-closes the connection below, where it can.
func (c *replay) CloseWrite() error { return closeWrite(c.Conn) }

// raw takes the connection out of the wire for TLS, with the bytes read ahead
// in front of it; those count as TLS's, not as the client's.
func (w *Wire) raw() *replay {
	conn := &replay{Conn: w.conn}
	if ahead := w.Buffered(); ahead > 0 {
		conn.ahead = bytes.Clone(w.buf[w.r:w.w])
		w.skip(ahead)
	}
	w.r, w.w = 0, 0
	return conn
}

// secure puts a TLS connection over [Wire.raw] into the wire.
func (w *Wire) secure(conn *tls.Conn) { w.conn = conn }

// beginRelay frees the wire of the dialogue's deadlines.
func (w *Wire) beginRelay() {
	w.conn.SetDeadline(time.Time{})
	w.relayed = true
}

// lodge puts a port in the place of the connection, below TLS where there is any.
func (w *Wire) lodge(at func(net.Conn, *relay) port, r *relay) port {
	if c, ok := w.conn.(*tls.Conn); ok {
		below := c.NetConn().(*replay)
		p := at(below.Conn, r)
		below.Conn = p
		return p
	}
	p := at(w.conn, r)
	w.conn = p
	return p
}

// rest gives back what is needed only while something moves.
func (w *Wire) rest() {
	if c, ok := w.conn.(*tls.Conn); ok {
		giveBack(c)
	}
}

// CloseWrite says that nothing more will be sent: a TLS close_notify and, where
// the connection can, the end of the TCP stream.
func (w *Wire) CloseWrite() error { return closeWrite(w.conn) }

func closeWrite(conn net.Conn) error {
	if c, ok := conn.(*tls.Conn); ok {
		return errors.Join(c.CloseWrite(), closeWrite(c.NetConn()))
	}
	if c, ok := conn.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return nil
}

// Close closes the connection at once. A TLS connection gets no close_notify
// here, since writing one may block on a dead peer; CloseWrite sends it.
func (w *Wire) Close() error {
	if c, ok := w.conn.(*tls.Conn); ok {
		return c.NetConn().Close()
	}
	return w.conn.Close()
}
