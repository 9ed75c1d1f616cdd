package outreach

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"mailreeve/fixes"
	"mailreeve/policy"
)

// supportPolicy refuses plaintext on the notices' day, and old names never.
func supportPolicy(t *testing.T, exceptions ...policy.Exception) *policy.Policy {
	t.Helper()
	p, err := policy.New("support", []policy.Requirement{
		{ID: "encrypted", Finding: policy.Plaintext, Require: policy.Matcher{{Fact: policy.TLS, Not: true, Values: []string{policy.None}}},
			Stages: []policy.Stage{{From: noticeNow.AddDate(0, -1, 0), Do: policy.Notify}, {From: noticeDay, Do: policy.Deny}}},
		{ID: "canonical-host", Finding: policy.LegacyHostname, Require: policy.Matcher{{Fact: policy.Host, Values: []string{policy.Canonical, policy.Absent}}},
			Stages: []policy.Stage{{From: noticeNow.AddDate(0, -1, 0), Do: policy.Notify}}},
	}, exceptions...)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// supportAccount has a telephone that is as it should be not, a computer that is, and a POP
// program that was mended.
func supportAccount() *Account {
	today := DayOf(noticeNow, noticeZone)
	days := func(ago ...Day) (all []DayCount) {
		for _, d := range ago {
			all = append(all, DayCount{today - d, 2})
		}
		return all
	}
	phone := Shape{Brand: "example", Protocol: "imap", Port: 143, TLS: policy.None, Mechanism: "CRAM-MD5", Class: fixes.IOSMail, Network: "mobile", Host: policy.Absent}
	old := Shape{Brand: "example", Protocol: "imap", Port: 993, TLS: "1.3", Mechanism: "PLAIN", Class: fixes.Thunderbird, Program: "Thunderbird 153", Network: "dsl", Host: policy.Legacy, SNI: "mail.kunde.example"}
	good := old
	good.Host, good.SNI = policy.Canonical, ""
	pop := Shape{Brand: "example", Protocol: "pop3", Port: 110, TLS: policy.None, Mechanism: policy.UserPass, Class: fixes.Unknown, Network: "other", UserForm: "address"}
	popGood := pop
	popGood.Port, popGood.TLS = 995, "1.2"
	return &Account{Name: "anna@example.org", Told: Told{today - 1, policy.Warn, "encrypted"}, Uses: []Use{
		{Shape: phone, Days: days(30, 2, 0)}, {Shape: old, Days: days(40, 20)}, {Shape: good, Days: days(1)},
		{Shape: pop, Days: days(60)}, {Shape: popGood, Days: days(50, 3)},
	}}
}

func TestSupport(t *testing.T) {
	a := supportAccount()
	notices := []Notice{{Account: a.Name, Past: Past{Step: -112, Day: DayOf(noticeNow, noticeZone) - 1, State: StateSent}, Said: "250 2.0.0 Ok: queued as 4XYZ"}}
	for _, lang := range []string{"de", "en"} {
		s := NewSupport(supportPolicy(t), nil, a, notices, "MR-0000-0000", noticeBrand(), lang, noticeZone, noticeNow)
		data, err := json.MarshalIndent(s, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		goldenNotice(t, "notice.support."+lang+".json", string(data)+"\n")
		if len(s.Say) != 3 {
			t.Errorf("%d sentences to say", len(s.Say))
		}
	}
}

// TestSupportSays holds what is said in each state of an account.
func TestSupportSays(t *testing.T) {
	today := DayOf(noticeNow, noticeZone)
	exception := policy.Exception{ID: "ex-1", For: []string{"encrypted"}, Match: policy.Matcher{{Fact: policy.Account, Values: []string{"anna@example.org"}}},
		Cap: policy.Notify, Until: noticeDay.AddDate(1, 0, 0), Reason: "copier", Owner: "support"}
	use := func(i int) func(*Account) { return func(a *Account) { a.Uses = a.Uses[i : i+1] } }
	for name, c := range map[string]struct {
		change     func(*Account)
		exceptions []policy.Exception
		now        time.Time
		say, state string
	}{
		"open":      {use(0), nil, noticeNow, "nur einige Einstellungen sind veraltet, und zwar hier: Mail auf dem iPhone oder iPad", "open"},
		"refused":   {use(0), nil, noticeDay, "Seit dem 20. September 2027 wird das abgewiesen.", "silent"},
		"planned":   {use(0), nil, noticeNow, "Ab dem 20. September 2027 wird das abgewiesen.", "open"},
		"no date":   {use(1), nil, noticeNow, "ist nicht geplant", "silent"},
		"exempt":    {use(0), []policy.Exception{exception}, noticeNow, "Ausnahme auf Zeit", "exempt"},
		"fixed":     {func(a *Account) { a.Uses = a.Uses[3:] }, nil, noticeNow, "Sie haben umgestellt", "fixed"},
		"well":      {use(2), nil, noticeNow, "Wir sehen nichts, was", "ok"},
		"collector": {func(a *Account) { a.Uses = a.Uses[3:4]; a.Uses[0].Collector = true; a.Uses[0].Days[0].Day = today }, nil, noticeNow, "webmail.example.org", "open"},
	} {
		t.Run(name, func(t *testing.T) {
			a := supportAccount()
			c.change(a)
			s := NewSupport(supportPolicy(t, c.exceptions...), nil, a, nil, "", noticeBrand(), "", noticeZone, c.now)
			if said := strings.Join(s.Say, " "); !strings.Contains(said, c.say) {
				t.Errorf("%q is not said, but: %s", c.say, said)
			}
			if got := s.Devices[0].State; got != c.state {
				t.Errorf("the state is %s, not %s", got, c.state)
			}
			if mends := c.state == "open" || c.state == "silent" || c.state == "exempt"; mends != (len(s.Devices[0].Steps) > 0) {
				t.Errorf("%d steps in the state %s", len(s.Devices[0].Steps), c.state)
			}
		})
	}
}

// TestSupportWatches holds that what was changed a few days ago is not told to be changed.
func TestSupportWatches(t *testing.T) {
	a := supportAccount()
	a.Uses = a.Uses[:1]
	good := Use{Shape: a.Uses[0].Shape, Days: []DayCount{{DayOf(noticeNow, noticeZone) - 1, 1}, {DayOf(noticeNow, noticeZone), 1}}}
	good.Port, good.TLS = 993, "1.3"
	a.Uses[0].Days = a.Uses[0].Days[:2] // two days ago
	a.Uses = append(a.Uses, good)
	s := NewSupport(supportPolicy(t), nil, a, nil, "", noticeBrand(), "de", noticeZone, noticeNow)
	d := s.Devices[0]
	if f := d.Wrong[0]; d.State != "watched" || f.State != Watched || f.Changed.String() != "2027-05-31" || f.Until.String() != "2027-06-13" || len(d.Steps) > 0 || d.Change != "" {
		t.Errorf("%+v", d)
	}
	if !strings.Contains(s.Say[0], "Sie haben umgestellt") {
		t.Error(s.Say)
	}
}

// TestSupportNext holds that each reason of a plan has German words, and that a bounce is told in its own.
func TestSupportNext(t *testing.T) {
	for _, r := range Reasons {
		i := Item{Reason: r, Key: Key{Step: -56}, On: DayOf(noticeDay, noticeZone)}
		if said := i.german(); strings.Contains(said, "%!") || strings.Contains(said, "(") || !strings.Contains(said, "2027-09-20") {
			t.Errorf("%s: %q", r, said)
		}
	}
	a := supportAccount()
	s := NewSupport(supportPolicy(t), nil, a, []Notice{{Past: Past{State: StateBounced}, Said: "queued as 4XYZ", Note: "no such user"}}, "", noticeBrand(), "de", noticeZone, noticeNow)
	if s.Notices[0].Said != "no such user" {
		t.Errorf("%+v", s.Notices)
	}
}

// TestSupportOfAnException holds that nobody is told on the telephone that a program is refused
// which an exception lets in, and that its end is the last day on which it is in force.
func TestSupportOfAnException(t *testing.T) {
	exception := policy.Exception{ID: "ex-1", For: []string{"encrypted"}, Match: policy.Matcher{{Fact: policy.Account, Values: []string{"anna@example.org"}}},
		Cap: policy.Notify, Until: noticeDay.AddDate(1, 0, 0), Reason: "copier", Owner: "support"} // midnight
	for lang, want := range map[string]string{"de": "Solange die Ausnahme gilt, wird das nicht abgewiesen.", "en": "It is not refused while the exception lasts."} {
		s := NewSupport(supportPolicy(t, exception), nil, supportAccount(), nil, "", noticeBrand(), lang, noticeZone, noticeDay.AddDate(0, 0, 1))
		phone := s.Devices[slices.IndexFunc(s.Devices, func(d SupportDevice) bool { return d.Class == fixes.IOSMail })]
		if phone.Change != want {
			t.Errorf("%q, not %q", phone.Change, want)
		}
		if until := phone.Wrong[0].Exception.Until.String(); until != "2028-09-19" {
			t.Errorf("until %s", until)
		}
	}
}

// TestCutOff holds who cannot be reached by mail any more.
func TestCutOff(t *testing.T) {
	today := DayOf(noticeNow, noticeZone)
	// A second telephone, or the same one once it was set up anew.
	fine := func(on Day) func(*Account) {
		return func(a *Account) {
			u := Use{Shape: a.Uses[0].Shape, Days: []DayCount{{on, 1}}}
			u.Port, u.TLS = 993, "1.3"
			a.Uses = append(a.Uses, u)
		}
	}
	for name, c := range map[string]struct {
		uses   []int
		change func(*Account)
		now    time.Time
		want   bool
	}{
		"before the day":           {[]int{0, 3}, nil, noticeDay.Add(-time.Second), false},
		"both are refused":         {[]int{0, 3}, nil, noticeDay, true},
		"another program is fine":  {[]int{0, 2, 3}, nil, noticeDay, false},
		"only told, never refused": {[]int{1}, nil, noticeDay, false},
		"never seen":               {nil, nil, noticeDay, false},
		"set up anew": {[]int{0}, func(a *Account) {
			a.Uses[0].Days = append(a.Uses[0].Days, DayCount{today + 110, 1}) // the day before
			fine(today + 112)(a)
		}, noticeDay.AddDate(0, 0, 2), false},
		"two of a kind":     {[]int{0}, fine(today - 3), noticeDay, false},
		"set back long ago": {[]int{0}, fine(today - 50), noticeDay, true},
	} {
		t.Run(name, func(t *testing.T) {
			a := supportAccount()
			if c.change != nil {
				c.change(a)
				c.uses = append(c.uses, len(a.Uses)-1)
			}
			all := a.Uses
			a.Uses = nil
			for _, i := range c.uses {
				a.Uses = append(a.Uses, all[i])
			}
			if got := CutOff(a, Findings(supportPolicy(t), a, c.now, noticeZone), c.now); got != c.want {
				t.Error(got)
			}
		})
	}
}
