package main

// Notices: who is told, the sending of it, and what comes back.

import (
	"bufio"
	"compress/gzip"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"mailreeve/config"
	"mailreeve/outreach"
	"mailreeve/policy"
)

// notices wants a configuration by which notices are sent.
func (o *outreachOf) notices() (*config.Notices, error) {
	n := o.Config.Outreach.Notices
	if n == nil {
		return nil, withHint(errors.New("the configuration has no outreach.notices"), "add outreach: { notices: { server: 'HOST:587' } }; `mailreeve config example` explains it")
	}
	for i := range o.Config.Brands {
		b := &o.Config.Brands[i]
		if err := noticesOf(b); err != nil {
			return nil, err
		}
		if !outreach.ReturnPathFits(string(b.Notices.Envelope)) {
			return nil, withHint(fmt.Errorf("the brand %s: %s is too long to have a notice's code in it", b.Name, b.Notices.Envelope),
				"write a notices.envelope with at most 39 letters before the @, like notices@bounces.example.org")
		}
	}
	return n, nil
}

func newOutreachPlan() *cobra.Command {
	var f outreachFlags
	var out output
	c := &cobra.Command{
		Use:   "plan [ACCOUNT]",
		Short: "Show who is told today by which step, and why others are not",
		Long: `Show who is told today, and why others are not. Nothing is sent.

T is the day on which an account is refused; T-28 is the notice four weeks before it. Each
account gets each step once, the steps more than a week before T on a day of the week of its
own, none within outreach.notices.gap of the one before until T-7, and no more than
outreach.notices.most. Of several steps that have passed the latest is due. Accounts that
policy makes known (notify or more) without a day on which it refuses them are told three
times: N, N+28 and N+56 days after that began. It ends when all is fixed or exempt, when mail
comes back, when the customer wants to be called, and with the last day of the campaign
(outreach.end). T and what follows it lapse a week after their day. Who logs in as he should
after what was wrong is watched, and not told again unless it is seen anew.

With an account, what is planned for it alone. The reasons are words that stay; so do the
fields of --json and the columns of --csv. What prints names is written into the audit.`,
		Example: `  mailreeve outreach plan -c FILE
  mailreeve outreach plan -c FILE --now 2027-01-11         as it would be on that day
  mailreeve outreach plan -c FILE --csv >plan.csv          for those who write letters
  mailreeve outreach plan anna@example.org -c FILE`,
		Args: atMostOneAccount,
		RunE: func(c *cobra.Command, args []string) error {
			if err := out.check(); err != nil {
				return err
			}
			o, err := f.open(c)
			if err != nil {
				return err
			}
			defer o.Ledger.Close()
			if _, err := o.notices(); err != nil {
				return err
			}
			if len(args) == 1 {
				return o.planOne(c, args[0], out.json)
			}
			return o.plan(c, &out)
		},
	}
	f.add(c)
	out.add(c, "each account that something is wrong with")
	return c
}

// atMostOneAccount wants one account, or none.
func atMostOneAccount(c *cobra.Command, args []string) error {
	if len(args) <= 1 {
		return nil
	}
	return &hinted{err: fmt.Errorf("%s takes one account, or none", c.CommandPath()), hint: fmt.Sprintf("`%s anna@example.org -c FILE`", c.CommandPath()), usage: true}
}

func (o *outreachOf) planOne(c *cobra.Command, heard string, asJSON bool) error {
	a, err := o.account(c, heard)
	if err != nil {
		return err
	}
	item, _, err := o.look(c, a)
	if err != nil {
		return err
	}
	if err := o.Ledger.Audit(c.Context(), "plan", a.Name); err != nil {
		return err
	}
	if asJSON {
		return writeJSON(c.OutOrStdout(), item)
	}
	fmt.Fprintf(c.OutOrStdout(), "%s: %s\n", printable(a.Name), onOneLine(item.Sentence))
	if item.Letter {
		fmt.Fprintln(c.OutOrStdout(), "No program of it can fetch mail any more: a letter or a call is surer.")
	}
	return nil
}

