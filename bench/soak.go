package main

// Mailreeve alone, with many sessions, for long: does it keep every session and every byte,
// and does it keep to its memory?

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// grown is by how much memory and goroutines may be more at the end than in the second
// minute: a heap that is collected now and then breathes about as much.
const grown = 0.10

// soakWindow is over how long the figures at the beginning and at the end are taken: a
// minute, or a tenth of a short run.
func soakWindow(whole time.Duration) time.Duration { return min(time.Minute, whole/10) }

// sample is what the proxy holds at one moment.
type sample struct {
	at             time.Duration
	memory         int64
	threads, files int
	goroutines     int // -1 where it does not say
}

// soaking is a run.
type soaking struct {
	*stage
	all    []*client
	busy   []atomic.Bool // a session is busy, or it is cut
	cut    atomic.Int64
	wrong  atomic.Int64
	moved  atomic.Int64
	woken  atomic.Int64
	causes chan error // the first few
}

// soak holds many silent sessions, of which each second one in a hundred wakes up.
func soak(ctx context.Context, o options) error {
	if o.sessions < 100 {
		return fmt.Errorf("-sessions is %d, and one in a hundred wakes up each second; it must be at least 100", o.sessions)
	}
	b, err := newBench(ctx, o)
	if err != nil {
		return err
	}
	defer b.end()
	report, err := b.soak(ctx, o)
	fmt.Print(report)
	if report != "" && o.out != "" {
		err = errors.Join(err, os.MkdirAll(o.out, 0o755), os.WriteFile(filepath.Join(o.out, "soak.md"), []byte(report), 0o644))
	}
	return err
}

func (b *bench) soak(ctx context.Context, o options) (string, error) {
	r, err := b.start(o.all()[0])
	if err != nil {
		return "", err
	}
	defer r.stop()
	defer context.AfterFunc(ctx, r.process.Stop)()
	if o.sessions > r.Sessions {
		return "", fmt.Errorf("%d sessions need %d open files, and the limit is %d; to raise it type: ulimit -n %d",
			o.sessions, 2*o.sessions+100, r.Files, 2*o.sessions+100)
	}
	s := &soaking{
		stage:  &stage{running: r, clients: &clients{r.At, b.roots}, ctx: ctx},
		busy:   make([]atomic.Bool, o.sessions),
		causes: make(chan error, 5),
	}
	if s.all, err = s.sessions(o.sessions); err != nil {
		return "", fmt.Errorf("logging in: %w", err)
	}
	defer func() { hangUp(s.all) }()
	say("%s sessions are in", thousands(o.sessions))

	samples, err := s.live(o.soak)
	if err != nil {
		return "", err
	}
	// Whoever was not woken is asked now.
	s.spread(len(s.all), 32, func(_, i int) error {
		if !s.busy[i].Swap(true) {
			s.all[i].more()
			_, err := s.all[i].command("NOOP")
			s.note(err)
		}
		return nil
	})
	if ctx.Err() != nil {
		return "", ctx.Err()
	}
	return s.report(o, samples)
}

// live wakes sessions up and looks at the proxy until the time is over and all are silent.
func (s *soaking) live(whole time.Duration) ([]sample, error) {
	window := soakWindow(whole)
	var woken sync.WaitGroup
	defer woken.Wait()
	wake := time.NewTicker(100 * time.Millisecond)
	look := time.NewTicker(window / 10)
	defer wake.Stop()
	defer look.Stop()
	var samples []sample
	began, told, due := time.Now(), time.Duration(0), 0.0
	for {
		select {
		case <-s.ctx.Done():
			return nil, s.ctx.Err()
		case <-wake.C:
			// One in a hundred each second, in tenths of it.
			for due += float64(len(s.all)) / 1000; due >= 1; due-- {
				if i := rand.IntN(len(s.all)); !s.busy[i].Swap(true) {
					woken.Go(func() { s.wakeUp(i) })
				}
			}
		case <-look.C:
			x, err := s.look(time.Since(began))
			if err != nil {
				return nil, fmt.Errorf("%w; the proxy said: %s", err, s.said())
			}
			samples = append(samples, x)
			if x.at-told >= window {
				told = x.at
				say("%6s  %s  cut %d  wrong %d  woken %d  moved %d MB", x.at.Round(time.Second), x, s.cut.Load(), s.wrong.Load(),
					s.woken.Load(), s.moved.Load()/1e6)
			}
			if x.at >= whole {
				return samples, nil
			}
		}
	}
}

// wakeUp lets a session fetch and append something, from a byte to 200 KB.
func (s *soaking) wakeUp(i int) {
	c := s.all[i]
	buf := make([]byte, someSize())
	offset, size := rand.IntN(payloadSize-len(buf)), someSize()
	c.more()
	err := c.fetch(offset, buf)
	if err == nil {
		err = c.append(rand.IntN(payloadSize-size), size)
	}
	s.note(err)
	if err != nil {
		return // it stays busy for good
	}
	s.moved.Add(int64(len(buf) + size))
	s.woken.Add(1)
	s.busy[i].Store(false)
}

// someSize is from 1 to 200,000, small ones as often as large ones.
func someSize() int { return 1 + rand.IntN(200_000>>rand.IntN(18)) }

