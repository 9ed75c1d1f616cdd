package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"mailreeve/policy"
)

// basePolicy is a policy without problems.
var basePolicy = []string{
	"version: 1\n",
	"timezone: Europe/Berlin\n",
	"requirements: [{ id: encrypted, finding: plaintext, require: { tls: '>=1.2' }, stages: [{ from: 2026-01-01, do: notify }, { from: 2026-02-01, do: deny }] }]\n",
	"tests: [{ at: 2026-01-01T10:00:00+01:00, is: { tls: none }, expect: notify }]\n",
}

// examplePolicy is the example of the policy file's description.
const examplePolicy = "testdata/policy.yaml"

func TestExamplePolicy(t *testing.T) {
	p, err := LoadPolicy(examplePolicy)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range p.Rehearse(p.Compiled).Failed {
		t.Errorf("%s: %s", f.Key, f)
	}
}

// TestPolicyExamples checks and rehearses the policies of whole cutovers. Each has tests for
// all that it does.
func TestPolicyExamples(t *testing.T) {
	files, err := filepath.Glob("../deploy/examples/*/policy.yaml")
	if err != nil || len(files) != 5 {
		t.Fatal(files, err)
	}
	validate := validator(t, policySchemaFile)
	for _, file := range files {
		t.Run(file, func(t *testing.T) {
			p, err := LoadPolicy(file)
			if err != nil {
				t.Fatal(err)
			}
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if err := validate(data); err != nil {
				t.Error(err)
			}
			refusesEdits(t, file, data, validate, [][2]string{
				{"version: 1", "version: 2"},
				{"timezone:", "zone:"},
				{"finding: ", "finding: not_"},
				{"from: \"20", "from: \"the 20"},
				{"do: observe", "do: observed"},
				{"is: { ", "is: { color: red, "},
				{"is: { ", "is: { sni: [x], "},
				{"expect: pass,", ""},
				{"scope: { brand: ", "scope: { brand: { not: [x] }, "},
			})
			began := p.Requirements[0].Stages[0].From.String()
			now, err := time.Parse(time.DateOnly, began)
			if err != nil {
				t.Fatal(err)
			}
			if len(p.Exceptions) > 0 { // which are made later
				now = now.AddDate(0, 5, 0)
			}
			if problems := p.Check(now); problems != nil {
				t.Error(problems)
			}
			r := p.Rehearse(p.Compiled)
			for _, f := range r.Failed {
				t.Errorf("%s: %s", f.Key, f)
			}
			for _, u := range r.Unreached {
				t.Errorf("no test reaches %s", u)
			}
		})
	}
}

// The cases are as in parse.txt and check.txt; what they leave out comes from basePolicy.
func TestParsePolicy(t *testing.T) {
	cases(t, "policy-parse.txt", func(t *testing.T, input string) string {
		if strings.TrimSpace(input) != "# nothing" {
			input = wholeOf(input, basePolicy)
		}
		_, err := ParsePolicy("p.yaml", []byte(input))
		return told(err)
	})
}

// TestPolicyAccounts: the case of letters makes no other account, in a file as in a session.
func TestPolicyAccounts(t *testing.T) {
	p, err := ParsePolicy("policy.yaml", []byte(strings.Join(basePolicy, "")+`
exceptions: [{ id: ex-1, for: [encrypted], match: { account: Anna@Test.example }, cap: observe, until: 2026-03-01, reason: copier, owner: support }]
`))
	if err != nil {
		t.Fatal(err)
	}
	for _, account := range []string{"anna@test.example", "ANNA@test.example"} {
		var f policy.Facts
		for fact, value := range map[string]string{"tls": "none", "account": account} {
			if err := f.Learn(fact, value); err != nil {
				t.Fatal(err)
			}
		}
		if v := p.Compiled.Decide(&f, time.Date(2026, 2, 2, 0, 0, 0, 0, time.UTC)); v.Action != policy.Observe {
			t.Errorf("%s meets %v", account, v.Action)
		}
	}
	if _, err := ParsePolicy("policy.yaml", []byte(strings.Join(basePolicy, "")+`
exceptions: [{ id: ex-1, for: [encrypted], match: { account: [""], client: "" }, cap: observe, until: 2026-03-01, reason: copier, owner: support }]
`)); err == nil {
		t.Error("a name may be empty")
	}
}

func TestCheckPolicy(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	cases(t, "policy-check.txt", func(t *testing.T, input string) string {
		p, err := ParsePolicy("p.yaml", []byte(wholeOf(input, basePolicy)))
		if err != nil {
			t.Fatal(err)
		}
		if problems := p.Check(now); len(problems) > 0 {
			return told(problems)
		}
		return ""
	})
}

