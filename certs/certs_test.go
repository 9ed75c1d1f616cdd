package certs_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"mailreeve/certs"
)

// rsaOnly are the cipher suites of a TLS 1.2 client that cannot do ECDSA.
var rsaOnly = []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, tls.TLS_RSA_WITH_AES_128_CBC_SHA}

// authority makes an authority, or ends the test.
func authority(t *testing.T) *certs.Authority {
	t.Helper()
	ca, err := certs.NewAuthority("Test authority")
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

// issue writes a new certificate to name.pem in a directory, its key beside it.
func issue(t *testing.T, ca *certs.Authority, dir, name string, o certs.Order) certs.Pair {
	t.Helper()
	cert, err := ca.Issue(o)
	if err != nil {
		t.Fatal(err)
	}
	p := certs.Pair{Cert: filepath.Join(dir, name+".pem"), Key: filepath.Join(dir, name+".key")}
	if err := certs.Write(cert, p); err != nil {
		t.Fatal(err)
	}
	return p
}

// load loads pairs, or ends the test.
func load(t *testing.T, pairs ...certs.Pair) *certs.Store {
	t.Helper()
	store, err := certs.Load(pairs)
	if err != nil {
		t.Fatal(err)
	}
	return store
}

// keep makes a keeper of files alone, or ends the test.
func keep(t *testing.T, files ...certs.Pair) *certs.Keeper {
	t.Helper()
	k := certs.NewKeeper(zap.NewNop())
	set(t, k, certs.Sources{Files: files})
	return k
}

// handshake runs one and returns the certificate that the client was shown, or the client's
// error.
func handshake(t *testing.T, k *certs.Keeper, fallback string, client *tls.Config) (*x509.Certificate, error) {
	t.Helper()
	return shake(t, client, func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		return k.Get(hello, fallback, certs.Keep)
	})
}

// shake runs a handshake with a server that does all that an old device may need. It needs a
// network: over net.Pipe, which holds no bytes, a client that sends its alert and a server
// that still writes wait for each other.
func shake(t *testing.T, client *tls.Config, get func(*tls.ClientHelloInfo) (*tls.Certificate, error)) (*x509.Certificate, error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	near, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	far, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer far.Close()
		server := tls.Server(far, &tls.Config{
			MinVersion:     tls.VersionTLS10,
			CipherSuites:   append([]uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256}, rsaOnly...),
			GetCertificate: get,
		})
		_ = server.Handshake() // the client tells
	}()
	c := tls.Client(near, client)
	err = c.Handshake()
	near.Close()
	<-done
	if err != nil {
		return nil, err
	}
	return c.ConnectionState().PeerCertificates[0], nil
}

