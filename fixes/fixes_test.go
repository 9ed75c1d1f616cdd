package fixes

import (
	"bytes"
	"flag"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"mailreeve/policy"
)

// five are the settings, in their order.
var five = []string{"server", "port", "security", "authentication", "user"}

var update = flag.Bool("update", false, "write testdata/de.txt and en.txt anew")

var (
	protocols = []string{imap, pop3, submission}
	languages = []string{"de", "en"}
)

// every is all findings that there are.
func every() (all []policy.Finding) {
	for _, f := range policy.Finding("").Values() {
		all = append(all, policy.Finding(f))
	}
	return all
}

// provider is one whose settings no text has by chance.
func provider(security string) Values {
	return Values{
		Server: "in.isp.example", Port: 7001, Security: security,
		Outgoing: "out.isp.example", OutgoingPort: 7002, OutgoingSecurity: security,
		User: "erika@isp.example", OldServer: "old.isp.example", Webmail: "webmail.isp.example",
	}
}

// TestTexts holds all that customers can be told, for reading. Before each step stand the
// findings against which it is.
func TestTexts(t *testing.T) {
	for _, lang := range languages {
		var b bytes.Buffer
		for _, f := range every() {
			fmt.Fprintf(&b, "%s: %s\n", f, Explain(f, lang))
		}
		for _, c := range Known() {
			fmt.Fprintf(&b, "\n# %s: %s\n", c, c.Name(lang))
			if like := c.entry().Like; like != "" {
				fmt.Fprintf(&b, "as %s\n", like)
				continue
			}
			for _, protocol := range protocols {
				told := map[Step]bool{}
				for _, security := range []string{implicit, startTLS} {
					v := provider(security)
					fmt.Fprintf(&b, "\n## %s, %s\n", protocol, security)
					for i, s := range Settings(c, protocol, lang, v) {
						fmt.Fprintf(&b, "%s: %s = %s\n", five[i], s.Label, s.Value)
					}
					for _, step := range Steps(c, protocol, every(), lang, v) {
						if told[step] {
							continue
						}
						told[step] = true
						fmt.Fprintf(&b, "-")
						for _, f := range every() {
							if slices.Contains(Steps(c, protocol, []policy.Finding{f}, lang, v), step) {
								fmt.Fprintf(&b, " %s", f)
							}
						}
						fmt.Fprintf(&b, "\n  %s\n", step)
					}
				}
			}
		}
		golden(t, "testdata/"+lang+".txt", b.Bytes())
	}
}

func golden(t *testing.T, file string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(got, want) {
		return
	}
	g, w := strings.Split(string(got), "\n"), strings.Split(string(want), "\n")
	for i := range g {
		if i >= len(w) || g[i] != w[i] {
			t.Errorf("%s, line %d is now:\n%s\nread it, and type: go test ./fixes -update", file, i+1, g[i])
			return
		}
	}
	t.Errorf("%s has lines that are gone now: type: go test ./fixes -update", file)
}

