package outreach

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"mailreeve/fixes"
	"mailreeve/policy"
)

func TestImpact(t *testing.T) {
	p := testPolicy(t, policy.Exception{ID: "x", For: []string{"encrypted"}, Match: policy.Matcher{{Fact: policy.Account, Values: []string{"exempt@a.example", "half@a.example"}}}, Cap: policy.Notify, Until: in(30)})
	accounts := []*Account{
		account("well@a.example", use(good(), 0)),
		account("all@a.example", use(good(inClear), 1), use(good(sending, inClear), 2)),
		account("mixed@a.example", use(good(inClear), 1), use(good(inClear, cram), 2)), // one kind, in two ways
		account("some@b.example", use(good(inClear), 1), use(good(outlook), 9)),
		account("part@b.example", use(good(inClear), 1), use(good(), 3)), // a kind with good logins too
		account("silent@b.example", use(good(inClear), 20), use(good(outlook), 14)),
		account("mended@b.example", use(good(inClear), 20), use(good(), 2)),
		account("other@c.example", use(good(inClear), 25), use(good(cram), 2)),          // what mended it is wrong otherwise
		account("exempt@a.example", use(good(inClear), 1)),                              // until in 30 days
		account("half@a.example", use(good(inClear), 1), use(good(legacy, sending), 1)), // one exempt, one not
		account("long ago@a.example", use(good(inClear), 30)),
		account("edge@c.example", use(good(inClear), 29), collected(use(good(inClear, anybody), 4))),
		account("tomorrow@c.example", use(good(inClear), -1)),
		account("trial@c.example", use(good(apple), 5), use(good(apple, inClear), 5), use(good(apple, cram), 5)),
		account("bare", use(good(inClear, otherBrand), 1)),
	}
	for _, c := range []struct {
		name string
		q    Question
		want Losses
		safe int
		list []string
	}{
		{"all at deny", Question{As: policy.Deny, Days: 30}, Losses{All: 5, Some: 3, Silent: 1, Exempt: 1}, 3, []string{
			"all@a.example all 2/2 encrypted", "mixed@a.example all 1/1 encrypted,password", "some@b.example some 1/2 encrypted", "part@b.example some 1/1 encrypted",
			"silent@b.example silent 1/2 encrypted", "other@c.example all 1/1 password", "exempt@a.example exempt 0/1 encrypted x", "half@a.example some 1/2 host x",
			"edge@c.example all 2/2 encrypted", "bare all 1/1 encrypted"}},
		{"a shorter window", Question{As: policy.TempFail, Days: 7}, Losses{All: 6, Some: 2, Exempt: 1}, 3, []string{
			"all@a.example all 2/2 encrypted", "mixed@a.example all 1/1 encrypted,password", "some@b.example all 1/1 encrypted", "part@b.example some 1/1 encrypted",
			"other@c.example all 1/1 password", "exempt@a.example exempt 0/1 encrypted x", "half@a.example some 1/2 host x", "edge@c.example all 1/1 encrypted", "bare all 1/1 encrypted"}},
		{"one requirement", Question{As: policy.Refuse, Days: 30, Only: []string{"password"}}, Losses{Some: 2}, 11, []string{
			"mixed@a.example some 1/1 password", "other@c.example some 1/1 password"}},
		{"as planned for today", Question{Days: 30}, Losses{All: 0, Some: 2}, 11, []string{"mixed@a.example some 1/1 password", "other@c.example some 1/1 password"}},
		{"as planned for a day with the exception", Question{At: in(41), Days: 30}, Losses{All: 6, Some: 3, Silent: 1}, 3, nil},
		{"two of them then", Question{At: in(41), Days: 30, Only: []string{"host", "password"}}, Losses{Some: 2}, 11, nil},
		{"when the name is refused too", Question{At: in(81), Days: 30, Only: []string{"host"}}, Losses{Some: 1}, 12, []string{"half@a.example some 1/2 host"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var list []string
			i, err := MakeImpact(ledgerOf(accounts...), p, c.q, now, berlin, []string{"c.example"}, func(i *AccountImpact) error {
				s := fmt.Sprintf("%s %s %d/%d %s", i.Account, i.Loss, len(i.Broken), i.Devices, strings.Join(i.Requirements, ","))
				if i.Exception != "" {
					s += " " + i.Exception
				}
				list = append(list, s)
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			if i.Losses != c.want || i.Unharmed != c.safe || i.Seen != i.Broken()+i.Exempt+i.Unharmed {
				t.Errorf("got %+v and %d of %d, want %+v and %d\n%s", i.Losses, i.Unharmed, i.Seen, c.want, c.safe, strings.Join(list, "\n"))
			}
			if c.list != nil && !slices.Equal(list, c.list) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(list, "\n"), strings.Join(c.list, "\n"))
			}
		})
	}

	i, err := MakeImpact(ledgerOf(accounts...), p, Question{As: policy.Deny, Days: 30}, now, berlin, []string{"c.example"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	i.Policy = "test"
	got, err := json.Marshal(i)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"format":"impact-1","now":"2026-11-22T15:00:00+01:00","at":"2026-11-22T15:00:00+01:00","as":"deny","policy":"test","window":{"first":"2026-10-24","last":"2026-11-22","days":30},` +
		`"accounts_seen":13,"all_devices":5,"some_devices":3,"silent":1,"exempt":1,"unharmed":3,` +
		`"requirements":[{"name":"encrypted","all_devices":4,"some_devices":2,"silent":1,"exempt":0},{"name":"password","all_devices":2,"some_devices":0,"silent":0,"exempt":0},{"name":"host","all_devices":0,"some_devices":1,"silent":0,"exempt":0}],` +
		`"brands":[{"name":"alpha","all_devices":4,"some_devices":3,"silent":1,"exempt":0},{"name":"beta","all_devices":1,"some_devices":0,"silent":0,"exempt":0}],` +
		`"protocols":[{"name":"imap","all_devices":5,"some_devices":2,"silent":1,"exempt":0},{"name":"submission","all_devices":1,"some_devices":1,"silent":0,"exempt":0}],` +
		`"programs":[{"name":"thunderbird","all_devices":5,"some_devices":3,"silent":1,"exempt":0},{"name":"collector","all_devices":1,"some_devices":0,"silent":0,"exempt":0}],` +
		`"domains":[{"domain":"a.example","accounts_seen":5,"broken":3},{"domain":"b.example","accounts_seen":4,"broken":3}]}`
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}

	for _, c := range []struct {
		q    Question
		want string
	}{
		{Question{As: policy.Notify, Days: 30}, "notify refuses nobody"},
		{Question{As: policy.Deny}, "the window has no days"},
		{Question{As: policy.Deny, Days: 3, Only: []string{"nothing"}}, `there is no requirement "nothing"`},
	} {
		if _, err := MakeImpact(ledgerOf(), p, c.q, now, berlin, nil, nil); err == nil || err.Error() != c.want {
			t.Errorf("%+v: %v", c.q, err)
		}
	}
	if _, err := MakeImpact(tornLedger(accounts...), p, Question{As: policy.Deny, Days: 30}, now, berlin, nil, nil); err != errTorn {
		t.Errorf("of a ledger that cannot be read: %v", err)
	}
}

func TestImpactDomains(t *testing.T) {
	var accounts []*Account
	for d := range 25 {
		for n := range d + 1 {
			accounts = append(accounts, account(fmt.Sprintf("a%d@d%02d.example", n, d), use(good(inClear), 1)))
		}
	}
	i, err := MakeImpact(ledgerOf(accounts...), testPolicy(t), Question{As: policy.Deny, Days: 30}, now, berlin, []string{"d24.example"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(i.Domains) != 20 || i.Domains[0] != (DomainRow{"d23.example", 24, 24}) || i.Domains[19] != (DomainRow{"d04.example", 5, 5}) {
		t.Errorf("%+v", i.Domains)
	}
}

// TestImpactModel counts login by login what the words of the losses say.
func TestImpactModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var exceptions []policy.Exception
		if rapid.Bool().Draw(t, "exception") {
			exceptions = append(exceptions, policy.Exception{ID: "x", For: []string{rapid.SampledFrom([]string{"encrypted", "host", "password"}).Draw(t, "for")},
				Match: policy.Matcher{{Fact: policy.Protocol, Values: []string{"imap"}}}, Cap: policy.Notify, Until: in(rapid.IntRange(-5, 60).Draw(t, "until"))})
		}
		p, err := policy.New("drawn", requirementsOf(testPolicy(noHelper{}).Requirements()), exceptions...)
		if err != nil {
			t.Fatal(err)
		}
		q := Question{As: rapid.SampledFrom([]policy.Action{policy.Pass, policy.Deny}).Draw(t, "as"), Days: rapid.IntRange(1, 60).Draw(t, "days"), At: in(rapid.IntRange(0, 90).Draw(t, "at"))}
		if rapid.Bool().Draw(t, "only") {
			q.Only = []string{rapid.SampledFrom([]string{"encrypted", "host", "password"}).Draw(t, "only this")}
		}
		a := drawAccount(t, "anna@a.example", 6)
		for i := range a.Uses {
			if c := a.Uses[i].Class; c == fixes.AppleMail || c == fixes.Unknown {
				a.Uses[i].Class = fixes.IOSMail
			}
		}
		got := Loss("unseen")
		i, err := MakeImpact(ledgerOf(a), p, q, now, berlin, nil, func(i *AccountImpact) error {
			got = i.Loss
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if i.Unharmed == 1 {
			got = Unharmed
		}

		// the model: which kinds break
		first := today - Day(q.Days) + 1
		inWindow := func(d Day) bool { return d >= first && d <= today }
		verdict := func(u *Use, id string) (breaks, refused, wouldBe bool) { // by one requirement alone
			for _, v := range p.Violations(u.Facts(a.Name), q.At) {
				if v.Rule.ID != id {
					continue
				}
				planned := v.Planned
				if q.As != policy.Pass {
					planned = q.As
				}
				wouldBe = planned >= policy.TempFail
				return true, wouldBe && v.Exception == nil, wouldBe
			}
			return false, false, false
		}
		ids := q.Only
		if ids == nil {
			ids = []string{"encrypted", "host", "password", "port-25"}
		}
		seen, last := false, Day(0)
		kinds, broken, whole, spared := map[Kind]bool{}, map[Kind]bool{}, map[Kind]bool{}, false
		for i := range a.Uses {
			u := &a.Uses[i]
			for _, d := range u.Days {
				if inWindow(d.Day) {
					seen, last = true, max(last, d.Day)
					if !kinds[u.kind()] {
						kinds[u.kind()], whole[u.kind()] = true, true
					}
				}
			}
		}
		for k := range kinds {
			for _, id := range ids {
				var lastBroke, lastMet Day
				var users []*Use
				for i := range a.Uses {
					u := &a.Uses[i]
					if u.kind() != k {
						continue
					}
					breaks, _, _ := verdict(u, id)
					met := !breaks && !(id == "host" && u.Host == "")
					for _, d := range u.Days {
						if inWindow(d.Day) && breaks {
							lastBroke = max(lastBroke, d.Day)
							users = append(users, u)
						} else if inWindow(d.Day) && met {
							lastMet = max(lastMet, d.Day)
						}
					}
				}
				if lastBroke == 0 || today-lastBroke >= 14 && lastMet > lastBroke {
					continue
				}
				for _, u := range users {
					_, refused, wouldBe := verdict(u, id)
					broken[k] = broken[k] || refused
					spared = spared || wouldBe && !refused
				}
			}
			for i := range a.Uses {
				if u := &a.Uses[i]; u.kind() == k && slices.ContainsFunc(u.Days, func(d DayCount) bool { return inWindow(d.Day) }) {
					refused := false
					for _, id := range ids {
						_, r, _ := verdict(u, id)
						refused = refused || r
					}
					whole[k] = whole[k] && refused
				}
			}
		}
		want, lost := Unharmed, true
		for k := range kinds {
			lost = lost && broken[k] && whole[k]
		}
		switch {
		case !seen:
			want = "unseen"
		case len(broken) == 0 || !slices.Contains(values(broken), true):
			if spared {
				want = Excepted
			}
		case today-last >= 14:
			want = LosesAway
		case lost:
			want = LosesAll
		default:
			want = LosesSome
		}
		if got != want {
			t.Fatalf("got %s, want %s", got, want)
		}
	})
}

func values(m map[Kind]bool) (all []bool) {
	for _, v := range m {
		all = append(all, v)
	}
	return all
}

// requirementsOf are copies that make another policy.
func requirementsOf(rs []*policy.Requirement) (all []policy.Requirement) {
	for _, r := range rs {
		all = append(all, *r)
	}
	return all
}

// noHelper stands for the test where rapid draws.
type noHelper struct{ testing.TB }

func (noHelper) Helper() {}

func TestImpactSheet(t *testing.T) {
	p := testPolicy(t)
	accounts := []*Account{
		account("+49@a.example", use(good(inClear), 1), use(good(outlook, otherBrand), 3)),
		account("b;c@a.example", collected(use(good(inClear, outlook), 1))),
	}
	var b bytes.Buffer
	s := NewImpactSheet(&b, "de")
	if _, err := MakeImpact(ledgerOf(accounts...), p, Question{As: policy.Deny, Days: 30}, now, berlin, nil, s.Add); err != nil {
		t.Fatal(err)
	}
	if err := s.Flush(); err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{
		"Format|Konto|verliert|Geräte|Geräte abgewiesen|Anforderungen|Programme (vermutet)|Marke|Ausnahme|zuletzt gesehen",
		"impact-1|'+49@a.example|einige Geräte|2|1|encrypted|imap " + fixes.Thunderbird.Name("de") + "|alpha||2026-11-21",
		"impact-1|b;c@a.example|alle Geräte|1|1|encrypted|imap " + fixes.Collector.Name("de") + " (" + fixes.Outlook.Name("de") + ")|alpha||2026-11-21",
	} {
		if got := strings.Join(rowsOf(t, b.String())[i], "|"); got != want {
			t.Errorf("row %d:\ngot  %s\nwant %s", i, got, want)
		}
	}
}

// BenchmarkReport counts accounts that are alike those of a provider.
func BenchmarkReport(b *testing.B) {
	p := testPolicy(b)
	var accounts []*Account
	for i := range 1000 {
		a := account(fmt.Sprintf("a%d@a.example", i))
		for n, change := range []func(*Shape){outlook, sending, mobile} {
			s := good(change)
			if i%5 == 0 && n == 0 {
				inClear(&s)
			}
			u := Use{Shape: s}
			for d := range 30 {
				u.Days = append(u.Days, DayCount{ago(29 - d), 3})
			}
			a.Uses = append(a.Uses, u)
		}
		accounts = append(accounts, a)
	}
	b.Run("report", func(b *testing.B) {
		for b.Loop() {
			if _, err := MakeReport(ledgerOf(accounts...), p, now, berlin, nil); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*len(accounts)), "us/account")
	})
	b.Run("impact", func(b *testing.B) {
		for b.Loop() {
			if _, err := MakeImpact(ledgerOf(accounts...), p, Question{As: policy.Deny, Days: 30}, now, berlin, nil, nil); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*len(accounts)), "us/account")
	})
}
