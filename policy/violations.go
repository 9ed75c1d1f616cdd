package policy

// What facts fail, whatever is in force today: the ledger asks this of the past,
// when nothing was demanded yet.

import "time"

// Violation is a requirement that facts certainly do not meet.
type Violation struct {
	Rule      *Requirement
	Do        Action     // what it does to this account at the instant asked about, without brownouts, ratchets and holds
	Planned   Action     // the same without the exception
	Refuses   time.Time  // since when, or from when on, it refuses this account as planned, exceptions left aside; zero: never, or since ever
	Exception *Exception // that is in force and is this account's
	Sure      bool       // the exception is certain; else its network, or another fact, is not known
}

// Requirements returns what the policy demands, by id. The caller must not change it.
func (p *Policy) Requirements() []*Requirement {
	all := make([]*Requirement, len(p.rules))
	for i := range p.rules {
		all[i] = &p.rules[i].Requirement
	}
	return all
}

// Meets reports whether facts certainly do not violate the requirement: they lie out
// of its scope, or are as it demands. With a fact unknown it may be that they neither
// meet nor fail it.
func (r *Requirement) Meets(f *Facts) bool { return r.violatedBy(f) == no }

// Fails reports whether facts certainly violate the requirement.
func (r *Requirement) Fails(f *Facts) bool { return r.violatedBy(f) == yes }

// InForce is the stage that has begun last, and Next the first of those to come
// that refuses, or refuses more accounts than the one in force; either may be nil.
func (r *Requirement) InForce(now time.Time) (stage, next *Stage) {
	at := r.stageAt(now)
	if at >= 0 {
		stage = &r.Stages[at]
	}
	for i := at + 1; i < len(r.Stages); i++ {
		s := &r.Stages[i]
		if s.Do.Refuses() && (stage == nil || !stage.Do.Refuses() || stage.Share > 0 && (s.Share == 0 || s.Share > stage.Share)) {
			return stage, s
		}
	}
	return stage, nil
}

// Violations lists the requirements that facts certainly do not meet, by id,
// whatever their stage. The time says which stages and exceptions are in force.
func (p *Policy) Violations(f *Facts, now time.Time) (all []Violation) {
	for i := range p.rules {
		r := &p.rules[i]
		if r.violatedBy(f) != yes {
			continue
		}
		v := Violation{Rule: &r.Requirement, Refuses: r.refuses(f, now)}
		if stage := r.stageFor(r.stageAt(now), f); stage >= 0 {
			v.Planned = r.Stages[stage].Do
		}
		v.Do = v.Planned
		if v.Exception = r.index.certain(f, now); v.Exception != nil {
			v.Sure = true
		} else {
			v.Exception = r.likely(f, now)
		}
		if v.Exception != nil {
			v.Do = min(v.Do, v.Exception.Cap)
		}
		all = append(all, v)
	}
	return all
}

// likely returns the mildest exception in force that may match and names the account or
// its domain. One for a network alone might be anybody's as long as addresses are
// not known: it would make everybody exempt.
func (r *rule) likely(f *Facts, now time.Time) (best *Exception) {
	for _, e := range r.listed {
		if now.Before(e.Until) && e.Match.names(f) && e.Match.match(f) == unknown {
			best = milder(best, e)
		}
	}
	return best
}

// names reports whether the matcher is for this account, or for its domain.
func (m Matcher) names(f *Facts) bool {
	for i := range m {
		if t := &m[i]; t.Networks == nil && !t.Not && (t.Fact == Account || t.Fact == Domain) && t.match(f) == yes {
			return true
		}
	}
	return false
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

// refuses is when the time begins in which this account is refused for good, the first
// that is not over. Trial outages come before it and are no date to be told as
// the end.
func (r *rule) refuses(f *Facts, now time.Time) (since time.Time) {
	refused := false
	for i := range r.Stages {
		from, s := r.Stages[i].From, r.stageFor(i, f)
		does := s >= 0 && r.Stages[s].Do >= Deny
		switch {
		case does && !refused:
			since = from
		case !does && refused && from.After(now):
			return since
		case !does:
			since = time.Time{}
		}
		refused = does
	}
	return since
}
