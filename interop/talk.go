package interop

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"io"
	"net"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pires/go-proxyproto"
)

// Talk is a conversation with a server, or a proxy, line by line. It ends with the test.
//
// It goes to 127.0.0.1, whatever the host name of the endpoint: that is the name asked for in TLS.
type Talk struct {
	t    testing.TB
	rig  *Rig
	host string
	conn net.Conn
	in   *bufio.Reader
}

// Dial connects from 127.0.0.1.
func (rig *Rig) Dial(t testing.TB, e Endpoint) *Talk {
	t.Helper()
	return rig.dial(t, e, "127.0.0.1", nil)
}

// DialFrom connects from another loopback address, one that the servers do not trust.
func (rig *Rig) DialFrom(t testing.TB, e Endpoint, from string) *Talk {
	t.Helper()
	return rig.dial(t, e, from, nil)
}

// DialHaproxy connects from 127.0.0.1 and sends the PROXY header before anything else.
func (rig *Rig) DialHaproxy(t testing.TB, e Endpoint, header *proxyproto.Header) *Talk {
	t.Helper()
	return rig.dial(t, e, "127.0.0.1", header)
}

func (rig *Rig) dial(t testing.TB, e Endpoint, from string, header *proxyproto.Header) *Talk {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: patience}
	conn, err := d.Dial("tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(e.Port)))
	if err != nil {
		t.Fatal(err)
	}
	k := &Talk{t: t, rig: rig, host: e.Host, conn: conn, in: bufio.NewReader(conn)}
	t.Cleanup(func() { k.conn.Close() })
	if header != nil {
		if _, err := header.WriteTo(conn); err != nil {
			t.Fatalf("sending the PROXY header: %v", err)
		}
	}
	if e.Entry == Implicit {
		k.Secure()
	}
	return k
}

// Secure starts TLS as a client that trusts the rig's authority, and returns its state.
func (k *Talk) Secure() tls.ConnectionState {
	k.t.Helper()
	return k.SecureAs(&tls.Config{RootCAs: k.rig.CAs, ServerName: k.host})
}

// SecureAs starts TLS as a client with this configuration, and returns its state.
func (k *Talk) SecureAs(config *tls.Config) tls.ConnectionState {
	k.t.Helper()
	conn := tls.Client(k.conn, config)
	ctx, cancel := context.WithTimeout(k.t.Context(), patience)
	defer cancel()
	if err := conn.HandshakeContext(ctx); err != nil {
		k.t.Fatalf("starting TLS: %v", err)
	}
	k.conn, k.in = conn, bufio.NewReader(conn)
	return conn.ConnectionState()
}

// Send writes lines, each with CRLF at its end.
func (k *Talk) Send(lines ...string) {
	k.t.Helper()
	k.Write(strings.Join(lines, "\r\n") + "\r\n")
}

// Write writes bytes as they are.
func (k *Talk) Write(text string) {
	k.t.Helper()
	if _, err := io.WriteString(k.conn, text); err != nil {
		k.t.Fatalf("sending %q: %v", text, err)
	}
}

// Expect reads lines until one matches the regular expression, and returns all of them.
func (k *Talk) Expect(pattern string) string {
	k.t.Helper()
	re := regexp.MustCompile(pattern)
	k.conn.SetReadDeadline(time.Now().Add(patience))
	var heard strings.Builder
	for {
		line, err := k.in.ReadString('\n')
		heard.WriteString(line)
		if err != nil {
			k.t.Fatalf("waiting for %q: %v; heard:\n%s", pattern, err, &heard)
		}
		if re.MatchString(strings.TrimRight(line, "\r\n")) {
			return heard.String()
		}
	}
}

// Ask sends a line and reads up to the answer that matches.
func (k *Talk) Ask(line, pattern string) string {
	k.t.Helper()
	k.Send(line)
	return k.Expect(pattern)
}

// SASLPlain returns the account's credentials as an initial response for the mechanism
// PLAIN (RFC 4616).
func (a Account) SASLPlain() string {
	return base64.StdEncoding.EncodeToString([]byte("\x00" + a.User + "\x00" + a.Password))
}
