package certs_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"mailreeve/certs"
)

// logged is a log that tests read.
type logged struct {
	t    *testing.T
	seen *observer.ObservedLogs
}

func newLog(t *testing.T) (*zap.Logger, logged) {
	core, seen := observer.New(zap.InfoLevel)
	return zap.New(core), logged{t, seen}
}

// take returns what was logged since the last time, one line each: level, message, fields.
func (l logged) take() []string {
	var lines []string
	for _, e := range l.seen.TakeAll() {
		line := e.Level.String() + " " + e.Message
		fields := e.ContextMap()
		for _, f := range e.Context {
			line += fmt.Sprintf(" %s=%v", f.Key, fields[f.Key])
		}
		if strings.ContainsAny(line, "\n\r") {
			l.t.Errorf("more than one line: %q", line)
		}
		lines = append(lines, line)
	}
	return lines
}

// expect compares what was logged since the last time: each line contains the wanted text.
func (l logged) expect(want ...string) {
	l.t.Helper()
	got := l.take()
	if !slices.EqualFunc(got, want, strings.Contains) {
		l.t.Errorf("the log has\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
}

// asked is a question to an issuer.
type asked struct {
	name string
	kind certs.KeyType
	own  certs.Own
}

// issuer gives what it has, and remembers what it was asked for.
type issuer struct {
	mu     sync.Mutex
	has    map[asked]*tls.Certificate // without own
	asked  []asked
	kept   []string
	status []certs.Status
}

func (i *issuer) Certificate(_ context.Context, name string, kind certs.KeyType, own certs.Own) (*tls.Certificate, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.asked = append(i.asked, asked{name, kind, own})
	if c := i.has[asked{name: name, kind: kind}]; c != nil {
		return c, nil
	}
	return nil, errors.New("there is none")
}

func (i *issuer) Keep(names []string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.kept = names
}

func (i *issuer) Status() []certs.Status { return i.status }

// give makes a certificate that the issuer has.
func (i *issuer) give(t *testing.T, ca *certs.Authority, name string, kind certs.KeyType) {
	t.Helper()
	c, err := ca.Issue(certs.Order{Hosts: []string{name}, KeyType: kind})
	if err != nil {
		t.Fatal(err)
	}
	if i.has == nil {
		i.has = map[asked]*tls.Certificate{}
	}
	i.has[asked{name: name, kind: kind}] = &c
}

// set puts sources in force, or ends the test.
func set(t *testing.T, k *certs.Keeper, s certs.Sources) {
	t.Helper()
	if err := k.Set(s); err != nil {
		t.Fatal(err)
	}
}

// first is the certificate that a client gets that can do all and sends a name.
func first(t *testing.T, k *certs.Keeper, name string) *x509.Certificate {
	t.Helper()
	hello := &tls.ClientHelloInfo{
		ServerName: name, SupportedVersions: []uint16{tls.VersionTLS13}, CipherSuites: []uint16{tls.TLS_AES_128_GCM_SHA256},
		SignatureSchemes: []tls.SignatureScheme{tls.ECDSAWithP256AndSHA256, tls.PSSWithSHA256, tls.Ed25519}, SupportedCurves: []tls.CurveID{tls.X25519},
	}
	c, err := k.Get(hello, "fallback.example.org", certs.Never)
	if err != nil {
		t.Fatal(err)
	}
	return c.Leaf
}

func TestKeeperOrder(t *testing.T) {
	ca, dir := authority(t), t.TempDir()
	log, _ := newLog(t)
	acme := &issuer{}
	acme.give(t, ca, "own.example.org", certs.ECDSA)
	acme.give(t, ca, "own-rsa.example.org", certs.RSA)
	acme.give(t, ca, "file.example.org", certs.ECDSA)
	acme.give(t, ca, "fallback.example.net", certs.ECDSA)
	k := certs.NewKeeper(log)
	set(t, k, certs.Sources{Issuer: acme, Files: []certs.Pair{
		issue(t, ca, dir, "file", certs.Order{Hosts: []string{"file.example.org"}, KeyType: certs.RSA}),
		issue(t, ca, dir, "fallback", certs.Order{Hosts: []string{"fallback.example.org", "localhost"}}),
	}})
	long := strings.Repeat("a.", 200) + "example.org"
	tests := []struct {
		name, fallback string
		own            certs.Own
		want           string
		asked          []asked
	}{
		{"file.example.org", "fallback.example.org", certs.Confirmed, "file.example.org", nil},
		{"own.example.org", "fallback.example.org", certs.Keep, "own.example.org", []asked{{"own.example.org", certs.ECDSA, certs.Keep}}},
		{"OWN.example.org.", "fallback.example.org", certs.Listed, "own.example.org", []asked{{"own.example.org", certs.ECDSA, certs.Listed}}},
		{"own-rsa.example.org", "fallback.example.org", certs.Listed, "own-rsa.example.org",
			[]asked{{"own-rsa.example.org", certs.ECDSA, certs.Listed}, {"own-rsa.example.org", certs.RSA, certs.Keep}}},
		{"own.example.org", "fallback.example.org", certs.Never, "fallback.example.org", nil},
		{"none.example.org", "fallback.example.org", certs.Confirmed, "fallback.example.org",
			[]asked{{"none.example.org", certs.ECDSA, certs.Confirmed}, {"none.example.org", certs.RSA, certs.Keep}}},
		{"own.example.org", "fallback.example.net", certs.Never, "fallback.example.net", []asked{{"fallback.example.net", certs.ECDSA, certs.Keep}}},
		{"", "Fallback.example.net.", certs.Confirmed, "fallback.example.net", []asked{{"fallback.example.net", certs.ECDSA, certs.Keep}}},
		{"", "none.example.net", certs.Keep, "fallback.example.org",
			[]asked{{"none.example.net", certs.ECDSA, certs.Keep}, {"none.example.net", certs.RSA, certs.Keep}}},
		{"localhost", "file.example.org", certs.Confirmed, "fallback.example.org", nil},
		{"mail", "fallback.example.org", certs.Confirmed, "fallback.example.org", nil},
		{"192.0.2.1", "fallback.example.org", certs.Confirmed, "fallback.example.org", nil},
		{"2001:db8::192.0.2.1", "fallback.example.org", certs.Confirmed, "fallback.example.org", nil},
		{".example.org", "fallback.example.org", certs.Confirmed, "fallback.example.org", nil},
		{"a.example..", "fallback.example.org", certs.Confirmed, "fallback.example.org", nil},
		{long, "fallback.example.org", certs.Confirmed, "fallback.example.org", nil},
	}
	for _, test := range tests {
		t.Run(fmt.Sprintf("%.30s %v", test.name, test.own), func(t *testing.T) {
			acme.asked = nil
			hello := &tls.ClientHelloInfo{ServerName: test.name, SupportedVersions: []uint16{tls.VersionTLS13},
				CipherSuites: []uint16{tls.TLS_AES_128_GCM_SHA256}, SignatureSchemes: []tls.SignatureScheme{tls.ECDSAWithP256AndSHA256, tls.PSSWithSHA256}}
			c, err := k.Get(hello, test.fallback, test.own)
			if err != nil {
				t.Fatal(err)
			}
			if got := c.Leaf.DNSNames[0]; got != test.want || !slices.Equal(acme.asked, test.asked) {
				t.Errorf("got %s, asked %v; want %s, %v", got, acme.asked, test.want, test.asked)
			}
		})
	}
}

// Real hellos, against files and against an issuer.
func TestKeeperHellos(t *testing.T) {
	ca, dir := authority(t), t.TempDir()
	log, _ := newLog(t)
	acme := &issuer{}
	files := certs.Sources{}
	for _, kind := range []certs.KeyType{certs.RSA, certs.ECDSA} {
		acme.give(t, ca, "imap.example.org", kind)
		files.Files = append(files.Files, issue(t, ca, dir, kind.String(), certs.Order{Hosts: []string{"imap.example.org"}, KeyType: kind}))
	}
	both := []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}
	tests := []struct {
		name   string
		client *tls.Config
		want   x509.PublicKeyAlgorithm
	}{
		{"TLS 1.3 alone", &tls.Config{MinVersion: tls.VersionTLS13}, x509.ECDSA},
		{"X25519 alone", &tls.Config{CurvePreferences: []tls.CurveID{tls.X25519}}, x509.ECDSA},
		{"TLS 1.3 and X25519 alone", &tls.Config{MinVersion: tls.VersionTLS13, CurvePreferences: []tls.CurveID{tls.X25519}}, x509.ECDSA},
		// Before TLS 1.3 the groups speak of the certificate's curve as well (RFC 8422 section 5.1.1).
		{"TLS 1.2, X25519 alone", &tls.Config{MaxVersion: tls.VersionTLS12, CurvePreferences: []tls.CurveID{tls.X25519}}, x509.RSA},
		{"TLS 1.2", &tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: both}, x509.ECDSA},
		{"TLS 1.2 without ECDSA", &tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: rsaOnly}, x509.RSA},
		{"TLS 1.2, RSA key exchange", &tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: rsaOnly[1:]}, x509.RSA},
		{"TLS 1.0, RSA key exchange", &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS10, CipherSuites: rsaOnly[1:]}, x509.RSA},
	}
	for source, s := range map[string]certs.Sources{"files": files, "issuer": {Issuer: acme}} {
		k := certs.NewKeeper(log)
		set(t, k, s)
		for _, test := range tests {
			for _, sni := range []string{"imap.example.org", "IMAP.Example.Org.", "kunde.example", "mail", "", "192.0.2.1"} {
				t.Run(source+" "+test.name+" "+sni, func(t *testing.T) {
					client := test.client.Clone()
					client.ServerName, client.InsecureSkipVerify = sni, true
					cert, err := shake(t, client, func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
						return k.Get(hello, "imap.example.org", certs.Keep)
					})
					if err != nil {
						t.Fatal(err)
					}
					if cert.PublicKeyAlgorithm != test.want || cert.DNSNames[0] != "imap.example.org" {
						t.Errorf("got %s %s", cert.PublicKeyAlgorithm, cert.DNSNames[0])
					}
				})
			}
		}
	}
}

