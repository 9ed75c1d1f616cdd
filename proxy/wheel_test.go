package proxy

import (
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

// mute is a port to which nothing happens.
type mute struct{ port }

func (mute) heed() bool            { return false }
func (mute) owed() int             { return 0 }
func (mute) settle() (bool, error) { return false, nil }
func (mute) reset() error          { return nil }
func (mute) Close() error          { return nil }

// wheeled is a relay in which nothing moves by itself.
func wheeled(w *wheel, idle time.Duration, over func()) *relay {
	client, backend := newPair("192.0.2.1:1", "192.0.2.2:2")
	r := newRelay(NewWire(client), NewWire(backend), idle, w)
	r.near, r.far, r.heard, r.answered = mute{}, mute{}, false, false
	r.over = func(*Ending) { over() }
	r.start()
	return r
}

// TestWheel: whatever moves when, a relay ends when it has been silent for as long as
// is allowed, not before and at most two ticks later.
func TestWheel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		type one struct {
			idle  time.Duration
			moves []time.Duration // from one to the next
		}
		relays := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) one {
			idle := rapid.IntRange(1, 5000).Draw(t, "idle") // seconds: beyond what the wheel looks ahead
			return one{time.Duration(idle) * time.Second, rapid.SliceOfN(rapid.Custom(func(t *rapid.T) time.Duration {
				return time.Duration(rapid.IntRange(0, idle*1000-1).Draw(t, "pause")) * time.Millisecond
			}), 0, 4).Draw(t, "moves")}
		}), 1, 5).Draw(rt, "relays")
		synctest.Test(t, func(t *testing.T) {
			w := new(wheel)
			var all sync.WaitGroup
			defer all.Wait()
			for i, o := range relays {
				time.Sleep(time.Duration(i) * 77 * time.Millisecond)
				var ended atomic.Bool
				r := wheeled(w, o.idle, func() { ended.Store(true) })
				all.Go(func() {
					for _, pause := range o.moves {
						time.Sleep(pause)
						r.touch()
					}
					time.Sleep(o.idle - time.Nanosecond)
					if ended.Load() {
						t.Errorf("relay %d: ended before %v", i, o.idle)
					}
					time.Sleep(2*tick + time.Nanosecond)
					synctest.Wait()
					if !ended.Load() {
						t.Errorf("relay %d: goes on after %v", i, o.idle)
						r.ask(toEnd)
					}
				})
			}
		})
	})
}

// TestWheelStands: it turns only while there is something to look after.
func TestWheelStands(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := new(wheel)
		for range 3 {
			r := wheeled(w, time.Hour, func() {})
			time.Sleep(90 * time.Minute)
			synctest.Wait()
			if w.held != 0 || !r.ended {
				t.Errorf("%d relays are left", w.held)
			}
			time.Sleep(time.Minute)
		}
	})
}

// TestWheelAfterSleep: when the machine has slept for longer than the wheel looks
// ahead, every relay is looked at once.
func TestWheelAfterSleep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := new(wheel)
		var relays []*relay
		for i := range 10 {
			relays = append(relays, wheeled(w, time.Duration(i+1)*time.Minute, func() {}))
		}
		w.mu.Lock()
		w.began = w.began.Add(-5 * time.Hour) // as if so much had passed
		w.mu.Unlock()
		time.Sleep(2 * tick)
		synctest.Wait()
		for i, r := range relays {
			if !r.ended {
				t.Errorf("relay %d goes on", i)
				r.ask(toEnd)
			}
		}
	})
}

// TestManyRelaysRest: what costs memory goes soon after the last byte, and only then.
func TestManyRelaysRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := new(wheel)
		r := wheeled(w, time.Hour, func() {})
		defer r.ask(toEnd)
		for i := range 20 {
			time.Sleep(restAfter - time.Millisecond)
			if !r.warm.Load() {
				t.Fatalf("after move %d: given back while bytes move", i)
			}
			r.touch()
		}
		time.Sleep(restAfter + 2*tick)
		if r.warm.Load() {
			t.Error("nothing was given back in silence")
		}
	})
}
