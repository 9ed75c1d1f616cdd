package proxy

// The life of a session up to its login: header, sniffing, handshake, dialogue,
// and the one event at its end. It is straight-line code in one goroutine, up to
// the relay, which has none; others reach it through the few fields under mu.

import (
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"mailreeve/events"
	"mailreeve/policy"
)

const (
	// silentPlain is how long a client of a TLS port may be silent before it is
	// taken for one in plaintext that waits for a greeting.
	silentPlain = 4 * time.Second
	// crowd is how many sessions before their login make a storm, as after an outage.
	// Silence says nothing then: who waits in clear waits longer, and whose hello is
	// late is not taken for one of them.
	crowd = 200
	// sniffPatience is how long a greeting in clear waits for a ClientHello: long
	// enough for a client that speaks first, too short to be noticed by others.
	sniffPatience = 150 * time.Millisecond
	// lingerBytes bounds what is read and thrown away after the last word: a
	// client that sends more does not listen.
	lingerBytes = 64 << 10
)

// session is one client connection, from accept to close. Fields are in the
// order in which they become known.
type session struct {
	engine   *Engine
	settings *Settings
	listener *Listener
	conn     net.Conn // as accepted; closed and given deadlines by others too; nil once it is the relay's
	wire     *Wire
	began    time.Time
	id       string
	phase    phase
	action   string // what is being done, for the log

	client, server netip.AddrPort // behind a balancer: as it says
	counted        bool           // against the client's limit
	local          bool           // a balancer's own health check

	brand   *Brand
	facts   policy.Facts
	tls     *tls.ConnectionState
	event   events.Session
	offer   Offer
	noOffer error // why the backend could not be asked
	talk    Dialogue
	bad     int          // requests refused
	decided time.Time    // when policy was last asked, by its own clock
	until   time.Time    // when the login must be done
	hold    *policy.Hold // that was in force then
	deputy  string       // the account that logs in on behalf of another, if one does
	link    *link        // the last one to a backend

	early    *link // made before the greeting, for its timestamp, and not yet used
	prompted bool  // an exchange has passed a challenge to the client
	told     bool  // who watches has heard of it, or there is nothing left to hear

	mu    sync.Mutex // guards the following, which a shutdown looks at
	left  bool       // a shutdown has spoken
	gone  bool       // and has cut
	hurry func()     // ends a handshake; nil: there is none
	relay *relay
}

func newSession(e *Engine, now *serving, conn net.Conn) *session {
	began := time.Now()
	s := &session{
		engine: e, settings: now.settings, listener: now.listener, conn: conn, wire: NewWire(conn),
		began: began, id: newID(began), phase: accepting,
		client: addrPort(conn.RemoteAddr()), server: addrPort(conn.LocalAddr()),
	}
	s.ponder()
	return s
}

// digits of a session id: Crockford's base 32, which has no I, L, O and U to be
// misheard on the phone.
const digits = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"

// newID returns twelve digits: four of the minute, so that an event is found
// quickly, and forty random bits.
func newID(now time.Time) string {
	var random [5]byte
	rand.Read(random[:])
	n := uint64(now.Unix()/60)&(1<<20-1)<<40 | uint64(random[0])<<32 | uint64(random[1])<<24 |
		uint64(random[2])<<16 | uint64(random[3])<<8 | uint64(random[4])
	var id [12]byte
	for i := len(id) - 1; i >= 0; i-- {
		id[i] = digits[n&31]
		n >>= 5
	}
	return string(id[:])
}

// run lives the session up to its relay, or to its end.
func (s *session) run() {
	defer s.engine.entering.Add(-1)
	end := s.survive(s.lifetime)
	if end == handedOver {
		return // the relay calls part
	}
	if s.tls != nil {
		s.wire.CloseWrite() // programs take TLS that ends without it for an attack
	}
	s.conn.Close()
	if s.link != nil {
		s.link.drop() // once more, after a panic
	}
	if l := s.spend(); l != nil {
		l.drop()
	}
	if end != nil && (!s.local || s.event.Attempts != 0 || s.bad != 0 || end.who == byError) { // a balancer's own check of our health is no customer
		s.survive(func() *Ending {
			s.action = "describing the client"
			s.known()
			return nil
		})
		s.record(end)
	}
	s.depart()
}

// handedOver is what becomes of a session whose goroutine has nothing more to do.
var handedOver = &Ending{Reason: "relayed"}

// part is the end of a session that was relayed.
func (s *session) part(end *Ending) {
	s.record(end)
	s.depart()
}

