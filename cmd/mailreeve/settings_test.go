package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"

	"mailreeve/certs"
	"mailreeve/config"
	"mailreeve/demo"
	"mailreeve/policy"
	"mailreeve/proxy"
	"mailreeve/web"
)

// everyKey is a configuration in which no key has its default.
const everyKey = `
version: 1
hostname: gate.example.org
brands:
  - name: first
    language: en
    help: https://help.example.org
    hosts: { imap: [imap.example.org, mail.example.org], pop3: [mail.example.org], submission: [mail.example.org] }
    legacy: [old.example.org, '*.older.example.org', 'imap.*']
    legacy_file: names.txt
    legacy_certificates: own
    default_domain: example.org
    aliases: aliases.txt
    login_name: bare
    strict_codes: true
    texts: { plaintext: { warn: 'Nur noch mit SSL/TLS[ ab {date}]: {host}, Port {port}.[ {help}]' } }
    page: 'Neu!'
    ports: { imap: 1993, pop3: 1995 }
  - name: second
    help: https://help.example.net
    hosts: { imap: [imap.example.net] }
    backends: { imap: { addresses: ['10.0.1.5:143'], tls: off } }
listeners:
  - { name: one, address: '127.0.0.1:1993', protocol: imap, tls: implicit, brand: second, proxy_protocol: [10.0.0.0/24] }
  - { name: two, address: ':1143', protocol: imap, tls: starttls, wrong_port: off, old_tls: true }
  - { name: three, address: ':1110', protocol: pop3, tls: starttls }
state: state
policy: staged.yaml
hold: h.json
certificates:
  files: [{ cert: mail.pem, key: mail.key }]
  folder: certs
  unknown: alert
  acme:
    email: hostmaster@example.org
    directory: https://127.0.0.1:14000/dir
    accept_terms: true
    ca: ca.pem
    account: { key_id: abc, key_file: eab.key }
    rsa: false
    lookup: http://127.0.0.1:8080/name
    orders_per_hour: 21
web: { http: '127.0.0.1:1080', https: '127.0.0.1:1443' }
metrics: { address: '127.0.0.1:9144' }
backends:
  imap:
    addresses: ['10.0.0.5:143', 'imap.internal:1143']
    tls: starttls
    ca: ca.pem
    name: backend.internal
    connect_timeout: 7s
    login_timeout: 8s
    forward: [id]
  pop3:
    addresses: ['10.0.0.5:110']
    tls: implicit
    verify: pins
    pins: ['sha256/47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=']
    forward: [proxy]
  submission:
    addresses: ['10.0.0.6:587']
    tls: off
    forward: [xclient, proxy]
    master: { user: proxy, password_file: master.secret, check: imap }
limits:
  connections: 2001
  per_address: 101
  handshake_timeout: 31s
  login_timeout: 121s
  bad_commands: 11
  logins: 7
  line: 4KiB
  literal: 2KiB
  token: 16KiB
  memory: 32KiB
  idle: { imap: 41m, pop3: 16m, submission: 17m }
drain: { goodbye: 21s, deadline: 61s }
events: { file: e.jsonl, keep: 8d }
log: { level: warn, format: json }
`

const stagedPolicy = `
version: 1
timezone: UTC
requirements:
  - id: encrypted
    finding: plaintext
    require: { tls: '>=1.2' }
    stages: [{ from: 2026-01-01, do: observe }, { from: 2026-02-01, do: deny }]
tests:
  - { at: 2026-01-01, is: { tls: none }, expect: observe }
`

