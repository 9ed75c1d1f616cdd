package main

// The driver's side of a session. Every reply is read and checked.

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"
)

// host is the name that clients ask for.
const host = "mail.example.test"

// patience is how long the driver waits for one session's steps before it calls them failed.
const patience = 90 * time.Second

// endpoints are where clients reach a proxy. A port of 0 is not served.
type endpoints struct {
	IMAPS, IMAP, POP3S, Submissions int
}

// clients makes sessions through one proxy.
type clients struct {
	at    endpoints
	roots *x509.CertPool
}

// client is one session.
type client struct {
	net.Conn
	r   *bufio.Reader
	tag int
}

// tlsConfig is what all clients offer: one version, one group and one cipher suite that all
// proxies have, lest the choice of theirs be what is compared.
func (cs *clients) tlsConfig(cache tls.ClientSessionCache) *tls.Config {
	return &tls.Config{
		ServerName: host, RootCAs: cs.roots, ClientSessionCache: cache,
		MinVersion: tls.VersionTLS13, CurvePreferences: []tls.CurveID{tls.X25519},
	}
}

// dial connects from one of many addresses, since the ports of one do not suffice.
func dial(ctx context.Context, port, number int) (net.Conn, error) {
	d := net.Dialer{Timeout: patience, LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(1+number%200))}}
	c, err := d.DialContext(ctx, "tcp4", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return nil, err
	}
	return c, c.SetDeadline(time.Now().Add(patience))
}

// implicit is a session on a port of implicit TLS, its handshake done.
func (cs *clients) implicit(ctx context.Context, port, number int, cache tls.ClientSessionCache) (*client, error) {
	c, err := dial(ctx, port, number)
	if err != nil {
		return nil, err
	}
	return cs.secure(c, cache)
}

func (cs *clients) secure(c net.Conn, cache tls.ClientSessionCache) (*client, error) {
	t := tls.Client(c, cs.tlsConfig(cache))
	if err := t.Handshake(); err != nil {
		c.Close()
		return nil, err
	}
	if s := t.ConnectionState(); s.CipherSuite != tls.TLS_AES_128_GCM_SHA256 {
		c.Close()
		return nil, fmt.Errorf("the proxy chose %s, and the others TLS_AES_128_GCM_SHA256", tls.CipherSuiteName(s.CipherSuite))
	}
	return newClient(t), nil
}

func newClient(c net.Conn) *client { return &client{Conn: c, r: bufio.NewReaderSize(c, 4096)} }

// more gives the session time for its next steps.
func (c *client) more() { c.SetDeadline(time.Now().Add(patience)) }

// hear reads a line that must begin so.
func (c *client) hear(begin string) (string, error) {
	line, err := c.r.ReadString('\n')
	if err != nil {
		return "", fmt.Errorf("waiting for %q: %w", begin, err)
	}
	line = strings.TrimRight(line, "\r\n")
	if !strings.HasPrefix(line, begin) {
		return "", fmt.Errorf("%q came in place of %q", line, begin)
	}
	return line, nil
}

// ask sends a line and hears the answer to it.
func (c *client) ask(begin, format string, args ...any) (string, error) {
	if _, err := fmt.Fprintf(c, format+"\r\n", args...); err != nil {
		return "", err
	}
	return c.hear(begin)
}

// steps are lines, and what each answer must begin with.
func (c *client) steps(steps [][2]string) error {
	for _, step := range steps {
		if _, err := c.ask(step[1], "%s", step[0]); err != nil {
			return err
		}
	}
	return nil
}

// reply reads up to the reply to the last command, which must be OK.
func (c *client) reply() (string, error) {
	tag := fmt.Sprintf("a%d ", c.tag)
	for {
		line, err := c.r.ReadString('\n')
		if err != nil {
			return "", fmt.Errorf("waiting for the reply to %s: %w", tag, err)
		}
		if rest, ok := strings.CutPrefix(line, tag); ok {
			if !strings.HasPrefix(rest, "OK") {
				return "", fmt.Errorf("reply %q", line)
			}
			return strings.TrimRight(rest, "\r\n"), nil
		}
		if !strings.HasPrefix(line, "* ") {
			return "", fmt.Errorf("%q came in place of %q", line, tag)
		}
	}
}

// command sends an IMAP command and waits for its reply.
func (c *client) command(text string) (string, error) {
	c.tag++
	if _, err := fmt.Fprintf(c, "a%d %s\r\n", c.tag, text); err != nil {
		return "", err
	}
	return c.reply()
}

func user(number int) string { return fmt.Sprintf("user%d@example.test", number) }

// login greets and logs in.
func (c *client) login(number int) error {
	if _, err := c.hear("* OK"); err != nil {
		return err
	}
	_, err := c.command("LOGIN " + user(number) + " " + password)
	return err
}

// logout ends the session and waits until the proxy has closed it.
func (c *client) logout() error {
	if _, err := c.command("LOGOUT"); err != nil {
		return err
	}
	return c.ended()
}

// ended waits until the proxy has closed the session.
func (c *client) ended() error {
	if b, err := c.r.ReadByte(); err != io.EOF {
		return fmt.Errorf("after the goodbye came %q and %v in place of the end", b, err)
	}
	return c.Close()
}

