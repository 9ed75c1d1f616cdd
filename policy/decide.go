package policy

// The seven steps: scope, violation, stage, modifiers, exceptions, the most
// severe, hold. Nothing here allocates.

import (
	"crypto/sha256"
	"encoding/binary"
	"math/bits"
	"net/netip"
	"time"
)

// Verdict is what policy says of a session. The zero Verdict passes.
type Verdict struct {
	Action    Action
	Rule      *Requirement // the most severe of those violated, ties by id; nil where none is
	Stage     *Stage       // of the rule, in force for this account; the date is its From
	Next      *Stage       // of the rule, the one to come; nil where there is none
	Until     time.Time    // for a tempfail in a brownout: when it ends
	Exception *Exception   // that made the rule milder; nil where none did
	Hold      *Hold        // that made the whole milder; nil where none did
	bucket    int32        // plus 1
	violated  uint64       // bit n: requirement n of the policy
	policy    *Policy
}

// Violated returns the ids of all requirements violated, ascending, so that
// one notice can list everything there is to change.
func (v Verdict) Violated() []string {
	if v.violated == 0 {
		return nil
	}
	ids := make([]string, 0, bits.OnesCount64(v.violated))
	for i := range v.policy.rules {
		if v.violated&(1<<i) != 0 {
			ids = append(ids, v.policy.rules[i].ID)
		}
	}
	return ids
}

// Bucket returns where the account's draw for the rule lies, from 0 to 99,999,
// if its stage is for a share of the accounts.
func (v Verdict) Bucket() (bucket int, drawn bool) { return int(v.bucket) - 1, v.bucket > 0 }

// Refused returns from when on, at the earliest, the rule will refuse this session,
// as it is planned, if it does not yet: when a stage begins, or the exception ends.
func (v Verdict) Refused() (from time.Time, planned bool) {
	if v.Rule == nil || v.Stage == nil || v.Action.Refuses() {
		return time.Time{}, false
	}
	if v.Exception != nil && v.Stage.Do.Refuses() {
		return v.Exception.Until, true
	}
	for i := range v.Rule.Stages {
		if s := &v.Rule.Stages[i]; s.From.After(v.Stage.From) && s.Do.Refuses() {
			if v.Exception != nil && v.Exception.Until.After(s.From) {
				return v.Exception.Until, true
			}
			return s.From, true
		}
	}
	return time.Time{}, false
}

// Decide compares the facts with every requirement at an instant. The most
// severe action wins. It allocates nothing.
//
// What is unknown counts as mild: a requirement is violated, an account inside a
// share and an exception in force only where that is certain.
func (p *Policy) Decide(f *Facts, now time.Time) Verdict { return p.DecideUnder(nil, f, now) }

// DecideUnder is Decide under a hold, which may be nil.
func (p *Policy) DecideUnder(hold *Hold, f *Facts, now time.Time) Verdict {
	v := Verdict{policy: p}
	for i := range p.rules {
		r := &p.rules[i]
		if now.Before(r.Stages[0].From) || r.violatedBy(f) != yes {
			continue
		}
		o := r.judge(f, now, false)
		v.add(i, &o, &o.sure)
	}
	v.held(hold, now)
	return v
}

// Bounds answers with facts still unknown: the mildest and the severest action
// that values for them could bring, with all exceptions and shares. They are
// bounds and need not be met: requirements are not combined.
func (p *Policy) Bounds(f *Facts, now time.Time) (mildest, severest Verdict) {
	return p.BoundsUnder(nil, f, now)
}

// BoundsUnder is Bounds under a hold, which may be nil.
func (p *Policy) BoundsUnder(hold *Hold, f *Facts, now time.Time) (mildest, severest Verdict) {
	mildest.policy, severest.policy = p, p
	for i := range p.rules {
		r := &p.rules[i]
		if now.Before(r.Stages[0].From) {
			continue
		}
		violated := r.violatedBy(f)
		if violated == no {
			continue
		}
		o := r.judge(f, now, true)
		if violated == yes {
			mildest.add(i, &o, &o.least)
		}
		severest.add(i, &o, &o.most)
	}
	mildest.held(hold, now)
	severest.held(hold, now)
	return mildest, severest
}

