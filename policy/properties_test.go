package policy

// What holds of every policy: drawn at random, with everything that a file can say.

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var (
	testFacts  = []Fact{TLS, Mech, Host, Brand, Account, Domain, Ledger}
	testValues = map[Fact][]string{
		TLS:     {None, "1.0", "1.2", "1.3"},
		Mech:    {"PLAIN", "CRAM-MD5", UserPass},
		Host:    {Canonical, Legacy, Absent},
		Brand:   {"a", "b"},
		Account: {"anna", "ben", "cleo@a.example", "dora@b.example"},
		Domain:  {"a.example", "b.example"},
		Ledger:  {Clean, Open, Fixed},
	}
	testNetworks = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("192.0.2.128/25"),
		netip.MustParsePrefix("198.51.100.7/32"), netip.MustParsePrefix("2001:db8::/32"), netip.MustParsePrefix("0.0.0.0/0")}
	testAddresses = []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.129"),
		netip.MustParseAddr("198.51.100.7"), netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("::ffff:192.0.2.129")}
	testActions = []Action{Pass, Observe, Notify, Warn, TempFail, Deny, Refuse}
)

func drawTerm(t *rapid.T, label string, of []Fact) Term {
	f := rapid.SampledFrom(of).Draw(t, label)
	return Term{Fact: f, Not: rapid.Bool().Draw(t, label+" not"),
		Values: rapid.SliceOfN(rapid.SampledFrom(testValues[f]), 1, 3).Draw(t, label+" values")}
}

func drawMatcher(t *rapid.T, label string, of []Fact, most int) (m Matcher) {
	for i := range rapid.IntRange(0, most).Draw(t, label+" terms") {
		m = append(m, drawTerm(t, fmt.Sprint(label, i), of))
	}
	if rapid.IntRange(0, 3).Draw(t, label+" network") == 0 {
		m = append(m, Term{Not: rapid.IntRange(0, 3).Draw(t, label+" network not") == 0,
			Networks: rapid.SliceOfN(rapid.SampledFrom(testNetworks), 1, 2).Draw(t, label+" networks")})
	}
	return m
}

func drawStage(t *rapid.T, from time.Time) Stage {
	s := Stage{From: from, Do: rapid.SampledFrom(testActions).Draw(t, "do")}
	switch rapid.IntRange(0, 5).Draw(t, "modifier") {
	case 0:
		if s.Do < Refuse {
			s.Share = rapid.SampledFrom([]Share{20_000, 50_000, 70_000, Everybody}).Draw(t, "share")
		}
	case 1:
		s.Brownout = &Brownout{Do: TempFail, Days: [7]bool{true, true, false, true, true, false, true}, Zone: berlin,
			At: time.Duration(rapid.IntRange(0, 1439).Draw(t, "at")) * time.Minute, For: time.Duration(rapid.IntRange(1, 1200).Draw(t, "for")) * time.Minute}
	case 2:
		s.Ratchet = &Ratchet{Clean: 60 * 24 * time.Hour, Do: Deny}
	}
	return s
}

func drawRequirement(t *rapid.T, id string) Requirement {
	r := Requirement{ID: id, Scope: drawMatcher(t, "scope", testFacts, 2), Require: append(drawMatcher(t, "require", testFacts, 1), drawTerm(t, "require", testFacts[:3]))}
	from := noon.AddDate(0, 0, -20)
	for range rapid.IntRange(1, 4).Draw(t, "stages") {
		r.Stages = append(r.Stages, drawStage(t, from))
		from = from.AddDate(0, 0, rapid.IntRange(1, 20).Draw(t, "days"))
	}
	return r
}

func drawRequirements(t *rapid.T) []Requirement {
	rs := make([]Requirement, rapid.IntRange(1, 5).Draw(t, "requirements"))
	for i := range rs {
		rs[i] = drawRequirement(t, string(rune('a'+i)))
	}
	return rs
}

func drawExceptions(t *rapid.T, rs []Requirement) []Exception {
	es := make([]Exception, rapid.IntRange(0, 6).Draw(t, "exceptions"))
	for i := range es {
		es[i] = Exception{ID: fmt.Sprint("x", i), Match: drawMatcher(t, "match", testFacts, 2), Cap: rapid.SampledFrom(testActions).Draw(t, "cap"),
			Until: noon.AddDate(0, 0, rapid.IntRange(-5, 20).Draw(t, "until"))}
		for _, r := range rs {
			if rapid.Bool().Draw(t, "for "+r.ID) {
				es[i].For = append(es[i].For, r.ID)
			}
		}
	}
	return es
}

