package traffic_test

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"mailreeve/config"
	"mailreeve/events"
	"mailreeve/fixes"
	"mailreeve/outreach/traffic"
	"mailreeve/policy"
)

func world(t *testing.T, p traffic.Plan) *traffic.World {
	t.Helper()
	w, err := traffic.New(p)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func written(t *testing.T, w *traffic.World) string {
	t.Helper()
	dir := t.TempDir()
	if _, err := w.Write(dir, nil); err != nil {
		t.Fatal(err)
	}
	return dir
}

func read(t *testing.T, dir string, each func(*events.Session)) {
	t.Helper()
	r := &events.Reader{}
	if err := r.FromPath(dir, func(e *events.Session) bool { each(e); return true }); err != nil || r.Bad > 0 {
		t.Fatalf("%d lines are no events: %v", r.Bad, err)
	}
}

// TestEventsAreWhatPolicySays holds what the world writes of its sessions against the real
// policy: it is made of the world's own file, and asked with an event's facts.
func TestEventsAreWhatPolicySays(t *testing.T) {
	w := world(t, traffic.Plan{Seed: 1, Accounts: 1500, Busy: 0.1})
	p, err := config.ParsePolicy("traffic.yaml", []byte(w.Policy()))
	if err != nil {
		t.Fatal(err)
	}
	actions, robots := map[string]int{}, 0
	read(t, written(t, w), func(e *events.Session) {
		if e.Mechanism == "" || e.Rule == "" && !e.Verified {
			robots++
			return
		}
		f := facts(e)
		v := p.Compiled.Decide(f, e.Decided)
		if v.Action.String() != e.Action || !slices.Equal(v.Violated(), e.By) || v.Rule != nil && (v.Rule.ID != e.Rule || !v.Stage.From.Equal(e.Stage)) {
			// Of a login that nobody has confirmed the account is not known, nor its exceptions.
			if e.Verified || v.Action == policy.Pass {
				t.Fatalf("policy says %v by %q, and the event %s by %q: %+v", v.Action, v.Violated(), e.Action, e.By, e)
			}
		}
		actions[e.Action]++
		if e.Verified != (e.Account != "") || !e.Verified && e.Refused == "" {
			t.Fatalf("%+v", e)
		}
	})
	for _, a := range []policy.Action{policy.Pass, policy.Observe, policy.Notify, policy.Warn, policy.Deny} {
		if actions[a.String()] == 0 {
			t.Errorf("no session met %v", a)
		}
	}
	if robots == 0 {
		t.Error("there were no robots")
	}
}

// facts are those of an event, as a session has them at its end.
func facts(e *events.Session) *policy.Facts {
	f := &policy.Facts{IP: e.IP}
	for fact, value := range map[policy.Fact]string{
		policy.Brand: e.Brand, policy.Protocol: e.Protocol, policy.Port: strconv.Itoa(e.Port), policy.Listener: e.Listener, policy.Entry: e.Entry,
		policy.TLS: e.TLS, policy.CipherClass: e.CipherClass, policy.SNI: e.SNI, policy.Host: e.Host, policy.Mech: e.Mechanism,
		policy.UserForm: e.UserForm, policy.Account: e.Account, policy.Domain: e.Domain,
	} {
		f.Set(fact, value)
	}
	return f
}

// TestTheTruthIsOfTheseEvents counts in the events what the truth says of uses: both
// come from the plans, by two ways.
func TestTheTruthIsOfTheseEvents(t *testing.T) {
	w := world(t, traffic.Plan{Seed: 2, Accounts: 2000, Busy: 0.1})
	type of struct {
		account, protocol, tls, mechanism, host, form string
		port                                          int
		day                                           time.Time
	}
	got, want := map[of]int{}, map[of]int{}
	verified, unverified := 0, 0
	read(t, written(t, w), func(e *events.Session) {
		if !e.Verified {
			unverified++
			return
		}
		verified++
		day := e.Time.In(w.Zone)
		got[of{e.Account, e.Protocol, e.TLS, e.Mechanism, e.Host, e.UserForm, e.Port, time.Date(day.Year(), day.Month(), day.Day(), 0, 0, 0, 0, w.Zone)}]++
	})
	truth := w.Truth(w.Now(), w.Days)
	for _, a := range truth.Accounts {
		for _, u := range a.Uses {
			for _, d := range u.Days {
				want[of{a.Name, u.Protocol, u.TLS, u.Mechanism, u.Host, u.UserForm, u.Port, d.Day}] += d.Sessions
			}
		}
	}
	if !maps.Equal(got, want) {
		t.Errorf("%d counts in the events, %d in the truth, and they differ", len(got), len(want))
	}
	if verified != truth.Verified || unverified != truth.Unverified {
		t.Errorf("%d and %d sessions, and the truth says %d and %d", verified, unverified, truth.Verified, truth.Unverified)
	}
}

// TestThereIsSomethingOfEverything looks for all that makes a difference to who reads the events.
func TestThereIsSomethingOfEverything(t *testing.T) {
	w := world(t, traffic.Plan{Seed: 3, Accounts: 8000, Busy: 0.05})
	truth := w.Truth(w.Now(), w.Days)
	there := map[string]int{}
	for _, a := range truth.Accounts {
		if len(a.Findings) == 0 {
			there["clean"]++
		}
		if !a.Told.Day.IsZero() {
			there["told "+a.Told.Do.String()]++
		}
		for _, u := range a.Uses {
			there["class "+string(u.Class)]++
			there["network "+u.Network]++
			there["protocol "+u.Protocol]++
			there["brand "+u.Brand]++
			if u.Collector {
				there["collector"]++
			}
		}
		for _, f := range a.Findings {
			there[f.Demand.ID+" "+f.State]++
			if f.Kind.Collector {
				there["collector's "+f.State]++
			}
		}
	}
	want := []string{"clean", "told warn", "told deny", "collector", "collector's open", "brand nord", "brand stadt"}
	for _, d := range w.Demands {
		want = append(want, d.ID+" open", d.ID+" silent", d.ID+" fixed", d.ID+" exempt")
	}
	for _, c := range []fixes.Class{fixes.Unknown, fixes.Thunderbird, fixes.Outlook, fixes.OutlookNew, fixes.AppleMail, fixes.IOSMail, fixes.Device, fixes.Script} {
		want = append(want, "class "+string(c))
	}
	for _, n := range []string{"dsl", "mobile", "office", "hosting", "other"} {
		want = append(want, "network "+n)
	}
	for _, k := range want {
		if there[k] == 0 {
			t.Errorf("there is no %s", k)
		}
	}
	// The collectors are crowds, and nobody else at such an address is.
	perDay := map[string]map[string]bool{}
	read(t, written(t, w), func(e *events.Session) {
		if e.Verified && e.Protocol == "pop3" && e.IP.Is4() && e.IP.As4()[0] == 192 {
			key := e.IP.String() + e.Time.Format(time.DateOnly)
			if perDay[key] == nil {
				perDay[key] = map[string]bool{}
			}
			perDay[key][e.Account] = true
		}
	})
	sizes := map[bool]int{}
	for _, accounts := range perDay {
		sizes[len(accounts) >= 50]++
	}
	if sizes[true] == 0 || sizes[false] == 0 {
		t.Errorf("%d days of large collectors, %d of small ones", sizes[true], sizes[false])
	}
	for _, l := range []traffic.Loss{traffic.All, traffic.Some, traffic.Away, traffic.Kept, traffic.None} {
		if !slices.ContainsFunc(truth.Accounts, func(a traffic.Account) bool { return a.Loss == l }) {
			t.Errorf("of nobody the loss is %s", l)
		}
	}
	for _, r := range []traffic.Reason{traffic.Nothing, traffic.Quiet, traffic.Spared, traffic.Mended, traffic.Due} {
		if !slices.ContainsFunc(truth.Accounts, func(a traffic.Account) bool { return a.Notice.Reason == r }) {
			t.Errorf("nobody is %s", r)
		}
	}
	t.Logf("%d accounts of 8000 were seen; %v", len(truth.Accounts), there)
}

// TestTheSameSeedIsTheSameWorld compares the bytes of all files.
func TestTheSameSeedIsTheSameWorld(t *testing.T) {
	sum := func(seed uint64) (s [32]byte) {
		dir := written(t, world(t, traffic.Plan{Seed: seed, Accounts: 300, Days: 5}))
		var all bytes.Buffer
		files, err := fs.ReadDir(os.DirFS(dir), ".")
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			data, err := os.ReadFile(filepath.Join(dir, f.Name()))
			if err != nil {
				t.Fatal(err)
			}
			all.WriteString(f.Name())
			all.Write(data)
		}
		return sha256.Sum256(all.Bytes())
	}
	one := sum(7)
	if again := sum(7); again != one {
		t.Error("the same seed made two worlds")
	}
	if sum(8) == one {
		t.Error("two seeds made the same world")
	}
}

