package proxy

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"mailreeve/certs"
	"mailreeve/events"
	"mailreeve/policy"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// duplex is one end of a connection in memory that can be half-closed and
// reset, which net.Pipe cannot. A write waits for its reader.
type duplex struct {
	in, out       net.Conn
	local, remote net.Addr
	other         *duplex
	wrecked       atomic.Bool
	written       atomic.Int64
}

// newPair returns both ends; the address is that of the first as the second sees it.
func newPair(remote, local string) (ours, theirs *duplex) {
	r1, w1 := net.Pipe()
	r2, w2 := net.Pipe()
	a, b := mustAddr(remote), mustAddr(local)
	ours = &duplex{in: r1, out: w2, local: a, remote: b}
	theirs = &duplex{in: r2, out: w1, local: b, remote: a, other: ours}
	ours.other = theirs
	return ours, theirs
}

func mustAddr(s string) net.Addr { return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(s)) }

func (d *duplex) Read(p []byte) (int, error) {
	n, err := d.in.Read(p)
	if err == io.EOF && d.wrecked.Load() {
		err = &net.OpError{Op: "read", Net: "tcp", Err: os.NewSyscallError("read", syscall.ECONNRESET)}
	}
	return n, err
}

func (d *duplex) Write(p []byte) (int, error) {
	n, err := d.out.Write(p)
	d.written.Add(int64(n))
	return n, err
}

func (d *duplex) CloseWrite() error { return d.out.Close() }
func (d *duplex) Close() error      { d.in.Close(); return d.out.Close() }

// reset makes the other end's reads fail as after a TCP reset.
func (d *duplex) reset() { d.other.wrecked.Store(true); d.Close() }

func (d *duplex) LocalAddr() net.Addr                { return d.local }
func (d *duplex) RemoteAddr() net.Addr               { return d.remote }
func (d *duplex) SetReadDeadline(t time.Time) error  { return d.in.SetReadDeadline(t) }
func (d *duplex) SetWriteDeadline(t time.Time) error { return d.out.SetWriteDeadline(t) }
func (d *duplex) SetDeadline(t time.Time) error {
	return errors.Join(d.in.SetReadDeadline(t), d.out.SetWriteDeadline(t))
}

// toy is a protocol with a command for everything that a front can do.
func toy() *Front {
	f := &Front{Name: "toy", ALPN: "toy", Port: 4321, Goodbye: "BYE restarting\r\n"}
	f.Open = func(w *Wire, a Advert, l Limits) Dialogue { return &toyDialogue{wire: w, advert: a, limits: l} }
	f.Dial = func(w *Wire, o Origin) Peer { return &toyPeer{w, o} }
	return f
}

type toyDialogue struct {
	wire    *Wire
	advert  Advert
	limits  Limits
	bad     int
	pending *Request
	soft    Software
	mad     bool
}

func (d *toyDialogue) Greet() error { return d.wire.Say("HELLO " + d.advert.Hostname + "\r\n") }

func (d *toyDialogue) Next() (Request, error) {
	for {
		line, err := d.wire.Line(d.limits.Line)
		if err != nil {
			return Request{}, err
		}
		if err := notHTTP(line); err != nil {
			return Request{}, err
		}
		words := append(strings.Fields(string(line)), "", "", "")
		switch words[0] {
		case "NOOP":
			err = d.wire.Say("OK\r\n")
		case "ADVERT":
			refused := "-"
			if d.advert.Refusal != nil {
				refused = d.advert.Refusal.Text
			}
			err = d.wire.Say(fmt.Sprintf("ADVERT %t %t %t %v %v %s\r\n", d.advert.Secure, d.advert.Password, d.advert.Quiet,
				d.advert.Mechs, d.advert.Extensions, refused))
		case "NAME":
			d.soft = Software{ID: map[string]string{"name": words[1]}, Hello: words[2]}
		case "QUIT":
			if err := d.wire.Say("BYE\r\n"); err != nil {
				return Request{}, err
			}
			return Request{}, Quit
		case "PANIC":
			panic("a mistake in the front")
		case "MAD":
			d.mad = true
		case "STARTTLS":
			return Request{Kind: StartTLS, Warned: true}, nil
		case "WANT":
			return Request{Kind: Chosen}, nil
		case "AUTH":
			d.pending = &Request{Mech: words[1]}
			return Request{Kind: Chosen, Mech: words[1]}, nil
		case "LOGIN":
			d.pending = &Request{Mech: policy.UserPass, User: words[1], Secret: Secret(words[2])}
			return Request{Kind: Chosen, Mech: policy.UserPass, Exposed: true}, nil
		case "USER":
			return Request{Kind: Chosen, Mech: policy.UserPass, User: words[1]}, nil
		default:
			if err = d.wire.Say("WHAT\r\n"); err == nil {
				err = d.limits.Strike(&d.bad)
			}
		}
		if err != nil {
			return Request{}, err
		}
	}
}

