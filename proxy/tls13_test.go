package proxy

import (
	"bufio"
	"bytes"
	"cmp"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/crypto/chacha20poly1305"
)

// Content types and handshake messages (RFC 8446 appendix B).
const (
	alertContent     = 21
	handshakeContent = 22
	dataContent      = 23

	newSessionTicket = 4
	keyUpdate        = 24

	closeNotify  = 0
	userCanceled = 90
)

// handTLS is one end of TLS 1.3 that seals and opens its records by hand, so
// that a test can say what crypto/tls never would: records of any length and
// padding, KeyUpdates, alerts, half a record. crypto/tls does the handshake and
// hands over before the first record under the keys of the application.
//
// One goroutine may read while others write.
type handTLS struct {
	conn net.Conn

	in     trafficKeys
	reader *bufio.Reader
	heard  []byte // of a record, not yet read
	end    error  // of reading: it stays

	speaking sync.Mutex // guards out, and keeps records in their order
	out      trafficKeys

	onUpdate func() // called by the reader for each KeyUpdate heard, or nil
}

// trafficKeys protect one direction (RFC 8446 section 7.3).
type trafficKeys struct {
	suite  uint16
	secret []byte
	aead   cipher.AEAD
	iv     []byte
	seq    uint64
}

// expandLabel is HKDF-Expand-Label (RFC 8446 section 7.1) with an empty context.
func expandLabel(secret []byte, label string, length int) []byte {
	info := binary.BigEndian.AppendUint16(nil, uint16(length))
	info = append(info, byte(len("tls13 ")+len(label)))
	info = append(info, "tls13 "+label...)
	key, err := hkdf.Expand(sha256.New, secret, string(append(info, 0)), length)
	if err != nil {
		panic(err) // only for a length beyond 255 hashes
	}
	return key
}

// use takes a traffic secret and begins to count anew (RFC 8446 section 5.3).
func (k *trafficKeys) use(secret []byte) {
	k.secret, k.iv, k.seq = secret, expandLabel(secret, "iv", 12), 0
	var err error
	switch k.suite {
	case tls.TLS_AES_128_GCM_SHA256:
		var block cipher.Block
		if block, err = aes.NewCipher(expandLabel(secret, "key", 16)); err == nil {
			k.aead, err = cipher.NewGCM(block)
		}
	case tls.TLS_CHACHA20_POLY1305_SHA256: // chosen where AES is slow
		k.aead, err = chacha20poly1305.New(expandLabel(secret, "key", 32))
	}
	if err != nil {
		panic(err) // only for keys of a wrong length
	}
}

// update goes to the next secret (RFC 8446 section 7.2).
func (k *trafficKeys) update() { k.use(expandLabel(k.secret, "traffic upd", len(k.secret))) }

func (k *trafficKeys) nonce() []byte {
	nonce := slices.Clone(k.iv)
	for i := range 8 {
		nonce[4+i] ^= byte(k.seq >> (56 - 8*i))
	}
	k.seq++
	return nonce
}

// seal appends a record (RFC 8446 section 5.2). A KeyUpdate is the last one
// under its keys (section 4.6.3).
func (k *trafficKeys) seal(wire []byte, kind byte, content []byte, padding int) []byte {
	inner := append(append(slices.Clone(content), kind), make([]byte, padding)...)
	header := binary.BigEndian.AppendUint16([]byte{dataContent, 3, 3}, uint16(len(inner)+k.aead.Overhead()))
	wire = k.aead.Seal(append(wire, header...), k.nonce(), inner, header)
	if kind == handshakeContent && content[0] == keyUpdate {
		k.update()
	}
	return wire
}

// open takes the protection off a record.
func (k *trafficKeys) open(header, body []byte) (kind byte, content []byte, err error) {
	inner, err := k.aead.Open(body[:0], k.nonce(), body, header)
	if err != nil {
		return 0, nil, err
	}
	inner = bytes.TrimRight(inner, "\x00")
	if len(inner) == 0 {
		return 0, nil, errors.New("a record of padding alone")
	}
	last := len(inner) - 1
	return inner[last], inner[:last], nil
}

