package proxy

// TLS towards clients: which of a listener's ways a hello is met with, what
// becomes known by it, and how a handshake that fails is told in the event.

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/cryptobyte"

	"mailreeve/policy"
)

// The suites of TLS 1.2 and older are listed, so that neither a newer Go nor a
// GODEBUG in the environment adds or takes any. Go chooses by its own order, the
// best first; those of TLS 1.3 cannot be chosen. RC4 is nowhere (RFC 7465).
// The curves are Go's: all are good.
var (
	// aead have forward secrecy and AEAD (RFC 9325 section 4.2).
	aead = []uint16{
		tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
		tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
		tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
	}
	// cbc have forward secrecy. Go's default has them too.
	cbc = []uint16{
		tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA, tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA,
		tls.TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA, tls.TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA,
	}
	// oldest are for listeners with OldTLS alone: without protection against
	// timing attacks (CBC with SHA-256), without forward secrecy (RSA), with
	// blocks of 64 bits (3DES).
	oldest = []uint16{
		tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256,
		tls.TLS_RSA_WITH_AES_128_GCM_SHA256, tls.TLS_RSA_WITH_AES_256_GCM_SHA384,
		tls.TLS_RSA_WITH_AES_128_CBC_SHA256, tls.TLS_RSA_WITH_AES_128_CBC_SHA, tls.TLS_RSA_WITH_AES_256_CBC_SHA,
		tls.TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA, tls.TLS_RSA_WITH_3DES_EDE_CBC_SHA,
	}
)

// ways are the configurations of a listener. A handshake begins with the first
// and goes on with the one that is chosen when the hello was heard. Beyond all
// of them are clients of TLS 1.2 that know SHA-1 signatures alone and no RSA key
// exchange: Go has those for the whole program or not at all.
type ways struct {
	hello    *tls.Config
	standard *tls.Config // TLS 1.2 and 1.3, suites with forward secrecy (RFC 9325)
	modern   *tls.Config // AEAD alone, where policy refuses the rest
	old      *tls.Config // TLS 1.0 and what comes with it; nil without OldTLS
	nameless *tls.Config // every handshake ends with the alert unrecognized_name
}

// newWays prepares a listener's configurations. A client that names application
// protocols and not ours is refused, one that names none passes: so a browser
// cannot be led here (ALPACA).
func newWays(l *Listener, tickets func(c *tls.Config, purpose string)) *ways {
	base := &tls.Config{
		MinVersion: tls.VersionTLS12,
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			return shaking(hello).certificate(hello)
		},
		// Small first records let a browser begin to draw before the rest is there. A
		// mail program waits for the whole reply, and each record costs both ends.
		DynamicRecordSizingDisabled: true,
	}
	if l.Front.ALPN != "" {
		base.NextProtos = []string{l.Front.ALPN}
	}
	kind := func(name string, from uint16, suites ...[]uint16) *tls.Config {
		c := base.Clone()
		c.MinVersion, c.CipherSuites = from, slices.Concat(suites...)
		if c.SessionTicketsDisabled = tickets == nil; tickets != nil {
			// What was agreed on in old TLS stays there.
			tickets(c, l.Front.Name+" "+name)
		}
		return c
	}
	w := &ways{
		standard: kind("standard", tls.VersionTLS12, aead, cbc),
		modern:   kind("modern", tls.VersionTLS12, aead),
		nameless: kind("", tls.VersionTLS12, aead, cbc),
	}
	if l.OldTLS {
		w.old = kind("old", tls.VersionTLS10, aead, cbc, oldest)
		w.nameless.MinVersion = tls.VersionTLS10 // so that it hears the right alert
	}
	w.nameless.SessionTicketsDisabled = true // a session resumed asks for no certificate
	w.hello = &tls.Config{
		MinVersion:             tls.VersionTLS12,
		SessionTicketsDisabled: true, // or crypto/tls makes keys that nobody uses
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			return shaking(hello).choose(hello, w), nil
		},
	}
	return w
}

// handshake is what is known in one handshake, until it is over.
type handshake struct {
	session  *session
	name     ServerName
	newest   uint16   // TLS version that the client offers; 0: none that is known, or no hello came
	suites   []uint16 // that the client offers
	weak     bool     // it can do nothing better than old TLS
	protocol []string // application protocols that it offers, none of which is ours
	served   bool     // by old TLS
	refused  bool     // policy refuses the name
	nameless bool     // the alert unrecognized_name was sent
	dotted   bool     // the name ended with a dot, by which no hello was heard
}

