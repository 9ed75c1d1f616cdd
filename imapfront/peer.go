package imapfront

// The backend's side: greeting, TLS, capabilities, and the login under the client's
// own tag.

import (
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/emersion/go-imap/v2"

	"mailreeve/policy"
	"mailreeve/proxy"
)

const (
	// backendLine bounds a backend's line; capability lists run to 2 KiB.
	backendLine = 16 << 10
	// literalMinus bounds a literal that does not wait under LITERAL- (RFC 7888 section 5).
	literalMinus = 4096
	// backendReply bounds what a backend may say to a login.
	backendReply = 64 << 10
	// backendID bounds the ID command; older Dovecots take 4 KiB before the login.
	backendID = 3 << 10
	// initialResponse bounds a response on the AUTHENTICATE line; Dovecot takes
	// lines of 8 KiB before the login.
	initialResponse = 7 << 10
)

// peer speaks as a client to a backend.
type peer struct {
	wire   *proxy.Wire
	origin proxy.Origin
	caps   []string // upper case; nil: not known
	tags   int
	sent   []string // secrets that the backend was told, not to be repeated in a log
}

// Greeting wants OK: PREAUTH would be somebody else's login, BYE is a no.
func (p *peer) Greeting() error {
	line, err := p.wire.Line(backendLine)
	if err != nil {
		return err
	}
	const ok = "* OK "
	if len(line) < len(ok) || !strings.EqualFold(string(line[:len(ok)]), ok) {
		return fmt.Errorf("the backend greeted with %q", p.clean(string(line)))
	}
	p.learn(string(line[len(ok):]))
	return nil
}

// StartTLS asks for TLS (RFC 9051 section 6.2.1); capabilities are then unknown.
func (p *peer) StartTLS() error {
	if p.caps != nil && !p.has(imap.CapStartTLS) {
		return errors.New("the backend does not offer STARTTLS")
	}
	tag := p.tag("")
	if err := p.wire.Say(tag + " STARTTLS\r\n"); err != nil {
		return err
	}
	r, err := p.await(tag, nil)
	if err != nil {
		return err
	}
	if r.status != "OK" {
		return fmt.Errorf("the backend answered %q", p.clean(r.text))
	}
	p.caps = nil
	return nil
}

// Offer returns the mechanisms and the whole list.
func (p *peer) Offer() (proxy.Offer, error) {
	if err := p.ask(); err != nil {
		return proxy.Offer{}, err
	}
	o := proxy.Offer{Extensions: p.caps}
	for _, c := range p.caps {
		if mech, ok := strings.CutPrefix(c, "AUTH="); ok {
			o.Mechs = append(o.Mechs, mech)
		}
	}
	return o, nil
}

// Login forwards the facts and logs in with the client's own tag, so that the
// backend's reply, capability list and all, is the client's reply.
func (p *peer) Login(r proxy.Request) (proxy.Reply, error) {
	if err := p.ask(); err != nil {
		return nil, err
	}
	if r.Token == "" {
		r.Token = p.tag("")
	}
	// ID first and in one write with the login: only the first ID counts at
	// Dovecot, and its answer need not be waited for.
	id, idTag := "", ""
	if p.origin.Forward && p.has(imap.CapID) && p.origin.Client.IsValid() {
		idTag = p.tag(r.Token)
		id = idTag + " " + p.forward() + "\r\n"
	}
	login, more, err := p.login(r)
	if err != nil {
		return nil, err
	}
	if err := p.wire.Say(id + login + "\r\n"); err != nil {
		return nil, err
	}
	if id != "" {
		if _, err := p.await(idTag, nil); err != nil {
			return nil, err
		}
	}
	var challenge []byte
	answer, err := p.await(r.Token, func(text string) (string, error) {
		if say, ok := more(); ok {
			return say, nil
		}
		if r.Through != nil {
			say, err := r.Through.Respond(text)
			p.sent = append(p.sent, say.Reveal())
			return say.Reveal(), err
		}
		if !proxy.IsBearer(r.Mech) || challenge != nil || p.origin.Master != nil {
			return "", fmt.Errorf("the backend asked for more: %q", p.clean(text))
		}
		var err error
		challenge, err = base64.StdEncoding.DecodeString(text) // a bearer mechanism's error
		return proxy.BearerDummy(r.Mech), err
	})
	if err != nil {
		return nil, err
	}
	if answer.status != "OK" {
		return nil, p.rejection(answer, challenge)
	}
	return append(answer.untagged, answer.line+"\r\n"...), nil
}

