package proxy_test

import (
	"testing"
	"testing/synctest"

	"mailreeve/imapfront"
	"mailreeve/policy"
	"mailreeve/popfront"
	"mailreeve/proxy"
	"mailreeve/proxy/proxytest"
)

// TestWatched: who watches hears of each login at its answer, and of a session that
// comes to none at its end; and the event is the same as unwatched.
func TestWatched(t *testing.T) {
	observed := proxytest.Under([]policy.Requirement{proxytest.Encrypted(policy.Stage{Do: policy.Observe})})
	const imap = `
		S: * OK [CAPABILITY IMAP4rev1 ID SASL-IR STARTTLS AUTH=PLAIN AUTH=LOGIN] proxy.test.example ready.
	`
	for name, c := range map[string]struct {
		front    *proxy.Front
		listener string
		change   func(*proxytest.Rig)
		script   string
	}{
		"a wrong password, then the right one": {imapfront.Front, "starttls", observed, `
			P! watch` + imap + `
			W: nothing
			C: i ID ("name" "Thunderbird" "version" "153")
			S: * ID ("name" "Mailreeve")
			S: i OK ID completed.
			C: a LOGIN anna wrong
			B< * OK [CAPABILITY IMAP4rev1] ready
			B: a LOGIN "anna" "wrong"
			B< a NO wrong
			S: a NO [AUTHENTICATIONFAILED] {...}
			W: refused=credential verified= account= action=observe by=[encrypted] attempts=1 client=Thunderbird_153 tls=none ip=192.0.2.7 end= reason=
			C: j ID ("name" "K-9")
			S: * ID ("name" "Mailreeve")
			S: j OK ID completed.
			C: b LOGIN anna Kanarienvogel7
			B! next
			B< * OK [CAPABILITY IMAP4rev1] ready
			B: b LOGIN "anna" "Kanarienvogel7"
			B< b OK in
			S: b OK in
			W: refused= verified=true account=anna action=observe by=[encrypted] attempts=2 client=K-9 end=
			C! close
			E: refused= verified=true account=anna attempts=2 client=K-9 end=CR
			W: nothing
		`},
		"refused by policy": {imapfront.Front, "starttls", nil, `
			P! watch
			S: * OK proxy.test.example ready.
			C: a LOGIN anna Kanarienvogel7
			S: * OK [ALERT] Passwort ist NICHT falsch. {...}
			S: a NO [UNAVAILABLE] {...}
			W: refused=policy action=deny by=[encrypted] rule=encrypted exposed=true account= end=
			C! close
			E: refused=policy action=deny by=[encrypted] account= end=CD
			W: nothing
		`},
		"refused before the password": {popfront.Front, "starttls", nil, `
			P! watch
			S: +OK {...}
			C: USER anna
			S: -ERR {...}
			W: refused=policy action=deny exposed= account= end=
			C! close
			E: refused=policy
			W: nothing
		`},
		"nothing was offered, so it went": {imapfront.Front, "starttls", nil, `
			P! watch
			S: * OK proxy.test.example ready.
			C! close
			W: action=deny by=[encrypted] attempts= refused= end=CD reason=client_closed
			E: action=deny by=[encrypted] end=CD
		`},
		"the handshake comes to nothing": {imapfront.Front, "implicit", nil, `
			P! watch
			C. \x16\x03\x01\x00\x02\x01\x00
			S.
			W: end=LT reason=handshake_timeout tls= ip=192.0.2.7
			E: end=LT
			W: nothing
		`},
		"whose login was before is nobody's": {imapfront.Front, "starttls", observed, imap + `
			C: a LOGIN anna Kanarienvogel7
			B< * OK [CAPABILITY IMAP4rev1] ready
			B: a LOGIN "anna" "Kanarienvogel7"
			B< a OK in
			S: a OK in
			P! watch
			C! close
			E: verified=true end=CR
			W: nothing
		`},
		"nobody watches any more": {imapfront.Front, "starttls", nil, `
			P! watch
			S: * OK proxy.test.example ready.
			P! look away
			C: a LOGIN anna Kanarienvogel7
			S: * OK [ALERT] {...}
			S: a NO [UNAVAILABLE] {...}
			C! close
			E: refused=policy
			W: nothing
		`},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := proxytest.New(t, c.front, fronts[c.front])
				if c.change != nil {
					c.change(r)
				}
				r.Play(c.listener, c.script)
				r.WantNoSecret()
			})
		})
	}
}
