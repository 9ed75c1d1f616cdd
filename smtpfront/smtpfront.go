// Package smtpfront is the submission side of the proxy: the dialogue with the
// client up to its login, the login at the backend, and the words for every
// refusal.
//
// # Standards
//
// Done: submission (RFC 6409) up to the login: EHLO, HELO, NOOP, RSET, VRFY,
// HELP, QUIT (RFC 5321), AUTH (RFC 4954), STARTTLS (RFC 3207), enhanced status
// codes (RFC 2034, RFC 5248), OAUTHBEARER (RFC 7628). The form "AUTH=" of a
// draft is offered too, for Outlook up to 2003.
//
// Every extension of the backend is offered and passes, since the relay is raw
// (PIPELINING, SIZE, 8BITMIME, SMTPUTF8, DSN, CHUNKING and those to come), but
// for STARTTLS and AUTH, which are ours, and XCLIENT and XFORWARD, which no
// customer may use.
//
// Not done: a mail transaction without a login. This is no MX.
//
// Of go-smtp, the type of replies is used. Its server announces a list of its
// own; its client cannot list a server's extensions nor send XCLIENT.
package smtpfront

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/emersion/go-smtp"

	"mailreeve/policy"
	"mailreeve/proxy"
)

// Front is submission. An outage is told in place of the greeting: programs
// take any failure of AUTH, a temporary one too, for a wrong password.
var Front = &proxy.Front{
	Name:        "submission",
	Word:        "SMTP",
	ALPN:        "smtp",
	Port:        465,
	Mark:        mark,
	OutageEarly: true,
	Goodbye:     "421 4.3.2 Server is restarting, please connect again.\r\n", // RFC 5321 section 3.8
	Open: func(w *proxy.Wire, a proxy.Advert, l proxy.Limits) proxy.Dialogue {
		return &dialogue{wire: w, advert: a, limits: l}
	},
	Dial: func(w *proxy.Wire, o proxy.Origin) proxy.Peer {
		return &peer{wire: w, origin: o}
	},
}

const (
	// mark is what a SASL challenge stands behind (RFC 4954 section 4).
	mark = "334 "
	// maxHello is the longest domain (RFC 5321 section 4.5.3.1.2).
	maxHello = 255
)

// dialogue speaks with one client.
type dialogue struct {
	wire    *proxy.Wire
	advert  proxy.Advert
	limits  proxy.Limits
	bad     int
	hello   string         // argument of EHLO or HELO; empty: not yet said
	pending *command       // chosen, its credential not yet read
	denied  *proxy.Refusal // logged in, but nothing will be relayed
}

// command is one command line.
type command struct {
	name, rest string
	mech       string // of AUTH
	initial    string // response of AUTH, empty: none
}

func parse(line string) *command {
	name, rest, _ := strings.Cut(line, " ")
	return &command{name: strings.ToUpper(name), rest: strings.TrimSpace(rest)}
}

