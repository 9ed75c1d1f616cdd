package interop

import (
	"crypto/hmac"
	"crypto/md5"
	"crypto/tls"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
	"github.com/pires/go-proxyproto"
)

// Addresses that the tests say their client has, or has dialled: from the blocks for
// documentation (RFC 5737).
const (
	clientIP  = "192.0.2.77"
	dialledIP = "198.51.100.1"
)

// stranger is an address that the servers do not trust.
const stranger = "127.0.0.66"

func TestDovecotIMAP(t *testing.T) {
	rig := StartServers(t)
	for _, e := range []Endpoint{rig.IMAP, rig.IMAP.By(StartTLS), rig.IMAPS} {
		t.Run(string(e.Entry), func(t *testing.T) {
			a := rig.NewAccount(t, Anna.Password)
			message := Message(Bert, a, "by go-imap")
			c := dialIMAP(t, rig, e)
			must(t, c.Login(a.User, a.Password).Wait())

			upload := c.Append("INBOX", int64(len(message)), nil)
			_, err := upload.Write([]byte(message))
			must(t, err)
			must(t, upload.Close())
			_, err = upload.Wait()
			must(t, err)

			_, err = c.Select("INBOX", nil).Wait()
			must(t, err)
			whole := &imap.FetchItemBodySection{}
			got, err := c.Fetch(imap.SeqSetNum(1), &imap.FetchOptions{BodySection: []*imap.FetchItemBodySection{whole}}).Collect()
			must(t, err)
			if text := string(got[0].FindBodySection(whole)); text != message {
				t.Errorf("fetched %q, appended %q", text, message)
			}
			must(t, c.Logout().Wait())
		})
	}
}

