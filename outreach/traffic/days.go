package traffic

// What happens on a day.

import (
	"cmp"
	"encoding/binary"
	"net/netip"
	"slices"
	"time"

	"mailreeve/events"
	"mailreeve/policy"
)

// kind is what a session is.
type kind uint8

const (
	login kind = iota
	typo       // of a program that has a right password on other days
	robot
)

// session is one of them, before it is written out.
type session struct {
	start   int64 // nanoseconds since 1970
	seconds float32
	person  uint32
	device  uint8
	kind    kind
	wrong   faults
	away    bool // not at home: on the road, or as a guest
	guest   bool
	first   bool   // of its device on that day
	trial   bool   // what it tries says nothing of how it is set
	lot     uint32 // for addresses and numbers
}

func (s *session) end() int64 { return s.start + int64(float64(s.seconds)*float64(time.Second)) }

// longest a session lasts, in seconds.
const longest = 6 * 3600

// comes says whether a device comes on a day at all.
func (d *device) comes(day int, weekday time.Weekday, by *dice) bool {
	n := int16(day)
	switch d.habit {
	case everyDay:
		return true
	case workdays:
		return weekday != time.Saturday && weekday != time.Sunday && by.happens(0.95)
	case weekly:
		return n%7 == d.phase%7
	case monthly:
		return n%28 == d.phase%28
	case holiday:
		return (n < d.phase || n >= d.phase+d.length) && by.happens(0.9)
	case gone:
		return n <= d.phase && by.happens(0.9)
	case fresh:
		return n >= d.phase && by.happens(0.9)
	}
	return by.happens(0.93)
}

// hours are when people's programs come, in parts of a day of 24 hours.
var hours = [24]uint8{1, 1, 1, 1, 1, 2, 4, 6, 7, 7, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 5, 4, 3, 2}

var manyHours = func() (all []uint8) {
	for hour, n := range hours {
		for range n {
			all = append(all, uint8(hour))
		}
	}
	return all
}()

// when is an instant of a day.
func (w *World) when(day int, d *dice) int64 {
	from, to := w.days[day].UnixNano(), w.days[day+1].UnixNano()
	at := (float64(oneOf(d, manyHours)) + d.part()) / 24
	return from + int64(at*float64(to-from-1))
}

// day plays a device's day: its sessions in their order.
func (w *World) day(p *person, person, which, day int, to []session) []session {
	d := &p.devices[which]
	by := throw(w.Seed, 2, uint64(person), uint64(which), uint64(day))
	if !d.comes(day, w.days[day].Weekday(), &by) {
		return to
	}
	n := int(d.often*w.Busy*(0.5+by.part()) + by.part())
	if n == 0 && d.protocol != submission {
		n = 1
	}
	first := len(to)
	for range n {
		s := session{start: w.when(day, &by), person: uint32(person), device: uint8(which), lot: uint32(by.next())}
		s.seconds = float32(0.2 + 5*by.part())
		if d.protocol == imap && by.happens(0.5) {
			s.seconds = float32(longest * by.part() * by.part() * by.part())
		}
		if d.line == roaming {
			s.away = by.happens(0.5)
			s.guest = s.away && by.happens(0.1)
		}
		to = append(to, s)
	}
	today := to[first:]
	slices.SortFunc(today, func(a, b session) int { return cmp.Compare(a.start, b.start) })
	// What its owner changes, he changes between two of its sessions.
	before, after := d.wrong(day)
	change := by.below(len(today) + 1)
	for i := range today {
		today[i].wrong, today[i].first = after.seen(), i == 0
		if i < change {
			today[i].wrong = before.seen()
		}
	}
	if n > 0 && slices.Contains(d.probes, int16(day)) && after == 0 && before == 0 && d.line != roaming {
		to = w.series(to, first, &by)
	}
	if by.happens(w.mix.Typos) {
		s := session{start: w.when(day, &by), seconds: 3, person: uint32(person), device: uint8(which), kind: typo, wrong: before.seen(), lot: uint32(by.next())}
		to = append(to, s)
	}
	return to
}

// series is what an Apple Mail does that has met a failure: it tries what else there
// is, and comes back to its settings.
func (w *World) series(to []session, first int, by *dice) []session {
	trial := to[first]
	trial.seconds, trial.first, trial.trial = 1, false, true
	for _, wrong := range []faults{plaintext, weak, plaintext | weak} {
		trial.start += int64(time.Second)
		trial.wrong = wrong
		trial.lot = uint32(by.next())
		to = append(to, trial)
	}
	return to
}

// setting is how a session logs in: the facts of it that last.
type setting struct {
	Brand, Listener, Protocol string
	Port                      int
	Entry, TLS, CipherClass   string
	Host, SNI                 string
	Mechanism, UserForm       string
}

// services are the listeners, by port.
var services = map[int]string{143: "imap", 993: "imaps", 110: "pop3", 995: "pop3s", 25: "smtp", 587: "submission", 465: "submissions"}