func (o *outreachOf) plan(c *cobra.Command, out *output) error {
	s := outreach.NewSchedule(o.Config.Outreach)
	if out.named() {
		if err := o.Ledger.Audit(c.Context(), "plan", "accounts with the steps that are due"); err != nil {
			return err
		}
	}
	plan, err := o.Ledger.Plan(c.Context(), s, o.Policy, o.now())
	if err != nil {
		return err
	}
	stop, err := o.Ledger.Stopped(c.Context())
	if err != nil {
		return err
	}
	to := c.OutOrStdout()
	switch {
	case out.csv:
		return plan.Sheet(to, out.language(o), o.Ledger.Marks(), o.Zone)
	case out.json:
		if !out.all {
			plan.Items = nil
		}
		return writeJSON(to, struct {
			*outreach.Plan
			Stopped *outreach.Stop `json:"stopped,omitempty"`
		}{plan, stop})
	}
	printPlan(to, plan, stop, o)
	if out.all {
		fmt.Fprintln(to)
		g := grid{}
		g.add("Account", "Step", "On", "Reason")
		for _, i := range plan.Items {
			step, on := "", ""
			if i.Reason == outreach.ReasonDue || i.Reason == outreach.ReasonBudget || i.Reason == outreach.ReasonClosed {
				step = outreach.StepName(i.Step)
			}
			if i.On != 0 {
				on = i.On.String()
			}
			g.add(clipped(i.Account, mostAccount), step, on, string(i.Reason))
		}
		g.print(to)
		fmt.Fprintln(to, "\n`mailreeve outreach plan ACCOUNT` says it in a sentence, and --csv of all of them.")
	}
	return nil
}

// mostAccount bounds an account's name in a table of 120 columns.
const mostAccount = 80

// clipped is a text of so many letters at the most.
func clipped(s string, most int) string {
	if letters := []rune(s); len(letters) > most {
		return string(letters[:most-1]) + "…"
	}
	return s
}

// printPlan prints a plan for people.
func printPlan(to io.Writer, p *outreach.Plan, stop *outreach.Stop, o *outreachOf) {
	n := o.Config.Outreach.Notices
	fmt.Fprintf(to, "Campaign %s, %s\n", p.Campaign, o.now().Format("Mon 2 Jan 2006 15:04 MST"))
	switch {
	case stop != nil:
		fmt.Fprintf(to, "Sending is stopped by %s since %s: %s\n", printable(stop.Who), stop.Since.In(o.Zone).Format("2 Jan 15:04"), onOneLine(stop.Reason))
	case !p.Open:
		office := outreach.NewOffice(o.Config.Outreach)
		fmt.Fprintf(to, "Nothing is sent today any more: %s.\n", office.Closed(o.now()))
	}
	budget := fmt.Sprintf("Today's budget: %d of %d are left.", p.Left, p.PerDay)
	if !p.Open {
		budget = fmt.Sprintf("A day's budget: %d.", p.PerDay)
	}
	fmt.Fprintf(to, "%s looked at. %s\n\n", count(p.Accounts, "account"), budget)
	g := grid{}
	g.add("Step", ">Told today")
	for _, step := range append(slices.Clone(n.Steps), outreach.Undated, outreach.Undated+28, outreach.Undated+56) {
		if name := outreach.StepName(step); p.Steps[name] > 0 {
			g.add(name, p.Steps[name])
		}
	}
	if len(g.rows) == 1 {
		g.add("none", 0)
	}
	g.print(to)
	fmt.Fprintln(to)
	g = grid{}
	g.add("Reason", ">Accounts", "")
	for _, r := range outreach.Reasons {
		if p.Reasons[r] > 0 {
			g.add(string(r), p.Reasons[r], r.String())
		}
	}
	g.print(to)
	for _, d := range p.Dates {
		if d.Due == 0 {
			continue
		}
		what := "without a day"
		if d.T != 0 {
			what = "for " + shortDay(d.T)
		}
		fmt.Fprintf(to, "\n%s %s due; at %d a day the last %s told on %s.\n", count(d.Due, "notice"), what+map[bool]string{true: " is", false: " are"}[d.Due == 1], p.PerDay,
			map[bool]string{true: "of them is", false: "before the campaign's end is"}[d.Never == 0], shortDay(d.Done))
		if d.Never > 0 {
			fmt.Fprintf(to, "WARNING: %d of them not before the campaign's end. Raise outreach.notices.per_day, or move outreach.end.\n", d.Never)
		}
		if d.Late > 0 {
			fmt.Fprintf(to, "WARNING: %s of them only when the day has come. Begin earlier, raise outreach.notices.per_day,\nor move the stage.\n", fmt.Sprint(d.Late))
		}
	}
	if p.Letters > 0 {
		fmt.Fprintf(to, "\n%s can fetch no mail any more by what is known: --csv marks who is to get a letter or a call.\n", count(p.Letters, "account"))
	}
}

