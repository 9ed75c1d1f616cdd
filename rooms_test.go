// Package mailreeve holds no code: this file guards how the rooms of the house
// lie to each other.
package mailreeve

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// rooms are the packages and what each may import of the house, in code that is
// not a test's, with the reason. A front imports no other front: what two of
// them need is the engine's. What is not listed may import nothing.
var rooms = map[string][]string{
	"policy":    {},                              // pure: no I/O, and so usable by everybody
	"events":    {},                              // a record and its file
	"certs":     {},                              // asked in every handshake, knows no session
	"web":       {"policy"},                      // policy for what is told of an address alone; pages and challenges are made out of plain values
	"fixes":     {"policy"},                      // words for its findings; otherwise plain values in, texts out
	"demo":      {},                              // a mail provider that knows nothing of the proxy before it
	"interop":   {},                              // real servers and clients; its tests run the built program
	"bench":     {"interop", "outreach/traffic"}, // starts servers as the tests do, and writes events; all else it measures from outside
	"config":    {"certs", "policy"},             // policy for the types of its file
	"proxy":     {"policy", "events"},
	"imapfront": {"proxy", "policy"}, // policy for the names of mechanisms alone
	"popfront":  {"proxy", "policy"},
	"smtpfront": {"proxy", "policy"},

	"proxy/proxytest":  {"proxy", "policy", "events"},
	"outreach":         {"policy", "events", "config", "fixes", "outreach/logs"}, // never a front: it reads what they wrote
	"outreach/logs":    {"events", "policy"},                                     // lines become events, with policy's names of facts
	"outreach/traffic": {"events", "policy", "fixes"},                            // customers made up; fixes for names of classes. Not outreach: it is held against this
	"cmd/mailreeve":    {"certs", "config", "demo", "events", "fixes", "imapfront", "outreach", "outreach/logs", "policy", "popfront", "proxy", "smtpfront", "web"},
}

func TestRooms(t *testing.T) {
	documented := map[string]bool{}
	for file, imports := range sources(t) {
		room := filepath.ToSlash(filepath.Dir(file))
		allowed, known := rooms[room]
		if !known {
			t.Errorf("%s: the room %s is not listed here", file, room)
		}
		if strings.Count(room, "/") > 1 {
			t.Errorf("%s: a path has two parts at most", file)
		}
		for _, path := range imports.house {
			if !slices.Contains(allowed, path) {
				t.Errorf("%s: %s may not import %s", file, room, path)
			}
		}
		documented[room] = documented[room] || imports.doc
	}
	for room := range rooms {
		if !documented[room] {
			t.Errorf("%s has no package comment", room)
		}
	}
}

// source is what matters here of a file.
type source struct {
	house []string // imports of the house, without the module's name
	doc   bool     // it has the package comment
}

func sources(t *testing.T) map[string]source {
	t.Helper()
	found := map[string]source{}
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && path != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata") {
			return fs.SkipDir
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly|parser.ParseComments)
		if err != nil {
			return err
		}
		s := source{doc: f.Doc != nil}
		for _, i := range f.Imports {
			name, err := strconv.Unquote(i.Path.Value)
			if err != nil {
				return err
			}
			if house, ok := strings.CutPrefix(name, "mailreeve/"); ok {
				s.house = append(s.house, house)
			}
		}
		found[path] = s
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}