// files makes the files that configurations here name.
func files(t *testing.T) (dir string, ca *certs.Authority) {
	t.Helper()
	dir = t.TempDir()
	ca, err := certs.NewAuthority("Test authority")
	if err != nil {
		t.Fatal(err)
	}
	cert, err := ca.Issue(certs.Order{Hosts: []string{"imap.example.org", "mail.example.org", "imap.example.net"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{
		certs.Write(cert, certs.Pair{Cert: filepath.Join(dir, "mail.pem"), Key: filepath.Join(dir, "mail.key")}),
		ca.WriteCA(filepath.Join(dir, "ca.pem")),
		os.WriteFile(filepath.Join(dir, "master.secret"), []byte("open sesame\n"), 0o600),
		os.WriteFile(filepath.Join(dir, "eab.key"), []byte("c2VjcmV0\n"), 0o600),
		os.WriteFile(filepath.Join(dir, "staged.yaml"), []byte(stagedPolicy), 0o600),
		os.WriteFile(filepath.Join(dir, "aliases.txt"), []byte("info anna\n"), 0o600),
		os.WriteFile(filepath.Join(dir, "names.txt"), []byte("imap.kunde.example\n"), 0o600),
		os.Mkdir(filepath.Join(dir, "certs"), 0o700),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir, ca
}

// settingsOf makes the settings of a file that passes the check.
func settingsOf(t *testing.T, dir, text string) (*config.Config, *proxy.Settings) {
	t.Helper()
	path := filepath.Join(dir, "mailreeve.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, _, err := load(path, strict)
	if err != nil {
		t.Fatal(err)
	}
	keeper := certs.NewKeeper(zap.NewNop())
	if err := keeper.Set(sources(c, nil)); err != nil {
		t.Fatal(err)
	}
	s, err := settings(c, keeper.Get)
	if err != nil {
		t.Fatal(err)
	}
	return c, s
}

// TestSettings shows what becomes of each key. A key that is not in the list
// fails the test, so that none is forgotten on its way to the engine.
func TestSettings(t *testing.T) {
	dir, _ := files(t)
	c, s := settingsOf(t, dir, everyKey)
	first, second := s.Brands[0], s.Brands[1]
	imap, pop3, submission := first.Backends["imap"], first.Backends["pop3"], first.Backends["submission"]
	one, two, three := s.Listeners[0], s.Listeners[1], s.Listeners[2]
	cert, err := s.Certificate(&tls.ClientHelloInfo{}, proxy.ServerName{Fallback: "imap.example.org"})
	if err != nil {
		t.Fatal(err)
	}
	acme, err := acmeConfig(c, nil)
	if err != nil {
		t.Fatal(err)
	}
	all := sources(c, nil)
	type of = []any
	listed := map[string]bool{}
	elsewhere := of{} // not the engine's: in force where its test is
	for key, values := range map[string]of{
		"version":  elsewhere,
		"hostname": {s.Hostname, "gate.example.org", imap.Hostname, "gate.example.org"},

		"brands":          {len(s.Brands), 2},
		"brands.name":     {first.Name, "first", second.Name, "second"},
		"brands.language": {first.Language, proxy.English, second.Language, proxy.German},
		"brands.help":     {first.Help, "https://help.example.org"},
		"brands.hosts": {first.Hosts, map[string][]string{"imap": {"imap.example.org", "mail.example.org"},
			"pop3": {"mail.example.org"}, "submission": {"mail.example.org"}}},
		"brands.page":     {pages(c)[0].Text, "Neu!"},
		"brands.legacy":   {first.Legacy, []string{"old.example.org", "*.older.example.org", "imap.*", "imap.kunde.example"}},
		"brands.ports":    {first.Ports, map[string]int{"imap": 1993, "pop3": 1995}},
		"brands.backends": {second.Backends["imap"].Addresses, []string{"10.0.1.5:143"}, second.Backends["pop3"], pop3},

		"brands.default_domain": {resolvedName(first, "anna"), "anna@example.org anna"},
		"brands.aliases":        {resolvedName(first, "info"), "anna@example.org anna", second.Account == nil, true},
		"brands.login_name":     {resolvedName(first, "anna@example.org"), "anna@example.org anna"},
		"brands.strict_codes":   {first.StrictCodes, true, second.StrictCodes, false},
		"brands.texts":          {first.Texts[policy.Plaintext][policy.Warn], "Nur noch mit SSL/TLS[ ab {date}]: {host}, Port {port}.[ {help}]", len(second.Texts), 0},

		"brands.legacy_file":         {first.Legacy[3], "imap.kunde.example"},
		"brands.legacy_certificates": elsewhere, // see TestChoice

		"listeners":                {len(s.Listeners), 3},
		"listeners.name":           {one.Name, "one"},
		"listeners.address":        {one.Address, "127.0.0.1:1993", two.Address, ":1143"},
		"listeners.protocol":       {one.Front, fronts[config.IMAP], three.Front, fronts[config.POP3]},
		"listeners.tls":            {one.Implicit, true, two.Implicit, false},
		"listeners.brand":          {one.Brand, second, two.Brand, first},
		"listeners.proxy_protocol": {fmt.Sprint(one.Proxies), "[10.0.0.0/24]", len(two.Proxies), 0},
		"listeners.wrong_port":     {two.ServeHello, false, three.ServeHello, true},

		"listeners.old_tls": {one.OldTLS, false, two.OldTLS, true},

		"policy":                             {strings.HasPrefix(s.Policy.String(), "staged@"), true},
		"hold":                               {c.Hold, filepath.Join(dir, "h.json")},
		"state":                              {acme.Dir, filepath.Join(dir, "state", "acme")},
		"certificates.folder":                {all.Folder, filepath.Join(dir, "certs")},
		"certificates.unknown":               elsewhere, // see TestChoice
		"certificates.acme":                  elsewhere,
		"certificates.acme.email":            {acme.Email, "hostmaster@example.org"},
		"certificates.acme.directory":        {acme.Directory, "https://127.0.0.1:14000/dir"},
		"certificates.acme.accept_terms":     elsewhere, // the check insists on it
		"certificates.acme.ca":               {acme.Roots != nil, true},
		"certificates.acme.account":          elsewhere,
		"certificates.acme.account.key_id":   {acme.EAB.KeyID, "abc"},
		"certificates.acme.account.key_file": {string(acme.EAB.Key), "secret"},
		"certificates.acme.rsa":              {acme.RSA, false},
		"certificates.acme.lookup":           {acme.Lookup, "http://127.0.0.1:8080/name"},
		"certificates.acme.orders_per_hour":  {acme.Hourly, 21},
		"web":                                elsewhere,
		"web.http":                           {acme.HTTP01, true},
		"web.https":                          {acme.TLSALPN01, true},
		"metrics":                            elsewhere, "metrics.address": elsewhere,

		"certificates":            elsewhere,
		"certificates.files":      elsewhere,
		"certificates.files.cert": {cert.Leaf.DNSNames[0], "imap.example.org"},
		"certificates.files.key":  {cert.PrivateKey != nil, true},

		"backends":           {imap.Front, fronts[config.IMAP], pop3.Front, fronts[config.POP3], submission.Front, fronts[config.Submission]},
		"backends.addresses": {imap.Addresses, []string{"10.0.0.5:143", "imap.internal:1143"}},
		"backends.tls":       {imap.Hop, proxy.HopStartTLS, pop3.Hop, proxy.HopImplicit, submission.Hop, proxy.HopPlain},
		"backends.ca":        {imap.TLS.RootCAs != nil, true, pop3.TLS.RootCAs == nil, true},
		"backends.name":      {imap.TLS.ServerName, "backend.internal", pop3.TLS.ServerName, ""},
		"backends.pins":      {pop3.TLS.VerifyConnection != nil, true, imap.TLS.VerifyConnection == nil, true},
		"backends.verify":    {imap.TLS.InsecureSkipVerify, false, pop3.TLS.InsecureSkipVerify, true},

		"backends.connect_timeout": {imap.Connect, 7 * time.Second, pop3.Connect, 5 * time.Second},
		"backends.login_timeout":   {imap.Login, 8 * time.Second, pop3.Login, 30 * time.Second},
		"backends.forward": {imap.Forward, true, imap.Proxy, false, pop3.Forward, false, pop3.Proxy, true,
			submission.Forward, true, submission.Proxy, true},
		"backends.master":               {imap.Master == nil, true},
		"backends.master.user":          {submission.Master.User, "proxy"},
		"backends.master.password_file": {submission.Master.Secret.Reveal(), "open sesame"},
		"backends.master.check":         {submission.Check, imap, imap.Check == nil, true},

		"limits":                   elsewhere,
		"limits.connections":       {s.Connections, 2001},
		"limits.per_address":       {s.PerAddress, 101},
		"limits.handshake_timeout": {s.Times.Handshake, 31 * time.Second},
		"limits.login_timeout":     {s.Times.Login, 121 * time.Second},
		"limits.bad_commands":      {s.Limits.BadCommands, 11},
		"limits.logins":            {s.Limits.Logins, 7},
		"limits.line":              {s.Limits.Line, 4 << 10},
		"limits.literal":           {s.Limits.Literal, 2 << 10},
		"limits.token":             {s.Limits.Token, 16 << 10},
		"limits.memory":            {s.Limits.Memory, 32 << 10},
		"limits.idle":              elsewhere,
		"limits.idle.imap":         {s.Times.Idle["imap"], 41 * time.Minute},
		"limits.idle.pop3":         {s.Times.Idle["pop3"], 16 * time.Minute},
		"limits.idle.submission":   {s.Times.Idle["submission"], 17 * time.Minute},

		"drain": elsewhere, "drain.goodbye": elsewhere, "drain.deadline": elsewhere,
		"events": elsewhere, "events.file": elsewhere, "events.keep": elsewhere,
		"log": elsewhere, "log.level": elsewhere, "log.format": elsewhere,
	} {
		for i := 0; i < len(values); i += 2 {
			if !reflect.DeepEqual(values[i], values[i+1]) {
				t.Errorf("%s: got %v, want %v", key, values[i], values[i+1])
			}
		}
		listed[key] = true
	}
	walk(reflect.TypeFor[config.Config](), "", func(key string) {
		if strings.HasPrefix(key, "outreach") || strings.HasPrefix(key, "brands.notices") {
			return // its commands read them, and have tests
		}
		if !listed[key] {
			t.Errorf("the list has no key %s", key)
		}
		delete(listed, key)
	})
	for key := range listed {
		t.Errorf("there is no key %s", key)
	}
}

// resolvedName is what a brand makes of a name.
func resolvedName(b *proxy.Brand, typed string) string {
	account, send := b.Account(typed)
	return account + " " + send
}

// walk calls each for every key of the configuration. Backends of a brand are
// those of all, so their keys are not gone through twice.
func walk(of reflect.Type, before string, each func(key string)) {
	for of.Kind() == reflect.Slice || of.Kind() == reflect.Map || of.Kind() == reflect.Pointer {
		of = of.Elem()
	}
	if of.Kind() != reflect.Struct || before == "brands.backends." {
		return
	}
	for i := range of.NumField() {
		if name := of.Field(i).Tag.Get("yaml"); name != "" {
			each(before + name)
			walk(of.Field(i).Type, before+name+".", each)
		}
	}
}

// Two brands may share a backend with a master; then each customer's password
// is still checked where his own brand keeps it.
func TestMasterChecksAtTheBrandsOwn(t *testing.T) {
	dir, _ := files(t)
	_, s := settingsOf(t, dir, `
version: 1
brands:
  - name: first
    help: https://help.example.org
    hosts: { imap: [imap.example.org], submission: [mail.example.org] }
  - name: second
    help: https://help.example.net
    hosts: { imap: [imap.example.net] }
    backends: { imap: { addresses: ['10.0.1.5:143'], tls: off } }
listeners:
  - { address: ':993', protocol: imap, tls: implicit }
  - { address: ':465', protocol: submission, tls: implicit }
certificates: { files: [{ cert: mail.pem, key: mail.key }] }
backends:
  imap: { addresses: ['10.0.0.5:143'], tls: off }
  submission:
    addresses: ['10.0.0.6:587']
    tls: off
    master: { user: proxy, password_file: master.secret, check: imap }
`)
	for _, b := range s.Brands {
		if b.Backends["submission"].Check != b.Backends["imap"] {
			t.Errorf("brand %s checks passwords at %v", b.Name, b.Backends["submission"].Check.Addresses)
		}
	}
}

// Brands share a backend, and so what it has learnt.
func TestBrandsShareBackends(t *testing.T) {
	dir, _ := files(t)
	_, s := settingsOf(t, dir, everyKey)
	if s.Brands[0].Backends["submission"].Check != s.Brands[0].Backends["imap"] || s.Brands[0].Backends["pop3"] != s.Brands[1].Backends["pop3"] {
		t.Error("the same backend is there twice")
	}
}

// TestBackendCertificates asks a backend that has a certificate in every way
// that the configuration has to check one.
func TestBackendCertificates(t *testing.T) {
	t.Cleanup(func() { goleak.VerifyNone(t) })
	backends, err := demo.Start(demo.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { backends.Close() })
	dir, ca := files(t)
	foreign, err := certs.NewAuthority("Another authority")
	if err == nil {
		err = foreign.WriteCA(filepath.Join(dir, "foreign.pem"))
	}
	if err != nil {
		t.Fatal(err)
	}
	right := encrypted(t, ca, certs.Order{Hosts: []string{"imap.internal", "127.0.0.1"}}, backends.IMAP)
	expired := encrypted(t, ca, certs.Order{Hosts: []string{"imap.internal", "127.0.0.1"}, NotBefore: time.Now().AddDate(-1, 0, 0), NotAfter: time.Now().AddDate(0, -1, 0)}, backends.IMAP)
	pins := "pins: ['" + right.pin.String() + "']"
	wrong := "pins: ['sha256/47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=']"
	for _, test := range []struct {
		name, keys string
		at         encryptedBackend
		want       string // part of the error; empty: it is used
	}{
		{"authority of ours", "ca: ca.pem", right, ""},
		{"authority of ours, named", "ca: ca.pem, name: imap.internal", right, ""},
		{"authorities of the system", "verify: full", right, "certificate signed by unknown authority"},
		{"authority of others", "ca: foreign.pem", right, "certificate signed by unknown authority"},
		{"another name", "ca: ca.pem, name: pop.internal", right, "certificate is valid for imap.internal, not pop.internal"},
		{"expired", "ca: ca.pem", expired, "certificate has expired"},
		{"authority and pin", "ca: ca.pem, " + pins, right, ""},
		{"authority and wrong pin", "ca: ca.pem, " + wrong, right, "the backend's key is none of those pinned"},
		{"pin without authority", pins, right, "certificate signed by unknown authority"},
		{"pin alone", "verify: pins, " + pins, right, ""},
		{"one of two pins", "verify: pins, " + strings.Replace(wrong, "]", ", '"+right.pin.String()+"']", 1), right, ""},
		{"wrong pin alone", "verify: pins, " + wrong, right, "the backend's key is none of those pinned: it has " + right.pin.String()},
		{"nothing", "verify: none", expired, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, s := settingsOf(t, dir, fmt.Sprintf(`
version: 1
brands: [{ name: example, help: 'https://help.example.org', hosts: { imap: [imap.example.org] } }]
listeners: [{ address: ':993', protocol: imap, tls: implicit }]
certificates: { files: [{ cert: mail.pem, key: mail.key }] }
backends: { imap: { addresses: ['%s'], tls: implicit, %s } }
`, test.at.address, test.keys))
			address, offer, err := s.Brands[0].Backends["imap"].Probe(context.Background())
			switch {
			case test.want == "" && (err != nil || address != test.at.address || len(offer.Mechs) == 0):
				t.Errorf("not used: %v", err)
			case test.want != "" && (err == nil || !strings.Contains(err.Error(), "in the TLS handshake: ") || !strings.Contains(err.Error(), test.want)):
				t.Errorf("got %v, want %s", err, test.want)
			}
		})
	}
}

// encryptedBackend is a backend with a certificate.
type encryptedBackend struct {
	address string
	pin     config.Pin
}

// encrypted puts TLS before a backend.
func encrypted(t *testing.T, ca *certs.Authority, o certs.Order, backend net.Addr) encryptedBackend {
	t.Helper()
	cert, err := ca.Issue(o)
	if err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}})
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	t.Cleanup(func() {
		l.Close()
		running.Wait()
	})
	pass := func(client net.Conn) {
		defer client.Close()
		server, err := net.Dial(backend.Network(), backend.String())
		if err != nil {
			return
		}
		running.Go(func() {
			io.Copy(server, client)
			server.Close()
		})
		io.Copy(client, server)
	}
	running.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() { pass(client) })
		}
	})
	return encryptedBackend{l.Addr().String(), config.PinOf(cert.Leaf)}
}

