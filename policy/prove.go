package policy

// The prover: it tries every combination of facts that can make a difference, at
// every transition. Facts are few, and of each only those values are tried that
// some matcher tells apart, with one value for all the rest; so what is tried is
// all there is.

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// mostSteps bounds a proof to a few seconds. A step is the choice of one value for one
// fact, and one more for each fifty exceptions that must be looked at for it. A usual
// file needs some hundreds for a statement, one with ten thousand exceptions half a million.
const mostSteps = 1_500_000

// mostDraws bounds the search for an account that lies inside some shares and
// outside others.
const mostDraws = 1_000_000

// prover is the state of one check.
type prover struct {
	policy  *Policy
	left    int // steps
	classes map[classOf]string
	draws   map[string][]string
}

func newProver(p *Policy) *prover {
	return &prover{policy: p, left: mostSteps, classes: map[classOf]string{}, draws: map[string][]string{}}
}

// counter is a session for which a statement does not hold.
type counter struct {
	facts Facts
	at    time.Time
	meets Verdict
}

func (c *counter) String() string {
	var facts []string
	known := c.facts.Known()
	for _, name := range FactName("").Values() {
		if value := known[name]; value != "" {
			facts = append(facts, name+" "+value)
		}
	}
	by := ""
	if violated := c.meets.Violated(); violated != nil {
		by = " by " + strings.Join(violated, ", ")
	}
	return fmt.Sprintf("from %s on, a session with %s meets %v%s", clock(c.at), listOr(facts, "any facts"), c.meets.Action, by)
}

// prove tries a statement. It returns a session for which it does not hold, or
// nil, and whether any was tried.
func (x *prover) prove(s *statement, instants []time.Time) (against *counter, tried bool) {
	for _, now := range instants {
		if now.Before(s.from) || !s.until.IsZero() && !now.Before(s.until) {
			continue
		}
		var exceptions []*Exception
		for i := range x.policy.exceptions {
			if e := &x.policy.exceptions[i]; now.Before(e.Until) {
				exceptions = append(exceptions, e)
			}
		}
		var rules []*rule
		for i := range x.policy.rules {
			if r := &x.policy.rules[i]; !now.Before(r.Stages[0].From) {
				rules = append(rules, r)
			}
		}
		x.each(now, rules, s.match, exceptions, func(f *Facts) bool {
			tried = true
			if v := x.policy.Decide(f, now); s.never == (v.Action >= s.do) {
				against = &counter{*f, now, v}
			}
			return against == nil
		})
		if against != nil || x.left <= 0 {
			break
		}
	}
	return against, tried
}

// instants lists one of each time in which nothing changes: every transition, a
// moment before the first, and within each stage one of every set of windows
// that are open together.
func (p *Policy) instants(also ...time.Time) []time.Time {
	all := slices.DeleteFunc(slices.Clone(also), time.Time.IsZero)
	for i := range p.rules {
		for _, s := range p.rules[i].Stages {
			all = append(all, s.From)
		}
	}
	for i := range p.exceptions {
		all = append(all, p.exceptions[i].Until)
	}
	slices.SortFunc(all, time.Time.Compare)
	all = slices.CompactFunc(all, time.Time.Equal)
	if len(all) == 0 {
		return nil
	}
	result := []time.Time{all[0].Add(-time.Nanosecond)}
	for i, from := range all {
		until := from.Add(listedAhead)
		if i+1 < len(all) && all[i+1].Before(until) {
			until = all[i+1]
		}
		result = append(result, from)
		seen := map[uint64]bool{p.open(from): true}
		for _, at := range p.edges(from, until) {
			if open := p.open(at); !seen[open] {
				seen[open] = true
				result = append(result, at)
			}
		}
	}
	return result
}

