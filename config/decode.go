package config

import (
	"bytes"
	"encoding"
	"errors"
	"fmt"
	"io"
	"math"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
	"go.yaml.in/yaml/v4/plugin/loaderlimits"

	"mailreeve/policy"
)

// Bounds of a file. The longest known, a policy with an exception for each of some ten
// thousand accounts, is a tenth of it.
const (
	maxFile  = 16 << 20
	maxDepth = 32
)

// enum is a string type with a closed set of values. It is told by its method, so that
// other packages can have enums without importing this one.
type enum interface{ Values() []string }

// cured is an error that knows what to do about it. It is told by its method as well.
type cured interface {
	error
	Cure() string
}

// Decode reads a strict YAML file into the struct that into points to, and reports every
// problem that it finds, not only the first; if one is an error, the struct is of no use.
// Keys are those of the `yaml` tags; unknown and repeated keys are refused, and so are
// anchors, aliases, merge keys, type tags and a second document: a file says each thing
// once, where it applies. Fields may be structs, pointers, lists, maps with string keys,
// strings, bools, integers, [time.Duration] (with d for days), [netip.Prefix], string types
// with a method Values() []string that lists all values, and anything that implements
// [encoding.TextUnmarshaler]; an error of that may have a method Cure() string. A struct
// may have one field with the tag `bare`, and no key, for what stands in its place where
// that is no mapping.
//
// A key that is left out gets the value of the tag `default`, or else the zero value; with
// the tag `required:"true"` it is a problem. The tags `min` and `max` bound a number,
// written as in the file. The tags `doc`, `example` and `more` are for [Schema] and
// [Example].
func Decode(name string, data []byte, into any) (*Source, Problems) {
	d := &decoder{src: &Source{File: name, places: map[string]place{"": {1, 1}}}}
	if root := d.parse(data); root != nil {
		d.value("", root, reflect.ValueOf(into).Elem())
	}
	return d.src, d.problems.sorted()
}

// decoder is the state of one Decode.
type decoder struct {
	src      *Source
	problems Problems
}

// fail records an error at a node.
func (d *decoder) fail(n *yaml.Node, key, message, cure string) {
	d.failAt(place{n.Line, n.Column}, key, message, cure)
}

// failAt records an error at a place.
func (d *decoder) failAt(at place, key, message, cure string) {
	d.problems = append(d.problems, Problem{File: d.src.File, Line: at.line, Column: at.column,
		Key: key, Message: message, Cure: cure})
}

// parse reads the one document of a file and returns its content, or nil after a problem.
func (d *decoder) parse(data []byte) *yaml.Node {
	if len(data) > maxFile {
		d.failAt(place{1, 1}, "", "the file is larger than 16 MiB", "is it the right one?")
		return nil
	}
	if at, bad := notText(data); bad {
		d.failAt(at, "", "this is not text in UTF-8", "save the file as UTF-8 without control characters")
		return nil
	}
	limits := loaderlimits.New(loaderlimits.DepthValue(maxDepth))
	loader, err := yaml.NewLoader(bytes.NewReader(data), yaml.WithPlugin(limits))
	if err != nil {
		d.failAt(place{1, 1}, "", "the YAML reader does not start: "+err.Error(), "")
		return nil
	}
	var document, second yaml.Node
	switch err := loader.Load(&document); {
	case err == io.EOF:
		d.failAt(place{1, 1}, "", "the file is empty", "start from the example")
		return nil
	case err != nil:
		d.syntax(data, err)
		return nil
	}
	switch err := loader.Load(&second); {
	case err == nil:
		d.fail(&second, "", "a second document begins here", "leave one document in the file, without --- and ... lines")
	case err != io.EOF:
		d.syntax(data, err)
	}
	return document.Content[0]
}

// syntax records an error of the YAML parser.
func (d *decoder) syntax(data []byte, err error) {
	var at place
	message := err.Error()
	if load := new(yaml.LoadError); errors.As(err, &load) {
		at, message = place{load.Mark.Line, load.Mark.Column}, load.Message
		if load.ContextMsg != "" {
			message = load.ContextMsg + ", " + message
		}
	}
	cure := "look at indentation, brackets and quotes on this line and above"
	if tabAt(data, at) {
		message, cure = "a tab stands in the indentation", "indent with spaces"
	}
	d.failAt(at, "", "not valid YAML: "+message, cure)
}

