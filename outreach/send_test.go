package outreach

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	cryptorand "crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/big"
	"math/rand/v2"
	"net"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"mailreeve/config"
	"mailreeve/policy"
)

// How the server of these tests answers at a stage of a conversation: greeting, EHLO, MAIL,
// RCPT, DATA, dot.
type mood string

const (
	well   mood = "well"
	temp   mood = "temp"   // for now, no
	perm   mood = "perm"   // no
	filter mood = "filter" // no, and it is the sender's fault
	leaves mood = "leaves" // 421
	dies   mood = "dies"   // without a word; what it was told is lost
	mute   mood = "mute"   // it took the message, and dies before it says so
	silent mood = "silent" // it took the message, and never says so
)

// post is a submission server that keeps what it has taken.
type post struct {
	mood func(stage string) mood // nil: always well

	mu    sync.Mutex
	took  map[string]int // how often, by Message-ID
	mails []taken
}

type taken struct {
	from, to, text string
	at             time.Time
}

func (p *post) dial(ctx context.Context) (net.Conn, error) {
	if p.feels("dial") != well {
		return nil, errors.New("connection refused")
	}
	client, server := net.Pipe()
	go p.serve(server)
	return client, nil
}

func (p *post) feels(stage string) mood {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mood == nil {
		return well
	}
	return p.mood(stage)
}

// feel changes the mood.
func (p *post) feel(mood func(string) mood) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mood = mood
}

// got are the mails so far.
func (p *post) got() []taken {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.mails)
}

// counts say how often each Message-ID came.
func (p *post) counts() map[string]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return maps.Clone(p.took)
}

func (p *post) serve(conn net.Conn) {
	defer conn.Close()
	in := bufio.NewReader(conn)
	say := func(lines ...string) bool {
		_, err := io.WriteString(conn, strings.Join(lines, "\r\n")+"\r\n")
		return err == nil
	}
	// answer says what the stage wants; false: the conversation is over.
	answer := func(stage string, lines ...string) (ok, on bool) {
		switch p.feels(stage) {
		case well:
			return true, say(lines...)
		case temp:
			return false, say("451 4.3.0 try later")
		case perm:
			return false, say("550 5.1.1 no")
		case filter:
			return false, say("554 5.7.1 not from you")
		case leaves:
			say("421 4.3.2 bye")
		}
		return false, false
	}
	if ok, on := answer("greeting", "220 mx.example.test"); !ok || !on {
		return
	}
	var mail taken
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		line = strings.TrimSpace(line)
		verb, rest, _ := strings.Cut(line, " ")
		ok, on := true, true
		path := func() string {
			_, path, _ := strings.Cut(rest, "<")
			path, _, _ = strings.Cut(path, ">")
			return path
		}
		switch verb {
		case "EHLO":
			_, on = answer("EHLO", "250-mx.example.test", "250-DSN", "250-SIZE", "250 ENHANCEDSTATUSCODES")
		case "MAIL":
			mail = taken{from: path()}
			_, on = answer("MAIL", "250 2.1.0 Ok")
		case "RCPT":
			mail.to = path()
			if ok, on = answer("RCPT", "250 2.1.5 Ok"); !ok {
				mail.to = ""
			}
		case "DATA":
			if ok, on = answer("DATA", "354 End data with <CR><LF>.<CR><LF>"); !ok || !on {
				break
			}
			on = p.data(conn, in, &mail, answer)
		case "RSET":
			mail, on = taken{}, say("250 2.0.0 Ok")
		case "QUIT":
			say("221 2.0.0 Bye")
			return
		default:
			on = say("500 5.5.2 what?")
		}
		if !on {
			return
		}
	}
}

// data reads a message up to the final dot, and takes it where it shall.
func (p *post) data(conn net.Conn, in *bufio.Reader, mail *taken, answer func(string, ...string) (bool, bool)) bool {
	var text strings.Builder
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return false // no final dot, no message
		}
		if line == ".\r\n" {
			break
		}
		text.WriteString(strings.TrimPrefix(line, "."))
	}
	mail.text, mail.at = text.String(), time.Now()
	p.mu.Lock()
	feels := well
	if p.mood != nil {
		feels = p.mood("dot")
	}
	if feels == well || feels == mute || feels == silent {
		if p.took == nil {
			p.took = map[string]int{}
		}
		p.took[mail.field("Message-Id")]++
		p.mails = append(p.mails, *mail)
	}
	p.mu.Unlock()
	switch feels {
	case well:
		_, err := io.WriteString(conn, "250 2.0.0 Ok: queued as 4FxT3st\r\n")
		return err == nil
	case temp:
		_, err := io.WriteString(conn, "452 4.3.1 no room\r\n")
		return err == nil
	case perm:
		_, err := io.WriteString(conn, "554 5.6.0 no\r\n")
		return err == nil
	case filter:
		_, err := io.WriteString(conn, "554 5.7.1 spam\r\n")
		return err == nil
	case leaves:
		io.WriteString(conn, "421 4.3.2 bye\r\n")
	case silent:
		in.ReadString('\n') // until the other side has had enough
	}
	return false
}

