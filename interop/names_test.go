package interop

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
)

// gates are the four ports that customers are told of, by protocol and entry.
var gates = []struct {
	port     int
	protocol Protocol
	entry    Entry
}{{993, IMAP, Implicit}, {995, POP3, Implicit}, {465, Submission, Implicit}, {587, Submission, StartTLS}}

// named is a kind of name that a client may send.
type named struct {
	kind   string
	name   func(Protocol) string // "" for none
	host   string                // the fact
	passes bool
	own    bool // the certificate shown is for the name itself, not the canonical one of the port
}

var kindsOfNames = []named{
	{"canonical", func(p Protocol) string { return usualNames[p] }, "canonical", true, true},
	{"other service", func(p Protocol) string {
		return usualNames[map[Protocol]Protocol{IMAP: POP3, POP3: IMAP, Submission: IMAP}[p]]
	}, "other_service", false, true},
	{"legacy by suffix", func(p Protocol) string { return string(p) + ".alt.example" }, "legacy", false, false},
	{"legacy by label", func(Protocol) string { return "mail.kunde.example" }, "legacy", false, false},
	{"unknown", func(Protocol) string { return "www.fremd.example" }, "unknown", false, false},
	{"absent", func(Protocol) string { return "" }, "absent", true, false},
	// Against RFC 6066 section 3, as some programs do.
	{"IP", func(Protocol) string { return "127.0.0.1" }, "absent", true, false},
}

// namedProxy is a proxy with a certificate for each canonical name, so that it is seen which
// one a client is given.
func namedProxy(t *testing.T, rig *Rig) *Proxy {
	t.Helper()
	var files []string
	for _, p := range []Protocol{IMAP, POP3, Submission} {
		cert, key := rig.Certificate(t, usualNames[p])
		files = append(files, cert, key)
	}
	return rig.Start(t, Setup{Hop: Named, Certificates: certificateFiles(files...), Brands: fmt.Sprintf(`
  - name: example
    language: de
    help: https://h.example.test/a1
    hosts: { imap: [%s], pop3: [%s], submission: [%s] }
    legacy: ['*.alt.example', 'mail.*']
`, usualNames[IMAP], usualNames[POP3], usualNames[Submission])})
}

// wanted is what a refused customer is told, after the codes of the protocol: the right
// server for it, the port and where to get help.
func (n named) wanted(protocol Protocol) string {
	words := map[string]string{
		"other_service": `Servername gilt fuer (IMAP|POP3|SMTP)\. (IMAP|POP3|SMTP): `,
		"legacy":        `Neuer Servername: `,
		"unknown":       `Neuer Servername: `,
	}[n.host]
	port := map[Protocol]int{IMAP: 993, POP3: 995, Submission: 465}[protocol]
	return fmt.Sprintf(`Passwort ist NICHT falsch\. %s%s, Port %d, SSL/TLS\. https://h\.example\.test/a1 \([0-9A-Z]{12}\)`,
		words, regexp.QuoteMeta(usualNames[protocol]), port)
}

// Under each kind of name, at each port: which certificate openssl is shown, what it hears,
// and what the event says of the name.
func TestNamesOpenSSL(t *testing.T) {
	rig := StartServers(t)
	p := namedProxy(t, rig)
	for _, g := range gates {
		for _, n := range kindsOfNames {
			t.Run(fmt.Sprintf("%d %s", g.port, n.kind), func(t *testing.T) {
				a, events := rig.NewAccount(t, "secret"), p.Events.Here()
				e := p.At(g.protocol, g.entry)
				e.Host = n.name(g.protocol)
				k, shown := OpenSSL(t, e, g.protocol, rig.CAFile)
				subject, verify := usualNames[g.protocol], "62 (hostname mismatch)"
				if n.own {
					subject = e.Host
				}
				if e.Host == subject || e.Host == "" {
					verify = "0 (ok)"
				}
				if got := shown.Certificate.Subject.CommonName; got != subject {
					t.Errorf("the certificate is for %s and not %s", got, subject)
				}
				if shown.Verify != verify {
					t.Errorf("openssl thinks of the certificate: %s", shown.Verify)
				}

				switch { // at the moment that programs show the words
				case n.passes && g.protocol == IMAP:
					k.Ask("a LOGIN "+a.User+" secret", `^a OK `)
				case g.protocol == IMAP:
					k.Ask("a LOGIN "+a.User+" secret", `^a NO \[UNAVAILABLE\] `+n.wanted(g.protocol))
				case n.passes && g.protocol == POP3:
					k.Ask("USER "+a.User, `^\+OK`)
					k.Ask("PASS secret", `^\+OK Logged in`)
				case g.protocol == POP3:
					k.Ask("USER "+a.User, `^-ERR \[SYS/PERM\] `+n.wanted(g.protocol))
				default:
					k.Ask("EHLO pc.kunde.example", `^250 `)
					k.Ask("AUTH PLAIN "+a.SASLPlain(), `^235 `)
					if n.passes {
						k.Ask("MAIL FROM:<"+a.User+">", `^250 `)
					} else {
						k.Ask("MAIL FROM:<"+a.User+">", `^550 5\.7\.1 `+n.wanted(g.protocol))
					}
				}
				k.conn.Close()
				p.wantHost(t, events, n, e.Host)
			})
		}
	}
}

