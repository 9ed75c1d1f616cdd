package outreach

// What goes: by the clock, and because somebody asks for it.

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// KeptAfterEnd is for how many days after the end of its campaign the ledger knows accounts.
const KeptAfterEnd = 90

// crowdKept is for how many days the hashes of addresses are kept, and the keys to them.
const crowdKept = 7

// clockLeap is for how many days nobody may have looked at the ledger, if accounts are to be deleted at once. After
// more a machine's clock may have leapt, which would take all that is known for ever, and
// have everybody told anew; so another day must say the same.
const clockLeap = 7

// ended reports whether the campaign's accounts are not to be kept any longer.
func (l *Ledger) ended(today Day) bool { return l.opt.End != 0 && today > l.opt.End+KeptAfterEnd }

// Expired is what was deleted because its time had come.
type Expired struct {
	Accounts int64 // because the campaign is over
	Crowds   int64 // days whose hashes of addresses went
}

// Expire deletes what may not be kept any longer. It is done at each opening, and as days begin
// in [Intake.Follow]; a program that runs on without that does it daily. Under a clock of a rehearsal nothing is
// deleted before its time, and an end that was set today lets nobody be deleted before
// tomorrow: it may be a slip of the pen. The same holds of a clock that is weeks further than yesterday's.
func (l *Ledger) Expire(ctx context.Context) (Expired, error) {
	now := l.opt.Now()
	if real := time.Now(); now.After(real) {
		now = real
	}
	today := DayOf(now, l.opt.Zone)
	var gone Expired
	if err := l.tx(ctx, func(t *tx) (err error) {
		gone = Expired{}
		if _, err = t.exec("DELETE FROM crowd_member WHERE day IN (SELECT day FROM crowd WHERE made <= $1)", int64(today-crowdKept)); err != nil {
			return err
		}
		if gone.Crowds, err = t.exec("DELETE FROM crowd WHERE made <= $1", int64(today-crowdKept)); err != nil {
			return err
		}
		meta, err := t.meta()
		if err != nil {
			return err
		}
		looked, _ := ParseDay(meta["looked"]) // none is long ago
		met, _ := ParseDay(meta["end_met"])
		ended := l.ended(today)
		switch {
		case !ended && met != 0: // the clock is right again
			err = t.setMeta("end_met", "")
		case ended && met == 0:
			err = t.setMeta("end_met", today.String())
		}
		if err == nil && looked != today {
			err = t.setMeta("looked", today.String())
		}
		leapt := met == 0 && today-looked > clockLeap || met >= today
		if err != nil || !ended || leapt {
			return err
		}
		if known, err := ParseDay(meta["end_known"]); err != nil || known >= today {
			return err
		}
		gone.Accounts, err = t.end()
		return err
	}); err != nil {
		return Expired{}, fmt.Errorf("deleting what is not to be kept any longer: %w", err)
	}
	if gone != (Expired{}) {
		l.tidy(ctx)
	}
	return gone, nil
}

// end deletes all accounts, and keeps counts.
func (t *tx) end() (accounts int64, err error) {
	var n int64
	if _, err := t.one([]any{&n}, "SELECT COUNT(*) FROM account"); err != nil || n == 0 {
		return 0, err
	}
	const columns = "s.day, h.brand, h.protocol, h.entry, h.tls, h.mechanism, h.class"
	if _, err := t.exec(`INSERT INTO totals (day, brand, protocol, entry, tls, mechanism, class, accounts, sessions)
		SELECT ` + columns + `, COUNT(DISTINCT s.account), SUM(s.n) FROM seen s JOIN shape h ON h.id = s.shape WHERE true GROUP BY ` + columns + `
		ON CONFLICT (day, brand, protocol, entry, tls, mechanism, class) DO UPDATE
		SET accounts = totals.accounts + excluded.accounts, sessions = totals.sessions + excluded.sessions`); err != nil {
		return 0, err
	}
	// Shapes go too: an old server name may be that of a single customer. What was done is kept, with whom is not.
	for _, statement := range []string{"DELETE FROM seen", "DELETE FROM collected", "DELETE FROM crowd_member", "DELETE FROM crowd",
		"DELETE FROM notice", "DELETE FROM account", "DELETE FROM shape", "UPDATE audit SET detail = ''"} {
		if _, err := t.exec(statement); err != nil {
			return 0, err
		}
	}
	if err := t.audit("end", fmt.Sprintf("%d accounts deleted, %d days after the campaign", n, KeptAfterEnd)); err != nil {
		return 0, err
	}
	return n, t.deleted()
}

// deleted makes numbers of rows invalid that were remembered anywhere.
func (t *tx) deleted() error {
	meta, err := t.meta()
	if err != nil {
		return err
	}
	n, _ := strconv.Atoi(meta[generation]) // none is the first
	return t.setMeta(generation, strconv.Itoa(n+1))
}

