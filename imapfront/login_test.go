package imapfront

import (
	"strings"
	"testing"
)

func TestLoginOverTLS(t *testing.T) {
	play(t, "implicit", inTLS+`
		C: a1 LOGIN anna@test.example "Kanarienvogel7\"\\"
	`+ready+`
		B: a1 LOGIN "anna@test.example" "Kanarienvogel7\"\\"
		B< * CAPABILITY IMAP4rev1 IDLE
		B< * OK [ALERT] quota is low
		B< a1 OK [CAPABILITY IMAP4rev1 IDLE QUOTA COMPRESS=DEFLATE] Logged in
		S: * CAPABILITY IMAP4rev1 IDLE
		S: * OK [ALERT] quota is low
		S: a1 OK [CAPABILITY IMAP4rev1 IDLE QUOTA COMPRESS=DEFLATE] Logged in
		C: a2 IDLE
		B: a2 IDLE
		B< + idling
		S: + idling
		C! close
		E: action=pass end=CR reason=client_closed mechanism=USERPASS account=anna@test.example domain=test.example user_form=address verified=true host=canonical tls=1.3 exposed=
	`)
}

// TestLoginForms: however the client writes its credential, the backend gets
// the same.
func TestLoginForms(t *testing.T) {
	const plain = `LOGIN "anna" "Kanarienvogel7"`
	for _, c := range []struct{ name, client, backend string }{
		{"atoms", `C: a LOGIN anna Kanarienvogel7`, plain},
		{"lower case", `C: a login anna Kanarienvogel7`, plain},
		{"quoted", `C: a LOGIN "anna" "Kanarienvogel7"`, plain},
		{"escapes", `C: a LOGIN "an\\na" "\"Kanarienvogel7\""`, `LOGIN "an\\na" "\"Kanarienvogel7\""`},
		{"superfluous escape", `C: a LOGIN "\anna" "Kanarienvogel7"`, plain},
		{"brackets of literals in quotes", `C: a LOGIN "anna" "Kanarienvogel7{5}"`, `LOGIN "anna" "Kanarienvogel7{5}"`},
		{"spaces in quotes", `C: a LOGIN "an na" " Kanarienvogel7 "`, `LOGIN "an na" " Kanarienvogel7 "`},
		{"atom of odd characters", `C: a LOGIN anna Kanarienvogel7%*]\`, `LOGIN "anna" "Kanarienvogel7%*]\\"`},
		{"more spaces, as Dovecot takes them", `C: a LOGIN  anna   Kanarienvogel7 `, plain},
		{"bare LF", `C. a LOGIN anna Kanarienvogel7\n`, plain},
		{"literals", "C: a LOGIN {4}\nS: + Ready for the literal.\nC: anna {14}\nS: + Ready for the literal.\nC: Kanarienvogel7", plain},
		{"leading zeros", "C: a LOGIN {00000000000004}\nS: + Ready for the literal.\nC: anna {14}\nS: + Ready for the literal.\nC: Kanarienvogel7", plain},
		{"literal+", `C. a LOGIN {4+}\r\nanna {14+}\r\nKanarienvogel7\r\n`, plain},
		{"mixed", "C: a LOGIN \"anna\" {14}\nS: + Ready for the literal.\nC: Kanarienvogel7", plain},
		{"mixed the other way", "C: a LOGIN {4+}\nC: anna \"Kanarienvogel7\"", plain},
		{"quote in a literal", "C: a LOGIN anna {2+}\nC: \"\\", `LOGIN "anna" "\"\\"`},
		{"empty password", `C: a LOGIN anna ""`, `LOGIN "anna" ""`},
		{"empty literal", `C. a LOGIN anna {0+}\r\n\r\n`, `LOGIN "anna" ""`},
		{"NIL is a name", `C: a LOGIN nil nil`, `LOGIN "nil" "nil"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			play(t, "implicit", inTLS+c.client+ready+`
				B: a `+c.backend+`
				B< a OK in
				S: a OK in
				C! close
				E: verified=true attempts=1
			`)
		})
	}
}

