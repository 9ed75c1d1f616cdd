package imapfront

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"mailreeve/proxy"
	"mailreeve/proxy/proxytest"
)

// TestBackendRefuses: what the backend says of the account passes, in our
// words; what it says of itself is an outage.
func TestBackendRefuses(t *testing.T) {
	const noAccess = "Dieses Postfach ist derzeit nicht zugaenglich. Passwort ist NICHT falsch."
	for backend, want := range map[string]string{
		`NO [AUTHENTICATIONFAILED] Authentication failed.`: wrong,
		`no [authenticationfailed] Authentication failed.`: wrong,
		`NO Login failed.`:                   wrong,
		`NO`:                                 wrong,
		`NO [] empty`:                        wrong,
		`NO [AUTHORIZATIONFAILED] not yours`: "[AUTHORIZATIONFAILED] " + noAccess,
		`NO [EXPIRED] Kanarienvogel7 has expired`: "[EXPIRED] " + noAccess,
		`NO [CONTACTADMIN] disabled`:              "[CONTACTADMIN] " + noAccess,
		`NO [LIMIT] too many connections`:         "[LIMIT] " + noAccess,
		`NO [INUSE] by another`:                   "[INUSE] " + noAccess,
		`NO [NOPERM] no`:                          "[NOPERM] " + noAccess,
		`NO [UNAVAILABLE] Temporary failure.`:     outage,
		`NO [PRIVACYREQUIRED] not on this hop`:    outage,
		`NO [SERVERBUG] oops`:                     outage,
		`NO [ALERT] oops`:                         outage,
		`NO [REFERRAL imap://x/] go there`:        outage,
		`NO [CANNOT`:                              outage,
		`BAD Kanarienvogel7: unknown command`:     outage,
		`BAD [AUTHENTICATIONFAILED] odd`:          outage,
		`BYE`:                                     outage,
		``:                                        outage,
	} {
		t.Run(backend, func(t *testing.T) {
			play(t, "implicit", inTLS+`
				C: a LOGIN anna Kanarienvogel7
			`+ready+`
				B: a LOGIN "anna" "Kanarienvogel7"
				B< * OK [ALERT] from the backend
				B< a `+backend+`
				S: a NO `+want+`
				C: b NOOP
				S: b OK NOOP completed.
				C! close
				E: action=pass end=CD attempts=1 verified= account=
			`)
		})
	}
}

// TestBackendOutage: trouble behind us is never a wrong password, the operator
// learns the cause, and the session goes on.
func TestBackendOutage(t *testing.T) {
	const login = `B: a LOGIN "anna" "Kanarienvogel7"`
	for _, c := range []struct{ name, script, cause string }{
		{"silent from the start", `B! next`, "reading the greeting"},
		{"silent at the login", ready + login, "logging in at the backend"},
		{"closes at once", "B! next\nB! close", "reading the greeting"},
		{"closes at the login", ready + login + "\nB! close", "logging in at the backend"},
		{"BYE for a greeting", `B< * BYE Too many connections`, "BYE Too many connections"},
		{"PREAUTH", `B< * PREAUTH [CAPABILITY IMAP4rev1] logged in as root`, "PREAUTH"},
		{"another protocol", `B< +OK POP3 ready`, "+OK POP3 ready"},
		{"bytes", `B. \x00\xff\x16\x03\r\n`, "greeted with"},
		{"an endless greeting", `B. ` + strings.Repeat("x", backendLine+2), "line too long"},
		{"an endless reply", ready + login + "\n" + strings.Repeat("B< * OK "+strings.Repeat("x", 15<<10)+"\n", 5), "reply is too long"},
		{"BYE before the reply", ready + login + "\nB< * BYE shutting down\nB! close", `said "shutting down" and closed`},
		{"another tag", ready + login + "\nB< b OK in", `said "b OK in"`},
		{"a longer tag", ready + login + "\nB< aa OK in", "aa OK in"},
		{"no tag", ready + login + "\nB< Kanarienvogel7?", "the backend said"},
		{"asks a LOGIN for more", ready + login + "\nB< + x", "asked for more"},
		{"LOGINDISABLED and no PLAIN", `B< * OK [CAPABILITY IMAP4rev1 LOGINDISABLED AUTH=CRAM-MD5] ready`, "offers neither"},
		{"asks CAPABILITY for more", "B< * OK ready\nB: reeve1 CAPABILITY\nB< + x", "asked for more"},
		{"no capabilities", "B< * OK ready\nB: reeve1 CAPABILITY\nB< reeve1 OK done", "no capabilities"},
		{"CAPABILITY refused", "B< * OK ready\nB: reeve1 CAPABILITY\nB< reeve1 BAD what?", "no capabilities"},
		{"OK to nothing", "B. * OK [CAPABILITY IMAP4rev1] hi\\r\\nx OK in\\r\\n\n" + login, "x OK in"},
	} {
		t.Run(c.name, func(t *testing.T) {
			setup{cause: c.cause}.play(t, inTLS+`
				C: a LOGIN anna Kanarienvogel7
			`+c.script+`
				S: a NO `+outage+`
				C: b NOOP
				S: b OK NOOP completed.
				C! close
				E: action=pass end=CD attempts=1 verified= refused=unavailable
			`)
		})
	}
}

