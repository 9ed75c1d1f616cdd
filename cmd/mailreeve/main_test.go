package main

import (
	"cmp"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"mailreeve/certs"
	"mailreeve/demo"
	"mailreeve/proxy"
)

// patience bounds every wait for something that must come to pass.
const patience = 20 * time.Second

// TestMain makes this binary the command mailreeve, too: in scripts, and in the
// PATH of tests that start it as a process of its own.
func TestMain(m *testing.M) {
	if os.Getenv("GORACE") == "" { // else each process sleeps for a second at its end
		os.Setenv("GORACE", "atexit_sleep_ms=0")
	}
	testscript.Main(m, map[string]func(){"mailreeve": main})
}

// TestScripts plays the files in testdata/script: what somebody types, and what
// the program says. The commands that they have beyond testscript's are these.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			schema, err := filepath.Abs("../../config/mailreeve.v1.schema.json")
			env.Setenv("SCHEMA", schema)
			env.Setenv("GORACE", os.Getenv("GORACE"))
			return err
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"backends":    scriptBackends,
			"busy":        scriptBusy,
			"ca":          scriptCA,
			"certificate": scriptCertificate,
			"empty":       scriptEmpty,
			"expand":      scriptExpand,
			"ports":       scriptPorts,
			"greeting":    scriptGreeting,
			"mode":        scriptMode,
			"says":        scriptSays,
			"serves":      scriptServes,
		},
	})
}

// certificate FILE [-expired] HOST...: a certificate and its key, in one file.
func scriptCertificate(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: certificate FILE [-expired] HOST...")
	}
	ca, err := certs.NewAuthority("Test authority")
	ts.Check(err)
	order := certs.Order{Hosts: args[1:]}
	if args[1] == "-expired" {
		order = certs.Order{Hosts: args[2:], NotBefore: time.Date(2020, 3, 1, 12, 0, 0, 0, time.UTC), NotAfter: time.Date(2021, 3, 1, 12, 0, 0, 0, time.UTC)}
	}
	cert, err := ca.Issue(order)
	ts.Check(err)
	ts.Check(certs.Write(cert, certs.Pair{Cert: ts.MkAbs(args[0])}))
}

// ca FILE: an ACME directory that answers at $CA, with its authority in FILE; $CA/eab
// wants an external account, $CA/page is none. There is a lookup too, in clear, at
// $LOOKUP; $LOOKUP/yes confirms every name, $LOOKUP/broken none.
func scriptCA(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 1 {
		ts.Fatalf("usage: ca FILE")
	}
	const directory = `{"newNonce": "https://ca.example/n", "newAccount": "https://ca.example/a", "newOrder": "https://ca.example/o",
		"meta": {"termsOfService": "https://ca.example/terms.pdf", "externalAccountRequired": %v}}`
	answers := http.NewServeMux()
	answers.HandleFunc("/directory", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, directory, false) })
	answers.HandleFunc("/eab", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, directory, true) })
	answers.HandleFunc("/page", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "<html>It works</html>") })
	ca := httptest.NewUnstartedServer(answers)
	ca.Config.ErrorLog = log.New(io.Discard, "", 0) // of handshakes that fail as they shall
	ca.StartTLS()
	ts.Defer(ca.Close)
	ts.Setenv("CA", ca.URL)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.Certificate().Raw}), 0o600))

	names := http.NewServeMux()
	names.HandleFunc("/yes", func(http.ResponseWriter, *http.Request) {})
	names.HandleFunc("/broken", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusInternalServerError) })
	lookup := httptest.NewServer(names)
	ts.Defer(lookup.Close)
	ts.Setenv("LOOKUP", lookup.URL)
}

// backends: a small mail provider, at $IMAP, $POP3 and $SUBMISSION.
func scriptBackends(ts *testscript.TestScript, _ bool, _ []string) {
	b, err := demo.Start(demo.Options{})
	ts.Check(err)
	ts.Defer(func() { b.Close() })
	ts.Setenv("IMAP", b.IMAP.String())
	ts.Setenv("POP3", b.POP3.String())
	ts.Setenv("SUBMISSION", b.Submission.String())
}

