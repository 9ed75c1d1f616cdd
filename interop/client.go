package interop

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Client is a mail program that is driven without a person. What it cannot do is nil.
type Client struct {
	Name       string // the program, and the protocol if it speaks several
	Programs   []string
	Protocol   Protocol
	Mechanisms []string // those that Login.Mechanism may name
	ASCII      bool     // fails at a password with other characters before it sends anything

	List   Action                                        // show what is in the inbox
	Fetch  Action                                        // read all messages in it, and say them
	Append func(message string) Action                   // put a message into it
	Delete Action                                        // delete all messages in it
	Send   func(from, to Account, message string) Action // submit a message
}

// Protocol is what a client speaks.
type Protocol string

const (
	IMAP       Protocol = "imap"
	POP3       Protocol = "pop3"
	Submission Protocol = "submission"
)

// Login is all that a person types into a mail program.
type Login struct {
	Endpoint
	Account
	CAFile    string
	Mechanism string // the SASL mechanism to insist on, or APOP; "" leaves the choice to the program
}

// Action is one thing done by a client.
type Action func(*session) error

// session is one client doing one thing in a clean home directory.
type session struct {
	Login
	t      testing.TB
	ctx    context.Context
	home   string
	output bytes.Buffer
}

// Do lets a client act, and returns all that it has said, at length, with its error, if any.
func (l Login) Do(t testing.TB, act Action) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	s := &session{Login: l, t: t, ctx: ctx, home: t.TempDir()}
	err := act(s)
	return s.output.String(), err
}

// run runs a program with the text on its standard input.
func (s *session) run(stdin, program string, args ...string) error {
	cmd := exec.CommandContext(s.ctx, program, args...)
	cmd.Dir = s.home
	cmd.Env = []string{"HOME=" + s.home, "PATH=" + os.Getenv("PATH"), "LANG=C.UTF-8", "TERM=xterm"}
	cmd.Stdin = strings.NewReader(stdin)
	cmd.Stdout, cmd.Stderr = &s.output, &s.output
	// What the program has started in its turn ends with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w", program, err)
	}
	return nil
}

// file writes a file below the home directory, readable for its owner alone as some
// programs insist.
func (s *session) file(name, content string) string {
	s.t.Helper()
	path := filepath.Join(s.home, name)
	must(s.t, os.MkdirAll(filepath.Dir(path), 0o700))
	must(s.t, os.WriteFile(path, []byte(content), 0o600))
	return path
}

// maildir makes an empty Maildir below the home directory.
func (s *session) maildir(name string) string {
	s.t.Helper()
	path := filepath.Join(s.home, name)
	for _, dir := range []string{"new", "cur", "tmp"} {
		must(s.t, os.MkdirAll(filepath.Join(path, dir), 0o700))
	}
	return path
}

// say adds what lies in the files to the output.
func (s *session) say(pattern string) {
	s.t.Helper()
	files, err := filepath.Glob(filepath.Join(s.home, pattern))
	must(s.t, err)
	for _, file := range files {
		text, err := os.ReadFile(file)
		must(s.t, err)
		s.output.Write(text)
	}
}

// run runs a program that is no mail program, and returns all that it says.
func run(t testing.TB, within time.Duration, program string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	s := &session{t: t, ctx: ctx, home: t.TempDir()}
	err := s.run("", program, args...)
	return s.output.String(), err
}
