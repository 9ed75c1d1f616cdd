package outreach

// When notices are sent: while somebody answers the telephone.

import (
	"time"

	"mailreeve/config"
)

// Office says when notices are sent. Its hours are those of a clock on the wall, also on
// the two days of the year that have 23 and 25 of them.
type Office struct {
	Zone         *time.Location
	Begin, Until time.Duration // from midnight
	Days         [7]bool       // by [time.Weekday]
}

// NewOffice is that of a configuration.
func NewOffice(c *config.Outreach) Office {
	o := Office{Zone: c.Timezone.Location(), Begin: time.Duration(c.Notices.Begin), Until: time.Duration(c.Notices.Until)}
	for _, d := range c.Notices.Days {
		o.Days[d.Day()] = true
	}
	return o
}

// Open reports whether notices are sent now.
func (o *Office) Open(now time.Time) bool {
	now = now.In(o.Zone)
	h, m, s := now.Clock()
	at := time.Duration(h)*time.Hour + time.Duration(m)*time.Minute + time.Duration(s)*time.Second
	return o.Days[now.Weekday()] && at >= o.Begin && at < o.Until
}

// Opens is the first instant from now on at which it is open; zero: it never is.
func (o *Office) Opens(now time.Time) time.Time {
	if o.Open(now) {
		return now
	}
	y, m, d := now.In(o.Zone).Date()
	for i := range 8 {
		at := time.Date(y, m, d+i, 0, 0, 0, 0, o.Zone).Weekday()
		if !o.Days[at] {
			continue
		}
		// Where the clock is put forward over the beginning, time.Date lies an hour before or after it.
		for t := time.Date(y, m, d+i, 0, max(0, int(o.Begin/time.Minute)-60), 0, 0, o.Zone); DayOf(t, o.Zone) <= DayOf(now, o.Zone)+Day(i); t = t.Add(time.Minute) {
			if !t.Before(now) && o.Open(t) {
				return t
			}
			if h, m, _ := t.In(o.Zone).Clock(); time.Duration(h)*time.Hour+time.Duration(m)*time.Minute >= o.Until {
				break
			}
		}
	}
	return time.Time{}
}

// Closed says until when it is closed, in a sentence; empty: it is open.
func (o *Office) Closed(now time.Time) string {
	switch opens := o.Opens(now); {
	case opens.IsZero():
		return "the office never opens"
	case !opens.Equal(now):
		return "the office is closed until " + opens.In(o.Zone).Format("Mon 2 Jan 2006 15:04 MST")
	}
	return ""
}

// On reports whether it opens on a day.
func (o *Office) On(d Day) bool { return o.Days[d.Weekday()] }

// Length is how long it is open on an ordinary day.
func (o *Office) Length() time.Duration { return max(0, o.Until-o.Begin) }

// midnight is when the day of an instant began.
func (o *Office) midnight(now time.Time) time.Time { return DayOf(now, o.Zone).Start(o.Zone) }

// PerDay is how many notices leave in a day at the most.
func PerDay(n *config.Notices) int {
	open := time.Duration(n.Until) - time.Duration(n.Begin)
	hours := int((open + time.Hour - 1) / time.Hour)
	minutes := int((open + time.Minute - 1) / time.Minute)
	return max(1, min(n.PerDay, n.PerHour*hours, n.PerMinute*minutes))
}
