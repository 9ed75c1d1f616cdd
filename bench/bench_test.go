package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write testdata anew")

// TestMain lets the test binary be the backend's process as well.
func TestMain(m *testing.M) {
	if os.Getenv(backendRole) != "" {
		if err := serveBackend(); err != nil {
			fmt.Fprintln(os.Stderr, "backend:", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		of   []float64
		want float64
	}{
		{[]float64{3}, 3},
		{[]float64{9, 1, 2}, 2},
		{[]float64{4, 1, 2, 100}, 3},
	} {
		if got := median(c.of); got != c.want {
			t.Errorf("median(%v) = %v, not %v", c.of, got, c.want)
		}
	}
	if got := median(nil); !math.IsNaN(got) {
		t.Errorf("median of nothing = %v", got)
	}
}

func rounds(v ...float64) (r []*float64) {
	for _, x := range v {
		if math.IsNaN(x) {
			r = append(r, nil)
		} else {
			r = append(r, &x)
		}
	}
	return r
}

// A round in which one failed has no ratio, and a machine that was slow for a whole round
// changes none.
func TestRatio(t *testing.T) {
	failed := math.NaN()
	if got := ratio(rounds(1, 20, 3), rounds(2, 40, 6)); got == nil || *got != 0.5 {
		t.Errorf("the ratio is %v", got)
	}
	if got := ratio(rounds(1, failed, 3), rounds(failed, 5, 6)); got == nil || *got != 0.5 {
		t.Errorf("with failed rounds the ratio is %v", got)
	}
	if got := ratio(rounds(1, failed), rounds(failed, 5)); got != nil {
		t.Errorf("without a common round the ratio is %v", *got)
	}
	if got := ratio(rounds(1), rounds(0)); got != nil {
		t.Errorf("the ratio to nothing is %v", *got)
	}
}

func TestSince(t *testing.T) {
	before := cpuTimes{1: 5, 2: 10}
	if got, err := (cpuTimes{1: 7, 2: 10, 3: 4}).since(before); err != nil || got != 6 {
		t.Errorf("with a new process: %v, %v", got, err)
	}
	if _, err := (cpuTimes{1: 7}).since(before); err == nil {
		t.Error("a process that has ended is not missed")
	}
}

func TestSettled(t *testing.T) {
	for _, c := range []struct {
		seen []int64
		want bool
	}{
		{[]int64{100, 100, 100, 100}, false}, // not long enough
		{[]int64{1, 1000, 1001, 1002, 1003, 1004}, true},
		{[]int64{1000, 1003, 1006, 1009, 1012}, false}, // slowly, but it grows
		{[]int64{1000, 900, 1000, 1000, 1000}, false},
	} {
		if got := settled(c.seen, 4); got != c.want {
			t.Errorf("settled(%v) = %v", c.seen, got)
		}
	}
}

func TestNumber(t *testing.T) {
	for v, want := range map[float64]string{0: "0", 0.123: "0.12", 9.87: "9.87", 17.33: "17.3", 1234.5: "1234"} {
		if got := number(v); got != want {
			t.Errorf("number(%v) = %s, not %s", v, got, want)
		}
	}
	for n, want := range map[int]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567"} {
		if got := thousands(n); got != want {
			t.Errorf("thousands(%d) = %s, not %s", n, got, want)
		}
	}
}

func TestChosen(t *testing.T) {
	name := func(w *work) string { return w.name }
	picked, err := chosen(works, name, "noop1,login")
	if err != nil || len(picked) != 2 || picked[0].name != "noop1" || picked[1].name != "login" {
		t.Errorf("picked %v, %v", picked, err)
	}
	if _, err := chosen(works, name, "nope"); err == nil || !strings.Contains(err.Error(), "login,resumed") {
		t.Errorf("the error does not say what there is: %v", err)
	}
}

// A made-up run, with all that a table can have.
func TestTable(t *testing.T) {
	r := &Result{
		Made: "2027-01-02 03:04 UTC", Machine: "2 x a processor", Command: "go run ./bench", Rounds: 3,
		Proxies:  []Peer{{ours, "Mailreeve", "1.0"}, {"nginx", "nginx mail", "nginx/1.22.1"}, {"haproxy", "HAProxy, TCP mode", "2.6"}},
		Rows:     newRows(works, full),
		Skipped:  []string{"dovecot is not installed; to install it type: interop/install"},
		Failures: []string{"nginx mail, fetch, round 2: session 3:\nunexpected EOF"},
	}
	for round, x := range []float64{1, 1.5, 0.8} {
		r.put("login", ours, round, values{"cpu": 400 * x, "rate": 1000 / x})
		r.put("login", "nginx", round, values{"cpu": 700 * x, "rate": 300 / x})
		r.put("login", "haproxy", round, values{"cpu": 500 * x, "rate": 900 / x})
		r.put("fetch", ours, round, values{"cpu": x, "rate": 100})
		if round != 1 {
			r.put("fetch", "nginx", round, values{"cpu": 1.5 * x, "rate": 90})
		}
		r.put("pop3", ours, round, values{"cpu": 600})
		r.put("pop3", "nginx", round, values{"cpu": 800})
		r.put("noop32", ours, round, values{"cpu": 10 * x, "median": 1, "p99": 2})
		r.put("idle9900", ours, round, values{"memory": 7 + x/10})
		r.put("burst", ours, round, values{"time": 2, "failed": float64(round / 2)})
	}
	r.conclude()
	text, err := r.json()
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "table.md", r.markdown())
	golden(t, "table.json", string(text))
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s is another; if that is intended type: go test ./bench -run %s -update\n%s", file, t.Name(), got)
	}
}

