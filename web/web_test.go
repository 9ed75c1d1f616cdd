package web

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"mailreeve/certs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pipes is a listener whose connections are pipes, so that time in a bubble stands
// still while both ends wait.
type pipes struct {
	conns  chan net.Conn
	errors chan error
	closed chan struct{}
	once   sync.Once
}

func listen() *pipes {
	return &pipes{conns: make(chan net.Conn), errors: make(chan error), closed: make(chan struct{})}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case err := <-p.errors:
		return nil, err
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

// from is a pipe's end with a client's address.
type from struct {
	net.Conn
	addr string
}

func (f from) RemoteAddr() net.Addr { return named(f.addr) }

type named string

func (n named) Network() string { return "tcp" }
func (n named) String() string  { return string(n) }

// dial connects from an address, and closes with the test.
func (p *pipes) dial(t testing.TB, addr string) net.Conn {
	t.Helper()
	ours, theirs := net.Pipe()
	t.Cleanup(func() { ours.Close() })
	p.conns <- from{theirs, addr}
	return ours
}

// site is a site of two brands, and its listeners in clear and over TLS.
type site struct {
	*Site
	clear, secure *pipes
	log           *observer.ObservedLogs
}

var twoBrands = Settings{
	Pages: []Page{
		{Brand: "Beispiel-Net", Language: "de", Help: "https://hilfe.example.org/mail", Servers: []Server{
			{"imap", "imap.example.org", 993}, {"pop3", "pop3.example.org", 995}, {"submission", "smtp.example.org", 465}}},
		{Brand: "Example Net", Language: "en", Servers: []Server{{"imap", "imap.example.net", 1993}}},
	},
	Brand: func(host string) int {
		if host == "imap.example.net" {
			return 1
		}
		return 0
	},
	HTTP01: func(token string) (string, bool) { return token + ".print", token == "good-Token_1" },
}

func open(t testing.TB, settings *Settings) *site {
	t.Helper()
	core, seen := observer.New(zapcore.DebugLevel)
	s := &site{Site: &Site{Log: zap.New(core)}, clear: listen(), secure: listen(), log: seen}
	if settings != nil {
		s.Apply(*settings)
	}
	s.Serve(s.clear, false)
	s.Serve(s.secure, true)
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		s.Shutdown(ctx)
	})
	return s
}

// say sends a request as it stands, with CRLF for its line ends, and returns the answer.
func (s *site) say(t testing.TB, request string) (*http.Response, string) {
	t.Helper()
	conn := s.clear.dial(t, "192.0.2.1:1024")
	go io.WriteString(conn, strings.ReplaceAll(request, "\n", "\r\n"))
	method, _, _ := strings.Cut(request, " ")
	res, body, err := receive(bufio.NewReader(conn), method)
	if err != nil {
		t.Fatalf("%.60q: %v", request, err)
	}
	conn.Close()
	return res, body
}

