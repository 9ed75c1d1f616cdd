package certs

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/acme"
)

// fakeCA is an authority of RFC 8555 without sockets: a transport. It checks nonces, URLs and
// signatures, and validates by asking its nodes. Fields may be changed between requests, by
// set.
type fakeCA struct {
	t         *testing.T
	authority *Authority

	mu       sync.Mutex // guards the following
	nonces   map[string]bool
	posts    int
	accounts []*fakeAccount
	orders   []*fakeOrder
	issued   []string // "name kind challenge", in order

	life     time.Duration                                     // of certificates
	every    int                                               // each n-th post meets a bad nonce; 0: none
	nodes    []*ACME                                           // who answers challenges
	eab      map[string][]byte                                 // demanded, if not nil
	hook     func(*http.Request) (*http.Response, error)       // may answer instead
	refuse   func(kind, name string) error                     // fails validations
	template func(*x509.Certificate)                           // changes what is signed
	chain    func(leaf []byte, name string) [][]byte           // changes what is handed out
	public   func(csr *x509.CertificateRequest) any            // changes whose key is signed
	skew     time.Duration                                     // of its clock
	slow     func(req *http.Request, wait func(time.Duration)) // takes time before an answer
	forever  bool                                              // orders stay in processing
}

type fakeAccount struct {
	key     *ecdsa.PublicKey
	contact []string
}

type fakeOrder struct {
	account       int
	name          string
	token         string
	status, authz string
	kind          string // of the challenge
	problem       string
	cert          []byte
	created       time.Time
}

const fakeDirectory = "https://ca.example.test/directory"

func newFakeCA(t *testing.T) *fakeCA {
	t.Helper()
	authority, err := NewAuthority("Fake authority")
	if err != nil {
		t.Fatal(err)
	}
	return &fakeCA{t: t, authority: authority, nonces: map[string]bool{}, life: 90 * 24 * time.Hour}
}

// set changes the behaviour.
func (ca *fakeCA) set(change func()) {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	change()
}

// orderCount is how many orders there were.
func (ca *fakeCA) orderCount() int {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	return len(ca.orders)
}

// list is what was issued.
func (ca *fakeCA) list() []string {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	return slices.Clone(ca.issued)
}

// answer makes a response.
func answer(status int, body any, header ...string) *http.Response {
	var data []byte
	switch b := body.(type) {
	case nil:
	case string:
		data = []byte(b)
	case []byte:
		data = b
	default:
		data, _ = json.Marshal(b)
	}
	res := &http.Response{StatusCode: status, Status: fmt.Sprint(status, " ", http.StatusText(status)),
		Header: http.Header{}, Body: io.NopCloser(bytes.NewReader(data))}
	for i := 0; i+1 < len(header); i += 2 {
		res.Header.Set(header[i], header[i+1])
	}
	return res
}

// problem makes an error response.
func problem(status int, kind, detail string, header ...string) *http.Response {
	return answer(status, map[string]any{"type": "urn:ietf:params:acme:error:" + kind, "detail": detail, "status": status},
		append([]string{"Content-Type", "application/problem+json"}, header...)...)
}

// RoundTrip answers one request.
func (ca *fakeCA) RoundTrip(req *http.Request) (*http.Response, error) {
	ca.mu.Lock()
	hook, slow := ca.hook, ca.slow
	ca.mu.Unlock()
	if slow != nil {
		slow(req, func(d time.Duration) {
			select {
			case <-time.After(d):
			case <-req.Context().Done():
			}
		})
	}
	if err := req.Context().Err(); err != nil {
		return nil, err
	}
	res, err := (*http.Response)(nil), error(nil)
	if hook != nil {
		res, err = hook(req)
	}
	if res == nil && err == nil {
		res = ca.serve(req)
	}
	if err != nil {
		return nil, err
	}
	ca.mu.Lock()
	defer ca.mu.Unlock()
	nonce := rand.Text()
	ca.nonces[nonce] = true
	res.Header.Set("Replay-Nonce", nonce)
	res.Header.Set("Date", time.Now().Add(ca.skew).UTC().Format(http.TimeFormat))
	res.Request = req
	return res, nil
}

