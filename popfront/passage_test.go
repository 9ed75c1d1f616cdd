package popfront

import (
	"strings"
	"testing"

	"mailreeve/policy"
	"mailreeve/proxy"
	"mailreeve/proxy/proxytest"
)

// challenging is the probe of a backend that has all that passes, and some that does not.
const challenging = `
	B< +OK Dovecot ready.
	B: CAPA
	B< +OK
	B< UIDL
	B< SASL PLAIN CRAM-MD5 GSSAPI NTLM SCRAM-SHA-256-PLUS SCRAM-SHA-256 SCRAM-SHA-1 DIGEST-MD5 EXTERNAL X-ODD
	B< .
`

// stamped is that of a backend whose greeting invites APOP.
const stamped = `
	B< +OK Dovecot ready. <1896.697170952@dbc.mtview.ca.us>
	B: CAPA
	B< +OK
	B< UIDL
	B< SASL PLAIN CRAM-MD5
	B< .
`

const (
	inTLS   = "\nC! tls pop.test.example\nS: +OK proxy.test.example ready.\n"
	digest  = "c4c9334bac560ecc979e58001b3e22fb"
	trouble = "S: -ERR [SYS/TEMP] Der Mailserver ist gerade nicht erreichbar. {...}\n"
	wrong   = "S: -ERR [AUTH] Benutzername oder Passwort ist falsch.\n"
	type1   = `{b64:NTLMSSP\x00\x01\x00\x00\x00\x06\x82\x08\x00}`
	type2   = `{b64:NTLMSSP\x00\x02\x00\x00\x00\x00\x00\x00\x00}`
	// type3 names anna@test.example: 52 bytes of head, then the name.
	type3 = `{b64:NTLMSSP\x00\x03\x00\x00\x00` + nothing + nothing + nothing + `\x22\x00\x22\x00\x34\x00\x00\x00` + nothing +
		`a\x00n\x00n\x00a\x00@\x00t\x00e\x00s\x00t\x00.\x00e\x00x\x00a\x00m\x00p\x00l\x00e\x00}`
	nothing = `\x00\x00\x00\x00\x34\x00\x00\x00`
)

