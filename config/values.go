package config

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"math"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"mailreeve/certs"
)

// Protocol is what a listener speaks.
type Protocol string

// The protocols: IMAP (RFC 9051, RFC 3501), POP3 (RFC 1939), message submission (RFC 6409).
const (
	IMAP       Protocol = "imap"
	POP3       Protocol = "pop3"
	Submission Protocol = "submission"
)

// Protocols are all protocols, in the order in which they are told.
var Protocols = []Protocol{IMAP, POP3, Submission}

// Values lists the protocols.
func (Protocol) Values() []string { return []string{"imap", "pop3", "submission"} }

// The ways to TLS: never, after a command (RFC 2595, RFC 3207), or from the first byte (RFC
// 8314 section 3). They have no type because [ListenerTLS] and [BackendTLS] share them.
const (
	Off      = "off"
	STARTTLS = "starttls"
	Implicit = "implicit"
)

// ListenerTLS says when encryption begins with a client; there is no [Off].
type ListenerTLS string

// Values lists the ways to TLS for a listener.
func (ListenerTLS) Values() []string { return []string{STARTTLS, Implicit} }

// BackendTLS says when encryption begins with a backend.
type BackendTLS string

// Values lists the ways to TLS for a backend.
func (BackendTLS) Values() []string { return []string{Off, STARTTLS, Implicit} }

// WrongPort says what happens to a client that begins TLS at once on a port for STARTTLS.
type WrongPort string

// Serve it as on the port for implicit TLS, or turn it off.
const (
	WrongPortServe WrongPort = "serve"
	WrongPortOff   WrongPort = "off"
)

// Values lists what can happen.
func (WrongPort) Values() []string { return []string{"serve", "off"} }

// LegacyCertificates says which certificate is shown under an old host name.
type LegacyCertificates string

// That of the canonical name, or one of the old name's own.
const (
	LegacyCanonical LegacyCertificates = "canonical"
	LegacyOwn       LegacyCertificates = "own"
)

// Values lists the choices.
func (LegacyCertificates) Values() []string { return []string{"canonical", "own"} }

// UnknownNames says what is shown under a host name of no brand.
type UnknownNames string

// The certificate of the canonical name, one of the name's own, or none: the alert
// unrecognized_name (RFC 6066 section 3).
const (
	UnknownCanonical UnknownNames = "canonical"
	UnknownOwn       UnknownNames = "own"
	UnknownAlert     UnknownNames = "alert"
)

// Values lists the choices.
func (UnknownNames) Values() []string { return []string{"canonical", "own", "alert"} }

// Language is the language of a brand's refusals.
type Language string

// The languages in which texts exist.
const (
	German  Language = "de"
	English Language = "en"
)

// Values lists the languages.
func (Language) Values() []string { return []string{"de", "en"} }

// Verify says how a backend proves what it is.
type Verify string

// The proofs. VerifyFull asks for a chain to a trusted root and the right name, and, if
// there are pins, for one of the pins as well. VerifyPins asks for one of the pins and
// nothing else, so it suits self-signed certificates. VerifyNone asks for nothing.
const (
	VerifyFull Verify = "full"
	VerifyPins Verify = "pins"
	VerifyNone Verify = "none"
)

// Values lists the proofs.
func (Verify) Values() []string { return []string{"full", "pins", "none"} }

// Forward is a way to tell the backend where the client is.
type Forward string

// The ways: the PROXY header version 2 before all else; the IMAP command ID (RFC 2971) with
// Dovecot's x-originating-ip and others; the command XCLIENT of Postfix, which Dovecot
// takes in POP3 as well.
const (
	ForwardProxy   Forward = "proxy"
	ForwardID      Forward = "id"
	ForwardXCLIENT Forward = "xclient"
)

// Values lists the ways.
func (Forward) Values() []string { return []string{"proxy", "id", "xclient"} }

// Level is the least severe kind of message that the operators' log takes.
type Level string

