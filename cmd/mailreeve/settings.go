package main

// From the configuration's types to the engine's.

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"go.uber.org/zap"

	"mailreeve/certs"
	"mailreeve/config"
	"mailreeve/imapfront"
	"mailreeve/policy"
	"mailreeve/popfront"
	"mailreeve/proxy"
	"mailreeve/smtpfront"
)

var fronts = map[config.Protocol]*proxy.Front{
	config.IMAP:       imapfront.Front,
	config.POP3:       popfront.Front,
	config.Submission: smtpfront.Front,
}

var hops = map[config.BackendTLS]proxy.Hop{
	config.Off:      proxy.HopPlain,
	config.STARTTLS: proxy.HopStartTLS,
	config.Implicit: proxy.HopImplicit,
}

// load reads a configuration and checks it. Warnings do not prevent that, and
// expired certificates and wrong lines in a list of old names only where a check
// is strict: a proxy that serves an expired one, or lacks one old name of
// thousands, is better than a proxy that does not start.
func load(path string, how strictness) (*config.Config, config.Problems, error) {
	c, err := config.Load(path)
	if err != nil {
		return nil, nil, fileHint(err, path)
	}
	problems := c.Check(time.Now())
	if how == lenient {
		problems = forgiven(c, problems)
	}
	problems = append(problems, wordProblems(c)...)
	if problems.Err() != nil {
		return c, problems, problems // the warnings too: they may tell the cause
	}
	return c, problems, nil
}

// forgiven makes warnings of the errors that a running program can live with.
func forgiven(c *config.Config, problems config.Problems) config.Problems {
	undated := c.Check(time.Time{})
	for i, p := range problems {
		if c.Policy != "" && p.File == c.Policy {
			continue // a policy is not right for half
		}
		inList := slices.ContainsFunc(c.Brands, func(b config.Brand) bool {
			return p.File != "" && (p.File == b.LegacyFile || p.File == b.Aliases)
		})
		if inList || !slices.Contains(undated, p) {
			problems[i].Severity = config.Warning
		}
	}
	return problems
}

// strictness is how a configuration is judged.
type strictness bool

const (
	lenient strictness = false
	strict  strictness = true
)

// fileHint says what to do about a configuration that cannot be read.
func fileHint(err error, path string) error {
	switch {
	case errors.Is(err, os.ErrNotExist):
		begin := ""
		if dir := filepath.Dir(path); !isDirectory(dir) {
			begin = "mkdir -p " + shellWord(dir) + " && "
		}
		return withHint(err, "`%smailreeve config example > %s` writes one to begin with; `mailreeve demo` needs none", begin, shellWord(path))
	case errors.Is(err, os.ErrPermission):
		return withHint(err, "run it as a user who may read the file: `ls -l %s` shows who that is", shellWord(path))
	case isDirectory(path):
		return withHint(err, "-c wants the file itself, like `-c %s`", shellWord(filepath.Join(path, "mailreeve.yaml")))
	}
	return err
}

