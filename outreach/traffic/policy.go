package traffic

// The world's policy, as a provider would write it.

import (
	"fmt"
	"strings"
	"time"

	"mailreeve/policy"
)

// until is how long after the last day exceptions end: a policy has none for longer than 180 days.
const until = 150 * 24 * time.Hour

// requires is what a policy asks for, so that each fault violates it.
var requires = map[policy.Finding]string{
	policy.Plaintext:       "require: { tls: { not_in: none } }",
	policy.TLSOld:          `require: { tls: [none, "1.2", "1.3"] }`,
	policy.Mechanism:       "require: { mechanism: [PLAIN, LOGIN, USERPASS, XOAUTH2, OAUTHBEARER] }",
	policy.LegacyHostname:  "require: { host: [canonical, absent] }",
	policy.FindingUserForm: "require: { user_form: address }",
	policy.FindingPort:     "scope: { protocol: submission }\n    require: { port: { not_in: 25 } }",
}

// Policy is the world's policy file.
func (w *World) Policy() string {
	var b strings.Builder
	fmt.Fprintf(&b, "version: 1\ntimezone: %s\nrequirements:\n", w.Zone)
	for _, d := range w.Demands {
		fmt.Fprintf(&b, "  - id: %s\n    finding: %s\n    %s\n    stages:\n", d.ID, d.Fault, requires[d.Fault])
		for _, s := range d.Stages {
			fmt.Fprintf(&b, "      - { from: %q, do: %v }\n", s.From.Format(time.DateOnly), s.Do)
		}
	}
	if len(w.Exceptions) > 0 {
		fmt.Fprintln(&b, "exceptions:")
	}
	for _, e := range w.Exceptions {
		match := "domain: " + e.Domain
		if e.Domain == "" {
			match = fmt.Sprintf("account: [%s]", strings.Join(e.Accounts, ", "))
		}
		fmt.Fprintf(&b, "  - { id: %s, for: [%s], match: { %s }, cap: observe, until: %q, reason: replacement ordered, owner: support }\n",
			e.ID, e.Demand, match, w.Now().Add(until).Format(time.DateOnly))
	}
	return b.String()
}
