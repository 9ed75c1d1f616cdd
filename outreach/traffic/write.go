package traffic

// Writing what the proxy would have recorded.

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"mailreeve/events"
	"mailreeve/policy"
)

// Written is how much there was of it.
type Written struct {
	Events int
	Bytes  int64
}

// Write writes all events into a directory, as [events.Log] does: in the order in which
// sessions ended, a file for each day of UTC, the last one without its date. Where done is given,
// it is called with each file that is complete, and may remove it. Of the sessions
// no more than a day's are held at once.
func (w *World) Write(dir string, done func(path string) error) (total Written, err error) {
	f := &files{dir: dir, done: done}
	err = w.sessions(func(e *events.Session, end time.Time) error {
		line, err := events.Encode(e)
		if err != nil {
			return err
		}
		total.Events++
		total.Bytes += int64(len(line))
		return f.write(line, end.UTC().Format(time.DateOnly))
	})
	if err := errors.Join(err, f.finish(true)); err != nil {
		return total, fmt.Errorf("writing traffic: %w", err)
	}
	return total, nil
}

// WriteDovecot writes the lines that Dovecot logs of the same logins by IMAP and POP3,
// in the form that Debian 12 gives them, into one file.
func (w *World) WriteDovecot(path string) (total Written, err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return total, fmt.Errorf("writing traffic: %w", err)
	}
	out := bufio.NewWriterSize(f, 1<<20)
	err = w.sessions(func(e *events.Session, _ time.Time) error {
		if line := dovecot(e, w.Zone); line != "" {
			total.Events++
			total.Bytes += int64(len(line))
			_, err := out.WriteString(line)
			return err
		}
		return nil
	})
	if err := errors.Join(err, out.Flush(), f.Close()); err != nil {
		return total, fmt.Errorf("writing traffic: %w", err)
	}
	return total, nil
}

// dovecot is its line of a session; empty where it has none.
func dovecot(e *events.Session, zone *time.Location) string {
	if !e.Verified || e.Protocol == submission {
		return ""
	}
	method := e.Mechanism
	if method == policy.UserPass {
		method = "PLAIN" // it calls its own commands so
	}
	tls := ""
	if e.TLS != policy.None {
		tls = ", TLS"
	}
	return fmt.Sprintf("%s mx1 dovecot: %s-login: Login: user=<%s>, method=%s, rip=%s, lip=192.0.2.1, mpid=%d%s, session=<%s>\n",
		e.Time.In(zone).Format("2006-01-02T15:04:05.000000-07:00"), e.Protocol, e.Account, method, e.IP, 1000+e.BytesIn, tls, e.ID)
}

// files are those of a log.
type files struct {
	dir  string
	done func(string) error
	date string
	file *os.File
	out  *bufio.Writer
}

func (f *files) write(line []byte, date string) error {
	if date != f.date {
		if err := f.finish(false); err != nil {
			return err
		}
		var err error
		if f.file, err = os.OpenFile(filepath.Join(f.dir, "events.jsonl"), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600); err != nil {
			return err
		}
		f.date, f.out = date, bufio.NewWriterSize(f.file, 1<<20)
	}
	_, err := f.out.Write(line)
	return err
}

// finish completes a file, and gives it its name if it is not the last.
func (f *files) finish(last bool) error {
	if f.file == nil {
		return nil
	}
	path := f.file.Name()
	err := errors.Join(f.out.Flush(), f.file.Close())
	f.file = nil
	if !last && err == nil {
		dated := filepath.Join(f.dir, "events-"+f.date+".jsonl")
		err = os.Rename(path, dated)
		path = dated
	}
	if f.done != nil && err == nil {
		err = f.done(path)
	}
	return err
}

