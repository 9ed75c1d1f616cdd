package outreach

// Who is affected, by what, and how fast it becomes less.

import (
	"cmp"
	"iter"
	"maps"
	"slices"
	"time"

	"mailreeve/fixes"
	"mailreeve/policy"
)

// Formats of what is exported, by which other programs know what to expect. Fields
// and columns are added within a format, and never changed or taken away.
const (
	ReportFormat   = "report-1"
	BurnDownFormat = "burndown-1"
	ImpactFormat   = "impact-1"
)

// What the hotline must expect, by experience: one in ten of those affected calls, and an
// agent bears some six hundred affected accounts.
const (
	affectedPerCall  = 10
	affectedPerAgent = 600
)

// Counts are accounts by their state: the worst that a finding of theirs has, in the order open,
// silent, exempt, fixed.
type Counts struct {
	Open   int `json:"open"`
	Silent int `json:"silent"`
	Exempt int `json:"exempt"`
	Fixed  int `json:"fixed"`
}

// Affected are those with a program that will break, or has broken.
func (c Counts) Affected() int { return c.Open + c.Silent }

// affected reports whether the finding will break, or has broken, a program.
func (s State) affected() bool { return s == Open || s == Silent }

// of is the count of a state.
func (c *Counts) of(s State) *int {
	switch s {
	case Open:
		return &c.Open
	case Silent:
		return &c.Silent
	case Exempt:
		return &c.Exempt
	}
	return &c.Fixed
}

// worse is the worse of two states; each may be empty.
func worse(a, b State) State {
	rank := func(s State) int { return slices.Index([]State{"", Fixed, Exempt, Silent, Open}, s) }
	if rank(b) > rank(a) {
		return b
	}
	return a
}

// Window is the time that the ledger, or what was looked at of it, covers.
type Window struct {
	First Day `json:"first"`
	Last  Day `json:"last"` // today
	Days  int `json:"days"`
}

func windowOf(first, last Day) Window { return Window{first, last, int(last-first) + 1} }

// Report is the state of the campaign.
type Report struct {
	Format       string              `json:"format"`
	At           time.Time           `json:"at"`
	Policy       string              `json:"policy"`
	Window       Window              `json:"window"`
	Seen         int                 `json:"accounts_seen"`
	Any          Counts              `json:"any"` // accounts by the worst over all requirements
	Calls        int                 `json:"calls_expected"`
	Agents       int                 `json:"agents_needed"`
	Requirements []RequirementReport `json:"requirements"` // by id
	Brands       []ReportRow         `json:"brands"`       // most affected first, as all rows
	Protocols    []ReportRow         `json:"protocols"`
	Programs     []ReportRow         `json:"programs"` // classes; what collectors do is in the class collector alone
}

// RequirementReport is one requirement.
type RequirementReport struct {
	ID       string         `json:"id"`
	Finding  policy.Finding `json:"finding"`
	Do       policy.Action  `json:"do"`                      // of the stage in force
	Since    time.Time      `json:"since,omitzero"`          // it is in force
	Next     *NextStage     `json:"next_refusing,omitempty"` // the next stage that refuses, or refuses more
	Counts                  // accounts, with those below all that were seen
	Clean    int            `json:"clean"`              // accounts that always met it, as far as that is known
	Unknown  int            `json:"unknown"`            // accounts without a finding, of whose last logins it is not known whether they meet it
	Through  int            `json:"through_collectors"` // affected accounts that are so by collectors alone
	Calls    int            `json:"calls_expected"`
	Agents   int            `json:"agents_needed"`
	Pace     *Pace          `json:"pace,omitempty"`
	BurnDown []BurnDownDay  `json:"burn_down"` // of each day of the window
}

// NextStage is a stage to come.
type NextStage struct {
	At    time.Time     `json:"at"`
	Do    policy.Action `json:"do"`
	Share string        `json:"share,omitempty"` // of the accounts; empty: all
	Days  int           `json:"days_left"`
}

// Pace compares what is mended with what would have to be.
type Pace struct {
	Mended float64 `json:"mended_per_day"` // accounts that became fixed, less those that fell back
	Over   int     `json:"over_days"`      // the last days, of which that is the mean
	Needed float64 `json:"needed_per_day"` // so that none is left at the date; 0 without one
	Left   int     `json:"left_at_date"`   // affected accounts, at this pace; without a date all of them
}

// BurnDownDay is how a requirement stood on a day, by what was known then. Exceptions are
// those of today.
type BurnDownDay struct {
	Day Day `json:"day"`
	Counts
}

// ReportRow is the accounts with a finding of some value.
type ReportRow struct {
	Name string `json:"name"`
	Seen int    `json:"accounts_seen"` // that logged in with this value at all
	Counts
}

