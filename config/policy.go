package config

import (
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	_ "time/tzdata" // a container has no time zones, and a policy's dates hang on one

	"mailreeve/policy"
)

// Policy is a policy file that has been read, with its places.
type Policy struct {
	policy.File
	Compiled *policy.Policy // what it comes to

	source *Source
}

// policySchemaFile is made from the types of package policy.
const policySchemaFile = "policy.v1.schema.json"

// LoadPolicy reads a policy file. If the file can be read but is wrong in itself, the
// error is [Problems]. What is wrong at some time only, or merely strange, is left to
// [Policy.Check].
func LoadPolicy(path string) (*Policy, error) {
	data, err := readFile(path, maxFile)
	if err != nil {
		return nil, fmt.Errorf("reading the policy: %w", err)
	}
	return ParsePolicy(path, data)
}

// ParsePolicy is [LoadPolicy] for a file that is already read. Its name goes into problems,
// and into events without directory and extension.
func ParsePolicy(name string, data []byte) (*Policy, error) {
	p := new(Policy)
	var problems Problems
	p.source, problems = Decode(name, data, &p.File)
	if p.Timezone != "" {
		zone, err := zoneOf(p.Timezone)
		if err != nil {
			message, cure := explain(err)
			problems = append(problems, p.source.Problem(Error, "timezone", message, cure))
		}
		p.Zone = zone
	}
	if err := problems.sorted().Err(); err != nil {
		return nil, err
	}
	base := filepath.Base(name)
	compiled, wrong := p.Compile(strings.TrimSuffix(base, filepath.Ext(base)))
	if err := p.placed(wrong).Err(); err != nil {
		return nil, err
	}
	p.Compiled = compiled
	return p, nil
}

// Check looks at the file as it is at an instant: exceptions that have expired or end too
// late, what is never reached or decides nothing, and the statements under always and never,
// which it tries to refute with all facts at every transition.
func (p *Policy) Check(now time.Time) Problems {
	return p.placed(p.File.Check(p.Compiled, now))
}

// Problem is one of a value of the file, by its key, in its place.
func (p *Policy) Problem(severity Severity, key, message, cure string) Problem {
	return p.source.Problem(severity, key, message, cure)
}

// CheckNames holds the brands, listeners and ports that the policy names against those of a
// configuration. A scope with a slip of the pen would speak of nobody, without a word.
func (p *Policy) CheckNames(c *Config) Problems {
	known := map[policy.FactName][]string{}
	add := func(fact policy.FactName, name string) {
		if !slices.Contains(known[fact], name) {
			known[fact] = append(known[fact], name)
		}
	}
	for _, b := range c.Brands {
		add("brand", string(b.Name))
	}
	for _, l := range c.Listeners {
		add("listener", string(l.Name))
		add("port", strconv.Itoa(l.Address.Port))
	}
	var problems Problems
	look := func(key string, fact policy.FactName, word policy.Word) {
		names := known[fact]
		if names == nil || slices.Contains(names, string(word)) {
			return
		}
		if _, set := p.Sets[policy.ID(word)]; !set {
			problems = append(problems, p.source.Problem(Warning, key,
				fmt.Sprintf("no %s of the configuration is %s", fact, quote(string(word))), policy.Suggest(string(word), names)))
		}
	}
	match := func(key string, m policy.FileMatch) {
		for fact, choice := range m {
			for i, word := range choice.In {
				look(element(child(key, string(fact)), i), fact, word)
			}
			for i, word := range choice.NotIn {
				look(element(child(child(key, string(fact)), "not_in"), i), fact, word)
			}
		}
	}
	for i, r := range p.Requirements {
		match(child(element("requirements", i), "scope"), r.Scope)
		match(child(element("requirements", i), "require"), r.Require)
	}
	for i, e := range p.Exceptions {
		match(child(element("exceptions", i), "match"), e.Match)
	}
	for i, s := range p.Always {
		match(child(element("always", i), "match"), s.Match)
	}
	for i, s := range p.Never {
		match(child(element("never", i), "match"), s.Match)
	}
	for i, t := range p.Tests {
		for fact, word := range t.Is {
			look(child(child(element("tests", i), "is"), string(fact)), fact, word)
		}
	}
	return problems.sorted()
}

// zoneOf finds a time zone. That of the machine is none: a file means the same everywhere.
func zoneOf(name string) (*time.Location, error) {
	zone, err := time.LoadLocation(name)
	if err != nil || name == "Local" || name == "" {
		return nil, wrong{quote(name) + " is not a time zone", "write a name of the IANA database, like Europe/Berlin or UTC"}
	}
	return zone, nil
}

// placed gives problems their places in the file.
func (p *Policy) placed(problems []policy.Problem) Problems {
	var all Problems
	for _, q := range problems {
		severity := Error
		if q.Warning {
			severity = Warning
		}
		all = append(all, p.source.Problem(severity, q.Key, q.Message, q.Cure))
	}
	return all.sorted()
}

// PolicySchemaFile is the JSON Schema of the policy file, for editors.
func PolicySchemaFile() ([]byte, error) {
	return Schema(policySchemaFile, "Policy of Mailreeve", policy.File{})
}