// serve is the protocol itself.
func (ca *fakeCA) serve(req *http.Request) *http.Response {
	const base = "https://ca.example.test"
	if !strings.HasPrefix(req.UserAgent(), "mailreeve ") {
		ca.t.Errorf("user agent %q", req.UserAgent())
	}
	switch req.URL.Path {
	case "/directory":
		return answer(200, map[string]any{"newNonce": base + "/nonce", "newAccount": base + "/account", "newOrder": base + "/order",
			"meta": map[string]any{"termsOfService": base + "/terms", "externalAccountRequired": ca.eab != nil}})
	case "/nonce":
		return answer(200, nil)
	}
	ca.mu.Lock()
	defer ca.mu.Unlock()
	payload, who, key, err := ca.open(req)
	if err != nil {
		return problem(400, "malformed", err.Error())
	}
	if payload == nil {
		return problem(400, "badNonce", "an old nonce")
	}
	var n int
	var kind string
	path := strings.TrimPrefix(req.URL.Path, "/")
	switch {
	case path == "account":
		return ca.account(payload, key)
	case who < 0 || who >= len(ca.accounts) || ca.accounts[who] == nil:
		return problem(400, "accountDoesNotExist", "no such account")
	case strings.HasPrefix(path, "account/"):
		var body struct{ Contact []string }
		_ = json.Unmarshal(payload, &body)
		ca.accounts[who].contact = body.Contact
		return answer(200, map[string]string{"status": "valid"})
	case path == "order":
		var body struct {
			Identifiers []struct{ Type, Value string }
		}
		if err := json.Unmarshal(payload, &body); err != nil || len(body.Identifiers) != 1 || body.Identifiers[0].Type != "dns" {
			return problem(400, "malformed", "one name, please")
		}
		ca.orders = append(ca.orders, &fakeOrder{account: who, name: body.Identifiers[0].Value, token: rand.Text(),
			status: "pending", authz: "pending", created: time.Now()})
		res := ca.order(len(ca.orders)-1, base)
		res.StatusCode = 201
		return res
	case scan(path, "order/%d", &n):
		return ca.order(n, base)
	case scan(path, "authz/%d", &n):
		return ca.authz(n, base)
	case scan(path, "challenge/%d/%s", &n, &kind):
		ca.validate(ca.orders[n], kind)
		return answer(200, map[string]string{"type": kind, "status": ca.orders[n].authz, "token": ca.orders[n].token})
	case scan(path, "finalize/%d", &n):
		return ca.finalize(n, payload, base)
	case scan(path, "cert/%d", &n):
		return answer(200, ca.orders[n].cert)
	}
	return problem(404, "malformed", "no such thing: "+path)
}

func scan(path, format string, into ...any) bool {
	n, err := fmt.Sscanf(path, format, into...)
	return err == nil && n == len(into)
}

