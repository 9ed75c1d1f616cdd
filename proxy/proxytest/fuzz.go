package proxytest

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"mailreeve/proxy"
)

// FuzzDialogue says anything, in clear or over TLS, to a proxy before a backend
// that serve plays; its corpus is what clients say in the transcripts. What was
// heard is handed to check, the session ends, nothing panics, and in clear the
// backend is asked for its offer alone, unless the rig is set up in another way.
func FuzzDialogue(f *testing.F, front *proxy.Front, probe string, serve func(*testing.T, net.Conn), check func(*testing.T, []byte), set ...func(*Rig)) {
	for _, said := range Said(f, "C:") {
		f.Add(said, false)
		f.Add(said, true)
	}
	f.Fuzz(func(t *testing.T, said []byte, secure bool) {
		if !secure && len(said) > 0 && (said[0] == 0x16 || said[0] == 0x80) {
			return // a TLS record
		}
		synctest.Test(t, func(t *testing.T) {
			rig := New(t, front, probe)
			rig.Backend.Forward = true
			for _, f := range set {
				f(rig)
			}
			dials := 0
			rig.Backend.Dialer = func(context.Context, string) (net.Conn, error) {
				dials++ // one session, one dial at a time
				ours, theirs := net.Pipe()
				go serve(t, theirs)
				return ours, nil
			}
			check(t, rig.converse(said, secure))
			if !secure && set == nil && dials > 1 {
				t.Errorf("in clear, and the backend was dialled %d times", dials)
			}
			if failed := rig.Logs.FilterMessage("a session failed").All(); len(failed) > 0 {
				t.Errorf("panics: %v", failed)
			}
		})
	})
}

// Answers is a client in an exchange that passes: it answers so many challenges.
type Answers struct{ Left int }

// Respond says nothing of interest.
func (a *Answers) Respond(string) (proxy.Secret, error) {
	if a.Left--; a.Left < 0 {
		return "", errors.New("too many challenges")
	}
	return "c2VjcmV0", nil
}

// converse is one session of a client that says its piece and listens.
func (r *Rig) converse(said []byte, secure bool) (heard []byte) {
	listener := "starttls"
	if secure {
		listener = "implicit"
	}
	r.Apply()
	conn := r.Secure(r.Connect(listener), secure)
	all := make(chan []byte, 1)
	go func() {
		b, _ := io.ReadAll(conn)
		all <- b
	}()
	conn.Write(said)
	time.Sleep(10 * time.Minute) // longer than any patience before the login
	conn.Close()
	select {
	case heard = <-all:
	case <-time.After(time.Minute):
		r.t.Error("the session does not end")
	}
	r.Engine.Shutdown(0, 0)
	return heard
}