// oneRecord gives a handshake no byte beyond the record that it is reading, so
// that crypto/tls cannot read ahead what is not its own any more: a server's
// tickets come in one piece with its Finished.
type oneRecord struct {
	net.Conn
	header []byte // read, and not yet given
	rest   int    // of the record's body
}

func (c *oneRecord) Read(p []byte) (int, error) {
	if len(c.header) == 0 && c.rest == 0 {
		header := make([]byte, 5)
		if _, err := io.ReadFull(c.Conn, header); err != nil {
			return 0, err
		}
		c.header, c.rest = header, int(binary.BigEndian.Uint16(header[3:]))
	}
	if len(c.header) > 0 {
		n := copy(p, c.header)
		c.header = c.header[n:]
		return n, nil
	}
	n, err := c.Conn.Read(p[:min(len(p), c.rest)])
	c.rest -= n
	return n, err
}

// handTLSClient does the handshake of a client and takes over.
func handTLSClient(conn net.Conn) (*handTLS, error) {
	return takeOver(conn, "SERVER", "CLIENT", tls.Client, &tls.Config{InsecureSkipVerify: true})
}

// handTLSServer does the handshake of a server and takes over. It sends no tickets.
func handTLSServer(conn net.Conn) (*handTLS, error) {
	return takeOver(conn, "CLIENT", "SERVER", tls.Server,
		&tls.Config{Certificates: []tls.Certificate{*authority().leaf}, SessionTicketsDisabled: true})
}

func takeOver(conn net.Conn, theirs, ours string, begin func(net.Conn, *tls.Config) *tls.Conn, conf *tls.Config) (*handTLS, error) {
	var secrets strings.Builder
	conf.MinVersion, conf.KeyLogWriter = tls.VersionTLS13, &secrets
	// The dearest part of a handshake, and not what is tested.
	conf.CurvePreferences = []tls.CurveID{tls.X25519}
	c := begin(&oneRecord{Conn: conn}, conf)
	if err := c.Handshake(); err != nil {
		return nil, fmt.Errorf("handshake: %w", err)
	}
	h := &handTLS{conn: conn, reader: bufio.NewReader(conn)}
	suite := c.ConnectionState().CipherSuite
	if suite != tls.TLS_AES_128_GCM_SHA256 && suite != tls.TLS_CHACHA20_POLY1305_SHA256 {
		return nil, fmt.Errorf("no hand for %s", tls.CipherSuiteName(suite))
	}
	h.in.suite, h.out.suite = suite, suite
	for line := range strings.Lines(secrets.String()) { // label, client's random, secret
		words := strings.Fields(line)
		if len(words) != 3 {
			continue
		}
		secret, err := hex.DecodeString(words[2])
		if err != nil {
			return nil, err
		}
		switch words[0] {
		case theirs + "_TRAFFIC_SECRET_0":
			h.in.use(secret)
		case ours + "_TRAFFIC_SECRET_0":
			h.out.use(secret)
		}
	}
	if h.in.aead == nil || h.out.aead == nil {
		return nil, errors.New("crypto/tls told no secrets")
	}
	return h, nil
}

// alertHeard is a fatal alert from the other side.
type alertHeard byte

func (a alertHeard) Error() string {
	return "heard alert " + cmp.Or(alertNames[uint8(a)], fmt.Sprint(uint8(a)))
}

// Read returns data. The end is [io.EOF] after a close_notify (RFC 8446 section
// 6.1) and [io.ErrUnexpectedEOF] without.
func (h *handTLS) Read(p []byte) (int, error) {
	for len(h.heard) == 0 && h.end == nil {
		h.heard, h.end = h.record()
	}
	if len(h.heard) == 0 {
		return 0, h.end
	}
	n := copy(p, h.heard)
	h.heard = h.heard[n:]
	return n, nil
}

