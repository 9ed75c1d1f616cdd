package certs

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

// pollEvery is how often files and folder are looked at. A look is one stat for each file,
// and nobody waits for it: who renews has days, who replaces a bad file by hand waits this
// long.
//
// inotify would be quicker, and wrong where it counts: it is silent about a network file
// system's changes from elsewhere, and it watches the file behind a name, not the name, so
// each link of a chain of symbolic links (certbot's live, Kubernetes' ..data) would have to be
// watched and watched anew after each swap.
const pollEvery = 10 * time.Second

// patience is how many polls in a row must find the same wrong before it counts. A key is
// written before its certificate or behind it, and a poll may fall between the two.
const patience = 2

// Reports of trouble: the first when what is ordered at the start has had its time and
// its first repetitions, then one a day for each certificate, as long as it lasts.
const (
	firstReport = 10 * time.Minute
	lookEvery   = time.Hour
	reportEvery = 24 * time.Hour
)

// maxHost is the longest host name, RFC 1035 section 2.3.4 without the final dot. What is
// longer on the wire is none.
const maxHost = 253

// ErrNotYet says that there is no certificate yet, while there is somebody who orders them.
var ErrNotYet = errors.New("no certificate has been issued yet; mailreeve certs list tells why")

// Sources is where the certificates of a [Keeper] come from.
type Sources struct {
	Files  []Pair   // each must be good
	Folder string   // empty: none; what is bad in it is logged and passed over
	Names  []string // the canonical host names
	Issuer Issuer   // asked for names that no file is for; nil: nobody is
}

// Keeper has the certificates of files, of a folder and of an [Issuer], and chooses among
// them in each handshake. It lives as long as the program; a reload is [Keeper.Set].
//
// A certificate in force is given up for a better one only. If its file is replaced by one
// that cannot be used, or that is out of date while the certificate is not, it stays, and
// the log says why. If its file vanishes from the folder it goes, but not if one of its
// names would be left with no certificate of files or folder: then it stays until the next
// Set or the end of the program. Set takes the folder as it is.
type Keeper struct {
	log     *zap.Logger
	inForce atomic.Pointer[view] // all that a handshake looks at

	reading sync.Mutex // held while files are read

	mu      sync.Mutex // guards the following; whoever changes it holds reading as well
	sources Sources
	held    map[Pair]*held
	folder  failing // why the folder could not be listed
	told    map[string]report
}

// view is what is in force. It never changes.
type view struct {
	store  *Store
	issuer Issuer
}

// failing counts in how many readings in a row something failed, and what of it the log
// was told.
type failing struct {
	err   error
	times int
	told  string
}

// note counts one more reading.
func (f *failing) note(err error) {
	if err == nil {
		*f = failing{told: f.told}
		return
	}
	f.err, f.times = err, f.times+1
}

// held is what is known of one pair of files.
type held struct {
	pair   Pair
	source string         // "file" or "folder"
	seen   [2]fs.FileInfo // both files, just before they were last read
	entry  *entry         // in force; nil if there is none yet
	made   time.Time      // when the entry's file was written
	gone   int            // how often in a row the files were not in the folder, to 2
	failing
}

// NewKeeper makes a keeper that has no certificate yet.
func NewKeeper(log *zap.Logger) *Keeper {
	k := &Keeper{log: log, told: map[string]report{}}
	k.inForce.Store(&view{store: newStore(nil)})
	return k
}

// Set reads all files and the folder, and puts them in force together with the issuer. If
// one of Files cannot be used, or the folder cannot be listed, nothing changes, and the
// error joins one [*Error] for each.
func (k *Keeper) Set(s Sources) error {
	k.reading.Lock()
	defer k.reading.Unlock()
	s.Files, s.Names = slices.Clone(s.Files), slices.Clone(s.Names)
	for i, name := range s.Names {
		s.Names[i] = Fold(name)
	}
	next, folder, failed := k.read(s, true)
	if err := errors.Join(append(failed, folder.err)...); err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.sources, k.folder = s, folder
	k.adopt(next, 1)
	clear(k.told)
	return nil
}

