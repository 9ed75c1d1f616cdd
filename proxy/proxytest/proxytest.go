// Package proxytest plays transcripts against the engine and a front, over
// pipes and in fake time (testing/synctest). A transcript reads like the
// protocol, and ends with what the event says:
//
//	S: * OK [CAPABILITY IMAP4rev1 ID ...] proxy.example ready.
//	C: a LOGIN anna secret
//	B< * OK [CAPABILITY IMAP4rev1] ready
//	B: a LOGIN "anna" "secret"
//	B< a OK done
//	S: a OK done
//	C! close
//	E: action=pass end=CR reason=client_closed
//
// The marks, each with one space behind it:
//
//	C:  the client says a line        S:  the proxy says a line to the client
//	C.  the client says bytes         S.  the proxy closes the client's connection
//	B<  the backend says a line       B:  the proxy says a line to the backend
//	B.  the backend says bytes        B!  next, close, tls: the next connection, an end, a TLS handshake
//	C!  close, tls [name], old [name], wait TIME: an end, a TLS handshake, one by TLS 1.0, silence
//	P!  shutdown, down, up: the proxy is ended, its backend is lost or back
//	P!  hold ACTION, lift, later TIME: policy is capped, or no longer; its clock goes ahead
//	P!  watch, look away: somebody hears of logins as they happen, or no longer
//	E:  fields of the event           W:  fields of what who watches hears; or "nothing" more
//	#   a comment
//
// In "S:" and "B:" the text {...} stands for anything and {id} for a session
// id. In "C." and "B." the text is a Go string without its quotes. Everywhere
// {b64:TEXT} stands for the base64 of such a string.
package proxytest

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"mailreeve/events"
	"mailreeve/policy"
	"mailreeve/proxy"
)

// Rig is an engine with one front and scripted ends. Its listeners are named
// "starttls" and "implicit". Fields may be changed until the first Play.
type Rig struct {
	Settings *proxy.Settings
	Backend  *proxy.Backend
	Engine   *proxy.Engine
	Client   string   // the client's address
	Server   string   // that the client dialled
	Heard    []string // every line that an "S:" has matched
	Logs     *observer.ObservedLogs

	t        testing.TB
	backends chan net.Conn
	events   chan *events.Session
	watched  chan []byte  // events as they were when they were heard
	ahead    atomic.Int64 // of the clock of policy

	mu      sync.Mutex
	refuses error // of the backend's dialer
	dialled int
	dials   int      // of the backend's dialer
	written []string // every event, as it goes to the file
}

// Hosts of the rig's brand, by front.
var Hosts = map[string]string{"imap": "imap.test.example", "pop3": "pop.test.example", "submission": "smtp.test.example"}

// New makes a rig, inside a bubble of [synctest.Test]. The probe is a script
// ("B:", "B<" lines) that is played on the connection by which the engine asks
// the backend what it offers.
func New(t testing.TB, front *proxy.Front, probe string) *Rig {
	t.Helper()
	core, logs := observer.New(zap.DebugLevel)
	r := &Rig{t: t, Client: "192.0.2.7:40000", Server: "198.51.100.1:143", Logs: logs, backends: make(chan net.Conn), events: make(chan *events.Session, 16), watched: make(chan []byte, 16)}
	r.Backend = &proxy.Backend{
		Front: front, Addresses: []string{"backend.test:1"}, Connect: 5 * time.Second, Login: 30 * time.Second,
		Hostname: "proxy.test.example", TLS: &tls.Config{InsecureSkipVerify: true},
	}
	asked := false
	r.Backend.Dialer = func(ctx context.Context, _ string) (net.Conn, error) {
		r.mu.Lock()
		err, first := r.refuses, !asked
		asked = true
		r.dials++
		r.dialled++
		r.mu.Unlock()
		if err != nil {
			return nil, err
		}
		ours, theirs := net.Pipe()
		if first {
			go r.answer(theirs, probe)
			return ours, nil
		}
		select {
		case r.backends <- theirs:
			return ours, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(r.Backend.Connect):
			return nil, errors.New("the script expects no connection to the backend")
		}
	}
	brand := &proxy.Brand{
		Name: "test", Language: proxy.German, Help: "https://h.test.example/a1", Legacy: []string{"*.old.example"},
		Hosts: map[string][]string{}, Backends: map[string]*proxy.Backend{front.Name: r.Backend},
	}
	for name, host := range Hosts {
		brand.Hosts[name] = []string{host}
	}
	r.Settings = &proxy.Settings{
		Hostname: "proxy.test.example", Brands: []*proxy.Brand{brand}, Policy: policy.Enforced(),
		Limits: proxy.Limits{Line: 8 << 10, Literal: 4 << 10, Token: 12 << 10, Memory: 64 << 10, BadCommands: 10, Logins: 6},
		Times: proxy.Times{Handshake: 30 * time.Second, Login: 3 * time.Minute,
			Idle: map[string]time.Duration{front.Name: 31 * time.Minute}},
		Certificate: func(*tls.ClientHelloInfo, proxy.ServerName) (*tls.Certificate, error) { return certificate(), nil },
		Listeners: []*proxy.Listener{
			{Name: "starttls", Front: front, ServeHello: true},
			{Name: "implicit", Front: front, Implicit: true},
		},
	}
	r.Engine = &proxy.Engine{Log: zap.New(core), Events: r}
	return r
}