// tidy takes what was deleted out of the files as well: SQLite still has it in its log. That
// needs a moment without readers, and fails without harm: the next one does it.
func (l *Ledger) tidy(ctx context.Context) {
	if l.postgres {
		return // its autovacuum does it
	}
	l.db.ExecContext(ctx, "PRAGMA wal_checkpoint(TRUNCATE)")
}

// Forget deletes all that is known of an account, its name in the audit included. That an account was forgotten
// stays, with a mark by which somebody who knows the name can see that it was this one.
func (l *Ledger) Forget(ctx context.Context, name string) error {
	if err := l.tx(ctx, func(t *tx) error {
		id, err := t.accountID(name)
		if err != nil {
			return err
		}
		var named []int64 // shapes with a server name, which may be a domain of his own
		if err := t.each(func(rows *sql.Rows) error {
			var shape int64
			err := rows.Scan(&shape)
			named = append(named, shape)
			return err
		}, "SELECT DISTINCT s.shape FROM seen s JOIN shape h ON h.id = s.shape WHERE s.account = $1 AND h.sni <> ''", id); err != nil {
			return err
		}
		for _, table := range []string{"seen", "collected", "crowd_member"} {
			if _, err := t.exec("DELETE FROM "+table+" WHERE account = $1", id); err != nil {
				return err
			}
		}
		if len(named) > 0 { // those that nobody else has
			list := "(" + joined(named) + ")"
			if _, err := t.exec("DELETE FROM shape WHERE id IN " + list + " AND id NOT IN (SELECT shape FROM seen WHERE shape IN " + list + ")"); err != nil {
				return err
			}
		}
		if _, err := t.exec("DELETE FROM account WHERE id = $1", id); err != nil {
			return err
		}
		if _, err := t.exec("DELETE FROM notice WHERE account = $1", name); err != nil {
			return err
		}
		mark := l.epitaph(name)
		details, err := t.details(name)
		if err != nil {
			return err
		}
		for id, detail := range details {
			if _, err := t.exec("UPDATE audit SET detail = $1 WHERE id = $2", replaceName(detail, name, mark), id); err != nil {
				return err
			}
		}
		if err := t.audit("forget", mark); err != nil {
			return err
		}
		return t.deleted()
	}); err != nil {
		return fmt.Errorf("forgetting an account: %w", err)
	}
	l.tidy(ctx)
	return nil
}

// epitaph stands for an account that was forgotten.
func (l *Ledger) epitaph(name string) string {
	mac := hmac.New(sha256.New, l.secret)
	mac.Write([]byte("forgotten\x00" + name))
	return "forgotten-" + hex.EncodeToString(mac.Sum(nil)[:6])
}

// accountID is the number of an account.
func (t *tx) accountID(name string) (id int64, err error) {
	found, err := t.one([]any{&id}, "SELECT id FROM account WHERE name = $1", name)
	if err == nil && !found {
		err = ErrUnknown
	}
	return id, err
}

// details are those of the audit that name an account, by their number.
func (t *tx) details(name string) (map[int64]string, error) {
	all := map[int64]string{}
	err := t.each(func(rows *sql.Rows) error {
		var id int64
		var detail string
		err := rows.Scan(&id, &detail)
		if namesAt(detail, name) >= 0 {
			all[id] = detail
		}
		return err
	}, "SELECT id, detail FROM audit WHERE detail <> ''")
	return all, err
}

// namesAt is where a text has a name as a word, in capitals or not; -1 where it has it not. That of
// johanna@example.org has not anna@example.org.
func namesAt(text, name string) int {
	part := func(r rune) bool {
		return unicode.IsLetter(r) || unicode.IsDigit(r) || strings.ContainsRune("@._+-", r)
	}
	for at := 0; at+len(name) <= len(text); at++ {
		if !strings.EqualFold(text[at:at+len(name)], name) {
			continue
		}
		before, _ := utf8.DecodeLastRuneInString(text[:at])
		after, size := utf8.DecodeRuneInString(text[at+len(name):])
		next, _ := utf8.DecodeRuneInString(text[at+len(name)+size:])
		ends := after != '.' || !part(next) // a full stop may end the sentence
		if (at == 0 || !part(before)) && (size == 0 || !part(after) || after == '.' && ends) {
			return at
		}
	}
	return -1
}

// replaceName puts a mark in place of a name.
func replaceName(text, name, mark string) string {
	var b strings.Builder
	for {
		at := namesAt(text, name)
		if at < 0 {
			return b.String() + text
		}
		b.WriteString(text[:at] + mark)
		text = text[at+len(name):]
	}
}

