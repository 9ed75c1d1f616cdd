package proxy

// The part of a session's life that decides: what is advertised, which login is
// refused when and why, and the way to the backend. The order is that of policy:
// before the credential, with it, and once the backend has confirmed it.

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"mailreeve/events"
	"mailreeve/policy"
)

// replayable are the mechanisms whose secret the proxy sees and can say again
// at the backend, in the order in which they are offered.
var replayable = []string{"PLAIN", "LOGIN", "OAUTHBEARER", "XOAUTH2"}

// backend is where this session's login goes.
func (s *session) backend() *Backend { return s.brand.Backends[s.listener.Front.Name] }

// ask learns what the backend offers, from memory mostly.
func (s *session) ask() {
	b := s.backend()
	if s.offer, s.noOffer = b.offers(s.engine.overdue, s.engine.spawn); s.noOffer == nil {
		return
	}
	if held, ok := b.dumb.ready(); ok {
		s.engine.log().Warn("the backend cannot be asked what it offers", zap.String("session", s.id),
			zap.String("brand", s.brand.Name), zap.String("protocol", s.listener.Front.Name), zap.Error(s.noOffer),
			zap.Int("more", held))
	}
}

// could is the mildest verdict that a mechanism, or with "" any, can still get.
func (s *session) could(mech string) policy.Verdict {
	f := s.facts
	f.Set(policy.Mech, mech)
	return s.mildest(&f)
}

// probed reports whether policy leaves a mechanism out of what this client's
// network is offered, to see who can do without.
func (s *session) probed(mech string) bool {
	f := s.facts
	f.Set(policy.Mech, mech)
	return s.settings.Policy.Probed(s.hold, &f, s.decided)
}

// ponder begins a decision: the instant that policy is asked for, and the hold.
// All that is asked until the next one gets its answer for these.
func (s *session) ponder() {
	s.decided, s.hold = s.settings.Now(), s.engine.hold.Load()
}

// decide is the verdict on what is known for certain. Who logs in on behalf of
// another meets what is severer for either: some backends take the name in front
// for no more than a word, and an exception is for whose password it is, too.
func (s *session) decide() policy.Verdict {
	v := s.settings.Policy.DecideUnder(s.hold, &s.facts, s.decided)
	if s.deputy == "" {
		return v
	}
	f := s.facts
	s.whose(&f, s.deputy)
	if own := s.settings.Policy.DecideUnder(s.hold, &f, s.decided); own.Action > v.Action {
		return own
	}
	return v
}

// whose makes an account known, with its domain and what the ledger has of it.
func (s *session) whose(f *policy.Facts, account string) {
	domain, ledger := "", ""
	if i := strings.LastIndexByte(account, '@'); i >= 0 {
		domain = account[i+1:]
	}
	if s.settings.Ledger != nil && account != "" {
		ledger = s.settings.Ledger(account)
	}
	f.Set(policy.Account, account)
	f.Set(policy.Domain, domain)
	f.Set(policy.Ledger, ledger)
}

// canonical is the account that a name means, and how a backend is told of it.
// The case of letters makes no other account.
func (s *session) canonical(typed string) (account, send string) {
	account, send = typed, typed
	if s.brand.Account != nil && typed != "" {
		whose, told := s.brand.Account(typed)
		account, send = cmp.Or(whose, typed), cmp.Or(told, typed)
	}
	return strings.ToLower(strings.ToValidUTF8(account, "?")), send
}

// disown forgets whose login was tried.
func (s *session) disown() {
	s.deputy = ""
	s.facts.Forget(policy.Account, policy.Domain, policy.UserForm, policy.Ledger, policy.Verified)
}