// sessions plays all days, and calls each with every session in the order of their ends.
func (w *World) sessions(each func(e *events.Session, end time.Time) error) error {
	var open []session
	for day := range w.Days {
		late := len(open) // of the day before
		for i := range w.people {
			for which := range w.people[i].devices {
				open = w.day(&w.people[i], i, which, day, open)
			}
		}
		open = w.robots(day, len(open)-late, open)
		slices.SortFunc(open, func(a, b session) int {
			return cmp.Or(cmp.Compare(a.end(), b.end()), cmp.Compare(a.lot, b.lot))
		})
		// None that begins later ends before the next day.
		n := len(open)
		if day < w.Days-1 {
			next := w.days[day+1].UnixNano()
			n, _ = slices.BinarySearchFunc(open, next, func(s session, t int64) int { return cmp.Compare(s.end(), t) })
		}
		for i := range n {
			s := &open[i]
			if err := each(w.event(s), time.Unix(0, s.end())); err != nil {
				return err
			}
		}
		open = slices.Delete(open, 0, n)
	}
	return nil
}

// robots add sessions that guess passwords, from everywhere.
func (w *World) robots(day, beside int, to []session) []session {
	by := throw(w.Seed, 3, uint64(day))
	for range w.robotsBeside(beside) {
		to = append(to, session{start: w.when(day, &by), seconds: float32(3 * by.part()), kind: robot, lot: uint32(by.next())})
	}
	return to
}

// robotsBeside is how many sessions of robots there are beside so many of customers.
func (w *World) robotsBeside(n int) int { return int(float64(n) * w.mix.Robots) }

// stand is what policy says of a session.
type stand struct {
	do   policy.Action
	rule string
	from time.Time
	by   []string
}

// judge asks the world's policy.
func (w *World) judge(p *person, wrong faults, now time.Time) (s stand) {
	for i := range w.Demands {
		d := &w.Demands[i]
		do := d.at(now)
		if do == policy.Pass || finding[d.Fault]&wrong == 0 {
			continue
		}
		if w.spared(p, d.ID) {
			do = min(do, policy.Observe)
		}
		s.by = append(s.by, d.ID)
		if s.rule == "" || do > s.do {
			s.do, s.rule = do, d.ID
			for _, stage := range d.Stages {
				if !stage.From.After(now) {
					s.from = stage.From
				}
			}
		}
	}
	return s
}

// spared says that an exception keeps a demand from an account.
func (w *World) spared(p *person, demand string) bool {
	return slices.Contains(w.exempt[p.account], demand) || slices.Contains(w.exempt[p.domain], demand)
}

// verified says that the backend saw the password of a session and took it: in plaintext
// a refusal does not wait for that.
func (s *session) verified(do policy.Action) bool {
	return s.kind == login && !(do.Refuses() && s.wrong&plaintext != 0)
}

// shown says that a warning was shown beside a login: only IMAP can, and it does so once a
// day.
func (s *session) shown(protocol string, do policy.Action) bool {
	return do == policy.Warn && protocol == imap && s.first
}

