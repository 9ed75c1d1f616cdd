package main

// Memory that a burst of logins or mail has left behind.

import (
	"runtime/debug"
	numbers "runtime/metrics"
	"time"
)

const (
	// tidyEvery is how often it is looked whether the program is silent.
	tidyEvery = 500 * time.Millisecond
	// silence is how much may be allocated in that time where nothing much happens: by
	// half a dozen logins.
	silence = 512 << 10
	// litter is the least that must have been allocated before it is worth a collection.
	litter = 1 << 20
)

// tidy collects garbage when the program falls silent, and gives its memory back to
// the system. Go's collector works when the heap has grown to the double, or after
// two minutes: in a proxy whose sessions are silent for hours, what is left of the
// last burst would be most of its memory for as long.
//
// A busy program never comes to it, and one that is idle does it once: there must be
// silence, and since the last time an eighth of what lives must have been allocated.
// How much of that is garbage nobody knows before; nor how much else has become so.
type tidy struct {
	samples []numbers.Sample
	before  uint64 // allocated since the start, when it was last looked
	tidied  uint64 // the same, when it last collected
}

// look is called every tidyEvery, and collects when the time has come.
func (t *tidy) look() {
	if t.samples == nil {
		t.samples = []numbers.Sample{{Name: "/gc/heap/allocs:bytes"}, {Name: "/gc/heap/live:bytes"}}
	}
	numbers.Read(t.samples)
	allocated, live := t.samples[0].Value.Uint64(), t.samples[1].Value.Uint64()
	silent := allocated-t.before < silence
	t.before = allocated
	if silent && allocated-t.tidied > max(litter, live/8) {
		t.tidied = allocated
		debug.FreeOSMemory()
	}
}
