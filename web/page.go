package web

// The help page: its words, its look, its making.

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"html/template"
	"strings"
)

// Page is what one brand's help page shows. All of it comes from the configuration; it
// is escaped all the same.
type Page struct {
	Brand    string   // a name that customers know; may be empty
	Language string   // "de" or "en"; anything else is "de"
	Text     string   // the provider's own words; an empty line begins a paragraph
	Help     string   // https address of the full help pages; may be empty
	Servers  []Server // in the order in which they are shown
}

// Server is what to type into a mail program.
type Server struct {
	Protocol string // "imap", "pop3" or "submission"
	Host     string
	Port     int // of implicit TLS
}

// words are the texts of a page in one language. They name things as mail programs do:
// whoever reads them has such a program open beside.
type words struct {
	Title, Intro                string
	Purpose                     map[string]string // by protocol
	Server, Port, Security, SSL string
	Choice                      string // where there is IMAP and POP3
	Naming                      string // of SSL/TLS, the commonest stumbling block
	Login                       string
	User, UserIs                string
	Password, PasswordIs        string
	Method, MethodIs            string
	Never                       string // what a forged page would do
	Helper                      string
}

var languages = map[string]*words{
	"de": {
		Title:      "Einstellungen für Ihr E-Mail-Programm",
		Intro:      "Diese Angaben gehören in die Kontoeinstellungen Ihres E-Mail-Programms. Ihr Passwort bleibt, wie es ist.",
		Purpose:    map[string]string{"imap": "Posteingang: IMAP", "pop3": "Posteingang: POP3", "submission": "Postausgang: SMTP"},
		Server:     "Server",
		Port:       "Port",
		Security:   "Sicherheit",
		SSL:        "SSL/TLS",
		Login:      "Anmeldung für Posteingang und Postausgang",
		User:       "Benutzername",
		UserIs:     "wie bisher; meist Ihre vollständige E-Mail-Adresse",
		Password:   "Passwort",
		PasswordIs: "das Ihres Postfachs",
		Method:     "Authentifizierung",
		MethodIs:   "Passwort, normal (nicht „verschlüsseltes Passwort“, nicht SPA)",
		Choice:     "Für den Posteingang gilt IMAP oder POP3, je nachdem, wie das Konto eingerichtet ist.",
		Naming:     "Manche Programme nennen SSL/TLS nur „SSL“ oder nur „TLS“. STARTTLS ist etwas anderes und gehört nicht zu diesen Ports.",
		Never:      "Diese Seite fragt nie nach Ihrem Passwort. Geben Sie es nur in Ihr E-Mail-Programm ein.",
		Helper:     "Ausführliche Hilfe:",
	},
	"en": {
		Title:      "Settings for your mail program",
		Intro:      "These belong in the account settings of your mail program. Your password stays as it is.",
		Purpose:    map[string]string{"imap": "Incoming mail: IMAP", "pop3": "Incoming mail: POP3", "submission": "Outgoing mail: SMTP"},
		Server:     "Server",
		Port:       "Port",
		Security:   "Security",
		SSL:        "SSL/TLS",
		Login:      "Login for incoming and outgoing mail",
		User:       "User name",
		UserIs:     "as before; usually your full e-mail address",
		Password:   "Password",
		PasswordIs: "that of your mailbox",
		Method:     "Authentication",
		MethodIs:   "normal password (not “encrypted password”, not SPA)",
		Choice:     "For incoming mail it is IMAP or POP3, whichever the account is set up with.",
		Naming:     "Some programs call SSL/TLS just “SSL” or just “TLS”. STARTTLS is something else and does not go with these ports.",
		Never:      "This page never asks for your password. Enter it only in your mail program.",
		Helper:     "More help:",
	},
}

