package outreach

// What a notice says: from findings to a letter.

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"mailreeve/config"
	"mailreeve/fixes"
	"mailreeve/policy"
)

// NoticeInput is all that a notice is made of.
type NoticeInput struct {
	Account  *Account
	Findings []Finding     // of the account; those that are not [Finding.Noticed] are left out
	Brand    *config.Brand // who writes; with notices
	Lang     string        // de or en; empty: the brand's
	T        time.Time     // from when on the account is refused; zero: that is not planned
	Case     string        // the case number
	Zone     *time.Location
	Now      time.Time // when it is sent: whether the day has come is said by this, whatever step was due
}

// Content is a notice without an envelope.
type Content struct {
	Lang    string
	Subject string
	Text    string // lines end in LF
	HTML    string

	blocks []block // with the places in the template, for the linter
	file   string
}

// ErrNothing says that there is nothing to tell the account.
var ErrNothing = errors.New("there is nothing to tell")

// Noticed reports whether a notice speaks of the finding: it is at risk, and policy has made
// it known.
func (f *Finding) Noticed() bool {
	return f.State.affected() && f.Do >= policy.Notify
}

// Means is what the finding is by its uses. A requirement of TLS 1.2 is broken by who does not
// encrypt and by who does so in an old way, and these have different things to do.
func (f *Finding) Means() (means policy.Finding) {
	means = f.Rule.Finding
	for n, u := range f.Uses {
		if of := Meant(f.Rule.Finding, u.TLS); n == 0 || of == policy.Plaintext { // which weighs more than a version
			means = of
		}
	}
	return means
}

// Meant is what a login with a version of TLS is told by a requirement with a finding.
func Meant(f policy.Finding, version string) policy.Finding {
	switch {
	case f != policy.Plaintext && f != policy.TLSOld || version == "":
		return f
	case version == policy.None:
		return policy.Plaintext
	}
	return policy.TLSOld
}

// spoken are the findings that a notice speaks of: what has been right since it was last wrong is
// left out where something else is to be changed.
func spoken(findings []Finding) (all []*Finding) {
	left := slices.ContainsFunc(findings, func(f Finding) bool { return f.Noticed() && !f.watched() })
	for i := range findings {
		if f := &findings[i]; f.Noticed() && !(left && f.watched()) {
			all = append(all, f)
		}
	}
	return all
}

// Date is from when on an account with these findings is refused, by those that a notice speaks
// of; zero: that is not planned. It is the same whether or not a mail can go to the account.
func (s *Schedule) Date(findings []Finding, now time.Time) time.Time {
	var told []Finding
	for _, f := range spoken(findings) {
		told = append(told, *f)
	}
	return s.day(told, DayOf(now, s.Office.Zone))
}

// Write makes a notice: one for all that is wrong with the account.
func Write(n NoticeInput) (*Content, error) {
	if n.Brand == nil || n.Brand.Notices == nil {
		return nil, fmt.Errorf("writing a notice: the brand has no notices")
	}
	l, err := newLetter(&n)
	if err != nil {
		return nil, err
	}
	t, err := loadTemplate(n.Brand.Notices.Templates, l.Lang)
	if err != nil {
		return nil, err
	}
	return t.write(l)
}

// letter is what a template sees. Each value that a template prints stays text: nothing in it
// becomes a heading, an entry of a list or a row of a table.
type letter struct {
	Lang     string
	Account  string
	Case     string
	Stage    string // early: more than two weeks before the day; soon; day; after; open: there is no day
	Date     string // the day, like 20. September 2027
	What     string // the finding where there is one; collector, where that is all; or several
	Does     string // what will fail: fetch, send, or both
	Programs []letterProgram

	Sender, From, Phone, Webmail, Signature string // of the brand; the last three may be empty
	Help                                    string // address of the help page, without scheme
}

// Several reports whether there is more than one program to be set.
func (l *letter) Several() bool { return len(l.Programs) > 1 }

