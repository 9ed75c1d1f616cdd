package certs_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"mailreeve/certs"
)

// link makes a symbolic link, or ends the test.
func link(t *testing.T, to, name string) {
	t.Helper()
	if err := os.Symlink(to, name); err != nil {
		t.Fatal(err)
	}
}

// directory makes a directory, or ends the test.
func directory(t *testing.T, parts ...string) string {
	t.Helper()
	dir := filepath.Join(parts...)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// pair issues a certificate for one name into two files of any names.
func pair(t *testing.T, ca *certs.Authority, name, cert, key string) {
	t.Helper()
	c, err := ca.Issue(certs.Order{Hosts: []string{name}})
	if err != nil {
		t.Fatal(err)
	}
	p := certs.Pair{Cert: cert, Key: key}
	if err := certs.Write(c, p); err != nil {
		t.Fatal(err)
	}
	later(t, cert, key)
}

// names are those of the certificates in force, sorted.
func names(k *certs.Keeper) []string {
	var list []string
	for _, i := range k.Store().List() {
		list = append(list, i.Names...)
	}
	slices.Sort(list)
	return list
}

func TestFolderForms(t *testing.T) {
	ca, dir := authority(t), t.TempDir()
	at := func(parts ...string) string { return filepath.Join(append([]string{dir}, parts...)...) }
	// NAME.pem with the key inside, and with the key beside it; NAME.crt.
	pair(t, ca, "inside.example.org", at("inside.pem"), "")
	pair(t, ca, "beside.example.org", at("beside.pem"), at("beside.key"))
	pair(t, ca, "crt.example.org", at("crt.crt"), at("crt.key"))
	pair(t, ca, "spaces.example.org", at("a name with spaces.pem"), "")
	// certbot's live: links into archive, and a README.
	archive := directory(t, t.TempDir(), "archive")
	pair(t, ca, "certbot.example.org", filepath.Join(archive, "fullchain3.pem"), filepath.Join(archive, "privkey3.pem"))
	live := directory(t, dir, "certbot.example.org")
	link(t, filepath.Join(archive, "fullchain3.pem"), filepath.Join(live, "fullchain.pem"))
	link(t, filepath.Join(archive, "fullchain3.pem"), filepath.Join(live, "cert.pem"))
	link(t, filepath.Join(archive, "privkey3.pem"), filepath.Join(live, "privkey.pem"))
	put(t, dir, "README", []byte("This directory contains your keys and certificates."))
	put(t, live, "README", []byte("the same"))
	// A secret that is mounted as a folder of its own.
	secret := directory(t, dir, "secret")
	pair(t, ca, "secret.example.org", filepath.Join(secret, "tls.crt"), filepath.Join(secret, "tls.key"))
	put(t, secret, "ca.crt", []byte("not looked at"))
	// What is passed over.
	pair(t, ca, "hidden.example.org", at(".hidden.pem"), "")
	pair(t, ca, "hidden.example.org", filepath.Join(directory(t, dir, ".hidden"), "fullchain.pem"), filepath.Join(dir, ".hidden", "privkey.pem"))
	pair(t, ca, "deep.example.org", filepath.Join(directory(t, dir, "deep", "deeper"), "fullchain.pem"), filepath.Join(dir, "deep", "deeper", "privkey.pem"))
	pair(t, ca, "other.example.org", filepath.Join(dir, "deep", "other.pem"), "")
	put(t, dir, "lone.key", get(t, at("beside.key")))
	put(t, dir, "privkey.pem", get(t, at("beside.key")))
	put(t, dir, "dhparam.pem", []byte("-----BEGIN DH PARAMETERS-----\nMAYCAQcCAQI=\n-----END DH PARAMETERS-----\n"))
	put(t, dir, "notes.txt", []byte("notes"))
	if err := errors.Join(ca.WriteCA(at("ca.pem")), syscall.Mkfifo(at("fifo.pem"), 0o600)); err != nil {
		t.Fatal(err)
	}
	link(t, at("nowhere"), at("dangling.pem"))
	link(t, dir, at("round"))
	// What is told: these were meant to be certificates.
	put(t, dir, "bad.pem", []byte("garbage"))
	put(t, dir, "keyless.crt", get(t, at("crt.crt")))
	put(t, dir, "two\nlines.pem", []byte("garbage"))

	log, lines := newLog(t)
	k := certs.NewKeeper(log)
	set(t, k, certs.Sources{Folder: dir})
	want := []string{"beside.example.org", "certbot.example.org", "crt.example.org", "inside.example.org", "secret.example.org", "spaces.example.org"}
	if got := names(k); !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	lines.expect("bad.pem: it is not in PEM form", "keyless.crt: there is no private key in it; put it into the file, or beside it",
		"two lines.pem: it is not in PEM form", "info certificates are loaded certificates=6")

	good, bad, err := certs.Folder(dir)
	if len(good) != 6 || len(bad) != 3 || err != nil {
		t.Errorf("Folder: %v, %v, %v", good, bad, err)
	}
	if _, _, err := certs.Folder(at("none")); err == nil || !strings.Contains(err.Error(), "the folder cannot be read") {
		t.Error(err)
	}
}

// One certificate of certbot or of Kubernetes may be the folder itself.
func TestFolderOfOne(t *testing.T) {
	ca := authority(t)
	for _, files := range [][2]string{{"fullchain.pem", "privkey.pem"}, {"tls.crt", "tls.key"}} {
		dir := t.TempDir()
		pair(t, ca, "one.example.org", filepath.Join(dir, files[0]), filepath.Join(dir, files[1]))
		put(t, dir, "cert.pem", get(t, filepath.Join(dir, files[0])))
		if files[0] == "tls.crt" {
			if err := os.Rename(filepath.Join(dir, "cert.pem"), filepath.Join(dir, "ca.crt")); err != nil {
				t.Fatal(err)
			}
		}
		log, lines := newLog(t)
		k := certs.NewKeeper(log)
		set(t, k, certs.Sources{Folder: dir})
		if got := names(k); !slices.Equal(got, []string{"one.example.org"}) {
			t.Errorf("got %q", got)
		}
		lines.expect("info certificates are loaded certificates=1")
	}
}

// Renewals by links: Kubernetes swaps ..data, certbot each file's own link; a new
// subdirectory is a new certificate.
func TestFolderLinks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, dir := authority(t), t.TempDir()
		log, lines := newLog(t)
		old, young := directory(t, dir, "..2026_01"), directory(t, dir, "..2026_02")
		pair(t, ca, "old.example.org", filepath.Join(old, "tls.crt"), filepath.Join(old, "tls.key"))
		pair(t, ca, "young.example.org", filepath.Join(young, "tls.crt"), filepath.Join(young, "tls.key"))
		link(t, "..2026_01", filepath.Join(dir, "..data"))
		link(t, "..data/tls.crt", filepath.Join(dir, "tls.crt"))
		link(t, "..data/tls.key", filepath.Join(dir, "tls.key"))
		k := certs.NewKeeper(log)
		set(t, k, certs.Sources{Folder: dir})
		watch(t, k)
		if got := names(k); !slices.Equal(got, []string{"old.example.org"}) {
			t.Fatalf("got %q", got)
		}
		lines.take()
		link(t, "..2026_02", filepath.Join(dir, "..data_tmp"))
		if err := os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")); err != nil {
			t.Fatal(err)
		}
		pass(10 * time.Second)
		if got := names(k); !slices.Equal(got, []string{"young.example.org"}) {
			t.Errorf("got %q", got)
		}
		lines.expect("info a certificate is replaced file=" + filepath.Join(dir, "tls.crt"))

		sub := directory(t, dir, "sub")
		pair(t, ca, "sub.example.org", filepath.Join(sub, "fullchain.pem"), filepath.Join(sub, "privkey.pem"))
		pass(10 * time.Second)
		if got := names(k); !slices.Equal(got, []string{"sub.example.org", "young.example.org"}) {
			t.Errorf("got %q", got)
		}
		lines.expect("info a certificate is new file=" + filepath.Join(sub, "fullchain.pem") + " names=sub.example.org")
	})
}

