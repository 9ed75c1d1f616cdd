package main

import (
	"net/netip"
	"testing"
	"time"

	"mailreeve/events"
	"mailreeve/policy"
)

// TestEventsHoldEveryFact: what a decision rests on is read back, so that it can be
// explained and gone over again.
func TestEventsHoldEveryFact(t *testing.T) {
	e := &events.Session{
		Time: time.Date(2026, 11, 21, 16, 45, 0, 0, time.UTC), ID: "K7M29QXD4TZP", Listener: "imap", Protocol: "imap", Port: 143,
		IP: netip.MustParseAddr("192.0.2.7"), Entry: policy.EntryStartTLS, TLS: "1.2", CipherClass: policy.Modern, SNI: "imap.example.org", Host: policy.Canonical,
		Brand: "example", Client: "Thunderbird 153", Mechanism: "PLAIN", UserForm: "address", Account: "anna@example.org", Domain: "example.org",
		Ledger: policy.Clean, Verified: true,
	}
	f := factsOf(e)
	for fact := policy.Brand; fact <= policy.Verified; fact++ {
		if f.Get(fact) == "" {
			t.Errorf("the event does not give back %v", fact)
		}
	}
	if f.IP != e.IP {
		t.Errorf("the address is %v", f.IP)
	}

	// A ratchet is gone over as it was, whatever the ledger says by now.
	ratchet, err := policy.New("ratchet", []policy.Requirement{{ID: "tls13", Finding: policy.TLSOld,
		Require: policy.Matcher{{Fact: policy.TLS, Values: []string{"1.3"}}},
		Stages:  []policy.Stage{{Do: policy.Warn, Ratchet: &policy.Ratchet{Clean: 60 * 24 * time.Hour, Do: policy.Deny}}}}})
	if err != nil {
		t.Fatal(err)
	}
	for ledger, want := range map[string]policy.Action{policy.Clean: policy.Deny, policy.Fixed: policy.Warn, "": policy.Warn} {
		e.Ledger = ledger
		if x := ratchet.Explain(factsOf(e), e.Time); x.Action != want {
			t.Errorf("ledger %q: explained as %v, want %v", ledger, x.Action, want)
		}
	}
}