// edges lists where windows begin and end in a time without other transitions.
func (p *Policy) edges(from, until time.Time) (all []time.Time) {
	for i := range p.rules {
		r := &p.rules[i]
		stage := r.stageAt(from)
		for stage >= 0 {
			s := &r.Stages[stage]
			if s.Brownout != nil {
				begin := maxTime(s.From, from.Add(-s.Brownout.For))
				for _, w := range s.Brownout.windows(begin, until, mostWindows) {
					for _, edge := range []time.Time{w.From, w.Until} {
						if edge.After(from) && edge.Before(until) {
							all = append(all, edge)
						}
					}
				}
			}
			if s.Share == 0 {
				break
			}
			stage = r.fallback[stage]
		}
	}
	slices.SortFunc(all, time.Time.Compare)
	return all
}

// open says whose windows are open, a bit for each brownout that is in force. Where
// there are more than sixty at a time, the last share one.
func (p *Policy) open(now time.Time) (open uint64) {
	bit := 0
	for i := range p.rules {
		r := &p.rules[i]
		stage := r.stageAt(now)
		if stage < 0 {
			continue
		}
		for _, stage := range []int{stage, r.fallback[stage]} {
			if stage < 0 || r.Stages[stage].Brownout == nil {
				continue
			}
			if _, _, is := r.Stages[stage].Brownout.window(now, r.Stages[stage].From); is {
				open |= 1 << bit
			}
			bit = min(bit+1, 63)
		}
	}
	return open
}

// theAddress stands for the client's address among facts.
const theAddress = factCount

// order is that in which facts are chosen: those that exceptions are told apart
// by, so that the rest of the search meets few of them; then those that decide
// what others can be.
var order = func() []Fact {
	all := []Fact{Account, theAddress, Domain, Brand, Protocol, TLS}
	for f := range factCount {
		if !slices.Contains(all, f) {
			all = append(all, f)
		}
	}
	return all
}()

// search is one enumeration.
type search struct {
	*prover
	now   time.Time
	match Matcher
	visit func(*Facts) bool
	drawn []string // accounts, one for each way to lie in the shares now in force
	bits  func(account string) string
}

// each calls visit for every session that matches and that the requirements and
// exceptions tell apart, until it says no or the steps are used up. It reports
// whether all were visited.
func (x *prover) each(now time.Time, rules []*rule, match Matcher, exceptions []*Exception, visit func(*Facts) bool) bool {
	s := &search{prover: x, now: now, match: match, visit: visit}
	s.draw(rules)
	return s.choose(0, new(Facts), rules, exceptions)
}

// choose tries the values of one fact after the other.
func (s *search) choose(depth int, f *Facts, rules []*rule, exceptions []*Exception) bool {
	if s.left -= 1 + len(exceptions)/50; s.left <= 0 {
		return false
	}
	if depth == len(order) {
		if s.match.match(f) != yes {
			return true // it hangs on a fact that such a session never has
		}
		return s.visit(f)
	}
	fact := order[depth]
	values := s.values(fact, f, rules, exceptions)
	var by map[string][]*Exception // so that not each account looks at all exceptions
	if fact == Account {
		by, exceptions = byAccount(exceptions)
	}
	for _, value := range values {
		next := *f
		if fact == theAddress {
			next.IP = value.ip
		} else {
			next.Set(fact, value.text)
		}
		if s.match.match(&next) == no {
			continue
		}
		still := exceptions
		if own := by[value.text]; fact == Account && own != nil {
			still = slices.Concat(own, exceptions)
		}
		if !s.choose(depth+1, &next, stillRules(rules, &next), stillExceptions(still, &next)) {
			return false
		}
	}
	return true
}

// byAccount divides exceptions into those that list accounts, by account, and the others.
func byAccount(exceptions []*Exception) (by map[string][]*Exception, others []*Exception) {
	by = map[string][]*Exception{}
	for _, e := range exceptions {
		i := slices.IndexFunc(e.Match, func(t Term) bool { return t.about(Account) && !t.Not })
		if i < 0 {
			others = append(others, e)
			continue
		}
		for _, account := range e.Match[i].Values {
			by[account] = append(by[account], e)
		}
	}
	return by, others
}

