package config

import (
	"cmp"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"mailreeve/policy"
)

// Check looks at what Parse cannot see in a single value: what values say together, and the
// files that they name. It reads these files but changes nothing and uses no network. at is
// the time at which certificates must be valid; the zero time leaves that out, for a
// program that would rather run with an expired certificate than not at all.
func (c *Config) Check(at time.Time) Problems {
	k := &checker{Config: c, at: c.source}
	if k.at == nil { // made by a program, not read from a file
		k.at = &Source{}
	}
	k.brands()
	k.hosts()
	k.accounts()
	k.listeners()
	k.addresses()
	k.routes()
	for _, b := range k.allBackends() {
		k.backend(b)
	}
	k.limits()
	k.events()
	k.outreach()
	k.policy()
	k.state()
	k.acme()
	k.ownNames()
	k.certificates(at)
	return append(k.problems.sorted(), k.elsewhere...)
}

// CheckOutreach is [Config.Check] for what the ledger and notices need: the policy, and what
// is said of outreach. Keys, listeners and backends are not looked at.
func (c *Config) CheckOutreach() Problems {
	k := &checker{Config: c, at: c.source}
	if k.at == nil {
		k.at = &Source{}
	}
	k.outreach()
	k.policy()
	return append(k.problems.sorted(), k.elsewhere...)
}

// checker is the state of one Check. Each of its methods looks at one part of the file.
type checker struct {
	*Config
	at       *Source
	problems Problems

	elsewhere Problems // in the files of old names
}

// fail records an error at a key.
func (k *checker) fail(key, message, cure string) {
	k.problems = append(k.problems, k.at.Problem(Error, key, message, cure))
}

// warn records a warning at a key.
func (k *checker) warn(key, message, cure string) {
	k.problems = append(k.problems, k.at.Problem(Warning, key, message, cure))
}

// unique returns a function that records an error for a value that was there before, and
// says whether it was.
func (k *checker) unique(what, cure string) func(key, value string) bool {
	first := map[string]string{}
	return func(key, value string) bool {
		before, ok := first[value]
		if ok {
			k.fail(key, quote(value)+" is the "+what+" of "+before+" already", cure)
		} else {
			first[value] = parent(key)
		}
		return ok
	}
}

// brands looks at the brands themselves.
func (k *checker) brands() {
	if len(k.Brands) == 0 {
		k.fail("brands", "there is none", "add one, as in the example")
	}
	name := k.unique("name", "choose another")
	for i, b := range k.Brands {
		name(child(element("brands", i), "name"), string(b.Name))
	}
}