// open checks a JWS. A nil payload says that the nonce was bad.
func (ca *fakeCA) open(req *http.Request) (payload []byte, account int, key *ecdsa.PublicKey, err error) {
	var jws struct{ Protected, Payload, Signature string }
	if err := json.NewDecoder(req.Body).Decode(&jws); err != nil {
		return nil, -1, nil, err
	}
	protected, err := base64.RawURLEncoding.DecodeString(jws.Protected)
	if err != nil {
		return nil, -1, nil, err
	}
	var head struct {
		Alg, Nonce, URL, Kid string
		Jwk                  *struct{ Crv, Kty, X, Y string }
	}
	if err := json.Unmarshal(protected, &head); err != nil {
		return nil, -1, nil, err
	}
	account = -1
	switch {
	case head.URL != req.URL.String():
		return nil, -1, nil, errors.New("signed for another URL")
	case head.Jwk != nil:
		x, _ := base64.RawURLEncoding.DecodeString(head.Jwk.X)
		y, _ := base64.RawURLEncoding.DecodeString(head.Jwk.Y)
		key, err = ecdsa.ParseUncompressedPublicKey(elliptic.P256(), slices.Concat([]byte{4}, x, y))
		if err != nil {
			return nil, -1, nil, err
		}
	default:
		if !scan(head.Kid, "https://ca.example.test/account/%d", &account) || account >= len(ca.accounts) || ca.accounts[account] == nil {
			return []byte{}, -1, nil, nil // the caller says that there is no such account
		}
		key = ca.accounts[account].key
	}
	sig, err := base64.RawURLEncoding.DecodeString(jws.Signature)
	if err != nil || len(sig) != 64 {
		return nil, -1, nil, errors.New("no signature of ES256")
	}
	hash := sha256.Sum256([]byte(jws.Protected + "." + jws.Payload))
	if !ecdsa.Verify(key, hash[:], new(big.Int).SetBytes(sig[:32]), new(big.Int).SetBytes(sig[32:])) {
		return nil, -1, nil, errors.New("the signature is wrong")
	}
	ca.posts++
	if !ca.nonces[head.Nonce] || ca.every > 0 && ca.posts%ca.every == 0 {
		return nil, -1, nil, nil
	}
	delete(ca.nonces, head.Nonce)
	payload, err = base64.RawURLEncoding.DecodeString(jws.Payload)
	return append([]byte{}, payload...), account, key, err
}

// account registers, or finds what the key registered before.
func (ca *fakeCA) account(payload []byte, key *ecdsa.PublicKey) *http.Response {
	var body struct {
		Contact                []string
		TermsOfServiceAgreed   bool
		ExternalAccountBinding *struct{ Protected, Payload, Signature string }
	}
	if err := json.Unmarshal(payload, &body); err != nil || key == nil {
		return problem(400, "malformed", "no account")
	}
	for i, a := range ca.accounts {
		if a != nil && a.key.Equal(key) {
			return answer(200, map[string]string{"status": "valid"}, "Location", fmt.Sprintf("https://ca.example.test/account/%d", i))
		}
	}
	if !body.TermsOfServiceAgreed {
		return problem(403, "userActionRequired", "read the terms")
	}
	if ca.eab != nil {
		bound := false
		if b := body.ExternalAccountBinding; b != nil {
			protected, _ := base64.RawURLEncoding.DecodeString(b.Protected)
			var head struct{ Alg, Kid, URL string }
			_ = json.Unmarshal(protected, &head)
			mac := hmac.New(sha256.New, ca.eab[head.Kid])
			mac.Write([]byte(b.Protected + "." + b.Payload))
			bound = b.Signature == base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
		}
		if !bound {
			return problem(403, "unauthorized", "the external account binding is wrong")
		}
	}
	ca.accounts = append(ca.accounts, &fakeAccount{key: key, contact: body.Contact})
	return answer(201, map[string]string{"status": "valid"}, "Location", fmt.Sprintf("https://ca.example.test/account/%d", len(ca.accounts)-1))
}

func (ca *fakeCA) order(n int, base string) *http.Response {
	o := ca.orders[n]
	body := map[string]any{"status": o.status, "authorizations": []string{fmt.Sprintf("%s/authz/%d", base, n)},
		"finalize": fmt.Sprintf("%s/finalize/%d", base, n), "identifiers": []map[string]string{{"type": "dns", "value": o.name}}}
	if o.status == "valid" {
		body["certificate"] = fmt.Sprintf("%s/cert/%d", base, n)
	}
	return answer(200, body, "Location", fmt.Sprintf("%s/order/%d", base, n))
}