// Quit takes its leave without waiting for the answer.
func (p *peer) Quit() { p.wire.Say(p.tag("") + " LOGOUT\r\n") }

// login composes the command, and a source of what the backend asks for
// behind it.
func (p *peer) login(r proxy.Request) (command string, more func() (string, bool), err error) {
	queue := func(parts ...string) func() (string, bool) {
		return func() (string, bool) {
			if len(parts) == 0 {
				return "", false
			}
			next := parts[0]
			parts = parts[1:]
			return next, true
		}
	}
	user, password := r.User, r.Secret.Reveal()
	quoted := quote(password)
	mech, encoded, must := proxy.Response(r, p.origin.Master)
	p.sent = []string{encoded, password, quoted[1 : len(quoted)-1]}
	if r.Through != nil {
		mech, encoded, must = r.Mech, r.Initial.Reveal(), true
		p.sent = []string{encoded}
	}
	switch {
	case must:
	case p.has("AUTH=PLAIN") && (r.Mech != policy.UserPass || p.has(imap.CapLoginDisabled)):
	case p.has(imap.CapLoginDisabled):
		return "", nil, errors.New("the backend offers neither LOGIN nor AUTH=PLAIN on this connection")
	default:
		if quotable(user) && quotable(password) {
			return r.Token + " LOGIN " + quote(user) + " " + quoted, queue(), nil
		}
		// As literals, names and passwords of any bytes pass (RFC 9051 section 4.3).
		if p.has(imap.CapLiteralPlus) || p.has(imap.CapLiteralMinus) && max(len(user), len(password)) <= literalMinus {
			return fmt.Sprintf("%s LOGIN {%d+}\r\n%s {%d+}\r\n%s", r.Token, len(user), user, len(password), password), queue(), nil
		}
		return fmt.Sprintf("%s LOGIN {%d}", r.Token, len(user)),
			queue(fmt.Sprintf("%s {%d}", user, len(password)), password), nil
	}
	if !p.has(imap.Cap("AUTH=" + mech)) {
		// It would say NO, which looks like a wrong password.
		return "", nil, fmt.Errorf("the backend does not offer AUTH=%s on this connection", mech)
	}
	if r.Through != nil && encoded == "" {
		return r.Token + " AUTHENTICATE " + mech, queue(), nil
	}
	if p.has(imap.CapSASLIR) && len(encoded) <= initialResponse {
		return r.Token + " AUTHENTICATE " + mech + " " + encoded, queue(), nil
	}
	return r.Token + " AUTHENTICATE " + mech, queue(encoded), nil
}

// quotable reports whether a string may be quoted (RFC 9051 section 9: QUOTED-CHAR).
func quotable(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] >= 0x7f {
			return false
		}
	}
	return len(s) <= 1024 // servers bound quoted strings, and not all tell
}

