package certs

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// node is a server with tickets, and a log.
type node struct {
	*Tickets
	seen *observer.ObservedLogs
}

func open(t *testing.T, path string) node {
	t.Helper()
	core, seen := observer.New(zap.InfoLevel)
	tickets, err := OpenTickets(path, zap.New(core))
	if err != nil {
		t.Fatal(err)
	}
	return node{tickets, seen}
}

// known are its keys.
func (n node) known() []ticketKey {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.keys)
}

// run runs a node until the function is called, or the test ends.
func (n node) run(t *testing.T) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); n.Run(ctx) }()
	stop = sync.OnceFunc(func() { cancel(); <-done })
	t.Cleanup(stop)
	return stop
}

// expect compares what was logged since the last time, and looks for keys in it.
func (n node) expect(t *testing.T, want ...string) {
	t.Helper()
	var got []string
	for _, e := range n.seen.TakeAll() {
		got = append(got, fmt.Sprint(e.Level, " ", e.Message, " ", e.ContextMap()))
		for _, k := range n.known() {
			if strings.Contains(got[len(got)-1], base64.StdEncoding.EncodeToString(k.Key)[:8]) || strings.Contains(fmt.Sprintf("%v %+v %#v", k, k, k), fmt.Sprint(k.Key[0], " ", k.Key[1])) {
				t.Error("a key is in the log")
			}
		}
	}
	if !slices.EqualFunc(got, want, strings.Contains) {
		t.Errorf("the log has\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
}

// ticket is a client's memory of one session, which no later one replaces.
type ticket struct{ kept *tls.ClientSessionState }

func (c *ticket) Get(string) (*tls.ClientSessionState, bool) { return c.kept, c.kept != nil }

func (c *ticket) Put(_ string, s *tls.ClientSessionState) {
	if c.kept == nil {
		c.kept = s
	}
}

var resumable = sync.OnceValues(func() (tls.Certificate, error) {
	ca, err := NewAuthority("Test authority")
	if err != nil {
		return tls.Certificate{}, err
	}
	return ca.Issue(Order{Hosts: []string{"imap.example.org"}, NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<33, 0)})
})

// resumes runs a session at a node and says whether it was resumed.
func (n node) resumes(t *testing.T, memory *ticket, version uint16) bool {
	t.Helper()
	return n.resumesAs(t, memory, version, "test", "imap.example.org")
}

// resumesAs is resumes for a purpose and a server name.
func (n node) resumesAs(t *testing.T, memory *ticket, version uint16, purpose, name string) bool {
	t.Helper()
	cert, err := resumable()
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	near, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer near.Close()
	far, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		defer far.Close()
		c := &tls.Config{Certificates: []tls.Certificate{cert}}
		n.Bind(c, purpose)
		_, err := tls.Server(far, c).Write([]byte("*"))
		done <- err
	}()
	client := tls.Client(near, &tls.Config{ServerName: name, InsecureSkipVerify: true, ClientSessionCache: memory, MaxVersion: version})
	if _, err := client.Read(make([]byte, 1)); err != nil { // the ticket comes before the first byte
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return client.ConnectionState().DidResume
}

func TestTicketsLive(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
			synctest.Test(t, func(t *testing.T) {
				path := filepath.Join(t.TempDir(), "state", "tickets")
				n := open(t, path)
				if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
					t.Fatalf("%v, %v", info, err)
				}
				memory := &ticket{}
				if n.resumes(t, memory, version) {
					t.Fatal("a first session is resumed")
				}
				if !n.resumes(t, memory, version) {
					t.Error("not resumed")
				}
				n = open(t, path)
				if !n.resumes(t, memory, version) {
					t.Error("not resumed after a restart")
				}
				stop := n.run(t)
				time.Sleep(ticketLife - 2*time.Minute)
				synctest.Wait()
				if !n.resumes(t, memory, version) {
					t.Error("not resumed after rotation")
				}
				if len(n.known()) < 3 || len(n.known()) > 4 {
					t.Errorf("%d keys", len(n.known()))
				}
				time.Sleep(4 * time.Minute)
				synctest.Wait()
				if n.resumes(t, memory, version) {
					t.Error("resumed with a key that has had its time")
				}
				stop()

				// Down for days: the first client after it finds a key, and a new one.
				young := &ticket{}
				n.resumes(t, young, version)
				time.Sleep(20 * time.Hour)
				n = open(t, path)
				if !n.resumes(t, young, version) {
					t.Error("not resumed after a day")
				}
				time.Sleep(7 * 24 * time.Hour)
				n = open(t, path)
				if n.resumes(t, young, version) || len(n.known()) != 1 {
					t.Errorf("old keys are in use after a week: %v", n.known())
				}
				n.expect(t)
			})
		})
	}
}

