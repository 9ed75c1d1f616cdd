package certs

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

// acmeNode is an ACME that runs in the bubble of a test.
type acmeNode struct {
	*ACME
	logs *observer.ObservedLogs
	stop func() // ends Run and waits until it has returned; may be called twice
}

// startNode makes one on a directory and, unless names is nil, lets it run. All nodes answer
// challenges.
func startNode(t *testing.T, ca *fakeCA, dir string, change func(*ACMEConfig), names ...string) *acmeNode {
	t.Helper()
	core, logs := observer.New(zapcore.DebugLevel)
	c := ACMEConfig{Directory: fakeDirectory, Email: "hostmaster@example.org", Dir: dir, Hourly: 20,
		HTTP01: true, TLSALPN01: true, Log: zap.New(core), Client: &http.Client{Transport: ca}}
	if change != nil {
		change(&c)
	}
	a, err := NewACME(c)
	if err != nil {
		t.Fatal(err)
	}
	ca.set(func() { ca.nodes = append(ca.nodes, a) })
	a.Keep(names)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		a.Run(ctx)
	}()
	n := &acmeNode{ACME: a, logs: logs, stop: func() {
		cancel()
		<-done
	}}
	t.Cleanup(n.stop)
	return n
}

// get is what a handshake for a canonical name gets.
func (n *acmeNode) get(name string) *x509.Certificate { return n.kind(name, ECDSA, Keep) }

// kind asks for any kind, on any ground.
func (n *acmeNode) kind(name string, kind KeyType, own Own) *x509.Certificate {
	cert, err := n.Certificate(context.Background(), name, kind, own)
	if err != nil || cert == nil {
		return nil
	}
	return cert.Leaf
}

// messages are the log lines so far, level first.
func (n *acmeNode) messages() string {
	var lines []string
	for _, e := range n.logs.All() {
		lines = append(lines, fmt.Sprint(e.Level, ": ", e.Message, " ", e.ContextMap()))
	}
	return strings.Join(lines, "\n")
}

// only is the one status there is.
func (n *acmeNode) only(t *testing.T) Status {
	t.Helper()
	list := n.Status()
	if len(list) != 1 {
		t.Fatalf("%d statuses: %+v", len(list), list)
	}
	return list[0]
}

// pass lets time pass, and all settle.
func pass(d time.Duration) {
	time.Sleep(d) // of the bubble
	synctest.Wait()
}

func ecdsaOnly(c *ACMEConfig) { c.RSA = false }

func TestACMEFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, dir := newFakeCA(t), t.TempDir()
		ca.every = 3 // bad nonces
		n := startNode(t, ca, dir, func(c *ACMEConfig) { c.RSA = true }, "IMAP.example.org.", "pop.example.org", "nodots", "192.0.2.1")
		if got := n.get("imap.example.org"); got != nil {
			t.Error("a certificate from nowhere")
		}
		pass(time.Minute)
		want := []string{"imap.example.org ECDSA http-01", "imap.example.org RSA http-01", "pop.example.org ECDSA http-01", "pop.example.org RSA http-01"}
		if got := slices.Sorted(slices.Values(ca.list())); !slices.Equal(got, want) {
			t.Errorf("issued %q", got)
		}
		if len(ca.accounts) != 1 || !slices.Equal(ca.accounts[0].contact, []string{"mailto:hostmaster@example.org"}) {
			t.Errorf("accounts: %+v", ca.accounts)
		}
		leaf := n.get("IMAP.example.org.")
		if leaf == nil || leaf.DNSNames[0] != "imap.example.org" {
			t.Fatalf("got %v", leaf)
		}
		if rsa := n.kind("imap.example.org", RSA, Keep); rsa == nil || rsa.PublicKeyAlgorithm != x509.RSA {
			t.Errorf("RSA: %v", rsa)
		}
		if n.kind("imap.example.org", ECDSA, Never) != nil || n.get("smtp.example.org") != nil {
			t.Error("a certificate that is not wanted, or not there")
		}
		if text := n.messages(); strings.Count(text, "info: certificate issued") != 4 || strings.Contains(text, "warn") || strings.Contains(text, "error") {
			t.Error(text)
		}
		list := n.Status()
		read, err := ReadStatus(dir, []string{"imap.example.org", "pop.example.org"}, true)
		if err != nil || len(list) != 4 || !slices.EqualFunc(list, read, sameStatus) {
			t.Errorf("ReadStatus: %v\n%+v\n%+v", err, list, read)
		}
		s := list[0]
		if s.Name != "imap.example.org" || s.KeyType != ECDSA || s.Issuer != "Fake authority" || s.Source != "acme" || !s.Canonical ||
			s.Renewed.IsZero() || s.Tried.IsZero() || s.Error != "" || s.Trouble(time.Now()) != nil {
			t.Errorf("status %+v", s)
		}
		if left := s.NotAfter.Sub(s.Next); left > 30*24*time.Hour || left < 27*24*time.Hour {
			t.Errorf("renewal %v before the end", left)
		}
		checkModes(t, dir)
		if files, _ := filepath.Glob(filepath.Join(dir, "*", "answers", "*")); len(files) > 0 {
			t.Errorf("answers are left: %q", files)
		}

		// A restart orders nothing, nor does it register.
		n.stop()
		posts := ca.posts
		n = startNode(t, ca, dir, func(c *ACMEConfig) { c.RSA = true }, "imap.example.org", "pop.example.org")
		if got := n.get("imap.example.org"); got == nil || !got.Equal(leaf) {
			t.Errorf("after a restart: %v", got)
		}
		pass(time.Hour)
		if ca.posts != posts {
			t.Errorf("%d requests after a restart", ca.posts-posts)
		}
		n.stop()

		// Another directory is another account and other certificates.
		n = startNode(t, ca, dir, func(c *ACMEConfig) { c.Directory = "https://ca.example.test:443/directory" })
		if n.get("imap.example.org") != nil {
			t.Error("certificates of one authority under another")
		}
	})
}

