package main

// What is asked and told of the policy in force, by the configuration: hold, lift,
// show. The running program needs not be asked: it lives by the same files.

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"mailreeve/config"
	"mailreeve/policy"
)

// minuteForm and dayForm write instants for people.
const (
	minuteForm = "Mon 2 Jan 2006 15:04 MST"
	dayForm    = "Mon 2 Jan 2006"
)

// holdPath is where the hold of a configuration stands. Nothing else of the
// configuration is checked: whoever sets a hold is in a hurry.
func holdPath(path string) (string, error) {
	c, err := config.Load(path)
	if err != nil {
		return "", fileHint(err, path)
	}
	if c.Hold == "" {
		return "", withHint(fmt.Errorf("%s has no place for a hold", path), "set state, or hold with the name of a file, and send the program SIGHUP")
	}
	return c.Hold, nil
}

// holdHint says what to do about a hold's file that cannot be used.
func holdHint(err error, path string) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return withHint(err, "`mailreeve run` makes the directory of state when it starts; is it this configuration?")
	case errors.Is(err, fs.ErrPermission):
		return withHint(err, "run it as root, or as the program's user: `ls -ld %s` shows who that is", shellWord(filepath.Dir(path)))
	}
	return err
}

func newPolicyHold() *cobra.Command {
	var path, cap, lasting, reason, owner string
	c := &cobra.Command{
		Use:   "hold --cap ACTION --for DURATION --reason TEXT -c FILE",
		Short: "Make everything milder at once, for a time",
		Long: `Cap what the policy does, for all sessions and all requirements, until it ends by
itself or is lifted. The running program has it within a second, and keeps it
through reloads and restarts. The policy file stays as it is.

With --cap notify nobody is warned or refused; with --cap warn nobody is refused.`,
		Example: `  mailreeve policy hold --cap notify --for 4h --reason "phones ring without end"
  mailreeve policy lift`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			h, err := newHold(cap, lasting, reason, cmp.Or(owner, whoami()))
			if err != nil {
				return err
			}
			file, err := holdPath(path)
			if err != nil {
				return err
			}
			before, _, _ := readHold(file)
			if err := writeHold(file, h); err != nil {
				return holdHint(fmt.Errorf("setting the hold: %w", err), file)
			}
			out := c.OutOrStdout()
			if before != nil && before.Until.After(h.Since) {
				fmt.Fprintf(out, "it takes the place of this one: %s\n", holdText(before))
			}
			fmt.Fprintf(out, "set in %s: %s\n", file, holdText(h))
			return nil
		},
	}
	configFlag(c, &path)
	c.Flags().StringVar(&cap, "cap", "notify", "the severest `action` that is left")
	c.Flags().StringVar(&lasting, "for", "", "how long, like 30m, 4h or 2d; 30d at most")
	c.Flags().StringVar(&reason, "reason", "", "why, for the log, events and explanations")
	c.Flags().StringVar(&owner, "owner", "", "who answers for it; default: you")
	return c
}

// newHold makes a hold of what was typed.
func newHold(cap, lasting, reason, owner string) (*policy.Hold, error) {
	h := &policy.Hold{Reason: strings.TrimSpace(reason), Owner: strings.TrimSpace(owner), Since: time.Now().UTC().Truncate(time.Second)}
	wrong := func(flag string, err error, hint string) error {
		return &hinted{err: fmt.Errorf("--%s: %w", flag, err), hint: hint, usage: true}
	}
	if err := h.Cap.UnmarshalText([]byte(cap)); err != nil {
		return nil, wrong("cap", err, "write pass, observe, notify, warn, tempfail or deny")
	}
	d, err := config.ParseDuration(lasting)
	if err != nil || d <= 0 || d > longestHold {
		return nil, wrong("for", fmt.Errorf("%q is not a time up to 30 days", printable(lasting)), "write 30m, 4h or 2d")
	}
	if h.Until = h.Since.Add(d); h.Reason == "" || onOneLine(h.Reason) != h.Reason || len(h.Reason) > 1000 {
		return nil, wrong("reason", errors.New("it is not a line of text"), "say in a sentence why")
	}
	if h.Owner == "" || onOneLine(h.Owner) != h.Owner || len(h.Owner) > 200 {
		return nil, wrong("owner", errors.New("it is not a name"), "say who answers for it")
	}
	return h, nil
}

