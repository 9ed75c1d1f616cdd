package main

// What certificates there are, as they stand on the disk: it makes no difference
// whether the program runs.

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"mailreeve/certs"
	"mailreeve/config"
)

func newCerts() *cobra.Command {
	c := &cobra.Command{
		Use:   "certs",
		Short: "Show the certificates: where they come from, and how long they last",
	}
	group(c)
	c.AddCommand(newCertsList())
	return c
}

func newCertsList() *cobra.Command {
	var path string
	var asJSON bool
	c := &cobra.Command{
		Use:   "list -c FILE",
		Short: "List every certificate: source, key, expiry, renewal, last error",
		Long: `List the certificates of files, folder and ACME: those of all canonical names, also
where there is none yet, and those of old names that have one or for which one was
tried. It reads what is on the disk, so the program may run or not.

LEFT is the time until the certificate ends, NEXT the time until it is renewed or
tried again. Below a line stands what is wrong. The exit code is 1 where something
is that will not mend itself in time: a canonical name without a certificate, one
that has expired, or one that is in its last days and was not renewed.`,
		Example: `  mailreeve certs list -c /etc/mailreeve/mailreeve.yaml
  mailreeve certs list -c /etc/mailreeve/mailreeve.yaml --json | jq '.[] | select(.trouble)'`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			conf, err := config.Load(path)
			if err != nil {
				return fileHint(err, path)
			}
			list, bad := statuses(conf)
			now := time.Now()
			if asJSON {
				err = printJSON(c.OutOrStdout(), list, now)
			} else if len(list) > 0 || bad == nil {
				printTable(c.OutOrStdout(), list, now)
			}
			if err != nil {
				return err
			}
			return troubled(list, bad, now, path)
		},
	}
	configFlag(c, &path)
	c.Flags().BoolVar(&asJSON, "json", false, "print a JSON array, with instants in full")
	return c
}

// troubled is the error that the list ends with, where something is wrong.
func troubled(list []certs.Status, bad []error, now time.Time, path string) error {
	n, ours := 0, false
	for _, s := range list {
		if s.Trouble(now) != nil {
			n++
			ours = ours || s.Source == "acme"
		}
	}
	var err error
	switch unreadable := errors.Join(bad...); {
	case errors.Is(unreadable, fs.ErrPermission):
		return withHint(unreadable, "keys are for the program's user and root alone: `sudo mailreeve certs list -c %s`", shellWord(path))
	case unreadable != nil:
		return withHint(unreadable, "`mailreeve check -c %s` checks the rest too", shellWord(path))
	case n > 0:
		err = fmt.Errorf("%s in trouble", count(n, "certificate"))
	}
	if ours {
		err = withHint(err, "`mailreeve check -c %s --probe` looks whether the CA can be reached; the log of `mailreeve run` has each attempt", shellWord(path))
	}
	return err
}

// statuses tells of all certificates of a configuration, by name and kind of key.
// What cannot be read is left out, with the reason in bad.
func statuses(c *config.Config) (list []certs.Status, bad []error) {
	keeper, bad := readFiles(sources(c, nil))
	list = keeper.Status()
	acme := c.Certificates.ACME
	missing := func(s certs.Status) bool { return s.Source == "" }
	if acme == nil && c.Certificates.Folder != "" && slices.ContainsFunc(list, missing) {
		// A name is missing, and what is wrong in the folder is most likely why.
		_, unusable, _ := certs.Folder(c.Certificates.Folder) // that it cannot be read is known already
		bad = append(bad, unusable...)
	}
	if acme != nil {
		// What no file is for, the state of ACME tells.
		list = slices.DeleteFunc(list, missing)
		rest := slices.DeleteFunc(canonicals(c), keeper.Store().Covers)
		issued, err := certs.ReadStatus(acmeDir(c), rest, acme.RSA)
		if err != nil {
			bad = append(bad, err)
		}
		list = append(list, issued...)
	}
	slices.SortStableFunc(list, func(a, b certs.Status) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.KeyType, b.KeyType))
	})
	return list, bad
}

// readFiles reads what files and folder have. What cannot be read is left out.
func readFiles(s certs.Sources) (*certs.Keeper, []error) {
	k := certs.NewKeeper(zap.NewNop())
	if k.Set(s) == nil {
		return k, nil
	}
	var bad []error
	s.Files = slices.DeleteFunc(s.Files, func(p certs.Pair) bool {
		_, err := certs.Load([]certs.Pair{p})
		if err != nil {
			bad = append(bad, err)
		}
		return err != nil
	})
	if err := k.Set(s); err != nil {
		bad = append(bad, err)
		s.Folder = ""
		if err := k.Set(s); err != nil { // a file went while we looked
			bad = append(bad, err)
		}
	}
	return k, bad
}

// statusJSON is a certificate for machines. Fields are added, and never change.
type statusJSON struct {
	Name      string    `json:"name"`
	Canonical bool      `json:"canonical"`
	Source    string    `json:"source,omitempty"`
	KeyType   string    `json:"key_type"`
	File      string    `json:"file,omitempty"`
	Issuer    string    `json:"issuer,omitempty"`
	NotBefore time.Time `json:"not_before,omitzero"`
	NotAfter  time.Time `json:"not_after,omitzero"`
	Renewed   time.Time `json:"renewed,omitzero"`
	Tried     time.Time `json:"tried,omitzero"`
	Next      time.Time `json:"next,omitzero"`
	Failures  int       `json:"failures,omitempty"`
	Error     string    `json:"error,omitempty"`
	Trouble   string    `json:"trouble,omitempty"`
	Spare     bool      `json:"spare,omitempty"`
}

