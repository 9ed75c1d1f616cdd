package proxy_test

import (
	"bufio"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"mailreeve/imapfront"
	"mailreeve/popfront"
	"mailreeve/proxy"
	"mailreeve/proxy/proxytest"
	"mailreeve/smtpfront"
)

var fronts = map[*proxy.Front]string{ // what their backend says, being asked what it offers
	imapfront.Front: "B< * OK [CAPABILITY IMAP4rev1 AUTH=PLAIN] ready",
	popfront.Front:  "B< +OK ready\nB: CAPA\nB< +OK\nB< USER\nB< .",
	smtpfront.Front: "B< 220 ready\nB: EHLO proxy.test.example\nB< 250-mx\nB< 250 AUTH PLAIN",
}

// TestRealFronts holds what the engine relies on in a front's record.
func TestRealFronts(t *testing.T) {
	alpn := map[string]string{"imap": "imap", "pop3": "pop3", "submission": "smtp"}
	port := map[string]int{"imap": 993, "pop3": 995, "submission": 465}
	for f := range fronts {
		if f.ALPN != alpn[f.Name] || f.Port != port[f.Name] || f.Open == nil || f.Dial == nil {
			t.Errorf("%+v", f)
		}
		if f.Warns != (f.Name == "imap") {
			t.Errorf("%s: IMAP alone has a word for a warning that people see", f.Name)
		}
		if f.Name == "pop3" {
			if f.Goodbye != "" || !f.RefuseEarly {
				t.Error("POP3 has no word that is not an answer (RFC 1939 section 3), and tells early")
			}
			continue
		}
		if !strings.HasSuffix(f.Goodbye, "\r\n") || strings.Count(f.Goodbye, "\n") != 1 || len(f.Goodbye) > 80 || f.RefuseEarly {
			t.Errorf("%s: %q", f.Name, f.Goodbye)
		}
	}
}

// TestRealFrontsAtShutdown: each tells a client that has not logged in, in its
// own words and once.
func TestRealFrontsAtShutdown(t *testing.T) {
	words := map[string]string{"imap": "* BYE Der Server startet neu.", "pop3": "-ERR ", "submission": "421 4.3.2 "}
	for f, probe := range fronts {
		t.Run(f.Name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := proxytest.New(t, f, probe)
				r.Apply()
				ours, theirs := net.Pipe()
				if err := r.Engine.ServeConn("starttls", theirs); err != nil {
					t.Fatal(err)
				}
				reader := bufio.NewReader(ours)
				if _, err := reader.ReadString('\n'); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				over := make(chan bool)
				go func() { r.Engine.Shutdown(time.Minute, time.Hour); close(over) }()
				said, err := io.ReadAll(reader)
				if err != nil || !strings.HasPrefix(string(said), words[f.Name]) || strings.Count(string(said), "\r\n") != 1 {
					t.Errorf("%q, %v", said, err)
				}
				<-over
				ours.Close()
			})
		})
	}
}