// sameStatus compares without the zone.
func sameStatus(a, b Status) bool {
	for _, s := range []*Status{&a, &b} {
		for _, at := range []*time.Time{&s.NotBefore, &s.NotAfter, &s.Renewed, &s.Tried, &s.Next} {
			*at = at.UTC()
		}
	}
	return a == b
}

// checkModes looks that nobody else can read the state.
func checkModes(t *testing.T, dir string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		info, err := d.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// TestACMERenewal lets certificates of a minute be renewed, each time with a new key.
func TestACMERenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := newFakeCA(t)
		ca.life = time.Minute
		n := startNode(t, ca, t.TempDir(), ecdsaOnly, "imap.example.org")
		pass(time.Second)
		keys := map[string]bool{}
		for range 120 {
			leaf := n.get("imap.example.org")
			if leaf == nil || time.Now().After(leaf.NotAfter) {
				t.Fatalf("at %v: %v", time.Now(), leaf)
			}
			keys[string(leaf.RawSubjectPublicKeyInfo)] = true
			pass(5 * time.Second)
		}
		if orders := ca.orderCount(); len(keys) != orders || orders < 13 || orders > 16 { // a renewal every 40 to 42 s
			t.Errorf("%d keys and %d orders in ten minutes", len(keys), orders)
		}
		if text := n.messages(); !strings.Contains(text, "info: certificate renewed") || strings.Contains(text, "warn") {
			t.Error(text)
		}
	})
}

// TestACMEAlternates has a port that the authority does not reach.
func TestACMEAlternates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := newFakeCA(t)
		ca.life = 20 * 24 * time.Hour
		ca.refuse = func(kind, _ string) error {
			if kind == http01 {
				return errors.New("connection refused\x1b[31m on port\n80")
			}
			return nil
		}
		n := startNode(t, ca, t.TempDir(), ecdsaOnly, "imap.example.org")
		pass(time.Second)
		s := n.only(t)
		if s.Error != "proving control by http-01: connection refused [31m on port 80 (unauthorized)" || s.Failures != 1 {
			t.Errorf("%+v", s)
		}
		if err := s.Trouble(time.Now()); err == nil || !strings.Contains(err.Error(), "connection refused") {
			t.Errorf("trouble: %v", err)
		}
		if text := n.messages(); !strings.Contains(text, "error: no new certificate") {
			t.Error(text)
		}
		pass(2 * time.Minute)
		if got := ca.list(); !slices.Equal(got, []string{"imap.example.org ECDSA tls-alpn-01"}) || n.only(t).Error != "" {
			t.Errorf("%q, %+v", got, n.only(t))
		}
		pass(15 * 24 * time.Hour) // what worked is what the renewal begins with
		if got := ca.list(); len(got) != 2 || ca.orderCount() != 3 {
			t.Errorf("%q in %d orders", got, ca.orderCount())
		}
		// ... and what the next failure leaves it to begin with, after the other kind.
		ca.set(func() { ca.refuse = func(string, string) error { return errors.New("both are down") } })
		pass(15 * 24 * time.Hour)
		var kinds []string
		for _, o := range ca.orders[3:6] {
			kinds = append(kinds, o.kind)
		}
		if !slices.Equal(kinds, []string{tlsalpn01, http01, tlsalpn01}) {
			t.Errorf("tried %q", kinds)
		}
	})
}

// TestACMEBackoff counts the orders of a name that fails, over restarts and crashes.
func TestACMEBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, dir := newFakeCA(t), t.TempDir()
		ca.refuse = func(string, string) error { return errors.New("no such host") }
		n := startNode(t, ca, dir, ecdsaOnly, "imap.example.org")
		pass(time.Second)
		for range 20 { // a crash loop
			n.stop()
			n = startNode(t, ca, dir, ecdsaOnly, "imap.example.org")
			pass(time.Second)
		}
		if ca.orderCount() != 1 {
			t.Errorf("%d orders by restarts", ca.orderCount())
		}
		pass(24 * time.Hour)
		var gaps []time.Duration
		for i, o := range ca.orders[1:] {
			gaps = append(gaps, o.created.Sub(ca.orders[i].created))
		}
		if len(gaps) < 7 {
			t.Fatalf("gaps %v", gaps)
		}
		for i, gap := range gaps {
			want := backoff[min(i, len(backoff)-1)]
			if gap < want || gap > want+want/10+2*time.Second {
				t.Errorf("gap %d is %v, want %v", i, gap, want)
			}
		}
		if s := n.only(t); s.Failures != len(gaps)+1 || s.Next.Before(time.Now()) {
			t.Errorf("%+v", s)
		}

		// A process that dies in the middle of an order has written that it began.
		n.stop()
		ca.set(func() { ca.slow = func(_ *http.Request, wait func(time.Duration)) { wait(time.Minute) } })
		n = startNode(t, ca, dir, ecdsaOnly, "imap.example.org", "smtp.example.org")
		pass(time.Second)
		data, err := readFile(n.state.record(pair{"smtp.example.org", ECDSA}), maxRecord)
		r, parseErr := parseRecord(data)
		if err != nil || parseErr != nil || r.Failures != 1 || !r.Next.After(time.Now()) {
			t.Errorf("%+v, %v, %v", r, err, parseErr)
		}
		// One that is stopped in it has not failed.
		n.stop()
		data, _ = readFile(n.state.record(pair{"smtp.example.org", ECDSA}), maxRecord)
		if r, _ := parseRecord(data); r.Failures != 0 || r.Error != "" {
			t.Errorf("%+v", r)
		}
	})
}

