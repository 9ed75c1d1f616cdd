package policy

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"
	"time"
	_ "time/tzdata"
)

var berlin = zone("Europe/Berlin")

func zone(name string) *time.Location {
	z, err := time.LoadLocation(name)
	if err != nil {
		panic(err) // the list of zones is part of this test
	}
	return z
}

var noClear = Matcher{{Fact: TLS, Not: true, Values: []string{None}}}

// TestBucket holds the bytes that are drawn from: with others, everybody's draw
// changes.
func TestBucket(t *testing.T) {
	sum := sha256.Sum256([]byte("v1\x00encrypted\x00anna@example.org"))
	want := Share(binary.BigEndian.Uint64(sum[:8]) % 100_000)
	if got := Bucket("encrypted", "anna@example.org"); want != 37715 || got != want {
		t.Errorf("got %d, want %d", got, want)
	}
}

func one(t *testing.T, stages ...Stage) *Policy {
	t.Helper()
	p, err := New("one", []Requirement{{ID: "encrypted", Finding: Plaintext, Require: noClear, Stages: stages}})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestWhoLiesOutsideAShare(t *testing.T) {
	in, out := "", ""
	for i := 0; in == "" || out == ""; i++ {
		if a := fmt.Sprint("a", i); Bucket("encrypted", a) < 50_000 {
			in = a
		} else {
			out = a
		}
	}
	early := Stage{From: noon.Add(-2 * time.Hour), Do: Notify}
	half := Stage{From: noon.Add(-time.Hour), Do: TempFail, Share: 50_000}
	more := Stage{From: noon, Do: Deny, Share: 50_000}
	for _, c := range []struct {
		name    string
		stages  []Stage
		account string
		want    Action
		stage   Action // what the stage of the verdict does
	}{
		{"inside", []Stage{early, half, more}, in, Deny, Deny},
		{"outside: the last without a share", []Stage{early, half, more}, out, Notify, Notify},
		{"outside: there is none", []Stage{half, more}, out, Pass, Pass},
		{"unknown: as outside", []Stage{early, half, more}, "", Notify, Notify},
		{"all", []Stage{early, {From: noon, Do: Deny, Share: Everybody}}, out, Deny, Deny},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := one(t, c.stages...).Decide(facts(TLS, None, Account, c.account), noon)
			if v.Action != c.want || v.Stage != nil && v.Stage.Do != c.stage || (v.Rule == nil) != (c.want == Pass) {
				t.Errorf("got %v", v)
			}
			bucket, drawn := v.Bucket()
			if v.Rule != nil && c.name != "all" && (drawn != (c.account != "") || drawn && bucket != int(Bucket("encrypted", c.account))) {
				t.Errorf("bucket %d, %t", bucket, drawn)
			}
		})
	}
	low, high := one(t, early, half, more).Bounds(facts(TLS, None), noon)
	if low.Action != Notify || high.Action != Deny {
		t.Errorf("bounds %v to %v", low.Action, high.Action)
	}
}

