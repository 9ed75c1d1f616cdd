package imapfront

import (
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"mailreeve/proxy"
	"mailreeve/proxy/proxytest"
)

func TestPlaintextIsRefused(t *testing.T) {
	play(t, "starttls", `
		S: * OK proxy.test.example ready.
		C: a CAPABILITY
		S: * OK [ALERT] Passwort ist NICHT falsch. Verschluesselung fehlt: SSL/TLS, Server imap.test.example, Port 993. https://h.test.example/a1 ({id})
		S: * CAPABILITY IMAP4rev1 ID STARTTLS LOGINDISABLED
		S: a OK CAPABILITY completed.
		C: b LOGIN anna Kanarienvogel7
		S: b NO [UNAVAILABLE] Passwort ist NICHT falsch. {...}
		C: c LOGOUT
		S: * BYE Logging out.
		S: c OK LOGOUT completed.
		S.
		E: action=deny by=[encrypted] end=CD reason=client_quit exposed=true account= verified= attempts=
	`)
}

// TestPlaintextIsBlind: in clear the answer does not depend on the credential,
// there is no challenge and no literal is asked for, the backend hears nothing,
// and AUTHENTICATE is gated exactly like LOGIN.
func TestPlaintextIsBlind(t *testing.T) {
	const refused = `
		S: * OK [ALERT] Passwort ist NICHT falsch. {...}
		S: a NO [UNAVAILABLE] Passwort ist NICHT falsch. {...}
	`
	id := regexp.MustCompile(`\([0-9A-Z]{12}\)`)
	var first string
	for _, c := range []struct{ name, client, exposed string }{
		{"right", `C: a LOGIN anna Kanarienvogel7`, "true"},
		{"wrong", `C: a LOGIN anna Kanarienvogel7x`, "true"},
		{"quoted", `C: a LOGIN "anna" "Kanarienvogel7"`, "true"},
		{"malformed", `C: a LOGIN "anna`, "true"},
		{"too long a name", `C: a LOGIN ` + strings.Repeat("n", 321) + ` Kanarienvogel7`, "true"},
		{"literal", `C: a LOGIN {4}`, ""},
		{"literal that is too long", `C: a LOGIN {99999999999}`, ""},
		{"literal+", `C. a LOGIN {4+}\r\nanna {14+}\r\nKanarienvogel7\r\n`, "true"},
		{"mixed", `C. a LOGIN {4+}\r\nanna {14}\r\n`, "true"},
		{"PLAIN", `C: a AUTHENTICATE PLAIN`, ""},
		{"PLAIN with the right one", `C: a AUTHENTICATE PLAIN ` + plainAnna, "true"},
		{"PLAIN with a wrong one", `C: a AUTHENTICATE PLAIN {b64:\x00anna\x00Kanarienvogel7x}`, "true"},
		{"PLAIN malformed", `C: a AUTHENTICATE PLAIN !`, "true"},
		{"PLAIN empty", `C: a AUTHENTICATE PLAIN =`, ""},
		{"PLAIN with a space", `C: a AUTHENTICATE PLAIN `, ""},
		{"LOGIN", `C: a AUTHENTICATE LOGIN`, ""},
		{"LOGIN with a name", `C: a AUTHENTICATE LOGIN {b64:anna}`, ""},
		{"XOAUTH2", `C: a AUTHENTICATE XOAUTH2 ` + xoauthAnna, "true"},
		{"OAUTHBEARER", `C: a AUTHENTICATE OAUTHBEARER`, ""},
		{"CRAM-MD5", `C: a AUTHENTICATE CRAM-MD5`, ""},
		{"unknown", `C: a AUTHENTICATE X-WHATEVER`, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := proxytest.New(t, Front, probe)
				r.Play("starttls", `
					S: * OK proxy.test.example ready.
				`+c.client+refused+`
					C: b NOOP
					S: b OK NOOP completed.
					C! close
					E: action=deny exposed=`+c.exposed+` attempts= backend= account=
				`)
				heard := id.ReplaceAllString(strings.Join(r.Heard, "\r\n"), "(id)")
				if first == "" {
					first = heard
				}
				if heard != first {
					t.Errorf("heard\n%s\nand with the right password\n%s", heard, first)
				}
				if n := r.Dialled(); n != 1 {
					t.Errorf("%d connections to the backend, want the probe's alone", n)
				}
				checkHeard(t, r.Heard)
				r.WantNoSecret()
			})
		})
	}
}

