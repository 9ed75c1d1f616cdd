package outreach

// Who breaks, if it were enforced.

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"mailreeve/fixes"
	"mailreeve/policy"
)

// Question is what an impact is asked for.
type Question struct {
	As   policy.Action // what every requirement does, if it refuses; Pass: what is planned for the time At
	At   time.Time     // when: exceptions that are in force then count; the zero time is now
	Only []string      // requirements; none: all
	Days int           // of the ledger that are looked at, today among them
}

// Loss is what becomes of an account.
type Loss string

// The losses. They exclude each other.
const (
	LosesAll  Loss = "all"    // every kind of program with which it was seen is refused, in every shape in which it logged in
	LosesSome Loss = "some"   // some kinds are, or some shapes of them
	LosesAway Loss = "silent" // something is refused, and it was not seen for [FixedAfter] days with any program
	Excepted  Loss = "exempt" // nothing is refused, but only by an exception
	Unharmed  Loss = "none"
)

// Losses are accounts by what becomes of them.
type Losses struct {
	All    int `json:"all_devices"`
	Some   int `json:"some_devices"`
	Silent int `json:"silent"`
	Exempt int `json:"exempt"`
}

// Broken are those that lose something.
func (l Losses) Broken() int { return l.All + l.Some + l.Silent }

func (l *Losses) of(loss Loss) *int {
	switch loss {
	case LosesAll:
		return &l.All
	case LosesSome:
		return &l.Some
	case LosesAway:
		return &l.Silent
	}
	return &l.Exempt
}

// Impact is the answer.
type Impact struct {
	Format       string         `json:"format"`
	Now          time.Time      `json:"now"`
	At           time.Time      `json:"at"`
	As           *policy.Action `json:"as,omitempty"`
	Only         []string       `json:"only,omitempty"`
	Policy       string         `json:"policy"`
	Window       Window         `json:"window"`
	Seen         int            `json:"accounts_seen"`      // in the window
	Mailboxes    int            `json:"mailboxes,omitzero"` // as the provider says
	Losses                      // accounts
	Unharmed     int            `json:"unharmed"`
	Requirements []ImpactRow    `json:"requirements"` // those that refuse; an account may be under several
	Brands       []ImpactRow    `json:"brands"`
	Protocols    []ImpactRow    `json:"protocols"`
	Programs     []ImpactRow    `json:"programs"`
	Domains      []DomainRow    `json:"domains"` // those with most accounts that break
}

// ImpactRow is the accounts that lose a program of some value.
type ImpactRow struct {
	Name string `json:"name"`
	Losses
}

// DomainRow is a customer's own domain.
type DomainRow struct {
	Domain string `json:"domain"`
	Seen   int    `json:"accounts_seen"`
	Broken int    `json:"broken"`
}

// mostDomains are listed.
const mostDomains = 20

// AccountImpact is what becomes of an account.
type AccountImpact struct {
	Account      string       `json:"account"`
	Loss         Loss         `json:"loses"`
	Devices      int          `json:"devices"`             // kinds of programs seen in the window
	Broken       []KindImpact `json:"broken"`              // those that are refused, at least in part
	Requirements []string     `json:"requirements"`        // that refuse them, or would without the exception
	Last         Day          `json:"last_seen"`           // with any program
	Exception    string       `json:"exception,omitempty"` // that keeps something from being refused
}

// KindImpact is a kind of program that is refused.
type KindImpact struct {
	Kind
	All bool `json:"all"` // in each of its logins in the window
}

// MakeImpact answers the question from the accounts of a ledger. Own are the provider's own
// domains, which belong to no customer. Each, if there is one, is called for every account
// that loses something or is exempt.
//
// A kind of program is refused for a requirement whose finding, by the window alone, is open
// or silent: what is fixed breaks no more.
func MakeImpact(accounts iter.Seq2[*Account, error], p *policy.Policy, q Question, now time.Time, zone *time.Location, own []string, each func(*AccountImpact) error) (*Impact, error) {
	m := &impacting{
		Impact: Impact{Format: ImpactFormat, Now: now, At: q.At, Only: q.Only, Policy: p.String()},
		q:      q, p: p, now: now, zone: zone,
		requirements: impactRows{}, brands: impactRows{}, protocols: impactRows{}, programs: impactRows{}, domains: map[string]*DomainRow{}, own: own,
	}
	if m.At.IsZero() {
		m.At = now
	}
	if q.As != policy.Pass {
		if !q.As.Refuses() {
			return nil, fmt.Errorf("%v refuses nobody", q.As)
		}
		m.As = &q.As
	}
	if q.Days < 1 {
		return nil, errors.New("the window has no days")
	}
	for _, id := range q.Only {
		if !slices.ContainsFunc(p.Requirements(), func(r *policy.Requirement) bool { return r.ID == id }) {
			return nil, fmt.Errorf("there is no requirement %q", id)
		}
	}
	m.today = DayOf(now, zone)
	m.Window = windowOf(m.today-Day(q.Days)+1, m.today)
	for a, err := range accounts {
		if err != nil {
			return nil, err
		}
		if i := m.count(a); i != nil && each != nil {
			if err := each(i); err != nil {
				return nil, err
			}
		}
	}
	m.Requirements, m.Brands, m.Protocols, m.Programs = m.requirements.list(), m.brands.list(), m.protocols.list(), m.programs.list()
	m.Domains = m.listDomains()
	return &m.Impact, nil
}

