package main

// The works: what load is driven at a proxy and what is read off it.

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// values are what a work has measured, by the names of its metrics.
type values map[string]float64

// metric is one number that a work yields. Less is better, but for those that say more.
type metric struct {
	name, title, unit string
	more              bool
	budget            *budget
}

// work is one kind of load.
type work struct {
	name, title string
	metrics     []metric
	run         func(*stage) (values, error)
	warm        func(cs *clients, ctx context.Context, number int) error // a session before the clock starts
	starttls    bool                                                     // it needs a port with STARTTLS
	memory      bool                                                     // it is memory that is measured: profile the heap
}

// scale is how much load is driven.
type scale struct {
	logins, alone        int
	noops, noopsBusy     int // of one session; of each of 32
	transfers            int // of 4 MB each, by each of 4 sessions
	idle, idleMany, used int // sessions
	burst                int // clients
}

var (
	full  = scale{logins: 2000, alone: 100, noops: 5000, noopsBusy: 1500, transfers: 32, idle: 1000, idleMany: 9900, used: 1000, burst: 5000}
	quick = scale{logins: 300, alone: 20, noops: 1000, noopsBusy: 200, transfers: 6, idle: 300, idleMany: 2000, used: 200, burst: 800}

	// A profile has a hundred samples in a second, so the loads are longer.
	profiled = scale{logins: 8000, noops: 40000, noopsBusy: 6000, transfers: 150, idle: 1000, idleMany: 9900, used: 1000}
)

// in fills the numbers into a title.
func (n scale) in(title string) string {
	return strings.NewReplacer("{idle}", thousands(n.idle), "{many}", thousands(n.idleMany),
		"{used}", thousands(n.used), "{burst}", thousands(n.burst)).Replace(title)
}

// together is how many clients log in at the same time, unless it is a burst.
const together = 32

