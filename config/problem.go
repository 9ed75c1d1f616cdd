package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode"
)

// Severity says what a [Problem] prevents.
type Severity int

const (
	// Error: the file must not come into force.
	Error Severity = iota
	// Warning: the file may come into force, but somebody should look.
	Warning
)

// Problem is one thing wrong with a file, where, and what to do about it.
type Problem struct {
	Severity Severity
	File     string // as it was given to Decode
	Line     int    // from 1; 0 if the place is not known
	Column   int    // from 1, in characters
	Key      string // path of the value, like listeners[2].tls; empty for the file as a whole
	Message  string // what is wrong
	Cure     string // what to do; may be empty
}

// String prints the problem as "file:line:column: key: message; cure", leaving out what is
// not known and marking a warning. It is one line, and nothing in it moves a terminal's cursor:
// a file's name or a certificate's text may come from a stranger.
func (p Problem) String() string {
	var b strings.Builder
	if p.File != "" {
		b.WriteString(p.File)
		if p.Line > 0 {
			fmt.Fprintf(&b, ":%d:%d", p.Line, p.Column)
		}
		b.WriteString(": ")
	}
	if p.Severity == Warning {
		b.WriteString("warning: ")
	}
	if p.Key != "" {
		b.WriteString(p.Key + ": ")
	}
	b.WriteString(p.Message)
	if p.Cure != "" {
		b.WriteString("; " + p.Cure)
	}
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, b.String())
}

// Problems are all problems of a file, in the order of their places. As an error they print
// one per line.
type Problems []Problem

// Error prints one problem per line.
func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// Err returns the problems that are errors, as Problems, or nil if there are none.
func (ps Problems) Err() error {
	var errs Problems
	for _, p := range ps {
		if p.Severity == Error {
			errs = append(errs, p)
		}
	}
	if errs == nil {
		return nil
	}
	return errs
}

// sorted puts problems into the order of their places.
func (ps Problems) sorted() Problems {
	slices.SortStableFunc(ps, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return ps
}

// Source remembers where in a file each value stood, so that a later check can point at it.
type Source struct {
	File   string // as it was given to Decode
	places map[string]place
}

// place is a position in the file, both from 1.
type place struct{ line, column int }

// Problem makes a problem of the value with this key. If the file leaves it out, the place
// is that of what it belongs to.
func (s *Source) Problem(severity Severity, key, message, cure string) Problem {
	p := Problem{Severity: severity, File: s.File, Key: key, Message: message, Cure: cure}
	for up := key; ; up = parent(up) {
		if at, ok := s.places[up]; ok {
			p.Line, p.Column = at.line, at.column
			return p
		}
		if up == "" {
			return p
		}
	}
}

// parent is the key of the value that this one is part of; the whole file's is empty.
func parent(key string) string {
	return key[:max(0, strings.LastIndexAny(key, ".["))]
}

// child is the key of a member of a mapping. A name that would not print well is quoted.
func child(key, name string) string {
	if quoted := quote(name); quoted != `"`+name+`"` {
		name = quoted
	}
	if key == "" {
		return name
	}
	return key + "." + name
}

// element is the key of an element of a list.
func element(key string, i int) string { return fmt.Sprintf("%s[%d]", key, i) }
