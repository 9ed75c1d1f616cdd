package events

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// line is an event of that id in the log.
func line(t *testing.T, id string) string {
	t.Helper()
	data, err := Encode(&Session{ID: id, Time: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), Protocol: "imap", Action: "pass"})
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// ids reads what there is.
func ids(t *testing.T, r *Reader, path string) (got []string) {
	t.Helper()
	if err := r.FromPath(path, func(e *Session) bool {
		got = append(got, e.ID)
		return true
	}); err != nil {
		t.Fatal(err)
	}
	return got
}

func TestReadGivesBackWhatWasWritten(t *testing.T) {
	want := &Session{V: Version, Kind: "session", ID: "A1", Time: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), ClientID: map[string]string{"name": "x"},
		By: []string{"encrypted"}, Verified: true, BytesIn: 7, Seconds: 1.5}
	data, err := Encode(want)
	if err != nil {
		t.Fatal(err)
	}
	r := &Reader{}
	var got *Session
	if _, err := r.From(bytes.NewReader(data), func(e *Session) bool { got = e; return true }); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestReadPassesOverWhatIsNoEvent(t *testing.T) {
	text := line(t, "A1") + "garbage\n\n" + strings.Repeat("x", 3*mostLine) + "\n" + line(t, "A2") +
		`{"v":2,"event":"session","id":"A3"}` + "\n" + `{"v":1,"event":"other","id":"A4"}` + "\n" + strings.TrimSuffix(line(t, "A5"), "\n")
	path := filepath.Join(t.TempDir(), "e.jsonl")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	r := &Reader{}
	if got, want := ids(t, r, path), []string{"A1", "A2", "A5"}; !slices.Equal(got, want) {
		t.Errorf("read %q, want %q", got, want)
	}
	if r.Read != 3 || r.Bad != 4 {
		t.Errorf("read %d, bad %d; want 3 and 4", r.Read, r.Bad)
	}
	if got := ids(t, &Reader{Only: "A2"}, path); !slices.Equal(got, []string{"A2"}) {
		t.Errorf("only A2: read %q", got)
	}
}

func TestReadTakesTheFilesOfADirectoryInOrder(t *testing.T) {
	dir := t.TempDir()
	for name, id := range map[string]string{"events.jsonl": "3", "events-2026-03-02.jsonl": "2", "events-2026-03-01.jsonl": "1", "other.txt": "4"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(line(t, id)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := ids(t, &Reader{}, dir), []string{"1", "2", "3"}; !slices.Equal(got, want) {
		t.Errorf("read %q, want %q", got, want)
	}
	var first []string
	if err := (&Reader{}).FromPath(dir, func(e *Session) bool {
		first = append(first, e.ID)
		return false
	}); err != nil || len(first) != 1 {
		t.Errorf("read %q (%v), want one alone", first, err)
	}
	for _, path := range []string{t.TempDir(), filepath.Join(dir, "none")} {
		if err := (&Reader{}).FromPath(path, nil); err == nil {
			t.Errorf("%s was read", path)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte(`{"v":1,"event":"session","id":"A1"}` + "\n"))
	f.Add([]byte("\n\n{"))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, n := &Reader{}, 0
		if _, err := r.From(bytes.NewReader(data), func(*Session) bool { n++; return true }); err != nil || n != r.Read {
			t.Errorf("read %d of %d: %v", n, r.Read, err)
		}
	})
}
