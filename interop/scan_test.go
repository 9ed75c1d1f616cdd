package interop

import (
	"crypto/x509"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// scanners are told how long the certificate is good for, and of a list of what is revoked.
// The rig's own certificates have neither, and a scanner calls that severe. Nobody asks there.
const revocations = "http://127.0.0.1:1/crl"

// What testssl.sh and sslscan find at the ports of the policy `enforced`, and at that of the
// help page, is of low severity at most. No finding is excepted.
//
// testssl.sh looks at protocols and ciphers everywhere, and at certificate, tickets and known
// vulnerabilities where TLS begins at once and where it begins by STARTTLS. With
// MAILREEVE_SCAN=full it does all that it knows at every port, which takes a minute for each.
func TestScan(t *testing.T) {
	t.Parallel()
	rig := StartServers(t)
	Require(t, "testssl", "sslscan")
	var files []string
	for _, kind := range []x509.PublicKeyAlgorithm{x509.ECDSA, x509.RSA} {
		cert, key := rig.certificate(t, kind, func(c *x509.Certificate) {
			c.NotAfter = time.Now().Add(90 * 24 * time.Hour)
			c.CRLDistributionPoints = []string{revocations}
		}, usualNames[IMAP], usualNames[POP3], usualNames[Submission], "localhost")
		files = append(files, cert, key)
	}
	https := Endpoint{usualNames[IMAP], FreePort(), Implicit}
	p := rig.Start(t, Setup{Hop: Named, Certificates: certificateFiles(files...), More: fmt.Sprintf("web: { https: '127.0.0.1:%d' }", https.Port)})

	t.Run("testssl https", func(t *testing.T) {
		t.Parallel()
		testssl(t, https, p.CAFile, "--protocols", "--std")
	})
	t.Run("sslscan https", func(t *testing.T) {
		t.Parallel()
		sslscan(t, https)
	})
	starttls := map[Protocol]string{IMAP: "imap", POP3: "pop3", Submission: "smtp"}
	for _, protocol := range []Protocol{IMAP, POP3, Submission} {
		for _, entry := range []Entry{Implicit, StartTLS} {
			e := p.At(protocol, entry)
			e.Host = usualNames[protocol]
			t.Run("testssl "+string(protocol)+" "+string(entry), func(t *testing.T) {
				t.Parallel()
				args := []string{"--protocols", "--std"}
				if protocol == IMAP && entry == Implicit || protocol == Submission && entry == StartTLS {
					args = append(args, "--server-defaults", "--vulnerable")
				}
				if os.Getenv("MAILREEVE_SCAN") == "full" {
					args = nil
				}
				if entry == StartTLS {
					args = append(args, "--starttls", starttls[protocol])
				}
				testssl(t, e, p.CAFile, args...)
			})
			t.Run("sslscan "+string(protocol)+" "+string(entry), func(t *testing.T) {
				t.Parallel()
				var args []string
				if entry == StartTLS {
					args = []string{"--starttls-" + starttls[protocol]}
				}
				sslscan(t, e, args...)
			})
		}
	}
}

// testssl fails the test for each finding that is worse than low.
func testssl(t *testing.T, e Endpoint, caFile string, args ...string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "findings.json")
	begin := time.Now()
	said, _ := run(t, 3*time.Minute, "testssl", append(args, "--quiet", "--color", "0", "--warnings", "off", "--nodns", "none",
		"--ip", "127.0.0.1", "--add-ca", caFile, "--jsonfile", file, e.Addr())...) // its exit code counts oddities
	data, err := os.ReadFile(file)
	must(t, err)
	var findings []struct{ ID, Severity, Finding string }
	if err := json.Unmarshal(data, &findings); err != nil {
		t.Fatalf("reading what testssl found: %v\n%s\n%s", err, data, said)
	}
	seen := map[string]string{}
	for _, f := range findings {
		seen[f.ID] = f.Finding
		switch {
		case slices.Contains([]string{"OK", "INFO", "LOW"}, f.Severity):
		case f.ID == "engine_problem" || f.ID == "service":
			// WARN: this OpenSSL has no GOST. DEBUG: this is no HTTP, so it is not asked for.
		default:
			t.Errorf("%s: %s: %s", f.Severity, f.ID, f.Finding)
		}
	}
	// Were the scan broken, there would be no findings either.
	if !strings.HasPrefix(seen["TLS1_3"], "offered") || seen["TLS1_1"] != "not offered" {
		t.Errorf("this is no scan of a server with TLS 1.3 and without 1.1:\n%s", said)
	}
	t.Logf("%d findings in %.0f s", len(findings), time.Since(begin).Seconds())
}

