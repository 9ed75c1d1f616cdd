package interop

import (
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"net"
	"net/smtp"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/pires/go-proxyproto"
)

// From net/smtp through Postfix and Dovecot's LMTP into the mailbox.
func TestPostfixDelivers(t *testing.T) {
	rig := StartServers(t)
	config := &tls.Config{RootCAs: rig.CAs, ServerName: "localhost"}
	for _, e := range []Endpoint{rig.Submission, rig.SubmissionStartTLS, rig.Submissions} {
		t.Run(string(e.Entry), func(t *testing.T) {
			to := rig.NewAccount(t, "x")
			conn, err := net.Dial("tcp4", e.Addr())
			must(t, err)
			if e.Entry == Implicit {
				conn = tls.Client(conn, config)
			}
			c, err := smtp.NewClient(conn, e.Host)
			must(t, err)
			defer c.Close()
			if e.Entry == StartTLS {
				must(t, c.StartTLS(config))
			}
			must(t, c.Auth(smtp.PlainAuth("", Anna.User, Anna.Password, e.Host)))
			must(t, c.Mail(Anna.User))
			must(t, c.Rcpt(to.User))
			w, err := c.Data()
			must(t, err)
			_, err = w.Write([]byte(Message(Anna, to, "by net/smtp")))
			must(t, err)
			must(t, w.Close())
			must(t, c.Quit())
			rig.WaitMail(t, to, "by net/smtp, once more")
		})
	}
}

func TestPostfixAdvertises(t *testing.T) {
	rig := StartServers(t)
	const extensions = `XCLIENT NAME ADDR PROTO HELO REVERSE_NAME PORT LOGIN DESTADDR DESTPORT|PIPELINING|VRFY|ETRN|` +
		`SIZE 64000000|ENHANCEDSTATUSCODES|8BITMIME|DSN|SMTPUTF8|CHUNKING`
	const mechanisms = `AUTH PLAIN LOGIN CRAM-MD5 DIGEST-MD5 SCRAM-SHA-1 SCRAM-SHA-256 XOAUTH2 OAUTHBEARER`
	for _, c := range []struct {
		e    Endpoint
		want string
	}{
		{rig.Submission, extensions + "|" + mechanisms},
		{rig.SubmissionStartTLS, extensions + "|STARTTLS"}, // AUTH comes with TLS
		{rig.Submissions, extensions + "|" + mechanisms},
	} {
		t.Run(string(c.e.Entry), func(t *testing.T) {
			k := rig.Dial(t, c.e)
			k.Expect("^220 mx.example.test ESMTP")
			_, got, _ := strings.Cut(k.Ask("EHLO client.example", "^250 "), "\n")
			var lines []string
			for line := range strings.Lines(got) {
				lines = append(lines, strings.ReplaceAll(strings.TrimSpace(line[4:]), " ", "_"))
			}
			sameWords(t, strings.Join(lines, " "), strings.ReplaceAll(strings.ReplaceAll(c.want, " ", "_"), "|", " "))
		})
	}
}

func TestPostfixWantsLogin(t *testing.T) {
	rig := StartServers(t)
	for _, to := range []string{Bert.User, "someone@elsewhere.example"} {
		k := rig.Dial(t, rig.Submission)
		k.Expect("^220 ")
		k.Ask("EHLO client.example", "^250 ")
		k.Ask("MAIL FROM:<anna@example.test>", "^250 ")
		k.Ask("RCPT TO:<"+to+">", "^554 5.7.1 ")
	}
}

func TestPostfixWantsSTARTTLS(t *testing.T) {
	rig := StartServers(t)
	k := rig.Dial(t, rig.SubmissionStartTLS)
	k.Expect("^220 ")
	k.Ask("EHLO client.example", "^250 ")
	k.Ask("AUTH PLAIN "+Anna.SASLPlain(), "^530 5.7.0 Must issue a STARTTLS command first")
	k.Ask("MAIL FROM:<anna@example.test>", "^530 5.7.0 ")
	k.Ask("STARTTLS", "^220 ")
	k.Secure()
	k.Ask("EHLO client.example", "^250 ")
	k.Ask("AUTH PLAIN "+Anna.SASLPlain(), "^235 ")
}

func TestPostfixRefusesWrongPassword(t *testing.T) {
	rig := StartServers(t)
	k := rig.Dial(t, rig.Submission)
	k.Expect("^220 ")
	k.Ask("EHLO client.example", "^250 ")
	k.Ask("AUTH PLAIN "+Account{Anna.User, "wrong"}.SASLPlain(), "^535 5.7.8 ")
}

