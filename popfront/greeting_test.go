package popfront

import (
	"testing"
	"testing/synctest"

	"mailreeve/proxy/proxytest"
)

// A timestamp in the greeting would invite APOP (RFC 1939 section 7); {...}
// is not used here, so the line is known to have none.
func TestGreetingInvitesNoAPOP(t *testing.T) {
	play(t, "starttls", `
		S: +OK proxy.test.example ready.
		C: QUIT
		S: +OK Bye.
		S.
		E: action=deny by=[encrypted] end=CD reason=client_quit protocol=pop3 entry=plain tls=none exposed= attempts= mechanism=
	`)
}

func TestCapabilitiesInClear(t *testing.T) {
	play(t, "starttls", `
		S: +OK proxy.test.example ready.
		C: CAPA
		S: +OK Capability list follows
		S: RESP-CODES
		S: AUTH-RESP-CODE
		S: TOP
		S: UIDL
		S: EXPIRE NEVER
		S: STLS
		S: .
		# The form of a draft, which lists the mechanisms.
		C: AUTH
		S: +OK
		S: .
		C: auth 
		S: +OK
		S: .
		C! close
		E: action=deny by=[encrypted] end=CD reason=client_closed exposed=
	`)
}

// Where plaintext is still borne everything is offered but PIPELINING: with it
// a client's password is on the wire before a refusal, on the day there is one.
func TestCapabilitiesInClearBorne(t *testing.T) {
	play(t, "starttls", `
		S: +OK proxy.test.example ready.
		C: capa
		S: +OK Capability list follows
		S: RESP-CODES
		S: AUTH-RESP-CODE
		S: TOP
		S: UIDL
		S: EXPIRE NEVER
		S: STLS
		S: USER
		S: SASL PLAIN LOGIN
		S: .
		C! close
		E: action=pass by= end=CD reason=client_closed
	`, open)
}

func TestCapabilitiesOverTLS(t *testing.T) {
	play(t, "implicit", `
		C! tls pop.test.example
		S: +OK proxy.test.example ready.
		C: CAPA
		S: +OK Capability list follows
		S: RESP-CODES
		S: AUTH-RESP-CODE
		S: TOP
		S: UIDL
		S: PIPELINING
		S: EXPIRE NEVER
		S: USER
		S: SASL PLAIN LOGIN
		S: .
		C: AUTH
		S: +OK
		S: PLAIN
		S: LOGIN
		S: .
		C: QUIT
		S: +OK Bye.
		S.
		E: action=pass end=CD reason=client_quit entry=implicit tls=1.3 host=canonical sni=pop.test.example
	`)
}

func TestCapabilitiesWithTokens(t *testing.T) {
	playWith(t, bearerProbe, "implicit", `
		C! tls pop.test.example
		S: +OK proxy.test.example ready.
		C: CAPA
		S: +OK Capability list follows
		S: RESP-CODES
		S: AUTH-RESP-CODE
		S: UIDL
		S: USER
		S: SASL PLAIN LOGIN OAUTHBEARER XOAUTH2
		S: .
		C! close
		E: action=pass end=CD reason=client_closed
	`)
}

// A backend without CAPA (RFC 1939 alone) is one with USER and PASS.
func TestBackendWithoutCapabilities(t *testing.T) {
	playWith(t, `
		B< +OK
		B: CAPA
		B< -ERR what?
	`, "implicit", `
		C! tls pop.test.example
		S: +OK proxy.test.example ready.
		C: CAPA
		S: +OK Capability list follows
		S: RESP-CODES
		S: AUTH-RESP-CODE
		S: USER
		S: SASL PLAIN LOGIN
		S: .
		C! close
		E: action=pass end=CD reason=client_closed
	`)
}

func TestHarmlessCommands(t *testing.T) {
	play(t, "implicit", `
		C! tls pop.test.example
		S: +OK proxy.test.example ready.
		C: NOOP
		S: +OK Nothing done.
		C: STAT
		S: -ERR Unknown command.
		C: 
		S: -ERR Unknown command.
		C: USER
		S: -ERR USER wants a mailbox name.
		C: USER \x
		S: +OK Send your password.
		C. USER a\u0001b\r\n
		S: -ERR USER wants a mailbox name.
		# The name before it is forgotten.
		C: PASS Kanarienvogel7
		S: -ERR USER comes first.
		C: XCLIENT ADDR=203.0.113.1
		S: -ERR Unknown command.
		C. NOOP\n
		S: +OK Nothing done.
		C: quit
		S: +OK Bye.
		S.
		E: action=pass end=CD reason=client_quit attempts=
	`)
}

// The backend is down and nobody has asked it before: what it offers is unknown.
func TestBackendDownIsToldBeforeThePassword(t *testing.T) {
	play(t, "implicit", `
		P! down
		C! tls pop.test.example
		S: -ERR [SYS/TEMP] Der Mailserver ist gerade nicht erreichbar. Passwort ist NICHT falsch. Bitte spaeter erneut versuchen.
		C: QUIT
		C! close
		E: action=pass end=BD reason=backend_unavailable refused=unavailable attempts= verified=
	`)
}

// With several brands, the name in a TLS still to come says whose backend it is:
// the outage is then told at USER.
func TestBackendDownIsToldAtUserBehindSTLS(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rig := proxytest.New(t, Front, probe)
		second := *rig.Settings.Brands[0]
		second.Name, second.Hosts = "second", map[string][]string{"pop3": {"pop.second.example"}}
		rig.Settings.Brands = append(rig.Settings.Brands, &second)
		rig.Play("starttls", `
			P! down
			S: +OK proxy.test.example ready.
			C: STLS
			S: +OK Begin TLS negotiation.
			C! tls pop.test.example
			C: USER anna
			S: -ERR [SYS/TEMP] Der Mailserver ist gerade nicht erreichbar. Passwort ist NICHT falsch. Bitte spaeter erneut versuchen.
			C: AUTH PLAIN
			S: -ERR [SYS/TEMP] Der Mailserver ist gerade nicht erreichbar. {...}
			C! close
			E: action=pass end=CD reason=client_closed attempts= verified=
		`)
	})
}

func TestTooManyConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rig := proxytest.New(t, Front, probe)
		rig.Settings.PerAddress = 1
		rig.Apply()
		first := rig.Connect("starttls")
		defer first.Close()
		synctest.Wait()
		rig.Play("starttls", `
			S: -ERR [SYS/TEMP] Zu viele Versuche. Bitte spaeter erneut verbinden.
			S.
		`)
	})
}
