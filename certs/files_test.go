package certs_test

import (
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"mailreeve/certs"
)

// put writes a file of several parts and returns its path.
func put(t *testing.T, dir, name string, parts ...[]byte) string {
	t.Helper()
	var all []byte
	for _, part := range parts {
		all = append(all, part...)
	}
	file := filepath.Join(dir, name)
	if err := os.WriteFile(file, all, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// get reads a file.
func get(t *testing.T, file string) []byte {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestLoadFails(t *testing.T) {
	ca, dir := authority(t), t.TempDir()
	good := issue(t, ca, dir, "good", certs.Order{Hosts: []string{"imap.example.org"}})
	other := issue(t, ca, dir, "other", certs.Order{Hosts: []string{"imap.example.org"}, KeyType: certs.RSA})
	nameless := issue(t, ca, dir, "nameless", certs.Order{})
	cert, key := get(t, good.Cert), get(t, good.Key)
	block := func(kind, data string) []byte {
		return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: []byte(data)})
	}
	legacy := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: []byte("x"),
		Headers: map[string]string{"DEK-Info": "AES-128-CBC,00"}})

	tests := []struct {
		name string
		pair certs.Pair
		want string // DIR stands for the directory
	}{
		{"no file", certs.Pair{Cert: filepath.Join(dir, "none.pem")},
			"DIR/none.pem: it cannot be read: no such file or directory; correct the path, or let the program's user read it"},
		{"a directory", certs.Pair{Cert: dir},
			"DIR: it cannot be read: is a directory; correct the path, or let the program's user read it"},
		{"no key file", certs.Pair{Cert: good.Cert, Key: filepath.Join(dir, "none.key")},
			"DIR/none.key: it cannot be read: no such file or directory; correct the path, or let the program's user read it"},
		{"not PEM", certs.Pair{Cert: put(t, dir, "garbage.pem", []byte("garbage"))},
			"DIR/garbage.pem: it is not in PEM form; convert it (openssl x509 or openssl pkey, -inform DER; openssl pkcs12 -nodes for a .p12)"},
		{"empty", certs.Pair{Cert: put(t, dir, "empty.pem")},
			"DIR/empty.pem: it is empty; write it anew; is the disk full?"},
		{"too large", certs.Pair{Cert: put(t, dir, "large.pem", make([]byte, 1<<20+1))},
			"DIR/large.pem: it is larger than 1 MiB, so hardly a certificate or key; name the PEM file"},
		{"only a key", certs.Pair{Cert: good.Key},
			"DIR/good.key: there is no certificate in it; name a PEM file that holds one (-----BEGIN CERTIFICATE-----)"},
		{"only a certificate", certs.Pair{Cert: good.Cert},
			"DIR/good.pem: there is no private key in it; name a PEM file that holds one (-----BEGIN PRIVATE KEY-----)"},
		{"broken certificate", certs.Pair{Cert: put(t, dir, "broken.pem", block("CERTIFICATE", "x"))},
			"DIR/broken.pem: a certificate cannot be read: x509: malformed certificate; copy it again from where it was issued"},
		{"broken key", certs.Pair{Cert: good.Cert, Key: put(t, dir, "broken.key", block("PRIVATE KEY", "x"))},
			"DIR/broken.key: the private key cannot be read: "},
		{"encrypted key", certs.Pair{Cert: good.Cert, Key: put(t, dir, "locked.key", block("ENCRYPTED PRIVATE KEY", "x"))},
			"DIR/locked.key: the private key is encrypted; decrypt it (openssl pkey) into a file with mode 0600"},
		{"encrypted key of old", certs.Pair{Cert: good.Cert, Key: put(t, dir, "locked.key", legacy)},
			"DIR/locked.key: the private key is encrypted; decrypt it (openssl pkey) into a file with mode 0600"},
		{"two keys", certs.Pair{Cert: good.Cert, Key: put(t, dir, "two.key", key, get(t, other.Key))},
			"DIR/two.key: there are several private keys in it; leave the one that belongs to DIR/good.pem"},
		{"another key", certs.Pair{Cert: good.Cert, Key: other.Key},
			"DIR/other.key: the key does not belong to the certificate in DIR/good.pem; name the key that the certificate was ordered with"},
		{"wrong order", certs.Pair{Cert: put(t, dir, "order.pem", get(t, other.Cert), cert), Key: good.Key},
			"DIR/order.pem: the certificates stand in the wrong order; put the certificate of the host first and its authorities behind it"},
		{"no names", nameless,
			"DIR/nameless.pem: the certificate names no host in its subjectAltName; order one that does: the common name alone has not counted for years"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			store, err := certs.Load([]certs.Pair{good, test.pair})
			if err == nil {
				t.Fatal("no error")
			}
			if got := strings.ReplaceAll(err.Error(), dir, "DIR"); !strings.HasPrefix(got, test.want) {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
			if store != nil {
				t.Error("a store all the same")
			}
			if typed := new(certs.Error); !errors.As(err, &typed) || typed.Cure == "" || typed.Message == "" {
				t.Errorf("no file and cure: %#v", err)
			}
		})
	}
	t.Run("all are told", func(t *testing.T) {
		_, err := certs.Load([]certs.Pair{{Cert: good.Cert}, good, {Cert: good.Key}})
		if lines := strings.Split(err.Error(), "\n"); len(lines) != 2 {
			t.Errorf("got %q", lines)
		}
		_, err = certs.Load([]certs.Pair{{Cert: filepath.Join(dir, "none.pem")}})
		if !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the cause is lost: %v", err)
		}
	})
}

