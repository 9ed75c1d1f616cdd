package demo

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/textproto"
	"strconv"
	"strings"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
	"go.uber.org/zap"
)

// The POP3 server is a gateway: from login to QUIT a session holds an IMAP
// session, over a net.Pipe, with our own IMAP server. go-imap's store gives
// messages away only through imapserver.FetchWriter, which nobody but its own
// server can make; and so POP3 has no second opinion on what a mailbox is, and
// IMAP sessions hear of its deletions without more ado.

const (
	// popLine limits a line. A command has at most 255 octets (RFC 2449 section
	// 4); the base64 of a PLAIN response whose three fields have the 255 octets
	// each that RFC 4616 section 2 wants to be possible has 1024.
	popLine = 2048

	// popIdle ends a silent session (RFC 1939 section 3: at least 10 minutes).
	popIdle = 10 * time.Minute
)

// Refusals of the POP3 server, as the client gets to see them after "-ERR ".
var (
	errPopAuth    = errors.New("[AUTH] authentication failed")         // RFC 3206 section 4
	errPopTrouble = errors.New("[SYS/TEMP] internal error, try later") // RFC 3206 section 4
	errPopSyntax  = errors.New("bad line: one command, no control characters")
)

// popCommand is one command with the rest of its line.
type popCommand struct {
	verb, arg string // the verb in upper case
}

// readPopCommand reads one line. It returns errPopSyntax for a line that is no
// command, after which reading may go on; bufio.ErrBufferFull for a line that
// does not fit into the reader's buffer; and whatever reading failed with.
func readPopCommand(r *bufio.Reader) (popCommand, error) {
	line, err := r.ReadSlice('\n')
	if err != nil {
		return popCommand{}, err
	}
	line = bytes.TrimSuffix(line[:len(line)-1], []byte("\r"))
	if bytes.ContainsFunc(line, func(c rune) bool { return c < ' ' || c == 0x7f }) {
		return popCommand{}, errPopSyntax
	}
	// The argument is kept as it is: a password may begin or end with a space
	// (RFC 1939 section 7, PASS).
	verb, arg, _ := strings.Cut(string(line), " ")
	if verb == "" {
		return popCommand{}, errPopSyntax
	}
	return popCommand{strings.ToUpper(verb), arg}, nil
}

// popSession is one client of the POP3 server.
type popSession struct {
	backends *Backends
	in       *bufio.Reader
	out      *textproto.Writer

	user *string // of USER, until PASS

	imap     *imapclient.Client // nil until login; then the state is TRANSACTION
	validity uint32             // UIDVALIDITY of INBOX
	messages []popMessage       // INBOX as it was at login, never reordered

	quit bool // QUIT was heard
}

// popMessage is a message of the snapshot; its number is its index plus one.
type popMessage struct {
	uid     imap.UID
	size    int64
	deleted bool // by DELE, done at QUIT
}

// popPhase says in which state a command is allowed (RFC 1939 section 3).
type popPhase int

const (
	popAnytime popPhase = iota
	popBeforeLogin
	popAfterLogin
)

// popCommands are the commands that are understood. A handler answers success
// itself; the text of its error follows "-ERR ".
var popCommands = map[string]struct {
	phase popPhase
	run   func(s *popSession, arg string) error
}{
	"CAPA": {popAnytime, (*popSession).capa},
	"QUIT": {popAnytime, (*popSession).handleQuit},
	"USER": {popBeforeLogin, (*popSession).handleUser},
	"PASS": {popBeforeLogin, (*popSession).pass},
	"AUTH": {popBeforeLogin, (*popSession).auth},
	"STAT": {popAfterLogin, (*popSession).stat},
	"LIST": {popAfterLogin, (*popSession).list},
	"UIDL": {popAfterLogin, (*popSession).uidl},
	"RETR": {popAfterLogin, (*popSession).retr},
	"TOP":  {popAfterLogin, (*popSession).top},
	"DELE": {popAfterLogin, (*popSession).dele},
	"RSET": {popAfterLogin, (*popSession).rset},
	"NOOP": {popAfterLogin, (*popSession).noop},
}