// With the wrong kind of key alone the handshake fails at the client, for that reason.
func TestKeeperUnsupported(t *testing.T) {
	log, _ := newLog(t)
	acme := &issuer{}
	acme.give(t, authority(t), "imap.example.org", certs.ECDSA)
	k := certs.NewKeeper(log)
	set(t, k, certs.Sources{Issuer: acme})
	_, err := shake(t, &tls.Config{ServerName: "imap.example.org", InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12, CipherSuites: rsaOnly},
		func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			c, err := k.Get(hello, "imap.example.org", certs.Keep)
			if err != nil {
				t.Error(err)
			} else if _, ok := c.PrivateKey.(*ecdsa.PrivateKey); !ok {
				t.Errorf("got %T", c.PrivateKey)
			}
			return c, err
		})
	if err == nil || !strings.Contains(err.Error(), "handshake failure") {
		t.Error(err)
	}
}

// An own certificate out of date goes before the valid one of another name.
func TestKeeperOwnExpired(t *testing.T) {
	ca, dir, now := authority(t), t.TempDir(), time.Now()
	log, lines := newLog(t)
	k := certs.NewKeeper(log)
	set(t, k, certs.Sources{Files: []certs.Pair{
		issue(t, ca, dir, "own", certs.Order{Hosts: []string{"imap.example.org"}, NotBefore: now.AddDate(-1, 0, 0), NotAfter: now.AddDate(0, -1, 0)}),
		issue(t, ca, dir, "fallback", certs.Order{Hosts: []string{"fallback.example.org"}})}})
	if got := first(t, k, "imap.example.org").DNSNames[0]; got != "imap.example.org" {
		t.Error(got)
	}
	lines.expect("warn a certificate is out of date; it is used where there is no better one file="+dir+"/own.pem names=imap.example.org key_type=ECDSA",
		"info certificates are loaded certificates=2")
}