// Watch looks at files and folder again and again until ctx ends, and logs what changes,
// and daily what is in trouble. A network file system that hangs holds up a Set with it, but
// neither a handshake nor Status.
func (k *Keeper) Watch(ctx context.Context) {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	due := time.Now().Add(firstReport)
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		k.poll()
		if now := time.Now(); !now.Before(due) {
			k.report(now)
			due = now.Add(lookEvery)
		}
	}
}

// poll reads what has changed.
func (k *Keeper) poll() {
	k.reading.Lock()
	defer k.reading.Unlock()
	next, folder, _ := k.read(k.sources, false)
	for pair, old := range k.held {
		if next[pair] == nil && old.source == "folder" && folder.err != nil {
			next[pair] = old // the folder cannot be listed: nothing is known to be gone
		}
	}
	k.keepLast(next)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.folder = folder
	k.adopt(next, patience)
}

// read looks at all pairs of the sources. With all, each is read; otherwise those alone that
// have changed or that failed. Each error is noted in its pair or the folder; those of Files
// are listed as well.
func (k *Keeper) read(s Sources, all bool) (next map[Pair]*held, folder failing, failed []error) {
	next = map[Pair]*held{}
	for _, p := range s.Files {
		h, err := k.look(p, "file", all)
		if err != nil {
			failed = append(failed, err)
		}
		next[p] = h
	}
	if s.Folder == "" {
		return next, failing{}, failed
	}
	folder = k.folder
	pairs, err := listFolder(s.Folder)
	folder.note(err)
	for _, p := range pairs {
		if next[p] == nil {
			next[p], _ = k.look(p, "folder", all)
		}
	}
	return next, folder, failed
}

// look looks at a pair and reads it if need be. The error says that there is nothing of use
// in the files; a certificate out of date is of some.
func (k *Keeper) look(p Pair, source string, always bool) (*held, error) {
	h := &held{pair: p, source: source}
	old := k.held[p]
	if old != nil {
		*h = *old
		h.source, h.gone = source, 0
	}
	h.seen = [2]fs.FileInfo{stat(p.Cert), stat(p.Key)}
	if old != nil && !always && old.err == nil && old.gone == 0 && same(h.seen[0], old.seen[0]) && same(h.seen[1], old.seen[1]) {
		return h, nil
	}
	load := p.load
	if source == "folder" {
		load = p.found
	}
	e, err := load()
	if err != nil {
		if h.entry == nil && source == "folder" && p.bystander() {
			return h, nil
		}
		h.note(err)
		return h, err
	}
	now := time.Now()
	if h.entry != nil && h.entry.info.Check(now) == nil {
		if err := e.info.Check(now); err != nil {
			h.note(err)
			return h, nil
		}
	}
	h.note(nil)
	if h.entry == nil || !h.entry.equal(e) {
		h.entry, h.made = e, now
		if h.seen[0] != nil {
			h.made = h.seen[0].ModTime()
		}
	}
	return h, nil
}

// stat looks at a file, through symbolic links; nil if it is not there.
func stat(file string) fs.FileInfo {
	if file == "" {
		return nil
	}
	info, err := os.Stat(file)
	if err != nil {
		return nil
	}
	return info
}

// same says whether nothing has been done to a file: it is the same one (a link has not
// been moved, nothing was renamed over it), as long and as old.
func same(a, b fs.FileInfo) bool {
	if a == nil || b == nil {
		return a == b
	}
	return os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}

// equal says whether two entries hold the same certificate, chain and all.
func (e *entry) equal(other *entry) bool {
	return slices.EqualFunc(e.tls.Certificate, other.tls.Certificate, bytes.Equal)
}

// keepLast adds pairs of the folder whose files are gone: all of them for a first time, then
// those with a name that nothing else is for.
func (k *Keeper) keepLast(next map[Pair]*held) {
	there := newStore(entries(next, false))
	lost := func(name string) bool { return !there.Covers(name) }
	for pair, old := range k.held {
		if next[pair] != nil || old.entry == nil {
			continue
		}
		h := *old
		h.gone = min(h.gone+1, patience)
		if h.gone < patience || len(there.all) == 0 || slices.ContainsFunc(h.entry.info.Names, lost) {
			next[pair] = &h
		}
	}
}

