package main

import (
	"bufio"
	"bytes"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"
)

const gib = 1 << 30

// What follows from what a machine has and what its file wants.
func TestRoom(t *testing.T) {
	const (
		tooFew  = "the limit of open files does not bear limits.connections"
		tooMuch = "limits.connections is more than two thirds of the memory bear"
	)
	for name, test := range map[string]struct {
		room        room
		n           int
		by          string
		doubt, hint string // what they begin with
	}{
		"8 GiB under the unit":             {room{files: 1 << 20, memory: 8 * gib}, 310689, "memory", "", ""},
		"64 GiB under the unit":            {room{files: 1 << 20, memory: 64 * gib}, 523776, "open files", "", "`sysctl -w fs.nr_open=4972050`, and write LimitNOFILE=4972050 in the service"},
		"24 GiB without a unit's limit":    {room{files: 20000, memory: 24 * gib}, 9900, "open files", "", "write LimitNOFILE=1048576 in the service"},
		"a shell's soft limit":             {room{files: 1024, memory: 8 * gib}, 480, "open files", "", "write LimitNOFILE=622402 in the service, or `ulimit -n 622402` before the start"},
		"hardly any files":                 {room{files: 3, memory: 8 * gib}, 1, "open files", "", "write"},
		"a small control group":            {room{files: 1 << 20, memory: gib / 4}, 9709, "memory", "", ""},
		"a number that fits":               {room{wanted: 20000, files: 1 << 20, memory: 8 * gib}, 20000, "limits.connections", "", ""},
		"a number that just fits":          {room{wanted: 9900, files: 20000, memory: 8 * gib}, 9900, "limits.connections", "", ""},
		"one beyond the files":             {room{wanted: 9901, files: 20000, memory: 8 * gib}, 9900, "open files", tooFew, "write LimitNOFILE=20826 in the service"},
		"one beyond the memory":            {room{wanted: 400000, files: 1 << 20, memory: 8 * gib}, 400000, "limits.connections", tooMuch, "lower limits.connections to 310689, or leave it out"},
		"one beyond both":                  {room{wanted: 400000, files: 20000, memory: 8 * gib}, 9900, "open files", tooFew, "write LimitNOFILE=801024"},
		"memory unknown":                   {room{files: 245760}, 122368, "open files", "", ""},
		"memory unknown, a number":         {room{wanted: 20000, files: 245760}, 20000, "limits.connections", "", ""},
		"files without limit":              {room{files: 1<<64 - 1, memory: 8 * gib}, 310689, "memory", "", ""},
		"files unknown":                    {room{memory: 8 * gib}, 310689, "memory", "", ""},
		"all without limit":                {room{files: 1<<64 - 1, memory: 1<<64 - 1}, mostSessions, "memory", "", ""},
		"few ports":                        {room{files: 1 << 20, memory: 8 * gib, backends: 2, ports: 28232}, 310689, "memory", "", "each address of a backend bears 28232 sessions, one a local port: give it several, or `sysctl -w net.ipv4.ip_local_port_range="},
		"all ports there are":              {room{files: 1 << 20, memory: 8 * gib, backends: 2, ports: 64512}, 310689, "memory", "", "each address of a backend bears 64512 sessions, one a local port: give it several"},
		"ports enough":                     {room{files: 1 << 20, memory: 8 * gib, backends: 12, ports: 28232}, 310689, "memory", "", ""},
		"ports enough for what is written": {room{wanted: 20000, files: 1 << 20, memory: 8 * gib, backends: 1, ports: 28232}, 20000, "limits.connections", "", ""},
	} {
		n, by := test.room.sessions()
		doubt, hint := test.room.doubt(), strings.Join(test.room.hints(), "; ")
		if n != test.n || by != test.by || !begins(doubt, test.doubt) || !begins(hint, test.hint) {
			t.Errorf("%s: %d by %s\n\tdoubt %s\n\thint %s", name, n, by, doubt, hint)
		}
	}
}

