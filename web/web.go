// Package web is what Mailreeve says to browsers: one plain help page a brand, on
// ports 80 and 443, and there too the answers to the challenges of a certificate
// authority.
//
// A customer who types the name of the mail server into a browser finds there what
// to type into the mail program. [Site] knows nothing of the rest of the house: it is
// given finished values in [Settings], at any time anew, and [Site.Serve] is given
// listeners.
//
// A page never changes between two calls of [Site.Apply], so it is made once and
// answered from memory. Nothing of a request is ever in an answer: not the host, not
// the path, not the query. The host name chooses a page, the token chooses an answer,
// and that is all they do. There is no script, no picture, no cookie, no form, and
// nothing from another server; the Content-Security-Policy says so to the browser.
//
// # Standards
//
// Challenges are http-01 (RFC 8555 section 8.3) and tls-alpn-01 (RFC 8737). HTTP is
// 1.0 and 1.1 (RFC 9110, RFC 9112). TLS is 1.2 and 1.3 (RFC 9325). Content-Security-Policy
// is level 2, which has hashes of styles.
//
// # Roads not taken
//
// Port 80 does not redirect to 443. A name may lead here that has no certificate, an
// old one for example, and a browser's warning in place of the help would help nobody;
// nothing on the page is secret. Where nothing redirects, nothing redirects to the
// wrong place. For the same reason there is no Strict-Transport-Security (RFC 6797): it
// would turn such a warning into a wall, for all services of that host and for as long
// as it said; and what a certificate authority asks for comes to port 80 (RFC 8555
// section 8.3), which must go on answering by itself.
//
// HTTP/2 is not offered: a page without parts gains nothing by it, and its
// implementations have been a rich source of ways to exhaust a server.
//
// http.ServeMux is not used, since it redirects paths that it would clean.
//
// The page is in the brand's language alone. A choice by Accept-Language would make
// two pages of one address, and the support desk reads aloud what the customer sees.
package web

import (
	"context"
	"crypto/tls"
	"log"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"mailreeve/policy"
)

const (
	// headerPatience is the time for a request's header, and for the TLS handshake
	// before it: both fit into a few packets.
	headerPatience = 5 * time.Second
	// patience is the time for a whole request, and for its answer, which is a few KiB.
	patience = 10 * time.Second
	// idlePatience is how long a connection may wait for its next request: a person
	// reading a page has no next one, a certificate authority has at once.
	idlePatience = 30 * time.Second
	// headerBytes bounds a request's header. Browsers send less than 1 KiB where no
	// cookie was ever set. net/http allows 4 KiB more than it is told.
	headerBytes = 8 << 10
)

// acmeALPN is the application protocol of the challenge tls-alpn-01 (RFC 8737 section 6.2).
const acmeALPN = "acme-tls/1"

// Settings are what a [Site] shows and answers. Its functions are called by many
// goroutines at once.
type Settings struct {
	Pages []Page // one a brand; without any, a page without servers is shown

	// Brand chooses a page by host name: lower case, without port and final dot, and of
	// letters, digits, dots and hyphens alone; "" where the client sent no such name. What
	// is no index of Pages counts as 0. Nil: always 0.
	Brand func(host string) int

	// HTTP01 returns the key authorization for a token of http-01. The token is
	// base64url and bounded. Nil: there are none.
	HTTP01 func(token string) (keyAuth string, ok bool)

	// ALPN returns the certificate that answers a challenge of tls-alpn-01. No
	// certificate without an error sends the alert unrecognized_name. Nil: there are none.
	ALPN func(*tls.ClientHelloInfo) (*tls.Certificate, error)

	// Certificate returns the certificate for https; no certificate without an error
	// sends the alert unrecognized_name. The handshake has five seconds in all, so it
	// should not wait. Nil: there are none.
	Certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)

	// Tickets has a configuration make session tickets, and take those made for the same
	// purpose and server name (RFC 6066 section 3). Nil: there are none.
	Tickets func(c *tls.Config, purpose string)
}

// Site serves the help pages and the answers to challenges. The zero value, with or
// without a Log, serves a page without servers; [Site.Apply] gives it what to show.
type Site struct {
	Log *zap.Logger // nil: none

	once      sync.Once
	current   atomic.Pointer[snapshot]
	server    *http.Server
	places    places
	accepting sync.WaitGroup
}

// snapshot is settings made ready: what a request or a handshake takes once.
type snapshot struct {
	Settings
	pages [][]byte // as sent, by index of Pages
	https *tls.Config
	acme  *tls.Config
}