// judge decides, and puts the verdict into the event with what it takes to go over
// each of its steps again. Of an account that the backend has not confirmed there
// is no draw, which would tell something of a password typed in place of the name.
func (s *session) judge() policy.Verdict {
	v, e, hold := s.decide(), &s.event, s.hold
	e.Action, e.By, e.Policy = v.Action.String(), v.Violated(), s.settings.Policy.String()
	e.Decided = s.decided.UTC().Truncate(time.Millisecond)
	e.Rule, e.Stage, e.Bucket, e.Exception, e.Hold = "", time.Time{}, nil, "", nil
	if v.Rule != nil {
		e.Rule = v.Rule.ID
	}
	if v.Stage != nil && !v.Stage.From.IsZero() {
		e.Stage = v.Stage.From.UTC()
	}
	if bucket, drawn := v.Bucket(); drawn && e.Verified {
		e.Bucket = &bucket
	}
	if v.Exception != nil {
		e.Exception = v.Exception.ID
	}
	if hold != nil && !s.decided.Before(hold.Since) && s.decided.Before(hold.Until) {
		e.Hold = &events.Hold{Cap: hold.Cap.String(), Reason: hold.Reason, Owner: hold.Owner, Since: hold.Since.UTC(), Until: hold.Until.UTC()}
	}
	return v
}

// mildest is the mildest verdict that can still come of facts.
func (s *session) mildest(f *policy.Facts) policy.Verdict {
	v, _ := s.settings.Policy.BoundsUnder(s.hold, f, s.decided)
	return v
}

// tells reports whether a refusal must be told before the credential: in clear,
// so that the answer cannot depend on it (RFC 8314 section 4.1) and it is not
// sent; the same where TLS is refused for its age, which is little better (RFC
// 8996); and where the protocol's programs show nothing later.
func (s *session) tells(v policy.Verdict) bool {
	return s.listener.Front.RefuseEarly || s.blind(v)
}

// blind reports whether a refusal must not depend on the credential at all. Any
// other is told once the backend has confirmed that: a wrong password stays one,
// and a right one proves whose finding it is.
func (s *session) blind(v policy.Verdict) bool {
	return s.tls == nil || v.Rule != nil && v.Rule.Finding == policy.TLSOld
}

// bears reports whether the proxy and the backend know a mechanism at all.
func (s *session) bears(mech string) bool {
	if IsBearer(mech) {
		return slices.Contains(s.offer.Mechs, mech)
	}
	return mech == policy.UserPass || slices.Contains(replayable, mech) || s.passes(mech)
}

// advert is what may be offered now. A mechanism is hidden where even the
// mildest verdict on it is a refusal, so that an account's exception still has
// a way in.
func (s *session) advert() Advert {
	s.ponder()
	a := Advert{Hostname: s.settings.Hostname, Secure: s.tls != nil, Extensions: s.offer.Extensions, Password: true, Strict: s.brand.StrictCodes}
	mildest := s.could("")
	if mildest.Action.Refuses() && s.tells(mildest) {
		ref := s.policyRefusal(mildest)
		a.Refusal = &ref
		a.Password = a.Secure && s.listener.Front.RefuseEarly // nothing, but the way that leads to the words
		a.Quiet = !a.Secure && s.engine.upgraders.has(s.client.Addr(), s.listener.Name)
		return a
	}
	for _, mech := range replayable {
		if s.bears(mech) && (mildest.Action.Refuses() || !s.could(mech).Action.Refuses() && !s.probed(mech)) {
			a.Mechs = append(a.Mechs, mech)
		}
	}
	a.Stamp = s.stamp()
	for _, mech := range s.passing() { // behind those that can be replayed, for programs that take the first
		if mildest.Action.Refuses() || !s.could(mech).Action.Refuses() && !s.probed(mech) {
			a.Mechs = append(a.Mechs, mech)
		}
	}
	a.Password = mildest.Action.Refuses() || !s.could(policy.UserPass).Action.Refuses()
	return a
}

// refusal is one without a finding.
func (s *session) refusal(class Class) Refusal {
	return Refusal{Class: class, Text: s.place().sentence(class)}
}

// policyRefusal is what a verdict tells the customer.
func (s *session) policyRefusal(v policy.Verdict) Refusal {
	r := Refusal{Class: PolicyDeny, Finding: v.Rule.Finding}
	if v.Action == policy.TempFail {
		r.Class = PolicyTemp
	}
	r.Text = s.ruling(v)
	r.Err = fmt.Errorf("policy: %s", strings.Join(v.Violated(), ", "))
	return r
}

