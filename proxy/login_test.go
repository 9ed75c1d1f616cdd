package proxy

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"mailreeve/policy"
)

func TestLoginAndRelay(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t)
		c := r.dial("implicit")
		c.tls("toy.example")
		c.want("HELLO proxy.example")
		c.say("NAME Thunderbird [192.0.2.7]")
		c.say("AUTH PLAIN")
		c.send("anna@Test.Example right\r\npipelined\r\n")
		c.want("OK anna@Test.Example is in")
		c.want("echo pipelined")
		c.say("more")
		c.want("echo more")
		time.Sleep(30 * time.Minute)
		c.say("still here")
		c.want("echo still here")
		c.raw.CloseWrite()
		c.wantClose()
		e := r.wantEnd("CR", "client_closed")
		if e.Account != "anna@test.example" || e.Domain != "test.example" || e.UserForm != "address" || !e.Verified || e.Exposed ||
			e.Mechanism != "PLAIN" || e.Action != "pass" || e.Backend != "one:1" || e.Client != "Thunderbird" || e.Hello != "[192.0.2.7]" ||
			e.Attempts != 1 || e.Seconds < 1800 || e.Policy != policy.Enforced().String() || !idForm.MatchString(e.ID) {
			t.Errorf("%+v", e)
		}
	})
}

func TestRefusals(t *testing.T) {
	for _, test := range []struct{ name, say, want, refused string }{
		{"wrong password", "LOGIN anna wrong", "NO credential User name or password is wrong.", "credential"},
		{"closed account", "LOGIN anna locked", "NO no_access This mailbox is not accessible at present. Your password is NOT wrong.", "no_access"},
		{"backend not well", "LOGIN anna busy", "NO unavailable The mail server cannot be reached just now.", "unavailable"},
		{"backend goes away", "LOGIN anna drop", "NO unavailable The mail server cannot be reached just now.", "unavailable"},
		{"backend hangs", "LOGIN anna hang", "NO unavailable The mail server cannot be reached just now.", "unavailable"},
		{"no login", "WANT", "NO login_needed Please switch on authentication", "login_needed"},
		{"no such mechanism", "AUTH X-ODD", "NO policy Your password is NOT wrong. Set authentication", "policy"},
		{"not offered by the backend", "AUTH OAUTHBEARER", "NO mechanism This authentication method does not exist here.", "mechanism"},
	} {
		t.Run(test.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				r := newRig(t)
				c := r.dial("implicit")
				c.tls("toy.example")
				c.want("HELLO proxy.example")
				began := time.Now()
				c.say(test.say)
				c.wantPrefix(test.want)
				if waited := time.Since(began); waited > r.backend.Login {
					t.Errorf("answered after %v", waited)
				}
				c.say("NOOP") // the dialogue goes on
				c.want("OK")
				c.close()
				if e := r.wantEnd("CD", "client_closed"); e.Refused != test.refused || e.Verified || e.Account != "" {
					t.Errorf("%+v", e)
				}
			})
		})
	}
}

func TestOldHostName(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t)
		c := r.dial("implicit")
		c.tls("mail.old.example")
		c.want("HELLO proxy.example")
		c.say("ADVERT")
		c.want("ADVERT true true false [PLAIN LOGIN XOAUTH2] [PLAIN XOAUTH2 SIZE] -")
		c.say("LOGIN anna wrong")
		c.want("NO credential User name or password is wrong.")
		c.say("LOGIN anna right")
		c.wantPrefix("NO policy Your password is NOT wrong. New server name: toy.example, port 4321, SSL/TLS. https://help.example/ (")
		c.close()
		e := r.wantEnd("CD", "client_closed")
		if !e.Verified || e.Account != "anna" || e.Action != "deny" || fmt.Sprint(e.By) != "[canonical-host]" || e.Attempts != 2 {
			t.Errorf("%+v", e)
		}
	})
}

