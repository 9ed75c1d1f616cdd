package main

// The hold: a file that makes everything milder at once. `policy hold` writes it,
// and the running program looks at it every second, so that it needs no signal,
// survives a restart, and can be written by hand.

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"mailreeve/policy"
)

// holdFile is a hold in its file.
type holdFile struct {
	Cap    policy.Action `json:"cap"`
	Reason string        `json:"reason"`
	Owner  string        `json:"owner"`
	Since  time.Time     `json:"since"`
	Until  time.Time     `json:"until"`
}

const (
	mostHold    = 16 << 10            // bytes of the file: a sentence and two instants
	longestHold = 30 * 24 * time.Hour // whoever needs more decides anew
)

// readHold reads a hold. There is none where there is no file. The text is what
// stands in the file.
func readHold(path string) (hold *policy.Hold, text string, err error) {
	if path == "" {
		return nil, "", nil
	}
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a pipe in its place is not waited for
	if errors.Is(err, fs.ErrNotExist) {
		return nil, "", nil
	} else if err != nil {
		return nil, "unreadable", fmt.Errorf("reading the hold: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, mostHold+1))
	if err != nil {
		return nil, "unreadable", fmt.Errorf("reading the hold: %w", err)
	}
	h, err := parseHold(data)
	if err != nil {
		err = fmt.Errorf("reading the hold: %s: %w", path, err)
	}
	return h, "read " + string(data), err
}

// parseHold reads what a file says.
func parseHold(data []byte) (*policy.Hold, error) {
	if len(data) > mostHold {
		return nil, errors.New("it is too long to be a hold")
	}
	var h holdFile
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	h.Cap = policy.Refuse + 1
	if err := d.Decode(&h); err != nil {
		return nil, fmt.Errorf("it is no hold: %w", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("something stands behind the hold")
	}
	switch {
	case h.Cap > policy.Refuse:
		return nil, errors.New("cap is missing")
	case h.Reason == "" || h.Owner == "":
		return nil, errors.New("reason or owner is missing")
	case h.Since.IsZero() || !h.Since.Before(h.Until):
		return nil, errors.New("since is missing, or until is not later")
	case h.Until.Sub(h.Since) > longestHold:
		return nil, errors.New("it is longer than 30 days")
	}
	return &policy.Hold{Cap: h.Cap, Reason: h.Reason, Owner: h.Owner, Since: h.Since, Until: h.Until}, nil
}

// writeHold puts a hold into its file, all of it or nothing. It belongs to the
// owner of the directory then: root may set it for the program's user.
func writeHold(path string, h *policy.Hold) error {
	data, err := json.MarshalIndent(holdFile{h.Cap, h.Reason, h.Owner, h.Since, h.Until}, "", "  ")
	if err != nil {
		return err
	}
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, ".hold-*") // with mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(append(data, '\n'))
	if info, statErr := os.Stat(dir); statErr == nil && os.Geteuid() == 0 {
		if owner, ok := info.Sys().(*syscall.Stat_t); ok {
			err = errors.Join(err, f.Chown(int(owner.Uid), int(owner.Gid)))
		}
	}
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}
