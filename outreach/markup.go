package outreach

// From a template to plain text and HTML.
//
// A template is text with a light markup: paragraphs, "# " and "## " headings, lists whose lines
// begin with "- " or "1. ", tables of rows like "| label | value |". Lines of a paragraph
// or entry are joined, an empty line ends it. Only what stands in the template itself
// is markup: the values that it prints come out as they are, and are escaped in HTML.
//
// Roads not taken: html/template and a second template for the plain text, since two
// texts that must say the same do not for long; Markdown, in which a value could make a
// link. Colours: mail programs invert them for dark screens, each in its own way, and what has
// none is left readable by all.

import (
	"embed"
	"errors"
	"fmt"
	"html"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"text/template"
	"text/template/parse"
	"unicode/utf8"
)

//go:embed templates/de.txt templates/en.txt
var builtin embed.FS

// noticeTemplate is a template, made ready. Its name is that of its file.
type noticeTemplate struct{ *template.Template }

// TemplateFile is the program's own template for a language, de or en.
func TemplateFile(lang string) ([]byte, error) {
	data, err := builtin.ReadFile("templates/" + lang + ".txt")
	if err != nil {
		return nil, fmt.Errorf("there is no template for the language %q", lang)
	}
	return data, nil
}

// loadTemplate reads the template for a language: that in the folder, or where there is none
// that of the program.
func loadTemplate(folder, lang string) (*noticeTemplate, error) {
	if folder != "" {
		file := filepath.Join(folder, lang+".txt")
		data, err := os.ReadFile(file)
		if err == nil {
			return parseTemplate(file, string(data))
		}
		if errors.Is(err, fs.ErrNotExist) { // of the file; the folder was meant to be there
			_, err = os.Stat(folder)
		}
		if err != nil {
			return nil, fmt.Errorf("reading the templates of notices: %w", err)
		}
	}
	data, err := TemplateFile(lang)
	if err != nil {
		return nil, err
	}
	return parseTemplate(lang+".txt", string(data))
}

// Marks in what a template prints. They are of Unicode's private use, which [oneLine] takes
// out of everything that comes from outside.
const (
	valueBegins = '\uE000'
	valueEnds   = '\uE001'
	lineBegins  = '\uE002' // and the number of the template's line follows
	lineEnds    = '\uE003'
)

// unmarked is a text without marks.
func unmarked(text string) string {
	return strings.Map(func(c rune) rune {
		if c >= valueBegins && c <= lineEnds {
			return -1
		}
		return c
	}, text)
}

// parseTemplate makes a template ready: each value that it prints is marked, and so is each
// line of its own.
func parseTemplate(file, text string) (*noticeTemplate, error) {
	text = unmarked(strings.ReplaceAll(strings.TrimPrefix(text, "\ufeff"), "\r\n", "\n"))
	if !utf8.ValidString(text) {
		return nil, fmt.Errorf("%s: it is not in UTF-8", file)
	}
	t, err := template.New(file).Option("missingkey=error").Funcs(template.FuncMap{markValue: func(value any) string {
		if s := unmarked(fmt.Sprint(value)); s != "" {
			return string(valueBegins) + s + string(valueEnds)
		}
		return ""
	}}).Parse(text)
	if err != nil {
		return nil, errors.New(templateError(err))
	}
	if t.Lookup("subject") == nil {
		return nil, fmt.Errorf(`%s:1: there is no subject: add {{define "subject"}}...{{end}}`, file)
	}
	for _, part := range t.Templates() {
		if part.Tree != nil {
			mark(part.Root, text)
		}
	}
	return &noticeTemplate{t}, nil
}

const markValue = "_value"

// templateError is an error of text/template without its own name.
func templateError(err error) string { return strings.TrimPrefix(err.Error(), "template: ") }

