package main

// Who is affected, how fast it becomes less, and who breaks if it ended.

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"mailreeve/fixes"
	"mailreeve/outreach"
	"mailreeve/policy"
)

// output is how an answer is given.
type output struct {
	csv, json, all bool
	lang           string
}

func (f *output) add(c *cobra.Command, rows string) {
	c.Flags().BoolVar(&f.csv, "csv", false, "print "+rows+" as CSV for a spreadsheet, with names")
	c.Flags().BoolVar(&f.json, "json", false, "print a JSON object")
	c.Flags().BoolVar(&f.all, "all", false, "list accounts, too")
	c.Flags().StringVar(&f.lang, "lang", "", "`language` of CSV: de or en; default: that of the first brand")
}

// check looks at the flags.
func (f *output) check(one ...bool) error {
	n := 0
	for _, set := range append(one, f.csv, f.json) {
		if set {
			n++
		}
	}
	switch {
	case n > 1:
		return &hinted{err: errors.New("there are several forms of output"), hint: "leave all but one of them out", usage: true}
	case !slices.Contains([]string{"", "de", "en"}, f.lang):
		return &hinted{err: fmt.Errorf("--lang: there is no language %q", printable(f.lang)), hint: "write de or en", usage: true}
	}
	return nil
}

// language is that of a table.
func (f *output) language(o *outreachOf) string {
	return cmp.Or(f.lang, string(o.Config.Brands[0].Language))
}

// named reports whether names of accounts are printed, which the audit must know.
func (f *output) named() bool { return f.csv || f.all }

func newOutreachReport() *cobra.Command {
	var f outreachFlags
	var out output
	var days bool
	c := &cobra.Command{
		Use:   "report",
		Short: "Who is affected, by what, and how fast it becomes less",
		Long: `Count the accounts of the ledger by what is wrong with them under the policy of now. An
account is counted once, by the worst of its findings:

  open     seen within 14 days
  silent   not seen for 14 days, and nothing shows that it was mended: still at risk
  exempt   an exception leaves it a way in
  fixed    not seen for 14 days, and the same kind of program has logged in as it should since
  clean    never seen
  unknown  never seen, but of its last logins it is not known: imported logs know no server names

Affected are those open and silent. One in ten of them is expected to call, and an agent
bears some 600 of them. The burn-down shows each day as it was known then; its pace is how
many accounts became fixed a day, which shows 14 days late.

--csv prints a row for each account and finding (format report-1), and --burn-down the days of
each requirement up to its date (format burndown-1). Both open in a German Excel: UTF-8, a
semicolon, and no cell is a formula. Columns of a format stay as they are, and new ones are
added behind them; so do the fields of --json. What prints names of accounts is written
into the audit.`,
		Example: `  mailreeve outreach report -c FILE
  mailreeve outreach report -c FILE --csv >report.csv          for the hotline
  mailreeve outreach report -c FILE --burn-down >burndown.csv  for a chart
  mailreeve outreach report -c FILE --json | jq .any.open`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := out.check(days); err != nil {
				return err
			}
			if days && out.all {
				return &hinted{err: errors.New("--burn-down lists no accounts"), hint: "leave --all out, or write --csv", usage: true}
			}
			o, err := f.open(c)
			if err != nil {
				return err
			}
			defer o.Ledger.Close()
			return o.report(c.Context(), c.OutOrStdout(), &out, days)
		},
	}
	f.add(c)
	out.add(c, "each account and finding")
	c.Flags().BoolVar(&days, "burn-down", false, "print each requirement's days as CSV")
	return c
}

// accountFindings are the findings of an account for machines.
type accountFindings struct {
	Account  string        `json:"account"`
	Findings []findingJSON `json:"findings"`
}

// findingJSON is a finding for machines.
type findingJSON struct {
	Requirement string         `json:"requirement"`
	Finding     policy.Finding `json:"finding"`
	outreach.Kind
	State     outreach.State `json:"state"`
	First     outreach.Day   `json:"first_seen"`
	Last      outreach.Day   `json:"last_seen"`
	Days      int            `json:"days"`
	Sessions  int            `json:"sessions"`
	Do        policy.Action  `json:"do"`
	Refuses   time.Time      `json:"refused_from,omitzero"`
	Exception string         `json:"exception,omitempty"`
}

