// Package config is the configuration file mailreeve.yaml: its types, defaults, checks,
// JSON Schema and example.
//
// [Load] reads a file and refuses what is not right in itself: unknown and repeated keys,
// wrong types, unknown words, numbers out of bounds. [Config.Check] then looks at what the
// values say together and at the files that they name. Both tell every problem that they
// find, with file, line, column, key and cure. A configuration that both accept can be put
// in force without a question left; so a reload is Load, Check, and the swap of one
// pointer.
//
// The `yaml`, `doc`, `default`, `min` and `max` tags of the types are all that is written
// down about a key. The decoder works by them, and the files mailreeve.v1.schema.json and
// mailreeve.example.yaml are made from them; a test compares. [Decode], [Schema] and
// [Example] know nothing of this file: the policy file is read by the same ones, into the
// types of package policy ([LoadPolicy]), and has the schema policy.v1.schema.json.
//
// Old host names by the ten thousand stand in a file of their own, a name in each line
// ([Brand.LegacyNames]): a customer database writes it, and it changes without the rest. What
// is wrong in it is told with its own lines.
//
// # Standards
//
// YAML 1.2, of which anchors, tags, merge keys and several documents are left out; JSON
// Schema 2020-12. An ACME directory is https (RFC 8555 section 6.1); what no public CA
// certifies is in RFC 6761 and its kin. Floors of timeouts are those of RFC 9051 section 5.4, RFC 1939 section 3
// and RFC 5321 section 4.5.3.2.7, each named at its key.
//
// # Roads not taken
//
// The YAML library can decode into structs itself and refuse unknown keys, but its errors
// know no key and no cure, and it takes "yes" for a bool and 010 for 8. Validation by the
// JSON Schema would say only that some pattern does not match; the schema is for editors.
//
// There is no inclusion of other files, no environment variable and no template in the
// file: what is in force is what can be read.
//
// Zero never means "no limit": a limit that is left out has its default, and 0 is out of
// bounds, because whoever takes a limit away should have to say how high he wants it.
package config

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"
)

//go:generate go test -run ^TestGenerated$ -update

// Config is the whole file. As in all types of this package, the doc tags say what each key means.
type Config struct {
	Version      int                   `yaml:"version" required:"true" min:"1" max:"1" example:"1" doc:"Version of the form of this file."`
	Hostname     Host                  `yaml:"hostname" off:"mail.example.org" doc:"Name that the proxy says in greetings, and in EHLO towards the backend. Default: the machine's own name."`
	Brands       []Brand               `yaml:"brands" required:"true" doc:"The brands: sets of host names with their texts and help page. There is at least one."`
	Listeners    []Listener            `yaml:"listeners" required:"true" doc:"The sockets on which clients are served. There is at least one." more:"{ address: ':143', protocol: imap, tls: starttls }\n{ address: ':995', protocol: pop3, tls: implicit }\n{ address: ':110', protocol: pop3, tls: starttls }\n{ address: ':465', protocol: submission, tls: implicit }\n{ address: ':587', protocol: submission, tls: starttls }"`
	State        string                `yaml:"state" off:"/var/lib/mailreeve" doc:"Directory for what must outlive the program: certificates got by ACME with their keys and the account, and the keys of session tickets. It is made with mode 0700, and may be shared by several nodes. Default: none, and nothing is kept."`
	Policy       string                `yaml:"policy" off:"policy.yaml" doc:"Policy file: who is warned and who is refused, from which date on. Default: the built-in policy, which refuses plaintext, other mechanisms than passwords and tokens, TLS below 1.2 and host names that are not canonical."`
	Hold         string                `yaml:"hold" off:"/var/lib/mailreeve/hold.json" doc:"File of the hold, which makes everything milder at once; it is looked at every second. Default: hold.json in state."`
	Certificates Certificates          `yaml:"certificates" doc:"The certificates that clients are shown. Every canonical host name needs one."`
	Web          *Web                  `yaml:"web" doc:"Ports on which a browser finds the plain help page of a brand, and a CA the answers to its challenges."`
	Metrics      *Metrics              `yaml:"metrics" doc:"Numbers for Prometheus."`
	Backends     map[Protocol]*Backend `yaml:"backends" key:"imap" doc:"The servers behind the proxy, one entry per protocol." more:"pop3: { addresses: ['10.0.0.5:110'], tls: off }\nsubmission: { addresses: ['10.0.0.6:587'], tls: off }"`
	Limits       Limits                `yaml:"limits" doc:"What clients may use up. Sizes are written with B, KiB, MiB or GiB, durations with s, m, h or d."`
	Drain        Drain                 `yaml:"drain" doc:"How the proxy ends on SIGTERM."`
	Events       Events                `yaml:"events" doc:"The event log: one line per session, with account and address, for reports and for explaining refusals."`
	Outreach     *Outreach             `yaml:"outreach" doc:"What is known of each account over time, and the mails that tell customers what to change."`
	Log          Log                   `yaml:"log" doc:"The operators' log, on standard error."`

	source *Source
	loaded *loadedPolicy // the policy file, once it has been read
}

