package outreach

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"mailreeve/events"
	"mailreeve/policy"
)

// guarded is a policy whose first requirement begins to refuse in ten days.
func guarded(t testing.TB, guard *policy.Guard, exceptions ...policy.Exception) *policy.Policy {
	t.Helper()
	tls := policy.Matcher{{Fact: policy.TLS, Not: true, Values: []string{policy.None}}}
	p, err := policy.New("guarded", []policy.Requirement{
		{ID: "encrypted", Finding: policy.Plaintext, Require: tls, Stages: []policy.Stage{{From: in(-60), Do: policy.Notify},
			{From: in(5), Do: policy.Notify, Brownout: &policy.Brownout{Do: policy.TempFail, Days: [7]bool{true, true, true, true, true, true, true}, For: time.Hour}},
			{From: in(10), Do: policy.Deny, Guard: guard}, {From: in(20), Do: policy.Refuse}}},
		{ID: "half", Finding: policy.Mechanism, Require: policy.Matcher{{Fact: policy.Mech, Values: []string{"PLAIN"}}}, Stages: []policy.Stage{{From: in(-60), Do: policy.Notify},
			{From: in(10), Do: policy.Deny, Share: 50_000}, {From: in(20), Do: policy.Deny}}},
		{ID: "later", Finding: policy.LegacyHostname, Require: policy.Matcher{{Fact: policy.Host, Values: []string{policy.Canonical}}}, Stages: []policy.Stage{{From: in(2), Do: policy.Warn}}},
		{ID: "told", Finding: policy.LegacyHostname, Require: policy.Matcher{{Fact: policy.Host, Values: []string{policy.Canonical}}}, Stages: []policy.Stage{
			{From: in(3), Do: policy.Warn, Guard: &policy.Guard{Open: 1000, Do: policy.Notify}}}},
	}, exceptions...)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestForecasts(t *testing.T) {
	p := guarded(t, &policy.Guard{Open: 2000, Do: policy.Notify},
		policy.Exception{ID: "x", For: []string{"encrypted"}, Match: policy.Matcher{{Fact: policy.Account, Values: []string{"soon@a.example"}}}, Cap: policy.Notify, Until: in(10)},
		policy.Exception{ID: "y", For: []string{"encrypted"}, Match: policy.Matcher{{Fact: policy.Account, Values: []string{"long@a.example"}}}, Cap: policy.Notify, Until: in(15)})
	var inside, outside []string // of the share
	for i := 0; len(inside) < 3 || len(outside) < 2; i++ {
		if name := fmt.Sprintf("a%d@a.example", i); policy.Bucket("half", name) < 50_000 {
			inside = append(inside, name)
		} else {
			outside = append(outside, name)
		}
	}
	accounts := []*Account{
		account("well@a.example", use(good(), 0)),
		account("open@a.example", use(good(inClear), 1)),
		account("silent@a.example", use(good(inClear), 29), use(good(outlook), 1)),
		account("mended@a.example", use(good(inClear), 20), use(good(), 1)),
		account("gone@a.example", use(good(inClear), 30)), // not seen in 30 days
		account("soon@a.example", use(good(inClear), 1)),  // its exception ends as the stage begins
		account("long@a.example", use(good(inClear), 1)),  // five days later
	}
	for _, name := range append(inside[:3:3], outside[:2]...) {
		accounts = append(accounts, account(name, use(good(cram), 1)))
	}
	got, err := Forecasts(ledgerOf(accounts...), p, now, berlin)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, f := range got {
		lines = append(lines, fmt.Sprintf("%s %v in %d: %d seen, %d open, %d newly", f.Requirement, f.Do, DayOf(f.At, berlin)-today, f.Seen, f.Open, f.Newly))
		if !f.Made.Equal(now) {
			t.Errorf("made %v", f.Made)
		}
	}
	want := []string{
		"told warn in 3: 11 seen, 0 open, 0 newly",
		"encrypted tempfail in 5: 11 seen, 2 open, 2 newly",
		"encrypted deny in 10: 11 seen, 3 open, 3 newly",
		"half deny in 10: 11 seen, 5 open, 3 newly",
		"encrypted refuse in 20: 11 seen, 4 open, 0 newly", // the exceptions have ended before
		"half deny in 20: 11 seen, 5 open, 2 newly",
	}
	if !slices.Equal(lines, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(lines, "\n"), strings.Join(want, "\n"))
	}
	if share := got[1].OpenShare(); share.String() != "18.181%" {
		t.Errorf("the share is %v", share)
	}
	if share := (&Forecast{}).OpenShare(); share != policy.Everybody {
		t.Errorf("of nobody, %v have an open finding", share)
	}
	// a transition of the last day is still looked at
	if late, err := Forecasts(ledgerOf(accounts...), p, in(10).Add(23*time.Hour), berlin); err != nil || len(late) != 4 || late[0].Requirement != "encrypted" {
		t.Errorf("a day later: %+v, %v", late, err)
	}
	if _, err := Forecasts(tornLedger(accounts...), p, now, berlin); err != errTorn {
		t.Errorf("of a ledger that cannot be read: %v", err)
	}
}

