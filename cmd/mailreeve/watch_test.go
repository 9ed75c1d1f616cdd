package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"mailreeve/events"
)

// lookout is a watching, with what it logs, and the sessions that it hears.
type lookout struct {
	*watching
	t    *testing.T
	hear atomic.Pointer[func(*events.Session)]
	logs *observer.ObservedLogs
}

func newLookout(t *testing.T, path string) *lookout {
	t.Helper()
	core, logs := observer.New(zap.InfoLevel)
	l := &lookout{t: t, logs: logs}
	var err error
	if l.watching, err = newWatching(path, &l.hear, zap.New(core)); err != nil {
		t.Fatal(err)
	}
	return l
}

// login is heard of by who watches, if anybody does.
func (l *lookout) login(id, account, ip string) {
	if hear := l.hear.Load(); hear != nil {
		(*hear)(&events.Session{ID: id, Account: account, Verified: account != "", IP: netip.MustParseAddr(ip)})
	}
}

// socketDir is short enough for a socket's path (sun_path has 104 bytes at least).
func socketDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "watch")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func TestWatchHearsOneCustomer(t *testing.T) {
	path := watchSocket(socketDir(t))
	l := newLookout(t, path)
	defer l.end()
	if info, err := os.Lstat(path); err != nil || info.Mode() != fs.ModeSocket|0o600 {
		t.Errorf("the socket has mode %v (%v)", info.Mode(), err)
	}
	if l.login("0", "anna@example.org", "192.0.2.7"); l.hear.Load() != nil {
		t.Error("sessions are listened to, and nobody watches")
	}
	w, err := openWatch(t.Context(), path, "Anna@example.org", []netip.Prefix{netip.MustParsePrefix("192.0.2.7/32"), netip.MustParsePrefix("2001:db8:0:1::/64")})
	if err != nil {
		t.Fatal(err)
	}
	l.login("1", "anna@example.org", "198.51.100.1")
	l.login("2", "bert@example.org", "198.51.100.1")
	l.login("3", "", "198.51.100.1")
	l.login("4", "", "192.0.2.7")
	l.login("5", "", "::ffff:192.0.2.7")
	l.login("6", "", "192.0.2.8")
	l.login("7", "", "2001:db8:0:1::9")
	l.login("neighbour", "bert@example.org", "192.0.2.7") // behind the same address
	l.login("8", "anna@example.org", "2001:db8::9")
	var heard []string
	if err := w.each(t.Context(), func(e *events.Session) bool {
		heard = append(heard, e.ID)
		return e.ID != "8"
	}); err != nil {
		t.Error(err)
	}
	if want := []string{"1", "4", "5", "7", "8"}; !slices.Equal(heard, want) {
		t.Errorf("heard %q, want %q", heard, want)
	}
	if err := until(func() error {
		if l.hear.Load() != nil {
			return errors.New("sessions are listened to, and nobody watches any more")
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	l.end()
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket is left behind: %v", err)
	}
	_, err = openWatch(t.Context(), path, "anna", nil)
	if h := (*hinted)(nil); !errors.As(err, &h) || !strings.Contains(h.hint, "must be running") {
		t.Errorf("without the program: %v", err)
	}
}

func TestWatchEndsWithEither(t *testing.T) {
	path := watchSocket(socketDir(t))
	l := newLookout(t, path)
	defer l.end()

	ctx, cancel := context.WithCancel(t.Context())
	w, err := openWatch(ctx, path, "anna", nil)
	if err != nil {
		t.Fatal(err)
	}
	l.login("1", "anna", "192.0.2.7")
	err = w.each(ctx, func(*events.Session) bool {
		cancel()
		return true
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}

	if w, err = openWatch(t.Context(), path, "anna", nil); err != nil {
		t.Fatal(err)
	}
	l.end()
	if err := w.each(t.Context(), func(*events.Session) bool { return true }); err == nil || !strings.HasSuffix(err.Error(), "the proxy has ended it: the proxy ends") {
		t.Errorf("with the program: %v", err)
	}
}

// TestWatchTakesItsPlace: from a run that was killed, and from nobody else.
func TestWatchTakesItsPlace(t *testing.T) {
	path := watchSocket(socketDir(t))
	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := newWatching(path, new(atomic.Pointer[func(*events.Session)]), zap.NewNop()); err == nil || !strings.Contains(err.Error(), "another program answers there") {
		t.Errorf("beside a program that runs: %v", err)
	}
	stale.SetUnlinkOnClose(false)
	stale.Close()
	l := newLookout(t, path)
	if w, err := openWatch(t.Context(), path, "anna", nil); err != nil {
		t.Errorf("behind a program that was killed: %v", err)
	} else {
		w.close()
	}

	// What somebody has put there meanwhile is not this one's to remove.
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("kept"), 0o600); err != nil {
		t.Fatal(err)
	}
	l.end()
	if _, err := newWatching(path, &l.hear, zap.NewNop()); err == nil || !strings.Contains(err.Error(), "something else than a socket") {
		t.Errorf("a file in its place: %v", err)
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != "kept" {
		t.Errorf("the file is %q (%v)", text, err)
	}
	if entries, err := os.ReadDir(filepath.Dir(path)); err != nil || len(entries) != 1 {
		t.Errorf("left behind: %v (%v)", entries, err)
	}
}

// reader is one that watches by a pipe, in a bubble.
type reader struct {
	net.Conn
	*bufio.Reader
	t *testing.T
}

func (l *lookout) ask(t *testing.T, request string) *reader {
	t.Helper()
	ours, theirs := net.Pipe()
	l.served.Go(func() { l.serve(theirs) })
	go io.WriteString(ours, request)
	t.Cleanup(func() { ours.Close() })
	return &reader{ours, bufio.NewReader(ours), t}
}

// said is the next line, of a note its word and text.
func (r *reader) said() string {
	r.t.Helper()
	line, err := r.ReadString('\n')
	if err != nil {
		return err.Error()
	}
	var n watchNote
	if err := json.Unmarshal([]byte(line), &n); err != nil {
		r.t.Error(err)
	}
	if n.Watch == "" {
		return "an event"
	}
	return strings.TrimSuffix(n.Watch+": "+n.Text, ": ")
}

const askAnna = `{"account": "anna"}` + "\n"

func TestWatchRefuses(t *testing.T) {
	for request, want := range map[string]string{
		"{}\n":                      "refused: neither an account nor a network is named",
		`{"acount": "anna"}` + "\n": `refused: reading what to watch: json: unknown field "acount"`,
		`{"networks": [""]}` + "\n": "refused: one of the networks is none",
		`{"networks": ["192.0.2.7/32"` + strings.Repeat(`,"192.0.2.7/32"`, mostNetworks) + "]}\n": "refused: more than 256 networks are named",
		strings.Repeat("x", mostWatched+1): "refused: reading what to watch: bufio: buffer full",
		`{"account": "anna"}`:              "refused: reading what to watch: read pipe: i/o timeout",
	} {
		synctest.Test(t, func(t *testing.T) {
			l := newLookout(t, "")
			r := l.ask(t, request)
			if got := r.said(); got != want {
				t.Errorf("%.40q: %s, want %s", request, got, want)
			}
			if got := r.said(); got != "EOF" {
				t.Errorf("%.40q: and then %s", request, got)
			}
			r.Close()
			l.end()
		})
	}
	synctest.Test(t, func(t *testing.T) {
		l := newLookout(t, "")
		var all []*reader
		for range mostWatchers {
			r := l.ask(t, askAnna)
			if got := r.said(); got != "begins" {
				t.Fatal(got)
			}
			all = append(all, r)
		}
		if got := l.ask(t, askAnna).said(); got != "refused: 8 are watching already" {
			t.Error(got)
		}
		all[3].Close()
		synctest.Wait()
		if got := l.ask(t, askAnna).said(); got != "begins" {
			t.Errorf("the place that is free is not given: %s", got)
		}
		for _, r := range all {
			r.Close()
		}
		l.end()
	})
}

func TestWatchIsNotForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLookout(t, "")
		r, began := l.ask(t, askAnna), time.Now()
		if got := r.said(); got != "begins" {
			t.Fatal(got)
		}
		if got := r.said(); got != "over: it lasts 10m0s" || time.Since(began) != longestWatch {
			t.Errorf("%s, after %v", got, time.Since(began))
		}
		if got := r.said(); got != "EOF" || l.hear.Load() != nil {
			t.Errorf("%s; sessions are listened to: %v", got, l.hear.Load() != nil)
		}
		l.end()
	})
}

