package proxy

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pires/go-proxyproto"
	"github.com/pires/go-proxyproto/tlvparse"
)

// v2 makes a header of version 2.
func v2(command, family byte, body ...[]byte) string {
	all := bytes.Join(body, nil)
	return string(signatureV2) + string([]byte{command, family, byte(len(all) >> 8), byte(len(all))}) + string(all)
}

var (
	four = []byte{203, 0, 113, 9, 198, 51, 100, 2, 0x9c, 0x40, 0x03, 0xe1} // 203.0.113.9:40000 to 198.51.100.2:993
	six  = append(append(netip.MustParseAddr("2001:db8::9").AsSlice(), netip.MustParseAddr("2001:db8::2").AsSlice()...), 0x9c, 0x40, 0x03, 0xe1)
	map4 = append(append(netip.MustParseAddr("::ffff:203.0.113.9").AsSlice(), netip.MustParseAddr("::ffff:198.51.100.2").AsSlice()...), 0x9c, 0x40, 0x03, 0xe1)
	tlvs = []byte{0x02, 0, 3, 'a', '.', 'b', 0x04, 0, 2, 0, 0, 0xe5, 0, 1, 7}
)

const (
	from4, from6 = "203.0.113.9:40000", "[2001:db8::9]:40000"
	to4, to6     = "198.51.100.2:993", "[2001:db8::2]:993"
)

var headers = []struct {
	name, header string
	client       string // empty: none; "bad": refused
	server       string
}{
	{"v1 IPv4", "PROXY TCP4 203.0.113.9 198.51.100.2 40000 993\r\n", from4, to4},
	{"v1 IPv6", "PROXY TCP6 2001:db8::9 2001:db8::2 40000 993\r\n", from6, to6},
	{"v1 IPv6, mapped", "PROXY TCP6 ::ffff:203.0.113.9 ::ffff:198.51.100.2 40000 993\r\n", from4, to4},
	{"v1 UNKNOWN", "PROXY UNKNOWN\r\n", "", ""},
	{"v1 UNKNOWN, the longest", "PROXY UNKNOWN " + strings.Repeat("ffff:", 7) + "ffff " + strings.Repeat("ffff:", 7) + "ffff 65535 65535\r\n", "", ""},
	{"v1 too long", "PROXY UNKNOWN " + strings.Repeat("x", 92) + "\r\n", "bad", ""},
	{"v1 endless", "PROXY UNKNOWN " + strings.Repeat("x", 200), "bad", ""},
	{"v1 other transport", "PROXY UDP4 203.0.113.9 198.51.100.2 40000 993\r\n", "bad", ""},
	{"v1 no addresses", "PROXY TCP4\r\n", "bad", ""},
	{"v1 no address", "PROXY TCP4 203.0.113.999 198.51.100.2 40000 993\r\n", "bad", ""},
	{"v1 wrong family", "PROXY TCP4 2001:db8::9 2001:db8::2 40000 993\r\n", "bad", ""},
	{"v1 no port", "PROXY TCP4 203.0.113.9 198.51.100.2 40000 99993\r\n", "bad", ""},
	{"v1 zone", "PROXY TCP6 fe80::1%eth0 2001:db8::2 40000 993\r\n", "bad", ""},
	{"v2 IPv4", v2(0x21, 0x11, four), from4, to4},
	{"v2 IPv6", v2(0x21, 0x21, six), from6, to6},
	{"v2 IPv6, mapped", v2(0x21, 0x21, map4), from4, to4},
	{"v2 TLVs", v2(0x21, 0x11, four, tlvs), from4, to4},
	{"v2 broken TLVs do not matter", v2(0x21, 0x11, four, []byte{2, 0xff, 0xff}), from4, to4},
	{"v2 LOCAL", v2(0x20, 0x00), "", ""},
	{"v2 LOCAL with addresses", v2(0x20, 0x11, four), "", ""},
	{"v2 LOCAL with TLVs", v2(0x20, 0x00, tlvs), "", ""},
	{"v2 of the greatest length", v2(0x21, 0x11, four, make([]byte, headerV2-16-12)), from4, to4},
	{"v2 too long", v2(0x21, 0x11, four, make([]byte, headerV2-16-11)), "bad", ""},
	{"v2 UDP", v2(0x21, 0x12, four), "bad", ""},
	{"v2 unix", v2(0x21, 0x31, make([]byte, 216)), "bad", ""},
	{"v2 unspecified", v2(0x21, 0x00), "bad", ""},
	{"v2 too short", v2(0x21, 0x11, four[:11]), "bad", ""},
	{"v2 other version", v2(0x31, 0x11, four), "bad", ""},
	{"v2 other command", v2(0x22, 0x11, four), "bad", ""},
	{"v2 broken signature", "\r\n\r\n\x00\r\nQUIX\n\x21\x11\x00\x0c" + string(four), "bad", ""},
	{"garbage", "a1 LOGIN anna secret\r\n", "bad", ""},
	{"TLS", "\x16\x03\x01\x02\x00", "bad", ""},
	{"HTTP", "POST / HTTP/1.1\r\n", "bad", ""},
}

