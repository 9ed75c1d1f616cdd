package proxy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"mailreeve/policy"
)

// longestHost is longer than any mail host's name met in the wild.
var longestHost = "smtp-auth.submission." + strings.Repeat("gemeinschaft-", 3) + "provider-dienste.example"

// TestSentencesFit: programs cut what is longer, and what comes last is what
// the customer needs.
func TestSentencesFit(t *testing.T) {
	short := map[Class]bool{PlainOnTLS: true, LimitReached: true, ShuttingDown: true, Misspoken: true, TooLate: true}
	findings := append(slices.Collect(maps.Keys(shipped[German])), "one of tomorrow's")
	actions := []policy.Action{policy.Warn, policy.TempFail, policy.Deny, policy.Refuse}
	ascii := regexp.MustCompile(`^[ -$&-~]+$`)
	for _, lang := range []Language{German, English, "fr", ""} {
		for _, action := range actions {
			for _, finding := range findings {
				for _, help := range []string{"", "https://h.example/a", "https://hilfe.provider-dienste.example/mail/" + strings.Repeat("x", 60)} {
					p := place{lang: lang, host: longestHost, port: 65535, help: help, session: "K7M29QXD4TZP", word: "IMAP", others: "POP3/SMTP",
						until: "30.09.2026 23:59", date: "30 September 2026"}
					got := p.ruling(action, finding)
					if len(got) > maxText || !ascii.MatchString(got) || strings.ContainsAny(got, "{}[]?") {
						t.Errorf("%s, %s, %s: %d bytes: %q", lang, action, finding, len(got), got)
					}
					p.help, p.session = "", ""
					if bare := p.ruling(action, finding); !strings.HasPrefix(got, bare) || !strings.HasSuffix(bare, ".") {
						t.Errorf("%s, %s, %s: cut short: %q", lang, action, finding, bare)
					}
				}
			}
		}
		for class := NeedLogin; class <= PlainOnTLS; class++ {
			got := place{lang: lang, host: longestHost, port: 65535}.sentence(class)
			bound := maxText
			if short[class] {
				bound = 80
			}
			if len(got) > bound || !ascii.MatchString(got) || strings.ContainsAny(got, "{}?") || !strings.HasSuffix(got, ".") {
				t.Errorf("%s, class %d: %d bytes: %q", lang, class, len(got), got)
			}
		}
	}
	for lang, words := range map[Language]string{German: "Passwort ist NICHT falsch", English: "Your password is NOT wrong"} {
		for _, finding := range findings {
			for _, action := range actions[1:] {
				got := place{lang: lang, host: "h.example", port: 1, help: "https://a.example/", session: "ID"}.ruling(action, finding)
				if !strings.HasPrefix(got, words) || !strings.HasSuffix(got, " https://a.example/ (ID)") {
					t.Errorf("%q", got)
				}
			}
		}
		for _, class := range []Class{NoAccess, Unavailable} {
			if got := (place{lang: lang}).sentence(class); !strings.Contains(got, words) {
				t.Errorf("%q does not say that the password is right", got)
			}
		}
		if got := (place{lang: lang}).sentence(BadCredential); strings.Contains(got, "NOT") || strings.Contains(got, "NICHT") {
			t.Errorf("%q", got)
		}
	}
	// A name of the greatest length is cut, not sent.
	if got := (place{host: strings.Repeat("a.", 126) + "a"}).ruling(policy.Deny, policy.Plaintext); len(got) != maxText {
		t.Errorf("%d bytes", len(got))
	}
}

// TestSentencesAreWhole: Thunderbird shows 200 characters of an IMAP alert, of which its own
// words take 23 and the account's name the next. With names of usual length nothing of ours is
// cut, down to the session id; where there is no room for a part of it, that part is left out.
func TestSentencesAreWhole(t *testing.T) {
	const shown, preamble = 200, 23
	front := &Front{Room: shown - preamble}
	for _, lang := range []Language{German, English} {
		for finding, texts := range shipped[lang] {
			for action := range texts {
				p := place{lang: lang, host: "imap.example.org", port: 993, help: "https://hilfe.example.org/servernamen",
					session: "K7M29QXD4TZP", word: "IMAP", others: "POP3", date: "01.10.", until: "12:00"}
				if lang == English {
					p.date = "1 October"
				}
				for _, account := range []string{"", "anna", "erika.mustermann@example.org"[:27]} {
					p.room = front.room(account)
					if got := p.ruling(action, finding); !strings.HasSuffix(got, " https://hilfe.example.org/servernamen (K7M29QXD4TZP)") {
						t.Errorf("%s, %s, %s, %q: %d characters: %q", lang, finding, action, account, len(got), got)
					}
				}
				p.host, p.help = "imap.mail.stadtwerke-musterstadt.example", "https://www.stadtwerke-musterstadt.example/hilfe/email"
				for n := range 120 {
					account := strings.Repeat("a", n)
					p.room = front.room(account)
					got := p.ruling(action, finding)
					bare := p
					bare.help, bare.session = "", ""
					if n := preamble + n + len(got); n > shown && got != bare.ruling(action, finding) {
						t.Errorf("%s, %s: %d characters to %q: %q", lang, finding, n, account, got)
					}
				}
			}
		}
	}
	if n := new(Front).room("anna"); n != 0 {
		t.Errorf("a front whose programs show everything has room for %d characters", n)
	}
	if n := front.room(strings.Repeat("a", 8000)); n < 1 {
		t.Errorf("room for %d characters, which is no limit", n)
	}
}