// field is a header field of a message.
func (m *taken) field(name string) string {
	for line := range strings.SplitSeq(m.text, "\r\n") {
		if line == "" {
			break
		}
		if key, value, ok := strings.Cut(line, ":"); ok && strings.EqualFold(key, name) {
			return strings.Trim(strings.TrimSpace(value), "<>")
		}
	}
	return ""
}

// see writes down that accounts logged in on a day.
func (o *outbox) see(t failer, s Shape, day Day, accounts ...string) {
	t.Helper()
	ctx := context.Background()
	noErr(t, o.tx(ctx, func(x *tx) error {
		if _, err := x.exec("INSERT INTO shape ("+shapeColumns+") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14) ON CONFLICT DO NOTHING", s.fields()...); err != nil {
			return err
		}
		for _, a := range accounts {
			if _, err := x.exec("INSERT INTO account (name) VALUES ($1) ON CONFLICT (name) DO NOTHING", a); err != nil {
				return err
			}
			if _, err := x.exec("INSERT INTO seen (account, shape, day, n) SELECT account.id, shape.id, $1, 1 FROM account, shape WHERE name = $2 AND shape.entry = $3 AND shape.mechanism = $4 ON CONFLICT DO NOTHING",
				day, a, s.Entry, s.Mechanism); err != nil {
				return err
			}
		}
		return nil
	}))
}

// begun is when the tests in fake time begin to send: Monday, 3 January 2000, at ten.
var begun = time.Date(2000, 1, 3, 10, 0, 0, 0, berlin)

func testBrand() config.Brand {
	return config.Brand{Name: "alpha", Language: "en", Help: "https://help.example.test",
		Hosts:   map[config.Protocol][]config.Host{config.IMAP: {"imap.example.test"}, config.POP3: {"pop.example.test"}, config.Submission: {"smtp.example.test"}},
		Notices: &config.BrandNotices{From: "service@example.test", Sender: "Example Mail", Envelope: "notices@bounces.example.test"}}
}

// sender sends what a policy makes due seven days before the day: the week of begun's Monday.
func sender(t failer, o *outbox, p *post) *Sender {
	rule := denied(t, begun.AddDate(0, 0, -100), begun.AddDate(0, 0, 7))
	return &Sender{Ledger: o.Ledger, Schedule: testSchedule(), Policy: func() *policy.Policy { return rule },
		Notices: &config.Notices{TLS: config.Off, PerMinute: 1000, PerHour: 1000, PerDay: 1000}, Brands: []config.Brand{testBrand()}, Hello: "reeve.example.test", Dial: p.dial}
}

// states are what became of the accounts' notices.
func (o *outbox) states(t failer) map[string]NoticeState {
	t.Helper()
	states := map[string]NoticeState{}
	noErr(t, o.view(context.Background(), func(x *tx) error {
		all, err := x.notices("1 = 1")
		for _, n := range all {
			states[n.Account] = n.State
		}
		return err
	}))
	return states
}

func mailboxes(n int) (names []string) {
	for i := range n {
		names = append(names, fmt.Sprintf("kunde%d@example.test", i))
	}
	return names
}

// sleepUntil lets fake time pass.
func sleepUntil(at time.Time) { time.Sleep(time.Until(at)) }

