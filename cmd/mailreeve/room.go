package main

// How many sessions there is room for: what this machine gives the program, what a
// session takes of it, and what to do where that is less than was wished for.

import (
	"fmt"
	"io/fs"
	"math"
	"os"
	"path"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"

	"go.uber.org/zap"

	"mailreeve/config"
)

const (
	// filesOfSession are two sockets: the client's and the backend's.
	filesOfSession = 2

	// filesBeside is the most that is set aside for what is not a session's:
	// listeners, logs, files that are being read, the CA, the help pages, and sockets
	// that last for a moment, while a backend's next address is tried or a credential
	// checked. It is one of a hundred descriptors; where these are few, up to a quarter.
	filesBeside = 1024

	// memoryOfSession is what one takes when it is silent, as nearly all of them are:
	// some 8 KiB of the program's, some 10 KiB of the kernel's for two sockets (see bench).
	// One whose client does not take what it asked for has up to 128 KiB more.
	memoryOfSession = 18 << 10

	// mostSessions is the most that the configuration takes, and so the most that is told.
	mostSessions = 10_000_000
)

// room is what there is for sessions.
type room struct {
	wanted int    // limits.connections; 0: as many as there is room for
	files  uint64 // descriptors that this process may have; 0: not known
	memory uint64 // bytes that it may use; 0: not known

	backends int // their addresses, each once
	ports    int // local ports from which each of them can be reached at once; 0: not known
}

// findRoom looks what there is for the sessions that a configuration wants, and
// raises the limit of open files to what they need, where it may.
func findRoom(c *config.Config) room {
	machine := os.DirFS("/")
	r := room{wanted: c.Limits.Connections, memory: memoryOf(machine), backends: addresses(c), ports: localPorts(machine)}
	r.files = openFiles(r.filesNeeded())
	return r
}

// byFiles is how many sessions the descriptors bear.
func (r room) byFiles() int {
	if r.files == 0 {
		return mostSessions
	}
	beside := min(max(r.files/100, 64), r.files/4, filesBeside)
	return bounded((r.files - beside) / filesOfSession)
}

// byMemory is how many sessions the memory bears. Two thirds are theirs: the rest is
// for those that are busy, for logins by the thousand after an outage, and for
// whatever else runs here.
func (r room) byMemory() int {
	if r.memory == 0 {
		return mostSessions
	}
	return bounded(r.memory / 3 * 2 / memoryOfSession)
}

func bounded(sessions uint64) int { return int(max(1, min(sessions, mostSessions))) }

// filesNeeded are the descriptors for all sessions that are wanted, or for all that
// the memory bears.
func (r room) filesNeeded() uint64 {
	sessions := r.wanted
	if sessions == 0 {
		sessions = r.byMemory()
	}
	return uint64(sessions)*filesOfSession + filesBeside
}

// sessions is how many there may be at once, and what that follows from. A number in
// the file goes before the memory, which is an estimate, but not before the
// descriptors: without one, a client that was let in could not be served.
func (r room) sessions() (n int, by string) {
	n, by = r.byFiles(), "open files"
	switch {
	case r.wanted > 0 && r.wanted <= n:
		return r.wanted, "limits.connections"
	case r.wanted == 0 && r.byMemory() <= n:
		return r.byMemory(), "memory"
	}
	return n, by
}

// doubt says where a number in the file is more than there is room for. It is empty
// where it is not, and where there is no number.
func (r room) doubt() string {
	switch {
	case r.wanted > r.byFiles():
		return "the limit of open files does not bear limits.connections: a session needs two"
	case r.wanted > r.byMemory():
		return "limits.connections is more than two thirds of the memory bear: with that many, the system may end the program"
	}
	return ""
}

// hints say what makes room for more, where something can be done.
func (r room) hints() (hints []string) {
	n, by := r.sessions()
	if need := r.filesNeeded(); by == "open files" {
		if r.wanted == 0 && r.memory == 0 {
			return nil // nobody knows how many more there could be
		}
		const asDelivered = 1 << 20 // fs.nr_open, which no limit of open files exceeds
		if r.wanted == 0 && r.files < asDelivered {
			need = min(need, asDelivered)
		}
		hint := fmt.Sprintf("write LimitNOFILE=%d in the service, or `ulimit -n %[1]d` before the start", need)
		if need > asDelivered {
			hint = fmt.Sprintf("`sysctl -w fs.nr_open=%d`, and %s", need, hint)
		}
		hints = append(hints, hint)
	} else if r.doubt() != "" {
		hints = append(hints, fmt.Sprintf("lower limits.connections to %d, or leave it out", r.byMemory()))
	}
	// This is told and bounds nothing: a name may stand for many addresses, and
	// not every session gets as far as a backend.
	if r.ports > 0 && n > r.ports*r.backends {
		hint := fmt.Sprintf("each address of a backend bears %d sessions, one a local port: give it several", r.ports)
		if r.ports < 1<<15 {
			hint += ", or `sysctl -w net.ipv4.ip_local_port_range='10240 65535'`"
		}
		hints = append(hints, hint)
	}
	return hints
}