func TestKeeperEmpty(t *testing.T) {
	log, _ := newLog(t)
	k := certs.NewKeeper(log)
	hello := &tls.ClientHelloInfo{ServerName: "imap.example.org"}
	if _, err := k.Get(hello, "imap.example.org", certs.Keep); !errors.Is(err, certs.ErrNone) {
		t.Error(err)
	}
	set(t, k, certs.Sources{Names: []string{"imap.example.org"}})
	if _, err := k.Get(hello, "imap.example.org", certs.Keep); !errors.Is(err, certs.ErrNone) {
		t.Error(err)
	}
	if list := k.Status(); len(list) != 1 || list[0].Trouble(time.Now()) == nil {
		t.Errorf("a canonical name without a certificate: %+v", list)
	}
	set(t, k, certs.Sources{Names: []string{"imap.example.org"}, Issuer: &issuer{}})
	if _, err := k.Get(hello, "imap.example.org", certs.Keep); !errors.Is(err, certs.ErrNotYet) {
		t.Error(err)
	}
}

func TestKeeperSet(t *testing.T) {
	ca, dir := authority(t), t.TempDir()
	log, lines := newLog(t)
	acme := &issuer{}
	k := certs.NewKeeper(log)
	good := issue(t, ca, dir, "good", certs.Order{Hosts: []string{"imap.example.org", "*.example.net"}})
	names := []string{"IMAP.example.org", "pop.example.org", "pop.example.net"}
	set(t, k, certs.Sources{Files: []certs.Pair{good}, Names: names, Issuer: acme})
	if want := []string{"pop.example.org"}; !slices.Equal(acme.kept, want) {
		t.Errorf("the issuer is to keep %v, want %v", acme.kept, want)
	}
	lines.expect("info certificates are loaded certificates=1")

	err := k.Set(certs.Sources{Files: []certs.Pair{good, {Cert: filepath.Join(dir, "none.pem")}, {Cert: good.Key}}, Folder: filepath.Join(dir, "folder")})
	if err == nil || strings.Count(err.Error(), "\n") != 2 {
		t.Errorf("three faults: %v", err)
	}
	for _, want := range []string{"none.pem: it cannot be read", "good.key: there is no certificate in it", "folder: the folder cannot be read: no such file or directory; correct the path"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %s", err, want)
		}
	}
	if got := first(t, k, "imap.example.org").DNSNames[0]; got != "imap.example.org" || len(acme.kept) != 1 {
		t.Errorf("a failed Set changed something: %v, %v", got, acme.kept)
	}
	lines.expect()

	// A reload reads all, and leaves what is no longer named.
	other := issue(t, ca, dir, "other", certs.Order{Hosts: []string{"pop.example.org"}})
	set(t, k, certs.Sources{Files: []certs.Pair{other}, Names: names, Issuer: acme})
	if want := []string{"imap.example.org", "pop.example.net"}; !slices.Equal(acme.kept, want) {
		t.Errorf("the issuer is to keep %v, want %v", acme.kept, want)
	}
	lines.expect("info a certificate is new file="+other.Cert, "info a certificate is no longer there, and no longer used file="+good.Cert)
	if k.Store().Covers("imap.example.org") || !k.Store().Covers("pop.example.org") {
		t.Errorf("in force: %+v", k.Store().List())
	}
}

