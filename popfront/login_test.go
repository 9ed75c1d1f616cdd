package popfront

import "testing"

// A password may have spaces and be of any character set: it is the rest of the
// line, as it is (RFC 1939 section 7).
func TestPasswordsAreOpaque(t *testing.T) {
	play(t, "implicit", `
		C! tls pop.test.example
		S: +OK proxy.test.example ready.
		C: USER anna@test.example
		S: +OK Send your password.
		C. PASS  zwei  Worte \xfc\xc3\xbc%s \r\n
		B< +OK ready
		B: USER anna@test.example
		B< +OK

	`+"\t\tB: PASS  zwei  Worte \xfc\xc3\xbc%s \n"+`
		B< +OK Logged in.
		S: +OK Logged in.
		C! close
		E: action=pass end=CR reason=client_closed mechanism=USERPASS account=anna@test.example domain=test.example user_form=address verified=true attempts=1 backend=backend.test:1
	`)
}

// A name may be padded; a mechanism refused in between takes it back.
func TestNames(t *testing.T) {
	play(t, "implicit", `
		C! tls pop.test.example
		S: +OK proxy.test.example ready.
		C: USER bert
		S: +OK Send your password.
		C: AUTH GSSAPI
		S: -ERR Dieses Anmeldeverfahren gibt es hier nicht. {...}
		C: PASS Kanarienvogel7
		S: -ERR USER comes first.
		C: user  anna maria 
		S: +OK Send your password.
		C: pass Kanarienvogel7
		B< +OK ready
		B: USER anna maria
		B< +OK
		B: PASS Kanarienvogel7
		B< +OK Logged in.
		S: +OK Logged in.
		C! close
		E: action=pass end=CR account=anna_maria verified=true attempts=1
	`, open)
}

// What could not be said on the backend's wire without doubt is refused here.
func TestMalformedPasswords(t *testing.T) {
	play(t, "implicit", `
		C! tls pop.test.example
		S: +OK proxy.test.example ready.
		C: USER anna
		S: +OK Send your password.
		C. PASS a\rDELE 1\r\n
		S: -ERR Malformed credential.
		C. PASS a\r\n
		S: -ERR USER comes first.
		C: USER anna
		S: +OK Send your password.
		C. PASS a\x00b\r\n
		S: -ERR Malformed credential.
		C. AUTH PLAIN {b64:\x00anna\x00a\r\nDELE 1}\r\n
		S: -ERR Malformed credential.
		C. AUTH PLAIN {b64:\x00anna\r\nDELE 1\x00b}\r\n
		S: -ERR Malformed credential.
		C! close
		E: action=pass end=CD attempts= backend=
	`)
}

// A client that pipelines sends everything at once; what is behind its login
// goes to the backend first (RFC 2449 section 6.6).
func TestPipelinedLogin(t *testing.T) {
	play(t, "implicit", `
		C! tls pop.test.example
		S: +OK proxy.test.example ready.
		C. USER anna\r\nPASS Kanarienvogel7\r\nSTAT\r\nUIDL
		S: +OK Send your password.
		B< +OK ready
		B: USER anna
		B< +OK
		B: PASS Kanarienvogel7
		B< +OK Logged in.
		S: +OK Logged in.
		B: STAT
		C. \r\n
		B: UIDL
		B< +OK 1 120
		S: +OK 1 120
		C: QUIT
		B: QUIT
		B< +OK Bye.
		B! close
		S: +OK Bye.
		S.
		C! close
		E: action=pass end=BR reason=backend_closed bytes_in=50
	`)
}

func TestSASLPlain(t *testing.T) {
	const rest = `
		B< +OK ready
		B: USER anna
		B< +OK
		B: PASS Kanarienvogel7
		B< +OK Logged in.
		S: +OK Logged in.
		C! close
		E: action=pass end=CR mechanism=PLAIN account=anna verified=true attempts=1
	`
	play(t, "implicit", `
		C! tls pop.test.example
		S: +OK proxy.test.example ready.
		C: AUTH PLAIN {b64:\x00anna\x00Kanarienvogel7}
	`+rest)
	play(t, "implicit", `
		C! tls pop.test.example
		S: +OK proxy.test.example ready.
		C: AUTH plain 
		S: + 
		C: {b64:\x00anna\x00Kanarienvogel7}
	`+rest)
}

// With an authorization identity of another, the backend must be asked by SASL.
func TestSASLPlainForAnother(t *testing.T) {
	play(t, "implicit", `
		C! tls pop.test.example
		S: +OK proxy.test.example ready.
		C: AUTH PLAIN {b64:info@test.example\x00anna\x00Kanarienvogel7}
		B< +OK ready
		B: AUTH PLAIN {b64:info@test.example\x00anna\x00Kanarienvogel7}
		B< +OK Logged in.
		S: +OK Logged in.
		C! close
		E: action=pass end=CR mechanism=PLAIN account=info@test.example verified=true
	`)
}

