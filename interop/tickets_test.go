package interop

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// A client that comes back need not begin anew: after a restart, after a reload, and at another
// node with the same state. Under another name or with another protocol it must.
func TestSessionsAreResumed(t *testing.T) {
	whole := t
	rig := StartServers(t)
	Require(t, "openssl")
	more := fmt.Sprintf("state: %q\n", filepath.Join(t.TempDir(), "state"))
	cert, key := rig.Certificate(t, usualNames[IMAP], usualNames[POP3], usualNames[Submission], "localhost")
	setup := Setup{Hop: Named, Certificates: certificateFiles(cert, key), More: more}
	p := rig.Start(t, setup)
	other := rig.Start(t, setup) // a second node

	for _, version := range []string{"-tls1_2", "-tls1_3"} {
		t.Run(version, func(t *testing.T) {
			session := filepath.Join(t.TempDir(), "session")
			// visit says whether openssl resumed the session of its file.
			visit := func(p *Proxy, protocol Protocol, name string, args ...string) bool {
				t.Helper()
				e := p.At(protocol, Implicit)
				e.Host = name
				k, shown := OpenSSL(t, e, protocol, rig.CAFile, append(args, version)...)
				k.Send(map[Protocol]string{IMAP: "a LOGOUT", POP3: "QUIT"}[protocol])
				k.Expect(`^\* BYE|^\+OK .*[Bb]ye`) // by now it has had its tickets
				k.conn.Close()
				return shown.Resumed
			}
			if visit(p, IMAP, usualNames[IMAP], "-sess_out", session) {
				t.Error("a first session is resumed")
			}
			if info, err := os.Stat(session); err != nil || info.Size() == 0 {
				t.Fatalf("openssl has no session: %v", err)
			}
			for _, x := range []struct {
				what     string
				at       *Proxy
				protocol Protocol
				name     string
				resumed  bool
			}{
				{"the same", p, IMAP, usualNames[IMAP], true},
				{"at another node", other, IMAP, usualNames[IMAP], true},
				{"under another name", p, IMAP, usualNames[POP3], false},
				{"with another protocol", p, POP3, usualNames[IMAP], false},
			} {
				if got := visit(x.at, x.protocol, x.name, "-sess_in", session); got != x.resumed {
					t.Errorf("%s: resumed: %v", x.what, got)
				}
			}
			p.Stop(t)
			p.Run(whole)
			if !visit(p, IMAP, usualNames[IMAP], "-sess_in", session) {
				t.Error("it is not resumed after a restart")
			}
		})
	}
}
