package main

// What is asked of the event log: why a session met what it met, and whom a policy
// would refuse.

import (
	"cmp"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"mailreeve/config"
	"mailreeve/events"
	"mailreeve/policy"
)

// factsOf are what was known of a session, as its event has it. An event keeps
// the account only where the backend confirmed it.
func factsOf(e *events.Session) *policy.Facts {
	f := &policy.Facts{IP: e.IP.Unmap()}
	set := func(fact policy.Fact, value string) {
		if value != "" {
			f.Set(fact, value)
		}
	}
	set(policy.Brand, e.Brand)
	set(policy.Protocol, e.Protocol)
	if e.Port > 0 {
		set(policy.Port, strconv.Itoa(e.Port))
	}
	set(policy.Listener, e.Listener)
	set(policy.Entry, e.Entry)
	set(policy.TLS, e.TLS)
	set(policy.CipherClass, e.CipherClass)
	set(policy.Host, e.Host)
	if set(policy.SNI, e.SNI); e.SNI == "" && e.Host == policy.Absent {
		f.Set(policy.SNI, policy.Absent)
	}
	set(policy.Mech, e.Mechanism)
	set(policy.UserForm, e.UserForm)
	set(policy.Account, e.Account)
	set(policy.Domain, e.Domain)
	set(policy.Client, e.Client)
	set(policy.Ledger, e.Ledger)
	if e.Verified {
		f.Set(policy.Verified, policy.Yes)
	}
	return f
}

// heldThen is the hold that an event names.
func heldThen(e *events.Session) *policy.Hold {
	if e.Hold == nil {
		return nil
	}
	h := &policy.Hold{Reason: e.Hold.Reason, Owner: e.Hold.Owner, Since: e.Hold.Since, Until: e.Hold.Until}
	if h.Cap.UnmarshalText([]byte(e.Hold.Cap)) != nil {
		return nil
	}
	return h
}

// eventsPath is where the events of a configuration are, with the dated files of
// the days before.
func eventsPath(c *config.Config) string { return filepath.Dir(c.Events.File) }

// eventsHint says what to do about events that cannot be read.
func eventsHint(err error) error {
	return withHint(err, "--events wants the directory of events.file, or one file of it, and a user who may read it")
}

// sessionID brings what was heard on the phone into the form of an id (Crockford's
// base 32 reads O as 0, and I and L as 1).
func sessionID(heard string) string {
	return strings.NewReplacer("-", "", " ", "", "O", "0", "I", "1", "L", "1").Replace(strings.ToUpper(heard))
}

// findSession looks for the event of a session.
func findSession(path, heard string) (*events.Session, error) {
	id := sessionID(heard)
	var found *events.Session
	r := &events.Reader{Only: strconv.Quote(id)}
	if err := r.FromPath(path, func(e *events.Session) bool {
		if e.ID == id {
			found = e
		}
		return found == nil
	}); err != nil {
		return nil, eventsHint(err)
	}
	if found == nil {
		return nil, withHint(fmt.Errorf("no session %s is in %s", printable(id), path),
			"a session is there once it has ended, and as long as events.keep says; ids have 12 digits")
	}
	return found, nil
}

// explainedSession is an explanation with the event that it explains, for machines.
type explainedSession struct {
	*policy.Explanation
	Session *events.Session `json:"session"`
	Note    string          `json:"note,omitempty"`
}

// session explains a session from the event log.
func (e *explainer) session(out io.Writer, id string) error {
	p, path, zone, err := e.sources()
	if err != nil {
		return err
	}
	s, err := findSession(path, id)
	if err != nil {
		return err
	}
	at := s.Decided
	if at.IsZero() {
		at = s.Time
	}
	if s.Policy == policy.Enforced().String() && e.policy == "" {
		p = policy.Enforced()
	}
	x := p.ExplainUnder(heldThen(s), factsOf(s), at.In(zone))
	note := ""
	switch {
	case s.Policy != p.String():
		note = fmt.Sprintf("The policy in force then was %s, not this one", s.Policy)
	case s.Action != x.Action.String():
		note = "The event does not hold all that was known then: it keeps an account only where the backend confirmed the login"
	}
	if e.json {
		return writeJSON(out, explainedSession{x, s, note})
	}
	for _, line := range append(sessionLines(s, zone), "") {
		fmt.Fprintln(out, onOneLine(line))
	}
	if note == "" { // the session is over: nothing more became known
		x.Mildest, x.Severest = x.Action, x.Action
	} else {
		fmt.Fprintf(out, "%s\n\n", onOneLine(note))
	}
	return e.print(out, x)
}

