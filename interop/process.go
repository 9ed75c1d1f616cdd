package interop

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// process is a server in the foreground, leader of a process group of its own.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended

	// The guard kills the group when this pipe closes: when stop closes it, or when the test
	// binary dies before that.
	guard *exec.Cmd
	alive io.Closer
}

// startProcess starts a server, which writes into the file output, and waits until its log
// says that it is ready. On an error the process is returned as well if it has been started.
func startProcess(cmd *exec.Cmd, output string, log Log, ready string) (*process, error) {
	name := filepath.Base(cmd.Path)
	p := &process{cmd: cmd, done: make(chan struct{})}
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

	if !eventually(func() bool { return p.ended() || strings.Contains(log.Text(), ready) }) || p.ended() {
		said, _ := os.ReadFile(output)
		return p, fmt.Errorf("%s did not become ready: %s%s", name, said, log.Text())
	}
	return p, nil
}

// startGuard starts what ends the server even if the test binary is killed. Pdeathsig would
// not do: a process that changes its user, as Postfix does, loses it.
func (p *process) startGuard() error {
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

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// stop ends the process and all of its children.
func (p *process) stop() {
	p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(patience):
	}
	if p.guard != nil {
		p.alive.Close()
		p.guard.Wait()
	}
}
