package config

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"mailreeve/certs"
)

// A file in testdata holds cases: a title after "=== ", a configuration, a line of dashes,
// and what is told of it. In parse.txt that is the error of Parse. In check.txt it is what
// Check tells; top-level keys that the case leaves out are added at its end from base, and
// the names of files are those that TestCheck makes.
const (
	titleMark = "=== "
	dashes    = "--------\n"
)

// base is a configuration without problems.
var base = []string{
	"version: 1\n",
	"brands: [{ name: example, help: 'https://help.example.org', hosts: { imap: [imap.example.org] } }]\n",
	"listeners: [{ address: ':993', protocol: imap, tls: implicit }]\n",
	"backends: { imap: { addresses: ['10.0.0.5:143'], tls: off } }\n",
	"certificates: { files: [{ cert: mail.pem, key: mail.key }] }\n",
}

// whole adds what a case leaves out.
func whole(input string) string { return wholeOf(input, base) }

func wholeOf(input string, base []string) string {
	for _, line := range base {
		key, _, _ := strings.Cut(line, " ")
		if !strings.Contains("\n"+input, "\n"+key) {
			input += line
		}
	}
	return input
}

// cases runs all cases of a file, or writes their results.
func cases(t *testing.T, file string, run func(t *testing.T, input string) string) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", file))
	if err != nil {
		t.Fatal(err)
	}
	var results bytes.Buffer
	for _, text := range split(data) {
		t.Run(text.title, func(t *testing.T) {
			got := run(t, text.input)
			if got != text.want && !*update {
				t.Errorf("got:\n%swant:\n%s", got, text.want)
			}
			fmt.Fprint(&results, titleMark, text.title, "\n", text.input, dashes, got)
		})
	}
	if *update && !t.Failed() {
		if err := os.WriteFile(filepath.Join("testdata", file), results.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// testCase is one case of a file.
type testCase struct{ title, input, want string }

// split takes a file of cases apart.
func split(data []byte) (all []testCase) {
	for text := range strings.SplitSeq("\n"+string(data), "\n"+titleMark) {
		title, rest, _ := strings.Cut(text, "\n")
		input, want, _ := strings.Cut(strings.TrimSuffix(rest, "\n")+"\n", dashes)
		if title != "" {
			all = append(all, testCase{title, input, want})
		}
	}
	return all
}

func TestParse(t *testing.T) {
	cases(t, "parse.txt", func(t *testing.T, input string) string {
		_, err := Parse("m.yaml", []byte(input))
		if problems := (Problems)(nil); err != nil && !errors.As(err, &problems) {
			t.Errorf("%T is not Problems", err)
		}
		return told(err)
	})
}

func TestCheck(t *testing.T) {
	dir := t.TempDir()
	fixtures(t, dir)
	cases(t, "check.txt", func(t *testing.T, input string) string {
		c, err := Parse(filepath.Join(dir, "m.yaml"), []byte(whole(input)))
		if err != nil {
			t.Fatal(err)
		}
		problems := c.Check(time.Now())
		if len(problems) == 0 {
			return ""
		}
		return strings.ReplaceAll(told(problems), dir+"/", "")
	})
}

// told is an error as a case has it: its lines, or nothing.
func told(err error) string {
	if err == nil {
		return ""
	}
	return err.Error() + "\n"
}

// fixtures makes the files that cases name.
func fixtures(t *testing.T, dir string) {
	ca, err := certs.NewAuthority("Test authority")
	if err != nil {
		t.Fatal(err)
	}
	if err := ca.WriteCA(filepath.Join(dir, "ca.pem")); err != nil {
		t.Fatal(err)
	}
	names := []string{"imap.example.org", "pop.example.org", "*.example.net"}
	date := func(year int) time.Time { return time.Date(year, 3, 1, 12, 0, 0, 0, time.UTC) }
	for name, order := range map[string]certs.Order{
		"mail":    {Hosts: names},
		"other":   {Hosts: names},
		"expired": {Hosts: names, NotBefore: date(2020), NotAfter: date(2021)},
		"future":  {Hosts: names, NotBefore: date(2190), NotAfter: date(2191)},
	} {
		cert, err := ca.Issue(order)
		if err != nil {
			t.Fatal(err)
		}
		if err := certs.Write(cert, certs.Pair{Cert: filepath.Join(dir, name+".pem"), Key: filepath.Join(dir, name+".key")}); err != nil {
			t.Fatal(err)
		}
	}
	bare := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: names, NotBefore: date(2020), NotAfter: date(2190),
		IssuingCertificateURL: []string{"http://authority.example/intermediate.der"}}
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "mail.pem"), filepath.Join(dir, "mail.key"))
	if err != nil {
		t.Fatal(err)
	}
	signer := pair.PrivateKey.(crypto.Signer)
	parent := &x509.Certificate{Subject: pkix.Name{CommonName: "Intermediate"}}
	if bare.Raw, err = x509.CreateCertificate(rand.Reader, bare, parent, signer.Public(), signer); err != nil {
		t.Fatal(err)
	}
	leaf := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: bare.Raw}))
	authority, err := os.ReadFile(filepath.Join(dir, "ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	key, err := os.ReadFile(filepath.Join(dir, "mail.key"))
	if err != nil {
		t.Fatal(err)
	}
	for name, mode := range map[string]fs.FileMode{"state": 0o700, "open.state": 0o750, "folder/live": 0o700, "rotten": 0o700, "empty": 0o700, "everybodys": 0o777} {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(path, 0o700), os.Chmod(path, mode)); err != nil { // whatever the umask is
			t.Fatal(err)
		}
	}
	for from, to := range map[string][]string{
		"mail.pem": {"folder/live/fullchain.pem", "rotten/b.pem"}, "mail.key": {"folder/live/privkey.pem"}, "other.key": {"rotten/b.key"},
		"ca.pem": {"folder/ca.pem"}, "expired.pem": {"rotten/c.crt"}, "expired.key": {"rotten/c.key"},
	} {
		data, err := os.ReadFile(filepath.Join(dir, from))
		for _, name := range to {
			err = errors.Join(err, os.WriteFile(filepath.Join(dir, name), data, 0o600))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range []struct {
		name, content string
		mode          fs.FileMode
	}{
		{"open.key", string(key), 0o644},
		{"master.secret", "secret\n", 0o600},
		{"open.secret", "secret\n", 0o640},
		{"empty.secret", "\n", 0o600},
		{"lines.secret", "user\nsecret\n", 0o600},
		{"garbage.pem", "garbage\n", 0o600},
		{"bare.pem", leaf, 0o644},
		{"eab.key", "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W\n", 0o600},
		{"padded.key", "c2VjcmV0IGtleSE=\n", 0o600},
		{"base64.key", "++//\n", 0o600},
		{"open.eab.key", "c2VjcmV0", 0o644},
		{"policy.yaml", strings.Join(basePolicy, ""), 0o644},
		{"strange.yaml", strings.Join(basePolicy, "") + "exceptions: [{ id: e, for: [encrypted], match: { brand: exmple, listener: [imap-993, pop3-995] }, cap: notify, until: 2020-01-01, reason: r, owner: o }]\n", 0o644},
		{"broken.yaml", strings.Replace(strings.Join(basePolicy, ""), "notify", "notfy", 1), 0o644},
		{"untrue.yaml", strings.Join(basePolicy, "") + "never: [{ match: { protocol: imap }, do: deny }]\n", 0o644},
		{"strict.yaml", "version: 1\ntimezone: UTC\nrequirements: [{ id: modern, finding: tls_old, scope: { brand: example }, require: { tls: '>=1.2' }, stages: [{ from: 2020-01-01, do: refuse }] }]\ntests: [{ at: 2020-01-01, is: { brand: example, tls: '1.1' }, expect: refuse }]\n", 0o644},
		{"told.yaml", "version: 1\ntimezone: UTC\nrequirements: [{ id: modern, finding: tls_old, scope: { brand: example }, require: { tls: '>=1.2' }, stages: [{ from: 2020-01-01, do: deny }] }]\ntests: [{ at: 2020-01-01, is: { brand: example, tls: '1.1' }, expect: deny }]\n", 0o644},
		{"aliases.txt", "anna@x.example anna\none two three\nanna@x.example bert\n@x y\n", 0o644},
		{"names.txt", "# from the customer database\nimap.kunde.example\n  Pop.Kunde.Example.\t# moved\r\n\nimap.kunde.example\n", 0o644},
		{"wrong.txt", "imap.kunde.example\nimap.*\n \tb\u00fccher.example # no\na.example b.example\n192.0.2.1\nIMAP.example.org\nold.example.net", 0o644},
		{"log.txt", strings.Repeat("nothing that is a name\n", 1000), 0o644},
		{"chain.pem", leaf + string(authority), 0o644},
	} {
		path := filepath.Join(dir, f.name)
		if err := os.WriteFile(path, []byte(f.content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, f.mode); err != nil { // whatever the umask is
			t.Fatal(err)
		}
	}
}

// Everything that a minimal file leaves out has its default.
func TestDefaults(t *testing.T) {
	dir := t.TempDir()
	c, err := Parse(filepath.Join(dir, "m.yaml"), []byte(whole("")))
	if err != nil {
		t.Fatal(err)
	}
	c.source = nil
	if c.Hostname == "" {
		t.Error("no host name")
	}
	want := &Config{
		Version:  1,
		Hostname: c.Hostname,
		Brands: []Brand{{Name: "example", Language: German, Help: "https://help.example.org",
			Hosts: map[Protocol][]Host{IMAP: {"imap.example.org"}}, LegacyCertificates: LegacyCanonical, LoginName: LoginAsTyped}},
		Listeners: []Listener{{Name: "imap-993", Address: Address{Port: 993}, Protocol: IMAP, TLS: Implicit, Brand: "example"}},
		Certificates: Certificates{Unknown: UnknownCanonical, Files: []CertificateFiles{
			{Cert: filepath.Join(dir, "mail.pem"), Key: filepath.Join(dir, "mail.key")}}},
		Backends: map[Protocol]*Backend{IMAP: {Addresses: []Address{{"10.0.0.5", 143}}, TLS: Off, Verify: VerifyFull,
			ConnectTimeout: 5 * time.Second, LoginTimeout: 30 * time.Second}},
		Limits: Limits{PerAddress: 100, HandshakeTimeout: 30 * time.Second, LoginTimeout: 3 * time.Minute,
			BadCommands: 10, Logins: 10, Line: 8192, Literal: 4096, Token: 12288, Memory: 65536,
			Idle: Idle{IMAP: 40 * time.Minute, POP3: 15 * time.Minute, Submission: 15 * time.Minute}},
		Drain:  Drain{Goodbye: 20 * time.Second, Deadline: time.Minute},
		Events: Events{File: filepath.Join(dir, "events.jsonl"), Keep: 7 * 24 * time.Hour},
		Log:    Log{Level: LevelInfo, Format: FormatConsole},
	}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got  %+v\nwant %+v", c, want)
	}
	more, err := Parse(filepath.Join(dir, "m.yaml"), []byte(whole("state: s\nweb: { http: ':0' }\nmetrics: { address: '127.0.0.1:9144' }\n"+
		"certificates: { folder: f, acme: { ca: ca.pem, account: { key_id: k, key_file: eab.key } } }\n")))
	if err != nil {
		t.Fatal(err)
	}
	acme := &ACME{Directory: "https://acme-v02.api.letsencrypt.org/directory", CA: filepath.Join(dir, "ca.pem"), RSA: true, OrdersPerHour: 20,
		Account: &Account{KeyID: "k", KeyFile: filepath.Join(dir, "eab.key")}}
	if got := more.Certificates; more.State != filepath.Join(dir, "s") || got.Folder != filepath.Join(dir, "f") || !reflect.DeepEqual(got.ACME, acme) {
		t.Errorf("got %q, %+v, %+v", more.State, got, got.ACME)
	}
	if more.Web.HTTPS != nil || *more.Web.HTTP != (Address{}) || more.Metrics.Address.Port != 9144 {
		t.Errorf("got %+v, %+v", more.Web, more.Metrics)
	}
	starttls, err := Parse("m.yaml", []byte(whole("listeners: [{ address: ':143', protocol: imap, tls: starttls }]\n")))
	if err != nil || starttls.Listeners[0].WrongPort != WrongPortServe {
		t.Errorf("wrong_port has no default: %v", err)
	}
}

func TestLoad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "m.yaml")
	if _, err := Load(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	if err := os.WriteFile(path, []byte(whole("")), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(path); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(path, make([]byte, maxFile+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(path); err == nil || err.Error() != path+":1:1: the file is larger than 16 MiB; is it the right one?" {
		t.Errorf("large file: %v", err)
	}
}

// A configuration that a program made has problems without places, and certificates are not
// dated without a date.
func TestCheckWithoutFile(t *testing.T) {
	dir := t.TempDir()
	fixtures(t, dir)
	c := &Config{
		Listeners:    []Listener{{Name: "imap", Protocol: IMAP, Brand: "example"}},
		Brands:       []Brand{{Name: "example", Hosts: map[Protocol][]Host{IMAP: {"imap.example.org"}}}},
		Certificates: Certificates{Files: []CertificateFiles{{Cert: filepath.Join(dir, "expired.pem"), Key: filepath.Join(dir, "expired.key")}}},
	}
	const want = "brands[0].hosts.imap: there is no backend for imap; add one to backends"
	if got := c.Check(time.Time{}).Error(); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if new(Config).Check(time.Now()).Err() == nil {
		t.Error("an empty configuration is right")
	}
}

// A certificate that expires within two weeks is warned of, one that expires later not.
func TestCheckSaysWhatExpiresSoon(t *testing.T) {
	dir := t.TempDir()
	fixtures(t, dir)
	c := &Config{Certificates: Certificates{Files: []CertificateFiles{{Cert: filepath.Join(dir, "expired.pem"), Key: filepath.Join(dir, "expired.key")}}}}
	expiry := time.Date(2021, 3, 1, 12, 0, 0, 0, time.UTC)
	for before, want := range map[time.Duration]bool{13 * 24 * time.Hour: true, 14*24*time.Hour + time.Hour: false} {
		if got := strings.Contains(c.Check(expiry.Add(-before)).Error(), "expires on 2021-03-01; renew it"); got != want {
			t.Errorf("%v before: %v", before, got)
		}
	}
}

func TestBackendOfBrand(t *testing.T) {
	all, own := new(Backend), new(Backend)
	c := &Config{
		Brands:   []Brand{{Name: "a"}, {Name: "b", Backends: map[Protocol]*Backend{IMAP: own}}},
		Backends: map[Protocol]*Backend{IMAP: all, POP3: all},
	}
	for _, test := range []struct {
		brand    Name
		protocol Protocol
		want     *Backend
	}{{"a", IMAP, all}, {"b", IMAP, own}, {"b", POP3, all}, {"b", Submission, nil}} {
		if got := c.Backend(c.Brand(test.brand), test.protocol); got != test.want {
			t.Errorf("%s, %s: the wrong backend", test.brand, test.protocol)
		}
	}
	if c.Brand("c") != nil {
		t.Error("found a brand that there is not")
	}
}

func TestPassword(t *testing.T) {
	path := filepath.Join(t.TempDir(), "secret")
	for content, want := range map[string]string{"secret": "secret", "secret\n": "secret", " se cret \r\n": " se cret "} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := (&Master{PasswordFile: path}).Password(); got != want || err != nil {
			t.Errorf("%q: got %q, %v", content, got, err)
		}
	}
	if err := os.WriteFile(path, bytes.Repeat([]byte("x"), 5000), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := (&Master{PasswordFile: path}).Password(); err == nil {
		t.Errorf("took a password of %d bytes", len(got))
	}
}

// FuzzParse looks for files that make Parse panic, or for which it finds fault at a place
// outside them.
func FuzzParse(f *testing.F) {
	for _, file := range []string{"parse.txt", "check.txt"} {
		data, err := os.ReadFile(filepath.Join("testdata", file))
		if err != nil {
			f.Fatal(err)
		}
		for _, text := range split(data) {
			f.Add([]byte(text.input))
		}
	}
	for _, data := range examples(f) {
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Parse("m.yaml", data)
		var problems Problems
		if err == nil {
			if c.Version != 1 || len(c.Brands) == 0 || len(c.Listeners) == 0 {
				t.Errorf("accepted without what is required: %+v", c)
			}
		} else if !errors.As(err, &problems) || len(problems) == 0 {
			t.Errorf("%T: %v", err, err)
		}
		lines := 2 + bytes.Count(data, []byte("\n")) + bytes.Count(data, []byte("\r")) + bytes.Count(data, []byte("\u0085")) +
			bytes.Count(data, []byte("\u2028")) + bytes.Count(data, []byte("\u2029"))
		for _, p := range problems {
			if p.Line < 0 || p.Line > lines || p.Column < 0 || p.Column > len(data)+2 {
				t.Errorf("a place outside the file: %v", p)
			}
			if strings.ContainsAny(p.String(), "\n\x00\x1b") {
				t.Errorf("more than one line: %q", p)
			}
		}
	})
}
