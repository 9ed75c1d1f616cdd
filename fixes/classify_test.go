package fixes

import (
	"slices"
	"strings"
	"testing"
)

func TestClassify(t *testing.T) {
	id := func(fields ...string) map[string]string {
		m := map[string]string{}
		for i := 0; i < len(fields); i += 2 {
			m[fields[i]] = fields[i+1]
		}
		return m
	}
	for _, c := range []struct {
		protocol  string
		id        map[string]string
		hello     string
		mechanism string
		class     Class
		program   string
	}{
		// IMAP ID, as seen in transcripts.
		{imap, id("name", "Thunderbird", "version", "153.7"), "", "PLAIN", Thunderbird, "Thunderbird 153"},
		{imap, id("name", "thunderbird"), "", "", Thunderbird, "Thunderbird"},
		{imap, id("name", "Thunderbird", "version", "nightly"), "", "", Thunderbird, "Thunderbird"},
		{imap, id("name", "Thunderbird", "version", "20261122"), "", "", Thunderbird, "Thunderbird"},
		{imap, id("name", "Thunderbird for Android", "version", "12.1"), "", "", "thunderbird-android", "Thunderbird for Android 12"},
		{imap, id("name", "K-9 Mail", "version", "6.804"), "", "", "thunderbird-android", "K-9 Mail 6"},
		{imap, id("name", "FairEmail", "version", "1.2234"), "", "", "fairemail", "FairEmail 1"},
		{imap, id("name", "iPhone Mail", "version", "22C161", "os", "iOS", "os-version", "18.2.1 (22C161)"), "", "", IOSMail, "Mail, iOS 18"},
		{imap, id("name", "iPad Mail", "os-version", "17.1"), "", "", IOSMail, "Mail, iPadOS 17"},
		{imap, id("name", "Mac OS X Mail", "version", "16.0 (3696.100.31)", "os", "Mac OS X", "os-version", "12.4 (21F79)", "vendor", "Apple Inc."), "", "", AppleMail, "Apple Mail 16"},
		{imap, id("name", "Mac OS X Notes", "version", "4.9"), "", "", AppleMail, "Apple Mail"},
		{imap, id("name", "com.apple.email.maild", "os", "iOS", "os-version", "16.1"), "", "", IOSMail, "Mail, iOS 16"},
		{imap, id("name", "com.apple.email.maild", "os", "macOS"), "", "", AppleMail, "Apple Mail"},
		{imap, id("name", "evolution", "version", "3.46.4"), "", "", "evolution", "Evolution 3"},
		{imap, id("name", "com.samsung.android.email.provider", "os", "android"), "", "", "samsung-email", "Samsung Email"},
		{imap, id("name", "Roundcube", "version", "1.6.9"), "", "", Script, "Roundcube 1"},
		{imap, id("name", "Thunderbirds are go"), "", "", Unknown, ""},
		{imap, id("name", strings.Repeat("Thunderbird", 1000)), "", "", Unknown, ""},
		{imap, id("vendor", "Thunderbird"), "", "", Unknown, ""},
		{imap, nil, "", "NTLM", Unknown, ""},
		{pop3, nil, "", "USERPASS", Unknown, ""},

		// EHLO, with the mechanism where names alone do not tell.
		{submission, nil, "[192.168.1.5]", "PLAIN", Thunderbird, ""},
		{submission, nil, "[10.0.0.7]", "", Thunderbird, ""},
		{submission, nil, "[IPV6:2001:db8::5]", "PLAIN", Thunderbird, ""},
		{submission, nil, "[IPv6:2001:db8::5]", "PLAIN", Unknown, ""},
		{submission, nil, "[203.0.113.7]", "PLAIN", Unknown, ""},
		{submission, nil, "[192.168.1.5]", "CRAM-MD5", Thunderbird, ""},
		{submission, nil, "[192.168.1.5]", "LOGIN", Device, ""},
		{submission, nil, "[127.0.1.1]", "PLAIN", Script, ""},
		{submission, nil, "[IPV6:::1]", "PLAIN", Script, ""},
		{submission, nil, "ehlo.thunderbird.net", "PLAIN", "thunderbird-android", ""},
		{submission, nil, "dummy.faircode.eu", "PLAIN", "fairemail", ""},
		{submission, nil, "smtpclient.apple", "PLAIN", Apple, ""},
		{submission, nil, "DESKTOP-AB12CD3", "LOGIN", Outlook, ""},
		{submission, nil, "laptop-9q8w7e6r", "NTLM", Outlook, ""},
		{submission, nil, "BUERO01", "LOGIN", Outlook, ""},
		{submission, nil, "BUERO01", "PLAIN", Unknown, ""},
		{submission, nil, "DESKTOP-AB12CD3", "PLAIN", Unknown, ""},
		{submission, nil, "BRN001BA9A1B2C3", "LOGIN", Device, "Brother"},
		{submission, nil, "BRNO-SERVER", "PLAIN", Unknown, ""},
		{submission, nil, "NPI4F9C12", "LOGIN", Device, "HP"},
		{submission, nil, "KM0A1B2C", "", Device, "Kyocera"},
		{submission, nil, "KMUELLER", "LOGIN", Outlook, ""},
		{submission, nil, "DiskStation", "PLAIN", Device, "Synology"},
		{submission, nil, "fritz.box", "PLAIN", Device, "FRITZ!Box"},
		{submission, nil, "erikas-pc.fritz.box", "PLAIN", Unknown, ""},
		{submission, nil, "mail-wr1-f54.google.com", "PLAIN", Collector, "Gmail"},
		{submission, nil, "google.com", "PLAIN", Unknown, ""},
		{submission, nil, "am0pr01mb1234.eurprd01.prod.outlook.com", "XOAUTH2", OutlookNew, "Outlook"},
		{submission, nil, "localhost", "PLAIN", Unknown, ""},
		{submission, nil, "mail.kunde.example", "PLAIN", Unknown, ""},
		{submission, nil, "", "PLAIN", Unknown, ""},
		{submission, nil, "[", "PLAIN", Unknown, ""},
		{submission, nil, "[]", "PLAIN", Unknown, ""},
		{submission, nil, "]", "LOGIN", Unknown, ""},

		// There is no EHLO but in sending.
		{imap, nil, "smtpclient.apple", "PLAIN", Unknown, ""},
	} {
		class, program := Classify(c.protocol, c.id, c.hello, c.mechanism)
		if class != c.class || program != c.program {
			t.Errorf("%s %q %.60q %s: %s %q, want %s %q", c.protocol, c.id, c.hello, c.mechanism, class, program, c.class, c.program)
		}
	}
}

