package smtpfront

import (
	"strings"
	"testing"

	"mailreeve/policy"
	"mailreeve/proxy/proxytest"
)

// TestAnswerTable plays every finding, action and moment; testdata/answers.txt is
// the table of what this front says of policy.
func TestAnswerTable(t *testing.T) {
	const auth = `AUTH PLAIN {b64:\x00USERNAME\x00Kanarienvogel7}`
	(&proxytest.Table{
		Front: Front, Probe: bearerProbe, Old: proxytest.Hosts["imap"],
		Backend: begin + "B: {...}\nB< 235 2.7.0 in",
		Moments: map[string][]string{
			"MAIL without a login": {"EHLO laptop.example", "MAIL FROM:<anna@test.example>"},
			"AUTH, then MAIL":      {"EHLO laptop.example", "AUTH PLAIN", `{b64:\x00USERNAME\x00Kanarienvogel7}`, "MAIL FROM:<anna@test.example>"},
			"AUTH at once":         {"EHLO laptop.example", auth, "MAIL FROM:<anna@test.example>"},
			"AUTH LOGIN":           {"EHLO laptop.example", "AUTH LOGIN", "{b64:USERNAME}", "{b64:Kanarienvogel7}", "MAIL FROM:<anna@test.example>"},
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
	for name, login := range map[string]string{
		"PLAIN": "C: AUTH PLAIN {b64:\\x00anna\\x00Kanarienvogel7}",
		"LOGIN": "C: AUTH LOGIN\nS: 334 VXNlcm5hbWU6\nC: {b64:anna}\nS: 334 UGFzc3dvcmQ6\nC: {b64:Kanarienvogel7}",
	} {
		for _, server := range []string{"198.51.100.1:587", "198.51.100.1:25"} {
			t.Run(name, func(t *testing.T) {
				playWith(t, bearerProbe, "starttls", `
					S: 220 proxy.test.example ESMTP ready
					C: EHLO laptop.example
					S: 250-proxy.test.example
					S: 250-STARTTLS
					S: 250-AUTH PLAIN LOGIN OAUTHBEARER XOAUTH2
					S: 250 AUTH=PLAIN LOGIN OAUTHBEARER XOAUTH2
					`+login+begin+`
					B: AUTH PLAIN {b64:\x00anna\x00Kanarienvogel7}
					`+good+`
					E: action=observe by=[encrypted] rule=encrypted tls=none exposed=true verified=true account=anna end=CR told=
				`, observed, func(r *proxytest.Rig) { r.Server = server })
			})
		}
	}
}

// TestAccounts: a person is one account however named, and the backend is told
// the name that it knows; a token names its owner itself.
func TestAccounts(t *testing.T) {
	named := func(r *proxytest.Rig) {
		r.Settings.Brands[0].Account = func(typed string) (account, send string) {
			name, _, _ := strings.Cut(typed, "@")
			return name + "@test.example", name
		}
	}
	for said, told := range map[string]string{
		`PLAIN {b64:\x00anna@old.example\x00Kanarienvogel7}`:                        `PLAIN {b64:\x00anna\x00Kanarienvogel7}`,
		`XOAUTH2 {b64:user=anna@old.example\x01auth=Bearer Kanarienvogel7\x01\x01}`: `XOAUTH2 {b64:user=anna@old.example\x01auth=Bearer Kanarienvogel7\x01\x01}`,
	} {
		playWith(t, bearerProbe, "starttls", `
			S: 220 proxy.test.example ESMTP ready
			C: EHLO laptop.example
			S: 250-proxy.test.example
			S: 250-STARTTLS
			S: 250-AUTH PLAIN LOGIN OAUTHBEARER XOAUTH2
			S: 250 AUTH=PLAIN LOGIN OAUTHBEARER XOAUTH2
			C: AUTH `+said+begin+`
			B: AUTH `+told+good+`
			E: account=anna@test.example domain=test.example user_form=address verified=true
		`, open, named)
	}
}
