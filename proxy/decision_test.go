package proxy

import (
	"crypto/tls"
	"fmt"
	"testing"
	"time"

	"mailreeve/policy"
)

// deciding is a session in TLS that is about to decide on a login.
func deciding(t testing.TB, p *policy.Policy) (*session, Request) {
	front := &Front{Name: "imap", Word: "IMAP"}
	brand := &Brand{Name: "b", Hosts: map[string][]string{"imap": {"imap.example.org"}}}
	settings := &Settings{Policy: p, Brands: []*Brand{brand}, Now: time.Now}
	s := &session{engine: &Engine{}, settings: settings, listener: &Listener{Name: "imaps", Front: front}, brand: brand}
	s.talk = &toyDialogue{}
	for fact, value := range map[policy.Fact]string{policy.Brand: "b", policy.Protocol: "imap", policy.Port: "143", policy.Listener: "imap",
		policy.Entry: policy.EntryPlain, policy.TLS: policy.None} {
		s.learn(fact, value)
	}
	var r Request
	r.Kind, r.Mech = Login, "PLAIN"
	if err := r.SetPassword("anna@example.org", "x"); err != nil {
		t.Fatal(err)
	}
	return s, r
}

// decision is what a login asks of policy: with the mechanism, with the
// credential, and once it is confirmed.
func decision(s *session, r Request) policy.Verdict {
	s.ponder()
	s.could("")
	s.could(r.Mech)
	s.identify(&r)
	s.ponder()
	s.decide()
	return s.verified()
}

// observedBy is a policy with as many exceptions, none of which is anna's.
func observedBy(t testing.TB, exceptions int) *policy.Policy {
	var all []policy.Exception
	for i := range exceptions {
		all = append(all, policy.Exception{ID: fmt.Sprintf("ex-%d", i), For: []string{"encrypted"}, Cap: policy.Observe, Until: time.Now().AddDate(0, 0, 100),
			Match: policy.Matcher{{Fact: policy.Account, Values: []string{fmt.Sprintf("copier-%d@example.org", i)}}}})
	}
	p, err := policy.New("observed", []policy.Requirement{
		{ID: "encrypted", Finding: policy.Plaintext, Stages: []policy.Stage{{Do: policy.Observe}, {From: time.Now().AddDate(0, 0, -1), Do: policy.Warn, Share: 50_000}},
			Require: policy.Matcher{{Fact: policy.TLS, Not: true, Values: []string{policy.None}}}},
		{ID: "host", Finding: policy.LegacyHostname, Stages: []policy.Stage{{Do: policy.Observe}},
			Require: policy.Matcher{{Fact: policy.Host, Values: []string{policy.Canonical, policy.Absent}}}},
	}, all...)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestDecisionAllocates next to nothing: the list of requirements, the draw and
// the name of the domain for the event.
func TestDecisionAllocates(t *testing.T) {
	s, r := deciding(t, observedBy(t, 10_000))
	s.settings.Ledger = func(string) string { return policy.Open }
	if v := decision(s, r); !s.event.Verified || v.Action < policy.Observe || s.event.Account != "anna@example.org" || s.event.Ledger != policy.Open {
		t.Fatalf("%v, %+v", v.Action, s.event)
	}
	if n := testing.AllocsPerRun(100, func() { decision(s, r) }); n > 4 {
		t.Errorf("%v allocations", n)
	}
}

// TestHoldsComeAndGo while decisions are made.
func TestHoldsComeAndGo(t *testing.T) {
	s, r := deciding(t, observedBy(t, 10))
	hold := &policy.Hold{Cap: policy.Pass, Until: time.Now().Add(time.Hour)}
	done := make(chan bool)
	go func() {
		defer close(done)
		for range 1000 {
			s.engine.SetHold(hold)
			s.engine.SetHold(nil)
		}
	}()
	for range 1000 {
		// One decision is made under one hold, whatever happens meanwhile.
		if v := decision(s, r); (v.Action == policy.Pass) != (s.hold != nil) || (s.event.Hold != nil) != (s.hold != nil) {
			t.Fatalf("%v under %v", v.Action, s.hold)
		}
	}
	<-done
}

// BenchmarkDecisionDuringReload is a decision while a policy with ten thousand
// exceptions is made and applied, over and over.
func BenchmarkDecisionDuringReload(b *testing.B) {
	s, r := deciding(b, observedBy(b, 10_000))
	settings := *s.settings
	settings.Certificate = func(*tls.ClientHelloInfo, ServerName) (*tls.Certificate, error) { return nil, nil }
	stop, done, reloads := make(chan bool), make(chan bool), 0
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
			}
			settings.Policy = observedBy(b, 10_000)
			if err := s.engine.Apply(&settings); err != nil {
				b.Error(err)
				return
			}
			reloads++
		}
	}()
	b.ReportAllocs()
	for b.Loop() {
		decision(s, r)
	}
	close(stop)
	<-done
	b.ReportMetric(float64(b.Elapsed().Milliseconds())/float64(max(reloads, 1)), "ms/reload")
}

func BenchmarkDecision(b *testing.B) {
	for _, exceptions := range []int{0, 10_000} {
		b.Run(fmt.Sprintf("%d exceptions", exceptions), func(b *testing.B) {
			s, r := deciding(b, observedBy(b, exceptions))
			b.ReportAllocs()
			for b.Loop() {
				decision(s, r)
			}
		})
	}
}
