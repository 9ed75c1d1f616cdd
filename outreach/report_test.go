package outreach

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"iter"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"mailreeve/fixes"
	"mailreeve/policy"
)

// ledgerOf is what a ledger yields.
func ledgerOf(accounts ...*Account) iter.Seq2[*Account, error] {
	return func(yield func(*Account, error) bool) {
		for _, a := range accounts {
			if !yield(a, nil) {
				return
			}
		}
	}
}

var errTorn = errors.New("the disk is gone")

// tornLedger fails after its accounts.
func tornLedger(accounts ...*Account) iter.Seq2[*Account, error] {
	return func(yield func(*Account, error) bool) {
		for _, a := range accounts {
			if !yield(a, nil) {
				return
			}
		}
		yield(nil, errTorn)
	}
}

// customers are eight accounts, of which the figures are known.
func customers() []*Account {
	return []*Account{
		account("anna@a.example", use(good(), 0, 50)),
		account("ben@a.example", use(good(inClear), 1, 40), use(good(outlook), 2)),                  // open
		account("cleo@b.example", use(good(inClear, cram), 20), use(good(outlook), 0)),              // silent, in two ways
		account("dora@b.example", use(good(inClear), 30), use(good(), 29, 3)),                       // fixed 16 days ago
		account("emil@b.example", collected(use(good(inClear, anybody), 0, 1))),                     // open, by a collector
		account("fritz@b.example", use(good(nameless), 2)),                                          // of a log without names
		account("gabi@c.example", use(good(inClear, otherBrand), 5), use(good(legacy, sending), 3)), // open, open
		account("hugo@c.example", use(good(inClear), 60), use(good(inClear, outlook), 2)),           // silent and open: open
		account("ina@c.example", use(good(), -1)),                                                   // not yet seen
	}
}