func TestReadProxyHeader(t *testing.T) {
	for _, test := range headers {
		t.Run(test.name, func(t *testing.T) {
			for _, size := range []int{1, 5, 10_000} {
				w := NewWire(&scripted{chunks: chunked(test.header+"next line\r\n", size)})
				client, server, err := readProxyHeader(w)
				if test.client == "bad" {
					if !errors.Is(err, errBadHeader) {
						t.Errorf("got %v, %v", client, err)
					}
					continue
				}
				if err != nil {
					t.Fatal(err)
				}
				var wantClient, wantServer netip.AddrPort
				if test.client != "" {
					wantClient, wantServer = netip.MustParseAddrPort(test.client), netip.MustParseAddrPort(test.server)
				}
				if client != wantClient || server != wantServer {
					t.Errorf("got %v, %v", client, server)
				}
				if line, err := w.Line(100); string(line) != "next line" || err != nil {
					t.Errorf("behind it: %q, %v", line, err)
				}
				if in, _ := w.Counts(); in != 11 {
					t.Errorf("%d bytes were counted: the header is not the client's", in)
				}
			}
		})
	}
}

func FuzzProxyHeader(f *testing.F) {
	for _, test := range headers {
		f.Add([]byte(test.header))
	}
	f.Fuzz(func(t *testing.T, input []byte) {
		read := func(chunks [][]byte) (netip.AddrPort, netip.AddrPort, []byte, error) {
			w := NewWire(&scripted{chunks: chunks})
			client, server, err := readProxyHeader(w)
			if len(w.buf) > headerV2 {
				t.Fatalf("the buffer grew to %d bytes", len(w.buf))
			}
			rest, _ := io.ReadAll(w)
			return client, server, rest, err
		}
		client, server, rest, err := read([][]byte{bytes.Clone(input)})
		client1, server1, rest1, err1 := read(chunked(string(input), 1))
		if client != client1 || server != server1 || (err == nil) != (err1 == nil) || err == nil && !bytes.Equal(rest, rest1) {
			t.Fatalf("in one piece: %v %v %q %v; byte by byte: %v %v %q %v", client, server, rest, err, client1, server1, rest1, err1)
		}
		if err != nil {
			if client.IsValid() || server.IsValid() {
				t.Fatal("addresses and an error")
			}
			return
		}
		if client.IsValid() != server.IsValid() || client.Addr().Zone() != "" || client.Addr().Is4In6() {
			t.Fatalf("%v, %v", client, server)
		}
		if !bytes.HasSuffix(input, rest) {
			t.Fatalf("what came behind the header was %q", rest)
		}
	})
}

// balanced makes the listeners expect a header from the balancer.
func balanced(t *testing.T) *rig {
	r := newRig(t)
	for _, l := range r.settings.Listeners {
		l.Proxies = []netip.Prefix{netip.MustParsePrefix("10.1.0.0/24"), netip.MustParsePrefix("fd00::/8")}
	}
	return r
}

const balancer = "10.1.0.5:7000"

func TestAClientBehindABalancer(t *testing.T) {
	for _, test := range headers {
		if test.client == "" || test.client == "bad" {
			continue
		}
		t.Run(test.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				r := balanced(t)
				c := r.dial("implicit", balancer)
				c.send(test.header)
				c.tls("toy.example")
				c.want("HELLO proxy.example")
				c.say("QUIT")
				c.want("BYE")
				c.close()
				e := r.wantEnd("CD", "client_quit")
				if e.IP != netip.MustParseAddrPort(test.client).Addr() || e.Port != 993 || e.Via.String() != "10.1.0.5" || e.BytesIn != 6 {
					t.Errorf("%+v", e)
				}
			})
		})
	}
}

