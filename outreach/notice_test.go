package outreach

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"mailreeve/config"
	"mailreeve/policy"
)

var update = flag.Bool("update", false, "write golden files anew")

var noticeZone = func() *time.Location {
	zone, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		panic(err)
	}
	return zone
}()

// noticeBrand is the brand of most tests.
func noticeBrand() *config.Brand {
	return &config.Brand{
		Name: "example", Language: "de", Help: "https://hilfe.example.org/20-september",
		Hosts: map[config.Protocol][]config.Host{"imap": {"imap.example.org"}, "pop3": {"pop.example.org"}, "submission": {"smtp.example.org"}},
		Notices: &config.BrandNotices{
			From: "service@example.org", Sender: "Kundenservice der Example Mail", Envelope: "notices@bounces.example.org",
			Phone: "0800 1234567 (Mo-Fr 8-18 Uhr, gebührenfrei)", Webmail: "webmail.example.org", Signature: "Example Mail GmbH, Hauptstraße 1, 12345 Beispielstadt",
		},
	}
}

var (
	noticeDay = time.Date(2027, 9, 20, 0, 0, 0, 0, noticeZone)
	noticeNow = time.Date(2027, 6, 1, 10, 0, 0, 0, noticeZone)
)

// goldenNotice compares with a file of testdata.
func goldenNotice(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s is another; after an intended change write it anew with -update and read the difference\n%s", path, got)
	}
}

// TestLetters holds whole letters, to be read by people.
func TestLetters(t *testing.T) {
	for name, of := range map[string]struct {
		lang string
		now  time.Time
		uses []SampleUse
	}{
		"notice.de.early.txt": {"de", noticeNow, SeveralUses},
		"notice.en.early.txt": {"en", noticeNow, SeveralUses},
		"notice.de.soon.txt":  {"de", noticeDay.AddDate(0, 0, -7), SeveralUses[2:3]},
		"notice.en.soon.txt":  {"en", noticeDay.AddDate(0, 0, -7), SeveralUses[2:3]},
		"notice.de.day.txt":   {"de", noticeDay.Add(10 * time.Hour), SeveralUses[3:]},
		"notice.en.after.txt": {"en", noticeDay.Add(82 * time.Hour), SeveralUses[:1]},
		"notice.de.collector.txt": {"de", noticeNow, []SampleUse{{Class: "collector", Protocol: "pop3", Network: "hosting",
			Findings: []policy.Finding{policy.Plaintext}}}},
	} {
		t.Run(name, func(t *testing.T) {
			n := Sample(noticeBrand(), of.lang, noticeDay, of.now, noticeZone, of.uses...)
			c, err := Write(n)
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range c.Lint(&n) {
				t.Error(p)
			}
			goldenNotice(t, name, "Subject: "+c.Subject+"\n\n"+c.Text)
		})
	}
}

func noticeTime(t *testing.T, text string) time.Time {
	t.Helper()
	when, err := time.Parse(time.RFC3339, text)
	if err != nil {
		t.Fatal(err)
	}
	return when
}

// TestMeans holds that a requirement of a version speaks of encryption as each login had it.
func TestMeans(t *testing.T) {
	for name, c := range map[string]struct {
		of   policy.Finding
		tls  []string
		want policy.Finding
	}{
		"in clear":               {policy.Plaintext, []string{policy.None}, policy.Plaintext},
		"outdated":               {policy.Plaintext, []string{"1.0", "1.1"}, policy.TLSOld},
		"both":                   {policy.Plaintext, []string{"1.0", policy.None}, policy.Plaintext},
		"not known":              {policy.Plaintext, []string{""}, policy.Plaintext},
		"in clear, called old":   {policy.TLSOld, []string{policy.None}, policy.Plaintext},
		"outdated, as is called": {policy.TLSOld, []string{"1.0"}, policy.TLSOld},
		"something else":         {policy.LegacyHostname, []string{"1.0"}, policy.LegacyHostname},
	} {
		t.Run(name, func(t *testing.T) {
			f := Finding{Rule: &policy.Requirement{Finding: c.of}}
			for _, version := range c.tls {
				f.Uses = append(f.Uses, &Use{Shape: Shape{TLS: version}})
			}
			if got := f.Means(); got != c.want {
				t.Errorf("%s, not %s", got, c.want)
			}
		})
	}
}

// TestVersionsInALetter holds that who encrypts by an old version is not told that nothing is encrypted.
func TestVersionsInALetter(t *testing.T) {
	p, err := policy.New("versions", []policy.Requirement{{ID: "encrypted", Finding: policy.Plaintext,
		Require: policy.Matcher{{Fact: policy.TLS, Values: []string{"1.2", "1.3"}}},
		Stages:  []policy.Stage{{From: noticeNow.AddDate(0, -1, 0), Do: policy.Notify}, {From: noticeDay, Do: policy.Deny}}}})
	if err != nil {
		t.Fatal(err)
	}
	a := supportAccount()
	a.Uses = a.Uses[:1]
	a.Uses[0].TLS, a.Uses[0].Port = "1.0", 993
	c, err := Write(NoticeInput{Account: a, Findings: Findings(p, a, noticeNow, noticeZone), Brand: noticeBrand(), T: noticeDay, Case: "MR-0000-0000", Zone: noticeZone, Now: noticeNow})
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(c.Subject, "veraltete") || strings.Contains(c.Subject+c.Text, "ohne Verschlüsselung") || !strings.Contains(c.Text, "TLS 1.2") {
		t.Errorf("%s\n\n%s", c.Subject, c.Text)
	}
	s := NewSupport(p, nil, a, nil, "", noticeBrand(), "de", noticeZone, noticeNow)
	if d := s.Devices[0]; d.Wrong[0].Finding != policy.TLSOld || !strings.Contains(d.Wrong[0].Meaning, "veraltet") || !strings.Contains(strings.Join(d.Steps, " "), "Update") {
		t.Errorf("the desk is told: %+v", d)
	}
}
