package main

// What can be asked of a policy file without starting anything: whether it is
// right, whether its tests pass, what happens when, and what it says of a session.

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"mailreeve/config"
	"mailreeve/policy"
)

func newPolicy() *cobra.Command {
	c := &cobra.Command{
		Use:   "policy",
		Short: "Check, rehearse and explain a policy: who is refused what, from when on",
		Long: `A policy file says what is demanded of a login, and what becomes of one that does
not meet it, by date. Without one the built-in policy is in force, which refuses
plaintext, other mechanisms than passwords and tokens, TLS below 1.2 and old host
names. The shortest useful file:

  version: 1
  timezone: Europe/Berlin
  requirements:
    - id: encrypted
      finding: plaintext
      require: { tls: ">=1.2" }
      stages:
        - { from: "2026-09-01", do: observe }
        - { from: "2026-11-01", do: warn }
        - { from: "2027-01-15", do: deny }
  tests:
    - { at: "2027-01-15", is: { tls: none }, expect: deny, by: [encrypted] }

Actions, mildest first: pass, observe, notify, warn, tempfail, deny, refuse.`,
	}
	group(c)
	c.AddCommand(newPolicyCheck(), newPolicyTest(), newPolicyCalendar(), newPolicyExplain(), newPolicyReplay(),
		newPolicyHold(), newPolicyLift(), newPolicyShow(), newPolicySchema())
	return c
}

// policyFile wants a policy file as the only argument.
func policyFile(c *cobra.Command, args []string) error {
	if len(args) == 1 {
		return nil
	}
	err := fmt.Errorf("%s wants one policy file, not %d", c.CommandPath(), len(args))
	if len(args) == 0 {
		err = fmt.Errorf("%s wants a policy file", c.CommandPath())
	}
	return &hinted{err: err, hint: fmt.Sprintf("`%s policy.yaml`", c.CommandPath()), usage: true}
}

// loadPolicy reads a policy file.
func loadPolicy(path string) (*config.Policy, error) {
	p, err := config.LoadPolicy(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil, withHint(err, "`mailreeve policy --help` shows a small file to begin with")
	case errors.Is(err, os.ErrPermission):
		return nil, withHint(err, "run it as a user who may read the file: `ls -l %s` shows who that is", shellWord(path))
	case err != nil && isDirectory(path):
		return nil, withHint(err, "name the file itself")
	}
	return p, err
}

// zone is where the dates of a policy file are local.
func zone(p *config.Policy) *time.Location {
	if p == nil || p.Zone == nil {
		return time.UTC
	}
	return p.Zone
}

// moments are the forms in which a command line may give a time, but for RFC 3339.
var moments = []string{time.DateOnly, "2006-01-02 15:04", "2006-01-02T15:04", time.DateTime}

// moment reads a time of a flag; nothing means now. Without an offset it is that of a
// clock on the wall in the zone.
func moment(flag, text string, in *time.Location) (time.Time, error) {
	if text == "" {
		return time.Now().In(in), nil
	}
	if t, err := time.Parse(time.RFC3339, text); err == nil {
		return t.In(in), nil
	}
	for _, form := range moments {
		if t, err := time.ParseInLocation(form, text, in); err == nil {
			return t, nil
		}
	}
	return time.Time{}, &hinted{err: fmt.Errorf("--%s: %q is not a time", flag, printable(text)),
		hint: "write 2027-01-15, '2027-01-15 10:00' or 2027-01-15T10:00:00+01:00", usage: true}
}

