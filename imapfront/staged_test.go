package imapfront

import (
	"strings"
	"testing"
	"time"

	"mailreeve/policy"
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
		E: action=deny by=[encrypted] exception= exposed=true backend= verified=
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
