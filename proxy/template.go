package proxy

// The sentences of policy: templates by finding and action, shipped in each
// language, and those that a brand has of its own.

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"mailreeve/policy"
)

// Beside the findings of policy, these have words of their own.
const (
	OtherService policy.Finding = "other_service"     // of legacy_hostname: a server name that is right, but not for this protocol
	AddressForm  policy.Finding = "user_form_address" // of user_form: an address, where the bare name is asked for
	otherFinding policy.Finding = ""                  // one without words: what is certain
)

// blameless is the first thing that a refusal says: people try to change the
// password.
var blameless = map[Language]string{German: "Passwort ist NICHT falsch", English: "Your password is NOT wrong"}

// shipped are the sentences where a brand has none. They are as short as leaves
// room for what follows them (see [Front.Room]), and name only what is right: "is
// out of date: server X" was read as if X were. What stands in square brackets is
// left out where a placeholder in it has no value. A refusal at the earliest
// moment has the words of a denial.
var shipped = map[Language]map[policy.Finding]map[policy.Action]string{
	German: {
		policy.Plaintext: {
			policy.Warn:     "Verschluesselung fehlt[ und wird ab {date} verlangt]: SSL/TLS, Server {host}, Port {port}.",
			policy.TempFail: "Passwort ist NICHT falsch. Testabschaltung[ bis {until}]: SSL/TLS fehlt. {host}, Port {port}.",
			policy.Deny:     "Passwort ist NICHT falsch. Verschluesselung fehlt: SSL/TLS, Server {host}, Port {port}.",
		},
		policy.TLSOld: {
			policy.Warn:     "Programm ist veraltet[ und wird ab {date} abgewiesen]: TLS 1.2 fehlt.",
			policy.TempFail: "Passwort ist NICHT falsch. Testabschaltung[ bis {until}]: Programm veraltet, TLS 1.2 fehlt.",
			policy.Deny:     "Passwort ist NICHT falsch. Programm ist veraltet: TLS 1.2 fehlt.",
		},
		policy.Mechanism: {
			policy.Warn:     "Bitte[ bis {date}] Authentifizierung umstellen: \"Passwort, normal\" (SSL/TLS bleibt an, SPA aus).",
			policy.TempFail: "Passwort ist NICHT falsch. Testabschaltung[ bis {until}]: Bitte \"Passwort, normal\" einstellen.",
			policy.Deny:     "Passwort ist NICHT falsch. Authentifizierung: \"Passwort, normal\" (SSL/TLS bleibt an, SPA aus).",
		},
		policy.LegacyHostname: {
			policy.Warn:     "Alter Servername[, gilt nur bis {date}]. Bitte einstellen: {host}, Port {port}, SSL/TLS.",
			policy.TempFail: "Passwort ist NICHT falsch. Testabschaltung[ bis {until}]. Server: {host}, Port {port}.",
			policy.Deny:     "Passwort ist NICHT falsch. Neuer Servername: {host}, Port {port}, SSL/TLS.",
		},
		OtherService: {
			policy.Warn:     "Servername gilt fuer {others}. Bitte[ bis {date}] fuer {word}: {host}, Port {port}, SSL/TLS.",
			policy.TempFail: "Passwort ist NICHT falsch. Testabschaltung[ bis {until}]. {word}: {host}, Port {port}.",
			policy.Deny:     "Passwort ist NICHT falsch. Servername gilt fuer {others}. {word}: {host}, Port {port}, SSL/TLS.",
		},
		policy.FindingUserForm: {
			policy.Warn:     "Bitte[ bis {date}] als Benutzernamen die ganze E-Mail-Adresse einstellen.",
			policy.TempFail: "Passwort ist NICHT falsch. Testabschaltung[ bis {until}]: Benutzername = E-Mail-Adresse.",
			policy.Deny:     "Passwort ist NICHT falsch. Der Benutzername ist jetzt die ganze E-Mail-Adresse.",
		},
		AddressForm: {
			policy.Warn:     "Bitte[ bis {date}] den Benutzernamen ohne @ und was dahinter steht einstellen.",
			policy.TempFail: "Passwort ist NICHT falsch. Testabschaltung[ bis {until}]: Benutzername ohne @ einstellen.",
			policy.Deny:     "Passwort ist NICHT falsch. Der Benutzername ist ohne @ und was dahinter steht.",
		},
		policy.FindingPort: {
			policy.Warn:     "Dieser Port endet[ am {date}]. Bitte einstellen: {host}, Port {port}, SSL/TLS.",
			policy.TempFail: "Passwort ist NICHT falsch. Testabschaltung[ bis {until}]. Neuer Port: {host}, Port {port}.",
			policy.Deny:     "Passwort ist NICHT falsch. Neuer Port: {port}, Server {host}, SSL/TLS.",
		},
		otherFinding: {
			policy.Warn:     "Bitte[ bis {date}] einstellen: {host}, Port {port}, SSL/TLS.",
			policy.TempFail: "Passwort ist NICHT falsch. Testabschaltung[ bis {until}]. {host}, Port {port}, SSL/TLS.",
			policy.Deny:     "Passwort ist NICHT falsch. Bitte einstellen: {host}, Port {port}, SSL/TLS.",
		},
	},
	English: {
		policy.Plaintext: {
			policy.Warn:     "Encryption is missing[ and required from {date}]: SSL/TLS, server {host}, port {port}.",
			policy.TempFail: "Your password is NOT wrong. Trial outage[ until {until}]: no SSL/TLS. {host}, port {port}.",
			policy.Deny:     "Your password is NOT wrong. Encryption is missing: SSL/TLS, server {host}, port {port}.",
		},
		policy.TLSOld: {
			policy.Warn:     "This program is too old[ and refused from {date}]: TLS 1.2 is missing.",
			policy.TempFail: "Your password is NOT wrong. Trial outage[ until {until}]: too old, TLS 1.2 is missing.",
			policy.Deny:     "Your password is NOT wrong. The program is too old: TLS 1.2 is missing.",
		},
		policy.Mechanism: {
			policy.Warn:     "Please set authentication to \"normal password\"[ by {date}] (SSL/TLS on, SPA off).",
			policy.TempFail: "Your password is NOT wrong. Trial outage[ until {until}]: set \"normal password\".",
			policy.Deny:     "Your password is NOT wrong. Set authentication to \"normal password\" (SSL/TLS on, SPA off).",
		},
		policy.LegacyHostname: {
			policy.Warn:     "Old server name[, ends on {date}]. Please set {host}, port {port}, SSL/TLS.",
			policy.TempFail: "Your password is NOT wrong. Trial outage[ until {until}]. Server: {host}, port {port}.",
			policy.Deny:     "Your password is NOT wrong. New server name: {host}, port {port}, SSL/TLS.",
		},
		OtherService: {
			policy.Warn:     "Server name is for {others}. Please set for {word}[ by {date}]: {host}, port {port}, SSL/TLS.",
			policy.TempFail: "Your password is NOT wrong. Trial outage[ until {until}]. {word}: {host}, port {port}.",
			policy.Deny:     "Your password is NOT wrong. Server name is for {others}. {word}: {host}, port {port}, SSL/TLS.",
		},
		policy.FindingUserForm: {
			policy.Warn:     "Please set your whole e-mail address as user name[ by {date}].",
			policy.TempFail: "Your password is NOT wrong. Trial outage[ until {until}]: user name = e-mail address.",
			policy.Deny:     "Your password is NOT wrong. The user name is now your whole e-mail address.",
		},
		AddressForm: {
			policy.Warn:     "Please set the user name without @ and what follows it[ by {date}].",
			policy.TempFail: "Your password is NOT wrong. Trial outage[ until {until}]: user name without @, please.",
			policy.Deny:     "Your password is NOT wrong. The user name is without @ and what follows it.",
		},
		policy.FindingPort: {
			policy.Warn:     "This port ends[ on {date}]. Please set {host}, port {port}, SSL/TLS.",
			policy.TempFail: "Your password is NOT wrong. Trial outage[ until {until}]. New port: {host}, port {port}.",
			policy.Deny:     "Your password is NOT wrong. New port: {port}, server {host}, SSL/TLS.",
		},
		otherFinding: {
			policy.Warn:     "Please set {host}, port {port}, SSL/TLS[ by {date}].",
			policy.TempFail: "Your password is NOT wrong. Trial outage[ until {until}]. {host}, port {port}, SSL/TLS.",
			policy.Deny:     "Your password is NOT wrong. Please set {host}, port {port}, SSL/TLS.",
		},
	},
}