func forMachines(a *outreach.Account, findings []outreach.Finding) accountFindings {
	all := accountFindings{Account: a.Name}
	for i := range findings {
		f := &findings[i]
		j := findingJSON{Requirement: f.Rule.ID, Finding: f.Rule.Finding, Kind: f.Kind, State: f.State, First: f.First, Last: f.Last,
			Days: f.Days, Sessions: f.Sessions, Do: f.Do, Refuses: f.Refuses}
		if f.Exception != nil {
			j.Exception = f.Exception.ID
		}
		all.Findings = append(all.Findings, j)
	}
	return all
}

// report counts and prints.
func (o *outreachOf) report(ctx context.Context, to io.Writer, out *output, days bool) error {
	if out.named() {
		if err := o.Ledger.Audit(ctx, "report", "accounts with their findings"); err != nil {
			return err
		}
	}
	lang := out.language(o)
	var each func(*outreach.Account, []outreach.Finding) error
	var sheet *outreach.ReportSheet
	accounts := []accountFindings{}
	switch {
	case out.csv:
		sheet = outreach.NewReportSheet(to, lang, o.Zone)
		each = sheet.Add
	case out.all:
		each = func(a *outreach.Account, findings []outreach.Finding) error {
			accounts = append(accounts, forMachines(a, findings))
			return nil
		}
	}
	r, err := outreach.MakeReport(o.Ledger.Accounts(ctx, 0), o.Policy, o.now().Truncate(time.Second), o.Zone, each)
	switch {
	case err != nil:
		return err
	case out.csv:
		return sheet.Flush()
	case days:
		return r.BurnDownSheet(to, lang)
	case out.json && out.all:
		return writeJSON(to, struct {
			*outreach.Report
			Accounts []accountFindings `json:"accounts"`
		}{r, accounts})
	case out.json:
		return writeJSON(to, r)
	}
	printReport(to, r, o.Zone)
	if out.all {
		printAccounts(to, accounts)
	}
	return nil
}

// grid is a table for people: the columns whose heads begin with a > are numbers.
type grid struct{ rows [][]string }

func (g *grid) add(cells ...any) {
	row := make([]string, len(cells))
	for i, c := range cells {
		row[i] = printable(fmt.Sprint(c))
	}
	g.rows = append(g.rows, row)
}

// print writes the table.
func (g *grid) print(out io.Writer) {
	head := g.rows[0]
	numbers := make([]bool, len(head))
	width := make([]int, len(head))
	for i := range head {
		head[i], numbers[i] = strings.CutPrefix(head[i], ">")
		for _, row := range g.rows {
			width[i] = max(width[i], utf8.RuneCountInString(row[i]))
		}
	}
	for _, row := range g.rows {
		line := ""
		for i, cell := range row {
			space := strings.Repeat(" ", width[i]-utf8.RuneCountInString(cell))
			if numbers[i] {
				cell, space = space+cell, ""
			}
			line += cell + space + "  "
		}
		fmt.Fprintln(out, strings.TrimRight(line, " "))
	}
}

// share is a part in percent.
func share(n, of int) string {
	if of == 0 {
		return "-"
	}
	return strconv.FormatFloat(100*float64(n)/float64(of), 'f', 1, 64) + "%"
}

// shortDay writes a day for people who plan.
func shortDay(d outreach.Day) string { return d.Start(time.UTC).Format("2 Jan 2006") }

func windowText(w outreach.Window) string {
	return fmt.Sprintf("%s, %s to %s", count(w.Days, "day"), shortDay(w.First), shortDay(w.Last))
}