// Every form of key file that others write is read.
// A certificate's names that are none count for nobody: not for clients that send no name, and
// no terminal shows them.
func TestNamesThatAreNone(t *testing.T) {
	ca, dir := authority(t), t.TempDir()
	issue(t, ca, dir, "bad", certs.Order{Hosts: []string{".", "..", "*", "*.", "a b.example.org", "\x1b[2J.example.org", "..example.org", "good_.example.org", "*.Example.net"}})
	issue(t, ca, dir, "none", certs.Order{Hosts: []string{"."}})
	fallback := issue(t, ca, dir, "fallback", certs.Order{Hosts: []string{"fallback.example.org"}})
	k := keep(t)
	set(t, k, certs.Sources{Folder: dir})
	if got := first(t, k, ""); got.DNSNames[0] != "fallback.example.org" {
		t.Errorf("a client that names no host gets the certificate for %q", got.DNSNames)
	}
	var names []string
	for _, s := range k.Status() {
		names = append(names, s.Name)
	}
	if want := []string{"*.example.net", "fallback.example.org", "good_.example.org"}; !slices.Equal(names, want) {
		t.Errorf("names %q", names)
	}
	_, bad, err := certs.Folder(filepath.Dir(fallback.Cert))
	if err != nil || len(bad) != 1 || !strings.Contains(bad[0].Error(), "none.pem: the certificate names no host") {
		t.Errorf("bad %v, %v", bad, err)
	}
}

func TestKeyForms(t *testing.T) {
	ca, dir := authority(t), t.TempDir()
	for _, kind := range []certs.KeyType{certs.ECDSA, certs.RSA, certs.Ed25519} {
		cert, err := ca.Issue(certs.Order{Hosts: []string{"imap.example.org"}, KeyType: kind})
		if err != nil {
			t.Fatal(err)
		}
		p := certs.Pair{Cert: filepath.Join(dir, "both.pem")}
		if err := certs.Write(cert, p); err != nil {
			t.Fatal(err)
		}
		if got := load(t, p).List()[0].KeyType; got != kind {
			t.Errorf("%v in one file: got %v", kind, got)
		}
		var old *pem.Block
		switch key := cert.PrivateKey.(type) {
		case *rsa.PrivateKey:
			old = &pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}
		case *ecdsa.PrivateKey:
			der, err := x509.MarshalECPrivateKey(key)
			if err != nil {
				t.Fatal(err)
			}
			old = &pem.Block{Type: "EC PRIVATE KEY", Bytes: der}
		default:
			continue
		}
		params := pem.EncodeToMemory(&pem.Block{Type: "EC PARAMETERS", Bytes: []byte("x")}) // as openssl ecparam writes it
		if got := load(t, certs.Pair{Cert: p.Cert, Key: put(t, dir, "old.key", params, pem.EncodeToMemory(old))}); len(got.List()) != 1 {
			t.Errorf("%v in its old form: %v", kind, got.List())
		}
	}
}

func TestWriteModes(t *testing.T) {
	ca, dir := authority(t), t.TempDir()
	put(t, dir, "a.key", []byte("an old file that all can read"))
	if err := os.Chmod(filepath.Join(dir, "a.key"), 0o644); err != nil {
		t.Fatal(err)
	}
	issue(t, ca, dir, "a", certs.Order{Hosts: []string{"imap.example.org"}})
	if err := ca.WriteCA(filepath.Join(dir, "ca.pem")); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]fs.FileMode{"a.key": 0o600, "a.pem": 0o644, "ca.pem": 0o644} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm() | want&0o044; got != want { // the umask may take reading away
			t.Errorf("%s has mode %o, want %o", name, got, want)
		}
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(get(t, filepath.Join(dir, "ca.pem"))) || !pool.Equal(ca.Pool()) {
		t.Error("ca.pem is not the authority")
	}
	if _, err := ca.Issue(certs.Order{KeyType: 9}); err == nil || !strings.Contains(err.Error(), "no such kind of key: KeyType(9)") {
		t.Errorf("an unknown kind of key: %v", err)
	}
}
