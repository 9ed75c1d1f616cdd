package popfront

import (
	"strings"
	"testing"

	"mailreeve/proxy/proxytest"
)

func TestSTLS(t *testing.T) {
	play(t, "starttls", `
		S: +OK proxy.test.example ready.
		C: STLS
		S: +OK Begin TLS negotiation.
		C! tls pop.test.example
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
		C: STLS
		S: -ERR TLS is on already.
		C: USER anna
		S: +OK Send your password.
		C: PASS Kanarienvogel7
		B< +OK ready
		B: USER anna
		B< +OK
		B: PASS Kanarienvogel7
		B< +OK Logged in.
		S: +OK Logged in.
		C! close
		E: action=pass by= entry=starttls tls=1.3 end=CR exposed= verified=true account=anna
	`)
}

// CVE-2011-0411 and its many successors.
func TestSTLSInjection(t *testing.T) {
	play(t, "starttls", `
		S: +OK proxy.test.example ready.
		C. STLS\r\nUSER eve\r\n
		S: -ERR Das ist nicht das Protokoll dieses Ports. Verbindung endet.
		C! close
		E: action=deny end=PD reason=starttls_injection entry=plain tls=none mechanism=
	`)
}

// A name given in clear is forgotten (RFC 2595 section 4).
func TestSTLSForgets(t *testing.T) {
	play(t, "starttls", `
		S: +OK proxy.test.example ready.
		C: USER eve
		S: +OK Send your password.
		C: STLS
		S: +OK Begin TLS negotiation.
		C! tls pop.test.example
		C: PASS Kanarienvogel7
		S: -ERR USER comes first.
		C! close
		E: action=pass entry=starttls end=CD mechanism=USERPASS exposed= account=
	`, open)
}

// The verdict of before is forgotten too: after it, TLS is as good as ever.
func TestSTLSAfterRefusal(t *testing.T) {
	play(t, "starttls", `
		S: +OK proxy.test.example ready.
		C: USER anna
		S: -ERR [SYS/PERM] Passwort ist NICHT falsch. {...}
		C: STLS
		S: +OK Begin TLS negotiation.
		C! tls pop.test.example
		C: USER anna
		S: +OK Send your password.
		C! close
		E: action=pass by= entry=starttls end=CD
	`)
}

// "SSL" set on port 110: served, and noted.
func TestTLSOnPlainPort(t *testing.T) {
	play(t, "starttls", `
		C! tls pop.test.example
		S: +OK proxy.test.example ready.
		C: STLS
		S: -ERR TLS is on already.
		C! close
		E: action=pass entry=implicit wrong_port=true end=CD
	`)
}

// "no encryption" set on port 995: the words come in clear, whether the client
// speaks or waits for a greeting.
func TestPlainOnTLSPort(t *testing.T) {
	play(t, "implicit", `
		C: USER anna
		S: -ERR [SYS/PERM] Port 995 braucht SSL/TLS. Bitte im Programm SSL/TLS einschalten.
		C! close
		E: end=PS reason=plaintext_on_tls_port wrong_port=true tls=none mechanism=
	`)
	play(t, "implicit", `
		C! wait 4s
		S: -ERR [SYS/PERM] Port 995 braucht SSL/TLS. {...}
		C! close
		E: end=PS reason=plaintext_on_tls_port wrong_port=true tls=none
	`)
}

// An old host name: the words come at USER, where the name is known and the
// password is not yet sent; SASL is hidden, since nobody shows its refusal.
func TestOldHostNameIsToldAtUser(t *testing.T) {
	play(t, "implicit", `
		C! tls pop.old.example
		S: +OK proxy.test.example ready.
		C: CAPA
		S: +OK Capability list follows
		S: RESP-CODES
		S: AUTH-RESP-CODE
		S: TOP
		S: UIDL
		S: EXPIRE NEVER
		S: USER
		S: .
		C: AUTH
		S: +OK
		S: .
		C: USER anna
		S: -ERR [SYS/PERM] Passwort ist NICHT falsch. Neuer Servername: pop.test.example, Port 995, SSL/TLS. https://h.test.example/a1 ({id})
		C: PASS Kanarienvogel7
		S: -ERR [SYS/PERM] Passwort ist NICHT falsch. {...}
		C: AUTH PLAIN {b64:\x00anna\x00Kanarienvogel7}
		S: -ERR [SYS/PERM] Passwort ist NICHT falsch. {...}
		C! close
		E: action=deny by=[canonical-host] host=legacy sni=pop.old.example end=CD verified= account= exposed= backend=
	`)
}

