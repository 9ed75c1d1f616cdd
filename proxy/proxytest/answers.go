package proxytest

// The answer table of a front, cell by cell: every finding, action and moment is
// played against the engine, and what was said is compared with a file.

import (
	"bufio"
	"context"
	"crypto/tls"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"mailreeve/policy"
	"mailreeve/proxy"
)

var update = flag.Bool("update", false, "write the golden files anew")

// Table is a front's answer table, made ready to be played.
type Table struct {
	Front   *proxy.Front
	Probe   string // as for [New]
	Backend string // script of a login at the backend, once for each connection; the credential is right
	Old     string // server name that belongs to another protocol

	// Moments are what a client says up to the answer, by the name of the moment,
	// which begins with a letter so that they have an order.
	Moments map[string][]string
	// Weak is the moment in which it uses the mechanism that is to go, and that mechanism.
	Weak [2]string
	// Check holds what is true of every line that the proxy says.
	Check func(t *testing.T, lines []string)
}

// row is a finding with the connection on which it is made.
type row struct {
	name    string
	connect string // clear, old, or a server name
	require policy.Requirement
	except  []policy.Exception
	address bool // the name is typed as an address
}

func (tb *Table) rows() []row {
	need := func(finding policy.Finding, fact policy.Fact, not bool, values ...string) policy.Requirement {
		return policy.Requirement{ID: "r", Finding: finding, Require: policy.Matcher{{Fact: fact, Not: not, Values: values}}}
	}
	plain := need(policy.Plaintext, policy.TLS, true, policy.None)
	host := Hosts[tb.Front.Name]
	return []row{
		{name: "plaintext", connect: "clear", require: plain},
		{name: "plaintext, another account excepted", connect: "clear", require: plain, except: []policy.Exception{{ID: "x", For: []string{"r"},
			Match: policy.Matcher{{Fact: policy.Account, Values: []string{"bert"}}}, Cap: policy.Observe, Until: time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)}}},
		{name: "plaintext, this account excepted", connect: "clear", require: plain, except: []policy.Exception{{ID: "x", For: []string{"r"},
			Match: policy.Matcher{{Fact: policy.Account, Values: []string{"anna"}}}, Cap: policy.Observe, Until: time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)}}},
		{name: "tls_old", connect: "old", require: need(policy.TLSOld, policy.TLS, true, "1.0", "1.1")},
		{name: "mechanism", connect: host, require: need(policy.Mechanism, policy.Mech, true, tb.Weak[1])},
		{name: "legacy_hostname", connect: "mail.old.example", require: need(policy.LegacyHostname, policy.Host, false, policy.Canonical, policy.Absent)},
		{name: "other_service", connect: tb.Old, require: need(policy.LegacyHostname, policy.Host, false, policy.Canonical, policy.Absent)},
		{name: "user_form", connect: host, require: need(policy.FindingUserForm, policy.UserForm, false, "address")},
		{name: "user_form_address", connect: host, require: need(policy.FindingUserForm, policy.UserForm, false, "bare"), address: true},
		{name: "submission_port", connect: host, require: need(policy.FindingPort, policy.Port, true, "4711")},
	}
}

// Play plays every cell and compares the transcripts with a file.
func (tb *Table) Play(t *testing.T, golden string) {
	var all strings.Builder
	for _, r := range tb.rows() {
		var names []string
		for name := range tb.Moments {
			if (name == tb.Weak[0]) == (r.name == "mechanism") {
				names = append(names, name)
			}
		}
		slices.Sort(names)
		for _, name := range names {
			denied := ""
			for _, action := range []policy.Action{policy.Warn, policy.TempFail, policy.Deny, policy.Refuse} {
				var said [2]string // without and with strict codes
				for i := range said {
					synctest.Test(t, func(t *testing.T) { said[i] = tb.cell(t, r, action, i == 1, tb.Moments[name]) })
				}
				title := fmt.Sprintf("\n# %s, %v, %s", r.name, action, name)
				switch {
				case action == policy.Refuse && strings.ReplaceAll(said[0], "action=refuse", "action=deny") == denied:
					fmt.Fprintf(&all, "%s: as deny\n", title)
				default:
					fmt.Fprintf(&all, "%s\n%s", title, said[0])
					if said[1] != said[0] {
						fmt.Fprintf(&all, "%s, strict codes\n%s", title, said[1])
					}
				}
				denied = said[0]
			}
		}
	}
	got := all.String()
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		g, w := strings.Split(got, "\n"), strings.Split(string(want), "\n")
		at := 0
		for at < min(len(g), len(w)) && g[at] == w[at] {
			at++
		}
		from := max(0, at-8)
		t.Errorf("%s, line %d:\n%s\nwant\n%s", golden, at+1, strings.Join(g[from:min(at+4, len(g))], "\n"), strings.Join(w[from:min(at+4, len(w))], "\n"))
	}
}