func receive(r *bufio.Reader, method string) (*http.Response, string, error) {
	res, err := http.ReadResponse(r, &http.Request{Method: method})
	if err != nil {
		return nil, "", err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	return res, string(body), err
}

func get(path, host string) string {
	return fmt.Sprintf("GET %s HTTP/1.1\nHost: %s\n\n", path, host)
}

func TestAnswers(t *testing.T) {
	for _, c := range []struct {
		name, request string
		status        int
		in            string // what stands in the answer
	}{
		{"page", get("/", "imap.example.org"), 200, "imap.example.org"},
		{"other brand", get("/", "IMAP.Example.Net.:80"), 200, "imap.example.net"},
		{"unknown host", get("/", "nobody.example"), 200, "imap.example.org"},
		{"address", get("/", "[2001:db8::1]:80"), 200, "imap.example.org"},
		{"no host, HTTP/1.0", "GET / HTTP/1.0\n\n", 200, "imap.example.org"},
		{"other path", get("/favicon.ico", "imap.example.org"), 404, "imap.example.org"},
		{"query", get("/?lang=en", "imap.example.org"), 200, "lang=\"de\""},
		{"absolute form", get("http://imap.example.net/", "imap.example.org"), 200, "imap.example.net"},
		{"absolute form elsewhere", get("http://evil.example/x", "imap.example.org"), 404, "imap.example.org"},
		{"double slash", get("//evil.example/", "imap.example.org"), 404, "imap.example.org"},
		{"dots", get("/../../etc/passwd", "imap.example.org"), 404, "imap.example.org"},

		{"challenge", get(challenges+"good-Token_1", "anything.example"), 200, "good-Token_1.print"},
		{"challenge, percent", get(challenges+"good%2DToken_1", "anything.example"), 200, "good-Token_1.print"},
		{"challenge, query", get(challenges+"good-Token_1?x", "anything.example"), 200, "good-Token_1.print"},
		{"other token", get(challenges+"bad-Token_1", "anything.example"), 404, "no such challenge"},
		{"no token", get(challenges, "anything.example"), 404, "no such challenge"},
		{"the folder", get(strings.TrimSuffix(challenges, "/"), "imap.example.org"), 404, "imap.example.org"},

		{"HEAD", "HEAD / HTTP/1.1\nHost: imap.example.org\n\n", 200, ""},
		{"POST", "POST / HTTP/1.1\nHost: a\nContent-Length: 5\n\nhello", 405, "only shows a page"},
		{"PUT", "PUT " + challenges + "good-Token_1 HTTP/1.1\nHost: a\nContent-Length: 0\n\n", 405, "only shows a page"},
		{"OPTIONS *", "OPTIONS * HTTP/1.1\nHost: a\n\n", 405, "only shows a page"},
		{"CONNECT", "CONNECT evil.example:443 HTTP/1.1\nHost: evil.example:443\n\n", 405, "only shows a page"},
		{"TRACE", "TRACE / HTTP/1.1\nHost: a\nCookie: secret\n\n", 405, "only shows a page"},
		{"body to GET", "GET / HTTP/1.1\nHost: a\nContent-Length: 1000000\n\n", 200, "imap.example.org"},
		{"chunked body to GET", "GET / HTTP/1.1\nHost: a\nTransfer-Encoding: chunked\n\n", 200, "imap.example.org"},
	} {
		t.Run(c.name, func(t *testing.T) {
			res, body := open(t, &twoBrands).say(t, c.request)
			if res.StatusCode != c.status || !strings.Contains(body, c.in) || c.in == "" && body != "" {
				t.Errorf("%s\n%s", res.Status, body)
			}
			checkHeader(t, res)
		})
	}
}

// checkHeader looks at what every answer of ours has, and what none has.
func checkHeader(t testing.TB, res *http.Response) {
	t.Helper()
	for key, value := range map[string]string{
		"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Content-Security-Policy": contentPolicy,
		"Location": "", "Server": "", "Set-Cookie": "", "Strict-Transport-Security": "", "Refresh": "",
	} {
		if got := res.Header.Get(key); got != value {
			t.Errorf("%s: %q, want %q", key, got, value)
		}
	}
	allow := ""
	if res.StatusCode == 405 {
		allow = "GET, HEAD"
	}
	if got := res.Header.Get("Allow"); got != allow {
		t.Errorf("Allow: %q, want %q", got, allow)
	}
	if cache := res.Header.Get("Cache-Control"); cache != "no-store" && cache != "max-age=300" {
		t.Errorf("Cache-Control: %q", cache)
	}
}

// TestNothingReflected sends a mark in every place of a request and looks for it in
// every kind of answer, those of net/http too.
func TestNothingReflected(t *testing.T) {
	const mark = "rEfLeCtEd"
	s := open(t, &twoBrands)
	for _, request := range []string{
		get("/"+mark+"?"+mark, mark+".example"),
		get("/", mark+"<script>"),
		get("/", `"><script>`+mark),
		get("/", mark+" x"),
		get("/%0d%0aLocation:%20"+mark, "a"),
		get("http://"+mark+".example/"+mark, "a"),
		get("http://"+mark+"@imap.example.org/", "a"),
		get("/"+mark+"/%zz", "a"),
		get(challenges+mark, "a"),
		get(challenges+"../"+mark, "a"),
		mark + " / HTTP/1.1\nHost: a\n\n",
		"GET / HTTP/" + mark + "\nHost: a\n\n",
		"GET / HTTP/1.1\nHost: a\nHost: " + mark + "\n\n",
		"GET / HTTP/1.1\nHost: a\nX-Forwarded-Host: " + mark + "\nX-Forwarded-Proto: https\nForwarded: host=" + mark + "\n\n",
		"GET / HTTP/1.1\nHost: a\nX-Original-URL: /" + mark + "\nOrigin: http://" + mark + "\nReferer: " + mark + "\n\n",
		"GET / HTTP/1.1\nHost: a\nConnection: Upgrade, HTTP2-Settings\nUpgrade: h2c\nHTTP2-Settings: " + mark + "\n\n",
		"GET / HTTP/1.1\nHost: a\nExpect: " + mark + "\n\n",
		"GET / HTTP/1.1\nHost: a\nRange: bytes=0-1\nX: " + mark + "\n\n",
		"GET / HTTP/1.1\nHost: a\nAccept-Encoding: " + mark + "\nAccept-Language: " + mark + "\n\n",
		"GET / HTTP/1.1\nHost: a\n" + mark + " : x\n\n",
		"GET / HTTP/1.1\nHost: a\nTransfer-Encoding: " + mark + "\n\n",
		"PRI * HTTP/2.0\n\nSM\n\n" + mark,
	} {
		res, body := s.say(t, request)
		var header strings.Builder
		res.Header.Write(&header)
		if strings.Contains(strings.ToLower(res.Status+header.String()+body), strings.ToLower(mark)) {
			t.Errorf("%q is reflected:\n%s\n%s%s", request, res.Status, &header, body)
		}
		if res.StatusCode/100 == 3 || res.StatusCode/100 == 1 || res.Header.Get("Location") != "" {
			t.Errorf("%q: %s", request, res.Status)
		}
	}
	for _, line := range s.log.All() {
		for _, field := range line.Context {
			if len(field.String) > 200 || strings.ContainsAny(field.String, "\r\n\x1b") {
				t.Errorf("in the log: %q", field.String)
			}
		}
	}
}

// TestTokens asks with paths that must not become tokens.
func TestTokens(t *testing.T) {
	var asked []string
	settings := Settings{HTTP01: func(token string) (string, bool) {
		asked = append(asked, token)
		return "answer", true
	}}
	s := open(t, &settings)
	for _, token := range []string{
		"..", "../x", "..%2fx", "%2e%2e%2fx", "x/../y", "x/y", "x%00", "x%0a", ".", "x.pem", "~x", "x+y", "x=", "x%20y", "C:x", "%c3%a4", `x\y`,
		strings.Repeat("x", maxToken+1),
	} {
		if res, _ := s.say(t, get(challenges+token, "a")); res.StatusCode != 404 {
			t.Errorf("%q: %s", token, res.Status)
		}
	}
	if asked != nil {
		t.Errorf("asked for %q", asked)
	}
	long := strings.Repeat("x", maxToken)
	if res, body := s.say(t, get(challenges+long, "a")); body != "answer" || res.Header.Get("Content-Type") != "text/plain" || len(asked) != 1 {
		t.Errorf("%s %v %q", res.Status, res.Header, body)
	}
}

// TestHosts has the hosts that the choice of a brand is asked for.
func TestHosts(t *testing.T) {
	for header, want := range map[string]string{
		"imap.example.org": "imap.example.org", "IMAP.example.ORG:8080": "imap.example.org", "imap.example.org.": "imap.example.org",
		"imap.example.org.:80": "imap.example.org", "localhost": "localhost", "": "", "192.0.2.1:80": "192.0.2.1",
		"[::1]:80": "", "a b": "", "a/b": "", "a_b.example": "", "münchen.example": "", "a%2e": "", "a..b": "a..b",
		strings.Repeat("a", maxHost): strings.Repeat("a", maxHost), strings.Repeat("a", maxHost+1): "",
	} {
		if got := hostName(header); got != want {
			t.Errorf("%q: %q, want %q", header, got, want)
		}
	}
	for _, i := range []int{-1, 2, 1 << 40} {
		settings := twoBrands
		settings.Brand = func(string) int { return i }
		if _, body := open(t, &settings).say(t, get("/", "a")); !strings.Contains(body, "imap.example.org") {
			t.Errorf("brand %d has no page: %s", i, body)
		}
	}
}

func TestPipelining(t *testing.T) {
	s := open(t, &twoBrands)
	conn := s.clear.dial(t, "192.0.2.1:1024")
	go io.WriteString(conn, strings.ReplaceAll(get("/", "imap.example.net")+get(challenges+"good-Token_1", "x")+
		"POST / HTTP/1.1\nHost: a\nContent-Length: 30\n\n"+"GET /smuggled HTTP/1.1\nHost: a\n\n", "\n", "\r\n"))
	r := bufio.NewReader(conn)
	for _, want := range []string{"imap.example.net", "good-Token_1.print", "only shows a page"} {
		res, body, err := receive(r, "GET")
		if err != nil || !strings.Contains(body, want) {
			t.Fatalf("%v %q, want %s", err, body, want)
		}
		if res.Close != strings.HasPrefix(want, "only") {
			t.Errorf("%s: close is %v", want, res.Close)
		}
	}
	if _, _, err := receive(r, "GET"); err == nil {
		t.Error("a body became a request")
	}
}

func TestHugeHeader(t *testing.T) {
	s := open(t, &twoBrands)
	conn := s.clear.dial(t, "192.0.2.1:1024")
	go func() {
		io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a\r\n")
		for range 1 << 20 {
			if _, err := io.WriteString(conn, "X: "+strings.Repeat("x", 100)+"\r\n"); err != nil {
				return
			}
		}
	}()
	res, _, err := receive(bufio.NewReader(conn), "GET")
	if err != nil || res.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("%v %v", res, err)
	}
	if res, _ := s.say(t, "GET /"+strings.Repeat("x", 1<<15)+" HTTP/1.1\nHost: a\n\n"); res.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("a long line: %s", res.Status)
	}
}

