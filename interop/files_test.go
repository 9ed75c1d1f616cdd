package interop

import (
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Somebody puts certificates that cannot be used in the place of good ones while the proxy
// runs. Clients go on seeing the good ones; log, check and list say what is wrong and what to
// do; and good new ones are seen without a reload.
func TestBadCertificateFiles(t *testing.T) {
	t.Parallel()
	rig := StartServers(t)
	dir := t.TempDir()
	folder := filepath.Join(dir, "folder")
	must(t, os.Mkdir(folder, 0o700))
	bad := []struct {
		what, name string
		inFolder   bool
		change     func(*x509.Certificate) // nil: the test knows better
		says       string                  // in the log, beside the file
	}{
		{"garbage", "garbage.example.test", false, nil, `not in PEM form`},
		{"another key", "key.example.test", false, nil, `the key does not belong to the certificate`},
		{"expired", "expired.example.test", false, func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
		}, `expired`},
		{"not yet valid", "early.example.test", false, func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Hour) }, `not valid before`},
		{"garbage in the folder", "garbage2.example.test", true, nil, `not in PEM form`},
		{"another key in the folder", "key2.example.test", true, nil, `the key does not belong to the certificate`},
		{"expired in the folder", "expired2.example.test", true, func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
		}, `expired`},
	}
	// place puts a new certificate, or what is one no more, where the proxy has the old one.
	pair := func(i int) (cert, key string) {
		base := filepath.Join(dir, bad[i].name)
		if bad[i].inFolder {
			base = filepath.Join(folder, bad[i].name)
		}
		return base + ".pem", base + ".key"
	}
	move := func(from, to string) { t.Helper(); must(t, os.Rename(from, to)) }
	place := func(i int, good bool) {
		t.Helper()
		change := bad[i].change
		if good || change == nil {
			change = func(*x509.Certificate) {}
		}
		newCert, newKey := rig.certificate(t, x509.ECDSA, change, bad[i].name)
		cert, key := pair(i)
		switch {
		case good || bad[i].change != nil:
			move(newCert, cert)
			move(newKey, key)
		case strings.HasPrefix(bad[i].what, "garbage"):
			must(t, os.WriteFile(cert, []byte("-----BEGIN CERTIFICATE-----\nthis is none\n"), 0o600))
		default:
			move(newCert, cert) // and the key stays
		}
	}
	var names, files []string
	for i, b := range bad {
		place(i, true)
		names = append(names, b.name)
		if cert, key := pair(i); !b.inFolder {
			files = append(files, cert, key)
		}
	}
	p := rig.Start(t, Setup{
		Hop: Named, Brands: fmt.Sprintf(`
  - name: example
    help: https://h.example.test/a1
    hosts: { imap: [%s], pop3: [%[2]s], submission: [%[2]s] }
`, strings.Join(names, ", "), names[0]),
		Certificates: strings.TrimSuffix(certificateFiles(files...), "}") + fmt.Sprintf(", folder: %q }", folder),
	})
	serial := func(name string) string {
		t.Helper()
		e := p.IMAPS
		e.Host = name
		k, shown := OpenSSL(t, e, IMAP, rig.CAFile)
		k.conn.Close()
		if shown.Verify != "0 (ok)" {
			t.Errorf("%s: %s", name, shown.Verify)
		}
		return shown.Certificate.SerialNumber.String()
	}
	before := map[string]string{}
	for _, b := range bad {
		before[b.name] = serial(b.name)
	}

	log := p.Log.Here()
	for i := range bad {
		place(i, false)
	}
	for i, b := range bad {
		cert, _ := pair(i)
		said := log.Wait(t, `"level":"error".*`+cert+`.*`)
		if !strings.Contains(said[0], b.says) || !strings.Contains(said[0], "; ") { // cause; cure
			t.Errorf("%s: the log says: %s", b.what, said[0])
		}
	}
	log = p.Log.Here()
	p.Process.Signal(syscall.SIGHUP)
	log.Wait(t, "the old one still is")
	said, code := p.Command(t, "check", "-c", p.Config)
	if code == 0 {
		t.Error("the check is content")
	}
	if _, code := p.Command(t, "certs", "list", "-c", p.Config); code == 0 {
		t.Error("the list is content")
	}
	for i, b := range bad {
		if got := serial(b.name); got != before[b.name] {
			t.Errorf("%s: another certificate is served", b.what)
		}
		cert, _ := pair(i)
		if !strings.Contains(said, cert) {
			t.Errorf("%s: the check does not name it:\n%s", b.what, said)
		}
	}

	log = p.Log.Here()
	for i := range bad {
		place(i, true)
	}
	for i, b := range bad {
		cert, _ := pair(i)
		log.Wait(t, `a certificate is replaced.*`+cert)
		if serial(b.name) == before[b.name] {
			t.Errorf("%s: the new certificate is not served", b.what)
		}
	}
	if said, code := p.Command(t, "certs", "list", "-c", p.Config); code != 0 {
		t.Errorf("the list:\n%s", said)
	}
}
