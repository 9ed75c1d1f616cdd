package interop

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// try is a customer's mail program and its settings, and what becomes of them.
type try struct {
	program string // of Clients
	at      Endpoint
	host    string // the server name; "" for localhost
	account Account
	mech    string   // "" leaves it to the program
	args    []string // further ones of curl, which is used then

	action, by string // in the event
	hears      string // words in place of the mail; "" if it works
}

// plain are programs that are set to no encryption, of all protocols.
func (s story) plain() []try {
	p := s.p
	return []try{
		{program: "curl IMAP", at: p.IMAP.By(Plain)},
		{program: "mbsync", at: p.IMAP.By(Plain), mech: "LOGIN"},
		{program: "fetchmail POP3", at: p.POP3.By(Plain)},
		{program: "mpop", at: p.POP3.By(Plain), mech: "PLAIN"},
		{program: "msmtp", at: p.Submission.By(Plain), mech: "PLAIN"},
		{program: "swaks", at: p.Submission.By(Plain), mech: "LOGIN"},
	}
}

// each lets the programs try, with what becomes of all of them.
func (s story) each(action, by string, all ...try) {
	s.t.Helper()
	for _, x := range all {
		x.action, x.by = action, by
		s.try(x)
	}
}

// try lets a program try, and returns what it has said and the event.
func (s story) try(x try) (string, Event) {
	s.t.Helper()
	i := slices.IndexFunc(Clients, func(c Client) bool { return c.Name == x.program })
	if i < 0 {
		s.t.Fatalf("there is no program %q", x.program)
	}
	c := Clients[i]
	Require(s.t, c.Programs...)
	a := x.account
	if a.User == "" {
		a = s.rig.NewAccount(s.t, "secret")
	}
	if x.host != "" {
		x.at.Host = x.host
	}
	from := s.p.Events.Here()
	act := c.List
	switch {
	case x.args != nil:
		act = curlOnce(c.Protocol, x.args...)
	case c.Send != nil:
		act = c.Send(a, a, Message(a, a, "a story"))
	}
	out, err := Login{Endpoint: x.at, Account: a, CAFile: s.p.CAFile, Mechanism: x.mech}.Do(s.t, act)
	what := fmt.Sprintf("%s: %s at %s, %s under %s", s.p.Now, x.program, x.at.Addr(), x.at.Entry, x.at.Host)
	if x.hears == "" && err != nil || x.hears != "" && (err == nil || !regexp.MustCompile(x.hears).MatchString(out)) {
		s.t.Errorf("%s: %v, wanted %q\n%s", what, err, x.hears, out)
	}
	e := s.p.WaitEvent(s.t, from, what, func(e Event) bool {
		return e.Protocol == string(c.Protocol) && e.Action == x.action && fmt.Sprint(e.By) == "["+x.by+"]" && (x.hears != "" || e.Verified && e.Account == a.User)
	})
	return out, e
}

// inTLS are the settings that customers are told of.
func (s story) inTLS(imap, pop3, smtp string) []try {
	p := s.p
	return []try{
		{program: "curl IMAP", at: p.IMAPS, host: imap},
		{program: "curl POP3", at: p.POP3S, host: pop3},
		{program: "curl SMTP", at: p.Submissions, host: smtp},
		{program: "curl SMTP", at: p.Submission.By(StartTLS), host: smtp},
	}
}

// hold sets a hold and waits until it is in force; lift lifts it.
func (s story) hold(limit string) {
	s.t.Helper()
	s.command("a hold is in force", "policy", "hold", "--cap", limit, "--for", "1h", "--reason", "the phones ring", "--owner", "support-l2", "-c", s.p.Config)
}

func (s story) lift() {
	s.t.Helper()
	s.command("the hold is lifted", "policy", "lift", "-c", s.p.Config)
}

func (s story) command(said string, args ...string) {
	s.t.Helper()
	here := s.p.Log.Here()
	if out, code := s.p.Command(s.t, args...); code != 0 {
		s.t.Fatalf("%s: %d\n%s", strings.Join(args, " "), code, out)
	}
	done := time.Now()
	here.Wait(s.t, said)
	if took := time.Since(done); took > 2*time.Second {
		s.t.Errorf("it took %v until %s", took, said)
	}
}

// drawn makes an account that a requirement draws between two parts of a hundred.
func (s story) drawn(requirement string, least, below uint64) Account {
	s.t.Helper()
	for {
		a := s.rig.NewAccount(s.t, "secret")
		sum := sha256.Sum256([]byte("v1\x00" + requirement + "\x00" + a.User))
		if n := binary.BigEndian.Uint64(sum[:8]) % 100_000 / 1000; least <= n && n < below {
			return a
		}
	}
}

// warnedOnce is a customer whose IMAP program shows a sentence at the first login of the day.
func (s story) warnedOnce(x try, by, words string) {
	s.t.Helper()
	x.action, x.by = "warn", by
	out, e := s.try(x)
	if !e.Told || strings.Count(out, "[ALERT]") != 1 || !regexp.MustCompile(`(?m)\* OK \[ALERT\] `+words+` https://hilfe`).MatchString(out) {
		s.t.Errorf("%s: %s is not warned with %q:\n%s", s.p.Now, x.program, words, out)
	}
	if out, e := s.try(x); e.Told || strings.Contains(out, "[ALERT]") {
		s.t.Errorf("%s: %s is warned twice a day:\n%s", s.p.Now, x.program, out)
	}
}