func TestPassage(t *testing.T) {
	for _, c := range []struct{ mech, exchange, account string }{
		{"CRAM-MD5", `
			C: AUTH CRAM-MD5
			B< +OK ready
			B: AUTH CRAM-MD5
			B< + {b64:<1896.697170952@postoffice.example>}
			S: + {b64:<1896.697170952@postoffice.example>}
			C: {b64:anna@test.example ` + digest + `}
			B: {b64:anna@test.example ` + digest + `}
		`, "anna@test.example"},
		{"DIGEST-MD5", `
			C: AUTH DIGEST-MD5
			B< +OK ready
			B: AUTH DIGEST-MD5
			B< + {b64:realm=\"\",nonce=\"x\",qop=\"auth\",charset=\"utf-8\",algorithm=\"md5-sess\"}
			S: + {b64:realm=\"\",nonce=\"x\",qop=\"auth\",charset=\"utf-8\",algorithm=\"md5-sess\"}
			C: {b64:charset=utf-8,username=\"m\xc3\xbcller\",realm=\"\",nonce=\"x\"}
			B: {b64:charset=utf-8,username=\"m\xc3\xbcller\",realm=\"\",nonce=\"x\"}
			B< + {b64:rspauth=ea40f60335c427b5527b84dbabcdfffd}
			S: + {b64:rspauth=ea40f60335c427b5527b84dbabcdfffd}
			C: 
			B: 
		`, "m\u00fcller"},
		{"NTLM", `
			C: AUTH NTLM ` + type1 + `
			B< +OK ready
			B: AUTH NTLM ` + type1 + `
			B< + ` + type2 + `
			S: + ` + type2 + `
			C: ` + type3 + `
			B: ` + type3 + `
		`, "anna@test.example"},
		{"NTLM", `
			C: AUTH NTLM
			B< +OK ready
			B: AUTH NTLM
			B< + NTLM supported
			S: + NTLM supported
			C: ` + type1 + `
			B: ` + type1 + `
			B< + ` + type2 + `
			S: + ` + type2 + `
			C: ` + type3 + `
			B: ` + type3 + `
		`, "anna@test.example"},
		{"SCRAM-SHA-256", `
			C: AUTH SCRAM-SHA-256 {b64:n,,n=an=2Cna,r=abc}
			B< +OK ready
			B: AUTH SCRAM-SHA-256 {b64:n,,n=an=2Cna,r=abc}
			B< + {b64:r=abcdef,s=x,i=4096}
			S: + {b64:r=abcdef,s=x,i=4096}
			C: {b64:c=biws,r=abcdef,p=Kanarienvogel7}
			B: {b64:c=biws,r=abcdef,p=Kanarienvogel7}
			B< + {b64:v=signature}
			S: + {b64:v=signature}
			C: 
			B: 
		`, "an,na"},
		{"SCRAM-SHA-1", `
			C: AUTH SCRAM-SHA-1
			B< +OK ready
			B: AUTH SCRAM-SHA-1
			B< +
			S: + 
			C: {b64:n,a=info,n=anna,r=abc}
			B: {b64:n,a=info,n=anna,r=abc}
			B< + {b64:r=abcdef,s=x,i=4096}
			S: + {b64:r=abcdef,s=x,i=4096}
			C: {b64:c=biws,r=abcdef,p=Kanarienvogel7}
			B: {b64:c=biws,r=abcdef,p=Kanarienvogel7}
		`, "info"},
	} {
		t.Run(c.mech, func(t *testing.T) {
			playWith(t, challenging, "implicit", inTLS+`
				C: CAPA
				S: +OK {...}
				S: RESP-CODES
				S: AUTH-RESP-CODE
				S: UIDL
				S: USER
				S: SASL PLAIN LOGIN CRAM-MD5 NTLM SCRAM-SHA-256 SCRAM-SHA-1 DIGEST-MD5
				S: .
			`+c.exchange+`
				B< +OK  Logged in.
				S: +OK  Logged in.
				C! close
				E: action=pass end=CR mechanism=`+c.mech+` account=`+c.account+` verified=true attempts=1 exposed= backend=backend.test:1
			`, open)
			playWith(t, challenging, "starttls", `
				S: +OK proxy.test.example ready.
			`+c.exchange+`
				B< -ERR [AUTH] Authentication failed.
			`+wrong+`
				C! close
				E: action=pass end=CD mechanism=`+c.mech+` account= verified= attempts=1 refused=credential exposed= tls=none
			`, open)
		})
	}
}

