package certs

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

const (
	// orderTime bounds one order. Authorities answer within seconds, under load
	// within a minute; one that says "processing" for good must not hold a place.
	orderTime = 2 * time.Minute

	// leaseTime is a little longer, for the file that keeps other nodes from ordering.
	leaseTime = orderTime + 30*time.Second

	// leasePause is how soon the directory is looked at again while another node orders.
	leasePause = 2 * time.Second

	// atOnce are the orders under way at a time: a start with twenty names is done
	// in a minute or two, and no authority minds.
	atOnce = 2

	// orderPatience is how long a handshake waits for a certificate; mail programs wait
	// for thirty seconds or more, impatient ones for fifteen.
	orderPatience = 10 * time.Second

	// lookPause is how often the directory is looked at for what other nodes did,
	// and what could not be written is tried again.
	lookPause = time.Minute

	// scanPause is how often each file is looked at though the directory has not
	// changed, as when somebody wrote into a file that was there; and how often
	// leftovers are swept.
	scanPause = 10 * time.Minute

	// tellPause is how often trouble with the directory is told while it lasts.
	tellPause = time.Hour

	// maxWrites bounds what one look writes: the days of the last use of thousands of
	// names change at once, at midnight, and nobody waits for them.
	maxWrites = 100

	// unused is when a name that is not canonical has no customer any more.
	unused = 30 * 24 * time.Hour

	// budgetTime is what the budget is counted over.
	budgetTime = time.Hour
)

// backoff is the wait after the first, second ... failure, the last one for all further ones.
// Let's Encrypt allows five failed validations of a name in an hour; these are four, for both
// kinds of keys together. A name that is not canonical and that the authority has judged begins at
// [strangerBackoff]: its customer may have pointed it elsewhere years ago.
var backoff = []time.Duration{time.Minute, 5 * time.Minute, 15 * time.Minute, time.Hour, 3 * time.Hour, 6 * time.Hour}

// strangerBackoff is where a name that is not canonical enters backoff: at an hour.
const strangerBackoff = 3

// EAB binds the ACME account to one that the authority has otherwise (RFC 8555 section 7.3.4).
type EAB struct {
	KeyID string
	Key   []byte // of the HMAC; appears in no error and no log
}

// ACMEConfig says where certificates come from.
type ACMEConfig struct {
	Directory string         // URL of the authority's directory
	Email     string         // for the authority to write to; may be empty
	Roots     *x509.CertPool // authorities of the directory's own certificate; nil: the system's
	EAB       *EAB           // nil: none
	Dir       string         // holds account, certificates and records; made if missing
	RSA       bool           // RSA certificates too: for canonical names at once, for others when a client needs one
	Lookup    string         // URL that confirms names; empty: none is confirmed
	Hourly    int            // new orders an hour for names that are not canonical
	HTTP01    bool           // port 80 is served, by way of [ACME.HTTP01]
	TLSALPN01 bool           // port 443 is served, by way of [ACME.ALPN]
	Log       *zap.Logger    // nil: none
	Client    *http.Client   // its transport is used, in tests; nil: one that trusts Roots
}

// ACME orders certificates by RFC 8555, keeps and renews them. It is an [Issuer].
type ACME struct {
	c           ACMEConfig
	log         *zap.Logger
	state       *state
	answers     *answers
	lookup      *lookup
	transport   http.RoundTripper
	registering chan struct{} // holds one while an order sees to the account
	wake        chan struct{} // holds one when Run shall look what is due

	served atomic.Pointer[map[pair]served] // what handshakes see; replaced as a whole

	changed [2]time.Time // of the directory, at the last looks; only Run uses it
	scanned time.Time    // when files were looked at last; only Run uses it

	mu    sync.Mutex // guards the following
	items map[pair]*item
	spent time.Time // until then, the budget is spent
}

var _ Issuer = (*ACME)(nil)

// served is a certificate in use.
type served struct {
	cert *tls.Certificate
	used *atomic.Int64 // of the item
}

// item is a certificate that is there or should be.
type item struct {
	pair
	record
	canonical bool
	cert      *tls.Certificate // nil: none yet
	used      atomic.Int64     // day of the last handshake, in days since 1970; zero: none in this process
	unsaved   bool             // cert is not in the directory, which is tried again
	stamp     stamp            // of the files as they were read last
	busy      bool             // an order is under way
	ended     chan struct{}    // closed when the order that handshakes wait for ends; nil: none waits
}