// After XCLIENT the session begins anew, with a greeting; what EHLO has said before is forgotten.
func TestPostfixTrustsXCLIENT(t *testing.T) {
	rig := StartServers(t)
	to := rig.NewAccount(t, "x")
	log := rig.PostfixLog.Here()
	k := rig.Dial(t, rig.Submission)
	k.Expect("^220 ")
	k.Ask("EHLO proxy.example.test", "^250 ")
	k.Ask("XCLIENT NAME=[UNAVAILABLE] PROTO=ESMTP HELO=client.example PORT=4711 DESTADDR="+dialledIP+" DESTPORT=587 ADDR="+clientIP, "^220 ")
	k.Ask("EHLO client.example", "^250 ")
	k.Ask("AUTH PLAIN "+Anna.SASLPlain(), "^235 ")
	sendMail(k, Anna, to, "with XCLIENT")
	log.Wait(t, `client=unknown\[192.0.2.77\], sasl_method=PLAIN, sasl_username=anna@example.test`)
	mail := rig.WaitMail(t, to, "with XCLIENT")
	if !regexp.MustCompile(`Received: from client.example \(unknown \[192.0.2.77\]\)`).MatchString(mail) {
		t.Errorf("the message has no Received line of the client: %q", mail)
	}
}

// sendMail sends a message in a session that has logged in.
func sendMail(k *Talk, from, to Account, text string) {
	k.t.Helper()
	k.Ask("MAIL FROM:<"+from.User+">", "^250 ")
	k.Ask("RCPT TO:<"+to.User+">", "^250 ")
	k.Ask("DATA", "^354 ")
	k.Send(Message(from, to, text) + ".")
	k.Expect("^250 ")
}

// With LOGIN a proxy vouches for the user, and no password goes to the backend. Without
// LOGIN nobody is logged in.
func TestPostfixTrustsXCLIENTLogin(t *testing.T) {
	rig := StartServers(t)
	to := rig.NewAccount(t, "x")
	log := rig.PostfixLog.Here()
	k := rig.Dial(t, rig.Submission)
	k.Expect("^220 ")
	k.Ask("EHLO proxy.example.test", "^250 ")
	k.Ask("XCLIENT LOGIN=anna@example.test ADDR="+clientIP, "^220 ")
	k.Ask("EHLO client.example", "^250 ")
	sendMail(k, Anna, to, "with XCLIENT LOGIN")
	log.Wait(t, `client=unknown\[192.0.2.77\], sasl_method=XCLIENT, sasl_username=anna@example.test`)
}

// A command line may have 512 bytes, so long values go in several commands. ADDR must be in
// the last one: from then on the peer is the client, which has no right to XCLIENT.
func TestPostfixTrustsXCLIENTUntilADDR(t *testing.T) {
	rig := StartServers(t)
	k := rig.Dial(t, rig.Submission)
	k.Expect("^220 ")
	k.Ask("EHLO proxy.example.test", "^250 ")
	k.Ask("XCLIENT HELO=client.example", "^220 ")
	k.Ask("XCLIENT ADDR=IPV6:2001:db8::77", "^220 ")
	if ehlo := k.Ask("EHLO client.example", "^250 "); strings.Contains(ehlo, "XCLIENT") {
		t.Errorf("EHLO says %q", ehlo)
	}
	k.Ask("XCLIENT PORT=4711", "^550 5.7.0 ")
}

// XCLIENT goes before STARTTLS on the hop; the new session still asks for TLS.
func TestPostfixTrustsXCLIENTBeforeSTARTTLS(t *testing.T) {
	rig := StartServers(t)
	to := rig.NewAccount(t, "x")
	log := rig.PostfixLog.Here()
	k := rig.Dial(t, rig.SubmissionStartTLS)
	k.Expect("^220 ")
	k.Ask("EHLO proxy.example.test", "^250 ")
	k.Ask("XCLIENT ADDR="+clientIP, "^220 ")
	k.Ask("EHLO client.example", "^250[- ]STARTTLS")
	k.Expect("^250 ")
	k.Ask("STARTTLS", "^220 ")
	k.Secure()
	k.Ask("EHLO client.example", "^250 ")
	k.Ask("AUTH PLAIN "+Anna.SASLPlain(), "^235 ")
	sendMail(k, Anna, to, "with XCLIENT and TLS")
	log.Wait(t, `client=unknown\[192.0.2.77\], sasl_method=PLAIN`)
}

func TestPostfixTakesPROXY(t *testing.T) {
	rig := StartServers(t)
	for _, e := range []Endpoint{rig.SubmissionHaproxy, rig.SubmissionsHaproxy} {
		for name, tlvs := range map[string][]proxyproto.TLV{"bare": nil, "with TLVs": {tlvAuthority, tlvSSL}} {
			t.Run(string(e.Entry)+" "+name, func(t *testing.T) {
				to := rig.NewAccount(t, "x")
				log := rig.PostfixLog.Here()
				k := rig.DialHaproxy(t, e, proxyHeader(t, tlvs...))
				k.Expect("^220 ")
				k.Ask("EHLO client.example", "^250 ")
				k.Ask("AUTH PLAIN "+Anna.SASLPlain(), "^235 ")
				sendMail(k, Anna, to, "with PROXY")
				log.Wait(t, `client=unknown\[192.0.2.77\], sasl_method=PLAIN, sasl_username=anna@example.test`)
			})
		}
	}
}

