package main

import (
	"bytes"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"mailreeve/outreach/traffic"
)

func TestIntakeTable(t *testing.T) {
	r := &Intake{
		Made: "2027-01-02 03:04 UTC", Machine: "2 x a processor", Command: "go run ./bench -intake",
		Accounts: 100_000, Seen: 40_000, Days: 30, Events: 10_000_000, Bytes: 10_500_000_000,
		Import:   Cost{10_000_000, 80, 130, 200 << 20},
		FirstDay: Cost{330_000, 2.5, 4, 150 << 20},
		LastDay:  Cost{330_000, 3, 5, 200 << 20},
		Ledger:   120 << 20,
		Asked:    []Asked{{"outreach report", Cost{0, 5, 5.5, 60 << 20}}},
	}
	golden(t, "intake.md", r.markdown())
}

// A few customers for a few days: everything runs, and what the program answers is what it must.
func TestIntake(t *testing.T) {
	if testing.Short() || runtime.GOOS != "linux" {
		t.Skip("builds and runs the program, on Linux; left out by -short")
	}
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	ours := bytes.Repeat([]byte{1}, 300<<20) // which is not to be counted as theirs
	r, err := measureIntake(t.Context(), options{tree: ".."}, traffic.Plan{Seed: 1, Accounts: 400, Days: 4})
	runtime.KeepAlive(ours)
	if err != nil {
		t.Fatal(err)
	}
	costs := []Cost{r.Import, r.FirstDay, r.LastDay}
	for _, a := range r.Asked {
		costs = append(costs, a.Cost)
	}
	for _, c := range costs {
		if c.Seconds <= 0 || c.CPU <= 0 || c.Memory < 1<<20 || c.Memory > 200<<20 {
			t.Errorf("%+v", c)
		}
	}
	if r.Events == 0 || r.Import.Events != r.Events || r.Seen == 0 || r.Seen > r.Accounts || r.Ledger == 0 || len(r.Asked) != 2 {
		t.Errorf("%+v", r)
	}
	if left, err := os.ReadDir(tmp); err != nil || len(left) > 0 {
		t.Errorf("left over: %v, %v", left, err)
	}
}

// What cannot be measured is no number: the tree of another program has no ledger to fill.
func TestIntakeFails(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "go.mod"), []byte("module other\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if r, err := measureIntake(t.Context(), options{tree: dir}, traffic.Plan{Accounts: 10, Days: 2}); err == nil {
		t.Errorf("it measured %+v", r)
	}
}
