package web

// One request: which page, which challenge, and the header around it.

import (
	"net/http"
	"strconv"
	"strings"
)

const (
	// challenges is where http-01 asks (RFC 8555 section 8.3).
	challenges = "/.well-known/acme-challenge/"
	// maxToken bounds a token, which RFC 8555 section 8.3 does not. Authorities make
	// them of 43 characters or less.
	maxToken = 256
	// maxHost is the longest host name (RFC 1035 section 2.3.4).
	maxHost = 253
)

// serve answers a request. It looks at method, host and path, and puts none of them
// into the answer.
func (s *Site) serve(w http.ResponseWriter, r *http.Request) {
	now := s.current.Load()
	h := w.Header()
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Content-Security-Policy", contentPolicy)
	h.Set("Cache-Control", "no-store")
	if r.ContentLength != 0 {
		h.Set("Connection", "close") // rather than read what nobody asked for
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		h.Set("Allow", "GET, HEAD")
		answer(w, http.StatusMethodNotAllowed, "text/plain; charset=utf-8", []byte("This server only shows a page.\n"))
		return
	}
	if token, ok := strings.CutPrefix(r.URL.Path, challenges); ok {
		if now.HTTP01 != nil && isToken(token) {
			if keyAuth, ok := now.HTTP01(token); ok {
				answer(w, http.StatusOK, "text/plain", []byte(keyAuth))
				return
			}
		}
		answer(w, http.StatusNotFound, "text/plain; charset=utf-8", []byte("There is no such challenge.\n"))
		return
	}
	page := now.choose(r.Host)
	h.Set("Content-Language", now.Pages[page].lang())
	status := http.StatusNotFound // for machines; people are helped all the same
	if r.URL.Path == "/" {
		status = http.StatusOK
		// Minutes, so that a corrected page arrives while the support desk is on the phone.
		h.Set("Cache-Control", "max-age=300")
	}
	answer(w, status, "text/html; charset=utf-8", now.pages[page])
}

// answer writes a whole answer; net/http leaves the body out for HEAD.
func answer(w http.ResponseWriter, status int, kind string, body []byte) {
	w.Header().Set("Content-Type", kind)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	w.Write(body)
}

// choose finds the page for a Host header.
func (s *snapshot) choose(host string) int {
	if s.Brand == nil {
		return 0
	}
	if i := s.Brand(hostName(host)); i >= 0 && i < len(s.pages) {
		return i
	}
	return 0
}

// hostName is the name in a Host header, folded; "" where there is none, or something
// that is no host name.
func hostName(host string) string {
	if i := strings.LastIndexByte(host, ':'); i >= 0 {
		host = host[:i] // the port; of an IPv6 address, which is no name, it does not matter
	}
	host = strings.TrimSuffix(host, ".")
	if len(host) > maxHost || strings.ContainsFunc(host, func(c rune) bool {
		return !isAlphanumeric(c) && c != '.' && c != '-'
	}) {
		return ""
	}
	return strings.ToLower(host)
}

// isToken says whether a token is base64url (RFC 8555 section 8.3), so that it can
// be a file's name.
func isToken(token string) bool {
	return token != "" && len(token) <= maxToken && !strings.ContainsFunc(token, func(c rune) bool {
		return !isAlphanumeric(c) && c != '-' && c != '_'
	})
}

func isAlphanumeric(c rune) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}
