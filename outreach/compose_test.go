package outreach

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-message/mail"
)

func noticeMail(t *testing.T) Mail {
	t.Helper()
	c, err := Write(Sample(noticeBrand(), "de", noticeDay, noticeNow, noticeZone, SeveralUses...))
	if err != nil {
		t.Fatal(err)
	}
	return Mail{Content: c, From: mail.Address{Name: "Kundenservice Müller & Söhne", Address: "service@example.org"},
		To: "erika.mustermann@example.org", MessageID: "mr-0000-0000.t-28.abc@bounces.example.org", Date: noticeNow}
}

// TestComposeLong holds that what a provider calls itself, and what a notice is about, make no long
// lines: a word of RFC 2047 stands in one of at most 76.
func TestComposeLong(t *testing.T) {
	m := noticeMail(t)
	m.Subject = "Bis 30. September 2027 ändern: Ein Gerät verschlüsselt Ihre 10 €-E-Mails \"=?_veraltet"
	m.From.Name = strings.Repeat("Kundenservice der Stadtwerke Müllheim & Söhne, ", 3) + "🙂"
	data, err := Compose(m)
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(data) {
		if len(line) > 76+2 {
			t.Errorf("a line of %d bytes: %q", len(line), line)
		}
	}
	r, err := mail.CreateReader(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := r.Header.Subject(); err != nil || got != m.Subject {
		t.Errorf("subject %q, %v", got, err)
	}
	if from, err := r.Header.AddressList("From"); err != nil || len(from) != 1 || *from[0] != m.From {
		t.Errorf("from %v, %v", from, err)
	}
}

func TestCompose(t *testing.T) {
	m := noticeMail(t)
	data, err := Compose(m)
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(data) {
		if len(line) > 78+2 {
			t.Errorf("a line of %d bytes: %q", len(line), line)
		}
		if !bytes.HasSuffix(line, []byte("\r\n")) {
			t.Errorf("a line does not end in CRLF: %q", line)
		}
		if i := bytes.IndexFunc(line, func(c rune) bool { return c > 126 }); i >= 0 {
			t.Errorf("a line is not in ASCII: %q", line)
		}
	}
	r, err := mail.CreateReader(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	for field, want := range map[string]string{
		"To": "<erika.mustermann@example.org>", "Message-Id": "<mr-0000-0000.t-28.abc@bounces.example.org>", "Auto-Submitted": "auto-generated",
		"Content-Language": "de", "Date": "Tue, 01 Jun 2027 10:00:00 +0200", "Mime-Version": "1.0",
	} {
		if got := r.Header.Get(field); got != want {
			t.Errorf("%s: %q, not %q", field, got, want)
		}
	}
	for _, field := range []string{"Reply-To", "Precedence", "List-Id", "List-Unsubscribe", "X-Mailer", "Feedback-Id"} {
		if r.Header.Has(field) {
			t.Errorf("%s is there: %q", field, r.Header.Get(field))
		}
	}
	if got, err := r.Header.Subject(); err != nil || got != m.Subject {
		t.Errorf("subject %q, %v", got, err)
	}
	if from, err := r.Header.AddressList("From"); err != nil || len(from) != 1 || *from[0] != m.From {
		t.Errorf("from %v, %v", from, err)
	}
	var kinds []string
	for {
		p, err := r.NextPart()
		if err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		kind, params, err := p.Header.(*mail.InlineHeader).ContentType()
		if err != nil || params["charset"] != "utf-8" {
			t.Errorf("%s %v, %v", kind, params, err)
		}
		kinds = append(kinds, kind)
		body, err := io.ReadAll(p.Body)
		if err != nil {
			t.Fatal(err)
		}
		want := map[string]string{"text/plain": m.Text, "text/html": m.HTML}[kind]
		if got := strings.ReplaceAll(string(body), "\r\n", "\n"); got != want {
			t.Errorf("%s comes back as another:\n%s", kind, got)
		}
	}
	if got := strings.Join(kinds, " "); got != "text/plain text/html" {
		t.Errorf("parts: %s", got)
	}
	again, err := Compose(m)
	if err != nil || !bytes.Equal(data, again) {
		t.Errorf("the same notice has other bytes the second time, %v", err)
	}
}

// TestComposeRefuses holds that nothing of an account's name becomes a header field or another
// recipient.
func TestComposeRefuses(t *testing.T) {
	for _, to := range []string{"", "kunde", "@example.org", "kunde@", "a@example.org, b@example.org", "a@example.org\r\nBcc: b@example.org",
		"a@example.org>", "a@example.net@example.org", "a%example.net@example.org", "example.net!a@example.org", "künde@example.org", "a b@example.org", strings.Repeat("a", 250) + "@example.org"} {
		m := noticeMail(t)
		m.To = to
		if data, err := Compose(m); err == nil {
			t.Errorf("to %q: it was composed:\n%s", to, data[:200])
		}
	}
	m := noticeMail(t)
	m.From.Name, m.Content.Subject = "Service\r\nBcc: x@example.org", "Bis morgen\r\nBcc: x@example.org\r\n\r\nText"
	data, err := Compose(m)
	if err != nil {
		t.Fatal(err)
	}
	r, err := mail.CreateReader(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	if r.Header.Has("Bcc") {
		t.Error("a line break in a text made a header field")
	}
	m = noticeMail(t)
	m.MessageID = "no id"
	if _, err := Compose(m); err == nil {
		t.Error("no Message-ID was taken for one")
	}
	m = noticeMail(t)
	m.Date = time.Time{}
	if _, err := Compose(m); err == nil {
		t.Error("a mail was composed without a date")
	}
}