// session is one that met something at an instant.
func session(at time.Time, do policy.Action, who string, by ...string) *events.Session {
	e := &events.Session{Time: at.Add(-time.Second), Decided: at, Action: do.String(), By: by, IP: netip.MustParseAddr("192.0.2.1")}
	if ip, err := netip.ParseAddr(who); err == nil {
		e.IP = ip
	} else {
		e.Account, e.Verified = who, true
	}
	return e
}

func address(n int) string {
	return netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)}).String()
}

// sole is the alarm of a tick that has one.
func sole(t *testing.T, alarms []Alarm) Alarm {
	t.Helper()
	if len(alarms) != 1 {
		t.Fatalf("%d alarms: %+v", len(alarms), alarms)
	}
	return alarms[0]
}

func quiet(t *testing.T, alarms []Alarm) {
	t.Helper()
	if len(alarms) != 0 {
		t.Fatalf("there are alarms: %+v", alarms)
	}
}

func TestGuardWhenAStageBegins(t *testing.T) {
	p := guarded(t, &policy.Guard{Open: 2000, Do: policy.Notify})
	forecast := func(open, seen int) []Forecast {
		return []Forecast{{Requirement: "encrypted", At: in(10), Do: policy.Deny, Seen: seen, Open: open, Newly: open, Made: in(9)}}
	}
	begin := in(10).Add(-time.Minute)
	const who = "encrypted (deny from 2026-12-02 00:00 CET on): "
	for _, c := range []struct {
		name     string
		forecast []Forecast
		reason   string
	}{
		{"as many as allowed", forecast(20, 1000), ""},
		{"one more", forecast(21, 1000), who + "21 of 1000 accounts seen in 30 days have an open finding, which is 2.1%; the guard allows 2%"},
		{"by less than is written", forecast(200_001, 10_000_000), who + "200001 of 10000000 accounts seen in 30 days have an open finding, which is 2%; the guard allows 2%"},
		{"no numbers", nil, who + "the ledger has no numbers, so it is not known whether more than 2% of the accounts have an open finding"},
		{"nobody seen", forecast(0, 0), who + "the ledger has no numbers, so it is not known whether more than 2% of the accounts have an open finding"},
		{"old numbers", []Forecast{{Requirement: "encrypted", At: in(10), Seen: 1000, Made: in(7)}},
			who + "the numbers of the ledger are of 2026-11-29 00:00 CET, so it is not known whether more than 2% of the accounts have an open finding"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := NewWatch(p, nil, in(8))
			quiet(t, w.Tick(in(8)))
			w.Foresee(c.forecast)
			quiet(t, w.Tick(begin.Add(-time.Second)))
			if c.reason == "" {
				quiet(t, w.Tick(begin))
				return
			}
			a := sole(t, w.Tick(begin))
			if a.Reason != c.reason || a.Requirement != "encrypted" || !a.At.Equal(in(10)) {
				t.Errorf("got  %s\nwant %s", a.Reason, c.reason)
			}
			if h := a.Hold; h == nil || h.Cap != policy.Notify || h.Reason != a.Reason || h.Owner != "guard" || !h.Since.Equal(begin) || !h.Until.Equal(begin.Add(7*24*time.Hour)) {
				t.Errorf("the hold is %+v", h)
			}
			quiet(t, w.Tick(begin.Add(time.Minute))) // once
			// nor after a restart, if somebody has lifted it meanwhile
			lifted := *a.Hold
			lifted.Until = lifted.Since.Add(time.Hour)
			again := NewWatch(p, &lifted, in(10).Add(2*time.Hour))
			again.Foresee(c.forecast)
			quiet(t, again.Tick(in(10).Add(3*time.Hour)))
		})
	}
	t.Run("started late", func(t *testing.T) {
		w := NewWatch(p, &policy.Hold{Owner: "anna", Reason: "encrypted phones", Since: in(10)}, in(10).Add(time.Hour))
		quiet(t, w.Tick(in(10).Add(time.Hour))) // the ledger is being read
		w.Foresee(forecast(500, 1000))
		if a := sole(t, w.Tick(in(10).Add(time.Hour+time.Minute))); a.Hold == nil {
			t.Error("it is not held")
		}
		blind := NewWatch(p, nil, in(10).Add(time.Hour))
		quiet(t, blind.Tick(in(10).Add(time.Hour+9*time.Minute)))
		if a := sole(t, blind.Tick(in(10).Add(time.Hour+10*time.Minute))); !strings.Contains(a.Reason, "no numbers") {
			t.Error(a.Reason)
		}
		quiet(t, NewWatch(p, nil, in(11)).Tick(in(11).Add(time.Hour))) // a day after
	})
	t.Run("without a guard", func(t *testing.T) {
		w := NewWatch(guarded(t, nil), nil, in(9))
		w.Foresee(forecast(500, 1000))
		quiet(t, w.Tick(in(10)))
	})
}

