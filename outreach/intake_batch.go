package outreach

// What was read enters the ledger, a batch in one transaction with the place up to which
// its file has been read.

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// batch is what enters the ledger at once: sums, so its order does not matter.
type batch struct {
	tally  Tally
	seen   map[coming]int
	told   map[string]Told
	crowd  map[member]struct{}
	others map[other]int
}

// coming is a way in which an account came on a day.
type coming struct {
	account string
	shape   *Shape
	day     Day
}

// member is an account behind an address that may be a collector's.
type member struct {
	coming
	origin netip.Addr
}

func newBatch() *batch {
	return &batch{seen: map[coming]int{}, told: map[string]Told{}, crowd: map[member]struct{}{}, others: map[other]int{}}
}

// merge adds a harvest.
func (b *batch) merge(s *harvest) {
	b.tally.add(&s.tally)
	for i := range s.logins {
		l := &s.logins[i]
		u := coming{l.account, l.shape, l.day}
		b.seen[u]++
		if l.told.Day != 0 && l.told.later(b.told[l.account]) {
			b.told[l.account] = l.told
		}
		if l.origin.IsValid() {
			b.crowd[member{u, l.origin}] = struct{}{}
		}
	}
	for _, o := range s.others {
		b.others[o]++
	}
}

// accountIDs and shapeIDs are numbers of rows that were met. Deleting changes their generation: then
// they are forgotten.
type (
	accountIDs = map[string]int64
	shapeIDs   = map[Shape]int64
)

// mostIDs and mostShapeIDs bound how many are remembered: some 50 MB of each.
const (
	mostIDs      = 400_000
	mostShapeIDs = 100_000
)

// mostShapes is how many shapes an account has in full: many times what a household comes to in years. Who asks
// for another server name in each session, or gives himself another version, would fill
// the ledger and the memory of all that read it.
const mostShapes = 1000

// generation is the key in meta that counts deletions.
const generation = "generation"

// place is up to where a file was taken in.
func (l *Ledger) place(ctx context.Context, kind Source, identity string) (place int64, err error) {
	err = l.view(ctx, func(t *tx) error {
		_, err := t.one([]any{&place}, "SELECT place FROM source WHERE kind = $1 AND identity = $2", string(kind), identity)
		return err
	})
	return place, err
}

// write lets a batch enter the ledger that was read from one place of a file to another.
func (in *Intake) write(ctx context.Context, kind Source, identity string, from, to int64, b *batch) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	var met *met
	if err := in.Ledger.tx(ctx, func(t *tx) (err error) {
		met, err = in.enter(t, kind, identity, from, to, b)
		return err
	}); err != nil {
		return err
	}
	if in.generation != met.generation || len(in.accounts) > mostIDs || len(in.shapes) > mostShapeIDs || in.accounts == nil {
		in.generation, in.accounts, in.shapes = met.generation, accountIDs{}, shapeIDs{}
	}
	for name, id := range met.accounts {
		in.accounts[name] = id
	}
	for s, id := range met.shapes {
		in.shapes[s] = id
	}
	return nil
}

// met is what a transaction learned of numbers. It is true if that succeeds.
type met struct {
	generation string
	accounts   accountIDs
	shapes     shapeIDs
}

// enter is write in its transaction.
func (in *Intake) enter(t *tx, kind Source, identity string, from, to int64, b *batch) (*met, error) {
	if t.l.ended(t.l.today()) {
		return nil, ErrEnded
	}
	if _, err := t.exec("INSERT INTO source (kind, identity, place) VALUES ($1, $2, 0) ON CONFLICT (kind, identity) DO NOTHING", string(kind), identity); err != nil {
		return nil, err
	}
	switch n, err := t.exec("UPDATE source SET place = $1 WHERE kind = $2 AND identity = $3 AND place = $4", to, string(kind), identity, from); {
	case err != nil:
		return nil, err
	case n == 0:
		return nil, errElsewhere
	}
	m := &met{accounts: accountIDs{}, shapes: shapeIDs{}}
	if _, err := t.one([]any{&m.generation}, "SELECT value FROM meta WHERE key = $1", generation); err != nil {
		return nil, err
	}
	account, shape, err := in.numbers(t, m, b)
	if err != nil {
		return nil, err
	}
	w := writing{t: t, account: account, shape: shape}
	w.seen(b)
	w.told(b)
	w.crowd(b, in.collector())
	w.others(b)
	return m, w.err
}

