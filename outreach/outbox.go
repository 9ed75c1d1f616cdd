package outreach

// The outbox: one row for each notice that was begun. A row is the lock on its notice, the
// memory of what became of it, and the measure of how fast is sent, so all of that holds over
// crashes, restarts and several senders.
//
// # The life of a notice
//
//	claimed    somebody works at it; nothing has been handed over. When its lease is over,
//	           or whoever had it is dead, anybody may begin anew
//	handing    written immediately before the final dot. From here on nobody but the
//	           server knows whether there is a mail
//	sent       the server has it, and gave it a queue id
//	failed     the server refused it for good
//	doubt      it was handing, and nobody is there any more who could hear the answer.
//	           It is reported and never sent again by itself
//	skipped    on looking again there was nothing to tell any more
//	bounced    it was sent, and came back
//
// A server that answers the final dot with a temporary failure has not taken the
// message (RFC 5321 section 4.2.5), so the notice is claimed again, by nobody, for later.

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"mailreeve/config"
)

// outboxTables: instants are milliseconds since 1970, 0 is never.
const outboxTables = `
CREATE TABLE IF NOT EXISTS notice (
	campaign   TEXT NOT NULL,
	account    TEXT NOT NULL,
	series     INTEGER NOT NULL,
	step       INTEGER NOT NULL,
	date       INTEGER NOT NULL,
	state      TEXT NOT NULL,
	changed    INTEGER NOT NULL,
	owner      TEXT NOT NULL,
	until      INTEGER NOT NULL,
	slot       INTEGER NOT NULL,
	handed     INTEGER NOT NULL,
	tries      INTEGER NOT NULL,
	number     TEXT NOT NULL,
	message_id TEXT NOT NULL,
	token      TEXT NOT NULL,
	queue      TEXT NOT NULL,
	said       TEXT NOT NULL,
	note       TEXT NOT NULL,
	PRIMARY KEY (campaign, account, series, step)
);
CREATE INDEX IF NOT EXISTS notice_slot ON notice (slot);
CREATE INDEX IF NOT EXISTS notice_handed ON notice (handed);
CREATE INDEX IF NOT EXISTS notice_state ON notice (state);
CREATE INDEX IF NOT EXISTS notice_number ON notice (number);
CREATE UNIQUE INDEX IF NOT EXISTS notice_message ON notice (message_id);
CREATE UNIQUE INDEX IF NOT EXISTS notice_token ON notice (token);
CREATE TABLE IF NOT EXISTS stopped (
	campaign TEXT NOT NULL PRIMARY KEY,
	since    INTEGER NOT NULL,
	who      TEXT NOT NULL,
	reason   TEXT NOT NULL
);
`

// NoticeState is what became of a notice.
type NoticeState string

// The states; see above.
const (
	StateClaimed NoticeState = "claimed"
	StateHanding NoticeState = "handing"
	StateSent    NoticeState = "sent"
	StateFailed  NoticeState = "failed"
	StateDoubt   NoticeState = "doubt"
	StateSkipped NoticeState = "skipped"
	StateBounced NoticeState = "bounced"
)

// told reports whether the account may have the mail.
func (s NoticeState) told() bool {
	return s == StateHanding || s == StateSent || s == StateDoubt || s == StateBounced
}

// Past is of a notice what the plan has to know.
type Past struct {
	Series int         `json:"series"`
	Step   int         `json:"step"`
	Date   Day         `json:"date,omitzero"` // from when on the account was to be refused; 0: no such day
	Day    Day         `json:"day,omitzero"`  // on which it was handed over, or else last tried
	State  NoticeState `json:"state"`
	Until  time.Time   `json:"-"` // of a claimed one: until when nobody else begins
}

// Notice is one mail to an account.
type Notice struct {
	Account string `json:"account"`
	Past
	Changed   time.Time `json:"changed"`
	Tries     int       `json:"tries"`
	Case      string    `json:"case"`
	MessageID string    `json:"message_id"`
	Queue     string    `json:"queue,omitempty"` // the server's queue id
	Said      string    `json:"said,omitempty"`  // what the server said last, or why it was skipped
	Note      string    `json:"note,omitempty"`  // what came back: a delay, an absence note

	owner    string
	token    string
	handedAt int64 // milliseconds; where nothing was handed over, the last change
}