func TestPlaintextSixTimes(t *testing.T) {
	script := "S: * OK proxy.test.example ready.\n"
	for i := range 6 {
		script += "C: a LOGIN anna Kanarienvogel7\n"
		if i == 0 {
			script += "S: * OK [ALERT] {...}\n"
		}
		script += "S: a NO [UNAVAILABLE] {...}\n"
	}
	play(t, "starttls", script+`
		S: * BYE Zu viele Versuche. Bitte spaeter erneut verbinden.
		S.
		E: action=deny end=PD reason=policy_refused
	`)
}

func TestBadCommands(t *testing.T) {
	const bad = "S: * BAD A command begins with a tag."
	for _, c := range []struct{ name, script string }{
		{"unknown", "C: a XYZZY plugh\nS: a BAD Please log in first."},
		{"SELECT", "C: a SELECT INBOX\nS: a BAD Please log in first."},
		{"APPEND with a literal", `C. a APPEND INBOX {8+}\r\nb LOGOUT\r\n` + "\nS: a BAD Please log in first."},
		{"APPEND with a literal that waits", "C: a APPEND INBOX {8}\nS: a BAD Please log in first."},
		{"a tag alone", "C: a\nS: a BAD Please log in first."},
		{"two spaces", "C: a  NOOP\nS: a BAD Please log in first."},
		{"nothing", "C: \n" + bad},
		{"a space", "C:  NOOP\n" + bad},
		{"a star", "C: * NOOP\n" + bad},
		{"a plus", "C: + NOOP\n" + bad},
		{"a plus within", "C: a+b NOOP\n" + bad},
		{"quotes", "C: \"a\" NOOP\n" + bad},
		{"a brace", "C: a{1} NOOP\n" + bad},
		{"a wildcard", "C: a% NOOP\n" + bad},
		{"backslash", "C: a\\ NOOP\n" + bad},
		{"8-bit", "C. \\xe4 NOOP\\r\\n\n" + bad},
		{"UTF-8", "C: ä NOOP\n" + bad},
		{"NUL", "C. a\\x00 NOOP\\r\\n\n" + bad},
		{"CR", "C. a\\rb NOOP\\r\\n\n" + bad},
		{"tab", "C. a\\tNOOP\\r\\n\n" + bad},
		{"a long tag", "C: " + strings.Repeat("t", 65) + " NOOP\n" + bad},
		{"a tag as long as may be", "C: " + strings.Repeat("t", 64) + " NOOP\nS: " + strings.Repeat("t", 64) + " OK NOOP completed."},
		{"a bracket", "C: ] NOOP\nS: ] OK NOOP completed."},
	} {
		t.Run(c.name, func(t *testing.T) {
			play(t, "implicit", inTLS+c.script+`
				C: z NOOP
				S: z OK NOOP completed.
				C! close
				E: end=CD reason=client_closed attempts= mechanism=
			`)
		})
	}
}

func TestTooManyBadCommands(t *testing.T) {
	play(t, "implicit", inTLS+strings.Repeat("C: a SELECT INBOX\nS: a BAD Please log in first.\n", 9)+`
		C: x
		S: x BAD Please log in first.
		S: * BYE Das ist nicht das Protokoll dieses Ports. Verbindung endet.
		S.
		E: end=PD reason=too_many_bad_commands
	`)
}

func TestOtherProtocols(t *testing.T) {
	for _, line := range []string{"GET / HTTP/1.1", "POST /a%20LOGIN HTTP/1.0", "PRI * HTTP/2.0", "OPTIONS * HTTP/1.1"} {
		t.Run(line, func(t *testing.T) {
			play(t, "starttls", `
				C. `+line+`\r\nHost: x\r\n\r\na LOGIN anna Kanarienvogel7\r\n
				S: * OK proxy.test.example ready.
				S: * BYE Das ist nicht das Protokoll dieses Ports. Verbindung endet.
				S.
				E: end=PD reason=other_protocol exposed= attempts=
			`)
		})
	}
}

func TestLongLines(t *testing.T) {
	for name, client := range map[string]string{
		"a command":         "C: a NOOP " + strings.Repeat("x", 9<<10),
		"no end":            "C. " + strings.Repeat("x", 13<<10),
		"no end, in pieces": "C. a LOGIN " + strings.Repeat("x", 7<<10) + "\nC. " + strings.Repeat("x", 5<<10+250),
		"behind a literal":  "C. a LOGIN {1+}\\r\\nx" + strings.Repeat(" ", 9<<10) + "\\r\\n",
	} {
		t.Run(name, func(t *testing.T) {
			play(t, "implicit", inTLS+client+`
				S: * BYE Das ist nicht das Protokoll dieses Ports. Verbindung endet.
				S.
				E: end=PD reason=line_too_long
			`)
		})
	}
}

