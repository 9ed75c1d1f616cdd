package proxy

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"pgregory.net/rapid"
)

// scripted is a connection that reads from chunks, one a read.
type scripted struct {
	net.Conn
	chunks [][]byte
	end    error
	wrote  bytes.Buffer
}

func (s *scripted) Read(p []byte) (int, error) {
	if len(s.chunks) == 0 {
		if s.end != nil {
			return 0, s.end
		}
		return 0, io.EOF
	}
	n := copy(p, s.chunks[0])
	if s.chunks[0] = s.chunks[0][n:]; len(s.chunks[0]) == 0 {
		s.chunks = s.chunks[1:]
	}
	return n, nil
}

func (s *scripted) Write(p []byte) (int, error)      { return s.wrote.Write(p) }
func (s *scripted) SetWriteDeadline(time.Time) error { return nil }
func (s *scripted) SetReadDeadline(time.Time) error  { return nil }
func (s *scripted) SetDeadline(time.Time) error      { return nil }

func wireOf(chunks ...string) *Wire {
	s := &scripted{}
	for _, c := range chunks {
		s.chunks = append(s.chunks, []byte(c))
	}
	return NewWire(s)
}

func TestLine(t *testing.T) {
	for _, test := range []struct {
		name   string
		chunks []string
		limit  int
		want   string
		err    error
	}{
		{"CRLF", []string{"abc\r\n"}, 10, "abc", nil},
		{"LF", []string{"abc\n"}, 10, "abc", nil},
		{"empty", []string{"\r\n"}, 10, "", nil},
		{"empty LF", []string{"\n"}, 0, "", nil},
		{"empty CRLF at limit 0", []string{"\r\n"}, 0, "", nil},
		{"byte by byte", strings.Split("abc\r\n", ""), 3, "abc", nil},
		{"CRLF at the limit", []string{"abcde\r\n"}, 5, "abcde", nil},
		{"LF at the limit", []string{"abcde\n"}, 5, "abcde", nil},
		{"CRLF at the limit, split at its end", []string{"abcde\r", "\n"}, 5, "abcde", nil},
		{"one over the limit", []string{"abcdef\r\n"}, 5, "", ErrLineTooLong},
		{"one over the limit, LF", []string{"abcdef\n"}, 5, "", ErrLineTooLong},
		{"endless", []string{strings.Repeat("x", 100)}, 5, "", ErrLineTooLong},
		{"limit above the first buffer", []string{strings.Repeat("x", 5000) + "\r\n"}, 5000, strings.Repeat("x", 5000), nil},
		{"over a limit above the first buffer", []string{strings.Repeat("x", 5001) + "\r\n"}, 5000, "", ErrLineTooLong},
		{"only one CR goes", []string{"a\r\r\n"}, 5, "a\r", nil},
		{"CR inside stays", []string{"a\rb\n"}, 5, "a\rb", nil},
		{"no end", []string{"abc"}, 5, "", io.EOF},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := wireOf(test.chunks...)
			got, err := w.Line(test.limit)
			if string(got) != test.want || !errors.Is(err, test.err) || err == nil != (test.err == nil) {
				t.Fatalf("got %q, %v", got, err)
			}
			if err == ErrLineTooLong && w.Buffered() == 0 {
				t.Error("a line that is too long does not stay unread")
			}
		})
	}
}

func TestLineAtEveryLimitAndChunk(t *testing.T) {
	for _, end := range []string{"\r\n", "\n"} {
		for limit := range 8 {
			for length := range 10 {
				for chunk := 1; chunk < 12; chunk++ {
					text := strings.Repeat("x", length) + end + "rest"
					w := NewWire(&scripted{chunks: chunked(text, chunk)})
					line, err := w.Line(limit)
					if fits := length <= limit; fits != (err == nil) || fits && len(line) != length {
						t.Fatalf("line of %d%q at limit %d in chunks of %d: %q, %v", length, end, limit, chunk, line, err)
					}
				}
			}
		}
	}
}

