package smtpfront

import (
	"strings"
	"testing"
	"testing/synctest"

	"mailreeve/proxy"
	"mailreeve/proxy/proxytest"
)

const (
	toldWrong       = `535 5.7.8 Benutzername oder Passwort ist falsch.`
	toldClosed      = `525 5.7.13 Dieses Postfach ist derzeit nicht zugaenglich. Passwort ist NICHT falsch.`
	toldUnavailable = `454 4.7.0 Der Mailserver ist gerade nicht erreichbar. Passwort ist NICHT falsch. Bitte spaeter erneut versuchen.`
)

// What the backend says to AUTH, and what the client is told.
func TestRefusalsOfAUTH(t *testing.T) {
	for said, told := range map[string]string{
		// Whoever repeats the password does not get it into the log.
		`B< 535 5.7.8 not Kanarienvogel7`:            toldWrong,
		`B< 500 5.5.1 AUTH PLAIN ` + plain + `?`:     toldUnavailable,
		`B< what is AUTH PLAIN ` + plain + `?`:       toldUnavailable,
		`B< 535 5.7.8 Error: authentication failed:`: toldWrong,
		`B< 535`:                                           toldWrong,
		"B< 535-5.7.8 no\nB< 535 5.7.8 really":             toldWrong,
		`B< 525 5.7.13 Account disabled`:                   toldClosed,
		`B< 550 5.7.1 Account disabled`:                    toldClosed,
		`B< 554 5.7.1 Account disabled`:                    toldClosed,
		`B< 454 4.7.0 Temporary authentication failure`:    toldUnavailable,
		`B< 421 4.3.2 going down`:                          toldUnavailable,
		`B< 432 4.7.12 A password transition is needed`:    toldUnavailable,
		`B< 500 5.5.1 what?`:                               toldUnavailable,
		`B< 503 5.5.1 Error: authentication not enabled`:   toldUnavailable,
		`B< 504 5.5.4 Unrecognized authentication type`:    toldUnavailable,
		`B< 530 5.7.0 Must issue a STARTTLS command first`: toldUnavailable,
		`B< 534 5.7.9 too weak`:                            toldUnavailable,
		`B< 538 5.7.11 Encryption required`:                toldUnavailable,
		`B< 250 2.0.0 fine, but no login`:                  toldUnavailable,
		`B< +OK this is POP3`:                              toldUnavailable,
		`B< `:                                              toldUnavailable,
		`B< 334 eHh4`:                                      toldUnavailable, // nobody has more
		"B< 235-2.7.0 begun\nB< 535 5.7.8 and not kept":    toldUnavailable,
		`B! close`:    toldUnavailable,
		`C! wait 31s`: toldUnavailable,
		`B. ` + strings.Repeat(`235-2.7.0 x\r\n`, 101): toldUnavailable,
		`B. ` + strings.Repeat(`x`, 4<<10+2):           toldUnavailable,
	} {
		t.Run(said[:min(len(said), 40)], func(t *testing.T) {
			rig := play(t, "implicit", hello+`
				C: AUTH PLAIN `+plain+`
				`+begin+`
				B: AUTH PLAIN `+plain+`
				`+said+`
				S: `+told+`
				C: NOOP
				S: 250 2.0.0 OK
				C! close
				E: action=pass end=CD mechanism=PLAIN attempts=1 verified= account= backend=backend.test:1
			`)
			// Trouble of the backend's is told to the operators, with its words.
			lines := rig.Logs.FilterMessage("a login could not be carried out").All()
			if (told == toldUnavailable) != (len(lines) == 1) {
				t.Errorf("%d lines in the log", len(lines))
			}
			if mark, words, _ := strings.Cut(said, " "); !strings.Contains(said, plain) && told == toldUnavailable && mark == "B<" && words != "" && words[0] == '5' {
				if cause := lines[0].ContextMap()["error"].(string); !strings.Contains(cause, words) {
					t.Errorf("the log has %q, without %q", cause, words)
				}
			}
		})
	}
}