// Brand is one set of host names, texts and help pages.
type Brand struct {
	Name     Name                `yaml:"name" required:"true" example:"example" doc:"Name of the brand in events."`
	Language Language            `yaml:"language" default:"de" doc:"Language of refusals."`
	Help     HelpURL             `yaml:"help" required:"true" example:"https://help.example.org/mail" doc:"Help page that refusals name. An https address in ASCII of at most 60 characters."`
	Hosts    map[Protocol][]Host `yaml:"hosts" required:"true" example:"{ imap: [imap.example.org], pop3: [pop.example.org], submission: [smtp.example.org] }" doc:"Canonical host names by protocol, the recommended one first. A protocol may be left out, a name may serve several protocols, but it belongs to one brand only."`
	Page     PageText            `yaml:"page" off:"'Your settings have changed. This page shows the new ones.'" doc:"Text on the plain help page of this brand, above the table of its servers. An empty line begins a paragraph."`
	Legacy   []Pattern           `yaml:"legacy" off:"[mail.example.org, '*.old.example.org', 'imap.*']" doc:"Old host names of this brand: whole names, *.suffix for all names that end so, or label.* for all names that begin so. Whoever logs in under one is refused in the words of this brand. A whole name counts before a suffix, and a longer suffix before a shorter one and before a label."`

	LegacyFile         string             `yaml:"legacy_file" off:"names.txt" doc:"File with more old host names, one whole name in each line, for thousands of them. Empty lines and what follows a # are left out. A change is seen within half a minute."`
	LegacyCertificates LegacyCertificates `yaml:"legacy_certificates" default:"canonical" doc:"What a client gets that sends an old host name for which there is no file. canonical: the certificate of the canonical name, which says that the name is wrong; own: a certificate for the old name, by ACME, so that the refusal can be read. Names that only fit a pattern need certificates.acme.lookup for this."`

	DefaultDomain Host      `yaml:"default_domain" off:"example.org" doc:"Mail domain of customers who log in with a bare name, so that a person is one account in policy, exceptions and events, however the name is typed. Default: none, and a bare name is an account of its own."`
	Aliases       string    `yaml:"aliases" off:"aliases.txt" doc:"File of further names of accounts: an alias and an account in each line. Empty lines and what follows a # are left out. A change is seen within half a minute."`
	LoginName     LoginName `yaml:"login_name" default:"as_typed" doc:"The name that the backend is told: as the customer typed it; bare, which leaves default_domain out and no other domain; or the whole address. The last two are in small letters. The name in an exchange like CRAM-MD5 or SCRAM is part of its proof, and stays as typed."`

	StrictCodes bool                        `yaml:"strict_codes" default:"false" doc:"Refusals bear the codes that the RFCs have for them, like [PRIVACYREQUIRED], where the default prefers those that programs show people."`
	Texts       map[TextFor]map[TextAt]Text `yaml:"texts" off:"{ plaintext: { warn: 'Nur noch mit SSL/TLS[ ab {date}]: {host}, Port {port}.[ {help}]' } }" doc:"Sentences of your own, in the language of the brand and in ASCII, by finding and action; the others are those of the program. {host}, {port}, {help}, {date}, {until}, {word} and {others} are replaced; what stands in square brackets is left out where a placeholder in it has no value."`

	Notices *BrandNotices `yaml:"notices" doc:"What mails to customers of this brand say of their sender. Needed where outreach.notices is."`

	Ports    map[Protocol]Port     `yaml:"ports" off:"{ imap: 993, pop3: 995, submission: 465 }" doc:"Ports of implicit TLS that refusals name. Default: 993, 995 and 465."`
	Backends map[Protocol]*Backend `yaml:"backends" off:"{ imap: { addresses: ['10.0.1.5:143'], tls: off } }" doc:"Backends of this brand alone, in the form of the backends below; a protocol that is left out here is taken from there."`
}

