// Package imapfront is the IMAP side of the proxy: the dialogue with the client
// up to its login, the login at the backend, and the words for every refusal.
//
// # Standards
//
// Done: IMAP4rev1 (RFC 3501) and IMAP4rev2 (RFC 9051) as far as a client not
// logged in can go: CAPABILITY, NOOP, LOGOUT, STARTTLS, LOGIN, AUTHENTICATE;
// ID (RFC 2971), SASL-IR (RFC 4959), non-synchronizing literals (RFC 7888),
// response codes (RFC 5530), OAUTHBEARER (RFC 7628). ENABLE (RFC 5161) is
// answered and enables nothing, since it belongs after the login.
//
// Not done: login referrals (RFC 2221), which no client follows;
// UNAUTHENTICATE (RFC 8437); channel binding, which a proxy that ends TLS
// breaks.
//
// After the login the relay is raw: capability list, extensions and
// compression are the backend's own.
//
// Of go-imap, the types of capabilities and response codes are used. Its server
// would answer ID with BAD, announce a list of its own and keep bytes read
// ahead; its client reads on after the login. Neither fits here.
package imapfront

import (
	"fmt"
	"slices"
	"strings"

	"github.com/emersion/go-imap/v2"

	"mailreeve/policy"
	"mailreeve/proxy"
)

// Front is IMAP.
var Front = &proxy.Front{
	Name:    "imap",
	Word:    "IMAP",
	ALPN:    "imap",
	Port:    993,
	Mark:    mark,
	Room:    177,                                                     // Thunderbird 153 shows 200, less 23 of its own words
	Goodbye: "* BYE Server is restarting, please connect again.\r\n", // RFC 9051 section 7.1.5
	Open: func(w *proxy.Wire, a proxy.Advert, l proxy.Limits) proxy.Dialogue {
		return &dialogue{wire: w, advert: a, limits: l}
	},
	Dial: func(w *proxy.Wire, o proxy.Origin) proxy.Peer {
		return &peer{wire: w, origin: o}
	},
	Watch: watch,
	Warns: true,
}

// mark is what a SASL challenge stands behind (RFC 9051 section 7.6).
const mark = "+ "

// dialogue speaks with one client.
type dialogue struct {
	wire    *proxy.Wire
	advert  proxy.Advert
	limits  proxy.Limits
	bad     int
	asked   bool     // what is offered
	alerted bool     // the refusal was shown in this session
	pending *command // chosen, its credential not yet read
	id      map[string]string
}

// Greet tells the capabilities at once and saves a round trip, but where every
// login is refused: Thunderbird, set to plaintext, asks for them only where the
// greeting has none, and shows an alert in that answer only. Set to STARTTLS it
// does not ask before TLS, and so hears no alert.
func (d *dialogue) Greet() error {
	if d.advert.Refusal != nil {
		return d.wire.Say("* OK " + d.advert.Hostname + " ready.\r\n")
	}
	return d.wire.Say("* OK [CAPABILITY " + d.capabilities() + "] " + d.advert.Hostname + " ready.\r\n")
}

// Next reads a command and obeys it.
func (d *dialogue) Next() (proxy.Request, error) {
	line, err := d.wire.Command(d.limits, func(line string) bool {
		c := parse(line)
		return c != nil && c.name == "AUTHENTICATE"
	})
	if err != nil {
		return proxy.Request{}, err
	}
	c := parse(line)
	if c == nil {
		if err := d.wire.Say("* BAD A command begins with a tag.\r\n"); err != nil {
			return proxy.Request{}, err
		}
		return proxy.Request{}, d.limits.Strike(&d.bad)
	}
	return d.obey(c)
}

// obey answers a command, or returns the request that it is.
func (d *dialogue) obey(c *command) (proxy.Request, error) {
	none := proxy.Request{}
	switch c.name {
	case "ID": // RFC 2971: answered always, it must never cost a client its login
		return none, d.identify(c)
	case "LOGIN": // RFC 9051 section 6.2.3
		d.pending = c
		return proxy.Request{Kind: proxy.Chosen, Token: c.tag, Mech: policy.UserPass, Exposed: !c.waits()}, nil
	case "AUTHENTICATE": // RFC 9051 section 6.2.2
		var secret bool
		if c.mech, c.initial, secret = proxy.SplitAuth(c.rest); c.mech == "" {
			break
		}
		d.pending = c
		return proxy.Request{Kind: proxy.Chosen, Token: c.tag, Mech: c.mech, Initial: proxy.Secret(c.initial), Exposed: secret}, nil
	}
	// All others want no argument here; a literal must not be read as commands.
	if err := d.skip(c); err != nil {
		return none, err
	}
	switch c.name {
	case "CAPABILITY": // RFC 9051 section 6.1.1
		return none, d.capability(c)
	case "NOOP": // RFC 9051 section 6.1.2
		return none, d.ok(c, "NOOP completed.")
	case "LOGOUT": // RFC 9051 section 6.1.3
		if err := d.wire.Say("* BYE Logging out.\r\n" + c.tag + " OK LOGOUT completed.\r\n"); err != nil {
			return none, err
		}
		return none, proxy.Quit
	case "ENABLE": // RFC 5161 section 3.1
		return none, d.wire.Say("* ENABLED\r\n" + c.tag + " OK Nothing was enabled before the login.\r\n")
	case "STARTTLS": // RFC 9051 section 6.2.1
		if d.advert.Secure {
			return none, d.wrong(c, "TLS is on already.")
		}
		if c.rest != "" {
			return none, d.wrong(c, "STARTTLS wants no argument.")
		}
		return proxy.Request{Kind: proxy.StartTLS, Token: c.tag, Warned: d.asked}, nil
	case "AUTHENTICATE":
		return none, d.wrong(c, "AUTHENTICATE wants the name of a mechanism.")
	}
	return none, d.wrong(c, "Please log in first.")
}