// mark marks the values and lines in the tree of a template.
func mark(n parse.Node, source string) {
	switch n := n.(type) {
	case *parse.ListNode:
		if n != nil {
			for _, child := range n.Nodes {
				mark(child, source)
			}
		}
	case *parse.ActionNode:
		if len(n.Pipe.Decl) == 0 { // else it prints nothing
			n.Pipe.Cmds = append(n.Pipe.Cmds, &parse.CommandNode{NodeType: parse.NodeCommand, Pos: n.Pos,
				Args: []parse.Node{parse.NewIdentifier(markValue).SetPos(n.Pos)}})
		}
	case *parse.TextNode:
		n.Text = []byte(markLines(string(n.Text), 1+strings.Count(source[:n.Pos], "\n")))
	case *parse.IfNode:
		markBranches(&n.BranchNode, source)
	case *parse.RangeNode:
		markBranches(&n.BranchNode, source)
	case *parse.WithNode:
		markBranches(&n.BranchNode, source)
	}
}

func markBranches(n *parse.BranchNode, source string) {
	mark(n.List, source)
	mark(n.ElseList, source)
}

func markLines(text string, line int) string {
	var out strings.Builder
	for part := range strings.Lines(text) {
		fmt.Fprintf(&out, "%c%d%c%s", lineBegins, line, lineEnds, part)
		line++
	}
	return out.String()
}

// blockKind is what kind of part it is.
type blockKind int

const (
	paragraph blockKind = iota
	heading
	subheading
	bullets
	numbered
	table
)

// block is a part of a letter.
type block struct {
	kind  blockKind
	items []item
}

// item is an entry of a list, a row of a table, or the only text of another block.
type item struct {
	line  int      // of the template
	texts []marked // two in a table
}

// marked is a text in which values are marked.
type marked string

// plain is the text without its marks.
func (m marked) plain() string { return unmarked(string(m)) }

var markedValue = regexp.MustCompile("\uE000[^\uE001]*\uE001")

// own is what the template itself says, with an ellipsis for each value.
func (m marked) own() string { return markedValue.ReplaceAllString(string(m), "…") }

// write prints a letter.
func (t *noticeTemplate) write(l *letter) (*Content, error) {
	var subject, body strings.Builder
	if err := t.ExecuteTemplate(&subject, "subject", l); err != nil {
		return nil, errors.New(templateError(err))
	}
	if err := t.Execute(&body, l); err != nil {
		return nil, errors.New(templateError(err))
	}
	c := &Content{Lang: l.Lang, file: t.Name(), blocks: parseBlocks(body.String())}
	text, _ := unlined(subject.String())
	c.Subject = strings.Join(strings.Fields(marked(text).plain()), " ")
	if c.Subject == "" || len(c.blocks) == 0 {
		return nil, fmt.Errorf("%s: the subject or the text comes out empty", t.Name())
	}
	c.Text, c.HTML = plainText(c.blocks), htmlText(c.Lang, c.Subject, c.blocks)
	return c, nil
}

var lineMark = regexp.MustCompile("\uE002([0-9]+)\uE003")

// unlined takes the line numbers out, and tells the first.
func unlined(text string) (string, int) {
	first := 0
	if m := lineMark.FindStringSubmatch(text); m != nil {
		first, _ = strconv.Atoi(m[1]) // it was printed by markLines
	}
	return lineMark.ReplaceAllString(text, ""), first
}

var numberedLine = regexp.MustCompile(`^[0-9]{1,3}\. `)

// parseBlocks reads the markup.
func parseBlocks(text string) (all []block) {
	open := false // the last item goes on
	for raw := range strings.Lines(text) {
		raw, line := unlined(raw)
		s := strings.TrimSpace(raw)
		kind := paragraph
		switch {
		case s == "":
			open = false
			continue
		case strings.HasPrefix(s, "# "):
			kind, s = heading, s[2:]
		case strings.HasPrefix(s, "## "):
			kind, s = subheading, s[3:]
		case strings.HasPrefix(s, "- "):
			kind, s = bullets, s[2:]
		case numberedLine.MatchString(s):
			kind, s = numbered, s[len(numberedLine.FindString(s)):]
		case strings.HasPrefix(s, "|"):
			kind = table
		case open:
			items := all[len(all)-1].items
			items[len(items)-1].texts[0] += marked(" " + s)
			continue
		}
		it := item{line, []marked{marked(strings.TrimSpace(s))}}
		if kind == table {
			it.texts = cells(s)
		}
		listed := kind == bullets || kind == numbered
		open = kind == paragraph || listed
		if n := len(all); n > 0 && all[n-1].kind == kind && (listed || kind == table) {
			all[n-1].items = append(all[n-1].items, it)
			continue
		}
		all = append(all, block{kind, []item{it}})
	}
	return all
}

