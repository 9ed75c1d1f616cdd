package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func days(n int) time.Time { return noon.AddDate(0, 0, n) }

func TestViolations(t *testing.T) {
	office := netip.MustParsePrefix("198.51.100.0/28")
	p, err := New("v", []Requirement{
		{ID: "encrypted", Finding: Plaintext, Require: noClear, Stages: []Stage{
			{From: days(-30), Do: Notify},
			{From: days(10), Do: Notify, Brownout: &Brownout{Do: TempFail, Days: [7]bool{true, true, true, true, true, true, true}, For: time.Hour}},
			{From: days(20), Do: Deny, Share: 50_000}, {From: days(30), Do: Deny}}},
		{ID: "host", Finding: LegacyHostname, Require: Matcher{{Fact: Host, Values: []string{Canonical}}}, Stages: []Stage{{From: days(40), Do: Refuse}}},
		{ID: "pop", Scope: Matcher{{Fact: Protocol, Values: []string{"pop3"}}}, Require: noClear, Stages: []Stage{
			{From: days(-9), Do: Deny}, {From: days(-5), Do: Observe}, {From: days(5), Do: Deny}, {From: days(6), Do: Warn}}},
	},
		Exception{ID: "x-account", For: []string{"encrypted"}, Match: Matcher{{Fact: Account, Values: []string{"scanner@a.example"}}}, Cap: Observe, Until: days(25)},
		Exception{ID: "x-at", For: []string{"encrypted"}, Match: Matcher{{Fact: Domain, Values: []string{"b.example"}}, {Networks: []netip.Prefix{office}}}, Cap: Pass, Until: days(25)},
		Exception{ID: "x-office", For: []string{"encrypted", "host"}, Match: Matcher{{Networks: []netip.Prefix{office}}}, Cap: Pass, Until: days(25)},
	)
	if err != nil {
		t.Fatal(err)
	}
	in, out := "", "" // the half of the accounts
	for i := 0; in == "" || out == ""; i++ {
		if a := fmt.Sprintf("a%d@a.example", i); Bucket("encrypted", a) < 50_000 {
			in = a
		} else {
			out = a
		}
	}
	say := func(v Violation) string {
		s := fmt.Sprintf("%s %v planned %v", v.Rule.ID, v.Do, v.Planned)
		if !v.Refuses.IsZero() {
			s += fmt.Sprintf(" refuses %+d", int(v.Refuses.Sub(noon).Hours()/24))
		}
		if v.Exception != nil {
			s += fmt.Sprintf(" %s sure %v", v.Exception.ID, v.Sure)
		}
		return s
	}
	known := func(account, protocol, tls, host string) *Facts {
		f := facts(Account, account, Protocol, protocol, TLS, tls, Host, host, Verified, Yes)
		_, domain, _ := cutDomain(account)
		f.Set(Domain, domain)
		return f
	}
	for _, c := range []struct {
		name string
		is   *Facts
		at   int
		want []string
	}{
		{"all is well", known(in, "imap", "1.3", Canonical), 0, nil},
		{"nothing is known", facts(Account, in), 0, nil},
		{"in the share", known(in, "imap", None, Canonical), 0, []string{"encrypted notify planned notify refuses +20"}},
		{"out of it", known(out, "imap", None, Canonical), 0, []string{"encrypted notify planned notify refuses +30"}},
		{"brownouts are no end", known(in, "imap", None, Canonical), 15, []string{"encrypted notify planned notify refuses +20"}},
		{"it has come", known(in, "imap", None, Canonical), 21, []string{"encrypted deny planned deny refuses +20"}},
		{"and not for these", known(out, "imap", None, Canonical), 21, []string{"encrypted notify planned notify refuses +30"}},
		{"before every stage", known(in, "imap", "1.3", Legacy), 0, []string{"host pass planned pass refuses +40"}},
		{"several, and one that was lowered", known(in, "pop3", None, Legacy), 0,
			[]string{"encrypted notify planned notify refuses +20", "host pass planned pass refuses +40", "pop observe planned observe refuses +5"}},
		{"a refusal that is over, for ever", known(in, "pop3", None, Canonical), 7,
			[]string{"encrypted notify planned notify refuses +20", "pop warn planned warn"}},
		{"an exception of the account", known("scanner@a.example", "imap", None, Canonical), 24,
			[]string{"encrypted observe planned " + map[bool]string{true: "deny refuses +20", false: "notify refuses +30"}[Bucket("encrypted", "scanner@a.example") < 50_000] + " x-account sure true"}},
		{"it is over", known("scanner@a.example", "imap", None, Canonical), 35, []string{"encrypted deny planned deny refuses " +
			map[bool]string{true: "+20", false: "+30"}[Bucket("encrypted", "scanner@a.example") < 50_000]}},
		{"perhaps from that network, but its domain", known("c@b.example", "imap", None, Canonical), 0, []string{"encrypted pass planned notify refuses " +
			map[bool]string{true: "+20", false: "+30"}[Bucket("encrypted", "c@b.example") < 50_000] + " x-at sure false"}},
		{"a network alone is nobody's", known(in, "imap", "1.3", Legacy), 0, []string{"host pass planned pass refuses +40"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got []string
			for _, v := range p.Violations(c.is, days(c.at)) {
				got = append(got, say(v))
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("got  %q\nwant %q", got, c.want)
			}
		})
	}
}

