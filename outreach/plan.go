package outreach

// Who is told today, and why others are not. Everything here is computed from what the ledger
// has, from the policy of now and from what has been sent: whoever asks twice gets the
// same answer, and the sender asks again before each mail.
//
// # Steps
//
// T is the day on which an account is refused: the first that any of its findings has, of
// those that policy has made known (notify or more). Steps are days before and after T. Of
// several that have passed the latest is due, so a mail that was missed is not sent late
// beside the next; those of T and later lapse a week after their day. Accounts without a T
// are told late rather than never, and nobody after the campaign's end. Steps more than a week
// before T are spread over the office days of the week that they begin; later ones before T
// move to the office day before where they fall on a closed one, for a warning of two days is
// none on the Monday itself.
//
// Once T has passed and another finding has a later one, a new series begins, with all
// steps anew. A date that is moved before it comes begins none, so a change in
// the policy file sends nobody the same step twice. Who is not refused on any day is told
// three times: when policy first has it known, and 28 and 56 days later.
//
// Who obeys is not told again: once the same kind of program has logged in as it should after the
// last violation, that finding makes no step due and stands in no mail, unless it is seen anew.

import (
	"cmp"
	"fmt"
	"iter"
	"slices"
	"time"

	"mailreeve/config"
	"mailreeve/policy"
)

// Reason is why an account is told today, or is not.
type Reason string

// The reasons, in the order in which they are shown.
const (
	ReasonDue       Reason = "due"         // it is told as soon as there is room
	ReasonBudget    Reason = "budget"      // it is due, and others come first today
	ReasonClosed    Reason = "closed"      // it is due, and the office does not open today any more
	ReasonSpread    Reason = "bucket"      // its day of the week is to come
	ReasonEarly     Reason = "before_step" // its first step is to come
	ReasonGap       Reason = "gap"         // the last notice was sent a few days ago
	ReasonTold      Reason = "told"        // the step has been sent
	ReasonClaimed   Reason = "claimed"     // a sender works at it, or the server wants to be asked later
	ReasonDoubt     Reason = "doubt"       // nobody knows whether the step was sent
	ReasonFailed    Reason = "failed"      // the server refused the step for good
	ReasonLapsed    Reason = "lapsed"      // its last step was not sent in time
	ReasonEnded     Reason = "ended"       // the campaign ends before
	ReasonMost      Reason = "most"        // it has had as many notices as there may be
	ReasonBounced   Reason = "bounced"     // mail to it comes back
	ReasonCall      Reason = "call"        // it is called instead
	ReasonNoAddress Reason = "no_address"  // its name is no mail address
	ReasonQuiet     Reason = "not_yet"     // policy only observes so far
	ReasonExempt    Reason = "exempt"      // exceptions are in force
	ReasonWatched   Reason = "watched"     // it has been right since, but not for long enough to count as fixed
	ReasonFixed     Reason = "fixed"       // all has been mended
	ReasonNothing   Reason = "nothing"     // nothing is wrong with it
)

// Reasons lists them.
var Reasons = []Reason{ReasonDue, ReasonBudget, ReasonClosed, ReasonSpread, ReasonEarly, ReasonGap, ReasonTold, ReasonClaimed, ReasonDoubt, ReasonFailed,
	ReasonLapsed, ReasonEnded, ReasonMost, ReasonBounced, ReasonCall, ReasonNoAddress, ReasonQuiet, ReasonExempt, ReasonWatched, ReasonFixed, ReasonNothing}

var reasonWords = map[Reason]string{
	ReasonDue: "told today", ReasonBudget: "due, but past the budget of the day", ReasonClosed: "due when the office opens again", ReasonSpread: "waiting for their day of the week",
	ReasonEarly: "first step not yet reached", ReasonGap: "told a few days ago", ReasonTold: "told already", ReasonClaimed: "under way, or put off by the server",
	ReasonDoubt: "in doubt: see `mailreeve outreach doubts`", ReasonFailed: "refused by the server for good", ReasonLapsed: "last step not sent in time",
	ReasonEnded: "the campaign ends before", ReasonMost: "told as often as allowed",
	ReasonBounced: "mail to them comes back", ReasonCall: "called instead", ReasonNoAddress: "name is no mail address",
	ReasonQuiet: "policy only observes so far", ReasonExempt: "exempt", ReasonWatched: "right again, and watched", ReasonFixed: "fixed", ReasonNothing: "nothing wrong",
}

