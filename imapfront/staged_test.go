package imapfront

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"mailreeve/policy"
	"mailreeve/proxy"
	"mailreeve/proxy/proxytest"
)

// inClear is the greeting where plaintext is borne.
const inClear = "S: * OK [CAPABILITY IMAP4rev1 ID SASL-IR ENABLE IDLE LITERAL+ STARTTLS AUTH=PLAIN AUTH=LOGIN] proxy.test.example ready."

// in is a login in clear that is good.
const in = `
	C: a LOGIN anna Kanarienvogel7
` + ready + `
	B: a LOGIN "anna" "Kanarienvogel7"
	B< a OK in
	S: a OK in
	C! close
`

// all have several changes made to a rig.
func all(changes ...func(*proxytest.Rig)) func(*proxytest.Rig) {
	return func(r *proxytest.Rig) {
		for _, change := range changes {
			change(r)
		}
	}
}

// TestObserved: on the day of the installation nothing changes for anybody, and
// every event says what would be asked of them.
func TestObserved(t *testing.T) {
	observed := proxytest.Under([]policy.Requirement{proxytest.Encrypted(policy.Stage{Do: policy.Observe})})
	for name, login := range map[string]string{
		"LOGIN":      "C: a LOGIN anna Kanarienvogel7",
		"PLAIN":      "C: a AUTHENTICATE PLAIN {b64:\\x00anna\\x00Kanarienvogel7}",
		"SASL LOGIN": "C: a AUTHENTICATE LOGIN\nS: + VXNlcm5hbWU6\nC: {b64:anna}\nS: + UGFzc3dvcmQ6\nC: {b64:Kanarienvogel7}",
	} {
		t.Run(name, func(t *testing.T) {
			said := "B: a AUTHENTICATE PLAIN {b64:\\x00anna\\x00Kanarienvogel7}"
			if name == "LOGIN" {
				said = `B: a LOGIN "anna" "Kanarienvogel7"`
			}
			setup{listener: "starttls", change: observed}.play(t, inClear+"\n"+login+ready+said+`
				B< a OK [CAPABILITY IMAP4rev1] in
				S: a OK [CAPABILITY IMAP4rev1] in
				C! close
				E: action=observe by=[encrypted] rule=encrypted stage= tls=none exposed=true verified=true account=anna end=CR told=
			`)
		})
	}
	setup{listener: "starttls", change: observed}.play(t, inClear+`
		C: a STARTTLS
		S: a OK Begin TLS negotiation now.
		C! tls imap.test.example
		C! close
		E: action=pass by= entry=starttls
	`)
}

// TestAccounts: a person is one account however named, in policy, event and for the backend.
func TestAccounts(t *testing.T) {
	named := func(r *proxytest.Rig) {
		r.Settings.Brands[0].Account = func(typed string) (account, send string) {
			name, _, _ := strings.Cut(typed, "@")
			return name + "@test.example", name
		}
	}
	for typed, form := range map[string]string{"anna": "bare", "anna@old.example": "address"} {
		setup{change: all(observing, named)}.play(t, inTLS+`
			C: a LOGIN `+typed+` Kanarienvogel7
		`+ready+`
			B: a LOGIN "anna" "Kanarienvogel7"
			B< a OK in
			S: a OK in
			C! close
			E: account=anna@test.example domain=test.example user_form=`+form+` verified=true
		`, inTLS+`
			C: a AUTHENTICATE PLAIN {b64:`+typed+`\x00`+typed+`\x00Kanarienvogel7}
		`+ready+`
			B: a AUTHENTICATE PLAIN {b64:anna\x00anna\x00Kanarienvogel7}
			B< a OK in
			S: a OK in
			C! close
			E: account=anna@test.example domain=test.example user_form=`+form+` verified=true
		`, inTLS+`
			# Who logs in on behalf of another keeps the own name.
			C: a AUTHENTICATE PLAIN {b64:`+typed+`\x00master\x00Kanarienvogel7}
		`+ready+`
			B: a AUTHENTICATE PLAIN {b64:anna\x00master\x00Kanarienvogel7}
			B< a OK in
			S: a OK in
			C! close
			E: account=anna@test.example verified=true
		`)
	}
}

