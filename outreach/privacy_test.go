package outreach

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"mailreeve/events"
	"mailreeve/policy"
)

// keptLedger has two accounts, and the clock of its owner.
type keptLedger struct {
	t     *testing.T
	place string
	now   time.Time
	opt   Options
	*Ledger
}

func newKeptLedger(t *testing.T) *keptLedger {
	t.Helper()
	k := &keptLedger{t: t, place: filepath.Join(t.TempDir(), "ledger.db"), now: intakeNow}
	k.opt = Options{Zone: time.UTC, Campaign: "test", Purpose: "tests", End: dayOf("2026-12-31"), Now: func() time.Time { return k.now }, Who: "tester"}
	k.open()
	t.Cleanup(func() { k.Close() })
	k.read("A", "anna@example.org")
	k.read("B", "johanna@example.org")
	return k
}

// open opens it again, as another process would.
func (k *keptLedger) open() {
	k.t.Helper()
	if k.Ledger != nil {
		okay(k.t, k.Close())
	}
	var err error
	k.Ledger, err = OpenLedger(k.t.Context(), k.place, k.opt)
	okay(k.t, err)
}

// read takes in a login of an account, by a new intake.
func (k *keptLedger) read(id, account string) error {
	k.t.Helper()
	_, err := intakeOf(k.Ledger).Read(k.t.Context(), Events, k.file(id, account))
	return err
}

// file is one of events with a login, a refusal and a stranger.
func (k *keptLedger) file(id, account string) string {
	k.t.Helper()
	var text strings.Builder
	for i, e := range []events.Session{
		{Account: account, Verified: true, TLS: policy.None},
		{Account: account, Verified: true, TLS: policy.None, Action: "deny", Refused: "policy", Rule: "encrypted"},
		{TLS: policy.None, Mechanism: "PLAIN"},
	} {
		e.ID, e.Time, e.Protocol, e.Brand = fmt.Sprint(id, i), k.now.Add(-time.Hour), "imap", "alpha"
		e.IP.UnmarshalText([]byte("198.51.100.7"))
		line, err := events.Encode(&e)
		okay(k.t, err)
		text.Write(line)
	}
	path := filepath.Join(filepath.Dir(k.place), id+".jsonl")
	okay(k.t, os.WriteFile(path, []byte(text.String()), 0o600))
	return path
}

// count counts the rows of a table.
func (k *keptLedger) count(table string) (n int) {
	k.t.Helper()
	okay(k.t, k.view(k.t.Context(), func(x *tx) error {
		_, err := x.one([]any{&n}, "SELECT COUNT(*) FROM "+table)
		return err
	}))
	return n
}

// bytes are those of all its files.
func (k *keptLedger) bytes() string {
	k.t.Helper()
	files, err := filepath.Glob(k.place + "*")
	okay(k.t, err)
	var all strings.Builder
	for _, file := range files {
		data, err := os.ReadFile(file)
		okay(k.t, err)
		all.Write(data)
	}
	return all.String()
}