// Key is the notice's place in the campaign.
func (n *Notice) Key() Key { return Key{n.Account, n.Series, n.Step} }

// Token is what tells its bounces, and its lines in a server's log.
func (n *Notice) Token() string { return n.token }

// Marks makes the numbers of this ledger's notices.
func (l *Ledger) Marks() Marks { return Marks{l.secret, l.opt.Campaign} }

const (
	claimLease   = 10 * time.Minute // from the claim to the final dot; a sender that is slower finds that it lost the claim
	handingLease = 20 * time.Minute // RFC 5321 section 4.5.3.2.6: 10 minutes for the answer to the final dot
)

// Stop is why nothing is sent.
type Stop struct {
	Since  time.Time `json:"since"`
	Who    string    `json:"who"`
	Reason string    `json:"reason"`
}

// turn is the answer to who wants to send a notice.
type turn struct {
	notice  *Notice   // it is his
	wait    time.Time // there is no room before
	full    bool      // nor today
	stopped *Stop     // nor until somebody resumes
	taken   bool      // it is another's, or done
}

// limits are how many notices may leave.
type limits struct {
	minute, hour, day int
	midnight          func(time.Time) time.Time
}

func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

// claim begins a notice, if there is room for one and nobody else has it.
func (l *Ledger) claim(ctx context.Context, k Key, date Day, domain, owner string, most limits) (answer turn, err error) {
	m := l.Marks()
	err = l.tx(ctx, func(t *tx) error {
		answer = turn{}
		now := l.opt.Now()
		if answer.stopped, err = t.stopped(); err != nil || answer.stopped != nil {
			return err
		}
		if answer.wait, answer.full, err = t.room(now, most); err != nil || answer.full || !answer.wait.IsZero() {
			return err
		}
		// An account that was forgotten since the plan was made must not come back as a row here.
		var there int
		if known, err := t.one([]any{&there}, "SELECT 1 FROM account WHERE name = $1", k.Account); err != nil || !known {
			answer.taken = true
			return err
		}
		n, err := t.exec(`INSERT INTO notice (campaign, account, series, step, date, state, changed, owner, until, slot, handed, tries, number, message_id, token, queue, said, note)
			VALUES ($1, $2, $3, $4, $5, 'claimed', $6, $7, $8, $6, 0, 0, $9, $10, $11, '', '', '')
			ON CONFLICT (campaign, account, series, step) DO UPDATE
			SET state = 'claimed', date = excluded.date, changed = excluded.changed, owner = excluded.owner, until = excluded.until, slot = excluded.slot, said = ''
			WHERE notice.state IN ('claimed', 'skipped') AND notice.until <= excluded.changed`,
			m.Campaign, k.Account, k.Series, k.Step, date, now.UnixMilli(), owner, now.Add(claimLease).UnixMilli(),
			m.Case(k.Account), m.MessageID(k, domain), m.Token(k))
		if err != nil {
			return err
		}
		if answer.taken = n == 0; answer.taken {
			return nil
		}
		answer.notice, err = t.notice(k)
		return err
	})
	if err != nil {
		return turn{}, fmt.Errorf("claiming a notice: %w", err)
	}
	return answer, nil
}

// room reports when there is room for another notice: what leaves a window makes room in it.
// Attempts count in a minute and in an hour, for the server's sake; of a day only what may
// have arrived, for the hotline's.
func (t *tx) room(now time.Time, most limits) (wait time.Time, full bool, err error) {
	for _, w := range []struct {
		length time.Duration
		most   int
	}{{time.Minute, most.minute}, {time.Hour, most.hour}} {
		var slot int64
		// A clock that was put back may have left slots in the future; none counts for longer than its window.
		found, err := t.one([]any{&slot}, "SELECT slot FROM notice WHERE slot > $1 AND slot <= $2 ORDER BY slot DESC LIMIT 1 OFFSET "+strconv.Itoa(w.most-1),
			now.Add(-w.length).UnixMilli(), now.Add(w.length).UnixMilli())
		if err != nil {
			return wait, false, err
		}
		if at := time.UnixMilli(slot).Add(w.length); found && at.After(wait) {
			wait = at
		}
	}
	today, err := t.today(now, most.midnight(now))
	return wait, today >= most.day, err
}

