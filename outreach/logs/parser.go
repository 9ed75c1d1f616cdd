package logs

import (
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"mailreeve/events"
	"mailreeve/policy"
)

// Verdict is what a line was.
type Verdict uint8

// The verdicts.
const (
	Foreign Verdict = iota // of another program, or of none
	Other                  // of these servers, and says nothing of a login that succeeded, or nothing new
	Login                  // a login: there is a session
	Unknown                // it looks like a login, and is not understood: count it and show it
)

// String is the verdict in a word.
func (v Verdict) String() string { return [...]string{"foreign", "other", "login", "unknown"}[v] }

// Options are what a log does not say of itself.
type Options struct {
	Zone  *time.Location // of stamps without one; nil: the machine's
	Brand string         // of all sessions

	// A stamp of syslog has no year. With Year that of the first line is known, and it
	// goes on when December turns to January. Else a line belongs to the last year in
	// which it is not later than a day after Now, by default the present: the
	// time at which the file was last written is better.
	Year int
	Now  time.Time

	// Elements is Dovecot's login_log_format_elements, where it is not the default. Empty:
	// the order is taken from the lines.
	Elements string

	// Host says what a server name is that the client asked for, where the log has it, as
	// the proxy would: canonical and so on, and of which brand. nil: not known.
	Host func(protocol, name string) (host, brand string)
}

// Parser reads the log of one kind of server. It has a memory, since several lines
// belong together: use one for each log, and not from several goroutines at once.
type Parser struct {
	opt   Options
	clock clock
	read  func(*entry) (*events.Session, Verdict)
	looks []string // what a line of a login has in it, even where its beginning is not understood
}

const (
	mostLine = 64 << 10 // neither server writes lines that long
	mostName = 255      // bytes of a user name, as in RFC 4616
)

// Line reads a line, without its newline. There is a session where the verdict is Login,
// and only there; it is the caller's to keep, and so is the line.
func (p *Parser) Line(line []byte) (*events.Session, Verdict) {
	if len(line) > mostLine {
		return nil, Foreign
	}
	text := strings.TrimSuffix(string(line), "\r")
	e, ok := p.clock.entry(text)
	if !ok {
		return nil, p.unread(text)
	}
	return p.read(&e)
}

// unread is the verdict on a line without a beginning that is known.
func (p *Parser) unread(text string) Verdict {
	for _, look := range p.looks {
		if strings.Contains(text, look) {
			return Unknown
		}
	}
	return Foreign
}

// session begins what is returned for a login.
func (p *Parser) session(at time.Time, protocol string) *events.Session {
	return &events.Session{V: events.Version, Kind: "session", Time: at.UTC(), Protocol: protocol, Brand: p.opt.Brand}
}

// name sets whose login it was. What the servers may have replaced or cut off
// could be somebody else's name.
func name(s *events.Session, account, typed string) bool {
	if account == "" || len(account) > mostName || !utf8.ValidString(account) || strings.ContainsAny(account, "?<>") ||
		strings.ContainsFunc(account, unicode.IsControl) || strings.Contains(account, ", ") || strings.HasSuffix(account, "...") || strings.TrimSpace(account) != account {
		return false
	}
	s.Account, s.Verified, s.UserForm = strings.Clone(account), true, "bare"
	if at := strings.LastIndexByte(account, '@'); at >= 0 {
		s.Domain = strings.ToLower(account[at+1:])
	}
	if strings.Contains(typed, "@") {
		s.UserForm = "address"
	}
	return true
}

// mechanism sets by which a login was, and what follows from it.
func mechanism(s *events.Session, name string) {
	if name == "" {
		return
	}
	s.Mechanism = policy.KnownMech(strings.ToUpper(name))
	s.Exposed = s.TLS == policy.None && (s.Mechanism == "PLAIN" || s.Mechanism == "LOGIN")
}

// asked sets the server name that a client asked for.
func (p *Parser) asked(s *events.Session, name string) {
	if name == "" {
		return
	}
	s.SNI = strings.ToLower(name)
	if p.opt.Host == nil {
		return
	}
	var brand string
	if s.Host, brand = p.opt.Host(s.Protocol, s.SNI); brand != "" {
		s.Brand = brand
	}
}
