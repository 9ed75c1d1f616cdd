package outreach

// Made-up findings: templates are looked at, and linted, before anybody has been seen.

import (
	"time"

	"mailreeve/config"
	"mailreeve/fixes"
	"mailreeve/policy"
)

// SampleUse is what a made-up account does wrong.
type SampleUse struct {
	Class    fixes.Class
	Protocol string
	Program  string
	Network  string
	Findings []policy.Finding
}

// samplePorts are what is wrong about a port.
var samplePorts = map[string]int{"imap": 143, "pop3": 110, submission: 25}

// Sample makes a notice's input of what nobody has done: seen yesterday, and refused from t on.
func Sample(b *config.Brand, lang string, t, now time.Time, zone *time.Location, uses ...SampleUse) NoticeInput {
	domain := "example.org"
	if b.DefaultDomain != "" {
		domain = string(b.DefaultDomain)
	}
	n := NoticeInput{Account: &Account{Name: "erika.mustermann@" + domain}, Brand: b, Lang: lang, T: t, Case: "MR-0000-0000", Zone: zone, Now: now}
	last := DayOf(now, zone) - 1
	for _, s := range uses {
		kind := Kind{Brand: string(b.Name), Protocol: s.Protocol, Class: s.Class, Collector: s.Class == fixes.Collector}
		if kind.Collector {
			kind.Class = fixes.Unknown // as the ledger has it
		}
		use := &Use{
			Shape: Shape{
				Brand: kind.Brand, Protocol: kind.Protocol, Class: kind.Class, Program: s.Program, Network: s.Network,
				Port: samplePorts[s.Protocol], TLS: policy.None, UserForm: "address",
			},
			Collector: kind.Collector,
			Days:      []DayCount{{last - 37, 3}, {last, 2}},
		}
		for _, f := range s.Findings {
			switch f {
			case policy.LegacyHostname:
				use.Host, use.SNI = policy.Legacy, "mail."+domain
			case policy.FindingUserForm:
				use.UserForm = "bare"
			case policy.Mechanism:
				use.Mechanism = "CRAM-MD5"
			}
		}
		for _, f := range s.Findings {
			use := *use // the same program may encrypt in an old way once, and not at all another time
			if f == policy.TLSOld {
				use.TLS = "1.0"
			}
			n.Findings = append(n.Findings, Finding{
				Rule: &policy.Requirement{ID: string(f), Finding: f}, Kind: kind, State: Open,
				First: use.First(), Last: use.Last(), Days: len(use.Days), Sessions: use.Sessions(), Uses: []*Use{&use},
				Do: policy.Notify, Refuses: t,
			})
		}
	}
	return n
}
