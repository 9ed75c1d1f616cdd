package policy

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

var update = flag.Bool("update", false, "write the files that are compared with")

// golden compares with a committed file, or writes it.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(name, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if want, err := os.ReadFile(name); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s differs (%v):\n%s", name, err, got)
	}
}

func date(y int, m time.Month, d int) time.Time { return time.Date(y, m, d, 0, 0, 0, 0, berlin) }

// planned is a policy with one of everything.
func planned(t *testing.T) *Policy {
	t.Helper()
	weekdays := [7]bool{time.Tuesday: true, time.Thursday: true}
	exceptions := []Exception{{ID: "late", For: []string{"encrypted"}, Cap: Notify, Until: date(2026, 6, 1).Add(10 * time.Hour),
		Match: Matcher{{Fact: Account, Values: []string{"a"}}}, Reason: "a copier", Owner: "support"}}
	for i := range 12 {
		exceptions = append(exceptions, Exception{ID: fmt.Sprintf("ex-%02d", i), For: []string{"encrypted", "password-only"}, Cap: Notify, Until: date(2026, 5, 1),
			Match: Matcher{{Fact: Account, Values: []string{fmt.Sprint("b", i)}}}, Reason: "holidays", Owner: "support"})
	}
	p, err := New("planned", []Requirement{
		{ID: "encrypted", Finding: Plaintext, Require: noClear, Stages: []Stage{
			{From: date(2026, 1, 1), Do: Observe},
			{From: date(2026, 3, 17), Do: Notify, Brownout: &Brownout{Do: TempFail, Days: weekdays, At: 10 * time.Hour, For: 30 * time.Minute, Zone: berlin}},
			{From: date(2026, 4, 1), Do: Deny, Share: 10_000},
			{From: date(2026, 4, 8), Do: Deny, Share: 50_000},
			{From: date(2026, 4, 15), Do: Deny},
		}},
		{ID: "password-only", Finding: Mechanism, Require: Matcher{{Fact: Mech, Values: []string{"PLAIN"}}}, Stages: []Stage{
			{From: date(2026, 2, 1), Do: Warn, Probe: 2_000, Ratchet: &Ratchet{Clean: 60 * 24 * time.Hour, Do: Deny}},
			{From: date(2026, 4, 15).Add(6 * time.Hour), Do: Deny},
		}},
	}, exceptions...)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestCalendar(t *testing.T) {
	p := planned(t)
	var b bytes.Buffer
	for _, entry := range p.Calendar() {
		fmt.Fprintln(&b, entry)
	}
	golden(t, "testdata/calendar.txt", b.Bytes())

	b.Reset()
	if err := p.WriteICS(&b, p.Calendar(), noon); err != nil {
		t.Fatal(err)
	}
	golden(t, "testdata/calendar.ics", b.Bytes())
}

// TestCalendarWithoutEnd lists a year of a brownout that nothing ends.
func TestCalendarWithoutEnd(t *testing.T) {
	p := one(t, Stage{From: date(2026, 1, 1), Do: Notify, Brownout: &Brownout{Do: TempFail, Days: [7]bool{time.Monday: true}, At: 90 * time.Minute, For: time.Hour, Zone: berlin}})
	all := p.Calendar()
	if len(all) != 2 || len(all[1].Windows) != 52 || !all[1].More {
		t.Fatalf("got %+v", all)
	}
	if want := "Mon 5 Jan 2026 01:30 CET   encrypted: brownouts, tempfail on mon at 01:30 for 1h, without end"; all[1].String() != want {
		t.Errorf("got %q, want %q", all[1], want)
	}
}

// TestContentLines unfolds what was folded (RFC 5545 section 3.1).
func TestContentLines(t *testing.T) {
	for _, text := range []string{"", "short", strings.Repeat("x", 400), strings.Repeat("ü", 300), strings.Repeat("x", 66) + "€€€", `a;b,c\d` + "\ne"} {
		w := new(icsWriter)
		w.text("SUMMARY", text)
		out := w.b.String()
		for _, line := range strings.Split(strings.TrimSuffix(out, "\r\n"), "\r\n") {
			if len(line) > 75 || !utf8.ValidString(line) || strings.ContainsAny(line, "\r\n") {
				t.Errorf("%q: line %q", text, line)
			}
		}
		unfolded := strings.TrimSuffix(strings.ReplaceAll(out, "\r\n ", ""), "\r\n")
		unescaped := strings.NewReplacer(`\\`, `\`, `\;`, ";", `\,`, ",", `\n`, "\n").Replace(unfolded)
		if unescaped != "SUMMARY:"+text {
			t.Errorf("%q became %q", text, unescaped)
		}
	}
}

func TestExplanation(t *testing.T) {
	p := planned(t)
	hold := &Hold{Cap: Notify, Reason: "the hotline is down", Owner: "anna", Since: date(2026, 4, 15), Until: date(2026, 4, 16)}
	var b bytes.Buffer
	for _, c := range []struct {
		title string
		hold  *Hold
		at    time.Time
		is    *Facts
	}{
		{"before the first stage", nil, date(2025, 12, 31), facts(TLS, None)},
		{"nothing known", nil, date(2026, 4, 2), facts()},
		{"all is well", nil, date(2026, 4, 20), facts(TLS, "1.3", Mech, "PLAIN")},
		{"a brownout", nil, date(2026, 3, 17).Add(10 * time.Hour), facts(TLS, None, Mech, "PLAIN", Account, "carla")},
		{"between brownouts", nil, date(2026, 3, 17).Add(11 * time.Hour), facts(TLS, None, Mech, "PLAIN", Account, "carla")},
		{"outside a share", nil, date(2026, 4, 2), facts(TLS, None, Mech, "CRAM-MD5", Account, "carla", Ledger, Open)},
		{"inside a share", nil, date(2026, 4, 9), facts(TLS, None, Mech, "PLAIN", Account, "user1")},
		{"the account not known", nil, date(2026, 4, 2), facts(TLS, None, Mech, "CRAM-MD5")},
		{"a ratchet", nil, date(2026, 4, 2), facts(TLS, "1.3", Mech, "CRAM-MD5", Account, "carla", Ledger, Clean)},
		{"an exception", nil, date(2026, 4, 20), facts(TLS, None, Mech, "CRAM-MD5", Account, "b3", Ledger, Open)},
		{"an exception that has ended", nil, date(2026, 5, 1), facts(TLS, None, Mech, "PLAIN", Account, "b3")},
		{"a hold", hold, date(2026, 4, 15), facts(TLS, None, Mech, "CRAM-MD5", Account, "carla")},
		{"a hold that changes nothing", hold, date(2026, 4, 15), facts(TLS, "1.3", Mech, "PLAIN", Account, "carla")},
	} {
		fmt.Fprintf(&b, "=== %s\n%v\n\n", c.title, p.ExplainUnder(c.hold, c.is, c.at))
	}
	golden(t, "testdata/explain.txt", b.Bytes())
}