// begins says whether a text begins so; only nothing begins with nothing.
func begins(text, with string) bool {
	return strings.HasPrefix(text, with) && (text == "") == (with == "")
}

// Whoever follows the hint has room for what he wanted.
func TestRoomHintSuffices(t *testing.T) {
	for _, wanted := range []int{1, 100, 1535, 1536, 9489, 300000, mostSessions} {
		r := room{wanted: wanted, files: 1, memory: 1 << 50}
		r.files = r.filesNeeded()
		if n, by := r.sessions(); n != wanted || by != "limits.connections" {
			t.Errorf("%d wanted, %d files: %d by %s", wanted, r.files, n, by)
		}
	}
}

// The memory that counts is the least of what the machine has and of what each
// control group above the process may use, in both versions and in containers.
func TestMemory(t *testing.T) {
	const eight = "MemTotal:        8388608 kB\nMemFree:          123 kB\n"
	for name, test := range map[string]struct {
		files map[string]string
		want  uint64
	}{
		"nothing known": {nil, 0},
		"no groups":     {map[string]string{"proc/meminfo": eight}, 8 * gib},
		"a service's limit": {map[string]string{"proc/meminfo": eight, "proc/self/cgroup": "0::/system.slice/mailreeve.service\n",
			"sys/fs/cgroup/system.slice/mailreeve.service/memory.max": "2147483648\n"}, 2 * gib},
		"a slice's limit": {map[string]string{"proc/meminfo": eight, "proc/self/cgroup": "0::/mail.slice/mailreeve.service\n",
			"sys/fs/cgroup/mail.slice/mailreeve.service/memory.max": "max\n", "sys/fs/cgroup/mail.slice/memory.max": "3221225472\n"}, 3 * gib},
		"a brake before the limit": {map[string]string{"proc/meminfo": eight, "proc/self/cgroup": "0::/a\n",
			"sys/fs/cgroup/a/memory.max": "3221225472\n", "sys/fs/cgroup/a/memory.high": "1073741824\n"}, gib},
		"no limit": {map[string]string{"proc/meminfo": eight, "proc/self/cgroup": "0::/a\n",
			"sys/fs/cgroup/a/memory.max": "max\n", "sys/fs/cgroup/a/memory.high": "max\n"}, 8 * gib},
		"more than there is": {map[string]string{"proc/meminfo": eight, "proc/self/cgroup": "0::/a\n",
			"sys/fs/cgroup/a/memory.max": "17179869184\n"}, 8 * gib},
		"a container": {map[string]string{"proc/meminfo": eight, "proc/self/cgroup": "0::/\n",
			"sys/fs/cgroup/memory.max": "1073741824\n"}, gib},
		"a group outside of what is seen": {map[string]string{"proc/meminfo": eight, "proc/self/cgroup": "0::/../../other\n",
			"sys/fs/cgroup/memory.max": "1073741824\n"}, gib},
		"version 1": {map[string]string{"proc/meminfo": eight, "proc/self/cgroup": "8:pids:/x\n4:cpu,memory:/mail\n0::/\n",
			"sys/fs/cgroup/memory/mail/memory.limit_in_bytes": "1073741824\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n"}, gib},
		"version 1 in a container": {map[string]string{"proc/meminfo": eight, "proc/self/cgroup": "4:memory:/docker/0123\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes": "1073741824\n"}, gib},
		"another controller": {map[string]string{"proc/meminfo": eight, "proc/self/cgroup": "8:pids:/x\n",
			"sys/fs/cgroup/memory/x/memory.limit_in_bytes": "1073741824\n"}, 8 * gib},
		"broken": {map[string]string{"proc/meminfo": "?", "proc/self/cgroup": "::\n\nx\n0:/\n"}, 0},
	} {
		machine := fstest.MapFS{}
		for file, text := range test.files {
			machine[file] = &fstest.MapFile{Data: []byte(text)}
		}
		if got := memoryOf(machine); got != test.want {
			t.Errorf("%s: %d, want %d", name, got, test.want)
		}
	}
}