// drawFacts draws facts, all or some of them known.
func drawFacts(t *rapid.T, known bool) *Facts {
	f := &Facts{}
	for _, fact := range testFacts {
		if known || rapid.Bool().Draw(t, fact.String()+" known") {
			f.Set(fact, rapid.SampledFrom(testValues[fact]).Draw(t, fact.String()))
		}
	}
	if known || rapid.Bool().Draw(t, "address known") {
		f.IP = rapid.SampledFrom(testAddresses).Draw(t, "address")
	}
	return f
}

func drawNow(t *rapid.T) time.Time {
	return noon.Add(time.Duration(rapid.IntRange(-21*24*60, 30*24*60).Draw(t, "now")) * time.Minute)
}

func mustNew(t *rapid.T, rs []Requirement, es ...Exception) *Policy {
	p, err := New("drawn", rs, es...)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestOrderMeansNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rs := drawRequirements(t)
		es, f, now := drawExceptions(t, rs), drawFacts(t, false), drawNow(t)
		a := mustNew(t, rs, es...)
		b := mustNew(t, rapid.Permutation(rs).Draw(t, "order"), rapid.Permutation(es).Draw(t, "order of exceptions")...)
		va, vb := a.Decide(f, now), b.Decide(f, now)
		if va.Action != vb.Action || !slices.Equal(va.Violated(), vb.Violated()) || a.String() != b.String() ||
			va.Rule != nil && va.Rule.ID != vb.Rule.ID || va.Exception != nil && va.Exception.ID != vb.Exception.ID {
			t.Fatalf("%v %v by %v, or %v %v by %v", a, va.Action, va.Violated(), b, vb.Action, vb.Violated())
		}
	})
}

func TestAddingARequirementNeverLowers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rs, f, now := drawRequirements(t), drawFacts(t, false), drawNow(t)
		es := drawExceptions(t, rs[:len(rs)-1])
		before, after := mustNew(t, rs[:len(rs)-1], es...), mustNew(t, rs, es...)
		if b, a := before.Decide(f, now).Action, after.Decide(f, now).Action; a < b {
			t.Fatalf("%v fell to %v", b, a)
		}
	})
}

func TestAnExceptionNeverRaises(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rs, f, now := drawRequirements(t), drawFacts(t, false), drawNow(t)
		es := drawExceptions(t, rs)
		if len(es) == 0 {
			return
		}
		without, with := mustNew(t, rs, es[1:]...), mustNew(t, rs, es...)
		if b, a := without.Decide(f, now), with.Decide(f, now); a.Action > b.Action || !slices.Equal(a.Violated(), b.Violated()) {
			t.Fatalf("%v by %v rose to %v by %v", b.Action, b.Violated(), a.Action, a.Violated())
		}
	})
}

func TestAHoldNeverRaises(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rs, f, now := drawRequirements(t), drawFacts(t, false), drawNow(t)
		p := mustNew(t, rs, drawExceptions(t, rs)...)
		hold := &Hold{Cap: rapid.SampledFrom(testActions).Draw(t, "hold"), Since: noon.AddDate(0, 0, -3), Until: noon.AddDate(0, 0, 3)}
		free, held := p.Decide(f, now), p.DecideUnder(hold, f, now)
		want := free.Action
		if !now.Before(hold.Since) && now.Before(hold.Until) {
			want = min(want, hold.Cap)
		}
		if held.Action != want || (held.Hold != nil) != (held.Action < free.Action) || !slices.Equal(held.Violated(), free.Violated()) {
			t.Fatalf("%v became %v, want %v", free.Action, held.Action, want)
		}
	})
}

func TestBoundsEncloseEveryCompletion(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rs, now := drawRequirements(t), drawNow(t)
		p := mustNew(t, rs, drawExceptions(t, rs)...)
		f := drawFacts(t, false)
		low, high := p.Bounds(f, now)
		if got := p.Decide(f, now).Action; got < low.Action || got > high.Action {
			t.Fatalf("what is decided, %v, lies outside %v to %v", got, low.Action, high.Action)
		}
		full := drawFacts(t, true)
		for _, fact := range testFacts {
			if v := f.Get(fact); v != "" {
				full.Set(fact, v)
			}
		}
		if f.IP.IsValid() {
			full.IP = f.IP
		}
		v := p.Decide(full, now)
		if v.Action < low.Action || v.Action > high.Action {
			t.Fatalf("%v lies outside %v to %v", v.Action, low.Action, high.Action)
		}
		if low, high := p.Bounds(full, now); low.Action != v.Action || high.Action != v.Action {
			t.Fatalf("all is known, and the bounds are %v to %v, not %v", low.Action, high.Action, v.Action)
		}
	})
}

