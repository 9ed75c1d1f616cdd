package main

// Logins as they happen, for a support desk that has the customer on the phone: the
// event log has a session only once it is over. The running program listens at a
// socket in its directory of state, for its own user alone. Who connects sends one
// line of JSON, {"account": ..., "networks": [...]}, and gets the sessions of that
// account, one event a line. An account that the backend did not confirm is in no
// event: what comes from one of the networks and has none may be this customer's, and
// is sent too. What another customer does there is nobody's business.
//
// Lines that are no events say how the watch stands: {"watch": "begins"}, or
// "refused" or "over" with the reason.

import (
	"bufio"
	"bytes"
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
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"go.uber.org/zap"

	"mailreeve/events"
)

const (
	mostWatchers  = 8                // at once
	longestWatch  = 10 * time.Minute // a forgotten terminal sees nothing more
	watchPatience = 5 * time.Second  // for what is asked, and for a reader that does not read
	watchBacklog  = 64               // events that wait for a reader
	mostWatched   = 16 << 10         // bytes of what is asked
	mostNetworks  = 256              // in it: each event of any session is compared with them
)

// watchSocket is where the logins of a running program can be watched.
func watchSocket(state string) string { return filepath.Join(state, "watch.sock") }

// watchRequest is what somebody wants to see.
type watchRequest struct {
	Account  string         `json:"account,omitempty"`
	Networks []netip.Prefix `json:"networks,omitempty"`
}

// watchNote is a line that is no event.
type watchNote struct {
	Watch string `json:"watch"`
	Text  string `json:"text,omitempty"`
}

// Words of a note.
const (
	watchBegins  = "begins"
	watchRefused = "refused"
	watchOver    = "over"
)

// watching lets others watch.
type watching struct {
	log  *zap.Logger
	hear *atomic.Pointer[func(*events.Session)] // of the engine

	path     string
	listener net.Listener
	own      os.FileInfo // of the socket, which another may have put its own in place of
	served   sync.WaitGroup
	ctx      context.Context // ends with it
	stop     context.CancelFunc

	mu       sync.Mutex // guards the following
	watchers []*watcher // never changed, but replaced: sessions go through it without the lock
}

// watcher is one that watches.
type watcher struct {
	watchRequest
	lines  chan []byte
	missed atomic.Int64 // events for which there was no room
}

// newWatching opens the socket. Without a path there is none.
func newWatching(path string, hear *atomic.Pointer[func(*events.Session)], log *zap.Logger) (*watching, error) {
	w := &watching{log: log, hear: hear, path: path}
	w.ctx, w.stop = context.WithCancel(context.Background())
	if path == "" {
		return w, nil
	}
	if err := w.listen(); err != nil {
		return w, fmt.Errorf("opening %s: %w", path, err)
	}
	w.served.Go(w.accept)
	return w, nil
}

// listen makes the socket beside its place and moves it there: so nobody reaches it
// before its mode is right, and one that a former run has left behind goes by the same.
func (w *watching) listen() error {
	switch info, err := os.Lstat(w.path); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	case info.Mode().Type() != fs.ModeSocket:
		return errors.New("something else than a socket is there")
	default:
		if conn, err := net.DialTimeout("unix", w.path, watchPatience); err == nil {
			conn.Close()
			return errors.New("another program answers there")
		}
	}
	dir, err := os.MkdirTemp(filepath.Dir(w.path), ".watch-*") // with mode 0700
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	made := filepath.Join(dir, "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: made, Net: "unix"})
	if err != nil {
		return err
	}
	l.SetUnlinkOnClose(false)
	err = os.Chmod(made, 0o600)
	if err == nil {
		w.own, err = os.Lstat(made)
	}
	if err == nil {
		err = os.Rename(made, w.path)
	}
	if err != nil {
		l.Close()
		return err
	}
	w.listener = l
	return nil
}

// end closes the socket and sends away who watches.
func (w *watching) end() {
	w.stop()
	if w.listener != nil {
		if now, err := os.Lstat(w.path); err == nil && os.SameFile(now, w.own) {
			os.Remove(w.path)
		}
		w.listener.Close()
	}
	w.served.Wait()
}