func isDirectory(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// source is where certificates come from: for the name in the hello, as far as
// own lets it, or else for the fallback.
type source func(hello *tls.ClientHelloInfo, fallback string, own certs.Own) (*tls.Certificate, error)

// settings makes the engine's settings of a checked configuration. Without a
// source nobody can be served, which is enough to ask the backends.
func settings(c *config.Config, get source) (*proxy.Settings, error) {
	p, err := c.Enforced()
	if err != nil {
		return nil, fmt.Errorf("reading the policy: %w", err)
	}
	s := &proxy.Settings{
		Hostname:    string(c.Hostname),
		Policy:      p,
		Certificate: chooser(c, get),
		Connections: c.Limits.Connections, // what becomes of it on this machine, see room
		PerAddress:  c.Limits.PerAddress,
		Limits: proxy.Limits{
			Line: int(c.Limits.Line), Literal: int(c.Limits.Literal), Token: int(c.Limits.Token), Memory: int(c.Limits.Memory),
			BadCommands: c.Limits.BadCommands, Logins: c.Limits.Logins,
		},
		Times: proxy.Times{
			Handshake: c.Limits.HandshakeTimeout, Login: c.Limits.LoginTimeout, Idle: map[string]time.Duration{},
		},
	}
	for protocol, front := range fronts {
		s.Times.Idle[front.Name] = c.Limits.Idle.For(protocol)
	}
	made := backends{config: c, made: map[[2]*config.Backend]*proxy.Backend{}}
	brands := map[config.Name]*proxy.Brand{}
	for i := range c.Brands {
		b, err := made.brand(&c.Brands[i])
		if err != nil {
			return nil, err
		}
		s.Brands = append(s.Brands, b)
		brands[c.Brands[i].Name] = b
	}
	for _, l := range c.Listeners {
		s.Listeners = append(s.Listeners, &proxy.Listener{
			Name: string(l.Name), Address: l.Address.String(), Front: fronts[l.Protocol], Implicit: l.TLS == config.Implicit,
			Brand: brands[l.Brand], Proxies: l.ProxyProtocol, ServeHello: l.WrongPort == config.WrongPortServe, OldTLS: l.OldTLS,
		})
	}
	return s, nil
}

// chooser says which certificate goes with what a name stands for.
func chooser(c *config.Config, get source) func(*tls.ClientHelloInfo, proxy.ServerName) (*tls.Certificate, error) {
	own := map[string]bool{}
	for _, b := range c.Brands {
		own[string(b.Name)] = b.LegacyCertificates == config.LegacyOwn
	}
	unconfirmed := confirmation(c)
	return func(hello *tls.ClientHelloInfo, name proxy.ServerName) (*tls.Certificate, error) {
		how := certs.Never
		switch {
		case name.Host == policy.Canonical, name.Host == policy.OtherService:
			how = certs.Keep
		case name.Host == policy.Legacy && !own[name.Brand.Name]:
		case name.Host == policy.Legacy && name.Listed:
			how = certs.Listed
		case name.Host == policy.Legacy:
			how = unconfirmed
		case name.Host == policy.Unknown && c.Certificates.Unknown == config.UnknownAlert:
			return nil, nil
		case name.Host == policy.Unknown && c.Certificates.Unknown == config.UnknownOwn:
			how = unconfirmed
		}
		return get(hello, name.Fallback, how)
	}
}

// confirmation is how far an order may go for a name that is on no list. With
// nobody to confirm it, that is as far as one that was ordered earlier.
func confirmation(c *config.Config) certs.Own {
	if c.Certificates.ACME == nil || c.Certificates.ACME.Lookup == "" {
		return certs.Keep
	}
	return certs.Confirmed
}

// canonicals are all canonical names, each once.
func canonicals(c *config.Config) (names []string) {
	for _, b := range c.Brands {
		for _, p := range config.Protocols {
			for _, host := range b.Hosts[p] {
				if !slices.Contains(names, string(host)) {
					names = append(names, string(host))
				}
			}
		}
	}
	return names
}

// sources are the certificates that the keeper has.
func sources(c *config.Config, issuer certs.Issuer) certs.Sources {
	s := certs.Sources{Folder: c.Certificates.Folder, Names: canonicals(c), Issuer: issuer}
	for _, f := range c.Certificates.Files {
		s.Files = append(s.Files, certs.Pair{Cert: f.Cert, Key: f.Key})
	}
	return s
}

// acmeConfig is what an ACME client is made of; nil if there is to be none.
func acmeConfig(c *config.Config, log *zap.Logger) (*certs.ACMEConfig, error) {
	a := c.Certificates.ACME
	if a == nil {
		return nil, nil
	}
	m := &certs.ACMEConfig{
		Directory: string(a.Directory), Email: string(a.Email), Dir: acmeDir(c), RSA: a.RSA, Lookup: string(a.Lookup), Hourly: a.OrdersPerHour,
		HTTP01: c.Web != nil && c.Web.HTTP != nil, TLSALPN01: c.Web != nil && c.Web.HTTPS != nil, Log: log,
	}
	var err error
	if a.CA != "" {
		if m.Roots, err = authorities(a.CA); err != nil {
			return nil, fmt.Errorf("reading the authorities of the ACME directory: %w", err)
		}
	}
	if a.Account != nil {
		key, err := a.Account.Key()
		if err != nil {
			return nil, fmt.Errorf("reading the key of the ACME account: %w", err)
		}
		m.EAB = &certs.EAB{KeyID: a.Account.KeyID, Key: key}
	}
	return m, nil
}

// acmeDir is where the ACME client keeps what it has.
func acmeDir(c *config.Config) string { return filepath.Join(c.State, "acme") }

// authorities reads the certificates of authorities.
func authorities(file string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s: no certificate in it", file)
	}
	return pool, nil
}

// words are what a brand's sentences are made of.
func words(b *config.Brand) *proxy.Brand {
	p := &proxy.Brand{
		Name: string(b.Name), Language: proxy.Language(b.Language), Help: string(b.Help), StrictCodes: b.StrictCodes,
		Hosts: map[string][]string{}, Ports: map[string]int{},
	}
	for protocol, front := range fronts {
		for _, host := range b.Hosts[protocol] {
			p.Hosts[front.Name] = append(p.Hosts[front.Name], string(host))
		}
		if port, ok := b.Ports[protocol]; ok {
			p.Ports[front.Name] = int(port)
		}
	}
	for about, texts := range b.Texts {
		if p.Texts == nil {
			p.Texts = map[policy.Finding]map[policy.Action]string{}
		}
		own := map[policy.Action]string{}
		for at, text := range texts {
			var action policy.Action
			if action.UnmarshalText([]byte(at)) == nil { // the decoder has no others
				own[action] = string(text)
			}
		}
		p.Texts[policy.Finding(about)] = own
	}
	return p
}

