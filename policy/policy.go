// Package policy decides what becomes of a session: it compares what is known
// of the session (its [Facts]) with what the provider demands (a list of
// [Requirement]), and answers a [Verdict].
//
// The package is pure. It reads no file, keeps no clock and knows nothing of
// the rest of the program; the caller hands over facts and time. So the same
// code decides a live session, explains yesterday's and rehearses tomorrow's.
//
// # Three values
//
// A fact that is not known yet is unknown, which is not false: only a
// requirement that is certainly not met is violated. The engine therefore asks
// again when it has learnt something (with the credential, after the login, for
// the event), and asks for [Policy.Bounds] when it must say what it offers, or
// judge a mechanism, before it knows who is there.
//
// # Where it lies
//
// facts.go has the facts and matchers, policy.go what a policy is, decide.go the
// evaluation, exceptions.go their index. file.go has the types of the policy file,
// compile.go makes a policy of them. On these stand explain.go, calendar.go,
// check.go and prove.go, rehearse.go (the file's tests) and replay.go.
//
// # Roads not taken
//
// There is no expression language. The facts are few and their values finite,
// so a closed matcher can be enumerated and proved, and a mistake in it can be
// named by line and column.
//
// A hold is no part of a policy: it comes and goes within seconds, while a policy
// is a file with a hash. So whoever decides brings it along.
//
// The windows of a brownout are computed in every decision that needs them, from
// the local day. A list made beforehand would be quicker, and end one day.
package policy

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Action is what a session meets, mildest first.
type Action uint8

const (
	Pass     Action = iota // nothing
	Observe                // nothing; the event says so
	Notify                 // nothing in the session; a notice becomes due
	Warn                   // the login succeeds, with a sentence where the protocol can show one
	TempFail               // refused for now, with the codes of a temporary failure
	Deny                   // refused with a sentence, as late as needed to say it
	Refuse                 // refused as early as possible: not offered
)

var actionNames = [...]string{"pass", "observe", "notify", "warn", "tempfail", "deny", "refuse"}

// String returns the action's name in the policy file and in events.
func (a Action) String() string {
	if int(a) < len(actionNames) {
		return actionNames[a]
	}
	return fmt.Sprintf("action(%d)", uint8(a))
}

// Refuses reports whether the customer does not get in.
func (a Action) Refuses() bool { return a >= TempFail }

// Finding names what a violated requirement says of the customer's settings.
// It selects the words of a refusal and the steps of a notice.
type Finding string

const (
	Plaintext      Finding = "plaintext"       // no encryption
	TLSOld         Finding = "tls_old"         // TLS 1.0 or 1.1
	Mechanism      Finding = "mechanism"       // CRAM-MD5, NTLM, APOP and their like
	LegacyHostname Finding = "legacy_hostname" // a server name that is to go

	FindingUserForm Finding = "user_form"       // a bare name where the address is asked for, or the reverse
	FindingPort     Finding = "submission_port" // sending on a port that is to go
)

// Share is a part of all accounts or networks, in thousandths of a percent.
type Share int32

// Everybody is the whole, and the number of buckets.
const Everybody Share = 100_000

// String returns the share in percent.
func (s Share) String() string {
	return strings.TrimRight(strings.TrimRight(fmt.Sprintf("%d.%03d", s/1000, s%1000), "0"), ".") + "%"
}

// Stage is what a requirement does from an instant on.
type Stage struct {
	From     time.Time // inclusive; the zero time is "since ever"
	Do       Action
	Share    Share     // of accounts that it concerns; the others get the last earlier stage without one. 0: all, as is 100%
	Brownout *Brownout // nil: none
	Ratchet  *Ratchet  // nil: none
	Probe    Share     // of client networks from which a mechanism is hidden; 0: none
	Guard    *Guard    // nil: none
}

// Brownout is a trial outage that returns, by the clock on the wall.
type Brownout struct {
	Do   Action
	Days [7]bool        // by [time.Weekday], on which a window begins
	At   time.Duration  // from midnight, as a clock on the wall shows it
	For  time.Duration  // as time passes, over midnight and over a change of the clock
	Zone *time.Location // nil: UTC
}

// Ratchet protects accounts that have been clean for long: who has come as far
// does not fall back. That they are is the ledger's to say.
type Ratchet struct {
	Clean time.Duration
	Do    Action
}