func (d *toyDialogue) Credential() (Request, error) {
	r := d.pending
	d.pending = nil
	if r == nil { // a USER
		return Request{}, nil
	}
	if r.User == "" {
		line, err := d.wire.Line(d.limits.Line)
		if err != nil {
			return Request{}, err
		}
		user, rest, _ := strings.Cut(string(line), " ")
		secret, authzid, _ := strings.Cut(rest, " ")
		r.User, r.Secret, r.Authzid = strings.TrimPrefix(user, "-"), Secret(secret), authzid
	}
	r.Kind = Login
	return *r, nil
}

func (d *toyDialogue) Abort(_ Request, why error) error {
	d.pending = nil
	return d.wire.Say("NO " + why.Error() + "\r\n")
}

func (d *toyDialogue) Refuse(_ Request, ref Refusal) error {
	d.pending = nil
	return d.wire.Say(fmt.Sprintf("NO %s %s\r\n", refusedWords[ref.Class], ref.Text))
}

func (d *toyDialogue) Accept(r Request, reply Reply, _ string) error {
	if r.Kind == StartTLS {
		return d.wire.Say("GO\r\n")
	}
	if r.User == "panic-late" {
		panic("a mistake in accepting")
	}
	_, err := d.wire.Write(reply)
	return err
}

func (d *toyDialogue) Upgrade(a Advert) {
	*d = toyDialogue{wire: d.wire, advert: a, limits: d.limits}
}
func (d *toyDialogue) Bye(ref Refusal) error { return d.wire.Say("BYE " + ref.Text + "\r\n") }
func (d *toyDialogue) Client() Software {
	if d.mad {
		panic("a mistake in describing")
	}
	return d.soft
}

type toyPeer struct {
	wire   *Wire
	origin Origin
}

func (p *toyPeer) ask(format string, args ...any) (string, error) {
	if format != "" {
		if err := p.wire.Say(fmt.Sprintf(format, args...) + "\r\n"); err != nil {
			return "", err
		}
	}
	line, err := p.wire.Line(1000)
	return string(line), err
}

func (p *toyPeer) Greeting() error {
	line, err := p.ask("")
	if err == nil && line == "PANIC" {
		panic("a mistake in greeting")
	}
	if err == nil && line != "READY" {
		err = fmt.Errorf("the backend greeted with %q", line)
	}
	return err
}

func (p *toyPeer) StartTLS() error {
	line, err := p.ask("STARTTLS")
	if err == nil && line != "GO" {
		err = fmt.Errorf("the backend said %q", line)
	}
	return err
}

func (p *toyPeer) Offer() (Offer, error) {
	line, err := p.ask("OFFER")
	if line == "PANIC" {
		panic("a mistake in asking")
	}
	return Offer{Mechs: strings.Fields(line), Extensions: strings.Fields(line)}, err
}

func (p *toyPeer) Login(r Request) (Reply, error) {
	user, secret := r.User, r.Secret.Reveal()
	if r.Authzid != "" {
		user += ">" + r.Authzid
	}
	if m := p.origin.Master; m != nil {
		user, secret = m.User+">"+r.identity(), m.Secret.Reveal()
	}
	if user == "panic" {
		panic("a mistake in logging in")
	}
	line, err := p.ask("LOGIN %s %s", user, secret)
	if err != nil {
		return nil, err
	}
	word, _, _ := strings.Cut(line, " ")
	switch word {
	case "OK":
		return Reply(line + "\r\n"), nil
	case "NO":
		return nil, &Rejection{Class: BadCredential, Text: line}
	case "LOCKED":
		return nil, &Rejection{Class: NoAccess, Text: line, Code: "X"}
	case "BUSY":
		return nil, &Rejection{Class: Unavailable, Text: line}
	}
	return nil, fmt.Errorf("the backend said %q", line)
}

func (p *toyPeer) Quit() { p.wire.Say("QUIT\r\n") }

