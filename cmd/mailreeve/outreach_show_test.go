package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"mailreeve/config"
	"mailreeve/events"
	"mailreeve/outreach"
	"mailreeve/policy"
)

const outreachConfig = `version: 1
state: state
policy: policy.yaml
brands:
  - name: example
    default_domain: example.org
    help: https://hilfe.example.org/20-september
    hosts: { imap: [imap.example.org], pop3: [pop.example.org], submission: [smtp.example.org] }
    notices: { from: service@example.org, sender: Example Mail, envelope: notices@bounces.example.org, webmail: webmail.example.org }
listeners:
  - { address: ':993', protocol: imap, tls: implicit }
backends:
  imap: { addresses: ['127.0.0.1:143'], tls: off }
certificates: { folder: certs }
outreach:
  campaign: test
  purpose: To test.
  end: '2027-12-31'
  notices: { server: '127.0.0.1:587' }
`

const outreachPolicy = `version: 1
timezone: Europe/Berlin
requirements:
  - id: encrypted
    finding: plaintext
    require: { tls: ">=1.2" }
    stages:
      - { from: "2026-11-01", do: notify }
      - { from: "2027-09-20", do: deny }
`

// desk is a provider whose ledger has a customer with an iPhone in clear.
type desk struct{ dir, file string }

// seenAt is when the customer was seen last.
var seenAt = time.Date(2027, 8, 30, 9, 0, 0, 0, time.UTC)

func newDesk(t *testing.T) *desk {
	t.Helper()
	dir := socketDir(t)
	d := &desk{dir, filepath.Join(dir, "mailreeve.yaml")}
	for name, text := range map[string]string{"mailreeve.yaml": outreachConfig, "policy.yaml": outreachPolicy} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "state"), 0o700); err != nil {
		t.Fatal(err)
	}
	var lines []byte
	for _, day := range []int{40, 1, 0} {
		line, err := events.Encode(phone("S", seenAt.AddDate(0, 0, -day)))
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, line...)
	}
	file := filepath.Join(dir, "events.jsonl")
	if err := os.WriteFile(file, lines, 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := config.Load(d.file)
	if err != nil {
		t.Fatal(err)
	}
	l, err := openLedger(t.Context(), c, "test", func() time.Time { return seenAt.Add(time.Hour) })
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if tally, err := (&outreach.Intake{Ledger: l}).Read(t.Context(), outreach.Events, file); err != nil || tally.Logins != 3 {
		t.Fatalf("%+v, %v", tally, err)
	}
	return d
}

// phone is a login of the customer's.
func phone(id string, at time.Time) *events.Session {
	return &events.Session{V: events.Version, Kind: "session", ID: id, Time: at, Protocol: "imap", Port: 143, TLS: policy.None, Entry: policy.EntryPlain, Brand: "example",
		Host: policy.Absent, Mechanism: "PLAIN", Account: "anna@example.org", Domain: "example.org", Verified: true, Action: "notify", By: []string{"encrypted"},
		Client: "iPhone Mail 21A", ClientID: map[string]string{"name": "iPhone Mail", "version": "21A"}, IP: netip.MustParseAddr("198.51.100.7"), End: "CR", Reason: "logout"}
}

// audited are what was written down.
func (d *desk) audited(t *testing.T) (all []string) {
	t.Helper()
	c, err := config.Load(d.file)
	if err != nil {
		t.Fatal(err)
	}
	l, err := openLedger(t.Context(), c, "test", time.Now)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	entries, err := l.Audited(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		all = append(all, e.What+" "+e.Detail)
	}
	return all
}

const rehearsed = "2027-08-30T12:00:00+02:00"

