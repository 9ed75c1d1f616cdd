package imapfront

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"mailreeve/proxy/proxytest"
)

func TestID(t *testing.T) {
	many := strings.Builder{}
	var kept []string
	for i := range 35 {
		fmt.Fprintf(&many, ` "k%02d" "v"`, i)
		if i < maxIDFields {
			kept = append(kept, fmt.Sprintf("k%02d:v", i))
		}
	}
	for _, c := range []struct{ name, argument, want string }{
		{"NIL", `NIL`, ""},
		{"nothing", ``, ""},
		{"empty", `()`, ""},
		{"quoted", `("name" "K-9 Mail" "version" "6.8")`, "map[name:K-9_Mail_version:6.8]"},
		{"NIL values", `("name" "x" "os" NIL "vendor" nil)`, "map[name:x]"},
		{"atoms", `(name x)`, "map[name:x]"},
		{"keys in upper case", `("NAME" "x")`, "map[name:x]"},
		{"the last of two", `("name" "x" "NAME" "y")`, "map[name:y]"},
		{"more spaces", `("name"  "x"   "os" "y" )`, "map[name:x_os:y]"},
		{"escapes", `("name" "a\"b\\c")`, `map[name:a"b\c]`},
		{"35 fields", "(" + many.String()[1:] + ")", "map[" + strings.Join(kept, "_") + "]"},
		{"long key", `("` + strings.Repeat("k", 31) + `" "v" "name" "x")`, "map[name:x]"},
		{"long value", `("name" "` + strings.Repeat("v", 2000) + `")`, "map[name:" + strings.Repeat("v", 1024) + "]"},
		{"no list", `name x`, ""},
		{"no end", `("name" "x"`, "map[name:x]"},
		{"no value", `("name" "x" "os")`, "map[name:x]"},
		{"nested", `(("name" "x"))`, ""},
		{"deeply nested", strings.Repeat("(", 4000), ""},
		{"no end of quote", `("name" "x" "os" "y)`, "map[name:x]"},
		{"announced too long", `("name" "x" "os" {5000}`, "map[name:x]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			play(t, "implicit", inTLS+`
				C: a ID `+c.argument+`
				S: * ID ("name" "Mailreeve")
				S: a OK ID completed.
				C: b NOOP
				S: b OK NOOP completed.
				C! close
				E: end=CD client_id=`+c.want+`
			`)
		})
	}
}

func TestIDLiterals(t *testing.T) {
	play(t, "implicit", inTLS+`
		C: a ID ("name" {4}
		S: + Ready for the literal.
		C: Mail "version" {3}
		S: + Ready for the literal.
		C: 1.0)
		S: * ID ("name" "Mailreeve")
		S: a OK ID completed.
		C. b ID ({4+}\r\nname {5+}\r\nMail2)\r\n
		S: * ID ("name" "Mailreeve")
		S: b OK ID completed.
		C: c ID NIL
		S: * ID ("name" "Mailreeve")
		S: c OK ID completed.
		C! close
		E: client=Mail2 client_id=map[name:Mail2]
	`)
}

// TestIDOfStrangers: what could play tricks on a terminal does not come in.
func TestIDOfStrangers(t *testing.T) {
	play(t, "implicit", inTLS+`
		C. a ID (\"name\" {18+}\r\nEv\x1b[2J\u009b\u202eil\r\n\x00\xff\x7f \"na\tme2\" \"x\")\r\n
		S: * ID ("name" "Mailreeve")
		S: a OK ID completed.
		C! close
		E: client=Ev[2Jil client_id=map[name:Ev[2Jil_name2:x]
	`)
}

// TestIDCut: a value is cut between two characters.
func TestIDCut(t *testing.T) {
	id := map[string]string{}
	keep(id, "name", "x"+strings.Repeat("\u00fc", 1000))
	if want := "x" + strings.Repeat("\u00fc", 511); id["name"] != want {
		t.Errorf("%d bytes: %q", len(id["name"]), id["name"])
	}
}

// TestAppleSequence is how Apple Mail logs in.
func TestAppleSequence(t *testing.T) {
	play(t, "implicit", inTLS+`
		C: 1.0 CAPABILITY
		S: * CAPABILITY {...}
		S: 1.0 OK CAPABILITY completed.
		C: 2.0 ID ("name" "Mac OS X Mail" "version" "16.0" "os" "Mac OS X" "vendor" "Apple Inc.")
		S: * ID ("name" "Mailreeve")
		S: 2.0 OK ID completed.
		C: 3.0 AUTHENTICATE PLAIN
		S: + {b64:}
		C: {b64:\x00anna\x00Kanarienvogel7}
	`+ready+`
		B: 3.0 AUTHENTICATE PLAIN {b64:\x00anna\x00Kanarienvogel7}
		B< 3.0 OK [CAPABILITY IMAP4rev1] in
		S: 3.0 OK [CAPABILITY IMAP4rev1] in
		C! close
		E: client=Mac_OS_X_Mail_16.0 verified=true
	`)
}

// origin is how our ID begins (Dovecot's imap-login knows these keys).
const origin = `reeve1 ID ("x-originating-ip" "192.0.2.7" "x-originating-port" "40000" "x-connected-ip" "198.51.100.1" "x-connected-port" "143" "x-session-id" "{id}" "x-client-transport" "TLS" "x-proxy-ttl" "6" "x-connected-name" "imap.test.example"`

func forwarding(r *proxytest.Rig) { r.Backend.Forward = true }

// TestIDForwarded: ours comes first and in one flight with the login, and a
// client cannot speak in our name.
func TestIDForwarded(t *testing.T) {
	setup{change: forwarding}.play(t, inTLS+`
		C: a ID ("name" "K-9" "x-originating-ip" "203.0.113.9" "X-Session-ID" "evil" "x-connected-name" "evil")
		S: * ID ("name" "Mailreeve")
		S: a OK ID completed.
		C: reeve1 LOGIN anna Kanarienvogel7
		B< * OK [CAPABILITY IMAP4rev1 ID] hi
		B: `+strings.Replace(origin, "reeve1", "reeve2", 1)+` "name" "K-9")
		B: reeve1 LOGIN "anna" "Kanarienvogel7"
		B< * ID ("name" "Dovecot")
		B< reeve2 OK ID completed.
		B< reeve1 OK in
		S: reeve1 OK in
		C! close
		E: verified=true client=K-9
	`)
}

func TestIDForwardedInClear(t *testing.T) {
	s := setup{listener: "starttls", change: func(r *proxytest.Rig) { observing(r); forwarding(r); r.Client = "[2001:db8::7]:40000" }}
	s.play(t, `
		S: * OK {...}
		C: a LOGIN anna Kanarienvogel7
		B< * OK [CAPABILITY IMAP4rev1 ID] hi
		B: reeve1 ID ("x-originating-ip" "2001:db8::7" "x-originating-port" "40000" "x-connected-ip" "198.51.100.1" "x-connected-port" "143" "x-session-id" "{id}" "x-client-transport" "insecure" "x-proxy-ttl" "6")
		B: a LOGIN "anna" "Kanarienvogel7"
		B< reeve1 BAD what?
		B< a OK in
		S: a OK in
		C! close
		E: verified=true
	`)
}

// TestIDNotForwarded to a backend that does not know the command.
func TestIDNotForwarded(t *testing.T) {
	setup{change: forwarding}.play(t, inTLS+`
		C: a LOGIN anna Kanarienvogel7
		B< * OK [CAPABILITY IMAP4rev1] hi
		B: a LOGIN "anna" "Kanarienvogel7"
		B< a OK in
		S: a OK in
		C! close
		E: verified=true
	`)
}

// TestForwardedIDIsBounded: a chatty client must not overrun the line that a
// backend takes before the login, and RFC 2971 allows 30 fields.
func TestForwardedIDIsBounded(t *testing.T) {
	p := peer{}
	for _, size := range []int{1, 100, 1024} {
		p.origin.Software.ID = map[string]string{}
		for i := range maxIDFields {
			p.origin.Software.ID[fmt.Sprintf("key%02d", i)] = strings.Repeat(`"`, size)
		}
		line := p.forward()
		if len(line) > 3<<10 {
			t.Errorf("%d bytes of values make %d", size, len(line))
		}
		c := parse("a " + line)
		s := scanner{c: c}
		id, err := s.id()
		if err != nil || len(id) > maxIDFields || id["x-proxy-ttl"] != "6" {
			t.Errorf("%d fields, %v: %v", len(id), slices.Sorted(maps.Keys(id)), err)
		}
	}
}
