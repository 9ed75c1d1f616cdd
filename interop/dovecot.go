package interop

import (
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// startDovecot starts Dovecot with the configuration dovecot.conf.
func (rig *Rig) startDovecot() (*Process, error) {
	program, err := Find("dovecot")
	if err != nil {
		return nil, err
	}
	version, err := exec.Command(program, "--version").Output()
	if err != nil {
		return nil, fmt.Errorf("asking Dovecot for its version: %w", err)
	}
	if !strings.HasPrefix(string(version), "2.3.") {
		return nil, fmt.Errorf("dovecot.conf is written for Dovecot 2.3, as in Debian 12; this is %s", version)
	}
	// Dovecot looks a key up by client id, algorithm and key id; a token that names neither id
	// gets the default.
	keys := filepath.Join(rig.Dir, "keys", "default", "HS256")
	if err := errors.Join(
		os.MkdirAll(keys, 0o755),
		os.WriteFile(filepath.Join(keys, "default"), []byte(base64.StdEncoding.EncodeToString([]byte(tokenKey))), 0o644),
		rig.configure("oauth2.conf", rig.Dir),
		rig.configure("dovecot.conf", rig.Dir),
	); err != nil {
		return nil, fmt.Errorf("configuring Dovecot: %w", err)
	}
	dovecot := exec.Command(program, "-F", "-c", filepath.Join(rig.Dir, "dovecot.conf"))
	return startProcess(dovecot, filepath.Join(rig.Dir, "dovecot.out"), rig.DovecotLog, "starting up")
}
