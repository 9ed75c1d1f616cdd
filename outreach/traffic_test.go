package outreach_test

// The whole chain, from files of events to who is told, against customers of whom all is
// known because they were made up: package traffic counts from its plans, by no code of this one.

import (
	"cmp"
	"flag"
	"fmt"
	"iter"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"mailreeve/config"
	"mailreeve/fixes"
	"mailreeve/outreach"
	"mailreeve/outreach/traffic"
	"mailreeve/policy"
)

// village is a small provider.
func village(t *testing.T, accounts int) (*traffic.World, *policy.Policy) {
	t.Helper()
	w, err := traffic.New(traffic.Plan{Seed: 11, Accounts: accounts, Busy: 0.3})
	if err != nil {
		t.Fatal(err)
	}
	p, err := config.ParsePolicy("traffic.yaml", []byte(w.Policy()))
	if err != nil {
		t.Fatal(err)
	}
	return w, p.Compiled
}

// known are the accounts as the ledger must hold them, in its order.
func known(w *traffic.World, truth *traffic.Truth) []*outreach.Account {
	day := func(t time.Time) outreach.Day {
		if t.IsZero() {
			return 0
		}
		return outreach.DayOf(t, w.Zone)
	}
	var all []*outreach.Account
	for _, a := range truth.Accounts {
		one := &outreach.Account{Name: a.Name, Told: outreach.Told{Day: day(a.Told.Day), Action: a.Told.Do, Rule: a.Told.Rule}}
		for _, u := range a.Uses {
			use := outreach.Use{Shape: outreach.Shape{Brand: u.Brand, Listener: u.Listener, Protocol: u.Protocol, Port: u.Port, Entry: u.Entry, TLS: u.TLS,
				CipherClass: u.CipherClass, Host: u.Host, SNI: u.SNI, Mechanism: u.Mechanism, UserForm: u.UserForm, Class: u.Class, Program: u.Program,
				Network: u.Network}, Collector: u.Collector}
			for _, d := range u.Days {
				use.Days = append(use.Days, outreach.DayCount{Day: day(d.Day), Sessions: d.Sessions})
			}
			one.Uses = append(one.Uses, use)
		}
		slices.SortFunc(one.Uses, func(a, b outreach.Use) int { return cmp.Compare(useText(&a), useText(&b)) })
		all = append(all, one)
	}
	return all
}

// useText is a use without its days.
func useText(u *outreach.Use) string { return fmt.Sprintf("%+v collector %v", u.Shape, u.Collector) }

// accountText is all that is kept of an account.
func accountText(a *outreach.Account) string {
	var uses []string
	for i := range a.Uses {
		uses = append(uses, fmt.Sprintf("\n\t%s %v", useText(&a.Uses[i]), a.Uses[i].Days))
	}
	slices.Sort(uses)
	return fmt.Sprintf("%s told %+v %s", a.Name, a.Told, uses)
}

// found is what a finding says.
type found struct {
	rule           string
	kind           outreach.Kind
	state          outreach.State
	first, last    outreach.Day
	days, sessions int
}

// excused reports whether findings are the true ones but for days that were taken for a series
// of trials. That is a guess, for programs of no name and for Apple's: somebody who sets one
// of two programs anew looks, on that day, like one that tries. Each setting may cost a finding
// two days at most, for on a third they count again; and if these were its last, what follows from that.
// And what one program tries may be just what another is set to.
func excused(got, want []found) bool {
	for _, f := range want {
		if len(got) > 0 && got[0].rule == f.rule && got[0].kind == f.kind {
			g := got[0]
			got = got[1:]
			if g == f {
				continue
			}
			if d := f.days - g.days; d > mostTrials || d < -mostTrials {
				return false
			}
		} else if f.days > mostTrials {
			return false
		}
		if f.kind.Class != fixes.Unknown && f.kind.Class != fixes.AppleMail && f.kind.Class != fixes.Apple {
			return false
		}
	}
	return len(got) == 0
}

// mostTrials are two days of each of two settings.
const mostTrials = 4

// mostExcused is how many accounts in a thousand a guess may be wrong of.
const mostExcused = 3