// hosts looks for names that would not tell which brand is meant, or what a name is.
func (k *checker) hosts() {
	brands := map[string]int{} // host name or pattern to the brand that has it
	canonical := map[string]string{}
	claim := func(key, host string, brand int) bool {
		other, taken := brands[host]
		if !taken {
			brands[host] = brand
			return true
		}
		if other != brand {
			k.fail(key, fmt.Sprintf("%s belongs to the brand %s already", quote(host), quote(string(k.Brands[other].Name))),
				"leave it in one of the two: the name tells the brand")
		}
		return other == brand
	}
	each := func(of func(i int, key string, b *Brand)) {
		for i := range k.Brands {
			of(i, element("brands", i), &k.Brands[i])
		}
	}
	each(func(i int, key string, b *Brand) {
		for _, p := range Protocols {
			list := child(child(key, "hosts"), string(p))
			if hosts, ok := b.Hosts[p]; ok && len(hosts) == 0 {
				k.fail(list, "the list is empty", "name a host, or leave the protocol out")
			}
			for j, host := range b.Hosts[p] {
				at := element(list, j)
				if slices.Index(b.Hosts[p], host) < j {
					k.fail(at, quote(string(host))+" stands twice in the list", "leave one of them")
				} else if claim(at, string(host), i) {
					canonical[string(host)] = at
				}
			}
		}
	})
	each(func(i int, key string, b *Brand) {
		for j, pattern := range b.Legacy {
			at := element(child(key, "legacy"), j)
			if where := canonical[string(pattern)]; where != "" {
				k.fail(at, fmt.Sprintf("%s is a canonical name in %s", quote(string(pattern)), where),
					"leave it in one of the two")
			} else if slices.Index(b.Legacy, pattern) < j {
				k.fail(at, quote(string(pattern))+" stands twice in the list", "leave one of them")
			} else {
				claim(at, string(pattern), i)
			}
		}
	})
	each(func(i int, key string, b *Brand) {
		names, unread, err := b.legacyLines()
		if err != nil {
			k.file(child(key, "legacy_file"), err)
		}
		var misplaced faults
		for _, n := range names {
			other, taken := brands[string(n.name)]
			message, cure := "", ""
			switch {
			case canonical[string(n.name)] != "":
				message = fmt.Sprintf("%s is a canonical name in %s", quote(string(n.name)), canonical[string(n.name)])
				cure = "leave it in one of the two"
			case taken && other != i:
				message = fmt.Sprintf("%s belongs to the brand %s already", quote(string(n.name)), quote(string(k.Brands[other].Name)))
				cure = "leave it in one of the two: the name tells the brand"
			default:
				brands[string(n.name)] = i
				continue
			}
			misplaced.add(func() Problem {
				return Problem{File: b.LegacyFile, Line: n.line, Column: 1, Message: message, Cure: cure}
			})
		}
		k.elsewhere = append(k.elsewhere, unread.and(misplaced).told()...)
	})
}

// listeners looks at the listeners, each and among each other.
func (k *checker) listeners() {
	if len(k.Listeners) == 0 {
		k.fail("listeners", "there is none", "add one, as in the example")
	}
	name := k.unique("name", "choose another")
	for i, l := range k.Listeners {
		key := element("listeners", i)
		name(child(key, "name"), string(l.Name))
		if l.OldTLS {
			k.warn(child(key, "old_tls"), "TLS 1.0 and 1.1, RSA key exchange, CBC and 3DES are served here wherever the policy does not refuse them; "+
				"RFC 8996 forbids these versions, and RFC 9325 section 4 these ciphers",
				"leave it out as soon as the customers have other devices")
		}
		if l.WrongPort != "" && l.TLS != STARTTLS {
			k.fail(child(key, "wrong_port"), "it means something with tls: starttls only", "leave it out")
		}
		if k.Brand(l.Brand) == nil {
			k.fail(child(key, "brand"), "there is no brand "+quote(string(l.Brand)), k.knownBrands(l.Brand))
		} else if len(k.Brand(l.Brand).Hosts[l.Protocol]) == 0 {
			k.fail(child(key, "brand"), fmt.Sprintf("the brand %s has no host name for %s", quote(string(l.Brand)), l.Protocol),
				"add one to its hosts, or name another brand")
		}
		for j, network := range l.ProxyProtocol {
			if network.Bits() == 0 {
				k.warn(element(child(key, "proxy_protocol"), j), "every client must send a PROXY header, and may claim any address in it",
					"name the networks of the load balancers")
			}
		}
	}
}

// knownBrands suggests a brand.
func (k *checker) knownBrands(given Name) string {
	var names []string
	for _, b := range k.Brands {
		names = append(names, string(b.Name))
	}
	return policy.Suggest(string(given), names)
}

