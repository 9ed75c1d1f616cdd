package outreach

// Before a stage begins, how many it will cost; and afterwards, whether it costs more.

import (
	"fmt"
	"hash/maphash"
	"iter"
	"math"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"mailreeve/events"
	"mailreeve/policy"
)

// forecastDays are looked at: devices that are used each month are seen in them.
const forecastDays = 30

// Forecast is what the beginning of a stage will bring, by the ledger.
type Forecast struct {
	Requirement string        `json:"requirement"`
	At          time.Time     `json:"at"`
	Do          policy.Action `json:"do"`            // the severest of the stage, in a brownout or by a ratchet too
	Seen        int           `json:"accounts_seen"` // in 30 days
	Open        int           `json:"open"`          // of these, with an open or silent finding of the requirement, and no exception then
	Newly       int           `json:"newly_refused"` // of these, that the requirement refuses then, and not before
	Made        time.Time     `json:"made"`
}

// OpenShare is the part of the accounts seen that has an open finding.
func (f *Forecast) OpenShare() policy.Share {
	if f.Seen == 0 {
		return policy.Everybody
	}
	return policy.Share(int64(f.Open) * int64(policy.Everybody) / int64(f.Seen))
}

// transition is the beginning of a stage that refuses somebody, or has a guard.
type transition struct {
	rule  *policy.Requirement
	stage *policy.Stage
}

// severest is the most that the stage can do.
func (t transition) severest() policy.Action {
	do := t.stage.Do
	if b := t.stage.Brownout; b != nil {
		do = max(do, b.Do)
	}
	if r := t.stage.Ratchet; r != nil {
		do = max(do, r.Do)
	}
	return do
}

// transitionsSince lists those after an instant.
func transitionsSince(p *policy.Policy, after time.Time) (all []transition) {
	for _, r := range p.Requirements() {
		for i := range r.Stages {
			t := transition{r, &r.Stages[i]}
			if t.stage.From.After(after) && (t.stage.Guard != nil || t.severest().Refuses()) {
				all = append(all, t)
			}
		}
	}
	slices.SortStableFunc(all, func(a, b transition) int { return a.stage.From.Compare(b.stage.From) })
	return all
}

// Forecasts looks at every transition to come, and at those of the last day, in order of
// time, by all accounts of a ledger.
func Forecasts(accounts iter.Seq2[*Account, error], p *policy.Policy, now time.Time, zone *time.Location) ([]Forecast, error) {
	transitions := transitionsSince(p, now.Add(-watchedFor))
	all := make([]Forecast, len(transitions))
	for i, t := range transitions {
		all[i] = Forecast{Requirement: t.rule.ID, At: t.stage.From, Do: t.severest(), Made: now}
	}
	w := &impacting{today: DayOf(now, zone)}
	w.Window = windowOf(w.today-forecastDays+1, w.today)
	for a, err := range accounts {
		if err != nil {
			return nil, err
		}
		a = w.within(a)
		if len(a.Uses) == 0 {
			continue
		}
		x := examine(p, a, now, zone)
		for i, t := range transitions {
			open, newly := t.costs(p, x)
			all[i].Seen++
			if open {
				all[i].Open++
			}
			if newly {
				all[i].Newly++
			}
		}
	}
	return all, nil
}

// costs is whether an account has an open finding of the requirement when the stage
// begins, and whether the stage is what begins to refuse it.
func (t transition) costs(p *policy.Policy, x *examined) (open, newly bool) {
	refused := false // before
	for i := range x.trails {
		trail := x.trails[i]
		if trail.Exception = nil; trail.Rule != t.rule || !trail.on(x.until).affected() {
			continue
		}
		for _, u := range trail.Uses {
			f := u.Facts(x.Name)
			if v, ok := violationOf(p, t.rule, f, t.stage.From.Add(-time.Nanosecond)); ok {
				refused = refused || v.Do.Refuses()
			}
			v, ok := violationOf(p, t.rule, f, t.stage.From)
			if !ok {
				continue
			}
			do := v.Do
			if b := t.stage.Brownout; b != nil && t.concerns(x.Name) {
				if do = max(do, b.Do); v.Exception != nil {
					do = min(do, v.Exception.Cap)
				}
			}
			newly = newly || do.Refuses()
			open = open || v.Exception == nil || v.Exception.Cap.Refuses()
		}
	}
	return open, newly && !refused
}

