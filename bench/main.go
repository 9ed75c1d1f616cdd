// Command bench measures Mailreeve beside other mail proxies: nginx mail, HAProxy in TCP mode
// and Dovecot as a proxy.
//
//	go run ./bench                               everything, three rounds: about a quarter of an hour
//	go run ./bench -quick -only login,noop1      less of it
//	go run ./bench -against ../before            another state of Mailreeve beside it
//	go run ./bench -profile login                where Mailreeve's time or memory goes
//	go run ./bench -soak 10m -sessions 9500      Mailreeve alone, for long
//	go run ./bench -intake                       the ledger: a month of events of 100,000 accounts
//
// # Method
//
// The driver (this process), the light backend (this program once more) and one proxy are
// separate processes on loopback. For each round and each work every proxy is started anew,
// in turn, gets the same load, and is stopped; so what is compared was measured within a minute.
// The proxies have the same P-256 certificate and one backend, in clear. Clients offer TLS 1.3
// with X25519 and take TLS_AES_128_GCM_SHA256, or fail: the choice of another group or cipher
// is not what is measured. nginx asks its auth_http at the backend's process. Dovecot has
// shared login processes, one a processor. Mailreeve enforces its built-in policy and writes
// its events into a file.
//
// CPU time is the kernel's account, in nanoseconds, of all processes of the proxy, user and
// system. Memory is their proportional set size (PSS), less that before the sessions, both
// when it has settled: changed by less than 1 % in two seconds, or after 15 seconds. Nobody
// is asked to collect garbage. Every reply is checked, and every byte that is moved by its
// length and CRC-32C; a proxy that fails yields no number but a failure.
//
// # Limits
//
// Driver, backend and proxy share the processors: rates and latencies are those of all three,
// and only CPU time is the proxy's own. Absolute values drift by a third within an hour;
// ratios within a run hold to about 15 %. The most sessions are half of the limit of open
// files, less some.
//
// Not measured: the kernel's memory for sockets; what nginx's auth_http responder uses; TLS to
// the backend; old versions of TLS; long distances; more than one machine.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

// backendRole is the environment variable that makes this program the light backend.
const backendRole = "MAILREEVE_BENCH_BACKEND"

const usageText = `Measures Mailreeve beside nginx mail, HAProxy and Dovecot, and prints a table.

  go run ./bench                              everything, three rounds
  go run ./bench -only login,fetch -rounds 5  some works, more rounds
  go run ./bench -proxies mailreeve,nginx     fewer proxies
  go run ./bench -against ../before           two states of Mailreeve beside each other
  go run ./bench -out bench/results           writes latest.md and latest.json there
  go run ./bench -profile login               where Mailreeve's CPU goes, or its memory
  go run ./bench -soak 10m -sessions 9500     silent sessions of which 1 % wake up each second
  go run ./bench -intake                      ten million events into the ledger, and out of it

A proxy that is not installed is left out; to install all, type: interop/install
It ends with 1 if anything failed, was cut or got lost. A budget that is not met
is said in the table and is no failure.

Works:
`

