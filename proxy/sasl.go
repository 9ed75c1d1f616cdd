package proxy

// SASL as the client's server (RFC 4422), for the mechanisms whose credential can
// be said again: the form is checked here, the credential by the backend.

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"errors"
	"strings"

	"mailreeve/policy"
)

// ErrCancelled says that the client gave a SASL exchange up with a "*"
// (RFC 4422 section 3.5, as each protocol spells it).
var ErrCancelled = errors.New("the client cancelled the exchange")

// ErrMalformed says that what the client sent is no credential.
var ErrMalformed = errors.New("malformed SASL response")

// IsBearer reports whether the backend must offer the mechanism itself: a token
// cannot be turned into a password.
func IsBearer(mech string) bool { return mech == "OAUTHBEARER" || mech == "XOAUTH2" }

// BearerDummy is what a bearer mechanism's client answers, base64 encoded, to
// the challenge that tells its error (RFC 7628 section 3.2.3; Google's XOAUTH2:
// nothing).
func BearerDummy(mech string) string {
	if mech == "OAUTHBEARER" {
		return "AQ=="
	}
	return ""
}

// SplitAuth takes the arguments of a client's AUTH apart. A mechanism that is
// not named as RFC 4422 section 3.1 has it is empty: the name goes into facts
// and events. A trailing space is no initial response; secret reports whether
// what came tells more than a user's name.
func SplitAuth(args string) (mech, initial string, secret bool) {
	mech, initial, _ = strings.Cut(strings.TrimSpace(args), " ")
	mech, initial = strings.ToUpper(mech), strings.TrimSpace(initial)
	if len(mech) > 20 || strings.ContainsFunc(mech, func(c rune) bool {
		return (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_'
	}) {
		mech = ""
	}
	if mech == policy.UserPass || mech == apop {
		mech = policy.KnownMech("") // these two are commands of their own, and no SASL
	}
	return mech, initial, initial != "" && initial != "=" && mech != "LOGIN"
}

// Exchange leads a SASL exchange with a client up to the credential, which is
// then in r, with r.Mech. A challenge is sent behind the mark of the protocol,
// "+ " or "334 ". initial is the response on the command line, empty where there
// was none. An error that is neither ErrCancelled nor ErrMalformed is the
// connection's.
func (w *Wire) Exchange(mark, initial string, l Limits, r *Request) error {
	x := exchange{mech: r.Mech}
	var response []byte
	var err error
	if initial != "" {
		if response, err = decodeSASL([]byte(initial)); err != nil {
			return err
		}
	}
	for {
		challenge, done, err := x.next(response, r)
		if err != nil || done {
			return err
		}
		line, err := w.Challenge(mark, []byte(challenge), l)
		if err != nil {
			return err
		}
		if response, err = decodeSASL(line); err != nil {
			return err
		}
	}
}

// Challenge sends one challenge and reads the line that answers it. A bearer
// mechanism's error is told so, too, and its answer means nothing (RFC 7628
// section 3.2.3).
func (w *Wire) Challenge(mark string, challenge []byte, l Limits) ([]byte, error) {
	return w.Prompt(mark+base64.StdEncoding.EncodeToString(challenge), l)
}

// Prompt sends a challenge as it is to stand on the wire and reads the line that
// answers it.
func (w *Wire) Prompt(line string, l Limits) ([]byte, error) {
	if err := w.Say(line + "\r\n"); err != nil {
		return nil, err
	}
	return w.Line(l.Token)
}

// Prompts of SASL LOGIN. Thunderbird takes exactly these.
const (
	promptUser     = "Username:"
	promptPassword = "Password:"
)

// exchange is the server's side of a SASL exchange. It checks nothing but the
// form: the backend is the judge.
type exchange struct {
	mech string
	user []byte // of LOGIN, once answered
}

// next takes the client's response, nil where none was sent yet. It returns
// either the next challenge to send, not yet encoded, or, with done, has the
// credential in r. An error means a malformed response.
func (x *exchange) next(response []byte, r *Request) (challenge string, done bool, err error) {
	if response == nil {
		if x.mech == "LOGIN" {
			return promptUser, false, nil
		}
		return "", false, nil
	}
	switch x.mech {
	case "PLAIN":
		return "", true, plain(response, r)
	case "LOGIN":
		if x.user == nil {
			x.user = append([]byte{}, response...)
			return promptPassword, false, nil
		}
		r.User, r.Secret = string(x.user), Secret(response)
		return "", true, usable(r)
	case "XOAUTH2", "OAUTHBEARER":
		return "", true, bearer(x.mech, response, r)
	}
	return "", false, ErrMalformed
}

// plain takes authzid NUL authcid NUL password apart (RFC 4616 section 2).
func plain(response []byte, r *Request) error {
	parts := bytes.Split(response, []byte{0})
	if len(parts) != 3 {
		return ErrMalformed
	}
	r.Authzid, r.User, r.Secret = string(parts[0]), string(parts[1]), Secret(parts[2])
	return usable(r)
}

// bearer keeps the response whole, since host and port in it name the client's
// view (RFC 7628 section 3.1), and reads the user name out of it.
func bearer(mech string, response []byte, r *Request) error {
	r.Secret = Secret(response)
	head, rest, ok := strings.Cut(string(response), "\x01")
	if !ok || !strings.HasSuffix(rest, "\x01\x01") {
		return ErrMalformed
	}
	if !strings.Contains("\x01"+strings.ToLower(rest), "\x01auth=") {
		return ErrMalformed
	}
	if mech == "XOAUTH2" {
		user, ok := strings.CutPrefix(head, "user=")
		if !ok {
			return ErrMalformed
		}
		r.User = user
		return usable(r)
	}
	// gs2-header: "n,a=user," (RFC 5801 section 4); channel binding cannot
	// pass a proxy that ends TLS, so only n and y are taken.
	parts := strings.Split(head, ",")
	if len(parts) != 3 || (parts[0] != "n" && parts[0] != "y") || parts[2] != "" {
		return ErrMalformed
	}
	if parts[1] != "" {
		user, ok := strings.CutPrefix(parts[1], "a=")
		if !ok {
			return ErrMalformed
		}
		r.User = strings.NewReplacer("=2C", ",", "=3D", "=").Replace(user)
	}
	if r.User == "" { // the token alone may name the account
		return speakable(r)
	}
	return usable(r)
}

// maxName is longer than any address (RFC 5321 section 4.5.3.1: 64 + 1 + 255).
const maxName = 320

// usable refuses what could not be said on a backend's wire without doubt:
// control characters in names, line ends and NUL in passwords, no name at all.
func usable(r *Request) error {
	if r.User == "" {
		return ErrMalformed
	}
	return speakable(r)
}

// speakable is usable but for the want of a name.
func speakable(r *Request) error {
	if len(r.User) > maxName || len(r.Authzid) > maxName ||
		strings.ContainsFunc(r.User, isControl) || strings.ContainsFunc(r.Authzid, isControl) ||
		strings.ContainsAny(r.Secret.Reveal(), "\x00\r\n") {
		return ErrMalformed
	}
	return nil
}

func isControl(c rune) bool { return c < ' ' || c == 0x7f }

// decodeSASL decodes one response of a client as the three protocols write it:
// base64 (RFC 4648 section 4, strict), "=" for an empty initial response, "*"
// to cancel.
func decodeSASL(line []byte) ([]byte, error) {
	switch string(line) {
	case "*":
		return nil, ErrCancelled
	case "=":
		return []byte{}, nil
	}
	p := make([]byte, base64.StdEncoding.DecodedLen(len(line)))
	if bytes.ContainsAny(line, "\r\n") { // Decode would skip them
		return nil, ErrMalformed
	}
	n, err := base64.StdEncoding.Strict().Decode(p, line)
	if err != nil {
		return nil, ErrMalformed
	}
	return p[:n], nil
}

// SetPassword fills in a credential that came without SASL: USER and PASS, or
// the LOGIN command. An error means that it can be no mailbox's.
func (r *Request) SetPassword(user, password string) error {
	r.User, r.Secret = user, Secret(password)
	return usable(r)
}

// identity is whose mailbox is wanted (RFC 4422 section 2).
func (r *Request) identity() string { return cmp.Or(r.Authzid, r.User) }

// rename puts another name in the place of whose mailbox it is. Who logs in on
// behalf of another keeps the own name; a token names its owner itself.
func (r *Request) rename(from, to string) {
	if r.Authzid == from {
		r.Authzid = to
	}
	if r.User == from {
		r.User = to
	}
}

// Response is how a backend is told the credential by SASL: the mechanism, and
// its one response, base64 encoded. A token goes as it came, all else by PLAIN:
// the customer's own, or the master's with the customer as the one to be. must
// says that there is no other way: a token, or a login on behalf of another, has
// no form of a name and a password.
func Response(r Request, m *Master) (mech, encoded string, must bool) {
	mech, message := "PLAIN", r.Authzid+"\x00"+r.User+"\x00"+r.Secret.Reveal()
	switch {
	case m != nil:
		message = r.identity() + "\x00" + m.User + "\x00" + m.Secret.Reveal()
	case IsBearer(r.Mech):
		mech, message = r.Mech, r.Secret.Reveal()
	}
	must = m != nil || r.Authzid != "" || IsBearer(r.Mech)
	return mech, base64.StdEncoding.EncodeToString([]byte(message)), must
}
