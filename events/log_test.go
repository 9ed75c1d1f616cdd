package events

import (
	"encoding/json"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the golden files anew")

func sample() *Session {
	return &Session{
		Time: time.Date(2026, 11, 21, 17, 45, 0, 123456789, time.FixedZone("CET", 3600)), ID: "K7M29QXD4TZP",
		Listener: "imaps", Protocol: "imap", Port: 993, IP: netip.MustParseAddr("2001:db8::7"), Via: netip.MustParseAddr("192.0.2.1"),
		Entry: "implicit", WrongPort: true, TLS: "1.3", Cipher: "TLS_AES_128_GCM_SHA256", CipherClass: "modern", Resumed: true,
		ALPN: "imap", Alert: "unknown_ca", SNI: "imap.demo.example", Host: "canonical", Brand: "demo", Client: "Thunderbird 153.7",
		ClientID: map[string]string{"version": "153.7", "name": "Thunderbird"}, Hello: "[192.0.2.7]",
		Mechanism: "PLAIN", UserForm: "address", Account: "anna@demo.example", Domain: "demo.example", Ledger: "clean", Verified: true, Exposed: true,
		Attempts: 2, Refused: "policy", Action: "deny", By: []string{"canonical-host"}, Policy: "enforced@0123456789ab",
		Decided: time.Date(2026, 11, 21, 16, 45, 1, 0, time.UTC), Rule: "canonical-host", Stage: time.Date(2026, 10, 31, 23, 0, 0, 0, time.UTC),
		Bucket: new(int), Exception: "ex-017", Told: true,
		Hold: &Hold{Cap: "notify", Reason: "hotline is full", Owner: "support-l2",
			Since: time.Date(2026, 11, 21, 16, 0, 0, 0, time.UTC), Until: time.Date(2026, 11, 21, 20, 0, 0, 0, time.UTC)},
		Backend: "127.0.0.1:143", BytesIn: 312, BytesOut: 4711, Seconds: 12.5,
		End: "CR", Reason: "client_closed", Sentence: "the client closed the connection",
	}
}

// TestSchema holds the bytes of version 1: whoever reads the log depends on them.
func TestSchema(t *testing.T) {
	full, err := Encode(sample())
	if err != nil {
		t.Fatal(err)
	}
	bare, err := Encode(&Session{})
	if err != nil {
		t.Fatal(err)
	}
	got := string(full) + string(bare)
	const golden = "testdata/v1.jsonl"
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("the schema changed:\n%s\nwas\n%s", got, want)
	}
	var back Session
	if err := json.Unmarshal(full, &back); err != nil {
		t.Fatal(err)
	}
	again, err := Encode(&back)
	if err != nil || string(again) != string(full) {
		t.Errorf("read back and written again: %s, %v", again, err)
	}
}

func TestEveryFieldIsSampledAndDocumented(t *testing.T) {
	v := reflect.ValueOf(*sample())
	for i, f := range Fields() {
		if f.Doc == "" || f.Name == "" {
			t.Errorf("field %d (%s) has no documentation", i, f.Name)
		}
		if f.Name != "v" && f.Name != "event" && v.Field(i).IsZero() {
			t.Errorf("the golden sample leaves %s out", f.Name)
		}
	}
}

func TestStrangersCannotForgeLines(t *testing.T) {
	s := sample()
	s.SNI = "a\r\n{\"event\":\"session\"}\x00\xff"
	line, err := Encode(s)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(line), "\n"); n != 1 || !json.Valid(line) {
		t.Errorf("%d lines: %q", n, line)
	}
}

// clock is set by the test.
func logAt(t *testing.T, keep time.Duration) (l *Log, clock *time.Time, dir string) {
	t.Helper()
	dir = t.TempDir()
	l, err := Open(filepath.Join(dir, "events.jsonl"), keep)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	now := time.Now()
	l.now = func() time.Time { return now }
	return l, &now, dir
}

func record(t *testing.T, l *Log, id string) {
	t.Helper()
	if err := l.Record(&Session{ID: id}); err != nil {
		t.Fatal(err)
	}
}

func names(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return strings.Join(all, " ")
}

func TestRotatesDailyAndExpires(t *testing.T) {
	l, clock, dir := logAt(t, 48*time.Hour)
	first := *clock
	for range 5 {
		record(t, l, "a")
		*clock = clock.Add(24 * time.Hour)
	}
	record(t, l, "last")
	date := func(n int) string { return "events-" + first.AddDate(0, 0, n).UTC().Format(day) + ".jsonl" }
	if got, want := names(t, dir), strings.Join([]string{date(3), date(4), "events.jsonl"}, " "); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	st, err := os.Stat(filepath.Join(dir, "events.jsonl"))
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
}

