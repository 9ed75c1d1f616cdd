package smtpfront

import (
	"strings"
	"testing"

	"mailreeve/proxy/proxytest"
)

const plain = `{b64:\x00anna@test.example\x00Kanarienvogel7}`

func TestPlain(t *testing.T) {
	for name, said := range map[string]string{
		"initial response": "C: AUTH PLAIN " + plain,
		"two spaces":       "C: auth  plain  " + plain,
		"prompt":           "C: AUTH PLAIN\nS: 334 \nC: " + plain,
		"trailing space":   "C: AUTH PLAIN \nS: 334 \nC: " + plain,
	} {
		t.Run(name, func(t *testing.T) {
			play(t, "implicit", hello+said+begin+`
				B: AUTH PLAIN `+plain+`
				`+good+`
				E: action=pass end=CR reason=client_closed mechanism=PLAIN account=anna@test.example domain=test.example user_form=address verified=true attempts=1 backend=backend.test:1
			`)
		})
	}
}

func TestPlainForAnother(t *testing.T) {
	play(t, "implicit", hello+`
		C: AUTH PLAIN {b64:info\x00anna\x00Kanarienvogel7}
		`+begin+`
		B: AUTH PLAIN {b64:info\x00anna\x00Kanarienvogel7}
		`+good+`
		E: action=pass end=CR account=info verified=true
	`)
}

// Thunderbird takes exactly these prompts. The backend hears PLAIN where it
// has it, else LOGIN.
func TestLogin(t *testing.T) {
	play(t, "implicit", hello+`
		C: AUTH LOGIN
		S: 334 VXNlcm5hbWU6
		C: {b64:anna}
		S: 334 UGFzc3dvcmQ6
		C: {b64:Kanarienvogel7}
		`+begin+`
		B: AUTH PLAIN {b64:\x00anna\x00Kanarienvogel7}
		`+good+`
		E: action=pass end=CR mechanism=LOGIN account=anna verified=true
	`)
	play(t, "implicit", hello+`
		C: AUTH LOGIN {b64:anna}
		S: 334 UGFzc3dvcmQ6
		C: {b64:Kanarienvogel7}
		B< 220 old
		B: EHLO laptop.example
		B< 250-old
		B< 250 AUTH=LOGIN
		B: AUTH LOGIN
		B< 334 VXNlcm5hbWU6
		B: {b64:anna}
		B< 334 UGFzc3dvcmQ6
		B: {b64:Kanarienvogel7}
		`+good+`
		E: action=pass end=CR mechanism=LOGIN account=anna verified=true
	`)
}

func TestTokens(t *testing.T) {
	const hello = `
		C! tls smtp.test.example
		S: 220 proxy.test.example ESMTP ready
		C: HELO laptop.example
		S: 250 proxy.test.example
	`
	const xoauth2 = `{b64:user=anna\x01auth=Bearer Kanarienvogel7\x01\x01}`
	const bearer = `{b64:n,a=anna,\x01host=smtp.test.example\x01port=465\x01auth=Bearer Kanarienvogel7\x01\x01}`
	playWith(t, bearerProbe, "implicit", hello+`
		C: AUTH XOAUTH2 `+xoauth2+`
		`+begin+`
		B: AUTH XOAUTH2 `+xoauth2+`
		`+good+`
		E: action=pass end=CR account=anna verified=true mechanism=XOAUTH2
	`)
	playWith(t, bearerProbe, "implicit", hello+`
		C: AUTH OAUTHBEARER
		S: 334 
		C: `+bearer+`
		`+begin+`
		B: AUTH OAUTHBEARER `+bearer+`
		`+good+`
		E: action=pass end=CR account=anna verified=true mechanism=OAUTHBEARER
	`)
	// What is wrong with a token comes in a challenge (RFC 7628 section 3.2.3).
	playWith(t, bearerProbe, "implicit", hello+`
		C: AUTH OAUTHBEARER `+bearer+`
		`+begin+`
		B: AUTH OAUTHBEARER `+bearer+`
		B< 334 {b64:status=invalid_token}
		B: AQ==
		B< 535 5.7.8 no
		S: 334 {b64:status=invalid_token}
		C: AQ==
		S: `+toldWrong+`
		C: AUTH XOAUTH2 `+xoauth2+`
		B! next
		`+begin+`
		B: AUTH XOAUTH2 `+xoauth2+`
		B< 334 {b64:status=401}
		B: 
		B< 535 5.7.8 no
		S: 334 {b64:status=401}
		C: 
		S: `+toldWrong+`
		C! close
		E: action=pass end=CD attempts=2 verified= account=
	`)
}

