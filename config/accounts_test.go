package config

import (
	"os"
	"path/filepath"
	"testing"
)

func TestNamesResolve(t *testing.T) {
	file := filepath.Join(t.TempDir(), "aliases.txt")
	if err := os.WriteFile(file, []byte("\ufeff# from the database\nInfo anna\ninfo@example.org\tanna@example.org # the same\r\n\n4711 bert@other.example\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ domain, login, typed, account, send string }{
		{"example.org", "as_typed", "anna", "anna@example.org", "anna"},
		{"example.org", "as_typed", "Anna@Example.ORG", "anna@example.org", "Anna@Example.ORG"},
		{"example.org", "as_typed", "INFO", "anna@example.org", "INFO"},
		{"example.org", "address", "info@example.org", "anna@example.org", "anna@example.org"},
		{"example.org", "address", "Anna", "anna@example.org", "anna@example.org"},
		{"example.org", "bare", "anna@example.org", "anna@example.org", "anna"},
		{"example.org", "bare", "anna@example.net", "anna@example.net", "anna@example.net"},
		{"example.org", "bare", "4711", "bert@other.example", "bert@other.example"},
		{"", "as_typed", "info", "anna", "info"},
		{"", "as_typed", "Cleo", "cleo", "Cleo"},
	} {
		b := &Brand{DefaultDomain: Host(c.domain), LoginName: LoginName(c.login), Aliases: file}
		n, problems, err := b.Names()
		if err != nil || len(problems) > 0 {
			t.Fatal(err, problems)
		}
		if account, send := n.Resolve(c.typed); account != c.account || send != c.send {
			t.Errorf("%+v: got %s, told the backend %s", c, account, send)
		}
	}
	if n, _, err := (&Brand{LoginName: LoginAsTyped}).Names(); n != nil || err != nil {
		t.Errorf("a brand without these keys has %+v (%v)", n, err)
	}
}

func FuzzAliases(f *testing.F) {
	f.Add([]byte("info anna\n# no\nx y z\n"), "Info")
	f.Fuzz(func(t *testing.T, data []byte, typed string) {
		n := &Names{domain: "example.org", login: LoginBare}
		n.read("aliases.txt", data)
		n.Resolve(typed)
	})
}
