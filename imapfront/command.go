package imapfront

// Commands of a client not logged in: lines, literals and arguments within the
// limits, and the ID behind the login.

import (
	"errors"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"mailreeve/proxy"
)

const (
	// maxTag is longer than any client's tag; it is replayed to the backend.
	maxTag = 64
	// ID fields (RFC 2971 section 3.3).
	maxIDFields = 30
	maxIDKey    = 30
	maxIDValue  = 1024
)

// command is one command line, as far as it was read.
type command struct {
	tag, name string
	rest      string // arguments on the line, as far as they were not taken
	mech      string // of AUTHENTICATE
	initial   string // response of AUTHENTICATE, empty: none
	size      int    // bytes of the command so far, literals included
}

// syntaxError is what a client is told of a malformed command.
type syntaxError string

func (e syntaxError) Error() string { return string(e) }

// malformed turns a decoder's error into what the client is told.
func malformed(err error) error {
	switch {
	case errors.Is(err, proxy.ErrCancelled):
		return syntaxError("AUTHENTICATE cancelled.") // RFC 9051 section 6.2.2
	case errors.Is(err, proxy.ErrMalformed):
		return syntaxError("Malformed credential.")
	}
	return err
}

// parse takes tag and name off a line, or returns nil where there is no tag
// that could be said back.
func parse(line string) *command {
	tag, rest, _ := strings.Cut(line, " ")
	if tag == "" || len(tag) > maxTag || strings.ContainsFunc(tag, notTag) {
		return nil
	}
	name, rest, _ := strings.Cut(rest, " ")
	return &command{tag: tag, name: strings.ToUpper(name), rest: rest, size: len(line)}
}

// notTag reports characters that a tag cannot have (RFC 9051 section 9: any
// ASTRING-CHAR but "+").
func notTag(c rune) bool {
	return c <= ' ' || c >= 0x7f || strings.ContainsRune(`(){%*"\+`, c)
}

// literal returns the size that a line announces at its end, and whether the
// client waits for a go-ahead; ok is false where the line ends with no literal.
func literal(line string) (size int, waits, ok bool) {
	if !strings.HasSuffix(line, "}") {
		return 0, false, false
	}
	i := strings.LastIndexByte(line, '{')
	if i < 0 {
		return 0, false, false
	}
	number, plus := strings.CutSuffix(line[i+1:len(line)-1], "+")
	if number == "" || strings.ContainsFunc(number, func(c rune) bool { return c < '0' || c > '9' }) {
		return 0, false, false
	}
	// A number beyond all bounds is the highest: still over every limit.
	n, _ := strconv.ParseUint(number, 10, 31)
	return int(n), !plus, true
}

// waits reports whether the client has sent no more than an announcement: the
// password of a LOGIN is then not on its way.
func (c *command) waits() bool {
	_, waits, ok := literal(c.rest)
	return ok && waits
}

// skip reads what a client that does not wait has sent of a command that will
// not be obeyed.
func (d *dialogue) skip(c *command) error {
	for line := c.rest; ; {
		size, waits, ok := literal(line)
		if !ok || waits {
			return nil
		}
		if _, err := d.take(c, size); err != nil {
			return err
		}
		next, err := d.wire.Line(d.limits.Line)
		if err != nil {
			return err
		}
		line = string(next)
	}
}

// take reads a literal within the limits. A client that sends more than it may
// cannot be followed any further.
func (d *dialogue) take(c *command, size int) ([]byte, error) {
	if size > d.limits.Literal || c.size+size > d.limits.Memory {
		return nil, proxy.Misspoke("literal_too_long", "the client announced a literal of %d bytes before its login", size)
	}
	c.size += size
	return d.wire.Bytes(size)
}

// scanner reads the arguments of a command (RFC 9051 section 9), following its
// literals over the wire.
type scanner struct {
	d *dialogue // nil: no wire to follow
	c *command
}

// trim drops spaces. The grammar has one between two arguments; Dovecot takes
// more of them, so programs that send more work with it.
func (s *scanner) trim() { s.c.rest = strings.TrimLeft(s.c.rest, " ") }

// space takes the space between two arguments.
func (s *scanner) space() error {
	if !strings.HasPrefix(s.c.rest, " ") {
		return syntaxError("An argument is missing.")
	}
	s.trim()
	return nil
}

// end wants nothing more.
func (s *scanner) end() error {
	if s.trim(); s.c.rest != "" {
		return syntaxError("Too many arguments.")
	}
	return nil
}

