// Package certs has the certificates, chooses one for each handshake, and has the keys of
// session tickets.
//
// A [Keeper] is what handshakes ask. It has certificates of three sources:
//
//   - files that the configuration names, each a [Pair];
//   - a folder, in which certbot, Kubernetes or a person put them (folder.go);
//   - an [Issuer] for names that no file is for: [ACME], which orders and renews them.
//
// Files and folder are watched. What the Keeper has of them at one moment is a [Store], which
// never changes: RSA, ECDSA or Ed25519, any number for one name. A handshake reads one atomic
// pointer to it and waits for no lock and no disk; only a name whose own certificate may be
// ordered there and then can make its client wait, some seconds (see [Own]).
//
// A client that sends no name, or one that no certificate is for (an address, a name without
// a dot, an old host name), gets what the caller's fallback name would get. What a name means,
// and whether it is refused, is decided elsewhere. RSA certificates are for clients that cannot
// do ECDSA; one of TLS 1.3 alone can, whatever else its hello leaves out.
//
// What was good stays in force until something better is there: a file that is broken, has
// another's key or the wrong dates, an authority that is down, a full disk or a damaged state
// never take a certificate away from customers. Each is told in the log once, with its cure,
// and stands in a [Status] until it is mended; [Status.Trouble] is when it must be loud.
//
// [Tickets] has the keys of session tickets in a file, so that sessions are resumed after a
// restart and at other nodes.
//
// An [Authority] signs certificates on the spot, for the demo and for tests.
//
// # Where to read
//
//	keeper.go     which certificate a handshake gets; watching; what the log is told
//	certs.go      Store: certificates by name and kind of key
//	files.go      reading a pair of PEM files, and what can be wrong with it
//	folder.go     the forms of a folder
//	status.go     Issuer, Status, and the thresholds of trouble
//	acme.go       what to order and when: renewal, back-off, budget
//	order.go      one order, and the checks of what it brings
//	challenge.go  answers to http-01 and tls-alpn-01
//	lookup.go     the question whether a name is one of ours
//	state.go      the directory that nodes may share
//	disk.go       files that are whole at any time
//	tickets.go    session ticket keys
//	authority.go  Authority
//
// # Standards
//
// Names are those of the subjectAltName alone, never the common name (RFC 9525 section 2).
// A wildcard is the whole left-most label and stands for exactly one label (RFC 9525
// section 6.3, before it RFC 6125 section 6.4.3). Names are compared in lower case and
// without the final dot; on the wire and in certificates they are ASCII (RFC 6066 section
// 3, RFC 5280 section 7.2), so there is no Unicode form to fold.
//
// Before TLS 1.3 a client's list of groups also says which curves a certificate may have
// (RFC 8422 section 5.1.1), after it no more (RFC 8446 section 4.2.7).
//
// ACME is RFC 8555 with external account binding (section 7.3.4), the challenges http-01
// (section 8.3) and tls-alpn-01 (RFC 8737). Not done: dns-01 (section 8.4) and so wildcards,
// which ask for rights in the DNS; addresses (RFC 8738), as no customer is told one; renewal
// information (RFC 9773), which the library does not speak.
//
// Session tickets are those of RFC 5077 and of RFC 8446 section 4.6.1, in crypto/tls' form.
//
// # Roads not taken
//
// autocert.Manager, of the library whose ACME client we use, is made for a web site. It has
// no place to learn from why a renewal failed or when it is tried again, and support asks
// just that. It begins to renew with the first handshake for a name, not with the start. A
// handshake without a name, with an address or a name without a dot fails in it, and mail
// programs send all three. It takes a client of TLS 1.3 alone for one without ECDSA. It has no
// deadline but five minutes, no back-off that survives a restart, no budget, no lock between
// nodes, and it keeps a private key for years. Nearly each could be helped from outside; all
// of the help together was longer than doing it.
//
// certmagic does all this, with a store, solvers, OCSP and DNS providers that we would have
// to read and follow. It is the way out should wildcards be needed: [Issuer] is what it would
// have to be.
//
// One certificate with all names saves orders. But one customer's name that no longer leads
// here would then hold up the renewal of all, and each client could read who the others are.
//
// tls.Config.Certificates chooses by name as well, but a client without a name gets the
// first certificate whatever its listener, and GetCertificate is then not called for it, so
// nothing could choose for it.
//
// inotify instead of looking every few seconds: see pollEvery.
//
// An expired certificate does not fail [Load] or [Keeper.Set]: for a mail program that
// already runs, it is no worse than none, and a proxy that refuses to restart is worse than
// both. [Info.Check] judges dates, for those who want to. Once a valid one is in force, it is
// not replaced by one that is not.
package certs

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// ErrNone says that there is no certificate at all.
var ErrNone = errors.New("no certificate is loaded; name one in the configuration")

// Error is what is wrong with one certificate or key file, and what to do about it.
type Error struct {
	File    string // the file to look at
	Message string // what is wrong with it
	Cure    string // what to do
	Err     error  // the cause, if another function told us
}

// Error says file, message, cause and cure in one line.
func (e *Error) Error() string {
	return e.File + ": " + e.Problem() + "; " + e.Cure
}

