package proxy

// SASL that passes between client and backend, challenge by challenge (RFC 4422), for
// mechanisms whose secret the proxy never sees; and APOP, whose only challenge
// stands in the greeting.

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"mailreeve/policy"
)

const (
	// maxRounds bounds the challenges of one exchange: no mechanism here has more than three.
	maxRounds = 10
	apop      = "APOP"

	// answerPatience is the time for one response. A program answers at once, and while
	// it does not, it holds a backend's place for those that are not logged in.
	answerPatience = 30 * time.Second

	// mostEarly and earlyEach bound the connections to a backend that were made for a
	// timestamp and wait for a login, in all and for one client: some backends take a
	// hundred connections that are not logged in, and all others want in, too. A
	// program that has a timestamp uses it at once.
	mostEarly = 64
	earlyEach = 8
)

// Stamper is a Peer whose greeting may have a timestamp for APOP (RFC 1939
// section 7). Its Offer then has a mechanism "APOP".
type Stamper interface {
	// Stamp returns the timestamp with its angle brackets, or "".
	Stamp() string
	// Resume says who stands behind the connection by now: it was made before the greeting.
	Resume(Origin)
}

// passes reports whether a mechanism passes to this session's backend: that one
// has it, and policy does not refuse the mechanism as such. One that is refused for
// another reason, an old name say, still passes over TLS where the refusal waits for
// a verified login.
func (s *session) passes(mech string) bool {
	_, known := readings[mech]
	if !known || s.backend().Master != nil || !slices.Contains(s.offer.Mechs, mech) {
		return false // a master has no secret of the customer's to answer with
	}
	if mech == apop && (s.early == nil || s.early.backend != s.backend()) {
		return false
	}
	f := s.facts
	f.Forget(policy.Entry, policy.TLS, policy.CipherClass, policy.SNI, policy.Host, policy.Account, policy.Domain,
		policy.UserForm, policy.Client, policy.Ledger, policy.Verified)
	f.Set(policy.Mech, mech)
	return !s.mildest(&f).Action.Refuses()
}

// passing lists the backend's mechanisms that pass, in its order.
func (s *session) passing() (mechs []string) {
	for _, mech := range s.offer.Mechs {
		if mech != apop && !slices.Contains(mechs, mech) && s.passes(mech) {
			mechs = append(mechs, mech)
		}
	}
	return mechs
}

// lead connects to the backend before the greeting, where APOP may pass: the
// timestamp must be the backend's own. An outage is told as one that was noticed by
// asking. No timestamp means no APOP.
func (s *session) lead() {
	b := s.backend()
	if s.noOffer != nil || b.Master != nil || !slices.Contains(s.offer.Mechs, apop) {
		return
	}
	s.ponder()
	if s.could(apop).Action.Refuses() || s.probed(apop) {
		return // a timestamp would invite programs to what is refused, and in words that look like a wrong password
	}
	if !b.early.enter(mostEarly) {
		return
	}
	if !b.early.add(s.client.Addr(), earlyEach) {
		b.early.leave()
		return
	}
	defer func() {
		if s.early == nil {
			b.spent(s.client.Addr())
		}
	}()
	s.action = "connecting to the backend for its timestamp"
	ctx, cancel := s.hurried(s.engine.overdue, offerPatience)
	defer cancel()
	l, err := b.connect(ctx, s.origin())
	if err != nil {
		b.doubted()
		s.noOffer = fmt.Errorf("connecting for the timestamp of APOP: %w", err)
		return
	}
	b.answered()
	if !l.release() { // the time was up in this very moment
		l.wire.Close()
		return
	}
	l.release = context.AfterFunc(s.engine.overdue, func() { l.wire.Close() })
	if p, ok := l.peer.(Stamper); !ok || p.Stamp() == "" {
		l.close()
		return
	}
	l.secure = s.tls != nil
	s.early = l
}

// spend takes the connection that was made before the greeting, where there is one.
func (s *session) spend() *link {
	l := s.early
	if l != nil {
		s.early = nil
		l.backend.spent(s.client.Addr())
	}
	return l
}

// spent counts a connection no more that was made before a greeting.
func (b *Backend) spent(client netip.Addr) {
	b.early.remove(client)
	b.early.leave()
}

// stamp is the timestamp to greet with.
func (s *session) stamp() string {
	if s.early == nil {
		return ""
	}
	return s.early.peer.(Stamper).Stamp()
}

// reach connects to the backend, or takes the connection that was made for the
// greeting. That one says in its PROXY header what was so then, and serves
// APOP alone when TLS has begun since.
func (s *session) reach(b *Backend, req Request) (l *link, early bool, err error) {
	if l = s.early; l != nil && l.backend == b && (req.Mech == apop || !b.Proxy || l.secure == (s.tls != nil)) {
		s.spend()
		l.wire.SetReadDeadline(time.Now().Add(b.Login))
		l.peer.(Stamper).Resume(s.origin())
		return l, true, nil
	}
	if req.Mech == apop {
		return nil, false, errors.New("the backend that gave the timestamp is gone")
	}
	l, err = b.connect(s.engine.overdue, s.origin())
	return l, false, err
}

// passage is one exchange on its way.
type passage struct {
	s      *session
	req    Request
	kind   reading
	rounds int // challenges passed
	bytes  int // both ways
	heard  int // responses, the initial one too

	claim claim

	// Why it stops, where that is not the backend's doing. At most one is set.
	gone    error    // the client's connection, or a line that is too long
	abort   error    // ErrCancelled or ErrMalformed
	refusal *Refusal // policy's, or of the mechanism
}