// dialogue speaks with the backend and lists what it answers.
func dialogue(t *testing.T, serve func(*backendSession) error, send string) string {
	t.Helper()
	ours, theirs := net.Pipe()
	ours.SetDeadline(time.Now().Add(20 * time.Second))
	go func() {
		defer theirs.Close()
		serve(newSession(theirs))
	}()
	go ours.Write([]byte(send))
	heard, err := io.ReadAll(ours)
	if err != nil {
		t.Fatal(err)
	}
	return string(heard)
}

// Every proxy logs in at the backend in its own way.
func TestBackendLogins(t *testing.T) {
	for _, c := range []struct{ name, send, want string }{
		{"quoted", "a LOGIN \"anna\" \"secret\"\r\nb LOGOUT\r\n", "a OK"},
		{"atoms", "a LOGIN anna secret\r\nb LOGOUT\r\n", "a OK"},
		{"literals", "a LOGIN {4}\r\nanna {6}\r\nsecret\r\nb LOGOUT\r\n", "a OK"},
		{"initial response", "a AUTHENTICATE PLAIN AGFubmEAc2VjcmV0\r\nb LOGOUT\r\n", "a OK"},
		{"later response", "a AUTHENTICATE PLAIN\r\nAGFubmEAc2VjcmV0\r\nb LOGOUT\r\n", "a OK"},
		{"wrong", "a LOGIN anna wrong\r\nb LOGOUT\r\n", "a NO"},
	} {
		if heard := dialogue(t, serveIMAP, c.send); !strings.Contains(heard, c.want) {
			t.Errorf("%s: %q has no %q", c.name, heard, c.want)
		}
	}
	for _, c := range []struct{ name, send, want string }{
		{"USER", "USER anna\r\nPASS secret\r\nQUIT\r\n", "+OK logged in"},
		{"PLAIN", "AUTH PLAIN AGFubmEAc2VjcmV0\r\nQUIT\r\n", "+OK logged in"},
		{"wrong", "USER anna\r\nPASS wrong\r\nQUIT\r\n", "-ERR"},
	} {
		if heard := dialogue(t, servePOP3, c.send); !strings.Contains(heard, c.want) {
			t.Errorf("POP3, %s: %q has no %q", c.name, heard, c.want)
		}
	}
}