// Greet says who we are (RFC 5321 section 4.2).
func (d *dialogue) Greet() error {
	return d.say(220, smtp.NoEnhancedCode, d.advert.Hostname+" ESMTP ready")
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
	case "EHLO", "HELO": // RFC 5321 section 4.1.1.1
		return none, d.greeted(c)
	case "NOOP", "RSET": // RFC 5321 sections 4.1.1.9 and 4.1.1.5
		return none, d.say(250, fine, "OK")
	case "HELP": // RFC 5321 section 4.1.1.8
		return none, d.say(214, fine, "This is a submission server: EHLO, STARTTLS, AUTH, then send mail")
	case "VRFY": // RFC 5321 section 7.3 allows an answer that tells nothing
		return none, d.say(252, fine, "Send mail to find out")
	case "QUIT": // RFC 5321 section 4.1.1.10
		if err := d.say(221, fine, "Bye"); err != nil {
			return none, err
		}
		return none, proxy.Quit
	case "STARTTLS": // RFC 3207 section 4
		switch {
		case d.advert.Secure:
			return none, d.wrong(503, badSequence, "TLS is on already")
		case c.rest != "":
			return none, d.wrong(501, badArguments, "STARTTLS takes no argument")
		}
		return proxy.Request{Kind: proxy.StartTLS}, nil
	case "AUTH": // RFC 4954 section 4
		var secret bool
		c.mech, c.initial, secret = proxy.SplitAuth(c.rest)
		switch {
		case d.denied != nil:
			return none, d.wrong(503, badSequence, "You are logged in already")
		case d.hello == "":
			return none, d.wrong(503, badSequence, "EHLO comes first")
		case c.mech == "":
			return none, d.wrong(501, badArguments, "AUTH wants the name of a mechanism")
		}
		d.pending = c
		return proxy.Request{Kind: proxy.Chosen, Mech: c.mech, Initial: proxy.Secret(c.initial), Exposed: secret}, nil
	case "MAIL": // RFC 4954 section 6: not before a login
		if d.denied != nil {
			return none, d.deny()
		}
		d.pending = c
		return proxy.Request{Kind: proxy.Chosen, Token: c.name}, nil
	case "BDAT": // RFC 3030 section 2: what was announced follows at once
		if err := d.swallow(c); err != nil {
			return none, err
		}
		return none, d.wrong(503, badSequence, "MAIL comes first")
	case "RCPT", "DATA": // RFC 5321 section 4.1.4
		return none, d.wrong(503, badSequence, "MAIL comes first")
	case "EXPN", "ETRN", "TURN": // RFC 5321 section 4.2.4: known, and not for customers
		return none, d.wrong(502, badSequence, "Not implemented")
	}
	return none, d.wrong(500, badSyntax, "Unknown command")
}

// greeted answers EHLO with what is really offered now, and HELO. The argument
// goes into the event and to the backend, so what cannot stand in a domain is
// replaced: Windows names its machines with umlauts and spaces.
func (d *dialogue) greeted(c *command) error {
	if c.rest == "" || len(c.rest) > maxHello || strings.ContainsFunc(c.rest, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return d.wrong(501, badArguments, c.name+" wants a domain or an address")
	}
	d.hello = strings.Map(func(r rune) rune {
		if r == ' ' || r > 0x7f {
			return '-'
		}
		return r
	}, c.rest)
	if c.name == "HELO" {
		return d.say(250, smtp.NoEnhancedCode, d.advert.Hostname)
	}
	lines := append([]string{d.advert.Hostname}, d.extensions()...)
	var b strings.Builder
	for i, line := range lines {
		separator := "-"
		if i == len(lines)-1 {
			separator = " "
		}
		b.WriteString("250" + separator + line + "\r\n")
	}
	return d.wire.Say(b.String())
}

// own are extensions that a client must not take from the backend's list:
// those that end here, and those that would let it speak in our name.
var own = map[string]bool{"STARTTLS": true, "AUTH": true, "XCLIENT": true, "XFORWARD": true}

// extensions lists what is really offered now.
func (d *dialogue) extensions() []string {
	var lines []string
	for _, line := range d.advert.Extensions {
		name, _, _ := strings.Cut(strings.ToUpper(line), " ")
		name, _, _ = strings.Cut(name, "=")
		if !own[name] {
			lines = append(lines, line)
		}
	}
	if d.advert.Extensions == nil {
		lines = append(lines, "PIPELINING", "ENHANCEDSTATUSCODES") // what this dialogue bears itself
	}
	if !d.advert.Secure {
		lines = append(lines, "STARTTLS")
	}
	if mechs := strings.Join(d.advert.Mechs, " "); mechs != "" {
		lines = append(lines, "AUTH "+mechs, "AUTH="+mechs)
	}
	return lines
}

