package certs

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"
)

// Times of a ticket key. Whoever gets hold of one can read what was said under tickets made
// with it in TLS 1.2, where RFC 5077 has no new key exchange in a resumed session, and pose as
// this server to their owners in TLS 1.3. So a key lives as briefly as it is of use: mail
// programs come back within minutes, those on laptops the next morning, and who comes later
// pays a full handshake. crypto/tls alone would take tickets for a week (RFC 8446 section
// 4.6.1 allows no more).
const (
	// rotateEvery is how long tickets are made with one key.
	rotateEvery = 12 * time.Hour

	// ticketLife is how long a key is known: its turn, and then a night and a morning.
	ticketLife = rotateEvery + 24*time.Hour

	// ahead is how long a new key is known before it is used, so that nobody meets a
	// ticket whose key he has not read yet: some readings, and clocks that differ.
	ahead = 10 * time.Minute

	// maxSkew is how much the clocks of nodes may differ.
	maxSkew = time.Hour

	// rereadEvery is how often the file is looked at for keys of other nodes.
	rereadEvery = time.Minute

	// lockTime is when a lock counts as left behind by a node that died: writing a few
	// hundred bytes takes no minute. Should two write all the same, one of two new keys
	// may be lost, ten minutes before its use.
	lockTime = time.Minute
)

// Bounds of the file: in regular use there are four keys, of a hundred bytes each.
const (
	maxKeys     = 16
	maxKeysFile = 64 << 10
)

// Tickets has the keys of session tickets (RFC 5077, RFC 8446 section 4.6.1), and changes
// them. They stand in a file, as secret as a private key, so that they survive a restart and
// are known to all nodes that share it. To make all of them new, remove the file.
//
// What cannot be read or written costs resumption after restarts and at other nodes, never a
// handshake: then there are keys in memory alone, and the log says so.
type Tickets struct {
	path   string
	log    *zap.Logger
	config *tls.Config

	mu      sync.Mutex
	keys    []ticketKey // in force, the oldest first
	unsaved []ticketKey // those of them that the file has yet to get
	told    string      // the last trouble that the log was told
}

// ticketKey is a key and the moment from which tickets are made with it.
type ticketKey struct {
	Key  secretKey `json:"key"`
	From time.Time `json:"from"`
}

// secretKey is 32 random bytes, which crypto/tls makes keys for AES and HMAC of.
type secretKey []byte

// String hides the key from logs.
func (secretKey) String() string { return "***" }

// GoString hides it from them as well.
func (secretKey) GoString() string { return "***" }

// ticketFile is the form of the file.
type ticketFile struct {
	Keys []ticketKey `json:"keys"`
}

// OpenTickets reads the keys of a file, or makes it, in a directory that is there. With an
// empty path the keys stay in memory. There are keys whatever fails, so the error says only
// that the directory cannot be made.
func OpenTickets(path string, log *zap.Logger) (*Tickets, error) {
	if path != "" {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return nil, fmt.Errorf("making the directory of the session ticket keys: %w", err)
		}
	}
	t := &Tickets{path: path, log: log, config: new(tls.Config)}
	t.turn(time.Now())
	return t, nil
}

// Run changes the keys and reads those of other nodes, until ctx ends.
func (t *Tickets) Run(ctx context.Context) {
	tick := time.NewTicker(rereadEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			t.turn(time.Now())
		}
	}
}

// Bind has a configuration make its tickets with these keys, and take no other. A ticket is
// good for one purpose and one server name (RFC 6066 section 3), wherever in the program and
// at whichever node it comes back: what was agreed on for one protocol counts nothing in
// another (ALPACA). One that does not fit means a full handshake.
func (t *Tickets) Bind(c *tls.Config, purpose string) {
	purpose += " "
	c.WrapSession = func(cs tls.ConnectionState, ss *tls.SessionState) ([]byte, error) {
		ss.Extra = append(ss.Extra, append([]byte(purpose), strings.ToLower(cs.ServerName)...))
		return t.config.EncryptTicket(cs, ss)
	}
	c.UnwrapSession = func(identity []byte, cs tls.ConnectionState) (*tls.SessionState, error) {
		ss, err := t.config.DecryptTicket(identity, cs)
		if ss == nil || err != nil {
			return nil, err
		}
		name := strings.ToLower(cs.ServerName)
		for _, extra := range ss.Extra {
			if tag, ok := strings.CutPrefix(string(extra), purpose); ok && tag == name {
				return ss, nil
			}
		}
		return nil, nil
	}
}