// servePOP3 starts a session on c and does not wait for it.
func (b *Backends) servePOP3(c net.Conn) {
	s := &popSession{
		backends: b,
		in:       bufio.NewReaderSize(c, popLine),
		out:      textproto.NewWriter(bufio.NewWriter(c)),
	}
	b.popSessions.Go(func() { s.serve(c) })
}

// serve runs a session to its end. Writes are not checked: where one fails, the
// next read fails too.
func (s *popSession) serve(c net.Conn) {
	defer c.Close()
	defer func() {
		if s.imap != nil {
			s.imap.Close()
		}
	}()
	extend := func() { c.SetDeadline(time.Now().Add(popIdle)) }

	extend()
	s.ok("%s POP3 server ready", Domain)
	for !s.quit {
		extend()
		command, err := readPopCommand(s.in)
		switch {
		case err == nil:
			err = s.handle(command)
		case !errors.Is(err, errPopSyntax) && !errors.Is(err, bufio.ErrBufferFull):
			return // the client has left, or was silent for too long
		}
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			// The rest of the line must not be taken for a command.
			s.out.PrintfLine("-ERR line too long, %d octets are allowed", popLine)
			return
		case err != nil:
			s.out.PrintfLine("-ERR %v", err)
		}
	}
}

// handle runs one command.
func (s *popSession) handle(command popCommand) error {
	c, ok := popCommands[command.verb]
	switch {
	case !ok:
		return errors.New("unknown command")
	case c.phase == popBeforeLogin && s.imap != nil:
		return fmt.Errorf("%s comes before login", command.verb)
	case c.phase == popAfterLogin && s.imap == nil:
		return fmt.Errorf("%s comes after login", command.verb)
	}
	return c.run(s, command.arg)
}

// ok writes a reply of one line.
func (s *popSession) ok(format string, args ...any) {
	s.out.PrintfLine("+OK "+format, args...)
}

// body writes the lines that follow +OK, with the dots of RFC 1939 section 3.
func (s *popSession) body(b []byte) {
	if len(b) == 0 {
		s.out.PrintfLine(".") // DotWriter would put an empty line before it
		return
	}
	w := s.out.DotWriter()
	w.Write(b)
	w.Close()
}

// trouble logs a failure that is none of the client's business.
func (s *popSession) trouble(doing string, err error) error {
	s.backends.log.Warn(doing, zap.String("protocol", "pop3"), zap.Error(err))
	return errPopTrouble
}

// capa is CAPA (RFC 2449 section 5).
func (s *popSession) capa(string) error {
	s.ok("capabilities follow")
	s.body([]byte("TOP\n" +
		"USER\n" +
		"UIDL\n" +
		"SASL " + strings.Join(mechanisms, " ") + "\n" + // RFC 5034 section 3
		"RESP-CODES\n" +
		"AUTH-RESP-CODE\n" + // RFC 3206
		"PIPELINING\n" +
		"EXPIRE NEVER\n" +
		"IMPLEMENTATION Mailreeve-demo\n"))
	return nil
}

// handleUser is USER (RFC 1939 section 7). Every name is welcome: who does not
// know the password shall not learn which names exist.
func (s *popSession) handleUser(name string) error {
	if name == "" {
		return errors.New("name missing after USER")
	}
	s.user = &name
	s.ok("now the password")
	return nil
}

// pass is PASS (RFC 1939 section 7).
func (s *popSession) pass(password string) error {
	if s.user == nil {
		return errors.New("USER comes first")
	}
	name := *s.user
	s.user = nil
	if err := s.login(name, password); err != nil {
		return err
	}
	s.ok("%d messages", len(s.messages))
	return nil
}