// A line of AUTH has at most 512 bytes; what is longer waits for the prompt
// (RFC 4954 section 4).
func TestLongResponse(t *testing.T) {
	long := `{b64:\x00anna\x00Kanarienvogel7` + strings.Repeat("x", 400) + `}`
	play(t, "implicit", hello+`
		C: AUTH PLAIN `+long+`
		`+begin+`
		B: AUTH PLAIN
		B< 334 
		B: `+long+`
		`+good+`
		E: action=pass end=CR account=anna verified=true
	`)
}

func TestSASLNonsense(t *testing.T) {
	play(t, "implicit", hello+`
		C: AUTH PLAIN
		S: 334 
		C: *
		S: 501 5.7.0 AUTH cancelled
		C: AUTH LOGIN
		S: 334 VXNlcm5hbWU6
		C: *
		S: 501 5.7.0 AUTH cancelled
		C: AUTH PLAIN =
		S: 501 5.5.2 Malformed credential
		C: AUTH PLAIN no base64
		S: 501 5.5.2 Malformed credential
		C: AUTH PLAIN {b64:anna}
		S: 501 5.5.2 Malformed credential
		C: AUTH PLAIN {b64:\x00anna\x00a\r\nRSET}
		S: 501 5.5.2 Malformed credential
		C: AUTH PLAIN {b64:\x00\x00Kanarienvogel7}
		S: 501 5.5.2 Malformed credential
		C: AUTH
		S: 501 5.5.4 AUTH wants the name of a mechanism
		C: AUTH KANARIENVOGEL7-IS-NO-MECHANISM
		S: 501 5.5.4 AUTH wants the name of a mechanism
		C! close
		E: action=pass end=CD attempts= mechanism=PLAIN backend=
	`)
}

// A mechanism that policy is against is not begun; one that nobody knows is not known.
func TestOtherMechanisms(t *testing.T) {
	play(t, "implicit", hello+`
		C: AUTH CRAM-MD5
		S: 534 5.7.9 Passwort ist NICHT falsch. Authentifizierung: "Passwort, normal" (SSL/TLS bleibt an, SPA aus). https://h.test.example/a1 ({id})
		C: AUTH NTLM {b64:NTLMSSP}
		S: 534 5.7.9 Passwort ist NICHT falsch. {...}
		C! close
		E: action=deny by=[password-only] mechanism=NTLM end=CD account= exposed=
	`)
	play(t, "implicit", hello+`
		C: AUTH CRAM-MD5
		S: 504 5.5.4 Dieses Anmeldeverfahren gibt es hier nicht. Bitte "Passwort, normal" einstellen.
		C: AUTH XOAUTH2 {b64:user=anna\x01auth=Bearer Kanarienvogel7\x01\x01}
		S: 504 5.5.4 Dieses Anmeldeverfahren gibt es hier nicht. {...}
		C! close
		E: action=pass mechanism=XOAUTH2 end=CD
	`, open)
}

// Without a login there is no mail, and nothing of it reaches anybody.
func TestMailWithoutLogin(t *testing.T) {
	play(t, "implicit", hello+`
		C. MAIL FROM:<anna@test.example>\r\nRCPT TO:<bert@test.example>\r\nDATA\r\n
		S: 530 5.7.0 Bitte im Programm die Anmeldung am Server einschalten (gleicher Benutzername, gleiches Passwort).
		S: 503 5.5.1 MAIL comes first
		S: 503 5.5.1 MAIL comes first
		C. BDAT 6 LAST\r\nQUIT\r\nBDAT 0\r\nBDAT\r\nBDAT x LAST\r\nNOOP\r\n
		S: 503 5.5.1 MAIL comes first
		S: 503 5.5.1 MAIL comes first
		S: 503 5.5.1 MAIL comes first
		S: 503 5.5.1 MAIL comes first
		S: 250 2.0.0 OK
		C: BDAT 65537
		S: 421 4.5.0 Das ist nicht das Protokoll dieses Ports. Verbindung endet.
		C! close
		E: action=pass end=PD reason=data_before_login
	`)
}

// What a client sends behind its login in the same packet goes to the backend
// first, and in order (RFC 4954 section 4).
func TestPipelinedMail(t *testing.T) {
	play(t, "implicit", hello+`
		C. AUTH PLAIN `+plain+`\r\nMAIL FROM:<anna@test.example>\r\nRCPT TO:<bert@test.example>\r\nDATA\r\nSub
		`+begin+`
		B: AUTH PLAIN `+plain+`
		B< 235-2.7.0 Authentication
		B< 235 2.7.0 successful
		S: 235-2.7.0 Authentication
		S: 235 2.7.0 successful
		B: MAIL FROM:<anna@test.example>
		B: RCPT TO:<bert@test.example>
		B: DATA
		B. 250 ok\r\n250 ok\r\n354 go on\r\n
		S: 250 ok
		S: 250 ok
		S: 354 go on
		C. ject: x\r\n\r\n.\r\nQUIT\r\n
		B: Subject: x
		B: 
		B: .
		B: QUIT
		B. 250 2.0.0 queued\r\n221 bye\r\n
		B! close
		S: 250 2.0.0 queued
		S: 221 bye
		S.
		C! close
		E: action=pass end=BR reason=backend_closed verified=true
	`)
}

