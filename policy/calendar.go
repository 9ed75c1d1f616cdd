package policy

// When what begins and ends, for people who plan: as a list, and as a calendar
// that the support desk subscribes to.

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// Kinds of transitions.
const (
	StageBegins   = "stage"
	ShareChanges  = "share"
	BrownoutRuns  = "brownout"
	ExceptionEnds = "exception"
)

// Transition is one entry of the calendar.
type Transition struct {
	At          time.Time `json:"at"`
	Kind        string    `json:"kind"`
	Requirement string    `json:"requirement,omitempty"`
	Do          Action    `json:"do"`
	Share       string    `json:"share,omitempty"`
	Exceptions  []string  `json:"exceptions,omitempty"` // those that end
	Windows     []Window  `json:"windows,omitempty"`    // of a brownout
	More        bool      `json:"more,omitempty"`       // windows follow without end
	Text        string    `json:"text"`
}

// A brownout without an end is listed for this long, and so often at most.
const (
	listedAhead = 366 * 24 * time.Hour
	mostWindows = 400
)

// Calendar lists every transition of the policy in order: of stages and their
// shares, of brownouts (with all windows in one entry), and of exceptions (with all
// that end at one time in one entry).
func (p *Policy) Calendar() []Transition {
	var all []Transition
	for i := range p.rules {
		r := &p.rules[i]
		for j := range r.Stages {
			all = append(all, r.transitions(j)...)
		}
	}
	ends := map[int64]int{}
	for i := range p.exceptions {
		e := &p.exceptions[i]
		n, known := ends[e.Until.UnixNano()]
		if !known {
			n = len(all)
			ends[e.Until.UnixNano()] = n
			all = append(all, Transition{At: e.Until, Kind: ExceptionEnds})
		}
		all[n].Exceptions = append(all[n].Exceptions, e.ID)
	}
	for i := range all {
		if t := &all[i]; t.Kind == ExceptionEnds {
			t.Text = fmt.Sprintf("exception %s ends", t.Exceptions[0])
			if n := len(t.Exceptions); n > 1 {
				t.Text = fmt.Sprintf("%d exceptions end: %s", n, some(t.Exceptions))
			}
		}
	}
	slices.SortStableFunc(all, func(a, b Transition) int {
		return cmp.Or(a.At.Compare(b.At), cmp.Compare(a.Requirement, b.Requirement))
	})
	return all
}

