package certs

// Files that several nodes share. They appear by rename or link, with mode 0600, and so are
// whole at any time.

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// errTooLarge says that a file cannot be what it should be.
var errTooLarge = errors.New("it is too large")

// readFile reads a file of bounded size.
func readFile(path string, most int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(data)) > most {
		err = errTooLarge
	}
	return data, err
}

// temporary writes data to a new file beside path and syncs it.
func temporary(path string, data []byte) (name string, err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*") // mode 0600
	if err != nil {
		return "", err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		_ = os.Remove(f.Name()) // the first error tells
		return "", err
	}
	return f.Name(), nil
}

// writeFile puts a file in place, whole or not at all.
func writeFile(path string, data []byte) error {
	name, err := temporary(path, data)
	if err != nil {
		return err
	}
	if err := os.Rename(name, path); err != nil {
		_ = os.Remove(name) // the first error tells
		return err
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

// cause is an error of the file system without the path, for those who name it themselves.
func cause(err error) error {
	if path := new(fs.PathError); errors.As(err, &path) {
		return path.Err
	}
	return err
}
