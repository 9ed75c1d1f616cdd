package events

// The file of events: one line each, a file a day, gone after the retention time.

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// day is the form of the date in the name of a rotated file.
const day = "2006-01-02"

// Log writes events to a file. At the first event of a new day (UTC), or when
// [Log.Expire] is called on it, the file of the old one is renamed from
// events.jsonl to events-2026-11-21.jsonl, and files older than the retention time
// are deleted: events name customers, so they go by themselves. Files have mode
// 0600 for the same reason.
//
// Every event is one write of one line, so a crash loses at most the line that
// was being written. Whatever fails is reported to the caller, and the next
// event tries again.
type Log struct {
	path string
	keep time.Duration // 0: for ever
	now  func() time.Time

	mu   sync.Mutex // guards the following
	file *os.File
	date string // day of the events in the file
}

// Open opens or creates the file at path. A retention time of 0 keeps files
// for ever; else it counts in whole days of the files' dates.
func Open(path string, keep time.Duration) (*Log, error) {
	l := &Log{path: path, keep: keep, now: time.Now}
	if err := l.open(); err != nil {
		return nil, err
	}
	return l, nil
}

// open sets file and date. A file left behind by an earlier run keeps the date
// of its last event.
func (l *Log) open() error {
	f, err := os.OpenFile(l.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("opening the event log: %w", err)
	}
	l.file, l.date = f, l.now().UTC().Format(day)
	if st, err := f.Stat(); err == nil && st.Size() > 0 {
		l.date = st.ModTime().UTC().Format(day)
	}
	return nil
}

// Expire does by the clock what else the first event of a new day does, for days on
// which there is none. It is to be called at the start, and then every hour or so.
func (l *Log) Expire() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		if err := l.open(); err != nil {
			return err
		}
	}
	if today := l.now().UTC().Format(day); today != l.date {
		return l.rotate(today)
	}
	return l.expire()
}

// Record writes one event. Trouble with the files of past days is reported too,
// and keeps no event from being written.
func (l *Log) Record(s *Session) error {
	line, err := Encode(s)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		if err := l.open(); err != nil {
			return err
		}
	}
	var old error
	if today := l.now().UTC().Format(day); today != l.date {
		if old = l.rotate(today); l.file == nil {
			return old
		}
	}
	if _, err := l.file.Write(line); err != nil {
		return errors.Join(old, fmt.Errorf("writing an event: %w", err))
	}
	return old
}

// rotate gives the file of a past day its dated name, opens a new one and
// deletes what is older than the retention time. A day without events leaves no file.
func (l *Log) rotate(today string) error {
	if st, err := l.file.Stat(); err == nil && st.Size() == 0 {
		l.date = today
		return l.expire()
	}
	stem, ext := l.parts()
	dated := stem + "-" + l.date + ext
	if _, err := os.Lstat(dated); err == nil {
		// A file of that day is there already, from a clock set back: keep both.
		dated = fmt.Sprintf("%s-%s.%d%s", stem, l.date, l.now().UnixNano(), ext)
	}
	if err := os.Rename(l.path, dated); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("rotating the event log: %w", err)
	}
	l.file.Close()
	l.file = nil
	if err := l.open(); err != nil {
		return err
	}
	l.date = today
	return l.expire()
}

// parts are what dated names have around the date.
func (l *Log) parts() (stem, ext string) {
	ext = filepath.Ext(l.path)
	return strings.TrimSuffix(l.path, ext), ext
}

// expire deletes the dated files whose day lies wholly before the retention time.
func (l *Log) expire() error {
	if l.keep <= 0 {
		return nil
	}
	stem, ext := l.parts()
	oldest := l.now().UTC().Add(-l.keep).Format(day)
	names, err := filepath.Glob(escapeGlob(stem) + "-????-??-??*" + escapeGlob(ext))
	if err != nil {
		return fmt.Errorf("deleting old event logs: %w", err)
	}
	var failed error
	for _, name := range names {
		date := name[len(stem)+1:][:len(day)]
		if _, err := time.Parse(day, date); err != nil || date >= oldest {
			continue
		}
		if err := os.Remove(name); err != nil {
			failed = errors.Join(failed, fmt.Errorf("deleting an old event log: %w", err))
		}
	}
	return failed
}

// escapeGlob makes a path match itself only.
func escapeGlob(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}

// Reopen closes the file and opens its path anew, for a logrotate that has
// renamed it.
func (l *Log) Reopen() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file != nil {
		l.file.Close()
		l.file = nil
	}
	return l.open()
}

// Close ends the log; a later Record opens it again.
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return nil
	}
	err := l.file.Close()
	l.file = nil
	return err
}

// Encode returns an event as one line of JSON, newline included. JSON escapes
// control characters, so nothing that a stranger sent can begin a line.
func Encode(s *Session) ([]byte, error) {
	e := *s
	e.V, e.Kind, e.Time = Version, "session", s.Time.UTC().Truncate(time.Millisecond)
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(&e); err != nil {
		return nil, fmt.Errorf("encoding an event: %w", err)
	}
	return b.Bytes(), nil
}