// stillRules leaves out the requirements that are certainly not violated.
func stillRules(rules []*rule, f *Facts) []*rule {
	if !slices.ContainsFunc(rules, func(r *rule) bool { return r.violatedBy(f) == no }) {
		return rules
	}
	return slices.DeleteFunc(slices.Clone(rules), func(r *rule) bool { return r.violatedBy(f) == no })
}

// stillExceptions leaves out the exceptions that certainly do not match.
func stillExceptions(exceptions []*Exception, f *Facts) []*Exception {
	if !slices.ContainsFunc(exceptions, func(e *Exception) bool { return e.Match.match(f) == no }) {
		return exceptions
	}
	return slices.DeleteFunc(slices.Clone(exceptions), func(e *Exception) bool { return e.Match.match(f) == no })
}

// choice is a value to try.
type choice struct {
	text string
	ip   netip.Addr
}

// about reports whether a term is about a fact.
func (t *Term) about(fact Fact) bool {
	if t.Networks != nil {
		return fact == theAddress
	}
	return t.Fact == fact
}

// values lists those values of a fact that something still tells apart: one where
// nothing does, which is then no value at all.
func (s *search) values(fact Fact, f *Facts, rules []*rule, exceptions []*Exception) []choice {
	if f.values[TLS] == None && (fact == Host || fact == SNI || fact == CipherClass) {
		return []choice{{}} // only a handshake makes them known
	}
	fixed := s.terms(rules, fact)
	relevant := fact == Account && len(s.drawn) > 1 ||
		fact == Ledger && slices.ContainsFunc(rules, func(r *rule) bool { return r.ratchets(s.now) }) ||
		fact == TLS && s.asksHandshake(rules, exceptions)
	classes, loose := s.classesOf(fact, exceptions)
	terms := slices.Concat(fixed, loose)
	if !relevant && len(terms) == 0 && classes.empty() {
		return []choice{{}}
	}
	var domains *domainKinds
	if fact == Account {
		domains = s.domainsOf(rules, exceptions)
	}
	var chosen []choice
	seen := map[string]bool{}
	for _, v := range s.candidates(fact, f, terms, classes) {
		var alone Facts
		if fact == theAddress {
			alone.IP = v.ip
		} else {
			alone.values[fact] = v.text
		}
		var b strings.Builder // what is told of the value: the same for values that are alike
		for _, t := range terms {
			b.WriteByte('0' + byte(t.match(&alone)))
		}
		switch {
		case fact == Account:
			b.WriteString(s.bits(v.text) + domains.of(v.text))
		case fact == TLS && v.text == None:
			b.WriteString("no handshake") // and what only that makes known
		case fact == Ledger && v.text == Clean, fact == Ledger && v.text == "":
			b.WriteString("ledger " + v.text) // a ratchet tells them apart
		}
		b.WriteString(strings.Join(classes.of(v), "\x00"))
		if !seen[b.String()] {
			seen[b.String()] = true
			chosen = append(chosen, v)
		}
	}
	return chosen
}

// terms lists the terms about a fact in the matcher and the requirements.
func (s *search) terms(rules []*rule, fact Fact) (all []*Term) {
	collect := func(m Matcher) {
		for i := range m {
			if m[i].about(fact) {
				all = append(all, &m[i])
			}
		}
	}
	collect(s.match)
	for _, r := range rules {
		collect(r.Scope)
		collect(r.Require)
	}
	return all
}

// asksHandshake reports whether anything asks for facts that a session in clear
// does not have.
func (s *search) asksHandshake(rules []*rule, exceptions []*Exception) bool {
	for _, fact := range []Fact{Host, SNI, CipherClass} {
		if len(s.terms(rules, fact)) > 0 {
			return true
		}
		for _, e := range exceptions {
			for i := range e.Match {
				if e.Match[i].about(fact) {
					return true
				}
			}
		}
	}
	return false
}

