package outreach

// From the plan to the submission server, one mail at a time.
//
// A run works through the plan of its beginning, and asks before each mail whether it is still
// right: what the ledger has of the account, what policy says, whether the office is open, whether
// somebody stopped the sending. It ends when nothing is due, when the day's budget is used up or
// the office closes, so a timer may begin one as often as it likes; two at a time share
// the work and the rates.
//
// # Roads not taken
//
// Several connections: 20 mails a minute need none, and what a hotline bears is the limit. A
// Message-ID of its own for each attempt: a copy must be known as one (RFC 7352). Sending
// again in doubt: two identical warnings look like the phishing that they warn of.

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	message "github.com/emersion/go-message/mail"

	"mailreeve/config"
	"mailreeve/policy"
)

// Sender sends the notices that are due.
type Sender struct {
	Ledger   *Ledger
	Schedule *Schedule
	Policy   func() *policy.Policy // that of now
	Notices  *config.Notices
	Brands   []config.Brand
	Hello    string // the name that it gives itself
	Password string
	TLS      *tls.Config
	Dial     func(context.Context) (net.Conn, error) // nil: to the server of Notices
	Most     int                                     // notices in this run; 0: no limit but the configuration's
	Each     func(Outcome)                           // is told of each notice; nil: nobody is

	owner string
	conn  *connection
	at    func(point string) // of tests: is called between any two steps
}

// Outcome is what became of a notice in a run.
type Outcome struct {
	Key
	State NoticeState `json:"state"` // claimed: the server wants to be asked later
	Queue string      `json:"queue,omitempty"`
	Said  string      `json:"said,omitempty"`
}

// Run is what a sender did.
type Run struct {
	States map[NoticeState]int `json:"states"`
	Doubts int                 `json:"doubts"` // of senders that died before, found at the beginning
	End    string              `json:"end"`    // why it ended, in a sentence
}

const (
	idle        = 20 * time.Second // after which a connection is made anew: servers close early when they are busy
	troubles    = 4                // attempts to reach the server before a run gives up
	firstPause  = 30 * time.Second // before the second of them; it doubles
	inARow      = 10               // refused notices after which something else must be wrong
	doubtful    = 3                // the same of those in doubt, each of which is work for a person
	askAgain    = 30 * time.Second // how often a waiting sender looks whether it was stopped; it always does before a mail
	firstPutOff = 15 * time.Minute // what the server did not take is offered again after this; it doubles
	lastPutOff  = 12 * time.Hour
	dialTime    = 30 * time.Second
)

// ReturnPathFits reports whether the local part of return paths with a token is as short as
// it must be (RFC 5321 section 4.5.3.1.1).
func ReturnPathFits(envelope string) bool {
	return strings.LastIndexByte(envelope, '@')+1+tokenLen <= 64
}

