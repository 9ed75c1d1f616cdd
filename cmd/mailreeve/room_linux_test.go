package main

import (
	"syscall"
	"testing"
)

// The limit is raised to what is needed, never lowered, and told as it then is.
func TestOpenFiles(t *testing.T) {
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	defer syscall.Setrlimit(syscall.RLIMIT_NOFILE, &before)
	lower := syscall.Rlimit{Cur: before.Max - 100, Max: before.Max}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &lower); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ needed, want uint64 }{
		{1, lower.Cur},
		{lower.Cur, lower.Cur},
		{lower.Cur + 50, lower.Cur + 50},
		{lower.Cur, lower.Cur + 50},
	} {
		var now syscall.Rlimit
		got := openFiles(test.needed)
		if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &now); err != nil {
			t.Fatal(err)
		}
		if got != test.want || now.Cur != got || now.Max != before.Max {
			t.Errorf("%d needed: told %d, is %+v; want %d", test.needed, got, now, test.want)
		}
	}
}
