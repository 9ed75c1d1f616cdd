package main

// The proxies: how each is configured, started and stopped.

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"embed"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"text/template"
	"time"

	"mailreeve/interop"
)

// proxy is a program to be measured.
type proxy struct {
	name, title string
	program     string // looked for in PATH; "" for one that is built
	tree        string // from the source there
	config      string // its template
	version     []string
	args        func(*site) []string
	prepare     func(*site) error // where given
	fits        func(version string) error
}

const (
	ours  = "mailreeve"
	other = "other" // Mailreeve, from another tree
)

// mailreeve is what is built from a tree.
func mailreeve(name, title, tree string) *proxy {
	return &proxy{
		name: name, title: title, tree: tree, config: "mailreeve.yaml", version: []string{"--version"},
		args: func(s *site) []string { return []string{"run", "-c", s.file("mailreeve.yaml")} },
	}
}

// peers are the other programs.
var peers = []*proxy{
	{
		name: "nginx", title: "nginx mail", program: "nginx", config: "nginx.conf", version: []string{"-v"},
		args: func(s *site) []string { return []string{"-p", s.Dir, "-c", s.file("nginx.conf")} },
	},
	{
		name: "haproxy", title: "HAProxy, TCP mode", program: "haproxy", config: "haproxy.cfg", version: []string{"-v"},
		args: func(s *site) []string { return []string{"-db", "-f", s.file("haproxy.cfg")} },
		prepare: func(s *site) error {
			s.At.IMAP = 0 // it has no STARTTLS
			return nil
		},
	},
	{
		name: "dovecot", title: "Dovecot proxy, shared login", program: "dovecot", config: "dovecot.conf", version: []string{"--version"},
		args:    func(s *site) []string { return []string{"-F", "-c", s.file("dovecot.conf")} },
		prepare: prepareDovecot,
		fits: func(version string) error {
			if !strings.HasPrefix(version, "2.3.") {
				return fmt.Errorf("dovecot.conf is written for Dovecot 2.3, as in Debian 12; this is %q", version)
			}
			if os.Getuid() != 0 {
				return errors.New("only root can start Dovecot; as root type: go run ./bench")
			}
			return nil
		},
	},
}

// prepareDovecot writes the one table of services and their backends.
func prepareDovecot(s *site) error {
	var b strings.Builder
	for service, port := range map[string]int{"imap": s.Backend.IMAP, "pop3": s.Backend.POP3, "submission": s.Backend.Submission} {
		fmt.Fprintf(&b, "%s:{PLAIN}%s::::::proxy=y host=127.0.0.1 port=%d\n", service, password, port)
	}
	return os.WriteFile(s.file("services"), []byte(b.String()), 0o644)
}

//go:embed *.conf *.cfg *.yaml
var templates embed.FS

// bench is what all measurements share: a directory, the backend, the certificate.
type bench struct {
	dir     string
	backend ports
	roots   *x509.CertPool
	built   map[string]string // Mailreeve, by the tree
	close   []func()
}

// site is where one proxy lives; the templates read it.
type site struct {
	Dir      string
	Host     string
	At       endpoints
	Backend  ports
	Metrics  int
	Module   string // nginx's for mail, where that is one
	CPUs     int
	Files    int // descriptors that a process may have
	Sessions int // that fit into these
	Backlog  int // connections that wait to be accepted, as many as the kernel lets
}

func (s *site) file(name string) string { return filepath.Join(s.Dir, name) }

// files is how many files a process may open.
func files() int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 1024
	}
	return int(min(limit.Max, 1<<20))
}

// newBench makes the certificate, builds Mailreeve and starts the backend.
func newBench(ctx context.Context, o options, tags ...string) (b *bench, err error) {
	b = &bench{built: map[string]string{}}
	defer func() {
		if err != nil {
			b.end()
		}
	}()
	if b.dir, err = os.MkdirTemp("", "mailreeve-bench-"); err != nil {
		return b, err
	}
	b.close = append(b.close, func() { os.RemoveAll(b.dir) })
	// The servers' own users must get in.
	if err := os.Chmod(b.dir, 0o755); err != nil {
		return b, err
	}
	if err := b.certify(); err != nil {
		return b, fmt.Errorf("making the certificate: %w", err)
	}
	for _, tree := range []string{o.tree, o.against} {
		if err := b.build(ctx, tree, tags); err != nil {
			return b, err
		}
	}
	if err := b.startBackend(); err != nil {
		return b, fmt.Errorf("starting the backend: %w", err)
	}
	return b, nil
}

// build builds Mailreeve from a tree of its source, if one is given.
func (b *bench) build(ctx context.Context, tree string, tags []string) error {
	if tree == "" {
		return nil
	}
	program := filepath.Join(b.dir, fmt.Sprintf("mailreeve-%d", len(b.built)))
	build := exec.CommandContext(ctx, "go", "build", "-tags", strings.Join(tags, ","), "-o", program, "./cmd/mailreeve")
	build.Dir = tree
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("building Mailreeve in %s: %w\n%s", tree, err, out)
	}
	b.built[tree] = program
	return nil
}