// A challenge that is not answered well ends there, and the dialogue goes on.
func TestPassageEnds(t *testing.T) {
	const cram = `
		C: AUTH CRAM-MD5
		B< +OK ready
		B: AUTH CRAM-MD5
		B< + {b64:<x@y>}
		S: + {b64:<x@y>}
	`
	const on = `
		C: NOOP
		S: +OK Nothing done.
		C! close
	`
	for _, c := range []struct{ name, script, event string }{
		{"cancelled", cram + "C: *\nB: *\nB< -ERR Authentication aborted by client.\nS: -ERR AUTH cancelled.\n" + on, "end=CD attempts= refused="},
		{"cancelled, and asked again", cram + "C: *\nB: *\nB< + {b64:more}\nS: -ERR AUTH cancelled.\n" + on, "end=CD attempts= refused="},
		{"malformed", cram + "C: {b64:anna}\nS: -ERR Malformed credential.\n" + on, "end=CD attempts="},
		{"no base64", cram + "C: Kanarienvogel7!\nS: -ERR Malformed credential.\n" + on, "end=CD attempts="},
		{"over-long", cram + "C. " + strings.Repeat("x", 12<<10+3) + "\\r\\n\nS: -ERR {...}\nS.\nC! close\n", "end=PL reason=line_too_long attempts="},
		{"client is gone", cram + "C! close\n", "end=CL reason=client_closed attempts="},
		{"client is silent", cram + "C! wait 29s\nC! wait 2s\nS.\nC! close\n", "end=LL reason=login_timeout attempts="},
		{"backend dies", cram + "C: {b64:anna " + digest + "}\nB: {b64:anna " + digest + "}\nB! close\n" + trouble + on, "end=CD attempts=1 refused=unavailable"},
		{"backend dies in between", cram + "B! close\nC: {b64:anna " + digest + "}\n" + trouble + on, "end=CD attempts=1 refused=unavailable"},
		{"backend is silent", cram + "C: {b64:anna " + digest + "}\nB: {b64:anna " + digest + "}\nC! wait 31s\n" + trouble + on, "end=CD refused=unavailable"},
		{"backend does not know it", "C: AUTH CRAM-MD5\nB< +OK ready\nB: AUTH CRAM-MD5\nB< -ERR Unknown authentication mechanism.\n" + trouble + on, "end=CD attempts= refused=unavailable"},
		{"backend takes nobody", "C: AUTH CRAM-MD5\nB< +OK ready\nB: AUTH CRAM-MD5\nB< +OK in\nB: QUIT\n" + trouble + on, "end=CD attempts= refused=unavailable verified="},
		{"no printable challenge", "C: AUTH CRAM-MD5\nB< +OK ready\nB: AUTH CRAM-MD5\nB. + x\\x1b\\r\\n\n" + trouble + on, "end=CD refused=unavailable"},
		{"too many rounds", cram + "C: {b64:anna " + digest + "}\nB: {b64:anna " + digest + "}\n" +
			strings.Repeat("B< + {b64:more}\nS: + {b64:more}\nC: {b64:anna "+digest+"}\nB: {b64:anna "+digest+"}\n", 9) + "B< + {b64:more}\n" + trouble + on, "end=CD attempts=1 refused=unavailable"},
		{"backend repeats the response", "C: AUTH SCRAM-SHA-1 {b64:n,,n=anna,r=x}\nB< +OK ready\nB: AUTH SCRAM-SHA-1 {b64:n,,n=anna,r=x}\nB< + {b64:r=xy}\nS: + {b64:r=xy}\n" +
			"C: {b64:c=biws,p=Kanarienvogel7}\nB: {b64:c=biws,p=Kanarienvogel7}\nB< -ERR [SYS/TEMP] What is {b64:c=biws,p=Kanarienvogel7}?\n" + trouble + on, "end=CD attempts=1"},
		{"another name", cram + "C: {b64:anna " + digest + "}\nB: {b64:anna " + digest + "}\nB< + {b64:more}\nS: + {b64:more}\nC: {b64:bert " + digest + "}\nS: -ERR Malformed credential.\n" + on, "end=CD"},
		{"channel binding", "C: AUTH SCRAM-SHA-256 {b64:p=tls-unique,,n=anna,r=x}\nS: -ERR Malformed credential.\n" + on, "end=CD attempts= backend="},
		{"could bind", "C: AUTH SCRAM-SHA-256 {b64:y,,n=anna,r=x}\nS: -ERR Dieses Anmeldeverfahren gibt es hier nicht. {...}\n" + on, "end=CD attempts= backend= refused=mechanism"},
		{"the server speaks first", "C: AUTH CRAM-MD5 {b64:anna " + digest + "}\nS: -ERR Malformed credential.\n" + on, "end=CD attempts= backend="},
		{"cancelled at once", "C: AUTH NTLM *\nS: -ERR AUTH cancelled.\n" + on, "end=CD attempts= backend="},
		{"not passed", "C: AUTH GSSAPI\nS: -ERR Dieses Anmeldeverfahren gibt es hier nicht. {...}\nC: AUTH SCRAM-SHA-256-PLUS\n" +
			"S: -ERR Dieses Anmeldeverfahren gibt es hier nicht. {...}\nC: AUTH EXTERNAL =\nS: -ERR Dieses Anmeldeverfahren gibt es hier nicht. {...}\n" + on, "end=CD attempts= backend="},
	} {
		t.Run(c.name, func(t *testing.T) {
			playWith(t, challenging, "implicit", inTLS+c.script+"E: action=pass verified= account= exposed= "+c.event, open)
		})
	}
}

