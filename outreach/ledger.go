package outreach

// What the ledger holds, and how it is asked.

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"
	"time"
)

// ledgerTables: the days are counts from 1970, 0 is none. There is no address of a client
// in any of them; crowd_member has a keyed hash of one for a week, see collectors.
const ledgerTables = `
CREATE TABLE IF NOT EXISTS account (
	id          INTEGER PRIMARY KEY,
	name        TEXT NOT NULL UNIQUE,
	told_day    INTEGER NOT NULL DEFAULT 0,
	told_action INTEGER NOT NULL DEFAULT 0,
	told_rule   TEXT NOT NULL DEFAULT '',
	bounced     INTEGER NOT NULL DEFAULT 0,
	call        INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS shape (
	id           INTEGER PRIMARY KEY,
	brand        TEXT NOT NULL,
	listener     TEXT NOT NULL,
	protocol     TEXT NOT NULL,
	port         INTEGER NOT NULL,
	entry        TEXT NOT NULL,
	tls          TEXT NOT NULL,
	cipher_class TEXT NOT NULL,
	host         TEXT NOT NULL,
	sni          TEXT NOT NULL,
	mechanism    TEXT NOT NULL,
	user_form    TEXT NOT NULL,
	class        TEXT NOT NULL,
	program      TEXT NOT NULL,
	network      TEXT NOT NULL,
	UNIQUE (brand, listener, protocol, port, entry, tls, cipher_class, host, sni, mechanism, user_form, class, program, network)
);
CREATE TABLE IF NOT EXISTS seen (
	account INTEGER NOT NULL,
	shape   INTEGER NOT NULL,
	day     INTEGER NOT NULL,
	n       INTEGER NOT NULL,
	PRIMARY KEY (account, shape, day)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS collected (
	account INTEGER NOT NULL,
	shape   INTEGER NOT NULL,
	PRIMARY KEY (account, shape)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS crowd (
	day    INTEGER NOT NULL PRIMARY KEY,
	secret TEXT NOT NULL,
	made   INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS crowd_member (
	day     INTEGER NOT NULL,
	crowd   INTEGER NOT NULL,
	account INTEGER NOT NULL,
	shape   INTEGER NOT NULL,
	PRIMARY KEY (day, crowd, account, shape)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS others (
	day       INTEGER NOT NULL,
	protocol  TEXT NOT NULL,
	tls       TEXT NOT NULL,
	mechanism TEXT NOT NULL,
	n         INTEGER NOT NULL,
	PRIMARY KEY (day, protocol, tls, mechanism)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS totals (
	day       INTEGER NOT NULL,
	brand     TEXT NOT NULL,
	protocol  TEXT NOT NULL,
	entry     TEXT NOT NULL,
	tls       TEXT NOT NULL,
	mechanism TEXT NOT NULL,
	class     TEXT NOT NULL,
	accounts  INTEGER NOT NULL,
	sessions  INTEGER NOT NULL,
	PRIMARY KEY (day, brand, protocol, entry, tls, mechanism, class)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS source (
	kind     TEXT NOT NULL,
	identity TEXT NOT NULL,
	place    INTEGER NOT NULL,
	PRIMARY KEY (kind, identity)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS audit (
	id     INTEGER PRIMARY KEY,
	time   TEXT NOT NULL,
	who    TEXT NOT NULL,
	what   TEXT NOT NULL,
	detail TEXT NOT NULL
);
`

// ErrUnknown is the error about an account that is not in the ledger.
var ErrUnknown = errors.New("the ledger does not know this account")

// shapeColumns are those of table shape, in the order of [Shape.fields].
const shapeColumns = "brand, listener, protocol, port, entry, tls, cipher_class, host, sni, mechanism, user_form, class, program, network"

func (s *Shape) fields() []any {
	return []any{&s.Brand, &s.Listener, &s.Protocol, &s.Port, &s.Entry, &s.TLS, &s.CipherClass, &s.Host, &s.SNI, &s.Mechanism, &s.UserForm,
		(*string)(&s.Class), &s.Program, &s.Network}
}