func TestABalancerThatMisbehaves(t *testing.T) {
	for _, test := range headers {
		if test.client != "bad" {
			continue
		}
		t.Run(test.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				r := balanced(t)
				c := r.dial("starttls", balancer)
				go io.WriteString(c.conn, test.header)
				c.wantClose()
				if e := r.wantEnd("PA", "bad_proxy_header"); e.IP.String() != "10.1.0.5" || e.Attempts != 0 {
					t.Errorf("%+v", e)
				}
			})
		})
	}
	header := headers[13].header
	for n := range len(header) {
		bubble(t, func(t *testing.T) {
			r := balanced(t)
			c := r.dial("starttls", balancer)
			if n > 0 {
				c.send(header[:n])
			}
			began := time.Now()
			c.wantClose()
			if waited := time.Since(began); waited != r.settings.Times.Handshake {
				t.Errorf("%d bytes: waited %v", n, waited)
			}
			r.wantEnd("LA", "client_timeout")
		})
	}
}

func TestAnUntrustedHeaderIsNotBelieved(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := balanced(t)
		c := r.dial("starttls", "192.0.2.66:1234")
		c.send(headers[0].header)
		c.want("HELLO proxy.example")
		c.want("WHAT")
		c.close()
		if e := r.event(); e.IP.String() != "192.0.2.66" || e.Via.IsValid() {
			t.Errorf("%+v", e)
		}
	})
	bubble(t, func(t *testing.T) {
		r := balanced(t)
		c := r.dial("implicit", "192.0.2.66:1234")
		c.send(headers[13].header)
		c.want(plainOnTLS)
		c.close()
		if e := r.wantEnd("PS", "plaintext_on_tls_port"); e.IP.String() != "192.0.2.66" {
			t.Errorf("%+v", e)
		}
	})
	bubble(t, func(t *testing.T) { // an IPv4 balancer on a socket of both families
		r := balanced(t)
		c := r.dial("starttls", "[::ffff:10.1.0.5]:7000")
		c.send(headers[0].header)
		c.want("HELLO proxy.example")
		c.close()
		if e := r.event(); e.IP.String() != "203.0.113.9" {
			t.Errorf("%+v", e)
		}
	})
}

func TestHealthChecksLeaveNoEvent(t *testing.T) {
	for _, test := range []struct {
		name string
		do   func(c *talker)
	}{
		{"connects", func(c *talker) {}},
		{"resets", func(c *talker) { c.raw.reset() }},
		{"LOCAL", func(c *talker) { c.send(v2(0x20, 0)) }},
		{"UNKNOWN", func(c *talker) { c.send("PROXY UNKNOWN\r\n") }},
		{"LOCAL, waits for the greeting", func(c *talker) { c.send(v2(0x20, 0)); c.want("HELLO proxy.example") }},
		{"LOCAL, polite", func(c *talker) {
			c.send(v2(0x20, 0))
			c.want("HELLO proxy.example")
			c.say("QUIT")
			c.want("BYE")
		}},
		{"LOCAL, with TLS", func(c *talker) { c.send(v2(0x20, 0)); c.tls(""); c.want("HELLO proxy.example") }},
	} {
		t.Run(test.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				r := balanced(t)
				c := r.dial("starttls", balancer)
				synctest.Wait()
				test.do(c)
				c.close()
				time.Sleep(time.Minute)
				if n := r.events(); n != 0 {
					t.Errorf("%d events: %+v", n, r.event())
				}
				if n := r.engine.Sessions(); n != 0 {
					t.Errorf("%d sessions are left", n)
				}
			})
		})
	}
	bubble(t, func(t *testing.T) { // but whoever logs in is a customer
		r := balanced(t)
		c := r.dial("starttls", balancer)
		c.send(v2(0x20, 0))
		c.tls("")
		c.want("HELLO proxy.example")
		c.say("LOGIN anna right")
		c.want("OK anna is in")
		c.close()
		time.Sleep(time.Minute)
		if e := r.event(); e.Account != "anna" || e.IP.String() != "10.1.0.5" {
			t.Errorf("%+v", e)
		}
	})
}

