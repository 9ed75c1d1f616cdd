package main

// What the check tells of certificates by ACME: what would be ordered, and, with
// --probe, whether it could be.

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"mailreeve/config"
)

// Bounds of a probe: it is somebody waiting at a terminal.
const (
	askPatience     = 10 * time.Second
	resolvePatience = 5 * time.Second
	maxDirectory    = 64 << 10 // a directory is a KiB
)

// intended says what a configuration would do by ACME.
func intended(c *config.Config) (lines []string) {
	a := c.Certificates.ACME
	if a == nil {
		return nil
	}
	keys := "ECDSA"
	if a.RSA {
		keys = "ECDSA and RSA"
	}
	names := ordered(c)
	if len(names) == 0 {
		lines = append(lines, "acme: files have certificates for all canonical names")
	} else {
		lines = append(lines, fmt.Sprintf("acme: certificates of %s (%s) for %s: %s",
			a.Directory.Host(), keys, count(len(names), "canonical name"), strings.Join(names, ", ")))
	}
	for i := range c.Brands {
		b := &c.Brands[i]
		if b.LegacyCertificates != config.LegacyOwn {
			continue
		}
		listed, _, _ := b.LegacyNames() // the check has told what is wrong with it
		exact, patterns := len(listed), 0
		for _, p := range b.Legacy {
			if p.Exact() {
				exact++
			} else {
				patterns++
			}
		}
		if exact > 0 {
			lines = append(lines, fmt.Sprintf("acme: for %s of brand %s when a client comes, %d an hour at most", count(exact, "old name"), b.Name, a.OrdersPerHour))
		}
		if patterns > 0 && a.Lookup != "" {
			lines = append(lines, fmt.Sprintf("acme: for old names of brand %s that fit a pattern if %s confirms them, %d an hour at most", b.Name, a.Lookup, a.OrdersPerHour))
		}
	}
	if c.Certificates.Unknown == config.UnknownOwn {
		lines = append(lines, fmt.Sprintf("acme: for names of no brand if %s confirms them, %d an hour at most", a.Lookup, a.OrdersPerHour))
	}
	return lines
}

// ordered are the canonical names that no file is for.
func ordered(c *config.Config) []string {
	keeper, _ := readFiles(sources(c, nil))
	return slices.DeleteFunc(canonicals(c), keeper.Store().Covers)
}

// probeCertificates looks at the certificates that there are, and whether more can be
// had. It returns the number of problems, and how many of them the list of certificates shows.
func probeCertificates(ctx context.Context, out io.Writer, c *config.Config) (bad, listed int) {
	problem := func(format string, args ...any) {
		bad++
		fmt.Fprintf(out, format+"\n", args...)
	}
	list, unreadable := statuses(c)
	for _, err := range unreadable {
		problem("certificates: %v", err)
	}
	now := time.Now()
	for _, s := range list {
		switch text := troubleOf(s, now); {
		case text == "":
		case untried(s):
			fmt.Fprintln(out, "certificates: "+text)
		default:
			problem("certificates: %s", text)
			listed++
		}
	}
	a := c.Certificates.ACME
	if a == nil {
		return bad, listed
	}
	terms, err := askDirectory(ctx, a)
	if err != nil {
		problem("acme: %s: %v", a.Directory, err)
	} else {
		fmt.Fprintf(out, "acme: %s answers%s\n", a.Directory, terms)
	}
	if a.Lookup != "" {
		if err := askLookup(ctx, string(a.Lookup)); err != nil {
			problem("lookup: %s: %v", a.Lookup, err)
		} else {
			fmt.Fprintf(out, "lookup: %s answers\n", a.Lookup)
		}
	}
	for _, note := range resolved(ctx, ordered(c)) {
		fmt.Fprintln(out, note)
	}
	return bad, listed
}

