package proxy

// Clients of the relay that mean no good.

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// abused is a relay in clear towards the backend, and its client's side of TLS.
type abused struct {
	client, backend *net.TCPConn // far ends
	ended           <-chan *Ending
}

// abuse begins a relay for a client that does its handshake by itself.
func abuse(t *testing.T, idle time.Duration, pumped bool, handshake func(net.Conn) error) *abused {
	t.Helper()
	park := new(parking)
	t.Cleanup(park.close)
	client, near := tcpEnds(t)
	backend, far := tcpEnds(t)
	for _, conn := range []*net.TCPConn{client, near, backend, far} {
		conn.SetDeadline(time.Now().Add(caseTime))
	}
	for _, err := range []error{client.SetReadBuffer(16 << 10), client.SetWriteBuffer(16 << 10),
		near.SetReadBuffer(64 << 10), near.SetWriteBuffer(16 << 10)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	met := make(chan error, 1)
	go func() { met <- handshake(client) }()
	up, down := NewWire(near), NewWire(far)
	server := tls.Server(up.raw(), &tls.Config{Certificates: []tls.Certificate{*authority().leaf}})
	if err := errors.Join(server.Handshake(), <-met); err != nil {
		t.Fatal(err)
	}
	up.secure(server)
	a := &abused{client: client, backend: backend}
	if pumped {
		a.ended, _ = beginRelay(up, down, idle, nil)
	} else {
		a.ended, _ = beginRelay(up, down, idle, park)
	}
	return a
}

// wantEnd waits for the end of the relay, and that the backend hears of it.
func (a *abused) wantEnd(t *testing.T, who byte, reason string) {
	t.Helper()
	select {
	case e := <-a.ended:
		if e.who != who || e.Reason != reason {
			t.Errorf("ended by %c, %v; want %c, %s", e.who, e, who, reason)
		}
	case <-time.After(caseTime):
		t.Fatal("the relay goes on")
	}
	if _, err := io.Copy(io.Discard, a.backend); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the backend's connection is open")
	}
}

func eachPort(t *testing.T, f func(t *testing.T, pumped bool)) {
	t.Helper()
	for name, pumped := range map[string]bool{"parked": false, "pumped": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f(t, pumped)
		})
	}
}

// byHand gives abuse the handshake of a client by hand.
func byHand(hand **handTLS) func(net.Conn) error {
	return func(conn net.Conn) (err error) { *hand, err = handTLSClient(conn); return err }
}

// TestClientThatAsksForKeysAndDoesNotRead: each KeyUpdate is answered by one
// (RFC 8446 section 4.6.3). With a byte of data between, crypto/tls bears any
// number of them; what is owed must not grow with it.
func TestClientThatAsksForKeysAndDoesNotRead(t *testing.T) {
	eachPort(t, func(t *testing.T, pumped bool) {
		var hand *handTLS
		a := abuse(t, time.Second, pumped, byHand(&hand))
		const most = 2 << 20 // several times what the kernel takes on the way
		sent := make(chan int, 1)
		go func() {
			n := 0
			for n < most {
				if err := hand.flight(func(seal func(byte, []byte, int)) {
					for range 200 {
						seal(handshakeContent, updateMessage(true), 0)
						seal(dataContent, []byte("x"), 0)
					}
				}); err != nil {
					break
				}
				n += 200 * (27 + 23) // two records
			}
			sent <- n
		}()
		a.wantEnd(t, byLimit, "idle_timeout")
		a.client.Close() // the kernel may still try to tell it the answers
		if n := <-sent; n >= most {
			t.Errorf("%d bytes of KeyUpdates were taken from a client that reads no answer", n)
		}
	})
}