// Run sends what is due. When the context ends, it ends after the mail under way.
func (s *Sender) Run(ctx context.Context) (Run, error) {
	run := Run{States: map[NoticeState]int{}}
	if s.at == nil {
		s.at = func(string) {}
	}
	if s.owner == "" {
		s.owner = owner(rand.Text())
	}
	defer func() {
		if s.conn != nil {
			s.conn.quit()
			s.conn = nil
		}
	}()
	var err error
	if run.Doubts, err = s.Ledger.Recover(ctx); err != nil {
		return run, err
	}
	now := s.Ledger.opt.Now()
	if s.Schedule.ended(DayOf(now, s.Schedule.Office.Zone)) {
		run.End = fmt.Sprintf("the campaign ended on %s", s.Schedule.End)
		return run, nil
	}
	if !s.Schedule.Office.Open(now) {
		run.End = s.Schedule.Office.Closed(now)
		return run, nil
	}
	plan, err := s.plan(ctx, now)
	if err != nil {
		return run, err
	}
	refused, doubts := 0, 0 // in a row
	for _, i := range plan.Items {
		if i.Reason != ReasonDue && i.Reason != ReasonBudget {
			break // they come first
		}
		if s.Most > 0 && run.States[StateSent]+run.States[StateDoubt] >= s.Most {
			run.End = fmt.Sprintf("as many as asked for were sent: %d", s.Most)
			return run, nil
		}
		n, end, err := s.turn(ctx, &i)
		if err != nil || end != "" {
			run.End = end
			return run, err
		}
		if n == nil {
			continue // somebody else was faster
		}
		o, err := s.one(ctx, n)
		if o.State != "" {
			run.States[o.State]++
			if s.Each != nil {
				s.Each(o)
			}
		}
		switch {
		case errors.Is(err, errLost):
			continue
		case errors.Is(err, ErrStopped):
			run.End = "it was stopped"
			return run, nil
		case errors.Is(err, context.Canceled) && ctx.Err() != nil:
			run.End = "it was told to end"
			return run, nil
		case err != nil:
			return run, err
		case o.State == StateSent:
			refused, doubts = 0, 0
		case o.State == StateDoubt:
			if doubts++; doubts == doubtful {
				return run, fmt.Errorf("%d notices in a row are in doubt; of the last one: %s", doubtful, o.Said)
			}
		case o.State == StateFailed || o.State == StateClaimed:
			if refused++; refused == inARow {
				return run, fmt.Errorf("none of %d notices in a row could be sent; of the last one: %s", inARow, o.Said)
			}
		}
	}
	run.End = "nothing else is due"
	return run, nil
}

// plan is today's.
func (s *Sender) plan(ctx context.Context, now time.Time) (*Plan, error) {
	return s.Ledger.Plan(ctx, s.Schedule, s.Policy(), now)
}

// Plan makes the plan of a day from the ledger.
func (l *Ledger) Plan(ctx context.Context, s *Schedule, p *policy.Policy, now time.Time) (*Plan, error) {
	used, err := l.SentToday(ctx, &s.Office)
	if err != nil {
		return nil, err
	}
	past, err := l.Pasts(ctx)
	if err != nil {
		return nil, err
	}
	plan, err := s.Make(p, l.Accounts(ctx, 0), func(account string) []Past { return past[account] }, s.PerDay-used, now)
	if err != nil {
		return nil, fmt.Errorf("planning: %w", err)
	}
	return plan, nil
}

// turn waits until a notice may be sent, and claims it. No notice and no end: another has it.
func (s *Sender) turn(ctx context.Context, i *Item) (n *Notice, end string, err error) {
	brand := s.brand(i.Brand)
	if brand.Notices == nil {
		return nil, "", fmt.Errorf("the brand %s has no notices", brand.Name)
	}
	envelope := string(brand.Notices.Envelope)
	domain := envelope[strings.LastIndexByte(envelope, '@')+1:]
	date := Day(0)
	if !i.T.IsZero() {
		date = DayOf(i.T, s.Schedule.Office.Zone)
	}
	for {
		if ctx.Err() != nil {
			return nil, "it was told to end", nil
		}
		now := s.Ledger.opt.Now()
		if !s.Schedule.Office.Open(now) {
			return nil, s.Schedule.Office.Closed(now), nil
		}
		t, err := s.Ledger.claim(context.WithoutCancel(ctx), i.Key, date, domain, s.owner, limitsOf(s.Notices, &s.Schedule.Office))
		switch {
		case err != nil:
			return nil, "", err
		case t.stopped != nil:
			return nil, fmt.Sprintf("%s has stopped it: %s", t.stopped.Who, t.stopped.Reason), nil
		case t.full:
			return nil, fmt.Sprintf("the day's budget of %d is used up", s.Notices.PerDay), nil
		case t.taken || t.notice != nil:
			s.at("claimed")
			return t.notice, "", nil
		}
		s.wait(ctx, min(t.wait.Sub(now), askAgain))
	}
}

// wait waits, but not for somebody who was told to end.
func (s *Sender) wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// brand is the one of that name, or the first.
func (s *Sender) brand(name string) *config.Brand {
	for i := range s.Brands {
		if string(s.Brands[i].Name) == name {
			return &s.Brands[i]
		}
	}
	return &s.Brands[0]
}

// ready is a notice that is ready to be handed over.
type ready struct {
	from, to string
	token    string
	bytes    []byte
}

