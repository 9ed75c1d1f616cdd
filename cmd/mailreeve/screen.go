package main

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"

	"golang.org/x/term"

	"mailreeve/events"
)

// screen shows events to a person, one line each.
type screen struct {
	out   io.Writer
	color bool
	ready func() // called once the listeners are open

	mu sync.Mutex
}

// newScreen writes in colour to a terminal whose user does not object
// (https://no-color.org).
func newScreen(out io.Writer) *screen {
	s := &screen{out: out}
	if f, ok := out.(*os.File); ok {
		s.color = term.IsTerminal(int(f.Fd())) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
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

// show prints one event: when, where, how encrypted, who with what, what became
// of it. Strings of strangers are made printable first.
func (s *screen) show(e *events.Session) {
	color, outcome := dim, e.Sentence
	switch {
	case e.Action == "deny" || e.Action == "refuse" || e.Action == "tempfail":
		color, outcome = red, "refused by "+strings.Join(e.By, ", ")
	case e.Verified:
		color, outcome = green, fmt.Sprintf("logged in, %s in, %s out, %.1fs", amount(e.BytesIn), amount(e.BytesOut), e.Seconds)
	case e.Refused == "credential":
		color, outcome = yellow, "no login: wrong user name or password"
	case e.Refused != "":
		color, outcome = yellow, "no login: "+strings.ReplaceAll(e.Refused, "_", " ")
	}
	encryption := cmp.Or(e.TLS, "-")
	switch e.TLS {
	case "none":
		encryption = "in clear"
	case "1.0", "1.1", "1.2", "1.3":
		encryption = "TLS " + e.TLS
	}
	line := fmt.Sprintf("%s  %-10s %5d  %-8s  %-22s %-24s %s", e.Time.Local().Format("15:04:05"), e.Protocol, e.Port, encryption,
		printable(cmp.Or(e.Account, "-")), printable(cmp.Or(e.Client, "-")), s.paint(color, printable(outcome)))
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Fprintln(s.out, line+s.paint(dim, "  "+e.End+" "+e.ID))
}

// printable takes away what could steer a terminal.
func printable(text string) string {
	return strings.Map(func(c rune) rune {
		if c < ' ' || c >= 0x7f && c < 0xa0 {
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
