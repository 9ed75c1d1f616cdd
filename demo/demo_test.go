package demo_test

import (
	"bufio"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"mailreeve/demo"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds every wait of the tests for something that must come.
const patience = 10 * time.Second

// start starts backends that end with the test.
func start(t *testing.T) *demo.Backends {
	t.Helper()
	b, err := demo.Start(demo.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return b
}

// carla adds an account with the given messages, lines separated by \n.
func carla(t *testing.T, b *demo.Backends, messages ...string) {
	t.Helper()
	if err := b.AddAccount("carla", "pass word "); err != nil {
		t.Fatal(err)
	}
	for _, m := range messages {
		if err := b.Append("carla", []byte(strings.ReplaceAll(m, "\n", "\r\n"))); err != nil {
			t.Fatal(err)
		}
	}
}

// dial opens a connection that ends with the test.
func dial(t *testing.T, addr net.Addr) net.Conn {
	t.Helper()
	c, err := net.Dial(addr.Network(), addr.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return c
}

// script holds a conversation: it sends what follows "C: " and wants what
// follows "S: ", where "..." at the end stands for any rest of the line. "EOF"
// wants the server to close. Indentation does not count.
func script(t *testing.T, addr net.Addr, text string) {
	t.Helper()
	c := dial(t, addr)
	talk(t, c, bufio.NewReader(c), text)
	c.Close()
}

// talk is script on an open connection.
func talk(t *testing.T, c net.Conn, r *bufio.Reader, text string) {
	t.Helper()
	for step := range strings.Lines(text) {
		step = strings.TrimLeft(strings.TrimSuffix(step, "\n"), "\t")
		if step == "" {
			continue
		}
		if line, ok := strings.CutPrefix(step, "C: "); ok {
			if _, err := io.WriteString(c, line+"\r\n"); err != nil {
				t.Fatalf("%s: %v", step, err)
			}
			continue
		}
		got, err := r.ReadString('\n')
		if step == "EOF" {
			if err != io.EOF || got != "" {
				t.Fatalf("want EOF, got %q, %v", got, err)
			}
			continue
		}
		want, ok := strings.CutPrefix(step, "S: ")
		if !ok {
			t.Fatalf("bad step %q", step)
		}
		if err != nil {
			t.Fatalf("want %q: %v", want, err)
		}
		got = strings.TrimSuffix(got, "\r\n")
		if start, open := strings.CutSuffix(want, "..."); got != want && !(open && strings.HasPrefix(got, start)) {
			t.Fatalf("\nwant %q\ngot  %q", want, got)
		}
	}
}

// imapLogin opens an IMAP session that ends with the test.
func imapLogin(t *testing.T, b *demo.Backends, name, password string, options *imapclient.Options) *imapclient.Client {
	t.Helper()
	c := imapclient.New(dial(t, b.IMAP), options)
	t.Cleanup(func() { c.Close() })
	if err := c.Login(name, password).Wait(); err != nil {
		t.Fatal(err)
	}
	return c
}

// inbox reads all messages of an INBOX by IMAP, with CRLF turned into \n.
func inbox(t *testing.T, b *demo.Backends, name, password string) []string {
	t.Helper()
	c := imapLogin(t, b, name, password, nil)
	selected, err := c.Select("INBOX", nil).Wait()
	if err != nil {
		t.Fatal(err)
	}
	if selected.NumMessages == 0 {
		return nil
	}
	whole := &imap.FetchItemBodySection{Peek: true}
	list, err := c.Fetch(imap.SeqSet{{Start: 1}}, &imap.FetchOptions{
		BodySection: []*imap.FetchItemBodySection{whole},
	}).Collect()
	if err != nil {
		t.Fatal(err)
	}
	var texts []string
	for _, m := range list {
		texts = append(texts, strings.ReplaceAll(string(m.FindBodySection(whole)), "\r\n", "\n"))
	}
	return texts
}

func TestGivenListener(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b, err := demo.Start(demo.Options{POP3: l})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if b.POP3.String() != l.Addr().String() {
		t.Errorf("POP3 listens on %s, not on the given %s", b.POP3, l.Addr())
	}
	script(t, l.Addr(), "S: +OK demo.example POP3 server ready")
}

// outside is a listener that claims a public address.
type outside struct{ net.Listener }

func (outside) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 143} }

func TestLoopbackOnly(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, err = demo.Start(demo.Options{IMAP: outside{l}})
	const want = "demo: IMAP: 192.0.2.1:143 is no loopback address, and this server speaks plaintext: use 127.0.0.1"
	if err == nil || err.Error() != want {
		t.Errorf("want %q, got %v", want, err)
	}
	if _, err := l.Accept(); err == nil {
		t.Error("the listener is still open")
	}
}

func TestAddAccount(t *testing.T) {
	b := start(t)
	for name, want := range map[string]string{
		"anna":              `demo: add account "anna": there is one already`,
		"Anna@Demo.Example": `demo: add account "Anna@Demo.Example": there is one already`,
		"":                  `demo: add account "": no name before the @`,
	} {
		if err := b.AddAccount(name, "x"); err == nil || err.Error() != want {
			t.Errorf("want %q, got %v", want, err)
		}
	}
	if err := b.AddAccount("dora@other.example", "secret"); err != nil {
		t.Fatal(err)
	}
	if err := b.Append("dora@other.example", []byte("Subject: x\r\n\r\ny\r\n")); err != nil {
		t.Fatal(err)
	}
	if got := inbox(t, b, "DORA@other.example", "secret"); len(got) != 1 || got[0] != "Subject: x\n\ny\n" {
		t.Errorf("got %q", got)
	}
	if err := b.Append("dora", nil); err == nil {
		t.Error("the bare name of another domain opens an account")
	}
}

// TestCloseEndsSessions closes while sessions are open, among them the worst: an
// IMAP client that has stopped reading, which locks the mailbox, and a POP3 login
// that waits for that lock.
func TestCloseEndsSessions(t *testing.T) {
	b := start(t)
	carla(t, b, "Subject: big\n\n"+strings.Repeat(strings.Repeat("x", 70)+"\n", 400_000))

	stuck := imapclient.New(dial(t, b.IMAP), nil)
	defer stuck.Close()
	if err := stuck.Login("carla", "pass word ").Wait(); err != nil {
		t.Fatal(err)
	}
	if _, err := stuck.Select("INBOX", nil).Wait(); err != nil {
		t.Fatal(err)
	}
	fetch := stuck.Fetch(imap.SeqSetNum(1), &imap.FetchOptions{
		BodySection: []*imap.FetchItemBodySection{{Peek: true}},
	})
	message := fetch.Next() // has begun; nobody reads on
	if message == nil {
		t.Fatal("no message")
	}

	pop := dial(t, b.POP3)
	io.WriteString(pop, "USER carla\r\nPASS pass word \r\n")
	r := bufio.NewReader(pop)
	for _, want := range []string{"+OK demo.example POP3 server ready\r\n", "+OK now the password\r\n"} {
		if got, err := r.ReadString('\n'); got != want {
			t.Fatalf("want %q, got %q, %v", want, got, err)
		}
	}
	smtp := dial(t, b.Submission)
	silent := dial(t, b.IMAP)

	if err := b.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	for _, c := range []net.Conn{pop, smtp, silent} {
		if _, err := io.Copy(io.Discard, c); err != nil && strings.Contains(err.Error(), "timeout") {
			t.Errorf("%s is still open", c.RemoteAddr())
		}
		c.Close()
	}
	if err := b.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
	if _, err := net.Dial("tcp", b.IMAP.String()); err == nil {
		t.Error("IMAP still listens")
	}
	for message.Next() != nil { // lets the client's reader end
	}
}

func TestLog(t *testing.T) {
	core, logged := observer.New(zap.DebugLevel)
	b, err := demo.Start(demo.Options{Log: zap.New(core)})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	carla(t, b)
	script(t, b.POP3, `
		S: +OK ...
		C: USER Carla
		S: +OK ...
		C: PASS wrong secret
		S: -ERR [AUTH] ...
		C: USER Carla
		S: +OK ...
		C: PASS pass word 
		S: +OK ...`)
	logins := logged.FilterMessage("login").All()
	if len(logins) != 2 {
		t.Fatalf("want 2 logins in the log, got %v", logins)
	}
	for i, ok := range []bool{false, true} {
		if m := logins[i].ContextMap(); m["name"] != "Carla" || m["ok"] != ok {
			t.Errorf("login %d is logged as %v", i, m)
		}
	}
	for _, entry := range logged.All() {
		for key, value := range entry.ContextMap() {
			if s, _ := value.(string); strings.Contains(s, "pass word") || strings.Contains(s, "secret") {
				t.Errorf("a password in the log: %s=%q", key, s)
			}
		}
	}
}
