package config

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// A legacy file is a list that a customer database writes: one host name in each line, # up
// to the end of a line is a comment. It is no YAML, because it has tens of thousands of
// lines, and because whoever writes it has nothing to quote.

// mostTold bounds how many lines of a legacy file are told: if the wrong file is named,
// every line of it is wrong.
const mostTold = 10

// LegacyNames reads the brand's file of old host names. Lines that are none are left out, and
// the first of them are problems; without a file there are no names. The error says that there
// is no reading it at all.
func (b *Brand) LegacyNames() (names []Host, problems Problems, err error) {
	placed, faults, err := b.legacyLines()
	for _, n := range placed {
		names = append(names, n.name)
	}
	return names, faults.first, err
}

// legacyLines is LegacyNames with the lines where they stand.
func (b *Brand) legacyLines() ([]placedName, faults, error) {
	if b.LegacyFile == "" {
		return nil, faults{}, nil
	}
	data, err := readFile(b.LegacyFile, maxFile)
	if err != nil {
		return nil, faults{}, err
	}
	if len(data) > maxFile {
		return nil, faults{}, wrong{b.LegacyFile + " is larger than 16 MiB", "is it the right one?"}
	}
	names, faults := readNames(b.LegacyFile, data)
	return names, faults, nil
}

// placedName is a host name with its line.
type placedName struct {
	name Host
	line int
}

// readNames reads the lines of a legacy file.
func readNames(file string, data []byte) (names []placedName, bad faults) {
	data = bytes.TrimPrefix(data, []byte("\ufeff")) // as some editors leave it
	line := 0
	for text := range bytes.Lines(data) {
		line++
		text, _, _ = bytes.Cut(text, []byte("#"))
		word := bytes.TrimSpace(text)
		if len(word) == 0 {
			continue
		}
		var h Host
		if err := h.UnmarshalText(word); err != nil {
			bad.add(func() Problem {
				return Problem{File: file, Line: line, Column: columnOf(text, word),
					Message: quote(string(word)) + " is not a host name", Cure: cureOfName(string(word))}
			})
			continue
		}
		names = append(names, placedName{h, line})
	}
	return names, bad
}

// columnOf is the column of a word in its line, in characters.
func columnOf(line, word []byte) int { return 1 + utf8.RuneCount(line[:bytes.Index(line, word)]) }

// cureOfName says what to do with a line that is no host name.
func cureOfName(word string) string {
	var p Pattern
	switch {
	case p.UnmarshalText([]byte(word)) == nil:
		return "patterns belong into the key legacy"
	case strings.ContainsAny(word, " \t,;"):
		return "write one name in each line"
	}
	return "write one like imap.example.org; its letters outside ASCII as xn--..."
}

// faults are the problems of a file: the first of them, and how many there are. A binary file has
// millions, and all of them would fill the memory of a running program.
type faults struct {
	first Problems
	count int
}

// add counts a problem, which is made only if it will be told.
func (f *faults) add(p func() Problem) {
	if f.count++; len(f.first) <= mostTold {
		f.first = append(f.first, p())
	}
}

// and joins the problems of two readings of a file, in the order of their places.
func (f faults) and(other faults) faults {
	first := slices.Concat(f.first, other.first).sorted()
	return faults{first[:min(len(first), mostTold+1)], f.count + other.count}
}

// told gives the first problems; the last of them says how many more there are.
func (f faults) told() Problems {
	if f.count > mostTold+1 {
		f.first[mostTold].Message = fmt.Sprintf("this and %d more lines are wrong as well", f.count-mostTold-1)
		f.first[mostTold].Cure = "is it the right file?"
	}
	return f.first
}
