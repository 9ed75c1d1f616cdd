package main

// Memory that a burst of logins or mail has left behind.

import (
	"os"
	"runtime/debug"
	numbers "runtime/metrics"
	"time"
)

const (
	// tidyEvery is how often it is looked whether the program is silent.
	tidyEvery = 500 * time.Millisecond
	// silence is how much may be allocated in that time where nothing much happens:
	// by one login.
	silence = 64 << 10
	// growth is what the heap may always grow by before it is collected. More saves
	// little, and what outlives the garbage then lies scattered in more memory.
	growth = 8 << 20
)

// tidy sees to it that the program collects garbage when it has nothing better to do.
// Go's collector works when the heap has grown to the double, or after two minutes.
//
// That is too often for a program with few sessions that is busy: each login leaves
// 50 KB behind, and to collect every eighty of them was 8 % of their CPU. So the heap
// may always grow by 8 MB, unless GOGC says something else.
//
// And it is too seldom for one whose sessions are silent for hours: what is left of
// the last burst would be most of its memory for as long. So it collects when there
// has been silence for a second and at least growth, and an eighth of what lives, was
// allocated since the last time, and gives the memory back to the system. How much of
// that is garbage nobody knows before; nor how much else has become so.
type tidy struct {
	samples []numbers.Sample
	before  uint64 // allocated since the start, when it was last looked
	silent  int    // looks in a row
	tidied  uint64 // allocated when it last collected
	percent uint64 // in force, of what GOGC says; 0: Go's own
}

// look is called every tidyEvery, and collects when the time has come.
func (t *tidy) look() {
	if t.samples == nil {
		t.samples = []numbers.Sample{{Name: "/gc/heap/allocs:bytes"}, {Name: "/gc/heap/live:bytes"}}
	}
	numbers.Read(t.samples)
	allocated, live := t.samples[0].Value.Uint64(), t.samples[1].Value.Uint64()
	if os.Getenv("GOGC") == "" {
		t.grant(live)
	}
	if t.silent++; allocated-t.before > silence {
		t.silent = 0
	}
	t.before = allocated
	if t.silent >= 2 && allocated-t.tidied > max(growth, live/8) {
		t.tidied = allocated
		debug.FreeOSMemory()
	}
}

// grant lets the heap grow by growth, or to the double.
func (t *tidy) grant(live uint64) {
	percent := max(100, 100*growth/max(live, 1<<20))
	if percent > t.percent+t.percent/4 || percent < t.percent-t.percent/4 {
		t.percent = percent
		debug.SetGCPercent(int(percent))
	}
}
