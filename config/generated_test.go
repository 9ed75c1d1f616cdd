package config

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v4"

	"mailreeve/certs"
)

var update = flag.Bool("update", false, "write the files that are compared with")

// TestGenerated compares the schema and the example with what the types say.
func TestGenerated(t *testing.T) {
	schema, err := SchemaFile()
	if err != nil {
		t.Fatal(err)
	}
	golden(t, schemaFile, schema)
	golden(t, exampleFile, ExampleFile())
	if schema, err = PolicySchemaFile(); err != nil {
		t.Fatal(err)
	}
	golden(t, policySchemaFile, schema)
}

// golden compares with a committed file, or writes it.
func golden(t *testing.T, file string, want []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := os.ReadFile(file); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s is out of date (%v); run go generate ./config", file, err)
	}
}

// commentedOut is a key in the example that most files leave out.
var commentedOut = regexp.MustCompile(`(?m)^( *)# ([a-z_]+:( .*)?)$`)

// examples are the example as it is, and with every key in force.
func examples(t testing.TB) map[string][]byte {
	data, err := os.ReadFile(exampleFile)
	if err != nil {
		t.Fatal(err)
	}
	head := bytes.Index(data, []byte("\n\n"))
	return map[string][]byte{"as it is": data, "every key": append(data[:head:head], commentedOut.ReplaceAll(data[head:], []byte("$1$2"))...)}
}

// TestExample decodes the example, which must be right in every respect but for the files
// that it names.
func TestExample(t *testing.T) {
	ca, err := certs.NewAuthority("Test authority")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cert, err := ca.Issue(certs.Order{Hosts: []string{"imap.example.org", "pop.example.org", "smtp.example.org"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := certs.Write(cert, certs.Pair{Cert: filepath.Join(dir, "mail.pem")}); err != nil {
		t.Fatal(err)
	}
	c, err := Parse(filepath.Join(dir, "mailreeve.yaml"), examples(t)["as it is"])
	if err != nil {
		t.Fatal(err)
	}
	if problems := c.Check(time.Now()); problems != nil {
		t.Error(problems)
	}

	every, err := Parse("mailreeve.yaml", examples(t)["every key"])
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range fieldsWithout(t, examples(t)["every key"]) {
		t.Errorf("the example leaves out %s", f)
	}
	if every.Hostname != "mail.example.org" || every.Backends[IMAP].Master.User != "proxy" || every.Brands[0].Backends[IMAP].Addresses[0].Port != 143 {
		t.Errorf("what was commented out is not in force: %+v", every)
	}
}

// fieldsWithout lists the keys of all types that a file does not have anywhere.
func fieldsWithout(t *testing.T, data []byte) (missing []string) {
	s := &schema{defs: map[string]any{}}
	schema, err := json.Marshal([]any{s.object(reflect.TypeFor[Config]()), s.defs})
	if err != nil {
		t.Fatal(err)
	}
	for _, match := range regexp.MustCompile(`"([a-z_]+)":\{[^{}]*"description"`).FindAllSubmatch(schema, -1) {
		if key := string(match[1]); !strings.Contains(string(data), key+":") {
			missing = append(missing, key)
		}
	}
	return missing
}

// validator validates with a committed schema.
func validator(t *testing.T, file string) func(data []byte) error {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	compiler := jsonschema.NewCompiler()
	if err := compiler.AddResource(file, document); err != nil {
		t.Fatal(err)
	}
	compiled, err := compiler.Compile(file)
	if err != nil {
		t.Fatal(err)
	}
	return func(data []byte) error {
		var value any
		if err := yaml.Load(data, &value); err != nil {
			t.Fatal(err)
		}
		return compiled.Validate(value)
	}
}

// refusesEdits replaces a text in a file that is right, each time by one that is wrong.
func refusesEdits(t *testing.T, name string, data []byte, validate func([]byte) error, edits [][2]string) {
	t.Helper()
	for _, edit := range edits {
		changed := strings.Replace(string(data), edit[0], edit[1], 1)
		if changed == string(data) {
			t.Errorf("%s: there is no %q", name, edit[0])
		} else if validate([]byte(changed)) == nil {
			t.Errorf("%s: accepted with %q", name, edit[1])
		}
	}
}

// TestSchema validates with the committed schema: the examples, and some files that it must refuse.
func TestSchema(t *testing.T) {
	validate := validator(t, schemaFile)
	for name, data := range examples(t) {
		if err := validate(data); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		refusesEdits(t, name, data, validate, [][2]string{
			{"version: 1", "version: 2"},
			{"version: 1", ""},
			{"protocol: imap", "protocol: imaps"},
			{"language: de", "language: fr"},
			{"tls: implicit", "tls: off"},
			{"per_address: 100", "per_address: 0"},
			{"line: 8KiB", "line: 8KB"},
			{"login_timeout: 3m", "login_timeout: 3 minutes"},
			{"\nbackends:", "\nbackend:"},
			{"submission: [smtp", "smtp: [smtp"},
			{"- { address: ':143', ", "- { "},
		})
	}
}