// MakeReport counts the accounts of a ledger. Each, if there is one, is called for every
// account with findings, in the order of the accounts.
func MakeReport(accounts iter.Seq2[*Account, error], p *policy.Policy, now time.Time, zone *time.Location, each func(*Account, []Finding) error) (*Report, error) {
	r := newReporting(p, now, zone)
	for a, err := range accounts {
		if err != nil {
			return nil, err
		}
		findings := r.count(examine(p, a, now, zone))
		if each != nil && len(findings) > 0 {
			if err := each(a, findings); err != nil {
				return nil, err
			}
		}
	}
	return r.finish(p, now), nil
}

// reporting is a report while it is made.
type reporting struct {
	Report
	today                       Day
	rules                       []*policy.Requirement
	changes                     []map[Day]*Counts // by requirement: how counts change with a day
	brands, protocols, programs rows
}

func newReporting(p *policy.Policy, now time.Time, zone *time.Location) *reporting {
	today := DayOf(now, zone)
	r := &reporting{
		Report: Report{Format: ReportFormat, At: now, Policy: p.String(), Window: windowOf(today, today), Requirements: []RequirementReport{}},
		today:  today, rules: p.Requirements(), brands: rows{}, protocols: rows{}, programs: rows{},
	}
	for _, rule := range r.rules {
		q := RequirementReport{ID: rule.ID, Finding: rule.Finding}
		stage, next := rule.InForce(now)
		if stage != nil {
			q.Do, q.Since = stage.Do, stage.From
		}
		if next != nil {
			q.Next = &NextStage{At: next.From, Do: next.Do, Days: int(DayOf(next.From, zone) - today)}
			if next.Share > 0 {
				q.Next.Share = next.Share.String()
			}
		}
		r.Requirements = append(r.Requirements, q)
		r.changes = append(r.changes, map[Day]*Counts{})
	}
	return r
}

// count takes an account in, and returns its findings.
func (r *reporting) count(x *examined) (findings []Finding) {
	first, seen := x.first()
	if !seen {
		return nil
	}
	r.Seen++
	r.Window = windowOf(min(r.Window.First, first), r.today)
	any := State("")
	rest := x.trails
	for i, rule := range r.rules {
		q := &r.Requirements[i]
		n := 0
		for n < len(rest) && rest[n].Rule == rule {
			n++
		}
		trails := rest[:n]
		rest = rest[n:]
		if n == 0 {
			if x.unclear(rule) {
				q.Unknown++
			} else {
				q.Clean++
			}
			continue
		}
		state, collectors := State(""), true
		for j := range trails {
			t := &trails[j]
			findings = append(findings, t.Finding)
			state = worse(state, t.State)
			collectors = collectors && (t.Kind.Collector || !t.State.affected())
		}
		any = worse(any, state)
		*q.of(state)++
		if state.affected() && collectors {
			q.Through++
		}
		r.follow(r.changes[i], trails)
	}
	if any != "" {
		*r.Any.of(any)++
	}
	for _, by := range []struct {
		rows rows
		of   func(Kind) string
	}{
		{r.brands, func(k Kind) string { return k.Brand }},
		{r.protocols, func(k Kind) string { return k.Protocol }},
		{r.programs, func(k Kind) string { return string(k.program()) }},
	} {
		values := map[string]State{}
		for i := range x.Uses {
			if u := &x.Uses[i]; u.First() <= r.today {
				values[by.of(u.kind())] = ""
			}
		}
		for i := range x.trails {
			v := by.of(x.trails[i].Kind)
			values[v] = worse(values[v], x.trails[i].State)
		}
		for v, state := range values {
			by.rows.add(v, state)
		}
	}
	return findings
}

// program is the class under which a kind is counted, and by whose words it is written about:
// collectors apart, whatever they say of themselves.
func (k Kind) program() fixes.Class {
	if k.Collector {
		return fixes.Collector
	}
	return k.Class
}

// first is the first day on which the account was seen, if it was until today.
func (x *examined) first() (first Day, seen bool) {
	for i := range x.Uses {
		if d := x.Uses[i].First(); d <= x.until && (!seen || d < first) {
			first, seen = d, true
		}
	}
	return first, seen
}

// unclear reports whether of some kind of program it is not known, by its last logins,
// whether it meets a requirement: of a log, say, that does not tell server names.
func (x *examined) unclear(rule *policy.Requirement) bool {
	met := map[Kind]Day{}
	open := map[Kind]Day{}
	for i := range x.Uses {
		u := &x.Uses[i]
		last, ok := u.lastUntil(x.until)
		if !ok {
			continue
		}
		switch f := x.facts[i]; {
		case rule.Meets(f):
			met[u.kind()] = max(met[u.kind()], last)
		case !rule.Fails(f):
			open[u.kind()] = max(open[u.kind()], last)
		}
	}
	for k, day := range open {
		if day > met[k] {
			return true
		}
	}
	return false
}