func newOutreachSend() *cobra.Command {
	var f outreachFlags
	var most int
	var dry, asJSON, verbose bool
	c := &cobra.Command{
		Use:   "send",
		Short: "Send the notices that are due, and end",
		Long: `Send the notices that are due, as fast as outreach.notices allows, and end when nothing is
due any more, when the day's budget is used up, or when the office closes. It may be begun by a
timer as often as one likes, and on several nodes: rates and budget are kept in the ledger, and
no notice is sent by two.

Before each mail the account is looked at again. What was being handed over to the server when
a sender was killed or lost its connection is in doubt: it is never sent again by itself, and
mailreeve outreach doubts lists it. After SIGINT or SIGTERM the mail under way is sent to its
end; mailreeve outreach stop ends every sender before its next mail.

It needs a submission server (outreach.notices.server) that takes mail for your customers from
outreach.notices.user, or from this machine. Let that sign with DKIM. The exit code is 0 also
where nothing was due.`,
		Example: `  mailreeve outreach send -c FILE --dry-run     what would be sent now
  mailreeve outreach send -c FILE --limit 1     begin with one
  mailreeve outreach send -c FILE`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if most < 0 {
				return &hinted{err: errors.New("--limit is below 0"), hint: "leave it out, or write --limit 1", usage: true}
			}
			o, err := f.open(c)
			if err != nil {
				return err
			}
			defer o.Ledger.Close()
			n, err := o.notices()
			if err != nil {
				return err
			}
			if dry {
				return o.dryRun(c, most)
			}
			if f.at != "" && !onThisMachine(n.Server.Host) {
				return &hinted{err: fmt.Errorf("--now %s: %s would send real mail by a false clock", f.at, n.Server.Host),
					hint: "add --dry-run, leave --now out, or rehearse with an outreach.notices.server on this machine, like 127.0.0.1:2525", usage: true}
			}
			return o.send(c, n, most, asJSON, verbose)
		},
	}
	f.add(c)
	c.Flags().IntVar(&most, "limit", 0, "send at most this `number` of notices")
	c.Flags().BoolVar(&dry, "dry-run", false, "send nothing, and list what would be sent")
	c.Flags().BoolVar(&asJSON, "json", false, "print what was done as a JSON object")
	c.Flags().BoolVarP(&verbose, "verbose", "v", false, "print a line for each notice that was sent")
	return c
}

