package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"mailreeve/config"
	"mailreeve/events"
	"mailreeve/policy"
)

// TestEventsGoByThemselves: on days on which nobody comes, too.
func TestEventsGoByThemselves(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		log, err := events.Open(filepath.Join(dir, "events.jsonl"), 24*time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		d := &daemonized{log: zap.NewNop(), config: &config.Config{}, events: log, policy: &inForce{log: zap.NewNop(), set: func(*policy.Hold) {}}}
		d.policy.put(policy.Enforced(), "")
		signals, over := make(chan os.Signal), make(chan bool)
		go func() {
			defer close(over)
			d.serve(signals)
		}()
		if err := log.Record(&events.Session{ID: "A1"}); err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			until time.Duration // of the bubble, which begins at midnight of a day in UTC
			want  []string
		}{
			{23*time.Hour + time.Minute, []string{"events.jsonl"}},
			{24*time.Hour + time.Minute, []string{"events-2000-01-01.jsonl", "events.jsonl"}},
			{47*time.Hour + time.Minute, []string{"events-2000-01-01.jsonl", "events.jsonl"}},
			{48*time.Hour + time.Minute, []string{"events.jsonl"}},
		} {
			time.Sleep(time.Until(newYear(1, 0).Add(c.until)))
			var names []string
			entries, err := os.ReadDir(dir)
			for _, e := range entries {
				names = append(names, e.Name())
			}
			if !slices.Equal(names, c.want) {
				t.Errorf("after %v: %q (%v), want %q", c.until, names, err, c.want)
			}
		}
		signals <- syscall.SIGTERM
		<-over
		if err := log.Close(); err != nil {
			t.Error(err)
		}
	})
}

// TestOldEventsGoAtTheStart: of a program that was off in the meantime.
func TestOldEventsGoAtTheStart(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.configure(listeners, rest+"events: { file: e.jsonl, keep: 24h }\n")
	s.write("e-2000-01-01.jsonl", "{}\n")
	s.write("e.jsonl", "{}\n")
	long := time.Now().AddDate(0, 0, -3)
	if err := os.Chtimes(s.path("e.jsonl"), long, long); err != nil {
		t.Fatal(err)
	}
	s.run()
	for _, name := range []string{"e-2000-01-01.jsonl", "e-" + long.UTC().Format(time.DateOnly) + ".jsonl"} {
		if _, err := os.Stat(s.path(name)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is there still (%v)", name, err)
		}
	}
	if text, err := os.ReadFile(s.path("e.jsonl")); err != nil || len(text) != 0 {
		t.Errorf("the file of today holds %q (%v)", text, err)
	}
}