// auth is AUTH (RFC 5034 section 4), with and without initial response.
func (s *popSession) auth(arg string) error {
	mechanism, initial, given := strings.Cut(arg, " ")
	server := newSASL(strings.ToUpper(mechanism), errPopAuth, s.login)
	if server == nil {
		return errors.New("unknown mechanism, use one of " + strings.Join(mechanisms, ", "))
	}
	var response []byte // nil: none yet
	if given {
		if initial == "=" { // "=" is a response of no octets
			initial = ""
		}
		var err error
		if response, err = base64.StdEncoding.DecodeString(initial); err != nil {
			return errors.New("malformed base64")
		}
	}
	for {
		challenge, done, err := server.Next(response)
		if err != nil {
			return err
		}
		if done {
			s.ok("%d messages", len(s.messages))
			return nil
		}
		s.out.PrintfLine("+ %s", base64.StdEncoding.EncodeToString(challenge))
		line, err := s.in.ReadSlice('\n')
		if err != nil {
			return err
		}
		encoded := strings.TrimRight(string(line), "\r\n")
		if encoded == "*" {
			return errors.New("cancelled")
		}
		if response, err = base64.StdEncoding.DecodeString(encoded); err != nil {
			return errors.New("malformed base64")
		}
	}
}

// login opens the IMAP session and takes the snapshot of INBOX.
func (s *popSession) login(name, password string) error {
	client := s.backends.dialIMAP()
	err := s.open(client, name, password)
	if err == nil {
		s.imap = client
		return nil
	}
	client.Close()
	if refused := new(imap.Error); errors.As(err, &refused) && refused.Code == imap.ResponseCodeAuthenticationFailed {
		return errPopAuth
	}
	return s.trouble("open mailbox", err)
}

// open logs in and reads numbers and sizes of the messages.
func (s *popSession) open(client *imapclient.Client, name, password string) error {
	if err := client.Login(name, password).Wait(); err != nil {
		return err
	}
	inbox, err := client.Select("INBOX", nil).Wait()
	if err != nil {
		return err
	}
	s.validity = inbox.UIDValidity
	if inbox.NumMessages == 0 {
		return nil
	}
	var all imap.SeqSet
	all.AddRange(1, inbox.NumMessages)
	list, err := client.Fetch(all, &imap.FetchOptions{UID: true, RFC822Size: true}).Collect()
	if err != nil {
		return err
	}
	for _, m := range list {
		s.messages = append(s.messages, popMessage{uid: m.UID, size: m.RFC822Size})
	}
	return nil
}

// message finds a message by its number, unless it is marked as deleted.
func (s *popSession) message(number string) (*popMessage, error) {
	n, err := strconv.Atoi(number)
	if err != nil || n < 1 || n > len(s.messages) {
		return nil, fmt.Errorf("no such message, there are %d", len(s.messages))
	}
	if m := &s.messages[n-1]; !m.deleted {
		return m, nil
	}
	return nil, fmt.Errorf("message %d is deleted", n)
}

// stat is STAT (RFC 1939 section 5).
func (s *popSession) stat(string) error {
	count, size := 0, int64(0)
	for _, m := range s.messages {
		if !m.deleted {
			count++
			size += m.size
		}
	}
	s.ok("%d %d", count, size)
	return nil
}

// list is LIST (RFC 1939 section 5).
func (s *popSession) list(number string) error {
	return s.scan(number, func(m popMessage) string { return strconv.FormatInt(m.size, 10) })
}

// uidl is UIDL (RFC 1939 section 7). UIDVALIDITY and UID together are unique for
// good (RFC 9051 section 2.3.1.1).
func (s *popSession) uidl(number string) error {
	return s.scan(number, func(m popMessage) string { return fmt.Sprintf("%d.%d", s.validity, m.uid) })
}