// NewACME reads the state directory, or makes it. It uses no network.
func NewACME(c ACMEConfig) (*ACME, error) {
	if !c.HTTP01 && !c.TLSALPN01 {
		return nil, errors.New("no ACME challenge can be answered; serve port 80 or 443 (web.http, web.https)")
	}
	a := &ACME{c: c, log: c.Log, registering: make(chan struct{}, 1), wake: make(chan struct{}, 1), items: map[pair]*item{}}
	if a.log == nil {
		a.log = zap.NewNop()
	}
	var err error
	if a.state, err = openState(c.Dir, c.Directory); err != nil {
		return nil, err
	}
	a.answers = &answers{state: a.state, files: map[string][]byte{}}
	asks := http.DefaultTransport // trusts the system's roots; Roots are the authority's alone
	switch {
	case c.Client != nil:
		a.transport = cmp.Or(c.Client.Transport, http.DefaultTransport)
		asks = a.transport
	default:
		t := http.DefaultTransport.(*http.Transport).Clone()
		t.TLSClientConfig = &tls.Config{RootCAs: c.Roots, MinVersion: tls.VersionTLS12}
		a.transport = t
	}
	if a.lookup, err = newLookup(c.Lookup, asks, a.log); err != nil {
		return nil, err
	}
	a.publish()
	if err := a.look(clock()); err != nil {
		return nil, fmt.Errorf("reading the state of ACME: %w; let the program's user read it", err)
	}
	if err := a.state.setCurrent(); err != nil {
		a.log.Error("the state directory of ACME cannot be written", zap.Error(err))
	}
	return a, nil
}

// Certificate gives what is there, expired or not, at once. Where there is nothing, or only
// an expired one, and own is [Listed] or [Confirmed], it is ordered within the budget, and
// waited for ten seconds; after that the order goes on. Nil, nil means that the fallback serves.
func (a *ACME) Certificate(ctx context.Context, name string, kind KeyType, own Own) (*tls.Certificate, error) {
	p := pair{Fold(name), kind}
	now := time.Now()
	s, ok := (*a.served.Load())[p]
	if own == Never {
		return nil, nil
	}
	if ok {
		if today := day(now); s.used.Load() != today {
			s.used.Store(today)
		}
		if own == Keep || now.Before(s.cert.Leaf.NotAfter) {
			return s.cert, nil
		}
	}
	if own != Keep && validName(p.name) && (kind == ECDSA || kind == RSA && a.c.RSA) {
		a.ask(ctx, p, own == Confirmed)
		s = (*a.served.Load())[p]
	}
	return s.cert, nil
}

// day counts days since 1970.
func day(t time.Time) int64 { return t.Unix() / (24 * 60 * 60) }

// ask has a pair ordered if it may be, and waits.
func (a *ACME) ask(ctx context.Context, p pair, confirm bool) {
	ctx, cancel := context.WithTimeout(ctx, orderPatience)
	defer cancel()
	if confirm && (a.spentFor(p) || a.lookup.ask(ctx, p.name) != ours) {
		return
	}
	if ended := a.want(p, confirm); ended != nil {
		select {
		case <-ended:
		case <-ctx.Done():
		}
	}
}

// spentFor says whether the budget is known to be spent, and no order for the pair under way: then
// it would be in vain to ask the lookup, which strangers can have us do as often as they come.
func (a *ACME) spentFor(p pair) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	e, left := a.items[p], a.spent.Sub(clock())
	return (e == nil || e.ended == nil) && left > 0 && left <= budgetTime
}

// want marks a pair as asked for. Nil means that there is nothing to wait for: another node has
// ordered it, it failed lately, or the budget is spent.
func (a *ACME) want(p pair, confirmed bool) <-chan struct{} {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := clock()
	e := a.items[p]
	if e == nil {
		if !a.afford(now) {
			return nil // whoever asks for many names shall not have us read the directory each time
		}
		e = &item{pair: p}
		if a.reread(e); e.cert != nil || !e.Tried.IsZero() {
			a.items[p] = e
			a.publish()
		}
	}
	switch {
	case e.ended != nil:
		return e.ended
	case e.cert != nil && now.Before(e.cert.Leaf.NotAfter), a.wait(e, now) > 0:
		return nil
	case !e.canonical && !a.afford(now):
		return nil
	}
	a.items[p] = e // a new one
	e.Lookup = confirmed
	if !e.canonical {
		e.Asked, e.Used = now, now
	}
	e.ended = make(chan struct{})
	a.kick()
	return e.ended
}