// compare puts shapes into an order that does not depend on when each was first seen.
func (s *Shape) compare(o *Shape) int {
	return cmp.Or(
		cmp.Compare(s.Brand, o.Brand), cmp.Compare(s.Protocol, o.Protocol), cmp.Compare(s.Class, o.Class), cmp.Compare(s.Program, o.Program),
		cmp.Compare(s.Port, o.Port), cmp.Compare(s.Entry, o.Entry), cmp.Compare(s.TLS, o.TLS), cmp.Compare(s.CipherClass, o.CipherClass),
		cmp.Compare(s.Mechanism, o.Mechanism), cmp.Compare(s.Host, o.Host), cmp.Compare(s.SNI, o.SNI), cmp.Compare(s.UserForm, o.UserForm),
		cmp.Compare(s.Listener, o.Listener), cmp.Compare(s.Network, o.Network))
}

// pageOf is how many accounts are in memory at a time while all are read. Between two pages no
// transaction is open, so that a slow reader is in nobody's way.
const pageOf = 1000

// Accounts gives all accounts by name, with what was seen of them from a day on; those of
// which nothing was seen since have no uses. Each is the caller's to keep. After an error there is no more.
func (l *Ledger) Accounts(ctx context.Context, from Day) iter.Seq2[*Account, error] {
	return func(yield func(*Account, error) bool) {
		shapes := map[int64]*Shape{}
		for after, more := "", true; more; {
			var page []*Account
			err := l.view(ctx, func(t *tx) (err error) {
				page, err = t.accounts(shapes, from, "WHERE name > $1 ORDER BY name LIMIT "+strconv.Itoa(pageOf), after)
				return err
			})
			if err != nil {
				yield(nil, fmt.Errorf("reading the ledger: %w", err))
				return
			}
			for _, a := range page {
				if !yield(a, nil) {
					return
				}
				after = a.Name
			}
			more = len(page) == pageOf
		}
	}
}

// Account gives what is known of one.
func (l *Ledger) Account(ctx context.Context, name string) (*Account, error) {
	var found []*Account
	if err := l.view(ctx, func(t *tx) (err error) {
		found, err = t.accounts(map[int64]*Shape{}, 0, "WHERE name = $1", name)
		return err
	}); err != nil {
		return nil, fmt.Errorf("reading the ledger: %w", err)
	}
	if len(found) == 0 {
		return nil, ErrUnknown
	}
	return found[0], nil
}

// accounts reads the accounts that a condition names, in its order. Shapes are read once.
func (t *tx) accounts(shapes map[int64]*Shape, from Day, where string, args ...any) ([]*Account, error) {
	var all []*Account
	byID := map[int64]*Account{}
	var ids []int64
	if err := t.each(func(rows *sql.Rows) error {
		var id int64
		a := new(Account)
		if err := rows.Scan(&id, &a.Name, &a.Told.Day, &a.Told.Action, &a.Told.Rule, &a.Bounced, &a.Call); err != nil {
			return err
		}
		all, ids, byID[id] = append(all, a), append(ids, id), a
		return nil
	}, "SELECT id, name, told_day, told_action, told_rule, bounced, call FROM account "+where, args...); err != nil || len(all) == 0 {
		return nil, err
	}
	slices.Sort(ids)
	type pair struct{ account, shape int64 }
	collected := map[pair]bool{}
	uses := map[pair]*Use{}
	var order []pair
	for some := range slices.Chunk(ids, 500) {
		list := "(" + joined(some) + ")"
		if err := t.each(func(rows *sql.Rows) error {
			var p pair
			err := rows.Scan(&p.account, &p.shape)
			collected[p] = true
			return err
		}, "SELECT account, shape FROM collected WHERE account IN "+list); err != nil {
			return nil, err
		}
		if err := t.each(func(rows *sql.Rows) error {
			var p pair
			var d DayCount
			if err := rows.Scan(&p.account, &p.shape, &d.Day, &d.Sessions); err != nil {
				return err
			}
			u := uses[p]
			if u == nil {
				u = &Use{Collector: collected[p]}
				uses[p], order = u, append(order, p)
			}
			u.Days = append(u.Days, d)
			return nil
		}, "SELECT account, shape, day, n FROM seen WHERE account IN "+list+" AND day >= $1 ORDER BY account, shape, day", from); err != nil {
			return nil, err
		}
	}
	if err := t.shapes(shapes, func(yield func(int64) bool) {
		for _, p := range order {
			if shapes[p.shape] == nil && !yield(p.shape) {
				return
			}
		}
	}); err != nil {
		return nil, err
	}
	for _, p := range order {
		u, a := uses[p], byID[p.account]
		u.Shape = *shapes[p.shape]
		a.Uses = append(a.Uses, *u)
	}
	for _, a := range all {
		slices.SortFunc(a.Uses, func(x, y Use) int { return x.Shape.compare(&y.Shape) })
	}
	return all, nil
}