// event is a session's record.
func (w *World) event(s *session) *events.Session {
	begun := time.Unix(0, s.start).UTC().Truncate(time.Millisecond)
	by := throw(w.Seed, 4, uint64(s.lot), uint64(s.start))
	e := &events.Session{Time: begun, ID: letters(&by, 12), Seconds: float64(s.seconds), Policy: "traffic@5eed5eed5eed",
		Action: policy.Pass.String(), Decided: begun.Add(40 * time.Millisecond), Attempts: 1, BytesIn: int64(40 + by.below(400)), BytesOut: int64(300 + by.below(40_000)),
		End: "CR", Reason: "client_closed", Sentence: "the client closed the connection"}
	if s.kind == robot {
		w.mischief(e, s, &by)
		return e
	}
	p := &w.people[s.person]
	d := &p.devices[s.device]
	e.IP = w.address(p, d, s, w.dayOf(begun))
	w.setting(p, d, s.wrong).into(e)
	e.Resumed = e.TLS == "1.3" && by.happens(0.4)
	if e.Entry == policy.EntryImplicit && by.happens(0.2) {
		e.ALPN = map[string]string{imap: "imap", pop3: "pop3"}[e.Protocol]
	}
	if d.protocol == submission {
		e.Hello = d.hello
		e.Client = d.hello
	}
	stand := w.judge(p, s.wrong, begun)
	e.Action, e.By, e.Rule, e.Stage = stand.do.String(), stand.by, stand.rule, stand.from
	if e.Verified = s.verified(stand.do); e.Verified {
		e.Account, e.Domain, e.Backend = p.account, p.domain, "10.255.0.5:143"
		e.Exposed = s.wrong&plaintext != 0 && (e.Mechanism == "PLAIN" || e.Mechanism == "LOGIN" || e.Mechanism == policy.UserPass)
		e.Told = s.shown(d.protocol, stand.do)
		if by.happens(0.005) {
			e.Attempts = 2
		}
		// IMAP ID comes after the login, for the most part, and is missed where that is refused.
		if d.protocol == imap && d.form.id != nil {
			e.ClientID = d.form.id(d.version)
			e.Client = strings.TrimSpace(e.ClientID["name"] + " " + e.ClientID["version"])
		}
	}
	switch {
	case s.kind == typo:
		e.Refused, e.End, e.Reason, e.Sentence = "credential", "CD", "client_quit", "the client took its leave before a login"
	case stand.do.Refuses():
		e.Refused, e.End, e.Reason, e.Sentence = "policy", "PD", "policy_refused", "policy refused the login"
	}
	return e
}

// dayOf is the day on which an instant lies, from 0.
func (w *World) dayOf(t time.Time) int {
	day, begins := slices.BinarySearchFunc(w.days, t, time.Time.Compare)
	if !begins {
		day--
	}
	return day
}

// mischief is a robot's session: a guessed password, a port scan, a broken handshake.
func (w *World) mischief(e *events.Session, s *session, by *dice) {
	b := oneOf(by, w.Brands)
	port := oneOf(by, []int{143, 993, 110, 995, 25, 587, 587, 587, 465})
	e.Brand, e.Port, e.Listener = b.Name, port, b.Name+"-"+services[port]
	e.Protocol = map[int]string{143: imap, 993: imap, 110: pop3, 995: pop3}[port]
	if e.Protocol == "" {
		e.Protocol = submission
	}
	e.IP = netip.AddrFrom4([4]byte{172, 16 + byte(s.lot>>24)%16, byte(s.lot >> 16), byte(s.lot >> 8)})
	e.Entry, e.TLS = policy.EntryPlain, policy.None
	implicit := port == 993 || port == 995 || port == 465
	if implicit || by.happens(0.3) {
		e.Entry, e.TLS, e.Cipher, e.CipherClass, e.Host = policy.EntryStartTLS, "1.2", ciphers["1.2"], policy.Modern, policy.Absent
		if implicit {
			e.Entry = policy.EntryImplicit
		}
	}
	e.End, e.Reason, e.Sentence, e.Attempts = "CD", "client_closed", "the client closed the connection", 0
	e.BytesOut /= 20
	if by.happens(0.1) {
		return
	}
	e.Attempts, e.Refused = 1+by.below(3), "credential"
	e.Mechanism, e.UserForm = oneOf(by, []string{"LOGIN", "PLAIN", policy.UserPass, "CRAM-MD5"}), oneOf(by, []string{"address", "address", "bare"})
	if e.Protocol == submission {
		e.Hello = oneOf(by, []string{"User", "ylmf-pc", "[127.0.0.1]", "WIN-" + letters(by, 11)})
		e.Client = e.Hello
	}
}

// ciphers are what goes with each version.
var ciphers = map[string]string{
	"1.3": "TLS_AES_128_GCM_SHA256", "1.2": "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
	"1.1": "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA", "1.0": "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
}
