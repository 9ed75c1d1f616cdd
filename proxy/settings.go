package proxy

// What the engine is given, checked and indexed once so that sessions only look up.

import (
	"cmp"
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

	// Now is the clock of policy, and of nothing else: rehearsals live at another
	// date. Nil: time.Now.
	Now func() time.Time

	// Ledger says what is known of an account over time: policy.Clean, Open, Fixed or
	// Exempt, or "" where nothing is. Every login asks, many at once, between two of
	// its lines: it looks up and waits for nothing. Nil: nothing is known of anybody.
	Ledger func(account string) string

	Connections int // in total; 0: no bound
	PerAddress  int // per IPv4 address or IPv6 /64; 0: no bound

	// Certificate chooses by the client's hello and what the name in it stands
	// for; nil, nil sends the alert unrecognized_name. It may wait as long as the
	// hello's context lasts. A session that is resumed asks for none.
	Certificate func(hello *tls.ClientHelloInfo, name ServerName) (*tls.Certificate, error)

	// Tickets has a configuration make session tickets, and take those made for
	// the same purpose and server name (RFC 6066 section 3). Nil: there are none.
	Tickets func(c *tls.Config, purpose string)

	names  map[string]nameOf // canonical host names
	legacy legacy            // old ones
	words  map[string]string // by front: what customers call its protocol
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
	OldTLS     bool           // TLS 1.0 and 1.1, RSA key exchange and 3DES, where policy does not refuse them

	tls *ways
}

// Brand is one set of host names, words and backends.
type Brand struct {
	Name     string
	Language Language
	Help     string              // address of the help page, ASCII
	Hosts    map[string][]string // by front: canonical names, the recommended one first
	Ports    map[string]int      // by front: of implicit TLS, told to customers; default: the front's
	Legacy   []string            // old names: exact, *.suffix, or label.* for all that begin with "label."
	Backends map[string]*Backend // by front

	// Account says whose mailbox a name is that a customer has typed, and what the
	// backend is to be told; a person is then one account in policy and events,
	// however often named. Nil: as typed, both. An account is in small letters in any
	// case. Called in many sessions at once.
	Account func(typed string) (account, send string)

	// Texts are the brand's own sentences, in its language; what is not in it
	// has the shipped ones.
	Texts map[policy.Finding]map[policy.Action]string

	// StrictCodes has refusals bear the codes that the RFCs have for them, where
	// programs read others better.
	StrictCodes bool
}