// identify answers ID with our name and keeps the client's fields.
func (d *dialogue) identify(c *command) error {
	s := scanner{d: d, c: c}
	s.trim()
	id, err := s.id()
	if _, ok := err.(syntaxError); err != nil && !ok {
		return err
	}
	if err := d.skip(c); err != nil {
		return err
	}
	if len(id) > 0 {
		d.id = id
	}
	return d.wire.Say(fmt.Sprintf("* ID (\"name\" \"Mailreeve\")\r\n%s OK ID completed.\r\n", c.tag))
}

// capability answers CAPABILITY, with the refusal that awaits every login.
func (d *dialogue) capability(c *command) error {
	alert := ""
	d.asked = true
	if d.advert.Refusal != nil && !d.advert.Quiet {
		alert = d.alert(d.advert.Refusal.Text)
	}
	return d.wire.Say(alert + "* CAPABILITY " + d.capabilities() + "\r\n" + c.tag + " OK CAPABILITY completed.\r\n")
}

// passed are the capabilities of a backend that mean the same before the login
// and bring no command of their own there.
var passed = []imap.Cap{imap.CapIMAP4rev2, imap.CapLiteralPlus, imap.CapLiteralMinus, imap.CapEnable, imap.CapIdle,
	imap.CapUTF8Accept, imap.CapUTF8Only}

// capabilities lists what is really offered now.
func (d *dialogue) capabilities() string {
	caps := []string{string(imap.CapIMAP4rev1), string(imap.CapID)}
	if d.advert.Refusal == nil {
		caps = append(caps, string(imap.CapSASLIR))
		for _, c := range d.advert.Extensions {
			if i := slices.IndexFunc(passed, func(p imap.Cap) bool { return strings.EqualFold(string(p), c) }); i >= 0 {
				caps = append(caps, string(passed[i]))
			}
		}
	}
	if !d.advert.Secure {
		caps = append(caps, string(imap.CapStartTLS))
	}
	if !d.advert.Password {
		caps = append(caps, string(imap.CapLoginDisabled))
	}
	for _, mech := range d.advert.Mechs {
		caps = append(caps, "AUTH="+mech)
	}
	return strings.Join(caps, " ")
}

// alert is what a person sees at any time (RFC 9051 section 7.1), once a session.
func (d *dialogue) alert(text string) string {
	if d.alerted {
		return ""
	}
	d.alerted = true
	return "* OK [" + string(imap.ResponseCodeAlert) + "] " + text + "\r\n"
}

// Credential reads the credential of the command that was chosen.
func (d *dialogue) Credential() (proxy.Request, error) {
	c := d.pending
	d.pending = nil
	r := proxy.Request{Kind: proxy.Login, Token: c.tag, Mech: c.mech}
	if c.name == "LOGIN" {
		r.Mech = policy.UserPass
		s := scanner{d: d, c: c}
		s.trim()
		user, err := s.astring()
		var password string
		if err == nil {
			err = s.space()
		}
		if err == nil {
			password, err = s.astring()
		}
		if err == nil {
			err = s.end()
		}
		if err == nil {
			err = malformed(r.SetPassword(user, password))
		}
		return d.unless(c, r, err)
	}
	return d.unless(c, r, malformed(d.wire.Exchange(mark, c.initial, d.limits, &r)))
}

// Abort answers an AUTHENTICATE without a credential (RFC 9051 section 6.2.2).
func (d *dialogue) Abort(_ proxy.Request, why error) error {
	c := d.pending
	d.pending = nil
	_, err := d.unless(c, proxy.Request{}, malformed(why))
	return err
}