// toyBackend is the server's side: it logs in whoever's password is "right",
// then speaks after, or echoes.
func toyBackend(conn net.Conn, after func(net.Conn, *bufio.Reader)) {
	defer conn.Close()
	if _, err := io.WriteString(conn, "READY\r\n"); err != nil {
		return
	}
	r := bufio.NewReader(conn)
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		words := append(strings.Fields(line), "", "")
		switch {
		case words[0] == "OFFER":
			io.WriteString(conn, "PLAIN XOAUTH2 SIZE\r\n")
		case words[0] == "QUIT":
			return
		case words[2] == "right":
			if _, err := fmt.Fprintf(conn, "OK %s is in\r\n", words[1]); err != nil {
				return
			}
			if after != nil {
				after(conn, r)
				return
			}
			for {
				line, err := r.ReadString('\n')
				if err != nil {
					return
				}
				io.WriteString(conn, "echo "+line)
			}
		case words[2] == "busy":
			io.WriteString(conn, "BUSY\r\n")
		case words[2] == "locked":
			io.WriteString(conn, "LOCKED\r\n")
		case words[2] == "hang":
			io.Copy(io.Discard, r)
		case words[2] == "drop":
			return
		default:
			io.WriteString(conn, "NO\r\n")
		}
	}
}

// rig is an engine with the toy front, listeners "starttls" and "implicit", a
// brand with an old name, and a backend in memory.
type rig struct {
	t        *testing.T
	settings *Settings
	brand    *Brand
	backend  *Backend
	engine   *Engine
	logs     *observer.ObservedLogs

	after func(net.Conn, *bufio.Reader) // the backend's side of a relay
	serve map[string]func(net.Conn)     // by address, instead of the toy backend
	fail  map[string]error              // by address, of dialling
	lose  error                         // of recording
	dials []string                      // addresses dialled
	mu    sync.Mutex                    // guards what follows and the maps above
	all   []*events.Session             // recorded
}

func newRig(t *testing.T) *rig {
	t.Helper()
	core, logs := observer.New(zap.DebugLevel)
	r := &rig{t: t, logs: logs, serve: map[string]func(net.Conn){}, fail: map[string]error{}}
	front := toy()
	r.backend = r.newBackend(front, "one:1")
	r.brand = &Brand{Name: "test", Language: English, Help: "https://help.example/", Legacy: []string{"*.old.example", "Exact.example"},
		Hosts:    map[string][]string{"toy": {"toy.example", "toy2.example"}, "other": {"other.example"}},
		Backends: map[string]*Backend{"toy": r.backend}}
	tickets, err := certs.OpenTickets("", zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	r.settings = &Settings{
		Tickets:  tickets.Bind,
		Hostname: "proxy.example", Brands: []*Brand{r.brand}, Policy: policy.Enforced(),
		Limits: Limits{Line: 1000, Literal: 1000, Token: 1000, Memory: 4000, BadCommands: 3, Logins: 3},
		Times: Times{Handshake: 20 * time.Second, Login: 2 * time.Minute,
			Idle: map[string]time.Duration{"toy": 31 * time.Minute}},
		Certificate: func(*tls.ClientHelloInfo, ServerName) (*tls.Certificate, error) { return authority().leaf, nil },
		Listeners: []*Listener{
			{Name: "starttls", Front: front, ServeHello: true},
			{Name: "implicit", Front: front, Implicit: true},
		},
	}
	r.engine = &Engine{Log: zap.New(core), Events: r}
	return r
}

func (r *rig) newBackend(front *Front, addresses ...string) *Backend {
	return &Backend{Front: front, Addresses: addresses, Connect: 5 * time.Second, Login: 10 * time.Second,
		Hostname: "proxy.example", Dialer: r.dialBackend}
}

// errHang makes dialling take all the time that it is given.
var errHang = errors.New("hang")

func (r *rig) dialBackend(ctx context.Context, address string) (net.Conn, error) {
	r.mu.Lock()
	r.dials = append(r.dials, address)
	serve, err := r.serve[address], r.fail[address]
	r.mu.Unlock()
	if err == errHang {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if err != nil {
		return nil, err
	}
	ours, theirs := newPair("10.0.0.1:5000", "10.0.0.2:143")
	if serve == nil {
		serve = func(c net.Conn) { toyBackend(c, r.after) }
	}
	go serve(theirs)
	return ours, nil
}

func (r *rig) dialled() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Join(r.dials, " ")
}

func (r *rig) Record(e *events.Session) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.lose != nil {
		return r.lose
	}
	copied := *e
	r.all = append(r.all, &copied)
	return nil
}

// event waits until all is quiet and returns the only event, or the last.
func (r *rig) event() *events.Session {
	r.t.Helper()
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.all) == 0 {
		r.t.Fatal("there is no event")
	}
	return r.all[len(r.all)-1]
}

func (r *rig) events() int {
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.all)
}

