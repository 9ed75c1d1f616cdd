package outreach

import (
	"fmt"
	"iter"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"mailreeve/policy"
)

// weekdaysOffice is one of Monday to Friday, nine to four.
var weekdaysOffice = Office{Zone: berlin, Begin: 9 * time.Hour, Until: 16 * time.Hour, Days: [7]bool{1: true, 2: true, 3: true, 4: true, 5: true}}

func testSchedule() *Schedule {
	return &Schedule{Campaign: "tls-2027", Office: weekdaysOffice, Steps: []int{-112, -84, -56, -28, -14, -7, -2, 0, 3}, Gap: 6 * 24 * time.Hour, Most: 9, PerDay: 500}
}

// denied is a policy that makes plaintext known from one instant on, and refuses it from another.
func denied(t failer, known, refused time.Time, exceptions ...policy.Exception) *policy.Policy {
	t.Helper()
	stages := []policy.Stage{{From: known, Do: policy.Notify}}
	if !refused.IsZero() {
		stages = append(stages, policy.Stage{From: refused, Do: policy.Deny})
	}
	p, err := policy.New("test", []policy.Requirement{{ID: "encrypted", Finding: policy.Plaintext,
		Require: policy.Matcher{{Fact: policy.TLS, Not: true, Values: []string{policy.None}}}, Stages: stages}}, exceptions...)
	noErr(t, err)
	return p
}

// seenAs is an account with one use, on some days.
func seenAs(name string, s Shape, days ...Day) *Account {
	u := Use{Shape: s}
	for _, d := range days {
		u.Days = append(u.Days, DayCount{d, 3})
	}
	return &Account{Name: name, Uses: []Use{u}}
}

// noonOf is an hour on a day at which the office is open, if it opens.
func noonOf(d Day) time.Time { return d.Start(berlin).Add(12 * time.Hour) }

