package proxy

// The way to a backend up to its greeting: addresses in order, PROXY header, TLS;
// and what backends offer, remembered between sessions.

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pires/go-proxyproto"
	"github.com/pires/go-proxyproto/tlvparse"
)

// Hop is how the way to a backend is encrypted.
type Hop uint8

const (
	HopPlain    Hop = iota
	HopStartTLS     // after the greeting; a backend that does not offer it is not used
	HopImplicit
)

const (
	// failedFor is how long an address that did not answer is tried last.
	failedFor = 10 * time.Second
	// offerFresh is how long what a backend offers is believed; then it is
	// asked again while the old answer serves.
	offerFresh = time.Minute
	// offerFailed is how long a failure to ask is believed, so that a dead
	// backend does not hold up every greeting.
	offerFailed = 2 * time.Second
	// offerPatience bounds the wait for a backend's answer before a greeting:
	// clients wait at least 30 s for ours.
	offerPatience = 5 * time.Second
	// aliveFor is how long a backend is taken to live after it has answered,
	// where a greeting must be sure of it.
	aliveFor = 2 * time.Second
)

// Backend is where one protocol's sessions go. Its addresses are tried in
// order. It is safe for use by any number of goroutines, and keeps what it has
// learnt about the addresses; a reload begins with a new one.
type Backend struct {
	Front     *Front
	Addresses []string // host:port
	Hop       Hop
	TLS       *tls.Config   // for the hop; an empty ServerName means the address's host
	Connect   time.Duration // to one address
	Login     time.Duration // greeting, TLS and login together
	Proxy     bool          // send a PROXY protocol 2 header
	Forward   bool          // send address and facts in the protocol's own way
	Hostname  string        // said to the backend

	// Dialer connects; nil means TCP. Tests put a pipe here.
	Dialer func(ctx context.Context, address string) (net.Conn, error)

	// Master logs in on the customer's behalf. Check is then where the
	// customer's own credential is verified first, since this backend is not
	// shown it.
	Master *Master
	Check  *Backend

	early tally // connections made before a greeting that no login has used yet

	dumb sometimes // "cannot be asked", in the log: anybody can connect while it is down

	mu     sync.Mutex           // guards the following
	failed map[string]time.Time // addresses that did not answer, and when
	offer  Offer
	asked  time.Time // when offer or err was learnt; zero: never
	err    error     // of the last asking
	alive  time.Time // when the backend last answered, to whatever
	asking chan struct{}
}

// link is a conversation with a backend that has greeted.
type link struct {
	wire    *Wire
	peer    Peer
	address string
	backend *Backend
	secure  bool        // of one made before the greeting: the client had TLS then
	release func() bool // the connection no longer ends with the context it was made in
}

// close takes its leave; drop does not.
func (l *link) close() {
	l.peer.Quit()
	l.drop()
}

func (l *link) drop() {
	l.release()
	l.wire.Close()
}

// connect reaches the first address that answers and speaks until the login.
func (b *Backend) connect(ctx context.Context, o Origin) (*link, error) {
	if len(b.Addresses) == 0 {
		return nil, errors.New("the backend has no address")
	}
	var failures []error
	for _, address := range b.order() {
		l, err := b.try(ctx, address, o)
		if err == nil {
			b.note(address, time.Time{})
			return l, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		b.note(address, time.Now())
		failures = append(failures, fmt.Errorf("backend %s: %w", address, err))
	}
	return nil, errors.Join(failures...)
}

// order lists the addresses, those that failed a moment ago last.
func (b *Backend) order() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.failed) == 0 {
		return b.Addresses
	}
	bad := func(a string) bool {
		at, ok := b.failed[a]
		return ok && time.Since(at) < failedFor
	}
	order := slices.DeleteFunc(slices.Clone(b.Addresses), bad)
	for _, a := range b.Addresses {
		if bad(a) {
			order = append(order, a)
		}
	}
	return order
}

func (b *Backend) note(address string, failed time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if failed.IsZero() {
		delete(b.failed, address)
		return
	}
	if b.failed == nil {
		b.failed = map[string]time.Time{}
	}
	b.failed[address] = failed
}

