package imapfront

import (
	"testing"

	"mailreeve/proxy/proxytest"
)

// TestAnswerTable plays every finding, action and moment; testdata/answers.txt is
// the table of what this front says of policy.
func TestAnswerTable(t *testing.T) {
	(&proxytest.Table{
		Front: Front, Probe: probe, Old: proxytest.Hosts["pop3"],
		Backend: ready + "B: a {...}\nB< a OK in",
		Moments: map[string][]string{
			"asked what is offered": {"a CAPABILITY"},
			"LOGIN":                 {"a LOGIN USERNAME Kanarienvogel7"},
			"AUTHENTICATE":          {"a AUTHENTICATE PLAIN", `{b64:\x00USERNAME\x00Kanarienvogel7}`},
			"AUTHENTICATE at once":  {`a AUTHENTICATE PLAIN {b64:\x00USERNAME\x00Kanarienvogel7}`},
			"AUTHENTICATE LOGIN":    {"a AUTHENTICATE LOGIN", "{b64:USERNAME}", "{b64:Kanarienvogel7}"},
		},
		Weak:  [2]string{"AUTHENTICATE LOGIN", "LOGIN"},
		Check: checkHeard,
	}).Play(t, "testdata/answers.txt")
}