// TestTheIndexFindsAll compares with what policy.md says, done slowly.
func TestTheIndexFindsAll(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rs, f, now := drawRequirements(t), drawFacts(t, false), drawNow(t)
		p := mustNew(t, rs, drawExceptions(t, rs)...)
		for i := range p.rules {
			r := &p.rules[i]
			var certain, possible *Exception
			for _, e := range r.listed {
				if !now.Before(e.Until) {
					continue
				}
				switch e.Match.match(f) {
				case yes:
					certain = milder(certain, e)
				case unknown:
					possible = milder(possible, e)
				}
			}
			if got := r.index.certain(f, now); got != certain {
				t.Fatalf("certain: got %v, want %v", got, certain)
			}
			if got := r.index.possible(f, now); got != possible {
				t.Fatalf("possible: got %v, want %v", got, possible)
			}
		}
	})
}

// TestTheProofIsTheTruth draws a statement: where it is proved no session may be
// against it, and a session against it must be one.
func TestTheProofIsTheTruth(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rs := drawRequirements(t)
		p := mustNew(t, rs, drawExceptions(t, rs)...)
		s := &statement{never: rapid.Bool().Draw(t, "never"), do: rapid.SampledFrom(testActions[1:]).Draw(t, "do"),
			match: Matcher{drawTerm(t, "match", testFacts[:4])}, from: noon, until: noon.AddDate(0, 0, 10)}
		x := newProver(p)
		against, _ := x.prove(s, p.instants(s.from, s.until))
		if x.left <= 0 {
			t.Fatal("the steps were used up")
		}
		if against != nil {
			v := p.Decide(&against.facts, against.at)
			if s.match.match(&against.facts) != yes || s.never != (v.Action >= s.do) || against.at.Before(s.from) || !against.at.Before(s.until) {
				t.Fatalf("this is no counter-example: %v", against)
			}
			return
		}
		for range 20 {
			f := drawFacts(t, true)
			if f.Get(TLS) == None {
				f.Forget(Host) // there is no handshake that could tell it
			}
			if domain := domainOf(f.Get(Account)); domain != "" {
				f.Set(Domain, domain)
			}
			now := s.from.Add(time.Duration(rapid.IntRange(0, 10*24*60-1).Draw(t, "minute")) * time.Minute)
			if v := p.Decide(f, now); s.match.match(f) == yes && s.never == (v.Action >= s.do) {
				t.Fatalf("it was proved, but at %v %v meets %v", now, f.Known(), v.Action)
			}
		}
	})
}

func TestExplanationsAgree(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rs, f, now := drawRequirements(t), drawFacts(t, false), drawNow(t)
		p := mustNew(t, rs, drawExceptions(t, rs)...)
		v, e := p.Decide(f, now), p.Explain(f, now)
		low, high := p.Bounds(f, now)
		if e.Action != v.Action || e.Mildest != low.Action || e.Severest != high.Action || !slices.Equal(e.By, append([]string{}, v.Violated()...)) {
			t.Fatalf("decided %v by %v, explained %v by %v", v.Action, v.Violated(), e.Action, e.By)
		}
		most := Pass
		for _, r := range e.Steps {
			most = max(most, r.Action)
		}
		if most != v.Action || len(e.Lines()) < 5 {
			t.Fatalf("decided %v, but the steps come to %v", v.Action, most)
		}
	})
}

// TestShares draws 20,000 accounts, as policy.md asks.
func TestShares(t *testing.T) {
	const accounts = 20_000
	inside := map[Share]map[string]bool{}
	shares := []Share{1_000, 10_000, 50_000, Everybody}
	for _, share := range shares {
		p, err := New("shares", []Requirement{{ID: "encrypted", Require: Matcher{{Fact: TLS, Not: true, Values: []string{None}}},
			Stages: []Stage{{Do: Notify}, {From: noon, Do: Deny, Share: share}}}})
		if err != nil {
			t.Fatal(err)
		}
		inside[share] = map[string]bool{}
		for i := range accounts {
			account := fmt.Sprintf("user%d@example.org", i)
			switch v := p.Decide(facts(TLS, None, Account, account), noon); v.Action {
			case Deny:
				inside[share][account] = true
			case Notify:
			default:
				t.Fatalf("%s meets %v", account, v.Action)
			}
		}
		got, want := 100*float64(len(inside[share]))/accounts, float64(share)/1000
		if got < want-0.3 || got > want+0.3 {
			t.Errorf("%v: %.2f %% of the accounts", share, got)
		}
	}
	for i := range shares[1:] {
		for account := range inside[shares[i]] {
			if !inside[shares[i+1]][account] {
				t.Errorf("%s lies inside %v and outside %v", account, shares[i], shares[i+1])
			}
		}
	}
}