// Listener is a socket and its protocol.
type Listener struct {
	Name          Name           `yaml:"name" off:"imap-993" doc:"Name of the listener in events; unique. Default: protocol and port, like imap-993."`
	Address       Address        `yaml:"address" required:"true" example:"':993'" doc:"IP address and port; without an address, all of this machine."`
	Protocol      Protocol       `yaml:"protocol" required:"true" example:"imap" doc:"What clients speak here."`
	TLS           ListenerTLS    `yaml:"tls" required:"true" example:"implicit" doc:"How encryption begins. With starttls, logins of clients that do not begin it are refused."`
	Brand         Name           `yaml:"brand" off:"example" doc:"Brand of clients that send no host name, or one of no brand. Default: the first brand."`
	ProxyProtocol []netip.Prefix `yaml:"proxy_protocol" off:"[10.0.0.0/24]" doc:"Networks, of load balancers, that must send a PROXY header (version 1 or 2) first. Nobody else may."`
	WrongPort     WrongPort      `yaml:"wrong_port" off:"serve" doc:"For tls: starttls only: what becomes of a client that begins TLS at once, because it is set to SSL. serve: it is served as on a port of implicit TLS; off: it is not understood. Default: serve."`
	OldTLS        bool           `yaml:"old_tls" off:"true" doc:"Serve TLS 1.0 and 1.1, RSA key exchange, CBC and 3DES here too, for old devices, wherever the policy does not refuse them. RFC 8996 forbids them. Default: false."`
}

// Certificates says where certificates come from.
type Certificates struct {
	Files   []CertificateFiles `yaml:"files" doc:"Certificates in PEM files. A name may have several, for example ECDSA and RSA. Changed files are loaded within half a minute."`
	Folder  string             `yaml:"folder" off:"certs" doc:"Directory of further certificates: NAME.pem with its key inside, NAME.pem or NAME.crt beside NAME.key, or SUBDIRECTORY/fullchain.pem beside privkey.pem, as certbot has them. Changes are loaded within half a minute."`
	Unknown UnknownNames       `yaml:"unknown" default:"canonical" doc:"What a client gets that sends a host name of no brand. canonical: the certificate of the canonical name; own: one for that name, by ACME, if certificates.acme.lookup confirms it; alert: the alert unrecognized_name, which ends the handshake: programs say little then, Thunderbird for POP3 nothing."`
	ACME    *ACME              `yaml:"acme" doc:"Get certificates by ACME (RFC 8555), for every canonical host name that no file covers, and renew them. The CA must reach web.http on port 80 or web.https on port 443 of each name."`
}

// ACME says how certificates are ordered.
type ACME struct {
	Email         Email        `yaml:"email" example:"hostmaster@example.org" doc:"Address that the CA writes to when something is wrong."`
	Directory     DirectoryURL `yaml:"directory" default:"https://acme-v02.api.letsencrypt.org/directory" doc:"The CA: the address of its ACME directory."`
	AcceptTerms   bool         `yaml:"accept_terms" example:"true" doc:"Whether you agree to the CA's terms of service; without it nothing is ordered. The check with --probe shows where they are."`
	CA            string       `yaml:"ca" off:"ca.pem" doc:"PEM file of the authorities that the directory's own certificate must come from, for a private CA. Default: those of the system."`
	Account       *Account     `yaml:"account" off:"{ key_id: abc, key_file: eab.key }" doc:"External account binding, where the CA wants one (RFC 8555 section 7.3.4): the key's id, and a file with the key in base64url on its one line, to which nobody but its owner may have rights."`
	RSA           bool         `yaml:"rsa" default:"true" doc:"Order an RSA certificate beside the ECDSA one for the canonical names, for clients that cannot do ECDSA. For other names it is ordered when such a client comes."`
	Lookup        LookupURL    `yaml:"lookup" off:"https://customers.internal/mail-name" doc:"Service that knows your customers' host names. It is asked with GET and ?name=imap.example.com; 200 says that the name is yours, 404 or 403 that it is not, and anything else that it shall be asked later."`
	OrdersPerHour int          `yaml:"orders_per_hour" default:"20" min:"1" max:"10000" doc:"Most certificates that are ordered in an hour for names that are not canonical, so that nobody can make the CA refuse us."`
}

