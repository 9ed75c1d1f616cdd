package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2/imapclient"
	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
	"go.uber.org/goleak"

	"mailreeve/certs"
	"mailreeve/demo"
	"mailreeve/events"
)

// site is a small mail provider: backends, an authority, and the program before
// them, as a process of its own.
type site struct {
	t        *testing.T
	dir      string
	ca       *certs.Authority
	backends *demo.Backends
	out, log *transcript
	process  *exec.Cmd
	exited   chan struct{}
}

// listeners of every site, each on an address of its own, so that the system
// can choose the ports.
var listeners = []string{
	"{ name: imaps, address: '127.0.0.1:0', protocol: imap, tls: implicit }",
	"{ name: imap, address: '127.0.0.2:0', protocol: imap, tls: starttls }",
	"{ name: pop3s, address: '127.0.0.3:0', protocol: pop3, tls: implicit }",
	"{ name: pop3, address: '127.0.0.4:0', protocol: pop3, tls: starttls }",
	"{ name: submissions, address: '127.0.0.5:0', protocol: submission, tls: implicit }",
	"{ name: submission, address: '127.0.0.6:0', protocol: submission, tls: starttls }",
}

const rest = `
log: { level: info, format: json }
drain: { goodbye: 0s, deadline: 5s }
`

// newSite makes all but the program.
func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{t: t, dir: t.TempDir(), out: newTranscript(), log: newTranscript(), exited: make(chan struct{})}
	var err error
	if s.ca, err = certs.NewAuthority("Test authority"); err != nil {
		t.Fatal(err)
	}
	if s.backends, err = demo.Start(demo.Options{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.backends.Close() })
	s.certify(certs.Order{})
	s.configure(listeners, rest)
	return s
}

