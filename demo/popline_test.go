package demo

import (
	"bufio"
	"errors"
	"io"
	"strings"
	"testing"
)

// FuzzReadPopCommand reads commands until the input ends. Whatever came, the
// rest of the server may rely on a verb without spaces and lower case, and on an
// argument that stays on its line.
func FuzzReadPopCommand(f *testing.F) {
	for _, seed := range []string{
		"USER anna\r\nPASS  two words \r\n",
		"capa\r\nQUIT\r\n",
		"AUTH PLAIN AGFubmEAZGVtbw==\r\n",
		"TOP 1 10\nRETR 1\n",
		"\r\n \r\nNO\x00OP\r\nUSER \xff\xfe\r\n",
		"LIST\r\r\n",
		"no end",
		strings.Repeat("x", popLine) + "\r\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, input []byte) {
		r := bufio.NewReaderSize(strings.NewReader(string(input)), popLine)
		for range len(input) + 1 {
			command, err := readPopCommand(r)
			if errors.Is(err, errPopSyntax) {
				continue
			}
			if errors.Is(err, bufio.ErrBufferFull) || errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if command.verb == "" || command.verb != strings.ToUpper(command.verb) || strings.Contains(command.verb, " ") {
				t.Errorf("verb %q", command.verb)
			}
			if strings.ContainsAny(command.arg, "\r\n\x00") {
				t.Errorf("argument %q", command.arg)
			}
			if len(command.arg) >= popLine {
				t.Errorf("argument of %d octets", len(command.arg))
			}
		}
		t.Error("input that does not end")
	})
}

func TestTop(t *testing.T) {
	for _, c := range []struct {
		text  string
		lines int
		want  string
	}{
		{"A: b\r\n\r\nx\r\ny\r\n", 1, "A: b\r\n\r\nx\r\n"},
		{"A: b\n\nx\n\ny\n", 2, "A: b\n\nx\n\n"},
		{"A: b\r\n", 3, "A: b\r\n"},
		{"", 1, ""},
	} {
		if got := string(top([]byte(c.text), c.lines)); got != c.want {
			t.Errorf("top(%q, %d) = %q, want %q", c.text, c.lines, got, c.want)
		}
	}
}