// swallow reads the chunk of a BDAT that cannot be obeyed, where it is small.
func (d *dialogue) swallow(c *command) error {
	size, _, _ := strings.Cut(c.rest, " ")
	n, err := strconv.ParseUint(size, 10, 63)
	if err != nil {
		return nil // no chunk follows a command without a size
	}
	if n > uint64(d.limits.Memory) {
		return proxy.Misspoke("data_before_login", "the client sent a chunk of %d bytes before its login", n)
	}
	_, err = d.wire.Bytes(int(n))
	return err
}

// Credential reads the credential of the command that was chosen.
func (d *dialogue) Credential() (proxy.Request, error) {
	c := d.pending
	d.pending = nil
	r := proxy.Request{Kind: proxy.Login, Mech: c.mech} // RFC 4954 section 4
	switch err := d.wire.Exchange(mark, c.initial, d.limits, &r); {
	case errors.Is(err, proxy.ErrCancelled), errors.Is(err, proxy.ErrMalformed):
		return proxy.Request{}, d.Abort(r, err)
	default:
		return r, err
	}
}

// Abort answers an AUTH without a credential (RFC 4954 section 4).
func (d *dialogue) Abort(_ proxy.Request, why error) error {
	d.pending = nil
	if errors.Is(why, proxy.ErrCancelled) {
		return d.wrong(501, smtp.EnhancedCode{5, 7, 0}, "AUTH cancelled")
	}
	return d.wrong(501, badSyntax, "Malformed credential")
}

// codes are the answers, by class of refusal (RFC 4954 section 6, RFC 5321
// section 4.2.3). 535 says that the credential is wrong and is kept for just that.
// What becomes of each finding at each action and moment is in testdata/answers.txt.
var codes = map[proxy.Class]smtp.SMTPError{
	proxy.PolicyDeny:    {Code: 530, EnhancedCode: smtp.EnhancedCode{5, 7, 0}},
	proxy.PolicyTemp:    {Code: 454, EnhancedCode: smtp.EnhancedCode{4, 7, 0}},
	proxy.NeedLogin:     {Code: 530, EnhancedCode: smtp.EnhancedCode{5, 7, 0}},
	proxy.BadMech:       {Code: 504, EnhancedCode: smtp.EnhancedCode{5, 5, 4}},
	proxy.BadCredential: {Code: 535, EnhancedCode: smtp.EnhancedCode{5, 7, 8}},
	proxy.NoAccess:      {Code: 525, EnhancedCode: smtp.EnhancedCode{5, 7, 13}},
	proxy.Unavailable:   {Code: 454, EnhancedCode: smtp.EnhancedCode{4, 7, 0}},
	proxy.LimitReached:  {Code: 421, EnhancedCode: smtp.EnhancedCode{4, 7, 0}},
	proxy.Misspoken:     {Code: 421, EnhancedCode: smtp.EnhancedCode{4, 5, 0}},
	proxy.TooLate:       {Code: 421, EnhancedCode: smtp.EnhancedCode{4, 4, 2}},
	proxy.ShuttingDown:  {Code: 421, EnhancedCode: smtp.EnhancedCode{4, 3, 2}},
	proxy.PlainOnTLS:    {Code: 554, EnhancedCode: smtp.EnhancedCode{5, 7, 0}},
}

// Refuse answers a login, a chosen mechanism or a MAIL without login. A login
// that was good and that policy refuses is accepted: programs show no text
// before MAIL, and ask for a password instead.
func (d *dialogue) Refuse(r proxy.Request, ref proxy.Refusal) error {
	d.pending = nil
	if ref.Verified {
		d.denied = &ref
		return d.say(235, smtp.EnhancedCode{2, 7, 0}, "Authentication successful")
	}
	if ref.Challenge != nil {
		if _, err := d.wire.Challenge(mark, ref.Challenge, d.limits); err != nil {
			return err
		}
	}
	return d.wire.Say(d.answer(r.Token == "MAIL", ref))
}

