package outreach

// Reading a line of events quickly.

import (
	"encoding/json"
	"net/netip"
	"strconv"
	"time"

	"mailreeve/events"
)

// fields are those of an event that the ledger is filled from, as they stand in the line.
type fields struct {
	time, listener, protocol, port, entry, tls, cipherClass, sni, host, brand, hello, mechanism, userForm, account, refused, action, rule []byte

	clientID []byte // an object
	ip       netip.Addr

	verified, told bool
}

// session is an event with what makes a shape of it.
func (f *fields) session() *events.Session {
	e := &events.Session{Listener: string(f.listener), Protocol: string(f.protocol), Entry: string(f.entry), TLS: string(f.tls),
		CipherClass: string(f.cipherClass), SNI: string(f.sni), Host: string(f.host), Brand: string(f.brand), Hello: string(f.hello),
		Mechanism: string(f.mechanism), UserForm: string(f.userForm)}
	e.Port, _ = strconv.Atoi(string(f.port)) // read has looked at both
	if f.clientID != nil {
		json.Unmarshal(f.clientID, &e.ClientID)
	}
	return e
}

// read takes a line apart as [events.Encode] writes it. It returns false wherever encoding/json might see
// anything else in it, or an error: then that has to be asked.
func (f *fields) read(line []byte) bool {
	l := &text{rest: line}
	if !l.take('{') {
		return false
	}
	var seen uint64
	var version, kind []byte
	for first := true; ; first = false {
		if l.take('}') {
			// A field that stands there twice: encoding/json merges some.
			return !first && len(l.rest) == 0 && string(version) == "1" && string(kind) == "session" && f.time != nil
		}
		if !first && !l.take(',') {
			return false
		}
		key, ok := l.str()
		if !ok || !l.take(':') {
			return false
		}
		var into *[]byte
		number := -1
		switch string(key) {
		case "v":
			number = 0
			version, ok = l.number()
		case "event":
			number, into = 1, &kind
		case "time":
			number, into = 2, &f.time
		case "listener":
			number, into = 3, &f.listener
		case "protocol":
			number, into = 4, &f.protocol
		case "port":
			number = 5
			f.port, ok = l.number()
		case "ip":
			number = 6
			f.ip, ok = l.address()
		case "via":
			number = 7
			_, ok = l.address()
		case "entry":
			number, into = 8, &f.entry
		case "wrong_port":
			number = 9
			_, ok = l.boolean()
		case "tls":
			number, into = 10, &f.tls
		case "cipher":
			number = 11
			_, ok = l.str()
		case "cipher_class":
			number, into = 12, &f.cipherClass
		case "resumed":
			number = 13
			_, ok = l.boolean()
		case "alpn":
			number = 14
			_, ok = l.str()
		case "alert":
			number = 15
			_, ok = l.str()
		case "sni":
			number, into = 16, &f.sni
		case "host":
			number, into = 17, &f.host
		case "brand":
			number, into = 18, &f.brand
		case "client":
			number = 19
			_, ok = l.str()
		case "client_id":
			number = 20
			f.clientID, ok = l.strings('{', '}')
		case "hello":
			number, into = 21, &f.hello
		case "mechanism":
			number, into = 22, &f.mechanism
		case "user_form":
			number, into = 23, &f.userForm
		case "account":
			number, into = 24, &f.account
		case "domain":
			number = 25
			_, ok = l.str()
		case "ledger":
			number = 26
			_, ok = l.str()
		case "verified":
			number = 27
			f.verified, ok = l.boolean()
		case "exposed":
			number = 28
			_, ok = l.boolean()
		case "attempts":
			number = 29
			_, ok = l.number()
		case "refused":
			number, into = 30, &f.refused
		case "action":
			number, into = 31, &f.action
		case "by":
			number = 32
			_, ok = l.strings('[', ']')
		case "policy":
			number = 33
			_, ok = l.str()
		case "decided":
			number = 34
			_, ok = l.time()
		case "rule":
			number, into = 35, &f.rule
		case "stage":
			number = 36
			_, ok = l.time()
		case "bucket":
			number = 37
			_, ok = l.number()
		case "exception":
			number = 38
			_, ok = l.str()
		case "hold":
			number = 39
			ok = l.hold()
		case "told":
			number = 40
			f.told, ok = l.boolean()
		case "backend":
			number = 41
			_, ok = l.str()
		case "bytes_in":
			number = 42
			_, ok = l.number()
		case "bytes_out":
			number = 43
			_, ok = l.number()
		case "seconds":
			number = 44
			ok = l.seconds()
		case "end":
			number = 45
			_, ok = l.str()
		case "reason":
			number = 46
			_, ok = l.str()
		case "sentence":
			number = 47
			_, ok = l.str()
		case "id":
			number = 48
			_, ok = l.str()
		default:
			return false // of a later version, or in capitals
		}
		if into != nil {
			*into, ok = l.str()
		}
		if !ok || seen&(1<<number) != 0 {
			return false
		}
		seen |= 1 << number
	}
}

