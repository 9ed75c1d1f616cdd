//go:build !linux

package proxy

import (
	"net"
	"sync/atomic"
)

// parking is where sockets wait; here each has a goroutine instead.
type parking struct{ stirred *atomic.Int64 }

func (*parking) port(conn net.Conn, r *relay) port { return newPump(conn, r) }

func (*parking) close() {}
