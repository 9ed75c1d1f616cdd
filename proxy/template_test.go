package proxy

import (
	"strings"
	"testing"
	"time"

	"mailreeve/policy"
)

// TestBrandTexts: what a brand says itself is checked when it is loaded, whatever
// would be wrong with it in the middle of the night on which a stage begins.
func TestBrandTexts(t *testing.T) {
	const right = "Passwort ist NICHT falsch. "
	for _, c := range []struct {
		finding policy.Finding
		action  policy.Action
		text    string
		want    string
	}{
		{policy.Plaintext, policy.Deny, right + "{word}: {host}, Port {port}.[ Hilfe: {help}]", ""},
		{policy.Plaintext, policy.Warn, "Ohne Verschluesselung[ ab {date}] kein Zugang.", ""},
		{policy.Plaintext, policy.TempFail, right + "Testabschaltung[ bis {until}].", ""},
		{OtherService, policy.Deny, right + "Das ist der Server fuer {others}.", ""},
		{AddressForm, policy.Refuse, right + "Ohne @.", ""},
		{"plain_text", policy.Deny, right, "text plain_text, pass, language de: there is no such finding: legacy_hostname, mechanism, other_service, " +
			"plaintext, submission_port, tls_old, user_form, user_form_address are"},
		{policy.Plaintext, policy.Notify, "Hallo.", "text plaintext, notify, language de: nothing is said there: only at warn, tempfail, deny and refuse"},
		{policy.Plaintext, policy.Deny, "Server {host}.", `text plaintext, deny, language de: a refusal begins with "Passwort ist NICHT falsch": people change good passwords`},
		{policy.Plaintext, policy.Warn, "Verschlüsselung fehlt.", "text plaintext, warn, language de: protocols take printable ASCII without percent signs alone (ae, oe, ue, ss), not 'ü'"},
		{policy.Plaintext, policy.Warn, "a\r\nb", "text plaintext, warn, language de: protocols take printable ASCII without percent signs alone (ae, oe, ue, ss), not '\\r'"},
		{policy.Plaintext, policy.Warn, "100% sicher", "text plaintext, warn, language de: protocols take printable ASCII without percent signs alone (ae, oe, ue, ss), not '%'"},
		{policy.Plaintext, policy.Warn, "", "text plaintext, warn, language de: it begins with a word, and ends with one or a full stop"},
		{policy.Plaintext, policy.Warn, "[ALERT {date}] Hallo.", "text plaintext, warn, language de: it begins with a word, and ends with one or a full stop"},
		{policy.Plaintext, policy.Warn, "Bitte bis {date}.", "text plaintext, warn, language de: {date} is not always known: put it in square brackets, with the words that go with it"},
		{policy.Plaintext, policy.Deny, right + "Gilt fuer {others}.", "text plaintext, deny, language de: {others} is not always known: put it in square brackets, with the words that go with it"},
		{policy.Plaintext, policy.Warn, "Bitte[ bis {date}.", "text plaintext, warn, language de: the square brackets do not match"},
		{policy.Plaintext, policy.Warn, "Bitte bis] jetzt.", "text plaintext, warn, language de: the square brackets do not match"},
		{policy.Plaintext, policy.Warn, "Bitte[ bis [jetzt]].", "text plaintext, warn, language de: the square brackets do not match"},
		{policy.Plaintext, policy.Warn, "Bitte {server}.", "text plaintext, warn, language de: {server} is no placeholder: {host}, {port}, {help}, {until}, {date}, {others} and {word} are"},
		{policy.Plaintext, policy.Warn, "Bitte {ho[st}].", "text plaintext, warn, language de: {ho is no placeholder: {host}, {port}, {help}, {until}, {date}, {others} and {word} are"},
		{policy.Plaintext, policy.Warn, "Bitte {po{host}rt}.", "text plaintext, warn, language de: {po rt} is no placeholder: {host}, {port}, {help}, {until}, {date}, {others} and {word} are"},
		{policy.Plaintext, policy.Warn, strings.Repeat("Hallo. ", 26) + "{host}.", ""}, // 199 characters
		{policy.Plaintext, policy.Warn, strings.Repeat("Hallo. ", 27) + "{host}.", "text plaintext, warn, language de for imap: with imap.example.org it has 206 characters, and programs show 200 at most"},
	} {
		b := &Brand{Language: German, Hosts: map[string][]string{"imap": {"i.example", "imap.example.org"}}, Texts: map[policy.Finding]map[policy.Action]string{c.finding: {c.action: c.text}}}
		got := ""
		for _, problem := range b.CheckTexts() {
			got += problem.Error()
		}
		if got != c.want {
			t.Errorf("%s %s %q:\n%s\nwant\n%s", c.finding, c.action, c.text, got, c.want)
		}
	}
	for _, lang := range []Language{German, English, "", "fr"} {
		b := &Brand{Language: lang, Hosts: map[string][]string{"imap": {longestHost}, "pop3": {longestHost}, "submission": {longestHost}}}
		if problems := b.CheckTexts(); problems != nil {
			t.Errorf("%s: %v", lang, problems)
		}
		b.Hosts["imap"] = []string{strings.Repeat("a.", 90) + "a"}
		if problems := b.CheckTexts(); len(problems) == 0 {
			t.Errorf("%s: a name of 181 characters fits everywhere", lang)
		}
	}
}

