package main

// What browsers are shown: from the configuration's types to those of room web.

import (
	"crypto/tls"
	"strings"

	"mailreeve/certs"
	"mailreeve/config"
	"mailreeve/web"
)

// standardPorts are those of implicit TLS (RFC 8314 section 3).
var standardPorts = map[config.Protocol]int{config.IMAP: 993, config.POP3: 995, config.Submission: 465}

// pages makes the help pages of a configuration, one a brand.
func pages(c *config.Config) (all []web.Page) {
	for i := range c.Brands {
		b := &c.Brands[i]
		p := web.Page{Brand: string(b.Name), Language: string(b.Language), Text: string(b.Page), Help: string(b.Help)}
		for _, protocol := range config.Protocols {
			if len(b.Hosts[protocol]) == 0 {
				continue
			}
			port := standardPorts[protocol]
			if own, ok := b.Ports[protocol]; ok {
				port = int(own)
			}
			p.Servers = append(p.Servers, web.Server{Protocol: string(protocol), Host: string(b.Hosts[protocol][0]), Port: port})
		}
		all = append(all, p)
	}
	return all
}

// browse makes the settings of the web ports. Whoever answers challenges is left out.
func browse(c *config.Config, get source, tickets *tls.Config) (web.Settings, error) {
	owners, err := newOwners(c)
	if err != nil {
		return web.Settings{}, err
	}
	alert := c.Certificates.Unknown == config.UnknownAlert
	return web.Settings{
		Pages: pages(c), Tickets: tickets,
		Brand: func(host string) int {
			brand, _ := owners.of(host)
			return brand
		},
		// Only what is there: a browser's request is no reason to order, and it
		// would not wait for it.
		Certificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			brand, known := owners.of(certs.Fold(hello.ServerName))
			how := certs.Keep
			if !known {
				if alert && strings.Contains(hello.ServerName, ".") {
					return nil, nil
				}
				how = certs.Never
			}
			return get(hello, firstHost(&c.Brands[brand]), how)
		},
	}, nil
}

// firstHost is the name of a brand that stands for it where none was sent.
func firstHost(b *config.Brand) string {
	for _, p := range config.Protocols {
		if hosts := b.Hosts[p]; len(hosts) > 0 {
			return string(hosts[0])
		}
	}
	return ""
}

// owners tell whose a host name is, by index of the brand. Whole names go before
// suffixes, longer suffixes before shorter ones, and labels come last, as for mail.
type owners struct {
	whole, suffix, label map[string]int
}

func newOwners(c *config.Config) (*owners, error) {
	o := &owners{map[string]int{}, map[string]int{}, map[string]int{}}
	for i := range c.Brands {
		b := &c.Brands[i]
		listed, _, err := b.LegacyNames()
		if err != nil {
			return nil, err
		}
		for _, name := range listed {
			o.whole[string(name)] = i
		}
		for _, p := range b.Legacy {
			if suffix, ok := strings.CutPrefix(string(p), "*"); ok {
				o.suffix[suffix] = i
			} else if label, ok := strings.CutSuffix(string(p), ".*"); ok {
				o.label[label] = i
			} else {
				o.whole[string(p)] = i
			}
		}
	}
	for i, b := range c.Brands { // canonical names go before all
		for _, hosts := range b.Hosts {
			for _, host := range hosts {
				o.whole[string(host)] = i
			}
		}
	}
	return o, nil
}

// of finds the brand of a folded name; the first, where it is nobody's.
func (o *owners) of(host string) (brand int, known bool) {
	if i, ok := o.whole[host]; ok {
		return i, true
	}
	label, rest, dotted := strings.Cut(host, ".")
	for under := rest; dotted; _, under, dotted = strings.Cut(under, ".") {
		if i, ok := o.suffix["."+under]; ok {
			return i, true
		}
	}
	i, ok := o.label[label]
	return i, ok && rest != ""
}
