package logs

import (
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"mailreeve/events"
	"mailreeve/policy"
)

// Dovecot reads the log of Dovecot 2.3 or 2.4.
func Dovecot(opt Options) *Parser {
	d := &dovecot{order: elementKeys(opt.Elements), programs: newMemory[map[string]string](mostPrograms)}
	d.told = len(d.order) > 0
	d.saysTLS = slices.Contains(d.order, elementTLS)
	d.Parser = Parser{opt: opt, clock: newClock(&opt), read: d.line,
		looks: []string{"-login: Login: ", "-login: Logged in: ", "-login: Info: Login: ", "-login: Info: Logged in: "}}
	return &d.Parser
}

type dovecot struct {
	Parser
	order   []string // keys of the elements, in their order
	told    bool     // by the operator, and not to be learnt
	saysTLS bool     // lines say where there was TLS

	programs *memory[map[string]string] // what IMAP ID said, by session id, until the login
}

const (
	mostPrograms = 4096 // connections that have sent an ID and not logged in
	mostElements = 32   // in a line
	mostFields   = 30   // of an ID (RFC 2971 section 3.3)
	mostID       = 4096 // bytes of an ID; Dovecot writes a quarter of that
)

// protocols are the services whose logins count.
var protocols = map[string]string{"imap-login": "imap", "pop3-login": "pop3", "submission-login": "submission"}

// services are the others that write lines, where the line has no other mark of Dovecot.
var services = []string{"anvil", "auth", "auth-worker", "config", "dict", "dict-async", "director", "doveadm", "dns-client", "imap", "imap-hibernate",
	"imap-urlauth", "imap-urlauth-login", "imap-urlauth-worker", "indexer", "indexer-worker", "ipc", "lda", "lmtp", "log", "managesieve", "managesieve-login", "master",
	"old-stats", "pop3", "replicator", "script", "script-login", "ssl-params", "stats", "submission", "welcome", "worker"}

// line reads what stands behind the stamp and the host.
func (d *dovecot) line(e *entry) (*events.Session, Verdict) {
	service, text := e.tag, e.text
	if service == "dovecot" || strings.HasPrefix(service, "dovecot-") {
		var ok bool
		if service, text, ok = strings.Cut(e.text, ": "); !ok {
			return nil, Other
		}
	} else if bare, _, _ := strings.Cut(service, "("); protocols[service] == "" && !slices.Contains(services, bare) {
		return nil, Foreign
	}
	protocol := protocols[service]
	if protocol == "" {
		return nil, Other
	}
	text = strings.TrimPrefix(text, "Info: ")
	switch said, rest, _ := strings.Cut(text, ": "); {
	case said == "Login" || said == "Logged in": // 2.3, 2.4
		return d.login(e, protocol, rest)
	case said == "ID sent", said == "Pre-login ID sent":
		d.program(rest)
		return nil, Other
	case strings.Contains(text, "tarted proxying to "):
		// Not just the part before ": ", which a name may contain.
		if beginning := proxying.FindString(text); beginning != "" {
			return d.login(e, protocol, text[len(beginning):])
		}
		return nil, Unknown
	case strings.HasPrefix(text, "Login ") && !strings.HasPrefix(text, "Login aborted") && !strings.HasPrefix(text, "Login failed"),
		strings.HasPrefix(text, "Login,"), strings.HasPrefix(text, "Logged in"), strings.HasPrefix(text, "user="):
		return nil, Unknown // another login_log_format
	}
	return nil, Other
}

// proxying is what a Dovecot writes that is a proxy itself, in the words of 2.3.0, 2.3.13 and 2.4.
var proxying = regexp.MustCompile(`^(?:proxy\([^()<> ]+\): started proxying to [^ <>]+(?: \(master [^ ()<>]+\))?` +
	`|(?:proxy\([^()<> ]+\): )?Started proxying to (?:remote host|<[^<> ]+>(?: \(<[^<> ]+>\))?)(?: from [0-9a-fA-F.:]+)?(?: as user [^ ()<>]+)?` +
	`(?: \(master [^ ()<>]+\))?(?: \([0-9.]+ secs(?:, [0-9]+ reconnects)?\))?): `)