func TestBackendDown(t *testing.T) {
	setup{cause: "connection refused"}.play(t, inTLS+`
		P! down
		C: a LOGIN anna Kanarienvogel7
		S: a NO `+outage+`
		P! up
		C: b LOGIN anna Kanarienvogel7
	`+ready+`
		B: b LOGIN "anna" "Kanarienvogel7"
		B< b OK in
		S: b OK in
		C! close
		E: verified=true attempts=2
	`)
}

// TestBackendDialects: each backend is spoken to as it says it wants.
func TestBackendDialects(t *testing.T) {
	const literal = "C: a LOGIN anna {6+}\nC: M\xfcller"
	for _, c := range []struct{ name, client, backend string }{
		{"greeting without capabilities", "C: a LOGIN anna x", `
			B< * OK ready
			B: reeve1 CAPABILITY
			B< * CAPABILITY IMAP4rev1
			B< reeve1 OK done
			B: a LOGIN "anna" "x"`},
		{"greeting in lower case", "C: a LOGIN anna x", `
			B< * ok [capability imap4rev1] ready
			B: a LOGIN "anna" "x"`},
		{"without SASL-IR", "C: a AUTHENTICATE PLAIN " + plainAnna, `
			B< * OK [CAPABILITY IMAP4rev1 AUTH=PLAIN] ready
			B: a AUTHENTICATE PLAIN
			B< +
			B: ` + plainAnna},
		{"without AUTH=PLAIN", "C: a AUTHENTICATE PLAIN " + plainAnna, `
			B< * OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=CRAM-MD5] ready
			B: a LOGIN "anna" "Kanarienvogel7"`},
		{"LOGINDISABLED", "C: a LOGIN anna Kanarienvogel7", `
			B< * OK [CAPABILITY IMAP4rev1 SASL-IR LOGINDISABLED AUTH=PLAIN] ready
			B: a AUTHENTICATE PLAIN ` + plainAnna},
		{"LITERAL+", literal, `
			B< * OK [CAPABILITY IMAP4rev1 LITERAL+] ready
			B: a LOGIN {4+}
			B: anna {6+}
			B: M` + "\xfcller"},
		{"LITERAL-", literal, `
			B< * OK [CAPABILITY IMAP4rev1 LITERAL-] ready
			B: a LOGIN {4+}
			B: anna {6+}
			B: M` + "\xfcller"},
		{"without LITERAL+", literal, `
			B< * OK [CAPABILITY IMAP4rev1] ready
			B: a LOGIN {4}
			B< + go
			B: anna {6}
			B< + go
			B: M` + "\xfcller"},
		{"long literals for LITERAL-", "C: a LOGIN anna " + strings.Repeat("x", 4097), `
			B< * OK [CAPABILITY IMAP4rev1 LITERAL-] ready
			B: a LOGIN {4}
			B< + go
			B: anna {4097}
			B< + go
			B: ` + strings.Repeat("x", 4097)},
		{"bare LF", "C: a LOGIN anna x", `
			B. * OK [CAPABILITY IMAP4rev1] ready\n
			B: a LOGIN "anna" "x"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			play(t, "implicit", inTLS+c.client+c.backend+`
				B< a OK in
				S: a OK in
				C! close
				E: verified=true
			`)
		})
	}
}

// TestBackendRefusesLiteral: a refusal in place of a go-ahead is one.
func TestBackendRefusesLiteral(t *testing.T) {
	play(t, "implicit", inTLS+`
		C. a LOGIN anna {6+}\r\nM\xfcller\r\n
		B< * OK [CAPABILITY IMAP4rev1] ready
		B: a LOGIN {4}
		B< a BAD no literals here
		S: a NO `+outage+`
		C! close
		E: attempts=1
	`)
}

// TestBackendWithoutMechanism: where the backend lacks what a login needs, its
// bare NO would look like a wrong password.
func TestBackendWithoutMechanism(t *testing.T) {
	for name, client := range map[string]string{
		"authzid": `C: a AUTHENTICATE PLAIN {b64:bert\x00anna\x00Kanarienvogel7}`,
		"bearer":  `C: a AUTHENTICATE OAUTHBEARER ` + oauthAnna,
	} {
		t.Run(name, func(t *testing.T) {
			setup{probe: bearing}.play(t, inBearingTLS+client+`
				B< * OK [CAPABILITY IMAP4rev1 SASL-IR] ready
				S: a NO `+outage+`
				C! close
				E: attempts=1 refused=unavailable
			`)
		})
	}
}

// TestBackendReplyIsUntouched, with what a backend may say beside it; but not
// what it says of itself.
func TestBackendReplyIsUntouched(t *testing.T) {
	play(t, "implicit", inTLS+`
		C: A.1]x LOGIN anna Kanarienvogel7
	`+ready+`
		B: A.1]x LOGIN "anna" "Kanarienvogel7"
		B< * ID ("name" "Dovecot")
		B. * OK [X-\xe4]  two  spaces \r\n
		B< * BYE this is about the backend
		B. A.1]x OK [CAPABILITY IMAP4rev1 \xff] \xc3\xa4 \r\n* 1 EXISTS\r\n
		S: * OK [X-`+"\xe4]  two  spaces "+`
		S: A.1]x OK [CAPABILITY IMAP4rev1 `+"\xff] \xc3\xa4 "+`
		S: * 1 EXISTS
		C! close
		E: verified=true
	`)
}

func TestBackendHop(t *testing.T) {
	const hop = `
		B< * OK [CAPABILITY IMAP4rev1 STARTTLS AUTH=EVIL] ready
		B: reeve1 STARTTLS
		B< reeve1 OK go
		B! tls
	`
	s := setup{
		probe: hop + `
			B: reeve2 CAPABILITY
			B< * CAPABILITY IMAP4rev1 IDLE AUTH=PLAIN
			B< reeve2 OK done
		`,
		change: func(r *proxytest.Rig) { r.Backend.Hop = proxy.HopStartTLS },
	}
	const begin = `
		C! tls imap.test.example
		S: * OK [CAPABILITY IMAP4rev1 ID SASL-IR IDLE AUTH=PLAIN AUTH=LOGIN] proxy.test.example ready.
		C: reeve2 LOGIN anna Kanarienvogel7
	`
	t.Run("encrypted", func(t *testing.T) {
		s.play(t, begin+hop+`
			B: reeve2 CAPABILITY
			B< * CAPABILITY IMAP4rev1 AUTH=PLAIN
			B< reeve2 OK done
			B: reeve2 LOGIN "anna" "Kanarienvogel7"
			B< reeve2 OK in
			S: reeve2 OK in
			C! close
			E: verified=true
		`)
	})
	for name, script := range map[string]string{
		"bytes behind the go-ahead": `
			B< * OK [CAPABILITY IMAP4rev1 STARTTLS] ready
			B: reeve1 STARTTLS
			B. reeve1 OK go\r\nreeve2 OK in\r\n`,
		"not offered": `
			B< * OK [CAPABILITY IMAP4rev1 AUTH=PLAIN] ready`,
		"refused": `
			B< * OK ready
			B: reeve1 STARTTLS
			B< reeve1 NO not now`,
		"PREAUTH": `
			B< * PREAUTH [CAPABILITY IMAP4rev1 STARTTLS] ready`,
	} {
		t.Run(name, func(t *testing.T) {
			s.play(t, begin+script+`
				S: reeve2 NO `+outage+`
				C! close
				E: attempts=1 verified=
			`)
		})
	}
}

// mastered is a backend that knows only a master; credentials are checked
// elsewhere first.
func mastered(r *proxytest.Rig) {
	b := r.Backend
	b.Master = &proxy.Master{User: "reeve", Secret: proxytest.Canary}
	b.Check = &proxy.Backend{Front: Front, Addresses: []string{"check.test:1"}, Connect: b.Connect, Login: b.Login,
		Hostname: b.Hostname, TLS: b.TLS, Dialer: b.Dialer}
}

func TestMaster(t *testing.T) {
	for _, c := range []struct{ name, client, check, master, account string }{
		{"LOGIN", `C: a LOGIN anna Kanarienvogel7`, `LOGIN "anna" "Kanarienvogel7"`, `{b64:anna\x00reeve\x00Kanarienvogel7}`, "anna"},
		{"PLAIN", `C: a AUTHENTICATE PLAIN ` + plainAnna, "AUTHENTICATE PLAIN " + plainAnna, `{b64:anna\x00reeve\x00Kanarienvogel7}`, "anna"},
		{"for another", `C: a AUTHENTICATE PLAIN {b64:bert\x00anna\x00Kanarienvogel7}`, `AUTHENTICATE PLAIN {b64:bert\x00anna\x00Kanarienvogel7}`,
			`{b64:bert\x00reeve\x00Kanarienvogel7}`, "bert"},
	} {
		t.Run(c.name, func(t *testing.T) {
			setup{change: mastered}.play(t, inTLS+c.client+ready+`
				B: a `+c.check+`
				B< a OK in
				B: reeve1 LOGOUT
				B! next
			`+ready+`
				B: a AUTHENTICATE PLAIN `+c.master+`
				B< a OK [CAPABILITY IMAP4rev1] in
				S: a OK [CAPABILITY IMAP4rev1] in
				C! close
				E: verified=true account=`+c.account+`
			`)
		})
	}
	t.Run("wrong password", func(t *testing.T) {
		setup{change: mastered}.play(t, inTLS+`
			C: a LOGIN anna Kanarienvogel7
		`+ready+`
			B: a LOGIN "anna" "Kanarienvogel7"
			B< a NO no
			S: a NO `+wrong+`
			C! close
			E: verified= account=
		`)
	})
	t.Run("a token that names nobody", func(t *testing.T) {
		// As nobody, the master would log in as himself.
		setup{probe: bearing, change: mastered}.play(t, inBearingTLS+`
			C: a AUTHENTICATE OAUTHBEARER {b64:n,,\x01auth=Bearer Kanarienvogel7\x01\x01}
			S: a NO `+outage+`
			C! close
			E: verified=
		`)
	})
	t.Run("a challenge for the master is not the customer's", func(t *testing.T) {
		setup{probe: bearing, change: mastered, cause: "asked for more"}.play(t, inBearingTLS+`
			C: a AUTHENTICATE XOAUTH2 `+xoauthAnna+bearing+`
			B: a AUTHENTICATE XOAUTH2 `+xoauthAnna+`
			B< a OK in
			B: reeve1 LOGOUT
			B! next
		`+bearing+`
			B: a AUTHENTICATE PLAIN {b64:anna@test.example\x00reeve\x00Kanarienvogel7}
			B< + {b64:what?}
			S: a NO `+outage+`
			C! close
			E: refused=unavailable
		`)
	})
	t.Run("master refused", func(t *testing.T) {
		// The customer's password was right: it is our trouble.
		setup{change: mastered}.play(t, inTLS+`
			C: a LOGIN anna Kanarienvogel7
		`+ready+`
			B: a LOGIN "anna" "Kanarienvogel7"
			B< a OK in
			B: reeve1 LOGOUT
			B! next
		`+ready+`
			B: a AUTHENTICATE PLAIN {b64:anna\x00reeve\x00Kanarienvogel7}
			B< a NO [AUTHENTICATIONFAILED] no
			S: a NO `+outage+`
			C! close
			E: refused=unavailable
		`)
	})
}

// TestCodesOfOthers: where the credential is checked over another protocol, its
// codes are not ours.
func TestCodesOfOthers(t *testing.T) {
	other := *Front
	other.Name = "other"
	other.Dial = func(*proxy.Wire, proxy.Origin) proxy.Peer { return stranger{} }
	s := setup{change: func(r *proxytest.Rig) { mastered(r); r.Backend.Check.Front = &other }}
	s.play(t, inTLS+`
		C: a LOGIN anna Kanarienvogel7
		B! next
		S: a NO [CONTACTADMIN] Dieses Postfach ist derzeit nicht zugaenglich. Passwort ist NICHT falsch.
		C! close
		E: verified= refused=no_access
	`)
}

// stranger is a peer of another protocol.
type stranger struct{}

func (stranger) Greeting() error             { return nil }
func (stranger) StartTLS() error             { return errors.New("no TLS") }
func (stranger) Offer() (proxy.Offer, error) { return proxy.Offer{}, nil }
func (stranger) Quit()                       {}
func (stranger) Login(proxy.Request) (proxy.Reply, error) {
	return nil, &proxy.Rejection{Class: proxy.NoAccess, Code: "SYS/PERM", Text: "closed", Challenge: nil}
}

// TestEchoIsWithheld: a backend that repeats the credential, in whatever form it
// was sent, does not bring it into the log.
func TestEchoIsWithheld(t *testing.T) {
	const password = `Kanarien"vogel7`
	for name, p := range map[string]*peer{
		"quoted": {}, "literals": {}, "PLAIN": {caps: []string{"LOGINDISABLED", "AUTH=PLAIN", "SASL-IR"}},
		"master": {caps: []string{"AUTH=PLAIN"}, origin: proxy.Origin{Master: &proxy.Master{User: "reeve", Secret: "x"}}},
	} {
		r := proxy.Request{Token: "a", Mech: "USERPASS", User: "anna", Secret: password}
		if name == "literals" {
			r.User = "\xe4"
		}
		command, more, err := p.login(r)
		if err != nil {
			t.Fatal(err)
		}
		said := []string{command}
		for part, ok := more(); ok; part, ok = more() {
			said = append(said, part)
		}
		last := said[len(said)-1]
		if got := p.clean("BAD what is " + last + "?"); got != "(withheld: it repeats the credential)" {
			t.Errorf("%s: %s", name, got)
		}
		if got := p.clean("NO Login failed."); got != "NO Login failed." {
			t.Errorf("%s: %s", name, got)
		}
	}
}