// writeJSON prints a value for machines.
func writeJSON(out io.Writer, value any) error {
	e := json.NewEncoder(out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(value)
}

func newPolicyCheck() *cobra.Command {
	var at string
	var asJSON bool
	c := &cobra.Command{
		Use:   "check FILE",
		Short: "Check a policy file, and prove what it states",
		Long: `Check a policy file: keys, values, dates, stages that are never reached,
requirements that decide nothing, exceptions that have expired or end too late. Its
statements under always and never are proved, by trying all facts at every
transition; one that does not hold is told with the session that refutes it.

The exit code is 1 where there is an error. Warnings leave it 0.`,
		Example: `  mailreeve policy check policy.yaml
  mailreeve policy check policy.yaml --at 2027-01-15   as it would be on that day`,
		Args: policyFile,
		RunE: func(c *cobra.Command, args []string) error {
			out := c.OutOrStdout()
			p, err := loadPolicy(args[0])
			var problems config.Problems
			if errors.As(err, &problems) && asJSON {
				return said(problems, writeJSON(out, problemList(problems)))
			} else if err != nil {
				return err
			}
			now, err := moment("at", at, zone(p))
			if err != nil {
				return err
			}
			problems = p.Check(now)
			if asJSON {
				return said(problems, writeJSON(out, problemList(problems)))
			}
			if problems.Err() != nil {
				return problems // the warnings too: they may tell the cause
			}
			for _, problem := range problems {
				fmt.Fprintln(out, problem)
			}
			fmt.Fprintf(out, "%s: fine: %s, %s, %s proved, %s, policy %v\n", args[0], count(len(p.Requirements), "requirement"),
				count(len(p.Exceptions), "exception"), count(len(p.Always)+len(p.Never), "statement"), count(len(p.Tests), "test"), p.Compiled)
			return nil
		},
	}
	c.Flags().StringVar(&at, "at", "", "judge exceptions as of this `time` instead of now")
	c.Flags().BoolVar(&asJSON, "json", false, "print a JSON array of the problems")
	return c
}

// said ends a command that has told its problems already, as JSON.
func said(problems config.Problems, err error) error {
	if wrong := problems.Err(); err == nil && wrong != nil {
		return fmt.Errorf("%s in the policy file", count(len(wrong.(config.Problems)), "error"))
	}
	return err
}

// problem is one for machines.
type problem struct {
	Severity string `json:"severity"`
	File     string `json:"file"`
	Line     int    `json:"line,omitempty"`
	Column   int    `json:"column,omitempty"`
	Key      string `json:"key,omitempty"`
	Message  string `json:"message"`
	Cure     string `json:"cure,omitempty"`
}

func problemList(problems config.Problems) []problem {
	list := []problem{}
	for _, p := range problems {
		severity := "error"
		if p.Severity == config.Warning {
			severity = "warning"
		}
		list = append(list, problem{severity, p.File, p.Line, p.Column, p.Key, p.Message, p.Cure})
	}
	return list
}

func newPolicyTest() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "test FILE",
		Short: "Run the tests that a policy file has of its own, each at its time",
		Long: `Run the tests of a policy file: each has facts and a time, and says what a session
must meet and by which requirements. Then it lists the stages that no test reaches.

The exit code is 1 where a test fails. What no test reaches leaves it 0, unless
--all is given.`,
		Example: "  mailreeve policy test policy.yaml --all",
		Args:    policyFile,
	}
	var all bool
	c.Flags().BoolVar(&all, "all", false, "fail also where no test reaches a stage, share, brownout or ratchet")
	c.Flags().BoolVar(&asJSON, "json", false, "print a JSON object")
	c.RunE = func(c *cobra.Command, args []string) error {
		out := c.OutOrStdout()
		p, err := loadPolicy(args[0])
		if err != nil {
			return err
		}
		r := p.Rehearse(p.Compiled)
		if asJSON {
			if r.Failed == nil {
				r.Failed = []policy.Failure{}
			}
			if r.Unreached == nil {
				r.Unreached = []policy.Unreached{}
			}
			if err := writeJSON(out, r); err != nil {
				return err
			}
		} else {
			for _, f := range r.Failed {
				fmt.Fprintln(out, p.Problem(config.Error, f.Key, f.String(), ""))
			}
			for _, u := range r.Unreached {
				fmt.Fprintf(out, "no test reaches %v\n", u)
			}
			fmt.Fprintf(out, "%s: %s, %d failed, policy %v\n", args[0], count(r.Tests, "test"), len(r.Failed), p.Compiled)
		}
		switch {
		case len(r.Failed) > 0:
			return withHint(fmt.Errorf("%s failed", count(len(r.Failed), "test")),
				"`mailreeve policy explain --policy %s --at TIME --fact tls=none ...` shows each step of a decision", shellWord(args[0]))
		case all && len(r.Unreached) > 0:
			return fmt.Errorf("no test reaches %s", count(len(r.Unreached), "part"))
		}
		return nil
	}
	return c
}

func newPolicyCalendar() *cobra.Command {
	var ics, asJSON bool
	var from string
	c := &cobra.Command{
		Use:   "calendar FILE",
		Short: "List everything that begins or ends, in order",
		Long: `List the stages of a policy file, its trial outages and the ends of its exceptions,
in the order of their dates. With --ics it is a calendar (RFC 5545) for the support
desk to subscribe to.`,
		Example: `  mailreeve policy calendar policy.yaml --from 2026-11-01
  mailreeve policy calendar policy.yaml --ics > /var/www/policy.ics`,
		Args: policyFile,
		RunE: func(c *cobra.Command, args []string) error {
			out := c.OutOrStdout()
			p, err := loadPolicy(args[0])
			if err != nil {
				return err
			}
			all := p.Compiled.Calendar()
			if from != "" {
				since, err := moment("from", from, zone(p))
				if err != nil {
					return err
				}
				for len(all) > 0 && all[0].At.Before(since) {
					all = all[1:]
				}
			}
			switch {
			case ics:
				return p.Compiled.WriteICS(out, all, time.Now())
			case asJSON:
				if all == nil {
					all = []policy.Transition{}
				}
				return writeJSON(out, all)
			}
			for _, t := range all {
				fmt.Fprintln(out, t)
			}
			return nil
		},
	}
	c.Flags().BoolVar(&ics, "ics", false, "print an iCalendar file")
	c.Flags().BoolVar(&asJSON, "json", false, "print a JSON array")
	c.Flags().StringVar(&from, "from", "", "leave out what lies before this `time`")
	c.MarkFlagsMutuallyExclusive("ics", "json")
	return c
}

