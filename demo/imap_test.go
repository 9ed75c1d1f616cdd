package demo_test

import (
	"errors"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
	"github.com/emersion/go-sasl"

	"mailreeve/demo"
)

func TestIMAPLogin(t *testing.T) {
	b := start(t)
	for _, name := range []string{"anna@demo.example", "anna", "ANNA@DEMO.example"} {
		imapLogin(t, b, name, demo.Password, nil)
	}
	c := imapclient.New(dial(t, b.IMAP), nil)
	defer c.Close()
	for name, password := range map[string]string{"anna": "wrong", "nobody": demo.Password, "": ""} {
		err := c.Login(name, password).Wait()
		var refused *imap.Error
		if !errors.As(err, &refused) || refused.Code != imap.ResponseCodeAuthenticationFailed {
			t.Errorf("%q: want AUTHENTICATIONFAILED, got %v", name, err)
		}
	}
	if err := c.Authenticate(sasl.NewPlainClient("", "anna", demo.Password)); err != nil {
		t.Error(err)
	}
}

func TestIMAPAuthenticate(t *testing.T) {
	b := start(t)
	const greeting = "\nS: * OK [CAPABILITY IMAP4rev2 IMAP4rev1 SASL-IR LITERAL- AUTH=PLAIN AUTH=LOGIN] ...\n"
	for name, text := range map[string]string{
		"PLAIN without initial response": `
			C: a AUTHENTICATE PLAIN
			S: + 
			C: AGFubmEAZGVtbw==
			S: a OK [CAPABILITY ...`,
		"LOGIN": `
			C: a AUTHENTICATE LOGIN
			S: + VXNlcm5hbWU6
			C: YW5uYQ==
			S: + UGFzc3dvcmQ6
			C: ZGVtbw==
			S: a OK [CAPABILITY ...`,
		"own identity": `
			C: a AUTHENTICATE PLAIN YW5uYUBkZW1vLmV4YW1wbGUAYW5uYQBkZW1v
			S: a OK [CAPABILITY ...`,
		"identity of another": `
			C: a AUTHENTICATE PLAIN YmVydABhbm5hAGRlbW8=
			S: a NO [AUTHENTICATIONFAILED] Authentication failed`,
		"PLAIN without password": `
			C: a AUTHENTICATE PLAIN YW5uYQ==
			S: a NO [AUTHENTICATIONFAILED] Authentication failed`,
		"wrong password": `
			C: a AUTHENTICATE PLAIN AGFubmEAd3Jvbmc=
			S: a NO [AUTHENTICATIONFAILED] Authentication failed`,
		"unknown mechanism": `
			C: a AUTHENTICATE CRAM-MD5
			S: a NO Mechanism not supported, use one of PLAIN, LOGIN`,
	} {
		t.Run(name, func(t *testing.T) { script(t, b.IMAP, greeting+text) })
	}
}

func TestIMAPCapabilities(t *testing.T) {
	b := start(t)
	script(t, b.IMAP, `
		S: * OK ...
		C: a LOGIN anna demo
		S: a OK [CAPABILITY IMAP4rev2 IMAP4rev1 SASL-IR LITERAL- UNSELECT ENABLE IDLE UTF8=ACCEPT NAMESPACE UIDPLUS ESEARCH SEARCHRES LIST-EXTENDED LIST-STATUS MOVE STATUS=SIZE BINARY CHILDREN LITERAL+ APPENDLIMIT=52428800] Logged in
		C: b NAMESPACE
		S: * NAMESPACE (("" "/")) NIL NIL
		S: b OK ...
		C: c LOGOUT
		S: * BYE ...
		S: c OK ...
		EOF`)
}