// A notice is sent to whom it concerns, from whom it is, and the ledger knows the server's words.
func TestSend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sleepUntil(begun)
		o, p := newOutbox(t), &post{}
		o.see(t, good(inClear), DayOf(begun, berlin)-1, "kunde@example.test", "call@example.test")
		o.see(t, good(), DayOf(begun, berlin)-1, "gut@example.test")
		noErr(t, o.SetCall(t.Context(), "call@example.test", true))
		s := sender(t, o, p)
		var each []Outcome
		s.Each = func(o Outcome) { each = append(each, o) }
		run, err := s.Run(t.Context())
		noErr(t, err)
		if len(p.got()) != 1 || run.States[StateSent] != 1 || run.End != "nothing else is due" || len(each) != 1 || each[0].Queue != "4FxT3st" {
			t.Fatalf("%d mails, %+v, %+v", len(p.got()), run, each)
		}
		all, err := o.Notices(t.Context(), "kunde@example.test")
		noErr(t, err)
		n, m := all[0], p.got()[0]
		if n.State != StateSent || n.Queue != "4FxT3st" || n.Said != "2.0.0 Ok: queued as 4FxT3st" || n.Day != DayOf(begun, berlin) || n.Date != DayOf(begun, berlin)+7 || n.Step != -7 {
			t.Errorf("%+v", n)
		}
		if m.to != "kunde@example.test" || m.from != ReturnPath("notices@bounces.example.test", n.token) || m.field("From") != `"Example Mail" <service@example.test` || m.field("To") != "kunde@example.test" ||
			m.field("Message-Id") != n.MessageID || m.field("Auto-Submitted") != "auto-generated" || !strings.Contains(m.text, n.Case) {
			t.Errorf("from %s to %s:\n%s", m.from, m.to, m.text)
		}
		if run, err = s.Run(t.Context()); err != nil || len(p.got()) != 1 || len(run.States) != 0 {
			t.Errorf("again: %+v, %v, %d mails", run, err, len(p.got()))
		}
		if cases, err := o.OfCase(t.Context(), n.Case); err != nil || !slices.Equal(cases, []string{"kunde@example.test"}) {
			t.Errorf("case %s is of %v, %v", n.Case, cases, err)
		}
	})
}

// What the server says or does at each stage decides what becomes of the notice.
func TestServerMoods(t *testing.T) {
	for _, test := range []struct {
		stage string
		mood  mood
		state NoticeState
		mails int
		err   bool // the run ends with one
	}{
		{"dial", dies, StateClaimed, 0, true},
		{"greeting", temp, StateClaimed, 0, true}, {"greeting", perm, StateClaimed, 0, true}, {"greeting", leaves, StateClaimed, 0, true}, {"greeting", dies, StateClaimed, 0, true},
		{"EHLO", temp, StateClaimed, 0, true}, {"EHLO", perm, StateClaimed, 0, true}, {"EHLO", dies, StateClaimed, 0, true},
		{"MAIL", temp, StateClaimed, 0, true}, {"MAIL", perm, StateClaimed, 0, true}, {"MAIL", leaves, StateClaimed, 0, true}, {"MAIL", dies, StateClaimed, 0, true},
		{"RCPT", temp, StateClaimed, 0, false}, {"RCPT", perm, StateFailed, 0, false}, {"RCPT", filter, StateClaimed, 0, false}, {"RCPT", leaves, StateClaimed, 0, true}, {"RCPT", dies, StateClaimed, 0, true},
		{"DATA", temp, StateClaimed, 0, false}, {"DATA", perm, StateFailed, 0, false}, {"DATA", leaves, StateClaimed, 0, true}, {"DATA", dies, StateClaimed, 0, true},
		{"dot", temp, StateClaimed, 0, false}, {"dot", perm, StateFailed, 0, false}, {"dot", filter, StateClaimed, 0, false}, {"dot", leaves, StateClaimed, 0, false},
		{"dot", dies, StateDoubt, 0, false}, {"dot", mute, StateDoubt, 1, false}, {"dot", silent, StateDoubt, 1, false}, {"dot", well, StateSent, 1, false},
	} {
		t.Run(test.stage+" "+string(test.mood), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				sleepUntil(begun)
				o := newOutbox(t)
				p := &post{mood: func(stage string) mood {
					if stage == test.stage {
						return test.mood
					}
					return well
				}}
				o.see(t, good(inClear), DayOf(begun, berlin)-1, "kunde@example.test")
				s := sender(t, o, p)
				run, err := s.Run(t.Context())
				if (err != nil) != test.err {
					t.Errorf("%+v, %v", run, err)
				}
				if err != nil && strings.ContainsAny(err.Error(), "\r\n") {
					t.Errorf("the error has several lines: %q", err)
				}
				if state := o.states(t)["kunde@example.test"]; state != test.state || len(p.got()) != test.mails {
					t.Errorf("%s, %d mails; want %s, %d", state, len(p.got()), test.state, test.mails)
				}
				// When the server is well again, what was put off is sent, and what is in doubt is not.
				p.feel(nil)
				sleepUntil(begun.Add(25 * time.Hour))
				_, err = s.Run(t.Context())
				noErr(t, err)
				want := test.mails
				if test.state == StateClaimed {
					want = 1
				}
				if len(p.got()) != want {
					t.Errorf("in the end %d mails, want %d", len(p.got()), want)
				}
			})
		})
	}
}