// sameFindings holds the findings of all accounts against the truth as of an instant.
func sameFindings(t *testing.T, w *traffic.World, p *policy.Policy, accounts iter.Seq2[*outreach.Account, error], now time.Time) {
	t.Helper()
	truth := w.Truth(now, w.Days)
	n, findings, wrong, guessed := 0, 0, 0, 0
	for a, err := range accounts {
		if err != nil {
			t.Fatal(err)
		}
		if n >= len(truth.Accounts) || truth.Accounts[n].Name != a.Name {
			t.Fatalf("account %d is %s, and that is not the one", n, a.Name)
		}
		var got, want []found
		for _, f := range outreach.Findings(p, a, now, w.Zone) {
			got = append(got, found{f.Rule.ID, f.Kind, f.State, f.First, f.Last, f.Days, f.Sessions})
		}
		for _, f := range truth.Accounts[n].Findings {
			want = append(want, found{f.Demand.ID, outreach.Kind{Brand: f.Kind.Brand, Protocol: f.Kind.Protocol, Class: f.Kind.Class, Collector: f.Kind.Collector},
				outreach.State(f.State), outreach.DayOf(f.First, w.Zone), outreach.DayOf(f.Last, w.Zone), f.Days, f.Sessions})
		}
		findings += len(want)
		switch {
		case slices.Equal(got, want):
		case excused(got, want):
			guessed++
		default:
			if wrong++; wrong == 1 {
				t.Errorf("as of %v, of %s\nfound %+v\n want %+v", now, accountText(a), got, want)
			}
		}
		n++
	}
	if n != len(truth.Accounts) || wrong > 0 || guessed > 1+n*mostExcused/1000 {
		t.Errorf("as of %v, %d of %d accounts are there; the findings of %d are wrong, and of %d lack days that were taken for trials",
			now, n, len(truth.Accounts), wrong, guessed)
	}
	t.Logf("as of %v: %d accounts, %d findings, %d lack days that were taken for trials", now.Format(time.DateOnly), n, findings, guessed)
}

// each lists accounts as a ledger does.
func each(all []*outreach.Account) iter.Seq2[*outreach.Account, error] {
	return func(yield func(*outreach.Account, error) bool) {
		for _, a := range all {
			if !yield(a, nil) {
				return
			}
		}
	}
}

// moments are instants as of which things are looked at: within the days, at their end and later.
func moments(w *traffic.World) []time.Time {
	day := func(n int) time.Time {
		return time.Date(w.From.Year(), w.From.Month(), w.From.Day()+n, 12, 0, 0, 0, w.Zone)
	}
	return []time.Time{day(3), day(w.Days / 2), w.Now(), day(w.Days + 8), day(w.Days + 30)}
}

func TestFindingsOfAVillage(t *testing.T) {
	w, p := village(t, 3000)
	accounts := known(w, w.Truth(w.Now(), w.Days))
	for _, now := range moments(w) {
		sameFindings(t, w, p, each(accounts), now)
	}
}

// office sends on working days.
func office(w *traffic.World) *outreach.Schedule {
	s := &outreach.Schedule{Campaign: "village", Steps: []int{-112, -84, -56, -28, -14, -7, -2, 0, 3}, Gap: 6 * 24 * time.Hour, Most: 9, PerDay: 1_000_000,
		Office: outreach.Office{Zone: w.Zone, Begin: 9 * time.Hour, Until: 16 * time.Hour}}
	for day := time.Monday; day <= time.Friday; day++ {
		s.Office.Days[day] = true
	}
	return s
}