// The keys by which elements are known here, and the names that operators give them: the
// short ones of Dovecot's own default, and its variables.
const (
	elementUser     = "user"
	elementMethod   = "method"
	elementRIP      = "rip"
	elementPort     = "lport"
	elementTLS      = "secured"
	elementSecurity = "ssl_security"
	elementName     = "local_name"
	elementTyped    = "orig_user"
	elementMaster   = "auth_user"
	elementSession  = "session"
)

var elementNames = map[string]string{
	"username": elementUser, "login": elementUser, "mech": elementMethod, "mechanism": elementMethod, "remote_ip": elementRIP,
	"local_port": elementPort, "port": elementPort, "tls": elementTLS, "ssl": elementTLS, "security": elementSecurity, "cipher": elementSecurity,
	"sni": elementName, "original_user": elementTyped, "auth_username": elementMaster,
}

// defaults are the elements of Dovecot's default login_log_format_elements.
var defaults = []string{elementUser, elementMethod, elementRIP, "lip", "mpid", elementTLS, elementSession}

// elementKeys reads a login_log_format_elements.
func elementKeys(format string) (keys []string) {
	for _, word := range strings.Fields(format) {
		name, variable, ok := strings.Cut(word, "=")
		key := elementKey(name)
		if !ok {
			key, variable = elementTLS, word
		}
		if strings.Contains(variable, "%k") || strings.Contains(variable, "ssl_security") {
			key = elementSecurity
		}
		keys = append(keys, key)
	}
	return keys
}

func elementKey(name string) string {
	if key := elementNames[name]; key != "" {
		return key
	}
	return name
}

// elements takes the elements of a line apart: key=<value> and key=value, and the words
// that stand there without a key.
func elements(text string) (keys []string, values map[string]string, ok bool) {
	values = map[string]string{}
	for more := true; more; {
		var key, value string
		n := strings.IndexFunc(text, func(r rune) bool { return !strings.ContainsRune(hostBytes, r) })
		if n > 0 && strings.HasPrefix(text[n:], "=<") {
			end := strings.IndexByte(text, '>')
			if end < 0 {
				return nil, nil, false
			}
			key, value, text = text[:n], text[n+2:end], text[end+1:]
			if text != "" && !strings.HasPrefix(text, ", ") {
				return nil, nil, false
			}
			text, more = strings.CutPrefix(text, ", ")
		} else {
			value, text, more = strings.Cut(text, ", ")
			switch {
			case n > 0 && n < len(value) && value[n] == '=':
				if key, value = value[:n], value[n+1:]; value != "" && strings.ContainsRune("\"'([{", rune(value[0])) {
					return nil, nil, false // where does it end?
				}
			case isSecured(value) || isSecurity(value):
				key = elementTLS
			}
		}
		// Whatever an operator calls them: what they say shows which of the two it is.
		if key = elementKey(key); (key == elementTLS || key == elementSecurity) && value != "" {
			if key = elementTLS; isSecurity(value) {
				key = elementSecurity
			} else if !isSecured(value) {
				return nil, nil, false
			}
		}
		if _, twice := values[key]; twice || key == "" || strings.ContainsAny(value, "<>") || len(keys) == mostElements {
			return nil, nil, false
		}
		keys, values[key] = append(keys, key), value
	}
	return keys, values, true
}

const proxied = "(proxied)" // the TLS was between the client and a balancer

// isSecured knows the words of %c (2.4: %{secured}). TSL is what 2.4 writes of a TLS that is at its end already.
func isSecured(word string) bool {
	return word == "TLS" || word == "secured" || word == "TSL" || word == "TLS handshaking" ||
		strings.HasPrefix(word, "TLS: ") || strings.HasPrefix(word, "TLS handshaking: ")
}

// isSecurity knows what %k says (2.4: %{ssl_security}).
func isSecurity(words string) bool {
	_, _, ok := secured(words)
	return ok || words == proxied
}

// fits says whether elements are in the order of the lines before, and with which
// new ones among them. Whoever writes elements into his name writes them directly behind it.
func (d *dovecot) fits(keys []string) (order []string, ok bool) {
	if order = d.order; len(order) == 0 {
		if order, ok = merge(defaults, keys, false); ok {
			return order, true
		}
		return keys, true
	}
	return merge(order, keys, !d.told)
}