func TestReasons(t *testing.T) {
	refused := dayOf("2027-03-18").Start(berlin) // a Thursday
	p := denied(t, dayOf("2026-10-01").Start(berlin), refused)
	at := dayOf("2027-03-04") // T-14
	account := func(change ...func(*Account)) *Account {
		a := seenAs("kunde@example.de", good(inClear), dayOf("2027-02-10"), at-1)
		for _, c := range change {
			c(a)
		}
		return a
	}
	exempt := denied(t, dayOf("2026-10-01").Start(berlin), refused, policy.Exception{ID: "e", For: []string{"encrypted"}, Cap: policy.Pass,
		Match: policy.Matcher{{Fact: policy.Account, Values: []string{"kunde@example.de"}}}, Until: (at + 5).Start(berlin), Reason: "r", Owner: "o"})
	sent := func(step int, day Day, state NoticeState) Past {
		return Past{0, step, dayOf("2027-03-18"), day, state, time.Time{}}
	}
	window := func(n int) Day {
		return testSchedule().on(testSchedule().Steps, n, dayOf("2027-03-18"), "kunde@example.de")
	}
	for name, test := range map[string]struct {
		p    *policy.Policy
		a    *Account
		past []Past
		now  Day
		want Reason
		step int
		on   Day
	}{
		"clean":               {p, seenAs("kunde@example.de", good(), at-1), nil, at, ReasonNothing, 0, 0},
		"due":                 {p, account(), nil, window(4), ReasonDue, -14, window(4)},
		"still due":           {p, account(), nil, window(4) + 1, ReasonDue, -14, window(4)},
		"its day of the week": {p, account(), nil, window(3) - 1, ReasonSpread, -28, window(3)},
		"told":                {p, account(), []Past{sent(-14, window(4), StateSent)}, window(4), ReasonTold, -14, dayOf("2027-03-11")},
		"bounced step":        {p, account(), []Past{sent(-14, window(4), StateBounced)}, window(4), ReasonTold, -14, dayOf("2027-03-11")},
		"being handed over":   {p, account(), []Past{sent(-14, window(4), StateHanding)}, window(4), ReasonTold, -14, dayOf("2027-03-11")},
		"in doubt":            {p, account(), []Past{sent(-14, window(4), StateDoubt)}, window(4), ReasonDoubt, -14, dayOf("2027-03-11")},
		"refused by server":   {p, account(), []Past{sent(-14, window(4), StateFailed)}, window(4), ReasonFailed, -14, dayOf("2027-03-11")},
		"skipped before":      {p, account(), []Past{sent(-14, window(4), StateSkipped)}, window(4), ReasonDue, -14, window(4)},
		"claimed":             {p, account(), []Past{{0, -14, 0, window(4), StateClaimed, noonOf(window(4)).Add(time.Minute)}}, window(4), ReasonClaimed, -14, window(4)},
		"claimed by the dead": {p, account(), []Past{{0, -14, 0, window(4), StateClaimed, noonOf(window(4)).Add(-time.Minute)}}, window(4), ReasonDue, -14, window(4)},
		"gap":                 {p, account(), []Past{sent(-28, window(4)-5, StateSent)}, window(4), ReasonGap, -14, window(4) + 1},
		"gap is over":         {p, account(), []Past{sent(-28, window(4)-6, StateSent)}, window(4), ReasonDue, -14, window(4)},
		"a failure is no gap": {p, account(), []Past{sent(-28, window(4)-1, StateFailed)}, window(4), ReasonDue, -14, window(4)},
		"no gap near the day": {p, account(), []Past{sent(-7, dayOf("2027-03-15"), StateSent)}, dayOf("2027-03-16"), ReasonDue, -2, dayOf("2027-03-16")},
		"the day":             {p, account(), nil, dayOf("2027-03-18"), ReasonDue, 0, dayOf("2027-03-18")},
		"after":               {p, account(), nil, dayOf("2027-03-22"), ReasonDue, 3, dayOf("2027-03-22")}, // T+3 is a Sunday, so Monday
		"after, at weekend":   {p, account(), nil, dayOf("2027-03-21"), ReasonDue, 3, dayOf("2027-03-22")}, // nobody sends on a Sunday
		"a week after":        {p, account(), nil, dayOf("2027-03-28"), ReasonDue, 3, dayOf("2027-03-22")},
		"long after":          {p, account(), nil, dayOf("2027-03-29"), ReasonLapsed, 3, 0},         // though it is open: it was seen on the 3rd, and is silent now
		"most":                {p, account(), nineNotices(), dayOf("2027-03-22"), ReasonMost, 3, 0}, // though the step is new
		"early":               {p, seenAs("kunde@example.de", good(inClear), dayOf("2026-10-05")), nil, dayOf("2026-10-06"), ReasonEarly, -112, window(0)},
		"only observed":       {p, seenAs("kunde@example.de", good(inClear), dayOf("2026-09-05")), nil, dayOf("2026-09-06"), ReasonQuiet, 0, dayOf("2026-10-01")},
		"exempt":              {exempt, account(), nil, at, ReasonExempt, 0, 0},
		"exempt no more":      {exempt, account(), nil, window(5), ReasonDue, -7, dayOf("2027-03-11")},
		"bounced":             {p, account(func(a *Account) { a.Bounced = at - 3 }), nil, at, ReasonBounced, 0, 0},
		"call":                {p, account(func(a *Account) { a.Call = at - 3; a.Bounced = at - 4 }), nil, at, ReasonCall, 0, 0},
		"no address":          {p, account(func(a *Account) { a.Name = "kunde" }), nil, at, ReasonNoAddress, 0, 0},
		"an odd address":      {p, account(func(a *Account) { a.Name = "kün de@example.de" }), nil, at, ReasonNoAddress, 0, 0},
		"fixed":               {p, mended(at), nil, at, ReasonFixed, 0, 0},
		"obeyed":              {p, account(obeyed(at, at+2)), nil, at + 3, ReasonWatched, 0, at - 1 + FixedAfter},
		"obeyed on the same":  {p, account(obeyed(at - 1)), nil, window(4), ReasonDue, -14, window(4)}, // day as it did not
	} {
		i, findings := testSchedule().Look(test.p, test.a, test.past, noonOf(test.now))
		if i.Reason != test.want && !(test.want == ReasonDue && i.Reason == ReasonSpread && i.On > test.now) {
			t.Errorf("%s: %s (%s), want %s", name, i.Reason, i.Sentence, test.want)
		}
		if i.Step != test.step || i.On != test.on {
			t.Errorf("%s: %s on %v, want %s on %v: %s", name, StepName(i.Step), i.On, StepName(test.step), test.on, i.Sentence)
		}
		if i.Sentence == "" || strings.Contains(i.Sentence, "%!") {
			t.Errorf("%s: %q", name, i.Sentence)
		}
		if i.Reason == ReasonDue && (len(findings) == 0 || i.Brand != "alpha" || !i.T.Equal(refused)) {
			t.Errorf("%s: %d findings, %+v", name, len(findings), i)
		}
	}
}