// crash is what a test throws where a process would be killed.
type crash struct{ point string }

// crashed runs a sender, and reports where it was killed.
func crashed(t failer, s *Sender, ctx context.Context) (point string, run Run, err error) {
	defer func() {
		if c, ok := recover().(crash); ok {
			point = c.point
			s.drop() // the kernel closes what a dead process had open
		}
	}()
	run, err = s.Run(ctx)
	return "", run, err
}

// A sender that is killed between any two steps loses nothing and doubles nothing: what was
// being handed over is in doubt, all else is sent by the next.
func TestCrashes(t *testing.T) {
	for point, doubt := range map[string]bool{"claimed": false, "composed": false, "connected": false, "mail": false, "rcpt": false, "data": false,
		"offered": false, "handing": true, "answered": true, "settled": false} {
		t.Run(point, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				sleepUntil(begun)
				o, p := newOutbox(t), &post{}
				o.see(t, good(inClear), DayOf(begun, berlin)-1, mailboxes(3)...)
				s := sender(t, o, p)
				s.at = func(at string) {
					if at == point && len(o.states(t)) == 2 {
						panic(crash{at})
					}
				}
				if at, run, err := crashed(t, s, t.Context()); at != point {
					t.Fatalf("%+v, %v", run, err)
				}
				time.Sleep(handingLease + time.Second)
				next := sender(t, o, p)
				run, err := next.Run(t.Context())
				noErr(t, err)
				sent, doubts := 0, 0
				for account, state := range o.states(t) {
					switch state {
					case StateSent:
						sent++
					case StateDoubt:
						doubts++
					default:
						t.Errorf("%s is %s", account, state)
					}
				}
				want := 0
				if doubt {
					want = 1
				}
				if doubts != want || run.Doubts != want || sent != 3-want {
					t.Errorf("%d sent, %d in doubt, %+v", sent, doubts, run)
				}
				for id, n := range p.counts() {
					if n != 1 {
						t.Errorf("%s came %d times", id, n)
					}
				}
				listed, err := o.Doubts(t.Context())
				noErr(t, err)
				if len(listed) != want {
					t.Errorf("%d doubts are listed", len(listed))
				}
			})
		})
	}
}

// Whatever the server does and wherever senders are killed, two at a time: in the end each
// account has exactly one mail, or the server refused it, or it is in doubt and has at most one.
func TestExactlyOnce(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		story := onceStory{
			seed: rapid.Uint64().Draw(r, "seed"), accounts: rapid.IntRange(1, 3).Draw(r, "accounts"),
			bad: rapid.IntRange(0, 6).Draw(r, "bad answers of ten"), die: rapid.IntRange(0, 8).Draw(r, "deaths at a hundred points"),
		}
		wrong := ""
		synctest.Test(t, func(t *testing.T) { wrong = story.play(t) })
		if wrong != "" {
			r.Fatal(wrong)
		}
	})
}

// onceStory is a case of TestExactlyOnce. All chance in it comes from the seed, but for the
// order in which two goroutines ask for it.
type onceStory struct {
	seed               uint64
	accounts, bad, die int
}

