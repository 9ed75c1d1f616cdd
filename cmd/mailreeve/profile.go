//go:build profile && unix

package main

// Profiles on request, for the measurements in bench; no part of a usual build.
//
// Where the environment variable MAILREEVE_PROFILES names a directory, SIGUSR1 begins a CPU
// profile and the next one ends it; SIGUSR2 collects garbage and writes a profile of the
// heap, with the runtime's own account of its memory beside it. A file is complete when it
// has its last name: cpu-1.pprof, heap-1.pprof, heap-1.json, and so on.

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"syscall"
)

func init() {
	dir := os.Getenv("MAILREEVE_PROFILES")
	if dir == "" {
		return
	}
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGUSR1, syscall.SIGUSR2)
	go profile(dir, signals)
}

// profile writes what signals ask for.
func profile(dir string, signals <-chan os.Signal) {
	var cpu *os.File
	taken := 0
	for sig := range signals {
		var err error
		switch {
		case sig == syscall.SIGUSR1 && cpu == nil:
			if cpu, err = os.Create(filepath.Join(dir, "cpu")); err == nil {
				err = pprof.StartCPUProfile(cpu)
			}
		case sig == syscall.SIGUSR1:
			taken++
			pprof.StopCPUProfile()
			err = errors.Join(cpu.Close(), os.Rename(cpu.Name(), filepath.Join(dir, fmt.Sprintf("cpu-%d.pprof", taken))))
			cpu = nil
		default:
			taken++
			err = profileHeap(dir, taken)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "writing a profile:", err)
		}
	}
}

// profileHeap writes what lives on the heap, and what the runtime says of its memory.
func profileHeap(dir string, n int) error {
	runtime.GC() // the profile is that of the last collection
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	memory, err := json.Marshal(map[string]uint64{
		"heap": m.HeapAlloc, "heap_spans": m.HeapInuse, "stacks": m.StackInuse, "goroutines": uint64(runtime.NumGoroutine()),
		"spans": m.MSpanInuse, "gc": m.GCSys, "other": m.OtherSys,
	})
	if err != nil {
		return err
	}
	f, err := os.Create(filepath.Join(dir, "heap"))
	if err != nil {
		return err
	}
	base := filepath.Join(dir, fmt.Sprintf("heap-%d", n))
	return errors.Join(
		pprof.Lookup("heap").WriteTo(f, 0), f.Close(),
		os.WriteFile(base+".json", memory, 0o600),
		os.Rename(f.Name(), base+".pprof"), // the last, as it says that all is there
	)
}
