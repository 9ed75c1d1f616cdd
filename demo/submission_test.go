package demo_test

import (
	"errors"
	"io"
	"regexp"
	"strings"
	"testing"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"

	"mailreeve/demo"
)

// submission opens a Submission session that ends with the test.
func submission(t *testing.T, b *demo.Backends) *smtp.Client {
	t.Helper()
	c := smtp.NewClient(dial(t, b.Submission))
	t.Cleanup(func() { c.Close() })
	if err := c.Hello("laptop.example"); err != nil {
		t.Fatal(err)
	}
	return c
}

// submit sends a message as anna.
func submit(t *testing.T, b *demo.Backends, from string, to []string, message string) error {
	t.Helper()
	c := submission(t, b)
	if err := c.Auth(sasl.NewPlainClient("", "anna", demo.Password)); err != nil {
		return err
	}
	if err := c.SendMail(from+"@"+demo.Domain, to, strings.NewReader(message)); err != nil {
		return err
	}
	return c.Quit()
}

func TestSubmission(t *testing.T) {
	b := start(t)
	carla(t, b)
	const text = "Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n\r\n.A dot\r\nÄÖÜ\r\n"
	if err := submit(t, b, "anna", []string{"bert@demo.example", "Carla@demo.example"}, text); err != nil {
		t.Fatal(err)
	}
	got := inbox(t, b, "carla", "pass word ")
	if len(got) != 1 {
		t.Fatalf("carla has %d messages", len(got))
	}
	want := regexp.MustCompile(`^Return-Path: <anna@demo.example>
Received: from laptop.example \(\[127\.0\.0\.1\]\)
	\(authenticated as anna@demo.example\)
	by demo.example with ESMTPA
	for <Carla@demo.example>; [^\n]+
Subject: =\?utf-8\?q\?Gr=C3=BC=C3=9Fe\?=

\.A dot
ÄÖÜ
$`)
	if !want.MatchString(got[0]) {
		t.Errorf("got %s\nwant %s", got[0], want)
	}
	if strings.Contains(got[0], "bert") {
		t.Error("carla learns of the other recipient")
	}
	if got := inbox(t, b, "bert", demo.Password); len(got) != 4 {
		t.Errorf("bert has %d messages, want 4", len(got))
	}
}

func TestSubmissionExtensions(t *testing.T) {
	b := start(t)
	script(t, b.Submission, `
		S: 220 demo.example ESMTP Service Ready
		C: EHLO laptop.example
		S: 250-Hello laptop.example
		S: 250-PIPELINING
		S: 250-8BITMIME
		S: 250-ENHANCEDSTATUSCODES
		S: 250-CHUNKING
		S: 250-AUTH PLAIN LOGIN
		S: 250-SMTPUTF8
		S: 250-DSN
		S: 250 SIZE 52428800
		C: AUTH LOGIN
		S: 334 VXNlcm5hbWU6
		C: YW5uYQ==
		S: 334 UGFzc3dvcmQ6
		C: ZGVtbw==
		S: 235 2.0.0 ...
		C: MAIL FROM:<anna@demo.example> SIZE=52428801
		S: 552 5.3.4 ...
		C: MAIL FROM:<anna@demo.example> BODY=8BITMIME SMTPUTF8
		S: 250 2.0.0 ...
		C: RCPT TO:<bert@demo.example>
		S: 250 2.0.0 ...
		C: BDAT 7
		C: Subje
		S: 250 2.0.0 ...
		C: BDAT 9 LAST
		C: ct: x
		C: 
		S: 250 2.0.0 ...
		C: QUIT
		S: 221 2.0.0 ...
		EOF`)
}

