package traffic

// What is to be found in a world, counted from its plans.

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"mailreeve/fixes"
	"mailreeve/policy"
)

// Truth is what is to be found, as of an instant.
type Truth struct {
	Accounts   []Account // those with a confirmed login, by name
	Verified   int       // sessions
	Unverified int       // of robots, of typing errors, and refused before the password was asked
}

// Account is one of them.
type Account struct {
	Name, Domain string
	Uses         []Use
	Findings     []Finding // by demand, brand, protocol, class and collector
	Told         Told
	Notice       Notice
}

// Use is a way in which an account logged in.
type Use struct {
	Brand, Listener, Protocol string
	Port                      int
	Entry, TLS, CipherClass   string
	Host, SNI                 string
	Mechanism, UserForm       string
	Class                     fixes.Class
	Program, Network          string
	Collector                 bool
	Days                      []Count // ascending

	wrong faults
	on    []int32 // sessions, by day of the world
	tries []int32 // of them those that were tried by a program that looks for settings by itself
}

// Count is how many sessions there were on a day.
type Count struct {
	Day      time.Time // its first instant
	Sessions int
}

// Kind is what devices are told apart by.
type Kind struct {
	Brand, Protocol string
	Class           fixes.Class
	Collector       bool
}

// kind is that of a use.
func (u *Use) kind() Kind { return Kind{u.Brand, u.Protocol, u.Class, u.Collector} }

// States of a finding, in the words of the ledger.
const (
	Open   = "open"
	Silent = "silent"
	Fixed  = "fixed"
	Exempt = "exempt"
)

// Finding is a demand that one kind of program does not meet.
type Finding struct {
	Demand         *Demand
	Kind           Kind
	State          string
	First, Last    time.Time // first instants of days
	Days, Sessions int
}

// Told is what the proxy last told somebody in refusing or warning.
type Told struct {
	Day  time.Time // zero: nothing
	Do   policy.Action
	Rule string
}

// Reason is what a plan makes of an account.
type Reason string

// The reasons, when nobody was told yet.
const (
	Nothing Reason = "nothing" // nothing is wrong with it
	Quiet   Reason = "not_yet" // policy only observes so far
	Spared  Reason = "exempt"
	Mended  Reason = "fixed"
	Due     Reason = "due" // it is told on one of the seven days from the step's day on, or on an office day around it
)

// Notice is who is due for what, when nobody was told yet.
type Notice struct {
	Reason  Reason
	Refuses time.Time // the date that is told of; zero: there is none
	Step    int       // that is due: days after that date, or after it could first be told
}

// The rules of the ledger and of the plan, as their documentation has them.
const (
	fixedAfter  = 14 // days without a fault
	probedOften = 3  // days with trials on which they are none any more
)

var (
	steps   = []int{-112, -84, -56, -28, -14, -7, -2, 0, 3}
	undated = []int{0, 28, 56}
)

// Truth counts what is to be found in the events of all days, as of an instant: uses and what was
// told are those of all days, findings do not look ahead.
func (w *World) Truth(now time.Time) *Truth {
	t := &Truth{}
	played := make([]int, w.Days)
	for i := range w.people {
		a := w.account(i, t, played)
		if len(a.Uses) == 0 {
			continue
		}
		w.find(&a, &w.people[i], now)
		t.Accounts = append(t.Accounts, a)
	}
	for _, n := range played {
		t.Unverified += w.robotsBeside(n)
	}
	slices.SortFunc(t.Accounts, func(a, b Account) int { return strings.Compare(a.Name, b.Name) })
	return t
}

// account plays all days of a person, and counts the sessions of each.
func (w *World) account(person int, t *Truth, played []int) Account {
	p := &w.people[person]
	a := Account{Name: p.account, Domain: p.domain}
	var today []session
	for which := range p.devices {
		d := &p.devices[which]
		for day := range w.Days {
			today = w.day(p, person, which, day, today[:0])
			played[day] += len(today)
			for i := range today {
				s := &today[i]
				stand := w.judge(p, s.wrong, time.Unix(0, s.start).Truncate(time.Millisecond))
				if !s.verified(stand.do) {
					t.Unverified++
					continue
				}
				t.Verified++
				u := w.use(&a, p, d, s)
				u.on[day]++
				if s.trial {
					u.tries[day]++
				}
				if stand.do.Refuses() || s.shown(d.protocol, stand.do) {
					a.told(w.days[day], stand)
				}
			}
		}
	}
	for i := range a.Uses {
		u := &a.Uses[i]
		for day, n := range u.on {
			if n > 0 {
				u.Days = append(u.Days, Count{w.days[day], int(n)})
			}
		}
	}
	return a
}

// told remembers the latest, and the severest of a day.
func (a *Account) told(day time.Time, s stand) {
	if c := day.Compare(a.Told.Day); c > 0 || c == 0 && (s.do > a.Told.Do || s.do == a.Told.Do && s.rule < a.Told.Rule) {
		a.Told = Told{day, s.do, s.rule}
	}
}

// use finds or makes the account's use that a session is one of.
func (w *World) use(a *Account, p *person, d *device, s *session) *Use {
	set := w.setting(p, d, s.wrong)
	fresh := Use{Brand: set.Brand, Listener: set.Listener, Protocol: set.Protocol, Port: set.Port, Entry: set.Entry, TLS: set.TLS, CipherClass: set.CipherClass,
		Host: set.Host, SNI: set.SNI, Mechanism: set.Mechanism, UserForm: set.UserForm,
		Class: d.class, Program: d.called, Network: s.network(d), Collector: d.program == &collector && w.crowded(d), wrong: s.wrong}
	for i := range a.Uses {
		if a.Uses[i].same(&fresh) {
			return &a.Uses[i]
		}
	}
	fresh.on, fresh.tries = make([]int32, w.Days), make([]int32, w.Days)
	a.Uses = append(a.Uses, fresh)
	return &a.Uses[len(a.Uses)-1]
}