// ruling is the sentence that goes with a verdict.
func (s *session) ruling(v policy.Verdict) string {
	p, finding := s.place(), v.Rule.Finding
	switch {
	case finding == policy.LegacyHostname && p.others != "":
		finding = OtherService
	case finding == policy.FindingUserForm && s.facts.Get(policy.UserForm) == "address":
		finding = AddressForm
	}
	if !v.Until.IsZero() {
		p.until = p.lang.moment(v.Until.In(zone(v)), s.decided)
	}
	if from := ending(v, s.facts.Get(policy.Account)); !from.IsZero() {
		p.date = p.lang.day(from, s.decided)
	}
	return p.ruling(v.Action, finding)
}

// warning is what is shown beside a login: of each requirement once a day to each
// account and program, since some open a window for every connection.
func (s *session) warning(v policy.Verdict) string {
	if v.Action != policy.Warn || !s.listener.Front.Warns ||
		!s.engine.warned.first(s.decided.In(zone(v)), s.facts.Get(policy.Account), s.facts.Get(policy.Client), v.Rule.ID) {
		return ""
	}
	return s.ruling(v)
}

// zone is where the dates of a verdict are local.
func zone(v policy.Verdict) *time.Location {
	if b := v.Stage.Brownout; b != nil && b.Zone != nil {
		return b.Zone
	}
	return v.Stage.From.Location()
}

// ending returns from when on an account will certainly be refused for what it
// is warned of; the zero time where nothing is planned, or somebody decided so.
func ending(v policy.Verdict, account string) (from time.Time) {
	if v.Exception != nil || v.Hold != nil {
		return
	}
	for i := range v.Rule.Stages {
		stage := &v.Rule.Stages[i]
		if stage.From.After(v.Stage.From) && stage.Do.Refuses() && (stage.Share == 0 || policy.Bucket(v.Rule.ID, account) < stage.Share) {
			return stage.From
		}
	}
	return
}

// usualAccount is how long the account's name is taken to be at least, since
// before the login nobody has said it, and some log in by a number but name the
// account after its address.
const usualAccount = 27

// room is how many characters of a refusal programs show an account.
func (f *Front) room(account string) int {
	if f.Room == 0 {
		return 0
	}
	return max(1, f.Room-max(len(account), usualAccount))
}

// place is what a sentence can name.
func (s *session) place() place {
	front := s.listener.Front
	p := place{lang: s.brand.Language, texts: s.brand.Texts, host: s.brand.host(front.Name), port: cmp.Or(s.brand.Ports[front.Name], front.Port),
		help: s.brand.Help, session: s.id, room: front.room(s.facts.Get(policy.Account)), word: front.Word}
	if s.facts.Get(policy.Host) == policy.OtherService {
		p.others = s.settings.called(s.facts.Get(policy.SNI))
	}
	return p
}

// chosen decides on a mechanism before its credential is read, and says so
// where it is refused.
func (s *session) chosen(d Dialogue, req Request) (refused bool, end *Ending) {
	s.event.Exposed = s.event.Exposed || req.Exposed && s.tls == nil && !s.passes(req.Mech)
	if req.Mech != "" {
		s.learn(policy.Mech, policy.KnownMech(req.Mech))
	}
	switch {
	case req.User != "":
		s.identify(&req)
	case req.Mech != "": // whose login was tried before says nothing of whose this is
		s.disown()
	}
	s.ponder()
	mildest, this := s.could(""), s.could(req.Mech)
	switch {
	case this.Action.Refuses() && (s.tells(this) || !mildest.Action.Refuses() || req.Mech != "" && !s.bears(req.Mech)):
		// Over TLS a refusal for another reason than the mechanism waits for
		// the login, which proves whose finding it is; where there can be one.
		return true, s.refuse(d, req, s.policyRefusal(this))
	case req.Mech == "":
		return true, s.refuse(d, req, s.refusal(NeedLogin))
	case !s.bears(req.Mech):
		return true, s.refuse(d, req, s.refusal(BadMech))
	case s.listener.Front.RefuseEarly && s.noOffer != nil:
		// The backend was down a moment ago, and after the password nobody
		// would see the words for it.
		ref := s.refusal(Unavailable)
		ref.Err = s.noOffer
		return true, s.refuse(d, req, ref)
	}
	return false, nil
}

