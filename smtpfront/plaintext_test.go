package smtpfront

import (
	"encoding/base64"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"mailreeve/policy"
	"mailreeve/proxy/proxytest"
)

const toldPlain = `530 5.7.0 Passwort ist NICHT falsch. Verschluesselung fehlt: SSL/TLS, Server smtp.test.example, Port 465. https://h.test.example/a1 ({id})`

// Thunderbird finds no AUTH, sends MAIL and shows this text.
func TestMailInClear(t *testing.T) {
	play(t, "starttls", `
		S: 220 proxy.test.example ESMTP ready
		C: EHLO laptop.example
		`+inClear+`
		C: MAIL FROM:<anna@test.example>
		S: `+toldPlain+`
		C: QUIT
		S: 221 2.0.0 Bye
		S.
		E: action=deny by=[encrypted] end=CD reason=client_quit exposed= mechanism= attempts= verified=
	`)
	// Pipelined, and without EHLO.
	play(t, "starttls", `
		S: 220 proxy.test.example ESMTP ready
		C. MAIL FROM:<anna@test.example>\r\nRCPT TO:<bert@test.example>\r\nDATA\r\nQUIT\r\n
		S: `+toldPlain+`
		S: 503 5.5.1 MAIL comes first
		S: 503 5.5.1 MAIL comes first
		S: 221 2.0.0 Bye
		S.
		E: action=deny by=[encrypted] end=CD reason=client_quit hello=
	`)
}

// None gets a 334: after it the credential would come.
func TestAuthInClear(t *testing.T) {
	for command, exposed := range map[string]string{
		"AUTH PLAIN": "",
		"AUTH PLAIN {b64:\\x00anna\\x00Kanarienvogel7}": "true",
		"AUTH PLAIN =":          "",
		"AUTH LOGIN":            "",
		"auth  login":           "",
		"AUTH LOGIN {b64:anna}": "", // a name is no secret
		"AUTH XOAUTH2 {b64:user=anna\\x01auth=Bearer Kanarienvogel7\\x01\\x01}": "true",
		"AUTH CRAM-MD5": "",
		"AUTH X-NOBODY": "",
	} {
		t.Run(command, func(t *testing.T) {
			play(t, "starttls", `
				S: 220 proxy.test.example ESMTP ready
				C: EHLO laptop.example
				`+inClear+`
				C: `+command+`
				S: `+toldPlain+`
				C: NOOP
				S: 250 2.0.0 OK
				C! close
				E: action=deny end=CD verified= account= attempts= exposed=`+exposed)
		})
	}
}

func TestBrownOut(t *testing.T) {
	play(t, "starttls", `
		S: 220 proxy.test.example ESMTP ready
		C: HELO laptop.example
		S: 250 proxy.test.example
		C: AUTH PLAIN
		S: 454 4.7.0 Passwort ist NICHT falsch. Testabschaltung: SSL/TLS fehlt. {...}
		C: MAIL FROM:<anna@test.example>
		S: 450 4.7.0 Passwort ist NICHT falsch. Testabschaltung: SSL/TLS fehlt. {...}
		C! close
		E: action=tempfail by=[encrypted] end=CD
	`, brownOut)
}

// While plaintext is still borne it works as ever, and the event says what it costs.
func TestPlaintextBorne(t *testing.T) {
	play(t, "starttls", `
		S: 220 proxy.test.example ESMTP ready
		C: HELO laptop.example
		S: 250 proxy.test.example
		C: MAIL FROM:<anna@test.example>
		S: 530 5.7.0 Bitte im Programm die Anmeldung am Server einschalten (gleicher Benutzername, gleiches Passwort).
		C: AUTH LOGIN
		S: 334 VXNlcm5hbWU6
		C: {b64:anna}
		S: 334 UGFzc3dvcmQ6
		C: {b64:Kanarienvogel7}
		`+begin+`
		B: AUTH PLAIN {b64:\x00anna\x00Kanarienvogel7}
		`+good+`
		E: action=pass end=CR tls=none exposed=true verified=true account=anna mechanism=LOGIN
	`, open)
}

// hear plays the client's side in clear and returns all it heard, without the
// session's id, and how often the backend was contacted.
func hear(t *testing.T, said string, set ...func(*proxytest.Rig)) (heard string, dials int) {
	synctest.Test(t, func(t *testing.T) {
		rig := proxytest.New(t, Front, probe)
		for _, f := range set {
			f(rig)
		}
		rig.Apply()
		conn := rig.Connect("starttls")
		before := time.Now()
		go func() {
			time.Sleep(time.Second)
			io.WriteString(conn, said)
		}()
		all, _ := io.ReadAll(conn)
		if took := time.Since(before); took != time.Second {
			t.Errorf("took %v", took)
		}
		rig.Engine.Shutdown(0, 0)
		heard, dials = string(all), rig.Dials()
	})
	lines := strings.SplitAfter(heard, "\r\n")
	for i, l := range lines {
		if j := strings.LastIndex(l, " ("); j >= 0 {
			lines[i] = l[:j]
		}
	}
	return strings.Join(lines, "\n"), dials
}

// The answer in clear tells nothing of the password (RFC 8314 section 4.1).
func TestSameBytesForEveryPassword(t *testing.T) {
	var all []string
	for _, response := range []string{"AGFubmEAcmlnaHQ=", "AGFubmEAd3Jvbmc=", "AAA=", "=", "no base64"} {
		heard, dials := hear(t, "EHLO laptop\r\nAUTH PLAIN "+response+"\r\nQUIT\r\n")
		if dials != 1 { // to ask what it offers
			t.Errorf("the backend was contacted %d times", dials)
		}
		all = append(all, heard)
	}
	if all = slices.Compact(all); len(all) != 1 {
		t.Errorf("the answers differ: %q", all)
	}
	if !strings.Contains(all[0], "\n530 5.7.0 Passwort ist NICHT falsch.") || strings.Contains(all[0], "334") {
		t.Errorf("heard %q", all[0])
	}
}

// Nor does it where another account has an exception, and the credential is
// read to see whose it is; nobody else learns which accounts there are.
func TestSameBytesBesideAnException(t *testing.T) {
	excepted := proxytest.Under([]policy.Requirement{proxytest.Encrypted(policy.Stage{Do: policy.Deny})},
		policy.Exception{ID: "x", For: []string{"encrypted"}, Cap: policy.Observe, Until: time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC),
			Match: policy.Matcher{{Fact: policy.Account, Values: []string{"bert"}}}})
	var all []string
	for _, response := range []string{"\x00anna\x00right", "\x00anna\x00wrong", "\x00nobody\x00x"} {
		heard, dials := hear(t, "EHLO laptop\r\n"+"AUTH PLAIN "+base64.StdEncoding.EncodeToString([]byte(response))+"\r\nQUIT\r\n", excepted)
		if dials != 1 { // to ask what it offers
			t.Errorf("the backend was contacted %d times", dials)
		}
		all = append(all, heard)
	}
	if all = slices.Compact(all); len(all) != 1 || !strings.Contains(all[0], "Passwort ist NICHT falsch.") {
		t.Errorf("the answers differ: %q", all)
	}
}
