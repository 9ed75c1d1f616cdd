package interop

import (
	"crypto/hmac"
	"crypto/md5"
	"crypto/tls"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"mailreeve/events"
	"mailreeve/outreach/logs"
)

// startLogging starts servers of the test's own, so that it may change how they log. Dovecot
// takes every name and plaintext. edit changes its configuration.
func startLogging(t *testing.T, edit func(string) string) *Rig {
	t.Helper()
	if testing.Short() {
		t.Skip("real servers are left out by -short")
	}
	Require(t, "dovecot", "postfix")
	if os.Getuid() != 0 {
		missing(t, "Postfix starts for root only: run the tests as root")
	}
	rig, err := newRig()
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(rig.Dir) })
	must(t, errors.Join(rig.configure("dovecot.conf", rig.Dir), rig.configure("oauth2.conf", rig.Dir)))
	file := filepath.Join(rig.Dir, "dovecot.conf")
	config, err := os.ReadFile(file)
	must(t, err)
	must(t, os.WriteFile(file, []byte(edit(string(config))+"\nauth_username_chars =\ndisable_plaintext_auth = no\n"), 0o644))
	program, err := Find("dovecot")
	must(t, err)
	p, err := startProcess(exec.Command(program, "-F", "-c", file), filepath.Join(rig.Dir, "dovecot.out"), rig.DovecotLog, "starting up")
	if p != nil {
		t.Cleanup(p.Stop)
	}
	must(t, err)
	return rig
}

// withElements puts another login_log_format_elements into a configuration, or leaves it
// to Dovecot.
func withElements(elements string) func(string) string {
	if elements != "" {
		elements = "login_log_format_elements = " + elements
	}
	was := regexp.MustCompile(`(?m)^login_log_format_elements = .*$`)
	return func(config string) string { return was.ReplaceAllLiteralString(config, elements) }
}

// readLog has a parser read all lines. It returns the sessions by account, and the lines not understood.
func readLog(p *logs.Parser, text string) (sessions map[string][]*events.Session, unknown []string) {
	sessions = map[string][]*events.Session{}
	for line := range strings.Lines(text) {
		s, verdict := p.Line([]byte(strings.TrimSuffix(line, "\n")))
		switch verdict {
		case logs.Login:
			sessions[s.Account] = append(sessions[s.Account], s)
		case logs.Unknown, logs.Foreign:
			unknown = append(unknown, verdict.String()+": "+line)
		}
	}
	return sessions, unknown
}

// seen is what a log says of a login, in short.
func seen(s *events.Session) string {
	return fmt.Sprintf("%s port=%d entry=%s tls=%s %s %s %s from=%s client=%s", s.Protocol, s.Port, s.Entry, s.TLS, s.CipherClass, s.Mechanism, s.UserForm, s.IP, s.Client)
}

// answerCRAM answers a challenge of CRAM-MD5 (RFC 2195).
func (k *Talk) answerCRAM(a Account, heard, want string) {
	k.t.Helper()
	challenge, err := base64.StdEncoding.DecodeString(regexp.MustCompile(`(?m)^(?:\+|334) (\S+)\r?$`).FindStringSubmatch(heard)[1])
	must(k.t, err)
	mac := hmac.New(md5.New, []byte(a.Password))
	mac.Write(challenge)
	k.Ask(base64.StdEncoding.EncodeToString([]byte(a.User+" "+hex.EncodeToString(mac.Sum(nil)))), want)
}

// secureUpTo starts TLS with a version and none above.
func (k *Talk) secureUpTo(version uint16) {
	k.t.Helper()
	k.SecureAs(&tls.Config{RootCAs: k.rig.CAs, ServerName: k.host, MaxVersion: version})
}