var works = []*work{
	{
		name: "login", title: "login: TLS 1.3 full handshake, LOGIN, LOGOUT", warm: (*clients).loginSession,
		metrics: []metric{
			{name: "cpu", title: "CPU per login: full handshake, LOGIN, LOGOUT", unit: "us", budget: &budget{times: 0.7, of: []string{"nginx"}}},
			{name: "rate", title: "logins each second, with driver and backend on the same processors", unit: "1/s", more: true},
		},
		run: sessionWork((*clients).loginSession),
	},
	{
		name: "resumed", title: "the same with a ticket", warm: (*clients).loginSession,
		metrics: []metric{
			{name: "cpu", title: "CPU per login, session resumed", unit: "us"},
			{name: "resumed", title: "handshakes that were resumed indeed", unit: "%", more: true},
		},
		run: resumedWork,
	},
	{
		name: "starttls", title: "the same with STARTTLS", starttls: true, warm: (*clients).starttlsSession,
		metrics: []metric{{name: "cpu", title: "CPU per login with STARTTLS", unit: "us"}},
		run:     sessionWork((*clients).starttlsSession),
	},
	{
		name: "pop3", title: "POP3: login, STAT, QUIT", warm: (*clients).pop3Session,
		metrics: []metric{{name: "cpu", title: "CPU per POP3 login + STAT", unit: "us", budget: &budget{times: 0.9, of: []string{"nginx", "haproxy"}}}},
		run:     sessionWork((*clients).pop3Session),
	},
	{
		name: "submission", title: "submission of a mail of 10 KB", warm: (*clients).submissionSession,
		metrics: []metric{{name: "cpu", title: "CPU per submission of 10 KB", unit: "us", budget: &budget{times: 0.9, of: []string{"nginx", "haproxy"}}}},
		run:     sessionWork((*clients).submissionSession),
	},
	{
		name: "noop1", title: "NOOP by one session, all else silent", warm: (*clients).loginSession,
		metrics: []metric{
			{name: "cpu", title: "CPU per NOOP, one session, else idle", unit: "us", budget: &budget{times: 1, of: []string{"haproxy"}}},
			{name: "median", title: "NOOP round trip, one session, median", unit: "us"},
			{name: "p99", title: "NOOP round trip, one session, 99th percentile", unit: "us"},
		},
		run: func(s *stage) (values, error) { return noopWork(s, 1, s.scale.noops) },
	},
	{
		name: "noop32", title: "NOOP by 32 sessions at once", warm: (*clients).loginSession,
		metrics: []metric{
			{name: "cpu", title: "CPU per NOOP, 32 sessions busy", unit: "us", budget: &budget{times: 1, of: []string{"nginx"}}},
			{name: "median", title: "NOOP round trip, 32 sessions busy, median", unit: "us"},
			{name: "p99", title: "NOOP round trip, 32 sessions busy, 99th percentile", unit: "us"},
		},
		run: func(s *stage) (values, error) { return noopWork(s, 32, s.scale.noopsBusy) },
	},
	{
		name: "fetch", title: "fetching 4 MB again and again", warm: (*clients).loginSession,
		metrics: []metric{
			{name: "cpu", title: "CPU per GB fetched", unit: "s", budget: &budget{times: 0.55, of: []string{"nginx"}}},
			{name: "rate", title: "fetched each second, with driver and backend on the same processors", unit: "MB/s", more: true},
		},
		run: func(s *stage) (values, error) {
			buffers := [4][]byte{}
			return transferWork(s, func(k int, c *client) error {
				if buffers[k] == nil {
					buffers[k] = make([]byte, payloadSize)
				}
				return c.fetch(0, buffers[k])
			})
		},
	},
	{
		name: "append", title: "appending 4 MB again and again", warm: (*clients).loginSession,
		metrics: []metric{
			{name: "cpu", title: "CPU per GB appended", unit: "s", budget: &budget{times: 0.75, of: []string{"nginx"}}},
			{name: "rate", title: "appended each second, with driver and backend on the same processors", unit: "MB/s", more: true},
		},
		run: func(s *stage) (values, error) {
			return transferWork(s, func(_ int, c *client) error { return c.append(0, payloadSize) })
		},
	},
	{
		name: "idle1000", title: "{idle} silent sessions, fresh", warm: (*clients).loginSession, memory: true,
		metrics: []metric{{name: "memory", title: "memory per idle session, {idle} of them, fresh", unit: "KiB"}},
		run:     func(s *stage) (values, error) { return idleWork(s, s.scale.idle, false) },
	},
	{
		name: "idle9900", title: "{many} silent sessions, fresh", warm: (*clients).loginSession, memory: true,
		metrics: []metric{{name: "memory", title: "memory per idle session, {many} of them, fresh", unit: "KiB", budget: &budget{most: 8}}},
		run:     func(s *stage) (values, error) { return idleWork(s, s.scale.idleMany, false) },
	},
	{
		name: "used1000", title: "{used} silent sessions that have moved 4 x 100 KB each way", warm: (*clients).loginSession, memory: true,
		metrics: []metric{{name: "memory", title: "memory per idle session that has moved 4 x 100 KB", unit: "KiB", budget: &budget{most: 12}}},
		run:     func(s *stage) (values, error) { return idleWork(s, s.scale.used, true) },
	},
	{
		name: "alone", title: "one login after another, all else silent", warm: (*clients).loginSession,
		metrics: []metric{{name: "median", title: "one login, alone, median", unit: "ms", budget: &budget{times: 1, of: []string{"haproxy"}}}},
		run:     aloneWork,
	},
	{
		name: "burst", title: "{burst} clients at once", warm: (*clients).loginSession,
		metrics: []metric{
			{name: "time", title: "{burst} clients returning at once: all in after", unit: "s"},
			{name: "failed", title: "of these, not let in", unit: "clients", budget: &budget{none: true}},
		},
		run: burstWork,
	},
}

// stage is one proxy, running, and one work.
type stage struct {
	*running
	*clients
	ctx   context.Context
	scale scale
	probe probe // where a profile is taken
}

// probe hears when what is measured begins and ends.
type probe interface {
	of(process interface{ Signal(os.Signal) error })
	begin() error
	end() error
	heap(sessions int) error // 0 before the sessions
}

// usage is what a load has taken.
type usage struct {
	cpu, wall time.Duration
}

// measure drives a load and reads what the proxy has used of the processors meanwhile.
func (s *stage) measure(load func() error) (u usage, err error) {
	s.rest()
	if s.probe != nil {
		if err := s.probe.begin(); err != nil {
			return u, err
		}
	}
	before, err := readCPU(s.process.Pid())
	if err != nil {
		return u, err
	}
	began := time.Now()
	if err := load(); err != nil {
		return u, err
	}
	u.wall = time.Since(began)
	s.rest() // what the load has left to do belongs to it
	after, err := readCPU(s.process.Pid())
	if err != nil {
		return u, err
	}
	if u.cpu, err = after.since(before); err != nil {
		return u, err
	}
	if s.probe != nil {
		err = s.probe.end()
	}
	return u, err
}

