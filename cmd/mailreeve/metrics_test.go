package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"

	"mailreeve/certs"
	"mailreeve/events"
)

// scrape returns the house's own lines, but for those that differ from build to build.
func scrape(t testing.TB, m *metrics) string {
	t.Helper()
	w := httptest.NewRecorder()
	m.handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if w.Code != 200 {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	var lines []string
	for line := range strings.Lines(w.Body.String()) {
		if strings.HasPrefix(line, "mailreeve_") && !strings.HasPrefix(line, "mailreeve_build_info") {
			lines = append(lines, line)
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "")
}

func quiet() []certs.Status { return nil }

func TestMetricsOfEvents(t *testing.T) {
	m := newMetrics(func() int { return 7 }, quiet)
	for _, e := range []events.Session{
		{Protocol: "imap", Listener: "imap-993", TLS: "1.3", Action: "pass", End: "CR", Mechanism: "PLAIN", Attempts: 1, Verified: true, BytesIn: 100, BytesOut: 2000},
		{Protocol: "imap", Listener: "imap-993", TLS: "1.3", Action: "pass", End: "CR", Mechanism: "PLAIN", Attempts: 3, Verified: true, BytesIn: 11},
		{Protocol: "pop3", Listener: "pop3-110", TLS: "none", Action: "deny", By: []string{"encrypted", "password-only"}, End: "PD", Mechanism: "APOP", Attempts: 1},
		{Protocol: "pop3", Listener: "pop3-110", TLS: "none", Action: "tempfail", By: []string{"encrypted"}, End: "PD"},
		{Protocol: "imap", Listener: "imap-993", Action: "refuse", By: []string{"canonical-host"}, End: "PT"},
		{Protocol: "submission", Listener: "smtp-587", TLS: "none", Action: "warn", By: []string{"encrypted"}, End: "CR", Mechanism: "other", Attempts: 1},
		{Protocol: "imap", Listener: "imap-993", Action: "pass", End: "CT", Alert: "unknown_ca"},
		{Protocol: "imap", Listener: "imap-993", Action: "pass", End: "CT", Alert: "alert_77"},
		{Protocol: "imap", Listener: "imap-993", Action: "pass", End: "CT", Alert: "alert_78"},
	} {
		m.Record(&e)
	}
	m.eventFailed()
	want := `mailreeve_bytes_total{direction="in"} 111
mailreeve_bytes_total{direction="out"} 2000
mailreeve_client_alerts_total{alert="other"} 2
mailreeve_client_alerts_total{alert="unknown_ca"} 1
mailreeve_event_failures_total 1
mailreeve_login_attempts_total{mechanism="APOP",protocol="pop3"} 1
mailreeve_login_attempts_total{mechanism="PLAIN",protocol="imap"} 4
mailreeve_login_attempts_total{mechanism="other",protocol="submission"} 1
mailreeve_logins_verified_total{mechanism="PLAIN",protocol="imap"} 2
mailreeve_other_certificates_in_trouble 0
mailreeve_refused_total{protocol="imap",requirement="canonical-host"} 1
mailreeve_refused_total{protocol="pop3",requirement="encrypted"} 2
mailreeve_refused_total{protocol="pop3",requirement="password-only"} 1
mailreeve_sessions 7
mailreeve_sessions_total{action="deny",end="PD",listener="pop3-110",protocol="pop3",tls="none"} 1
mailreeve_sessions_total{action="pass",end="CR",listener="imap-993",protocol="imap",tls="1.3"} 2
mailreeve_sessions_total{action="pass",end="CT",listener="imap-993",protocol="imap",tls="unknown"} 3
mailreeve_sessions_total{action="refuse",end="PT",listener="imap-993",protocol="imap",tls="unknown"} 1
mailreeve_sessions_total{action="tempfail",end="PD",listener="pop3-110",protocol="pop3",tls="none"} 1
mailreeve_sessions_total{action="warn",end="CR",listener="smtp-587",protocol="submission",tls="none"} 1
`
	if got := scrape(t, m); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// TestMetricsNameNobody fills every field that a stranger or a customer has a say in.
func TestMetricsNameNobody(t *testing.T) {
	const mark = "nobody-shall-see-this\xff\n"
	m := newMetrics(func() int { return 0 }, quiet)
	m.Record(&events.Session{
		Protocol: "imap", Listener: "imap-993", TLS: "1.3", Action: "deny", By: []string{"encrypted"}, End: "PD", Mechanism: "PLAIN",
		Attempts: 1, Verified: true, Alert: "alert_" + mark,
		ID: mark, IP: netip.MustParseAddr("192.0.2.77"), Via: netip.MustParseAddr("192.0.2.77"), SNI: mark, Host: mark, ALPN: mark,
		Client: mark, ClientID: map[string]string{mark: mark}, Hello: mark, Account: mark, Domain: mark, UserForm: mark, Reason: mark, Sentence: mark,
	})
	if got := scrape(t, m); strings.Contains(got, "nobody") || strings.Contains(got, "192.0.2.77") {
		t.Error(got)
	}
}

func TestMetricsOfCertificates(t *testing.T) {
	now := time.Now()
	begun, soon, late := now.Add(-80*24*time.Hour), now.Add(2*24*time.Hour), now.Add(60*24*time.Hour)
	m := newMetrics(func() int { return 0 }, func() []certs.Status {
		return []certs.Status{
			{Name: "imap.example.org", Source: "acme", File: "a", KeyType: certs.ECDSA, NotBefore: begun, NotAfter: late, Canonical: true},
			{Name: "imap.example.org", Source: "acme", File: "b", KeyType: certs.RSA, NotBefore: begun, NotAfter: soon, Canonical: true, Failures: 4, Error: "down"},
			{Name: "pop.example.org", Source: "file", File: "c", KeyType: certs.ECDSA, NotBefore: begun, NotAfter: late, Canonical: true},
			{Name: "pop.example.org", Source: "file", File: "d", KeyType: certs.ECDSA, NotBefore: begun, NotAfter: late.Add(-24 * time.Hour), Canonical: true},
			{Name: "smtp.example.org", Source: "acme", KeyType: certs.ECDSA, Canonical: true, Failures: 1, Error: "down"},
			{Name: "imap.kunde.example", Source: "acme", File: "e", KeyType: certs.ECDSA, NotBefore: begun, NotAfter: late},
			{Name: "imap.kundin.example", Source: "acme", File: "f", KeyType: certs.ECDSA, NotBefore: begun, NotAfter: soon, Failures: 2, Error: "down"},
			{Name: "pop.kunde.example", Source: "acme", KeyType: certs.ECDSA, Failures: 1, Error: "down"},
			{Name: "*.old.example.org", Source: "folder", File: "g", KeyType: certs.RSA, NotBefore: begun, NotAfter: late},
		}
	})
	want := fmt.Sprintf(`mailreeve_certificate_expiry_timestamp_seconds{key_type="ECDSA",name="imap.example.org",source="acme"} %[1]v
mailreeve_certificate_expiry_timestamp_seconds{key_type="ECDSA",name="pop.example.org",source="file"} %[1]v
mailreeve_certificate_expiry_timestamp_seconds{key_type="RSA",name="imap.example.org",source="acme"} %[2]v
mailreeve_certificate_failures{name="imap.example.org"} 4
mailreeve_certificate_failures{name="pop.example.org"} 0
mailreeve_certificate_failures{name="smtp.example.org"} 1
mailreeve_certificate_trouble{name="imap.example.org"} 1
mailreeve_certificate_trouble{name="pop.example.org"} 0
mailreeve_certificate_trouble{name="smtp.example.org"} 1
mailreeve_other_certificates_in_trouble 1
mailreeve_other_certificates{source="acme"} 2
mailreeve_other_certificates{source="folder"} 1
`, float64(late.Unix()), float64(soon.Unix()))
	got := scrape(t, m)
	for _, name := range []string{"mailreeve_certificate", "mailreeve_other"} {
		for line := range strings.Lines(got) {
			if strings.HasPrefix(line, name) && !strings.Contains(want, line) {
				t.Errorf("not wanted: %s", line)
			}
		}
	}
	for line := range strings.Lines(want) {
		if !strings.Contains(got, line) {
			t.Errorf("wanted: %s", line)
		}
	}
}

func TestMetricsHandler(t *testing.T) {
	m := newMetrics(func() int { return 0 }, quiet)
	for _, c := range []struct {
		method, path string
		status       int
		in           string
	}{
		{"GET", "/metrics", 200, "go_goroutines"},
		{"GET", "/metrics", 200, "process_open_fds"},
		{"GET", "/metrics", 200, `mailreeve_build_info{goversion="go1.`},
		{"HEAD", "/metrics", 200, ""},
		{"GET", "/", 404, "/metrics"},
		{"GET", "/metrics/../etc", 404, ""},
		{"GET", "/debug/pprof/", 404, ""},
		{"POST", "/metrics", 405, ""},
		{"DELETE", "/", 405, ""},
	} {
		w := httptest.NewRecorder()
		m.handler().ServeHTTP(w, httptest.NewRequest(c.method, c.path, nil))
		if w.Code != c.status || !strings.Contains(w.Body.String(), c.in) {
			t.Errorf("%s %s: %d\n%.300s", c.method, c.path, w.Code, w.Body)
		}
		if allow := w.Header().Get("Allow"); (allow != "") != (c.status == 405) {
			t.Errorf("%s %s: Allow %q", c.method, c.path, allow)
		}
	}
	w, r := httptest.NewRecorder(), httptest.NewRequest("GET", "/metrics", nil)
	r.Header.Set("Accept", "application/openmetrics-text; version=1.0.0")
	r.Header.Set("Accept-Encoding", "gzip")
	m.handler().ServeHTTP(w, r)
	if kind := w.Header().Get("Content-Type"); !strings.HasPrefix(kind, "text/plain; version=0.0.4") || w.Header().Get("Content-Encoding") != "" {
		t.Errorf("the numbers come as %q, %q", kind, w.Header().Get("Content-Encoding"))
	}
	// Two instances share nothing: nothing is in the global registry.
	other := newMetrics(func() int { return 0 }, quiet)
	m.eventFailed()
	if strings.Contains(scrape(t, other), "event_failures_total 1") {
		t.Error("the numbers are global")
	}
}

// TestMetricsServer scrapes over a socket while sessions end.
func TestMetricsServer(t *testing.T) {
	t.Cleanup(func() { goleak.VerifyNone(t) })
	m := newMetrics(func() int { return 0 }, quiet)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := m.server(zap.NewNop())
	var all sync.WaitGroup
	all.Go(func() { server.Serve(l) })
	for range 4 {
		all.Go(func() {
			for range 1000 {
				m.Record(&events.Session{Protocol: "imap", Listener: "one", TLS: "1.3", Action: "pass", End: "CR", Mechanism: "PLAIN", Attempts: 1})
			}
		})
	}
	client := &http.Client{Transport: &http.Transport{}}
	for range 10 {
		res, err := client.Get("http://" + l.Addr().String() + "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, res.Body); err != nil || res.StatusCode != 200 {
			t.Error(res.Status, err)
		}
		res.Body.Close()
	}
	client.CloseIdleConnections()
	if err := server.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	all.Wait()
	if got := scrape(t, m); !strings.Contains(got, `mailreeve_login_attempts_total{mechanism="PLAIN",protocol="imap"} 4000`) {
		t.Error(got)
	}
}

func BenchmarkMetricsRecord(b *testing.B) {
	m := newMetrics(func() int { return 0 }, quiet)
	e := &events.Session{Protocol: "imap", Listener: "one", TLS: "1.3", Action: "pass", End: "CR", Mechanism: "PLAIN", Attempts: 1, Verified: true}
	b.ReportAllocs()
	for b.Loop() {
		m.Record(e)
	}
}

func BenchmarkMetricsScrape(b *testing.B) {
	m := newMetrics(func() int { return 0 }, quiet)
	for i := range 300 {
		m.Record(&events.Session{Protocol: "imap", Listener: fmt.Sprint(i), TLS: "1.3", Action: "pass", End: "CR"})
	}
	for b.Loop() {
		scrape(b, m)
	}
}