// play says what is wrong in the end.
func (story onceStory) play(t *testing.T) string {
	sleepUntil(begun)
	o, p := newOutbox(t), &post{}
	defer o.Close()
	accounts := mailboxes(story.accounts)
	o.see(t, good(inClear), DayOf(begun, berlin)-1, accounts...)
	var throwing sync.Mutex // senders and servers have the same dice
	dice := rand.New(rand.NewPCG(story.seed, 6))
	throw := func(n int) int {
		throwing.Lock()
		defer throwing.Unlock()
		return dice.IntN(n)
	}
	p.mood = func(string) mood {
		if throw(10) >= story.bad {
			return well
		}
		return []mood{temp, temp, filter, leaves, dies, mute, silent, perm}[throw(8)]
	}
	calm := false
	for run := range 13 {
		if run == 9 { // the server is mended, and nobody is killed any more
			p.feel(nil)
			calm = true
		}
		var senders sync.WaitGroup
		for n := range 1 + throw(2) {
			s := sender(t, o, p)
			s.owner = fmt.Sprint(run, n)
			s.at = func(point string) {
				if !calm && throw(100) < story.die {
					panic(crash{point})
				}
				runtime.Gosched()
			}
			senders.Go(func() { crashed(t, s, t.Context()) }) // errors are the server's, and the next run's business
		}
		senders.Wait()
		if calm {
			sleepUntil(nextMorning(time.Now()))
		} else {
			time.Sleep(time.Duration(throw(40)) * time.Minute)
		}
	}
	count := map[string]int{}
	for _, m := range p.got() {
		count[m.to]++
	}
	for id, n := range p.counts() {
		if n > 1 {
			return fmt.Sprintf("%s came %d times", id, n)
		}
	}
	states := map[string][]Notice{}
	for _, a := range accounts {
		all, err := o.Notices(t.Context(), a)
		noErr(t, err)
		states[a] = all
	}
	for a, all := range states {
		mails, doubts, done := 0, 0, false
		for _, n := range all {
			switch n.State {
			case StateSent:
				mails, done = mails+1, true
			case StateDoubt:
				doubts, done = doubts+1, true
			case StateFailed:
				done = true
			}
		}
		if !done || count[a] < mails || count[a] > mails+doubts {
			return fmt.Sprintf("%s has %d mails, and notices %+v", a, count[a], all)
		}
	}
	return ""
}

// nextMorning is eleven o'clock on the day after.
func nextMorning(now time.Time) time.Time {
	y, m, d := now.In(berlin).Date()
	return time.Date(y, m, d+1, 11, 0, 0, 0, berlin)
}

// Two senders with connections of their own to one ledger share the work and never send the same.
func TestTwoSenders(t *testing.T) {
	place := filepath.Join(t.TempDir(), "ledger.db")
	a, b, p := newOutboxAt(t, place), newOutboxAt(t, place), &post{}
	now := time.Now().In(berlin)
	accounts := mailboxes(60)
	a.see(t, good(inClear), DayOf(now, berlin)-1, accounts...)
	rule := denied(t, now.AddDate(0, 0, -100), now)
	var both sync.WaitGroup
	var sent [2]int
	for i, o := range []*outbox{a, b} {
		s := sender(t, o, p)
		s.Policy = func() *policy.Policy { return rule }
		s.Schedule.Office = Office{Zone: berlin, Until: 24 * time.Hour, Days: [7]bool{true, true, true, true, true, true, true}}
		both.Go(func() {
			run, err := s.Run(t.Context())
			if err != nil {
				t.Error(err)
			}
			sent[i] = run.States[StateSent]
		})
	}
	both.Wait()
	if len(p.got()) != len(accounts) || len(p.counts()) != len(accounts) || sent[0]+sent[1] != len(accounts) {
		t.Errorf("%d mails, %d of them different, %v sent", len(p.got()), len(p.counts()), sent)
	}
	if sent[0] == 0 || sent[1] == 0 {
		t.Logf("one of them did all of the work: %v", sent)
	}
}

// However often a sender is started, mails keep to the rates and to the hours of the office.
func TestSendingKeepsToRates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		day := time.Date(2000, 3, 25, 0, 0, 0, 0, berlin) // the night to Sunday has an hour less
		sleepUntil(day)
		o, p := newOutbox(t), &post{}
		o.see(t, good(inClear), DayOf(day, berlin)-1, mailboxes(200)...)
		rule := denied(t, day.AddDate(0, 0, -100), day.AddDate(0, 0, 7))
		office := Office{Zone: berlin, Begin: time.Hour, Until: 4*time.Hour + 30*time.Minute, Days: [7]bool{true, false, true, true, true, true, true}} // not on Mondays
		const perMinute, perHour, perDay = 10, 30, 80
		for day := 0; time.Now().Before(time.Date(2000, 3, 31, 0, 0, 0, 0, berlin)); day++ {
			s := sender(t, o, p)
			s.Schedule.Steps = []int{-7}
			s.Policy, s.Schedule.Office, s.Schedule.PerDay = func() *policy.Policy { return rule }, office, perDay
			s.Notices.PerMinute, s.Notices.PerHour, s.Notices.PerDay = perMinute, perHour, perDay
			s.Most = 25 // then it is started anew
			_, err := s.Run(t.Context())
			noErr(t, err)
			time.Sleep(15 * time.Minute)
		}
		byDay := map[Day]int{}
		for n, m := range p.got() {
			if !office.Open(m.at) {
				t.Errorf("a mail at %v", m.at.In(berlin))
			}
			byDay[DayOf(m.at, berlin)]++
			if n >= perMinute && m.at.Sub(p.got()[n-perMinute].at) < time.Minute {
				t.Errorf("more than %d in the minute before %v", perMinute, m.at)
			}
			if n >= perHour && m.at.Sub(p.got()[n-perHour].at) < time.Hour {
				t.Errorf("more than %d in the hour before %v", perHour, m.at)
			}
		}
		days := slices.Sorted(maps.Keys(byDay))
		if len(p.got()) != 200 || byDay[days[0]] != perDay || slices.Max(slices.Collect(maps.Values(byDay))) > perDay || slices.Contains(days, dayOf("2000-03-27")) {
			t.Errorf("%d mails: %v", len(p.got()), byDay)
		}
	})
}