// TestTheEventNamesWhomTheBackendConfirmed: what is claimed after a verified
// login, a password in the name field say, is not that customer's.
func TestTheEventNamesWhomTheBackendConfirmed(t *testing.T) {
	exempt, err := policy.New("test", []policy.Requirement{{ID: "host", Finding: policy.LegacyHostname,
		Stages:  []policy.Stage{{Do: policy.Deny}},
		Scope:   policy.Matcher{{Fact: policy.Account, Not: true, Values: []string{"secret2"}}, {Fact: policy.Verified, Values: []string{policy.Yes}}},
		Require: policy.Matcher{{Fact: policy.Host, Values: []string{policy.Canonical}}}}})
	if err != nil {
		t.Fatal(err)
	}
	bubble(t, func(t *testing.T) {
		r := newRig(t)
		r.settings.Policy = exempt
		c := r.dial("implicit")
		c.tls("mail.old.example")
		c.want("HELLO proxy.example")
		c.say("AUTH PLAIN")
		c.say("anna@test.example right")
		c.wantPrefix("NO policy ")
		c.say("LOGIN secret2 wrong")
		c.wantPrefix("NO credential ")
		c.close()
		e := r.wantEnd("CD", "client_closed")
		if !e.Verified || e.Account != "anna@test.example" || e.UserForm != "address" || e.Domain != "test.example" || e.Mechanism != "PLAIN" {
			t.Errorf("the event names %q (%s, %s)", e.Account, e.UserForm, e.Mechanism)
		}
		if e.Action != "deny" || fmt.Sprint(e.By) != "[host]" {
			t.Errorf("the verdict is %s %v", e.Action, e.By)
		}
	})
	bubble(t, func(t *testing.T) { // nor is an unverified claim judged as a verified one
		r := newRig(t)
		r.settings.Policy = exempt
		c := r.dial("implicit")
		c.tls("mail.old.example")
		c.want("HELLO proxy.example")
		c.say("LOGIN anna right")
		c.wantPrefix("NO policy ")
		c.say("LOGIN bert wrong")
		c.want("NO credential User name or password is wrong.")
		c.close()
	})
}

func TestEarlyFront(t *testing.T) {
	early := func(t *testing.T) *rig {
		r := newRig(t)
		front := toy()
		front.RefuseEarly = true
		r.backend.Front = front
		for _, l := range r.settings.Listeners {
			l.Front = front
		}
		return r
	}
	bubble(t, func(t *testing.T) { // told before the password, over TLS too
		r := early(t)
		c := r.dial("implicit")
		c.tls("mail.old.example")
		c.want("HELLO proxy.example")
		c.say("ADVERT")
		c.wantPrefix("ADVERT true true false [] [PLAIN XOAUTH2 SIZE] Your password is NOT wrong.")
		c.say("USER anna")
		c.wantPrefix("NO policy Your password is NOT wrong. New server name:")
		c.close()
		if e := r.event(); e.Attempts != 0 || e.Verified || e.Account != "" {
			t.Errorf("%+v", e)
		}
	})
	bubble(t, func(t *testing.T) { // and so is a dead backend
		r := early(t)
		r.fail["one:1"] = net.ErrClosed
		c := r.dial("implicit")
		c.tls("toy.example")
		c.want("HELLO proxy.example")
		c.say("USER anna")
		c.wantPrefix("NO unavailable The mail server cannot be reached just now.")
		c.close()
		if r.event(); r.logs.FilterMessageSnippet("cannot be asked").Len() == 0 {
			t.Error("the log does not say so")
		}
	})
}

// Anybody can connect while a backend is down; the log must not fill with it.
func TestDeadBackendIsToldOnceASecond(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t)
		r.fail["one:1"] = net.ErrClosed
		connect := func() {
			c := r.dial("starttls")
			c.want("HELLO proxy.example")
			c.close()
			r.event()
		}
		for range 5 {
			connect()
		}
		lines := r.logs.FilterMessageSnippet("cannot be asked")
		if n := lines.Len(); n != 1 {
			t.Errorf("%d lines in the log of five sessions in a second", n)
		}
		time.Sleep(time.Second)
		connect()
		lines = r.logs.FilterMessageSnippet("cannot be asked")
		if all := lines.All(); len(all) != 2 || all[1].ContextMap()["more"] != int64(4) {
			t.Errorf("a second later: %v", all)
		}
	})
}