// rest lets the proxy finish what it does, the same time for all.
func (s *stage) rest() {
	select {
	case <-time.After(100 * time.Millisecond):
	case <-s.ctx.Done():
	}
}

// since is the sum of what all processes have used between two readings. One that has ended
// in between has taken its account with it, so there is none.
func (after cpuTimes) since(before cpuTimes) (time.Duration, error) {
	total := time.Duration(0)
	for pid, t := range before {
		now, there := after[pid]
		if !there {
			return 0, fmt.Errorf("process %d of the proxy ended during the measurement", pid)
		}
		total += now - t
	}
	for pid, t := range after {
		if _, old := before[pid]; !old {
			total += t
		}
	}
	return total, nil
}

// spread does n things, numbered, some of them at the same time. The first error ends it.
func (s *stage) spread(n, together int, one func(worker, i int) error) error {
	ctx, cancel := context.WithCancelCause(s.ctx)
	defer cancel(nil)
	var next atomic.Int64
	var all sync.WaitGroup
	for worker := range together {
		all.Go(func() {
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				if err := one(worker, i); err != nil {
					cancel(fmt.Errorf("session %d: %w", i, err))
				}
			}
		})
	}
	all.Wait()
	return context.Cause(ctx)
}

func micros(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 }

// sessionWork is many whole sessions, some at a time.
func sessionWork(session func(*clients, context.Context, int) error) func(*stage) (values, error) {
	return func(s *stage) (values, error) {
		n := s.scale.logins
		u, err := s.measure(func() error {
			return s.spread(n, together, func(_, i int) error { return session(s.clients, s.ctx, i) })
		})
		if err != nil {
			return nil, err
		}
		return values{"cpu": micros(u.cpu) / float64(n), "rate": float64(n) / u.wall.Seconds()}, nil
	}
}

func resumedWork(s *stage) (values, error) {
	var caches [together]tls.ClientSessionCache
	for i := range caches {
		caches[i] = tls.NewLRUClientSessionCache(1)
		if _, err := s.resumedSession(s.ctx, i, caches[i]); err != nil {
			return nil, err
		}
	}
	n := s.scale.logins
	var resumed atomic.Int64
	u, err := s.measure(func() error {
		return s.spread(n, together, func(worker, i int) error {
			did, err := s.resumedSession(s.ctx, i, caches[worker])
			if did {
				resumed.Add(1)
			}
			return err
		})
	})
	if err != nil {
		return nil, err
	}
	if resumed.Load() == 0 {
		return nil, errors.New("no session was resumed, though every client had a ticket")
	}
	return values{"cpu": micros(u.cpu) / float64(n), "resumed": 100 * float64(resumed.Load()) / float64(n)}, nil
}

// sessions logs n sessions in, which stay.
func (s *stage) sessions(n int) ([]*client, error) {
	all := make([]*client, n)
	err := s.spread(n, 64, func(_, i int) (err error) {
		all[i], err = s.imap(s.ctx, i, nil)
		return err
	})
	if err != nil {
		hangUp(all)
	}
	return all, err
}

// hangUp closes sessions without a goodbye.
func hangUp(all []*client) {
	for _, c := range all {
		if c != nil {
			c.Conn.(*tls.Conn).NetConn().Close()
		}
	}
}

func noopWork(s *stage, sessions, each int) (values, error) {
	all, err := s.sessions(sessions)
	if err != nil {
		return nil, err
	}
	defer hangUp(all)
	times := make([][]time.Duration, sessions)
	u, err := s.measure(func() error {
		return s.spread(sessions, sessions, func(_, i int) error {
			all[i].more()
			times[i] = make([]time.Duration, 0, each)
			for range each {
				began := time.Now()
				if _, err := all[i].command("NOOP"); err != nil {
					return err
				}
				times[i] = append(times[i], time.Since(began))
			}
			return nil
		})
	})
	if err != nil {
		return nil, err
	}
	sorted := slices.Concat(times...)
	slices.Sort(sorted)
	return values{
		"cpu":    micros(u.cpu) / float64(sessions*each),
		"median": micros(sorted[len(sorted)/2]), "p99": micros(sorted[len(sorted)*99/100]),
	}, nil
}

