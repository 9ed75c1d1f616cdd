package policy

// What is wrong with a file at some time, or strange: warnings, expired exceptions,
// and the statements that are to be proved.

import (
	"fmt"
	"maps"
	"slices"
	"time"
)

// longestException is how far ahead the end of an exception may lie. Whoever needs
// more decides anew; an escape without an end becomes a second migration.
const longestException = 180 * 24 * time.Hour

// Check looks at the file as it is at an instant, and proves its statements. p is
// what the file was compiled to.
func (f *File) Check(p *Policy, now time.Time) []Problem {
	c := f.compiler()
	c.requirements()
	c.exceptions()
	statements := slices.Concat(c.statements("always", f.Always), c.statements("never", f.Never))
	for _, name := range slices.Sorted(maps.Keys(f.Sets)) {
		if !c.used[name] {
			c.warn("sets."+string(name), "nothing uses this set", "leave it out")
		}
	}
	for i := range f.Requirements {
		c.strangeStages(i)
	}
	c.strangeExceptions(p, now)
	if len(f.Tests) == 0 {
		c.warn("", "the file has no tests", "write under tests what some sessions must meet before and after each date")
	}
	x := newProver(p)
	c.moot(x)
	c.proofs(x, statements)
	return c.problems
}

// warn tells what does not keep the file from coming into force.
func (c *compiler) warn(key, message, cure string) {
	c.problems = append(c.problems, Problem{Warning: true, Key: key, Message: message, Cure: cure})
}

func (c *compiler) strangeStages(i int) {
	stages := c.file.Requirements[i].Stages
	for j, s := range stages {
		key := at("requirements", i, at("stages", j, ""))
		falls := j > 0 && (s.Do < stages[j-1].Do || s.Share != nil && (stages[j-1].Share == nil || *s.Share < *stages[j-1].Share))
		if s.Lower && !falls {
			c.warn(key+".lower", "the stage is not milder than the one before it", "leave it out")
		}
	}
}

func (c *compiler) strangeExceptions(p *Policy, now time.Time) {
	for i, e := range c.file.Exceptions {
		until := e.Until.ends(c.zone)
		switch {
		case !now.Before(until):
			c.warn(at("exceptions", i, "until"), fmt.Sprintf("the exception has expired with %s", e.Until), "leave it out, or decide anew")
		case until.After(now.Add(longestException + 24*time.Hour)):
			c.fail(at("exceptions", i, "until"), fmt.Sprintf("%s is more than 180 days ahead", e.Until),
				"write "+now.Add(longestException).In(c.zone).Format(time.DateOnly)+" or earlier, and decide anew then")
		}
		severest := Pass
		for j, id := range e.For {
			r := p.rule(string(id))
			for _, s := range r.Stages {
				severest = max(severest, s.severest())
			}
			if fact, excludes := r.Scope.excludes(p.exception(string(e.ID)).Match); excludes {
				c.warn(at("exceptions", i, at("for", j, "")), fmt.Sprintf("the scope of %s has no %s that match has, so it lowers nothing there", id, fact),
					"look at match, or leave the requirement out")
			}
		}
		if e.Cap >= severest {
			c.warn(at("exceptions", i, "cap"), fmt.Sprintf("nothing that it is for is severer than %v, so it lowers nothing", e.Cap), "leave the exception out, or write a milder action")
		}
	}
}

// excludes reports whether no session matches both, and by which fact that is seen.
func (m Matcher) excludes(other Matcher) (Fact, bool) {
	for i := range m {
		for j := range other {
			a, b := &m[i], &other[j]
			if a.Networks != nil || b.Networks != nil || a.Fact != b.Fact || a.Not && b.Not {
				continue
			}
			if a.Not {
				a, b = b, a
			}
			if !slices.ContainsFunc(a.Values, func(v string) bool { return b.has(v) != b.Not }) {
				return a.Fact, true
			}
		}
	}
	return 0, false
}

// moot tells requirements that never decide anything.
func (c *compiler) moot(x *prover) {
	for i, r := range c.file.Requirements {
		b := x.policy.rule(string(r.ID))
		if !x.violable(b) {
			c.warn(at("requirements", i, "require"), "no session in its scope can violate it", "look at scope and require")
			continue
		}
		for j := range x.policy.rules {
			a := &x.policy.rules[j]
			if a == b || !a.covers(b) || !x.implies(a, b) {
				continue
			}
			// Of two that say the same, one is told.
			if a.ID > b.ID && b.covers(a) && x.implies(b, a) {
				continue
			}
			c.warn(at("requirements", i, ""), fmt.Sprintf("whoever violates it violates %s too, which is as severe at any time; it decides nothing", a.ID), "leave it out, or narrow the scope of the other")
			break
		}
	}
}

// covers reports whether a requirement is at least as severe as another at every
// transition of the two, whoever it is.
func (r *rule) covers(other *rule) bool {
	var all []time.Time
	for _, s := range r.Stages {
		if s.Share > 0 {
			return false
		}
		all = append(all, s.From)
	}
	for _, s := range other.Stages {
		all = append(all, s.From)
	}
	for _, now := range all {
		stage := other.stageAt(now)
		if stage < 0 {
			continue
		}
		most := other.Stages[stage].severest()
		if back := other.fallback[stage]; other.Stages[stage].Share > 0 && back >= 0 {
			most = max(most, other.Stages[back].severest())
		}
		if mine := r.stageAt(now); mine < 0 || r.Stages[mine].Do < most {
			return false
		}
	}
	// An exception for the one that covers lets the other decide.
	return len(r.listed) == 0
}

// violable reports whether any session violates a requirement.
func (x *prover) violable(r *rule) bool {
	found := false
	x.each(r.Stages[0].From, []*rule{r}, nil, nil, func(f *Facts) bool {
		found = r.violatedBy(f) == yes
		return !found
	})
	return found || x.left <= 0
}

// implies reports whether every session that violates b violates a.
func (x *prover) implies(a, b *rule) bool {
	holds := true
	all := x.each(maxTime(a.Stages[0].From, b.Stages[0].From), []*rule{a, b}, nil, nil, func(f *Facts) bool {
		holds = b.violatedBy(f) != yes || a.violatedBy(f) == yes
		return holds
	})
	return holds && all
}

// proofs tries the statements.
func (c *compiler) proofs(x *prover, statements []statement) {
	for i := range statements {
		s := &statements[i]
		x.left = mostSteps
		against, tried := x.prove(s, x.policy.instants(s.from, s.until))
		switch {
		case against != nil:
			c.fail(s.key, "this does not hold: "+against.String(), "change the statement, or what it speaks of")
		case x.left <= 0:
			c.fail(s.key, fmt.Sprintf("this cannot be proved within %d steps", mostSteps), "narrow match, from and until, or name fewer values and smaller lists")
		case !tried:
			c.warn(s.key+".match", "no session is like this at that time, so nothing is proved", "look at match, from and until")
		}
	}
}
