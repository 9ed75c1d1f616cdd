package logs

// What both servers know of TLS, in the words of OpenSSL.

import (
	"strings"

	"mailreeve/events"
	"mailreeve/policy"
)

// versions are OpenSSL's names. Of what is older than TLS 1.0 policy knows no name, and the
// oldest that it has violates and meets the same.
var versions = map[string]string{"SSLv2": "1.0", "SSLv3": "1.0", "TLSv1": "1.0", "TLSv1.1": "1.1", "TLSv1.2": "1.2", "TLSv1.3": "1.3"}

// secured reads "TLSv1.2 with cipher ECDHE-RSA-AES128-GCM-SHA256 (128/128 bits)", and what
// may follow.
func secured(text string) (version, cipher string, ok bool) {
	word, rest, ok := strings.Cut(text, " with cipher ")
	version = versions[word]
	cipher, rest, _ = strings.Cut(rest, " ")
	bits, _, closed := strings.Cut(rest, " bits)")
	used, all, _ := strings.Cut(strings.TrimPrefix(bits, "("), "/")
	return version, cipher, ok && version != "" && only(cipher, hostBytes) && closed && only(used, digits) && only(all, digits)
}

// tls sets the facts of a session in TLS, as far as they are known.
func tls(s *events.Session, version, cipher string) {
	s.TLS, s.Cipher = version, strings.Clone(cipher)
	if cipher != "" {
		s.CipherClass = policy.LegacyCiphers
		if modern(cipher) {
			s.CipherClass = policy.Modern
		}
	}
	s.Entry = entries[s.Port]
}

// entries tells how TLS begins on the ports of RFC 8314 and on those before it.
var entries = map[int]string{
	143: policy.EntryStartTLS, 110: policy.EntryStartTLS, 587: policy.EntryStartTLS, 25: policy.EntryStartTLS,
	993: policy.EntryImplicit, 995: policy.EntryImplicit, 465: policy.EntryImplicit,
}

// mayBePlain is false of the ports where TLS begins with the first byte: what arrives there in
// clear has left its TLS at a balancer.
func mayBePlain(port int) bool { return entries[port] != policy.EntryImplicit }

// modern says whether a cipher has forward secrecy and authenticated encryption.
func modern(cipher string) bool {
	if strings.HasPrefix(cipher, "TLS_") && !strings.Contains(cipher, "_WITH_") { // TLS 1.3
		return true
	}
	return (strings.HasPrefix(cipher, "ECDHE-") || strings.HasPrefix(cipher, "DHE-")) &&
		(strings.Contains(cipher, "-GCM-") || strings.Contains(cipher, "-CCM") || strings.Contains(cipher, "POLY1305"))
}
