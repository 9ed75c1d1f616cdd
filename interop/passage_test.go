package interop

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// observing is a policy that refuses nothing, as on the day of installation.
const observing = `version: 1
timezone: Europe/Berlin
requirements:
  - id: encrypted
    finding: plaintext
    require: { tls: ">=1.2" }
    stages: [ { from: "2020-01-01", do: observe } ]
  - id: password-only
    finding: mechanism
    require: { mechanism: [PLAIN, LOGIN, USERPASS, XOAUTH2, OAUTHBEARER] }
    stages: [ { from: "2020-01-01", do: observe } ]
`

// startObserving starts a proxy that refuses nothing.
func (rig *Rig) startObserving(t testing.TB, hop Hop) *Proxy {
	t.Helper()
	file := filepath.Join(t.TempDir(), "policy.yaml")
	must(t, os.WriteFile(file, []byte(observing), 0o600))
	return rig.Start(t, Setup{Hop: hop, More: fmt.Sprintf("policy: %q", file)})
}

// passing are the mechanisms that pass, where the servers have them.
var passing = []string{"CRAM-MD5", "DIGEST-MD5", "SCRAM-SHA-1", "SCRAM-SHA-256", "APOP"}

// Where nothing is refused, every mail program uses every mechanism that it has, in clear and
// over TLS, and the event says whose login it was. A wrong password is one.
func TestProxyPassage(t *testing.T) {
	rig := StartServers(t)
	for _, hop := range []struct {
		name string
		Hop
	}{
		{"named", Named},
		{"plain, PROXY header", Hop{Plain, map[Protocol]string{IMAP: "proxy", POP3: "proxy", Submission: "proxy"}}},
	} {
		t.Run(hop.name, func(t *testing.T) {
			p := rig.startObserving(t, hop.Hop)
			for _, c := range Clients {
				for _, mechanism := range c.Mechanisms {
					for _, entry := range []Entry{Plain, StartTLS, Implicit} {
						if !slices.Contains(passing, mechanism) || hop.Entry == Plain && entry == StartTLS {
							continue
						}
						if c.Name == "fetchmail POP3" && mechanism == "APOP" && entry == StartTLS {
							continue // it does not ask for TLS then, though it is told to
						}
						t.Run(fmt.Sprintf("%s %s %s", c.Name, mechanism, entry), func(t *testing.T) {
							t.Parallel()
							Require(t, c.Programs...)
							rig.passes(t, p, c, mechanism, entry)
						})
					}
				}
			}
		})
	}
}

// passes is one program's login by one mechanism: right, then wrong.
func (rig *Rig) passes(t *testing.T, p *Proxy, c Client, mechanism string, entry Entry) {
	t.Helper()
	a := rig.NewAccount(t, Bert.Password)
	try := func(a Account) (string, error) {
		act := c.List
		if c.Send != nil {
			act = c.Send(a, Bert, Message(a, Bert, "by a mechanism that passes"))
		}
		return Login{Endpoint: p.At(c.Protocol, entry), Account: a, CAFile: p.CAFile, Mechanism: mechanism}.Do(t, act)
	}
	events := p.Events.Here()
	if out, err := try(a); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	e := p.WaitEvent(t, events, "login of "+a.User, func(e Event) bool { return e.Account == a.User && e.Verified })
	if e.Mechanism != mechanism || e.Entry != string(entry) || e.Action != "observe" || !strings.Contains(strings.Join(e.By, " "), "password-only") || e.Exposed {
		t.Errorf("event %+v", e)
	}
	if out, err := try(Account{a.User, "wrong"}); err == nil {
		t.Errorf("no error with a wrong password:\n%s", out)
	}
}

