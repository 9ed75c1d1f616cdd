package config

import (
	"bytes"
	"fmt"
	"strings"
	"unicode/utf8"
)

// A legacy file is a list that a customer database writes: one host name in each line, # up
// to the end of a line is a comment. It is no YAML, because it has tens of thousands of
// lines, and because whoever writes it has nothing to quote.

// mostTold bounds how many lines of a legacy file are told: if the wrong file is named,
// every line of it is wrong.
const mostTold = 10

// LegacyNames reads the brand's file of old host names. Lines that are none are problems,
// and left out; without a file there are no names. The error says that there is no reading
// it at all.
func (b *Brand) LegacyNames() (names []Host, problems Problems, err error) {
	placed, problems, err := b.legacyLines()
	for _, n := range placed {
		names = append(names, n.name)
	}
	return names, problems, err
}

// legacyLines is LegacyNames with the lines where they stand.
func (b *Brand) legacyLines() ([]placedName, Problems, error) {
	if b.LegacyFile == "" {
		return nil, nil, nil
	}
	data, err := readFile(b.LegacyFile, maxFile)
	if err != nil {
		return nil, nil, err
	}
	if len(data) > maxFile {
		return nil, nil, wrong{b.LegacyFile + " is larger than 16 MiB", "is it the right one?"}
	}
	names, problems := readNames(b.LegacyFile, data)
	return names, problems, nil
}

// placedName is a host name with its line.
type placedName struct {
	name Host
	line int
}

// readNames reads the lines of a legacy file.
func readNames(file string, data []byte) (names []placedName, problems Problems) {
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
			problems = append(problems, Problem{File: file, Line: line, Column: columnOf(text, word),
				Message: quote(string(word)) + " is not a host name", Cure: cureOfName(string(word))})
			continue
		}
		names = append(names, placedName{h, line})
	}
	return names, problems
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

// capped leaves the first problems of a file, and says how many more there are.
func (ps Problems) capped(most int) Problems {
	if len(ps) <= most {
		return ps
	}
	last := ps[most]
	last.Message, last.Cure = fmt.Sprintf("this and %d more lines are wrong as well", len(ps)-most-1), "is it the right file?"
	if len(ps) == most+1 {
		return ps
	}
	return append(ps[:most:most], last)
}
