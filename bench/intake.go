package main

// The ledger: how long it takes to take in what a large provider's customers do in a month, and
// to ask it.

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"text/template"
	"time"

	"mailreeve/outreach/traffic"
)

// Intake is what one run has measured. Its JSON form is for other programs.
type Intake struct {
	Made     string `json:"made"`
	Machine  string `json:"machine"`
	Command  string `json:"command"`
	Accounts int    `json:"accounts"`      // mailboxes
	Seen     int    `json:"accounts_seen"` // of them, those whose programs came
	Days     int    `json:"days"`
	Events   int    `json:"events"`
	Bytes    int64  `json:"bytes"`

	Import   Cost    `json:"import"` // of all days
	FirstDay Cost    `json:"first_day"`
	LastDay  Cost    `json:"last_day"`
	Ledger   int64   `json:"ledger_bytes"`
	Asked    []Asked `json:"asked"`
}

// Cost is what a program has used.
type Cost struct {
	Events  int     `json:"events,omitempty"`
	Seconds float64 `json:"seconds"`
	CPU     float64 `json:"cpu_seconds"`
	Memory  int64   `json:"peak_rss_bytes"`
}

// Asked is a question to the ledger.
type Asked struct {
	Command string `json:"command"`
	Cost
}

// add takes in the cost of something else.
func (c *Cost) add(o Cost) {
	c.Events += o.Events
	c.Seconds += o.Seconds
	c.CPU += o.CPU
	c.Memory = max(c.Memory, o.Memory)
}

// rate is in events a second.
func (c *Cost) rate() float64 { return float64(c.Events) / c.Seconds }

// village is what the template of the configuration reads.
type village struct {
	*traffic.World
	Dir, Ledger, End string
	Networks         map[string][]netip.Prefix
	Access           []string
}

func (v *village) file(name string) string { return filepath.Join(v.Dir, name) }

// intake prints what measureIntake has measured.
func intake(ctx context.Context, o options) error {
	plan := traffic.Plan{Seed: 1, Accounts: 100_000, Days: 30}
	if o.quick {
		plan.Accounts = 10_000
	}
	r, err := measureIntake(ctx, o, plan)
	if err != nil {
		return err
	}
	if o.out != "" {
		text, err := json.MarshalIndent(r, "", "  ")
		if err != nil {
			return err
		}
		if err := errors.Join(
			os.MkdirAll(o.out, 0o755),
			os.WriteFile(filepath.Join(o.out, "intake.md"), []byte(r.markdown()), 0o644),
			os.WriteFile(filepath.Join(o.out, "intake.json"), append(text, '\n'), 0o644),
		); err != nil {
			return err
		}
	}
	fmt.Print(r.markdown())
	return nil
}

