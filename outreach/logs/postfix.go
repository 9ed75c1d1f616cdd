package logs

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"mailreeve/events"
	"mailreeve/policy"
)

// Postfix reads the log of Postfix 3.
func Postfix(opt Options) *Parser {
	p := &postfix{connections: newMemory[*connection](mostConnections), logsTLS: newMemory[bool](mostServices), named: newMemory[bool](mostServices)}
	p.Parser = Parser{opt: opt, clock: newClock(&opt), read: p.line, looks: []string{", sasl_method="}}
	return &p.Parser
}

type postfix struct {
	Parser
	connections *memory[*connection] // by host, service and process id: a process has one at a time
	logsTLS     *memory[bool]        // by host and service
	named       *memory[bool]        // by host: its services have names of their own
}

const (
	mostConnections = 16384
	mostServices    = 1024
)

// connection is what the lines of one say together.
type connection struct {
	events.Session        // without the account
	silent         bool   // its service had logged no TLS before
	peer           string // name[address]
	counted        string // the login that was told
}

// daemons write lines under these names, behind the name of the service.
var daemons = []string{"anvil", "bounce", "cleanup", "discard", "dnsblog", "error", "flush", "lmtp", "local", "master", "nqmgr", "oqmgr", "pickup", "pipe",
	"postalias", "postcat", "postconf", "postdrop", "postfix", "postfix-script", "postkick", "postlog", "postlogd", "postmap", "postmulti", "postqueue", "postscreen",
	"postsuper", "post-install", "proxymap", "proxywrite", "qmgr", "qmqpd", "scache", "sendmail", "showq", "smtp", "smtpd", "spawn", "tlsmgr",
	"tlsproxy", "trivial-rewrite", "verify", "virtual"}

// line reads what stands behind the stamp.
func (p *postfix) line(e *entry) (*events.Session, Verdict) {
	slash := strings.LastIndexByte(e.tag, '/')
	if slash < 0 {
		return nil, Foreign
	}
	service, daemon := e.tag[:slash], e.tag[slash+1:]
	switch {
	case !slices.Contains(daemons, daemon):
		return nil, Foreign
	case daemon != "smtpd":
		return nil, Other
	case e.pid == "":
		if strings.Contains(e.text, ", sasl_method=") {
			return nil, Unknown
		}
		return nil, Other
	}
	if port(service) != 0 {
		p.named.put(e.host, true)
	}
	key := e.host + " " + e.tag
	process := key + " " + e.pid
	if peer, ok := strings.CutPrefix(e.text, "connect from "); ok {
		c := &connection{Session: *p.session(e.at, "submission"), silent: !p.logsTLS.get(key), peer: strings.Clone(peer)}
		p.connections.put(process, c)
		return nil, Other
	}
	if strings.HasPrefix(e.text, "disconnect from ") {
		p.connections.take(process)
		return nil, Other
	}
	if about, peer, ok := strings.Cut(e.text, "TLS connection established from "); ok && trust[about] {
		p.logsTLS.put(key, true)
		if c := p.connections.get(process); c != nil {
			c.tls(peer)
		}
		return nil, Other
	}
	queue, client, ok := strings.Cut(e.text, ": client=")
	if !ok || !only(queue, digits+letters) {
		return nil, Other
	}
	return p.login(e, service, process, client)
}

// trust is what Postfix says of a client's certificate in front of "TLS connection".
var trust = map[string]bool{"": true, "Anonymous ": true, "Untrusted ": true, "Trusted ": true, "Verified ": true}

// tls takes in what was established: name[address], the server name in use if the server has
// several certificates, and the words that OpenSSL has for it.
func (c *connection) tls(text string) {
	peer, text, _ := strings.Cut(text, ": ")
	_, asked, _ := strings.Cut(peer, " to ")
	version, cipher, ok := secured(text)
	if !ok {
		return
	}
	tls(&c.Session, version, cipher)
	if only(asked, hostBytes) {
		c.SNI = strings.Clone(asked)
	}
}

// login reads the line that a message begins with.
func (p *postfix) login(e *entry, service, process, text string) (*events.Session, Verdict) {
	peer, login, ok := strings.Cut(text, ", ")
	if !ok || !strings.Contains(login, "sasl_method=") && !strings.Contains(login, "sasl_username=") {
		return nil, Other // a message of another server, or of one that may send without a login
	}
	ip, ok := address(peer)
	method, account, named := strings.Cut(strings.TrimPrefix(login, "sasl_method="), ", sasl_username=")
	// What may follow a user name (sasl_sender=, orig_client=) cannot be told from a part of
	// it: such a name is none.
	if !ok || !named || !strings.HasPrefix(login, "sasl_method=") || !only(method, letters+digits+"-_") {
		return nil, Unknown
	}
	c := p.connections.get(process)
	if c == nil {
		c = &connection{Session: *p.session(e.at, "submission")}
		p.connections.put(process, c)
	}
	s := c.Session
	s.IP, s.Port = ip, p.port(e.host, service)
	switch {
	case c.peer != peer:
		// An XCLIENT told another client than the one that has connected, or its line is lost: what
		// TLS there was is not known to be this client's.
		s.TLS, s.Cipher, s.CipherClass, s.SNI, s.Entry = "", "", "", "", ""
	case s.TLS != "":
		s.Entry = entries[s.Port]
	case !c.silent && mayBePlain(s.Port) && !here(ip):
		s.TLS, s.Entry = policy.None, policy.EntryPlain
	}
	if s.Port == 465 {
		s.Entry = policy.EntryImplicit // there is nothing else
	}
	if !name(&s, account, account) {
		return nil, Unknown
	}
	if method != "XCLIENT" { // the word of a proxy, which does not say how the client did it
		mechanism(&s, method)
	}
	p.asked(&s, s.SNI)
	if counted := login + " " + peer; c.counted != counted {
		c.counted = strings.Clone(counted)
		return &s, Login
	}
	return nil, Other // a further message
}

// address reads name[address], and the client's port that smtpd_client_port_logging adds.
func address(peer string) (netip.Addr, bool) {
	host, rest, ok := strings.Cut(peer, "[")
	text, port, closed := strings.Cut(rest, "]")
	if !ok || !closed || !only(host, hostBytes) || port != "" && !only(strings.TrimPrefix(port, ":"), digits) && port != ":unknown" {
		return netip.Addr{}, false
	}
	if text == "unknown" {
		return netip.Addr{}, true
	}
	ip, err := netip.ParseAddr(text)
	return ip.Unmap(), err == nil
}

// port is what the name of a service stands for: those of Postfix's own master.cf, or the number itself.
func (p *postfix) port(host, service string) int {
	if n := port(service); n != 0 {
		return n
	}
	if !strings.Contains(service, "/") && p.named.get(host) {
		return 25
	}
	return 0
}

func port(service string) int {
	_, name, ok := strings.Cut(service, "/")
	if !ok {
		return 0
	}
	switch name {
	case "submission":
		return 587
	case "smtps", "submissions":
		return 465
	}
	n, err := strconv.ParseUint(name, 10, 16)
	if err != nil {
		return 0
	}
	return int(n)
}
