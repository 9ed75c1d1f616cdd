package main

import (
	"runtime"
	"testing"
)

// TestTidy: memory goes back once, when the program falls silent.
func TestTidy(t *testing.T) {
	collections := func() uint32 {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.NumGC
	}
	var memory tidy
	litter := make([][]byte, 64)
	for i := range litter {
		litter[i] = make([]byte, 1<<20)
	}
	runtime.KeepAlive(litter)
	before := collections()
	memory.look() // much has been allocated since the start
	if n := collections(); n != before {
		t.Errorf("%d collections while the program is busy", n-before)
	}
	memory.look()
	if collections() == before {
		t.Error("no collection in silence")
	}
	before = collections()
	for range 10 {
		memory.look()
	}
	if n := collections(); n != before {
		t.Errorf("%d more collections without anything to collect", n-before)
	}
}