// TestFilesAreThoseOfALog looks at names, order and the line between days: a session is written
// when it ends, and days end in UTC.
func TestFilesAreThoseOfALog(t *testing.T) {
	w := world(t, traffic.Plan{Seed: 4, Accounts: 600, Days: 6})
	dir := t.TempDir()
	var done []string
	total, err := w.Write(dir, func(path string) error {
		done = append(done, filepath.Base(path))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	// The first day begins at 22:00 UTC of the day before.
	want := []string{"events-2026-10-23.jsonl", "events-2026-10-24.jsonl", "events-2026-10-25.jsonl", "events-2026-10-26.jsonl", "events-2026-10-27.jsonl", "events-2026-10-28.jsonl", "events-2026-10-29.jsonl", "events.jsonl"}
	if !slices.Equal(done, want) {
		t.Fatalf("the files are %q", done)
	}
	n, size, over := 0, int64(0), 0
	var before time.Time
	for i, name := range want {
		path := filepath.Join(dir, name)
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Fatal(info, err)
		}
		size += info.Size()
		day := time.Date(2026, 10, 23+i, 0, 0, 0, 0, time.UTC)
		read(t, path, func(e *events.Session) {
			n++
			end := e.Time.Add(time.Duration(e.Seconds * float64(time.Second)))
			if end.Before(before.Add(-2*time.Millisecond)) || end.Before(day.Add(-2*time.Millisecond)) || end.After(day.Add(24*time.Hour)) {
				t.Fatalf("%s: a session that ended at %v stands behind one of %v", name, end, before)
			}
			before = end
			if e.Time.Before(day) {
				over++
			}
		})
	}
	if n != total.Events || size != total.Bytes || over == 0 {
		t.Errorf("%d events of %d bytes, and it said %+v; %d began on the day before", n, size, total, over)
	}
}

func TestWhatCannotBe(t *testing.T) {
	for _, p := range []traffic.Plan{{Accounts: -1}, {Days: 5000}, {Busy: -1}} {
		if _, err := traffic.New(p); err == nil {
			t.Errorf("%+v was made", p)
		}
	}
	w := world(t, traffic.Plan{Accounts: 50, Days: 3})
	if _, err := w.Write(filepath.Join(t.TempDir(), "none"), nil); err == nil {
		t.Error("it wrote into a directory that is not there")
	}
	dir := written(t, w)
	if _, err := w.Write(dir, nil); err == nil {
		t.Error("it wrote over what was there")
	}
}

// TestTruthGrowsOlder holds that nothing but the states changes when nothing happens any more, and
// that in the end nothing is open.
func TestTruthGrowsOlder(t *testing.T) {
	w := world(t, traffic.Plan{Seed: 5, Accounts: 3000, Busy: 0.1})
	now, later := w.Truth(w.Now(), w.Days), w.Truth(w.Now().Add(15*24*time.Hour), w.Days)
	for i, a := range later.Accounts {
		was := now.Accounts[i]
		if a.Name != was.Name || len(a.Findings) != len(was.Findings) {
			t.Fatalf("%s had %d findings, and %s has %d", was.Name, len(was.Findings), a.Name, len(a.Findings))
		}
		for j, f := range a.Findings {
			if g := was.Findings[j]; f.Sessions != g.Sessions || f.State == traffic.Open || g.State != traffic.Open && g.State != f.State {
				t.Errorf("%s: %s was %s, and is %s", a.Name, f.Demand.ID, g.State, f.State)
			}
		}
	}
	if !slices.IsSortedFunc(now.Accounts, func(a, b traffic.Account) int { return cmp.Compare(a.Name, b.Name) }) {
		t.Error("accounts are in no order")
	}
}

// BenchmarkWrite is what an event costs.
func BenchmarkWrite(b *testing.B) {
	w, err := traffic.New(traffic.Plan{Seed: 1, Accounts: 5000, Days: 7})
	if err != nil {
		b.Fatal(err)
	}
	n := 0
	for b.Loop() {
		dir := b.TempDir()
		total, err := w.Write(dir, nil)
		if err != nil {
			b.Fatal(err)
		}
		n += total.Events
		os.RemoveAll(dir)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/event")
}

// TestProgramsAreKnown holds what the world says of its programs against the catalogue, which
// guesses by the same signs.
func TestProgramsAreKnown(t *testing.T) {
	w := world(t, traffic.Plan{Seed: 6, Accounts: 2000, Days: 7, Busy: 0.1})
	type guess struct {
		class   fixes.Class
		program string
	}
	type of struct {
		account, listener, mechanism, form string
		guess
	}
	known := map[of]bool{}
	for _, a := range w.Truth(w.Now(), w.Days).Accounts {
		for _, u := range a.Uses {
			known[of{a.Name, u.Listener, u.Mechanism, u.UserForm, guess{u.Class, u.Program}}] = true
		}
	}
	wrong := map[guess]string{}
	read(t, written(t, w), func(e *events.Session) {
		if e.Verified {
			class, program := fixes.Classify(e.Protocol, e.ClientID, e.Hello, e.Mechanism)
			if !known[of{e.Account, e.Listener, e.Mechanism, e.UserForm, guess{class, program}}] {
				wrong[guess{class, program}] = e.Client + " with " + e.Mechanism + " by " + e.Protocol
			}
		}
	})
	for g, client := range wrong {
		t.Errorf("%s is taken for %s, %q", client, g.class, g.program)
	}
}
