package outreach

// From a notice's texts to the message that goes to the submission server.

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/emersion/go-message"
	"github.com/emersion/go-message/mail"
)

// Mail is a notice with its envelope's data.
type Mail struct {
	*Content
	From      mail.Address
	To        string // the account
	MessageID string // with or without angle brackets
	Date      time.Time
}

// Compose makes the message: two parts, plain text first, in ASCII and with short lines
// whatever they say, so that no server on the way has a reason to touch what has been signed.
// The same mail gives the same bytes: a copy that is sent again must be known as one.
//
// Auto-Submitted keeps absence notes away (RFC 3834 section 5). There is no Precedence, which
// is in no standard and makes some filters take a mail for advertising; no List-Unsubscribe,
// since the notice concerns the contract; no Reply-To, since From is an address that somebody
// reads.
func Compose(m Mail) ([]byte, error) {
	if m.Content == nil || m.Subject == "" || m.Text == "" || m.HTML == "" {
		return nil, fmt.Errorf("composing a notice: it has no subject, text or HTML")
	}
	if m.Date.IsZero() {
		return nil, fmt.Errorf("composing a notice: it has no date")
	}
	for what, address := range map[string]string{"sender": m.From.Address, "recipient": m.To} {
		if !mailbox(address) {
			return nil, fmt.Errorf("composing a notice: the %s %q is no mail address in ASCII", what, address)
		}
	}
	id := strings.Trim(m.MessageID, "<>")
	if !mailbox(id) {
		return nil, fmt.Errorf("composing a notice: %q is no Message-ID", m.MessageID)
	}
	var h mail.Header
	// Fields are written in the reverse of the order in which they are set.
	sum := sha256.Sum256([]byte(id))
	h.SetContentType("multipart/alternative", map[string]string{"boundary": "=_" + hex.EncodeToString(sum[:12])}) // RFC 2045 section 6.7: "=_" is in no quoted-printable text
	h.Set("Mime-Version", "1.0")
	h.Set("Content-Language", m.Lang)
	h.Set("Auto-Submitted", "auto-generated")
	h.SetMessageID(id)
	h.SetDate(m.Date)
	if isASCII(m.Subject) {
		h.SetSubject(m.Subject)
	} else {
		h.AddRaw(encoded("Subject", m.Subject))
	}
	h.SetAddressList("To", []*mail.Address{{Address: m.To}})
	if isASCII(m.From.Name) {
		h.SetAddressList("From", []*mail.Address{&m.From})
	} else {
		h.AddRaw(encoded("From", m.From.Name, "<"+m.From.Address+">"))
	}

	var out bytes.Buffer
	parts, err := message.CreateWriter(&out, h.Header)
	if err != nil {
		return nil, fmt.Errorf("composing a notice: %w", err)
	}
	for _, part := range []struct{ kind, body string }{{"text/plain", m.Text}, {"text/html", m.HTML}} {
		var h message.Header
		h.Set("Content-Transfer-Encoding", "quoted-printable")
		h.SetContentType(part.kind, map[string]string{"charset": "utf-8"})
		w, err := parts.CreatePart(h)
		if err == nil {
			_, err = io.WriteString(w, part.body)
		}
		if err == nil {
			err = w.Close()
		}
		if err != nil {
			return nil, fmt.Errorf("composing a notice: %w", err)
		}
	}
	if err := parts.Close(); err != nil {
		return nil, fmt.Errorf("composing a notice: %w", err)
	}
	return out.Bytes(), nil
}

func isASCII(text string) bool {
	return !strings.ContainsFunc(text, func(c rune) bool { return c >= utf8.RuneSelf })
}

// encoded is a header field whose text is in encoded words, one in a line of at most 76
// letters (RFC 2047 section 2). With two of them go-message makes one line of twice that.
func encoded(field, text string, after ...string) []byte {
	const most = 50 // with the marks of a word and the field's name well below 76
	var words []string
	word := ""
	for _, c := range text {
		var letter string
		switch {
		case c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9':
			letter = string(c)
		case c == ' ':
			letter = "_"
		default:
			for _, b := range []byte(string(c)) {
				letter += fmt.Sprintf("=%02X", b)
			}
		}
		if len(word)+len(letter) > most { // between letters, never within one: section 5
			words, word = append(words, word), ""
		}
		word += letter
	}
	words = append(words, word)
	for i, w := range words {
		words[i] = "=?utf-8?q?" + w + "?="
	}
	return []byte(field + ": " + strings.Join(append(words, after...), "\r\n ") + "\r\n")
}

// mailbox reports whether a text is something in ASCII on both sides of an at sign, with
// nothing in it that could end a header field or an SMTP path, or that leads elsewhere: of
// anna%gmail.com@ and anna@gmail.com@ one's own domain, servers make an address at the other's
// (in Postfix allow_percent_hack and swap_bangpath, which are on).
func mailbox(text string) bool {
	at := strings.IndexByte(text, '@')
	return at > 0 && at < len(text)-1 && len(text) <= 254 && // RFC 5321 section 4.5.3.1.3, without the angle brackets
		!strings.ContainsFunc(text, func(c rune) bool { return c <= ' ' || c >= 0x7f || strings.ContainsRune(`<>,;:\"()[]%!`, c) }) && strings.IndexByte(text[at+1:], '@') < 0
}
