package outreach

// A notice asks people to change settings or lose access, as phishing does. What tells
// it from that is held here, for every program, finding and step: nothing to click, nothing to
// give away, no haste, and what only the provider can know.

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"mailreeve/config"
	"mailreeve/fixes"
	"mailreeve/policy"
)

const (
	mostSubject  = 78    // RFC 5322 section 2.1.1, and about what a list of mails shows
	leastText    = 600   // letters: what a person must be told does not fit into less
	mostText     = 6_000 // of a notice about one program: two pages are read, four are not
	mostSentence = 400   // letters
)

var (
	scheme   = regexp.MustCompile(`(?i)\b([a-z][a-z0-9+.-]*://|(mailto|tel|javascript|data):\S)`)
	written  = regexp.MustCompile(`(?i)<\s*/?\s*(a|img|form|script|b|i|p|br|div|span|table)\b[^>]*>`) // tags in a template, which come out as text
	password = regexp.MustCompile(`(?i)passw[oö]rt|kennwort|password|passcode|passphrase|\bPIN\b|\bTAN\b|zugangsdaten|login data|credentials`)
	asks     = regexp.MustCompile(`(?i)\b(geben|gib|teilen|senden|schicken|nennen|bestätigen|verifizieren|aktualisieren|hinterlegen|mailen|antworten|melden Sie sich|loggen|enter|give|tell|send|confirm|verify|update|provide|submit|reply|type|log in|sign in)\b`)
	never    = regexp.MustCompile(`(?i)\b(nie|niemals|never)\b`)
	asked    = regexp.MustCompile(`(?i)\b(fragen|verlangen|ask|request)\b`)
	haste    = regexp.MustCompile(`(?i)!|\b(dringend|sofort handeln|umgehend|unverzüglich|letzte[rn]? (chance|mahnung|warnung|aufforderung|erinnerung)|nur noch|in letzter minute|läuft ab|gesperrt|sperrung|urgent|immediately|final (notice|warning|reminder)|last (chance|warning)|act now|only \d+ (days|hours)|expires?|suspended|(in|noch) \d+ (tagen?|stunden))\b`)
	sales    = regexp.MustCompile(`(?i)\b(angebot|angebote|rabatt|gratis|kostenlos testen|jetzt bestellen|bestellen|kaufen|buchen|tarif|premium|upgrade|newsletter|aktion|gutschein|neukunden|offer|discount|free trial|buy|order now|subscribe|special|voucher|bonus)\b`)
)

// Lint looks for what a notice must not have, and for what it lacks. The problems name the
// template's lines where they can.
func (c *Content) Lint(n *NoticeInput) config.Problems { return c.lint(n, linted{}) }

// linted is what was found in the texts of a template so far: its notices differ in few of them.
type linted map[lintedText]found

type lintedText struct {
	line int
	text marked
}

type found struct {
	problems config.Problems
	promises bool // never to ask for the password
}

func (c *Content) lint(n *NoticeInput, before linted) config.Problems {
	l := &linting{content: c}
	l.subject(n)
	for _, b := range c.blocks {
		for _, it := range b.items {
			for _, t := range it.texts {
				key := lintedText{it.line, t}
				f, known := before[key]
				if !known {
					k := &linting{content: c, line: it.line}
					k.forbidden(t.plain(), t.own())
					f = k.found
					before[key] = f
				}
				l.problems, l.promises = append(l.problems, f.problems...), l.promises || f.promises
				l.texts = append(l.texts, t.plain())
			}
		}
	}
	l.required(n)
	return l.problems
}

// linting is the work at one notice.
type linting struct {
	content *Content
	line    int // of the template; 0: the whole
	texts   []string
	found
}

func (k *linting) add(message, cure string) {
	p := config.Problem{Severity: config.Error, File: k.content.file, Line: k.line, Message: message, Cure: cure}
	if k.line > 0 {
		p.Column = 1
	}
	k.problems = append(k.problems, p)
}

