package proxy

// The PROXY header of a balancer in front of us (haproxy.org's proxy-protocol.txt).
// The library reads the header; this file decides how many bytes that is, so that
// none behind it is swallowed. The header that we send is made in backend.go.

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/pires/go-proxyproto"
)

const (
	// headerV1 is the longest line of version 1, CRLF included.
	headerV1 = 107
	// headerV2 bounds a header of version 2: addresses and the TLVs that
	// balancers send. The format allows 64 KiB.
	headerV2 = 4 << 10
)

var errBadHeader = errors.New("no valid PROXY header came first")

var signatureV2 = []byte("\r\n\r\n\x00\r\nQUIT\n")

// readProxyHeader reads a PROXY header, version 1 or 2, and nothing behind it.
// Invalid addresses without an error mean a connection of the balancer's own
// (LOCAL, UNKNOWN).
func readProxyHeader(w *Wire) (client, server netip.AddrPort, err error) {
	raw, err := takeHeader(w)
	if err != nil {
		return client, server, err
	}
	w.skip(len(raw)) // it is the balancer's, not the client's
	h, err := proxyproto.Read(bufio.NewReader(bytes.NewReader(raw)))
	if err != nil {
		return client, server, fmt.Errorf("%w: %v", errBadHeader, err)
	}
	if h.Command.IsLocal() || h.TransportProtocol.IsUnspec() {
		return client, server, nil
	}
	from, ok1 := h.SourceAddr.(*net.TCPAddr)
	to, ok2 := h.DestinationAddr.(*net.TCPAddr)
	if !ok1 || !ok2 {
		return client, server, fmt.Errorf("%w: it is not of a TCP connection", errBadHeader)
	}
	return addrPort(from), addrPort(to), nil
}

// takeHeader takes the header's bytes off the wire.
func takeHeader(w *Wire) ([]byte, error) {
	first, err := w.Peek(1)
	if err != nil {
		return nil, err
	}
	switch first[0] {
	case 'P':
		line, err := w.Line(headerV1 - 2)
		if errors.Is(err, ErrLineTooLong) {
			return nil, fmt.Errorf("%w: version 1 is longer than %d bytes", errBadHeader, headerV1)
		}
		return append(bytes.Clone(line), '\r', '\n'), err
	case signatureV2[0]:
		head, err := w.Peek(16)
		if err != nil {
			return nil, err
		}
		if !bytes.HasPrefix(head, signatureV2) {
			return nil, fmt.Errorf("%w: the signature of version 2 is broken", errBadHeader)
		}
		n := int(binary.BigEndian.Uint16(head[14:]))
		if 16+n > headerV2 {
			return nil, fmt.Errorf("%w: version 2 is longer than %d bytes", errBadHeader, headerV2)
		}
		return w.Bytes(16 + n)
	}
	return nil, fmt.Errorf("%w: it begins with byte 0x%02x", errBadHeader, first[0])
}
