package main

import (
	"bytes"
	"compress/gzip"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// A notice counts as sent once Postfix's queue manager has it, and by no other line.
func TestInPostfixLog(t *testing.T) {
	code := func(c string) string { return strings.Repeat(c, 24) }
	from := func(c string) string { return "notices+" + code(c) + "@bounces.example.test" }
	lines := strings.Join([]string{
		"Nov 21 06:25:01 mx postfix/cleanup[12]: 4Fx1aaaaaa: message-id=<mr-1@bounces.example.test>",
		"Nov 21 06:25:01 mx postfix/qmgr[13]: 4Fx1aaaaaa: from=<" + from("a") + ">, size=9123, nrcpt=1 (queue active)",
		"2026-11-21T06:25:02.123456+01:00 mx postfix-out/qmgr[13]: 9F2B01C3: from=<" + from("B") + ">, size=9123, nrcpt=1 (queue active)\r",
		"Nov 21 06:25:03 mx postfix/qmgr[13]: 4Fx1cccccc: removed",
		"Nov 21 06:25:03 mx postfix/smtpd[14]: NOQUEUE: reject: RCPT from unknown[192.0.2.1]: 554 5.7.1; from=<" + from("c") + ">, size=1",
		"Nov 21 06:25:03 mx postfix/smtpd[14]: warning: helo /qmgr[1]: 4Fx1dddddd: from=<" + from("d") + ">, size=1",
		"Nov 21 06:25:03 mx postfix/qmgr[13]: 4Fx1eeeeee: from=<somebody@example.test>, size=1, nrcpt=1 (queue active)",
		strings.Repeat("x", mostLogLine+10) + "/qmgr[13]: 4Fx1ffffff: from=<" + from("f") + ">, size=1",
		"Nov 21 06:25:04 mx postfix/qmgr[13]: 4Fx1gggggg: from=<" + from("g") + ">, size=9123, nrcpt=1 (queue active)",
	}, "\n")
	dir := t.TempDir()
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	z.Write([]byte(lines))
	z.Close()
	for name, data := range map[string][]byte{"mail.log": []byte(lines), "mail.log.2.gz": packed.Bytes()} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
		now := time.Date(2027, 1, 8, 10, 0, 0, 0, time.UTC)
		found, reach, err := inPostfixLog([]string{filepath.Join(dir, name)}, now)
		if err != nil {
			t.Fatal(err)
		}
		if want := map[string]string{code("A"): "4Fx1aaaaaa", code("B"): "9F2B01C3", code("G"): "4Fx1gggggg"}; !maps.Equal(found, want) {
			t.Errorf("%s: %v, want %v", name, found, want)
		}
		day := time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC) // of last year: the log does not say it
		if len(reach) != 1 || !reach[0].from.Equal(day.Add(5*time.Hour+25*time.Minute+2123456*time.Microsecond)) || !reach[0].to.Equal(day.Add(6*time.Hour+25*time.Minute+4*time.Second)) {
			t.Errorf("%s reaches %v", name, reach)
		}
	}
	for _, broken := range []string{filepath.Join(dir, "none*"), filepath.Join(dir, "cut.gz")} {
		os.WriteFile(filepath.Join(dir, "cut.gz"), packed.Bytes()[:packed.Len()/2], 0o600)
		if _, _, err := inPostfixLog([]string{broken}, time.Now()); err == nil {
			t.Errorf("%s is no error", broken)
		}
	}
}

// What is not in a log was not taken only where the log must have it.
func TestLogCovers(t *testing.T) {
	at := time.Date(2027, 1, 8, 10, 0, 0, 0, time.UTC)
	of := func(from, to time.Duration) span { return span{at.Add(from), at.Add(to)} }
	for name, test := range map[string]struct {
		files []span
		spans int
		want  bool
	}{
		"around":            {[]span{of(-time.Hour, time.Hour)}, 1, true},
		"begins later":      {[]span{of(time.Second, time.Hour)}, 1, false},
		"ends at once":      {[]span{of(-time.Hour, time.Minute)}, 1, false},
		"turned in between": {[]span{of(time.Second, time.Hour), of(-time.Hour, -time.Second)}, 1, true},
		"a file is missing": {[]span{of(-48*time.Hour, -24*time.Hour), of(24*time.Hour, 48*time.Hour)}, 2, false},
		"one in the other":  {[]span{of(-time.Hour, time.Hour), of(-time.Minute, time.Minute)}, 1, true},
		"there is no log":   {nil, 0, false},
	} {
		reach := joined(test.files)
		if got := slices.ContainsFunc(reach, func(s span) bool { return s.covers(at) }); got != test.want || len(reach) != test.spans {
			t.Errorf("%s: %v, %v", name, got, reach)
		}
	}
}
