package proxy

import (
	"encoding/base64"
	"errors"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestDecodeSASL(t *testing.T) {
	for in, want := range map[string]string{"": "", "=": "", "YQ==": "a", "AGEAYg==": "\x00a\x00b"} {
		got, err := decodeSASL([]byte(in))
		if err != nil || got == nil || string(got) != want {
			t.Errorf("%q: %q, %v", in, got, err)
		}
	}
	if _, err := decodeSASL([]byte("*")); !errors.Is(err, ErrCancelled) {
		t.Error(err)
	}
	for _, in := range []string{"YQ", "YQ=", "YR==", "Y Q==", "YQ==\r", "Y\rQ==", "YQ==\n", "YQ==x", "**", "==", "-_==", "é"} {
		if got, err := decodeSASL([]byte(in)); err == nil {
			t.Errorf("%q passes as %q", in, got)
		}
	}
}

const bearerEnd = "\x01auth=Bearer token\x01\x01"

// exchanges are responses and the credential: authzid|user|secret, empty for malformed.
var exchanges = []struct {
	mech      string
	responses []string
	want      string
}{
	{"PLAIN", []string{"\x00anna\x00secret"}, "|anna|secret"},
	{"PLAIN", []string{"bob\x00anna\x00secret"}, "bob|anna|secret"},
	{"PLAIN", []string{"\x00anna\x00"}, "|anna|"},
	{"PLAIN", []string{"\x00änna\x00pässword §"}, "|änna|pässword §"},
	{"PLAIN", []string{"\x00\xe4nna\x00\xff"}, "|\xe4nna|\xff"}, // old programs send Latin-1
	{"PLAIN", []string{""}, ""},
	{"PLAIN", []string{"anna"}, ""},
	{"PLAIN", []string{"anna\x00secret"}, ""},
	{"PLAIN", []string{"\x00\x00secret"}, ""},
	{"PLAIN", []string{"\x00anna\x00sec\x00ret"}, ""},
	{"PLAIN", []string{"\x00anna\x00sec\r\nret"}, ""},
	{"PLAIN", []string{"\x00an\nna\x00secret"}, ""},
	{"PLAIN", []string{"a\tb\x00anna\x00secret"}, ""},
	{"PLAIN", []string{"\x00anna\x7f\x00secret"}, ""},
	{"PLAIN", []string{"\x00" + strings.Repeat("a", maxName) + "\x00s"}, "|" + strings.Repeat("a", maxName) + "|s"},
	{"PLAIN", []string{"\x00" + strings.Repeat("a", maxName+1) + "\x00s"}, ""},
	{"PLAIN", []string{strings.Repeat("a", maxName+1) + "\x00anna\x00s"}, ""},
	{"LOGIN", []string{"anna", "secret"}, "|anna|secret"},
	{"LOGIN", []string{"", "secret"}, ""},
	{"LOGIN", []string{"anna", ""}, "|anna|"},
	{"LOGIN", []string{"an\x00na", "secret"}, ""},
	{"LOGIN", []string{"anna", "sec\x00ret"}, ""},
	{"LOGIN", []string{"anna", "sec\nret"}, ""},
	{"XOAUTH2", []string{"user=anna" + bearerEnd}, "|anna|user=anna" + bearerEnd},
	{"XOAUTH2", []string{"user=" + bearerEnd}, ""},
	{"XOAUTH2", []string{"anna" + bearerEnd}, ""},
	{"XOAUTH2", []string{"user=anna\x01auth=Bearer token\x01"}, ""},
	{"XOAUTH2", []string{"user=anna\x01host=x\x01\x01"}, ""},
	{"XOAUTH2", []string{"user=anna\x01auth=Bearer a\r\nb\x01\x01"}, ""},
	{"OAUTHBEARER", []string{"n,a=anna," + bearerEnd}, "|anna|n,a=anna," + bearerEnd},
	{"OAUTHBEARER", []string{"y,a=an=2Cna=3D," + bearerEnd}, "|an,na=|y,a=an=2Cna=3D," + bearerEnd},
	{"OAUTHBEARER", []string{"n,," + bearerEnd}, "||n,," + bearerEnd},
	{"OAUTHBEARER", []string{"n,,\x01host=h\x01port=993\x01AUTH=Bearer t\x01\x01"}, "||n,,\x01host=h\x01port=993\x01AUTH=Bearer t\x01\x01"},
	{"OAUTHBEARER", []string{"p=tls-unique,," + bearerEnd}, ""},
	{"OAUTHBEARER", []string{"n,anna," + bearerEnd}, ""},
	{"OAUTHBEARER", []string{"n,a=anna" + bearerEnd}, ""},
	{"OAUTHBEARER", []string{"n,,x" + bearerEnd}, ""},
	{"OAUTHBEARER", []string{"n,,\x01auth=Bearer a\r\nb\x01\x01"}, ""},
	{"OAUTHBEARER", []string{"n,,\x01auth=Bearer a\x00b\x01\x01"}, ""},
	{"OAUTHBEARER", []string{"n,a=an\rna," + bearerEnd}, ""},
	{"CRAM-MD5", []string{"anna 0123"}, ""},
	{"", []string{"x"}, ""},
}

func TestExchange(t *testing.T) {
	for _, test := range exchanges {
		for _, initial := range []bool{true, false} {
			var r Request
			x := exchange{mech: test.mech}
			var challenges []string
			if !initial {
				challenge, done, err := x.next(nil, &r)
				if done || err != nil {
					t.Fatalf("%s without an initial response: %v, %v", test.mech, done, err)
				}
				challenges = append(challenges, challenge)
			}
			done, got := false, ""
			for _, response := range test.responses {
				challenge, d, err := x.next([]byte(response), &r)
				if done = d && err == nil; err != nil {
					break
				}
				challenges = append(challenges, challenge)
			}
			if done {
				got = r.Authzid + "|" + r.User + "|" + r.Secret.Reveal()
			}
			if got != test.want {
				t.Errorf("%s %q: %q, want %q", test.mech, test.responses, got, test.want)
			}
			if test.mech == "LOGIN" && !initial && strings.Join(challenges, " ") != "Username: Password: " && done {
				t.Errorf("prompts: %q", challenges)
			}
		}
	}
}

func TestSetPassword(t *testing.T) {
	var r Request
	if err := r.SetPassword("anna", "se cret"); err != nil || r.User != "anna" || r.Secret.Reveal() != "se cret" {
		t.Error(err)
	}
	for _, bad := range [][2]string{{"", "x"}, {"a\r\nb", "x"}, {"anna", "x\x00"}, {"anna", "x\r\n"}} {
		if r.SetPassword(bad[0], bad[1]) == nil {
			t.Errorf("%q passes", bad)
		}
	}
}

func TestSplitAuth(t *testing.T) {
	for in, want := range map[string]string{
		"plain": "PLAIN||false", "PLAIN  abc ": "PLAIN|abc|true", "PLAIN =": "PLAIN|=|false", "LOGIN YW5uYQ==": "LOGIN|YW5uYQ==|false",
		"": "||false", "X-Y_1 a": "X-Y_1|a|true", "P\x00 a": "|a|true", strings.Repeat("A", 21): "||false",
		"userpass x": "other|x|true", "APOP anna x": "other|anna x|true",
	} {
		mech, initial, secret := SplitAuth(in)
		if got := mech + "|" + initial + "|" + map[bool]string{true: "true", false: "false"}[secret]; got != want {
			t.Errorf("%q: %s, want %s", in, got, want)
		}
	}
}

func TestPlainRoundTrip(t *testing.T) {
	text := rapid.StringMatching(`[^\x00-\x1f\x7f]{1,100}`)
	rapid.Check(t, func(t *rapid.T) {
		in := Request{User: text.Draw(t, "user"), Secret: Secret(text.Draw(t, "secret")),
			Authzid: rapid.OneOf(text, rapid.Just("")).Draw(t, "authzid")}
		mech, encoded, must := Response(in, nil)
		response, err := decodeSASL([]byte(encoded))
		if err != nil || mech != "PLAIN" || must != (in.Authzid != "") {
			t.Fatal(err)
		}
		var out Request
		x := exchange{mech: "PLAIN"}
		if _, done, err := x.next(response, &out); !done || err != nil || out != in {
			if len(in.User) > maxName || len(in.Authzid) > maxName {
				return
			}
			t.Fatalf("%q %q comes back as %q %q, %v", in.User, in.Authzid, out.User, out.Authzid, err)
		}
	})
	m := &Master{User: "master", Secret: "key"}
	for _, r := range []Request{{User: "anna", Secret: "s"}, {User: "x", Authzid: "anna"}, {User: "anna", Mech: "XOAUTH2"}} {
		mech, encoded, must := Response(r, m)
		got, err := base64.StdEncoding.DecodeString(encoded)
		if err != nil || string(got) != "anna\x00master\x00key" || mech != "PLAIN" || !must {
			t.Errorf("%s %q, %v, %v", mech, got, must, err)
		}
	}
}

func FuzzSASL(f *testing.F) {
	for _, test := range exchanges {
		second := ""
		if len(test.responses) > 1 {
			second = test.responses[1]
		}
		encode := base64.StdEncoding.EncodeToString
		f.Add(test.mech, []byte(encode([]byte(test.responses[0]))), []byte(encode([]byte(second))))
	}
	f.Fuzz(func(t *testing.T, mech string, one, two []byte) {
		var r Request
		x := exchange{mech: mech}
		for _, line := range [][]byte{one, two, two} {
			response, err := decodeSASL(line)
			if err != nil {
				return
			}
			challenge, done, err := x.next(response, &r)
			if err != nil {
				return
			}
			if !done {
				if challenge == "" {
					t.Fatal("an answered exchange goes on without a challenge")
				}
				continue
			}
			if strings.ContainsAny(r.User+r.Authzid+r.Secret.Reveal(), "\x00\r\n") {
				t.Fatalf("accepted: %q %q %q", r.User, r.Authzid, r.Secret.Reveal())
			}
			if len(r.User) > maxName || len(r.Authzid) > maxName || r.User == "" && mech != "OAUTHBEARER" {
				t.Fatalf("accepted the names %q and %q", r.User, r.Authzid)
			}
			if IsBearer(mech) && r.Secret.Reveal() != string(response) {
				t.Fatal("a bearer's response is not kept whole")
			}
			if !IsBearer(mech) {
				_, encoded, _ := Response(r, nil)
				again, err := decodeSASL([]byte(encoded))
				var back Request
				if err != nil || plain(again, &back) != nil || back != r {
					t.Fatalf("%q does not come back", r.User)
				}
			}
			return
		}
	})
}
