package imapfront

import (
	"strings"
	"testing"
)

// bearing is a backend that takes tokens.
const bearing = `
	B< * OK [CAPABILITY IMAP4rev1 SASL-IR ID AUTH=PLAIN AUTH=OAUTHBEARER AUTH=XOAUTH2] ready
`

// inBearingTLS begins a session over implicit TLS with that backend.
const inBearingTLS = `
	C! tls imap.test.example
	S: * OK [CAPABILITY IMAP4rev1 ID SASL-IR AUTH=PLAIN AUTH=LOGIN AUTH=OAUTHBEARER AUTH=XOAUTH2] proxy.test.example ready.
`

const (
	plainAnna  = `{b64:\x00anna\x00Kanarienvogel7}`
	oauthAnna  = `{b64:n,a=anna@test.example,\x01host=imap.old.example\x01port=993\x01auth=Bearer Kanarienvogel7\x01\x01}`
	xoauthAnna = `{b64:user=anna@test.example\x01auth=Bearer Kanarienvogel7\x01\x01}`
)

func TestAuthenticateForms(t *testing.T) {
	for _, c := range []struct{ name, client, backend, event string }{
		{"PLAIN with initial response", "C: a AUTHENTICATE PLAIN " + plainAnna, "PLAIN " + plainAnna, "mechanism=PLAIN account=anna"},
		{"PLAIN without", "C: a AUTHENTICATE PLAIN\nS: + {b64:}\nC: " + plainAnna, "PLAIN " + plainAnna, "mechanism=PLAIN account=anna"},
		{"lower case", "C: a authenticate plain " + plainAnna, "PLAIN " + plainAnna, "mechanism=PLAIN"},
		{"a trailing space is no initial response", "C: a AUTHENTICATE PLAIN \nS: + {b64:}\nC: " + plainAnna, "PLAIN " + plainAnna, "mechanism=PLAIN"},
		{"PLAIN with authzid", `C: a AUTHENTICATE PLAIN {b64:bert\x00anna\x00Kanarienvogel7}`, `PLAIN {b64:bert\x00anna\x00Kanarienvogel7}`, "mechanism=PLAIN account=bert"},
		{"LOGIN", "C: a AUTHENTICATE LOGIN\nS: + VXNlcm5hbWU6\nC: {b64:anna}\nS: + UGFzc3dvcmQ6\nC: {b64:Kanarienvogel7}", "PLAIN " + plainAnna, "mechanism=LOGIN account=anna"},
		{"LOGIN with initial response", "C: a AUTHENTICATE LOGIN {b64:anna}\nS: + UGFzc3dvcmQ6\nC: {b64:Kanarienvogel7}", "PLAIN " + plainAnna, "mechanism=LOGIN account=anna"},
		{"LOGIN, Latin-1", "C: a AUTHENTICATE LOGIN\nS: + VXNlcm5hbWU6\nC: {b64:anna}\nS: + UGFzc3dvcmQ6\nC: {b64:M\\xfcller}", `PLAIN {b64:\x00anna\x00M\xfcller}`, "mechanism=LOGIN"},
		{"OAUTHBEARER", "C: a AUTHENTICATE OAUTHBEARER " + oauthAnna, "OAUTHBEARER " + oauthAnna, "mechanism=OAUTHBEARER account=anna@test.example"},
		{"OAUTHBEARER without", "C: a AUTHENTICATE OAUTHBEARER\nS: + {b64:}\nC: " + oauthAnna, "OAUTHBEARER " + oauthAnna, "mechanism=OAUTHBEARER"},
		{"XOAUTH2", "C: a AUTHENTICATE XOAUTH2 " + xoauthAnna, "XOAUTH2 " + xoauthAnna, "mechanism=XOAUTH2 account=anna@test.example"},
		{"XOAUTH2 without", "C: a AUTHENTICATE XOAUTH2\nS: + {b64:}\nC: " + xoauthAnna, "XOAUTH2 " + xoauthAnna, "mechanism=XOAUTH2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			setup{probe: bearing}.play(t, inBearingTLS+c.client+bearing+`
				B: a AUTHENTICATE `+c.backend+`
				B< a OK in
				S: a OK in
				C! close
				E: verified=true attempts=1 `+c.event+`
			`)
		})
	}
}

func TestAuthenticateMalformed(t *testing.T) {
	const noName, credential = "AUTHENTICATE wants the name of a mechanism.", "Malformed credential."
	for _, c := range []struct{ name, client, answer string }{
		{"no mechanism", "C: a AUTHENTICATE", noName},
		{"a quoted mechanism", `C: a AUTHENTICATE "PLAIN"`, noName},
		{"a long mechanism", "C: a AUTHENTICATE " + strings.Repeat("X", 21), noName},
		{"8-bit mechanism", `C. a AUTHENTICATE PL\xc4IN\r\n`, noName},
		{"cancelled", "C: a AUTHENTICATE PLAIN\nS: + {b64:}\nC: *", "AUTHENTICATE cancelled."},
		{"cancelled at the password", "C: a AUTHENTICATE LOGIN {b64:anna}\nS: + UGFzc3dvcmQ6\nC: *", "AUTHENTICATE cancelled."},
		{"empty initial response", "C: a AUTHENTICATE PLAIN =", credential},
		{"empty response", "C: a AUTHENTICATE PLAIN\nS: + {b64:}\nC: ", credential},
		{"no base64", "C: a AUTHENTICATE PLAIN !Kanarienvogel7!", credential},
		{"base64 cut short", "C: a AUTHENTICATE PLAIN AGFubmEAc2VjcmV", credential},
		{"base64 with a space", "C: a AUTHENTICATE PLAIN AGFu bmEA", credential},
		{"two parts", `C: a AUTHENTICATE PLAIN {b64:anna\x00Kanarienvogel7}`, credential},
		{"four parts", `C: a AUTHENTICATE PLAIN {b64:\x00anna\x00Kanarienvogel7\x00}`, credential},
		{"no name", `C: a AUTHENTICATE PLAIN {b64:\x00\x00Kanarienvogel7}`, credential},
		{"CRLF in the password", `C: a AUTHENTICATE PLAIN {b64:\x00anna\x00Kanarienvogel7\r\nb NOOP}`, credential},
		{"CRLF in the name", `C: a AUTHENTICATE PLAIN {b64:\x00an\r\nna\x00Kanarienvogel7}`, credential},
		{"CRLF in the authzid", `C: a AUTHENTICATE PLAIN {b64:x\r\n\x00anna\x00Kanarienvogel7}`, credential},
		{"empty name of LOGIN", "C: a AUTHENTICATE LOGIN =\nS: + UGFzc3dvcmQ6\nC: {b64:Kanarienvogel7}", credential},
		{"NUL in a LOGIN password", "C: a AUTHENTICATE LOGIN {b64:anna}\nS: + UGFzc3dvcmQ6\nC: {b64:x\\x00anna}", credential},
		{"token without an end", `C: a AUTHENTICATE XOAUTH2 {b64:user=anna\x01auth=Bearer Kanarienvogel7}`, credential},
		{"token for a channel", `C: a AUTHENTICATE OAUTHBEARER {b64:p=tls-exporter,a=anna,\x01auth=Bearer Kanarienvogel7\x01\x01}`, credential},
		{"a literal", `C. a AUTHENTICATE PLAIN {10+}\r\nx LOGOUT\r\n\r\n`, credential},
	} {
		t.Run(c.name, func(t *testing.T) {
			setup{probe: bearing}.play(t, inBearingTLS+c.client+`
				S: a BAD `+c.answer+`
				C: b NOOP
				S: b OK NOOP completed.
				C! close
				E: end=CD reason=client_closed attempts= backend=
			`)
		})
	}
}

// TestMechanismsRefused: what a policy forbids never sees a challenge, and is
// no wrong password.
func TestMechanismsRefused(t *testing.T) {
	for _, mech := range []string{"CRAM-MD5", "DIGEST-MD5", "NTLM", "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS", "GSSAPI", "ANONYMOUS", "EXTERNAL"} {
		for _, initial := range []string{"", " =", " {b64:Kanarienvogel7}"} {
			t.Run(mech+initial, func(t *testing.T) {
				play(t, "implicit", inTLS+`
					C: a AUTHENTICATE `+mech+initial+`
					S: a NO [UNAVAILABLE] Passwort ist NICHT falsch. Authentifizierung: "Passwort, normal" ({...}
					C: b NOOP
					S: b OK NOOP completed.
					C! close
					E: action=deny by=[password-only] mechanism=`+mech+` attempts= backend= exposed=
				`)
			})
		}
	}
	t.Run("under an old name", func(t *testing.T) {
		play(t, "implicit", `
			C! tls mail.old.example
		`+greeting+`
			C: a AUTHENTICATE CRAM-MD5
			S: a NO [UNAVAILABLE] Passwort ist NICHT falsch. {...}
			C! close
			E: action=deny by=[canonical-host_password-only] attempts= backend=
		`)
	})
	t.Run("unknown, to a policy that only looks", func(t *testing.T) {
		setup{change: observing}.play(t, inTLS+`
			C: a AUTHENTICATE CRAM-MD5
			S: a NO Dieses Anmeldeverfahren gibt es hier nicht. Bitte "Passwort, normal" einstellen.
			C: b AUTHENTICATE OAUTHBEARER `+oauthAnna+`
			S: b NO Dieses Anmeldeverfahren gibt es hier nicht. Bitte "Passwort, normal" einstellen.
			C! close
			E: action=pass attempts= backend=
		`)
	})
}

// TestBearerError: the backend's challenge with the error reaches the client,
// whose dummy answer goes nowhere (RFC 7628 section 3.2.3).
func TestBearerError(t *testing.T) {
	const status = `{b64:\x7b\"status\":\"401\"\x7d}`
	for _, c := range []struct{ mech, token, dummy string }{
		{"OAUTHBEARER", oauthAnna, "AQ=="},
		{"XOAUTH2", xoauthAnna, ""},
	} {
		t.Run(c.mech, func(t *testing.T) {
			setup{probe: bearing}.play(t, inBearingTLS+`
				C: a AUTHENTICATE `+c.mech+` `+c.token+bearing+`
				B: a AUTHENTICATE `+c.mech+` `+c.token+`
				B< + `+status+`
				B: `+c.dummy+`
				B< a NO [AUTHENTICATIONFAILED] no
				S: + `+status+`
				C: `+c.dummy+`
				S: a NO `+wrong+`
				C: b NOOP
				S: b OK NOOP completed.
				C! close
				E: end=CD attempts=1 verified=
			`)
		})
		t.Run(c.mech+" without a challenge", func(t *testing.T) {
			setup{probe: bearing}.play(t, inBearingTLS+`
				C: a AUTHENTICATE `+c.mech+` `+c.token+bearing+`
				B: a AUTHENTICATE `+c.mech+` `+c.token+`
				B< a NO [AUTHENTICATIONFAILED] no
				S: a NO `+wrong+`
				C! close
				E: end=CD attempts=1
			`)
		})
		t.Run(c.mech+" while the backend is ill", func(t *testing.T) {
			setup{probe: bearing}.play(t, inBearingTLS+`
				C: a AUTHENTICATE `+c.mech+` `+c.token+bearing+`
				B: a AUTHENTICATE `+c.mech+` `+c.token+`
				B< + `+status+`
				B: `+c.dummy+`
				B< a NO [UNAVAILABLE] no
				S: a NO `+outage+`
				C! close
				E: end=CD attempts=1
			`)
		})
	}
}

// TestBearerErrorTwice: one error is told, and nothing is asked for without end.
func TestBearerErrorTwice(t *testing.T) {
	for _, c := range []struct{ name, backend, cause string }{
		{"twice", "B< + {b64:error}\nB: AQ==\nB< + {b64:again}", "asked for more"},
		{"no base64", "B< + !", "illegal base64"},
	} {
		t.Run(c.name, func(t *testing.T) {
			setup{probe: bearing, cause: c.cause}.play(t, inBearingTLS+`
				C: a AUTHENTICATE OAUTHBEARER `+oauthAnna+bearing+`
				B: a AUTHENTICATE OAUTHBEARER `+oauthAnna+`
				`+c.backend+`
				S: a NO `+outage+`
				C: b NOOP
				S: b OK NOOP completed.
				C! close
				E: attempts=1 refused=unavailable
			`)
		})
	}
}

// TestLongTokens: a token of several KiB passes, on the line where it fits.
func TestLongTokens(t *testing.T) {
	token := func(n int) string {
		return `{b64:user=anna\x01auth=Bearer ` + strings.Repeat("Kanarienvogel7", n/14) + `\x01\x01}`
	}
	for _, c := range []struct{ name, client, backend string }{
		{"4 KiB", "C: a AUTHENTICATE XOAUTH2 " + token(4<<10), "B: a AUTHENTICATE XOAUTH2 " + token(4<<10)},
		{"8 KiB", "C: a AUTHENTICATE XOAUTH2 " + token(8<<10), "B: a AUTHENTICATE XOAUTH2\nB< + \nB: " + token(8<<10)},
		{"8 KiB behind a challenge", "C: a AUTHENTICATE XOAUTH2\nS: + {b64:}\nC: " + token(8<<10), "B: a AUTHENTICATE XOAUTH2\nB< +\nB: " + token(8<<10)},
	} {
		t.Run(c.name, func(t *testing.T) {
			setup{probe: bearing}.play(t, inBearingTLS+c.client+bearing+c.backend+`
				B< a OK in
				S: a OK in
				C! close
				E: verified=true
			`)
		})
	}
	for name, client := range map[string]string{
		"16 KiB":                    "C: a AUTHENTICATE XOAUTH2 " + strings.Repeat("QUJD", 4<<10),
		"16 KiB behind a challenge": "C: a AUTHENTICATE XOAUTH2\nS: + {b64:}\nC: " + strings.Repeat("QUJD", 4<<10),
	} {
		t.Run(name, func(t *testing.T) {
			setup{probe: bearing}.play(t, inBearingTLS+client+`
				S: * BYE Das ist nicht das Protokoll dieses Ports. Verbindung endet.
				S.
				E: end=PD reason=line_too_long attempts=
			`)
		})
	}
}
