package certs

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestNames(t *testing.T) {
	for name, want := range map[string]bool{
		"imap.example.org": true, "a.b": true, "xn--mller-kva.example": true, "0.example": true, "imap.4example": true,
		strings.Repeat("a", 63) + ".example": true, strings.Repeat("a", 64) + ".example": false,
		strings.Repeat("abcdefghi.", 22) + "abc": true, strings.Repeat("abcdefghi.", 23) + "abc": false,
		"": false, "localhost": false, ".": false, "..": false, ".example.org": false, "a..b": false, "a.b.": false,
		"../x.org": false, "a/b.org": false, `a\b.org`: false, "a b.org": false, "a\x00.org": false, "a\n.org": false,
		"IMAP.example.org": false, "*.example.org": false, "_imap.example.org": false, "müller.example": false,
		"-a.org": false, "a-.org": false, "192.0.2.1": false, "1.2": false, "2001:db8::1": false, "::1": false, "a.org:80": false,
	} {
		if validName(name) != want {
			t.Errorf("%q is not %v", name, want)
		}
	}
	for _, p := range []pair{{"imap.example.org", ECDSA}, {"imap.rsa", ECDSA}, {"a.ecdsa", RSA}} {
		if got, ok := parsePair(p.file()); !ok || got != p {
			t.Errorf("%v is %v from its file %q", p, got, p.file())
		}
	}
	for _, file := range []string{"", "imap.example.org", ".ecdsa", "x.rsa", "../x.org.rsa", "imap.example.org.ed25519"} {
		if p, ok := parsePair(file); ok {
			t.Errorf("%q is %v", file, p)
		}
	}
}

