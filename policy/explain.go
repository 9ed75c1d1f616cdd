package policy

// The seven steps of a decision with their values: as data, and in sentences
// that the support desk can read out.

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Explanation is a decision with everything that led to it.
type Explanation struct {
	Policy   string            `json:"policy"`
	At       time.Time         `json:"at"`
	Facts    map[string]string `json:"facts"`
	Unknown  []string          `json:"unknown"` // facts that the policy asks for and that are not known
	Action   Action            `json:"action"`
	By       []string          `json:"by"`             // all requirements violated
	Rule     string            `json:"rule,omitempty"` // the one that decides
	Stage    *StageReason      `json:"stage,omitempty"`
	Until    time.Time         `json:"until,omitzero"`        // for a tempfail in a brownout
	Refused  time.Time         `json:"refused_from,omitzero"` // as planned, where it is not yet
	Mildest  Action            `json:"mildest"`               // with the best values for what is unknown
	Severest Action            `json:"severest"`              // with the worst
	Hold     *HoldReason       `json:"hold,omitempty"`
	Steps    []Reason          `json:"requirements"`
}

// Reason is what the first five steps come to for one requirement.
type Reason struct {
	ID         string            `json:"id"`
	Finding    Finding           `json:"finding"`
	Scope      Answer            `json:"scope"`
	Violated   Answer            `json:"violated"`
	Stage      *StageReason      `json:"stage,omitempty"` // in force by date
	Next       *StageReason      `json:"next,omitempty"`
	Share      *ShareReason      `json:"share,omitempty"`
	Brownout   *BrownoutReason   `json:"brownout,omitempty"`
	Ratchet    *RatchetReason    `json:"ratchet,omitempty"`
	Probe      *ProbeReason      `json:"probe,omitempty"`
	Exceptions []ExceptionReason `json:"exceptions,omitempty"`
	More       int               `json:"more_exceptions,omitempty"` // that might match as well
	Action     Action            `json:"action"`
	Mildest    Action            `json:"mildest"`
	Severest   Action            `json:"severest"`
}

// Answer is yes, no or unknown, what was asked, and what the session has of it.
type Answer struct {
	Is    string `json:"is"`
	Asked string `json:"asked,omitempty"`
	Has   string `json:"has,omitempty"`
}

// StageReason is a stage.
type StageReason struct {
	Number int       `json:"number"` // from 1
	Of     int       `json:"of"`
	From   time.Time `json:"from,omitzero"`
	Do     Action    `json:"do"`
}

// ShareReason is the draw of an account.
type ShareReason struct {
	Share   string       `json:"share"`
	Bucket  *int         `json:"bucket,omitempty"` // of 100,000; left out while the account is unknown
	Inside  string       `json:"inside"`
	Outside *StageReason `json:"outside,omitempty"` // what those get who lie outside; left out: nothing
}

// BrownoutReason says whether a window is open.
type BrownoutReason struct {
	Do   Action  `json:"do"`
	Open *Window `json:"open,omitempty"`
	Next *Window `json:"next,omitempty"`
}

// RatchetReason says whether the ledger knows the account as clean.
type RatchetReason struct {
	Clean string `json:"clean"` // for how long
	Do    Action `json:"do"`
	Is    string `json:"is"`
}

// ProbeReason says whether the mechanism is hidden from the client's network.
type ProbeReason struct {
	Share  string `json:"share"`
	Hidden bool   `json:"hidden"`
}

// ExceptionReason is an exception that matches, or might.
type ExceptionReason struct {
	ID      string    `json:"id"`
	Matches string    `json:"matches"`
	Asked   string    `json:"asked"`
	Cap     Action    `json:"cap"`
	Until   time.Time `json:"until"`
	Expired bool      `json:"expired,omitempty"`
	Applied bool      `json:"applied,omitempty"`
	Reason  string    `json:"reason"`
	Owner   string    `json:"owner"`
}

// HoldReason is a hold and what it changed.
type HoldReason struct {
	Cap     Action    `json:"cap"`
	Reason  string    `json:"reason"`
	Owner   string    `json:"owner"`
	Since   time.Time `json:"since"`
	Until   time.Time `json:"until"`
	Without Action    `json:"without"` // what it would be without the hold
}

// mostExceptions bounds how many exceptions of a requirement are told that might
// match: with the account unknown, it may be all of ten thousand.
const mostExceptions = 2

// Explain decides, and says why.
func (p *Policy) Explain(f *Facts, now time.Time) *Explanation { return p.ExplainUnder(nil, f, now) }

