package interop

import (
	"bufio"
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Shown is what openssl s_client saw in a handshake.
type Shown struct {
	Certificate *x509.Certificate
	Verify      string // "0 (ok)", or what is wrong with the certificate
	Resumed     bool   // an earlier session goes on
}

// OpenSSL has openssl s_client connect to the endpoint, for a conversation over the TLS that
// it speaks. It sends the endpoint's host as the server name, if there is one, and wants the
// certificate to be for it. With more arguments it may be choosy.
func OpenSSL(t testing.TB, e Endpoint, protocol Protocol, caFile string, args ...string) (*Talk, Shown) {
	t.Helper()
	Require(t, "openssl")
	args = append(opensslArgs(e, protocol, caFile), args...)
	cmd := exec.CommandContext(t.Context(), "openssl", append(args, "-ign_eof", "-crlf")...)
	stdin, err := cmd.StdinPipe()
	must(t, err)
	out, in, err := os.Pipe() // not cmd.StdoutPipe: both outputs go here, in their order
	must(t, err)
	cmd.Stdout, cmd.Stderr = in, in
	must(t, cmd.Start())
	in.Close()
	conn := programConn{stdin, out, cmd}
	t.Cleanup(func() { conn.Close() })
	k := &Talk{t: t, host: e.Host, conn: conn, in: bufio.NewReader(out)}
	said := k.Expect(`^ *Verify return code: |^no peer certificate`) // either comes once the handshake is over
	block, _ := pem.Decode([]byte(said[max(strings.Index(said, "-----BEGIN"), 0):]))
	verify := regexp.MustCompile(`(?m)^ *Verify return code: (.*?)\r?$`).FindStringSubmatch(said)
	if block == nil || verify == nil {
		t.Fatalf("no handshake:\n%s", said)
	}
	shown := Shown{Verify: verify[1], Resumed: regexp.MustCompile(`(?m)^Reused, TLS`).MatchString(said)}
	shown.Certificate, err = x509.ParseCertificate(block.Bytes)
	must(t, err)
	return k, shown
}

// opensslArgs are how openssl s_client is called.
func opensslArgs(e Endpoint, protocol Protocol, caFile string) []string {
	args := []string{"s_client", "-connect", "127.0.0.1:" + strconv.Itoa(e.Port), "-CAfile", caFile}
	if e.Host == "" {
		args = append(args, "-noservername")
	} else {
		args = append(args, "-servername", e.Host, "-verify_hostname", e.Host)
	}
	if e.Entry == StartTLS {
		args = append(args, "-starttls", map[Protocol]string{IMAP: "imap", POP3: "pop3", Submission: "smtp"}[protocol])
	}
	return args
}

// programConn lets a program's input and output be the connection of a [Talk]. Nothing is
// known of addresses.
type programConn struct {
	stdin io.WriteCloser // lines that end in LF; -crlf sees to the CR
	out   *os.File
	cmd   *exec.Cmd
}

func (c programConn) Read(b []byte) (int, error) { return c.out.Read(b) }

func (c programConn) Write(b []byte) (int, error) {
	if _, err := c.stdin.Write(bytes.ReplaceAll(b, []byte("\r\n"), []byte("\n"))); err != nil {
		return 0, err
	}
	return len(b), nil
}

func (c programConn) Close() error {
	c.cmd.Process.Kill() // with -ign_eof it would stay
	c.cmd.Wait()
	return errors.Join(c.stdin.Close(), c.out.Close())
}

func (c programConn) SetReadDeadline(at time.Time) error { return c.out.SetReadDeadline(at) }
func (c programConn) SetWriteDeadline(time.Time) error   { return nil }
func (c programConn) SetDeadline(at time.Time) error     { return c.SetReadDeadline(at) }
func (c programConn) LocalAddr() net.Addr                { return nil }
func (c programConn) RemoteAddr() net.Addr               { return nil }