// samePlan holds a plan against the truth: by whom what is to be told, and to whom
// nothing. Nobody has been told yet.
func samePlan(t *testing.T, w *traffic.World, p *policy.Policy, accounts iter.Seq2[*outreach.Account, error], now time.Time) {
	t.Helper()
	plan, err := office(w).Make(p, accounts, func(string) []outreach.Past { return nil }, 1_000_000, now)
	if err != nil {
		t.Fatal(err)
	}
	got, want := map[string]string{}, map[string]string{}
	text := func(reason string, refuses time.Time, step int) string {
		if reason != string(traffic.Due) {
			return reason
		}
		return fmt.Sprintf("%s: %d days from %s", reason, step, refuses.In(w.Zone).Format(time.DateOnly))
	}
	counts := map[string]int{}
	for _, i := range plan.Items {
		reason, step := string(i.Reason), i.Step
		if i.Reason == outreach.ReasonSpread || i.Reason == outreach.ReasonBudget || i.Reason == outreach.ReasonClosed { // it is told on another day of the week; nobody sends on a Sunday
			reason = string(traffic.Due)
		}
		if i.T.IsZero() {
			step -= outreach.Undated
		}
		got[i.Account] = text(reason, i.T, step)
	}
	for _, a := range w.Truth(now, w.Days).Accounts {
		counts[text(string(a.Notice.Reason), a.Notice.Refuses, a.Notice.Step)]++
		if a.Notice.Reason != traffic.Nothing {
			want[a.Name] = text(string(a.Notice.Reason), a.Notice.Refuses, a.Notice.Step)
		}
	}
	wrong := 0
	for name, said := range want {
		if got[name] != said {
			if wrong++; wrong <= 3 {
				t.Logf("on %v, the plan says of %s %q, and it is %q", now, name, got[name], said)
			}
		}
	}
	if wrong > 1+len(want)*mostExcused/1000 || len(got) != len(want) || plan.Reasons[outreach.ReasonNothing] != counts[string(traffic.Nothing)] {
		t.Errorf("on %v, the plan is wrong of %d of %d accounts; it has %d, and %d with nothing wrong, which are %d", now, wrong, len(want), len(got),
			plan.Reasons[outreach.ReasonNothing], counts[string(traffic.Nothing)])
	}
	t.Logf("on %v: %v", now.Format(time.DateOnly), counts)
}

func TestPlanOfAVillage(t *testing.T) {
	w, p := village(t, 3000)
	accounts := known(w, w.Truth(w.Now(), w.Days))
	for _, now := range moments(w) {
		samePlan(t, w, p, each(accounts), now)
	}
}

// TestAWeekTellsEverybody plans seven days one after another, and has sent what each wants:
// whoever is due at their beginning has been told at their end, once, of what was due.
func TestAWeekTellsEverybody(t *testing.T) {
	w, p := village(t, 3000)
	truth := w.Truth(w.Now(), w.Days)
	accounts := known(w, truth)
	s := office(w)
	past := map[string][]outreach.Past{}
	begin := time.Date(w.From.Year(), w.From.Month(), w.From.Day()+w.Days, 10, 0, 0, 0, w.Zone)
	days := map[outreach.Day]int{}
	for day := range 7 {
		now := begin.AddDate(0, 0, day)
		plan, err := s.Make(p, each(accounts), func(name string) []outreach.Past { return past[name] }, s.PerDay, now)
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range plan.Items {
			if i.Reason == outreach.ReasonDue {
				n := outreach.Past{Series: i.Series, Step: i.Step, Day: plan.Day, State: outreach.StateSent}
				if !i.T.IsZero() {
					n.Date = outreach.DayOf(i.T, w.Zone)
				}
				past[i.Account] = append(past[i.Account], n)
				days[plan.Day]++
			}
		}
	}
	due := map[string]bool{}
	later := w.Truth(begin.AddDate(0, 0, 6), w.Days).Accounts
	for i, a := range w.Truth(begin, w.Days).Accounts {
		due[a.Name] = a.Notice.Reason == traffic.Due
		// What was mended long enough ago before the account's day came is not told any more.
		if n := len(past[a.Name]); due[a.Name] && n != 1 && (n > 1 || later[i].Notice.Reason == traffic.Due) {
			t.Errorf("%s was told %d times: %+v", a.Name, n, past[a.Name])
		}
	}
	for name := range past {
		if !due[name] {
			t.Errorf("%s was told, and is not concerned", name)
		}
	}
	if len(days) != 5 || slices.Min(slices.Collect(maps.Values(days))) == 0 {
		t.Errorf("the days had %v", days)
	}
	t.Logf("%d told, by day %v", len(past), days)
}

// worst is the worse of two states, as reports count an account.
func worst(a, b string) string {
	order := []string{"", traffic.Fixed, traffic.Exempt, traffic.Silent, traffic.Open}
	if slices.Index(order, a) > slices.Index(order, b) {
		return a
	}
	return b
}

// counted is what a report counts of accounts by their states.
func counted(states map[string]string) (c outreach.Counts) {
	for _, state := range states {
		switch state {
		case traffic.Open:
			c.Open++
		case traffic.Silent:
			c.Silent++
		case traffic.Exempt:
			c.Exempt++
		case traffic.Fixed:
			c.Fixed++
		}
	}
	return c
}

