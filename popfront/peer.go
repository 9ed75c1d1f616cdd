package popfront

// The backend's side: banner, TLS, capabilities, XCLIENT and the login.

import (
	"encoding/base64"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"mailreeve/proxy"
)

const (
	// backendLine bounds a line of a backend. RFC 2449 section 4 has 512.
	backendLine = 4 << 10
	// backendLines bounds a list of a backend; the longest have some twenty lines.
	backendLines = 100
	// commandLine is the longest command (RFC 2449 section 4, RFC 5034 section
	// 4), line end included; a longer initial response waits for the prompt.
	commandLine = 255
)

// peer speaks as a client to a backend.
type peer struct {
	wire    *proxy.Wire
	origin  proxy.Origin
	xclient bool     // the backend trusts us to name the client
	stamp   string   // for APOP, from the greeting
	sent    []string // secrets that the backend was told, not to be repeated in a log
}

// Greeting reads the banner; Dovecot marks there whom it trusts.
func (p *peer) Greeting() error {
	line, err := p.expect()
	p.xclient = strings.Contains(line, "[XCLIENT]")
	p.stamp = stamp.FindString(line)
	return err
}

// stamp is the timestamp of a greeting (RFC 1939 section 7): an RFC 822 msg-id.
// It is repeated to clients, and they hash it, so it must be plain.
var stamp = regexp.MustCompile(`<[!-;=?-~]{1,200}>`)

// Stamp returns the timestamp.
func (p *peer) Stamp() string { return p.stamp }

// Resume says who stands behind the connection by now.
func (p *peer) Resume(o proxy.Origin) {
	o.Hostname, o.Forward, o.Header, o.Master = p.origin.Hostname, p.origin.Forward, p.origin.Header, p.origin.Master
	p.origin = o
}

// StartTLS asks for TLS (RFC 2595 section 4).
func (p *peer) StartTLS() error {
	if err := p.wire.Say("STLS\r\n"); err != nil {
		return err
	}
	_, err := p.expect()
	return err
}

// Offer returns the capabilities. A backend without CAPA offers what RFC 1939 has.
func (p *peer) Offer() (o proxy.Offer, err error) {
	defer func() {
		if p.stamp != "" {
			o.Mechs = append(o.Mechs, "APOP")
		}
	}()
	if p.xclient {
		o.Extensions = []string{"XCLIENT"} // said in the greeting only
	}
	if err := p.wire.Say("CAPA\r\n"); err != nil {
		return o, err
	}
	line, err := p.read()
	if err != nil || !good(line) {
		return o, err
	}
	for range backendLines {
		if line, err = p.read(); err != nil {
			return o, err
		}
		if line == "." {
			return o, nil
		}
		line = proxy.CleanText(line)
		o.Extensions = append(o.Extensions, line)
		if mechs, ok := strings.CutPrefix(strings.ToUpper(line), "SASL "); ok {
			o.Mechs = strings.Fields(mechs)
		}
	}
	return o, errors.New("the backend's list of capabilities does not end")
}

// Login forwards the facts and logs in. Passwords go by USER and PASS, which
// every server has; a token, or a login on behalf of another, by AUTH.
func (p *peer) Login(r proxy.Request) (proxy.Reply, error) {
	forward := ""
	if p.origin.Forward && p.xclient && p.origin.Client.IsValid() {
		forward = p.forward() + "\r\n"
	}
	mech, encoded, must := proxy.Response(r, p.origin.Master)
	p.sent = []string{encoded, r.Secret.Reveal()}
	first := "USER " + r.User
	if r.Through != nil {
		mech, encoded, must = r.Mech, r.Initial.Reveal(), true
		p.sent = []string{encoded}
	}
	if r.Mech == "APOP" {
		first, encoded = "APOP "+encoded, "" // RFC 1939 section 7
	} else if must {
		first = "AUTH " + mech
		if line := first + " " + encoded; encoded != "" && len(line)+2 <= commandLine {
			first, encoded = line, ""
		}
	}
	if err := p.wire.Say(forward + first + "\r\n"); err != nil {
		return nil, err
	}
	if forward != "" {
		if _, err := p.expect(); err != nil {
			return nil, fmt.Errorf("naming the client by XCLIENT: %w", err)
		}
	}
	if must {
		return p.finish(mech, encoded, r.Through)
	}
	line, err := p.read()
	if err != nil {
		return nil, err
	}
	if !good(line) {
		no := p.rejection(line, nil)
		if code(line) == "AUTH" {
			// Before the password this is about the connection, not the customer.
			no.Class = proxy.Unavailable
		}
		return nil, no
	}
	if err := p.wire.Say("PASS " + r.Secret.Reveal() + "\r\n"); err != nil {
		return nil, err
	}
	return p.finish("", "", nil)
}