// turn does what is due: reads the file, makes a key, drops old ones.
func (t *Tickets) turn(now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.path == "" {
		t.keys, _ = schedule(t.keys, now)
		t.use(now)
		return
	}
	known, err := t.read()
	if errors.Is(err, errDamaged) {
		// Moved aside and not removed: it may hold what tells how it came to this.
		bad := t.path + ".bad"
		if moved := os.Rename(t.path, bad); moved != nil {
			err = errors.Join(err, moved)
		} else {
			t.log.Error("session ticket keys are made anew, so nothing is resumed with the old ones",
				zap.Error(err), zap.String("moved_to", cleaned(bad, maxText)))
			known, err = nil, nil
		}
	}
	switch {
	case err == nil:
		err = t.save(known, now)
	case errors.Is(err, errExposed):
		t.keys, t.unsaved = t.alone(t.unsaved, now) // what stood in the file counts no more
	default:
		t.keys, t.unsaved = t.alone(t.keys, now)
	}
	t.tell(err)
	t.use(now)
}

// save adds the key that is due to those of the file, and writes it if it must be another.
// It sets what is in force, also when writing fails.
func (t *Tickets) save(known []ticketKey, now time.Time) error {
	next, changed := schedule(merge(known, t.unsaved), now)
	if !changed && len(t.unsaved) == 0 {
		t.keys = next
		return nil
	}
	release, err := lease(t.path+".lock", now, lockTime)
	if errors.Is(err, fs.ErrExist) {
		// Another node is at it. Its key comes with the next reading; a first one of
		// our own serves until then.
		t.keys = merge(known, t.unsaved)
		if len(t.keys) == 0 {
			t.keys, t.unsaved = t.alone(nil, now)
		}
		return nil
	}
	if err == nil {
		defer release()
		next, err = t.update(now)
	}
	if err != nil {
		t.keys, t.unsaved = t.alone(merge(known, t.unsaved), now)
		return fmt.Errorf("writing session ticket keys to %s: %w", t.path, err)
	}
	t.keys, t.unsaved = next, nil
	return nil
}

// update makes the file what it is to be, and returns its keys. It is read again, as it may
// have changed before the lock was ours.
func (t *Tickets) update(now time.Time) ([]ticketKey, error) {
	known, err := t.read()
	if err != nil {
		return nil, err
	}
	next, changed := schedule(merge(known, t.unsaved), now)
	if changed || len(t.unsaved) > 0 {
		sweep(filepath.Dir(t.path), newPrefix, now) // keys must not lie about where a node died
		err = t.write(next)
	}
	return next, err
}

// alone schedules without the file: what is new is remembered as not saved.
func (t *Tickets) alone(known []ticketKey, now time.Time) (keys, unsaved []ticketKey) {
	keys, _ = schedule(known, now)
	for _, k := range keys {
		if !slices.ContainsFunc(known, k.is) || slices.ContainsFunc(t.unsaved, k.is) {
			unsaved = append(unsaved, k)
		}
	}
	return keys, unsaved
}

