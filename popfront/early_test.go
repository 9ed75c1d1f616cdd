package popfront

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"

	"mailreeve/events"
	"mailreeve/proxy/proxytest"
)

// noEvents forgets them.
type noEvents struct{}

func (noEvents) Record(*events.Session) error { return nil }

// Connections to a backend that were made for a timestamp and wait for a client are
// bounded, in all and for one client. Above that there is no timestamp, and all but
// APOP goes on.
func TestTimestampsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rig := proxytest.New(t, Front, stamped)
		open(rig)
		rig.Backend.Dialer = func(context.Context, string) (net.Conn, error) {
			ours, theirs := net.Pipe()
			go func() {
				defer theirs.Close()
				fmt.Fprint(theirs, "+OK ready "+stamp1+"\r\n")
				for lines := bufio.NewReader(theirs); ; {
					line, err := lines.ReadString('\n')
					switch {
					case err != nil:
						return
					case line == "CAPA\r\n":
						fmt.Fprint(theirs, "+OK\r\nUIDL\r\n.\r\n")
					default:
						fmt.Fprint(theirs, "-ERR [AUTH] no\r\n")
					}
				}
			}()
			return ours, nil
		}
		rig.Engine.Events = noEvents{}
		rig.Apply()
		defer rig.Engine.Shutdown(0, 0)
		var clients []net.Conn
		greeting := func() string {
			c := rig.Connect("starttls")
			line, err := bufio.NewReader(c).ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			go io.Copy(io.Discard, c)
			clients = append(clients, c)
			return line
		}
		want := func(stamped bool) {
			t.Helper()
			if line := greeting(); strings.Contains(line, stamp1) != stamped || !strings.HasPrefix(line, "+OK ") {
				t.Errorf("client %d heard %q", len(clients), line)
			}
		}
		for range 8 {
			want(true)
		}
		want(false)
		for network := range 7 {
			for range 8 {
				rig.Client = fmt.Sprintf("192.0.%d.1:40000", network+3)
				want(true)
			}
		}
		rig.Client = "192.0.100.1:40000"
		want(false)
		// One that is used, or whose client leaves, makes room.
		fmt.Fprintf(clients[0], "APOP anna %s\r\n", digest)
		synctest.Wait()
		want(true)
		want(false)
		clients[9].Close()
		synctest.Wait()
		want(true)
		want(false)
		for _, c := range clients {
			c.Close()
		}
		synctest.Wait()
		clients = nil
		want(true)
		clients[0].Close()
	})
}