// record reads a record and does what it says, and returns the data in it.
func (h *handTLS) record() ([]byte, error) {
	header := make([]byte, 5)
	if _, err := io.ReadFull(h.reader, header); err != nil {
		return nil, torn(err)
	}
	body := make([]byte, binary.BigEndian.Uint16(header[3:]))
	if _, err := io.ReadFull(h.reader, body); err != nil {
		return nil, torn(err)
	}
	kind, content, err := h.in.open(header, body)
	if err != nil {
		return nil, fmt.Errorf("record of %d bytes: %w", len(body), err)
	}
	switch {
	case kind == dataContent:
		return content, nil
	case kind == alertContent && len(content) == 2 && content[1] == closeNotify:
		return nil, io.EOF
	case kind == alertContent && len(content) == 2:
		return nil, alertHeard(content[1])
	case kind == handshakeContent && len(content) == 5 && content[0] == keyUpdate:
		h.in.update()
		if h.onUpdate != nil {
			h.onUpdate()
		}
		if content[4] == 1 { // they ask for ours
			return nil, h.update(false)
		}
		return nil, nil
	case kind == handshakeContent && len(content) > 4 && content[0] == newSessionTicket:
		return nil, nil
	}
	return nil, fmt.Errorf("unexpected record of type %d: % x", kind, content)
}