// concerns reports whether an account lies inside the stage's share.
func (t transition) concerns(account string) bool {
	return t.stage.Share == 0 || policy.Bucket(t.rule.ID, account) < t.stage.Share
}

// violationOf is that of one requirement.
func violationOf(p *policy.Policy, rule *policy.Requirement, f *policy.Facts, at time.Time) (policy.Violation, bool) {
	for _, v := range p.Violations(f, at) {
		if v.Rule == rule {
			return v, true
		}
	}
	return policy.Violation{}, false
}

const (
	// watchedFor is how long before and after a transition sessions are counted.
	watchedFor = 24 * time.Hour

	// ahead is how long before a stage begins its guard is asked: a hold that is set only
	// then comes too late for those who log in meanwhile.
	ahead = time.Minute

	// A forecast is out of date after this; then its stage begins as if there were none.
	forecastGood = 48 * time.Hour

	// readingTakes is how long after a start or a reload nobody wonders that there is none yet.
	readingTakes = 10 * time.Minute

	// More than these over the forecast are refused: something is not as foreseen.
	slackShare, slackAccounts = 1.25, 10

	// guardHolds is how long a hold lasts: over a weekend with holidays around it, until somebody
	// has looked.
	guardHolds = 7 * 24 * time.Hour

	// mostWatched bounds what is kept of sessions before a transition.
	mostWatched = 1 << 17

	guardOwner = "guard"
)

// Alarm is what the watch has to say. Whoever gets it writes it into the log, and
// puts the hold, if there is one.
type Alarm struct {
	Requirement string
	At          time.Time    // of the transition
	Hold        *policy.Hold // nil: the stage has no guard, so nothing is held back
	Reason      string       // a sentence with the numbers; the hold's too
}

// Watch compares transitions with their forecasts. When a stage with a guard begins,
// it asks for a hold if more accounts have an open finding than the guard allows, or
// if that is not known. In the day after any transition it counts who is refused, and
// sounds the alarm once if these are more than foreseen: by a quarter and ten accounts.
//
// Counted are accounts that the backend confirmed and policy refused for the requirement, and
// who were not refused so on the day before. In clear, and before a handshake, nobody is
// confirmed: there the networks of clients count, by the hour, an address of version
// 4 or a /56 of version 6, less what came in an hour of the day before, for robots
// are refused too. A customer whose address changes at night counts once so; customers
// behind one address do too. Robots that set out just then are taken for customers: a
// hold that comes without need can be lifted.
//
// Addresses and accounts are kept as keyed hashes in memory, for a day around a
// transition. The watch has no clock: Tick brings the time, and sessions have theirs.
type Watch struct {
	mu      sync.Mutex
	seed    maphash.Seed
	watched []*watched
	last    *policy.Hold
}

// watched is a transition with what was counted around it.
type watched struct {
	transition
	forecast *Forecast
	since    time.Time // sessions are heard since
	asked    bool      // the guard, when it began
	alarmed  bool

	before   map[uint64]struct{} // accounts refused before
	accounts map[uint64]struct{} // accounts refused since
	hour     int64               // the one of networks
	networks map[uint64]struct{} // refused, or before the transition failing, in that hour
	sum      int                 // of networks in the hours before, the current one left out
	most     int                 // networks in an hour after, less what was usual
}