// accept serves whoever comes, until the socket is closed.
func (w *watching) accept() {
	for {
		conn, err := w.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			w.log.Error("accepting a watcher failed, trying again", zap.Duration("after", time.Second), zap.Error(err))
			select {
			case <-time.After(time.Second): // no descriptors left, mostly: those in use will come back
			case <-w.ctx.Done():
			}
			continue
		}
		w.served.Go(func() { w.serve(conn) })
	}
}

// serve is one watch, from its first line to its end.
func (w *watching) serve(conn net.Conn) {
	defer conn.Close()
	refuse := func(format string, args ...any) {
		note(conn, watchRefused, fmt.Sprintf(format, args...))
	}
	request, err := readWatch(conn)
	if err != nil {
		refuse("%v", err)
		return
	}
	me := &watcher{watchRequest: *request, lines: make(chan []byte, watchBacklog)}
	if !w.enter(me) {
		refuse("%d are watching already", mostWatchers)
		return
	}
	defer w.leave(me)
	told, began := 0, time.Now()
	if note(conn, watchBegins, "") == nil {
		told = w.pass(conn, me)
	}
	level := zap.InfoLevel
	if me.missed.Load() > 0 {
		level = zap.WarnLevel
	}
	w.log.Log(level, "logins were watched", zap.Int("events", told), zap.Int64("missed", me.missed.Load()), zap.Duration("for", time.Since(began)))
}

// pass hands on what is heard, until the reader has gone, reads no more, or its time
// is up. It returns how many events it took.
func (w *watching) pass(conn net.Conn, me *watcher) (told int) {
	gone := make(chan struct{})
	w.served.Go(func() {
		defer close(gone)
		io.Copy(io.Discard, conn)
	})
	conn.SetReadDeadline(time.Time{})
	enough := time.NewTimer(longestWatch)
	defer enough.Stop()
	for {
		select {
		case line := <-me.lines:
			conn.SetWriteDeadline(time.Now().Add(watchPatience))
			if _, err := conn.Write(line); err != nil {
				return told
			}
			told++
		case <-gone:
			return told
		case <-enough.C:
			note(conn, watchOver, fmt.Sprintf("it lasts %v", longestWatch))
			return told
		case <-w.ctx.Done():
			note(conn, watchOver, "the proxy ends")
			return told
		}
	}
}

// readWatch reads what is asked.
func readWatch(conn net.Conn) (*watchRequest, error) {
	conn.SetReadDeadline(time.Now().Add(watchPatience))
	line, err := bufio.NewReaderSize(conn, mostWatched).ReadSlice('\n')
	if err != nil {
		return nil, fmt.Errorf("reading what to watch: %w", err)
	}
	r := new(watchRequest)
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	if err := d.Decode(r); err != nil {
		return nil, fmt.Errorf("reading what to watch: %w", err)
	}
	switch {
	case r.Account == "" && len(r.Networks) == 0:
		return nil, errors.New("neither an account nor a network is named")
	case len(r.Networks) > mostNetworks:
		return nil, fmt.Errorf("more than %d networks are named", mostNetworks)
	case slices.ContainsFunc(r.Networks, func(n netip.Prefix) bool { return !n.IsValid() }):
		return nil, errors.New("one of the networks is none")
	}
	r.Account = strings.ToLower(r.Account) // as sessions have it
	return r, nil
}

// note writes a line that is no event.
func note(conn net.Conn, word, text string) error {
	line, err := json.Marshal(watchNote{word, text})
	if err != nil {
		return err
	}
	conn.SetWriteDeadline(time.Now().Add(watchPatience))
	_, err = conn.Write(append(line, '\n'))
	return err
}

func (w *watching) enter(me *watcher) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.watchers) == mostWatchers {
		return false
	}
	w.tell(append(slices.Clip(w.watchers), me))
	return true
}

func (w *watching) leave(me *watcher) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tell(slices.DeleteFunc(slices.Clone(w.watchers), func(other *watcher) bool { return other == me }))
}