// depart takes the session out of all counts.
func (s *session) depart() {
	if s.counted {
		s.engine.tally.remove(s.client.Addr())
	}
	s.engine.bury(s)
}

// survive turns a panic, which is our mistake, into the end of this session alone.
func (s *session) survive(part func() *Ending) (end *Ending) {
	defer func() {
		if p := recover(); p != nil {
			end = s.mistaken(p)
		}
	}()
	return part()
}

// mistaken is the ending after a panic.
func (s *session) mistaken(p any) *Ending {
	s.engine.log().Error("a session failed", zap.String("session", s.id), zap.String("while", s.action),
		zap.Any("panic", p), zap.ByteString("stack", debug.Stack()))
	return &Ending{who: byError, Reason: "internal_error", Sentence: "the proxy made a mistake while " + s.action}
}

// ended is the ending after an error from the client's connection: a shutdown
// ends sessions by way of their deadlines and by closing.
func (s *session) ended(err error) *Ending {
	e := ended(byClient, err)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.left && e.Reason == "client_timeout" || s.gone {
		return drained()
	}
	return e
}

// lifetime is the session from accept to close. No ending means that there is
// nothing to record.
func (s *session) lifetime() *Ending {
	s.brand = s.listener.Brand
	s.learn(policy.Protocol, s.listener.Front.Name)
	s.learn(policy.Listener, s.listener.Name)

	s.action = "reading the PROXY header"
	if end := s.arrive(); end != nil {
		return end
	}
	if !s.engine.tally.add(s.client.Addr(), s.settings.PerAddress) {
		s.turnAway()
		return nil
	}
	s.counted = true
	s.learn(policy.Port, fmt.Sprint(s.server.Port()))
	s.learn(policy.Brand, s.brand.Name)
	s.facts.IP = s.client.Addr()

	s.phase, s.action = sniffing, "waiting for the first byte"
	isTLS, end := s.sniff()
	if end != nil {
		return end
	}
	if isTLS {
		if end := s.handshake(policy.EntryImplicit); end != nil {
			return end
		}
	} else {
		s.learn(policy.TLS, policy.None)
		s.learn(policy.Entry, policy.EntryPlain)
	}
	s.loginTime()
	return s.converse()
}

// learn makes a fact known.
func (s *session) learn(f policy.Fact, value string) { s.facts.Set(f, value) }

// patience bounds reading from now on. A shutdown that has spoken bounds it to nothing.
func (s *session) patience(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.left {
		d = 0
	}
	s.conn.SetReadDeadline(time.Now().Add(d))
}

// loginTime gives the client its time for the login, from now on.
func (s *session) loginTime() {
	s.until = time.Now().Add(s.settings.Times.Login)
	s.patience(s.settings.Times.Login)
}

// arrive reads the PROXY header of a peer that must send one. Nobody else may:
// a header from elsewhere is taken for what the client says.
func (s *session) arrive() *Ending {
	peer := s.client.Addr()
	if !slices.ContainsFunc(s.listener.Proxies, func(n netip.Prefix) bool { return n.Contains(peer) }) {
		return nil
	}
	s.patience(s.settings.Times.Handshake)
	client, server, err := readProxyHeader(s.wire)
	if err != nil {
		if errors.Is(err, errBadHeader) {
			return &Ending{who: byProxy, Reason: "bad_proxy_header", Sentence: err.Error()}
		}
		end := s.ended(err)
		// A balancer that looks whether the port is open sends nothing. One
		// that waits instead is set up wrongly, and that must be seen.
		s.local = end.who == byClient && s.wire.in.Load() == 0
		return end
	}
	s.event.Via = peer
	if !client.IsValid() {
		s.local = true
		return nil
	}
	s.client, s.server = client, server
	return nil
}

// turnAway closes the connection of a client that has too many; in clear it can
// be told. Such a connection never becomes a session.
func (s *session) turnAway() {
	if held, ok := s.engine.full.ready(); ok {
		s.engine.log().Warn("turned a connection away: limits.per_address is reached", zap.Int("limit", s.settings.PerAddress),
			zap.Stringer("network", policy.Network(s.client.Addr())), zap.String("listener", s.listener.Name), zap.Int("more", held))
	}
	if !s.listener.Implicit {
		s.open(Advert{}).Bye(s.refusal(LimitReached))
	}
}

