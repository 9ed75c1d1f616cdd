package imapfront

import (
	"strings"
	"testing"

	"mailreeve/policy"
	"mailreeve/proxy/proxytest"
)

// challenging is the probe of a backend that has all that passes, and some that does not.
const challenging = `
	B< * OK [CAPABILITY IMAP4rev1 SASL-IR ID LITERAL+ AUTH=PLAIN AUTH=CRAM-MD5 AUTH=GSSAPI AUTH=SCRAM-SHA-256-PLUS AUTH=SCRAM-SHA-256 AUTH=DIGEST-MD5 AUTH=NTLM AUTH=EXTERNAL] ready
`

const (
	challenged = `
		C! tls imap.test.example
		S: * OK [CAPABILITY IMAP4rev1 ID SASL-IR LITERAL+ AUTH=PLAIN AUTH=LOGIN AUTH=CRAM-MD5 AUTH=SCRAM-SHA-256 AUTH=DIGEST-MD5 AUTH=NTLM] proxy.test.example ready.
	`
	challengedInClear = `
		S: * OK [CAPABILITY IMAP4rev1 ID SASL-IR LITERAL+ STARTTLS AUTH=PLAIN AUTH=LOGIN AUTH=CRAM-MD5 AUTH=SCRAM-SHA-256 AUTH=DIGEST-MD5 AUTH=NTLM] proxy.test.example ready.
	`
	md5   = "c4c9334bac560ecc979e58001b3e22fb"
	type1 = `{b64:NTLMSSP\x00\x01\x00\x00\x00\x06\x82\x08\x00}`
	type2 = `{b64:NTLMSSP\x00\x02\x00\x00\x00\x00\x00\x00\x00}`
	none  = `\x00\x00\x00\x00\x34\x00\x00\x00`
	// type3 names anna: 52 bytes of head, then the name.
	type3 = `{b64:NTLMSSP\x00\x03\x00\x00\x00` + none + none + none + `\x08\x00\x08\x00\x34\x00\x00\x00` + none + `a\x00n\x00n\x00a\x00}`
)

// noIR begins at a backend that takes no initial response.
const noIR = "\nB< * OK [CAPABILITY IMAP4rev1 AUTH=SCRAM-SHA-256 AUTH=CRAM-MD5] ready\n"

func TestPassage(t *testing.T) {
	for _, c := range []struct{ mech, exchange, account string }{
		{"CRAM-MD5", `
			C: a1 AUTHENTICATE CRAM-MD5
			` + challenging + `
			B: a1 AUTHENTICATE CRAM-MD5
			B< + {b64:<1896.697170952@postoffice.example>}
			S: + {b64:<1896.697170952@postoffice.example>}
			C: {b64:anna maria ` + md5 + `}
			B: {b64:anna maria ` + md5 + `}
		`, "anna_maria"},
		{"DIGEST-MD5", `
			C: a1 authenticate digest-md5
			` + challenging + `
			B: a1 AUTHENTICATE DIGEST-MD5
			B< + {b64:realm=\"\",nonce=\"x\",qop=\"auth\"}
			S: + {b64:realm=\"\",nonce=\"x\",qop=\"auth\"}
			C: {b64:username=\"anna\",authzid=\"info@test.example\",realm=\"\",nonce=\"x\"}
			B: {b64:username=\"anna\",authzid=\"info@test.example\",realm=\"\",nonce=\"x\"}
			B< + {b64:rspauth=ea40f60335c427b5527b84dbabcdfffd}
			S: + {b64:rspauth=ea40f60335c427b5527b84dbabcdfffd}
			C: 
			B: 
		`, "info@test.example"},
		{"SCRAM-SHA-256", `
			C: a1 AUTHENTICATE SCRAM-SHA-256 {b64:n,,n=anna,r=abc}
			` + challenging + `
			B: a1 AUTHENTICATE SCRAM-SHA-256 {b64:n,,n=anna,r=abc}
			B< + {b64:r=abcdef,s=x,i=4096}
			S: + {b64:r=abcdef,s=x,i=4096}
			C: {b64:c=biws,r=abcdef,p=Kanarienvogel7}
			B: {b64:c=biws,r=abcdef,p=Kanarienvogel7}
			B< + {b64:v=signature}
			S: + {b64:v=signature}
			C: 
			B: 
		`, "anna"},
		{"SCRAM-SHA-256", `
			# The backend takes no initial response: it waits for the empty challenge.
			C: a1 AUTHENTICATE SCRAM-SHA-256 {b64:n,,n=anna,r=abc}
			` + noIR + `
			B: a1 AUTHENTICATE SCRAM-SHA-256
			B< + 
			B: {b64:n,,n=anna,r=abc}
			B< + {b64:r=abcdef,s=x,i=4096}
			S: + {b64:r=abcdef,s=x,i=4096}
			C: {b64:c=biws,r=abcdef,p=Kanarienvogel7}
			B: {b64:c=biws,r=abcdef,p=Kanarienvogel7}
		`, "anna"},
		{"SCRAM-SHA-256", `
			C: a1 AUTHENTICATE SCRAM-SHA-256
			` + challenging + `
			B: a1 AUTHENTICATE SCRAM-SHA-256
			B< + 
			S: + 
			C: {b64:n,,n=anna,r=abc}
			B: {b64:n,,n=anna,r=abc}
		`, "anna"},
		{"NTLM", `
			C: a1 AUTHENTICATE NTLM ` + type1 + `
			` + challenging + `
			B: a1 AUTHENTICATE NTLM ` + type1 + `
			B< + ` + type2 + `
			S: + ` + type2 + `
			C: ` + type3 + `
			B: ` + type3 + `
		`, "anna"},
	} {
		t.Run(c.mech, func(t *testing.T) {
			setup{probe: challenging, change: observing}.play(t, challenged+c.exchange+`
				B< * CAPABILITY IMAP4rev1 NAMESPACE
				B< a1 OK [CAPABILITY IMAP4rev1 NAMESPACE]  Logged  in
				S: * CAPABILITY IMAP4rev1 NAMESPACE
				S: a1 OK [CAPABILITY IMAP4rev1 NAMESPACE]  Logged  in
				C! close
				E: action=pass end=CR mechanism=`+c.mech+` account=`+c.account+` verified=true attempts=1 exposed= backend=backend.test:1
			`)
			setup{listener: "starttls", probe: challenging, change: observing}.play(t, challengedInClear+c.exchange+`
				B< a1 NO [AUTHENTICATIONFAILED] Authentication failed.
				S: a1 NO `+wrong+`
				C! close
				E: action=pass end=CD mechanism=`+c.mech+` account= verified= attempts=1 refused=credential exposed=
			`)
		})
	}
}