// one sends a notice that was claimed. An error concerns the whole run.
func (s *Sender) one(stop context.Context, n *Notice) (Outcome, error) {
	ctx := context.WithoutCancel(stop) // the mail under way is ended well
	o := Outcome{Key: n.Key()}
	mail, why, err := s.compose(ctx, n)
	var wrong *unwritable
	switch {
	case errors.As(err, &wrong):
		return s.later(ctx, n, answer{0, heardLine(err.Error())}) // the others are not to wait for this one
	case errors.Is(err, ErrUnknown):
		return o, s.Ledger.forgotten(ctx, n)
	case err != nil:
		return o, errors.Join(err, s.Ledger.putOff(ctx, n, time.Time{}, false, ""))
	case mail == nil:
		o.State, o.Said = StateSkipped, why
		return o, s.Ledger.settle(ctx, n, o.State, "", why)
	}
	s.at("composed")
	pause := firstPause
	for try := 1; ; try++ {
		o, err = s.deliver(ctx, stop, n, mail)
		var trouble *serverTrouble
		if !errors.As(err, &trouble) {
			return o, err
		}
		// Nothing was handed over. Until the server is there again the notice is nobody's.
		s.drop()
		if trouble.fatal || try == troubles {
			return o, errors.Join(err, s.Ledger.putOff(ctx, n, time.Time{}, false, trouble.said()))
		}
		if s.wait(stop, pause); stop.Err() != nil {
			return o, errors.Join(context.Canceled, s.Ledger.putOff(ctx, n, time.Time{}, false, trouble.said()))
		}
		pause *= 2
	}
}

// unwritable is an error of a template or of an account's data.
type unwritable struct{ err error }

func (e *unwritable) Error() string { return e.err.Error() }
func (e *unwritable) Unwrap() error { return e.err }

// compose looks at the account again, and writes the mail; none: it is not due any more, for
// the reason given.
func (s *Sender) compose(ctx context.Context, n *Notice) (*ready, string, error) {
	a, err := s.Ledger.Account(ctx, n.Account)
	if err != nil {
		return nil, "", err
	}
	all, err := s.Ledger.Notices(ctx, n.Account)
	if err != nil {
		return nil, "", err
	}
	var past []Past
	for _, other := range all {
		if other.Key() != n.Key() {
			past = append(past, other.Past)
		}
	}
	now := s.Ledger.opt.Now()
	i, findings := s.Schedule.Look(s.Policy(), a, past, now)
	if i.Reason != ReasonDue || i.Key != n.Key() {
		return nil, i.Sentence, nil
	}
	findings = slices.DeleteFunc(findings, func(f Finding) bool { return f.watched() }) // the mail lists what is left
	brand := s.brand(i.Brand)
	content, err := Write(NoticeInput{Account: a, Findings: findings, Brand: brand, Lang: string(brand.Language), T: i.T, Case: n.Case, Zone: s.Schedule.Office.Zone, Now: now})
	if errors.Is(err, ErrNothing) {
		return nil, err.Error(), nil
	} else if err != nil {
		return nil, "", &unwritable{err}
	}
	bytes, err := Compose(Mail{Content: content, From: message.Address{Name: string(brand.Notices.Sender), Address: string(brand.Notices.From)}, To: n.Account, MessageID: n.MessageID, Date: now})
	if err != nil {
		return nil, "", &unwritable{err}
	}
	return &ready{ReturnPath(string(brand.Notices.Envelope), n.token), n.Account, n.token, bytes}, "", nil
}

