// Package demo is a small mail provider for one process: an IMAP, a POP3 and a
// Submission server over one mailbox store in memory. Mailreeve stands in front
// of it in `mailreeve demo` and in tests, so that both show real logins and real
// mail without Dovecot or Postfix. A message handed in by Submission can be read
// by IMAP and POP3, an idle IMAP session hears of it at once, and a message
// deleted by POP3 vanishes from IMAP.
//
// All three speak plaintext and listen on loopback addresses only: TLS is the
// work of the proxy. Nothing is kept when the process ends.
//
// # Standards
//
//   - IMAP (RFC 9051, RFC 3501): the server and store of go-imap, with AUTH=PLAIN
//     and AUTH=LOGIN. Every extension that the store can do is announced; it
//     cannot do ID, SPECIAL-USE, CONDSTORE or QUOTA. INBOX can be neither deleted
//     nor renamed (RFC 9051 section 6.3.6 wants its messages moved instead).
//   - POP3 (RFC 1939): all of it but APOP; with CAPA, PIPELINING and RESP-CODES
//     (RFC 2449), AUTH-RESP-CODE (RFC 3206) and SASL PLAIN and LOGIN (RFC 5034).
//     Not: STLS (RFC 2595), UTF8 and LANG (RFC 6856).
//   - Submission (RFC 6409, RFC 4954): the server of go-smtp, with AUTH PLAIN and
//     LOGIN, 8BITMIME, CHUNKING, SMTPUTF8, SIZE and DSN. A requested success
//     report (RFC 3461 section 5.2) is sent; any other report cannot come to
//     pass, because an unknown recipient is refused at RCPT. The sender address
//     is not compared with the account. Not: STARTTLS, BINARYMIME, and mail to
//     anybody outside [Domain].
//
// # What go-imap does differently
//
// A client that sends ID before its login gets BAD and is cut off: the library
// does not know the command, and putting a parser before its parser would cost
// more than it brings, for Mailreeve answers ID itself. Malformed base64 in
// AUTHENTICATE is called SERVERBUG, and EXAMINE does not stop a STORE.
//
// Three habits are cured here: AUTHENTICATE PLAIN opens with the empty challenge
// that RFC 9051 section 6.2.2 wants, not with "=" (plainServer); a client that
// leaves in the middle of a FETCH leaves no session behind (writeOrClose); and
// IDLE tells what happened just before it too (imapSession.Idle).
//
// # Roads not taken
//
//   - A mailbox store of our own, with POP3 beside IMAP: more code than both
//     servers together. So POP3 is a gateway that holds an IMAP session; see
//     pop.go.
//   - The exclusive lock on the maildrop (RFC 1939 section 4): IMAP would ignore
//     it. A message that another session has removed is reported as gone.
//   - APOP: it needs the password in clear on both sides and buys nothing here.
package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapserver"
	"github.com/emersion/go-imap/v2/imapserver/imapmemserver"
	"github.com/emersion/go-smtp"
	"go.uber.org/zap"
)

const (
	// Domain is the mail domain of all accounts and the servers' own name.
	Domain = "demo.example"
	// Password opens the accounts anna@demo.example and bert@demo.example, which
	// hold a few messages each and answer to their bare names too.
	Password = "demo"
)

// maxMessage limits a message, in Submission as in IMAP APPEND: 50 MiB, the
// largest that providers commonly accept.
const maxMessage = 50 << 20

// Options says how to start the backends. The zero value is ready for use.
type Options struct {
	// IMAP, POP3 and Submission are the listeners to serve, which must be on
	// loopback addresses. Nil means a port of 127.0.0.1 that the system chooses.
	// Start takes them over and closes them, also when it fails.
	IMAP, POP3, Submission net.Listener

	// Log hears of logins and deliveries at debug level and of trouble above it.
	// No password reaches it. Nil means silence.
	Log *zap.Logger
}

// Backends are the three servers and their common mailboxes. All methods may be
// called from several goroutines.
type Backends struct {
	// IMAP, POP3 and Submission are the addresses where the servers listen.
	IMAP, POP3, Submission net.Addr

	log *zap.Logger

	mu       sync.Mutex
	accounts map[string]*account // by canonical name

	imapServer *imapserver.Server
	smtpServer *smtp.Server
	listeners  []*listener

	accepting    sync.WaitGroup // accept loops
	popSessions  sync.WaitGroup
	imapSessions sync.WaitGroup

	close func() error
}

// account is one mailbox owner.
type account struct {
	name string // canonical: lower case, with domain
	user *imapmemserver.User

	mu      sync.Mutex
	changed chan struct{} // closed and replaced when a mailbox may have changed
}

// Start starts the three servers with the accounts anna and bert. The caller
// must call Close.
func Start(opts Options) (*Backends, error) {
	b := &Backends{log: opts.Log, accounts: make(map[string]*account)}
	b.close = sync.OnceValue(b.shutdown)
	if b.log == nil {
		b.log = zap.NewNop()
	}
	err := errors.Join(
		b.listen("IMAP", opts.IMAP, &b.IMAP),
		b.listen("POP3", opts.POP3, &b.POP3),
		b.listen("Submission", opts.Submission, &b.Submission),
	)
	if err == nil {
		err = b.addSamples(time.Now())
	}
	if err != nil {
		for _, l := range b.listeners {
			l.Close()
		}
		return nil, fmt.Errorf("demo: %w", err)
	}

	b.imapServer = b.newIMAPServer()
	b.smtpServer = b.newSMTPServer()
	b.accepting.Go(func() { b.acceptLoop(b.listeners[0], b.serveIMAP) })
	b.accepting.Go(func() { b.acceptLoop(b.listeners[1], b.servePOP3) })
	b.accepting.Go(func() { b.serveSMTP(b.listeners[2]) })
	return b, nil
}