// TestProbeCures asks backends that cannot be spoken with, and reads what to
// write in the configuration.
func TestProbeCures(t *testing.T) {
	dir, ca := files(t)
	b, err := demo.Start(demo.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	named := encrypted(t, ca, certs.Order{Hosts: []string{"imap.internal"}}, b.IMAP)
	here := encrypted(t, ca, certs.Order{Hosts: []string{"127.0.0.1"}}, b.IMAP)
	expired := encrypted(t, ca, certs.Order{Hosts: []string{"127.0.0.1"}, NotBefore: time.Now().AddDate(-1, 0, 0)}, b.IMAP)
	pin := func(e encryptedBackend) string {
		return "; or, if its key is the right one, verify: pins and pins: ['" + e.pin.String() + "']"
	}
	for _, test := range []struct {
		name, address, keys string
		want                string // how what is said ends
	}{
		{"another name", named.address, "tls: implicit, ca: ca.pem, name: pop.internal", "; set name to the one in the certificate (imap.internal)" + pin(named)},
		{"an address, not a name", named.address, "tls: implicit, ca: ca.pem", "; set name to the one in the certificate (imap.internal)" + pin(named)},
		{"a name, not an address", here.address, "tls: implicit, ca: ca.pem, name: imap.internal", "; give the backend a certificate with its name" + pin(here)},
		{"authority unknown", here.address, "tls: implicit", "; set ca to a file with the authority that issued it" + pin(here)},
		{"expired", expired.address, "tls: implicit, ca: ca.pem", "; give the backend another certificate" + pin(expired)},
		{"no TLS there", b.IMAP.String(), "tls: implicit", "; that port does not begin with TLS: set tls: starttls, or write the port that does"},
		{"TLS there", here.address, "tls: off, login_timeout: 1s", "; what does that port wait for? TLS wants tls: implicit, a PROXY header forward: [proxy]"},
		{"no PROXY header there", here.address, "tls: off, forward: [proxy]",
			"; does that port take a PROXY header? Dovecot wants haproxy = yes and the proxy in haproxy_trusted_networks, Postfix smtpd_upstream_proxy_protocol = haproxy"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, s := settingsOf(t, dir, fmt.Sprintf(`
version: 1
brands: [{ name: example, help: 'https://help.example.org', hosts: { imap: [imap.example.org] } }]
listeners: [{ address: ':993', protocol: imap, tls: implicit }]
certificates: { files: [{ cert: mail.pem, key: mail.key }] }
backends: { imap: { addresses: ['%s'], %s } }
`, test.address, test.keys))
			var out strings.Builder
			if bad := probeAll(t.Context(), &out, s); bad == 0 {
				t.Error("no problem")
			}
			if said := out.String(); !strings.HasSuffix(said, test.want+"\n") || strings.Count(said, "\n") != 1 {
				t.Errorf("it says %q, which does not end in %q", said, test.want)
			}
		})
	}
}

