package policy

import (
	"encoding/json"
	"slices"
	"testing"
	"time"
)

func TestReplay(t *testing.T) {
	p := one(t, Stage{From: noon.AddDate(0, 0, -30), Do: Notify}, Stage{From: noon.AddDate(0, 0, 10), Do: Deny})
	lax := one(t, Stage{Do: Observe})
	login := func(minute int, account, tls, protocol, client string) Login {
		f := facts(Account, account, TLS, tls, Protocol, protocol, Client, client, Brand, "a")
		if account != "" {
			f.Set(Verified, Yes)
		}
		return Login{Time: noon.Add(time.Duration(minute) * time.Minute), Facts: *f}
	}
	logins := []Login{
		login(1, "anna", None, "imap", "Outlook"),                // all of hers
		login(2, "ben", None, "imap", "K-9"),                     // one of two
		login(3, "ben", "1.3", "submission", "K-9"),              //
		login(4, "cleo", None, "pop3", ""),                       // put right since
		login(9, "cleo", "1.2", "pop3", ""),                      //
		login(6, "dora", "1.3", "imap", "Thunderbird"),           // always was
		login(8, "emil", "1.3", "imap", "Thunderbird"),           // the later one counts, in whatever order
		login(7, "emil", None, "imap", "Thunderbird"),            //
		login(10, "", None, "imap", "a robot"),                   // nobody
		{Time: noon, Facts: *facts(Account, "fritz", TLS, None)}, // tried only
	}
	logins[5].Was, logins[5].By = Deny, []string{"password-only"}
	for _, c := range []struct {
		name          string
		before, after Side
		want          string
	}{
		{"tomorrow's date", Side{Policy: p}, Side{Policy: p, At: noon.AddDate(0, 0, 10)},
			`{"logins":8,"skipped":2,"accounts":5,"devices":6,"refused":[{"account":"anna","devices":1,"on":[{"brand":"a","protocol":"imap","client":"Outlook"}],"all":true,"by":["encrypted"]},{"account":"ben","devices":2,"on":[{"brand":"a","protocol":"imap","client":"K-9"}],"all":false,"by":["encrypted"]}],"freed":[],"stay":0,"brands":[{"name":"a","refused":2,"freed":0}],"protocols":[{"name":"imap","refused":2,"freed":0}],"clients":[{"name":"K-9","refused":1,"freed":0},{"name":"Outlook","refused":1,"freed":0}]}`},
		{"a milder file", Side{Policy: p, At: noon.AddDate(0, 0, 10)}, Side{Policy: lax},
			`{"logins":8,"skipped":2,"accounts":5,"devices":6,"refused":[],"freed":[{"account":"anna","devices":1,"on":[{"brand":"a","protocol":"imap","client":"Outlook"}],"all":true,"by":["encrypted"]},{"account":"ben","devices":2,"on":[{"brand":"a","protocol":"imap","client":"K-9"}],"all":true,"by":["encrypted"]}],"stay":0,"brands":[{"name":"a","refused":0,"freed":2}],"protocols":[{"name":"imap","refused":0,"freed":2}],"clients":[{"name":"K-9","refused":0,"freed":1},{"name":"Outlook","refused":0,"freed":1}]}`},
		{"what they met", Side{}, Side{Policy: p},
			`{"logins":8,"skipped":2,"accounts":5,"devices":6,"refused":[],"freed":[{"account":"dora","devices":1,"on":[{"brand":"a","protocol":"imap","client":"Thunderbird"}],"all":true,"by":["password-only"]}],"stay":0,"brands":[{"name":"a","refused":0,"freed":1}],"protocols":[{"name":"imap","refused":0,"freed":1}],"clients":[{"name":"Thunderbird","refused":0,"freed":1}]}`},
		{"the same", Side{Policy: p, At: noon.AddDate(0, 0, 10)}, Side{Policy: p, At: noon.AddDate(0, 0, 11)},
			`{"logins":8,"skipped":2,"accounts":5,"devices":6,"refused":[],"freed":[],"stay":2,"brands":[],"protocols":[],"clients":[]}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := Replay(slices.Values(logins), c.before, c.after)
			got, err := json.Marshal(d)
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
			t.Log(d)
		})
	}
	d := Replay(slices.Values(logins), Side{Policy: p}, Side{Policy: p, At: noon.AddDate(0, 0, 10)})
	if want := "8 logins of 5 accounts on 6 devices: 2 accounts would be newly refused, 1 of them on every device"; d.String() != want {
		t.Errorf("got %q, want %q", d, want)
	}
}
