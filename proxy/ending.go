package proxy

// How sessions end: two letters, a stable word and a sentence, from whatever error
// came up.

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"syscall"
)

// Who ended a session: the first letter of an event's field "end".
const (
	byClient  = 'C'
	byBackend = 'B'
	byProxy   = 'P' // by policy, or by the rules of the protocol
	byLimit   = 'L'
	byDrain   = 'D'
	byError   = 'E'
)

// phase is where in its life a session is: the second letter.
type phase byte

const (
	accepting phase = 'A'
	sniffing  phase = 'S'
	securing  phase = 'T'
	talking   phase = 'D'
	loggingIn phase = 'L'
	relaying  phase = 'R'
)

// Ending is why a session ended: a stable word for machines, a sentence for
// people. It is an error so that it can come up from any depth; the engine
// adds the phase.
type Ending struct {
	who      byte
	Reason   string
	Sentence string
	Bye      Class  // what the client is told first; 0: nothing
	alert    string // of TLS, that the client sent
}

func (e *Ending) Error() string { return e.Reason + ": " + e.Sentence }

// Quit is the ending of a client that took its leave; the front has answered it.
var Quit = &Ending{who: byClient, Reason: "client_quit", Sentence: "the client took its leave before a login"}

// Misspoke ends a session whose client does not keep to the protocol.
func Misspoke(reason, format string, args ...any) *Ending {
	return &Ending{who: byProxy, Reason: reason, Sentence: fmt.Sprintf(format, args...), Bye: Misspoken}
}

// Reasons of fronts for Misspoke, the same in every protocol.
const (
	TooManyBadCommands = "too_many_bad_commands"
	LineTooLong        = "line_too_long"
	OtherProtocol      = "other_protocol" // HTTP, say: a cross-protocol attack
)

// ended says which ending an error from reading or writing a peer's connection
// is; side is byClient or byBackend.
func ended(side byte, err error) *Ending {
	name, word := "the client", "client"
	if side == byBackend {
		name, word = "the backend", "backend"
	}
	var e *Ending
	if alert := alertName(err); alert != "" && side == byClient {
		if slices.Contains(certificateAlerts, alert) {
			return &Ending{who: side, Reason: "certificate_refused", Sentence: "the client does not take the certificate: alert " + alert, alert: alert}
		}
		return &Ending{who: side, Reason: "client_alert", Sentence: "the client ended TLS: alert " + alert, alert: alert}
	}
	switch {
	case errors.As(err, &e):
		return e
	case errors.Is(err, ErrLineTooLong):
		return Misspoke(LineTooLong, "%s sent a line longer than allowed", name)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return &Ending{who: byLimit, Reason: word + "_timeout", Sentence: name + " was silent for too long"}
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.ErrClosedPipe), errors.Is(err, net.ErrClosed):
		return &Ending{who: side, Reason: word + "_closed", Sentence: name + " closed the connection"}
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return &Ending{who: side, Reason: word + "_reset", Sentence: name + " reset the connection"}
	case errors.Is(err, syscall.ETIMEDOUT), errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return &Ending{who: side, Reason: word + "_lost", Sentence: name + " is no longer reachable"}
	}
	return &Ending{who: side, Reason: word + "_error", Sentence: name + ": " + unplaced(err)}
}

// unplaced is an error without the addresses of its connection: sentences go into the
// operators' log, too, and the event has the client's.
func unplaced(err error) string {
	if op := (*net.OpError)(nil); errors.As(err, &op) {
		return op.Op + ": " + op.Err.Error()
	}
	return err.Error()
}

// Strike counts a wrong command, and ends the session at the limit.
func (l Limits) Strike(bad *int) error {
	if *bad++; *bad >= l.BadCommands {
		return Misspoke(TooManyBadCommands, "the client sent %d wrong commands", *bad)
	}
	return nil
}

// notHTTP ends the session of a browser that was led to a mail port (ALPACA).
func notHTTP(line []byte) error {
	for _, method := range []string{"GET ", "POST ", "HEAD ", "PUT ", "OPTIONS ", "CONNECT ", "DELETE ", "PATCH ", "PRI * HTTP"} {
		if bytes.HasPrefix(line, []byte(method)) {
			return Misspoke(OtherProtocol, "the client spoke HTTP")
		}
	}
	return nil
}