// afford says whether the budget allows one more order. It is counted from the records, which
// outlive a restart and which other nodes write as well.
func (a *ACME) afford(now time.Time) bool {
	if left := a.spent.Sub(now); left > 0 && left <= budgetTime {
		return false
	}
	count, first := 0, now
	for _, e := range a.items {
		if gone := now.Sub(e.Asked); gone >= 0 && gone < budgetTime { // clocks are set back, at times
			count++
			if e.Asked.Before(first) {
				first = e.Asked
			}
		}
	}
	if count < a.c.Hourly {
		return true
	}
	a.spent = first.Add(budgetTime)
	a.log.Warn("the budget for new certificates is spent; other names get the canonical certificate until it is not",
		zap.Int("orders_per_hour", a.c.Hourly), zap.Time("until", a.spent))
	return false
}

// Keep tells the canonical names to have and to renew. Others, even those that were canonical
// before, are renewed while customers use them.
func (a *ACME) Keep(names []string) {
	canonical := canonicalPairs(names, a.c.RSA)
	a.mu.Lock()
	defer a.mu.Unlock()
	for p := range canonical {
		if a.items[p] == nil {
			a.items[p] = &item{pair: p}
		}
	}
	for p, e := range a.items {
		e.canonical = canonical[p]
	}
	a.kick()
}

// Retry tries canonical names that have failed at once, since somebody has perhaps mended what
// ailed them; but not in the first minute after the last attempt, nor before the time that the
// authority itself demanded.
func (a *ACME) Retry() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, e := range a.items {
		if e.canonical && e.Failures > 0 {
			if soon := later(e.Tried.Add(backoff[0]), e.Held); soon.Before(e.Next) {
				e.Next = soon
			}
		}
	}
	a.kick()
}

// Status describes every certificate that is there, was tried, or is canonical.
func (a *ACME) Status() []Status {
	a.mu.Lock()
	defer a.mu.Unlock()
	list := make([]Status, 0, len(a.items))
	for _, e := range a.items {
		s := a.state.status(e.pair, e.cert, e.record, e.canonical)
		if e.unsaved {
			s.File = ""
			s.Error = cmp.Or(s.Error, "it is in memory only, the state directory cannot be written")
		}
		list = append(list, s)
	}
	sortStatus(list)
	return list
}

// kick has Run look what is due.
func (a *ACME) kick() {
	select {
	case a.wake <- struct{}{}:
	default: // it will look anyway
	}
}

// clock is the wall clock alone: while a machine sleeps, the monotonic one stands still and
// certificates expire.
func clock() time.Time { return time.Now().Round(0) }

