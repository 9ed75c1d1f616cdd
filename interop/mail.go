package interop

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Message returns a small mail from one account to another. The text goes into its subject
// and its body.
func Message(from, to Account, text string) string {
	return strings.Join([]string{
		"From: " + from.User,
		"To: " + to.User,
		"Subject: " + text,
		"Date: Fri, 21 Nov 2025 12:00:00 +0100",
		"Message-ID: <" + strings.ReplaceAll(text, " ", ".") + "@" + Domain + ">",
		"",
		text + ", once more.",
		"",
	}, "\r\n")
}

// Deliver puts the message into the account's inbox.
func (rig *Rig) Deliver(t testing.TB, a Account, message string) {
	t.Helper()
	k := rig.Dial(t, rig.IMAP)
	k.Expect(`^\* OK`)
	k.Ask("a AUTHENTICATE PLAIN "+a.SASLPlain(), "^a OK")
	k.Send(fmt.Sprintf("b APPEND INBOX {%d+}", len(message)), message)
	k.Expect("^b OK")
}

// Mails returns the messages in the account's inbox, read from the disk.
func (rig *Rig) Mails(t testing.TB, a Account) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(rig.Maildir(a), "[nc][eu][wr]", "*"))
	if err != nil {
		t.Fatal(err)
	}
	var mails []string
	for _, file := range files {
		// A server may have moved the file from new to cur, or removed it, in the meantime.
		if mail, err := os.ReadFile(file); err == nil {
			mails = append(mails, string(mail))
		}
	}
	return mails
}

// WaitMail waits until the inbox has a message that contains the text, and returns that message.
func (rig *Rig) WaitMail(t testing.TB, a Account, text string) string {
	t.Helper()
	var found string
	if !eventually(func() bool {
		for _, mail := range rig.Mails(t, a) {
			if strings.Contains(mail, text) {
				found = mail
			}
		}
		return found != ""
	}) {
		t.Fatalf("no mail with %q has reached %s; it has %q", text, a.User, rig.Mails(t, a))
	}
	return found
}
