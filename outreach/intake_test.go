package outreach

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"pgregory.net/rapid"

	"mailreeve/config"
	"mailreeve/events"
	"mailreeve/policy"
)

// intakeNow is when all of the following is read.
var intakeNow = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// ledgerAt opens a ledger of the tests.
func ledgerAt(t fataler, place string) *Ledger {
	t.Helper()
	zone, err := time.LoadLocation("Europe/Berlin")
	okay(t, err)
	l, err := OpenLedger(context.Background(), place, Options{Zone: zone, Campaign: "test", Purpose: "tests", End: dayOf("2027-03-31"),
		Now: func() time.Time { return intakeNow }, Who: "tester"})
	okay(t, err)
	return l
}

// intakeOf is a small provider's: three accounts behind an address are a collector.
func intakeOf(l *Ledger) *Intake {
	return &Intake{Ledger: l, Collector: 3, Networks: NewNetworks(map[config.Name][]netip.Prefix{
		"dsl": {netip.MustParsePrefix("100.64.0.0/10")}, "hosting": {netip.MustParsePrefix("198.51.100.0/24")}}, []config.Name{"dsl"})}
}

// contents is all that a ledger knows, by names in place of numbers. Hashes of addresses differ
// from ledger to ledger, so of a crowd only its members are told.
func contents(t fataler, l *Ledger) string {
	t.Helper()
	var b strings.Builder
	for a, err := range l.Accounts(context.Background(), 0) {
		okay(t, err)
		fmt.Fprintf(&b, "%s told %v %v %q bounced %d call %d\n", a.Name, a.Told.Day, a.Told.Action, a.Told.Rule, a.Bounced, a.Call)
		for i := range a.Uses {
			fmt.Fprintf(&b, "\t%+v %v %v\n", a.Uses[i].Shape, a.Uses[i].Collector, a.Uses[i].Days)
		}
	}
	okay(t, l.view(context.Background(), func(x *tx) error {
		if err := x.each(func(rows *sql.Rows) error {
			var o other
			var n int
			err := rows.Scan(&o.day, &o.protocol, &o.tls, &o.mechanism, &n)
			fmt.Fprintf(&b, "others %+v %d\n", o, n)
			return err
		}, "SELECT day, protocol, tls, mechanism, n FROM others ORDER BY day, protocol, tls, mechanism"); err != nil {
			return err
		}
		crowds := map[[2]int64][]string{}
		err := x.each(func(rows *sql.Rows) error {
			var day, crowd int64
			var name, shape string
			err := rows.Scan(&day, &crowd, &name, &shape)
			crowds[[2]int64{day, crowd}] = append(crowds[[2]int64{day, crowd}], name+" "+shape)
			return err
		}, `SELECT m.day, m.crowd, a.name, h.protocol || h.tls || h.mechanism || h.network FROM crowd_member m
			JOIN account a ON a.id = m.account JOIN shape h ON h.id = m.shape ORDER BY a.name, 4`)
		var lines []string
		for key, members := range crowds {
			lines = append(lines, fmt.Sprintf("crowd %d %v\n", key[0], members))
		}
		slices.Sort(lines)
		b.WriteString(strings.Join(lines, ""))
		return err
	}))
	return b.String()
}

// eventLine is a line of a session, of few kinds, so that many are alike.
func eventLine(t fataler, id string, pick func(n int) int) string {
	t.Helper()
	e := &events.Session{
		ID: id, Time: intakeNow.Add(-time.Duration(pick(5*24)) * time.Hour), Brand: "alpha", Listener: "l", Protocol: []string{"imap", "pop3", "submission"}[pick(3)],
		Port: 143, Entry: policy.EntryPlain, TLS: []string{policy.None, "1.2"}[pick(2)], Host: []string{policy.Canonical, policy.Legacy, policy.Absent}[pick(3)],
		SNI: "mail.example.org", Mechanism: []string{"PLAIN", "CRAM-MD5", "X-MADE-UP"}[pick(3)], Hello: []string{"[192.168.0.9]", "ümlaut", "a\\b"}[pick(3)],
		IP: netip.MustParseAddr([]string{"100.64.0.1", "198.51.100.7", "2001:db8::1", "2001:db8::2"}[pick(4)]),
	}
	if pick(4) == 0 {
		e.ClientID = map[string]string{"name": "Thunderbird", "version": []string{"115.1", "153.7"}[pick(2)]}
	}
	if pick(5) > 0 {
		e.Verified, e.Account = true, fmt.Sprintf("%s@example.org", []string{"anna", "bert", "cleo", "dörte", "e'mil"}[pick(5)])
		e.Action, e.Rule = []string{"pass", "warn", "tempfail", "deny"}[pick(4)], []string{"encrypted", "hosts"}[pick(2)]
		switch e.Action {
		case "warn":
			e.Told = pick(2) == 0
		case "tempfail", "deny":
			e.Refused = "policy"
		}
	}
	line, err := events.Encode(e)
	okay(t, err)
	return string(line)
}

