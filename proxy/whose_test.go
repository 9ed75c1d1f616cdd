package proxy

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"strings"
	"testing"
	"unicode/utf16"
)

func unbase64(t testing.TB, s string) string {
	t.Helper()
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// ntlm makes an answer to a challenge, as [MS-NLMP] section 2.2.1.3 has it.
func ntlm(domain, user string, unicode bool) string {
	code := func(s string) string {
		if !unicode {
			return s
		}
		var b []byte
		for _, u := range utf16.Encode([]rune(s)) {
			b = binary.LittleEndian.AppendUint16(b, u)
		}
		return string(b)
	}
	head := make([]byte, 64)
	copy(head, ntlmSignature)
	head[8] = ntlmAnswer
	payload := ""
	for i, text := range []string{strings.Repeat("l", 24), strings.Repeat("n", 24), code(domain), code(user), code("PC")} {
		field := 12 + 8*i
		binary.LittleEndian.PutUint16(head[field:], uint16(len(text)))
		binary.LittleEndian.PutUint16(head[field+2:], uint16(len(text)))
		binary.LittleEndian.PutUint32(head[field+4:], uint32(64+len(payload)))
		payload += text
	}
	if unicode {
		head[60] = ntlmUnicode
	}
	return string(head) + payload
}

// oldNTLM is an answer without session key and flags, as Windows 95 sends it.
func oldNTLM(user string) string {
	m := []byte(ntlm("", user, true))
	payload := m[64:]
	m = m[:52]
	for _, field := range []int{12, 20, 28, 36, 44} {
		at := binary.LittleEndian.Uint32(m[field+4:])
		binary.LittleEndian.PutUint32(m[field+4:], at-12)
	}
	return string(m) + string(payload)
}

// with puts a byte into a text.
func with(text string, at int, c byte) string {
	b := []byte(text)
	b[at] = c
	return string(b)
}

func TestWhose(t *testing.T) {
	const digest = "c4c9334bac560ecc979e58001b3e22fb"
	const ntlmType1 = "TlRMTVNTUAABAAAABoIIAAAAAAAAAAAAAAAAAAAAAAA=" // as curl sends it
	for _, c := range []struct{ mech, response, user, authzid string }{
		{"APOP", "mrose " + digest, "mrose", ""}, // RFC 1939 section 7
		{"APOP", "mrose@test.example " + strings.ToUpper(digest), "mrose@test.example", ""},
		{"APOP", "mrose", "-", ""},
		{"APOP", "", "-", ""},
		{"APOP", " " + digest, "-", ""},
		{"APOP", "m rose " + digest, "-", ""},
		{"APOP", "mrose " + digest + "0", "-", ""},
		{"APOP", "mrose " + digest[:31] + "x", "-", ""},
		{"APOP", "mr\x00se " + digest, "-", ""},
		{"APOP", strings.Repeat("m", 321) + " " + digest, "-", ""},

		{"CRAM-MD5", unbase64(t, "dGltIGI5MTNhNjAyYzdlZGE3YTQ5NWI0ZTZlNzMzNGQzODkw"), "tim", ""}, // RFC 2195 section 2
		{"CRAM-MD5", "anna maria " + digest, "anna maria", ""},
		{"CRAM-MD5", "m\xc3\xbcller@test.example " + digest, "m\u00fcller@test.example", ""},
		{"CRAM-MD5", "anna", "-", ""},
		{"CRAM-MD5", "", "-", ""},
		{"CRAM-MD5", " " + digest, "-", ""},
		{"CRAM-MD5", "anna " + digest[:30], "-", ""},
		{"CRAM-MD5", "an\r\nna " + digest, "-", ""},

		{"DIGEST-MD5", `charset=utf-8,username="chris",realm="elwood.innosoft.com",nonce="OA6MG9tEQGm2hh",nc=00000001,cnonce="OA6MHXh6VqTrRk",` +
			`digest-uri="imap/elwood.innosoft.com",response=d388dad90d4bbd760a152321f2143af7,qop=auth`, "chris", ""}, // RFC 2831 section 4
		{"DIGEST-MD5", `username="m\xc3\xbcller"`, `mxc3xbcller`, ""}, // quoted pairs
		{"DIGEST-MD5", "charset=utf-8,username=\"m\xc3\xbcller\"", "m\u00fcller", ""},
		{"DIGEST-MD5", "username=\"m\xfcller\"", "m\u00fcller", ""},
		{"DIGEST-MD5", "username=\"m\xc3\xbcller\"", "m\u00fcller", ""}, // not as the RFC has it
		{"DIGEST-MD5", "charset=utf-8,username=\"m\xfcller\"", "-", ""},
		{"DIGEST-MD5", `username="an\"n\\a,b",authzid="info@test.example"`, `an"n\a,b`, "info@test.example"},
		{"DIGEST-MD5", ` , USERNAME = "anna" , nc=1 ,`, "anna", ""},
		{"DIGEST-MD5", `username=anna,nc=1`, "anna", ""},
		{"DIGEST-MD5", `username="anna",username="bert"`, "-", ""},
		{"DIGEST-MD5", `nc=1`, "-", ""},
		{"DIGEST-MD5", `username=""`, "-", ""},
		{"DIGEST-MD5", `username="anna`, "-", ""},
		{"DIGEST-MD5", `username="anna\`, "-", ""},
		{"DIGEST-MD5", `username="anna"x,nc=1`, "-", ""},
		{"DIGEST-MD5", `username`, "-", ""},
		{"DIGEST-MD5", `="anna"`, "-", ""},
		{"DIGEST-MD5", `x y=1,username="anna"`, "-", ""},
		{"DIGEST-MD5", `username="anna",x="` + strings.Repeat("x", maxDigest) + `"`, "-", ""},
		{"DIGEST-MD5", "", "", ""}, // the answer to the server's proof

		{"SCRAM-SHA-1", "n,,n=user,r=fyko+d2lbbFgONRv9qkxdawL", "user", ""}, // RFC 5802 section 5
		{"SCRAM-SHA-256", "n,,n=user,r=rOprNGfwEbeRWgbNEkqO", "user", ""},   // RFC 7677 section 3
		{"SCRAM-SHA-256", "y,a=info=40,n=user,r=x", "-", ""},
		{"SCRAM-SHA-256", "y,a=info@test.example,n=us=2Cer=3Dx,r=x,ext=1", "us,er=x", "info@test.example"},
		{"SCRAM-SHA-256", "p=tls-unique,,n=user,r=x", "-", ""},
		{"SCRAM-SHA-256", "n,,m=1,n=user,r=x", "-", ""},
		{"SCRAM-SHA-256", "n,,n=,r=x", "-", ""},
		{"SCRAM-SHA-256", "n,a=,n=user,r=x", "-", ""},
		{"SCRAM-SHA-256", "n,b=x,n=user,r=x", "-", ""},
		{"SCRAM-SHA-256", "n,,n=user", "-", ""},
		{"SCRAM-SHA-256", "n,,n=us=er,r=x", "-", ""},
		{"SCRAM-SHA-256", "n,,n=us\xfcer,r=x", "-", ""},
		{"SCRAM-SHA-256", "", "-", ""},

		{"NTLM", unbase64(t, ntlmType1), "", ""},
		{"NTLM", ntlm("", "anna@test.example", true), "anna@test.example", ""},
		{"NTLM", ntlm("WORKGROUP", "anna", true), "anna", ""},
		{"NTLM", ntlm("Test.Example", "anna", true), "anna@test.example", ""},
		{"NTLM", ntlm("TEST.EXAMPLE", "m\u00fcller", true), "m\u00fcller@test.example", ""},
		{"NTLM", ntlm("", "m\xfcller", false), "m\u00fcller", ""},
		{"NTLM", ntlm("", "m\xc3\xbcller", false), "m\u00fcller", ""},
		{"NTLM", oldNTLM("anna"), "anna", ""},
		{"NTLM", ntlm("", "", true), "-", ""}, // anonymous
		{"NTLM", ntlm("", "an\nna", true), "-", ""},
		{"NTLM", ntlm("", "anna", true)[:70], "-", ""},
		{"NTLM", ntlm("", "anna", true)[:40], "-", ""},
		{"NTLM", with(ntlm("", "anna", true), 36, 7), "-", ""},    // half a character
		{"NTLM", with(ntlm("", "anna", true), 43, 0xff), "-", ""}, // far away
		{"NTLM", with(ntlm("", "anna", true), 37, 0x7f), "-", ""}, // long
		{"NTLM", with(ntlm("", "anna", true), 8, 2), "-", ""},     // a server's message
		{"NTLM", with(ntlm("", "anna", true), 0, 'X'), "-", ""},   // no signature
		{"NTLM", "NTLMSSP\x00", "-", ""}, {"NTLM", "", "-", ""},
	} {
		got, err := readings[c.mech].name([]byte(c.response))
		if c.user == "-" {
			if !errors.Is(err, ErrMalformed) || got != (claim{}) {
				t.Errorf("%s %q: %q, %v", c.mech, c.response, got, err)
			}
			continue
		}
		if err != nil || got != (claim{c.user, c.authzid}) {
			t.Errorf("%s %q: %q, %v", c.mech, c.response, got, err)
		}
	}
}

// fuzzName: whatever a response is, its names can be said, and it is read once
// like another time.
func fuzzName(f *testing.F, mech string, seeds ...string) {
	for _, seed := range seeds {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, response []byte) {
		c, err := readings[mech].name(response)
		if err != nil {
			if !errors.Is(err, ErrMalformed) || c != (claim{}) {
				t.Errorf("%q and %v", c, err)
			}
			return
		}
		if c != (claim{}) && usable(&Request{User: c.user, Authzid: c.authzid}) != nil {
			t.Errorf("unusable: %q", c)
		}
		if again, _ := readings[mech].name(response); again != c {
			t.Errorf("%q, then %q", c, again)
		}
	})
}

func FuzzAPOPName(f *testing.F) { fuzzName(f, "APOP", "mrose c4c9334bac560ecc979e58001b3e22fb") }

func FuzzCRAMName(f *testing.F) { fuzzName(f, "CRAM-MD5", "a b c4c9334bac560ecc979e58001b3e22fb") }

func FuzzDigestName(f *testing.F) {
	fuzzName(f, "DIGEST-MD5", `charset=utf-8,username="an\"na",realm="x",nc=00000001,authzid="b"`, "username=\"m\xfcller\"", `username=anna , nc=1,`)
}

func FuzzSCRAMName(f *testing.F) {
	fuzzName(f, "SCRAM-SHA-256", "n,,n=user,r=x", "y,a=info=2C,n=us=3Der,r=x,ext=1", "p=tls-unique,,n=user,r=x")
}

func FuzzNTLMName(f *testing.F) {
	fuzzName(f, "NTLM", ntlm("test.example", "anna", true), ntlm("", "m\xfcller", false), oldNTLM("anna"), "NTLMSSP\x00\x01\x00\x00\x00\x06\x82\x08\x00")
}