func printJSON(out io.Writer, list []certs.Status, now time.Time) error {
	all := []statusJSON{}
	for _, s := range list {
		j := statusJSON{
			Name: s.Name, Canonical: s.Canonical, Source: s.Source, KeyType: s.KeyType.String(), File: s.File, Issuer: s.Issuer,
			NotBefore: s.NotBefore.UTC(), NotAfter: s.NotAfter.UTC(), Renewed: s.Renewed.UTC(), Tried: s.Tried.UTC(), Next: s.Next.UTC(),
			Failures: s.Failures, Error: s.Error, Trouble: troubleOf(s, now), Spare: s.Spare,
		}
		all = append(all, j)
	}
	e := json.NewEncoder(out)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(all)
}

// The table fits a terminal of 100 columns. Names longer than the column stand on a line
// of their own.
const (
	tableWidth = 100
	widestName = 28
)

func printTable(out io.Writer, list []certs.Status, now time.Time) {
	if len(list) == 0 {
		fmt.Fprintln(out, "there is no certificate, and no name that wants one")
		return
	}
	wide := len("NAME")
	for _, s := range list {
		if n := len(s.Name); n <= widestName {
			wide = max(wide, n)
		}
	}
	row := func(name, key, source, expires, left, renewed, next, issuer string) {
		if len(name) > wide {
			fmt.Fprintln(out, name)
			name = ""
		}
		line := fmt.Sprintf("%-*s  %-7s  %-6s  %-10s  %6s  %-10s  %6s  %s", wide, name, key, source, expires, left, renewed, next, issuer)
		fmt.Fprintln(out, strings.TrimRight(cut(line, tableWidth), " "))
	}
	row("NAME", "KEY", "SOURCE", "EXPIRES", "LEFT", "RENEWED", "NEXT", "ISSUER")
	before := ""
	for _, s := range list {
		name := s.Name
		if name == before {
			name = ""
		}
		before = s.Name
		key := s.KeyType.String()
		if s.Source == "" {
			key = "-"
		}
		next := left(s.Next, now)
		if next == over {
			next = "now"
		}
		row(name, key, cmp.Or(s.Source, "-"), date(s.NotAfter), left(s.NotAfter, now), date(s.Renewed), next, cmp.Or(s.Issuer, "-"))
		for _, line := range remarks(s, now) {
			fmt.Fprintln(out, line)
		}
	}
}

// remarks say below a line what is wrong.
func remarks(s certs.Status, now time.Time) (lines []string) {
	text := troubleOf(s, now)
	switch {
	case s.Spare:
		return []string{"    not served: another one for this name is valid and lasts longer"}
	case text != "":
	case s.Error == "":
		return nil
	case s.Tried.IsZero():
		text = "last error: " + s.Error
	default:
		text = "last error, on " + s.Tried.UTC().Format("2006-01-02 15:04 MST") + ": " + s.Error
	}
	const begin, indent = "  ! ", "    "
	for i, line := range wrap(text, tableWidth-len(indent)) {
		if i == 0 {
			lines = append(lines, begin+line)
		} else {
			lines = append(lines, indent+line)
		}
	}
	return lines
}

// troubleOf is what is wrong and what to do; empty if all is well.
func troubleOf(s certs.Status, now time.Time) string {
	trouble := s.Trouble(now)
	var known *certs.Error
	switch {
	case trouble == nil:
		return ""
	case untried(s):
		return fmt.Sprintf("there is no %s certificate for %s yet; `mailreeve run` orders it", s.KeyType, s.Name)
	case s.Source != "file" && s.Source != "folder" && errors.As(trouble, &known):
		return known.Problem() + "; " + known.Cure // the name is said, and the state is not for editing
	}
	return trouble.Error()
}

// untried says whether a certificate is yet to be ordered for the first time.
func untried(s certs.Status) bool {
	return s.Source == "acme" && s.NotAfter.IsZero() && s.Tried.IsZero()
}

// cut shortens a line to so many letters.
func cut(line string, most int) string {
	if letters := []rune(line); len(letters) > most {
		return string(letters[:most-3]) + "..."
	}
	return line
}

// date is a day, or a dash for no time at all.
func date(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format(time.DateOnly)
}

// over is said of a time that has passed.
const over = "over"

// left is a time to wait in one unit, rounded down; what is over is so.
func left(t, now time.Time) string {
	d := t.Sub(now)
	switch {
	case t.IsZero():
		return "-"
	case d <= 0:
		return over
	case d < time.Minute:
		return fmt.Sprint(int(d.Seconds()), " s")
	case d < 100*time.Minute:
		return fmt.Sprint(int(d.Minutes()), " min")
	case d < 2*24*time.Hour:
		return fmt.Sprint(int(d.Hours()), " h")
	}
	return fmt.Sprint(int(d.Hours()/24), " d")
}