func nineNotices() (past []Past) {
	for n, step := range testSchedule().Steps[:8] {
		past = append(past, Past{0, step, dayOf("2027-03-18"), dayOf("2026-11-26") + Day(7*n), StateSent, time.Time{}})
	}
	return append(past, Past{0, Undated, 0, dayOf("2026-10-02"), StateSent, time.Time{}})
}

// obeyed is a change of an account: it logs in as it should on some days.
func obeyed(days ...Day) func(*Account) {
	return func(a *Account) { a.Uses = append(a.Uses, seenAs(a.Name, good(), days...).Uses...) }
}

// mended is an account that logs in as it should, for more than two weeks.
func mended(at Day) *Account {
	a := seenAs("kunde@example.de", good(inClear), at-20)
	a.Uses = append(a.Uses, Use{Shape: good(), Days: []DayCount{{at - 1, 1}}})
	return a
}

// Steps before T fall on office days, those of two accounts on different ones, and none is lost.
func TestSteps(t *testing.T) {
	s := testSchedule()
	for d := dayOf("2027-01-01"); d < dayOf("2027-01-15"); d++ {
		spread := map[int]map[Day]int{}
		for n := range 1000 {
			account := fmt.Sprintf("kunde%d@example.de", n)
			last := Day(0)
			for i, step := range s.Steps {
				on := s.on(s.Steps, i, d, account)
				if spread[step] == nil {
					spread[step] = map[Day]int{}
				}
				spread[step][on]++
				raw := d + Day(step)
				switch {
				case !s.Office.On(on):
					t.Fatalf("T %s: %s is on %s, a %s", d, StepName(step), on, on.Weekday())
				case on <= last:
					t.Fatalf("T %s: %s is on %s, not after the one before", d, StepName(step), on)
				case step < -7 && (on < raw || on >= raw+7), step >= -7 && step < 0 && (on > raw || on < raw-2), step >= 0 && (on < raw || on > raw+2):
					t.Fatalf("T %s: %s is on %s", d, StepName(step), on)
				}
				last = on
			}
		}
		for _, step := range s.Steps {
			if step >= -7 {
				if len(spread[step]) != 1 {
					t.Errorf("%s is spread: %v", StepName(step), spread[step])
				}
				continue
			}
			for day, n := range spread[step] {
				if n < 150 || n > 330 { // of 1000 on five days, or on four or three before T-7 where that is moved
					t.Errorf("%s: %d accounts on %s", StepName(step), n, day)
				}
			}
		}
	}
}

// An account that is not refused on any day is told three times.
func TestUndated(t *testing.T) {
	s, began := testSchedule(), dayOf("2026-10-01")
	p := denied(t, began.Start(berlin), time.Time{})
	a := seenAs("kunde@example.de", good(inClear), began-5)
	for d := began; d < began+200; d++ {
		a.Uses[0].Days = append(a.Uses[0].Days, DayCount{d, 1})
	}
	var past []Past
	for d := began; d < began+200; d++ {
		if i, _ := s.Look(p, a, past, noonOf(d)); i.Reason == ReasonDue {
			if !i.T.IsZero() {
				t.Errorf("T is %v", i.T)
			}
			past = append(past, Past{i.Series, i.Step, 0, d, StateSent, time.Time{}})
		}
	}
	var steps []string
	for n, past := range past {
		steps = append(steps, StepName(past.Step))
		if n > 0 && past.Day-pastBefore(past, n) < 0 {
			t.Error(past)
		}
	}
	if !slices.Equal(steps, []string{"N", "N+28", "N+56"}) {
		t.Errorf("it was told %v", steps)
	}
}

func pastBefore(p Past, n int) Day { return p.Day - Day(n) }

