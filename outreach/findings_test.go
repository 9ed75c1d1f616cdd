package outreach

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
	_ "time/tzdata"

	"pgregory.net/rapid"

	"mailreeve/fixes"
	"mailreeve/policy"
)

var (
	berlin = func() *time.Location {
		zone, err := time.LoadLocation("Europe/Berlin")
		if err != nil {
			panic(err) // time/tzdata has it
		}
		return zone
	}()
	today = dayOf("2026-11-22")
	now   = today.Start(berlin).Add(15 * time.Hour)
)

func dayOf(s string) Day {
	d, err := ParseDay(s)
	if err != nil {
		panic(err) // written in a test
	}
	return d
}

// ago is a number of days before today.
func ago(days int) Day { return today - Day(days) }

// in is the beginning of a day after today.
func in(days int) time.Time { return (today + Day(days)).Start(berlin) }

// testPolicy demands four things, at different stages.
func testPolicy(t testing.TB, exceptions ...policy.Exception) *policy.Policy {
	t.Helper()
	one := func(fact policy.Fact, values ...string) policy.Matcher {
		return policy.Matcher{{Fact: fact, Values: values}}
	}
	p, err := policy.New("test", []policy.Requirement{
		{ID: "encrypted", Finding: policy.Plaintext, Require: policy.Matcher{{Fact: policy.TLS, Not: true, Values: []string{policy.None}}},
			Stages: []policy.Stage{{From: in(-60), Do: policy.Notify}, {From: in(40), Do: policy.Deny}}},
		{ID: "host", Finding: policy.LegacyHostname, Require: one(policy.Host, policy.Canonical, policy.Absent),
			Stages: []policy.Stage{{From: in(-60), Do: policy.Observe}, {From: in(10), Do: policy.Notify}, {From: in(80), Do: policy.Deny}}},
		{ID: "password", Finding: policy.Mechanism, Require: one(policy.Mech, "PLAIN", "LOGIN", policy.UserPass),
			Stages: []policy.Stage{{From: in(-60), Do: policy.Notify, Ratchet: &policy.Ratchet{Clean: 60 * 24 * time.Hour, Do: policy.Deny}}, {From: in(-5), Do: policy.Deny}}},
		{ID: "port-25", Finding: policy.FindingPort, Scope: one(policy.Protocol, "submission"), Require: policy.Matcher{{Fact: policy.Port, Not: true, Values: []string{"25"}}},
			Stages: []policy.Stage{{From: in(100), Do: policy.Notify}}},
	}, exceptions...)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// good is a login as it should be; what follows changes it.
func good(change ...func(*Shape)) Shape {
	s := Shape{Brand: "alpha", Listener: "imap-993", Protocol: "imap", Port: 993, Entry: policy.EntryImplicit, TLS: "1.3", CipherClass: policy.Modern,
		Host: policy.Canonical, Mechanism: "PLAIN", UserForm: "address", Class: fixes.Thunderbird, Program: "Thunderbird 153", Network: "dsl"}
	for _, c := range change {
		c(&s)
	}
	return s
}

func inClear(s *Shape) {
	s.Port, s.Listener, s.Entry, s.TLS, s.CipherClass = 143, "imap-143", policy.EntryPlain, policy.None, ""
}
func cram(s *Shape) { s.Mechanism = "CRAM-MD5" }
func legacy(s *Shape) {
	s.Host, s.SNI = policy.Legacy, "mail.old.example"
}
func nameless(s *Shape)   { s.Host = "" } // from a log that has no server names
func apple(s *Shape)      { s.Class, s.Program = fixes.AppleMail, "Apple Mail 16" }
func anybody(s *Shape)    { s.Class, s.Program = fixes.Unknown, "" }
func outlook(s *Shape)    { s.Class, s.Program = fixes.Outlook, "" }
func mobile(s *Shape)     { s.Network = "mobile" }
func sending(s *Shape)    { s.Protocol, s.Port, s.Listener = "submission", 465, "submission-465" }
func otherBrand(s *Shape) { s.Brand = "beta" }

// use is a shape on days, with a session on each; "5x2" stands for twice on that of five days ago.
func use(s Shape, days ...any) Use {
	u := Use{Shape: s}
	for _, d := range days {
		c := DayCount{Sessions: 1}
		switch d := d.(type) {
		case int:
			c.Day = ago(d)
		case string:
			var n int
			fmt.Sscanf(d, "%dx%d", &n, &c.Sessions)
			c.Day = ago(n)
		}
		u.Days = append(u.Days, c)
	}
	slices.SortFunc(u.Days, func(a, b DayCount) int { return cmp.Compare(a.Day, b.Day) })
	return u
}

func collected(u Use) Use {
	u.Collector = true
	return u
}

func account(name string, uses ...Use) *Account { return &Account{Name: name, Uses: uses} }

// sayFinding writes a finding shortly; days count back from today.
func sayFinding(f Finding) string {
	s := fmt.Sprintf("%s %s %s %s: %s -%d..-%d %dd %ds %v", f.Rule.ID, f.Kind.Brand, f.Kind.Protocol, f.Kind.Class, f.State, today-f.First, today-f.Last, f.Days, f.Sessions, f.Do)
	if f.Kind.Collector {
		s = "collected " + s
	}
	if !f.Refuses.IsZero() {
		s += fmt.Sprintf(" refuses %+d", DayOf(f.Refuses, berlin)-today)
	}
	if f.Since != 0 {
		s += fmt.Sprintf(" since -%d", today-f.Since)
	}
	if f.Exception != nil {
		s += " " + f.Exception.ID
	}
	return s
}

func TestFindings(t *testing.T) {
	p := testPolicy(t,
		policy.Exception{ID: "x-anna", For: []string{"encrypted"}, Match: policy.Matcher{{Fact: policy.Account, Values: []string{"anna@a.example"}}}, Cap: policy.Notify, Until: in(30)},
		policy.Exception{ID: "x-imap", For: []string{"encrypted"}, Match: policy.Matcher{{Fact: policy.Account, Values: []string{"ben@a.example"}}, {Fact: policy.Protocol, Values: []string{"imap"}},
			{Fact: policy.Mech, Values: []string{"PLAIN"}}}, Cap: policy.Pass, Until: in(30)},
		policy.Exception{ID: "x-office", For: []string{"encrypted", "host"}, Match: policy.Matcher{{Networks: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}}}, Cap: policy.Pass, Until: in(30)},
		policy.Exception{ID: "x-milder", For: []string{"password"}, Match: policy.Matcher{{Fact: policy.Account, Values: []string{"cleo@a.example"}}}, Cap: policy.TempFail, Until: in(30)},
	)
	const name = "dora@a.example"
	for _, c := range []struct {
		name string
		is   *Account
		want []string
	}{
		{"nothing", account(name), nil},
		{"all is well", account(name, use(good(), 0, 1, 50)), nil},
		{"open", account(name, use(good(inClear), 30, "3x7")), []string{"encrypted alpha imap thunderbird: open -30..-3 2d 8s notify refuses +40"}},
		{"still open on the last day", account(name, use(good(inClear), 13), use(good(), 0)),
			[]string{"encrypted alpha imap thunderbird: open -13..-13 1d 1s notify refuses +40 since -0"}},
		{"fixed a day later", account(name, use(good(inClear), 14), use(good(), 13)),
			[]string{"encrypted alpha imap thunderbird: fixed -14..-14 1d 1s notify refuses +40 since -13"}},
		{"good on the same day proves nothing", account(name, use(good(inClear), 14), use(good(), 14)),
			[]string{"encrypted alpha imap thunderbird: silent -14..-14 1d 1s notify refuses +40"}},
		{"silent", account(name, use(good(inClear), 20), use(good(), 21)),
			[]string{"encrypted alpha imap thunderbird: silent -20..-20 1d 1s notify refuses +40"}},
		{"another program mends nothing", account(name, use(good(inClear), 20), use(good(outlook), 0)),
			[]string{"encrypted alpha imap thunderbird: silent -20..-20 1d 1s notify refuses +40"}},
		{"nor another protocol", account(name, use(good(inClear), 20), use(good(sending), 0)),
			[]string{"encrypted alpha imap thunderbird: silent -20..-20 1d 1s notify refuses +40"}},
		{"nor a login of which it is not known", account(name, use(good(legacy), 20), use(good(nameless), 0)),
			[]string{"host alpha imap thunderbird: silent -20..-20 1d 1s observe refuses +80"}},
		{"another version of the program does, in another network", account(name, use(good(inClear), 20), use(good(mobile, func(s *Shape) { s.Program = "Thunderbird 160" }), 2)),
			[]string{"encrypted alpha imap thunderbird: fixed -20..-20 1d 1s notify refuses +40 since -2"}},
		{"what is wrong otherwise meets this one", account(name, use(good(inClear), 20), use(good(cram), 2)),
			[]string{"encrypted alpha imap thunderbird: fixed -20..-20 1d 1s notify refuses +40 since -2", "password alpha imap thunderbird: open -2..-2 1d 1s deny refuses -5"}},
		{"all at once, before any stage too", account(name, use(good(sending, inClear, cram, legacy, func(s *Shape) { s.Port = 25 }), 1, 2)), []string{
			"encrypted alpha submission thunderbird: open -2..-1 2d 2s notify refuses +40", "host alpha submission thunderbird: open -2..-1 2d 2s observe refuses +80",
			"password alpha submission thunderbird: open -2..-1 2d 2s deny refuses -5", "port-25 alpha submission thunderbird: open -2..-1 2d 2s pass"}},
		{"two shapes of a kind are one", account(name, use(good(inClear), 1, 2), use(good(inClear, mobile), "2x3")),
			[]string{"encrypted alpha imap thunderbird: open -2..-1 2d 5s notify refuses +40"}},
		{"kinds apart, in order", account(name, use(good(inClear, otherBrand), 1), use(good(inClear, outlook), 1), collected(use(good(inClear, outlook), 20)), use(good(inClear, func(s *Shape) { s.Protocol = "pop3" }), 1)), []string{
			"encrypted alpha imap outlook: open -1..-1 1d 1s notify refuses +40", "collected encrypted alpha imap outlook: silent -20..-20 1d 1s notify refuses +40",
			"encrypted alpha pop3 thunderbird: open -1..-1 1d 1s notify refuses +40", "encrypted beta imap thunderbird: open -1..-1 1d 1s notify refuses +40"}},
		{"what is later than today is not known", account(name, use(good(inClear), -1)), nil},
		{"nor does it mend", account(name, use(good(inClear), 20), use(good(), -1)), []string{"encrypted alpha imap thunderbird: silent -20..-20 1d 1s notify refuses +40"}},
		{"exempt", account("anna@a.example", use(good(inClear), 1)), []string{"encrypted alpha imap thunderbird: exempt -1..-1 1d 1s notify refuses +40 x-anna"}},
		{"one login without the exception", account("ben@a.example", use(good(inClear), 1), use(good(inClear, cram), 2)),
			[]string{"encrypted alpha imap thunderbird: open -2..-1 2d 2s notify refuses +40", "password alpha imap thunderbird: open -2..-2 1d 1s deny refuses -5 since -1"}},
		{"one kind without", account("ben@a.example", use(good(inClear), 1), use(good(inClear, sending), 2)),
			[]string{"encrypted alpha imap thunderbird: exempt -1..-1 1d 1s pass refuses +40 x-imap", "encrypted alpha submission thunderbird: open -2..-2 1d 1s notify refuses +40"}},
		{"an exception that refuses all the same", account("cleo@a.example", use(good(cram), 1)), []string{"password alpha imap thunderbird: open -1..-1 1d 1s tempfail refuses -5 x-milder"}},
		{"trials of Apple Mail", account(name, use(good(apple), "5x30", 4), use(good(apple, inClear), 5), use(good(apple, cram), "5x2")), nil},
		{"of which only two are different", account(name, use(good(apple), 5), use(good(apple, inClear), 5), use(good(apple, inClear, mobile), 5)),
			[]string{"encrypted alpha imap apple-mail: open -5..-5 1d 2s notify refuses +40"}},
		{"that find nothing", account(name, use(good(apple, legacy, inClear), 5), use(good(apple, legacy, cram), 5), use(good(apple, legacy), 5)), []string{ // encryption and mechanism are found
			"host alpha imap apple-mail: open -5..-5 1d 3s observe refuses +80"}},
		{"with too many logins", account(name, use(good(apple), 5), use(good(apple, inClear), "5x3"), use(good(apple, cram), 5)),
			[]string{"encrypted alpha imap apple-mail: open -5..-5 1d 3s notify refuses +40"}},
		{"on three days", account(name, use(good(apple), 5, 6, 7), use(good(apple, inClear), 5, 6, 7), use(good(apple, cram), 5, 6)),
			[]string{"encrypted alpha imap apple-mail: open -7..-7 1d 1s notify refuses +40 since -5"}},
		{"and settings all the same", account(name, use(good(apple), 5, 6, 7), use(good(apple, inClear), 5, 6, 7), use(good(apple, cram), 5, 6, 7)),
			[]string{"encrypted alpha imap apple-mail: open -7..-5 3d 3s notify refuses +40", "password alpha imap apple-mail: open -7..-5 3d 3s deny refuses -5"}},
		{"of an unknown program", account(name, use(good(anybody), 5), use(good(anybody, inClear), 5), use(good(anybody, cram), 5)), nil},
		{"of which Thunderbird makes none", account(name, use(good(), 5), use(good(inClear), 5), use(good(cram), 5)),
			[]string{"encrypted alpha imap thunderbird: open -5..-5 1d 1s notify refuses +40", "password alpha imap thunderbird: open -5..-5 1d 1s deny refuses -5"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got []string
			for _, f := range Findings(p, c.is, now, berlin) {
				got = append(got, sayFinding(f))
				if len(f.Uses) == 0 || !slices.IsSortedFunc(f.Uses, func(a, b *Use) int { return cmp.Compare(b.Last(), a.Last()) }) {
					t.Errorf("%s: the uses are out of order, or missing", sayFinding(f))
				}
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(c.want, "\n"))
			}
		})
	}
}

