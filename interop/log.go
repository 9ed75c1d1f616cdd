package interop

import (
	"io"
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

// Log is a server's log file, read from some point on.
type Log struct {
	path string
	from int64
}

// Here returns the log from its present end on: what comes after is what the test has caused.
func (l Log) Here() Log {
	if info, err := os.Stat(l.path); err == nil {
		l.from = info.Size()
	}
	return l
}

// Text returns what has been logged so far.
func (l Log) Text() string {
	f, err := os.Open(l.path)
	if err != nil {
		return ""
	}
	defer f.Close()
	text, _ := io.ReadAll(io.NewSectionReader(f, l.from, 1<<40))
	return string(text)
}

// Wait waits until the log has a match of the regular expression, and returns it with its
// submatches.
func (l Log) Wait(t testing.TB, pattern string) []string {
	t.Helper()
	re := regexp.MustCompile(pattern)
	var found []string
	if !eventually(func() bool { found = re.FindStringSubmatch(l.Text()); return found != nil }) {
		t.Fatalf("%s has no line with %q:\n%s", filepath.Base(l.path), pattern, l.Text())
	}
	return found
}