// addresses looks at the addresses at which the program listens, and whether one before it has
// taken it. A wildcard takes the port of every address: package net listens on both families
// then.
func (k *checker) addresses() {
	type socket struct {
		key string
		Address
	}
	var all []socket
	for i, l := range k.Listeners {
		all = append(all, socket{element("listeners", i), l.Address})
	}
	if k.Web != nil && k.Web.HTTP != nil {
		all = append(all, socket{"web.http", *k.Web.HTTP})
	}
	if k.Web != nil && k.Web.HTTPS != nil {
		all = append(all, socket{"web.https", *k.Web.HTTPS})
	}
	if k.Metrics != nil {
		all = append(all, socket{"metrics.address", k.Metrics.Address})
	}
	for i, s := range all {
		key := s.key
		if i < len(k.Listeners) {
			key = child(key, "address")
		}
		ip, port, ok := listenIP(s.Address)
		if !ok {
			k.fail(key, quote(s.Host)+" is a host name", "write one of this machine's IP addresses, or none for all")
			continue
		}
		for _, before := range all[:i] {
			other, otherPort, ok := listenIP(before.Address)
			// Port 0 gets a free port each time.
			if ok && port != 0 && port == otherPort && (ip == other || ip.IsUnspecified() || other.IsUnspecified()) {
				k.fail(key, fmt.Sprintf("%s has %s already", before.key, before.Address), "choose another address or port")
				break
			}
		}
	}
	if k.Web != nil && k.Web.HTTP == nil && k.Web.HTTPS == nil {
		k.warn("web", "it names no address", "add http and https, as in the example, or leave it out")
	}
	if k.Metrics != nil {
		if ip, _, ok := listenIP(k.Metrics.Address); ok && !isInside(Address{Host: ip.String()}) {
			k.warn("metrics.address", "everybody who can reach "+k.Metrics.Address.String()+" reads these numbers",
				"write 127.0.0.1 or a private IP address")
		}
	}
}

// listenIP is the address of a listener, if it is one.
func listenIP(a Address) (ip netip.Addr, port int, ok bool) {
	if a.Host == "" {
		return netip.IPv6Unspecified(), a.Port, true
	}
	ip, ok = a.IP()
	return ip, a.Port, ok
}

// routes looks whether each brand that a client can reach has a backend, and whether what
// is there is used.
func (k *checker) routes() {
	for _, p := range Protocols {
		listens := slices.ContainsFunc(k.Listeners, func(l Listener) bool { return l.Protocol == p })
		for i := range k.Brands {
			b := &k.Brands[i]
			if len(b.Hosts[p]) == 0 {
				continue
			}
			key := child(child(element("brands", i), "hosts"), string(p))
			switch {
			case !listens:
				k.warn(key, "no listener speaks "+string(p), "add a listener, or leave the names out")
			case k.Backend(b, p) == nil:
				k.fail(key, "there is no backend for "+string(p), "add one to backends")
			}
		}
	}
	for i := range k.Brands {
		k.masters(&k.Brands[i])
	}
}

// masters looks whether the customer's credential is checked before a master logs in on his
// behalf, and at a backend that looks at it.
func (k *checker) masters(brand *Brand) {
	for _, b := range k.allBackends() {
		if b.Master == nil || k.Backend(brand, b.protocol) != b.Backend {
			continue
		}
		key := child(child(b.key, "master"), "check")
		switch at := k.Backend(brand, b.Master.Check); {
		case at == nil:
			k.fail(key, fmt.Sprintf("brand %s has no backend for %s", brand.Name, b.Master.Check),
				"name a protocol whose backend knows the passwords")
		case at.Master != nil:
			k.fail(key, fmt.Sprintf("the backend for %s has a master itself, so nobody would look at the password", b.Master.Check),
				"name a protocol whose backend knows the passwords")
		}
	}
}

