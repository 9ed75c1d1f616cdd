package logs

import (
	"bufio"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"mailreeve/events"
)

// now is the day after the lines of the tests.
var now = time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC)

// say puts into words what a parser made of a line.
func say(s *events.Session, v Verdict) string {
	if s == nil {
		return v.String()
	}
	words := []string{v.String(), s.Time.Format(time.RFC3339), s.Protocol}
	add := func(is bool, format string, args ...any) {
		if is {
			words = append(words, fmt.Sprintf(format, args...))
		}
	}
	add(s.Port != 0, "%d", s.Port)
	add(s.Entry != "", "%s", s.Entry)
	tls := s.TLS
	if tls == "" {
		tls = "?"
	}
	add(true, "tls=%s", tls)
	add(s.CipherClass != "", "%s", s.CipherClass)
	add(s.SNI != "", "sni=%s", s.SNI)
	add(s.Host != "", "host=%s", s.Host)
	add(s.Brand != "", "brand=%s", s.Brand)
	add(s.Mechanism != "", "mech=%s", s.Mechanism)
	add(s.Exposed, "exposed")
	add(s.Verified, "account=%s", s.Account)
	add(true, "%s", s.UserForm)
	add(s.IP.IsValid(), "ip=%s", s.IP)
	add(s.Client != "", "client=%s", s.Client)
	add(len(s.ClientID) > 0, "%v", slices.Sorted(maps.Keys(s.ClientID)))
	return strings.Join(words, " ")
}

// told begins the title of a section whose log is in a form told by the operator.
const told = "told by the operator: "

// Each file has sections with a log each: a line, and below it what it says.
func TestLines(t *testing.T) {
	for file, parser := range map[string]func(Options) *Parser{"dovecot": Dovecot, "postfix": Postfix} {
		text, err := os.ReadFile("testdata/" + file + ".txt")
		if err != nil {
			t.Fatal(err)
		}
		var p *Parser
		var line string
		lines := bufio.NewScanner(strings.NewReader(string(text)))
		for n := 1; lines.Scan(); n++ {
			title, begins := strings.CutPrefix(lines.Text(), "# ")
			want, says := strings.CutPrefix(lines.Text(), "=> ")
			switch {
			case begins:
				opt := Options{Zone: time.UTC, Now: now}
				if elements, ok := strings.CutPrefix(title, told); ok {
					opt.Elements = elements
				}
				p = parser(opt)
			case says:
				if got := say(p.Line([]byte(line))); got != want {
					t.Errorf("%s.txt:%d: %s\n got %s\nwant %s", file, n, line, got, want)
				}
			default:
				line = lines.Text()
			}
		}
	}
}

// Every session is one that a reader of events takes.
func TestSessionIsAnEvent(t *testing.T) {
	p := Dovecot(Options{Zone: time.UTC, Now: now, Brand: "regio", Host: func(protocol, name string) (string, string) {
		return "legacy", strings.ToUpper(protocol + " " + name)
	}})
	const line = "Nov 21 06:25:01 mail dovecot: imap-login: Login: user=<anna@Example.Test>, method=PLAIN, rip=192.0.2.7"
	s, v := p.Line([]byte(line))
	if v != Login || s.V != events.Version || s.Kind != "session" || s.Brand != "regio" || s.Domain != "example.test" || s.Host != "" || !s.Verified {
		t.Errorf("%v %+v", v, s)
	}
	s, _ = p.Line([]byte(line + ", local_name=<Mail.Example.Test>"))
	if s.Host != "legacy" || s.SNI != "mail.example.test" || s.Brand != "IMAP MAIL.EXAMPLE.TEST" {
		t.Errorf("%+v", s)
	}
}

// stamped is the time of a line with this stamp.
func stamped(t *testing.T, p *Parser, stamp string) time.Time {
	t.Helper()
	s, _ := p.Line([]byte(stamp + " mail dovecot: imap-login: Login: user=<anna>, method=PLAIN, rip=192.0.2.7"))
	if s == nil {
		t.Fatalf("%q is not understood", stamp)
	}
	return s.Time
}

