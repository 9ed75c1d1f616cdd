package outreach

// What of an event enters the ledger.

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"mailreeve/config"
	"mailreeve/events"
	"mailreeve/fixes"
	"mailreeve/policy"
)

// Networks tells classes of client networks apart.
type Networks struct {
	lengths []int // of the prefixes, the longest first
	classes map[netip.Prefix]string
	access  map[string]bool // the provider's own customers' lines
}

// otherNetwork is the class of what is in no other.
const otherNetwork = "other"

// NewNetworks makes classes of networks by name. Of several that hold an address the one
// with the longest prefix counts.
func NewNetworks(classes map[config.Name][]netip.Prefix, access []config.Name) Networks {
	n := Networks{classes: map[netip.Prefix]string{}, access: map[string]bool{}}
	for name, prefixes := range classes {
		for _, p := range prefixes {
			if was, twice := n.classes[p.Masked()]; !twice || string(name) < was {
				n.classes[p.Masked()] = string(name)
			}
			if !slices.Contains(n.lengths, p.Bits()) {
				n.lengths = append(n.lengths, p.Bits())
			}
		}
	}
	slices.Sort(n.lengths)
	slices.Reverse(n.lengths)
	for _, name := range access {
		n.access[string(name)] = true
	}
	return n
}

// Class is that of an address.
func (n *Networks) Class(ip netip.Addr) string {
	ip = ip.Unmap().WithZone("")
	for _, bits := range n.lengths {
		if bits > ip.BitLen() {
			continue
		}
		p, err := ip.Prefix(bits)
		if err != nil {
			break // there is no address
		}
		if class, ok := n.classes[p]; ok {
			return class
		}
	}
	return otherNetwork
}

// origin is what a collector has in common in all its sessions of a day, as far as the address
// goes: of version 6 the network of one customer or server (RFC 6177).
func origin(ip netip.Addr) netip.Addr {
	ip = ip.Unmap().WithZone("")
	if ip.Is6() {
		if p, err := ip.Prefix(64); err == nil {
			return p.Addr()
		}
	}
	return ip
}

// harvest is what was read out of a block of lines.
type harvest struct {
	tally  Tally
	logins []login
	others []other
}

// login is a confirmed one.
type login struct {
	account string
	shape   *Shape // one for each that is equal
	day     Day
	told    Told       // nothing mostly
	origin  netip.Addr // only where it may be a collector's
}

// other is a session of nobody who was confirmed.
type other struct {
	day                      Day
	protocol, tls, mechanism string
}

// ways are the shapes that were met, each once while they are not too many.
type ways struct {
	networks Networks
	zone     *time.Location
	latest   Day

	mu     sync.Mutex // guards the following
	shapes map[Shape]*Shape
}

func newWays(in *Intake) *ways {
	// A clock may be wrong by a little, or a node a time zone ahead.
	return &ways{networks: in.Networks, zone: in.Ledger.opt.Zone, latest: in.Ledger.today() + 1, shapes: map[Shape]*Shape{}}
}

// one is the shape that stands for all equal ones.
func (w *ways) one(s Shape) *Shape {
	w.mu.Lock()
	defer w.mu.Unlock()
	if was := w.shapes[s]; was != nil {
		return was
	}
	if len(w.shapes) >= mostShapeIDs {
		clear(w.shapes)
	}
	w.shapes[s] = &s
	return &s
}

const (
	longestText = 255 // bytes of a text in a shape: a host name has no more (RFC 1035 section 2.3.4)
	mostAccount = 320 // of an account (RFC 5321 section 4.5.3.1)
)

// cleanLine bounds a text of a stranger and takes out what is no text: PostgreSQL would refuse it,
// and a terminal obey it.
func cleanLine(s string, most int) string {
	if len(s) > most {
		s = s[:most]
		for range utf8.UTFMax - 1 { // a letter that was cut in two
			if r, size := utf8.DecodeLastRuneInString(s); r == utf8.RuneError && size == 1 {
				s = s[:len(s)-1]
			}
		}
	}
	if utf8.ValidString(s) && strings.IndexFunc(s, unicode.IsControl) < 0 {
		return s
	}
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return utf8.RuneError
		}
		return r
	}, strings.ToValidUTF8(s, "\ufffd"))
}

// usableAccount reports whether a name can be kept as it is.
func usableAccount(name string) bool {
	return name != "" && len(name) <= mostAccount && utf8.ValidString(name) && strings.IndexFunc(name, unicode.IsControl) < 0
}

