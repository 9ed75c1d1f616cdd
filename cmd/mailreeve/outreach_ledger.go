package main

// The ledger's own commands: what fills it, and what people may ask of those who keep it.

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"mailreeve/config"
	"mailreeve/outreach"
)

// eventsEvery is how often events are looked for: somebody who has just been told to try again at the
// telephone is seen in the ledger soon.
const eventsEvery = 2 * time.Second

// newIntake is what fills the ledger of a configuration. Names in logs are those of a brand's customers.
func newIntake(c *config.Config, l *outreach.Ledger, brand config.Name) (*outreach.Intake, error) {
	o := c.Outreach
	in := &outreach.Intake{Ledger: l, Networks: outreach.NewNetworks(o.Networks, o.Access), Collector: o.Collector, Brand: string(brand)}
	resolve := map[string]*config.Names{}
	for i := range c.Brands {
		b := &c.Brands[i]
		names, _, err := b.Names() // the check has told what is wrong in it
		if err != nil {
			return nil, fmt.Errorf("reading the aliases of brand %s: %w", b.Name, err)
		}
		resolve[string(b.Name)] = names
	}
	in.Resolve = func(brand, name string) string {
		if names := resolve[brand]; names != nil {
			name, _ = names.Resolve(name)
		}
		return strings.ToLower(name)
	}
	return in, nil
}

// logFiles are the files that import is to read, of each kind.
type logFiles map[outreach.Source][]string

// logKinds are the kinds of files in the order in which they are told.
var logKinds = []outreach.Source{outreach.Dovecot, outreach.Postfix, outreach.Events}

// find looks for the files that patterns name.
func (f logFiles) find(kind outreach.Source, patterns []string) error {
	for _, pattern := range patterns {
		found, err := filepath.Glob(pattern)
		if _, statErr := os.Lstat(pattern); statErr == nil {
			found, err = []string{pattern}, nil // a file that is called like a pattern
		}
		if err != nil || len(found) == 0 {
			return withHint(fmt.Errorf("--%s: there is no file %s", kind, printable(pattern)),
				"`ls -l %s` shows what is there; begin with sudo where only root may look", shellWord(filepath.Dir(pattern)))
		}
		for _, path := range found {
			if !isDirectory(path) {
				f[kind] = append(f[kind], path)
				continue
			}
			if kind != outreach.Events {
				return withHint(fmt.Errorf("--%s: %s is a directory", kind, path), "name its files, like '%s/mail.log*'", path)
			}
			inside, err := filepath.Glob(filepath.Join(path, "*.jsonl*"))
			if err != nil || len(inside) == 0 {
				return withHint(fmt.Errorf("--%s: %s holds no file named *.jsonl", kind, path), "name the directory of events.file")
			}
			f[kind] = append(f[kind], inside...)
		}
	}
	outreach.OldestFirst(f[kind])
	f[kind] = slices.Compact(f[kind])
	return nil
}

// spread puts the flag of a file before each further file behind it: the shell makes many words of
// an unquoted pattern.
func spread(args []string) (all []string) {
	flag := ""
	for _, arg := range args {
		name, _, whole := strings.Cut(arg, "=")
		switch {
		case slices.ContainsFunc(logKinds, func(s outreach.Source) bool { return name == "--"+string(s) }):
			if flag = name; whole {
				all = append(all, arg)
			}
		case strings.HasPrefix(arg, "-"):
			flag = ""
			all = append(all, arg)
		case flag != "":
			all = append(all, flag+"="+arg)
		default:
			all = append(all, arg)
		}
	}
	return all
}