// collector is from how many accounts on there is one.
func (in *Intake) collector() int { return cmp.Or(in.Collector, 50) }

// numbers finds or makes the rows of accounts and shapes.
func (in *Intake) numbers(t *tx, m *met, b *batch) (account func(string) int64, shape func(*Shape) int64, err error) {
	knownAccounts, knownShapes := in.accounts, in.shapes
	if in.generation != m.generation {
		knownAccounts, knownShapes = nil, nil
	}
	names, users := map[string]bool{}, map[*Shape][]string{}
	for u := range b.seen {
		if _, known := knownAccounts[u.account]; !known {
			names[u.account] = true
		}
		users[u.shape] = append(users[u.shape], u.account)
	}
	missing := make([]string, 0, len(names))
	for name := range names {
		missing = append(missing, name)
	}
	slices.Sort(missing) // so that their numbers, and with them their rows in seen, lie as they are read
	if err := t.accountIDs(m.accounts, missing); err != nil {
		return nil, nil, err
	}
	account = func(name string) int64 {
		if id, known := knownAccounts[name]; known {
			return id
		}
		return m.accounts[name]
	}
	ids := map[*Shape]int64{} // of this batch: two that are equal may have come
	order := make([]*Shape, 0, len(users))
	for s := range users {
		if id, known := knownShapes[*s]; known {
			ids[s] = id
		} else {
			order = append(order, s)
		}
	}
	slices.SortFunc(order, (*Shape).compare)
	ways := wayCounts{t: t, had: map[string]int{}, got: map[string]int{}}
	for _, s := range order {
		slices.Sort(users[s])
		came := slices.Compact(users[s]) // on several days
		room, err := ways.room(came, account)
		if err != nil {
			return nil, nil, err
		}
		row := *s
		if !room {
			row.SNI, row.Program = "", "" // what a client may choose freely
		}
		id, known := m.shapes[row]
		if !known {
			var is bool
			if id, is, err = t.shapeID(&row); err == nil && !is {
				id, err = t.newShape(&row)
				ways.add(came)
			}
			if err != nil {
				return nil, nil, err
			}
		}
		ids[s], m.shapes[row] = id, id
	}
	return account, func(s *Shape) int64 { return ids[s] }, nil
}

// wayCounts count shapes by account, where those come that are not remembered.
type wayCounts struct {
	t        *tx
	had, got map[string]int // in the ledger before, where that was asked; and new ones in this batch
}

// room reports whether one of the accounts may have another shape in full.
func (w *wayCounts) room(accounts []string, id func(string) int64) (bool, error) {
	for _, account := range accounts {
		if _, asked := w.had[account]; !asked {
			n := 0
			if _, err := w.t.one([]any{&n}, "SELECT COUNT(DISTINCT shape) FROM seen WHERE account = $1", id(account)); err != nil {
				return false, err
			}
			w.had[account] = n
		}
		if w.had[account]+w.got[account] < mostShapes {
			return true, nil
		}
	}
	return false, nil
}

// add counts a shape that is new to the ledger.
func (w *wayCounts) add(accounts []string) {
	for _, account := range accounts {
		w.got[account]++
	}
}

// accountIDs finds the numbers of accounts, and makes rows for those that have none.
func (t *tx) accountIDs(ids accountIDs, names []string) error {
	scan := func(rows *sql.Rows) error {
		var id int64
		var name string
		err := rows.Scan(&id, &name)
		ids[name] = id
		return err
	}
	const some = 500
	for part := range slices.Chunk(names, some) {
		args := make([]any, len(part))
		for i, name := range part {
			args[i] = name
		}
		list := arguments(1, len(args))
		if err := t.each(scan, "SELECT id, name FROM account WHERE name IN "+list, args...); err != nil {
			return err
		}
		var fresh []any
		for _, name := range part {
			if _, is := ids[name]; !is {
				fresh = append(fresh, name)
			}
		}
		if len(fresh) == 0 {
			continue
		}
		if err := t.each(scan, "INSERT INTO account (name) VALUES "+strings.ReplaceAll(arguments(1, len(fresh)), ", ", "), (")+" RETURNING id, name", fresh...); err != nil {
			return err
		}
	}
	return nil
}

// shapeID finds the number of a shape. There are thousands, and few of them new.
func (t *tx) shapeID(s *Shape) (id int64, found bool, err error) {
	var where strings.Builder
	for i, column := range strings.Split(shapeColumns, ", ") {
		if i > 0 {
			where.WriteString(" AND ")
		}
		where.WriteString(column + " = $" + strconv.Itoa(i+1))
	}
	found, err = t.one([]any{&id}, "SELECT id FROM shape WHERE "+where.String(), s.values()...)
	return id, found, err
}

