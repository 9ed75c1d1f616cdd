package proxy

import (
	"cmp"
	"fmt"
	"net/netip"
	"strings"

	"mailreeve/policy"
)

// Front is one protocol: a record without state. The engine is given its
// fronts and never asks which one it has.
type Front struct {
	Name string // in configuration, policy and events: imap, pop3, submission
	Word string // what customers and their programs call the protocol: IMAP, POP3, SMTP
	ALPN string // the only application protocol accepted where a client names any (RFC 7301; ALPACA)
	Port int    // of implicit TLS, told to customers (RFC 8314 section 7)

	// RefuseEarly is set where a refusal is best told before the password even over
	// TLS: no POP3 client shows the text of a refused PASS.
	RefuseEarly bool

	// OutageEarly is set where an outage is best told in place of the greeting: the
	// protocol's programs take any failure of the login for a wrong password.
	OutageEarly bool

	// Warns is set where the protocol can show a warning beside a login.
	Warns bool

	// Room is how many characters programs show of a refusal and of the account's
	// name, which they put before it; 0: all of them.
	Room int

	// Mark is what a SASL challenge stands behind.
	Mark string

	// Goodbye is what an idle relayed client is told when the proxy shuts
	// down; empty where the protocol has no word for it.
	Goodbye string

	// Open begins a dialogue with a client. It writes nothing yet.
	Open func(*Wire, Advert, Limits) Dialogue

	// Dial begins a conversation with a backend. It writes nothing yet. The
	// wire has its deadline already.
	Dial func(*Wire, Origin) Peer

	// Watch begins to read along what the client says after its login; nil where
	// nothing of it matters. What it returns is called by whoever carries the
	// bytes, one call at a time, before they go on; it must not block, must neither
	// change nor keep them, and returns true when it has seen enough. It calls
	// found with an IMAP ID.
	Watch func(found func(map[string]string)) func([]byte) (done bool)
}

// Dialogue talks to one client up to its login. It decides nothing: it turns
// bytes into Requests and refusals into bytes of its protocol. One goroutine uses
// it; it may block, and does not close the wire. After an error only Bye and
// Client are called.
type Dialogue interface {
	// Greet writes the greeting.
	Greet() error

	// Next reads one command. A harmless one it answers itself, and returns no
	// Request: its Kind is 0. When the client leaves, politely or not, the error
	// is the connection's, or an [*Ending] that says more, like [Quit].
	Next() (Request, error)

	// Credential goes on with a Chosen request that was not refused: it reads the
	// credential and returns a Login, or no Request where it has answered the
	// client instead.
	Credential() (Request, error)

	// Abort answers a Chosen request whose credential never came: why is
	// ErrCancelled or ErrMalformed. It counts as a wrong command.
	Abort(r Request, why error) error

	// Refuse answers the request last returned; the dialogue goes on.
	Refuse(Request, Refusal) error

	// Accept answers the request last returned: to StartTLS with the
	// go-ahead, to Login with the backend's own reply, the last line before
	// the relay. A warning is a sentence to show beside it, where the protocol
	// has a way; elsewhere, and where it is empty, nothing is shown.
	Accept(req Request, reply Reply, warning string) error

	// Upgrade says that TLS is up. Everything heard in clear is forgotten.
	Upgrade(Advert)

	// Bye says why the connection ends, in place of the greeting too. Where the
	// protocol has no word for it, it says nothing.
	Bye(Refusal) error

	// Client returns what the client said of itself so far.
	Client() Software
}

// Peer speaks as a client on a backend's wire: its steps in this order, of
// StartTLS, Offer and Login those that are wanted. One goroutine uses it; it may
// block until the wire's deadline, and does not close the wire. An error is about
// the backend, never the customer, but for a [*Rejection] from Login.
type Peer interface {
	// Greeting reads the backend's greeting.
	Greeting() error
	// StartTLS asks for TLS; nil means that the handshake may begin. What was
	// learnt before it is then forgotten.
	StartTLS() error
	// Offer asks what the backend offers.
	Offer() (Offer, error)
	// Login forwards facts and logs in. The reply is for the client. With
	// Request.Through it passes an exchange, and an error of that comes back.
	Login(Request) (Reply, error)
	// Quit takes leave of a backend that is not needed further, without waiting
	// for the answer.
	Quit()
}

// Offer is what a backend offers to whom has not logged in yet.
type Offer struct {
	Mechs      []string // SASL mechanisms, upper case, and APOP
	Extensions []string // lines as the backend says them: EHLO keywords, CAPA lines, capabilities
}

// Origin is what the backend is told of the session.
type Origin struct {
	Hostname string // the proxy's own
	Session  string
	Client   netip.AddrPort
	Server   netip.AddrPort // that the client dialled
	TLS      string         // version, empty in clear
	Cipher   string
	SNI      string // a valid DNS name, or empty
	Software Software
	Forward  bool    // send it in the protocol's own way: ID, XCLIENT
	Header   bool    // a PROXY header has told the address already
	Master   *Master // log in as this user on the customer's behalf; nil: as the customer
}

// TTL is how many proxies a login may still pass, for backends that count them
// against loops: Dovecot begins at 7, and this is one.
const TTL = 6

// Transport is how Dovecot and Postfix have the client's way to us named.
func (o Origin) Transport() string {
	if o.TLS != "" {
		return "TLS"
	}
	return "insecure"
}

// Master is a user of the backend that may log in as any other (SASL authzid,
// RFC 4616 section 2).
type Master struct {
	User   string
	Secret Secret
}

