package certs

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"
	"golang.org/x/crypto/acme"
)

const (
	// maxBody bounds every answer of an authority; a chain is some 10 KiB.
	maxBody = 256 << 10

	// maxRetryAfter bounds what an authority may demand: a slip of its clock or of
	// its configuration shall not cost a certificate. Asked once a day, it will say
	// so again.
	maxRetryAfter = 24 * time.Hour

	// skewNoted is how far a clock may be off before an error mentions it: below
	// that, no certificate suffers.
	skewNoted = 5 * time.Minute

	// maxAhead is how far in our future a new certificate may begin: authorities
	// that date it to this very second may be that much ahead of us.
	maxAhead = time.Minute
)

// conversation is one order's talk with the authority, as the transport of a client of its
// own: an acme.Client holds locks while it waits for an answer, and would let a slow order
// hold up another one beyond that one's deadline.
type conversation struct {
	base http.RoundTripper
	step string        // what is being done, for errors
	skew time.Duration // how far the authority's clock is ahead of ours
}

// RoundTrip asks the authority, bounds what comes back and mends what acme.Client cannot bear.
func (c *conversation) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Scheme != "https" {
		// RFC 8555 section 6.1. Also, the authority names the URLs and we ask them from
		// within the provider's network, where what is without TLS is not for strangers.
		return nil, errors.New("the CA names a URL without TLS")
	}
	res, err := c.base.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	if date, err := http.ParseTime(res.Header.Get("Date")); err == nil {
		c.skew = date.Sub(now)
	}
	if after := res.Header.Get("Retry-After"); after != "" {
		// RFC 9110 section 10.2.3: seconds or a date, by the authority's clock. An
		// instant gone by would make acme.Client poll without a pause.
		wait := time.Second
		if n, err := strconv.Atoi(after); err == nil {
			wait = time.Duration(min(n, int(maxRetryAfter/time.Second))) * time.Second
		} else if date, err := http.ParseTime(after); err == nil {
			wait = date.Sub(now.Add(c.skew))
		}
		wait = min(max(wait, time.Second), maxRetryAfter)
		res.Header.Set("Retry-After", strconv.Itoa(int(wait/time.Second)))
	}
	if html := strings.HasPrefix(strings.ToLower(res.Header.Get("Content-Type")), "text/html"); html && req.Method != http.MethodHead {
		_ = res.Body.Close()      // nobody will read it
		res.Body = http.NoBody    // of a gateway in trouble the status tells enough
		if res.StatusCode < 500 { // but this is the wrong address
			return nil, fmt.Errorf("a web page (%s) came where ACME was expected; is the directory's URL right?", res.Status)
		}
	}
	res.Body = struct {
		io.Reader
		io.Closer
	}{io.LimitReader(res.Body, maxBody), res.Body}
	return res, nil
}

// retryBackoff says how long acme.Client waits before it repeats a request within an order;
// zero ends the order, and its own back-off begins.
func retryBackoff(n int, _ *http.Request, res *http.Response) time.Duration {
	after, err := strconv.Atoi(res.Header.Get("Retry-After"))
	switch {
	case res.StatusCode == http.StatusBadRequest:
		// A bad nonce (RFC 8555 section 6.5) came with a good one. A test server
		// that refuses every other nonce does not get through twenty.
		if n <= 20 {
			return time.Duration(n) * 20 * time.Millisecond
		}
	case res.StatusCode == http.StatusTooManyRequests, n > 3:
	case err != nil:
		return time.Second << (n - 1)
	case after <= 10:
		return time.Duration(after) * time.Second
	}
	return 0
}

// obtain orders a certificate with a new key, and holds what it gets against the order. It
// begins with the given kind of challenge, if that is offered. The error is fit for a log.
func (a *ACME) obtain(ctx context.Context, p pair, kinds []string) (cert *tls.Certificate, challenge string, err error) {
	c := &conversation{base: a.transport, step: "making a key"}
	cert, challenge, err = a.converse(ctx, c, p, kinds)
	if err == nil {
		return cert, challenge, nil
	}
	return nil, "", &orderError{text: cleaned(c.step+": "+reason(err), maxError-100) + clockNote(c.skew), err: err}
}