// Record keeps events for the script.
func (r *Rig) Record(e *events.Session) error {
	copied := *e
	encoded, err := events.Encode(&copied)
	if err != nil {
		return err
	}
	r.mu.Lock()
	r.written = append(r.written, string(encoded))
	r.mu.Unlock()
	r.events <- &copied
	return nil
}

// Canary is a password that is looked for wherever it must not be.
const Canary = "Kanarienvogel7"

// WantNoSecret fails the test where the canary, in clear or in base64, stands
// in a log line or an event.
func (r *Rig) WantNoSecret() {
	r.t.Helper()
	r.mu.Lock()
	texts := slices.Clone(r.written)
	r.mu.Unlock()
	for _, entry := range r.Logs.All() {
		texts = append(texts, fmt.Sprintf("%s %q", entry.Message, entry.ContextMap()))
	}
	needles := []string{Canary}
	for _, before := range []string{"", "x", "xx"} {
		whole := base64.RawStdEncoding.EncodeToString([]byte(before + Canary))
		needles = append(needles, whole[4:len(whole)-4]) // what its neighbours cannot change
	}
	for _, text := range texts {
		for _, needle := range needles {
			if strings.Contains(text, needle) {
				r.t.Errorf("a secret (%s) is in: %s", needle, text)
			}
		}
	}
}

// Dials returns how often the backend was dialled, the probe included.
func (r *Rig) Dials() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.dials
}

// Unreachable makes connections to the backend fail from now on, or with nil succeed.
func (r *Rig) Unreachable(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.refuses = err
}

// Dialled counts the connections to the backend that were tried, the probe's included.
func (r *Rig) Dialled() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.dialled
}

// DenyOldTLS makes a rig that serves TLS 1.0 and denies it in the dialogue.
func DenyOldTLS(r *Rig) {
	for _, l := range r.Settings.Listeners {
		l.OldTLS = true
	}
	p, err := policy.New("explaining", []policy.Requirement{{ID: "modern-tls", Finding: policy.TLSOld,
		Stages:  []policy.Stage{{Do: policy.Deny}},
		Require: policy.Matcher{{Fact: policy.TLS, Not: true, Values: []string{"1.0", "1.1"}}}}})
	if err != nil {
		panic(err) // the list above is constant
	}
	r.Settings.Policy = p
}

// Hold caps policy for an hour.
func (r *Rig) Hold(cap policy.Action) {
	now := time.Now()
	if r.Settings.Now != nil {
		now = r.Settings.Now()
	}
	r.Engine.SetHold(&policy.Hold{Cap: cap, Reason: "hotline is full", Owner: "support", Since: now, Until: now.Add(time.Hour)})
}

// action finds an action by its name.
func action(t testing.TB, name string) policy.Action {
	t.Helper()
	for a := policy.Pass; a <= policy.Refuse; a++ {
		if a.String() == name {
			return a
		}
	}
	t.Fatalf("no action is named %s", name)
	return 0
}

// Under makes a rig live under a policy of these requirements and exceptions.
func Under(requirements []policy.Requirement, exceptions ...policy.Exception) func(*Rig) {
	return func(r *Rig) {
		r.t.Helper()
		p, err := policy.New("test", requirements, exceptions...)
		if err != nil {
			r.t.Fatal(err)
		}
		r.Settings.Policy = p
	}
}

