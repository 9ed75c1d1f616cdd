package outreach

// What is wrong with an account, by the policy of now.

import (
	"cmp"
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
	Exempt State = "exempt" // an exception is in force
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
	Uses        []*Use // that show it, the last seen first
	Since       Day    // of a fixed finding: the last login as it should be

	Do        policy.Action     // what policy does to it now
	Refuses   time.Time         // from when on it refuses the account for good, exceptions left aside; zero: never
	Exception *policy.Exception // that is in force
}

// Findings lists what is wrong with an account, by requirement, protocol and class.
func Findings(p *policy.Policy, a *Account, now time.Time, zone *time.Location) []Finding {
	type key struct {
		rule *policy.Requirement
		kind Kind
	}
	found := map[key]*Finding{}
	violates := make([][]policy.Violation, len(a.Uses))
	for i := range a.Uses {
		u := &a.Uses[i]
		violates[i] = p.Violations(u.Facts(a.Name), now)
		for _, v := range violates[i] {
			k := key{v.Rule, u.kind()}
			f := found[k]
			if f == nil {
				f = &Finding{Rule: v.Rule, Kind: k.kind, Refuses: v.Refuses, Do: v.Do, Exception: v.Exception}
				found[k] = f
			}
			f.Do = max(f.Do, v.Do)
			if v.Exception == nil { // one use without an exception is not exempt
				f.Exception = nil
			}
			f.Uses = append(f.Uses, u)
		}
	}
	today := DayOf(now, zone)
	var all []Finding
	for k, f := range found {
		meets := func(u *Use) bool { return u.kind() == k.kind && !slices.Contains(f.Uses, u) }
		f.count(a, probes(a, f.Uses, meets))
		if f.Days == 0 {
			continue
		}
		for i := range a.Uses {
			if u := &a.Uses[i]; meets(u) && u.Last() > f.Last {
				f.Since = max(f.Since, u.Last())
			}
		}
		switch {
		case f.Exception != nil:
			f.State = Exempt
		case today-f.Last < FixedAfter:
			f.State = Open
		case f.Since > 0:
			f.State = Fixed
		default:
			f.State = Silent
		}
		slices.SortStableFunc(f.Uses, func(a, b *Use) int { return cmp.Compare(b.Last(), a.Last()) })
		all = append(all, *f)
	}
	slices.SortFunc(all, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.Rule.ID, b.Rule.ID), cmp.Compare(a.Kind.Brand, b.Kind.Brand), cmp.Compare(a.Kind.Protocol, b.Kind.Protocol),
			cmp.Compare(a.Kind.Class, b.Kind.Class), cmp.Compare(boolInt(a.Kind.Collector), boolInt(b.Kind.Collector)))
	})
	return all
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// count sums the uses, but for the days on which they were probes.
func (f *Finding) count(a *Account, probed func(*Use, Day) bool) {
	days := map[Day]bool{}
	for _, u := range f.Uses {
		for _, d := range u.Days {
			if probed(u, d.Day) {
				continue
			}
			if f.Days == 0 && len(days) == 0 || d.Day < f.First {
				f.First = d.Day
			}
			f.Last = max(f.Last, d.Day)
			f.Sessions += d.Sessions
			days[d.Day] = true
		}
	}
	f.Days = len(days)
}

const (
	mostProbed   = 2 // sessions of one shape that a series has on a day
	leastVariety = 3 // shapes that make a series
	probedOften  = 3 // days after which it is a setting all the same
)

// probes tells the days on which a use was one of a series of trials. Apple Mail for
// the Mac, which manages connection settings by itself as it comes, tries other ports,
// mechanisms and no encryption after any failure (Apple HT204208). Such a login may
// succeed, and says nothing about a setting.
func probes(a *Account, violating []*Use, meets func(*Use) bool) func(*Use, Day) bool {
	trial := func(u *Use, day Day) bool {
		if u.Class != fixes.AppleMail && u.Class != fixes.Unknown || u.Collector || u.On(day) > mostProbed {
			return false
		}
		shapes, met := 0, false
		for i := range a.Uses {
			o := &a.Uses[i]
			if o.kind() == u.kind() && o.On(day) > 0 {
				shapes++
				met = met || meets(o)
			}
		}
		return met && shapes >= leastVariety
	}
	often := map[*Use]bool{}
	for _, u := range violating {
		n := 0
		for _, d := range u.Days {
			if trial(u, d.Day) {
				n++
			}
		}
		often[u] = n >= probedOften
	}
	return func(u *Use, day Day) bool { return !often[u] && trial(u, day) }
}