// TestDenialOverTLS: over TLS the backend is asked first, so a wrong password
// stays one, and a right one proves whose finding it is.
func TestDenialOverTLS(t *testing.T) {
	for host, kind := range map[string]string{
		"mail.old.example": "legacy", "other.example": "unknown", "pop.test.example": "other_service",
	} {
		for _, login := range []string{"LOGIN anna Kanarienvogel7", "AUTHENTICATE PLAIN " + plainAnna} {
			t.Run(fmt.Sprint(kind, " ", login[:5]), func(t *testing.T) {
				words := "Neuer Servername:"
				if kind == "other_service" {
					words = "Servername gilt fuer POP3. IMAP:"
				}
				backend := `"anna" "Kanarienvogel7"`
				if strings.HasPrefix(login, "AUTH") {
					backend = plainAnna
				}
				play(t, "implicit", `
					C! tls `+host+greeting+`
					C: a `+login+ready+`
					B: a {...} `+backend+`
					B< a NO no
					S: a NO `+wrong+`
					C: b `+login+`
					B! next
				`+ready+`
					B: b {...} `+backend+`
					B< b OK in
					B: reeve1 LOGOUT
					S: b NO [UNAVAILABLE] Passwort ist NICHT falsch. `+words+` imap.test.example, Port 993, SSL/TLS. https://h.test.example/a1 ({id})
					C! close
					E: action=deny by=[canonical-host] host=`+kind+` verified=true account=anna attempts=2
				`)
			})
		}
	}
}

// TestLongAccount: Thunderbird puts the account's name before the words and cuts both at 200
// characters, so that where the name is long there is less to say, and that is whole.
func TestLongAccount(t *testing.T) {
	name := "anna.magdalena." + strings.Repeat("von.und.zu.", 3) + "@gemeinde.example"
	play(t, "implicit", `
		C! tls mail.old.example`+greeting+`
		C: a LOGIN `+name+` Kanarienvogel7`+ready+`
		B: a LOGIN "`+name+`" "Kanarienvogel7"
		B< a OK in
		B: reeve1 LOGOUT
		S: a NO [UNAVAILABLE] Passwort ist NICHT falsch. Neuer Servername: imap.test.example, Port 993, SSL/TLS. https://h.test.example/a1
		C! close
		E: action=deny by=[canonical-host] verified=true account=`+name+`
	`)
}