// TestPatience has clients that take their time.
func TestPatience(t *testing.T) {
	for _, c := range []struct {
		name    string
		secure  bool
		session func(t *testing.T, conn net.Conn)
		want    time.Duration
	}{
		{"silent", false, func(*testing.T, net.Conn) {}, headerPatience},
		{"silent, TLS", true, func(*testing.T, net.Conn) {}, headerPatience},
		{"dripping header", false, func(_ *testing.T, conn net.Conn) {
			io.WriteString(conn, "GET / HTTP/1.1\r\n")
			go func() {
				for {
					time.Sleep(time.Second)
					if _, err := io.WriteString(conn, "X: x\r\n"); err != nil {
						return
					}
				}
			}()
		}, headerPatience},
		{"idle", false, func(t *testing.T, conn net.Conn) {
			io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
			if _, _, err := receive(bufio.NewReader(conn), "GET"); err != nil {
				t.Error(err)
			}
		}, idlePatience},
		{"dripping body", false, func(t *testing.T, conn net.Conn) {
			io.WriteString(conn, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n")
			if _, _, err := receive(bufio.NewReader(conn), "GET"); err != nil {
				t.Error(err)
			}
		}, patience}, // net/http reads on, so that no reset overtakes the answer
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := open(t, &twoBrands)
				l := s.clear
				if c.secure {
					l = s.secure
				}
				conn := l.dial(t, "192.0.2.1:1024")
				c.session(t, conn)
				began := time.Now()
				io.Copy(io.Discard, conn)
				if took := time.Since(began); took != c.want {
					t.Errorf("closed after %v, want %v", took, c.want)
				}
				conn.Close()
				time.Sleep(time.Second) // so that what drips finds out
			})
		})
	}
	t.Run("does not read", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := open(t, &twoBrands)
			conn := s.clear.dial(t, "192.0.2.1:1024")
			io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
			time.Sleep(patience + time.Second)
			synctest.Wait()
			if n := s.places.taken(); n != 0 {
				t.Errorf("%d connections are left", n)
			}
		})
	})
}

