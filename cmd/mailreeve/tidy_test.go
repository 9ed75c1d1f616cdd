package main

import (
	"runtime"
	"runtime/debug"
	"testing"
)

// TestTidy: memory goes back once, when the program falls silent.
func TestTidy(t *testing.T) {
	collections := func() uint32 {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.NumGC
	}
	var memory tidy
	litter := make([][]byte, 64)
	for i := range litter {
		litter[i] = make([]byte, 1<<20)
	}
	runtime.KeepAlive(litter)
	before := collections()
	memory.look() // much has been allocated since the start
	if n := collections(); n != before {
		t.Errorf("%d collections while the program is busy", n-before)
	}
	memory.look()
	if n := collections(); n != before {
		t.Errorf("%d collections before it is sure of the silence", n-before)
	}
	memory.look()
	if collections() == before {
		t.Error("no collection in silence")
	}
	before = collections()
	for range 10 {
		memory.look()
	}
	if n := collections(); n != before {
		t.Errorf("%d more collections without anything to collect", n-before)
	}
}

// TestTidyTrickle: some logins now and then are no reason to collect after each.
func TestTidyTrickle(t *testing.T) {
	for _, logins := range []int{1, 4, 8} { // each half second
		var memory tidy
		for range 3 {
			memory.look()
		}
		var kept [][]byte
		tidied := memory.tidied
		times := 0
		const looks = 120
		for range looks {
			for range logins {
				kept = append(kept[:0], make([]byte, 50<<10))
			}
			memory.look()
			if memory.tidied != tidied {
				times++
				tidied = memory.tidied
			}
		}
		if most := looks * logins * 50 << 10 / growth; times > most {
			t.Errorf("%d logins in %d looks: %d collections", logins*looks, looks, times)
		}
	}
}

// TestTidyGrants: a small heap may grow by more than its double, a large one not.
func TestTidyGrants(t *testing.T) {
	before := debug.SetGCPercent(100)
	defer debug.SetGCPercent(before)
	percent := func() int {
		p := debug.SetGCPercent(100)
		debug.SetGCPercent(p)
		return p
	}
	var memory tidy
	for _, step := range []struct {
		live uint64
		want int
	}{{0, 800}, {2 << 20, 400}, {2<<20 + 1, 400}, {4 << 20, 200}, {1 << 30, 100}, {3 << 20, 266}} {
		memory.grant(step.live)
		if got := percent(); got != step.want {
			t.Errorf("%d bytes live: GOGC %d, want %d", step.live, got, step.want)
		}
	}
}