// What Dovecot writes of real logins, in the forms that operators let it write.
func TestLogsOfDovecot(t *testing.T) {
	type fact struct {
		entry, tls, class string
	}
	inClear := fact{"plain", "none", ""}
	for _, form := range []struct {
		name, elements       string
		told                 bool // to the parser, too
		ports                bool
		startTLS12, implicit fact
	}{
		{"by default", "", false, false, fact{}, fact{}},
		{"with version and port", "user=<%u> method=%m rip=%r lip=%l lport=%a mpid=%e %c tls=%k session=<%{session}>", false, true,
			fact{"starttls", "1.2", "modern"}, fact{"implicit", "1.3", "modern"}},
		{"told", "method=%m user=<%u> rip=%r local_name=<%{local_name}> tls=<%k>", true, false, fact{"", "1.2", "modern"}, fact{"", "1.3", "modern"}},
		{"by port alone", "user=<%u> session=<%{session}> method=%m rip=%r lport=%a secured=<%c>", false, true, fact{"starttls", "", ""}, fact{"implicit", "", ""}},
	} {
		t.Run(form.name, func(t *testing.T) {
			t.Parallel()
			rig := startLogging(t, withElements(form.elements))
			from := map[string]string{} // what is expected of each account
			expect := func(protocol Protocol, e Endpoint, f fact, mechanism, ip, client string) Account {
				a := rig.NewAccount(t, "geheim")
				port := e.Port
				if !form.ports {
					port = 0
				}
				// The ports of the rig are not those of the RFCs: only clear text can be told there.
				if f.entry != "plain" {
					f.entry = ""
				}
				from[a.User] = fmt.Sprintf("%s port=%d entry=%s tls=%s %s %s address from=%s client=%s", protocol, port, f.entry, f.tls, f.class, mechanism, ip, client)
				return a
			}
			imap := func(e Endpoint, ip string) *Talk {
				k := rig.DialFrom(t, e, ip)
				k.Expect(`^\* OK`)
				return k
			}

			// TLS first, as a form that has no word for its absence shows it only beside its presence.
			a := expect(IMAP, rig.IMAP, form.startTLS12, "PLAIN", stranger, "")
			k := imap(rig.IMAP, stranger)
			k.Ask("a STARTTLS", "^a OK")
			k.secureUpTo(tls.VersionTLS12)
			k.Ask("b LOGIN "+a.User+" geheim", "^b OK")

			a = expect(IMAP, rig.IMAPS, form.implicit, "PLAIN", stranger, "")
			imap(rig.IMAPS, stranger).Ask("a AUTHENTICATE PLAIN "+a.SASLPlain(), "^a OK")

			a = expect(IMAP, rig.IMAP, inClear, "PLAIN", stranger, "")
			imap(rig.IMAP, stranger).Ask("a LOGIN "+a.User+" geheim", "^a OK")

			a = expect(IMAP, rig.IMAP, inClear, "CRAM-MD5", stranger, "")
			k = imap(rig.IMAP, stranger)
			k.answerCRAM(a, k.Ask("a AUTHENTICATE CRAM-MD5", `^\+ `), "^a OK")

			said := "Tester 1.0"
			if !strings.Contains(form.elements, "session") && form.elements != "" {
				said = "" // nothing ties the lines together
			}
			a = expect(IMAP, rig.IMAP, inClear, "PLAIN", stranger, said)
			k = imap(rig.IMAP, stranger)
			k.Ask(`a ID ("name" "Tester" "version" "1.0")`, "^a OK")
			k.Ask("b LOGIN "+a.User+" wrong", "^b NO")
			k.Ask("c LOGIN "+a.User+" geheim", "^c OK")

			// From the server itself, Dovecot takes it for secured: nothing is known of the customer's own connection.
			a = expect(IMAP, rig.IMAP, fact{}, "PLAIN", "127.0.0.1", "")
			imap(rig.IMAP, "127.0.0.1").Ask("a LOGIN "+a.User+" geheim", "^a OK")

			a = expect(POP3, rig.POP3, inClear, "PLAIN", stranger, "")
			k = rig.DialFrom(t, rig.POP3, stranger)
			k.Expect(`^\+OK`)
			k.Ask("USER "+a.User, `^\+OK`)
			k.Ask("PASS geheim", `^\+OK Logged in`)

			a = expect(POP3, rig.POP3, inClear, "APOP", stranger, "")
			k = rig.DialFrom(t, rig.POP3, stranger)
			stamp := regexp.MustCompile(`<.*>`).FindString(k.Expect(`^\+OK`))
			k.Ask(fmt.Sprintf("APOP %s %x", a.User, md5.Sum([]byte(stamp+"geheim"))), `^\+OK Logged in`)

			a = expect(POP3, rig.POP3, form.startTLS12, "PLAIN", stranger, "")
			k = rig.DialFrom(t, rig.POP3, stranger)
			k.Expect(`^\+OK`)
			k.Ask("STLS", `^\+OK`)
			k.secureUpTo(tls.VersionTLS12)
			k.Ask("USER "+a.User, `^\+OK`)
			k.Ask("PASS geheim", `^\+OK Logged in`)

			a = expect(POP3, rig.POP3S, form.implicit, "PLAIN", stranger, "")
			k = rig.DialFrom(t, rig.POP3S, stranger)
			k.Expect(`^\+OK`)
			k.Ask("AUTH PLAIN "+a.SASLPlain(), `^\+OK Logged in`)

			// The line of a login comes after its answer.
			for user := range from {
				rig.DovecotLog.Wait(t, `Login: .*user=<`+regexp.QuoteMeta(user)+`>`)
			}
			opt := logs.Options{}
			if form.told {
				opt.Elements = form.elements
			}
			sessions, unknown := readLog(logs.Dovecot(opt), rig.DovecotLog.Text())
			if len(unknown) != 0 {
				t.Errorf("not understood:\n%s", strings.Join(unknown, ""))
			}
			for user, want := range from {
				if len(sessions[user]) != 1 {
					t.Errorf("%s has logged in %d times, want once: %s", user, len(sessions[user]), want)
					continue
				}
				s := sessions[user][0]
				if got := seen(s); got != want {
					t.Errorf("%s\n got %s\nwant %s", user, got, want)
				}
				if age := time.Since(s.Time); age < -time.Minute || age > time.Hour {
					t.Errorf("%s has logged in at %v", user, s.Time)
				}
			}
			if len(sessions) != len(from) {
				t.Errorf("%d accounts, want %d", len(sessions), len(from))
			}
			if t.Failed() {
				t.Log(rig.DovecotLog.Text())
			}
		})
	}
}