func printReport(out io.Writer, r *outreach.Report, zone *time.Location) {
	fmt.Fprintf(out, "Report of %s, by policy %s\n", r.At.In(zone).Format(minuteForm), printable(r.Policy))
	if r.Seen == 0 {
		fmt.Fprintln(out, "The ledger has seen no account. `mailreeve outreach import` reads logs into it.")
		return
	}
	fmt.Fprintf(out, "The ledger saw %s in %s.\n", count(r.Seen, "account"), windowText(r.Window))
	affected := r.Any.Affected()
	fmt.Fprintf(out, "Affected (open or silent): %s, %s. Expect %s (one in ten calls) and plan for %s (one for 600).\n",
		count(affected, "account"), share(affected, r.Seen), count(r.Calls, "call"), count(r.Agents, "agent"))

	fmt.Fprintln(out)
	g := &grid{}
	g.add("REQUIREMENT", "NOW", "NEXT REFUSAL", ">OPEN", ">SILENT", ">EXEMPT", ">FIXED", ">CLEAN", ">UNKNOWN", ">CALLS")
	for i := range r.Requirements {
		q := &r.Requirements[i]
		g.add(q.ID, q.Do, nextText(q, zone), q.Open, q.Silent, q.Exempt, q.Fixed, q.Clean, q.Unknown, q.Calls)
	}
	g.print(out)
	for i := range r.Requirements {
		if q := &r.Requirements[i]; q.Through > 0 {
			fmt.Fprintf(out, "%s: %s affected only through services that collect mail\n", q.ID, count(q.Through, "account"))
		}
	}
	for _, of := range []struct {
		title string
		rows  []outreach.ReportRow
		name  func(string) string
	}{{"BRAND", r.Brands, nil}, {"PROTOCOL", r.Protocols, nil}, {"PROGRAM (a guess)", r.Programs, className}} {
		fmt.Fprintln(out)
		g := &grid{}
		g.add(of.title, ">SEEN", ">OPEN", ">SILENT", ">EXEMPT", ">FIXED")
		for _, row := range of.rows {
			g.add(rowName(row.Name, of.name), row.Seen, row.Open, row.Silent, row.Exempt, row.Fixed)
		}
		g.print(out)
	}
	for i := range r.Requirements {
		printBurnDown(out, &r.Requirements[i], zone)
	}
}

func className(class string) string { return fixes.Class(class).Name("en") }

// rowName is a value for people.
func rowName(name string, in func(string) string) string {
	if in != nil {
		name = in(name)
	}
	return cmp.Or(name, "(unknown)")
}

// nextText says what refuses next.
func nextText(q *outreach.RequirementReport, zone *time.Location) string {
	switch {
	case q.Next != nil:
		text := fmt.Sprintf("%v on %s, %s", q.Next.Do, q.Next.At.In(zone).Format(time.DateOnly), count(q.Next.Days, "day"))
		if q.Next.Share != "" {
			text += " (" + q.Next.Share + ")"
		}
		return text
	case q.Do.Refuses() && q.Since.IsZero():
		return "since ever"
	case q.Do.Refuses():
		return "since " + q.Since.In(zone).Format(time.DateOnly)
	}
	return "none planned"
}

// The burn-down of a terminal: weeks, and a bar for those affected.
const (
	mostWeeks = 17 // from the first notice to the day, by the usual steps
	barWidth  = 40
)

func printBurnDown(out io.Writer, q *outreach.RequirementReport, zone *time.Location) {
	weeks := q.Weeks(mostWeeks)
	most := 0
	for _, d := range weeks {
		most = max(most, d.Affected())
	}
	if most == 0 {
		return
	}
	fmt.Fprintf(out, "\nBURN-DOWN of %s: %s affected; next refusal: %s\n", q.ID, count(q.Affected(), "account"), nextText(q, zone))
	bar := func(n int) int { return (n*barWidth + most - 1) / most }
	g := &grid{}
	g.add("DAY", ">OPEN", ">SILENT", ">EXEMPT", ">FIXED", "OPEN # SILENT .")
	for _, d := range weeks {
		open, all := bar(d.Open), bar(d.Affected())
		g.add(d.Day, d.Open, d.Silent, d.Exempt, d.Fixed, strings.Repeat("#", open)+strings.Repeat(".", all-open))
	}
	g.print(out)
	if text := paceText(q); text != "" {
		fmt.Fprintln(out, text)
	}
}

func paceText(q *outreach.RequirementReport) string {
	switch {
	case q.Pace == nil:
		return "The ledger is too young to tell a pace."
	case q.Next == nil:
		return fmt.Sprintf("Mended in the last %s: %s a day.", count(q.Pace.Over, "day"), rate(q.Pace.Mended))
	}
	return fmt.Sprintf("To be mended until the date: %s a day. Mended in the last %s: %s a day. At this pace %s left then.",
		rate(q.Pace.Needed), count(q.Pace.Over, "day"), rate(q.Pace.Mended), isOrAre(q.Pace.Left, "account"))
}

// rate is a number a day.
func rate(n float64) string {
	if n > -1 && n < 1 && n != 0 {
		return strconv.FormatFloat(n, 'f', 2, 64)
	}
	return strconv.FormatFloat(n, 'f', 1, 64)
}

func isOrAre(n int, thing string) string {
	if n == 1 {
		return count(n, thing) + " is"
	}
	return count(n, thing) + " are"
}