func TestBrownouts(t *testing.T) {
	const day = time.DateTime
	at := func(z *time.Location, text string) time.Time {
		now, err := time.ParseInLocation(day, text, z)
		if err != nil {
			t.Fatal(err)
		}
		return now
	}
	utc := func(text string) time.Time { return at(time.UTC, text) }
	window := func(z *time.Location, clock, length time.Duration, days ...time.Weekday) *Brownout {
		b := &Brownout{Do: TempFail, At: clock, For: length, Zone: z}
		for _, d := range days {
			b.Days[d] = true
		}
		return b
	}
	half := 30 * time.Minute
	for _, c := range []struct {
		name        string
		b           *Brownout
		begin, end  time.Time // of the window that the instants below lie about
		from, until time.Time // of the stage
	}{
		{"in summer", window(berlin, 10*time.Hour, half, time.Wednesday), utc("2024-09-11 08:00:00"), utc("2024-09-11 08:30:00"), time.Time{}, time.Time{}},
		{"in winter", window(berlin, 10*time.Hour, half, time.Wednesday), utc("2024-12-11 09:00:00"), utc("2024-12-11 09:30:00"), time.Time{}, time.Time{}},
		{"in UTC", window(nil, 10*time.Hour, half, time.Wednesday), utc("2024-12-11 10:00:00"), utc("2024-12-11 10:30:00"), time.Time{}, time.Time{}},
		{"over midnight", window(berlin, 23*time.Hour+45*time.Minute, time.Hour, time.Monday), utc("2024-12-09 22:45:00"), utc("2024-12-09 23:45:00"), time.Time{}, time.Time{}},
		{"over days", window(berlin, 12*time.Hour, 60*time.Hour, time.Friday), utc("2024-12-06 11:00:00"), utc("2024-12-08 23:00:00"), time.Time{}, time.Time{}},
		{"a clock that jumps over it", window(berlin, 2*time.Hour+30*time.Minute, half, time.Sunday), utc("2024-03-31 01:00:00"), utc("2024-03-31 01:30:00"), time.Time{}, time.Time{}},
		{"a clock that jumps within", window(berlin, time.Hour+45*time.Minute, half, time.Sunday), utc("2024-03-31 00:45:00"), utc("2024-03-31 01:15:00"), time.Time{}, time.Time{}},
		{"a clock that shows it twice", window(berlin, 2*time.Hour+30*time.Minute, half, time.Sunday), utc("2024-10-27 00:30:00"), utc("2024-10-27 01:00:00"), time.Time{}, time.Time{}},
		{"the day of 25 hours", window(berlin, 23*time.Hour, 2*time.Hour, time.Sunday), utc("2024-10-27 22:00:00"), utc("2024-10-28 00:00:00"), time.Time{}, time.Time{}},
		{"half an hour", window(zone("Australia/Lord_Howe"), 2*time.Hour+15*time.Minute, half, time.Sunday), utc("2024-10-05 15:30:00"), utc("2024-10-05 16:00:00"), time.Time{}, time.Time{}},
		{"a midnight that is not", window(zone("America/Santiago"), 0, half, time.Sunday), utc("2024-09-08 04:00:00"), utc("2024-09-08 04:30:00"), time.Time{}, time.Time{}},
		{"the stage ends within", window(berlin, 10*time.Hour, half, time.Wednesday), utc("2024-09-11 08:00:00"), utc("2024-09-11 08:10:00"), time.Time{}, utc("2024-09-11 08:10:00")},
	} {
		t.Run(c.name, func(t *testing.T) {
			stages := []Stage{{From: c.from, Do: Notify, Brownout: c.b}}
			if !c.until.IsZero() {
				stages = append(stages, Stage{From: c.until, Do: Deny})
			}
			p := one(t, stages...)
			for _, moment := range []struct {
				now  time.Time
				open bool
			}{{c.begin.Add(-1), false}, {c.begin, true}, {c.end.Add(-1), true}, {c.end, false}} {
				v := p.Decide(facts(TLS, None), moment.now)
				if open := v.Action == TempFail; open != moment.open {
					t.Errorf("at %v: open is %t", moment.now.In(c.b.zone()), open)
				}
				if v.Action == TempFail && !v.Until.Equal(c.end) {
					t.Errorf("at %v: until %v, want %v", moment.now, v.Until.UTC(), c.end)
				}
			}
		})
	}
	t.Run("one that begins before the stage", func(t *testing.T) {
		from := utc("2024-09-11 08:10:00")
		p := one(t, Stage{From: from, Do: Notify, Brownout: window(berlin, 10*time.Hour, half, time.Wednesday)})
		if v := p.Decide(facts(TLS, None), from); v.Action != Notify {
			t.Errorf("got %v", v.Action)
		}
	})
}

// TestWall asks what the clocks of many zones show at the instants that wall returns.
func TestWall(t *testing.T) {
	for _, name := range []string{"Europe/Berlin", "America/Santiago", "Australia/Lord_Howe", "Africa/Casablanca", "Asia/Beirut", "Asia/Kathmandu", "UTC"} {
		z := zone(name)
		last := time.Time{}
		for day := range 366 {
			for hour := range 24 {
				clock := time.Duration(hour)*time.Hour + 15*time.Minute
				got := wall(2024, time.January, 1+day, clock, z)
				want := time.Date(2024, time.January, 1+day, hour, 15, 0, 0, z)
				h, m, _ := got.In(z).Clock()
				switch shown := h == hour && m == 15; {
				case got.Before(last):
					t.Fatalf("%s: %v lies before %v", name, got, last)
				case shown && got.After(want):
					t.Fatalf("%s: %v is not the first %v", name, got, want)
				case !shown:
					begin, _ := got.ZoneBounds()
					if wh, wm, _ := want.Clock(); !begin.Equal(got) || wh == hour && wm == 15 {
						t.Fatalf("%s: day %d, %v: got %v", name, day, clock, got)
					}
				}
				last = got
			}
		}
	}
}

