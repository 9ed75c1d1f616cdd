package proxy

// Whose login it is, read out of the responses of mechanisms whose secret the proxy
// never sees. All of it was written by strangers; what is not of the mechanism's
// form is ErrMalformed.

import (
	"bytes"
	"encoding/binary"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// claim is whom a response names; empty where it names nobody, since not all do.
type claim struct{ user, authzid string }

// reading is how the names of a mechanism are read.
type reading struct {
	name  func(response []byte) (claim, error) // of a response, decoded
	first bool                                 // the first response alone names, the others are of any form
	waits bool                                 // the server speaks first: there is no initial response
}

// readings are the mechanisms that pass between client and backend: the proxy sees
// no secret, and can read the account. All others do not pass:
//
//	SCRAM-*-PLUS                    bound to the client's TLS, which ends here (RFC 5802 section 6)
//	EXTERNAL                        the client's certificate was shown to us, not to the backend
//	ANONYMOUS                       there is no account
//	GSSAPI, GSS-SPNEGO, KERBEROS_V4 the name is sealed in the ticket, which is for another host's name
//	OTP, SKEY, SECURID and others   no mail program was met with them
//
// A client that could bind the channel and sees no -PLUS says so by "y"; see
// passage.look.
var readings = map[string]reading{
	"APOP":          {name: apopName},
	"CRAM-MD5":      {name: cramName, waits: true},
	"DIGEST-MD5":    {name: digestName, waits: true},
	"NTLM":          {name: ntlmName},
	"SCRAM-SHA-1":   {name: scramName, first: true},
	"SCRAM-SHA-256": {name: scramName, first: true},
	"SCRAM-SHA-512": {name: scramName, first: true},
}

// hexDigest reports whether s is a keyed MD5 as CRAM-MD5 and APOP write it. Some write it large.
func hexDigest(s []byte) bool {
	for _, c := range s {
		if (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'f') {
			return false
		}
	}
	return len(s) == 32
}

// APOPName reads the account out of the arguments of APOP (RFC 1939 section 7), or returns "".
func APOPName(args string) string {
	c, _ := apopName([]byte(args))
	return c.user
}

// apopName: a name and a digest.
func apopName(args []byte) (claim, error) {
	user, digest, _ := bytes.Cut(args, []byte(" "))
	if !hexDigest(digest) {
		return claim{}, ErrMalformed
	}
	return called(user, nil)
}

// cramName: a name and a digest (RFC 2195 section 2). The name may have spaces.
func cramName(response []byte) (claim, error) {
	i := bytes.LastIndexByte(response, ' ')
	if i < 0 || !hexDigest(response[i+1:]) {
		return claim{}, ErrMalformed
	}
	return called(response[:i], nil)
}

// called is a claim whose names can be said.
func called(user, authzid []byte) (claim, error) {
	c := claim{string(user), string(authzid)}
	if usable(&Request{User: c.user, Authzid: c.authzid}) != nil {
		return claim{}, ErrMalformed
	}
	return c, nil
}

// maxDigest bounds a digest-response (RFC 2831 section 2.1.2).
const maxDigest = 4096

// digestName: a list of directives (RFC 2831 section 2.1.2), of which each may
// stand once. The realm is left out: some servers put their own name there. The
// answer to the server's own proof is empty and names nobody.
func digestName(response []byte) (claim, error) {
	if len(response) == 0 {
		return claim{}, nil
	}
	if len(response) > maxDigest {
		return claim{}, ErrMalformed
	}
	seen := map[string][]byte{}
	for rest := response; ; {
		rest = bytes.TrimLeft(rest, " \t\r\n,")
		if len(rest) == 0 {
			break
		}
		var key string
		var value []byte
		var ok bool
		if key, value, rest, ok = directive(rest); !ok {
			return claim{}, ErrMalformed
		}
		if _, twice := seen[key]; twice {
			return claim{}, ErrMalformed
		}
		seen[key] = value
	}
	user, authzid := seen["username"], seen["authzid"]
	if !strings.EqualFold(string(seen["charset"]), "utf-8") {
		user = latin1(user)
	} else if !utf8.Valid(user) {
		return claim{}, ErrMalformed
	}
	return called(user, authzid) // the authzid is UTF-8 always
}

// directive takes one key=value or key="value" off a list; what follows is a comma or nothing.
func directive(list []byte) (key string, value, rest []byte, ok bool) {
	name, rest, ok := bytes.Cut(list, []byte("="))
	key = strings.ToLower(string(bytes.TrimSpace(name)))
	if !ok || key == "" || strings.ContainsAny(key, "\", \t") {
		return "", nil, nil, false
	}
	rest = bytes.TrimLeft(rest, " \t\r\n")
	if len(rest) == 0 || rest[0] != '"' {
		value, rest, _ = bytes.Cut(rest, []byte(","))
		value = bytes.TrimSpace(value)
		return key, value, rest, !bytes.ContainsRune(value, '"')
	}
	value = []byte{}
	for i := 1; i < len(rest); i++ {
		switch rest[i] {
		case '"':
			rest = bytes.TrimLeft(rest[i+1:], " \t\r\n")
			return key, value, rest, len(rest) == 0 || rest[0] == ','
		case '\\':
			if i++; i == len(rest) {
				return "", nil, nil, false
			}
		}
		value = append(value, rest[i])
	}
	return "", nil, nil, false
}

// latin1 turns ISO 8859-1 into UTF-8. What is UTF-8 already, though nobody said
// so, stays as it is: backends take the bytes for what they are.
func latin1(text []byte) []byte {
	if utf8.Valid(text) {
		return text
	}
	var b []byte
	for _, c := range text {
		b = utf8.AppendRune(b, rune(c))
	}
	return b
}

// scramName: client-first-message (RFC 5802 section 7). A client that binds a
// channel has chosen another mechanism than it named.
func scramName(first []byte) (claim, error) {
	parts := strings.Split(string(first), ",")
	if len(parts) < 4 || parts[0] != "n" && parts[0] != "y" || !utf8.Valid(first) {
		return claim{}, ErrMalformed
	}
	authzid, ok := "", true
	if parts[1] != "" {
		authzid, ok = saslName(parts[1], "a=")
		ok = ok && authzid != ""
	}
	user, named := saslName(parts[2], "n=")
	if !ok || !named || !strings.HasPrefix(parts[3], "r=") {
		return claim{}, ErrMalformed // "m=" too, which is for extensions that nobody knows
	}
	return called([]byte(user), []byte(authzid))
}

// saslName decodes a name in which "," and "=" are written as "=2C" and "=3D".
func saslName(attribute, key string) (name string, ok bool) {
	coded, ok := strings.CutPrefix(attribute, key)
	if !ok {
		return "", false
	}
	var b strings.Builder
	for coded != "" {
		before, rest, escape := strings.Cut(coded, "=")
		b.WriteString(before)
		if !escape {
			break
		}
		switch {
		case strings.HasPrefix(rest, "2C"):
			b.WriteByte(',')
		case strings.HasPrefix(rest, "3D"):
			b.WriteByte('=')
		default:
			return "", false
		}
		coded = rest[2:]
	}
	return b.String(), true
}

// The parts of an NTLM message ([MS-NLMP] sections 2.2.1.1 and 2.2.1.3).
const (
	ntlmSignature = "NTLMSSP\x00"
	ntlmNegotiate = 1
	ntlmAnswer    = 3
	ntlmFields    = 12 // five fields, of which each leads to a text
	ntlmDomain    = 28
	ntlmUser      = 36
	ntlmFlags     = 60
	ntlmUnicode   = 1  // the flag: names are UTF-16, else of some code page
	ntlmShortest  = 52 // of an answer: those of old programs end before session key and flags
)

// ntlmName: the answer to the challenge has domain and user; the message before
// it may name a domain, of the machine.
func ntlmName(message []byte) (claim, error) {
	if len(message) < 16 || string(message[:8]) != ntlmSignature {
		return claim{}, ErrMalformed
	}
	switch binary.LittleEndian.Uint32(message[8:]) {
	case ntlmNegotiate:
		return claim{}, nil
	case ntlmAnswer:
	default:
		return claim{}, ErrMalformed
	}
	if len(message) < ntlmShortest {
		return claim{}, ErrMalformed
	}
	payload := len(message)
	for field := ntlmFields; field < ntlmShortest; field += 8 {
		if binary.LittleEndian.Uint16(message[field:]) > 0 {
			payload = min(payload, ntlmOffset(message, field))
		}
	}
	unicode := payload < ntlmFlags+4 || message[ntlmFlags]&ntlmUnicode != 0
	domain, ok := ntlmText(message, ntlmDomain, unicode)
	user, also := ntlmText(message, ntlmUser, unicode)
	if !ok || !also {
		return claim{}, ErrMalformed
	}
	// Programs split what the customer typed at the "@" or leave it whole; a name
	// without a dot is that of a workgroup.
	if !strings.Contains(user, "@") && user != "" && strings.Contains(domain, ".") {
		user += "@" + strings.ToLower(domain)
	}
	return called([]byte(user), nil)
}

// ntlmOffset returns where a field says that its text lies.
func ntlmOffset(message []byte, field int) int {
	return int(binary.LittleEndian.Uint32(message[field+4:]) & 0x7fffffff)
}

// ntlmText returns the text that a field leads to.
func ntlmText(message []byte, field int, unicode bool) (string, bool) {
	length, at := int(binary.LittleEndian.Uint16(message[field:])), ntlmOffset(message, field)
	if length == 0 {
		return "", true
	}
	if at > len(message) || length > len(message)-at || length > 4*maxName || unicode && length%2 != 0 {
		return "", false
	}
	text := message[at : at+length]
	if !unicode {
		return string(latin1(text)), true
	}
	units := make([]uint16, 0, length/2)
	for i := 0; i < length; i += 2 {
		units = append(units, binary.LittleEndian.Uint16(text[i:]))
	}
	return string(utf16.Decode(units)), true
}
