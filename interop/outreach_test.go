package interop

import (
	"fmt"
	"io"
	"mime/quotedprintable"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// campaign lets an example's notices go out by the servers of the test.
func (s story) campaign(name string) {
	s.t.Helper()
	text, err := os.ReadFile(s.p.Config)
	must(s.t, err)
	server := fmt.Sprintf("server: '%s'\n    ca: %q\n    user: %s\n    password_file: notices.secret", s.rig.SubmissionStartTLS.Addr(), s.rig.CAFile, Anna.User)
	file := strings.Replace(string(text), "server: '10.0.0.6:25'\n    name: "+name, server, 1)
	if file == string(text) {
		s.t.Fatal("the example sends no notices")
	}
	must(s.t, os.WriteFile(s.p.Config, []byte(file), 0o600))
	must(s.t, os.WriteFile(filepath.Join(filepath.Dir(s.p.Config), "notices.secret"), []byte(Anna.Password+"\n"), 0o600))
}

// outreach is a command of it on a day, at ten in the morning.
func (s story) outreach(day string, args ...string) string {
	s.t.Helper()
	out, code := s.p.Command(s.t, append([]string{"outreach", args[0], "-c", s.p.Config, "--now", day + " 10:00"}, args[1:]...)...)
	if code != 0 {
		s.t.Fatalf("outreach %s on %s: %d\n%s", strings.Join(args, " "), day, code, out)
	}
	return out
}

// week sends what is due on each of some days.
func (s story) week(days ...string) {
	s.t.Helper()
	for _, day := range days {
		s.outreach(day, "send")
	}
}

// notices are the notices in a mailbox, as a person reads them.
func (s story) notices(a Account) (all []string) {
	s.t.Helper()
	for _, mail := range s.rig.Mails(s.t, a) {
		if !strings.Contains(mail, "Auto-Submitted: auto-generated") {
			continue
		}
		var text strings.Builder
		// The lines of quoted-printable are joined, whatever stands between the parts.
		for _, part := range strings.SplitAfter(mail, "\n\n") {
			if decoded, err := io.ReadAll(quotedprintable.NewReader(strings.NewReader(part))); err == nil {
				part = string(decoded)
			}
			text.WriteString(part)
		}
		all = append(all, text.String())
	}
	return all
}

// has waits for the notices of an account: their number, and what the last one says.
func (s story) has(who string, a Account, n int, words ...string) {
	s.t.Helper()
	var got []string
	eventually(func() bool { got = s.notices(a); return len(got) >= n })
	if len(got) != n {
		s.t.Errorf("%s has %d notices, and %d were to come:\n%s", who, len(got), n, strings.Join(got, "\n\n"))
		return
	}
	for _, word := range words {
		if !strings.Contains(strings.Join(strings.Fields(got[n-1]), " "), word) {
			s.t.Errorf("%s is not told %q:\n%s", who, word, got[n-1])
		}
	}
}

// says wants the output of a command to match.
func (s story) says(out, pattern string) {
	s.t.Helper()
	if !regexp.MustCompile(pattern).MatchString(out) {
		s.t.Errorf("there is no %q in\n%s", pattern, out)
	}
}

// A campaign from the first login in clear to the last notice: who is concerned is told, who has
// changed the settings is told no more, and nobody else hears of it.
func TestOutreachDatedSwitchOff(t *testing.T) {
	t.Parallel()
	rig := StartServers(t)
	s := rig.begin(t, "dated-switch-off", "imap.example.org", "pop.example.org", "smtp.example.org", "mail.example.org")
	p := s.p
	s.campaign("smtp.example.org")
	scanner, plain, hidden, fine := rig.NewAccount(t, "secret"), rig.NewAccount(t, "secret"), rig.NewAccount(t, "secret"), rig.NewAccount(t, "secret")
	p.rewrite(t, "scanner@kunde-a.example", scanner.User, "198.51.100.0/28", "127.0.7.0/28")
	bad := try{program: "curl IMAP", at: p.IMAP.By(Plain), account: plain, action: "notify", by: "encrypted"}
	sends := try{program: "curl SMTP", at: p.Submission.By(Plain), account: plain, action: "notify", by: "encrypted"}
	cram := try{program: "curl IMAP", at: p.IMAPS, host: "imap.example.org", mech: "CRAM-MD5", account: hidden, action: "notify", by: "password-only"}
	good := try{program: "curl IMAP", at: p.IMAPS, host: "imap.example.org", account: fine, action: "pass"}

	p.RunAt(t, "2024-06-01T12:00:00+02:00")
	s.try(bad)
	s.try(sends)
	s.try(cram)
	s.try(good)
	s.try(try{program: "curl IMAP", at: p.IMAP.By(Plain), account: scanner, args: []string{"--interface", "127.0.7.1"}, action: "notify", by: "encrypted"})
	// A wrong password in clear concerns nobody.
	k := rig.Dial(t, p.IMAP.By(Plain))
	k.Ask("a LOGIN "+fine.User+" wrong", "^a NO")
	k.conn.Close()
	p.Stop(t)

	s.outreach("2024-06-02", "follow", "--once")
	s.says(s.outreach("2024-06-02", "impact", "--as", "deny"), `\b2\b`)
	if out := s.outreach("2024-06-02", "plan", "--all"); strings.Contains(out, fine.User) && !regexp.MustCompile(regexp.QuoteMeta(fine.User)+`.*nothing`).MatchString(out) {
		t.Errorf("the plan names who has nothing to change:\n%s", out)
	}
	s.week("2024-06-03", "2024-06-04", "2024-06-05", "2024-06-06", "2024-06-07")
	s.has("plaintext", plain, 1, "20. September 2024", "imap.example.org", "993", "smtp.example.org", "465", "webmail.example.org", "hilfe.example.org/20-september", "MR-")
	s.has("CRAM-MD5", hidden, 1, "20. September 2024")
	s.has("all is well", fine, 0)
	s.has("the exception", scanner, 0)

	// One of the two changes what the notice says.
	p.RunAt(t, "2024-06-10T12:00:00+02:00")
	bad.at, bad.host, bad.action, bad.by = p.IMAPS, "imap.example.org", "pass", ""
	sends.at, sends.host, sends.action, sends.by = p.Submissions, "smtp.example.org", "pass", ""
	s.try(bad)
	s.try(sends)
	p.RunAt(t, "2024-06-27T12:00:00+02:00")
	s.try(bad)
	s.try(sends)
	s.try(cram)
	p.Stop(t)
	s.outreach("2024-06-28", "follow", "--once")
	s.says(s.outreach("2024-06-28", "show", plain.User), `erledigt, encrypted`)
	s.week("2024-06-28", "2024-07-01", "2024-07-02", "2024-07-03", "2024-07-04", "2024-07-05")
	s.has("who has changed it", plain, 1)
	s.has("who has not", hidden, 2, "20. September 2024")
	s.has("all is well", fine, 0)

	// What is asked for is deleted, and what was done is written down.
	s.outreach("2024-07-05", "forget", plain.User)
	if out, code := p.Command(t, "outreach", "show", plain.User, "-c", p.Config); code != 1 {
		t.Errorf("who is forgotten is shown: %s", out)
	}
	s.says(s.outreach("2024-07-05", "audit"), `(?s)send.*forget`)
}

// Customers leave the names of their own domains.
func TestOutreachCanonicalHosts(t *testing.T) {
	t.Parallel()
	rig := StartServers(t)
	ca := rig.StartCA(t, CASettings{})
	s := story{t: t, rig: rig, p: rig.example(t, "canonical-hosts", ca.RootFile,
		"http: ':80'", fmt.Sprintf("http: '127.0.0.1:%d'", ca.HTTP),
		"https: ':443'", fmt.Sprintf("https: '127.0.0.1:%d'", ca.TLS),
		"email: hostmaster@example.org", fmt.Sprintf("email: hostmaster@example.org\n    directory: %q\n    ca: %q", ca.Directory, ca.CAFile))}
	p := s.p
	s.campaign("send.example.org")
	p.RunAt(t, "2019-02-08T12:00:00+01:00")
	p.waitIssued(t, time.Minute)
	old, moved := rig.NewAccount(t, "secret"), rig.NewAccount(t, "secret")
	imap := try{program: "curl IMAP", at: p.IMAPS, host: "imap.kunde.example", account: old, action: "notify", by: "canonical-host"}
	smtp := try{program: "curl SMTP", at: p.Submission.By(StartTLS), host: "smtp.kunde.example", account: old, action: "notify", by: "canonical-host"}
	s.try(imap)
	s.try(smtp)
	s.try(try{program: "curl IMAP", at: p.IMAPS, host: "imap.example.org", account: moved, action: "pass"})
	p.Stop(t)
	s.outreach("2019-02-09", "follow", "--once")
	s.week("2019-02-11", "2019-02-12", "2019-02-13", "2019-02-14", "2019-02-15")
	s.has("an old name", old, 1, "1. Juni 2019", "imap.kunde.example", "smtp.kunde.example", "imap.example.org", "send.example.org")
	s.has("the new name", moved, 0)

	p.RunAt(t, "2019-02-20T12:00:00+01:00")
	imap.host, imap.action, imap.by = "imap.example.org", "pass", ""
	smtp.host, smtp.action, smtp.by = "send.example.org", "pass", ""
	s.try(imap)
	s.try(smtp)
	p.Stop(t)
	s.outreach("2019-03-09", "follow", "--once")
	s.week("2019-03-09", "2019-03-11", "2019-03-12", "2019-03-13", "2019-03-14", "2019-03-15", "2019-03-18")
	s.has("who has changed it", old, 1)
	s.has("the new name", moved, 0)
}