// taken counts by both ways of counting.
func (p *places) taken() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for _, of := range p.by {
		n += len(of)
	}
	return max(n, p.total)
}

// TestPlaces fills the site: one client, then many. Whoever comes has a place, and the oldest
// connection of the client with the most of them has none any more.
func TestPlaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, &twoBrands)
		closed := func(conn net.Conn) bool {
			synctest.Wait()
			conn.SetReadDeadline(time.Now().Add(time.Millisecond))
			_, err := conn.Read(make([]byte, 1))
			return errors.Is(err, io.EOF)
		}
		var one []net.Conn
		for i := range maxPerClient {
			one = append(one, s.clear.dial(t, fmt.Sprintf("[2001:db8::%x]:1024", i)))
		}
		if closed(one[0]) {
			t.Error("one client does not have its places")
		}
		if closed(s.secure.dial(t, "[2001:db8::ffff]:1024")) || !closed(one[0]) || closed(one[1]) {
			t.Error("one client has more than its places, or another connection than the oldest is closed")
		}
		one[1].Close()
		synctest.Wait()
		if closed(s.secure.dial(t, "[2001:db8::fffe]:1024")) || closed(one[2]) {
			t.Error("a place was not given back")
		}
		var many []net.Conn
		for i := s.places.taken(); i < maxConnections; i++ {
			many = append(many, s.clear.dial(t, fmt.Sprintf("192.0.2.%d:1024", i%200)))
		}
		if closed(one[2]) {
			t.Error("the places are fewer")
		}
		last := s.clear.dial(t, "198.51.100.1:1024")
		if !closed(one[2]) || closed(many[0]) {
			t.Error("there is no bound in all, or it is not the heaviest client that bears it")
		}
		if n := s.places.taken(); n != maxConnections {
			t.Errorf("%d places are taken", n)
		}
		io.WriteString(last, strings.ReplaceAll(get(challenges+"x", "a"), "\n", "\r\n"))
		if _, _, err := receive(bufio.NewReader(last), "GET"); err != nil {
			t.Errorf("the authority is not answered: %v", err)
		}
		time.Sleep(idlePatience)
		synctest.Wait()
		if n := s.places.taken(); n != 0 {
			t.Errorf("%d places are taken by nobody", n)
		}
	})
}