// later gives a file a time of change of its own: in a bubble whole days pass within one tick
// of the file system's clock.
func later(t *testing.T, files ...string) {
	t.Helper()
	changes++
	at := time.Unix(1_000_000_000+changes, 0)
	for _, file := range files {
		if file == "" {
			continue
		}
		if err := os.Chtimes(file, at, at); err != nil {
			t.Fatal(err)
		}
	}
}

var changes int64

// renew is issue, with a change that shows.
func renew(t *testing.T, ca *certs.Authority, dir, name string, o certs.Order) certs.Pair {
	t.Helper()
	p := issue(t, ca, dir, name, o)
	later(t, p.Cert, p.Key)
	return p
}

// watch runs a keeper's Watch in a bubble until the test ends.
func watch(t *testing.T, k *certs.Keeper) {
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); k.Watch(ctx) }()
	t.Cleanup(func() { stop(); <-done })
}

// pass lets time pass, and what is due happen.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// What replaces a good certificate while it serves, and is none, is told and not used.
func TestWatchBad(t *testing.T) {
	const host = "imap.example.org"
	tests := []struct {
		name  string
		spoil func(*testing.T, *certs.Authority, string, certs.Pair)
		want  string // of the error
	}{
		{"garbage", func(t *testing.T, _ *certs.Authority, dir string, p certs.Pair) {
			later(t, put(t, dir, "mail.pem", []byte("garbage\n")))
		}, "mail.pem: it is not in PEM form; convert it"},
		{"empty", func(t *testing.T, _ *certs.Authority, dir string, p certs.Pair) {
			later(t, put(t, dir, "mail.pem"))
		}, "mail.pem: it is empty; write it anew"},
		{"wrong key", func(t *testing.T, ca *certs.Authority, dir string, p certs.Pair) {
			other := issue(t, ca, t.TempDir(), "other", certs.Order{Hosts: []string{host}})
			later(t, put(t, dir, "mail.key", get(t, other.Key)))
		}, "mail.key: the key does not belong to the certificate in "},
		{"expired", func(t *testing.T, ca *certs.Authority, dir string, p certs.Pair) {
			renew(t, ca, dir, "mail", certs.Order{Hosts: []string{host}, NotBefore: time.Now().AddDate(0, -3, 0), NotAfter: time.Now().Add(-time.Hour)})
		}, "mail.pem: certificate expired on 1999-12-31 23:00 UTC; renew it"},
		{"not yet valid", func(t *testing.T, ca *certs.Authority, dir string, p certs.Pair) {
			renew(t, ca, dir, "mail", certs.Order{Hosts: []string{host}, NotBefore: time.Now().AddDate(0, 1, 0)})
		}, "mail.pem: certificate is not valid before 2000-02-01 00:00 UTC; set the clock"},
		{"only a key", func(t *testing.T, _ *certs.Authority, dir string, p certs.Pair) {
			later(t, put(t, dir, "mail.pem", get(t, p.Key)))
		}, "mail.pem: there is no certificate in it"},
	}
	for _, source := range []string{"file", "folder"} {
		for _, test := range tests {
			t.Run(source+" "+test.name, func(t *testing.T) {
				defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
				synctest.Test(t, func(t *testing.T) {
					ca, dir := authority(t), t.TempDir()
					log, lines := newLog(t)
					k := certs.NewKeeper(log)
					p := renew(t, ca, dir, "mail", certs.Order{Hosts: []string{host}})
					s := certs.Sources{Folder: dir, Names: []string{host}}
					if source == "file" {
						s = certs.Sources{Files: []certs.Pair{p}, Names: []string{host}}
					}
					set(t, k, s)
					lines.expect("info certificates are loaded")
					watch(t, k)
					before := first(t, k, host)

					test.spoil(t, ca, dir, p)
					pass(15 * time.Second)
					lines.expect() // it may be half written
					pass(10 * time.Second)
					lines.expect("error certificate files cannot be used; what was in force before stays so error=")
					test.spoil(t, ca, dir, p)
					pass(5 * time.Minute)
					lines.expect() // once is enough
					if now := first(t, k, host); !now.Equal(before) {
						t.Error("the old one is not in force any more")
					}
					list := k.Status()
					if len(list) != 1 || !strings.Contains(list[0].Error, test.want) || list[0].Source != source || !list[0].Canonical {
						t.Errorf("%+v", list)
					}
					if err := list[0].Trouble(time.Now()); err == nil || !strings.Contains(err.Error(), test.want) {
						t.Errorf("trouble: %v", err)
					}

					// At a reload a bad file is an error and a bad folder a line; what is
					// merely out of date is a line for both.
					err := k.Set(s)
					outOfDate := strings.Contains(test.want, "valid") || strings.Contains(test.want, "expired")
					if source == "file" && !outOfDate {
						if err == nil || !strings.Contains(err.Error(), test.want) {
							t.Errorf("reload: %v", err)
						}
						lines.expect()
					} else {
						if err != nil {
							t.Errorf("reload: %v", err)
						}
						lines.expect("error certificate files cannot be used")
					}
					if now := first(t, k, host); !now.Equal(before) {
						t.Error("after a reload the old one is not in force any more")
					}

					renew(t, ca, dir, "mail", certs.Order{Hosts: []string{host}})
					pass(10 * time.Second)
					if now := first(t, k, host); now.Equal(before) {
						t.Error("the new one is not in force")
					}
					lines.expect("info certificate files are in order again", "info a certificate is replaced")
				})
			})
		}
	}
}

