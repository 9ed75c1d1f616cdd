package smtpfront

import (
	"strings"
	"testing"
)

const (
	tooLate   = `421 4.4.2 Die Anmeldung hat zu lange gedauert. Bitte erneut verbinden.`
	misspoken = `421 4.5.0 Das ist nicht das Protokoll dieses Ports. Verbindung endet.`
)

func TestSilence(t *testing.T) {
	play(t, "starttls", `
		S: 220 proxy.test.example ESMTP ready
		C! wait 3m
		S: `+tooLate+`
		S.
		E: end=LD reason=login_timeout
	`)
	// In the middle of a line, of an exchange and of a chunk.
	for _, said := range []string{"C. EH", "C: AUTH PLAIN\nS: 334 \nC. AGFub", `C. BDAT 100 LAST\r\nhalf of it`} {
		play(t, "implicit", hello+said+`
			C! wait 3m
			S: `+tooLate+`
			S.
			E: end=LD reason=login_timeout attempts=
		`)
	}
}

// The time for a login is bounded in all, not by command.
func TestSlowTalk(t *testing.T) {
	play(t, "implicit", hello+strings.Repeat("C! wait 50s\nC: NOOP\nS: 250 2.0.0 OK\n", 3)+`
		C! wait 30s
		S: `+tooLate+`
		C! close
		E: end=LD reason=login_timeout
	`)
}

func TestTooManyBadCommands(t *testing.T) {
	play(t, "starttls", `
		S: 220 proxy.test.example ESMTP ready
		`+strings.Repeat("C: DATA\nS: 503 5.5.1 MAIL comes first\n", 10)+`
		S: `+misspoken+`
		C! wait 6s
		S.
		E: end=PD reason=too_many_bad_commands
	`)
}

func TestTooManyRefusals(t *testing.T) {
	play(t, "starttls", `
		S: 220 proxy.test.example ESMTP ready
		`+strings.Repeat("C: MAIL FROM:<>\nS: "+toldPlain+"\n", 6)+`
		S: 421 4.7.0 Zu viele Versuche. Bitte spaeter erneut verbinden.
		C! wait 6s
		S.
		E: action=deny end=PD reason=policy_refused
	`)
	play(t, "implicit", hello+strings.Repeat(`
		C: AUTH PLAIN {b64:\x00anna\x00falsch}
		B! next
		`+begin+`
		B: AUTH PLAIN {b64:\x00anna\x00falsch}
		B< 535 5.7.8 no
		S: `+toldWrong+`
		`, 6)+`
		S: 421 4.7.0 Zu viele Versuche. {...}
		C! close
		E: action=pass end=LL reason=too_many_logins attempts=6 verified= account=
	`)
}

// Who is denied after a good login may try in vain for a while, not for ever.
func TestTooManyMailsOfTheDenied(t *testing.T) {
	play(t, "implicit", strings.Replace(hello, "tls smtp.test.example", "tls mail.old.example", 1)+`
		C: AUTH PLAIN `+plain+`
		`+begin+`
		B: AUTH PLAIN `+plain+`
		B< 235 good
		B: QUIT
		S: 235 2.7.0 Authentication successful
		`+strings.Repeat("C: MAIL FROM:<>\nS: 550 5.7.1 Passwort ist NICHT falsch. {...}\n", 10)+`
		S: `+misspoken+`
		C! close
		E: action=deny end=PD reason=too_many_bad_commands verified=true account=anna@test.example
	`)
}

func TestLongLines(t *testing.T) {
	for name, said := range map[string]string{
		"command":  "NOOP " + strings.Repeat("x", 9<<10),
		"no end":   strings.Repeat("x", 13<<10),
		"response": "AUTH PLAIN " + strings.Repeat("x", 13<<10),
		"prompted": "AUTH PLAIN\nS: 334 \nC: " + strings.Repeat("x", 13<<10),
	} {
		t.Run(name, func(t *testing.T) {
			play(t, "implicit", hello+`
				C: `+said+`
				S: `+misspoken+`
				C! close
				E: end=PD reason=line_too_long
			`)
		})
	}
}

// A browser that was led here (ALPACA).
func TestHTTP(t *testing.T) {
	play(t, "starttls", `
		S: 220 proxy.test.example ESMTP ready
		C. POST / HTTP/1.1\r\nHost: smtp.test.example:587\r\n\r\nEHLO x\r\nAUTH PLAIN {b64:\x00anna\x00Kanarienvogel7}\r\n
		S: `+misspoken+`
		C! close
		E: end=PD reason=other_protocol hello= mechanism= attempts=
	`)
}

func TestShutdownBeforeLogin(t *testing.T) {
	play(t, "implicit", hello+`
		P! shutdown
		S: 421 4.3.2 Der Server startet neu. Bitte gleich erneut verbinden.
		C! close
		E: end=DD reason=shutdown
	`)
}

// A client is told once it is idle, not in place of a reply.
func TestShutdownAfterLogin(t *testing.T) {
	play(t, "implicit", hello+`
		C: AUTH PLAIN `+plain+`
		`+begin+`
		B: AUTH PLAIN `+plain+`
		B< 235 good
		S: 235 good
		C: NOOP
		B: NOOP
		P! shutdown
		C! wait 3s
		B< 250 2.0.0 fine
		S: 250 2.0.0 fine
		S: 421 4.3.2 Server is restarting, please connect again.
		C! close
		E: end=DR reason=shutdown verified=true
	`)
}

// The backend is down and comes back: the same connection may try again.
func TestOutage(t *testing.T) {
	play(t, "implicit", hello+`
		P! down
		C: AUTH PLAIN `+plain+`
		S: `+toldUnavailable+`
		P! up
		C: AUTH PLAIN `+plain+`
		`+begin+`
		B: AUTH PLAIN `+plain+`
		`+good+`
		E: action=pass end=CR attempts=2 verified=true
	`)
}

// Somebody who leaves without a word, at every moment.
func TestLeavingWithoutAWord(t *testing.T) {
	for _, said := range []string{"", "C. MAIL", "C: AUTH LOGIN\nS: 334 VXNlcm5hbWU6", `C. BDAT 9\r\nhalf`} {
		play(t, "implicit", hello+said+`
			C! close
			E: end=CD reason=client_closed attempts=
		`)
	}
}
