package smtpfront

import (
	"strings"
	"testing"
)

// challenging is the probe of a backend that has all that passes, and some that does not.
const challenging = `
	B< 220 backend.test ESMTP Postfix
	B: EHLO proxy.test.example
	B< 250-backend.test
	B< 250 AUTH PLAIN NTLM CRAM-MD5 GSSAPI SCRAM-SHA-256 SCRAM-SHA-256-PLUS DIGEST-MD5
`

// challenged is a client's beginning there over TLS.
const challenged = `
	C! tls smtp.test.example
	S: 220 proxy.test.example ESMTP ready
	C: EHLO laptop.example
	S: 250-proxy.test.example
	S: 250-AUTH PLAIN LOGIN NTLM CRAM-MD5 SCRAM-SHA-256 DIGEST-MD5
	S: 250 AUTH=PLAIN LOGIN NTLM CRAM-MD5 SCRAM-SHA-256 DIGEST-MD5
`

const challengedInClear = `
	S: 220 proxy.test.example ESMTP ready
	C: EHLO laptop.example
	S: 250-proxy.test.example
	S: 250-STARTTLS
	S: 250-AUTH PLAIN LOGIN NTLM CRAM-MD5 SCRAM-SHA-256 DIGEST-MD5
	S: 250 AUTH=PLAIN LOGIN NTLM CRAM-MD5 SCRAM-SHA-256 DIGEST-MD5
`

// passes is the backend's side up to AUTH.
const passes = `
	B< 220 backend.test ESMTP Postfix
	B: EHLO laptop.example
	B< 250-backend.test
	B< 250 AUTH PLAIN NTLM CRAM-MD5 SCRAM-SHA-256 DIGEST-MD5
`

const (
	md5   = "c4c9334bac560ecc979e58001b3e22fb"
	type1 = `{b64:NTLMSSP\x00\x01\x00\x00\x00\x06\x82\x08\x00}`
	type2 = `{b64:NTLMSSP\x00\x02\x00\x00\x00\x00\x00\x00\x00}`
	none  = `\x00\x00\x00\x00\x34\x00\x00\x00`
	// type3 names anna: 52 bytes of head, then the name.
	type3   = `{b64:NTLMSSP\x00\x03\x00\x00\x00` + none + none + none + `\x08\x00\x08\x00\x34\x00\x00\x00` + none + `a\x00n\x00n\x00a\x00}`
	outage  = "S: 454 4.7.0 Der Mailserver ist gerade nicht erreichbar. {...}\n"
	unknown = "S: 504 5.5.4 Dieses Anmeldeverfahren gibt es hier nicht. {...}\n"
)

func TestPassage(t *testing.T) {
	long := strings.Repeat("x", 500)
	for _, c := range []struct{ mech, exchange string }{
		{"CRAM-MD5", "C: AUTH CRAM-MD5" + passes + `
			B: AUTH CRAM-MD5
			B< 334 {b64:<1896.697170952@postoffice.example>}
			S: 334 {b64:<1896.697170952@postoffice.example>}
			C: {b64:anna ` + md5 + `}
			B: {b64:anna ` + md5 + `}
		`},
		{"DIGEST-MD5", "C: AUTH DIGEST-MD5" + passes + `
			B: AUTH DIGEST-MD5
			B< 334 {b64:nonce=\"x\"}
			S: 334 {b64:nonce=\"x\"}
			C: {b64:username=\"anna\",realm=\"\",nonce=\"x\"}
			B: {b64:username=\"anna\",realm=\"\",nonce=\"x\"}
			B< 334 {b64:rspauth=ea40f60335c427b5527b84dbabcdfffd}
			S: 334 {b64:rspauth=ea40f60335c427b5527b84dbabcdfffd}
			C: 
			B: 
		`},
		{"SCRAM-SHA-256", "C: AUTH SCRAM-SHA-256 {b64:n,,n=anna,r=abc}" + passes + `
			B: AUTH SCRAM-SHA-256 {b64:n,,n=anna,r=abc}
			B< 334 {b64:r=abcdef,s=x,i=4096}
			S: 334 {b64:r=abcdef,s=x,i=4096}
			C: {b64:c=biws,r=abcdef,p=Kanarienvogel7}
			B: {b64:c=biws,r=abcdef,p=Kanarienvogel7}
			B< 334 {b64:v=signature}
			S: 334 {b64:v=signature}
			C: 
			B: 
		`},
		{"SCRAM-SHA-256", "C: AUTH SCRAM-SHA-256 {b64:n,,n=anna,r=" + long + "}" + passes + `
			# A line of more than 512 waits for the challenge.
			B: AUTH SCRAM-SHA-256
			B< 334 
			B: {b64:n,,n=anna,r=` + long + `}
		`},
		{"SCRAM-SHA-256", "C: AUTH SCRAM-SHA-256" + passes + `
			B: AUTH SCRAM-SHA-256
			B< 334 
			S: 334 
			C: {b64:n,,n=anna,r=abc}
			B: {b64:n,,n=anna,r=abc}
		`},
		{"NTLM", "C: AUTH NTLM " + type1 + passes + `
			B: AUTH NTLM ` + type1 + `
			B< 334 ` + type2 + `
			S: 334 ` + type2 + `
			C: ` + type3 + `
			B: ` + type3 + `
		`},
	} {
		t.Run(c.mech, func(t *testing.T) {
			playWith(t, challenging, "implicit", challenged+c.exchange+`
				B< 235 2.7.0  Authentication  successful
				S: 235 2.7.0  Authentication  successful
				C! close
				E: action=pass end=CR mechanism=`+c.mech+` account=anna verified=true attempts=1 exposed= backend=backend.test:1
			`, open)
			playWith(t, challenging, "starttls", challengedInClear+c.exchange+`
				B< 535 5.7.8 Error: authentication failed:
				S: 535 5.7.8 Benutzername oder Passwort ist falsch.
				C! close
				E: action=pass end=CD mechanism=`+c.mech+` account= verified= attempts=1 refused=credential exposed= tls=none
			`, open)
		})
	}
}