// TestLoginEightBit: a password of any bytes but NUL and line ends passes as a
// literal.
func TestLoginEightBit(t *testing.T) {
	for _, c := range []struct{ name, client string }{
		{"quoted", `C. a LOGIN anna \"M\xfcller\"\r\n`},
		{"atom", `C. a LOGIN anna M\xfcller\r\n`},
		{"literal", `C. a LOGIN anna {6+}\r\nM\xfcller\r\n`},
	} {
		t.Run(c.name, func(t *testing.T) {
			play(t, "implicit", inTLS+c.client+ready+`
				B: a LOGIN {4+}
				B: anna {6+}
				B: M`+"\xfc"+`ller
				B< a OK in
				S: a OK in
				C! close
				E: verified=true
			`)
		})
	}
}

func TestLoginLongPassword(t *testing.T) {
	long := strings.Repeat("Kanarienvogel7", 100)
	play(t, "implicit", inTLS+`
		C: a LOGIN anna `+long+ready+`
		B: a LOGIN {4+}
		B: anna {1400+}
		B: `+long+`
		B< a OK in
		S: a OK in
		C! close
		E: verified=true
	`)
}

func TestLoginMalformed(t *testing.T) {
	for _, c := range []struct{ name, client, answer string }{
		{"nothing", `C: a LOGIN`, "An argument is missing."},
		{"no password", `C: a LOGIN anna`, "An argument is missing."},
		{"a space for a password", `C: a LOGIN anna `, "An argument is missing."},
		{"three", `C: a LOGIN anna Kanarienvogel7 x`, "Too many arguments."},
		{"behind a quote", `C: a LOGIN "anna"Kanarienvogel7`, "An argument is missing."},
		{"no end of quote", `C: a LOGIN anna "Kanarienvogel7`, "A quoted string does not end."},
		{"end in an escape", `C: a LOGIN anna "Kanarienvogel7\`, "A quoted string does not end."},
		{"no name", `C: a LOGIN "" Kanarienvogel7`, "Malformed credential."},
		{"list", `C: a LOGIN (anna) Kanarienvogel7`, "Malformed argument."},
		{"NUL in a literal", `C. a LOGIN anna {3+}\r\nx\x00y\r\n`, "Malformed credential."},
		{"CRLF in a literal", `C. a LOGIN anna {13+}\r\nx\r\nb NOOP\r\n\r\n\r\n`, "Malformed credential."},
		{"CR in quotes", `C. a LOGIN anna \"x\ry\"\r\n`, "Malformed credential."},
		{"control character in the name", `C. a LOGIN \"an\x07na\" Kanarienvogel7\r\n`, "Malformed credential."},
		{"long name", `C: a LOGIN ` + strings.Repeat("n", 321) + ` Kanarienvogel7`, "Malformed credential."},
		{"announced too long", `C: a LOGIN anna {4097}`, "The literal is too long."},
		{"announced absurdly long", `C: a LOGIN anna {99999999999999999999999999}`, "The literal is too long."},
		{"negative", `C: a LOGIN anna {-1}`, "Malformed literal."},
		{"no number", `C: a LOGIN anna {}`, "Malformed literal."},
		{"hexadecimal", `C: a LOGIN anna {0x5+}`, "Malformed literal."},
		{"literal glued to an atom", `C: a LOGIN anna x{5}`, "Too many arguments."},
		{"literal where none may be", `C. a LOGIN anna Kanarienvogel7 {10+}\r\nx LOGOUT\r\n\r\n`, "Too many arguments."},
	} {
		t.Run(c.name, func(t *testing.T) {
			play(t, "implicit", inTLS+c.client+`
				S: a BAD `+c.answer+`
				C: b NOOP
				S: b OK NOOP completed.
				C! close
				E: end=CD reason=client_closed attempts= account= backend=
			`)
		})
	}
}

// TestLiteralTooLong: a client that sends more than it may, unasked, cannot be
// followed: what comes behind would be read as commands.
func TestLiteralTooLong(t *testing.T) {
	for _, line := range []string{
		`a LOGIN anna {4097+}`, `a LOGIN anna {99999999999+}`, `a LOGIN {99999999999999999999999+}`,
		`a LOGIN "" {5000+}`, `a FOO {99999999999+}`, `a ID ("name" {99999999999+}`,
	} {
		t.Run(line, func(t *testing.T) {
			play(t, "implicit", inTLS+`
				C: `+line+`
				S: * BYE Das ist nicht das Protokoll dieses Ports. Verbindung endet.
				S.
				E: end=PD reason=literal_too_long
			`)
		})
	}
	t.Run("in clear", func(t *testing.T) {
		play(t, "starttls", `
			S: * OK proxy.test.example ready.
			C: a LOGIN anna {5000+}
			S: * BYE {...}
			S.
			E: end=PD reason=literal_too_long
		`)
	})
	t.Run("many", func(t *testing.T) {
		play(t, "implicit", inTLS+`
			C. a ID (`+strings.Repeat(`\"k\" {4000+}\r\n`+strings.Repeat("v", 4000)+" ", 16)+`\"k\" {4000+}\r\n
			S: * BYE {...}
			S.
			E: end=PD reason=literal_too_long
		`)
	})
}

// TestLongCommand: lines between literals count too.
func TestLongCommand(t *testing.T) {
	piece := `C. v \"k\" \"` + strings.Repeat("x", 7000) + `\" \"k\" {1+}\r\n`
	play(t, "implicit", inTLS+`
		C. a ID (\"k\" {1+}\r\n
	`+strings.Repeat(piece+"\n", 10)+`
		S: * BYE Das ist nicht das Protokoll dieses Ports. Verbindung endet.
		S.
		E: end=PD reason=line_too_long client_id=
	`)
}

// TestPipelined: what came behind the login in one packet is the backend's.
func TestPipelined(t *testing.T) {
	play(t, "implicit", inTLS+`
		C. a LOGIN anna Kanarienvogel7\r\nb SELECT INBOX\r\nc FETCH 1
	`+ready+`
		B: a LOGIN "anna" "Kanarienvogel7"
		B< a OK in
		S: a OK in
		B: b SELECT INBOX
		C:  (FLAGS)
		B: c FETCH 1 (FLAGS)
		B. * 1 EXISTS\r\nb OK\r
		S: * 1 EXISTS
		B. \n
		S: b OK
		C! close
		E: end=CR verified=true
	`)
}

// TestPipelinedBehindRefusal: after a refusal what came behind is ours.
func TestPipelinedBehindRefusal(t *testing.T) {
	play(t, "implicit", inTLS+`
		C. a LOGIN anna Kanarienvogel7\r\nb SELECT INBOX\r\n
	`+ready+`
		B: a LOGIN "anna" "Kanarienvogel7"
		B< a NO [AUTHENTICATIONFAILED] no
		S: a NO `+wrong+`
		S: b BAD Please log in first.
		C! close
		E: end=CD verified=
	`)
}

func TestWrongPasswordSixTimes(t *testing.T) {
	script := inTLS
	for range 6 {
		script += `
			C: a LOGIN anna Kanarienvogel7
			B! next
		` + ready + `
			B: a LOGIN "anna" "Kanarienvogel7"
			B< a NO [AUTHENTICATIONFAILED] no
			S: a NO ` + wrong
	}
	play(t, "implicit", script+`
		S: * BYE Zu viele Versuche. Bitte spaeter erneut verbinden.
		S.
		E: end=LL reason=too_many_logins attempts=6 account= action=pass
	`)
}

func TestIDAfterLogin(t *testing.T) {
	play(t, "implicit", inTLS+`
		C: a LOGIN anna Kanarienvogel7
	`+ready+`
		B: a LOGIN "anna" "Kanarienvogel7"
		B< a OK in
		S: a OK in
		C. b NAMESPACE\r\nc ID (\"name\" \"Thunder
		B: b NAMESPACE
		C. bird\" \"version\" \"153.7\")\r\n
		B: c ID ("name" "Thunderbird" "version" "153.7")
		C! close
		E: client=Thunderbird_153.7 client_id=map[name:Thunderbird_version:153.7]
	`)
}

// TestIDLongAfterLogin: only the first 4 KiB of the relay are looked at.
func TestIDLongAfterLogin(t *testing.T) {
	line := "b NOOP " + strings.Repeat("x", 900)
	play(t, "implicit", inTLS+`
		C: a LOGIN anna Kanarienvogel7
	`+ready+`
		B: a LOGIN "anna" "Kanarienvogel7"
		B< a OK in
		S: a OK in
	`+strings.Repeat("C: "+line+"\nB: "+line+"\n", 5)+`
		C: c ID ("name" "Late")
		B: c ID {...}
		C! close
		E: client= verified=true
	`)
}