// TestACMERetry: an operator who has mended the cause need not wait for hours, but the
// authority's own demand counts.
func TestACMERetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, dir := newFakeCA(t), t.TempDir()
		ca.refuse = func(string, string) error { return errors.New("no such host") }
		n := startNode(t, ca, dir, ecdsaOnly, "imap.example.org")
		pass(24 * time.Hour)
		failed := ca.orderCount()
		if time.Until(n.only(t).Next) < time.Minute {
			pass(2 * time.Minute) // an attempt was about to be made
			failed = ca.orderCount()
		}
		for range 10 { // of a reload too many
			n.Retry()
			pass(time.Second)
		}
		if ca.orderCount() > failed+1 {
			t.Errorf("%d orders at once", ca.orderCount()-failed)
		}
		ca.set(func() { ca.refuse = nil })
		n.Retry()
		pass(2 * time.Minute)
		if n.get("imap.example.org") == nil {
			t.Errorf("no certificate after the cause is mended: %+v", n.only(t))
		}
	})
	synctest.Test(t, func(t *testing.T) {
		ca := newFakeCA(t)
		ca.hook = func(*http.Request) (*http.Response, error) {
			return answer(503, "", "Retry-After", "7200"), nil
		}
		n := startNode(t, ca, t.TempDir(), ecdsaOnly, "imap.example.org")
		pass(time.Minute)
		ca.set(func() { ca.hook = nil })
		n.Retry()
		pass(time.Hour)
		if n.get("imap.example.org") != nil {
			t.Error("the authority's demand was not met")
		}
		pass(2 * time.Hour)
		if n.get("imap.example.org") == nil {
			t.Error("it never came")
		}
	})
}

