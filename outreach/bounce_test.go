package outreach

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

// dsn is a report as Postfix 3.7 writes it, about one recipient.
func dsn(to, token, fields string) string {
	return strings.ReplaceAll(`From MAILER-DAEMON Sat Nov 21 12:00:00 2026
Return-Path: <>
Delivered-To: `+to+`
Date: Sat, 21 Nov 2026 12:00:00 +0100 (CET)
From: MAILER-DAEMON@mx.example.test (Mail Delivery System)
Subject: Undelivered Mail Returned to Sender
To: `+to+`
Auto-Submitted: auto-replied
MIME-Version: 1.0
Content-Type: multipart/report; report-type=delivery-status;
	boundary="4Fx1.1763722800/mx.example.test"
Content-Transfer-Encoding: 8bit

This is a MIME-encapsulated message.

--4Fx1.1763722800/mx.example.test
Content-Description: Notification
Content-Type: text/plain; charset=utf-8

I'm sorry to have to inform you that your message could not be delivered.

--4Fx1.1763722800/mx.example.test
Content-Description: Delivery report
Content-Type: message/delivery-status

Reporting-MTA: dns; mx.example.test
Original-Envelope-Id: `+token+`
X-Postfix-Queue-ID: 4Fx1
Arrival-Date: Sat, 21 Nov 2026 12:00:00 +0100 (CET)

`+fields+`

--4Fx1.1763722800/mx.example.test
Content-Description: Undelivered Message Headers
Content-Type: text/rfc822-headers

Return-Path: <`+to+`>
Action: failed
Status: 5.1.1

--4Fx1.1763722800/mx.example.test--
`, "\n", "\r\n")
}

const unknownUser = `Final-Recipient: rfc822; kunde@example.test
Original-Recipient: rfc822;kunde@example.test
Action: failed
Status: 5.1.1
Remote-MTA: dns; mx.example.test
Diagnostic-Code: smtp; 550 5.1.1 <kunde@example.test>
    User doesn't exist: kunde@example.test`

func TestReturned(t *testing.T) {
	k := Key{"kunde@example.test", 0, -28}
	token := marks.Token(k)
	path := ReturnPath("notices@bounces.example.test", token)
	out := "Date: Sat, 21 Nov 2026 12:00:00 +0100\r\nTo: " + path + "\r\nAuto-Submitted: auto-replied (vacation)\r\nSubject: Away\r\n\r\nIch bin im Urlaub.\r\n"
	for name, test := range map[string]struct {
		message, to string
		tokens      bool
		what, note  string
	}{
		"unknown user":       {dsn(path, token, unknownUser), path, true, "bounced", "it could not be delivered: 5.1.1 smtp; 550 5.1.1 <kunde@example.test> User doesn't exist: kunde@example.test"},
		"by its fields":      {dsn(path, "", unknownUser), "", true, "bounced", "it could not be delivered: 5.1.1"},
		"by the envelope id": {dsn("postmaster@example.test", token, unknownUser), "notices@bounces.example.test", true, "bounced", "it could not be delivered"},
		"no status":          {dsn(path, token, "Final-Recipient: rfc822;<KUNDE@example.test>\nAction: Failed\nDiagnostic-Code: smtp; 552 full"), path, true, "bounced", "it could not be delivered: 5.0.0 smtp; 552 full"},
		"late":               {dsn(path, token, "Final-Recipient: rfc822; kunde@example.test\nAction: delayed\nStatus: 4.4.1\nWill-Retry-Until: Thu, 26 Nov 2026 12:00:00 +0100"), path, true, "reported", "delayed: 4.4.1"},
		"given up":           {dsn(path, token, "Final-Recipient: rfc822; kunde@example.test\nAction: failed\nStatus: 4.4.1"), path, true, "reported", "failed: 4.4.1"},
		"delivered":          {dsn(path, token, "Final-Recipient: rfc822; kunde@example.test\nAction: relayed\nStatus: 2.0.0"), path, true, "reported", "relayed: 2.0.0"},
		"forwarded":          {dsn(path, token, "Final-Recipient: rfc822; kunde@gmail.example\nAction: failed\nStatus: 5.7.1"), path, true, "reported", "failed to another address, to which mail is forwarded: 5.7.1"},
		"two recipients":     {dsn(path, token, "Final-Recipient: rfc822; kunde@gmail.example\nAction: failed\nStatus: 5.7.1\n\n"+unknownUser), path, true, "bounced", "it could not be delivered: 5.1.1"},
		"absence":            {out, "", true, "answered", "a program has answered"},
		"a person":           {strings.Replace(out, "auto-replied (vacation)", "no", 1), path, true, "answered", "somebody has answered"},
		"mail to us":         {strings.ReplaceAll(out, path, "notices@bounces.example.test"), "", false, "answered", "a program"},
		"nothing":            {"", "", false, "answered", "somebody"},
		"no message":         {"\x00\xff\r\n\r\n", path, true, "answered", "somebody"},
		"a report in a mail": {"To: " + path + "\r\nContent-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\nContent-Type: message/delivery-status\r\n\r\nA: b\r\n\r\n" + unknownUser + "\r\n--x--\r\n", path, true, "answered", "somebody"},
	} {
		m, err := ReadReturned(iotest.OneByteReader(strings.NewReader(test.message)), test.to)
		if err != nil {
			t.Fatal(err)
		}
		if has := len(m.Tokens) > 0 && m.Tokens[0] == token; has != test.tokens {
			t.Errorf("%s: tokens %q", name, m.Tokens)
		}
		if what, note := m.about(k.Account); what != test.what || !strings.HasPrefix(note, test.note) {
			t.Errorf("%s: %s, %q, want %s, %q", name, what, note, test.what, test.note)
		}
	}
}

