package policy

// The policy file: its types, with the tags by which package config decodes it
// and makes its JSON Schema, and how single values are written. What the values say
// together is compile.go's and check.go's to judge.

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// File is a policy file as it stands there.
type File struct {
	Version      int               `yaml:"version" required:"true" min:"1" max:"1" example:"1" doc:"Version of the form of this file."`
	Timezone     string            `yaml:"timezone" required:"true" example:"Europe/Berlin" doc:"Time zone of all dates and clock times in this file, by its name in the IANA database."`
	Sets         map[ID]Words      `yaml:"sets" doc:"Named lists of values, whose names can stand in place of values."`
	Requirements []FileRequirement `yaml:"requirements" required:"true" doc:"What is demanded. The most severe of those violated decides; order means nothing."`
	Exceptions   []FileException   `yaml:"exceptions" doc:"What is milder for some, for a time."`
	Always       []FileStatement   `yaml:"always" doc:"What the check shall prove: sessions that match meet do, or something severer, with every value of all other facts."`
	Never        []FileStatement   `yaml:"never" doc:"What the check shall prove: sessions that match never meet do, or something severer, whatever the other facts."`
	Tests        []FileTest        `yaml:"tests" doc:"Sessions at an instant, and what they must meet."`

	// Zone is that of Timezone. It has no key: the time zones of a machine are
	// files, so whoever reads this file looks it up. nil means UTC.
	Zone *time.Location
}

// FileRequirement is a [Requirement] in the file.
type FileRequirement struct {
	ID      ID          `yaml:"id" required:"true" example:"encrypted" doc:"Name in events and exceptions. Who lies inside a share depends on it."`
	Finding Finding     `yaml:"finding" required:"true" example:"plaintext" doc:"What a violation says of the customer's settings; it selects the words."`
	Scope   FileMatch   `yaml:"scope" doc:"The sessions that it speaks of. Default: all."`
	Require FileMatch   `yaml:"require" required:"true" example:"{ tls: '>=1.2' }" doc:"What must be so. Only what is certainly not so violates it."`
	Stages  []FileStage `yaml:"stages" required:"true" example:"[{ from: 2026-01-01, do: observe }]" doc:"What it does, from which date on, in the order of the dates."`
}

// FileStage is a [Stage] in the file.
type FileStage struct {
	From     Moment        `yaml:"from" required:"true" example:"2026-01-01" doc:"When it begins: a date, for midnight, or an instant like 2026-01-01T10:00:00+01:00."`
	Do       Action        `yaml:"do" required:"true" example:"observe" doc:"What a violation meets."`
	Share    *Share        `yaml:"share" doc:"Part of the accounts that it concerns, like 10%. The others get the last earlier stage without a share. Growing shares are nested."`
	Brownout *FileBrownout `yaml:"brownout" doc:"A trial outage that returns while the stage lasts."`
	Ratchet  *FileRatchet  `yaml:"ratchet" doc:"What accounts meet that have been clean for long: they shall not fall back."`
	Probe    *Share        `yaml:"probe" doc:"Part of the client networks, like 2%, to which a mechanism is not offered, so that programs that choose by themselves show it. Whoever asks for it all the same is served."`
	Lower    bool          `yaml:"lower" doc:"The stage may be milder than the one before it."`
	Guard    *FileGuard    `yaml:"guard" doc:"What keeps the stage back if, when it begins, too many would feel it."`
}

// FileBrownout is a [Brownout] in the file.
type FileBrownout struct {
	Do   Action        `yaml:"do" required:"true" example:"tempfail" doc:"What a violation meets in the meantime."`
	Days []Weekday     `yaml:"days" required:"true" example:"[tue, wed, thu]" doc:"Days on which it begins."`
	At   Clock         `yaml:"at" required:"true" example:"'10:00'" doc:"When it begins."`
	For  time.Duration `yaml:"for" required:"true" example:"30m" min:"1m" max:"6d" doc:"How long it lasts."`
}

// FileRatchet is a [Ratchet] in the file.
type FileRatchet struct {
	Clean time.Duration `yaml:"clean" required:"true" example:"60d" min:"1d" max:"3650d" doc:"How long the ledger has seen an account, within the last 14 days too, with nothing that violates any requirement. What is not known counts against it."`
	Do    Action        `yaml:"do" required:"true" example:"deny" doc:"What a violation meets then."`
}

