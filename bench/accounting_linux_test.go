package main

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestParseStat(t *testing.T) {
	for text, want := range map[string][2]int{
		"17 (nginx) S 1 17 17 0 -1 4194560":         {17, 1},
		"42 (a) S (b) R) S 7 42 42 0 -1 4194560 11": {42, 7}, // a name like a line
	} {
		pid, parent, err := parseStat([]byte(text))
		if err != nil || pid != want[0] || parent != want[1] {
			t.Errorf("%q: %d, %d, %v", text, pid, parent, err)
		}
	}
	for _, text := range []string{"", "17", "17 (x", "x (y) S 1", "17 (x) S"} {
		if _, _, err := parseStat([]byte(text)); err == nil {
			t.Errorf("%q is no error", text)
		}
	}
}

func TestParsePSS(t *testing.T) {
	const text = "56223c188000-7fff1f9c2000 ---p 00000000 00:00 0                          [rollup]\n" +
		"Rss:                1728 kB\nPss:                 550 kB\nPss_Dirty:           112 kB\n"
	if got, err := parsePSS(strings.NewReader(text)); err != nil || got != 550<<10 {
		t.Errorf("%d, %v", got, err)
	}
	if _, err := parsePSS(strings.NewReader("Rss: 1 kB\n")); err == nil {
		t.Error("a missing line is no error")
	}
}

// What is read of another process is what the kernel says of our own.
func TestReadCPU(t *testing.T) {
	began := time.Now()
	for time.Since(began) < 50*time.Millisecond { // uses the processor
	}
	times, err := readCPU(os.Getpid())
	if err != nil || times[os.Getpid()] < 20*time.Millisecond {
		t.Errorf("%v, %v", times, err)
	}
	pids, err := family(os.Getppid())
	if err != nil || !slices.Contains(pids, os.Getpid()) {
		t.Errorf("the children of our parent are %v, %v", pids, err)
	}
	if bytes, err := readMemory(os.Getpid()); err != nil || bytes < 1<<20 {
		t.Errorf("memory is %d, %v", bytes, err)
	}
	threads, files, err := threadsAndFiles(os.Getpid())
	if err != nil || threads < 1 || files < 3 {
		t.Errorf("threads %d, files %d, %v", threads, files, err)
	}
}
