package config

// The checks of certificates: where they come from, and whether each name has one.

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"mailreeve/certs"
)

// certificates looks at the certificates of files and folder, and whether there is one for
// every canonical name.
func (k *checker) certificates(at time.Time) {
	good := k.certificateFiles(at)
	whole := len(good) == len(k.Certificates.Files)
	if k.Certificates.Folder != "" {
		found, ok := k.folder(good, at)
		good, whole = append(good, found...), whole && ok
	}
	store, err := certs.Load(good)
	if err != nil {
		k.fail("certificates", err.Error(), "leave the files alone while they are checked")
		return
	}
	if !whole {
		return // what is not covered is told better when all can be loaded
	}
	k.canonicals(func(key string, host Host) {
		if store.Covers(string(host)) {
			return
		}
		if k.Certificates.ACME == nil {
			k.fail(key, "no certificate is for "+string(host), "order one that names it, and add it to certificates")
			return
		}
		k.certifiable(key, host)
	})
}

// certificateFiles looks at the files that are named, and returns those that can be used.
func (k *checker) certificateFiles(at time.Time) (good []certs.Pair) {
	file := k.unique("certificate", "leave one of them")
	for i, f := range k.Certificates.Files {
		key := element("certificates.files", i)
		if file(child(key, "cert"), f.Cert) {
			continue
		}
		fail := func(err error) {
			part := "cert"
			if bad := new(certs.Error); errors.As(err, &bad) && f.Key != "" && bad.File == f.Key {
				part = "key"
			}
			k.foul(child(key, part), err, k.fail)
		}
		pair := certs.Pair{Cert: f.Cert, Key: f.Key}
		store, err := certs.Load([]certs.Pair{pair})
		if err != nil {
			fail(err)
			continue
		}
		good = append(good, pair)
		info := store.List()[0]
		switch {
		case at.IsZero():
		case info.Check(at) != nil:
			fail(info.Check(at))
		case info.ExpiresSoon(at):
			k.warn(child(key, "cert"), f.Cert+": it expires on "+info.NotAfter.UTC().Format(time.DateOnly), "renew it")
		}
		if info.Bare {
			k.warn(child(key, "cert"), f.Cert+": its intermediate authority is missing, and many mail programs will not believe it alone",
				"append the intermediate certificate; with ACME, name fullchain.pem instead of cert.pem")
		}
		k.keyMode(key, f)
	}
	return good
}

// folder looks at the folder's certificates, and returns those that can be used and are not
// among the files. What is wrong there prevents nothing: others write into it.
func (k *checker) folder(files []certs.Pair, at time.Time) (good []certs.Pair, ok bool) {
	const key = "certificates.folder"
	found, bad, err := certs.Folder(k.Certificates.Folder)
	if err != nil {
		k.foul(key, err, k.fail)
		return nil, false
	}
	if len(found) == 0 && len(bad) == 0 {
		k.warn(key, "no certificate with its key is in "+k.Certificates.Folder,
			"name the directory that has NAME.pem, or SUBDIRECTORY/fullchain.pem beside privkey.pem, as certbot's live has")
	}
	told := 0
	tell := func(err error) {
		if told++; told <= mostTold {
			k.foul(key, err, k.warn)
		}
	}
	for _, err := range bad {
		tell(err)
	}
	for _, info := range found {
		if slices.Contains(files, info.Pair) {
			continue
		}
		good = append(good, info.Pair)
		switch {
		case at.IsZero():
		case info.Check(at) != nil:
			tell(info.Check(at))
		case info.ExpiresSoon(at):
			tell(&certs.Error{File: info.Pair.Cert, Message: "it expires on " + info.NotAfter.UTC().Format(time.DateOnly), Cure: "renew it"})
		}
	}
	if told > mostTold {
		k.warn(key, fmt.Sprintf("%d more of its files are not as they should be", told-mostTold), "is it the right folder?")
	}
	return good, true
}

// foul records what package certs says of a file.
func (k *checker) foul(key string, err error, record func(key, message, cure string)) {
	if bad := new(certs.Error); errors.As(err, &bad) {
		record(key, bad.File+": "+bad.Problem(), bad.Cure)
		return
	}
	record(key, err.Error(), "")
}

// canonicals calls for each canonical name once.
func (k *checker) canonicals(each func(key string, host Host)) {
	told := map[Host]bool{}
	for i, b := range k.Brands {
		for _, p := range Protocols {
			for j, host := range b.Hosts[p] {
				if !told[host] {
					told[host] = true
					each(element(child(child(element("brands", i), "hosts"), string(p)), j), host)
				}
			}
		}
	}
}

// reserved are the top-level domains that no public CA certifies: RFC 6761 section 6, RFC
// 6762 section 3, RFC 7686, RFC 8375, and the one that ICANN reserved for internal use.
var reserved = []string{"test", "localhost", "invalid", "example", "local", "onion", "arpa", "internal"}