// TestClientThatSaysNothing: what does not advance the session must end it.
func TestClientThatSaysNothing(t *testing.T) {
	for name, flood := range map[string]func(seal func(byte, []byte, int)){
		"empty records": func(seal func(byte, []byte, int)) { seal(dataContent, nil, 0) },
		"padding":       func(seal func(byte, []byte, int)) { seal(dataContent, nil, 1000) },
		"key updates":   func(seal func(byte, []byte, int)) { seal(handshakeContent, updateMessage(false), 0) },
		"questions":     func(seal func(byte, []byte, int)) { seal(handshakeContent, updateMessage(true), 0) },
		"warnings":      func(seal func(byte, []byte, int)) { seal(alertContent, []byte{1, userCanceled}, 0) },
	} {
		t.Run(name, func(t *testing.T) {
			eachPort(t, func(t *testing.T, pumped bool) {
				var hand *handTLS
				a := abuse(t, time.Minute, pumped, byHand(&hand))
				say := func(times int, then ...byte) {
					t.Helper()
					if err := hand.flight(func(seal func(byte, []byte, int)) {
						for range times {
							flood(seal)
						}
						if len(then) > 0 {
							seal(dataContent, then, 0)
						}
					}); err != nil {
						t.Fatal(err)
					}
				}
				say(16, 'x') // crypto/tls bears so many in a row
				wantBytes(t, a.backend, "x")
				say(17) // and nothing behind it, or a reset would overtake the alert
				// A pump that is closed may keep its last words.
				if _, err := io.Copy(io.Discard, hand); err != alertHeard(10) && !(pumped && endWord(err) != err.Error()) {
					t.Errorf("the client hears %v, want unexpected_message", err)
				}
				a.wantEnd(t, byClient, "client_error")
			})
		})
	}
}

// TestClientThatSaysHalf: a record that never ends does not keep a session.
func TestClientThatSaysHalf(t *testing.T) {
	eachPort(t, func(t *testing.T, pumped bool) {
		var hand *handTLS
		a := abuse(t, time.Second, pumped, byHand(&hand))
		if err := hand.halfARecord(); err != nil {
			t.Fatal(err)
		}
		a.wantEnd(t, byLimit, "idle_timeout")
	})
}

// TestRenegotiation: TLS 1.2 would allow it (RFC 5246 section 7.4.1); we do not
// (RFC 9325 section 3.5).
func TestRenegotiation(t *testing.T) {
	for name, message := range map[string][]byte{
		"a new hello":           slices.Concat([]byte{1, 0, 0, 41, 3, 3}, make([]byte, 32), []byte{0, 0, 2, 0xc0, 0x2b, 1, 0}),
		"a request for a hello": {0, 0, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			eachPort(t, func(t *testing.T, pumped bool) {
				var tap tap12
				var conn *tls.Conn
				a := abuse(t, time.Minute, pumped, func(tcp net.Conn) error {
					tap.TCPConn = tcp.(*net.TCPConn)
					conn = tls.Client(&tap, &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12, KeyLogWriter: &tap.secrets,
						CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256}})
					return conn.Handshake()
				})
				if err := tap.sendHandshake(message); err != nil {
					t.Fatal(err)
				}
				// Either alert, no_renegotiation being a warning, or a mere end; a second
				// handshake is an error of the client's crypto/tls.
				if n, err := io.Copy(io.Discard, conn); n > 0 || errors.Is(err, os.ErrDeadlineExceeded) || err != nil && alertName(err) != "unexpected_message" && endWord(err) != "reset" {
					t.Errorf("the client hears %d bytes and %v, want an end or an alert", n, err)
				}
				a.wantEnd(t, byClient, "client_error")
			})
		})
	}
}

// tap12 keeps what is needed to write one record of TLS 1.2 by hand.
type tap12 struct {
	*net.TCPConn
	heard   []byte // the beginning of what the server says: its hello
	secrets strings.Builder
}

func (c *tap12) Read(p []byte) (int, error) {
	n, err := c.TCPConn.Read(p)
	if len(c.heard) < 100 {
		c.heard = append(c.heard, p[:n]...)
	}
	return n, err
}

