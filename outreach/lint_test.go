package outreach

import (
	"os"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"mailreeve/config"
	"mailreeve/fixes"
	"mailreeve/policy"
)

// exampleBrands are those of the cutovers in deploy/examples, with what notices need.
func exampleBrands(t *testing.T) (brands []config.Brand) {
	t.Helper()
	files, err := filepath.Glob("../deploy/examples/*/mailreeve.yaml")
	if err != nil || len(files) < 5 {
		t.Fatalf("%d examples, %v", len(files), err)
	}
	for _, file := range files {
		c, err := config.Load(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range c.Brands {
			if b.Notices == nil {
				b.Notices = noticeBrand().Notices
			}
			brands = append(brands, b)
		}
	}
	return brands
}

// TestTemplatesAreClean holds the program's own templates with all programs, protocols, findings
// and steps, and with the values of five providers.
func TestTemplatesAreClean(t *testing.T) {
	for i, b := range exampleBrands(t) {
		t.Run(string(b.Name), func(t *testing.T) {
			if i > 0 && (testing.Short() || raced()) {
				t.Skip("one provider is enough for a short test, and for the race detector in what runs alone")
			}
			t.Parallel()
			tried, problems := LintNotices([]config.Brand{b}, noticeZone, noticeNow)
			for _, p := range problems {
				t.Error(p)
			}
			if kinds := len(fixes.Known()) * len(sampleProtocols) * (len(policyFindings) + 1); tried < 2*5*kinds {
				t.Errorf("only %d notices were tried", tried)
			}
		})
	}
}

// raced reports whether the race detector is at work, in which all takes twenty times as long.
func raced() bool {
	info, ok := debug.ReadBuildInfo()
	return ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}

// TestLeanBrand holds them for a provider that has neither telephone nor webmail.
func TestLeanBrand(t *testing.T) {
	b := *noticeBrand()
	b.Notices = &config.BrandNotices{From: "service@example.org", Sender: "Example", Envelope: "n@example.org"}
	if _, problems := lintNotices([]config.Brand{b}, noticeZone, noticeNow, []fixes.Class{fixes.Thunderbird, fixes.Unknown}); problems != nil {
		t.Error(problems)
	}
}

// changed is the program's template for a language with a change, as a brand's own.
func changed(t *testing.T, lang, from, to string) config.Brand {
	t.Helper()
	data, err := TemplateFile(lang)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(data), from) {
		t.Fatalf("%q is not in the template", from)
	}
	b := *noticeBrand()
	notices := *b.Notices
	b.Notices = &notices
	notices.Templates = t.TempDir()
	if err := os.WriteFile(filepath.Join(notices.Templates, lang+".txt"), []byte(strings.Replace(string(data), from, to, 1)), 0o644); err != nil {
		t.Fatal(err)
	}
	return b
}