// TestIMAPSamples reads what a newcomer to the demo sees first.
func TestIMAPSamples(t *testing.T) {
	b := start(t)
	c := imapLogin(t, b, "anna@demo.example", demo.Password, nil)
	mailboxes, err := c.List("", "*", nil).Collect()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, m := range mailboxes {
		names = append(names, m.Mailbox)
	}
	if want := []string{"Drafts", "INBOX", "Sent", "Trash"}; !equal(names, want) {
		t.Errorf("mailboxes %q, want %q", names, want)
	}
	if _, err := c.Select("inbox", nil).Wait(); err != nil {
		t.Fatal(err)
	}
	messages, err := c.Fetch(imap.SeqSet{{Start: 1}}, &imap.FetchOptions{
		Envelope:      true,
		Flags:         true,
		BodyStructure: &imap.FetchItemBodyStructure{Extended: true},
	}).Collect()
	if err != nil {
		t.Fatal(err)
	}
	var subjects []string
	for _, m := range messages {
		subjects = append(subjects, m.Envelope.Subject)
	}
	if want := []string{
		"Willkommen in Ihrem neuen Postfach",
		"Schöne Grüße aus Köln – und die Fotos?",
		"Reading list for the book club",
		"Your appointment on Thursday",
	}; !equal(subjects, want) {
		t.Fatalf("subjects %q, want %q", subjects, want)
	}
	if len(messages[0].Flags) != 1 || messages[0].Flags[0] != imap.FlagSeen {
		t.Errorf("the first message has flags %v", messages[0].Flags)
	}
	parts, ok := messages[2].BodyStructure.(*imap.BodyStructureMultiPart)
	if !ok || len(parts.Children) != 2 {
		t.Fatalf("the third message is %#v", messages[2].BodyStructure)
	}
	attachment, ok := parts.Children[1].(*imap.BodyStructureSinglePart)
	if !ok || attachment.Filename() != "attachment.txt" {
		t.Errorf("the attachment is %#v", parts.Children[1])
	}
}

func equal(a, b []string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

func TestIMAPAppend(t *testing.T) {
	b := start(t)
	carla(t, b)
	c := imapLogin(t, b, "carla", "pass word ", nil)
	const text = "Subject: kept\r\n\r\nText.\r\n"
	literal := c.Append("INBOX", int64(len(text)), nil)
	if _, err := literal.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := literal.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := literal.Wait(); err != nil {
		t.Fatal(err)
	}
	if got := inbox(t, b, "carla", "pass word "); len(got) != 1 || got[0] != "Subject: kept\n\nText.\n" {
		t.Errorf("got %q", got)
	}
}

func TestIMAPInboxStays(t *testing.T) {
	b := start(t)
	script(t, b.IMAP, `
		S: * OK ...
		C: a LOGIN anna demo
		S: a OK ...
		C: b DELETE inbox
		S: b NO [CANNOT] INBOX can be neither deleted nor renamed
		C: c RENAME INBOX Old
		S: c NO [CANNOT] INBOX can be neither deleted nor renamed
		C: d RENAME Trash Bin
		S: d OK ...
		C: e DELETE Bin
		S: e OK ...`)
}

// TestIMAPIdle idles while a message comes by Submission and goes by POP3.
func TestIMAPIdle(t *testing.T) {
	b := start(t)
	carla(t, b)
	exists := make(chan uint32, 8)
	expunged := make(chan uint32, 8)
	c := imapLogin(t, b, "carla", "pass word ", &imapclient.Options{
		UnilateralDataHandler: &imapclient.UnilateralDataHandler{
			Mailbox: func(data *imapclient.UnilateralDataMailbox) {
				if data.NumMessages != nil {
					exists <- *data.NumMessages
				}
			},
			Expunge: func(number uint32) { expunged <- number },
		},
	})
	if _, err := c.Select("INBOX", nil).Wait(); err != nil {
		t.Fatal(err)
	}
	// It came before IDLE: IDLE must tell it nevertheless.
	if err := b.Append("carla", []byte("Subject: early\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	idle, err := c.Idle()
	if err != nil {
		t.Fatal(err)
	}
	want(t, exists, 1)
	if err := submit(t, b, "anna", []string{"carla@demo.example"}, "Subject: news\r\n\r\nText.\r\n"); err != nil {
		t.Fatal(err)
	}
	want(t, exists, 2)
	script(t, b.POP3, `
		S: +OK ...
		C: USER carla
		S: +OK ...
		C: PASS pass word 
		S: +OK 2 messages
		C: DELE 1
		S: +OK ...
		C: QUIT
		S: +OK bye
		EOF`)
	want(t, expunged, 1)
	if err := idle.Close(); err != nil {
		t.Error(err)
	}
	if err := idle.Wait(); err != nil {
		t.Error(err)
	}
}

// want waits for a number.
func want(t *testing.T, from <-chan uint32, number uint32) {
	t.Helper()
	select {
	case got := <-from:
		if got != number {
			t.Fatalf("want %d, got %d", number, got)
		}
	case <-time.After(patience):
		t.Fatalf("%d did not come", number)
	}
}