// Guard is what a stage may cost at most. How many still have an open finding no
// session knows, so nothing here reads it: whoever watches the ledger's numbers
// compares them when the stage begins, and puts a hold.
type Guard struct {
	Open Share  // of the accounts seen, that may still have an open finding of the requirement
	Do   Action // the cap of the hold where there are more
}

// Requirement is one thing that the policy demands.
type Requirement struct {
	ID      string
	Finding Finding
	Scope   Matcher // whom it concerns; empty: everybody
	Require Matcher // what must not be false
	Stages  []Stage // ascending by From
}

// Exception lowers what requirements do to some sessions, for a time. It never raises.
type Exception struct {
	ID     string
	For    []string // ids of requirements
	Match  Matcher
	Cap    Action    // the severest that is left
	Until  time.Time // the first instant without it
	Reason string
	Owner  string
}

// Hold caps everything at run time. It is brought along by whoever asks for a
// verdict.
type Hold struct {
	Cap    Action
	Reason string
	Owner  string
	Since  time.Time
	Until  time.Time // the first instant without it
}

// in reports whether the hold is in force.
func (h *Hold) in(now time.Time) bool {
	return h != nil && !now.Before(h.Since) && now.Before(h.Until)
}

// rule is a requirement, made ready.
type rule struct {
	Requirement
	fallback []int        // by stage: the last earlier one without a share, or -1
	index    index        // the exceptions that name it
	listed   []*Exception // the same, by id
}

// maxRequirements is the width of a verdict's bit set. A provider's policy has
// a handful; a file with more wants a better scope.
const maxRequirements = 64

// Policy is a checked set of requirements with their exceptions. It never
// changes once made, and may be used by any number of goroutines.
type Policy struct {
	name       string
	rules      []rule      // ascending by ID, so that order in a file means nothing
	exceptions []Exception // likewise
}

// New checks the requirements and exceptions and makes a policy of them. The
// name and a hash of the content identify it in events.
func New(name string, requirements []Requirement, exceptions ...Exception) (*Policy, error) {
	if len(requirements) > maxRequirements {
		return nil, fmt.Errorf("%d requirements: at most %d are possible", len(requirements), maxRequirements)
	}
	p := &Policy{rules: make([]rule, len(requirements)), exceptions: slices.Clone(exceptions)}
	for i, r := range requirements {
		r.Stages = slices.Clone(r.Stages)
		p.rules[i] = rule{Requirement: r}
	}
	slices.SortFunc(p.rules, func(a, b rule) int { return strings.Compare(a.ID, b.ID) })
	slices.SortFunc(p.exceptions, func(a, b Exception) int { return strings.Compare(a.ID, b.ID) })
	for i := range p.rules {
		r := &p.rules[i]
		if i > 0 && p.rules[i-1].ID == r.ID {
			return nil, fmt.Errorf("requirement %s: the id is used twice", r.ID)
		}
		if err := r.prepare(); err != nil {
			return nil, err
		}
	}
	for i := range p.exceptions {
		e := &p.exceptions[i]
		e.Match = e.Match.prepared()
		if i > 0 && p.exceptions[i-1].ID == e.ID {
			return nil, fmt.Errorf("exception %s: the id is used twice", e.ID)
		}
		for _, id := range e.For {
			r := p.rule(id)
			if r == nil {
				return nil, fmt.Errorf("exception %s: there is no requirement %s", e.ID, id)
			}
			r.listed = append(r.listed, e)
		}
	}
	for i := range p.rules {
		p.rules[i].index = indexOf(p.rules[i].listed)
	}
	p.name = name + "@" + p.digest()
	return p, nil
}

// prepare checks a requirement and makes it ready.
func (r *rule) prepare() error {
	if r.ID == "" {
		return fmt.Errorf("a requirement has no id")
	}
	if len(r.Stages) == 0 {
		return fmt.Errorf("requirement %s: no stages", r.ID)
	}
	r.Scope, r.Require = r.Scope.prepared(), r.Require.prepared()
	r.fallback = make([]int, len(r.Stages))
	last := -1
	for i := range r.Stages {
		s := &r.Stages[i]
		if i > 0 && !r.Stages[i-1].From.Before(s.From) {
			return fmt.Errorf("requirement %s: stage %d is not later than the one before it", r.ID, i+1)
		}
		if s.Share < 0 || s.Share > Everybody || s.Probe < 0 || s.Probe > Everybody {
			return fmt.Errorf("requirement %s: stage %d: a share lies between 0%% and 100%%", r.ID, i+1)
		}
		if g := s.Guard; g != nil && (g.Open < 0 || g.Open >= Everybody || g.Do >= s.severest()) {
			return fmt.Errorf("requirement %s: stage %d: the guard can hold nothing back", r.ID, i+1)
		}
		if s.Share > 0 && s.severest() == Refuse {
			return fmt.Errorf("requirement %s: stage %d: refuse comes before the account is known, so it has no share", r.ID, i+1)
		}
		if s.Share == Everybody {
			s.Share = 0
		}
		r.fallback[i] = last
		if s.Share == 0 {
			last = i
		}
	}
	return nil
}

