package fixes

// Which program a client is.

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"mailreeve/policy"
)

// longest bounds what is looked at of strangers' strings: a host name has at most 253
// characters (RFC 1035 section 2.3.4). What is longer is no program's own.
const longest = 255

// mark is one sign by which a program is known: of what it says in IMAP ID, or of
// its EHLO. All that is given must fit; the case of letters means nothing.
type mark struct {
	ID      string   `yaml:"id"`         // field name of IMAP ID; with a * at its end, how that begins
	OS      string   `yaml:"os"`         // how its field os begins
	Hello   string   `yaml:"hello"`      // argument of EHLO; with a * at one end, how that begins or ends
	Hex     int      `yaml:"hex"`        // what the * stands for is so many hexadecimal digits or more, and nothing else
	Form    form     `yaml:"form"`       // what kind of argument it is
	Mech    []string `yaml:"mechanisms"` // it is one of these, or not known
	Program string   `yaml:"program"`    // what to call it
	Version string   `yaml:"version"`    // field of IMAP ID whose first number follows that name
}

// form is a kind of EHLO argument.
type form string

const (
	private  form = "private"  // the literal of an address in somebody's home; or any of version 6, after IPV6 in capitals
	loopback form = "loopback" // the literal of an address of the machine itself
	windows  form = "windows"  // as Windows names computers: no dot, up to 15 capitals, digits and hyphens
)

func (form) Values() []string { return []string{string(private), string(loopback), string(windows)} }

func (m *mark) check() error {
	switch {
	case m.ID == "" && m.Hello == "" && m.Form == "":
		return fmt.Errorf("it has none of id, hello and form")
	case m.ID != "" && (m.Hello != "" || m.Form != "" || m.Mech != nil || m.Program == ""):
		return fmt.Errorf("id %s: it goes with program, and not with hello, form or mechanisms", m.ID)
	case m.ID == "" && (m.OS != "" || m.Version != ""):
		return fmt.Errorf("os and version are fields of IMAP ID, so they go with id")
	case m.Hex > 0 && !strings.HasSuffix(m.Hello, "*"):
		return fmt.Errorf("hex goes with a hello that ends in *")
	case m.Form != "" && !slices.Contains(m.Form.Values(), string(m.Form)):
		return fmt.Errorf("there is no form %q: %s", m.Form, policy.Suggest(string(m.Form), m.Form.Values()))
	}
	for _, s := range []string{m.ID, m.Hello} {
		if strings.Contains(strings.Trim(s, "*"), "*") || s == "*" {
			return fmt.Errorf("%s: a * stands at one end, beside something", s)
		}
	}
	return nil
}

// Classify guesses which program a client is, by what it said of itself: the fields of IMAP
// ID, or the argument of EHLO with the mechanism, each empty where there is none. The
// second result is the program's name, with its major version where that is known. It is
// empty where the class is [Unknown], or where nothing but the class is known.
func Classify(protocol string, clientID map[string]string, hello, mechanism string) (Class, string) {
	name, os := bounded(clientID["name"]), bounded(clientID["os"])
	if protocol != submission {
		hello = ""
	}
	hello = bounded(hello)
	for _, k := range known().Classes {
		for i := range k.KnownBy {
			if m := &k.KnownBy[i]; m.fits(name, os, hello, mechanism) {
				return k.Class, m.called(clientID)
			}
		}
	}
	return Unknown, ""
}

// bounded leaves out what is too long to be a program's.
func bounded(s string) string {
	if len(s) > longest {
		return ""
	}
	return strings.TrimSpace(s)
}

func (m *mark) fits(name, os, hello, mechanism string) bool {
	if m.ID != "" {
		_, ok := matches(m.ID, name)
		return ok && hasPrefix(os, m.OS)
	}
	if hello == "" || m.Mech != nil && mechanism != "" && !slices.Contains(m.Mech, mechanism) || m.Form != "" && !m.Form.fits(hello) {
		return false
	}
	if m.Hello == "" {
		return true
	}
	rest, ok := matches(m.Hello, hello)
	return ok && (m.Hex == 0 || len(rest) >= m.Hex && strings.Trim(strings.ToLower(rest), "0123456789abcdef") == "")
}

// matches holds a string against a pattern, and returns what the * stands for.
func matches(pattern, s string) (rest string, ok bool) {
	if begin, is := strings.CutSuffix(pattern, "*"); is {
		return s[min(len(begin), len(s)):], hasPrefix(s, begin)
	}
	if end, is := strings.CutPrefix(pattern, "*"); is {
		cut := max(0, len(s)-len(end))
		return s[:cut], strings.EqualFold(s[cut:], end)
	}
	return "", strings.EqualFold(pattern, s)
}

func hasPrefix(s, prefix string) bool {
	return len(s) >= len(prefix) && strings.EqualFold(s[:len(prefix)], prefix)
}

// called is the program's name and major version.
func (m *mark) called(clientID map[string]string) string {
	version := clientID[m.Version]
	if len(version) > longest {
		return m.Program
	}
	digits := len(version) - len(strings.TrimLeft(version, "0123456789"))
	if digits == 0 || digits > 3 || version[0] == '0' {
		return m.Program
	}
	return m.Program + " " + version[:digits]
}

func (f form) fits(hello string) bool {
	if f == windows {
		return len(hello) <= 15 && strings.Trim(hello, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-") == "" &&
			strings.ContainsAny(hello, "ABCDEFGHIJKLMNOPQRSTUVWXYZ")
	}
	inner, opened := strings.CutPrefix(hello, "[")
	inner, closed := strings.CutSuffix(inner, "]")
	if !opened || !closed {
		return false
	}
	six, shouted := strings.CutPrefix(inner, "IPV6:") // RFC 5321 section 4.1.3 writes IPv6, Thunderbird does not
	ip, err := netip.ParseAddr(six)
	if err != nil || ip.IsLoopback() {
		return err == nil && f == loopback
	}
	return f == private && (shouted || ip.IsPrivate() || ip.IsLinkLocalUnicast())
}