// some lists the first few.
func some(list []string) string {
	if len(list) <= mostTold {
		return strings.Join(list, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(list[:mostTold], ", "), len(list)-mostTold)
}

// transitions are those of one stage.
func (r *rule) transitions(j int) []Transition {
	s := &r.Stages[j]
	t := Transition{At: s.From, Kind: StageBegins, Requirement: r.ID, Do: s.Do, Text: fmt.Sprintf("%s: %v", r.ID, s.Do)}
	if s.Share > 0 {
		t.Share = s.Share.String()
		t.Text += " for " + t.Share + " of the accounts"
		if j > 0 && r.Stages[j-1].Share > 0 && r.Stages[j-1].Do == s.Do {
			t.Kind = ShareChanges
			t.Text += ", so far " + r.Stages[j-1].Share.String()
		}
	}
	if j > 0 && s.Share == 0 && r.Stages[j-1].Share > 0 && r.Stages[j-1].Do == s.Do {
		t.Kind, t.Share = ShareChanges, Everybody.String()
		t.Text += " for all accounts, so far " + r.Stages[j-1].Share.String()
	}
	if s.Probe > 0 {
		t.Text += fmt.Sprintf("; a probe hides the mechanism from %v of the networks", s.Probe)
	}
	if c := s.Ratchet; c != nil {
		t.Text += fmt.Sprintf("; %v for accounts that have been clean for %s", c.Do, duration(c.Clean))
	}
	if s.Brownout == nil {
		return []Transition{t}
	}
	b := s.Brownout
	from, until, more := s.From, s.From.Add(listedAhead), true
	for _, later := range r.Stages[j+1:] { // of a stage with a share, some stay in this one
		if until = later.From; later.Share == 0 {
			more = false
			break
		}
		until, more = s.From.Add(listedAhead), true
	}
	windows := b.windows(from, until, mostWindows)
	if len(windows) == 0 {
		return []Transition{t}
	}
	text := fmt.Sprintf("%s: brownouts, %v on %s at %s for %s", r.ID, b.Do, b.days(), wallClock(b.At), duration(b.For))
	if more || len(windows) == mostWindows {
		text += ", without end"
	} else {
		text += fmt.Sprintf(", %d times, the last on %s", len(windows), windows[len(windows)-1].From.Format("Mon 2 Jan 2006"))
	}
	return []Transition{t, {At: windows[0].From, Kind: BrownoutRuns, Requirement: r.ID, Do: b.Do, Windows: windows, More: more, Text: text}}
}

// days lists the days of a brownout, Monday first.
func (b *Brownout) days() string {
	var names []string
	for i, name := range Weekday("").Values() {
		if b.Days[(i+1)%7] {
			names = append(names, name)
		}
	}
	return strings.Join(names, ", ")
}

// wallClock writes a time of day.
func wallClock(at time.Duration) string {
	return fmt.Sprintf("%02d:%02d", at/time.Hour, at%time.Hour/time.Minute)
}

// String is the entry as a line of a list.
func (t Transition) String() string { return fmt.Sprintf("%-26s %s", day(t.At), t.Text) }

// WriteICS writes a calendar (RFC 5545) of transitions. What begins at midnight is
// an event of that day; all the rest has its instant in UTC, so that no time zone
// must be described. Each window of a brownout is an event. made is when the
// calendar is made (DTSTAMP, section 3.8.7.2).
func (p *Policy) WriteICS(to io.Writer, transitions []Transition, made time.Time) error {
	w := &icsWriter{}
	w.line("BEGIN", "VCALENDAR")
	w.line("VERSION", "2.0")
	w.line("PRODID", "-//Mailreeve//policy calendar//EN")
	w.line("CALSCALE", "GREGORIAN")
	w.text("NAME", "Mail policy "+p.name) // RFC 7986 section 5.1
	w.text("X-WR-CALNAME", "Mail policy "+p.name)
	for _, t := range transitions {
		if t.Kind != BrownoutRuns {
			w.event(&t, t.At, time.Time{}, made)
			continue
		}
		for _, window := range t.Windows {
			w.event(&t, window.From, window.Until, made)
		}
	}
	w.line("END", "VCALENDAR")
	_, err := to.Write(w.b.Bytes())
	return err
}

// icsWriter writes content lines (RFC 5545 section 3.1).
type icsWriter struct{ b bytes.Buffer }

// event writes a VEVENT (section 3.6.1). Its UID is the same for the same entry of
// a changed file, so that a program that reads it again finds it.
func (w *icsWriter) event(t *Transition, from, until, made time.Time) {
	const instant = "20060102T150405Z"
	id := sha256.Sum256(fmt.Appendf(nil, "%s\x00%s\x00%s", t.Kind, t.Requirement, from.UTC().Format(instant)))
	w.line("BEGIN", "VEVENT")
	w.line("UID", hex.EncodeToString(id[:16])+"@policy.mailreeve")
	w.line("DTSTAMP", made.UTC().Format(instant))
	switch {
	case !until.IsZero():
		w.line("DTSTART", from.UTC().Format(instant))
		w.line("DTEND", until.UTC().Format(instant))
	case day(from) == from.Format("Mon 2 Jan 2006"):
		w.line("DTSTART;VALUE=DATE", from.Format("20060102"))
	default:
		w.line("DTSTART", from.UTC().Format(instant))
	}
	w.text("SUMMARY", t.Text)
	w.line("CATEGORIES", strings.ToUpper(t.Kind))
	w.line("TRANSP", "TRANSPARENT") // nobody is busy by it
	w.line("END", "VEVENT")
}

// text writes a property of type TEXT, escaped (section 3.3.11).
func (w *icsWriter) text(name, value string) {
	w.line(name, strings.NewReplacer(`\`, `\\`, ";", `\;`, ",", `\,`, "\r\n", `\n`, "\n", `\n`, "\r", `\n`).Replace(value))
}

// line writes a content line, folded after 75 octets at the most, and not within
// a character.
func (w *icsWriter) line(name, value string) {
	const most = 75
	rest := name + ":" + value
	for room := most; len(rest) > room; room = most - 1 {
		n := room
		for n > 0 && !utf8.RuneStart(rest[n]) {
			n--
		}
		w.b.WriteString(rest[:n] + "\r\n ")
		rest = rest[n:]
	}
	w.b.WriteString(rest + "\r\n")
}