// What is offered before the login is the backend's own list, less what cannot pass; and a
// wrong answer to a challenge, or none, leaves the connection as it was.
func TestProxyPassageByHand(t *testing.T) {
	rig := StartServers(t)
	p := rig.startObserving(t, Named)
	a := rig.NewAccount(t, "secret")
	events := p.Events.Here()
	k := rig.Dial(t, p.IMAP.By(Plain))
	list := k.Ask("a CAPABILITY", `^a OK `)
	for _, mechanism := range passing {
		if mechanism != "APOP" && !strings.Contains(list, " AUTH="+mechanism) {
			t.Errorf("AUTH=%s is not offered: %s", mechanism, list)
		}
	}
	k.Ask("b AUTHENTICATE CRAM-MD5", `^\+ `)
	k.Ask("*", `^b BAD AUTHENTICATE cancelled`)
	k.Ask("c AUTHENTICATE CRAM-MD5", `^\+ `)
	k.Ask("bm9ib2R5", `^c BAD Malformed`)
	k.Ask("d AUTHENTICATE CRAM-MD5", `^\+ `)
	k.Ask("bm9ib2R5IGM0YzkzMzRiYWM1NjBlY2M5NzllNTgwMDFiM2UyMmZi", `^d NO \[AUTHENTICATIONFAILED\] `)
	k.Ask("e LOGIN "+a.User+" secret", `^e OK `)
	k.Ask("f LOGOUT", `^f OK `)
	p.WaitEvent(t, events, "login of "+a.User, func(e Event) bool { return e.Account == a.User && e.Exposed })

	k = rig.Dial(t, p.Submission.By(Plain))
	k.Ask("EHLO pc.kunde.example", `^250 `)
	k.Ask("AUTH DIGEST-MD5", `^334 `)
	k.Ask("*", `^501 5\.7\.0 `)
	k.Ask("AUTH CRAM-MD5", `^334 `)
	k.Ask("bm9ib2R5IGM0YzkzMzRiYWM1NjBlY2M5NzllNTgwMDFiM2UyMmZi", `^535 5\.7\.8 `)
	k.Ask("AUTH PLAIN "+a.SASLPlain(), `^235 `)

	k = rig.Dial(t, p.POP3.By(Plain))
	k.Ask("APOP "+a.User+" c4c9334bac560ecc979e58001b3e22fb", `^-ERR \[AUTH\] `)
	k.Ask("USER "+a.User, `^\+OK`)
	k.Ask("PASS secret", `^\+OK Logged in`)
}

// ntlmServer is an IMAP server that has NTLM, which Debian's Dovecot has not, and takes whoever
// answers its challenge. It returns its address.
func ntlmServer(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { listener.Close() })
	challenge := base64.StdEncoding.EncodeToString([]byte("NTLMSSP\x00\x02\x00\x00\x00" + // [MS-NLMP] section 2.2.1.2
		"\x00\x00\x00\x00\x30\x00\x00\x00" + "\x01\x02\x00\x00" + "8 bytes." + strings.Repeat("\x00", 16)))
	serve := func(conn net.Conn) {
		defer conn.Close()
		say := func(line string) { fmt.Fprintf(conn, "%s\r\n", line) }
		say("* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN AUTH=NTLM] ready")
		for lines := bufio.NewScanner(conn); lines.Scan(); {
			tag, command, _ := strings.Cut(lines.Text(), " ")
			switch {
			case strings.HasPrefix(command, "AUTHENTICATE NTLM"):
				say("+ " + challenge)
				if !lines.Scan() {
					return
				}
				say(tag + " OK [CAPABILITY IMAP4rev1] in")
			case strings.HasPrefix(command, "LIST"):
				say("* LIST () \"/\" NTLM-box")
				say(tag + " OK done")
			case command == "LOGOUT":
				say("* BYE")
				say(tag + " OK")
				return
			default:
				say(tag + " OK done")
			}
		}
	}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go serve(conn)
		}
	}()
	return listener.Addr().String()
}

// A real program's NTLM passes, and its name is read.
func TestProxyNTLM(t *testing.T) {
	rig := StartServers(t)
	Require(t, "curl")
	p := rig.Prepare(t, Setup{Hop: Named, More: "policy: policy.yaml"})
	must(t, os.WriteFile(filepath.Join(filepath.Dir(p.Config), "policy.yaml"), []byte(observing), 0o600))
	file, err := os.ReadFile(p.Config)
	must(t, err)
	was := regexp.MustCompile(`(?m)^  imap: \{ addresses: .*$`)
	must(t, os.WriteFile(p.Config, was.ReplaceAll(file, []byte("  imap: { addresses: ['"+ntlmServer(t)+"'], tls: off }")), 0o600))
	p.Run(t)
	for _, user := range []string{"anna@example.test", "bert"} {
		events := p.Events.Here()
		login := Login{Endpoint: p.At(IMAP, Implicit), Account: Account{user, "secret"}, CAFile: p.CAFile, Mechanism: "NTLM"}
		out, err := login.Do(t, func(s *session) error { return s.curl("imap", "") })
		if err != nil || !strings.Contains(out, "NTLM-box") {
			t.Errorf("%v\n%s", err, out)
		}
		e := p.WaitEvent(t, events, "login by NTLM", func(e Event) bool { return e.Mechanism == "NTLM" && e.Verified })
		if e.Account != user {
			t.Errorf("event %+v", e)
		}
	}
}