// A backend that is not well, or not one.
func TestBadBeginnings(t *testing.T) {
	for name, said := range map[string]string{
		"full":     `B< 421 4.3.2 too busy`,
		"closed":   `B< 554 5.7.1 go away`,
		"IMAP":     `B< * OK this is IMAP`,
		"nobody":   `B! close`,
		"silence":  `C! wait 31s`,
		"no EHLO":  "B< 220 x\nB: EHLO laptop.example\nB< 500 5.5.1 what?",
		"no AUTH":  "B< 220 x\nB: EHLO laptop.example\nB< 250-x\nB< 250 STARTTLS",
		"no PLAIN": "B< 220 x\nB: EHLO laptop.example\nB< 250-x\nB< 250 AUTH CRAM-MD5",
	} {
		t.Run(name, func(t *testing.T) {
			rig := play(t, "implicit", hello+`
				C: AUTH PLAIN `+plain+`
				`+said+`
				S: `+toldUnavailable+`
				C! close
				E: action=pass end=CD attempts=1 verified=
			`)
			if name != "no AUTH" && name != "no PLAIN" {
				return
			}
			lines := rig.Logs.FilterMessage("a login could not be carried out").All()
			if cause := lines[0].ContextMap()["error"].(string); !strings.Contains(cause, "does not offer AUTH") {
				t.Errorf("the log has %q", cause)
			}
		})
	}
}

// The backend's own words of success go to the client, byte for byte.
func TestSuccessPasses(t *testing.T) {
	play(t, "implicit", hello+`
		C: AUTH PLAIN `+plain+`
		`+begin+`
		B: AUTH PLAIN `+plain+`
		B. 235-Hello\r\n235-\t%s \xc3\xbc\r\n235\r\n
		S: 235-Hello
	`+"S: 235-\t%s \xc3\xbc"+`
		S: 235
		C! close
		E: action=pass end=CR verified=true
	`, func(r *proxytest.Rig) { r.Settings.Hostname = "proxy.test.example" })
}

func forward(r *proxytest.Rig) { r.Backend.Forward = true }

// The client is named by XCLIENT: what is offered, no more, the address last;
// then the session begins anew.
func TestXCLIENT(t *testing.T) {
	play(t, "implicit", hello+`
		C: AUTH PLAIN `+plain+`
		B< 220 backend.test ESMTP Postfix
		B: EHLO proxy.test.example
		B< 250-backend.test
		B< 250 XCLIENT NAME ADDR PROTO HELO REVERSE_NAME PORT LOGIN DESTADDR DESTPORT
		B: XCLIENT NAME=[UNAVAILABLE] REVERSE_NAME=[UNAVAILABLE] PROTO=ESMTP HELO=laptop.example DESTADDR=198.51.100.1 DESTPORT=587 PORT=40000 ADDR=192.0.2.7
		B< 220 backend.test ESMTP Postfix
		B: EHLO laptop.example
		B< 250-backend.test
		B< 250 AUTH PLAIN
		B: AUTH PLAIN `+plain+`
		`+good+`
		E: action=pass end=CR verified=true
	`, forward)
	// Dovecot's.
	play(t, "implicit", hello+`
		C: AUTH PLAIN `+plain+`
		B< 220 ready
		B: EHLO proxy.test.example
		B< 250-ready
		B< 250 xclient addr port session client-transport destname ttl timeout forward
		B: XCLIENT SESSION={id} CLIENT-TRANSPORT=TLS DESTNAME=smtp.test.example PORT=40000 ADDR=192.0.2.7
		B< 220 ready
		B: EHLO laptop.example
		B< 250-ready
		B< 250 AUTH PLAIN
		B: AUTH PLAIN `+plain+`
		`+good+`
		E: action=pass end=CR verified=true
	`, forward)
}

