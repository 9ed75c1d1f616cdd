package imapfront

import (
	"testing"
	"testing/synctest"

	"mailreeve/proxy/proxytest"
)

// probe is the backend's side of being asked what it offers.
const probe = `
	B< * OK [CAPABILITY IMAP4rev1 SASL-IR LOGIN-REFERRALS ID ENABLE IDLE LITERAL+ AUTH=PLAIN] Dovecot ready.
`

// play runs a transcript in fake time.
func play(t *testing.T, listener, script string) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		t.Helper()
		proxytest.New(t, Front, probe).Play(listener, script)
	})
}

func TestLoginOverTLS(t *testing.T) {
	play(t, "implicit", `
		C! tls imap.test.example
		S: * OK [CAPABILITY IMAP4rev1 ID SASL-IR ENABLE IDLE LITERAL+ AUTH=PLAIN AUTH=LOGIN] proxy.test.example ready.
		C: a1 LOGIN anna@test.example "se\"cret"
		B< * OK [CAPABILITY IMAP4rev1 SASL-IR ID LITERAL+ AUTH=PLAIN] Dovecot ready.
		B: a1 LOGIN "anna@test.example" "se\"cret"
		B< * CAPABILITY IMAP4rev1 IDLE
		B< a1 OK [CAPABILITY IMAP4rev1 IDLE QUOTA] Logged in
		S: * CAPABILITY IMAP4rev1 IDLE
		S: a1 OK [CAPABILITY IMAP4rev1 IDLE QUOTA] Logged in
		C: a2 IDLE
		B: a2 IDLE
		B< + idling
		S: + idling
		C! close
		E: action=pass end=CR reason=client_closed mechanism=USERPASS account=anna@test.example verified=true host=canonical tls=1.3
	`)
}

func TestPlaintextIsRefused(t *testing.T) {
	play(t, "starttls", `
		S: * OK proxy.test.example ready.
		C: a CAPABILITY
		S: * OK [ALERT] Passwort ist NICHT falsch. Verschluesselung fehlt: bitte SSL/TLS, Server imap.test.example, Port 993 einstellen. https://h.test.example/a1 ({id})
		S: * CAPABILITY IMAP4rev1 ID STARTTLS LOGINDISABLED
		S: a OK CAPABILITY completed.
		C: b LOGIN anna secret
		S: b NO [UNAVAILABLE] Passwort ist NICHT falsch. {...}
		C: c LOGOUT
		S: * BYE Logging out.
		S: c OK LOGOUT completed.
		S.
		E: action=deny by=[encrypted] end=CD reason=client_quit exposed=true account= verified=
	`)
}

func TestStartTLS(t *testing.T) {
	play(t, "starttls", `
		S: * OK proxy.test.example ready.
		C: a STARTTLS
		S: a OK Begin TLS negotiation now.
		C! tls imap.test.example
		C: b AUTHENTICATE PLAIN AGFubmEAc2VjcmV0
		B< * OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN] ready
		B: b AUTHENTICATE PLAIN AGFubmEAc2VjcmV0
		B< b NO [AUTHENTICATIONFAILED] wrong
		S: b NO [AUTHENTICATIONFAILED] Benutzername oder Passwort ist falsch.
		C! close
		E: action=pass end=CD reason=client_closed entry=starttls attempts=1 account=
	`)
}
