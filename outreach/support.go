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
	Next    string          `json:"next"` // about the next notice
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
	Fixed     Day               `json:"fixed,omitzero"`   // the last login as it should be
	Changed   Day               `json:"changed,omitzero"` // of what is watched: the first one after it was wrong
	Until     Day               `json:"until,omitzero"`   // and until when it is watched
	Exception *SupportException `json:"exception,omitempty"`
}

// Watched is the state, on the telephone, of what has been right since it was last wrong, and not
// for long enough to count as fixed.
const Watched State = "watched"

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
		said := n.Said
		if n.State == StateBounced {
			said = cmp.Or(n.Note, said) // why it came back, and not that a server took it
		}
		v.Notices = append(v.Notices, SupportNotice{StepName(n.Step), n.Day, n.State, said})
	}
	findings := Findings(p, a, now, zone)
	v.Next = map[string]string{"de": "es werden keine Benachrichtigungen gesendet", "en": "no notices are sent"}[v.Lang]
	if s != nil {
		var i Item
		i, findings = s.Look(p, a, past, now)
		if v.Next = i.Sentence; v.Lang == "de" {
			v.Next = i.german()
		}
	}
	v.devices(a, findings, b, zone, now)
	v.say(findings, b, zone, now)
	return v
}

// nextWords are the plan's reasons in German, for the telephone; the step and a day complete them.
var nextWords = map[Reason]string{
	ReasonDue: "%s ist fällig", ReasonBudget: "%s ist fällig, heute kommen andere zuerst", ReasonSpread: "%s kommt an dem Wochentag, der für das Konto gilt",
	ReasonEarly: "%s kommt als erste", ReasonGap: "%s ist fällig, doch die letzte ist erst einige Tage her", ReasonTold: "%s ist gesendet",
	ReasonClaimed: "%s ist in Arbeit oder vom Server aufgeschoben", ReasonDoubt: "ob %s gesendet wurde, weiß niemand", ReasonFailed: "%s hat der Server abgelehnt",
	ReasonMost: "keine, es hat so viele bekommen, wie es höchstens gibt", ReasonBounced: "keine, denn eine Benachrichtigung kam zurück",
	ReasonCall: "keine, das Konto wird stattdessen angerufen", ReasonNoAddress: "keine, der Name des Kontos ist keine E-Mail-Adresse",
	ReasonQuiet: "keine, was falsch ist, wird bisher nur beobachtet", ReasonExempt: "keine, für alles gilt eine Ausnahme",
	"closed": "%s ist fällig, sobald wieder gearbeitet wird", "lapsed": "%s ist verfallen", "ended": "keine mehr, denn vorher endet die Kampagne",
	ReasonWatched: "keine, seit der Umstellung ist alles richtig", ReasonFixed: "keine, alles ist umgestellt", ReasonNothing: "keine, es ist nichts veraltet",
}

// nextDays say what the day of a reason is, where that is not simply when the notice comes.
var nextDays = map[Reason]string{ReasonQuiet: "bis", ReasonWatched: "beobachtet bis", ReasonTold: "die nächste am", "lapsed": "die nächste am", ReasonDoubt: "die nächste am", ReasonFailed: "die nächste am", ReasonDue: "seit", ReasonGap: "sie kommt ab"}

// german is the item's sentence.
func (i *Item) german() string {
	said, ok := nextWords[i.Reason]
	if !ok {
		return "zurzeit keine (" + string(i.Reason) + ")"
	}
	if strings.Contains(said, "%s") {
		said = fmt.Sprintf(said, StepName(i.Step))
	}
	if i.On != 0 {
		said += ", " + cmp.Or(nextDays[i.Reason], "am") + " " + i.On.String()
	}
	return said
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
			told := f.support(v.Lang, zone)
			if f.watched() {
				told.State, told.Changed, told.Until = Watched, f.right(a), f.Last+FixedAfter
			}
			d.Wrong = append(d.Wrong, told)
			if stateOrder[told.State] > stateOrder[State(d.State)] {
				d.State = string(told.State)
			}
			if told.State == Watched {
				continue
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
var stateOrder = map[State]int{Fixed: 1, Watched: 2, Exempt: 3, Silent: 4, Open: 5}

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
		exempt, fixed = exempt || f.State == Exempt, fixed || f.State == Fixed || f.watched()
		if f.State.affected() && !f.watched() {
			risk = append(risk, f)
		}
	}
	for _, d := range v.Devices {
		if stateOrder[State(d.State)] >= stateOrder[Silent] && !slices.Contains(names, d.Name) {
			names = append(names, d.aloud(v.Lang))
		}
	}
	webmail := ""
	if b.Notices != nil {
		webmail = spelled(string(b.Notices.Webmail))
	}
	if v.Lang == "en" {
		switch {
		case len(risk) > 0:
			v.Say = []string{"The password is not the reason, and no mail is lost; some settings are out of date, in: " + strings.Join(names, "; ") + ".",
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
		v.Say = []string{"Am Passwort liegt es nicht, und es geht keine E-Mail verloren; nur einige Einstellungen sind veraltet, und zwar hier: " + strings.Join(names, "; ") + ".",
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

// aloud is the device's name as it is said to somebody.
func (d *SupportDevice) aloud(lang string) string {
	if d.Class == fixes.Unknown && !d.Collector {
		return map[string]string{"de": "ein Programm, das wir nicht erkennen", "en": "a program that we cannot tell"}[lang]
	}
	return d.Name
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