// TestHoldCounts: a hold is obeyed at the next decision of a session that is
// there already.
func TestHoldCounts(t *testing.T) {
	denied := proxytest.Under([]policy.Requirement{proxytest.Encrypted(policy.Stage{Do: policy.Deny})})
	setup{listener: "starttls", change: denied}.play(t, `
		S: * OK proxy.test.example ready.
		C: x LOGIN anna Kanarienvogel7
		S: * OK [ALERT] Passwort ist NICHT falsch. {...}
		S: x NO [UNAVAILABLE] {...}
		P! hold notify
		`+in+`
		E: action=notify by=[encrypted] rule=encrypted verified=true hold=map[cap:notify_owner:support_reason:hotline_is_full_since:2000-01-01T00:00:00.15Z_until:2000-01-01T01:00:00.15Z]
	`, inClear+`
		P! lift
		C: a LOGIN anna Kanarienvogel7
		S: * OK [ALERT] Passwort ist NICHT falsch. {...}
		S: a NO [UNAVAILABLE] {...}
		P! hold pass
		C! close
		E: action=deny by=[encrypted] hold= verified=
	`)
}

// TestStagesByTheClock: a stage takes effect at its instant, in a session that is
// there already too, and the clock of the rest does not matter.
func TestStagesByTheClock(t *testing.T) {
	night := time.Date(2024, 9, 20, 0, 0, 0, 0, time.FixedZone("CEST", 2*3600))
	staged := proxytest.Under([]policy.Requirement{proxytest.Encrypted(policy.Stage{Do: policy.Observe},
		policy.Stage{From: night, Do: policy.Deny})})
	eve := all(staged, proxytest.At("2024-09-19T23:59:59+02:00"))
	setup{listener: "starttls", change: eve}.play(t, inClear+in+`
		E: action=observe stage= decided=2024-09-19T21:59:59.15Z time=2000-01-01T00:00:00Z
	`)
	setup{listener: "starttls", change: eve}.play(t, inClear+`
		C! wait 850ms
		C: a LOGIN anna Kanarienvogel7
		S: * OK [ALERT] Passwort ist NICHT falsch. {...}
		S: a NO [UNAVAILABLE] {...}
		C! close
		E: action=deny stage=2024-09-19T22:00:00Z decided=2024-09-19T22:00:00Z
	`)
}

// TestExceptedAccount: where an account has an exception, programs that honour
// LOGINDISABLED find their way in, and all others are refused as they were.
func TestExceptedAccount(t *testing.T) {
	far := time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)
	excepted := proxytest.Under([]policy.Requirement{proxytest.Encrypted(policy.Stage{Do: policy.Deny})},
		policy.Exception{ID: "ex-1", For: []string{"encrypted"}, Cap: policy.Observe, Until: far, Reason: "copier", Owner: "support",
			Match: policy.Matcher{{Fact: policy.Account, Values: []string{"anna"}}}})
	setup{listener: "starttls", change: excepted}.play(t, inClear+in+`
		E: action=observe by=[encrypted] exception=ex-1 verified=true
	`, inClear+`
		C: a LOGIN bert Kanarienvogel7
		S: * OK [ALERT] Passwort ist NICHT falsch. {...}
		S: a NO [UNAVAILABLE] Passwort ist NICHT falsch. {...}
		C! close
		E: action=deny by=[encrypted] exception= exposed=true backend= verified= account= user_form=bare
	`, inClear+`
		# Whose login was refused before says nothing of whose the next one is.
		C: x LOGIN bert Kanarienvogel7
		S: * OK [ALERT] Passwort ist NICHT falsch. {...}
		S: x NO [UNAVAILABLE] Passwort ist NICHT falsch. {...}
		`+in+`
		E: action=observe by=[encrypted] exception=ex-1 verified=true account=anna attempts=2
	`, inClear+`
		# Who logs in on behalf of another is asked for too: not every backend heeds the difference.
		C: a AUTHENTICATE PLAIN {b64:anna\x00bert\x00Kanarienvogel7}
		S: * OK [ALERT] Passwort ist NICHT falsch. {...}
		S: a NO [UNAVAILABLE] Passwort ist NICHT falsch. {...}
		C: b AUTHENTICATE PLAIN {b64:bert\x00anna\x00Kanarienvogel7}
		S: b NO [UNAVAILABLE] Passwort ist NICHT falsch. {...}
		C! close
		E: action=deny by=[encrypted] exception= exposed=true backend= verified=
	`)
	setup{listener: "starttls", change: excepted}.play(t, inClear+`
		# Capitals make no other account.
		C: a LOGIN ANNA Kanarienvogel7
	`+ready+`
		B: a LOGIN "ANNA" "Kanarienvogel7"
		B< a OK in
		S: a OK in
		C! close
		E: action=observe by=[encrypted] exception=ex-1 verified=true account=anna
	`)
}

