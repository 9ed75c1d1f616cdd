package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"mailreeve/certs"
	"mailreeve/config"
)

// ordering is a configuration with all that outlives a reload. Nobody answers at its CA.
const ordering = `
version: 1
state: state
brands:
  - name: example
    help: https://help.example.org
    hosts: { imap: [imap.example.org, new.example.org] }
    legacy_file: names.txt
    page: Herzlich willkommen
listeners: [{ name: imaps, address: '127.0.0.1:0', protocol: imap, tls: implicit }]
certificates:
  files: [{ cert: mail.pem, key: mail.key }]
  acme: { directory: 'https://127.0.0.1:1/dir', ca: ca.pem, accept_terms: true }
web: { http: '127.0.0.1:0', https: '127.0.0.1:0' }
metrics: { address: '127.0.0.1:0' }
backends: { imap: { addresses: ['10.0.0.5:143'], tls: off } }
drain: { goodbye: 0s, deadline: 1s }
`

// running is the program within this process.
type running struct {
	*daemonized
	t   *testing.T
	dir string
	log *transcript
}

func newRunning(t *testing.T, text string) *running {
	t.Helper()
	dir, _ := files(t)
	r := &running{t: t, dir: dir, log: newTranscript()}
	r.daemonized = &daemonized{path: filepath.Join(dir, "mailreeve.yaml"), errors: syncing{r.log}}
	r.write("mailreeve.yaml", text)
	if err := r.start(nil); err != nil {
		r.close()
		t.Fatal(err)
	}
	return r
}

// syncing is a transcript as a log wants it.
type syncing struct{ *transcript }

func (syncing) Sync() error { return nil }

func (r *running) write(name, text string) {
	r.t.Helper()
	if err := os.WriteFile(filepath.Join(r.dir, name), []byte(text), 0o600); err != nil {
		r.t.Fatal(err)
	}
}

// now reloads with an edit of the configuration, and says what came of it.
func (r *running) now(old, new string) string {
	r.t.Helper()
	text := strings.Replace(ordering, old, new, 1)
	if text == ordering && old != new {
		r.t.Fatalf("there is no %q", old)
	}
	r.write("mailreeve.yaml", text)
	r.log.forget()
	r.reload()
	return r.log.await(r.t, "the new configuration is (not )?in force")
}

func (r *running) get(address string) string {
	r.t.Helper()
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true, ServerName: "imap.example.org"}}
	defer transport.CloseIdleConnections()
	response, err := (&http.Client{Transport: transport, Timeout: patience}).Get(address)
	if err != nil {
		return err.Error()
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		r.t.Error(err)
	}
	return fmt.Sprint(response.StatusCode, " ", string(text))
}