// What policy refuses is not offered and not begun, whatever the backend has.
func TestNoPassage(t *testing.T) {
	playWith(t, challenging, "implicit", inTLS+`
		C: CAPA
		S: +OK {...}
		S: RESP-CODES
		S: AUTH-RESP-CODE
		S: UIDL
		S: USER
		S: SASL PLAIN LOGIN
		S: .
		C: AUTH CRAM-MD5
		S: -ERR [SYS/PERM] Passwort ist NICHT falsch. Authentifizierung: {...}
		C! close
		E: action=deny by=[password-only] mechanism=CRAM-MD5 attempts= backend=
	`)
	// Nor under an old name, where over TLS others are checked first in other protocols.
	playWith(t, challenging, "implicit", `
		C! tls mail.old.example
		S: +OK proxy.test.example ready.
		C: AUTH SCRAM-SHA-256 {b64:n,,n=anna,r=abc}
		S: -ERR [SYS/PERM] Passwort ist NICHT falsch. {...}
		C! close
		E: action=deny by=[canonical-host_password-only] attempts= backend=
	`)
	// A master user has no secret of the customer's.
	playWith(t, challenging, "implicit", inTLS+`
		C: AUTH CRAM-MD5
		S: -ERR Dieses Anmeldeverfahren gibt es hier nicht. {...}
		C! close
		E: action=pass attempts= backend=
	`, open, master)
}

// closed refuses one account by its mechanism.
func closed(r *proxytest.Rig) {
	p, err := policy.New("closed", []policy.Requirement{{ID: "anna", Finding: policy.Mechanism,
		Scope:   policy.Matcher{{Fact: policy.Account, Values: []string{"anna"}}},
		Stages:  []policy.Stage{{Do: policy.Deny}},
		Require: policy.Matcher{{Fact: policy.Mech, Values: []string{"PLAIN", "LOGIN", policy.UserPass}}}}})
	if err != nil {
		panic(err)
	}
	r.Settings.Policy = p
}

// Policy knows the account before the proof is passed on.
func TestPassageIsDecidedByAccount(t *testing.T) {
	for _, user := range []string{"anna", "bert"} {
		rest := `
			S: -ERR [SYS/PERM] Passwort ist NICHT falsch. Authentifizierung: {...}
			C! close
			E: action=deny by=[anna] mechanism=CRAM-MD5 account= verified= attempts=1
		`
		if user == "bert" {
			rest = `
			B: {b64:bert ` + digest + `}
			B< +OK in
			S: +OK in
			C! close
			E: action=pass mechanism=CRAM-MD5 account=bert verified=true attempts=1
			`
		}
		playWith(t, challenging, "starttls", `
			S: +OK proxy.test.example ready.
			C: AUTH CRAM-MD5
			B< +OK ready
			B: AUTH CRAM-MD5
			B< + {b64:<x@y>}
			S: + {b64:<x@y>}
			C: {b64:`+user+` `+digest+`}
		`+rest, closed)
	}
}

// The client is named to the backend before its exchange as before a password.
func TestPassageForwards(t *testing.T) {
	playWith(t, challenging, "implicit", inTLS+`
		C: AUTH SCRAM-SHA-1 {b64:n,,n=anna,r=abc}
		B< +OK [XCLIENT] ready
		B: XCLIENT ADDR=192.0.2.7 PORT=40000 {...} CLIENT-TRANSPORT=TLS DESTNAME=pop.test.example
		B: AUTH SCRAM-SHA-1 {b64:n,,n=anna,r=abc}
		B< +OK Updated
		B< + {b64:r=abcdef,s=x,i=4096}
		S: + {b64:r=abcdef,s=x,i=4096}
		C: {b64:c=biws,r=abcdef,p=Kanarienvogel7}
		B: {b64:c=biws,r=abcdef,p=Kanarienvogel7}
		B< +OK in
		S: +OK in
		C! close
		E: account=anna verified=true
	`, open, forward)
}

const stamp1 = "<99.1@pop.backend.example>"

// lead is the connection that is made for the timestamp.
const lead = "\nB< +OK Dovecot ready. " + stamp1 + "\n"

