// Package fixes knows mail programs: which one a client is, and what its owner
// does in it to mend a finding, in the program's own words, in German and English.
//
// All that is known lies in fixes.yaml, which is there to be read and mended by people
// who sit at a telephone and never see Go. The code looks things up and fills
// them in. Notices, the support view and web pages share it.
//
// # Guesses
//
// Nothing makes a client say the truth, and most say nothing: [Classify] guesses, and
// whoever shows its answer says so. It decides about no access. Of what strangers
// send nothing leaves it but a word of the catalogue and a number of at most three
// digits: an EHLO argument names people's computers.
//
// # Roads not taken
//
// Texts of a provider's own, loaded beside these: labels of programs are facts, and
// a second file would be the one that is out of date. Regular expressions, which a
// support person does not write and a stranger can make slow; what is asked of a
// string is listed at the type mark. Templates with conditions in the texts:
// conditions stand beside a step, so that each text can be read as it is sent.
package fixes

import (
	_ "embed"
	"fmt"
	"slices"
	"sync"

	"go.yaml.in/yaml/v4"

	"mailreeve/policy"
)

// Class is a mail program, or a kind of program, whose settings are changed in
// the same way. Its values are those of the catalogue.
type Class string

// The classes that code names. [Known] lists them all.
const (
	Unknown     Class = "unknown"
	Collector   Class = "collector" // another provider on behalf of customers
	Script      Class = "script"
	Device      Class = "device"
	Thunderbird Class = "thunderbird"
	Outlook     Class = "outlook"
	OutlookNew  Class = "outlook-new"
	AppleMail   Class = "apple-mail" // on a Mac
	IOSMail     Class = "ios-mail"
	Apple       Class = "apple" // one of the two: in sending they greet alike
)

// Protocols as policy calls them.
const (
	imap       = "imap"
	pop3       = "pop3"
	submission = "submission"
)

// text says the same in each language. Any language but "en" is "de".
type text struct {
	DE string `yaml:"de"`
	EN string `yaml:"en"`
}

func (t text) in(lang string) string {
	if lang == "en" {
		return t.EN
	}
	return t.DE
}

// catalogue is the file.
type catalogue struct {
	Findings map[policy.Finding]text `yaml:"findings"`
	Words    words                   `yaml:"words"`
	Classes  []*class                `yaml:"classes"`

	by map[Class]*class
}

// words stand for what the provider's settings do not say, in a step or as a value.
type words struct {
	Server      text `yaml:"server"`
	User        text `yaml:"user"`
	ServerValue text `yaml:"server_value"`
	UserValue   text `yaml:"user_value"`
}

// class is one program.
type class struct {
	Class   Class    `yaml:"class"`
	Name    text     `yaml:"name"`
	Like    Class    `yaml:"like"` // labels and steps are those of this class
	KnownBy []mark   `yaml:"known_by"`
	Labels  []labels `yaml:"labels"`
	Steps   []step   `yaml:"steps"`
}

// labels are what a program calls its settings. Of several entries the first that is
// for the protocol and has a label counts.
type labels struct {
	For      []string `yaml:"for"` // protocols; empty: all
	Server   text     `yaml:"server"`
	Port     text     `yaml:"port"`
	Security text     `yaml:"security"`
	Auth     text     `yaml:"authentication"`
	User     text     `yaml:"user"`
	Implicit text     `yaml:"implicit"` // what is chosen there for implicit TLS
	StartTLS text     `yaml:"starttls"`
	Password text     `yaml:"password"` // and for a normal password
}

// step is one thing to do.
type step struct {
	For      []string         `yaml:"for"`      // protocols; empty: all
	When     []policy.Finding `yaml:"when"`     // one of these is there; empty: any that a setting mends
	Security string           `yaml:"security"` // implicit or starttls; empty: both
	text     `yaml:",inline"`
}

//go:embed fixes.yaml
var embedded []byte

// known is the catalogue, read when first asked for: most commands never do.
var known = sync.OnceValue(func() *catalogue {
	c, err := parse(embedded)
	if err != nil {
		panic(err) // it is part of the program, so a test sees it
	}
	return c
})

