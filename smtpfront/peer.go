package smtpfront

// The backend's side: greeting, EHLO, TLS, XCLIENT and AUTH.

import (
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"mailreeve/proxy"
)

const (
	// backendLine bounds a line of a backend; RFC 5321 section 4.5.3.1.5 has 512.
	backendLine = 4 << 10
	// backendLines bounds a reply of a backend; the longest have some twenty lines.
	backendLines = 100
	// commandLine is the longest command, line end included (RFC 5321 section
	// 4.5.3.1.4); a longer initial response waits for the prompt (RFC 4954 section 4).
	commandLine = 512
)

// peer speaks as a client to a backend.
type peer struct {
	wire       *proxy.Wire
	origin     proxy.Origin
	extensions []string // behind the first line of the reply to EHLO; nil: not known
	sent       []string // secrets that the backend was told, not to be repeated in a log
}

// Greeting wants 220: 554 is a no (RFC 5321 section 3.1).
func (p *peer) Greeting() error {
	_, err := p.expect(220)
	return err
}

// StartTLS asks for TLS (RFC 3207 section 4); what EHLO said is then forgotten.
func (p *peer) StartTLS() error {
	if err := p.ehlo(p.origin.Hostname); err != nil {
		return err
	}
	if _, ok := p.words("STARTTLS"); !ok {
		return errors.New("the backend does not offer STARTTLS")
	}
	p.extensions = nil
	_, err := p.ask("STARTTLS", 220)
	return err
}

// Offer returns the mechanisms and the lines of EHLO.
func (p *peer) Offer() (proxy.Offer, error) {
	if err := p.ehlo(p.origin.Hostname); err != nil {
		return proxy.Offer{}, err
	}
	if err := p.sealed(p.origin.Forward); err != nil {
		return proxy.Offer{}, err
	}
	mechs, _ := p.words("AUTH")
	return proxy.Offer{Mechs: mechs, Extensions: p.extensions}, nil
}

// Login forwards the facts and logs in. The backend hears the client's own
// EHLO argument, since its Received line is about the client.
func (p *peer) Login(r proxy.Request) (proxy.Reply, error) {
	named := p.origin.Forward && p.origin.Client.IsValid()
	if named {
		if err := p.ehlo(p.origin.Hostname); err != nil {
			return nil, err
		}
		if err := p.forward(); err != nil {
			return nil, fmt.Errorf("naming the client by XCLIENT: %w", err)
		}
	}
	if hello := p.origin.Software.Hello; hello == "" || p.ehlo(hello) != nil {
		// Some servers refuse names that customers' machines have; the login
		// shall be judged by the password.
		if err := p.ehlo(p.origin.Hostname); err != nil {
			return nil, err
		}
	}
	if err := p.sealed(named); err != nil {
		return nil, err
	}
	return p.login(r)
}

// Quit takes its leave without waiting for the answer.
func (p *peer) Quit() { p.wire.Say("QUIT\r\n") }

// login says AUTH and what the backend asks for behind it.
func (p *peer) login(r proxy.Request) (proxy.Reply, error) {
	mechs, _ := p.words("AUTH")
	mech, encoded, must := proxy.Response(r, p.origin.Master)
	queue := []string{encoded}
	if r.Through != nil {
		mech, must, queue = r.Mech, true, nil
		if r.Initial != "" {
			queue = []string{r.Initial.Reveal()}
		}
	}
	if !must && !slices.Contains(mechs, "PLAIN") {
		mech, queue = "LOGIN", []string{
			base64.StdEncoding.EncodeToString([]byte(r.User)),
			base64.StdEncoding.EncodeToString([]byte(r.Secret.Reveal())),
		}
	}
	if !slices.Contains(mechs, mech) {
		return nil, fmt.Errorf("the backend does not offer AUTH %s on this connection", mech)
	}
	p.sent = append(slices.Clone(queue), r.Secret.Reveal())
	command := "AUTH " + mech
	if len(queue) > 0 && mech != "LOGIN" {
		if line := command + " " + queue[0]; len(line)+2 <= commandLine {
			command, queue = line, nil
		}
	}
	if err := p.wire.Say(command + "\r\n"); err != nil {
		return nil, err
	}
	var challenge []byte
	for i := 0; i < 4 || r.Through != nil; i++ { // two responses of LOGIN and the end, with one to spare; Through has bounds of its own
		a, err := p.read()
		if err != nil {
			return nil, err
		}
		switch {
		case a.code == 235:
			return proxy.Reply(a.raw), nil
		case a.code != 334:
			return nil, p.rejection(a, challenge)
		}
		say := ""
		switch {
		case len(queue) > 0:
			say, queue = queue[0], queue[1:]
		case r.Through != nil:
			response, err := r.Through.Respond(a.lines[0])
			if err != nil {
				return nil, err
			}
			say = response.Reveal()
			p.sent = append(p.sent, say)
		case !proxy.IsBearer(mech):
			return nil, errors.New("the backend asked for more than a password")
		default:
			challenge, _ = base64.StdEncoding.DecodeString(a.lines[0]) // a bearer mechanism's error
			say = proxy.BearerDummy(mech)
		}
		if err := p.wire.Say(say + "\r\n"); err != nil {
			return nil, err
		}
	}
	return nil, errors.New("the backend asked for too much")
}