// whoami is who types.
func whoami() string {
	if name := os.Getenv("SUDO_USER"); name != "" {
		return name
	}
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return ""
}

// holdText is a hold in words.
func holdText(h *policy.Hold) string {
	return onOneLine(fmt.Sprintf("at most %v until %s, by %s (%s)", h.Cap, h.Until.Local().Format(minuteForm), h.Owner, h.Reason))
}

func newPolicyLift() *cobra.Command {
	var path string
	c := &cobra.Command{
		Use:   "lift -c FILE",
		Short: "Lift the hold: the policy is in force as it stands",
		Long: `Lift the hold before it ends by itself. The running program has it within a second.
Where there is none, that is said, and the exit code is 0.`,
		Example: "  mailreeve policy lift -c /etc/mailreeve/mailreeve.yaml",
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			file, err := holdPath(path)
			if err != nil {
				return err
			}
			before, _, broken := readHold(file)
			err = os.Remove(file)
			out := c.OutOrStdout()
			switch {
			case errors.Is(err, fs.ErrNotExist):
				fmt.Fprintln(out, "there is no hold")
				return nil
			case err != nil:
				return holdHint(fmt.Errorf("lifting the hold: %w", err), file)
			case broken != nil:
				fmt.Fprintf(out, "lifted; it could not be read (%s)\n", onOneLine(broken.Error()))
			default:
				fmt.Fprintf(out, "lifted: %s\n", holdText(before))
			}
			return nil
		},
	}
	configFlag(c, &path)
	return c
}

// endsSoon is how far ahead exceptions are shown that end.
const endsSoon = 30 * 24 * time.Hour

// shown is what is in force, for machines.
type shown struct {
	Policy       string             `json:"policy"`
	File         string             `json:"file,omitempty"`
	At           time.Time          `json:"at"`
	Requirements []shownRequirement `json:"requirements"`
	Hold         *shownHold         `json:"hold,omitempty"`
	Exceptions   int                `json:"exceptions"` // in the file, also those that have ended
	EndSoon      []shownException   `json:"exceptions_that_end_soon"`
}

type shownRequirement struct {
	ID      string              `json:"id"`
	Finding policy.Finding      `json:"finding"`
	Stage   *policy.StageReason `json:"stage,omitempty"`
	Next    *policy.StageReason `json:"next,omitempty"`
}

type shownHold struct {
	holdFile
	InForce bool `json:"in_force"`
}

type shownException struct {
	ID     string      `json:"id"`
	For    []policy.ID `json:"for"`
	Ends   time.Time   `json:"ends"`
	Owner  string      `json:"owner"`
	Reason string      `json:"reason"`
}

func newPolicyShow() *cobra.Command {
	var path string
	var asJSON bool
	c := &cobra.Command{
		Use:   "show -c FILE",
		Short: "Show what is in force now: stages, what comes next, the hold, exceptions that end",
		Long: `Show what the policy of a configuration does now: the stage of each requirement and
the next one, the hold with who set it and why, and the exceptions that end within
30 days. It reads the files; a running program has the policy file as it was at its
start or at the last SIGHUP.`,
		Example: "  mailreeve policy show -c /etc/mailreeve/mailreeve.yaml",
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			conf, err := config.Load(path)
			if err != nil {
				return fileHint(err, path)
			}
			s, err := showPolicy(conf, time.Now())
			if err != nil {
				return err
			}
			if asJSON {
				return writeJSON(c.OutOrStdout(), s)
			}
			s.print(c.OutOrStdout())
			return nil
		},
	}
	configFlag(c, &path)
	c.Flags().BoolVar(&asJSON, "json", false, "print a JSON object")
	return c
}