// TestACMETrouble goes through the ways in which an authority fails.
func TestACMETrouble(t *testing.T) {
	html := answer(200, nil, "Content-Type", "text/html; charset=utf-8").Header
	tests := []struct {
		name string
		set  func(*fakeCA)
		want string        // begins the error
		wait time.Duration // till the next attempt, at least
	}{
		{"down", func(ca *fakeCA) {
			ca.hook = func(*http.Request) (*http.Response, error) { return nil, errors.New("connection refused") }
		}, `reading the directory: Get "https://ca.example.test/directory": connection refused`, time.Minute},
		{"slow", func(ca *fakeCA) {
			ca.slow = func(_ *http.Request, wait func(time.Duration)) { wait(time.Hour) }
		}, "reading the directory: the CA was not done after 2m0s", time.Minute},
		{"in trouble", func(ca *fakeCA) {
			ca.hook = func(*http.Request) (*http.Response, error) {
				return answer(503, "<html><h1>down</h1>", "Content-Type", "text/html", "Retry-After", "600"), nil
			}
		}, "reading the directory: 503 Service Unavailable (status 503)", 10 * time.Minute},
		{"a web page", func(ca *fakeCA) {
			ca.hook = func(*http.Request) (*http.Response, error) {
				res := answer(200, "<html>")
				res.Header = html.Clone()
				return res, nil
			}
		}, "a web page (200 OK) came where ACME was expected", time.Minute},
		{"not JSON", func(ca *fakeCA) {
			ca.hook = func(*http.Request) (*http.Response, error) { return answer(200, "hello"), nil }
		}, "reading the directory: the answer is not JSON", time.Minute},
		{"rate limit", func(ca *fakeCA) {
			ca.hook = only("/order", problem(429, "rateLimited", "too many certificates", "Retry-After", "7200"))
		}, "ordering: too many certificates (rateLimited)", 2 * time.Hour},
		{"rate limit until a date by a clock that is wrong", func(ca *fakeCA) {
			ca.skew = -10 * time.Hour
			ca.hook = only("/order", problem(429, "rateLimited", "too many", "Retry-After",
				time.Now().Add(-7*time.Hour).UTC().Format(http.TimeFormat)))
		}, "ordering: too many (rateLimited) (this machine's clock is 10h0m0s ahead of the CA's)", 3 * time.Hour},
		{"rate limit for a year", func(ca *fakeCA) {
			ca.hook = only("/order", problem(429, "rateLimited", "too many", "Retry-After", "31536000"))
		}, "ordering: too many (rateLimited)", 24 * time.Hour},
		{"subproblems", func(ca *fakeCA) {
			ca.hook = only("/order", answer(403, map[string]any{"type": "urn:ietf:params:acme:error:caa", "detail": "several errors", "status": 403,
				"subproblems": []map[string]any{{"type": "urn:ietf:params:acme:error:caa", "detail": "CAA forbids it",
					"identifier": map[string]string{"type": "dns", "value": "imap.example.org"}}}}))
		}, "ordering: several errors; imap.example.org: CAA forbids it (caa) (caa)", time.Minute},
		{"processing for ever", func(ca *fakeCA) { ca.forever = true }, "getting the certificate: the CA was not done after 2m0s", time.Minute},
		{"polled with a date gone by", func(ca *fakeCA) {
			ca.forever = true
			polls := 0
			ca.hook = func(req *http.Request) (*http.Response, error) {
				if req.URL.Path == "/order/0" {
					if polls++; polls > 200 {
						ca.t.Error("polled without a pause")
					}
					res := ca.serve(req)
					res.Header.Set("Retry-After", "-60")
					return res, nil
				}
				return nil, nil
			}
		}, "getting the certificate: the CA was not done after 2m0s", time.Minute},
		{"a bad token", func(ca *fakeCA) {
			ca.hook = only("/authz/0", answer(200, map[string]any{"status": "pending", "challenges": []map[string]any{
				{"type": "http-01", "url": "https://ca.example.test/challenge/0/http-01", "token": "../../../etc/passwd", "status": "pending"}}}))
		}, `proving control by http-01: the token "../../../etc/passwd" is not base64url`, time.Minute},
		{"no challenge of ours", func(ca *fakeCA) {
			ca.hook = only("/authz/0", answer(200, map[string]any{"status": "pending", "challenges": []map[string]any{{"type": "dns-01", "token": "x"}}}))
		}, "asking for the challenge: the CA offers no challenge that can be answered here (http-01, tls-alpn-01)", time.Minute},
		{"another name", func(ca *fakeCA) {
			ca.template = func(c *x509.Certificate) { c.DNSNames = []string{"pop.example.org"} }
		}, "the certificate is refused: the certificate is not for this name", time.Minute},
		{"another key", func(ca *fakeCA) {
			ca.public = func(*x509.CertificateRequest) any { return &ca.authority.key.PublicKey }
		}, "the certificate is refused: it is for another key", time.Minute},
		{"expired", func(ca *fakeCA) {
			ca.template = func(c *x509.Certificate) { c.NotBefore, c.NotAfter = c.NotBefore.Add(-time.Hour), c.NotBefore }
		}, "the certificate is refused: it ends on 2000-01-01 00:00 UTC, too soon", time.Minute},
		{"ending before it begins", func(ca *fakeCA) {
			ca.template = func(c *x509.Certificate) { c.NotBefore, c.NotAfter = time.Now().Add(time.Minute), time.Now() }
		}, "the certificate is refused: it ends before it begins", time.Minute},
		{"a URL without TLS", func(ca *fakeCA) {
			ca.hook = func(req *http.Request) (*http.Response, error) {
				if req.URL.Scheme == "http" {
					ca.t.Errorf("asked %s", req.URL)
				}
				if req.URL.Path != "/order" {
					return nil, nil
				}
				return answer(201, map[string]any{"status": "pending", "authorizations": []string{"http://192.0.2.1/latest/meta-data"}},
					"Location", "https://ca.example.test/order/0", "Replay-Nonce", "x"), nil
			}
		}, `asking for the challenge: Post "http://192.0.2.1/latest/meta-data": the CA names a URL without TLS`, time.Minute},
		{"near its end", func(ca *fakeCA) {
			ca.template = func(c *x509.Certificate) {
				c.NotBefore = c.NotBefore.Add(-1000 * time.Hour)
				c.NotAfter = time.Now().Add(time.Hour)
			}
		}, "the certificate is refused: it ends on", time.Minute},
		{"from the future", func(ca *fakeCA) { ca.skew = time.Hour },
			"the certificate is refused: it is not valid before 2000-01-01 01:00 UTC (this machine's clock is 1h0m0s behind the CA's)", time.Minute},
		{"another chain", func(ca *fakeCA) {
			other := newFakeCA(ca.t).authority
			ca.chain = func(leaf []byte, _ string) [][]byte { return [][]byte{leaf, other.cert.Raw} }
		}, "the certificate is refused: the next certificate of its chain has not signed it", time.Minute},
		{"no certificate", func(ca *fakeCA) {
			ca.chain = func([]byte, string) [][]byte { return [][]byte{[]byte("rubbish")} }
		}, "the certificate is refused: x509:", time.Minute},
		{"a huge chain", func(ca *fakeCA) {
			ca.template = func(c *x509.Certificate) {
				for i := range 2000 {
					c.DNSNames = append(c.DNSNames, fmt.Sprintf("host-number-%d.example.org", i))
				}
			}
		}, "the certificate is refused: its chain has", time.Minute},
		{"an account with another email than allowed", func(ca *fakeCA) {
			ca.hook = only("/account", problem(400, "invalidContact", "no such domain"))
		}, "registering an account: no such domain (invalidContact)", time.Minute},
		{"external account demanded", func(ca *fakeCA) { ca.eab = map[string][]byte{"me": []byte("secret")} },
			"registering an account: the CA demands an external account; set account", time.Minute},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ca := newFakeCA(t)
				test.set(ca)
				n := startNode(t, ca, t.TempDir(), func(c *ACMEConfig) { c.TLSALPN01 = true }, "imap.example.org")
				var s Status
				for range 300 {
					if pass(time.Second); n.logs.Len() > 0 {
						break
					}
				}
				s = n.only(t)
				if !strings.Contains(s.Error, test.want) || s.Failures != 1 || len(s.Error) > maxError+100 {
					t.Errorf("error %q after %d failures, want %q", s.Error, s.Failures, test.want)
				}
				if wait := s.Next.Sub(s.Tried); wait < test.wait || wait > test.wait+test.wait/10+5*time.Second {
					t.Errorf("the next attempt is after %v, want %v", wait, test.wait)
				}
				if n.get("imap.example.org") != nil {
					t.Error("a certificate all the same")
				}
				// Once the trouble is over, all is well without anybody's help.
				ca.set(func() {
					ca.hook, ca.slow, ca.template, ca.public, ca.chain = nil, nil, nil, nil, nil
					ca.forever, ca.skew, ca.eab = false, 0, nil
				})
				pass(27 * time.Hour)
				if n.get("imap.example.org") == nil || n.only(t).Error != "" || n.only(t).Failures != 0 {
					t.Errorf("afterwards: %+v", n.only(t))
				}
			})
		})
	}
}

// only answers one path.
func only(path string, res *http.Response) func(*http.Request) (*http.Response, error) {
	return func(req *http.Request) (*http.Response, error) {
		if req.URL.Path == path {
			return res, nil
		}
		return nil, nil
	}
}