// backend looks at one backend.
func (k *checker) backend(b placedBackend) {
	if len(b.Addresses) == 0 {
		k.fail(child(b.key, "addresses"), "there is none", "add one, like 10.0.0.5:143")
	}
	for i, a := range b.Addresses {
		key := element(child(b.key, "addresses"), i)
		switch {
		case a.Host == "":
			k.fail(key, "the host is missing", "write one like 10.0.0.5:143")
		case a.Port == 0:
			k.fail(key, "no server listens on port 0", "write the backend's port")
		case b.TLS == Off && !isInside(a):
			k.warn(key, "passwords go to "+a.Host+" without encryption, and it is not seen to be a private address",
				"write tls: starttls, or a private IP address")
		}
	}
	verify := child(b.key, "verify")
	switch {
	case b.TLS == Off && (b.Verify == VerifyPins || len(b.Pins) > 0 || b.CA != ""):
		k.fail(child(b.key, "tls"), "without TLS there is no certificate to check",
			"write tls: starttls, or leave ca, pins and verify out")
	case b.Verify == VerifyPins && len(b.Pins) == 0:
		k.fail(verify, "there are no pins", "add the backend's pin to pins, or write verify: full")
	case b.Verify == VerifyNone && (len(b.Pins) > 0 || b.CA != ""):
		k.fail(verify, "pins and ca would not be looked at", "leave verify out, or leave them out")
	case b.Verify == VerifyNone && b.TLS != Off:
		k.warn(verify, "whoever stands between here and the backend can read every password",
			"write verify: pins and the backend's pin")
	}
	if b.CA != "" {
		k.authorities(child(b.key, "ca"), b.CA)
	}
	for i, f := range b.Forward {
		key := element(child(b.key, "forward"), i)
		switch {
		case f == ForwardID && b.protocol != IMAP:
			k.fail(key, fmt.Sprintf("there is no ID in %s", b.protocol), "write proxy or xclient")
		case f == ForwardXCLIENT && b.protocol == IMAP:
			k.fail(key, "there is no XCLIENT in imap", "write proxy or id")
		case slices.Index(b.Forward, f) < i:
			k.fail(key, string(f)+" stands twice in the list", "leave one of them")
		}
	}
	if b.Master != nil {
		if _, err := b.Master.Password(); err != nil {
			k.file(child(child(b.key, "master"), "password_file"), err)
		}
	}
}

// isInside says whether nobody but the provider can be expected on the way to an address.
// Of a name with dots that cannot be said without asking the DNS, except for those under
// .internal, which is reserved for this.
func isInside(a Address) bool {
	if ip, ok := a.IP(); ok {
		return ip.IsLoopback() || ip.IsPrivate() || ip.IsLinkLocalUnicast()
	}
	return !strings.Contains(a.Host, ".") || strings.HasSuffix(a.Host, ".internal")
}

// authorities looks whether a file has certificates of authorities.
func (k *checker) authorities(key, file string) {
	data, err := readFile(file, maxFile)
	if err != nil {
		k.file(key, err)
	} else if !x509.NewCertPool().AppendCertsFromPEM(data) {
		k.fail(key, file+" holds no certificate", "name a PEM file that holds one (-----BEGIN CERTIFICATE-----)")
	}
}

// file records that a file could not be used.
func (k *checker) file(key string, err error) {
	message, cure := explain(err)
	var path *fs.PathError
	if errors.As(err, &path) {
		message = path.Path + " cannot be read: " + path.Err.Error()
	}
	k.fail(key, message, cmp.Or(cure, "correct the path, or let the program's user read it"))
}

// limits looks at limits that limit each other.
func (k *checker) limits() {
	l := k.Limits
	for _, s := range []struct {
		key  string
		size Size
	}{{"line", l.Line}, {"literal", l.Literal}, {"token", l.Token}} {
		if s.size > l.Memory {
			k.fail(child("limits", s.key), "it is more than limits.memory, which holds it",
				"raise memory, or lower this")
		}
	}
	if l.Connections > 0 && l.PerAddress > l.Connections {
		k.fail("limits.per_address", "it is more than limits.connections, so one address could take all", "lower it")
	}
	if l.HandshakeTimeout > l.LoginTimeout {
		k.fail("limits.handshake_timeout", "it is more than limits.login_timeout, which begins earlier", "lower it")
	}
	if k.Drain.Goodbye > k.Drain.Deadline {
		k.fail("drain.goodbye", "it is more than drain.deadline, which cuts it short", "lower it")
	}
}

// events looks whether there is a directory for the event log.
func (k *checker) events() {
	if k.Events.File == "" { // made by a program
		return
	}
	dir := filepath.Dir(k.Events.File)
	if info, err := os.Stat(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		k.file("events.file", err)
	} else if err != nil || !info.IsDir() {
		k.fail("events.file", "there is no directory "+dir, "make it, and let the program's user write there")
	}
}