// sslscan fails the test for everything but the strong half of TLS 1.2 and 1.3. It knows no
// severities.
func sslscan(t *testing.T, e Endpoint, args ...string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "findings.xml")
	said, err := run(t, 2*time.Minute, "sslscan", append(args, "--no-colour", "--xml="+file, "--sni-name="+e.Host, "127.0.0.1:"+strconv.Itoa(e.Port))...)
	if err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	data, err := os.ReadFile(file)
	must(t, err)
	var found struct {
		Protocols []struct {
			Type    string `xml:"type,attr"`
			Version string `xml:"version,attr"`
			Enabled int    `xml:"enabled,attr"`
		} `xml:"ssltest>protocol"`
		Renegotiation struct {
			Supported int `xml:"supported,attr"`
			Secure    int `xml:"secure,attr"`
		} `xml:"ssltest>renegotiation"`
		Compression struct {
			Supported int `xml:"supported,attr"`
		} `xml:"ssltest>compression"`
		Heartbleed []struct {
			Vulnerable int `xml:"vulnerable,attr"`
		} `xml:"ssltest>heartbleed"`
		Ciphers []struct {
			Cipher   string `xml:"cipher,attr"`
			Bits     int    `xml:"bits,attr"`
			Strength string `xml:"strength,attr"`
		} `xml:"ssltest>cipher"`
		Groups []struct {
			Name string `xml:"name,attr"`
			Bits int    `xml:"bits,attr"`
		} `xml:"ssltest>group"`
	}
	if err := xml.Unmarshal(data, &found); err != nil {
		t.Fatalf("reading what sslscan found: %v\n%s\n%s", err, data, said)
	}
	var enabled []string
	for _, p := range found.Protocols {
		if p.Enabled != 0 {
			enabled = append(enabled, p.Type+p.Version)
		}
	}
	if !slices.Equal(enabled, []string{"tls1.2", "tls1.3"}) {
		t.Errorf("enabled are %q", enabled)
	}
	for _, c := range found.Ciphers {
		if c.Bits < 128 || c.Strength != "strong" && c.Strength != "acceptable" {
			t.Errorf("%s is %s, of %d bits", c.Cipher, c.Strength, c.Bits)
		}
	}
	for _, g := range found.Groups {
		if g.Bits < 112 {
			t.Errorf("%s has %d bits", g.Name, g.Bits)
		}
	}
	for _, h := range found.Heartbleed {
		if h.Vulnerable != 0 {
			t.Error("heartbleed")
		}
	}
	if r := found.Renegotiation; r.Supported != 0 && r.Secure == 0 {
		t.Error("there is insecure renegotiation")
	}
	if found.Compression.Supported != 0 {
		t.Error("there is compression")
	}
	if len(found.Ciphers) == 0 || len(found.Groups) == 0 {
		t.Errorf("no cipher or no group is found:\n%s", said)
	}
}

// A listener may do old TLS, and the check says so loudly. But where the policy refuses it, and
// `enforced` refuses TLS 1.0 and 1.1, the handshake ends as at any other listener. Of old key
// exchange that policy says nothing: so it is served there, and there alone.
func TestOldTLSIsRefusedByPolicy(t *testing.T) {
	rig := StartServers(t)
	Require(t, "openssl")
	names := []string{usualNames[IMAP], usualNames[POP3], usualNames[Submission], "localhost"}
	cert, key := rig.Certificate(t, names...)
	rsaCert, rsaKey := rig.certificate(t, x509.RSA, func(*x509.Certificate) {}, names...)
	p := rig.Prepare(t, Setup{Hop: Named, Certificates: certificateFiles(cert, key, rsaCert, rsaKey)})
	file, err := os.ReadFile(p.Config)
	must(t, err)
	must(t, os.WriteFile(p.Config, []byte(strings.ReplaceAll(string(file), "tls: implicit }", "tls: implicit, old_tls: true }")), 0o600))
	if said, code := p.Command(t, "check", "-c", p.Config); code != 0 || strings.Count(said, "RFC 8996") != 3 {
		t.Errorf("the check is not loud: %d\n%s", code, said)
	}
	p.Run(t)
	for _, protocol := range usualPorts {
		for _, x := range []struct {
			entry Entry
			args  []string
			says  string // of openssl; "" where it is served
		}{
			{Implicit, []string{"-tls1", "-cipher", "DEFAULT@SECLEVEL=0"}, "alert protocol version"},
			{Implicit, []string{"-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0"}, "alert protocol version"},
			{StartTLS, []string{"-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0"}, "alert protocol version"},
			{Implicit, []string{"-tls1_2", "-cipher", "AES128-SHA"}, ""},
			{StartTLS, []string{"-tls1_2", "-cipher", "AES128-SHA"}, "alert handshake failure"},
		} {
			events, e := p.Events.Here(), p.At(protocol, x.entry)
			e.Host = usualNames[protocol]
			said, err := run(t, patience, "openssl", append(opensslArgs(e, protocol, rig.CAFile), x.args...)...)
			if (err == nil) != (x.says == "") || !strings.Contains(said, x.says) {
				t.Errorf("%s %s %s: %v\n%s", protocol, x.entry, x.args, err, said)
			}
			// The event of one that is served is waited for too, or the next would meet it.
			ended := p.WaitEvent(t, events, x.says, func(Event) bool { return true })
			if x.says == "" {
				continue
			}
			if ended.Reason != "handshake_failed" || ended.SNI != usualNames[protocol] || ended.Verified {
				t.Errorf("event %+v", ended)
			}
		}
	}
}
