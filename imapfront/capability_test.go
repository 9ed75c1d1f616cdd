package imapfront

import (
	"errors"
	"testing"

	"mailreeve/policy"
	"mailreeve/proxy/proxytest"
)

func TestHarmlessCommands(t *testing.T) {
	play(t, "implicit", inTLS+`
		C: 1 noop
		S: 1 OK NOOP completed.
		C: 2 Capability
		S: * CAPABILITY IMAP4rev1 ID SASL-IR ENABLE IDLE LITERAL+ AUTH=PLAIN AUTH=LOGIN
		S: 2 OK CAPABILITY completed.
		C: 3 ENABLE UTF8=ACCEPT IMAP4rev2
		S: * ENABLED
		S: 3 OK Nothing was enabled before the login.
		C: 4 LOGOUT
		S: * BYE Logging out.
		S: 4 OK LOGOUT completed.
		S.
		E: action=pass end=CD reason=client_quit attempts= mechanism=
	`)
}

// TestLiteralsOfHarmlessCommands: what a client sends as a literal is never
// taken for a command.
func TestLiteralsOfHarmlessCommands(t *testing.T) {
	play(t, "implicit", inTLS+`
		C. 1 NOOP {10+}\r\nx LOGOUT\r\n\r\n
		S: 1 OK NOOP completed.
		C. 2 ENABLE {10+}\r\nx LOGOUT\r\n {10+}\r\nx LOGOUT\r\n\r\n
		S: * ENABLED
		S: 2 OK Nothing was enabled before the login.
		C. 3 CAPABILITY {10+}\r\nx LOGOUT\r\n\r\n
		S: * CAPABILITY {...}
		S: 3 OK CAPABILITY completed.
		C. 4 AUTHENTICATE {10+}\r\nx LOGOUT\r\n\r\n
		S: 4 BAD AUTHENTICATE wants the name of a mechanism.
		C. 5 ID NIL {10+}\r\nx LOGOUT\r\n\r\n
		S: * ID ("name" "Mailreeve")
		S: 5 OK ID completed.
		C. 6 ID (\"name\" \"x\") {10+}\r\nx LOGOUT\r\n\r\n
		S: * ID ("name" "Mailreeve")
		S: 6 OK ID completed.
		C. 7 SELECT {10+}\r\nx LOGOUT\r\n\r\n
		S: 7 BAD Please log in first.
		C! close
		E: reason=client_closed
	`)
}

func TestCapabilitiesInClear(t *testing.T) {
	play(t, "starttls", `
		S: * OK proxy.test.example ready.
		C: a CAPABILITY
		S: * OK [ALERT] Passwort ist NICHT falsch. {...}
		S: * CAPABILITY IMAP4rev1 ID STARTTLS LOGINDISABLED
		S: a OK CAPABILITY completed.
		# An alert is shown once.
		C: b CAPABILITY
		S: * CAPABILITY IMAP4rev1 ID STARTTLS LOGINDISABLED
		S: b OK CAPABILITY completed.
		C! close
		E: action=deny end=CD exposed=
	`)
}

// TestCapabilitiesOfUpgrader: a client known to use STARTTLS is not warned of
// plaintext in the moment before it, and saves the round trip.
// A client that asks in clear and then upgrades is alerted once, and those from
// there that ask later are not.
func TestCapabilitiesOfUpgrader(t *testing.T) {
	setup{listener: "starttls"}.play(t, `
		S: * OK proxy.test.example ready.
		C: a CAPABILITY
		S: * OK [ALERT] Passwort ist NICHT falsch. {...}
		S: * CAPABILITY IMAP4rev1 ID STARTTLS LOGINDISABLED
		S: a OK CAPABILITY completed.
		C: a STARTTLS
		S: a OK Begin TLS negotiation now.
		C! tls imap.test.example
		C: b LOGOUT
		S: * BYE Logging out.
		S: b OK LOGOUT completed.
		E: action=pass entry=starttls
	`, `
		S: * OK proxy.test.example ready.
		C: a CAPABILITY
		S: * CAPABILITY IMAP4rev1 ID STARTTLS LOGINDISABLED
		S: a OK CAPABILITY completed.
		C: b LOGIN anna Kanarienvogel7
		S: * OK [ALERT] Passwort ist NICHT falsch. {...}
		S: b NO [UNAVAILABLE] Passwort ist NICHT falsch. {...}
		C! close
		E: action=deny exposed=true
	`)
}

// A client that upgrades without asking, as Thunderbird does, takes the alert from
// nobody who sits behind the same address.
func TestSilentUpgraderLeavesTheAlert(t *testing.T) {
	setup{listener: "starttls"}.play(t, `
		S: * OK proxy.test.example ready.
		C: a STARTTLS
		S: a OK Begin TLS negotiation now.
		C! tls imap.test.example
		C: b LOGOUT
		S: * BYE Logging out.
		S: b OK LOGOUT completed.
		E: action=pass entry=starttls
	`, `
		S: * OK proxy.test.example ready.
		C: a CAPABILITY
		S: * OK [ALERT] Passwort ist NICHT falsch. {...}
		S: * CAPABILITY IMAP4rev1 ID STARTTLS LOGINDISABLED
		S: a OK CAPABILITY completed.
		C! close
		E: action=deny
	`)
}

