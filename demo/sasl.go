package demo

import (
	"strings"

	"github.com/emersion/go-sasl"
)

// mechanisms are what all three servers announce. LOGIN is obsolete and was
// never a standard, but Outlook still asks for it.
var mechanisms = []string{sasl.Plain, sasl.Login}

// newSASL returns the server side of a mechanism, nil if it is not one of
// mechanisms. What it cannot accept ends with refused; the error of login goes
// unchanged to the protocol's server.
func newSASL(mechanism string, refused error, login func(name, password string) error) sasl.Server {
	switch mechanism {
	case sasl.Plain:
		return &plainServer{refused: refused, login: login}
	case sasl.Login:
		return &loginServer{login: login}
	}
	return nil
}

// plainServer is the server side of PLAIN (RFC 4616). That of go-sasl opens with
// an empty challenge that is not nil, which go-imap writes as "=", and its error
// for a malformed response is a stranger to every protocol.
type plainServer struct {
	refused error
	login   func(name, password string) error
}

// Next implements sasl.Server.
func (s *plainServer) Next(response []byte) (challenge []byte, done bool, err error) {
	if response == nil {
		return nil, false, nil
	}
	fields := strings.Split(string(response), "\x00")
	if len(fields) != 3 {
		return nil, true, s.refused
	}
	identity, name, password := fields[0], fields[1], fields[2]
	if identity != "" && canonical(identity) != canonical(name) {
		return nil, true, s.refused // nobody may act for another
	}
	return nil, true, s.login(name, password)
}

// loginServer is the server side of LOGIN (draft-murchison-sasl-login-00):
// two challenges, whose wording clients rely upon.
type loginServer struct {
	login func(name, password string) error
	name  *string // nil until the client has sent it
}

// Next implements sasl.Server.
func (s *loginServer) Next(response []byte) (challenge []byte, done bool, err error) {
	switch {
	case response == nil:
		return []byte("Username:"), false, nil
	case s.name == nil:
		name := string(response)
		s.name = &name
		return []byte("Password:"), false, nil
	default:
		return nil, true, s.login(*s.name, string(response))
	}
}