// near holds counts against the true ones, of which a guess may be wrong by some.
func near(got, want outreach.Counts, accounts int) bool {
	most := 1 + accounts*mostExcused/1000
	for _, d := range []int{got.Open - want.Open, got.Silent - want.Silent, got.Exempt - want.Exempt, got.Fixed - want.Fixed} {
		if max(d, -d) > most {
			return false
		}
	}
	return true
}

// sameReport holds a report against the truth, with each day of its burn-down.
func sameReport(t *testing.T, w *traffic.World, p *policy.Policy, accounts iter.Seq2[*outreach.Account, error], now time.Time) {
	t.Helper()
	r, err := outreach.MakeReport(accounts, p, now, w.Zone, nil)
	if err != nil {
		t.Fatal(err)
	}
	truth := w.Truth(now, w.Days)
	today := outreach.DayOf(now, w.Zone)
	first := outreach.DayOf(w.From, w.Zone)
	all := map[string]string{}
	by := map[string]map[string]map[string]string{"brand": {}, "protocol": {}, "program": {}}
	demands := map[string]map[string]string{}
	through := map[string]int{}
	days := map[string][]outreach.Counts{} // by demand and day
	for _, d := range w.Demands {
		demands[d.ID] = map[string]string{}
		days[d.ID] = make([]outreach.Counts, r.Window.Days)
	}
	for _, a := range truth.Accounts {
		values := func(k traffic.Kind) map[string]string {
			program := string(k.Class)
			if k.Collector {
				program = string(fixes.Collector)
			}
			return map[string]string{"brand": k.Brand, "protocol": k.Protocol, "program": program}
		}
		for _, u := range a.Uses {
			for what, value := range values(traffic.Kind{Brand: u.Brand, Protocol: u.Protocol, Class: u.Class, Collector: u.Collector}) {
				if by[what][value] == nil {
					by[what][value] = map[string]string{}
				}
				by[what][value][a.Name] = worst(by[what][value][a.Name], "")
			}
		}
		own := map[string]bool{}
		perDay := map[string][]string{}
		for _, f := range a.Findings {
			id := f.Demand.ID
			all[a.Name] = worst(all[a.Name], f.State)
			demands[id][a.Name] = worst(demands[id][a.Name], f.State)
			if !f.Kind.Collector && (f.State == traffic.Open || f.State == traffic.Silent) {
				own[id] = true
			}
			for what, value := range values(f.Kind) {
				by[what][value][a.Name] = worst(by[what][value][a.Name], f.State)
			}
			if perDay[id] == nil {
				perDay[id] = make([]string, r.Window.Days)
			}
			for day := range perDay[id] {
				perDay[id][day] = worst(perDay[id][day], f.At(day))
			}
		}
		for id, state := range demands {
			if s := state[a.Name]; (s == traffic.Open || s == traffic.Silent) && !own[id] {
				through[id]++
			}
		}
		for id, states := range perDay {
			for day, state := range states {
				one := counted(map[string]string{"": state})
				c := &days[id][day]
				c.Open, c.Silent, c.Exempt, c.Fixed = c.Open+one.Open, c.Silent+one.Silent, c.Exempt+one.Exempt, c.Fixed+one.Fixed
			}
		}
	}
	seen := len(truth.Accounts)
	if r.Seen != seen || r.Window.First != first || r.Window.Last != today || !near(r.Any, counted(all), seen) {
		t.Errorf("the report has %d accounts, %+v in all, over %+v; they are %d, and %+v from %v to %v", r.Seen, r.Any, r.Window, seen, counted(all), first, today)
	}
	for i, q := range r.Requirements {
		want := counted(demands[q.ID])
		if q.ID != w.Demands[i].ID || !near(q.Counts, want, seen) || q.Through != through[q.ID] {
			t.Errorf("%s has %+v, %d through collectors; it is %+v and %d", q.ID, q.Counts, q.Through, want, through[q.ID])
		}
		if q.Open+q.Silent+q.Exempt+q.Fixed+q.Clean+q.Unknown != seen {
			t.Errorf("%s: %+v, %d clean and %d unknown are not %d", q.ID, q.Counts, q.Clean, q.Unknown, seen)
		}
		for day, b := range q.BurnDown {
			if b.Day != first+outreach.Day(day) || !near(b.Counts, days[q.ID][day], seen) {
				t.Errorf("%s: on %v there were %+v; it is %+v", q.ID, b.Day, b.Counts, days[q.ID][day])
			}
		}
	}
	for what, rows := range map[string][]outreach.ReportRow{"brand": r.Brands, "protocol": r.Protocols, "program": r.Programs} {
		if len(rows) != len(by[what]) {
			t.Errorf("there are %d rows by %s, and %d values", len(rows), what, len(by[what]))
		}
		for _, row := range rows {
			if want := by[what][row.Name]; row.Seen != len(want) || !near(row.Counts, counted(want), seen) {
				t.Errorf("%s %s: %+v; they are %d, %+v", what, row.Name, row, len(want), counted(want))
			}
		}
	}
}

