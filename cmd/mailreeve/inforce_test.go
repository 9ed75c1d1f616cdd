package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"mailreeve/policy"
)

// watched is an inForce with what it says and sets. The bubble's clock begins on
// 1 January 2000.
func watched(t *testing.T) (w *inForce, told func() []string, hold **policy.Hold) {
	t.Helper()
	core, logs := observer.New(zap.InfoLevel)
	hold = new(*policy.Hold)
	w = &inForce{log: zap.New(core), set: func(h *policy.Hold) { *hold = h }}
	told = func() (lines []string) {
		for _, e := range logs.TakeAll() {
			lines = append(lines, e.Message)
		}
		return lines
	}
	return w, told, hold
}

func newYear(day, hour int) time.Time { return time.Date(2000, 1, day, hour, 0, 0, 0, time.UTC) }

func twoStages(t *testing.T) *policy.Policy {
	t.Helper()
	p, err := policy.New("two", []policy.Requirement{{ID: "encrypted", Finding: policy.Plaintext,
		Require: policy.Matcher{{Fact: policy.TLS, Not: true, Values: []string{policy.None}}},
		Stages:  []policy.Stage{{From: newYear(1, 0), Do: policy.Observe}, {From: newYear(1, 1), Do: policy.Deny}}}})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func saidExactly(t *testing.T, when string, told func() []string, want ...string) {
	t.Helper()
	if got := told(); !slices.Equal(got, want) {
		t.Errorf("%s: said %q, want %q", when, got, want)
	}
}

func TestStagesAreSaidAtTheirMoment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, told, _ := watched(t)
		w.put(twoStages(t), "")
		w.say()
		saidExactly(t, "at the start", told, "policy in force")
		time.Sleep(time.Hour - time.Nanosecond)
		w.tick()
		saidExactly(t, "before the stage", told)
		if got := stageNumber(t, w); got != 1 {
			t.Errorf("the numbers say stage %v, want 1", got)
		}
		time.Sleep(time.Nanosecond)
		w.tick()
		w.tick()
		saidExactly(t, "at the stage", told, "the policy's clock: encrypted: deny")
		if got := stageNumber(t, w); got != 2 {
			t.Errorf("the numbers say stage %v, want 2", got)
		}
	})
}

// stageNumber is what a scrape says of the requirement's stage.
func stageNumber(t *testing.T, w *inForce) float64 {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(w)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "mailreeve_policy_stage" {
			return f.Metric[0].Gauge.GetValue()
		}
	}
	t.Fatal("there is no number of the stage")
	return 0
}

func TestHoldComesAndGoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "hold.json")
		w, told, hold := watched(t)
		w.put(twoStages(t), path)
		saidExactly(t, "without a file", told)

		h := &policy.Hold{Cap: policy.Notify, Reason: "calls", Owner: "anna", Since: newYear(1, 0), Until: newYear(1, 2)}
		if err := writeHold(path, h); err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("the file has mode %v (%v)", info.Mode(), err)
		}
		w.tick()
		w.tick()
		saidExactly(t, "with a hold", told, "a hold is in force: nothing meets more than notify")
		if *hold == nil || (*hold).Cap != policy.Notify || (*hold).Owner != "anna" {
			t.Errorf("in force is %+v", *hold)
		}

		// A broken file changes nothing, and is told once.
		if err := os.WriteFile(path, []byte(`{"cap": "notfy"}`), 0o600); err != nil {
			t.Fatal(err)
		}
		w.tick()
		w.tick()
		saidExactly(t, "with a broken file", told, "the hold cannot be read; what was in force stays so")
		if *hold == nil {
			t.Error("a broken file lifted the hold")
		}

		// It ends by itself.
		if err := writeHold(path, h); err != nil {
			t.Fatal(err)
		}
		w.tick()
		told()
		time.Sleep(2 * time.Hour)
		w.tick()
		w.tick()
		saidExactly(t, "at its end", told, "the policy's clock: encrypted: deny", "the hold has ended: the policy is in force as it stands")

		// A restart finds it ended; without the file it is lifted.
		again, toldAgain, _ := watched(t)
		again.put(twoStages(t), path)
		saidExactly(t, "after a restart", toldAgain, "there is a hold that has ended")
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		w.tick()
		saidExactly(t, "without the file", told, "the hold is lifted: the policy is in force as it stands")
		if *hold != nil {
			t.Error("the hold is still in force")
		}
	})
}

func TestRehearsalIsLoud(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "hold.json")
		h := &policy.Hold{Cap: policy.Notify, Reason: "calls", Owner: "anna", Since: newYear(1, 0), Until: newYear(1, 2)}
		if err := writeHold(path, h); err != nil {
			t.Fatal(err)
		}
		w, told, hold := watched(t)
		w.shift = 48 * time.Hour
		w.put(twoStages(t), path)
		told()
		if !(*hold).Since.Equal(newYear(3, 0)) {
			t.Errorf("the hold is in force since %v, which the policy's clock does not know", (*hold).Since)
		}
		loud := 0
		for range 121 {
			w.tick()
			for _, line := range told() {
				if strings.HasPrefix(line, "a rehearsal: ") {
					loud++
				}
			}
			time.Sleep(time.Second)
		}
		if loud != 3 {
			t.Errorf("said %d times in two minutes that it is a rehearsal, want 3", loud)
		}
	})
}

func TestParseHold(t *testing.T) {
	good := `{"cap":"notify","reason":"calls","owner":"anna","since":"2026-01-01T00:00:00Z","until":"2026-01-02T00:00:00Z"}`
	if _, err := parseHold([]byte(good)); err != nil {
		t.Errorf("a good one: %v", err)
	}
	for _, c := range []struct{ old, with, want string }{
		{`"cap":"notify",`, "", "cap is missing"},
		{`"notify"`, `"notfy"`, `"notfy" is not an action`},
		{`"calls"`, `""`, "reason or owner is missing"},
		{`"anna"`, `""`, "reason or owner is missing"},
		{`"2026-01-02T`, `"2026-01-01T`, "until is not later"},
		{`"2026-01-02T`, `"2026-02-02T`, "longer than 30 days"},
		{`"owner"`, `"ower"`, `unknown field "ower"`},
		{`00Z"}`, `00Z"} {}`, "something stands behind"},
		{good, "", "it is no hold"},
		{good, strings.Repeat(" ", mostHold+1), "too long"},
	} {
		_, err := parseHold([]byte(strings.Replace(good, c.old, c.with, 1)))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s for %s: got %v, want %q", c.with, c.old, err, c.want)
		}
	}
}

func FuzzParseHold(f *testing.F) {
	f.Add([]byte(`{"cap":"notify","reason":"calls","owner":"anna","since":"2026-01-01T00:00:00Z","until":"2026-01-02T00:00:00Z"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if h, err := parseHold(data); err == nil && (h.Cap > policy.Refuse || !h.Since.Before(h.Until)) {
			t.Errorf("took %+v", h)
		}
	})
}