// orphan says whether the certificate has outlived its files.
func (h *held) orphan() bool { return h.gone >= patience }

// entries are the certificates in force, of pairs that are there, or of all.
func entries(of map[Pair]*held, all bool) []*entry {
	var list []*entry
	for _, h := range sorted(of) {
		if h.entry != nil && (all || !h.orphan()) {
			list = append(list, h.entry)
		}
	}
	return list
}

// sorted lists what is held in an order that is always the same.
func sorted(of map[Pair]*held) []*held {
	return slices.SortedFunc(maps.Values(of), func(a, b *held) int {
		if a.source != b.source {
			return strings.Compare(a.source, b.source)
		}
		return strings.Compare(a.pair.Cert+"\x00"+a.pair.Key, b.pair.Cert+"\x00"+b.pair.Key)
	})
}

// adopt puts in force what was read, and logs what differs from what was held. An error is
// logged when it was met so many times in a row; once is enough where somebody waits for it.
func (k *Keeper) adopt(next map[Pair]*held, times int) {
	changed := times == 1 || len(next) != len(k.held)
	for pair, h := range next {
		old := k.held[pair]
		changed = changed || old == nil || old.entry != h.entry || old.orphan() != h.orphan()
	}
	if changed {
		// First the certificates, then the words about them: who reads the log may act on it.
		store := newStore(entries(next, true))
		k.inForce.Store(&view{store: store, issuer: k.sources.Issuer})
	}
	was := k.held
	k.held = next
	k.say(was, times)
	if changed && k.sources.Issuer != nil {
		// What has lost its file is the issuer's from now on, even while it serves.
		there := newStore(entries(next, false))
		k.sources.Issuer.Keep(slices.DeleteFunc(slices.Clone(k.sources.Names), there.Covers))
	}
}

// say logs what has changed in what is held.
func (k *Keeper) say(was map[Pair]*held, times int) {
	k.tell(&k.folder, times, k.sources.Folder)
	for _, h := range sorted(k.held) {
		old := was[h.pair]
		if old == nil {
			old = &held{}
		}
		k.tell(&h.failing, times, h.pair.Cert)
		switch {
		case h.entry == nil:
		case old.orphan() && !h.orphan():
			k.log.Info("a certificate's file is back", h.fields()...)
		case h.orphan() && !old.orphan():
			k.log.Warn("a certificate's file is gone; it stays in force until a reload, as nothing else is for its names", h.fields()...)
		case was == nil: // all are new, and counted below
		case old.entry == nil:
			k.log.Info("a certificate is new", h.fields()...)
		case old.entry != h.entry:
			k.log.Info("a certificate is replaced", append(h.fields(), zap.Time("former_not_after", old.entry.info.NotAfter))...)
		}
		if h.entry != nil && h.entry != old.entry {
			if err := h.entry.info.Check(time.Now()); err != nil {
				k.log.Warn("a certificate is out of date; it is used where there is no better one", append(h.fields(), zap.Error(err))...)
			}
		}
	}
	for _, old := range sorted(was) {
		if k.held[old.pair] == nil && old.entry != nil {
			k.log.Info("a certificate is no longer there, and no longer used", old.fields()...)
		}
	}
	if was == nil && len(k.held) > 0 {
		k.log.Info("certificates are loaded", zap.Int("certificates", len(k.Store().all)))
	}
}

// tell logs an error once, at a reload once more, and its end.
func (k *Keeper) tell(f *failing, times int, file string) {
	switch {
	case f.err != nil && f.times >= times && (times == 1 || f.told != f.err.Error()):
		f.told = f.err.Error()
		k.log.Error("certificate files cannot be used; what was in force before stays so", zap.String("error", cleaned(f.told, maxText)))
	case f.err == nil && f.told != "":
		f.told = ""
		k.log.Info("certificate files are in order again", zap.String("file", cleaned(file, maxText)))
	}
}

// maxText bounds what a log line or a status says of file names and errors.
const maxText = 1000