// cells are the two of a row. What stands in a value divides nothing.
func cells(row string) []marked {
	var parts []marked
	inside, begin := false, 0
	row = strings.TrimSuffix(strings.TrimPrefix(row, "|"), "|")
	for i, c := range row {
		switch c {
		case valueBegins:
			inside = true
		case valueEnds:
			inside = false
		case '|':
			if !inside && len(parts) == 0 {
				parts, begin = append(parts, marked(strings.TrimSpace(row[:i]))), i+1
			}
		}
	}
	parts = append(parts, marked(strings.TrimSpace(row[begin:])))
	if len(parts) == 1 {
		parts = append(parts, "")
	}
	return parts
}

// lineWidth is that of a plain text: RFC 2822 wants at most 78, and a reply puts "> " before it.
const lineWidth = 72

// plainText prints blocks for programs that show no HTML, and for people who want none.
func plainText(blocks []block) string {
	var out strings.Builder
	for i, b := range blocks {
		if i > 0 {
			out.WriteString("\n")
			if b.kind == heading {
				out.WriteString("\n")
			}
		}
		if b.kind == table {
			plainTable(&out, b.items)
			continue
		}
		for n, it := range b.items {
			first, rest := "", ""
			switch b.kind {
			case bullets:
				first, rest = "- ", "  "
			case numbered:
				first = fmt.Sprintf("%d. ", n+1)
				rest = strings.Repeat(" ", len(first))
			}
			text := it.texts[0].plain()
			for _, line := range wrapped(text, lineWidth-len(first)) {
				out.WriteString(first + line + "\n")
				first = rest
			}
			if b.kind == heading {
				out.WriteString(strings.Repeat("-", min(utf8.RuneCountInString(text), lineWidth)) + "\n")
			}
		}
	}
	return out.String()
}

// plainTable prints a table, with its values below each other; those that do not fit beside
// their labels stand below them.
func plainTable(out *strings.Builder, rows []item) {
	const indent, gap, longLabel = 2, 2, 36
	widest := 0
	for _, r := range rows {
		if n := utf8.RuneCountInString(r.texts[0].plain()) + 1; n <= longLabel {
			widest = max(widest, n)
		}
	}
	for _, r := range rows {
		label, value := r.texts[0].plain()+":", r.texts[1].plain()
		if utf8.RuneCountInString(label) <= widest && indent+widest+gap+utf8.RuneCountInString(value) <= lineWidth {
			fmt.Fprintf(out, "%*s%-*s%s\n", indent, "", widest+gap, label, value)
			continue
		}
		for _, line := range wrapped(label, lineWidth-indent) {
			fmt.Fprintf(out, "%*s%s\n", indent, "", line)
		}
		for _, line := range wrapped(value, lineWidth-3*indent) {
			fmt.Fprintf(out, "%*s%s\n", 3*indent, "", line)
		}
	}
}

// wrapped breaks a text into lines of at most so many letters; a word that is longer
// stays whole, since it is to be typed or copied.
func wrapped(text string, most int) (lines []string) {
	line, letters := "", 0
	for word := range strings.FieldsSeq(text) {
		n := utf8.RuneCountInString(word)
		if line != "" && letters+1+n > most {
			lines, line, letters = append(lines, line), "", 0
		}
		if line != "" {
			line, letters = line+" ", letters+1
		}
		line, letters = line+word, letters+n
	}
	return append(lines, line)
}

