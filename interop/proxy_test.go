package interop

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"net"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
)

// each runs the test once for every hop to the servers: in clear, by STARTTLS, by implicit
// TLS, and with each way to name the client.
func eachHop(t *testing.T, test func(*testing.T, *Rig, *Proxy)) {
	t.Helper()
	rig := StartServers(t)
	native := map[Protocol]string{IMAP: "id", POP3: "xclient", Submission: "xclient"}
	header := map[Protocol]string{IMAP: "proxy", POP3: "proxy", Submission: "proxy"}
	for name, hop := range map[string]Hop{
		"in clear, client named":       {Plain, native},
		"STARTTLS, client named":       {StartTLS, native},
		"implicit TLS, client named":   {Implicit, native},
		"in clear, PROXY header":       {Plain, header},
		"implicit TLS, PROXY header":   {Implicit, header},
		"STARTTLS, client not told of": {StartTLS, nil},
	} {
		t.Run(name, func(t *testing.T) { test(t, rig, rig.StartProxy(t, hop)) })
	}
}

// A customer logs in, by every hop, and the servers log his address and not the proxy's.
func TestProxyNamesTheClient(t *testing.T) {
	const client = "127.0.0.9"
	eachHop(t, func(t *testing.T, rig *Rig, p *Proxy) {
		address := regexp.QuoteMeta(client)
		if strings.Contains(t.Name(), "not_told") {
			address = `127\.0\.0\.1`
		}
		dovecot, postfix, events := rig.DovecotLog.Here(), rig.PostfixLog.Here(), p.Events.Here()

		a := rig.NewAccount(t, "secret")
		k := rig.DialFrom(t, p.IMAPS, client)
		k.Expect(`^\* OK \[CAPABILITY IMAP4rev1 .*AUTH=PLAIN AUTH=LOGIN`)
		k.Ask("a LOGIN "+a.User+" secret", "^a OK ")
		k.Ask("b LOGOUT", "^b OK")
		k.conn.Close()
		dovecot.Wait(t, `imap-login: .*Login: user=<`+a.User+`>.* rip=`+address+`\D`)

		k = rig.DialFrom(t, p.POP3S, client)
		k.Expect(`^\+OK`)
		k.Ask("USER "+a.User, `^\+OK`)
		k.Ask("PASS secret", `^\+OK`)
		k.Ask("QUIT", `^\+OK`)
		k.conn.Close()
		dovecot.Wait(t, `pop3-login: .*Login: user=<`+a.User+`>.* rip=`+address+`\D`)

		k = rig.DialFrom(t, p.Submissions, client)
		k.Expect(`^220 `)
		k.Ask("EHLO pc.kunde.example", `^250 `)
		k.Ask("AUTH PLAIN "+a.SASLPlain(), "^235 ")
		text := "through the proxy"
		k.Send("MAIL FROM:<"+a.User+">", "RCPT TO:<"+a.User+">", "DATA")
		k.Expect("^354 ")
		k.Send(strings.TrimSuffix(Message(a, a, text), "\r\n"), ".")
		k.Expect("^250 ")
		k.Ask("QUIT", "^221 ")
		k.conn.Close()
		postfix.Wait(t, `client=\S*\[`+address+`\].*sasl_username=`+a.User)
		if mail := rig.WaitMail(t, a, text+", once more"); !regexp.MustCompile(`Received: from pc\.kunde\.example \(\S* \[` + address + `\]\)`).MatchString(mail) {
			t.Errorf("the Received line is about somebody else:\n%s", mail)
		}
		for _, protocol := range []string{"imap", "pop3", "submission"} {
			e := p.WaitEvent(t, events, protocol+" of "+a.User, func(e Event) bool { return e.Protocol == protocol && e.Account == a.User })
			if !e.Verified || e.Action != "pass" || e.IP != client || e.Entry != "implicit" || e.TLS != "1.3" || len(e.End) != 2 || e.End[1] != 'R' {
				t.Errorf("event %+v", e)
			}
		}
	})
}

