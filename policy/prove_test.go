package policy

import (
	"fmt"
	"testing"
)

// TestAProofIsBounded gives up where there is too much to try: a hundred values each of
// three facts, each with an exception of its own.
func TestAProofIsBounded(t *testing.T) {
	var exceptions []Exception
	for _, fact := range []Fact{Client, SNI, Listener} {
		for i := range 130 {
			// Each is for another action or other protocols: else they would be one case.
			exceptions = append(exceptions, Exception{ID: fmt.Sprint(fact, i), For: []string{"encrypted"}, Cap: Observe, Until: noon,
				Match: Matcher{{Fact: fact, Values: []string{fmt.Sprint("v", i)}}, {Fact: Port, Not: true, Values: []string{fmt.Sprint(1000 + i)}}}})
		}
	}
	p, err := New("wide", []Requirement{{ID: "encrypted", Require: Matcher{{Fact: TLS, Values: []string{"1.3"}}}, Stages: []Stage{{Do: Deny}}}}, exceptions...)
	if err != nil {
		t.Fatal(err)
	}
	x := newProver(p)
	x.left = 50_000 // which is enough to see it
	s := &statement{do: Observe, match: Matcher{{Fact: TLS, Values: []string{"1.2"}}}}
	against, _ := x.prove(s, p.instants())
	if against != nil || x.left > 0 {
		t.Errorf("%v, %d steps left", against, x.left)
	}
}