// Two nodes on one file always know the keys of each other's tickets, and there is one new
// key for both of them.
func TestTicketsTwoNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "tickets")
		a, b := open(t, path), open(t, path)
		a.run(t)
		b.run(t)
		seen := map[string]bool{}
		for range 5 * 24 * 4 {
			time.Sleep(15*time.Minute + time.Second)
			synctest.Wait()
			// Who met the other's lock knows the new key a reading later.
			young := func(k ticketKey) bool { return k.From.After(time.Now().Add(ahead - 2*rereadEvery)) }
			inA, inB := slices.DeleteFunc(a.known(), young), slices.DeleteFunc(b.known(), young)
			if !slices.EqualFunc(inA, inB, ticketKey.is) || len(a.known()) > 4 {
				t.Fatalf("%v: %v and %v", time.Now(), a.known(), b.known())
			}
			for _, k := range a.known() {
				seen[string(k.Key)] = true
			}
		}
		for _, n := range []node{a, b} {
			for _, other := range []node{a, b} {
				memory := &ticket{}
				n.resumes(t, memory, tls.VersionTLS13)
				if !other.resumes(t, memory, tls.VersionTLS13) {
					t.Error("a ticket is not known at the other node")
				}
			}
			n.expect(t)
		}
		if len(seen) != 11 { // the first, and two a day, each made ten minutes before its time
			t.Errorf("%d keys in five days", len(seen))
		}
	})
}

// A key is known everywhere before the first ticket is made with it.
func TestTicketsAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "tickets")
		a := open(t, path)
		time.Sleep(rotateEvery - ahead/2)
		a.turn(time.Now())
		b := open(t, path)
		if len(b.known()) != 2 || !b.known()[1].From.After(time.Now()) {
			t.Fatalf("%v", b.known())
		}
		memory := &ticket{}
		b.resumes(t, memory, tls.VersionTLS13)
		a.turn(time.Now()) // whose time has come is first
		time.Sleep(ahead)
		b.turn(time.Now())
		later := &ticket{}
		b.resumes(t, later, tls.VersionTLS13)
		if !a.resumes(t, memory, tls.VersionTLS13) || !a.resumes(t, later, tls.VersionTLS13) {
			t.Error("a ticket of the other node is not known")
		}
	})
}

// Many begin, and rotate, in the same instant.
func TestTicketsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "tickets")
		var nodes [6]node
		turn := func() {
			var wg sync.WaitGroup
			for i := range nodes {
				wg.Go(func() {
					if nodes[i].Tickets == nil {
						nodes[i] = open(t, path)
					} else {
						nodes[i].turn(time.Now())
					}
				})
			}
			wg.Wait()
		}
		turn()
		for round := range 4 {
			for range len(nodes) + 1 { // those that met a lock come again
				time.Sleep(rereadEvery)
				turn()
			}
			for i := range nodes {
				if !slices.EqualFunc(nodes[i].known(), nodes[0].known(), ticketKey.is) || len(nodes[i].unsaved) > 0 {
					t.Errorf("round %d: %v and %v", round, nodes[i].known(), nodes[0].known())
				}
				nodes[i].expect(t)
			}
			time.Sleep(rotateEvery)
			turn()
		}
	})
}

