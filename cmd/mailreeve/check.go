package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"mailreeve/config"
	"mailreeve/policy"
	"mailreeve/proxy"
)

func newCheck() *cobra.Command {
	var path string
	var probe bool
	c := &cobra.Command{
		Use:   "check -c FILE",
		Short: "Check a configuration without starting anything",
		Long: `Check a configuration file and everything that it names, without starting or
changing anything: keys, values, addresses, host names, certificates. Each problem
is told with file, line, column and cure; so is the policy file, and what it does
next, and how many sessions this machine has room for, if started from this shell.
The exit code is 1 where there is an error.

With --probe every address of the backends is asked, too, what it offers; the CA and
the lookup are asked whether they answer, and certificates that have expired, or are
in their last days, are errors.`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			out := c.OutOrStdout()
			conf, problems, err := load(path, strict)
			if err != nil {
				return err
			}
			s, err := settings(conf, nil)
			if err != nil {
				return err
			}
			for _, p := range problems {
				fmt.Fprintln(out, p)
			}
			fmt.Fprintf(out, "%s: fine: %s, %s, policy %v\n", path,
				count(len(s.Listeners), "listener"), count(len(s.Brands), "brand"), s.Policy)
			for _, line := range ahead(s.Policy, time.Now()) {
				fmt.Fprintln(out, line)
			}
			for _, line := range intended(conf) {
				fmt.Fprintln(out, line)
			}
			for _, line := range findRoom(conf).lines() {
				fmt.Fprintln(out, line)
			}
			if !probe {
				return nil
			}
			backends := probeAll(c.Context(), out, s)
			bad, listed := probeCertificates(c.Context(), out, conf)
			err = probed(backends, bad)
			if backends == 0 && listed > 0 {
				err = withHint(err, "`mailreeve certs list -c %s` shows all certificates, and when they are tried again", shellWord(path))
			}
			return err
		},
	}
	configFlag(c, &path)
	c.Flags().BoolVar(&probe, "probe", false, "ask the backends and the CA what they offer")
	return c
}

// ahead are lines on what the policy will do next.
func ahead(p *policy.Policy, now time.Time) (lines []string) {
	const most = 3
	for i, c := range comingOf(p, now) {
		if i == most {
			return append(lines, "... and more: `mailreeve policy calendar` lists all")
		}
		lines = append(lines, "ahead: "+c.at.Format("Mon 2 Jan 2006 15:04 MST")+", "+c.text)
	}
	return lines
}

// probed is the error that a probe ends with, by the number of problems that it found.
func probed(backends, certificates int) error {
	switch {
	case backends > 0 && certificates > 0:
		return withHint(fmt.Errorf("%s with the backends, %s with the certificates", count(backends, "problem"), count(certificates, "problem")), mendBackends)
	case backends > 0:
		return withHint(fmt.Errorf("%s with the backends", count(backends, "problem")), mendBackends)
	case certificates > 0:
		return fmt.Errorf("%s with the certificates", count(certificates, "problem"))
	}
	return nil
}

const mendBackends = "mend them first: `mailreeve run` would start, and customers would be told that their mail server cannot be reached"

// probeAll asks every backend and says what it found. It returns the number of problems.
func probeAll(ctx context.Context, out io.Writer, s *proxy.Settings) (bad int) {
	asked := map[*proxy.Backend]bool{}
	for _, brand := range s.Brands {
		for _, protocol := range config.Protocols {
			b := brand.Backends[fronts[protocol].Name]
			if b == nil || asked[b] {
				continue
			}
			asked[b] = true
			for _, address := range b.Addresses {
				said := fmt.Sprintf("%s %s: ", brand.Name, protocol)
				one := only(b, address)
				_, offer, err := one.Probe(ctx)
				if err != nil {
					bad++
					if cure := cureOf(one, err); cure != "" {
						err = fmt.Errorf("%w; %s", err, cure)
					}
					fmt.Fprintln(out, said+err.Error())
					continue
				}
				fmt.Fprintf(out, "%sbackend %s offers %s\n", said, address, cmp.Or(strings.Join(offer.Mechs, " "), "no mechanism"))
				for _, trouble := range doubts(one, protocol, offer) {
					bad++
					fmt.Fprintln(out, said+trouble)
				}
			}
		}
	}
	return bad
}

