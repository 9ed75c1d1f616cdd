package policy

// Facts and what is compared with them.

import "net/netip"

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
	Verified                // yes: the backend accepted the login
	factCount
)

var factNames = [factCount]string{
	"brand", "protocol", "port", "listener", "entry", "tls", "cipher_class", "sni", "host",
	"mechanism", "user_form", "account", "domain", "client", "verified",
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

	Yes = "yes" // Verified
)

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
	Not      bool           // true where the fact is not among the values
	Values   []string       // for a fact
	Networks []netip.Prefix // for the address; Fact and Values are then unused
}

func (t *Term) match(f *Facts) truth {
	var in bool
	if t.Networks != nil {
		if !f.IP.IsValid() {
			return unknown
		}
		for _, n := range t.Networks {
			in = in || n.Contains(f.IP)
		}
	} else {
		value := f.values[t.Fact]
		if value == "" {
			return unknown
		}
		for _, v := range t.Values {
			in = in || v == value
		}
	}
	if in != t.Not {
		return yes
	}
	return no
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