// What a client says of itself must not end an attribute or a line.
func TestXCLIENTOfNastyNames(t *testing.T) {
	play(t, "starttls", `
		S: 220 proxy.test.example ESMTP ready
		C: HELO +a=b,ADDR=1.2.3.4[IPv6:::1]
		S: 250 proxy.test.example
		C: AUTH PLAIN `+plain+`
		B< 220 ready
		B: EHLO proxy.test.example
		B< 250-ready
		B< 250 XCLIENT ADDR HELO CLIENT-TRANSPORT DESTADDR
		B: XCLIENT HELO=+2Ba+3Db,ADDR+3D1.2.3.4[IPv6:::1] CLIENT-TRANSPORT=insecure DESTADDR=IPV6:2001:db8::1 ADDR=IPV6:2001:db8::7
		B< 220 ready
		B: EHLO +a=b,ADDR=1.2.3.4[IPv6:::1]
		B< 250-ready
		B< 250 AUTH PLAIN
		B: AUTH PLAIN `+plain+`
		`+good+`
		E: action=pass end=CR verified=true ip=2001:db8::7 hello=+a=b,ADDR=1.2.3.4[IPv6:::1]
	`, forward, open, func(r *proxytest.Rig) { r.Client, r.Server = "[2001:db8::7]:40000", "[2001:db8::1]:587" })
}

// A line has at most 512 bytes; the address comes in the last.
func TestXCLIENTSplit(t *testing.T) {
	name := strings.Repeat("n.", 116) + "test.example" // 244 bytes
	hello := strings.Repeat("h", 230)
	play(t, "implicit", `
		C! tls `+name+`
		S: 220 proxy.test.example ESMTP ready
		C: HELO `+hello+`
		S: 250 proxy.test.example
		C: AUTH PLAIN `+plain+`
		B< 220 ready
		B: EHLO proxy.test.example
		B< 250-ready
		B< 250 XCLIENT NAME ADDR PROTO HELO PORT SESSION CLIENT-TRANSPORT DESTNAME DESTADDR DESTPORT
		B: XCLIENT NAME=[UNAVAILABLE] PROTO=ESMTP HELO=`+hello+` SESSION={id} CLIENT-TRANSPORT=TLS
		B< 220 ready
		B: XCLIENT DESTNAME=`+name+` DESTADDR=198.51.100.1 DESTPORT=587 PORT=40000 ADDR=192.0.2.7
		B< 220 ready
		B: EHLO `+hello+`
		B< 250-ready
		B< 250 AUTH PLAIN
		B: AUTH PLAIN `+plain+`
		`+good+`
		E: action=pass end=CR verified=true
	`, forward, open)
	// A name that would fill a line alone is left out; EHLO says it.
	play(t, "implicit", `
		C! tls smtp.test.example
		S: 220 proxy.test.example ESMTP ready
		C: HELO `+strings.Repeat("+", 100)+`
		S: 250 proxy.test.example
		C: AUTH PLAIN `+plain+`
		B< 220 ready
		B: EHLO proxy.test.example
		B< 250-ready
		B< 250 XCLIENT ADDR HELO
		B: XCLIENT ADDR=192.0.2.7
		B< 220 ready
		B: EHLO `+strings.Repeat("+", 100)+`
		B< 250-ready
		B< 250 AUTH PLAIN
		B: AUTH PLAIN `+plain+`
		`+good+`
		E: action=pass end=CR verified=true
	`, forward)
}

// A backend that does not take it is set up wrongly: no customer's fault.
func TestXCLIENTRefused(t *testing.T) {
	for name, said := range map[string]string{
		"not offered": "B< 250 ready",
		"refused":     "B< 250-ready\nB< 250 XCLIENT ADDR\nB: XCLIENT ADDR=192.0.2.7\nB< 550 5.7.0 Error: insufficient authorization",
		"no AUTH":     "B< 250-ready\nB< 250 XCLIENT ADDR\nB: XCLIENT ADDR=192.0.2.7\nB< 220 ready\nB: EHLO laptop.example\nB< 250 ready",
	} {
		t.Run(name, func(t *testing.T) {
			play(t, "implicit", hello+`
				C: AUTH PLAIN `+plain+`
				B< 220 ready
				B: EHLO proxy.test.example
				`+said+`
				S: `+toldUnavailable+`
				C! close
				E: action=pass end=CD verified=
			`, forward)
		})
	}
}