func chunked(text string, size int) (chunks [][]byte) {
	for len(text) > 0 {
		n := min(size, len(text))
		chunks = append(chunks, []byte(text[:n]))
		text = text[n:]
	}
	return chunks
}

// endless never ends a line.
type endless struct{ net.Conn }

func (endless) Read(p []byte) (int, error) { return copy(p, bytes.Repeat([]byte("x"), len(p))), nil }

func TestGrowthIsBounded(t *testing.T) {
	for _, limit := range []int{1, 100, wireBuffer, wireBuffer + 1, 10_000} {
		w := NewWire(endless{})
		if _, err := w.Line(limit); err != ErrLineTooLong {
			t.Fatal(err)
		}
		if bound := max(limit+2, wireBuffer); len(w.buf) > bound {
			t.Errorf("limit %d: the buffer has %d bytes, want at most %d", limit, len(w.buf), bound)
		}
		if in, _ := w.Counts(); in > int64(max(limit+2, wireBuffer)) {
			t.Errorf("limit %d: %d bytes were read", limit, in)
		}
	}
}

func TestPeekBytesAndCounts(t *testing.T) {
	w := wireOf("ab", "c", "defgh\r\nij", "kl")
	if p, err := w.Peek(3); string(p) != "abc" || err != nil {
		t.Fatalf("%q, %v", p, err)
	}
	if p, err := w.Bytes(4); string(p) != "abcd" || err != nil {
		t.Fatalf("%q, %v", p, err)
	}
	if p, err := w.Line(10); string(p) != "efgh" || err != nil {
		t.Fatalf("%q, %v", p, err)
	}
	if n := w.Buffered(); n != 2 {
		t.Errorf("%d bytes are buffered", n)
	}
	if p, err := w.Peek(5); string(p) != "ijkl" || err != io.EOF {
		t.Fatalf("%q, %v", p, err)
	}
	if p, err := w.Bytes(5); err != io.ErrUnexpectedEOF {
		t.Fatalf("%q, %v", p, err)
	}
	if err := w.Say("hello"); err != nil {
		t.Fatal(err)
	}
	if in, out := w.Counts(); in != 14 || out != 5 {
		t.Errorf("%d bytes in, %d out", in, out)
	}
}

func TestReadErrorComesAfterTheBytes(t *testing.T) {
	w := NewWire(&scripted{chunks: [][]byte{[]byte("ab\r\ncd")}, end: net.ErrClosed})
	if p, err := w.Line(5); string(p) != "ab" || err != nil {
		t.Fatalf("%q, %v", p, err)
	}
	if p, err := io.ReadAll(w); string(p) != "cd" || err != net.ErrClosed {
		t.Fatalf("%q, %v", p, err)
	}
	if _, err := NewWire(&silent{}).Line(5); err != io.ErrNoProgress {
		t.Error(err)
	}
}

type silent struct{ net.Conn }

func (silent) Read([]byte) (int, error) { return 0, nil }