// TestACMERenewalFails takes the authority away while a certificate is in force.
func TestACMERenewalFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := newFakeCA(t)
		ca.life = 30 * 24 * time.Hour
		n := startNode(t, ca, t.TempDir(), ecdsaOnly, "imap.example.org")
		pass(time.Second)
		leaf := n.get("imap.example.org")
		ca.set(func() {
			ca.hook = func(*http.Request) (*http.Response, error) { return nil, errors.New("no route to host") }
		})
		pass(22 * 24 * time.Hour)
		if got := n.get("imap.example.org"); got == nil || !got.Equal(leaf) {
			t.Fatal("the old certificate is gone")
		}
		if s := n.only(t); s.Failures == 0 || s.Trouble(time.Now()) != nil || strings.Contains(n.messages(), "error: ") {
			t.Errorf("with a week to go: %+v\n%s", s, n.messages())
		}
		pass(4 * 24 * time.Hour)
		if s := n.only(t); s.Trouble(time.Now()) == nil || !strings.Contains(n.messages(), "error: no new certificate, and the old one ends soon") {
			t.Errorf("with days to go: %+v", s)
		}
		pass(5 * 24 * time.Hour)
		if got := n.get("imap.example.org"); got == nil || !got.Equal(leaf) {
			t.Error("expired is no reason to serve nothing")
		}
		ca.set(func() { ca.hook = nil })
		pass(7 * time.Hour)
		if got := n.get("imap.example.org"); got == nil || got.Equal(leaf) || n.only(t).Error != "" {
			t.Errorf("%v, %+v", got, n.only(t))
		}
	})
}

// TestACMENodes lets three nodes share a directory, of which the authority asks the third.
func TestACMENodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, dir := newFakeCA(t), t.TempDir()
		ca.life = 3 * 24 * time.Hour
		ca.slow = func(_ *http.Request, wait func(time.Duration)) { wait(time.Second) }
		names := []string{"imap.example.org", "pop.example.org", "smtp.example.org"}
		var nodes []*acmeNode
		for range 3 {
			nodes = append(nodes, startNode(t, ca, dir, ecdsaOnly, names...))
		}
		ca.set(func() { ca.nodes = ca.nodes[2:] })
		same := func(count int) {
			t.Helper()
			if ca.orderCount() != count {
				t.Errorf("%d orders, want %d", ca.orderCount(), count)
			}
			for _, name := range names {
				first := nodes[0].get(name)
				for i, n := range nodes {
					if got := n.get(name); got == nil || !got.Equal(first) {
						t.Errorf("node %d has another %s: %v", i, name, got)
					}
				}
			}
		}
		pass(3 * time.Minute)
		same(3)
		if len(ca.accounts) != 1 {
			t.Errorf("%d accounts", len(ca.accounts))
		}
		pass(54 * time.Hour) // the longest jitter is over 2.4 h
		same(6)

		// A name that a handshake brought to one node is there for the others.
		ca.set(func() { ca.slow = nil })
		first := nodes[1].kind("mail.customer.example", ECDSA, Listed)
		if got := nodes[0].kind("mail.customer.example", ECDSA, Listed); first == nil || got == nil || !got.Equal(first) {
			t.Errorf("%v and %v", first, got)
		}
		pass(lookPause)
		if got := nodes[2].get("mail.customer.example"); got == nil || !got.Equal(first) {
			t.Errorf("%v", got)
		}
		if ca.orderCount() != 7 {
			t.Errorf("%d orders", ca.orderCount())
		}
		// One with tls-alpn-01 alone, asked of another node.
		n := startNode(t, ca, dir, func(c *ACMEConfig) { c.HTTP01 = false }, "alpn.example.org")
		ca.set(func() { ca.nodes = ca.nodes[:1] })
		pass(time.Second)
		if n.get("alpn.example.org") == nil {
			t.Error(n.messages())
		}
		if _, err := n.ALPN(challengeHello("alpn.example.org")); err == nil {
			t.Error("an answer after the challenge is over")
		}
	})
}

// TestACMENodesFail lets three nodes fail together: the authority counts what all of them do.
func TestACMENodesFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, dir := newFakeCA(t), t.TempDir()
		ca.refuse = func(string, string) error { return errors.New("no such host") }
		ca.slow = func(_ *http.Request, wait func(time.Duration)) { wait(time.Second) }
		for range 3 {
			startNode(t, ca, dir, ecdsaOnly, "imap.example.org")
		}
		pass(time.Hour)
		if got := ca.orderCount(); got < 4 || got > 5 { // at 0, 1, 6 and 21 minutes
			t.Errorf("%d orders in an hour", got)
		}
	})
}

// TestACMEKinds has one name fail for both kinds of keys: the authority counts by name. What
// mends one is tried for the other at once.
func TestACMEKinds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := newFakeCA(t)
		ca.refuse = func(kind, _ string) error { return errors.New("no such host") }
		n := startNode(t, ca, t.TempDir(), func(c *ACMEConfig) { c.RSA = true }, "imap.example.org")
		pass(time.Hour)
		var kinds []string
		for _, o := range ca.orders {
			kinds = append(kinds, o.kind)
		}
		if !slices.Equal(kinds, []string{http01, tlsalpn01, http01, tlsalpn01}) { // at 0, 1, 6 and 21 minutes
			t.Errorf("tried %q", kinds)
		}
		if gap := ca.orders[1].created.Sub(ca.orders[0].created); gap < time.Minute {
			t.Errorf("the other kind was tried after %v", gap)
		}
		ca.set(func() {
			ca.refuse = func(kind, _ string) error {
				if kind == http01 {
					return errors.New("port 80 is closed")
				}
				return nil
			}
		})
		pass(5 * time.Hour)
		before := ca.orderCount()
		if n.get("imap.example.org") == nil || n.kind("imap.example.org", RSA, Keep) == nil {
			t.Errorf("%d orders: %+v", before, n.Status())
		}
		if last := ca.orders[before-2:]; last[1].created.Sub(last[0].created) > time.Second {
			t.Errorf("the other kind waited for %v", last[1].created.Sub(last[0].created))
		}
	})
}

