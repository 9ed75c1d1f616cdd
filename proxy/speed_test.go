package proxy

import (
	"crypto/tls"
	"io"
	"net"
	"testing"
	"time"
)

// relayEnds are a client in TLS and a backend in clear, with a parked relay between.
func relayEnds(b *testing.B) (client *tls.Conn, backend *net.TCPConn) {
	b.Helper()
	far, near := tcpEnds(b)
	backend, back := tcpEnds(b)
	up := NewWire(near)
	server := tls.Server(up.raw(), &tls.Config{Certificates: []tls.Certificate{*authority().leaf}, DynamicRecordSizingDisabled: true})
	client = tls.Client(far, &tls.Config{InsecureSkipVerify: true, DynamicRecordSizingDisabled: true})
	met := make(chan error, 1)
	go func() { met <- client.Handshake() }()
	if err := server.Handshake(); err != nil {
		b.Fatal(err)
	}
	if err := <-met; err != nil {
		b.Fatal(err)
	}
	up.secure(server)
	parking, over := new(parking), make(chan struct{})
	r := newRelay(up, NewWire(back), time.Minute, new(wheel))
	r.mistake = func(p any) *Ending { panic(p) }
	r.over = func(*Ending) { close(over) }
	r.lodge(parking.port)
	r.start()
	b.Cleanup(func() {
		far.Close()
		backend.Close()
		<-over
		parking.close()
	})
	return client, backend
}

// BenchmarkRelayNoop is a command and its answer through the relay. The client's
// own TLS is in it.
func BenchmarkRelayNoop(b *testing.B) {
	client, backend := relayEnds(b)
	go io.Copy(backend, backend)
	said, heard := []byte("a1 NOOP\r\n"), make([]byte, 9)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := client.Write(said); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(client, heard); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkRelayDown is what a client fetches, by the megabyte.
func BenchmarkRelayDown(b *testing.B) {
	client, backend := relayEnds(b)
	benchmarkFlow(b, backend, client)
}

// BenchmarkRelayUp is what a client appends, by the megabyte.
func BenchmarkRelayUp(b *testing.B) {
	client, backend := relayEnds(b)
	benchmarkFlow(b, client, backend)
}

func benchmarkFlow(b *testing.B, from io.Writer, to io.Reader) {
	said, heard := make([]byte, 1<<20), make([]byte, 1<<20)
	go func() {
		for {
			if _, err := from.Write(said); err != nil {
				return
			}
		}
	}()
	b.SetBytes(int64(len(said)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := io.ReadFull(to, heard); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkRelayWake is what it costs to wake a relay in vain.
func BenchmarkRelayWake(b *testing.B) {
	w := new(wheel)
	r := wheeled(w, time.Hour, func() {})
	defer r.ask(toEnd)
	buffer := make([]byte, relayBuffer)
	b.ReportAllocs()
	for b.Loop() {
		r.wake(buffer)
	}
}

// BenchmarkWheelTouch is the time-out of a session that moves something after a rest.
func BenchmarkWheelTouch(b *testing.B) {
	w := new(wheel)
	r := wheeled(w, time.Hour, func() {})
	defer r.ask(toEnd)
	b.ReportAllocs()
	for b.Loop() {
		r.warm.Store(false)
		r.touch()
	}
}
