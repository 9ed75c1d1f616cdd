package smtpfront

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"errors"
	"io"
	"net"
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"time"

	"mailreeve/proxy"
	"mailreeve/proxy/proxytest"
)

// FuzzDialogue: the backend refuses every login. The replies are those of an SMTP
// server, and the backend hears nothing but well-formed commands.
func FuzzDialogue(f *testing.F) {
	proxytest.FuzzDialogue(f, Front, probe, refuseAll, wantReplies)
}

// wantReplies checks that what the client heard is SMTP.
func wantReplies(t *testing.T, heard []byte) {
	code := "" // of a reply that goes on
	for line := range strings.SplitAfterSeq(string(heard), "\r\n") {
		line, whole := strings.CutSuffix(line, "\r\n")
		switch m := replyLine.FindStringSubmatch(line); {
		case line == "" && !whole:
		case !whole || m == nil || code != "" && m[1] != code:
			t.Errorf("no SMTP: %q", line)
		case strings.HasPrefix(line, "235"):
			t.Errorf("nobody was to be let in: %q", line)
		case line == "220 2.0.0 Ready to start TLS":
			return // what follows is an alert
		default:
			wantDecent(t, line)
			if code = ""; line[3] == '-' {
				code = m[1]
			}
		}
	}
	if code != "" {
		t.Errorf("a reply %s does not end", code)
	}
}

var (
	isForward = regexp.MustCompile(`^XCLIENT NAME=\[UNAVAILABLE\](?: HELO=[!-~]+)? DESTADDR=198\.51\.100\.1 PORT=40000 ADDR=192\.0\.2\.7$`)
	isBase64  = regexp.MustCompile(`^[A-Za-z0-9+/]*=*$`)
	isHello   = regexp.MustCompile(`^EHLO [!-~]{1,255}$`)
)

// refuseAll is a backend that takes nothing for granted.
func refuseAll(t *testing.T, conn net.Conn) {
	defer conn.Close()
	lines := bufio.NewReader(conn)
	say := func(s string) { io.WriteString(conn, s+"\r\n") }
	say("220 backend.test ESMTP")
	hellos, forwarded, asked := 0, false, false
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			return
		}
		line, ok := strings.CutSuffix(line, "\r\n")
		verb, rest, _ := strings.Cut(line, " ")
		switch {
		case !ok || len(line) > 510 && !asked:
			t.Errorf("the backend heard %q", line)
			return
		case asked && isBase64.MatchString(line):
			say("535 5.7.8 no")
			asked = false
		case line == "QUIT":
			return
		case isHello.MatchString(line) && hellos < 2:
			if hellos++; hellos == 2 && !forwarded {
				t.Errorf("the backend heard EHLO twice without XCLIENT: %q", line)
			}
			say("250-backend.test\r\n250-XCLIENT NAME HELO ADDR PORT DESTADDR\r\n250 AUTH PLAIN XOAUTH2 OAUTHBEARER")
		case isForward.MatchString(line) && hellos == 1 && !forwarded:
			forwarded = true
			say("220 backend.test ESMTP")
		case verb == "AUTH" && hellos == 2:
			mech, initial, ok := strings.Cut(rest, " ")
			if mech != "PLAIN" && mech != "XOAUTH2" && mech != "OAUTHBEARER" || !isBase64.MatchString(initial) {
				t.Errorf("the backend heard %q", line)
			}
			if asked = !ok; asked {
				say("334 ")
			} else {
				say("535 5.7.8 no")
			}
		default:
			t.Errorf("the backend heard %q", line)
			return
		}
	}
}

// canned is a connection to a backend whose words do not depend on ours.
type canned struct {
	net.Conn
	says  *bytes.Reader
	heard bytes.Buffer
}

func (c *canned) Read(p []byte) (int, error)       { return c.says.Read(p) }
func (c *canned) Write(p []byte) (int, error)      { return c.heard.Write(p) }
func (c *canned) SetWriteDeadline(time.Time) error { return nil }

// FuzzReply hears anything from a backend. A login's reply is a good one, line
// by line, and all else an error that says what it is. What we say is commands
// of at most 512 bytes, and responses.
func FuzzReply(f *testing.F) {
	for _, said := range proxytest.Said(f, "B<") {
		for mech := range uint8(8) {
			f.Add(said, mech)
		}
		f.Add(said, uint8(128))
	}
	f.Fuzz(func(t *testing.T, says []byte, mech uint8) {
		conn := &canned{says: bytes.NewReader(says)}
		p := Front.Dial(proxy.NewWire(conn), proxy.Origin{Hostname: "proxy.test.example", Session: "1G90A7RCDEFG", Forward: mech >= 64,
			Client: netip.MustParseAddrPort("192.0.2.7:40000"), Server: netip.MustParseAddrPort("[2001:db8::1]:587"),
			SNI: strings.Repeat("n.", 120) + "test.example", Software: proxy.Software{Hello: strings.Repeat("h+", 60)}})
		if p.Greeting() != nil {
			return
		}
		if mech >= 128 {
			offer, _ := p.Offer()
			for _, line := range offer.Extensions {
				if len(line) > 200 || strings.ContainsFunc(line, func(c rune) bool { return c < ' ' || c > '~' }) {
					t.Errorf("offered: %q", line)
				}
			}
		}
		r := proxy.Request{Mech: []string{"LOGIN", "PLAIN", "XOAUTH2", "OAUTHBEARER"}[mech%4], User: "anna", Secret: "secret"}
		if mech&4 != 0 {
			r = proxy.Request{Mech: "SCRAM-SHA-1", Initial: proxy.Secret(strings.Repeat("x", int(mech&8)*80)), Through: &proxytest.Answers{Left: 10}}
		}
		reply, err := p.Login(r)
		var no *proxy.Rejection
		switch {
		case err == nil:
			text, ok := bytes.CutSuffix(reply, []byte("\r\n"))
			lines := bytes.Split(text, []byte("\r\n"))
			for i, line := range lines {
				last := i == len(lines)-1
				ok = ok && bytes.HasPrefix(line, []byte("235")) && !bytes.ContainsRune(line, '\n') &&
					(len(line) == 3 && last || len(line) > 3 && (line[3] == ' ') == last)
			}
			if !ok {
				t.Errorf("logged in with %q", reply)
			}
		case errors.As(err, &no):
			if no.Class != proxy.BadCredential && no.Class != proxy.NoAccess && no.Class != proxy.Unavailable {
				t.Errorf("class %d", no.Class)
			}
			if no.Challenge != nil && !proxy.IsBearer(r.Mech) {
				t.Errorf("a challenge in a %s exchange", r.Mech)
			}
		case reply != nil:
			t.Errorf("%v, and yet %q", err, reply)
		}
		for line := range strings.SplitAfterSeq(conn.heard.String(), "\n") {
			line, whole := strings.CutSuffix(line, "\r\n")
			if line == "" && !whole {
				continue
			}
			if _, err := base64.StdEncoding.DecodeString(line); !whole || len(line) > 510 || err != nil &&
				!strings.HasPrefix(line, "EHLO ") && !strings.HasPrefix(line, "AUTH ") && !strings.HasPrefix(line, "XCLIENT ") {
				t.Errorf("the backend heard %q", line)
			}
		}
	})
}