// TestIntakeOnce splits events into files that grow, rotate, are compressed, copied and read in any order, in
// batches of any size, by programs that die between any two steps of a transaction: the ledger is that of one reading.
func TestIntakeOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp("", "intake")
		okay(t, err)
		defer os.RemoveAll(dir)
		pick := func(n int) int { return rapid.IntRange(0, n-1).Draw(t, "pick") }
		var lines []string
		for i := range rapid.IntRange(1, 40).Draw(t, "lines") {
			switch pick(12) {
			case 0:
				lines = append(lines, fmt.Sprintf("garbage %d\n", i))
			case 1:
				lines = append(lines, "\n")
			default:
				lines = append(lines, eventLine(t, fmt.Sprintf("S%d", i), pick))
			}
		}
		whole := filepath.Join(dir, "whole")
		okay(t, os.WriteFile(whole, []byte(strings.Join(lines, "")), 0o600))
		once := ledgerAt(t, filepath.Join(dir, "once.db"))
		defer once.Close()
		want, err := intakeOf(once).Read(t.Context(), Events, whole)
		okay(t, err)

		logDir := filepath.Join(dir, "log")
		okay(t, os.Mkdir(logDir, 0o700))
		current := filepath.Join(logDir, "events.jsonl")
		l := ledgerAt(t, filepath.Join(dir, "often.db"))
		defer func() { l.Close() }()
		f := intakeOf(l).Follower(current)
		var got Tally
		rest := strings.Join(lines, "")
		write := func(n int) {
			file, err := os.OpenFile(current, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
			okay(t, err)
			_, err = file.WriteString(rest[:n])
			okay(t, errors.Join(err, file.Close()))
			rest = rest[n:]
		}
		rotated := 0
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			switch pick(7) {
			case 0, 1: // a piece, which may end within a line
				write(rapid.IntRange(0, len(rest)).Draw(t, "bytes"))
			case 2: // rotate, at the end of a line
				write(strings.Index(rest, "\n") + 1)
				to := fmt.Sprintf("events-2026-11-%02d.jsonl", 1+rotated)
				if err := os.Rename(current, filepath.Join(logDir, to)); err == nil {
					rotated++
				}
			case 3: // compress or copy what was rotated
				if rotated == 0 {
					break
				}
				path := filepath.Join(logDir, fmt.Sprintf("events-2026-11-%02d.jsonl", 1+pick(rotated)))
				data, err := os.ReadFile(path)
				if err != nil {
					break // it is compressed already
				}
				var packed bytes.Buffer
				z := gzip.NewWriter(&packed)
				z.Write(data)
				okay(t, z.Close())
				okay(t, os.WriteFile(path+".gz", packed.Bytes(), 0o600))
				if pick(2) == 0 {
					okay(t, os.Remove(path))
				}
			case 4: // another process
				okay(t, l.Close())
				l = ledgerAt(t, filepath.Join(dir, "often.db"))
				f = intakeOf(l).Follower(current)
			default:
				f.in.Batch = 1 + pick(10)
				if in := rapid.IntRange(0, 60).Draw(t, "dies in"); in > 0 {
					l.fault = func(string) error {
						if in--; in == 0 {
							return errDied
						}
						return nil
					}
				}
				tally, err := f.Look(t.Context())
				l.fault = nil
				if err != nil && !errors.Is(err, errDied) {
					t.Fatal(err)
				}
				if err == nil {
					got.add(&tally)
				}
			}
		}
		write(len(rest))
		_, err = f.Look(t.Context())
		okay(t, err)
		files, err := EventFiles(current)
		okay(t, err)
		files = rapid.Permutation(files).Draw(t, "order")
		tally, err := intakeOf(l).Read(t.Context(), Events, files...)
		okay(t, err)
		if tally.Lines != 0 || tally.Files != 0 {
			t.Errorf("in the end there was still something new: %+v", tally)
		}
		if a, b := contents(t, once), contents(t, l); a != b {
			t.Errorf("read at once:\n%s\nin pieces:\n%s", a, b)
		}
		if strings.TrimSpace(strings.Join(lines, "")) == "" {
			return // a file of empty lines is as good as none
		}
		if want.Lines != len(lines) || want.Logins+want.Unverified+want.Unknown > len(lines) {
			t.Errorf("of %d lines the tally is %+v", len(lines), want)
		}
	})
}

var errDied = errors.New("killed")