// impacting is an impact while it is made.
type impacting struct {
	Impact
	q                                         Question
	p                                         *policy.Policy
	now                                       time.Time
	zone                                      *time.Location
	today                                     Day
	requirements, brands, protocols, programs impactRows
	domains                                   map[string]*DomainRow
	own                                       []string
}

// within is what was seen of an account in the window.
func (m *impacting) within(a *Account) *Account {
	w := &Account{Name: a.Name, Uses: make([]Use, 0, len(a.Uses))}
	for _, u := range a.Uses {
		at := func(day Day) int {
			i, _ := slices.BinarySearchFunc(u.Days, day, func(d DayCount, day Day) int { return cmp.Compare(d.Day, day) })
			return i
		}
		if u.Days = u.Days[at(m.Window.First):at(m.today+1)]; len(u.Days) > 0 {
			w.Uses = append(w.Uses, u)
		}
	}
	return w
}

// fate is which requirements refuse a login then, and which would but for an exception.
func (m *impacting) fate(f *policy.Facts) map[*policy.Requirement]*policy.Exception {
	var by map[*policy.Requirement]*policy.Exception
	for _, v := range m.p.Violations(f, m.At) {
		planned := v.Planned
		if m.q.As != policy.Pass {
			planned = m.q.As
		}
		if !planned.Refuses() || len(m.q.Only) > 0 && !slices.Contains(m.q.Only, v.Rule.ID) {
			continue
		}
		if by == nil {
			by = map[*policy.Requirement]*policy.Exception{}
		}
		by[v.Rule] = nil
		if v.Exception != nil && !v.Exception.Cap.Refuses() {
			by[v.Rule] = v.Exception
		}
	}
	return by
}

// count takes an account in. It returns nothing for one that is unharmed.
func (m *impacting) count(whole *Account) *AccountImpact {
	a := m.within(whole)
	if len(a.Uses) == 0 {
		return nil
	}
	m.Seen++
	domain := m.domain(a.Name)
	x := examine(m.p, a, m.now, m.zone)
	if len(x.trails) == 0 {
		m.Unharmed++
		return nil
	}
	i := &AccountImpact{Account: a.Name, Last: a.Last(), Broken: []KindImpact{}, Requirements: []string{}}
	fates := map[*Use]map[*policy.Requirement]*policy.Exception{} // what refuses a use, or would but for the exception
	left := map[Kind]bool{}                                       // something of it is not refused
	for j := range a.Uses {
		u := &a.Uses[j]
		fates[u] = m.fate(x.facts[j])
		passes := true
		for _, exception := range fates[u] {
			passes = passes && exception != nil
		}
		left[u.kind()] = left[u.kind()] || passes
	}
	refusing, excepted := map[string]bool{}, map[string]bool{}
	broken := map[Kind]bool{}
	for j := range x.trails {
		t := &x.trails[j]
		t.Exception = nil // those of today are not asked for: open is open
		if !t.on(m.today).affected() {
			continue
		}
		for _, u := range t.Uses {
			switch exception, breaks := fates[u][t.Rule]; {
			case breaks && exception == nil:
				refusing[t.Rule.ID], broken[t.Kind] = true, true
			case breaks:
				excepted[t.Rule.ID] = true
				i.Exception = exception.ID
			}
		}
	}
	i.Devices = len(left)
	all := true
	for _, k := range slices.SortedFunc(maps.Keys(left), Kind.compare) {
		if broken[k] {
			i.Broken = append(i.Broken, KindImpact{k, !left[k]})
		}
		all = all && broken[k] && !left[k]
	}
	switch {
	case len(refusing) == 0 && len(excepted) == 0:
		m.Unharmed++
		return nil
	case len(refusing) == 0:
		i.Loss = Excepted
		i.Requirements = slices.Sorted(maps.Keys(excepted))
	case m.today-i.Last >= FixedAfter:
		i.Loss = LosesAway
	case all:
		i.Loss = LosesAll
	default:
		i.Loss = LosesSome
	}
	*m.of(i.Loss)++
	if i.Loss == Excepted {
		return i
	}
	i.Requirements = slices.Sorted(maps.Keys(refusing))
	if domain != nil {
		domain.Broken++
	}
	m.requirements.add(i.Loss, i.Requirements...)
	var brands, protocols, programs []string
	for _, k := range i.Broken {
		brands, protocols, programs = append(brands, k.Brand), append(protocols, k.Protocol), append(programs, string(k.program()))
	}
	m.brands.add(i.Loss, brands...)
	m.protocols.add(i.Loss, protocols...)
	m.programs.add(i.Loss, programs...)
	return i
}

