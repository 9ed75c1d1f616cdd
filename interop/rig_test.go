package interop

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"testing"
)

func TestMain(m *testing.M) {
	flag.Parse()
	// The tests mostly wait for other programs, which wait in their turn.
	if flag.Lookup("test.parallel").Value.String() == fmt.Sprint(runtime.GOMAXPROCS(0)) {
		flag.Set("test.parallel", fmt.Sprint(3*runtime.GOMAXPROCS(0)))
	}
	code := m.Run()
	StopServers()
	os.Exit(code)
}

// Two servers of a rig are never given one port.
func TestFreePortGivesNoneTwice(t *testing.T) {
	had := map[int]bool{}
	for range 1000 { // of 8000: one would come twice without doubt
		port := FreePort()
		if had[port] {
			t.Fatalf("port %d was given twice", port)
		}
		had[port] = true
	}
}