// The frame of a letter in HTML. Outlook 2007 to 2019 draw with Word, which knows widths of
// tables and none of other things, hence the comment that only it reads. There is no
// colour: with color-scheme a program draws light on dark where its user likes that. On a narrow
// screen a value stands below its label, since a host name that breaks is typed wrong. The
// hint at formats keeps phones from making links of numbers and dates.
const (
	htmlHead = `<!DOCTYPE html>
<html lang="%[1]s" xmlns:o="urn:schemas-microsoft-com:office:office">
<head>
<meta http-equiv="Content-Type" content="text/html; charset=utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="supported-color-schemes" content="light dark">
<meta name="format-detection" content="telephone=no, date=no, address=no, email=no, url=no">
<title>%[2]s</title>
<style>
:root { color-scheme: light dark; supported-color-schemes: light dark; }
@media (max-width: 520px) {
table.values, table.values tbody, table.values tr, table.values th, table.values td { display: block; }
table.values th { border-bottom: 0 !important; padding-bottom: 0 !important; }
table.values tr + tr th { border-top: 0 !important; }
table.values td { border-top: 0 !important; padding-top: 0 !important; }
}
</style>
</head>
<body style="margin: 0; padding: 0;">
<table role="presentation" width="100%%" border="0" cellpadding="0" cellspacing="0">
<tr><td align="center" style="padding: 16px;">
<!--[if mso]><table role="presentation" width="620" border="0" cellpadding="0" cellspacing="0"><tr><td><![endif]-->
<div lang="%[1]s" style="max-width: 620px; text-align: left; font-family: 'Segoe UI', Helvetica, Arial, sans-serif; font-size: 16px; line-height: 1.5;">
`
	htmlFoot = `</div>
<!--[if mso]></td></tr></table><![endif]-->
</td></tr>
</table>
</body>
</html>
`
	rowStyle = "border: 1px solid #888888; padding: 6px 10px; text-align: left; vertical-align: top; overflow-wrap: break-word;"
)

// htmlText prints blocks for the programs that most people use.
func htmlText(lang, subject string, blocks []block) string {
	var out strings.Builder
	fmt.Fprintf(&out, htmlHead, lang, html.EscapeString(subject))
	text := func(m marked) string { return html.EscapeString(m.plain()) }
	for _, b := range blocks {
		switch b.kind {
		case heading:
			fmt.Fprintf(&out, "<h2 style=\"margin: 28px 0 8px 0; font-size: 20px; line-height: 1.3;\">%s</h2>\n", text(b.items[0].texts[0]))
		case subheading:
			fmt.Fprintf(&out, "<h3 style=\"margin: 20px 0 8px 0; font-size: 17px; line-height: 1.3;\">%s</h3>\n", text(b.items[0].texts[0]))
		case paragraph:
			fmt.Fprintf(&out, "<p style=\"margin: 0 0 14px 0;\">%s</p>\n", text(b.items[0].texts[0]))
		case bullets, numbered:
			tag := "ul"
			if b.kind == numbered {
				tag = "ol"
			}
			fmt.Fprintf(&out, "<%s style=\"margin: 0 0 14px 0; padding: 0 0 0 28px;\">\n", tag)
			for _, it := range b.items {
				fmt.Fprintf(&out, "<li style=\"margin: 0 0 6px 0;\">%s</li>\n", text(it.texts[0]))
			}
			fmt.Fprintf(&out, "</%s>\n", tag)
		case table:
			out.WriteString("<table class=\"values\" border=\"0\" cellpadding=\"6\" cellspacing=\"0\" style=\"margin: 0 0 16px 0; border-collapse: collapse; font-size: 16px;\">\n")
			for _, it := range b.items {
				fmt.Fprintf(&out, "<tr><th scope=\"row\" style=\"%[1]s font-weight: normal;\">%[2]s</th><td style=\"%[1]s font-weight: bold;\">%[3]s</td></tr>\n",
					rowStyle, text(it.texts[0]), text(it.texts[1]))
			}
			out.WriteString("</table>\n")
		}
	}
	out.WriteString(htmlFoot)
	return out.String()
}