func TestWatchCounts(t *testing.T) {
	p := guarded(t, &policy.Guard{Open: 50_000, Do: policy.Warn})
	begin := in(10)
	watch := func(newly int) *Watch {
		w := NewWatch(p, nil, in(8))
		w.Foresee([]Forecast{{Requirement: "encrypted", At: begin, Seen: 1000, Open: newly, Newly: newly, Made: in(9)}})
		return w
	}
	t.Run("accounts", func(t *testing.T) {
		w := watch(8) // 8 x 1.25 + 10 = 20
		for i := range 20 {
			w.Heard(session(begin, policy.Deny, fmt.Sprint("a", i), "encrypted", "half"))
			w.Heard(session(begin.Add(time.Hour), policy.Deny, fmt.Sprint("a", i), "encrypted")) // again
		}
		for i := range 100 { // that are none
			w.Heard(session(begin, policy.Deny, fmt.Sprint("b", i), "half"))
			w.Heard(session(begin, policy.Notify, fmt.Sprint("c", i), "encrypted"))
			w.Heard(session(begin.Add(watchedFor), policy.Deny, fmt.Sprint("d", i), "encrypted"))
			w.Heard(&events.Session{Decided: begin, Action: "deny", By: []string{"encrypted"}}) // nobody, from nowhere
			w.Heard(&events.Session{Decided: begin, Action: "strange", By: []string{"encrypted"}, Account: fmt.Sprint("e", i), Verified: true})
		}
		quiet(t, w.Tick(begin.Add(2*time.Hour)))
		w.Heard(session(begin.Add(2*time.Hour), policy.Deny, "one more", "encrypted"))
		a := sole(t, w.Tick(begin.Add(2*time.Hour+20*time.Second)))
		if want := "encrypted (deny from 2026-12-02 00:00 CET on): 21 accounts and 0 networks more than usual in an hour were refused within 2h0m0s; 8 accounts were foreseen"; a.Reason != want {
			t.Errorf("got  %s\nwant %s", a.Reason, want)
		}
		if a.Hold == nil || a.Hold.Cap != policy.Warn {
			t.Errorf("the hold is %+v", a.Hold)
		}
		quiet(t, w.Tick(begin.Add(3*time.Hour)))
	})
	t.Run("accounts refused before", func(t *testing.T) {
		w := watch(0)
		for i := range 15 {
			w.Heard(session(begin.Add(-time.Hour), policy.Deny, fmt.Sprint("a", i), "encrypted", "half"))
			w.Heard(session(begin.Add(time.Hour), policy.Deny, fmt.Sprint("a", i), "encrypted", "half"))
			if i < 10 {
				w.Heard(session(begin.Add(time.Hour), policy.Deny, fmt.Sprint("b", i), "encrypted", "half"))
			}
		}
		quiet(t, w.Tick(begin.Add(time.Hour)))
		w.Heard(session(begin.Add(time.Hour), policy.Deny, "b10", "encrypted"))
		sole(t, w.Tick(begin.Add(time.Hour)))
	})
	t.Run("networks", func(t *testing.T) {
		w := watch(0)
		robots := func(at time.Time, do policy.Action, n int) {
			for i := range n {
				w.Heard(session(at, do, address(i), "encrypted"))
				w.Heard(session(at.Add(time.Minute), do, address(i), "encrypted"))
			}
		}
		for hour := range 24 { // 100 robots, and 140 in every second hour: 120
			robots(begin.Add(time.Duration(hour-24)*time.Hour), policy.Notify, 100+hour%2*40)
		}
		robots(begin.Add(-25*time.Hour), policy.Notify, 5000) // too long ago
		for hour := range 12 {
			robots(begin.Add(time.Duration(hour)*time.Hour), policy.Deny, 130)
		}
		quiet(t, w.Tick(begin.Add(12*time.Hour)))
		robots(begin.Add(12*time.Hour), policy.Deny, 131)
		if a := sole(t, w.Tick(begin.Add(13*time.Hour))); !strings.Contains(a.Reason, " 0 accounts and 11 networks more than usual in an hour ") {
			t.Error(a.Reason)
		}
	})
	t.Run("households", func(t *testing.T) {
		w := watch(0)
		for i := range 300 { // of one
			w.Heard(session(begin, policy.Deny, fmt.Sprintf("2001:db8:0:7%02x::%x", i%256, i), "encrypted"))
			w.Heard(session(begin, policy.Deny, "::ffff:192.0.2.7", "encrypted"))
			w.Heard(session(begin, policy.Deny, "192.0.2.7", "encrypted"))
		}
		quiet(t, w.Tick(begin))
		for i := range 9 {
			w.Heard(session(begin, policy.Deny, fmt.Sprintf("2001:db8:1:%x00::1", i), "encrypted"))
		}
		sole(t, w.Tick(begin))
	})
	t.Run("networks, where the day before is not known", func(t *testing.T) {
		w := NewWatch(p, nil, begin.Add(time.Hour))
		w.Foresee([]Forecast{{Requirement: "encrypted", At: begin, Seen: 1000, Made: begin}})
		for i := range 1000 {
			w.Heard(session(begin.Add(2*time.Hour), policy.Deny, address(i), "encrypted"))
		}
		quiet(t, w.Tick(begin.Add(3*time.Hour)))
	})
	t.Run("an hour of the day before", func(t *testing.T) {
		w := NewWatch(p, nil, begin.Add(-30*time.Minute))
		w.Foresee([]Forecast{{Requirement: "encrypted", At: begin, Seen: 1000, Made: begin}})
		for i := range 50 {
			w.Heard(session(begin.Add(-time.Minute), policy.Notify, address(i), "encrypted"))
		}
		for i := range 60 {
			w.Heard(session(begin, policy.Deny, address(i), "encrypted"))
		}
		quiet(t, w.Tick(begin))
		w.Heard(session(begin, policy.Deny, address(60), "encrypted"))
		sole(t, w.Tick(begin))
	})
	for before, most := range map[time.Duration]int{2 * time.Hour: 160, 0: 5000} { // a stage told of violations for two hours; or for none, so that networks are not counted
		t.Run(fmt.Sprint("told for ", before), func(t *testing.T) {
			stages := []policy.Stage{{From: begin.Add(-before), Do: policy.Notify}, {From: begin, Do: policy.Deny}}
			if before == 0 {
				stages = stages[1:]
			}
			p, err := policy.New("short", []policy.Requirement{{ID: "encrypted", Require: policy.Matcher{{Fact: policy.TLS, Not: true, Values: []string{policy.None}}}, Stages: stages}})
			if err != nil {
				t.Fatal(err)
			}
			w := NewWatch(p, nil, in(8))
			w.Foresee([]Forecast{{Requirement: "encrypted", At: begin, Seen: 1000, Made: in(9)}})
			for i := range 300 {
				w.Heard(session(begin.Add(time.Duration(i/150-2)*time.Hour), policy.Notify, address(i), "encrypted"))
			}
			for i := range most {
				w.Heard(session(begin, policy.Deny, address(i), "encrypted"))
			}
			quiet(t, w.Tick(begin))
			if before > 0 {
				w.Heard(session(begin, policy.Deny, address(most), "encrypted"))
				sole(t, w.Tick(begin))
			}
		})
	}
	t.Run("a stage without a guard", func(t *testing.T) {
		w := NewWatch(guarded(t, nil), nil, in(8))
		w.Foresee([]Forecast{{Requirement: "encrypted", At: begin, Seen: 1000, Made: in(9)}})
		for i := range 11 {
			w.Heard(session(begin, policy.Deny, fmt.Sprint("a", i), "encrypted"))
		}
		if a := sole(t, w.Tick(begin)); a.Hold != nil || !strings.Contains(a.Reason, ": 11 accounts and ") {
			t.Errorf("%+v", a)
		}
	})
	t.Run("a reload", func(t *testing.T) {
		w := watch(0)
		for i := range 6 {
			w.Heard(session(begin, policy.Deny, fmt.Sprint("a", i), "encrypted"))
		}
		w.Use(guarded(t, &policy.Guard{Open: 60_000, Do: policy.Observe}), begin.Add(time.Minute))
		w.Foresee([]Forecast{{Requirement: "encrypted", At: begin, Seen: 1000, Newly: 1000, Made: begin}, {Requirement: "gone", At: begin}})
		quiet(t, w.Tick(begin.Add(time.Minute)))
		for i := range 2000 {
			w.Heard(session(begin, policy.Deny, fmt.Sprint("b", i), "encrypted"))
		}
		if a := sole(t, w.Tick(begin.Add(time.Hour))); a.Hold == nil || a.Hold.Cap != policy.Observe || !strings.Contains(a.Reason, "1000 accounts were foreseen") {
			t.Errorf("%+v", a)
		}
		w.Use(policy.Enforced(), begin.Add(2*time.Hour))
		w.Heard(session(begin.Add(2*time.Hour), policy.Deny, "c", "encrypted"))
		quiet(t, w.Tick(begin.Add(3*time.Hour)))
	})
}