// The levels, from the wordiest.
const (
	LevelDebug Level = "debug"
	LevelInfo  Level = "info"
	LevelWarn  Level = "warn"
	LevelError Level = "error"
)

// Values lists the levels.
func (Level) Values() []string { return []string{"debug", "info", "warn", "error"} }

// Format is the form of the operators' log.
type Format string

// Lines for people, or JSON.
const (
	FormatConsole Format = "console"
	FormatJSON    Format = "json"
)

// Values lists the formats.
func (Format) Values() []string { return []string{"console", "json"} }

// Size is a number of bytes, written with B, KiB, MiB or GiB.
type Size int

// UnmarshalText reads a size.
func (s *Size) UnmarshalText(text []byte) error {
	digits := strings.TrimRight(string(text), "BKMGi")
	var unit int64
	switch string(text)[len(digits):] {
	case "", "B":
		unit = 1
	case "KiB":
		unit = 1 << 10
	case "MiB":
		unit = 1 << 20
	case "GiB":
		unit = 1 << 30
	}
	n, err := strconv.ParseUint(digits, 10, 31)
	if err != nil || unit == 0 || int64(n) > math.MaxInt/unit {
		return wrong{quote(string(text)) + " is not a size", "write a number with B, KiB, MiB or GiB, like 8KiB"}
	}
	*s = Size(int64(n) * unit)
	return nil
}

// JSONSchema describes how a size is written.
func (Size) JSONSchema() map[string]any {
	return map[string]any{"type": []string{"string", "integer"}, "pattern": "^[0-9]+([KMG]i)?B?$", "minimum": 0}
}

// Port is a TCP port.
type Port int

// UnmarshalText takes a number from 1 to 65535.
func (p *Port) UnmarshalText(text []byte) error {
	n, err := strconv.ParseUint(string(text), 10, 16)
	if err != nil || n == 0 {
		return wrong{quote(string(text)) + " is no port", "write a number from 1 to 65535"}
	}
	*p = Port(n)
	return nil
}

// JSONSchema describes how a port is written.
func (Port) JSONSchema() map[string]any {
	return map[string]any{"type": "integer", "minimum": 1, "maximum": 65535}
}

// Name is what brands and listeners are called in events and policies: letters, digits,
// dots, dashes and underscores.
type Name string

// UnmarshalText reads a name.
func (n *Name) UnmarshalText(text []byte) error {
	const most = 63 // as a label of the DNS, so it fits wherever one does
	if len(text) == 0 || len(text) > most || strings.Trim(strings.ToLower(string(text)), "abcdefghijklmnopqrstuvwxyz0123456789.-_") != "" {
		return wrong{quote(string(text)) + " is not a name",
			"write 1 to 63 of letters, digits, dots, dashes and underscores"}
	}
	*n = Name(text)
	return nil
}

// Host is a host name in lower case without final dot (RFC 1123 section 2.1). Names outside
// ASCII are written in their ASCII form (RFC 5890 section 2.3.2.1), as they are on the
// wire. The last label is not a number (RFC 3696 section 2).
type Host string

// UnmarshalText reads a host name.
func (h *Host) UnmarshalText(text []byte) error {
	name := certs.Fold(string(text))
	if _, err := netip.ParseAddr(name); err == nil {
		return wrong{quote(string(text)) + " is an address, not a host name", "write the name that customers are told"}
	}
	bad := wrong{quote(string(text)) + " is not a host name",
		"write one like imap.example.org; its letters outside ASCII as xn--..."}
	if len(name) > 253 {
		return bad
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' ||
			strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
			return bad
		}
	}
	if strings.Trim(name[strings.LastIndexByte(name, '.')+1:], "0123456789") == "" { // a mistyped address
		return bad
	}
	*h = Host(name)
	return nil
}

// Pattern is a host name; or *.suffix for every name that ends in .suffix, however many
// labels it has in front; or label.* for every name that begins with label. and goes on.
type Pattern string