// measureIntake has a month of events taken in day by day, by a process for each day as an
// import of every night is, and then asks the ledger. A day's file is deleted when it has been
// taken in, for all of them are ten gigabytes.
func measureIntake(ctx context.Context, o options, plan traffic.Plan) (r *Intake, err error) {
	dir, err := os.MkdirTemp("", "mailreeve-intake-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	b := &bench{dir: dir, built: map[string]string{}}
	if err := b.build(ctx, o.tree, nil); err != nil {
		return nil, err
	}
	// The last day was yesterday: what lies in the future is not taken in.
	plan.From = time.Now().AddDate(0, 0, -plan.Days)
	w, err := traffic.New(plan)
	if err != nil {
		return nil, err
	}
	v := &village{World: w, Dir: dir, Ledger: filepath.Join(dir, "ledger.db"), End: time.Now().AddDate(0, 0, 60).Format(time.DateOnly),
		Networks: traffic.Networks(), Access: traffic.Access()}
	if r, err = v.measure(ctx, b.built[o.tree]); err != nil {
		return nil, err
	}
	r.Command = "go run ./bench -intake"
	if o.quick {
		r.Command += " -quick"
	}
	return r, nil
}

func (v *village) measure(ctx context.Context, program string) (*Intake, error) {
	if err := v.configure(); err != nil {
		return nil, err
	}
	run := func(args ...string) ([]byte, Cost, error) { return v.run(ctx, program, args...) }
	r := &Intake{Made: time.Now().UTC().Format("2006-01-02 15:04 UTC"), Machine: machine(), Accounts: v.Accounts, Days: v.Days}
	var tally struct {
		Files struct {
			Events struct{ Lines, Logins, Unverified, Unknown int }
		}
	}
	logins, unverified := 0, 0
	var days []Cost
	written, err := v.Write(v.Dir, func(path string) error {
		out, cost, err := run("import", "--json", "--events", path)
		if err != nil {
			return err
		}
		if err := json.Unmarshal(out, &tally); err != nil {
			return fmt.Errorf("reading what import says: %w", err)
		}
		day := tally.Files.Events
		if day.Unknown > 0 {
			return fmt.Errorf("import did not understand %s", plural(day.Unknown, "line"))
		}
		logins, unverified = logins+day.Logins, unverified+day.Unverified
		cost.Events = day.Lines
		r.Import.add(cost)
		days = append(days, cost)
		say("%-24s %9s events  %6.1f s  %8s events/s  %s", filepath.Base(path), thousands(cost.Events), cost.Seconds, thousands(int(cost.rate())), mebibytes(cost.Memory))
		return os.Remove(path)
	})
	if err != nil {
		return nil, err
	}
	r.Events, r.Bytes = written.Events, written.Bytes
	// The first file and the last hold a few hours alone: days begin at midnight in Germany.
	if len(days) < 3 {
		return nil, fmt.Errorf("there were %d files; that is not even a whole day", len(days))
	}
	r.FirstDay, r.LastDay = days[1], days[len(days)-2]
	for _, name := range []string{v.Ledger, v.Ledger + "-wal"} {
		if info, err := os.Stat(name); err == nil {
			r.Ledger += info.Size()
		}
	}
	truth := v.Truth(v.Now(), v.Days)
	r.Seen = len(truth.Accounts)
	if logins != truth.Verified || unverified != truth.Unverified || r.Import.Events != r.Events {
		return nil, fmt.Errorf("import took in %d logins and %d sessions of nobody, and there were %d and %d", logins, unverified, truth.Verified, truth.Unverified)
	}
	losses := map[traffic.Loss]int{}
	for _, a := range truth.Accounts {
		losses[a.Loss]++
	}
	for _, ask := range []struct {
		args  []string
		holds func(answer) error
	}{
		{[]string{"report"}, func(a answer) error { return a.same("accounts_seen", a.Seen, len(truth.Accounts)) }},
		{[]string{"impact", "--as", "deny"}, func(a answer) error {
			return errors.Join(a.same("accounts_seen", a.Seen, len(truth.Accounts)), a.same("all_devices", a.All, losses[traffic.All]),
				a.same("some_devices", a.Some, losses[traffic.Some]), a.same("silent", a.Silent, losses[traffic.Away]))
		}},
	} {
		out, cost, err := run(append(ask.args, "--json", "--now", v.Now().Format(time.RFC3339))...)
		if err != nil {
			return nil, err
		}
		var a answer
		if err := json.Unmarshal(out, &a); err != nil {
			return nil, fmt.Errorf("reading what %s says: %w", ask.args[0], err)
		}
		if err := ask.holds(a); err != nil {
			return nil, fmt.Errorf("%s: %w", strings.Join(ask.args, " "), err)
		}
		r.Asked = append(r.Asked, Asked{"outreach " + strings.Join(ask.args, " "), cost})
		say("outreach %s: %.1f s, %s", strings.Join(ask.args, " "), cost.Seconds, mebibytes(cost.Memory))
	}
	return r, nil
}

// answer is what is looked at in a report and in an impact.
type answer struct {
	Seen   int `json:"accounts_seen"`
	All    int `json:"all_devices"`
	Some   int `json:"some_devices"`
	Silent int `json:"silent"`
}

// same holds a figure against what it is. Three in a thousand may be guessed wrong: some logins are
// taken for trials of a program that looks for settings by itself.
func (answer) same(name string, got, want int) error {
	if most := 1 + 3*want/1000; got > want+most || got < want-most {
		return fmt.Errorf("%s is %d, and it must be %d", name, got, want)
	}
	return nil
}

// configure writes the configuration and the policy.
func (v *village) configure() error {
	var text bytes.Buffer
	t, err := template.ParseFS(templates, "intake.yaml")
	if err != nil {
		return err
	}
	if err := t.Execute(&text, v); err != nil {
		return err
	}
	return errors.Join(os.WriteFile(v.file("mailreeve.yaml"), text.Bytes(), 0o600), os.WriteFile(v.file("policy.yaml"), []byte(v.Policy()), 0o600))
}

// run runs a command of outreach, to the end.
func (v *village) run(ctx context.Context, program string, args ...string) ([]byte, Cost, error) {
	cmd := exec.CommandContext(ctx, program, append(append([]string{"outreach"}, args...), "-c", v.file("mailreeve.yaml"))...)
	var said, out bytes.Buffer
	var cost Cost
	cmd.Stdout, cmd.Stderr = &out, &said
	begun := time.Now()
	err := cmd.Start()
	if err == nil {
		peak := make(chan int64)
		ended := make(chan struct{})
		go func() { peak <- watchPeak(cmd.Process.Pid, ended) }()
		err = cmd.Wait()
		close(ended)
		cost.Memory = <-peak
	}
	cost.Seconds = time.Since(begun).Seconds()
	if ctx.Err() != nil {
		return nil, cost, ctx.Err()
	}
	if err != nil {
		return nil, cost, fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, strings.TrimSpace(said.String()))
	}
	cost.CPU = (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds()
	return out.Bytes(), cost, nil
}

// watchPeak looks at the most memory that a process has had resident, until it ends: a hundred times
// a second, for afterwards nobody can say. What wait(2) tells then counts this program's own
// memory, too, which the process shares until it executes its program.
func watchPeak(pid int, ended <-chan struct{}) (peak int64) {
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	for {
		select {
		case <-ended:
			return peak
		case <-look.C:
			peak = max(peak, peakOf(pid))
		}
	}
}

// peakOf is VmHWM of proc_pid_status(5), in bytes; 0 where there is none any more.
func peakOf(pid int) int64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if name, value, _ := strings.Cut(line, ":"); name == "VmHWM" {
			kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
			if err == nil {
				return kib * 1024
			}
		}
	}
	return 0
}