// tell makes sessions tell these. While there are none, sessions are not listened to.
func (w *watching) tell(all []*watcher) {
	w.watchers = all
	if len(all) == 0 {
		w.hear.Store(nil)
		return
	}
	hear := func(e *events.Session) { tellAll(all, e) }
	w.hear.Store(&hear)
}

// tellAll gives an event to those who want it. It is called by sessions, and waits
// for nobody: for whom there is no room misses it.
func tellAll(all []*watcher, e *events.Session) {
	var line []byte
	for _, w := range all {
		if !w.wants(e) {
			continue
		}
		if line == nil {
			var err error
			if line, err = events.Encode(e); err != nil {
				return // it is in the operators' log when the session ends
			}
		}
		select {
		case w.lines <- line:
		default:
			w.missed.Add(1)
		}
	}
}

// wants reports whether an event is of what is watched. Behind one address there are
// many customers, in a household or a whole mobile network.
func (r *watchRequest) wants(e *events.Session) bool {
	if r.Account != "" && e.Account != "" {
		return r.Account == e.Account
	}
	ip := e.IP.Unmap().WithZone("")
	return slices.ContainsFunc(r.Networks, func(n netip.Prefix) bool { return n.Contains(ip) })
}

// watch is one at a running program, from outside.
type watch struct {
	conn  net.Conn
	lines *bufio.Reader
	done  func() bool
}

// mostWatchedLine bounds a line of the running program, as events are bounded.
const mostWatchedLine = 256 << 10

// openWatch begins to watch. When it returns, no login is missed any more.
func openWatch(ctx context.Context, socket, account string, networks []netip.Prefix) (*watch, error) {
	conn, err := (&net.Dialer{Timeout: watchPatience}).DialContext(ctx, "unix", socket)
	if err != nil {
		err = fmt.Errorf("watching logins: %w", err)
		if errors.Is(err, fs.ErrPermission) {
			return nil, withHint(err, "run it as root, or as the user of the running program: `ls -l %s` shows who that is", shellWord(socket))
		}
		return nil, withHint(err, "the proxy must be running, with state in its configuration: `systemctl status mailreeve`")
	}
	// Whatever waits ends with the context.
	w := &watch{conn: conn, lines: bufio.NewReaderSize(conn, mostWatchedLine), done: context.AfterFunc(ctx, func() { conn.Close() })}
	request, err := json.Marshal(watchRequest{account, networks})
	if err == nil {
		conn.SetDeadline(time.Now().Add(watchPatience))
		_, err = conn.Write(append(request, '\n'))
	}
	if err == nil || errors.Is(err, syscall.EPIPE) { // who is refused at once can still read why
		_, err = w.next()
	}
	if err != nil {
		w.close()
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, fmt.Errorf("watching logins: %w", err)
	}
	conn.SetDeadline(time.Time{})
	return w, nil
}

// next returns the next event, or nil for the note that it begins.
func (w *watch) next() (*events.Session, error) {
	line, err := w.lines.ReadSlice('\n')
	if err == io.EOF {
		return nil, errors.New("the proxy has ended it")
	}
	if err != nil {
		return nil, err
	}
	var head struct {
		watchNote
		Event string `json:"event"`
	}
	if err := json.Unmarshal(line, &head); err != nil {
		return nil, fmt.Errorf("the proxy sends something else than events: %w", err)
	}
	switch {
	case head.Watch == watchBegins:
		return nil, nil
	case head.Watch != "":
		return nil, fmt.Errorf("the proxy has ended it: %s", head.Text)
	case head.Event == "session":
		e := new(events.Session)
		return e, json.Unmarshal(line, e)
	}
	return nil, errors.New("the proxy sends something else than events")
}

// each hands over events as they happen, until it wants no more, or the watch ends, which
// is an error. An event has no end yet, unless the session has.
func (w *watch) each(ctx context.Context, want func(*events.Session) bool) error {
	defer w.close()
	for {
		e, err := w.next()
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			return fmt.Errorf("watching logins: %w", err)
		case e != nil && !want(e):
			return nil
		}
	}
}

func (w *watch) close() {
	w.done()
	w.conn.Close()
}