// converse takes the steps of RFC 8555 section 7.
func (a *ACME) converse(ctx context.Context, c *conversation, p pair, kinds []string) (*tls.Certificate, string, error) {
	key, err := newKey(p.kind)
	if err != nil {
		return nil, "", err
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: []string{p.name}}, key)
	if err != nil {
		return nil, "", err
	}
	client, err := a.client(ctx, c)
	if err != nil {
		return nil, "", err
	}
	c.step = "ordering"
	order, err := client.AuthorizeOrder(ctx, acme.DomainIDs(p.name))
	if problem := new(acme.Error); errors.As(err, &problem) && isProblem(problem, "accountDoesNotExist") {
		// The authority forgot us, as test servers do: the same key makes a new account.
		_ = os.Remove(a.state.accountFile(a.c.EAB) + ".json") // or it is overwritten
		if client, err = a.client(ctx, c); err != nil {
			return nil, "", err
		}
		c.step = "ordering"
		order, err = client.AuthorizeOrder(ctx, acme.DomainIDs(p.name))
	}
	if err != nil {
		return nil, "", err
	}
	used := ""
	for _, url := range order.AuthzURLs {
		c.step = "asking for the challenge"
		authz, err := client.GetAuthorization(ctx, url)
		if err != nil {
			return nil, "", err
		}
		if authz.Status == acme.StatusValid {
			continue // from an order before
		}
		if used, err = a.prove(ctx, c, client, p.name, authz, kinds); err != nil {
			return nil, "", err
		}
	}
	if order.Status != acme.StatusReady {
		c.step = "waiting for the order to be ready"
		if order, err = client.WaitOrder(ctx, order.URI); err != nil {
			return nil, "", err
		}
	}
	c.step = "getting the certificate"
	chain, _, err := client.CreateCertFromOrder(ctx, order, csr, true)
	if err != nil {
		return nil, "", err
	}
	c.step = "the certificate is refused"
	cert, err := p.verify(chain, key, time.Now())
	return cert, used, err
}

// prove answers the first challenge of the kinds that is offered.
func (a *ACME) prove(ctx context.Context, c *conversation, client *acme.Client, name string, authz *acme.Authorization, kinds []string) (string, error) {
	for _, kind := range kinds {
		i := slices.IndexFunc(authz.Challenges, func(c *acme.Challenge) bool { return c.Type == kind })
		if i < 0 {
			continue
		}
		c.step = "proving control by " + kind
		remove, err := a.answers.prepare(client, authz.Challenges[i], name)
		defer remove()
		if err != nil {
			return "", err
		}
		if _, err := client.Accept(ctx, authz.Challenges[i]); err != nil {
			return "", err
		}
		_, err = client.WaitAuthorization(ctx, authz.URI)
		return kind, err
	}
	return "", fmt.Errorf("the CA offers no challenge that can be answered here (%s)", strings.Join(kinds, ", "))
}

// client makes a client for one order, and an account if there is none. Two orders at the
// first start register once; two nodes register the same key, which makes one account as
// well (RFC 8555 section 7.3.1).
func (a *ACME) client(ctx context.Context, c *conversation) (*acme.Client, error) {
	c.step = "waiting for the account"
	select {
	case a.registering <- struct{}{}:
		defer func() { <-a.registering }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	key, corrupt, err := a.state.accountKey(a.c.EAB)
	if err != nil {
		return nil, err
	}
	if corrupt {
		a.log.Error("the key of the ACME account is corrupt, and moved aside; a new account is made",
			zap.String("file", a.state.accountFile(a.c.EAB)+".key"))
	}
	client := &acme.Client{Key: key, DirectoryURL: a.c.Directory, UserAgent: "mailreeve",
		HTTPClient: &http.Client{Transport: c}, RetryBackoff: retryBackoff}
	file := a.state.accountFile(a.c.EAB) + ".json"
	var known account
	if data, err := readFile(file, maxRecord); err != nil || json.Unmarshal(data, &known) != nil {
		known = account{} // the authority still knows the key
	}
	client.KID = acme.KeyID(known.URL)
	if known.URL != "" && known.Email == a.c.Email {
		return client, nil
	}

	c.step = "reading the directory"
	dir, err := client.Discover(ctx)
	if err != nil {
		return nil, err
	}
	wanted := &acme.Account{}
	if a.c.Email != "" {
		wanted.Contact = []string{"mailto:" + a.c.Email}
	}
	if known.URL != "" {
		if _, err := client.UpdateReg(ctx, wanted); err != nil {
			a.log.Warn("the CA was not told the new address", zap.String("error", cleaned(reason(err), maxError)))
			return client, nil // orders do not need it
		}
	} else {
		c.step = "registering an account"
		if a.c.EAB != nil {
			wanted.ExternalAccountBinding = &acme.ExternalAccountBinding{KID: a.c.EAB.KeyID, Key: a.c.EAB.Key}
		} else if dir.ExternalAccountRequired {
			return nil, errors.New("the CA demands an external account; set account with its key_id and key_file")
		}
		_, err := client.Register(ctx, wanted, acme.AcceptTOS) // the configuration consented
		if err != nil && !errors.Is(err, acme.ErrAccountAlreadyExists) {
			return nil, err
		}
		if client.KID == "" {
			return nil, errors.New("the CA names no URL for the account")
		}
	}
	data, err := json.Marshal(account{URL: string(client.KID), Email: a.c.Email})
	if err == nil {
		err = writeFile(file, data)
	}
	if err != nil { // then it is asked for again, by its key
		a.log.Error("the ACME account is not kept", zap.Error(err))
	}
	return client, nil
}

// verify holds a chain against the order. What does not pass is refused, and the old
// certificate stays in force.
func (p pair) verify(chain [][]byte, key crypto.Signer, now time.Time) (*tls.Certificate, error) {
	size, parsed := 0, []*x509.Certificate{}
	for _, der := range chain {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, err
		}
		size += len(der)
		parsed = append(parsed, c)
	}
	leaf := parsed[0] // acme.Client refuses an empty chain
	cert := &tls.Certificate{Certificate: chain, PrivateKey: key, Leaf: leaf}
	switch {
	case size > maxChain/2: // base64 and the key come on top
		return nil, fmt.Errorf("its chain has %d bytes, more than a handshake can bear", size)
	case !matches(leaf, key):
		return nil, errors.New("it is for another key")
	case leaf.NotBefore.After(now.Add(maxAhead)):
		return nil, fmt.Errorf("it is not valid before %s", leaf.NotBefore.UTC().Format(dateLayout))
	case now.After(renewAt(leaf)):
		return nil, fmt.Errorf("it ends on %s, too soon", leaf.NotAfter.UTC().Format(dateLayout))
	case len(parsed) > 1 && leaf.CheckSignatureFrom(parsed[1]) != nil: // RFC 8446 section 4.4.2
		return nil, errors.New("the next certificate of its chain has not signed it")
	}
	return cert, p.covered(cert)
}

