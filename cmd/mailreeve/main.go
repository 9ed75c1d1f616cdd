// Command mailreeve is an enforcing mail access proxy for IMAP, POP3 and
// submission. See `mailreeve help`, or try it: `mailreeve demo`.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"mailreeve/config"
	"mailreeve/events"
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// run executes a command line and returns the exit code: 0 done, 1 failed, 2
// wrong usage. Errors are one line each, and a hint with the thing to type.
func run(args []string, stdout, stderr io.Writer) int {
	root := newRoot()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.Execute()
	var problems config.Problems
	switch {
	case err == nil:
		return 0
	case errors.As(err, &problems):
		fmt.Fprintln(stderr, problems)
	default:
		fmt.Fprintln(stderr, "mailreeve: "+err.Error())
	}
	var h *hinted
	if errors.As(err, &h) {
		fmt.Fprintln(stderr, "hint: "+h.hint)
		if h.usage {
			return 2
		}
	}
	return 1
}

// hinted is an error with something to type.
type hinted struct {
	err   error
	hint  string
	usage bool
}

func (h *hinted) Error() string { return h.err.Error() }
func (h *hinted) Unwrap() error { return h.err }

func withHint(err error, format string, args ...any) error {
	return &hinted{err: err, hint: fmt.Sprintf(format, args...)}
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "mailreeve",
		Short: "An enforcing mail access proxy for IMAP, POP3 and submission",
		Long: `Mailreeve stands in front of Dovecot and Postfix. It ends TLS for IMAP, POP3 and
submission under the provider's own host names, sees how each customer logs in,
refuses what shall no longer be in words that reach the person, and hands every
good session to the backend untouched.`,
		SilenceErrors: true, SilenceUsage: true,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
	}
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return &hinted{err: err, hint: fmt.Sprintf("`%s --help` lists the flags", c.CommandPath()), usage: true}
	})
	root.AddCommand(newDemo(), newRun(), newCheck(), newConfig(), newVersion(), eventsTopic())
	// A mistyped command ends like a mistyped flag: with the thing to type.
	root.Args = func(c *cobra.Command, args []string) error {
		if len(args) == 0 {
			return nil
		}
		hint := "`mailreeve help` lists the commands"
		if s := c.SuggestionsFor(args[0]); len(s) > 0 {
			hint = fmt.Sprintf("did you mean `mailreeve %s`?", s[0])
		}
		return &hinted{err: fmt.Errorf("there is no command %q", args[0]), hint: hint, usage: true}
	}
	root.RunE = func(c *cobra.Command, _ []string) error { return c.Help() }
	return root
}

// noArgs refuses arguments, with the command's own way to be used.
func noArgs(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	return &hinted{err: fmt.Errorf("%s takes no argument such as %q", c.CommandPath(), args[0]),
		hint: fmt.Sprintf("`%s --help` shows how it is used", c.CommandPath()), usage: true}
}

func newConfig() *cobra.Command {
	c := &cobra.Command{
		Use:   "config",
		Short: "Print a commented example of the configuration, or its JSON Schema",
		Args:  noArgs,
		RunE:  func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(
		&cobra.Command{
			Use: "example", Short: "Print a configuration file with every key explained", Args: noArgs,
			RunE: func(c *cobra.Command, _ []string) error {
				_, err := c.OutOrStdout().Write(config.ExampleFile())
				return err
			},
		},
		&cobra.Command{
			Use: "schema", Short: "Print the JSON Schema of the configuration, for editors", Args: noArgs,
			RunE: func(c *cobra.Command, _ []string) error {
				schema, err := config.SchemaFile()
				if err != nil {
					return err
				}
				_, err = c.OutOrStdout().Write(schema)
				return err
			},
		},
	)
	return c
}

// version is set when a release is linked; else the build's own information is used.
var version string

func newVersion() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			v := version
			if info, ok := debug.ReadBuildInfo(); ok && v == "" {
				v = info.Main.Version
			}
			_, err := fmt.Fprintln(c.OutOrStdout(), "mailreeve", v)
			return err
		},
	}
}

// eventsTopic is the help text on the event log, made from the schema itself.
func eventsTopic() *cobra.Command {
	c := &cobra.Command{Use: "events", Short: "The event log: one JSON line a session, and what its fields mean"}
	c.SetHelpFunc(func(c *cobra.Command, _ []string) {
		out := c.OutOrStdout()
		fmt.Fprint(out, `Every session leaves one line of JSON in the event log when it ends (events.file
in the configuration). A field is left out where its fact never became known.

`)
		table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
		for _, f := range events.Fields() {
			fmt.Fprintf(table, "%s\t%s\t%s\n", f.Name, f.Type, f.Doc)
		}
		table.Flush()
	})
	return c
}