func mebibytes(n int64) string { return number(float64(n)/(1<<20)) + " MiB" }

// markdown is the result for people.
func (r *Intake) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "# The ledger\n\nMade %s by `%s`, on %s.\n\n", r.Made, r.Command, r.Machine)
	fmt.Fprintf(&b, "%s mailboxes, of which the programs of %s came; %d days, %s events, %.1f GB. A process for each day's file, which is in the page cache; "+
		"the ledger is SQLite's. What the program answers was held against what is known of these customers, who are made up.\n\n",
		thousands(r.Accounts), thousands(r.Seen), r.Days, thousands(r.Events), float64(r.Bytes)/1e9)
	table := [][]string{{"", "events", "time", "events/s", "CPU", "peak RSS"}}
	row := func(name string, c Cost) {
		events, rate := "-", "-"
		if c.Events > 0 {
			events, rate = thousands(c.Events), thousands(int(c.rate()))
		}
		table = append(table, []string{name, events, number(c.Seconds) + " s", rate, number(c.CPU) + " s", mebibytes(c.Memory)})
	}
	row("import, all days", r.Import)
	row("its first day", r.FirstDay)
	row("its last day", r.LastDay)
	for _, a := range r.Asked {
		row("`"+a.Command+"`", a.Cost)
	}
	writeTable(&b, table)
	fmt.Fprintf(&b, "\nThe ledger has %s in the end: %s for each account that came.\n", mebibytes(r.Ledger), number(float64(r.Ledger)/float64(max(1, r.Seen))/1024)+" KiB")
	return b.String()
}
