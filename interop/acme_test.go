package interop

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// acmeBrands is one brand without localhost, which no authority certifies.
var acmeBrands = fmt.Sprintf(`
  - name: example
    language: de
    help: https://h.example.test/a1
    hosts: { imap: [%s], pop3: [%s], submission: [%s] }
`, usualNames[IMAP], usualNames[POP3], usualNames[Submission])

// acmeSetup is a proxy that has certificates from the authority. It keeps them in the
// directory state; web says at which ports challenges are answered. More keys of `acme` and
// of a brand may be given.
func acmeSetup(ca *CA, state, web, acme, brand string) Setup {
	if acme != "" {
		acme = ", " + acme
	}
	return Setup{
		Hop: Named, CAFile: ca.RootFile, Brands: acmeBrands + brand,
		Certificates: fmt.Sprintf("{ acme: { email: hostmaster@example.test, directory: %q, ca: %q, accept_terms: true%s } }", ca.Directory, ca.CAFile, acme),
		More:         fmt.Sprintf("state: %q\nweb: %s\n", state, web),
	}
}

// webHTTP and webHTTPS are the ports where the authority looks for answers.
func webHTTP(ca *CA) string  { return fmt.Sprintf("{ http: '127.0.0.1:%d' }", ca.HTTP) }
func webHTTPS(ca *CA) string { return fmt.Sprintf("{ https: '127.0.0.1:%d' }", ca.TLS) }

// usualPorts are where the canonical names of each protocol are served.
var usualPorts = []Protocol{IMAP, POP3, Submission}

// hello is a handshake with the proxy under a name, with trust in the roots alone.
func hello(p *Proxy, e Endpoint, roots *x509.CertPool, change func(*tls.Config)) (*x509.Certificate, error) {
	config := &tls.Config{RootCAs: roots, ServerName: e.Host}
	if change != nil {
		change(config)
	}
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: patience}, "tcp4", "127.0.0.1:"+strconv.Itoa(e.Port), config)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0], nil
}

// under is where a protocol's canonical name is served with implicit TLS.
func (p *Proxy) under(protocol Protocol) Endpoint {
	e := p.At(protocol, Implicit)
	e.Host = usualNames[protocol]
	return e
}

// waitIssued waits until each canonical name has its certificates of both kinds, and the
// list says that all is well.
func (p *Proxy) waitIssued(t *testing.T, within time.Duration) {
	t.Helper()
	var said string
	for end := time.Now().Add(within); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		var code int
		if said, code = p.Command(t, "certs", "list", "-c", p.Config); code == 0 {
			return
		}
	}
	t.Fatalf("after %v there are not all certificates:\n%s\n%s", within, said, p.Log.Text())
}

// listed is what `mailreeve certs list --json` says of a name.
func (p *Proxy) listed(t *testing.T, name string) (found []map[string]any) {
	t.Helper()
	said, _ := p.Command(t, "certs", "list", "--json", "-c", p.Config)
	// What is in trouble is said after the list.
	var list []map[string]any
	if err := json.NewDecoder(strings.NewReader(said)).Decode(&list); err != nil {
		t.Fatalf("reading the list: %v:\n%s", err, said)
	}
	for _, entry := range list {
		if entry["name"] == name {
			found = append(found, entry)
		}
	}
	return found
}

// failure is what went wrong with a name when it was last ordered, "" if nothing did.
func (p *Proxy) failure(t *testing.T, name string) string {
	t.Helper()
	for _, entry := range p.listed(t, name) {
		// While an order is under way the state says that, for the case that the program dies.
		if text, _ := entry["error"].(string); text != "" && !strings.Contains(text, "an order is under way") {
			if entry["next"] == nil || entry["tried"] == nil {
				t.Errorf("the list does not say when: %v", entry)
			}
			return text
		}
	}
	return ""
}