// only is a backend at one of its addresses: customers meet each of them.
func only(b *proxy.Backend, address string) *proxy.Backend {
	return &proxy.Backend{
		Front: b.Front, Addresses: []string{address}, Hop: b.Hop, TLS: b.TLS, Connect: b.Connect, Login: b.Login,
		Proxy: b.Proxy, Forward: b.Forward, Hostname: b.Hostname, Dialer: b.Dialer, Master: b.Master,
	}
}

// cureOf says what to write in the configuration where a backend could not be
// spoken with. It is empty where the error says all that is known.
func cureOf(b *proxy.Backend, err error) string {
	var bad *tls.CertificateVerificationError
	var plain tls.RecordHeaderError
	var network net.Error
	connecting := new(net.OpError)
	switch {
	case errors.As(err, &bad) && len(bad.UnverifiedCertificates) > 0:
		return certificateCure(bad)
	case errors.As(err, &plain):
		return "that port does not begin with TLS: set tls: starttls, or write the port that does"
	case errors.As(err, &connecting) && connecting.Op == "dial":
		return ""
	case b.Proxy:
		return "does that port take a PROXY header? Dovecot wants haproxy = yes and the proxy in haproxy_trusted_networks, " +
			"Postfix smtpd_upstream_proxy_protocol = haproxy"
	case errors.Is(err, io.EOF) || errors.As(err, &network) && network.Timeout():
		return "what does that port wait for? TLS wants tls: implicit, a PROXY header forward: [proxy]"
	}
	return ""
}

// certificateCure names the key that helps with a certificate that was not believed.
func certificateCure(bad *tls.CertificateVerificationError) string {
	var name x509.HostnameError
	var unknown x509.UnknownAuthorityError
	cert := bad.UnverifiedCertificates[0]
	way := ""
	switch {
	case errors.As(bad, &name) && len(cert.DNSNames) > 0:
		way = "set name to the one in the certificate (" + proxy.CleanText(strings.Join(cert.DNSNames, ", ")) + ")"
	case errors.As(bad, &unknown):
		way = "set ca to a file with the authority that issued it"
	case errors.As(bad, &name):
		way = "give the backend a certificate with its name"
	default:
		way = "give the backend another certificate"
	}
	return fmt.Sprintf("%s; or, if its key is the right one, verify: pins and pins: ['%v']", way, config.PinOf(cert))
}

// doubts says what a backend offers that does not fit how it is used.
func doubts(b *proxy.Backend, protocol config.Protocol, o proxy.Offer) (found []string) {
	has := func(name string) bool {
		return slices.ContainsFunc(o.Extensions, func(line string) bool {
			word, _, _ := strings.Cut(strings.ToUpper(line), " ")
			return word == name
		})
	}
	switch {
	case protocol == config.IMAP && has("LOGINDISABLED") && !slices.Contains(o.Mechs, "PLAIN"):
		found = append(found, "no login is possible on this connection; set tls, or let the backend trust the proxy")
	case protocol == config.Submission && !slices.Contains(o.Mechs, "PLAIN") && !slices.Contains(o.Mechs, "LOGIN"):
		found = append(found, "no AUTH PLAIN or LOGIN on this connection; set tls, or smtpd_tls_auth_only = no for this service")
	}
	if b.Master != nil && !slices.Contains(o.Mechs, "PLAIN") {
		found = append(found, "the master user logs in by PLAIN, which is not offered on this connection; set tls, or let the backend offer it to the proxy")
	}
	if b.Forward && !has("XCLIENT") {
		switch protocol {
		case config.POP3:
			found = append(found, "it does not take XCLIENT from the proxy; add the proxy to login_trusted_networks")
		case config.Submission:
			found = append(found, "it does not take XCLIENT from the proxy; add the proxy to smtpd_authorized_xclient_hosts")
		}
	}
	return found
}