// Every mail program does everything through the proxy.
func TestProxyClients(t *testing.T) {
	rig := StartServers(t)
	p := rig.StartProxy(t, Named)
	for _, c := range Clients {
		for _, entry := range []Entry{StartTLS, Implicit} {
			t.Run(fmt.Sprintf("%s %s", c.Name, entry), func(t *testing.T) {
				t.Parallel()
				a := rig.NewAccount(t, Bert.Password)
				events := p.Events.Here()
				everything(t, rig, c, Login{Endpoint: p.At(c.Protocol, entry), Account: a, CAFile: p.CAFile})
				p.WaitEvent(t, events, "login of "+a.User, func(e Event) bool {
					return e.Account == a.User && e.Verified && e.Action == "pass" && e.Entry == string(entry)
				})
			})
		}
	}
}

// A wrong password is a wrong password, in the words for it, and is no policy's fault.
func TestProxyWrongPassword(t *testing.T) {
	eachHop(t, func(t *testing.T, rig *Rig, p *Proxy) {
		a := rig.NewAccount(t, "right")
		wrong := Account{a.User, "wrong"}
		k := rig.Dial(t, p.IMAPS)
		k.Ask("a LOGIN "+a.User+" wrong", `^a NO \[AUTHENTICATIONFAILED\] `)
		k.Ask("b AUTHENTICATE PLAIN "+wrong.SASLPlain(), `^b NO \[AUTHENTICATIONFAILED\] `)
		k.Ask("c LOGIN "+a.User+" right", `^c OK `)
		k = rig.Dial(t, p.POP3S)
		k.Ask("USER "+a.User, `^\+OK Send`)
		k.Ask("PASS wrong", `^-ERR \[AUTH\] `)
		k.Ask("AUTH PLAIN "+wrong.SASLPlain(), `^-ERR \[AUTH\] `)
		k.Ask("AUTH PLAIN "+a.SASLPlain(), `^\+OK Logged in`)
		k = rig.Dial(t, p.Submissions)
		k.Ask("EHLO pc.kunde.example", `^250 `)
		k.Ask("AUTH PLAIN "+wrong.SASLPlain(), `^535 5\.7\.8 `)
		k.Ask("AUTH PLAIN "+a.SASLPlain(), `^235 `)
	})
}

func TestProxyClientsWrongPassword(t *testing.T) {
	rig := StartServers(t)
	p := rig.StartProxy(t, Named)
	for _, c := range Clients {
		t.Run(c.Name, func(t *testing.T) {
			Require(t, c.Programs...)
			a := rig.NewAccount(t, "right")
			act := c.List
			if c.Send != nil {
				act = c.Send(a, Bert, Message(a, Bert, "never"))
			}
			events := p.Events.Here()
			if out, err := (Login{Endpoint: p.At(c.Protocol, StartTLS), Account: Account{a.User, "wrong"}, CAFile: p.CAFile}).Do(t, act); err == nil {
				t.Errorf("no error:\n%s", out)
			}
			e := p.WaitEvent(t, events, "wrong password", func(e Event) bool { return e.Refused == "credential" })
			if e.Account != "" || e.Verified || e.Action != "pass" {
				t.Errorf("event %+v", e)
			}
		})
	}
}

// After the login a client sees what a direct connection shows, byte for byte.
func TestProxyCapabilities(t *testing.T) {
	rig := StartServers(t)
	p := rig.StartProxy(t, Named)
	a := rig.NewAccount(t, "secret")
	lists := func(imap, pop3 Endpoint) (after, asked, capa string) {
		k := rig.Dial(t, imap)
		after = k.Ask("a LOGIN "+a.User+" secret", `^a OK `)
		after = after[strings.Index(after, "a OK"):]
		asked = k.Ask("b CAPABILITY", `^b OK `)
		k = rig.Dial(t, pop3)
		k.Ask("USER "+a.User, `^\+OK`)
		k.Ask("PASS secret", `^\+OK Logged`)
		capa = k.Ask("CAPA", `^\.$`)
		// Dovecot counts the seconds that a command took.
		return after, regexp.MustCompile(`\(.* secs\)`).ReplaceAllString(asked, ""), capa
	}
	after, asked, capa := lists(p.IMAPS, p.POP3S)
	after2, asked2, capa2 := lists(rig.IMAPS, rig.POP3S)
	if after != after2 || asked != asked2 || capa != capa2 {
		t.Errorf("through the proxy:\n%s%s%s\ndirect:\n%s%s%s", after, asked, capa, after2, asked2, capa2)
	}

	direct := rig.Dial(t, rig.SubmissionStartTLS)
	direct.Ask("EHLO x.example", `^250 `)
	direct.Ask("STARTTLS", `^220 `)
	direct.Secure()
	want := direct.Ask("EHLO x.example", `^250 `)
	for _, line := range strings.Split(strings.TrimSpace(want), "\r\n")[1:] {
		line = line[4:]
		k := rig.Dial(t, p.Submissions)
		got := k.Ask("EHLO x.example", `^250 `)
		ours := strings.HasPrefix(line, "AUTH") || strings.HasPrefix(line, "XCLIENT") || strings.HasPrefix(line, "XFORWARD") || line == "STARTTLS"
		if !ours && !strings.Contains(got, line+"\r\n") {
			t.Errorf("EHLO does not offer %q:\n%s", line, got)
		}
		if strings.Contains(got, "XCLIENT") || strings.Contains(got, "STARTTLS") {
			t.Errorf("EHLO offers too much:\n%s", got)
		}
		k.conn.Close()
	}
}