// text is what is left of a line.
type text struct{ rest []byte }

// take takes a byte, if it is the next.
func (l *text) take(c byte) bool {
	if len(l.rest) == 0 || l.rest[0] != c {
		return false
	}
	l.rest = l.rest[1:]
	return true
}

// plain are the bytes that stand for themselves in a string.
var plain = func() (is [256]bool) {
	for c := ' '; c < 0x7f; c++ {
		is[c] = c != '"' && c != '\\'
	}
	return is
}()

// str takes a string of plain bytes, without its quotes.
func (l *text) str() ([]byte, bool) {
	if !l.take('"') {
		return nil, false
	}
	for i, c := range l.rest {
		if !plain[c] {
			s := l.rest[:i:i]
			l.rest = l.rest[i:]
			return s, l.take('"')
		}
	}
	return nil, false
}

// number takes a whole number that fits into 64 bits.
func (l *text) number() ([]byte, bool) {
	i := 0
	if len(l.rest) > 0 && l.rest[0] == '-' {
		i = 1
	}
	from := i
	for i < len(l.rest) && l.rest[i] >= '0' && l.rest[i] <= '9' {
		i++
	}
	n := l.rest[:i:i]
	if i == from || i-from > 18 || l.rest[from] == '0' && i-from > 1 {
		return nil, false
	}
	l.rest = l.rest[i:]
	return n, true
}

// seconds takes a number with or without a fraction.
func (l *text) seconds() bool {
	if _, ok := l.number(); !ok {
		return false
	}
	if !l.take('.') {
		return true
	}
	i := 0
	for i < len(l.rest) && l.rest[i] >= '0' && l.rest[i] <= '9' {
		i++
	}
	l.rest = l.rest[i:]
	return i > 0
}

func (l *text) boolean() (value, ok bool) {
	switch {
	case len(l.rest) >= 4 && string(l.rest[:4]) == "true":
		l.rest = l.rest[4:]
		return true, true
	case len(l.rest) >= 5 && string(l.rest[:5]) == "false":
		l.rest = l.rest[5:]
		return false, true
	}
	return false, false
}

func (l *text) address() (ip netip.Addr, ok bool) {
	s, ok := l.str()
	if !ok {
		return ip, false
	}
	ip, err := netip.ParseAddr(string(s))
	return ip, err == nil
}

func (l *text) time() (t time.Time, ok bool) {
	s, ok := l.str()
	return t, ok && t.UnmarshalText(s) == nil
}

// strings takes a list of strings, or an object of them, with its brackets.
func (l *text) strings(open, shut byte) ([]byte, bool) {
	all := l.rest
	if !l.take(open) {
		return nil, false
	}
	for first := true; !l.take(shut); first = false {
		if !first && !l.take(',') {
			return nil, false
		}
		if _, ok := l.str(); !ok {
			return nil, false
		}
		if open == '{' {
			if !l.take(':') {
				return nil, false
			}
			if _, ok := l.str(); !ok {
				return nil, false
			}
		}
	}
	return all[: len(all)-len(l.rest) : len(all)-len(l.rest)], true
}

// hold takes one as [events.Hold] is written: while one is in force every event has it.
func (l *text) hold() bool {
	if !l.take('{') {
		return false
	}
	for first := true; !l.take('}'); first = false {
		if !first && !l.take(',') {
			return false
		}
		key, ok := l.str()
		if !ok || !l.take(':') {
			return false
		}
		switch string(key) {
		case "cap", "reason", "owner":
			_, ok = l.str()
		case "since", "until":
			_, ok = l.time()
		default:
			return false
		}
		if !ok {
			return false
		}
	}
	return true
}
