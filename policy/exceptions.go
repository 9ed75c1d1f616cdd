package policy

// The index of exceptions. There may be ten thousand, one for each customer with
// an old copier, and a decision must not feel it: it looks up what is known. With
// the account still unknown, it asks for the mildest that any account could have,
// which is kept ready by the day on which it ends.

import (
	"net/netip"
	"slices"
	"strings"
	"time"
)

// index finds the exceptions of one requirement.
type index struct {
	networks map[netip.Prefix]groups // those with networks, under each of them
	lengths  []int                   // of those networks
	others   groups
}

// groups are exceptions, in groups of those that differ in one fact alone.
type groups []group

type group struct {
	rest  Matcher                 // what they have in common, without the network
	fact  Fact                    // in which they differ; factCount: in none
	by    map[string][]*Exception // by that fact's value
	order []*Exception            // the first to end first
	least []*Exception            // least[i]: the mildest of order[i:]
}

func indexOf(exceptions []*Exception) index {
	var others []*Exception
	networks := map[netip.Prefix][]*Exception{}
	x := index{networks: map[netip.Prefix]groups{}}
	for _, e := range exceptions {
		i := e.Match.network()
		if i < 0 {
			others = append(others, e)
			continue
		}
		for _, n := range e.Match[i].Networks {
			networks[n] = append(networks[n], e)
			if !slices.Contains(x.lengths, n.Bits()) {
				x.lengths = append(x.lengths, n.Bits())
			}
		}
	}
	x.others = groupsOf(others)
	for n, es := range networks {
		x.networks[n] = groupsOf(es)
	}
	return x
}

func groupsOf(exceptions []*Exception) (gs groups) {
	at := map[string]int{}
	for _, e := range exceptions {
		rest := e.Match
		if i := rest.network(); i >= 0 {
			rest = slices.Delete(slices.Clone(rest), i, i+1)
		}
		fact, values := factCount, []string{""}
		for _, key := range []Fact{Account, Domain} {
			i := slices.IndexFunc(rest, func(t Term) bool { return t.Networks == nil && t.Fact == key && !t.Not })
			if i >= 0 {
				fact, values, rest = key, rest[i].Values, slices.Delete(slices.Clone(rest), i, i+1)
				break
			}
		}
		name := string(rune(fact)) + rest.key()
		n, known := at[name]
		if !known {
			n = len(gs)
			at[name] = n
			gs = append(gs, group{fact: fact, rest: rest, by: map[string][]*Exception{}})
		}
		g := &gs[n]
		for _, v := range values {
			g.by[v] = append(g.by[v], e)
		}
		g.order = append(g.order, e)
	}
	for i := range gs {
		g := &gs[i]
		slices.SortFunc(g.order, func(a, b *Exception) int { return a.Until.Compare(b.Until) })
		g.least = slices.Clone(g.order)
		for i := len(g.least) - 2; i >= 0; i-- {
			g.least[i] = milder(g.least[i], g.least[i+1])
		}
	}
	return gs
}

// network finds the term that lists networks to lie in, or -1.
func (m Matcher) network() int {
	return slices.IndexFunc(m, func(t Term) bool { return t.Networks != nil && !t.Not })
}

// milder returns the exception that leaves less; of two alike, that which comes
// first by id. Either may be nil.
func milder(a, b *Exception) *Exception {
	if a == nil || b != nil && (b.Cap < a.Cap || b.Cap == a.Cap && strings.Compare(b.ID, a.ID) < 0) {
		return b
	}
	return a
}

// certain returns the mildest exception that is in force and matches.
func (x *index) certain(f *Facts, now time.Time) *Exception {
	best := x.others.find(f, now, yes, yes)
	if f.IP.IsValid() {
		for _, length := range x.lengths {
			best = milder(best, x.at(f.IP, length).find(f, now, yes, yes))
		}
	}
	return best
}

// possible returns the mildest that is in force and might match, but for those
// that do.
func (x *index) possible(f *Facts, now time.Time) *Exception {
	best := x.others.find(f, now, unknown, unknown)
	if f.IP.IsValid() {
		for _, length := range x.lengths {
			best = milder(best, x.at(f.IP, length).find(f, now, unknown, unknown))
		}
		return best
	}
	for _, gs := range x.networks {
		best = milder(best, gs.find(f, now, unknown, yes))
	}
	return best
}

// at returns the exceptions of the network of some length in which an address lies.
func (x *index) at(ip netip.Addr, length int) groups {
	network, err := ip.Unmap().WithZone("").Prefix(length)
	if err != nil {
		return nil // an IPv4 address, and the length is of IPv6
	}
	return x.networks[network]
}

// find returns the mildest in force that matches as one or the other says.
func (gs groups) find(f *Facts, now time.Time, one, other truth) (best *Exception) {
	for i := range gs {
		g := &gs[i]
		matches := g.rest.match(f)
		if matches == no {
			continue
		}
		value := ""
		if g.fact != factCount {
			if value = f.values[g.fact]; value == "" {
				matches = unknown
			}
		}
		switch {
		case matches != one && matches != other:
		case value == "":
			best = milder(best, g.after(now))
		default:
			for _, e := range g.by[value] {
				if now.Before(e.Until) {
					best = milder(best, e)
				}
			}
		}
	}
	return best
}

// after returns the mildest that is still in force.
func (g *group) after(now time.Time) *Exception {
	low, high := 0, len(g.order)
	for low < high { // sort.Search would need a closure
		if middle := (low + high) / 2; now.Before(g.order[middle].Until) {
			high = middle
		} else {
			low = middle + 1
		}
	}
	if low == len(g.order) {
		return nil
	}
	return g.least[low]
}