// NewWatch watches the transitions of a policy. The last hold that was put, in force or
// not, may be nil: what a guard has held back once and somebody has lifted, it does not
// hold again after a restart.
func NewWatch(p *policy.Policy, last *policy.Hold, now time.Time) *Watch {
	w := &Watch{seed: maphash.MakeSeed(), last: last}
	w.Use(p, now)
	return w
}

// Use takes another policy. What was counted for a stage that is in it too is kept.
func (w *Watch) Use(p *policy.Policy, now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	old := w.watched
	w.watched = nil
	for _, t := range transitionsSince(p, now.Add(-watchedFor)) {
		n := &watched{since: now, before: map[uint64]struct{}{}, accounts: map[uint64]struct{}{}, networks: map[uint64]struct{}{}}
		for _, o := range old {
			if o.rule.ID == t.rule.ID && o.stage.From.Equal(t.stage.From) && o.severest() == t.severest() {
				n = o
			}
		}
		n.transition = t
		if h := w.last; h != nil && h.Owner == guardOwner && !h.Since.Before(t.stage.From.Add(-ahead)) && strings.HasPrefix(h.Reason, t.rule.ID+" ") {
			n.asked, n.alarmed = true, true
		}
		w.watched = append(w.watched, n)
	}
}

// Foresee takes new forecasts. That of a stage which has begun stays as it was.
func (w *Watch) Foresee(all []Forecast) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range all {
		for _, t := range w.watched {
			if t.rule.ID == all[i].Requirement && t.stage.From.Equal(all[i].At) && !t.asked {
				t.forecast = &all[i]
			}
		}
	}
}

// Tick brings the time, by the clock of policy; some times in a minute.
func (w *Watch) Tick(now time.Time) (alarms []Alarm) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.watched = slices.DeleteFunc(w.watched, func(t *watched) bool { return !now.Before(t.stage.From.Add(watchedFor)) })
	for _, t := range w.watched {
		if now.Before(t.stage.From.Add(-ahead)) {
			continue
		}
		reason := ""
		if !t.asked && (t.forecast != nil || now.Sub(t.since) >= readingTakes) {
			t.asked = true
			reason = t.tooMany(now)
		}
		if reason == "" && !t.alarmed && !now.Before(t.stage.From) {
			reason = t.more(now)
		}
		if reason == "" {
			continue
		}
		t.alarmed = true
		a := Alarm{Requirement: t.rule.ID, At: t.stage.From, Reason: reason}
		if g := t.stage.Guard; g != nil {
			since := now.UTC().Truncate(time.Second)
			a.Hold = &policy.Hold{Cap: g.Do, Reason: reason, Owner: guardOwner, Since: since, Until: since.Add(guardHolds)}
		}
		alarms = append(alarms, a)
	}
	return alarms
}

// stageText says which stage it is.
func (t *watched) stageText() string {
	return fmt.Sprintf("%s (%v from %s on)", t.rule.ID, t.severest(), t.stage.From.Format("2006-01-02 15:04 MST"))
}

// tooMany is why the guard holds the stage back, when it begins; empty: it does not.
func (t *watched) tooMany(now time.Time) string {
	g := t.stage.Guard
	switch {
	case g == nil:
		return ""
	case t.forecast == nil || t.forecast.Seen == 0:
		return fmt.Sprintf("%s: the ledger has no numbers, so it is not known whether more than %v of the accounts have an open finding", t.stageText(), g.Open)
	case now.Sub(t.forecast.Made) > forecastGood:
		return fmt.Sprintf("%s: the numbers of the ledger are of %s, so it is not known whether more than %v of the accounts have an open finding",
			t.stageText(), t.forecast.Made.Format("2006-01-02 15:04 MST"), g.Open)
	case int64(t.forecast.Open)*int64(policy.Everybody) > int64(g.Open)*int64(t.forecast.Seen):
		return fmt.Sprintf("%s: %d of %d accounts seen in %d days have an open finding, which is %v; the guard allows %v",
			t.stageText(), t.forecast.Open, t.forecast.Seen, forecastDays, t.forecast.OpenShare(), g.Open)
	}
	return ""
}

