package logs

// The beginning of a line: when, where, which program.

import (
	"strings"
	"time"
)

// entry is a line without its beginning.
type entry struct {
	at       time.Time
	host     string // empty in a file that the server writes itself
	tag, pid string // program[pid]
	text     string
}

// clock reads stamps.
type clock struct {
	zone *time.Location
	now  time.Time
	year int        // of the line before; 0: by now
	was  time.Month // of the line before

	last   string // the stamp read last: in a busy log many lines share one
	lastAt time.Time
}

func newClock(opt *Options) clock {
	c := clock{zone: opt.Zone, now: opt.Now, year: opt.Year}
	if c.zone == nil {
		c.zone = time.Local
	}
	if c.now.IsZero() {
		c.now = time.Now()
	}
	return c
}

// entry takes a line apart.
func (c *clock) entry(line string) (e entry, ok bool) {
	stamp, rest, ok := cutStamp(line)
	if !ok {
		return e, false
	}
	if stamp == c.last {
		e.at = c.lastAt
	} else {
		if e.at, ok = c.time(stamp); !ok {
			return e, false
		}
		c.last, c.lastAt = strings.Clone(stamp), e.at
	}
	word, after, ok := strings.Cut(rest, " ")
	if !ok {
		return e, false
	}
	if !strings.HasSuffix(word, ":") {
		// Names of users stand where a host does, in files that a server writes itself.
		if e.host = word; !only(word, hostBytes) {
			return e, false
		}
		if word, after, ok = strings.Cut(after, " "); !ok || !strings.HasSuffix(word, ":") {
			return e, false
		}
	}
	e.tag, e.text = strings.TrimSuffix(word, ":"), after
	if open := strings.IndexByte(e.tag, '['); open > 0 && strings.HasSuffix(e.tag, "]") {
		e.tag, e.pid = e.tag[:open], e.tag[open+1:len(e.tag)-1]
		if !only(e.pid, "0123456789") {
			return e, false
		}
	}
	return e, true
}

const (
	digits    = "0123456789"
	letters   = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	hostBytes = digits + letters + "._-:"
)

// only says whether there is text, and of nothing but these bytes.
func only(text, bytes string) bool { return text != "" && strings.Trim(text, bytes) == "" }

// cutStamp finds the end of a stamp.
func cutStamp(line string) (stamp, rest string, ok bool) {
	// 2026-11-21T06:25:01..., or with a space in place of the T.
	if len(line) > 20 && line[4] == '-' && line[7] == '-' && line[13] == ':' {
		end := strings.IndexByte(line[11:], ' ')
		if end < 0 {
			return "", "", false
		}
		return line[:11+end], line[12+end:], true
	}
	// Nov  1 06:25:01, or Nov 1 06:25:01.
	if len(line) < 15 || line[3] != ' ' {
		return "", "", false
	}
	i := 4
	for part := range 2 {
		for i < len(line) && line[i] == ' ' && part == 0 {
			i++
		}
		n := strings.IndexByte(line[i:], ' ')
		if n <= 0 {
			return "", "", false
		}
		i += n + 1
	}
	return line[:i-1], line[i:], true
}

// time reads a stamp.
func (c *clock) time(stamp string) (time.Time, bool) {
	if stamp[3] != ' ' {
		stamp = strings.Replace(stamp, " ", "T", 1)
		for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05Z0700", "2006-01-02T15:04:05"} {
			if t, err := time.ParseInLocation(layout, stamp, c.zone); err == nil && t.Year() >= 1970 {
				return t, true
			}
		}
		return time.Time{}, false
	}
	// 2000 is a leap year: 29 February must be read.
	t, err := time.Parse("2006 Jan _2 15:04:05", "2000 "+strings.Join(strings.Fields(stamp), " "))
	if err != nil {
		return time.Time{}, false
	}
	in := func(year int) (time.Time, bool) {
		at := time.Date(year, t.Month(), t.Day(), t.Hour(), t.Minute(), t.Second(), t.Nanosecond(), c.zone)
		return at, t.Month() != time.February || at.Month() == time.February // no 29th
	}
	if c.year != 0 {
		year := c.year
		switch {
		case c.was == time.December && t.Month() == time.January:
			year++
			c.year, c.was = year, t.Month()
		case c.was == time.January && t.Month() == time.December:
			year-- // a straggler
		default:
			c.was = t.Month()
		}
		return in(year)
	}
	latest := c.now.Add(24 * time.Hour)
	for year := latest.In(c.zone).Year(); year >= 1970 && year > latest.Year()-10; year-- {
		if at, ok := in(year); ok && !at.After(latest) {
			return at, true
		}
	}
	return time.Time{}, false
}
