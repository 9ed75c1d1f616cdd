package demo

import (
	"bytes"
	"fmt"
	"io"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-message/mail"
)

// sample is a message that an account finds on arrival.
type sample struct {
	to         string // bare account name
	from       mail.Address
	subject    string
	text       string
	attachment string        // content of a text file; empty means none
	age        time.Duration // before the start of the servers
	seen       bool
}

// samples are the messages of anna and bert, oldest first.
var samples = []sample{{
	to:      "anna",
	from:    mail.Address{Name: "Kundendienst", Address: "hilfe@" + Domain},
	subject: "Willkommen in Ihrem neuen Postfach",
	text: "Guten Tag, Frau Albers,\n\nIhr Postfach ist eingerichtet. Die Einstellungen für Ihr Mailprogramm:\n\n" +
		"  Posteingang    imap." + Domain + ", Port 993, SSL/TLS\n" +
		"  Postausgang    smtp." + Domain + ", Port 465, SSL/TLS\n" +
		"  Anmeldung      Passwort, normal\n\nMit freundlichen Grüßen\nIhr Kundendienst\n",
	age:  21 * 24 * time.Hour,
	seen: true,
}, {
	to:      "anna",
	from:    mail.Address{Name: "Bert Brauer", Address: "bert@" + Domain},
	subject: "Schöne Grüße aus Köln – und die Fotos?",
	text:    "Liebe Anna,\n\nin Köln regnet es, aber der Kuchen war großartig.\nSchickst du mir die Fotos vom Straßenfest?\n\nBert\n",
	age:     5 * 24 * time.Hour,
}, {
	to:         "anna",
	from:       mail.Address{Name: "Carol Finch", Address: "carol@books.example"},
	subject:    "Reading list for the book club",
	text:       "Hi Anna,\n\nthe list for this winter is attached. We start with number one.\n\nCarol\n",
	attachment: "1. The Wall Jumper, Peter Schneider\n2. Austerlitz, W. G. Sebald\n3. Visitation, Jenny Erpenbeck\n",
	age:        30 * time.Hour,
}, {
	to:      "anna",
	from:    mail.Address{Name: "Dentist Dr. Okoye", Address: "practice@dentist.example"},
	subject: "Your appointment on Thursday",
	text:    "Dear Ms Albers,\n\nwe look forward to seeing you on Thursday at 9:15.\n.\nThe dot above is there to try out dot-stuffing.\n",
	age:     2 * time.Hour,
}, {
	to:      "bert",
	from:    mail.Address{Name: "Customer Care", Address: "help@" + Domain},
	subject: "Welcome to your new mailbox",
	text: "Dear Mr Brauer,\n\nyour mailbox is ready. The settings for your mail program:\n\n" +
		"  Incoming mail  pop." + Domain + ", port 995, SSL/TLS\n" +
		"  Outgoing mail  smtp." + Domain + ", port 465, SSL/TLS\n" +
		"  Authentication normal password\n\nYours sincerely\nCustomer Care\n",
	age:  20 * 24 * time.Hour,
	seen: true,
}, {
	to:         "bert",
	from:       mail.Address{Name: "Fahrradwerkstatt Müller", Address: "werkstatt@rad.example"},
	subject:    "Ihre Rechnung für das Vorderrad",
	text:       "Guten Tag, Herr Brauer,\n\nIhr Rad ist fertig. Die Rechnung liegt bei.\n\nViele Grüße\nWerkstatt Müller\n",
	attachment: "Vorderrad zentriert     28,00 EUR\nSpeiche ersetzt          4,50 EUR\nSumme                   32,50 EUR\n",
	age:        3 * 24 * time.Hour,
}, {
	to:      "bert",
	from:    mail.Address{Name: "Anna Albers", Address: "anna@" + Domain},
	subject: "Lunch on Friday?",
	text:    "Hi Bert,\n\nthe new place at the harbour, half past twelve?\n\nAnna\n",
	age:     4 * time.Hour,
}}

// addSamples adds anna and bert with their messages.
func (b *Backends) addSamples(now time.Time) error {
	for _, name := range []string{"anna", "bert"} {
		if err := b.AddAccount(name, Password); err != nil {
			return err
		}
	}
	for _, s := range samples {
		arrived := now.Add(-s.age)
		message, err := s.compose(arrived)
		if err != nil {
			return fmt.Errorf("compose %q: %w", s.subject, err)
		}
		var flags []imap.Flag
		if s.seen {
			flags = append(flags, imap.FlagSeen)
		}
		if err := b.account(s.to).append(message, arrived, flags...); err != nil {
			return err
		}
	}
	return nil
}

// compose writes the message as it goes over the wire.
func (s sample) compose(date time.Time) ([]byte, error) {
	var h mail.Header
	h.SetDate(date)
	h.SetAddressList("From", []*mail.Address{&s.from})
	h.SetAddressList("To", []*mail.Address{{Address: s.to + "@" + Domain}})
	h.SetSubject(s.subject)
	if err := h.GenerateMessageIDWithHostname(Domain); err != nil {
		return nil, err
	}
	var (
		b    bytes.Buffer
		text = map[string]string{"charset": "utf-8"}
	)
	if s.attachment == "" {
		h.SetContentType("text/plain", text)
		w, err := mail.CreateSingleInlineWriter(&b, h)
		if err == nil {
			err = writeAll(w, s.text)
		}
		return b.Bytes(), err
	}
	w, err := mail.CreateWriter(&b, h)
	if err != nil {
		return nil, err
	}
	var inline mail.InlineHeader
	inline.SetContentType("text/plain", text)
	part, err := w.CreateSingleInline(inline)
	if err == nil {
		err = writeAll(part, s.text)
	}
	if err != nil {
		return nil, err
	}
	var attached mail.AttachmentHeader
	attached.SetContentType("text/plain", text)
	attached.SetFilename("attachment.txt")
	if part, err = w.CreateAttachment(attached); err == nil {
		err = writeAll(part, s.attachment)
	}
	if err != nil {
		return nil, err
	}
	err = w.Close()
	return b.Bytes(), err
}

// writeAll writes and closes.
func writeAll(w io.WriteCloser, text string) error {
	if _, err := io.WriteString(w, text); err != nil {
		return err
	}
	return w.Close()
}
