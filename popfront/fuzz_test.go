package popfront

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

// FuzzDialogue: the backend refuses every login. The replies are those of a POP3
// server, and the backend hears nothing but well-formed commands.
func FuzzDialogue(f *testing.F) {
	proxytest.FuzzDialogue(f, Front, probe, refuseAll, wantReplies)
}

// FuzzPassage: the backend challenges whoever names a mechanism that passes, three
// times, and refuses then. It hears nothing but base64 and the client's giving up.
func FuzzPassage(f *testing.F) {
	proxytest.FuzzDialogue(f, Front, probe, challengeAll, wantReplies, open)
}

var isAPOP = regexp.MustCompile(`^APOP \S+ [0-9a-fA-F]{32}$`)

func challengeAll(t *testing.T, conn net.Conn) {
	defer conn.Close()
	lines := bufio.NewReader(conn)
	say := func(s string) { io.WriteString(conn, s+"\r\n") }
	say("+OK ready <1.1@backend.example>")
	left, named := 0, false
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			return
		}
		line = strings.TrimSuffix(line, "\r\n")
		verb, rest, _ := strings.Cut(line, " ")
		mech, initial, _ := strings.Cut(rest, " ")
		switch {
		case left > 0 && (line == "*" || isBase64.MatchString(line)):
			if left--; left == 0 || line == "*" {
				say("-ERR [AUTH] no")
				left = 0
			} else {
				say("+ YWJj")
			}
		case line == "QUIT":
			return
		case line == "CAPA":
			say("+OK\r\nSASL PLAIN CRAM-MD5 DIGEST-MD5 NTLM SCRAM-SHA-1 SCRAM-SHA-256 SCRAM-SHA-256-PLUS GSSAPI\r\n.")
		case verb == "AUTH" && isBase64.MatchString(initial) && (mech == "PLAIN" || mech == "CRAM-MD5" || mech == "DIGEST-MD5" || mech == "NTLM" ||
			mech == "SCRAM-SHA-1" || mech == "SCRAM-SHA-256"):
			left = 3
			say("+ YWJj")
		case isAPOP.MatchString(line):
			say("-ERR [AUTH] no")
		case verb == "USER" && rest != "":
			named = true
			say("+OK")
		case verb == "PASS" && named:
			say("-ERR [AUTH] no")
		default:
			t.Errorf("the backend heard %q", line)
			return
		}
	}
}

// wantReplies checks that what the client heard is POP3.
func wantReplies(t *testing.T, heard []byte) {
	list := false
	for line := range strings.SplitAfterSeq(string(heard), "\r\n") {
		line, whole := strings.CutSuffix(line, "\r\n")
		switch {
		case line == "" && !whole:
		case !whole:
			t.Errorf("half a line: %q", line)
		case list:
			list = line != "."
		case line == "+OK Begin TLS negotiation.":
			return // what follows is an alert
		case line == "+OK", line == "+OK Capability list follows":
			list = true
		case strings.HasPrefix(line, "+OK "):
		case strings.HasPrefix(line, "-ERR "):
			wantDecent(t, line)
		case strings.HasPrefix(line, "+ "):
			if _, err := base64.StdEncoding.DecodeString(line[2:]); err != nil {
				t.Errorf("a prompt in no base64: %q", line)
			}
		default:
			t.Errorf("no POP3: %q", line)
		}
	}
}

var (
	isForward = regexp.MustCompile(`^XCLIENT ADDR=192\.0\.2\.7 PORT=40000 DESTADDR=198\.51\.100\.1 DESTPORT=\d+ SESSION=\w{12} TTL=6 CLIENT-TRANSPORT=TLS$`)
	isBase64  = regexp.MustCompile(`^[A-Za-z0-9+/]*=*$`)
)

// refuseAll is a backend that takes nothing for granted.
func refuseAll(t *testing.T, conn net.Conn) {
	defer conn.Close()
	lines := bufio.NewReader(conn)
	say := func(s string) { io.WriteString(conn, s+"\r\n") }
	say("+OK [XCLIENT] ready")
	forwarded, named, asked := false, false, false
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			return
		}
		line, ok := strings.CutSuffix(line, "\r\n")
		if !ok || strings.ContainsAny(line, "\x00\r") {
			t.Errorf("the backend heard %q", line)
		}
		verb, rest, _ := strings.Cut(line, " ")
		switch {
		case asked && isBase64.MatchString(line):
			say("-ERR [AUTH] no")
			asked = false
		case line == "QUIT":
			return
		case line == "CAPA":
			say("+OK\r\nPIPELINING\r\nSASL PLAIN XOAUTH2 OAUTHBEARER\r\n.")
		case isForward.MatchString(line) && !forwarded:
			forwarded = true
			say("+OK")
		case verb == "USER" && forwarded && !named && rest != "":
			named = true
			say("+OK")
		case verb == "PASS" && named:
			say("-ERR [AUTH] no")
		case verb == "AUTH" && forwarded && !named && len(line) < 254:
			mech, initial, ok := strings.Cut(rest, " ")
			if mech != "PLAIN" && mech != "XOAUTH2" && mech != "OAUTHBEARER" || !isBase64.MatchString(initial) {
				t.Errorf("the backend heard %q", line)
			}
			if asked = !ok; asked {
				say("+ ")
			} else {
				say("-ERR [AUTH] no")
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

// FuzzReply hears anything from a backend. A login's reply is one good line,
// and all else an error that says what it is.
func FuzzReply(f *testing.F) {
	for _, said := range proxytest.Said(f, "B<") {
		for mech := range uint8(8) {
			f.Add(said, mech)
		}
	}
	f.Fuzz(func(t *testing.T, says []byte, mech uint8) {
		conn := &canned{says: bytes.NewReader(says)}
		p := Front.Dial(proxy.NewWire(conn), proxy.Origin{Hostname: "proxy.test.example", Session: "1G90A7RCDEFG", Forward: true,
			Client: netip.MustParseAddrPort("192.0.2.7:40000"), Server: netip.MustParseAddrPort("198.51.100.1:110")})
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
		r := proxy.Request{Mech: []string{"USERPASS", "PLAIN", "XOAUTH2", "OAUTHBEARER"}[mech%4], User: "anna", Secret: "secret"}
		if mech&4 != 0 {
			r = proxy.Request{Mech: []string{"APOP", "CRAM-MD5", "SCRAM-SHA-1", "NTLM"}[mech%4], Initial: proxy.Secret(strings.Repeat("x", int(mech&8)*40)),
				Through: &proxytest.Answers{Left: 10}}
		}
		reply, err := p.Login(r)
		var no *proxy.Rejection
		switch {
		case err == nil:
			text, ok := bytes.CutSuffix(reply, []byte("\r\n"))
			if !ok || !bytes.HasPrefix(reply, []byte("+OK")) || bytes.ContainsRune(text, '\n') {
				t.Errorf("logged in with %q", reply)
			}
		case errors.As(err, &no):
			if no.Class != proxy.BadCredential && no.Class != proxy.NoAccess && no.Class != proxy.Unavailable {
				t.Errorf("class %d", no.Class)
			}
			if no.Code != "" && no.Code != "IN-USE" && no.Code != "LOGIN-DELAY" {
				t.Errorf("code %q", no.Code)
			}
			if no.Challenge != nil && !proxy.IsBearer(r.Mech) {
				t.Errorf("a challenge in a %s exchange", r.Mech)
			}
		case reply != nil:
			t.Errorf("%v, and yet %q", err, reply)
		}
	})
}