// sniff says whether the client begins with TLS. A client in clear on a TLS
// port is answered in clear: its program would show nothing else.
func (s *session) sniff() (isTLS bool, end *Ending) {
	if !s.listener.Implicit {
		if !s.listener.ServeHello {
			return false, nil
		}
		s.patience(sniffPatience)
		first, err := s.wire.Peek(1)
		switch {
		case err == nil && beginsTLS(first[0]):
			s.event.WrongPort = true
			return true, nil
		case err == nil || errors.Is(err, os.ErrDeadlineExceeded):
			return false, nil
		}
		return false, s.ended(err)
	}
	for waited := silentPlain; ; waited += silentPlain {
		s.patience(silentPlain)
		first, err := s.wire.Peek(1)
		silent := errors.Is(err, os.ErrDeadlineExceeded) && !s.leaving()
		switch {
		case err == nil && beginsTLS(first[0]):
			return true, nil
		case err != nil && !silent:
			return false, s.ended(err)
		}
		if err == nil || s.engine.entering.Load() < crowd || waited+silentPlain > s.settings.Times.Handshake {
			break
		}
	}
	s.event.WrongPort = true
	s.learn(policy.TLS, policy.None)
	s.learn(policy.Entry, policy.EntryPlain)
	return false, s.bye(s.open(Advert{}), &Ending{who: byProxy, Reason: "plaintext_on_tls_port",
		Sentence: "the client spoke in clear, or waited for a greeting, on a port of implicit TLS",
		Bye:      PlainOnTLS})
}

// beginsTLS knows the first byte of a TLS record with a handshake (RFC 8446
// section 5.1) and that of an SSL 2 ClientHello, which is then refused as TLS.
func beginsTLS(first byte) bool { return first == 0x16 || first == 0x80 }

// open begins a dialogue.
func (s *session) open(a Advert) Dialogue {
	s.talk = s.listener.Front.Open(s.wire, a, s.settings.Limits)
	return s.talk
}

// converse talks to the client until it leaves, is sent away or is in.
func (s *session) converse() *Ending {
	s.phase, s.action = talking, "asking the backend what it offers"
	s.ask()
	s.lead()
	s.action = "greeting the client"
	d := s.open(s.advert())
	// Where STARTTLS is still to come, the name in it may lead to another brand.
	if s.noOffer != nil && s.listener.Front.OutageEarly && (s.tls != nil || len(s.settings.Brands) == 1) {
		s.event.Refused = refusedWords[Unavailable]
		return s.bye(d, &Ending{who: byBackend, Reason: "backend_unavailable", Bye: Unavailable,
			Sentence: "the backend could not be reached, and the client was told so in place of a greeting"})
	}
	if err := d.Greet(); err != nil {
		return s.ended(err)
	}
	for {
		s.phase, s.action = talking, "talking to the client"
		req, err := d.Next()
		if err != nil {
			return s.stopped(d, err)
		}
		var end *Ending
		switch req.Kind {
		case StartTLS:
			end = s.upgrade(d, req)
		case Chosen:
			var refused bool
			if refused, end = s.chosen(d, req); refused {
				break
			}
			if s.passes(req.Mech) {
				end = s.pass(d, req)
				break
			}
			if req, err = d.Credential(); err != nil {
				return s.stopped(d, err)
			}
			if req.Kind == Login {
				end = s.login(d, req)
			}
		case Login:
			end = s.login(d, req)
		}
		if end != nil {
			return end
		}
	}
}

// stopped is the ending after an error of Next or Credential.
func (s *session) stopped(d Dialogue, err error) *Ending {
	end := s.ended(err)
	if end.Reason == "client_timeout" {
		end = &Ending{who: byLimit, Reason: "login_timeout", Bye: TooLate,
			Sentence: fmt.Sprintf("no login within %v", s.settings.Times.Login)}
	}
	return s.bye(d, end)
}

// bye tells the client why it ends, where there is something to tell, and waits
// for it to close: a close in its face looks like a wrong password to some.
func (s *session) bye(d Dialogue, end *Ending) *Ending {
	if end.Bye == 0 {
		return end
	}
	s.action = "saying goodbye to the client"
	if d.Bye(s.refusal(end.Bye)) != nil {
		return end
	}
	switch end.Bye {
	case Misspoken, TooLate, ShuttingDown:
		s.wire.CloseWrite() // nobody reads a text there; the sooner it ends the better
	}
	s.linger()
	return end
}

// linger reads and throws away until the client closes.
func (s *session) linger() {
	s.conn.SetReadDeadline(time.Now().Add(linger))
	io.CopyN(io.Discard, s.wire, lingerBytes)
}