// drawUse draws a use of the last hundred days; some are from tomorrow.
func drawUse(t *rapid.T, i int) Use {
	label := fmt.Sprint("use", i)
	s := good()
	for _, change := range []func(*Shape){inClear, cram, legacy, nameless, outlook, apple, anybody, mobile, sending, otherBrand} {
		if rapid.IntRange(0, 3).Draw(t, label) == 0 {
			change(&s)
		}
	}
	u := Use{Shape: s, Collector: rapid.IntRange(0, 9).Draw(t, label+" collector") == 0}
	near := rapid.Bool().Draw(t, label+" near")
	for _, d := range rapid.SliceOfNDistinct(rapid.IntRange(-1, 100), 1, 12, rapid.ID[int]).Draw(t, label+" days") {
		if near { // so that several fall on a day
			d = d%4 + 10
		}
		if c := (DayCount{ago(d), rapid.IntRange(1, 3).Draw(t, label+" sessions")}); !slices.ContainsFunc(u.Days, func(o DayCount) bool { return o.Day == c.Day }) {
			u.Days = append(u.Days, c)
		}
	}
	slices.SortFunc(u.Days, func(a, b DayCount) int { return cmp.Compare(a.Day, b.Day) })
	return u
}

// drawAccount draws an account; no shape is there twice.
func drawAccount(t *rapid.T, name string, most int) *Account {
	a := &Account{Name: name}
	for i := range rapid.IntRange(0, most).Draw(t, "uses") {
		if u := drawUse(t, i); !slices.ContainsFunc(a.Uses, func(o Use) bool { return o.Shape == u.Shape && o.Collector == u.Collector }) {
			a.Uses = append(a.Uses, u)
		}
	}
	return a
}

