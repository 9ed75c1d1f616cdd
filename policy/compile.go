package policy

// From the file to the policy: names become values, dates become instants, and
// what contradicts itself is told.

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Problem is one thing wrong with a policy file, and what to do about it.
type Problem struct {
	Warning bool   // the file can come into force all the same
	Key     string // path of the value, like requirements[2].stages[0].do
	Message string
	Cure    string
}

// Compile makes a policy of the file, or tells everything that prevents it. What
// is merely strange, or wrong at some time only, is left to [File.Check].
func (f *File) Compile(name string) (*Policy, []Problem) {
	c := f.compiler()
	requirements, exceptions := c.requirements(), c.exceptions()
	c.tests()
	c.statements("always", f.Always)
	c.statements("never", f.Never)
	if len(c.problems) > 0 {
		return nil, c.problems
	}
	p, err := New(name, requirements, exceptions...)
	if err != nil {
		c.fail("", err.Error(), "this should have been told in other words; please report it")
		return nil, c.problems
	}
	return p, nil
}

// compiler is the state of one Compile.
type compiler struct {
	file     *File
	zone     *time.Location
	used     map[ID]bool // sets
	problems []Problem
}

func (f *File) compiler() *compiler {
	c := &compiler{file: f, zone: f.zone(), used: map[ID]bool{}}
	for _, name := range slices.Sorted(maps.Keys(f.Sets)) {
		if len(f.Sets[name]) == 0 {
			c.fail("sets."+string(name), "the list is empty", "name a value, or leave the set out")
		}
		for fact, all := range domains {
			if slices.Contains(all, string(name)) {
				c.fail("sets."+string(name), "this is also a value of "+Fact(fact).String(), "choose another name")
				break
			}
		}
	}
	return c
}

// zone is that of the file's dates.
func (f *File) zone() *time.Location {
	if f.Zone == nil {
		return time.UTC
	}
	return f.Zone
}

// fail tells an error; once, where a set is used in many places.
func (c *compiler) fail(key, message, cure string) {
	if p := (Problem{Key: key, Message: message, Cure: cure}); !slices.Contains(c.problems, p) {
		c.problems = append(c.problems, p)
	}
}

// failed tells an error.
func (c *compiler) failed(key string, err error) {
	cure := ""
	if m, ok := err.(mistake); ok {
		cure = m.cure
	}
	c.fail(key, err.Error(), cure)
}

// at is the key of an element of a list, and of something in it.
func at(list string, i int, inner string) string {
	key := fmt.Sprintf("%s[%d]", list, i)
	if inner != "" {
		key += "." + inner
	}
	return key
}

func (c *compiler) requirements() []Requirement {
	first := map[ID]int{}
	var all []Requirement
	for i, r := range c.file.Requirements {
		if n, twice := first[r.ID]; twice {
			c.fail(at("requirements", i, "id"), fmt.Sprintf("%q is the id of requirements[%d] already", r.ID, n), "choose another")
		} else {
			first[r.ID] = i
		}
		if i == maxRequirements {
			c.fail(at("requirements", i, ""), fmt.Sprintf("there are more than %d requirements", maxRequirements),
				"one with a wider scope may take the place of several")
		}
		q := Requirement{ID: string(r.ID), Finding: r.Finding,
			Scope: c.match(at("requirements", i, "scope"), r.Scope), Require: c.match(at("requirements", i, "require"), r.Require)}
		_, asksMechanism := r.Require["mechanism"]
		for j := range r.Stages {
			q.Stages = append(q.Stages, c.stage(at("requirements", i, at("stages", j, "")), r.Stages, j, asksMechanism))
		}
		all = append(all, q)
	}
	return all
}