func TestReportOfAVillage(t *testing.T) {
	w, p := village(t, 3000)
	accounts := known(w, w.Truth(w.Now(), w.Days))
	for _, now := range moments(w)[2:] {
		sameReport(t, w, p, each(accounts), now)
	}
}

// sameImpact holds what would break, if all were denied, against the truth.
func sameImpact(t *testing.T, w *traffic.World, p *policy.Policy, accounts iter.Seq2[*outreach.Account, error], now time.Time, days int) {
	t.Helper()
	own := []string{}
	for _, b := range w.Brands {
		own = append(own, b.Domain)
	}
	got := map[string]string{}
	i, err := outreach.MakeImpact(accounts, p, outreach.Question{As: policy.Deny, Days: days}, now, w.Zone, own, func(a *outreach.AccountImpact) error {
		got[a.Account] = string(a.Loss)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	want, seen, wrong := map[traffic.Loss]int{}, 0, 0
	domains := map[string]int{}
	for _, a := range w.Truth(now, days).Accounts {
		if a.Loss == "" {
			continue
		}
		seen++
		want[a.Loss]++
		if broken := a.Loss == traffic.All || a.Loss == traffic.Some || a.Loss == traffic.Away; broken && !slices.Contains(own, a.Domain) {
			domains[a.Domain]++
		}
		if cmp.Or(got[a.Name], string(traffic.None)) != string(a.Loss) {
			if wrong++; wrong == 1 {
				t.Logf("as of %v, %s loses %q, and it is %q", now, a.Name, got[a.Name], a.Loss)
			}
		}
	}
	if i.Seen != seen || wrong > 1+seen*mostExcused/1000 {
		t.Errorf("as of %v, %d accounts were seen, and it is %d; of %d the loss is wrong", now, i.Seen, seen, wrong)
	}
	if n := i.All + i.Some + i.Silent + i.Exempt + i.Unharmed; n != seen {
		t.Errorf("as of %v, %+v and %d unharmed are not %d", now, i.Losses, i.Unharmed, seen)
	}
	for _, d := range i.Domains {
		if diff := d.Broken - domains[d.Domain]; diff < -1 || diff > 1 {
			t.Errorf("as of %v, of %s %d break, and it is %d", now, d.Domain, d.Broken, domains[d.Domain])
		}
	}
	t.Logf("as of %v, by %d days: %v of %d; %d guessed wrong", now.Format(time.DateOnly), days, want, seen, wrong)
}

func TestImpactOfAVillage(t *testing.T) {
	w, p := village(t, 3000)
	accounts := known(w, w.Truth(w.Now(), w.Days))
	for _, now := range moments(w) {
		for _, days := range []int{10, 30} {
			sameImpact(t, w, p, each(accounts), now, days)
		}
	}
}

// taken is a ledger that has taken in all events of a world from files.
func taken(t *testing.T, w *traffic.World) (*outreach.Ledger, outreach.Tally) {
	t.Helper()
	dir := t.TempDir()
	l, err := outreach.OpenLedger(t.Context(), filepath.Join(dir, "ledger.db"), outreach.Options{Zone: w.Zone, Campaign: "village", Purpose: "test", Now: w.Now, Who: "test"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	in := intake(l)
	var total outreach.Tally
	// As a ledger follows: what is there of a day, and nothing twice. Files go when they are read, so
	// a hundred thousand accounts need no room for all at once.
	_, err = w.Write(dir, func(path string) error {
		tally, err := in.Read(t.Context(), outreach.Events, path)
		if err != nil {
			return err
		}
		total.Lines, total.Logins, total.Unverified = total.Lines+tally.Lines, total.Logins+tally.Logins, total.Unverified+tally.Unverified
		total.Unknown += tally.Unknown
		if again, err := in.Read(t.Context(), outreach.Events, path); err != nil || again.Lines != 0 {
			return fmt.Errorf("read again, %s had %d new lines (%v)", path, again.Lines, err)
		}
		return os.Remove(path)
	})
	if err != nil {
		t.Fatal(err)
	}
	return l, total
}

// intake fills a ledger under the configuration that fits a world.
func intake(l *outreach.Ledger) *outreach.Intake {
	classes := map[config.Name][]netip.Prefix{}
	for name, networks := range traffic.Networks() {
		classes[config.Name(name)] = networks
	}
	var access []config.Name
	for _, name := range traffic.Access() {
		access = append(access, config.Name(name))
	}
	return &outreach.Intake{Ledger: l, Networks: outreach.NewNetworks(classes, access)}
}

// large makes the chain's test one of a large provider: 100,000 accounts.
var large = flag.Bool("large", false, "hold the whole chain against 100,000 accounts")

// TestTheWholeChain goes from files of events through the ledger to findings, report, impact and plan.
func TestTheWholeChain(t *testing.T) {
	accounts := 3000
	if *large {
		accounts = 100_000
	}
	w, p := village(t, accounts)
	l, tally := taken(t, w)
	truth := w.Truth(w.Now(), w.Days)
	if tally.Logins != truth.Verified || tally.Unverified != truth.Unverified || tally.Unknown != 0 || tally.Lines != truth.Verified+truth.Unverified {
		t.Errorf("it took in %+v; there were %d logins and %d sessions of nobody", tally, truth.Verified, truth.Unverified)
	}
	all := known(w, truth)
	n, wrong := 0, 0
	for a, err := range l.Accounts(t.Context(), 0) {
		if err != nil {
			t.Fatal(err)
		}
		if n < len(all) {
			if got, want := accountText(a), accountText(all[n]); got != want {
				if wrong++; wrong == 1 {
					t.Errorf("the ledger has\n%s\nand it was\n%s", got, want)
				}
			}
		}
		n++
	}
	if n != len(all) || wrong > 1 {
		t.Errorf("the ledger has %d accounts, and they are %d; of %d it has something else", n, len(all), wrong)
	}
	now := w.Now()
	ledger := l.Accounts(t.Context(), 0)
	sameFindings(t, w, p, ledger, now)
	sameReport(t, w, p, ledger, now)
	sameImpact(t, w, p, ledger, now, w.Days)
	samePlan(t, w, p, ledger, now)
}

// TestDovecotSawTheSame takes the same logins from Dovecot's log: whoever came, on which days and how often,
// is the same, and so is who came in clear or by which mechanism.
func TestDovecotSawTheSame(t *testing.T) {
	w, _ := village(t, 1500)
	dir := t.TempDir()
	path := filepath.Join(dir, "mail.log")
	total, err := w.WriteDovecot(path)
	if err != nil {
		t.Fatal(err)
	}
	l, err := outreach.OpenLedger(t.Context(), filepath.Join(dir, "ledger.db"), outreach.Options{Zone: w.Zone, Campaign: "village", Purpose: "test", Now: w.Now, Who: "test"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	tally, err := intake(l).Read(t.Context(), outreach.Dovecot, path)
	if err != nil || tally.Logins != total.Events || tally.Unknown > 0 || tally.Foreign > 0 {
		t.Fatalf("of %d lines it took in %+v (%v)", total.Events, tally, err)
	}
	type of struct {
		account, protocol, mechanism string
		clear                        bool
		day                          outreach.Day
	}
	count := func(accounts iter.Seq2[*outreach.Account, error]) map[of]int {
		all := map[of]int{}
		for a, err := range accounts {
			if err != nil {
				t.Fatal(err)
			}
			for _, u := range a.Uses {
				if u.Protocol == "submission" {
					continue
				}
				mechanism := u.Mechanism
				if mechanism == policy.UserPass { // Dovecot says PLAIN of its own commands
					mechanism = "PLAIN"
				}
				for _, d := range u.Days {
					all[of{a.Name, u.Protocol, mechanism, u.TLS == policy.None, d.Day}] += d.Sessions
				}
			}
		}
		return all
	}
	got, want := count(l.Accounts(t.Context(), 0)), count(each(known(w, w.Truth(w.Now(), w.Days))))
	if !maps.Equal(got, want) {
		t.Errorf("of %d counts in the log, and %d that there were, some differ", len(got), len(want))
	}
}