// At makes a rig's policy live from an instant on.
func At(instant string) func(*Rig) {
	return func(r *Rig) {
		at, err := time.Parse(time.RFC3339, instant)
		if err != nil {
			r.t.Fatal(err)
		}
		began := time.Now()
		r.Settings.Now = func() time.Time { return at.Add(time.Since(began) + time.Duration(r.ahead.Load())) }
	}
}

// Encrypted is the requirement of TLS, with its stages.
func Encrypted(stages ...policy.Stage) policy.Requirement {
	return policy.Requirement{ID: "encrypted", Finding: policy.Plaintext, Stages: stages,
		Require: policy.Matcher{{Fact: policy.TLS, Not: true, Values: []string{policy.None}}}}
}

// answer plays the backend's side of the probe.
func (r *Rig) answer(conn net.Conn, script string) {
	defer conn.Close()
	e := &end{t: r.t, name: "probe", conn: conn, reader: bufio.NewReader(conn)}
	for _, l := range parse(r.t, script) {
		switch l.mark {
		case "B<":
			e.say(l.text + "\r\n")
		case "B:":
			e.want(l.text)
		case "B!":
			e.tls(true, "", 0)
		}
	}
	io.Copy(io.Discard, e.conn) // QUIT
}

// Play runs a transcript against a listener.
func (r *Rig) Play(listener, script string) {
	r.t.Helper()
	r.Apply()
	r.t.Cleanup(func() { r.Engine.Shutdown(0, 0) })
	ours := r.Connect(listener)
	client := &end{t: r.t, name: "client", conn: ours, reader: bufio.NewReader(ours)}
	var backend *end
	for _, l := range parse(r.t, script) {
		client.line, client.at = l.raw, l.at
		if strings.HasPrefix(l.mark, "B") && (backend == nil || l.mark == "B!" && l.text == "next") {
			backend = r.next(l)
			if l.text == "next" {
				continue
			}
		}
		if backend != nil {
			backend.line, backend.at = l.raw, l.at
		}
		switch l.mark {
		case "C:":
			client.say(l.text + "\r\n")
		case "C.":
			client.say(unquote(r.t, l.text))
		case "S:":
			r.Heard = append(r.Heard, client.want(l.text))
		case "S.":
			client.wantEnd()
		case "C!":
			client.do(l.text)
		case "B<":
			backend.say(l.text + "\r\n")
		case "B.":
			backend.say(unquote(r.t, l.text))
		case "B:":
			backend.want(l.text)
		case "B!":
			if l.text == "tls" {
				backend.tls(true, "", 0)
			} else {
				backend.conn.Close()
			}
		case "P!":
			r.do(l)
		case "E:":
			if client.closed && backend != nil {
				synctest.Wait()
				backend.conn.Close() // as a server does that has heard the end
			}
			r.event(l)
		case "W:":
			r.heard(l)
		default:
			r.t.Fatalf("line %d: %q has no known mark", l.at, l.raw)
		}
	}
	ours.Close()
	if backend != nil {
		backend.conn.Close()
	}
}

// Connect begins a session on a listener, after [Rig.Apply], and returns the client's end.
func (r *Rig) Connect(listener string) net.Conn {
	r.t.Helper()
	ours, theirs := net.Pipe()
	if err := r.Engine.ServeConn(listener, &addressed{Conn: theirs, remote: addr(r.Client), local: addr(r.Server)}); err != nil {
		r.t.Fatal(err)
	}
	return ours
}

// Secure puts TLS over a client's end, where it is wanted.
func (r *Rig) Secure(conn net.Conn, wanted bool) net.Conn {
	if !wanted {
		return conn
	}
	return tls.Client(conn, &tls.Config{InsecureSkipVerify: true})
}

// Apply hands the settings to the engine; Play does so too.
func (r *Rig) Apply() {
	r.t.Helper()
	if err := r.Engine.Apply(r.Settings); err != nil {
		r.t.Fatal(err)
	}
}