// newShape makes a row for a shape.
func (t *tx) newShape(s *Shape) (id int64, err error) {
	_, err = t.one([]any{&id}, "INSERT INTO shape ("+shapeColumns+") VALUES "+arguments(1, len(s.values()))+" RETURNING id", s.values()...)
	return id, err
}

func (s *Shape) values() []any {
	return []any{s.Brand, s.Listener, s.Protocol, s.Port, s.Entry, s.TLS, s.CipherClass, s.Host, s.SNI, s.Mechanism, s.UserForm,
		string(s.Class), s.Program, s.Network}
}

// arguments is a list of arguments in brackets: ($1, $2).
func arguments(from, n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(", $")
		b.WriteString(strconv.Itoa(from + i))
	}
	return "(" + strings.TrimPrefix(b.String(), ", ") + ")"
}

// writing writes the rows of a batch, until the first error.
type writing struct {
	t       *tx
	account func(string) int64
	shape   func(*Shape) int64
	err     error
}

// rowsAtOnce are rows in one statement. A statement with more is not quicker, and SQLite takes 32,766 arguments.
var rowsAtOnce = []int{250, 25, 1}

// rows writes many rows of that many columns with few statements.
func (w *writing) rows(head string, columns int, tail string, args []any) {
	for _, n := range rowsAtOnce {
		if w.err != nil || len(args) < n*columns {
			continue
		}
		var b strings.Builder
		b.WriteString(head + " VALUES ")
		for i := range n {
			if i > 0 {
				b.WriteString(", ")
			}
			if w.t.l.postgres {
				b.WriteString(arguments(1+i*columns, columns))
			} else {
				// SQLite's driver looks each $1 up by its name, through all the others.
				b.WriteString("(?" + strings.Repeat(", ?", columns-1) + ")")
			}
		}
		b.WriteString(" " + tail)
		statement, err := w.t.sql.PrepareContext(w.t.ctx, b.String())
		if err != nil {
			w.err = err
			return
		}
		for ; w.err == nil && len(args) >= n*columns; args = args[n*columns:] {
			if w.err = w.t.l.may(head); w.err == nil {
				_, w.err = statement.ExecContext(w.t.ctx, args[:n*columns]...)
			}
		}
		if err := statement.Close(); w.err == nil {
			w.err = err
		}
	}
}

// seen adds how often each account came. The rows are in the order of the table, which is several times
// as quick as any other.
func (w *writing) seen(b *batch) {
	type row struct {
		account, shape int64
		day            Day
		n              int
	}
	all := make([]row, 0, len(b.seen))
	for u, n := range b.seen {
		all = append(all, row{w.account(u.account), w.shape(u.shape), u.day, n})
	}
	slices.SortFunc(all, func(x, y row) int {
		return cmp.Or(cmp.Compare(x.account, y.account), cmp.Compare(x.shape, y.shape), cmp.Compare(x.day, y.day))
	})
	sums := all[:0] // several shapes may have one row, and PostgreSQL takes each only once in a statement
	for _, r := range all {
		if n := len(sums); n > 0 && sums[n-1].account == r.account && sums[n-1].shape == r.shape && sums[n-1].day == r.day {
			sums[n-1].n += r.n
			continue
		}
		sums = append(sums, r)
	}
	for part := range slices.Chunk(sums, 10_000) {
		args := make([]any, 0, 4*len(part))
		for _, r := range part {
			args = append(args, r.account, r.shape, int64(r.day), int64(r.n))
		}
		w.rows("INSERT INTO seen (account, shape, day, n)", 4, "ON CONFLICT (account, shape, day) DO UPDATE SET n = seen.n + excluded.n", args)
	}
}

// told keeps what was told last.
func (w *writing) told(b *batch) {
	names := make([]string, 0, len(b.told))
	for name := range b.told {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if w.err != nil {
			return
		}
		told := b.told[name]
		_, w.err = w.t.exec(`UPDATE account SET told_day = $1, told_action = $2, told_rule = $3
			WHERE id = $4 AND (told_day < $1 OR told_day = $1 AND (told_action < $2 OR told_action = $2 AND told_rule < $3))`,
			int64(told.Day), int64(told.Action), told.Rule, w.account(name))
	}
}

