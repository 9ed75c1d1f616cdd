package outreach

// What the ledger knows of an account.

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"mailreeve/fixes"
	"mailreeve/policy"
)

// Day is a day in the ledger's time zone, counted from 1 January 1970. Nothing in
// the ledger is finer.
type Day int32

// DayOf is the day on which an instant lies.
func DayOf(t time.Time, zone *time.Location) Day {
	y, m, d := t.In(zone).Date()
	return Day(time.Date(y, m, d, 0, 0, 0, 0, time.UTC).Unix() / 86400)
}

// ParseDay reads a day as String writes it.
func ParseDay(s string) (Day, error) {
	t, err := time.Parse(time.DateOnly, s)
	if err != nil {
		return 0, fmt.Errorf("%q is not a day like 2026-11-22", s)
	}
	return DayOf(t, time.UTC), nil
}

// Start is the first instant of the day.
func (d Day) Start(zone *time.Location) time.Time {
	return time.Date(1970, 1, 1+int(d), 0, 0, 0, 0, zone)
}

// Weekday is its day of the week.
func (d Day) Weekday() time.Weekday { return d.Start(time.UTC).Weekday() }

// String writes the day as 2026-11-22.
func (d Day) String() string { return d.Start(time.UTC).Format(time.DateOnly) }

// MarshalText is [Day.String]; the zero day is empty.
func (d Day) MarshalText() ([]byte, error) {
	if d == 0 {
		return nil, nil
	}
	return []byte(d.String()), nil
}

// Shape is one way to log in: the facts that policies ask about. It is comparable.
type Shape struct {
	Brand       string
	Listener    string
	Protocol    string
	Port        int
	Entry       string
	TLS         string
	CipherClass string
	Host        string
	SNI         string // only where Host is not canonical and not absent
	Mechanism   string
	UserForm    string
	Class       fixes.Class
	Program     string // name and major version, of a class that is known
	Network     string // a configured class of networks, or "other"
}

// Facts are what a policy is asked about, as of a confirmed login. The address is
// not known any more, so an exception for a network applies only perhaps.
func (s *Shape) Facts(account string) *policy.Facts {
	f := new(policy.Facts)
	for _, v := range []struct {
		fact  policy.Fact
		value string
	}{
		{policy.Brand, s.Brand}, {policy.Listener, s.Listener}, {policy.Protocol, s.Protocol}, {policy.Entry, s.Entry},
		{policy.TLS, s.TLS}, {policy.CipherClass, s.CipherClass}, {policy.Host, s.Host}, {policy.SNI, s.SNI},
		{policy.Mech, s.Mechanism}, {policy.UserForm, s.UserForm}, {policy.Client, s.Program}, {policy.Account, account},
		{policy.Verified, policy.Yes},
	} {
		f.Set(v.fact, v.value)
	}
	if s.Port != 0 {
		f.Set(policy.Port, strconv.Itoa(s.Port))
	}
	if s.Host == policy.Absent {
		f.Set(policy.SNI, policy.Absent)
	}
	if _, domain, ok := strings.Cut(account, "@"); ok {
		f.Set(policy.Domain, domain)
	}
	return f
}

// DayCount is how many sessions there were on a day.
type DayCount struct {
	Day      Day
	Sessions int
}

// Use is a shape in which an account logged in.
type Use struct {
	Shape
	Collector bool       // it comes from a service that fetches the mail of many accounts
	Days      []DayCount // ascending, at least one
}

// First is the first day.
func (u *Use) First() Day { return u.Days[0].Day }

// Last is the last day.
func (u *Use) Last() Day { return u.Days[len(u.Days)-1].Day }

// Sessions counts them over all days.
func (u *Use) Sessions() (n int) {
	for _, d := range u.Days {
		n += d.Sessions
	}
	return n
}

// Told is what the proxy last told an account, in refusing or warning.
type Told struct {
	Day    Day // 0: nothing
	Action policy.Action
	Rule   string // the requirement's id
}

// Account is what is known of an account over time.
type Account struct {
	Name    string
	Uses    []Use // by shape, in a fixed order
	Told    Told
	Bounced Day // a notice came back for good; 0: none did
	Call    Day // the customer asked to be called instead; 0: he did not
}

// Last is the last day on which it was seen; 0 where it never was.
func (a *Account) Last() (last Day) {
	for i := range a.Uses {
		last = max(last, a.Uses[i].Last())
	}
	return last
}