// onThisMachine reports whether mail to a server stays where it is for now: that of a rehearsal.
func onThisMachine(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func (o *outreachOf) dryRun(c *cobra.Command, most int) error {
	if err := o.Ledger.Audit(c.Context(), "plan", "dry run of sending"); err != nil {
		return err
	}
	s, now := outreach.NewSchedule(o.Config.Outreach), o.now()
	plan, err := o.Ledger.Plan(c.Context(), s, o.Policy, now)
	if err != nil {
		return err
	}
	stop, err := o.Ledger.Stopped(c.Context())
	if err != nil {
		return err
	}
	why := s.Office.Closed(now)
	switch {
	case outreach.DayOf(now, o.Zone) > s.End:
		why = fmt.Sprintf("the campaign ended on %s", s.End)
	case stop != nil:
		why = fmt.Sprintf("%s has stopped it: %s", stop.Who, stop.Reason)
	case why == "" && plan.Left == 0:
		why = fmt.Sprintf("the day's budget of %d is used up", plan.PerDay)
	}
	if why != "" {
		waiting := plan.Reasons[outreach.ReasonDue] + plan.Reasons[outreach.ReasonClosed] + plan.Reasons[outreach.ReasonBudget]
		fmt.Fprintf(c.OutOrStdout(), "Nothing would be sent now: %s. Due: %s.\n", onOneLine(why), count(waiting, "notice"))
		return nil
	}
	g := grid{}
	g.add("To", "Step", "Case", "From")
	n := 0
	for _, i := range plan.Items {
		if i.Reason != outreach.ReasonDue || most > 0 && n == most {
			break
		}
		n++
		g.add(i.Account, outreach.StepName(i.Step), o.Ledger.Marks().Case(i.Account), string(o.brand(i.Brand).Notices.From))
	}
	if n > 0 {
		g.print(c.OutOrStdout())
		fmt.Fprintln(c.OutOrStdout())
	}
	fmt.Fprintf(c.OutOrStdout(), "%s would be sent. `mailreeve outreach preview ACCOUNT` shows one.\n", count(n, "notice"))
	return nil
}

// policyNow gives the policy that is in force when it is asked: the file may change while notices
// are sent for hours. A file that became wrong leaves the last good one, as in the running proxy.
func (o *outreachOf) policyNow(complain func(error)) func() *policy.Policy {
	stamp := func() (s string) {
		if info, err := os.Stat(o.Config.Policy); err == nil {
			s = fmt.Sprint(info.ModTime(), info.Size())
		}
		return s
	}
	now, last := o.Policy, stamp()
	return func() *policy.Policy {
		if o.Config.Policy == "" {
			return now
		}
		if s := stamp(); s != last {
			last = s
			if p, err := o.Config.Enforced(); err == nil {
				now = p
			} else {
				complain(fmt.Errorf("the policy has changed and is wrong, so the one before goes on: %w", err))
			}
		}
		return now
	}
}

func (o *outreachOf) send(c *cobra.Command, n *config.Notices, most int, asJSON, verbose bool) error {
	complain := func(err error) { fmt.Fprintln(c.ErrOrStderr(), "mailreeve: "+onOneLine(err.Error())) }
	s := &outreach.Sender{
		Ledger: o.Ledger, Schedule: outreach.NewSchedule(o.Config.Outreach), Policy: o.policyNow(complain), Notices: n, Brands: o.Config.Brands,
		Hello: string(o.Config.Hostname), Most: most, TLS: &tls.Config{MinVersion: tls.VersionTLS12, ServerName: string(n.ServerName)},
	}
	if s.TLS.ServerName == "" {
		s.TLS.ServerName = n.Server.Host
	}
	var err error
	if n.CA != "" {
		if s.TLS.RootCAs, err = authorities(n.CA); err != nil {
			return fmt.Errorf("reading the authorities of the submission server: %w", err)
		}
	}
	if n.User != "" {
		if s.Password, err = n.Password(); err != nil {
			return withHint(fmt.Errorf("reading the password for the submission server: %w", err), "outreach.notices.password_file wants a file of the program's user with mode 0600")
		}
	}
	s.Each = func(done outreach.Outcome) {
		if verbose || done.State != outreach.StateSent && done.State != outreach.StateSkipped {
			fmt.Fprintf(c.ErrOrStderr(), "%s to %s: %s: %s\n", outreach.StepName(done.Step), printable(done.Account), stateWords[done.State], onOneLine(done.Said))
		}
	}
	// The first signal ends it after the mail under way, the second at once.
	ctx, release := signal.NotifyContext(c.Context(), os.Interrupt, syscall.SIGTERM)
	defer release()
	context.AfterFunc(ctx, release)
	run, err := s.Run(ctx)
	var did []string
	for _, state := range slices.Sorted(maps.Keys(run.States)) {
		did = append(did, fmt.Sprintf("%d %s", run.States[state], stateWords[state]))
	}
	if len(did) > 0 {
		if auditErr := o.Ledger.Audit(context.WithoutCancel(ctx), "send", strings.Join(did, ", ")); err == nil {
			err = auditErr
		}
	}
	if asJSON {
		err = errors.Join(err, writeJSON(c.OutOrStdout(), run))
	} else {
		if len(did) == 0 {
			did = []string{"nothing was sent"}
		}
		end := ""
		if run.End != "" {
			end = "; " + run.End
		}
		fmt.Fprintln(c.OutOrStdout(), onOneLine(strings.Join(did, ", ")+end))
	}
	if doubts := run.Doubts + run.States[outreach.StateDoubt]; doubts > 0 {
		fmt.Fprintf(c.ErrOrStderr(), "mailreeve: %s in doubt\nhint: `mailreeve outreach doubts` lists them, and says how they are settled\n", count(doubts, "notice"))
	}
	switch {
	case err == nil:
		return nil
	case outreach.NoSTARTTLS(err):
		return withHint(err, "set tls: off in outreach.notices, or implicit; off only for a server on this machine, or without a user")
	case outreach.Refused(err):
		return withHint(err, "look at outreach.notices: server, tls, user and password_file; what is due stays due")
	}
	return withHint(err, "what is due stays due; try again when the server is well")
}

// stateWords are the states of notices for people.
var stateWords = map[outreach.NoticeState]string{
	outreach.StateSent: "sent", outreach.StateSkipped: "not due any more", outreach.StateFailed: "refused for good",
	outreach.StateClaimed: "put off", outreach.StateDoubt: "in doubt", outreach.StateHanding: "being handed over", outreach.StateBounced: "came back",
}

func newOutreachStop() *cobra.Command {
	var f outreachFlags
	var again string
	c := &cobra.Command{
		Use:   "stop REASON",
		Short: "Stop all sending of notices at once",
		Long: `Stop all sending of notices, on all nodes: before the next mail, and before the end of one
that is being handed over. It stays stopped until mailreeve outreach resume. A second stop
keeps the reason of the first; --reason gives another one.`,
		Example: `  mailreeve outreach stop 'the hotline is full' -c FILE
  mailreeve outreach stop --reason 'a wrong date in the letter' -c FILE`,
		Args: func(c *cobra.Command, args []string) error {
			if again != "" {
				args = append(args, again)
			}
			if len(args) == 1 && strings.TrimSpace(args[0]) != "" {
				return nil
			}
			return &hinted{err: fmt.Errorf("%s wants a reason, as one word of the shell", c.CommandPath()), hint: "`mailreeve outreach stop 'the hotline is full' -c FILE`", usage: true}
		},
		RunE: func(c *cobra.Command, args []string) error {
			o, err := f.open(c)
			if err != nil {
				return err
			}
			defer o.Ledger.Close()
			reason := printable(strings.Join(append(args, again), ""))
			was, err := o.Ledger.Stop(c.Context(), reason, again != "")
			if err != nil {
				return err
			}
			if was != nil {
				before := fmt.Sprintf("It was stopped already, by %s since %s: %s", printable(was.Who), was.Since.In(o.Zone).Format("2 Jan 2006 15:04"), onOneLine(was.Reason))
				then := fmt.Sprintf("That stays the reason, not: %s\n`mailreeve outreach stop --reason TEXT` gives another one.", reason)
				if again != "" {
					then = "The reason is now: " + reason
				}
				fmt.Fprintf(c.OutOrStdout(), "%s\n%s\n", before, then)
				return nil
			}
			fmt.Fprintln(c.OutOrStdout(), "Nothing is sent any more. `mailreeve outreach resume` ends that.")
			return nil
		},
	}
	f.add(c)
	c.Flags().StringVar(&again, "reason", "", "the `text` of the reason, also in place of that of a stop in force")
	return c
}

func newOutreachResume() *cobra.Command {
	var f outreachFlags
	c := &cobra.Command{
		Use: "resume", Short: "Let notices be sent again after a stop", Args: noArgs,
		Example: `  mailreeve outreach resume -c FILE`,
		RunE: func(c *cobra.Command, _ []string) error {
			o, err := f.open(c)
			if err != nil {
				return err
			}
			defer o.Ledger.Close()
			was, err := o.Ledger.Resume(c.Context())
			if err != nil {
				return err
			}
			said := "It was not stopped."
			if was != nil {
				said = fmt.Sprintf("Notices are sent again. %s had stopped it on %s: %s", printable(was.Who), was.Since.In(o.Zone).Format("2 Jan 2006 15:04"), onOneLine(was.Reason))
			}
			fmt.Fprintln(c.OutOrStdout(), said)
			return nil
		},
	}
	f.add(c)
	return c
}

func newOutreachCall() *cobra.Command {
	var f outreachFlags
	var undo bool
	c := &cobra.Command{
		Use:   "call ACCOUNT",
		Short: "Note that a customer is called, and gets no more notices",
		Long: `Note that a customer wants to be called, or objects: he gets no more notices in this campaign.
With --undo he gets them again; that also forgets that a notice to him came back.`,
		Example: `  mailreeve outreach call anna@example.org -c FILE
  mailreeve outreach call MR-7K2M-90QD -c FILE --undo`,
		Args: oneAccount,
		RunE: func(c *cobra.Command, args []string) error {
			o, err := f.open(c)
			if err != nil {
				return err
			}
			defer o.Ledger.Close()
			a, err := o.account(c, args[0])
			if err != nil {
				return err
			}
			if err := o.Ledger.SetCall(c.Context(), a.Name, !undo); err != nil {
				return err
			}
			if undo && a.Bounced != 0 {
				if err := o.Ledger.ClearBounce(c.Context(), a.Name); err != nil {
					return err
				}
			}
			fmt.Fprintf(c.OutOrStdout(), "%s gets %s.\n", printable(a.Name), map[bool]string{false: "no more notices", true: "notices again"}[undo])
			return nil
		},
	}
	f.add(c)
	c.Flags().BoolVar(&undo, "undo", false, "let the customer have notices again")
	return c
}

func newOutreachDoubts() *cobra.Command {
	var f outreachFlags
	var logFiles []string
	var sent, again string
	var asJSON bool
	c := &cobra.Command{
		Use:   "doubts",
		Short: "List the notices that may or may not have been sent, and settle them",
		Long: `List the notices of which nobody knows whether they were sent: the sender ended, or lost its
connection, between the last line of the mail and the server's answer. There is one mail or none;
none of them is sent again by itself.

The server knows. --log looks for them in Postfix's log, by their return paths: what has reached its
queue is settled as sent. What is not found in a log that reaches from before to after the sending was not
taken; say so by --again, with the account or the case number, and a later send sends it, with the
same Message-ID. --again also works for what the server refused for good.`,
		Example: `  mailreeve outreach doubts -c FILE
  mailreeve outreach doubts -c FILE --log '/var/log/mail.log*'
  mailreeve outreach doubts -c FILE --again anna@example.org`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if sent != "" && again != "" {
				return &hinted{err: errors.New("--sent and --again contradict each other"), hint: "leave one of them out", usage: true}
			}
			o, err := f.open(c)
			if err != nil {
				return err
			}
			defer o.Ledger.Close()
			return o.doubts(c, logFiles, sent, again, asJSON)
		},
	}
	f.add(c)
	c.Flags().StringArrayVar(&logFiles, "log", nil, "look for them in Postfix's log `files`, plain or gzip; may be repeated")
	c.Flags().StringVar(&sent, "sent", "", "those to this `account` were sent")
	c.Flags().StringVar(&again, "again", "", "those to this `account` were not sent, so send them")
	c.Flags().BoolVar(&asJSON, "json", false, "print those that are left as JSON")
	return c
}

