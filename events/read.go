package events

// Reading events back: what happened is asked for later, by session or by the
// million.

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
)

// mostLine bounds one line: the fields of an event are bounded, the longest being
// the client's own words.
const mostLine = 256 << 10

// Reader reads events, one a line.
type Reader struct {
	Only string // where given, lines that do not contain it are not looked at

	Read int // events so far
	Bad  int // lines so far that are no events of this version
}

// From reads events until the end, or until each returns false. The event is
// each's to keep. What is not an event is counted and passed over: a crash may
// have cut a line.
func (r *Reader) From(from io.Reader, each func(*Session) bool) (goOn bool, err error) {
	lines := bufio.NewReaderSize(from, mostLine)
	for {
		line, err := lines.ReadSlice('\n')
		long := errors.Is(err, bufio.ErrBufferFull)
		for errors.Is(err, bufio.ErrBufferFull) {
			_, err = lines.ReadSlice('\n')
		}
		if err != nil && err != io.EOF {
			return false, err
		}
		switch {
		case long:
			r.Bad++
		case len(bytes.TrimSpace(line)) == 0 || r.Only != "" && !bytes.Contains(line, []byte(r.Only)):
		default:
			e := new(Session)
			if json.Unmarshal(line, e) != nil || e.V != Version || e.Kind != "session" {
				r.Bad++
				break
			}
			r.Read++
			if !each(e) {
				return false, nil
			}
		}
		if err == io.EOF {
			return true, nil
		}
	}
}

// FromPath reads all files of events in a directory, the oldest first, or one
// file.
func (r *Reader) FromPath(path string, each func(*Session) bool) error {
	files := []string{path}
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("reading events: %w", err)
	}
	if info.IsDir() {
		// The dated files of a log sort before the one of today.
		if files, err = filepath.Glob(filepath.Join(escapeGlob(path), "*.jsonl")); err != nil {
			return fmt.Errorf("reading events: %w", err)
		}
		if len(files) == 0 {
			return fmt.Errorf("reading events: %s holds no file named *.jsonl", path)
		}
		slices.Sort(files)
	}
	for _, file := range files {
		f, err := os.Open(file)
		if err != nil {
			return fmt.Errorf("reading events: %w", err)
		}
		goOn, err := r.From(f, each)
		if err = errors.Join(err, f.Close()); err != nil {
			return fmt.Errorf("reading events of %s: %w", file, err)
		}
		if !goOn {
			return nil
		}
	}
	return nil
}
