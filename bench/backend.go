package main

// The light backend: a mail server that does nothing but answer, so that a proxy in front of
// it is what is measured. It believes in one password, keeps nothing, and sums up what it is
// sent, so that the driver can tell whether every byte came.

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
)

const password = "secret"

// payloadSize is the size of the message that every mailbox holds.
const payloadSize = 4_000_000

// payload is that message: noise, and the same in the driver and in the backend.
var payload = sync.OnceValue(func() []byte {
	b := make([]byte, payloadSize)
	rand.NewChaCha8([32]byte([]byte("the message of every mailbox ..."))).Read(b)
	return b
})

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func sum(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

// ports are those of the light backend.
type ports struct {
	IMAP, POP3, Submission int
	Auth                   int // over HTTP, who asks is told where a customer's backend is
}

// serveBackend is the process of the light backend. It says its ports on standard output and
// ends with its standard input, that is, with whoever started it.
func serveBackend() error {
	payload()
	var at ports
	for _, service := range []struct {
		port  *int
		serve func(*backendSession) error
	}{{&at.IMAP, serveIMAP}, {&at.POP3, servePOP3}, {&at.Submission, serveSMTP}} {
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			return err
		}
		*service.port = l.Addr().(*net.TCPAddr).Port
		go accept(l, service.serve)
	}
	auth, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return err
	}
	at.Auth = auth.Addr().(*net.TCPAddr).Port
	go http.Serve(auth, http.HandlerFunc(at.authorize))
	if err := json.NewEncoder(os.Stdout).Encode(at); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// authorize answers nginx's auth_http.
func (at ports) authorize(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Auth-Pass") != password {
		w.Header().Set("Auth-Status", "Invalid login or password")
		return
	}
	port := map[string]int{"imap": at.IMAP, "pop3": at.POP3, "smtp": at.Submission}[r.Header.Get("Auth-Protocol")]
	w.Header().Set("Auth-Status", "OK")
	w.Header().Set("Auth-Server", "127.0.0.1")
	w.Header().Set("Auth-Port", strconv.Itoa(port))
}

func accept(l net.Listener, serve func(*backendSession) error) {
	for {
		c, err := l.Accept()
		if err != nil {
			fmt.Fprintln(os.Stderr, "backend:", err)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			continue
		}
		go func() {
			defer c.Close()
			serve(newSession(c)) // the driver sees what goes wrong
		}()
	}
}

type backendSession struct {
	net.Conn
	r *bufio.Reader
}

func newSession(c net.Conn) *backendSession {
	return &backendSession{c, bufio.NewReaderSize(c, 4096)}
}

func (s *backendSession) say(format string, args ...any) error {
	_, err := fmt.Fprintf(s.Conn, format+"\r\n", args...)
	return err
}

// line reads one line, without its end.
func (s *backendSession) line() (string, error) {
	line, err := s.r.ReadString('\n')
	return strings.TrimRight(line, "\r\n"), err
}

// authenticates says whether SASL PLAIN is right: "PLAIN" and the response behind it, which
// is asked for where there is none.
func (s *backendSession) authenticates(args, prompt string) (bool, error) {
	_, response, given := strings.Cut(args, " ")
	if !given {
		err := s.say("%s", prompt)
		if err == nil {
			response, err = s.line()
		}
		if err != nil {
			return false, err
		}
	}
	b, err := base64.StdEncoding.DecodeString(response)
	return err == nil && strings.HasSuffix(string(b), "\x00"+password), nil
}

// literal is the size of the literal that a line ends in, or -1, and whether it comes unasked.
func literal(line string) (size int, unasked bool) {
	i := strings.LastIndexByte(line, '{')
	if i < 0 || !strings.HasSuffix(line, "}") {
		return -1, false
	}
	digits, unasked := strings.CutSuffix(line[i+1:len(line)-1], "+")
	size, err := strconv.Atoi(digits)
	if err != nil || size < 0 || size > 1<<30 {
		return -1, false
	}
	return size, unasked
}

func serveIMAP(s *backendSession) error {
	if err := s.say("* OK [CAPABILITY IMAP4rev1 LITERAL+ SASL-IR ID AUTH=PLAIN] ready"); err != nil {
		return err
	}
	for {
		line, err := s.line()
		if err != nil {
			return err
		}
		tag, rest, _ := strings.Cut(line, " ")
		name, args, _ := strings.Cut(rest, " ")
		switch name = strings.ToUpper(name); name {
		case "NOOP":
			err = s.say("%s OK NOOP completed", tag)
		case "CAPABILITY":
			err = s.say("* CAPABILITY IMAP4rev1 LITERAL+ SASL-IR ID AUTH=PLAIN\r\n%s OK done", tag)
		case "ID":
			err = s.say("* ID NIL\r\n%s OK done", tag)
		case "LOGIN":
			// nginx sends both arguments as literals.
			for size, unasked := literal(args); err == nil && size >= 0; size, unasked = literal(line) {
				if !unasked {
					err = s.say("+ go on")
				}
				value := make([]byte, size)
				if err == nil {
					_, err = io.ReadFull(s.r, value)
				}
				if err == nil {
					line, err = s.line()
					args = string(value) + line
				}
			}
			if err == nil {
				err = s.answerLogin(tag, strings.Trim(args[strings.LastIndexByte(args, ' ')+1:], `"`) == password)
			}
		case "AUTHENTICATE":
			var right bool
			right, err = s.authenticates(args, "+ ")
			if err == nil {
				err = s.answerLogin(tag, right)
			}
		case "FETCH":
			err = s.fetch(tag, args)
		case "APPEND":
			err = s.append(tag, args)
		case "LOGOUT":
			return s.say("* BYE\r\n%s OK LOGOUT completed", tag)
		default:
			err = s.say("%s BAD unknown", tag)
		}
		if err != nil {
			return err
		}
	}
}