// handshakeKey is where the context of a hello has its handshake.
type handshakeKey struct{}

func shaking(hello *tls.ClientHelloInfo) *handshake {
	return hello.Context().Value(handshakeKey{}).(*handshake)
}

// choose makes known what a hello says, also for a handshake that fails, and
// chooses the way to go on.
func (h *handshake) choose(hello *tls.ClientHelloInfo, w *ways) *tls.Config {
	s := h.session
	h.called(hello.ServerName)
	if len(hello.SupportedVersions) > 0 {
		h.newest = slices.Max(hello.SupportedVersions)
	}
	h.suites = hello.CipherSuites
	if alpn := s.listener.Front.ALPN; alpn != "" && len(hello.SupportedProtos) > 0 && !slices.Contains(hello.SupportedProtos, alpn) {
		h.protocol = hello.SupportedProtos
	}

	s.ponder()
	facts := s.facts
	facts.Forget(policy.Mech, policy.Account, policy.Domain, policy.UserForm, policy.Client) // said in clear, and so soon forgotten
	refuses := func(facts policy.Facts) bool {
		return s.mildest(&facts).Action == policy.Refuse
	}
	hopeless := refuses(facts) // whatever TLS it does
	if hopeless {
		without := facts
		without.Forget(policy.SNI, policy.Host)
		if h.refused = !refuses(without); h.refused {
			return w.nameless
		}
	}
	if h.newest >= tls.VersionTLS13 {
		return w.standard // in TLS 1.3 all are alike
	}
	facts.Set(policy.CipherClass, policy.LegacyCiphers)
	facts.Set(policy.TLS, versionFact(cmp.Or(h.newest, tls.VersionTLS10)))
	good, refused := w.standard, !hopeless && refuses(facts)
	if refused {
		good = w.modern
	}
	if capable(hello, good.CipherSuites) {
		return good
	}
	h.weak = true
	if refused {
		// Nothing is agreed on, but this is what it was refused for.
		s.learn(policy.CipherClass, policy.LegacyCiphers)
		s.learn(policy.TLS, facts.Get(policy.TLS))
	}
	if w.old == nil || refused || hopeless {
		return good // which sends the alert that says why
	}
	h.served = true
	return w.old
}

// called makes known what a server name stands for.
func (h *handshake) called(name string) {
	s := h.session
	sni := hostName(name)
	h.name = s.settings.classify(s.listener, sni)
	if h.name.Host == policy.Absent {
		sni = policy.Absent
	}
	s.brand = h.name.Brand
	s.learn(policy.Brand, s.brand.Name)
	s.learn(policy.Host, h.name.Host)
	s.learn(policy.SNI, sni)
}

// capable reports whether a client that has no TLS 1.3 can do TLS 1.2 with one of the suites.
func capable(hello *tls.ClientHelloInfo, suites []uint16) bool {
	return slices.Contains(hello.SupportedVersions, tls.VersionTLS12) && len(hello.SupportedCurves) > 0 &&
		slices.ContainsFunc(hello.CipherSuites, func(id uint16) bool { return slices.Contains(suites, id) })
}

// versionFact is a TLS version as a fact.
func versionFact(version uint16) string {
	switch version {
	case tls.VersionTLS10:
		return "1.0"
	case tls.VersionTLS11:
		return "1.1"
	case tls.VersionTLS12:
		return "1.2"
	}
	return "1.3"
}

// cipherClass is modern for forward secrecy with AEAD (RFC 9325 section 4.2).
func cipherClass(state *tls.ConnectionState) string {
	if state.Version >= tls.VersionTLS13 || slices.Contains(aead, state.CipherSuite) {
		return policy.Modern
	}
	return policy.LegacyCiphers
}

// certificate asks for the certificate. It may take as long as the hello's
// context lasts: some are ordered when they are first asked for.
func (h *handshake) certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if h.refused {
		h.nameless = true
		return nil, nil
	}
	cert, err := h.session.settings.Certificate(hello, h.name)
	h.nameless = cert == nil && err == nil
	return cert, err
}

