package interop

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"sync"
	"testing"
	"time"
)

// CA is a certificate authority that speaks ACME: Debian's pebble, with a name server that
// says 127.0.0.1 for every name. It ends with the test.
//
// Pebble rolls dice: it rejects good nonces, and asks for proof of a name again that it has
// had. Here it does either only where the test wants it.
type CA struct {
	Directory string         // the URL of its ACME directory, behind the gate
	CAFile    string         // the authority behind the directory's own certificate
	RootFile  string         // the authority behind the certificates that it issues
	Roots     *x509.CertPool // the same
	Log       Log
	CASettings

	gate  *gate
	names string // the address at which the name server is told what to say
}

// CASettings are how a CA behaves.
type CASettings struct {
	Lifetime time.Duration // of certificates; 0: five years
	// HTTP and TLS are the ports at which it looks for the answers to http-01 and
	// tls-alpn-01; 0: one that is free.
	HTTP, TLS int
	Nonces    int               // of a hundred good nonces so many are rejected
	Reuse     int               // of a hundred names proven before so many need no new proof
	Bindings  map[string]string // key ids and keys, one of which an account must be bound to
	Blocked   []string          // names that it issues nothing for
}

// StartCA starts an authority.
func (rig *Rig) StartCA(t testing.TB, settings CASettings) *CA {
	t.Helper()
	Require(t, "pebble", "pebble-challtestsrv")
	dir := t.TempDir()
	ca := &CA{
		CAFile: rig.CAFile, RootFile: filepath.Join(dir, "root.pem"), Roots: x509.NewCertPool(),
		Log: Log{path: filepath.Join(dir, "pebble.log")}, CASettings: settings,
		names: fmt.Sprintf("127.0.0.1:%d", FreePort()),
	}
	for _, port := range []*int{&ca.HTTP, &ca.TLS} {
		if *port == 0 {
			*port = FreePort()
		}
	}

	nameServer := fmt.Sprintf("127.0.0.1:%d", FreePort())
	ca.start(t, Log{path: filepath.Join(dir, "names.log")}, "Starting management server", nil,
		"pebble-challtestsrv", "-dns01", nameServer, "-defaultIPv6", "", "-management", ca.names,
		"-http01", "", "-https01", "", "-tlsalpn01", "")

	acme, management := FreePort(), FreePort()
	cert, key := rig.Certificate(t, "localhost")
	config, err := json.Marshal(map[string]any{"pebble": map[string]any{
		"listenAddress": fmt.Sprintf("127.0.0.1:%d", acme), "managementListenAddress": fmt.Sprintf("127.0.0.1:%d", management),
		"certificate": cert, "privateKey": key, "httpPort": ca.HTTP, "tlsPort": ca.TLS,
		"certificateValidityPeriod":      int(ca.Lifetime.Seconds()),
		"externalAccountBindingRequired": ca.Bindings != nil, "externalAccountMACKeys": ca.Bindings,
		"domainBlocklist": ca.Blocked,
	}})
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "pebble.json"), config, 0o600))
	// PEBBLE_VA_NOSLEEP: validation begins at once, and not after up to 15 s.
	ca.start(t, ca.Log, "ACME directory available", []string{
		"PEBBLE_VA_NOSLEEP=1", fmt.Sprintf("PEBBLE_WFE_NONCEREJECT=%d", ca.Nonces), fmt.Sprintf("PEBBLE_AUTHZREUSE=%d", ca.Reuse),
	}, "pebble", "-strict", "-config", filepath.Join(dir, "pebble.json"), "-dnsserver", nameServer)

	root := ca.ask(t, rig, fmt.Sprintf("https://localhost:%d/roots/0", management))
	must(t, os.WriteFile(ca.RootFile, root, 0o600))
	if !ca.Roots.AppendCertsFromPEM(root) {
		t.Fatalf("pebble's root is no certificate: %s", root)
	}
	ca.gate = startGate(t, FreePort(), acme)
	ca.Directory = fmt.Sprintf("https://localhost:%d/dir", ca.gate.port)
	return ca
}