// stage makes a stage and holds it against the one before it.
func (c *compiler) stage(key string, stages []FileStage, j int, asksMechanism bool) Stage {
	f := &stages[j]
	s := Stage{From: f.From.begins(c.zone), Do: f.Do}
	if j > 0 {
		before := &stages[j-1]
		switch from := before.From.begins(c.zone); {
		case s.From.Equal(from):
			c.fail(key+".from", fmt.Sprintf("stages[%d] begins at the same time, and is never reached", j-1), "leave one of them out, or move one")
		case s.From.Before(from):
			c.fail(key+".from", fmt.Sprintf("it lies before %s of stages[%d]", before.From, j-1), "put the stages in the order of their dates")
		}
		switch {
		case f.Do < before.Do && !f.Lower:
			c.fail(key+".do", fmt.Sprintf("%v is milder than %v before it", f.Do, before.Do), "write lower: true beside it if that is meant")
		case f.Do >= before.Do && f.Share != nil && before.Share != nil && *f.Share < *before.Share && !f.Lower:
			c.fail(key+".share", fmt.Sprintf("%v are fewer than the %v before it", *f.Share, *before.Share),
				"accounts would be let off; write lower: true beside it if that is meant")
		}
		if r := before.Ratchet; r != nil && f.Do < r.Do && (f.Ratchet == nil || f.Ratchet.Do < r.Do) && !f.Lower {
			c.fail(key+".do", fmt.Sprintf("accounts that the ratchet of stages[%d] holds at %v would fall back", j-1, r.Do),
				"carry the ratchet on, or write lower: true beside it if that is meant")
		}
	}
	if f.Share != nil {
		s.Share = *f.Share
		if s.Share == 0 {
			c.fail(key+".share", "a share of 0% is for nobody", "leave the stage out, or give a share")
		}
	}
	if b := f.Brownout; b != nil {
		s.Brownout = c.brownout(key+".brownout", f, s.From, stages[j+1:])
	}
	if r := f.Ratchet; r != nil {
		s.Ratchet = &Ratchet{Clean: r.Clean, Do: r.Do}
		if r.Do <= f.Do {
			c.fail(key+".ratchet.do", fmt.Sprintf("%v is no severer than %v of the stage itself", r.Do, f.Do), "leave the ratchet out, or make it severer")
		}
	}
	if f.Share != nil && s.severest() == Refuse {
		c.fail(key+".share", "refuse comes before the account is known, so it has no share", "write deny, or leave the share out")
	}
	if g := f.Guard; g != nil {
		s.Guard = &Guard{Open: g.Open, Do: g.Do}
		if severest := s.severest(); g.Do >= severest {
			c.fail(key+".guard.do", fmt.Sprintf("%v is no milder than %v, the most that the stage does", g.Do, severest), "leave the guard out, or make it milder")
		}
		if g.Open == Everybody {
			c.fail(key+".guard.open", "there are never more than 100%", "leave the guard out, or give a smaller share")
		}
	}
	if f.Probe != nil {
		s.Probe = *f.Probe
		switch {
		case s.Probe == 0:
			c.fail(key+".probe", "a probe of 0% hides nothing", "leave it out, or give a share")
		case !asksMechanism:
			c.fail(key+".probe", "the requirement is not about a mechanism, so there is none to hide", "move it to the requirement with the key mechanism")
		case f.Do.Refuses():
			c.fail(key+".probe", fmt.Sprintf("with %v the mechanism is not offered anyway", f.Do), "leave it out")
		}
	}
	return s
}

func (c *compiler) brownout(key string, f *FileStage, from time.Time, later []FileStage) *Brownout {
	b := &Brownout{Do: f.Brownout.Do, At: time.Duration(f.Brownout.At), For: f.Brownout.For, Zone: c.zone}
	for i, d := range f.Brownout.Days {
		if b.Days[d.Day()] {
			c.fail(at(key+".days", i, ""), string(d)+" stands twice in the list", "leave one of them")
		}
		b.Days[d.Day()] = true
	}
	if b.Do <= f.Do {
		c.fail(key+".do", fmt.Sprintf("%v is no severer than %v of the stage itself", b.Do, f.Do), "leave the brownout out, or make it severer")
	}
	if distance := b.distance(); b.For >= distance {
		c.fail(key+".for", fmt.Sprintf("the next begins after %s, before this one has ended", duration(distance)), "make it shorter, or leave out days")
	} else if len(later) > 0 {
		if until := later[0].From.begins(c.zone); from.Before(until) && len(b.windows(from, until, 1)) == 0 {
			c.fail(key, fmt.Sprintf("the stage ends on %s before the first of them", later[0].From), "choose other days, or another date")
		}
	}
	return b
}

// distance is the shortest from the beginning of a window to the next.
func (b *Brownout) distance() time.Duration {
	shortest := 7
	for d := range b.Days {
		for n := 1; n < shortest && b.Days[d]; n++ {
			if b.Days[(d+n)%7] {
				shortest = n
			}
		}
	}
	return time.Duration(shortest) * 24 * time.Hour
}

// windows lists the windows that begin in a time, at most so many.
func (b *Brownout) windows(from, until time.Time, most int) (all []Window) {
	y, m, d := from.In(b.zone()).Date()
	for n := 0; len(all) < most; n++ {
		begin := wall(y, m, d+n, b.At, b.zone())
		if !begin.Before(until) || n > 7 && b.Days == [7]bool{} {
			break
		}
		if b.Days[weekday(y, m, d+n)] && !begin.Before(from) {
			all = append(all, Window{begin, begin.Add(b.For)})
		}
	}
	return all
}