// TestIntakeChild is the process that TestIntakeKilled kills.
func TestIntakeChild(t *testing.T) {
	dir := os.Getenv("MAILREEVE_INTAKE")
	if dir == "" {
		t.Skip("it is started by another test")
	}
	l := ledgerAt(t, filepath.Join(dir, "ledger.db"))
	l.fault = func(string) error {
		os.Stdout.WriteString(".") // so that whoever kills it knows where it is
		return nil
	}
	in := intakeOf(l)
	in.Batch = 20
	_, err := in.Follower(filepath.Join(dir, "events.jsonl")).Look(t.Context())
	okay(t, err)
	os.Stdout.WriteString("done\n")
}

// TestIntakeKilled kills a process that takes events in, hundreds of times at any step.
func TestIntakeKilled(t *testing.T) {
	kills := 300
	if testing.Short() || raced() {
		kills = 20
	}
	random := rand.New(rand.NewPCG(1, 2))
	dir := t.TempDir()
	var lines strings.Builder
	for i := range 20_000 {
		lines.WriteString(eventLine(t, fmt.Sprintf("S%d", i), random.IntN))
	}
	path := filepath.Join(dir, "events.jsonl")
	okay(t, os.WriteFile(path, []byte(lines.String()), 0o600))
	died, ended := 0, false
	for !ended {
		ended = func() bool {
			child := exec.Command(os.Args[0], "-test.run=^TestIntakeChild$")
			child.Env = append(os.Environ(), "MAILREEVE_INTAKE="+dir, "GORACE=atexit_sleep_ms=0")
			out, err := child.StdoutPipe()
			okay(t, err)
			okay(t, child.Start())
			defer child.Wait()
			in := bufio.NewReader(out)
			for until := 1 + random.IntN(60); ; until-- {
				c, err := in.ReadByte()
				if err == io.EOF || c == 'd' {
					return true
				}
				okay(t, err)
				if until == 0 && died < kills {
					died++
					okay(t, child.Process.Kill()) // SIGKILL; it may be several steps further by now
					return false
				}
			}
		}()
	}
	if died < kills {
		t.Fatalf("it was killed %d times only: give it more to do", died)
	}
	once := ledgerAt(t, filepath.Join(t.TempDir(), "once.db"))
	defer once.Close()
	_, err := intakeOf(once).Read(t.Context(), Events, path)
	okay(t, err)
	l := ledgerAt(t, filepath.Join(dir, "ledger.db"))
	defer l.Close()
	tally, err := intakeOf(l).Read(t.Context(), Events, path)
	okay(t, err)
	if tally.Lines != 0 {
		t.Errorf("in the end there was still something new: %+v", tally)
	}
	if contents(t, once) != contents(t, l) {
		t.Errorf("after %d kills the ledger is another than that of one reading", died)
	}
}

// TestIntakeTwice lets several processes' worth of intakes follow the same files at once.
func TestIntakeTwice(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	dir := t.TempDir()
	var files []string
	var lines strings.Builder
	for i := range 6 {
		lines.Reset()
		for j := range 500 {
			lines.WriteString(eventLine(t, fmt.Sprintf("S%d.%d", i, j), random.IntN))
		}
		files = append(files, filepath.Join(dir, fmt.Sprintf("events-%d.jsonl", i)))
		okay(t, os.WriteFile(files[i], []byte(lines.String()), 0o600))
	}
	once := ledgerAt(t, filepath.Join(dir, "once.db"))
	defer once.Close()
	_, err := intakeOf(once).Read(t.Context(), Events, files...)
	okay(t, err)
	var running sync.WaitGroup
	total := make([]Tally, 4)
	for i := range total {
		running.Go(func() {
			l := ledgerAt(t, filepath.Join(dir, "both.db"))
			defer l.Close()
			in := intakeOf(l)
			in.Batch = 30
			var err error
			if total[i], err = in.Read(t.Context(), Events, files...); err != nil {
				t.Error(err)
			}
		})
	}
	running.Wait()
	l := ledgerAt(t, filepath.Join(dir, "both.db"))
	defer l.Close()
	if a, b := contents(t, once), contents(t, l); a != b {
		t.Errorf("read by one:\n%s\nby several:\n%s", a, b)
	}
	n := 0
	for _, tally := range total {
		n += tally.Lines
	}
	if n != 3000 {
		t.Errorf("all together took in %d lines of 3000", n)
	}
}

