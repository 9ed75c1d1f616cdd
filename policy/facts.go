package policy

// Facts and what is compared with them.

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Fact names one thing that can be known of a session. The names are those of
// the policy file and, where an event carries the fact, of the event.
type Fact uint8

const (
	Brand       Fact = iota // set of host names and texts
	Protocol                // imap, pop3, submission
	Port                    // of the listener, decimal
	Listener                // name of the listener
	Entry                   // plain, starttls, implicit
	TLS                     // none, 1.0, 1.1, 1.2, 1.3
	CipherClass             // modern, legacy
	SNI                     // server name asked for, lower case; absent
	Host                    // canonical, other_service, legacy, unknown, absent
	Mech                    // SASL mechanism, upper case; USERPASS
	UserForm                // bare, address
	Account                 // mailbox name
	Domain                  // of the account
	Client                  // software, from IMAP ID or EHLO
	Ledger                  // clean, open, fixed, exempt: what is known of the account over time
	Verified                // yes: the backend accepted the login
	factCount
)

var factNames = [factCount]string{
	"brand", "protocol", "port", "listener", "entry", "tls", "cipher_class", "sni", "host",
	"mechanism", "user_form", "account", "domain", "client", "ledger", "verified",
}

// String returns the fact's name in the policy file.
func (f Fact) String() string { return factNames[f] }

// Values that several facts share, or that the engine and policy must spell alike.
const (
	None = "none" // TLS: in the clear

	EntryPlain    = "plain"
	EntryStartTLS = "starttls"
	EntryImplicit = "implicit"

	Canonical    = "canonical"     // Host: a name that customers shall use for this protocol
	OtherService = "other_service" // Host: canonical, but for another protocol
	Legacy       = "legacy"        // Host: an old name, listed as such
	Unknown      = "unknown"       // Host: a name nobody listed
	Absent       = "absent"        // Host and SNI: the client sent no name

	Modern        = "modern" // CipherClass: forward secrecy and AEAD
	LegacyCiphers = "legacy" // CipherClass: anything else

	UserPass = "USERPASS" // Mech: POP3 USER and PASS, the IMAP LOGIN command

	Clean  = "clean"  // Ledger: seen for as long as the longest ratchet asks, of late too, and in that time certainly without a finding
	Open   = "open"   // Ledger: there is a finding
	Fixed  = "fixed"  // Ledger: there was one
	Exempt = "exempt" // Ledger: somebody decided so

	Yes = "yes" // Verified
	No  = "no"  // Verified: in a file's statements and tests; a session leaves it unknown
)

// tlsVersions in their order, which comparisons follow. None is the lowest, so
// that "<1.2" means everything that is not good enough.
var tlsVersions = []string{None, "1.0", "1.1", "1.2", "1.3"}

// mechanisms that clients are met with (IANA's registry of SASL mechanisms), and
// what the engine calls all the rest: a stranger may send any word.
var mechanisms = []string{"PLAIN", "LOGIN", UserPass, "XOAUTH2", "OAUTHBEARER", "APOP", "CRAM-MD5", "DIGEST-MD5", "NTLM",
	"GSSAPI", "GSS-SPNEGO", "KERBEROS_V4", "EXTERNAL", "ANONYMOUS", "SCRAM-SHA-1", "SCRAM-SHA-1-PLUS", "SCRAM-SHA-256",
	"SCRAM-SHA-256-PLUS", "SCRAM-SHA-512", "SCRAM-SHA-512-PLUS", "SKEY", "OTP", "SECURID", "XYMPKI", "XYMCOOKIE", "XOAUTH",
	"MSN", otherMech}

const otherMech = "other"

// KnownMech is a mechanism's name as a fact: itself where clients are met with it, and
// "other" for the rest, since a stranger may send any word, a password too, and facts
// become events and labels.
func KnownMech(name string) string {
	if slices.Contains(mechanisms, name) {
		return name
	}
	return otherMech
}

// domains are the values of the facts that have no others.
var domains = [factCount][]string{
	Protocol:    {"imap", "pop3", "submission"},
	Entry:       {EntryPlain, EntryStartTLS, EntryImplicit},
	TLS:         tlsVersions,
	CipherClass: {Modern, LegacyCiphers},
	Host:        {Canonical, OtherService, Legacy, Unknown, Absent},
	Mech:        mechanisms,
	UserForm:    {"bare", "address"},
	Ledger:      {Clean, Open, Fixed, Exempt},
	Verified:    {Yes, No},
}