func TestReport(t *testing.T) {
	p := testPolicy(t, policy.Exception{ID: "x", For: []string{"encrypted"}, Match: policy.Matcher{{Fact: policy.Account, Values: []string{"ben@a.example"}}}, Cap: policy.Notify, Until: in(30)})
	var listed []string
	r, err := MakeReport(ledgerOf(customers()...), p, now, berlin, func(a *Account, fs []Finding) error {
		listed = append(listed, fmt.Sprint(a.Name, " ", len(fs)))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"ben@a.example 1", "cleo@b.example 2", "dora@b.example 1", "emil@b.example 1", "gabi@c.example 2", "hugo@c.example 2"}; !slices.Equal(listed, want) {
		t.Errorf("listed %q, want %q", listed, want)
	}
	if r.Seen != 8 || r.Window != windowOf(ago(60), today) || r.Window.Days != 61 || r.Format != "report-1" {
		t.Errorf("seen %d in %+v", r.Seen, r.Window)
	}
	if want := (Counts{Open: 3, Silent: 1, Exempt: 1, Fixed: 1}); r.Any != want || r.Calls != 1 || r.Agents != 1 {
		t.Errorf("in all %+v, %d calls, %d agents", r.Any, r.Calls, r.Agents)
	}
	type line struct {
		Counts
		clean, unknown, through int
		next                    string
	}
	want := map[string]line{
		"encrypted": {Counts{Open: 3, Silent: 1, Exempt: 1, Fixed: 1}, 2, 0, 1, "deny in 40"},
		"host":      {Counts{Open: 1}, 6, 1, 0, "deny in 80"},
		"password":  {Counts{Silent: 1}, 7, 0, 0, ""},
		"port-25":   {Counts{}, 8, 0, 0, ""},
	}
	for i := range r.Requirements {
		q := &r.Requirements[i]
		got := line{q.Counts, q.Clean, q.Unknown, q.Through, ""}
		if q.Next != nil {
			got.next = fmt.Sprintf("%v in %d", q.Next.Do, q.Next.Days)
		}
		if got != want[q.ID] {
			t.Errorf("%s: got %+v, want %+v", q.ID, got, want[q.ID])
		}
		if len(q.BurnDown) != 61 || q.BurnDown[60].Day != today || q.BurnDown[60].Counts != q.Counts {
			t.Errorf("%s: %d days, the last %+v", q.ID, len(q.BurnDown), q.BurnDown[len(q.BurnDown)-1])
		}
	}
	if q := &r.Requirements[0]; q.Do != policy.Notify || !q.Since.Equal(in(-60)) {
		t.Errorf("in force is %v since %v", q.Do, q.Since)
	}

	// encrypted, day by day: hugo is open from -60 on and silent from -46, open again at -2; ben
	// is exempt from -40 on; dora open from -30, fixed at -16; cleo open from -20, silent from
	// -6; gabi open from -5; emil from -1.
	q := &r.Requirements[0]
	for _, c := range []struct {
		ago  int
		want Counts
	}{
		{60, Counts{Open: 1}}, {47, Counts{Open: 1}}, {46, Counts{Silent: 1}}, {40, Counts{Silent: 1, Exempt: 1}}, {30, Counts{Open: 1, Silent: 1, Exempt: 1}},
		{20, Counts{Open: 2, Silent: 1, Exempt: 1}}, {17, Counts{Open: 2, Silent: 1, Exempt: 1}}, {16, Counts{Open: 1, Silent: 1, Exempt: 1, Fixed: 1}},
		{6, Counts{Silent: 2, Exempt: 1, Fixed: 1}}, {5, Counts{Open: 1, Silent: 2, Exempt: 1, Fixed: 1}}, {2, Counts{Open: 2, Silent: 1, Exempt: 1, Fixed: 1}}, {0, q.Counts},
	} {
		if got := q.BurnDown[60-c.ago]; got.Counts != c.want || got.Day != ago(c.ago) {
			t.Errorf("%d days ago: %+v, want %+v", c.ago, got, c.want)
		}
	}
	if got := *q.Pace; got != (Pace{Mended: 0, Over: 14, Needed: 0.1, Left: 4}) {
		t.Errorf("the pace is %+v", got)
	}
	for day, want := range map[Day]float64{today: 4, today + 10: 3, today + 40: 0, today - 1: -1, today + 41: -1} {
		got, ok := q.Line(today, day)
		if ok != (want >= 0) || ok && math.Abs(got-want) > 1e-9 {
			t.Errorf("the line is at %v %v on %v, want %v", got, ok, day, want)
		}
	}

	// the other tables
	for _, c := range []struct {
		name string
		rows []ReportRow
		want []ReportRow
	}{
		{"brands", r.Brands, []ReportRow{{"alpha", 8, Counts{Open: 3, Silent: 1, Exempt: 1, Fixed: 1}}, {"beta", 1, Counts{Open: 1}}}},
		{"protocols", r.Protocols, []ReportRow{{"imap", 8, Counts{Open: 3, Silent: 1, Exempt: 1, Fixed: 1}}, {"submission", 1, Counts{Open: 1}}}},
		{"programs", r.Programs, []ReportRow{{"thunderbird", 7, Counts{Open: 1, Silent: 2, Exempt: 1, Fixed: 1}}, {"collector", 1, Counts{Open: 1}}, {"outlook", 3, Counts{Open: 1}}}},
	} {
		if !slices.Equal(c.rows, c.want) {
			t.Errorf("%s:\ngot  %+v\nwant %+v", c.name, c.rows, c.want)
		}
	}
}

func TestPace(t *testing.T) {
	p := testPolicy(t)
	var accounts []*Account
	for i := range 100 { // 28 mend it, two a day, from 27 days ago on; 72 do not
		a := account(fmt.Sprintf("a%03d", i), use(good(inClear), 40, 28))
		if i < 28 {
			a.Uses = append(a.Uses, use(good(), 27-i/2, 0))
			a.Uses[0].Days[1].Day = ago(27 - i/2)
		} else {
			a.Uses[0].Days[1].Day = ago(0)
		}
		accounts = append(accounts, a)
	}
	r, err := MakeReport(ledgerOf(accounts...), p, now, berlin, nil)
	if err != nil {
		t.Fatal(err)
	}
	q := &r.Requirements[0]
	if q.Fixed != 28 || q.Open != 72 || *q.Pace != (Pace{Mended: 2, Over: 14, Needed: 1.8, Left: 0}) {
		t.Errorf("got %+v, pace %+v", q.Counts, *q.Pace)
	}
	if calls, agents := hotline(601); calls != 61 || agents != 2 {
		t.Errorf("%d calls, %d agents", calls, agents)
	}
	young, err := MakeReport(ledgerOf(account("anna", use(good(inClear), 0))), p, now, berlin, nil)
	if err != nil || young.Requirements[0].Pace != nil {
		t.Errorf("a ledger of one day has a pace: %+v, %v", young.Requirements[0].Pace, err)
	}
	empty, err := MakeReport(ledgerOf(), p, now, berlin, nil)
	if err != nil || empty.Seen != 0 || empty.Window.Days != 1 || len(empty.Requirements[0].BurnDown) != 1 {
		t.Errorf("an empty ledger: %+v, %v", empty, err)
	}
	if _, err := MakeReport(tornLedger(customers()...), p, now, berlin, nil); err != errTorn {
		t.Errorf("of a ledger that cannot be read: %v", err)
	}
	stop := errors.New("no room")
	if _, err := MakeReport(ledgerOf(customers()...), p, now, berlin, func(*Account, []Finding) error { return stop }); err != stop {
		t.Errorf("of rows that cannot be written: %v", err)
	}
}

func TestWeeks(t *testing.T) {
	for _, c := range []struct {
		days, most int
		want       []int // ago
	}{{1, 9, []int{0}}, {2, 9, []int{1, 0}}, {8, 9, []int{7, 0}}, {10, 9, []int{9, 7, 0}}, {30, 3, []int{14, 7, 0}}} {
		q := &RequirementReport{}
		for d := range c.days {
			q.BurnDown = append(q.BurnDown, BurnDownDay{Day: ago(c.days - 1 - d)})
		}
		var got []int
		for _, d := range q.Weeks(c.most) {
			got = append(got, int(today-d.Day))
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%d days: %v, want %v", c.days, got, c.want)
		}
	}
}

// TestReportModel holds the counts against those of each account and day alone.
func TestReportModel(t *testing.T) {
	p := testPolicy(t)
	rapid.Check(t, func(t *rapid.T) {
		var accounts []*Account
		for i := range rapid.IntRange(0, 6).Draw(t, "accounts") {
			a := drawAccount(t, fmt.Sprint("account", i), 5)
			for i := range a.Uses {
				if c := a.Uses[i].Class; c == fixes.AppleMail || c == fixes.Unknown { // trials are known by what comes later too
					a.Uses[i].Class = fixes.IOSMail
				}
			}
			accounts = append(accounts, a)
		}
		r, err := MakeReport(ledgerOf(accounts...), p, now, berlin, nil)
		if err != nil {
			t.Fatal(err)
		}
		seen := 0
		for _, a := range accounts {
			if slices.ContainsFunc(a.Uses, func(u Use) bool { return u.First() <= today }) {
				seen++
			}
		}
		if r.Seen != seen {
			t.Fatalf("seen %d, want %d", r.Seen, seen)
		}
		states := func(a *Account, id string, day Day) (worst State) {
			for _, f := range Findings(p, a, day.Start(berlin).Add(time.Hour), berlin) {
				if f.Rule.ID == id && slices.Index([]State{Open, Silent, Exempt, Fixed, ""}, f.State) < slices.Index([]State{Open, Silent, Exempt, Fixed, ""}, worst) {
					worst = f.State
				}
			}
			return worst
		}
		for i := range r.Requirements {
			q := &r.Requirements[i]
			if sum := q.Open + q.Silent + q.Exempt + q.Fixed + q.Clean + q.Unknown; sum != seen || q.Clean < 0 {
				t.Fatalf("%s: %d in all, %d were seen", q.ID, sum, seen)
			}
			for _, d := range q.BurnDown {
				want := map[State]int{}
				for _, a := range accounts {
					want[states(a, q.ID, d.Day)]++
				}
				if got := (Counts{want[Open], want[Silent], want[Exempt], want[Fixed]}); d.Counts != got {
					t.Fatalf("%s on %v: %+v, want %+v", q.ID, d.Day, d.Counts, got)
				}
			}
		}
		for _, row := range r.Programs {
			want := map[State]int{}
			for _, a := range accounts {
				worst, has := State(""), false
				for i := range a.Uses {
					has = has || string(a.Uses[i].kind().program()) == row.Name && a.Uses[i].First() <= today
				}
				for _, f := range Findings(p, a, now, berlin) {
					if string(f.Kind.program()) == row.Name {
						worst = worse(worst, f.State)
					}
				}
				if has {
					want["seen"]++
				}
				want[worst]++
			}
			if got := (ReportRow{row.Name, want["seen"], Counts{want[Open], want[Silent], want[Exempt], want[Fixed]}}); row != got {
				t.Fatalf("%+v, want %+v", row, got)
			}
		}
	})
}

// rowsOf reads a table back.
func rowsOf(t *testing.T, text string) [][]string {
	t.Helper()
	text, ok := strings.CutPrefix(text, "\ufeff")
	if !ok {
		t.Fatalf("no byte order mark: %.40q", text)
	}
	r := csv.NewReader(strings.NewReader(text))
	r.Comma = ';'
	rows, err := r.ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	return rows
}

func TestReportSheet(t *testing.T) {
	p := testPolicy(t, policy.Exception{ID: "x", For: []string{"encrypted"}, Match: policy.Matcher{{Fact: policy.Account, Values: []string{"ben@a.example"}}}, Cap: policy.Notify, Until: in(30)})
	accounts := []*Account{
		account("=2+5+cmd|' /C calc'!A0@a.example", use(good(legacy, func(s *Shape) { s.SNI = "mail;old\nexample" }), 0)),
		account("ben@a.example", use(good(inClear, cram), "3x2")),
		account("emil@b.example", collected(use(good(inClear, anybody), 30)), use(good(anybody), 1)),
	}
	accounts[1].Told = Told{ago(2), policy.Warn, "password"}
	accounts[2].Call = ago(1)
	for _, c := range []struct {
		lang string
		want []string
	}{
		{"de", []string{
			"Format|Konto|Marke|Anforderung|Befund|Stand|Protokoll|Programm (vermutet)|Version|Sammeldienst|Netz|Port|Verschlüsselung|Anmeldeverfahren|Servername|Benutzername|zuerst gesehen|zuletzt gesehen|Tage|Anmeldungen|in Ordnung zuletzt|Regel tut|abgewiesen ab|Ausnahme|Ausnahme endet|Hinweis am|Hinweis wegen|Anruf gewünscht|unzustellbar",
			"report-1|'=2+5+cmd|' /C calc'!A0@a.example|alpha|host|legacy_hostname|offen|imap|PROGRAM|153|nein|dsl|993|TLS 1.3, von Anfang an|PLAIN|mail;old\nexample|Adresse|2026-11-22|2026-11-22|1|1||zählen|2027-02-10||||||",
			"report-1|ben@a.example|alpha|encrypted|plaintext|ausgenommen|imap|PROGRAM|153|nein|dsl|143|keine|CRAM-MD5||Adresse|2026-11-19|2026-11-19|1|2||Hinweis per Mail|2027-01-01|x|2026-12-21|2026-11-20|password||",
			"report-1|ben@a.example|alpha|password|mechanism|offen|imap|PROGRAM|153|nein|dsl|143|keine|CRAM-MD5||Adresse|2026-11-19|2026-11-19|1|2||abweisen|2026-11-17|||2026-11-20|password||",
		}},
		{"en", []string{
			"format|account|brand|requirement|finding|state|protocol|program|version|collector|network|port|encryption|mechanism|server name|user name|first seen|last seen|days|sessions|good since|policy does|refused from|exception|exception ends|told on|told by|call|bounced",
			"report-1|'=2+5+cmd|' /C calc'!A0@a.example|alpha|host|legacy_hostname|open|imap|PROGRAM|153|no|dsl|993|TLS 1.3, implicit|PLAIN|mail;old\nexample|address|2026-11-22|2026-11-22|1|1||observe|2027-02-10||||||",
			"report-1|ben@a.example|alpha|encrypted|plaintext|exempt|imap|PROGRAM|153|no|dsl|143|none|CRAM-MD5||address|2026-11-19|2026-11-19|1|2||notify|2027-01-01|x|2026-12-21|2026-11-20|password||",
			"report-1|ben@a.example|alpha|password|mechanism|open|imap|PROGRAM|153|no|dsl|143|none|CRAM-MD5||address|2026-11-19|2026-11-19|1|2||deny|2026-11-17|||2026-11-20|password||",
		}},
	} {
		var b bytes.Buffer
		s := NewReportSheet(&b, c.lang, berlin)
		if _, err := MakeReport(ledgerOf(accounts...), p, now, berlin, s.Add); err != nil {
			t.Fatal(err)
		}
		if err := s.Flush(); err != nil {
			t.Fatal(err)
		}
		rows := rowsOf(t, b.String())
		if len(rows) != 5 || !strings.HasSuffix(b.String(), "\r\n") {
			t.Fatalf("%d rows in %q", len(rows), b.String())
		}
		for i, want := range c.want {
			want = strings.Replace(want, "|PROGRAM|", "|"+fixes.Thunderbird.Name(c.lang)+"|", 1)
			if got := strings.Join(rows[i], "|"); got != want {
				t.Errorf("%s, row %d:\ngot  %s\nwant %s", c.lang, i, got, want)
			}
		}
		// a collector's account, which wants a call
		if last := rows[4]; last[5] != map[string]string{"de": "still", "en": "silent"}[c.lang] || last[7] != fixes.Collector.Name(c.lang) || last[27] != "2026-11-21" {
			t.Errorf("%q", last)
		}
	}
}

func TestBurnDownSheet(t *testing.T) {
	r, err := MakeReport(ledgerOf(account("anna", use(good(inClear), 1)), account("ben", use(good(inClear), 0))), testPolicy(t), now, berlin, nil)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := r.BurnDownSheet(&b, "de"); err != nil {
		t.Fatal(err)
	}
	rows := rowsOf(t, b.String())
	for i, want := range []string{
		"Format|Anforderung|Tag|offen|still|ausgenommen|behoben|Gerade zum Termin",
		"burndown-1|encrypted|2026-11-21|1|0|0|0|",
		"burndown-1|encrypted|2026-11-22|2|0|0|0|2",
		"burndown-1|encrypted|2026-11-23|||||2",
	} {
		if got := strings.Join(rows[i], "|"); got != want {
			t.Errorf("row %d: %s, want %s", i, got, want)
		}
	}
	if got, want := strings.Join(rows[42], "|"), "burndown-1|encrypted|2027-01-01|||||0"; got != want {
		t.Errorf("the day: %s, want %s", got, want)
	}
}