// A stop ends a sender before its next final dot, also one in the middle of a mail.
func TestStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sleepUntil(begun)
		o, p := newOutbox(t), &post{}
		o.see(t, good(inClear), DayOf(begun, berlin)-1, mailboxes(5)...)
		s := sender(t, o, p)
		n := 0
		s.at = func(point string) {
			if point == "offered" {
				if n++; n == 3 {
					_, err := o.Stop(context.Background(), "the hotline burns", false)
					noErr(t, err)
				}
			}
		}
		run, err := s.Run(t.Context())
		noErr(t, err)
		if len(p.got()) != 2 || run.End != "it was stopped" {
			t.Errorf("%d mails, %+v", len(p.got()), run)
		}
		if run, err = s.Run(t.Context()); err != nil || len(p.got()) != 2 || !strings.Contains(run.End, "test has stopped it: the hotline burns") {
			t.Errorf("%d mails, %+v, %v", len(p.got()), run, err)
		}
		was, err := o.Stop(t.Context(), "another reason", false)
		noErr(t, err)
		if was == nil || was.Reason != "the hotline burns" {
			t.Errorf("stopped twice: %+v", was)
		}
		was, err = o.Stop(t.Context(), "the wires burn", true)
		noErr(t, err)
		if was == nil || was.Reason != "the hotline burns" {
			t.Errorf("stopped for another reason: %+v", was)
		}
		was, err = o.Resume(t.Context())
		noErr(t, err)
		if was == nil || was.Reason != "the wires burn" {
			t.Errorf("it was %+v", was)
		}
		if run, err = s.Run(t.Context()); err != nil || len(p.got()) != 5 {
			t.Errorf("%d mails, %+v, %v", len(p.got()), run, err)
		}
		if was, err := o.Resume(t.Context()); was != nil || err != nil {
			t.Errorf("resumed twice: %+v, %v", was, err)
		}
	})
}

// Nor is a server with another's certificate.
func TestWrongCertificate(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), cryptorand.Reader)
	noErr(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"mx.example.test"}, NotAfter: time.Now().AddDate(1, 0, 0)}
	der, err := x509.CreateCertificate(cryptorand.Reader, template, template, key.Public(), key)
	noErr(t, err)
	other := tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	synctest.Test(t, func(t *testing.T) {
		sleepUntil(begun)
		o, p := newOutbox(t), &post{}
		o.see(t, good(inClear), DayOf(begun, berlin)-1, "kunde@example.test")
		s := sender(t, o, p)
		s.Notices.TLS, s.TLS = config.Implicit, &tls.Config{ServerName: "mx.example.test", RootCAs: x509.NewCertPool()}
		s.Dial = func(context.Context) (net.Conn, error) {
			client, server := net.Pipe()
			go p.serve(tls.Server(server, &tls.Config{Certificates: []tls.Certificate{other}}))
			return client, nil
		}
		begin := time.Now()
		_, err := s.Run(t.Context())
		if !Refused(err) || len(p.got()) != 0 || time.Since(begin) > time.Minute {
			t.Errorf("%v after %v", err, time.Since(begin))
		}
	})
}

// A server without STARTTLS is not tried again: a person has to look at the configuration.
func TestNoSTARTTLS(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sleepUntil(begun)
		o, p := newOutbox(t), &post{}
		o.see(t, good(inClear), DayOf(begun, berlin)-1, mailboxes(2)...)
		s := sender(t, o, p)
		s.Notices.TLS = config.STARTTLS
		begin := time.Now()
		run, err := s.Run(t.Context())
		if !NoSTARTTLS(err) || !Refused(err) || len(p.got()) != 0 || time.Since(begin) > time.Minute {
			t.Errorf("%+v, %v after %v", run, err, time.Since(begin))
		}
	})
}

