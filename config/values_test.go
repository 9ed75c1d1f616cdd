package config

import (
	"net/netip"
	"testing"

	"mailreeve/certs"
)

func TestPattern(t *testing.T) {
	for text, want := range map[string]Pattern{
		"imap.example.org": "imap.example.org", "Imap.example.org.": "imap.example.org",
		"*.example.org": "*.example.org", "*.Example.org.": "*.example.org",
	} {
		var p Pattern
		if err := p.UnmarshalText([]byte(text)); err != nil || p != want {
			t.Errorf("%s: %q, %v", text, p, err)
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