func TestOutreachShow(t *testing.T) {
	d := newDesk(t)
	for _, name := range []string{"anna@example.org", "Anna"} { // as the customer says it
		out, errs, code := told("outreach", "show", name, "-c", d.file, "--now", rehearsed)
		if code != 0 {
			t.Fatal(errs)
		}
		for _, want := range []string{
			"Zuerst prüfen, wer anruft", "Konto anna@example.org, Vorgang MR-", "gesehen 2027-07-21 bis 2027-08-30", "SAGEN", "Ab dem 20. September 2027 wird das abgewiesen.",
			"IMAP 143, unverschlüsselt, PLAIN, Mail auf dem iPhone oder iPad (iOS)", "zuletzt 2027-08-30, zuerst 2027-07-21, an 3 Tagen", "ZU ÄNDERN, encrypted, seit 2027-07-21:",
			"„SSL verwenden“", "Hostname: imap.example.org", "BENACHRICHTIGUNGEN keine",
		} {
			if !strings.Contains(strings.Join(strings.Fields(out), " "), want) { // wherever lines are broken
				t.Errorf("%q is not in\n%s", want, out)
			}
		}
	}
	out, errs, code := told("outreach", "show", "anna@example.org", "-c", d.file, "--now", rehearsed, "--json", "--lang", "en")
	if code != 0 {
		t.Fatal(errs)
	}
	var s struct {
		Account string
		Devices []struct {
			Wrong []struct{ Finding policy.Finding }
		}
	}
	if err := json.Unmarshal([]byte(out), &s); err != nil || s.Account != "anna@example.org" || len(s.Devices) != 1 || s.Devices[0].Wrong[0].Finding != policy.Plaintext {
		t.Errorf("%v: %s", err, out)
	}
	if got := strings.Join(d.audited(t), "; "); strings.Count(got, "show anna@example.org") != 3 {
		t.Errorf("the audit has: %s", got)
	}
	for _, c := range []struct{ args, hint string }{
		{"show nobody@example.org", "whole addresses"},
		{"show", "show anna@example.org"},
		{"show anna --json --try-now", "leave one of them out"},
		{"show anna --lang fr", "write de or en"},
	} {
		_, errs, code := told(append(append([]string{"outreach"}, strings.Fields(c.args)...), "-c", d.file)...)
		if code == 0 || !strings.Contains(errs, "hint: ") || !strings.Contains(errs, c.hint) {
			t.Errorf("%s: code %d, %s", c.args, code, errs)
		}
	}
}

func TestOutreachPreview(t *testing.T) {
	d := newDesk(t)
	page := filepath.Join(d.dir, "notice.html")
	out, errs, code := told("outreach", "preview", "anna@example.org", "-c", d.file, "--now", rehearsed, "--html", page)
	if code != 0 {
		t.Fatal(errs)
	}
	for _, want := range []string{"From:    Example Mail <service@example.org>", "To:      anna@example.org", "Subject: Bitte bis 20. September 2027 umstellen: unverschlüsseltes Abrufen von E-Mails",
		"zuletzt am Montag, 30. August 2027", "webmail.example.org"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}
	if text, err := os.ReadFile(page); err != nil || !strings.Contains(string(text), "30. August 2027") {
		t.Errorf("the page: %v, %s", err, text)
	}
	// On the day nobody reads it in that program.
	out, errs, code = told("outreach", "preview", "anna@example.org", "-c", d.file, "--now", "2027-09-20T10:00:00+02:00", "--raw")
	if code != 0 || !strings.Contains(errs, "can fetch mail any more") || !strings.Contains(errs, "outreach call anna@example.org") {
		t.Errorf("code %d: %s", code, errs)
	}
	if !strings.HasPrefix(out, "From: ") || !strings.Contains(out, "\r\nAuto-Submitted: auto-generated\r\n") {
		t.Errorf("the message:\n%s", out)
	}
	if got := strings.Join(d.audited(t), "; "); strings.Count(got, "preview anna@example.org") != 2 {
		t.Errorf("the audit has: %s", got)
	}
	if out, errs, code = told("outreach", "preview", "--sample", "--lang", "en", "-c", d.file); code != 0 || !strings.Contains(out, "several mail programs need new settings") {
		t.Errorf("code %d: %s%s", code, out, errs)
	}
	if _, errs, code = told("outreach", "preview", "--sample", "anna", "-c", d.file); code != 2 || !strings.Contains(errs, "hint: ") {
		t.Errorf("code %d: %s", code, errs)
	}
}