// TestWatchWaitsForNobody: who does not read misses events, costs sessions no time,
// and is cut.
func TestWatchWaitsForNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLookout(t, "")
		slow, quick := l.ask(t, askAnna), l.ask(t, askAnna)
		if a, b := slow.said(), quick.said(); a != "begins" || b != "begins" {
			t.Fatal(a, b)
		}
		began := time.Now()
		for i := range 1 + watchBacklog + 10 { // one is being written
			l.login(fmt.Sprint(i), "anna", "192.0.2.7")
			synctest.Wait()
			if got := quick.said(); got != "an event" {
				t.Fatal(got)
			}
		}
		if took := time.Since(began); took != 0 {
			t.Errorf("it took %v", took)
		}
		time.Sleep(watchPatience)
		synctest.Wait()
		if got := slow.said(); got != "EOF" {
			t.Errorf("the slow one hears %s", got)
		}
		lines := l.logs.FilterMessage("logins were watched").All()
		if len(lines) != 1 || lines[0].Level != zap.WarnLevel || lines[0].ContextMap()["missed"] != int64(10) {
			t.Errorf("logged %v", lines)
		}
		l.login("x", "anna", "192.0.2.7")
		if got := quick.said(); got != "an event" {
			t.Errorf("the quick one hears %s", got)
		}
		quick.Close()
		l.end()
	})
}

// TestWatchTheProgram: from a login's answer to who watches, through the sockets of
// the running program.
func TestWatchTheProgram(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	dir := socketDir(t)
	s.configure(listeners, rest+"state: "+filepath.Join(dir, "state")+"\n")
	s.run()
	socket := watchSocket(filepath.Join(dir, "state"))
	w, err := openWatch(t.Context(), socket, "anna", []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")})
	if err != nil {
		t.Fatal(err)
	}
	var heard []string
	c := newTalk(t, s.secure("imaps", "imap.example.org"))
	c.say("a LOGIN anna wrong")
	c.hear("^a NO")
	if err := w.each(t.Context(), func(e *events.Session) bool {
		heard = append(heard, fmt.Sprintf("%s %s %s%s", e.Protocol, e.Refused, e.Account, e.End))
		if e.Verified {
			return false
		}
		c.say("b LOGIN anna demo")
		c.hear("^b OK")
		return true
	}); err != nil {
		t.Error(err)
	}
	if want := []string{"imap credential ", "imap  anna"}; !slices.Equal(heard, want) {
		t.Errorf("heard %q, want %q", heard, want)
	}
	s.signal(syscall.SIGTERM)
	s.ends()
	if _, err := os.Lstat(socket); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket is left behind: %v", err)
	}
}