// tabAt says whether a line is indented with a tab up to the place of an error (YAML 1.2
// section 6.1 forbids it).
func tabAt(data []byte, at place) bool {
	for range at.line - 1 {
		_, data, _ = bytes.Cut(data, []byte("\n"))
	}
	indentation := data[:len(data)-len(bytes.TrimLeft(data, " \t"))]
	tab := bytes.IndexByte(indentation, '\t')
	return tab >= 0 && tab < at.column
}

// notText finds the first byte that is not UTF-8, or a control character, which YAML does
// not allow.
func notText(data []byte) (at place, bad bool) {
	at = place{1, 1}
	for len(data) > 0 {
		r, size := utf8.DecodeRune(data)
		switch {
		case r == utf8.RuneError && size == 1, r < ' ' && r != '\t' && r != '\r' && r != '\n', r >= 0x7f && r < 0xa0 && r != 0x85:
			return at, true
		case r == '\n':
			at = place{at.line + 1, 0}
		}
		at.column++
		data = data[size:]
	}
	return at, false
}

// value decodes a node into v, a settable value that holds its zero value.
func (d *decoder) value(key string, n *yaml.Node, v reflect.Value) {
	if key != "" {
		d.src.places[key] = place{n.Line, n.Column}
	}
	switch {
	case n.Kind == yaml.AliasNode || n.Anchor != "":
		d.fail(n, key, "anchors (&) and aliases (*) are not used here", "write the value out")
		return
	case n.Style&yaml.TaggedStyle != 0:
		d.fail(n, key, "tags (!) are not used here", "leave it out")
		return
	case n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null":
		d.fail(n, key, "there is no value", "give one, or leave the key out")
		return
	}
	if v.Kind() == reflect.Pointer {
		v.Set(reflect.New(v.Type().Elem()))
		v = v.Elem()
	}
	if bare, ok := bareOf(v); ok && n.Kind != yaml.MappingNode {
		v = bare
	}
	switch n.Kind {
	case yaml.MappingNode:
		switch v.Kind() {
		case reflect.Struct:
			if len(fieldsOf(v.Type())) > 0 {
				d.object(key, n, v)
				return
			}
		case reflect.Map:
			d.dictionary(key, n, v)
			return
		}
	case yaml.SequenceNode:
		if v.Kind() == reflect.Slice {
			d.list(key, n, v)
			return
		}
	case yaml.ScalarNode:
		if isText(v.Type()) || isPlain(v.Type()) {
			d.scalar(key, n, v)
			return
		}
	}
	found := map[yaml.Kind]string{yaml.MappingNode: "a mapping", yaml.SequenceNode: "a list"}[n.Kind]
	if found == "" {
		found = "the single value " + quote(n.Value)
	}
	d.fail(n, key, found+" stands where "+kindName(v.Type())+" belongs", "see the example for its form")
}

// bareOf is the field of a struct with the tag `bare`.
func bareOf(v reflect.Value) (bare reflect.Value, ok bool) {
	if v.Kind() != reflect.Struct {
		return bare, false
	}
	for i := range v.NumField() {
		if _, ok := v.Type().Field(i).Tag.Lookup("bare"); ok {
			return v.Field(i), true
		}
	}
	return bare, false
}

// kindName says what belongs into a field of this type.
func kindName(t reflect.Type) string {
	switch {
	case isText(t) || isPlain(t):
		return "a single value"
	case t.Kind() == reflect.Slice:
		return "a list"
	}
	return "a mapping"
}

// object decodes a mapping into a struct.
func (d *decoder) object(key string, n *yaml.Node, v reflect.Value) {
	fields := fieldsOf(v.Type())
	var names []string
	for _, f := range fields {
		names = append(names, f.name)
	}
	given := d.members(key, n, func(name string, at, value *yaml.Node) {
		i := slices.Index(names, name)
		if i < 0 {
			d.fail(at, child(key, name), "there is no such key", policy.Suggest(name, names))
			return
		}
		f := fields[i]
		before := len(d.problems)
		d.value(child(key, name), value, v.Field(f.index))
		if len(d.problems) == before {
			d.bounds(child(key, name), value, f, v.Field(f.index))
		}
	})
	for _, f := range fields {
		switch {
		case given[f.name]:
		case f.required:
			d.fail(n, child(key, f.name), "it is missing", "add it, "+f.like())
		default:
			setDefault(f, v.Field(f.index))
		}
	}
}

