package fixes

// What a customer does, and what is entered where.

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"mailreeve/policy"
)

// The ways in which encryption begins, in Values.
const (
	implicit = "implicit"
	startTLS = "starttls"
)

// Values are the settings that the provider wants. What is left out is said in
// general words.
type Values struct {
	Protocol string // of the incoming server: imap or pop3
	Server   string // the incoming one
	Port     int    // 0: the usual one
	Security string // implicit or starttls; empty: implicit

	Outgoing         string // the same for sending
	OutgoingPort     int
	OutgoingSecurity string

	User      string // what to log in with, as it is typed; required where the finding is user_form
	OldServer string // the name to be replaced, of the protocol that is asked about
	Webmail   string // where mail can be read meanwhile, as it is typed: no link
}

// Step is one thing to do in a program, a sentence or a few.
type Step string

// Setting is one line of a table of settings.
type Setting struct {
	Label string `json:"label"` // in the program's own words
	Value string `json:"value"`
}

// Steps says what to do in a program to mend all these findings of one protocol (imap, pop3
// or submission): one walk through its dialogues, in order. There are none without
// a finding.
func Steps(c Class, protocol string, findings []policy.Finding, lang string, v Values) []Step {
	k := c.entry()
	values := known().values(k, protocol, lang, v)
	var all []Step
	for i := range k.Steps {
		s := &k.Steps[i]
		if !serves(s.For, protocol) || s.Security != "" && s.Security != v.security(protocol) || !slices.ContainsFunc(findings, s.mends) {
			continue
		}
		said, err := fill(s.in(lang), values)
		if err != nil {
			panic(err) // parse has tried it
		}
		all = append(all, Step(said))
	}
	return all
}

// mends reports whether the step is one of those against a finding.
func (s *step) mends(f policy.Finding) bool {
	if len(s.When) == 0 {
		return f != policy.TLSOld
	}
	return slices.Contains(s.When, f)
}

// Settings lists the five values that belong into a program for one protocol: server, port,
// encryption, authentication, user name.
func Settings(c Class, protocol, lang string, v Values) []Setting {
	k := c.entry()
	values := known().values(k, protocol, lang, v)
	words := &known().Words
	label := func(of func(*labels) text) string { return k.label(protocol, lang, of) }
	return []Setting{
		{label(func(l *labels) text { return l.Server }), cmp.Or(v.server(protocol), words.ServerValue.in(lang))},
		{label(func(l *labels) text { return l.Port }), values["port"]},
		{label(func(l *labels) text { return l.Security }), values["security"]},
		{label(func(l *labels) text { return l.Auth }), values["password"]},
		{label(func(l *labels) text { return l.User }), cmp.Or(v.User, words.UserValue.in(lang))},
	}
}

// values are what stands for each placeholder; an empty one says that there is none.
func (c *catalogue) values(k *class, protocol, lang string, v Values) map[string]string {
	choice := func(l *labels) text { return l.Implicit }
	if v.security(protocol) == startTLS {
		choice = func(l *labels) text { return l.StartTLS }
	}
	return map[string]string{
		"server":   cmp.Or(v.server(protocol), c.Words.Server.in(lang)),
		"port":     v.port(protocol),
		"security": k.label(protocol, lang, choice),
		"password": k.label(protocol, lang, func(l *labels) text { return l.Password }),
		"user":     cmp.Or(v.User, c.Words.User.in(lang)),
		"protocol": map[string]string{imap: "IMAP", pop3: "POP3", submission: "SMTP"}[protocol],
		"old":      v.OldServer,
		"webmail":  v.Webmail,
	}
}

// label is a text of the first labels for the protocol that have it.
func (k *class) label(protocol, lang string, of func(*labels) text) string {
	for i := range k.Labels {
		l := &k.Labels[i]
		if said := of(l).in(lang); said != "" && serves(l.For, protocol) {
			return said
		}
	}
	return ""
}

func (v *Values) server(protocol string) string {
	if protocol == submission {
		return v.Outgoing
	}
	return v.Server
}

func (v *Values) security(protocol string) string {
	if protocol == submission {
		return cmp.Or(v.OutgoingSecurity, implicit)
	}
	return cmp.Or(v.Security, implicit)
}

// usual are the ports of RFC 8314 section 7.3, and of STARTTLS.
var usual = map[string]map[string]int{
	implicit: {imap: 993, pop3: 995, submission: 465},
	startTLS: {imap: 143, pop3: 110, submission: 587},
}

func (v *Values) port(protocol string) string {
	port := v.Port
	if protocol == submission {
		port = v.OutgoingPort
	}
	return strconv.Itoa(cmp.Or(port, usual[v.security(protocol)][protocol]))
}

// fill replaces placeholders like {port}. What stands in square brackets is left out
// where a placeholder in it has no value. Values are not looked into again.
func fill(text string, values map[string]string) (string, error) {
	var out strings.Builder
	for {
		i := strings.IndexAny(text, "[]{}")
		if i < 0 {
			return out.String() + text, nil
		}
		out.WriteString(text[:i])
		inner, rest, closed := strings.Cut(text[i+1:], map[byte]string{'[': "]", '{': "}"}[text[i]])
		switch {
		case !closed || inner == "":
			return "", fmt.Errorf("a bracket stands alone: %q", text[i:])
		case text[i] == '{':
			value, ok := values[inner]
			if !ok {
				return "", fmt.Errorf("there is no placeholder {%s}: %s", inner, policy.Suggest(inner, slices.Sorted(maps.Keys(values))))
			}
			out.WriteString(value)
		default:
			said, err := fill(inner, values)
			if err != nil {
				return "", err
			}
			if !misses(inner, values) {
				out.WriteString(said)
			}
		}
		text = rest
	}
}

// misses reports whether a text has a placeholder without a value.
func misses(text string, values map[string]string) bool {
	for name, value := range values {
		if value == "" && strings.Contains(text, "{"+name+"}") {
			return true
		}
	}
	return false
}
