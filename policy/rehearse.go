package policy

// The tests that a policy file has of its own, on a clock of theirs.

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Rehearsal is what became of a file's tests.
type Rehearsal struct {
	Tests     int         `json:"tests"`
	Failed    []Failure   `json:"failed"`
	Unreached []Unreached `json:"unreached"` // by the id of the requirement, then by stage
}

// Failure is a test that met something else than it expects.
type Failure struct {
	Key      string    `json:"key"` // of the test in the file, like tests[3]
	At       time.Time `json:"at"`
	Expected Action    `json:"expected"`
	Got      Action    `json:"got"`
	By       []string  `json:"by"`       // what it expects, if it says so
	Violated []string  `json:"violated"` // what was violated
}

// String says what a test expected and what it met.
func (f Failure) String() string {
	expected, got := f.Expected.String(), f.Got.String()
	if f.By != nil {
		expected += " by " + listOr(f.By, "nothing")
	}
	return fmt.Sprintf("at %s it expects %s, but meets %s by %s", clock(f.At), expected, got, listOr(f.Violated, "nothing"))
}

// Unreached is a stage, or the brownout or ratchet of a stage, that decides in no test.
type Unreached struct {
	Requirement string    `json:"requirement"`
	Stage       int       `json:"stage"` // from 1
	From        time.Time `json:"from"`
	What        string    `json:"what"` // stage, share, brownout or ratchet
}

// String names what no test reaches.
func (u Unreached) String() string {
	text := fmt.Sprintf("requirement %s, stage %d (from %s)", u.Requirement, u.Stage, day(u.From))
	if u.What != "stage" {
		text += ": its " + u.What
	}
	return text
}

// Rehearse runs the tests of the file against the policy that was compiled of it.
func (f *File) Rehearse(p *Policy) Rehearsal {
	c := compiler{file: f, zone: f.zone()}
	result := Rehearsal{Tests: len(f.Tests), Failed: []Failure{}, Unreached: []Unreached{}}
	reached := map[Unreached]bool{}
	for i, t := range f.Tests {
		facts, now := c.facts("", t.Is), t.At.begins(c.zone)
		v := p.Decide(facts, now)
		p.reach(reached, facts, now)
		var by []string
		if t.By != nil {
			by = []string{}
		}
		for _, id := range t.By {
			by = append(by, string(id))
		}
		slices.Sort(by)
		if violated := v.Violated(); v.Action != t.Expect || by != nil && !slices.Equal(by, violated) {
			result.Failed = append(result.Failed, Failure{Key: at("tests", i, ""), At: now, Expected: t.Expect, Got: v.Action, By: by, Violated: violated})
		}
	}
	for i := range p.rules {
		r := &p.rules[i]
		for j := range r.Stages {
			for _, what := range r.Stages[j].parts() {
				if u := (Unreached{r.ID, j + 1, r.Stages[j].From, what}); !reached[u] {
					result.Unreached = append(result.Unreached, u)
				}
			}
		}
	}
	return result
}

// parts are what of a stage can be reached.
func (s *Stage) parts() []string {
	all := []string{"stage"}
	if s.Share > 0 {
		all = append(all, "share")
	}
	if s.Brownout != nil {
		all = append(all, "brownout")
	}
	if s.Ratchet != nil {
		all = append(all, "ratchet")
	}
	return all
}

// reach notes what speaks for a session. The stage itself is reached by an
// account inside its share, the share by one that it leaves out.
func (p *Policy) reach(reached map[Unreached]bool, f *Facts, now time.Time) {
	for i := range p.rules {
		r := &p.rules[i]
		stage := r.stageAt(now)
		if stage < 0 || r.violatedBy(f) != yes {
			continue
		}
		note := func(stage int, what string) {
			reached[Unreached{r.ID, stage + 1, r.Stages[stage].From, what}] = true
		}
		acting := stage
		if o := r.judge(f, now, false); o.inside != yes {
			if o.inside == unknown {
				continue
			}
			note(stage, "share")
			if acting = r.fallback[stage]; acting < 0 {
				continue
			}
		}
		s := &r.Stages[acting]
		note(acting, "stage")
		if b := s.Brownout; b != nil {
			if _, _, open := b.window(now, s.From); open {
				note(acting, "brownout")
			}
		}
		if s.Ratchet != nil && f.values[Ledger] == Clean {
			note(acting, "ratchet")
		}
	}
}

// clock writes an instant for people.
func clock(t time.Time) string { return t.Format("Mon 2 Jan 2006 15:04:05 MST") }

// day writes the date of an instant, and the time where it is not midnight.
func day(t time.Time) string {
	switch {
	case t.IsZero():
		return "ever"
	case t.Hour() == 0 && t.Minute() == 0 && t.Second() == 0:
		return t.Format("Mon 2 Jan 2006")
	}
	return t.Format("Mon 2 Jan 2006 15:04 MST")
}

// through writes the last day before an instant, or the instant where it is no midnight.
func through(end time.Time) string {
	if before := end.AddDate(0, 0, -1); day(end) == end.Format("Mon 2 Jan 2006") {
		return "to the end of " + day(before)
	}
	return "until " + day(end)
}

// listOr joins a list, or says what an empty one is.
func listOr(list []string, empty string) string {
	if len(list) == 0 {
		return empty
	}
	return strings.Join(list, ", ")
}