// A Dovecot that is a proxy in front of another: each has a line of its own for the login.
func TestLogsOfProxying(t *testing.T) {
	t.Parallel()
	back := startLogging(t, withElements(""))
	front := startLogging(t, func(config string) string {
		passdb := fmt.Sprintf("passdb {\n  driver = static\n  args = nopassword=y proxy=y host=localhost hostip=127.0.0.1 port=%d\n}\npassdb {", back.IMAP.Port)
		return strings.Replace(withElements("")(config), "passdb {", passdb, 1)
	})
	a := back.NewAccount(t, "geheim")
	k := front.DialFrom(t, front.IMAP, stranger)
	k.Expect(`^\* OK`)
	k.Ask("a LOGIN "+a.User+" wrong", "^a NO")
	k.Ask("b LOGIN "+a.User+" geheim", "^b OK")
	front.DovecotLog.Wait(t, "tarted proxying")
	back.DovecotLog.Wait(t, ": Login: ")
	for _, log := range []struct {
		rig  *Rig
		want string
	}{
		{front, "imap port=0 entry=plain tls=none  PLAIN address from=" + stranger + " client="},
		{back, "imap port=0 entry= tls=  PLAIN address from=" + stranger + " client="}, // the proxy is trusted there, and its TLS not told
	} {
		text := log.rig.DovecotLog.Text()
		sessions, unknown := readLog(logs.Dovecot(logs.Options{}), text)
		if s := sessions[a.User]; len(s) != 1 || len(sessions) != 1 || seen(s[0]) != log.want || len(s[0].ClientID) != 0 || len(unknown) != 0 {
			t.Errorf("%d sessions, not understood: %q\nwant %s\n%s", len(s), unknown, log.want, text)
		}
	}
}