// TestOwnTexts: a brand's own sentence goes before the shipped one, and a refusal
// at the earliest moment has that of a denial.
func TestOwnTexts(t *testing.T) {
	p := place{lang: German, host: "h.example", port: 993, help: "https://a.example/", session: "ID",
		texts: map[policy.Finding]map[policy.Action]string{policy.Plaintext: {policy.Deny: "Passwort ist NICHT falsch. {host}![ Mehr: {help}][ Am {date}]"}}}
	for _, action := range []policy.Action{policy.Deny, policy.Refuse} {
		if got := p.ruling(action, policy.Plaintext); got != "Passwort ist NICHT falsch. h.example! Mehr: https://a.example/ (ID)" {
			t.Error(got)
		}
	}
	if got := p.ruling(policy.Deny, policy.TLSOld); got != "Passwort ist NICHT falsch. Programm ist veraltet: TLS 1.2 fehlt. https://a.example/ (ID)" {
		t.Error(got)
	}
	if got := p.ruling(policy.Warn, policy.Plaintext); got != "Verschluesselung fehlt: SSL/TLS, Server h.example, Port 993. https://a.example/ (ID)" {
		t.Error(got)
	}
	p.help = ""
	if got := p.ruling(policy.Deny, policy.Plaintext); got != "Passwort ist NICHT falsch. h.example! (ID)" {
		t.Error(got)
	}
}

func TestOneFullStopBehindADate(t *testing.T) {
	german := place{host: "imap.test.example", port: 993, date: "01.06."}
	for format, want := range map[string]string{
		"Alter Name[, bis {date}]. Neu: {host}.": "Alter Name, bis 01.06. Neu: imap.test.example.",
		"Alter Name[, bis {date}.] Neu: {host}.": "Alter Name, bis 01.06. Neu: imap.test.example.",
		"Ab[ {date}] gilt {host}.":               "Ab 01.06. gilt imap.test.example.",
		"Bald ...[ ab {date}]":                   "Bald ... ab 01.06.",
	} {
		if got := german.fill(format); got != want {
			t.Errorf("%q: %q", format, got)
		}
	}
	english := place{date: "1 June"}
	if got := english.fill("This port ends[ on {date}]."); got != "This port ends on 1 June." {
		t.Errorf("%q", got)
	}
}

func TestDates(t *testing.T) {
	berlin := time.FixedZone("CEST", 2*3600)
	now := time.Date(2026, 9, 30, 21, 30, 0, 0, time.UTC) // 23:30 there
	for _, c := range []struct {
		at   time.Time
		want string
	}{
		{time.Date(2026, 9, 30, 23, 45, 0, 0, berlin), "30.09. 23:45 / 30 September 23:45"}, // today: the clock is enough
		{time.Date(2026, 10, 1, 0, 0, 0, 0, berlin), "01.10. 01.10. 00:00 / 1 October 1 October 00:00"},
		{time.Date(2027, 1, 2, 3, 4, 0, 0, berlin), "02.01.2027 02.01.2027 03:04 / 2 January 2027 2 January 2027 03:04"},
	} {
		got := German.day(c.at, now) + " " + German.moment(c.at, now) + " / " + English.day(c.at, now) + " " + English.moment(c.at, now)
		if got != c.want {
			t.Errorf("%v: %q, want %q", c.at, got, c.want)
		}
	}
	if got := Language("fr").day(now, now); got != "30.09." {
		t.Error(got)
	}
}

func TestWarnedOnceADay(t *testing.T) {
	var w warned
	day := time.Date(2026, 9, 30, 23, 59, 0, 0, time.UTC)
	for i, c := range []struct {
		day                   time.Time
		account, client, rule string
		want                  bool
	}{
		{day, "anna", "TB", "encrypted", true},
		{day, "anna", "TB", "encrypted", false},
		{day, "bert", "TB", "encrypted", true},
		{day, "anna", "", "encrypted", true},
		{day, "anna", "TB", "canonical", true},
		{day.Add(time.Hour), "anna", "TB", "encrypted", true},
		{day.Add(2 * time.Hour), "anna", "TB", "encrypted", false},
		{day, "ann", "aTB", "encrypted", true},
	} {
		if got := w.first(c.day, c.account, c.client, c.rule); got != c.want {
			t.Errorf("%d: %v", i, got)
		}
	}
	for len(w.before) == 0 {
		w.first(day, "", "", strings.Repeat("x", len(w.now)%100)+time.Duration(len(w.now)).String())
	}
	if w.first(day, "bert", "TB", "encrypted") {
		t.Error("forgotten too early")
	}
	if len(w.now) > 2 || len(w.before) != warnedKept {
		t.Errorf("%d and %d are kept", len(w.now), len(w.before))
	}
}

// FuzzTemplate: what is wrong with a sentence is found before it is said.
func FuzzTemplate(f *testing.F) {
	for _, lang := range []Language{German, English} {
		for finding, texts := range shipped[lang] {
			for action, text := range texts {
				f.Add(text, uint8(action), string(finding))
			}
		}
	}
	f.Fuzz(func(t *testing.T, text string, action uint8, finding string) {
		if checkTemplate(text, policy.Action(action), policy.Finding(finding), German) != "" {
			return
		}
		for _, p := range []place{{host: "h", word: "w", others: "o"}, {host: "h", word: "w", others: "o", help: "p", until: "u", date: "d"}} {
			if got := p.fill(text); strings.ContainsAny(got, "[]{}%") || got == "" || CleanText(got) != got[:min(len(got), maxText)] {
				t.Errorf("%q becomes %q", text, got)
			}
		}
	})
}
