package policy

import (
	"net/netip"
	"slices"
	"testing"
	"time"
)

var noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

// facts makes Facts of pairs: facts(TLS, "none", Mech, "PLAIN").
func facts(pairs ...any) *Facts {
	f := &Facts{}
	for i := 0; i < len(pairs); i += 2 {
		f.Set(pairs[i].(Fact), pairs[i+1].(string))
	}
	return f
}

func TestEnforced(t *testing.T) {
	for _, c := range []struct {
		name string
		is   *Facts
		want Action
		by   []string
	}{
		{"nothing known", facts(), Pass, nil},
		{"good", facts(TLS, "1.3", Mech, "PLAIN", Host, Canonical), Pass, nil},
		{"no server name", facts(TLS, "1.2", Mech, UserPass, Host, Absent), Pass, nil},
		{"token", facts(TLS, "1.2", Mech, "XOAUTH2", Host, Canonical), Pass, nil},
		{"in clear", facts(TLS, None), Deny, []string{"encrypted"}},
		{"old TLS", facts(TLS, "1.1"), Refuse, []string{"modern-tls"}},
		{"foreign mechanism", facts(TLS, "1.3", Mech, "CRAM-MD5"), Deny, []string{"password-only"}},
		{"old name", facts(TLS, "1.3", Host, Legacy), Deny, []string{"canonical-host"}},
		{"another service's name", facts(TLS, "1.3", Host, OtherService), Deny, []string{"canonical-host"}},
		{"everything wrong", facts(TLS, "1.0", Mech, "NTLM", Host, Unknown), Refuse,
			[]string{"canonical-host", "modern-tls", "password-only"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := Enforced().Decide(c.is, noon)
			if v.Action != c.want || !slices.Equal(v.Violated(), c.by) {
				t.Errorf("got %v by %v, want %v by %v", v.Action, v.Violated(), c.want, c.by)
			}
		})
	}
}

func TestStageBeginsAtItsInstant(t *testing.T) {
	p, err := New("dated", []Requirement{{
		ID: "encrypted", Finding: Plaintext,
		Require: Matcher{{Fact: TLS, Not: true, Values: []string{None}}},
		Stages:  []Stage{{From: noon, Do: Notify}, {From: noon.Add(time.Hour), Do: Deny}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		at   time.Duration
		want Action
	}{{-time.Nanosecond, Pass}, {0, Notify}, {time.Hour - 1, Notify}, {time.Hour, Deny}} {
		if got := p.Decide(facts(TLS, None), noon.Add(c.at)).Action; got != c.want {
			t.Errorf("at noon%+v: got %v, want %v", c.at, got, c.want)
		}
	}
}

func TestNetworksAndScope(t *testing.T) {
	p, err := New("scoped", []Requirement{{
		ID:      "office",
		Scope:   Matcher{{Networks: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}}, {Fact: Brand, Values: []string{"a"}}},
		Require: Matcher{{Fact: Entry, Values: []string{EntryImplicit}}},
		Stages:  []Stage{{Do: Deny}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	f := facts(Entry, EntryPlain, Brand, "a")
	if got := p.Decide(f, noon).Action; got != Pass {
		t.Errorf("address unknown: got %v, want pass", got)
	}
	if low, high := p.Bounds(f, noon); low.Action != Pass || high.Action != Deny {
		t.Errorf("address unknown: bounds %v to %v, want pass to deny", low.Action, high.Action)
	}
	f.IP = netip.MustParseAddr("192.0.2.7")
	if got := p.Decide(f, noon).Action; got != Deny {
		t.Errorf("in the network: got %v, want deny", got)
	}
	f.IP = netip.MustParseAddr("198.51.100.7")
	if low, high := p.Bounds(f, noon); low.Action != Pass || high.Action != Pass {
		t.Errorf("outside: bounds %v to %v, want pass", low.Action, high.Action)
	}
}

func TestNewRefuses(t *testing.T) {
	stage := []Stage{{Do: Deny}}
	for name, rs := range map[string][]Requirement{
		"no id":         {{Stages: stage}},
		"double id":     {{ID: "a", Stages: stage}, {ID: "a", Stages: stage}},
		"no stages":     {{ID: "a"}},
		"stages astray": {{ID: "a", Stages: []Stage{{From: noon, Do: Warn}, {From: noon, Do: Deny}}}},
		"too many":      make([]Requirement, maxRequirements+1),
		"idle guard":    {{ID: "a", Stages: []Stage{{Do: Notify, Guard: &Guard{Open: 2000, Do: Notify}}}}},
		"guard of all":  {{ID: "a", Stages: []Stage{{Do: Deny, Guard: &Guard{Open: Everybody, Do: Notify}}}}},
	} {
		if _, err := New("bad", rs); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// TestGuardDecidesNothing: it is a part of what the file says, and so of the policy's
// hash, and it is there for who watches the numbers; but no session meets it.
func TestGuardDecidesNothing(t *testing.T) {
	guarded := func(g *FileGuard) *Policy {
		t.Helper()
		f := &File{Requirements: []FileRequirement{{ID: "encrypted", Finding: Plaintext, Require: FileMatch{"tls": {In: Words{">=1.2"}}},
			Stages: []FileStage{{Do: Deny, Guard: g}}}}}
		p, problems := f.Compile("guarded")
		if len(problems) > 0 {
			t.Fatal(problems)
		}
		return p
	}
	free := guarded(nil)
	names := map[string]bool{free.String(): true}
	for _, g := range []Guard{{2000, Notify}, {2000, Warn}, {0, Notify}} {
		p := guarded(&FileGuard{Open: g.Open, Do: g.Do})
		if got := p.Requirements()[0].Stages[0].Guard; got == nil || *got != g {
			t.Errorf("%v became %v", g, got)
		}
		if names[p.String()] {
			t.Errorf("%v: another policy has the same hash", g)
		}
		names[p.String()] = true
		for _, ledger := range []string{"", Open, Clean} {
			f := facts(TLS, None, Ledger, ledger)
			if got, want := p.Decide(f, noon), free.Decide(f, noon); got.Action != want.Action || got.Action != Deny {
				t.Errorf("%v: got %v, want %v", g, got.Action, want.Action)
			}
		}
	}
}