// An old host name and an old mechanism: neither is asked for a credential.
func TestOldMechanismsOverTLS(t *testing.T) {
	play(t, "implicit", `
		C! tls pop.test.example
		S: +OK proxy.test.example ready.
		C: AUTH CRAM-MD5
		S: -ERR [SYS/PERM] Passwort ist NICHT falsch. Authentifizierung: "Passwort, normal" (SSL/TLS bleibt an, SPA aus). https://h.test.example/a1 ({id})
		C: APOP anna c4c9334bac560ecc979e58001b3e22fb
		S: -ERR [SYS/PERM] Passwort ist NICHT falsch. Authentifizierung: {...}
		C! close
		E: action=deny by=[password-only] mechanism=APOP end=CD account=
	`)
	// Without a policy against them they are just not known here.
	play(t, "implicit", `
		C! tls pop.test.example
		S: +OK proxy.test.example ready.
		C: AUTH CRAM-MD5
		S: -ERR Dieses Anmeldeverfahren gibt es hier nicht. {...}
		C: APOP anna c4c9334bac560ecc979e58001b3e22fb
		S: -ERR Dieses Anmeldeverfahren gibt es hier nicht. {...}
		C: AUTH XOAUTH2
		S: -ERR Dieses Anmeldeverfahren gibt es hier nicht. {...}
		C! close
		E: action=pass mechanism=XOAUTH2 end=CD
	`, open)
}

func english(r *proxytest.Rig) { r.Settings.Brands[0].Language = "en" }

func TestEnglish(t *testing.T) {
	play(t, "starttls", `
		S: +OK proxy.test.example ready.
		C: USER anna
		S: -ERR [SYS/PERM] Your password is NOT wrong. Encryption is missing: SSL/TLS, server pop.test.example, port 995. https://h.test.example/a1 ({id})
		C! close
		E: action=deny
	`, english)
}

// A name that is for something else, or nobody's, is told at USER as an old one is.
func TestWrongHostNameIsToldAtUser(t *testing.T) {
	for name, says := range map[string]string{
		"imap.test.example host=other_service": "Servername gilt fuer IMAP. POP3: pop.test.example",
		"mx.nobody.example host=unknown":       "Neuer Servername: pop.test.example",
	} {
		sni, host, _ := strings.Cut(name, " ")
		play(t, "implicit", `
			C! tls `+sni+`
			S: +OK proxy.test.example ready.
			C: USER anna
			S: -ERR [SYS/PERM] Passwort ist NICHT falsch. `+says+`, Port 995, SSL/TLS. https://h.test.example/a1 ({id})
			C! close
			E: action=deny by=[canonical-host] sni=`+sni+` `+host+` end=CD verified= backend=
		`)
	}
}

// Where old TLS is served in order to be explained, that is done at USER too.
func TestOldTLSIsToldAtUser(t *testing.T) {
	play(t, "implicit", `
		C! old pop.test.example
		S: +OK proxy.test.example ready.
		C: CAPA
		S: +OK Capability list follows
		S: RESP-CODES
		S: AUTH-RESP-CODE
		S: TOP
		S: UIDL
		S: EXPIRE NEVER
		S: USER
		S: .
		C: USER anna
		S: -ERR [SYS/PERM] Passwort ist NICHT falsch. Programm ist veraltet: TLS 1.2 fehlt. https://h.test.example/a1 ({id})
		C! close
		E: action=deny by=[modern-tls] tls=1.0 end=CD verified= exposed= backend=
	`, proxytest.DenyOldTLS)
}