func showPolicy(conf *config.Config, now time.Time) (*shown, error) {
	file, err := conf.LoadPolicy()
	if err != nil {
		return nil, err
	}
	p, err := conf.Enforced()
	if err != nil {
		return nil, err
	}
	now = now.In(zone(file)).Truncate(time.Second)
	s := &shown{Policy: p.String(), File: conf.Policy, At: now, EndSoon: []shownException{}}
	for _, r := range p.Explain(&policy.Facts{}, now).Steps {
		s.Requirements = append(s.Requirements, shownRequirement{r.ID, r.Finding, r.Stage, r.Next})
	}
	hold, _, err := readHold(conf.Hold)
	if err != nil {
		return nil, holdHint(err, conf.Hold)
	}
	if hold != nil {
		s.Hold = &shownHold{holdFile{hold.Cap, hold.Reason, hold.Owner, hold.Since, hold.Until}, !now.Before(hold.Since) && now.Before(hold.Until)}
	}
	if file == nil {
		return s, nil
	}
	s.Exceptions = len(file.Exceptions)
	byID := map[string]policy.FileException{}
	for _, e := range file.Exceptions {
		byID[string(e.ID)] = e
	}
	for _, t := range p.Calendar() {
		if t.Kind != policy.ExceptionEnds || !t.At.After(now) || t.At.After(now.Add(endsSoon)) {
			continue
		}
		for _, id := range t.Exceptions {
			e := byID[id]
			s.EndSoon = append(s.EndSoon, shownException{id, e.For, t.At, e.Owner, e.Reason})
		}
	}
	return s, nil
}

func (s *shown) print(out io.Writer) {
	from := "built in"
	if s.File != "" {
		from = s.File
	}
	fmt.Fprintf(out, "Policy %s (%s), at %s\n\n", s.Policy, from, s.At.Format(minuteForm))
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "REQUIREMENT\tFINDING\tNOW\tSINCE\tNEXT")
	date := func(t time.Time) string {
		switch {
		case t.IsZero():
			return "ever"
		case t.Hour() == 0 && t.Minute() == 0 && t.Second() == 0:
			return t.Format(dayForm)
		}
		return t.Format(minuteForm)
	}
	for _, r := range s.Requirements {
		now, since, next := "nothing yet", "-", "-"
		if r.Stage != nil {
			now, since = fmt.Sprintf("%v (%d of %d)", r.Stage.Do, r.Stage.Number, r.Stage.Of), date(r.Stage.From)
		}
		if r.Next != nil {
			next = fmt.Sprintf("%v from %s", r.Next.Do, date(r.Next.From))
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", r.ID, r.Finding, now, since, next)
	}
	w.Flush()
	fmt.Fprintln(out)
	switch h := s.Hold; {
	case h == nil:
		fmt.Fprintln(out, "Hold: none")
	case h.InForce:
		fmt.Fprintln(out, "Hold: "+holdText(&policy.Hold{Cap: h.Cap, Reason: h.Reason, Owner: h.Owner, Until: h.Until}))
	default:
		fmt.Fprintf(out, "Hold: none; the last one ended on %s\n", h.Until.Local().Format(minuteForm))
	}
	fmt.Fprintf(out, "Exceptions: %d", s.Exceptions)
	if len(s.EndSoon) == 0 {
		fmt.Fprintln(out, "; none ends within 30 days")
		return
	}
	fmt.Fprintf(out, "; %d within 30 days:\n", len(s.EndSoon))
	for _, e := range s.EndSoon {
		fmt.Fprintln(out, onOneLine(fmt.Sprintf("  %s ends %s, by %s (%s)", e.ID, date(e.Ends), e.Owner, e.Reason)))
	}
}