// handshake makes the wire secure and its facts known.
func (s *session) handshake(entry string) *Ending {
	s.phase, s.action = securing, "in the TLS handshake"
	s.patience(s.settings.Times.Handshake)
	s.conn.SetWriteDeadline(time.Now().Add(s.settings.Times.Handshake))
	s.learn(policy.Entry, entry)
	s.facts.Forget(policy.TLS) // a handshake that fails is not a wish for cleartext
	h := &handshake{session: s}
	ctx, cancel := s.hurried(context.WithValue(context.Background(), handshakeKey{}, h), s.settings.Times.Handshake)
	defer cancel()
	raw := s.wire.raw()
	raw.beginWatch()
	first := raw.ahead
	conn := tls.Server(raw, s.listener.tls.hello)
	stretch()
	err := conn.HandshakeContext(ctx)
	if err != nil {
		if ctx.Err() != nil {
			err = os.ErrDeadlineExceeded // whatever that did to the connection, or to whom it kept waiting
		} else if last, ok := raw.lastAlert(); ok && !isAlert(err) {
			err = alertError(last)
		}
		if name := dottedName(first); h.newest == 0 && name != "" {
			h.dotted = true
			h.called(name)
		}
		return h.failed(err)
	}
	raw.endWatch()
	s.wire.secure(conn)
	state := conn.ConnectionState()
	s.tls = &state
	s.learn(policy.TLS, versionFact(state.Version))
	s.learn(policy.CipherClass, cipherClass(&state))
	s.event.Cipher = tls.CipherSuiteName(state.CipherSuite)
	s.event.Resumed, s.event.ALPN = state.DidResume, state.NegotiatedProtocol
	return nil
}

// hurried returns a context that ends after d, or when the engine wants the
// session to end; cancel must be called.
func (s *session) hurried(ctx context.Context, d time.Duration) (_ context.Context, cancel func()) {
	ctx, stop := context.WithTimeout(ctx, d)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.left || s.gone {
		stop()
	}
	s.hurry = stop
	return ctx, func() {
		stop()
		s.mu.Lock()
		defer s.mu.Unlock()
		s.hurry = nil
	}
}

// failed is the ending after a handshake that did not succeed.
func (h *handshake) failed(err error) *Ending {
	e := h.session.ended(err)
	switch {
	case e.Reason == "client_timeout":
		return &Ending{who: byLimit, Reason: "handshake_timeout", Sentence: "the TLS handshake took too long"}
	case e.Reason != "client_error":
		return e
	}
	e = &Ending{who: byProxy, Reason: "handshake_failed"}
	switch {
	case h.refused && h.nameless:
		e.Reason, e.Sentence = "name_refused", "policy refuses "+h.asked()+": alert unrecognized_name"
	case h.nameless:
		e.Reason, e.Sentence = "name_refused", "there is no certificate for "+h.asked()+": alert unrecognized_name"
	case h.newest != 0 && h.newest < tls.VersionTLS12 && !h.served:
		e.Sentence = "the client offers " + tls.VersionName(h.newest) + " at most: alert protocol_version"
	case h.protocol != nil:
		e.Reason, e.Sentence = OtherProtocol, fmt.Sprintf("the client wants another application protocol, %s: alert no_application_protocol",
			CleanText(strings.Join(h.protocol, ", ")))
	case h.newest != 0 && (h.weak || strings.Contains(err.Error(), "cipher suite")):
		what, _, _ := strings.Cut(err.Error(), ";") // crypto/tls goes on with numbers
		e.Sentence = fmt.Sprintf("%s; the client offers %s at most, with %s", CleanText(what), tls.VersionName(h.newest), suiteNames(h.suites))
	case h.dotted:
		e.Sentence = "the server name in the hello ends with a dot, against RFC 6066 section 3: alert decode_error"
	default:
		e.Sentence = CleanText(unplaced(err))
	}
	if e.Reason == "handshake_failed" {
		e.Sentence = "the TLS handshake failed: " + e.Sentence
	}
	return e
}

// asked says which name a hello has asked for.
func (h *handshake) asked() string {
	sni := h.session.facts.Get(policy.SNI)
	if sni == policy.Absent {
		return "a client that names no server"
	}
	return fmt.Sprintf("the server name %s (%s)", sni, h.name.Host)
}

