package interop

import (
	"os"
	"testing"
)

func TestMain(m *testing.M) {
	code := m.Run()
	StopServers()
	os.Exit(code)
}

// Two servers of a rig are never given one port.
func TestFreePortGivesNoneTwice(t *testing.T) {
	had := map[int]bool{}
	for range 1000 { // of 8000: one would come twice without doubt
		port := freePort()
		if had[port] {
			t.Fatalf("port %d was given twice", port)
		}
		had[port] = true
	}
}