// sendHandshake sends a message under the client's keys, as its second record:
// the first was its Finished.
func (c *tap12) sendHandshake(message []byte) error {
	words := strings.Fields(c.secrets.String()) // CLIENT_RANDOM, that, master secret
	clientRandom, err1 := hex.DecodeString(words[1])
	master, err2 := hex.DecodeString(words[2])
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	serverRandom := c.heard[5+4+2:][:32] // record, message, version (RFC 5246 section 7.4.1.3)
	// Keys of client and server, then their nonces' fixed parts (section 6.3, RFC 5288).
	block := expand12(master, slices.Concat([]byte("key expansion"), serverRandom, clientRandom), 16+16+4+4)
	key, err := aes.NewCipher(block[:16])
	if err != nil {
		return err
	}
	aead, err := cipher.NewGCM(key)
	if err != nil {
		return err
	}
	nonce := slices.Concat(block[32:36], make([]byte, 7), []byte{1})
	seq := binary.BigEndian.AppendUint64(nil, 1)
	header := []byte{handshakeContent, 3, 3}
	extra := binary.BigEndian.AppendUint16(slices.Concat(seq, header), uint16(len(message)))
	sealed := aead.Seal(slices.Clone(nonce[4:]), nonce, message, extra)
	_, err = c.TCPConn.Write(append(binary.BigEndian.AppendUint16(header, uint16(len(sealed))), sealed...))
	return err
}

// expand12 is P_SHA256 (RFC 5246 section 5).
func expand12(secret, seed []byte, length int) (p []byte) {
	hash := func(parts ...[]byte) []byte {
		h := hmac.New(sha256.New, secret)
		for _, part := range parts {
			h.Write(part)
		}
		return h.Sum(nil)
	}
	for a := hash(seed); len(p) < length; a = hash(a) {
		p = append(p, hash(a, seed)...)
	}
	return p[:length]
}

// TestKeysAfterTheEnd: a client that asks for new keys when it cannot be answered
// any more is heard all the same.
func TestKeysAfterTheEnd(t *testing.T) {
	eachPort(t, func(t *testing.T, pumped bool) {
		var hand *handTLS
		a := abuse(t, time.Minute, pumped, byHand(&hand))
		a.backend.CloseWrite()
		if _, err := io.Copy(io.Discard, hand); err != nil {
			t.Fatal(err)
		}
		if err := hand.update(true); err != nil {
			t.Fatal(err)
		}
		const words = "last words\r\n"
		if _, err := io.WriteString(hand, words); err != nil {
			t.Fatal(err)
		}
		if err := hand.alert(0); err != nil { // close_notify
			t.Fatal(err)
		}
		if heard, err := io.ReadAll(a.backend); err != nil || string(heard) != words {
			t.Errorf("the backend heard %q, %v", heard, err)
		}
		a.wantEnd(t, byBackend, "backend_closed")
	})
}

// TestManySmallRecords: a client whose records say next to nothing has its share
// like any other, and what it is owed stays bounded within a share too.
func TestManySmallRecords(t *testing.T) {
	const most = relayBuffer + controlRoom
	drip := new(dripping)
	w := NewWire(drip)
	n, work, err := read(w, make([]byte, relayBuffer), drip)
	if err != nil || n != drip.reads || drip.reads > 128 || work <= relayBuffer {
		t.Errorf("%d reads of one byte in a row, %d bytes, work %d, %v", drip.reads, n, work, err)
	}
	drip.reads, drip.grows = 0, 1<<10 // an answer to each
	if read(w, make([]byte, relayBuffer), drip); drip.owes > most+drip.grows {
		t.Errorf("%d bytes are owed to who does not read", drip.owes)
	}
}

// dripping is a port from which one byte comes at a time, and which comes to owe
// something by each.
type dripping struct {
	port
	reads, owes, grows int
}

func (d *dripping) Read(p []byte) (int, error) {
	d.reads++
	d.owes += d.grows
	return copy(p, "x"), nil
}

func (d *dripping) owed() int { return d.owes }