// certify gets a new certificate for the names of the site, into its file.
func (s *site) certify(o certs.Order) {
	s.t.Helper()
	o.Hosts = []string{"imap.example.org", "pop.example.org", "smtp.example.org"}
	cert, err := s.ca.Issue(o)
	if err == nil {
		err = certs.Write(cert, certs.Pair{Cert: s.path("mail.pem")})
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

// configure writes the configuration.
func (s *site) configure(listeners []string, rest string) {
	s.t.Helper()
	s.write("mailreeve.yaml", fmt.Sprintf(`version: 1
hostname: mail.example.org
brands:
  - name: example
    language: en
    help: https://help.example.org
    hosts: { imap: [imap.example.org], pop3: [pop.example.org], submission: [smtp.example.org] }
listeners:
  - %s
certificates: { files: [{ cert: mail.pem }] }
backends:
  imap: { addresses: ['%v'], tls: off }
  pop3: { addresses: ['%v'], tls: off }
  submission: { addresses: ['%v'], tls: off }
limits: { connections: 1000 }
`, strings.Join(listeners, "\n  - "), s.backends.IMAP, s.backends.POP3, s.backends.Submission)+rest)
}

func (s *site) path(name string) string { return filepath.Join(s.dir, name) }

func (s *site) write(name, text string) {
	s.t.Helper()
	if err := os.WriteFile(s.path(name), []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// run starts the program and waits until it serves.
func (s *site) run(env ...string) {
	s.t.Helper()
	s.start(env, []string{"run", "-c", s.path("mailreeve.yaml")})
	s.log.await(s.t, "policy in force")
}

// start starts a command line, on a terminal if there is one.
func (s *site) start(env, args []string, terminal ...*os.File) {
	s.t.Helper()
	s.process = exec.Command("mailreeve", args...)
	s.process.Env = append(os.Environ(), env...)
	s.process.Stdout, s.process.Stderr = s.out, s.log
	if len(terminal) > 0 {
		s.process.Stdin, s.process.Stdout = terminal[0], terminal[0]
	}
	s.launch()
}

// launch starts the process, which ends with the test at the latest.
func (s *site) launch() {
	s.t.Helper()
	if err := s.process.Start(); err != nil {
		s.t.Fatal(err)
	}
	go func() {
		s.process.Wait()
		close(s.exited)
	}()
	s.t.Cleanup(func() {
		s.process.Process.Kill()
		<-s.exited
		if s.t.Failed() {
			s.t.Logf("the program said:\n%s%s", s.out, s.log)
		}
	})
}

func (s *site) signal(sig syscall.Signal) {
	s.t.Helper()
	if err := s.process.Process.Signal(sig); err != nil {
		s.t.Fatal(err)
	}
}

// ends waits for the program's end, which must be a good one.
func (s *site) ends() {
	s.t.Helper()
	select {
	case <-s.exited:
	case <-time.After(patience):
		s.t.Fatal("the program does not end")
	}
	if code := s.process.ProcessState.ExitCode(); code != 0 {
		s.t.Errorf("exit code %d", code)
	}
}

// reload sends SIGHUP and waits for the outcome, which it returns.
func (s *site) reload() string {
	s.t.Helper()
	s.log.forget()
	s.signal(syscall.SIGHUP)
	return s.log.await(s.t, "the new configuration is (not )?in force")
}

var address = regexp.MustCompile(`"listener":"([a-z0-9]+)","address":"([0-9.:]+)"`)

// dial reaches a listener, whose address the log told.
func (s *site) dial(listener string) net.Conn {
	s.t.Helper()
	at := ""
	for _, m := range address.FindAllStringSubmatch(s.log.whole(), -1) {
		if m[1] == listener {
			at = m[2]
		}
	}
	conn, err := net.DialTimeout("tcp", at, patience)
	if err != nil {
		s.t.Fatalf("listener %s: %v", listener, err)
	}
	s.t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	return conn
}

func (s *site) tls(name string) *tls.Config {
	return &tls.Config{RootCAs: s.ca.Pool(), ServerName: name}
}

// secure reaches a listener of implicit TLS.
func (s *site) secure(listener, name string) *tls.Conn {
	s.t.Helper()
	conn := tls.Client(s.dial(listener), s.tls(name))
	if err := conn.Handshake(); err != nil {
		s.t.Fatalf("listener %s: %v", listener, err)
	}
	return conn
}

// event waits for the event of a session that ended on a listener.
func (s *site) event(file, listener string, which func(events.Session) bool) (found events.Session) {
	s.t.Helper()
	err := until(func() error {
		data, err := os.ReadFile(s.path(file))
		if err != nil {
			return err
		}
		for line := range bytes.Lines(data) {
			var e events.Session
			if err := json.Unmarshal(line, &e); err != nil {
				return fmt.Errorf("%w in %s", err, line)
			}
			if e.Listener == listener && which(e) {
				found = e
				return nil
			}
		}
		return fmt.Errorf("no such event of %s in:\n%s", listener, data)
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return found
}

// talk is a conversation in lines.
type talk struct {
	t    *testing.T
	conn net.Conn
	r    *bufio.Reader
}

func newTalk(t *testing.T, conn net.Conn) *talk { return &talk{t, conn, bufio.NewReader(conn)} }

func (c *talk) say(format string, args ...any) {
	c.t.Helper()
	if _, err := fmt.Fprintf(c.conn, format+"\r\n", args...); err != nil {
		c.t.Fatal(err)
	}
}

// hear reads up to a line that matches, and returns it.
func (c *talk) hear(pattern string) string {
	c.t.Helper()
	for {
		line, err := c.r.ReadString('\n')
		if regexp.MustCompile(pattern).MatchString(line) {
			return line
		}
		if err != nil {
			c.t.Fatalf("waiting for %s: %v", pattern, err)
		}
	}
}

// hangsUp reads until the other side closes, and closes too.
func (c *talk) hangsUp() {
	c.t.Helper()
	if _, err := io.Copy(io.Discard, c.r); err != nil {
		c.t.Errorf("instead of an end: %v", err)
	}
	c.conn.Close()
}

// idle logs in and goes to sleep.
func (s *site) idle() *talk {
	s.t.Helper()
	c := newTalk(s.t, s.secure("imaps", "imap.example.org"))
	c.say("a LOGIN anna demo")
	c.hear("^a OK")
	c.say("b SELECT INBOX")
	c.hear("^b OK")
	c.say("c IDLE")
	c.hear(`^\+`)
	return c
}

// transcript is what a program says, line by line.
type transcript struct {
	mu    sync.Mutex
	text  strings.Builder
	from  int           // where await begins
	grown chan struct{} // closed and replaced when there is more
}

func newTranscript() *transcript { return &transcript{grown: make(chan struct{})} }

func (w *transcript) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.text.Write(b)
	close(w.grown)
	w.grown = make(chan struct{})
	return len(b), nil
}

func (w *transcript) whole() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.String()
}

func (w *transcript) String() string { return w.whole() }

// forget makes await look only at what comes from now on.
func (w *transcript) forget() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.from = w.text.Len()
}

// await waits for a line that matches, and returns it.
func (w *transcript) await(t *testing.T, pattern string) string {
	t.Helper()
	line := regexp.MustCompile("(?m)^.*" + pattern + ".*\n")
	deadline := time.After(patience)
	for {
		w.mu.Lock()
		found, grown := line.FindString(w.text.String()[w.from:]), w.grown
		w.mu.Unlock()
		if found != "" {
			return found
		}
		select {
		case <-grown:
		case <-deadline:
			t.Fatalf("waited in vain for %q in:\n%s", pattern, w)
		}
	}
}

// Mail handed in on either port of submission is read by IMAP and POP3, each
// through both kinds of TLS, and every session leaves its event.
func TestMailGoesRound(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.run()
	send := func(c *smtp.Client, err error, subject string) {
		t.Helper()
		if err == nil {
			err = errors.Join(c.Auth(sasl.NewPlainClient("", "anna@demo.example", demo.Password)),
				c.SendMail("anna@demo.example", []string{"bert@demo.example"}, strings.NewReader("Subject: "+subject+"\r\n\r\nHello\r\n")),
				c.Quit())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	send(smtp.NewClient(s.secure("submissions", "smtp.example.org")), nil, "by implicit TLS")
	c, err := smtp.NewClientStartTLS(s.dial("submission"), s.tls("smtp.example.org"))
	send(c, err, "by STARTTLS")

	// bert has three messages at first.
	starttls, err := imapclient.NewStartTLS(s.dial("imap"), &imapclient.Options{TLSConfig: s.tls("imap.example.org")})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []*imapclient.Client{imapclient.New(s.secure("imaps", "imap.example.org"), nil), starttls} {
		if err := c.Login("bert", demo.Password).Wait(); err != nil {
			t.Fatal(err)
		}
		if box, err := c.Select("INBOX", nil).Wait(); err != nil || box.NumMessages != 5 {
			t.Errorf("%+v, %v", box, err)
		}
		if err := c.Logout().Wait(); err != nil {
			t.Error(err)
		}
		c.Close()
	}
	p := newTalk(t, s.secure("pop3s", "pop.example.org"))
	p.say("USER bert\r\nPASS demo\r\nRETR 4\r\nRETR 5\r\nQUIT")
	p.hear("^Subject: by implicit TLS")
	p.hear("^Subject: by STARTTLS")
	p.hangsUp()
	plain := newTalk(t, s.dial("pop3"))
	plain.hear(`^\+OK`)
	plain.say("STLS")
	plain.hear(`^\+OK`)
	p = newTalk(t, tls.Client(plain.conn, s.tls("pop.example.org")))
	p.say("USER bert\r\nPASS demo\r\nSTAT\r\nQUIT")
	p.hear(`^\+OK 5 `)
	p.hangsUp()

	for _, want := range []struct{ listener, protocol, entry, account, host, form string }{
		{"submissions", "submission", "implicit", "anna@demo.example", "smtp.example.org", "address"},
		{"submission", "submission", "starttls", "anna@demo.example", "smtp.example.org", "address"},
		{"imaps", "imap", "implicit", "bert", "imap.example.org", "bare"},
		{"imap", "imap", "starttls", "bert", "imap.example.org", "bare"},
		{"pop3s", "pop3", "implicit", "bert", "pop.example.org", "bare"},
		{"pop3", "pop3", "starttls", "bert", "pop.example.org", "bare"},
	} {
		e := s.event("events.jsonl", want.listener, func(events.Session) bool { return true })
		if e.V != 1 || e.Kind != "session" || e.Protocol != want.protocol || e.Entry != want.entry || e.TLS != "1.3" ||
			e.Account != want.account || e.UserForm != want.form || e.SNI != want.host || e.Host != "canonical" || e.Brand != "example" ||
			!e.Verified || e.Exposed || e.Attempts != 1 || e.Refused != "" || e.Action != "pass" || e.By != nil ||
			e.BytesIn == 0 || e.BytesOut == 0 || e.Backend == "" || len(e.End) != 2 || e.End[1] != 'R' || len(e.ID) != 12 || !e.IP.IsLoopback() {
			t.Errorf("%s: %+v", want.listener, e)
		}
	}
	if strings.Contains(s.log.whole(), demo.Password+`"`) {
		t.Error("the log holds a password")
	}
}

// SIGHUP gives new sessions a new certificate, while those that there are go on.
func TestReload(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.run()
	first := s.secure("imaps", "imap.example.org").ConnectionState().PeerCertificates[0]
	idle := s.idle()
	s.certify(certs.Order{})
	if line := s.reload(); strings.Contains(line, "not") {
		t.Fatal(line)
	}
	second := s.secure("imaps", "imap.example.org").ConnectionState().PeerCertificates[0]
	if second.Equal(first) {
		t.Error("the old certificate is still served")
	}

	// A file with mistakes: each is told with its place, and the old one stays in force.
	s.write("mail.pem", "no certificate\n")
	if line := s.reload(); !strings.Contains(line, "the new configuration is not in force; the old one still is") {
		t.Error(line)
	}
	s.log.await(t, `"level":"error".*`+regexp.QuoteMeta(s.path("mailreeve.yaml")+`:15:33: certificates.files[0].cert: `+s.path("mail.pem")+`: it is not in PEM form; `))
	s.certify(certs.Order{})
	s.configure(append(listeners, "{ name: more, adress: '127.0.0.7:0' }"), rest)
	if line := s.reload(); !strings.Contains(line, `"problems":4`) {
		t.Error(line)
	}
	s.log.await(t, regexp.QuoteMeta(s.path("mailreeve.yaml")+`:15:19: listeners[6].adress: there is no such key; did you mean address?`))
	if third := s.secure("imaps", "imap.example.org").ConnectionState().PeerCertificates[0]; !third.Equal(second) {
		t.Error("something of a broken configuration is in force")
	}

	// A file that is gone, and a port that somebody else has.
	if err := os.Rename(s.path("mailreeve.yaml"), s.path("away.yaml")); err != nil {
		t.Fatal(err)
	}
	if line := s.reload(); !strings.Contains(line, "no such file or directory") || !strings.Contains(line, `"hint":"`) {
		t.Error(line)
	}
	taken := s.backends.IMAP.String()
	s.configure(append(listeners, "{ name: more, address: '"+taken+"', protocol: imap, tls: implicit }"), rest)
	if line := s.reload(); !strings.Contains(line, "cannot listen on "+taken) || !strings.Contains(line, "`ss -ltnp` names it") {
		t.Error(line)
	}

	// Through all this, the session that there was has gone on.
	if err := s.backends.Append("anna", []byte("Subject: Awake?\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	idle.hear(`^\* 5 EXISTS`)
	idle.say("DONE")
	idle.hear("^c OK")
}

// SIGHUP opens and closes listeners; the others stay as they are.
func TestReloadListeners(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.run()
	idle := s.idle()
	gone := s.dial("pop3").RemoteAddr().String()
	more := append([]string{"{ name: more, address: '127.0.0.8:0', protocol: imap, tls: implicit }"}, listeners[:3]...)
	s.configure(more, rest)
	s.reload()
	s.secure("more", "imap.example.org")
	if lines := s.log.whole(); strings.Count(lines, `"listener":"imaps"`) != 1 || strings.Count(lines, `"no longer listening"`) != 3 {
		t.Error("the log tells not just what changed")
	}
	if conn, err := net.Dial("tcp", gone); err == nil {
		conn.Close()
		t.Error("the old listener is still open")
	}
	idle.say("DONE")
	idle.hear("^c OK")

	// What cannot change while it runs is told each time, not just once.
	elsewhere := rest + "events: { file: elsewhere.jsonl }\n"
	for range 2 {
		s.configure(more, elsewhere)
		s.reload()
		s.log.await(t, "events, log.format and outreach take effect at the next start")
	}
	s.configure(more, rest)
	s.reload()
	s.log.mu.Lock()
	since := s.log.text.String()[s.log.from:]
	s.log.mu.Unlock()
	if strings.Contains(since, "next start") {
		t.Error("told of a change where there is none")
	}
}

func TestReloadLogLevel(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.run()
	session := func() {
		c := newTalk(t, s.secure("imaps", "imap.example.org"))
		c.say("a LOGOUT")
		c.hangsUp()
	}
	session()
	s.event("events.jsonl", "imaps", func(events.Session) bool { return true })
	if strings.Contains(s.log.whole(), `"level":"debug"`) {
		t.Error("told what was not asked")
	}
	s.configure(listeners, strings.Replace(rest, "info", "debug", 1))
	s.reload()
	session()
	s.log.await(t, `"level":"debug".*session ended`)
	s.configure(listeners, strings.Replace(rest, "info", "error", 1))
	s.log.forget()
	s.signal(syscall.SIGHUP) // of which an error log says nothing
	if err := until(func() error {
		s.log.forget()
		session()
		s.log.mu.Lock()
		defer s.log.mu.Unlock()
		if lines := s.log.text.String()[s.log.from:]; lines != "" {
			return errors.New(lines)
		}
		return nil
	}); err != nil {
		t.Errorf("still told %v", err)
	}
}

// After logrotate has renamed the file, SIGHUP makes a new one.
func TestEventLogIsOpenedAnew(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.run()
	first := newTalk(t, s.secure("imaps", "imap.example.org"))
	first.say("a LOGOUT")
	first.hangsUp()
	old := s.event("events.jsonl", "imaps", func(events.Session) bool { return true })
	if err := os.Rename(s.path("events.jsonl"), s.path("events.jsonl.1")); err != nil {
		t.Fatal(err)
	}
	s.reload()
	second := newTalk(t, s.secure("pop3s", "pop.example.org"))
	second.say("QUIT")
	second.hangsUp()
	s.event("events.jsonl", "pop3s", func(events.Session) bool { return true })
	s.event("events.jsonl.1", "imaps", func(e events.Session) bool { return e.ID == old.ID })
	info, err := os.Stat(s.path("events.jsonl"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if data, err := os.ReadFile(s.path("events.jsonl")); err != nil || bytes.Count(data, []byte("\n")) != 1 {
		t.Errorf("%s, %v", data, err)
	}
}

// An expired certificate is told and served, whatever the check says: programs
// that ask their user still work.
func TestRunsWithAnExpiredCertificate(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.certify(certs.Order{NotBefore: time.Now().AddDate(-1, 0, 0), NotAfter: time.Now().AddDate(0, -1, 0)})
	s.run()
	s.log.await(t, `"level":"warn".*:15:33: warning: certificates.files\[0\].cert: .*certificate expired on .*; renew it`)
	conn := tls.Client(s.dial("imaps"), &tls.Config{InsecureSkipVerify: true})
	if err := conn.Handshake(); err != nil {
		t.Error(err)
	}
}

// SIGTERM tells idle sessions goodbye and ends the program.
func TestDrain(t *testing.T) {
	t.Parallel()
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run(sig.String(), func(t *testing.T) {
			t.Parallel()
			drain(t, sig)
		})
	}
}

func drain(t *testing.T, sig syscall.Signal) {
	s := newSite(t)
	s.run()
	idle := s.idle()
	waiting := newTalk(t, s.secure("pop3s", "pop.example.org"))
	waiting.hear(`^\+OK`)
	address := waiting.conn.RemoteAddr().String()
	s.signal(sig)
	idle.hear(`^\* BYE`)
	idle.hangsUp()
	waiting.hear(`^-ERR \[SYS/TEMP\]`)
	waiting.conn.Close()
	s.ends()
	s.log.await(t, "drained")
	if _, err := net.Dial("tcp", address); err == nil {
		t.Error("it still listens")
	}
	e := s.event("events.jsonl", "imaps", func(events.Session) bool { return true })
	if e.End != "DR" || !e.Verified {
		t.Errorf("%+v", e)
	}
}

// A second signal cuts what the first would have waited for.
func TestSecondSignalCuts(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.configure(listeners, strings.Replace(rest, "goodbye: 0s, deadline: 5s", "goodbye: 1h, deadline: 2h", 1))
	s.run()
	idle := s.idle()
	s.signal(syscall.SIGTERM)
	s.log.await(t, `draining: no new sessions.*"sessions":1`)
	s.signal(syscall.SIGHUP) // which is none of its business now
	s.signal(syscall.SIGTERM)
	s.log.await(t, `cutting the sessions that are left.*"sessions":1`)
	s.ends()
	io.Copy(io.Discard, idle.r)
	if e := s.event("events.jsonl", "imaps", func(events.Session) bool { return true }); e.End != "DR" {
		t.Errorf("%+v", e)
	}
}

// systemd is told what the program does.
func TestTellsSystemd(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	// A path of a socket is short (unix(7)), that of a test's directory may not be.
	dir, err := os.MkdirTemp("", "notify")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "s"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	told := func(want string) {
		t.Helper()
		b := make([]byte, 1000)
		socket.SetReadDeadline(time.Now().Add(patience))
		if n, err := socket.Read(b); err != nil || string(b[:n]) != want {
			t.Errorf("told %q, %v, want %s", b[:n], err, want)
		}
	}
	s.run("NOTIFY_SOCKET=" + filepath.Join(dir, "s"))
	told("READY=1")
	s.signal(syscall.SIGHUP)
	told("RELOADING=1")
	told("READY=1")
	s.signal(syscall.SIGTERM)
	told("STOPPING=1")
	s.ends()
}

// demo starts the demo in the site's directory, and returns where to find the
// address of a listener.
func (s *site) demo(env []string, terminal ...*os.File) (port func(listener string) string) {
	s.t.Helper()
	ports, err := freePorts(4)
	if err != nil {
		s.t.Fatal(err)
	}
	args := []string{"demo", "--dir", s.path("demo")}
	addresses := map[string]string{}
	for i, l := range demoListeners(new(demoPorts)) {
		args = append(args, "--"+l.flag, fmt.Sprint(ports[i]))
		addresses[l.name] = fmt.Sprintf("127.0.0.1:%d", ports[i])
	}
	s.start(env, args, terminal...)
	s.out.await(s.t, "what became of it")
	return func(listener string) string { return addresses[listener] }
}

// trusted are the authorities of the demo.
func (s *site) trusted() *x509.CertPool {
	s.t.Helper()
	data, err := os.ReadFile(s.path("demo/ca.pem"))
	pool := x509.NewCertPool()
	if err != nil || !pool.AppendCertsFromPEM(data) {
		s.t.Fatalf("%s, %v", data, err)
	}
	return pool
}

// The demo leaves nothing behind in its process: no goroutine, no socket, no file.
func TestDemoLeavesNothingBehind(t *testing.T) {
	t.Cleanup(func() { goleak.VerifyNone(t) })
	s := &site{t: t, dir: t.TempDir(), out: newTranscript(), log: newTranscript()}
	t.Setenv("TMPDIR", s.dir)
	ports, err := freePorts(4)
	if err != nil {
		t.Fatal(err)
	}
	args := []string{"demo"}
	for i, l := range demoListeners(new(demoPorts)) {
		args = append(args, "--"+l.flag, fmt.Sprint(ports[i]))
	}
	code := make(chan int)
	go func() { code <- run(args, s.out, s.log) }()
	s.out.await(t, "what became of it") // from then on, signals are the demo's
	for _, port := range ports[:3] {
		conn, err := tls.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port), &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		c := newTalk(t, conn)
		c.hear("^.")
		c.say("AUTH PLAIN AGFubmEAZGVtbw==") // a login, or not, by protocol
		c.hear("^.")
		defer conn.Close() // left open until the demo has ended
	}
	syscall.Kill(os.Getpid(), syscall.SIGHUP)
	syscall.Kill(os.Getpid(), syscall.SIGTERM)
	select {
	case got := <-code:
		if got != 0 || s.log.whole() != "" {
			t.Errorf("exit code %d, %s", got, s.log)
		}
	case <-time.After(patience):
		t.Fatal("the demo does not end")
	}
	if left, err := os.ReadDir(s.dir); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}