// TestShowCode finds an account by the code in a refusal.
func TestShowCode(t *testing.T) {
	d := newDesk(t)
	nobody := phone("1PBQ7R2M4X9E", seenAt)
	nobody.Account, nobody.Verified, nobody.Action, nobody.Refused = "", false, "deny", "policy"
	var lines []byte
	for _, e := range []*events.Session{phone("1PBQ7R2M4X9D", seenAt), nobody} {
		line, err := events.Encode(e)
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, line...)
	}
	if err := os.WriteFile(filepath.Join(d.dir, "events.jsonl"), lines, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, errs, code := told("outreach", "show", "ipbq-7r2m-4x9d", "-c", d.file, "--now", rehearsed); code != 0 || !strings.Contains(out, "Konto anna@example.org") {
		t.Errorf("code %d: %s%s", code, out, errs)
	}
	if _, errs, code := told("outreach", "show", "1PBQ7R2M4X9E", "-c", d.file); code == 0 || !strings.Contains(errs, "deny, policy, encrypted") || !strings.Contains(errs, "policy explain 1PBQ7R2M4X9E") {
		t.Errorf("code %d: %s", code, errs)
	}
}

// TestPreviewOfNoMail holds that a letter to an account that gets no mail has the day all the same.
func TestPreviewOfNoMail(t *testing.T) {
	d := newDesk(t)
	if _, errs, code := told("outreach", "call", "anna@example.org", "-c", d.file); code != 0 {
		t.Fatal(errs)
	}
	out, errs, code := told("outreach", "preview", "anna@example.org", "-c", d.file, "--now", rehearsed)
	if code != 0 || !strings.Contains(errs, "no mail goes to this account: it is to be called instead") {
		t.Errorf("code %d: %s", code, errs)
	}
	if !strings.Contains(out, "Was am 20. September 2027 geschieht") || strings.Contains(out, "Vorerst nichts") {
		t.Errorf("the letter has no day:\n%s", out)
	}
}

func TestOutreachLint(t *testing.T) {
	d := newDesk(t)
	out, errs, code := told("outreach", "template", "de")
	if code != 0 {
		t.Fatal(errs)
	}
	folder := filepath.Join(d.dir, "notices")
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	changed := strings.Replace(out, "{{.Sender}}", "{{.Sender | nobody}}", 1)
	for name, text := range map[string]string{
		filepath.Join(folder, "de.txt"): changed,
		filepath.Join(folder, "en.txt"): changed,
		d.file:                          strings.Replace(outreachConfig, "webmail: webmail.example.org", "templates: notices", 1),
	} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	line := 1 + strings.Count(changed[:strings.Index(changed, "\n{{.Sender")+1], "\n")
	_, errs, code = told("outreach", "lint", "-c", d.file)
	if want := filepath.Join(folder, "de.txt") + ":" + strconv.Itoa(line) + ":1: function \"nobody\" not defined"; code != 1 || !strings.Contains(errs, want) {
		t.Errorf("code %d, not %q but %s", code, want, errs)
	}
	for _, name := range []string{"de.txt", "en.txt"} {
		if err := os.Remove(filepath.Join(folder, name)); err != nil {
			t.Fatal(err)
		}
	}
	if out, errs, code := told("outreach", "lint", "-c", d.file); code != 0 || !strings.Contains(out, "notices tried, all is well") || !strings.Contains(errs, "notices have no webmail") || !strings.Contains(errs, "no signature") {
		t.Errorf("code %d: %s%s", code, out, errs)
	}
	if _, errs, code = told("outreach", "template", "fr"); code != 2 || !strings.Contains(errs, "`mailreeve outreach template de`") {
		t.Errorf("code %d: %s", code, errs)
	}
}