// domainKinds tells accounts apart by the domains that they bring along.
type domainKinds struct {
	terms   []*Term
	classes *classSet
}

func (s *search) domainsOf(rules []*rule, exceptions []*Exception) *domainKinds {
	d := &domainKinds{terms: s.terms(rules, Domain)}
	var loose []*Term
	d.classes, loose = s.classesOf(Domain, exceptions)
	d.terms = append(d.terms, loose...)
	return d
}

// of says what is told of an account's domain, where it has one.
func (d *domainKinds) of(account string) string {
	domain := domainOf(account)
	if domain == "" || len(d.terms) == 0 && d.classes.empty() {
		return ""
	}
	b := []byte{'@'}
	for _, t := range d.terms {
		if b = append(b, '-'); t.has(domain) {
			b[len(b)-1] = '+'
		}
	}
	return string(b) + strings.Join(d.classes.of(choice{text: domain}), "\x00")
}

// domainOf is what an account says of its domain: it may say nothing.
func domainOf(account string) string {
	_, domain, _ := strings.Cut(account[max(0, strings.LastIndexByte(account, '@')):], "@")
	return domain
}

// ratchets reports whether the stage in force, or one that others get, has a ratchet.
func (r *rule) ratchets(now time.Time) bool {
	stage := r.stageAt(now)
	return stage >= 0 && (r.Stages[stage].Ratchet != nil || r.fallback[stage] >= 0 && r.Stages[r.fallback[stage]].Ratchet != nil)
}

// candidates lists the values of a fact that are named anywhere, and one that is not.
func (s *search) candidates(fact Fact, f *Facts, terms []*Term, classes *classSet) []choice {
	switch {
	case fact == theAddress:
		return addresses(terms, classes)
	case fact == Entry && f.values[TLS] == None:
		return []choice{{text: EntryPlain}}
	case fact == Domain && domainOf(f.values[Account]) != "":
		return []choice{{text: domainOf(f.values[Account])}}
	}
	var all []choice
	if fact == Client || fact == Ledger {
		all = append(all, choice{}) // it may stay unknown
	}
	if domain := domains[fact]; domain != nil {
		for _, v := range domain {
			if fact != Entry || v != EntryPlain || f.values[TLS] == "" {
				all = append(all, choice{text: v})
			}
		}
		return all
	}
	named := map[string]bool{}
	for _, t := range terms {
		for _, v := range t.Values {
			named[v] = true
		}
	}
	for v := range classes.values {
		named[v] = true
	}
	for _, v := range slices.Sorted(maps.Keys(named)) {
		all = append(all, choice{text: v})
	}
	if fact == Account {
		for _, account := range s.drawn {
			all = append(all, choice{text: account})
		}
		return all
	}
	other := "another-" + fact.String()
	if fact == Port {
		other = "1"
	}
	for named[other] {
		other += "1"
	}
	return append(all, choice{text: other})
}

// addresses lists one address of each part into which networks divide all: every
// part begins at the first of one, or behind the last.
func addresses(terms []*Term, classes *classSet) []choice {
	all := []choice{{ip: netip.MustParseAddr("192.0.2.1")}, {ip: netip.MustParseAddr("2001:db8::1")},
		{ip: netip.IPv4Unspecified()}, {ip: netip.IPv6Unspecified()}}
	add := func(n netip.Prefix) {
		all = append(all, choice{ip: n.Addr()})
		if next := lastOf(n).Next(); next.IsValid() {
			all = append(all, choice{ip: next})
		}
	}
	for _, t := range terms {
		for _, n := range t.Networks {
			add(n)
		}
	}
	for _, n := range slices.SortedFunc(maps.Keys(classes.networks), netip.Prefix.Compare) {
		add(n)
	}
	return all
}