// TestLogsGoOn reads a log of Postfix piece by piece: what a line means depends on those before, in the
// file before it too.
func TestLogsGoOn(t *testing.T) {
	var lines []string
	for i := range 40 {
		stamp := fmt.Sprintf("2026-11-20T10:%02d:00.000000+01:00 mx1 postfix/submission/smtpd[%d]: ", i, 100+i/4%3)
		peer := fmt.Sprintf("client.example[198.51.100.%d]", 1+i/4%3)
		switch i % 4 {
		case 0:
			lines = append(lines, stamp+"connect from "+peer)
		case 1:
			lines = append(lines, stamp+"Anonymous TLS connection established from "+peer+": TLSv1.3 with cipher TLS_AES_256_GCM_SHA384 (256/256 bits)")
		case 2:
			lines = append(lines, stamp+fmt.Sprintf("4F1A2B3C%02d: client=%s, sasl_method=PLAIN, sasl_username=anna%d@example.org", i, peer, i%5))
		case 3:
			lines = append(lines, stamp+"disconnect from "+peer+" ehlo=2 starttls=1 auth=1 mail=1 rcpt=1 data=1 quit=1 commands=8")
		}
	}
	random := rand.New(rand.NewPCG(5, 6))
	for round := range 20 {
		dir := t.TempDir()
		read := func(place string, pieces bool) string {
			l := ledgerAt(t, place)
			defer l.Close()
			paths := []string{filepath.Join(dir, "mail.log.1"), filepath.Join(dir, "mail.log")}
			cut := len(lines) / 3
			halves := []string{strings.Join(lines[:cut], "\n") + "\n", strings.Join(lines[cut:], "\n") + "\n"}
			logins := 0
			for i, half := range halves {
				written := 0
				for written < len(half) {
					n := len(half)
					if pieces {
						n = min(len(half), written+1+random.IntN(900))
					}
					okay(t, os.WriteFile(paths[i], []byte(half[:n]), 0o600))
					written = n
					in := intakeOf(l)
					in.Batch = 1 + random.IntN(5)
					tally, err := in.Read(t.Context(), Postfix, paths[:i+1]...)
					okay(t, err)
					logins += tally.Logins
				}
			}
			if logins == 0 {
				t.Fatal("no login was understood")
			}
			return contents(t, l)
		}
		if a, b := read(filepath.Join(dir, "once.db"), false), read(filepath.Join(dir, "often.db"), true); a != b {
			t.Fatalf("round %d: at once\n%s\nin pieces\n%s", round, a, b)
		}
	}
}

func TestLongLinesAndBlocks(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "events.jsonl")
	pick := func(int) int { return 1 }
	long := strings.Repeat("x", 3*blockSize+17)
	text := eventLine(t, "A", pick) + long + "\n" + eventLine(t, "B", pick) + strings.Repeat("y", mostLine) + "\n" + strings.Repeat("z", mostLine-1) + "\n" +
		eventLine(t, "C", pick) + strings.Repeat("w", 2*blockSize)
	okay(t, os.WriteFile(path, []byte(text), 0o600))
	l := ledgerAt(t, filepath.Join(dir, "l.db"))
	defer l.Close()
	for i, want := range []Tally{{Files: 1, Lines: 6, Logins: 3, Unknown: 3}, {Known: 1}} {
		got, err := intakeOf(l).Read(t.Context(), Events, path)
		okay(t, err)
		for _, sample := range got.Samples {
			if len(sample) > longestSample {
				t.Errorf("a sample has %d bytes", len(sample))
			}
		}
		if got.Samples = nil; !reflect.DeepEqual(got, want) {
			t.Errorf("reading %d: %+v, want %+v", i, got, want)
		}
	}
	// The line that had no end gets one, and others follow.
	okay(t, os.WriteFile(path, []byte(text+"\n"+eventLine(t, "D", pick)), 0o600))
	got, err := intakeOf(l).Read(t.Context(), Events, path)
	okay(t, err)
	if got.Lines != 2 || got.Logins != 1 || got.Unknown != 1 {
		t.Errorf("after its end: %+v", got)
	}
	// A file that begins with what is too long is known again, too.
	okay(t, os.WriteFile(path, []byte(long+"\n"+eventLine(t, "E", pick)), 0o600))
	for i, want := range []int{2, 0} {
		if got, err := intakeOf(l).Read(t.Context(), Events, path); err != nil || got.Lines != want {
			t.Errorf("reading %d of a long beginning: %+v, %v", i, got, err)
		}
	}
}

