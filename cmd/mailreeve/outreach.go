package main

// The commands of outreach: what they all open.

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"mailreeve/config"
	"mailreeve/outreach"
	"mailreeve/policy"
)

func newOutreach() *cobra.Command {
	c := &cobra.Command{
		Use:   "outreach",
		Short: "Who must change what, and mails that tell them",
		Long: `Outreach keeps, by account and day, how each customer's programs log in (the ledger),
says what is wrong with which account by the policy of now, and tells the right customers
by mail what to change, once.

The section outreach of the configuration says where the ledger is, and what for. A census may
begin before the proxy runs: import reads the logs of Dovecot and Postfix. While the proxy
runs, it fills the ledger by itself.

The ledger belongs to the program's user; so begin commands with sudo -u mailreeve.`,
		Example: `  mailreeve outreach import -c FILE --dovecot '/var/log/mail.log*'   what the logs know
  mailreeve outreach report -c FILE                                  who is affected, and by what
  mailreeve outreach impact -c FILE --as deny                        who breaks, if it ended today
  mailreeve outreach show anna@example.org -c FILE                   a customer calls
  mailreeve outreach plan -c FILE                                    who is told today
  mailreeve outreach send -c FILE                                    tell them`,
	}
	c.AddCommand(outreachCommands()...)
	group(c)
	return c
}

// outreachFlags are those that every command of outreach has.
type outreachFlags struct{ path, at string }

func (f *outreachFlags) add(c *cobra.Command) {
	configFlag(c, &f.path)
	c.Flags().StringVar(&f.at, "now", "", "let the clock begin at this `time`: a rehearsal")
}

// outreachOf is what commands of outreach work with.
type outreachOf struct {
	Config *config.Config // Outreach is there
	Policy *policy.Policy // compiled; the built-in one without a file
	Ledger *outreach.Ledger
	Zone   *time.Location
	shift  time.Duration
}

// now is the clock, of a rehearsal where --now was given.
func (o *outreachOf) now() time.Time { return time.Now().Add(o.shift).In(o.Zone) }

// brand is the one of an account, by the brand of its sessions; the first where there is
// none of that name any more.
func (o *outreachOf) brand(name string) *config.Brand {
	if b := o.Config.Brand(config.Name(name)); b != nil {
		return b
	}
	return &o.Config.Brands[0]
}

// open reads the configuration and the policy, and opens the ledger. The caller closes the ledger.
func (f *outreachFlags) open(c *cobra.Command) (*outreachOf, error) {
	o, err := f.read()
	if err != nil {
		return nil, err
	}
	if o.Ledger, err = openLedger(c.Context(), o.Config, whoami(), o.now); err != nil {
		return nil, err
	}
	return o, nil
}

// openLedger opens the ledger of a configuration that has outreach.
func openLedger(ctx context.Context, c *config.Config, who string, now func() time.Time) (*outreach.Ledger, error) {
	o := c.Outreach
	if c.State != "" && !o.PostgreSQL() && filepath.Dir(o.Ledger) == c.State {
		if err := os.MkdirAll(c.State, 0o700); err != nil {
			return nil, fmt.Errorf("making the directory of the ledger: %w", err)
		}
	}
	zone := o.Timezone.Location()
	l, err := outreach.OpenLedger(ctx, o.Ledger, outreach.Options{
		Zone: zone, Campaign: string(o.Campaign), Purpose: string(o.Purpose), End: outreach.DayOf(o.End.In(zone), zone), Now: now, Who: who,
	})
	switch {
	case errors.Is(err, outreach.ErrOther):
		return nil, withHint(err, "set outreach.campaign to the one that it belongs to, or outreach.ledger to a new place")
	case errors.Is(err, fs.ErrPermission):
		return nil, withHint(err, "the ledger belongs to the program's user: begin with `sudo -u mailreeve`")
	}
	return l, err
}

// read is open without the ledger. Certificates and listeners are not looked at: whoever
// works with the ledger need not be able to read keys.
func (f *outreachFlags) read() (*outreachOf, error) {
	c, err := config.Load(f.path)
	if err != nil {
		return nil, fileHint(err, f.path)
	}
	if c.Outreach == nil {
		return nil, withHint(fmt.Errorf("%s has no outreach", f.path),
			"add outreach: { campaign: NAME, purpose: A SENTENCE, end: DATE }; `mailreeve config example` explains it")
	}
	if err := c.CheckOutreach().Err(); err != nil {
		return nil, err
	}
	o := &outreachOf{Config: c, Zone: c.Outreach.Timezone.Location()}
	if o.Policy, err = c.Enforced(); err != nil {
		return nil, err
	}
	if f.at != "" {
		now, err := moment("now", f.at, o.Zone)
		if err != nil {
			return nil, err
		}
		o.shift = time.Until(now)
	}
	return o, nil
}
