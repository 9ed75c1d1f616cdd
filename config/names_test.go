package config

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestLegacyNames(t *testing.T) {
	dir := t.TempDir()
	fixtures(t, dir)
	names, problems, err := (&Brand{LegacyFile: filepath.Join(dir, "names.txt")}).LegacyNames()
	if want := []Host{"imap.kunde.example", "pop.kunde.example", "imap.kunde.example"}; err != nil || problems != nil || !slices.Equal(names, want) {
		t.Errorf("got %v, %v, %v", names, problems, err)
	}
	names, problems, err = (&Brand{LegacyFile: filepath.Join(dir, "wrong.txt")}).LegacyNames()
	if want := []Host{"imap.kunde.example", "imap.example.org", "old.example.net"}; err != nil || len(problems) != 4 || !slices.Equal(names, want) {
		t.Errorf("got %v, %v, %v", names, problems, err)
	}
	if names, problems, err := new(Brand).LegacyNames(); names != nil || problems != nil || err != nil {
		t.Errorf("without a file: %v, %v, %v", names, problems, err)
	}
	huge := filepath.Join(dir, "huge.txt")
	if err := os.WriteFile(huge, make([]byte, maxFile+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := (&Brand{LegacyFile: huge}).LegacyNames(); err == nil || !strings.HasSuffix(err.Error(), "huge.txt is larger than 16 MiB") {
		t.Errorf("a file that is too large: %v", err)
	}
}

// A large provider has tens of thousands of old names, and a reload shall not be felt.
func BenchmarkLegacyNames(b *testing.B) {
	dir := b.TempDir()
	var list bytes.Buffer
	for i := range 50_000 {
		fmt.Fprintf(&list, "imap.customer-%d.example\n", i)
	}
	path := filepath.Join(dir, "names.txt")
	if err := os.WriteFile(path, list.Bytes(), 0o600); err != nil {
		b.Fatal(err)
	}
	c := &Config{Brands: []Brand{{Name: "a", LegacyFile: path}}}
	for b.Loop() {
		c.Check(time.Time{})
	}
}

// Whoever names the wrong file, a log or a binary one, is told so; the program that watches it
// does not keep each of its lines.
func TestLegacyFileIsTheWrongOne(t *testing.T) {
	path := filepath.Join(t.TempDir(), "names.txt")
	const lines = 300_000
	if err := os.WriteFile(path, bytes.Repeat([]byte("!\n"), lines), 0o600); err != nil {
		t.Fatal(err)
	}
	c := &Config{Brands: []Brand{{Name: "a", LegacyFile: path}}}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	problems := c.Check(time.Time{})
	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; got > lines*250 {
		t.Errorf("reading %d wrong lines takes %d bytes", lines, got)
	}
	told := slices.DeleteFunc(slices.Clone(problems), func(p Problem) bool { return p.File != path })
	if len(told) != mostTold+1 || told[mostTold].Line != mostTold+1 || told[mostTold].Message != fmt.Sprintf("this and %d more lines are wrong as well", lines-mostTold-1) {
		t.Errorf("told are %v", told)
	}
}

// FuzzLegacyNames looks for lists that make the reader panic, for names in them that are
// none, and for faults at places outside them.
func FuzzLegacyNames(f *testing.F) {
	for _, s := range []string{"", "a.example\n", "# a\r\nA.Example. # b\n\n", "imap.*\n*.example\n", "\ufeffa\n", "\xff\xfe\n", "b\u00fccher.example c", "\u2028", " \t\v\f", "1.2.3.4\n::1\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		names, bad := readNames("n.txt", data)
		for _, n := range names {
			var h Host
			if err := h.UnmarshalText([]byte(n.name)); err != nil || h != n.name || strings.Contains(string(n.name), "*") {
				t.Errorf("took %q: %v", n.name, err)
			}
		}
		for _, p := range bad.told() {
			if p.Line < 1 || p.Line > 1+bytes.Count(data, []byte("\n")) || p.Column < 1 || p.Column > len(data) || strings.ContainsAny(p.String(), "\n\r\x00\x1b") {
				t.Errorf("%q", p)
			}
		}
		if got := len(bad.told()); got > mostTold+1 || got < min(bad.count, mostTold+1) {
			t.Errorf("%d problems of %d are told", got, bad.count)
		}
	})
}

// The key of an account is read with and without padding, and no error shows any of it.
func TestAccountKey(t *testing.T) {
	dir := t.TempDir()
	fixtures(t, dir)
	if key, err := (&Account{KeyFile: filepath.Join(dir, "padded.key")}).Key(); string(key) != "secret key!" || err != nil {
		t.Errorf("got %q, %v", key, err)
	}
	if key, err := (&Account{KeyFile: filepath.Join(dir, "eab.key")}).Key(); len(key) != 48 || err != nil {
		t.Errorf("got %d bytes, %v", len(key), err)
	}
	path := filepath.Join(dir, "k")
	for _, content := range []string{"", "\n", "=", "a b", "c2VjcmV0IGtleSE\nc2VjcmV0IGtleSE\n", "c2VjcmV0IGtleS+"} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if key, err := (&Account{KeyFile: path}).Key(); err == nil || strings.Contains(err.Error(), "2Vjcm") {
			t.Errorf("%q: %q, %v", content, key, err)
		}
	}
}