// lastUntil is the last day that is not after one.
func (u *Use) lastUntil(day Day) (Day, bool) {
	for _, d := range slices.Backward(u.Days) {
		if d.Day <= day {
			return d.Day, true
		}
	}
	return 0, false
}

// follow notes on which days the state of an account changed, by the trails of one
// requirement.
func (r *reporting) follow(changes map[Day]*Counts, trails []trail) {
	var days []Day
	for i := range trails {
		days = trails[i].turns(days)
	}
	slices.Sort(days)
	note := func(day Day, state State, n int) {
		if state == "" {
			return
		}
		if changes[day] == nil {
			changes[day] = &Counts{}
		}
		*changes[day].of(state) += n
	}
	was := State("")
	for _, day := range slices.Compact(days) {
		if day > r.today {
			break
		}
		is := State("")
		for i := range trails {
			is = worse(is, trails[i].on(day))
		}
		if is != was {
			note(day, was, -1)
			note(day, is, 1)
			was = is
		}
	}
}

// turns appends the days on which the state may change.
func (t *trail) turns(days []Day) []Day {
	for i, broke := range t.broke {
		if i == 0 || broke-t.broke[i-1] >= FixedAfter {
			days = append(days, broke)
		}
		next := Day(1<<31 - 1)
		if i+1 < len(t.broke) {
			next = t.broke[i+1]
		}
		if next-broke < FixedAfter {
			continue
		}
		days = append(days, broke+FixedAfter)
		if n, _ := slices.BinarySearch(t.kept, broke+1); n < len(t.kept) && t.kept[n] < next {
			days = append(days, max(t.kept[n], broke+FixedAfter))
		}
	}
	return days
}

// finish makes the report of what was counted.
func (r *reporting) finish(p *policy.Policy, now time.Time) *Report {
	r.Calls, r.Agents = hotline(r.Any.Affected())
	r.Brands, r.Protocols, r.Programs = r.brands.list(), r.protocols.list(), r.programs.list()
	for i := range r.Requirements {
		q := &r.Requirements[i]
		q.Calls, q.Agents = hotline(q.Affected())
		sum := Counts{}
		for day := r.Window.First; day <= r.today; day++ {
			if c := r.changes[i][day]; c != nil {
				sum = Counts{sum.Open + c.Open, sum.Silent + c.Silent, sum.Exempt + c.Exempt, sum.Fixed + c.Fixed}
			}
			q.BurnDown = append(q.BurnDown, BurnDownDay{day, sum})
		}
		q.pace()
	}
	return &r.Report
}

// hotline is what so many affected accounts mean for it.
func hotline(affected int) (calls, agents int) {
	up := func(n int) int { return (affected + n - 1) / n }
	return up(affectedPerCall), up(affectedPerAgent)
}

// pace compares the last days with those that are left.
func (q *RequirementReport) pace() {
	last := len(q.BurnDown) - 1
	over := min(last, FixedAfter)
	if over < 1 {
		return
	}
	p := &Pace{Over: over, Mended: float64(q.Fixed-q.BurnDown[last-over].Fixed) / float64(over), Left: q.Affected()}
	if q.Next != nil {
		days := max(q.Next.Days, 1)
		p.Needed = float64(q.Affected()) / float64(days)
		p.Left = max(0, q.Affected()-int(p.Mended*float64(q.Next.Days)))
	}
	q.Pace = p
}

// Line is how many affected accounts there would be on a day, from today on, if they
// became fewer in a straight line to none at the date.
func (q *RequirementReport) Line(today, day Day) (affected float64, ok bool) {
	if q.Next == nil || day < today || day > today+Day(q.Next.Days) {
		return 0, false
	}
	if q.Next.Days == 0 {
		return float64(q.Affected()), true
	}
	return float64(q.Affected()) * float64(q.Next.Days-int(day-today)) / float64(q.Next.Days), true
}

// rows are accounts by a value.
type rows map[string]*ReportRow

func (r rows) add(name string, state State) {
	row := r[name]
	if row == nil {
		row = &ReportRow{Name: name}
		r[name] = row
	}
	row.Seen++
	if state != "" {
		*row.of(state)++
	}
}

func (r rows) list() []ReportRow {
	all := make([]ReportRow, 0, len(r))
	for _, name := range slices.Sorted(maps.Keys(r)) {
		all = append(all, *r[name])
	}
	slices.SortStableFunc(all, func(a, b ReportRow) int { return cmp.Compare(b.Affected(), a.Affected()) })
	return all
}
