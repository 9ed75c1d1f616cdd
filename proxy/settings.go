package proxy

// What the engine is given, checked and indexed once so that sessions only look up.

import (
	"crypto/tls"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"mailreeve/policy"
)

// Settings are what a session lives by. A session takes them once, when it is
// accepted, and keeps them when new ones are applied. [Engine.Apply] takes a
// copy of them and of their listeners; what these point to must not change. There
// are no defaults here, but where a field says so: those are the configuration's.
type Settings struct {
	Hostname  string // said in greetings
	Listeners []*Listener
	Brands    []*Brand // at least one
	Policy    *policy.Policy
	Limits    Limits
	Times     Times

	Connections int // in total; 0: no bound
	PerAddress  int // per IPv4 address or IPv6 /64; 0: no bound

	// Certificate chooses by the client's hello and what the name in it stands
	// for; nil, nil sends the alert unrecognized_name.
	Certificate func(hello *tls.ClientHelloInfo, name ServerName) (*tls.Certificate, error)

	// Tickets is whose EncryptTicket and DecryptTicket make session tickets; nil:
	// a config made at Apply, whose tickets do not outlive it.
	Tickets *tls.Config

	names map[string]nameOf // canonical host names
}

// Times are the patience of the engine.
type Times struct {
	Handshake time.Duration            // for TLS, and for a PROXY header
	Login     time.Duration            // from accept to the end of the login
	Idle      map[string]time.Duration // silence after the login, by front
}

// Listener is a socket and its protocol.
type Listener struct {
	Name       string
	Address    string // host:port; port 0 chooses one
	Front      *Front
	Implicit   bool           // TLS from the first byte; else STARTTLS
	Brand      *Brand         // of clients that send no server name
	Proxies    []netip.Prefix // peers that must send a PROXY header; nobody else may
	ServeHello bool           // a TLS client on a STARTTLS port is served
	OldTLS     bool           // TLS 1.0 and 1.1, RSA key exchange and CBC, where policy does not refuse them

	tls *tls.Config
}

// Brand is one set of host names, words and backends.
type Brand struct {
	Name     string
	Language Language
	Help     string              // address of the help page, ASCII
	Hosts    map[string][]string // by front: canonical names, the recommended one first
	Ports    map[string]int      // by front: of implicit TLS, told to customers; default: the front's
	Legacy   []string            // old names: exact, *.suffix, or label.* for all that begin so
	Backends map[string]*Backend // by front
}

// ServerName is what the name in a client's hello stands for.
type ServerName struct {
	Host     string // the fact: canonical, other_service, legacy, unknown or absent
	Listed   bool   // legacy, by an exact name and not by a pattern
	Brand    *Brand // whose name it is; the listener's where it is nobody's
	Fallback string // the canonical name of the listener's brand and front
}

// nameOf is what a canonical host name stands for.
type nameOf struct {
	brand  *Brand
	fronts []string
}

// prepared checks what the engine relies on and returns a copy in which what
// it looks up is filled in: sessions may be reading an earlier one.
func (s *Settings) prepared() (*Settings, error) {
	p := *s
	p.Listeners = make([]*Listener, len(s.Listeners))
	for i, l := range s.Listeners {
		own := *l
		p.Listeners[i] = &own
	}
	if err := p.prepare(); err != nil {
		return nil, err
	}
	return &p, nil
}

func (s *Settings) prepare() error {
	switch {
	case len(s.Brands) == 0:
		return fmt.Errorf("no brand")
	case s.Policy == nil:
		return fmt.Errorf("no policy")
	case s.Certificate == nil:
		return fmt.Errorf("no source of certificates")
	}
	s.names = map[string]nameOf{}
	for _, b := range s.Brands {
		for front, backend := range b.Backends {
			if backend.Master != nil && (backend.Check == nil || backend.Check.Master != nil) {
				return fmt.Errorf("brand %s: the backend for %s has a master, and nowhere to check the customer's password", b.Name, front)
			}
		}
		for front, hosts := range b.Hosts {
			for _, host := range hosts {
				host = strings.ToLower(host)
				n, ok := s.names[host]
				if ok && n.brand != b {
					return fmt.Errorf("host name %s belongs to two brands, %s and %s", host, n.brand.Name, b.Name)
				}
				s.names[host] = nameOf{b, append(n.fronts, front)}
				if b.Backends[front] == nil && slices.ContainsFunc(s.Listeners, func(l *Listener) bool { return l.Front.Name == front }) {
					return fmt.Errorf("brand %s: host name %s is for %s, and there is no backend for it", b.Name, host, front)
				}
			}
		}
	}
	seen := map[string]bool{}
	for _, l := range s.Listeners {
		if seen[l.Name] {
			return fmt.Errorf("two listeners are named %s", l.Name)
		}
		seen[l.Name] = true
		if l.Brand == nil {
			l.Brand = s.Brands[0]
		}
		if l.Brand.Backends[l.Front.Name] == nil {
			return fmt.Errorf("listener %s: brand %s has no backend for %s", l.Name, l.Brand.Name, l.Front.Name)
		}
		if s.Times.Idle[l.Front.Name] <= 0 {
			return fmt.Errorf("listener %s: no time of silence is allowed for %s", l.Name, l.Front.Name)
		}
		l.tls = s.tlsConfig(l)
	}
	return nil
}

// tlsConfig is TLS 1.2 and 1.3 with Go's choice of suites (RFC 9325). A client
// that names application protocols and not ours is refused, one that names
// none passes: so a browser cannot be led here (ALPACA).
func (s *Settings) tlsConfig(l *Listener) *tls.Config {
	c := &tls.Config{
		MinVersion: tls.VersionTLS12,
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			host, brand := s.classify(l, hostName(hello.ServerName))
			return s.Certificate(hello, ServerName{Host: host, Brand: brand, Fallback: l.Brand.host(l.Front.Name)})
		},
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			if heard, ok := hello.Context().Value(helloKey{}).(func(*tls.ClientHelloInfo)); ok {
				heard(hello)
			}
			return nil, nil
		},
	}
	if l.Front.ALPN != "" {
		c.NextProtos = []string{l.Front.ALPN}
	}
	return c
}

// helloKey is where a handshake's context has the session's ear.
type helloKey struct{}

// host returns the name that customers shall use for a front, or "".
func (b *Brand) host(front string) string {
	if hosts := b.Hosts[front]; len(hosts) > 0 {
		return hosts[0]
	}
	return ""
}

// classify says what a server name stands for on a listener, and whose it is.
// An absent name, or one that is no DNS name, says nothing.
func (s *Settings) classify(l *Listener, name string) (host string, brand *Brand) {
	if name == "" {
		return policy.Absent, l.Brand
	}
	if n, ok := s.names[name]; ok {
		if slices.Contains(n.fronts, l.Front.Name) {
			return policy.Canonical, n.brand
		}
		if n.brand.Backends[l.Front.Name] == nil {
			return policy.OtherService, l.Brand
		}
		return policy.OtherService, n.brand
	}
	for _, b := range s.Brands {
		if b.Backends[l.Front.Name] != nil && slices.ContainsFunc(b.Legacy, func(p string) bool { return matches(p, name) }) {
			return policy.Legacy, b
		}
	}
	return policy.Unknown, l.Brand
}

// matches compares a name with an exact pattern or with *.suffix.
func matches(pattern, name string) bool {
	pattern = strings.ToLower(pattern)
	if suffix, ok := strings.CutPrefix(pattern, "*"); ok {
		return strings.HasSuffix(name, suffix) && len(name) > len(suffix)
	}
	return pattern == name
}