// today counts what may arrive on the day that began at midnight.
func (t *tx) today(now, midnight time.Time) (n int, err error) {
	for _, q := range []struct {
		query string
		arg   time.Time
	}{
		{"SELECT COUNT(*) FROM notice WHERE handed >= $1 AND state IN ('handing', 'sent', 'doubt', 'bounced')", midnight},
		{"SELECT COUNT(*) FROM notice WHERE state = 'claimed' AND owner <> '' AND until > $1", now},
	} {
		var some int
		if _, err := t.one([]any{&some}, q.query, q.arg.UnixMilli()); err != nil {
			return 0, err
		}
		n += some
	}
	return n, nil
}

// SentToday is how much of the day's budget is used.
func (l *Ledger) SentToday(ctx context.Context, o *Office) (n int, err error) {
	err = l.view(ctx, func(t *tx) error {
		now := l.opt.Now()
		n, err = t.today(now, o.midnight(now))
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("counting what was sent today: %w", err)
	}
	return n, nil
}

// errLost is what a sender meets whose claim is another's by now.
var errLost = errors.New("the claim on the notice is lost")

// ErrStopped is the error of a sender that was stopped in the middle of a mail.
var ErrStopped = errors.New("sending was stopped")

// handing is the last thing before the final dot.
func (l *Ledger) handing(ctx context.Context, n *Notice) error {
	return l.tx(ctx, func(t *tx) error {
		if stop, err := t.stopped(); err != nil {
			return err
		} else if stop != nil {
			return ErrStopped
		}
		now := l.opt.Now()
		return t.own(n, "state = 'claimed'", "state = 'handing', handed = $6, changed = $6, until = $7", now.UnixMilli(), now.Add(handingLease).UnixMilli())
	})
}

// own changes a notice that is still its owner's.
func (t *tx) own(n *Notice, while, set string, args ...any) error {
	changed, err := t.exec("UPDATE notice SET "+set+" WHERE campaign = $1 AND account = $2 AND series = $3 AND step = $4 AND owner = $5 AND "+while,
		append([]any{t.l.opt.Campaign, n.Account, n.Series, n.Step, n.owner}, args...)...)
	if err == nil && changed == 0 {
		return errLost
	}
	return err
}

// settle writes down what became of a notice. A doubt that another declared meanwhile is
// none any more: the owner knows.
func (l *Ledger) settle(ctx context.Context, n *Notice, state NoticeState, queue, said string) error {
	while := "state IN ('claimed', 'handing', 'doubt')"
	if state == StateSkipped {
		while = "state = 'claimed'"
	}
	return l.tx(ctx, func(t *tx) error {
		return t.own(n, while, "state = $6, changed = $7, until = 0, queue = $8, said = $9", string(state), l.opt.Now().UnixMilli(), queue, said)
	})
}

// putOff gives a notice back: nothing was handed over, or the server has said that it did not take it.
func (l *Ledger) putOff(ctx context.Context, n *Notice, until time.Time, tried bool, said string) error {
	return l.tx(ctx, func(t *tx) error {
		try := 0
		if tried {
			try = 1
		}
		return t.own(n, "state IN ('claimed', 'handing', 'doubt')", "state = 'claimed', owner = '', handed = 0, changed = $6, until = $7, tries = tries + $8, said = $9",
			l.opt.Now().UnixMilli(), millis(until), try, said)
	})
}

// forgotten removes the notice of an account that was forgotten between the claim and now.
func (l *Ledger) forgotten(ctx context.Context, n *Notice) error {
	return l.tx(ctx, func(t *tx) error {
		_, err := t.exec("DELETE FROM notice WHERE campaign = $1 AND account = $2", l.opt.Campaign, n.Account)
		return err
	})
}

// recover looks after what senders left that are not there any more: what they had claimed is
// free, what they were handing over is in doubt.
func (l *Ledger) recover(ctx context.Context, dead func(owner string) bool) (doubts int, err error) {
	err = l.tx(ctx, func(t *tx) error {
		doubts = 0
		var left []Notice
		if err := t.each(func(rows *sql.Rows) error {
			n, err := scanNotice(rows)
			left = append(left, n)
			return err
		}, "SELECT "+noticeColumns+" FROM notice WHERE state IN ('claimed', 'handing') AND owner <> ''"); err != nil {
			return err
		}
		now := l.opt.Now()
		for i := range left {
			n := &left[i]
			if n.Until.After(now) && !dead(n.owner) {
				continue
			}
			if n.State == StateClaimed {
				err = t.own(n, "state = 'claimed'", "owner = '', until = 0, changed = $6", now.UnixMilli())
			} else {
				doubts++
				// The owner stays: should he be alive after all, he may still say what he heard.
				err = t.own(n, "state = 'handing'", "state = 'doubt', until = 0, changed = $6, said = $7", now.UnixMilli(), "the sender ended before it heard the answer")
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("looking for notices that were left: %w", err)
	}
	return doubts, nil
}

// stopped is the stop in force, or nil.
func (t *tx) stopped() (*Stop, error) {
	var since int64
	s := new(Stop)
	found, err := t.one([]any{&since, &s.Who, &s.Reason}, "SELECT since, who, reason FROM stopped WHERE campaign = $1", t.l.opt.Campaign)
	if err != nil || !found {
		return nil, err
	}
	s.Since = time.UnixMilli(since)
	return s, nil
}

// Stopped is the stop in force, or nil.
func (l *Ledger) Stopped(ctx context.Context) (s *Stop, err error) {
	err = l.view(ctx, func(t *tx) (err error) {
		s, err = t.stopped()
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("asking whether sending is stopped: %w", err)
	}
	return s, nil
}

// Stop ends all sending, also that of senders under way: before their next final dot. Where it
// is stopped already that is returned, and its reason stays unless another is to replace it.
func (l *Ledger) Stop(ctx context.Context, reason string, replace bool) (was *Stop, err error) {
	err = l.tx(ctx, func(t *tx) (err error) {
		if was, err = t.stopped(); err != nil {
			return err
		}
		what := "stop"
		switch {
		case was != nil && !replace:
			what = "stopped already"
		case was != nil:
			_, err = t.exec("UPDATE stopped SET who = $2, reason = $3 WHERE campaign = $1", l.opt.Campaign, l.opt.Who, reason)
		default: // another may have been faster
			_, err = t.exec("INSERT INTO stopped (campaign, since, who, reason) VALUES ($1, $2, $3, $4) ON CONFLICT (campaign) DO NOTHING",
				l.opt.Campaign, l.opt.Now().UnixMilli(), l.opt.Who, reason)
		}
		if err != nil {
			return err
		}
		return t.audit(what, reason)
	})
	if err != nil {
		return nil, fmt.Errorf("stopping: %w", err)
	}
	return was, nil
}

// Resume lets notices be sent again. It returns the stop that was in force, or nil.
func (l *Ledger) Resume(ctx context.Context) (was *Stop, err error) {
	err = l.tx(ctx, func(t *tx) (err error) {
		if was, err = t.stopped(); err != nil || was == nil {
			return err
		}
		if _, err = t.exec("DELETE FROM stopped WHERE campaign = $1", l.opt.Campaign); err != nil {
			return err
		}
		return t.audit("resume", "stopped since "+was.Since.UTC().Format(time.RFC3339)+": "+was.Reason)
	})
	if err != nil {
		return nil, fmt.Errorf("resuming: %w", err)
	}
	return was, nil
}

const noticeColumns = "account, series, step, date, state, changed, owner, until, handed, tries, number, message_id, token, queue, said, note"

func scanNotice(rows *sql.Rows) (n Notice, err error) {
	var state string
	var changed, until, handed int64
	err = rows.Scan(&n.Account, &n.Series, &n.Step, &n.Date, &state, &changed, &n.owner, &until, &handed, &n.Tries, &n.Case, &n.MessageID, &n.token, &n.Queue, &n.Said, &n.Note)
	n.State, n.Changed = NoticeState(state), time.UnixMilli(changed)
	if until != 0 {
		n.Until = time.UnixMilli(until)
	}
	n.handedAt = changed
	if handed != 0 {
		n.handedAt = handed
	}
	return n, err
}

// Handed is when it was handed over; where it was not, when it last changed.
func (n *Notice) Handed() time.Time { return time.UnixMilli(n.handedAt) }

// notice reads one.
func (t *tx) notice(k Key) (*Notice, error) {
	all, err := t.notices("campaign = $1 AND account = $2 AND series = $3 AND step = $4", t.l.opt.Campaign, k.Account, k.Series, k.Step)
	if err != nil || len(all) == 0 {
		return nil, errors.Join(err, errLost)
	}
	return &all[0], nil
}

// notices reads those that a condition names, in the order of their steps.
func (t *tx) notices(where string, args ...any) (all []Notice, err error) {
	err = t.each(func(rows *sql.Rows) error {
		n, err := scanNotice(rows)
		n.Day = DayOf(time.UnixMilli(n.handedAt), t.l.opt.Zone)
		all = append(all, n)
		return err
	}, "SELECT "+noticeColumns+" FROM notice WHERE "+where+" ORDER BY account, series, step", args...)
	return all, err
}

// Notices are those of an account, in the order of their steps.
func (l *Ledger) Notices(ctx context.Context, account string) (all []Notice, err error) {
	err = l.view(ctx, func(t *tx) error {
		all, err = t.notices("account = $1", account)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("reading notices: %w", err)
	}
	return all, nil
}

// Pasts are what the plan has to know of all notices, by account.
func (l *Ledger) Pasts(ctx context.Context) (map[string][]Past, error) {
	all := map[string][]Past{}
	states := map[string]NoticeState{}
	err := l.view(ctx, func(t *tx) error {
		return t.each(func(rows *sql.Rows) error {
			var p Past
			var account, state string
			var changed, handed, until int64
			if err := rows.Scan(&account, &p.Series, &p.Step, &p.Date, &state, &changed, &handed, &until); err != nil {
				return err
			}
			if states[state] == "" {
				states[state] = NoticeState(state) // one text for all
			}
			p.State = states[state]
			if handed == 0 {
				handed = changed
			}
			p.Day = DayOf(time.UnixMilli(handed), l.opt.Zone)
			if until != 0 {
				p.Until = time.UnixMilli(until)
			}
			all[account] = append(all[account], p)
			return nil
		}, "SELECT account, series, step, date, state, changed, handed, until FROM notice")
	})
	if err != nil {
		return nil, fmt.Errorf("reading notices: %w", err)
	}
	return all, nil
}

// OfCase are the accounts with a case number: mostly one, and none before the first notice.
func (l *Ledger) OfCase(ctx context.Context, number string) (accounts []string, err error) {
	err = l.view(ctx, func(t *tx) error {
		all, err := t.notices("number = $1", number)
		for _, n := range all {
			accounts = append(accounts, n.Account)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("looking for a case: %w", err)
	}
	return slices.Compact(accounts), nil
}

// Doubts are the notices of which nobody knows whether they were sent.
func (l *Ledger) Doubts(ctx context.Context) (all []Notice, err error) {
	err = l.view(ctx, func(t *tx) error {
		all, err = t.notices("state = 'doubt'")
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("reading notices in doubt: %w", err)
	}
	return all, nil
}

// Unsent are the notices that the server refused for good.
func (l *Ledger) Unsent(ctx context.Context) (all []Notice, err error) {
	err = l.view(ctx, func(t *tx) error {
		all, err = t.notices("state = 'failed'")
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("reading notices that were refused: %w", err)
	}
	return all, nil
}

// Recover is to be called before doubts are listed: it finds those of senders that are dead.
func (l *Ledger) Recover(ctx context.Context) (doubts int, err error) { return l.recover(ctx, dead) }

// SettleAsSent ends a doubt: there is a mail, as the server's log or a person says.
func (l *Ledger) SettleAsSent(ctx context.Context, n *Notice, queue, why string) error {
	return l.decide(ctx, n, "doubt settled: sent", why, "state = 'sent', queue = $6, said = $7", queue, why)
}

// SettleAsUnsent ends a doubt: there is no mail, so one may be sent.
func (l *Ledger) SettleAsUnsent(ctx context.Context, n *Notice, why string) error {
	return l.decide(ctx, n, "doubt settled: to be sent again", why, "state = 'claimed', owner = '', until = 0, handed = 0, queue = $6, said = $7", "", why)
}

// decide ends a doubt, and the end of a notice that the server refused.
func (l *Ledger) decide(ctx context.Context, n *Notice, what, why, set string, queue, said string) error {
	err := l.tx(ctx, func(t *tx) error {
		changed, err := t.exec("UPDATE notice SET changed = $8, "+set+" WHERE campaign = $1 AND account = $2 AND series = $3 AND step = $4 AND state = $5",
			l.opt.Campaign, n.Account, n.Series, n.Step, string(n.State), queue, said, l.opt.Now().UnixMilli())
		if err != nil {
			return err
		}
		if changed == 0 {
			return fmt.Errorf("%s to %s is not in the state %s any more", StepName(n.Step), n.Account, n.State)
		}
		return t.audit(what, fmt.Sprintf("%s to %s: %s", StepName(n.Step), n.Account, why))
	})
	if err != nil {
		return fmt.Errorf("settling a notice: %w", err)
	}
	return nil
}

// SetCall notes that a customer is called and gets no notices, or that he gets them again.
func (l *Ledger) SetCall(ctx context.Context, account string, call bool) error {
	return l.mark(ctx, account, "call", call, map[bool]string{true: "call instead of notices", false: "notices again"}[call])
}

// ClearBounce lets an account have notices again after one came back.
func (l *Ledger) ClearBounce(ctx context.Context, account string) error {
	return l.mark(ctx, account, "bounced", false, "bounce cleared")
}

// mark sets a day of an account to today, or to none.
func (l *Ledger) mark(ctx context.Context, account, column string, set bool, what string) error {
	day := Day(0)
	if set {
		day = l.today()
	}
	err := l.tx(ctx, func(t *tx) error {
		changed, err := t.exec("UPDATE account SET "+column+" = $1 WHERE name = $2", day, account)
		if err != nil {
			return err
		}
		if changed == 0 {
			return ErrUnknown
		}
		return t.audit(what, account)
	})
	if err != nil {
		return fmt.Errorf("marking an account: %w", err)
	}
	return nil
}

// owner is a name for this sender by which others on this machine can tell whether it is
// still there.
func owner(nonce string) string {
	return strings.Join([]string{machine(), strconv.Itoa(os.Getpid()), started(os.Getpid()), nonce}, " ")
}

// dead reports whether an owner is certainly not there any more. Of another machine
// nobody knows, and the lease must run out.
func dead(owner string) bool {
	part := strings.Split(owner, " ")
	if len(part) != 4 || part[0] == "" || part[0] != machine() {
		return false
	}
	pid, err := strconv.Atoi(part[1])
	return err == nil && part[2] != "" && started(pid) != part[2]
}

// machine names this start of this system, and what processes see of each other on it;
// empty where that cannot be known.
func machine() string {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	space, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(boot)) + "/" + space
}

// started is when a process began, in ticks of the kernel; empty where there is none. It tells
// a process from a later one with the same number.
func started(pid int) string {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return ""
	}
	// The name in brackets may hold anything, so what is counted begins behind it (proc_pid_stat(5), field 22).
	at := strings.LastIndexByte(string(stat), ')')
	fields := strings.Fields(string(stat[at+1:]))
	if len(fields) < 20 || fields[0] == "Z" { // who waits to be reaped is dead
		return ""
	}
	return fields[19]
}

// limitsOf are those of a configuration.
func limitsOf(n *config.Notices, o *Office) limits {
	return limits{minute: n.PerMinute, hour: n.PerHour, day: n.PerDay, midnight: o.midnight}
}