// model says what is found, day after day and rule by rule, as the text has it.
func model(p *policy.Policy, a *Account, until Day) (lines []string) {
	breaks := func(u *Use, id string) bool {
		switch id {
		case "encrypted":
			return u.TLS == policy.None
		case "host":
			return u.Host == policy.Legacy
		case "password":
			return u.Mechanism == "CRAM-MD5"
		}
		return u.Protocol == "submission" && u.Port == 25
	}
	meets := func(u *Use, id string) bool { return !breaks(u, id) && !(id == "host" && u.Host == "") }
	kinds := []Kind{}
	for i := range a.Uses {
		if k := a.Uses[i].kind(); !slices.Contains(kinds, k) {
			kinds = append(kinds, k)
		}
	}
	slices.SortFunc(kinds, func(a, b Kind) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
	for _, rule := range p.Requirements() {
		id := rule.ID
		for _, k := range kinds {
			trial := func(u *Use, day Day) bool {
				if k.Collector || k.Class != fixes.AppleMail && k.Class != fixes.Apple && k.Class != fixes.Unknown || sessionsOn(u, day) > 2 {
					return false
				}
				tried, right := map[string]bool{}, false
				for i := range a.Uses {
					if o := &a.Uses[i]; o.kind() == k && o.Network == u.Network && sessionsOn(o, day) > 0 {
						tried[fmt.Sprint(o.Port, o.Entry, o.TLS, o.Mechanism, o.UserForm, o.Host, o.SNI)] = true
						right = right || meets(o, id)
					}
				}
				return right && len(tried) >= 3
			}
			same := func(a, b *Use) bool {
				x, y := a.Shape, b.Shape
				x.Network, y.Network, x.Program, y.Program, x.Listener, y.Listener, x.CipherClass, y.CipherClass = "", "", "", "", "", "", "", ""
				return x == y
			}
			probe := func(u *Use, day Day) bool {
				if !trial(u, day) {
					return false
				}
				n := 0
				for d := ago(100); d <= until; d++ {
					for i := range a.Uses {
						if o := &a.Uses[i]; o.kind() == k && breaks(o, id) && same(o, u) && sessionsOn(o, d) > 0 && trial(o, d) {
							n++
							break
						}
					}
				}
				return n < 3
			}
			var first, last, since Day
			days, sessions := 0, 0
			for d := ago(100); d <= until; d++ {
				n, met := 0, false
				for i := range a.Uses {
					u := &a.Uses[i]
					if u.kind() != k || sessionsOn(u, d) == 0 {
						continue
					}
					if breaks(u, id) && !probe(u, d) {
						n += sessionsOn(u, d)
					}
					met = met || meets(u, id)
				}
				switch {
				case n > 0:
					if days == 0 {
						first = d
					}
					last, since = d, 0
					days, sessions = days+1, sessions+n
				case met && days > 0:
					since = d
				}
			}
			if days == 0 {
				continue
			}
			state := Silent
			if until-last < 14 {
				state = Open
			} else if since > 0 {
				state = Fixed
			}
			lines = append(lines, fmt.Sprint(id, k, state, first, last, since, days, sessions))
		}
	}
	slices.Sort(lines)
	return lines
}

func TestFindingsModel(t *testing.T) {
	p := testPolicy(t)
	rapid.Check(t, func(t *rapid.T) {
		a := drawAccount(t, "anna@a.example", 8)
		until := ago(rapid.IntRange(0, 30).Draw(t, "until"))
		var got []string
		for _, f := range Findings(p, a, until.Start(berlin).Add(13*time.Hour), berlin) {
			got = append(got, fmt.Sprint(f.Rule.ID, f.Kind, f.State, f.First, f.Last, f.Since, f.Days, f.Sessions))
		}
		slices.Sort(got)
		if want := model(p, a, until); !slices.Equal(got, want) {
			t.Fatalf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	})
}

// TestTrail holds the state of each day against what was found on that day, but for
// trials, which are known by what comes later too.
func TestTrail(t *testing.T) {
	p := testPolicy(t)
	rapid.Check(t, func(t *rapid.T) {
		a := drawAccount(t, "anna@a.example", 8)
		for i := range a.Uses {
			if c := a.Uses[i].Class; c == fixes.AppleMail || c == fixes.Apple || c == fixes.Unknown {
				a.Uses[i].Class = fixes.IOSMail
			}
		}
		x := examine(p, a, now, berlin)
		for back := range 100 {
			was := map[string]State{}
			for _, f := range Findings(p, a, ago(back).Start(berlin).Add(time.Hour), berlin) {
				was[fmt.Sprint(f.Rule.ID, f.Kind)] = f.State
			}
			for i := range x.trails {
				tr := &x.trails[i]
				if got, want := tr.on(ago(back)), was[fmt.Sprint(tr.Rule.ID, tr.Kind)]; got != want {
					t.Fatalf("%s, %v, %d days ago: %q, want %q", tr.Rule.ID, tr.Kind, back, got, want)
				}
			}
		}
	})
}

func TestDays(t *testing.T) {
	for _, c := range []struct {
		at   string
		zone *time.Location
		want string
	}{
		{"2026-11-21T23:30:00Z", berlin, "2026-11-22"},
		{"2026-11-21T22:30:00Z", berlin, "2026-11-21"},
		{"2026-07-01T22:00:00Z", berlin, "2026-07-02"},
		{"2026-07-01T21:59:59Z", berlin, "2026-07-01"},
		{"2026-11-21T23:30:00Z", time.UTC, "2026-11-21"},
	} {
		at, err := time.Parse(time.RFC3339, c.at)
		if err != nil {
			t.Fatal(err)
		}
		d := DayOf(at, c.zone)
		if d.String() != c.want {
			t.Errorf("%s in %v: %v, want %s", c.at, c.zone, d, c.want)
		}
		if start := d.Start(c.zone); DayOf(start, c.zone) != d || DayOf(start.Add(-time.Second), c.zone) != d-1 {
			t.Errorf("%v begins at %v", d, start)
		}
	}
}

// sessionsOn is how many there were on a day.
func sessionsOn(u *Use, day Day) int {
	for _, d := range u.Days {
		if d.Day == day {
			return d.Sessions
		}
	}
	return 0
}