// wantBothKinds has openssl shake hands as a program that can do ECDSA and as one that can
// not, at every port.
func (p *Proxy) wantBothKinds(t *testing.T, ca *CA) {
	t.Helper()
	for _, g := range gates {
		e := p.At(g.protocol, g.entry)
		e.Host = usualNames[g.protocol]
		for _, as := range []struct {
			kind x509.PublicKeyAlgorithm
			args []string
		}{
			{x509.ECDSA, nil},
			{x509.ECDSA, []string{"-tls1_2"}},
			{x509.ECDSA, []string{"-tls1_3", "-groups", "X25519"}},
			{x509.RSA, []string{"-tls1_2", "-cipher", "aRSA"}},
			{x509.RSA, []string{"-sigalgs", "rsa_pss_rsae_sha256:rsa_pkcs1_sha256"}},
		} {
			k, shown := OpenSSL(t, e, g.protocol, ca.RootFile, as.args...)
			k.conn.Close()
			if c := shown.Certificate; c.PublicKeyAlgorithm != as.kind || shown.Verify != "0 (ok)" || len(c.DNSNames) != 1 || c.DNSNames[0] != e.Host {
				t.Errorf("openssl %s at %d is shown a %v certificate for %v: %s", strings.Join(as.args, " "), g.port, c.PublicKeyAlgorithm, c.DNSNames, shown.Verify)
			}
		}
	}
}

// At the start, three names get two certificates each, by http-01. After a restart they are
// still there, and nothing is ordered.
func TestACMEFirstIssuanceByHTTP(t *testing.T) {
	t.Parallel()
	rig := StartServers(t)
	ca := rig.StartCA(t, CASettings{})
	state := filepath.Join(t.TempDir(), "state")
	p := rig.Start(t, acmeSetup(ca, state, webHTTP(ca), "", ""))
	p.waitIssued(t, time.Minute)
	p.wantBothKinds(t, ca)
	if n := ca.Orders(); n != 6 {
		t.Errorf("%d orders for three names and two kinds of key", n)
	}

	p.Stop(t)
	p.Run(t)
	for _, protocol := range usualPorts { // at once, without waiting for anything
		if _, err := hello(p, p.under(protocol), ca.Roots, nil); err != nil {
			t.Errorf("after a restart, %s: %v", usualNames[protocol], err)
		}
	}
	p.wantBothKinds(t, ca)
	log := p.Log.Here()
	p.Process.Signal(syscall.SIGHUP)
	log.Wait(t, "the new configuration is in force")
	p.wantBothKinds(t, ca)
	if n := ca.Orders(); n != 6 {
		t.Errorf("after a restart and a reload there were %d orders", n)
	}

	// All of it is for the program's user alone, and of the orders themselves nothing is left.
	must(t, filepath.WalkDir(state, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if dir := filepath.Base(filepath.Dir(path)); dir == "answers" || dir == "leases" || strings.HasPrefix(d.Name(), ".new-") {
			t.Errorf("%s is left over", path)
		}
		info, err := d.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		return err
	}))
}

// The same by tls-alpn-01, with an account bound to one at the authority, which rejects every
// other nonce, and now and then takes a proof that it has had. Neither the key of the binding nor one of the state is in a log.
func TestACMEFirstIssuanceByTLS(t *testing.T) {
	t.Parallel()
	rig := StartServers(t)
	binding := base64.RawURLEncoding.EncodeToString([]byte("32 bytes that bind an account to"))
	ca := rig.StartCA(t, CASettings{Nonces: 50, Reuse: 50, Bindings: map[string]string{"kid-1": binding}})
	key := filepath.Join(t.TempDir(), "eab.key")
	must(t, os.WriteFile(key, []byte(binding+"\n"), 0o600))
	p := rig.Start(t, acmeSetup(ca, filepath.Join(t.TempDir(), "state"), webHTTPS(ca),
		fmt.Sprintf("account: { key_id: kid-1, key_file: %q }", key), ""))
	p.waitIssued(t, 90*time.Second)
	p.wantBothKinds(t, ca)
	if strings.Contains(p.Log.Text(), binding) || strings.Contains(p.Log.Text(), "PRIVATE KEY") {
		t.Error("a key is in the log")
	}
}