// errStopped goes up through a peer when an exchange is stopped on this side.
var errStopped = errors.New("the exchange was stopped")

// pass takes the client to its backend by an exchange that passes through. No ending means
// that the dialogue goes on.
func (s *session) pass(d Dialogue, req Request) *Ending {
	s.phase, s.prompted = loggingIn, false
	p := &passage{s: s, req: req, kind: readings[req.Mech]}
	if req.Initial != "" || req.Mech == apop {
		if p.kind.waits {
			p.abort = ErrMalformed
		} else if p.look(req.Initial.Reveal()) {
			p.bytes = len(req.Initial)
		}
	}
	if p.gone == nil && p.abort == nil && p.refusal == nil {
		p.req.Through = p
		l, reply, err := s.enter(p.req, s.backend())
		switch {
		case p.gone != nil || p.abort != nil || p.refusal != nil:
			if l != nil {
				l.close()
			}
		case err != nil:
			if no := (*Rejection)(nil); p.claim.user == "" && errors.As(err, &no) {
				no.Class = Unavailable // it was not asked about anybody yet
			}
			return s.refuse(d, p.req, s.loginRefusal(err))
		case p.claim.user == "":
			l.close()
			return s.refuse(d, p.req, s.loginRefusal(errors.New("the backend took a login that names nobody")))
		default:
			return s.admit(d, p.req, l, reply)
		}
	}
	switch {
	case p.refusal != nil:
		return s.refuse(d, p.req, *p.refusal)
	case p.abort != nil:
		s.phase = talking
		p.gone = d.Abort(req, p.abort)
	}
	if p.gone != nil {
		return s.stopped(d, p.gone)
	}
	return nil
}

// Respond passes a challenge on and returns the client's response.
func (p *passage) Respond(challenge string) (Secret, error) {
	s, limits := p.s, p.s.settings.Limits
	p.rounds++
	p.bytes += len(challenge)
	switch {
	case p.abort != nil:
		return "", errStopped // the client has given up, and has no answer any more
	case p.req.Mech == apop:
		return "", errors.New("the backend asked for more than APOP")
	case p.rounds > maxRounds:
		return "", fmt.Errorf("the backend asked for more than %d responses", maxRounds)
	case p.bytes > limits.Memory:
		return "", fmt.Errorf("the exchange has more than %d bytes", limits.Memory)
	case strings.ContainsFunc(challenge, func(c rune) bool { return c < ' ' || c > '~' }):
		return "", errors.New("the backend's challenge is no printable text")
	}
	s.action, s.prompted = "passing a challenge to the client", true
	s.patience(min(answerPatience, time.Until(s.until)))
	line, err := s.wire.Prompt(s.listener.Front.Mark+challenge, limits)
	if errors.Is(err, os.ErrDeadlineExceeded) && time.Now().Before(s.until) && !s.leaving() {
		err = &Ending{who: byLimit, Reason: "login_timeout", Bye: TooLate,
			Sentence: fmt.Sprintf("the client did not answer a challenge within %v", answerPatience)}
	}
	s.patience(time.Until(s.until))
	if err != nil {
		p.gone = err
		return "", errStopped
	}
	s.action = "passing a response to the backend"
	response := string(line)
	if p.bytes += len(response); p.bytes > limits.Memory {
		p.gone = ErrLineTooLong
		return "", errStopped
	}
	s.link.wire.SetReadDeadline(time.Now().Add(s.backend().Login)) // the client's time is not the backend's
	if !p.look(response) && p.abort != ErrCancelled {
		return "", errStopped
	}
	return Secret(response), nil
}

// look reads a response, base64 encoded but for APOP, and asks policy as soon as it
// names the account: that is before the response is passed on. It reports whether
// the exchange may go on.
func (p *passage) look(response string) bool {
	s := p.s
	raw := []byte(response)
	if p.req.Mech != apop {
		if raw, p.abort = decodeSASL(raw); p.abort != nil {
			return false
		}
	}
	p.heard++
	if p.kind.first && p.heard > 1 {
		return true
	}
	c, err := p.kind.name(raw)
	if err != nil {
		p.abort = ErrMalformed
		return false
	}
	if p.kind.first && raw[0] == 'y' && slices.Contains(s.offer.Mechs, p.req.Mech+"-PLUS") {
		// It could bind the channel and sees no -PLUS; the backend, which has it, must take
		// that for an attack (RFC 5802 section 6) and would say that the password is wrong.
		ref := s.refusal(BadMech)
		p.refusal = &ref
		return false
	}
	if c.user == "" {
		return true
	}
	if p.claim.user != "" {
		if c != p.claim { // policy was asked for another
			p.abort = ErrMalformed
		}
		return p.abort == nil
	}
	p.claim = c
	s.event.Attempts++
	s.identify(&Request{Mech: p.req.Mech, User: c.user, Authzid: c.authzid})
	s.ponder()
	if verdict := s.decide(); verdict.Action.Refuses() && s.blind(verdict) {
		ref := s.policyRefusal(verdict)
		p.refusal = &ref
		return false
	}
	return true
}

// again reports whether a login that failed on a connection made before the
// greeting may be tried on a new one: the backend has hung up in the meantime. Not
// where the client has already answered it.
func (s *session) again(req Request, err error) bool {
	return req.Mech != apop && !errors.Is(err, os.ErrDeadlineExceeded) && (req.Through == nil || !s.prompted)
}