func TestLintFinds(t *testing.T) {
	for _, c := range []struct{ lang, from, to, want string }{
		{"de", "Guten Tag,", "Guten Tag: https://evil.example/login", "can be clicked"},
		{"de", "Guten Tag,", "Guten Tag, schreiben Sie an mailto:x@example.org", "can be clicked"},
		{"de", "Guten Tag,", `Guten Tag, <a href="x">hier</a>`, "as it stands"},
		{"de", "Guten Tag,", "Guten Tag, bitte bestätigen Sie Ihr Passwort.", "asking for the password"},
		{"de", "Guten Tag,", "Guten Tag. Melden Sie sich mit Ihrem Kennwort an.", "asking for the password"},
		{"de", "Guten Tag,", "Guten Tag, handeln Sie dringend.", "urges"},
		{"de", "Guten Tag,", "Guten Tag, es sind nur noch wenige Tage!", "urges"},
		{"de", "Guten Tag,", "Guten Tag, unser Angebot des Monats.", "advertises"},
		{"de", "Guten Tag,", "Guten Tag. WICHTIGE NACHRICHT für Sie.", "shouts"},
		{"de", "Guten Tag,", "Guten Tag, wir sahen 192.0.2.7 und fragen nach.", "IP address"},
		{"de", "Guten Tag,", "Guten Tag, wir sahen [2001:db8::1].", "IP address"},
		{"de", "| Vorgangsnummer | {{.Case}} |", "", "the case number is missing"},
		{"de", "| Hilfeseite | {{.Help}} |", "", "the address of the help page is missing"},
		{"de", "Wir fragen Sie nie nach Ihrem Passwort", "Danke", "never ask for the password"},
		{"de", "zuletzt am {{.Day}}", "zuletzt", "was seen is missing"},
		{"de", "Bitte bis {{.Date}} umstellen: ", "Bald: ", "the subject does not have the date"},
		{"de", "alte E-Mail-Einstellungen", "alte E-Mail-Einstellungen, und zwar in mehreren Programmen", "the subject has"},
		{"de", "schreiben: {{.Webmail}}", "schreiben.", "webmail is missing"},
		{"de", "{{.Signature}}", "", "the signature is missing"},
		{"de", "| {{.Label}} | {{.Value}} |", "", "the setting"},
		{"de", "1. {{.}}", "", "a step is missing"},
		{"de", `{{define "subject"}}`, `{{define "betreff"}}`, "there is no subject"},
		{"de", "{{.Sender}}", "{{.Absender}}", "Absender"},
		{"de", "{{.Sender}}", "{{if}}", "missing value for if"},
		{"en", "Hello,", "Hello, please reply with your password.", "asking for the password"},
		{"en", "Hello,", "Hello, act now and confirm.", "urges"},
		{"en", "Hello,", "Hello, here is a special offer.", "advertises"},
		{"en", "We never ask for your password", "Thank you", "never ask for the password"},
		{"en", "neither by mail nor on the telephone.", strings.Repeat("neither by mail nor on the telephone, and ", 12) + "so on.", "a sentence has more than"},
	} {
		t.Run(c.to, func(t *testing.T) {
			b := changed(t, c.lang, c.from, c.to)
			_, problems := lintNotices([]config.Brand{b}, noticeZone, noticeNow, nil)
			at := slices.IndexFunc(problems, func(p config.Problem) bool { return strings.Contains(p.String(), c.want) })
			if at < 0 {
				t.Fatalf("%q is not told, but\n%v", c.want, problems)
			}
			p := problems[at]
			if file := filepath.Join(b.Notices.Templates, c.lang+".txt"); p.File != file {
				t.Errorf("the file is %s", p.File)
			}
			if p.Cure == "" {
				t.Error("there is no cure")
			}
			if strings.Contains(c.want, "missing") && !strings.Contains(c.want, "value") || strings.Contains(c.want, "subject") || strings.Contains(c.want, "setting") || strings.Contains(c.want, "never") {
				return // of the letter as a whole
			}
			data, err := os.ReadFile(p.File)
			if err != nil {
				t.Fatal(err)
			}
			line := 1 + strings.Count(string(data)[:strings.Index(string(data), c.to)], "\n")
			if p.Line != line {
				t.Errorf("line %d, not %d", p.Line, line)
			}
		})
	}
}

// TestSubjectsFitAnyDay holds that a template is not found to be at fault in September only.
func TestSubjectsFitAnyDay(t *testing.T) {
	b := changed(t, "de", "{{- else}}alte E-Mail-Einstellungen{{end}}", "{{- else}}alte E-Mail-Einstellungen aller Ihrer Geräte{{end}}")
	t0 := noticeTime(t, "2027-05-01T00:00:00+02:00")
	n := Sample(&b, "de", t0, t0.AddDate(0, 0, -7), noticeZone, SeveralUses...)
	c, err := Write(n)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(c.Lint(&n), func(p config.Problem) bool { return strings.Contains(p.Message, "the subject has ") }) {
		t.Errorf("nothing is told of %q", c.Subject)
	}
}

// tags are those that a notice is made of.
var tags = regexp.MustCompile(`</?([a-zA-Z][a-zA-Z0-9]*)`)

// fetches are what makes a mail program ask a server for something, or lead there.
var fetches = regexp.MustCompile(`<[^>]*(src|href|action|background)=|url\(|@import|http-equiv="refresh`)

var allowedTags = []string{"html", "head", "meta", "title", "style", "body", "table", "tr", "td", "th", "div", "h2", "h3", "p", "ul", "ol", "li"}