// Probed reports whether a mechanism, which is among the facts, is to be left
// out of what this client's network is offered now. It is for the offer alone: a
// client that asks for the mechanism all the same gets what the policy decides.
// Under a hold nothing is left out.
func (p *Policy) Probed(hold *Hold, f *Facts, now time.Time) bool {
	if hold.in(now) || !f.IP.IsValid() {
		return false
	}
	for i := range p.rules {
		r := &p.rules[i]
		s := r.stageAt(now)
		if s < 0 || r.Stages[s].Probe == 0 || r.violatedBy(f) != yes || r.index.certain(f, now) != nil {
			continue
		}
		if probeBucket(r.ID, f.IP) < r.Stages[s].Probe {
			return true
		}
	}
	return false
}

// add takes a violated requirement into the verdict.
func (v *Verdict) add(i int, o *outcome, says *saying) {
	if says.stage < 0 {
		return
	}
	v.violated |= 1 << i
	if v.Rule != nil && says.do <= v.Action {
		return
	}
	r := &v.policy.rules[i]
	v.Action, v.Rule, v.Stage, v.Exception = says.do, &r.Requirement, &r.Stages[says.stage], says.exception
	v.bucket, v.Next, v.Until = int32(o.bucket)+1, nil, time.Time{}
	if o.stage+1 < len(r.Stages) {
		v.Next = &r.Stages[o.stage+1]
	}
	if v.Action == TempFail {
		v.Until = says.end
		if v.Next != nil && v.Next.From.Before(v.Until) {
			v.Until = v.Next.From
		}
	}
}

// held is the last step.
func (v *Verdict) held(hold *Hold, now time.Time) {
	if hold.in(now) && v.Action > hold.Cap {
		v.Action, v.Hold, v.Until = hold.Cap, hold, time.Time{}
	}
}

// violatedBy is the first two steps: whether the facts lie in the requirement's
// scope and fail it.
func (r *Requirement) violatedBy(f *Facts) truth {
	scope := r.Scope.match(f)
	if scope == no {
		return no
	}
	met := r.Require.match(f)
	switch {
	case met == yes:
		return no
	case met == no && scope == yes:
		return yes
	}
	return unknown
}

// outcome is what the steps from the third to the fifth come to, for a
// requirement that is violated.
type outcome struct {
	stage     int        // in force by date; -1: none has begun
	bucket    Share      // of the account; -1: not drawn
	inside    truth      // the account lies inside the stage's share
	exception *Exception // the mildest that matches
	possible  *Exception // the mildest that might, where bounds are asked for

	sure        saying // with what is certain
	least, most saying // with what is possible
}

// saying is what a requirement says in the end, and why.
type saying struct {
	do        Action
	stage     int        // that says so; -1: the requirement is silent
	end       time.Time  // of the window that raised it
	exception *Exception // that lowered it
}

// judge takes the third, fourth and fifth step.
func (r *rule) judge(f *Facts, now time.Time, bounds bool) outcome {
	o := outcome{stage: r.stageAt(now), bucket: -1, inside: yes}
	outside := o.stage
	if o.stage >= 0 && r.Stages[o.stage].Share > 0 {
		o.inside, outside = unknown, r.fallback[o.stage]
		if account := f.values[Account]; account != "" {
			if o.bucket, o.inside = Bucket(r.ID, account), no; o.bucket < r.Stages[o.stage].Share {
				o.inside = yes
			}
		}
	}
	switch o.inside {
	case yes:
		o.sure, o.most = r.act(o.stage, f, now)
	case no:
		o.sure, o.most = r.act(outside, f, now)
	default:
		o.sure, o.most = r.act(o.stage, f, now)
		sure, most := r.act(outside, f, now)
		if sure.do <= o.sure.do {
			o.sure = sure
		}
		if most.do > o.most.do {
			o.most = most
		}
	}
	o.least = o.sure
	r.except(&o, f, now, bounds)
	return o
}

// except is the fifth step.
func (r *rule) except(o *outcome, f *Facts, now time.Time, bounds bool) {
	if o.most.do == Pass {
		return
	}
	if e := r.index.certain(f, now); e != nil {
		o.exception = e
		o.sure.lower(e)
		o.least.lower(e)
		o.most.lower(e)
	}
	if bounds {
		if e := r.index.possible(f, now); e != nil {
			o.possible = e
			o.least.lower(e)
		}
	}
}

// lower applies an exception.
func (s *saying) lower(e *Exception) {
	if e.Cap < s.do {
		s.do, s.exception = e.Cap, e
	}
}