func printAccounts(out io.Writer, accounts []accountFindings) {
	fmt.Fprintln(out)
	g := &grid{}
	g.add("ACCOUNT", "REQUIREMENT", "STATE", "ON", "FIRST", "LAST", ">DAYS", ">SESSIONS")
	for _, a := range accounts {
		for _, f := range a.Findings {
			g.add(a.Account, f.Requirement, f.State, f.Kind.In("en"), f.First, f.Last, f.Days, f.Sessions)
		}
	}
	g.print(out)
}

func newOutreachImpact() *cobra.Command {
	var f outreachFlags
	var out output
	var as, at string
	var q outreach.Question
	var mailboxes int
	c := &cobra.Command{
		Use:   "impact [--as ACTION | --at TIME]",
		Short: "Who breaks, if it ended today, or on a day",
		Long: `Hold the logins of the last days against the policy, and count the accounts that would
be refused. A device is a kind of program: what an account uses of one class with one protocol.
An account is counted once:

  all      each kind of program seen is refused, in every way in which it logged in
  some     some kinds are, or some of the ways in which one logged in
  silent   something is refused, and it was not seen for 14 days with any program
  exempt   nothing is refused, but only by an exception

What was mended breaks no more: the same kind of program has logged in as it should for 14
days, and not otherwise. Trial outages and ratchets are left aside. An exception for a network
counts where it names the account or its domain, too: the ledger keeps no addresses.

With --as each requirement does that, to everybody, now. With --at the policy stands as it is
planned for that time, with its shares and exceptions. Without both, it stands as it does now.
Nothing is known of who was not seen: --accounts tells the number of all mailboxes, so that
the share of those seen is printed.

--csv prints a row for each account that is not unharmed (format impact-1). Columns and fields
of a format stay as they are, and new ones are added. What prints names of accounts is
written into the audit.`,
		Example: `  mailreeve outreach impact -c FILE --as deny                      if it all ended today
  mailreeve outreach impact -c FILE --at 2027-01-15                on the day
  mailreeve outreach impact -c FILE --as deny --only encrypted --accounts 250000
  mailreeve outreach impact -c FILE --as deny --csv >impact.csv    with names`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := out.check(); err != nil {
				return err
			}
			if as != "" {
				if err := q.As.UnmarshalText([]byte(as)); err != nil || !q.As.Refuses() {
					return &hinted{err: fmt.Errorf("--as: %q refuses nobody", printable(as)), hint: "write tempfail, deny or refuse", usage: true}
				}
			}
			if q.Days < 1 || q.Days > 3660 {
				return &hinted{err: fmt.Errorf("--days: %d is no number of days", q.Days), hint: "write one from 1 to 3660, like 30", usage: true}
			}
			if mailboxes < 0 {
				return &hinted{err: fmt.Errorf("--accounts: %d is no number of mailboxes", mailboxes), hint: "write how many there are in all", usage: true}
			}
			o, err := f.open(c)
			if err != nil {
				return err
			}
			defer o.Ledger.Close()
			if q.At = o.now().Truncate(time.Second); at != "" {
				if q.At, err = moment("at", at, o.Zone); err != nil {
					return err
				}
			}
			for _, id := range q.Only {
				if err := knownRequirement(o.Policy, id); err != nil {
					return err
				}
			}
			return o.impact(c.Context(), c.OutOrStdout(), &out, q, mailboxes)
		},
	}
	f.add(c)
	out.add(c, "each account")
	c.Flags().StringVar(&as, "as", "", "what every requirement does: `action` deny, tempfail or refuse")
	c.Flags().StringVar(&at, "at", "", "decide as the policy stands at this `time`")
	c.Flags().StringSliceVar(&q.Only, "only", nil, "`requirements` that are looked at; default: all")
	c.Flags().IntVar(&q.Days, "days", 30, "`days` of the ledger that are looked at, today among them")
	c.Flags().IntVar(&mailboxes, "accounts", 0, "`number` of mailboxes that there are in all")
	return c
}

func knownRequirement(p *policy.Policy, id string) error {
	var ids []string
	for _, r := range p.Requirements() {
		ids = append(ids, r.ID)
	}
	if slices.Contains(ids, id) {
		return nil
	}
	return &hinted{err: fmt.Errorf("--only: there is no requirement %q", printable(id)), hint: policy.Suggest(id, ids), usage: true}
}

