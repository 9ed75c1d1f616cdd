package proxy

// Counters and memories that all sessions share, each with a bound of its own.

import (
	"hash/maphash"
	"net/netip"
	"sync"
	"time"
)

// tally counts connections, in total and per client.
type tally struct {
	mu    sync.Mutex
	total int
	by    map[netip.Prefix]int
}

// client is what counts as one client: an IPv4 address, or an IPv6 /64, which
// is the least that a customer is given (RFC 6177).
func client(ip netip.Addr) netip.Prefix {
	ip = ip.Unmap().WithZone("")
	bits := ip.BitLen()
	if ip.Is6() {
		bits = 64
	}
	p, _ := ip.Prefix(bits) // the invalid address has the invalid prefix, one client like another
	return p
}

// add counts a connection and returns whether the bound for its client, 0 for
// none, still holds. A connection counted must be removed.
func (t *tally) add(ip netip.Addr, perClient int) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.by == nil {
		t.by = map[netip.Prefix]int{}
	}
	c := client(ip)
	if perClient > 0 && t.by[c] >= perClient {
		return false
	}
	t.by[c]++
	return true
}

func (t *tally) remove(ip netip.Addr) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := client(ip)
	if t.by[c]--; t.by[c] <= 0 {
		delete(t.by, c)
	}
}

// enter counts a socket against the total; leave takes it back.
func (t *tally) enter(bound int) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if bound > 0 && t.total >= bound {
		return false
	}
	t.total++
	return true
}

func (t *tally) leave() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.total--
}

const (
	// upgradersKept bounds the memory of clients that use STARTTLS.
	upgradersKept = 50_000
	// upgraderFor is how long one is remembered: a laptop comes back daily.
	upgraderFor = 48 * time.Hour
)

// upgraders remembers from where, on which listener, clients ask in clear what
// is offered and then go on to STARTTLS, so that these are not warned of
// plaintext in the moment before it. A client that upgrades without asking (as
// Thunderbird 153 does) hears no warning and need not be remembered: behind the
// same address another may sit that needs it.
type upgraders struct {
	mu   sync.Mutex
	last map[upgrader]time.Time
}

type upgrader struct {
	client   netip.Prefix
	listener string
}

func (u *upgraders) add(ip netip.Addr, listener string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.last == nil || len(u.last) >= upgradersKept {
		u.last = map[upgrader]time.Time{} // forgetting costs one superfluous warning each
	}
	u.last[upgrader{client(ip), listener}] = time.Now()
}

func (u *upgraders) has(ip netip.Addr, listener string) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	at, ok := u.last[upgrader{client(ip), listener}]
	return ok && time.Since(at) < upgraderFor
}

// warnedKept bounds the memory of warnings: twice as many are known at most, some
// ten megabytes.
const warnedKept = 1 << 18

// warned remembers who was warned of what today, for as long as the program
// runs: a restart costs one superfluous warning each. It keeps hashes alone,
// which tell nothing outside of this process.
type warned struct {
	mu          sync.Mutex
	seed        maphash.Seed
	now, before map[uint64]struct{} // once the one is full, it takes the place of the other
}

// first reports whether nobody has asked for the same yet, on that day.
func (w *warned) first(day time.Time, account, client, rule string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.now == nil {
		w.seed, w.now = maphash.MakeSeed(), map[uint64]struct{}{}
	}
	y, m, d := day.Date()
	key := maphash.Comparable(w.seed, struct {
		y, m, d               int
		account, client, rule string
	}{y, int(m), d, account, client, rule})
	if _, known := w.now[key]; known {
		return false
	}
	if _, known := w.before[key]; known {
		return false
	}
	if len(w.now) >= warnedKept {
		w.now, w.before = map[uint64]struct{}{}, w.now
	}
	w.now[key] = struct{}{}
	return true
}

// sometimes lets one line a second through, and counts the others.
type sometimes struct {
	mu   sync.Mutex
	last time.Time
	held int
}

// ready reports whether to speak, and how many were held back since.
func (s *sometimes) ready() (held int, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if time.Since(s.last) < time.Second {
		s.held++
		return 0, false
	}
	held, s.held, s.last = s.held, 0, time.Now()
	return held, true
}
