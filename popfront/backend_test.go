package popfront

import (
	"bytes"
	"strings"
	"testing"

	"mailreeve/proxy"
	"mailreeve/proxy/proxytest"
)

const (
	toldWrong       = `-ERR [AUTH] Benutzername oder Passwort ist falsch.`
	toldClosed      = `-ERR [SYS/PERM] Dieses Postfach ist derzeit nicht zugaenglich. Passwort ist NICHT falsch.`
	toldUnavailable = `-ERR [SYS/TEMP] Der Mailserver ist gerade nicht erreichbar. Passwort ist NICHT falsch. Bitte spaeter erneut versuchen.`
)

// What the backend says to the password, and what the client is told.
func TestRefusalsOfPASS(t *testing.T) {
	for said, told := range map[string]string{
		// Whoever repeats the password does not get it into the log.
		`B< -ERR Unknown command: PASS Kanarienvogel7`: toldWrong,
		`B< unknown: PASS Kanarienvogel7`:              toldUnavailable,
		`B< -ERR [AUTH] Authentication failed.`:        toldWrong,
		`B< -ERR Authentication failed.`:               toldWrong,
		`B< -ERR`:                                      toldWrong,
		`B< -ERR [auth] no`:                            toldWrong,
		`B< -ERR [SYS/TEMP] Temporary failure.`:        toldUnavailable,
		`B< -ERR [SYS/TEMP/LDAP] Temporary failure.`:   toldUnavailable,
		`B< -ERR [SYS/WHATEVER] Something is broken.`:  toldUnavailable,
		`B< -ERR [SYS/PERM] Account is disabled.`:      toldClosed,
		`B< -ERR [SYS/PERM/X] Account is disabled.`:    toldClosed,
		`B< -ERR [IN-USE] Mailbox is locked.`:          strings.Replace(toldClosed, "SYS/PERM", "IN-USE", 1),
		`B< -ERR [LOGIN-DELAY] Not so fast.`:           strings.Replace(toldClosed, "SYS/PERM", "LOGIN-DELAY", 1),
		`B< 550 nonsense`:                              toldUnavailable,
		`B< `:                                          toldUnavailable,
		`B< + `:                                        toldUnavailable, // nobody asked for SASL
		`B! close`:                                     toldUnavailable,
		`C! wait 31s`:                                  toldUnavailable,
	} {
		next := "-ERR USER comes first."
		if told == toldUnavailable {
			next = told // before the password, where Thunderbird shows it
		}
		t.Run(said, func(t *testing.T) {
			play(t, "implicit", `
				C! tls pop.test.example
				S: +OK proxy.test.example ready.
				C: USER anna
				S: +OK Send your password.
				C: PASS Kanarienvogel7
				B< +OK ready
				B: USER anna
				B< +OK
				B: PASS Kanarienvogel7
				`+said+`
				S: `+told+`
				# The dialogue goes on, and the name is to be said again.
				C: PASS Kanarienvogel7
				S: `+next+`
				C! close
				E: action=pass end=CD mechanism=USERPASS attempts=1 verified= account= backend=backend.test:1
			`)
		})
	}
}

// Before the password a refusal is not about it, but an old server may say
// there that it has no such mailbox (RFC 1939 section 7).
func TestRefusalsOfUSER(t *testing.T) {
	for said, told := range map[string]string{
		`B< -ERR no such mailbox`: toldWrong,
		`B< -ERR [AUTH] Plaintext authentication disallowed on non-secure (SSL/TLS) connections.`: toldUnavailable,
		`B< -ERR [SYS/TEMP] Temporary failure.`:                                                   toldUnavailable,
		`B! close`:                                                                                toldUnavailable,
	} {
		t.Run(said, func(t *testing.T) {
			play(t, "implicit", `
				C! tls pop.test.example
				S: +OK proxy.test.example ready.
				C: USER anna
				S: +OK Send your password.
				C: PASS Kanarienvogel7
				B< +OK ready
				B: USER anna
				`+said+`
				S: `+told+`
				C! close
				E: action=pass end=CD attempts=1 verified=
			`)
		})
	}
}

// A backend that is not well.
func TestBadGreetings(t *testing.T) {
	for _, said := range []string{`B< -ERR too busy`, `B< * OK this is IMAP`, `B! close`} {
		t.Run(said, func(t *testing.T) {
			play(t, "implicit", `
				C! tls pop.test.example
				S: +OK proxy.test.example ready.
				C: AUTH PLAIN {b64:\x00anna\x00Kanarienvogel7}
				`+said+`
				S: `+toldUnavailable+`
				C! close
				E: action=pass end=CD attempts=1 verified= backend=
			`)
		})
	}
}