func TestProxyHeaderWeSend(t *testing.T) {
	client4, server4 := netip.MustParseAddrPort(from4), netip.MustParseAddrPort(to4)
	client6, server6 := netip.MustParseAddrPort(from6), netip.MustParseAddrPort(to6)
	sig := hex.EncodeToString(signatureV2)
	for _, test := range []struct {
		name   string
		origin Origin
		want   string // hex, spaces for the eye
	}{
		{"nobody", Origin{}, sig + "20 00 0000"},
		{"no server", Origin{Client: client4}, sig + "20 00 0000"},
		{"clear", Origin{Client: client4, Server: server4}, sig + "21 11 000c cb007109 c6336402 9c40 03e1"},
		{"IPv6", Origin{Client: client6, Server: server6},
			sig + "21 21 0024 20010db8000000000000000000000009 20010db8000000000000000000000002 9c40 03e1"},
		{"mixed", Origin{Client: client4, Server: server6},
			sig + "21 21 0024 00000000000000000000ffffcb007109 20010db8000000000000000000000002 9c40 03e1"},
		{"TLS", Origin{Client: client4, Server: server4, TLS: "1.3", Cipher: "TLS_AES_128_GCM_SHA256", SNI: "a.example"},
			sig + "21 11 0043 cb007109 c6336402 9c40 03e1" +
				"02 0009" + hex.EncodeToString([]byte("a.example")) +
				"20 0028 01 00000001 21 0007" + hex.EncodeToString([]byte("TLSv1.3")) + "23 0016" + hex.EncodeToString([]byte("TLS_AES_128_GCM_SHA256"))},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := proxyHeader(test.origin)
			if err != nil {
				t.Fatal(err)
			}
			if want := strings.ReplaceAll(test.want, " ", ""); hex.EncodeToString(got) != want {
				t.Errorf("got\n%x, want\n%s", got, want)
			}
			h, err := proxyproto.Read(bufio.NewReader(bytes.NewReader(got)))
			if err != nil {
				t.Fatal(err)
			}
			if h.Command.IsLocal() {
				return
			}
			if from, ok := h.SourceAddr.(*net.TCPAddr); !ok || addrPort(from) != test.origin.Client {
				t.Errorf("reads back as %v", h.SourceAddr)
			}
			list, err := h.TLVs()
			if err != nil {
				t.Fatal(err)
			}
			ssl, found := tlvparse.FindSSL(list)
			if found != (test.origin.TLS != "") || found && (!ssl.ClientSSL() || ssl.Verified()) {
				t.Errorf("TLS reads back as %v, %v", ssl, found)
			}
			if back, _, err := readProxyHeader(wireOf(string(got))); err != nil || back != test.origin.Client {
				t.Errorf("we read %v, %v", back, err)
			}
		})
	}
}

// TestBackendIsToldOfTheClient looks at the header that a session sends: a name
// that is no DNS name would make Dovecot drop the connection.
func TestBackendIsToldOfTheClient(t *testing.T) {
	for sni, want := range map[string]string{"Toy.Example": "toy.example", "no name": ""} {
		bubble(t, func(t *testing.T) {
			r := newRig(t)
			r.backend.Proxy = true
			got := make(chan *proxyproto.Header, 5)
			r.serve["one:1"] = func(conn net.Conn) {
				reader := bufio.NewReader(conn)
				h, err := proxyproto.Read(reader)
				if err != nil {
					t.Error(err)
				}
				got <- h
				toyBackend(conn, nil)
			}
			c := r.dial("implicit")
			c.tls(sni)
			c.want("HELLO proxy.example")
			if h := <-got; !h.Command.IsLocal() {
				t.Errorf("being asked what it offers, the backend was told of a client: %v", h)
			}
			c.say("LOGIN anna right")
			c.want("OK anna is in")
			h := <-got
			list, err := h.TLVs()
			if err != nil {
				t.Fatal(err)
			}
			name := ""
			for _, tlv := range list {
				switch tlv.Type {
				case proxyproto.PP2_TYPE_AUTHORITY:
					name = string(tlv.Value)
				case proxyproto.PP2_TYPE_ALPN:
					t.Error("ALPN is sent")
				}
			}
			if name != want || h.SourceAddr.String() != "192.0.2.7:40000" {
				t.Errorf("%v, name %q", h.SourceAddr, name)
			}
			c.close()
		})
	}
}
