package certs

import (
	"crypto/tls"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func challengeHello(name string) *tls.ClientHelloInfo {
	return &tls.ClientHelloInfo{ServerName: name, SupportedProtos: []string{"acme-tls/1"}}
}

// TestAnswers asks as strangers do.
func TestAnswers(t *testing.T) {
	dir := t.TempDir()
	a, err := NewACME(ACMEConfig{Directory: fakeDirectory, Dir: dir, HTTP01: true})
	if err != nil {
		t.Fatal(err)
	}
	put := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(a.answers.path(name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put("http-01+good", "good.thumb")
	put("http-01+other", "good.thumb")
	put("http-01+html", "html.<script>")
	put("http-01+none", "")
	if err := os.WriteFile(filepath.Join(dir, "secret"), []byte("../../secret.x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for token, want := range map[string]string{
		"good": "good.thumb", "other": "", "html": "", "none": "", "missing": "", "": "", ".": "", "..": "",
		"../../secret": "", "/etc/passwd": "", "a/../good": "", "good\x00": "", strings.Repeat("a", 129): "", "gööd": "",
	} {
		got, ok := a.HTTP01(token)
		if got != want || ok != (want != "") {
			t.Errorf("%q: %q, %v", token, got, ok)
		}
	}
	put("tls-alpn-01+bad.example.org", "rubbish")
	for name, want := range map[string]string{
		"": "no valid server name", "../../secret": "no valid server name", "192.0.2.1": "no valid server name",
		"a.example.org": "none is under way for a.example.org", "Bad.example.org.": "for bad.example.org: tls:",
	} {
		if _, err := a.ALPN(challengeHello(name)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", name, err)
		}
	}

	// What crashed processes left goes after an hour.
	old := time.Now().Add(-2 * time.Hour)
	if err := os.Chtimes(a.answers.path("http-01+good"), old, old); err != nil {
		t.Fatal(err)
	}
	a.state.sweep(time.Now())
	if _, ok := a.HTTP01("good"); ok {
		t.Error("a stale answer")
	}
	if _, err := os.Stat(a.answers.path("http-01+other")); err != nil {
		t.Error(err)
	}
}
