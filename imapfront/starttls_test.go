package imapfront

import "testing"

func TestStartTLS(t *testing.T) {
	play(t, "starttls", `
		S: * OK proxy.test.example ready.
		C: a STARTTLS
		S: a OK Begin TLS negotiation now.
		C! tls imap.test.example
		C: b CAPABILITY
		S: * CAPABILITY IMAP4rev1 ID SASL-IR ENABLE IDLE LITERAL+ AUTH=PLAIN AUTH=LOGIN
		S: b OK CAPABILITY completed.
		C: c STARTTLS
		S: c BAD TLS is on already.
		C: d AUTHENTICATE PLAIN {b64:\x00anna\x00Kanarienvogel7}
	`+ready+`
		B: d AUTHENTICATE PLAIN {b64:\x00anna\x00Kanarienvogel7}
		B< d NO [AUTHENTICATIONFAILED] no
		S: d NO `+wrong+`
		C! close
		E: action=pass end=CD reason=client_closed entry=starttls tls=1.3 attempts=1 account= exposed=
	`)
}

func TestStartTLSInsideTLS(t *testing.T) {
	play(t, "implicit", inTLS+`
		C: a STARTTLS
		S: a BAD TLS is on already.
		# Bytes behind it are no injection: they came in TLS.
		C. b STARTTLS\r\nc NOOP\r\n
		S: b BAD TLS is on already.
		S: c OK NOOP completed.
		C! close
		E: reason=client_closed entry=implicit
	`)
}

// TestStartTLSInjection is CVE-2011-0411 and its successors.
func TestStartTLSInjection(t *testing.T) {
	for _, behind := range []string{
		`b NOOP\r\n`, `b`, `\n`, `b LOGIN anna Kanarienvogel7\r\n`, `{5+}\r\n`,
	} {
		t.Run(behind, func(t *testing.T) {
			play(t, "starttls", `
				S: * OK proxy.test.example ready.
				C. a STARTTLS\r\n`+behind+`
				S: * BYE Das ist nicht das Protokoll dieses Ports. Verbindung endet.
				S.
				E: end=PD reason=starttls_injection attempts= mechanism= entry=plain
			`)
		})
	}
	t.Run("a literal", func(t *testing.T) {
		play(t, "starttls", `
			S: * OK proxy.test.example ready.
			C. a STARTTLS {10+}\r\nb STARTTLS\r\n
			S: a BAD STARTTLS wants no argument.
			C! close
			E: end=CD entry=plain
		`)
	})
	t.Run("later", func(t *testing.T) {
		play(t, "starttls", `
			S: * OK proxy.test.example ready.
			C: a STARTTLS
			S: a OK Begin TLS negotiation now.
			C: b LOGIN anna Kanarienvogel7
			# A TLS alert.
			C! close
			E: end=PT reason=handshake_failed attempts=
		`)
	})
}

// TestStartTLSForgets: nothing said in clear counts any more (RFC 9051 section 6.2.1).
func TestStartTLSForgets(t *testing.T) {
	play(t, "starttls", `
		S: * OK proxy.test.example ready.
		C: 1 ID ("name" "Evil" "version" "1")
		S: * ID ("name" "Mailreeve")
		S: 1 OK ID completed.
		C: 2 AUTHENTICATE CRAM-MD5
		S: * OK [ALERT] Passwort ist NICHT falsch. {...}
		S: 2 NO [UNAVAILABLE] Passwort ist NICHT falsch. {...}
		C: 3 FOO
		S: 3 BAD Please log in first.
		C: 4 STARTTLS
		S: 4 OK Begin TLS negotiation now.
		C! tls imap.test.example
		C! close
		E: action=pass client= client_id= mechanism= entry=starttls
	`)
}

// TestStartTLSAfterRefusal: the way out of a refusal stays open.
func TestStartTLSAfterRefusal(t *testing.T) {
	play(t, "starttls", `
		S: * OK proxy.test.example ready.
		C: a LOGIN anna Kanarienvogel7
		S: * OK [ALERT] Passwort ist NICHT falsch. {...}
		S: a NO [UNAVAILABLE] Passwort ist NICHT falsch. {...}
		C: b STARTTLS
		S: b OK Begin TLS negotiation now.
		C! tls imap.test.example
		C: c LOGIN anna Kanarienvogel7
	`+ready+`
		B: c LOGIN "anna" "Kanarienvogel7"
		B< c OK in
		S: c OK in
		C! close
		E: action=pass exposed=true verified=true attempts=1
	`)
}