func TestAPOP(t *testing.T) {
	const greeted = "\nC! tls pop.test.example" + lead + "S: +OK proxy.test.example ready. " + stamp1 + "\n"
	const on = `
		C: NOOP
		S: +OK Nothing done.
		C! close
	`
	for _, c := range []struct{ name, script, event string }{
		{"right", "C: APOP mrose@test.example " + digest + "\nB: APOP mrose@test.example " + digest + "\nB< +OK maildrop has 1 message (369 octets)\n" +
			"S: +OK maildrop has 1 message (369 octets)\nC! close\n", "end=CR mechanism=APOP account=mrose@test.example domain=test.example verified=true attempts=1"},
		{"wrong", "C: APOP mrose " + digest + "\nB: APOP mrose " + digest + "\nB< -ERR [AUTH] Authentication failed.\n" + wrong + on,
			"end=CD mechanism=APOP verified= attempts=1 refused=credential"},
		{"once only", "C: APOP mrose " + digest + "\nB: APOP mrose " + digest + "\nB< -ERR no\n" + wrong +
			"C: APOP mrose " + digest + "\nS: -ERR Dieses Anmeldeverfahren gibt es hier nicht. {...}\n" + on, "end=CD attempts=1"},
		{"malformed", "C: APOP mrose\nS: -ERR Malformed credential.\nC: APOP\nS: -ERR Malformed credential.\nC: APOP mrose " + digest +
			"\nB: APOP mrose " + digest + "\nB< +OK in\nS: +OK in\nC! close\n", "end=CR verified=true account=mrose attempts=1"},
		{"challenged", "C: APOP mrose " + digest + "\nB: APOP mrose " + digest + "\nB< + more\n" + trouble + on, "end=CD refused=unavailable"},
		{"backend dies", "B! close\nC: APOP mrose " + digest + "\n" + trouble + on, "end=CD mechanism=APOP attempts=1 refused=unavailable"},
		{"another mechanism", "C: USER anna\nS: +OK Send your password.\nC: PASS Kanarienvogel7\nB: USER anna\nB< +OK\nB: PASS Kanarienvogel7\nB< +OK in\nS: +OK in\nC! close\n",
			"end=CR mechanism=USERPASS account=anna verified=true"},
		{"another mechanism, backend gone", "B! close\nC: USER anna\nS: +OK Send your password.\nC: PASS Kanarienvogel7\nB! next\nB< +OK again\n" +
			"B: USER anna\nB< +OK\nB: PASS Kanarienvogel7\nB< +OK in\nS: +OK in\nC! close\n", "end=CR mechanism=USERPASS account=anna verified=true"},
		{"another exchange", "C: AUTH CRAM-MD5\nB: AUTH CRAM-MD5\nB< + {b64:<x@y>}\nS: + {b64:<x@y>}\nC: {b64:anna " + digest + "}\nB: {b64:anna " + digest +
			"}\nB< +OK in\nS: +OK in\nC! close\n", "end=CR mechanism=CRAM-MD5 account=anna verified=true"},
		{"another exchange, backend gone", "B! close\nC: AUTH CRAM-MD5\nB! next\nB< +OK again\nB: AUTH CRAM-MD5\nB< + {b64:<x@y>}\nS: + {b64:<x@y>}\nC: {b64:anna " + digest + "}\nB: {b64:anna " + digest +
			"}\nB< +OK in\nS: +OK in\nC! close\n", "end=CR mechanism=CRAM-MD5 account=anna verified=true attempts=1"},
		{"nothing", "C: QUIT\nS: +OK Bye.\nS.\n", "end=CD reason=client_quit attempts="},
	} {
		t.Run(c.name, func(t *testing.T) {
			playWith(t, stamped, "implicit", greeted+c.script+"E: action=pass exposed= "+c.event, open)
		})
	}
}

// In clear it is no exposed password; after STLS the timestamp still holds, and
// the backend hears how the client comes now.
func TestAPOPInClear(t *testing.T) {
	playWith(t, stamped, "starttls", lead+`
		S: +OK proxy.test.example ready. `+stamp1+`
		C: APOP anna `+digest+`
		B: APOP anna `+digest+`
		B< +OK in
		S: +OK in
		C! close
		E: action=pass end=CR tls=none mechanism=APOP account=anna verified=true exposed=
	`, open)
	playWith(t, stamped, "starttls", `
		B< +OK [XCLIENT] ready. `+stamp1+`
		S: +OK proxy.test.example ready. `+stamp1+`
		C: STLS
		S: +OK Begin TLS negotiation.
		C! tls pop.test.example
		C: APOP anna `+digest+`
		B: XCLIENT ADDR=192.0.2.7 PORT=40000 {...} CLIENT-TRANSPORT=TLS DESTNAME=pop.test.example
		B: APOP anna `+digest+`
		B< +OK Updated
		B< +OK in
		S: +OK in
		C! close
		E: action=pass end=CR entry=starttls mechanism=APOP account=anna verified=true
	`, open, forward)
}