// TestACMEKindRefused has an authority that signs no RSA keys, and certificates of an hour: those
// of ECDSA do not suffer.
func TestACMEKindRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := newFakeCA(t)
		ca.life = time.Hour
		ca.chain = func(leaf []byte, _ string) [][]byte {
			if c, _ := x509.ParseCertificate(leaf); c.PublicKeyAlgorithm == x509.RSA {
				return nil
			}
			return [][]byte{leaf}
		}
		n := startNode(t, ca, t.TempDir(), func(c *ACMEConfig) { c.RSA = true }, "imap.example.org")
		pass(time.Second)
		for range 6 * 12 {
			pass(5 * time.Minute)
			if leaf := n.get("imap.example.org"); leaf == nil || time.Now().After(leaf.NotAfter) {
				t.Fatalf("at %v: %v", time.Now(), leaf)
			}
		}
		if s := n.Status()[1]; s.KeyType != RSA || s.Error != "getting the certificate: certificate chain is empty" {
			t.Errorf("%+v", s)
		}
	})
}

// TestACMELease has a lease that somebody died with.
func TestACMELease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, dir := newFakeCA(t), t.TempDir()
		s, err := openState(dir, fakeDirectory)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := lease(s.path("leases", "imap.example.org"), time.Now(), leaseTime); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(s.path("leases", "pop.example.org"), []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(s.path("leases", "smtp.example.org"), []byte(`{"until":"2099-01-01T00:00:00Z"}`), 0o600); err != nil {
			t.Fatal(err)
		}
		n := startNode(t, ca, dir, ecdsaOnly, "imap.example.org", "pop.example.org", "smtp.example.org")
		pass(time.Second)
		if n.get("imap.example.org") != nil || n.get("pop.example.org") == nil || n.get("smtp.example.org") == nil {
			t.Errorf("%q", ca.list())
		}
		pass(leaseTime)
		if n.get("imap.example.org") == nil {
			t.Error("the stale lease holds for ever")
		}
		if files, _ := filepath.Glob(s.path("leases", "*")); len(files) != 0 {
			t.Errorf("leases are left: %q", files)
		}
	})
}

// TestACMECorrupt breaks one file after the other.
func TestACMECorrupt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, dir := newFakeCA(t), t.TempDir()
		n := startNode(t, ca, dir, ecdsaOnly, "imap.example.org", "pop.example.org")
		pass(time.Second)
		imap, pop := pair{"imap.example.org", ECDSA}, pair{"pop.example.org", ECDSA}
		write := func(path, text string) {
			t.Helper()
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}

		// While it runs, what it has stays, and is written again.
		leaf := n.get("imap.example.org")
		write(n.state.cert(imap), "rubbish")
		write(n.state.record(imap), "[1, 2")
		pass(2 * scanPause)
		if got := n.get("imap.example.org"); got == nil || !got.Equal(leaf) || ca.orderCount() != 2 {
			t.Errorf("%v after %d orders", got, ca.orderCount())
		}
		if cert, _, bad := n.state.load(imap); cert == nil || !cert.Leaf.Equal(leaf) || len(bad) > 0 {
			t.Errorf("not written again: %v", bad)
		}
		if text := n.messages(); strings.Count(text, "is corrupt, and moved aside") != 2 {
			t.Error(text)
		}
		n.stop()

		// At a start, it is ordered anew. A certificate of another name is as good as rubbish.
		data, err := os.ReadFile(n.state.cert(imap))
		if err != nil {
			t.Fatal(err)
		}
		write(n.state.cert(pop), string(data))
		write(n.state.cert(imap), strings.Replace(string(data), "MI", "XX", 1))
		write(n.state.accountFile(nil)+".key", "rubbish")
		n = startNode(t, ca, dir, ecdsaOnly, "imap.example.org", "pop.example.org")
		for _, p := range []pair{imap, pop} {
			if _, err := os.Stat(n.state.cert(p) + ".bad"); err != nil {
				t.Error(err)
			}
		}
		pass(time.Second)
		if n.get("imap.example.org") == nil || n.get("pop.example.org") == nil || ca.orderCount() != 4 || len(ca.accounts) != 2 ||
			strings.Count(n.messages(), "error: the key of the ACME account is corrupt, and moved aside; a new account is made") != 1 {
			t.Errorf("%d orders, %d accounts: %s", ca.orderCount(), len(ca.accounts), n.messages())
		}
		n.stop()

		// A directory that is no directory is told at once.
		write(filepath.Join(dir, "file"), "")
		if _, err := NewACME(ACMEConfig{Directory: fakeDirectory, Dir: filepath.Join(dir, "file"), HTTP01: true}); err == nil {
			t.Error("a file for a directory")
		}
		// An admin who removes a certificate gets a new one.
		if err := os.Remove(n.state.cert(imap)); err != nil {
			t.Fatal(err)
		}
		n = startNode(t, ca, dir, ecdsaOnly, "imap.example.org", "pop.example.org")
		if pass(time.Second); n.get("imap.example.org") == nil {
			t.Error(n.messages())
		}
	})
}

