package web

import (
	"encoding/xml"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
)

// all is a page with everything.
var all = Page{
	Brand: "Beispiel-Net", Language: "de", Help: "https://hilfe.example.org/mail",
	Text: "Guten Tag.\nEine Zeile mehr.\n\n \n\r\nEin <b>zweiter</b> & letzter Absatz.\r\n",
	Servers: []Server{
		{"imap", "imap.example.org", 993}, {"pop3", "pop3.example.org", 995}, {"submission", "smtp.example.org", 465},
		{"gopher", "gopher.example.org", 70}, {"imap", "", 993},
	},
}

func TestPage(t *testing.T) {
	english := all
	english.Language = "en"
	for _, c := range []struct {
		page Page
		in   []string
		out  []string
	}{
		{all, []string{
			`<html lang="de">`, "<title>Beispiel-Net: Einstellungen", `<p class="brand">Beispiel-Net</p>`,
			"<p>Guten Tag. Eine Zeile mehr.</p>\n<p>Ein &lt;b&gt;zweiter&lt;/b&gt; &amp; letzter Absatz.</p>",
			"Posteingang: IMAP", "Posteingang: POP3", "Postausgang: SMTP", "<td>imap.example.org</td>", "<td>995</td>", "<td>SSL/TLS</td>",
			"IMAP oder POP3", `<a href="https://hilfe.example.org/mail" rel="noopener noreferrer">https://hilfe.example.org/mail</a>`,
			"<style>" + style + "</style>",
		}, []string{"gopher", "<b>", "<td></td>", "<script", " style=", "<img", "<form", "<link"}},
		{english, []string{`<html lang="en">`, "Settings for your mail program", "Outgoing mail: SMTP", "More help:"}, []string{"Posteingang"}},
		{Page{Servers: all.Servers[2:3]}, []string{`<html lang="de">`, "<title>Einstellungen", "Postausgang: SMTP"},
			[]string{"IMAP oder POP3", `class="brand"`, "Ausführliche Hilfe"}},
		{Page{Language: "tlh"}, []string{`<html lang="de">`}, []string{"<table"}},
		{Page{Brand: `"><script>`, Text: "</style><script>", Help: "javascript:alert(1)", Servers: []Server{{"imap", "<script>", -1}}},
			[]string{`href="#ZgotmplZ"`}, []string{"<script", `href="javascript`}},
	} {
		html := string(c.page.render())
		for _, s := range c.in {
			if !strings.Contains(html, s) {
				t.Errorf("not in the page: %s\n%s", s, html)
			}
		}
		for _, s := range c.out {
			if strings.Contains(html, s) {
				t.Errorf("in the page: %s\n%s", s, html)
			}
		}
		wellFormed(t, html)
	}
}

// wellFormed holds the page to the rules of XML, but for what HTML never closes, and to
// those of its elements that a browser would mend in silence.
func wellFormed(t *testing.T, html string) {
	t.Helper()
	d := xml.NewDecoder(strings.NewReader(strings.TrimPrefix(html, "<!DOCTYPE html>\n")))
	d.Entity = xml.HTMLEntity
	d.AutoClose = []string{"meta"}
	d.Strict = false
	var open []string
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("%v\n%s", err, html)
		}
		switch e := token.(type) {
		case xml.StartElement:
			if slices.Contains([]string{"p", "table", "div", "h1"}, e.Name.Local) && slices.Contains(open, "p") {
				t.Errorf("<%s> within <p>", e.Name.Local)
			}
			open = append(open, e.Name.Local)
		case xml.EndElement:
			if last := open[len(open)-1]; last != e.Name.Local {
				t.Errorf("</%s> closes <%s>", e.Name.Local, last)
			}
			open = open[:len(open)-1]
		}
	}
	if len(open) != 0 {
		t.Errorf("left open: %v", open)
	}
}

// TestWords holds the languages to the same words.
func TestWords(t *testing.T) {
	for lang := range languages {
		html := string(Page{Language: lang, Brand: "x", Help: "https://x.example", Servers: all.Servers}.render())
		for _, empty := range []string{"<p></p>", "<td></td>", `<th scope="row"></th>`, "<caption></caption>", "<h1></h1>", "<p> <a"} {
			if strings.Contains(html, empty) {
				t.Errorf("%s: %s", lang, empty)
			}
		}
	}
}

// TestPageSize keeps the page, for a text of ordinary length, well within the first flight
// of a TCP connection (RFC 6928: ten segments), which has the certificates to carry as well.
func TestPageSize(t *testing.T) {
	size := len(all.render())
	t.Logf("%d bytes", size)
	if size > 4<<10 {
		t.Errorf("the page has %d bytes", size)
	}
}

// TestPolicy holds the header to the style that is sent.
func TestPolicy(t *testing.T) {
	html := string(all.render())
	_, rest, _ := strings.Cut(html, "<style>")
	sent, _, _ := strings.Cut(rest, "</style>")
	if !strings.Contains(contentPolicy, "'"+hashOf(sent)+"'") {
		t.Errorf("the policy %s does not let the style be", contentPolicy)
	}
}
