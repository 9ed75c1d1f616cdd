package interop

import (
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// What each program says on the wire when it does not trust the certificate: the alert, or
// nothing, since it looks at the certificate when the handshake is over for it, and leaves.
var distrust = map[string]string{
	"curl":      "unknown_ca", // OpenSSL, within the handshake, as in the next ones
	"fetchmail": "unknown_ca",
	"Python":    "unknown_ca",
	"swaks":     "unknown_ca",
	"mbsync":    "", // OpenSSL, but it asks for the result later
	"mpop":      "", // GnuTLS leaves it to the program
	"msmtp":     "",
	"neomutt":   "",
}

// A client that refuses the certificate is counted as that, by the alert that it sends. One
// that just leaves is one that leaves.
func TestCertificateRefused(t *testing.T) {
	t.Parallel()
	rig := StartServers(t)
	p := namedProxy(t, rig)
	other := filepath.Join(t.TempDir(), "other.pem")
	_, err := newAuthority(other)
	must(t, err)
	for _, c := range Clients {
		if c.Name == "neomutt IMAP" || c.Name == "neomutt POP3" {
			continue // it asks the person at the terminal, and waits
		}
		t.Run(c.Name, func(t *testing.T) {
			Require(t, c.Programs...)
			e := p.At(c.Protocol, Implicit)
			if c.Send != nil {
				e = p.At(c.Protocol, StartTLS)
			}
			a, events := rig.NewAccount(t, "secret"), p.Events.Here()
			act := c.List
			if c.Send != nil {
				act = c.Send(a, Bert, Message(a, Bert, "never"))
			}
			said, err := Login{Endpoint: e, Account: a, CAFile: other}.Do(t, act)
			if err == nil {
				t.Errorf("it trusts the certificate:\n%s", said)
			}
			name, _, _ := strings.Cut(c.Name, " ")
			p.wantRefused(t, events, distrust[name], "") // localhost is no name of a mail server
		})
	}
	for _, version := range []string{"-tls1_2", "-tls1_3"} {
		for _, g := range gates {
			t.Run("openssl "+version+" "+strconv.Itoa(g.port), func(t *testing.T) {
				events, e := p.Events.Here(), p.At(g.protocol, g.entry)
				e.Host = "imap.alt.example"
				args := append(opensslArgs(e, g.protocol, other), "-verify_return_error", version)
				said, err := run(t, patience, "openssl", args...)
				if err == nil || !regexp.MustCompile(`(?i)unable to get local issuer|self.signed`).MatchString(said) {
					t.Errorf("openssl trusts the certificate: %v\n%s", err, said)
				}
				p.wantRefused(t, events, "unknown_ca", e.Host)
			})
		}
	}
	// The chain is good, the name is not: TLS has no alert for that alone (RFC 8446 section 6.2).
	t.Run("openssl, another name", func(t *testing.T) {
		events, e := p.Events.Here(), p.IMAPS
		e.Host = "imap.alt.example"
		args := append(opensslArgs(e, IMAP, rig.CAFile), "-verify_return_error")
		if said, err := run(t, patience, "openssl", args...); err == nil || !strings.Contains(said, "hostname mismatch") {
			t.Errorf("openssl trusts the certificate: %v\n%s", err, said)
		}
		p.wantRefused(t, events, "bad_certificate", e.Host)
	})
}

// wantRefused waits for the event of a client that does not like the certificate.
func (p *Proxy) wantRefused(t *testing.T, events Log, alert, name string) {
	t.Helper()
	e := p.WaitEvent(t, events, "a refused certificate", func(Event) bool { return true })
	if e.Alert != alert || e.SNI != name || e.Verified || e.Account != "" || (e.Reason == "certificate_refused") != (alert != "") || e.End[0] != 'C' {
		t.Errorf("event %+v", e)
	}
	if len(events.events(t)) != 1 {
		t.Errorf("it came more than once:\n%s", events.Text())
	}
}
