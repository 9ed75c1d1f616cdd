package outreach

// Tables for a spreadsheet: Excel in German, above all.

import (
	"bufio"
	"io"
	"strings"
	"unicode"
)

// sheet writes one: UTF-8 with a byte order mark, without which Excel takes it for
// Windows-1252; semicolons, which Excel wants where the comma is in numbers; CR LF and
// quotes as in RFC 4180 section 2. No cell of it is a formula.
type sheet struct{ w *bufio.Writer }

// column is a column's name in each language. Columns are part of a format, which has a
// number; they are only ever added behind the others within it.
type column struct{ en, de string }

func newSheet(w io.Writer, lang string, columns []column) *sheet {
	t := &sheet{bufio.NewWriter(w)}
	t.w.WriteRune('\ufeff')
	names := make([]string, len(columns))
	for i, c := range columns {
		names[i] = word(lang, c.en, c.de)
	}
	t.row(names...)
	return t
}

// word is the one in the language.
func word(lang, en, de string) string {
	if lang == "en" {
		return en
	}
	return de
}

// row writes a row. An error comes with flush, or with a row after it.
func (t *sheet) row(cells ...string) error {
	for i, c := range cells {
		if i > 0 {
			t.w.WriteByte(';')
		}
		t.w.WriteString(quoted(harmless(c)))
	}
	_, err := t.w.WriteString("\r\n")
	return err
}

func (t *sheet) flush() error { return t.w.Flush() }

// mostCell is shorter than what Excel takes into a cell (32,767 characters): what is
// longer it spreads over others.
const mostCell = 4000

// harmless is a text that no spreadsheet calculates. What begins with one of = + - @
// is a formula there, and some look for it behind spaces; who logs in chooses names
// that come into these tables. An apostrophe in front makes it a text.
func harmless(s string) string {
	letters := 0
	s = strings.Map(func(r rune) rune {
		switch letters++; {
		case letters > mostCell:
			return -1
		case unicode.IsControl(r) && r != '\t' && r != '\r' && r != '\n':
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "\ufffd"))
	begin := strings.TrimLeftFunc(s, func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsGraphic(r) })
	if strings.HasPrefix(s, "\t") || strings.HasPrefix(s, "\r") || strings.HasPrefix(s, "\n") || begin != "" && strings.ContainsRune("=+-@＝＋－＠", []rune(begin)[0]) {
		return "'" + s
	}
	return s
}

// quoted is a cell as it is written.
func quoted(s string) string {
	if strings.ContainsAny(s, ";\",\t\r\n") || strings.HasPrefix(s, " ") || strings.HasSuffix(s, " ") {
		return `"` + strings.ReplaceAll(s, `"`, `""`) + `"`
	}
	return s
}
