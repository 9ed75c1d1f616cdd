package main

// What the kernel says that a proxy uses.

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// cpuTimes is what every process of a proxy has used of the processors so far.
type cpuTimes map[int]time.Duration

// family lists a process and all of its descendants.
func family(root int) ([]int, error) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	children := map[int][]int{}
	for _, file := range stats {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended meanwhile
		}
		pid, parent, err := parseStat(text)
		if err != nil {
			return nil, fmt.Errorf("reading %s: %w", file, err)
		}
		children[parent] = append(children[parent], pid)
	}
	all := []int{root}
	for i := 0; i < len(all); i++ {
		all = append(all, children[all[i]]...)
	}
	return all, nil
}

// parseStat reads a process's id and its parent's from /proc/PID/stat (proc(5)). The name of
// the program stands between them in parentheses, and may hold anything.
func parseStat(text []byte) (pid, parent int, err error) {
	open, end := bytes.IndexByte(text, '('), bytes.LastIndexByte(text, ')')
	if open < 1 || end < open {
		return 0, 0, fmt.Errorf("no name in parentheses in %q", text)
	}
	rest := strings.Fields(string(text[end+1:]))
	if len(rest) < 2 {
		return 0, 0, fmt.Errorf("nothing behind the name in %q", text)
	}
	pid, err = strconv.Atoi(strings.TrimSpace(string(text[:open])))
	parent, err2 := strconv.Atoi(rest[1])
	return pid, parent, errors.Join(err, err2)
}

// readCPU asks the kernel for the time of each process, all of its threads together, in
// nanoseconds. A process's clock has the number that clock_getcpuclockid(3) gives, which is
// made of the id like this: ~pid << 3, and 2 for what the scheduler has counted.
func readCPU(root int) (cpuTimes, error) {
	pids, err := family(root)
	if err != nil {
		return nil, err
	}
	times := cpuTimes{}
	for _, pid := range pids {
		var t unix.Timespec
		switch err := unix.ClockGettime(int32(^pid)<<3|2, &t); {
		case errors.Is(err, unix.EINVAL) && pid != root:
			// It has ended meanwhile; if it was there before, that is found out by since.
		case err != nil:
			return nil, fmt.Errorf("reading the clock of process %d: %w", pid, err)
		default:
			times[pid] = time.Duration(t.Nano())
		}
	}
	return times, nil
}

// readMemory is the proportional set size of all the processes together, in bytes.
func readMemory(root int) (int64, error) {
	pids, err := family(root)
	if err != nil {
		return 0, err
	}
	total := int64(0)
	for _, pid := range pids {
		f, err := os.Open(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if errors.Is(err, fs.ErrNotExist) && pid != root {
			continue
		} else if err != nil {
			return 0, err
		}
		pss, err := parsePSS(f)
		f.Close()
		if err != nil && !errors.Is(err, syscall.ESRCH) {
			return 0, fmt.Errorf("reading %s: %w", f.Name(), err)
		}
		total += pss
	}
	return total, nil
}

// parsePSS reads the line "Pss:" of /proc/PID/smaps_rollup.
func parsePSS(r io.Reader) (int64, error) {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		if rest, ok := strings.CutPrefix(lines.Text(), "Pss:"); ok {
			kib, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(rest, "kB")), 10, 64)
			return kib << 10, err
		}
	}
	return 0, errors.Join(lines.Err(), errors.New("no line Pss"))
}

// threadsAndFiles counts the threads and the open files of all the processes together.
func threadsAndFiles(root int) (threads, files int, err error) {
	pids, err := family(root)
	if err != nil {
		return 0, 0, err
	}
	for _, pid := range pids {
		tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
		if err != nil {
			return 0, 0, err
		}
		open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
		if err != nil {
			return 0, 0, err
		}
		threads, files = threads+len(tasks), files+len(open)
	}
	return threads, files, nil
}