// Customers whose names look like a part of a line, where the operator lets them choose
// any. There are none with quotes, as Dovecot would not find their passwd-files.
func TestLogsOfOddNames(t *testing.T) {
	t.Parallel()
	rig := startLogging(t, withElements(""))
	names := map[string]bool{ // whether the line can be read
		"hans meier@example.test":                         true,
		"jörg,k@example.test":                             true,
		"a%41=b`$(x)@example.test":                        true,
		"x, method=cram-md5, tls@example.test":            false,
		"victim@example.test>, tls, x=<y@example.test":    false,
		"victim@example.test>, method=plain, rip=1.2.3.4": false,
		"a\tb@example.test":                               false,
		strings.Repeat("long", 20) + "@example.test":      false,
	}
	login := func(user string) {
		a := Account{user, "geheim"}
		must(t, rig.add(a))
		k := rig.DialFrom(t, rig.IMAP, stranger)
		k.Expect(`^\* OK`)
		k.Ask("a AUTHENTICATE PLAIN "+a.SASLPlain(), "^a OK")
	}
	login("anna@example.test")
	for user := range names {
		login(user)
	}
	var text string
	if !eventually(func() bool {
		text = rig.DovecotLog.Text()
		return strings.Count(text, "imap-login: Info: Login: ") == len(names)+1
	}) {
		t.Fatalf("lines of logins are missing:\n%s", text)
	}
	sessions, unknown := readLog(logs.Dovecot(logs.Options{}), text)
	delete(sessions, "anna@example.test")
	refused := 0
	for user, readable := range names {
		if !readable {
			refused++
			continue
		}
		if s := sessions[user]; len(s) != 1 || seen(s[0]) != "imap port=0 entry=plain tls=none  PLAIN address from="+stranger+" client=" {
			t.Errorf("%s: %v", user, s)
		}
		delete(sessions, user)
	}
	if len(sessions) != 0 {
		t.Errorf("logins of %v, who have not logged in:\n%s", sessions, text)
	}
	logins := 0
	for _, line := range unknown {
		if strings.Contains(line, "imap-login: Info: Login: ") {
			logins++
		}
	}
	if logins != refused {
		t.Errorf("%d lines are shown as not understood, want %d:\n%s", logins, refused, strings.Join(unknown, ""))
	}
}