// try speaks with one address until the login. Every error says what was being done.
func (b *Backend) try(ctx context.Context, address string, o Origin) (*link, error) {
	conn, err := b.dial(ctx, address)
	if err != nil {
		return nil, fmt.Errorf("connecting: %w", err)
	}
	l := &link{wire: NewWire(conn), address: address, backend: b}
	l.release = context.AfterFunc(ctx, func() { conn.Close() })
	greeted := false
	defer func() { // after a panic too
		if !greeted {
			l.drop()
		}
	}()
	if err := b.greet(ctx, l, conn, o); err != nil {
		return nil, err
	}
	greeted = true
	return l, nil
}

func (b *Backend) dial(ctx context.Context, address string) (net.Conn, error) {
	if b.Connect > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, b.Connect)
		defer cancel()
	}
	if b.Dialer != nil {
		return b.Dialer(ctx, address)
	}
	d := net.Dialer{KeepAliveConfig: keepAlive}
	return d.DialContext(ctx, "tcp", address)
}

func (b *Backend) greet(ctx context.Context, l *link, conn net.Conn, o Origin) error {
	conn.SetDeadline(time.Now().Add(b.Login))
	if b.Proxy {
		header, err := proxyHeader(o)
		if err != nil {
			return fmt.Errorf("making the PROXY header: %w", err)
		}
		if _, err := conn.Write(header); err != nil {
			return fmt.Errorf("sending the PROXY header: %w", err)
		}
	}
	if b.Hop == HopImplicit {
		if err := b.encrypt(ctx, l); err != nil {
			return err
		}
	}
	o.Forward, o.Header, o.Master, o.Hostname = b.Forward, b.Proxy, b.Master, b.Hostname
	l.peer = b.Front.Dial(l.wire, o)
	if err := l.peer.Greeting(); err != nil {
		return fmt.Errorf("reading the greeting: %w", err)
	}
	if b.Hop != HopStartTLS {
		return nil
	}
	if err := l.peer.StartTLS(); err != nil {
		return fmt.Errorf("asking for STARTTLS: %w", err)
	}
	if n := l.wire.Buffered(); n > 0 {
		return fmt.Errorf("asking for STARTTLS: %d bytes came in clear behind the go-ahead", n)
	}
	return b.encrypt(ctx, l)
}

func (b *Backend) encrypt(ctx context.Context, l *link) error {
	conf := b.TLS
	if conf == nil {
		conf = &tls.Config{}
	}
	if conf.ServerName == "" {
		host, _, err := net.SplitHostPort(l.address)
		if err != nil {
			return fmt.Errorf("reading the address: %w", err)
		}
		conf = conf.Clone()
		conf.ServerName = host
	}
	conn := tls.Client(l.wire.raw(), conf)
	ctx, cancel := context.WithTimeout(ctx, b.Login)
	defer cancel()
	if err := conn.HandshakeContext(ctx); err != nil {
		return fmt.Errorf("in the TLS handshake: %w", err)
	}
	l.wire.secure(conn)
	return nil
}

// offers returns what the backend offers. It waits only where nothing was ever
// learnt, and where the front must be sure that the backend lives; an error
// means that the backend could not be asked a moment ago.
func (b *Backend) offers(ctx context.Context, spawn func(func(context.Context))) (Offer, error) {
	b.mu.Lock()
	age := time.Since(b.asked)
	stale, unsure := age > offerFresh, time.Since(b.alive) > aliveFor
	if b.err != nil {
		stale, unsure = age > offerFailed, age > offerFailed
	}
	wait := b.asked.IsZero() || b.Front.OutageEarly && unsure
	if b.asking == nil && (stale || wait) {
		done := make(chan struct{})
		b.asking = done
		spawn(func(ctx context.Context) { b.ask(ctx, done) })
	}
	asking, offer, err := b.asking, b.offer, b.err
	b.mu.Unlock()
	if !wait {
		return offer, err
	}
	patience := time.NewTimer(offerPatience)
	defer patience.Stop()
	select {
	case <-asking:
	case <-patience.C:
		return Offer{}, errors.New("the backend has not yet said what it offers")
	case <-ctx.Done():
		return Offer{}, ctx.Err()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.offer, b.err
}

// ask learns what the backend offers. An old answer stays when it fails.
func (b *Backend) ask(ctx context.Context, done chan<- struct{}) {
	offer, err := b.fetch(ctx)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.asked = time.Now()
	if err == nil {
		b.offer, b.alive = offer, b.asked
	}
	b.err, b.asking = err, nil
	close(done)
}

// answered notes that the backend lives: it has just taken or refused a login.
func (b *Backend) answered() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.alive = time.Now()
}

