package imapfront

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"maps"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"mailreeve/proxy"
	"mailreeve/proxy/proxytest"
)

// tape is a connection that says what it was given, in pieces, and keeps what
// it is told.
type tape struct {
	net.Conn
	in    []byte
	piece int // bytes a read; 0: all
	out   bytes.Buffer
}

func (c *tape) Read(p []byte) (int, error) {
	if len(c.in) == 0 {
		return 0, io.EOF
	}
	n := len(c.in)
	if c.piece > 0 {
		n = min(n, c.piece)
	}
	n = copy(p, c.in[:n])
	c.in = c.in[n:]
	return n, nil
}

func (c *tape) Write(p []byte) (int, error)      { return c.out.Write(p) }
func (c *tape) Close() error                     { return nil }
func (c *tape) SetDeadline(time.Time) error      { return nil }
func (c *tape) SetReadDeadline(time.Time) error  { return nil }
func (c *tape) SetWriteDeadline(time.Time) error { return nil }

// wellFormed are the lines that we may say before a login.
var wellFormed = regexp.MustCompile(`^(\* (OK|BAD|BYE|ID|CAPABILITY|ENABLED)( [ -~]+)?|\+ ([A-Za-z0-9+/]*={0,2}|Ready for the literal\.)|[!-~]{1,64} (OK|NO|BAD) [ -~]+)$`)

func checkLines(t *testing.T, said string) {
	t.Helper()
	if said == "" {
		return
	}
	lines, ok := strings.CutSuffix(said, "\r\n")
	if !ok {
		t.Fatalf("no line end: %q", said)
	}
	for line := range strings.SplitSeq(lines, "\r\n") {
		if !wellFormed.MatchString(line) {
			t.Fatalf("said %q", line)
		}
	}
}

// corpus adds what clients say in the transcripts.
func corpus(f *testing.F, add func([]byte)) {
	for _, said := range proxytest.Said(f, "C:") {
		add(said)
	}
}

// FuzzDialogue has the front alone talk to any client: in clear, where every
// login is refused unread, and in TLS, where each is tried. Whatever it says is
// well-formed, and it holds no more than the limits let it.
func FuzzDialogue(f *testing.F) {
	corpus(f, func(said []byte) {
		f.Add(said, uint8(0), true)
		f.Add(said, uint8(7), false)
	})
	f.Fuzz(func(t *testing.T, said []byte, piece uint8, clear bool) {
		conn := &tape{in: said, piece: int(piece)}
		w := proxy.NewWire(conn)
		advert := proxy.Advert{Hostname: "h", Secure: !clear, Password: !clear, Mechs: []string{"PLAIN", "LOGIN", "OAUTHBEARER", "XOAUTH2"}}
		refusal := proxy.Refusal{Class: proxy.PolicyDeny, Text: "refused"}
		if clear {
			advert.Mechs, advert.Refusal = nil, &refusal
		}
		d := Front.Open(w, advert, limits)
		if err := d.Greet(); err != nil {
			t.Fatal(err)
		}
		for {
			req, err := d.Next()
			if err == nil && req.Kind == proxy.Chosen && len(req.Mech) <= 20 && !clear && knows(advert, req.Mech) {
				req, err = d.Credential()
			}
			if err != nil {
				break
			}
			switch {
			case req.Kind == 0: // answered
			case req.Kind == proxy.StartTLS && clear:
				if err := d.Accept(req, nil, ""); err != nil {
					t.Fatal(err)
				}
				d.Upgrade(advert)
			case req.Kind == proxy.Chosen && len(req.Mech) > 20:
				t.Fatalf("mechanism %q", req.Mech)
			case req.Kind == proxy.Chosen:
				d.Refuse(req, refusal)
			case req.Kind == proxy.Login && !clear:
				if strings.ContainsAny(req.User+req.Authzid+req.Secret.Reveal(), "\x00\r\n") && req.Mech != "OAUTHBEARER" {
					t.Fatalf("%q %q %q", req.User, req.Authzid, req.Secret.Reveal())
				}
				d.Refuse(req, proxy.Refusal{Class: proxy.BadCredential, Text: "wrong"})
			default:
				t.Fatalf("request %+v", req)
			}
			if len(req.Token) > maxTag || len(req.User) > 320 || len(req.Secret.Reveal()) > limits.Memory {
				t.Fatalf("request %+v", req)
			}
		}
		checkLines(t, conn.out.String())
		id := d.Client().ID
		if len(id) > maxIDFields {
			t.Fatalf("%d fields", len(id))
		}
		for k, v := range id {
			if len(k) > maxIDKey || len(v) > maxIDValue || strings.ContainsAny(k+v, "\r\n\x00") {
				t.Fatalf("field %q: %q", k, v)
			}
		}
	})
}

func knows(a proxy.Advert, mech string) bool {
	return mech == "USERPASS" || strings.Contains(strings.Join(a.Mechs, " ")+" ", mech+" ")
}

