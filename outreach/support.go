package outreach

// What somebody at the telephone has to know of an account: which device it is, what is
// wrong with it, what to say, and what to do in that program. There is no address and no time of
// day in it.

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"mailreeve/config"
	"mailreeve/fixes"
	"mailreeve/policy"
)

// Support is that of an account, in a language.
type Support struct {
	Account string `json:"account"`
	Case    string `json:"case"`
	Lang    string `json:"lang"`
	Today   Day    `json:"today"`
	First   Day    `json:"first,omitzero"` // seen
	Last    Day    `json:"last,omitzero"`

	Say     []string        `json:"say"`     // to the customer, three sentences
	Devices []SupportDevice `json:"devices"` // what is wrong first

	Told    *SupportTold    `json:"told,omitempty"` // by the proxy
	Notices []SupportNotice `json:"notices"`
	Next    string          `json:"next"` // about the next notice, in English: operators read it
	Bounced Day             `json:"bounced,omitzero"`
	Call    Day             `json:"call,omitzero"`
}

// SupportDevice is a kind of program that the account uses by one protocol.
type SupportDevice struct {
	Kind
	Name     string           `json:"name"`
	Seen     []string         `json:"seen"`   // how it logged in, a line for each way, the last first
	State    string           `json:"state"`  // the worst of its findings, or ok
	Wrong    []SupportFinding `json:"wrong"`  // by requirement
	Change   string           `json:"change"` // from when on it is refused, in words; empty where nothing is wrong
	Steps    []string         `json:"steps"`  // to be done in that program
	Settings []fixes.Setting  `json:"settings"`

	last Day
}

// SupportFinding is a finding in words.
type SupportFinding struct {
	Rule      string            `json:"rule"`
	Finding   policy.Finding    `json:"finding"`
	State     State             `json:"state"`
	Meaning   string            `json:"meaning"`
	First     Day               `json:"first"`
	Last      Day               `json:"last"`
	Days      int               `json:"days"`
	Do        policy.Action     `json:"do"`
	Refuses   time.Time         `json:"refuses,omitzero"`
	Fixed     Day               `json:"fixed,omitzero"` // the last login as it should be
	Exception *SupportException `json:"exception,omitempty"`
}

// SupportException is why a finding is let be for a time.
type SupportException struct {
	ID     string `json:"id"`
	Until  Day    `json:"until"` // the last day
	Reason string `json:"reason"`
	Owner  string `json:"owner"`
}

// SupportTold is what the proxy last said to the account.
type SupportTold struct {
	Day    Day           `json:"day"`
	Action policy.Action `json:"action"`
	Rule   string        `json:"rule"`
}

// SupportNotice is a notice that was sent, or was to be.
type SupportNotice struct {
	Step  string      `json:"step"`
	Day   Day         `json:"day"`
	State NoticeState `json:"state"`
	Said  string      `json:"said,omitempty"`
}

// mostWays bounds the lines about a device: a laptop on the road has few, what tries
// everything has dozens.
const mostWays = 6

// NewSupport says what is to be known of an account now. The schedule may be nil where no
// notices are sent.
func NewSupport(p *policy.Policy, s *Schedule, a *Account, notices []Notice, number string, b *config.Brand, lang string, zone *time.Location, now time.Time) *Support {
	if lang = cmp.Or(lang, string(b.Language)); lang != "en" {
		lang = "de"
	}
	v := &Support{Account: a.Name, Case: number, Lang: lang, Today: DayOf(now, zone), Last: a.Last(), Bounced: a.Bounced, Call: a.Call,
		Devices: []SupportDevice{}, Notices: []SupportNotice{}}
	for i := range a.Uses {
		if first := a.Uses[i].First(); v.First == 0 || first < v.First {
			v.First = first
		}
	}
	if a.Told.Day != 0 {
		v.Told = &SupportTold{a.Told.Day, a.Told.Action, a.Told.Rule}
	}
	var past []Past
	for _, n := range notices {
		past = append(past, n.Past)
		v.Notices = append(v.Notices, SupportNotice{StepName(n.Step), n.Day, n.State, n.Said})
	}
	findings := Findings(p, a, now, zone)
	v.Next = "no notices are sent"
	if s != nil {
		var i Item
		i, findings = s.Look(p, a, past, now)
		v.Next = i.Sentence
	}
	v.devices(a, findings, b, zone, now)
	v.say(findings, b, zone, now)
	return v
}

