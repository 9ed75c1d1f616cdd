package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"mailreeve/config"
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
is told with file, line, column and cure. The exit code is 1 where there is an error.

With --probe the backends are asked, too, what they offer.`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			out := c.OutOrStdout()
			_, s, problems, err := load(path, strict)
			if err != nil {
				if problems != nil {
					return problems // the warnings too
				}
				return err
			}
			for _, p := range problems {
				fmt.Fprintln(out, p)
			}
			fmt.Fprintf(out, "%s: fine: %s, %s, policy %v\n", path,
				count(len(s.Listeners), "listener"), count(len(s.Brands), "brand"), s.Policy)
			if !probe {
				return nil
			}
			return probeAll(c.Context(), out, s)
		},
	}
	configFlag(c, &path)
	c.Flags().BoolVar(&probe, "probe", false, "ask the backends what they offer")
	return c
}

// probeAll asks every backend and says what it found.
func probeAll(ctx context.Context, out io.Writer, s *proxy.Settings) error {
	bad := 0
	asked := map[*proxy.Backend]bool{}
	for _, brand := range s.Brands {
		for _, protocol := range config.Protocols {
			b := brand.Backends[fronts[protocol].Name]
			if b == nil || asked[b] {
				continue
			}
			asked[b] = true
			address, offer, err := b.Probe(ctx)
			if err != nil {
				bad++
				for line := range strings.SplitSeq(err.Error(), "\n") {
					fmt.Fprintf(out, "%s %s: %s\n", brand.Name, protocol, line)
				}
				continue
			}
			fmt.Fprintf(out, "%s %s: backend %s offers %s\n", brand.Name, protocol, address,
				cmp.Or(strings.Join(offer.Mechs, " "), "no mechanism"))
			for _, trouble := range doubts(b, protocol, offer) {
				bad++
				fmt.Fprintf(out, "%s %s: %s\n", brand.Name, protocol, trouble)
			}
		}
	}
	if bad > 0 {
		return withHint(fmt.Errorf("%s with the backends", count(bad, "problem")),
			"mend them first: `mailreeve run` would start, and customers would be told that their mail server cannot be reached")
	}
	return nil
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
	if protocol == config.Submission && b.Forward && !has("XCLIENT") {
		found = append(found, "it does not take XCLIENT from the proxy; add the proxy to smtpd_authorized_xclient_hosts")
	}
	return found
}