// FileGuard is a [Guard] in the file. When the stage begins and more than Open of
// the accounts seen still have an open finding of this requirement, the program
// puts a hold with Do.
type FileGuard struct {
	Open Share  `yaml:"open" required:"true" example:"2%" doc:"Most of the accounts seen in 30 days that may have an open or silent finding of this requirement. If there are more when the stage begins, or the ledger has no numbers, the program puts a hold with do."`
	Do   Action `yaml:"do" required:"true" example:"notify" doc:"The most that the hold leaves of this and all other requirements, until somebody lifts it or it ends. It is milder than the stage."`
}

// FileException is an [Exception] in the file.
type FileException struct {
	ID     ID        `yaml:"id" required:"true" example:"ex-017" doc:"Name in events and explanations."`
	For    []ID      `yaml:"for" required:"true" example:"[encrypted]" doc:"Requirements that it lowers."`
	Match  FileMatch `yaml:"match" required:"true" example:"{ account: scanner@example.org }" doc:"The sessions that it is for."`
	Cap    Action    `yaml:"cap" required:"true" example:"notify" doc:"The severest that they meet."`
	Until  Moment    `yaml:"until" required:"true" example:"2026-06-30" doc:"Last day on which it is in force, at most 180 days ahead."`
	Reason string    `yaml:"reason" required:"true" example:"'replacement ordered'" doc:"Why."`
	Owner  string    `yaml:"owner" required:"true" example:"support" doc:"Who sees to its end."`
}

// FileStatement is what a check proves.
type FileStatement struct {
	Match FileMatch `yaml:"match" required:"true" example:"{ tls: '>=1.2', mechanism: PLAIN }" doc:"The sessions that it speaks of."`
	Do    Action    `yaml:"do" required:"true" example:"tempfail" doc:"The action that it speaks of."`
	From  Moment    `yaml:"from" doc:"Since when it holds. Default: ever."`
	Until Moment    `yaml:"until" doc:"Last day on which it holds. Default: for ever."`
}

// FileTest is one session with what it must meet.
type FileTest struct {
	At     Moment            `yaml:"at" required:"true" example:"2026-01-01T10:00:00+01:00" doc:"When."`
	Is     map[FactName]Word `yaml:"is" required:"true" example:"{ tls: none }" doc:"What is known of the session; what is left out is unknown."`
	Expect Action            `yaml:"expect" required:"true" example:"observe" doc:"What it must meet."`
	By     []ID              `yaml:"by" doc:"All requirements that it must violate; not compared if left out."`
}

// FileMatch is a [Matcher] in the file. Its keys are all to hold.
type FileMatch map[FactName]Choice

// Choice is what a fact may be. It is written as one value, as a list of them, or
// as a list after not_in.
type Choice struct {
	In    Words `bare:"true"`
	NotIn Words `yaml:"not_in" doc:"The fact is none of these."`
}

// JSONSchema describes how a choice is written.
func (Choice) JSONSchema() map[string]any {
	words := Words(nil).JSONSchema()
	return map[string]any{"anyOf": []any{words, map[string]any{"type": "object", "properties": map[string]any{"not_in": words},
		"required": []string{"not_in"}, "additionalProperties": false}}}
}

// Words are one or more values.
type Words []Word

// UnmarshalText takes a single value for a list of one.
func (w *Words) UnmarshalText(text []byte) error {
	var one Word
	if err := one.UnmarshalText(text); err != nil {
		return err
	}
	*w = Words{one}
	return nil
}

// JSONSchema describes how values are written.
func (Words) JSONSchema() map[string]any {
	word := Word("").JSONSchema()
	return map[string]any{"anyOf": []any{word, map[string]any{"type": "array", "items": word, "minItems": 1}}}
}

// Word is a value of a fact, or the name of a set of them. Numbers need no
// quotes: what counts is how they are written.
type Word string

// mostWord is as long as the longest host name (RFC 1035 section 3.1) and longer
// than the longest address (RFC 5321 section 4.5.3.1).
const mostWord = 320

// UnmarshalText reads a value.
func (w *Word) UnmarshalText(text []byte) error {
	s := string(text)
	if s == "" || len(s) > mostWord || strings.ContainsFunc(s, unicode.IsControl) {
		return mistake{"this is not a value of a fact", fmt.Sprintf("write one of 1 to %d characters", mostWord)}
	}
	*w = Word(s)
	return nil
}