// TestAcceptSurvives has a system without descriptors for a while.
func TestAcceptSurvives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, &twoBrands)
		for _, err := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ECONNABORTED, syscall.ENOBUFS, errors.New("anything")} {
			s.clear.errors <- &net.OpError{Op: "accept", Err: err}
		}
		if res, _ := s.say(t, get("/", "a")); res.StatusCode != 200 {
			t.Error(res.Status)
		}
		if n := s.log.FilterLevelExact(zapcore.ErrorLevel).Len(); n != 5 {
			t.Errorf("%d lines in the log", n)
		}
		s.clear.errors <- syscall.EMFILE // and the end comes in a pause
		synctest.Wait()
		began := time.Now()
		s.Shutdown(t.Context())
		if took := time.Since(began); took != 0 {
			t.Errorf("the shutdown took %v", took)
		}
	})
}

// TestApply changes pages under the readers.
func TestApply(t *testing.T) {
	s := open(t, nil)
	if res, body := s.say(t, get("/", "a")); res.StatusCode != 200 || strings.Contains(body, "<table>") {
		t.Errorf("before any settings: %s\n%s", res.Status, body)
	}
	var over atomic.Bool
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for !over.Load() {
				if res, _ := s.say(t, get("/", "imap.example.net")); res.StatusCode != 200 {
					t.Error(res.Status)
				}
			}
		})
	}
	for range 50 {
		s.Apply(twoBrands)
		s.Apply(Settings{})
	}
	s.Apply(twoBrands)
	over.Store(true)
	all.Wait()
	if _, body := s.say(t, get("/", "imap.example.net")); !strings.Contains(body, "1993") {
		t.Error(body)
	}
}