// refuse answers a request with a refusal. A client may try a few times.
func (s *session) refuse(d Dialogue, req Request, ref Refusal) *Ending {
	s.action = "refusing a login"
	s.event.Refused = refusedWords[ref.Class]
	if ref.Err != nil {
		s.engine.log().Debug("refused a login", zap.String("session", s.id), zap.Error(ref.Err))
	}
	if err := d.Refuse(req, ref); err != nil {
		return s.bye(d, s.ended(err))
	}
	s.show()
	s.bad++
	if ref.Verified && s.bad == s.settings.Limits.Logins {
		return nil // one more: a front may have its words for the command behind the login
	}
	if s.bad >= s.settings.Limits.Logins {
		end := &Ending{who: byLimit, Reason: "too_many_logins", Bye: LimitReached,
			Sentence: fmt.Sprintf("%d logins were refused", s.bad)}
		if ref.Class == PolicyDeny || ref.Class == PolicyTemp {
			end.who, end.Reason = byProxy, "policy_refused"
		}
		return s.bye(d, end)
	}
	return nil
}

// login decides on a complete credential and, where policy lets it, takes the
// client to its backend. No ending means that the dialogue goes on.
func (s *session) login(d Dialogue, req Request) *Ending {
	s.phase = loggingIn
	s.event.Attempts++
	if s.tls == nil {
		s.event.Exposed = true
	}
	s.identify(&req)
	s.ponder()
	verdict := s.decide()
	if verdict.Action.Refuses() && s.blind(verdict) {
		return s.refuse(d, req, s.policyRefusal(verdict))
	}
	l, reply, err := s.enter(req, s.backend())
	if err != nil {
		return s.refuse(d, req, s.loginRefusal(err))
	}
	return s.admit(d, req, l, reply)
}

// admit lets a client in whose login the backend has confirmed, if policy does.
func (s *session) admit(d Dialogue, req Request, l *link, reply Reply) *Ending {
	verdict := s.verified()
	if verdict.Action.Refuses() {
		l.close()
		ref := s.policyRefusal(verdict)
		ref.Verified = true
		return s.refuse(d, req, ref)
	}
	warning := s.warning(verdict)
	if err := d.Accept(req, reply, warning); err != nil {
		l.close()
		return s.ended(err)
	}
	s.event.Told = warning != ""
	return s.splice(l)
}

// verified takes down whose login the backend has confirmed, and the verdict on
// it: what the client claims later in the session is not that.
func (s *session) verified() policy.Verdict {
	s.learn(policy.Verified, policy.Yes)
	e := &s.event
	e.Verified, e.Mechanism = true, s.facts.Get(policy.Mech)
	e.Account, e.Domain, e.UserForm = s.facts.Get(policy.Account), s.facts.Get(policy.Domain), s.facts.Get(policy.UserForm)
	e.Ledger = s.facts.Get(policy.Ledger)
	return s.judge()
}

// identify makes known whose login is tried, and puts the name into the request
// that the backend is to be told. It is no more than a claim until the backend
// confirms it.
func (s *session) identify(req *Request) {
	s.disown()
	typed, deputy := req.identity(), req.User
	account, send := s.canonical(typed)
	if own, _ := s.canonical(deputy); own != account {
		s.deputy = own
	}
	req.rename(typed, send)
	s.learn(policy.Mech, req.Mech)
	s.whose(&s.facts, account)
	form := "bare"
	if strings.Contains(typed, "@") {
		form = "address"
	}
	s.learn(policy.UserForm, form)
	s.learn(policy.Client, s.talk.Client().name())
}

