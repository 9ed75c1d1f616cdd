package certs

import (
	"container/list"
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"sync"
	"time"

	"go.uber.org/zap"
)

// The lookup is asked while a handshake waits, and strangers choose the names: so answers are
// remembered, and few questions are under way at once.
const (
	lookupTime    = 5 * time.Second  // a client waits a good while longer
	lookupYes     = time.Hour        // a new customer must not wait for his name to be forgotten ...
	lookupNo      = 10 * time.Minute // ... so a no is forgotten sooner
	lookupTrouble = time.Minute
	lookupMemory  = 4096 // names, some 200 bytes each
	lookupAtOnce  = 16
	lookupTold    = 10 * time.Minute // how often the log says that there is no answer
)

// verdict is what a lookup said of a name.
type verdict int

const (
	trouble verdict = iota // no answer: ask later
	ours
	notOurs
)

// lookup asks whether names are ours, and remembers.
type lookup struct {
	url    *url.URL
	client *http.Client
	log    *zap.Logger
	asking chan struct{} // holds one for each question under way

	mu     sync.Mutex               // guards the following
	told   time.Time                // when trouble was logged last
	byName map[string]*list.Element // of *looked
	recent list.List                // the last used first
}

// looked is one answer.
type looked struct {
	name    string
	verdict verdict
	until   time.Time
	done    chan struct{} // closed when the answer is there
}

// newLookup makes a lookup at a URL; an empty one confirms nothing.
func newLookup(at string, transport http.RoundTripper, log *zap.Logger) (*lookup, error) {
	u, err := url.Parse(at)
	if err != nil || at != "" && u.Host == "" {
		return nil, errors.New("the lookup is no URL; name one as https://customers.example.org/mail-name")
	}
	return &lookup{url: u, log: log, asking: make(chan struct{}, lookupAtOnce), byName: map[string]*list.Element{},
		client: &http.Client{Transport: transport, Timeout: lookupTime,
			// A redirect, to a login page say, confirms nothing.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}, nil
}

// ask tells what is known of the name, or asks. Handshakes with one name ask once.
func (l *lookup) ask(ctx context.Context, name string) verdict {
	if l.url.Host == "" {
		return notOurs
	}
	l.mu.Lock()
	for e := l.byName[name]; e != nil; e = l.byName[name] {
		answer := e.Value.(*looked)
		l.recent.MoveToFront(e)
		l.mu.Unlock()
		select {
		case <-answer.done:
		case <-ctx.Done():
			return trouble
		}
		if time.Now().Before(answer.until) {
			return answer.verdict
		}
		l.mu.Lock()
		if l.byName[name] == e {
			l.forget(e)
		}
	}
	select {
	case l.asking <- struct{}{}:
		defer func() { <-l.asking }()
	default:
		l.mu.Unlock()
		return trouble
	}
	answer := &looked{name: name, done: make(chan struct{})}
	e := l.recent.PushFront(answer)
	l.byName[name] = e
	if l.recent.Len() > lookupMemory {
		l.forget(l.recent.Back())
	}
	l.mu.Unlock()

	var keep time.Duration
	answer.verdict, keep = l.get(ctx, name)
	answer.until = time.Now().Add(keep)
	close(answer.done)
	return answer.verdict
}

// forget drops an answer. The caller holds mu.
func (l *lookup) forget(e *list.Element) {
	delete(l.byName, e.Value.(*looked).name)
	l.recent.Remove(e)
}

// get asks, and says how long the answer holds.
func (l *lookup) get(ctx context.Context, name string) (verdict, time.Duration) {
	u := *l.url
	query := u.Query()
	query.Set("name", name)
	u.RawQuery = query.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return trouble, lookupTrouble
	}
	req.Header.Set("User-Agent", "mailreeve")
	res, err := l.client.Do(req)
	if ctx.Err() != nil {
		return trouble, 0 // the client left, which says nothing of the name
	} else if err != nil {
		if layer := new(url.Error); errors.As(err, &layer) {
			err = layer.Err // without the URL, which may hold a key
		}
		l.tell(err.Error())
		return trouble, lookupTrouble
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, 4<<10)) // so that the connection serves again
	_ = res.Body.Close()
	switch res.StatusCode {
	case http.StatusOK:
		return ours, lookupYes
	case http.StatusNotFound, http.StatusForbidden:
		return notOurs, lookupNo
	}
	l.tell(res.Status)
	return trouble, lookupTrouble
}

// tell logs trouble, now and then.
func (l *lookup) tell(why string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now := time.Now(); now.Sub(l.told) >= lookupTold {
		l.told = now
		l.log.Warn("the lookup neither confirms nor denies a name; such names get no certificate meanwhile; 200 is yes, 404 and 403 are no",
			zap.String("answer", cleaned(why, maxError)))
	}
}