// Certificates are renewed while an IMAP session idles; it goes on and hears of new mail.
// When the authority vanishes in the middle of a renewal, the old certificate is served and the
// list says what is wrong, until it is back.
func TestACMERenewal(t *testing.T) {
	t.Parallel()
	const lifetime = 30 * time.Second
	rig := StartServers(t)
	ca := rig.StartCA(t, CASettings{Lifetime: lifetime})
	setup := acmeSetup(ca, filepath.Join(t.TempDir(), "state"), webHTTP(ca), "rsa: false", "")
	p := rig.Start(t, setup)
	serial := func() string {
		t.Helper()
		c, err := hello(p, p.under(IMAP), ca.Roots, nil)
		if err != nil {
			t.Fatalf("the certificate is not good: %v\n%s", err, p.Log.Text())
		}
		return c.SerialNumber.String()
	}
	within := func(d time.Duration, what string, ask func() bool) {
		t.Helper()
		for end := time.Now().Add(d); !ask(); time.Sleep(50 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%s not within %v\n%s", what, d, p.Log.Text())
			}
		}
	}
	p.waitIssued(t, 20*time.Second)

	a := rig.NewAccount(t, "secret")
	k := rig.Dial(t, p.IMAPS.By(Plain))
	k.SecureAs(&tls.Config{RootCAs: ca.Roots, ServerName: usualNames[IMAP]})
	k.Ask("a LOGIN "+a.User+" secret", `^a OK `)
	k.Ask("b SELECT INBOX", `^b OK `)
	k.Ask("c IDLE", `^\+ `)
	first := serial()
	within(lifetime, "a renewal", func() bool { return serial() != first })
	rig.Deliver(t, a, Message(Bert, a, "in spite of a new certificate"))
	k.Expect(`^\* 1 EXISTS`)
	k.Send("DONE")
	k.Expect(`^c OK `)
	k.Ask("d FETCH 1 BODY[HEADER.FIELDS (SUBJECT)]", `^d OK `)

	// The next renewal begins, and the authority is gone.
	within(lifetime, "the renewal of all names", func() bool { return ca.Issued() >= 6 })
	orders, issued := ca.Orders(), ca.Issued()
	within(lifetime, "one more order", func() bool { return ca.Orders() > orders })
	ca.Close()
	second := serial()
	failed := ""
	within(lifetime, "an error in the list", func() bool {
		for _, protocol := range usualPorts {
			failed = cmp.Or(failed, p.failure(t, usualNames[protocol]))
		}
		return failed != ""
	})
	if !strings.Contains(failed, "connection refused") && !strings.Contains(failed, "EOF") && !strings.Contains(failed, "reset") {
		t.Errorf("the list says: %s", failed)
	}
	if got := serial(); got != second && ca.Issued() == issued {
		t.Error("there is another certificate from nowhere")
	}
	ca.Open(t)
	p.waitIssued(t, lifetime)
	within(lifetime, "a renewal", func() bool { return serial() != second })
	k.Ask("e NOOP", `^e OK `)
}

// Two nodes with one state directory. The authority always comes to the second one, also for
// what the first has ordered.
func TestACMENodes(t *testing.T) {
	t.Parallel()
	rig := StartServers(t)
	second := FreePort()
	door := startGate(t, FreePort(), second) // lets the authority wait for the second node
	ca := rig.StartCA(t, CASettings{HTTP: door.port})
	state := filepath.Join(t.TempDir(), "state")
	a := rig.Start(t, acmeSetup(ca, state, fmt.Sprintf("{ http: '127.0.0.1:%d' }", FreePort()), "", ""))
	if !eventually(func() bool { return ca.Orders() > 0 }) {
		t.Fatalf("the first node orders nothing\n%s", a.Log.Text())
	}
	b := rig.Start(t, acmeSetup(ca, state, fmt.Sprintf("{ http: '127.0.0.1:%d' }", second), "", ""))
	a.waitIssued(t, 90*time.Second)
	a.Log.Wait(t, `"certificate issued"`) // and so the second node has answered for it
	if n := ca.Orders(); n != 6 {
		t.Errorf("%d orders by two nodes for three names and two kinds of key", n)
	}
	// What the other one has ordered is found when one's own turn comes, or within a minute.
	shown := map[*Proxy]string{}
	for end := time.Now().Add(90 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		for _, p := range []*Proxy{a, b} {
			shown[p] = ""
			for _, protocol := range usualPorts {
				if c, err := hello(p, p.under(protocol), ca.Roots, nil); err == nil {
					shown[p] += c.SerialNumber.String() + " "
				}
			}
		}
		if len(strings.Fields(shown[a])) == 3 && shown[a] == shown[b] {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("the nodes show other certificates: %s and %s\n%s\n%s", shown[a], shown[b], a.Log.Text(), b.Log.Text())
		}
	}
	a.wantBothKinds(t, ca)
	b.wantBothKinds(t, ca)
}

