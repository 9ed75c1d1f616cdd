package interop

import (
	"crypto/x509"
	"embed"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"text/template"
	"time"
)

// patience is how long a helper waits for an event before it gives the test up.
const patience = 20 * time.Second

// Rig is a provider's mail system as it stands behind the proxy. It treats 127.0.0.1 as the
// address of a trusted proxy; a peer with any other address (see [Rig.DialFrom]) is a
// stranger.
type Rig struct {
	Dir    string // holds all that the servers read and write; removed when they have stopped
	CAFile string // PEM; the authority behind the servers' certificates
	CAs    *x509.CertPool

	// Dovecot. The plain endpoints offer STARTTLS; those named Haproxy expect a PROXY header
	// first of all.
	IMAP, IMAPHaproxy, POP3, POP3Haproxy     Endpoint
	IMAPS, IMAPSHaproxy, POP3S, POP3SHaproxy Endpoint

	// Postfix. All accept XCLIENT, but for SubmissionNoXCLIENT. Submission has no TLS at all,
	// SubmissionStartTLS refuses to go on without.
	Submission, SubmissionHaproxy   Endpoint
	SubmissionStartTLS              Endpoint
	SubmissionNoXCLIENT             Endpoint // the same for a proxy that is not trusted to name clients
	Submissions, SubmissionsHaproxy Endpoint

	DovecotLog, PostfixLog Log

	ca        *authority
	processes []*Process
	made      atomic.Int64 // accounts made by NewAccount
}

// Endpoint is where and how to connect to a service: a server's, or that of a proxy in front of it.
type Endpoint struct {
	Host  string // a name, as some mail programs refuse certificates for addresses
	Port  int
	Entry Entry
}

// Entry says how TLS begins.
type Entry string

const (
	Plain    Entry = "plain"
	StartTLS Entry = "starttls"
	Implicit Entry = "implicit"
)

// Addr returns host:port.
func (e Endpoint) Addr() string { return net.JoinHostPort(e.Host, strconv.Itoa(e.Port)) }

// By returns the endpoint entered in another way.
func (e Endpoint) By(entry Entry) Endpoint {
	e.Entry = entry
	return e
}

var shared struct {
	once sync.Once
	rig  *Rig
	err  error
}

// StartServers returns the running servers, which all tests of a binary share. Tests that
// must not see each other's mail use accounts of their own: [Rig.NewAccount].
func StartServers(t testing.TB) *Rig {
	t.Helper()
	if testing.Short() {
		t.Skip("real servers are left out by -short")
	}
	Require(t, "dovecot", "postfix")
	if os.Getuid() != 0 {
		missing(t, "Postfix starts for root only: run the tests as root")
	}
	shared.once.Do(func() { shared.rig, shared.err = start() })
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return shared.rig
}

// StopServers ends what StartServers has started. TestMain calls it after the last test.
func StopServers() {
	if shared.rig == nil {
		return
	}
	for _, p := range shared.rig.processes {
		p.Stop()
	}
	os.RemoveAll(shared.rig.Dir)
}

// Require skips the test if one of the programs is not installed; in CI the test fails instead.
func Require(t testing.TB, programs ...string) {
	t.Helper()
	for _, program := range programs {
		if _, err := Find(program); err != nil {
			missing(t, program+" is not installed; to install it type: interop/install")
		}
	}
}

func missing(t testing.TB, what string) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatal(what)
	}
	t.Skip(what)
}

// Find looks for a program also where an ordinary user's PATH does not lead.
func Find(program string) (string, error) {
	if path, err := exec.LookPath(program); err == nil {
		return path, nil
	}
	return exec.LookPath(filepath.Join("/usr/sbin", program))
}

func start() (*Rig, error) {
	rig, err := newRig()
	if err != nil {
		return nil, fmt.Errorf("preparing the servers' directory: %w", err)
	}
	for _, begin := range []func() (*Process, error){rig.startDovecot, rig.startPostfix} {
		p, err := begin()
		if p != nil {
			rig.processes = append(rig.processes, p)
		}
		if err != nil {
			for _, p := range rig.processes {
				p.Stop()
			}
			return nil, fmt.Errorf("%w; its files are in %s", err, rig.Dir)
		}
	}
	return rig, nil
}

// newRig lays out everything but the running processes.
func newRig() (*Rig, error) {
	// Not testing.TB.TempDir: the rig outlives the test that starts it, and the servers' own
	// users must get in.
	dir, err := os.MkdirTemp("", "mailreeve-interop-")
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return nil, err
	}
	rig := &Rig{
		Dir:        dir,
		CAFile:     filepath.Join(dir, "ca.pem"),
		DovecotLog: Log{path: filepath.Join(dir, "dovecot.log")},
		PostfixLog: Log{path: filepath.Join(dir, "postfix.log")},
	}
	for _, e := range []*Endpoint{&rig.IMAP, &rig.IMAPHaproxy, &rig.POP3, &rig.POP3Haproxy, &rig.Submission, &rig.SubmissionHaproxy} {
		*e = Endpoint{"localhost", FreePort(), Plain}
	}
	for _, e := range []*Endpoint{&rig.IMAPS, &rig.IMAPSHaproxy, &rig.POP3S, &rig.POP3SHaproxy, &rig.Submissions, &rig.SubmissionsHaproxy} {
		*e = Endpoint{"localhost", FreePort(), Implicit}
	}
	rig.SubmissionStartTLS = Endpoint{"localhost", FreePort(), StartTLS}
	rig.SubmissionNoXCLIENT = Endpoint{"localhost", FreePort(), StartTLS}

	if rig.ca, err = newAuthority(rig.CAFile); err != nil {
		return nil, err
	}
	rig.CAs = rig.ca.pool
	if err := rig.ca.issue(dir, "server", x509.ECDSA, func(*x509.Certificate) {}, "localhost"); err != nil {
		return nil, err
	}
	return rig, errors.Join(
		os.Mkdir(filepath.Join(dir, "users"), 0o755),
		rig.add(Anna), rig.add(Bert), rig.add(Carla),
		os.WriteFile(filepath.Join(dir, "masters"), []byte(Master.line()), 0o644),
		rig.makeMailDir(),
	)
}

// makeMailDir makes the directory of all mailboxes for the user whose name the servers
// deliver mail under.
func (rig *Rig) makeMailDir() error {
	nobody, err := user.Lookup("nobody")
	if err != nil {
		return err
	}
	uid, err := strconv.Atoi(nobody.Uid)
	if err != nil {
		return err
	}
	mail := filepath.Join(rig.Dir, "mail")
	return errors.Join(os.Mkdir(mail, 0o700), os.Chown(mail, uid, -1))
}

//go:embed *.conf *.cf
var templates embed.FS

// configure writes the named file into the directory, with the rig's own addresses and
// paths filled in.
func (rig *Rig) configure(name, dir string) error {
	t, err := template.ParseFS(templates, name)
	if err != nil {
		return err
	}
	var b strings.Builder
	if err := t.Execute(&b, rig); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, name), []byte(b.String()), 0o644)
}

// given are the ports that this process has had from FreePort.
var given sync.Map

// FreePort finds a port that nobody listens at, below those that the kernel gives to
// outgoing connections, and gives none twice: who has one may not listen at it yet.
func FreePort() int {
	for {
		port := 4000 + rand.IntN(8000)
		l, err := net.Listen("tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			continue
		}
		l.Close()
		if _, taken := given.LoadOrStore(port, true); !taken {
			return port
		}
	}
}

// eventually asks until the answer is yes or patience ends.
func eventually(ask func() bool) bool {
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if ask() {
			return true
		}
	}
	return false
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