// Problem is the message with its cause, without file and cure.
func (e *Error) Problem() string {
	if e.Err == nil {
		return e.Message
	}
	return e.Message + ": " + e.Err.Error()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Store holds certificates and finds them by name. It never changes, so it may be used by
// many at once.
type Store struct {
	all    []*entry            // best first, see rank
	byName map[string][]*entry // by folded DNS name, wildcards with their "*."; same order
}

// entry is one certificate with its key.
type entry struct {
	tls  tls.Certificate
	info Info
}

// Info describes one certificate of a [Store].
type Info struct {
	Pair      Pair      // the files it comes from
	Names     []string  // DNS names, folded
	KeyType   KeyType   // of the certificate's own key
	NotBefore time.Time // first moment of validity
	NotAfter  time.Time // last moment of validity

	// Bare: no intermediate authority follows the certificate, though it says
	// where its issuer can be fetched (RFC 5280 section 4.2.2.1), which mail
	// programs do not do.
	Bare bool
}

// dateLayout is how errors write an instant.
const dateLayout = "2006-01-02 15:04 MST"

// Check says whether the certificate is valid at the given time; if not, the error is an [*Error].
func (i Info) Check(at time.Time) error {
	switch {
	case at.After(i.NotAfter):
		return &Error{File: i.Pair.Cert, Message: "certificate expired on " + i.NotAfter.UTC().Format(dateLayout),
			Cure: "renew it"}
	case at.Before(i.NotBefore):
		return &Error{File: i.Pair.Cert, Message: "certificate is not valid before " + i.NotBefore.UTC().Format(dateLayout),
			Cure: "set the clock of this machine, or wait"}
	}
	return nil
}

// KeyType names the kind of a certificate's key. The zero value is ECDSA.
type KeyType int

// The kinds of keys, in the order in which they are preferred: ECDSA signs fastest and
// nearly every client has it, Ed25519 is rarely asked for, RSA is for old clients.
const (
	ECDSA KeyType = iota
	Ed25519
	RSA
)

// String returns the usual spelling.
func (k KeyType) String() string {
	switch k {
	case ECDSA:
		return "ECDSA"
	case Ed25519:
		return "Ed25519"
	case RSA:
		return "RSA"
	}
	return fmt.Sprintf("KeyType(%d)", int(k))
}

// keyType tells the kind of the key in a certificate.
func keyType(c *x509.Certificate) (KeyType, bool) {
	switch c.PublicKey.(type) {
	case *ecdsa.PublicKey:
		return ECDSA, true
	case ed25519.PublicKey:
		return Ed25519, true
	case *rsa.PublicKey:
		return RSA, true
	}
	return 0, false
}

// newStore sorts entries and indexes them.
func newStore(all []*entry) *Store {
	slices.SortStableFunc(all, rank)
	s := &Store{all: all, byName: make(map[string][]*entry)}
	for _, e := range all {
		for _, name := range e.info.Names {
			s.byName[name] = append(s.byName[name], e)
		}
	}
	for name, own := range s.byName {
		if _, rest, _ := strings.Cut(name, "."); rest != "" && !strings.HasPrefix(name, "*.") {
			s.byName[name] = append(own, s.byName["*."+rest]...) // no two names share a slice
		}
	}
	return s
}

// rank puts the preferred kind of key first and, within a kind, the certificate that lasts longest.
func rank(a, b *entry) int {
	if a.info.KeyType != b.info.KeyType {
		return int(a.info.KeyType) - int(b.info.KeyType)
	}
	return b.info.NotAfter.Compare(a.info.NotAfter)
}

// pick chooses one of the certificates, of which there is at least one: the first that the
// client can use, valid ones before those out of date. When it can use none of them it gets
// the first, with which the handshake fails for the true reason: a certificate of another
// name would only hide it. The hello must have no server name.
func pick(nameless *tls.ClientHelloInfo, candidates []*entry) *tls.Certificate {
	if len(candidates) == 1 {
		return &candidates[0].tls
	}
	now := time.Now()
	var outOfDate *entry
	for _, e := range candidates {
		switch {
		case nameless.SupportsCertificate(&e.tls) != nil:
		case !now.Before(e.info.NotBefore) && !now.After(e.info.NotAfter):
			return &e.tls
		case outOfDate == nil:
			outOfDate = e
		}
	}
	if outOfDate != nil {
		return &outOfDate.tls
	}
	return &candidates[0].tls
}

// named returns the certificates for a folded name: those that say it, then those with a
// wildcard for it.
func (s *Store) named(name string) []*entry {
	if found := s.byName[name]; found != nil {
		return found
	}
	label, rest, _ := strings.Cut(name, ".")
	if label == "" || rest == "" {
		return nil
	}
	return s.byName["*."+rest]
}

// Covers says whether some certificate is for the name.
func (s *Store) Covers(name string) bool { return s.named(Fold(name)) != nil }

// List describes every certificate, the preferred first.
func (s *Store) List() []Info {
	list := make([]Info, len(s.all))
	for i, e := range s.all {
		list[i] = e.info
	}
	return list
}

// Fold brings a host name into the form in which names are compared: lower case, no final dot.
func Fold(name string) string {
	return strings.ToLower(strings.TrimSuffix(name, "."))
}