func forward(r *proxytest.Rig) { r.Backend.Forward = true }

// Dovecot's way to be told who the client is.
func TestXCLIENT(t *testing.T) {
	play(t, "implicit", `
		C! tls pop.test.example
		S: +OK proxy.test.example ready.
		C: USER anna
		S: +OK Send your password.
		C: PASS Kanarienvogel7
		B< +OK [XCLIENT] Dovecot ready.
		B: XCLIENT ADDR=192.0.2.7 PORT=40000 DESTADDR=198.51.100.1 DESTPORT=110 SESSION={id} TTL=6 CLIENT-TRANSPORT=TLS DESTNAME=pop.test.example
		B: USER anna
		B< +OK Updated
		B< +OK
		B: PASS Kanarienvogel7
		B< +OK Logged in.
		S: +OK Logged in.
		C! close
		E: action=pass end=CR verified=true
	`, forward)
}

func TestXCLIENTInClearOverIPv6(t *testing.T) {
	play(t, "starttls", `
		S: +OK proxy.test.example ready.
		C: AUTH PLAIN {b64:info\x00anna\x00Kanarienvogel7}
		B< +OK [XCLIENT] Dovecot ready.
		B: XCLIENT ADDR=2001:db8::7 PORT=40000 DESTADDR=2001:db8::1 DESTPORT=110 SESSION={id} TTL=6 CLIENT-TRANSPORT=insecure
		B: AUTH PLAIN {b64:info\x00anna\x00Kanarienvogel7}
		B< +OK Updated
		B< +OK Logged in.
		S: +OK Logged in.
		C! close
		E: action=pass end=CR verified=true ip=2001:db8::7
	`, forward, open, func(r *proxytest.Rig) { r.Client, r.Server = "[2001:db8::7]:40000", "[2001:db8::1]:110" })
}

// Dovecot says in its greeting only whether it takes XCLIENT; the offer has it,
// so that a check can miss it.
func TestXCLIENTOffered(t *testing.T) {
	for greeting, want := range map[string]string{
		"+OK [XCLIENT] Dovecot ready.": "XCLIENT UIDL",
		"+OK Dovecot ready.":           "UIDL",
	} {
		p := Front.Dial(proxy.NewWire(&canned{says: bytes.NewReader([]byte(greeting + "\r\n+OK\r\nUIDL\r\n.\r\n"))}), proxy.Origin{})
		if err := p.Greeting(); err != nil {
			t.Fatal(err)
		}
		offer, err := p.Offer()
		if got := strings.Join(offer.Extensions, " "); got != want || err != nil {
			t.Errorf("after %q the offer is %q (%v), want %q", greeting, got, err, want)
		}
	}
}

// A backend that does not trust us is not told; one that refuses is set up wrongly.
func TestXCLIENTNotTaken(t *testing.T) {
	play(t, "implicit", `
		C! tls pop.test.example
		S: +OK proxy.test.example ready.
		C: USER anna
		S: +OK Send your password.
		C: PASS Kanarienvogel7
		B< +OK Dovecot ready.
		B: USER anna
		B< +OK
		B: PASS Kanarienvogel7
		B< +OK Logged in.
		S: +OK Logged in.
		C! close
		E: action=pass end=CR verified=true
	`, forward)
	play(t, "implicit", `
		C! tls pop.test.example
		S: +OK proxy.test.example ready.
		C: USER anna
		S: +OK Send your password.
		C: PASS Kanarienvogel7
		B< +OK [XCLIENT] Dovecot ready.
		B: XCLIENT {...}
		B: USER anna
		B< -ERR [AUTH] unknown command
		S: `+toldUnavailable+`
		C! close
		E: action=pass end=CD verified=
	`, forward)
}