// act is what a stage does with its brownout and its ratchet, which only raise:
// for certain, and at most.
func (r *rule) act(stage int, f *Facts, now time.Time) (sure, most saying) {
	if stage < 0 {
		return saying{stage: -1}, saying{stage: -1}
	}
	s := &r.Stages[stage]
	sure = saying{do: s.Do, stage: stage}
	if b := s.Brownout; b != nil && b.Do > sure.do {
		if _, end, open := b.window(now, s.From); open {
			sure.do, sure.end = b.Do, end
		}
	}
	most = sure
	if c := s.Ratchet; c != nil {
		switch f.values[Ledger] {
		case "":
			most.do = max(most.do, c.Do)
		case Clean:
			sure.do = max(sure.do, c.Do)
			most = sure
		}
	}
	if sure.do == Pass {
		sure.stage = -1
	}
	if most.do == Pass {
		most.stage = -1
	}
	return sure, most
}

// stageAt returns the stage in force: the last that has begun, or -1.
func (r *Requirement) stageAt(now time.Time) int {
	at := -1
	for i := range r.Stages {
		if r.Stages[i].From.After(now) {
			break
		}
		at = i
	}
	return at
}

// Bucket draws an account for a requirement: the same in every process and at
// every time, so that who lies inside a share does so in every larger one.
func Bucket(requirement, account string) Share {
	var b [512]byte
	return draw(append(seed(b[:0], requirement), account...))
}

// Network returns what is told of a client's address where that itself is too much: an
// IPv4 /24 or an IPv6 /48, since the addresses of one household change within these.
// Without an address it is not valid.
func Network(ip netip.Addr) netip.Prefix {
	ip = ip.Unmap().WithZone("")
	length := 48
	if ip.Is4() {
		length = 24
	}
	network, _ := ip.Prefix(length)
	return network
}

// probeBucket draws a client's network.
func probeBucket(requirement string, ip netip.Addr) Share {
	network := Network(ip)
	if !network.IsValid() {
		return Everybody // no address: outside every share
	}
	var b [512]byte
	return draw(network.AppendTo(seed(b[:0], requirement)))
}

// seed begins what is drawn from.
func seed(b []byte, requirement string) []byte {
	return append(append(append(b, "v1\x00"...), requirement...), 0)
}

func draw(from []byte) Share {
	sum := sha256.Sum256(from)
	return Share(binary.BigEndian.Uint64(sum[:8]) % uint64(Everybody))
}

// zone is where the clock hangs.
func (b *Brownout) zone() *time.Location {
	if b.Zone == nil {
		return time.UTC
	}
	return b.Zone
}

// window returns the brownout's window that is open, if one is. Only windows
// that begin in the stage are its own.
func (b *Brownout) window(now, from time.Time) (begin, end time.Time, open bool) {
	y, m, d := now.In(b.zone()).Date()
	for back := range int(b.For/(24*time.Hour)) + 2 { // the last day may have had 25 hours
		if !b.Days[weekday(y, m, d-back)] {
			continue
		}
		begin = wall(y, m, d-back, b.At, b.zone())
		end = begin.Add(b.For)
		if !begin.Before(from) && !now.Before(begin) && now.Before(end) {
			return begin, end, true
		}
	}
	return time.Time{}, time.Time{}, false
}

// weekday of a day that may lie before the first of its month.
func weekday(y int, m time.Month, d int) time.Weekday {
	return time.Date(y, m, d, 0, 0, 0, 0, time.UTC).Weekday()
}

// wall returns the instant at which a clock on the wall shows a time. Where it
// shows it twice, in the night in which it is set back, that is the first; where
// it never does, because it is set forward over it, the instant of that.
// (time.Date leaves both open.)
func wall(y int, m time.Month, d int, at time.Duration, zone *time.Location) time.Time {
	shown := time.Date(y, m, d, 0, 0, 0, 0, time.UTC).Add(at)
	if zone == time.UTC {
		return shown
	}
	const day = 24 * time.Hour
	_, before := shown.Add(-day).In(zone).Zone()
	_, after := shown.Add(day).In(zone).Zone()
	first := shown.Add(-time.Duration(max(before, after)) * time.Second).In(zone)
	last := shown.Add(-time.Duration(min(before, after)) * time.Second).In(zone)
	_, offset := first.Zone()
	if offset == max(before, after) {
		return first
	}
	if _, offset := last.Zone(); offset == min(before, after) {
		return last
	}
	begin, _ := last.ZoneBounds()
	return begin
}