func TestSubmissionRefusals(t *testing.T) {
	b := start(t)
	c := submission(t, b)
	refused(t, c.Mail("anna@demo.example", nil), 530, smtp.EnhancedCode{5, 7, 0})
	refused(t, c.Auth(sasl.NewPlainClient("", "anna", "wrong")), 535, smtp.EnhancedCode{5, 7, 8})
	refused(t, c.Auth(sasl.NewPlainClient("bert", "anna", demo.Password)), 535, smtp.EnhancedCode{5, 7, 8})
	refused(t, c.Auth(sasl.NewExternalClient("")), 504, smtp.EnhancedCode{5, 7, 4})
	if err := c.Auth(sasl.NewLoginClient("anna@demo.example", demo.Password)); err != nil {
		t.Fatal(err)
	}
	if err := c.Mail("anna@demo.example", nil); err != nil {
		t.Fatal(err)
	}
	for _, to := range []string{"nobody@demo.example", "anna@elsewhere.example"} {
		refused(t, c.Rcpt(to, nil), 550, smtp.EnhancedCode{5, 1, 1})
	}
	if err := c.Rcpt("Bert@demo.example", nil); err != nil {
		t.Error(err)
	}
	if err := c.Reset(); err != nil {
		t.Error(err)
	}
	_, err := c.Data()
	refused(t, err, 502, smtp.EnhancedCode{5, 5, 1})
	if got := inbox(t, b, "bert", demo.Password); len(got) != 3 {
		t.Errorf("bert has %d messages, want 3", len(got))
	}
}

// refused wants an SMTP error.
func refused(t *testing.T, err error, code int, enhanced smtp.EnhancedCode) {
	t.Helper()
	var got *smtp.SMTPError
	if !errors.As(err, &got) || got.Code != code || got.EnhancedCode != enhanced {
		t.Errorf("want %d %v, got %v", code, enhanced, err)
	}
}

func TestSubmissionUTF8(t *testing.T) {
	b := start(t)
	carla(t, b)
	c := submission(t, b)
	if err := c.Auth(sasl.NewPlainClient("", "anna", demo.Password)); err != nil {
		t.Fatal(err)
	}
	if err := c.Mail("jörg@demo.example", &smtp.MailOptions{UTF8: true}); err != nil {
		t.Fatal(err)
	}
	send(t, c, "carla@demo.example", nil)
	got := inbox(t, b, "carla", "pass word ")
	if len(got) != 1 || !strings.Contains(got[0], "with UTF8SMTPA\n") || !strings.HasPrefix(got[0], "Return-Path: <jörg@demo.example>\n") {
		t.Errorf("got %q", got)
	}
}

// send completes a message after MAIL.
func send(t *testing.T, c *smtp.Client, to string, options *smtp.RcptOptions) {
	t.Helper()
	if err := c.Rcpt(to, options); err != nil {
		t.Fatal(err)
	}
	w, err := c.Data()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, "Subject: x\r\n\r\nText.\r\n"); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestDeliveryReport(t *testing.T) {
	b := start(t)
	carla(t, b)
	c := submission(t, b)
	if err := c.Auth(sasl.NewPlainClient("", "anna", demo.Password)); err != nil {
		t.Fatal(err)
	}
	notify := &smtp.RcptOptions{
		Notify:                []smtp.DSNNotify{smtp.DSNNotifySuccess},
		OriginalRecipientType: smtp.DSNAddressTypeRFC822,
		OriginalRecipient:     "berti@demo.example",
	}
	if err := c.Mail("carla@demo.example", &smtp.MailOptions{EnvelopeID: "e17"}); err != nil {
		t.Fatal(err)
	}
	send(t, c, "bert@demo.example", notify)
	got := inbox(t, b, "carla", "pass word ")
	if len(got) != 1 {
		t.Fatalf("carla has %d messages", len(got))
	}
	for _, want := range []string{
		"Return-Path: <>\n",
		"To: <carla@demo.example>\n",
		"Original-Envelope-Id: e17\n\n" +
			"Original-Recipient: RFC822; berti@demo.example\n" +
			"Final-Recipient: rfc822; bert@demo.example\n" +
			"Action: delivered\n" +
			"Status: 2.0.0\n",
		"Content-Type: text/rfc822-headers\n\nSubject: x\n\n",
	} {
		if !strings.Contains(got[0], want) {
			t.Errorf("no %q in\n%s", want, got[0])
		}
	}

	// Nobody is told of the rest: not asked for, no return path, not here.
	for from, options := range map[string]*smtp.RcptOptions{
		"carla@demo.example":      nil,
		"":                        notify,
		"carla@elsewhere.example": notify,
	} {
		if err := c.Mail(from, nil); err != nil {
			t.Fatal(err)
		}
		send(t, c, "bert@demo.example", options)
	}
	if got := inbox(t, b, "carla", "pass word "); len(got) != 1 {
		t.Errorf("carla has %d messages", len(got))
	}
}