// TestTryNow lets a customer try while the desk watches.
func TestTryNow(t *testing.T) {
	d := newDesk(t)
	// The address of today's login, by which a refusal without an account is found.
	line, err := events.Encode(phone("TODAY", time.Now().Add(-time.Hour)))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(d.dir, "events.jsonl"), line, 0o600); err != nil {
		t.Fatal(err)
	}
	l := newLookout(t, watchSocket(filepath.Join(d.dir, "state")))
	defer l.end()
	c, err := config.Load(d.file)
	if err != nil {
		t.Fatal(err)
	}
	p, err := c.Enforced()
	if err != nil {
		t.Fatal(err)
	}
	out := newTranscript()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		try := &trial{out: out, account: "anna@example.org", brand: &c.Brands[0], lang: "de", policy: p, zone: time.UTC}
		done <- try.run(ctx, c, time.Minute)
	}()
	says := func(want string) {
		t.Helper()
		if err := until(func() error {
			if !strings.Contains(strings.Join(strings.Fields(out.String()), " "), want) { // wherever lines are broken
				return fmt.Errorf("%q is not in\n%s", want, out.String())
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	says("24 Stunden benutzte (1)")
	hear := func(e *events.Session) {
		t.Helper()
		if err := until(func() error {
			if l.hear.Load() == nil {
				return errors.New("nobody watches")
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		(*l.hear.Load())(e)
	}
	refused := phone("R", time.Now())
	refused.Account, refused.Verified, refused.Action, refused.Refused = "", false, "deny", "policy"
	hear(refused)
	says("abgewiesen, die Einstellung ist veraltet (encrypted)")
	says("von derselben Adresse, Konto unbekannt")
	says("Am Passwort liegt es nicht.")
	says("„SSL verwenden“")
	wrong := phone("W", time.Now())
	wrong.Account, wrong.Verified, wrong.Action, wrong.By, wrong.TLS, wrong.Port, wrong.Refused = "", false, "pass", nil, "1.3", 993, "credential"
	hear(wrong)
	says("Benutzername oder Passwort falsch")
	good := phone("G", time.Now())
	good.Action, good.By, good.TLS, good.Port = "pass", nil, "1.3", 993
	hear(good)
	says("angemeldet, alles richtig")
	hear(good) // its end
	stranger := phone("X", time.Now())
	stranger.Account, stranger.IP = "bert@example.org", netip.MustParseAddr("203.0.113.9")
	hear(stranger)
	neighbour := phone("N", time.Now()) // of the same household, or behind the same address of a mobile network
	neighbour.Account, neighbour.Action, neighbour.By, neighbour.TLS, neighbour.Port = "bert@example.org", "pass", nil, "1.2", 995
	hear(neighbour)
	failed := phone("H", time.Now())
	failed.Account, failed.Verified, failed.Action, failed.By, failed.TLS, failed.Port, failed.Reason = "", false, "pass", nil, "", 993, "handshake_failed"
	hear(failed)
	says("Server imap.example.org, Port 993")
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if text := out.String(); strings.Count(text, "alles richtig") != 1 || strings.Contains(text, "995") {
		t.Errorf("said twice, or of a stranger:\n%s", text)
	}
}

// TestPlacesOf takes the last day alone, and networks for IPv6.
func TestPlacesOf(t *testing.T) {
	dir := t.TempDir()
	now := time.Now()
	var lines []byte
	for _, s := range []struct {
		ip, account string
		ago         time.Duration
	}{
		{"192.0.2.1", "anna@example.org", 25 * time.Hour}, {"192.0.2.2", "anna@example.org", 23 * time.Hour}, {"2001:db8::1:2", "anna@example.org", time.Hour},
		{"2001:db8::1:3", "anna@example.org", time.Minute}, {"192.0.2.3", "joanna@example.org", time.Hour}, {"192.0.2.4", "", time.Hour},
	} {
		e := phone("P", now.Add(-s.ago))
		e.Account, e.IP = s.account, netip.MustParseAddr(s.ip)
		line, err := events.Encode(e)
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, line...)
	}
	if err := os.WriteFile(filepath.Join(dir, "events.jsonl"), lines, 0o600); err != nil {
		t.Fatal(err)
	}
	places, err := placesOf(dir, "anna@example.org", now)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, p := range places {
		got = append(got, p.String())
	}
	if want := "2001:db8::/64 192.0.2.2/32"; strings.Join(got, " ") != want {
		t.Errorf("%v, not %s", got, want)
	}
}

// TestTrialJudges holds that each way in which a login can end has words, and no refusal of
// policy sounds like a wrong password.
func TestTrialJudges(t *testing.T) {
	p := policy.Enforced()
	b := &config.Brand{Name: "example", Hosts: map[config.Protocol][]config.Host{"imap": {"imap.example.org"}}}
	for _, lang := range []string{"de", "en"} {
		tr := &trial{out: io.Discard, account: "anna@example.org", brand: b, lang: lang, policy: p, zone: time.UTC, shown: map[string]string{}}
		said := map[string]string{}
		for name, change := range map[string]func(*events.Session){
			"good":         func(e *events.Session) { e.By, e.Action = nil, "pass" },
			"kept":         func(e *events.Session) {},
			"warned":       func(e *events.Session) { e.Action, e.Told = "warn", true },
			"denied":       func(e *events.Session) { e.Action, e.Refused = "deny", "policy" },
			"tempfail":     func(e *events.Session) { e.Action, e.Refused = "tempfail", "policy_for_now" },
			"credential":   func(e *events.Session) { e.Verified, e.By, e.Action, e.Refused = false, nil, "pass", "credential" },
			"mechanism":    func(e *events.Session) { e.Verified, e.By, e.Action, e.Refused = false, nil, "pass", "mechanism" },
			"no_access":    func(e *events.Session) { e.Verified, e.By, e.Action, e.Refused = false, nil, "pass", "no_access" },
			"unavailable":  func(e *events.Session) { e.Verified, e.By, e.Action, e.Refused = false, nil, "pass", "unavailable" },
			"login_needed": func(e *events.Session) { e.Verified, e.By, e.Action, e.Refused = false, nil, "pass", "login_needed" },
			"handshake":    func(e *events.Session) { e.Verified, e.By, e.Action, e.Reason = false, nil, "pass", "handshake_failed" },
			"left":         func(e *events.Session) { e.Verified, e.By, e.Action = false, nil, "pass" },
		} {
			e := phone(name, time.Now())
			change(e)
			what, sees, next := tr.judge(e)
			if what == "" || len(next) == 0 || strings.Contains(what+sees+strings.Join(next, ""), "%!") {
				t.Errorf("%s %s: %q, %q, %q", lang, name, what, sees, next)
			}
			if other, ok := said[what+sees]; ok {
				t.Errorf("%s: %s and %s sound alike", lang, name, other)
			}
			said[what+sees] = name
			if e.Action == "pass" && e.Refused != "" { // over TLS the backend is asked first, whatever policy wants
				e.Action, e.By = "deny", []string{"encrypted"}
				if again, _, _ := tr.judge(e); (again == what) != (e.Refused == "credential" || e.Refused == "no_access" || e.Refused == "unavailable") {
					t.Errorf("%s %s: under a refusal it is called %q", lang, name, again)
				}
			}
			if credential := what == trialWords[lang]["credential"]; credential != (name == "credential") {
				t.Errorf("%s %s: it is called %q", lang, name, what)
			}
		}
	}
}