// scan writes a line about one message, or about all if number is empty.
func (s *popSession) scan(number string, about func(popMessage) string) error {
	if number != "" {
		m, err := s.message(number)
		if err != nil {
			return err
		}
		s.ok("%s %s", number, about(*m))
		return nil
	}
	var lines bytes.Buffer
	for i, m := range s.messages {
		if !m.deleted {
			fmt.Fprintf(&lines, "%d %s\n", i+1, about(m))
		}
	}
	s.ok("list follows")
	s.body(lines.Bytes())
	return nil
}

// retr is RETR (RFC 1939 section 5).
func (s *popSession) retr(number string) error {
	text, err := s.fetch(number)
	if err != nil {
		return err
	}
	s.ok("%d octets", len(text))
	s.body(text)
	return nil
}

// top is TOP (RFC 1939 section 7).
func (s *popSession) top(arg string) error {
	number, count, _ := strings.Cut(arg, " ")
	lines, err := strconv.Atoi(count)
	if err != nil || lines < 0 {
		return errors.New("message number or number of lines missing after TOP")
	}
	text, err := s.fetch(number)
	if err != nil {
		return err
	}
	s.ok("top of message follows")
	s.body(top(text, lines))
	return nil
}

// top is a message cut off after its header, the empty line and some lines of
// its body.
func top(text []byte, lines int) []byte {
	inBody := false
	end := 0
	for line := range bytes.Lines(text) {
		if inBody {
			if lines--; lines < 0 {
				break
			}
		}
		end += len(line)
		inBody = inBody || len(bytes.TrimRight(line, "\r\n")) == 0
	}
	return text[:end]
}

// fetch reads a message, without marking it as seen: many POP3 clients leave
// mail on the server, and reading it there is for the IMAP user to do.
func (s *popSession) fetch(number string) ([]byte, error) {
	m, err := s.message(number)
	if err != nil {
		return nil, err
	}
	whole := &imap.FetchItemBodySection{Peek: true}
	list, err := s.imap.Fetch(imap.UIDSetNum(m.uid), &imap.FetchOptions{
		UID:         true,
		BodySection: []*imap.FetchItemBodySection{whole},
	}).Collect()
	if err != nil {
		return nil, s.trouble("fetch message", err)
	}
	for _, m := range list {
		// News of the flags of a removed message may come in place of its text.
		if text := m.FindBodySection(whole); text != nil {
			return text, nil
		}
	}
	return nil, fmt.Errorf("message %s is gone, another session has removed it", number)
}

// dele is DELE (RFC 1939 section 5).
func (s *popSession) dele(number string) error {
	m, err := s.message(number)
	if err != nil {
		return err
	}
	m.deleted = true
	s.ok("message %s will be deleted at QUIT", number)
	return nil
}

// rset is RSET (RFC 1939 section 5).
func (s *popSession) rset(string) error {
	for i := range s.messages {
		s.messages[i].deleted = false
	}
	s.ok("%d messages", len(s.messages))
	return nil
}

// noop is NOOP (RFC 1939 section 5).
func (s *popSession) noop(string) error {
	s.ok("here")
	return nil
}

// handleQuit is QUIT (RFC 1939 sections 4 and 6): only now are the marked
// messages removed. A session that ends otherwise removes nothing.
func (s *popSession) handleQuit(string) error {
	s.quit = true
	var marked imap.UIDSet
	for _, m := range s.messages {
		if m.deleted {
			marked.AddNum(m.uid)
		}
	}
	if len(marked) > 0 {
		flags := &imap.StoreFlags{Op: imap.StoreFlagsAdd, Silent: true, Flags: []imap.Flag{imap.FlagDeleted}}
		if err := s.imap.Store(marked, flags, nil).Close(); err != nil {
			return s.trouble("mark messages as deleted", err)
		}
		if err := s.imap.UIDExpunge(marked).Close(); err != nil {
			return s.trouble("remove messages", err)
		}
	}
	s.ok("bye")
	return nil
}