// more is why there is an alarm after the stage has begun; empty: there is none.
func (t *watched) more(now time.Time) string {
	if t.forecast == nil || t.count() <= t.threshold() {
		return ""
	}
	return fmt.Sprintf("%s: %d accounts and %d networks more than usual in an hour were refused within %s; %d accounts were foreseen",
		t.stageText(), len(t.accounts), t.most, now.Sub(t.stage.From).Round(time.Minute), t.forecast.Newly)
}

func (t *watched) count() int { return len(t.accounts) + t.most }

// threshold is the most that is still as foreseen.
func (t *watched) threshold() int { return int(float64(t.forecast.Newly)*slackShare) + slackAccounts }

// Heard counts a session that has ended. It may be called by any number of goroutines.
func (w *Watch) Heard(e *events.Session) {
	if len(e.By) == 0 {
		return
	}
	at := e.Decided
	if at.IsZero() {
		at = e.Time
	}
	var action policy.Action
	if action.UnmarshalText([]byte(e.Action)) != nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, t := range w.watched {
		if d := at.Sub(t.stage.From); d < -watchedFor || d >= watchedFor || !slices.Contains(e.By, t.rule.ID) {
			continue
		}
		begun := !at.Before(t.stage.From)
		switch {
		case e.Verified && e.Account != "":
			if action.Refuses() {
				t.refused(maphash.String(w.seed, e.Account), begun)
			}
		case e.IP.IsValid() && (action.Refuses() || !begun):
			t.failed(maphash.Comparable(w.seed, network(e.IP)), at, begun)
		}
	}
}

// network is what clients of one household have in common.
func network(ip netip.Addr) netip.Prefix {
	ip = ip.Unmap().WithZone("")
	length := ip.BitLen()
	if ip.Is6() {
		length = 56 // what a provider gives a household (RFC 6177 section 2)
	}
	n, err := ip.Prefix(length)
	if err != nil {
		return netip.Prefix{}
	}
	return n
}

// refused counts a confirmed account.
func (t *watched) refused(account uint64, begun bool) {
	switch _, before := t.before[account]; {
	case !begun:
		if len(t.before) < mostWatched {
			t.before[account] = struct{}{}
		}
	case before || t.forecast != nil && len(t.accounts) > t.threshold(): // enough for the alarm
	case len(t.accounts) < mostWatched:
		t.accounts[account] = struct{}{}
	}
}

// failed counts a network.
func (t *watched) failed(network uint64, at time.Time, begun bool) {
	hour := int64(math.Floor(at.Sub(t.stage.From).Hours())) // from the transition, so that none lies on both sides
	if hour < t.hour && len(t.networks) > 0 {
		return // it ended long after it was decided, when the hour was over
	}
	if hour != t.hour {
		if t.hour < 0 {
			t.sum += len(t.networks)
		}
		clear(t.networks)
		t.hour = hour
	}
	if len(t.networks) < mostWatched {
		t.networks[network] = struct{}{}
	}
	if begun {
		if usual, known := t.usual(); known {
			t.most = max(t.most, len(t.networks)-usual)
		}
	}
}

// usual is how many networks fail in an hour before the transition. It is not known where
// no sessions were heard then, or no stage told that they violate the requirement.
func (t *watched) usual() (n int, known bool) {
	before, _ := t.rule.InForce(t.stage.From.Add(-time.Nanosecond))
	if before == nil || before.Do == policy.Pass {
		return 0, false
	}
	heard := min(watchedFor, t.stage.From.Sub(t.since))
	if !before.From.IsZero() {
		heard = min(heard, t.stage.From.Sub(before.From))
	}
	if heard <= 0 {
		return 0, false
	}
	return int(math.Ceil(float64(t.sum) / max(1, heard.Hours()))), true
}