func dialIMAP(t *testing.T, rig *Rig, e Endpoint) *imapclient.Client {
	t.Helper()
	dial := map[Entry]func(string, *imapclient.Options) (*imapclient.Client, error){
		Plain:    imapclient.DialInsecure,
		StartTLS: imapclient.DialStartTLS,
		Implicit: imapclient.DialTLS,
	}[e.Entry]
	c, err := dial(e.Addr(), &imapclient.Options{TLSConfig: &tls.Config{RootCAs: rig.CAs}})
	must(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}

func TestDovecotPOP3(t *testing.T) {
	rig := StartServers(t)
	for _, e := range []Endpoint{rig.POP3, rig.POP3.By(StartTLS), rig.POP3S} {
		t.Run(string(e.Entry), func(t *testing.T) {
			a := rig.NewAccount(t, Anna.Password)
			rig.Deliver(t, a, Message(Bert, a, "for POP3"))
			k := rig.Dial(t, e)
			k.Expect(`^\+OK`)
			if e.Entry == StartTLS {
				k.Ask("STLS", `^\+OK`)
				k.Secure()
			}
			k.Ask("USER "+a.User, `^\+OK`)
			k.Ask("PASS "+a.Password, `^\+OK Logged in`)
			k.Ask("STAT", `^\+OK 1 `)
			k.Ask("RETR 1", "^for POP3, once more")
			k.Expect(`^\.$`)
			k.Ask("DELE 1", `^\+OK`)
			k.Ask("QUIT", `^\+OK`)
			if !eventually(func() bool { return len(rig.Mails(t, a)) == 0 }) {
				t.Error("the message is still there")
			}
		})
	}
}

// What a client may choose from depends on whether Dovecot takes the connection for
// secured: TLS, or a trusted peer. A token counts as a password here.
func TestDovecotAdvertises(t *testing.T) {
	rig := StartServers(t)
	const (
		unsecured = "DIGEST-MD5 CRAM-MD5 SCRAM-SHA-1 SCRAM-SHA-256"
		secured   = unsecured + " PLAIN LOGIN XOAUTH2 OAUTHBEARER"
	)
	for _, c := range []struct {
		from, want    string
		loginDisabled bool
	}{
		{"127.0.0.1", secured, false},
		{stranger, unsecured, true},
	} {
		t.Run("IMAP from "+c.from, func(t *testing.T) {
			k := rig.DialFrom(t, rig.IMAP, c.from)
			greeting := k.Expect(`^\* OK`)
			var offered []string
			for _, m := range regexp.MustCompile(`AUTH=(\S+?)[\] ]`).FindAllStringSubmatch(greeting, -1) {
				offered = append(offered, m[1])
			}
			sameWords(t, strings.Join(offered, " "), c.want)
			if strings.Contains(greeting, "LOGINDISABLED") != c.loginDisabled {
				t.Errorf("the greeting is %q", greeting)
			}
		})
		t.Run("POP3 from "+c.from, func(t *testing.T) {
			k := rig.DialFrom(t, rig.POP3, c.from)
			k.Expect(`^\+OK`)
			capa := k.Ask("CAPA", `^\.`)
			sasl := regexp.MustCompile(`(?m)^SASL (.*?)\r$`).FindStringSubmatch(capa)
			if sasl == nil {
				t.Fatalf("CAPA has no SASL: %q", capa)
			}
			sameWords(t, sasl[1], c.want)
			if strings.Contains(capa, "\nUSER") == c.loginDisabled {
				t.Errorf("CAPA says %q", capa)
			}
		})
	}
}

// sameWords compares two lists of words without regard to their order.
func sameWords(t *testing.T, got, want string) {
	t.Helper()
	count := map[string]int{}
	for _, word := range strings.Fields(got) {
		count[word]++
	}
	for _, word := range strings.Fields(want) {
		count[word]--
	}
	for _, n := range count {
		if n != 0 {
			t.Errorf("got %q, want %q", got, want)
			return
		}
	}
}

// A password from a stranger in the clear is refused unseen, right or wrong.
func TestDovecotRefusesPlaintext(t *testing.T) {
	rig := StartServers(t)
	k := rig.DialFrom(t, rig.IMAP, stranger)
	k.Expect(`^\* OK`)
	k.Ask("a LOGIN bert@example.test "+Bert.Password, `^a NO \[PRIVACYREQUIRED\]`)
	k.Ask("b LOGIN bert@example.test wrong", `^b NO \[PRIVACYREQUIRED\]`)
	k = rig.DialFrom(t, rig.POP3, stranger)
	k.Expect(`^\+OK`)
	k.Ask("USER bert@example.test", `^-ERR \[AUTH\] Plaintext authentication disallowed`)
}

func TestDovecotUserNames(t *testing.T) {
	rig := StartServers(t)
	for _, c := range []struct {
		login Account
		want  string
	}{
		{Account{Anna.Bare(), Anna.Password}, Anna.User},
		{Account{"Anna@Example.TEST", Anna.Password}, Anna.User},
		{Carla, Carla.User},
		{Master.As(Bert), Bert.User},
	} {
		t.Run(c.login.User, func(t *testing.T) {
			log := rig.DovecotLog.Here()
			k := rig.Dial(t, rig.IMAP)
			k.Expect(`^\* OK`)
			k.Ask("a AUTHENTICATE PLAIN "+c.login.SASLPlain(), "^a OK")
			log.Wait(t, "Login: user=<"+regexp.QuoteMeta(c.want)+">, method=PLAIN")
		})
	}
}

// A proxy sends ID and login in one go, with the client's own tag on the login. Dovecot 2.3
// takes no notice of x-connected-name: local_name, the name that the client has asked for,
// stays unknown.
func TestDovecotTrustsID(t *testing.T) {
	rig := StartServers(t)
	log := rig.DovecotLog.Here()
	k := rig.Dial(t, rig.IMAP)
	k.Expect(`^\* OK .* ID `)
	k.Send(
		fmt.Sprintf(`p ID ("x-originating-ip" %q "x-originating-port" "4711" "x-connected-ip" %q "x-connected-port" "143"`+
			` "x-connected-name" "imap.example.test" "x-proxy-ttl" "7" "x-session-id" "mr-1" "x-client-transport" "TLS"`+
			` "x-forward-note" "hello")`, clientIP, dialledIP),
		`client.7 LOGIN bert@example.test `+Bert.Password)
	k.Expect("^p OK")
	k.Expect("^client.7 OK")
	log.Wait(t, `Login: user=<bert@example.test>, method=PLAIN, rip=192.0.2.77, rport=4711, lip=198.51.100.1, lport=143,`+
		` real_rip=127.0.0.1, secured=<secured>, session=<mr-1>, forwarded=<hello>`)
}

func TestDovecotTrustsOnlyTheFirstID(t *testing.T) {
	rig := StartServers(t)
	log := rig.DovecotLog.Here()
	k := rig.Dial(t, rig.IMAP)
	k.Expect(`^\* OK`)
	k.Ask(`a ID ("name" "someone")`, "^a OK")
	k.Ask(fmt.Sprintf(`b ID ("x-originating-ip" %q)`, clientIP), "^b OK")
	k.Ask("c LOGIN bert@example.test "+Bert.Password, "^c OK")
	log.Wait(t, `Login: user=<bert@example.test>, method=PLAIN, rip=127.0.0.1,`)
}

func TestDovecotDistrustsIDOfStrangers(t *testing.T) {
	rig := StartServers(t)
	log := rig.DovecotLog.Here()
	k := rig.DialFrom(t, rig.IMAPS, stranger)
	k.Expect(`^\* OK`)
	k.Ask(fmt.Sprintf(`a ID ("x-originating-ip" %q)`, clientIP), "^a OK")
	k.Ask("b LOGIN bert@example.test "+Bert.Password, "^b OK")
	log.Wait(t, `Login: user=<bert@example.test>, method=PLAIN, rip=`+stranger+`,`)
}

// The greeting tells a trusted peer, and nobody else, that XCLIENT is there. Dovecot 2.3
// takes no notice of DESTADDR, DESTPORT and DESTNAME: lip and local_name remain those of
// the hop.
func TestDovecotTrustsXCLIENT(t *testing.T) {
	rig := StartServers(t)
	log := rig.DovecotLog.Here()
	k := rig.Dial(t, rig.POP3)
	k.Expect(`^\+OK \[XCLIENT\] `)
	forward := base64.StdEncoding.EncodeToString([]byte("note=hello"))
	k.Send("XCLIENT ADDR="+clientIP+" PORT=4711 DESTADDR="+dialledIP+" DESTPORT=110 SESSION=mr-2 TTL=7"+
		" CLIENT-TRANSPORT=TLS DESTNAME=pop3.example.test FORWARD="+forward,
		"USER bert@example.test", "PASS "+Bert.Password)
	k.Expect(`^\+OK`)
	k.Expect(`^\+OK`)
	k.Expect(`^\+OK Logged in`)
	log.Wait(t, `Login: user=<bert@example.test>, method=PLAIN, rip=192.0.2.77, rport=4711, lip=127.0.0.1, .*`+
		` real_rip=127.0.0.1, secured=<secured>, session=<mr-2>, forwarded=<hello>`)
}

func TestDovecotDistrustsXCLIENTOfStrangers(t *testing.T) {
	rig := StartServers(t)
	log := rig.DovecotLog.Here()
	k := rig.DialFrom(t, rig.POP3S, stranger)
	if greeting := k.Expect(`^\+OK`); strings.Contains(greeting, "XCLIENT") {
		t.Errorf("the greeting is %q", greeting)
	}
	k.Ask("XCLIENT ADDR="+clientIP, `^\+OK`)
	k.Ask("USER bert@example.test", `^\+OK`)
	k.Ask("PASS "+Bert.Password, `^\+OK Logged in`)
	log.Wait(t, `Login: user=<bert@example.test>, method=PLAIN, rip=`+stranger+`,`)
}

// proxyHeader returns a PROXY header of version 2 for a client of the tests, with TLVs.
func proxyHeader(t *testing.T, tlvs ...proxyproto.TLV) *proxyproto.Header {
	t.Helper()
	header := proxyproto.HeaderProxyFromAddrs(2,
		&net.TCPAddr{IP: net.ParseIP(clientIP), Port: 4711}, &net.TCPAddr{IP: net.ParseIP(dialledIP), Port: 143})
	must(t, header.SetTLVs(tlvs))
	return header
}

var (
	tlvAuthority = proxyproto.TLV{Type: proxyproto.PP2_TYPE_AUTHORITY, Value: []byte("imap.example.test")}
	// The client has used TLS, without a certificate of its own.
	tlvSSL = proxyproto.TLV{Type: proxyproto.PP2_TYPE_SSL, Value: []byte{0x01, 0, 0, 0, 1}}
)

// Inside a PROXY header the client is a stranger, however trusted the proxy is. So that it
// may log in with a password, the header has to say that the client has used TLS, or the
// hop has to use TLS itself.
func TestDovecotTakesPROXY(t *testing.T) {
	rig := StartServers(t)
	const from = ` rip=192.0.2.77, rport=4711, lip=198.51.100.1, lport=143, real_rip=127.0.0.1, `
	for _, c := range []struct {
		name string
		e    Endpoint
		tlvs []proxyproto.TLV
		want string // in the log; "" if the password is refused
	}{
		{"bare", rig.IMAPHaproxy, nil, ""},
		{"AUTHORITY", rig.IMAPHaproxy, []proxyproto.TLV{tlvAuthority}, ""},
		{"SSL", rig.IMAPHaproxy, []proxyproto.TLV{tlvSSL}, `secured=<secured>`},
		{"AUTHORITY and SSL", rig.IMAPHaproxy, []proxyproto.TLV{tlvAuthority, tlvSSL}, `local_name=<imap.example.test>, secured=<secured>`},
		{"bare, TLS on the hop", rig.IMAPSHaproxy, nil, `local_name=<localhost>, secured=<TLS>`},
		{"AUTHORITY, TLS on the hop", rig.IMAPSHaproxy, []proxyproto.TLV{tlvAuthority}, `local_name=<localhost>, secured=<TLS>`},
	} {
		t.Run(c.name, func(t *testing.T) {
			log := rig.DovecotLog.Here()
			k := rig.DialHaproxy(t, c.e, proxyHeader(t, c.tlvs...))
			k.Expect(`^\* OK`)
			if c.want == "" {
				k.Ask("a LOGIN bert@example.test "+Bert.Password, `^a NO \[PRIVACYREQUIRED\]`)
				return
			}
			k.Ask("a LOGIN bert@example.test "+Bert.Password, "^a OK")
			log.Wait(t, `Login: user=<bert@example.test>, method=PLAIN,`+from+c.want)
		})
	}
	t.Run("POP3", func(t *testing.T) {
		log := rig.DovecotLog.Here()
		k := rig.DialHaproxy(t, rig.POP3Haproxy, proxyHeader(t, tlvSSL))
		k.Expect(`^\+OK`)
		k.Ask("USER bert@example.test", `^\+OK`)
		k.Ask("PASS "+Bert.Password, `^\+OK Logged in`)
		log.Wait(t, `Login: user=<bert@example.test>, method=PLAIN,`+from)
	})
}

// Dovecot 2.3 offers STARTTLS even where the header says that the client has TLS already.
// Later versions do not.
func TestDovecotOffersSTARTTLSInsideTLS(t *testing.T) {
	rig := StartServers(t)
	k := rig.DialHaproxy(t, rig.IMAPHaproxy, proxyHeader(t, tlvSSL))
	k.Expect(`^\* OK .*STARTTLS`)
}

// Dovecot 2.3 looks at neither; later versions close the connection on an AUTHORITY that is
// no host name, and on an ALPN that is not theirs.
func TestDovecotIgnoresBadTLVs(t *testing.T) {
	rig := StartServers(t)
	for name, tlv := range map[string]proxyproto.TLV{
		"AUTHORITY that is no name": {Type: proxyproto.PP2_TYPE_AUTHORITY, Value: []byte("no_name!")},
		"ALPN of another protocol":  {Type: proxyproto.PP2_TYPE_ALPN, Value: []byte("h2")},
	} {
		t.Run(name, func(t *testing.T) {
			k := rig.DialHaproxy(t, rig.IMAPHaproxy, proxyHeader(t, tlv))
			k.Expect(`^\* OK`)
		})
	}
}

// Both mechanisms with a good token, and with one that has expired: then the server
// explains, the client must send an empty line, and only then comes the refusal (RFC 7628,
// section 3.2.3).
func TestDovecotTakesTokens(t *testing.T) {
	rig := StartServers(t)
	initial := map[string]func(token string) string{
		"XOAUTH2":     func(token string) string { return "user=" + Anna.User + "\x01auth=Bearer " + token + "\x01\x01" },
		"OAUTHBEARER": func(token string) string { return "n,a=" + Anna.User + ",\x01auth=Bearer " + token + "\x01\x01" },
	}
	for mechanism, response := range initial {
		t.Run(mechanism, func(t *testing.T) {
			log := rig.DovecotLog.Here()
			good := response(rig.Token(Anna.User, time.Now().Add(time.Hour)))
			k := rig.Dial(t, rig.IMAP)
			k.Expect(`^\* OK`)
			k.Ask("a AUTHENTICATE "+mechanism+" "+base64.StdEncoding.EncodeToString([]byte(good)), "^a OK")
			log.Wait(t, "Login: user=<anna@example.test>, method="+mechanism)

			expired := response(rig.Token(Anna.User, time.Now().Add(-time.Minute)))
			k = rig.Dial(t, rig.IMAP)
			k.Expect(`^\* OK`)
			challenge := k.Ask("a AUTHENTICATE "+mechanism+" "+base64.StdEncoding.EncodeToString([]byte(expired)), `^\+ `)
			why, err := base64.StdEncoding.DecodeString(strings.TrimSpace(strings.TrimPrefix(challenge, "+ ")))
			must(t, err)
			t.Logf("the challenge is %s", why)
			k.Ask("", `^a NO \[AUTHENTICATIONFAILED\]`)
		})
	}
}

func TestDovecotAPOP(t *testing.T) {
	rig := StartServers(t)
	k := rig.DialFrom(t, rig.POP3, stranger)
	stamp := regexp.MustCompile(`<.*>`).FindString(k.Expect(`^\+OK`))
	digest := md5.Sum([]byte(stamp + Anna.Password))
	k.Ask(fmt.Sprintf("APOP %s %x", Anna.User, digest), `^\+OK Logged in`)
}

// CRAM-MD5 (RFC 2195) in the clear: the challenge names the backend, and a proxy passes it
// on as it is.
func TestDovecotCRAMMD5(t *testing.T) {
	rig := StartServers(t)
	k := rig.DialFrom(t, rig.IMAP, stranger)
	k.Expect(`^\* OK`)
	challenge, err := base64.StdEncoding.DecodeString(strings.TrimSpace(strings.TrimPrefix(k.Ask("a AUTHENTICATE CRAM-MD5", `^\+ `), "+ ")))
	must(t, err)
	mac := hmac.New(md5.New, []byte(Anna.Password))
	mac.Write(challenge)
	k.Ask(base64.StdEncoding.EncodeToString([]byte(Anna.User+" "+hex.EncodeToString(mac.Sum(nil)))), "^a OK")
}