// Where APOP is refused whatever the account, or cannot pass, nothing invites it
// and no connection is made for it.
func TestNoTimestamp(t *testing.T) {
	playWith(t, stamped, "implicit", inTLS+`
		C: APOP anna `+digest+`
		S: -ERR [SYS/PERM] Passwort ist NICHT falsch. Authentifizierung: {...}
		C! close
		E: action=deny by=[password-only] mechanism=APOP backend=
	`)
	playWith(t, stamped, "implicit", inTLS+`
		C: APOP anna `+digest+`
		S: -ERR Dieses Anmeldeverfahren gibt es hier nicht. {...}
		C! close
		E: action=pass mechanism=APOP backend=
	`, open, master)
	// The backend has given it up since it was asked.
	playWith(t, stamped, "implicit", `
		C! tls pop.test.example
		B< +OK ready
		B: QUIT
		S: +OK proxy.test.example ready.
		C: APOP anna `+digest+`
		S: -ERR Dieses Anmeldeverfahren gibt es hier nicht. {...}
		C! close
		E: action=pass mechanism=APOP backend=
	`, open)
	// By account it is decided at the command.
	playWith(t, stamped, "implicit", `
		C! tls pop.test.example`+lead+`
		S: +OK proxy.test.example ready. `+stamp1+`
		C: APOP anna `+digest+`
		S: -ERR [SYS/PERM] Passwort ist NICHT falsch. Authentifizierung: {...}
		C: APOP bert `+digest+`
		B: APOP bert `+digest+`
		B< +OK in
		S: +OK in
		C! close
		E: action=pass mechanism=APOP account=bert verified=true
	`, closed)
}

// A backend that hangs when the greeting is due is an outage, told in time.
func TestTimestampOutage(t *testing.T) {
	playWith(t, stamped, "implicit", `
		C! tls pop.test.example
		B. 
		S: -ERR [SYS/TEMP] Der Mailserver ist gerade nicht erreichbar. {...}
		S.
		C! close
		E: action=pass end=BD reason=backend_unavailable seconds=5
	`, open)
}

// twoBrands has another brand, whose backend is another.
func twoBrands(r *proxytest.Rig) {
	open(r)
	first := r.Backend
	r.Settings.Brands = append(r.Settings.Brands, &proxy.Brand{Name: "other", Hosts: map[string][]string{"pop3": {"pop.other.example"}},
		Backends: map[string]*proxy.Backend{"pop3": {Front: Front, Addresses: []string{"other.test:1"}, Connect: first.Connect, Login: first.Login,
			Hostname: first.Hostname, Dialer: first.Dialer}}})
}

// The server name may lead to another backend, which did not give the timestamp.
func TestTimestampOfAnother(t *testing.T) {
	playWith(t, stamped, "starttls", lead+`
		S: +OK proxy.test.example ready. `+stamp1+`
		C: STLS
		S: +OK Begin TLS negotiation.
		C! tls pop.other.example
		B! next
		B< +OK ready <2.2@other.example>
		B: CAPA
		B< +OK
		B< SASL PLAIN
		B< .
		B: QUIT
		C: APOP anna `+digest+`
		S: -ERR {...}
		C! close
		E: action=pass end=CD brand=other attempts= refused=mechanism
	`, twoBrands)
}

// A session that holds such a connection ends like any other.
func TestTimestampAtShutdown(t *testing.T) {
	playWith(t, stamped, "starttls", lead+`
		S: +OK proxy.test.example ready. `+stamp1+`
		P! shutdown
		S: -ERR [SYS/TEMP] {...}
		S.
		C! close
		E: action=pass end=DD
	`, open)
}
