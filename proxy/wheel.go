package proxy

// Time-outs of relays, without a timer for each: a wheel of slots.

import (
	"sync"
	"sync/atomic"
	"time"
)

const (
	// tick is how exact a relay's times are; none is ever shorter than it should be.
	tick = time.Second / 4
	// wheelSlots is how far the wheel looks ahead: an hour, so that an idle session is
	// looked at once in its time. What is due later is looked at and put back.
	wheelSlots = 4 * 3600
)

// ticks returns how many ticks a time takes.
func ticks(d time.Duration) int64 { return int64((d + tick - 1) / tick) }

// wheel looks after the times of relays. Its goroutine runs while it has any, so
// that an idle program sleeps. The zero wheel is ready.
type wheel struct {
	ticks atomic.Int64 // since it was first used

	mu    sync.Mutex // guards the following, and the relays' places
	began time.Time
	slots []*relay      // the first of each list
	held  int           // relays
	empty chan struct{} // closed when the last one goes
}

// now returns the current tick. It costs nothing, and is late by a tick, or by as
// long as the relays take that are asked something: times become longer by it.
func (w *wheel) now() int64 { return w.ticks.Load() }

// begin takes a relay in.
func (w *wheel) begin(r *relay) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.slots == nil {
		w.slots, w.began = make([]*relay, wheelSlots), time.Now()
	}
	if w.held++; w.held == 1 {
		w.ticks.Store(int64(time.Since(w.began) / tick))
		w.empty = make(chan struct{})
		go w.run(w.empty)
	}
	r.active.Store(w.now())
	r.warm.Store(true)
	w.put(r)
}

// replace puts a relay where it belongs, after its times have changed.
func (w *wheel) replace(r *relay) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if r.slot >= 0 {
		w.take(r)
		w.put(r)
	}
}

// remove lets a relay go.
func (w *wheel) remove(r *relay) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if r.slot >= 0 {
		w.take(r)
		if w.held--; w.held == 0 {
			close(w.empty)
		}
	}
}

func (w *wheel) put(r *relay) {
	r.slot = int(max(r.visit(), w.now()+1) % wheelSlots)
	r.prev, r.next = nil, w.slots[r.slot]
	if r.next != nil {
		r.next.prev = r
	}
	w.slots[r.slot] = r
}

func (w *wheel) take(r *relay) {
	if r.next != nil {
		r.next.prev = r.prev
	}
	if r.prev != nil {
		r.prev.next = r.next
	} else {
		w.slots[r.slot] = r.next
	}
	r.next, r.prev, r.slot = nil, nil, -1
}

// run looks at one slot after the other, until there is no relay.
func (w *wheel) run(empty <-chan struct{}) {
	each := time.NewTicker(tick)
	defer each.Stop()
	for {
		select {
		case <-each.C:
			for _, a := range w.advance() {
				a.relay.ask(a.what)
			}
		case <-empty:
			return
		}
	}
}

// errand is what a relay is to be asked.
type errand struct {
	relay *relay
	what  uint32
}

// advance goes on to the current tick and collects what is to be asked. Every
// relay it looks at stays in the wheel, where its times say now.
func (w *wheel) advance() (asks []errand) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := int64(time.Since(w.began) / tick)
	from := max(w.now(), now-wheelSlots) // after a long sleep of the machine: each slot once
	w.ticks.Store(now)
	for t := from + 1; t <= now; t++ {
		r := w.slots[t%wheelSlots]
		w.slots[t%wheelSlots] = nil
		for r != nil {
			next := r.next
			if what := r.wants(); what != 0 {
				asks = append(asks, errand{r, what})
			}
			w.put(r)
			r = next
		}
	}
	return asks
}