// With a second date after the first a new series begins, but none because a date is moved
// before it comes.
func TestSeries(t *testing.T) {
	first, second := dayOf("2027-03-18"), dayOf("2027-06-17")
	two := func(first, second Day) *policy.Policy {
		p, err := policy.New("test", []policy.Requirement{
			{ID: "encrypted", Finding: policy.Plaintext, Require: policy.Matcher{{Fact: policy.TLS, Not: true, Values: []string{policy.None}}},
				Stages: []policy.Stage{{From: (first - 120).Start(berlin), Do: policy.Notify}, {From: first.Start(berlin), Do: policy.Deny}}},
			{ID: "password", Finding: policy.Mechanism, Require: policy.Matcher{{Fact: policy.Mech, Values: []string{"PLAIN"}}},
				Stages: []policy.Stage{{From: (first - 120).Start(berlin), Do: policy.Notify}, {From: second.Start(berlin), Do: policy.Deny}}},
		})
		noErr(t, err)
		return p
	}
	s := testSchedule()
	s.Most = 50
	p := two(first, second)
	a := seenAs("kunde@example.de", good(inClear, cram), first-121)
	var past []Past
	told := map[string]int{}
	for d := first - 121; d < second+30; d++ {
		if d == first-100 { // the provider needs three days more
			p = two(first+3, second)
		}
		a.Uses[0].Days = append(a.Uses[0].Days, DayCount{d, 1})
		if i, _ := s.Look(p, a, past, noonOf(d)); i.Reason == ReasonDue {
			past = append(past, Past{i.Series, i.Step, DayOf(i.T, berlin), d, StateSent, time.Time{}})
			told[fmt.Sprint(i.Series, StepName(i.Step))]++
			if want := []Day{first + 3, second}[i.Series]; d >= first-100 && DayOf(i.T, berlin) != want {
				t.Errorf("%d %s is for %v, want %s", i.Series, StepName(i.Step), i.T, want)
			}
		}
	}
	for series, steps := range [][]int{s.Steps, {-84, -56, -28, -14, -7, -2, 0, 3}} { // T-112 of the second lies before the first
		for _, step := range steps {
			if n := told[fmt.Sprint(series, StepName(step))]; n != 1 && !(step == -7 && n == 0) { // close to the step before, it may be left out
				t.Errorf("%d %s was sent %d times", series, StepName(step), n)
			}
		}
	}
}

// Whatever happens in which order, an account is told each step once, with the gap, no more than the
// most, and only while something is open; who is not told is given a reason.
func TestLookProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := testSchedule()
		s.Most = rapid.IntRange(1, 12).Draw(t, "most")
		refused := dayOf("2027-03-15") + Day(rapid.IntRange(0, 10).Draw(t, "T"))
		p := denied(t, (refused - 130).Start(berlin), refused.Start(berlin).Add(time.Duration(rapid.IntRange(0, 23).Draw(t, "hour"))*time.Hour))
		a := &Account{Name: fmt.Sprintf("k%d@example.de", rapid.IntRange(0, 1000).Draw(t, "account")), Uses: []Use{{Shape: good(inClear)}, {Shape: good()}}}
		begin := refused - Day(rapid.IntRange(0, 140).Draw(t, "begin"))
		a.Uses[0].Days = []DayCount{{begin - 1, 1}}
		mendedOn := begin + Day(rapid.IntRange(0, 160).Draw(t, "mended"))
		a.Uses[1].Days = []DayCount{{begin - 2, 1}}
		var past []Past
		had := map[Key]bool{}
		last := Day(0)
		for d := begin; d < refused+20; d++ {
			use := &a.Uses[0]
			if d >= mendedOn {
				use = &a.Uses[1]
			}
			use.Days = append(use.Days, DayCount{d, 1})
			i, findings := s.Look(p, a, past, noonOf(d))
			if again, _ := s.Look(p, a, past, noonOf(d)); again != i {
				t.Fatalf("%s: %+v, and asked again %+v", d, i, again)
			}
			if !slices.Contains(Reasons, i.Reason) || i.Sentence == "" {
				t.Fatalf("%s: %+v", d, i)
			}
			if i.Reason != ReasonDue {
				continue
			}
			switch {
			case had[i.Key]:
				t.Fatalf("%s: %v is due once more", d, i.Key)
			case len(past) >= s.Most:
				t.Fatalf("%s: more than %d", d, s.Most)
			case i.Step <= -7 && last != 0 && d-last < 6:
				t.Fatalf("%s: the last one was sent on %s", d, last)
			case d < i.On:
				t.Fatalf("%s: it is due on %s", d, i.On)
			case !slices.ContainsFunc(findings, func(f Finding) bool { return f.Noticed() }):
				t.Fatalf("%s: there is nothing to tell", d)
			}
			if rapid.IntRange(0, 3).Draw(t, "room") == 0 || !s.Office.On(d) {
				continue // no budget
			}
			state := rapid.SampledFrom([]NoticeState{StateSent, StateDoubt, StateSent}).Draw(t, "state")
			had[i.Key], last = true, d
			past = append(past, Past{i.Series, i.Step, DayOf(i.T, berlin), d, state, time.Time{}})
		}
	})
}