func TestACutOffArchiveGoesOn(t *testing.T) {
	dir := t.TempDir()
	var text strings.Builder
	random := rand.New(rand.NewPCG(7, 8))
	for i := range 3000 {
		text.WriteString(eventLine(t, fmt.Sprintf("S%d", i), random.IntN))
	}
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	z.Write([]byte(text.String()))
	okay(t, z.Close())
	path := filepath.Join(dir, "events.gz")
	l := ledgerAt(t, filepath.Join(dir, "l.db"))
	defer l.Close()
	n := 0
	for _, share := range []int{0, 1, 50, 100} {
		okay(t, os.WriteFile(path, packed.Bytes()[:packed.Len()*share/100], 0o600))
		tally, err := intakeOf(l).Read(t.Context(), Events, path)
		if share == 50 && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("half a file: %v", err)
		} else if share == 100 {
			okay(t, err)
		}
		n += tally.Lines
		if share == 50 && tally.Lines == 0 {
			t.Error("nothing was read of half a file")
		}
	}
	if n != 3000 {
		t.Errorf("%d lines in all", n)
	}
}

// TestJournals: all that journalctl writes begins with the same words.
func TestJournals(t *testing.T) {
	dir := t.TempDir()
	l := ledgerAt(t, filepath.Join(dir, "l.db"))
	defer l.Close()
	logins := 0
	for i := range 2 {
		path := filepath.Join(dir, fmt.Sprint(i))
		okay(t, os.WriteFile(path, fmt.Appendf(nil, "-- Journal begins at Tue 2026-11-17 10:00:00 CET, ends at Sun 2026-11-22 10:00:00 CET. --\n\n"+
			"2026-11-2%dT10:00:00+0100 mx1 dovecot[9]: imap-login: Login: user=<anna>, method=PLAIN, rip=192.0.2.7, lip=192.0.2.1, mpid=1, TLS, session=<a>\n", i), 0o600))
		tally, err := intakeOf(l).Read(t.Context(), Dovecot, path)
		okay(t, err)
		logins += tally.Logins
	}
	if logins != 2 {
		t.Errorf("%d logins of two journals", logins)
	}
}

func TestOldestFirst(t *testing.T) {
	want := []string{"/a/mail.log.10.gz", "/a/mail.log.2.gz", "/a/mail.log.1", "/a/mail.log",
		"/b/events-2026-11-01.jsonl", "/b/events-2026-11-02.jsonl.gz", "/b/events-2026-11-02.17.jsonl", "/b/events.jsonl",
		"/c/mail.log-20261101.gz", "/c/mail.log-20261108", "/c/mail.log"}
	got := slices.Clone(want)
	rand.New(rand.NewPCG(1, 1)).Shuffle(len(got), func(i, j int) { got[i], got[j] = got[j], got[i] })
	if OldestFirst(got); !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
}