// ServerName is what the name in a client's hello stands for.
type ServerName struct {
	Host     string // the fact: canonical, other_service, legacy, unknown or absent
	Listed   bool   // legacy, by an exact name and not by a pattern
	Brand    *Brand // whose name it is; the listener's where it is nobody's
	Fallback string // the canonical name that customers of the brand shall use on this listener
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
	if s.Now == nil {
		s.Now = time.Now
	}
	s.names = map[string]nameOf{}
	s.legacy = legacy{map[string][]*Brand{}, map[string][]*Brand{}, map[string][]*Brand{}}
	s.words = map[string]string{}
	for _, b := range s.Brands {
		if err := s.legacy.add(b); err != nil {
			return err
		}
		for front, backend := range b.Backends {
			s.words[front] = backend.Front.Word
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
		s.words[l.Front.Name] = l.Front.Word
		if l.Brand.Backends[l.Front.Name] == nil {
			return fmt.Errorf("listener %s: brand %s has no backend for %s", l.Name, l.Brand.Name, l.Front.Name)
		}
		if s.Times.Idle[l.Front.Name] <= 0 {
			return fmt.Errorf("listener %s: no time of silence is allowed for %s", l.Name, l.Front.Name)
		}
		l.tls = newWays(l, s.Tickets)
	}
	return nil
}

// host returns the name that customers shall use for a front, or "".
func (b *Brand) host(front string) string {
	if hosts := b.Hosts[front]; len(hosts) > 0 {
		return hosts[0]
	}
	return ""
}

// classify says what a server name stands for on a listener, and whose it is.
// An absent name, or one that is no DNS name, says nothing, and neither does one
// without a dot, unless it is somebody's: it is an alias of the client's own
// network (RFC 6066 section 3 wants it fully qualified).
func (s *Settings) classify(l *Listener, name string) ServerName {
	front := l.Front.Name
	n := ServerName{Host: policy.Unknown, Brand: l.Brand}
	if name == "" {
		n.Host = policy.Absent
	} else if known, ok := s.names[name]; ok {
		n.Host = policy.OtherService
		if slices.Contains(known.fronts, front) {
			n.Host = policy.Canonical
		}
		if known.brand.Backends[front] != nil {
			n.Brand = known.brand
		}
	} else if b, listed := s.legacy.find(name, front); b != nil {
		n = ServerName{Host: policy.Legacy, Listed: listed, Brand: b}
	} else if !strings.Contains(name, ".") {
		n.Host = policy.Absent
	}
	n.Fallback = cmp.Or(n.Brand.host(front), l.Brand.host(front))
	return n
}

// owner returns whose name it is, whatever it is for, or nil.
func (s *Settings) owner(name string) *Brand {
	if known, ok := s.names[name]; ok {
		return known.brand
	}
	b, _ := s.legacy.find(name, "")
	return b
}

// called says what the protocols are called that a canonical name is for.
func (s *Settings) called(name string) string {
	var words []string
	for _, front := range s.names[name].fronts {
		words = append(words, cmp.Or(s.words[front], strings.ToUpper(front)))
	}
	slices.Sort(words)
	return strings.Join(words, "/")
}

// legacy finds old names. There may be tens of thousands, and each handshake
// under one asks, so each kind of pattern has a map of its own.
type legacy struct {
	exact  map[string][]*Brand // whose it is; brands in the order of the configuration
	suffix map[string][]*Brand // of *.suffix, with the dot
	label  map[string][]*Brand // of label.*, without the dot
}

// add takes a brand's patterns in.
func (l *legacy) add(b *Brand) error {
	own := []*Brand{b} // shared by all names that are its alone
	into := func(m map[string][]*Brand, key string) {
		if other, ok := m[key]; !ok {
			m[key] = own
		} else if !slices.Contains(other, b) {
			m[key] = append(slices.Clip(other), b)
		}
	}
	for _, pattern := range b.Legacy {
		name := strings.ToLower(pattern)
		suffix, ofSuffix := strings.CutPrefix(name, "*.")
		label, ofLabel := strings.CutSuffix(name, ".*")
		switch {
		case ofSuffix && suffix != "" && !strings.Contains(suffix, "*"):
			into(l.suffix, name[1:])
		case ofLabel && label != "" && !strings.ContainsAny(label, ".*"):
			into(l.label, label)
		case name != "" && !strings.Contains(name, "*"):
			into(l.exact, name)
		default:
			return fmt.Errorf("brand %s: %q is no old name: exact, *.suffix or label.* is", b.Name, pattern)
		}
	}
	return nil
}

// find returns the brand of an old name that has a backend for the front, or for
// any where that is empty, and whether the name is listed itself. The exact name
// goes before the longest suffix, and that before the label.
func (l *legacy) find(name, front string) (b *Brand, listed bool) {
	if b := having(l.exact[name], front); b != nil {
		return b, true
	}
	for i := range len(name) {
		if name[i] == '.' {
			if b := having(l.suffix[name[i:]], front); b != nil {
				return b, false
			}
		}
	}
	if label, _, dotted := strings.Cut(name, "."); dotted {
		return having(l.label[label], front), false
	}
	return nil, false
}

// having returns the first brand that has a backend for the front.
func having(brands []*Brand, front string) *Brand {
	for _, b := range brands {
		if front == "" || b.Backends[front] != nil {
			return b
		}
	}
	return nil
}
