package proxy

// What a relay's two connections are to it while it runs: they never keep their
// caller waiting. A [parked] socket waits for both directions in an epoll set (Linux), a
// [pump] by goroutines (everywhere, for whatever connection).

import (
	"net"
	"sync"
)

// port is a connection below a relay's [Wire], and below TLS where there is any.
// It is used by one goroutine at a time, and wakes its relay whenever an answer may
// have changed, until Close; a relay that has not started sleeps on. Deadlines it has none: the relay has its own.
//
// Read answers errAgain where nothing has come yet. crypto/tls passes that on and
// can be asked again, since it is a net.Error that calls itself temporary.
//
// Write takes everything, sends what the peer takes now and owes the rest: a TLS
// record of which a part was sent cannot be taken back. Who writes looks first
// whether something is owed, so that a slow reader costs one chunk of memory. It
// returns no error: crypto/tls writes on its own account while it reads, and would
// not go on reading what a client said before it closed. Where nothing can be sent
// any more, Write takes all the same, and settle says why.
type port interface {
	net.Conn

	// CloseWrite ends the stream once nothing is owed.
	CloseWrite() error

	// heed takes note of what has woken the relay, and reports whether there may
	// be something to read.
	heed() bool

	// owed returns how many bytes were taken by Write and not yet sent; an end of
	// the stream that is still to be sent, or an error to be told, counts as one.
	owed() int

	// settle sends of that what the peer takes now, and reports whether it took
	// anything since the last time. It returns an error once; from then on nothing
	// is owed.
	settle() (taken bool, err error)

	// reset returns the error by which the connection is broken, once, where that is
	// known without reading: while nothing is read, for what was said before would
	// find no room.
	reset() error
}

// errAgain says that nothing has come yet.
var errAgain error = again{}

type again struct{}

func (again) Error() string   { return "nothing has come yet" }
func (again) Timeout() bool   { return true }
func (again) Temporary() bool { return true }

// relayBuffer is what is carried at once: four TLS records (RFC 8446 section
// 5.1). More saves nothing that can be measured, less costs system calls.
const relayBuffer = 64 << 10

// relayBuffers are lent to who has something to carry, while it does.
var relayBuffers = sync.Pool{New: func() any { return new([relayBuffer]byte) }}