func TestForget(t *testing.T) {
	k := newKeptLedger(t)
	ctx := t.Context()
	const anna = "anna@example.org"
	for _, detail := range []string{"looked at Anna@Example.org.", anna + ", johanna@example.org", "nothing"} {
		okay(t, k.Audit(ctx, "show", detail))
	}
	okay(t, k.tx(ctx, func(x *tx) error {
		_, err := x.exec(`INSERT INTO notice (campaign, account, series, step, date, state, changed, owner, until, slot, handed, tries, number, message_id, token, queue, said, note)
			VALUES ('test', $1, 0, -28, 0, 'sent', 0, '', 0, 0, 0, 1, 'n', 'm', 't', '', '', '')`, anna)
		return err
	}))
	if !strings.Contains(k.bytes(), anna) {
		t.Fatal("the name is not even there before")
	}
	in := intakeOf(k.Ledger)
	_, err := in.Read(ctx, Events, k.file("C", anna))
	okay(t, err)
	okay(t, k.Forget(ctx, anna))
	if _, err := k.Account(ctx, anna); !errors.Is(err, ErrUnknown) {
		t.Errorf("it is still there: %v", err)
	}
	for table, want := range map[string]int{"account": 1, "seen": 1, "crowd_member": 1, "notice": 0} {
		if n := k.count(table); n != want {
			t.Errorf("%s has %d rows, want %d", table, n, want)
		}
	}
	if text := strings.ReplaceAll(strings.ToLower(k.bytes()), "joh"+anna, ""); strings.Contains(text, anna) {
		t.Error("the name is still in the files of the ledger")
	}
	audit, err := k.Audited(ctx)
	okay(t, err)
	var all []string
	for _, e := range audit {
		all = append(all, e.What+" "+e.Detail)
	}
	mark := k.epitaph(anna)
	if got, want := strings.Join(all, "; "), "show looked at "+mark+".; show "+mark+", johanna@example.org; show nothing; forget "+mark; got != want {
		t.Errorf("the audit is\n%s, want\n%s", got, want)
	}
	// Whoever reads on and remembers its number makes a new account of the next login, and no ghost.
	_, err = in.Read(ctx, Events, k.file("D", anna))
	okay(t, err)
	if a, err := k.Account(ctx, anna); err != nil || a.Uses[0].Sessions() != 2 {
		t.Errorf("after a new login: %+v, %v", a, err)
	}
	if err := k.Forget(ctx, "nobody"); !errors.Is(err, ErrUnknown) {
		t.Errorf("of nobody: %v", err)
	}
}

// TestForgetServerNames: a name that one customer's programs ask for may be his own.
func TestForgetServerNames(t *testing.T) {
	k := newKeptLedger(t)
	var lines strings.Builder
	for account, names := range map[string][]string{"anna@example.org": {"mail.anna-privat.example", "old.example.org"}, "johanna@example.org": {"old.example.org"}} {
		for _, name := range names {
			line, err := events.Encode(&events.Session{Time: k.now, Protocol: "imap", Brand: "alpha", Host: "unknown", SNI: name, Account: account, Verified: true})
			okay(t, err)
			lines.Write(line)
		}
	}
	path := filepath.Join(filepath.Dir(k.place), "names.jsonl")
	okay(t, os.WriteFile(path, []byte(lines.String()), 0o600))
	_, err := intakeOf(k.Ledger).Read(t.Context(), Events, path)
	okay(t, err)
	okay(t, k.Forget(t.Context(), "anna@example.org"))
	if text := k.bytes(); strings.Contains(text, "anna-privat") || !strings.Contains(text, "old.example.org") {
		t.Error("the name that was hers is still there, or that of others is not")
	}
	if a, err := k.Account(t.Context(), "johanna@example.org"); err != nil || len(a.Uses) != 2 {
		t.Errorf("the other one: %+v, %v", a, err)
	}
}

func TestNamesInTheAudit(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"ann@a.de", "X"}, {"to ANN@a.de, b", "to X, b"}, {"joann@a.de", "joann@a.de"}, {"ann@a.de.example", "ann@a.de.example"},
		{"Sent to ann@a.de.", "Sent to X."}, {"ann@a.de. And", "X. And"}, {"<ann@a.de>ann@a.de", "<X>X"}, {"ann@a.dex ann@a.de", "ann@a.dex X"},
		{"ö.ann@a.de", "ö.ann@a.de"}, {"", ""}, {"ann@a.d", "ann@a.d"},
	} {
		if got := replaceName(c.text, "ann@a.de", "X"); got != c.want {
			t.Errorf("%q became %q, want %q", c.text, got, c.want)
		}
	}
}