// schedule drops keys that have had their time, and adds the next one when it is due. Keys
// from further ahead than nodes make them come from a clock that was wrong: left in, they
// would put off the next one for as long.
func schedule(known []ticketKey, now time.Time) (keys []ticketKey, changed bool) {
	for _, k := range known {
		if now.Before(k.From.Add(ticketLife)) && !k.From.After(now.Add(ahead+maxSkew)) {
			keys = append(keys, k)
		}
	}
	if len(keys) > maxKeys {
		keys = keys[len(keys)-maxKeys:]
	}
	changed = len(keys) != len(known)
	from := now.Add(ahead)
	switch {
	case len(keys) == 0 || keys[0].From.After(now):
		from = now // nobody has a ticket of ours, so nobody must wait
	case keys[len(keys)-1].From.Add(rotateEvery).After(from):
		return keys, changed
	}
	fresh := ticketKey{Key: make(secretKey, 32), From: from.UTC().Truncate(time.Second)}
	rand.Read(fresh.Key) // never fails, says its documentation
	return merge(keys, []ticketKey{fresh}), true
}

// is says whether two are the same key.
func (k ticketKey) is(other ticketKey) bool { return string(k.Key) == string(other.Key) }

// merge joins keys, by age.
func merge(a, b []ticketKey) []ticketKey {
	all := slices.Clone(a)
	for _, k := range b {
		if !slices.ContainsFunc(all, k.is) {
			all = append(all, k)
		}
	}
	slices.SortStableFunc(all, func(a, b ticketKey) int { return a.From.Compare(b.From) })
	return all
}

// use gives the keys to the configuration: first the one that tickets are made with, the
// youngest whose time has come; behind it all others, also those to come, as the clock of
// another node may be ahead.
func (t *Tickets) use(now time.Time) {
	active := 0
	for i, k := range t.keys {
		if !k.From.After(now) {
			active = i
		}
	}
	ordered := make([][32]byte, 0, len(t.keys))
	ordered = append(ordered, [32]byte(t.keys[active].Key))
	for i := len(t.keys) - 1; i >= 0; i-- { // the young have made most of the tickets
		if i != active {
			ordered = append(ordered, [32]byte(t.keys[i].Key))
		}
	}
	t.config.SetSessionTicketKeys(ordered)
}

// tell logs trouble once, and its end.
func (t *Tickets) tell(err error) {
	switch {
	case err != nil && err.Error() != t.told:
		t.told = err.Error()
		t.log.Error("session ticket keys are in memory alone, so sessions are not resumed after a restart or at another node",
			zap.String("error", cleaned(t.told, maxText)))
	case err == nil && t.told != "":
		t.told = ""
		t.log.Info("session ticket keys are in their file again", zap.String("file", cleaned(t.path, maxText)))
	}
}

// errDamaged says that a file is not one of keys. What is wrong in it is not said: it would
// be told in words of the file.
var errDamaged = errors.New("the file of session ticket keys is damaged")

// errExposed says that the keys are no secret any more.
var errExposed = errors.New("others have rights to the file of session ticket keys")

// read reads the keys of the file. No file is no keys.
func (t *Tickets) read() ([]ticketKey, error) {
	info, err := os.Stat(t.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil && info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%s: %w (mode %04o); remove the file, and new keys are made", t.path, errExposed, info.Mode().Perm())
	}
	data, err := readFile(t.path, maxKeysFile)
	if err != nil && !errors.Is(err, errTooLarge) {
		return nil, fmt.Errorf("reading session ticket keys: %w", err)
	}
	return parseKeys(data)
}

// parseKeys reads the content of a file, which has at least one key.
func parseKeys(data []byte) ([]ticketKey, error) {
	var file ticketFile
	if len(data) > maxKeysFile || json.Unmarshal(data, &file) != nil || len(file.Keys) == 0 {
		return nil, errDamaged
	}
	for _, k := range file.Keys {
		if len(k.Key) != 32 || string(k.Key) == string(make([]byte, 32)) || k.From.IsZero() {
			return nil, errDamaged
		}
	}
	return merge(nil, file.Keys), nil
}

// write replaces the file.
func (t *Tickets) write(keys []ticketKey) error {
	data, err := json.MarshalIndent(ticketFile{Keys: keys}, "", "  ")
	if err != nil {
		return err
	}
	return writeFile(t.path, append(data, '\n'))
}