// Who is told to end sends the mail under way.
func TestEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sleepUntil(begun)
		o, p := newOutbox(t), &post{}
		o.see(t, good(inClear), DayOf(begun, berlin)-1, mailboxes(5)...)
		ctx, cancel := context.WithCancel(t.Context())
		s := sender(t, o, p)
		s.at = func(point string) {
			if point == "data" {
				cancel()
			}
		}
		run, err := s.Run(ctx)
		noErr(t, err)
		if len(p.got()) != 1 || run.States[StateSent] != 1 || run.End != "it was told to end" || len(o.states(t)) != 1 {
			t.Errorf("%d mails, %+v, %v", len(p.got()), run, o.states(t))
		}
		// While it waits for a server that is not there, it ends at once.
		p.feel(func(string) mood { return dies })
		ctx, cancel = context.WithTimeout(t.Context(), firstPause/2)
		defer cancel()
		begin := time.Now()
		run, err = sender(t, o, p).Run(ctx)
		if err != nil || run.End != "" && run.End != "it was told to end" || time.Since(begin) > firstPause/2 {
			t.Errorf("%+v, %v after %v", run, err, time.Since(begin))
		}
	})
}

// What has changed since the plan was made counts: nobody is told what is mended.
func TestLookAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sleepUntil(begun)
		o, p := newOutbox(t), &post{}
		names := mailboxes(5)
		o.see(t, good(inClear), DayOf(begun, berlin)-20, names[0]) // silent so far
		o.see(t, good(inClear), DayOf(begun, berlin)-1, names[1:]...)
		s := sender(t, o, p)
		done := false
		s.at = func(point string) {
			if point != "claimed" || done {
				return
			}
			done = true
			o.see(t, good(), DayOf(begun, berlin)-2, names[0]) // fixed
			noErr(t, o.SetCall(t.Context(), names[1], true))
			noErr(t, o.mark(t.Context(), names[2], "bounced", true, "test"))
			noErr(t, o.tx(t.Context(), func(x *tx) error { // forgotten
				_, err := x.exec("DELETE FROM account WHERE name = $1", names[3])
				if err == nil {
					_, err = x.exec("DELETE FROM notice WHERE account = $1", names[3])
				}
				return err
			}))
		}
		run, err := s.Run(t.Context())
		noErr(t, err)
		if len(p.got()) != 1 || p.got()[0].to != names[4] {
			t.Errorf("%d mails, %+v", len(p.got()), run)
		}
		states := o.states(t)
		if states[names[0]] != StateSkipped || states[names[1]] != StateSkipped || states[names[2]] != StateSkipped || states[names[4]] != StateSent {
			t.Errorf("%v", states)
		}
		if _, has := states[names[3]]; has {
			t.Error("the forgotten account has come back")
		}
		// One who is mended for now and begins anew is told.
		noErr(t, o.SetCall(t.Context(), names[1], false))
		_, err = s.Run(t.Context())
		noErr(t, err)
		if len(p.got()) != 2 || p.got()[1].to != names[1] {
			t.Errorf("%d mails", len(p.got()))
		}
	})
}

// A server that takes nothing is left alone, and what it refused for its own reasons is not lost.
func TestRefusedInARow(t *testing.T) {
	for feels, state := range map[mood]NoticeState{temp: StateClaimed, filter: StateClaimed, perm: StateFailed} {
		synctest.Test(t, func(t *testing.T) {
			sleepUntil(begun)
			o, p := newOutbox(t), &post{}
			o.see(t, good(inClear), DayOf(begun, berlin)-1, mailboxes(30)...)
			p.mood = func(stage string) mood {
				if stage == "RCPT" {
					return feels
				}
				return well
			}
			run, err := sender(t, o, p).Run(t.Context())
			if err == nil || run.States[state] != inARow || len(o.states(t)) != inARow {
				t.Errorf("%s: %+v, %v", feels, run, err)
			}
		})
	}
}