// Account is what binds an ACME account to one at the CA.
type Account struct {
	KeyID   string `yaml:"key_id" required:"true" example:"abc" doc:"The key's id, as the CA tells it."`
	KeyFile string `yaml:"key_file" required:"true" example:"eab.key" doc:"File with the key in base64url on its one line. Nobody but its owner may have rights to it."`
}

// Web says where browsers and CAs are answered.
type Web struct {
	HTTP  *Address `yaml:"http" example:"':80'" doc:"IP address and port for HTTP: the help page, and challenges http-01 (RFC 8555 section 8.3)."`
	HTTPS *Address `yaml:"https" example:"':443'" doc:"IP address and port for HTTPS: the help page, and challenges tls-alpn-01 (RFC 8737)."`
}

// Metrics says where numbers are read.
type Metrics struct {
	Address Address `yaml:"address" required:"true" example:"127.0.0.1:9144" doc:"IP address and port where /metrics is, over HTTP and for everybody who can reach it."`
}

// CertificateFiles are the files of one certificate.
type CertificateFiles struct {
	Cert string `yaml:"cert" required:"true" example:"mail.pem" doc:"The certificate, and after it its intermediate authorities."`
	Key  string `yaml:"key" off:"mail.key" doc:"The private key. Default: it stands in the same file."`
}

// Backend is the server behind the proxy for one protocol.
type Backend struct {
	Addresses      []Address     `yaml:"addresses" required:"true" example:"['10.0.0.5:143']" doc:"Hosts and ports, tried in this order."`
	TLS            BackendTLS    `yaml:"tls" default:"starttls" example:"off" doc:"How encryption towards the backend begins."`
	CA             string        `yaml:"ca" off:"ca.pem" doc:"PEM file of the authorities that the backend's certificate must come from. Default: those of the system."`
	ServerName     Host          `yaml:"name" off:"imap.internal" doc:"Host name that the certificate must have. Default: the host of the address."`
	Pins           []Pin         `yaml:"pins" off:"['sha256/47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=']" doc:"SHA-256 of public keys, of which the certificate must have one. So a successor can be named in advance."`
	Verify         Verify        `yaml:"verify" default:"full" doc:"How the certificate is checked. full: chain, name, and one of the pins if there are any; pins: one of the pins only; none: not at all."`
	ConnectTimeout time.Duration `yaml:"connect_timeout" default:"5s" min:"100ms" max:"2m" doc:"Time for the connection to one address."`
	LoginTimeout   time.Duration `yaml:"login_timeout" default:"30s" min:"1s" max:"5m" doc:"Time for greeting, TLS and login together."`
	Forward        []Forward     `yaml:"forward" off:"[id]" doc:"How the backend learns the client's address. proxy: PROXY header version 2; id: IMAP ID, imap only; xclient: pop3 and submission only. Default: not at all."`
	Master         *Master       `yaml:"master" off:"{ user: proxy, password_file: master.secret, check: imap }" doc:"Log in as this user on the customer's behalf (SASL PLAIN, the customer as authorization identity), once the customer's own credential was good at another backend. Default: log in with the customer's own credential."`
}

// Master is a user who may log in as any customer.
type Master struct {
	User         string   `yaml:"user" required:"true" example:"proxy" doc:"Name of the master user."`
	PasswordFile string   `yaml:"password_file" required:"true" example:"master.secret" doc:"File with the password on its one line. Nobody but its owner may have rights to it."`
	Check        Protocol `yaml:"check" required:"true" example:"imap" doc:"Protocol of the brand's backend where the customer's own credential is checked first: a master would let anybody in. That backend has no master."`
}

