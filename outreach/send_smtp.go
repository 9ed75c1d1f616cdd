package outreach

// The conversation with the submission server.

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"regexp"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"

	"mailreeve/config"
)

const (
	commandTime = 2 * time.Minute  // for an answer (RFC 5321 section 4.5.3.2 has 5: a claim must outlast all of them)
	dotTime     = 10 * time.Minute // for that to the final dot (section 4.5.3.2.6)
	sendTime    = 2 * time.Minute  // to get a mail of some 20 KiB through the network
)

// connection is one to the server, after EHLO, TLS and login.
type connection struct {
	conn   net.Conn // beneath TLS
	client *smtp.Client
	data   *smtp.DataCommand
	used   time.Time
}

// serverTrouble is an error of the server or the way to it, and not about a notice.
type serverTrouble struct {
	doing string
	err   error
	fatal bool // to try again is of no use
}

func (e *serverTrouble) Error() string {
	return "the submission server: " + e.said()
}
func (e *serverTrouble) Unwrap() error { return e.err }

// said is what went wrong, in the server's words where it had some.
func (e *serverTrouble) said() string {
	if a := answerOf(e.err); a.code != 0 {
		return e.doing + ": " + a.said
	}
	return e.doing + ": " + heardLine(e.err.Error())
}

// Refused reports whether an error is the server's own no, which a person has to look after.
func Refused(err error) bool {
	var e *serverTrouble
	return errors.As(err, &e) && e.fatal
}

// errNoSTARTTLS is a server's that speaks no TLS on this port, or no more of it.
var errNoSTARTTLS = errors.New("it does not offer STARTTLS")

// NoSTARTTLS reports whether an error is that of a server without STARTTLS.
func NoSTARTTLS(err error) bool { return errors.Is(err, errNoSTARTTLS) }

// converse begins a conversation.
func converse(conn net.Conn, s *Sender) (*connection, error) {
	c := &connection{conn: conn, used: time.Now()}
	fail := func(doing string, err error) (*connection, error) {
		conn.Close()
		var bad *tls.CertificateVerificationError // which no waiting mends
		return nil, &serverTrouble{doing, err, answerOf(err).code >= 500 || errors.As(err, &bad)}
	}
	var err error
	switch s.Notices.TLS {
	case config.Implicit:
		c.client = smtp.NewClient(tls.Client(conn, s.TLS))
	case config.STARTTLS:
		conn.SetDeadline(time.Now().Add(commandTime)) // go-smtp has one of 5 minutes before it can be told another
		if c.client, err = smtp.NewClientStartTLS(conn, s.TLS); err != nil {
			if err.Error() == "smtp: server doesn't support STARTTLS" { // go-smtp has no value for it
				conn.Close()
				return nil, &serverTrouble{"STARTTLS", errNoSTARTTLS, true}
			}
			return fail("STARTTLS", err)
		}
	default:
		c.client = smtp.NewClient(conn)
	}
	c.client.CommandTimeout, c.client.SubmissionTimeout = commandTime, dotTime
	if err := c.client.Hello(s.hello()); err != nil {
		return fail("EHLO", err)
	}
	if s.Notices.User == "" {
		return c, nil
	}
	// In clear there is a login on this machine alone: the configuration is checked for that.
	if _, secure := c.client.TLSConnectionState(); !secure && s.Notices.TLS != config.Off {
		return fail("login", errors.New("there is no encryption"))
	}
	if !c.client.SupportsAuth(sasl.Plain) {
		return fail("login", &smtp.SMTPError{Code: 504, Message: "it does not offer AUTH PLAIN"})
	}
	if err := c.client.Auth(sasl.NewPlainClient("", s.Notices.User, s.Password)); err != nil {
		return fail("login as "+s.Notices.User, err)
	}
	return c, nil
}