// transferWork moves 4 MB many times by each of four sessions.
func transferWork(s *stage, move func(int, *client) error) (values, error) {
	all, err := s.sessions(4)
	if err != nil {
		return nil, err
	}
	defer hangUp(all)
	u, err := s.measure(func() error {
		return s.spread(len(all), len(all), func(_, k int) error {
			for range s.scale.transfers {
				all[k].more()
				if err := move(k, all[k]); err != nil {
					return err
				}
			}
			return nil
		})
	})
	if err != nil {
		return nil, err
	}
	bytes := float64(len(all) * s.scale.transfers * payloadSize)
	return values{"cpu": u.cpu.Seconds() / (bytes / 1e9), "rate": bytes / 1e6 / u.wall.Seconds()}, nil
}

// idleWork logs n sessions in and reads what memory they take when they are silent; used
// ones have moved 4 x 100 KB each way before.
func idleWork(s *stage, n int, used bool) (values, error) {
	if n > s.Sessions {
		return nil, fmt.Errorf("%d sessions need %d open files, and the limit is %d; to raise it type: ulimit -n %d",
			n, 2*n+100, s.Files, 2*n+100)
	}
	before, err := s.settled()
	if err != nil {
		return nil, err
	}
	if s.probe != nil {
		if err := s.probe.heap(0); err != nil {
			return nil, err
		}
	}
	all, err := s.sessions(n)
	if err != nil {
		return nil, err
	}
	defer hangUp(all)
	if used {
		var buffers [32][]byte
		err := s.spread(n, len(buffers), func(worker, i int) error {
			if buffers[worker] == nil {
				buffers[worker] = make([]byte, 100_000)
			}
			for range 4 {
				all[i].more()
				if err := all[i].fetch(i, buffers[worker]); err != nil {
					return err
				}
				if err := all[i].append(i, 100_000); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	after, err := s.settled()
	if err != nil {
		return nil, err
	}
	if s.probe != nil {
		if err := s.probe.heap(n); err != nil {
			return nil, err
		}
	}
	// A session that is gone takes no memory: all must be there still.
	err = s.spread(n, 32, func(_, i int) error {
		all[i].more()
		_, err := all[i].command("NOOP")
		return err
	})
	if err != nil {
		return nil, err
	}
	return values{"memory": float64(after-before) / 1024 / float64(n)}, nil
}

// settled is the proxy's memory when it has changed by less than 1 % within two seconds, or
// after 15 seconds.
func (s *stage) settled() (int64, error) {
	const every, span, most = 500 * time.Millisecond, 4, 30
	var seen []int64
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		now, err := readMemory(s.process.Pid())
		if err != nil {
			return 0, err
		}
		if seen = append(seen, now); len(seen) > most || settled(seen, span) {
			return now, nil
		}
		select {
		case <-tick.C:
		case <-s.ctx.Done():
			return 0, s.ctx.Err()
		}
	}
}

// settled says whether the last values, span steps of them, lie within 1 %.
func settled(seen []int64, span int) bool {
	if len(seen) <= span {
		return false
	}
	last := seen[len(seen)-span-1:]
	return float64(slices.Max(last)-slices.Min(last)) < 0.01*float64(slices.Max(last))
}

func aloneWork(s *stage) (values, error) {
	var times []time.Duration
	for i := range s.scale.alone {
		began := time.Now()
		c, err := s.imap(s.ctx, i, nil)
		if err != nil {
			return nil, err
		}
		times = append(times, time.Since(began))
		if err := c.logout(); err != nil {
			return nil, err
		}
	}
	slices.Sort(times)
	return values{"median": micros(times[len(times)/2]) / 1e3}, nil
}

// burstWork lets all clients come at once, as after a restart, and stay.
func burstWork(s *stage) (values, error) {
	n := s.scale.burst
	if n > s.Sessions {
		return nil, fmt.Errorf("%d clients need %d open files, and the limit is %d; to raise it type: ulimit -n %d",
			n, 2*n+100, s.Files, 2*n+100)
	}
	all := make([]*client, n)
	defer func() { hangUp(all) }()
	var in atomic.Int64
	var first atomic.Value // of what went wrong
	var clients sync.WaitGroup
	began := time.Now()
	for i := range n {
		clients.Go(func() {
			c, err := s.imap(s.ctx, i, nil)
			if err == nil {
				all[i] = c
				in.Add(1)
				return
			}
			first.CompareAndSwap(nil, fmt.Errorf("client %d, after %.2f s: %w", i, time.Since(began).Seconds(), err))
		})
	}
	clients.Wait()
	v := values{"time": time.Since(began).Seconds(), "failed": float64(n - int(in.Load()))}
	if err, some := first.Load().(error); some {
		return v, fmt.Errorf("%.0f of %d clients did not get in; the first: %w", v["failed"], n, err)
	}
	return v, s.ctx.Err()
}