// A renewal is in force seconds later, however the files are changed.
func TestWatchRenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, dir := authority(t), t.TempDir()
		log, lines := newLog(t)
		acme := &issuer{}
		k := certs.NewKeeper(log)
		const host = "imap.example.org"
		p := renew(t, ca, dir, "mail", certs.Order{Hosts: []string{host}})
		set(t, k, certs.Sources{Files: []certs.Pair{p}, Names: []string{host, "pop.example.org"}, Issuer: acme})
		watch(t, k)
		lines.take()
		serial := first(t, k, host).SerialNumber
		changed := func(how string) {
			t.Helper()
			pass(10 * time.Second)
			now := first(t, k, host).SerialNumber
			if now.Cmp(serial) == 0 {
				t.Errorf("%s: the old one is in force", how)
			}
			serial = now
		}

		renew(t, ca, dir, "mail", certs.Order{Hosts: []string{host, "pop.example.org"}})
		changed("in place")
		lines.expect("info a certificate is replaced file=" + p.Cert + " names=imap.example.org, pop.example.org key_type=ECDSA not_after=2000-03-30 23:00:00 +0000 UTC former_not_after=2000-03-30 23:00:00 +0000 UTC")
		if len(acme.kept) != 0 {
			t.Errorf("the issuer is to keep %v", acme.kept)
		}

		next := issue(t, ca, t.TempDir(), "next", certs.Order{Hosts: []string{host}})
		info, err := os.Stat(p.Cert)
		if err != nil {
			t.Fatal(err)
		}
		for from, to := range map[string]string{next.Cert: p.Cert, next.Key: p.Key} {
			fresh := put(t, dir, "fresh", get(t, from))
			if err := errors.Join(os.Chtimes(fresh, info.ModTime(), info.ModTime()), os.Rename(fresh, to)); err != nil {
				t.Fatal(err)
			}
		}
		changed("renamed over it, with its time")
		if !slices.Equal(acme.kept, []string{"pop.example.org"}) {
			t.Errorf("the issuer is to keep %v", acme.kept)
		}

		// One half now, the other a poll later: no word of it.
		lines.take()
		next = issue(t, ca, t.TempDir(), "next", certs.Order{Hosts: []string{host}})
		later(t, put(t, dir, "mail.key", get(t, next.Key)))
		pass(10 * time.Second)
		if first(t, k, host).SerialNumber.Cmp(serial) != 0 {
			t.Error("half a renewal is in force")
		}
		later(t, put(t, dir, "mail.pem", get(t, next.Cert)))
		changed("in two steps")
		lines.expect("info a certificate is replaced")

		// Made by a machine whose clock is ahead: used as soon as it is valid.
		renew(t, ca, dir, "mail", certs.Order{Hosts: []string{host}, NotBefore: time.Now().Add(time.Hour)})
		pass(30 * time.Minute)
		if first(t, k, host).SerialNumber.Cmp(serial) != 0 {
			t.Error("one that is not yet valid is in force")
		}
		pass(30*time.Minute + 10*time.Second)
		changed("valid by now")

		// What was read again and is the same is not news.
		lines.take()
		later(t, p.Cert, p.Key)
		pass(time.Minute)
		lines.expect()
	})
}

