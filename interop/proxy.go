package interop

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Proxy is Mailreeve, running in front of a rig's servers. It offers TLS of both kinds, and
// entry in clear, which its built-in policy refuses.
type Proxy struct {
	IMAP, POP3, Submission    Endpoint // STARTTLS
	IMAPS, POP3S, Submissions Endpoint
	Port25                    Endpoint // submission as well, with STARTTLS, where a configuration has it
	Log                       Log      // the operators'
	Events                    Log      // one line of JSON a session
	CAFile                    string   // whoever trusts it trusts the proxy's certificate
	Config                    string   // its configuration file
	Now                       string   // where the policy's clock begins, in a rehearsal
	Process                   *os.Process

	rig  *Rig
	done chan error
}

// Hop says how the proxy reaches the servers and how it tells them of the client.
type Hop struct {
	Entry   Entry
	Forward map[Protocol]string // "id", "xclient" or "proxy"; "" for none
}

// Named is the way to use the rig's servers: encrypted, with the client's address forwarded
// in each protocol's own way.
var Named = Hop{StartTLS, map[Protocol]string{IMAP: "id", POP3: "xclient", Submission: "xclient"}}

// mailreeve builds the program, with the race detector, once per test binary.
var mailreeve = sync.OnceValues(func() (string, error) {
	path := filepath.Join(shared.rig.Dir, "mailreeve")
	out, err := exec.Command("go", "build", "-race", "-o", path, "mailreeve/cmd/mailreeve").CombinedOutput()
	if err != nil {
		err = fmt.Errorf("building mailreeve: %w\n%s", err, out)
	}
	return path, err
})

// Setup is how a proxy is to be, where that is not the usual way. Texts are YAML.
type Setup struct {
	Hop          Hop
	Brands       string // the list; ""  for one brand whose names are usualNames
	Certificates string // what the certificates are; "" for one that the rig's authority gives for usualNames
	More         string // further keys of the file
	File         string // a whole configuration file, in place of all others
	CAFile       string // the authority behind the certificates; "" for the rig's
}

// usualNames are the canonical names of a proxy, after localhost.
var usualNames = map[Protocol]string{IMAP: "imap.example.test", POP3: "pop.example.test", Submission: "smtp.example.test"}

// StartProxy starts Mailreeve. It ends with the test, and fails it if it does not end well.
func (rig *Rig) StartProxy(t testing.TB, hop Hop) *Proxy {
	t.Helper()
	return rig.Start(t, Setup{Hop: hop})
}

// Start starts Mailreeve as it is set up. It ends with the test, and fails it if it does not
// end well.
func (rig *Rig) Start(t testing.TB, setup Setup) *Proxy {
	t.Helper()
	p := rig.Prepare(t, setup)
	p.Run(t)
	return p
}

// Prepare lays out everything for a proxy that [Proxy.Run] is to start.
func (rig *Rig) Prepare(t testing.TB, setup Setup) *Proxy {
	t.Helper()
	dir := t.TempDir()
	p := &Proxy{
		rig: rig, CAFile: cmp.Or(setup.CAFile, rig.CAFile), Config: filepath.Join(dir, "mailreeve.yaml"),
		Log: Log{path: filepath.Join(dir, "log")}, Events: Log{path: filepath.Join(dir, "events.jsonl")},
	}
	for _, e := range []*Endpoint{&p.IMAP, &p.POP3, &p.Submission, &p.Port25} {
		*e = Endpoint{"localhost", FreePort(), StartTLS}
	}
	for _, e := range []*Endpoint{&p.IMAPS, &p.POP3S, &p.Submissions} {
		*e = Endpoint{"localhost", FreePort(), Implicit}
	}
	if setup.File == "" {
		setup.File = p.configuration(t, setup)
	}
	must(t, os.WriteFile(p.Config, []byte(setup.File), 0o600))
	return p
}