// devices gathers what the account uses, the worst first.
func (v *Support) devices(a *Account, findings []Finding, b *config.Brand, zone *time.Location, now time.Time) {
	uses := map[Kind][]*Use{}
	for i := range a.Uses {
		u := &a.Uses[i]
		uses[u.kind()] = append(uses[u.kind()], u)
	}
	for kind, of := range uses {
		slices.SortStableFunc(of, func(a, b *Use) int { return cmp.Or(cmp.Compare(b.Last(), a.Last()), a.Shape.compare(&b.Shape)) })
		d := SupportDevice{Kind: kind, Name: ProgramName(kind.program(), of[0].Program, v.Lang), State: "ok", last: of[0].Last(),
			Wrong: []SupportFinding{}, Steps: []string{}, Settings: []fixes.Setting{}}
		for i, u := range of {
			if i == mostWays {
				d.Seen = append(d.Seen, map[string]string{"de": "und %d weitere Arten", "en": "and %d more ways"}[v.Lang])
				d.Seen[i] = fmt.Sprintf(d.Seen[i], len(of)-mostWays)
				break
			}
			d.Seen = append(d.Seen, u.words(v.Lang))
		}
		var wrong, risk foundBy // what is to be mended, and what no exception lets be
		for i := range findings {
			f := &findings[i]
			if f.Kind != kind {
				continue
			}
			d.Wrong = append(d.Wrong, f.support(v.Lang, zone))
			if stateOrder[f.State] > stateOrder[State(d.State)] {
				d.State = string(f.State)
			}
			if f.State != Fixed {
				wrong = append(wrong, f)
			}
			if f.State.affected() {
				risk = append(risk, f)
			}
		}
		if len(wrong) > 0 {
			d.Change = supportWords[v.Lang]["spared"]
			if len(risk) > 0 {
				d.Change = changeWords(earliest(risk), now, zone, v.Lang)
			}
			n := &NoticeInput{Account: a, Brand: b, Zone: zone, Now: now}
			u := wrong.words(n, &letter{Lang: v.Lang})
			d.Steps, d.Settings = u.Steps, u.Settings
		}
		v.Devices = append(v.Devices, d)
	}
	slices.SortFunc(v.Devices, func(a, b SupportDevice) int {
		return cmp.Or(cmp.Compare(stateOrder[State(b.State)], stateOrder[State(a.State)]), cmp.Compare(b.last, a.last), a.Kind.compare(b.Kind))
	})
}

// stateOrder is how much a state asks for attention; what is well has no entry.
var stateOrder = map[State]int{Fixed: 1, Exempt: 2, Silent: 3, Open: 4}

func (f *Finding) support(lang string, zone *time.Location) SupportFinding {
	s := SupportFinding{Rule: f.Rule.ID, Finding: f.Means(), State: f.State, Meaning: meaning(f, lang),
		First: f.First, Last: f.Last, Days: f.Days, Do: f.Do, Refuses: f.Refuses, Fixed: f.Since}
	if e := f.Exception; e != nil {
		s.Exception = &SupportException{e.ID, lastDay(e, zone), e.Reason, e.Owner}
	}
	return s
}

// words are how a use logs in: "IMAP 143, unencrypted, CRAM-MD5, Mail on the iPhone, mobile network, last
// 2026-11-21, first 2026-05-03, 38 days".
func (u *Use) words(lang string) string {
	w := supportWords[lang]
	parts := []string{protocolNames[u.Protocol]}
	if u.Port != 0 {
		parts[0] += " " + strconv.Itoa(u.Port)
	}
	switch {
	case u.TLS == policy.None:
		parts = append(parts, w["clear"])
	case u.TLS != "":
		parts = append(parts, "TLS "+u.TLS)
	}
	switch u.Host {
	case policy.Legacy:
		parts = append(parts, fmt.Sprintf(w["old name"], hostName(u.SNI)))
	case policy.OtherService, policy.Unknown:
		parts = append(parts, fmt.Sprintf(w["other name"], hostName(u.SNI)))
	}
	if u.Mechanism != "" {
		parts = append(parts, u.Mechanism)
	}
	if u.UserForm != "" {
		parts = append(parts, w[u.UserForm])
	}
	parts = append(parts, ProgramName(u.kind().program(), u.Program, lang))
	if u.Network != "" && u.Network != "other" {
		parts = append(parts, fmt.Sprintf(w["network"], cmp.Or(w["network "+u.Network], u.Network)))
	}
	days := fmt.Sprintf(w["days"], len(u.Days))
	if len(u.Days) == 1 {
		days = w["a day"]
	}
	parts = append(parts, w["last"]+" "+u.Last().String(), w["first"]+" "+u.First().String(), days)
	return strings.Join(slices.DeleteFunc(parts, func(p string) bool { return p == "" }), ", ")
}

var supportWords = map[string]map[string]string{
	"de": {
		"clear": "unverschlüsselt", "old name": "alter Servername %s", "other name": "falscher Servername %s", "bare": "Name ohne @", "address": "ganze Adresse",
		"network": "Netz: %s", "network mobile": "Mobilfunk", "network office": "Firma", "network hosting": "Rechenzentrum",
		"last": "zuletzt", "first": "zuerst", "days": "an %d Tagen", "a day": "an einem Tag",
		"spared": "Solange die Ausnahme gilt, wird das nicht abgewiesen.",
	},
	"en": {
		"clear": "unencrypted", "old name": "old server name %s", "other name": "wrong server name %s", "bare": "name without @", "address": "whole address",
		"network": "%s network", "last": "last", "first": "first", "days": "%d days", "a day": "one day",
		"spared": "It is not refused while the exception lasts.",
	},
}

