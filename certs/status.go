package certs

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Own says how far an [Issuer] may go for a certificate of the name itself.
type Own int

// The ways, each allowing more than the one before it. Which of them a name gets is not
// decided here: the keeper is told in each handshake.
const (
	Never     Own = iota // the fallback's certificate is meant, whatever there is
	Keep                 // canonical names: only what is kept, at once
	Listed               // may be ordered, within the budget
	Confirmed            // may be ordered, within the budget, if the lookup confirms the name
)

// Issuer gets certificates from elsewhere, as an ACME client does. Its methods may be called by
// many at once.
type Issuer interface {
	// Certificate gives what is there for a folded name, at once; or, where own
	// lets it, orders and waits for some seconds or until ctx ends. With Keep it
	// neither blocks nor reads a disk. Without a certificate it is nil; the error
	// is for those that tell of it, the fallback is served all the same.
	Certificate(ctx context.Context, name string, kind KeyType, own Own) (*tls.Certificate, error)

	// Keep is told the canonical names to have and to renew, after each load.
	Keep(names []string)

	// Status describes every certificate that is there, and every one that
	// should be.
	Status() []Status
}

// Status is the state of one name and one kind of key. A certificate with several names
// makes several.
type Status struct {
	Name      string    // folded; a wildcard has its "*."
	Source    string    // "file", "folder" or "acme"; empty for a canonical name that has none of them
	File      string    // where the certificate stands; empty if nowhere yet
	KeyType   KeyType   // of the certificate's own key
	Issuer    string    // name of the authority that signed it, cleaned
	NotBefore time.Time // both zero: there is no certificate
	NotAfter  time.Time
	Renewed   time.Time // when it was issued to us, or its file was written
	Tried     time.Time // when an order was last tried
	Next      time.Time // when the next one is due
	Error     string    // why the last attempt failed, or why a new file is not used, cleaned; empty if all is well
	Failures  int       // attempts that failed since the last that did not
	Canonical bool      // customers are told this name
	Spare     bool      // a valid one of the same name and kind lasts longer, and is served
}

// The thresholds, all in this place. Whatever is due is loud for some days before customers
// see it, and nothing is loud that a working renewal will mend by itself.
const (
	// soonFile is when the end of a file's certificate is worth a warning: those
	// who renew by hand want two weeks, and ACME clients have renewed a month before.
	soonFile = 14 * 24 * time.Hour

	// soonACME is when ours is in trouble. We renew with a third of the lifetime
	// left; whoever has tried in vain since then has a week to read the reason.
	soonACME = 7 * 24 * time.Hour

	// soonPart bounds both for certificates that live for days: the last fifth of
	// the lifetime, well behind the third that renewals of most ACME clients begin at.
	soonPart = 5

	// urgent is when a warning becomes an error: the length of a weekend.
	urgent = 3 * 24 * time.Hour
)

// nearEnd says whether a certificate is in its last days: the given time before its end, or
// the last fifth of its lifetime, whichever is shorter.
func nearEnd(notBefore, notAfter, at time.Time, soon time.Duration) bool {
	return at.Add(min(soon, notAfter.Sub(notBefore)/soonPart)).After(notAfter)
}

// ExpiresSoon says whether it is time to renew the certificate by hand: it is in its last
// two weeks, or in the last fifth of a shorter lifetime. It is true after the end, too.
func (i Info) ExpiresSoon(at time.Time) bool {
	return nearEnd(i.NotBefore, i.NotAfter, at, soonFile)
}

// Trouble is nil if all is well at the given time. Otherwise it is an [*Error] that tells
// what will go wrong, or has, and what to do about it.
//
// What is missing is trouble for canonical names alone: any other name has one of them to
// fall back on. So an order for another name that fails is trouble only while the old
// certificate nears its end, and for as many days after it as before.
func (s Status) Trouble(at time.Time) error {
	if s.Spare {
		return nil // certbot leaves many such behind
	}
	ours := s.Source == "acme"
	e := &Error{File: s.File, Cure: "renew it; a new file is seen without a reload"}
	if s.File == "" {
		e.File = s.Name
	}
	failed := ""
	switch {
	case ours && strings.HasPrefix(s.Error, underWay):
		failed = "; " + s.Error
	case ours && s.Failures > 1:
		failed = fmt.Sprintf("; %d orders have failed, the last one: %s", s.Failures, s.Error)
	case ours && s.Error != "":
		failed = "; the order failed: " + s.Error
	case s.Error != "":
		failed = "; the file that is there now is not used: " + s.Error
	}
	switch {
	case !ours:
	case s.Error == "" || s.Error == underWay:
		e.Cure = "`mailreeve run` orders it; its log tells how that goes"
	default:
		e.Cure = "mend what the reason tells, and reload to have it tried at once"
	}
	what := fmt.Sprintf("the %s certificate for %s", s.KeyType, s.Name)
	switch missing := s.NotAfter.IsZero(); {
	case ours && !s.Canonical && (missing || s.Failures == 0 || at.After(s.NotAfter.Add(soonACME))):
		return nil
	case missing && !ours:
		e.Message, e.Cure = "there is no certificate for "+s.Name, "add one that names it, or let ACME order it"
	case missing:
		e.Message = fmt.Sprintf("there is no %s certificate for %s yet%s", s.KeyType, s.Name, failed)
	case at.After(s.NotAfter):
		e.Message = what + " expired on " + s.NotAfter.UTC().Format(dateLayout) + failed
	case at.Before(s.NotBefore):
		e.Message = what + " is not valid before " + s.NotBefore.UTC().Format(dateLayout) + failed
		e.Cure = "set the clock of this machine, or wait"
	case ours && nearEnd(s.NotBefore, s.NotAfter, at, soonACME):
		// With no failure it is in trouble as well: renewal was due long ago.
		e.Message = what + " expires on " + s.NotAfter.UTC().Format(dateLayout) + " and is not renewed" + failed
	case !ours && nearEnd(s.NotBefore, s.NotAfter, at, soonFile):
		e.Message = what + " expires on " + s.NotAfter.UTC().Format(dateLayout) + failed
	case !ours && s.Error != "":
		// All is well until a restart, which would find the new file alone.
		e.Message = what + " is the former one" + failed
		e.Cure = "put right what the file holds; it is seen without a reload"
	default:
		return nil
	}
	return e
}

// Urgent says whether trouble can no longer wait: it ends within three days, or has ended,
// or there is nothing.
func (s Status) Urgent(at time.Time) bool {
	return s.Trouble(at) != nil && at.Add(urgent).After(s.NotAfter)
}

// issuerOf is the name of the authority that signed a certificate; some have no common name.
func issuerOf(leaf *x509.Certificate) string {
	name := leaf.Issuer.CommonName
	if name == "" && len(leaf.Issuer.Organization) > 0 {
		name = leaf.Issuer.Organization[0]
	}
	return cleaned(name, 100)
}

// sortStatus sorts by name, then kind of key, then the one that lasts longer.
func sortStatus(list []Status) {
	slices.SortStableFunc(list, func(a, b Status) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.KeyType, b.KeyType), b.NotAfter.Compare(a.NotAfter),
			cmp.Compare(a.File, b.File))
	})
}

// cleaned makes text of strangers fit for one line of a log or page: what cannot be printed
// becomes a space, and no more than the given number of bytes is left.
func cleaned(text string, most int) string {
	cut := false
	if len(text) > most {
		text, cut = text[:most], true
	}
	text = strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, text)
	text = strings.Join(strings.Fields(text), " ")
	if cut {
		text += "..."
	}
	return text
}
