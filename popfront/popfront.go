// Package popfront is the POP3 side of the proxy: the dialogue with the client
// up to its login, the login at the backend, and the words for every refusal.
//
// # Standards
//
// Done: the AUTHORIZATION state of POP3 (RFC 1939) with USER, PASS and QUIT;
// CAPA and RESP-CODES (RFC 2449), STLS (RFC 2595), AUTH (RFC 5034), SYS/TEMP,
// SYS/PERM and AUTH (RFC 3206), OAUTHBEARER (RFC 7628). NOOP is answered before
// the login too.
//
// APOP passes to the backend where policy lets it: the timestamp of the greeting is
// then the backend's own. Else there is none, since Thunderbird tries APOP where there
// is one, offered or not.
//
// Not done: UTF8 and LANG (RFC 6856), which a client sends before its login to a
// server that would have to be chosen already.
package popfront

import (
	"errors"
	"slices"
	"strings"

	"mailreeve/policy"
	"mailreeve/proxy"
)

// Front is POP3. A refusal is told at USER, over TLS too, and an outage in place
// of the greeting: programs show these texts, and after a refused PASS they ask
// for a password.
var Front = &proxy.Front{
	Name:        "pop3",
	Word:        "POP3",
	ALPN:        "pop3",
	Port:        995,
	Mark:        mark,
	RefuseEarly: true,
	OutageEarly: true,
	// No Goodbye: a POP3 server says nothing unasked (RFC 1939 section 3).
	Open: func(w *proxy.Wire, a proxy.Advert, l proxy.Limits) proxy.Dialogue {
		return &dialogue{wire: w, advert: a, limits: l}
	},
	Dial: func(w *proxy.Wire, o proxy.Origin) proxy.Peer {
		return &peer{wire: w, origin: o}
	},
}

// mark is what a SASL challenge stands behind (RFC 5034 section 4).
const mark = "+ "

// dialogue speaks with one client.
type dialogue struct {
	wire    *proxy.Wire
	advert  proxy.Advert
	limits  proxy.Limits
	bad     int
	user    string   // named by USER, waiting for PASS
	pending *command // chosen, its credential not yet read
}

// command is one command line.
type command struct {
	name, rest string
	mech       string // of AUTH
	initial    string // response of AUTH, empty: none
}

func parse(line string) *command {
	name, rest, _ := strings.Cut(line, " ")
	return &command{name: strings.ToUpper(name), rest: rest}
}

// Greet says little. A timestamp invites APOP (RFC 1939 section 7): Thunderbird
// tries it then, offered or not.
func (d *dialogue) Greet() error {
	if d.advert.Stamp != "" {
		return d.ok(d.advert.Hostname + " ready. " + d.advert.Stamp)
	}
	return d.ok(d.advert.Hostname + " ready.")
}

// Next reads a command and obeys it.
func (d *dialogue) Next() (proxy.Request, error) {
	line, err := d.wire.Command(d.limits, func(line string) bool { return parse(line).name == "AUTH" })
	if err != nil {
		return proxy.Request{}, err
	}
	return d.obey(parse(line))
}

// obey answers a command, or returns the request that it is.
func (d *dialogue) obey(c *command) (proxy.Request, error) {
	none := proxy.Request{}
	switch c.name {
	case "CAPA": // RFC 2449 section 5; no full stop before the last line, since nmap reads up to the first
		return none, d.wire.Say("+OK Capability list follows\r\n" + strings.Join(d.capabilities(), "\r\n") + "\r\n.\r\n")
	case "NOOP": // RFC 1939 section 5 has it after the login; monitors send it before
		return none, d.ok("Nothing done.")
	case "QUIT": // RFC 1939 section 5
		if err := d.ok("Bye."); err != nil {
			return none, err
		}
		return none, proxy.Quit
	case "STLS": // RFC 2595 section 4
		if d.advert.Secure {
			return none, d.wrong("TLS is on already.")
		}
		return proxy.Request{Kind: proxy.StartTLS}, nil
	case "USER": // RFC 1939 section 7
		d.user = ""
		var r proxy.Request
		if r.SetPassword(strings.TrimSpace(c.rest), "") != nil {
			return none, d.wrong("USER wants a mailbox name.")
		}
		d.pending = c
		return proxy.Request{Kind: proxy.Chosen, Mech: policy.UserPass, User: r.User}, nil
	case "PASS": // RFC 1939 section 7
		d.pending = c
		if d.user != "" {
			return d.Credential()
		}
		// Nobody asked for it, but it may be a password and in clear.
		return proxy.Request{Kind: proxy.Chosen, Mech: policy.UserPass, Exposed: c.rest != ""}, nil
	case "APOP": // RFC 1939 section 7: a digest that only the backend could check
		d.pending = c
		return proxy.Request{Kind: proxy.Chosen, Mech: "APOP", User: proxy.APOPName(c.rest), Initial: proxy.Secret(c.rest)}, nil
	case "AUTH": // RFC 5034 section 4
		if strings.TrimSpace(c.rest) == "" { // the form of its draft, which lists the mechanisms; still sent
			return none, d.wire.Say("+OK\r\n" + strings.Join(append(slices.Clip(d.advert.Mechs), "."), "\r\n") + "\r\n")
		}
		var secret bool
		if c.mech, c.initial, secret = proxy.SplitAuth(c.rest); c.mech == "" {
			return none, d.wrong("AUTH wants the name of a mechanism.")
		}
		d.pending = c
		return proxy.Request{Kind: proxy.Chosen, Mech: c.mech, Initial: proxy.Secret(c.initial), Exposed: secret}, nil
	}
	return none, d.wrong("Unknown command.")
}