// note counts what has gone wrong.
func (s *soaking) note(err error) {
	switch {
	case err == nil || s.ctx.Err() != nil:
		return
	case errors.Is(err, errBytes):
		s.wrong.Add(1)
	default:
		s.cut.Add(1)
	}
	select {
	case s.causes <- err:
	default:
	}
}

// look reads what the proxy holds.
func (s *soaking) look(at time.Duration) (x sample, err error) {
	x.at = at
	if x.memory, err = readMemory(s.process.Pid()); err != nil {
		return x, err
	}
	if x.threads, x.files, err = threadsAndFiles(s.process.Pid()); err != nil {
		return x, err
	}
	x.goroutines, err = s.goroutines()
	return x, err
}

// goroutines asks the proxy's metrics.
func (s *soaking) goroutines() (int, error) {
	client := http.Client{Timeout: 10 * time.Second}
	answer, err := client.Get(fmt.Sprintf("http://127.0.0.1:%d/metrics", s.Metrics))
	if err != nil {
		return 0, err
	}
	defer answer.Body.Close()
	defer client.CloseIdleConnections()
	for lines := bufio.NewScanner(answer.Body); lines.Scan(); {
		if value, ok := strings.CutPrefix(lines.Text(), "go_goroutines "); ok {
			return strconv.Atoi(value)
		}
	}
	return -1, nil
}

func (x sample) String() string {
	return fmt.Sprintf("PSS %.1f MiB  threads %d  files %d  goroutines %d", mib(x.memory), x.threads, x.files, x.goroutines)
}

func mib[N int64 | float64](bytes N) float64 { return float64(bytes) / (1 << 20) }

// between is the median of something over a part of the samples.
func between(samples []sample, from, to time.Duration, what func(sample) float64) float64 {
	var all []float64
	for _, x := range samples {
		if x.at > from && x.at <= to {
			all = append(all, what(x))
		}
	}
	return median(all)
}

// report says how it went, and has an error if that was not well.
func (s *soaking) report(o options, samples []sample) (string, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "# Soak\n\nMade %s by `go run ./bench -soak %s -sessions %d`, on %s.\n\n", time.Now().UTC().Format("2006-01-02 15:04 UTC"), o.soak, o.sessions, machine())
	fmt.Fprintf(&b, "%s silent sessions through Mailreeve; each second one in a hundred fetches and appends\n1 B to 200 KB, every byte compared by its sum.\n\n", thousands(o.sessions))

	window := soakWindow(o.soak)
	whole := func(v float64) string { return fmt.Sprintf("%.0f", v) }
	table := [][]string{{"until", "", "PSS, MiB", "KiB/session", "threads", "descriptors", "goroutines"}}
	for end := window; end <= samples[len(samples)-1].at; end += window {
		row := func(what func(sample) float64) float64 { return between(samples, end-window, end, what) }
		memory := row(func(x sample) float64 { return float64(x.memory) })
		table = append(table, []string{
			end.String(), "", fmt.Sprintf("%.1f", mib(memory)), fmt.Sprintf("%.1f", memory/1024/float64(o.sessions)),
			whole(row(func(x sample) float64 { return float64(x.threads) })),
			whole(row(func(x sample) float64 { return float64(x.files) })),
			whole(row(func(x sample) float64 { return float64(x.goroutines) })),
		})
	}
	writeTable(&b, table)
	fmt.Fprintf(&b, "\nWoken %s times, %.2f GB moved. Sessions cut: %d. Transfers with lost or wrong bytes: %d.\n",
		thousands(int(s.woken.Load())), float64(s.moved.Load())/1e9, s.cut.Load(), s.wrong.Load())

	var wrong []error
	if cut := s.cut.Load(); cut > 0 {
		wrong = append(wrong, fmt.Errorf("%d sessions were cut", cut))
	}
	if lost := s.wrong.Load(); lost > 0 {
		wrong = append(wrong, fmt.Errorf("%d transfers had lost or wrong bytes", lost))
	}
	for len(s.causes) > 0 {
		wrong = append(wrong, <-s.causes)
	}
	if s.woken.Load() == 0 {
		wrong = append(wrong, errors.New("no session was woken: the time is too short"))
	}
	for _, x := range []struct {
		name  string
		slack float64 // what is nothing, whatever the share
		what  func(sample) float64
	}{
		{"memory", 4 << 20, func(x sample) float64 { return float64(x.memory) }},
		{"goroutines", 100, func(x sample) float64 { return float64(x.goroutines) }},
		{"descriptors", 20, func(x sample) float64 { return float64(x.files) }},
	} {
		end := samples[len(samples)-1].at
		early, late := between(samples, window, 2*window, x.what), between(samples, end-window, end, x.what)
		fmt.Fprintf(&b, "From %s to the end, %s %+.1f %%.\n", 2*window, x.name, 100*(late/early-1))
		if late > early*(1+grown)+x.slack {
			wrong = append(wrong, fmt.Errorf("%s grew from %.0f to %.0f, by more than %.0f %%", x.name, early, late, 100*grown))
		}
	}
	fmt.Fprintf(&b, "\nAllowed: no session cut, no byte lost or wrong, %.0f %% more of each.\n", 100*grown)
	return b.String(), errors.Join(wrong...)
}