// impact counts and prints.
func (o *outreachOf) impact(ctx context.Context, to io.Writer, out *output, q outreach.Question, mailboxes int) error {
	if out.named() {
		if err := o.Ledger.Audit(ctx, "impact", "accounts that would be refused"); err != nil {
			return err
		}
	}
	var own []string
	for i := range o.Config.Brands {
		if d := o.Config.Brands[i].DefaultDomain; d != "" {
			own = append(own, string(d))
		}
	}
	var each func(*outreach.AccountImpact) error
	var sheet *outreach.ImpactSheet
	accounts := []*outreach.AccountImpact{}
	switch {
	case out.csv:
		sheet = outreach.NewImpactSheet(to, out.language(o))
		each = sheet.Add
	case out.all:
		each = func(i *outreach.AccountImpact) error {
			accounts = append(accounts, i)
			return nil
		}
	}
	now := o.now().Truncate(time.Second)
	from := outreach.DayOf(now, o.Zone) - outreach.Day(q.Days) + 1
	i, err := outreach.MakeImpact(o.Ledger.Accounts(ctx, from), o.Policy, q, now, o.Zone, own, each)
	if err != nil {
		return err
	}
	i.Mailboxes = mailboxes
	switch {
	case out.csv:
		return sheet.Flush()
	case out.json && out.all:
		return writeJSON(to, struct {
			*outreach.Impact
			Accounts []*outreach.AccountImpact `json:"accounts"`
		}{i, accounts})
	case out.json:
		return writeJSON(to, i)
	}
	printImpact(to, i, o.Zone)
	if out.all {
		printBroken(to, accounts)
	}
	return nil
}

func printImpact(out io.Writer, i *outreach.Impact, zone *time.Location) {
	what := "as it stands at " + i.At.In(zone).Format(minuteForm)
	if i.As != nil {
		what = fmt.Sprintf("with every requirement at %v", *i.As)
	}
	if len(i.Only) > 0 {
		what += ", looking at " + strings.Join(i.Only, ", ") + " alone"
	}
	fmt.Fprintf(out, "Impact of policy %s, %s\n", printable(i.Policy), printable(what))
	fmt.Fprintf(out, "The ledger saw %s in %s.\n", count(i.Seen, "account"), windowText(i.Window))
	if i.Mailboxes > 0 {
		fmt.Fprintf(out, "That is %s of the %d mailboxes; of the others nothing is known.\n", share(i.Seen, i.Mailboxes), i.Mailboxes)
	}
	if i.Seen == 0 {
		return
	}
	fmt.Fprintln(out)
	g := &grid{}
	g.add("LOSES", ">ACCOUNTS", ">SHARE")
	for _, row := range []struct {
		name string
		n    int
	}{{"all devices", i.All}, {"some devices", i.Some}, {"something, but is silent", i.Silent}, {"nothing, by an exception", i.Exempt}, {"nothing", i.Unharmed}} {
		g.add(row.name, row.n, share(row.n, i.Seen))
	}
	g.print(out)
	for _, of := range []struct {
		title string
		rows  []outreach.ImpactRow
		name  func(string) string
	}{{"REQUIREMENT", i.Requirements, nil}, {"BRAND", i.Brands, nil}, {"PROTOCOL", i.Protocols, nil}, {"PROGRAM (a guess)", i.Programs, className}} {
		if len(of.rows) == 0 {
			continue
		}
		fmt.Fprintln(out)
		g := &grid{}
		g.add(of.title, ">ALL", ">SOME", ">SILENT")
		for _, row := range of.rows {
			g.add(rowName(row.Name, of.name), row.All, row.Some, row.Silent)
		}
		g.print(out)
	}
	if len(i.Domains) > 0 {
		fmt.Fprintln(out)
		g := &grid{}
		g.add("DOMAIN", ">SEEN", ">BROKEN")
		for _, d := range i.Domains {
			g.add(d.Domain, d.Seen, d.Broken)
		}
		g.print(out)
	}
}

func printBroken(out io.Writer, accounts []*outreach.AccountImpact) {
	fmt.Fprintln(out)
	g := &grid{}
	g.add("ACCOUNT", "LOSES", ">DEVICES", "BY", "ON", "LAST")
	for _, a := range accounts {
		var on []string
		for _, k := range a.Broken {
			on = append(on, k.Kind.In("en"))
		}
		g.add(a.Account, a.Loss, fmt.Sprintf("%d of %d", len(a.Broken), a.Devices), strings.Join(a.Requirements, ", "), strings.Join(on, ", "), a.Last)
	}
	g.print(out)
}