// fields describe a certificate for the log.
func (h *held) fields() []zap.Field {
	return []zap.Field{
		zap.String("file", cleaned(h.pair.Cert, maxText)), zap.String("names", some(h.entry.info.Names)),
		zap.Stringer("key_type", h.entry.info.KeyType), zap.Time("not_after", h.entry.info.NotAfter),
	}
}

// some names the first of many names.
func some(names []string) string {
	const most = 5
	if len(names) > most {
		return fmt.Sprintf("%s and %d more", cleaned(strings.Join(names[:most], ", "), maxText), len(names)-most)
	}
	return cleaned(strings.Join(names, ", "), maxText)
}

// Get chooses the certificate for a handshake: of the files for the name that the client
// sent; if there are none, the issuer's for it, as far as own lets it; then the files' and
// the issuer's for fallback; at last any of the files. A client that sends no host name
// (none, an address, a word without a dot) gets what fallback would get.
//
// RSA is for clients that cannot do ECDSA, and for names that have nothing else. An own
// certificate out of date goes before the valid one of fallback, which has another
// name: a renewal mends the one and nothing the other.
//
// Without any certificate the error is [ErrNone] or [ErrNotYet]. Only own beyond [Keep] may
// wait, as [Issuer] says.
func (k *Keeper) Get(hello *tls.ClientHelloInfo, fallback string, own Own) (*tls.Certificate, error) {
	v := k.inForce.Load()
	nameless := *hello // the name is settled here; SupportsCertificate would hold it against a fallback
	nameless.ServerName = ""
	name := ""
	if len(hello.ServerName) <= maxHost+1 {
		name = Fold(hello.ServerName)
	}
	if found := v.store.named(name); found != nil {
		return pick(&nameless, found), nil
	}
	kind := ECDSA
	if v.issuer != nil && nameless.SupportsCertificate(&anyECDSA) != nil {
		kind = RSA
	}
	if own != Never && isHost(name) {
		if c := v.issued(hello, name, kind, own); c != nil {
			return c, nil
		}
	}
	fallback = Fold(fallback)
	if found := v.store.named(fallback); found != nil {
		return pick(&nameless, found), nil
	}
	if c := v.issued(hello, fallback, kind, Keep); c != nil {
		return c, nil
	}
	if kind == RSA {
		// As with files: the handshake fails, but for the true reason.
		if c := v.issued(hello, fallback, ECDSA, Keep); c != nil {
			return c, nil
		}
	}
	switch {
	case len(v.store.all) > 0:
		return pick(&nameless, v.store.all), nil
	case v.issuer != nil:
		return nil, ErrNotYet
	}
	return nil, ErrNone
}

// issued asks the issuer, for RSA too if it has no ECDSA. Why there is nothing, it says in
// the log itself.
func (v *view) issued(hello *tls.ClientHelloInfo, name string, kind KeyType, own Own) *tls.Certificate {
	if v.issuer == nil {
		return nil
	}
	ctx := hello.Context()
	if ctx == nil { // a hello that came by no connection
		ctx = context.Background()
	}
	c, err := v.issuer.Certificate(ctx, name, kind, own)
	if (err != nil || c == nil) && kind == ECDSA {
		c, err = v.issuer.Certificate(ctx, name, RSA, Keep)
	}
	if err != nil {
		return nil
	}
	return c
}

// isHost says whether a folded name can be that of a host in the DNS: it has a dot inside,
// and is no address. Whoever makes a path of it must look closer.
func isHost(name string) bool {
	if strings.Trim(name, ".") != name || !strings.Contains(name, ".") {
		return false
	}
	_, err := netip.ParseAddr(name)
	return err != nil
}

// anyECDSA stands for a certificate with a key on P-256 (which all have that have any), so
// that a hello can be asked whether it would do.
var anyECDSA = tls.Certificate{PrivateKey: onlyPublic{}}

type onlyPublic struct{}

func (onlyPublic) Public() crypto.PublicKey { return &ecdsa.PublicKey{Curve: elliptic.P256()} }

func (onlyPublic) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return nil, errors.New("there is no key")
}

// Store gives the certificates of files and folder that are in force.
func (k *Keeper) Store() *Store { return k.inForce.Load().store }

