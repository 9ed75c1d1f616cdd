package popfront

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

const plainWords = "Passwort ist NICHT falsch. Verschluesselung fehlt: SSL/TLS, Server pop.test.example, Port 995."

func TestUserInClearIsRefused(t *testing.T) {
	play(t, "starttls", `
		S: +OK proxy.test.example ready.
		C: USER anna@test.example
		S: -ERR [SYS/PERM] Passwort ist NICHT falsch. Verschluesselung fehlt: SSL/TLS, Server pop.test.example, Port 995. https://h.test.example/a1 ({id})
		C: QUIT
		S: +OK Bye.
		S.
		E: action=deny by=[encrypted] end=CD reason=client_quit mechanism=USERPASS exposed= account= attempts=
	`)
}

// A client that pipelines, or takes no notice, has sent its password.
func TestPasswordInClearIsRefused(t *testing.T) {
	play(t, "starttls", `
		S: +OK proxy.test.example ready.
		C. USER anna\r\nPASS Kanarienvogel7\r\nSTAT\r\nQUIT\r\n
		S: -ERR [SYS/PERM] Passwort ist NICHT falsch. {...}
		S: -ERR [SYS/PERM] Passwort ist NICHT falsch. {...}
		S: -ERR Unknown command.
		S: +OK Bye.
		S.
		E: action=deny by=[encrypted] end=CD reason=client_quit mechanism=USERPASS exposed=true account= verified= attempts=
	`)
}

// No password, nothing exposed.
func TestEmptyPasswordIsNotExposed(t *testing.T) {
	play(t, "starttls", `
		S: +OK proxy.test.example ready.
		C: PASS
		S: -ERR [SYS/PERM] Passwort ist NICHT falsch. {...}
		C! close
		E: action=deny exposed=
	`)
}

// None gets a "+": after it the credential would come.
func TestMechanismsInClearAreRefused(t *testing.T) {
	for command, exposed := range map[string]string{
		"AUTH PLAIN": "",
		"AUTH PLAIN {b64:\\x00anna\\x00Kanarienvogel7}": "true",
		"AUTH PLAIN =":          "",
		"AUTH  PLAIN":           "",
		"auth login":            "",
		"AUTH LOGIN {b64:anna}": "", // a name is no secret
		"AUTH XOAUTH2 {b64:user=anna\\x01auth=Bearer Kanarienvogel7\\x01\\x01}": "true",
		"AUTH CRAM-MD5": "",
		"AUTH NTLM":     "",
		"AUTH X-NOBODY": "",
		"APOP anna c4c9334bac560ecc979e58001b3e22fb": "",
	} {
		t.Run(command, func(t *testing.T) {
			play(t, "starttls", `
				S: +OK proxy.test.example ready.
				C: `+command+`
				S: -ERR [SYS/PERM] Passwort ist NICHT falsch. Verschluesselung fehlt: {...}
				C: NOOP
				S: +OK Nothing done.
				C! close
				E: action=deny end=CD verified= account= attempts= exposed=`+exposed)
		})
	}
}

func TestBrownOut(t *testing.T) {
	play(t, "starttls", `
		S: +OK proxy.test.example ready.
		C: USER anna
		S: -ERR [SYS/TEMP] Passwort ist NICHT falsch. Testabschaltung: SSL/TLS fehlt. {...}
		C: AUTH PLAIN
		S: -ERR [SYS/TEMP] Passwort ist NICHT falsch. {...}
		C! close
		E: action=tempfail by=[encrypted] end=CD
	`, brownOut)
}

// While plaintext is still borne it works as ever, and the event says what it costs.
func TestPlaintextBorne(t *testing.T) {
	play(t, "starttls", `
		S: +OK proxy.test.example ready.
		C: USER anna
		S: +OK Send your password.
		C: PASS Kanarienvogel7
		B< +OK ready
		B: USER anna
		B< +OK
		B: PASS Kanarienvogel7
		B< +OK Logged in.
		S: +OK Logged in.
		C! close
		E: action=pass end=CR tls=none exposed=true verified=true account=anna user_form=bare
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
		heard = string(all)
		dials = rig.Dials()
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
	for _, password := range []string{"right", "wrong", "", "with space"} {
		heard, dials := hear(t, "USER anna\r\nPASS "+password+"\r\nQUIT\r\n")
		if dials != 1 { // to ask what it offers
			t.Errorf("the backend was contacted %d times", dials)
		}
		all = append(all, heard)
	}
	if all = slices.Compact(all); len(all) != 1 {
		t.Errorf("the answers differ: %q", all)
	}
	if n := strings.Count(all[0], plainWords); n != 2 {
		t.Errorf("the words came %d times in %q", n, all[0])
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
		heard, dials := hear(t, "AUTH PLAIN "+base64.StdEncoding.EncodeToString([]byte(response))+"\r\nQUIT\r\n", excepted)
		if dials != 1 { // to ask what it offers
			t.Errorf("the backend was contacted %d times", dials)
		}
		all = append(all, heard)
	}
	if all = slices.Compact(all); len(all) != 1 || !strings.Contains(all[0], "Passwort ist NICHT falsch.") {
		t.Errorf("the answers differ: %q", all)
	}
}