// dictionary decodes a mapping into a map.
func (d *decoder) dictionary(key string, n *yaml.Node, v reflect.Value) {
	t := v.Type()
	v.Set(reflect.MakeMap(t))
	d.members(key, n, func(name string, at, value *yaml.Node) {
		k, e := reflect.New(t.Key()).Elem(), reflect.New(t.Elem()).Elem()
		if err := setText(k, name); err != nil {
			message, cure := explain(err)
			d.fail(at, child(key, name), message, cure)
			return
		}
		d.value(child(key, name), value, e)
		v.SetMapIndex(k, e)
	})
}

// members calls each for every key of a mapping and its value, and returns the keys. Keys
// that are no strings, or repeated, are problems.
func (d *decoder) members(key string, n *yaml.Node, each func(name string, at, value *yaml.Node)) map[string]bool {
	given := map[string]bool{}
	lines := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		at, value := n.Content[i], n.Content[i+1]
		name := at.Value
		switch {
		case at.Kind == yaml.ScalarNode && at.ShortTag() == "!!merge":
			d.fail(at, key, "merge keys (<<) are not used here", "write the keys out")
		case at.Kind != yaml.ScalarNode || at.ShortTag() != "!!str" || at.Anchor != "" || at.Style&yaml.TaggedStyle != 0:
			d.fail(at, key, "this is not a plain key", "write a word and a colon; a number as a key needs quotes")
		case given[name]:
			d.fail(at, child(key, name), fmt.Sprintf("the key stands twice, first on line %d", lines[name]), "leave one of them")
		default:
			given[name], lines[name] = true, at.Line
			each(name, at, value)
		}
	}
	return given
}

// list decodes a list into a slice.
func (d *decoder) list(key string, n *yaml.Node, v reflect.Value) {
	v.Set(reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content)))
	for i, e := range n.Content {
		d.value(element(key, i), e, v.Index(i))
	}
}

// scalar decodes a single value. What YAML takes for a number or a date is not silently a
// string: 1.10 would be 1.1 to another reader.
func (d *decoder) scalar(key string, n *yaml.Node, v reflect.Value) {
	tag := n.ShortTag()
	if !isText(v.Type()) {
		switch v.Kind() {
		case reflect.String:
			if tag != "!!str" {
				d.fail(n, key, n.Value+" is not text but "+strings.TrimPrefix(tag, "!!"), `put it in quotes: "`+n.Value+`"`)
				return
			}
		case reflect.Bool, reflect.Int, reflect.Int64:
			if n.Style != 0 {
				d.fail(n, key, "this is text, in quotes", "leave out the quotes")
				return
			}
		}
	}
	if err := setText(v, n.Value); err != nil {
		message, cure := explain(err)
		d.fail(n, key, message, cure)
	}
}

// bounds holds a value against the tags of its field: required, default, min and
// max. What must be there, or has a default, is not empty.
func (d *decoder) bounds(key string, n *yaml.Node, f field, v reflect.Value) {
	if (f.required || f.def != "") && isEmpty(v) {
		d.fail(n, key, "it is empty", "write it "+f.like())
	}
	if !v.CanInt() {
		return
	}
	limit := func(text string) int64 {
		bound := reflect.New(v.Type()).Elem()
		if err := setText(bound, text); err != nil {
			panic(fmt.Sprintf("config: field %s: bound %q: %v", f.name, text, err)) // a tag, so a test sees it
		}
		return bound.Int()
	}
	switch {
	case f.min != "" && f.min == f.max && v.Int() != limit(f.min):
		d.fail(n, key, n.Value+" is unknown here", "write "+f.min)
	case f.min != "" && v.Int() < limit(f.min):
		d.fail(n, key, n.Value+" is too little", "write "+f.min+" or more")
	case f.max != "" && v.Int() > limit(f.max):
		d.fail(n, key, n.Value+" is too much", "write "+f.max+" or less")
	}
}

// isEmpty says whether a value that must be there says nothing.
func isEmpty(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Slice, reflect.Map, reflect.String:
		return v.Len() == 0
	}
	return false
}