// escapes are made once: a Replacer begins with tables that cost more than a login's strings.
var escapes = strings.NewReplacer(`\`, `\\`, `"`, `\"`)

// quote makes a quoted string of one that is quotable.
func quote(s string) string { return `"` + escapes.Replace(s) + `"` }

// forward is the ID command that tells Dovecot of the client (its imap-login knows
// these keys from peers in login_trusted_networks). What the client said of
// itself goes along, but for the keys that would speak in our name.
func (p *peer) forward() string {
	o := p.origin
	fields := []string{
		"x-originating-ip", o.Client.Addr().String(), "x-originating-port", fmt.Sprint(o.Client.Port()),
		"x-connected-ip", o.Server.Addr().String(), "x-connected-port", fmt.Sprint(o.Server.Port()),
		"x-session-id", o.Session, "x-client-transport", o.Transport(),
		"x-proxy-ttl", fmt.Sprint(proxy.TTL),
	}
	if o.SNI != "" {
		fields = append(fields, "x-connected-name", o.SNI)
	}
	keys := make([]string, 0, len(o.Software.ID))
	for key := range o.Software.ID {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	for _, key := range keys {
		if value := o.Software.ID[key]; !strings.HasPrefix(key, "x-") && quotable(key) && quotable(value) {
			fields = append(fields, key, value)
		}
	}
	fields = fields[:min(len(fields), 2*maxIDFields)]
	line := "ID ("
	for i := 0; i < len(fields); i += 2 {
		if field := quote(fields[i]) + " " + quote(fields[i+1]) + " "; len(line)+len(field) <= backendID {
			line += field
		}
	}
	return strings.TrimSuffix(line, " ") + ")"
}

// access are the codes that say something of the account other than a wrong
// password; they are passed on (RFC 5530 section 3).
var access = []imap.ResponseCode{imap.ResponseCodeAuthorizationFailed, imap.ResponseCodeExpired,
	imap.ResponseCodeContactAdmin, imap.ResponseCodeLimit, imap.ResponseCodeInUse, imap.ResponseCodeNoPerm}

// rejection says what a NO or BAD means.
func (p *peer) rejection(r response, challenge []byte) *proxy.Rejection {
	no := &proxy.Rejection{Class: proxy.Unavailable, Text: p.clean(r.status + " " + r.text), Challenge: challenge}
	if r.status != "NO" {
		return no // BAD: the backend did not understand us
	}
	code := ""
	if list, ok := strings.CutPrefix(r.text, "["); ok {
		list, _, _ = strings.Cut(list, "]")
		code, _, _ = strings.Cut(strings.ToUpper(list), " ")
	}
	switch {
	case code == "", code == string(imap.ResponseCodeAuthenticationFailed):
		no.Class = proxy.BadCredential // a bare NO behind a credential means it
	case slices.Contains(access, imap.ResponseCode(code)):
		no.Class, no.Code = proxy.NoAccess, code
	}
	return no
}

// learn takes the capabilities from a response code (RFC 9051 section 7.1).
func (p *peer) learn(text string) {
	if list, ok := strings.CutPrefix(strings.ToUpper(text), "[CAPABILITY "); ok {
		list, _, _ = strings.Cut(list, "]")
		p.caps = strings.Fields(list)
	}
}

func (p *peer) has(c imap.Cap) bool { return slices.Contains(p.caps, strings.ToUpper(string(c))) }

// ask makes the capabilities known where the greeting had none.
func (p *peer) ask() error {
	if p.caps != nil {
		return nil
	}
	tag := p.tag("")
	if err := p.wire.Say(tag + " CAPABILITY\r\n"); err != nil {
		return err
	}
	_, err := p.await(tag, nil)
	if err == nil && p.caps == nil {
		err = errors.New("the backend told no capabilities")
	}
	return err
}

// tag makes a tag that is not the client's.
func (p *peer) tag(not string) string {
	for {
		p.tags++
		if tag := fmt.Sprintf("reeve%d", p.tags); !strings.EqualFold(tag, not) {
			return tag
		}
	}
}

// response is a tagged response and what came before it.
type response struct {
	untagged []byte // but for ID and BYE, as it came
	line     string
	status   string // OK, NO or BAD
	text     string // behind the status
}

// await reads until the response tagged so. A continuation request is handed
// to more, where there is one; it returns what to send.
func (p *peer) await(tag string, more func(text string) (string, error)) (response, error) {
	var r response
	var bye string
	for {
		line, err := p.wire.Line(backendLine)
		if err != nil {
			if bye != "" {
				err = fmt.Errorf("the backend said %q and closed", p.clean(bye))
			}
			return r, err
		}
		switch s := string(line); {
		case strings.HasPrefix(s, "+"):
			if more == nil {
				return r, fmt.Errorf("the backend asked for more: %q", p.clean(s))
			}
			say, err := more(strings.TrimPrefix(strings.TrimPrefix(s, "+"), " "))
			if err != nil {
				return r, err
			}
			if err := p.wire.Say(say + "\r\n"); err != nil {
				return r, err
			}
		case strings.HasPrefix(s, "* "):
			word, list, _ := strings.Cut(s[2:], " ")
			switch strings.ToUpper(word) {
			case "BYE":
				bye = list // not forwarded: it is about the backend
				continue
			case "ID":
				continue
			case "CAPABILITY":
				p.caps = strings.Fields(strings.ToUpper(list))
			}
			if len(r.untagged)+len(s) > backendReply {
				return r, errors.New("the backend's reply is too long")
			}
			r.untagged = append(append(r.untagged, s...), "\r\n"...)
		default:
			text, ok := strings.CutPrefix(s, tag+" ")
			if !ok {
				return r, fmt.Errorf("the backend said %q", p.clean(s))
			}
			r.line = s
			r.status, r.text, _ = strings.Cut(text, " ")
			r.status = strings.ToUpper(r.status)
			return r, nil
		}
	}
}

// clean makes what the backend said fit for a log.
func (p *peer) clean(text string) string { return proxy.CleanTextBut(text, p.sent...) }
