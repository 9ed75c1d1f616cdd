package outreach

// What comes back to a notice's return path: reports that it could not be delivered (RFC
// 3464), absence notes (RFC 3834), and whatever else somebody sends to an address that he has seen.
// Nothing is ever sent in answer, so there is no loop. Only what names a notice by its
// unguessable token changes anything.
//
// Not done: bounces in prose (qmail's, and those of some gateways). They say nothing that a
// program should believe; they are noted, and support sees it.

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	gomessage "github.com/emersion/go-message"
	"github.com/emersion/go-message/textproto"
)

const (
	mostReturned   = 1 << 20 // bytes that are read of a message: a report stands at its beginning
	mostParts      = 20      // of a message
	mostRecipients = 50      // of a report: ours has one
)

// Returned is a message to a return path.
type Returned struct {
	Tokens  []string  // that it names, the most trustworthy first
	Reports []Deliver // what it reports of recipients; none: it is no report
	Auto    bool      // a program wrote it (RFC 3834 section 5)
}

// Deliver is what a report says of one recipient (RFC 3464 section 2.3).
type Deliver struct {
	Original, Final string // addresses; either may be empty
	Action          string // failed, delayed, delivered, relayed, expanded
	Status          string // like 5.1.1
	Said            string // by the server that refused it
}

// ReadReturned reads a message that came to the address to; where that is empty, the
// message's own fields say it. It reads no more than the beginning of long ones.
func ReadReturned(r io.Reader, to string) (*Returned, error) {
	data, err := io.ReadAll(io.LimitReader(r, mostReturned))
	if err != nil {
		return nil, fmt.Errorf("reading the message: %w", err)
	}
	if rest, ok := bytes.CutPrefix(data, []byte("From ")); ok { // the first line of a mailbox file, which a pipe may put before it
		if nl := bytes.IndexByte(rest, '\n'); nl >= 0 {
			data = rest[nl+1:]
		}
	}
	m := new(Returned)
	addresses := []string{to}
	e, err := gomessage.Read(bytes.NewReader(data))
	if e == nil || err != nil && !gomessage.IsUnknownCharset(err) && !gomessage.IsUnknownEncoding(err) {
		m.token(addresses)
		return m, nil // what is no message reports nothing
	}
	if to == "" {
		addresses = nil
		for _, field := range []string{"Delivered-To", "X-Original-To", "To", "Cc"} {
			for f := e.Header.FieldsByKey(field); f.Next(); {
				addresses = append(addresses, strings.FieldsFunc(f.Value(), func(r rune) bool { return strings.ContainsRune(" \t\r\n,;<>\"()", r) })...)
			}
		}
	}
	m.token(addresses)
	auto, _, _ := strings.Cut(e.Header.Get("Auto-Submitted"), ";")
	auto = strings.ToLower(strings.TrimSpace(auto))
	m.Auto = auto != "" && auto != "no"
	kind, _, _ := e.Header.ContentType()
	if parts := e.MultipartReader(); parts != nil && strings.EqualFold(kind, "multipart/report") {
		m.report(parts)
	}
	return m, nil
}

// token notes the tokens of addresses.
func (m *Returned) token(addresses []string) {
	for _, a := range addresses {
		if token, ok := ParseToken(a); ok && !slices.Contains(m.Tokens, token) && len(m.Tokens) < mostRecipients {
			m.Tokens = append(m.Tokens, token)
		}
	}
}

// report reads the part of a report that is for machines.
func (m *Returned) report(parts gomessage.MultipartReader) {
	for range mostParts {
		part, err := parts.NextPart()
		if part == nil || err != nil && !gomessage.IsUnknownCharset(err) && !gomessage.IsUnknownEncoding(err) {
			return
		}
		kind, _, _ := part.Header.ContentType()
		if !strings.EqualFold(kind, "message/delivery-status") && !strings.EqualFold(kind, "message/global-delivery-status") { // RFC 6533
			continue
		}
		body := bufio.NewReader(part.Body)
		for n := range mostRecipients + 1 {
			for { // groups of fields are separated by one empty line; some write more
				c, err := body.Peek(1)
				if err != nil {
					return
				}
				if c[0] != '\r' && c[0] != '\n' {
					break
				}
				body.Discard(1)
			}
			h, err := textproto.ReadHeader(body)
			if n == 0 {
				// We gave the server the token as the envelope's id (RFC 3461 section 4.4).
				if id := h.Get("Original-Envelope-Id"); id != "" {
					m.token([]string{"+" + strings.TrimSpace(id)})
				}
			}
			if action := h.Get("Action"); action != "" {
				m.Reports = append(m.Reports, Deliver{
					Original: reportedAddress(h.Get("Original-Recipient")), Final: reportedAddress(h.Get("Final-Recipient")),
					Action: strings.ToLower(heardLine(action)), Status: reportedStatus(h.Get("Status"), h.Get("Diagnostic-Code")), Said: heardLine(h.Get("Diagnostic-Code")),
				})
			}
			if err != nil {
				return
			}
		}
		return
	}
}