// unless returns the request, or answers a syntax error.
func (d *dialogue) unless(c *command, r proxy.Request, err error) (proxy.Request, error) {
	if bad, ok := err.(syntaxError); ok {
		if err := d.skip(c); err != nil {
			return proxy.Request{}, err
		}
		return proxy.Request{}, d.wrong(c, string(bad))
	}
	if err != nil {
		return proxy.Request{}, err
	}
	return r, nil
}

// codes are the answers to a login, by class of refusal (RFC 5530). A policy
// refusal is UNAVAILABLE: among all codes it alone keeps Thunderbird, K-9,
// Evolution and Geary from asking for another password. It bends the code's
// meaning, a subsystem down, for people's sake. What becomes of each finding at
// each action and moment is in testdata/answers.txt.
var codes = map[proxy.Class]imap.ResponseCode{
	proxy.PolicyDeny:    imap.ResponseCodeUnavailable,
	proxy.PolicyTemp:    imap.ResponseCodeUnavailable,
	proxy.BadMech:       "", // RFC 9051 section 6.2.2: NO, unsupported mechanism
	proxy.BadCredential: imap.ResponseCodeAuthenticationFailed,
	proxy.NoAccess:      imap.ResponseCodeContactAdmin,
	proxy.Unavailable:   imap.ResponseCodeUnavailable,
}

// strict are the codes that a denial has by the letter, where they are preferred.
var strict = map[policy.Finding]imap.ResponseCode{
	policy.Plaintext: imap.ResponseCodePrivacyRequired, // RFC 5530: not permitted due to a lack of privacy
	policy.TLSOld:    imap.ResponseCodePrivacyRequired,
	policy.Mechanism: "", // RFC 9051 section 6.2.2: NO, unsupported mechanism
}

// code is the response code of a refusal, or "".
func (d *dialogue) code(ref proxy.Refusal) imap.ResponseCode {
	switch {
	case ref.Class == proxy.NoAccess && slices.Contains(access, imap.ResponseCode(ref.Code)):
		return imap.ResponseCode(ref.Code)
	case ref.Class == proxy.PolicyDeny && d.advert.Strict:
		if code, ok := strict[ref.Finding]; ok {
			return code
		}
		return imap.ResponseCodeContactAdmin // RFC 5530: what is left
	}
	return codes[ref.Class]
}

// Refuse answers a login or a chosen mechanism.
func (d *dialogue) Refuse(r proxy.Request, ref proxy.Refusal) error {
	if c := d.pending; c != nil {
		d.pending = nil
		if err := d.skip(c); err != nil {
			return err
		}
	}
	if ref.Challenge != nil {
		if _, err := d.wire.Challenge(mark, ref.Challenge, d.limits); err != nil {
			return err
		}
	}
	answer := r.Token + " NO "
	if (!d.advert.Secure || d.advert.Refusal != nil) && (ref.Class == proxy.PolicyDeny || ref.Class == proxy.PolicyTemp) {
		// Programs that ignore the code show an alert. It comes first:
		// Thunderbird forgets UNAVAILABLE when an alert follows it.
		answer = d.alert(ref.Text) + answer
	}
	if code := d.code(ref); code != "" {
		answer += "[" + string(code) + "] "
	}
	return d.wire.Say(answer + ref.Text + "\r\n")
}

// Accept gives the go-ahead for TLS, or passes the backend's reply on. A warning
// goes before it, as an alert.
func (d *dialogue) Accept(r proxy.Request, reply proxy.Reply, warning string) error {
	if r.Kind == proxy.StartTLS {
		return d.wire.Say(r.Token + " OK Begin TLS negotiation now.\r\n")
	}
	if warning != "" {
		d.alerted = false // that was about a login that failed
		if err := d.wire.Say(d.alert(warning)); err != nil {
			return err
		}
	}
	_, err := d.wire.Write(reply)
	return err
}

// Upgrade forgets what was said in clear (RFC 9051 section 6.2.1).
func (d *dialogue) Upgrade(a proxy.Advert) {
	*d = dialogue{wire: d.wire, advert: a, limits: d.limits}
}

// Bye is the last word (RFC 9051 section 7.1.5), in place of a greeting too.
func (d *dialogue) Bye(ref proxy.Refusal) error {
	return d.wire.Say("* BYE " + ref.Text + "\r\n")
}

// Client returns the fields of the client's ID.
func (d *dialogue) Client() proxy.Software { return proxy.Software{ID: d.id} }

// ok answers a command that was obeyed.
func (d *dialogue) ok(c *command, text string) error {
	return d.wire.Say(c.tag + " OK " + text + "\r\n")
}

// wrong answers a command that cannot be obeyed, and counts it.
func (d *dialogue) wrong(c *command, text string) error {
	if err := d.wire.Say(c.tag + " BAD " + text + "\r\n"); err != nil {
		return err
	}
	return d.limits.Strike(&d.bad)
}