func TestTLSOnStartTLSPort(t *testing.T) {
	play(t, "starttls", `
		C! tls imap.test.example
	`+greeting+`
		C: a STARTTLS
		S: a BAD TLS is on already.
		C! close
		E: action=pass entry=implicit wrong_port=true
	`)
}

func TestPlaintextOnTLSPort(t *testing.T) {
	play(t, "implicit", `
		S: * BYE Port 993 braucht SSL/TLS. Bitte im Programm SSL/TLS einschalten.
		S.
		E: action=deny wrong_port=true reason=plaintext_on_tls_port
	`)
}

// TestCapabilitiesOfBackend: of the backend's list only what means the same
// here passes.
func TestCapabilitiesOfBackend(t *testing.T) {
	s := setup{probe: `
		B< * OK hello
		B: reeve1 CAPABILITY
		B< * CAPABILITY IMAP4rev1 imap4rev2 STARTTLS LOGINDISABLED COMPRESS=DEFLATE SASL-IR LITERAL- UNAUTHENTICATE QUOTA AUTH=CRAM-MD5 AUTH=SCRAM-SHA-256-PLUS AUTH=OAUTHBEARER AUTH=XOAUTH2
		B< reeve1 OK done
	`}
	s.play(t, `
		C! tls imap.test.example
		S: * OK [CAPABILITY IMAP4rev1 ID SASL-IR IMAP4rev2 LITERAL- AUTH=PLAIN AUTH=LOGIN AUTH=OAUTHBEARER AUTH=XOAUTH2] proxy.test.example ready.
		C! close
		E: reason=client_closed
	`)
}

func TestCapabilitiesWithoutBackend(t *testing.T) {
	s := setup{change: func(r *proxytest.Rig) { r.Unreachable(errors.New("connection refused")) }}
	s.play(t, `
		C! tls imap.test.example
		S: * OK [CAPABILITY IMAP4rev1 ID SASL-IR AUTH=PLAIN AUTH=LOGIN] proxy.test.example ready.
		C! close
		E: reason=client_closed
	`)
}

func TestCapabilitiesByPolicy(t *testing.T) {
	t.Run("observing", func(t *testing.T) {
		setup{listener: "starttls", change: observing}.play(t, `
			S: * OK [CAPABILITY IMAP4rev1 ID SASL-IR ENABLE IDLE LITERAL+ STARTTLS AUTH=PLAIN AUTH=LOGIN] proxy.test.example ready.
			C: a LOGIN anna Kanarienvogel7
		`+ready+`
			B: a LOGIN "anna" "Kanarienvogel7"
			B< a OK in
			S: a OK in
			C! close
			E: action=pass exposed=true tls=none account=anna
		`)
	})
	t.Run("no LOGIN command", func(t *testing.T) {
		s := setup{change: func(r *proxytest.Rig) {
			p, err := policy.New("strict", []policy.Requirement{{ID: "sasl", Finding: policy.Mechanism, Stages: []policy.Stage{{Do: policy.Deny}},
				Require: policy.Matcher{{Fact: policy.Mech, Values: []string{"PLAIN"}}}}})
			if err != nil {
				t.Fatal(err)
			}
			r.Settings.Policy = p
		}}
		s.play(t, `
			C! tls imap.test.example
			S: * OK [CAPABILITY IMAP4rev1 ID SASL-IR ENABLE IDLE LITERAL+ LOGINDISABLED AUTH=PLAIN] proxy.test.example ready.
			C: a LOGIN {4}
			S: a NO [UNAVAILABLE] Passwort ist NICHT falsch. Authentifizierung: {...}
			C: b AUTHENTICATE LOGIN
			S: b NO [UNAVAILABLE] Passwort ist NICHT falsch. Authentifizierung: {...}
			C! close
			E: action=deny by=[sasl] attempts=
		`)
	})
	t.Run("for a while", func(t *testing.T) {
		s := setup{listener: "starttls", change: func(r *proxytest.Rig) {
			p, err := policy.New("brown-out", []policy.Requirement{{ID: "encrypted", Finding: policy.Plaintext,
				Stages:  []policy.Stage{{Do: policy.TempFail}},
				Require: policy.Matcher{{Fact: policy.TLS, Not: true, Values: []string{policy.None}}}}})
			if err != nil {
				t.Fatal(err)
			}
			r.Settings.Policy = p
		}}
		s.play(t, `
			S: * OK proxy.test.example ready.
			C: a LOGIN anna Kanarienvogel7
			S: * OK [ALERT] Passwort ist NICHT falsch. {...}
			S: a NO [UNAVAILABLE] Passwort ist NICHT falsch. {...}
			C! close
			E: action=tempfail by=[encrypted] exposed=true
		`)
	})
}