// ExplainUnder is Explain under a hold, which may be nil.
func (p *Policy) ExplainUnder(hold *Hold, f *Facts, now time.Time) *Explanation {
	now = now.In(p.zone())
	v := p.DecideUnder(hold, f, now)
	mildest, severest := p.BoundsUnder(hold, f, now)
	e := &Explanation{Policy: p.name, At: now, Facts: f.Known(), Unknown: []string{}, Action: v.Action, By: []string{}, Until: v.Until,
		Mildest: mildest.Action, Severest: severest.Action}
	e.By = append(e.By, v.Violated()...)
	if v.Rule != nil {
		r := p.rule(v.Rule.ID)
		e.Rule, e.Stage = r.ID, r.reason(slices.IndexFunc(r.Stages, func(s Stage) bool { return s.From.Equal(v.Stage.From) }))
	}
	e.Refused, _ = v.Refused()
	if hold.in(now) {
		e.Hold = &HoldReason{hold.Cap, hold.Reason, hold.Owner, hold.Since.In(p.zone()), hold.Until.In(p.zone()), p.Decide(f, now).Action}
	}
	asked := map[string]bool{}
	for i := range p.rules {
		r := &p.rules[i]
		e.Steps = append(e.Steps, r.explain(f, now, hold))
		if scope := r.Scope.match(f); scope == no {
			continue
		}
		r.asks(f, now, asked)
	}
	for _, name := range FactName("").Values() {
		if asked[name] {
			e.Unknown = append(e.Unknown, name)
		}
	}
	return e
}

// Known lists the facts that are known, by name.
func (f *Facts) Known() map[string]string {
	known := map[string]string{}
	for i, value := range f.values {
		if value != "" {
			known[factNames[i]] = value
		}
	}
	if f.IP.IsValid() {
		known[string(factIP)] = f.IP.String()
	}
	return known
}

// asks notes the unknown facts that could change what a requirement says.
func (r *rule) asks(f *Facts, now time.Time, asked map[string]bool) {
	stage := r.stageAt(now)
	if stage < 0 || r.violatedBy(f) == no {
		return
	}
	note := func(m Matcher) {
		for i := range m {
			if m[i].match(f) == unknown {
				name, _ := m[i].listed()
				asked[name] = true
			}
		}
	}
	note(r.Scope)
	note(r.Require)
	for _, e := range r.listed {
		if now.Before(e.Until) && e.Match.match(f) == unknown {
			note(e.Match)
		}
	}
	s := &r.Stages[stage]
	asked[Account.String()] = asked[Account.String()] || s.Share > 0 && f.values[Account] == ""
	asked[Ledger.String()] = asked[Ledger.String()] || s.Ratchet != nil && f.values[Ledger] == ""
}

// zone is where the dates of the policy are local.
func (p *Policy) zone() *time.Location {
	for i := range p.rules {
		for _, s := range p.rules[i].Stages {
			if !s.From.IsZero() {
				return s.From.Location()
			}
		}
	}
	return time.UTC
}

// has lists what of the facts a matcher asks for is known, in words.
func (m Matcher) has(f *Facts) string {
	var all []string
	known := f.Known()
	for i := range m {
		name, _ := m[i].listed()
		if value := known[name]; value != "" {
			all = append(all, name+" is "+value)
		}
	}
	return strings.Join(slices.Compact(all), " and ")
}

var truthNames = [...]string{unknown: "unknown", no: "no", yes: "yes"}

// explain takes the first five steps, slowly.
func (r *rule) explain(f *Facts, now time.Time, hold *Hold) Reason {
	violated := r.violatedBy(f)
	e := Reason{ID: r.ID, Finding: r.Finding,
		Scope:    Answer{truthNames[r.Scope.match(f)], r.Scope.text(), r.Scope.has(f)},
		Violated: Answer{truthNames[violated], r.Require.text(), r.Require.has(f)}}
	stage := r.stageAt(now)
	if e.Next = r.reason(stage + 1); stage < 0 {
		return e
	}
	e.Stage = r.reason(stage)
	s := &r.Stages[stage]
	if violated == no {
		return e
	}
	o := r.judge(f, now, true)
	if s.Share > 0 {
		e.Share = &ShareReason{Share: s.Share.String(), Inside: truthNames[o.inside], Outside: r.reason(r.fallback[stage])}
		if o.bucket >= 0 {
			bucket := int(o.bucket)
			e.Share.Bucket = &bucket
		}
	}
	acting := s
	if o.inside == no && r.fallback[stage] >= 0 {
		acting = &r.Stages[r.fallback[stage]]
	}
	if o.inside != no || r.fallback[stage] >= 0 {
		e.modifiers(r, acting, f, now)
	}
	if s.Probe > 0 && f.IP.IsValid() {
		e.Probe = &ProbeReason{s.Probe.String(), !hold.in(now) && violated == yes && o.exception == nil && probeBucket(r.ID, f.IP) < s.Probe}
	}
	might := 0
	for _, x := range r.listed {
		matches := x.Match.match(f)
		if matches == no {
			continue
		}
		if matches == unknown {
			if !now.Before(x.Until) {
				continue
			}
			if might++; might > mostExceptions {
				e.More++
				continue
			}
		}
		e.Exceptions = append(e.Exceptions, ExceptionReason{x.ID, truthNames[matches], x.Match.text(), x.Cap, x.Until, !now.Before(x.Until),
			x == o.exception && o.most.exception == x, x.Reason, x.Owner})
	}
	e.Severest = o.most.do
	if violated == yes {
		e.Action, e.Mildest = o.sure.do, o.least.do
	}
	return e
}

