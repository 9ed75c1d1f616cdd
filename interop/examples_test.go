package interop

import (
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// example is a proxy with the configuration of deploy/examples/NAME, which the check is
// content with. Ports and files are the test's own, and so is what it changes further: each of
// these texts must be there once.
func (rig *Rig) example(t *testing.T, name, caFile string, changes ...string) *Proxy {
	t.Helper()
	dir := filepath.Join("..", "deploy", "examples", name)
	text, err := os.ReadFile(filepath.Join(dir, "mailreeve.yaml"))
	must(t, err)
	p := rig.Prepare(t, Setup{CAFile: caFile, File: "to be written"})
	at := func(port int) string { return fmt.Sprintf("'127.0.0.1:%d'", port) }
	changes = append(changes,
		"/var/lib/mailreeve", filepath.Join(t.TempDir(), "state"), "/var/log/mailreeve/events.jsonl", p.Events.path,
		"':993'", at(p.IMAPS.Port), "':995'", at(p.POP3S.Port), "':465'", at(p.Submissions.Port))
	for usual, port := range map[string]int{"':143'": p.IMAP.Port, "':110'": p.POP3.Port, "':587'": p.Submission.Port, "':25'": p.Port25.Port} {
		if strings.Contains(string(text), usual) {
			changes = append(changes, usual, at(port))
		}
	}
	file := string(text) + "\ndrain: { goodbye: 0s, deadline: 3s }\nlog: { level: debug, format: json }\n"
	for i := 0; i < len(changes); i += 2 {
		if strings.Count(file, changes[i]) != 1 {
			t.Fatalf("%s/mailreeve.yaml does not have %q once", dir, changes[i])
		}
		file = strings.Replace(file, changes[i], changes[i+1], 1)
	}
	servers := map[string]Endpoint{"143": rig.IMAP, "110": rig.POP3, "587": rig.SubmissionStartTLS}
	backend := regexp.MustCompile(`addresses: \['10\.0\.0\.[56]:(\d+)'\], tls: starttls, name: [a-z0-9]+\.example\.org,`)
	file = backend.ReplaceAllStringFunc(file, func(line string) string {
		e := servers[backend.FindStringSubmatch(line)[1]]
		return fmt.Sprintf("addresses: ['%s'], tls: starttls, ca: %q,", e.Addr(), rig.CAFile)
	})
	must(t, os.WriteFile(p.Config, []byte(file), 0o600))
	rules, err := os.ReadFile(filepath.Join(dir, "policy.yaml"))
	must(t, err)
	must(t, os.WriteFile(filepath.Join(filepath.Dir(p.Config), "policy.yaml"), []byte(p.portsIn(string(rules))), 0o600))
	lists, err := filepath.Glob(filepath.Join(dir, "*.txt"))
	must(t, err)
	for _, list := range lists {
		names, err := os.ReadFile(list)
		must(t, err)
		must(t, os.WriteFile(filepath.Join(filepath.Dir(p.Config), filepath.Base(list)), names, 0o600))
	}
	if said, code := p.Command(t, "check", "-c", p.Config); code != 0 {
		t.Fatalf("the check of %s:\n%s", name, said)
	}
	return p
}

// portsIn puts the ports that the test listens at in the place of a policy's.
func (p *Proxy) portsIn(rules string) string {
	ports := map[string]int{"993": p.IMAPS.Port, "995": p.POP3S.Port, "465": p.Submissions.Port,
		"143": p.IMAP.Port, "110": p.POP3.Port, "587": p.Submission.Port, "25": p.Port25.Port}
	return regexp.MustCompile(`(\bport: (\{ not_in: )?|\bours: \[)[0-9, ]+`).ReplaceAllStringFunc(rules, func(list string) string {
		return regexp.MustCompile(`\d+`).ReplaceAllStringFunc(list, func(port string) string { return fmt.Sprint(ports[port]) })
	})
}

// issueInto puts certificates into a folder as certbot lays them out.
func (rig *Rig) issueInto(t *testing.T, folder string, names ...string) {
	t.Helper()
	for _, name := range names {
		cert, key := rig.Certificate(t, name)
		must(t, os.MkdirAll(filepath.Join(folder, name), 0o700))
		must(t, os.Rename(key, filepath.Join(folder, name, "privkey.pem")))
		must(t, os.Rename(cert, filepath.Join(folder, name, "fullchain.pem")))
	}
}

// story is one customer with a mail program that is set to a server.
type story struct {
	t   *testing.T
	rig *Rig
	p   *Proxy
}

// tell lets the customer use curl. Where words are wanted they are what curl hears, and it
// does not get in; otherwise it does. With the argument --insecure it is a customer who
// clicks warnings away.
func (s story) tell(protocol Protocol, entry Entry, at Endpoint, host, words string, args ...string) string {
	s.t.Helper()
	a := s.rig.NewAccount(s.t, "secret")
	at.Host, at.Entry = host, entry
	out, err := Login{Endpoint: at, Account: a, CAFile: s.p.CAFile}.Do(s.t, curlOnce(protocol, args...))
	switch {
	case words == "" && err != nil:
		s.t.Errorf("%s under %s: %v\n%s", protocol, host, err, out)
	case words == "" && protocol == Submission:
		s.rig.WaitMail(s.t, a, "by name, once more")
	case words != "" && (err == nil || !regexp.MustCompile(words).MatchString(out)):
		s.t.Errorf("%s under %s does not hear %q: %v\n%s", protocol, host, words, err, out)
	}
	return a.User
}

// event is the one that the customer left behind.
func (p *Proxy) event(t *testing.T, from Log, host, sni string) Event {
	t.Helper()
	return p.WaitEvent(t, from, host+" "+sni, func(e Event) bool { return e.Host == host && e.SNI == sni })
}

// mismatch is what curl says when a certificate is for another name.
const mismatch = "SSL: no alternative certificate subject name matches"

// A provider's customers move from names of their own domains to three names (One.com, 2019).
func TestExampleCanonicalHosts(t *testing.T) {
	t.Parallel()
	rig := StartServers(t)
	Require(t, "curl")
	ca := rig.StartCA(t, CASettings{})
	p := rig.example(t, "canonical-hosts", ca.RootFile,
		"http: ':80'", fmt.Sprintf("http: '127.0.0.1:%d'", ca.HTTP),
		"https: ':443'", fmt.Sprintf("https: '127.0.0.1:%d'", ca.TLS),
		"email: hostmaster@example.org", fmt.Sprintf("email: hostmaster@example.org\n    directory: %q\n    ca: %q", ca.Directory, ca.CAFile))
	p.RunAt(t, "2018-10-31T12:00:00+01:00")
	p.waitIssued(t, time.Minute)
	if n := ca.Orders(); n != 6 {
		t.Errorf("%d orders for the three names", n)
	}
	s := story{t: t, rig: rig, p: p}

	// For seven months the old names work, and whoever has one is told of it in the end.
	anna := rig.NewAccount(t, "secret")
	old := []try{
		{program: "curl IMAP", at: p.IMAPS, host: "imap.kunde.example", account: anna},
		{program: "curl POP3", at: p.POP3S, host: "pop.kunde.example"},
		{program: "curl SMTP", at: p.Submission.By(StartTLS), host: "smtp.kunde.example"},
	}
	s.each("pass", "", old...)
	p.RunAt(t, "2018-11-01T00:00:00+01:00")
	s.each("observe", "canonical-host", old...)
	p.RunAt(t, "2019-01-15T00:00:00+01:00")
	s.each("notify", "canonical-host", old...)
	p.RunAt(t, "2019-04-15T00:00:00+02:00")
	s.warnedOnce(old[0], "canonical-host", `Alter Servername, gilt nur bis 01\.06\. Bitte einstellen: imap\.example\.org, Port 993, SSL/TLS\.`)
	s.each("warn", "canonical-host", old[1:]...)

	p.RunAt(t, "2019-06-01T00:00:00+02:00")
	const (
		help   = `https://hilfe\.example\.org/servernamen \([0-9A-Z]{12}\)`
		imap   = `NO \[UNAVAILABLE\] Passwort ist NICHT falsch\. Neuer Servername: imap\.example\.org, Port 993, SSL/TLS\. ` + help
		pop3   = `-ERR \[SYS/PERM\] Passwort ist NICHT falsch\. Neuer Servername: pop\.example\.org, Port 995, SSL/TLS\. ` + help
		smtp   = `550 5\.7\.1 Passwort ist NICHT falsch\. Neuer Servername: send\.example\.org, Port 465, SSL/TLS\. ` + help
		unused = `imap.anderer.example` // fits a pattern, and nobody knows it
	)

	// The new names, at all that customers are told of. SSL/TLS on 587 is a frequent slip.
	s.tell(IMAP, Implicit, p.IMAPS, "imap.example.org", "")
	s.tell(POP3, Implicit, p.POP3S, "pop.example.org", "")
	s.tell(Submission, Implicit, p.Submissions, "send.example.org", "")
	s.tell(Submission, StartTLS, p.Submission, "send.example.org", "")
	s.tell(Submission, Implicit, p.Submission, "send.example.org", "")
	// So is STARTTLS, or nothing at all, on 465.
	s.tell(Submission, StartTLS, p.Submissions, "send.example.org", `554 5\.7\.0 Port 465 braucht SSL/TLS`)

	// A listed old name has a certificate of its own, so the program shows the words at once.
	// Its name in the event says who must still be told.
	for _, x := range []struct {
		protocol Protocol
		at       Endpoint
		host     string
		words    string
	}{{IMAP, p.IMAPS, "imap.kunde.example", imap}, {POP3, p.POP3S, "pop.kunde.example", pop3}, {Submission, p.Submissions, "smtp.kunde.example", smtp}} {
		from := p.Events.Here()
		user := s.tell(x.protocol, Implicit, x.at, x.host, x.words)
		if e := p.event(t, from, "legacy", x.host); e.Action != "deny" || fmt.Sprint(e.By) != "[canonical-host]" || x.protocol != POP3 && (!e.Verified || e.Account != user) {
			t.Errorf("event %+v", e)
		}
	}
	if n := ca.Orders(); n != 9 {
		t.Errorf("%d orders, with three old names", n)
	}
	k := rig.Dial(t, p.IMAPS.By(Plain))
	k.SecureAs(&tls.Config{RootCAs: ca.Roots, ServerName: "imap.kunde.example"})
	k.Ask("a LOGIN "+rig.NewAccount(t, "right").User+" wrong", `^a NO \[AUTHENTICATIONFAILED\] `)

	// When too many call, all are let in again for a while.
	s.hold("notify")
	s.each("notify", "canonical-host", old...)
	s.lift()

	// An old name that nobody has listed gets the certificate of the new one: the program warns.
	// Whoever clicks that away reads the words.
	s.tell(IMAP, Implicit, p.IMAPS, unused, mismatch)
	s.tell(IMAP, Implicit, p.IMAPS, unused, imap, "--insecure")
	s.tell(POP3, Implicit, p.POP3S, "pop.anderer.example", pop3, "--insecure")
	s.tell(Submission, StartTLS, p.Submission, "mail.anderer.example", smtp, "--insecure")
	s.tell(IMAP, Implicit, p.IMAPS, "pop.example.org", `NO \[UNAVAILABLE\] Passwort ist NICHT falsch\. Servername gilt fuer POP3\. IMAP: imap\.example\.org, Port 993`)
	if n := ca.Orders(); n != 9 {
		t.Errorf("%d orders: a stranger's name was ordered", n)
	}

	// A browser gets the page, under any name.
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d/", ca.HTTP), nil)
	must(t, err)
	request.Host = "imap.kunde.example"
	response, err := http.DefaultClient.Do(request)
	must(t, err)
	defer response.Body.Close()
	page, err := io.ReadAll(response.Body)
	must(t, err)
	for _, text := range []string{"imap.example.org", "pop.example.org", "send.example.org", "993", "995", "465", "haben neue Namen", "https://hilfe.example.org/servernamen"} {
		if !strings.Contains(string(page), text) {
			t.Errorf("the page does not say %q:\n%s", text, page)
		}
	}

	// The provider decides to have certificates for the new names only.
	file, err := os.ReadFile(p.Config)
	must(t, err)
	must(t, os.WriteFile(p.Config, []byte(strings.Replace(string(file), "legacy_certificates: own", "legacy_certificates: canonical", 1)), 0o600))
	log := p.Log.Here()
	p.Process.Signal(syscall.SIGHUP)
	log.Wait(t, "the new configuration is in force")
	s.tell(IMAP, Implicit, p.IMAPS, "imap.kunde.example", mismatch)
	s.tell(IMAP, Implicit, p.IMAPS, "imap.kunde.example", imap, "--insecure")
	e := p.IMAPS
	e.Host = "imap.kunde.example"
	if c, err := hello(p, e, ca.Roots, func(c *tls.Config) { c.InsecureSkipVerify = true }); err != nil || c.DNSNames[0] != "imap.example.org" {
		t.Errorf("the certificate under an old name is %v: %v", c, err)
	}
}

// One name for receiving by IMAP and POP3, and one for sending (domainFactory).
func TestExampleOneName(t *testing.T) {
	t.Parallel()
	rig := StartServers(t)
	Require(t, "curl")
	folder := t.TempDir()
	issue := func(names ...string) { rig.issueInto(t, folder, names...) }
	issue("sslin.example.org", "sslout.example.org")
	web := FreePort()
	p := rig.example(t, "one-name", rig.CAFile, "/etc/mailreeve/certs", folder,
		"http: ':80'", fmt.Sprintf("http: '127.0.0.1:%d'", web), "https: ':443'", fmt.Sprintf("https: '127.0.0.1:%d'", FreePort()))
	s := story{t: t, rig: rig, p: p}

	// At first a name of the other service works, is counted, told and shown. Then it ends
	// for a tenth of the accounts.
	first, other := s.drawn("one-name", 0, 10), s.drawn("one-name", 50, 100)
	swapped := []try{
		{program: "curl IMAP", at: p.IMAPS, host: "sslout.example.org", account: first},
		{program: "curl POP3", at: p.POP3S, host: "sslout.example.org", account: other},
		{program: "curl SMTP", at: p.Submissions, host: "sslin.example.org", account: other},
	}
	p.RunAt(t, "2026-08-31T12:00:00+02:00")
	s.each("pass", "", swapped...)
	p.RunAt(t, "2026-09-01T00:00:00+02:00")
	s.each("observe", "one-name", swapped...)
	p.RunAt(t, "2026-10-01T00:00:00+02:00")
	s.each("notify", "one-name", swapped...)
	p.RunAt(t, "2026-12-01T00:00:00+01:00")
	s.warnedOnce(swapped[0], "one-name", `Servername gilt fuer SMTP\. Bitte bis 12\.01\.2027 fuer IMAP: sslin\.example\.org, Port 993, SSL/TLS\.`)
	s.each("warn", "one-name", swapped[1:]...)
	p.RunAt(t, "2027-01-12T00:00:00+01:00")
	s.each("warn", "one-name", swapped[1:]...)
	swapped[0].hears = `NO \[UNAVAILABLE\] Passwort ist NICHT falsch\. Servername gilt fuer SMTP\. IMAP: sslin\.example\.org`
	s.each("deny", "one-name", swapped[0])
	s.hold("warn")
	swapped[0].hears = ""
	s.each("warn", "one-name", swapped...)
	s.lift()

	p.RunAt(t, "2027-02-09T00:00:00+01:00")
	const (
		help = `https://hilfe\.example\.org/mail \([0-9A-Z]{12}\)`
		not  = `Passwort ist NICHT falsch\. `
	)

	// All as told. One name is canonical for two protocols.
	from := p.Events.Here()
	s.tell(IMAP, Implicit, p.IMAPS, "sslin.example.org", "")
	s.tell(POP3, Implicit, p.POP3S, "sslin.example.org", "")
	s.tell(Submission, Implicit, p.Submissions, "sslout.example.org", "")
	for _, protocol := range usualPorts {
		p.WaitEvent(t, from, string(protocol), func(e Event) bool {
			return e.Protocol == string(protocol) && e.Host == "canonical" && e.Action == "pass" && e.Verified
		})
	}

	// Receiving under the name for sending, and the other way round: there is no certificate
	// error, and the words name the right server.
	from = p.Events.Here()
	s.tell(POP3, Implicit, p.POP3S, "sslout.example.org", `-ERR \[SYS/PERM\] `+not+`Servername gilt fuer SMTP\. POP3: sslin\.example\.org, Port 995, SSL/TLS\. `+help)
	s.tell(IMAP, Implicit, p.IMAPS, "sslout.example.org", `NO \[UNAVAILABLE\] `+not+`Servername gilt fuer SMTP\. IMAP: sslin\.example\.org, Port 993, SSL/TLS\. `+help)
	p.event(t, from, "other_service", "sslout.example.org")
	s.tell(Submission, Implicit, p.Submissions, "sslin.example.org", `550 5\.7\.1 `+not+`Servername gilt fuer IMAP/POP3\. SMTP: sslout\.example\.org, Port 465, SSL/TLS\. `+help)
	p.event(t, from, "other_service", "sslin.example.org")

	// An old name: first with a warning, and without it once its certificate is in the folder.
	old := `-ERR \[SYS/PERM\] ` + not + `Neuer Servername: sslin\.example\.org, Port 995, SSL/TLS\. ` + help
	s.tell(POP3, Implicit, p.POP3S, "pop3.example.org", mismatch)
	s.tell(POP3, Implicit, p.POP3S, "pop3.example.org", old, "--insecure")
	issue("pop3.example.org")
	p.Log.Wait(t, `a certificate is new.*pop3\.example\.org`)
	s.tell(POP3, Implicit, p.POP3S, "pop3.example.org", old)

	// A name that is none of ours gets the alert, an address or no name the usual certificate.
	from = p.Events.Here()
	s.tell(IMAP, Implicit, p.IMAPS, "www.fremd.example", `(?i)unrecognized name`, "--insecure")
	if e := p.event(t, from, "unknown", "www.fremd.example"); e.Reason != "name_refused" {
		t.Errorf("event %+v", e)
	}
	s.tell(IMAP, Implicit, p.IMAPS, "127.0.0.1", "", "--insecure")
	s.tell(POP3, Implicit, p.POP3S, "127.0.0.1", "", "--insecure")

	response, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/", web))
	must(t, err)
	defer response.Body.Close()
	page, err := io.ReadAll(response.Body)
	must(t, err)
	if strings.Count(string(page), "sslin.example.org") < 2 || !strings.Contains(string(page), "sslout.example.org") {
		t.Errorf("the page does not name the servers:\n%s", page)
	}
	if said, code := p.Command(t, "certs", "list", "-c", p.Config); code != 0 || !strings.Contains(said, "sslout.example.org") {
		t.Errorf("certs list: %d\n%s", code, said)
	}
}
