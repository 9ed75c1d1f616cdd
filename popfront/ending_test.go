package popfront

import (
	"strings"
	"testing"
	"time"

	"mailreeve/proxy/proxytest"
)

// A server that gives up says nothing (RFC 1939 section 3).
func TestSilence(t *testing.T) {
	play(t, "starttls", `
		S: +OK proxy.test.example ready.
		C! wait 4m
		S.
		E: end=LD reason=login_timeout
	`)
	// Nor in the middle of a line, of a login or of an exchange.
	play(t, "implicit", `
		C! tls pop.test.example
		S: +OK proxy.test.example ready.
		C: AUTH PLAIN
		S: + 
		C. AGFubmE
		C! wait 4m
		S.
		E: end=LD reason=login_timeout attempts=
	`)
}

// The time for a login is bounded in all, not by command.
func TestSlowTalk(t *testing.T) {
	play(t, "implicit", `
		C! tls pop.test.example
		S: +OK proxy.test.example ready.
		C! wait 1m
		C: NOOP
		S: +OK Nothing done.
		C! wait 1m
		C: NOOP
		S: +OK Nothing done.
		C! wait 50s
		C: NOOP
		S: +OK Nothing done.
		C! wait 20s
		S.
		E: end=LD reason=login_timeout
	`)
}

func TestIdleAfterLogin(t *testing.T) {
	play(t, "implicit", `
		C! tls pop.test.example
		S: +OK proxy.test.example ready.
		C. USER anna\r\nPASS Kanarienvogel7\r\n
		S: +OK Send your password.
		B< +OK ready
		B: USER anna
		B< +OK
		B: PASS Kanarienvogel7
		B< +OK Logged in.
		S: +OK Logged in.
		C! wait 12m
		S.
		E: action=pass end=LR reason=idle_timeout verified=true
	`, func(r *proxytest.Rig) { r.Settings.Times.Idle["pop3"] = 11 * time.Minute })
}

const misspoken = `-ERR Das ist nicht das Protokoll dieses Ports. Verbindung endet.`

func TestTooManyBadCommands(t *testing.T) {
	play(t, "starttls", `
		S: +OK proxy.test.example ready.
		`+strings.Repeat("C: STAT\nS: -ERR Unknown command.\n", 10)+`
		S: `+misspoken+`
		C! wait 6s
		S.
		E: end=PD reason=too_many_bad_commands
	`)
}

func TestTooManyRefusals(t *testing.T) {
	play(t, "starttls", `
		S: +OK proxy.test.example ready.
		`+strings.Repeat("C: USER anna\nS: -ERR [SYS/PERM] Passwort ist NICHT falsch. {...}\n", 6)+`
		S: -ERR [SYS/TEMP] Zu viele Versuche. Bitte spaeter erneut verbinden.
		C! wait 6s
		S.
		E: action=deny end=PD reason=policy_refused account=
	`)
}

func TestTooManyWrongPasswords(t *testing.T) {
	play(t, "implicit", `
		C! tls pop.test.example
		S: +OK proxy.test.example ready.
		`+strings.Repeat(`
		C. USER anna\r\nPASS falsch\r\n
		S: +OK Send your password.
		B! next
		B< +OK ready
		B: USER anna
		B< +OK
		B: PASS falsch
		B< -ERR [AUTH] no
		S: `+toldWrong+`
		`, 6)+`
		S: -ERR [SYS/TEMP] Zu viele Versuche. {...}
		C! close
		E: action=pass end=LL reason=too_many_logins attempts=6 verified= account=
	`)
}

func TestLongLines(t *testing.T) {
	for name, said := range map[string]string{
		"command":  "NOOP " + strings.Repeat("x", 9<<10),
		"no end":   strings.Repeat("x", 13<<10),
		"response": "AUTH PLAIN " + strings.Repeat("x", 13<<10),
		"password": "PASS " + strings.Repeat("x", 9<<10),
	} {
		t.Run(name, func(t *testing.T) {
			play(t, "implicit", `
				C! tls pop.test.example
				S: +OK proxy.test.example ready.
				C: `+said+`
				S: `+misspoken+`
				C! close
				E: end=PD reason=line_too_long exposed=
			`)
		})
	}
	play(t, "implicit", `
		C! tls pop.test.example
		S: +OK proxy.test.example ready.
		C: AUTH PLAIN
		S: + 
		C: `+strings.Repeat("x", 13<<10)+`
		S: `+misspoken+`
		C! close
		E: end=PD reason=line_too_long
	`)
}

// A browser that was led here (ALPACA).
func TestHTTP(t *testing.T) {
	play(t, "starttls", `
		S: +OK proxy.test.example ready.
		C. POST / HTTP/1.1\r\nHost: pop.test.example:110\r\n\r\nUSER anna\r\nPASS Kanarienvogel7\r\n
		S: `+misspoken+`
		C! close
		E: end=PD reason=other_protocol mechanism= attempts=
	`)
}

func TestShutdownBeforeLogin(t *testing.T) {
	play(t, "implicit", `
		C! tls pop.test.example
		S: +OK proxy.test.example ready.
		C: USER anna
		S: +OK Send your password.
		P! shutdown
		S: -ERR [SYS/TEMP] Der Server startet neu. Bitte gleich erneut verbinden.
		C! close
		E: end=DD reason=shutdown
	`)
}

// After the login nothing may be said unasked: the session may end by itself
// until all is cut.
func TestShutdownAfterLogin(t *testing.T) {
	play(t, "implicit", `
		C! tls pop.test.example
		S: +OK proxy.test.example ready.
		C. USER anna\r\nPASS Kanarienvogel7\r\n
		S: +OK Send your password.
		B< +OK ready
		B: USER anna
		B< +OK
		B: PASS Kanarienvogel7
		B< +OK Logged in.
		S: +OK Logged in.
		P! shutdown
		C! wait 30s
		C: NOOP
		B: NOOP
		B< +OK
		S: +OK
		C! wait 31s
		S.
		E: end=DR reason=shutdown verified=true
	`)
}

// Somebody who leaves without a word, at every moment.
func TestLeavingWithoutAWord(t *testing.T) {
	for _, said := range []string{"", "C. US", "C: USER anna\nS: +OK Send your password.", "C: AUTH LOGIN\nS: + VXNlcm5hbWU6"} {
		play(t, "implicit", `
			C! tls pop.test.example
			S: +OK proxy.test.example ready.
			`+said+`
			C! close
			E: end=CD reason=client_closed attempts=
		`)
	}
}