// Export is all that is held of an account.
type Export struct {
	Account   string           `json:"account"`
	Campaign  string           `json:"campaign"`
	Purpose   string           `json:"purpose"`
	DeletedOn Day              `json:"deleted_on,omitzero"` // at the latest
	Told      *ExportTold      `json:"last_told,omitempty"`
	Bounced   Day              `json:"notice_came_back,omitzero"`
	Call      Day              `json:"wants_a_call_since,omitzero"`
	Uses      []ExportUse      `json:"logins"`
	Crowds    []Day            `json:"address_hashed,omitempty"` // days of which a hash of an address is held, for a week
	Notices   []map[string]any `json:"notices"`
	Audit     []AuditEntry     `json:"audit"`
}

// ExportTold is what the proxy told it last.
type ExportTold struct {
	Day    Day    `json:"day"`
	Action string `json:"action"`
	Rule   string `json:"requirement"`
}

// ExportUse is a way in which it logged in.
type ExportUse struct {
	Brand       string      `json:"brand"`
	Listener    string      `json:"listener,omitempty"`
	Protocol    string      `json:"protocol"`
	Port        int         `json:"port,omitempty"`
	Entry       string      `json:"entry,omitempty"`
	TLS         string      `json:"tls,omitempty"`
	CipherClass string      `json:"cipher_class,omitempty"`
	Host        string      `json:"host,omitempty"`
	SNI         string      `json:"sni,omitempty"`
	Mechanism   string      `json:"mechanism,omitempty"`
	UserForm    string      `json:"user_form,omitempty"`
	Class       string      `json:"program_class"`
	Program     string      `json:"program,omitempty"`
	Network     string      `json:"network"`
	Collector   bool        `json:"collector,omitempty"`
	Days        map[Day]int `json:"sessions_by_day"`
}

// Export gives all that is held of an account, as of one moment, and writes into the audit that it was
// given.
func (l *Ledger) Export(ctx context.Context, name string) (*Export, error) {
	x := &Export{Account: name, Campaign: l.opt.Campaign, Purpose: l.opt.Purpose}
	if l.opt.End != 0 {
		x.DeletedOn = l.opt.End + KeptAfterEnd + 1
	}
	if err := l.tx(ctx, func(t *tx) error {
		x.Uses, x.Crowds, x.Notices, x.Audit = []ExportUse{}, nil, []map[string]any{}, []AuditEntry{}
		id, err := t.accountID(name)
		if err != nil {
			return err
		}
		found, err := t.accounts(map[int64]*Shape{}, 0, "WHERE id = $1", id)
		if err != nil {
			return err
		}
		x.fill(found[0])
		if err := t.each(func(rows *sql.Rows) error {
			var d Day
			err := rows.Scan(&d)
			x.Crowds = append(x.Crowds, d)
			return err
		}, "SELECT DISTINCT day FROM crowd_member WHERE account = $1 ORDER BY day", id); err != nil {
			return err
		}
		if err := t.each(func(rows *sql.Rows) error {
			row, err := anyRow(rows)
			x.Notices = append(x.Notices, row)
			return err
		}, "SELECT * FROM notice WHERE account = $1 ORDER BY series, step", name); err != nil {
			return err
		}
		entries, err := t.audited()
		if err != nil {
			return err
		}
		for _, e := range entries {
			if namesAt(e.Detail, name) >= 0 {
				x.Audit = append(x.Audit, e)
			}
		}
		return t.audit("export", name)
	}); err != nil {
		return nil, fmt.Errorf("exporting an account: %w", err)
	}
	return x, nil
}

// fill takes over what is known of an account.
func (x *Export) fill(a *Account) {
	if a.Told.Day != 0 {
		x.Told = &ExportTold{a.Told.Day, a.Told.Action.String(), a.Told.Rule}
	}
	x.Bounced, x.Call = a.Bounced, a.Call
	for i := range a.Uses {
		u := &a.Uses[i]
		e := ExportUse{u.Brand, u.Listener, u.Protocol, u.Port, u.Entry, u.TLS, u.CipherClass, u.Host, u.SNI, u.Mechanism, u.UserForm,
			string(u.Class), u.Program, u.Network, u.Collector, map[Day]int{}}
		for _, d := range u.Days {
			e.Days[d.Day] = d.Sessions
		}
		x.Uses = append(x.Uses, e)
	}
}

// anyRow is a row with the names of its columns.
func anyRow(rows *sql.Rows) (map[string]any, error) {
	columns, err := rows.Columns()
	if err != nil {
		return nil, err
	}
	row := make([]any, len(columns))
	into := make([]any, len(columns))
	for i := range row {
		into[i] = &row[i]
	}
	if err := rows.Scan(into...); err != nil {
		return nil, err
	}
	named := map[string]any{}
	for i, column := range columns {
		if text, ok := row[i].([]byte); ok {
			row[i] = string(text)
		}
		named[column] = row[i]
	}
	return named, nil
}