func (k *linting) subject(n *NoticeInput) {
	s := k.content.Subject
	longest := s
	if !n.T.IsZero() {
		longest = strings.Replace(s, longDate(n.T.In(n.Zone), k.content.Lang), longDate(time.Date(2026, 9, 30, 0, 0, 0, 0, n.Zone), k.content.Lang), 1)
	}
	if length := utf8.RuneCountInString(longest); length > mostSubject {
		k.add(fmt.Sprintf("the subject has %d letters: %q", length, longest), fmt.Sprintf("write at most %d", mostSubject))
	}
	if scheme.MatchString(s) || haste.MatchString(s) || sales.MatchString(s) || shouts(s) {
		k.add(fmt.Sprintf("the subject has an address, haste or advertising in it: %q", s), "say calmly what is and by when")
	}
	if !n.T.IsZero() && !strings.Contains(s, longDate(n.T.In(n.Zone), k.content.Lang)) {
		k.add(fmt.Sprintf("the subject does not have the date: %q", s), "write {{.Date}} into it")
	}
}

// forbidden finds what a person has learnt to mistrust, in a text as it is read, and as the
// template alone has it.
func (k *linting) forbidden(text, own string) {
	if found := scheme.FindString(text); found != "" {
		k.add(fmt.Sprintf("there is an address that can be clicked: %q", excerpt(text, found)), "spell it out without "+strconv.Quote(found)+", to be typed")
	}
	if found := written.FindString(own); found != "" {
		k.add(fmt.Sprintf("%q is shown to the customer as it stands", found), "templates are no HTML: use the markup that is explained at the top of the program's own")
	}
	if address := addressIn(text); address != "" {
		k.add("the IP address "+address+" is shown", "name the kind of network")
	}
	if found := haste.FindString(own); found != "" {
		k.add(fmt.Sprintf("it urges: %q", excerpt(own, found)), "say the date and what happens, calmly")
	}
	if found := sales.FindString(own); found != "" {
		k.add(fmt.Sprintf("it advertises: %q", excerpt(own, found)), "leave that out: a notice concerns the contract alone")
	}
	for _, sentence := range sentences(own) {
		if password.MatchString(sentence) && asks.MatchString(sentence) && !never.MatchString(sentence) {
			k.add(fmt.Sprintf("it may be read as asking for the password: %q", sentence), "leave that out, even where the password must be typed into the program")
		}
		if password.MatchString(sentence) && never.MatchString(sentence) && asked.MatchString(sentence) {
			k.promises = true
		}
		if shouts(sentence) {
			k.add(fmt.Sprintf("it shouts: %q", sentence), "write small letters")
		}
		if utf8.RuneCountInString(sentence) > mostSentence {
			k.add("a sentence has more than "+strconv.Itoa(mostSentence)+" letters", "divide it")
		}
	}
}

// required is what shows whose mail this is, and what to do.
func (k *linting) required(n *NoticeInput) {
	notices := n.Brand.Notices
	lang := k.content.Lang
	for _, want := range []struct{ what, text, cure string }{
		{"the address of the help page", spelled(string(n.Brand.Help)), "write {{.Help}}"},
		{"the case number", n.Case, "write {{.Case}}"},
		{"the sender", string(notices.Sender), "write {{.Sender}}"},
		{"the account", oneLine(n.Account.Name), "write {{.Account}}"},
		{"webmail", spelled(string(notices.Webmail)), "write {{.Webmail}}"},
		{"the telephone number", string(notices.Phone), "write {{.Phone}}"},
		{"the signature", string(notices.Signature), "write {{.Signature}}"},
	} {
		k.has(want.text, want.what, want.cure)
	}
	for _, line := range []config.Line{notices.Sender, notices.Phone, notices.Signature} {
		if found := sales.FindString(string(line)); found != "" {
			k.add(fmt.Sprintf("it advertises: %q", line), "take that out of the brand's notices: a notice concerns the contract alone")
		}
	}
	if !n.T.IsZero() {
		k.has(longDate(n.T.In(n.Zone), lang), "the date", "write {{.Date}}")
	}
	for _, d := range grouped(n.Findings) {
		for _, all := range d.uses {
			u := all.words(n, &letter{Lang: lang, Account: n.Account.Name})
			k.has(u.Day, "the day on which "+u.Name+" was seen", "write {{.Day}} of each of .Uses: only you can know it")
			k.has(u.Name, "the protocol "+u.Name, "write {{.Name}} of each of .Uses")
			for _, s := range u.Settings {
				k.has(s.Value, "the setting "+s.Label, "write {{.Label}} and {{.Value}} of each of .Settings")
			}
			for _, s := range u.Steps {
				k.has(s, "a step", "write each of .Steps")
			}
		}
	}
	if !k.promises {
		k.add("it does not say that you never ask for the password", map[string]string{
			"de": "write: Wir fragen Sie nie nach Ihrem Passwort.", "en": "write: We never ask for your password."}[lang])
	}
	switch length, most := utf8.RuneCountInString(k.content.Text), mostText*len(grouped(n.Findings)); {
	case length < leastText:
		k.add(fmt.Sprintf("it has %d letters", length), fmt.Sprintf("less than %d cannot say all", leastText))
	case length > most:
		k.add(fmt.Sprintf("it has %d letters", length), fmt.Sprintf("nobody reads more than %d", most))
	}
}

