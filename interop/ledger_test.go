package interop

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"mailreeve/events"
	"mailreeve/outreach"
)

// ledgerConfig is a configuration with a ledger at a place.
func ledgerConfig(t *testing.T, place string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "mailreeve.yaml")
	must(t, os.WriteFile(path, []byte(`version: 1
brands: [{ name: example, help: 'https://help.example.org', hosts: { imap: [imap.example.org] } }]
listeners: [{ address: ':993', protocol: imap, tls: implicit }]
backends: { imap: { addresses: ['10.0.0.5:143'], tls: off } }
certificates: { files: [{ cert: mail.pem }] }
outreach: { ledger: '`+place+`', campaign: tls, purpose: tests, end: '2099-12-31', collector: 5 }
`), 0o600))
	return path
}

// ledgerText is all that a ledger knows of accounts.
func ledgerText(t *testing.T, place string) string {
	t.Helper()
	zone, err := time.LoadLocation("Europe/Berlin")
	must(t, err)
	end, err := outreach.ParseDay("2099-12-31")
	must(t, err)
	l, err := outreach.OpenLedger(t.Context(), place, outreach.Options{Zone: zone, Campaign: "tls", Purpose: "tests", End: end})
	must(t, err)
	defer l.Close()
	var b strings.Builder
	for a, err := range l.Accounts(t.Context(), 0) {
		must(t, err)
		fmt.Fprintf(&b, "%+v\n", *a)
	}
	return b.String()
}

// customerEvents writes files of events, and returns them.
func customerEvents(t *testing.T, files, each int) (paths []string) {
	t.Helper()
	dir := t.TempDir()
	random := rand.New(rand.NewPCG(1, 2))
	for i := range files {
		var text strings.Builder
		for j := range each {
			e := &events.Session{ID: fmt.Sprintf("%d.%d", i, j), Time: time.Now().Add(-time.Duration(random.IntN(20*24)) * time.Hour), Brand: "example",
				Protocol: []string{"imap", "pop3"}[random.IntN(2)], TLS: []string{"none", "1.2", "1.3"}[random.IntN(3)], Mechanism: "PLAIN",
				IP: netip.AddrFrom4([4]byte{192, 0, 2, byte(random.IntN(40))})}
			if random.IntN(5) > 0 {
				e.Verified, e.Account = true, fmt.Sprintf("%cnna-%d@example.org", "aA"[random.IntN(2)], random.IntN(800))
				if random.IntN(10) == 0 {
					e.Action, e.Refused, e.Rule = "deny", "policy", "encrypted"
				}
			}
			line, err := events.Encode(e)
			must(t, err)
			text.Write(line)
		}
		path := filepath.Join(dir, fmt.Sprintf("events-2026-01-%02d.jsonl", i+1))
		must(t, os.WriteFile(path, []byte(text.String()), 0o600))
		paths = append(paths, path)
	}
	return paths
}

// TestLedgerPostgreSQL lets several programs import the same files into one database, and kills them again and again: the
// ledger is that which SQLite has after one reading.
func TestLedgerPostgreSQL(t *testing.T) {
	StartServers(t) // which build the program
	program, err := mailreeve()
	must(t, err)
	place := StartPostgres(t).Database(t, "ledger")
	files := customerEvents(t, 40, 500)
	lite := filepath.Join(t.TempDir(), "ledger.db")
	imported := func(ctx context.Context, place string) ([]byte, error) {
		args := append([]string{"outreach", "import", "-c", ledgerConfig(t, place), "--events"}, files...)
		return exec.CommandContext(ctx, program, args...).CombinedOutput()
	}
	if out, err := imported(t.Context(), lite); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	random := rand.New(rand.NewPCG(3, 4))
	killed := 0
	var guard sync.Mutex
	for range 5 {
		var running sync.WaitGroup
		for range 2 {
			limit := time.Duration(random.IntN(1500)) * time.Millisecond // from before it begins to after its end
			running.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), limit) // then it is killed
				defer cancel()
				out, err := imported(ctx, place)
				guard.Lock()
				defer guard.Unlock()
				if ctx.Err() != nil {
					killed++
				} else if err != nil {
					t.Errorf("%v\n%s", err, out)
				}
			})
		}
		running.Wait()
	}
	out, err := imported(t.Context(), place)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if killed == 0 {
		t.Error("no program was killed")
	}
	t.Logf("%d programs were killed\n%s", killed, out)
	if a, b := ledgerText(t, lite), ledgerText(t, place); a != b || a == "" {
		t.Errorf("SQLite and PostgreSQL differ: %d and %d bytes", len(a), len(b))
	}

	// What people may ask for works there, too.
	var exported struct {
		Account string           `json:"account"`
		Logins  []map[string]any `json:"logins"`
		Notices []any            `json:"notices"`
	}
	run := func(args ...string) string {
		t.Helper()
		out, err := exec.Command(program, append(append([]string{"outreach"}, args...), "-c", ledgerConfig(t, place))...).Output()
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Fatalf("outreach %v: %v\n%s", args, err, exit.Stderr)
		}
		must(t, err)
		return string(out)
	}
	must(t, json.Unmarshal([]byte(run("export", "anna-1@example.org")), &exported))
	if exported.Account != "anna-1@example.org" || len(exported.Logins) == 0 || exported.Notices == nil {
		t.Errorf("exported %+v", exported)
	}
	run("forget", "anna-1@example.org")
	if text := run("audit"); strings.Contains(text, "anna-1@") || !strings.Contains(text, "forgotten-") {
		t.Errorf("the audit is\n%s", text)
	}
	if text := ledgerText(t, place); strings.Contains(text, "anna-1@") {
		t.Error("an account that was forgotten is still there")
	}
}
