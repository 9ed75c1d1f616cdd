package outreach

// What is wrong with an account, by the policy of now.

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"mailreeve/fixes"
	"mailreeve/policy"
)

// FixedAfter is for how many days nothing may have been wrong until a finding counts
// as fixed: a program that fetches mail once a week has shown itself twice by then.
const FixedAfter = 14

// State is how far a finding is.
type State string

// The states. A silent finding is one of a laptop on holiday, or of a scanner that is used
// each quarter: it is still at risk, and must not be counted as mended.
const (
	Open   State = "open"   // seen within [FixedAfter] days
	Silent State = "silent" // not seen since, and nothing shows that it was mended
	Fixed  State = "fixed"  // not seen since, and the same kind of program logs in as it should
	Exempt State = "exempt" // an exception is in force that leaves it a way in
)

// Kind tells the devices of an account apart, as far as that can be done: programs of one
// kind are one.
type Kind struct {
	Brand     string      `json:"brand"`
	Protocol  string      `json:"protocol"`
	Class     fixes.Class `json:"class"`
	Collector bool        `json:"collector,omitempty"`
}

// kind is that of a use.
func (u *Use) kind() Kind { return Kind{u.Brand, u.Protocol, u.Class, u.Collector} }

// Finding is a requirement that one kind of program of an account does not meet.
type Finding struct {
	Rule        *policy.Requirement
	Kind        Kind
	State       State
	First, Last Day    // on which it was seen
	Days        int    // on how many
	Sessions    int    // in how many sessions
	Uses        []*Use // that show it, the last seen first; at least one
	Since       Day    // of a fixed finding: the last login as it should be

	Do        policy.Action     // what policy does to it now
	Refuses   time.Time         // from when on it refuses the account for good, exceptions left aside; zero: never
	Exception *policy.Exception // that is in force
}

// Findings lists what is wrong with an account, by requirement, brand, protocol and class.
// Days after today, which a rehearsal of an earlier date leaves behind it, are not looked at.
func Findings(p *policy.Policy, a *Account, now time.Time, zone *time.Location) []Finding {
	var all []Finding
	for _, t := range examine(p, a, now, zone).trails {
		all = append(all, t.Finding)
	}
	return all
}

// trail is a finding with the days that tell its state, of today and of each day before.
type trail struct {
	Finding
	broke []Day // on which it was seen, ascending
	kept  []Day // on which the same kind of program logged in as it should, ascending
}

// on is its state on a day, by what was known then; empty before it was first seen.
// An exception that is in force now counts for all days.
func (t *trail) on(day Day) State {
	last, ok := before(t.broke, day)
	if !ok {
		return ""
	}
	kept, ok := before(t.kept, day)
	switch {
	case t.exempt():
		return Exempt
	case day-last < FixedAfter:
		return Open
	case ok && kept > last:
		return Fixed
	}
	return Silent
}

// before returns the last of ascending days that is not after a day.
func before(days []Day, day Day) (last Day, ok bool) {
	i, found := slices.BinarySearch(days, day)
	if found {
		return day, true
	}
	if i == 0 {
		return 0, false
	}
	return days[i-1], true
}

// exempt reports whether the exception leaves a way in.
func (f *Finding) exempt() bool { return f.Exception != nil && !f.Exception.Cap.Refuses() }

// examined is an account under a policy.
type examined struct {
	*Account
	trails []trail
	facts  []*policy.Facts // of each use
	fails  []bool          // whether it violates something
	until  Day             // today: what is later is not looked at
}

func examine(p *policy.Policy, a *Account, now time.Time, zone *time.Location) *examined {
	x := &examined{Account: a, facts: make([]*policy.Facts, len(a.Uses)), fails: make([]bool, len(a.Uses)), until: DayOf(now, zone)}
	type key struct {
		rule *policy.Requirement
		kind Kind
	}
	type violation struct {
		use *Use
		policy.Violation
	}
	found := map[key][]violation{}
	for i := range a.Uses {
		u := &a.Uses[i]
		x.facts[i] = u.Facts(a.Name)
		for _, v := range p.Violations(x.facts[i], now) {
			k := key{v.Rule, u.kind()}
			found[k] = append(found[k], violation{u, v})
			x.fails[i] = true
		}
	}
	for k, violations := range found {
		t := trail{Finding: Finding{Rule: k.rule, Kind: k.kind}}
		kept := func(u *Use, i int) bool { return u.kind() == k.kind && k.rule.Meets(x.facts[i]) }
		var uses []*Use
		for i := range violations {
			uses = append(uses, violations[i].use)
		}
		probed := x.probes(uses, kept)
		broke := map[Day]bool{}
		for _, v := range violations {
			seen := false
			for _, d := range v.use.Days {
				if d.Day <= x.until && !probed(v.use, d) {
					broke[d.Day], seen = true, true
					t.Sessions += d.Sessions
				}
			}
			if seen {
				t.add(v.use, &v.Violation)
			}
		}
		if len(broke) == 0 {
			continue
		}
		t.broke = slices.Sorted(maps.Keys(broke))
		t.First, t.Last, t.Days = t.broke[0], t.broke[len(t.broke)-1], len(t.broke)
		for i := range a.Uses {
			if u := &a.Uses[i]; kept(u, i) {
				for _, d := range u.Days {
					if d.Day <= x.until {
						t.kept = append(t.kept, d.Day)
					}
				}
			}
		}
		slices.Sort(t.kept)
		t.kept = slices.Compact(t.kept)
		if since, ok := before(t.kept, x.until); ok && since > t.Last {
			t.Since = since
		}
		t.State = t.on(x.until)
		slices.SortStableFunc(t.Uses, func(a, b *Use) int { return cmp.Compare(b.Last(), a.Last()) })
		x.trails = append(x.trails, t)
	}
	slices.SortFunc(x.trails, func(a, b trail) int {
		return cmp.Or(cmp.Compare(a.Rule.ID, b.Rule.ID), a.Kind.compare(b.Kind))
	})
	return x
}

