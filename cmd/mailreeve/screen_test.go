package main

import (
	"crypto/tls"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"mailreeve/events"
)

// TestScreen shows the line of each kind of session, and its colour.
func TestScreen(t *testing.T) {
	at := time.Date(2026, 11, 21, 17, 45, 1, 0, time.Local)
	base := func(change func(*events.Session)) *events.Session {
		e := &events.Session{Time: at, ID: "K7M29QXD4TZP", Protocol: "imap", Port: 9993, TLS: "1.3", Account: "anna@demo.example",
			Client: "Thunderbird 153.7", Verified: true, Action: "pass", BytesIn: 9_999, BytesOut: 12_345_678, Seconds: 12.34,
			End: "CR", Reason: "client_closed", Sentence: "the client closed the connection"}
		change(e)
		return e
	}
	for _, test := range []struct {
		name, want, color string
		event             *events.Session
	}{
		{"good", "imap        9993  TLS 1.3   anna@demo.example      Thunderbird 153.7        logged in, 9999 B in, 12 MB out, 12.3s", green,
			base(func(e *events.Session) {})},
		{"refused in clear", "submission  9587  in clear  -                      laptop                   refused: policy wants encrypted", red,
			base(func(e *events.Session) {
				e.Protocol, e.Port, e.TLS, e.Account, e.Client, e.Verified = "submission", 9587, "none", "", "laptop", false
				e.Action, e.By, e.Refused = "deny", []string{"encrypted"}, "policy"
			})},
		{"right password, refused", "imap        9993  TLS 1.3   anna@demo.example      Thunderbird 153.7        refused: policy wants modern-tls, canonical-host", red,
			base(func(e *events.Session) {
				e.Action, e.By, e.Refused = "refuse", []string{"modern-tls", "canonical-host"}, "policy"
			})},
		{"for now", "imap        9993  TLS 1.3   anna@demo.example      Thunderbird 153.7        refused for now: policy wants encrypted", red,
			base(func(e *events.Session) {
				e.Action, e.By, e.Refused = "tempfail", []string{"encrypted"}, "policy_for_now"
			})},
		{"wrong password", "pop3        9995  TLS 1.2   -                      -                        no login: wrong user name or password", yellow,
			base(func(e *events.Session) {
				e.Protocol, e.Port, e.TLS, e.Account, e.Client, e.Verified, e.Refused = "pop3", 9995, "1.2", "", "", false, "credential"
			})},
		{"no access", "imap        9993  TLS 1.3   -                      -                        no login: right password, but the mailbox is closed", yellow,
			base(func(e *events.Session) { e.Account, e.Client, e.Verified, e.Refused = "", "", false, "no_access" })},
		{"backend down", "imap        9993  TLS 1.3   -                      -                        no login: the mail server behind the proxy cannot be reached", yellow,
			base(func(e *events.Session) { e.Account, e.Client, e.Verified, e.Refused = "", "", false, "unavailable" })},
		{"TLS failure", "imap        9993  -         -                      -                        the TLS handshake failed: remote error: tls: unknown certificate authority", yellow,
			base(func(e *events.Session) {
				e.TLS, e.Account, e.Client, e.Verified, e.Reason = "", "", "", false, "handshake_failed"
				e.Sentence = "the TLS handshake failed: remote error: tls: unknown certificate authority"
			})},
		{"left", "imap        9993  TLS 1.3   -                      -                        the client took its leave before a login", dim,
			base(func(e *events.Session) {
				e.Account, e.Client, e.Verified, e.Sentence = "", "", false, "the client took its leave before a login"
			})},
		{"strangers", `imap        9993  TLS 1.3   anna@demo.example      ?[31mroot?[0m??�[2J?evil? Ää logged in, 9999 B in, 12 MB out, 12.3s`, green,
			base(func(e *events.Session) { e.Client = "\x1b[31mroot\x1b[0m\r\n\x9b[2J\u202eevil\u2028 Ää" })},
		{"a long name", "imap        9993  TLS 1.3   anna@demo.example      " + strings.Repeat("x", 160) + " logged in, 9999 B in, 12 MB out, 12.3s", green,
			base(func(e *events.Session) { e.Client = strings.Repeat("x", 8000) })},
	} {
		var plain, colored strings.Builder
		newScreen(&plain).show(test.event)
		if want := "17:45:01  " + test.want + "  " + test.event.End + " K7M29QXD4TZP\n"; plain.String() != want {
			t.Errorf("%s:\ngot  %swant %s", test.name, plain.String(), want)
		}
		s := newScreen(&colored)
		s.color = true
		s.show(test.event)
		if want := "\x1b[" + test.color + "m"; !strings.Contains(colored.String(), want) || regexp.MustCompile(`\x1b\[[0-9]+m`).ReplaceAllString(colored.String(), "") != plain.String() {
			t.Errorf("%s: got %q, want colour %s", test.name, colored.String(), test.color)
		}
	}
}

// The demo shows each kind of session as one line.
func TestDemoShowsSessions(t *testing.T) {
	t.Parallel()
	s := &site{t: t, dir: t.TempDir(), out: newTranscript(), log: newTranscript(), exited: make(chan struct{})}
	port := s.demo(nil)
	roots := s.trusted()
	login := func(name, user, password, answer string) {
		t.Helper()
		conn, err := tls.Dial("tcp", port("imaps"), &tls.Config{RootCAs: roots, ServerName: name})
		if err != nil {
			t.Fatal(err)
		}
		conn.SetDeadline(time.Now().Add(patience))
		c := newTalk(t, conn)
		c.hear(`^\* OK`)
		c.say("a LOGIN %s %s", user, password)
		c.hear(answer)
		c.say("b LOGOUT")
		c.hangsUp()
	}
	login("imap.demo.example", "anna", "demo", "^a OK")
	s.out.await(t, `imap       +[0-9]+  TLS 1\.3   anna                   -                        logged in, [0-9]+ B in, [0-9]+ B out, [0-9.]+s  [BC]R [0-9A-Z]{12}$`)
	login("imap.demo.example", "anna", "wrong", `^a NO \[AUTHENTICATIONFAILED\]`)
	s.out.await(t, `  -                      -                        no login: wrong user name or password  CD [0-9A-Z]{12}$`)
	login("pop.demo.example", "anna", "demo", "^a NO .*NOT wrong")
	s.out.await(t, `  anna                   -                        refused: policy wants canonical-host  CD [0-9A-Z]{12}$`)
	if conn, err := tls.Dial("tcp", port("imaps"), &tls.Config{RootCAs: roots, ServerName: "imap.demo.example", MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}); err == nil {
		conn.Close()
		t.Error("TLS 1.1 is taken")
	}
	s.out.await(t, `  TLS 1\.1   -                      -                        refused: policy wants modern-tls  PT [0-9A-Z]{12}$`)
	if strings.ContainsRune(s.out.whole(), '\x1b') {
		t.Error("colours in a file")
	}
	s.signal(syscall.SIGINT)
	s.ends()
}