func TestMake(t *testing.T) {
	refused := dayOf("2027-03-18")
	p := denied(t, dayOf("2026-10-01").Start(berlin), refused.Start(berlin))
	today := dayOf("2027-03-15") // Monday of the week; T-7 is due
	var accounts []*Account
	for n := range 1000 {
		accounts = append(accounts, seenAs(fmt.Sprintf("k%04d@example.de", n), good(inClear), today-1))
	}
	for n := range 50 {
		accounts = append(accounts, seenAs(fmt.Sprintf("z%04d@example.de", n), good(), today-1))
	}
	told := map[string][]Past{accounts[0].Name: {{0, -7, refused, today, StateSent, time.Time{}}}}
	s := testSchedule()
	s.PerDay = 300
	plan, err := s.Make(p, all(accounts), func(a string) []Past { return told[a] }, 100, noonOf(today))
	noErr(t, err)
	if plan.Accounts != 1050 || plan.Reasons[ReasonDue] != 100 || plan.Reasons[ReasonBudget] != 899 || plan.Reasons[ReasonTold] != 1 || plan.Reasons[ReasonNothing] != 50 {
		t.Errorf("%+v", plan.Reasons)
	}
	if plan.Steps["T-7"] != 100 || len(plan.Items) != 1000 {
		t.Errorf("%v, %d items", plan.Steps, len(plan.Items))
	}
	// 100 on Monday, 300 each on Tuesday, Wednesday and Thursday, which is the day.
	if want := (Backlog{refused, 1000, 999, refused, 299, 0}); len(plan.Dates) != 1 || plan.Dates[0] != want {
		t.Errorf("%+v, want %+v", plan.Dates, want)
	}
	for n, i := range plan.Items {
		if want := n < 100; want != (i.Reason == ReasonDue) {
			t.Fatalf("item %d is %s", n, i.Reason)
		}
	}
	if slices.IsSortedFunc(plan.Items[:999], func(a, b Item) int { return strings.Compare(a.Account, b.Account) }) {
		t.Error("accounts are told by the alphabet")
	}
	broken := func(yield func(*Account, error) bool) { yield(nil, fmt.Errorf("no ledger")) }
	if _, err := s.Make(p, broken, func(string) []Past { return nil }, 1, noonOf(today)); err == nil {
		t.Error("an error of the ledger is no error")
	}
}

func all(accounts []*Account) iter.Seq2[*Account, error] {
	return func(yield func(*Account, error) bool) {
		for _, a := range accounts {
			if !yield(a, nil) {
				return
			}
		}
	}
}