func TestPasswordInClearIsExposed(t *testing.T) {
	open, err := policy.New("open", []policy.Requirement{{ID: "encrypted", Finding: policy.Plaintext, Stages: []policy.Stage{{Do: policy.Observe}},
		Require: policy.Matcher{{Fact: policy.TLS, Not: true, Values: []string{policy.None}}}}})
	if err != nil {
		t.Fatal(err)
	}
	bubble(t, func(t *testing.T) {
		r := newRig(t)
		r.settings.Policy = open
		c := r.dial("starttls")
		c.want("HELLO proxy.example")
		c.say("AUTH PLAIN")
		c.say("anna right")
		c.want("OK anna is in")
		c.close()
		time.Sleep(time.Minute)
		if e := r.wantEnd("CR", "client_closed"); !e.Exposed || e.Action != "observe" || fmt.Sprint(e.By) != "[encrypted]" || !e.Verified {
			t.Errorf("%+v", e)
		}
	})
	closing, err := policy.New("closing", []policy.Requirement{{ID: "encrypted", Finding: policy.Plaintext, Stages: []policy.Stage{{Do: policy.TempFail}},
		Require: policy.Matcher{{Fact: policy.TLS, Not: true, Values: []string{policy.None}}}}})
	if err != nil {
		t.Fatal(err)
	}
	bubble(t, func(t *testing.T) {
		r := newRig(t)
		r.settings.Policy = closing
		c := r.dial("starttls")
		c.want("HELLO proxy.example")
		c.say("AUTH PLAIN")
		c.wantPrefix("NO policy_for_now Your password is NOT wrong.")
		c.close()
		if e := r.event(); e.Action != "tempfail" || e.Exposed {
			t.Errorf("%+v", e)
		}
	})
	late, err := policy.New("late", []policy.Requirement{{ID: "anna", Finding: policy.Plaintext, Stages: []policy.Stage{{Do: policy.Deny}},
		Scope:   policy.Matcher{{Fact: policy.Account, Values: []string{"anna"}}},
		Require: policy.Matcher{{Fact: policy.TLS, Not: true, Values: []string{policy.None}}}}})
	if err != nil {
		t.Fatal(err)
	}
	bubble(t, func(t *testing.T) { // decided without the backend, once the name is known
		r := newRig(t)
		r.settings.Policy = late
		c := r.dial("starttls")
		c.want("HELLO proxy.example")
		for _, password := range []string{"right", "wrong"} {
			c.say("LOGIN anna " + password)
			c.wantPrefix("NO policy Your password is NOT wrong.")
		}
		if r.dialled() != "one:1" {
			t.Errorf("the backend was asked: %s", r.dialled())
		}
		c.close()
	})
}

func TestMaster(t *testing.T) {
	rigWithMaster := func(t *testing.T) *rig {
		r := newRig(t)
		check := r.newBackend(r.backend.Front, "check:1")
		r.backend.Master, r.backend.Check = &Master{User: "master", Secret: "right"}, check
		return r
	}
	enter := func(r *rig, say ...string) *talker {
		c := r.dial("implicit")
		c.tls("toy.example")
		c.want("HELLO proxy.example")
		for _, s := range say {
			c.say(s)
		}
		return c
	}
	bubble(t, func(t *testing.T) {
		r := rigWithMaster(t)
		c := enter(r, "LOGIN anna right")
		c.want("OK master>anna is in")
		if got := r.dialled(); got != "one:1 check:1 one:1" {
			t.Errorf("dialled %s", got)
		}
		c.close()
	})
	bubble(t, func(t *testing.T) { // a wrong password gets no further than the check
		r := rigWithMaster(t)
		enter(r, "LOGIN anna wrong").want("NO credential User name or password is wrong.")
		if got := r.dialled(); got != "one:1 check:1" {
			t.Errorf("dialled %s", got)
		}
	})
	bubble(t, func(t *testing.T) { // the master's own mistake is not the customer's
		r := rigWithMaster(t)
		r.backend.Master.Secret = "wrong"
		enter(r, "LOGIN anna right").wantPrefix("NO unavailable ")
	})
	bubble(t, func(t *testing.T) { // a token without a name is not the master's
		r := rigWithMaster(t)
		enter(r, "AUTH XOAUTH2", "- right").wantPrefix("NO unavailable ")
		if got := r.dialled(); got != "one:1" {
			t.Errorf("dialled %s", got)
		}
	})
	bubble(t, func(t *testing.T) { // as whom the check allowed
		r := rigWithMaster(t)
		enter(r, "AUTH PLAIN", "anna right bob").want("OK master>bob is in")
	})
}

func TestWatchFillsTheEvent(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t)
		r.backend.Front.Watch = func(found func(map[string]string)) func([]byte) bool {
			return func(p []byte) bool {
				found(map[string]string{"name": "Late", "version": strings.TrimSpace(string(p))})
				return true
			}
		}
		c := r.login()
		c.say("1.0")
		c.want("echo 1.0")
		c.say("2.0")
		c.want("echo 2.0")
		c.close()
		time.Sleep(time.Minute)
		synctest.Wait()
		if e := r.event(); e.Client != "Late 1.0" {
			t.Errorf("%+v", e)
		}
	})
}