// TestProbeAsksEveryAddress finds the second address that nobody answers at.
func TestProbeAsksEveryAddress(t *testing.T) {
	dir, _ := files(t)
	b, err := demo.Start(demo.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	ports, err := freePorts(1)
	if err != nil {
		t.Fatal(err)
	}
	_, s := settingsOf(t, dir, fmt.Sprintf(`
version: 1
brands: [{ name: example, help: 'https://help.example.org', hosts: { imap: [imap.example.org] } }]
listeners: [{ address: ':993', protocol: imap, tls: implicit }]
certificates: { files: [{ cert: mail.pem, key: mail.key }] }
backends: { imap: { addresses: ['%v', '127.0.0.1:%d'], tls: off } }
`, b.IMAP, ports[0]))
	var out strings.Builder
	err = probed(probeAll(t.Context(), &out, s), 0)
	if err == nil || err.Error() != "1 problem with the backends" {
		t.Errorf("the error is %v", err)
	}
	want := fmt.Sprintf("example imap: backend %v offers PLAIN LOGIN\nexample imap: backend 127.0.0.1:%d: connecting: dial tcp 127.0.0.1:%[2]d: connect: connection refused\n", b.IMAP, ports[0])
	if out.String() != want {
		t.Errorf("it says %q, want %q", out.String(), want)
	}
}

// TestDoubts lists what a backend may offer that does not fit.
func TestDoubts(t *testing.T) {
	for _, test := range []struct {
		name     string
		backend  *proxy.Backend
		protocol config.Protocol
		offer    proxy.Offer
		want     string
	}{
		{"imap", &proxy.Backend{}, config.IMAP, proxy.Offer{Mechs: []string{"PLAIN"}, Extensions: []string{"IMAP4rev1", "AUTH=PLAIN"}}, ""},
		{"imap without login", &proxy.Backend{}, config.IMAP, proxy.Offer{Extensions: []string{"IMAP4rev1", "STARTTLS", "LOGINDISABLED"}},
			"no login is possible on this connection; set tls, or let the backend trust the proxy"},
		{"imap without mechanisms", &proxy.Backend{}, config.IMAP, proxy.Offer{Extensions: []string{"IMAP4rev1"}}, ""},
		{"imap for a master", &proxy.Backend{Master: &proxy.Master{}}, config.IMAP, proxy.Offer{Mechs: []string{"LOGIN"}, Extensions: []string{"IMAP4rev1"}},
			"the master user logs in by PLAIN, which is not offered on this connection; set tls, or let the backend offer it to the proxy"},
		{"pop3", &proxy.Backend{}, config.POP3, proxy.Offer{}, ""},
		{"pop3 for a master", &proxy.Backend{Master: &proxy.Master{}}, config.POP3, proxy.Offer{Mechs: []string{"PLAIN"}}, ""},
		{"submission", &proxy.Backend{}, config.Submission, proxy.Offer{Mechs: []string{"PLAIN", "LOGIN"}, Extensions: []string{"PIPELINING"}}, ""},
		{"submission before TLS", &proxy.Backend{}, config.Submission, proxy.Offer{Extensions: []string{"STARTTLS"}},
			"no AUTH PLAIN or LOGIN on this connection; set tls, or smtpd_tls_auth_only = no for this service"},
		{"XCLIENT used in POP3", &proxy.Backend{Forward: true}, config.POP3, proxy.Offer{Extensions: []string{"XCLIENT", "UIDL"}}, ""},
		{"XCLIENT wanted in POP3", &proxy.Backend{Forward: true}, config.POP3, proxy.Offer{Extensions: []string{"UIDL"}},
			"it does not take XCLIENT from the proxy; add the proxy to login_trusted_networks"},
		{"ID in IMAP", &proxy.Backend{Forward: true}, config.IMAP, proxy.Offer{Mechs: []string{"PLAIN"}}, ""},
		{"XCLIENT used", &proxy.Backend{Forward: true}, config.Submission, proxy.Offer{Mechs: []string{"PLAIN"}, Extensions: []string{"xclient NAME ADDR"}}, ""},
		{"XCLIENT wanted", &proxy.Backend{Forward: true}, config.Submission, proxy.Offer{Mechs: []string{"PLAIN"}},
			"it does not take XCLIENT from the proxy; add the proxy to smtpd_authorized_xclient_hosts"},
	} {
		if got := strings.Join(doubts(test.backend, test.protocol, test.offer), "\n"); got != test.want {
			t.Errorf("%s: got %q, want %q", test.name, got, test.want)
		}
	}
}

// A certificate file that vanishes between check and settings is an error, as
// is one of authorities.
func TestSettingsNeedTheirFiles(t *testing.T) {
	dir, _ := files(t)
	c, _ := settingsOf(t, dir, everyKey)
	for _, name := range []string{"ca.pem", "master.secret", "names.txt"} {
		path := filepath.Join(dir, name)
		if err := os.Rename(path, path+".away"); err != nil {
			t.Fatal(err)
		}
		if _, err := settings(c, nil); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("without %s: %v", name, err)
		}
		if err := os.Rename(path+".away", path); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "ca.pem"), []byte("nothing"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := settings(c, nil); err == nil || !strings.Contains(err.Error(), "no certificate in it") {
		t.Error(err)
	}
	if _, err := acmeConfig(c, nil); err == nil || !strings.Contains(err.Error(), "no certificate in it") {
		t.Error(err)
	}
}

// TestChoice shows how far a certificate may be ordered for what a name stands for.
func TestChoice(t *testing.T) {
	var how certs.Own
	asked := func(_ *tls.ClientHelloInfo, fallback string, own certs.Own) (*tls.Certificate, error) {
		how = own
		return new(tls.Certificate), nil
	}
	own := config.Brand{Name: "a", LegacyCertificates: config.LegacyOwn}
	plain := config.Brand{Name: "a", LegacyCertificates: config.LegacyCanonical}
	lookup := &config.ACME{Lookup: "https://names.internal/"}
	const refused = certs.Own(-1)
	for _, test := range []struct {
		host   string
		listed bool
		brand  config.Brand
		config config.Certificates
		want   certs.Own
	}{
		{policy.Canonical, false, plain, config.Certificates{}, certs.Keep},
		{policy.OtherService, false, own, config.Certificates{Unknown: config.UnknownAlert}, certs.Keep},
		{policy.Absent, false, own, config.Certificates{Unknown: config.UnknownAlert}, certs.Never},
		{policy.Legacy, true, plain, config.Certificates{ACME: lookup}, certs.Never},
		{policy.Legacy, false, plain, config.Certificates{ACME: lookup}, certs.Never},
		{policy.Legacy, true, own, config.Certificates{ACME: new(config.ACME)}, certs.Listed},
		{policy.Legacy, false, own, config.Certificates{ACME: new(config.ACME)}, certs.Keep},
		{policy.Legacy, false, own, config.Certificates{ACME: lookup}, certs.Confirmed},
		{policy.Unknown, false, own, config.Certificates{ACME: lookup, Unknown: config.UnknownCanonical}, certs.Never},
		{policy.Unknown, false, plain, config.Certificates{ACME: lookup, Unknown: config.UnknownOwn}, certs.Confirmed},
		{policy.Unknown, false, plain, config.Certificates{ACME: lookup, Unknown: config.UnknownAlert}, refused},
	} {
		how = refused
		choose := chooser(&config.Config{Brands: []config.Brand{test.brand}, Certificates: test.config}, asked)
		cert, err := choose(nil, proxy.ServerName{Host: test.host, Listed: test.listed, Brand: &proxy.Brand{Name: "a"}})
		if how != test.want || (cert == nil) != (test.want == refused) || err != nil {
			t.Errorf("%s, listed %v: got %v", test.host, test.listed, how)
		}
	}
}

// TestBrowse shows what a browser is shown, and under which certificate.
func TestBrowse(t *testing.T) {
	dir, _ := files(t)
	c, made := settingsOf(t, dir, everyKey)
	owner := func(host string) *proxy.Brand {
		return map[string]*proxy.Brand{"imap.example.org": made.Brands[0], "old.example.org": made.Brands[0], "imap.example.net": made.Brands[1]}[host]
	}
	for unknown, stranger := range map[config.UnknownNames]string{config.UnknownAlert: "refused", config.UnknownCanonical: "imap.example.org 0"} {
		c.Certificates.Unknown = unknown
		fallback, how := "", certs.Own(0)
		w := browse(c, func(_ *tls.ClientHelloInfo, name string, own certs.Own) (*tls.Certificate, error) {
			fallback, how = name, own
			return new(tls.Certificate), nil
		}, owner)
		for name, want := range map[string]string{"imap.example.org": "imap.example.org 1", "Old.Example.ORG.": "imap.example.org 1", "imap.example.net": "imap.example.net 1",
			"": "imap.example.org 0", "localhost": "imap.example.org 0", "www.example.org": stranger} {
			got := "refused"
			if cert, _ := w.Certificate(&tls.ClientHelloInfo{ServerName: name}); cert != nil {
				got = fmt.Sprint(fallback, " ", int(how))
			}
			if got != want {
				t.Errorf("%s, %q: got %s, want %s", unknown, name, got, want)
			}
		}
		if w.Brand("imap.example.net") != 1 || w.Brand("nobody.example") != 0 || len(w.Pages) != 2 {
			t.Errorf("pages %+v", w.Pages)
		}
	}
	second := []web.Server{{Protocol: "imap", Host: "imap.example.net", Port: 993}}
	first := []web.Server{{Protocol: "imap", Host: "imap.example.org", Port: 1993}, {Protocol: "pop3", Host: "mail.example.org", Port: 1995}, {Protocol: "submission", Host: "mail.example.org", Port: 465}}
	if p := pages(c); !reflect.DeepEqual(p[0].Servers, first) || !reflect.DeepEqual(p[1].Servers, second) || p[0].Language != "en" || p[0].Help != "https://help.example.org" {
		t.Errorf("got %+v", p)
	}
}