// The hop to the backend with STARTTLS; what it said in clear is forgotten.
func TestHopWithSTARTTLS(t *testing.T) {
	hop := func(r *proxytest.Rig) { r.Backend.Hop = proxy.HopStartTLS }
	probe := `
		B< 220 ready
		B: EHLO proxy.test.example
		B< 250-ready
		B< 250-X-IN-CLEAR
		B< 250 STARTTLS
		B: STARTTLS
		B< 220 go on
		B! tls
		B: EHLO proxy.test.example
		B< 250-ready
		B< 250 SIZE
	`
	const begin = `
		C! tls smtp.test.example
		S: 220 proxy.test.example ESMTP ready
		C: EHLO laptop.example
		S: 250-proxy.test.example
		S: 250-SIZE
		S: 250-AUTH PLAIN LOGIN
		S: 250 AUTH=PLAIN LOGIN
		C: AUTH PLAIN ` + plain + `
		B< 220 ready
		B: EHLO proxy.test.example
	`
	playWith(t, probe, "implicit", begin+`
		B< 250-ready
		B< 250 STARTTLS
		B: STARTTLS
		B< 220 go on
		B! tls
		B: EHLO laptop.example
		B< 250-ready
		B< 250 AUTH PLAIN
		B: AUTH PLAIN `+plain+`
		`+good+`
		E: action=pass end=CR verified=true
	`, hop)
	for name, said := range map[string]string{
		"stripped":  "B< 250-ready\nB< 250 AUTH PLAIN",
		"refused":   "B< 250-ready\nB< 250 STARTTLS\nB: STARTTLS\nB< 454 4.7.0 not now",
		"injection": "B< 250-ready\nB< 250 STARTTLS\nB: STARTTLS\n" + `B. 220 go on\r\n250-ready\r\n250 AUTH PLAIN\r\n`,
	} {
		t.Run(name, func(t *testing.T) {
			playWith(t, probe, "implicit", begin+said+`
				S: `+toldUnavailable+`
				C! close
				E: action=pass end=CD verified=
			`, hop)
		})
	}
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
	const checked = `
		C: AUTH PLAIN {b64:info\x00anna\x00Kanarienvogel7}
		` + begin + `
		B: AUTH PLAIN {b64:info\x00anna\x00Kanarienvogel7}
		B< 235 good
		B: QUIT
		B! next
		` + begin + `
		B: AUTH PLAIN {b64:info\x00reeve\x00Kanarienvogel7}
	`
	play(t, "implicit", hello+checked+good+`
		E: action=pass end=CR verified=true account=info backend=backend.test:1
	`, master)
	play(t, "implicit", hello+checked+`
		B< 535 5.7.8 the master is unknown
		S: `+toldUnavailable+`
		C! close
		E: action=pass end=CD verified=
	`, master)
	play(t, "implicit", hello+`
		C: AUTH PLAIN {b64:\x00anna\x00falsch}
		`+begin+`
		B: AUTH PLAIN {b64:\x00anna\x00falsch}
		B< 535 5.7.8 no
		S: `+toldWrong+`
		C! close
		E: action=pass end=CD verified= backend=check.test:1
	`, master)
}

// A token is checked as one; the master then logs in with its password.
func TestMasterWithToken(t *testing.T) {
	const hello = `
		C! tls smtp.test.example
		S: 220 proxy.test.example ESMTP ready
		C: HELO laptop.example
		S: 250 proxy.test.example
	`
	const token = `{b64:n,a=anna,\x01auth=Bearer Kanarienvogel7\x01\x01}`
	playWith(t, bearerProbe, "implicit", hello+`
		C: AUTH OAUTHBEARER `+token+`
		`+begin+`
		B: AUTH OAUTHBEARER `+token+`
		B< 235 good
		B: QUIT
		B! next
		`+begin+`
		B: AUTH PLAIN {b64:anna\x00reeve\x00Kanarienvogel7}
		`+good+`
		E: action=pass end=CR verified=true account=anna
	`, master)
	// One that names nobody must not become the master's own login.
	playWith(t, bearerProbe, "implicit", hello+`
		C: AUTH OAUTHBEARER {b64:n,,\x01auth=Bearer Kanarienvogel7\x01\x01}
		S: `+toldUnavailable+`
		C! close
		E: action=pass end=CD verified= backend= seconds=0
	`, master)
}

