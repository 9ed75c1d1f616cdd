package config

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"mailreeve/policy"
)

// file has the kinds of fields that Decode knows and Config has not.
type file struct {
	Words   words             `yaml:"words"`
	Sets    map[string]words  `yaml:"sets"`
	Facts   map[string]string `yaml:"facts"`
	Lower   bool              `yaml:"lower"`
	Wide    int64             `yaml:"wide" min:"-5"`
	Inner   *file             `yaml:"inner"`
	Network netip.Prefix      `yaml:"network"`
	For     time.Duration     `yaml:"for"`
	Text    string            `yaml:"text" default:"none"`
	Ignored string
}

// words may be written as a list, or as one word.
type words []string

func (w *words) UnmarshalText(text []byte) error {
	*w = words{string(text)}
	return nil
}

func TestDecodeKinds(t *testing.T) {
	const input = `
words: one
sets: { a: [b, c], "1": d }
facts: { tls: "1.2", sni: none }
lower: true
wide: -5
inner: { words: [x, y], lower: false }
network: 2001:db8::/32
for: 60d
`
	var got file
	src, problems := Decode("f", []byte(input), &got)
	if problems != nil {
		t.Fatal(problems)
	}
	want := file{
		Words: words{"one"}, Sets: map[string]words{"a": {"b", "c"}, "1": {"d"}}, Facts: map[string]string{"tls": "1.2", "sni": "none"},
		Lower: true, Wide: -5, Inner: &file{Words: words{"x", "y"}, Text: "none"},
		Network: netip.MustParsePrefix("2001:db8::/32"), For: 60 * 24 * time.Hour, Text: "none",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	for key, want := range map[string]string{
		"sets.a[1]":       "f:3:16: warning: sets.a[1]: m; c",
		"inner.words[0]":  "f:7:18: warning: inner.words[0]: m; c",
		"inner.for":       "f:7:8: warning: inner.for: m; c",       // left out: the place of what it belongs to
		"inner.words[7]":  "f:7:17: warning: inner.words[7]: m; c", // not there
		"nowhere.at[1].x": "f:1:1: warning: nowhere.at[1].x: m; c",
	} {
		if got := src.Problem(Warning, key, "m", "c").String(); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func TestDecodeKindsWrong(t *testing.T) {
	const input = `words: { a: b }
sets: [a]
facts: { tls: 1.2, sni: [x] }
lower: yes
wide: 9223372036854775808
inner: { wide: -6, lower: "true", Ignored: x }
network: { a: b }
for: [60d]
"a\n\eb": c
`
	_, problems := Decode("", []byte(input), new(file))
	const want = `words: a mapping stands where a single value belongs; see the example for its form
sets: a list stands where a mapping belongs; see the example for its form
facts.tls: 1.2 is not text but float; put it in quotes: "1.2"
facts.sni: a list stands where a single value belongs; see the example for its form
lower: "yes" is neither true nor false; write one of them
wide: "9223372036854775808" is not a whole number; write digits only
inner.wide: -6 is too little; write -5 or more
inner.lower: this is text, in quotes; leave out the quotes
inner.Ignored: there is no such key; known here: words, sets, facts, lower, wide, inner, network, for, text
network: a mapping stands where a single value belongs; see the example for its form
for: a list stands where a single value belongs; see the example for its form
"a\n\x1bb": there is no such key; known here: words, sets, facts, lower, wide, inner, network, for, text`
	if got := problems.Error(); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

// What is no text is told before the YAML reader sees it, with its place.
func TestNotText(t *testing.T) {
	const rest = ": this is not text in UTF-8; save the file as UTF-8 without control characters"
	for input, want := range map[string]string{
		"\xff\xfea":            "f:1:1" + rest,
		"a: ü\nb: \x00":        "f:2:4" + rest,
		"a: ü\xfc":             "f:1:5" + rest,
		"a: \x1b[31m":          "f:1:4" + rest,
		"a: b\x7f":             "f:1:5" + rest,
		"a: \u0081":            "f:1:4" + rest,
		"\ufefftext: x\r\n":    "",
		"text: \"\u00a0\ufffd": "f:1:10: not valid YAML: while scanning a quoted scalar, found unexpected end of stream; look at indentation, brackets and quotes on this line and above",
	} {
		if _, problems := Decode("f", []byte(input), new(file)); problems.Error() != want {
			t.Errorf("%q: got %s, want %s", input, problems, want)
		}
	}
}

func TestProblemsErr(t *testing.T) {
	warning, failure := Problem{Severity: Warning, Message: "w"}, Problem{Message: "e"}
	if err := (Problems{warning}).Err(); err != nil {
		t.Errorf("a warning is an error: %v", err)
	}
	if err := (Problems{warning, failure}).Err(); err == nil || err.Error() != "e" {
		t.Errorf("got %v, want e", err)
	}
}

func TestSuggest(t *testing.T) {
	long := strings.Repeat("ü", 10000)
	for given, want := range map[string]string{"imap4": "imap", "pop": "pop3", "smtp": "", "submision": "submission", "": "", long: ""} {
		got, _, found := strings.Cut(strings.TrimPrefix(policy.Suggest(given, Protocol("").Values()), "did you mean "), "?")
		if !found {
			got = ""
		}
		if got != want {
			t.Errorf("%.10q: got %q, want %q", given, got, want)
		}
	}
}

// Durations that pass are those that a reader would compute.
func TestParseDuration(t *testing.T) {
	for text, want := range map[string]time.Duration{"0": 0, "90s": 90 * time.Second, "1h30m": 90 * time.Minute, "0.5h": 30 * time.Minute,
		"7d": 168 * time.Hour, "1d12h": 36 * time.Hour, "250ms": 250 * time.Millisecond} {
		if got, err := ParseDuration(text); got != want || err != nil {
			t.Errorf("%s: got %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "d", "-1d", "1d-1h", "1d+1h", "1.5d", "1h1d", "+1s", "5", "1 d", "106752d", "106751d24h", "1w", "1D"} {
		if got, err := ParseDuration(text); err == nil {
			t.Errorf("%q: took it for %v", text, got)
		}
	}
}

// A problem is one line of plain text, whatever a file's name or a certificate says.
func TestProblemIsOneLine(t *testing.T) {
	p := Problem{File: "m.yaml", Line: 3, Column: 1, Message: "a\x1b[2J\nm.yaml: fine.pem: it is not in PEM form", Cure: "größer\r\x9b"}
	if got, want := p.String(), "m.yaml:3:1: a?[2J?m.yaml: fine.pem: it is not in PEM form; größer?\ufffd"; got != want {
		t.Errorf("got %q", got)
	}
}
