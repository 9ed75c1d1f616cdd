package smtpfront

import (
	"regexp"
	"strings"
	"testing"
	"testing/synctest"

	"go.uber.org/goleak"

	"mailreeve/policy"
	"mailreeve/proxy/proxytest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// offers is what the backend says to EHLO.
const offers = `
	B< 250-backend.test
	B< 250-PIPELINING
	B< 250-SIZE 10240000
	B< 250-STARTTLS
	B< 250-AUTH PLAIN LOGIN
	B< 250-AUTH=PLAIN LOGIN
	B< 250-XFORWARD NAME ADDR
	B< 250-ENHANCEDSTATUSCODES
	B< 250-8BITMIME
	B< 250-DSN
	B< 250-SMTPUTF8
	B< 250-X-NEW a=b c
	B< 250 CHUNKING
`

// probe is the backend's side of being asked what it offers.
const probe = `
	B< 220 backend.test ESMTP Postfix
	B: EHLO proxy.test.example
` + offers

// bearerProbe is that of a backend that takes tokens.
const bearerProbe = `
	B< 220 backend.test ESMTP
	B: EHLO proxy.test.example
	B< 250-backend.test
	B< 250 AUTH PLAIN XOAUTH2 OAUTHBEARER
`

// hello is a client's beginning over TLS.
const hello = `
	C! tls smtp.test.example
	S: 220 proxy.test.example ESMTP ready
	C: EHLO laptop.example
	S: 250-proxy.test.example
	S: 250-PIPELINING
	S: 250-SIZE 10240000
	S: 250-ENHANCEDSTATUSCODES
	S: 250-8BITMIME
	S: 250-DSN
	S: 250-SMTPUTF8
	S: 250-X-NEW a=b c
	S: 250-CHUNKING
	S: 250-AUTH PLAIN LOGIN
	S: 250 AUTH=PLAIN LOGIN
`

// begin is the backend's side of a login up to AUTH.
const begin = `
	B< 220 backend.test ESMTP Postfix
	B: EHLO laptop.example
	B< 250-backend.test
	B< 250-PIPELINING
	B< 250 AUTH PLAIN LOGIN XOAUTH2 OAUTHBEARER
`

// good is a login that is over.
const good = `
	B< 235 2.7.0 Authentication successful
	S: 235 2.7.0 Authentication successful
	C! close
`

// play runs a transcript in fake time, and holds what is true of every one.
func play(t *testing.T, listener, script string, set ...func(*proxytest.Rig)) *proxytest.Rig {
	t.Helper()
	return playWith(t, probe, listener, script, set...)
}

func playWith(t *testing.T, probe, listener, script string, set ...func(*proxytest.Rig)) (rig *proxytest.Rig) {
	t.Helper()
	if !strings.Contains(script, "E: ") {
		t.Fatal("the transcript does not say what the event is")
	}
	synctest.Test(t, func(t *testing.T) {
		t.Helper()
		rig = proxytest.New(t, Front, probe)
		rig.Server = "198.51.100.1:587"
		for _, f := range set {
			f(rig)
		}
		rig.Play(listener, script)
		rig.WantNoSecret()
		for _, line := range rig.Heard {
			wantDecent(t, line)
		}
	})
	return rig
}

// wrongPassword are the words that are kept for a wrong password, as is 535.
const wrongPassword = "Benutzername oder Passwort ist falsch."

var replyLine = regexp.MustCompile(`^([2345][0-9]{2})[ -](?:[245]\.[0-9]{1,3}\.[0-9]{1,3} )?(.*)$`)

// wantDecent checks a line that the client heard.
func wantDecent(t *testing.T, line string) {
	t.Helper()
	m := replyLine.FindStringSubmatch(line)
	if m == nil {
		return // of the relay
	}
	if len(line)+2 > 512 && m[1] != "334" { // RFC 5321 section 4.5.3.1.5
		t.Errorf("%d bytes are too long: %s", len(line)+2, line)
	}
	if m[1] >= "300" && strings.ContainsFunc(line, func(c rune) bool { return c < ' ' || c > '~' }) {
		t.Errorf("not printable ASCII: %q", line)
	}
	if m[1] >= "400" && len(m[2]) > 200 {
		t.Errorf("%d characters are more than people read: %s", len(m[2]), m[2])
	}
	if (m[1] == "535") != strings.Contains(line, wrongPassword) {
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

// brownOut refuses plaintext and old names for a while.
func brownOut(r *proxytest.Rig) {
	stages := []policy.Stage{{Do: policy.TempFail}}
	p, err := policy.New("brown-out", []policy.Requirement{
		{ID: "encrypted", Finding: policy.Plaintext, Stages: stages,
			Require: policy.Matcher{{Fact: policy.TLS, Not: true, Values: []string{policy.None}}}},
		{ID: "canonical-host", Finding: policy.LegacyHostname, Stages: stages,
			Require: policy.Matcher{{Fact: policy.Host, Not: true, Values: []string{policy.Legacy}}}},
	})
	if err != nil {
		panic(err)
	}
	r.Settings.Policy = p
}