func TestLocalPorts(t *testing.T) {
	for text, want := range map[string]int{"32768\t60999\n": 28232, "10240 65535": 55296, "": 0, "32768": 0, "all": 0} {
		machine := fstest.MapFS{"proc/sys/net/ipv4/ip_local_port_range": {Data: []byte(text)}}
		if got := localPorts(machine); got != want {
			t.Errorf("%q: %d, want %d", text, got, want)
		}
	}
	if got := localPorts(fstest.MapFS{}); got != 0 {
		t.Errorf("without the file: %d", got)
	}
}

// A configuration brings its number and the addresses of its backends, of which two
// brands may share one.
func TestRoomOfAConfiguration(t *testing.T) {
	dir, _ := files(t)
	c, _ := settingsOf(t, dir, everyKey)
	want := map[string]bool{}
	for _, all := range []string{"10.0.0.5:143", "imap.internal:1143", "10.0.1.5:143"} {
		want[all] = true
	}
	for _, b := range c.Backends {
		for _, a := range b.Addresses {
			want[a.String()] = true
		}
	}
	c.Brands[0].Backends = c.Brands[1].Backends
	var before, after syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	r := findRoom(c)
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &after); err != nil {
		t.Fatal(err)
	}
	if r.wanted != 2001 || r.backends != len(want) {
		t.Errorf("%+v, want 2001 sessions and the addresses %v", r, want)
	}
	if uint64(after.Cur) != r.files || after.Cur < before.Cur {
		t.Errorf("%d files told, %d before, %d after", r.files, before.Cur, after.Cur)
	}
}

// No more are let in than there is room for, whatever the file wants; and when one
// has gone, the next is.
func TestNoMoreThanThereIsRoomFor(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	const limited = `ulimit -n 64
		if [ "$(id -u)" = 0 ] && command -v setpriv >/dev/null; then # what root may raise again is taken from it
			exec setpriv --bounding-set=-sys_resource "$@"
		fi
		exec "$@"`
	s.process = exec.Command("sh", "-c", limited, "sh", "mailreeve", "run", "-c", s.path("mailreeve.yaml"))
	s.process.Stdout, s.process.Stderr = s.out, s.log
	s.launch()
	s.log.await(t, "policy in force")
	s.log.await(t, `"level":"warn".*"sessions":24,"by":"open files","files":64,`)
	var in []*talk
	for range 24 {
		in = append(in, newTalk(t, s.dial("imap")))
	}
	for _, c := range in {
		c.hear(`^\* OK `)
	}
	newTalk(t, s.dial("imap")).hangsUp()
	in[0].say("a LOGOUT")
	in[0].hangsUp()
	if err := until(func() error {
		_, err := bufio.NewReader(s.dial("imap")).ReadString('\n')
		return err
	}); err != nil {
		t.Errorf("the place that is free is not given: %v", err)
	}
}

// A reload tells the room anew where it has changed, and only there.
func TestReloadTellsTheRoom(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.run()
	s.log.await(t, `"level":"info".*"msg":"room for sessions","sessions":1000,"by":"limits.connections","files":[0-9]+,"memory":"`)
	s.reload()
	file, err := os.ReadFile(s.path("mailreeve.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	s.write("mailreeve.yaml", string(bytes.Replace(file, []byte("connections: 1000"), []byte("connections: 1001"), 1)))
	s.reload()
	s.write("mailreeve.yaml", string(bytes.Replace(file, []byte("connections: 1000"), []byte("connections: 0"), 1)))
	s.reload()
	told := []string{}
	for line := range strings.Lines(s.log.whole()) {
		if _, fields, ok := strings.Cut(line, `"msg":"room for sessions",`); ok {
			told = append(told, fields[:strings.Index(fields, ",")])
		}
	}
	if want := []string{`"sessions":1000`, `"sessions":1001`}; !slices.Equal(told, want) {
		t.Errorf("told %v, want %v", told, want)
	}
}