// busy NAME...: a port that somebody else has, in each variable.
func scriptBusy(ts *testscript.TestScript, _ bool, args []string) {
	for _, name := range args {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		ts.Check(err)
		ts.Defer(func() { l.Close() })
		ts.Setenv(name, strconv.Itoa(l.Addr().(*net.TCPAddr).Port))
	}
}

// empty DIR: nothing is in it.
func scriptEmpty(ts *testscript.TestScript, _ bool, args []string) {
	entries, err := os.ReadDir(ts.MkAbs(args[0]))
	ts.Check(err)
	if len(entries) > 0 {
		ts.Fatalf("%s has %v", args[0], entries)
	}
}

// greeting FILE: leaves what the demo said before the first session, with the
// line of columns as its last.
func scriptGreeting(ts *testscript.TestScript, _ bool, args []string) {
	before, _, found := strings.Cut(ts.ReadFile(args[0]), columns+"\n")
	if !found {
		ts.Fatalf("%s has no line of columns", args[0])
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(before+columns+"\n"), 0o600))
}

// ports NAME...: a port that nobody has, in each variable.
func scriptPorts(ts *testscript.TestScript, _ bool, args []string) {
	ports, err := freePorts(len(args))
	ts.Check(err)
	for i, name := range args {
		ts.Setenv(name, strconv.Itoa(ports[i]))
	}
}

// expand FILE...: puts the values of variables into files.
func scriptExpand(ts *testscript.TestScript, _ bool, args []string) {
	for _, file := range args {
		text := os.Expand(ts.ReadFile(file), ts.Getenv)
		ts.Check(os.WriteFile(ts.MkAbs(file), []byte(text), 0o600))
	}
}

// mode MODE FILE...: files have the mode, in octal.
func scriptMode(ts *testscript.TestScript, neg bool, args []string) {
	want, err := strconv.ParseUint(args[0], 8, 32)
	ts.Check(err)
	for _, file := range args[1:] {
		info, err := os.Stat(ts.MkAbs(file))
		ts.Check(err)
		if got := info.Mode().Perm(); (got == fs.FileMode(want)) == neg {
			ts.Fatalf("%s has mode %04o", file, got)
		}
	}
}

// says FILE TEXT: waits until the text stands in the file.
func scriptSays(ts *testscript.TestScript, _ bool, args []string) {
	ts.Check(until(func() error {
		text, err := os.ReadFile(ts.MkAbs(args[0]))
		if err == nil && !strings.Contains(string(text), args[1]) {
			err = fmt.Errorf("%s does not say %q", args[0], args[1])
		}
		return err
	}))
}

// serves PORT...: waits until something listens on each port of 127.0.0.1.
func scriptServes(ts *testscript.TestScript, _ bool, args []string) {
	for _, port := range args {
		ts.Check(until(func() error {
			conn, err := net.Dial("tcp", "127.0.0.1:"+port)
			if err == nil {
				conn.Close()
			}
			return err
		}))
	}
}

// given are the ports that this process has had from freePorts.
var given sync.Map

// freePorts finds ports that nobody has, outside the range from which the
// system chooses, and gives none twice: scripts run at once, and one that has a
// port may not listen at it yet.
func freePorts(n int) (ports []int, err error) {
	for range 1000 {
		port := 10_000 + rand.N(20_000)
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			continue
		}
		l.Close()
		if _, taken := given.LoadOrStore(port, true); taken {
			continue
		}
		if ports = append(ports, port); len(ports) == n {
			return ports, nil
		}
	}
	return nil, fmt.Errorf("found %d free ports of %d", len(ports), n)
}

