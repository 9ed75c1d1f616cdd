package outreach

import (
	"flag"
	"os"
	"path/filepath"
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
