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
	Loss         Loss // if all demands were to deny now, by the days asked for
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

	on     []int32 // sessions with the fault by day, without trials
	met    []bool  // days on which the demand was met
	spared bool
}

// Told is what the proxy last told somebody in refusing or warning.
type Told struct {
	Day  time.Time // zero: nothing
	Do   policy.Action
	Rule string
}

// Loss is what an account loses.
type Loss string

// The losses.
const (
	All  Loss = "all"    // it comes with nothing else
	Some Loss = "some"   // it comes in other ways, too
	Away Loss = "silent" // something, and it has not come at all for 14 days
	Kept Loss = "exempt" // nothing, but only by an exception
	None Loss = "none"
)

// Reason is what a plan makes of an account.
type Reason string

// The reasons, when nobody was told yet.
const (
	Nothing Reason = "nothing" // nothing is wrong with it
	Quiet   Reason = "not_yet" // policy only observes so far
	Spared  Reason = "exempt"
	Watched Reason = "watched" // all that was wrong has been right since, for fewer days than make it mended
	Mended  Reason = "fixed"
	Lapsed  Reason = "lapsed" // its last step was a week ago or more, the days counted on which nobody works
	Due     Reason = "due"    // it is told on one of the seven days from the step's day on, or on an office day around it
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
	lapsesAfter = 7  // days after the day of a step, from that of the refusal on
)

var (
	steps   = []int{-112, -84, -56, -28, -14, -7, -2, 0, 3}
	undated = []int{0, 28, 56}
)

// Truth counts what is to be found in the events of all days, as of an instant: uses and what was
// told are those of all days, findings do not look ahead. Losses are by the last days, so many
// as asked for; of an account that was not seen in these, there is none.
func (w *World) Truth(now time.Time, days int) *Truth {
	t := &Truth{}
	played := make([]int, w.Days)
	for i := range w.people {
		p := &w.people[i]
		a := w.account(i, t, played)
		if len(a.Uses) == 0 {
			continue
		}
		today := w.since(now)
		a.Findings = w.find(&a, p, 0, today)
		a.Notice = w.tell(&a, now)
		a.Loss = w.lose(&a, p, today-days+1, today)
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
		if u := &a.Uses[i]; u.same(&fresh) {
			u.Collector = u.Collector || fresh.Collector // who fetches his mail himself in the very same way is not told apart
			return u
		}
	}
	fresh.on, fresh.tries = make([]int32, w.Days), make([]int32, w.Days)
	a.Uses = append(a.Uses, fresh)
	return &a.Uses[len(a.Uses)-1]
}

// same compares all that lasts.
func (u *Use) same(o *Use) bool {
	return u.Brand == o.Brand && u.Protocol == o.Protocol && u.Class == o.Class && u.Listener == o.Listener && u.Port == o.Port && u.Entry == o.Entry && u.TLS == o.TLS && u.CipherClass == o.CipherClass &&
		u.Host == o.Host && u.SNI == o.SNI && u.Mechanism == o.Mechanism && u.UserForm == o.UserForm && u.Program == o.Program && u.Network == o.Network
}

// crowded says that so many accounts have their mail fetched from there that it is no
// person's.
func (w *World) crowded(d *device) bool { return d.fetcher < 2 }

