package main

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"unicode"

	"golang.org/x/term"

	"mailreeve/events"
)

// screen shows events to a person, one line each.
type screen struct {
	out   io.Writer
	color bool
	ready func() // called once the listeners are open
	begun func() // called by it, if given

	terminal *os.File // out, if it is one

	mu sync.Mutex
}

// newScreen writes in colour to a terminal whose user does not object
// (https://no-color.org).
func newScreen(out io.Writer) *screen {
	s := &screen{out: out}
	if f, ok := out.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		s.terminal, s.color = f, os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
	}
	return s
}

// ANSI colours.
const (
	red    = "31"
	green  = "32"
	yellow = "33"
	dim    = "2"
)

func (s *screen) paint(color, text string) string {
	if !s.color {
		return text
	}
	return "\x1b[" + color + "m" + text + "\x1b[0m"
}

// columns is the head of the lines that show prints.
var columns = fmt.Sprintf(form, "time", "protocol", "port", "security", "account", "program", "what became of it")

const form = "%-8s  %-10s %5v  %-8s  %-22s %-24s %s"

// show prints one event: when, where, how encrypted, who with what, what became
// of it. Strings of strangers are made printable first.
func (s *screen) show(e *events.Session) {
	color, outcome := dim, e.Sentence
	switch {
	case e.Action == "tempfail":
		color, outcome = red, "refused for now: policy wants "+strings.Join(e.By, ", ")
	case e.Action == "deny" || e.Action == "refuse":
		color, outcome = red, "refused: policy wants "+strings.Join(e.By, ", ")
	case e.Verified:
		color, outcome = green, fmt.Sprintf("logged in, %s in, %s out, %.1fs", amount(e.BytesIn), amount(e.BytesOut), e.Seconds)
		switch {
		case e.Told:
			color, outcome = yellow, outcome+"; warned: "+strings.Join(e.By, ", ")
		case e.Action != "pass" && e.Action != "":
			outcome += "; policy says " + e.Action + ": " + strings.Join(e.By, ", ")
		}
	case e.Refused == "credential":
		color, outcome = yellow, "no login: wrong user name or password"
	case e.Refused != "":
		color, outcome = yellow, "no login: "+cmp.Or(refusedWords[e.Refused], e.Refused)
	case e.Reason == "handshake_failed" || e.Reason == "handshake_timeout":
		color = yellow
	}
	encryption := cmp.Or(e.TLS, "-")
	switch e.TLS {
	case "none":
		encryption = "in clear"
	case "1.0", "1.1", "1.2", "1.3":
		encryption = "TLS " + e.TLS
	}
	line := fmt.Sprintf(form, e.Time.Local().Format("15:04:05"), e.Protocol, e.Port, encryption,
		printable(cmp.Or(e.Account, "-")), printable(cmp.Or(e.Client, "-")), s.paint(color, printable(outcome)))
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Fprintln(s.out, line+s.paint(dim, "  "+e.End+" "+e.ID))
}

// refusedWords are the reasons of an event's field "refused", for people.
var refusedWords = map[string]string{
	"login_needed": "the program did not try to log in",
	"mechanism":    "a way to log in that there is not here",
	"no_access":    "right password, but the mailbox is closed",
	"unavailable":  "the mail server behind the proxy cannot be reached",
}

// printable takes away what could steer a terminal, or turn its writing round,
// and cuts what is longer than any honest program's name or reason.
func printable(text string) string {
	const most = 160
	letters := 0
	return strings.Map(func(c rune) rune {
		if letters++; letters > most {
			return -1
		}
		if !unicode.IsPrint(c) {
			return '?'
		}
		return c
	}, text)
}

func amount(bytes int64) string {
	switch {
	case bytes < 10_000:
		return fmt.Sprintf("%d B", bytes)
	case bytes < 10_000_000:
		return fmt.Sprintf("%d kB", bytes/1000)
	}
	return fmt.Sprintf("%d MB", bytes/1_000_000)
}