func TestPassageEnds(t *testing.T) {
	const cram = "C: a AUTHENTICATE CRAM-MD5\n" + challenging + "B: a AUTHENTICATE CRAM-MD5\nB< + {b64:<x@y>}\nS: + {b64:<x@y>}\n"
	const on = "C: b NOOP\nS: b OK NOOP completed.\nC! close\n"
	for _, c := range []struct{ name, script, event string }{
		{"cancelled", cram + "C: *\nB: *\nB< a BAD Authentication aborted by client.\nS: a BAD AUTHENTICATE cancelled.\n" + on, "end=CD attempts= refused="},
		{"malformed", cram + "C: {b64:anna}\nS: a BAD Malformed credential.\n" + on, "end=CD attempts="},
		{"over-long", cram + "C. " + strings.Repeat("x", 12<<10+3) + "\\r\\n\nS: * BYE {...}\nS.\nC! close\n", "end=PL reason=line_too_long attempts="},
		{"backend dies", cram + "C: {b64:anna " + md5 + "}\nB: {b64:anna " + md5 + "}\nB! close\nS: a NO " + outage + "\n" + on, "end=CD attempts=1 refused=unavailable"},
		{"backend takes its leave", cram + "C: {b64:anna " + md5 + "}\nB: {b64:anna " + md5 + "}\nB< * BYE too late\nB! close\nS: a NO " + outage + "\n" + on, "end=CD attempts=1 refused=unavailable"},
		{"not today", cram + "C: {b64:anna " + md5 + "}\nB: {b64:anna " + md5 + "}\nB< a NO [UNAVAILABLE] no auth server\nS: a NO " + outage + "\n" + on, "end=CD attempts=1 refused=unavailable"},
		{"backend repeats the response", "C: a AUTHENTICATE SCRAM-SHA-256 {b64:n,,n=anna,r=x}\n" + challenging + "B: a AUTHENTICATE SCRAM-SHA-256 {b64:n,,n=anna,r=x}\nB< + {b64:r=xy}\nS: + {b64:r=xy}\n" +
			"C: {b64:c=biws,p=Kanarienvogel7}\nB: {b64:c=biws,p=Kanarienvogel7}\nB< a BAD What is {b64:c=biws,p=Kanarienvogel7}?\nS: a NO " + outage + "\n" + on, "end=CD attempts=1"},
		{"closed account", cram + "C: {b64:anna " + md5 + "}\nB: {b64:anna " + md5 + "}\nB< a NO [EXPIRED] too old\nS: a NO [EXPIRED] {...}\n" + on, "end=CD attempts=1 refused=no_access"},
		{"not known there", "C: a AUTHENTICATE CRAM-MD5\n" + challenging + "B: a AUTHENTICATE CRAM-MD5\nB< a NO Unsupported mechanism\nS: a NO " + outage + "\n" + on, "end=CD attempts= refused=unavailable"},
		{"no longer offered", "C: a AUTHENTICATE NTLM\n" + noIR + "S: a NO " + outage + "\n" + on, "end=CD attempts= refused=unavailable"},
		{"a literal", `C. a AUTHENTICATE SCRAM-SHA-256 {10+}\r\nx LOGOUT\r\n\r\n` + "\nS: a BAD Malformed credential.\n" + on, "end=CD attempts= backend="},
		{"could bind", "C: a AUTHENTICATE SCRAM-SHA-256 {b64:y,,n=anna,r=x}\nS: a NO Dieses Anmeldeverfahren gibt es hier nicht. {...}\n" + on, "end=CD attempts= backend= refused=mechanism"},
		{"not passed", "C: a AUTHENTICATE GSSAPI\nS: a NO Dieses Anmeldeverfahren gibt es hier nicht. {...}\n" + on, "end=CD attempts= backend="},
		{"too many rounds", cram + "C: {b64:anna " + md5 + "}\nB: {b64:anna " + md5 + "}\n" +
			strings.Repeat("B< + {b64:more}\nS: + {b64:more}\nC: {b64:anna "+md5+"}\nB: {b64:anna "+md5+"}\n", 9) + "B< + {b64:more}\nS: a NO " + outage + "\n" + on, "end=CD attempts=1 refused=unavailable"},
	} {
		t.Run(c.name, func(t *testing.T) {
			setup{probe: challenging, change: observing}.play(t, challenged+c.script+"E: action=pass verified= account= exposed= "+c.event)
		})
	}
}