// setDefault gives a field that the file leaves out its default, and so on inwards.
func setDefault(f field, v reflect.Value) {
	if f.def != "" {
		if err := setText(v, f.def); err != nil {
			panic(fmt.Sprintf("config: field %s: default %q: %v", f.name, f.def, err)) // a tag, so a test sees it
		}
		return
	}
	if v.Kind() == reflect.Struct && !isText(v.Type()) {
		for _, inner := range fieldsOf(v.Type()) {
			setDefault(inner, v.Field(inner.index))
		}
	}
}

var (
	durationType = reflect.TypeFor[time.Duration]()
	prefixType   = reflect.TypeFor[netip.Prefix]()
)

// isText says whether values of the type are written as text with a form of its own, which
// setText knows.
func isText(t reflect.Type) bool {
	return t == durationType || t.Implements(reflect.TypeFor[enum]()) ||
		reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextUnmarshaler]())
}

// isPlain says whether values of the type are YAML strings, booleans or integers.
func isPlain(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.String, reflect.Bool, reflect.Int, reflect.Int64:
		return true
	}
	return false
}

// setText sets v from a single value's text.
func setText(v reflect.Value, text string) error {
	switch v.Type() {
	case durationType:
		d, err := ParseDuration(text)
		v.SetInt(int64(d))
		return err
	case prefixType:
		p, err := parsePrefix(text)
		v.Set(reflect.ValueOf(p))
		return err
	}
	if u, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok {
		return u.UnmarshalText([]byte(text))
	}
	if e, ok := v.Interface().(enum); ok {
		if !slices.Contains(e.Values(), text) {
			return wrong{quote(text) + " is not one of its values", policy.Suggest(text, e.Values())}
		}
		v.SetString(text)
		return nil
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(text)
	case reflect.Bool:
		if text != "true" && text != "false" {
			return wrong{quote(text) + " is neither true nor false", "write one of them"}
		}
		v.SetBool(text == "true")
	case reflect.Int, reflect.Int64:
		i, err := strconv.ParseInt(text, 10, 64)
		if err != nil || v.OverflowInt(i) {
			return wrong{quote(text) + " is not a whole number", "write digits only"}
		}
		v.SetInt(i)
	}
	return nil
}

// wrong is a [cured] error.
type wrong struct{ message, cure string }

func (w wrong) Error() string { return w.message }

// Cure says what to do.
func (w wrong) Cure() string { return w.cure }

// explain takes an error apart.
func explain(err error) (message, cure string) {
	var c cured
	if errors.As(err, &c) {
		cure = c.Cure()
	}
	return err.Error(), cure
}

// ParseDuration reads a duration in Go's form, with days in front: 40m, 7d, 1d12h.
func ParseDuration(text string) (time.Duration, error) {
	const day = 24 * time.Hour
	bad := wrong{quote(text) + " is not a duration", "write a number with ms, s, m, h or d, like 30s, 40m or 7d"}
	var total time.Duration
	rest := text
	if days, after, ok := strings.Cut(text, "d"); ok {
		n, err := strconv.ParseUint(days, 10, 32)
		if err != nil || n > uint64(math.MaxInt64/day) {
			return 0, bad
		}
		if total, rest = time.Duration(n)*day, after; rest == "" {
			return total, nil
		}
	}
	d, err := time.ParseDuration(rest)
	if err != nil || d < 0 || strings.HasPrefix(rest, "+") || total+d < 0 {
		return 0, bad
	}
	return total + d, nil
}

// parsePrefix reads a network in CIDR form, without host bits (RFC 4632 section 3.1).
func parsePrefix(text string) (netip.Prefix, error) {
	if ip, err := netip.ParseAddr(text); err == nil {
		return netip.Prefix{}, wrong{quote(text) + " is an address, not a network",
			fmt.Sprintf("write %s/%d for this one address", ip, ip.BitLen())}
	}
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return netip.Prefix{}, wrong{quote(text) + " is not a network", "write one like 10.0.0.0/24 or 2001:db8::/32"}
	}
	if p != p.Masked() {
		return netip.Prefix{}, wrong{quote(text) + " has bits set behind its length", "write " + p.Masked().String()}
	}
	return p, nil
}

// quote quotes what the file says, shortened.
func quote(s string) string { return strconv.Quote(abbreviate(s)) }

// abbreviate shortens what would fill the screen.
func abbreviate(s string) string {
	const most = 60
	if utf8.RuneCountInString(s) <= most {
		return s
	}
	return string([]rune(s)[:most]) + "..."
}