// TestEverySituationHasAWalk: what helps against several findings is what helps against
// each, in one order, and nothing twice; and each text is fit to be sent.
func TestEverySituationHasAWalk(t *testing.T) {
	all := every()
	looked := map[string]bool{}
	for _, c := range Known() {
		for _, protocol := range protocols {
			for _, lang := range languages {
				for name, v := range map[string]Values{"implicit": provider(implicit), "starttls": provider(startTLS), "nothing": {}} {
					against := map[policy.Finding][]Step{}
					for _, f := range all {
						against[f] = Steps(c, protocol, []policy.Finding{f}, lang, v)
					}
					for set := 1; set < 1<<len(all); set++ {
						var findings []policy.Finding
						want := map[Step]bool{}
						for i, f := range all {
							if set>>i&1 == 1 {
								findings = append([]policy.Finding{f}, findings...) // their order means nothing
								for _, s := range against[f] {
									want[s] = true
								}
							}
						}
						where := fmt.Sprintf("%s %s %s %s %v", c, protocol, lang, name, findings)
						got := map[Step]bool{}
						for _, s := range Steps(c, protocol, findings, lang, v) {
							if got[s] {
								t.Errorf("%s: twice: %s", where, s)
							}
							got[s] = true
							if looked[lang+string(s)] {
								continue
							}
							looked[lang+string(s)] = true
							if fault := faultIn(string(s), lang); fault != "" {
								t.Errorf("%s: %s: %s", where, fault, s)
							}
						}
						if len(got) == 0 || !maps.Equal(got, want) {
							t.Errorf("%s: %d steps, and %d against each alone", where, len(got), len(want))
						}
					}
				}
			}
		}
	}
	if steps := Steps(Thunderbird, imap, nil, "de", Values{}); steps != nil {
		t.Errorf("without a finding there is to do: %q", steps)
	}
}

// TestStepsSayTheCure: whoever does what stands there has mended it.
func TestStepsSayTheCure(t *testing.T) {
	for _, c := range Known() {
		for _, protocol := range protocols {
			for _, lang := range languages {
				for _, security := range []string{implicit, startTLS} {
					v := provider(security)
					cure := map[policy.Finding]string{
						policy.Plaintext:       v.port(protocol),
						policy.FindingPort:     v.port(protocol),
						policy.LegacyHostname:  v.server(protocol),
						policy.FindingUserForm: v.User,
						policy.TLSOld:          "TLS 1.2",
						policy.Mechanism:       map[string]string{"de": "asswort", "en": "assword"}[lang],
					}
					if c == Script {
						cure[policy.Mechanism] = "PLAIN"
					}
					if c == Outlook {
						cure[policy.Mechanism] = "(SPA)"
					}
					for _, f := range every() {
						steps := Steps(c, protocol, []policy.Finding{f}, lang, v)
						if !slices.ContainsFunc(steps, func(s Step) bool { return strings.Contains(string(s), cure[f]) }) {
							t.Errorf("%s %s %s %s %s: no step says %q", c, protocol, lang, security, f, cure[f])
						}
					}
				}
			}
		}
	}
}

func TestSettings(t *testing.T) {
	for _, c := range append(Known(), "a class of former times") {
		for _, protocol := range protocols {
			for _, lang := range languages {
				for _, v := range []Values{provider(implicit), provider(startTLS), {}} {
					settings := Settings(c, protocol, lang, v)
					for i, s := range settings {
						for _, text := range []string{s.Label, s.Value} {
							if fault := faultIn(text, lang); fault != "" {
								t.Errorf("%s %s %s: %s: %s: %q", c, protocol, lang, five[i], fault, text)
							}
						}
					}
					if len(settings) != len(five) {
						t.Errorf("%s %s %s: the settings are %v", c, protocol, lang, settings)
					}
				}
			}
		}
	}
	for _, c := range []struct {
		protocol string
		v        Values
		want     string
	}{
		{imap, Values{}, "993"}, {pop3, Values{}, "995"}, {submission, Values{}, "465"},
		{imap, Values{Security: startTLS}, "143"}, {submission, Values{OutgoingSecurity: startTLS, Port: 993}, "587"},
		{submission, Values{Port: 993, OutgoingPort: 25}, "25"},
	} {
		if got := Settings(Unknown, c.protocol, "de", c.v)[1].Value; got != c.want {
			t.Errorf("%s %+v: port %s, want %s", c.protocol, c.v, got, c.want)
		}
	}
}