// until tries again until there is no error.
func until(try func() error) error {
	deadline := time.Now().Add(patience)
	for {
		err := try()
		if err == nil || time.Now().After(deadline) {
			return err
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// told is a command line run in this process: what it said, and its exit code.
func told(args ...string) (stdout, stderr string, code int) {
	var out, err strings.Builder
	code = run(args, &out, &err)
	return out.String(), err.String(), code
}

// ofTerminals is a column count that shows a line unbroken.
const ofTerminals = 100

// Help that is printed fits a terminal.
func TestHelpFitsATerminal(t *testing.T) {
	for _, args := range [][]string{{"help"}, {"help", "events"}, {"help", "check"}, {"help", "certs"}, {"help", "certs", "list"}, {"help", "config"}, {"help", "demo"}, {"help", "run"}, {"help", "help"}} {
		out, said, code := told(args...)
		if code != 0 || said != "" {
			t.Errorf("%v: exit %d, %s", args, code, said)
		}
		for line := range strings.SplitSeq(out, "\n") {
			if len(line) > ofTerminals {
				t.Errorf("%v: %d columns: %s", args, len(line), line)
			}
		}
	}
}

// Whatever is typed wrong, the answer is two lines: what is wrong, and what to
// type instead.
func TestWrongUsage(t *testing.T) {
	for _, test := range []struct{ typed, wrong, hint string }{
		{"rnu", `there is no command "rnu"`, "did you mean `mailreeve run`?"},
		{"chekc", `there is no command "chekc"`, "did you mean `mailreeve check`?"},
		{"frobnicate", `there is no command "frobnicate"`, "`mailreeve help` lists the commands"},
		{"help rnu", `there is no command "rnu"`, "did you mean `mailreeve run`?"},
		{"help frobnicate", `there is no command "frobnicate"`, "`mailreeve help` lists the commands"},
		{"config exmaple", `there is no command "config exmaple"`, "did you mean `mailreeve config example`?"},
		{"config frobnicate", `there is no command "config frobnicate"`, "`mailreeve config --help` lists the commands"},
		{"--frobnicate", "unknown flag: --frobnicate", "`mailreeve --help` lists the flags"},
		{"check --prob", "unknown flag: --prob", "`mailreeve check --help` lists the flags"},
		{"check -c", "flag needs an argument: 'c' in -c", "`mailreeve check --help` lists the flags"},
		{"check my.yaml", `mailreeve check takes no argument such as "my.yaml"`, "`mailreeve check -c my.yaml`, if that is the configuration"},
		{"run my.yaml", `mailreeve run takes no argument such as "my.yaml"`, "`mailreeve run -c my.yaml`, if that is the configuration"},
		{"certs lsit", `there is no command "certs lsit"`, "did you mean `mailreeve certs list`?"},
		{"certs list my.yaml", `mailreeve certs list takes no argument such as "my.yaml"`, "`mailreeve certs list -c my.yaml`, if that is the configuration"},
		{"version 2", `mailreeve version takes no argument such as "2"`, "`mailreeve version --help` shows how it is used"},
		{"demo now", `mailreeve demo takes no argument such as "now"`, "`mailreeve demo --help` shows how it is used"},
		{"demo --imaps-port 99999", `invalid argument "99999" for "--imaps-port" flag: it is no port; write a number from 1 to 65535`, "`mailreeve demo --help` lists the flags"},
		{"demo --imaps-port imap", `invalid argument "imap" for "--imaps-port" flag: it is no port; write a number from 1 to 65535`, "`mailreeve demo --help` lists the flags"},
		{"demo --imaps-port 0", `invalid argument "0" for "--imaps-port" flag: it is no port; write a number from 1 to 65535`, "`mailreeve demo --help` lists the flags"},
		{"demo --imaps-port 9995", "--imaps-port and --pop3s-port are both 9995", "give each its own, or leave them out: `mailreeve demo`"},
	} {
		out, said, code := told(strings.Fields(test.typed)...)
		if want := "mailreeve: " + test.wrong + "\nhint: " + test.hint + "\n"; said != want || out != "" || code != 2 {
			t.Errorf("mailreeve %s\ngot  %s%sexit %d\nwant %sexit 2", test.typed, out, said, code, want)
		}
	}
}

// Files and directories that cannot be used are answered with what to type.
func TestUnusableFiles(t *testing.T) {
	dir := t.TempDir()
	file := dir + "/file"
	if err := os.WriteFile(file, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		typed []string
		want  string
	}{
		{[]string{"check", "-c", dir + "/none.yaml"}, "mailreeve: reading the configuration: open " + dir + "/none.yaml: no such file or directory\n" +
			"hint: `mailreeve config example > " + dir + "/none.yaml` writes one to begin with; `mailreeve demo` needs none\n"},
		{[]string{"run", "-c", dir + "/none/none.yaml"}, "mailreeve: reading the configuration: open " + dir + "/none/none.yaml: no such file or directory\n" +
			"hint: `mkdir -p " + dir + "/none && mailreeve config example > " + dir + "/none/none.yaml` writes one to begin with; `mailreeve demo` needs none\n"},
		{[]string{"check", "-c", dir}, "mailreeve: reading the configuration: read " + dir + ": is a directory\n" +
			"hint: -c wants the file itself, like `-c " + dir + "/mailreeve.yaml`\n"},
		{[]string{"demo", "--dir", file}, "mailreeve: mkdir " + file + ": not a directory\n" +
			"hint: --dir wants a directory that you may write to; `mailreeve demo` alone makes one for the time being\n"},
	} {
		_, said, code := told(test.typed...)
		if said != test.want || code != 1 {
			t.Errorf("mailreeve %s\ngot  %sexit %d\nwant %sexit 1", strings.Join(test.typed, " "), said, code, cmp.Or(test.want, "nothing"))
		}
	}
}

// Sockets that cannot be opened are answered with what to type.
func TestListenHints(t *testing.T) {
	ports := demoPorts{imaps: 993, pop3s: 9995, submissions: 9465, submission: 9587}
	refused := func(err error) error { return &proxy.ListenError{Listener: "imaps", Address: ":993", Err: err} }
	for _, test := range []struct {
		err        error
		want, hint string // hint as a pattern
	}{
		{listenHint(refused(syscall.EACCES)), "listener imaps: cannot listen on :993: permission denied", "ports below 1024 want root, or `setcap cap_net_bind_service=\\+ep /.*`"},
		{demoHint(refused(syscall.EACCES), ports), "port 993 is not yours to use: those below 1024 want root", "`mailreeve demo --imaps-port 1993` takes another port"},
		{demoHint(refused(syscall.EADDRINUSE), ports), "port 993 is in use, by another demo perhaps", "`mailreeve demo --imaps-port 1993` takes another port"},
		{fileHint(&fs.PathError{Op: "open", Path: "m.yaml", Err: syscall.EACCES}, "m.yaml"), "open m.yaml: permission denied", "run it as a user who may read the file: `ls -l m.yaml` shows who that is"},
	} {
		var h *hinted
		if !errors.As(test.err, &h) || h.Error() != test.want || !regexp.MustCompile("^"+test.hint+"$").MatchString(h.hint) {
			t.Errorf("got  %v, hint %v\nwant %s, hint %s", test.err, h, test.want, test.hint)
		}
	}
	if err := errors.New("another"); listenHint(err) != err || demoHint(err, ports) != err {
		t.Error("a hint on what is unknown")
	}
}

// The port that is proposed instead exists, is free, and is not one of the others.
func TestProposedPort(t *testing.T) {
	for _, than := range []uint16{65535, 9465, 1} {
		p := demoPorts{imaps: than, pop3s: than + 1000, submissions: than + 2000, submission: than - 1000}
		got := p.other(than)
		if got < 1024 || got == p.pop3s || got == p.submissions || got == p.submission {
			t.Errorf("%d instead of %d", got, than)
		}
	}
}