func newPolicySchema() *cobra.Command {
	return &cobra.Command{
		Use: "schema", Short: "Print the JSON Schema of the policy file, for editors", Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			schema, err := config.PolicySchemaFile()
			if err != nil {
				return err
			}
			_, err = c.OutOrStdout().Write(schema)
			return err
		},
	}
}

// newPolicyExplain prints the seven steps of a decision.
func newPolicyExplain() *cobra.Command {
	e := &explainer{}
	c := &cobra.Command{
		Use:   "explain [ID]",
		Short: "Print the steps of a decision with their values",
		Long: `Print what a policy says of a session, in the seven steps of the decision: scope,
violation, stage, share with brownout and ratchet, exceptions, the most severe, hold.

With an id, the session is looked for in the event log, of --events or else of the
configuration, and explained with the facts that its event has, at its time. The id
is in every refusal; it may be typed as it was heard.

Without one, it is about the facts that are given. Those that are not are unknown,
which is not false: the last lines say what they could still bring.

Facts: brand, protocol, port, listener, entry, tls, cipher_class, sni, host, mechanism,
user_form, account, domain, client, ledger, verified, ip.`,
		Example: `  mailreeve policy explain 1PBQ7R2M4X9D -c /etc/mailreeve/mailreeve.yaml
  mailreeve policy explain --policy policy.yaml --at 2027-01-15 --fact tls=none --fact mechanism=CRAM-MD5`,
		Args: cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, args []string) error {
			switch {
			case len(args) == 0 && e.events == "":
				return e.run(c.OutOrStdout())
			case len(args) == 0:
				return &hinted{err: errors.New("which session of the events?"), hint: "`mailreeve policy explain ID --events DIR`", usage: true}
			case len(e.facts) > 0 || e.at != "":
				return &hinted{err: errors.New("a session has its own facts and its own time"), hint: "leave out --fact and --at, or the id", usage: true}
			}
			return e.session(c.OutOrStdout(), strings.Join(args, ""))
		},
	}
	c.Flags().StringVar(&e.events, "events", "", "`directory` of the event log, or one file of it")
	c.Flags().StringVarP(&e.config, "config", "c", "", "configuration `file`, for its policy, its hold and its events (default, with an id: "+defaultConfig+")")
	c.Flags().StringVar(&e.policy, "policy", "", "policy `file`; default: the built-in policy")
	c.Flags().StringVar(&e.at, "at", "", "decide at this `time` instead of now")
	c.Flags().StringArrayVar(&e.facts, "fact", nil, "a fact, as `name=value`; may be repeated")
	c.Flags().BoolVar(&e.json, "json", false, "print a JSON object")
	return c
}

// explainer is the command explain with its flags.
type explainer struct {
	policy, at     string
	events, config string
	facts          []string
	json           bool
}

// run explains given facts, under the hold of now where it is about now.
func (e *explainer) run(out io.Writer) error {
	p, in := policy.Enforced(), time.UTC
	var hold *policy.Hold
	if e.config != "" {
		c, err := config.Load(e.config)
		if err != nil {
			return fileHint(err, e.config)
		}
		if file, err := c.LoadPolicy(); err != nil {
			return err
		} else if file != nil {
			p, in = file.Compiled, zone(file)
		}
		if e.at == "" {
			if hold, _, err = readHold(c.Hold); err != nil {
				return holdHint(err, c.Hold)
			}
		}
	}
	if e.policy != "" {
		file, err := loadPolicy(e.policy)
		if err != nil {
			return err
		}
		p, in = file.Compiled, zone(file)
	}
	now, err := moment("at", e.at, in)
	if err != nil {
		return err
	}
	f, err := givenFacts(e.facts)
	if err != nil {
		return err
	}
	return e.print(out, p.ExplainUnder(hold, f, now))
}

func (e *explainer) print(out io.Writer, x *policy.Explanation) error {
	if e.json {
		return writeJSON(out, x)
	}
	for _, line := range x.Lines() {
		fmt.Fprintln(out, onOneLine(line))
	}
	return nil
}

// onOneLine keeps what strangers sent from steering a terminal.
func onOneLine(text string) string {
	return strings.Map(func(c rune) rune {
		if !unicode.IsPrint(c) {
			return '?'
		}
		return c
	}, text)
}

// givenFacts are those of a command line.
func givenFacts(list []string) (*policy.Facts, error) {
	f := &policy.Facts{}
	for _, text := range list {
		name, value, ok := strings.Cut(text, "=")
		err := errors.New("it has no =")
		hint := "write it like --fact tls=none"
		if ok {
			if err = f.Learn(name, value); err == nil {
				continue
			}
			var m interface{ Cure() string }
			if errors.As(err, &m) {
				hint = m.Cure()
			}
		}
		return nil, &hinted{err: fmt.Errorf("--fact %s: %w", printable(text), err), hint: hint, usage: true}
	}
	return f, nil
}
