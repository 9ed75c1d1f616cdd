package config

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
)

// field is one key of a struct, with what its tags say.
type field struct {
	index    int
	typ      reflect.Type
	name     string // its key
	doc      string
	def      string // default, as written in the file
	min, max string // bounds, as written in the file
	example  string // value in the example, if not the default
	off      string // value in the example, commented out
	key      string // for a map: the key that the example has
	more     string // for a list or a map: further lines of the example
	required bool
}

// fieldsOf lists the keys of a struct type, in their order.
func fieldsOf(t reflect.Type) []field {
	var fields []field
	for i := range t.NumField() {
		f := t.Field(i)
		name, ok := f.Tag.Lookup("yaml")
		if !ok {
			continue
		}
		tag := f.Tag.Get
		fields = append(fields, field{index: i, typ: f.Type, name: name, doc: tag("doc"), def: tag("default"), min: tag("min"), max: tag("max"),
			example: tag("example"), off: tag("off"), key: tag("key"), more: tag("more"), required: tag("required") != ""})
	}
	return fields
}

// sample is a value for the key, in YAML.
func (f field) sample() string {
	for _, s := range []string{f.example, f.def, f.off} {
		if s != "" {
			return s
		}
	}
	return ""
}

// like ends a cure with a sample.
func (f field) like() string {
	if s := f.sample(); s != "" {
		return "like " + f.name + ": " + s
	}
	return "as in the example"
}

// described is a type that says itself how its values are written. It is told by its method.
type described interface{ JSONSchema() map[string]any }

// Schema makes the JSON Schema of a struct type, which editors use while a file is written.
// It says less than the decoder: what it refuses is wrong, what it accepts need not be
// right. id is the name of the schema file.
func Schema(id, title string, of any) ([]byte, error) {
	s := &schema{defs: map[string]any{}}
	root := s.object(reflect.TypeOf(of))
	root["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	root["$id"] = id
	root["title"] = title
	root["$defs"] = s.defs
	data, err := json.MarshalIndent(root, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("making the schema of %T: %w", of, err)
	}
	return append(data, '\n'), nil
}

// schema collects the definitions of the struct types that it meets.
type schema struct{ defs map[string]any }

// object describes a struct.
func (s *schema) object(t reflect.Type) map[string]any {
	properties, required := map[string]any{}, []string{}
	for _, f := range fieldsOf(t) {
		p := s.value(f.typ)
		p["description"] = f.doc
		if f.def != "" {
			p["default"] = f.jsonDefault()
		}
		if k := f.typ.Kind(); isPlain(f.typ) && !isText(f.typ) && k != reflect.String {
			for keyword, bound := range map[string]string{"minimum": f.min, "maximum": f.max} {
				if bound != "" {
					p[keyword] = json.Number(bound)
				}
			}
		}
		if f.required {
			required = append(required, f.name)
			switch {
			case f.typ.Kind() == reflect.Slice:
				p["minItems"] = 1
			case f.typ.Kind() == reflect.Map:
				p["minProperties"] = 1
			}
		}
		properties[f.name] = p
	}
	return map[string]any{"type": "object", "properties": properties, "required": required, "additionalProperties": false}
}

// jsonDefault is the default as JSON has it.
func (f field) jsonDefault() any {
	if !isText(f.typ) && f.typ.Kind() != reflect.String {
		return json.RawMessage(f.def)
	}
	return f.def
}

// value describes a type.
func (s *schema) value(t reflect.Type) map[string]any {
	if t.Kind() == reflect.Pointer {
		return s.value(t.Elem())
	}
	zero := reflect.New(t).Elem().Interface()
	if d, ok := zero.(described); ok {
		return d.JSONSchema()
	}
	if e, ok := zero.(enum); ok {
		return map[string]any{"type": "string", "enum": e.Values()}
	}
	switch {
	case t == durationType:
		return map[string]any{"type": "string", "pattern": "^([0-9]+d)?([0-9.]+(ms|s|m|h))*$"}
	case t == prefixType:
		return map[string]any{"type": "string", "pattern": "^[0-9A-Fa-f.:]+/[0-9]+$"}
	case isText(t):
		return map[string]any{"type": "string"}
	}
	switch t.Kind() {
	case reflect.Bool:
		return map[string]any{"type": "boolean"}
	case reflect.Int, reflect.Int64:
		return map[string]any{"type": "integer"}
	case reflect.Slice:
		return s.list(t)
	case reflect.Map:
		m := map[string]any{"type": "object", "additionalProperties": s.value(t.Elem())}
		if e, ok := reflect.Zero(t.Key()).Interface().(enum); ok {
			m["propertyNames"] = map[string]any{"enum": e.Values()}
		}
		return m
	case reflect.Struct:
		name := strings.ToLower(t.Name())
		if _, known := s.defs[name]; !known {
			s.defs[name] = nil // so that a type within itself ends here
			s.defs[name] = s.object(t)
		}
		return map[string]any{"$ref": "#/$defs/" + name}
	}
	return map[string]any{"type": "string"}
}

// list describes a slice.
func (s *schema) list(t reflect.Type) map[string]any {
	return map[string]any{"type": "array", "items": s.value(t.Elem())}
}