// Run starts the program. A log that is there already goes on.
func (p *Proxy) Run(t testing.TB) {
	t.Helper()
	program, err := mailreeve()
	must(t, err)
	log, err := os.OpenFile(p.Log.path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	must(t, err)
	defer log.Close()
	here := p.Log.Here()
	cmd := exec.Command(program, "run", "-c", p.Config, "--now", p.Now)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(os.Environ(), "GORACE=halt_on_error=1 atexit_sleep_ms=10")
	must(t, cmd.Start())
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	p.Process, p.done = cmd.Process, done
	t.Cleanup(func() { p.Stop(t) })
	here.Wait(t, "policy in force")
}

// RunAt starts the program with a policy that lives at another date. If it runs it is
// started anew.
func (p *Proxy) RunAt(t testing.TB, now string) {
	t.Helper()
	p.Stop(t)
	p.Now, p.Log = now, p.Log.Here()
	p.Run(t)
}

// Stop ends the program, if it runs, and fails the test if it does not end well.
func (p *Proxy) Stop(t testing.TB) {
	t.Helper()
	if p.done == nil {
		return
	}
	p.Process.Signal(syscall.SIGTERM)
	select {
	case err := <-p.done:
		if err != nil {
			t.Errorf("mailreeve: %v\n%s", err, p.Log.Text())
		}
	case <-time.After(patience):
		p.Process.Kill()
		t.Errorf("mailreeve does not end\n%s", p.Log.Text())
	}
	p.done = nil
}

// Command runs the program with another command, and returns what it says and its exit code.
func (p *Proxy) Command(t testing.TB, args ...string) (string, int) {
	t.Helper()
	program, err := mailreeve()
	must(t, err)
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Dir = filepath.Dir(p.Config)
	out, err := cmd.CombinedOutput()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatalf("mailreeve %s: %v", strings.Join(args, " "), err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// configuration is the file for these endpoints and this setup.
func (p *Proxy) configuration(t testing.TB, setup Setup) string {
	t.Helper()
	if setup.Brands == "" {
		setup.Brands = fmt.Sprintf(`
  - name: example
    language: de
    help: https://h.example.test/a1
    hosts:
      imap: [%s, localhost]
      pop3: [%s, localhost]
      submission: [%s, localhost]
    legacy: ['*.kunde.example']
`, usualNames[IMAP], usualNames[POP3], usualNames[Submission])
	}
	if setup.Certificates == "" {
		cert, key := p.rig.Certificate(t, "localhost", usualNames[IMAP], usualNames[POP3], usualNames[Submission])
		setup.Certificates = certificateFiles(cert, key)
	}
	var b strings.Builder
	fmt.Fprintf(&b, `version: 1
hostname: proxy.example.test
brands: %s
certificates: %s
events: { file: %q, keep: 1d }
limits: { connections: 2000, per_address: 1000 }
drain: { goodbye: 0s, deadline: 3s }
log: { level: debug, format: json }
%s
listeners:
`, setup.Brands, setup.Certificates, p.Events.path, setup.More)
	for name, e := range map[string]Endpoint{"imap": p.IMAP, "pop3": p.POP3, "submission": p.Submission} {
		fmt.Fprintf(&b, "  - { address: '127.0.0.1:%d', protocol: %s, tls: starttls }\n", e.Port, name)
	}
	for name, e := range map[string]Endpoint{"imap": p.IMAPS, "pop3": p.POP3S, "submission": p.Submissions} {
		fmt.Fprintf(&b, "  - { address: '127.0.0.1:%d', protocol: %s, tls: implicit }\n", e.Port, name)
	}
	b.WriteString(p.backends(setup.Hop))
	return b.String()
}

// certificateFiles names certificates and keys in the configuration, in turns.
func certificateFiles(certsAndKeys ...string) string {
	var b strings.Builder
	for i := 0; i < len(certsAndKeys); i += 2 {
		fmt.Fprintf(&b, "{ cert: %q, key: %q }, ", certsAndKeys[i], certsAndKeys[i+1])
	}
	return "{ files: [ " + b.String() + "] }"
}

// backends are the rig's servers in the configuration.
func (p *Proxy) backends(hop Hop) string {
	var b strings.Builder
	b.WriteString("backends:\n")
	for _, protocol := range []Protocol{IMAP, POP3, Submission} {
		tls := map[Entry]string{Plain: "off", StartTLS: "starttls", Implicit: "implicit"}[hop.Entry]
		ca := fmt.Sprintf(", ca: %q", p.rig.CAFile)
		if hop.Entry == Plain {
			ca = ""
		}
		forward := hop.Forward[protocol]
		e := p.rig.backend(protocol, hop.Entry, forward == "proxy")
		if protocol == Submission && forward == "" {
			e = p.rig.SubmissionNoXCLIENT
		}
		fmt.Fprintf(&b, "  %s: { addresses: ['%s'], tls: %s%s, forward: [%s] }\n", protocol, e.Addr(), tls, ca, forward)
	}
	return b.String()
}

// backend is the server's own endpoint for a hop.
func (rig *Rig) backend(protocol Protocol, entry Entry, haproxy bool) Endpoint {
	switch {
	case protocol == IMAP && haproxy && entry == Implicit:
		return rig.IMAPSHaproxy
	case protocol == IMAP && haproxy:
		return rig.IMAPHaproxy
	case protocol == POP3 && haproxy && entry == Implicit:
		return rig.POP3SHaproxy
	case protocol == POP3 && haproxy:
		return rig.POP3Haproxy
	case protocol == Submission && haproxy && entry == Implicit:
		return rig.SubmissionsHaproxy
	case protocol == Submission && haproxy:
		return rig.SubmissionHaproxy
	}
	return rig.direct(protocol, entry)
}

// direct is where a client reaches a server without a proxy.
func (rig *Rig) direct(protocol Protocol, entry Entry) Endpoint {
	return map[Protocol]map[Entry]Endpoint{
		IMAP:       {Plain: rig.IMAP, StartTLS: rig.IMAP.By(StartTLS), Implicit: rig.IMAPS},
		POP3:       {Plain: rig.POP3, StartTLS: rig.POP3.By(StartTLS), Implicit: rig.POP3S},
		Submission: {Plain: rig.Submission, StartTLS: rig.SubmissionStartTLS, Implicit: rig.Submissions},
	}[protocol][entry]
}

// At is where a client reaches the proxy.
func (p *Proxy) At(protocol Protocol, entry Entry) Endpoint {
	if entry == Implicit {
		return map[Protocol]Endpoint{IMAP: p.IMAPS, POP3: p.POP3S, Submission: p.Submissions}[protocol]
	}
	return map[Protocol]Endpoint{IMAP: p.IMAP, POP3: p.POP3, Submission: p.Submission}[protocol].By(entry)
}

// Event is what the tests look at of an event.
type Event struct {
	ID, Protocol, Entry, TLS, Mechanism, Account, Action, Reason, End, Client, Hello, Backend, Refused string
	SNI, Host, Alert, Exception                                                                        string
	By                                                                                                 []string
	IP                                                                                                 string
	Verified, Exposed, Told                                                                            bool
	WrongPort                                                                                          bool  `json:"wrong_port"`
	BytesIn                                                                                            int64 `json:"bytes_in"`
	BytesOut                                                                                           int64 `json:"bytes_out"`
}

// WaitEvent waits for an event that is as wanted.
func (p *Proxy) WaitEvent(t testing.TB, from Log, what string, wanted func(Event) bool) Event {
	t.Helper()
	var found Event
	if !eventually(func() bool {
		for _, e := range from.events(t) {
			if wanted(e) {
				found = e
				return true
			}
		}
		return false
	}) {
		t.Fatalf("there is no event: %s\n%s\n%s", what, from.Text(), p.Log.Text())
	}
	return found
}

// events reads a log of events, but for a line that is still being written.
func (l Log) events(t testing.TB) (all []Event) {
	t.Helper()
	lines := bufio.NewScanner(strings.NewReader(l.Text()))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e Event
		if json.Unmarshal(lines.Bytes(), &e) == nil {
			all = append(all, e)
		}
	}
	return all
}