func TestExport(t *testing.T) {
	k := newKeptLedger(t)
	okay(t, k.Audit(t.Context(), "show", "anna@example.org"))
	okay(t, k.Audit(t.Context(), "show", "johanna@example.org"))
	x, err := k.Export(t.Context(), "anna@example.org")
	okay(t, err)
	for i := range x.Audit { // in which time is the true one
		if time.Since(x.Audit[i].Time) > time.Minute {
			t.Errorf("the audit has %v", x.Audit[i].Time)
		}
		x.Audit[i].Time = intakeNow
	}
	got, err := json.MarshalIndent(x, "", " ")
	okay(t, err)
	want := `{
 "account": "anna@example.org",
 "campaign": "test",
 "purpose": "tests",
 "deleted_on": "2027-04-01",
 "last_told": {
  "day": "2026-11-22",
  "action": "deny",
  "requirement": "encrypted"
 },
 "logins": [
  {
   "brand": "alpha",
   "protocol": "imap",
   "tls": "none",
   "program_class": "unknown",
   "network": "hosting",
   "sessions_by_day": {
    "2026-11-22": 2
   }
  }
 ],
 "address_hashed": [
  "2026-11-22"
 ],
 "notices": [],
 "audit": [
  {
   "time": "2026-11-22T12:00:00Z",
   "who": "tester",
   "what": "show",
   "detail": "anna@example.org"
  }
 ]
}`
	if string(got) != want {
		t.Errorf("got %s", got)
	}
	audit, err := k.Audited(t.Context())
	okay(t, err)
	if last := audit[len(audit)-1]; last.What != "export" || last.Detail != "anna@example.org" || last.Who != "tester" {
		t.Errorf("the audit ends with %+v", last)
	}
}

func TestHashesGoAfterAWeek(t *testing.T) {
	k := newKeptLedger(t)
	for days, want := range map[int]int{6: 2, 7: 0} {
		k.now = intakeNow.AddDate(0, 0, days)
		if k.now.After(time.Now()) {
			t.Skip("the clock of this machine is before that of the test")
		}
		k.open()
		if n := k.count("crowd_member"); n != want {
			t.Errorf("after %d days there are %d", days, n)
		}
	}
}

// TestTheEnd needs a clock that is not before the day, since a rehearsal deletes nothing.
func TestTheEnd(t *testing.T) {
	k := newKeptLedger(t)
	end := func(days int) { k.opt.End = DayOf(k.now, time.UTC) - KeptAfterEnd + Day(days) }
	k.now = time.Now().Add(-48 * time.Hour)
	end(0)
	k.open()
	if k.count("account") != 2 {
		t.Error("deleted on the last day")
	}
	end(-1) // a slip of the pen, corrected on the same day
	k.open()
	if k.count("account") != 2 {
		t.Error("deleted on the day on which the end was set")
	}
	if err := k.read("late", "anna@example.org"); !errors.Is(err, ErrEnded) {
		t.Errorf("a login after the end: %v", err)
	}
	end(10)
	k.open()
	was := k.now
	k.now = was.AddDate(1, 0, 0) // a rehearsal
	k.open()
	if k.count("account") != 2 {
		t.Error("deleted in a rehearsal")
	}
	k.now = was
	end(-1)
	k.open()
	k.now = time.Now().Add(-24 * time.Hour)
	k.open()
	for table, want := range map[string]int{"account": 0, "seen": 0, "shape": 0, "crowd_member": 0, "others": 1, "totals": 1} {
		if n := k.count(table); n != want {
			t.Errorf("%s has %d rows, want %d", table, n, want)
		}
	}
	var accounts, sessions int
	okay(t, k.view(t.Context(), func(x *tx) error {
		_, err := x.one([]any{&accounts, &sessions}, "SELECT accounts, sessions FROM totals")
		return err
	}))
	if accounts != 2 || sessions != 4 {
		t.Errorf("what is left says %d accounts and %d sessions", accounts, sessions)
	}
	if strings.Contains(k.bytes(), "anna@example.org") {
		t.Error("a name is still in the files of the ledger")
	}
	audit, err := k.Audited(t.Context())
	okay(t, err)
	if len(audit) != 1 || audit[0].What != "end" {
		t.Errorf("the audit is %+v", audit)
	}
}

// TestClockThatLeaps: a machine that wakes up in another year deletes nothing, if it is not still there tomorrow.
func TestClockThatLeaps(t *testing.T) {
	k := newKeptLedger(t)
	at := func(day time.Time, want int) {
		t.Helper()
		k.now = day
		for range 2 { // each command opens it anew
			k.open()
		}
		if n := k.count("account"); n != want {
			t.Errorf("on %s there are %d accounts, want %d", day.Format(time.DateOnly), n, want)
		}
	}
	today := time.Now().AddDate(0, 0, -400)
	later := today.AddDate(1, 0, 0)
	k.opt.End = DayOf(today, time.UTC) + 30
	at(today, 2)
	at(later, 2)
	at(today.AddDate(0, 0, 1), 2)
	at(later, 2)
	at(later.AddDate(0, 0, 20), 0)
}