// TestSharedAccount: a draw is told once the backend has confirmed whose it is.
func TestSharedAccount(t *testing.T) {
	shared := proxytest.Under([]policy.Requirement{proxytest.Encrypted(policy.Stage{Do: policy.Observe, Share: 1000})})
	setup{listener: "starttls", change: shared}.play(t, inClear+in+`
		E: action=pass by= bucket=
	`)
	setup{listener: "starttls", change: proxytest.Under([]policy.Requirement{proxytest.Encrypted(policy.Stage{Do: policy.Deny, Share: 99_999})})}.play(t, inClear+`
		C: a LOGIN anna Kanarienvogel7
		S: * OK [ALERT] Passwort ist NICHT falsch. {...}
		S: a NO [UNAVAILABLE] {...}
		P! hold observe
		`+in+`
		E: action=observe bucket=27360
	`)
}

// TestWarned: a warning is shown beside a login that succeeds, once a day to each
// account and program, with the day on which it ends.
func TestWarned(t *testing.T) {
	zone := time.FixedZone("CEST", 2*3600)
	staged := proxytest.Under([]policy.Requirement{proxytest.Encrypted(
		policy.Stage{From: time.Date(2024, 6, 1, 0, 0, 0, 0, zone), Do: policy.Warn},
		policy.Stage{From: time.Date(2024, 9, 20, 0, 0, 0, 0, zone), Do: policy.Deny})})
	const told = `S: * OK [ALERT] Verschluesselung fehlt und wird ab 20.09. verlangt: SSL/TLS, Server imap.test.example, Port 993. https://h.test.example/a1 ({id})`
	login := func(user, alert string) string {
		return `
		C: a LOGIN ` + user + ` Kanarienvogel7
	` + ready + `
		B: a LOGIN "` + user + `" "Kanarienvogel7"
		B< * CAPABILITY IMAP4rev1
		B< a OK in
		` + alert + `
		S: * CAPABILITY IMAP4rev1
		S: a OK in
		`
	}
	const id = `
		C: i ID ("name" "Thunderbird" "version" "153")
		S: * ID ("name" "Mailreeve")
		S: i OK ID completed.
	`
	setup{listener: "starttls", change: all(staged, proxytest.At("2024-09-18T22:00:00+02:00"))}.play(t,
		inClear+login("anna", told)+`
			B! close
			E: action=warn by=[encrypted] told=true stage=2024-05-31T22:00:00Z verified=true end=BR
		`, inClear+login("anna", "# told today")+`
			B! close
			E: action=warn told= verified=true
		`, inClear+login("bert", told)+`
			B! close
			E: action=warn told=true
		`, inClear+id+login("anna", told)+`
			P! later 2h
			B! close
			E: action=warn told=true client=Thunderbird_153
		`, inClear+login("anna", told)+`
			B! close
			E: action=warn told=true decided=2024-09-18T22:00:21.75Z
		`)
}

// TestTrialOutage: a brownout says until when, before the credential and in the
// reply to it, and ends.
func TestTrialOutage(t *testing.T) {
	zone := time.FixedZone("CEST", 2*3600)
	r := proxytest.Encrypted(policy.Stage{From: time.Date(2024, 9, 10, 0, 0, 0, 0, zone), Do: policy.Notify,
		Brownout: &policy.Brownout{Do: policy.TempFail, Days: [7]bool{time.Tuesday: true}, At: 10 * time.Hour, For: 2 * time.Hour, Zone: zone}})
	brownout := proxytest.Under([]policy.Requirement{r})
	setup{listener: "starttls", change: all(brownout, proxytest.At("2024-09-10T10:00:00+02:00"))}.play(t, `
		S: * OK proxy.test.example ready.
		C: a CAPABILITY
		S: * OK [ALERT] Passwort ist NICHT falsch. Testabschaltung bis 12:00: SSL/TLS fehlt. imap.test.example, Port 993. {...}
		S: * CAPABILITY IMAP4rev1 ID STARTTLS LOGINDISABLED
		S: a OK CAPABILITY completed.
		C: b LOGIN anna Kanarienvogel7
		S: b NO [UNAVAILABLE] Passwort ist NICHT falsch. Testabschaltung bis 12:00: SSL/TLS fehlt. {...}
		C! close
		E: action=tempfail refused=policy_for_now by=[encrypted] exposed=true backend= told=
	`)
	setup{listener: "starttls", change: all(brownout, proxytest.At("2024-09-10T12:00:00+02:00"))}.play(t, inClear+in+`
		E: action=notify told=
	`)
}