// UnmarshalText reads a pattern.
func (p *Pattern) UnmarshalText(text []byte) error {
	before, after, name := "", "", certs.Fold(string(text))
	if suffix, ok := strings.CutPrefix(name, "*."); ok {
		before, name = "*.", suffix
	} else if label, ok := strings.CutSuffix(name, ".*"); ok && !strings.Contains(label, ".") {
		name, after = label, ".*"
	}
	var h Host
	if err := h.UnmarshalText([]byte(name)); err != nil || string(h) != name {
		return wrong{quote(string(text)) + " is not a host name, *.suffix or label.*",
			"write one like imap.example.org, *.example.org or imap.*"}
	}
	*p = Pattern(before + name + after)
	return nil
}

// Exact says whether the pattern is one whole name.
func (p Pattern) Exact() bool { return !strings.Contains(string(p), "*") }

// Address is a host and a port.
type Address struct {
	Host string // a name or an IP address; empty for all addresses of this machine
	Port int    // 0 to 65535
}

// UnmarshalText reads host:port, with brackets around an IPv6 address.
func (a *Address) UnmarshalText(text []byte) error {
	bad := wrong{quote(string(text)) + " is not an address with a port",
		`write one like "10.0.0.5:143", "[2001:db8::5]:143" or ":143"`}
	host, port, err := net.SplitHostPort(string(text))
	if err != nil {
		return bad
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return bad
	}
	if _, err := netip.ParseAddr(host); err != nil && host != "" {
		var name Host
		if err := name.UnmarshalText([]byte(host)); err != nil {
			return bad
		}
		host = string(name)
	}
	*a = Address{Host: host, Port: int(n)}
	return nil
}

// String is the form that package net takes.
func (a Address) String() string { return net.JoinHostPort(a.Host, strconv.Itoa(a.Port)) }

// IP is the address, if the host is one and not a name.
func (a Address) IP() (netip.Addr, bool) {
	ip, err := netip.ParseAddr(a.Host)
	return ip.Unmap(), err == nil
}

// Pin is the SHA-256 of a certificate's SubjectPublicKeyInfo (RFC 7469 section 2.4),
// written sha256/ and base64. It stays the same when a certificate is renewed with its key.
type Pin [sha256.Size]byte

// PinOf is the pin of a certificate.
func PinOf(c *x509.Certificate) Pin { return sha256.Sum256(c.RawSubjectPublicKeyInfo) }

// UnmarshalText reads a pin.
func (p *Pin) UnmarshalText(text []byte) error {
	encoded, ok := strings.CutPrefix(string(text), "sha256/")
	raw, err := base64.StdEncoding.Strict().DecodeString(encoded)
	if !ok || err != nil || len(raw) != len(p) {
		return wrong{quote(string(text)) + " is not a pin", "write sha256/ and 44 characters of base64"}
	}
	*p = Pin(raw)
	return nil
}

// String is the form in the file.
func (p Pin) String() string { return "sha256/" + base64.StdEncoding.EncodeToString(p[:]) }

// HelpURL is the address of a help page, short enough to be read out and to fit into a
// reply of every protocol.
type HelpURL string

// maxHelp leaves room for a sentence before the address. A reply line of POP3 or SMTP has
// 512 bytes (RFC 1939 section 3, RFC 5321 section 4.5.3.1.5), but mail programs show less
// of it.
const maxHelp = 60

// UnmarshalText reads the address of a help page.
func (u *HelpURL) UnmarshalText(text []byte) error {
	s := string(text)
	for _, r := range s {
		if r <= ' ' || r >= 0x7f {
			return wrong{quote(s) + " has characters that not every mail program shows",
				"write it in ASCII without spaces"}
		}
	}
	if len(s) > maxHelp {
		return wrong{fmt.Sprintf("%d characters are too many", len(s)),
			fmt.Sprintf("write a short address that redirects, of at most %d", maxHelp)}
	}
	if parsed, err := url.Parse(s); err != nil || parsed.Scheme != "https" || parsed.Hostname() == "" || parsed.User != nil {
		return wrong{quote(s) + " is not the address of a secure page", "write one like https://help.example.org/mail"}
	}
	*u = HelpURL(s)
	return nil
}

