package outreach

// What the ledger says of accounts to the policy in force, in memory.

import (
	"hash/maphash"
	"iter"
	"slices"
	"time"

	"mailreeve/policy"
)

// Snapshot answers for the fact ledger. It is made anew from time to time, and
// never changes. It holds eight bytes an account, and no name.
//
// What it says is cautious: who is taken for clean is refused by a ratchet, so an
// account is clean only where the ledger has seen it, in [FixedAfter] days too, for as
// long as the longest ratchet of the policy asks, and in that time nothing that
// violates any requirement, not even by a trial, nor anything of which it is not known
// whether it meets one with a ratchet. All that is not certain is unknown.
type Snapshot struct {
	seed     maphash.Seed
	accounts []uint64 // ascending: a keyed hash, and in its lowest bits the standing
	counts   [standings]int
}

// standing is a value of the fact ledger in few bits.
type standing uint64

const (
	unknown standing = iota
	isClean
	isOpen
	isFixed
	isExempt
	standings

	standingBits = 7
)

var standingFacts = [standings]string{isClean: policy.Clean, isOpen: policy.Open, isFixed: policy.Fixed, isExempt: policy.Exempt}

// usualClean is asked for where no stage has a ratchet: the fact may be asked about all the same.
const usualClean = 60 * 24 * time.Hour

// MakeSnapshot looks at all accounts of a ledger.
func MakeSnapshot(accounts iter.Seq2[*Account, error], p *policy.Policy, now time.Time, zone *time.Location) (*Snapshot, error) {
	s := &Snapshot{seed: maphash.MakeSeed()}
	c := cleanness(p)
	for a, err := range accounts {
		if err != nil {
			return nil, err
		}
		is := c.standing(examine(p, a, now, zone))
		s.counts[is]++
		if is != unknown {
			s.accounts = append(s.accounts, s.hash(a.Name)|uint64(is))
		}
	}
	slices.Sort(s.accounts)
	alike := false
	for i := 1; i < len(s.accounts); i++ {
		if a, b := &s.accounts[i-1], &s.accounts[i]; *a&^standingBits == *b&^standingBits {
			*a, *b, alike = *a&^standingBits, *b&^standingBits, true // two accounts, so neither is certain
		}
	}
	if alike {
		s.accounts = slices.Compact(s.accounts)
	}
	return s, nil
}

func (s *Snapshot) hash(account string) uint64 {
	return maphash.String(s.seed, account) &^ standingBits
}

// Ledger is what is known of an account: clean, open, fixed or exempt; empty where it is
// not known. It allocates nothing. A nil snapshot knows nobody.
func (s *Snapshot) Ledger(account string) string {
	if s == nil || len(s.accounts) == 0 {
		return ""
	}
	hash := s.hash(account)
	i, found := slices.BinarySearch(s.accounts, hash)
	if found || i == len(s.accounts) || s.accounts[i]&^standingBits != hash {
		return "" // found without a standing: see alike
	}
	return standingFacts[s.accounts[i]&standingBits]
}

// Counts are the accounts by what is said of them; "unknown" are those of which nothing is.
func (s *Snapshot) Counts() map[string]int {
	all := map[string]int{"unknown": s.counts[unknown]}
	for i, fact := range standingFacts {
		if fact != "" {
			all[fact] = s.counts[i]
		}
	}
	return all
}

// demand is what is asked of a clean account.
type demand struct {
	days      Day
	ratcheted []*policy.Requirement
}

func cleanness(p *policy.Policy) demand {
	var c demand
	longest := time.Duration(0)
	for _, r := range p.Requirements() {
		has := false
		for i := range r.Stages {
			if ratchet := r.Stages[i].Ratchet; ratchet != nil {
				has = true
				longest = max(longest, ratchet.Clean)
			}
		}
		if has {
			c.ratcheted = append(c.ratcheted, r)
		}
	}
	if longest == 0 {
		longest = usualClean
	}
	const day = 24 * time.Hour
	c.days = Day((longest + day - 1) / day)
	return c
}

func (c *demand) standing(x *examined) standing {
	worst := State("")
	for i := range x.trails {
		worst = worse(worst, x.trails[i].State)
	}
	switch {
	case worst.affected():
		return isOpen
	case worst == Exempt:
		return isExempt
	case c.of(x):
		return isClean
	case worst == Fixed:
		return isFixed
	}
	return unknown
}

// of reports whether an account is clean, of whose findings none is open.
func (c *demand) of(x *examined) bool {
	first, seen := x.first()
	begin := x.until - c.days
	if !seen || first > begin {
		return false
	}
	last := Day(0)
	for i := range x.Uses {
		u := &x.Uses[i]
		day, ok := u.lastUntil(x.until)
		if !ok || day <= begin {
			continue
		}
		last = max(last, day)
		for _, r := range c.ratcheted {
			if !r.Meets(x.facts[i]) {
				return false
			}
		}
		if x.fails[i] {
			return false
		}
	}
	return x.until-last < FixedAfter
}
