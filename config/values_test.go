package config

import (
	"net/netip"
	"strings"
	"testing"

	"mailreeve/certs"
)

func TestPattern(t *testing.T) {
	for text, want := range map[string]Pattern{
		"imap.example.org": "imap.example.org", "Imap.example.org.": "imap.example.org",
		"*.example.org": "*.example.org", "*.Example.org.": "*.example.org",
		"imap.*": "imap.*", "IMAP.*": "imap.*", "xn--mil-ina.*": "xn--mil-ina.*",
	} {
		var p Pattern
		if err := p.UnmarshalText([]byte(text)); err != nil || p != want || p.Exact() != (len(text) > 8 && text[0] != '*' && text[len(text)-1] != '*') {
			t.Errorf("%s: %q, %v", text, p, err)
		}
	}
	for _, text := range []string{"", "*", "*.", ".*", "*.*", "a.b.*", "a*", "a*.example.org", "*a.example.org", "imap.*.example.org",
		"*.imap.*", "imap..*", "im ap.*", "-a.*", "*.192.0.2.1", "192.0.2.1", "*.a..", "*.a/b"} {
		var p Pattern
		if err := p.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q: took it for %q", text, p)
		}
	}
}

func TestEmail(t *testing.T) {
	for text, want := range map[string]Email{"hostmaster@Example.ORG": "hostmaster@example.org", "o'neil+ca@a.example": "o'neil+ca@a.example",
		"": "", "@example.org": "", "a": "", "a@": "", "a@localhost": "", "a b@example.org": "", "a@b@example.org": "", "mailto:a@example.org": "",
		"a@example.org\r\nx": "", "Anna <a@example.org>": ""} {
		var e Email
		if err := e.UnmarshalText([]byte(text)); e != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v", text, e, err)
		}
	}
}

func TestAddressesOfServices(t *testing.T) {
	for text, want := range map[string][2]bool{ // as a directory, as a lookup
		"https://ca.example/dir":           {true, true},
		"https://127.0.0.1:14000/dir":      {true, true},
		"https://ca.example/dir?profile=x": {true, false},
		"http://127.0.0.1:8080/names":      {false, true},
		"http://[fd00::1]/names":           {false, true},
		"http://names.internal/":           {false, true},
		"http://ca.example/dir":            {false, false},
		"http://192.0.2.1/dir":             {false, false},
		"https://user:secret@ca.example/":  {false, false},
		"https://ca.example/#x":            {false, false},
		"https:///dir":                     {false, false},
		"ftp://ca.example/":                {false, false},
		"ca.example":                       {false, false},
		"https://ca.example/ ":             {false, false},
		"https://ca.exa\nmple/":            {false, false},
		"":                                 {false, false},
	} {
		var d DirectoryURL
		var l LookupURL
		if got := [2]bool{d.UnmarshalText([]byte(text)) == nil, l.UnmarshalText([]byte(text)) == nil}; got != want {
			t.Errorf("%q: got %v", text, got)
		}
	}
}

func TestPageText(t *testing.T) {
	for text, want := range map[string]bool{"": true, "Grüße aus München: ab 1. Juni\n\ngilt imap.example.org.\n": true, strings.Repeat("ü", maxPage): true,
		strings.Repeat("ü", maxPage+1): false, "a\u202eb": false, "a\tb": false, "a\x00": false, "\ufeffa": false} {
		var p PageText
		if err := p.UnmarshalText([]byte(text)); (err == nil) != want {
			t.Errorf("%.20q: %v", text, err)
		}
	}
}

func TestAddress(t *testing.T) {
	for text, want := range map[string]struct {
		form string
		ip   netip.Addr
	}{
		":993":                    {":993", netip.Addr{}},
		"10.0.0.5:143":            {"10.0.0.5:143", netip.MustParseAddr("10.0.0.5")},
		"[2001:db8::5]:143":       {"[2001:db8::5]:143", netip.MustParseAddr("2001:db8::5")},
		"[::ffff:10.0.0.5]:143":   {"[::ffff:10.0.0.5]:143", netip.MustParseAddr("10.0.0.5")},
		"Dovecot.Internal.:24":    {"dovecot.internal:24", netip.Addr{}},
		"imap.example.org:000143": {"imap.example.org:143", netip.Addr{}},
	} {
		var a Address
		err := a.UnmarshalText([]byte(text))
		ip, ok := a.IP()
		if err != nil || a.String() != want.form || ip != want.ip || ok != want.ip.IsValid() {
			t.Errorf("%s: got %s, %v, %v", text, a, ip, err)
		}
	}
}

func TestPin(t *testing.T) {
	ca, err := certs.NewAuthority("Test authority")
	if err != nil {
		t.Fatal(err)
	}
	first, err := ca.Issue(certs.Order{Hosts: []string{"imap.internal"}})
	if err != nil {
		t.Fatal(err)
	}
	second, err := ca.Issue(certs.Order{Hosts: []string{"imap.internal"}})
	if err != nil {
		t.Fatal(err)
	}
	pin := PinOf(first.Leaf)
	var read Pin
	if err := read.UnmarshalText([]byte(pin.String())); err != nil || read != pin {
		t.Errorf("%s comes back as %s, %v", pin, read, err)
	}
	if pin == PinOf(second.Leaf) {
		t.Error("another key has the same pin")
	}
}

// The known answer is that of openssl for the SHA-256 of nothing.
func TestPinText(t *testing.T) {
	const empty = "sha256/47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
	var p Pin
	if err := p.UnmarshalText([]byte(empty)); err != nil || p[0] != 0xe3 || p[31] != 0x55 || p.String() != empty {
		t.Errorf("got %x, %v", p[:], err)
	}
}