// has wants a text in both forms of the notice. Lines are broken anywhere in the plain one.
func (k *linting) has(text, what, cure string) {
	if text == "" {
		return
	}
	if !slices.ContainsFunc(k.texts, func(said string) bool { return strings.Contains(said, text) }) {
		k.add(what+" is missing", cure)
	}
}

// sentences divides a text. A dot behind a number is one of a date.
func sentences(text string) (all []string) {
	begin := 0
	for i, c := range text {
		end := i + utf8.RuneLen(c)
		stop := c == '?' || c == '!' || c == ';' || c == ':' || c == '.' && (i == 0 || text[i-1] < '0' || text[i-1] > '9')
		if stop && (end == len(text) || text[end] == ' ') {
			all, begin = append(all, strings.TrimSpace(text[begin:end])), end
		}
	}
	if rest := strings.TrimSpace(text[begin:]); rest != "" {
		all = append(all, rest)
	}
	return all
}

// shouts reports whether there are two words of capitals beside each other; one may be a name.
func shouts(text string) bool {
	loud := 0
	for word := range strings.FieldsSeq(text) {
		word = strings.Trim(word, ".,;:()„“”\"")
		if utf8.RuneCountInString(word) > 3 && !strings.ContainsFunc(word, func(c rune) bool { return !unicode.IsUpper(c) }) {
			if loud++; loud == 2 {
				return true
			}
			continue
		}
		loud = 0
	}
	return false
}

// addressIn finds an IP address.
func addressIn(text string) string {
	for word := range strings.FieldsSeq(text) {
		word = strings.Trim(word, ".,;()[]<>\"'„“”")
		if ip, err := netip.ParseAddr(word); err == nil && strings.ContainsAny(word, ".:") {
			return ip.String()
		}
		if p, err := netip.ParseAddrPort(word); err == nil {
			return p.Addr().String()
		}
		if p, err := netip.ParsePrefix(word); err == nil {
			return p.String()
		}
	}
	return ""
}

// excerpt is the neighbourhood of what was found.
func excerpt(text, found string) string {
	const around = 24
	i := strings.Index(text, found)
	if i < 0 {
		return found
	}
	begin, end := max(0, i-around), min(len(text), i+len(found)+around)
	return strings.ToValidUTF8(text[begin:end], "")
}

// sampleProtocols are all, in the order of a letter.
var sampleProtocols = []string{"imap", "pop3", submission}

// LintNotices tries the templates of brands in both languages, with every program, protocol,
// finding and step, and with several at once, and tells each problem once.
func LintNotices(brands []config.Brand, zone *time.Location, now time.Time) (tried int, problems config.Problems) {
	return lintNotices(brands, zone, now, fixes.Known())
}