func newOutreachImport() *cobra.Command {
	var of outreachFlags
	var brand string
	var year int
	var asJSON bool
	patterns := map[outreach.Source]*[]string{}
	c := &cobra.Command{
		Use:   "import -c FILE --dovecot FILES --postfix FILES --events FILES",
		Short: "Fill the ledger from logs of Dovecot and Postfix: a census before anything moves",
		Long: `Read logs that are there already, plain or compressed with gzip, and put into the
ledger who logs in how: lines of Dovecot 2.3 and 2.4 and of Postfix 3 in a syslog or in
files of their own, and files of events of this program.

Lines that look like a login and are not understood are counted and shown, never guessed.
Dovecot names the version of TLS where login_log_format_elements has %k (2.4: %{ssl_security});
Postfix logs TLS with smtpd_tls_loglevel = 1. What a log does not say is unknown, and no finding.

To import a file again is harmless: it is known by its first line, under any name, and
what is in the ledger already is passed over. So this may be done every night.

Names in the logs are those of one brand's customers. A year that syslog does not write is the
last in which the date is not in the future; --year is for older logs.`,
		Example: `  mailreeve outreach import -c FILE --dovecot '/var/log/mail.log*' --postfix '/var/log/mail.log*'
  mailreeve outreach import -c FILE --dovecot dovecot-2025.log.gz --year 2025 --brand example`,
		DisableFlagParsing: true, // see spread
		RunE: func(c *cobra.Command, args []string) error {
			c.DisableFlagParsing = false
			if err := c.ParseFlags(spread(args)); err != nil {
				return c.FlagErrorFunc()(c, err)
			}
			if help, err := c.Flags().GetBool("help"); err == nil && help {
				return c.Help()
			}
			if err := noArgs(c, c.Flags().Args()); err != nil {
				return err
			}
			found := logFiles{}
			for _, kind := range logKinds {
				if err := found.find(kind, *patterns[kind]); err != nil {
					return err
				}
			}
			if len(found[outreach.Dovecot])+len(found[outreach.Postfix])+len(found[outreach.Events]) == 0 {
				return &hinted{err: errors.New("there is nothing to import"), hint: "`mailreeve outreach import --dovecot '/var/log/mail.log*'`", usage: true}
			}
			return importFiles(c, &of, found, brand, year, asJSON)
		},
	}
	of.add(c)
	for _, kind := range logKinds {
		what := map[outreach.Source]string{outreach.Dovecot: "Dovecot's log", outreach.Postfix: "Postfix's log", outreach.Events: "events of this program, or their directory"}[kind]
		patterns[kind] = c.Flags().StringArray(string(kind), nil, "`files` with "+what+"; * stands for anything")
	}
	c.Flags().StringVar(&brand, "brand", "", "`name` of the brand whose customers are in Dovecot's and Postfix's logs; default: the only one")
	c.Flags().IntVar(&year, "year", 0, "`year` of the first line of each log, where lines have none")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// importFiles is import with the files that were found.
func importFiles(c *cobra.Command, of *outreachFlags, found logFiles, brand string, year int, asJSON bool) error {
	o, err := of.open(c)
	if err != nil {
		return err
	}
	defer o.Ledger.Close()
	name, err := brandOfLogs(o.Config, brand, len(found[outreach.Dovecot])+len(found[outreach.Postfix]) > 0)
	if err != nil {
		return err
	}
	in, err := newIntake(o.Config, o.Ledger, name)
	if err != nil {
		return err
	}
	in.Year = year
	ctx, stop := signal.NotifyContext(c.Context(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	result := &imported{Tallies: map[outreach.Source]*outreach.Tally{}}
	var failed error
	for _, kind := range logKinds {
		if len(found[kind]) == 0 || failed != nil {
			continue
		}
		tally, err := in.Read(ctx, kind, found[kind]...)
		result.Tallies[kind], failed = &tally, err
		// The ledger is written to the last, so that is noted even if the import was stopped.
		if err := o.Ledger.Audit(context.WithoutCancel(c.Context()), "import",
			fmt.Sprintf("%s: %d files with %d new lines, %d logins", kind, tally.Files, tally.Lines, tally.Logins)); err != nil && failed == nil {
			failed = err
		}
	}
	if failed == nil {
		if result.Accounts, result.First, result.Last, failed = o.Ledger.Size(ctx); failed == nil && asJSON {
			return writeJSON(c.OutOrStdout(), result)
		}
	}
	if !asJSON {
		result.print(c.OutOrStdout(), failed == nil)
	}
	switch {
	case errors.Is(failed, context.Canceled):
		return withHint(errors.New("the import was stopped"), "the same command goes on where it was")
	case errors.Is(failed, outreach.ErrEnded):
		return withHint(failed, "begin a new campaign with a new ledger, or set outreach.end to a later day")
	case errors.Is(failed, fs.ErrPermission):
		return withHint(failed, "the user of the ledger must be able to read the logs: `usermod -a -G adm mailreeve`, for Debian's")
	}
	return failed
}

// brandOfLogs is the brand whose customers are in logs.
func brandOfLogs(c *config.Config, name string, needed bool) (config.Name, error) {
	var all []string
	for i := range c.Brands {
		all = append(all, string(c.Brands[i].Name))
	}
	switch {
	case name != "" && c.Brand(config.Name(name)) == nil:
		return "", withHint(fmt.Errorf("--brand: there is no brand %s", printable(name)), "there are %s", strings.Join(all, ", "))
	case name == "" && len(all) > 1 && needed:
		return "", &hinted{err: errors.New("there are several brands, and a log does not say whose customers are in it"),
			hint: "add --brand with one of " + strings.Join(all, ", "), usage: true}
	case name == "":
		name = all[0]
	}
	return config.Name(name), nil
}

// imported is what an import brought.
type imported struct {
	Tallies  map[outreach.Source]*outreach.Tally `json:"files"`
	Accounts int                                 `json:"accounts"`
	First    outreach.Day                        `json:"first,omitzero"`
	Last     outreach.Day                        `json:"last,omitzero"`
}

// print shows it; of an import that failed, only what it had read.
func (r *imported) print(out io.Writer, whole bool) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "FROM\tFILES\tKNOWN\tLINES\tLOGINS\tUNCONFIRMED\tOTHER PROGRAMS\tNOT UNDERSTOOD")
	lines, files := 0, 0
	for _, kind := range logKinds {
		t := r.Tallies[kind]
		if t == nil {
			continue
		}
		lines, files = lines+t.Lines, files+t.Known
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\n", kind, t.Files, t.Known, t.Lines, t.Logins, t.Unverified, t.Foreign, t.Unknown)
	}
	w.Flush()
	for _, kind := range logKinds {
		t := r.Tallies[kind]
		if t == nil {
			continue
		}
		if len(t.Samples) > 0 {
			fmt.Fprintf(out, "\nNot understood as lines of %s, for example:\n", kind)
			for _, line := range t.Samples {
				fmt.Fprintln(out, "  "+onOneLine(line))
			}
		}
		if t.Lines > 0 && t.Logins+t.Unknown == 0 && t.Foreign > 0 {
			fmt.Fprintf(out, "\nNo login is in the lines for --%s, and %d of %d are of other programs: are these the right files?\n", kind, t.Foreign, t.Lines)
		}
	}
	if !whole {
		return
	}
	fmt.Fprintln(out)
	if lines == 0 && files > 0 {
		fmt.Fprintln(out, "Nothing is new: all complete lines of these files are in the ledger already.")
	}
	if r.First == 0 {
		fmt.Fprintf(out, "The ledger has %s.\n", plural(r.Accounts, "account"))
		return
	}
	fmt.Fprintf(out, "The ledger has %s, from %v to %v.\n", plural(r.Accounts, "account"), r.First, r.Last)
}

func newOutreachFollow() *cobra.Command {
	var of outreachFlags
	var once bool
	c := &cobra.Command{
		Use:   "follow -c FILE",
		Short: "Fill the ledger from the proxy's events, as they happen",
		Long: `Read the events of the running proxy into the ledger, until a signal ends it. It goes
on where it was, also after a crash, and loses and doubles nothing. With outreach.follow, which
is the default, run does this by itself; a second reader does no harm.`,
		Example: `  mailreeve outreach follow -c FILE
  mailreeve outreach follow -c FILE --once   what is there now`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			o, err := of.open(c)
			if err != nil {
				return err
			}
			defer o.Ledger.Close()
			in, err := newIntake(o.Config, o.Ledger, "")
			if err != nil {
				return err
			}
			ctx, stop := signal.NotifyContext(c.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			path := o.Config.Events.File
			if once {
				tally, err := in.Follower(path).Look(ctx)
				fmt.Fprintln(c.OutOrStdout(), tallyText(&tally))
				return followHint(err)
			}
			fmt.Fprintf(c.OutOrStdout(), "Following %s; Ctrl-C ends it.\n", path)
			return followHint(in.Follow(ctx, path, eventsEvery, func(t outreach.Tally, err error) {
				if t.Lines > 0 {
					fmt.Fprintln(c.OutOrStdout(), tallyText(&t))
				}
				if err != nil {
					fmt.Fprintln(c.ErrOrStderr(), "mailreeve: "+err.Error())
				}
			}))
		},
	}
	of.add(c)
	c.Flags().BoolVar(&once, "once", false, "read what is there, and end")
	return c
}

// tallyText is a tally in a line.
func tallyText(t *outreach.Tally) string {
	text := fmt.Sprintf("%s: %d confirmed, %d not", plural(t.Lines, "event"), t.Logins, t.Unverified)
	if t.Unknown > 0 {
		text += fmt.Sprintf(", %d not understood", t.Unknown)
	}
	return text
}

// followHint says what to do about events that cannot be followed.
func followHint(err error) error {
	switch {
	case errors.Is(err, outreach.ErrEnded):
		return withHint(err, "begin a new campaign with a new ledger, or set outreach.end to a later day")
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission):
		return withHint(err, "events.file in the configuration names the file that run writes; `sudo -u mailreeve` may read it")
	}
	return err
}