// end stops the backend and removes all files.
func (b *bench) end() {
	for i := len(b.close) - 1; i >= 0; i-- {
		b.close[i]()
	}
	b.close = nil
}

// certify makes the certificate that all proxies show: ECDSA with P-256, signed by itself.
func (b *bench) certify() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	cert := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: host}, DNSNames: []string{host},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(30 * 24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, cert, key.Public(), key)
	if err != nil {
		return err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	if cert, err = x509.ParseCertificate(der); err != nil {
		return err
	}
	b.roots = x509.NewCertPool()
	b.roots.AddCert(cert)
	shown := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	kept := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})
	return errors.Join(
		os.WriteFile(filepath.Join(b.dir, "cert.pem"), shown, 0o600),
		os.WriteFile(filepath.Join(b.dir, "key.pem"), kept, 0o600),
		os.WriteFile(filepath.Join(b.dir, "both.pem"), append(shown, kept...), 0o600),
	)
}

// startBackend runs this program once more, as the backend.
func (b *bench) startBackend() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), backendRole+"=1")
	cmd.Stderr = os.Stderr
	// A group of its own: Ctrl-C is for the driver, who ends the backend last.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	b.close = append(b.close, func() {
		in.Close()
		cmd.Wait()
	})
	return json.NewDecoder(bufio.NewReader(out)).Decode(&b.backend)
}

// find is the proxy's program, or what to type to have it.
func (b *bench) find(p *proxy) (string, error) {
	if p.program == "" {
		return b.built[p.tree], nil
	}
	path, err := interop.Find(p.program)
	if err != nil {
		return "", fmt.Errorf("%s is not installed; to install it type: interop/install", p.program)
	}
	if p.fits != nil {
		err = p.fits(p.versionOf(path))
	}
	return path, err
}

// versionOf is the first line of what the program says of its version.
func (p *proxy) versionOf(program string) string {
	out, _ := exec.Command(program, p.version...).CombinedOutput()
	line, _, _ := strings.Cut(string(out), "\n")
	return strings.TrimSpace(line)
}

// running is a proxy that runs.
type running struct {
	*site
	process *interop.Process
	output  string
}

// start starts a proxy in a new directory, and waits until it listens at all of its ports.
func (b *bench) start(p *proxy, env ...string) (*running, error) {
	program, err := b.find(p)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(b.dir, p.name+"-")
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return nil, err
	}
	s := &site{
		Dir: dir, Host: host, Backend: b.backend, CPUs: runtime.NumCPU(), Files: files(), Backlog: backlog(),
		At:      endpoints{interop.FreePort(), interop.FreePort(), interop.FreePort(), interop.FreePort()},
		Metrics: interop.FreePort(),
	}
	s.Sessions = s.Files/2 - 50
	if module := "/usr/lib/nginx/modules/ngx_mail_module.so"; exists(module) {
		s.Module = module
	}
	for _, name := range []string{"cert.pem", "key.pem", "both.pem"} {
		if err := os.Link(filepath.Join(b.dir, name), s.file(name)); err != nil {
			return nil, err
		}
	}
	if p.prepare != nil {
		if err := p.prepare(s); err != nil {
			return nil, err
		}
	}
	var text bytes.Buffer
	if t, err := template.ParseFS(templates, p.config); err != nil {
		return nil, err
	} else if err := t.Execute(&text, s); err != nil {
		return nil, err
	}
	if err := os.WriteFile(s.file(p.config), text.Bytes(), 0o644); err != nil {
		return nil, err
	}
	cmd := exec.Command(program, p.args(s)...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), env...)
	r := &running{site: s, output: s.file("output")}
	r.process, err = interop.StartProcess(cmd, r.output, s.listens)
	if err != nil {
		r.stop()
		return nil, err
	}
	return r, nil
}

// listens says whether something accepts connections at every port.
func (s *site) listens() bool {
	for _, port := range []int{s.At.IMAPS, s.At.IMAP, s.At.POP3S, s.At.Submissions} {
		if port == 0 {
			continue
		}
		c, err := net.Dial("tcp4", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			return false
		}
		c.Close()
	}
	return true
}

// stop ends the proxy and removes its files.
func (r *running) stop() {
	if r.process != nil {
		r.process.Stop()
	}
	os.RemoveAll(r.Dir)
}

// said is the end of what the proxy has written to its logs.
func (r *running) said() string {
	var b strings.Builder
	for _, name := range []string{r.output, r.file("nginx.log"), r.file("dovecot.log")} {
		f, err := os.Open(name)
		if err != nil {
			continue
		}
		if info, err := f.Stat(); err == nil && info.Size() > 800 {
			f.Seek(-800, io.SeekEnd)
		}
		io.Copy(&b, f)
		f.Close()
	}
	return b.String()
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// backlog is how many connections the kernel lets wait for a listener at most.
func backlog() int {
	n := 0
	if text, err := os.ReadFile("/proc/sys/net/core/somaxconn"); err == nil {
		fmt.Sscan(string(text), &n)
	}
	return max(n, 128)
}
