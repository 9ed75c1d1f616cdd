package fixes

// What a customer does, and what is entered where.

import (
	"cmp"
	"fmt"
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
	What  What
	Label string // in the program's own words
	Value string
}

// What says which of the five settings it is.
type What string

// The five settings, in the order in which they are shown.
const (
	Server         What = "server"
	Port           What = "port"
	Security       What = "security"
	Authentication What = "authentication"
	User           What = "user"
)

// Steps says what to do in a program to mend all these findings of one protocol (imap, pop3
// or submission): one walk through its dialogues, in order. There are none without
// a finding.
func Steps(c Class, protocol string, findings []policy.Finding, lang string, v Values) []Step {
	if len(findings) == 0 {
		return nil
	}
	f := filler{class: c.entry(), protocol: protocol, lang: lang, Values: v}
	var all []Step
	for _, s := range f.class.Steps {
		if !serves(s.For, protocol) || s.Security != "" && s.Security != f.security() ||
			len(s.When) > 0 && !slices.ContainsFunc(findings, func(f policy.Finding) bool { return slices.Contains(s.When, f) }) {
			continue
		}
		said, err := fill(s.in(lang), f.value)
		if err != nil {
			panic(err) // parse has tried it
		}
		all = append(all, Step(said))
	}
	return all
}

// Settings lists the five values that belong into a program for one protocol.
func Settings(c Class, protocol, lang string, v Values) []Setting {
	f := filler{class: c.entry(), protocol: protocol, lang: lang, Values: v}
	auth := f.label(func(l *labels) text { return l.Password })
	user := cmp.Or(v.User, known().Words.AsIs.in(lang))
	return []Setting{
		{Server, f.label(func(l *labels) text { return l.Server }), f.server()},
		{Port, f.label(func(l *labels) text { return l.Port }), f.port()},
		{Security, f.label(func(l *labels) text { return l.Security }), f.choice()},
		{Authentication, f.label(func(l *labels) text { return l.Auth }), auth},
		{User, f.label(func(l *labels) text { return l.User }), user},
	}
}

// filler knows what placeholders stand for.
type filler struct {
	class          *class
	protocol, lang string
	Values
}

// value is that of a placeholder; false says that there is no such placeholder, an empty
// one that there is no value.
func (f *filler) value(placeholder string) (string, bool) {
	switch placeholder {
	case "server":
		return f.server(), true
	case "port":
		return f.port(), true
	case "security":
		return f.choice(), true
	case "password":
		return f.label(func(l *labels) text { return l.Password }), true
	case "user":
		return cmp.Or(f.User, known().Words.User.in(f.lang)), true
	case "protocol":
		return map[string]string{imap: "IMAP", pop3: "POP3", submission: "SMTP"}[f.protocol], true
	case "old":
		return f.OldServer, true
	case "webmail":
		return f.Webmail, true
	}
	return "", false
}

// label is a text of the first labels for the protocol that have it.
func (f *filler) label(of func(*labels) text) string {
	for i := range f.class.Labels {
		l := &f.class.Labels[i]
		if said := of(l).in(f.lang); said != "" && serves(l.For, f.protocol) {
			return said
		}
	}
	return ""
}

// choice is what is chosen as the encryption.
func (f *filler) choice() string {
	if f.security() == startTLS {
		return f.label(func(l *labels) text { return l.StartTLS })
	}
	return f.label(func(l *labels) text { return l.Implicit })
}

func (f *filler) server() string {
	name := f.Server
	if f.protocol == submission {
		name = f.Outgoing
	}
	return cmp.Or(name, known().Words.Server.in(f.lang))
}

func (f *filler) security() string {
	how := f.Values.Security
	if f.protocol == submission {
		how = f.OutgoingSecurity
	}
	return cmp.Or(how, implicit)
}

// usual are the ports of RFC 8314 section 7.3, and of STARTTLS.
var usual = map[string]map[string]int{
	implicit: {imap: 993, pop3: 995, submission: 465},
	startTLS: {imap: 143, pop3: 110, submission: 587},
}

func (f *filler) port() string {
	port := f.Port
	if f.protocol == submission {
		port = f.OutgoingPort
	}
	return strconv.Itoa(cmp.Or(port, usual[f.security()][f.protocol]))
}

// fill replaces placeholders like {port}. What stands in square brackets is left out
// where a placeholder in it has no value. Values are not looked into again.
func fill(text string, value func(string) (string, bool)) (string, error) {
	var out strings.Builder
	for text != "" {
		i := strings.IndexAny(text, "[]{}")
		if i < 0 {
			break
		}
		out.WriteString(text[:i])
		open, rest := text[i], text[i+1:]
		end := strings.IndexByte(rest, map[byte]byte{'[': ']', '{': '}'}[open])
		if end < 0 || open != '[' && open != '{' {
			return "", fmt.Errorf("a bracket has no other: %q", text[i:])
		}
		inner := rest[:end]
		text = rest[end+1:]
		if open == '[' {
			missing := false
			said, err := fill(inner, func(name string) (string, bool) {
				v, ok := value(name)
				missing = missing || v == ""
				return v, ok
			})
			if err != nil {
				return "", err
			}
			if !missing {
				out.WriteString(said)
			}
			continue
		}
		v, ok := value(inner)
		if !ok {
			return "", fmt.Errorf("there is no placeholder {%s}", inner)
		}
		out.WriteString(v)
	}
	return out.String() + text, nil
}