// TestExceptedNetwork: a way in is shown where some account has one, and nowhere else.
func TestExceptedNetwork(t *testing.T) {
	excepted := proxytest.Under([]policy.Requirement{proxytest.Encrypted(policy.Stage{Do: policy.Deny})},
		policy.Exception{ID: "ex-17", For: []string{"encrypted"}, Cap: policy.Notify, Until: time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC),
			Match: policy.Matcher{{Fact: policy.Account, Values: []string{"anna"}}, {Networks: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/28")}}}})
	setup{listener: "starttls", change: all(excepted, func(r *proxytest.Rig) { r.Client = "198.51.100.7:40000" })}.play(t, inClear+in+`
		E: action=notify exception=ex-17 ip=198.51.100.7
	`)
	setup{listener: "starttls", change: all(excepted, func(r *proxytest.Rig) { r.Client = "198.51.100.16:40000" })}.play(t, `
		S: * OK proxy.test.example ready.
		C: a CAPABILITY
		S: * OK [ALERT] Passwort ist NICHT falsch. {...}
		S: * CAPABILITY IMAP4rev1 ID STARTTLS LOGINDISABLED
		S: a OK CAPABILITY completed.
		C: b LOGIN anna Kanarienvogel7
		S: b NO [UNAVAILABLE] Passwort ist NICHT falsch. {...}
		C! close
		E: action=deny exception= ip=198.51.100.16
	`)
}

// TestHeldHandshake: a hold opens what was refused at the earliest moment.
func TestHeldHandshake(t *testing.T) {
	refused := proxytest.Under([]policy.Requirement{{ID: "host", Finding: policy.LegacyHostname, Stages: []policy.Stage{{Do: policy.Refuse}},
		Require: policy.Matcher{{Fact: policy.Host, Values: []string{policy.Canonical, policy.Absent}}}}})
	setup{change: all(refused, func(r *proxytest.Rig) { r.Hold(policy.Warn) })}.play(t, `
		C! tls mail.old.example
	`+greeting+`
		C: a LOGIN anna Kanarienvogel7
	`+ready+`
		B: a LOGIN "anna" "Kanarienvogel7"
		B< a OK in
		# Nobody knows yet what follows the hold.
		S: * OK [ALERT] Alter Servername. Bitte einstellen: imap.test.example, Port 993, SSL/TLS. https://h.test.example/a1 ({id})
		S: a OK in
		C! close
		E: action=warn by=[host] told=true verified=true
	`)
}

// TestBrandSaysIt: a brand has its own words, in its language.
func TestBrandSaysIt(t *testing.T) {
	denied := proxytest.Under([]policy.Requirement{proxytest.Encrypted(policy.Stage{Do: policy.Deny})})
	setup{listener: "starttls", change: all(denied, func(r *proxytest.Rig) {
		b := r.Settings.Brands[0]
		b.Language = proxy.English
		b.Texts = map[policy.Finding]map[policy.Action]string{policy.Plaintext: {policy.Deny: "Your password is NOT wrong. Ask for {word} on {host}:{port}[ by {date}][, see {help}]."}}
	})}.play(t, `
		S: * OK proxy.test.example ready.
		C: b LOGIN anna Kanarienvogel7
		S: * OK [ALERT] Your password is NOT wrong. Ask for IMAP on imap.test.example:993, see https://h.test.example/a1. ({id})
		S: b NO [UNAVAILABLE] Your password is NOT wrong. Ask for IMAP on imap.test.example:993, see https://h.test.example/a1. ({id})
		C! close
		E: action=deny
	`)
}

// TestProbed: a mechanism is left out of what some networks are offered, and
// still borne; under a hold nothing is left out.
func TestProbed(t *testing.T) {
	probed := proxytest.Under([]policy.Requirement{{ID: "password-only", Finding: policy.Mechanism,
		Stages:  []policy.Stage{{Do: policy.Notify, Probe: policy.Everybody}},
		Require: policy.Matcher{{Fact: policy.Mech, Not: true, Values: []string{"LOGIN"}}}}})
	setup{change: probed}.play(t, `
		C! tls imap.test.example
		S: * OK [CAPABILITY IMAP4rev1 ID SASL-IR ENABLE IDLE LITERAL+ AUTH=PLAIN] proxy.test.example ready.
		C: a AUTHENTICATE LOGIN
		S: + VXNlcm5hbWU6
		C: {b64:anna}
		S: + UGFzc3dvcmQ6
		C: {b64:Kanarienvogel7}
	`+ready+`
		B: a AUTHENTICATE PLAIN {b64:\x00anna\x00Kanarienvogel7}
		B< a OK in
		S: a OK in
		C! close
		E: action=notify by=[password-only] mechanism=LOGIN verified=true
	`)
	setup{change: all(probed, func(r *proxytest.Rig) { r.Hold(policy.Observe) })}.play(t, inTLS+`
		C! close
		E: action=pass
	`)
}

// known gives a rig a ledger.
func known(ledger map[string]string) func(*proxytest.Rig) {
	return func(r *proxytest.Rig) { r.Settings.Ledger = func(account string) string { return ledger[account] } }
}

// TestRatchet: an account that has been clean for long does not fall back, others
// are warned yet; and the event says what the ledger knew.
func TestRatchet(t *testing.T) {
	ratchet := all(proxytest.Under([]policy.Requirement{proxytest.Encrypted(policy.Stage{Do: policy.Warn, Ratchet: &policy.Ratchet{Clean: 60 * 24 * time.Hour, Do: policy.Deny}})}),
		known(map[string]string{"anna": policy.Clean, "bert": policy.Open, "bert@test.example": policy.Clean}))
	const denied = `
		S: * OK [ALERT] Passwort ist NICHT falsch. {...}
		S: {...} NO [UNAVAILABLE] Passwort ist NICHT falsch. {...}
	`
	warned := func(user string) string {
		return `
		C: a LOGIN ` + user + ` Kanarienvogel7
	` + ready + `
		B: a LOGIN "` + user + `" "Kanarienvogel7"
		B< a OK in
		S: * OK [ALERT] Verschluesselung fehlt: {...}
		S: a OK in
		C! close
		`
	}
	clear := setup{listener: "starttls", change: ratchet}
	clear.play(t, inClear+`
		C: a LOGIN Anna Kanarienvogel7
	`+denied+`
		C! close
		E: action=deny by=[encrypted] ledger=clean verified= account= backend= refused=policy
	`, inClear+warned("bert")+`
		E: action=warn by=[encrypted] ledger=open verified=true account=bert
	`, inClear+warned("carla")+`
		E: action=warn ledger= verified=true account=carla
	`, inClear+`
		# Who logs in for another meets what is severer for either.
		C: a AUTHENTICATE PLAIN {b64:bert\x00anna\x00Kanarienvogel7}
	`+denied+`
		C! close
		E: action=deny ledger=open
	`, inClear+`
		# And what is clean of the mailbox is not of who opens it.
		C: a AUTHENTICATE PLAIN {b64:bert\x00bert@test.example\x00Kanarienvogel7}
	`+denied+`
		# What was known of one is forgotten with the next.
		C: b AUTHENTICATE PLAIN {b64:doris\x00doris\x00Kanarienvogel7}
	`+ready+`
		B: b AUTHENTICATE PLAIN {b64:doris\x00doris\x00Kanarienvogel7}
		B< b NO wrong
		S: b NO [AUTHENTICATIONFAILED] {...}
		C! close
		E: action=warn ledger= verified= account=
	`, inClear+`
		C: a LOGIN anna Kanarienvogel7
	`+denied+`
		C: b STARTTLS
		S: b OK Begin TLS negotiation now.
		C! tls imap.test.example
		C! close
		E: action=pass ledger= verified= attempts=1
	`)
	// Where the refusal waits for the backend's word, the ledger's is kept with the account.
	named := all(proxytest.Under([]policy.Requirement{{ID: "whole", Finding: policy.FindingUserForm,
		Require: policy.Matcher{{Fact: policy.UserForm, Values: []string{"address"}}},
		Stages:  []policy.Stage{{Do: policy.Observe, Ratchet: &policy.Ratchet{Clean: 60 * 24 * time.Hour, Do: policy.Deny}}}}}),
		known(map[string]string{"anna": policy.Clean}))
	setup{change: named}.play(t, inTLS+`
		C: a LOGIN anna Kanarienvogel7
	`+ready+`
		B: a LOGIN "anna" "Kanarienvogel7"
		B< a OK in
		S: a NO [UNAVAILABLE] Passwort ist NICHT falsch. Der Benutzername {...}
		C: b LOGIN bert wrong
		B! next
	`+ready+`
		B: b LOGIN "bert" "wrong"
		B< b NO wrong
		S: b NO [AUTHENTICATIONFAILED] {...}
		C! close
		E: action=deny ledger=clean verified=true account=anna
	`)
}