// suiteNames lists suites for a person: of those that have a name here, the few
// that the client would like best.
func suiteNames(ids []uint16) string {
	const most = 3
	var names []string
	more := 0
	for _, id := range ids {
		name := tls.CipherSuiteName(id)
		switch {
		case id == tls.TLS_FALLBACK_SCSV || id == 0x00ff || id&0x0f0f == 0x0a0a:
			// signals (RFC 7507, RFC 5746) and grease (RFC 8701), no suites
		case len(names) < most && !strings.HasPrefix(name, "0x"):
			names = append(names, name)
		default:
			more++
		}
	}
	switch text := strings.Join(names, ", "); {
	case text == "":
		return "no suite that is known here"
	case more > 0:
		return fmt.Sprintf("%s and %d more", text, more)
	default:
		return text
	}
}

// dottedName returns the server name of a ClientHello in one record that ends
// with a dot, or "". crypto/tls ends such a handshake before anybody hears of
// it; to serve it is impossible, since both ends sign what was said.
func dottedName(first []byte) string {
	s := cryptobyte.String(first)
	var record, hello, skipped, extensions cryptobyte.String
	if !s.Skip(3) || !s.ReadUint16LengthPrefixed(&record) || !record.Skip(1) || !record.ReadUint24LengthPrefixed(&hello) ||
		!hello.Skip(2+32) || !hello.ReadUint8LengthPrefixed(&skipped) || !hello.ReadUint16LengthPrefixed(&skipped) ||
		!hello.ReadUint8LengthPrefixed(&skipped) || !hello.ReadUint16LengthPrefixed(&extensions) {
		return "" // RFC 8446 section 4.1.2
	}
	for !extensions.Empty() {
		var kind uint16
		var data, names, name cryptobyte.String
		if !extensions.ReadUint16(&kind) || !extensions.ReadUint16LengthPrefixed(&data) {
			return ""
		}
		if kind != 0 {
			continue
		}
		if !data.ReadUint16LengthPrefixed(&names) || !names.Skip(1) || !names.ReadUint16LengthPrefixed(&name) || !strings.HasSuffix(string(name), ".") {
			return "" // RFC 6066 section 3
		}
		return hostName(string(name))
	}
	return ""
}

// remoteError is the Op by which crypto/tls says that the peer sent an alert.
const remoteError = "remote error"

// alertError is an alert of the client, in the form that crypto/tls gives it.
func alertError(number uint8) error {
	return &net.OpError{Op: remoteError, Err: tls.AlertError(number)}
}

func isAlert(err error) bool { return alertName(err) != "" }

// alertName returns the name of the alert (RFC 8446 section 6) in an error of
// crypto/tls, or "". The type of alerts is not exported; their text is, by way
// of tls.AlertError.
func alertName(err error) string {
	var remote *net.OpError
	if !errors.As(err, &remote) || remote.Op != remoteError || remote.Err == nil {
		return ""
	}
	text := remote.Err.Error()
	for number := range 256 {
		if tls.AlertError(number).Error() == text {
			return cmp.Or(alertNames[uint8(number)], fmt.Sprintf("alert_%d", number))
		}
	}
	return ""
}

// alertNames are those of RFC 8446 section 6, and those of its predecessors
// that old clients still send (RFC 5246 section 7.2, RFC 6066, RFC 7507).
var alertNames = map[uint8]string{
	0: "close_notify", 10: "unexpected_message", 20: "bad_record_mac", 21: "decryption_failed", 22: "record_overflow",
	30: "decompression_failure", 40: "handshake_failure", 41: "no_certificate", 42: "bad_certificate", 43: "unsupported_certificate",
	44: "certificate_revoked", 45: "certificate_expired", 46: "certificate_unknown", 47: "illegal_parameter", 48: "unknown_ca",
	49: "access_denied", 50: "decode_error", 51: "decrypt_error", 60: "export_restriction", 70: "protocol_version",
	71: "insufficient_security", 80: "internal_error", 86: "inappropriate_fallback", 90: "user_canceled", 100: "no_renegotiation",
	109: "missing_extension", 110: "unsupported_extension", 111: "certificate_unobtainable", 112: "unrecognized_name",
	113: "bad_certificate_status_response", 114: "bad_certificate_hash_value", 115: "unknown_psk_identity",
	116: "certificate_required", 120: "no_application_protocol", 121: "ech_required",
}

// certificateAlerts are those that are about our certificate, whatever the
// client dislikes in it.
var certificateAlerts = []string{"bad_certificate", "unsupported_certificate", "certificate_revoked", "certificate_expired",
	"certificate_unknown", "unknown_ca"}