// wantEnd compares the last event's ending.
func (r *rig) wantEnd(end, reason string) *events.Session {
	r.t.Helper()
	e := r.event()
	if e.End != end || e.Reason != reason {
		r.t.Errorf("the session ended with %s %s (%s), want %s %s", e.End, e.Reason, e.Sentence, end, reason)
	}
	return e
}

func (r *rig) apply() {
	r.t.Helper()
	if err := r.engine.Apply(r.settings); err != nil {
		r.t.Fatal(err)
	}
}

// dial begins a session, from an address where one is given.
func (r *rig) dial(listener string, from ...string) *talker {
	r.t.Helper()
	if r.engine.current == nil {
		r.apply()
		r.t.Cleanup(func() { r.engine.Shutdown(0, 0) })
	}
	remote := "192.0.2.7:40000"
	if len(from) > 0 {
		remote = from[0]
	}
	ours, theirs := newPair(remote, "198.51.100.1:993")
	if err := r.engine.ServeConn(listener, theirs); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { ours.Close() })
	return &talker{t: r.t, raw: ours, conn: ours, reader: bufio.NewReader(ours)}
}

// login begins a session over TLS and takes it into the relay.
func (r *rig) login() *talker {
	r.t.Helper()
	c := r.dial("implicit")
	c.tls("toy.example")
	c.want("HELLO proxy.example")
	c.say("LOGIN anna right")
	c.want("OK anna is in")
	return c
}

// talker is a client.
type talker struct {
	t      *testing.T
	raw    *duplex
	conn   net.Conn
	reader *bufio.Reader
}

func (c *talker) say(line string) { c.t.Helper(); c.send(line + "\r\n") }

func (c *talker) send(text string) {
	c.t.Helper()
	c.conn.SetWriteDeadline(time.Now().Add(time.Hour))
	if _, err := io.WriteString(c.conn, text); err != nil {
		c.t.Fatalf("cannot say %q: %v", text, err)
	}
}

func (c *talker) line() string {
	c.t.Helper()
	c.conn.SetReadDeadline(time.Now().Add(24 * time.Hour))
	line, err := c.reader.ReadString('\n')
	if err != nil {
		c.t.Fatalf("heard %q and %v", line, err)
	}
	return strings.TrimSuffix(line, "\r\n")
}

func (c *talker) want(want string) {
	c.t.Helper()
	if got := c.line(); got != want {
		c.t.Fatalf("heard %q, want %q", got, want)
	}
}

func (c *talker) wantPrefix(want string) string {
	c.t.Helper()
	got := c.line()
	if !strings.HasPrefix(got, want) {
		c.t.Fatalf("heard %q, want %q...", got, want)
	}
	return got
}

// wantClose wants nothing more but the end.
func (c *talker) wantClose() {
	c.t.Helper()
	c.conn.SetReadDeadline(time.Now().Add(24 * time.Hour))
	rest, err := io.ReadAll(c.reader)
	if len(rest) > 0 || err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		c.t.Fatalf("heard %q and %v, want the end", rest, err)
	}
}

// tls makes the connection secure, naming the server where a name is given.
func (c *talker) tls(name string) *tls.Conn {
	c.t.Helper()
	conn := tls.Client(c.conn, &tls.Config{ServerName: name, InsecureSkipVerify: true})
	if err := conn.Handshake(); err != nil {
		c.t.Fatalf("TLS: %v", err)
	}
	c.conn, c.reader = conn, bufio.NewReader(conn)
	return conn
}

func (c *talker) close() { c.raw.Close() }

// issued are a certificate authority and a leaf for *.example and backend names.
type issued struct {
	pool *x509.CertPool
	leaf *tls.Certificate
}

// authority is made outside of bubbles or in one: it holds no channel.
var authority = sync.OnceValue(func() issued {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Test CA"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<33, 0), KeyUsage: x509.KeyUsageCertSign}
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "leaf"}, NotBefore: time.Unix(0, 0),
		NotAfter: time.Unix(1<<33, 0), DNSNames: []string{"*.example", "one", "two"}, IPAddresses: []net.IP{net.ParseIP("::1")}}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, &key.PublicKey, key)
	if err != nil {
		panic(err)
	}
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, ca, &key.PublicKey, key)
	if err != nil {
		panic(err)
	}
	parsed, err := x509.ParseCertificate(caDER)
	if err != nil {
		panic(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(parsed)
	return issued{pool, &tls.Certificate{Certificate: [][]byte{leafDER}, PrivateKey: key}}
})

// bubble runs a test in fake time.
func bubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	authority()
	synctest.Test(t, f)
}

// talk speaks over a real connection.
func talk(t *testing.T, conn net.Conn) *talker {
	return &talker{t: t, conn: conn, reader: bufio.NewReader(conn)}
}