// same compares all that lasts.
func (u *Use) same(o *Use) bool {
	return u.kind() == o.kind() && u.Listener == o.Listener && u.Port == o.Port && u.Entry == o.Entry && u.TLS == o.TLS && u.CipherClass == o.CipherClass &&
		u.Host == o.Host && u.SNI == o.SNI && u.Mechanism == o.Mechanism && u.UserForm == o.UserForm && u.Program == o.Program && u.Network == o.Network
}

// crowded says that so many accounts have their mail fetched from there that it is no
// person's.
func (w *World) crowded(d *device) bool { return d.fetcher < 2 }

// find lists what is wrong, and who is told.
func (w *World) find(a *Account, p *person, now time.Time) {
	today := w.since(now)
	days := min(w.Days, today+1)
	for i := range w.Demands {
		demand := &w.Demands[i]
		fault := finding[demand.Fault]
		kinds := map[Kind][]int32{} // sessions with the fault by day, without trials
		fine := map[Kind]int{}      // the last day on which it was met
		for i := range a.Uses {
			u := &a.Uses[i]
			if u.wrong&fault == 0 {
				if met := last(u.on[:days]); u.says(fault) && met >= fine[u.kind()] {
					fine[u.kind()] = met
				}
				continue
			}
			often := 0
			for _, n := range u.tries[:days] {
				often += int(min(n, 1))
			}
			if kinds[u.kind()] == nil {
				kinds[u.kind()] = make([]int32, days)
			}
			for day, n := range u.on[:days] {
				if often < probedOften {
					n -= u.tries[day]
				}
				kinds[u.kind()][day] += n
			}
		}
		for kind, on := range kinds {
			f := Finding{Demand: demand, Kind: kind}
			for day, n := range on {
				if n == 0 {
					continue
				}
				if f.Days == 0 {
					f.First = w.days[day]
				}
				f.Last = w.days[day]
				f.Days++
				f.Sessions += int(n)
			}
			if f.Days == 0 {
				continue
			}
			switch last := last(on); {
			case w.spared(p, demand.ID):
				f.State = Exempt
			case today-last < fixedAfter:
				f.State = Open
			case fine[kind] > last:
				f.State = Fixed
			default:
				f.State = Silent
			}
			a.Findings = append(a.Findings, f)
		}
	}
	slices.SortFunc(a.Findings, func(a, b Finding) int {
		collector := map[bool]int{true: 1}
		return cmp.Or(cmp.Compare(a.Demand.ID, b.Demand.ID), cmp.Compare(a.Kind.Brand, b.Kind.Brand), cmp.Compare(a.Kind.Protocol, b.Kind.Protocol),
			cmp.Compare(a.Kind.Class, b.Kind.Class), cmp.Compare(collector[a.Kind.Collector], collector[b.Kind.Collector]))
	})
	a.Notice = w.tell(a, now)
}

// last is the last day on which something is; -1 where there is none.
func last(on []int32) int {
	day := len(on) - 1
	for day >= 0 && on[day] == 0 {
		day--
	}
	return day
}

// since is how many days after the first one an instant lies; below 0 it is before.
func (w *World) since(t time.Time) int {
	t = t.In(w.Zone)
	days := func(t time.Time) int {
		return int(time.Date(t.Year(), t.Month(), t.Day(), 0, 0, 0, 0, time.UTC).Unix() / 86400)
	}
	return days(t) - days(w.days[0])
}

// says tells whether a login without a fault shows that the fault is not there: in
// plaintext no server name is seen. (TLS is not old there, by the words of the policy.)
func (u *Use) says(fault faults) bool { return u.wrong&plaintext == 0 || fault&legacy == 0 }

// tell says whether the account is told of something, if it has not been told yet.
func (w *World) tell(a *Account, now time.Time) (n Notice) {
	var risk, exempt bool
	var dates []time.Time
	var known time.Time // since when something can be told
	told := false
	for _, f := range a.Findings {
		switch {
		case f.State == Exempt:
			exempt = true
		case f.State == Fixed:
		case f.Demand.at(now) < policy.Notify:
			risk = true
		default:
			begun := f.First
			if since := f.Demand.since(policy.Notify); since.After(begun) {
				begun = since
			}
			if !told || begun.Before(known) {
				known = begun
			}
			told = true
			if at := f.Demand.since(policy.Deny); !at.IsZero() {
				dates = append(dates, at)
			}
		}
	}
	switch {
	case len(a.Findings) == 0:
		return Notice{Reason: Nothing}
	case !told && risk:
		return Notice{Reason: Quiet}
	case !told && exempt:
		return Notice{Reason: Spared}
	case !told:
		return Notice{Reason: Mended}
	}
	n = Notice{Reason: Due}
	today := w.since(now)
	from, all := w.since(known), undated
	if len(dates) > 0 {
		slices.SortFunc(dates, time.Time.Compare)
		n.Refuses = dates[len(dates)-1]
		for _, at := range dates {
			if w.since(at)+steps[len(steps)-1] >= today {
				n.Refuses = at
				break
			}
		}
		from, all = w.since(n.Refuses), steps
	}
	n.Step = all[0]
	for _, step := range all {
		if from+step <= today {
			n.Step = step
		}
	}
	return n
}
