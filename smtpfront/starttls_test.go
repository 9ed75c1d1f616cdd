package smtpfront

import (
	"strings"
	"testing"
)

// After STARTTLS everything is forgotten, EHLO too (RFC 3207 section 4.2).
func TestStartTLS(t *testing.T) {
	play(t, "starttls", `
		S: 220 proxy.test.example ESMTP ready
		C: EHLO clear.example
		`+inClear+`
		C: STARTTLS now
		S: 501 5.5.4 STARTTLS takes no argument
		C: MAIL FROM:<anna@test.example>
		S: `+toldPlain+`
		C: STARTTLS
		S: 220 2.0.0 Ready to start TLS
		C! tls smtp.test.example
		C: AUTH PLAIN {b64:\x00anna\x00Kanarienvogel7}
		S: 503 5.5.1 EHLO comes first
		C: STARTTLS
		S: 503 5.5.1 TLS is on already
		C: STARTTLS now
		S: 503 5.5.1 TLS is on already
		`+strings.SplitAfterN(hello, "ready", 2)[1]+`
		C: AUTH PLAIN {b64:\x00anna\x00Kanarienvogel7}
		`+begin+`
		B: AUTH PLAIN {b64:\x00anna\x00Kanarienvogel7}
		`+good+`
		E: action=pass by= entry=starttls tls=1.3 end=CR hello=laptop.example exposed= verified=true account=anna
	`)
}

func TestStartTLSForgetsHello(t *testing.T) {
	play(t, "starttls", `
		S: 220 proxy.test.example ESMTP ready
		C: HELO clear.example
		S: 250 proxy.test.example
		C: STARTTLS
		S: 220 2.0.0 Ready to start TLS
		C! tls smtp.test.example
		C! close
		E: action=pass entry=starttls end=CD hello= client=
	`)
}

// CVE-2011-0411 and its many successors.
func TestStartTLSInjection(t *testing.T) {
	play(t, "starttls", `
		S: 220 proxy.test.example ESMTP ready
		C. STARTTLS\r\nEHLO eve\r\n
		S: 421 4.5.0 Das ist nicht das Protokoll dieses Ports. Verbindung endet.
		C! close
		E: action=deny end=PD reason=starttls_injection entry=plain tls=none hello=
	`)
}

// "SSL" set on port 587: served, and noted.
func TestTLSOnPlainPort(t *testing.T) {
	play(t, "starttls", hello+`
		C: STARTTLS
		S: 503 5.5.1 TLS is on already
		C! close
		E: action=pass entry=implicit wrong_port=true end=CD
	`)
}

func TestPlainOnTLSPort(t *testing.T) {
	play(t, "implicit", `
		C: EHLO laptop.example
		S: 554 5.7.0 Port 465 braucht SSL/TLS. Bitte im Programm SSL/TLS einschalten.
		C! close
		E: end=PS reason=plaintext_on_tls_port wrong_port=true tls=none hello=
	`)
	play(t, "implicit", `
		C! wait 4s
		S: 554 5.7.0 Port 465 braucht SSL/TLS. {...}
		C! close
		E: end=PS reason=plaintext_on_tls_port wrong_port=true
	`)
}