// TestShutdown lets a request end and cuts one that does not.
func TestShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		settings := twoBrands
		reached, answer := make(chan bool), make(chan bool)
		settings.HTTP01 = func(string) (string, bool) {
			reached <- true
			return "late", <-answer
		}
		s := open(t, &settings)
		conn := s.clear.dial(t, "192.0.2.1:1024")
		io.WriteString(conn, strings.ReplaceAll(get(challenges+"x", "a"), "\n", "\r\n"))
		<-reached
		stuck := s.secure.dial(t, "192.0.2.1:1024")
		stuck.Write([]byte{0x16, 3, 1})
		done := make(chan time.Duration)
		go func() {
			began := time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			defer cancel()
			s.Shutdown(ctx)
			done <- time.Since(began)
		}()
		time.Sleep(time.Second)
		answer <- true
		if _, body, err := receive(bufio.NewReader(conn), "GET"); err != nil || body != "late" {
			t.Errorf("%q %v", body, err)
		}
		if took := <-done; took != 2*time.Second {
			t.Errorf("the shutdown took %v", took)
		}
		if _, err := stuck.Read(make([]byte, 1)); err == nil {
			t.Error("a connection outlived the shutdown")
		}
		late := listen()
		s.Serve(late, false)
		synctest.Wait()
		select {
		case <-late.closed:
		default:
			t.Error("a listener that came too late stays open")
		}
	})
}

// TestPanic is about our own mistake: one answer less, and a loud line.
func TestPanic(t *testing.T) {
	settings := Settings{HTTP01: func(string) (string, bool) { panic("oh no") }}
	s := open(t, &settings)
	conn := s.clear.dial(t, "192.0.2.1:1024")
	go io.WriteString(conn, strings.ReplaceAll(get(challenges+"x", "a"), "\n", "\r\n"))
	if _, _, err := receive(bufio.NewReader(conn), "GET"); err == nil {
		t.Error("an answer in spite of it")
	}
	if s.log.FilterLevelExact(zapcore.ErrorLevel).Len() != 1 {
		t.Errorf("in the log: %v", s.log.All())
	}
	if res, _ := s.say(t, get("/", "a")); res.StatusCode != 200 {
		t.Error(res.Status)
	}
	log.New(complaints{s.Site.log()}, "", 0).Print("http: TLS handshake error from \x1b[31m\r\n" + strings.Repeat("x", 500))
	last := s.log.All()[s.log.Len()-1]
	if last.Level != zapcore.DebugLevel || len(last.Context[0].String) != 200 || strings.ContainsAny(last.Context[0].String, "\x1b\r\n") {
		t.Errorf("%+v", last)
	}
}

