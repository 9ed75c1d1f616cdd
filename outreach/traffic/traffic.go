// Package traffic makes up a provider's customers, and writes what the proxy would
// have recorded of them: files of events like those of package events, from the same seed
// the same. It is there to test and to measure what reads them, so it knows
// the answers as well: [World.Truth] says of every account what is to be found.
//
// # How it knows
//
// A [World] is people with devices, and each device has a plan: how it is set, when its
// owner mends that (or falls back), on which days it comes, over which line. Events are written
// from the plans, and the truth is counted from the plans, without a word from package
// outreach, which is not imported. What both must agree on is what is written in its
// documentation: what a kind of program is, after how many days a finding is fixed.
//
// # How real it is
//
// Programs, their IMAP ID, EHLO and habits are those that providers see. Shares are
// those of published cutovers: a fifth in plaintext, half a percent with old TLS. Their
// addresses lie in ranges that nobody owns: homes change theirs every day, mobile
// ones are shared by hundreds, an office has one, robots have all.
package traffic

import (
	"fmt"
	"time"

	"mailreeve/policy"
)

// Plan says what world to make. Zero values mean what stands there.
type Plan struct {
	Seed     uint64
	Accounts int            // mailboxes, most of whose owners use webmail alone; 0: 1,000
	Days     int            // 0: 30
	From     time.Time      // an instant of the first day; zero: 24 October 2026, a day before clocks are set back
	Zone     *time.Location // of the days; nil: Europe/Berlin
	Busy     float64        // how often programs come, 1 being some five sessions on a day of theirs; 0: 1
	Brands   []Brand        // nil: two
	Mix      *Mix           // nil: [Realistic]
	Notices  []int          // days, from 0, after which more people mend their settings than else; nil: a third and two thirds through
}

// Brand is a brand of the provider.
type Brand struct {
	Name   string
	Domain string  // of its mailboxes; imap, pop and smtp under it are its hosts, and mail the old name of all three
	Share  float64 // of the accounts
	Owned  float64 // of its accounts, those in domains of customers' own
}

// Mix says how many of what there are. All are shares from 0 to 1.
type Mix struct {
	Webmail float64 // of accounts: no program ever comes

	Plaintext float64 // of programs, each of these
	OldTLS    float64
	Mechanism float64
	Legacy    float64 // an old server name; of programs of customers with domains of their own, five times as many
	Bare      float64 // a user name without its domain
	Port25    float64 // of programs that send

	Mended   float64 // of programs with a fault: it is mended within the days
	Forgot   float64 // of those mended: only for fetching, or only one of several faults
	Relapsed float64 // of those mended: the old settings come back, for days or for good

	Probing  float64 // of Apple Mails: a series of trials, on one day or two
	Frantic  float64 // of Apple Mails: such series on three days or more
	Robots   float64 // sessions of robots for each of a customer
	Typos    float64 // of a program's days: a wrong password
	Exempted float64 // of accounts with a fault: an exception
}

// Realistic is what a provider may expect who has told nobody yet.
var Realistic = Mix{
	Webmail:   0.6,
	Plaintext: 0.17, OldTLS: 0.02, Mechanism: 0.04, Legacy: 0.08, Bare: 0.1, Port25: 0.04,
	Mended: 0.35, Forgot: 0.2, Relapsed: 0.08,
	Probing: 0.15, Frantic: 0.04, Robots: 0.08, Typos: 0.01, Exempted: 0.03,
}

// Stage is what a demand does from an instant on.
type Stage struct {
	From time.Time
	Do   policy.Action
}

// Demand is a requirement of the world's policy.
type Demand struct {
	ID     string
	Fault  policy.Finding
	Stages []Stage
}

// at is what it does at an instant.
func (d *Demand) at(now time.Time) (do policy.Action) {
	for _, s := range d.Stages {
		if !s.From.After(now) {
			do = s.Do
		}
	}
	return do
}

// since is when it begins to do something or what is severer; zero where it never does.
func (d *Demand) since(do policy.Action) time.Time {
	for _, s := range d.Stages {
		if s.Do >= do {
			return s.From
		}
	}
	return time.Time{}
}

// Exception spares accounts, or a whole domain, one demand.
type Exception struct {
	ID, Demand string
	Accounts   []string // either
	Domain     string   // or
}