// domain is the row of an account's domain; nil for the provider's own, and without one.
func (m *impacting) domain(account string) *DomainRow {
	_, domain, ok := strings.Cut(account, "@")
	if !ok || slices.Contains(m.own, domain) {
		return nil
	}
	row := m.domains[domain]
	if row == nil {
		row = &DomainRow{Domain: domain}
		m.domains[domain] = row
	}
	row.Seen++
	return row
}

func (m *impacting) listDomains() []DomainRow {
	all := []DomainRow{}
	for _, row := range m.domains {
		if row.Broken > 0 {
			all = append(all, *row)
		}
	}
	slices.SortFunc(all, func(a, b DomainRow) int {
		return cmp.Or(cmp.Compare(b.Broken, a.Broken), cmp.Compare(a.Domain, b.Domain))
	})
	return all[:min(len(all), mostDomains)]
}

// impactRows are accounts by a value.
type impactRows map[string]*ImpactRow

// add counts an account once for each of the names.
func (r impactRows) add(loss Loss, names ...string) {
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		if r[name] == nil {
			r[name] = &ImpactRow{Name: name}
		}
		*r[name].of(loss)++
	}
}

func (r impactRows) list() []ImpactRow {
	all := make([]ImpactRow, 0, len(r))
	for _, row := range r {
		all = append(all, *row)
	}
	slices.SortFunc(all, func(a, b ImpactRow) int {
		return cmp.Or(cmp.Compare(b.Broken(), a.Broken()), cmp.Compare(a.Name, b.Name))
	})
	return all
}

// impactColumns are those of [ImpactFormat].
var impactColumns = []column{{"format", "Format"}, {"account", "Konto"}, {"loses", "verliert"}, {"devices", "Geräte"}, {"devices refused", "Geräte abgewiesen"},
	{"requirements", "Anforderungen"}, {"programs", "Programme (vermutet)"}, {"brand", "Marke"}, {"exception", "Ausnahme"}, {"last seen", "zuletzt gesehen"}}

// ImpactSheet writes a row for every account that loses something or is exempt.
type ImpactSheet struct {
	sheet *sheet
	lang  string
}

// NewImpactSheet begins the table, in "de" or "en".
func NewImpactSheet(w io.Writer, lang string) *ImpactSheet {
	return &ImpactSheet{newSheet(w, lang, impactColumns), lang}
}

// Add writes an account.
func (s *ImpactSheet) Add(i *AccountImpact) error {
	var programs, brands []string
	for _, k := range i.Broken {
		programs = append(programs, k.Kind.In(s.lang))
		if !slices.Contains(brands, k.Brand) {
			brands = append(brands, k.Brand)
		}
	}
	loses := inWords(s.lang, string(i.Loss))
	return s.sheet.row(ImpactFormat, i.Account, loses, strconv.Itoa(i.Devices), strconv.Itoa(len(i.Broken)), strings.Join(i.Requirements, ", "),
		strings.Join(programs, ", "), strings.Join(brands, ", "), i.Exception, dayCell(i.Last))
}

// Flush writes what is still to be written.
func (s *ImpactSheet) Flush() error { return s.sheet.flush() }

// In is a kind of program in words.
func (k Kind) In(lang string) string {
	name := k.program().Name(lang)
	if k.Collector && k.Class != fixes.Collector && k.Class != fixes.Unknown {
		name += " (" + k.Class.Name(lang) + ")"
	}
	return k.Protocol + " " + name
}