// TestLogShortens: the log may be kept longer than whole addresses should be.
func TestLogShortens(t *testing.T) {
	for said, want := range map[string]string{
		"http: TLS handshake error from 192.0.2.7:5555: EOF":                                                               "http: TLS handshake error from 192.0.2.0/24: EOF",
		"http: TLS handshake error from [2001:db8:1:2::3]:5555: read tcp [2001:db8::1]:443->[2001:db8:1:2::3]:5555: reset": "http: TLS handshake error from 2001:db8:1::/48: read tcp 2001:db8::/48->2001:db8:1::/48: reset",
		"http: panic serving 192.0.2.7:5555: at 12:30":                                                                     "http: panic serving 192.0.2.0/24: at 12:30",
	} {
		core, logs := observer.New(zapcore.DebugLevel)
		log.New(complaints{zap.New(core)}, "", 0).Print(said)
		if got := logs.All()[0].Context[0].String; got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

// certificate makes one for a name.
func certificate(t testing.TB, name string) *tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// handshake connects over TLS.
func (s *site) handshake(t testing.TB, c *tls.Config) (*tls.Conn, error) {
	t.Helper()
	c.InsecureSkipVerify = true // the test asks who it is
	conn := tls.Client(s.secure.dial(t, "192.0.2.1:1024"), c)
	return conn, conn.Handshake()
}

func TestHTTPS(t *testing.T) {
	settings := twoBrands
	page, challenge := certificate(t, "page"), certificate(t, "challenge")
	only := func(name string, c *tls.Certificate) func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		return func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			if hello.ServerName != name {
				return nil, nil
			}
			return c, nil
		}
	}
	settings.Certificate, settings.ALPN = only("imap.example.org", page), only("imap.example.org", challenge)
	s := open(t, &settings)

	for _, c := range []struct {
		name   string
		config *tls.Config
		who    string // of the certificate
		alpn   string
		alert  string
	}{
		{"browser", &tls.Config{NextProtos: []string{"h2", "http/1.1"}}, "page", "http/1.1", ""},
		{"no ALPN", &tls.Config{}, "page", "", ""},
		{"TLS 1.2", &tls.Config{MaxVersion: tls.VersionTLS12}, "page", "", ""},
		{"TLS 1.1", &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}, "", "", "protocol version not supported"},
		{"HTTP/2 alone", &tls.Config{NextProtos: []string{"h2"}}, "", "", "no application protocol"},
		{"IMAP", &tls.Config{NextProtos: []string{"imap"}}, "", "", "no application protocol"},
		{"other name", &tls.Config{ServerName: "evil.example"}, "", "", "unrecognized name"},
		{"challenge", &tls.Config{NextProtos: []string{acmeALPN}}, "challenge", acmeALPN, ""},
		{"challenge, TLS 1.2", &tls.Config{NextProtos: []string{acmeALPN}, MaxVersion: tls.VersionTLS12}, "challenge", acmeALPN, ""},
		{"challenge for another name", &tls.Config{NextProtos: []string{acmeALPN}, ServerName: "evil.example"}, "", "", "unrecognized name"},
		{"challenge, TLS 1.1", &tls.Config{NextProtos: []string{acmeALPN}, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}, "", "", "protocol version not supported"},
		{"challenge and more", &tls.Config{NextProtos: []string{acmeALPN, "http/1.1"}}, "page", "http/1.1", ""},
		{"challenge and nothing known", &tls.Config{NextProtos: []string{acmeALPN, "x"}}, "", "", "no application protocol"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.config.ServerName == "" {
				c.config.ServerName = "imap.example.org"
			}
			conn, err := s.handshake(t, c.config)
			if err != nil || c.alert != "" {
				if c.alert == "" || err == nil || !strings.Contains(err.Error(), c.alert) {
					t.Errorf("%v, want %s", err, c.alert)
				}
				return
			}
			state := conn.ConnectionState()
			if who := state.PeerCertificates[0].Subject.CommonName; who != c.who || state.NegotiatedProtocol != c.alpn {
				t.Errorf("the certificate of the %s for %q", who, state.NegotiatedProtocol)
			}
			go io.WriteString(conn, "GET / HTTP/1.1\r\nHost: imap.example.org\r\n\r\n")
			res, body, err := receive(bufio.NewReader(conn), "GET")
			if c.alpn == acmeALPN {
				if err == nil {
					t.Errorf("a challenge was served: %s", res.Status)
				}
				return
			}
			if err != nil || !strings.Contains(body, "imap.example.org") {
				t.Fatalf("%v\n%s", err, body)
			}
			checkHeader(t, res)
		})
	}

	t.Run("in clear", func(t *testing.T) {
		conn := s.secure.dial(t, "192.0.2.1:1024")
		go io.WriteString(conn, "GET /x HTTP/1.1\r\nHost: imap.example.org\r\n\r\n")
		res, body, err := receive(bufio.NewReader(conn), "GET")
		if err != nil || res.StatusCode != 400 || strings.Contains(body, "imap.example.org") {
			t.Errorf("%v %v %s", err, res, body)
		}
	})
	t.Run("nothing configured", func(t *testing.T) {
		s := open(t, nil)
		for _, protos := range [][]string{nil, {acmeALPN}} {
			if _, err := s.handshake(t, &tls.Config{ServerName: "a", NextProtos: protos}); err == nil || !strings.Contains(err.Error(), "unrecognized name") {
				t.Errorf("%q: %v", protos, err)
			}
		}
	})
	t.Run("failing source", func(t *testing.T) {
		fail := func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, errors.New("secret reason") }
		s := open(t, &Settings{Certificate: fail, ALPN: fail})
		if _, err := s.handshake(t, &tls.Config{ServerName: "a"}); err == nil || !strings.Contains(err.Error(), "internal error") {
			t.Error(err)
		}
	})
}