func torn(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// flight sends the records that compose seals in one write.
func (h *handTLS) flight(compose func(seal func(kind byte, content []byte, padding int))) error {
	h.speaking.Lock()
	defer h.speaking.Unlock()
	var wire []byte
	compose(func(kind byte, content []byte, padding int) { wire = h.out.seal(wire, kind, content, padding) })
	_, err := h.conn.Write(wire)
	return err
}

func (h *handTLS) send(kind byte, content ...byte) error {
	return h.flight(func(seal func(byte, []byte, int)) { seal(kind, content, 0) })
}

// Write sends data in records as large as may be (RFC 8446 section 5.1).
func (h *handTLS) Write(p []byte) (int, error) {
	return len(p), h.flight(func(seal func(byte, []byte, int)) {
		for chunk := range slices.Chunk(p, 16<<10) {
			seal(dataContent, chunk, 0)
		}
	})
}

// updateMessage is a KeyUpdate (RFC 8446 section 4.6.3).
func updateMessage(asked bool) []byte {
	if asked {
		return []byte{keyUpdate, 0, 0, 1, 1}
	}
	return []byte{keyUpdate, 0, 0, 1, 0}
}

// update changes our keys, and asks the other side to change its own.
func (h *handTLS) update(ask bool) error { return h.send(handshakeContent, updateMessage(ask)...) }

// alert sends one that ends the connection, or warns.
func (h *handTLS) alert(number byte) error {
	level := byte(2)
	if number == closeNotify || number == userCanceled {
		level = 1
	}
	return h.send(alertContent, level, number)
}

// halfARecord sends the first half of a record and no more.
func (h *handTLS) halfARecord() error {
	h.speaking.Lock()
	defer h.speaking.Unlock()
	wire := h.out.seal(nil, dataContent, []byte("half of this"), 0)
	_, err := h.conn.Write(wire[:len(wire)/2])
	return err
}

// TestTLSByHand holds the hand-made end against crypto/tls, and against itself
// where crypto/tls has no word for it.
func TestTLSByHand(t *testing.T) {
	say := func(t *testing.T, from io.Writer, to io.Reader, text string) {
		t.Helper()
		sent := make(chan error, 1)
		go func() { _, err := io.WriteString(from, text); sent <- err }()
		p := make([]byte, len(text))
		if n, err := io.ReadFull(to, p); err != nil || string(p) != text {
			t.Fatalf("heard %d bytes of %d, %v", n, len(text), err)
		}
		if err := <-sent; err != nil {
			t.Fatal(err)
		}
	}
	long := strings.Repeat("a line of a mail\r\n", 5000)
	meet := func(t *testing.T, one, two func(net.Conn) error) {
		t.Helper()
		a, b := tcpEnds(t)
		done := make(chan error, 1)
		go func() { done <- one(a) }()
		if err := errors.Join(two(b), <-done); err != nil {
			t.Fatal(err)
		}
	}
	for _, role := range []string{"client", "server"} {
		t.Run(role, func(t *testing.T) {
			var hand *handTLS
			var std *tls.Conn
			updates := 0
			meet(t, func(conn net.Conn) (err error) {
				if role == "client" {
					hand, err = handTLSClient(conn)
				} else {
					hand, err = handTLSServer(conn)
				}
				return err
			}, func(conn net.Conn) error {
				if role == "client" {
					std = tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{*authority().leaf}})
				} else {
					std = tls.Client(conn, &tls.Config{InsecureSkipVerify: true})
				}
				return std.Handshake()
			})
			hand.onUpdate = func() { updates++ }
			say(t, hand, std, long)
			say(t, std, hand, long)
			for i := range 20 {
				if err := hand.update(i%2 == 0); err != nil {
					t.Fatal(err)
				}
				say(t, hand, std, "under new keys")
				say(t, std, hand, "and back")
			}
			if updates != 10 {
				t.Errorf("%d KeyUpdates came for 10 that were asked for", updates)
			}
			if err := hand.flight(func(seal func(byte, []byte, int)) {
				seal(dataContent, nil, 0)
				seal(alertContent, []byte{1, userCanceled}, 0) // means nothing
				seal(dataContent, nil, 16<<10)                 // section 5.4
				seal(dataContent, []byte("x"), 500)
			}); err != nil {
				t.Fatal(err)
			}
			say(t, hand, std, "")
			if p := make([]byte, 9); mustRead(t, std, p) != "x" {
				t.Errorf("heard %q", p)
			}
			if err := std.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			if _, err := hand.Read(make([]byte, 1)); err != io.EOF {
				t.Errorf("a close_notify reads as %v", err)
			}
			say(t, hand, std, long) // the other half is open
			if err := hand.alert(80); err != nil {
				t.Fatal(err)
			}
			if _, err := std.Read(make([]byte, 1)); alertName(err) != "internal_error" {
				t.Errorf("crypto/tls heard %v", err)
			}
		})
	}
	t.Run("both", func(t *testing.T) {
		var client, server *handTLS
		meet(t, func(conn net.Conn) (err error) { client, err = handTLSClient(conn); return err },
			func(conn net.Conn) (err error) { server, err = handTLSServer(conn); return err })
		updates := 0
		client.onUpdate = func() { updates++ }
		for range 3 {
			if err := client.update(true); err != nil {
				t.Fatal(err)
			}
			say(t, client, server, long)
			say(t, server, client, long)
		}
		if updates != 3 {
			t.Errorf("%d answers, want 3", updates)
		}
		if err := errors.Join(client.halfARecord(), client.conn.(*net.TCPConn).CloseWrite()); err != nil {
			t.Fatal(err)
		}
		if _, err := server.Read(make([]byte, 1)); err != io.ErrUnexpectedEOF {
			t.Errorf("half a record reads as %v", err)
		}
		if err := server.alert(48); err != nil {
			t.Fatal(err)
		}
		if _, err := client.Read(make([]byte, 1)); err != alertHeard(48) {
			t.Errorf("an alert reads as %v", err)
		}
	})
}

func mustRead(t *testing.T, r io.Reader, p []byte) string {
	t.Helper()
	n, err := r.Read(p)
	if err != nil {
		t.Fatal(err)
	}
	return string(p[:n])
}

// tcpEnds returns both ends of a TCP connection, which are closed after the test.
func tcpEnds(t testing.TB) (dialled, accepted *net.TCPConn) {
	t.Helper()
	dialled, accepted, err := tcpPair()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dialled.Close(); accepted.Close() })
	return dialled, accepted
}

func tcpPair() (dialled, accepted *net.TCPConn, err error) {
	ln, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, nil, err
	}
	defer ln.Close()
	conn, err := net.DialTCP("tcp", nil, ln.Addr().(*net.TCPAddr))
	if err != nil {
		return nil, nil, err
	}
	if accepted, err = ln.AcceptTCP(); err != nil {
		conn.Close()
		return nil, nil, err
	}
	return conn, accepted, nil
}