// renewAt is when a third of the lifetime is left, or thirty days.
func renewAt(leaf *x509.Certificate) time.Time {
	return leaf.NotAfter.Add(-min(leaf.NotAfter.Sub(leaf.NotBefore)/3, 30*24*time.Hour))
}

// orderError is a failed order: text is for log and status, err is the cause.
type orderError struct {
	text string
	err  error
}

func (e *orderError) Error() string { return e.text }
func (e *orderError) Unwrap() error { return e.err }

// errNotOurs is a lookup that no longer confirms a name.
var errNotOurs = errors.New("the lookup says that the name is not ours any more")

// judged says whether a failure is an authority's judgement on the name, and not its own silence
// or trouble, or the network's.
func judged(err error) bool {
	var authz *acme.AuthorizationError
	var order *acme.OrderError
	var problem *acme.Error
	switch {
	case errors.As(err, &authz), errors.As(err, &order), errors.Is(err, errNotOurs):
		return true
	case errors.As(err, &problem):
		return problem.StatusCode < http.StatusInternalServerError
	}
	return false
}

// retryAfter is how long the authority asks to wait, if it does.
func retryAfter(err error) time.Duration {
	problem := new(acme.Error)
	if !errors.As(err, &problem) {
		return 0
	}
	seconds, _ := strconv.Atoi(problem.Header.Get("Retry-After")) // set by conversation, or absent
	return time.Duration(seconds) * time.Second
}

// isProblem compares with a type of RFC 8555 section 6.7; some authorities err in the case.
func isProblem(e *acme.Error, kind string) bool {
	return strings.HasSuffix(strings.ToLower(e.ProblemType), ":"+strings.ToLower(kind))
}

// reason is what an error says to people: the authority's own words without the layers
// around them.
func reason(err error) string {
	var authz *acme.AuthorizationError
	var order *acme.OrderError
	var problem *acme.Error
	var syntax *json.SyntaxError
	switch {
	case errors.As(err, &authz) && len(authz.Errors) > 0:
		texts := make([]string, len(authz.Errors))
		for i, e := range authz.Errors {
			texts[i] = reason(e)
		}
		return strings.Join(texts, "; ")
	case errors.As(err, &order) && order.Problem != nil:
		return reason(order.Problem)
	case errors.As(err, &order):
		return "the CA calls the order " + order.Status
	case errors.As(err, &problem):
		text := problem.Detail
		for _, sub := range problem.Subproblems {
			text += "; "
			if sub.Identifier != nil {
				text += sub.Identifier.Value + ": "
			}
			text += sub.Detail + " (" + shortProblem(sub.Type) + ")"
		}
		if problem.ProblemType == "" {
			return fmt.Sprintf("%s (status %d)", text, problem.StatusCode)
		}
		return fmt.Sprintf("%s (%s)", text, shortProblem(problem.ProblemType))
	case errors.As(err, &syntax):
		return "the answer is not JSON: " + syntax.Error()
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Sprintf("the CA was not done after %v", orderTime)
	}
	return strings.TrimPrefix(err.Error(), "acme: ")
}

// shortProblem leaves out what all problem types begin with.
func shortProblem(kind string) string {
	return strings.TrimPrefix(kind, "urn:ietf:params:acme:error:")
}

// clockNote tells of clocks that differ: with them, certificates are not valid yet or expired,
// and the reasons that are given elsewhere mislead.
func clockNote(skew time.Duration) string {
	switch {
	case skew > skewNoted:
		return fmt.Sprintf(" (this machine's clock is %v behind the CA's)", skew.Round(time.Second))
	case skew < -skewNoted:
		return fmt.Sprintf(" (this machine's clock is %v ahead of the CA's)", -skew.Round(time.Second))
	}
	return ""
}
