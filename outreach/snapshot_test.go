package outreach

import (
	"fmt"
	"maps"
	"testing"
	"time"

	"mailreeve/policy"
)

func TestSnapshot(t *testing.T) {
	p := testPolicy(t, policy.Exception{ID: "x", For: []string{"encrypted"}, Match: policy.Matcher{{Fact: policy.Account, Values: []string{"exempt", "exempt and open"}}}, Cap: policy.Notify, Until: in(30)})
	accounts := []struct {
		want string
		is   *Account
	}{
		{policy.Clean, account("for 60 days", use(good(), 60, 0))},
		{policy.Clean, account("for long, with two programs", use(good(), 100, 30), use(good(outlook), 13))},
		{"", account("for 59 days", use(good(), 59, 0))},
		{"", account("not seen for two weeks", use(good(), 100, 14))},
		{"", account("only seen tomorrow", use(good(), -1))},
		{policy.Open, account("open", use(good(), 60, 0), use(good(inClear), 3))},
		{policy.Open, account("silent", use(good(), 60, 0), use(good(inClear, outlook), 80))}, // nobody knows what became of it
		{policy.Open, account("before its first stage", use(good(), 60, 0), use(good(sending, func(s *Shape) { s.Port = 25 }), 3))},
		{policy.Exempt, account("exempt", use(good(), 60, 0), use(good(inClear), 3))},
		{policy.Open, account("exempt and open", use(good(inClear, cram), 3))},
		{policy.Fixed, account("fixed", use(good(), 30, 0), use(good(inClear), 59, 40))},
		{policy.Clean, account("fixed for as long", use(good(), 59, 0), use(good(inClear), 60))},
		{"", account("a trial in that time", use(good(apple), 60, 20, 0), use(good(apple, inClear), 20), use(good(apple, legacy), 20))},
		{policy.Clean, account("a trial before", use(good(apple), 70, 0), use(good(apple, inClear), 70), use(good(apple, legacy), 70))},
		{policy.Clean, account("a server name that is not known", use(good(nameless), 60, 0))}, // no ratchet asks for it
		{"", account("a mechanism that is not known", use(good(), 60, 0), use(good(func(s *Shape) { s.Mechanism = "" }), 20))},
	}
	var all []*Account
	want := map[string]int{"unknown": 0, policy.Clean: 0, policy.Open: 0, policy.Fixed: 0, policy.Exempt: 0}
	for _, a := range accounts {
		all = append(all, a.is)
		if a.want == "" {
			want["unknown"]++
		} else {
			want[a.want]++
		}
	}
	s, err := MakeSnapshot(ledgerOf(all...), p, now, berlin)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range accounts {
		if got := s.Ledger(a.is.Name); got != a.want {
			t.Errorf("%s: %q, want %q", a.is.Name, got, a.want)
		}
	}
	if got := s.Counts(); !maps.Equal(got, want) {
		t.Errorf("counted %v, want %v", got, want)
	}
	if got := s.Ledger("nobody"); got != "" {
		t.Errorf("nobody is %q", got)
	}
	if n := testing.AllocsPerRun(100, func() { s.Ledger("for 60 days"); s.Ledger("nobody") }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if got := (*Snapshot)(nil).Ledger("anna"); got != "" {
		t.Errorf("without a snapshot: %q", got)
	}
	if _, err := MakeSnapshot(tornLedger(all...), p, now, berlin); err != errTorn {
		t.Errorf("of a ledger that cannot be read: %v", err)
	}
}

// TestSnapshotMany finds each of many accounts, and none else.
func TestSnapshotMany(t *testing.T) {
	p := testPolicy(t)
	s, err := MakeSnapshot(func(yield func(*Account, error) bool) {
		for i := range 20_000 {
			a := account(fmt.Sprint("a", i), use(good(), 60, 0))
			if i%3 == 0 {
				a.Uses = append(a.Uses, use(good(inClear), 1))
			}
			if !yield(a, nil) {
				return
			}
		}
	}, p, now, berlin)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 20_000 {
		want := policy.Clean
		if i%3 == 0 {
			want = policy.Open
		}
		if got := s.Ledger(fmt.Sprint("a", i)); got != want {
			t.Fatalf("a%d: %q, want %q", i, got, want)
		}
		if got := s.Ledger(fmt.Sprint("b", i)); got != "" {
			t.Fatalf("b%d: %q", i, got)
		}
	}
}

// TestSnapshotAlike: of two accounts with one hash nothing is said.
func TestSnapshotAlike(t *testing.T) {
	s, err := MakeSnapshot(ledgerOf(account("anna", use(good(), 60, 0)), account("anna", use(good(inClear), 1)), account("anna", use(good(inClear), 1)), account("ben", use(good(inClear), 1))), testPolicy(t), now, berlin)
	if err != nil {
		t.Fatal(err)
	}
	if a, b := s.Ledger("anna"), s.Ledger("ben"); a != "" || b != policy.Open {
		t.Errorf("anna is %q, ben %q", a, b)
	}
}

func TestCleanness(t *testing.T) {
	ratchet := func(clean time.Duration) policy.Stage {
		return policy.Stage{From: in(int(clean / (24 * time.Hour))), Do: policy.Notify, Ratchet: &policy.Ratchet{Clean: clean, Do: policy.Deny}}
	}
	tls := policy.Matcher{{Fact: policy.TLS, Not: true, Values: []string{policy.None}}}
	p, err := policy.New("test", []policy.Requirement{
		{ID: "a", Require: tls, Stages: []policy.Stage{{From: in(0), Do: policy.Notify}}},
		{ID: "b", Require: tls, Stages: []policy.Stage{ratchet(48 * time.Hour), ratchet(73 * time.Hour)}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if c := cleanness(p); c.days != 4 || len(c.ratcheted) != 1 || c.ratcheted[0].ID != "b" {
		t.Errorf("%+v", c)
	}
	if c := cleanness(policy.Enforced()); c.days != 60 || len(c.ratcheted) != 0 {
		t.Errorf("%+v", c)
	}
}

func BenchmarkSnapshot(b *testing.B) {
	const accounts = 1_000_000
	uses := []Use{use(good(), 60, 0)}
	s, err := MakeSnapshot(func(yield func(*Account, error) bool) {
		for i := range accounts {
			if !yield(&Account{Name: fmt.Sprintf("account%d@a.example", i), Uses: uses}, nil) {
				return
			}
		}
	}, testPolicy(b), now, berlin)
	if err != nil {
		b.Fatal(err)
	}
	names := make([]string, 4096)
	for i := range names {
		names[i] = fmt.Sprintf("account%d@a.example", i*243)
	}
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		if s.Ledger(names[i%len(names)]) != policy.Clean {
			b.Fatal("it is not found")
		}
	}
}