// imap is a session that has logged in.
func (cs *clients) imap(ctx context.Context, number int, cache tls.ClientSessionCache) (*client, error) {
	c, err := cs.implicit(ctx, cs.at.IMAPS, number, cache)
	if err != nil {
		return nil, err
	}
	if err := c.login(number); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// loginSession is a session on the port of implicit TLS: LOGIN, LOGOUT.
func (cs *clients) loginSession(ctx context.Context, number int) error {
	c, err := cs.imap(ctx, number, nil)
	if err != nil {
		return err
	}
	defer c.Close()
	return c.logout()
}

// resumedSession is that with a ticket from the session before.
func (cs *clients) resumedSession(ctx context.Context, number int, cache tls.ClientSessionCache) (resumed bool, err error) {
	c, err := cs.imap(ctx, number, cache)
	if err != nil {
		return false, err
	}
	defer c.Close()
	return c.Conn.(*tls.Conn).ConnectionState().DidResume, c.logout()
}

// starttlsSession is a session on the port of STARTTLS: LOGIN, LOGOUT.
func (cs *clients) starttlsSession(ctx context.Context, number int) error {
	raw, err := dial(ctx, cs.at.IMAP, number)
	if err != nil {
		return err
	}
	defer raw.Close()
	clear := newClient(raw)
	if _, err := clear.hear("* OK"); err != nil {
		return err
	}
	if _, err := clear.command("STARTTLS"); err != nil {
		return err
	}
	c, err := cs.secure(raw, nil)
	if err != nil {
		return err
	}
	if _, err := c.command("LOGIN " + user(number) + " " + password); err != nil {
		return err
	}
	return c.logout()
}

// pop3Session logs in, asks STAT, and quits.
func (cs *clients) pop3Session(ctx context.Context, number int) error {
	c, err := cs.implicit(ctx, cs.at.POP3S, number, nil)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.hear("+OK"); err != nil {
		return err
	}
	err = c.steps([][2]string{
		{"USER " + user(number), "+OK"}, {"PASS " + password, "+OK"},
		{"STAT", fmt.Sprintf("+OK 1 %d", payloadSize)}, {"QUIT", "+OK"},
	})
	if err != nil {
		return err
	}
	return c.ended()
}

// mail is a message of 10 KB, in lines.
var mail = sync.OnceValue(func() []byte {
	text := base64.StdEncoding.EncodeToString(payload()[:8000])
	b := []byte("From: <a@example.test>\r\nTo: <b@example.test>\r\nSubject: 10 KB\r\n\r\n")
	for len(b) < 10_000 {
		b = append(append(b, text[:76]...), "\r\n"...)
		text = text[76:]
	}
	return b
})

// submissionSession logs in and submits the mail.
func (cs *clients) submissionSession(ctx context.Context, number int) error {
	c, err := cs.implicit(ctx, cs.at.Submissions, number, nil)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.hear("220 "); err != nil {
		return err
	}
	line, err := c.ask("250", "EHLO client.example.test")
	for err == nil && strings.HasPrefix(line, "250-") {
		line, err = c.hear("250")
	}
	if err != nil {
		return err
	}
	response := base64.StdEncoding.EncodeToString([]byte("\x00" + user(number) + "\x00" + password))
	err = c.steps([][2]string{
		{"AUTH PLAIN " + response, "235"}, {"MAIL FROM:<a@example.test>", "250"}, {"RCPT TO:<b@example.test>", "250"}, {"DATA", "354"},
	})
	if err != nil {
		return err
	}
	if _, err := c.Write(mail()); err != nil {
		return err
	}
	if _, err := c.ask(fmt.Sprintf("250 2.0.0 %d bytes %08x", len(mail()), sum(mail())), "."); err != nil {
		return err
	}
	if _, err := c.ask("221", "QUIT"); err != nil {
		return err
	}
	return c.ended()
}

// errBytes says that other bytes came than were sent.
var errBytes = errors.New("bytes are lost or wrong")

// fetch reads a part of the message into buf, which holds it, and compares its sum.
func (c *client) fetch(offset int, buf []byte) error {
	c.tag++
	begin := fmt.Sprintf("* 1 FETCH (BODY[]<%d> {%d}", offset, len(buf))
	if _, err := c.ask(begin, "a%d FETCH 1 BODY.PEEK[]<%d.%d>", c.tag, offset, len(buf)); err != nil {
		return err
	}
	if _, err := io.ReadFull(c.r, buf); err != nil {
		return fmt.Errorf("fetching %d bytes: %w", len(buf), err)
	}
	if _, err := c.hear(")"); err != nil {
		return err
	}
	if got, want := sum(buf), sum(payload()[offset:offset+len(buf)]); got != want {
		return fmt.Errorf("%w: fetched %d with the sum %08x in place of %08x", errBytes, len(buf), got, want)
	}
	_, err := c.reply()
	return err
}

// append sends a part of the message, and compares the sum that the backend answers.
func (c *client) append(offset, size int) error {
	part := payload()[offset : offset+size]
	c.tag++
	if _, err := fmt.Fprintf(c, "a%d APPEND INBOX {%d+}\r\n", c.tag, size); err != nil {
		return err
	}
	if _, err := c.Write(part); err != nil {
		return fmt.Errorf("appending %d bytes: %w", size, err)
	}
	if _, err := c.Write([]byte("\r\n")); err != nil {
		return err
	}
	got, err := c.reply()
	if want := fmt.Sprintf("OK [APPENDUID 1 1] %d bytes %08x", size, sum(part)); err == nil && got != want {
		return fmt.Errorf("%w: the backend says %q in place of %q", errBytes, got, want)
	}
	return err
}