// deliver hands a mail over. A [serverTrouble] means that it was not, and that the server
// is to be tried again; every other end of the notice is in the ledger.
func (s *Sender) deliver(ctx, stop context.Context, n *Notice, mail *ready) (Outcome, error) {
	o := Outcome{Key: n.Key()}
	fresh, err := s.connect(stop)
	if err != nil {
		return o, err
	}
	s.at("connected")
	doing, err := s.conn.offer(mail, s.at)
	if err != nil {
		a := answerOf(err)
		switch {
		case a.code == 0 && !fresh: // the server has closed the connection in the meantime
			s.drop()
			return s.deliver(ctx, stop, n, mail)
		case a.code == 0 || a.code == 421 || doing == "MAIL": // MAIL is not about this notice
			return o, &serverTrouble{doing, err, a.code >= 500}
		}
		return s.refused(ctx, n, a)
	}
	s.at("offered")
	if err := s.Ledger.handing(ctx, n); err != nil {
		s.drop() // without a final dot the server forgets all of it (RFC 5321 section 4.1.1.4)
		if errors.Is(err, ErrStopped) {
			err = errors.Join(err, s.Ledger.putOff(ctx, n, time.Time{}, false, ""))
		}
		return o, err
	}
	s.at("handing")
	said, err := s.conn.end()
	s.at("answered")
	a := answerOf(err)
	switch {
	case err == nil:
		return s.end(ctx, n, StateSent, answer{250, said})
	case a.code/100 == 2: // any success is one (RFC 5321 section 4.3.2 wants 250)
		return s.end(ctx, n, StateSent, a)
	case a.code/100 == 4 || a.code/100 == 5:
		if a.code == 421 {
			s.drop()
		}
		return s.refused(ctx, n, a)
	}
	s.drop()
	return s.end(ctx, n, StateDoubt, answer{0, "no answer to the final dot: " + heardLine(err.Error())})
}

// end writes down what became of a notice. What was sent must not be forgotten for a
// database that was busy.
func (s *Sender) end(ctx context.Context, n *Notice, state NoticeState, a answer) (Outcome, error) {
	o := Outcome{n.Key(), state, queueID(a.said), a.said}
	var err error
	for pause := time.Second; pause < 20*time.Second; pause *= 2 {
		if err = s.Ledger.settle(ctx, n, state, o.Queue, o.Said); err == nil {
			s.at("settled")
			return o, nil
		}
		if errors.Is(err, errLost) { // the account was forgotten meanwhile, and this with it
			return o, nil
		}
		s.wait(ctx, pause)
	}
	return o, fmt.Errorf("the ledger cannot be told that %s to %s is %s (%s), so it will be in doubt: %w", StepName(n.Step), n.Account, state, a.said, err)
}

// refused writes down that the server did not take a notice.
func (s *Sender) refused(ctx context.Context, n *Notice, a answer) (Outcome, error) {
	if a.code >= 500 && !a.ours() {
		return s.end(ctx, n, StateFailed, a)
	}
	return s.later(ctx, n, a)
}

// later gives back what the server did not take for now.
func (s *Sender) later(ctx context.Context, n *Notice, a answer) (Outcome, error) {
	pause := min(firstPutOff<<min(n.Tries, 10), lastPutOff)
	return Outcome{n.Key(), StateClaimed, "", a.said}, s.Ledger.putOff(ctx, n, s.Ledger.opt.Now().Add(pause), true, a.said)
}

// drop closes the connection as it is.
func (s *Sender) drop() {
	if s.conn != nil {
		s.conn.close()
		s.conn = nil
	}
}

// connect makes sure that there is a connection, and reports whether it is new.
func (s *Sender) connect(ctx context.Context) (fresh bool, err error) {
	if s.conn != nil && time.Since(s.conn.used) < idle {
		return false, nil
	}
	if s.conn != nil {
		s.conn.quit()
		s.conn = nil
	}
	dial := s.Dial
	if dial == nil {
		d := &net.Dialer{Timeout: dialTime}
		dial = func(ctx context.Context) (net.Conn, error) {
			return d.DialContext(ctx, "tcp", s.Notices.Server.String())
		}
	}
	conn, err := dial(ctx)
	if err != nil {
		return false, &serverTrouble{"connecting", err, false}
	}
	s.conn, err = converse(conn, s)
	return true, err
}

// hello is the name that this machine gives itself (RFC 5321 section 4.1.4).
func (s *Sender) hello() string {
	if s.Hello != "" {
		return s.Hello
	}
	if name, err := os.Hostname(); err == nil && name != "" {
		return name
	}
	return "localhost"
}