// What outlives a reload is left alone where nothing changed, and replaced where something did.
func TestKept(t *testing.T) {
	t.Cleanup(func() { goleak.VerifyNone(t, goleak.IgnoreCurrent()) })
	r := newRunning(t, ordering)
	defer r.close()
	r.log.await(t, `no certificate yet for some names.*\["new.example.org"\]`)
	plain, secure, metrics := r.kept.sockets["web.http"], r.kept.sockets["web.https"], r.kept.sockets["metrics"]
	for address, want := range map[string]string{
		"http://" + plain.Addr().String() + "/":                                     "200 ",
		"https://" + secure.Addr().String() + "/":                                   "200 ",
		"http://" + plain.Addr().String() + "/.well-known/acme-challenge/not-there": "404 ",
		"http://" + metrics.Addr().String() + "/metrics":                            "200 ",
	} {
		if got := r.get(address); !strings.HasPrefix(got, want) || want == "200 " && !strings.Contains(got, "Herzlich willkommen") && !strings.Contains(got, "mailreeve_certificate_trouble") {
			t.Errorf("%s: %.200s", address, got)
		}
	}
	if info, err := os.Stat(filepath.Join(r.dir, "state")); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("state: %v, %v", info, err)
	}

	// Nothing changed.
	first := r.kept.issuer
	if line := r.now("", ""); strings.Contains(line, "not in force") || r.kept.issuer != first || r.kept.sockets["web.http"] != plain {
		t.Errorf("%sissuer or socket is another", line)
	}

	// What cannot come into force changes nothing, and leaves nothing open.
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	ports, err := freePorts(1)
	if err != nil {
		t.Fatal(err)
	}
	if line := r.now("'127.0.0.1:0', protocol", "'"+busy.Addr().String()+"', protocol"); !strings.Contains(line, "not in force") {
		t.Error(line)
	}
	own := plain.Addr().(*net.TCPAddr).Port
	if line := r.now("http: '127.0.0.1:0'", fmt.Sprintf("http: ':%d'", own)); !strings.Contains(line, "this program has the port itself, for web.http: restart it") {
		t.Error(line)
	}
	text := strings.NewReplacer("'127.0.0.1:0', protocol", "'"+busy.Addr().String()+"', protocol", "http: '127.0.0.1:0'", fmt.Sprintf("http: '127.0.0.1:%d'", ports[0]),
		"accept_terms: true", "accept_terms: true, rsa: false").Replace(ordering)
	r.write("mailreeve.yaml", text)
	r.reload()
	if line := r.now("metrics: { address: '127.0.0.1:0' }", "metrics: { address: '"+busy.Addr().String()+"' }"); !strings.Contains(line, "listener metrics: cannot listen on "+busy.Addr().String()) {
		t.Error(line)
	}
	if r.kept.issuer != first || r.kept.sockets["web.http"] != plain || r.get("http://" + plain.Addr().String() + "/")[:4] != "200 " {
		t.Error("issuer or socket is another, though the configuration is not in force")
	}
	if l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", ports[0])); err != nil {
		t.Errorf("the new socket is still open: %v", err)
	} else {
		l.Close()
	}
	if _, err := r.kept.keeper.Get(new(tls.ClientHelloInfo), "imap.example.org", certs.Never); err != nil {
		t.Errorf("no certificate: %v", err)
	}

	// Other orders, then another way to prove a name: another client each time, and the former ends.
	for _, edit := range [][2]string{{"accept_terms: true", "accept_terms: true, rsa: false"}, {"http: '127.0.0.1:0', ", ""}} {
		former := r.kept.issuer
		if line := r.now(edit[0], edit[1]); strings.Contains(line, "not in force") || r.kept.issuer == former {
			t.Errorf("%sthe issuer is the same", line)
		}
		select {
		case <-former.done:
		case <-time.After(patience):
			t.Fatal("the former issuer still runs")
		}
	}
	if got := r.get("http://" + plain.Addr().String() + "/"); !strings.Contains(got, "connection refused") {
		t.Errorf("port 80 is still open: %.100s", got)
	}
	if r.kept.sockets["web.https"] != secure {
		t.Error("port 443 is another")
	}

	// Nothing of it is wanted any more.
	last := r.kept.issuer
	r.write("mailreeve.yaml", strings.NewReplacer(", new.example.org", "", "state: state\n", "", "web: {", "# ", "metrics: {", "# ", "  acme: {", "# ").Replace(ordering))
	r.log.forget()
	r.reload()
	r.log.await(t, "session tickets move to the new state directory at the next start")
	if line := r.log.await(t, "the new configuration is (not )?in force"); strings.Contains(line, "not in force") {
		t.Fatal(line)
	}
	<-last.done
	if r.kept.issuer != nil || len(r.kept.sockets) != 0 {
		t.Errorf("left: %v, %v", r.kept.issuer, r.kept.sockets)
	}
	if got := r.get("http://" + metrics.Addr().String() + "/metrics"); !strings.Contains(got, "connection refused") {
		t.Errorf("metrics are still there: %.100s", got)
	}

	// And again, up to the end of the program.
	r.now("", "")
	address := r.kept.sockets["metrics"].Addr().String()
	r.drain(make(chan os.Signal))
	if conn, err := net.Dial("tcp", address); err == nil {
		conn.Close()
		t.Error("a socket is open after the end")
	}
}