// style is for phones first: boxes beside each other where there is room. The colours
// are the system's own, black on white or the other way round, as its owner reads best.
const style = `:root{color-scheme:light dark}` +
	`body{margin:0 auto;padding:1.25rem;max-width:62rem;font:1.0625rem/1.5 system-ui,sans-serif;background:Canvas;color:CanvasText;overflow-wrap:anywhere}` +
	`h1{font-size:1.6rem;line-height:1.25;margin:0 0 1rem}` +
	`p{max-width:40rem;margin:0 0 1rem}` +
	`.brand{font-weight:bold;margin:0}` +
	`.servers{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,19rem),1fr));gap:1rem;margin:1.5rem 0}` +
	`table,tbody,caption{display:block}` +
	`table{border:2px solid}` +
	`.login{margin:1.5rem 0;max-width:42rem}` +
	`caption,tr{padding:.5rem .75rem}` +
	`caption{text-align:left;font-weight:bold}` +
	`tr{display:flex;flex-wrap:wrap;border-top:1px solid}` +
	`th,td{padding:0}` +
	`th{font-weight:normal;text-align:left;flex:0 0 auto;min-width:6.5rem}` +
	`.login th{min-width:9rem}` +
	`td{font-weight:bold}`

// contentPolicy lets a page have its style, and nothing else from anywhere. What default-src
// does not speak for is named (CSP level 2 section 7.4).
var contentPolicy = "default-src 'none'; style-src '" + hashOf(style) + "'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

func hashOf(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "sha256-" + base64.StdEncoding.EncodeToString(sum[:])
}

var page = template.Must(template.New("page").Parse(`<!DOCTYPE html>
<html lang="{{.Lang}}">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{with .Page.Brand}}{{.}}: {{end}}{{.Words.Title}}</title>
<style>{{.Style}}</style>
</head>
<body>
<main>
{{with .Page.Brand}}<p class="brand">{{.}}</p>
{{end}}<h1>{{.Words.Title}}</h1>
{{range .Paragraphs}}<p>{{.}}</p>
{{end}}{{with .Servers}}<p>{{$.Words.Intro}}</p>
<div class="servers">
{{range .}}<table>
<caption>{{.Purpose}}</caption>
<tr><th scope="row">{{$.Words.Server}}</th><td>{{.Host}}</td></tr>
<tr><th scope="row">{{$.Words.Port}}</th><td>{{.Port}}</td></tr>
<tr><th scope="row">{{$.Words.Security}}</th><td>{{$.Words.SSL}}</td></tr>
</table>
{{end}}</div>
{{if $.Choice}}<p>{{$.Words.Choice}}</p>
{{end}}<p>{{$.Words.Naming}}</p>
<table class="login">
<caption>{{$.Words.Login}}</caption>
<tr><th scope="row">{{$.Words.User}}</th><td>{{$.Words.UserIs}}</td></tr>
<tr><th scope="row">{{$.Words.Password}}</th><td>{{$.Words.PasswordIs}}</td></tr>
<tr><th scope="row">{{$.Words.Method}}</th><td>{{$.Words.MethodIs}}</td></tr>
</table>
{{end}}<p>{{.Words.Never}}</p>
{{with .Page.Help}}<p>{{$.Words.Helper}} <a href="{{.}}" rel="noopener noreferrer">{{.}}</a></p>
{{end}}</main>
</body>
</html>
`))

// shown is a server with its purpose in words.
type shown struct {
	Server
	Purpose string
}

// lang is the page's language.
func (p Page) lang() string {
	if languages[p.Language] == nil {
		return "de" // most customers' language, as in the mail programs
	}
	return p.Language
}

// render makes the page as it is sent.
func (p Page) render() []byte {
	w := languages[p.lang()]
	var servers []shown
	has := map[string]bool{}
	for _, s := range p.Servers {
		if purpose, ok := w.Purpose[s.Protocol]; ok && s.Host != "" {
			servers = append(servers, shown{s, purpose})
			has[s.Protocol] = true
		}
	}
	var b bytes.Buffer
	err := page.Execute(&b, map[string]any{
		"Page": p, "Lang": p.lang(), "Words": w, "Style": template.CSS(style), "Paragraphs": paragraphs(p.Text),
		"Servers": servers, "Choice": has["imap"] && has["pop3"],
	})
	if err != nil {
		panic(err) // the template is ours, and a test has been through it
	}
	return b.Bytes()
}

// paragraphs takes a text apart at its empty lines.
func paragraphs(text string) []string {
	var all []string
	var lines []string
	for line := range strings.Lines(text + "\n\n") {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		} else if lines != nil {
			all = append(all, strings.Join(lines, " "))
			lines = nil
		}
	}
	return all
}