func TestHandshake(t *testing.T) {
	ca, dir := authority(t), t.TempDir()
	k := keep(t,
		issue(t, ca, dir, "imap-rsa", certs.Order{Hosts: []string{"imap.example.org"}, KeyType: certs.RSA}),
		issue(t, ca, dir, "imap", certs.Order{Hosts: []string{"IMAP.Example.org"}}),
		issue(t, ca, dir, "pop", certs.Order{Hosts: []string{"pop.example.org", "127.0.0.1"}}),
		issue(t, ca, dir, "wild", certs.Order{Hosts: []string{"*.old.example.org"}}),
		issue(t, ca, dir, "edwards", certs.Order{Hosts: []string{"ed.example.org"}, KeyType: certs.Ed25519}),
		issue(t, ca, dir, "local", certs.Order{Hosts: []string{"localhost"}}),
	)
	tls13 := func(c *tls.Config) { c.MinVersion = tls.VersionTLS13 }
	tls12 := func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }
	tls12rsa := func(c *tls.Config) { c.MaxVersion, c.CipherSuites = tls.VersionTLS12, rsaOnly }

	tests := []struct {
		name     string
		sni      string
		fallback string
		client   func(*tls.Config)
		want     string // first name in the certificate
		key      x509.PublicKeyAlgorithm
	}{
		{"by name", "imap.example.org", "pop.example.org", nil, "IMAP.Example.org", x509.ECDSA},
		{"capitals", "IMAP.EXAMPLE.ORG", "pop.example.org", nil, "IMAP.Example.org", x509.ECDSA},
		{"TLS 1.3 alone gets ECDSA", "imap.example.org", "", tls13, "IMAP.Example.org", x509.ECDSA},
		{"TLS 1.2 gets ECDSA", "imap.example.org", "", tls12, "IMAP.Example.org", x509.ECDSA},
		{"RSA for a client without ECDSA", "imap.example.org", "", tls12rsa, "imap.example.org", x509.RSA},
		{"Ed25519", "ed.example.org", "", nil, "ed.example.org", x509.Ed25519},
		{"no name", "", "pop.example.org", nil, "pop.example.org", x509.ECDSA},
		{"no name, fallback with dot", "", "pop.example.org.", nil, "pop.example.org", x509.ECDSA},
		{"no name, RSA", "", "imap.example.org", tls12rsa, "imap.example.org", x509.RSA},
		{"an address", "127.0.0.1", "imap.example.org", nil, "IMAP.Example.org", x509.ECDSA},
		{"no dot", "mail", "imap.example.org", nil, "IMAP.Example.org", x509.ECDSA},
		{"no dot, but known", "localhost", "imap.example.org", nil, "localhost", x509.ECDSA},
		{"unknown", "imap.example.net", "pop.example.org", nil, "pop.example.org", x509.ECDSA},
		{"unknown, RSA", "imap.example.net", "imap.example.org", tls12rsa, "imap.example.org", x509.RSA},
		{"unknown, so is the fallback", "imap.example.net", "pop.example.net", tls12rsa, "imap.example.org", x509.RSA},
		{"wildcard", "kunde.old.example.org", "imap.example.org", nil, "*.old.example.org", x509.ECDSA},
		{"wildcard as fallback", "", "kunde.old.example.org", nil, "*.old.example.org", x509.ECDSA},
		{"wildcard is one label", "a.b.old.example.org", "pop.example.org", nil, "pop.example.org", x509.ECDSA},
		{"wildcard is not none", "old.example.org", "pop.example.org", nil, "pop.example.org", x509.ECDSA},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			client := &tls.Config{ServerName: test.sni, InsecureSkipVerify: true}
			if test.client != nil {
				test.client(client)
			}
			cert, err := handshake(t, k, test.fallback, client)
			if err != nil {
				t.Fatal(err)
			}
			if cert.DNSNames[0] != test.want || cert.PublicKeyAlgorithm != test.key {
				t.Errorf("got %s %s, want %s %s", cert.PublicKeyAlgorithm, cert.DNSNames[0], test.key, test.want)
			}
		})
	}
}

// The name on its way through crypto/tls loses what is no host name; what Get does with
// such a name shows only without it.
func TestGetAddress(t *testing.T) {
	ca, dir := authority(t), t.TempDir()
	k := keep(t,
		issue(t, ca, dir, "imap", certs.Order{Hosts: []string{"imap.example.org"}}),
		issue(t, ca, dir, "pop", certs.Order{Hosts: []string{"pop.example.org"}}))
	for _, name := range []string{"192.0.2.1", "2001:db8::1", ".", "..", ".example.org", "mail", "imap.example.org.."} {
		cert, err := k.Get(&tls.ClientHelloInfo{ServerName: name}, "pop.example.org", certs.Keep)
		if err != nil || cert.Leaf.DNSNames[0] != "pop.example.org" {
			t.Errorf("%q: %v, %v", name, cert, err)
		}
	}
}

// A client that can use no certificate of the name fails, even if one of another name would
// suit it.
func TestUnsupported(t *testing.T) {
	ca, dir := authority(t), t.TempDir()
	k := keep(t,
		issue(t, ca, dir, "imap", certs.Order{Hosts: []string{"imap.example.org"}}),
		issue(t, ca, dir, "pop", certs.Order{Hosts: []string{"pop.example.org"}, KeyType: certs.RSA}))
	cert, err := handshake(t, k, "pop.example.org", &tls.Config{ServerName: "imap.example.org",
		InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12, CipherSuites: rsaOnly})
	if err == nil {
		t.Errorf("got the certificate of %q", cert.DNSNames)
	}
}