// merge puts keys into an order that has all of them, if there is one.
func merge(order, keys []string, grow bool) ([]string, bool) {
	at := 0
	for i, key := range keys {
		switch n := slices.Index(order, key); {
		case n >= at:
			at = n + 1
		case n >= 0, !grow, i > 0 && keys[i-1] == elementUser, len(order) >= mostElements:
			return nil, false
		default:
			order = slices.Insert(slices.Clone(order), at, key)
			at++
		}
	}
	return order, true
}

// isDefault says whether a line is in Dovecot's default form, which says where there was
// TLS. What it may lack there is mpid, of a proxy.
func isDefault(order, keys []string) bool {
	return slices.Equal(order, defaults) && slices.Contains(keys, elementMethod) && slices.Contains(keys, elementRIP) &&
		slices.Contains(keys, "lip") && slices.Contains(keys, elementSession)
}

// login reads the elements of a login.
func (d *dovecot) login(e *entry, protocol, text string) (*events.Session, Verdict) {
	keys, values, ok := elements(text)
	if !ok || !slices.Contains(keys, elementUser) {
		return nil, Unknown
	}
	order, ok := d.fits(keys)
	if !ok {
		return nil, Unknown
	}
	s := d.session(e.at, protocol)
	if ip := values[elementRIP]; ip != "" {
		addr, err := netip.ParseAddr(ip)
		if err != nil {
			return nil, Unknown
		}
		s.IP = addr.Unmap()
	}
	if port := values[elementPort]; port != "" {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil {
			return nil, Unknown
		}
		s.Port = int(n)
	}
	typed, account := values[elementTyped], values[elementUser]
	if typed == "" {
		typed = account
	}
	if !name(s, account, typed) {
		return nil, Unknown
	}
	word, security := values[elementTLS], values[elementSecurity]
	d.order = order
	d.saysTLS = d.saysTLS || word != "" || security != ""
	id := d.programs.take(values[elementSession])
	if master := values[elementMaster]; master != "" && master != account {
		return nil, Other // somebody else's password: not the customer's doing
	}
	version, cipher, _ := secured(security)
	switch {
	case version != "" || strings.HasPrefix(word, "TLS") || word == "TSL":
		tls(s, version, cipher)
		if security == proxied {
			s.Entry = ""
		}
	case word != "" || security != "":
		// Taken for secured without TLS, or by a balancer's word: what the client did, nobody knows.
	case (d.saysTLS || isDefault(order, keys)) && mayBePlain(s.Port) && !here(s.IP):
		s.TLS, s.Entry = policy.None, policy.EntryPlain
	}
	mechanism(s, values[elementMethod])
	d.asked(s, values[elementName])
	if len(id) > 0 {
		s.ClientID, s.Client = id, strings.TrimSpace(id["name"]+" "+id["version"])
	}
	return s, Login
}

// here are programs on the server itself, webmail mostly: the customer's own connection
// is another.
func here(ip netip.Addr) bool {
	return ip == netip.AddrFrom4([4]byte{127, 0, 0, 1}) || ip == netip.IPv6Loopback()
}

// program remembers an IMAP ID until the login of its session.
func (d *dovecot) program(text string) {
	// The client's own words come first; behind the last user= they end.
	at := strings.LastIndex(text, ": user=")
	if at < 0 || at > mostID {
		return
	}
	_, values, ok := elements(text[at+2:])
	if !ok || values[elementSession] == "" {
		return
	}
	id := map[string]string{}
	for pair := range strings.SplitSeq(text[:at], ", ") {
		key, value, ok := strings.Cut(pair, "=")
		// With x- a proxy speaks of the connection, and of the client's address.
		if key = strings.ToLower(key); ok && !strings.HasPrefix(key, "x-") && value != "NIL" && id[key] == "" && len(id) < mostFields && utf8.ValidString(pair) {
			id[strings.Clone(key)] = strings.Clone(value)
		}
	}
	if len(id) > 0 {
		d.programs.put(strings.Clone(values[elementSession]), id)
	}
}
