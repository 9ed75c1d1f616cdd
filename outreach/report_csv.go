package outreach

// The report as tables for a spreadsheet.

import (
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"mailreeve/policy"
)

// reportColumns are those of [ReportFormat].
var reportColumns = []column{
	{"format", "Format"}, {"account", "Konto"}, {"brand", "Marke"}, {"requirement", "Anforderung"}, {"finding", "Befund"}, {"state", "Stand"},
	{"protocol", "Protokoll"}, {"program", "Programm (vermutet)"}, {"version", "Version"}, {"collector", "Sammeldienst"}, {"network", "Netz"},
	{"port", "Port"}, {"encryption", "Verschlüsselung"}, {"mechanism", "Anmeldeverfahren"}, {"server name", "Servername"}, {"user name", "Benutzername"},
	{"first seen", "zuerst gesehen"}, {"last seen", "zuletzt gesehen"}, {"days", "Tage"}, {"sessions", "Anmeldungen"}, {"good since", "in Ordnung zuletzt"},
	{"policy does", "Regel tut"}, {"refused from", "abgewiesen ab"}, {"exception", "Ausnahme"}, {"exception ends", "Ausnahme endet"},
	{"told on", "Hinweis am"}, {"told by", "Hinweis wegen"}, {"call", "Anruf gewünscht"}, {"bounced", "unzustellbar"},
}

// germanWords are the values of a column in German; in English they are as in JSON.
var germanWords = map[string]string{
	"open": "offen", "silent": "still", "fixed": "behoben", "exempt": "ausgenommen",
	"all": "alle Geräte", "some": "einige Geräte",
	"starttls": "STARTTLS", "implicit": "von Anfang an", "bare": "ohne Domain", "address": "Adresse",
	"pass": "nichts", "observe": "zählen", "notify": "Hinweis per Mail", "warn": "Warnung", "tempfail": "vorübergehend abweisen", "deny": "abweisen", "refuse": "nicht anbieten",
}

// inWords is a value in the language.
func inWords(lang, value string) string {
	if german, ok := germanWords[value]; ok && lang != "en" {
		return german
	}
	return value
}

// ReportSheet writes a row for every account and finding.
type ReportSheet struct {
	sheet *sheet
	lang  string
	zone  *time.Location
}

// NewReportSheet begins the table, in "de" or "en".
func NewReportSheet(w io.Writer, lang string, zone *time.Location) *ReportSheet {
	return &ReportSheet{newSheet(w, lang, reportColumns), lang, zone}
}

// Add writes the findings of an account.
func (s *ReportSheet) Add(a *Account, findings []Finding) error {
	for i := range findings {
		f := &findings[i]
		u := f.Uses[0] // the last seen
		exception, ends := "", ""
		if e := f.Exception; e != nil {
			exception, ends = e.ID, lastDay(e, s.zone).String()
		}
		if err := s.sheet.row(
			ReportFormat, a.Name, f.Kind.Brand, f.Rule.ID, string(f.Rule.Finding), inWords(s.lang, string(f.State)),
			f.Kind.Protocol, f.Kind.program().Name(s.lang), version(u), yesNo(s.lang, f.Kind.Collector), u.Network,
			number(u.Port), encryption(s.lang, u), u.Mechanism, u.SNI, inWords(s.lang, u.UserForm),
			dayCell(f.First), dayCell(f.Last), strconv.Itoa(f.Days), strconv.Itoa(f.Sessions), dayCell(f.Since),
			inWords(s.lang, f.Do.String()), dateCell(f.Refuses, s.zone), exception, ends,
			dayCell(a.Told.Day), a.Told.Rule, dayCell(a.Call), dayCell(a.Bounced),
		); err != nil {
			return err
		}
	}
	return nil
}

// Flush writes what is still to be written.
func (s *ReportSheet) Flush() error { return s.sheet.flush() }

// version is what is known of the program beyond its class.
func version(u *Use) string {
	if i := strings.LastIndexByte(u.Program, ' '); i >= 0 && strings.Trim(u.Program[i+1:], "0123456789") == "" {
		return u.Program[i+1:]
	}
	return ""
}

// encryption is how a use is encrypted, in words.
func encryption(lang string, u *Use) string {
	switch {
	case u.TLS == policy.None:
		return word(lang, "none", "keine")
	case u.TLS == "":
		return ""
	case u.Entry == "":
		return "TLS " + u.TLS
	}
	return "TLS " + u.TLS + ", " + inWords(lang, u.Entry)
}

func yesNo(lang string, b bool) string {
	if b {
		return word(lang, "yes", "ja")
	}
	return word(lang, "no", "nein")
}

// number is one that is known.
func number(n int) string {
	if n == 0 {
		return ""
	}
	return strconv.Itoa(n)
}

// dayCell is a day as every Excel takes it for a date.
func dayCell(d Day) string {
	text, _ := d.MarshalText()
	return string(text)
}

// dateCell is the day of an instant.
func dateCell(t time.Time, zone *time.Location) string {
	if t.IsZero() {
		return ""
	}
	return DayOf(t, zone).String()
}

// lastDay is that on which an exception is in force. It ends with the day, mostly.
func lastDay(e *policy.Exception, zone *time.Location) Day {
	return DayOf(e.Until.Add(-time.Second), zone)
}

// burnDownColumns are those of [BurnDownFormat].
var burnDownColumns = []column{{"format", "Format"}, {"requirement", "Anforderung"}, {"day", "Tag"}, {"open", "offen"}, {"silent", "still"},
	{"exempt", "ausgenommen"}, {"fixed", "behoben"}, {"straight line", "Gerade zum Termin"}}

// BurnDownSheet writes every requirement's days, and after today the line to its date.
func (r *Report) BurnDownSheet(w io.Writer, lang string) error {
	s := newSheet(w, lang, burnDownColumns)
	for i := range r.Requirements {
		q := &r.Requirements[i]
		line := func(day Day) string {
			if n, ok := q.Line(r.Window.Last, day); ok {
				return strconv.Itoa(int(math.Ceil(n)))
			}
			return ""
		}
		for _, d := range q.BurnDown {
			s.row(BurnDownFormat, q.ID, d.Day.String(), strconv.Itoa(d.Open), strconv.Itoa(d.Silent), strconv.Itoa(d.Exempt), strconv.Itoa(d.Fixed), line(d.Day))
		}
		if q.Next != nil {
			for day := r.Window.Last + 1; day <= r.Window.Last+Day(q.Next.Days); day++ {
				s.row(BurnDownFormat, q.ID, day.String(), "", "", "", "", line(day))
			}
		}
	}
	return s.flush()
}

// Weeks are the days of a burn-down that end a week before today, and so on backwards, with
// the first one; in order. There are at most so many.
func (q *RequirementReport) Weeks(most int) (days []BurnDownDay) {
	last := len(q.BurnDown) - 1
	for i := last; i >= 0 && len(days) < most; i -= 7 {
		days = append(days, q.BurnDown[i])
	}
	if first := q.BurnDown[0]; last%7 != 0 && len(days) < most {
		days = append(days, first)
	}
	slices.Reverse(days)
	return days
}
