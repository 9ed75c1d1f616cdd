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
// # Roads not taken
//
// There is no expression language. The facts are few and their values finite,
// so a closed matcher can be enumerated and proved, and a mistake in it can be
// named by line and column.
package policy

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math/bits"
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
)

// Stage is what a requirement does from an instant on.
type Stage struct {
	From time.Time // inclusive; the zero time is "since ever"
	Do   Action
}

// Requirement is one thing that the policy demands.
type Requirement struct {
	ID      string
	Finding Finding
	Scope   Matcher // whom it concerns; empty: everybody
	Require Matcher // what must not be false
	Stages  []Stage // ascending by From
}

// at returns what the requirement does at an instant: Pass before its first stage.
func (r *Requirement) at(now time.Time) Action {
	do := Pass
	for i := range r.Stages {
		if r.Stages[i].From.After(now) {
			break
		}
		do = r.Stages[i].Do
	}
	return do
}

// maxRequirements is the width of a verdict's bit set. A provider's policy has
// a handful; a file with more wants a better scope.
const maxRequirements = 64

// Policy is a checked set of requirements. It never changes once made, and may
// be used by any number of goroutines.
type Policy struct {
	name         string
	requirements []Requirement // ascending by ID, so that order in a file means nothing
}

// New checks the requirements and makes a policy of them. The name and a hash
// of the content identify it in events.
func New(name string, requirements []Requirement) (*Policy, error) {
	if len(requirements) > maxRequirements {
		return nil, fmt.Errorf("%d requirements: at most %d are possible", len(requirements), maxRequirements)
	}
	rs := slices.Clone(requirements)
	slices.SortFunc(rs, func(a, b Requirement) int { return strings.Compare(a.ID, b.ID) })
	h := sha256.New()
	for i := range rs {
		r := &rs[i]
		if r.ID == "" {
			return nil, fmt.Errorf("a requirement has no id")
		}
		if i > 0 && rs[i-1].ID == r.ID {
			return nil, fmt.Errorf("requirement %s: the id is used twice", r.ID)
		}
		if len(r.Stages) == 0 {
			return nil, fmt.Errorf("requirement %s: no stages", r.ID)
		}
		for j := 1; j < len(r.Stages); j++ {
			if !r.Stages[j-1].From.Before(r.Stages[j].From) {
				return nil, fmt.Errorf("requirement %s: stage %d is not later than the one before it", r.ID, j+1)
			}
		}
		fmt.Fprintf(h, "%q %q %v %v %v\n", r.ID, r.Finding, r.Scope, r.Require, r.Stages)
	}
	return &Policy{
		name:         name + "@" + hex.EncodeToString(h.Sum(nil)[:6]),
		requirements: rs,
	}, nil
}

// String identifies the policy: its name, an at sign and twelve digits of the
// hash of its content.
func (p *Policy) String() string { return p.name }

// Verdict is what policy says of a session. The zero Verdict passes.
type Verdict struct {
	Action   Action
	Rule     *Requirement // the most severe of those violated, ties by id; nil where none is
	violated uint64       // bit n: requirement n of the policy
	policy   *Policy
}

// Violated returns the ids of all requirements violated, ascending, so that
// one notice can list everything there is to change.
func (v Verdict) Violated() []string {
	if v.violated == 0 {
		return nil
	}
	ids := make([]string, 0, bits.OnesCount64(v.violated))
	for i := range v.policy.requirements {
		if v.violated&(1<<i) != 0 {
			ids = append(ids, v.policy.requirements[i].ID)
		}
	}
	return ids
}

// Decide compares the facts with every requirement at an instant. The most
// severe action wins. It allocates nothing.
func (p *Policy) Decide(f *Facts, now time.Time) Verdict {
	v := Verdict{policy: p}
	for i := range p.requirements {
		r := &p.requirements[i]
		do := r.at(now)
		if do == Pass || r.violatedBy(f) != yes {
			continue
		}
		v.violated |= 1 << i
		if v.Rule == nil || do > v.Action {
			v.Action, v.Rule = do, r
		}
	}
	return v
}

// Bounds answers with facts still unknown: the mildest and the severest action
// that values for them could bring. The mildest is a lower bound: two
// requirements that together leave no way out are not combined.
func (p *Policy) Bounds(f *Facts, now time.Time) (mildest, severest Verdict) {
	mildest = p.Decide(f, now)
	severest = mildest
	for i := range p.requirements {
		r := &p.requirements[i]
		do := r.at(now)
		if do == Pass || r.violatedBy(f) != unknown {
			continue
		}
		severest.violated |= 1 << i
		if severest.Rule == nil || do > severest.Action {
			severest.Action, severest.Rule = do, r
		}
	}
	return mildest, severest
}

// violatedBy says whether the facts lie in the requirement's scope and fail it.
func (r *Requirement) violatedBy(f *Facts) truth {
	scope := r.Scope.match(f)
	if scope == no {
		return no
	}
	met := r.Require.match(f)
	switch {
	case met == yes:
		return no
	case met == no && scope == yes:
		return yes
	}
	return unknown
}

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
