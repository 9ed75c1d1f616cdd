package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"mailreeve/certs"
)

// What a list looks like.
func TestTable(t *testing.T) {
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	day := func(n int) time.Time { return now.AddDate(0, 0, n) }
	list := []certs.Status{
		{Name: "*.example.net", Source: "folder", File: "certs/net.pem", KeyType: certs.RSA, Issuer: "Our own authority with a long name in it", NotBefore: day(-10), NotAfter: day(400), Renewed: day(-10)},
		{Name: "imap.example.org", Canonical: true, Source: "acme", File: "x", KeyType: certs.ECDSA, Issuer: "E7", NotBefore: day(-20), NotAfter: day(70), Renewed: day(-20), Tried: day(-20), Next: day(40)},
		{Name: "imap.example.org", Canonical: true, Source: "acme", File: "x", KeyType: certs.RSA, Issuer: "R12", NotBefore: day(-85), NotAfter: day(5), Renewed: day(-85), Tried: day(0), Next: now.Add(95 * time.Minute),
			Failures: 12, Error: "the authority refuses: rateLimited: too many certificates already issued for example.org in the last 168 hours, retry after 2026-11-22"},
		{Name: "imap.kunde.example", Source: "acme", KeyType: certs.ECDSA, Tried: day(-1), Next: now.Add(-time.Second), Failures: 1, Error: "no such host"},
		{Name: "mail.a-customer-with-a-long-name.example", Source: "acme", File: "y", KeyType: certs.ECDSA, Issuer: "E7", NotBefore: day(-1), NotAfter: now.Add(26 * time.Hour), Renewed: day(-1), Next: now.Add(40 * time.Second)},
		{Name: "pop.example.org", Canonical: true},
	}
	const want = `NAME                KEY      SOURCE  EXPIRES       LEFT  RENEWED       NEXT  ISSUER
*.example.net       RSA      folder  2027-12-26   400 d  2026-11-11       -  Our own authority wi...
imap.example.org    ECDSA    acme    2027-01-30    70 d  2026-11-01    40 d  E7
                    RSA      acme    2026-11-26     5 d  2026-08-28  95 min  R12
  ! the RSA certificate for imap.example.org expires on 2026-11-26 12:00 UTC and is not renewed; 12
    orders have failed, the last one: the authority refuses: rateLimited: too many certificates
    already issued for example.org in the last 168 hours, retry after 2026-11-22; mend what the
    reason tells, and reload to have it tried at once
imap.kunde.example  ECDSA    acme    -                -  -              now  -
  ! last error, on 2026-11-20 12:00 UTC: no such host
mail.a-customer-with-a-long-name.example
                    ECDSA    acme    2026-11-22    26 h  2026-11-20    40 s  E7
pop.example.org     -        -       -                -  -                -  -
  ! there is no certificate for pop.example.org; add one that names it, or let ACME order it
`
	var out strings.Builder
	printTable(&out, list, now)
	if out.String() != want {
		t.Errorf("got:\n%swant:\n%s", out.String(), want)
	}
	for line := range strings.Lines(out.String()) {
		if len(line) > ofTerminals+1 {
			t.Errorf("%d columns: %s", len(line), line)
		}
	}
	out.Reset()
	if printTable(&out, nil, now); out.String() != "there is no certificate, and no name that wants one\n" {
		t.Errorf("for nothing: %s", out.String())
	}
}

// What only the program's user may read is answered with what to type.
func TestUnreadableState(t *testing.T) {
	state := fmt.Errorf("reading the state of ACME: %w", &fs.PathError{Op: "open", Path: "state", Err: syscall.EACCES})
	file := &certs.Error{File: "mail.key", Message: "it cannot be read", Err: syscall.EACCES, Cure: "let the program's user read it"}
	for _, bad := range [][]error{{state}, {errors.New("another"), file}} {
		var h *hinted
		if err := troubled(nil, bad, time.Now(), "m.yaml"); !errors.As(err, &h) ||
			h.hint != "keys are for the program's user and root alone: `sudo mailreeve certs list -c m.yaml`" {
			t.Errorf("%v: got %v", bad, err)
		}
	}
}

func TestWhereTo(t *testing.T) {
	here := map[netip.Addr]bool{netip.MustParseAddr("192.0.2.1"): true, netip.MustParseAddr("2001:db8::1"): true}
	for want, found := range map[string][]string{
		"does not resolve from here; the CA will ask the public DNS for it":                                              nil,
		"is at 192.0.2.1, 2001:db8::1, this machine":                                                                     {"::ffff:192.0.2.1", "2001:db8::1", "192.0.2.1"},
		"is at 192.0.2.1, 192.0.2.2, which is not this machine alone; what comes there to port 80 or 443 must reach web": {"192.0.2.1", "192.0.2.2"},
	} {
		var ips []netip.Addr
		for _, s := range found {
			ips = append(ips, netip.MustParseAddr(s))
		}
		if got := whereTo(ips, nil, here); got != want {
			t.Errorf("%v: got %s", found, got)
		}
	}
}
