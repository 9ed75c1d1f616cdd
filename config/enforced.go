package config

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"mailreeve/policy"
)

// The policy file as a part of the configuration: it is read once, so that what is
// in force stays so, whatever becomes of the file, until the whole is read anew.

// loadedPolicy is what came of reading a policy file.
type loadedPolicy struct {
	policy   *Policy
	err      error
	problems Problems // of a check at the time of reading
}

// LoadPolicy reads the policy file at the first call and answers the same later. It is nil
// where the built-in policy is in force.
func (c *Config) LoadPolicy() (*Policy, error) {
	if c.Policy == "" {
		return nil, nil
	}
	if c.loaded == nil {
		l := &loadedPolicy{}
		if l.policy, l.err = LoadPolicy(c.Policy); l.err == nil {
			l.problems = l.policy.Check(time.Now())
		}
		c.loaded = l
	}
	return c.loaded.policy, c.loaded.err
}

// Enforced is the policy that the configuration puts in force.
func (c *Config) Enforced() (*policy.Policy, error) {
	p, err := c.LoadPolicy()
	if err != nil {
		return nil, err
	}
	if p == nil {
		return policy.Enforced(), nil
	}
	return p.Compiled, nil
}

// policy looks at the policy file, and at what it and this file say of each other.
func (k *checker) policy() {
	if k.Hold != "" && k.Hold != filepath.Join(k.State, "hold.json") {
		dir := filepath.Dir(k.Hold)
		if info, err := os.Stat(dir); err != nil || !info.IsDir() {
			k.fail("hold", "there is no directory "+dir, "make it, and let the program's user write there")
		} else if info.Mode().Perm()&0o002 != 0 {
			k.warn("hold", fmt.Sprintf("everybody may write into %s, and so take back what the policy refuses", dir), "name a directory of the program's user")
		}
	}
	p, err := k.LoadPolicy()
	var problems Problems
	switch {
	case errors.As(err, &problems):
		k.elsewhere = append(k.elsewhere, problems...)
		return
	case err != nil:
		k.file("policy", err)
		return
	case p != nil:
		k.elsewhere = append(k.elsewhere, k.loaded.problems...)
		k.strangers(p)
		k.neverNeeded(p)
	}
}

// strangers tells brands, listeners and ports that the policy names and this file does not.
func (k *checker) strangers(p *Policy) {
	brands, listeners, ports := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for i := range k.Brands {
		brands[string(k.Brands[i].Name)] = true
	}
	for _, l := range k.Listeners {
		listeners[string(l.Name)] = true
		ports[strconv.Itoa(l.Address.Port)] = true
	}
	facts := []struct {
		name  string
		known map[string]bool
	}{{"brand", brands}, {"listener", listeners}, {"port", ports}}
	look := func(key string, m policy.FileMatch) {
		for _, fact := range facts {
			choice := m[policy.FactName(fact.name)]
			for _, word := range slices.Concat(choice.In, choice.NotIn) {
				values := policy.Words{word}
				if set, ok := p.Sets[policy.ID(word)]; ok {
					values = set
				}
				for _, value := range values {
					if !fact.known[string(value)] {
						k.elsewhere = append(k.elsewhere, p.Problem(Warning, child(key, fact.name),
							fmt.Sprintf("the configuration has no %s %s", fact.name, quote(string(value))),
							policy.Suggest(string(value), slices.Sorted(maps.Keys(fact.known)))))
					}
				}
			}
		}
	}
	for i, r := range p.Requirements {
		look(child(element("requirements", i), "scope"), r.Scope)
		look(child(element("requirements", i), "require"), r.Require)
	}
	for i, e := range p.Exceptions {
		look(child(element("exceptions", i), "match"), e.Match)
	}
}

// neverNeeded tells listeners with old TLS to which the policy never lets it.
func (k *checker) neverNeeded(p *Policy) {
	now := time.Now()
	instants := []time.Time{now}
	for _, t := range p.Compiled.Calendar() {
		if t.At.After(now) {
			instants = append(instants, t.At)
		}
	}
	for i, l := range k.Listeners {
		needed := slices.ContainsFunc(instants, func(at time.Time) bool {
			return slices.ContainsFunc(k.Brands, func(b Brand) bool {
				return served(p.Compiled, &l, &b, "1.0", at) || served(p.Compiled, &l, &b, "1.1", at)
			})
		})
		if l.OldTLS && !needed {
			k.warn(child(element("listeners", i), "old_tls"), "the policy refuses TLS 1.0 and 1.1 here, now and later", "leave it out")
		}
	}
}

// served reports whether the policy may let a TLS version in, if only to hear why it is denied.
func served(p *policy.Policy, l *Listener, b *Brand, version string, at time.Time) bool {
	var f policy.Facts
	f.Set(policy.Brand, string(b.Name))
	f.Set(policy.Protocol, string(l.Protocol))
	f.Set(policy.Listener, string(l.Name))
	f.Set(policy.Port, strconv.Itoa(l.Address.Port))
	f.Set(policy.TLS, version)
	mildest, _ := p.Bounds(&f, at)
	return mildest.Action != policy.Refuse
}