// day is that of an instant; not ok where a clock must have been wrong.
func (w *ways) day(t time.Time) (d Day, ok bool) {
	if y := t.Year(); y < 1990 || y > 9999 {
		return 0, false
	}
	d = DayOf(t, w.zone)
	return d, d <= w.latest
}

// session takes an event in. It returns false where that is none for the ledger.
func (w *ways) session(e *events.Session, s *harvest) bool {
	at := e.Decided // by the clock of policy, which a rehearsal sets
	if at.IsZero() {
		at = e.Time
	}
	day, ok := w.day(at)
	if !ok {
		return false
	}
	if !e.Verified || e.Account == "" {
		s.nobody(day, e.Protocol, e.TLS, e.Mechanism)
		return true
	}
	if !usableAccount(e.Account) {
		return false
	}
	network := w.networks.Class(e.IP)
	shape := w.shape(e, network)
	s.tally.Logins++
	s.logins = append(s.logins, login{account: e.Account, shape: shape, day: day,
		told: told(day, e.Action, e.Refused, e.Rule, e.Told), origin: w.suspect(shape, e.IP)})
	return true
}

// nobody counts a session of nobody who was confirmed.
func (s *harvest) nobody(day Day, protocol, tls, mechanism string) {
	if mechanism != "" {
		mechanism = policy.KnownMech(mechanism) // what robots invent fills no table
	}
	s.tally.Unverified++
	s.others = append(s.others, other{day, among(protocol, "imap", "pop3", "submission"), among(tls, policy.None, "1.0", "1.1", "1.2", "1.3"), mechanism})
}

// among is a word if it is one of those known.
func among(word string, known ...string) string {
	if i := slices.Index(known, word); i >= 0 {
		return known[i] // not a piece of a whole block of lines
	}
	return ""
}

// shape is the way in which a session came.
func (w *ways) shape(e *events.Session, network string) *Shape {
	class, program := fixes.Classify(e.Protocol, e.ClientID, e.Hello, e.Mechanism)
	s := Shape{
		Brand: cleanLine(e.Brand, longestText), Listener: cleanLine(e.Listener, longestText), Protocol: cleanLine(e.Protocol, longestText), Port: e.Port,
		Entry: cleanLine(e.Entry, longestText), TLS: cleanLine(e.TLS, longestText), CipherClass: cleanLine(e.CipherClass, longestText), Host: cleanLine(e.Host, longestText),
		UserForm: cleanLine(e.UserForm, longestText), Class: class, Program: cleanLine(program, longestText), Network: network,
	}
	if e.Mechanism != "" {
		s.Mechanism = policy.KnownMech(e.Mechanism)
	}
	if e.Host != policy.Canonical && e.Host != policy.Absent {
		s.SNI = cleanLine(strings.ToLower(e.SNI), longestText)
	}
	return w.one(s)
}

// suspect is the origin of a session that may be a collector's: of no person's program, and not on a
// line of the provider's own customers, where many share an address.
func (w *ways) suspect(s *Shape, ip netip.Addr) netip.Addr {
	if s.Class != fixes.Unknown && s.Class != fixes.Script || w.networks.access[s.Network] || !ip.IsValid() {
		return netip.Addr{}
	}
	return origin(ip)
}

// told is what the proxy told the account in a session: in refusing, or beside the login.
func told(day Day, action, refused, rule string, beside bool) Told {
	if refused != "policy" && refused != "policy_for_now" && !beside {
		return Told{}
	}
	t := Told{Day: day, Rule: cleanLine(rule, longestText)}
	if t.Action.UnmarshalText([]byte(action)) != nil || t.Action < policy.Warn {
		return Told{}
	}
	return t
}

// later reports whether this was told after the other; on one day the severer counts.
func (t Told) later(o Told) bool {
	if t.Day != o.Day {
		return t.Day > o.Day
	}
	if t.Action != o.Action {
		return t.Action > o.Action
	}
	return t.Rule > o.Rule
}

// events reads lines of events.
func (w *ways) events(lines []byte, s *harvest) {
	for line := range eachLine(lines) {
		s.tally.Lines++
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		e := new(events.Session)
		if len(line) >= mostLine || json.Unmarshal(line, e) != nil || e.V != events.Version || e.Kind != "session" || !w.session(e, s) {
			s.tally.unknown(line)
		}
	}
}