// severest is the most that a stage can do.
func (s *Stage) severest() Action {
	do := s.Do
	if s.Brownout != nil {
		do = max(do, s.Brownout.Do)
	}
	if s.Ratchet != nil {
		do = max(do, s.Ratchet.Do)
	}
	return do
}

// digest is the hash of what the policy says, whatever the order in its file.
func (p *Policy) digest() string {
	h := sha256.New()
	for i := range p.rules {
		r := &p.rules[i]
		fmt.Fprintf(h, "requirement %q %q scope %s require %s\n", r.ID, r.Finding, r.Scope.key(), r.Require.key())
		for _, s := range r.Stages {
			fmt.Fprintf(h, "stage %d %v share %d probe %d", s.From.Unix(), s.Do, s.Share, s.Probe)
			if b := s.Brownout; b != nil {
				fmt.Fprintf(h, " brownout %v %v %v %v %v", b.Do, b.Days, b.At, b.For, b.zone())
			}
			if c := s.Ratchet; c != nil {
				fmt.Fprintf(h, " ratchet %v %v", c.Clean, c.Do)
			}
			if g := s.Guard; g != nil {
				fmt.Fprintf(h, " guard %d %v", g.Open, g.Do)
			}
			fmt.Fprintln(h)
		}
	}
	for i := range p.exceptions {
		e := &p.exceptions[i]
		fmt.Fprintf(h, "exception %q for %q match %s cap %v until %d\n", e.ID, slices.Sorted(slices.Values(e.For)), e.Match.key(), e.Cap, e.Until.Unix())
	}
	return hex.EncodeToString(h.Sum(nil)[:6])
}

// rule finds a requirement by its id.
func (p *Policy) rule(id string) *rule {
	i, found := slices.BinarySearchFunc(p.rules, id, func(r rule, id string) int { return strings.Compare(r.ID, id) })
	if !found {
		return nil
	}
	return &p.rules[i]
}

// exception finds an exception by its id.
func (p *Policy) exception(id string) *Exception {
	i, found := slices.BinarySearchFunc(p.exceptions, id, func(e Exception, id string) int { return strings.Compare(e.ID, id) })
	if !found {
		return nil
	}
	return &p.exceptions[i]
}

// String identifies the policy: its name, an at sign and twelve digits of the
// hash of its content.
func (p *Policy) String() string { return p.name }

var enforced = func() *Policy {
	since := func(do Action) []Stage { return []Stage{{Do: do}} }
	p, err := New("enforced", []Requirement{
		{ID: "encrypted", Finding: Plaintext, Stages: since(Deny),
			Require: Matcher{{Fact: TLS, Not: true, Values: []string{None}}}},
		{ID: "modern-tls", Finding: TLSOld, Stages: since(Refuse),
			Require: Matcher{{Fact: TLS, Not: true, Values: []string{"1.0", "1.1"}}}},
		{ID: "password-only", Finding: Mechanism, Stages: since(Deny),
			Require: Matcher{{Fact: Mech, Values: []string{"PLAIN", "LOGIN", UserPass, "XOAUTH2", "OAUTHBEARER"}}}},
		{ID: "canonical-host", Finding: LegacyHostname, Stages: since(Deny),
			Require: Matcher{{Fact: Host, Values: []string{Canonical, Absent}}}},
	})
	if err != nil {
		panic(err) // the list above is constant
	}
	return p
}()

// Enforced is the built-in policy, in force where no file says otherwise: TLS
// 1.2 or newer (RFC 8314, RFC 8997), passwords and bearer tokens only,
// canonical host names only. A client that sends no server name passes: old
// programs and those set to an address send none, and that alone is no offence.
func Enforced() *Policy { return enforced }
