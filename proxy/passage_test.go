package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"mailreeve/policy"
)

// stampedPeer is a peer whose greeting had a timestamp.
type stampedPeer struct {
	toyPeer
	resumed *Origin
}

func (p *stampedPeer) Stamp() string   { return "<1@x>" }
func (p *stampedPeer) Resume(o Origin) { p.resumed = &o }

// TestReach: a connection made before the greeting serves the login. What its
// PROXY header said must still be so, but for APOP, which has no other; and it
// must be to the backend that is wanted.
func TestReach(t *testing.T) {
	elsewhere := errors.New("a new connection")
	for _, test := range []struct {
		name               string
		mech               string
		header, then, now  bool // a PROXY header, and whether the client had and has TLS
		other, early, fail bool // the backend is another; what is wanted
	}{
		{name: "password", mech: policy.UserPass, early: true},
		{name: "APOP", mech: apop, early: true},
		{name: "TLS since", mech: policy.UserPass, now: true, early: true},
		{name: "PROXY header", mech: policy.UserPass, header: true, early: true},
		{name: "PROXY header over TLS", mech: policy.UserPass, header: true, then: true, now: true, early: true},
		{name: "PROXY header, TLS since", mech: policy.UserPass, header: true, now: true},
		{name: "PROXY header, TLS since, APOP", mech: apop, header: true, now: true, early: true},
		{name: "another backend", mech: policy.UserPass, other: true},
		{name: "another backend, APOP", mech: apop, other: true, fail: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dialer := func(context.Context, string) (net.Conn, error) { return nil, elsewhere }
				backend := &Backend{Front: toy(), Addresses: []string{"x:1"}, Proxy: test.header, Login: time.Minute, Dialer: dialer}
				conn, far := net.Pipe()
				defer conn.Close()
				defer far.Close()
				peer := &stampedPeer{}
				s := &session{engine: &Engine{overdue: t.Context()}, early: &link{wire: NewWire(conn), peer: peer, backend: backend, secure: test.then}}
				backend.early.enter(mostEarly)
				backend.early.add(s.client.Addr(), earlyEach)
				if test.now {
					s.learn(policy.TLS, "1.3")
					s.tls = &tls.ConnectionState{}
				}
				wanted := backend
				if test.other {
					wanted = &Backend{Front: toy(), Addresses: []string{"x:1"}, Dialer: dialer}
				}
				l, early, err := s.reach(wanted, Request{Mech: test.mech})
				switch {
				case early != test.early:
					t.Errorf("early: %t (%v)", early, err)
				case early && (l.peer != peer || peer.resumed == nil || (peer.resumed.TLS != "") != test.now || s.early != nil):
					t.Errorf("%+v", peer.resumed)
				case !early && errors.Is(err, elsewhere) == test.fail:
					t.Errorf("%v", err)
				}
			})
		})
	}
}