// sources are the policy, the events and the time zone to explain by.
func (e *explainer) sources() (p *policy.Policy, path string, in *time.Location, err error) {
	p, path, in = policy.Enforced(), e.events, time.UTC
	if e.config != "" || e.events == "" {
		c, err := config.Load(cmp.Or(e.config, defaultConfig))
		if err != nil {
			return nil, "", nil, fileHint(err, cmp.Or(e.config, defaultConfig))
		}
		file, err := c.LoadPolicy()
		if err != nil {
			return nil, "", nil, err
		}
		if file != nil {
			p, in = file.Compiled, zone(file)
		}
		path = cmp.Or(path, eventsPath(c))
	}
	if e.policy != "" {
		file, err := loadPolicy(e.policy)
		if err != nil {
			return nil, "", nil, err
		}
		p, in = file.Compiled, zone(file)
	}
	return p, path, in, nil
}

// sessionLines are a session in words.
func sessionLines(s *events.Session, zone *time.Location) []string {
	lines := []string{fmt.Sprintf("Session %s, %s: %s on port %d from %v", s.ID, s.Time.In(zone).Format("Mon 2 Jan 2006 15:04:05 MST"), s.Protocol, s.Port, s.IP)}
	who := cmp.Or(s.Account, "nobody that the backend confirmed")
	if s.Client != "" {
		who += ", with " + s.Client
	}
	lines = append(lines, "Account: "+who)
	did := "Policy did: " + s.Action
	if len(s.By) > 0 {
		did += ", by " + strings.Join(s.By, ", ")
	}
	if s.Exception != "" {
		did += "; milder by exception " + s.Exception
	}
	if s.Hold != nil {
		did += "; under a hold at " + s.Hold.Cap
	}
	return append(lines, did, "Ended: "+s.Sentence)
}

func newPolicyReplay() *cobra.Command {
	var path, file, before, at string
	var all, asJSON bool
	c := &cobra.Command{
		Use:   "replay --events DIR --policy FILE",
		Short: "Try a policy on the sessions of the last days: who would be refused",
		Long: `Decide once more on the sessions of the event log, by a policy file and at a time,
and tell the accounts that would be refused and were not, and those that would be
free again: by brand, protocol, program and requirement, and on how many of their
devices. A device is a program that an account uses with a protocol; its last
session counts, since it may have been put right meanwhile.

Only logins that the backend confirmed are compared. So begin with a policy that
observes; what is refused in clear leaves no account to compare.`,
		Example: `  mailreeve policy replay --events /var/log/mailreeve --policy policy.yaml --at 2027-01-15
  mailreeve policy replay --events /var/log/mailreeve --policy new.yaml --before old.yaml --all`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			p := policy.Enforced()
			var loaded *config.Policy
			var err error
			if file != "" {
				if loaded, err = loadPolicy(file); err != nil {
					return err
				}
				p = loaded.Compiled
			}
			now, err := moment("at", at, zone(loaded))
			if err != nil {
				return err
			}
			was := policy.Side{}
			if before != "" {
				old, err := loadPolicy(before)
				if err != nil {
					return err
				}
				was.Policy = old.Compiled
			}
			if path == "" {
				return &hinted{err: fmt.Errorf("--events is missing"), hint: "`mailreeve policy replay --events /var/log/mailreeve --policy policy.yaml`", usage: true}
			}
			r := &replayed{Policy: p.String(), At: now}
			if err := r.replay(path, was, policy.Side{Policy: p, At: now}); err != nil {
				return err
			}
			if asJSON {
				return writeJSON(c.OutOrStdout(), r)
			}
			r.print(c.OutOrStdout(), all)
			return nil
		},
	}
	c.Flags().StringVar(&path, "events", "", "`directory` of the event log, or one file of it")
	c.Flags().StringVar(&file, "policy", "", "policy `file`; default: the built-in policy")
	c.Flags().StringVar(&before, "before", "", "compare with this policy `file` at the time of each session, and not with what became of it")
	c.Flags().StringVar(&at, "at", "", "decide at this `time` instead of now")
	c.Flags().BoolVar(&all, "all", false, "list all accounts, and not the first alone")
	c.Flags().BoolVar(&asJSON, "json", false, "print a JSON object")
	return c
}

