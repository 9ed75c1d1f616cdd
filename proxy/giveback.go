package proxy

// The read buffer of a silent TLS connection.
//
// crypto/tls keeps the buffer into which it has read a record for as long as the
// connection lives, since it grew for the largest one (Conn.rawInput): after one
// record of 16 KB a silent connection holds 21.7 KB in place of 3.8 KB, and after
// a hello with a post-quantum key share some 2 KB (golang/go#81348). IMAP clients
// are silent for hours, and most have once fetched or appended something.
//
// So [giveBack] lets go of it, and of the decrypted bytes in it, through the
// unexported fields, when all three buffers are empty: in that state the package
// itself would begin by growing them. It is done between two calls of Read, in the
// one goroutine that reads. With a Go in which those fields have another name or
// type nothing is given back, sessions cost the memory that they cost, and a test
// says so.
//
// What was rejected: a record layer of our own, or a copy of the package: nobody
// should trust it. The kernel's TLS: it is missing on many systems, and knows
// neither key updates nor TLS 1.0 everywhere. record_size_limit (RFC 8449): the
// package does not have it, and clients would have to. To have the client log in
// again: it is a customer.

import (
	"bytes"
	"crypto/tls"
	"reflect"
	"unsafe"
)

// buffersOf says where a tls.Conn has its buffers; nil where this Go has others.
var buffersOf = findBuffers(reflect.TypeFor[tls.Conn]())

// buffers are offsets in a tls.Conn.
type buffers struct {
	raw   uintptr // bytes.Buffer: records as they came
	input uintptr // bytes.Reader: what of them is decrypted and not yet read
	hand  uintptr // bytes.Buffer: messages of the handshake that are not complete
}

func findBuffers(conn reflect.Type) *buffers {
	raw, ok1 := conn.FieldByName("rawInput")
	input, ok2 := conn.FieldByName("input")
	hand, ok3 := conn.FieldByName("hand")
	buffer, reader := reflect.TypeFor[bytes.Buffer](), reflect.TypeFor[bytes.Reader]()
	if !ok1 || !ok2 || !ok3 || raw.Type != buffer || input.Type != reader || hand.Type != buffer {
		return nil
	}
	return &buffers{raw.Offset, input.Offset, hand.Offset}
}

// giveBack frees the read buffers of a connection that is not being read, if
// there is nothing in them, and reports whether it did.
func giveBack(c *tls.Conn) bool {
	at := buffersOf
	if at == nil {
		return false
	}
	raw := (*bytes.Buffer)(unsafe.Add(unsafe.Pointer(c), at.raw))
	input := (*bytes.Reader)(unsafe.Add(unsafe.Pointer(c), at.input))
	hand := (*bytes.Buffer)(unsafe.Add(unsafe.Pointer(c), at.hand))
	if raw.Len() > 0 || input.Len() > 0 || hand.Len() > 0 {
		return false
	}
	*raw, *input, *hand = bytes.Buffer{}, bytes.Reader{}, bytes.Buffer{}
	return true
}