func TestCheckPolicyNames(t *testing.T) {
	c, err := Parse("m.yaml", []byte(whole("")))
	if err != nil {
		t.Fatal(err)
	}
	p, err := ParsePolicy("p.yaml", []byte(`version: 1
timezone: Europe/Berlin
sets: { old: [143] }
requirements:
  - id: encrypted
    finding: plaintext
    scope: { brand: [exmaple, example], port: { not_in: [993, 995] } }
    require: { tls: ">=1.2" }
    stages: [{ from: 2026-01-01, do: deny }]
  - { id: ports, finding: plaintext, require: { port: { not_in: old }, listener: imap-993 }, stages: [{ from: 2026-01-01, do: deny }] }
exceptions:
  - { id: a, for: [encrypted], match: { listener: imap-992 }, cap: notify, until: 2026-03-31, reason: r, owner: o }
never:
  - { match: { brand: other }, do: deny }
always:
  - { match: { brand: other }, do: deny }
tests:
  - { at: 2026-01-01, is: { brand: exampel, port: 993 }, expect: pass }
`))
	if err != nil {
		t.Fatal(err)
	}
	const want = `p.yaml:7:22: warning: requirements[0].scope.brand[0]: no brand of the configuration is "exmaple"; did you mean example? known here: example
p.yaml:7:63: warning: requirements[0].scope.port.not_in[1]: no port of the configuration is "995"; known here: 993
p.yaml:12:51: warning: exceptions[0].match.listener[0]: no listener of the configuration is "imap-992"; did you mean imap-993? known here: imap-993
p.yaml:14:23: warning: never[0].match.brand[0]: no brand of the configuration is "other"; known here: example
p.yaml:16:23: warning: always[0].match.brand[0]: no brand of the configuration is "other"; known here: example
p.yaml:18:36: warning: tests[0].is.brand: no brand of the configuration is "exampel"; did you mean example? known here: example`
	if got := p.CheckNames(c).Error(); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

// TestExplanationAsJSON holds what programs read of an explanation.
func TestExplanationAsJSON(t *testing.T) {
	p, err := LoadPolicy(examplePolicy)
	if err != nil {
		t.Fatal(err)
	}
	f := new(policy.Facts)
	for name, value := range map[string]string{"brand": "dated-switch-off", "tls": "none", "mechanism": "CRAM-MD5"} {
		if err := f.Learn(name, value); err != nil {
			t.Fatal(err)
		}
	}
	at := time.Date(2024, 9, 20, 0, 0, 0, 0, p.Zone)
	data, err := json.Marshal(p.Compiled.Explain(f, at))
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Action, Mildest, Severest string
		By, Unknown               []string
		At                        time.Time
	}
	if err := json.Unmarshal(data, &got); err != nil {
		t.Fatal(err)
	}
	// The mechanism is denied to everybody, whoever has an exception for encryption.
	if got.Action != "deny" || got.Mildest != "deny" || got.Severest != "deny" || !got.At.Equal(at) ||
		!slices.Equal(got.By, []string{"encrypted", "password-only"}) || !slices.Equal(got.Unknown, []string{"account", "ip"}) {
		t.Errorf("got %s", data)
	}
}

func TestRehearsePolicy(t *testing.T) {
	cases(t, "policy-test.txt", func(t *testing.T, input string) string {
		p, err := ParsePolicy("p.yaml", []byte(wholeOf(input, basePolicy)))
		if err != nil {
			t.Fatal(err)
		}
		var b strings.Builder
		r := p.Rehearse(p.Compiled)
		for _, f := range r.Failed {
			fmt.Fprintf(&b, "%s: %s\n", f.Key, f)
		}
		for _, u := range r.Unreached {
			fmt.Fprintf(&b, "not reached: %s\n", u)
		}
		return b.String()
	})
}

// FuzzParsePolicy reads files of strangers; what is accepted must bear everything that is
// done with it.
func FuzzParsePolicy(f *testing.F) {
	for _, c := range []string{"policy-parse.txt", "policy-check.txt"} {
		data, err := os.ReadFile(filepath.Join("testdata", c))
		if err != nil {
			f.Fatal(err)
		}
		for _, text := range split(data) {
			f.Add([]byte(wholeOf(text.input, basePolicy)))
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := ParsePolicy("p.yaml", data)
		if err != nil {
			if told(err) == "" {
				t.Error("refused without a word")
			}
			return
		}
		p.Rehearse(p.Compiled)
		if text := p.Compiled.Explain(new(policy.Facts), time.Now()).String(); !strings.Contains(text, "Result: pass") {
			t.Errorf("nothing is known, and yet: %s", text)
		}
		if err := p.Compiled.WriteICS(io.Discard, p.Compiled.Calendar(), time.Time{}); err != nil {
			t.Error(err)
		}
	})
}

// crowded is a policy with ten thousand exceptions, every tenth with a network of its own.
func crowded() []byte {
	var b bytes.Buffer
	for _, line := range basePolicy {
		b.WriteString(line)
	}
	b.WriteString("always:\n  - { match: { tls: none }, do: notify, from: 2026-01-01 }\nnever:\n  - { match: { tls: '>=1.2' }, do: observe }\nexceptions:\n")
	for i := range 10_000 {
		network := ""
		if i%10 == 0 {
			network = fmt.Sprintf(", network: 10.%d.%d.0/24", i/10/250, i/10%250)
		}
		fmt.Fprintf(&b, "  - { id: ex-%05d, for: [encrypted], match: { account: scanner%d@example.org%s }, cap: notify, until: 2026-0%d-%02d, reason: copier, owner: support }\n",
			i, i, network, 4+i%4, 1+i%28)
	}
	return b.Bytes()
}

func TestCrowdedPolicy(t *testing.T) {
	p, err := ParsePolicy("p.yaml", crowded())
	if err != nil {
		t.Fatal(err)
	}
	if problems := p.Check(time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)); problems != nil {
		t.Error(problems)
	}
}

func BenchmarkCrowdedPolicy(b *testing.B) {
	data := crowded()
	b.Run("read", func(b *testing.B) {
		for b.Loop() {
			if _, err := ParsePolicy("p.yaml", data); err != nil {
				b.Fatal(err)
			}
		}
	})
	p, err := ParsePolicy("p.yaml", data)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("check", func(b *testing.B) {
		for b.Loop() {
			p.Check(time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC))
		}
	})
}