// letterProgram is one kind of program that the account uses.
type letterProgram struct {
	Name      string // Thunderbird 153, or a description like "ein Drucker oder Scanner"
	Known     bool   // and it is more than that
	Collector bool   // another provider's service, and no program of the customer's
	Uses      []letterUse
}

// letterUse is what it does by one protocol.
type letterUse struct {
	Protocol string // imap, pop3 or submission
	Name     string // IMAP, POP3 or SMTP
	Port     string // that it used
	Day      string // on which that was seen last, with the day of the week
	Network  string // the class of the network: dsl, mobile ...
	Host     string // the server name that it used, where that is wrong
	Findings []string
	Meaning  []string // what each means, in a sentence or two
	Date     string   // from when on this is refused, where that is another day than the letter's
	Ended    bool     // and that day has come
	Never    bool     // no such day is planned, while the letter has one
	Steps    []string
	Settings []fixes.Setting
}

// newLetter gathers what a notice says.
func newLetter(n *NoticeInput) (*letter, error) {
	b := n.Brand
	l := &letter{
		Lang: cmp.Or(n.Lang, string(b.Language)), Account: oneLine(n.Account.Name), Case: oneLine(n.Case),
		Sender: string(b.Notices.Sender), From: string(b.Notices.From), Phone: string(b.Notices.Phone),
		Webmail: spelled(string(b.Notices.Webmail)), Signature: string(b.Notices.Signature), Help: spelled(string(b.Help)),
	}
	if l.Lang != "en" {
		l.Lang = "de" // as the catalogue of fixes does
	}
	l.Stage, l.Date = stageOf(n.T, n.Now, n.Zone), ""
	if !n.T.IsZero() {
		l.Date = longDate(n.T.In(n.Zone), l.Lang)
	}
	what := map[policy.Finding]bool{}
	fetch, send := false, false
	for _, p := range grouped(n.Findings) {
		made := p.words(l.Lang)
		for _, found := range p.uses {
			made.Uses = append(made.Uses, found.words(n, l))
			for _, f := range found {
				what[f.Means()] = true
			}
			if at := earliest(found); l.Date == "" || !at.IsZero() && !at.After(n.T) {
				fetch = fetch || found[0].Kind.Protocol != submission
				send = send || found[0].Kind.Protocol == submission
			}
		}
		l.Programs = append(l.Programs, made)
	}
	switch {
	case len(l.Programs) == 0:
		return nil, ErrNothing
	case len(l.Programs) == 1 && l.Programs[0].Collector:
		l.What = string(fixes.Collector)
	case len(what) > 1 || len(l.Programs) > 1:
		l.What = "several"
	default:
		for f := range what {
			l.What = string(f)
		}
	}
	switch {
	case fetch && send:
		l.Does = "both"
	case send:
		l.Does = "send"
	default:
		l.Does = "fetch"
	}
	return l, nil
}

// submission is how policy calls the protocol that has a server and labels of its own.
const submission = "submission"

// soonDays is how many days before the day a notice begins to speak of soon.
const soonDays = 21

// stageOf says how far the day is.
func stageOf(t, now time.Time, zone *time.Location) string {
	if t.IsZero() {
		return "open"
	}
	switch days := DayOf(t, zone) - DayOf(now, zone); {
	case !now.Before(t) && days < 0:
		return "after"
	case !now.Before(t):
		return "day"
	case days < soonDays:
		return "soon"
	}
	return "early"
}

// foundBy are the findings of one program by one protocol.
type foundBy []*Finding

// letterDevice are the findings of one program.
type letterDevice struct {
	class     fixes.Class
	collector bool
	uses      []foundBy // by protocol, those that fetch first
}