func TestAnotherLedgerIsRefused(t *testing.T) {
	k := newKeptLedger(t)
	for name, change := range map[string]func(*Options){
		`it belongs to the campaign "test", not to "next"`: func(o *Options) { o.Campaign = "next" },
		"its days are those of UTC, not of Europe/Berlin":  func(o *Options) { o.Zone, _ = time.LoadLocation("Europe/Berlin") },
	} {
		opt := k.opt
		change(&opt)
		if _, err := OpenLedger(t.Context(), k.place, opt); !errors.Is(err, ErrOther) || !strings.Contains(err.Error(), name) {
			t.Errorf("got %v, want %s", err, name)
		}
	}
	okay(t, k.tx(t.Context(), func(x *tx) error { return x.setMeta("version", fmt.Sprint(schemaVersion+1)) }))
	if _, err := OpenLedger(t.Context(), k.place, k.opt); !errors.Is(err, ErrOther) {
		t.Errorf("one of a later program: %v", err)
	}
	path := filepath.Join(t.TempDir(), "text")
	okay(t, os.WriteFile(path, []byte(strings.Repeat("this is no database\n", 100)), 0o600))
	if _, err := OpenLedger(t.Context(), path, k.opt); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("a text: %v", err)
	}
}

// TestItsFilesAreItsOwners: what root makes belongs to the program's user.
func TestItsFilesAreItsOwners(t *testing.T) {
	dir := t.TempDir()
	uid := os.Geteuid()
	if uid == 0 {
		uid = 4321
		okay(t, os.Chown(dir, uid, 4322))
	}
	old := syscall.Umask(0)
	defer syscall.Umask(old)
	l := ledgerAt(t, filepath.Join(dir, "ledger.db"))
	defer l.Close()
	okay(t, l.Audit(context.Background(), "a", "b"))
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	okay(t, err)
	if len(files) != 3 {
		t.Errorf("there are %q", files)
	}
	for _, file := range files {
		info, err := os.Stat(file)
		okay(t, err)
		if owner := info.Sys().(*syscall.Stat_t); info.Mode().Perm() != 0o600 || int(owner.Uid) != uid {
			t.Errorf("%s has mode %v and belongs to %d", filepath.Base(file), info.Mode(), owner.Uid)
		}
	}
}

// TestOneTransaction: all or nothing, with others in the way.
func TestOneTransaction(t *testing.T) {
	k := newKeptLedger(t)
	boom := errors.New("boom")
	if err := k.tx(t.Context(), func(x *tx) error {
		return errors.Join(x.setMeta("half", "done"), boom)
	}); !errors.Is(err, boom) {
		t.Errorf("got %v", err)
	}
	okay(t, k.view(t.Context(), func(x *tx) error {
		meta, err := x.meta()
		if meta["half"] != "" {
			t.Error("a failed transaction left something")
		}
		x.exec("DELETE FROM meta") // PostgreSQL refuses it
		return err
	}))
	okay(t, k.view(t.Context(), func(x *tx) error {
		meta, err := x.meta()
		if meta["campaign"] != "test" {
			t.Error("a view has written")
		}
		return err
	}))
	other, err := OpenLedger(t.Context(), k.place, k.opt)
	okay(t, err)
	defer other.Close()
	const each = 50
	done := make(chan error)
	for _, l := range []*Ledger{k.Ledger, other, k.Ledger, other} {
		go func() {
			for range each {
				if err := l.tx(context.Background(), func(x *tx) error {
					var n int
					if _, err := x.one([]any{&n}, "SELECT COALESCE(MAX(place), 0) FROM source WHERE kind = 'counter'"); err != nil {
						return err
					}
					_, err := x.exec("INSERT INTO source (kind, identity, place) VALUES ('counter', '', $1) ON CONFLICT (kind, identity) DO UPDATE SET place = excluded.place", n+1)
					return err
				}); err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
	}
	for range 4 {
		okay(t, <-done)
	}
	var n int
	okay(t, k.view(t.Context(), func(x *tx) error {
		_, err := x.one([]any{&n}, "SELECT place FROM source WHERE kind = 'counter'")
		return err
	}))
	if n != 4*each {
		t.Errorf("counted to %d, want %d", n, 4*each)
	}
}