// Status describes all certificates, by name and kind of key, and the canonical names that
// have none.
func (k *Keeper) Status() []Status {
	k.mu.Lock()
	canonical := map[string]bool{}
	for _, name := range k.sources.Names {
		canonical[name] = true
	}
	var list []Status
	for _, h := range sorted(k.held) {
		if h.entry != nil {
			list = append(list, h.status(canonical)...)
		}
	}
	k.mu.Unlock()
	markSpare(list, time.Now())

	v := k.inForce.Load()
	if v.issuer != nil {
		list = append(list, v.issuer.Status()...)
	} else {
		for name := range canonical {
			if !v.store.Covers(name) {
				list = append(list, Status{Name: name, Canonical: true})
			}
		}
	}
	sortStatus(list)
	return list
}

// markSpare marks what is not served, as pick has it: what is valid goes before what is not, and
// what lasts longer before what ends first.
func markSpare(list []Status, now time.Time) {
	type kind struct {
		name string
		key  KeyType
	}
	best := map[kind]time.Time{} // the end of the best one that is valid
	for _, s := range list {
		if k := (kind{s.Name, s.KeyType}); !now.Before(s.NotBefore) && s.NotAfter.After(now) && s.NotAfter.After(best[k]) {
			best[k] = s.NotAfter
		}
	}
	for i, s := range list {
		end := best[kind{s.Name, s.KeyType}]
		list[i].Spare = !end.IsZero() && (now.Before(s.NotBefore) || s.NotAfter.Before(end))
	}
}

// status describes a pair, once for each name. A wildcard counts as canonical if it is
// for a canonical name.
func (h *held) status(canonical map[string]bool) []Status {
	leaf := h.entry.tls.Leaf
	s := Status{
		Source: h.source, File: h.pair.Cert, KeyType: h.entry.info.KeyType, Issuer: issuerOf(leaf),
		NotBefore: leaf.NotBefore, NotAfter: leaf.NotAfter, Renewed: h.made, Failures: h.times,
	}
	switch {
	case h.err != nil:
		s.Error = cleaned(h.err.Error(), maxText)
	case h.orphan():
		s.Error = "the file is gone"
	}
	names := h.entry.info.Names
	for _, ip := range leaf.IPAddresses {
		names = append(names[:len(names):len(names)], ip.String())
	}
	var list []Status
	for _, name := range names {
		s.Name, s.Canonical = name, canonical[name]
		if suffix, wild := strings.CutPrefix(name, "*"); wild {
			for c := range canonical {
				label, isUnder := strings.CutSuffix(c, suffix)
				s.Canonical = s.Canonical || isUnder && label != "" && !strings.Contains(label, ".")
			}
		}
		list = append(list, s)
	}
	return list
}

// report is what the log was told of a certificate in trouble, and when.
type report struct {
	at     time.Time
	urgent bool
}

// report logs what is in trouble, once a day for each certificate, and once more when it
// becomes urgent.
func (k *Keeper) report(now time.Time) {
	type trouble struct {
		Status
		names []string
	}
	var order []string
	found := map[string]*trouble{}
	for _, s := range k.Status() {
		if s.Trouble(now) == nil {
			continue
		}
		key := fmt.Sprint(s.Source, "\x00", s.File, "\x00", s.KeyType)
		if s.File == "" {
			key += "\x00" + s.Name
		}
		if found[key] == nil {
			order, found[key] = append(order, key), &trouble{Status: s}
		}
		found[key].names = append(found[key].names, s.Name)
	}

	k.mu.Lock()
	maps.DeleteFunc(k.told, func(key string, _ report) bool { return found[key] == nil })
	var due []*trouble
	for _, key := range order {
		t := found[key]
		last, before := k.told[key]
		if urgent := t.Urgent(now); !before || now.Sub(last.at) >= reportEvery || urgent && !last.urgent {
			k.told[key] = report{at: now, urgent: urgent}
			due = append(due, t)
		}
	}
	k.mu.Unlock()
	for _, t := range due {
		say := k.log.Warn
		if t.Urgent(now) {
			say = k.log.Error
		}
		say("a certificate is in trouble", zap.String("names", some(t.names)), zap.String("error", cleaned(t.Trouble(now).Error(), maxText)))
	}
}