// Email is the address of a person: local part and host name, in ASCII.
type Email string

// UnmarshalText reads an address. Quoted local parts (RFC 5321 section 4.1.2) are not taken.
func (e *Email) UnmarshalText(text []byte) error {
	local, domain, ok := strings.Cut(string(text), "@")
	var h Host
	const atext = "abcdefghijklmnopqrstuvwxyz0123456789!#$%&'*+-/=?^_`{|}~."
	if !ok || local == "" || len(local) > 64 || strings.Trim(strings.ToLower(local), atext) != "" ||
		h.UnmarshalText([]byte(domain)) != nil || !strings.Contains(string(h), ".") {
		return wrong{quote(string(text)) + " is not a mail address", "write one like hostmaster@example.org"}
	}
	*e = Email(local + "@" + string(h))
	return nil
}

// DirectoryURL is the address of an ACME directory. It is https (RFC 8555 section 6.1).
type DirectoryURL string

// UnmarshalText reads the address of a directory.
func (u *DirectoryURL) UnmarshalText(text []byte) error {
	parsed, err := parseURL(string(text))
	if err != nil || parsed.Scheme != "https" {
		return wrong{quote(string(text)) + " is not the https address of an ACME directory",
			"write the one that the CA tells, like https://acme-v02.api.letsencrypt.org/directory"}
	}
	*u = DirectoryURL(text)
	return nil
}

// Host is the host of the address.
func (u DirectoryURL) Host() string { return hostOf(string(u)) }

// LookupURL is the address of a service that knows names. What it says decides what is
// ordered, so it is https, or stands on this machine or at a private address.
type LookupURL string

// UnmarshalText reads the address of a lookup.
func (u *LookupURL) UnmarshalText(text []byte) error {
	parsed, err := parseURL(string(text))
	if err != nil || parsed.Scheme != "https" && parsed.Scheme != "http" || parsed.RawQuery != "" || parsed.ForceQuery {
		return wrong{quote(string(text)) + " is not the address of a service",
			"write one like https://customers.internal/mail-name; ?name= is added to it"}
	}
	if parsed.Scheme == "http" && !isInside(Address{Host: parsed.Hostname()}) {
		return wrong{quote(string(text)) + " could be answered by somebody on the way", "write https, or a private IP address"}
	}
	*u = LookupURL(text)
	return nil
}

// Host is the host of the address.
func (u LookupURL) Host() string { return hostOf(string(u)) }

// parseURL reads an address with a host, and without what nobody would look at.
func parseURL(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	if err == nil && (u.Hostname() == "" || u.User != nil || u.Fragment != "" || strings.Trim(s, "\t\r\n ") != s) {
		err = wrong{message: "not a plain address"}
	}
	return u, err
}

func hostOf(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	return u.Hostname()
}

// PageText is what a help page says in a provider's own words.
type PageText string

// maxPage is a screen or two: the page is to be read by somebody whose mail does not work.
const maxPage = 4000

// UnmarshalText reads the text of a page.
func (p *PageText) UnmarshalText(text []byte) error {
	s := strings.TrimSpace(string(text))
	if n := utf8.RuneCountInString(s); n > maxPage {
		return wrong{fmt.Sprintf("%d characters are too many", n), fmt.Sprintf("write at most %d; the rest belongs on the help page", maxPage)}
	}
	if i := strings.IndexFunc(s, func(r rune) bool { return r != '\n' && !unicode.IsPrint(r) && r != '\u00ad' && r != '\u00a0' }); i >= 0 {
		return wrong{"it has a character that cannot be shown: " + strconv.QuoteToASCII(string([]rune(s[i:])[:1])), "leave it out"}
	}
	*p = PageText(s)
	return nil
}