func TestNetworks(t *testing.T) {
	n := NewNetworks(map[config.Name][]netip.Prefix{
		"wide": {netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8::/32")}, "narrow": {netip.MustParsePrefix("10.1.0.0/16")},
		"alike": {netip.MustParsePrefix("10.0.0.1/8")}}, nil)
	for ip, want := range map[string]string{"10.1.2.3": "narrow", "10.2.0.1": "alike", "::ffff:10.1.0.1": "narrow", "2001:db8::1": "wide", "192.0.2.1": "other", "fe80::1%eth0": "other"} {
		if got := n.Class(netip.MustParseAddr(ip)); got != want {
			t.Errorf("%s is %s, want %s", ip, got, want)
		}
	}
	if got := n.Class(netip.Addr{}); got != "other" {
		t.Errorf("no address is %s", got)
	}
}

// intakeSeeds are lines for fuzzing.
func intakeSeeds(f *testing.F) {
	for i := range 5 {
		line := eventLine(f, fmt.Sprintf("S%d", i), func(n int) int { return i % n })
		f.Add([]byte(line))
		line = strings.NewReplacer("ö", "oe", "ü", "ue", `\\`, "/").Replace(line) // as most are
		f.Add([]byte(line + strings.ToUpper(line) + strings.Replace(line, `"v":1`, `"v":1,"v":1`, 1) + "\n\n" + line[:len(line)/2]))
		f.Add([]byte(strings.Replace(line, `"brand":`, `"client_id":{"name":"Thunderbird","os":"x"},"client_id":{"version":"9"},"brand":`, 1)))
		f.Add([]byte(strings.Replace(line, `"verified":true`, `"verified":null`, 1)))
		f.Add([]byte(strings.Replace(line, "anna@", `anna\u0000@`, 1)))
		f.Add([]byte(strings.Replace(line, "2026-11", "9999-11", 1)))
	}
	f.Add([]byte("2026-11-20T10:00:00.000000+01:00 mx1 dovecot: imap-login: Login: user=<anna>, method=PLAIN, rip=192.0.2.7, lip=192.0.2.1, mpid=1234, TLS, session=<abc>\n"))
	f.Add([]byte("Nov 20 10:00:00 mx1 postfix/smtpd[1]: 4F1A2B3C: client=c[192.0.2.7], sasl_method=PLAIN, sasl_username=anna\n"))
}

// FuzzIntake lets any file into a ledger: each complete line is counted once, and a second reading brings nothing.
func FuzzIntake(f *testing.F) {
	intakeSeeds(f)
	dir, err := os.MkdirTemp("/dev/shm", "intake") // where nothing waits for a disk
	if err != nil {
		dir = f.TempDir()
	}
	f.Cleanup(func() { os.RemoveAll(dir) })
	l := ledgerAt(f, filepath.Join(dir, "l.db"))
	f.Cleanup(func() { l.Close() })
	f.Fuzz(func(t *testing.T, data []byte) {
		path := filepath.Join(t.TempDir(), "file")
		okay(t, os.WriteFile(path, data, 0o600))
		for _, kind := range []Source{Events, Dovecot, Postfix} {
			in := intakeOf(l)
			in.Brand = "alpha"
			first, err := in.Read(t.Context(), kind, path)
			if err != nil && bytes.HasPrefix(data, gzipMagic) {
				continue // what is no archive
			}
			okay(t, err)
			if n := bytes.Count(data, []byte("\n")); first.Lines > n {
				t.Errorf("%s: %d lines, and there are %d", kind, first.Lines, n)
			}
			if n := first.Logins + first.Unverified + first.Foreign + first.Unknown; n > first.Lines {
				t.Errorf("%s: %+v counts more than there is", kind, first)
			}
			again, err := intakeOf(l).Read(t.Context(), kind, path)
			okay(t, err)
			if again.Lines != 0 {
				t.Errorf("%s: read again it brought %+v", kind, again)
			}
		}
		for a, err := range l.Accounts(t.Context(), 0) {
			okay(t, err)
			if !usableAccount(a.Name) || len(a.Uses) == 0 {
				t.Errorf("the ledger has %+v", a)
			}
			okay(t, l.Forget(t.Context(), a.Name))
		}
	})
}

// TestToldIsTheLast holds what is told against the order of days and severity.
func TestToldIsTheLast(t *testing.T) {
	dir := t.TempDir()
	l := ledgerAt(t, filepath.Join(dir, "l.db"))
	defer l.Close()
	var all []string
	for i, e := range []events.Session{
		{Action: "deny", Rule: "hosts", Refused: "policy", Time: intakeNow.Add(-48 * time.Hour)},
		{Action: "warn", Rule: "encrypted", Told: true, Time: intakeNow.Add(-24 * time.Hour)},
		{Action: "tempfail", Rule: "encrypted", Refused: "policy_for_now", Time: intakeNow.Add(-24 * time.Hour)},
		{Action: "warn", Rule: "unseen", Time: intakeNow},
		{Action: "deny", Rule: "down", Refused: "unavailable", Time: intakeNow},
		{Action: "pass", Told: true, Time: intakeNow},
	} {
		e.ID, e.Account, e.Verified, e.Protocol, e.IP = fmt.Sprint(i), "anna@example.org", true, "imap", netip.MustParseAddr("192.0.2.1")
		line, err := events.Encode(&e)
		okay(t, err)
		all = append(all, string(line))
	}
	slices.Reverse(all)
	for i, line := range all { // the newest first
		path := filepath.Join(dir, fmt.Sprint(i))
		okay(t, os.WriteFile(path, []byte(line), 0o600))
		_, err := intakeOf(l).Read(t.Context(), Events, path)
		okay(t, err)
	}
	a, err := l.Account(t.Context(), "anna@example.org")
	okay(t, err)
	if want := (Told{dayOf("2026-11-21"), policy.TempFail, "encrypted"}); a.Told != want {
		t.Errorf("told %+v, want %+v", a.Told, want)
	}
}

// TestCollectors: many accounts behind one address, on a day, with one kind of program.
func TestCollectors(t *testing.T) {
	dir := t.TempDir()
	var lines []string
	login := func(account, ip, program string, hours int) {
		e := &events.Session{ID: fmt.Sprint(len(lines)), Time: intakeNow.Add(-time.Duration(hours) * time.Hour), Protocol: "pop3", Verified: true, Account: account,
			IP: netip.MustParseAddr(ip)}
		if program != "" {
			e.ClientID = map[string]string{"name": program}
			e.Protocol = "imap"
		}
		line, err := events.Encode(e)
		okay(t, err)
		lines = append(lines, string(line))
	}
	for _, account := range []string{"a", "b", "c"} {
		login(account+"-fetched", "198.51.100.7", "", 1)
		login(account+"-six", "2001:db8:0:1::"+account, "", 1)
		login(account+"-line", "100.64.0.1", "", 1)
		login(account+"-person", "198.51.100.8", "Thunderbird", 1)
	}
	for i, account := range []string{"a", "b", "c"} { // the same address, on different days
		login(account+"-days", "198.51.100.9", "", 24*i+1)
	}
	login("a-two", "198.51.100.10", "", 1)
	login("b-two", "198.51.100.10", "", 1)
	hashes := map[int64]int{}
	for _, batch := range []int{1, 1000} {
		l := ledgerAt(t, filepath.Join(dir, fmt.Sprintf("%d.db", batch)))
		defer l.Close()
		path := filepath.Join(dir, "events.jsonl")
		okay(t, os.WriteFile(path, []byte(strings.Join(lines, "")), 0o600))
		in := intakeOf(l)
		in.Batch = batch
		_, err := in.Read(t.Context(), Events, path)
		okay(t, err)
		got := map[string]bool{}
		for a, err := range l.Accounts(t.Context(), 0) {
			okay(t, err)
			if a.Uses[0].Collector {
				got[strings.TrimLeft(a.Name, "abc")] = true
			}
		}
		if want := map[string]bool{"-fetched": true, "-six": true}; !maps.Equal(got, want) {
			t.Errorf("in batches of %d, collectors are %v", batch, got)
		}
		okay(t, l.view(t.Context(), func(x *tx) error {
			return x.each(func(rows *sql.Rows) error {
				var crowd int64
				err := rows.Scan(&crowd)
				hashes[crowd]++
				return err
			}, "SELECT DISTINCT crowd FROM crowd_member")
		}))
	}
	for crowd, ledgers := range hashes {
		if ledgers > 1 {
			t.Errorf("%x stands for the same address in two ledgers: who has one could look it up in all", crowd)
		}
	}
}

// TestOneAccountCannotFillTheLedger: a customer may ask for another server name in each session. What others do
// is known as before.
func TestOneAccountCannotFillTheLedger(t *testing.T) {
	dir := t.TempDir()
	l := ledgerAt(t, filepath.Join(dir, "ledger.db"))
	defer l.Close()
	in := intakeOf(l)
	in.Batch = 64
	session := func(account, sni string, version int) string {
		line, err := events.Encode(&events.Session{Time: intakeNow, Brand: "alpha", Protocol: "imap", TLS: "1.2", Host: "unknown", SNI: sni, Account: account, Verified: true,
			ClientID: map[string]string{"name": "Thunderbird", "version": fmt.Sprint(version)}})
		okay(t, err)
		return string(line)
	}
	var lines strings.Builder
	const sessions = 1500
	for i := range sessions {
		lines.WriteString(session("mallory@example.org", fmt.Sprintf("n%d.example.net", i), 1+i%2))
	}
	lines.WriteString(session("anna@example.org", "mail.kanzlei.example", 153))
	// What mallory has no room for is anna's nevertheless.
	lines.WriteString(session("mallory@example.org", "mail.praxis.example", 153))
	lines.WriteString(session("anna@example.org", "mail.praxis.example", 153))
	log := filepath.Join(dir, "events.jsonl")
	okay(t, os.WriteFile(log, []byte(lines.String()), 0o600))
	tally, err := in.Read(context.Background(), Events, log)
	okay(t, err)
	if tally.Logins != sessions+3 {
		t.Errorf("%+v", tally)
	}
	mallory, err := l.Account(context.Background(), "mallory@example.org")
	okay(t, err)
	n := 0
	for i := range mallory.Uses {
		n += mallory.Uses[i].Sessions()
	}
	if len(mallory.Uses) > mostShapes+3 || n != sessions+1 {
		t.Errorf("%d sessions in %d shapes", n, len(mallory.Uses))
	}
	anna, err := l.Account(context.Background(), "anna@example.org")
	okay(t, err)
	var names []string
	for i := range anna.Uses {
		names = append(names, anna.Uses[i].SNI+" "+anna.Uses[i].Program)
	}
	if want := []string{"mail.kanzlei.example Thunderbird 153", "mail.praxis.example Thunderbird 153"}; !slices.Equal(names, want) {
		t.Errorf("anna came as %q", names)
	}
}

// TestFollowingForLongKeepsLittle: a log that grows brings the same shapes at each look.
func TestFollowingForLongKeepsLittle(t *testing.T) {
	l := ledgerAt(t, filepath.Join(t.TempDir(), "ledger.db"))
	defer l.Close()
	in := intakeOf(l)
	path := filepath.Join(t.TempDir(), "events.jsonl")
	log, err := os.Create(path)
	okay(t, err)
	defer log.Close()
	f := in.Follower(path)
	for range 5 {
		for i := range 3 {
			line, err := events.Encode(&events.Session{Time: intakeNow, Brand: "alpha", Protocol: "imap", Port: 143 + i, Account: "anna@example.org", Verified: true})
			okay(t, err)
			_, err = log.Write(line)
			okay(t, err)
		}
		tally, err := f.Look(context.Background())
		okay(t, err)
		if tally.Logins != 3 || len(in.shapes) != 3 {
			t.Errorf("%d logins, %d shapes are remembered", tally.Logins, len(in.shapes))
		}
	}
}

// TestNoAddressIsKept looks through all bytes of the ledger.
func TestNoAddressIsKept(t *testing.T) {
	dir := t.TempDir()
	place := filepath.Join(dir, "l.db")
	l := ledgerAt(t, place)
	path := filepath.Join(dir, "events.jsonl")
	random := rand.New(rand.NewPCG(9, 9))
	var text strings.Builder
	for i := range 300 {
		text.WriteString(eventLine(t, fmt.Sprintf("S%d", i), random.IntN))
	}
	okay(t, os.WriteFile(path, []byte(text.String()), 0o600))
	_, err := intakeOf(l).Read(t.Context(), Events, path)
	okay(t, err)
	okay(t, l.Close())
	data, err := os.ReadFile(place)
	okay(t, err)
	for _, word := range []string{"198.51.100", "2001:db8", "100.64", "192.168.0.9", "S17"} {
		if bytes.Contains(data, []byte(word)) {
			t.Errorf("the ledger has %s", word)
		}
	}
	for _, ip := range []string{"198.51.100.7", "100.64.0.1", "2001:db8::1"} {
		if raw := netip.MustParseAddr(ip).AsSlice(); bytes.Contains(data, raw) {
			t.Errorf("the ledger has the bytes of %s", ip)
		}
	}
	if !bytes.Contains(data, []byte("anna@example.org")) {
		t.Error("the ledger has not even what it shall have")
	}
}

func TestFollowUntilTheEnd(t *testing.T) {
	dir := t.TempDir()
	l := ledgerAt(t, filepath.Join(dir, "l.db"))
	defer l.Close()
	path := filepath.Join(dir, "events.jsonl")
	pick := func(int) int { return 1 }
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	told := make(chan Tally)
	ended := make(chan error)
	okay(t, os.WriteFile(path, []byte(eventLine(t, "A", pick)), 0o600))
	go func() {
		ended <- intakeOf(l).Follow(ctx, path, time.Millisecond, func(tally Tally, err error) {
			if err != nil {
				t.Error(err)
			}
			told <- tally
		})
	}()
	if tally := <-told; tally.Lines != 1 {
		t.Errorf("at first %+v", tally)
	}
	okay(t, os.Rename(path, filepath.Join(dir, "events-2026-11-21.jsonl")))
	okay(t, os.WriteFile(path, []byte(eventLine(t, "B", pick)+eventLine(t, "C", pick)), 0o600))
	for n := 0; n < 2; {
		n += (<-told).Lines
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if a, err := l.Account(t.Context(), "bert@example.org"); err != nil || a.Uses[0].Sessions() != 3 {
		t.Errorf("%+v, %v", a, err)
	}
}

// fataler is a test of testing or of rapid.
type fataler interface {
	Helper()
	Fatal(...any)
}

func okay(t fataler, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestOnlyFilesAreRead: a pipe would wait for its writer for ever, and has no beginning to go back to.
func TestOnlyFilesAreRead(t *testing.T) {
	dir := t.TempDir()
	l := ledgerAt(t, filepath.Join(dir, "ledger.db"))
	defer l.Close()
	pipe := filepath.Join(dir, "pipe")
	okay(t, syscall.Mkfifo(pipe, 0o600))
	for _, path := range []string{pipe, "/dev/zero", dir} {
		if _, err := intakeOf(l).Read(t.Context(), Dovecot, path); !errors.Is(err, errNoFile) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// TestEndlessLineIsLeft: whoever gives up waiting for a file's first newline is heard.
func TestEndlessLineIsLeft(t *testing.T) {
	l := ledgerAt(t, filepath.Join(t.TempDir(), "ledger.db"))
	defer l.Close()
	path := filepath.Join(t.TempDir(), "sparse.log")
	f, err := os.Create(path)
	okay(t, err)
	defer f.Close()
	_, err = f.WriteString("a line\n")
	okay(t, err)
	okay(t, f.Truncate(1<<40)) // takes no room, and hours to read
	ctx, cancel := context.WithCancel(t.Context())
	in := intakeOf(l)
	in.Batch = 1
	l.fault = func(point string) error {
		if point == "committed" { // the first line is in the ledger; what follows has no end
			cancel()
		}
		return nil
	}
	tally, err := in.Read(ctx, Dovecot, path)
	if !errors.Is(err, context.Canceled) || tally.Lines != 1 {
		t.Errorf("%+v: %v", tally, err)
	}
}