func TestYear(t *testing.T) {
	zone, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	type step struct{ stamp, want string }
	for _, c := range []struct {
		name  string
		opt   Options
		steps []step
	}{
		{"the last in which it is past, or just to come", Options{Now: time.Date(2026, 1, 2, 0, 30, 0, 0, zone), Zone: zone}, []step{
			{"Jan  3 00:30:00", "2026-01-02T23:30:00Z"},
			{"Jan  3 00:30:01", "2025-01-02T23:30:01Z"},
			{"Dec 31 23:59:59", "2025-12-31T22:59:59Z"},
			{"Jul  1 12:00:00", "2025-07-01T10:00:00Z"},
			{"Feb 29 12:00:00", "2024-02-29T11:00:00Z"},
		}},
		{"a clock that goes ahead at the turn of the year", Options{Now: time.Date(2026, 12, 31, 23, 59, 0, 0, time.UTC), Zone: time.UTC}, []step{
			{"Jan  1 00:00:01", "2027-01-01T00:00:01Z"},
			{"Dec 31 23:58:00", "2026-12-31T23:58:00Z"},
		}},
		{"told", Options{Now: now, Year: 2024, Zone: time.UTC}, []step{
			{"Feb 29 12:00:00", "2024-02-29T12:00:00Z"},
			{"Dec 31 23:59:59", "2024-12-31T23:59:59Z"},
			{"Jan  1 00:00:00", "2025-01-01T00:00:00Z"},
			{"Dec 31 23:59:58", "2024-12-31T23:59:58Z"},
			{"Jan  1 00:00:01", "2025-01-01T00:00:01Z"},
			{"Mar  1 00:00:01", "2025-03-01T00:00:01Z"},
		}},
		{"a year in the stamp counts", Options{Now: now, Year: 2024, Zone: zone}, []step{
			{"2023-07-01T12:00:00", "2023-07-01T10:00:00Z"},
			{"2023-07-01T12:00:00.5Z", "2023-07-01T12:00:00Z"},
			{"2023-07-01T12:00:00-0130", "2023-07-01T13:30:00Z"},
		}},
	} {
		p := Dovecot(c.opt)
		for _, s := range c.steps {
			if got := stamped(t, p, s.stamp).Format(time.RFC3339); got != s.want {
				t.Errorf("%s: %s is %s, want %s", c.name, s.stamp, got, s.want)
			}
		}
	}
	for _, stamp := range []string{"Feb 30 12:00:00", "Nov 21 24:00:00", "Nov 21 6:25", "Nov 21 06:25:01 2026", "2026-13-01T00:00:00Z", "2026-11-21T06:25:01 CET"} {
		p := Dovecot(Options{Now: now, Zone: time.UTC})
		if s, v := p.Line([]byte(stamp + " mail dovecot: imap-login: Login: user=<anna>, method=PLAIN, rip=192.0.2.7")); v != Unknown {
			t.Errorf("%q is read as %v", stamp, s)
		}
	}
	// 29 February of a year that has none.
	if s, v := Dovecot(Options{Year: 2025}).Line([]byte("Feb 29 06:25:01 mail dovecot: imap-login: Login: user=<anna>, method=PLAIN, rip=192.0.2.7")); v != Unknown {
		t.Errorf("a day that never was is read as %v", s)
	}
}

// Lines that are too long are nobody's, and names that are too long nobody's in particular.
func TestLong(t *testing.T) {
	const begin, end = "Nov 21 06:25:01 mail dovecot: imap-login: Login: user=<", ">, method=PLAIN, rip=192.0.2.7"
	p := Dovecot(Options{Now: now})
	for _, c := range []struct {
		n    int
		want Verdict
	}{{mostName, Login}, {mostName + 1, Unknown}, {mostLine - len(begin+end), Unknown}, {mostLine - len(begin+end) + 1, Foreign}} {
		if _, v := p.Line([]byte(begin + strings.Repeat("a", c.n) + end)); v != c.want {
			t.Errorf("a name of %d bytes: %v, want %v", c.n, v, c.want)
		}
	}
}