// offer says all but the final dot. On an error it tells in what.
func (c *connection) offer(m *ready, at func(string)) (doing string, err error) {
	c.used = time.Now()
	defer func() {
		if answerOf(err).code != 0 { // the server goes on: what was said is taken back
			if c.client.Reset() != nil {
				c.conn.Close()
			}
		}
	}()
	if err := c.client.Mail(m.from, &smtp.MailOptions{Size: int64(len(m.bytes)), Return: smtp.DSNReturnHeaders, EnvelopeID: m.token}); err != nil {
		return "MAIL", err
	}
	at("mail")
	// The address as it was written comes back in a bounce, whatever a server rewrites (RFC 3461 section 4.2).
	if err := c.client.Rcpt(m.to, &smtp.RcptOptions{Notify: []smtp.DSNNotify{smtp.DSNNotifyFailure, smtp.DSNNotifyDelayed},
		OriginalRecipientType: smtp.DSNAddressTypeRFC822, OriginalRecipient: m.to}); err != nil {
		return "RCPT", err
	}
	at("rcpt")
	data, err := c.client.Data()
	if err != nil {
		return "DATA", err
	}
	c.data = data
	at("data")
	c.conn.SetDeadline(time.Now().Add(sendTime))
	if _, err := data.Write(m.bytes); err != nil {
		return "DATA", err
	}
	return "", nil
}

// end says the final dot, and returns what the server answers.
func (c *connection) end() (said string, err error) {
	c.conn.SetDeadline(time.Now().Add(sendTime))
	r, err := c.data.CloseWithResponse()
	c.data, c.used = nil, time.Now()
	if err != nil {
		return "", err
	}
	return heardLine(r.StatusText), nil
}

// quit takes leave. Whether the server answers does not matter any more. In the middle of a mail
// nothing is said: package textproto would end the mail with a dot before any other command.
func (c *connection) quit() {
	if c.data != nil {
		c.close()
		return
	}
	c.client.CommandTimeout = 2 * time.Second
	if c.client.Quit() != nil {
		c.close()
	}
}

func (c *connection) close() { c.conn.Close() }

// answer is a reply of the server.
type answer struct {
	code int // 0: there was none
	said string
}

// answerOf is the reply that an error is about.
func answerOf(err error) answer {
	var reply *smtp.SMTPError
	if !errors.As(err, &reply) {
		return answer{}
	}
	said := fmt.Sprint(reply.Code)
	if e := reply.EnhancedCode; e != (smtp.EnhancedCode{}) && e != smtp.NoEnhancedCode {
		said += fmt.Sprintf(" %d.%d.%d", e[0], e[1], e[2])
	}
	return answer{reply.Code, heardLine(said + " " + reply.Message)}
}

// mostHeard bounds what is kept of a server's words, in letters.
const mostHeard = 200

// heardLine is what somebody outside said, on one line of what can be printed: it is kept, and shown to people.
func heardLine(text string) string {
	n := 0
	return strings.Join(strings.Fields(strings.Map(func(r rune) rune {
		if n++; n > mostHeard {
			return -1
		}
		if !unicode.IsPrint(r) || r == utf8.RuneError {
			return ' '
		}
		return r
	}, text)), " ")
}

// ours reports whether a server's no is about who sends, and not about the recipient: a login that is missing,
// a relay that is not allowed, a filter (RFC 3463 section 3.8). A person mends that, so the
// notice is only put off.
func (a answer) ours() bool {
	return a.code == 530 || a.code == 535 || strings.HasPrefix(a.said, fmt.Sprint(a.code, " 5.7."))
}

// queued is how Postfix, Exim and others name what they have taken.
var queued = regexp.MustCompile(`(?i)(?:queued as|id=)\s*([0-9A-Za-z][0-9A-Za-z._-]{3,62})`)

// queueID is the server's name for a mail, where it tells one.
func queueID(said string) string {
	if m := queued.FindStringSubmatch(said); m != nil {
		return m[1]
	}
	return ""
}
