package smtpfront

import (
	"strings"
	"testing"
	"testing/synctest"

	"mailreeve/proxy/proxytest"
)

const inClear = `
	S: 250-proxy.test.example
	S: 250-PIPELINING
	S: 250-SIZE 10240000
	S: 250-ENHANCEDSTATUSCODES
	S: 250-8BITMIME
	S: 250-DSN
	S: 250-SMTPUTF8
	S: 250-X-NEW a=b c
	S: 250-CHUNKING
	S: 250 STARTTLS
`

// What the backend offers is offered, but for what ends here and for what no
// customer may use; in clear there is no AUTH.
func TestExtensionsInClear(t *testing.T) {
	play(t, "starttls", `
		S: 220 proxy.test.example ESMTP ready
		C: EHLO laptop.example
		`+inClear+`
		C: ehlo [192.0.2.7]
		`+inClear+`
		C: QUIT
		S: 221 2.0.0 Bye
		S.
		E: action=deny by=[encrypted] end=CD reason=client_quit protocol=submission hello=[192.0.2.7] client=[192.0.2.7] exposed= attempts= mechanism=
	`)
}

func TestExtensionsOverTLS(t *testing.T) {
	play(t, "implicit", hello+`
		C! close
		E: action=pass end=CD reason=client_closed hello=laptop.example tls=1.3 host=canonical
	`)
	// XCLIENT is for the proxy alone.
	playWith(t, strings.Replace(probe, "B< 250-XFORWARD", "B< 250-XCLIENT NAME ADDR\n	B< 250-XFORWARD", 1), "implicit", hello+`
		C! close
		E: action=pass
	`, forward)
	playWith(t, bearerProbe, "implicit", `
		C! tls smtp.test.example
		S: 220 proxy.test.example ESMTP ready
		C: EHLO laptop.example
		S: 250-proxy.test.example
		S: 250-AUTH PLAIN LOGIN OAUTHBEARER XOAUTH2
		S: 250 AUTH=PLAIN LOGIN OAUTHBEARER XOAUTH2
		C! close
		E: action=pass
	`)
}

// Where plaintext is still borne.
func TestExtensionsInClearBorne(t *testing.T) {
	play(t, "starttls", `
		S: 220 proxy.test.example ESMTP ready
		C: EHLO laptop.example
		`+strings.Replace(inClear, "250 STARTTLS", "250-STARTTLS", 1)+`
		S: 250-AUTH PLAIN LOGIN
		S: 250 AUTH=PLAIN LOGIN
		C! close
		E: action=pass by=
	`, open)
}

// With an old host name AUTH is offered: the login is checked, MAIL is refused.
func TestExtensionsAtOldHostName(t *testing.T) {
	play(t, "implicit", strings.Replace(hello, "tls smtp.test.example", "tls mail.old.example", 1)+`
		C! close
		E: action=deny by=[canonical-host]
	`)
}

// Nobody knows what a backend offers that is down: what this dialogue bears.
func TestExtensionsOfNobody(t *testing.T) {
	play(t, "implicit", `
		P! down
		C! tls smtp.test.example
		S: 421 4.3.0 Der Mailserver ist gerade nicht erreichbar. Passwort ist NICHT falsch. Bitte spaeter erneut versuchen.
		C: QUIT
		C! close
		E: action=pass attempts= verified= end=BD reason=backend_unavailable refused=unavailable
	`)
	// A backend of one line has no extensions at all.
	playWith(t, `
		B< 220 old
		B: EHLO proxy.test.example
		B< 250 old
	`, "starttls", `
		S: 220 proxy.test.example ESMTP ready
		C: EHLO laptop.example
		S: 250-proxy.test.example
		S: 250 STARTTLS
		C! close
		E: action=deny
	`)
}

func TestHarmlessCommands(t *testing.T) {
	play(t, "implicit", `
		C! tls smtp.test.example
		S: 220 proxy.test.example ESMTP ready
		C: HELO laptop.example
		S: 250 proxy.test.example
		C: NOOP with words
		S: 250 2.0.0 OK
		C: RSET
		S: 250 2.0.0 OK
		C: VRFY anna
		S: 252 2.0.0 Send mail to find out
		C: HELP
		S: 214 2.0.0 This is a submission server: EHLO, STARTTLS, AUTH, then send mail
		C: EXPN list
		S: 502 5.5.1 Not implemented
		C: FROB
		S: 500 5.5.2 Unknown command
		C: 
		S: 500 5.5.2 Unknown command
		C. NOOP\n
		S: 250 2.0.0 OK
		C: quit
		S: 221 2.0.0 Bye
		S.
		E: action=pass end=CD reason=client_quit hello=laptop.example
	`)
}

// Nobody may speak in the proxy's name.
func TestClientsXCLIENT(t *testing.T) {
	play(t, "implicit", hello+`
		C: XCLIENT ADDR=203.0.113.1 LOGIN=boss
		S: 500 5.5.2 Unknown command
		C: XFORWARD ADDR=203.0.113.1
		S: 500 5.5.2 Unknown command
		C: AUTH PLAIN {b64:\x00anna\x00Kanarienvogel7}
		`+begin+`
		B: AUTH PLAIN {b64:\x00anna\x00Kanarienvogel7}
		`+good+`
		E: action=pass end=CR account=anna verified=true
	`)
}

func TestHelloArgument(t *testing.T) {
	for name, said := range map[string]string{
		"missing":    `EHLO`,
		"blank":      `EHLO  `,
		"tab":        `EHLO my\tlaptop`,
		"control":    `EHLO my\x07laptop`,
		"delete":     `EHLO my\x7flaptop`,
		"NUL":        `EHLO my\x00laptop`,
		"CR":         `EHLO my\rEHLO laptop`,
		"256 octets": `EHLO ` + strings.Repeat("x", 256),
	} {
		t.Run(name, func(t *testing.T) {
			for _, verb := range []string{"EHLO", "HELO"} {
				play(t, "implicit", `
					C! tls smtp.test.example
					S: 220 proxy.test.example ESMTP ready
					C. `+strings.Replace(said, "EHLO", verb, 1)+`\r\n
					S: 501 5.5.4 `+verb+` wants a domain or an address
					C: AUTH PLAIN
					S: 503 5.5.1 EHLO comes first
					C! close
					E: action=pass end=CD hello= client=
				`)
			}
		})
	}
	// Windows names its machines so.
	for said, want := range map[string]string{`my laptop`: "my-laptop", `b\u00fcro`: "b-ro", `b\xfcro`: "b-ro"} {
		play(t, "implicit", `
			C! tls smtp.test.example
			S: 220 proxy.test.example ESMTP ready
			C. HELO `+said+`\r\n
			S: 250 proxy.test.example
			C! close
			E: hello=`+want+` client=`+want+`
		`)
	}
	play(t, "implicit", `
		C! tls smtp.test.example
		S: 220 proxy.test.example ESMTP ready
		C: HELO `+strings.Repeat("x", 255)+`
		S: 250 proxy.test.example
		C: HELO MY_PC%s\"<[IPv6:2001:db8::1]>
		S: 250 proxy.test.example
		C! close
		E: hello=MY_PC%s\"<[IPv6:2001:db8::1]>
	`)
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
			S: 421 4.7.0 Zu viele Versuche. Bitte spaeter erneut verbinden.
			S.
		`)
	})
}