// askDirectory gets the CA's directory, and says where its terms are.
func askDirectory(ctx context.Context, a *config.ACME) (terms string, err error) {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	defer transport.CloseIdleConnections()
	if a.CA != "" {
		roots, err := authorities(a.CA)
		if err != nil {
			return "", err
		}
		transport.TLSClientConfig = &tls.Config{RootCAs: roots}
	}
	response, err := get(ctx, transport, string(a.Directory))
	if err != nil {
		var untrusted *tls.CertificateVerificationError
		if errors.As(err, &untrusted) {
			return "", fmt.Errorf("%w; name the file with its authority in certificates.acme.ca, if it is a CA of your own", err)
		}
		return "", fmt.Errorf("%w; is this machine let out to it, by the firewall and the network?", err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return "", fmt.Errorf("it answers %s; is that the address of its directory?", printable(response.Status))
	}
	var directory struct {
		NewOrder string
		Meta     struct {
			TermsOfService          string
			ExternalAccountRequired bool
		}
	}
	if err := json.NewDecoder(io.LimitReader(response.Body, maxDirectory)).Decode(&directory); err != nil || directory.NewOrder == "" {
		return "", errors.New("what it answers is no ACME directory (RFC 8555 section 7.1.1); the CA tells the right address")
	}
	if directory.Meta.ExternalAccountRequired && a.Account == nil {
		return "", errors.New("it wants an external account; add certificates.acme.account with the key that the CA gives you")
	}
	if directory.Meta.TermsOfService == "" {
		return "; it names no terms of service", nil
	}
	return "; its terms of service: " + printable(directory.Meta.TermsOfService), nil
}

// askLookup asks for a name that nobody can have (RFC 6761 section 6.4).
func askLookup(ctx context.Context, lookup string) error {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	defer transport.CloseIdleConnections()
	const nobodys = "check.mailreeve.invalid"
	response, err := get(ctx, transport, lookup+"?name="+url.QueryEscape(nobodys))
	if err != nil {
		return fmt.Errorf("%w; until it answers, no name is confirmed", err)
	}
	response.Body.Close()
	switch code := response.StatusCode; code {
	case http.StatusNotFound, http.StatusForbidden:
		return nil
	case http.StatusOK:
		return fmt.Errorf("it confirms %s, which nobody can have; it must say 404 for names that are not yours, or anybody could make us order", nobodys)
	default:
		return fmt.Errorf("it answers %d for a name that is not yours; it must say 404 or 403", code)
	}
}

// get asks once, follows no redirect and waits for some seconds. The error does not
// repeat the address.
func get(ctx context.Context, transport *http.Transport, address string) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("User-Agent", "mailreeve")
	client := &http.Client{Transport: transport, Timeout: askPatience,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	response, err := client.Do(request)
	var failed *url.Error
	if errors.As(err, &failed) {
		err = failed.Err
	}
	return response, err
}

// resolved notes where names lead. That is not judged: behind NAT and balancers it is
// another address than this machine's, and the CA may see another DNS.
func resolved(ctx context.Context, names []string) []string {
	ctx, cancel := context.WithTimeout(ctx, resolvePatience)
	defer cancel()
	here := map[netip.Addr]bool{}
	if addresses, err := net.InterfaceAddrs(); err == nil {
		for _, a := range addresses {
			if prefix, err := netip.ParsePrefix(a.String()); err == nil {
				here[prefix.Addr().Unmap()] = true
			}
		}
	}
	notes := make([]string, len(names))
	var asking sync.WaitGroup
	places := make(chan struct{}, 10) // a resolver takes so many at once
	for i, name := range names {
		asking.Go(func() {
			places <- struct{}{}
			defer func() { <-places }()
			found, err := net.DefaultResolver.LookupNetIP(ctx, "ip", name+".")
			notes[i] = "note: " + name + " " + whereTo(found, err, here)
		})
	}
	asking.Wait()
	return notes
}

// whereTo says what a name resolves to.
func whereTo(found []netip.Addr, err error, here map[netip.Addr]bool) string {
	if err != nil || len(found) == 0 {
		return "does not resolve from here; the CA will ask the public DNS for it"
	}
	var all []string
	elsewhere := false
	for _, ip := range found {
		ip = ip.Unmap()
		elsewhere = elsewhere || !here[ip]
		if s := ip.String(); !slices.Contains(all, s) {
			all = append(all, s)
		}
	}
	said := "is at " + strings.Join(all, ", ")
	if elsewhere {
		return said + ", which is not this machine alone; what comes there to port 80 or 443 must reach web"
	}
	return said + ", this machine"
}