// A list of old names is seen by itself, once it is whole; a bad line in it takes no
// other with it, and a list that is gone leaves the old one in force.
func TestListsAreWatched(t *testing.T) {
	t.Cleanup(func() { goleak.VerifyNone(t, goleak.IgnoreCurrent()) })
	r := newRunning(t, ordering)
	defer r.close()
	list := filepath.Join(r.dir, "names.txt")
	fallback := func(name string) int {
		if r.engine.Owner(name) != nil {
			return 1
		}
		return 0
	}
	steps := func(want ...bool) {
		t.Helper()
		for i, w := range want {
			if got := r.lists.changed(r.config); got != w {
				t.Errorf("look %d: changed %v", i+1, got)
			}
		}
	}
	steps(false, false)
	r.write("names.txt", "imap.kunde.example\n")
	steps(false) // the same as before
	r.write("names.txt", "imap.kunde.example\npop.kunde.example\nno name\nimap.example.org\n")
	steps(false, true, false)
	r.log.forget()
	r.rereadLists()
	r.log.await(t, `names.txt:3:1: warning: "no name`)
	r.log.await(t, `names.txt:4:1: warning: "imap.example.org. is a canonical name`)
	r.log.await(t, `the new list of names is in force.*"names": 3`)
	if fallback("pop.kunde.example") != 1 {
		t.Error("the new name is not known")
	}
	steps(false)

	if err := os.Remove(list); err != nil {
		t.Fatal(err)
	}
	steps(false, true, false)
	r.log.forget()
	r.rereadLists()
	r.log.await(t, "the new list of names is not in force; the old one still is.*no such file")
	steps(false)
	r.write("names.txt", "imap.kunde.example\n")
	steps(false, true)
	r.rereadLists()
	r.log.await(t, `the new list of names is in force.*"names": 1`)
	r.drain(make(chan os.Signal))
}

// A new client that has nothing yet leaves in force what the former one had, and asks it
// for no orders.
func TestSuccession(t *testing.T) {
	mine, theirs := new(tls.Certificate), new(tls.Certificate)
	now, former := &fakeACME{err: errors.New("not yet")}, &fakeACME{cert: theirs}
	i := &issuer{acme: now, former: former}
	got, err := i.Certificate(t.Context(), "imap.example.org", certs.ECDSA, certs.Confirmed)
	if got != theirs || err != nil || now.own != certs.Confirmed || former.own != certs.Keep {
		t.Errorf("got %v, %v; asked with %v and %v", got, err, now.own, former.own)
	}
	now.cert, now.err = mine, nil
	if got, err := i.Certificate(t.Context(), "imap.example.org", certs.ECDSA, certs.Keep); got != mine || err != nil {
		t.Errorf("got the former one, %v", err)
	}
	now.cert, now.err, former.cert = nil, errors.New("not yet"), nil
	if got, err := i.Certificate(t.Context(), "imap.example.org", certs.ECDSA, certs.Keep); got != nil || err != now.err {
		t.Errorf("got %v, %v", got, err)
	}
	if (*issuer)(nil).orNil() != nil {
		t.Error("nobody is somebody")
	}
}

// The names of a configuration are ordered when it is in force and not before: a port that is
// taken must not cost an order at the CA.
func TestNamesOfWhatIsNotInForce(t *testing.T) {
	t.Cleanup(func() { goleak.VerifyNone(t, goleak.IgnoreCurrent()) })
	r := newRunning(t, ordering)
	defer r.close()
	known := func() (names []string) {
		for _, s := range r.kept.issuer.Status() {
			names = append(names, s.Name)
		}
		return names
	}
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	taken := strings.NewReplacer("new.example.org", "typo.example.org", "'127.0.0.1:0', protocol", "'"+busy.Addr().String()+"', protocol").Replace(ordering)
	r.write("mailreeve.yaml", taken)
	r.log.forget()
	if r.reload(); !strings.Contains(r.log.await(t, "the new configuration is (not )?in force"), "not in force") {
		t.Fatal("it is in force")
	}
	if got := known(); slices.Contains(got, "typo.example.org") {
		t.Errorf("asked to keep %v", got)
	}
	if line := r.now("new.example.org", "right.example.org"); strings.Contains(line, "not in force") {
		t.Fatal(line)
	}
	if got := known(); !slices.Contains(got, "right.example.org") {
		t.Errorf("asked to keep %v", got)
	}
	r.drain(make(chan os.Signal))
}

