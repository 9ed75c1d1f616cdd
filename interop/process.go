package interop

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Process is a server in the foreground, leader of a process group of its own.
type Process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended

	// The guard kills the group when this pipe closes: when Stop closes it, or when whoever
	// started it dies before that.
	guard *exec.Cmd
	alive io.Closer

	stopping sync.Once
}

// StartProcess starts a server, which writes into the file output, and waits until it is
// ready. On an error the process is returned as well if it has been started.
func StartProcess(cmd *exec.Cmd, output string, ready func() bool) (*Process, error) {
	name := filepath.Base(cmd.Path)
	p := &Process{cmd: cmd, done: make(chan struct{})}
	// A file and no pipe, which children would hold open beyond the server's own end.
	out, err := os.Create(output)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	p.cmd.Stdout, p.cmd.Stderr = out, out
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	go func() {
		p.cmd.Wait()
		close(p.done)
	}()
	if err := p.startGuard(); err != nil {
		return p, fmt.Errorf("starting the guard of %s: %w", name, err)
	}

	if !eventually(func() bool { return p.Ended() || ready() }) || p.Ended() {
		said, _ := os.ReadFile(output)
		return p, fmt.Errorf("%s did not become ready: %s", name, said)
	}
	return p, nil
}

// startProcess is StartProcess for a server whose log says when it is ready.
func startProcess(cmd *exec.Cmd, output string, log Log, ready string) (*Process, error) {
	p, err := StartProcess(cmd, output, func() bool { return strings.Contains(log.Text(), ready) })
	if err != nil && log.path != output {
		err = fmt.Errorf("%w%s", err, log.Text())
	}
	return p, err
}

// startGuard starts what ends the server even if whoever started it is killed. Pdeathsig would
// not do: a process that changes its user, as Postfix does, loses it.
func (p *Process) startGuard() error {
	guard := exec.Command("sh", "-c", `cat; kill -KILL "-$0"`, strconv.Itoa(p.cmd.Process.Pid))
	guard.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	alive, err := guard.StdinPipe()
	if err != nil {
		return err
	}
	if err := guard.Start(); err != nil {
		return err
	}
	p.guard, p.alive = guard, alive
	return nil
}

// Pid returns the id of the server's process, whose children may do its work.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Signal sends a signal to the server's process.
func (p *Process) Signal(s os.Signal) error { return p.cmd.Process.Signal(s) }

// Ended says whether the process has ended.
func (p *Process) Ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// Stop ends the process and all of its children, and returns when they have ended.
func (p *Process) Stop() {
	p.stopping.Do(func() {
		p.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-p.done:
		case <-time.After(patience):
		}
		if p.guard != nil {
			p.alive.Close()
			p.guard.Wait()
		}
	})
}