// Quit takes its leave without waiting for the answer.
func (p *peer) Quit() { p.wire.Say("QUIT\r\n") }

// finish answers the backend's prompts, where a response is still to be sent,
// until it says yes or no. through is there where an exchange passes through: it
// bounds it.
func (p *peer) finish(mech, encoded string, through proxy.Responder) (proxy.Reply, error) {
	var challenge []byte
	for i := 0; i < 3 || through != nil; i++ { // the response, the answer to an error, the end
		line, err := p.read()
		if err != nil {
			return nil, err
		}
		text, more := strings.CutPrefix(line, "+ ")
		if line == "+" {
			text = ""
		}
		switch {
		case good(line):
			return proxy.Reply(line + "\r\n"), nil
		case !more && line != "+":
			return nil, p.rejection(line, challenge)
		case encoded == "" && through != nil:
			say, err := through.Respond(text)
			if err != nil {
				return nil, err
			}
			encoded = say.Reveal()
			p.sent = append(p.sent, encoded)
		case encoded == "" && !proxy.IsBearer(mech):
			return nil, errors.New("the backend asked for more than a password")
		case encoded == "":
			challenge, _ = base64.StdEncoding.DecodeString(text) // a bearer mechanism's error
			encoded = proxy.BearerDummy(mech)
		}
		if err := p.wire.Say(encoded + "\r\n"); err != nil {
			return nil, err
		}
		encoded = ""
	}
	return nil, errors.New("the backend asked for too much")
}

// forward is Dovecot's XCLIENT for POP3: one line of at most 1,024 bytes.
func (p *peer) forward() string {
	o := p.origin
	line := fmt.Sprintf("XCLIENT ADDR=%s PORT=%d DESTADDR=%s DESTPORT=%d SESSION=%s TTL=%d CLIENT-TRANSPORT=%s",
		o.Client.Addr(), o.Client.Port(), o.Server.Addr(), o.Server.Port(), o.Session, proxy.TTL, o.Transport())
	if o.SNI != "" {
		line += " DESTNAME=" + o.SNI
	}
	return line
}

// rejection says what an -ERR means.
func (p *peer) rejection(line string, challenge []byte) *proxy.Rejection {
	no := &proxy.Rejection{Class: proxy.Unavailable, Text: p.clean(line), Challenge: challenge}
	switch c := code(line); {
	case line != "-ERR" && !strings.HasPrefix(line, "-ERR "):
	case c == "IN-USE", c == "LOGIN-DELAY":
		no.Class, no.Code = proxy.NoAccess, c
	case c == "SYS/PERM", strings.HasPrefix(c, "SYS/PERM/"): // codes are hierarchical
		no.Class = proxy.NoAccess
	case strings.HasPrefix(c, "SYS/"):
	default:
		no.Class = proxy.BadCredential // a bare -ERR behind a credential means it
	}
	return no
}

// code returns the response code of a line (RFC 2449 section 8).
func code(line string) string {
	list, ok := strings.CutPrefix(strings.TrimPrefix(line, "-ERR "), "[")
	if !ok {
		return ""
	}
	word, _, _ := strings.Cut(list, "]")
	return strings.ToUpper(word)
}

// good tells a response that is not an error.
func good(line string) bool { return line == "+OK" || strings.HasPrefix(line, "+OK ") }

// expect reads a response that must be good.
func (p *peer) expect() (string, error) {
	line, err := p.read()
	if err == nil && !good(line) {
		err = fmt.Errorf("the backend said %q", p.clean(line))
	}
	return line, err
}

// read reads a response of one line (RFC 1939 section 3).
func (p *peer) read() (string, error) {
	line, err := p.wire.Line(backendLine)
	return string(line), err
}

// clean makes what the backend said fit for a log.
func (p *peer) clean(text string) string { return proxy.CleanTextBut(text, p.sent...) }
