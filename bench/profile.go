package main

// Where Mailreeve's time and memory go. The program is built with the tag profile, which
// lets it write profiles on signals (cmd/mailreeve/profile.go); go tool pprof reads them.

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// profile runs one work against Mailreeve alone and prints its profile.
func profile(ctx context.Context, o options) error {
	chosen, err := chosen(works, func(w *work) string { return w.name }, o.profile)
	if err != nil {
		return fmt.Errorf("-profile: %w", err)
	}
	if len(chosen) > 1 {
		return fmt.Errorf("-profile takes one work, for example: -profile %s", chosen[0].name)
	}
	w := chosen[0]
	if w.name == "alone" || w.name == "burst" {
		return fmt.Errorf("%s measures time and no CPU; where the CPU goes says: -profile login", w.name)
	}
	b, err := newBench(ctx, o, "profile")
	if err != nil {
		return err
	}
	defer b.end()
	dir := o.out
	if dir == "" {
		dir = filepath.Join(b.dir, "profiles")
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	t := &taker{ctx: ctx, dir: dir, program: b.built[o.tree], memory: w.memory}
	env := []string{"MAILREEVE_PROFILES=" + dir}
	if w.memory {
		env = append(env, "GODEBUG=memprofilerate=1") // every allocation, as it is sessions that are counted
	}
	r, err := b.play(ctx, o.all()[0], w, o.load, t, env...)
	if err != nil {
		return err
	}
	fmt.Printf("%s, with profiling: %s\n\n%s", o.load.in(w.title), r.line(w), t.report.String())
	if o.out != "" {
		fmt.Printf("\nThe profiles are in %s.\n", dir)
	}
	return nil
}

// taker asks the running program for profiles.
type taker struct {
	ctx     context.Context
	dir     string
	program string
	process interface{ Signal(os.Signal) error }
	memory  bool
	taken   int
	report  strings.Builder
}

func (t *taker) of(process interface{ Signal(os.Signal) error }) { t.process = process }

func (t *taker) begin() error { return t.process.Signal(syscall.SIGUSR1) }

func (t *taker) end() error {
	file, err := t.ask(syscall.SIGUSR1, "cpu")
	if err != nil {
		return err
	}
	for _, how := range [][]string{{"-flat"}, {"-cum"}} {
		if err := t.pprof(append(how, "-top", "-nodecount=45", t.program, file)...); err != nil {
			return err
		}
	}
	return nil
}

// heap takes a profile before the sessions and one with them, and reports what is between.
func (t *taker) heap(sessions int) error {
	file, err := t.ask(syscall.SIGUSR2, "heap")
	if err != nil || sessions == 0 {
		return err
	}
	base := filepath.Join(t.dir, fmt.Sprintf("heap-%d", t.taken-1))
	before, err := readRuntime(base + ".json")
	if err != nil {
		return err
	}
	now, err := readRuntime(strings.TrimSuffix(file, ".pprof") + ".json")
	if err != nil {
		return err
	}
	fmt.Fprintf(&t.report, "what the runtime counts, after a collection, a session each:\n")
	for _, what := range []string{"heap", "heap_spans", "stacks", "goroutines", "spans", "gc", "other"} {
		fmt.Fprintf(&t.report, "  %-11s %10.1f\n", what, (now[what]-before[what])/float64(sessions))
	}
	for _, how := range []string{"-inuse_space", "-inuse_objects"} {
		fmt.Fprintf(&t.report, "\n%s, of each session, by line:\n", how)
		args := []string{how, "-lines", "-top", "-nodecount=400", "-divide_by=" + strconv.Itoa(sessions), "-base", base + ".pprof"}
		if how == "-inuse_space" {
			args = append(args, "-unit=B")
		}
		if err := t.pprof(append(args, t.program, file)...); err != nil {
			return err
		}
	}
	return nil
}

// ask sends a signal and waits for the file that it makes.
func (t *taker) ask(sig os.Signal, kind string) (string, error) {
	t.taken++
	file := filepath.Join(t.dir, fmt.Sprintf("%s-%d.pprof", kind, t.taken))
	os.Remove(file) // of an earlier run
	if err := t.process.Signal(sig); err != nil {
		return "", err
	}
	tick, end := time.NewTicker(20*time.Millisecond), time.After(time.Minute)
	defer tick.Stop()
	for !exists(file) {
		select {
		case <-tick.C:
		case <-end:
			return "", fmt.Errorf("the program has not written %s within a minute", file)
		case <-t.ctx.Done():
			return "", t.ctx.Err()
		}
	}
	return file, nil
}

// pprof runs go tool pprof and adds what it says to the report.
func (t *taker) pprof(args ...string) error {
	cmd := exec.CommandContext(t.ctx, "go", append([]string{"tool", "pprof"}, args...)...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("go tool pprof: %w\n%s", err, out)
	}
	for line := range strings.Lines(string(out)) {
		// By heap, those that only call others are in the way.
		if !t.memory || !strings.HasPrefix(strings.TrimSpace(line), "0 ") {
			t.report.WriteString(line)
		}
	}
	t.report.WriteByte('\n')
	return nil
}

// readRuntime reads what the program's runtime said of its memory.
func readRuntime(file string) (map[string]float64, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var m map[string]float64
	return m, json.Unmarshal(text, &m)
}