// forward names the client by XCLIENT (Postfix's XCLIENT_README): only
// attributes that are offered, as xtext, in lines of at most 512 bytes, the
// address last, since the right to use the command is looked at again for the
// new address. The session then begins anew with EHLO. LOGIN is not used: the
// backend shall check the password itself.
func (p *peer) forward() error {
	offered, ok := p.words("XCLIENT")
	if !ok {
		return errors.New("the backend does not offer it to us")
	}
	o := p.origin
	var attributes []string
	add := func(name, value string) {
		if slices.Contains(offered, name) && value != "" {
			attributes = append(attributes, name+"="+value)
		}
	}
	add("NAME", "[UNAVAILABLE]") // else the proxy's own names would stay
	add("REVERSE_NAME", "[UNAVAILABLE]")
	add("PROTO", "ESMTP")
	if hello := xtext(o.Software.Hello); len(hello) < commandLine/2 {
		add("HELO", hello)
	}
	add("SESSION", o.Session)
	add("CLIENT-TRANSPORT", o.Transport())
	add("DESTNAME", xtext(o.SNI))
	if o.Server.IsValid() {
		add("DESTADDR", literal(o.Server.Addr().String()))
		add("DESTPORT", strconv.Itoa(int(o.Server.Port())))
	}
	add("PORT", strconv.Itoa(int(o.Client.Port())))
	add("ADDR", literal(o.Client.Addr().String()))
	command := "XCLIENT"
	for i, a := range attributes {
		if command += " " + a; i < len(attributes)-1 && len(command)+1+len(attributes[i+1])+2 <= commandLine {
			continue
		}
		r, err := p.ask(command, 220)
		if r != nil && r.code == 501 && o.Client.Addr().Is6() {
			// Postfix with inet_protocols = ipv4 knows no such address. It takes
			// the client for unknown then, and so for nobody whom it trusts.
			_, err = p.ask("XCLIENT ADDR=[UNAVAILABLE]", 220)
		}
		if err != nil {
			return err
		}
		command = "XCLIENT"
	}
	return nil
}

// sealed makes sure that the backend takes no XCLIENT from us where we name
// nobody: after the login the relay is raw, and a customer's own XCLIENT would
// let him be anybody. Where the client was named, its own address decides.
func (p *peer) sealed(named bool) error {
	if _, ok := p.words("XCLIENT"); ok && !named && !p.origin.Header {
		return errors.New("the backend would take XCLIENT from customers, with any name: " +
			"set forward: [xclient], or take the proxy off smtpd_authorized_xclient_hosts")
	}
	return nil
}

// literal marks an IPv6 address (RFC 5321 section 4.1.3).
func literal(ip string) string {
	if strings.Contains(ip, ":") {
		return "IPV6:" + ip
	}
	return ip
}

// xtext encodes a value (RFC 3461 section 4).
func xtext(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c > ' ' && c < 0x7f && c != '+' && c != '=' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "+%02X", c)
		}
	}
	return b.String()
}

// rejection says what a refused AUTH means (RFC 4954 section 6).
func (p *peer) rejection(r *reply, challenge []byte) *proxy.Rejection {
	no := &proxy.Rejection{Class: proxy.Unavailable, Text: p.clean(r.String()), Challenge: challenge}
	switch r.code {
	case 535:
		no.Class = proxy.BadCredential
	case 525, 550, 554:
		no.Class = proxy.NoAccess
	}
	return no // 4xx is trouble, and other 5xx say that the way to the backend is set up wrongly
}

// ehlo says who speaks, and learns what the backend offers.
func (p *peer) ehlo(name string) error {
	r, err := p.ask("EHLO "+name, 250)
	if err != nil {
		return fmt.Errorf("saying EHLO: %w", err)
	}
	p.extensions = []string{}
	for _, line := range r.lines[1:] {
		if line = proxy.CleanText(line); line != "" {
			p.extensions = append(p.extensions, line)
		}
	}
	return nil
}

// words returns the arguments of an extension, and whether it is offered.
func (p *peer) words(name string) (args []string, ok bool) {
	for _, line := range p.extensions {
		f := strings.Fields(strings.ToUpper(strings.Replace(line, "=", " ", 1)))
		if len(f) > 0 && f[0] == name {
			args, ok = append(args, f[1:]...), true
		}
	}
	return args, ok
}

// ask sends a command and wants a certain code.
func (p *peer) ask(command string, want int) (*reply, error) {
	if err := p.wire.Say(command + "\r\n"); err != nil {
		return nil, err
	}
	return p.expect(want)
}

// expect reads a reply that must have a certain code.
func (p *peer) expect(want int) (*reply, error) {
	r, err := p.read()
	if err == nil && r.code != want {
		err = fmt.Errorf("the backend said %q", p.clean(r.String()))
	}
	return r, err
}

// reply is one reply, of one or more lines.
type reply struct {
	raw   []byte // as it came
	code  int
	lines []string // without codes
}

// String is the reply in one line.
func (r *reply) String() string { return strconv.Itoa(r.code) + " " + strings.Join(r.lines, " / ") }

// read reads a reply (RFC 5321 section 4.2.1).
func (p *peer) read() (*reply, error) {
	r := &reply{}
	for range backendLines {
		line, err := p.wire.Line(backendLine)
		if err != nil {
			return nil, err
		}
		s := string(line)
		if len(s) < 3 || len(s) > 3 && s[3] != ' ' && s[3] != '-' {
			return nil, fmt.Errorf("the backend said %q", p.clean(s))
		}
		code, err := strconv.Atoi(s[:3])
		if err != nil || code < 200 || code > 599 || r.code != 0 && code != r.code {
			return nil, fmt.Errorf("the backend said %q", p.clean(s))
		}
		r.code = code
		r.raw = append(append(r.raw, s...), "\r\n"...)
		r.lines = append(r.lines, s[min(4, len(s)):])
		if len(s) == 3 || s[3] == ' ' {
			return r, nil
		}
	}
	return nil, errors.New("the backend's reply does not end")
}

// clean makes what the backend said fit for a log.
func (p *peer) clean(text string) string { return proxy.CleanTextBut(text, p.sent...) }