// modifiers explains the brownout and the ratchet of the stage that speaks.
func (e *Reason) modifiers(r *rule, s *Stage, f *Facts, now time.Time) {
	if b := s.Brownout; b != nil {
		e.Brownout = &BrownoutReason{Do: b.Do}
		if begin, end, open := b.window(now, s.From); open {
			e.Brownout.Open = &Window{begin, end}
		}
		until := now.AddDate(0, 0, 8)
		if next := r.stageAt(now) + 1; next < len(r.Stages) && r.Stages[next].From.Before(until) {
			until = r.Stages[next].From
		}
		for _, w := range b.windows(maxTime(s.From, now.Add(time.Nanosecond)), until, 1) {
			e.Brownout.Next = &w
		}
	}
	if c := s.Ratchet; c != nil {
		is := unknown
		if ledger := f.values[Ledger]; ledger == Clean {
			is = yes
		} else if ledger != "" {
			is = no
		}
		e.Ratchet = &RatchetReason{duration(c.Clean), c.Do, truthNames[is]}
	}
}

func maxTime(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// reason describes a stage; nil where there is none of that number.
func (r *rule) reason(stage int) *StageReason {
	if stage < 0 || stage >= len(r.Stages) {
		return nil
	}
	return &StageReason{stage + 1, len(r.Stages), r.Stages[stage].From, r.Stages[stage].Do}
}

// meets says what an action is for the customer.
var meets = [...]string{
	Pass:     "it passes",
	Observe:  "it passes, and is counted",
	Notify:   "it passes, and the customer is due for a notice",
	Warn:     "it passes, with a warning where the program can show one",
	TempFail: "it is refused for now",
	Deny:     "it is refused, with a sentence that says why",
	Refuse:   "it is refused at the earliest moment",
}

// String is the explanation in lines.
func (e *Explanation) String() string { return strings.Join(e.Lines(), "\n") }

// Lines are the explanation in sentences, step by step.
func (e *Explanation) Lines() []string {
	var facts []string
	for _, name := range FactName("").Values() {
		if value := e.Facts[name]; value != "" {
			facts = append(facts, name+" "+value)
		}
	}
	lines := []string{
		"Policy " + e.Policy + " at " + clock(e.At),
		"Known: " + listOr(facts, "nothing"),
	}
	if len(e.Unknown) > 0 {
		lines = append(lines, "Asked for, but not known: "+strings.Join(e.Unknown, ", "))
	}
	for i := range e.Steps {
		lines = append(lines, "")
		lines = append(lines, e.Steps[i].lines()...)
	}
	lines = append(lines, "", "6. The most severe wins: "+e.winner())
	if len(e.By) > 1 {
		lines = append(lines, "   Violated in all: "+strings.Join(e.By, ", "))
	}
	if h := e.Hold; h != nil {
		effect := "which changes nothing here"
		if h.Without > h.Cap {
			effect = fmt.Sprintf("so that %v becomes %v", h.Without, e.Action)
		}
		lines = append(lines, fmt.Sprintf("7. Hold: at most %v until %s, by %s (%s), %s", h.Cap, clock(h.Until), h.Owner, h.Reason, effect))
	} else {
		lines = append(lines, "7. Hold: none")
	}
	lines = append(lines, "", fmt.Sprintf("Result: %v, %s", e.Action, meets[e.Action]))
	if !e.Until.IsZero() {
		lines = append(lines, "   It lasts until "+clock(e.Until))
	}
	if !e.Refused.IsZero() {
		lines = append(lines, "   As planned, it is refused at the earliest from "+day(e.Refused)+" on")
	}
	if e.Mildest != e.Severest {
		lines = append(lines, fmt.Sprintf("   With what is not known, it can be anything from %v to %v", e.Mildest, e.Severest))
	}
	return lines
}

// winner says which requirement decides.
func (e *Explanation) winner() string {
	if e.Rule == "" {
		return "no requirement is violated"
	}
	without := e.Action
	if e.Hold != nil {
		without = e.Hold.Without
	}
	return fmt.Sprintf("%v, by %s", without, e.Rule)
}

func (e *Reason) lines() []string {
	lines := []string{fmt.Sprintf("Requirement %s (%s)", e.ID, e.Finding)}
	add := func(step int, format string, args ...any) {
		lines = append(lines, fmt.Sprintf("%d. ", step)+fmt.Sprintf(format, args...))
	}
	switch {
	case e.Scope.Asked == "":
		add(1, "Scope: all sessions")
	case e.Scope.Is == "unknown":
		add(1, "Scope: sessions whose %s; not known yet", e.Scope.Asked)
	default:
		add(1, "Scope: sessions whose %s: %s", e.Scope.Asked, e.Scope.Is)
	}
	if e.Scope.Is == "no" {
		return append(lines, "   So it says nothing of this session")
	}
	switch e.Violated.Is {
	case "no":
		add(2, "Violation: no; it asks that %s", e.Violated.Asked)
	case "yes":
		add(2, "Violation: yes; it asks that %s, and %s", e.Violated.Asked, e.Violated.Has)
	default:
		add(2, "Violation: not known yet, so not for now; it asks that %s", e.Violated.Asked)
	}
	switch {
	case e.Violated.Is == "no":
		return append(lines, "   So it says nothing of this session")
	case e.Stage == nil:
		add(3, "Stage: none has begun; the first is %s", e.Next)
		return lines
	case e.Next == nil:
		add(3, "Stage: %s, the last", e.Stage)
	default:
		add(3, "Stage: %s; the next is %s", e.Stage, e.Next)
	}
	add(4, "%s", e.modified())
	if len(e.Exceptions) == 0 {
		add(5, "Exceptions: none")
	}
	for _, x := range e.Exceptions {
		effect := "which lowers nothing here"
		switch {
		case x.Expired:
			effect = "which has ended"
		case x.Applied:
			effect = "which lowers what this meets"
		case x.Matches == "unknown":
			effect = "which is not known to match yet"
		}
		add(5, "Exception %s for sessions whose %s: at most %v %s, by %s (%s), %s",
			x.ID, x.Asked, x.Cap, through(x.Until), x.Owner, x.Reason, effect)
	}
	if e.More > 0 {
		lines = append(lines, fmt.Sprintf("   %d more exceptions are not known to match yet", e.More))
	}
	if e.Violated.Is == "unknown" {
		return append(lines, fmt.Sprintf("   So it says nothing for now, and at most %v later", e.Severest))
	}
	return append(lines, fmt.Sprintf("   So it says %v", e.Action))
}

// modified is the fourth step.
func (e *Reason) modified() string {
	var all []string
	if s := e.Share; s != nil {
		part := "Share: " + s.Share + " of the accounts; "
		switch {
		case s.Bucket == nil:
			part += "the account is not known yet"
		default:
			part += fmt.Sprintf("this one is number %d of 100,000, ", *s.Bucket)
			if s.Inside == "yes" {
				part += "inside"
			} else if s.Outside == nil {
				part += "outside, so the requirement is silent"
			} else {
				part += "outside, so it is still in stage " + s.Outside.String()
			}
		}
		all = append(all, part)
	}
	if b := e.Brownout; b != nil {
		switch {
		case b.Open != nil:
			all = append(all, fmt.Sprintf("Brownout: %v from %s until %s", b.Do, clock(b.Open.From), clock(b.Open.Until)))
		case b.Next != nil:
			all = append(all, fmt.Sprintf("Brownout: not now; the next begins %s", clock(b.Next.From)))
		default:
			all = append(all, "Brownout: not now, and no more in this stage")
		}
	}
	if c := e.Ratchet; c != nil {
		switch c.Is {
		case "yes":
			all = append(all, fmt.Sprintf("Ratchet: %v, as the account has been clean for %s", c.Do, c.Clean))
		case "no":
			all = append(all, "Ratchet: no, the account has not been clean for "+c.Clean)
		default:
			all = append(all, "Ratchet: it is not known whether the account has been clean for "+c.Clean)
		}
	}
	if p := e.Probe; p != nil && p.Hidden {
		all = append(all, "Probe: the mechanism is not offered to this network, one of "+p.Share)
	}
	if all == nil {
		return "Share, brownout, ratchet: none"
	}
	return strings.Join(all, "; ")
}

// String names a stage.
func (s *StageReason) String() string {
	if s.From.IsZero() {
		return fmt.Sprintf("%d of %d, %v, without a date", s.Number, s.Of, s.Do)
	}
	return fmt.Sprintf("%d of %d, %v from %s on", s.Number, s.Of, s.Do, day(s.From))
}