// wantHost waits for an event and holds it against the kind of name.
func (p *Proxy) wantHost(t *testing.T, events Log, n named, name string) {
	t.Helper()
	e := p.WaitEvent(t, events, n.kind, func(e Event) bool { return e.Host != "" })
	action, sni := "deny", name
	if n.passes {
		action = "pass"
	}
	if n.host == "absent" {
		sni = ""
	}
	if e.Host != n.host || e.Action != action || e.SNI != sni || n.passes != (len(e.By) == 0) {
		t.Errorf("%s: event %+v", n.kind, e)
	}
}

// curl, which looks at the name in a certificate, gets through under the canonical name
// alone. Told to look away, as people do, it is refused in words and not by a wrong password.
// Of an address as the host it sends none.
func TestNamesCurl(t *testing.T) {
	rig := StartServers(t)
	Require(t, "curl")
	p := namedProxy(t, rig)
	for _, g := range gates {
		for _, n := range kindsOfNames {
			if n.kind == "absent" {
				continue // curl sends every name
			}
			t.Run(fmt.Sprintf("%d %s", g.port, n.kind), func(t *testing.T) {
				a := rig.NewAccount(t, "secret")
				e := p.At(g.protocol, g.entry)
				e.Host = n.name(g.protocol)
				login := Login{Endpoint: e, Account: a, CAFile: rig.CAFile}
				subject := usualNames[g.protocol]
				if n.own {
					subject = e.Host
				}

				events := p.Events.Here()
				out, err := login.Do(t, curlOnce(g.protocol))
				if n.own && n.passes {
					if err != nil {
						t.Errorf("%v\n%s", err, out)
					}
				} else if !n.own && (err == nil || !strings.Contains(out, "SSL: no alternative certificate subject name matches")) {
					t.Errorf("the certificate is good enough for curl: %v\n%s", err, out)
				}
				if !n.own {
					// It has looked after the handshake, and just leaves.
					if e := p.WaitEvent(t, events, "curl left", func(Event) bool { return true }); e.Verified || e.Account != "" {
						t.Errorf("event %+v", e)
					}
				}

				events = p.Events.Here()
				out, err = login.Do(t, curlOnce(g.protocol, "--insecure"))
				if !strings.Contains(out, "subject: CN="+subject+"\n") {
					t.Errorf("the certificate is not the one for %s:\n%s", subject, out)
				}
				if n.passes != (err == nil) {
					t.Errorf("%v\n%s", err, out)
				}
				if !n.passes && !regexp.MustCompile(n.wanted(g.protocol)).MatchString(out) {
					t.Errorf("curl does not hear %q:\n%s", n.wanted(g.protocol), out)
				}
				if regexp.MustCompile(`AUTHENTICATIONFAILED|-ERR \[AUTH\]|< 535`).MatchString(out) {
					t.Errorf("these are the words for a wrong password:\n%s", out)
				}
				p.wantHost(t, events, n, e.Host)
			})
		}
	}
}

// curlOnce lists the inbox, or says a sender, and no more.
func curlOnce(protocol Protocol, args ...string) Action {
	return func(s *session) error {
		switch protocol {
		case IMAP:
			return s.curl("imap", "INBOX?ALL", args...)
		case POP3:
			return s.curl("pop3", "", args...)
		}
		return s.curl("smtp", "client.example", append(args, "--mail-from", s.User, "--mail-rcpt", s.User,
			"--upload-file", s.file("message", Message(s.Account, s.Account, "by name")))...)
	}
}