// place is what a sentence can name: the right server for this protocol and
// brand, where to get help, and when.
type place struct {
	lang    Language
	texts   map[policy.Finding]map[policy.Action]string // the brand's own
	host    string                                      // canonical host name
	port    int                                         // of implicit TLS
	help    string                                      // address of the help page, may be empty
	session string                                      // session id
	room    int                                         // characters that are shown; 0: maxText
	word    string                                      // what the protocol is called
	others  string                                      // what the server name is for, where that are other protocols
	until   string                                      // when a trial outage ends, may be empty
	date    string                                      // from when on it will be refused, may be empty
}

// ruling returns the words of policy, with help address and session id as far
// as they fit.
func (p place) ruling(action policy.Action, finding policy.Finding) string {
	format := p.format(action, finding)
	text := p.fill(format)
	if strings.Contains(format, "{help}") {
		p.help = "" // said already
	}
	return p.tail(text)
}

// format is the template for a finding and an action.
func (p place) format(action policy.Action, finding policy.Finding) string {
	if text := p.texts[finding][action]; text != "" {
		return text
	}
	if action == policy.Refuse {
		return p.format(policy.Deny, finding)
	}
	words, ok := shipped[p.lang]
	if !ok {
		words = shipped[German]
	}
	if text := words[finding][action]; text != "" {
		return text
	}
	return words[otherFinding][action]
}