// What vanishes from the folder goes, unless it leaves a name with nothing.
func TestWatchVanish(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, dir := authority(t), t.TempDir()
		log, lines := newLog(t)
		acme := &issuer{}
		k := certs.NewKeeper(log)
		last := renew(t, ca, dir, "last", certs.Order{Hosts: []string{"imap.example.org"}})
		twice := renew(t, ca, dir, "twice", certs.Order{Hosts: []string{"pop.example.org"}})
		renew(t, ca, dir, "wild", certs.Order{Hosts: []string{"*.example.org"}, KeyType: certs.RSA})
		also := renew(t, ca, dir, "also", certs.Order{Hosts: []string{"imap.example.net"}})
		s := certs.Sources{Folder: dir, Names: []string{"imap.example.net"}, Issuer: acme}
		set(t, k, s)
		watch(t, k)
		lines.take()
		content := get(t, also.Cert)
		for _, p := range []certs.Pair{twice, also} {
			if err := errors.Join(os.Remove(p.Cert), os.Remove(p.Key)); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Rename(last.Key, last.Key+".tmp"); err != nil { // as an editor does
			t.Fatal(err)
		}
		pass(10 * time.Second)
		lines.expect()
		if err := os.Rename(last.Key+".tmp", last.Key); err != nil {
			t.Fatal(err)
		}
		pass(time.Minute)
		lines.expect("warn a certificate's file is gone; it stays in force until a reload, as nothing else is for its names file="+also.Cert,
			"info a certificate is no longer there, and no longer used file="+twice.Cert)
		if !k.Store().Covers("imap.example.net") || len(k.Store().List()) != 3 {
			t.Errorf("in force: %+v", k.Store().List())
		}
		if !slices.Equal(acme.kept, []string{"imap.example.net"}) {
			t.Errorf("the issuer is to keep %v", acme.kept)
		}
		if list := k.Status(); list[1].Name != "imap.example.net" || list[1].Error != "the file is gone" {
			t.Errorf("%+v", list)
		}

		// The folder itself may be away for a while: a network file system.
		if err := os.Rename(dir, dir+".away"); err != nil {
			t.Fatal(err)
		}
		pass(time.Minute)
		lines.expect("error certificate files cannot be used; what was in force before stays so error=" + dir + ": the folder cannot be read: no such file or directory; correct the path")
		if len(k.Store().List()) != 3 {
			t.Errorf("in force: %+v", k.Store().List())
		}
		if err := os.Rename(dir+".away", dir); err != nil {
			t.Fatal(err)
		}
		pass(time.Minute)
		lines.expect("info certificate files are in order again file=" + dir)

		put(t, dir, "also.pem", content) // without its key this is nothing yet
		pass(time.Minute)
		lines.expect("error certificate files cannot be used; what was in force before stays so error=" + also.Cert +
			": there is no private key in it; put it into the file, or beside it into one of the same name that ends in .key")
		set(t, k, s)
		if k.Store().Covers("imap.example.net") {
			t.Error("a reload keeps what is gone")
		}
	})
}