// upgrade answers a request for STARTTLS. Whatever came behind it in clear is
// an attempt to be taken for what TLS protects: that ends the session
// (CVE-2011-0411 and its many successors).
func (s *session) upgrade(d Dialogue, req Request) *Ending {
	if n := s.wire.Buffered(); n > 0 {
		return s.bye(d, Misspoke("starttls_injection", "%d bytes came in clear behind STARTTLS", n))
	}
	if err := d.Accept(req, nil, ""); err != nil {
		return s.ended(err)
	}
	if end := s.handshake(policy.EntryStartTLS); end != nil {
		return end
	}
	if req.Warned {
		s.engine.upgraders.add(s.client.Addr(), s.listener.Name)
	}
	s.facts.Forget(policy.Mech, policy.Client)
	s.disown()
	s.loginTime()
	s.ask() // the server name may have chosen another brand
	if s.early != nil && s.early.backend != s.backend() {
		s.spend().drop()
	}
	d.Upgrade(s.advert())
	return nil
}

// known puts what is known of the session into its event, but for the end.
func (s *session) known() {
	e := &s.event
	if s.talk != nil {
		s.describe(s.talk.Client())
	}
	e.Time, e.ID = s.began, s.id
	e.Listener, e.Protocol, e.Port = s.listener.Name, s.listener.Front.Name, int(s.server.Port())
	e.IP = s.client.Addr()
	e.Entry, e.TLS, e.CipherClass = s.facts.Get(policy.Entry), s.facts.Get(policy.TLS), s.facts.Get(policy.CipherClass)
	e.Host, e.Brand = s.facts.Get(policy.Host), s.brand.Name
	if sni := s.facts.Get(policy.SNI); sni != policy.Absent {
		e.SNI = sni
	}
	if !e.Verified {
		// What the ledger has of an account that nobody confirmed tells less than the
		// refusal itself, which it explains.
		e.Mechanism, e.UserForm, e.Ledger = s.facts.Get(policy.Mech), s.facts.Get(policy.UserForm), s.facts.Get(policy.Ledger)
		s.judge()
	}
}

// show has who watches hear of a login that is refused, as it would stand in the
// event if the session ended here.
func (s *session) show() {
	if s.engine.Watch.Load() == nil {
		return
	}
	kept := s.event // of which what is known now may not be the last word
	s.known()
	s.engine.tell(&s.event)
	s.event, s.told = kept, true
}

// record writes the event and a line for the operators.
func (s *session) record(end *Ending) {
	s.survive(func() *Ending {
		s.action = "writing the event"
		stretch()
		e := &s.event
		e.BytesIn, e.BytesOut = s.wire.Counts()
		e.Seconds = float64(time.Since(s.began).Milliseconds()) / 1000
		e.End, e.Reason, e.Sentence = string([]byte{end.who, byte(s.phase)}), end.Reason, end.Sentence
		e.Alert = end.alert
		s.engine.record(e)
		if !s.told {
			s.engine.tell(e)
		}
		s.engine.log().Debug("session ended", zap.String("session", s.id), zap.String("end", e.End),
			zap.String("reason", e.Reason), zap.String("sentence", e.Sentence))
		return nil
	})
}

// deepStack is what a handshake takes of the stack, and the encoder of events nearly.
const deepStack = 12 << 10

// stretch has the goroutine's stack grow at once, while there is little on it. By
// itself it grows by doubling, deep inside the cryptography, and to move the frames
// of that was 5 % of a login's CPU.
//
//go:noinline
func stretch() {
	var room [deepStack]byte
	occupy(&room)
}

// occupy keeps the compiler from leaving the room out.
//
//go:noinline
func occupy(room *[deepStack]byte) { room[0] = 1 }

// describe puts what the client said of itself into the event. The fronts bound
// the strings of strangers; the event's encoder escapes them.
func (s *session) describe(soft Software) {
	e := &s.event
	if e.ClientID != nil {
		soft.ID = e.ClientID // said behind the login
	}
	if len(soft.ID) > 0 {
		e.ClientID = soft.ID
	}
	e.Hello, e.Client = soft.Hello, soft.name()
}

// leaving reports whether a shutdown has spoken.
func (s *session) leaving() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.left
}

// leave is a shutdown's word to the session: at its moment, an idle relay says
// goodbye; a session before its login ends at once.
func (s *session) leave(moment bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.relay != nil {
		if moment {
			s.relay.ask(toLeave)
		}
		return
	}
	if !s.left {
		s.left = true
		s.conn.SetReadDeadline(time.Now())
		if s.hurry != nil {
			s.hurry()
		}
	}
}

// cut ends the session at once.
func (s *session) cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gone = true
	if s.hurry != nil {
		s.hurry()
	}
	if s.relay != nil {
		s.relay.ask(toEnd)
		return
	}
	s.conn.Close()
}
