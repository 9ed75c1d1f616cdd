package demo

import (
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
	"go.uber.org/zap"
)

// newSMTPServer makes the Submission server.
func (b *Backends) newSMTPServer() *smtp.Server {
	s := smtp.NewServer(smtp.BackendFunc(func(c *smtp.Conn) (smtp.Session, error) {
		return &smtpSession{backends: b, conn: c}, nil
	}))
	s.Domain = Domain
	s.AllowInsecureAuth = true // plaintext, but on loopback
	s.EnableDSN = true
	s.EnableSMTPUTF8 = true
	s.ErrorLog = stdLog(b.log, "smtp")
	s.MaxMessageBytes = maxMessage
	s.ReadTimeout = 5 * time.Minute // RFC 5321 section 4.5.3.2.7
	s.WriteTimeout = 5 * time.Minute
	return s
}

// serveSMTP serves l until it is closed. The library cannot tell why accepting
// failed then, so its error says nothing that the caller does not know.
func (b *Backends) serveSMTP(l net.Listener) {
	_ = b.smtpServer.Serve(l)
}

// Refusals of the Submission server.
var (
	errAuthRequired = &smtp.SMTPError{ // RFC 4954 section 6
		Code: 530, EnhancedCode: smtp.EnhancedCode{5, 7, 0}, Message: "Authentication required",
	}
	errUnknownRecipient = &smtp.SMTPError{ // RFC 5321 section 4.2.2, RFC 3463 section 3.2
		Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "No such account here",
	}
)

// smtpSession is one client of the Submission server.
type smtpSession struct {
	backends *Backends
	conn     *smtp.Conn
	account  *account // nil until the client has logged in

	// The library runs Data of a BDAT transfer beside Reset.
	mu       sync.Mutex
	envelope envelope
}

// envelope is what MAIL and RCPT have said of one message.
type envelope struct {
	from string
	mail smtp.MailOptions
	to   []recipient
}

// recipient is one accepted RCPT.
type recipient struct {
	*account
	address string
	options smtp.RcptOptions
}

// AuthMechanisms implements smtp.AuthSession.
func (s *smtpSession) AuthMechanisms() []string { return mechanisms }

// Auth implements smtp.AuthSession.
func (s *smtpSession) Auth(mechanism string) (sasl.Server, error) {
	server := newSASL(mechanism, smtp.ErrAuthFailed, func(name, password string) error {
		if s.account = s.backends.login("submission", name, password); s.account == nil {
			return smtp.ErrAuthFailed
		}
		return nil
	})
	if server == nil {
		return nil, smtp.ErrAuthUnknownMechanism
	}
	return server, nil
}

// Mail implements smtp.Session.
func (s *smtpSession) Mail(from string, options *smtp.MailOptions) error {
	if s.account == nil {
		return errAuthRequired
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.envelope = envelope{from: from, mail: *options}
	return nil
}

// Rcpt implements smtp.Session.
func (s *smtpSession) Rcpt(to string, options *smtp.RcptOptions) error {
	a := s.backends.account(to)
	if a == nil {
		return errUnknownRecipient
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.envelope.to = append(s.envelope.to, recipient{account: a, address: to, options: *options})
	return nil
}

// Data implements smtp.Session: it delivers one message to all recipients.
func (s *smtpSession) Data(r io.Reader) error {
	s.mu.Lock()
	e := s.envelope
	s.mu.Unlock()
	message, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	now := time.Now()
	for _, to := range e.to {
		if err := to.append(append(s.trace(e, to, now), message...), now); err != nil {
			return err
		}
		s.backends.log.Debug("delivered", zap.String("account", s.account.name),
			zap.String("to", to.name), zap.Int("bytes", len(message)))
	}
	if err := s.report(e, message, now); err != nil {
		// The mail has arrived; a refusal now would bring it a second time.
		s.backends.log.Warn("delivery report", zap.Error(err))
	}
	return nil
}

// trace is what a delivery puts before the message (RFC 5321 section 4.4).
func (s *smtpSession) trace(e envelope, to recipient, now time.Time) []byte {
	with := "ESMTPA" // RFC 3848
	if e.mail.UTF8 {
		with = "UTF8SMTPA" // RFC 6531 section 4.3
	}
	client := s.conn.Conn().RemoteAddr().String()
	if host, _, err := net.SplitHostPort(client); err == nil {
		client = host
	}
	return fmt.Appendf(nil, "Return-Path: <%s>\r\n"+
		"Received: from %s ([%s])\r\n"+
		"\t(authenticated as %s)\r\n"+
		"\tby %s with %s\r\n"+
		"\tfor <%s>; %s\r\n",
		e.from, s.conn.Hostname(), client, s.account.name,
		Domain, with, to.address, now.Format(time.RFC1123Z))
}

// Reset implements smtp.Session.
func (s *smtpSession) Reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.envelope = envelope{}
}

// Logout implements smtp.Session. Nothing is held that must be given back.
func (s *smtpSession) Logout() error { return nil }
