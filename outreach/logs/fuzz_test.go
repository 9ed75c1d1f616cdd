package logs

import (
	"os"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"mailreeve/policy"
)

// lines are those of a file of tests.
func lines(f *testing.F, file string) (lines []string) {
	text, err := os.ReadFile(file)
	if err != nil {
		f.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, "# ") && !strings.HasPrefix(line, "=> ") {
			lines = append(lines, strings.TrimSuffix(line, "\n"))
		}
	}
	return lines
}

// check holds what is true of all lines.
func check(t *testing.T, p *Parser, line string) {
	t.Helper()
	s, v := p.Line([]byte(line))
	if (s != nil) != (v == Login) {
		t.Fatalf("%v with %+v", v, s)
	}
	if s == nil {
		return
	}
	if !s.Verified || s.Account == "" || !strings.Contains(line, s.Account) || !utf8.ValidString(s.Account) || strings.ContainsAny(s.Account, "<>?\n\x7f") {
		t.Errorf("account %q", s.Account)
	}
	if s.Time.IsZero() || s.Time.Location() != time.UTC || s.Port < 0 || s.Port > 65535 {
		t.Errorf("time %v, port %d", s.Time, s.Port)
	}
	for fact, value := range map[policy.Fact]string{policy.Protocol: s.Protocol, policy.Entry: s.Entry, policy.TLS: s.TLS,
		policy.CipherClass: s.CipherClass, policy.UserForm: s.UserForm} {
		if value != "" && !known[fact][value] {
			t.Errorf("%s is %q", fact, value)
		}
	}
	if s.Mechanism != "" && s.Mechanism != policy.KnownMech(s.Mechanism) {
		t.Errorf("mechanism %q", s.Mechanism)
	}
	if (s.TLS == policy.None) != (s.Entry == policy.EntryPlain) || s.TLS == policy.None && s.CipherClass != "" {
		t.Errorf("TLS %q, entry %q, cipher class %q", s.TLS, s.Entry, s.CipherClass)
	}
}

var known = map[policy.Fact]map[string]bool{
	policy.Protocol:    {"imap": true, "pop3": true, "submission": true},
	policy.Entry:       {policy.EntryPlain: true, policy.EntryStartTLS: true, policy.EntryImplicit: true},
	policy.TLS:         {policy.None: true, "1.0": true, "1.1": true, "1.2": true, "1.3": true},
	policy.CipherClass: {policy.Modern: true, policy.LegacyCiphers: true},
	policy.UserForm:    {"bare": true, "address": true},
}

// A log of three lines, the middle one of anybody's making.
func FuzzDovecot(f *testing.F) {
	const ordinary = "Nov 21 06:25:01 mail dovecot: imap-login: Login: user=<anna@example.test>, method=PLAIN, rip=192.0.2.7, lip=198.51.100.1, mpid=1, TLS, session=<a>"
	for _, line := range lines(f, "testdata/dovecot.txt") {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		p := Dovecot(Options{Zone: time.UTC, Now: now})
		check(t, p, ordinary)
		check(t, p, line)
		if s, v := p.Line([]byte(ordinary)); v != Login || s.Account != "anna@example.test" || s.Entry != "" {
			t.Errorf("the ordinary line is %s after %q", say(s, v), line)
		}
	})
}

func FuzzPostfix(f *testing.F) {
	const ordinary = "Nov 21 06:25:01 mx postfix/submission/smtpd[9]: 3F2A91C0042: client=x[192.0.2.7], sasl_method=PLAIN, sasl_username=anna@example.test"
	for _, line := range lines(f, "testdata/postfix.txt") {
		f.Add(line, line)
	}
	f.Fuzz(func(t *testing.T, one, two string) {
		p := Postfix(Options{Zone: time.UTC, Now: now})
		check(t, p, one)
		check(t, p, two)
		check(t, p, ordinary)
	})
}

// printed is a name as the servers write it: control characters replaced.
func printed(name string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == utf8.RuneError {
			return '?'
		}
		return r
	}, name)
}

// Whatever a customer calls himself, a line with his name is read as his, with the facts that
// the server has written, or not at all.
func FuzzName(f *testing.F) {
	for _, name := range []string{"anna@example.test", "a b", "x, method=PLAIN, TLS", "victim>, TLS, x=<y", "victim>, method=PLAIN, rip=203.0.113.1, TLS, session=<",
		"victim>, local_name=<", "victim>", ">, user=<victim", "victim, sasl_method=PLAIN", "victim, sasl_sender=x", "a\nb", "jörg", "\xff", "a: user=<victim>, method=PLAIN",
		"x): started proxying to y:1: user=<victim>, method=PLAIN, x=<y"} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		name = printed(name)
		dovecot := Dovecot(Options{Zone: time.UTC, Now: now})
		postfix := Postfix(Options{Zone: time.UTC, Now: now})
		const facts = ">, method=CRAM-MD5, rip=192.0.2.7, lip=198.51.100.1, mpid=1, session=<a>"
		dovecot.Line([]byte("Nov 21 06:25:01 mail dovecot: imap-login: Login: user=<anna" + facts))
		postfix.Line([]byte("Nov 21 06:25:00 mx postfix/smtps/smtpd[9]: connect from x[192.0.2.7]"))
		for p, line := range map[*Parser]string{
			dovecot: "Nov 21 06:25:01 mail dovecot: imap-login: Login: user=<" + name + facts,
			postfix: "Nov 21 06:25:01 mx postfix/smtps/smtpd[9]: 3F2A91C0042: client=x[192.0.2.7], sasl_method=CRAM-MD5, sasl_username=" + name,
		} {
			s, v := p.Line([]byte(line))
			if s != nil && (s.Account != name || s.Mechanism != "CRAM-MD5" || s.IP.String() != "192.0.2.7" || s.SNI != "" || s.Client != "" || p == dovecot && s.TLS != policy.None) {
				t.Errorf("%s is read as %s", line, say(s, v))
			}
		}
		for _, line := range []string{
			"Nov 21 06:25:01 imap(" + name + ")<1><a>: Info: Logged out",
			"Nov 21 06:25:01 mail dovecot: imap(" + name + ")<1><a>: Logged out",
			"Nov 21 06:25:01 mail dovecot: auth: passwd-file(" + name + ",192.0.2.7): unknown user",
			"Nov 21 06:25:01 auth: Info: passwd-file(" + name + ",192.0.2.7): unknown user",
			"Nov 21 06:25:01 mail dovecot: imap-login: Disconnected (auth failed, 1 attempts): user=<" + name + facts,
			"Nov 21 06:25:01 mail dovecot: imap-login: proxy(" + name + "): Login failed to 10.0.0.5:143: no: user=<" + name + facts,
			"Nov 21 06:25:01 mail dovecot: imap-login: ID sent: name=" + name + ": user=<>, rip=192.0.2.7, lip=198.51.100.1, session=<a>",
		} {
			if s, v := dovecot.Line([]byte(line)); v == Login {
				t.Errorf("%s is read as %s", line, say(s, v))
			}
		}
		line := "Nov 21 06:25:01 mx postfix/smtps/smtpd[9]: warning: x[192.0.2.7]: SASL PLAIN authentication failed: no, sasl_username=" + name
		if s, v := postfix.Line([]byte(line)); v == Login {
			t.Errorf("%s is read as %s", line, say(s, v))
		}
	})
}