// String says it in words, of several accounts.
func (r Reason) String() string { return reasonWords[r] }

// Schedule says when accounts are told.
type Schedule struct {
	Campaign string
	Office   Office
	Steps    []int         // days after T, ascending
	Gap      time.Duration // least time between two, up to the step a week before T
	Most     int           // notices to an account
	PerDay   int           // notices in all
	End      Day           // the last day of the campaign, on which notices are still sent; 0: there is none
}

// NewSchedule is that of a configuration with notices.
func NewSchedule(c *config.Outreach) *Schedule {
	n := c.Notices
	return &Schedule{Campaign: string(c.Campaign), Office: NewOffice(c), Steps: n.Steps, Gap: n.Gap, Most: n.Most, PerDay: PerDay(n),
		End: DayOf(c.End.In(c.Timezone.Location()), c.Timezone.Location())}
}

// Item is what is to be said of an account in a plan.
type Item struct {
	Key
	Reason   Reason    `json:"reason"`
	Sentence string    `json:"sentence"`
	On       Day       `json:"on,omitzero"`   // when it is due, or looked at again; 0: no day is known
	T        time.Time `json:"date,omitzero"` // from when on the account is refused; zero: no such day
	Brand    string    `json:"brand"`
	Letter   bool      `json:"letter,omitempty"` // it is to be told, and no program of it can fetch mail any more: a letter or a call is surer
}

const (
	spreadDays = 7  // a step more than this before T is spread over as many days
	between    = 28 // days between notices without a date
	lapsesIn   = 7  // days after its own day a step of T or later is not sent any more
)

// undatedSteps are those of accounts that are not refused on any date.
var undatedSteps = []int{Undated, Undated + between, Undated + 2*between}