// The authority does not find the answers of http-01, since another server has that port; one
// name leads elsewhere altogether. This is named, and mended by tls-alpn-01, and by the name.
// Meanwhile nothing else suffers.
func TestACMEFailingAuthorizations(t *testing.T) {
	t.Parallel()
	rig := StartServers(t)
	strange := httptest.NewServer(http.NotFoundHandler())
	defer strange.Close()
	_, port, err := net.SplitHostPort(strange.Listener.Addr().String())
	must(t, err)
	http01, err := strconv.Atoi(port)
	must(t, err)
	ca := rig.StartCA(t, CASettings{HTTP: http01, Nonces: 50})
	ca.Point(t, usualNames[POP3], "127.0.0.66")
	p := rig.Start(t, acmeSetup(ca, filepath.Join(t.TempDir(), "state"),
		fmt.Sprintf("{ http: '127.0.0.1:%d', https: '127.0.0.1:%d' }", FreePort(), ca.TLS), "", ""))
	p.Log.Wait(t, `no certificate yet for some names.*`+usualNames[IMAP])
	failed := map[string]string{}
	for end := time.Now().Add(time.Minute); len(failed) < 3; time.Sleep(100 * time.Millisecond) {
		for _, protocol := range usualPorts {
			if text := p.failure(t, usualNames[protocol]); text != "" {
				failed[usualNames[protocol]] = text
			}
		}
		if time.Now().After(end) {
			t.Fatalf("no failure is listed: %v\n%s", failed, p.Log.Text())
		}
	}
	for _, protocol := range usualPorts {
		want := "404"
		if protocol == POP3 {
			want = "127.0.0.66"
		}
		if text := failed[usualNames[protocol]]; !strings.Contains(text, want) || !strings.Contains(text, "http-01") {
			t.Errorf("the list says of %s: %s", usualNames[protocol], text)
		}
	}
	said, code := p.Command(t, "check", "--probe", "-c", p.Config)
	if code == 0 || !strings.Contains(said, usualNames[IMAP]) {
		t.Errorf("check --probe is content: %d\n%s", code, said)
	}
	if _, err := hello(p, p.under(IMAP), ca.Roots, nil); err == nil || !strings.Contains(err.Error(), "remote error") {
		t.Errorf("without any certificate: %v", err)
	}
	ca.Point(t, usualNames[POP3], "")
	p.waitIssued(t, 2*time.Minute)
	p.wantBothKinds(t, ca)
}