// replayed is a replay with what it was made of.
type replayed struct {
	Policy string    `json:"policy"`
	At     time.Time `json:"at"`
	Bad    int       `json:"bad_lines"` // of the log
	*policy.Difference
}

// replay reads the log and decides.
func (r *replayed) replay(path string, before, after policy.Side) error {
	var failed error
	reader := &events.Reader{}
	r.Difference = policy.Replay(func(yield func(policy.Login) bool) {
		failed = reader.FromPath(path, func(e *events.Session) bool {
			at := e.Decided
			if at.IsZero() {
				at = e.Time
			}
			l := policy.Login{Time: at, Facts: *factsOf(e), By: e.By}
			if l.Was.UnmarshalText([]byte(e.Action)) != nil {
				return true
			}
			return yield(l)
		})
	}, before, after)
	r.Bad = reader.Bad
	if failed != nil {
		return eventsHint(failed)
	}
	return nil
}

func (r *replayed) print(out io.Writer, all bool) {
	fmt.Fprintf(out, "Policy %s at %s\n%v\n", r.Policy, r.At.Format(minuteForm), r.Difference)
	if r.Skipped > 0 {
		fmt.Fprintf(out, "%s left out: nobody was confirmed there\n", count(r.Skipped, "session"))
	}
	if r.Bad > 0 {
		fmt.Fprintf(out, "%s of the log passed over: no events\n", count(r.Bad, "line"))
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	requirements := map[string]*policy.Count{}
	note := func(changes []policy.Change, add func(*policy.Count)) {
		for _, c := range changes {
			for _, id := range c.By {
				if requirements[id] == nil {
					requirements[id] = &policy.Count{Name: id}
				}
				add(requirements[id])
			}
		}
	}
	note(r.Refused, func(c *policy.Count) { c.Refused++ })
	note(r.Freed, func(c *policy.Count) { c.Freed++ })
	var by []policy.Count
	for _, c := range requirements {
		by = append(by, *c)
	}
	slices.SortFunc(by, func(a, b policy.Count) int {
		return cmp.Or(cmp.Compare(b.Refused, a.Refused), cmp.Compare(b.Freed, a.Freed), cmp.Compare(a.Name, b.Name))
	})
	const most = 20
	for _, table := range []struct {
		title string
		rows  []policy.Count
	}{{"REQUIREMENT", by}, {"BRAND", r.Brands}, {"PROTOCOL", r.Protocols}, {"PROGRAM", r.Clients}} {
		if len(table.rows) == 0 {
			continue
		}
		fmt.Fprintf(w, "\n%s\tREFUSED\tFREE\n", table.title)
		for i, row := range table.rows {
			if i == most && !all {
				fmt.Fprintf(w, "and %d more\t\t\n", len(table.rows)-most)
				break
			}
			fmt.Fprintf(w, "%s\t%d\t%d\n", printable(cmp.Or(row.Name, "(unknown)")), row.Refused, row.Freed)
		}
	}
	for _, list := range []struct {
		title   string
		changes []policy.Change
	}{{"NEWLY REFUSED", r.Refused}, {"NEWLY FREE", r.Freed}} {
		if len(list.changes) == 0 {
			continue
		}
		fmt.Fprintf(w, "\n%s\tDEVICES\tBY\tON\n", list.title)
		for i, c := range list.changes {
			if i == most && !all {
				fmt.Fprintf(w, "and %d more: --all lists them\t\t\t\n", len(list.changes)-most)
				break
			}
			var on []string
			for _, d := range c.On {
				on = append(on, strings.TrimSpace(d.Protocol+" "+d.Client))
			}
			fmt.Fprintf(w, "%s\t%d of %d\t%s\t%s\n", printable(c.Account), len(c.On), c.Devices, strings.Join(c.By, ", "), printable(strings.Join(on, ", ")))
		}
	}
	w.Flush()
}