// values are the placeholders and what they stand for.
func (p place) values() []string {
	return []string{"{host}", p.host, "{port}", strconv.Itoa(p.port), "{help}", p.help, "{word}", p.word, "{others}", p.others,
		"{until}", p.until, "{date}", p.date}
}

// fill puts values in the places of a template.
func (p place) fill(format string) string {
	values := p.values()
	// A German date ends with the full stop that the sentence may have, too.
	filler := strings.NewReplacer(append([]string{"{date}.", strings.TrimSuffix(p.date, ".") + "."}, values...)...)
	text := ""
	add := func(part string) {
		part = filler.Replace(part)
		if strings.HasSuffix(text, ".") {
			part = strings.TrimPrefix(part, ".")
		}
		text += part
	}
	for {
		before, rest, optional := strings.Cut(format, "[")
		add(before)
		if !optional {
			return text
		}
		part, after, _ := strings.Cut(rest, "]")
		if lacking(part, values) == "" {
			add(part)
		}
		format = after
	}
}

// lacking returns a placeholder in the text that has no value, or "".
func lacking(text string, values []string) string {
	for i := 0; i < len(values); i += 2 {
		if values[i+1] == "" && strings.Contains(text, values[i]) {
			return values[i]
		}
	}
	return ""
}

// tail adds the help address and the session id, what is less useful first to go.
func (p place) tail(text string) string {
	room := cmp.Or(p.room, maxText)
	if p.help != "" && len(text)+1+len(p.help) <= room {
		text += " " + p.help
	}
	if n := len(text) + 3 + len(p.session); p.session != "" && n <= room {
		text += " (" + p.session + ")"
	}
	return CleanText(text)
}

// dayForms are dates in the shortest form that nobody misreads.
var dayForms = map[Language]string{German: "02.01.", English: "2 January"}

// day is a date as people write it; the year where it is another.
func (l Language) day(t, now time.Time) string {
	form, ok := dayForms[l]
	if !ok {
		form, l = dayForms[German], German
	}
	if t.Year() != now.In(t.Location()).Year() {
		if l == English {
			form += " "
		}
		form += "2006"
	}
	return t.Format(form)
}

// moment is a time of day, with its date where that is another.
func (l Language) moment(t, now time.Time) string {
	clock := t.Format("15:04")
	if now = now.In(t.Location()); t.Format(time.DateOnly) == now.Format(time.DateOnly) {
		return clock
	}
	return l.day(t, now) + " " + clock
}

// TextError says what is wrong with a sentence of a brand.
type TextError struct {
	Language Language
	Finding  policy.Finding
	Action   policy.Action
	Front    string // with whose host name; empty: whichever
	Problem  string
}

func (e *TextError) Error() string {
	front := ""
	if e.Front != "" {
		front = " for " + e.Front
	}
	return fmt.Sprintf("text %s, %s, language %s%s: %s", cmp.Or(e.Finding, "other"), e.Action, e.Language, front, e.Problem)
}