func TestTicketsTrouble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "tickets")
		alone := "error session ticket keys are in memory alone, so sessions are not resumed after a restart or at another node map[error:"
		minute := func(n node) {
			time.Sleep(rereadEvery)
			n.turn(time.Now())
		}

		// Others can read it.
		n := open(t, path)
		known := n.known()
		if err := os.Chmod(path, 0o640); err != nil {
			t.Fatal(err)
		}
		for _, n := range []node{n, open(t, path)} {
			minute(n)
			minute(n)
			if len(n.known()) != 1 || n.known()[0].is(known[0]) {
				t.Errorf("keys that others know are in use: %v", n.known())
			}
			n.expect(t, alone+path+": others have rights to the file of session ticket keys (mode 0640); remove the file, and new keys are made")
		}
		held := n.known()
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		minute(n)
		n.expect(t, "info session ticket keys are in their file again")
		if !slices.EqualFunc(n.known(), held, ticketKey.is) || !slices.EqualFunc(open(t, path).known(), held, ticketKey.is) {
			t.Error("the keys of memory are not in the file")
		}

		// Without reason to be sorry for what is lost: removed, all are new.
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		minute(n)
		if len(n.known()) != 1 || n.known()[0].is(held[0]) {
			t.Error("a removed file does not make new keys")
		}
		n.expect(t)

		// It is damaged.
		if err := os.WriteFile(path, []byte(`{"keys": "c2VjcmV0"}`), 0o600); err != nil {
			t.Fatal(err)
		}
		minute(n)
		n.expect(t, "error session ticket keys are made anew, so nothing is resumed with the old ones map[error:the file of session ticket keys is damaged moved_to:"+path+".bad]")
		if bad, err := os.ReadFile(path + ".bad"); err != nil || !strings.Contains(string(bad), "c2VjcmV0") {
			t.Errorf("%s, %v", bad, err)
		}
		if !slices.EqualFunc(open(t, path).known(), n.known(), ticketKey.is) {
			t.Error("the new keys are not in the file")
		}

		// It cannot be written when the next key is due: that key is made once, used, and
		// written when it can be.
		n.path = filepath.Join(filepath.Dir(path), strings.Repeat("x", 252)) // with .lock too long for a name
		if err := os.Symlink(path, n.path); err != nil {
			t.Fatal(err)
		}
		time.Sleep(rotateEvery - ahead)
		minute(n)
		held = n.known()
		minute(n)
		minute(n)
		n.expect(t, alone+"writing session ticket keys to "+n.path+": ")
		if len(held) != 2 || !slices.EqualFunc(n.known(), held, ticketKey.is) {
			t.Errorf("%v, before %v", n.known(), held)
		}
		n.path = path
		minute(n)
		n.expect(t, "info session ticket keys are in their file again")
		if !slices.EqualFunc(open(t, path).known(), held, ticketKey.is) {
			t.Error("the key of memory is not in the file")
		}

		// A clock was wrong: its keys put off no other.
		wrong := ticketKey{Key: slices.Repeat(secretKey{7}, 32), From: time.Now().AddDate(3, 0, 0)}
		if err := n.write([]ticketKey{wrong}); err != nil {
			t.Fatal(err)
		}
		minute(n)
		if len(n.known()) != 1 || n.known()[0].is(wrong) || n.known()[0].From.After(time.Now()) {
			t.Errorf("%v", n.known())
		}
		n.expect(t)
	})
}

func TestTicketsLock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "tickets")
		lock := path + ".lock"
		if _, err := lease(lock, time.Now(), lockTime); err != nil {
			t.Fatal(err)
		}
		n := open(t, path)
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) || len(n.known()) != 1 {
			t.Errorf("written under another's lock: %v, %v", err, n.known())
		}
		known := n.known()
		time.Sleep(lockTime / 2)
		n.turn(time.Now())
		if !slices.EqualFunc(n.known(), known, ticketKey.is) {
			t.Error("another key while it waits")
		}
		time.Sleep(lockTime / 2)
		n.turn(time.Now())
		if !slices.EqualFunc(open(t, path).known(), known, ticketKey.is) {
			t.Error("a lock that was left behind is not taken over")
		}
		if _, err := os.Stat(lock); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the lock stays: %v", err)
		}
		n.expect(t)
	})
}

// A node that died while it wrote leaves no keys behind for longer than they are good.
func TestTicketsLeftOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		n := open(t, filepath.Join(dir, "tickets"))
		left := filepath.Join(dir, ".new-1")
		if err := errors.Join(os.WriteFile(left, nil, 0o600), os.Chtimes(left, time.Now(), time.Now())); err != nil {
			t.Fatal(err)
		}
		time.Sleep(rotateEvery)
		n.turn(time.Now())
		if files, _ := filepath.Glob(filepath.Join(dir, "*")); len(n.known()) != 2 || len(files) != 1 {
			t.Errorf("%d keys, files %q", len(n.known()), files)
		}
		n.expect(t)
	})
}

func TestTicketsInMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := open(t, "")
		n.run(t)
		memory := &ticket{}
		n.resumes(t, memory, tls.VersionTLS13)
		time.Sleep(rotateEvery + time.Hour)
		synctest.Wait()
		if !n.resumes(t, memory, tls.VersionTLS13) || len(n.known()) != 2 {
			t.Errorf("%v", n.known())
		}
		n.expect(t)
	})
	if _, err := OpenTickets("/dev/null/tickets", zap.NewNop()); err == nil || !strings.Contains(err.Error(), "making the directory of the session ticket keys: ") {
		t.Error(err)
	}
}

// A ticket is good for one purpose and one name.
func TestTicketsAreBound(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		n := open(t, "")
		for _, test := range []struct {
			purpose, name string
			want          bool
		}{
			{"imap", "a.example", true}, {"imap", "A.example", true}, {"imap", "b.example", false}, {"imap", "192.0.2.1", false},
			{"pop3", "a.example", false}, {"imap a.example", "192.0.2.1", false}, {"", "imap a.example", false},
		} {
			memory := &ticket{}
			n.resumesAs(t, memory, version, "imap", "a.example")
			if got := n.resumesAs(t, memory, version, test.purpose, test.name); got != test.want {
				t.Errorf("%s: for %q and %q: resumed %t", tls.VersionName(version), test.purpose, test.name, got)
			}
		}
		c := new(tls.Config)
		n.Bind(c, "imap")
		unbound, err := n.config.EncryptTicket(tls.ConnectionState{}, new(tls.SessionState))
		if err != nil {
			t.Fatal(err)
		}
		for _, foreign := range [][]byte{unbound, []byte("garbage"), nil} {
			if ss, err := c.UnwrapSession(foreign, tls.ConnectionState{}); err != nil || ss != nil {
				t.Errorf("%v, %v", ss, err)
			}
		}
		n.expect(t)
	}
}

// Keys change while handshakes go on.
func TestTicketsDuringHandshakes(t *testing.T) {
	n := open(t, filepath.Join(t.TempDir(), "tickets"))
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for range 20 {
				memory := &ticket{}
				n.resumes(t, memory, tls.VersionTLS13)
				n.resumes(t, memory, tls.VersionTLS13)
			}
		})
	}
	for i := range 50 {
		n.turn(time.Now().Add(time.Duration(i) * rotateEvery))
	}
	wg.Wait()
}

// What is read is used, and written it is the same.
func FuzzTicketKeys(f *testing.F) {
	key := base64.StdEncoding.EncodeToString(slices.Repeat([]byte{1}, 32))
	f.Add([]byte(`{"keys":[{"key":"` + key + `","from":"2026-01-01T00:00:00Z"}]}`))
	f.Add([]byte(`{"keys":[{"key":"` + key + `","from":"2026-01-01T00:00:00Z"},{"key":"` + key + `","from":"9999-12-31T23:59:59Z"}]}`))
	f.Add([]byte(`{"keys":[]}`))
	f.Add([]byte(`{"keys":[{"key":"AAAA","from":"2026-01-01T00:00:00Z"}]}`))
	f.Add([]byte("garbage"))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, data []byte) {
		keys, err := parseKeys(data)
		if err != nil {
			return
		}
		for _, now := range []time.Time{time.Unix(0, 0), time.Date(2026, 1, 1, 6, 0, 0, 0, time.UTC)} {
			next, _ := schedule(keys, now)
			if again, changed := schedule(next, now); changed || len(next) > maxKeys+1 || !slices.EqualFunc(again, next, ticketKey.is) {
				t.Errorf("%d keys, scheduled again %d", len(next), len(again))
			}
			n := &Tickets{config: new(tls.Config), keys: next, path: filepath.Join(dir, "tickets")}
			n.use(now)
			if err := n.write(next); err != nil {
				t.Fatal(err)
			}
			if read, err := n.read(); err != nil || !slices.EqualFunc(read, next, ticketKey.is) {
				t.Errorf("%v, %v", read, err)
			}
		}
	})
}