// A message of 50 MB passes byte for byte, both ways, in all three protocols.
func TestProxyLargeMessage(t *testing.T) {
	rig := StartServers(t)
	p := rig.StartProxy(t, Named)
	a := rig.NewAccount(t, "secret")
	large := largeMessage(a)
	sum := sha256.Sum256(large)

	c := imapThrough(t, p, nil)
	must(t, c.Login(a.User, "secret").Wait())
	appended := c.Append("INBOX", int64(len(large)), nil)
	if _, err := appended.Write(large); err != nil {
		t.Fatal(err)
	}
	must(t, appended.Close())
	if _, err := appended.Wait(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Select("INBOX", nil).Wait(); err != nil {
		t.Fatal(err)
	}
	section := &imap.FetchItemBodySection{Peek: true}
	messages, err := c.Fetch(imap.SeqSetNum(1), &imap.FetchOptions{BodySection: []*imap.FetchItemBodySection{section}}).Collect()
	must(t, err)
	if got := messages[0].FindBodySection(section); sha256.Sum256(got) != sum {
		t.Errorf("IMAP: %d bytes came back changed, of %d", len(got), len(large))
	}

	k := rig.Dial(t, p.POP3S)
	k.Ask("USER "+a.User, `^\+OK`)
	k.Ask("PASS secret", `^\+OK Logged`)
	k.Ask("RETR 1", `^\+OK`)
	got := []byte(k.Expect(`^\.$`))
	if got = bytes.TrimSuffix(got, []byte(".\r\n")); sha256.Sum256(got) != sum {
		t.Errorf("POP3: %d bytes came back changed, of %d", len(got), len(large))
	}

	to := rig.NewAccount(t, "x")
	k = rig.Dial(t, p.Submissions)
	k.Ask("EHLO x.example", `^250 `)
	k.Ask("AUTH PLAIN "+a.SASLPlain(), `^235 `)
	k.Send("MAIL FROM:<"+a.User+"> SIZE="+fmt.Sprint(len(large)), "RCPT TO:<"+to.User+">", "DATA")
	k.Expect("^354 ")
	k.Write(string(large) + ".\r\n")
	k.Expect("^250 ")
	mail := rig.WaitMail(t, to, "the last line of the large message\n")
	// Postfix adds header lines; the body is the customer's own.
	_, body, _ := strings.Cut(string(large), "\r\n\r\n")
	if _, got, _ := strings.Cut(strings.ReplaceAll(mail, "\r\n", "\n"), "\n\n"); got != strings.ReplaceAll(body, "\r\n", "\n") {
		t.Errorf("submission: a body of %d bytes came changed", len(body))
	}
}

// largeMessage is 50 MB of lines that need no dot-stuffing.
func largeMessage(a Account) []byte {
	var b bytes.Buffer
	b.WriteString("From: " + a.User + "\r\nTo: " + a.User + "\r\nSubject: large\r\n\r\n")
	random := rand.New(rand.NewPCG(1, 2))
	line := make([]byte, 76)
	for b.Len() < 50_000_000 {
		for i := range line {
			line[i] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"[random.IntN(64)]
		}
		b.Write(line)
		b.WriteString("\r\n")
	}
	b.WriteString("the last line of the large message\r\n")
	return b.Bytes()
}

func imapThrough(t *testing.T, p *Proxy, options *imapclient.Options) *imapclient.Client {
	t.Helper()
	if options == nil {
		options = &imapclient.Options{}
	}
	options.TLSConfig = &tls.Config{RootCAs: p.rig.CAs, ServerName: "localhost"}
	c, err := imapclient.DialTLS(fmt.Sprintf("127.0.0.1:%d", p.IMAPS.Port), options)
	must(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}

// An idle client hears of a message that comes in.
func TestProxyIdle(t *testing.T) {
	rig := StartServers(t)
	p := rig.StartProxy(t, Named)
	a := rig.NewAccount(t, "secret")
	arrived := make(chan uint32, 8)
	c := imapThrough(t, p, &imapclient.Options{UnilateralDataHandler: &imapclient.UnilateralDataHandler{
		Mailbox: func(data *imapclient.UnilateralDataMailbox) {
			if data.NumMessages != nil {
				arrived <- *data.NumMessages
			}
		},
	}})
	must(t, c.Login(a.User, "secret").Wait())
	if _, err := c.Select("INBOX", nil).Wait(); err != nil {
		t.Fatal(err)
	}
	idle, err := c.Idle()
	must(t, err)
	rig.Deliver(t, a, Message(Bert, a, "wake up"))
	select {
	case n := <-arrived:
		if n != 1 {
			t.Errorf("%d messages", n)
		}
	case <-time.After(patience):
		t.Error("nobody heard of the message")
	}
	must(t, idle.Close())
	must(t, idle.Wait())
	must(t, c.Logout().Wait())
}

// In clear nobody gets in. The answer is the same for a right and a wrong password, and the
// servers are not asked.
func TestProxyRefusesPlaintext(t *testing.T) {
	rig := StartServers(t)
	p := rig.StartProxy(t, Named)
	const client = "127.0.0.23"
	id := regexp.MustCompile(`\([0-9A-Z]{12}\)`)
	answers := func(password string) string {
		a := Account{Bert.User, password}
		var said strings.Builder
		k := rig.DialFrom(t, p.At(IMAP, Plain), client)
		said.WriteString(k.Ask("a CAPABILITY", `^a OK`))
		said.WriteString(k.Ask("b LOGIN "+a.User+" "+a.Password, `^b NO \[UNAVAILABLE\] Passwort ist NICHT falsch\. .*imap\.example\.test.*Port 993`))
		said.WriteString(k.Ask("c AUTHENTICATE PLAIN "+a.SASLPlain(), `^c NO \[UNAVAILABLE\]`))
		said.WriteString(k.Ask("d AUTHENTICATE PLAIN", `^d NO \[UNAVAILABLE\]`))
		said.WriteString(k.Ask("e LOGOUT", `^e OK`))

		k = rig.DialFrom(t, p.At(POP3, Plain), client)
		said.WriteString(k.Ask("CAPA", `^\.$`))
		said.WriteString(k.Ask("USER "+a.User, `^-ERR \[SYS/PERM\] Passwort ist NICHT falsch\. .*pop\.example\.test.*Port 995`))
		said.WriteString(k.Ask("PASS "+a.Password, `^-ERR \[SYS/PERM\]`))
		said.WriteString(k.Ask("AUTH PLAIN "+a.SASLPlain(), `^-ERR \[SYS/PERM\]`))
		said.WriteString(k.Ask("QUIT", `^\+OK`))

		k = rig.DialFrom(t, p.At(Submission, Plain), client)
		said.WriteString(k.Ask("EHLO x.example", `^250 `))
		said.WriteString(k.Ask("AUTH PLAIN "+a.SASLPlain(), `^530 5\.7\.0 Passwort ist NICHT falsch\. .*smtp\.example\.test.*Port 465`))
		said.WriteString(k.Ask("MAIL FROM:<"+a.User+">", `^530 5\.7\.0 `))
		said.WriteString(k.Ask("QUIT", `^221 `))
		return id.ReplaceAllString(said.String(), "(...)")
	}
	dovecot, postfix, events := rig.DovecotLog.Here(), rig.PostfixLog.Here(), p.Events.Here()
	right, wrong := answers(Bert.Password), answers("Wrong-Canary-4711")
	if right != wrong {
		t.Errorf("right password:\n%s\nwrong password:\n%s", right, wrong)
	}
	for _, word := range []string{"AUTHENTICATIONFAILED", "[AUTH]", "535 ", "AUTH=PLAIN", "SASL", "PIPELINING"} {
		if strings.Contains(strings.Split(right, "EHLO")[0], word) && word != "PIPELINING" {
			t.Errorf("the answers contain %q:\n%s", word, right)
		}
	}
	for _, protocol := range []string{"imap", "pop3", "submission"} {
		e := p.WaitEvent(t, events, protocol, func(e Event) bool { return e.Protocol == protocol })
		if e.Action != "deny" || fmt.Sprint(e.By) != "[encrypted]" || !e.Exposed || e.Verified || e.Account != "" || e.Backend != "" {
			t.Errorf("event %+v", e)
		}
	}
	if text := dovecot.Text() + postfix.Text(); strings.Contains(text, client) || strings.Contains(text, Bert.User) {
		t.Errorf("the servers were asked:\n%s", text)
	}
	if text := p.Log.Text() + p.Events.Text(); strings.Contains(text, "Canary") || strings.Contains(text, Bert.Password) {
		t.Error("a password is in a log")
	}
}

// Mail programs set to plaintext do not get in, nor those that insist on a mechanism that is gone.
func TestProxyRefusesClients(t *testing.T) {
	rig := StartServers(t)
	p := rig.StartProxy(t, Named)
	try := func(t *testing.T, c Client, login Login) {
		t.Helper()
		t.Parallel()
		Require(t, c.Programs...)
		act := c.List
		if c.Send != nil {
			act = c.Send(login.Account, Bert, Message(login.Account, Bert, "never"))
		}
		dovecot := rig.DovecotLog.Here()
		out, err := login.Do(t, act)
		if err == nil {
			t.Errorf("it got in:\n%s", out)
		}
		if strings.Contains(dovecot.Text(), "Login: user=<"+login.User+">") {
			t.Errorf("Dovecot let it in:\n%s", dovecot.Text())
		}
	}
	for _, c := range Clients {
		t.Run(c.Name+" in clear", func(t *testing.T) {
			try(t, c, Login{Endpoint: p.At(c.Protocol, Plain), Account: rig.NewAccount(t, "secret"), CAFile: p.CAFile})
		})
		for _, mechanism := range c.Mechanisms {
			if !regexp.MustCompile(`MD5|APOP|NTLM|SCRAM`).MatchString(mechanism) {
				continue
			}
			t.Run(c.Name+" "+mechanism, func(t *testing.T) {
				login := Login{Endpoint: p.At(c.Protocol, Implicit), Account: rig.NewAccount(t, "secret"), CAFile: p.CAFile, Mechanism: mechanism}
				try(t, c, login)
			})
		}
	}
}

// A mechanism that is gone is refused before its challenge, over TLS.
func TestProxyRefusesMechanisms(t *testing.T) {
	rig := StartServers(t)
	p := rig.StartProxy(t, Named)
	imap, pop3, submission := rig.Dial(t, p.IMAPS), rig.Dial(t, p.POP3S), rig.Dial(t, p.Submissions)
	submission.Ask("EHLO x.example", `^250 `)
	if greeting := pop3.Expect(`^\+OK`); strings.Contains(greeting, "<") {
		t.Errorf("the greeting invites APOP: %s", greeting)
	}
	for i, mechanism := range []string{"CRAM-MD5", "DIGEST-MD5", "NTLM", "SCRAM-SHA-1"} {
		if said := imap.Ask(fmt.Sprintf("a%d AUTHENTICATE %s", i, mechanism), fmt.Sprintf(`^a%d NO \[UNAVAILABLE\] Passwort ist NICHT falsch.*Passwort, normal`, i)); strings.Contains(said, "\n+") {
			t.Errorf("a challenge: %s", said)
		}
		pop3.Ask("AUTH "+mechanism, `^-ERR \[SYS/PERM\] Passwort ist NICHT falsch`)
		submission.Ask("AUTH "+mechanism, `^534 5\.7\.9 Passwort ist NICHT falsch`)
	}
	pop3.Ask("APOP "+Bert.User+" c4c9334bac560ecc979e58001b3e22fb", `^-ERR \[SYS/PERM\] Passwort ist NICHT falsch`)
}

// Old TLS ends in the handshake; plaintext on a TLS port is answered in clear.
func TestProxyRefusesOldTLSAndWrongPorts(t *testing.T) {
	rig := StartServers(t)
	p := rig.StartProxy(t, Named)
	events := p.Events.Here()
	for _, e := range []Endpoint{p.IMAPS, p.POP3S, p.Submissions} {
		conn, err := net.Dial("tcp4", fmt.Sprintf("127.0.0.1:%d", e.Port))
		must(t, err)
		defer conn.Close()
		old := tls.Client(conn, &tls.Config{RootCAs: rig.CAs, ServerName: "localhost", MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11})
		if err := old.HandshakeContext(t.Context()); err == nil || !strings.Contains(err.Error(), "protocol version") {
			t.Errorf("TLS 1.1: %v", err)
		}
	}
	for e, want := range map[Endpoint]string{
		p.IMAPS.By(Plain): `^\* BYE `, p.POP3S.By(Plain): `^-ERR \[SYS/PERM\] `, p.Submissions.By(Plain): `^554 5\.7\.0 `,
	} {
		rig.Dial(t, e).Expect(want)                   // a client that waits for a greeting
		rig.Dial(t, e).Ask("EHLO or something", want) // and one that speaks first
	}
	p.WaitEvent(t, events, "plaintext on a TLS port", func(e Event) bool { return e.Reason == "plaintext_on_tls_port" && e.WrongPort })
	p.WaitEvent(t, events, "old TLS", func(e Event) bool { return e.Reason == "handshake_failed" && e.End[1] == 'T' })

	// TLS on the ports of STARTTLS is served.
	for e, want := range map[Endpoint]string{p.IMAP: `^\* OK `, p.POP3: `^\+OK `, p.Submission: `^220 `} {
		k := rig.Dial(t, e.By(Implicit))
		k.Expect(want)
		k.conn.Close()
	}
	p.WaitEvent(t, events, "TLS on a STARTTLS port", func(e Event) bool { return e.WrongPort && e.Entry == "implicit" })
}

// Tokens pass, good and bad, and what the server says of a bad one reaches the client.
func TestProxyTakesTokens(t *testing.T) {
	rig := StartServers(t)
	p := rig.StartProxy(t, Named)
	a := rig.NewAccount(t, "secret")
	for _, mechanism := range []string{"XOAUTH2", "OAUTHBEARER"} {
		for _, good := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s %v", mechanism, good), func(t *testing.T) {
				expires := time.Now().Add(time.Hour)
				if !good {
					expires = time.Now().Add(-time.Minute)
				}
				response := bearerResponse(mechanism, a.User, rig.Token(a.User, expires))
				imap := rig.Dial(t, p.IMAPS)
				imap.Expect(`AUTH=` + mechanism)
				pop3 := rig.Dial(t, p.POP3S)
				pop3.Ask("CAPA", `^SASL .*`+mechanism)
				pop3.Expect(`^\.$`)
				submission := rig.Dial(t, p.Submissions)
				submission.Ask("EHLO x.example", `^250-AUTH .*`+mechanism)
				submission.Expect(`^250 `)
				if good {
					imap.Ask("a AUTHENTICATE "+mechanism+" "+response, `^a OK `)
					pop3.Ask("AUTH "+mechanism+" "+response, `^\+OK Logged`)
					submission.Ask("AUTH "+mechanism+" "+response, `^235 `)
					return
				}
				imap.Ask("a AUTHENTICATE "+mechanism+" "+response, `^\+ \S`)
				imap.Ask("AQ==", `^a NO \[AUTHENTICATIONFAILED\]`)
				pop3.Ask("AUTH "+mechanism+" "+response, `^\+ \S`)
				pop3.Ask("AQ==", `^-ERR \[AUTH\]`)
				submission.Ask("AUTH "+mechanism+" "+response, `^(334 \S|535 )`)
			})
		}
	}
}

// bearerResponse is what a client sends for a token (RFC 7628 section 3.1; Google's XOAUTH2).
func bearerResponse(mechanism, user, token string) string {
	head := "user=" + user
	if mechanism == "OAUTHBEARER" {
		head = "n,a=" + user + ","
	}
	return base64.StdEncoding.EncodeToString([]byte(head + "\x01auth=Bearer " + token + "\x01\x01"))
}