// Look says what is to be done about an account now, given what it has been sent.
func (s *Schedule) Look(p *policy.Policy, a *Account, past []Past, now time.Time) (Item, []Finding) {
	all := Findings(p, a, now, s.Office.Zone)
	i := Item{Key: Key{Account: a.Name}}
	say := func(why Reason, on Day, format string, args ...any) (Item, []Finding) {
		i.Reason, i.On, i.Sentence = why, on, fmt.Sprintf(format, args...)
		return i, all
	}
	var told []Finding // those that are at risk and made known
	exempt, risk := false, false
	var right, until Day // from when on all that is watched has been right, and how long it is watched
	var begins time.Time // the first stage to come that makes something known
	for _, f := range all {
		switch {
		case f.State == Exempt:
			exempt = true
		case f.State == Fixed:
		case f.watched():
			right, until = max(right, f.right(a)), max(until, f.Last+FixedAfter)
		case f.Do >= policy.Notify:
			told = append(told, f)
		default:
			risk = true
			if at := known(f.Rule, now); begins.IsZero() || !at.IsZero() && at.Before(begins) {
				begins = at
			}
		}
	}
	i.Brand = brandOf(told, a)
	today := DayOf(now, s.Office.Zone)
	switch {
	case len(all) == 0:
		return say(ReasonNothing, 0, "nothing is wrong with it")
	case len(told) == 0 && risk && begins.IsZero():
		return say(ReasonQuiet, 0, "what is wrong is only observed, and no stage that makes it known is planned")
	case len(told) == 0 && risk:
		day := DayOf(begins, s.Office.Zone)
		return say(ReasonQuiet, day, "what is wrong is only observed until %s", day)
	case len(told) == 0 && exempt:
		return say(ReasonExempt, 0, "an exception is in force for all that is wrong")
	case len(told) == 0 && until != 0:
		return say(ReasonWatched, until, "it has been right since %s; it is watched until %s", right, until)
	case len(told) == 0:
		return say(ReasonFixed, 0, "all that was wrong has been mended")
	case a.Call != 0:
		return say(ReasonCall, 0, "it is to be called instead, since %s", a.Call)
	case a.Bounced != 0:
		return say(ReasonBounced, 0, "a notice came back on %s", a.Bounced)
	case !mailbox(a.Name):
		return say(ReasonNoAddress, 0, "its name is no mail address to write to")
	case s.ended(today):
		return say(ReasonEnded, 0, "the campaign ended on %s", s.End)
	}

	i.Letter = CutOff(a, told, now)
	i.T = s.day(told, today)
	steps, at := s.Steps, DayOf(i.T, s.Office.Zone)
	if i.T.IsZero() {
		steps, at = undatedSteps, s.begun(told, now)-Undated
	}
	i.Series = s.series(past, i.T, today)
	on := func(n int) Day { return s.on(steps, n, at, a.Name) }
	current := -1
	for n, step := range steps {
		if at+Day(step) <= today || on(n) <= today {
			current = n
		}
	}
	if current < 0 {
		i.Step = steps[0]
		if s.ended(on(0)) {
			return say(ReasonEnded, 0, "its first step, %s, would be on %s, and the campaign ends on %s", StepName(i.Step), on(0), s.End)
		}
		return say(ReasonEarly, on(0), "its first step, %s, is on %s", StepName(i.Step), on(0))
	}
	i.Step = steps[current]
	name := StepName(i.Step)
	var next Day
	after := ", the last one"
	if current+1 < len(steps) && s.ended(on(current+1)) {
		after = fmt.Sprintf(", the last one before the campaign ends on %s", s.End)
	} else if current+1 < len(steps) {
		next = on(current + 1)
		after = fmt.Sprintf("; the next one, %s, is on %s", StepName(steps[current+1]), next)
	}
	count, last := 0, Day(0)
	for _, n := range past {
		if n.State.told() {
			count, last = count+1, max(last, n.Day)
		}
		if n.Series != i.Series || n.Step != i.Step {
			continue
		}
		switch {
		case n.State == StateDoubt:
			return say(ReasonDoubt, next, "nobody knows whether %s was sent on %s", name, n.Day)
		case n.State.told():
			return say(ReasonTold, next, "%s was sent on %s%s", name, n.Day, after)
		case n.State == StateFailed:
			return say(ReasonFailed, next, "the server refused %s on %s%s", name, n.Day, after)
		case n.State == StateClaimed && n.Until.After(now):
			return say(ReasonClaimed, today, "%s is under way, or put off by the server, until %s", name, n.Until.In(s.Office.Zone).Format("2006-01-02 15:04"))
		}
	}
	gap := Day((s.Gap + 24*time.Hour - 1) / (24 * time.Hour))
	switch {
	case i.Step >= 0 && i.Step < Undated && today >= on(current)+lapsesIn:
		return say(ReasonLapsed, next, "%s was due on %s, and is not sent any more%s", name, on(current), after)
	case count >= s.Most:
		return say(ReasonMost, 0, "it has had %d notices, as many as there may be", count)
	case s.ended(on(current)):
		return say(ReasonEnded, 0, "%s would be sent to it on %s, and the campaign ends on %s", name, on(current), s.End)
	case (i.Step <= -spreadDays || i.Step >= Undated) && last != 0 && today-last < gap:
		return say(ReasonGap, last+gap, "%s is due, but the last notice was sent on %s", name, last)
	case on(current) > today:
		return say(ReasonSpread, on(current), "%s is sent to it on %s, for each has a day of the week", name, on(current))
	}
	return say(ReasonDue, on(current), "%s is due since %s", name, on(current))
}

// watched reports whether the same kind of program has logged in as it should on a later day than
// it last did not. That may be another device of the same kind, so the finding counts as fixed
// only after [FixedAfter] days; but who has just obeyed is not told again meanwhile.
func (f *Finding) watched() bool { return f.State.affected() && f.Since > f.Last }

// right is the first day after the last violation on which the same kind of program logged in as it should.
func (f *Finding) right(a *Account) Day {
	first := f.Since
	for i := range a.Uses {
		u := &a.Uses[i]
		if u.kind() != f.Kind || !f.Rule.Meets(u.Facts(a.Name)) {
			continue
		}
		for _, d := range u.Days {
			if d.Day > f.Last {
				first = min(first, d.Day)
				break
			}
		}
	}
	return first
}

// ended reports whether the campaign is over on a day.
func (s *Schedule) ended(day Day) bool { return s.End != 0 && day > s.End }

// known is when a requirement begins to be made known, after an instant; zero: never.
func known(r *policy.Requirement, now time.Time) time.Time {
	for _, s := range r.Stages {
		if s.Do >= policy.Notify && s.From.After(now) {
			return s.From
		}
	}
	return time.Time{}
}

