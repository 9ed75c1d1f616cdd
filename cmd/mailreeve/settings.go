package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

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

// load reads a configuration and makes the engine's settings of it. Warnings
// do not prevent that. With a zero time, expired certificates are none.
func load(path string, at time.Time) (*config.Config, *proxy.Settings, config.Problems, error) {
	c, err := config.Load(path)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			err = withHint(err, "`mailreeve config example > %s` writes one to begin with", path)
		}
		return nil, nil, nil, err
	}
	problems := c.Check(at)
	if err := problems.Err(); err != nil {
		return nil, nil, problems, err
	}
	s, err := settings(c)
	return c, s, problems, err
}

// settings makes the engine's settings of a checked configuration.
func settings(c *config.Config) (*proxy.Settings, error) {
	pairs := make([]certs.Pair, len(c.Certificates.Files))
	for i, f := range c.Certificates.Files {
		pairs[i] = certs.Pair{Cert: f.Cert, Key: f.Key}
	}
	store, err := certs.Load(pairs)
	if err != nil {
		return nil, err
	}
	s := &proxy.Settings{
		Hostname:    string(c.Hostname),
		Policy:      policy.Enforced(),
		Certificate: store.Get,
		Connections: c.Limits.Connections,
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
	made := map[*config.Backend]*proxy.Backend{} // brands may share one, and what it has learnt
	brands := map[config.Name]*proxy.Brand{}
	for i := range c.Brands {
		b, err := brand(c, &c.Brands[i], made)
		if err != nil {
			return nil, err
		}
		s.Brands = append(s.Brands, b)
		brands[c.Brands[i].Name] = b
	}
	for _, l := range c.Listeners {
		s.Listeners = append(s.Listeners, &proxy.Listener{
			Name: string(l.Name), Address: l.Address.String(), Front: fronts[l.Protocol], Implicit: l.TLS == config.Implicit,
			Brand: brands[l.Brand], Proxies: l.ProxyProtocol, ServeHello: l.WrongPort == config.WrongPortServe,
		})
	}
	return s, nil
}

func brand(c *config.Config, b *config.Brand, made map[*config.Backend]*proxy.Backend) (*proxy.Brand, error) {
	p := &proxy.Brand{
		Name: string(b.Name), Language: proxy.Language(b.Language), Help: string(b.Help),
		Hosts: map[string][]string{}, Ports: map[string]int{}, Backends: map[string]*proxy.Backend{},
	}
	for _, pattern := range b.Legacy {
		p.Legacy = append(p.Legacy, string(pattern))
	}
	for protocol, front := range fronts {
		for _, host := range b.Hosts[protocol] {
			p.Hosts[front.Name] = append(p.Hosts[front.Name], string(host))
		}
		if port, ok := b.Ports[protocol]; ok {
			p.Ports[front.Name] = int(port)
		}
		of := c.Backend(b, protocol)
		if of == nil {
			continue
		}
		backend, err := backendFor(c, of, protocol, made)
		if err != nil {
			return nil, err
		}
		p.Backends[front.Name] = backend
	}
	for _, protocol := range config.Protocols {
		of := c.Backend(b, protocol)
		if of == nil || of.Master == nil {
			continue
		}
		check, err := backendFor(c, c.Backend(b, of.Master.Check), of.Master.Check, made)
		if err != nil {
			return nil, err
		}
		p.Backends[fronts[protocol].Name].Check = check
	}
	return p, nil
}

// backendFor makes a backend once.
func backendFor(c *config.Config, b *config.Backend, protocol config.Protocol, made map[*config.Backend]*proxy.Backend) (*proxy.Backend, error) {
	if p := made[b]; p != nil {
		return p, nil
	}
	conf, err := hopTLS(b)
	if err != nil {
		return nil, err
	}
	p := &proxy.Backend{
		Front: fronts[protocol], TLS: conf, Connect: b.ConnectTimeout, Login: b.LoginTimeout, Hostname: string(c.Hostname),
		Hop:     map[config.BackendTLS]proxy.Hop{config.Off: proxy.HopPlain, config.STARTTLS: proxy.HopStartTLS, config.Implicit: proxy.HopImplicit}[b.TLS],
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
	made[b] = p
	return p, nil
}

// hopTLS is how a backend's certificate is checked.
func hopTLS(b *config.Backend) (*tls.Config, error) {
	conf := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: string(b.ServerName)}
	if b.CA != "" {
		pem, err := os.ReadFile(b.CA)
		if err != nil {
			return nil, fmt.Errorf("reading the backend's authorities: %w", err)
		}
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s: no certificate in it", b.CA)
		}
	}
	conf.InsecureSkipVerify = b.Verify != config.VerifyFull
	if len(b.Pins) > 0 && b.Verify != config.VerifyNone {
		pins := b.Pins
		conf.VerifyConnection = func(state tls.ConnectionState) error {
			if !slices.Contains(pins, config.PinOf(state.PeerCertificates[0])) {
				return fmt.Errorf("the backend's key is none of those pinned: %v", config.PinOf(state.PeerCertificates[0]))
			}
			return nil
		}
	}
	return conf, nil
}