// parse reads a catalogue, and looks for what no reading of it would show.
func parse(data []byte) (*catalogue, error) {
	c := &catalogue{by: map[Class]*class{}}
	if err := yaml.Load(data, c, yaml.WithKnownFields()); err != nil {
		return nil, fmt.Errorf("reading fixes.yaml: %w", err)
	}
	for f := range c.Findings {
		if err := checkFinding(f); err != nil {
			return nil, fmt.Errorf("fixes.yaml: findings: %w", err)
		}
	}
	for _, k := range c.Classes {
		if c.by[k.Class] != nil {
			return nil, fmt.Errorf("fixes.yaml: the class %q is there twice", k.Class)
		}
		c.by[k.Class] = k
	}
	for _, k := range c.Classes {
		if err := c.check(k); err != nil {
			return nil, fmt.Errorf("fixes.yaml: class %s: %w", k.Class, err)
		}
	}
	if c.by[Unknown] == nil {
		return nil, fmt.Errorf("fixes.yaml: the class %q, for all others, is missing", Unknown)
	}
	return c, nil
}

func (c *catalogue) check(k *class) error {
	if k.Like != "" {
		like := c.by[k.Like]
		if like == nil || like.Like != "" || k.Labels != nil || k.Steps != nil {
			return fmt.Errorf("like: name a class with labels and steps of its own, and give none here")
		}
		k.Labels, k.Steps = like.Labels, like.Steps
	}
	for i, s := range k.Steps {
		for _, finding := range s.When {
			if err := checkFinding(finding); err != nil {
				return fmt.Errorf("step %d: %w", i+1, err)
			}
		}
		if err := checkProtocols(s.For); err != nil {
			return fmt.Errorf("step %d: %w", i+1, err)
		}
		if !slices.Contains([]string{"", implicit, startTLS}, s.Security) {
			return fmt.Errorf("step %d: security is %s or %s, not %q", i+1, implicit, startTLS, s.Security)
		}
		for lang, said := range map[string]string{"de": s.DE, "en": s.EN} {
			if said == "" {
				return fmt.Errorf("step %d: it has no text for %s", i+1, lang)
			}
			if _, err := fill(said, c.values(k, imap, lang, Values{})); err != nil {
				return fmt.Errorf("step %d: %s: %w", i+1, lang, err)
			}
		}
	}
	for _, l := range k.Labels {
		if err := checkProtocols(l.For); err != nil {
			return fmt.Errorf("labels: %w", err)
		}
	}
	for _, m := range k.KnownBy {
		if err := m.check(); err != nil {
			return fmt.Errorf("known_by: %w", err)
		}
	}
	return nil
}

func checkFinding(f policy.Finding) error {
	if !slices.Contains(f.Values(), string(f)) {
		return fmt.Errorf("there is no finding %q: %s", f, policy.Suggest(string(f), f.Values()))
	}
	return nil
}

func checkProtocols(names []string) error {
	all := []string{imap, pop3, submission}
	for _, name := range names {
		if !slices.Contains(all, name) {
			return fmt.Errorf("there is no protocol %q: %s", name, policy.Suggest(name, all))
		}
	}
	return nil
}

// serves reports whether an entry with such a list is for the protocol.
func serves(list []string, protocol string) bool {
	return len(list) == 0 || slices.Contains(list, protocol)
}

// entry is the class's, or that of an unknown program: a ledger may know classes
// that a later catalogue has dropped.
func (c Class) entry() *class {
	if k := known().by[c]; k != nil {
		return k
	}
	return known().by[Unknown]
}

// Known lists all classes, in the order of the catalogue.
func Known() []Class {
	var all []Class
	for _, k := range known().Classes {
		all = append(all, k.Class)
	}
	return all
}

// Name is what people call such a program, in the nominative.
func (c Class) Name(lang string) string { return c.entry().Name.in(lang) }

// Explain says in a sentence or two what a finding means, to a customer.
func Explain(f policy.Finding, lang string) string { return known().Findings[f].in(lang) }