// enter logs in at a backend. Where that one knows only a master, the
// customer's credential is verified elsewhere first.
func (s *session) enter(req Request, b *Backend) (*link, Reply, error) {
	if b.Master != nil {
		if req.identity() == "" {
			// A token may name nobody; the backend would take us for the master.
			return nil, nil, errors.New("the backend has a master user, and the credential does not say whose it is")
		}
		s.action = "checking the credential at " + b.Check.Front.Name
		l, _, err := s.enter(req, b.Check)
		if err != nil {
			return nil, nil, err
		}
		l.close()
	}
	s.action = "connecting to the backend"
	l, early, err := s.reach(b, req)
	if err != nil {
		b.doubted()
		return nil, nil, err
	}
	s.link = l
	s.event.Backend = l.address
	s.action = "logging in at the backend"
	reply, err := l.peer.Login(req)
	var no *Rejection
	switch {
	case err == nil || errors.As(err, &no):
		b.answered()
	case errors.Is(err, errStopped):
	case early && s.again(req, err):
		l.drop()
		return s.enter(req, b)
	default:
		b.doubted()
	}
	if err != nil {
		l.drop()
		if b.Master != nil && no != nil && no.Class == BadCredential {
			no.Class = Unavailable // the master's credential is wrong; the customer's was good
		}
		return nil, nil, fmt.Errorf("backend %s: %w", l.address, err)
	}
	return l, reply, nil
}

// origin is what the backend is told of this session.
func (s *session) origin() Origin {
	o := Origin{Session: s.id, Client: s.client, Server: s.server}
	if s.talk != nil {
		o.Software = s.talk.Client()
	}
	if s.tls != nil {
		o.TLS, o.Cipher = s.facts.Get(policy.TLS), s.event.Cipher
	}
	if sni := s.facts.Get(policy.SNI); sni != policy.Absent {
		o.SNI = sni
	}
	return o
}

// loginRefusal says what a failed login was: the customer's mistake or the
// backend's trouble, which never looks like a wrong password.
func (s *session) loginRefusal(err error) Refusal {
	var no *Rejection
	if errors.As(err, &no) && no.Class != Unavailable {
		r := s.refusal(no.Class)
		r.Code, r.Challenge, r.Err = no.Code, no.Challenge, err
		return r
	}
	s.engine.log().Warn("a login could not be carried out", zap.String("session", s.id), zap.String("brand", s.brand.Name),
		zap.String("protocol", s.listener.Front.Name), zap.String("while", s.action), zap.Error(err))
	s.noOffer = err // a front that refuses early tells the next attempt before the password
	r := s.refusal(Unavailable)
	r.Err = err
	return r
}

// splice joins the client and its backend. What the session needed for its
// dialogue it lets go of: from now on it may be silent for hours.
func (s *session) splice(l *link) *Ending {
	s.phase, s.action, s.event.Refused = relaying, "relaying", ""
	s.known()
	s.engine.tell(&s.event)
	s.told = true
	if early := s.spend(); early != nil {
		early.drop()
	}
	front := s.listener.Front
	var watch func([]byte) bool
	if front.Watch != nil {
		watch = front.Watch(func(id map[string]string) {
			s.event.ClientID = id
			s.describe(Software{Hello: s.event.Hello})
		})
	}
	s.mu.Lock() // a shutdown must not set a deadline that the relay has just lifted
	l.release() // from now on only the relay closes both
	if s.gone {
		s.mu.Unlock()
		l.drop()
		return drained()
	}
	r := newRelay(s.wire, l.wire, s.settings.Times.Idle[front.Name], &s.engine.wheel)
	r.watch, r.goodbye, r.over, r.mistake = watch, front.Goodbye, s.part, s.mistaken
	r.lodge(s.engine.parking.port)
	s.relay, s.conn, s.hurry = r, nil, nil
	s.settings, s.listener, s.brand, s.tls, s.talk, s.link, s.early = nil, nil, nil, nil, nil, nil, nil
	s.facts, s.offer, s.noOffer, s.hold = policy.Facts{}, Offer{}, nil, nil
	s.mu.Unlock()
	r.start()
	return handedOver
}