func TestRecord(t *testing.T) {
	for text, want := range map[string]string{
		"": "unexpected end", "[]": "cannot unmarshal", `{"failures":-1}`: "out of range", `{"failures":1000000001}`: "out of range",
		`{"tried":"yesterday"}`: "parsing time", `{"failures":"3"}`: "cannot unmarshal",
	} {
		if _, err := parseRecord([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
	r, err := parseRecord([]byte(`{"error":"a\u001b[31m\nb` + strings.Repeat("x", 2000) + `","unknown":1}`))
	if err != nil || !strings.HasPrefix(r.Error, "a [31m bx") || len(r.Error) > maxError+3 {
		t.Errorf("%q, %v", r.Error, err)
	}
}

// TestStateFiles looks at what other nodes see.
func TestStateFiles(t *testing.T) {
	dir := t.TempDir()
	s, err := openState(dir, "https://CA.example.test:14000/dir/../x?y")
	if err != nil {
		t.Fatal(err)
	}
	if base := filepath.Base(s.dir); !strings.HasPrefix(base, "ca.example.test_14000-") || filepath.Dir(s.dir) != dir {
		t.Errorf("folder %q", s.dir)
	}
	for _, bad := range []string{"", "directory", "http://", "://"} {
		if _, err := openState(dir, bad); err == nil || !strings.Contains(err.Error(), "no URL") {
			t.Errorf("%q: %v", bad, err)
		}
	}
	file := s.path("names", "x")
	if err := errors.Join(createFile(file, []byte("1")), writeFile(file, []byte("2"))); err != nil {
		t.Error(err)
	}
	if err := createFile(file, []byte("3")); !errors.Is(err, fs.ErrExist) {
		t.Errorf("created twice: %v", err)
	}
	if data, err := readFile(file, 1); err != nil || string(data) != "2" {
		t.Errorf("%q, %v", data, err)
	}
	if _, err := readFile(file, 0); err == nil {
		t.Error("larger than allowed")
	}
	pipe := s.path("names", "pipe") // which nobody writes to: a reader that waits holds up all
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := readFile(pipe, 1); !errors.Is(err, errNoFile) {
		t.Errorf("a pipe: %v", err)
	}
	checkModes(t, dir)
	if left, _ := filepath.Glob(s.path("names", ".new-*")); len(left) > 0 {
		t.Errorf("left over: %q", left)
	}
	away := s.path("away", "x") // told once, whatever the name that it would have had first
	if err := writeFile(away, nil); err == nil || err.Error() != "write "+away+": no such file or directory" {
		t.Error(err)
	}

	now := time.Now()
	path := s.path("leases", "imap.example.org")
	release, err := lease(path, now, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lease(path, now, time.Minute); !errors.Is(err, fs.ErrExist) {
		t.Errorf("leased twice: %v", err)
	}
	again, err := lease(path, now.Add(2*time.Minute), time.Minute)
	if err != nil {
		t.Errorf("a stale one: %v", err)
	}
	release() // too late: it is another's
	if _, err := lease(path, now.Add(2*time.Minute), time.Minute); !errors.Is(err, fs.ErrExist) {
		t.Errorf("somebody else's lease was removed: %v", err)
	}
	again()
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("not released: %v", err)
	}
}

func TestReadStatus(t *testing.T) {
	dir := t.TempDir()
	missing := func(list []Status, err error) {
		t.Helper()
		if err != nil || len(list) != 2 || list[0].Name != "imap.example.org" || list[0].KeyType != ECDSA || list[1].KeyType != RSA ||
			list[0].Trouble(time.Now()) == nil || list[0].File != "" {
			t.Errorf("%+v, %v", list, err)
		}
	}
	missing(ReadStatus(filepath.Join(dir, "none"), []string{"imap.example.org"}, true))
	for _, bad := range []string{"", "../..", "a/b", "."} {
		if err := os.WriteFile(filepath.Join(dir, "current"), []byte(bad+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if list, err := ReadStatus(dir, nil, false); err == nil {
			t.Errorf("%q: %+v", bad, list)
		}
	}
	a, err := NewACME(ACMEConfig{Directory: fakeDirectory, Dir: dir, HTTP01: true})
	if err != nil {
		t.Fatal(err)
	}
	missing(ReadStatus(dir, []string{"IMAP.example.org."}, true))
	p := pair{"imap.example.org", ECDSA}
	if err := a.state.writeRecord(p, record{Failures: 2, Error: "no such host", Next: time.Now()}); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(a.state.cert(p), []byte("rubbish"), 0o600); err != nil {
		t.Fatal(err)
	}
	list, err := ReadStatus(dir, nil, false)
	if err != nil || len(list) != 1 || list[0].Failures != 2 || !strings.HasPrefix(list[0].Error, "imap.example.org.ecdsa.pem cannot be used: tls:") {
		t.Errorf("%+v, %v", list, err)
	}
	if _, err := os.Stat(a.state.cert(p)); err != nil {
		t.Errorf("it was moved: %v", err)
	}
	if _, err := NewACME(ACMEConfig{Directory: fakeDirectory, Dir: dir}); err == nil {
		t.Error("no challenge can be answered")
	}
}

func FuzzNames(f *testing.F) {
	for _, s := range []string{"imap.example.org.ecdsa", "../x.rsa", "http-01+abc", "a\x00b", "."} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, ok := parsePair(s)
		if ok && p.file() != s {
			t.Errorf("%q became %q", s, p.file())
		}
		for _, good := range []bool{ok, validName(s), validToken(s)} {
			if good && (filepath.Base(s) != s || s == "." || s == ".." || len(s)+len("http-01+.json.bad") > 255 || strings.ContainsAny(s, "/\\\x00\n")) {
				t.Errorf("%q would be a path", s)
			}
		}
	})
}

func FuzzRecord(f *testing.F) {
	for _, s := range []string{"{}", `{"tried":"2026-01-02T03:04:05Z","failures":3,"error":"x"}`, `{"next":"9999-12-31T23:59:59Z"}`, "null"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := parseRecord(data)
		if err != nil {
			return
		}
		again, err := json.Marshal(r)
		if err != nil {
			t.Fatalf("%+v: %v", r, err)
		}
		back, err := parseRecord(again)
		if err != nil || back.Error != r.Error || back.Failures != r.Failures || !back.Next.Equal(r.Next) {
			t.Errorf("%+v became %+v, %v", r, back, err)
		}
	})
}

func FuzzCert(f *testing.F) {
	ca, err := NewAuthority("Fuzz")
	if err != nil {
		f.Fatal(err)
	}
	cert, err := ca.Issue(Order{Hosts: []string{"imap.example.org"}})
	if err != nil {
		f.Fatal(err)
	}
	data, err := encodeCert(&cert)
	if err != nil {
		f.Fatal(err)
	}
	if _, err := parseCert(pair{"imap.example.org", ECDSA}, data); err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		p := pair{"imap.example.org", ECDSA}
		cert, err := parseCert(p, data)
		if err == nil && (cert.Leaf == nil || cert.Leaf.VerifyHostname(p.name) != nil) {
			t.Error("a certificate of another name")
		}
	})
}