// What the driver takes for a proof is one: a changed byte is found.
func TestBytesAreCompared(t *testing.T) {
	for name, damage := range map[string]bool{"whole": false, "damaged": true} {
		driver, backend := net.Pipe()
		var spoilt net.Conn = backend
		if damage {
			spoilt = &spoiler{Conn: backend}
		}
		go serveIMAP(newSession(spoilt))
		c := newClient(driver)
		c.more()
		if err := c.login(1); err != nil {
			t.Fatal(err)
		}
		if err := c.append(10, 5000); errors.Is(err, errBytes) != damage {
			t.Errorf("%s: append says %v", name, err)
		}
		if err := c.fetch(20, make([]byte, 5000)); errors.Is(err, errBytes) != damage {
			t.Errorf("%s: fetch says %v", name, err)
		}
		driver.Close()
	}
}

// spoiler changes one byte in the middle of all that is long.
type spoiler struct{ net.Conn }

func (s *spoiler) Read(b []byte) (int, error) {
	n, err := s.Conn.Read(b)
	if n > 1000 {
		b[n/2] ^= 1
	}
	return n, err
}

func (s *spoiler) Write(b []byte) (int, error) {
	if len(b) > 1000 {
		b = append([]byte(nil), b...)
		b[len(b)/2] ^= 1
	}
	return s.Conn.Write(b)
}

// One round with Mailreeve alone and hardly any load: all works run, and yield numbers.
func TestSmoke(t *testing.T) {
	if testing.Short() {
		t.Skip("builds and starts the program; left out by -short")
	}
	if runtime.GOOS != "linux" {
		t.Skip("what a proxy uses is read from /proc")
	}
	o := options{tree: "..", rounds: 1, proxies: ours, load: scale{
		logins: 40, alone: 3, noops: 50, noopsBusy: 5, transfers: 1, idle: 40, idleMany: 50, used: 20, burst: 50,
	}}
	r, err := measure(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range r.Failures {
		t.Error(f)
	}
	for _, row := range r.Rows {
		// Little memory may be none, in so few sessions.
		if cell := row.Cells[ours]; cell == nil || cell.Median <= 0 && row.Metric != "failed" && row.Metric != "memory" {
			t.Errorf("%s %s has yielded %v", row.Work, row.Metric, cell)
		}
	}
}

// A short soak: sessions wake up, none is cut, no byte is lost.
func TestSoak(t *testing.T) {
	if testing.Short() || runtime.GOOS != "linux" {
		t.Skip("starts the program, on Linux; left out by -short")
	}
	b, err := newBench(t.Context(), options{tree: ".."})
	if err != nil {
		t.Fatal(err)
	}
	defer b.end()
	report, err := b.soak(t.Context(), options{tree: "..", sessions: 200, soak: 3 * time.Second})
	if !strings.Contains(report, "Sessions cut: 0. Transfers with lost or wrong bytes: 0.") {
		t.Errorf("%v\n%s", err, report)
	}
}

// What is stopped from outside stops, and leaves nothing.
func TestStops(t *testing.T) {
	if testing.Short() || runtime.GOOS != "linux" {
		t.Skip("starts the program, on Linux; left out by -short")
	}
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	ctx, cancel := context.WithCancel(t.Context())
	o := options{tree: "..", rounds: 1000, proxies: ours, only: "noop1", load: scale{noops: 1 << 20}}
	noop := works[slices.IndexFunc(works, func(w *work) bool { return w.name == "noop1" })]
	usual := noop.run
	defer func() { noop.run = usual }()
	noop.run = func(s *stage) (values, error) {
		time.AfterFunc(100*time.Millisecond, cancel) // in the midst of it
		return usual(s)
	}
	if _, err := measure(ctx, o); !errors.Is(err, context.Canceled) {
		t.Errorf("stopped, it says %v", err)
	}
	left, err := filepath.Glob(filepath.Join(tmp, "mailreeve-bench-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left over: %v, %v", left, err)
	}
}