func cutDomain(account string) (string, string, bool) {
	for i := range account {
		if account[i] == '@' {
			return account[:i], account[i+1:], true
		}
	}
	return account, "", false
}

func TestMeets(t *testing.T) {
	r := &Requirement{ID: "host", Scope: Matcher{{Fact: Protocol, Values: []string{"imap"}}}, Require: Matcher{{Fact: Host, Values: []string{Canonical}}}}
	for _, c := range []struct {
		is           *Facts
		meets, fails bool
	}{
		{facts(Protocol, "imap", Host, Canonical), true, false},
		{facts(Protocol, "imap", Host, Legacy), false, true},
		{facts(Protocol, "imap"), false, false}, // not known
		{facts(Protocol, "pop3"), true, false},  // out of its scope
		{facts(Host, Legacy), false, false},
	} {
		if meets, fails := r.Meets(c.is), r.Fails(c.is); meets != c.meets || fails != c.fails {
			t.Errorf("%+v: it meets %v, fails %v", c.is, meets, fails)
		}
	}
}

func TestInForce(t *testing.T) {
	r := &Requirement{Stages: []Stage{{From: days(0), Do: Notify}, {From: days(10), Do: TempFail, Share: 10_000},
		{From: days(20), Do: Deny, Share: 10_000}, {From: days(30), Do: Deny, Share: 50_000}, {From: days(40), Do: Deny}, {From: days(50), Do: Refuse}}}
	for _, c := range []struct{ at, stage, next int }{{-1, -1, 1}, {0, 0, 1}, {9, 0, 1}, {10, 1, 3}, {20, 2, 3}, {30, 3, 4}, {40, 4, -1}, {60, 5, -1}} {
		stage, next := r.InForce(days(c.at))
		at := func(s *Stage) int {
			for i := range r.Stages {
				if s == &r.Stages[i] {
					return i
				}
			}
			return -1
		}
		if at(stage) != c.stage || at(next) != c.next {
			t.Errorf("on day %d: stage %d, next %d; want %d, %d", c.at, at(stage), at(next), c.stage, c.next)
		}
	}
}

// TestViolationsAreDecisions holds them against the decision on each requirement alone, in
// policies without what only raises for a time.
func TestViolationsAreDecisions(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rs := drawRequirements(t)
		for i := range rs {
			for j := range rs[i].Stages {
				rs[i].Stages[j].Brownout, rs[i].Stages[j].Ratchet = nil, nil
			}
		}
		es := drawExceptions(t, rs)
		f, now := drawFacts(t, true), drawNow(t)
		found := map[string]Violation{}
		for _, v := range mustNew(t, rs, es...).Violations(f, now) {
			found[v.Rule.ID] = v
		}
		for _, r := range rs {
			alone := mustNew(t, []Requirement{r}, exceptionsFor(es, r.ID)...)
			bare := mustNew(t, []Requirement{r})
			v, violated := found[r.ID]
			if violated == alone.Requirements()[0].Meets(f) {
				t.Fatalf("%s: violated %v, and the opposite of it", r.ID, violated)
			}
			if got := alone.Decide(f, now).Action; got != v.Do {
				t.Fatalf("%s: the decision is %v, the violation %v", r.ID, got, v.Do)
			}
			if got := bare.Decide(f, now).Action; got != v.Planned {
				t.Fatalf("%s: without exceptions the decision is %v, the violation %v", r.ID, got, v.Planned)
			}
			if v.Exception != nil && !v.Sure {
				t.Fatalf("%s: everything is known, and %s is not sure", r.ID, v.Exception.ID)
			}
			if !violated {
				continue
			}
			var want time.Time
			refused := func(at time.Time) bool { return bare.Decide(f, at).Action >= Deny }
			for i := len(r.Stages) - 1; i >= 0; i-- {
				switch from := r.Stages[i].From; {
				case from.After(now) && refused(from):
					want = from
				case !from.After(now) && refused(now) && refused(from):
					want = from
				case !from.After(now) && !refused(from) && refused(now):
					i = 0 // the refusal in force began later
				}
			}
			if !v.Refuses.Equal(want) {
				t.Fatalf("%s: refuses from %v, want %v", r.ID, v.Refuses, want)
			}
		}
	})
}

// exceptionsFor are those for a requirement, for it alone.
func exceptionsFor(es []Exception, id string) (all []Exception) {
	for _, e := range es {
		if slices.Contains(e.For, id) {
			e.For = []string{id}
			all = append(all, e)
		}
	}
	return all
}