// plural is a number with its noun.
func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// oneAccount wants an account as the only argument.
func oneAccount(c *cobra.Command, args []string) error {
	if len(args) == 1 {
		return nil
	}
	return &hinted{err: fmt.Errorf("%s wants one account, not %d", c.CommandPath(), len(args)), hint: fmt.Sprintf("`%s anna@example.org`", c.CommandPath()), usage: true}
}

// meant is the account of the ledger that a typed name means: itself, or what it is at a brand.
func (o *outreachOf) meant(ctx context.Context, typed string) (string, error) {
	names := []string{typed, strings.ToLower(typed)}
	for i := range o.Config.Brands {
		if of, _, err := o.Config.Brands[i].Names(); err == nil && of != nil {
			name, _ := of.Resolve(typed)
			names = append(names, name)
		}
	}
	for _, name := range names {
		if _, err := o.Ledger.Account(ctx, name); !errors.Is(err, outreach.ErrUnknown) {
			return name, err
		}
	}
	return "", withHint(fmt.Errorf("%s: %w", printable(typed), outreach.ErrUnknown),
		"it is there once it has logged in; write the whole address, as in anna@example.org")
}

func newOutreachForget() *cobra.Command {
	var of outreachFlags
	c := &cobra.Command{
		Use:   "forget ACCOUNT -c FILE",
		Short: "Delete all that the ledger knows of an account",
		Long: `Delete an account from the ledger: its logins, what it was told, its notices, and its name
in the audit. That somebody was forgotten stays there, under a mark that is not the name.

The files of events still have its sessions until events.keep is over, and its next login is written
down anew. A notice that was sent is forgotten too, so it may be due again then; so is that somebody is
to be called and not written to.`,
		Example: `  mailreeve outreach forget anna@example.org -c FILE`,
		Args:    oneAccount,
		RunE: func(c *cobra.Command, args []string) error {
			o, err := of.open(c)
			if err != nil {
				return err
			}
			defer o.Ledger.Close()
			name, err := o.meant(c.Context(), args[0])
			if err != nil {
				return err
			}
			if err := o.Ledger.Forget(c.Context(), name); err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "%s is forgotten.\nEvents of the last %s still have its sessions; its next login is written down anew.\n",
				printable(name), plural(int(o.Config.Events.Keep/(24*time.Hour)), "day"))
			return nil
		},
	}
	of.add(c)
	return c
}