// listen opens the listener of one protocol, or checks the given one, and notes
// its address.
func (b *Backends) listen(protocol string, l net.Listener, addr *net.Addr) error {
	if l == nil {
		var err error
		if l, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			return fmt.Errorf("%s: %w", protocol, err)
		}
	}
	b.listeners = append(b.listeners, &listener{Listener: l, conns: make(map[*conn]struct{})})
	*addr = l.Addr()
	if tcp, ok := l.Addr().(*net.TCPAddr); ok && !tcp.IP.IsLoopback() {
		return fmt.Errorf("%s: %s is no loopback address, and this server speaks plaintext: use 127.0.0.1", protocol, tcp)
	}
	return nil
}

// acceptLoop hands every connection of l to serve, until l is closed.
func (b *Backends) acceptLoop(l net.Listener, serve func(net.Conn)) {
	for {
		c, err := l.Accept()
		switch {
		case err == nil:
			serve(c)
		case errors.Is(err, net.ErrClosed):
			return
		default:
			// Out of descriptors, most likely: they come back.
			b.log.Warn("accept", zap.Stringer("listener", l.Addr()), zap.Error(err))
			time.Sleep(50 * time.Millisecond)
		}
	}
}

// Close ends all sessions, stops the servers and waits for them. Calling it
// again returns the first result.
func (b *Backends) Close() error { return b.close() }

// shutdown first cuts every connection, because go-imap's store keeps a mailbox
// locked while it writes to a client: a reader that has stopped reading would
// hold up the sessions that are waited for here. IMAP is waited for last, since
// POP3 sessions hold IMAP sessions.
func (b *Backends) shutdown() error {
	var errs []error
	for _, l := range b.listeners {
		errs = append(errs, l.Close())
	}
	b.accepting.Wait()
	errs = append(errs, b.smtpServer.Shutdown(context.Background()))
	b.popSessions.Wait()
	errs = append(errs, b.imapServer.Close())
	b.imapSessions.Wait()
	return errors.Join(errs...)
}

// AddAccount adds an account with empty mailboxes. A name without domain gets
// [Domain]; in that domain the bare name opens the mailbox too.
func (b *Backends) AddAccount(name, password string) error {
	a := &account{name: canonical(name), changed: make(chan struct{})}
	if strings.HasPrefix(a.name, "@") {
		return fmt.Errorf("demo: add account %q: no name before the @", name)
	}
	a.user = imapmemserver.NewUser(a.name, password)
	for _, mailbox := range []string{"INBOX", "Drafts", "Sent", "Trash"} {
		if err := errors.Join(a.user.Create(mailbox, nil), a.user.Subscribe(mailbox)); err != nil {
			return fmt.Errorf("demo: add account %q: %s: %w", name, mailbox, err)
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.accounts[a.name] != nil {
		return fmt.Errorf("demo: add account %q: there is one already", name)
	}
	b.accounts[a.name] = a
	return nil
}

// Append puts a message, header and body as they are, into the INBOX of an
// account. Sessions that have it open are told.
func (b *Backends) Append(name string, message []byte) error {
	a := b.account(name)
	if a == nil {
		return fmt.Errorf("demo: append: no account %q", name)
	}
	return a.append(message, time.Now())
}

// append puts a message into INBOX, as if it had arrived at the given time.
func (a *account) append(message []byte, arrived time.Time, flags ...imap.Flag) error {
	options := &imap.AppendOptions{Time: arrived, Flags: flags}
	if _, err := a.user.Append("INBOX", bytes.NewReader(message), options); err != nil {
		return fmt.Errorf("demo: append to %s: %w", a.name, err)
	}
	a.notify()
	return nil
}

// changes returns a channel that is closed at the next change of a mailbox.
func (a *account) changes() <-chan struct{} {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.changed
}

// notify wakes those who wait for a change.
func (a *account) notify() {
	a.mu.Lock()
	defer a.mu.Unlock()
	close(a.changed)
	a.changed = make(chan struct{})
}

// account finds an account by any of its names; nil if there is none.
func (b *Backends) account(name string) *account {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.accounts[canonical(name)]
}

// login checks a name and a password; nil if they open no account. All servers
// ask here.
func (b *Backends) login(protocol, name, password string) *account {
	a := b.account(name)
	if a != nil && a.user.Login(a.name, password) != nil {
		a = nil
	}
	b.log.Debug("login", zap.String("protocol", protocol), zap.String("name", name), zap.Bool("ok", a != nil))
	return a
}

// canonical completes a bare name with the domain. Case does not matter.
func canonical(name string) string {
	name = strings.ToLower(name)
	if !strings.Contains(name, "@") {
		name += "@" + Domain
	}
	return name
}

// stdLog makes a library's log part of ours. Its lines are mostly about
// connections that broke, hence the level.
func stdLog(l *zap.Logger, name string) *log.Logger {
	std, err := zap.NewStdLogAt(l.Named(name), zap.InfoLevel)
	if err != nil {
		panic(err) // the level is unknown to zap: impossible
	}
	return std
}