// doubted notes that a login failed for the backend's sake: where a greeting
// must be sure of it, the next one asks.
func (b *Backend) doubted() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.alive = time.Time{}
}

// fetch is Probe in bounded time. A panic of the front's, which no session would
// survive to record, becomes an error.
func (b *Backend) fetch(ctx context.Context) (offer Offer, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the proxy made a mistake: %v\n%s", p, debug.Stack())
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, b.Connect+b.Login)
	defer cancel()
	_, offer, err = b.Probe(ctx)
	return offer, err
}

// Probe asks the backend what it offers, afresh. It returns the address that
// answered.
func (b *Backend) Probe(ctx context.Context) (address string, o Offer, err error) {
	l, err := b.connect(ctx, Origin{}) // no customer stands behind it: the backend sees the proxy
	if err != nil {
		return "", o, err
	}
	defer l.close()
	if o, err = l.peer.Offer(); err != nil {
		err = fmt.Errorf("backend %s: asking what it offers: %w", l.address, err)
	}
	return l.address, o, err
}

// keepAlive finds dead peers within a quarter of an hour, and wakes the radio
// of a sleeping phone rarely.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 5 * time.Minute, Interval: time.Minute, Count: 9}

// proxyHeader makes a PROXY protocol 2 header with what Dovecot bears: the
// server name only where it is a DNS name (another drops the connection), the
// TLS bit only where the client used TLS (else Dovecot believes it did), and
// no ALPN. Without a client it is LOCAL.
func proxyHeader(o Origin) ([]byte, error) {
	h := proxyproto.Header{Version: 2, Command: proxyproto.LOCAL, TransportProtocol: proxyproto.UNSPEC}
	if o.Client.IsValid() && o.Server.IsValid() {
		h = *proxyproto.HeaderProxyFromAddrs(2, net.TCPAddrFromAddrPort(o.Client), net.TCPAddrFromAddrPort(o.Server))
		var tlvs []proxyproto.TLV
		if o.SNI != "" {
			tlvs = append(tlvs, proxyproto.TLV{Type: proxyproto.PP2_TYPE_AUTHORITY, Value: []byte(o.SNI)})
		}
		if o.TLS != "" {
			ssl := tlvparse.PP2SSL{Client: tlvparse.PP2_BITFIELD_CLIENT_SSL, Verify: 1, // no client certificate was verified
				TLV: []proxyproto.TLV{
					{Type: proxyproto.PP2_SUBTYPE_SSL_VERSION, Value: []byte("TLSv" + o.TLS)},
					{Type: proxyproto.PP2_SUBTYPE_SSL_CIPHER, Value: []byte(o.Cipher)},
				}}
			tlv, err := ssl.Marshal()
			if err != nil {
				return nil, err
			}
			tlvs = append(tlvs, tlv)
		}
		if err := h.SetTLVs(tlvs); err != nil {
			return nil, err
		}
	}
	return h.Format()
}

// hostName returns a server name in lower case where it is a DNS name
// (RFC 1123 section 2.1; underscores are met in the wild), else "". An address
// is no name. It bounds what a stranger can put into facts, logs and headers.
func hostName(name string) string {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	if len(name) > 253 {
		return ""
	}
	if _, err := netip.ParseAddr(name); err == nil {
		return ""
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return ""
		}
		for _, c := range []byte(label) {
			if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' {
				return ""
			}
		}
	}
	return name
}