func (o *outreachOf) doubts(c *cobra.Command, patterns []string, sent, again string, asJSON bool) error {
	ctx := c.Context()
	if _, err := o.Ledger.Recover(ctx); err != nil {
		return err
	}
	doubts, err := o.Ledger.Doubts(ctx)
	if err != nil {
		return err
	}
	settled := 0
	var reach []span
	inLog := grid{}
	if len(patterns) > 0 {
		var found map[string]string
		if found, reach, err = inPostfixLog(patterns, o.now()); err != nil {
			return err
		}
		inLog.add("Account", "Step", "Handed over", "In the log")
		for i := range doubts {
			n, said := &doubts[i], "not covered"
			queue := found[n.Token()]
			switch {
			case queue != "":
				said = "found as " + queue + ": it was sent"
			case slices.ContainsFunc(reach, func(s span) bool { return s.covers(n.Handed()) }):
				said = "not found, and the log covers its time"
			}
			inLog.add(n.Account, outreach.StepName(n.Step), n.Handed().In(o.Zone).Format("2006-01-02 15:04"), said)
			if queue != "" {
				if err := o.Ledger.SettleAsSent(ctx, &doubts[i], queue, "found in the mail log"); err != nil {
					return err
				}
				settled++
			}
		}
	}
	if heard := sent + again; heard != "" {
		a, err := o.account(c, heard)
		if err != nil {
			return err
		}
		those := doubts
		if again != "" {
			failed, err := o.Ledger.Unsent(ctx)
			if err != nil {
				return err
			}
			those = append(slices.Clone(doubts), failed...)
		}
		before := settled
		for i := range those {
			switch {
			case those[i].Account != a.Name:
				continue
			case sent != "":
				err = o.Ledger.SettleAsSent(ctx, &those[i], "", "by hand")
			default:
				err = o.Ledger.SettleAsUnsent(ctx, &those[i], "by hand")
			}
			if err != nil {
				return err
			}
			settled++
		}
		if settled == before {
			return withHint(fmt.Errorf("nothing to %s is in doubt", printable(a.Name)), "`mailreeve outreach doubts` lists what is")
		}
	}
	if settled > 0 {
		if doubts, err = o.Ledger.Doubts(ctx); err != nil {
			return err
		}
	}
	if asJSON {
		if doubts == nil {
			doubts = []outreach.Notice{}
		}
		return writeJSON(c.OutOrStdout(), doubts)
	}
	to := c.OutOrStdout()
	if len(patterns) > 0 {
		if len(reach) == 0 {
			fmt.Fprintln(to, "The log has no line with a time.")
		}
		for _, s := range reach {
			fmt.Fprintf(to, "The log reaches from %s to %s.\n", s.from.In(o.Zone).Format("2006-01-02 15:04:05"), s.to.In(o.Zone).Format("2006-01-02 15:04:05 MST"))
		}
		if len(inLog.rows) > 1 {
			fmt.Fprintln(to)
			inLog.print(to)
			fmt.Fprintln(to)
		}
	}
	if settled > 0 {
		fmt.Fprintf(to, "%s settled.\n", count(settled, "notice"))
	}
	if len(doubts) == 0 {
		fmt.Fprintln(to, "Nothing is in doubt.")
		return nil
	}
	g := grid{}
	g.add("Account", "Step", "When", "Message-ID")
	for i := range doubts {
		n := &doubts[i]
		g.add(n.Account, outreach.StepName(n.Step), n.Handed().In(o.Zone).Format("2006-01-02 15:04"), n.MessageID)
	}
	g.print(to)
	fmt.Fprint(to, `
How they are settled:
  --log '/var/log/mail.log*'   looks for them in Postfix's log; what it has taken counts as sent
  --again ACCOUNT              it was not sent: not found in a log that covers its time; it is sent again
  --sent ACCOUNT               it was sent, as you know from elsewhere
`)
	return nil
}

