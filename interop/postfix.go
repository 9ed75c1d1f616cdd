package interop

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// startPostfix starts Postfix with the configuration main.cf and master.cf.
func (rig *Rig) startPostfix() (*Process, error) {
	dir := filepath.Join(rig.Dir, "postfix")
	if err := errors.Join(
		os.Mkdir(dir, 0o755),
		os.Mkdir(filepath.Join(rig.Dir, "queue"), 0o755),
		rig.configure("main.cf", dir),
		rig.configure("master.cf", dir),
	); err != nil {
		return nil, fmt.Errorf("configuring Postfix: %w", err)
	}
	postfix, err := Find("postfix")
	if err != nil {
		return nil, err
	}
	// This makes the directories in the queue, too. It lies outside dir, where Postfix wants
	// all to belong to root.
	if out, err := exec.Command(postfix, "-c", dir, "check").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("checking the configuration of Postfix: %w: %s", err, out)
	}
	daemons, err := exec.Command(filepath.Join(filepath.Dir(postfix), "postconf"), "-c", dir, "-h", "daemon_directory").Output()
	if err != nil {
		return nil, fmt.Errorf("asking Postfix for its daemon_directory: %w", err)
	}
	// Not "postfix start-fg": that is a shell which would outlive a signal, and leave the
	// master behind.
	master := exec.Command(filepath.Join(strings.TrimSpace(string(daemons)), "master"), "-d", "-c", dir)
	return startProcess(master, filepath.Join(rig.Dir, "postfix.out"), rig.PostfixLog, "daemon started")
}