// What came back changes what the ledger has, once, and only by a token of its own.
func TestReturn(t *testing.T) {
	l := newOutbox(t, "kunde@example.test", "other@example.test")
	k := Key{"kunde@example.test", 0, -28}
	n := l.claimed(t, k)
	noErr(t, l.handing(t.Context(), n))
	noErr(t, l.settle(t.Context(), n, StateSent, "4Fx1", "250 ok"))
	come := func(message, to string) Came {
		t.Helper()
		m, err := ReadReturned(strings.NewReader(message), to)
		noErr(t, err)
		came, err := l.Return(t.Context(), m)
		noErr(t, err)
		return came
	}
	audited := func() int {
		all, err := l.Audited(t.Context())
		noErr(t, err)
		return len(all)
	}
	path := ReturnPath("notices@bounces.example.test", n.token)

	forged := dsn(ReturnPath("notices@bounces.example.test", strings.Repeat("0", tokenLen)), "", unknownUser)
	if came := come(forged, ""); came.Notice != nil || came.Bounced || audited() != 0 {
		t.Errorf("a forged token was believed: %+v", came)
	}
	if came := come(dsn(path, "", "Final-Recipient: rfc822; kunde@example.test\nAction: delayed\nStatus: 4.4.1"), path); came.Bounced || came.Notice.State != StateSent || audited() != 1 {
		t.Errorf("a delay: %+v", came)
	}
	for range 2 {
		came := come(dsn(path, "", unknownUser), path)
		if !came.Bounced || came.Notice.Account != k.Account || came.Notice.State != StateBounced || audited() != 2 {
			t.Errorf("a bounce: %+v, %d lines of audit", came, audited())
		}
	}
	a, err := l.Account(t.Context(), k.Account)
	noErr(t, err)
	if a.Bounced != l.today() {
		t.Errorf("bounced on %s, not today", a.Bounced)
	}
	if other, _ := l.Account(t.Context(), "other@example.test"); other.Bounced != 0 {
		t.Error("another account is marked as well")
	}
	noErr(t, l.ClearBounce(t.Context(), k.Account))
	if a, _ := l.Account(t.Context(), k.Account); a.Bounced != 0 {
		t.Error("it is still marked")
	}

	// A notice in doubt was sent if something comes back.
	k.Step = -14
	n = l.claimed(t, k)
	noErr(t, l.handing(t.Context(), n))
	if _, err := l.recover(t.Context(), func(string) bool { return true }); err != nil {
		t.Fatal(err)
	}
	out := "To: " + ReturnPath("notices@bounces.example.test", n.token) + "\r\nAuto-Submitted: auto-replied\r\n\r\nAway.\r\n"
	if came := come(out, ""); came.Notice.State != StateSent {
		t.Errorf("an absence note left it in %s", came.Notice.State)
	}
}

func FuzzBounce(f *testing.F) {
	token := marks.Token(Key{"kunde@example.test", 0, -28})
	path := ReturnPath("notices@bounces.example.test", token)
	f.Add([]byte(dsn(path, token, unknownUser)))
	f.Add([]byte(dsn(path, token, "Final-Recipient: x\nAction: failed\nStatus: 5")))
	f.Add([]byte("To: <" + path + ">, \"x\" <a@b>\r\nAuto-Submitted: auto-replied\r\n\r\nx"))
	f.Add([]byte("From x\nContent-Type: multipart/report; boundary=\"\"\n\n--\n--"))
	f.Add([]byte("Content-Type: multipart/report; boundary=a\r\n\r\n--a\r\nContent-Type: message/delivery-status\r\nContent-Transfer-Encoding: base64\r\n\r\n!!\r\n--a--"))
	files, _ := filepath.Glob("testdata/returned/*")
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		begin := time.Now()
		m, err := ReadReturned(strings.NewReader(string(data)), "")
		if err != nil {
			t.Fatal(err)
		}
		if len(m.Reports) > mostRecipients || len(m.Tokens) > mostRecipients+1 {
			t.Errorf("%d reports, %d tokens", len(m.Reports), len(m.Tokens))
		}
		what, note := m.about("kunde@example.test")
		if what == "bounced" && !strings.Contains(strings.ToLower(string(data)), "multipart/report") {
			t.Error("what is no report is a bounce")
		}
		if strings.ContainsAny(note, "\r\n\x00\x1b") || len([]rune(note)) > mostHeard {
			t.Errorf("note %q", note)
		}
		for _, token := range m.Tokens {
			if len(token) != tokenLen {
				t.Errorf("token %q", token)
			}
		}
		if d := time.Since(begin); d > 5*time.Second {
			t.Errorf("it took %v", d)
		}
	})
}