// span is how far a log reaches.
type span struct{ from, to time.Time }

const (
	mostSilence = time.Hour        // between two files of a log that are one
	mostDelay   = 10 * time.Minute // after which a server that was handed a mail has given up (RFC 5321 section 4.5.3.2.6)
)

// covers reports whether what was handed over then must stand in the log, if it was taken.
func (s span) covers(handed time.Time) bool {
	return !handed.Before(s.from) && !handed.Add(mostDelay).After(s.to)
}

// joined puts the spans of files together that follow one another.
func joined(spans []span) (all []span) {
	slices.SortFunc(spans, func(a, b span) int { return a.from.Compare(b.from) })
	for _, s := range spans {
		if n := len(all); n > 0 && s.from.Sub(all[n-1].to) <= mostSilence {
			if s.to.After(all[n-1].to) {
				all[n-1].to = s.to
			}
			continue
		}
		all = append(all, s)
	}
	return all
}

// logTime reads the time at the beginning of a line of a log: RFC 3339, or that of syslog without
// a year, which is the last year in which it is not in the future.
func logTime(line []byte, now time.Time) (time.Time, bool) {
	first, _, _ := strings.Cut(string(line[:min(len(line), 40)]), " ")
	if t, err := time.Parse(time.RFC3339, first); err == nil {
		return t, true
	}
	if len(line) < len(time.Stamp) {
		return time.Time{}, false
	}
	for year := now.Year() + 1; year > now.Year()-5; year-- { // a leap day may lie four years back
		t, err := time.ParseInLocation("2006 "+time.Stamp, fmt.Sprintf("%d %s", year, line[:len(time.Stamp)]), now.Location())
		if err == nil && !t.After(now.Add(24*time.Hour)) {
			return t, true
		}
	}
	return time.Time{}, false
}