// begun is the day on which the account could first have been told of a finding.
func (s *Schedule) begun(findings []Finding, now time.Time) (first Day) {
	for _, f := range findings {
		day := f.First
		for _, stage := range f.Rule.Stages {
			if stage.Do >= policy.Notify && !stage.From.After(now) {
				if !stage.From.IsZero() {
					day = max(day, DayOf(stage.From, s.Office.Zone))
				}
				break
			}
		}
		if first == 0 || day < first {
			first = day
		}
	}
	return first
}

// day is T: the first on which something is refused whose last step is not over, or if all
// are over the last of them.
func (s *Schedule) day(findings []Finding, today Day) (t time.Time) {
	over := func(t time.Time) bool { return s.over(DayOf(t, s.Office.Zone), today) }
	for _, f := range findings {
		if f.Refuses.IsZero() {
			continue
		}
		switch {
		case t.IsZero(), over(t) && !over(f.Refuses), over(t) && f.Refuses.After(t), !over(f.Refuses) && f.Refuses.Before(t):
			t = f.Refuses
		}
	}
	return t
}

// over reports whether the last step of a date lies in the past.
func (s *Schedule) over(t, today Day) bool { return t+Day(max(0, s.Steps[len(s.Steps)-1])) < today }

// series is the one that a notice for a date belongs to.
func (s *Schedule) series(past []Past, t time.Time, today Day) int {
	series, date := 0, Day(0)
	for _, n := range past {
		if n.Series > series {
			series, date = n.Series, 0
		}
		if n.Series == series {
			date = max(date, n.Date)
		}
	}
	if !t.IsZero() && date != 0 && DayOf(t, s.Office.Zone) > date && s.over(date, today) {
		series++
	}
	return series
}

// on is the day on which a step is sent to an account.
func (s *Schedule) on(steps []int, n int, t Day, account string) Day {
	step := steps[n]
	day := t + Day(step)
	switch {
	case step < -spreadDays || step >= Undated:
		end := day + spreadDays
		if n+1 < len(steps) {
			if next := steps[n+1]; next < -spreadDays || next >= Undated {
				end = min(end, t+Day(next))
			} else {
				end = min(end, s.on(steps, n+1, t, account))
			}
		}
		var open []Day
		for d := day; d < end; d++ {
			if s.Office.On(d) {
				open = append(open, d)
			}
		}
		if len(open) > 0 {
			return open[int(policy.Bucket("notices "+s.Campaign, account))*len(open)/int(policy.Everybody)]
		}
	case step < 0:
		for d := day; d > day-spreadDays; d-- {
			if s.Office.On(d) {
				return d
			}
		}
	default:
		for d := day; d < day+spreadDays; d++ {
			if s.Office.On(d) {
				return d
			}
		}
	}
	return day
}

// brandOf is the brand that an account was last seen at with something to be told, or at all.
func brandOf(findings []Finding, a *Account) (brand string) {
	last := Day(-1)
	for _, f := range findings {
		if f.Last > last {
			last, brand = f.Last, f.Kind.Brand
		}
	}
	for i := range a.Uses {
		if u := &a.Uses[i]; len(findings) == 0 && u.Last() > last {
			last, brand = u.Last(), u.Brand
		}
	}
	return brand
}

// Plan is who is told today, and how far the days reach.
type Plan struct {
	Format   string         `json:"format"`
	Campaign string         `json:"campaign"`
	Day      Day            `json:"day"`
	Open     bool           `json:"open"` // the office is open today, or opens yet
	Accounts int            `json:"accounts"`
	PerDay   int            `json:"per_day"`
	Left     int            `json:"left"` // of today's budget
	Steps    map[string]int `json:"steps"`
	Reasons  map[Reason]int `json:"reasons"`
	Letters  int            `json:"letters"` // accounts that are to be told and can fetch no mail
	Dates    []Backlog      `json:"dates"`
	Items    []Item         `json:"items,omitempty"` // of all that have something wrong: first who is told, in the order of sending
}

// Backlog is how many are due now for a date, and when they will have been told.
type Backlog struct {
	T         Day `json:"date,omitzero"` // 0: those that are not refused on any
	Concerned int `json:"concerned"`     // accounts that are told at some time
	Due       int `json:"due"`           // of them now
	Done      Day `json:"done,omitzero"` // the day on which the last of these is told
	Late      int `json:"late"`          // of them only when the day has come
	Never     int `json:"never"`         // of those due: the campaign ends before the budget reaches them
}