// Facts are what is known of a session so far. An empty value is a fact not
// known yet. The zero Facts know nothing.
type Facts struct {
	values [factCount]string
	IP     netip.Addr // the client's; networks are matched against it
}

// Get returns a fact's value, empty while it is unknown.
func (f *Facts) Get(fact Fact) string { return f.values[fact] }

// Set makes a fact known.
func (f *Facts) Set(fact Fact, value string) { f.values[fact] = value }

// Forget makes facts unknown again: a client that starts TLS begins anew.
func (f *Facts) Forget(facts ...Fact) {
	for _, fact := range facts {
		f.values[fact] = ""
	}
}

// truth is three-valued.
type truth uint8

const (
	unknown truth = iota
	no
	yes
)

// Term compares one fact, or the client's address, with a list of values. Its
// members are alternatives.
type Term struct {
	Fact     Fact
	Not      bool           // true where the fact, or the address, is none of them
	Values   []string       // for a fact
	Networks []netip.Prefix // for the address; Fact and Values are then unused

	index map[string]struct{} // the values, where they are many
}

// manyValues is where a map is quicker than looking at each.
const manyValues = 16

// prepare makes a term quick.
func (t *Term) prepare() {
	if len(t.Values) > manyValues {
		t.index = make(map[string]struct{}, len(t.Values))
		for _, v := range t.Values {
			t.index[v] = struct{}{}
		}
	}
}

func (t *Term) match(f *Facts) truth {
	var in bool
	if t.Networks != nil {
		if !f.IP.IsValid() {
			return unknown
		}
		ip := f.IP.Unmap().WithZone("")
		for _, n := range t.Networks {
			in = in || n.Contains(ip)
		}
	} else {
		value := f.values[t.Fact]
		if value == "" {
			return unknown
		}
		in = t.has(value)
	}
	if in != t.Not {
		return yes
	}
	return no
}

// has reports whether a value is listed.
func (t *Term) has(value string) bool {
	if t.index != nil {
		_, in := t.index[value]
		return in
	}
	return slices.Contains(t.Values, value)
}

// mostTold is how many values of a list are told in a sentence.
const mostTold = 8

// text says in words what a term asks for.
func (t *Term) text() string {
	name, values := t.listed()
	verb := " is "
	if t.Not {
		verb = " is not "
	}
	last := len(values) - 1
	switch {
	case last < 1:
		return name + verb + strings.Join(values, "")
	case len(values) > mostTold:
		return name + verb + strings.Join(values[:mostTold], ", ") + fmt.Sprintf(" or one of %d more", len(values)-mostTold)
	}
	return name + verb + strings.Join(values[:last], ", ") + " or " + values[last]
}

// key is the same for terms that say the same, and for no others.
func (t *Term) key() string {
	name, values := t.listed()
	return fmt.Sprintf("%s %t %q", name, t.Not, values)
}

// listed returns what is compared, and with what, in one order whatever that of the file.
func (t *Term) listed() (name string, values []string) {
	if t.Networks == nil {
		values = slices.Sorted(slices.Values(t.Values))
		if t.Fact == TLS {
			slices.SortStableFunc(values, func(a, b string) int {
				return slices.Index(tlsVersions, a) - slices.Index(tlsVersions, b)
			})
		}
		return t.Fact.String(), slices.Compact(values)
	}
	for _, n := range t.Networks {
		values = append(values, n.String())
	}
	slices.Sort(values)
	return "ip", slices.Compact(values)
}

// Matcher is a conjunction of terms. The empty Matcher is true of every session.
type Matcher []Term

// match is false as soon as one term is false, and unknown as long as one is.
func (m Matcher) match(f *Facts) truth {
	result := yes
	for i := range m {
		switch m[i].match(f) {
		case no:
			return no
		case unknown:
			result = unknown
		}
	}
	return result
}

// prepared is a copy whose terms are quick, in an order of its own.
func (m Matcher) prepared() Matcher {
	m = slices.Clone(m)
	for i := range m {
		m[i].prepare()
	}
	slices.SortFunc(m, func(a, b Term) int { return strings.Compare(a.key(), b.key()) })
	return m
}

// text says in words what a matcher asks for.
func (m Matcher) text() string { return m.join((*Term).text, " and ") }

// key is the same for matchers that say the same, and for no others.
func (m Matcher) key() string { return m.join((*Term).key, "; ") }

func (m Matcher) join(say func(*Term) string, between string) string {
	terms := make([]string, len(m))
	for i := range m {
		terms[i] = say(&m[i])
	}
	return strings.Join(terms, between)
}