// certifiable looks whether an ACME CA can have a certificate for a name.
func (k *checker) certifiable(key string, host Host) {
	top := string(host[strings.LastIndexByte(string(host), '.')+1:])
	switch {
	case top == string(host):
		k.fail(key, "no CA has a certificate for a name without a dot", "add one of yours to certificates.files")
	case slices.Contains(reserved, top) && !isInside(Address{Host: k.Certificates.ACME.Directory.Host()}) && k.Certificates.ACME.CA == "":
		k.warn(key, fmt.Sprintf("no public CA has a certificate for a name under .%s", top),
			"add one of yours to certificates.files, or name the directory of your own CA")
	}
}

// acme looks whether what an order needs is there.
func (k *checker) acme() {
	a := k.Certificates.ACME
	if a == nil {
		return
	}
	const key = "certificates.acme"
	inside := isInside(Address{Host: a.Directory.Host()})
	if k.State == "" {
		k.fail(key, "there is no place to keep certificates and account", "add state: /var/lib/mailreeve, a directory that the program's user may write")
	}
	if !a.AcceptTerms {
		k.fail(child(key, "accept_terms"), "the CA gives certificates only to those who agree to its terms of service",
			"read them (`mailreeve check --probe` says where), then write accept_terms: true")
	}
	switch {
	case k.Web == nil || k.Web.HTTP == nil && k.Web.HTTPS == nil:
		k.fail(key, "the CA could not see that the names are ours: there is no web.http and no web.https", "add web: { http: ':80', https: ':443' }")
	case !inside && (k.Web.HTTP == nil || k.Web.HTTP.Port != 80) && (k.Web.HTTPS == nil || k.Web.HTTPS.Port != 443):
		k.warn(key, "public CAs come to port 80 or 443, and nothing of web listens there",
			"write web: { http: ':80' }, or let a balancer or NAT pass on what comes to these ports")
	}
	if a.CA != "" {
		k.authorities(child(key, "ca"), a.CA)
	} else if inside {
		k.warn(child(key, "directory"), "the system's authorities hardly know the certificate of "+a.Directory.Host(),
			"name the root of your CA in certificates.acme.ca")
	}
	if a.Account != nil {
		if _, err := a.Account.Key(); err != nil {
			k.file(child(child(key, "account"), "key_file"), err)
		}
	}
}

// ownNames looks whether certificates of their own can be had for names that are not
// canonical.
func (k *checker) ownNames() {
	a, asked := k.Certificates.ACME, k.Certificates.Unknown == UnknownOwn
	for i, b := range k.Brands {
		if b.LegacyCertificates != LegacyOwn {
			continue
		}
		asked = true
		key := child(element("brands", i), "legacy_certificates")
		pattern := slices.IndexFunc(b.Legacy, func(p Pattern) bool { return !p.Exact() })
		switch {
		case a == nil:
			k.fail(key, "certificates for old names come by ACME", "add certificates.acme, or write canonical")
		case len(b.Legacy) == 0 && b.LegacyFile == "":
			k.warn(key, "the brand has no old names", "add legacy or legacy_file, or leave this out")
		case pattern >= 0 && a.Lookup == "":
			k.warn(element(child(element("brands", i), "legacy"), pattern),
				"nothing confirms the names that fit "+string(b.Legacy[pattern])+", so they get the canonical certificate",
				"add certificates.acme.lookup, or list the names in legacy_file")
		}
	}
	switch {
	case k.Certificates.Unknown == UnknownOwn && (a == nil || a.Lookup == ""):
		k.fail("certificates.unknown", "without certificates.acme.lookup nothing confirms unknown names, and anybody could make us order",
			"add lookup, or write canonical or alert")
	case a != nil && a.Lookup != "" && !asked:
		k.warn("certificates.acme.lookup", "nobody asks it: neither legacy_certificates nor unknown is own", "write own there, or leave this out")
	}
}

// state looks whether the directory of what is kept is there, or can be made.
func (k *checker) state() {
	if k.State == "" {
		return
	}
	info, err := os.Stat(k.State)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if up, err := os.Stat(filepath.Dir(k.State)); err != nil || !up.IsDir() {
			k.fail("state", "there is no directory "+filepath.Dir(k.State), "make it, and let the program's user write there")
		}
	case err != nil:
		k.file("state", err)
	case !info.IsDir():
		k.fail("state", k.State+" is no directory", "name one, or a path where the program can make one")
	case info.Mode().Perm()&0o077 != 0:
		k.warn("state", fmt.Sprintf("others than the owner have rights to the directory of private keys (mode %04o)", info.Mode().Perm()), "chmod 700 "+k.State)
	}
}

// keyMode warns of a private key that everybody on the machine can read.
func (k *checker) keyMode(key string, f CertificateFiles) {
	part, path := "key", f.Key
	if path == "" {
		part, path = "cert", f.Cert
	}
	if info, err := os.Stat(path); err == nil && info.Mode().Perm()&0o007 != 0 {
		k.warn(child(key, part), fmt.Sprintf("everybody on this machine has rights to the private key (mode %04o)", info.Mode().Perm()),
			"chmod o= "+path)
	}
}