// What is remembered has an end, and the oldest goes first.
func TestMemoryIsBounded(t *testing.T) {
	p := Postfix(Options{Zone: time.UTC, Now: now})
	line := func(format string, args ...any) string {
		return say(p.Line([]byte("Nov 21 06:25:01 mx postfix/submission/smtpd" + fmt.Sprintf(format, args...))))
	}
	line("[1]: Anonymous TLS connection established from x[192.0.2.7]: TLSv1.2 with cipher AES128-SHA (128/128 bits)")
	for pid := range mostConnections + 1 {
		line("[%d]: connect from x[192.0.2.7]", pid)
	}
	const message = "[%d]: 3F2A91C0042: client=x[192.0.2.7], sasl_method=PLAIN, sasl_username=anna"
	if got := line(message, 0); !strings.Contains(got, "tls=?") {
		t.Errorf("the oldest: %s", got)
	}
	if got := line(message, 2); !strings.Contains(got, "tls=none") {
		t.Errorf("a younger one: %s", got)
	}
	m := newMemory[int](3)
	for n := range 10 {
		m.put(fmt.Sprint(n%5), n)
		if len(m.byKey) > 3 || m.age.Len() != len(m.byKey) {
			t.Fatalf("%d keys, %d values", len(m.byKey), m.age.Len())
		}
	}
	if m.get("4") != 9 || m.get("1") != 0 || m.take("3") != 8 || m.take("3") != 0 {
		t.Error("it keeps the wrong ones")
	}
}

// The log of a busy day must be read in minutes: go test -bench Line -benchmem.
func BenchmarkLine(b *testing.B) {
	for _, c := range []struct {
		name  string
		p     *Parser
		lines []string
	}{
		{"Dovecot", Dovecot(Options{Zone: time.UTC, Now: now}), []string{
			"Nov 21 06:25:01 mail dovecot: imap-login: Login: user=<anna@example.test>, method=PLAIN, rip=192.0.2.7, lip=198.51.100.1, mpid=1, TLS, session=<a>",
			"Nov 21 06:25:01 mail dovecot: imap(anna@example.test)<1><a>: Disconnected: Logged out in=10 out=20",
		}},
		{"Postfix", Postfix(Options{Zone: time.UTC, Now: now}), []string{
			"Nov 21 06:25:01 mx postfix/submission/smtpd[101]: connect from pc.example.net[192.0.2.7]",
			"Nov 21 06:25:01 mx postfix/submission/smtpd[101]: Anonymous TLS connection established from pc.example.net[192.0.2.7]: TLSv1.2 with cipher ECDHE-RSA-AES256-GCM-SHA384 (256/256 bits)",
			"Nov 21 06:25:01 mx postfix/submission/smtpd[101]: 3F2A91C0042: client=pc.example.net[192.0.2.7], sasl_method=PLAIN, sasl_username=anna@example.test",
			"Nov 21 06:25:01 mx postfix/submission/smtpd[101]: disconnect from pc.example.net[192.0.2.7] ehlo=2 starttls=1 auth=1 mail=1 rcpt=1 data=1 quit=1 commands=8",
		}},
	} {
		b.Run(c.name, func(b *testing.B) {
			for b.Loop() {
				logins := 0
				for _, line := range c.lines {
					if _, v := c.p.Line([]byte(line)); v == Login {
						logins++
					}
				}
				if logins != 1 {
					b.Fatalf("%d logins", logins)
				}
			}
			b.ReportMetric(float64(len(c.lines))*float64(b.N)/b.Elapsed().Seconds(), "lines/s")
		})
	}
}