// A wrong path (a home directory, a mail store) is refused before anything in it is read.
func TestFolderTooLarge(t *testing.T) {
	dir := t.TempDir()
	for i := range 5 {
		put(t, dir, fmt.Sprint(i))
	}
	if files, _, err := certs.ListDir(dir, 5); err != nil || len(files) != 5 {
		t.Errorf("%v, %v", files, err)
	}
	_, _, err := certs.ListDir(dir, 4)
	if err == nil || err.Error() != dir+": there are more than 4 files in it; name a folder that holds the certificates in use and nothing else" {
		t.Error(err)
	}
}

// What a subdirectory holds besides, and one that we may not enter, hold nothing up.
func TestFolderBesides(t *testing.T) {
	ca, dir := authority(t), t.TempDir()
	pair(t, ca, "imap.example.org", filepath.Join(dir, "imap.pem"), "")
	full := directory(t, dir, "full")
	pair(t, ca, "pop.example.org", filepath.Join(full, "fullchain.pem"), filepath.Join(full, "privkey.pem"))
	for i := range 20_001 {
		link(t, "nowhere", filepath.Join(full, fmt.Sprint(i)))
	}
	want := []string{"imap.example.org", "pop.example.org"}
	if os.Geteuid() != 0 { // who may enter everything
		if err := os.Mkdir(filepath.Join(dir, "lost+found"), 0); err != nil {
			t.Fatal(err)
		}
		if _, bad, _ := certs.Folder(dir); len(bad) != 1 || !strings.Contains(bad[0].Error(), "lost+found/fullchain.pem: it cannot be read: permission denied") {
			t.Error(bad)
		}
	}
	k := keep(t)
	set(t, k, certs.Sources{Folder: dir})
	if got := names(k); !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
}
