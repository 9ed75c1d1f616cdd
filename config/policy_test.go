package config

import (
	"os"
	"testing"
)

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