func TestAuthorityIsTrusted(t *testing.T) {
	ca, dir := authority(t), t.TempDir()
	k := keep(t, issue(t, ca, dir, "imap", certs.Order{Hosts: []string{"imap.example.org", "::1"}}))
	for _, name := range []string{"imap.example.org", "::1"} {
		if _, err := handshake(t, k, "imap.example.org", &tls.Config{ServerName: name, RootCAs: ca.Pool()}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err := handshake(t, k, "", &tls.Config{ServerName: "imap.example.org", RootCAs: authority(t).Pool()})
	if unknown := new(x509.UnknownAuthorityError); !errors.As(err, unknown) {
		t.Errorf("another authority: %v", err)
	}
}

func TestPreferValid(t *testing.T) {
	ca, dir, now := authority(t), t.TempDir(), time.Now()
	host := []string{"imap.example.org"}
	valid := certs.Order{Hosts: host, KeyType: certs.RSA}
	longer := certs.Order{Hosts: host, KeyType: certs.RSA, NotAfter: now.AddDate(0, 0, 200)}
	future := certs.Order{Hosts: host, NotBefore: now.Add(24 * time.Hour)}
	past := certs.Order{Hosts: host, NotBefore: now.AddDate(0, 0, -90), NotAfter: now.Add(-time.Hour)}
	tests := []struct {
		name   string
		orders []certs.Order
		want   int
	}{
		{"valid before future and past", []certs.Order{future, past, valid}, 2},
		{"the longer", []certs.Order{valid, longer}, 1},
		{"past for want of better", []certs.Order{past}, 0},
		{"the later of two past ones", []certs.Order{{Hosts: host, NotBefore: past.NotBefore, NotAfter: now.Add(-2 * time.Hour)}, past}, 1},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var pairs []certs.Pair
			for i, o := range test.orders {
				pairs = append(pairs, issue(t, ca, dir, string(rune('a'+i)), o))
			}
			cert, err := handshake(t, keep(t, pairs...), "", &tls.Config{ServerName: host[0], InsecureSkipVerify: true})
			if err != nil {
				t.Fatal(err)
			}
			want := load(t, pairs[test.want]).List()[0]
			if !cert.NotAfter.Equal(want.NotAfter) {
				t.Errorf("got the one until %v, want the one until %v", cert.NotAfter, want.NotAfter)
			}
		})
	}
}

// One that names the host goes before a wildcard, but not if it is out of date, nor for
// those who cannot use it.
func TestExactBeforeWildcard(t *testing.T) {
	ca, dir, now := authority(t), t.TempDir(), time.Now()
	wild := issue(t, ca, dir, "wild", certs.Order{Hosts: []string{"*.example.org"}, KeyType: certs.RSA})
	past := issue(t, ca, dir, "past", certs.Order{Hosts: []string{"imap.example.org"}, NotBefore: now.AddDate(0, 0, -90), NotAfter: now.Add(-time.Hour)})
	good := issue(t, ca, dir, "good", certs.Order{Hosts: []string{"pop.example.org"}})
	k := keep(t, past, wild, good)
	for _, test := range []struct {
		name, want string
		client     *tls.Config
	}{
		{"imap.example.org", "*.example.org", &tls.Config{}},
		{"pop.example.org", "pop.example.org", &tls.Config{}},
		{"pop.example.org", "*.example.org", &tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: rsaOnly}},
		{"smtp.example.org", "*.example.org", &tls.Config{}},
	} {
		client := test.client.Clone()
		client.ServerName, client.InsecureSkipVerify = test.name, true
		cert, err := handshake(t, k, "", client)
		if err != nil || cert.DNSNames[0] != test.want {
			t.Errorf("%s: %v, %v, want %s", test.name, cert, err, test.want)
		}
	}
}

func TestEmpty(t *testing.T) {
	store := load(t)
	if store.Covers("imap.example.org") || len(store.List()) != 0 {
		t.Error("an empty store covers something")
	}
}

func TestListAndCovers(t *testing.T) {
	ca, dir := authority(t), t.TempDir()
	until := time.Now().Add(30 * 24 * time.Hour).Truncate(time.Second).UTC()
	old := issue(t, ca, dir, "rsa", certs.Order{Hosts: []string{"*.Example.org"}, KeyType: certs.RSA, NotAfter: until})
	young := issue(t, ca, dir, "ecdsa", certs.Order{Hosts: []string{"imap.example.net"}})
	store := load(t, old, young)

	list := store.List()
	if len(list) != 2 || list[0].Pair != young || list[1].Pair != old || list[0].KeyType != certs.ECDSA ||
		list[1].KeyType.String() != "RSA" || list[1].Names[0] != "*.example.org" || !list[1].NotAfter.Equal(until) {
		t.Errorf("List: %+v", list)
	}
	for name, want := range map[string]bool{
		"imap.example.org": true, "IMAP.EXAMPLE.ORG.": true, "example.org": false, "a.b.example.org": false,
		"imap.example.net": true, "pop.example.net": false, "": false, "org": false,
	} {
		if store.Covers(name) != want {
			t.Errorf("Covers(%q) is not %v", name, want)
		}
	}

	if err := list[1].Check(until); err != nil {
		t.Errorf("at the last second: %v", err)
	}
	for at, want := range map[time.Time]string{
		until.Add(time.Second):                  "rsa.pem: certificate expired on " + until.Format("2006-01-02 15:04 MST") + "; renew it",
		list[1].NotBefore.Add(-1 * time.Second): "rsa.pem: certificate is not valid before ",
	} {
		if err := list[1].Check(at); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("at %v: %v, want %s", at, err, want)
		}
	}
}
