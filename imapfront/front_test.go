package imapfront

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"

	"go.uber.org/goleak"

	"mailreeve/policy"
	"mailreeve/proxy/proxytest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// probe is the backend's side of being asked what it offers.
const probe = `
	B< * OK [CAPABILITY IMAP4rev1 SASL-IR LOGIN-REFERRALS ID ENABLE IDLE LITERAL+ AUTH=PLAIN] Dovecot ready.
`

// greeting is what our list looks like over TLS with that backend.
const greeting = `
	S: * OK [CAPABILITY IMAP4rev1 ID SASL-IR ENABLE IDLE LITERAL+ AUTH=PLAIN AUTH=LOGIN] proxy.test.example ready.
`

// inTLS begins a session over implicit TLS.
const inTLS = `
	C! tls imap.test.example
` + greeting

// ready is the backend's greeting at a login.
const ready = `
	B< * OK [CAPABILITY IMAP4rev1 SASL-IR ID LITERAL+ AUTH=PLAIN AUTH=OAUTHBEARER AUTH=XOAUTH2] ready
`

// outage are the words where the backend is not well.
const outage = "[UNAVAILABLE] Der Mailserver ist gerade nicht erreichbar. Passwort ist NICHT falsch. Bitte spaeter erneut versuchen."

// wrong are those for a wrong password.
const wrong = "[AUTHENTICATIONFAILED] Benutzername oder Passwort ist falsch."

// setup is what transcripts are played on, one session each.
type setup struct {
	listener string // implicit, unless set
	probe    string
	change   func(*proxytest.Rig)
	cause    string // that the operators' log names, or empty
}

func (s setup) play(t *testing.T, scripts ...string) {
	t.Helper()
	if s.listener == "" {
		s.listener = "implicit"
	}
	if s.probe == "" {
		s.probe = probe
	}
	synctest.Test(t, func(t *testing.T) {
		t.Helper()
		r := proxytest.New(t, Front, s.probe)
		if s.change != nil {
			s.change(r)
		}
		for _, script := range scripts {
			r.Heard = nil
			r.Play(s.listener, script)
			checkHeard(t, r.Heard)
		}
		if s.cause != "" {
			logged(t, r, "could not be carried out", s.cause)
		}
		r.WantNoSecret()
	})
}

// play runs a transcript in fake time.
func play(t *testing.T, listener, script string) {
	t.Helper()
	setup{listener: listener}.play(t, script)
}

// observing is a policy that lets everybody in.
func observing(r *proxytest.Rig) {
	p, err := policy.New("observing", nil)
	if err != nil {
		panic(err)
	}
	r.Settings.Policy = p
}

// own are lines that are certainly ours: what a backend says passes as it is.
var own = regexp.MustCompile(`^(\* BYE|\* OK \[ALERT\]|\S+ NO|\S+ BAD)( \[[A-Z]+\])? (.*)$`)

// checkHeard holds what is true of every refusal in every session.
func checkHeard(t *testing.T, heard []string) {
	t.Helper()
	unavailable := false
	for _, line := range heard {
		m := own.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		if len(m[3]) > 200 || strings.ContainsFunc(line, func(c rune) bool { return c < ' ' || c > '~' }) {
			t.Errorf("too long or not ASCII: %q", line)
		}
		if unavailable && strings.HasPrefix(line, "* OK [ALERT]") {
			t.Errorf("an alert behind UNAVAILABLE: %q", heard)
		}
		unavailable = unavailable || m[2] == " [UNAVAILABLE]"
		blameless := strings.Contains(m[3], "NICHT falsch")
		if strings.HasSuffix(m[1], " NO") && blameless && (m[2] == "" && !strings.Contains(m[3], "Authentifizierung") || m[2] == " [AUTHENTICATIONFAILED]") {
			t.Errorf("looks like a wrong password: %q", line)
		}
		if m[2] == " [AUTHENTICATIONFAILED]" && blameless {
			t.Errorf("the code and the words differ: %q", line)
		}
	}
}

// logged wants a line of the operators' log with all the words.
func logged(t *testing.T, r *proxytest.Rig, words ...string) {
	t.Helper()
	for _, e := range r.Logs.All() {
		s, all := fmt.Sprint(e.Message, " ", e.ContextMap()), true
		for _, w := range words {
			all = all && strings.Contains(s, w)
		}
		if all {
			return
		}
	}
	t.Errorf("no line of the log has %q: %v", words, r.Logs.All())
}