func main() {
	if os.Getenv(backendRole) != "" {
		if err := serveBackend(); err != nil {
			fmt.Fprintln(os.Stderr, "backend:", err)
			os.Exit(1)
		}
		return
	}
	// On Ctrl-C everything that was started is stopped, and a second one does not wait for it.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	err := run(ctx, os.Args[1:])
	switch {
	case errors.Is(err, flag.ErrHelp):
	case err != nil:
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// options are what the command line says.
type options struct {
	only, proxies, out, profile string
	tree, against               string
	rounds, sessions            int
	quick, intake               bool
	soak                        time.Duration
	load                        scale
}

// all are the proxies that there are.
func (o options) all() []*proxy {
	all := []*proxy{mailreeve(ours, "Mailreeve", o.tree)}
	if o.against != "" {
		all = append(all, mailreeve(other, "Mailreeve in "+o.against, o.against))
	}
	return append(all, peers...)
}

func run(ctx context.Context, args []string) error {
	var o options
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.StringVar(&o.only, "only", "", "only these `works`, separated by commas")
	f.StringVar(&o.proxies, "proxies", "", "only these `proxies` of mailreeve, nginx, haproxy, dovecot, other")
	f.IntVar(&o.rounds, "rounds", 3, "how often everything is measured")
	f.BoolVar(&o.quick, "quick", false, "less load: for a look, not for the record")
	f.StringVar(&o.out, "out", "", "write latest.md and latest.json into this `directory`, too")
	f.StringVar(&o.tree, "tree", ".", "the `directory` of the source that Mailreeve is built from")
	f.StringVar(&o.against, "against", "", "measure Mailreeve from the source in this `directory` beside it, as \"other\"")
	f.StringVar(&o.profile, "profile", "", "profile Mailreeve at this `work`")
	f.DurationVar(&o.soak, "soak", 0, "hold silent sessions for this `time`, Mailreeve alone")
	f.BoolVar(&o.intake, "intake", false, "take a month of events into the ledger, and ask it")
	f.IntVar(&o.sessions, "sessions", 9500, "how many, for -soak")
	f.Usage = func() {
		fmt.Fprint(f.Output(), usageText)
		for _, w := range works {
			fmt.Fprintf(f.Output(), "  %-11s %s\n", w.name, full.in(w.title))
		}
		fmt.Fprintln(f.Output(), "\nFlags:")
		f.PrintDefaults()
	}
	if err := f.Parse(args); err != nil {
		return err
	}
	if f.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q; to see what there is type: go run ./bench -h", f.Arg(0))
	}
	if o.rounds < 1 {
		return fmt.Errorf("-rounds is %d; it must be at least 1", o.rounds)
	}
	if o.against != "" && o.proxies != "" && !slices.Contains(strings.Split(o.proxies, ","), other) {
		o.proxies += "," + other // it was asked for
	}
	if _, err := readMemory(os.Getpid()); err != nil {
		return err
	}
	switch o.load = full; {
	case o.quick:
		o.load = quick
	case o.profile != "":
		o.load = profiled
	}
	switch {
	case o.profile != "":
		return profile(ctx, o)
	case o.soak > 0:
		return soak(ctx, o)
	case o.intake:
		return intake(ctx, o)
	}
	r, err := measure(ctx, o)
	if err != nil {
		return err
	}
	if o.out != "" {
		if err := r.write(o.out); err != nil {
			return err
		}
	}
	fmt.Print(r.markdown())
	if len(r.Failures) > 0 {
		return fmt.Errorf("%s failed, as listed above; for one alone type: go run ./bench -rounds 1 -only WORK -proxies PROXY", plural(len(r.Failures), "measurement"))
	}
	return nil
}

// chosen picks those of all that a list of names has.
func chosen[T any](all []T, name func(T) string, list string) ([]T, error) {
	if list == "" {
		return all, nil
	}
	var picked []T
	for _, want := range strings.Split(list, ",") {
		i := slices.IndexFunc(all, func(x T) bool { return name(x) == want })
		if i < 0 {
			var known []string
			for _, x := range all {
				known = append(known, name(x))
			}
			return nil, fmt.Errorf("there is no %q; there are: %s", want, strings.Join(known, ","))
		}
		picked = append(picked, all[i])
	}
	return picked, nil
}

// measure drives every load at every proxy, round by round.
func measure(ctx context.Context, o options) (*Result, error) {
	works, err := chosen(works, func(w *work) string { return w.name }, o.only)
	if err != nil {
		return nil, fmt.Errorf("-only: %w", err)
	}
	wanted, err := chosen(o.all(), func(p *proxy) string { return p.name }, o.proxies)
	if err != nil {
		return nil, fmt.Errorf("-proxies: %w", err)
	}
	b, err := newBench(ctx, o)
	if err != nil {
		return nil, err
	}
	defer b.end()

	r := &Result{
		Made: time.Now().UTC().Format("2006-01-02 15:04 UTC"), Machine: machine(), Command: o.command(),
		Rounds: o.rounds, Rows: newRows(works, o.load),
	}
	var there []*proxy
	for _, p := range wanted {
		program, err := b.find(p)
		if err != nil {
			r.Skipped = append(r.Skipped, err.Error())
			say("left out: %v", err)
			continue
		}
		there = append(there, p)
		r.Proxies = append(r.Proxies, Peer{p.name, p.title, p.versionOf(program)})
	}
	for round := range o.rounds {
		for _, w := range works {
			for _, p := range there {
				v, err := b.play(ctx, p, w, o.load, nil)
				if ctx.Err() != nil {
					return nil, ctx.Err()
				}
				if v != nil {
					r.put(w.name, p.name, round, v)
					say("round %d  %-10s  %-9s  %s", round+1, w.name, p.name, v.line(w))
				}
				if err != nil && !errors.Is(err, errNotServed) {
					r.Failures = append(r.Failures, fmt.Sprintf("%s, %s, round %d: %v", p.title, w.name, round+1, err))
					say("round %d  %-10s  %-9s  FAILED: %v", round+1, w.name, p.name, err)
				}
			}
		}
	}
	r.conclude()
	return r, nil
}

// say tells how it goes, apart from the result.
func say(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }

// line is what a work has yielded, on one line.
func (v values) line(w *work) string {
	var b strings.Builder
	for _, m := range w.metrics {
		fmt.Fprintf(&b, "%s %s %s  ", m.name, number(v[m.name]), m.unit)
	}
	return strings.TrimRight(b.String(), " ")
}

// errNotServed says that a proxy cannot do a work at all.
var errNotServed = errors.New("not served")

// play starts a proxy, does one work, and stops the proxy.
func (b *bench) play(ctx context.Context, p *proxy, w *work, n scale, probe probe, env ...string) (v values, err error) {
	r, err := b.start(p, env...)
	if err != nil {
		return nil, err
	}
	defer r.stop()
	if w.starttls && r.At.IMAP == 0 {
		return nil, errNotServed
	}
	// Whoever waits for an answer of the proxy is freed by its end.
	defer context.AfterFunc(ctx, r.process.Stop)()
	s := &stage{running: r, clients: &clients{r.At, b.roots}, ctx: ctx, scale: n, probe: probe}
	if probe != nil {
		probe.of(r.process)
	}
	defer func() {
		if said := r.said(); err != nil && said != "" {
			err = fmt.Errorf("%w; the proxy said: %s", err, said)
		}
	}()
	// What a proxy does once in its life is not counted.
	if err := s.spread(32, together, func(_, i int) error { return w.warm(s.clients, ctx, i) }); err != nil {
		return nil, fmt.Errorf("before the measurement: %w", err)
	}
	v, err = w.run(s)
	if err == nil && r.process.Ended() {
		v, err = nil, errors.New("the proxy ended by itself")
	}
	if info, statErr := os.Stat(r.file("events.jsonl")); err == nil && p.name == ours && (statErr != nil || info.Size() == 0) {
		v, err = nil, errors.New("no event was written, which is part of its work")
	}
	return v, err
}

// command is what to type for the same again.
func (o options) command() string {
	c := "go run ./bench"
	if o.rounds != 3 {
		c += fmt.Sprintf(" -rounds %d", o.rounds)
	}
	if o.quick {
		c += " -quick"
	}
	if o.only != "" {
		c += " -only " + o.only
	}
	if o.proxies != "" {
		c += " -proxies " + o.proxies
	}
	if o.against != "" {
		c += " -against " + o.against
	}
	return c
}

// machine says what the figures hold for.
func machine() string {
	model := "unknown processor"
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(text)) {
			if name, value, _ := strings.Cut(line, ":"); strings.TrimSpace(name) == "model name" {
				model = strings.TrimSpace(value)
				break
			}
		}
	}
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	return fmt.Sprintf("%d x %s, Linux %s, %s", runtime.NumCPU(), model,
		cmp.Or(strings.TrimSpace(string(kernel)), "of unknown version"), runtime.Version())
}

// write writes both forms into a directory.
func (r *Result) write(dir string) error {
	text, err := r.json()
	if err != nil {
		return err
	}
	return errors.Join(
		os.MkdirAll(dir, 0o755),
		os.WriteFile(filepath.Join(dir, "latest.md"), []byte(r.markdown()), 0o644),
		os.WriteFile(filepath.Join(dir, "latest.json"), text, 0o644),
	)
}