// do does something to the proxy in the middle of a transcript.
func (r *Rig) do(l line) {
	r.t.Helper()
	if name, ok := strings.CutPrefix(l.text, "hold "); ok {
		r.Hold(action(r.t, name))
		return
	}
	if name, ok := strings.CutPrefix(l.text, "later "); ok {
		d, err := time.ParseDuration(name)
		if err != nil {
			r.t.Fatal(err)
		}
		r.ahead.Add(int64(d))
		return
	}
	switch l.text {
	case "watch":
		watch := func(e *events.Session) {
			encoded, err := events.Encode(e)
			if err != nil {
				r.t.Error(err)
			}
			r.watched <- encoded
		}
		r.Engine.Watch.Store(&watch)
	case "look away":
		r.Engine.Watch.Store(nil)
	case "lift":
		r.Engine.SetHold(nil)
	case "shutdown":
		go r.Engine.Shutdown(0, time.Minute)
	case "down":
		r.Unreachable(errors.New("connection refused"))
	case "up":
		r.Unreachable(nil)
	default:
		r.t.Fatalf("line %d: nobody knows how to %s", l.at, l.text)
	}
}

// next waits for the proxy to connect to the backend.
func (r *Rig) next(l line) *end {
	r.t.Helper()
	select {
	case conn := <-r.backends:
		return &end{t: r.t, name: "backend", conn: conn, reader: bufio.NewReader(conn)}
	case <-time.After(10 * time.Second):
		r.t.Fatalf("line %d (%s): the proxy did not connect to the backend", l.at, l.raw)
		return nil
	}
}

// heard looks at the next event that who watches hears.
func (r *Rig) heard(l line) {
	r.t.Helper()
	if l.text == "nothing" {
		synctest.Wait()
		select {
		case encoded := <-r.watched:
			r.t.Fatalf("line %d: who watches hears %s", l.at, encoded)
		default:
		}
		return
	}
	select {
	case encoded := <-r.watched:
		r.compare(l, encoded)
	case <-time.After(patience):
		r.t.Fatalf("line %d: who watches hears nothing", l.at)
	}
}

// event looks at the next event.
func (r *Rig) event(l line) {
	r.t.Helper()
	var e *events.Session
	select {
	case e = <-r.events:
	case <-time.After(24 * time.Hour):
		r.t.Fatalf("line %d: the session has no event", l.at)
	}
	encoded, err := events.Encode(e)
	if err != nil {
		r.t.Fatal(err)
	}
	r.compare(l, encoded)
}

// compare holds fields of an event against "name=value" words; a value is as in
// JSON without quotes, and "name=" means that the field is left out.
func (r *Rig) compare(l line, encoded []byte) {
	r.t.Helper()
	fields := map[string]any{}
	if err := json.Unmarshal(encoded, &fields); err != nil {
		r.t.Fatal(err)
	}
	for _, word := range strings.Fields(l.text) {
		name, want, _ := strings.Cut(word, "=")
		got := ""
		if v, ok := fields[name]; ok {
			got = fmt.Sprint(v)
		}
		if got = strings.ReplaceAll(got, " ", "_"); got != want {
			r.t.Errorf("line %d: event has %s=%s, want %s\n%s", l.at, name, got, want, encoded)
		}
	}
}

// line is one line of a script.
type line struct {
	at              int
	raw, mark, text string
}

var encoded = regexp.MustCompile(`\{b64:[^}]*\}`)

func parse(t testing.TB, script string) (lines []line) {
	t.Helper()
	for i, raw := range strings.Split(script, "\n") {
		raw = strings.TrimLeft(raw, " \t")
		if raw == "" || raw[0] == '#' {
			continue
		}
		raw = encoded.ReplaceAllStringFunc(raw, func(s string) string {
			return base64.StdEncoding.EncodeToString([]byte(unquote(t, s[len("{b64:"):len(s)-1])))
		})
		mark, text, _ := strings.Cut(raw, " ")
		lines = append(lines, line{i + 1, raw, mark, text})
	}
	return lines
}

func unquote(t testing.TB, s string) string {
	t.Helper()
	u, err := strconv.Unquote(`"` + s + `"`)
	if err != nil {
		t.Fatalf("%s: %v", s, err)
	}
	return u
}