// joined lists ids for a statement. They are numbers, so they need no arguments.
func joined(ids []int64) string {
	var b strings.Builder
	for i, id := range ids {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.FormatInt(id, 10))
	}
	return b.String()
}

// shapes reads those that are missing.
func (t *tx) shapes(known map[int64]*Shape, missing iter.Seq[int64]) error {
	ids := slices.Compact(slices.Sorted(missing))
	for some := range slices.Chunk(ids, 500) {
		if err := t.each(func(rows *sql.Rows) error {
			var id int64
			s := new(Shape)
			if err := rows.Scan(append([]any{&id}, s.fields()...)...); err != nil {
				return err
			}
			known[id] = s
			return nil
		}, "SELECT id, "+shapeColumns+" FROM shape WHERE id IN ("+joined(some)+")"); err != nil {
			return err
		}
	}
	for _, id := range ids {
		if known[id] == nil {
			return fmt.Errorf("the ledger is damaged: there is no shape %d", id)
		}
	}
	return nil
}

// Size is how much there is: accounts, and the first and the last day of which there are sessions; 0 where
// there are none.
func (l *Ledger) Size(ctx context.Context) (accounts int, first, last Day, err error) {
	err = l.view(ctx, func(t *tx) error {
		if _, err := t.one([]any{&accounts}, "SELECT COUNT(*) FROM account"); err != nil {
			return err
		}
		_, err := t.one([]any{&first, &last}, "SELECT COALESCE(MIN(day), 0), COALESCE(MAX(day), 0) FROM seen")
		return err
	})
	return accounts, first, last, err
}

// AuditEntry is something that was done with data of customers.
type AuditEntry struct {
	Time   time.Time `json:"time"`
	Who    string    `json:"who"`
	What   string    `json:"what"`
	Detail string    `json:"detail"`
}

// Audit writes down that something was done, by [Options.Who].
func (l *Ledger) Audit(ctx context.Context, what, detail string) error {
	if err := l.tx(ctx, func(t *tx) error { return t.audit(what, detail) }); err != nil {
		return fmt.Errorf("writing the audit: %w", err)
	}
	return nil
}

// audit is [Ledger.Audit] in a transaction.
func (t *tx) audit(what, detail string) error {
	_, err := t.exec("INSERT INTO audit (time, who, what, detail) VALUES ($1, $2, $3, $4)",
		time.Now().UTC().Format(time.RFC3339), t.l.opt.Who, what, detail) // not the clock of a rehearsal: this is a proof
	return err
}

// Audited gives what was written down, the oldest first.
func (l *Ledger) Audited(ctx context.Context) (all []AuditEntry, err error) {
	err = l.view(ctx, func(t *tx) (err error) {
		all, err = t.audited()
		return err
	})
	return all, err
}

// audited is [Ledger.Audited] in a transaction.
func (t *tx) audited() (all []AuditEntry, err error) {
	err = t.each(func(rows *sql.Rows) error {
		var e AuditEntry
		var at string
		err := rows.Scan(&at, &e.Who, &e.What, &e.Detail)
		e.Time, _ = time.Parse(time.RFC3339, at) // written above
		all = append(all, e)
		return err
	}, "SELECT time, who, what, detail FROM audit ORDER BY id")
	return all, err
}
