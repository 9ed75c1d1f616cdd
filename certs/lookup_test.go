package certs

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

// customers is a lookup service without sockets.
type customers struct {
	mu    sync.Mutex
	asked []string // queries
	serve func(req *http.Request) (*http.Response, error)
}

func (c *customers) RoundTrip(req *http.Request) (*http.Response, error) {
	c.mu.Lock()
	c.asked = append(c.asked, req.URL.String())
	serve := c.serve
	c.mu.Unlock()
	return serve(req)
}

func (c *customers) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.asked)
}

func always(status int, header ...string) func(*http.Request) (*http.Response, error) {
	return func(*http.Request) (*http.Response, error) { return answer(status, "hello", header...), nil }
}

func TestLookup(t *testing.T) {
	tests := []struct {
		name  string
		serve func(*http.Request) (*http.Response, error)
		want  verdict
		keep  time.Duration
	}{
		{"yes", always(200), ours, lookupYes},
		{"no", always(404), notOurs, lookupNo},
		{"forbidden", always(403), notOurs, lookupNo},
		{"trouble", always(500), trouble, lookupTrouble},
		{"no content", always(204), trouble, lookupTrouble},
		{"a redirect", always(302, "Location", "https://login.example.test/"), trouble, lookupTrouble},
		{"down", func(*http.Request) (*http.Response, error) { return nil, errors.New("refused") }, trouble, lookupTrouble},
		{"slow", func(req *http.Request) (*http.Response, error) {
			<-req.Context().Done()
			return nil, req.Context().Err()
		}, trouble, lookupTrouble},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := &customers{serve: test.serve}
				core, logs := observer.New(zapcore.DebugLevel)
				l, err := newLookup("https://customers.example.test/name?key=1&name=x", c, zap.New(core))
				if err != nil {
					t.Fatal(err)
				}
				began := time.Now()
				var hands sync.WaitGroup
				for range 10 {
					hands.Go(func() {
						if got := l.ask(t.Context(), "imap.customer.example"); got != test.want {
							t.Errorf("got %v", got)
						}
					})
				}
				hands.Wait()
				if gone := time.Since(began); gone > lookupTime {
					t.Errorf("took %v", gone)
				}
				if c.count() != 1 || c.asked[0] != "https://customers.example.test/name?key=1&name=imap.customer.example" {
					t.Errorf("asked %q", c.asked)
				}
				time.Sleep(test.keep - time.Second)
				l.ask(t.Context(), "imap.customer.example")
				if c.count() != 1 {
					t.Error("forgotten too soon")
				}
				time.Sleep(2 * time.Second)
				hands = sync.WaitGroup{}
				for range 10 {
					hands.Go(func() { l.ask(t.Context(), "imap.customer.example") })
				}
				hands.Wait()
				if c.count() != 2 {
					t.Errorf("asked %d times", c.count())
				}
				if told := logs.Len(); told > 1 || (told == 1) != (test.want == trouble) {
					t.Errorf("%d lines are logged", told)
				}
				for _, line := range logs.All() {
					if text := fmt.Sprint(line.ContextMap()); strings.Contains(text, "key=1") {
						t.Errorf("logged: %s", text)
					}
				}
			})
		})
	}
}

// TestLookupBounds lets strangers ask for many names.
func TestLookupBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &customers{serve: always(404)}
		l, err := newLookup("https://customers.example.test/", c, zap.NewNop())
		if err != nil {
			t.Fatal(err)
		}
		for i := range lookupMemory + 100 {
			l.ask(t.Context(), fmt.Sprintf("host%d.example.org", i))
			l.ask(t.Context(), "often.example.org")
		}
		if len(l.byName) != lookupMemory || l.recent.Len() != lookupMemory || c.count() != lookupMemory+101 {
			t.Errorf("%d and %d are remembered, %d asked", len(l.byName), l.recent.Len(), c.count())
		}
		if l.ask(t.Context(), "a&b=c d#e.example.org"); !strings.HasSuffix(c.asked[len(c.asked)-1], "/?name=a%26b%3Dc+d%23e.example.org") {
			t.Errorf("asked %q", c.asked[len(c.asked)-1])
		}

		// Few at once; the others are not remembered.
		c.serve = func(req *http.Request) (*http.Response, error) {
			<-req.Context().Done()
			return nil, req.Context().Err()
		}
		before := c.count()
		var hands sync.WaitGroup
		for i := range 100 {
			hands.Go(func() { l.ask(t.Context(), fmt.Sprintf("slow%d.example.org", i)) })
		}
		hands.Wait()
		if got := c.count() - before; got != lookupAtOnce {
			t.Errorf("%d at once", got)
		}

		// A client that leaves says nothing of the name.
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if l.ask(ctx, "left.example.org") != trouble {
			t.Error("a verdict from nowhere")
		}
		c.serve = always(200)
		if l.ask(t.Context(), "left.example.org") != ours {
			t.Error("the next one suffers")
		}
	})
	if _, err := newLookup("customers", nil, nil); err == nil {
		t.Error("no URL")
	}
}

// TestACMELookup orders what the lookup confirms, and renews while it does.
func TestACMELookup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, dir := newFakeCA(t), t.TempDir()
		ca.life = 3 * time.Hour
		status := 200
		ca.hook = func(req *http.Request) (*http.Response, error) {
			if req.URL.Host != "customers.example.test" {
				return nil, nil
			}
			if !strings.HasPrefix(req.URL.Query().Get("name"), "mail.") {
				return answer(404, nil), nil
			}
			return answer(status, nil), nil
		}
		n := startNode(t, ca, dir, func(c *ACMEConfig) { c.Lookup = "https://customers.example.test/name" })
		if n.kind("mail.customer.example", ECDSA, Confirmed) == nil || n.kind("imap.stranger.example", ECDSA, Confirmed) != nil {
			t.Errorf("%q", ca.list())
		}
		pass(2*time.Hour + 30*time.Minute)
		if ca.orderCount() != 2 {
			t.Errorf("%d orders", ca.orderCount())
		}
		n.stop()
		ca.set(func() { status = 404 }) // the customer has left
		n = startNode(t, ca, dir, func(c *ACMEConfig) { c.Lookup = "https://customers.example.test/name" })
		pass(2*time.Hour + 30*time.Minute)
		if s := n.only(t); ca.orderCount() != 2 || s.Error != "the lookup says that the name is not ours any more" {
			t.Errorf("%d orders, %+v", ca.orderCount(), s)
		}
	})
}