// World is a provider's customers over some days. It does not change.
type World struct {
	Plan
	Demands    []Demand    // by ID
	Exceptions []Exception // to observe, all of them until 150 days after the last one
	mix        Mix
	days       []time.Time // when each begins, and when the last ends
	people     []person
	exempt     map[string][]string // demands that spare an account or a domain
}

// New makes up a world.
func New(p Plan) (*World, error) {
	w := &World{Plan: p, mix: Realistic, exempt: map[string][]string{}}
	if err := w.complete(); err != nil {
		return nil, fmt.Errorf("making up traffic: %w", err)
	}
	for d := range w.Days + 1 {
		w.days = append(w.days, time.Date(w.From.Year(), w.From.Month(), w.From.Day()+d, 0, 0, 0, 0, w.Zone))
	}
	w.demand()
	w.populate()
	return w, nil
}

func (w *World) complete() (err error) {
	if w.Accounts == 0 {
		w.Accounts = 1000
	}
	if w.Days == 0 {
		w.Days = 30
	}
	if w.Busy == 0 {
		w.Busy = 1
	}
	if w.Accounts < 1 || w.Accounts > 10_000_000 || w.Days < 1 || w.Days > 1000 || w.Busy < 0 || w.Busy > 1000 {
		return fmt.Errorf("%d accounts, %d days, %v busy: up to 10,000,000 accounts, 1,000 days and 1,000 times as busy are possible", w.Accounts, w.Days, w.Busy)
	}
	if w.Zone == nil {
		if w.Zone, err = time.LoadLocation("Europe/Berlin"); err != nil {
			return err
		}
	}
	if w.From.IsZero() {
		w.From = time.Date(2026, 10, 24, 0, 0, 0, 0, w.Zone)
	}
	w.From = w.From.In(w.Zone)
	if w.Brands == nil {
		w.Brands = []Brand{
			{Name: "nord", Domain: "nordpost.example", Share: 0.7, Owned: 0.2},
			{Name: "stadt", Domain: "stadtnetz.example", Share: 0.3},
		}
	}
	if w.Mix != nil {
		w.mix = *w.Mix
	}
	if w.Notices == nil {
		w.Notices = []int{w.Days / 3, w.Days * 2 / 3}
	}
	return nil
}

// Now is the last instant of the last day.
func (w *World) Now() time.Time { return w.days[w.Days].Add(-time.Second) }

// demand writes the world's policy: each demand is at another point of its way on the
// last day.
func (w *World) demand() {
	last := w.Days - 1
	day := func(n int) time.Time {
		return time.Date(w.From.Year(), w.From.Month(), w.From.Day()+last+n, 0, 0, 0, 0, w.Zone)
	}
	w.Demands = []Demand{
		{"canonical-host", policy.LegacyHostname, []Stage{{day(-400), policy.Observe}, {day(-15), policy.Warn}, {day(11), policy.Deny}}},
		{"encrypted", policy.Plaintext, []Stage{{day(-400), policy.Observe}, {day(-10), policy.Notify}, {day(25), policy.Deny}}},
		{"full-name", policy.FindingUserForm, []Stage{{day(-400), policy.Observe}, {day(-20), policy.Notify}}},
		{"modern-tls", policy.TLSOld, []Stage{{day(-400), policy.Notify}, {day(55), policy.Deny}}},
		{"password-only", policy.Mechanism, []Stage{{day(-400), policy.Observe}, {day(200), policy.Deny}}},
		{"submission-port", policy.FindingPort, []Stage{{day(-400), policy.Notify}, {day(-8), policy.Deny}}},
	}
}

// dice are random numbers, the same for the same throw: splitmix64 of Steele, Lea
// and Flood. A world throws them anew for each device and day, so that any day can be
// played without those before it.
type dice uint64

// throw seeds dice with any numbers.
func throw(of ...uint64) dice {
	var d dice
	for _, n := range of {
		d ^= dice(n)
		d.next()
	}
	return d
}

func (d *dice) next() uint64 {
	*d += 0x9e3779b97f4a7c15
	z := uint64(*d)
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// below is a whole number from 0 to n-1.
func (d *dice) below(n int) int { return int(d.next() % uint64(n)) }

// part is a number from 0 to 1, less than that.
func (d *dice) part() float64 { return float64(d.next()>>11) / (1 << 53) }

// happens says yes with a probability.
func (d *dice) happens(p float64) bool { return d.part() < p }

// oneOf picks one.
func oneOf[T any](d *dice, all []T) T { return all[d.below(len(all))] }