// Format hides the secret where fmt, at odds with a verb, would ask the struct
// around it and not the secret itself.
func (m Master) Format(s fmt.State, _ rune) { fmt.Fprintf(s, "master user %q", m.User) }

// Software is what a client said of itself.
type Software struct {
	ID    map[string]string // IMAP ID
	Hello string            // argument of EHLO or HELO
}

// name is what to call it: name and version, or what it greets with.
func (s Software) name() string {
	return cmp.Or(strings.TrimSpace(s.ID["name"]+" "+s.ID["version"]), s.Hello)
}

// Kind is what a request wants.
type Kind uint8

const (
	// StartTLS: the client asked for TLS and waits for the go-ahead.
	StartTLS Kind = iota + 1
	// Chosen: the client has named a mechanism, or wants in without any; its
	// credential was not read yet, or lies undecoded in the dialogue.
	Chosen
	// Login: the credential is complete.
	Login
)

// Request is what only the engine may decide.
type Request struct {
	Kind    Kind
	Token   string // the front's own; in IMAP the tag, used on the backend too
	Mech    string // upper case, or policy.UserPass; empty: no login was tried
	User    string
	Authzid string // authorization identity, where one was given
	Secret  Secret // the password, or a bearer mechanism's whole response
	Exposed bool   // with Chosen: the client has sent a secret already
	Warned  bool   // with StartTLS: the client asked in clear for what tells it Advert.Refusal
	Initial Secret // with Chosen: the response on the command line as it came, "" for none; of APOP its arguments

	// Through is set where the exchange passes through to the client. Initial is
	// then the first response, where there is one.
	Through Responder
}

// Responder takes a backend's challenge, as it came, and returns the client's
// response, as it came: "*" too, to give up. It bounds the exchange.
type Responder interface {
	Respond(challenge string) (Secret, error)
}

// Secret is a password or a token. It prints as ***.
type Secret string

// String hides the secret.
func (Secret) String() string { return "***" }

// GoString hides the secret.
func (Secret) GoString() string { return "***" }

// Format hides the secret from every verb.
func (Secret) Format(s fmt.State, _ rune) { fmt.Fprint(s, "***") }

// MarshalText hides the secret from encoders.
func (Secret) MarshalText() ([]byte, error) { return []byte("***"), nil }

// Reveal returns the secret, for the backend's wire alone.
func (s Secret) Reveal() string { return string(s) }

// Reply is what the backend said to a login that it took, byte for byte, line ends
// included.
type Reply []byte

// Advert is what a dialogue may offer.
type Advert struct {
	Hostname   string
	Secure     bool     // TLS is up
	Mechs      []string // SASL mechanisms that policy and backend bear
	Password   bool     // USER and PASS, or the LOGIN command, have a chance
	Extensions []string // the backend's own, unfiltered
	Stamp      string   // the backend's timestamp for APOP, or empty

	// Refusal is set where no login can succeed here whatever the account, and
	// the credential had better not be sent: some protocols can say so before
	// one is tried.
	Refusal *Refusal
	// Quiet is set where a client from the same place was Warned lately and went
	// on to STARTTLS: it is not warned again of what it does not do.
	Quiet bool
	// Strict is set where a refusal shall bear the RFCs' own codes (Brand.StrictCodes).
	Strict bool
}

// Class says what kind of refusal it is. Each front has one table, codes, that
// turns it into its protocol's own.
type Class uint8

const (
	PolicyDeny    Class = iota + 1 // a setting must be changed; the password is not wrong
	PolicyTemp                     // the same, for a while
	NeedLogin                      // a command that wants a login first
	BadMech                        // a mechanism that is not known here
	BadCredential                  // the backend says so: wrong user or password
	NoAccess                       // the backend says so: right password, account closed, expired or over a limit
	Unavailable                    // the backend cannot be reached or is not well
	LimitReached                   // too many of something
	Misspoken                      // not this protocol, or too much of it
	TooLate                        // it took too long
	ShuttingDown                   // the proxy ends
	PlainOnTLS                     // plaintext on a port of implicit TLS
)

// refusedWords are the classes that answer a request, in an event's field "refused".
var refusedWords = map[Class]string{
	PolicyDeny: "policy", PolicyTemp: "policy_for_now", NeedLogin: "login_needed", BadMech: "mechanism",
	BadCredential: "credential", NoAccess: "no_access", Unavailable: "unavailable",
}

// Refusal has two faces: Class, Text and Code for the peer, Err for the log.
type Refusal struct {
	Class     Class
	Text      string         // one line, made by CleanText
	Code      string         // the backend's own code, where the front passes it on
	Finding   policy.Finding // of a policy refusal
	Challenge []byte         // a bearer mechanism's error challenge (RFC 7628 section 3.2.2)
	Verified  bool           // the backend has confirmed the credential
	Err       error
}

// Rejection is the backend's answer to a credential it did not take.
type Rejection struct {
	Class     Class  // BadCredential, NoAccess or Unavailable
	Code      string // the protocol's own, from the front's closed list
	Text      string // what the backend said, for the log
	Challenge []byte
}

func (r *Rejection) Error() string {
	return fmt.Sprintf("the backend refused the login: %q", r.Text)
}

// Limits bound what a client may do before its login.
type Limits struct {
	Line        int // bytes of a command line
	Literal     int // bytes of an IMAP literal
	Token       int // bytes of a SASL response line
	Memory      int // bytes of a whole command, literals included
	BadCommands int // wrong commands until the connection ends
	Logins      int // requests refused until it ends
}