// start starts one of its two servers.
func (ca *CA) start(t testing.TB, log Log, ready string, env []string, program string, args ...string) {
	t.Helper()
	cmd := exec.Command(program, args...)
	cmd.Env = append(os.Environ(), env...)
	p, err := startProcess(cmd, log.path, log, ready)
	if p != nil {
		t.Cleanup(p.Stop)
	}
	must(t, err)
}

// ask reads from pebble's management interface. It speaks TLS a moment after pebble's log says so.
func (ca *CA) ask(t testing.TB, rig *Rig, url string) (body []byte) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: rig.CAs}, DisableKeepAlives: true}}
	var err error
	if !eventually(func() bool {
		var response *http.Response
		if response, err = client.Get(url); err != nil {
			return false
		}
		defer response.Body.Close()
		body, err = io.ReadAll(response.Body)
		return err == nil && response.StatusCode == http.StatusOK
	}) {
		t.Fatalf("asking pebble for its root: %v: %s", err, body)
	}
	return body
}

// Point lets the name server say another address for the name, or the usual one again for "".
func (ca *CA) Point(t testing.TB, name, address string) {
	t.Helper()
	act, what := "add-a", map[string]any{"host": name + ".", "addresses": []string{address}}
	if address == "" {
		act, what = "clear-a", map[string]any{"host": name + "."}
	}
	body, err := json.Marshal(what)
	must(t, err)
	response, err := http.Post("http://"+ca.names+"/"+act, "application/json", bytes.NewReader(body))
	must(t, err)
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		t.Fatalf("pointing %s to %q: %s", name, address, response.Status)
	}
}

var (
	ordered = regexp.MustCompile(`Added order ".*" to the db`)
	issued  = regexp.MustCompile(`Issued certificate serial`)
)

// Orders counts the orders that it has had.
func (ca *CA) Orders() int { return len(ordered.FindAllString(ca.Log.Text(), -1)) }

// Issued counts the certificates that it has given out.
func (ca *CA) Issued() int { return len(issued.FindAllString(ca.Log.Text(), -1)) }

// Close makes the CA unreachable, whatever it is doing; Open ends that.
func (ca *CA) Close() { ca.gate.close() }

// Open makes the CA reachable again.
func (ca *CA) Open(t testing.TB) {
	t.Helper()
	must(t, ca.gate.open())
}

// gate stands before a server, and can be shut: then nobody listens there, and what was
// under way breaks off.
type gate struct {
	port, target int

	mu       sync.Mutex
	listener net.Listener
	conns    map[net.Conn]bool
}

func startGate(t testing.TB, port, target int) *gate {
	t.Helper()
	g := &gate{port: port, target: target, conns: map[net.Conn]bool{}}
	must(t, g.open())
	t.Cleanup(g.close)
	return g
}

func (g *gate) open() error {
	l, err := net.Listen("tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(g.port)))
	if err != nil {
		return err
	}
	g.mu.Lock()
	g.listener = l
	g.mu.Unlock()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go g.pass(conn, l)
		}
	}()
	return nil
}

func (g *gate) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.listener != nil {
		g.listener.Close()
		g.listener = nil
	}
	for conn := range g.conns {
		conn.Close()
	}
}

// pass carries what is said on one connection.
func (g *gate) pass(conn net.Conn, l net.Listener) {
	defer conn.Close()
	// The server behind the gate may be one that is only being started.
	var far net.Conn
	if !eventually(func() (ok bool) {
		c, err := net.Dial("tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(g.target)))
		far = c
		return err == nil
	}) {
		return
	}
	defer far.Close()
	g.mu.Lock()
	open := g.listener == l
	g.conns[conn] = open
	g.mu.Unlock()
	if open {
		go func() {
			io.Copy(far, conn)
			far.Close()
		}()
		io.Copy(conn, far)
	}
	g.mu.Lock()
	delete(g.conns, conn)
	g.mu.Unlock()
}
