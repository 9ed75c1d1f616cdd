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

	// Excused counts devices whose fault is a setting, and which by the rule for series of
	// trials make no finding all the same: what that rule costs.
	Excused int
}

// Account is one of them.
type Account struct {
	Name, Domain string
	Uses         []Use
	Findings     []Finding // by demand, brand, protocol, class and collector
	Told         Told
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

// The rules of the ledger, as its documentation has them.
const (
	fixedAfter   = 14 // days without a fault
	mostProbed   = 2  // sessions a day of one trial
	leastVariety = 3  // ways to log in on that day
	probedOften  = 3  // such days are no series of trials any more
)

// Truth counts what is to be found in the events of all days, as of an instant on the
// last day or later.
func (w *World) Truth(now time.Time) *Truth {
	t := &Truth{}
	played := make([]int, w.Days)
	for i := range w.people {
		a, settings := w.account(i, t, played)
		if len(a.Uses) == 0 {
			continue
		}
		w.find(&a, &w.people[i], now)
		t.Excused += excused(&a, settings)
		t.Accounts = append(t.Accounts, a)
	}
	for _, n := range played {
		t.Unverified += w.robotsBeside(n)
	}
	slices.SortFunc(t.Accounts, func(a, b Account) int { return strings.Compare(a.Name, b.Name) })
	return t
}

// used is a fault that is a setting of a kind of program, and not a trial.
type used struct {
	kind  Kind
	fault faults
}

// account plays all days of a person, and counts the sessions of each.
func (w *World) account(person int, t *Truth, played []int) (a Account, settings map[used]bool) {
	p := &w.people[person]
	a = Account{Name: p.account, Domain: p.domain}
	settings = map[used]bool{}
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
				if before, after := d.wrong(day); s.wrong == before.seen() || s.wrong == after.seen() {
					for _, fault := range finding {
						if s.wrong&fault != 0 {
							settings[used{u.kind(), fault}] = true
						}
					}
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
	return a, settings
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
	if s.wrong&weak != 0 && d.form.taken != "" {
		fresh.Class = d.form.taken
	}
	for i := range a.Uses {
		if a.Uses[i].same(&fresh) {
			return &a.Uses[i]
		}
	}
	fresh.on = make([]int32, w.Days)
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

// find lists what is wrong.
func (w *World) find(a *Account, p *person, now time.Time) {
	today := w.since(now)
	for i := range w.Demands {
		demand := &w.Demands[i]
		fault := finding[demand.Fault]
		kinds := map[Kind][]int32{} // sessions with the fault by day, without trials
		fine := map[Kind]int{}      // the last day on which it was met
		for i := range a.Uses {
			u := &a.Uses[i]
			if u.wrong&fault == 0 {
				if last, seen := fine[u.kind()]; u.says(fault) && (!seen || u.last() > last) {
					fine[u.kind()] = u.last()
				}
				continue
			}
			on := slices.Clone(u.on)
			if trials := a.trials(u, fault); len(trials) < probedOften {
				for _, day := range trials {
					on[day] = 0
				}
			}
			if kinds[u.kind()] == nil {
				kinds[u.kind()] = make([]int32, w.Days)
			}
			for day, n := range on {
				kinds[u.kind()][day] += n
			}
		}
		for kind, on := range kinds {
			f := Finding{Demand: demand, Kind: kind}
			last := -1
			for day, n := range on {
				if n == 0 {
					continue
				}
				if f.Days == 0 {
					f.First = w.days[day]
				}
				last, f.Last = day, w.days[day]
				f.Days++
				f.Sessions += int(n)
			}
			if f.Days == 0 {
				continue
			}
			switch met, seen := fine[kind]; {
			case w.spared(p, demand.ID):
				f.State = Exempt
			case today-last < fixedAfter:
				f.State = Open
			case seen && met > last:
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
}

// since is how many days after the first one an instant lies.
func (w *World) since(now time.Time) (n int) {
	for !time.Date(w.From.Year(), w.From.Month(), w.From.Day()+n+1, 0, 0, 0, 0, w.Zone).After(now) {
		n++
	}
	return n
}

// last is the last day.
func (u *Use) last() int {
	for day := len(u.on) - 1; ; day-- {
		if u.on[day] > 0 {
			return day
		}
	}
}

// says tells whether a login without a fault shows that the fault is not there: in
// plaintext no server name and no version of TLS is seen.
func (u *Use) says(fault faults) bool { return u.wrong&plaintext == 0 || fault&(oldTLS|legacy) == 0 }

// trials are the days on which a use was one of a series of trials: of a program that is
// one of Apple's for the Mac, or may be, once or twice beside others of its kind, one of them
// without the fault.
func (a *Account) trials(u *Use, fault faults) (days []int) {
	if u.Collector || u.Class != fixes.AppleMail && u.Class != fixes.Unknown {
		return nil
	}
	for day, n := range u.on {
		if n == 0 || n > mostProbed {
			continue
		}
		ways, met := 0, false
		for i := range a.Uses {
			if o := &a.Uses[i]; o.kind() == u.kind() && o.on[day] > 0 {
				ways++
				met = met || o.wrong&fault == 0 && o.says(fault)
			}
		}
		if met && ways >= leastVariety {
			days = append(days, day)
		}
	}
	return days
}

// excused counts the faults of settings that make no finding.
func excused(a *Account, settings map[used]bool) (n int) {
	for s := range settings {
		if !slices.ContainsFunc(a.Findings, func(f Finding) bool { return f.Kind == s.kind && finding[f.Demand.Fault] == s.fault }) {
			n++
		}
	}
	return n
}