// Old names have certificates of their own where they are listed or a lookup confirms them, and
// no more in an hour than the budget says; all others get the canonical one. Whatever the
// certificate, the words are the same.
func TestACMEOldNames(t *testing.T) {
	t.Parallel()
	rig := StartServers(t)
	ca := rig.StartCA(t, CASettings{Blocked: []string{"imap.verboten.example"}})
	asked := make(chan string, 100)
	lookup := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := r.URL.Query().Get("name")
		asked <- name
		switch name {
		case "imap.ja.example", "imap.verboten.example", "www.zuviel.example":
		case "imap.stoerung.example":
			http.Error(w, "the data base is down", http.StatusInternalServerError)
		default:
			http.NotFound(w, r)
		}
	}))
	defer lookup.Close()
	list := filepath.Join(t.TempDir(), "names.txt")
	must(t, os.WriteFile(list, []byte("# exported\nimap.datei.example\nimap.gleich.example # many programs\n"), 0o600))
	const budget = 6 // what is ordered below, but for the last name
	setup := acmeSetup(ca, filepath.Join(t.TempDir(), "state"), webHTTP(ca),
		fmt.Sprintf("lookup: %q, orders_per_hour: %d", lookup.URL, budget),
		fmt.Sprintf("    legacy: [alt.example, 'imap.*']\n    legacy_file: %q\n    legacy_certificates: own\n", list))
	setup.Certificates = strings.TrimSuffix(setup.Certificates, "}") + ", unknown: own }"
	p := rig.Start(t, setup)
	p.waitIssued(t, time.Minute)
	orders := ca.Orders()

	under := func(name string, change func(*tls.Config)) (string, error) {
		e := p.IMAPS
		e.Host = name
		c, err := hello(p, e, ca.Roots, func(c *tls.Config) {
			c.InsecureSkipVerify = true
			if change != nil {
				change(c)
			}
		})
		if err != nil {
			return "", err
		}
		return fmt.Sprint(c.DNSNames[0], " ", c.PublicKeyAlgorithm), nil
	}
	rsaOnly := func(c *tls.Config) {
		c.MaxVersion, c.CipherSuites = tls.VersionTLS12, []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}
	}
	for _, x := range []struct {
		name   string
		change func(*tls.Config)
		shown  string // "" for the canonical name
		orders int
		asks   bool // the lookup
	}{
		{"alt.example", nil, "alt.example ECDSA", 1, false},
		{"ALT.example", nil, "alt.example ECDSA", 0, false},
		{"alt.example", rsaOnly, "alt.example RSA", 1, false}, // only now that such a program comes
		{"imap.datei.example", nil, "imap.datei.example ECDSA", 1, false},
		{"imap.ja.example", nil, "imap.ja.example ECDSA", 1, true},
		{"imap.ja.example", nil, "imap.ja.example ECDSA", 0, false},
		{"imap.nein.example", nil, "", 0, true},
		{"imap.nein.example", nil, "", 0, false},
		{"imap.stoerung.example", nil, "", 0, true},
		{"imap.verboten.example", nil, "", 0, true}, // the authority does not take the order
		{"imap.verboten.example", nil, "", 0, false},
		{"imap.weg_von.example", nil, "", 0, false}, // nobody certifies it, so nobody is asked
		{"imap.../../etc/x.example", nil, "", 0, false},
		{"imap.*.example", nil, "", 0, false},
		{"www.fremd.example", nil, "", 0, true},
		{"localhost", nil, "", 0, false},
	} {
		had := ca.Orders()
		for len(asked) > 0 {
			<-asked
		}
		shown, err := under(x.name, x.change)
		want := x.shown
		if want == "" {
			want = usualNames[IMAP] + " ECDSA"
		}
		if err != nil || shown != want {
			t.Errorf("under %s: %s and not %s: %v", x.name, shown, want, err)
		}
		if n := ca.Orders() - had; n != x.orders {
			t.Errorf("under %s: %d orders", x.name, n)
		}
		if len(asked) > 1 || (len(asked) == 1) != x.asks {
			t.Errorf("under %s: the lookup was asked %d times", x.name, len(asked))
		}
	}
	if text := p.failure(t, "imap.verboten.example"); !strings.Contains(text, "rejectedIdentifier") {
		t.Errorf("the list says of a name that the authority does not take: %q", text)
	}

	// Many programs come at once under one name: one order, for which all of them wait.
	var wait sync.WaitGroup
	had := ca.Orders()
	for range 20 {
		wait.Go(func() {
			if shown, err := under("imap.gleich.example", nil); err != nil || shown != "imap.gleich.example ECDSA" {
				t.Errorf("of many at once one is shown %s: %v", shown, err)
			}
		})
	}
	wait.Wait()
	if n := ca.Orders() - had; n != 1 {
		t.Errorf("%d orders for many programs under one name", n)
	}

	// The budget is spent, whoever confirms the name.
	if shown, err := under("www.zuviel.example", nil); err != nil || shown != usualNames[IMAP]+" ECDSA" {
		t.Errorf("beyond the budget: %s: %v", shown, err)
	}
	p.Log.Wait(t, `the budget for new certificates is spent`)
	if n := ca.Orders() - orders; n != budget-1 { // one was not taken
		t.Errorf("%d orders for names that are not canonical", n)
	}

	for _, name := range []string{"alt.example", "imap.ja.example", "imap.nein.example", "www.zuviel.example"} {
		k := rig.Dial(t, p.IMAPS.By(Plain))
		k.SecureAs(&tls.Config{InsecureSkipVerify: true, ServerName: name})
		k.Ask("a LOGIN "+Bert.User+" "+Bert.Password,
			`^a NO \[UNAVAILABLE\] Passwort ist NICHT falsch\. Neuer Servername: imap\.example\.test, Port 993, SSL/TLS\. https://h\.example\.test/a1`)
	}
	if said, code := p.Command(t, "certs", "list", "-c", p.Config); code != 0 {
		t.Errorf("a name that is not canonical is trouble:\n%s", said)
	}
}