func TestReport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, dir := authority(t), t.TempDir()
		log, lines := newLog(t)
		k := certs.NewKeeper(log)
		day := 24 * time.Hour
		p := renew(t, ca, dir, "mail", certs.Order{Hosts: []string{"a.example.org", "b.example.org", "c.example.org", "d.example.org", "e.example.org", "f.example.org"},
			NotAfter: time.Now().Add(16 * day)})
		set(t, k, certs.Sources{Files: []certs.Pair{p}, Issuer: &issuer{status: []certs.Status{
			{Name: "g.example.org", Source: "acme", Canonical: true, Failures: 2, Error: "the authority is down"}}}})
		watch(t, k)
		lines.take()
		pass(9 * time.Minute)
		lines.expect() // the first order has its time
		pass(5 * day)
		for i, line := range lines.take() {
			if i < 5 && !strings.Contains(line, "error a certificate is in trouble names=g.example.org error=g.example.org: there is no ECDSA certificate for g.example.org yet; 2 orders have failed, the last one: the authority is down; mend what") {
				t.Errorf("line %d: %s", i, line)
			}
			if i > 5 {
				t.Errorf("too much: %s", line)
			}
		}
		acme := &issuer{}
		set(t, k, certs.Sources{Files: []certs.Pair{p}, Issuer: acme})
		pass(12 * day)
		warnings, errs := 0, 0
		for _, line := range lines.take() {
			const text = " a certificate is in trouble names=a.example.org, b.example.org, c.example.org, d.example.org, e.example.org and 1 more error=" // and the first of them
			switch {
			case strings.HasPrefix(line, "warn"+text):
				warnings++
			case strings.HasPrefix(line, "error"+text):
				errs++
			default:
				t.Error(line)
			}
		}
		// A fifth of its 16 days is 3.2 days.
		if warnings != 1 || errs < 4 || errs > 5 {
			t.Errorf("%d warnings and %d errors", warnings, errs)
		}
		renew(t, ca, dir, "mail", certs.Order{Hosts: []string{"a.example.org"}})
		pass(3 * day)
		lines.expect("info a certificate is replaced")
	})
}