// An old host name over TLS: the login is checked, so a wrong password is one
// and a right one proves whose finding it is; programs show the text of MAIL.
func TestOldHostName(t *testing.T) {
	old := strings.Replace(hello, "tls smtp.test.example", "tls mail.old.example", 1)
	play(t, "implicit", old+`
		C: AUTH PLAIN `+plain+`
		`+begin+`
		B: AUTH PLAIN `+plain+`
		B< 235 2.7.0 Authentication successful
		B: QUIT
		S: 235 2.7.0 Authentication successful
		C. MAIL FROM:<anna@test.example>\r\nRCPT TO:<bert@test.example>\r\nDATA\r\n
		S: 550 5.7.1 Passwort ist NICHT falsch. Neuer Servername: smtp.test.example, Port 465, SSL/TLS. https://h.test.example/a1 ({id})
		S: 503 5.5.1 MAIL comes first
		S: 503 5.5.1 MAIL comes first
		C: AUTH PLAIN `+plain+`
		S: 503 5.5.1 You are logged in already
		C: RSET
		S: 250 2.0.0 OK
		C: MAIL FROM:<anna@test.example>
		S: 550 5.7.1 Passwort ist NICHT falsch. {...}
		C: QUIT
		S: 221 2.0.0 Bye
		S.
		E: action=deny by=[canonical-host] host=legacy end=CD reason=client_quit verified=true account=anna@test.example
	`)
	play(t, "implicit", old+`
		C: AUTH PLAIN `+plain+`
		`+begin+`
		B: AUTH PLAIN `+plain+`
		B< 535 5.7.8 no
		S: `+toldWrong+`
		C: MAIL FROM:<anna@test.example>
		S: 530 5.7.0 Bitte im Programm die Anmeldung am Server einschalten {...}
		C! close
		E: action=deny by=[canonical-host] host=legacy end=CD verified= account=
	`)
	play(t, "implicit", old+`
		C: AUTH PLAIN `+plain+`
		`+begin+`
		B: AUTH PLAIN `+plain+`
		B< 235 2.7.0 Authentication successful
		B: QUIT
		S: 235 2.7.0 Authentication successful
		C: MAIL FROM:<anna@test.example>
		S: 450 4.7.1 Passwort ist NICHT falsch. Testabschaltung. Server: {...}
		C! close
		E: action=tempfail by=[canonical-host] host=legacy end=CD verified=true
	`, brownOut)
}

// A name that is for something else, or nobody's, is told at MAIL as an old one is.
func TestWrongHostName(t *testing.T) {
	for name, says := range map[string]string{
		"pop.test.example host=other_service": "Servername gilt fuer POP3. SMTP: smtp.test.example",
		"mx.nobody.example host=unknown":      "Neuer Servername: smtp.test.example",
	} {
		sni, host, _ := strings.Cut(name, " ")
		play(t, "implicit", strings.Replace(hello, "tls smtp.test.example", "tls "+sni, 1)+`
			C: AUTH PLAIN `+plain+`
			`+begin+`
			B: AUTH PLAIN `+plain+`
			B< 235 2.7.0 Authentication successful
			B: QUIT
			S: 235 2.7.0 Authentication successful
			C: MAIL FROM:<anna@test.example>
			S: 550 5.7.1 Passwort ist NICHT falsch. `+says+`, Port 465, SSL/TLS. https://h.test.example/a1 ({id})
			C! close
			E: action=deny by=[canonical-host] sni=`+sni+` `+host+` end=CD verified=true
		`)
	}
}

// Where old TLS is served in order to be explained, that is done before the
// credential: there is no AUTH, and MAIL is answered as in clear.
func TestOldTLSIsTold(t *testing.T) {
	play(t, "implicit", `
		C! old smtp.test.example
		S: 220 proxy.test.example ESMTP ready
		C: EHLO scanner.example
		`+strings.Replace(strings.Replace(inClear, "250-CHUNKING", "250 CHUNKING", 1), "S: 250 STARTTLS", "", 1)+`
		C: AUTH PLAIN `+plain+`
		S: 530 5.7.0 Passwort ist NICHT falsch. Programm ist veraltet: TLS 1.2 fehlt. {...}
		C: MAIL FROM:<anna@test.example>
		S: 530 5.7.0 Passwort ist NICHT falsch. Programm ist veraltet: TLS 1.2 fehlt. https://h.test.example/a1 ({id})
		C! close
		E: action=deny by=[modern-tls] tls=1.0 end=CD verified= backend= attempts=
	`, proxytest.DenyOldTLS)
}