// wordProblems tells sentences of brands that cannot be said. What the program
// itself would say of a long host name is a warning only: it is cut.
func wordProblems(c *config.Config) (problems config.Problems) {
	for i := range c.Brands {
		b := words(&c.Brands[i])
		for _, p := range b.CheckTexts() {
			severity, key := config.Warning, fmt.Sprintf("brands[%d].hosts", i)
			if b.Texts[p.Finding][p.Action] != "" || b.Texts[p.Finding] != nil && p.Front == "" {
				severity, key = config.Error, fmt.Sprintf("brands[%d].texts.%s.%v", i, p.Finding, p.Action)
			}
			message := fmt.Sprintf("%s at %v: %s", p.Finding, p.Action, p.Problem)
			if p.Front != "" {
				message = p.Front + ", " + message
			}
			problems = append(problems, c.Problem(severity, key, message, ""))
		}
	}
	return problems
}

// backends makes each backend once: brands may share one, and what it has
// learnt. One with a master is shared only where they also share the backend
// that checks the customer's credential: each brand's passwords are its own.
type backends struct {
	config *config.Config
	made   map[[2]*config.Backend]*proxy.Backend // by backend and check
}

func (m *backends) brand(b *config.Brand) (*proxy.Brand, error) {
	p := words(b)
	p.Backends = map[string]*proxy.Backend{}
	names, _, err := b.Names() // the check has told what is wrong in it
	if err != nil {
		return nil, fmt.Errorf("reading the aliases of brand %s: %w", b.Name, err)
	}
	if names != nil {
		p.Account = names.Resolve
	}
	for _, pattern := range b.Legacy {
		p.Legacy = append(p.Legacy, string(pattern))
	}
	listed, _, err := b.LegacyNames() // the check has told what is wrong in it
	if err != nil {
		return nil, fmt.Errorf("reading the old names of brand %s: %w", b.Name, err)
	}
	for _, name := range listed {
		p.Legacy = append(p.Legacy, string(name))
	}
	for protocol, front := range fronts {
		if m.config.Backend(b, protocol) == nil {
			continue
		}
		backend, err := m.backend(b, protocol)
		if err != nil {
			return nil, err
		}
		p.Backends[front.Name] = backend
	}
	return p, nil
}

// backend is where a brand's sessions of a protocol go.
func (m *backends) backend(brand *config.Brand, protocol config.Protocol) (*proxy.Backend, error) {
	b := m.config.Backend(brand, protocol)
	var check *config.Backend
	if b.Master != nil {
		check = m.config.Backend(brand, b.Master.Check)
	}
	if p := m.made[[2]*config.Backend{b, check}]; p != nil {
		return p, nil
	}
	p, err := newBackend(m.config, b, protocol)
	if err != nil {
		return nil, err
	}
	if check != nil {
		if p.Check, err = m.backend(brand, b.Master.Check); err != nil {
			return nil, err
		}
	}
	m.made[[2]*config.Backend{b, check}] = p
	return p, nil
}

func newBackend(c *config.Config, b *config.Backend, protocol config.Protocol) (*proxy.Backend, error) {
	conf, err := hopTLS(b)
	if err != nil {
		return nil, err
	}
	p := &proxy.Backend{
		Front: fronts[protocol], TLS: conf, Connect: b.ConnectTimeout, Login: b.LoginTimeout, Hostname: string(c.Hostname),
		Hop:     hops[b.TLS],
		Proxy:   slices.Contains(b.Forward, config.ForwardProxy),
		Forward: slices.Contains(b.Forward, config.ForwardID) || slices.Contains(b.Forward, config.ForwardXCLIENT),
	}
	for _, a := range b.Addresses {
		p.Addresses = append(p.Addresses, a.String())
	}
	if b.Master != nil {
		password, err := b.Master.Password()
		if err != nil {
			return nil, fmt.Errorf("reading the master user's password: %w", err)
		}
		p.Master = &proxy.Master{User: b.Master.User, Secret: proxy.Secret(password)}
	}
	return p, nil
}

// hopTLS is how a backend's certificate is checked.
func hopTLS(b *config.Backend) (*tls.Config, error) {
	conf := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: string(b.ServerName)}
	if b.CA != "" {
		roots, err := authorities(b.CA)
		if err != nil {
			return nil, fmt.Errorf("reading the backend's authorities: %w", err)
		}
		conf.RootCAs = roots
	}
	conf.InsecureSkipVerify = b.Verify != config.VerifyFull
	if len(b.Pins) > 0 && b.Verify != config.VerifyNone {
		pins := b.Pins
		conf.VerifyConnection = func(state tls.ConnectionState) error {
			if !slices.Contains(pins, config.PinOf(state.PeerCertificates[0])) {
				return fmt.Errorf("the backend's key is none of those pinned: it has %v", config.PinOf(state.PeerCertificates[0]))
			}
			return nil
		}
	}
	return conf, nil
}