// Said collects what one end says in the transcripts of a package's tests: for
// each, the lines behind a mark ("C:", "B<") and the bytes behind its likes
// ("C.", "B."), for the corpus of a fuzz test.
func Said(t testing.TB, mark string) (all [][]byte) {
	t.Helper()
	files, err := filepath.Glob("*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		source, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for i, script := range strings.Split(string(source), "`") {
			if i%2 == 0 {
				continue // outside the quotes
			}
			var said []byte
			for _, l := range parse(t, script) {
				switch {
				case l.mark == mark:
					said = append(said, l.text+"\r\n"...)
				case l.mark == mark[:1]+".":
					said = append(said, unquote(t, l.text)...)
				}
			}
			if said != nil {
				all = append(all, said)
			}
		}
	}
	return all
}

// end is one scripted end of a connection.
type end struct {
	t      testing.TB
	name   string
	line   string
	at     int
	conn   net.Conn
	reader *bufio.Reader
	closed bool // by the script
}

// patience is longer than any limit of the proxy's, in fake time.
const patience = 2 * time.Hour

func (e *end) say(text string) {
	e.t.Helper()
	e.conn.SetWriteDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(e.conn, text); err != nil {
		e.t.Fatalf("line %d (%s): the %s cannot say it: %v", e.at, e.line, e.name, err)
	}
}

var idPattern = regexp.MustCompile(`^[0-9A-HJKMNP-TV-Z]{12}$`)

func (e *end) want(want string) string {
	e.t.Helper()
	e.conn.SetReadDeadline(time.Now().Add(patience))
	got, err := e.reader.ReadString('\n')
	if err != nil {
		e.t.Fatalf("line %d: the %s heard %q and %v, want %q", e.at, e.name, got, err, want)
	}
	if got, ok := strings.CutSuffix(got, "\r\n"); !ok || !matches(want, got) {
		e.t.Fatalf("line %d: the %s heard\n\t%q, want\n\t%q", e.at, e.name, got, want)
	}
	return strings.TrimSuffix(got, "\r\n")
}

// matches compares a line with a pattern of literal text, {...} and {id}.
func matches(want, got string) bool {
	if want == got {
		return true // of any bytes
	}
	pattern := regexp.QuoteMeta(want)
	pattern = strings.ReplaceAll(pattern, regexp.QuoteMeta("{...}"), ".*")
	pattern = strings.ReplaceAll(pattern, regexp.QuoteMeta("{id}"), strings.Trim(idPattern.String(), "^$"))
	return regexp.MustCompile("^(?s:" + pattern + ")$").MatchString(got)
}

func (e *end) wantEnd() {
	e.t.Helper()
	e.conn.SetReadDeadline(time.Now().Add(patience))
	rest, err := io.ReadAll(e.reader)
	if len(rest) > 0 || err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		e.t.Fatalf("line %d: the %s heard %q and %v, want the end", e.at, e.name, rest, err)
	}
}

func (e *end) do(what string) {
	e.t.Helper()
	verb, argument, _ := strings.Cut(what, " ")
	switch verb {
	case "close":
		e.conn.Close()
		e.closed = true
	case "wait":
		d, err := time.ParseDuration(argument)
		if err != nil {
			e.t.Fatal(err)
		}
		time.Sleep(d)
		synctest.Wait()
	case "tls":
		e.tls(false, argument, 0)
	case "old":
		e.tls(false, argument, tls.VersionTLS10)
	default:
		e.t.Fatalf("line %d: nobody knows how to %s", e.at, verb)
	}
}

// tls does a handshake; a client names the server where the script does, and
// does no other version than the one given.
func (e *end) tls(server bool, name string, version uint16) {
	e.t.Helper()
	if n := e.reader.Buffered(); n > 0 {
		e.t.Fatalf("line %d: %d bytes came in clear before TLS", e.at, n)
	}
	var conn *tls.Conn
	if server {
		conn = tls.Server(e.conn, &tls.Config{Certificates: []tls.Certificate{*certificate()}})
	} else {
		conn = tls.Client(e.conn, &tls.Config{ServerName: name, InsecureSkipVerify: true, MinVersion: version, MaxVersion: version})
	}
	if err := conn.HandshakeContext(context.Background()); err != nil {
		e.t.Fatalf("line %d: TLS: %v", e.at, err)
	}
	e.conn, e.reader = conn, bufio.NewReader(conn)
}

// addressed gives a pipe the addresses of a TCP connection.
type addressed struct {
	net.Conn
	remote, local net.Addr
}

func (a *addressed) RemoteAddr() net.Addr { return a.remote }
func (a *addressed) LocalAddr() net.Addr  { return a.local }

func addr(s string) net.Addr {
	a, err := net.ResolveTCPAddr("tcp", s)
	if err != nil {
		panic(err)
	}
	return a
}

// certificate is one for every name, made once.
var certificate = sync.OnceValue(func() *tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"},
		NotBefore: time.Unix(0, 0), NotAfter: time.Now().AddDate(10, 0, 0), DNSNames: []string{"*.test.example"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		panic(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
})