// TestACMEFull takes away the directory in which certificates are written.
func TestACMEFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, dir := newFakeCA(t), t.TempDir()
		ca.life = time.Hour
		n := startNode(t, ca, dir, ecdsaOnly, "imap.example.org")
		pass(time.Second)
		leaf := n.get("imap.example.org")
		names := n.state.path("names")
		if err := os.Rename(names, names+".away"); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(names, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		pass(45 * time.Minute)
		got := n.get("imap.example.org")
		if got == nil || got.Equal(leaf) || ca.orderCount() != 2 {
			t.Fatalf("%v after %d orders", got, ca.orderCount())
		}
		if s := n.only(t); s.File != "" || !strings.Contains(s.Error, "in memory only") {
			t.Errorf("%+v", s)
		}
		if text := n.messages(); !strings.Contains(text, "error: the state of a certificate is kept in memory only; make room") ||
			strings.Count(text, "error: the state directory of ACME cannot be read or written") != 1 {
			t.Error(text)
		}
		if err := errors.Join(os.Remove(names), os.Rename(names+".away", names)); err != nil {
			t.Fatal(err)
		}
		pass(2 * time.Minute)
		if cert, _, _ := n.state.load(pair{"imap.example.org", ECDSA}); cert == nil || !cert.Leaf.Equal(got) {
			t.Error("it is not written when there is room again")
		}
		if !strings.Contains(n.messages(), "info: the state directory of ACME can be used again") || n.only(t).Error != "" {
			t.Error(n.messages())
		}
	})
}

func TestACMEAccount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, dir := newFakeCA(t), t.TempDir()
		ca.eab = map[string][]byte{"me": []byte("0123456789abcdef")}
		bound := func(key string) func(*ACMEConfig) {
			return func(c *ACMEConfig) { c.EAB = &EAB{KeyID: "me", Key: []byte(key)} }
		}
		n := startNode(t, ca, dir, bound("wrong-secret"), "imap.example.org")
		pass(time.Second)
		if s := n.only(t); s.Error != "registering an account: the external account binding is wrong (unauthorized)" || strings.Contains(n.messages(), "wrong-secret") {
			t.Errorf("%+v", s)
		}
		n.stop()
		n = startNode(t, ca, dir, bound("0123456789abcdef"), "imap.example.org")
		pass(2 * time.Minute)
		if n.get("imap.example.org") == nil {
			t.Fatal(n.messages())
		}
		n.stop()

		// A new address is told, by the same account.
		n = startNode(t, ca, dir, func(c *ACMEConfig) {
			bound("0123456789abcdef")(c)
			c.Email = "new@example.org"
		}, "imap.example.org", "pop.example.org")
		pass(time.Second)
		if n.get("pop.example.org") == nil || len(ca.accounts) != 1 || ca.accounts[0].contact[0] != "mailto:new@example.org" {
			t.Errorf("%+v", ca.accounts[0])
		}

		// An authority that forgot us is told again.
		ca.set(func() { ca.accounts[0] = nil })
		n.Keep([]string{"imap.example.org", "pop.example.org", "smtp.example.org"})
		pass(time.Second)
		if n.get("smtp.example.org") == nil || len(ca.accounts) != 2 {
			t.Error(n.messages())
		}
	})
}

// TestACMEDemand orders for handshakes.
func TestACMEDemand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, dir := newFakeCA(t), t.TempDir()
		ca.slow = func(_ *http.Request, wait func(time.Duration)) { wait(100 * time.Millisecond) }
		n := startNode(t, ca, dir, func(c *ACMEConfig) { c.Hourly, c.RSA = 3, true })
		var hands sync.WaitGroup
		for range 20 {
			hands.Go(func() {
				if leaf := n.kind("mail.customer.example", ECDSA, Listed); leaf == nil {
					t.Error("no certificate")
				}
			})
		}
		hands.Wait()
		if ca.orderCount() != 1 {
			t.Errorf("%d orders for one name", ca.orderCount())
		}
		for _, name := range []string{"", "customer", "192.0.2.1", "../../etc.passwd", "a..b", "-a.example", "mail.customer.example/../x", strings.Repeat("a.", 120) + "example"} {
			if n.kind(name, ECDSA, Listed) != nil {
				t.Errorf("a certificate for %q", name)
			}
		}
		if n.kind("mail.customer.example", Ed25519, Listed) != nil || n.kind("mail.other.example", ECDSA, Confirmed) != nil || n.kind("mail.other.example", ECDSA, Keep) != nil {
			t.Error("certificates that nobody may order")
		}
		if s := n.only(t); s.Canonical || s.Name != "mail.customer.example" {
			t.Errorf("%+v", s)
		}

		// One that fails is not tried again for an hour.
		ca.set(func() { ca.refuse = func(string, string) error { return errors.New("it points elsewhere") } })
		for range 5 {
			if n.kind("gone.customer.example", ECDSA, Listed) != nil {
				t.Error("no certificate was expected")
			}
		}
		if ca.orderCount() != 2 {
			t.Errorf("%d orders", ca.orderCount())
		}
		ca.set(func() { ca.refuse = nil })

		// The budget of three is spent with the next one, and outlives a restart.
		if n.kind("third.customer.example", RSA, Listed) == nil || n.kind("fourth.customer.example", ECDSA, Listed) != nil {
			t.Error("the budget")
		}
		if !strings.Contains(n.messages(), "warn: the budget for new certificates is spent") {
			t.Error(n.messages())
		}
		n.stop()
		n = startNode(t, ca, dir, func(c *ACMEConfig) { c.Hourly = 3 }, "imap.example.org")
		pass(time.Minute)
		if n.kind("fourth.customer.example", ECDSA, Listed) != nil || n.get("imap.example.org") == nil {
			t.Error("the budget after a restart, or for a canonical name")
		}
		pass(time.Hour)
		if n.kind("fourth.customer.example", ECDSA, Listed) == nil {
			t.Error("no budget after an hour")
		}

		// A slow authority costs a handshake ten seconds, once; the order goes on.
		ca.set(func() { ca.slow = func(_ *http.Request, wait func(time.Duration)) { wait(3 * time.Second) } })
		began := time.Now()
		if n.kind("slow.customer.example", ECDSA, Listed) != nil || time.Since(began) != orderPatience {
			t.Errorf("waited %v", time.Since(began))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if cert, err := n.Certificate(ctx, "slow.customer.example", ECDSA, Listed); cert != nil || err != nil || time.Since(began) != orderPatience+time.Second {
			t.Errorf("%v, %v, waited %v", cert, err, time.Since(began))
		}
		pass(time.Minute)
		if n.kind("slow.customer.example", ECDSA, Listed) == nil {
			t.Error("the order did not go on")
		}
	})
}