// Certificates are swapped while handshakes go on; each gets one or the other.
func TestSwapDuringHandshakes(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	ca, dir := authority(t), t.TempDir()
	log, _ := newLog(t)
	k := certs.NewKeeper(log)
	const host = "imap.example.org"
	s := certs.Sources{Files: []certs.Pair{issue(t, ca, dir, "mail", certs.Order{Hosts: []string{host}})}, Names: []string{host}, Issuer: &issuer{}}
	set(t, k, s)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 25 {
				if _, err := shake(t, &tls.Config{ServerName: host, RootCAs: ca.Pool()}, func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
					return k.Get(hello, host, certs.Keep)
				}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range 20 {
		issue(t, ca, dir, "mail", certs.Order{Hosts: []string{host}})
		set(t, k, s)
		k.Status()
	}
	wg.Wait()
}

func TestStatus(t *testing.T) {
	ca, dir := authority(t), t.TempDir()
	log, _ := newLog(t)
	k := certs.NewKeeper(log)
	p := issue(t, ca, dir, "mail", certs.Order{Hosts: []string{"pop.example.org", "*.example.org", "192.0.2.1"}, KeyType: certs.RSA})
	set(t, k, certs.Sources{Files: []certs.Pair{p}, Names: []string{"imap.example.org"}, Issuer: &issuer{status: []certs.Status{{Name: "pop.example.org", Source: "acme"}}}})
	var got []string
	for _, s := range k.Status() {
		got = append(got, fmt.Sprintf("%s %s %v %v %s", s.Name, s.Source, s.KeyType, s.Canonical, s.Issuer))
		if s.Source == "file" && (s.File != p.Cert || s.NotAfter.IsZero() || s.NotBefore.IsZero() || time.Since(s.Renewed) > time.Minute) {
			t.Errorf("%+v", s)
		}
	}
	want := []string{"*.example.org file RSA true Test authority", "192.0.2.1 file RSA false Test authority",
		"pop.example.org acme ECDSA false ", "pop.example.org file RSA false Test authority"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
}

// A certificate that a better one has taken the place of is no trouble; one that is the last for
// a name is.
func TestSpare(t *testing.T) {
	ca, dir := authority(t), t.TempDir()
	log, _ := newLog(t)
	k := certs.NewKeeper(log)
	day := 24 * time.Hour
	now := time.Now()
	for name, o := range map[string]certs.Order{
		"old":    {Hosts: []string{"imap.example.org", "gone.example.org"}, NotBefore: now.Add(-90 * day), NotAfter: now.Add(-day)},
		"near":   {Hosts: []string{"imap.example.org"}, NotBefore: now.Add(-90 * day), NotAfter: now.Add(day)},
		"new":    {Hosts: []string{"imap.example.org"}, NotBefore: now.Add(-day), NotAfter: now.Add(89 * day)},
		"future": {Hosts: []string{"imap.example.org"}, NotBefore: now.Add(day), NotAfter: now.Add(91 * day)},
		"rsa":    {Hosts: []string{"imap.example.org"}, NotBefore: now.Add(-90 * day), NotAfter: now.Add(-day), KeyType: certs.RSA},
	} {
		issue(t, ca, dir, name, o)
	}
	set(t, k, certs.Sources{Folder: dir, Names: []string{"imap.example.org"}})
	var got []string
	for _, s := range k.Status() {
		got = append(got, fmt.Sprintf("%s %s %v %v", s.Name, strings.TrimSuffix(filepath.Base(s.File), ".pem"), s.Spare, s.Trouble(now) != nil))
	}
	want := []string{"gone.example.org old false true", "imap.example.org future true false", "imap.example.org new false false",
		"imap.example.org near true false", "imap.example.org old true false", "imap.example.org rsa false true"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
}

func BenchmarkKeeperGet(b *testing.B) {
	ca, err := certs.NewAuthority("Test authority")
	if err != nil {
		b.Fatal(err)
	}
	var files []certs.Pair
	for _, kind := range []certs.KeyType{certs.ECDSA, certs.RSA} {
		cert, err := ca.Issue(certs.Order{Hosts: []string{"imap.example.org"}, KeyType: kind})
		p := certs.Pair{Cert: filepath.Join(b.TempDir(), "mail.pem")}
		if err := errors.Join(err, certs.Write(cert, p)); err != nil {
			b.Fatal(err)
		}
		files = append(files, p)
	}
	k := certs.NewKeeper(zap.NewNop())
	if err := k.Set(certs.Sources{Files: files}); err != nil {
		b.Fatal(err)
	}
	hello := &tls.ClientHelloInfo{ServerName: "imap.example.org", SupportedVersions: []uint16{tls.VersionTLS13},
		CipherSuites: []uint16{tls.TLS_AES_128_GCM_SHA256}, SignatureSchemes: []tls.SignatureScheme{tls.ECDSAWithP256AndSHA256}}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := k.Get(hello, "imap.example.org", certs.Keep); err != nil {
			b.Fatal(err)
		}
	}
}