func (ca *fakeCA) authz(n int, base string) *http.Response {
	o := ca.orders[n]
	var challenges []map[string]any
	for _, kind := range []string{"dns-01", "tls-alpn-01", "http-01"} {
		c := map[string]any{"type": kind, "url": fmt.Sprintf("%s/challenge/%d/%s", base, n, kind), "token": o.token, "status": o.authz}
		if o.problem != "" && kind == o.kind {
			c["error"] = map[string]any{"type": "urn:ietf:params:acme:error:unauthorized", "detail": o.problem, "status": 403}
		}
		challenges = append(challenges, c)
	}
	return answer(200, map[string]any{"status": o.authz, "identifier": map[string]string{"type": "dns", "value": o.name}, "challenges": challenges})
}

// validate asks the nodes in turn, the last one first.
func (ca *fakeCA) validate(o *fakeOrder, kind string) {
	o.kind, o.authz, o.status = kind, "invalid", "invalid"
	if ca.refuse != nil {
		if err := ca.refuse(kind, o.name); err != nil {
			o.problem = err.Error()
			return
		}
	}
	thumb, err := acme.JWKThumbprint(ca.accounts[o.account].key)
	if err != nil {
		ca.t.Error(err)
	}
	keyAuth := o.token + "." + thumb
	o.problem = "nobody answers"
	for _, node := range ca.nodes {
		switch kind {
		case "http-01":
			if got, ok := node.HTTP01(o.token); ok && got == keyAuth {
				o.problem, o.authz, o.status = "", "valid", "ready"
			}
		case "tls-alpn-01":
			cert, err := node.ALPN(&tls.ClientHelloInfo{ServerName: o.name, SupportedProtos: []string{"acme-tls/1"}})
			if err != nil {
				o.problem = err.Error()
				continue
			}
			leaf, err := x509.ParseCertificate(cert.Certificate[0])
			if err != nil {
				ca.t.Error(err)
				continue
			}
			sum := sha256.Sum256([]byte(keyAuth))
			want, _ := asn1.Marshal(sum[:])
			for _, e := range leaf.Extensions {
				if e.Id.String() == "1.3.6.1.5.5.7.1.31" && e.Critical && bytes.Equal(e.Value, want) && slices.Equal(leaf.DNSNames, []string{o.name}) {
					o.problem, o.authz, o.status = "", "valid", "ready"
				}
			}
		}
	}
}

// finalize signs.
func (ca *fakeCA) finalize(n int, payload []byte, base string) *http.Response {
	o := ca.orders[n]
	var body struct{ CSR string }
	_ = json.Unmarshal(payload, &body)
	der, err := base64.RawURLEncoding.DecodeString(body.CSR)
	if err != nil || o.status != "ready" {
		return problem(403, "orderNotReady", "not ready")
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil || csr.CheckSignature() != nil || !slices.Equal(csr.DNSNames, []string{o.name}) {
		return problem(400, "badCSR", "another CSR, please")
	}
	if ca.forever {
		o.status = "processing"
		return ca.order(n, base)
	}
	now := time.Now().Add(ca.skew)
	template := &x509.Certificate{DNSNames: csr.DNSNames, NotBefore: now, NotAfter: now.Add(ca.life),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	if ca.template != nil {
		ca.template(template)
	}
	public := csr.PublicKey
	if ca.public != nil {
		public = ca.public(csr)
	}
	leaf, err := sign(template, ca.authority.cert, public, ca.authority.key)
	if err != nil {
		return problem(500, "serverInternal", err.Error())
	}
	chain := [][]byte{leaf.Raw, ca.authority.cert.Raw}
	if ca.chain != nil {
		chain = ca.chain(leaf.Raw, o.name)
	}
	for _, raw := range chain {
		o.cert = append(o.cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: raw})...)
	}
	o.status = "valid"
	kind, _ := keyType(leaf)
	ca.issued = append(ca.issued, fmt.Sprint(o.name, " ", kind, " ", o.kind))
	return ca.order(n, base)
}