// mostLogLine bounds a line of a mail log.
const mostLogLine = 64 << 10

// active is how Postfix's queue manager says that a message is in its queue, and from whom. It is the
// first that says so for certain: cleanup logs a Message-ID while the message still comes in, and
// so also of one that is never finished.
var active = regexp.MustCompile(`^[^\]]*/qmgr\[[0-9]+\]: ([0-9A-Za-z]{5,40}): from=<([^<> ]+)>, size=`)

// inPostfixLog looks for notices by their return paths, and gives their ids in the queue by token,
// and how far the log reaches.
func inPostfixLog(patterns []string, now time.Time) (found map[string]string, reach []span, err error) {
	found = map[string]string{}
	for _, pattern := range patterns {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			return nil, nil, withHint(fmt.Errorf("--log: there is no file %s", printable(pattern)), "name Postfix's logs, like '/var/log/mail.log*'")
		}
		for _, file := range files {
			var s span
			if err := eachLine(file, func(line []byte) {
				if t, ok := logTime(line, now); ok {
					if s.from.IsZero() || t.Before(s.from) {
						s.from = t
					}
					if t.After(s.to) {
						s.to = t
					}
				}
				if m := active.FindSubmatch(line); m != nil {
					if token, ok := outreach.ParseToken(string(m[2])); ok {
						found[token] = string(m[1])
					}
				}
			}); err != nil {
				return nil, nil, withHint(fmt.Errorf("--log: reading %s: %w", file, err), "run it as a user who may read the file: `ls -l %s` shows who that is", shellWord(file))
			}
			if !s.from.IsZero() {
				reach = append(reach, s)
			}
		}
	}
	return found, joined(reach), nil
}