// deniedName refuses old server names, and takes every mechanism.
func deniedName(r *proxytest.Rig) {
	proxytest.Under([]policy.Requirement{{ID: "host", Finding: policy.LegacyHostname, Stages: []policy.Stage{{Do: policy.Deny}},
		Require: policy.Matcher{{Fact: policy.Host, Values: []string{policy.Canonical, policy.Absent}}}}})(r)
}

// What policy denies over TLS for another reason than the mechanism is proved first.
func TestPassageDenied(t *testing.T) {
	old := strings.Replace(challenged, "imap.test.example", "mail.old.example", 1)
	for answer, rest := range map[string]string{
		"a OK in": `
			B: {...} LOGOUT
			S: a NO [UNAVAILABLE] Passwort ist NICHT falsch. {...}
			C! close
			E: action=deny by=[host] mechanism=CRAM-MD5 account=anna verified=true attempts=1 refused=policy
		`,
		"a NO [AUTHENTICATIONFAILED] no": `
			S: a NO ` + wrong + `
			C! close
			E: action=deny by=[host] mechanism=CRAM-MD5 account= verified= attempts=1 refused=credential
		`,
	} {
		setup{probe: challenging, change: deniedName}.play(t, old+`
			C: a AUTHENTICATE CRAM-MD5
			`+challenging+`
			B: a AUTHENTICATE CRAM-MD5
			B< + {b64:<x@y>}
			S: + {b64:<x@y>}
			C: {b64:anna `+md5+`}
			B: {b64:anna `+md5+`}
			B< `+answer+rest)
	}
	// Under the built-in policy nothing of it is offered, whatever the backend has.
	setup{probe: challenging}.play(t, `
		C! tls imap.test.example
		S: * OK [CAPABILITY IMAP4rev1 ID SASL-IR LITERAL+ AUTH=PLAIN AUTH=LOGIN] proxy.test.example ready.
		C: a AUTHENTICATE CRAM-MD5
		S: a NO [UNAVAILABLE] Passwort ist NICHT falsch. Authentifizierung: {...}
		C! close
		E: action=deny by=[password-only] attempts= backend=
	`, `
		C! tls mail.old.example
		S: * OK [CAPABILITY IMAP4rev1 ID SASL-IR LITERAL+ AUTH=PLAIN AUTH=LOGIN] proxy.test.example ready.
		C: a AUTHENTICATE CRAM-MD5
		S: a NO [UNAVAILABLE] Passwort ist NICHT falsch. {...}
		C! close
		E: action=deny by=[canonical-host_password-only] attempts= backend=
	`)
}

// The client is named to the backend before its exchange, in one write with it.
func TestPassageForwards(t *testing.T) {
	setup{probe: challenging, change: func(r *proxytest.Rig) { observing(r); forwarding(r) }}.play(t, challenged+`
		C: a AUTHENTICATE CRAM-MD5
		`+challenging+`
		B: reeve1 ID ("x-originating-ip" "192.0.2.7" {...}
		B: a AUTHENTICATE CRAM-MD5
		B< * ID NIL
		B< reeve1 OK ID completed.
		B< + {b64:<x@y>}
		S: + {b64:<x@y>}
		C: {b64:anna `+md5+`}
		B: {b64:anna `+md5+`}
		B< a OK in
		S: a OK in
		C! close
		E: account=anna verified=true
	`)
}