// A Postfix with inet_protocols = ipv4 knows no IPv6: the customer gets in as
// unknown, so that the trust in the proxy is not his. An address that it should
// know is another matter.
func TestXCLIENTOfAnIPv6ClientRefused(t *testing.T) {
	for client, refused := range map[string]bool{"[2001:db8::7]:40000": false, "192.0.2.7:40000": true} {
		t.Run(client, func(t *testing.T) {
			script := hello + `
				C: AUTH PLAIN ` + plain + `
				B< 220 backend.test ESMTP Postfix
				B: EHLO proxy.test.example
				B< 250-backend.test
				B< 250 XCLIENT ADDR
				B: XCLIENT ADDR={...}
				B< 501 5.5.4 Bad ADDR syntax
			`
			if refused {
				script += `
					S: ` + toldUnavailable + `
					C! close
					E: action=pass end=CD verified=
				`
			} else {
				script += `
					B: XCLIENT ADDR=[UNAVAILABLE]
					B< 220 backend.test ESMTP Postfix
					B: EHLO laptop.example
					B< 250-backend.test
					B< 250 AUTH PLAIN
					B: AUTH PLAIN ` + plain + good + `
					E: action=pass end=CR verified=true
				`
			}
			play(t, "implicit", script, func(r *proxytest.Rig) {
				r.Backend.Forward = true
				r.Client = client
			})
		})
	}
}

// A backend that dislikes the name of the customer's machine hears the proxy's.
func TestHelloRefusedByTheBackend(t *testing.T) {
	play(t, "implicit", hello+`
		C: AUTH PLAIN `+plain+`
		B< 220 backend.test ESMTP Postfix
		B: EHLO laptop.example
		B< 504 5.5.2 <laptop.example>: Helo command rejected: need fully-qualified hostname
		B: EHLO proxy.test.example
		B< 250-backend.test
		B< 250 AUTH PLAIN
		B: AUTH PLAIN `+plain+good+`
		E: action=pass end=CR verified=true hello=laptop.example
	`)
}

// A backend that trusts us to name clients, and is not told of them, would
// believe a customer's own XCLIENT behind the login: it is not used.
func TestBackendThatTrustsCustomers(t *testing.T) {
	trusting := `
		B< 220 backend.test ESMTP Postfix
		B: EHLO proxy.test.example
		B< 250-backend.test
		B< 250-XCLIENT NAME ADDR LOGIN
		B< 250 AUTH PLAIN
	`
	rig := playWith(t, trusting, "implicit", `
		C! tls smtp.test.example
		S: 421 4.3.0 Der Mailserver ist gerade nicht erreichbar. {...}
		C! close
		E: action=pass reason=backend_unavailable
	`)
	if rig.Logs.FilterMessageSnippet("cannot be asked").Len() != 1 {
		t.Errorf("the log does not say why: %v", rig.Logs.All())
	}
	play(t, "implicit", hello+`
		C: AUTH PLAIN `+plain+`
		`+strings.Replace(trusting, "proxy.test.example", "laptop.example", 1)+`
		S: `+toldUnavailable+`
		C! close
		E: action=pass verified= refused=unavailable
	`)
}

// A backend that has just taken a login and dies is believed once: the login
// that fails ends the trust, and the next client is told in place of a greeting.
func TestOutageBehindAGoodLogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rig := proxytest.New(t, Front, probe)
		rig.Play("implicit", hello+`
			P! down
			C: AUTH PLAIN `+plain+`
			S: `+toldUnavailable+`
			C! close
			E: attempts=1 refused=unavailable
		`)
		rig.Play("implicit", `
			C! tls smtp.test.example
			S: 421 4.3.0 Der Mailserver ist gerade nicht erreichbar. {...}
			C! close
			E: reason=backend_unavailable
		`)
	})
}