// reportedAddress is that of a field like "rfc822; anna@example.org".
func reportedAddress(field string) string {
	if _, a, ok := strings.Cut(field, ";"); ok {
		field = a
	}
	return heardLine(strings.Trim(strings.TrimSpace(field), "<>"))
}

// reportedStatus is a status code (RFC 3463), of the first digits that are one.
func reportedStatus(field, diagnostic string) string {
	word, _, _ := strings.Cut(strings.TrimSpace(field), " ") // comments follow
	if part := strings.Split(word, "."); len(part) == 3 && len(word) <= 9 && strings.Trim(word, "0123456789.") == "" {
		return word
	}
	_, said, _ := strings.Cut(diagnostic, ";")
	if said = strings.TrimSpace(said); len(said) >= 3 && (said[0] == '4' || said[0] == '5') && strings.Trim(said[:3], "0123456789") == "" {
		return said[:1] + ".0.0"
	}
	return ""
}

// of reports whether it is about an address. Where a customer has his mail forwarded, a report
// may be about the other one's, and says nothing of his own mailbox.
func (d *Deliver) of(account string) bool {
	return d.Original == "" && d.Final == "" || strings.EqualFold(d.Original, account) || strings.EqualFold(d.Final, account)
}

// failed reports whether no later try will succeed.
func (d *Deliver) failed() bool { return d.Action == "failed" && strings.HasPrefix(d.Status, "5.") }

// Came is what a returned message meant.
type Came struct {
	Notice  *Notice // nil: it belongs to none
	Bounced bool    // and its account gets no more
	Said    string  // in a sentence
}

// Return notes a message that came back.
func (l *Ledger) Return(ctx context.Context, m *Returned) (came Came, err error) {
	err = l.tx(ctx, func(t *tx) error {
		came = Came{}
		for _, token := range m.Tokens {
			all, err := t.notices("token = $1", token)
			if err != nil {
				return err
			}
			if len(all) > 0 {
				came.Notice = &all[0]
				break
			}
		}
		n := came.Notice
		if n == nil {
			came.Said = "it belongs to no notice"
			return nil
		}
		what, note := m.about(n.Account)
		came.Bounced, came.Said = what == "bounced", note
		note = t.l.today().String() + " " + note
		// Whatever comes back was sent: it ends a doubt, too.
		state := n.State
		switch {
		case came.Bounced && n.State != StateClaimed && n.State != StateSkipped:
			state = StateBounced
		case n.State == StateDoubt:
			state = StateSent
		}
		if _, err := t.exec("UPDATE notice SET state = $5, note = $6 WHERE campaign = $1 AND account = $2 AND series = $3 AND step = $4",
			l.opt.Campaign, n.Account, n.Series, n.Step, string(state), note); err != nil {
			return err
		}
		if came.Bounced {
			if _, err := t.exec("UPDATE account SET bounced = $1 WHERE name = $2 AND bounced = 0", t.l.today(), n.Account); err != nil {
				return err
			}
		}
		if state == n.State && note == n.Note {
			return nil // the same once more
		}
		n.State, n.Note = state, note
		return t.audit("notice "+what, fmt.Sprintf("%s to %s: %s", StepName(n.Step), n.Account, came.Said))
	})
	if err != nil {
		return Came{}, fmt.Errorf("noting what came back: %w", err)
	}
	return came, nil
}

// about says what a message means for an account: a word and a sentence.
func (m *Returned) about(account string) (what, note string) {
	for i := range m.Reports {
		if d := &m.Reports[i]; d.failed() && d.of(account) {
			return "bounced", heardLine("it could not be delivered: " + d.Status + " " + d.Said)
		}
	}
	if len(m.Reports) > 0 {
		d, whom := &m.Reports[0], ""
		if !d.of(account) {
			whom = " to another address, to which mail is forwarded"
		}
		return "reported", heardLine(d.Action + whom + ": " + d.Status + " " + d.Said)
	}
	if m.Auto {
		return "answered", "a program has answered, as absence notes do"
	}
	return "answered", "somebody has answered, or a server in its own words"
}
