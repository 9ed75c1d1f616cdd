package config

import (
	"fmt"
	"reflect"
	"strings"
)

// Example makes a commented file of a struct type, which names every key with what it means
// and its default. Keys that most files leave out are commented out. schema is the name of
// the schema file, for editors.
func Example(schema, title string, of any) []byte {
	e := new(example)
	e.line(0, "# yaml-language-server: $schema="+schema)
	e.comment(0, title)
	e.object(0, reflect.TypeOf(of))
	return []byte(e.b.String())
}

// example is a file in the making.
type example struct {
	b   strings.Builder
	out string // before each key: "# " in a part that most files leave out
}

// line writes a line.
func (e *example) line(depth int, text string) {
	e.b.WriteString(strings.Repeat("  ", depth) + text + "\n")
}

// comment writes text in comment lines of at most 100 characters.
func (e *example) comment(depth int, text string) {
	most := 100 - 2*depth
	line := "#"
	for word := range strings.FieldsSeq(text) {
		if len(line)+1+len(word) > most {
			e.line(depth, line)
			line = "#"
		}
		line += " " + word
	}
	e.line(depth, line)
}

// object writes the keys of a struct.
func (e *example) object(depth int, t reflect.Type) {
	for _, f := range fieldsOf(t) {
		if depth == 0 {
			e.b.WriteByte('\n')
		}
		e.comment(depth, f.describe())
		inner, kind := f.typ, f.typ.Kind()
		if kind == reflect.Slice || kind == reflect.Map {
			inner = inner.Elem()
		}
		if inner.Kind() == reflect.Pointer {
			inner = inner.Elem()
		}
		switch {
		case f.off != "":
			e.line(depth, "# "+f.name+": "+f.off)
		case inner.Kind() != reflect.Struct || isText(inner):
			e.line(depth, e.out+f.name+": "+f.sample())
		case kind == reflect.Pointer:
			out := e.out
			e.out = "# "
			e.line(depth, e.out+f.name+":")
			e.object(depth+1, inner)
			e.out = out
		case kind == reflect.Struct:
			e.line(depth, f.name+":")
			e.object(depth+1, inner)
		case kind == reflect.Map:
			e.line(depth, f.name+":")
			e.line(depth+1, f.key+":")
			e.object(depth+2, inner)
			e.further(depth+1, "", f.more)
		case kind == reflect.Slice:
			e.line(depth, f.name+":")
			e.line(depth+1, "-")
			e.object(depth+2, inner)
			e.further(depth+1, "- ", f.more)
		}
	}
}

// further writes the lines of a tag.
func (e *example) further(depth int, before, lines string) {
	for text := range strings.Lines(lines) {
		e.line(depth, before+strings.TrimSpace(text))
	}
}

// describe says all that is known of a key.
func (f field) describe() string {
	text := f.doc
	if en, ok := reflect.Zero(f.typ).Interface().(enum); ok {
		text += " One of " + strings.Join(en.Values(), ", ") + "."
	}
	switch {
	case f.min != "" && f.min == f.max:
		text += fmt.Sprintf(" Always %s.", f.min)
	case f.min != "":
		text += fmt.Sprintf(" From %s to %s.", f.min, f.max)
	}
	switch {
	case f.def != "":
		text += " Default: " + f.def + "."
	case f.required:
		text += " Required."
	}
	return text
}

// Names of the files that are made from the types.
const (
	schemaFile  = "mailreeve.v1.schema.json"
	exampleFile = "mailreeve.example.yaml"
)

// ExampleFile is the configuration with every key explained, a file to begin with.
func ExampleFile() []byte {
	return Example(schemaFile, "Configuration of Mailreeve. Lines that are commented out show keys that most files leave out. "+
		"Relative paths begin at the directory of this file.", Config{})
}

// SchemaFile is the JSON Schema of the configuration, for editors.
func SchemaFile() ([]byte, error) {
	return Schema(schemaFile, "Configuration of Mailreeve", Config{})
}