func (s *backendSession) answerLogin(tag string, right bool) error {
	if !right {
		return s.say("%s NO [AUTHENTICATIONFAILED] wrong", tag)
	}
	return s.say("%s OK [CAPABILITY IMAP4rev1 LITERAL+] logged in", tag)
}

// fetch answers FETCH 1 BODY.PEEK[]<offset.size>.
func (s *backendSession) fetch(tag, args string) error {
	var offset, size int
	if _, err := fmt.Sscanf(args, "1 BODY.PEEK[]<%d.%d>", &offset, &size); err != nil || offset < 0 || size < 0 || offset+size > payloadSize {
		return s.say("%s BAD not that", tag)
	}
	parts := net.Buffers{
		fmt.Appendf(nil, "* 1 FETCH (BODY[]<%d> {%d}\r\n", offset, size),
		payload()[offset : offset+size],
		fmt.Appendf(nil, ")\r\n%s OK FETCH completed\r\n", tag),
	}
	_, err := parts.WriteTo(s.Conn)
	return err
}

// append takes APPEND INBOX {size} or {size+}, and answers with the sum of the bytes.
func (s *backendSession) append(tag, args string) error {
	size, unasked := literal(args)
	if size < 0 {
		return s.say("%s BAD no literal", tag)
	}
	if !unasked {
		if err := s.say("+ go on"); err != nil {
			return err
		}
	}
	crc := crc32.New(castagnoli)
	buf := buffers.Get().(*[64 << 10]byte)
	n, err := io.CopyBuffer(struct{ io.Writer }{crc}, struct{ io.Reader }{io.LimitReader(s.r, int64(size))}, buf[:])
	buffers.Put(buf)
	if err != nil {
		return err
	}
	if _, err := s.line(); err != nil { // the end of the command
		return err
	}
	return s.say("%s OK [APPENDUID 1 1] %d bytes %08x", tag, n, crc.Sum32())
}

var buffers = sync.Pool{New: func() any { return new([64 << 10]byte) }}

func servePOP3(s *backendSession) error {
	if err := s.say("+OK ready"); err != nil {
		return err
	}
	for {
		line, err := s.line()
		if err != nil {
			return err
		}
		name, args, _ := strings.Cut(line, " ")
		switch strings.ToUpper(name) {
		case "CAPA":
			err = s.say("+OK\r\nUSER\r\nSASL PLAIN\r\n.")
		case "USER", "NOOP":
			err = s.say("+OK")
		case "PASS":
			err = s.answerPOP3(args == password)
		case "AUTH":
			var right bool
			right, err = s.authenticates(args, "+ ")
			if err == nil {
				err = s.answerPOP3(right)
			}
		case "STAT":
			err = s.say("+OK 1 %d", payloadSize)
		case "QUIT":
			return s.say("+OK bye")
		default:
			err = s.say("-ERR unknown")
		}
		if err != nil {
			return err
		}
	}
}

func (s *backendSession) answerPOP3(right bool) error {
	if !right {
		return s.say("-ERR [AUTH] wrong")
	}
	return s.say("+OK logged in")
}

// serveSMTP takes mail without AUTH as well: nginx has checked the password by itself and
// does not log in.
func serveSMTP(s *backendSession) error {
	if err := s.say("220 backend ESMTP"); err != nil {
		return err
	}
	for {
		line, err := s.line()
		if err != nil {
			return err
		}
		name, args, _ := strings.Cut(line, " ")
		switch strings.ToUpper(name) {
		case "EHLO":
			err = s.say("250-backend\r\n250-PIPELINING\r\n250-SIZE 50000000\r\n250-8BITMIME\r\n250-ENHANCEDSTATUSCODES\r\n250 AUTH PLAIN LOGIN")
		case "HELO", "RSET", "NOOP":
			err = s.say("250 2.0.0 well")
		case "MAIL", "RCPT":
			err = s.say("250 2.1.0 well")
		case "AUTH":
			var right bool
			right, err = s.authenticates(args, "334 ")
			switch {
			case err != nil:
			case right:
				err = s.say("235 2.7.0 well")
			default:
				err = s.say("535 5.7.8 wrong")
			}
		case "DATA":
			err = s.data()
		case "QUIT":
			return s.say("221 2.0.0 bye")
		default:
			err = s.say("502 5.5.2 unknown")
		}
		if err != nil {
			return err
		}
	}
}

// data takes a message and answers with the sum of its bytes.
func (s *backendSession) data() error {
	if err := s.say("354 go on"); err != nil {
		return err
	}
	n, crc := 0, uint32(0)
	for {
		line, err := s.r.ReadSlice('\n')
		if err != nil {
			return err
		}
		if string(line) == ".\r\n" {
			return s.say("250 2.0.0 %d bytes %08x", n, crc)
		}
		n, crc = n+len(line), crc32.Update(crc, castagnoli, line)
	}
}