func lintNotices(brands []config.Brand, zone *time.Location, now time.Time, classes []fixes.Class) (tried int, problems config.Problems) {
	told := map[string]bool{}
	add := func(p config.Problem, what string) {
		if key := fmt.Sprint(p.File, p.Line, what); !told[key] {
			told[key] = true
			problems = append(problems, p)
		}
	}
	for i := range brands {
		b := &brands[i]
		if b.Notices == nil {
			continue
		}
		for _, lang := range []string{"de", "en"} {
			t, err := loadTemplate(b.Notices.Templates, lang)
			if err != nil {
				add(templateProblem(b, lang, err), err.Error())
				continue
			}
			before := linted{}
			for _, n := range samples(b, lang, zone, now, classes) {
				tried++
				said, err := newLetter(&n.NoticeInput)
				var c *Content
				if err == nil {
					c, err = t.write(said)
				}
				if err != nil {
					add(templateProblem(b, lang, err), err.Error())
					continue
				}
				for _, p := range c.lint(&n.NoticeInput, before) {
					what := p.Message
					if p.Line == 0 { // it may be of this combination alone
						what = p.Cure
						p.Message += " (brand " + string(b.Name) + ", " + n.of + ")"
					}
					add(p, what)
				}
			}
		}
	}
	slices.SortStableFunc(problems, func(a, b config.Problem) int { return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line)) })
	return tried, problems
}

// placeInError is how text/template tells a place: de.txt:12:5: executing "de.txt" at <.X>: ...
var placeInError = regexp.MustCompile(`^(?:.*?):([0-9]+)(?::([0-9]+))?: (.*)$`)

// templateProblem is what a template that cannot be printed has to say.
func templateProblem(b *config.Brand, lang string, err error) config.Problem {
	p := config.Problem{Severity: config.Error, Message: err.Error(), Cure: "`mailreeve outreach template " + lang + "` prints one that works"}
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrPermission) {
		p.Cure = "write the folder at brands.notices.templates, or leave that out"
		return p
	}
	if m := placeInError.FindStringSubmatch(p.Message); m != nil {
		p.Line, _ = strconv.Atoi(m[1]) // digits, by the expression
		p.Column, _ = strconv.Atoi(m[2])
		p.Column, p.Message = max(1, p.Column), m[3]
		p.File = lang + ".txt"
		if b.Notices.Templates != "" {
			p.File = filepath.Join(b.Notices.Templates, p.File)
		}
	}
	return p
}

// sample is a made-up notice, with its description.
type sample struct {
	NoticeInput
	of string
}

// samples are notices of all kinds.
func samples(b *config.Brand, lang string, zone *time.Location, now time.Time, classes []fixes.Class) (all []sample) {
	at := func(days Day) time.Time { return (DayOf(now, zone) + days).Start(zone) }
	for _, stage := range []struct {
		name string
		t    time.Time
	}{{"early", at(60)}, {"soon", at(10)}, {"day", at(0)}, {"after", at(-3)}, {"open", time.Time{}}} {
		try := func(of string, uses ...SampleUse) {
			all = append(all, sample{Sample(b, lang, stage.t, now, zone, uses...), lang + ", " + stage.name + ", " + of})
		}
		kinds := [][]policy.Finding{policyFindings}
		for _, f := range policyFindings {
			kinds = append(kinds, []policy.Finding{f})
		}
		for _, class := range classes {
			for _, protocol := range sampleProtocols {
				for _, kind := range kinds {
					try(fmt.Sprintf("%s, %s, %v", class, protocol, kind), SampleUse{Class: class, Protocol: protocol, Network: "mobile", Findings: kind})
				}
			}
		}
		try("several programs", SeveralUses...)
	}
	return all
}

// policyFindings are all kinds of findings.
var policyFindings = []policy.Finding{policy.Plaintext, policy.TLSOld, policy.Mechanism, policy.LegacyHostname, policy.FindingUserForm, policy.FindingPort}

// SeveralUses are those of somebody with a computer, a telephone and a scanner.
var SeveralUses = []SampleUse{
	{Class: fixes.Thunderbird, Program: "Thunderbird 153", Protocol: "imap", Network: "dsl", Findings: []policy.Finding{policy.Plaintext, policy.LegacyHostname}},
	{Class: fixes.Thunderbird, Program: "Thunderbird 153", Protocol: submission, Network: "dsl", Findings: []policy.Finding{policy.Plaintext}},
	{Class: fixes.IOSMail, Protocol: "imap", Network: "mobile", Findings: []policy.Finding{policy.Mechanism}},
	{Class: fixes.Device, Protocol: submission, Network: "office", Findings: []policy.Finding{policy.TLSOld}},
}