func TestLoginTimeout(t *testing.T) {
	for name, client := range map[string]string{
		"silence":          "C! wait 179s",
		"in a literal":     "C: a LOGIN {4}\nS: + Ready for the literal.\nC. an",
		"in a challenge":   "C: a AUTHENTICATE LOGIN\nS: + VXNlcm5hbWU6",
		"in a line":        "C. a LOG",
		"NOOP helps not":   "C! wait 170s\nC: a NOOP\nS: a OK NOOP completed.",
		"in a skipped one": "C. a FOO {10+}\\r\\nxx",
	} {
		t.Run(name, func(t *testing.T) {
			play(t, "implicit", inTLS+client+`
				S: * BYE Die Anmeldung hat zu lange gedauert. Bitte erneut verbinden.
				S.
				E: end=LD reason=login_timeout
			`)
		})
	}
}

func TestShutdown(t *testing.T) {
	t.Run("before the login", func(t *testing.T) {
		play(t, "implicit", inTLS+`
			P! shutdown
			S: * BYE Der Server startet neu. Bitte gleich erneut verbinden.
			C! close
			E: end=DD reason=shutdown
		`)
	})
	t.Run("idle", func(t *testing.T) {
		play(t, "implicit", inTLS+`
			C: a LOGIN anna Kanarienvogel7
		`+ready+`
			B: a LOGIN "anna" "Kanarienvogel7"
			B< a OK in
			S: a OK in
			C! wait 1m
			P! shutdown
			S: * BYE Server is restarting, please connect again.
			C! close
			E: end=DR reason=shutdown
		`)
	})
}

// TestAnswers: every class of refusal is answered, and none but a wrong
// password and an unknown mechanism looks like one.
func TestAnswers(t *testing.T) {
	for class := proxy.PolicyDeny; class <= proxy.PlainOnTLS; class++ {
		for _, secure := range []bool{false, true} {
			conn := &tape{}
			d := Front.Open(proxy.NewWire(conn), proxy.Advert{Secure: secure}, limits)
			if err := d.Refuse(proxy.Request{Token: "a"}, proxy.Refusal{Class: class, Text: "words"}); err != nil {
				t.Fatal(err)
			}
			got := conn.out.String()
			bare := strings.HasSuffix(got, "a NO words\r\n")
			if bare != slices.Contains([]proxy.Class{proxy.BadMech, proxy.NeedLogin}, class) && class <= proxy.Unavailable {
				t.Errorf("class %d, TLS %v: %q", class, secure, got)
			}
			if strings.Contains(got, "AUTHENTICATIONFAILED") != (class == proxy.BadCredential) {
				t.Errorf("class %d, TLS %v: %q", class, secure, got)
			}
			if strings.Contains(got, "ALERT") != ((class == proxy.PolicyDeny || class == proxy.PolicyTemp) && !secure) {
				t.Errorf("class %d, TLS %v: %q", class, secure, got)
			}
		}
	}
}

var limits = proxy.Limits{Line: 1 << 10, Literal: 256, Token: 2 << 10, Memory: 4 << 10, BadCommands: 10, Logins: 6}

// TestOldTLSIsTold: where it is served in order to be explained, that is done
// before the credential, as in clear.
func TestOldTLSIsTold(t *testing.T) {
	setup{change: proxytest.DenyOldTLS}.play(t, `
		C! old imap.test.example
		S: * OK proxy.test.example ready.
		C: a CAPABILITY
		S: * OK [ALERT] Passwort ist NICHT falsch. Programm ist veraltet: TLS 1.2 fehlt. https://h.test.example/a1 ({id})
		S: * CAPABILITY IMAP4rev1 ID LOGINDISABLED
		S: a OK CAPABILITY completed.
		C: b LOGIN anna Kanarienvogel7
		S: b NO [UNAVAILABLE] Passwort ist NICHT falsch. {...}
		C: c AUTHENTICATE PLAIN
		S: c NO [UNAVAILABLE] Passwort ist NICHT falsch. Programm ist veraltet: TLS 1.2 fehlt. {...}
		C! close
		E: action=deny by=[modern-tls] tls=1.0 cipher_class=legacy cipher=TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA end=CD exposed= verified= account= backend= attempts=
	`, `
		C! old imap.test.example
		S: * OK proxy.test.example ready.
		C: b LOGIN anna Kanarienvogel7
		S: * OK [ALERT] Passwort ist NICHT falsch. Programm ist veraltet: TLS 1.2 fehlt. {...}
		S: b NO [UNAVAILABLE] Passwort ist NICHT falsch. Programm ist veraltet: TLS 1.2 fehlt. {...}
		C! close
		E: action=deny by=[modern-tls] tls=1.0 end=CD attempts=
	`, `
		C! tls imap.test.example
		`+greeting+`
		C! close
		E: action=pass by= tls=1.3 end=CD
	`)
}