// The hop to the backend with STLS; what came in clear behind the go-ahead is
// no backend's (CVE-2011-0411 on the other side).
func TestHopWithSTLS(t *testing.T) {
	hop := func(r *proxytest.Rig) { r.Backend.Hop = proxy.HopStartTLS }
	probe := `
		B< +OK ready
		B: STLS
		B< +OK
		B! tls
		B: CAPA
		B< +OK
		B< UIDL
		B< .
	`
	const begin = `
		C! tls pop.test.example
		S: +OK proxy.test.example ready.
		C: USER anna
		S: +OK Send your password.
		C: PASS Kanarienvogel7
		B< +OK ready
		B: STLS
	`
	playWith(t, probe, "implicit", begin+`
		B< +OK
		B! tls
		B: USER anna
		B< +OK
		B: PASS Kanarienvogel7
		B< +OK Logged in.
		S: +OK Logged in.
		C! close
		E: action=pass end=CR verified=true
	`, hop)
	playWith(t, probe, "implicit", begin+`
		B< -ERR no TLS here
		S: `+toldUnavailable+`
		C! close
		E: action=pass end=CD verified=
	`, hop)
	playWith(t, probe, "implicit", begin+`
		B. +OK\r\n+OK injected\r\n
		S: `+toldUnavailable+`
		C! close
		E: action=pass end=CD verified=
	`, hop)
}

// master is a backend that knows a master user, beside one that checks passwords.
func master(r *proxytest.Rig) {
	check := &proxy.Backend{
		Front: Front, Addresses: []string{"check.test:1"}, Connect: r.Backend.Connect, Login: r.Backend.Login,
		Hostname: r.Backend.Hostname, Dialer: r.Backend.Dialer,
	}
	r.Backend.Master, r.Backend.Check = &proxy.Master{User: "reeve", Secret: "Kanarienvogel7"}, check
}

func TestMaster(t *testing.T) {
	play(t, "implicit", `
		C! tls pop.test.example
		S: +OK proxy.test.example ready.
		C: USER anna
		S: +OK Send your password.
		C: PASS Kanarienvogel7
		B< +OK check
		B: USER anna
		B< +OK
		B: PASS Kanarienvogel7
		B< +OK good
		B: QUIT
		B! next
		B< +OK ready
		B: AUTH PLAIN {b64:anna\x00reeve\x00Kanarienvogel7}
		B< +OK Logged in.
		S: +OK Logged in.
		C! close
		E: action=pass end=CR verified=true account=anna backend=backend.test:1
	`, master)
	// A wrong password is one, and the master is not used.
	play(t, "implicit", `
		C! tls pop.test.example
		S: +OK proxy.test.example ready.
		C: USER anna
		S: +OK Send your password.
		C: PASS falsch
		B< +OK check
		B: USER anna
		B< +OK
		B: PASS falsch
		B< -ERR [AUTH] no
		S: `+toldWrong+`
		C! close
		E: action=pass end=CD verified= backend=check.test:1
	`, master)
	// The master's own trouble is not the customer's.
	play(t, "implicit", `
		C! tls pop.test.example
		S: +OK proxy.test.example ready.
		C: AUTH PLAIN {b64:\x00anna\x00Kanarienvogel7}
		B< +OK check
		B: USER anna
		B< +OK
		B: PASS Kanarienvogel7
		B< +OK good
		B: QUIT
		B! next
		B< +OK ready
		B: AUTH PLAIN {b64:anna\x00reeve\x00Kanarienvogel7}
		B< -ERR [AUTH] the master is unknown
		S: `+toldUnavailable+`
		C! close
		E: action=pass end=CD verified= backend=backend.test:1
	`, master)
}

// Who logs in as another gets that other's mailbox, as the check has allowed.
func TestMasterForAnother(t *testing.T) {
	play(t, "implicit", `
		C! tls pop.test.example
		S: +OK proxy.test.example ready.
		C: AUTH PLAIN {b64:info\x00anna\x00Kanarienvogel7}
		B< +OK check
		B: AUTH PLAIN {b64:info\x00anna\x00Kanarienvogel7}
		B< +OK good
		B: QUIT
		B! next
		B< +OK ready
		B: AUTH PLAIN {b64:info\x00reeve\x00Kanarienvogel7}
		B< +OK Logged in.
		S: +OK Logged in.
		C! close
		E: action=pass end=CR verified=true account=info
	`, master)
}

// A token may name nobody; the master must then not log in as itself.
func TestMasterForNobody(t *testing.T) {
	playWith(t, bearerProbe, "implicit", `
		C! tls pop.test.example
		S: +OK proxy.test.example ready.
		C: AUTH OAUTHBEARER {b64:n,,\x01auth=Bearer Kanarienvogel7\x01\x01}
		S: `+toldUnavailable+`
		C! close
		E: action=pass end=CD verified= backend= seconds=0
	`, master)
}