var someID = regexp.MustCompile(`\([0-9A-HJKMNP-TV-Z]{12}\)`)

// over is a reply behind which a client does not go on.
var over = regexp.MustCompile(`^(\S+ NO |\S+ BAD |-ERR |[45])`)

// cell plays one cell.
func (tb *Table) cell(t *testing.T, w row, action policy.Action, strict bool, lines []string) string {
	r := New(t, tb.Front, tb.Probe)
	r.Server = "198.51.100.1:4711"
	w.require.Stages = []policy.Stage{{Do: action}}
	Under([]policy.Requirement{w.require}, w.except...)(r)
	r.Settings.Brands[0].StrictCodes = strict
	for _, l := range r.Settings.Listeners {
		l.OldTLS = w.connect == "old"
	}
	r.Apply()

	done := make(chan bool)
	var backends sync.WaitGroup
	backends.Go(func() {
		for {
			select {
			case conn := <-r.backends:
				backends.Go(func() { r.answer(conn, tb.Backend) })
			case <-done:
				return
			}
		}
	})
	var said strings.Builder
	settle := func() {
		time.Sleep(time.Second)
		synctest.Wait()
	}
	listener := "implicit"
	if w.connect == "clear" {
		listener = "starttls"
	}
	conn := r.Connect(listener)
	config := &tls.Config{ServerName: w.connect, InsecureSkipVerify: true}
	if w.connect == "old" {
		config.ServerName, config.MinVersion, config.MaxVersion = Hosts[tb.Front.Name], tls.VersionTLS10, tls.VersionTLS10
	}
	talking := true
	if w.connect != "clear" {
		secured := tls.Client(conn, config)
		if err := secured.HandshakeContext(context.Background()); err != nil {
			fmt.Fprintf(&said, "C! tls %s: %v\n", config.ServerName, err)
			talking = false
		}
		conn = net.Conn(secured)
	}
	var mu sync.Mutex
	var heard []string
	var reading sync.WaitGroup
	if talking {
		reading.Go(func() {
			for reader := bufio.NewReader(conn); ; {
				line, err := reader.ReadString('\n')
				if err != nil {
					return
				}
				mu.Lock()
				heard = append(heard, strings.TrimSuffix(line, "\r\n"))
				mu.Unlock()
			}
		})
		settle()
		var checked []string
		take := func() {
			mu.Lock()
			defer mu.Unlock()
			for _, line := range heard {
				fmt.Fprintf(&said, "S: %s\n", someID.ReplaceAllString(line, "({id})"))
			}
			checked = append(checked, heard...)
			heard = nil
		}
		take()
		for _, line := range lines {
			user := "anna"
			if w.address {
				user = "anna@test.example"
			}
			line = encoded.ReplaceAllStringFunc(strings.ReplaceAll(line, "USERNAME", user), func(s string) string {
				return parse(t, "C: "+s)[0].text
			})
			fmt.Fprintf(&said, "C: %s\n", line)
			go io.WriteString(conn, line+"\r\n")
			settle()
			take()
			if over.MatchString(checked[len(checked)-1]) {
				break
			}
		}
		tb.Check(t, checked)
	}
	conn.Close()
	reading.Wait()
	e := <-r.events
	close(done)
	r.Engine.Shutdown(0, 0)
	backends.Wait()
	fmt.Fprintf(&said, "E: action=%s by=%v refused=%s exposed=%v verified=%v told=%v\n", e.Action, e.By, e.Refused, e.Exposed, e.Verified, e.Told)
	r.WantNoSecret()
	return said.String()
}
