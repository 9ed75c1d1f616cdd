package interop

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// office is a campaign whose notices go out by the rig's Postfix.
type office struct {
	t       *testing.T
	rig     *Rig
	program string
	config  string
	bounces Account // the mailbox behind the return paths
}

// newOffice makes a campaign in which accounts log in in clear, and are told so a week before
// the day, on Friday, 8 January 2027.
func newOffice(t *testing.T, rig *Rig, accounts ...string) *office {
	t.Helper()
	program, err := mailreeve()
	must(t, err)
	dir := t.TempDir()
	o := &office{t: t, rig: rig, program: program, config: filepath.Join(dir, "mailreeve.yaml"), bounces: rig.NewAccount(t, "bounces")}
	must(t, os.WriteFile(o.config, fmt.Appendf(nil, `version: 1
brands:
  - name: example
    language: de
    help: https://hilfe.example.test
    hosts: { imap: [imap.example.test], pop3: [pop.example.test], submission: [smtp.example.test] }
    notices: { from: service@example.test, sender: Example Mail, envelope: '%s' }
listeners:
  - { address: '127.0.0.1:1993', protocol: imap, tls: implicit }
backends:
  imap: { addresses: ['127.0.0.1:143'], tls: off }
certificates: { files: [{ cert: mail.pem, key: mail.pem }] }
policy: policy.yaml
outreach:
  ledger: %q
  campaign: tls-2027
  purpose: Tests.
  end: 2027-03-31
  notices: { server: '%s', tls: starttls, ca: %q, user: '%s', password_file: secret, per_minute: 100000, per_hour: 1000000, per_day: 1000000 }
`, o.bounces.User, filepath.Join(dir, "ledger.db"), rig.SubmissionStartTLS.Addr(), rig.CAFile, Anna.User), 0o600))
	must(t, os.WriteFile(filepath.Join(dir, "secret"), []byte(Anna.Password+"\n"), 0o600))
	must(t, os.WriteFile(filepath.Join(dir, "policy.yaml"), []byte(`version: 1
timezone: Europe/Berlin
requirements:
  - id: encrypted
    finding: plaintext
    require: { tls: '>=1.2' }
    stages: [{ from: 2027-01-01, do: notify }, { from: 2027-01-15, do: deny }]
`), 0o600))
	var events strings.Builder
	for n, account := range accounts {
		fmt.Fprintf(&events, `{"v":1,"event":"session","time":"2027-01-07T09:00:00Z","id":"%012d","listener":"imap-143","protocol":"imap","port":143,"ip":"192.0.2.7","entry":"plain","tls":"none","host":"absent","brand":"example","mechanism":"PLAIN","user_form":"address","account":"%s","domain":"example.test","verified":true,"action":"notify"}`+"\n", n, account)
	}
	must(t, os.WriteFile(filepath.Join(dir, "events.jsonl"), []byte(events.String()), 0o600))
	o.run("", "import", "--events", filepath.Join(dir, "events.jsonl"))
	return o
}

// command is a command of outreach, on that Friday.
func (o *office) command(args ...string) *exec.Cmd {
	args = append([]string{"outreach", args[0], "-c", o.config, "--now", "2027-01-08 10:00"}, args[1:]...)
	cmd := exec.CommandContext(context.Background(), o.program, args...)
	cmd.Dir = filepath.Dir(o.config)
	cmd.Env = append(os.Environ(), "GORACE=halt_on_error=1 atexit_sleep_ms=0")
	return cmd
}

