// Command mailreeve is an enforcing mail access proxy for IMAP, POP3 and
// submission. See `mailreeve help`, or try it: `mailreeve demo`.
package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strings"

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
	if errors.As(err, new(later)) {
		return exitTempFail
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

// later is an error after which the caller shall try again: the exit code says so.
type later struct{ error }

func (l later) Unwrap() error { return l.error }

// exitTempFail tells Postfix to keep a message and to come again (pipe(8), sysexits.h).
const exitTempFail = 75

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
good session to the backend untouched.

The exit code is 0 when all is well, 1 after an error, 2 after a wrong command line.`,
		Example: `  mailreeve demo                              try it, on this machine alone
  mailreeve config example > mailreeve.yaml   begin a configuration
  mailreeve check -c mailreeve.yaml --probe   check it, and ask your servers what they offer
  mailreeve run -c mailreeve.yaml             run it
  mailreeve certs list -c mailreeve.yaml      see its certificates, and how long they last
  mailreeve policy test policy.yaml           see whether a policy does what it shall
  mailreeve outreach report                   see who must change what`,
		Version:       versionOf(),
		SilenceErrors: true, SilenceUsage: true,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
	}
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		if words := c.Flags().Args(); c.HasSubCommands() && len(words) > 0 {
			return unknownCommand(c, words[0]) // whose flags this one cannot know
		}
		return &hinted{err: err, hint: fmt.Sprintf("`%s --help` lists the flags", c.CommandPath()), usage: true}
	})
	root.AddCommand(newDemo(), newRun(), newCheck(), newCerts(), newPolicy(), newOutreach(), newConfig(), newVersion(), eventsTopic())
	root.SetVersionTemplate("{{.Name}} {{.Version}}\n")
	root.SetHelpCommand(newHelp())
	group(root)
	return root
}

// group makes a command that only holds others: alone it prints its help. A
// mistyped command ends like a mistyped flag: with the thing to type.
func group(c *cobra.Command) {
	c.SuggestionsMinimumDistance = 2 // letters wrong
	c.Args = func(c *cobra.Command, args []string) error {
		if len(args) == 0 {
			return nil
		}
		return unknownCommand(c, args[0])
	}
	c.RunE = func(c *cobra.Command, _ []string) error { return c.Help() }
}

// unknownCommand says which command might have been meant.
func unknownCommand(of *cobra.Command, word string) error {
	typed, hint := word, "`mailreeve help` lists the commands"
	if of.HasParent() {
		typed = of.Name() + " " + word
		hint = fmt.Sprintf("`%s --help` lists the commands", of.CommandPath())
	}
	if near := of.SuggestionsFor(word); len(near) > 0 {
		hint = fmt.Sprintf("did you mean `%s %s`?", of.CommandPath(), near[0])
	}
	return &hinted{err: fmt.Errorf("there is no command %q", typed), hint: hint, usage: true}
}

// newHelp is the help on commands and topics, which knows what there is.
func newHelp() *cobra.Command {
	return &cobra.Command{
		Use: "help [COMMAND]", Short: "Help on a command or a topic",
		RunE: func(c *cobra.Command, args []string) error {
			of, rest, err := c.Root().Find(args)
			if err != nil {
				return err
			}
			if len(rest) > 0 {
				return unknownCommand(of, rest[0])
			}
			of.InitDefaultHelpFlag()
			of.InitDefaultVersionFlag()
			return of.Help()
		},
	}
}

// noArgs refuses arguments, with the command's own way to be used.
func noArgs(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	hint := fmt.Sprintf("`%s --help` shows how it is used", c.CommandPath())
	if c.Flags().Lookup("config") != nil {
		hint = fmt.Sprintf("`%s -c %s`, if that is the configuration", c.CommandPath(), shellWord(args[0]))
	}
	return &hinted{err: fmt.Errorf("%s takes no argument such as %q", c.CommandPath(), args[0]), hint: hint, usage: true}
}

// shellWord is a word as a shell takes it.
func shellWord(word string) string {
	plain := func(c rune) bool {
		return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.ContainsRune("/._-+,:@%", c)
	}
	if word != "" && strings.TrimFunc(word, plain) == "" {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

// count is a number of things in words.
func count(n int, thing string) string {
	if n != 1 {
		thing += "s"
	}
	return fmt.Sprint(n, " ", thing)
}

func newConfig() *cobra.Command {
	c := &cobra.Command{
		Use:   "config",
		Short: "Print a commented example of the configuration, or its JSON Schema",
	}
	group(c)
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

// versionOf is the version of this program.
func versionOf() string {
	if info, ok := debug.ReadBuildInfo(); ok && version == "" {
		return info.Main.Version
	}
	return cmp.Or(version, "unknown")
}

func newVersion() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(c.OutOrStdout(), c.Root().Name(), c.Root().Version)
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
		for _, f := range events.Fields() {
			before := fmt.Sprintf("%-13s %-8s", f.Name, f.Type)
			for _, line := range wrap(f.Doc, 76) {
				fmt.Fprintf(out, "%s %s\n", before, line)
				before = strings.Repeat(" ", len(before))
			}
		}
	})
	return c
}

// wrap breaks text into lines of at most so many letters.
func wrap(text string, most int) (lines []string) {
	line := ""
	for word := range strings.FieldsSeq(text) {
		if line != "" && len(line)+1+len(word) > most {
			lines, line = append(lines, line), ""
		}
		line = strings.TrimPrefix(line+" "+word, " ")
	}
	return append(lines, line)
}