// TestWatchModel counts with names and lists what the watch counts with hashes and hours.
func TestWatchModel(t *testing.T) {
	p := guarded(t, nil)
	begin := in(10)
	rapid.Check(t, func(t *rapid.T) {
		since := begin.Add(time.Duration(rapid.IntRange(-40, 2).Draw(t, "since")) * time.Hour)
		newly := rapid.IntRange(0, 4).Draw(t, "newly")
		w := NewWatch(p, nil, since)
		w.Foresee([]Forecast{{Requirement: "encrypted", At: begin, Seen: 1000, Newly: newly, Made: since}})
		before, after := map[string]bool{}, map[string]bool{}
		hours := map[int]map[string]bool{}
		minute := int(since.Sub(begin).Minutes())
		for range rapid.IntRange(0, 60).Draw(t, "bursts") {
			minute += rapid.IntRange(0, 90).Draw(t, "wait")
			at := begin.Add(time.Duration(minute) * time.Minute)
			do := rapid.SampledFrom([]policy.Action{policy.Notify, policy.Deny}).Draw(t, "do")
			first, n := rapid.IntRange(0, 40).Draw(t, "first"), rapid.IntRange(1, 25).Draw(t, "many")
			verified := rapid.Bool().Draw(t, "verified")
			for i := first; i < first+n; i++ {
				who := address(i)
				if verified {
					who = fmt.Sprint("a", i)
				}
				w.Heard(session(at, do, who, "encrypted"))
				switch {
				case minute < -24*60 || minute >= 24*60:
				case verified && do == policy.Deny && minute < 0:
					before[who] = true
				case verified && do == policy.Deny && !before[who]:
					after[who] = true
				case !verified && (minute < 0 || do == policy.Deny):
					hour := (minute+48*60)/60 - 48
					if hours[hour] == nil {
						hours[hour] = map[string]bool{}
					}
					hours[hour][who] = true
				}
			}
		}
		sum, most := 0, 0
		for hour, networks := range hours {
			if hour < 0 {
				sum += len(networks)
			}
		}
		if heard := min(24, int(begin.Sub(since).Hours())); heard > 0 {
			usual := (sum + heard - 1) / heard
			for _, hour := range slices.Sorted(maps.Keys(hours)) {
				if hour >= 0 {
					most = max(most, len(hours[hour])-usual)
				}
			}
		}
		want := len(after)+most > newly*5/4+10
		alarms := w.Tick(begin.Add(23 * time.Hour))
		if got := slices.ContainsFunc(alarms, func(a Alarm) bool { return a.Requirement == "encrypted" }); got != want {
			t.Fatalf("alarm %v, want %v: %d accounts, %d networks, %d foreseen: %+v", got, want, len(after), most, newly, alarms)
		}
	})
}