// eachLine reads a file, also one of gzip. Lines that are too long for a log are left out.
func eachLine(path string, each func([]byte)) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	r := bufio.NewReaderSize(f, mostLogLine)
	if begin, _ := r.Peek(2); string(begin) == "\x1f\x8b" { // RFC 1952 section 2.3.1
		z, err := gzip.NewReader(r)
		if err != nil {
			return err
		}
		r = bufio.NewReaderSize(z, mostLogLine)
	}
	for {
		line, prefix, err := r.ReadLine()
		if err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		if !prefix {
			each(line)
		}
		for prefix && err == nil {
			_, prefix, err = r.ReadLine()
		}
	}
}

func newOutreachBounce() *cobra.Command {
	var f outreachFlags
	var to string
	c := &cobra.Command{
		Use:   "bounce",
		Short: "Note a message that came back to a notice's return path",
		Long: `Read a message from standard input that came to the return path of a notice. A report that
the mail cannot be delivered (RFC 3464, action failed, status 5.x.x) marks the account, which
then gets no more notices; mailreeve outreach call ACCOUNT --undo takes that back. Delays,
absence notes and whatever else comes are noted with the notice. Nothing is ever sent in answer.

Each notice has an address of its own: a code that nobody can guess stands behind a + in
brands.notices.envelope. In Postfix, for notices@bounces.example.org:

  main.cf:    recipient_delimiter = +
              transport_maps = hash:/etc/postfix/transport
              relay_domains = bounces.example.org
              mailreeve_destination_recipient_limit = 1
  transport:  bounces.example.org   mailreeve:
  master.cf:  mailreeve unix - n n - 1 pipe flags=Rq user=mailreeve null_sender=
                argv=/usr/local/bin/mailreeve outreach bounce
                     -c /etc/mailreeve/mailreeve.yaml --to=${recipient}

The exit code is 0 whatever the message was, and 75 (try again later) when it cannot be noted.`,
		Example: `  mailreeve outreach bounce -c FILE --to 'notices+7k2m...@bounces.example.org' <message`,
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			// Whatever is wrong here is not the message's fault; with another exit code Postfix would throw it away.
			if err := noteBounce(c, &f, to); err != nil {
				return later{err}
			}
			return nil
		},
	}
	f.add(c)
	c.Flags().StringVar(&to, "to", "", "`address` that the message came to; default: what its own fields say")
	return c
}

func noteBounce(c *cobra.Command, f *outreachFlags, to string) error {
	in := c.InOrStdin()
	m, err := outreach.ReadReturned(in, to)
	if err != nil {
		return err
	}
	io.Copy(io.Discard, in) // of a message that is cut off, so that nobody writes into a closed pipe
	o, err := f.open(c)
	if err != nil {
		return err
	}
	defer o.Ledger.Close()
	ctx, cancel := context.WithTimeout(c.Context(), time.Minute)
	defer cancel()
	came, err := o.Ledger.Return(ctx, m)
	if err != nil {
		return err
	}
	out := c.OutOrStdout()
	switch {
	case came.Notice == nil:
		fmt.Fprintln(out, "It belongs to no notice.")
	case came.Bounced:
		fmt.Fprintf(out, "%s gets no more notices: %s\n", printable(came.Notice.Account), onOneLine(came.Said))
	default:
		fmt.Fprintf(out, "Noted for %s: %s\n", printable(came.Notice.Account), onOneLine(came.Said))
	}
	return nil
}