// changeWords say from when on something is refused.
func changeWords(t, now time.Time, zone *time.Location, lang string) string {
	if lang == "en" {
		switch {
		case t.IsZero():
			return "It is not refused on any day that is planned."
		case now.Before(t):
			return "It is refused from " + longDate(t.In(zone), lang) + " on."
		}
		return "It has been refused since " + longDate(t.In(zone), lang) + "."
	}
	switch {
	case t.IsZero():
		return "Ein Tag, ab dem das abgewiesen wird, ist nicht geplant."
	case now.Before(t):
		return "Ab dem " + longDate(t.In(zone), lang) + " wird das abgewiesen."
	}
	return "Seit dem " + longDate(t.In(zone), lang) + " wird das abgewiesen."
}

// say makes three sentences for the telephone: what it is, by when, and what helps.
func (v *Support) say(findings []Finding, b *config.Brand, zone *time.Location, now time.Time) {
	var risk foundBy
	var names []string
	exempt, fixed := false, false
	for i := range findings {
		f := &findings[i]
		exempt, fixed = exempt || f.State == Exempt, fixed || f.State == Fixed
		if f.State.affected() {
			risk = append(risk, f)
		}
	}
	for _, d := range v.Devices {
		if stateOrder[State(d.State)] >= stateOrder[Silent] && !slices.Contains(names, d.Name) {
			names = append(names, d.Name)
		}
	}
	webmail := ""
	if b.Notices != nil {
		webmail = spelled(string(b.Notices.Webmail))
	}
	if v.Lang == "en" {
		switch {
		case len(risk) > 0:
			v.Say = []string{"Your password is right and your mail is safe; some settings are out of date, in: " + strings.Join(names, "; ") + ".",
				changeWords(earliest(risk), now, zone, "en"), "I will go through the settings with you now; afterwards I can see here whether it worked."}
			if webmail != "" {
				v.Say[2] = "I will go through the settings with you now; until it is done you can read your mail in a browser at " + webmail + "."
			}
		case exempt:
			v.Say = []string{"We know that one of your programs is set up in an old way.", "For that you have an exception for a time, so it goes on working.", "Please plan to change it before the exception ends."}
		case fixed:
			v.Say = []string{"You have changed what was out of date, and it has worked since.", "There is nothing left to do.", "If a program has trouble all the same, we can try it now, and I can see here what happens."}
		default:
			v.Say = []string{"We see nothing that is out of date in your programs.", "There is nothing to do.", "If a program has trouble all the same, we can try it now, and I can see here what happens."}
		}
		return
	}
	switch {
	case len(risk) > 0:
		v.Say = []string{"Ihr Passwort stimmt und Ihre E-Mails sind sicher; nur einige Einstellungen sind veraltet, und zwar hier: " + strings.Join(names, "; ") + ".",
			changeWords(earliest(risk), now, zone, "de"), "Ich gehe die Einstellungen jetzt mit Ihnen durch; danach sehe ich hier, ob es geklappt hat."}
		if webmail != "" {
			v.Say[2] = "Ich gehe die Einstellungen jetzt mit Ihnen durch; bis dahin lesen Sie Ihre E-Mails im Browser unter " + webmail + "."
		}
	case exempt:
		v.Say = []string{"Wir wissen, dass eines Ihrer Programme noch auf alte Art eingestellt ist.", "Dafür haben Sie eine Ausnahme auf Zeit, es funktioniert also weiter.", "Bitte stellen Sie es um, bevor die Ausnahme endet."}
	case fixed:
		v.Say = []string{"Sie haben umgestellt, was veraltet war, und seitdem funktioniert es.", "Es ist nichts mehr zu tun.", "Falls ein Programm trotzdem Schwierigkeiten hat, probieren wir es jetzt aus, und ich sehe hier, was geschieht."}
	default:
		v.Say = []string{"Wir sehen nichts, was in Ihren Programmen veraltet wäre.", "Es ist nichts zu tun.", "Falls ein Programm trotzdem Schwierigkeiten hat, probieren wir es jetzt aus, und ich sehe hier, was geschieht."}
	}
}

// CutOff reports whether, as far as is known, no program fetches the account's mail any more:
// each that does is refused now, in every way that is not long out of use. Who has only such
// does not read a mail about it either.
func CutOff(a *Account, findings []Finding, now time.Time) bool {
	fetches := false
	for i := range a.Uses {
		u := &a.Uses[i]
		if u.Protocol == submission {
			continue
		}
		fetches = true
		if !slices.ContainsFunc(findings, func(f Finding) bool {
			return f.Kind == u.kind() && f.State.affected() && !f.Refuses.IsZero() && !now.Before(f.Refuses) &&
				(slices.Contains(f.Uses, u) || f.Last-u.Last() >= FixedAfter)
		}) {
			return false
		}
	}
	return fetches
}
