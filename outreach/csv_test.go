package outreach

import (
	"bytes"
	"encoding/csv"
	"strings"
	"testing"
)

func TestSheet(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"anna@example.de", "anna@example.de"},
		{"", ""},
		{"a;b", `"a;b"`},
		{`say "x"`, `"say ""x"""`},
		{"two\r\nlines", "\"two\r\nlines\""},
		{"=1+1", "'=1+1"},
		{"=cmd|' /C calc'!A0", "'=cmd|' /C calc'!A0"},
		{`=HYPERLINK("http://x";"y")`, `"'=HYPERLINK(""http://x"";""y"")"`},
		{"+49 30 1", "'+49 30 1"},
		{"-1", "'-1"},
		{"@SUM(A1)", "'@SUM(A1)"},
		{"\t=1", "\"'\t=1\""},
		{"\r=1", "\"'\r=1\""},
		{"\n=1", "\"'\n=1\""},
		{"\ttext", "\"'\ttext\""},
		{"  =1", "'  =1"},
		{"\u00a0=1", "'\u00a0=1"},
		{"\u200b=1", "'\u200b=1"},
		{"\ufeff=1", "'\ufeff=1"},
		{"＝1", "'＝1"},
		{"a=1", "a=1"},
		{"'=1", "'=1"},
		{"Müller", "Müller"},
		{"bad \xff byte\x00", "\"bad \ufffd byte \""},
		{strings.Repeat("ä", mostCell+1), strings.Repeat("ä", mostCell)},
	} {
		var b bytes.Buffer
		w := newSheet(&b, "de", []column{{"account", "Konto"}, {"x", "y"}})
		w.row(c.in, "1")
		if err := w.flush(); err != nil {
			t.Fatal(err)
		}
		if want := "\ufeffKonto;y\r\n" + c.want + ";1\r\n"; b.String() != want {
			t.Errorf("%q: got %q, want %q", c.in, b.String(), want)
		}
	}
}

// FuzzSheet writes cells, and reads them back with Go's own reader: there are as many, they
// say the same, and none begins like a formula.
func FuzzSheet(f *testing.F) {
	for _, s := range []string{"anna", "=1", "a;b", "\"", "x\r\ny", "\t@", "\ufeff=", "'", "\xff", ";", "\"=1;\r\n=2", "-\u2028", "\u202e=1"} {
		f.Add(s, "plain")
		f.Add("plain", s)
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		var out bytes.Buffer
		w := newSheet(&out, "en", []column{{"a", "A"}, {"b", "B"}, {"c", "C"}})
		w.row(a, b, "end")
		if err := w.flush(); err != nil {
			t.Fatal(err)
		}
		text, ok := strings.CutPrefix(out.String(), "\ufeff")
		if !ok {
			t.Fatal("no byte order mark")
		}
		r := csv.NewReader(strings.NewReader(text))
		r.Comma, r.FieldsPerRecord = ';', 3
		rows, err := r.ReadAll()
		if err != nil || len(rows) != 2 || rows[1][2] != "end" {
			t.Fatalf("%q: read back as %q, %v", out.String(), rows, err)
		}
		for i, in := range []string{a, b} {
			cell := rows[1][i]
			if begin := strings.TrimLeft(cell, " \t\r\n\v\f\u00a0\u200b\ufeff"); begin != "" && strings.ContainsRune("=+-@", rune(begin[0])) || cell != "" && strings.ContainsRune("\t\r\n", rune(cell[0])) {
				t.Fatalf("%q became %q: a formula", in, cell)
			}
			// the reader takes CR LF in a cell for LF, and the empty last cell for none
			if lines := strings.ReplaceAll(harmless(in), "\r\n", "\n"); cell != lines {
				t.Fatalf("%q became %q, want %q", in, cell, lines)
			}
			if len(in) < 100 && !strings.ContainsFunc(in, func(r rune) bool { return r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 || r == '\ufffd' }) && strings.TrimPrefix(cell, "'") != strings.TrimPrefix(in, "'") {
				t.Fatalf("%q became %q", in, cell)
			}
		}
	})
}