// Run orders and renews until ctx ends; then orders under way are given up, and it returns when
// all is quiet. It is called once.
func (a *ACME) Run(ctx context.Context) {
	var orders sync.WaitGroup
	defer func() {
		orders.Wait()
		a.mu.Lock()
		for _, e := range a.items {
			e.end()
		}
		a.mu.Unlock()
		if t, ok := a.transport.(*http.Transport); ok && a.c.Client == nil {
			t.CloseIdleConnections()
		}
	}()
	var looked, told time.Time
	for ctx.Err() == nil {
		now := clock()
		if gone := now.Sub(looked); gone >= lookPause || gone < 0 {
			looked = now
			switch err := a.tidy(now); {
			case err == nil && !told.IsZero():
				told = time.Time{}
				a.log.Info("the state directory of ACME can be used again")
			case err != nil && now.Sub(told) >= tellPause:
				told = now
				a.log.Error("the state directory of ACME cannot be read or written; certificates are kept in memory meanwhile", zap.Error(err))
			}
		}
		e, next := a.due(now)
		if e != nil {
			orders.Go(func() { a.order(ctx, e) })
			continue
		}
		timer := time.NewTimer(min(lookPause, max(next.Sub(now), 0)))
		select {
		case <-ctx.Done():
		case <-a.wake:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// due picks what to order now and marks it busy; or else it says when to look again. Canonical
// names without a certificate go first, then those that a handshake waits for.
func (a *ACME) due(now time.Time) (*item, time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	next := now.Add(lookPause)
	busy := map[string]bool{} // a name has one order at a time, since it has one answer to tls-alpn-01
	for p, e := range a.items {
		if e.busy {
			busy[p.name] = true
		}
	}
	if len(busy) >= atOnce {
		return nil, next
	}
	var best *item
	for p, e := range a.items {
		switch {
		case busy[p.name]:
		case !e.canonical && e.ended == nil && (e.cert == nil || now.Sub(e.Used) > unused):
		case a.wait(e, now) > 0:
			if at := now.Add(a.wait(e, now)); at.Before(next) {
				next = at
			}
		case best == nil || e.urgency() > best.urgency() || e.urgency() == best.urgency() && e.Next.Before(best.Next):
			best = e
		}
	}
	if best != nil {
		best.busy = true
	}
	return best, next
}

// wait is how long a pair is not to be tried. The failure of one kind of key holds for the other
// one as well: what failed is mostly the proof that the name is ours.
func (a *ACME) wait(e *item, now time.Time) time.Duration {
	wait := e.wait(now)
	if other := a.other(e); other.Failures > 0 {
		held := other.wait(now)
		if e.cert != nil {
			held = min(held, wait+e.slack())
		}
		wait = max(wait, held)
	}
	return wait
}

// slack is how much later than planned a renewal may be. A certificate that lives for hours has no
// hours to lose; authorities that issue such ones are private and without narrow limits.
func (e *item) slack() time.Duration {
	if e.cert == nil {
		return maxRetryAfter
	}
	return e.cert.Leaf.NotAfter.Sub(e.cert.Leaf.NotBefore) / 20
}

// other is the item for the same name and the other kind of key, or an empty one.
func (a *ACME) other(e *item) *item {
	kind := ECDSA
	if e.kind == ECDSA {
		kind = RSA
	}
	if other := a.items[pair{e.name, kind}]; other != nil {
		return other
	}
	return &item{}
}

// wait is the same for this kind of key alone.
func (e *item) wait(now time.Time) time.Duration {
	wait := e.Next.Sub(now)
	if e.Failures > 0 && wait > 2*maxRetryAfter {
		return 0 // the clock was wrong when that was written
	}
	return wait
}

// urgency ranks what is due.
func (e *item) urgency() int {
	switch {
	case e.canonical && e.cert == nil && e.kind == ECDSA: // nearly all clients can use it
		return 3
	case e.canonical && e.cert == nil:
		return 2
	case e.ended != nil:
		return 1
	}
	return 0
}

// order gets one certificate, from another node if one had it ordered, and writes down how
// it went.
func (a *ACME) order(ctx context.Context, e *item) {
	defer a.kick()
	// By name, whatever the kind of key: there is one answer to tls-alpn-01 for it. Should two
	// nodes order all the same, that is a waste and no harm.
	release, err := lease(a.state.path("leases", e.name), clock(), leaseTime)
	if err == nil {
		defer release()
	} // if it fails because the disk is full, say, one certificate too many is better than none
	before, kinds, ok := a.begin(e, errors.Is(err, fs.ErrExist))
	if !ok {
		return
	}
	var cert *tls.Certificate
	if before.Lookup && a.lookup.ask(ctx, e.name) == notOurs {
		err = &orderError{text: errNotOurs.Error(), err: errNotOurs}
	} else {
		timed, cancel := context.WithTimeout(ctx, orderTime)
		var proof string
		cert, proof, err = a.obtain(timed, e.pair, kinds)
		before.Challenge = cmp.Or(proof, before.Challenge)
		cancel()
	}
	a.finish(e, before, cert, err, ctx.Err() != nil)
}

// underWay stands for the reason as long as nobody knows how an order ends.
const underWay = "an order is under way, or was cut off"

// begin says whether an order is to be made, with which kinds of challenges, and gives the record
// as it was before. Another node may be about it, or done with it.
func (a *ACME) begin(e *item, leased bool) (before record, kinds []string, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	tried := e.Tried
	a.reread(e)
	now := clock()
	switch {
	case e.fresh(now), !leased && e.Tried.After(tried) && e.wait(now) > 0: // it had it, or failed just now
		a.publish()
		e.busy = false
		e.end()
		return record{}, nil, false
	case leased:
		e.busy = false
		e.Next = now.Add(leasePause)
		return record{}, nil, false
	}
	e.Lookup = e.Lookup && !e.canonical
	before, kinds = e.record, a.challenges(e)
	// Written before the order: a process that dies in it must not begin anew at once.
	why := underWay
	if before.Error != "" && !strings.HasPrefix(before.Error, underWay) {
		why += "; the one before: " + before.Error
	}
	a.failed(e, now, 0, why, true)
	_ = a.state.writeRecord(e.pair, e.record) // finish writes again, and complains
	return before, kinds, true
}

// finish writes down how an order went. One that was given up, since the program ends, leaves
// the record as it was.
func (a *ACME) finish(e *item, before record, cert *tls.Certificate, err error, givenUp bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := clock()
	first := e.cert == nil
	before.merge(record{Used: e.Used, Asked: e.Asked}) // handshakes went on
	e.record = before
	switch {
	case err == nil:
		e.cert, e.unsaved = cert, true
		e.Tried, e.Renewed, e.Failures, e.Error = now, now, 0, ""
		e.plan()
		if other := a.other(e); other.Failures > 0 {
			other.Failures, other.Next = 0, now // what ailed both is over, and it begins with what works
		}
		a.publish()
		message := "certificate renewed"
		if first {
			message = "certificate issued"
		}
		a.log.Info(message, append(e.fields(), zap.Time("until", cert.Leaf.NotAfter),
			zap.String("issuer", issuerOf(cert.Leaf)))...)
	case !givenUp:
		a.failed(e, now, retryAfter(err), err.Error(), judged(err))
		log, message, fields := a.log.Warn, "no new certificate", e.fields()
		if e.loud(now) {
			log = a.log.Error
			switch {
			case e.cert == nil:
				message = "no new certificate, and there is none yet"
			case now.After(e.cert.Leaf.NotAfter):
				message = "no new certificate, and the old one has expired"
			default:
				message = "no new certificate, and the old one ends soon"
			}
		}
		if e.cert != nil {
			fields = append(fields, zap.Time("until", e.cert.Leaf.NotAfter))
		}
		log(message, append(fields, zap.String("error", e.Error), zap.Int("failures", e.Failures), zap.Time("next", e.Next))...)
	}
	if err := a.save(e); err != nil {
		a.log.Error("the state of a certificate is kept in memory only; make room in the state directory",
			append(e.fields(), zap.Error(err))...)
	}
	e.busy = false
	e.end()
}

// fields name the certificate in the log.
func (p pair) fields() []zap.Field {
	return []zap.Field{zap.String("name", p.name), zap.Stringer("key_type", p.kind)}
}

// challenges are the kinds that are served: first what worked last for the name, after each
// failure the next one.
func (a *ACME) challenges(e *item) []string {
	var kinds []string
	if a.c.HTTP01 {
		kinds = append(kinds, http01)
	}
	if a.c.TLSALPN01 {
		kinds = append(kinds, tlsalpn01)
	}
	other := a.other(e)
	if len(kinds) == 2 && (cmp.Or(e.Challenge, other.Challenge) == tlsalpn01) == ((e.Failures+other.Failures)%2 == 0) {
		kinds[0], kinds[1] = kinds[1], kinds[0]
	}
	return kinds
}

// failed counts an attempt that failed and sets when to try again; judged says that it is the
// name's fault, for all that is known.
func (a *ACME) failed(e *item, now time.Time, atLeast time.Duration, why string, judged bool) {
	step := e.Failures + a.other(e).Failures
	if judged && !e.canonical {
		step += strangerBackoff
	}
	wait := max(min(backoff[min(step, len(backoff)-1)], e.slack()), atLeast, time.Second)
	e.Failures++
	e.Tried, e.Error, e.Next, e.Held = now, why, now.Add(wait+jitter(wait)), now.Add(atLeast)
}

// jitter is up to a tenth, so that nodes and names spread.
func jitter(d time.Duration) time.Duration { return rand.N(d/10 + 1) }

// loud says whether a failure can no longer be left to the next attempt.
func (e *item) loud(now time.Time) bool {
	if e.cert == nil {
		return e.canonical
	}
	return nearEnd(e.cert.Leaf.NotBefore, e.cert.Leaf.NotAfter, now, soonACME)
}

// fresh says whether there is a certificate that need not be renewed yet.
func (e *item) fresh(now time.Time) bool {
	return e.cert != nil && now.Before(renewAt(e.cert.Leaf))
}

// end tells the handshakes that wait.
func (e *item) end() {
	if e.ended != nil {
		close(e.ended)
		e.ended = nil
	}
}

// publish shows handshakes what there is. The caller holds mu, or is alone.
func (a *ACME) publish() {
	next := make(map[pair]served, len(a.items))
	for p, e := range a.items {
		if e.cert != nil {
			next[p] = served{e.cert, &e.used}
		}
	}
	a.served.Store(&next)
}

// reread takes in what the directory holds of a pair: another node may have renewed it. A
// corrupt file is moved aside. The caller holds mu, and publishes.
func (a *ACME) reread(e *item) {
	cert, r, bad := a.state.load(e.pair)
	for path, err := range bad {
		var unreadable *fs.PathError
		if errors.As(err, &unreadable) {
			a.log.Error("a file of the ACME state cannot be read; all of the state must belong to the program's user", zap.Error(err))
			continue
		}
		a.log.Error("a file of the ACME state is corrupt, and moved aside",
			zap.String("file", path), zap.String("error", cleaned(err.Error(), maxError)))
		_ = os.Rename(path, path+".bad") // else the next one replaces it
		e.unsaved = e.cert != nil
	}
	e.merge(r)
	if cert != nil && (e.cert == nil || cert.Leaf.NotAfter.After(e.cert.Leaf.NotAfter)) {
		if e.cert != nil {
			a.log.Info("certificate renewed by another node", append(e.fields(), zap.Time("until", cert.Leaf.NotAfter))...)
		}
		e.cert, e.unsaved = cert, false
	}
	e.plan()
}

// plan sets when a pair is due that has not failed. The caller holds mu.
func (e *item) plan() {
	switch {
	case e.Failures > 0:
	case e.cert == nil: // somebody removed it
		e.Next = time.Time{}
	default:
		at := renewAt(e.cert.Leaf)
		e.Next = at.Add(jitter(e.cert.Leaf.NotAfter.Sub(at)))
	}
}

// save writes what is not in the directory yet. The caller holds mu.
func (a *ACME) save(e *item) error {
	if e.unsaved {
		data, err := encodeCert(e.cert)
		if err == nil {
			err = writeFile(a.state.cert(e.pair), data)
		}
		if err != nil {
			return err
		}
		e.unsaved = false
	}
	return a.state.writeRecord(e.pair, e.record)
}

// look reads what changed in the directory. Files appear in it by rename, which the directory's
// own time tells; twice, since file systems count time in steps.
func (a *ACME) look(now time.Time) error {
	changed, err := a.state.changed()
	if err != nil {
		return err
	}
	quiet := changed.Equal(a.changed[0]) && changed.Equal(a.changed[1])
	if quiet && now.Sub(a.scanned) < scanPause {
		return nil
	}
	stamps, err := a.state.stamps()
	if err != nil {
		return err
	}
	a.changed, a.scanned = [2]time.Time{changed, a.changed[0]}, now
	a.state.sweep(now)
	a.mu.Lock()
	defer a.mu.Unlock()
	for p, st := range stamps {
		e := a.items[p]
		if e == nil {
			e = &item{pair: p}
			a.items[p] = e
		}
		if e.stamp != st && !e.busy {
			e.stamp = st
			a.reread(e)
		}
	}
	a.publish()
	return nil
}

// tidy does what is to be done once a minute: it reads what other nodes wrote, writes what could
// not be written and the days of the last use, and forgets names without customers.
func (a *ACME) tidy(now time.Time) error {
	err := a.look(now)
	a.mu.Lock()
	defer a.mu.Unlock()
	writes, old := 0, now.Add(-unused)
	for p, e := range a.items {
		used := e.used.Load()
		today := used > 0 && used > day(e.Used)
		if (today || e.unsaved) && !e.busy && writes < maxWrites {
			if today {
				e.Used = time.Unix(used*24*60*60, 0).UTC()
			}
			writes++
			err = errors.Join(err, a.save(e))
		}
		if !e.canonical && !e.busy && e.ended == nil && e.Used.Before(old) && e.Tried.Before(old) &&
			(e.cert == nil || e.cert.Leaf.NotAfter.Before(old)) {
			delete(a.items, p)
			a.publish()
			_ = os.Remove(a.state.cert(p)) // else it comes back and is forgotten again
			_ = os.Remove(a.state.record(p))
		}
	}
	return err
}
