package demo

import (
	"net"
	"strings"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
	"github.com/emersion/go-imap/v2/imapserver"
	"github.com/emersion/go-imap/v2/imapserver/imapmemserver"
	"github.com/emersion/go-sasl"
)

// imapCaps is what the store can do. IMAP4rev2 stands for the many extensions
// that are part of it, which are announced one by one for clients of IMAP4rev1.
var imapCaps = imap.CapSet{
	imap.CapIMAP4rev1:   {},
	imap.CapIMAP4rev2:   {},
	imap.CapBinary:      {},
	imap.CapLiteralPlus: {},
}

// newIMAPServer makes the IMAP server; serveIMAP gives it connections.
func (b *Backends) newIMAPServer() *imapserver.Server {
	return imapserver.New(&imapserver.Options{
		NewSession: func(*imapserver.Conn) (imapserver.Session, *imapserver.GreetingData, error) {
			return &imapSession{backends: b}, nil, nil
		},
		Caps:         imapCaps,
		Logger:       stdLog(b.log, "imap"),
		InsecureAuth: true, // plaintext, but on loopback
	})
}

// serveIMAP starts a session on c and does not wait for it.
func (b *Backends) serveIMAP(c net.Conn) {
	b.imapSessions.Add(1) // imapSession.Close gives it back
	if err := b.imapServer.Serve(&handOver{writeOrClose{c}}); err != nil {
		b.imapSessions.Done()
		c.Close()
	}
}

// writeOrClose is a connection on which a Write never fails, but a failure closes
// it, so that the next Read ends the session. The library's store forgets to
// unlock its writer when a client leaves in the middle of a FETCH; the session
// would hang for good.
type writeOrClose struct{ net.Conn }

// Write implements net.Conn.
func (c writeOrClose) Write(p []byte) (int, error) {
	if _, err := c.Conn.Write(p); err != nil {
		c.Close()
	}
	return len(p), nil
}

// dialIMAP opens an IMAP session without a network.
func (b *Backends) dialIMAP() *imapclient.Client {
	client, server := net.Pipe()
	b.serveIMAP(server)
	return imapclient.New(client, nil)
}

// imapSession is one IMAP session: the store's own, once the user is known.
type imapSession struct {
	*imapmemserver.UserSession // nil until Login

	backends *Backends
	account  *account // nil until Login
}

var (
	_ imapserver.SessionIMAP4rev2   = (*imapSession)(nil)
	_ imapserver.SessionSASL        = (*imapSession)(nil)
	_ imapserver.SessionAppendLimit = (*imapSession)(nil)
)

// Close implements imapserver.Session. The library calls it once, at the end of
// every session.
func (s *imapSession) Close() error {
	defer s.backends.imapSessions.Done()
	return s.UserSession.Close()
}

// Login implements imapserver.Session.
func (s *imapSession) Login(name, password string) error {
	a := s.backends.login("imap", name, password)
	if a == nil {
		return imapserver.ErrAuthFailed
	}
	s.account = a
	s.UserSession = imapmemserver.NewUserSession(a.user)
	return nil
}

// AuthenticateMechanisms implements imapserver.SessionSASL.
func (s *imapSession) AuthenticateMechanisms() []string { return mechanisms }

// Authenticate implements imapserver.SessionSASL.
func (s *imapSession) Authenticate(mechanism string) (sasl.Server, error) {
	server := newSASL(mechanism, imapserver.ErrAuthFailed, s.Login)
	if server == nil {
		return nil, &imap.Error{
			Type: imap.StatusResponseTypeNo,
			Text: "Mechanism not supported, use one of " + strings.Join(mechanisms, ", "),
		}
	}
	return server, nil
}

// AppendLimit implements imapserver.SessionAppendLimit (RFC 7889).
func (s *imapSession) AppendLimit() uint32 { return maxMessage }

// Delete implements imapserver.Session. INBOX stays (RFC 9051 section 6.3.5):
// the store would delete it, and mail could no longer be delivered.
func (s *imapSession) Delete(mailbox string) error {
	if strings.EqualFold(mailbox, "INBOX") {
		return errInbox
	}
	return s.UserSession.Delete(mailbox)
}

// Rename implements imapserver.Session. INBOX stays, for the same reason.
func (s *imapSession) Rename(mailbox, newName string, options *imap.RenameOptions) error {
	if strings.EqualFold(mailbox, "INBOX") {
		return errInbox
	}
	return s.UserSession.Rename(mailbox, newName, options)
}

// Poll implements imapserver.Session. Every command that succeeds ends here:
// whatever it has changed, the idle sessions of the account are to look.
func (s *imapSession) Poll(w *imapserver.UpdateWriter, allowExpunge bool) error {
	s.account.notify()
	return s.UserSession.Poll(w, allowExpunge)
}

// Idle implements imapserver.Session. That of the store is blind to what happens
// between the last command and its own start, until the next change wakes it.
func (s *imapSession) Idle(w *imapserver.UpdateWriter, stop <-chan struct{}) error {
	for {
		changed := s.account.changes() // before looking, so that nothing is missed
		if err := s.UserSession.Poll(w, true); err != nil {
			return err
		}
		select {
		case <-changed:
		case <-stop:
			return nil
		}
	}
}

// errInbox refuses to take INBOX away.
var errInbox = &imap.Error{
	Type: imap.StatusResponseTypeNo,
	Code: imap.ResponseCodeCannot,
	Text: "INBOX can be neither deleted nor renamed",
}