// Limits bound what clients may use up.
type Limits struct {
	Connections      int           `yaml:"connections" off:"100000" min:"1" max:"10000000" doc:"Sessions in total. Default: as many as the memory and the limit of open files bear; the log tells the number at the start, and so does a check."`
	PerAddress       int           `yaml:"per_address" default:"100" min:"1" max:"10000000" doc:"Sessions from one IPv4 address or one IPv6 /64. Whole offices come from one address."`
	HandshakeTimeout time.Duration `yaml:"handshake_timeout" default:"30s" min:"1s" max:"5m" doc:"Time for the TLS handshake, and for a PROXY header."`
	LoginTimeout     time.Duration `yaml:"login_timeout" default:"3m" min:"10s" max:"30m" doc:"Time from the connection to the login. Dovecot gives 3m."`
	BadCommands      int           `yaml:"bad_commands" default:"10" min:"1" max:"1000" doc:"Commands that are unknown or out of place until the session ends."`
	Logins           int           `yaml:"logins" default:"10" min:"1" max:"1000" doc:"Logins that are refused until the session ends. Thunderbird makes three for one wrong password."`
	Line             Size          `yaml:"line" default:"8KiB" min:"512B" max:"1MiB" doc:"One command line. RFC 5321 section 4.5.3.1.4 asks for 512B at least, RFC 7162 section 4 advises 8KiB for IMAP."`
	Literal          Size          `yaml:"literal" default:"4KiB" min:"256B" max:"1MiB" doc:"One IMAP literal before login. RFC 7888 section 5 has 4KiB for LITERAL-."`
	Token            Size          `yaml:"token" default:"12KiB" min:"1KiB" max:"1MiB" doc:"One line of a SASL exchange. RFC 4954 section 4 has 12KiB."`
	Memory           Size          `yaml:"memory" default:"64KiB" min:"4KiB" max:"16MiB" doc:"One command before login, with all its literals."`
	Idle             Idle          `yaml:"idle" doc:"Silence after the login that ends a session."`
}

// Idle is the silence that ends a session after login.
type Idle struct {
	IMAP       time.Duration `yaml:"imap" default:"40m" min:"31m" max:"1d" doc:"RFC 9051 section 5.4 forbids less than 30m; a client that wakes up at 30m shall not be late."`
	POP3       time.Duration `yaml:"pop3" default:"15m" min:"10m" max:"1d" doc:"RFC 1939 section 3 forbids less than 10m."`
	Submission time.Duration `yaml:"submission" default:"15m" min:"5m" max:"1d" doc:"RFC 5321 section 4.5.3.2.7 forbids less than 5m."`
}

// For is the silence for a protocol.
func (i Idle) For(p Protocol) time.Duration {
	switch p {
	case IMAP:
		return i.IMAP
	case POP3:
		return i.POP3
	}
	return i.Submission
}

// Drain says how the program ends.
type Drain struct {
	Goodbye  time.Duration `yaml:"goodbye" default:"20s" min:"0s" max:"1h" doc:"Time over which idle sessions are told goodbye, so that not all clients return at once."`
	Deadline time.Duration `yaml:"deadline" default:"60s" min:"1s" max:"1d" doc:"Time after which everything is cut."`
}

// Events says where events go.
type Events struct {
	File string        `yaml:"file" default:"events.jsonl" doc:"File of the events, in JSON lines. The systemd unit lets it be /var/log/mailreeve/events.jsonl."`
	Keep time.Duration `yaml:"keep" default:"7d" min:"1d" max:"3650d" doc:"Age at which events are deleted, a day's file at a time. There is no forever, because events are about people."`
}

// Log says what the operators' log is like.
type Log struct {
	Level  Level  `yaml:"level" default:"info" doc:"Least severe message that is written."`
	Format Format `yaml:"format" default:"console" doc:"console is for people, json for machines."`
}

// Load reads a configuration file. If the file can be read but is wrong, the error is
// [Problems]. What the values say together is left to [Config.Check].
func Load(path string) (*Config, error) {
	data, err := readFile(path, maxFile)
	if err != nil {
		return nil, fmt.Errorf("reading the configuration: %w", err)
	}
	return Parse(path, data)
}

// Parse is [Load] for a file that is already read; its name goes into problems, and its
// directory is where relative paths begin.
func Parse(name string, data []byte) (*Config, error) {
	c := new(Config)
	var problems Problems
	c.source, problems = Decode(name, data, c)
	if err := problems.Err(); err != nil {
		return nil, err
	}
	c.complete(filepath.Dir(name))
	return c, nil
}