// JSONSchema describes how a value is written.
func (Word) JSONSchema() map[string]any {
	return map[string]any{"type": []string{"string", "number"}}
}

// ID is the name of a requirement, an exception or a set.
type ID string

// UnmarshalText reads a name.
func (id *ID) UnmarshalText(text []byte) error {
	const most = 63
	if len(text) == 0 || len(text) > most || strings.Trim(string(text), "abcdefghijklmnopqrstuvwxyz0123456789.-_") != "" {
		return mistake{quote(string(text)) + " is not a name", fmt.Sprintf("write 1 to %d of small letters, digits, dots, dashes and underscores", most)}
	}
	*id = ID(text)
	return nil
}

// JSONSchema describes how a name is written.
func (ID) JSONSchema() map[string]any {
	return map[string]any{"type": "string", "pattern": "^[a-z0-9._-]{1,63}$"}
}

// FactName is a fact's name in a file. Besides those of [Fact] there are ip and
// network for the client's address.
type FactName string

// Names of facts that [Facts] keeps apart.
const (
	factIP      FactName = "ip"
	factNetwork FactName = "network"
)

// UnmarshalText reads a fact's name.
func (n *FactName) UnmarshalText(text []byte) error {
	if !slices.Contains(n.Values(), string(text)) {
		return mistake{quote(string(text)) + " is not a fact", Suggest(string(text), n.Values())}
	}
	*n = FactName(text)
	return nil
}

// Values lists the facts.
func (FactName) Values() []string {
	return append(slices.Clone(factNames[:]), string(factIP), string(factNetwork))
}

// Moment is a date or an instant.
type Moment struct {
	text    string
	date    bool // a date without a time
	instant time.Time
}

// UnmarshalText reads a date or an instant (RFC 3339).
func (m *Moment) UnmarshalText(text []byte) error {
	s := string(text)
	cure := "write a date like 2026-01-31, or an instant like 2026-01-31T10:00:00+01:00"
	date, rest, _ := strings.Cut(s, "T")
	var y, month, d int
	if n, err := fmt.Sscanf(date, "%4d-%2d-%2d", &y, &month, &d); n != 3 || err != nil || len(date) != len(time.DateOnly) {
		return mistake{quote(s) + " is not a date", cure}
	}
	if _, err := time.Parse(time.DateOnly, date); err != nil {
		if month < 1 || month > 12 || d < 1 {
			return mistake{quote(s) + " is not a date", cure}
		}
		last := time.Date(y, time.Month(month)+1, 0, 0, 0, 0, 0, time.UTC)
		return mistake{"the day " + date + " does not exist", last.Format("January 2006") + " ends on " + last.Format(time.DateOnly)}
	}
	if y < 1990 || y > 2199 {
		return mistake{date + " is far from now", "is it the right year?"}
	}
	t, err := time.Parse(time.DateOnly, s)
	if m.date = rest == "" && err == nil; !m.date {
		if t, err = time.Parse(time.RFC3339, s); err != nil {
			return mistake{quote(s) + " is not an instant", cure}
		}
	}
	m.text, m.instant = s, t
	return nil
}

// JSONSchema describes how a moment is written.
func (Moment) JSONSchema() map[string]any {
	return map[string]any{"type": "string", "pattern": `^[0-9]{4}-[0-9]{2}-[0-9]{2}(T[0-9:.]+(Z|[+-][0-9:]+))?$`}
}

// String returns the moment as it is written.
func (m Moment) String() string { return m.text }

// begins is the instant of a moment, or of the midnight at which its day begins.
func (m Moment) begins(zone *time.Location) time.Time { return m.in(zone, 0) }

// ends is the instant of a moment, or of the midnight at which its day ends.
func (m Moment) ends(zone *time.Location) time.Time { return m.in(zone, 1) }

func (m Moment) in(zone *time.Location, days int) time.Time {
	if m.text == "" {
		return time.Time{}
	}
	if !m.date {
		return m.instant.In(zone)
	}
	y, month, d := m.instant.Date()
	return wall(y, month, d+days, 0, zone)
}

// Weekday is a day of the week.
type Weekday string

// Values lists the days.
func (Weekday) Values() []string { return []string{"mon", "tue", "wed", "thu", "fri", "sat", "sun"} }

// Day is the weekday as package time has it.
func (w Weekday) Day() time.Weekday {
	return time.Weekday((slices.Index(w.Values(), string(w)) + 1) % 7)
}