// What Postfix writes of real messages: with TLS and without, with services that have names of
// their own and those that have none.
func TestLogsOfPostfix(t *testing.T) {
	t.Parallel()
	rig := startLogging(t, withElements(""))
	master, err := rig.startPostfix()
	if master != nil {
		t.Cleanup(master.Stop)
	}
	must(t, err)
	named := map[int]string{rig.SubmissionStartTLS.Port: "postfix/submission", rig.Submission.Port: "postfix/submission", rig.Submissions.Port: "postfix/submissions"}
	postconf, err := Find("postconf")
	must(t, err)
	for port, name := range named {
		out, err := exec.Command(postconf, "-c", filepath.Join(rig.Dir, "postfix"), "-P", fmt.Sprintf("127.0.0.1:%d/inet/syslog_name=%s", port, name)).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	log := rig.PostfixLog.Here()
	must(t, master.Signal(syscall.SIGHUP))
	log.Wait(t, "reload -- version")

	want := map[string]string{}
	begin := func(e Endpoint, from string, version uint16) *Talk {
		e, entry := e.By(Plain), e.Entry
		k := rig.DialFrom(t, e, from)
		if entry == Implicit {
			k.secureUpTo(version)
		}
		k.Expect("^220 ")
		k.Ask("EHLO pc.example", "^250 ")
		if entry == StartTLS {
			k.Ask("STARTTLS", "^220 ")
			k.secureUpTo(version)
			k.Ask("EHLO pc.example", "^250 ")
		}
		return k
	}
	send := func(k *Talk, a Account, messages int) {
		for range messages {
			k.Ask("MAIL FROM:<"+a.User+">", "^250 ")
			k.Ask("RCPT TO:<"+Bert.User+">", "^250 ")
			k.Ask("DATA", "^354 ")
			k.Ask("Subject: hello\r\n\r\nhello\r\n.", "^250 .* queued as ")
		}
		k.Ask("QUIT", "^221 ")
	}
	account := func(facts string) Account {
		a := rig.NewAccount(t, "geheim")
		want[a.User] = "submission " + facts + " client="
		return a
	}

	a := account("port=587 entry=starttls tls=1.2 modern PLAIN address from=" + stranger)
	k := begin(rig.SubmissionStartTLS, stranger, tls.VersionTLS12)
	k.Ask("AUTH PLAIN "+a.SASLPlain(), "^235 ")
	send(k, a, 3)

	a = account("port=465 entry=implicit tls=1.3 modern CRAM-MD5 address from=" + stranger)
	k = begin(rig.Submissions, stranger, tls.VersionTLS13)
	k.answerCRAM(a, k.Ask("AUTH CRAM-MD5", "^334 "), "^235 ")
	send(k, a, 1)

	a = account("port=587 entry=plain tls=none  LOGIN address from=" + stranger)
	k = begin(rig.Submission, stranger, 0)
	k.Ask("AUTH LOGIN", "^334 ")
	k.Ask(base64.StdEncoding.EncodeToString([]byte(a.User)), "^334 ")
	k.Ask(base64.StdEncoding.EncodeToString([]byte("falsch")), "^535 ")
	k.Ask("AUTH LOGIN", "^334 ")
	k.Ask(base64.StdEncoding.EncodeToString([]byte(a.User)), "^334 ")
	k.Ask(base64.StdEncoding.EncodeToString([]byte("geheim")), "^235 ")
	send(k, a, 2)

	// From a program on the server: what the customer's own connection was, nobody knows.
	a = account("port=587 entry= tls=  PLAIN address from=127.0.0.1")
	k = begin(rig.Submission, "127.0.0.1", 0)
	k.Ask("AUTH PLAIN "+a.SASLPlain(), "^235 ")
	send(k, a, 1)

	// A service without a name of its own, where others have one.
	a = account("port=25 entry=starttls tls=1.3 modern PLAIN address from=" + stranger)
	k = begin(rig.SubmissionNoXCLIENT, stranger, tls.VersionTLS13)
	k.Ask("AUTH PLAIN "+a.SASLPlain(), "^235 ")
	send(k, a, 1)

	// The hop of a proxy is in TLS, of the client behind it nothing is known.
	a = account("port=587 entry= tls=  PLAIN address from=" + clientIP)
	k = begin(rig.SubmissionStartTLS, "127.0.0.1", tls.VersionTLS13)
	k.Ask("XCLIENT ADDR="+clientIP, "^220 ")
	k.Ask("EHLO pc.example", "^250 ")
	k.Ask("AUTH PLAIN "+a.SASLPlain(), "^235 ")
	send(k, a, 1)

	// A login without a message is not named in the log.
	k = begin(rig.Submission, stranger, 0)
	k.Ask("AUTH PLAIN "+Anna.SASLPlain(), "^235 ")
	k.Ask("QUIT", "^221 ")
	rig.PostfixLog.Wait(t, `disconnect from unknown\[`+regexp.QuoteMeta(stranger)+`\] ehlo=1 auth=1 quit=1`)

	text := rig.PostfixLog.Text()
	sessions, unknown := readLog(logs.Postfix(logs.Options{}), text)
	if len(unknown) != 0 {
		t.Errorf("not understood:\n%s", strings.Join(unknown, ""))
	}
	for user, want := range want {
		if len(sessions[user]) != 1 {
			t.Errorf("%s has %d sessions, want one: %s", user, len(sessions[user]), want)
		} else if got := seen(sessions[user][0]); got != want {
			t.Errorf("%s\n got %s\nwant %s", user, got, want)
		}
	}
	if len(sessions) != len(want) {
		t.Errorf("%d accounts, want %d", len(sessions), len(want))
	}
	if t.Failed() {
		t.Log(text)
	}
}
