package main

// What browsers are shown: from the configuration's types to those of room web.

import (
	"crypto/tls"
	"slices"
	"strings"

	"mailreeve/certs"
	"mailreeve/config"
	"mailreeve/proxy"
	"mailreeve/web"
)

// standardPorts are those of implicit TLS (RFC 8314 section 3).
var standardPorts = map[config.Protocol]int{config.IMAP: 993, config.POP3: 995, config.Submission: 465}

// pages makes the help pages of a configuration, one a brand.
func pages(c *config.Config) (all []web.Page) {
	for i := range c.Brands {
		b := &c.Brands[i]
		p := web.Page{Language: string(b.Language), Text: string(b.Page), Help: string(b.Help)}
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

// browse makes the settings of the web ports; owner tells whose a host name is. Whoever
// answers challenges is left out.
func browse(c *config.Config, get source, owner func(host string) *proxy.Brand) web.Settings {
	alert := c.Certificates.Unknown == config.UnknownAlert
	brand := func(host string) (index int, known bool) {
		if b := owner(host); b != nil {
			index = slices.IndexFunc(c.Brands, func(of config.Brand) bool { return string(of.Name) == b.Name })
			return max(index, 0), index >= 0
		}
		return 0, false
	}
	return web.Settings{
		Pages: pages(c),
		Brand: func(host string) int {
			index, _ := brand(host)
			return index
		},
		// Only what is there: a browser's request is no reason to order, and it
		// would not wait for it.
		Certificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			index, known := brand(certs.Fold(hello.ServerName))
			how := certs.Keep
			if !known {
				if alert && strings.Contains(hello.ServerName, ".") {
					return nil, nil
				}
				how = certs.Never
			}
			return get(hello, firstHost(&c.Brands[index]), how)
		},
	}
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