// add takes a use into the finding. One that no exception lowers leaves none for the whole.
func (f *Finding) add(u *Use, v *policy.Violation) {
	switch {
	case len(f.Uses) == 0:
		f.Do, f.Refuses, f.Exception = v.Do, v.Refuses, v.Exception
	case v.Exception == nil || f.Exception == nil:
		f.Exception = nil
	case v.Exception.Cap > f.Exception.Cap:
		f.Exception = v.Exception
	}
	f.Do = max(f.Do, v.Do)
	f.Uses = append(f.Uses, u)
}

// compare puts kinds in order.
func (k Kind) compare(o Kind) int {
	collector := func(k Kind) int {
		if k.Collector {
			return 1
		}
		return 0
	}
	return cmp.Or(cmp.Compare(k.Brand, o.Brand), cmp.Compare(k.Protocol, o.Protocol), cmp.Compare(k.Class, o.Class), collector(k)-collector(o))
}

const (
	mostProbed   = 2 // sessions of one shape that a series has on a day
	leastVariety = 3 // settings that make a series
	probedOften  = 3 // days after which it is a setting all the same
)

// setting is what somebody sets in a program, and what a program tries that looks for
// settings by itself. A telephone that changes networks, or is brought up to date,
// tries nothing.
type setting struct {
	port                              int
	entry, tls, mechanism, form, name string
}

func (u *Use) setting() setting {
	return setting{u.Port, u.Entry, u.TLS, u.Mechanism, u.UserForm, u.Host + " " + u.SNI}
}

// probes tells the days on which a use was one of a series of trials. Apple Mail for
// the Mac, which manages connection settings by itself as it comes, tries other ports,
// mechanisms and no encryption after any failure (Apple HT204208). Such a login may
// succeed, and says nothing about a setting. A series comes from one place in a
// day, and finds what is right at last.
func (x *examined) probes(violating []*Use, kept func(*Use, int) bool) func(*Use, DayCount) bool {
	never := func(*Use, DayCount) bool { return false }
	if u := violating[0]; u.Class != fixes.AppleMail && u.Class != fixes.Apple && u.Class != fixes.Unknown || u.Collector {
		return never
	}
	kind := violating[0].kind()
	met := make([]bool, len(x.Uses))
	of := map[string]map[setting]bool{} // by network
	for i := range x.Uses {
		if u := &x.Uses[i]; u.kind() == kind {
			met[i] = kept(u, i)
			if of[u.Network] == nil {
				of[u.Network] = map[setting]bool{}
			}
			of[u.Network][u.setting()] = true
		}
	}
	trial := func(u *Use, d DayCount) bool {
		if d.Sessions > mostProbed || len(of[u.Network]) < leastVariety {
			return false
		}
		tried, found := map[setting]bool{}, false
		for i := range x.Uses {
			o := &x.Uses[i]
			if o.kind() != kind || o.Network != u.Network {
				continue
			}
			if _, seen := slices.BinarySearchFunc(o.Days, d.Day, func(c DayCount, day Day) int { return cmp.Compare(c.Day, day) }); seen {
				tried[o.setting()] = true
				found = found || met[i]
			}
		}
		return found && len(tried) >= leastVariety
	}
	days := map[setting]map[Day]bool{}
	for _, u := range violating {
		for _, d := range u.Days {
			if d.Day <= x.until && trial(u, d) {
				if days[u.setting()] == nil {
					days[u.setting()] = map[Day]bool{}
				}
				days[u.setting()][d.Day] = true
			}
		}
	}
	if len(days) == 0 {
		return never
	}
	return func(u *Use, d DayCount) bool {
		return len(days[u.setting()]) < probedOften && days[u.setting()][d.Day] && trial(u, d)
	}
}