func TestNamesAndFindings(t *testing.T) {
	for _, lang := range languages {
		for _, c := range append(Known(), "a class of former times") {
			if fault := faultIn(c.Name(lang), lang); fault != "" {
				t.Errorf("%s: %s: %s", c, fault, c.Name(lang))
			}
		}
		for _, f := range every() {
			if fault := faultIn(Explain(f, lang), lang); fault != "" || !strings.HasSuffix(Explain(f, lang), ".") {
				t.Errorf("%s %s: %s: %q", f, lang, fault, Explain(f, lang))
			}
		}
	}
	for _, c := range []Class{Unknown, Collector, Script, Device, Thunderbird, Outlook, OutlookNew, AppleMail, IOSMail, Apple} {
		if !slices.Contains(Known(), c) {
			t.Errorf("code names the class %s, the catalogue does not", c)
		}
	}
}

// What no text for customers may have: the marks of a letter that fishes for passwords, and
// those of a text that was not finished. Umlauts are spelt out in protocols only.
var (
	link       = regexp.MustCompile(`(?i)https?:|www\.|://|href|<|klicken Sie hier|click here`)
	asksFor    = regexp.MustCompile(`(?i)(geben|tragen|teilen|schicken|senden) Sie[^.:]*(passwor|kennwor)|(passwor|kennwor)\pL*[^.:“]* (senden|schicken|mitteilen|antworten|bestätigen)|(enter|send|tell|confirm)[^.:]*your password|password[^.:]* (send|tell|reply)`)
	unfinished = regexp.MustCompile(`[{}\[\]]|  |\n|\s$|^\s|TODO|%!|\(\)| [,.;]`)
	spelt      = regexp.MustCompile(`(?i)\b(fuer|ueber|aender|waehl|loesch|koenn|muess|pruef|geraet|zurueck|naechst|oeffn|haekchen|moeg|gueltig|verfueg|aelter|spaet|loes|stoer)|verschluessel|schluess|eintraeg|einfueg`)
)

// faultIn says what is wrong with a text, or nothing.
func faultIn(text, lang string) string {
	switch {
	case text == "":
		return "it is empty"
	case unfinished.MatchString(text):
		return "it is unfinished: " + unfinished.FindString(text)
	case link.MatchString(text):
		return "it has a link: " + link.FindString(text)
	case asksFor.MatchString(text):
		return "it asks for a password: " + asksFor.FindString(text)
	case lang == "de" && spelt.MatchString(text):
		return "umlauts are spelt out: " + spelt.FindString(text)
	case lang == "de" && (strings.Count(text, "„") != strings.Count(text, "“") || strings.ContainsAny(text, "”\"")):
		return "quotes are not „German“"
	case lang == "en" && (strings.Count(text, "“") != strings.Count(text, "”") || strings.ContainsAny(text, "„\"ß")):
		return "quotes are not “English”"
	}
	return ""
}