// The hours of the office are those on the wall, on the days too that have 23 and 25 hours.
func TestOfficeHours(t *testing.T) {
	wall := func(text string) time.Time {
		at, err := time.Parse(time.RFC3339, text)
		noErr(t, err)
		return at
	}
	everyDay := weekdaysOffice
	everyDay.Days = [7]bool{true, true, true, true, true, true, true}
	night := everyDay
	night.Begin, night.Until = 2*time.Hour+30*time.Minute, 4*time.Hour
	for _, test := range []struct {
		office Office
		now    string
		open   bool
		opens  string
	}{
		{weekdaysOffice, "2026-11-23T08:59:59+01:00", false, "2026-11-23T09:00:00+01:00"},
		{weekdaysOffice, "2026-11-23T09:00:00+01:00", true, "2026-11-23T09:00:00+01:00"},
		{weekdaysOffice, "2026-11-23T15:59:59+01:00", true, "2026-11-23T15:59:59+01:00"},
		{weekdaysOffice, "2026-11-23T16:00:00+01:00", false, "2026-11-24T09:00:00+01:00"},
		{weekdaysOffice, "2026-11-27T16:00:00+01:00", false, "2026-11-30T09:00:00+01:00"}, // Friday
		{weekdaysOffice, "2027-03-26T17:00:00+01:00", false, "2027-03-29T09:00:00+02:00"}, // the clock goes forward on Sunday
		{everyDay, "2027-03-28T07:30:00+02:00", false, "2027-03-28T09:00:00+02:00"},
		{everyDay, "2027-10-31T08:30:00+01:00", false, "2027-10-31T09:00:00+01:00"}, // and back
		{everyDay, "2027-10-30T22:00:00+02:00", false, "2027-10-31T09:00:00+01:00"},
		{night, "2027-03-28T00:00:00+01:00", false, "2027-03-28T03:00:00+02:00"}, // there is no half past two
		{night, "2027-10-31T02:40:00+02:00", true, "2027-10-31T02:40:00+02:00"},  // there are two
		{night, "2027-10-31T02:40:00+01:00", true, "2027-10-31T02:40:00+01:00"},
		{Office{Zone: berlin, Begin: 9 * time.Hour, Until: 10 * time.Hour}, "2026-11-23T08:59:59+01:00", false, "0001-01-01T00:00:00Z"},
	} {
		now := wall(test.now)
		if open, opens := test.office.Open(now), test.office.Opens(now); open != test.open || !opens.Equal(wall(test.opens)) {
			t.Errorf("%s: open %v, opens %v; want %v, %s", test.now, open, opens, test.open, test.opens)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		o := Office{Zone: berlin, Begin: time.Duration(rapid.IntRange(0, 1438).Draw(t, "begin")) * time.Minute}
		o.Until = o.Begin + time.Duration(rapid.IntRange(1, 1439-int(o.Begin/time.Minute)).Draw(t, "length"))*time.Minute
		for d := range o.Days {
			o.Days[d] = rapid.Bool().Draw(t, "day")
		}
		o.Days[rapid.IntRange(0, 6).Draw(t, "one day")] = true
		now := wall2027.Add(time.Duration(rapid.Int64Range(0, 366*86400).Draw(t, "now")) * time.Second)
		opens := o.Opens(now)
		if opens.IsZero() { // only where its hours do not exist on the one day that it has: in the night of March
			if o.Open(now) || o.Begin < 2*time.Hour || o.Until > 3*time.Hour {
				t.Fatalf("it never opens after %v", now)
			}
			return
		}
		if opens.Before(now) || !o.Open(opens) || o.Open(now) != opens.Equal(now) || opens.Sub(now) > 8*24*time.Hour {
			t.Fatalf("after %v it opens at %v", now, opens)
		}
	})
}

var wall2027 = time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)

// Who obeys is told no more, until something wrong is seen anew; what else is wrong is told as if
// that were all.
func TestWhoObeysIsNotToldAgain(t *testing.T) {
	refused, at := dayOf("2027-03-18"), dayOf("2027-03-18")
	p := denied(t, dayOf("2026-10-01").Start(berlin), refused.Start(berlin))
	s := testSchedule()
	a := seenAs("kunde@example.de", good(inClear), at-5)
	obeyed(at-3, at-1)(a)
	i, _ := s.Look(p, a, nil, noonOf(at))
	if i.Reason != ReasonWatched || i.Letter || i.Sentence != "it has been right since 2027-03-15; it is watched until 2027-03-27" {
		t.Errorf("%+v", i)
	}
	plan, err := s.Make(p, all([]*Account{a}), func(string) []Past { return nil }, 100, noonOf(at))
	noErr(t, err)
	if plan.Reasons[ReasonWatched] != 1 || len(plan.Dates) != 0 || plan.Letters != 0 {
		t.Errorf("%+v", plan)
	}
	a.Uses[0].Days = append(a.Uses[0].Days, DayCount{at, 1})
	if i, _ := s.Look(p, a, nil, noonOf(at)); i.Reason != ReasonDue {
		t.Errorf("seen anew: %+v", i)
	}
	a.Uses[0].Days = a.Uses[0].Days[:1]
	other := good(inClear)
	other.Protocol = "pop3"
	a.Uses = append(a.Uses, seenAs(a.Name, other, at-2).Uses...)
	if i, _ := s.Look(p, a, nil, noonOf(at)); i.Reason != ReasonDue || i.Letter {
		t.Errorf("with another program: %+v", i)
	}
}