// TestTickets resumes sessions here, for the same name, and with no others' keys.
func TestTickets(t *testing.T) {
	keys, err := certs.OpenTickets("", zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	cert := certificate(t, "page")
	settings := Settings{Tickets: keys.Bind, Certificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return cert, nil }}
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			s := open(t, &settings)
			// A socket, since a pipe holds nothing: tickets come in the flight that the
			// client answers.
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			s.Serve(l, true)
			kept := &ticketBox{}
			visit := func(name string) bool {
				t.Helper()
				conn, err := tls.Dial("tcp", l.Addr().String(), &tls.Config{InsecureSkipVerify: true, ServerName: name,
					ClientSessionCache: kept, MinVersion: version, MaxVersion: version})
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				go io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
				if _, _, err := receive(bufio.NewReader(conn), "GET"); err != nil { // the ticket comes with it
					t.Fatal(err)
				}
				return conn.ConnectionState().DidResume
			}
			if visit("a.example") {
				t.Error("the first visit is resumed")
			}
			if !visit("a.example") {
				t.Error("the second visit is not")
			}
			s.Apply(settings)
			if !visit("A.example") {
				t.Error("new settings lose the tickets")
			}
			if visit("b.example") {
				t.Error("a ticket of another name is taken")
			}
			settings := settings
			settings.Tickets = nil
			s.Apply(settings)
			if visit("b.example") {
				t.Error("a ticket is taken without keys")
			}
		})
	}
}

// ticketBox gives the last ticket, whatever it is for.
type ticketBox struct{ last *tls.ClientSessionState }

func (b *ticketBox) Get(string) (*tls.ClientSessionState, bool) { return b.last, b.last != nil }
func (b *ticketBox) Put(_ string, s *tls.ClientSessionState)    { b.last = s }

// FuzzAnswer sends paths and hosts: nothing panics, nothing but a base64url token is
// asked for, and nothing of the request comes back.
func FuzzAnswer(f *testing.F) {
	for _, seed := range [][2]string{
		{"/", "imap.example.org"}, {challenges + "good-Token_1", "x:80"}, {challenges + "../../etc/passwd", "[::1]"},
		{challenges + "%2e%2e", ".."}, {"//evil.example/%0d%0a", "a\x00b"}, {"*", strings.Repeat("a.", 200)},
	} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, path, host string) {
		var s Site
		settings := twoBrands
		settings.HTTP01 = func(token string) (string, bool) {
			if !isToken(token) || strings.ContainsAny(token, "./\\") {
				t.Errorf("asked for the token %q", token)
			}
			return "answer", true
		}
		settings.Brand = func(name string) int {
			if len(name) > maxHost || strings.ContainsFunc(name, func(c rune) bool { return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyz0123456789.-", c) }) {
				t.Errorf("asked for the host %q", name)
			}
			return len(name)
		}
		s.Apply(settings)
		r, err := http.NewRequest("GET", "http://a/", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.URL.Path, r.Host = path, host
		w := &recorder{header: http.Header{}}
		s.serve(w, r)
		known := slices.ContainsFunc(s.current.Load().pages, func(p []byte) bool { return string(p) == w.body })
		if !known && w.body != "answer" && w.body != "There is no such challenge.\n" {
			t.Errorf("an answer of its own: %q", w.body)
		}
		for key, values := range w.header {
			for _, v := range values {
				if !slices.Contains([]string{"nosniff", "no-referrer", contentPolicy, "no-store", "max-age=300", "de", "en",
					"text/html; charset=utf-8", "text/plain", "text/plain; charset=utf-8", fmt.Sprint(len(w.body))}, v) {
					t.Errorf("%s: %q", key, v)
				}
			}
		}
	})
}

// recorder keeps an answer.
type recorder struct {
	header http.Header
	body   string
}

func (r *recorder) Header() http.Header { return r.header }
func (r *recorder) WriteHeader(int)     {}
func (r *recorder) Write(b []byte) (int, error) {
	r.body += string(b)
	return len(b), nil
}