// passed are the capabilities of a backend that a client may know before its login.
var passed = map[string]bool{"TOP": true, "UIDL": true, "EXPIRE": true, "LOGIN-DELAY": true}

// capabilities lists what is really offered now. In clear, PIPELINING is not:
// a client that has it sends USER and PASS in one go, and the password is on
// the wire before the refusal.
func (d *dialogue) capabilities() []string {
	caps := []string{"RESP-CODES", "AUTH-RESP-CODE"}
	for _, line := range d.advert.Extensions {
		name, _, _ := strings.Cut(strings.ToUpper(line), " ")
		if passed[name] || name == "PIPELINING" && d.advert.Secure && d.advert.Refusal == nil {
			caps = append(caps, line)
		}
	}
	if !d.advert.Secure {
		caps = append(caps, "STLS")
	}
	if d.advert.Password {
		caps = append(caps, "USER")
	}
	if len(d.advert.Mechs) > 0 {
		caps = append(caps, "SASL "+strings.Join(d.advert.Mechs, " "))
	}
	return caps
}

// Credential reads the credential of the command that was chosen.
func (d *dialogue) Credential() (proxy.Request, error) {
	c := d.pending
	d.pending = nil
	r := proxy.Request{Kind: proxy.Login, Mech: policy.UserPass}
	switch c.name {
	case "USER":
		d.user = strings.TrimSpace(c.rest)
		return proxy.Request{}, d.ok("Send your password.")
	case "PASS": // RFC 1939 section 7
		user := d.user
		d.user = ""
		if user == "" {
			return proxy.Request{}, d.wrong("USER comes first.")
		}
		if err := r.SetPassword(user, c.rest); err != nil {
			return proxy.Request{}, d.wrong("Malformed credential.")
		}
		return r, nil
	}
	r.Mech = c.mech // RFC 5034 section 4
	switch err := d.wire.Exchange(mark, c.initial, d.limits, &r); {
	case errors.Is(err, proxy.ErrCancelled), errors.Is(err, proxy.ErrMalformed):
		return proxy.Request{}, d.Abort(r, err)
	default:
		return r, err
	}
}

// Abort answers an AUTH or APOP without a credential.
func (d *dialogue) Abort(_ proxy.Request, why error) error {
	d.pending, d.user = nil, ""
	if errors.Is(why, proxy.ErrCancelled) {
		return d.wrong("AUTH cancelled.")
	}
	return d.wrong("Malformed credential.")
}

// codes are the answers to a login, by class of refusal (RFC 2449, RFC 3206).
// AUTH says that the credential is wrong and is kept for just that, though RFC
// 3206 section 4 has it for "in violation of policy" too. What becomes of each
// finding at each action and moment is in testdata/answers.txt.
var codes = map[proxy.Class]string{
	proxy.PolicyDeny:    "[SYS/PERM] ",
	proxy.PolicyTemp:    "[SYS/TEMP] ",
	proxy.BadMech:       "",
	proxy.BadCredential: "[AUTH] ",
	proxy.NoAccess:      "[SYS/PERM] ",
	proxy.Unavailable:   "[SYS/TEMP] ",
	proxy.LimitReached:  "[SYS/TEMP] ",
	proxy.ShuttingDown:  "[SYS/TEMP] ",
	proxy.PlainOnTLS:    "[SYS/PERM] ",
}

// Refuse answers a login or a chosen mechanism.
func (d *dialogue) Refuse(r proxy.Request, ref proxy.Refusal) error {
	d.pending, d.user = nil, ""
	code := codes[ref.Class]
	switch {
	case ref.Class == proxy.NoAccess && ref.Code != "":
		code = "[" + ref.Code + "] "
	case ref.Class == proxy.PolicyDeny && ref.Finding == policy.Mechanism && d.advert.Strict:
		code = codes[proxy.BadMech] // RFC 5034 section 4: not supported
	}
	if ref.Challenge != nil {
		if _, err := d.wire.Challenge(mark, ref.Challenge, d.limits); err != nil {
			return err
		}
	}
	return d.wire.Say("-ERR " + code + ref.Text + "\r\n")
}

// Accept gives the go-ahead for TLS, or passes the backend's reply on.
func (d *dialogue) Accept(r proxy.Request, reply proxy.Reply, _ string) error {
	if r.Kind == proxy.StartTLS {
		return d.ok("Begin TLS negotiation.")
	}
	_, err := d.wire.Write(reply)
	return err
}

// Upgrade forgets what was said in clear (RFC 2595 section 4).
func (d *dialogue) Upgrade(a proxy.Advert) {
	*d = dialogue{wire: d.wire, advert: a, limits: d.limits}
}

// Bye is the last word, in place of a greeting too. A client that took too long
// is told nothing (RFC 1939 section 3).
func (d *dialogue) Bye(ref proxy.Refusal) error {
	if ref.Class == proxy.TooLate {
		return nil
	}
	return d.wire.Say("-ERR " + codes[ref.Class] + ref.Text + "\r\n")
}

// Client returns nothing: a POP3 client does not say what it is.
func (d *dialogue) Client() proxy.Software { return proxy.Software{} }

// ok answers a command that was obeyed.
func (d *dialogue) ok(text string) error { return d.wire.Say("+OK " + text + "\r\n") }

// wrong answers a command that cannot be obeyed, and counts it.
func (d *dialogue) wrong(text string) error {
	if err := d.wire.Say("-ERR " + text + "\r\n"); err != nil {
		return err
	}
	return d.limits.Strike(&d.bad)
}