// Thunderbird takes exactly these prompts: "Username:" and "Password:".
func TestSASLLogin(t *testing.T) {
	const rest = `
		S: + UGFzc3dvcmQ6
		C: {b64:Kanarienvogel7}
		B< +OK ready
		B: USER anna
		B< +OK
		B: PASS Kanarienvogel7
		B< +OK Logged in.
		S: +OK Logged in.
		C! close
		E: action=pass end=CR mechanism=LOGIN account=anna verified=true
	`
	play(t, "implicit", `
		C! tls pop.test.example
		S: +OK proxy.test.example ready.
		C: AUTH LOGIN
		S: + VXNlcm5hbWU6
		C: {b64:anna}
	`+rest)
	play(t, "implicit", `
		C! tls pop.test.example
		S: +OK proxy.test.example ready.
		C: AUTH LOGIN {b64:anna}
	`+rest)
}

func TestSASLNonsense(t *testing.T) {
	play(t, "implicit", `
		C! tls pop.test.example
		S: +OK proxy.test.example ready.
		C: AUTH PLAIN
		S: + 
		C: *
		S: -ERR AUTH cancelled.
		C: AUTH PLAIN *
		S: -ERR AUTH cancelled.
		C: AUTH PLAIN =
		S: -ERR Malformed credential.
		C: AUTH PLAIN this is no base64
		S: -ERR Malformed credential.
		C: AUTH PLAIN {b64:anna}
		S: -ERR Malformed credential.
		C: AUTH LOGIN
		S: + VXNlcm5hbWU6
		C: 
		S: + UGFzc3dvcmQ6
		C: 
		S: -ERR Malformed credential.
		C: AUTH KANARIENVOGEL7-IS-NO-MECHANISM
		S: -ERR AUTH wants the name of a mechanism.
		C: AUTH "
		S: -ERR AUTH wants the name of a mechanism.
		C! close
		E: action=pass end=CD reason=client_closed attempts= mechanism=LOGIN
	`)
}

func TestTokens(t *testing.T) {
	const rest = `
		B< +OK Logged in.
		S: +OK Logged in.
		C! close
		E: action=pass end=CR account=anna verified=true
	`
	playWith(t, bearerProbe, "implicit", `
		C! tls pop.test.example
		S: +OK proxy.test.example ready.
		C: AUTH XOAUTH2 {b64:user=anna\x01auth=Bearer Kanarienvogel7\x01\x01}
		B< +OK ready
		B: AUTH XOAUTH2 {b64:user=anna\x01auth=Bearer Kanarienvogel7\x01\x01}
	`+rest)
	playWith(t, bearerProbe, "implicit", `
		C! tls pop.test.example
		S: +OK proxy.test.example ready.
		C: AUTH OAUTHBEARER
		S: + 
		C: {b64:n,a=anna,\x01host=pop.test.example\x01port=995\x01auth=Bearer Kanarienvogel7\x01\x01}
		B< +OK ready
		B: AUTH OAUTHBEARER {b64:n,a=anna,\x01host=pop.test.example\x01port=995\x01auth=Bearer Kanarienvogel7\x01\x01}
	`+rest)
}

// A response that does not fit into a line of 255 waits for the prompt (RFC 5034 section 4).
func TestLongToken(t *testing.T) {
	const token = `{b64:user=anna\x01auth=Bearer Kanarienvogel7` +
		`xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx` +
		`xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\x01\x01}`
	playWith(t, bearerProbe, "implicit", `
		C! tls pop.test.example
		S: +OK proxy.test.example ready.
		C: AUTH XOAUTH2 `+token+`
		B< +OK ready
		B: AUTH XOAUTH2
		B< + 
		B: `+token+`
		B< +OK Logged in.
		S: +OK Logged in.
		C! close
		E: action=pass end=CR account=anna verified=true
	`)
}

// The backend tells what is wrong with a token in a challenge; the client gets
// it, answers it and hears the refusal (RFC 7628 section 3.2.3).
func TestTokenRefused(t *testing.T) {
	playWith(t, bearerProbe, "implicit", `
		C! tls pop.test.example
		S: +OK proxy.test.example ready.
		C: AUTH OAUTHBEARER {b64:n,a=anna,\x01auth=Bearer Kanarienvogel7\x01\x01}
		B< +OK ready
		B: AUTH OAUTHBEARER {b64:n,a=anna,\x01auth=Bearer Kanarienvogel7\x01\x01}
		B< + {b64:status=invalid_token}
		B: AQ==
		B< -ERR [AUTH] Authentication failed.
		S: + {b64:status=invalid_token}
		C: AQ==
		S: -ERR [AUTH] Benutzername oder Passwort ist falsch.
		C: AUTH XOAUTH2 {b64:user=anna\x01auth=Bearer Kanarienvogel7\x01\x01}
		B! next
		B< +OK ready
		B: AUTH XOAUTH2 {b64:user=anna\x01auth=Bearer Kanarienvogel7\x01\x01}
		B< + {b64:status=401}
		B: 
		B< -ERR Authentication failed.
		S: + {b64:status=401}
		C: 
		S: -ERR [AUTH] Benutzername oder Passwort ist falsch.
		C! close
		E: action=pass end=CD attempts=2 verified= account=
	`)
}