// grouped are the findings that a notice speaks of, by program and protocol, in a fixed
// order: what is refused first, and then what was seen last.
func grouped(findings []Finding) []*letterDevice {
	var all []*letterDevice
	for _, f := range spoken(findings) {
		class := f.Kind.program()
		at := slices.IndexFunc(all, func(d *letterDevice) bool { return d.class == class })
		if at < 0 {
			at, all = len(all), append(all, &letterDevice{class: class, collector: f.Kind.Collector})
		}
		d := all[at]
		use := slices.IndexFunc(d.uses, func(u foundBy) bool { return u[0].Kind.Protocol == f.Kind.Protocol })
		if use < 0 {
			d.uses = append(d.uses, foundBy{f})
			continue
		}
		d.uses[use] = append(d.uses[use], f)
	}
	for _, d := range all {
		slices.SortStableFunc(d.uses, func(a, b foundBy) int { return cmp.Compare(a[0].Kind.Protocol, b[0].Kind.Protocol) }) // imap, pop3, submission
	}
	slices.SortStableFunc(all, func(a, b *letterDevice) int {
		return cmp.Or(later(a.refuses(), b.refuses()), cmp.Compare(b.last(), a.last()), cmp.Compare(a.class, b.class))
	})
	return all
}

// later orders instants, with none at the end.
func later(a, b time.Time) int {
	switch {
	case a.IsZero() && b.IsZero():
		return 0
	case a.IsZero():
		return 1
	case b.IsZero():
		return -1
	}
	return a.Compare(b)
}

// earliest is when the first of the findings is refused; zero: none is.
func earliest(all foundBy) time.Time {
	first := slices.MinFunc(all, func(a, b *Finding) int { return later(a.Refuses, b.Refuses) })
	return first.Refuses
}

func (d *letterDevice) refuses() time.Time {
	return earliest(slices.Concat(d.uses...))
}

func (d *letterDevice) last() (day Day) {
	for _, u := range d.uses {
		for _, f := range u {
			day = max(day, f.Last)
		}
	}
	return day
}

// newest is the use that was seen last of all findings.
func (d *letterDevice) newest() *Use { return newest(slices.Concat(d.uses...)) }

func newest(all foundBy) *Use {
	last := slices.MaxFunc(all, func(a, b *Finding) int { return cmp.Compare(a.Last, b.Last) })
	return last.Uses[0]
}

// words are the program's.
func (d *letterDevice) words(lang string) letterProgram {
	return letterProgram{Name: ProgramName(d.class, d.newest().Program, lang), Known: d.class != fixes.Unknown && !d.collector, Collector: d.collector}
}

// ProgramName is what people call a program: Thunderbird 153, or where its own name says
// little, what it is as well: "ein Drucker, Scanner oder anderes Gerät (Brother)".
func ProgramName(class fixes.Class, program, lang string) string {
	name := class.Name(lang)
	program = oneLine(program)
	if strings.HasPrefix(program, name) {
		return program
	}
	if _, system, ok := strings.Cut(program, ", "); ok { // Mail, iOS 18
		program = system
	}
	if program == "" || class == fixes.Collector {
		return name
	}
	return name + " (" + program + ")"
}

// words are those of a program's findings by one protocol.
func (all foundBy) words(n *NoticeInput, l *letter) letterUse {
	last := newest(all)
	kind := all[0].Kind
	u := letterUse{Protocol: kind.Protocol, Name: protocolNames[kind.Protocol], Network: last.Network}
	if last.Port != 0 {
		u.Port = strconv.Itoa(last.Port)
	}
	day := slices.MaxFunc(all, func(a, b *Finding) int { return cmp.Compare(a.Last, b.Last) }).Last
	at := day.Start(time.UTC)
	u.Day = weekdays[l.Lang][at.Weekday()] + ", " + longDate(at, l.Lang)
	values := ValuesOf(n.Brand, kind.Protocol)
	var kinds []policy.Finding
	for _, f := range all {
		if slices.Contains(kinds, f.Means()) {
			continue
		}
		kinds = append(kinds, f.Means())
		u.Findings = append(u.Findings, string(f.Means()))
		u.Meaning = append(u.Meaning, meaning(f, l.Lang))
		use := f.Uses[0]
		switch f.Means() {
		case policy.LegacyHostname:
			u.Host = hostName(use.SNI)
			values.OldServer = u.Host
		case policy.FindingUserForm:
			values.User = otherForm(n.Account.Name, use.UserForm)
		}
	}
	switch first := earliest(all); {
	case n.T.IsZero():
	case first.IsZero():
		u.Never = true
	case DayOf(first, n.Zone) != DayOf(n.T, n.Zone):
		u.Date, u.Ended = longDate(first.In(n.Zone), l.Lang), !n.Now.Before(first)
	}
	class := kind.program()
	for _, s := range fixes.Steps(class, kind.Protocol, kinds, l.Lang, values) {
		u.Steps = append(u.Steps, string(s))
	}
	u.Settings = slices.DeleteFunc(fixes.Settings(class, kind.Protocol, l.Lang, values), func(s fixes.Setting) bool { return s.Label == "" || s.Value == "" })
	return u
}

