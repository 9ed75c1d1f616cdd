package proxy

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"
)

func TestClientIsAnAddressOrANetwork(t *testing.T) {
	for in, want := range map[string]string{
		"192.0.2.1": "192.0.2.1/32", "::ffff:192.0.2.1": "192.0.2.1/32", "2001:db8:1:2:3:4:5:6": "2001:db8:1:2::/64",
		"fe80::1%eth0": "fe80::/64",
	} {
		if got := client(netip.MustParseAddr(in)).String(); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
	if client(netip.Addr{}) != (netip.Prefix{}) {
		t.Error("the invalid address is somebody")
	}
}

func TestTally(t *testing.T) {
	var y tally
	one, two := netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2:2")
	if !y.add(one, 2) || !y.add(two, 2) || y.add(one, 2) || !y.add(one, 0) {
		t.Error("the bound does not hold")
	}
	for range 3 {
		y.remove(two)
	}
	if len(y.by) != 0 {
		t.Errorf("%v is left", y.by)
	}
	if !y.enter(1) || y.enter(1) || !y.enter(0) {
		t.Error("the total does not hold")
	}
	y.leave()
	y.leave()
	if !y.enter(1) {
		t.Error("nothing was released")
	}
}

func TestPerAddress(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t)
		r.settings.PerAddress = 2
		var held []*talker
		for _, from := range []string{"[2001:db8:1:2::1]:1", "[2001:db8:1:2:ffff::2]:2"} {
			c := r.dial("starttls", from)
			c.want("HELLO proxy.example")
			held = append(held, c)
		}
		c := r.dial("starttls", "[2001:db8:1:2:8::3]:3") // of the same /64
		c.want("BYE Too many attempts. Please connect again later.")
		c.wantClose()
		c = r.dial("implicit", "[2001:db8:1:2:8::3]:3") // no word in clear on a TLS port
		c.wantClose()
		if n := r.events(); n != 0 {
			t.Errorf("%d events of connections turned away", n)
		}
		lines := r.logs.FilterMessageSnippet("limits.per_address").All()
		if len(lines) != 1 {
			t.Fatalf("%d lines in the log of two turned away within a second", len(lines))
		}
		if got := lines[0].ContextMap()["network"]; got != "2001:db8:1::/48" {
			t.Errorf("the log, which outlives the events, has %v", got)
		}
		c = r.dial("starttls", "[2001:db8:1:3::1]:1") // of another
		c.want("HELLO proxy.example")
		held[0].close()
		synctest.Wait()
		c = r.dial("starttls", "[2001:db8:1:2:8::3]:3")
		c.want("HELLO proxy.example")
	})
}

func TestBehindABalancerTheClientCounts(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := balanced(t)
		r.settings.PerAddress = 1
		for i := range 3 {
			c := r.dial("starttls", balancer)
			c.send(fmt.Sprintf("PROXY TCP4 203.0.113.%d 198.51.100.2 40000 993\r\n", i))
			c.want("HELLO proxy.example")
		}
		c := r.dial("starttls", balancer)
		c.send(headers[0].header[:len("PROXY TCP4 203.0.113.")] + "1 198.51.100.2 40000 993\r\n")
		c.want("BYE Too many attempts. Please connect again later.")
	})
}

func TestTotal(t *testing.T) {
	r := newRig(t)
	r.settings.Connections = 2
	r.settings.Listeners[0].ServeHello = false
	r.settings.Listeners[0].Address = "127.0.0.1:0"
	r.apply()
	defer r.engine.Shutdown(0, 0)
	dial := func() *talker {
		c, err := net.Dial("tcp", r.engine.Addr("starttls").String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return talk(t, c)
	}
	first := dial()
	first.want("HELLO proxy.example")
	dial().want("HELLO proxy.example")
	for range 3 {
		dial().wantClose()
	}
	lines := r.logs.FilterMessageSnippet("limits.connections").All()
	if len(lines) != 1 {
		t.Fatalf("%d lines in the log of three turned away within a second", len(lines))
	}
	if got := lines[0].ContextMap()["network"]; got != "127.0.0.0/24" {
		t.Errorf("the log, which outlives the events, has %v", got)
	}
	first.conn.Close()
	for r.engine.Sessions() == 2 {
		time.Sleep(time.Millisecond)
	}
	time.Sleep(5 * time.Millisecond)
	dial().want("HELLO proxy.example")
}

func TestUpgradersAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var u upgraders
		ip := func(i int) netip.Addr {
			return netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		}
		for i := range upgradersKept + 10 {
			u.add(ip(i), "imap")
			if len(u.last) > upgradersKept {
				t.Fatalf("%d are kept", len(u.last))
			}
		}
		last := ip(upgradersKept + 9)
		if !u.has(last, "imap") || u.has(last, "smtp") || u.has(netip.MustParseAddr("192.0.2.1"), "imap") {
			t.Error("the wrong ones are remembered")
		}
		time.Sleep(upgraderFor)
		if u.has(last, "imap") {
			t.Error("never forgotten")
		}
	})
}

func TestSometimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s sometimes
		if held, ok := s.ready(); held != 0 || !ok {
			t.Error("the first is held back")
		}
		for range 5 {
			if _, ok := s.ready(); ok {
				t.Error("too often")
			}
		}
		time.Sleep(time.Second)
		if held, ok := s.ready(); held != 5 || !ok {
			t.Error(held, ok)
		}
	})
}

func TestRefusedLoginsAreBounded(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t)
		c := r.dial("implicit")
		c.tls("toy.example")
		c.want("HELLO proxy.example")
		for range r.settings.Limits.Logins {
			c.say("LOGIN anna wrong")
			c.want("NO credential User name or password is wrong.")
		}
		c.want("BYE Too many attempts. Please connect again later.")
		c.close()
		if e := r.wantEnd("LL", "too_many_logins"); e.Attempts != 3 || e.Verified || e.Account != "" || e.Refused != "credential" {
			t.Errorf("%+v", e)
		}
	})
	bubble(t, func(t *testing.T) {
		r := newRig(t)
		c := r.dial("starttls")
		c.want("HELLO proxy.example")
		for range r.settings.Limits.Logins {
			c.say("LOGIN anna right")
			c.wantPrefix("NO policy Your password is NOT wrong.")
		}
		c.wantPrefix("BYE ")
		c.close()
		if e := r.wantEnd("PD", "policy_refused"); e.Attempts != 0 || r.dialled() != "one:1" {
			t.Errorf("%+v; the backend was asked: %s", e, r.dialled())
		}
	})
}