// FuzzSession has the whole engine talk to any client, in each state. In clear
// no backend hears of it; whatever happens, the session ends with one event.
func FuzzSession(f *testing.F) {
	corpus(f, func(said []byte) {
		for state := range uint8(4) {
			f.Add(state, said)
		}
	})
	f.Fuzz(func(t *testing.T, state uint8, said []byte) {
		synctest.Test(t, func(t *testing.T) {
			r := proxytest.New(t, Front, probe)
			refused, open := state%4 == 0, state%4 == 1
			if open {
				observing(r)
			}
			probing, dials := r.Backend.Dialer, 0
			r.Backend.Dialer = func(ctx context.Context, address string) (net.Conn, error) {
				if dials++; dials == 1 {
					return probing(ctx, address)
				}
				ours, theirs := net.Pipe()
				go naysay(theirs)
				return ours, nil
			}
			r.Apply()
			defer r.Engine.Shutdown(0, 0)
			conn := enter(t, r, state%4)
			go func() {
				conn.Write(said)
				time.Sleep(time.Hour) // longer than any patience but the relay's
				conn.Close()
			}()
			heard, _ := io.ReadAll(conn)
			if !bytes.HasPrefix(said, []byte{0x16}) && !bytes.HasPrefix(said, []byte{0x80}) && !bytes.Contains(bytes.ToUpper(said), []byte("STARTTLS")) {
				checkLines(t, string(heard))
			}
			time.Sleep(2 * time.Hour)
			if refused && dials > 1 {
				t.Error("the backend heard of a client in clear")
			}
			if n := r.Engine.Sessions(); n != 0 {
				t.Errorf("%d sessions live on", n)
			}
		})
	})
}

// enter brings a client into a state: refused in clear, let in in clear,
// implicit TLS, and after STARTTLS.
func enter(t *testing.T, r *proxytest.Rig, state uint8) net.Conn {
	t.Helper()
	if state == 2 {
		return overTLS(t, r.Connect("implicit"))
	}
	conn := r.Connect("starttls")
	if state < 3 {
		return conn
	}
	answer := make([]byte, 1<<10)
	if _, err := conn.Read(answer); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, "a STARTTLS\r\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(answer); err != nil {
		t.Fatal(err)
	}
	return overTLS(t, conn)
}

func overTLS(t *testing.T, conn net.Conn) net.Conn {
	t.Helper()
	c := tls.Client(conn, &tls.Config{ServerName: "imap.test.example", InsecureSkipVerify: true})
	if err := c.Handshake(); err != nil {
		t.Fatal(err)
	}
	return c
}

// naysay is a backend that refuses every login.
func naysay(conn net.Conn) {
	defer conn.Close()
	io.WriteString(conn, "* OK [CAPABILITY IMAP4rev1 LITERAL+ SASL-IR AUTH=PLAIN] ready\r\n")
	lines := bufio.NewReader(conn)
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			return
		}
		if tag, command, _ := strings.Cut(line, " "); strings.HasPrefix(command, "LOGIN ") || strings.HasPrefix(command, "AUTHENTICATE ") {
			if _, err := io.WriteString(conn, tag+" NO no\r\n"); err != nil {
				return
			}
		}
	}
}

// FuzzID reads any argument of ID: it is answered with OK, or the session ends;
// and the relay's watch finds the same fields however the bytes are cut.
func FuzzID(f *testing.F) {
	corpus(f, func(said []byte) {
		_, argument, _ := bytes.Cut(said, []byte("ID "))
		f.Add(argument, uint8(3))
	})
	f.Fuzz(func(t *testing.T, argument []byte, piece uint8) {
		conn := &tape{in: append([]byte("a ID "), argument...), piece: int(piece)}
		d := Front.Open(proxy.NewWire(conn), proxy.Advert{Secure: true}, limits)
		_, err := d.Next()
		checkLines(t, conn.out.String())
		if answer, _, ended := strings.Cut(conn.out.String(), "a OK ID completed.\r\n"); !ended && strings.Contains(answer, "a BAD") || err == nil && !ended {
			t.Fatalf("said %q (%v)", conn.out.String(), err)
		}

		var whole, pieces map[string]string
		all := append([]byte("a ID "), argument...)
		watch(func(id map[string]string) { whole = id })(all)
		w := watch(func(id map[string]string) { pieces = id })
		for p := range slices.Chunk(all, int(piece)+1) {
			if w(p) {
				break
			}
		}
		if !maps.Equal(whole, pieces) {
			t.Fatalf("%v, in pieces %v", whole, pieces)
		}
	})
}

// FuzzPeer has any backend answer a login: only its OK with our tag is one, and
// what it says is bounded.
func FuzzPeer(f *testing.F) {
	for _, said := range proxytest.Said(f, "B<") {
		f.Add(said, uint8(0), false)
		f.Add(said, uint8(1), true)
		f.Add(said, uint8(2), true)
	}
	f.Fuzz(func(t *testing.T, said []byte, piece uint8, bearer bool) {
		conn := &tape{in: said, piece: int(piece)}
		p := Front.Dial(proxy.NewWire(conn), proxy.Origin{Forward: true, Client: netip.MustParseAddrPort("192.0.2.7:1")})
		if err := p.Greeting(); err != nil {
			return
		}
		req := proxy.Request{Kind: proxy.Login, Token: "a", Mech: "USERPASS", User: "anna", Secret: "x\xe4"}
		if bearer {
			req.Mech = "XOAUTH2"
		}
		if bearer && piece%2 == 0 {
			req = proxy.Request{Kind: proxy.Chosen, Token: "a", Mech: "SCRAM-SHA-1", Initial: proxy.Secret(strings.Repeat("x", int(piece)*40)),
				Through: &proxytest.Answers{Left: 10}}
		}
		reply, err := p.Login(req)
		if err != nil {
			return
		}
		ok := regexp.MustCompile(`(?is)(^|\n)a OK( .*)?$`)
		if line, end := strings.CutSuffix(string(reply), "\r\n"); !end || !ok.MatchString(line) || !ok.Match(bytes.TrimRight(said, "\r\n")) && !bytes.Contains(bytes.ToUpper(said), []byte("A OK")) {
			t.Fatalf("reply %q", reply)
		}
		if len(reply) > backendReply+backendLine {
			t.Fatalf("%d bytes", len(reply))
		}
	})
}