// TestWatchIsBounded: whoever sends from everywhere fills no memory.
func TestWatchIsBounded(t *testing.T) {
	w := NewWatch(guarded(t, nil), nil, in(8))
	begin := in(10)
	w.Foresee([]Forecast{{Requirement: "encrypted", At: begin, Seen: 1000, Made: in(9)}})
	for i := range mostWatched + 1000 {
		w.Heard(session(begin.Add(-time.Minute), policy.Notify, address(i), "encrypted"))
		w.Heard(session(begin.Add(-time.Minute), policy.Deny, fmt.Sprint("b", i), "encrypted"))
	}
	for i := range 3000 {
		w.Heard(session(begin, policy.Deny, fmt.Sprint("a", i), "encrypted"))
	}
	for _, x := range w.watched {
		if len(x.networks) > mostWatched || len(x.before) > mostWatched || len(x.accounts) > 1000 {
			t.Errorf("%d networks, %d and %d accounts", len(x.networks), len(x.before), len(x.accounts))
		}
	}
}

// TestWatchTogether is for the race detector.
func TestWatchTogether(t *testing.T) {
	p := guarded(t, nil)
	w := NewWatch(p, nil, in(9))
	var all sync.WaitGroup
	for g := range 4 {
		all.Go(func() {
			for i := range 200 {
				at := in(10).Add(time.Duration(i-100) * time.Minute)
				w.Heard(session(at, policy.Deny, fmt.Sprint(g, i), "encrypted"))
				w.Heard(session(at, policy.Deny, address(i), "encrypted"))
				w.Tick(at)
				if i%50 == 0 {
					w.Use(p, at)
					w.Foresee([]Forecast{{Requirement: "encrypted", At: in(10)}})
				}
			}
		})
	}
	all.Wait()
}

func BenchmarkWatch(b *testing.B) {
	w := NewWatch(guarded(b, nil), nil, in(9))
	e := session(in(10).Add(-time.Minute), policy.Notify, address(1), "encrypted")
	b.ReportAllocs()
	for b.Loop() {
		w.Heard(e)
	}
}