// A server that goes away at each final dot leaves few doubts for people to settle.
func TestDoubtsInARow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sleepUntil(begun)
		o, p := newOutbox(t), &post{mood: func(stage string) mood {
			if stage == "dot" {
				return mute
			}
			return well
		}}
		o.see(t, good(inClear), DayOf(begun, berlin)-1, mailboxes(20)...)
		run, err := sender(t, o, p).Run(t.Context())
		if err == nil || run.States[StateDoubt] != doubtful || len(o.states(t)) != doubtful {
			t.Errorf("%+v, %v, %d begun", run, err, len(o.states(t)))
		}
	})
}

// A doubt is settled by a person, or by what the server has written; all is in the audit.
func TestSettle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sleepUntil(begun)
		o, p := newOutbox(t), &post{mood: func(stage string) mood { return map[bool]mood{true: mute, false: well}[stage == "dot"] }}
		names := mailboxes(2)
		o.see(t, good(inClear), DayOf(begun, berlin)-1, names...)
		s := sender(t, o, p)
		_, err := s.Run(t.Context())
		noErr(t, err)
		doubts, err := o.Doubts(t.Context())
		noErr(t, err)
		if len(doubts) != 2 {
			t.Fatalf("%+v", doubts)
		}
		noErr(t, o.SettleAsSent(t.Context(), &doubts[0], "4FxL0g", "in the mail log"))
		noErr(t, o.SettleAsUnsent(t.Context(), &doubts[1], "nothing in the mail log"))
		if err := o.SettleAsUnsent(t.Context(), &doubts[0], "twice"); err == nil {
			t.Error("a doubt was settled twice")
		}
		p.feel(nil)
		_, err = s.Run(t.Context())
		noErr(t, err)
		if states := o.states(t); states[names[0]] != StateSent || states[names[1]] != StateSent || len(p.got()) != 3 || p.got()[2].to != doubts[1].Account {
			t.Errorf("%v, %d mails", states, len(p.got()))
		}
		if p.got()[2].field("Message-Id") != doubts[1].MessageID {
			t.Error("the second copy has another Message-ID")
		}
		audit, err := o.Audited(t.Context())
		noErr(t, err)
		if len(audit) != 2 {
			t.Errorf("%+v", audit)
		}
	})
}

// An owner on this machine is known to be dead; of another nobody knows.
func TestDead(t *testing.T) {
	me := owner("x")
	if machine() == "" {
		t.Skip("this system does not tell")
	}
	parts := strings.Split(me, " ")
	for name, want := range map[string]bool{
		me: false, "": false, "me": false,
		strings.Join([]string{parts[0], parts[1], "1", "x"}, " "):          true, // the number has gone to another process
		strings.Join([]string{parts[0], "4194305", parts[2], "x"}, " "):    true, // more than the kernel gives
		strings.Join([]string{"elsewhere", "4194305", parts[2], "x"}, " "): false,
		strings.Join([]string{parts[0], "4194305", "", "x"}, " "):          false,
	} {
		if got := dead(name); got != want {
			t.Errorf("%q: %v", name, got)
		}
	}
}

func TestQueueID(t *testing.T) {
	for said, want := range map[string]string{
		"2.0.0 Ok: queued as 4Fx1yW3kZ9z": "4Fx1yW3kZ9z", "OK id=1abcDE-0000XY-2a": "1abcDE-0000XY-2a", "2.0.0 Ok": "", "queued as \x1b[31m": "",
	} {
		if got := queueID(said); got != want {
			t.Errorf("%q: %q", said, got)
		}
	}
}

// A mail lists what is left: not what has been right since.
func TestMailLeavesOutWhatIsWatched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sleepUntil(begun)
		o, p := newOutbox(t), &post{}
		day, name := DayOf(begun, berlin), mailboxes(1)[0]
		other := good(inClear)
		other.Protocol, other.Port = "pop3", 110
		o.see(t, good(inClear), day-3, name)
		o.see(t, other, day-3, name)
		o.see(t, good(), day-2, name)
		_, err := sender(t, o, p).Run(t.Context())
		noErr(t, err)
		mails := p.got()
		if len(mails) != 1 {
			t.Fatalf("%d mails", len(mails))
		}
		if text := mails[0].text; !strings.Contains(text, "pop.example.test") || strings.Contains(text, "imap.example.test") {
			t.Errorf("it lists\n%s", text)
		}
		o.see(t, good(), day-1, name)
		other.TLS, other.Entry = "1.3", "implicit"
		o.see(t, other, day-1, name)
		if run, err := sender(t, o, p).Run(t.Context()); err != nil || len(p.got()) != 1 {
			t.Errorf("%+v, %v, %d mails", run, err, len(p.got()))
		}
	})
}