// lastOf is the last address of a network.
func lastOf(n netip.Prefix) netip.Addr {
	b := n.Addr().AsSlice()
	for i := n.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	last, _ := netip.AddrFromSlice(b)
	return last
}

// classSet knows which exceptions list a value. Exceptions that say the same but
// for the fact in question are one class, so that ten thousand of them are two
// cases: accounts that have one, and all others.
type classSet struct {
	values   map[string][]string
	networks map[netip.Prefix][]string
	lengths  []int
}

func (c *classSet) empty() bool { return len(c.values) == 0 && len(c.networks) == 0 }

// classOf is an exception without what it says of a fact.
type classOf struct {
	exception *Exception
	fact      Fact
}

// classesOf returns the classes for a fact, or nil, and the terms that exclude
// values, which have none.
func (x *prover) classesOf(fact Fact, exceptions []*Exception) (*classSet, []*Term) {
	c := &classSet{values: map[string][]string{}, networks: map[netip.Prefix][]string{}}
	var loose []*Term
	for _, e := range exceptions {
		first := true
		for i := range e.Match {
			t := &e.Match[i]
			if !t.about(fact) {
				continue
			}
			if t.Not || !first {
				loose = append(loose, t)
				continue
			}
			first = false
			class := x.class(e, fact, i)
			for _, v := range t.Values {
				c.values[v] = append(c.values[v], class)
			}
			for _, n := range t.Networks {
				c.networks[n] = append(c.networks[n], class)
				if !slices.Contains(c.lengths, n.Bits()) {
					c.lengths = append(c.lengths, n.Bits())
				}
			}
		}
	}
	return c, loose
}

// class names an exception without one of its terms, which is the only one for the fact.
func (x *prover) class(e *Exception, fact Fact, term int) string {
	at := classOf{e, fact}
	name, known := x.classes[at]
	if !known {
		rest := slices.Delete(slices.Clone(e.Match), term, term+1)
		name = fmt.Sprintf("%q %v %s", slices.Sorted(slices.Values(e.For)), e.Cap, rest.key())
		x.classes[at] = name
	}
	return name
}

// of returns the classes in which a value is listed.
func (c *classSet) of(v choice) []string {
	classes := slices.Clone(c.values[v.text])
	if v.ip.IsValid() {
		for _, length := range c.lengths {
			if n, err := v.ip.Prefix(length); err == nil {
				classes = append(classes, c.networks[n]...)
			}
		}
	}
	slices.Sort(classes)
	return slices.Compact(classes)
}

// draw finds accounts for every way to lie in the shares that are in force.
func (s *search) draw(rules []*rule) {
	type part struct {
		id    string
		share Share
	}
	var parts []part
	for _, r := range rules {
		if stage := r.stageAt(s.now); stage >= 0 && r.Stages[stage].Share > 0 {
			parts = append(parts, part{r.ID, r.Stages[stage].Share})
		}
	}
	s.bits = func(account string) string {
		b := make([]byte, len(parts))
		for i, p := range parts {
			if b[i] = 'o'; Bucket(p.id, account) < p.share {
				b[i] = 'i'
			}
		}
		return string(b)
	}
	const most = 10 // shares at a time, which are a thousand ways
	if len(parts) > most {
		s.left = 0
		return
	}
	key := fmt.Sprint(parts)
	if s.drawn = s.draws[key]; s.drawn != nil {
		return
	}
	seen := map[string]bool{}
	for n := 1; len(seen) < 1<<len(parts); n++ {
		if n > mostDraws {
			s.left = 0 // too rare to be found: no proof
			return
		}
		account := fmt.Sprintf("another-account-%d", n)
		if bits := s.bits(account); !seen[bits] {
			seen[bits] = true
			s.drawn = append(s.drawn, account)
		}
	}
	s.draws[key] = s.drawn
}
