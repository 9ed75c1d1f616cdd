package certs

// Files that several nodes share. They appear by rename or link, with mode 0600, and so are
// whole at any time.

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// errTooLarge says that a file cannot be what it should be.
var errTooLarge = errors.New("it is too large")

// errNoFile says that something else stands in the place of a file.
var errNoFile = errors.New("it is no file")

// readFile reads a file of bounded size. From a pipe or a terminal, which it would wait for, it
// reads nothing: locks are held meanwhile.
func readFile(path string, most int64) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Mode()&(fs.ModeNamedPipe|fs.ModeSocket|fs.ModeDevice) != 0 {
		return nil, errNoFile
	}
	data, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(data)) > most {
		err = errTooLarge
	}
	return data, err
}

// temporary writes data to a new file beside path and syncs it.
func temporary(path string, data []byte) (name string, err error) {
	f, err := os.CreateTemp(filepath.Dir(path), newPrefix+"*") // mode 0600
	if err != nil {
		return "", unwritten(path, err)
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		_ = os.Remove(f.Name()) // the first error tells
		return "", unwritten(path, err)
	}
	return f.Name(), nil
}

// newPrefix is how the names of files begin that are being written.
const newPrefix = ".new-"

// unwritten names the file that was to be: what is told once must not have another
// temporary name in it each time.
func unwritten(path string, err error) error {
	return &fs.PathError{Op: "write", Path: path, Err: cause(err)}
}

// writeFile puts a file in place, whole or not at all.
func writeFile(path string, data []byte) error {
	name, err := temporary(path, data)
	if err != nil {
		return err
	}
	if err := os.Rename(name, path); err != nil {
		_ = os.Remove(name) // the first error tells
		return unwritten(path, err)
	}
	if d, err := os.Open(filepath.Dir(path)); err == nil { // the rename itself survives a power cut
		_ = d.Sync() // not every file system can
		_ = d.Close()
	}
	return nil
}

// createFile is writeFile for a file that must not be there yet; else the error is fs.ErrExist.
func createFile(path string, data []byte) error {
	name, err := temporary(path, data)
	if err != nil {
		return err
	}
	defer os.Remove(name)
	err = os.Link(name, path)
	if err == nil || errors.Is(err, fs.ErrExist) {
		return err
	}
	// Some network file systems have no links. Then a reader may see the file
	// before all of it is there; it takes that for a corrupt one, and tries again.
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Close())
}

// lease lets one process at a time do something, also on several nodes: a file that only one
// can create, which says until when at most. The error is fs.ErrExist while another one has it.
// A lease that ran out, that cannot be read, or that lasts longer than any of ours is a
// leftover. Two that remove it at once, or whose clocks differ by more than the length, may
// both go on; what they do must bear that.
func lease(path string, now time.Time, length time.Duration) (release func(), err error) {
	type leased struct {
		Holder string    `json:"holder"` // draws leases apart
		Until  time.Time `json:"until"`
	}
	mine, err := json.Marshal(leased{rand.Text(), now.Add(length)})
	if err != nil {
		return nil, err
	}
	err = createFile(path, mine)
	if errors.Is(err, fs.ErrExist) {
		var held leased
		data, readErr := readFile(path, maxLease)
		if errors.Is(readErr, fs.ErrNotExist) || readErr == nil && json.Unmarshal(data, &held) == nil &&
			held.Until.After(now) && held.Until.Before(now.Add(2*length)) {
			return nil, err
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		err = createFile(path, mine)
	}
	if err != nil {
		return nil, err
	}
	return func() {
		if data, err := readFile(path, maxLease); err == nil && bytes.Equal(data, mine) {
			_ = os.Remove(path) // else it runs out
		}
	}, nil
}

// maxLease bounds what is read of a lease, which has a hundred bytes.
const maxLease = 1 << 10

// sweep removes the files of a folder whose names begin so, and that are older than any
// process needs them that lives.
func sweep(dir, prefix string, now time.Time) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return // next time
	}
	for _, e := range entries {
		if info, err := e.Info(); err == nil && strings.HasPrefix(e.Name(), prefix) && now.Sub(info.ModTime()) > sweepAge {
			_ = os.Remove(filepath.Join(dir, e.Name())) // next time
		}
	}
}

// sweepAge is far beyond the two minutes of an order, so that clocks may differ.
const sweepAge = time.Hour

// cause is an error of the file system without the path, for those who name it themselves.
func cause(err error) error {
	var path *fs.PathError
	var link *os.LinkError
	switch {
	case errors.As(err, &path):
		return path.Err
	case errors.As(err, &link):
		return link.Err
	}
	return err
}
