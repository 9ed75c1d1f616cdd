package policy

// Who would break on the day: yesterday's sessions under tomorrow's file.

import (
	"cmp"
	"fmt"
	"iter"
	"maps"
	"slices"
	"time"
)

// Login is a session that is replayed. Its account is among the facts.
type Login struct {
	Time  time.Time
	Facts Facts
	Was   Action   // what it met
	By    []string // and by which requirements
}

// Side is a policy with the time at which it decides; the zero time is that of
// each session. Without a policy it is what the sessions met.
type Side struct {
	Policy *Policy
	At     time.Time
}

// decides is the side's verdict on a session.
func (s Side) decides(l *Login) Verdict {
	now := s.At
	if now.IsZero() {
		now = l.Time
	}
	return s.Policy.Decide(&l.Facts, now)
}

// refuses is whether a session is refused on the side, and by what.
func (s Side) refuses(l *Login) (refused bool, by func() []string) {
	if s.Policy == nil {
		return l.Was.Refuses(), func() []string { return l.By }
	}
	v := s.decides(l)
	return v.Action.Refuses(), v.Violated
}

// Device is what can be told apart of an account: a program and what it speaks.
type Device struct {
	Brand    string `json:"brand,omitempty"`
	Protocol string `json:"protocol"`
	Client   string `json:"client,omitempty"` // empty: it did not say
}

// Change is an account that fares otherwise on some of its devices.
type Change struct {
	Account string   `json:"account"`
	Devices int      `json:"devices"` // in all
	On      []Device `json:"on"`      // those that change
	All     bool     `json:"all"`     // every device is refused (free) then
	By      []string `json:"by"`      // requirements: violated after it (before it)
}

// Count is how many accounts change, for one value of a fact.
type Count struct {
	Name    string `json:"name"`
	Refused int    `json:"refused"` // newly, with a device of that value
	Freed   int    `json:"freed"`
}

// Difference is what becomes of accounts on two sides.
type Difference struct {
	Logins    int      `json:"logins"`    // verified sessions, which are compared
	Skipped   int      `json:"skipped"`   // sessions without a verified account: robots, typing errors, and what was refused before the login
	Accounts  int      `json:"accounts"`  // seen in all
	Devices   int      `json:"devices"`   // of theirs
	Refused   []Change `json:"refused"`   // newly refused on a device
	Freed     []Change `json:"freed"`     // newly free on a device
	Stay      int      `json:"stay"`      // accounts refused on a device before and after
	Brands    []Count  `json:"brands"`    // most refused first
	Protocols []Count  `json:"protocols"` // likewise
	Clients   []Count  `json:"clients"`   // likewise
}

// RefusedOnAll counts the accounts that are newly refused and have no device left.
func (r *Difference) RefusedOnAll() (n int) {
	for i := range r.Refused {
		if r.Refused[i].All {
			n++
		}
	}
	return n
}

// state is the last session of a device on both sides.
type state struct {
	time              time.Time
	before, after     bool // refused
	byBefore, byAfter []string
}

// Replay decides on sessions for two sides. Only verified ones count, since an account
// that was merely tried says nothing about its owner; and of a device, only its
// last one, since it may have been put right meanwhile.
func Replay(logins iter.Seq[Login], before, after Side) *Difference {
	r := &Difference{Refused: []Change{}, Freed: []Change{}}
	accounts := map[string]map[Device]*state{}
	for l := range logins {
		account := l.Facts.Get(Account)
		if account == "" || l.Facts.Get(Verified) != Yes {
			r.Skipped++
			continue
		}
		r.Logins++
		devices := accounts[account]
		if devices == nil {
			devices = map[Device]*state{}
			accounts[account] = devices
		}
		d := Device{l.Facts.Get(Brand), l.Facts.Get(Protocol), l.Facts.Get(Client)}
		s := devices[d]
		if s == nil {
			s = &state{}
			devices[d] = s
		} else if l.Time.Before(s.time) {
			continue
		}
		was, byBefore := before.refuses(&l)
		is, byAfter := after.refuses(&l)
		*s = state{l.Time, was, is, nil, nil}
		if was != is {
			s.byBefore, s.byAfter = byBefore(), byAfter()
		}
	}
	r.Accounts = len(accounts)
	brands, protocols, clients := counts{}, counts{}, counts{}
	for _, account := range slices.Sorted(maps.Keys(accounts)) {
		devices := accounts[account]
		r.Devices += len(devices)
		refused := change(account, devices, func(s *state) (bool, bool, []string) { return !s.before && s.after, s.after, s.byAfter })
		freed := change(account, devices, func(s *state) (bool, bool, []string) { return s.before && !s.after, !s.after, s.byBefore })
		if len(refused.On) > 0 {
			r.Refused = append(r.Refused, refused)
		}
		if len(freed.On) > 0 {
			r.Freed = append(r.Freed, freed)
		}
		for _, s := range devices {
			if s.before && s.after {
				r.Stay++
				break
			}
		}
		for i, c := range []Change{refused, freed} {
			brands.add(i, c.On, func(d Device) string { return d.Brand })
			protocols.add(i, c.On, func(d Device) string { return d.Protocol })
			clients.add(i, c.On, func(d Device) string { return d.Client })
		}
	}
	r.Brands, r.Protocols, r.Clients = brands.list(), protocols.list(), clients.list()
	return r
}

// change collects the devices of an account that change, as seen by of: whether
// one does, whether it is as the others are then, and by what.
func change(account string, devices map[Device]*state, of func(*state) (changes, is bool, by []string)) Change {
	c := Change{Account: account, Devices: len(devices), All: true}
	for d, s := range devices {
		changes, is, by := of(s)
		c.All = c.All && is
		if changes {
			c.On = append(c.On, d)
			c.By = append(c.By, by...)
		}
	}
	slices.SortFunc(c.On, func(a, b Device) int {
		return cmp.Or(cmp.Compare(a.Brand, b.Brand), cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.Client, b.Client))
	})
	slices.Sort(c.By)
	c.By = slices.Compact(c.By)
	return c
}

// counts are accounts by the value of a fact.
type counts map[string]*Count

// add counts an account once for each value that its devices have.
func (c counts) add(freed int, devices []Device, value func(Device) string) {
	seen := map[string]bool{}
	for _, d := range devices {
		v := value(d)
		if seen[v] {
			continue
		}
		seen[v] = true
		if c[v] == nil {
			c[v] = &Count{Name: v}
		}
		c[v].Refused += 1 - freed
		c[v].Freed += freed
	}
}

func (c counts) list() []Count {
	all := []Count{}
	for _, n := range c {
		all = append(all, *n)
	}
	slices.SortFunc(all, func(a, b Count) int {
		return cmp.Or(cmp.Compare(b.Refused, a.Refused), cmp.Compare(b.Freed, a.Freed), cmp.Compare(a.Name, b.Name))
	})
	return all
}

// String is the difference in a sentence.
func (r *Difference) String() string {
	text := fmt.Sprintf("%s of %s on %s: %s would be newly refused, %d of them on every device",
		counted(r.Logins, "login"), counted(r.Accounts, "account"), counted(r.Devices, "device"), counted(len(r.Refused), "account"), r.RefusedOnAll())
	if len(r.Freed) > 0 {
		text += fmt.Sprintf("; %d would be newly free", len(r.Freed))
	}
	if r.Stay > 0 {
		text += fmt.Sprintf("; %d stay refused", r.Stay)
	}
	return text
}

// counted is a number of things.
func counted(n int, thing string) string {
	if n != 1 {
		thing += "s"
	}
	return fmt.Sprintf("%d %s", n, thing)
}
