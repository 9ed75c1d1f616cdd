package proxy

import (
	"bytes"
	"crypto/tls"
	"io"
	"reflect"
	"strings"
	"testing"
	"time"
)

// TestGiveBackKnowsThisGo fails with a Go whose crypto/tls has other buffers: then
// look into it, and into whether giveBack is still needed.
func TestGiveBackKnowsThisGo(t *testing.T) {
	if buffersOf == nil {
		t.Error("tls.Conn has other buffers: silent sessions keep up to 17 KB each")
	}
}

// TestGiveBackNoticesAnotherGo: nothing is touched that looks different.
func TestGiveBackNoticesAnotherGo(t *testing.T) {
	for name, conn := range map[string]any{
		"without rawInput": struct {
			input bytes.Reader
			hand  bytes.Buffer
		}{},
		"a pooled rawInput": struct {
			rawInput *bytes.Buffer
			input    bytes.Reader
			hand     bytes.Buffer
		}{},
		"another input": struct {
			rawInput bytes.Buffer
			input    []byte
			hand     bytes.Buffer
		}{},
		"another hand": struct {
			rawInput bytes.Buffer
			input    bytes.Reader
			hand     strings.Builder
		}{},
	} {
		if findBuffers(reflect.TypeOf(conn)) != nil {
			t.Errorf("%s: taken for one that is known", name)
		}
	}
	known := buffersOf
	defer func() { buffersOf = known }()
	buffersOf = nil
	if giveBack(tls.Server(nil, nil)) {
		t.Error("something was given back without knowing where")
	}
}

// TestGiveBack: a connection goes on as if nothing had happened, and nothing is
// given back that is still needed.
func TestGiveBack(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		far, near := newPair("192.0.2.1:1", "192.0.2.2:2")
		defer far.Close()
		defer near.Close()
		server := tls.Server(near, &tls.Config{Certificates: []tls.Certificate{*authority().leaf}})
		client := tls.Client(far, &tls.Config{InsecureSkipVerify: true, MaxVersion: version, DynamicRecordSizingDisabled: true})
		go client.Handshake()
		if err := server.Handshake(); err != nil {
			t.Fatal(err)
		}
		deadline := time.Now().Add(10 * time.Second)
		near.SetDeadline(deadline)
		far.SetDeadline(deadline)
		for round := range 3 {
			message := bytes.Repeat([]byte{byte('a' + round)}, 16<<10)
			go client.Write(message)
			got := make([]byte, len(message))
			if _, err := io.ReadFull(server, got[:1000]); err != nil {
				t.Fatal(err)
			}
			if giveBack(server) {
				t.Error("bytes that were decrypted and not read were given back")
			}
			if _, err := io.ReadFull(server, got[1000:]); err != nil || !bytes.Equal(got, message) {
				t.Fatalf("TLS %x, round %d: %v", version, round, err)
			}
			if held(server) < 16<<10 {
				t.Errorf("crypto/tls holds %d bytes after a large record: is this still needed?", held(server))
			}
			if !giveBack(server) || held(server) != 0 {
				t.Errorf("%d bytes are held after all was given back", held(server))
			}
		}
	}
}

// held is the size of a connection's read buffer.
func held(c *tls.Conn) int {
	return reflect.ValueOf(c).Elem().FieldByName("rawInput").FieldByName("buf").Cap()
}