// After the campaign's last day nothing is planned, and nobody is promised anything.
func TestEndOfTheCampaign(t *testing.T) {
	refused := dayOf("2027-03-18")
	p := denied(t, dayOf("2026-10-01").Start(berlin), refused.Start(berlin))
	at := dayOf("2027-03-11") // T-7
	a := seenAs("kunde@example.de", good(inClear), dayOf("2026-10-05"), at-1)
	undated := denied(t, dayOf("2026-10-01").Start(berlin), time.Time{})
	for name, test := range map[string]struct {
		p        *policy.Policy
		past     []Past
		end, now Day
		want     Reason
		on       Day
		sentence string
	}{
		"the last day":           {p, nil, at, at, ReasonDue, at, "T-7 is due since 2027-03-11"},
		"the day after":          {p, nil, at, at + 1, ReasonEnded, 0, "the campaign ended on 2027-03-11"},
		"long after":             {p, nil, at, at + 300, ReasonEnded, 0, "the campaign ended on 2027-03-11"},
		"without a date":         {undated, nil, at, at + 1, ReasonEnded, 0, "the campaign ended on 2027-03-11"},
		"before the first step":  {p, nil, dayOf("2026-10-20"), dayOf("2026-10-06"), ReasonEnded, 0, "its first step, T-112, would be on 20"},
		"nothing after the last": {p, []Past{{0, -7, refused, at, StateSent, time.Time{}}}, at + 1, at, ReasonTold, 0, "T-7 was sent on 2027-03-11, the last one before the campaign ends on 2027-03-12"},
	} {
		s := testSchedule()
		s.End = test.end
		i, _ := s.Look(test.p, a, test.past, noonOf(test.now))
		if i.Reason != test.want || i.On != test.on || !strings.HasPrefix(i.Sentence, test.sentence) {
			t.Errorf("%s: %+v", name, i)
		}
	}
	s := testSchedule()
	s.PerDay, s.End = 1, at+1
	plan, err := s.Make(p, all([]*Account{a, seenAs("k2@example.de", good(inClear), at-1), seenAs("k3@example.de", good(inClear), at-1)}), func(string) []Past { return nil }, 1, noonOf(at))
	noErr(t, err)
	if plan.Reasons[ReasonDue] != 1 || plan.Reasons[ReasonBudget] != 1 || plan.Reasons[ReasonEnded] != 1 || plan.Dates[0] != (Backlog{refused, 3, 3, at + 1, 0, 1}) {
		t.Errorf("%+v, %+v", plan.Reasons, plan.Dates)
	}
}

// Where the office does not open today any more, who is due waits for it, and for the budget only past that of a day.
func TestPlanOfAClosedDay(t *testing.T) {
	refused := dayOf("2027-03-18")
	p := denied(t, dayOf("2026-10-01").Start(berlin), refused.Start(berlin))
	var accounts []*Account
	for n := range 30 {
		accounts = append(accounts, seenAs(fmt.Sprintf("k%d@example.de", n), good(inClear), dayOf("2027-03-10")))
	}
	s := testSchedule()
	s.PerDay = 20
	for _, test := range []struct {
		now                 time.Time
		due, closed, budget int
	}{
		{dayOf("2027-03-12").Start(berlin).Add(8 * time.Hour), 20, 0, 10}, // Friday before nine
		{dayOf("2027-03-12").Start(berlin).Add(17 * time.Hour), 0, 20, 10},
		{noonOf(dayOf("2027-03-14")), 0, 20, 10},
	} {
		plan, err := s.Make(p, all(accounts), func(string) []Past { return nil }, 20, test.now)
		noErr(t, err)
		if plan.Open != (test.due > 0) || plan.Reasons[ReasonDue] != test.due || plan.Reasons[ReasonClosed] != test.closed || plan.Reasons[ReasonBudget] != test.budget {
			t.Errorf("%v: open %v, %+v", test.now, plan.Open, plan.Reasons)
		}
		for _, i := range plan.Items {
			if i.Reason == ReasonClosed && i.On != dayOf("2027-03-15") {
				t.Errorf("%v: %+v", test.now, i)
			}
		}
	}
}
