package main

import (
	"bytes"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"mailreeve/events"
)

// guarded ends logins in clear as 2020 begins, if no more than a part still uses them, and
// before for whom it was never seen.
const guarded = `version: 1
timezone: UTC
requirements:
  - id: encrypted
    finding: plaintext
    require: { tls: '>=1.2' }
    stages:
      - { from: 2019-01-01, do: notify, ratchet: { clean: 30d, do: deny } }
      - { from: 2020-01-01, do: deny, guard: { open: PART, do: notify } }
`

// campaign is a site's configuration with a ledger.
const campaign = rest + `policy: policy.yaml
state: state
outreach: { campaign: tls, purpose: a test, end: 2020-12-31, timezone: UTC }
`

// remember puts sessions of the last weeks of 2019 into the ledger: of each account its
// form of TLS.
func (s *site) remember(tls map[string]string) {
	s.t.Helper()
	var file bytes.Buffer
	for day := time.Date(2019, 11, 20, 12, 0, 0, 0, time.UTC); day.Year() == 2019; day = day.AddDate(0, 0, 1) {
		for account, version := range tls {
			entry := "implicit"
			if version == "none" {
				entry = "plain"
			}
			line, err := events.Encode(&events.Session{Time: day, ID: fmt.Sprintf("%.6s%d", strings.ToUpper(account), day.YearDay()), Protocol: "pop3",
				Port: 995, IP: netip.MustParseAddr("192.0.2.1"), Entry: entry, TLS: version, CipherClass: "modern", Host: "canonical", Brand: "example",
				Mechanism: "USERPASS", Account: account, Verified: true, Action: "pass"})
			if err != nil {
				s.t.Fatal(err)
			}
			file.Write(line)
		}
	}
	s.write("past.jsonl", file.String())
	s.command("outreach", "import", "-c", s.path("mailreeve.yaml"), "--now", "2019-12-31T22:00:00Z", "--events", s.path("past.jsonl"))
}

// TestLedgerLives plays the last minutes before a stage, with accounts that the demo's
// servers have.
func TestLedgerLives(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ name, part, said, hears string }{
		{"held back", "10%", "a guard puts a hold", "+OK"},
		{"let in", "60%", "the policy's clock: encrypted: deny", "-ERR [SYS/PERM]"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			s.write("policy.yaml", strings.ReplaceAll(guarded, "PART", test.part))
			s.configure(listeners, campaign)
			s.remember(map[string]string{"anna": "none", "bert": "1.3"})
			s.start(nil, []string{"run", "-c", s.path("mailreeve.yaml"), "--now", "2019-12-31T23:59:56Z"})
			s.log.await(t, "policy in force")
			s.log.await(t, "the ledger is read")
			// Anna has always come in clear, so no ratchet holds her.
			if line := s.inClear(); !strings.HasPrefix(line, "+OK") {
				t.Errorf("before the stage: %s", line)
			}
			e := s.event("events.jsonl", "pop3", func(e events.Session) bool { return e.Verified })
			if e.Ledger != "open" || e.Action != "notify" {
				t.Errorf("before the stage the event has ledger %q, action %s", e.Ledger, e.Action)
			}
			s.log.await(t, "the policy's clock: encrypted: deny")
			s.log.await(t, test.said)
			if test.part == "10%" {
				s.log.await(t, "a hold is in force: nothing meets more than notify.*1 of 2 accounts seen in 30 days have an open finding, which is 50%; the guard allows 10%")
			}
			if line := s.inClear(); !strings.HasPrefix(line, test.hears) {
				t.Errorf("in the stage: %s", line)
			}
		})
	}
}

// TestLedgerIsNoMustHave runs without a ledger that can be opened: customers are served.
func TestLedgerIsNoMustHave(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.write("policy.yaml", strings.ReplaceAll(guarded, "PART", "10%"))
	s.configure(listeners, campaign)
	s.command("outreach", "follow", "--once", "-c", s.path("mailreeve.yaml"))
	s.write("state/ledger.db", "this is no database, and never was one, whatever its name says about it")
	s.start(nil, []string{"run", "-c", s.path("mailreeve.yaml"), "--now", "2019-12-31T12:00:00Z"})
	s.log.await(t, "policy in force")
	s.log.await(t, "the ledger cannot be used; customers are served all the same")
	if line := s.inClear(); !strings.HasPrefix(line, "+OK") {
		t.Errorf("without a ledger: %s", line)
	}
}