// run runs a command to its end, and returns what it says.
func (o *office) run(input string, args ...string) string {
	o.t.Helper()
	cmd := o.command(args...)
	cmd.Stdin = strings.NewReader(input)
	out, err := cmd.CombinedOutput()
	if err != nil {
		o.t.Fatalf("outreach %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// plan is what the plan says of the accounts.
func (o *office) plan() map[string]int {
	o.t.Helper()
	var plan struct{ Reasons map[string]int }
	must(o.t, json.Unmarshal([]byte(o.run("", "plan", "--json")), &plan))
	return plan.Reasons
}

// doubts are the accounts to which a notice is in doubt.
func (o *office) doubts() map[string]bool {
	o.t.Helper()
	var all []struct{ Account string }
	must(o.t, json.Unmarshal([]byte(o.run("", "doubts", "--json")), &all))
	doubts := map[string]bool{}
	for _, d := range all {
		doubts[d.Account] = true
	}
	return doubts
}

// Senders are killed at random instants, again and again, until nothing is due. Each customer
// has exactly one mail, or his notice is in doubt, and he has one or none; Postfix's own log
// settles which.
func TestNoticesOfKilledSenders(t *testing.T) {
	t.Parallel()
	rig := StartServers(t)
	const customers, kills = 250, 250
	var accounts []Account
	var names []string
	for range customers {
		a := rig.NewAccount(t, "kennwort")
		accounts, names = append(accounts, a), append(names, a.User)
	}
	o := newOffice(t, rig, names...)
	begin := time.Now()
	o.run("", "send", "--limit", "1")
	one := time.Since(begin) // what a sender takes to its first mail and a little longer
	killed := 0
	for o.t.Context().Err() == nil {
		if killed >= kills {
			o.run("", "send")
			break
		}
		cmd := o.command("send")
		must(t, cmd.Start())
		timer := time.AfterFunc(time.Duration(rand.Int64N(int64(one))), func() { cmd.Process.Kill() })
		err := cmd.Wait()
		timer.Stop()
		var exit *exec.ExitError
		switch {
		case err == nil: // it was faster, and ended because nothing is due
		case errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL:
			killed++
			continue
		default:
			t.Fatal(err)
		}
		break
	}
	doubts := o.doubts()
	reasons := o.plan()
	t.Logf("%d senders killed, %d of %d notices in doubt; a sender with one mail takes %v", killed, len(doubts), customers, one)
	if reasons["told"] != customers-len(doubts) || reasons["doubt"] != len(doubts) {
		t.Errorf("in the end: %v, %d doubts", reasons, len(doubts))
	}
	if killed < 30 { // mostly more than 200: fewer where the machine was slow at first, and the instants lie late
		t.Errorf("only %d senders were killed", killed)
	}

	// What has reached the queue reaches the mailboxes.
	mails := func(a Account) int { return len(rig.Mails(t, a)) }
	for _, a := range accounts {
		if !doubts[a.User] {
			rig.WaitMail(t, a, "Auto-Submitted: auto-generated")
		}
	}
	o.run("", "doubts", "--log", rig.PostfixLog.path)
	open := o.doubts()
	for _, a := range accounts {
		if doubts[a.User] && !open[a.User] { // settled: there is a mail
			rig.WaitMail(t, a, "Auto-Submitted: auto-generated")
		}
		want := 1
		if open[a.User] {
			want = 0
		}
		if n := mails(a); n != want {
			t.Errorf("%s has %d mails, and %d by the ledger", a.User, n, want)
		}
	}
	t.Logf("by Postfix's log %d of the doubts were sent, and %d not", len(doubts)-len(open), len(open))

	// Those that were not sent are, and nobody gets a second one.
	for name := range open {
		o.run("", "doubts", "--again", name)
	}
	o.run("", "send")
	for _, a := range accounts {
		rig.WaitMail(t, a, "Auto-Submitted: auto-generated")
		if n := mails(a); n != 1 {
			t.Errorf("in the end %s has %d mails", a.User, n)
		}
	}
	if len(o.doubts()) != 0 || o.plan()["told"] != customers {
		t.Errorf("in the end: %v", o.plan())
	}
}

// A notice to a mailbox that there is no more comes back by its return path, and the account
// gets no other.
func TestNoticesComeBack(t *testing.T) {
	t.Parallel()
	rig := StartServers(t)
	there := rig.NewAccount(t, "kennwort")
	const gone = "gekuendigt@example.test"
	o := newOffice(t, rig, there.User, gone)
	if said := o.run("", "send"); !strings.Contains(said, "2 sent") {
		t.Fatal(said)
	}
	mail := rig.WaitMail(t, there, "Auto-Submitted: auto-generated")
	bare, _, _ := strings.Cut(o.bounces.User, "@")
	if !strings.Contains(mail, "Return-Path: <"+bare+"+") {
		t.Errorf("the return path has no code:\n%s", mail)
	}

	report := rig.WaitMail(t, o.bounces, "message/delivery-status")
	if said := o.run(report, "bounce"); !strings.Contains(said, gone+" gets no more notices: it could not be delivered: 5.1.1 ") {
		t.Errorf("%s\n%s", said, report)
	}
	reasons := o.plan()
	if reasons["bounced"] != 1 || reasons["told"] != 1 {
		t.Errorf("%v", reasons)
	}
	// The same once more, and what anybody may send there, change nothing.
	o.run(report, "bounce")
	if said := o.run("To: "+o.bounces.User+"\nSubject: buy\n\nbuy\n", "bounce"); said != "It belongs to no notice.\n" {
		t.Error(said)
	}
	// An absence note to a real notice is noted, and stops nothing.
	path := strings.SplitN(strings.SplitN(mail, "Return-Path: <", 2)[1], ">", 2)[0]
	if said := o.run("Auto-Submitted: auto-replied\nSubject: weg\n\nIm Urlaub\n", "bounce", "--to", path); said != "Noted for "+there.User+": a program has answered, as absence notes do\n" {
		t.Error(said)
	}
	if again := o.plan(); again["told"] != 1 || again["bounced"] != 1 {
		t.Errorf("%v", again)
	}
	o.run("", "call", gone, "--undo")
	if again := o.plan(); again["told"] != 2 {
		t.Errorf("%v", again)
	}

	// Where it cannot be noted, Postfix shall keep it: EX_TEMPFAIL.
	must(t, os.Rename(o.config, o.config+".away"))
	cmd := o.command("bounce")
	cmd.Stdin = strings.NewReader(report)
	out, err := cmd.CombinedOutput()
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != 75 {
		t.Errorf("without a configuration: %v\n%s", err, out)
	}
}