// TestExpiresByTheClock: days without events take the past ones away too, and leave
// no file themselves.
func TestExpiresByTheClock(t *testing.T) {
	l, clock, dir := logAt(t, 48*time.Hour)
	first := *clock
	old := func(n int) string { return "events-" + first.AddDate(0, 0, n).UTC().Format(day) + ".jsonl" }
	step := func(want ...string) {
		t.Helper()
		for range 2 { // the second changes nothing
			if err := l.Expire(); err != nil {
				t.Error(err)
			}
			if got := names(t, dir); got != strings.Join(want, " ") {
				t.Errorf("after %v: %s, want %s", clock.Sub(first), got, want)
			}
		}
		*clock = clock.Add(24 * time.Hour)
	}
	record(t, l, "a")
	step("events.jsonl")
	step(old(0), "events.jsonl")
	record(t, l, "b")
	step(old(0), "events.jsonl")
	step(old(2), "events.jsonl")
	step(old(2), "events.jsonl")
	step("events.jsonl")
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	step("events.jsonl")

	// What an earlier run has left behind goes at the start.
	path := filepath.Join(dir, "events.jsonl")
	if err := os.WriteFile(path, []byte("{}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	left := first.AddDate(0, 0, -1)
	if err := os.Chtimes(path, left, left); err != nil {
		t.Fatal(err)
	}
	again, err := Open(path, 48*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	again.now = func() time.Time { return first }
	if err := again.Expire(); err != nil || names(t, dir) != old(-1)+" events.jsonl" {
		t.Errorf("a file of yesterday: %s (%v)", names(t, dir), err)
	}
	again.now = func() time.Time { return first.AddDate(0, 0, 2) }
	if err := again.Expire(); err != nil || names(t, dir) != "events.jsonl" {
		t.Errorf("two days later: %s (%v)", names(t, dir), err)
	}
}

func TestReopenAfterRename(t *testing.T) {
	l, _, dir := logAt(t, 0)
	record(t, l, "one")
	path := filepath.Join(dir, "events.jsonl")
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	if err := l.Reopen(); err != nil {
		t.Fatal(err)
	}
	record(t, l, "two")
	for name, id := range map[string]string{path + ".1": "one", path: "two"} {
		b, err := os.ReadFile(name)
		if err != nil || !strings.Contains(string(b), id) || strings.Count(string(b), "\n") != 1 {
			t.Errorf("%s: %q, %v", filepath.Base(name), b, err)
		}
	}
}

// TestTroubleWithOldFilesLosesNoEvent puts something in the way of the deletion,
// then of the renaming: it is reported, and the event is written all the same.
func TestTroubleWithOldFilesLosesNoEvent(t *testing.T) {
	l, clock, dir := logAt(t, 24*time.Hour)
	record(t, l, "old")
	if err := os.MkdirAll(filepath.Join(dir, "events-2000-01-01.jsonl", "full"), 0o700); err != nil {
		t.Fatal(err)
	}
	*clock = clock.Add(24 * time.Hour)
	if err := l.Record(&Session{ID: "undeleted"}); err == nil || !strings.Contains(err.Error(), "deleting an old event log") {
		t.Errorf("got %v", err)
	}
	record(t, l, "next")
	*clock = clock.Add(24 * time.Hour)
	path := filepath.Join(dir, "events.jsonl")
	blocked := filepath.Join(dir, "blocked")
	if err := os.Rename(path, blocked); err != nil {
		t.Fatal(err)
	}
	l.path = filepath.Join(blocked, "events.jsonl") // a file is no directory
	if err := l.Record(&Session{ID: "unrenamed"}); err == nil || !strings.Contains(err.Error(), "rotating the event log") {
		t.Errorf("got %v", err)
	}
	b, err := os.ReadFile(blocked)
	if err != nil || strings.Count(string(b), "\n") != 3 || !strings.Contains(string(b), "unrenamed") {
		t.Errorf("%q, %v", b, err)
	}
}

func TestAFailedWriteIsReported(t *testing.T) {
	l, _, _ := logAt(t, 0)
	l.file.Close()
	if err := l.Record(&Session{}); err == nil {
		t.Error("a lost event went unnoticed")
	}
	if err := l.Reopen(); err != nil {
		t.Fatal(err)
	}
	record(t, l, "again")
}

// BenchmarkEncode is what the event of a session costs, without the write.
func BenchmarkEncode(b *testing.B) {
	s := sample()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Encode(s); err != nil {
			b.Fatal(err)
		}
	}
}