// memorySize is the memory in words.
func (r room) memorySize() string {
	if r.memory == 0 {
		return "unknown"
	}
	return fmt.Sprintf("%.1fGiB", float64(r.memory)/(1<<30))
}

// lines say it all for a check.
func (r room) lines() (lines []string) {
	n, by := r.sessions()
	lines = append(lines, fmt.Sprintf("room: %s, by %s, if started from here: %d open files, memory %s",
		count(n, "session"), by, r.files, r.memorySize()))
	if doubt := r.doubt(); doubt != "" {
		lines = append(lines, "room: warning: "+doubt)
	}
	for _, hint := range r.hints() {
		lines = append(lines, "room: for more: "+hint)
	}
	return lines
}

// sayRoom tells what was found, and again when it has changed.
func (d *daemonized) sayRoom(r room) {
	if r == d.room {
		return
	}
	d.room = r
	n, by := r.sessions()
	fields := []zap.Field{zap.Int("sessions", n), zap.String("by", by), zap.Uint64("files", r.files), zap.String("memory", r.memorySize())}
	if hints := r.hints(); len(hints) > 0 {
		fields = append(fields, zap.String("hint", strings.Join(hints, "; ")))
	}
	if doubt := r.doubt(); doubt != "" {
		d.log.Warn(doubt, append(fields, zap.Int("connections", r.wanted))...)
	} else {
		d.log.Info("room for sessions", fields...)
	}
	r.boundHeap()
}

// boundHeap lets the garbage collector work harder when the program has three
// quarters of the memory; the last one is the kernel's for the sockets. Below that
// it changes nothing. Above, there is no other choice but to be ended by the system,
// and then every session is gone at once. Go's own default is no bound, for it
// does not know of control groups. Who sets GOMEMLIMIT knows better.
func (r room) boundHeap() {
	if r.memory > 0 && os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(int64(min(r.memory, math.MaxInt64) / 4 * 3))
	}
}

// addresses counts those of all backends.
func addresses(c *config.Config) int {
	found := map[config.Address]bool{}
	add := func(backends map[config.Protocol]*config.Backend) {
		for _, b := range backends {
			for _, a := range b.Addresses {
				found[a] = true
			}
		}
	}
	add(c.Backends)
	for _, b := range c.Brands {
		add(b.Backends)
	}
	return len(found)
}

// localPorts is how many the system has for connections to one address and port.
func localPorts(machine fs.FS) int {
	var first, last int
	data, err := fs.ReadFile(machine, "proc/sys/net/ipv4/ip_local_port_range") // of IPv6 too
	if err != nil {
		return 0
	}
	if n, _ := fmt.Sscan(string(data), &first, &last); n != 2 {
		return 0
	}
	return last - first + 1
}

// memoryOf is how much memory there is for this process: what the machine has, or
// what the process's control group or one above it may use, whichever is less. It
// is 0 where there are no such files, as outside Linux.
func memoryOf(machine fs.FS) (bytes uint64) {
	if info, err := fs.ReadFile(machine, "proc/meminfo"); err == nil {
		if _, err := fmt.Sscanf(string(info), "MemTotal: %d kB", &bytes); err == nil { // its first line
			bytes <<= 10
		}
	}
	groups, err := fs.ReadFile(machine, "proc/self/cgroup")
	if err != nil {
		return bytes
	}
	for line := range strings.Lines(string(groups)) { // number:controllers:path, see cgroups(7)
		_, line, _ = strings.Cut(strings.TrimSpace(line), ":")
		controllers, group, _ := strings.Cut(line, ":")
		root, limits := "sys/fs/cgroup", []string{"memory.max", "memory.high"} // beyond high all is slowed down
		if controllers != "" {
			if !slices.Contains(strings.Split(controllers, ","), "memory") {
				continue
			}
			root, limits = "sys/fs/cgroup/memory", []string{"memory.limit_in_bytes"} // version 1
		}
		// In a container the path may be one that only the host sees: then the
		// last one, the root, is that of the container.
		for group = path.Clean("/" + group); ; group = path.Dir(group) {
			for _, limit := range limits {
				if n := numberIn(machine, path.Join(root, group, limit)); n > 0 && (bytes == 0 || n < bytes) {
					bytes = n
				}
			}
			if group == "/" {
				break
			}
		}
	}
	return bytes
}

// numberIn is the number that a file holds; 0 if it holds none.
func numberIn(machine fs.FS, file string) uint64 {
	data, err := fs.ReadFile(machine, file)
	if err != nil {
		return 0
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(data)), 10, 64)
	if err != nil {
		return 0 // "max": no limit
	}
	return n
}
