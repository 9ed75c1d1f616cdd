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
	host    string   // the server name; "" for localhost
	account Account  // new where it is none
	login   string   // what it types for a user name; "" for the address
	mech    string   // "" for the password itself, "any" leaves it to the program
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
	if x.mech == "" {
		x.mech = "PLAIN"
		if strings.HasPrefix(x.program, "fetchmail") {
			x.mech = "password"
		}
	}
	x.mech = strings.TrimPrefix(x.mech, "any")
	from := s.p.Events.Here()
	act := c.List
	switch {
	case x.args != nil:
		act = curlOnce(c.Protocol, x.args...)
	case c.Send != nil:
		act = c.Send(a, a, Message(a, a, "a story"))
	}
	typed := a
	if x.login != "" {
		typed.User = x.login
	}
	out, err := Login{Endpoint: x.at, Account: typed, CAFile: s.p.CAFile, Mechanism: x.mech}.Do(s.t, act)
	what := fmt.Sprintf("%s: %s at %s, %s under %s", s.p.Now, x.program, x.at.Addr(), x.at.Entry, x.at.Host)
	if x.hears == "" && err != nil || x.hears != "" && (err == nil || !regexp.MustCompile(x.hears).MatchString(out)) {
		s.t.Errorf("%s: %v, wanted %q\n%s", what, err, x.hears, out)
	}
	e := s.p.WaitEvent(s.t, from, what, func(e Event) bool {
		return e.Protocol == string(c.Protocol) && e.Action == x.action && fmt.Sprint(e.By) == "["+x.by+"]" &&
			(x.hears != "" || e.Verified && e.Account == a.User && (e.Mechanism == x.mech || e.Mechanism == "USERPASS" || x.mech == "any"))
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

// oldTLS is an IMAP program of TLS 1.1 under the server name, and returns the answer to its
// login.
func (s story) oldTLS(action, by, host, answer string) {
	s.t.Helper()
	a, from := s.rig.NewAccount(s.t, "secret"), s.p.Events.Here()
	k, _ := OpenSSL(s.t, Endpoint{host, s.p.IMAPS.Port, Implicit}, IMAP, s.p.CAFile, "-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0")
	if said := k.Ask("a LOGIN "+a.User+" secret", `^a (OK|NO)`); !regexp.MustCompile("(?m)" + answer).MatchString(said) {
		s.t.Errorf("%s: TLS 1.1 hears\n%s", s.p.Now, said)
	}
	k.conn.Close()
	s.p.WaitEvent(s.t, from, "TLS 1.1", func(e Event) bool {
		return e.TLS == "1.1" && e.Action == action && fmt.Sprint(e.By) == "["+by+"]"
	})
}

// noOldTLS is the same program, which is refused by TLS itself.
func (s story) noOldTLS(host string) {
	s.t.Helper()
	from := s.p.Events.Here()
	args := append(opensslArgs(Endpoint{host, s.p.IMAPS.Port, Implicit}, IMAP, s.p.CAFile), "-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0")
	if said, err := run(s.t, patience, "openssl", args...); err == nil || !strings.Contains(said, "alert protocol version") {
		s.t.Errorf("%s: TLS 1.1: %v\n%s", s.p.Now, err, said)
	}
	s.p.WaitEvent(s.t, from, "TLS 1.1", func(e Event) bool { return e.Reason == "handshake_failed" && e.SNI == host })
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
	if x.account.User == "" {
		x.account = s.rig.NewAccount(s.t, "secret")
	}
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

	// Programs that are set to a method which hides the password, in clear.
	hidden := []try{
		{program: "curl IMAP", at: p.IMAP.By(Plain), mech: "CRAM-MD5"},
		{program: "mbsync", at: p.IMAP.By(Plain), mech: "SCRAM-SHA-256"},
		{program: "curl POP3", at: p.POP3.By(Plain), mech: "APOP"},
		{program: "mpop", at: p.POP3.By(Plain), mech: "DIGEST-MD5"},
		{program: "msmtp", at: p.Submission.By(Plain), mech: "SCRAM-SHA-1"},
		{program: "swaks", at: p.Submission.By(Plain), mech: "CRAM-MD5"},
	}
	cramInTLS := try{program: "curl IMAP", at: p.IMAPS, host: "imap.example.org", mech: "CRAM-MD5"}

	// Before anything is asked of anybody, and when it is only counted and told.
	p.RunAt(t, "2024-03-31T12:00:00+02:00")
	s.each("pass", "", append(s.plain(), hidden...)...)
	p.RunAt(t, "2024-04-01T00:00:00+02:00")
	s.each("observe", "encrypted", s.plain()...)
	s.each("observe", "encrypted password-only", hidden...)
	s.each("pass", "", told...)
	p.RunAt(t, "2024-06-01T00:00:00+02:00")
	s.each("notify", "encrypted", s.plain()...)
	s.each("notify", "encrypted password-only", hidden...)
	s.each("notify", "password-only", cramInTLS)
	// The event log tells who would be refused on the day.
	if said, code := p.Command(t, "policy", "replay", "--events", p.Events.path, "--policy", "policy.yaml", "--at", "2024-09-20"); code != 0 || !regexp.MustCompile(`(?m)^kunde\d+@example\.test +1 of 1 +encrypted, password-only `).MatchString(said) {
		t.Errorf("the replay: %d\n%s", code, said)
	}
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
	// In clear, right and wrong passwords hear the same, and the server is not asked.
	dovecot := rig.DovecotLog.Here()
	for _, at := range []Endpoint{p.IMAP, p.POP3} {
		var heard [2]string
		for i, password := range []string{"secret", "wrong"} {
			k := rig.Dial(t, at.By(Plain))
			if at == p.IMAP {
				heard[i] = k.Ask("a LOGIN "+scanner.User+" "+password, `^a NO \[UNAVAILABLE\] `+ended)
			} else {
				heard[i] = k.Ask("USER "+scanner.User, `^-ERR \[SYS/PERM\] `+ended) + k.Ask("PASS "+password, `^-ERR`)
			}
			k.conn.Close()
			heard[i] = regexp.MustCompile(`\([0-9A-Z]{12}\)`).ReplaceAllString(heard[i], "(ID)")
		}
		if heard[0] != heard[1] {
			t.Errorf("the right password hears %q, a wrong one %q", heard[0], heard[1])
		}
	}
	if said := dovecot.Text(); strings.Contains(said, scanner.User) {
		t.Errorf("Dovecot was asked:\n%s", said)
	}
	s.each("pass", "", told...)
	// Over TLS the other methods are not offered, and who insists is told which one is left.
	from := p.Events.Here()
	k := rig.Dial(t, Endpoint{"imap.example.org", p.IMAPS.Port, Implicit})
	if said := k.Ask("a AUTHENTICATE CRAM-MD5", "^a NO"); strings.Contains(said, "AUTH=CRAM") ||
		!regexp.MustCompile(`a NO \[UNAVAILABLE\] `+notWrong+`Authentifizierung: "Passwort, normal"`).MatchString(said) {
		t.Errorf("CRAM-MD5 hears\n%s", said)
	}
	k.conn.Close()
	p.WaitEvent(t, from, "CRAM-MD5", func(e Event) bool { return e.Action == "deny" && fmt.Sprint(e.By) == "[password-only]" && !e.Verified })

	// The copier goes on from its own network, and from nowhere else.
	there := []string{"--interface", "127.0.7.1"}
	x := try{program: "curl IMAP", at: p.IMAP.By(Plain), account: scanner, args: there, action: "notify", by: "encrypted"}
	_, e := s.try(x)
	if e.Exception != "ex-017" {
		t.Errorf("event %+v", e)
	}
	if said, code := p.Command(t, "policy", "explain", e.ID, "-c", p.Config); code != 0 || !strings.Contains(said, "ex-017") || !strings.Contains(said, "notify") {
		t.Errorf("the explanation: %d\n%s", code, said)
	}
	s.each("notify", "encrypted", try{program: "curl SMTP", at: p.Submission.By(Plain), account: scanner, args: there})
	s.each("deny", "encrypted",
		try{program: "curl IMAP", at: p.IMAP.By(Plain), account: scanner, hears: imap},
		try{program: "curl IMAP", at: p.IMAP.By(Plain), args: there, hears: `NO \[UNAVAILABLE\] ` + ended})

	// The telephones ring: all are let in again, at once and for a while.
	s.hold("notify")
	s.each("notify", "encrypted", s.plain()...)
	s.lift()
	s.each("deny", "encrypted", try{program: "fetchmail POP3", at: p.POP3.By(Plain), hears: pop3 + help})

	p.RunAt(t, "2025-01-01T00:00:00+01:00")
	s.each("deny", "encrypted", try{program: "curl IMAP", at: p.IMAP.By(Plain), account: scanner, args: there, hears: imap})
}

// Everything is allowed, then observed, told, tried and ended (DOKOM21).
func TestExampleOptionalTLS(t *testing.T) {
	t.Parallel()
	rig := StartServers(t)
	s := rig.begin(t, "optional-tls", "imap.example.org", "pop3.example.org", "smtp.example.org")
	p := s.p
	// The servers of the test know this domain.
	text, err := os.ReadFile(p.Config)
	must(t, err)
	must(t, os.WriteFile(p.Config, []byte(strings.Replace(string(text), "default_domain: example.org", "default_domain: "+Domain, 1)), 0o600))
	anna := rig.NewAccount(t, "secret")
	must(t, os.WriteFile(filepath.Join(filepath.Dir(p.Config), "aliases.txt"), []byte("info@kunde.example "+anna.User+"\n"), 0o600))

	told := s.inTLS("imap.example.org", "pop3.example.org", "smtp.example.org")
	on25 := try{program: "swaks", at: p.Port25.By(Plain), mech: "LOGIN"}
	tls25 := try{program: "curl SMTP", at: p.Port25.By(StartTLS), host: "smtp.example.org"}
	wrongName := try{program: "curl IMAP", at: p.IMAPS, host: "pop3.example.org"}

	p.RunAt(t, "2027-01-10T23:00:00+01:00")
	s.each("pass", "", append(s.plain(), on25, tls25, wrongName)...)
	s.each("pass", "", told...)
	s.oldTLS("pass", "", "imap.example.org", "^a OK")

	for _, stage := range [][2]string{{"2027-01-11T00:00:00+01:00", "observe"}, {"2027-03-01T00:00:00+01:00", "notify"}} {
		p.RunAt(t, stage[0])
		s.each(stage[1], "encrypted", s.plain()...)
		s.oldTLS(stage[1], "modern-tls", "imap.example.org", "^a OK")
	}
	// However they type it, a person is one account, and the server is told its name.
	for _, login := range []string{"", anna.Bare(), "info@kunde.example"} {
		dovecot := rig.DovecotLog.Here()
		x := try{program: "curl IMAP", at: p.IMAP.By(Plain), account: anna, login: login, action: "notify", by: "encrypted"}
		if _, e := s.try(x); !e.Exposed {
			t.Errorf("event %+v", e)
		}
		dovecot.Wait(t, "user=<"+anna.User+">")
	}
	s.each("observe", "right-name", wrongName)
	s.each("notify", "encrypted submission-port", on25)

	p.RunAt(t, "2027-05-03T00:00:00+02:00")
	first, other := s.drawn("encrypted", 0, 10), s.drawn("encrypted", 50, 100)
	imap := try{program: "curl IMAP", at: p.IMAP.By(Plain), account: first}
	s.warnedOnce(imap, "encrypted", `Verschluesselung fehlt und wird ab 06\.07\. verlangt: SSL/TLS, Server imap\.example\.org, Port 993\.`)
	s.each("warn", "encrypted", s.plain()...)
	s.warnedOnce(wrongName, "right-name", `Servername gilt fuer POP3\. Bitte fuer IMAP: imap\.example\.org, Port 993, SSL/TLS\.`)

	const trial = notWrong + `Testabschaltung bis 09:20: SSL/TLS fehlt\. `
	p.RunAt(t, "2027-06-01T09:00:00+02:00")
	s.each("tempfail", "encrypted",
		try{program: "curl IMAP", at: p.IMAP.By(Plain), hears: `\* OK \[ALERT\] ` + trial + `imap\.example\.org, Port 993\.`},
		try{program: "fetchmail POP3", at: p.POP3.By(Plain), hears: `-ERR \[SYS/TEMP\] ` + trial + `pop3\.example\.org, Port 995\.`},
		try{program: "curl SMTP", at: p.Submission.By(Plain), hears: `450 4\.7\.0 ` + trial + `smtp\.example\.org, Port 465\.`})
	s.each("pass", "", told...)

	// A tenth of the accounts is refused; of the others nobody hears anything new.
	const ended = notWrong + `Verschluesselung fehlt: SSL/TLS, Server `
	p.RunAt(t, "2027-07-06T12:00:00+02:00")
	s.each("deny", "encrypted",
		try{program: "curl IMAP", at: p.IMAP.By(Plain), account: first, hears: `NO \[UNAVAILABLE\] ` + ended + `imap\.example\.org, Port 993\.`},
		try{program: "fetchmail POP3", at: p.POP3.By(Plain), account: first, hears: `-ERR \[SYS/PERM\] ` + ended + `pop3\.example\.org, Port 995\.`},
		try{program: "swaks", at: p.Submission.By(Plain), account: first, mech: "LOGIN", hears: ended + `smtp\.example\.org, Port 465\.`})
	s.each("warn", "encrypted",
		try{program: "curl IMAP", at: p.IMAP.By(Plain), account: other},
		try{program: "fetchmail POP3", at: p.POP3.By(Plain), account: other},
		try{program: "swaks", at: p.Submission.By(Plain), account: other, mech: "LOGIN"})

	p.RunAt(t, "2027-07-20T00:00:00+02:00")
	refused := []try{
		{program: "curl IMAP", at: p.IMAP.By(Plain), account: other, hears: `\* OK \[ALERT\] ` + ended + `imap\.example\.org, Port 993\.`},
		{program: "fetchmail POP3", at: p.POP3.By(Plain), account: other, hears: `-ERR \[SYS/PERM\] ` + ended + `pop3\.example\.org, Port 995\.`},
		{program: "curl SMTP", at: p.Submission.By(Plain), account: other, hears: `530 5\.7\.0 ` + ended + `smtp\.example\.org, Port 465\.`},
	}
	s.each("deny", "encrypted", refused...)
	s.each("pass", "", told...)
	s.each("warn", "submission-port", tls25)
	s.oldTLS("deny", "modern-tls", "imap.example.org", `^a NO \[UNAVAILABLE\] `+notWrong+`Programm ist veraltet: TLS 1\.2 fehlt\.`)
	s.hold("notify")
	s.each("notify", "encrypted", s.plain()...)
	s.oldTLS("notify", "modern-tls", "imap.example.org", "^a OK")
	s.lift()
	s.each("deny", "encrypted", refused[1])

	p.RunAt(t, "2028-01-11T00:00:00+01:00")
	s.noOldTLS("imap.example.org")
	tls25.hears = `550 5\.7\.1 ` + notWrong + `Neuer Port: 465, Server smtp\.example\.org, SSL/TLS\.`
	s.each("deny", "submission-port", tls25)
	s.each("pass", "", told...)
}

// Four ports are left, with the whole address as user name (a small provider).
func TestExampleFourPorts(t *testing.T) {
	t.Parallel()
	rig := StartServers(t)
	s := rig.begin(t, "four-ports", "imap.example.org", "pop.example.org", "smtp.example.org")
	p := s.p
	told := s.inTLS("imap.example.org", "pop.example.org", "smtp.example.org")
	// SSL/TLS on 587 is a frequent slip, and works.
	told = append(told, try{program: "curl SMTP", at: p.Submission.By(Implicit), host: "smtp.example.org"})
	fetch, send := s.plain()[:4], s.plain()[4:]
	tls143 := try{program: "curl IMAP", at: p.IMAP.By(StartTLS), host: "imap.example.org", account: rig.NewAccount(t, "secret")}
	tls110 := try{program: "curl POP3", at: p.POP3.By(StartTLS), host: "pop.example.org"}
	tls25 := try{program: "curl SMTP", at: p.Port25.By(StartTLS), host: "smtp.example.org"}

	p.RunAt(t, "2026-01-31T12:00:00+01:00")
	s.each("pass", "", append(append(fetch, send...), tls143, tls110, tls25)...)
	s.each("pass", "", told...)
	p.RunAt(t, "2026-02-01T00:00:00+01:00")
	s.each("observe", "encrypted", append(fetch, send...)...)
	s.oldTLS("notify", "modern-tls", "imap.example.org", "^a OK")
	p.RunAt(t, "2026-03-01T00:00:00+01:00")
	s.each("notify", "encrypted our-ports", fetch...)
	s.each("notify", "encrypted", send...)
	s.each("notify", "submission-port", tls25)

	// TLS is on at 143, so the words are about the port.
	p.RunAt(t, "2026-05-01T00:00:00+02:00")
	s.warnedOnce(tls143, "our-ports", `Dieser Port endet am 22\.06\. Bitte einstellen: imap\.example\.org, Port 993, SSL/TLS\.`)
	imap := fetch[0]
	imap.account = rig.NewAccount(t, "secret")
	s.warnedOnce(imap, "encrypted our-ports", `Verschluesselung fehlt und wird ab 01\.06\. verlangt: SSL/TLS, Server imap\.example\.org, Port 993\.`)
	s.each("warn", "encrypted our-ports", fetch[2:]...)
	s.each("warn", "encrypted", send...)

	const ended = notWrong + `Verschluesselung fehlt: SSL/TLS, Server `
	p.RunAt(t, "2026-06-01T00:00:00+02:00")
	s.each("deny", "encrypted our-ports",
		try{program: "curl IMAP", at: p.IMAP.By(Plain), hears: `\* OK \[ALERT\] ` + ended + `imap\.example\.org, Port 993\.`},
		try{program: "fetchmail POP3", at: p.POP3.By(Plain), hears: `-ERR \[SYS/PERM\] ` + ended + `pop\.example\.org, Port 995\.`})
	s.each("deny", "encrypted",
		try{program: "curl SMTP", at: p.Submission.By(Plain), hears: `530 5\.7\.0 ` + ended + `smtp\.example\.org, Port 465\.`})
	s.each("warn", "our-ports", tls143, tls110)
	s.oldTLS("deny", "modern-tls", "imap.example.org", `^a NO \[UNAVAILABLE\] `+notWrong+`Programm ist veraltet: TLS 1\.2 fehlt\.`)
	bare := told[0]
	bare.account = rig.NewAccount(t, "secret")
	bare.login, bare.hears = bare.account.Bare(), `NO \[UNAVAILABLE\] `+notWrong+`Der Benutzername ist jetzt die ganze E-Mail-Adresse\.`
	s.each("deny", "whole-address", bare)
	s.each("pass", "", told...)
	from := p.Events.Here()
	k := rig.Dial(t, Endpoint{"imap.example.org", p.IMAPS.Port, Implicit})
	k.Ask("a AUTHENTICATE NTLM", `^a NO \[UNAVAILABLE\] `+notWrong+`Authentifizierung: "Passwort, normal"`)
	k.conn.Close()
	p.WaitEvent(t, from, "NTLM", func(e Event) bool { return e.Action == "deny" && fmt.Sprint(e.By) == "[no-spa]" && !e.Verified })

	p.RunAt(t, "2026-06-22T00:00:00+02:00")
	tls110.mech = "any" // PLAIN is not offered where its answer would be taken for a wrong password
	tls143.hears = `NO \[UNAVAILABLE\] ` + notWrong + `Neuer Port: 993, Server imap\.example\.org, SSL/TLS\.`
	tls110.hears = `-ERR \[SYS/PERM\] ` + notWrong + `Neuer Port: 995, Server pop\.example\.org, SSL/TLS\.`
	s.each("deny", "our-ports", tls143, tls110)
	tls25.hears = `450 4\.7\.1 ` + notWrong + `Testabschaltung\. Neuer Port: smtp\.example\.org, Port 465\.`
	s.each("tempfail", "submission-port", tls25)
	s.hold("warn")
	tls143.hears, tls25.hears = "", ""
	s.each("warn", "our-ports", tls143)
	s.each("warn", "submission-port", tls25)
	s.lift()

	p.RunAt(t, "2026-09-01T00:00:00+02:00")
	tls25.hears = `550 5\.7\.1 ` + notWrong + `Neuer Port: 465, Server smtp\.example\.org, SSL/TLS\.`
	s.each("deny", "submission-port", tls25)
	s.noOldTLS("imap.example.org")
	s.each("pass", "", told...)
}
