package interop

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// login returns what an account's owner types into a mail program that is to talk to the
// server itself.
func (rig *Rig) login(p Protocol, entry Entry, a Account) Login {
	return Login{Endpoint: rig.direct(p, entry), Account: a, CAFile: rig.CAFile}
}

// Each mail program does all it can, by each way to enter.
func TestClients(t *testing.T) {
	rig := StartServers(t)
	for _, c := range Clients {
		for _, entry := range []Entry{Plain, StartTLS, Implicit} {
			t.Run(fmt.Sprintf("%s %s", c.Name, entry), func(t *testing.T) {
				t.Parallel()
				a := rig.NewAccount(t, Bert.Password)
				everything(t, rig, c, rig.login(c.Protocol, entry, a))
			})
		}
	}
}

// everything lets a mail program do all it can with the mailbox of the login.
func everything(t *testing.T, rig *Rig, c Client, login Login) {
	t.Helper()
	Require(t, c.Programs...)
	a := login.Account
	do := func(name string, act Action) string {
		t.Helper()
		out, err := login.Do(t, act)
		if err != nil {
			t.Fatalf("%s: %v\n%s", name, err, out)
		}
		return out
	}

	if c.Send != nil {
		to := rig.NewAccount(t, "x")
		do("Send", c.Send(a, to, Message(a, to, "sent by a client")))
		rig.WaitMail(t, to, "sent by a client, once more")
		return
	}
	rig.Deliver(t, a, Message(Bert, a, "first message"))
	rig.Deliver(t, a, Message(Bert, a, "second message"))
	do("List", c.List)
	out := do("Fetch", c.Fetch)
	for _, text := range []string{"first message, once more", "second message, once more"} {
		if !strings.Contains(out, text) {
			t.Errorf("Fetch does not say %q:\n%s", text, out)
		}
	}
	if c.Append != nil {
		do("Append", c.Append(Message(a, a, "third message")))
		rig.WaitMail(t, a, "third message, once more")
	}
	do("Delete", c.Delete)
	if !eventually(func() bool { return len(rig.Mails(t, a)) == 0 }) {
		t.Errorf("after Delete the inbox has %q", rig.Mails(t, a))
	}
}

// Each mail program uses each mechanism that it has, and that the servers have.
func TestClientsMechanisms(t *testing.T) {
	rig := StartServers(t)
	for _, c := range Clients {
		for _, mechanism := range c.Mechanisms {
			t.Run(c.Name+" "+mechanism, func(t *testing.T) {
				t.Parallel()
				Require(t, c.Programs...)
				a := rig.NewAccount(t, Bert.Password)
				login := rig.login(c.Protocol, Implicit, a)
				login.Mechanism = mechanism
				if strings.Contains(mechanism, "OAUTH") {
					login.Password = rig.Token(a.User, time.Now().Add(time.Hour))
				}
				act, log, line := c.List, rig.DovecotLog, "Login: user=<"+a.User+">, method="+mechanism+","
				if c.Send != nil {
					act = c.Send(a, Bert, Message(a, Bert, "with a mechanism"))
					log, line = rig.PostfixLog, "sasl_method="+mechanism+", sasl_username="+a.User
				}
				if out, err := login.Do(t, act); err != nil {
					t.Fatalf("%v\n%s", err, out)
				}
				log.Wait(t, line)
			})
		}
	}
}

// A right password with odd characters is no problem for a mail program, and a wrong one is.
func TestClientsPasswords(t *testing.T) {
	rig := StartServers(t)
	for _, c := range Clients {
		t.Run(c.Name, func(t *testing.T) {
			t.Parallel()
			Require(t, c.Programs...)
			try := func(a Account) (string, error) {
				act := c.List
				if c.Send != nil {
					act = c.Send(a, Bert, Message(a, Bert, "with an odd password"))
				}
				return rig.login(c.Protocol, StartTLS, a).Do(t, act)
			}
			for _, password := range []string{Anna.Password, Carla.Password} {
				if c.ASCII && password == Anna.Password {
					continue
				}
				if out, err := try(rig.NewAccount(t, password)); err != nil {
					t.Errorf("with the password %s: %v\n%s", password, err, out)
				}
			}
			if out, err := try(Account{Bert.User, "wrong"}); err == nil {
				t.Errorf("no error with a wrong password:\n%s", out)
			}
		})
	}
}