// meaning is what a finding means to a customer. The catalogue's words for a port speak of
// sending, and a policy may end the ports of STARTTLS for fetching as well.
func meaning(f *Finding, lang string) string {
	switch {
	case f.Means() != policy.FindingPort || f.Kind.Protocol == submission:
		return fixes.Explain(f.Means(), lang)
	case lang == "en":
		return "Your mail program uses a port that we are closing. There is another port that is encrypted from the beginning."
	}
	return "Ihr E-Mail-Programm benutzt einen Port, den wir schließen. Es gibt einen anderen, der von Anfang an verschlüsselt ist."
}

var protocolNames = map[string]string{"imap": "IMAP", "pop3": "POP3", submission: "SMTP"}

// ValuesOf are the settings that a brand wants of those who use a protocol.
func ValuesOf(b *config.Brand, protocol string) fixes.Values {
	host := func(p config.Protocol) string {
		if names := b.Hosts[p]; len(names) > 0 {
			return string(names[0])
		}
		return ""
	}
	v := fixes.Values{Protocol: protocol, Outgoing: host(config.Submission), OutgoingPort: int(b.Ports[config.Submission])}
	if protocol != submission {
		v.Server, v.Port = host(config.Protocol(protocol)), int(b.Ports[config.Protocol(protocol)])
	}
	if b.Notices != nil {
		v.Webmail = spelled(string(b.Notices.Webmail))
	}
	return v
}

// otherForm is the form of the user name that is wanted of somebody who uses the other.
func otherForm(account, used string) string {
	if used == "bare" {
		return oneLine(account)
	}
	name, _, _ := strings.Cut(account, "@")
	return oneLine(name)
}

// spelled is a web address as a person types it.
func spelled(address string) string {
	if _, rest, ok := strings.Cut(address, "://"); ok {
		address = rest
	}
	return strings.TrimSuffix(address, "/")
}

// hostName is a host name that a client sent, if it is one: no notice shall lead
// anywhere, and what looks like an address with a path is made a link by mail programs.
func hostName(sent string) string {
	if strings.Trim(strings.ToLower(sent), "abcdefghijklmnopqrstuvwxyz0123456789-._") != "" || len(sent) > 253 {
		return ""
	}
	return sent
}

// oneLine brings a text from outside to one line of printable letters.
func oneLine(text string) string {
	const most = 120
	var out []rune
	for _, c := range strings.ToValidUTF8(text, "?") {
		if len(out) == most {
			break
		}
		if !unicode.IsPrint(c) {
			c = ' '
		}
		out = append(out, c)
	}
	return strings.Join(strings.Fields(string(out)), " ")
}

// longDate writes a day as a person reads it.
func longDate(t time.Time, lang string) string {
	if lang == "en" {
		return t.Format("2 January 2006")
	}
	return fmt.Sprintf("%d. %s %d", t.Day(), months[t.Month()-1], t.Year())
}

var months = [...]string{"Januar", "Februar", "März", "April", "Mai", "Juni", "Juli", "August", "September", "Oktober", "November", "Dezember"}

var weekdays = map[string][]string{
	"de": {"Sonntag", "Montag", "Dienstag", "Mittwoch", "Donnerstag", "Freitag", "Samstag"},
	"en": {"Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"},
}