// TestChunkingChangesNothing compares a wire with the whole input at hand.
func TestChunkingChangesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		input := []byte(rapid.StringMatching(`[a-c\r\n]{0,200}`).Draw(t, "input"))
		if rapid.Bool().Draw(t, "long") {
			input = bytes.Join([][]byte{input, bytes.Repeat([]byte("x"), 5000), input}, nil)
		}
		var chunks [][]byte
		for rest := input; len(rest) > 0; {
			n := rapid.IntRange(1, len(rest)).Draw(t, "chunk")
			chunks = append(chunks, bytes.Clone(rest[:n]))
			rest = rest[n:]
		}
		w := NewWire(&scripted{chunks: chunks})
		left := input
		for len(left) > 0 {
			switch rapid.IntRange(0, 3).Draw(t, "deed") {
			case 0:
				limit := rapid.IntRange(0, 6000).Draw(t, "limit")
				got, err := w.Line(limit)
				line, rest, ended := bytes.Cut(left, []byte("\n"))
				line = bytes.TrimSuffix(line, []byte("\r"))
				switch {
				case ended && len(line) <= limit:
					if err != nil || !bytes.Equal(got, line) {
						t.Fatalf("line %q, %v; want %q", got, err, line)
					}
					left = rest
				case ended && err != ErrLineTooLong, err == nil:
					t.Fatalf("line %q, %v", got, err)
				}
			case 1:
				n := rapid.IntRange(0, len(left)).Draw(t, "bytes")
				got, err := w.Bytes(n)
				if err != nil || !bytes.Equal(got, left[:n]) {
					t.Fatalf("bytes %q, %v; want %q", got, err, left[:n])
				}
				left = left[n:]
			case 2:
				n := rapid.IntRange(0, len(left)).Draw(t, "peek")
				if got, err := w.Peek(n); err != nil || !bytes.Equal(got, left[:n]) {
					t.Fatalf("peek %q, %v; want %q", got, err, left[:n])
				}
			case 3:
				p := make([]byte, rapid.IntRange(1, 100).Draw(t, "read"))
				n, err := w.Read(p)
				if err != nil || !bytes.Equal(p[:n], left[:n]) {
					t.Fatalf("read %q, %v; want %q", p[:n], err, left[:n])
				}
				left = left[n:]
			}
		}
		if in, _ := w.Counts(); in != int64(len(input)) {
			t.Fatalf("%d bytes were counted, want %d", in, len(input))
		}
	})
}

func TestReplayForTLS(t *testing.T) {
	ours, theirs := newPair("192.0.2.1:1", "192.0.2.2:2")
	defer ours.Close()
	defer theirs.Close()
	go func() {
		c := tls.Client(ours, &tls.Config{InsecureSkipVerify: true})
		c.Handshake()
		io.WriteString(c, "hello\r\n")
	}()
	w := NewWire(theirs)
	if _, err := w.Peek(1); err != nil {
		t.Fatal(err)
	}
	if w.Buffered() < 100 {
		t.Fatalf("only %d bytes were read ahead", w.Buffered())
	}
	conn := tls.Server(w.raw(), &tls.Config{Certificates: []tls.Certificate{*authority().leaf}})
	if err := conn.Handshake(); err != nil {
		t.Fatal(err)
	}
	w.secure(conn)
	if line, err := w.Line(10); string(line) != "hello" || err != nil {
		t.Fatalf("%q, %v", line, err)
	}
	if in, _ := w.Counts(); in != 7 {
		t.Errorf("%d bytes were counted: TLS's are not the client's", in)
	}
}

func TestReplayPassesOnWhatReaderWants(t *testing.T) {
	text := strings.Repeat("0123456789", 100)
	r := &replay{Conn: &scripted{chunks: chunked(text[500:], 7)}, ahead: []byte(text[:500])}
	if err := iotest.TestReader(r, []byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := r.CloseWrite(); err != nil {
		t.Error(err)
	}
}

// TestCloseWriteEndsTLSAndTCP: programs that do not know close_notify wait for
// the end of the stream.
func TestCloseWriteEndsTLSAndTCP(t *testing.T) {
	ours, theirs := newPair("192.0.2.1:1", "192.0.2.2:2")
	defer ours.Close()
	defer theirs.Close()
	go func() {
		conn := tls.Server(theirs, &tls.Config{Certificates: []tls.Certificate{*authority().leaf}})
		conn.Handshake()
		w := NewWire(theirs)
		w.secure(conn)
		w.CloseWrite()
		io.Copy(io.Discard, w)
	}()
	c := tls.Client(ours, &tls.Config{InsecureSkipVerify: true})
	if err := c.Handshake(); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Fatalf("%d, %v", n, err)
	}
	ours.SetReadDeadline(time.Now().Add(5 * time.Second))
	if n, err := ours.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Fatalf("below TLS: %d, %v", n, err)
	}
}
