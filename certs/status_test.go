package certs_test

import (
	"strings"
	"testing"
	"time"

	"mailreeve/certs"
)

func TestTrouble(t *testing.T) {
	now := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	day := 24 * time.Hour
	// lives gives a status a certificate of so many days, of which some are left.
	lives := func(s certs.Status, days, left float64) certs.Status {
		s.NotAfter = now.Add(time.Duration(left * float64(day)))
		s.NotBefore = s.NotAfter.Add(-time.Duration(days * float64(day)))
		return s
	}
	const name = "imap.example.org"
	file := certs.Status{Name: name, Source: "file", File: "mail.pem"}
	refused := file
	refused.Error = "mail.pem: it is not in PEM form; convert it"
	ours := certs.Status{Name: name, Source: "acme", Canonical: true, KeyType: certs.RSA}
	failing := ours
	failing.Failures, failing.Error = 3, "rateLimited: too many"
	first, second := ours, ours
	first.Failures, first.Error = 1, "an order is under way, or was cut off"
	second.Failures, second.Error = 2, "an order is under way, or was cut off; the one before: no such host"
	spare := file
	spare.Spare = true
	theirs := certs.Status{Name: name, Source: "acme"}
	theirsFailing := theirs
	theirsFailing.Failures, theirsFailing.Error = 1, "no such host"

	tests := []struct {
		name   string
		status certs.Status
		want   string // "" is no trouble
		urgent bool
	}{
		{"a file with 15 days", lives(file, 90, 15), "", false},
		{"a file with 13 days", lives(file, 90, 13), "mail.pem: the ECDSA certificate for imap.example.org expires on 2026-05-14 12:00 UTC; renew it; a new file is seen without a reload", false},
		{"a file with 2 days", lives(file, 90, 2), "expires on 2026-05-03", true},
		{"a file that lives for 6 days, 2 left", lives(file, 6, 2), "", false},
		{"a file that lives for 6 days, 1 left", lives(file, 6, 1), "expires on", true},
		{"a file of yesterday", lives(file, 90, -1), "expired on 2026-04-30", true},
		{"a file of tomorrow", lives(file, 90, 91), "is not valid before 2026-05-02 12:00 UTC; set the clock", false},
		{"a file of yesterday beside a better one", lives(spare, 90, -1), "", false},
		{"a file that is refused", lives(refused, 90, 50), "is the former one; the file that is there now is not used: mail.pem: it is not in PEM form", false},
		{"no file", certs.Status{Name: name, Canonical: true}, "imap.example.org: there is no certificate for imap.example.org; add one", true},

		{"ours", lives(ours, 90, 60), "", false},
		{"ours, renewal fails", lives(failing, 90, 25), "", false},
		{"ours, renewal fails, 6 days", lives(failing, 90, 6), "imap.example.org: the RSA certificate for imap.example.org expires on 2026-05-07 12:00 UTC and is not renewed; 3 orders have failed, the last one: rateLimited: too many; mend what", false},
		{"ours, renewal does not run", lives(ours, 90, 6), "and is not renewed; `mailreeve run` orders it", false},
		{"ours, of a minute", lives(failing, 1./1440, .5/1440), "", false},
		{"ours, of a minute, 10 seconds", lives(failing, 1./1440, 1./8640), "expires on", true},
		{"ours, expired", lives(failing, 90, -1), "expired on 2026-04-30 12:00 UTC; 3 orders", true},
		{"ours, none yet", ours, "there is no RSA certificate for imap.example.org yet; `mailreeve run` orders it", true},
		{"ours, the first order", first, "certificate for imap.example.org yet; an order is under way, or was cut off; `mailreeve run` orders it", true},
		{"ours, the second order", second, "yet; an order is under way, or was cut off; the one before: no such host; mend what", true},

		{"another name, none yet", theirsFailing, "", false},
		{"another name, forgotten", lives(theirs, 90, 1), "", false},
		{"another name, renewal fails", lives(theirsFailing, 90, 6), "is not renewed; the order failed: no such host", false},
		{"another name, moved away", lives(theirsFailing, 90, -8), "", false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			err := test.status.Trouble(now)
			if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("got %v, want %q", err, test.want)
			}
			if got := test.status.Urgent(now); got != test.urgent {
				t.Errorf("urgent is %v", got)
			}
		})
	}
}

func TestExpiresSoon(t *testing.T) {
	now := time.Now()
	for left, want := range map[time.Duration]bool{15 * 24 * time.Hour: false, 13 * 24 * time.Hour: true, -time.Hour: true} {
		if got := (certs.Info{NotBefore: now.AddDate(0, 0, -70), NotAfter: now.Add(left)}).ExpiresSoon(now); got != want {
			t.Errorf("%v left: %v", left, got)
		}
	}
}
