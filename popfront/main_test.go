package popfront

import (
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
	B< +OK Dovecot ready.
	B: CAPA
	B< +OK
	B< CAPA
	B< TOP
	B< UIDL
	B< RESP-CODES
	B< PIPELINING
	B< AUTH-RESP-CODE
	B< STLS
	B< EXPIRE NEVER
	B< IMPLEMENTATION Dovecot
	B< USER
	B< SASL PLAIN LOGIN
	B< .
`

// bearerProbe is that of a backend that takes tokens.
const bearerProbe = `
	B< +OK Dovecot ready.
	B: CAPA
	B< +OK
	B< UIDL
	B< SASL PLAIN XOAUTH2 OAUTHBEARER
	B< .
`

// play runs a transcript in fake time, and holds what is true of every one.
func play(t *testing.T, listener, script string, set ...func(*proxytest.Rig)) {
	t.Helper()
	playWith(t, probe, listener, script, set...)
}

func playWith(t *testing.T, probe, listener, script string, set ...func(*proxytest.Rig)) {
	t.Helper()
	if !strings.Contains(script, "E: ") {
		t.Fatal("the transcript does not say what the event is")
	}
	synctest.Test(t, func(t *testing.T) {
		t.Helper()
		rig := proxytest.New(t, Front, probe)
		rig.Server = "198.51.100.1:110"
		for _, f := range set {
			f(rig)
		}
		rig.Play(listener, script)
		rig.WantNoSecret()
		for _, line := range rig.Heard {
			wantDecent(t, line)
		}
	})
}

// wrongPassword are the words that are kept for a wrong password, as is [AUTH].
const wrongPassword = "Benutzername oder Passwort ist falsch."

// wantDecent checks a line that the client heard.
func wantDecent(t *testing.T, line string) {
	t.Helper()
	text, refused := strings.CutPrefix(line, "-ERR ")
	if !refused {
		return
	}
	if len(line)+2 > 512 { // RFC 2449 section 4
		t.Errorf("%d bytes are too long: %s", len(line)+2, line)
	}
	if strings.ContainsFunc(line, func(c rune) bool { return c < ' ' || c > '~' }) {
		t.Errorf("not printable ASCII: %q", line)
	}
	if code, rest, ok := strings.Cut(text, "] "); ok && code[0] == '[' {
		text = rest
	}
	if len(text) > 200 {
		t.Errorf("%d characters are more than people read: %s", len(text), text)
	}
	if strings.Contains(line, "[AUTH]") != strings.Contains(line, wrongPassword) {
		t.Errorf("the words for a wrong password and something else in one line: %s", line)
	}
}

// open lets everything pass, as on the day of installation.
func open(r *proxytest.Rig) {
	p, err := policy.New("open", nil)
	if err != nil {
		panic(err)
	}
	r.Settings.Policy = p
}

// brownOut refuses plaintext for a while.
func brownOut(r *proxytest.Rig) {
	p, err := policy.New("brown-out", []policy.Requirement{{ID: "encrypted", Finding: policy.Plaintext,
		Stages:  []policy.Stage{{Do: policy.TempFail}},
		Require: policy.Matcher{{Fact: policy.TLS, Not: true, Values: []string{policy.None}}}}})
	if err != nil {
		panic(err)
	}
	r.Settings.Policy = p
}