// astring takes an atom, a quoted string or a literal.
func (s *scanner) astring() (string, error) {
	rest := s.c.rest
	switch {
	case rest == "":
		return "", syntaxError("An argument is missing.")
	case rest[0] == '"':
		return s.quoted()
	case rest[0] == '{':
		return s.literal()
	}
	i := strings.IndexFunc(rest, notAtom)
	if i < 0 {
		i = len(rest)
	}
	if i == 0 {
		return "", syntaxError("Malformed argument.")
	}
	s.c.rest = rest[i:]
	return rest[:i], nil
}

// notAtom reports what ends an atom. It is laxer than the grammar, since
// clients send passwords with any of "%*]\" and 8-bit characters unquoted.
func notAtom(c rune) bool { return c <= ' ' || c == 0x7f || strings.ContainsRune(`(){"`, c) }

func (s *scanner) quoted() (string, error) {
	var b strings.Builder
	rest := s.c.rest
	for i := 1; i < len(rest); i++ {
		switch rest[i] {
		case '"':
			s.c.rest = rest[i+1:]
			return b.String(), nil
		case '\\':
			if i++; i == len(rest) {
				return "", syntaxError("A quoted string does not end.")
			}
		}
		b.WriteByte(rest[i])
	}
	return "", syntaxError("A quoted string does not end.")
}

// literal takes a literal, which must be the last thing on its line, and goes
// on with the next line (RFC 9051 section 4.3, RFC 7888).
func (s *scanner) literal() (string, error) {
	size, waits, ok := literal(s.c.rest)
	if !ok || strings.LastIndexByte(s.c.rest, '{') != 0 || s.d == nil {
		return "", syntaxError("Malformed literal.")
	}
	if waits {
		if size > s.d.limits.Literal || s.c.size+size > s.d.limits.Memory {
			return "", syntaxError("The literal is too long.") // it was only announced
		}
		if err := s.d.wire.Say("+ Ready for the literal.\r\n"); err != nil {
			return "", err
		}
	}
	p, err := s.d.take(s.c, size)
	if err != nil {
		return "", err
	}
	line, err := s.d.wire.Line(s.d.limits.Line)
	if err != nil {
		return "", err
	}
	s.c.rest = string(line)
	if s.c.size += len(line); s.c.size > s.d.limits.Memory {
		return "", proxy.ErrLineTooLong
	}
	return string(p), nil
}

// id takes the argument of ID: NIL, or a list of keys and values. Keys are
// lower case in the answer, and everything is bounded and printable; what is
// over the bounds of RFC 2971 is dropped.
func (s *scanner) id() (map[string]string, error) {
	rest, ok := strings.CutPrefix(s.c.rest, "(")
	if !ok {
		return nil, nil
	}
	s.c.rest = rest
	id := map[string]string{}
	for s.trim(); !strings.HasPrefix(s.c.rest, ")"); s.trim() {
		key, err := s.astring()
		if err == nil {
			err = s.space()
		}
		var value string
		if err == nil {
			value, err = s.astring()
		}
		if err != nil {
			return id, err
		}
		keep(id, key, value)
	}
	return id, nil
}

func keep(id map[string]string, key, value string) {
	key = strings.ToLower(printable(key))
	if key == "" || len(key) > maxIDKey || len(id) == maxIDFields || strings.EqualFold(value, "NIL") {
		return
	}
	value = printable(value)
	id[key] = strings.ToValidUTF8(value[:min(len(value), maxIDValue)], "") // not half a character
}

// printable drops what a stranger's string should not bring into a log or onto
// a terminal: controls, 8-bit ones too, marks of direction, broken UTF-8.
func printable(s string) string {
	return strings.Map(func(c rune) rune {
		if c == utf8.RuneError || !unicode.IsPrint(c) {
			return -1
		}
		return c
	}, s)
}

// watchBytes is how much of what a client says after its login is looked at:
// Thunderbird sends its ID first, others after a few commands.
const watchBytes = 4 << 10

// watch looks for an ID command behind the login.
func watch(found func(map[string]string)) func([]byte) bool {
	var line []byte
	seen := 0
	return func(p []byte) bool {
		for _, b := range p {
			if seen++; seen > watchBytes {
				return true
			}
			if b != '\n' {
				line = append(line, b)
				continue
			}
			c := parse(strings.TrimSuffix(string(line), "\r"))
			line = line[:0]
			if c == nil || c.name != "ID" || !strings.HasPrefix(c.rest, "(") {
				continue
			}
			s := scanner{c: c}
			if id, _ := s.id(); len(id) > 0 {
				found(id)
				return true
			}
		}
		return false
	}
}