// rewrite changes the policy that the example has, where each of the texts stands.
func (p *Proxy) rewrite(t *testing.T, texts ...string) {
	t.Helper()
	file := filepath.Join(filepath.Dir(p.Config), "policy.yaml")
	text, err := os.ReadFile(file)
	must(t, err)
	must(t, os.WriteFile(file, []byte(strings.NewReplacer(texts...).Replace(string(text))), 0o600))
}

// begin is a proxy with an example's configuration, and certificates for the names.
func (rig *Rig) begin(t *testing.T, name string, hosts ...string) story {
	t.Helper()
	folder := t.TempDir()
	rig.issueInto(t, folder, hosts...)
	return story{t: t, rig: rig, p: rig.example(t, name, rig.CAFile, "/etc/mailreeve/certs", folder)}
}

const notWrong = `Passwort ist NICHT falsch\. `

// Plaintext ends on one day, with trials in the mornings before (Netzprisma, 2024).
func TestExampleDatedSwitchOff(t *testing.T) {
	t.Parallel()
	rig := StartServers(t)
	s := rig.begin(t, "dated-switch-off", "imap.example.org", "pop.example.org", "smtp.example.org", "mail.example.org")
	p := s.p
	scanner := rig.NewAccount(t, "secret")
	// The copier of the exception, and a network that is this machine's.
	p.rewrite(t, "scanner@kunde-a.example", scanner.User, "198.51.100.0/28", "127.0.7.0/28")
	told := s.inTLS("imap.example.org", "pop.example.org", "smtp.example.org")

	// Before anything is asked of anybody, and when it is only counted and told.
	p.RunAt(t, "2024-03-31T12:00:00+02:00")
	s.each("pass", "", s.plain()...)
	p.RunAt(t, "2024-04-01T00:00:00+02:00")
	s.each("observe", "encrypted", s.plain()...)
	s.each("pass", "", told...)
	p.RunAt(t, "2024-06-01T00:00:00+02:00")
	s.each("notify", "encrypted", s.plain()...)
	s.each("notify", "canonical-host", try{program: "curl IMAP", at: p.IMAPS, host: "mail.example.org"})

	// A trial: for a while, in words that say until when. It ends by itself.
	const trial = notWrong + `Testabschaltung bis 10:30: SSL/TLS fehlt\. `
	p.RunAt(t, "2024-09-11T10:00:00+02:00")
	s.each("tempfail", "encrypted",
		try{program: "curl IMAP", at: p.IMAP.By(Plain), hears: `\* OK \[ALERT\] ` + trial + `imap\.example\.org, Port 993\.`},
		try{program: "fetchmail POP3", at: p.POP3.By(Plain), hears: `-ERR \[SYS/TEMP\] ` + trial + `pop\.example\.org, Port 995\.`},
		try{program: "curl SMTP", at: p.Submission.By(Plain), hears: `450 4\.7\.\d ` + trial + `smtp\.example\.org, Port 465\.`})
	p.RunAt(t, "2024-09-11T10:29:58+02:00")
	p.Log.Wait(t, "the policy's clock: encrypted: a brownout is over")
	s.each("notify", "encrypted", s.plain()[:1]...)

	// The day comes while the program runs.
	p.RunAt(t, "2024-09-19T23:59:58+02:00")
	p.Log.Wait(t, "the policy's clock: encrypted: deny")
	const (
		help  = ` https://hilfe\.example\.org/20-september \([0-9A-Z]{12}\)`
		ended = notWrong + `Verschluesselung fehlt: SSL/TLS, Server `
		imap  = `\* OK \[ALERT\] ` + ended + `imap\.example\.org, Port 993\.`
		pop3  = `-ERR \[SYS/PERM\] ` + ended + `pop\.example\.org, Port 995\.`
		smtp  = `530 5\.7\.0 ` + ended + `smtp\.example\.org, Port 465\.`
	)
	s.each("deny", "encrypted",
		try{program: "curl IMAP", at: p.IMAP.By(Plain), hears: imap},
		try{program: "mbsync", at: p.IMAP.By(Plain), mech: "LOGIN", hears: ended},
		try{program: "fetchmail POP3", at: p.POP3.By(Plain), hears: pop3 + help},
		try{program: "curl SMTP", at: p.Submission.By(Plain), hears: smtp + help})
	s.each("pass", "", told...)

	// The copier goes on from its own network, and from nowhere else.
	from := []string{"--interface", "127.0.7.1"}
	x := try{program: "curl IMAP", at: p.IMAP.By(Plain), account: scanner, args: from, action: "notify", by: "encrypted"}
	if _, e := s.try(x); e.Exception != "ex-017" {
		t.Errorf("event %+v", e)
	}
	s.each("notify", "encrypted", try{program: "curl SMTP", at: p.Submission.By(Plain), account: scanner, args: from})
	s.each("deny", "encrypted",
		try{program: "curl IMAP", at: p.IMAP.By(Plain), account: scanner, hears: imap},
		try{program: "curl IMAP", at: p.IMAP.By(Plain), args: from, hears: `NO \[UNAVAILABLE\] ` + ended})

	// The telephones ring: all are let in again, at once and for a while.
	s.hold("notify")
	s.each("notify", "encrypted", s.plain()...)
	s.lift()
	s.each("deny", "encrypted", try{program: "fetchmail POP3", at: p.POP3.By(Plain), hears: pop3 + help})

	p.RunAt(t, "2025-01-01T00:00:00+01:00")
	s.each("deny", "encrypted", try{program: "curl IMAP", at: p.IMAP.By(Plain), account: scanner, args: from, hears: imap})
}