// TestACMEDemandFails: a name that the authority has judged waits for an hour, but its own
// outage is no judgement, and customers of the name wait for its end.
func TestACMEDemandFails(t *testing.T) {
	for name, test := range map[string]struct {
		set  func(*fakeCA)
		wait time.Duration
	}{
		"refused": {func(ca *fakeCA) { ca.refuse = func(string, string) error { return errors.New("it points elsewhere") } }, time.Hour},
		"limited": {func(ca *fakeCA) { ca.hook = only("/order", problem(429, "rateLimited", "too many")) }, time.Hour},
		"down": {func(ca *fakeCA) {
			ca.hook = func(*http.Request) (*http.Response, error) { return nil, errors.New("connection refused") }
		}, time.Minute},
		"in trouble": {func(ca *fakeCA) { ca.hook = only("/order", problem(503, "serverInternal", "down")) }, time.Minute},
		"silent":     {func(ca *fakeCA) { ca.slow = func(_ *http.Request, wait func(time.Duration)) { wait(time.Hour) } }, time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ca := newFakeCA(t)
				test.set(ca)
				n := startNode(t, ca, t.TempDir(), ecdsaOnly)
				n.kind("mail.customer.example", ECDSA, Listed)
				pass(orderTime)
				if s := n.only(t); s.Failures != 1 || s.Next.Sub(s.Tried) < test.wait || s.Next.Sub(s.Tried) > test.wait+test.wait/10+time.Second {
					t.Errorf("tried again after %v: %s", s.Next.Sub(s.Tried), s.Error)
				}
			})
		})
	}
}

// With the budget spent, the lookup is left in peace.
func TestACMEDemandLookup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, asked := newFakeCA(t), 0
		ca.hook = func(req *http.Request) (*http.Response, error) {
			if req.URL.Host != "lookup.example.test" {
				return nil, nil
			}
			asked++
			return answer(200, ""), nil
		}
		n := startNode(t, ca, t.TempDir(), func(c *ACMEConfig) { c.Hourly, c.Lookup = 2, "https://lookup.example.test/" })
		for i := range 10 {
			if got := n.kind(fmt.Sprintf("imap.customer-%d.example", i), ECDSA, Confirmed); (got != nil) != (i < 2) {
				t.Errorf("handshake %d: %v", i, got)
			}
		}
		if got := ca.orderCount(); got != 2 || asked != 3 { // the third name finds the budget spent
			t.Errorf("%d orders, and the lookup was asked %d times", got, asked)
		}
		pass(time.Hour)
		if n.kind("imap.customer-9.example", ECDSA, Confirmed) == nil {
			t.Error("no certificate an hour later")
		}
	})
}

// TestACMEUnused renews what customers use.
func TestACMEUnused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, dir := newFakeCA(t), t.TempDir()
		ca.life = 48 * 24 * time.Hour // renewed after 32 days or a little later
		n := startNode(t, ca, dir, ecdsaOnly)
		used, idle := n.kind("used.customer.example", ECDSA, Listed), n.kind("idle.customer.example", ECDSA, Listed)
		if used == nil || idle == nil {
			t.Fatal(n.messages())
		}
		for i := range 60 {
			if i == 30 { // the days of use outlive a restart
				n.stop()
				n = startNode(t, ca, dir, ecdsaOnly)
			}
			n.kind("used.customer.example", ECDSA, Listed)
			pass(24 * time.Hour)
		}
		if got := n.get("used.customer.example"); got == nil || got.Equal(used) || ca.orderCount() != 3 {
			t.Errorf("%v after %d orders", got, ca.orderCount())
		}
		// Whoever comes back after all gets a new one.
		if got := n.kind("idle.customer.example", ECDSA, Listed); got == nil || got.Equal(idle) || time.Now().After(got.NotAfter) {
			t.Errorf("%v", got)
		}
		// In the end, nothing is left.
		pass(85 * 24 * time.Hour)
		if files, _ := filepath.Glob(n.state.path("names", "*")); len(files) > 0 || len(n.Status()) > 0 || n.get("used.customer.example") != nil {
			t.Errorf("%q are left, %+v", files, n.Status())
		}
	})
}

// TestACMEHandshakes asks as handshakes do while certificates are renewed.
func TestACMEHandshakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := newFakeCA(t)
		ca.life = time.Minute
		n := startNode(t, ca, t.TempDir(), ecdsaOnly, "imap.example.org", "pop.example.org")
		pass(time.Second)
		var hands sync.WaitGroup
		for range 4 {
			hands.Go(func() {
				for range 500 {
					if n.get("imap.example.org") == nil || n.get("pop.example.org") == nil {
						t.Error("no certificate")
					}
					n.Status()
					time.Sleep(time.Second)
				}
			})
		}
		hands.Wait()
		if allocs := testing.AllocsPerRun(100, func() {
			if c, err := n.Certificate(context.Background(), "imap.example.org", ECDSA, Keep); c == nil || err != nil {
				t.Error(err)
			}
		}); allocs > 0 {
			t.Errorf("%v allocations for a handshake", allocs)
		}
	})
}