// FuzzNotice holds that nothing which a client or customer may choose becomes markup, a
// link, a second line, or letters that steer.
func FuzzNotice(f *testing.F) {
	f.Add("mail.example.org", "Thunderbird 153", "kunde@example.org", "dsl")
	f.Add("# heading", "- item", "1. numbered", "| a | b |")
	f.Add("https://evil.example/", "<a href=x>", "a\r\n\r\n# b@example.org", "\x1b[2J")
	f.Add("evil.example/login", "\ue000x\ue001\ue0027\ue003", "{{.Case}}@example.org", "\u202eabc")
	f.Fuzz(func(t *testing.T, sni, program, account, network string) {
		uses := []SampleUse{{Class: "thunderbird", Protocol: "imap", Program: "x", Findings: policyFindings}}
		make := func(sni, program, account, network string) *Content {
			n := Sample(noticeBrand(), "de", noticeDay, noticeNow, noticeZone, uses...)
			n.Account.Name = account
			u := n.Findings[0].Uses[0]
			u.SNI, u.Program, u.Network = sni, program, network
			c, err := Write(n)
			if err != nil {
				t.Fatal(err)
			}
			return c
		}
		c := make(sni, program, account, network)
		stem := func(s string) string { // empty stays empty
			if s == "" {
				return ""
			}
			return "x"
		}
		plain := make(stem(hostName(sni)), stem(oneLine(program)), account, "")
		if len(c.blocks) != len(plain.blocks) {
			t.Fatalf("%d blocks, not %d:\n%s", len(c.blocks), len(plain.blocks), c.Text)
		}
		for i := range c.blocks {
			if c.blocks[i].kind != plain.blocks[i].kind || len(c.blocks[i].items) != len(plain.blocks[i].items) {
				t.Errorf("block %d is another:\n%s", i, c.Text)
			}
		}
		for _, m := range tags.FindAllStringSubmatch(c.HTML, -1) {
			if !slices.Contains(allowedTags, m[1]) {
				t.Errorf("a tag %s in\n%s", m[1], c.HTML)
			}
		}
		if found := fetches.FindString(c.HTML); found != "" {
			t.Errorf("%s in\n%s", found, c.HTML)
		}
		for _, text := range []string{c.Subject, c.Text, c.HTML} {
			if !utf8.ValidString(text) || strings.ContainsFunc(text, func(r rune) bool {
				return r != '\n' && (r < ' ' || r == 0x7f || r >= 0xe000 && r <= 0xe003 || r == 0x202e)
			}) {
				t.Errorf("letters that steer: %q", text)
			}
		}
		if strings.Contains(sni, "/") && strings.Contains(c.Text, sni) {
			t.Errorf("an address from outside: %q", sni)
		}
	})
}

// TestEachUseIsTold holds that a letter leaves nothing out, and lists nothing that is mended.
func TestEachUseIsTold(t *testing.T) {
	n := Sample(noticeBrand(), "de", noticeDay, noticeNow, noticeZone, SeveralUses...)
	for i, state := range []State{Fixed, Exempt} {
		n.Findings[len(n.Findings)-1-i].State = state // the scanner and the telephone
	}
	c, err := Write(n)
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]bool{"DSL-Anschluss": true, "Mobilfunknetz": false, "Firmennetz": false, "E-Mails abrufen (IMAP)": true, "E-Mails senden (SMTP)": true} {
		if strings.Contains(c.Text, text) != want {
			t.Errorf("%q: %v", text, !want)
		}
	}
	for i := range n.Findings {
		n.Findings[i].Do = policy.Observe
	}
	if _, err := Write(n); err != ErrNothing {
		t.Errorf("what is only observed was told: %v", err)
	}
}

// TestStageFollowsTheClock holds that a letter that is late does not speak of the future.
func TestStageFollowsTheClock(t *testing.T) {
	for now, want := range map[string]string{
		"2027-05-31T12:00:00+02:00": "early", "2027-08-30T12:00:00+02:00": "early", "2027-08-31T12:00:00+02:00": "soon",
		"2027-09-19T23:59:59+02:00": "soon", "2027-09-20T00:00:00+02:00": "day", "2027-09-20T23:59:59+02:00": "day", "2027-09-21T00:00:00+02:00": "after",
	} {
		if got := stageOf(noticeDay, noticeTime(t, now), noticeZone); got != want {
			t.Errorf("%s: %s, not %s", now, got, want)
		}
	}
}

// TestPortsOfBoth holds that who fetches mail is not told of sending, where a policy ends the ports
// of STARTTLS for both.
func TestPortsOfBoth(t *testing.T) {
	for protocol, sends := range map[string]bool{"imap": false, "pop3": false, "submission": true} {
		for lang, word := range map[string]string{"de": "sendet", "en": "sends"} {
			c, err := Write(Sample(noticeBrand(), lang, noticeDay, noticeNow, noticeZone, SampleUse{Class: fixes.Thunderbird, Protocol: protocol, Findings: []policy.Finding{policy.FindingPort}}))
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(c.Text, word) != sends {
				t.Errorf("%s, %s:\n%s", protocol, lang, c.Text)
			}
		}
	}
}