// Window is one of the outages of a brownout.
type Window struct {
	From  time.Time `json:"from"`
	Until time.Time `json:"until"`
}

func (c *compiler) exceptions() []Exception {
	first := map[ID]int{}
	requirements := map[ID]*FileRequirement{}
	var ids []string
	for i := range c.file.Requirements {
		r := &c.file.Requirements[i]
		requirements[r.ID] = r
		ids = append(ids, string(r.ID))
	}
	var all []Exception
	for i, x := range c.file.Exceptions {
		if n, twice := first[x.ID]; twice {
			c.fail(at("exceptions", i, "id"), fmt.Sprintf("%q is the id of exceptions[%d] already", x.ID, n), "choose another")
		} else {
			first[x.ID] = i
		}
		e := Exception{ID: string(x.ID), Match: c.match(at("exceptions", i, "match"), x.Match), Cap: x.Cap,
			Until: x.Until.ends(c.zone), Reason: x.Reason, Owner: x.Owner}
		for j, id := range x.For {
			key := at("exceptions", i, at("for", j, ""))
			if c.known(key, id, ids) && slices.Contains(e.For, string(id)) {
				c.fail(key, string(id)+" stands twice in the list", "leave one of them")
			}
			e.For = append(e.For, string(id))
		}
		if x.Cap == Refuse {
			c.fail(at("exceptions", i, "cap"), "nothing is severer than refuse, so it lowers nothing", "write what is left for them, like notify")
		}
		for _, field := range []struct{ key, text string }{{"reason", x.Reason}, {"owner", x.Owner}} {
			if field.text != "" && strings.TrimSpace(field.text) == "" {
				c.fail(at("exceptions", i, field.key), "it is empty", "say it, for whoever reads this in half a year")
			}
		}
		all = append(all, e)
	}
	return all
}

// known tells a requirement that does not exist.
func (c *compiler) known(key string, id ID, ids []string) bool {
	if slices.Contains(ids, string(id)) {
		return true
	}
	c.fail(key, fmt.Sprintf("there is no requirement %q", id), Suggest(string(id), ids))
	return false
}

func (c *compiler) tests() {
	var ids []string
	for _, r := range c.file.Requirements {
		ids = append(ids, string(r.ID))
	}
	for i, t := range c.file.Tests {
		key := at("tests", i, "is")
		c.facts(key, t.Is)
		for j, id := range t.By {
			c.known(at("tests", i, at("by", j, "")), id, ids)
		}
	}
}

// facts makes facts of what a test says.
func (c *compiler) facts(key string, is map[FactName]Word) *Facts {
	f := new(Facts)
	for _, name := range slices.Sorted(maps.Keys(is)) {
		if err := f.Learn(string(name), string(is[name])); err != nil {
			c.failed(key+"."+string(name), err)
		}
	}
	return f
}

// statement is a [FileStatement] made ready.
type statement struct {
	key         string
	never       bool
	match       Matcher
	do          Action
	from, until time.Time // until is zero where there is no end
}

func (c *compiler) statements(key string, of []FileStatement) []statement {
	var all []statement
	for i, f := range of {
		s := statement{key: at(key, i, ""), never: key == "never", match: c.match(at(key, i, "match"), f.Match).prepared(), do: f.Do,
			from: f.From.begins(c.zone), until: f.Until.ends(c.zone)}
		if f.Do == Pass {
			c.fail(at(key, i, "do"), "pass is what happens anyway", "write the action that it is about, like tempfail for every refusal")
		}
		if !s.until.IsZero() && !s.from.Before(s.until) {
			c.fail(at(key, i, "until"), "it ends before it begins", "exchange the dates")
		}
		all = append(all, s)
	}
	return all
}

// match makes a matcher.
func (c *compiler) match(key string, of FileMatch) Matcher {
	var m Matcher
	for _, name := range slices.Sorted(maps.Keys(of)) {
		m = append(m, c.term(key+"."+string(name), name, of[name]))
	}
	return m
}