func TestRatchet(t *testing.T) {
	p := one(t, Stage{Do: Warn, Ratchet: &Ratchet{Clean: 60 * 24 * time.Hour, Do: Deny}})
	for ledger, want := range map[string]Action{"": Warn, Open: Warn, Fixed: Warn, Exempt: Warn, Clean: Deny} {
		if v := p.Decide(facts(TLS, None, Ledger, ledger), noon); v.Action != want {
			t.Errorf("ledger %q: got %v, want %v", ledger, v.Action, want)
		}
	}
	if low, high := p.Bounds(facts(TLS, None), noon); low.Action != Warn || high.Action != Deny {
		t.Errorf("ledger unknown: bounds %v to %v", low.Action, high.Action)
	}
}

func TestProbe(t *testing.T) {
	p, err := New("probe", []Requirement{{ID: "password-only", Finding: Mechanism, Require: Matcher{{Fact: Mech, Values: []string{"PLAIN"}}},
		Stages: []Stage{{Do: Notify, Probe: 10_000}}}},
		Exception{ID: "x", For: []string{"password-only"}, Match: Matcher{{Networks: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}}, Cap: Observe, Until: noon.Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	hidden, networks := 0, 0
	for a := range 100 {
		for b := range 100 {
			f := facts(Mech, "CRAM-MD5")
			f.IP = netip.AddrFrom4([4]byte{byte(11 + a), byte(b), 0, 1})
			first := p.Probed(nil, f, noon)
			networks++
			if first {
				hidden++
			}
			if p.Decide(f, noon).Action != Notify {
				t.Fatalf("a probe changed the decision for %v", f.IP)
			}
			f.IP = netip.AddrFrom4([4]byte{byte(11 + a), byte(b), 0, 254})
			if p.Probed(nil, f, noon) != first {
				t.Fatalf("%v is not treated as its neighbour", f.IP)
			}
			if hold := (&Hold{Cap: Deny, Since: noon, Until: noon.Add(1)}); p.Probed(hold, f, noon) {
				t.Fatal("hidden under a hold")
			}
			f.Set(Mech, "PLAIN")
			if p.Probed(nil, f, noon) {
				t.Fatal("the good mechanism is hidden")
			}
			f.Set(Mech, "CRAM-MD5")
			f.IP = netip.AddrFrom4([4]byte{10, byte(a), byte(b), 1})
			if p.Probed(nil, f, noon) {
				t.Fatal("hidden from a network with an exception")
			}
		}
	}
	if share := float64(hidden) / float64(networks); share < 0.09 || share > 0.11 {
		t.Errorf("hidden from %.3f of the networks", share)
	}
}

func TestWhatIsToCome(t *testing.T) {
	p := one(t, Stage{From: noon, Do: Notify}, Stage{From: noon.Add(time.Hour), Do: Warn}, Stage{From: noon.Add(2 * time.Hour), Do: Deny})
	v := p.Decide(facts(TLS, None), noon)
	if v.Next == nil || !v.Next.From.Equal(noon.Add(time.Hour)) {
		t.Errorf("next: %v", v.Next)
	}
	if from, planned := v.Refused(); !planned || !from.Equal(noon.Add(2*time.Hour)) {
		t.Errorf("refused from %v on, %t", from, planned)
	}
	if _, planned := p.Decide(facts(TLS, None), noon.Add(2*time.Hour)).Refused(); planned {
		t.Error("refused already, and planned")
	}
	if _, planned := p.Decide(facts(TLS, "1.3"), noon).Refused(); planned {
		t.Error("not violated, and planned")
	}
}

// large is a policy with ten thousand exceptions.
func large(tb testing.TB) *Policy {
	tb.Helper()
	exceptions := make([]Exception, 10_000)
	for i := range exceptions {
		e := Exception{ID: fmt.Sprintf("ex-%05d", i), For: []string{"encrypted"}, Cap: Notify, Until: noon.AddDate(0, 0, 1+i%180),
			Match: Matcher{{Fact: Account, Values: []string{fmt.Sprintf("scanner%d@example.org", i)}}}}
		if i%2 == 0 {
			e.Match = append(e.Match, Term{Networks: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{198, byte(i >> 8), byte(i), 0}), 24)}})
		}
		exceptions[i] = e
	}
	p, err := New("large", []Requirement{
		{ID: "canonical-host", Finding: LegacyHostname, Require: Matcher{{Fact: Host, Values: []string{Canonical, Absent}}},
			Stages: []Stage{{Do: Warn}, {From: noon.Add(-1), Do: Deny, Share: 10_000}}},
		{ID: "encrypted", Finding: Plaintext, Require: Matcher{{Fact: TLS, Values: []string{"1.2", "1.3"}}},
			Stages: []Stage{{Do: Notify, Brownout: &Brownout{Do: TempFail, Days: [7]bool{true, true, true, true, true, true, true},
				At: 13 * time.Hour, For: 30 * time.Minute, Zone: berlin}}, {From: noon.Add(-2), Do: Deny, Share: 50_000}}},
		{ID: "password-only", Finding: Mechanism, Require: Matcher{{Fact: Mech, Values: []string{"PLAIN", "LOGIN", UserPass, "XOAUTH2", "OAUTHBEARER"}}},
			Stages: []Stage{{Do: Notify, Probe: 2_000, Ratchet: &Ratchet{Do: Deny}}}},
		{ID: "modern-tls", Finding: TLSOld, Require: Matcher{{Fact: TLS, Not: true, Values: []string{"1.0", "1.1"}}}, Stages: []Stage{{Do: Refuse}}},
	}, exceptions...)
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

