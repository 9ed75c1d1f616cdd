package config

import (
	"os"
	"strings"
	"testing"
	"time"
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

func FuzzParsePolicy(f *testing.F) {
	data, err := os.ReadFile(examplePolicy)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := ParsePolicy("p.yaml", data)
		if err != nil {
			if told(err) == "" {
				t.Error("refused without a word")
			}
			return
		}
		p.Rehearse(p.Compiled)
	})
}
