package certs

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"sync"

	"golang.org/x/crypto/acme"
)

// The kinds of challenges that are answered, as RFC 8555 section 9.7.8 names them.
const (
	http01    = "http-01"     // RFC 8555 section 8.3
	tlsalpn01 = "tls-alpn-01" // RFC 8737
)

// answers holds what the authority will ask for while orders are under way: in memory and,
// since it may ask another node, in the state directory.
type answers struct {
	state *state
	mu    sync.Mutex        // guards the following
	files map[string][]byte // by name of the file
}

// HTTP01 answers a request for /.well-known/acme-challenge/TOKEN, also for an order that
// another node on the same directory has under way.
func (a *ACME) HTTP01(token string) (keyAuth string, ok bool) {
	if !validToken(token) {
		return "", false
	}
	data, err := a.answers.get(http01 + "+" + token)
	// A key authorization begins with its token (RFC 8555 section 8.1).
	_, thumbprint, _ := strings.Cut(string(data), ".")
	if err != nil || string(data) != token+"."+thumbprint || !validToken(thumbprint) {
		return "", false
	}
	return string(data), true
}

// ALPN gives the certificate that proves control of the name in a hello that offers acme-tls/1
// (RFC 8737 section 3), also for an order of another node.
func (a *ACME) ALPN(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	name := Fold(hello.ServerName)
	if !validName(name) {
		return nil, errors.New("answering a tls-alpn-01 challenge: the hello has no valid server name")
	}
	data, err := a.answers.get(tlsalpn01 + "+" + name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("answering a tls-alpn-01 challenge: none is under way for %s", name)
	} else if err != nil {
		return nil, fmt.Errorf("answering a tls-alpn-01 challenge for %s: %w", name, err)
	}
	cert, err := tls.X509KeyPair(data, data)
	if err != nil {
		return nil, fmt.Errorf("answering a tls-alpn-01 challenge for %s: %w", name, err)
	}
	return &cert, nil
}

// prepare makes the answer to a challenge known. What takes it back is never nil.
func (s *answers) prepare(client *acme.Client, c *acme.Challenge, name string) (remove func(), err error) {
	none := func() {}
	if !validToken(c.Token) {
		return none, fmt.Errorf("the token %q is not base64url", cleaned(c.Token, 100))
	}
	var file string
	var data []byte
	switch c.Type {
	case http01:
		keyAuth, err := client.HTTP01ChallengeResponse(c.Token)
		if err != nil {
			return none, err
		}
		file, data = http01+"+"+c.Token, []byte(keyAuth)
	case tlsalpn01:
		cert, err := client.TLSALPN01ChallengeCert(c.Token, name)
		if err != nil {
			return none, err
		}
		if data, err = encodeCert(&cert); err != nil {
			return none, err
		}
		file = tlsalpn01 + "+" + name
	default:
		return none, fmt.Errorf("no answer to a challenge of the kind %q is known", cleaned(c.Type, 50))
	}
	s.mu.Lock()
	s.files[file] = data
	s.mu.Unlock()
	// On a full disk this node can answer, if it is the one asked.
	_ = writeFile(s.path(file), data)
	return func() {
		s.mu.Lock()
		mine := bytes.Equal(s.files[file], data)
		if mine {
			delete(s.files, file)
		}
		s.mu.Unlock()
		if mine { // not the answer of a later order for the same name
			_ = os.Remove(s.path(file)) // else it is swept
		}
	}, nil
}

// get returns an answer of ours, or another node's.
func (s *answers) get(file string) ([]byte, error) {
	s.mu.Lock()
	data := s.files[file]
	s.mu.Unlock()
	if data != nil {
		return data, nil
	}
	return readFile(s.path(file), maxAnswer)
}

// path is the place of an answer; the name is checked.
func (s *answers) path(file string) string { return s.state.path("answers", file) }