// Apply puts settings in force, for all requests and handshakes from now on. What
// the settings point to must not change.
func (s *Site) Apply(settings Settings) {
	now := &snapshot{Settings: settings}
	if len(settings.Pages) == 0 {
		now.Pages = []Page{{}}
	}
	for _, p := range now.Pages {
		now.pages = append(now.pages, p.render())
	}
	now.https = &tls.Config{
		MinVersion:     tls.VersionTLS12,
		NextProtos:     []string{"http/1.1"},
		GetCertificate: certificates(settings.Certificate),
	}
	now.acme = &tls.Config{
		MinVersion:             tls.VersionTLS12, // RFC 8737 section 3
		NextProtos:             []string{acmeALPN},
		GetCertificate:         certificates(settings.ALPN),
		SessionTicketsDisabled: true,
	}
	if now.https.SessionTicketsDisabled = settings.Tickets == nil; settings.Tickets != nil {
		settings.Tickets(now.https, "https")
	}
	s.current.Store(now)
}

// certificates stands in for a source that there is not.
func certificates(get func(*tls.ClientHelloInfo) (*tls.Certificate, error)) func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	if get != nil {
		return get
	}
	return func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, nil }
}

// init makes the server, once.
func (s *Site) init() {
	s.once.Do(func() {
		s.current.CompareAndSwap(nil, emptySnapshot())
		only1 := new(http.Protocols)
		only1.SetHTTP1(true)
		s.server = &http.Server{
			Handler:           http.HandlerFunc(s.serve),
			Protocols:         only1,
			ReadHeaderTimeout: headerPatience, // and, being the least, that of the TLS handshake
			ReadTimeout:       patience,
			WriteTimeout:      patience,
			IdleTimeout:       idlePatience,
			MaxHeaderBytes:    headerBytes,
			ErrorLog:          log.New(complaints{s.log()}, "", 0),

			DisableGeneralOptionsHandler: true, // OPTIONS * is a method like another
		}
	})
}

// emptySnapshot is what is shown before the first Apply.
func emptySnapshot() *snapshot {
	var s Site
	s.Apply(Settings{})
	return s.current.Load()
}

// Serve answers requests of a listener, over TLS where secure says so, until the
// listener is closed or the site is shut down. It returns at once.
func (s *Site) Serve(l net.Listener, secure bool) {
	s.init()
	l = &bounded{Listener: l, places: &s.places, log: s.log(), closed: make(chan struct{})}
	if secure {
		l = tls.NewListener(l, &tls.Config{MinVersion: tls.VersionTLS12, GetConfigForClient: s.greet})
	}
	s.accepting.Go(func() {
		s.server.Serve(l) // ends by nothing but the two ways above
	})
}

// greet chooses by a client's hello. One that offers the protocol of the challenge, and
// nothing else (RFC 8737 section 3), gets its certificate and is served nothing: net/http
// closes connections of protocols that it does not know, right after the handshake.
func (s *Site) greet(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	now := s.current.Load()
	if len(hello.SupportedProtos) == 1 && hello.SupportedProtos[0] == acmeALPN {
		return now.acme, nil
	}
	return now.https, nil
}

// Shutdown closes the listeners and lets requests end; what is left when the context
// ends is cut. A connection on which nothing was ever said counts as a request for five
// seconds, so give it a second or two.
func (s *Site) Shutdown(ctx context.Context) {
	s.init()
	if s.server.Shutdown(ctx) != nil {
		s.server.Close()
	}
	s.accepting.Wait()
}

func (s *Site) log() *zap.Logger {
	if s.Log == nil {
		return zap.NewNop()
	}
	return s.Log
}

// complaints takes net/http's log. It is about broken requests and handshakes of
// strangers, so it is for whoever looks closely; only a panic is ours. Messages are
// constant and the rest is a field, so that the operators' log can sample them.
type complaints struct{ log *zap.Logger }

func (c complaints) Write(line []byte) (int, error) {
	text := shortened(string(line))
	if strings.HasPrefix(text, "http: panic") {
		c.log.Error("answering a web request failed", zap.String("error", clean(text, 4<<10)))
	} else {
		c.log.Debug("a web client's request failed", zap.String("error", clean(text, 200)))
	}
	return len(line), nil
}

// shortened has networks in a text of net/http's in place of addresses: the log may be
// kept longer than these should be.
func shortened(text string) string {
	words := strings.Split(text, " ")
	for i, word := range words {
		bare := strings.TrimSuffix(word, ":")
		ends := strings.Split(bare, "->") // as package net writes a connection's
		for j, end := range ends {
			if at, err := netip.ParseAddrPort(end); err == nil {
				ends[j] = policy.Network(at.Addr()).String()
			}
		}
		words[i] = strings.Join(ends, "->") + word[len(bare):]
	}
	return strings.Join(words, " ")
}

// clean makes a text with a stranger's words fit for a line of a log: printable
// ASCII, bounded.
func clean(text string, most int) string {
	var b strings.Builder
	for _, c := range strings.TrimSpace(text) {
		if b.Len() >= most {
			break
		}
		if c < ' ' || c > '~' {
			c = '?'
		}
		b.WriteRune(c)
	}
	return b.String()
}