func TestPassageEnds(t *testing.T) {
	const cram = "C: AUTH CRAM-MD5" + passes + "B: AUTH CRAM-MD5\nB< 334 {b64:<x@y>}\nS: 334 {b64:<x@y>}\n"
	const answer = "C: {b64:anna " + md5 + "}\nB: {b64:anna " + md5 + "}\n"
	const on = "C: NOOP\nS: 250 2.0.0 OK\nC! close\n"
	for _, c := range []struct{ name, script, event string }{
		{"cancelled", cram + "C: *\nB: *\nB< 501 5.7.0 Authentication aborted\nS: 501 5.7.0 AUTH cancelled\n" + on, "end=CD attempts= refused="},
		{"malformed", cram + "C: {b64:anna}\nS: 501 5.5.2 Malformed credential\n" + on, "end=CD attempts="},
		{"over-long", cram + "C. " + strings.Repeat("x", 12<<10+3) + "\\r\\n\nS: 421 4.5.0 {...}\nS.\nC! close\n", "end=PL reason=line_too_long attempts="},
		{"backend dies", cram + answer + "B! close\n" + outage + on, "end=CD attempts=1 refused=unavailable"},
		{"backend repeats the response", "C: AUTH SCRAM-SHA-256 {b64:n,,n=anna,r=x}" + passes + "B: AUTH SCRAM-SHA-256 {b64:n,,n=anna,r=x}\nB< 334 {b64:r=xy}\nS: 334 {b64:r=xy}\n" +
			"C: {b64:c=biws,p=Kanarienvogel7}\nB: {b64:c=biws,p=Kanarienvogel7}\nB< 500 5.5.2 What is {b64:c=biws,p=Kanarienvogel7}?\n" + outage + on, "end=CD attempts=1"},
		{"not today", cram + answer + "B< 454 4.7.0 Temporary authentication failure\n" + outage + on, "end=CD attempts=1 refused=unavailable"},
		{"not known there", "C: AUTH CRAM-MD5" + passes + "B: AUTH CRAM-MD5\nB< 535 5.7.8 Error: no mechanism available\n" + outage + on, "end=CD attempts= refused=unavailable"},
		{"too many rounds", cram + answer + strings.Repeat("B< 334 {b64:more}\nS: 334 {b64:more}\n"+answer, 9) + "B< 334 {b64:more}\n" + outage + on, "end=CD attempts=1 refused=unavailable"},
		{"could bind", "C: AUTH SCRAM-SHA-256 {b64:y,,n=anna,r=x}\n" + unknown + on, "end=CD attempts= backend= refused=mechanism"},
		{"not passed", "C: AUTH GSSAPI\n" + unknown + on, "end=CD attempts= backend="},
	} {
		t.Run(c.name, func(t *testing.T) {
			playWith(t, challenging, "implicit", challenged+c.script+"E: action=pass verified= account= exposed= "+c.event, open)
		})
	}
}

// Under the built-in policy nothing of it is offered, whatever the backend has.
func TestNoPassage(t *testing.T) {
	playWith(t, challenging, "implicit", `
		C! tls smtp.test.example
		S: 220 proxy.test.example ESMTP ready
		C: EHLO laptop.example
		S: 250-proxy.test.example
		S: 250-AUTH PLAIN LOGIN
		S: 250 AUTH=PLAIN LOGIN
		C: AUTH CRAM-MD5
		S: 534 5.7.9 Passwort ist NICHT falsch. {...}
		C! close
		E: action=deny by=[password-only] attempts= backend=
	`)
}

// The client is named to the backend before its exchange.
func TestPassageForwards(t *testing.T) {
	playWith(t, challenging, "implicit", challenged+`
		C: AUTH CRAM-MD5
		B< 220 backend.test ESMTP Postfix
		B: EHLO proxy.test.example
		B< 250-backend.test
		B< 250-XCLIENT ADDR PORT
		B< 250 AUTH CRAM-MD5
		B: XCLIENT PORT=40000 ADDR=192.0.2.7
		B< 220 backend.test ESMTP Postfix
		B: EHLO laptop.example
		B< 250-backend.test
		B< 250 AUTH CRAM-MD5
		B: AUTH CRAM-MD5
		B< 334 {b64:<x@y>}
		S: 334 {b64:<x@y>}
		C: {b64:anna `+md5+`}
		B: {b64:anna `+md5+`}
		`+good+`
		E: mechanism=CRAM-MD5 account=anna verified=true
	`, open, forward)
}