// setting is that of a device with these faults.
func (w *World) setting(p *person, d *device, wrong faults) setting {
	b := &w.Brands[p.brand]
	s := setting{Brand: b.Name, Protocol: d.protocol, Entry: policy.EntryImplicit, TLS: d.tls, CipherClass: policy.Modern,
		Host: policy.Canonical, Mechanism: d.form.mechanism, UserForm: "address"}
	starttls := d.starttls
	switch {
	case wrong&plaintext != 0:
		s.Entry, s.TLS, s.CipherClass, starttls = policy.EntryPlain, policy.None, "", true
	case wrong&port25 != 0:
		s.Entry, starttls = policy.EntryStartTLS, true
	case starttls:
		s.Entry = policy.EntryStartTLS
	}
	s.Port = map[string]int{imap: 993, pop3: 995, submission: 465}[d.protocol]
	if starttls {
		s.Port = map[string]int{imap: 143, pop3: 110, submission: 587}[d.protocol]
	}
	if wrong&port25 != 0 {
		s.Port = 25
	}
	s.Listener = b.Name + "-" + services[s.Port]
	if wrong&oldTLS != 0 {
		s.TLS, s.CipherClass = d.oldTLS, policy.LegacyCiphers
	}
	switch {
	case wrong&plaintext != 0:
		s.Host = ""
	case d.form.nameless:
		s.Host = policy.Absent
	case wrong&legacy != 0:
		s.Host, s.SNI = d.host, d.oldName
	}
	if wrong&weak != 0 {
		s.Mechanism = d.weak
	}
	if wrong&bare != 0 {
		s.UserForm = "bare"
	}
	return s
}

// Networks are the classes of networks in the world, as a configuration has them. What
// lies in none is of class "other".
func Networks() map[string][]netip.Prefix {
	of := func(all ...string) (networks []netip.Prefix) {
		for _, n := range all {
			networks = append(networks, netip.MustParsePrefix(n))
		}
		return networks
	}
	return map[string][]netip.Prefix{
		"dsl": of("10.0.0.0/9", "2001:db8:d000::/36"), "mobile": of("100.64.0.0/10"), "office": of("198.18.0.0/15"),
		"hosting": of("192.0.2.0/24", "203.0.113.0/24", "2001:db8:8000::/36"),
	}
}

// Access are the classes that are lines of the provider's own customers.
func Access() []string { return []string{"dsl", "mobile", "office"} }

// network is the class from which a session comes.
func (s *session) network(d *device) string {
	switch {
	case s.guest:
		return "other"
	case s.away:
		return "mobile"
	case d.line == office:
		return "office"
	case d.line == cloud || d.line == rented || d.line == fetched:
		return "hosting"
	}
	return "dsl"
}

// cgnat is how many addresses the mobile operator has for all of its customers.
const cgnat = 64

// address is where a session comes from.
func (w *World) address(p *person, d *device, s *session, day int) netip.Addr {
	v4 := func(base uint32, bits int, n uint32) netip.Addr {
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], base|n&(1<<(32-bits)-1))
		return netip.AddrFrom4(b)
	}
	switch s.network(d) {
	case "other":
		return v4(172<<24|16<<16, 12, s.lot)
	case "mobile":
		return v4(100<<24|64<<16, 10, s.lot%cgnat)
	case "office":
		return v4(198<<24|18<<16, 15, p.address)
	case "hosting":
		switch d.line {
		case fetched:
			return v4(192<<24|2<<8, 24, 10+d.fetcher)
		case cloud: // any of a few, for many accounts
			return v4(203<<24|113<<8, 24, s.lot%32)
		}
		return rentedAddress(d.fetcher)
	}
	at := throw(uint64(p.address), uint64(day)) // a line at home is given another address every night
	if !p.v6 {
		return v4(10<<24, 9, uint32(at.next()))
	}
	b := [16]byte{0x20, 0x01, 0x0d, 0xb8}
	binary.BigEndian.PutUint64(b[4:], uint64(0xd)<<60|at.next()>>4)
	binary.BigEndian.PutUint32(b[12:], p.address)
	return netip.AddrFrom16(b)
}

// rentedAddress is that of somebody's own server.
func rentedAddress(lot uint32) netip.Addr {
	b := [16]byte{0x20, 0x01, 0x0d, 0xb8, 0x80}
	binary.BigEndian.PutUint32(b[5:], lot)
	return netip.AddrFrom16(b)
}

// into writes a setting into a record.
func (s setting) into(e *events.Session) {
	e.Brand, e.Listener, e.Protocol, e.Port = s.Brand, s.Listener, s.Protocol, s.Port
	e.Entry, e.TLS, e.CipherClass, e.Cipher = s.Entry, s.TLS, s.CipherClass, ciphers[s.TLS]
	e.Host, e.SNI, e.Mechanism, e.UserForm = s.Host, s.SNI, s.Mechanism, s.UserForm
}
