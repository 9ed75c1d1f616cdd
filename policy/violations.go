package policy

// What facts fail, whatever is in force today: the ledger asks this of the past,
// when nothing was demanded yet.

import "time"

// Violation is a requirement that facts certainly do not meet.
type Violation struct {
	Rule      *Requirement
	Do        Action     // what it does to this account at the instant asked about, without brownouts, ratchets and holds
	Refuses   time.Time  // since when, or from when on, it refuses this account as planned, exceptions left aside; zero: never
	Exception *Exception // that is in force and lowers it, for certain or, where a fact is not known, perhaps
	Sure      bool       // the exception is certain
}

// Requirements returns what the policy demands, by id. The caller must not change it.
func (p *Policy) Requirements() []*Requirement {
	all := make([]*Requirement, len(p.rules))
	for i := range p.rules {
		all[i] = &p.rules[i].Requirement
	}
	return all
}

// Violations lists the requirements that facts certainly do not meet, by id,
// whatever their stage. The time says which stages and exceptions are in force.
func (p *Policy) Violations(f *Facts, now time.Time) (all []Violation) {
	for i := range p.rules {
		r := &p.rules[i]
		if r.violatedBy(f) != yes {
			continue
		}
		v := Violation{Rule: &r.Requirement, Refuses: r.refuses(f)}
		if stage := r.stageFor(r.stageAt(now), f); stage >= 0 {
			v.Do = r.Stages[stage].Do
		}
		if v.Exception = r.index.certain(f, now); v.Exception != nil {
			v.Sure = true
		} else {
			v.Exception = r.index.possible(f, now)
		}
		if v.Exception != nil {
			v.Do = min(v.Do, v.Exception.Cap)
		}
		all = append(all, v)
	}
	return all
}

// stageFor is the stage that an account meets while a stage is in force by date:
// itself, or outside its share, or with the account unknown, the last one without.
func (r *rule) stageFor(stage int, f *Facts) int {
	if stage < 0 || r.Stages[stage].Share == 0 {
		return stage
	}
	if account := f.values[Account]; account != "" && Bucket(r.ID, account) < r.Stages[stage].Share {
		return stage
	}
	return r.fallback[stage]
}

// refuses is when the first stage begins that refuses this account for good.
// Trial outages come before it and are no date to be told as the end.
func (r *rule) refuses(f *Facts) time.Time {
	for i := range r.Stages {
		if s := r.stageFor(i, f); s >= 0 && r.Stages[s].Do >= Deny {
			return r.Stages[i].From
		}
	}
	return time.Time{}
}