// TestFaultsAreFound: the search for faults finds some.
func TestFaultsAreFound(t *testing.T) {
	for text, want := range map[string]string{
		"":                      "it is empty",
		"Port {port}":           "it is unfinished: {",
		"Server  in":            "it is unfinished:   ",
		"Siehe www.isp.example": "it has a link: www.",
		"Klicken Sie hier":      "it has a link: Klicken Sie hier",
		"Geben Sie Ihr Passwort auf der Seite ein":    "it asks for a password: Geben Sie Ihr Passwor",
		"Bitte Ihr Kennwort jetzt bestätigen":         "it asks for a password: Kennwort jetzt bestätigen",
		"Waehlen Sie":                                 "umlauts are spelt out: Waehl",
		"Wählen Sie “SSL”":                            "quotes are not „German“",
		"Öffnen Sie „Konten“":                         "",
		"Es fragt nach dem Passwort; es ist dasselbe": "",
	} {
		if got := faultIn(text, "de"); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
	if got := faultIn("Please enter your password there", "en"); got != "it asks for a password: enter your password" {
		t.Error(got)
	}
}

// TestMistakesAreNamed: whoever edits the file is told where a mistake is.
func TestMistakesAreNamed(t *testing.T) {
	const unknown = "{class: unknown, name: {de: x, en: x}"
	for file, want := range map[string]string{
		"classes: [" + unknown + "}]":                                           "",
		"classes: []":                                                           `fixes.yaml: the class "unknown", for all others, is missing`,
		"classes: [" + unknown + ", step: []}]":                                 "reading fixes.yaml: yaml: construct errors: line 1: field step not found in type fixes.class",
		"classes: [" + unknown + "}, " + unknown + "}]":                         `fixes.yaml: the class "unknown" is there twice`,
		"findings: {plaintxt: {de: x, en: x}}\nclasses: [" + unknown + "}]":     `fixes.yaml: findings: there is no finding "plaintxt": did you mean plaintext? known here: ` + strings.Join(policy.Finding("").Values(), ", "),
		"classes: [" + unknown + ", like: other}]":                              "fixes.yaml: class unknown: like: name a class with labels and steps of its own, and give none here",
		"classes: [" + unknown + ", steps: [{de: x}]}]":                         "fixes.yaml: class unknown: step 1: it has no text for en",
		"classes: [" + unknown + ", steps: [{de: 'x {ports}', en: x}]}]":        "fixes.yaml: class unknown: step 1: de: there is no placeholder {ports}: did you mean port? known here: old, password, port, protocol, security, server, user, webmail",
		"classes: [" + unknown + ", steps: [{de: 'x [y', en: x}]}]":             `fixes.yaml: class unknown: step 1: de: a bracket stands alone: "[y"`,
		"classes: [" + unknown + ", steps: [{de: 'x ]', en: x}]}]":              `fixes.yaml: class unknown: step 1: de: a bracket stands alone: "]"`,
		"classes: [" + unknown + ", steps: [{for: [smtp], de: x, en: x}]}]":     `fixes.yaml: class unknown: step 1: there is no protocol "smtp": known here: imap, pop3, submission`,
		"classes: [" + unknown + ", steps: [{security: ssl, de: x, en: x}]}]":   `fixes.yaml: class unknown: step 1: security is implicit or starttls, not "ssl"`,
		"classes: [" + unknown + ", known_by: [{program: X}]}]":                 "fixes.yaml: class unknown: known_by: it has none of id, hello and form",
		"classes: [" + unknown + ", known_by: [{id: X}]}]":                      "fixes.yaml: class unknown: known_by: id X: it goes with program, and not with hello, form or mechanisms",
		"classes: [" + unknown + ", known_by: [{hello: x, version: version}]}]": "fixes.yaml: class unknown: known_by: os and version are fields of IMAP ID, so they go with id",
		"classes: [" + unknown + ", known_by: [{hello: a*b}]}]":                 "fixes.yaml: class unknown: known_by: a*b: a * stands at one end, beside something",
		"classes: [" + unknown + ", known_by: [{hello: x, hex: 6}]}]":           "fixes.yaml: class unknown: known_by: hex goes with a hello that ends in *",
		"classes: [" + unknown + ", known_by: [{form: windws}]}]":               `fixes.yaml: class unknown: known_by: there is no form "windws": did you mean windows? known here: private, loopback, windows`,
	} {
		_, err := parse([]byte(file))
		if got := fmt.Sprint(err); want == "" && err != nil || want != "" && got != want {
			t.Errorf("%s\ngives  %s\nwanted %s", file, got, want)
		}
	}
}

// TestFill: values are not looked into again, and what misses a value takes its brackets along.
func TestFill(t *testing.T) {
	values := map[string]string{"port": "993", "server": "{port}[]", "old": ""}
	for text, want := range map[string]string{
		"a {port} b":                 "a 993 b",
		"{server}":                   "{port}[]",
		"in[ statt {old}] {port}":    "in 993",
		"in[ statt {port}][ {old}].": "in statt 993.",
		"":                           "",
	} {
		if got, err := fill(text, values); got != want || err != nil {
			t.Errorf("%q: %q (%v), want %q", text, got, err, want)
		}
	}
}