func newOutreachExport() *cobra.Command {
	var of outreachFlags
	c := &cobra.Command{
		Use:   "export ACCOUNT -c FILE",
		Short: "Print all that the ledger knows of an account, as JSON",
		Long: `Print everything that is held of an account, as JSON, for a person who asks what is known of him:
ways of logging in by day, what the proxy told him, notices, and what was done with the data. That this
was printed is written into the audit.`,
		Example: `  mailreeve outreach export anna@example.org -c FILE > anna.json`,
		Args:    oneAccount,
		RunE: func(c *cobra.Command, args []string) error {
			o, err := of.open(c)
			if err != nil {
				return err
			}
			defer o.Ledger.Close()
			name, err := o.meant(c.Context(), args[0])
			if err != nil {
				return err
			}
			x, err := o.Ledger.Export(c.Context(), name)
			if err != nil {
				return err
			}
			return writeJSON(c.OutOrStdout(), x)
		},
	}
	of.add(c)
	return c
}

func newOutreachAudit() *cobra.Command {
	var of outreachFlags
	var asJSON bool
	c := &cobra.Command{
		Use:   "audit -c FILE",
		Short: "Show what was done with customers' data, when and by whom",
		Long: `Show the audit: imports, exports, accounts that were forgotten, previews and views of an
account, and notices. Commands write it by themselves.`,
		Example: `  mailreeve outreach audit -c FILE
  mailreeve outreach audit -c FILE --json | jq 'select(.what == "export")'`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			o, err := of.open(c)
			if err != nil {
				return err
			}
			defer o.Ledger.Close()
			all, err := o.Ledger.Audited(c.Context())
			if err != nil {
				return err
			}
			if asJSON {
				e := json.NewEncoder(c.OutOrStdout())
				e.SetEscapeHTML(false)
				for i := range all {
					if err := e.Encode(&all[i]); err != nil {
						return err
					}
				}
				return nil
			}
			w := tabwriter.NewWriter(c.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "WHEN\tWHO\tWHAT\tDETAIL")
			for _, e := range all {
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", e.Time.In(o.Zone).Format("2006-01-02 15:04:05 MST"), onOneLine(e.Who), onOneLine(e.What), onOneLine(e.Detail))
			}
			return w.Flush()
		},
	}
	of.add(c)
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON, an object a line")
	return c
}