// complete sets the defaults that depend on other values, and makes paths start from dir.
func (c *Config) complete(dir string) {
	if c.Hostname == "" {
		if name, err := os.Hostname(); err != nil || c.Hostname.UnmarshalText([]byte(name)) != nil {
			c.Hostname = "localhost"
		}
	}
	for i := range c.Listeners {
		l := &c.Listeners[i]
		if l.Name == "" {
			l.Name = Name(fmt.Sprintf("%s-%d", l.Protocol, l.Address.Port))
		}
		if l.Brand == "" {
			l.Brand = c.Brands[0].Name
		}
		if l.WrongPort == "" && l.TLS == STARTTLS {
			l.WrongPort = WrongPortServe
		}
	}
	var outreach []*string
	if o := c.Outreach; o != nil {
		if !o.PostgreSQL() {
			outreach = append(outreach, &o.Ledger)
		}
		if n := o.Notices; n != nil {
			outreach = append(outreach, &n.CA, &n.PasswordFile)
		}
	}
	paths := append(outreach, &c.Events.File, &c.State, &c.Certificates.Folder, &c.Policy, &c.Hold)
	for i := range c.Certificates.Files {
		paths = append(paths, &c.Certificates.Files[i].Cert, &c.Certificates.Files[i].Key)
	}
	for i := range c.Brands {
		paths = append(paths, &c.Brands[i].LegacyFile, &c.Brands[i].Aliases)
		if n := c.Brands[i].Notices; n != nil {
			paths = append(paths, &n.Templates)
		}
	}
	if acme := c.Certificates.ACME; acme != nil {
		paths = append(paths, &acme.CA)
		if acme.Account != nil {
			paths = append(paths, &acme.Account.KeyFile)
		}
	}
	for _, b := range c.allBackends() {
		paths = append(paths, &b.CA)
		if b.Master != nil {
			paths = append(paths, &b.Master.PasswordFile)
		}
	}
	for _, p := range paths {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(dir, *p)
		}
	}
	c.completeOutreach()
	if c.Hold == "" && c.State != "" {
		c.Hold = filepath.Join(c.State, "hold.json")
	}
}

// Problem is one of a value of the file, by its key, in its place.
func (c *Config) Problem(severity Severity, key, message, cure string) Problem {
	if c.source == nil { // made by a program, not read from a file
		return (&Source{}).Problem(severity, key, message, cure)
	}
	return c.source.Problem(severity, key, message, cure)
}

// placedBackend is a backend with its protocol and the key where it stands.
type placedBackend struct {
	*Backend
	protocol Protocol
	key      string
}

// allBackends lists the backends of the file in a fixed order.
func (c *Config) allBackends() []placedBackend {
	var all []placedBackend
	add := func(key string, of map[Protocol]*Backend) {
		for _, p := range Protocols {
			if b := of[p]; b != nil {
				all = append(all, placedBackend{b, p, child(key, string(p))})
			}
		}
	}
	add("backends", c.Backends)
	for i, brand := range c.Brands {
		add(child(element("brands", i), "backends"), brand.Backends)
	}
	return all
}

// Brand finds a brand by its name; there is nil for a name that is none.
func (c *Config) Brand(name Name) *Brand {
	for i := range c.Brands {
		if c.Brands[i].Name == name {
			return &c.Brands[i]
		}
	}
	return nil
}

// Backend is the backend of a brand for a protocol: its own, or else that for all; or nil.
func (c *Config) Backend(b *Brand, p Protocol) *Backend {
	if own := b.Backends[p]; own != nil {
		return own
	}
	return c.Backends[p]
}

// Password reads the master user's password: the file without its final line break. It
// fails if others than the owner have rights to the file. The caller must not print it.
func (m *Master) Password() (string, error) { return readSecret(m.PasswordFile, "password") }

// Key reads the key that binds the account, under the conditions of [Master.Password]. CAs
// give it with and without padding.
func (a *Account) Key() ([]byte, error) {
	text, err := readSecret(a.KeyFile, "key")
	if err != nil {
		return nil, err
	}
	key, err := base64.RawURLEncoding.Strict().DecodeString(strings.TrimRight(strings.TrimSpace(text), "="))
	if err != nil || len(key) == 0 { // the error would show where, and so a part of the key
		return nil, wrong{a.KeyFile + " does not hold a key in base64url", "copy the key there as the CA shows it: letters, digits, - and _"}
	}
	return key, nil
}

// readSecret reads the one line of a file to which only its owner has rights.
func readSecret(path, what string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return "", wrong{fmt.Sprintf("others than the owner have rights to %s (mode %04o)", path, mode), "chmod 600 " + path}
	}
	const most = 4 << 10 // no secret is so long; a wrong path may be a device
	data, err := readFile(path, most)
	if err != nil {
		return "", err
	}
	secret := strings.TrimSuffix(strings.TrimSuffix(string(data), "\n"), "\r")
	if secret == "" || len(data) > most || strings.ContainsAny(secret, "\x00\r\n") {
		return "", wrong{path + " does not hold one line with a " + what, "write the " + what + " there, alone"}
	}
	return secret, nil
}

// readFile reads a file of at most the given size, or a byte more of a larger one, by which
// it can be told.
func readFile(path string, most int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, most+1))
	return data, errors.Join(err, f.Close())
}