// Clock is a time of day, from midnight.
type Clock time.Duration

// UnmarshalText reads hours and minutes.
func (c *Clock) UnmarshalText(text []byte) error {
	t, err := time.Parse("15:04", string(text))
	if err != nil || len(text) != len("15:04") {
		return mistake{quote(string(text)) + " is not a time of day", `write hours and minutes, like "09:30" or "23:00"`}
	}
	*c = Clock(time.Duration(t.Hour())*time.Hour + time.Duration(t.Minute())*time.Minute)
	return nil
}

// JSONSchema describes how a time of day is written.
func (Clock) JSONSchema() map[string]any {
	return map[string]any{"type": "string", "pattern": "^([01][0-9]|2[0-3]):[0-5][0-9]$"}
}

// UnmarshalText reads a share in percent.
func (s *Share) UnmarshalText(text []byte) error {
	number, ok := strings.CutSuffix(string(text), "%")
	whole, fraction, point := strings.Cut(number, ".")
	n, err := strconv.ParseUint(whole+(fraction + "000")[:3], 10, 31)
	if !ok || err != nil || whole == "" || point && fraction == "" || len(fraction) > 3 || Share(n) > Everybody {
		return mistake{quote(string(text)) + " is not a share", "write a percentage like 10% or 0.5%, of at most three decimals"}
	}
	*s = Share(n)
	return nil
}

// JSONSchema describes how a share is written.
func (Share) JSONSchema() map[string]any {
	return map[string]any{"type": "string", "pattern": `^[0-9]{1,3}(\.[0-9]{1,3})?%$`}
}

// UnmarshalText reads an action's name.
func (a *Action) UnmarshalText(text []byte) error {
	i := slices.Index(actionNames[:], string(text))
	if i < 0 {
		return mistake{quote(string(text)) + " is not an action", Suggest(string(text), actionNames[:])}
	}
	*a = Action(i)
	return nil
}

// MarshalText returns the action's name.
func (a Action) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// JSONSchema lists the actions.
func (Action) JSONSchema() map[string]any {
	return map[string]any{"type": "string", "enum": actionNames[:]}
}

// Values lists the findings.
func (Finding) Values() []string {
	return []string{string(Plaintext), string(TLSOld), string(Mechanism), string(LegacyHostname), string(FindingUserForm), string(FindingPort)}
}

// Learn makes a fact known by its name, as files and command lines have it.
func (f *Facts) Learn(name, value string) error {
	var known FactName
	if err := known.UnmarshalText([]byte(name)); err != nil {
		return err
	}
	switch known {
	case factNetwork:
		return mistake{"a session has no network but an address", "give ip, with an address in " + value}
	case factIP:
		ip, err := netip.ParseAddr(value)
		if err != nil {
			return mistake{quote(value) + " is not an IP address", "write one like 198.51.100.7 or 2001:db8::7"}
		}
		f.IP = ip.Unmap().WithZone("")
		return nil
	}
	fact := Fact(slices.Index(factNames[:], name))
	value, err := valueOf(fact, value)
	if err == nil {
		f.Set(fact, value)
	}
	return err
}

// valueOf brings a value into the form that the fact has in a session.
func valueOf(fact Fact, value string) (string, error) {
	if value == "" {
		return "", mistake{"there is no value", "leave the fact out where it is unknown"}
	}
	if all := domains[fact]; all != nil {
		if !slices.Contains(all, value) {
			return "", mistake{quote(value) + " is not a value of " + fact.String(), Suggest(value, all)}
		}
		return value, nil
	}
	switch fact {
	case Port:
		if n, err := strconv.ParseUint(value, 10, 16); err != nil || n == 0 || value[0] == '0' {
			return "", mistake{quote(value) + " is not a port", "write a number from 1 to 65535"}
		}
	case Account:
		return strings.ToLower(value), nil // as sessions have it: the case of letters makes no other account
	case SNI, Domain:
		return strings.TrimSuffix(strings.ToLower(value), "."), nil
	}
	return value, nil
}

// mistake is an error that knows what to do about it.
type mistake struct{ message, cure string }

func (m mistake) Error() string { return m.message }

// Cure says what to do.
func (m mistake) Cure() string { return m.cure }

// quote quotes what the file says, shortened.
func quote(s string) string {
	const most = 60
	if r := []rune(s); len(r) > most {
		s = string(r[:most]) + "..."
	}
	return strconv.Quote(s)
}
