//go:build linux

package main

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// terminal opens a pseudo-terminal (pty(7)): what is written to the slave is
// read from the master.
func terminal(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { master.Close() })
	raw, err := master.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var n int
	raw.Control(func(fd uintptr) {
		if n, err = unix.IoctlGetInt(int(fd), unix.TIOCGPTN); err == nil {
			err = unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		t.Fatal(err)
	}
	return master, slave
}

// On a terminal the demo is in colour, unless its user does not want that; and
// it ends with its terminal, whose window somebody has closed.
func TestDemoOnATerminal(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		env   []string
		color bool
	}{{[]string{"TERM=xterm", "NO_COLOR="}, true}, {[]string{"TERM=xterm", "NO_COLOR=1"}, false}, {[]string{"TERM=dumb", "NO_COLOR="}, false}} {
		s := &site{t: t, dir: t.TempDir(), out: newTranscript(), log: newTranscript(), exited: make(chan struct{})}
		master, slave := terminal(t)
		go func() {
			b := make([]byte, 4096)
			for {
				n, err := master.Read(b)
				s.out.Write(b[:n])
				if err != nil {
					return
				}
			}
		}()
		s.demo(append(test.env, "TMPDIR="+s.dir), slave)
		slave.Close()
		if got := strings.ContainsRune(s.out.whole(), '\x1b'); got != test.color {
			t.Errorf("%v: colour %v", test.env, got)
		}

		// While the terminal is there, SIGHUP means what it always means.
		if err := os.Remove(s.path("demo/events.jsonl")); err != nil {
			t.Fatal(err)
		}
		s.signal(syscall.SIGHUP)
		if err := until(func() error { _, err := os.Stat(s.path("demo/events.jsonl")); return err }); err != nil {
			t.Error("the event log was not opened anew")
		}
		master.Close() // which would send it SIGHUP, were it its controlling terminal
		s.signal(syscall.SIGHUP)
		s.ends()
	}
}