// find lists what is wrong, by some days alone.
func (w *World) find(a *Account, p *person, from, today int) (all []Finding) {
	from, days := max(from, 0), min(w.Days, today+1)
	for i := range w.Demands {
		demand := &w.Demands[i]
		fault := finding[demand.Fault]
		kinds := map[Kind]*Finding{}
		of := func(u *Use) *Finding {
			f := kinds[u.kind()]
			if f == nil {
				f = &Finding{Demand: demand, Kind: u.kind(), on: make([]int32, days), met: make([]bool, days), spared: w.spared(p, demand.ID)}
				kinds[f.Kind] = f
			}
			return f
		}
		for i := range a.Uses {
			u := &a.Uses[i]
			f, often := of(u), a.tried(u, from, days)
			for day := from; day < days; day++ {
				switch n := u.on[day]; {
				case u.wrong&fault == 0:
					f.met[day] = f.met[day] || n > 0 && u.says(fault)
				case often < probedOften:
					f.on[day] += n - u.tries[day]
				default:
					f.on[day] += n
				}
			}
		}
		for _, f := range kinds {
			for day, n := range f.on {
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
			if f.Days > 0 {
				f.State = f.At(today)
				all = append(all, *f)
			}
		}
	}
	slices.SortFunc(all, func(a, b Finding) int {
		collector := map[bool]int{true: 1}
		return cmp.Or(cmp.Compare(a.Demand.ID, b.Demand.ID), cmp.Compare(a.Kind.Brand, b.Kind.Brand), cmp.Compare(a.Kind.Protocol, b.Kind.Protocol),
			cmp.Compare(a.Kind.Class, b.Kind.Class), cmp.Compare(collector[a.Kind.Collector], collector[b.Kind.Collector]))
	})
	return all
}

// tried is on how many days a program of this kind has tried the settings of a use.
func (a *Account) tried(u *Use, from, days int) (n int) {
	if last(u.tries) < 0 {
		return 0 // it is set so, whatever others try
	}
	for day := from; day < days; day++ {
		if slices.ContainsFunc(a.Uses, func(o Use) bool { return o.tries[day] > 0 && o.kind() == u.kind() && o.set() == u.set() }) {
			n++
		}
	}
	return n
}

// set is what people set in a program.
func (u *Use) set() setting {
	return setting{Port: u.Port, Entry: u.Entry, TLS: u.TLS, Host: u.Host, SNI: u.SNI, Mechanism: u.Mechanism, UserForm: u.UserForm}
}

// At is its state on a day, by what was known then; empty before it was first seen.
// Exceptions count on all days.
func (f *Finding) At(day int) string {
	until := min(day+1, len(f.on))
	last := last(f.on[:until])
	switch {
	case last < 0:
		return ""
	case f.spared:
		return Exempt
	case day-last < fixedAfter:
		return Open
	case f.obeyed(day):
		return Fixed
	}
	return Silent
}

// obeyed reports whether a program of the kind has come as it should since it last did not, as
// of a day.
func (f *Finding) obeyed(day int) bool {
	until := min(day+1, len(f.on))
	return slices.Contains(f.met[last(f.on[:until])+1:until], true)
}

// lose says what the account loses if all demands deny, by some days alone.
func (w *World) lose(a *Account, p *person, from, today int) Loss {
	from, days := max(from, 0), min(w.Days, today+1)
	broken, loses, excepted := map[Kind]bool{}, false, false
	for _, f := range w.find(a, p, from, today) {
		spared := f.spared
		f.spared = false // whether it goes on does not depend on who may
		if state := f.At(today); state != Open && state != Silent {
			continue
		}
		if spared {
			excepted = true
		} else {
			loses, broken[f.Kind] = true, true
		}
	}
	all, lastSeen := true, -1
	for i := range a.Uses {
		u := &a.Uses[i]
		seen := last(u.on[:days])
		if seen < from {
			continue
		}
		lastSeen = max(lastSeen, seen)
		denied := false
		for _, d := range w.Demands {
			denied = denied || u.wrong&finding[d.Fault] != 0 && !w.spared(p, d.ID)
		}
		all = all && denied && broken[u.kind()]
	}
	switch {
	case lastSeen < 0:
		return ""
	case !loses && excepted:
		return Kept
	case !loses:
		return None
	case today-lastSeen >= fixedAfter:
		return Away
	case all:
		return All
	}
	return Some
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
	var risk, exempt, watched bool
	today := w.since(now)
	var dates []time.Time
	var known time.Time // since when something can be told
	told := false
	for _, f := range a.Findings {
		switch {
		case f.State == Exempt:
			exempt = true
		case f.State == Fixed:
		case f.obeyed(today):
			watched = true
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
	case !told && watched:
		return Notice{Reason: Watched}
	case !told:
		return Notice{Reason: Mended}
	}
	n = Notice{Reason: Due}
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
	if !n.Refuses.IsZero() && n.Step >= 0 && today >= w.working(from+n.Step)+lapsesAfter {
		n.Reason = Lapsed
	}
	return n
}

// working is a day, or the first after it that is no Saturday and no Sunday.
func (w *World) working(day int) int {
	for ; ; day++ {
		switch w.days[0].AddDate(0, 0, day).Weekday() {
		case time.Saturday, time.Sunday:
		default:
			return day
		}
	}
}