func worst() *Facts {
	f := facts(TLS, None, Mech, "CRAM-MD5", Host, Legacy, Account, "scanner4712@example.org", Brand, "a", Protocol, "imap")
	f.IP = netip.AddrFrom4([4]byte{198, 4712 >> 8, 4712 & 255, 9})
	return f
}

var measured = []struct {
	name string
	run  func(p *Policy, f *Facts)
}{
	{"Decide", func(p *Policy, f *Facts) { p.Decide(f, noon) }},
	{"Bounds", func(p *Policy, f *Facts) { p.Bounds(f, noon) }},
	{"Bounds, account unknown", func(p *Policy, f *Facts) {
		g := *f
		g.Forget(Account)
		p.Bounds(&g, noon)
	}},
	{"Probed", func(p *Policy, f *Facts) { p.Probed(nil, f, noon) }},
}

func BenchmarkDecisions(b *testing.B) {
	for _, m := range measured {
		for name, p := range map[string]*Policy{"enforced": Enforced(), "10,000 exceptions": large(b)} {
			b.Run(m.name+", "+name, func(b *testing.B) {
				f := worst()
				b.ReportAllocs()
				for b.Loop() {
					m.run(p, f)
				}
			})
		}
	}
}

func BenchmarkNew(b *testing.B) {
	p := large(b)
	var rs []Requirement
	for i := range p.rules {
		rs = append(rs, p.rules[i].Requirement)
	}
	for b.Loop() {
		if _, err := New("large", rs, p.exceptions...); err != nil {
			b.Fatal(err)
		}
	}
}

func TestDecisionsAllocateNothing(t *testing.T) {
	for _, m := range measured {
		for _, p := range []*Policy{Enforced(), large(t)} {
			f := worst()
			if n := testing.AllocsPerRun(100, func() { m.run(p, f) }); n != 0 {
				t.Errorf("%s, %v: %v allocations", m.name, p, n)
			}
		}
	}
}

func TestNetwork(t *testing.T) {
	for of, want := range map[string]string{
		"192.0.2.7": "192.0.2.0/24", "::ffff:192.0.2.7": "192.0.2.0/24", "2001:db8:1:2::3": "2001:db8:1::/48", "fe80::1%eth0": "fe80::/48",
	} {
		if got := Network(netip.MustParseAddr(of)); got.String() != want {
			t.Errorf("%s: %v, want %s", of, got, want)
		}
	}
	if got := Network(netip.Addr{}); got.IsValid() {
		t.Errorf("no address: %v", got)
	}
}
