package popfront

import (
	"strings"
	"testing"

	"mailreeve/policy"
	"mailreeve/proxy/proxytest"
)

// TestAnswerTable plays every finding, action and moment; testdata/answers.txt is
// the table of what this front says of policy.
func TestAnswerTable(t *testing.T) {
	(&proxytest.Table{
		Front: Front, Probe: probe, Old: proxytest.Hosts["imap"],
		Backend: "B< +OK ready\nB: {...}\nB< +OK\nB: {...}\nB< +OK in",
		Moments: map[string][]string{
			"asked what is offered": {"CAPA"},
			"USER and PASS":         {"USER USERNAME", "PASS Kanarienvogel7"},
			"AUTH":                  {"AUTH PLAIN", `{b64:\x00USERNAME\x00Kanarienvogel7}`},
			"AUTH LOGIN":            {"AUTH LOGIN", "{b64:USERNAME}", "{b64:Kanarienvogel7}"},
		},
		Weak: [2]string{"AUTH LOGIN", "LOGIN"},
		Check: func(t *testing.T, lines []string) {
			for _, line := range lines {
				wantDecent(t, line)
			}
		},
	}).Play(t, "testdata/answers.txt")
}

// TestObserved: on the day of the installation nothing changes for anybody, and
// every event says what would be asked of them.
func TestObserved(t *testing.T) {
	observed := proxytest.Under([]policy.Requirement{proxytest.Encrypted(policy.Stage{Do: policy.Observe})})
	const in = `
		B< +OK ready
		B: USER anna
		B< +OK
		B: PASS Kanarienvogel7
		B< +OK Logged in.
		S: +OK Logged in.
		C! close
		E: action=observe by=[encrypted] rule=encrypted tls=none exposed=true verified=true account=anna end=CR told=
	`
	for name, login := range map[string]string{
		"USER and PASS": "C: USER anna\nS: +OK Send your password.\nC: PASS Kanarienvogel7",
		"PLAIN":         "C: AUTH PLAIN {b64:\\x00anna\\x00Kanarienvogel7}",
		"LOGIN":         "C: AUTH LOGIN\nS: + VXNlcm5hbWU6\nC: {b64:anna}\nS: + UGFzc3dvcmQ6\nC: {b64:Kanarienvogel7}",
	} {
		t.Run(name, func(t *testing.T) {
			play(t, "starttls", "S: +OK proxy.test.example ready.\n"+login+in, observed)
		})
	}
}

// TestAccounts: a person is one account however named, and the backend is told
// the name that it knows.
func TestAccounts(t *testing.T) {
	named := func(r *proxytest.Rig) {
		r.Settings.Brands[0].Account = func(typed string) (account, send string) {
			name, _, _ := strings.Cut(typed, "@")
			return name + "@test.example", name
		}
	}
	for typed, form := range map[string]string{"anna": "bare", "anna@old.example": "address"} {
		play(t, "implicit", `
			C! tls pop.test.example
			S: +OK proxy.test.example ready.
			C: USER `+typed+`
			S: +OK Send your password.
			C: PASS Kanarienvogel7
			B< +OK ready
			B: USER anna
			B< +OK
			B: PASS Kanarienvogel7
			B< +OK Logged in.
			S: +OK Logged in.
			C! close
			E: account=anna@test.example domain=test.example user_form=`+form+` verified=true
		`, open, named)
	}
}