// FuzzClassify: of what a stranger sends nothing comes out but a word of the catalogue and
// a number.
func FuzzClassify(f *testing.F) {
	for _, s := range []string{"Thunderbird", "iPhone Mail", "Mac OS X ", "[192.168.1.5]", "[IPV6:2001:db8::5%eth0]", "[IPV6:", "DESKTOP-AB12CD3",
		"BRN001BA9A1B2C3", "mail.google.com", "\x00", "\xff", "Ⅷ", "K-9 Mail"} {
		f.Add(s, "153.7", "iOS", "18.2.1", s, "LOGIN")
	}
	var programs []string
	for _, k := range known().Classes {
		for _, m := range k.KnownBy {
			programs = append(programs, m.Program)
		}
	}
	f.Fuzz(func(t *testing.T, name, version, os, osVersion, hello, mechanism string) {
		id := map[string]string{"name": name, "version": version, "os": os, "os-version": osVersion}
		for _, protocol := range protocols {
			class, program := Classify(protocol, id, hello, mechanism)
			if !slices.Contains(Known(), class) {
				t.Fatalf("the class %q", class)
			}
			if slices.Contains(programs, program) || program == "" {
				continue
			}
			i := strings.LastIndexByte(program, ' ')
			if number := program[i+1:]; i < 0 || !slices.Contains(programs, program[:i]) || len(number) > 3 || strings.Trim(number, "0123456789") != "" {
				t.Fatalf("the program %q", program)
			}
		}
	})
}

func BenchmarkClassify(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		Classify(submission, nil, "mail.kunde.example", "PLAIN")
	}
}
