package main

import (
	"os/exec"
	"strings"
	"testing"

	"mailreeve/events"
)

// ended is a policy under which logins in clear have come to their end.
const ended = `version: 1
timezone: UTC
requirements:
  - id: encrypted
    finding: plaintext
    require: { tls: '>=1.2' }
    stages: [{ from: 2019-01-01, do: observe }, { from: 2020-01-01, do: deny }]
tests:
  - { at: 2020-01-01, is: { tls: none }, expect: deny }
`

// command runs a command line to its end.
func (s *site) command(args ...string) string {
	s.t.Helper()
	out, err := exec.Command("mailreeve", args...).CombinedOutput()
	if err != nil {
		s.t.Fatalf("mailreeve %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// inClear tries to log in to POP3 in clear, and returns the last reply.
func (s *site) inClear() string {
	s.t.Helper()
	c := newTalk(s.t, s.dial("pop3"))
	defer c.conn.Close()
	c.hear(`^\+OK`)
	c.say("USER anna")
	if line := c.hear(`^(\+OK|-ERR)`); strings.HasPrefix(line, "-ERR") {
		return line
	}
	c.say("PASS demo")
	return c.hear(`^(\+OK|-ERR)`)
}

func TestPolicyLives(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.write("policy.yaml", ended)
	s.configure(listeners, rest+"policy: policy.yaml\nstate: state\n")
	s.run()
	if line := s.inClear(); !strings.HasPrefix(line, "-ERR [SYS/PERM] Your password is NOT wrong") {
		t.Errorf("at deny: %s", line)
	}

	// A hold is in force within a second, without a signal, and in the event.
	conf := s.path("mailreeve.yaml")
	s.command("policy", "hold", "-c", conf, "--cap", "notify", "--for", "1h", "--reason", "phones ring", "--owner", "anna")
	s.log.await(t, `"a hold is in force: nothing meets more than notify","cap":"notify","owner":"anna","reason":"phones ring"`)
	if line := s.inClear(); !strings.HasPrefix(line, "+OK") {
		t.Errorf("under a hold: %s", line)
	}
	e := s.event("events.jsonl", "pop3", func(e events.Session) bool { return e.Verified })
	if e.Action != "notify" || e.Hold == nil || e.Hold.Owner != "anna" {
		t.Errorf("the event has %s, hold %+v", e.Action, e.Hold)
	}
	if text := s.command("policy", "explain", e.ID, "-c", conf); !strings.Contains(text, "7. Hold: at most notify until ") ||
		!strings.Contains(text, "so that deny becomes notify") || !strings.Contains(text, "Result: notify") {
		t.Errorf("the explanation is\n%s", text)
	}
	s.command("policy", "lift", "-c", conf)
	s.log.await(t, "the hold is lifted: the policy is in force as it stands")
	if line := s.inClear(); !strings.HasPrefix(line, "-ERR") {
		t.Errorf("without the hold: %s", line)
	}

	// A reload reads the policy too; a bad one changes nothing.
	s.write("policy.yaml", strings.Replace(ended, "plaintext", "plaintxt", 1))
	if line := s.reload(); !strings.Contains(line, "not in force") {
		t.Error(line)
	}
	if line := s.inClear(); !strings.HasPrefix(line, "-ERR") {
		t.Errorf("after a bad file: %s", line)
	}
	s.write("policy.yaml", strings.ReplaceAll(ended, "deny", "notify"))
	if line := s.reload(); strings.Contains(line, "not in force") {
		t.Error(line)
	}
	if line := s.inClear(); !strings.HasPrefix(line, "+OK") {
		t.Errorf("after a milder file: %s", line)
	}
}

func TestRehearsal(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.write("policy.yaml", ended)
	s.configure(listeners, rest+"policy: policy.yaml\n")
	s.start(nil, []string{"run", "-c", s.path("mailreeve.yaml"), "--now", "2019-12-31T23:00:00Z"})
	s.log.await(t, `policy in force.*"stages":"encrypted observe","next":"encrypted: deny"`)
	s.log.await(t, "a rehearsal: the policy lives at another date")
	if line := s.inClear(); !strings.HasPrefix(line, "+OK") {
		t.Errorf("an hour before the end: %s", line)
	}
	e := s.event("events.jsonl", "pop3", func(e events.Session) bool { return e.Verified })
	if e.Decided.Year() != 2019 {
		t.Errorf("decided at %v", e.Decided)
	}
}