func TestEveryClassHasWords(t *testing.T) {
	findings := slices.Collect(maps.Keys(shipped[German]))
	for _, name := range policy.Finding("").Values() {
		findings = append(findings, policy.Finding(name))
	}
	for _, lang := range []Language{German, English} {
		for class := NeedLogin; class <= PlainOnTLS; class++ {
			if classWords[lang][class] == "" {
				t.Errorf("%s has no words for class %d", lang, class)
			}
		}
		if len(classWords[lang]) != int(PlainOnTLS-NeedLogin)+1 {
			t.Errorf("%s has words for what is not", lang)
		}
		for _, finding := range findings {
			if len(shipped[lang][finding]) != 3 {
				t.Errorf("%s, %s: words for %d actions", lang, finding, len(shipped[lang][finding]))
			}
			for action, text := range shipped[lang][finding] {
				if problem := checkTemplate(text, action, finding, lang); problem != "" {
					t.Errorf("%s, %s, %s: %s", lang, finding, action, problem)
				}
			}
		}
	}
}

func TestCleanText(t *testing.T) {
	for in, want := range map[string]string{
		"fine": "fine", "a\r\nb\x00": "a??b?", "100% übel": "100? ?bel", "\xff": "?", strings.Repeat("ü", 300): strings.Repeat("?", 200),
	} {
		if got := CleanText(in); got != want {
			t.Errorf("%q: %q", in, got)
		}
	}
}

var idForm = regexp.MustCompile(`^[0-9A-HJKMNP-TV-Z]{12}$`)

func TestSessionIDs(t *testing.T) {
	seen := map[string]bool{}
	now := time.Now()
	for range 10_000 {
		id := newID(now)
		if !idForm.MatchString(id) || seen[id] || id[:4] != newID(now)[:4] {
			t.Fatalf("%q", id)
		}
		seen[id] = true
	}
	if newID(now)[:4] == newID(now.Add(time.Minute))[:4] {
		t.Error("the minute is not in it")
	}
	for _, at := range []time.Time{{}, time.Unix(0, 0), time.Unix(1<<40, 0)} {
		if id := newID(at); !idForm.MatchString(id) {
			t.Errorf("%q", id)
		}
	}
}

func TestSecretsDoNotPrint(t *testing.T) {
	const secret = "hunter2"
	s := Secret(secret)
	r := Request{User: "anna", Secret: s}
	m := &Master{User: "m", Secret: s}
	o := Origin{Master: m}
	// %p and %w are left out: fmt asks nobody there, but go vet refuses both.
	for _, verb := range strings.Split("v +v #v s q x X d t b o O c U e E f F g G T 10s -10v 08d .3s", " ") {
		for _, value := range []any{s, &s, r, &r, *m, m, o, []Secret{s}, map[string]Secret{"a": s}, map[Secret]int{s: 1}, struct{ S Secret }{s}} {
			if got := fmt.Sprintf("%"+verb, value); strings.Contains(got, secret) || strings.Contains(got, fmt.Sprintf("%x", secret)) {
				t.Errorf("%%%s of %T: %s", verb, value, got)
			}
		}
	}
	for _, got := range []string{fmt.Sprint(s), fmt.Sprintln(r), fmt.Sprintf("%d of %[1]v", s),
		fmt.Errorf("x: %v", s).Error(), s.String(), s.GoString()} {
		if strings.Contains(got, secret) {
			t.Error(got)
		}
	}
	for _, value := range []any{s, r, m, o, map[string]Secret{"a": s}} {
		got, err := json.Marshal(value)
		if err != nil || bytes.Contains(got, []byte(secret)) {
			t.Errorf("%s, %v", got, err)
		}
	}
	var out bytes.Buffer
	for _, encoder := range []zapcore.Encoder{zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), zapcore.NewConsoleEncoder(zap.NewDevelopmentEncoderConfig())} {
		log := zap.New(zapcore.NewCore(encoder, zapcore.AddSync(&out), zap.DebugLevel))
		log.Info("x", zap.Any("s", s), zap.Any("r", r), zap.Stringer("t", s), zap.Reflect("f", m), zap.Any("m", map[string]any{"s": s}), zap.Any("l", []Secret{s}))
		log.Sugar().Infow("y", "s", s, "r", r)
		log.Sugar().Infof("%v %s", s, r)
	}
	if strings.Contains(out.String(), secret) || !strings.Contains(out.String(), "***") {
		t.Error(out.String())
	}
	if s.Reveal() != secret {
		t.Error("the secret is lost")
	}
}