// answer is the reply to a request. A policy refusal reads differently where it
// comes: at MAIL, where programs show it, 450 and 550; at AUTH over TLS that is
// good it can only be about the mechanism (534, RFC 4954 section 6). By the letter
// a mechanism that wants encryption is 538 5.7.11 (RFC 5248); programs and manuals
// know 530.
func (d *dialogue) answer(atMail bool, ref proxy.Refusal) string {
	a := codes[ref.Class]
	switch {
	case ref.Class == proxy.PolicyTemp && atMail:
		a = smtp.SMTPError{Code: 450, EnhancedCode: smtp.EnhancedCode{4, 7, 0}}
	case ref.Class == proxy.PolicyDeny && !atMail && d.advert.Strict && (ref.Finding == policy.Plaintext || ref.Finding == policy.TLSOld):
		a = smtp.SMTPError{Code: 538, EnhancedCode: smtp.EnhancedCode{5, 7, 11}}
	case ref.Class == proxy.PolicyDeny && !atMail && d.advert.Secure && d.advert.Refusal == nil:
		a = smtp.SMTPError{Code: 534, EnhancedCode: smtp.EnhancedCode{5, 7, 9}}
	}
	a.Message = ref.Text
	return format(&a)
}

// deny answers MAIL after such a login.
func (d *dialogue) deny() error {
	a := smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 7, 1}, Message: d.denied.Text}
	if d.denied.Class == proxy.PolicyTemp {
		a.Code, a.EnhancedCode = 450, smtp.EnhancedCode{4, 7, 1}
	}
	if err := d.wire.Say(format(&a)); err != nil {
		return err
	}
	return d.limits.Strike(&d.bad)
}

// Accept gives the go-ahead for TLS, or passes the backend's reply on.
func (d *dialogue) Accept(r proxy.Request, reply proxy.Reply, _ string) error {
	if r.Kind == proxy.StartTLS {
		return d.say(220, fine, "Ready to start TLS")
	}
	_, err := d.wire.Write(reply)
	return err
}

// Upgrade forgets what was said in clear, EHLO included (RFC 3207 section 4.2).
func (d *dialogue) Upgrade(a proxy.Advert) {
	*d = dialogue{wire: d.wire, advert: a, limits: d.limits}
}

// Bye is the last word, in place of a greeting too (RFC 5321 section 3.1: 554;
// section 3.8: 421).
func (d *dialogue) Bye(ref proxy.Refusal) error {
	if ref.Class == proxy.Unavailable {
		return d.say(421, smtp.EnhancedCode{4, 3, 0}, ref.Text)
	}
	return d.wire.Say(d.answer(true, ref))
}

// Client returns the argument of EHLO.
func (d *dialogue) Client() proxy.Software { return proxy.Software{Hello: d.hello} }

// say answers a command, in one line.
func (d *dialogue) say(code int, enhanced smtp.EnhancedCode, text string) error {
	return d.wire.Say(format(&smtp.SMTPError{Code: code, EnhancedCode: enhanced, Message: text}))
}

// wrong answers a command that cannot be obeyed, and counts it.
func (d *dialogue) wrong(code int, enhanced smtp.EnhancedCode, text string) error {
	if err := d.say(code, enhanced, text); err != nil {
		return err
	}
	return d.limits.Strike(&d.bad)
}

// format writes a reply as it goes over the wire (RFC 5321 section 4.2.1, RFC 2034 section 4).
func format(r *smtp.SMTPError) string {
	if r.EnhancedCode == smtp.NoEnhancedCode {
		return fmt.Sprintf("%d %s\r\n", r.Code, r.Message)
	}
	return fmt.Sprintf("%d %d.%d.%d %s\r\n", r.Code, r.EnhancedCode[0], r.EnhancedCode[1], r.EnhancedCode[2], r.Message)
}

// Enhanced status codes (RFC 3463, RFC 5248).
var (
	fine         = smtp.EnhancedCode{2, 0, 0}
	badSequence  = smtp.EnhancedCode{5, 5, 1}
	badSyntax    = smtp.EnhancedCode{5, 5, 2}
	badArguments = smtp.EnhancedCode{5, 5, 4}
)