// What prevents a start or a reload is told with the warnings: a key in the folder that cannot
// be used is why no certificate is for a name.
func TestWarningsTellTheCause(t *testing.T) {
	t.Cleanup(func() { goleak.VerifyNone(t, goleak.IgnoreCurrent()) })
	r := newRunning(t, ordering)
	defer r.close()
	r.write("certs/mail.pem", "")
	text := strings.NewReplacer(", new.example.org", "", "  files:", "  folder: certs\n# ", "  acme:", "# ", "state: state", "# ", "web:", "# ").Replace(ordering)
	r.write("mailreeve.yaml", text)
	const cause = "warning: certificates.folder: .*certs/mail.pem: it is empty"
	err := (&daemonized{path: r.path, errors: syncing{newTranscript()}}).run(make(chan os.Signal), nil)
	if err == nil || !regexp.MustCompile(cause).MatchString(err.Error()) || !strings.Contains(err.Error(), "no certificate is for imap.example.org") {
		t.Errorf("got %v", err)
	}
	r.log.forget()
	r.reload()
	r.log.await(t, "warn\t.*"+cause)
	r.log.await(t, `the new configuration is not in force.*"problems": 1}`)
	r.drain(make(chan os.Signal))
}

// fakeACME has one certificate, or an error.
type fakeACME struct {
	acme
	cert *tls.Certificate
	err  error
	own  certs.Own
}

func (f *fakeACME) Certificate(_ context.Context, _ string, _ certs.KeyType, own certs.Own) (*tls.Certificate, error) {
	f.own = own
	return f.cert, f.err
}

// A state that cannot be made is answered with what to type, before anything is open.
func TestStateThatCannotBe(t *testing.T) {
	dir, _ := files(t)
	path := filepath.Join(dir, "mailreeve.yaml")
	d := &daemonized{path: path, errors: syncing{newTranscript()}}
	if err := os.WriteFile(path, []byte(strings.Replace(ordering, "state: state", "state: mail.pem/state", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := d.run(make(chan os.Signal), nil); err == nil || !strings.Contains(err.Error(), "state: ") {
		t.Errorf("got %v", err)
	}
	c := new(config.Config)
	c.State = filepath.Join(dir, "mail.pem", "state")
	var h *hinted
	if err := makeState(c); !errors.Is(err, syscall.ENOTDIR) || !errors.As(err, &h) || !strings.HasPrefix(h.hint, "state says where") {
		t.Errorf("got %v", err)
	}
}

// A list of aliases is watched like one of old names; a bad line takes no other with it.
func TestAliasesAreWatched(t *testing.T) {
	dir, _ := files(t)
	aliases := filepath.Join(dir, "aliases.txt")
	conf, s := settingsOf(t, dir, everyKey)
	l := lists{inForce: look(conf), last: look(conf)}
	if l.changed(conf) {
		t.Error("it has changed by itself")
	}
	if err := os.WriteFile(aliases, []byte("info anna\nno alias at all\n4711 bert\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if l.changed(conf) || !l.changed(conf) {
		t.Error("a change is not seen when it is the same twice")
	}
	after, err := settings(conf, nil)
	if err != nil {
		t.Fatal(err)
	}
	if was, is := resolvedName(s.Brands[0], "4711"), resolvedName(after.Brands[0], "4711"); was != "4711@example.org 4711" || is != "bert@example.org bert" {
		t.Errorf("4711 was %s and is %s", was, is)
	}
	for _, p := range forgiven(conf, conf.Check(time.Time{})) {
		if p.File == aliases && (p.Severity != config.Warning || p.Line != 2) {
			t.Errorf("told of the list: %v", p)
		}
	}
}
