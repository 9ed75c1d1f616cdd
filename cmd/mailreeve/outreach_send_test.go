package main

import (
	"bytes"
	"compress/gzip"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
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
		found, err := inPostfixLog([]string{filepath.Join(dir, name)})
		if err != nil {
			t.Fatal(err)
		}
		if want := map[string]string{code("A"): "4Fx1aaaaaa", code("B"): "9F2B01C3", code("G"): "4Fx1gggggg"}; !maps.Equal(found, want) {
			t.Errorf("%s: %v, want %v", name, found, want)
		}
	}
	for _, broken := range []string{filepath.Join(dir, "none*"), filepath.Join(dir, "cut.gz")} {
		os.WriteFile(filepath.Join(dir, "cut.gz"), packed.Bytes()[:packed.Len()/2], 0o600)
		if _, err := inPostfixLog([]string{broken}); err == nil {
			t.Errorf("%s is no error", broken)
		}
	}
}