// term makes a term of what is written at a key.
func (c *compiler) term(key string, name FactName, of Choice) Term {
	words, t := of.In, Term{}
	if of.NotIn != nil {
		words, key, t.Not = of.NotIn, key+".not_in", true
	}
	if len(words) == 0 {
		c.fail(key, "there are no values", "name some, or leave the key out")
	}
	fact := Fact(slices.Index(factNames[:], string(name)))
	isNetwork := name == factIP || name == factNetwork
	if isNetwork {
		t.Networks = []netip.Prefix{}
	} else {
		t.Fact = fact
	}
	add := func(key string, w Word) {
		switch {
		case isNetwork:
			n, err := networkOf(name, string(w))
			if err != nil {
				c.failed(key, err)
			}
			t.Networks = append(t.Networks, n)
		case strings.ContainsAny(string(w[:1]), "<>="):
			values, err := compared(fact, string(w))
			if err != nil {
				c.failed(key, err)
			}
			t.Values = append(t.Values, values...)
		default:
			value, err := valueOf(fact, string(w))
			if err != nil {
				c.failed(key, c.orSet(err, string(w)))
			}
			t.Values = append(t.Values, value)
		}
	}
	seen := map[Word]bool{}
	for i, w := range words {
		place := at(key, i, "")
		if seen[w] {
			c.fail(place, fmt.Sprintf("%q stands twice in the list", w), "leave one of them")
		}
		seen[w] = true
		if set, ok := c.file.Sets[ID(w)]; ok {
			c.used[ID(w)] = true
			for j, w := range set {
				add(at("sets."+string(words[i]), j, ""), w)
			}
			continue
		}
		add(place, w)
	}
	return t
}

// orSet adds the names of the sets to the cure for an unknown value.
func (c *compiler) orSet(err error, word string) error {
	m, ok := err.(mistake)
	if !ok || len(c.file.Sets) == 0 {
		return err
	}
	var names []string
	for name := range c.file.Sets {
		names = append(names, string(name))
	}
	slices.Sort(names)
	if name := nearest(word, names); name != "" {
		return mistake{m.message + ", nor is there such a set", "did you mean the set " + name + "?"}
	}
	return m
}

// compared lists the values that a comparison means.
func compared(fact Fact, text string) ([]string, error) {
	operator := text[:len(text)-len(strings.TrimLeft(text, "<>="))]
	version := strings.TrimSpace(text[len(operator):])
	if fact != TLS {
		return nil, mistake{"only tls can be compared", "list the values of " + fact.String()}
	}
	i := slices.Index(tlsVersions, version)
	if i < 0 {
		return nil, mistake{quote(version) + " is not a value of tls", Suggest(version, tlsVersions)}
	}
	var values []string
	switch operator {
	case ">=":
		values = tlsVersions[i:]
	case ">":
		values = tlsVersions[i+1:]
	case "<=":
		values = tlsVersions[:i+1]
	case "<":
		values = tlsVersions[:i]
	default:
		return nil, mistake{quote(operator) + " is not a comparison", "write >=, >, <= or <, or the value alone"}
	}
	if len(values) == 0 {
		return nil, mistake{"no value is " + operator + " " + version, "the values are " + strings.Join(tlsVersions, ", ")}
	}
	return values, nil
}

// networkOf reads a network in CIDR form without host bits (RFC 4632 section
// 3.1), or a single address.
func networkOf(name FactName, text string) (netip.Prefix, error) {
	if ip, err := netip.ParseAddr(text); err == nil && ip.Zone() == "" {
		ip = ip.Unmap()
		if name == factIP {
			return netip.PrefixFrom(ip, ip.BitLen()), nil
		}
		return netip.Prefix{}, mistake{quote(text) + " is an address, not a network", fmt.Sprintf("write %s/%d, or the key ip", ip, ip.BitLen())}
	}
	n, err := netip.ParsePrefix(text)
	switch {
	case err != nil && name == factIP:
		return netip.Prefix{}, mistake{quote(text) + " is not an IP address", "write one like 198.51.100.7 or 2001:db8::7"}
	case err != nil || n.Addr().Is4In6():
		return netip.Prefix{}, mistake{quote(text) + " is not a network", "write one like 198.51.100.0/28 or 2001:db8::/32"}
	case name == factIP:
		return netip.Prefix{}, mistake{quote(text) + " is a network, not an address", "use the key network"}
	case n != n.Masked():
		return netip.Prefix{}, mistake{quote(text) + " has bits set behind its length", "write " + n.Masked().String()}
	}
	return n, nil
}

// duration writes a duration as the file has it: 7d, 36h, 30m.
func duration(d time.Duration) string {
	switch {
	case d >= 24*time.Hour && d%(24*time.Hour) == 0:
		return fmt.Sprintf("%dd", d/(24*time.Hour))
	case d%time.Hour == 0:
		return fmt.Sprintf("%dh", d/time.Hour)
	case d%time.Minute == 0 && d < time.Hour:
		return fmt.Sprintf("%dm", d/time.Minute)
	}
	return strings.TrimSuffix(d.String(), "0s")
}