// crowd keeps who came from one address, as a hash with a key of that day, until [Ledger.Expire] deletes
// both; and marks the uses of those that are too many for a household.
func (w *writing) crowd(b *batch, collector int) {
	type row struct {
		day                   Day
		crowd, account, shape int64
	}
	keys := map[Day][]byte{}
	all := make([]row, 0, len(b.crowd))
	for m := range b.crowd {
		if keys[m.day] == nil && w.err == nil {
			keys[m.day], w.err = w.t.crowdKey(m.day)
		}
		if w.err != nil {
			return
		}
		mac := hmac.New(sha256.New, keys[m.day])
		ip := m.origin.As16()
		mac.Write(ip[:])
		fmt.Fprintf(mac, "%s %s %s", m.shape.Protocol, m.shape.Class, m.shape.Program) // one kind of program
		// 64 bits: of a million addresses two are taken for one in one of 30 million days.
		crowd := int64(binary.BigEndian.Uint64(mac.Sum(nil)))
		all = append(all, row{m.day, crowd, w.account(m.account), w.shape(m.shape)})
	}
	slices.SortFunc(all, func(x, y row) int {
		return cmp.Or(cmp.Compare(x.day, y.day), cmp.Compare(x.crowd, y.crowd), cmp.Compare(x.account, y.account), cmp.Compare(x.shape, y.shape))
	})
	var crowds []row // each once, in order
	for part := range slices.Chunk(all, 10_000) {
		args := make([]any, 0, 4*len(part))
		for _, r := range part {
			args = append(args, int64(r.day), r.crowd, r.account, r.shape)
			if n := len(crowds); n == 0 || crowds[n-1].day != r.day || crowds[n-1].crowd != r.crowd {
				crowds = append(crowds, r)
			}
		}
		w.rows("INSERT INTO crowd_member (day, crowd, account, shape)", 4, "ON CONFLICT DO NOTHING", args)
	}
	for len(crowds) > 0 && w.err == nil {
		n := 1
		for n < len(crowds) && n < 500 && crowds[n].day == crowds[0].day {
			n++
		}
		ids := make([]int64, n)
		for i, c := range crowds[:n] {
			ids[i] = c.crowd
		}
		var large []int64
		w.err = w.t.each(func(rows *sql.Rows) error {
			var crowd int64
			err := rows.Scan(&crowd)
			large = append(large, crowd)
			return err
		}, "SELECT crowd FROM crowd_member WHERE day = $1 AND crowd IN ("+joined(ids)+") GROUP BY crowd HAVING COUNT(DISTINCT account) >= $2",
			int64(crowds[0].day), collector)
		for _, crowd := range large {
			if w.err != nil {
				return
			}
			_, w.err = w.t.exec("INSERT INTO collected (account, shape) SELECT DISTINCT account, shape FROM crowd_member WHERE day = $1 AND crowd = $2 ON CONFLICT DO NOTHING",
				int64(crowds[0].day), crowd)
		}
		crowds = crowds[n:]
	}
}

// crowdKey is the key for the addresses of a day.
func (t *tx) crowdKey(day Day) ([]byte, error) {
	var secret string
	found, err := t.one([]any{&secret}, "SELECT secret FROM crowd WHERE day = $1", int64(day))
	if err != nil {
		return nil, err
	}
	if !found {
		key := make([]byte, 32)
		rand.Read(key)
		secret = hex.EncodeToString(key)
		if _, err := t.exec("INSERT INTO crowd (day, secret, made) VALUES ($1, $2, $3)", int64(day), secret, int64(t.l.today())); err != nil {
			return nil, err
		}
	}
	return hex.DecodeString(secret)
}

// others counts sessions of nobody who was confirmed.
func (w *writing) others(b *batch) {
	all := make([]other, 0, len(b.others))
	for o := range b.others {
		all = append(all, o)
	}
	slices.SortFunc(all, func(x, y other) int {
		return cmp.Or(cmp.Compare(x.day, y.day), cmp.Compare(x.protocol, y.protocol), cmp.Compare(x.tls, y.tls), cmp.Compare(x.mechanism, y.mechanism))
	})
	var args []any
	for _, o := range all {
		args = append(args, int64(o.day), o.protocol, o.tls, o.mechanism, int64(b.others[o]))
	}
	w.rows("INSERT INTO others (day, protocol, tls, mechanism, n)", 5, "ON CONFLICT (day, protocol, tls, mechanism) DO UPDATE SET n = others.n + excluded.n", args)
}
