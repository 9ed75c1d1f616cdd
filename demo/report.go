package demo

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/emersion/go-message"
	"github.com/emersion/go-message/mail"
	"github.com/emersion/go-message/textproto"
	"github.com/emersion/go-smtp"
)

// report sends the sender a delivery report (RFC 3464) for those recipients for
// whom it was requested. The return path may name nobody here: then there is
// nowhere to send it.
func (s *smtpSession) report(e envelope, original []byte, now time.Time) error {
	sender := s.backends.account(e.from)
	notify := slices.DeleteFunc(slices.Clone(e.to), func(to recipient) bool {
		return !slices.Contains(to.options.Notify, smtp.DSNNotifySuccess)
	})
	if sender == nil || e.from == "" || len(notify) == 0 {
		return nil
	}

	var status strings.Builder
	fmt.Fprintf(&status, "Reporting-MTA: dns; %s\r\nArrival-Date: %s\r\n", Domain, now.Format(time.RFC1123Z))
	if e.mail.EnvelopeID != "" {
		fmt.Fprintf(&status, "Original-Envelope-Id: %s\r\n", e.mail.EnvelopeID)
	}
	for _, to := range notify {
		status.WriteString("\r\n")
		if o := to.options; o.OriginalRecipient != "" {
			fmt.Fprintf(&status, "Original-Recipient: %s; %s\r\n", o.OriginalRecipientType, o.OriginalRecipient)
		}
		fmt.Fprintf(&status, "Final-Recipient: rfc822; %s\r\nAction: delivered\r\nStatus: 2.0.0\r\n", to.name)
	}

	var h mail.Header
	h.SetDate(now)
	h.SetAddressList("From", []*mail.Address{{Name: "Mail Delivery System", Address: "mailer-daemon@" + Domain}})
	h.SetAddressList("To", []*mail.Address{{Address: e.from}})
	h.SetSubject("Delivered: your message has arrived")
	h.Set("Auto-Submitted", "auto-replied") // RFC 3834
	h.SetContentType("multipart/report", map[string]string{"report-type": "delivery-status"})
	if err := h.GenerateMessageIDWithHostname(Domain); err != nil {
		return err
	}
	var b bytes.Buffer
	w, err := message.CreateWriter(&b, h.Header)
	if err != nil {
		return err
	}
	for _, part := range []struct{ contentType, body string }{
		{"text/plain", "Your message was delivered.\r\n"},
		{"message/delivery-status", status.String()},
		{"text/rfc822-headers", string(top(original, 0))},
	} {
		if err := writePart(w, part.contentType, part.body); err != nil {
			return err
		}
	}
	if err := w.Close(); err != nil {
		return err
	}
	return sender.append(append([]byte("Return-Path: <>\r\n"), b.Bytes()...), now)
}

// writePart writes one part of a multipart message.
func writePart(w *message.Writer, contentType, body string) error {
	part, err := w.CreatePart(message.Header{Header: textproto.HeaderFromMap(map[string][]string{
		"Content-Type": {contentType},
	})})
	if err != nil {
		return err
	}
	if _, err := io.WriteString(part, body); err != nil {
		return err
	}
	return part.Close()
}