// CheckTexts checks the sentences of a brand: its own, and all that customers
// would see of it with its longest host names and the longest dates. The errors
// come in the order of findings, actions and fronts.
func (b *Brand) CheckTexts() (problems []*TextError) {
	lang := b.Language
	if shipped[lang] == nil {
		lang = German
	}
	findings := slices.Sorted(maps.Keys(shipped[lang]))
	for _, finding := range slices.Sorted(maps.Keys(b.Texts)) {
		if !slices.Contains(findings, finding) || finding == otherFinding {
			problems = append(problems, &TextError{lang, finding, 0, "", "there is no such finding: " + listed(findings[1:]) + " are"})
			continue
		}
		for action := range policy.Refuse + 1 {
			text, ok := b.Texts[finding][action]
			switch {
			case !ok:
			case action < policy.Warn:
				problems = append(problems, &TextError{lang, finding, action, "", "nothing is said there: only at warn, tempfail, deny and refuse"})
			default:
				if problem := checkTemplate(text, action, finding, lang); problem != "" {
					problems = append(problems, &TextError{lang, finding, action, "", problem})
				}
			}
		}
	}
	if problems != nil {
		return problems
	}
	for _, finding := range findings {
		for _, action := range []policy.Action{policy.Warn, policy.TempFail, policy.Deny, policy.Refuse} {
			for _, name := range slices.Sorted(maps.Keys(b.Hosts)) {
				p := b.longest(name)
				if text := p.fill(p.format(action, finding)); len(text) > maxText {
					problems = append(problems, &TextError{lang, finding, action, name,
						fmt.Sprintf("with %s it has %d characters, and programs show %d at most", p.host, len(text), maxText)})
				}
			}
		}
	}
	return problems
}

func listed(findings []policy.Finding) string {
	var names []string
	for _, f := range findings {
		names = append(names, string(f))
	}
	return strings.Join(names, ", ")
}

// longest is the place in which a brand's sentences are longest.
func (b *Brand) longest(front string) place {
	p := place{lang: b.Language, texts: b.Texts, help: b.Help, word: strings.ToUpper(front), others: "IMAP/POP3/SMTP",
		port: cmp.Or(b.Ports[front], 65535), date: "30 September 2026", until: "30 September 2026 23:59"}
	if b.Language != English {
		p.date, p.until = "30.09.2026", "30.09.2026 23:59"
	}
	for _, host := range b.Hosts[front] {
		if len(host) > len(p.host) {
			p.host = host
		}
	}
	return p
}

// checkTemplate says what is wrong with a template in any place, or "".
func checkTemplate(text string, action policy.Action, finding policy.Finding, lang Language) string {
	if i := strings.IndexFunc(text, func(c rune) bool { return c < ' ' || c > '~' || c == '%' }); i >= 0 {
		return fmt.Sprintf("protocols take printable ASCII without percent signs alone (ae, oe, ue, ss), not %q", []rune(text[i:])[0])
	}
	if action != policy.Warn && !strings.HasPrefix(text, blameless[lang]) {
		return fmt.Sprintf("a refusal begins with %q: people change good passwords", blameless[lang])
	}
	if strings.HasPrefix(text, "[") || strings.TrimSpace(text) != text || text == "" {
		return "it begins with a word, and ends with one or a full stop"
	}
	// What is always known, and what may not be.
	p := place{host: "h", port: 1, word: "w"}
	if finding == OtherService {
		p.others = "o"
	}
	values := p.values()
	for rest := text; rest != ""; {
		outside, after, optional := strings.Cut(rest, "[")
		inside, behind, closed := "", "", true
		if optional {
			inside, behind, closed = strings.Cut(after, "]")
		}
		switch missing := lacking(outside, values); {
		case !closed || strings.Contains(outside, "]") || strings.Contains(inside, "["):
			return "the square brackets do not match"
		case strange(outside, values) != "":
			return strange(outside, values)
		case strange(inside, values) != "":
			return strange(inside, values)
		case missing != "":
			return missing + " is not always known: put it in square brackets, with the words that go with it"
		}
		rest = behind
	}
	return ""
}

// strange says that a text has braces around what is no placeholder.
func strange(text string, values []string) string {
	for i := 0; i < len(values); i += 2 {
		text = strings.ReplaceAll(text, values[i], " ")
	}
	i := strings.IndexAny(text, "{}")
	if i < 0 {
		return ""
	}
	word, _, closed := strings.Cut(text[i:], "}")
	if closed {
		word += "}"
	}
	return fmt.Sprintf("%s is no placeholder: {host}, {port}, {help}, {until}, {date}, {others} and {word} are", word)
}