// Make plans the day. left is what remains of its budget, past what an account was sent.
func (s *Schedule) Make(p *policy.Policy, accounts iter.Seq2[*Account, error], past func(string) []Past, left int, now time.Time) (*Plan, error) {
	today := DayOf(now, s.Office.Zone)
	opens := s.Office.Opens(now)
	plan := &Plan{Format: PlanFormat, Campaign: s.Campaign, Day: today, Open: !opens.IsZero() && DayOf(opens, s.Office.Zone) == today, PerDay: s.PerDay, Left: max(0, left),
		Steps: map[string]int{}, Reasons: map[Reason]int{}}
	dates := map[Day]*Backlog{}
	var due, others []Item
	for a, err := range accounts {
		if err != nil {
			return nil, err
		}
		plan.Accounts++
		i, _ := s.Look(p, a, past(a.Name), now)
		switch i.Reason {
		case ReasonNothing:
			plan.Reasons[i.Reason]++
			continue
		case ReasonDue:
			due = append(due, i)
		default:
			others = append(others, i)
		}
		if i.writable() {
			s.backlog(dates, i.T).Concerned++
		}
	}
	slices.SortFunc(due, func(a, b Item) int {
		return cmp.Or(sooner(a.T, b.T), cmp.Compare(a.On, b.On), cmp.Compare(policy.Bucket(s.Campaign, a.Account), policy.Bucket(s.Campaign, b.Account)), cmp.Compare(a.Account, b.Account))
	})
	day, room := today, plan.Left
	if !plan.Open {
		room = 0
	}
	first := Day(0) // day on which something is sent
	for n := range due {
		i := &due[n]
		for room == 0 || !s.Office.On(day) { // the office has a day in each week: the configuration is checked
			if day++; day-today > 10000 {
				break
			}
			room = s.PerDay
		}
		room--
		if first == 0 {
			first = day
		}
		b := s.backlog(dates, i.T)
		b.Due++
		if s.ended(day) {
			b.Never++
			i.Reason, i.On = ReasonEnded, 0
			i.Sentence += fmt.Sprintf("; by the budget of %d a day its turn comes after the campaign's end on %s", s.PerDay, s.End)
			continue
		}
		b.Done = day
		if !i.T.IsZero() && day >= b.T && today < b.T {
			b.Late++
		}
		if day == first && !plan.Open {
			i.Reason, i.On = ReasonClosed, day
			i.Sentence += fmt.Sprintf("; the office is closed, and it is told on %s", day)
		} else if day != today {
			i.Reason, i.On = ReasonBudget, day
			i.Sentence += fmt.Sprintf("; by the budget of %d a day it is told on %s", s.PerDay, day)
		} else {
			plan.Steps[StepName(i.Step)]++
		}
	}
	plan.Items = append(due, others...)
	for _, i := range plan.Items {
		plan.Reasons[i.Reason]++
		if i.Letter {
			plan.Letters++
		}
	}
	for _, b := range dates {
		plan.Dates = append(plan.Dates, *b)
	}
	slices.SortFunc(plan.Dates, func(a, b Backlog) int {
		return cmp.Compare(uint32(a.T-1), uint32(b.T-1)) // without a date: at the end
	})
	return plan, nil
}

// sooner orders instants, with none at the end.
func sooner(a, b time.Time) int {
	if a.IsZero() != b.IsZero() {
		return b.Compare(a)
	}
	return a.Compare(b)
}

func (s *Schedule) backlog(dates map[Day]*Backlog, t time.Time) *Backlog {
	var day Day
	if !t.IsZero() {
		day = DayOf(t, s.Office.Zone)
	}
	if dates[day] == nil {
		dates[day] = &Backlog{T: day}
	}
	return dates[day]
}

// writable reports whether an account gets mail now or later.
func (i *Item) writable() bool {
	switch i.Reason {
	case ReasonDue, ReasonBudget, ReasonClosed, ReasonSpread, ReasonEarly, ReasonGap, ReasonTold, ReasonClaimed, ReasonDoubt, ReasonFailed:
		return true
	}
	return false
}