func TestPostfixTakesTokens(t *testing.T) {
	rig := StartServers(t)
	token := rig.Token(Anna.User, time.Now().Add(time.Hour))
	for mechanism, response := range map[string]string{
		"XOAUTH2":     "user=" + Anna.User + "\x01auth=Bearer " + token + "\x01\x01",
		"OAUTHBEARER": "n,a=" + Anna.User + ",\x01auth=Bearer " + token + "\x01\x01",
	} {
		k := rig.Dial(t, rig.Submission)
		k.Expect("^220 ")
		k.Ask("EHLO client.example", "^250 ")
		k.Ask("AUTH "+mechanism+" "+base64.StdEncoding.EncodeToString([]byte(response)), "^235 ")
	}
}

// BDAT (RFC 3030) instead of DATA.
func TestPostfixTakesChunks(t *testing.T) {
	rig := StartServers(t)
	to := rig.NewAccount(t, "x")
	k := rig.Dial(t, rig.Submission)
	k.Expect("^220 ")
	k.Ask("EHLO client.example", "^250 ")
	k.Ask("AUTH PLAIN "+Anna.SASLPlain(), "^235 ")
	k.Ask("MAIL FROM:<anna@example.test>", "^250 ")
	k.Ask("RCPT TO:<"+to.User+">", "^250 ")
	message := Message(Anna, to, "in chunks")
	k.Send(fmt.Sprintf("BDAT %d LAST", len(message)))
	k.Write(message)
	k.Expect("^250 ")
	rig.WaitMail(t, to, "in chunks")
}

// What Dovecot refuses comes back to the sender, with what that has said about
// notifications (DSN, RFC 3461).
func TestPostfixReturnsMail(t *testing.T) {
	rig := StartServers(t)
	from := rig.NewAccount(t, "x")
	k := rig.Dial(t, rig.Submission)
	k.Expect("^220 ")
	k.Ask("EHLO client.example", "^250 ")
	k.Ask("AUTH PLAIN "+from.SASLPlain(), "^235 ")
	k.Ask("MAIL FROM:<"+from.User+"> RET=HDRS ENVID=interop", "^250 ")
	k.Ask("RCPT TO:<nobody@example.test> NOTIFY=FAILURE", "^250 ")
	k.Ask("DATA", "^354 ")
	k.Send(Message(from, Account{User: "nobody@example.test"}, "to nobody") + ".")
	k.Expect("^250 ")
	rig.WaitMail(t, from, "Original-Envelope-Id: interop")
}

// Postfix takes mail that needs SMTPUTF8 (RFC 6531). But Dovecot 2.3 does not offer it in
// LMTP, so neither the mail nor the notice of that can be delivered.
func TestPostfixTakesSMTPUTF8(t *testing.T) {
	rig := StartServers(t)
	log := rig.PostfixLog.Here()
	k := rig.Dial(t, rig.Submission)
	k.Expect("^220 ")
	k.Ask("EHLO client.example", "^250 ")
	k.Ask("AUTH PLAIN "+Anna.SASLPlain(), "^235 ")
	k.Ask("MAIL FROM:<"+Anna.User+"> SMTPUTF8", "^250 ")
	k.Ask("RCPT TO:<jürgen@example.test>", "^250 ")
	k.Ask("DATA", "^354 ")
	k.Send(Message(Anna, Account{User: "jürgen@example.test"}, "with an umlaut") + ".")
	k.Expect("^250 ")
	log.Wait(t, "to=<jürgen@example.test>.*status=bounced .SMTPUTF8 is required, but was not offered")
}

// A client whose address Postfix cannot be told is told of as unknown: that takes the right to
// use XCLIENT away as well, which the proxy's own address would keep.
func TestPostfixTrustsNobodyUnknown(t *testing.T) {
	rig := StartServers(t)
	k := rig.Dial(t, rig.Submission)
	k.Expect("^220 ")
	k.Ask("EHLO proxy.example", "^250 ")
	k.Ask("XCLIENT ADDR=[UNAVAILABLE]", "^220 ")
	if offers := k.Ask("EHLO client.example", "^250 "); strings.Contains(offers, "XCLIENT") {
		t.Errorf("XCLIENT is still offered:\n%s", offers)
	}
	k.Ask("XCLIENT LOGIN="+Bert.User, "^550 ")
}
