package main

// Notices as they would be sent: looked at, and held against what a notice must not have.

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/emersion/go-message/mail"
	"github.com/spf13/cobra"

	"mailreeve/config"
	"mailreeve/outreach"
)

func newOutreachPreview() *cobra.Command {
	var f outreachFlags
	var sample, raw bool
	var page, lang string
	c := &cobra.Command{
		Use:   "preview ACCOUNT | --sample",
		Short: "Print the notice that an account would get",
		Long: `Print the notice that an account would get now, whether or not it is due: all that is
wrong with its programs is in one mail. Nothing is sent. With --sample the account is
made up, and there need be no ledger yet.

To see the notice of another day, give it by --now.`,
		Example: `  mailreeve outreach preview anna@example.org -c FILE
  mailreeve outreach preview anna@example.org -c FILE --now 2027-09-20 --html notice.html
  mailreeve outreach preview --sample --lang en -c FILE`,
		Args: func(c *cobra.Command, args []string) error {
			if sample && len(args) == 0 || !sample && len(args) == 1 {
				return nil
			}
			return &hinted{err: fmt.Errorf("%s wants one account, or --sample", c.CommandPath()),
				hint: fmt.Sprintf("`%s anna@example.org -c FILE`", c.CommandPath()), usage: true}
		},
		RunE: func(c *cobra.Command, args []string) error {
			if err := knownLanguage(lang); err != nil {
				return err
			}
			var n outreach.NoticeInput
			var err error
			if sample {
				n, err = sampleNotice(&f, lang)
			} else {
				n, err = previewed(c, &f, args[0], lang)
			}
			if err != nil {
				return err
			}
			return preview(c, n, raw, page)
		},
	}
	f.add(c)
	c.Flags().BoolVar(&sample, "sample", false, "make up an account, for whom the day is in four weeks")
	c.Flags().StringVar(&lang, "lang", "", "`language`: de or en; default: that of the brand")
	c.Flags().StringVar(&page, "html", "", "write the HTML part into this `file`")
	c.Flags().BoolVar(&raw, "raw", false, "print the message as it goes to the server")
	return c
}

// knownLanguage refuses languages without texts.
func knownLanguage(lang string) error {
	if lang != "" && lang != "de" && lang != "en" {
		return &hinted{err: fmt.Errorf("--lang: there are no texts in %q", printable(lang)), hint: "write de or en", usage: true}
	}
	return nil
}

// noticesOf are what a brand's notices say; without them there is nothing to show.
func noticesOf(b *config.Brand) error {
	if b.Notices == nil {
		return withHint(fmt.Errorf("the brand %s has no notices", b.Name),
			"add notices: { from: service@example.org, sender: Example Mail, envelope: notices@bounces.example.org } to it")
	}
	return nil
}

// sampleNotice is about nobody.
func sampleNotice(f *outreachFlags, lang string) (n outreach.NoticeInput, err error) {
	o, err := f.read()
	if err != nil {
		return n, err
	}
	b := &o.Config.Brands[0]
	if err := noticesOf(b); err != nil {
		return n, err
	}
	y, m, d := o.now().Date()
	return outreach.Sample(b, lang, time.Date(y, m, d+28, 0, 0, 0, 0, o.Zone), o.now(), o.Zone, outreach.SeveralUses...), nil
}

// previewed is about an account. What is not in the mail is told on standard error.
func previewed(c *cobra.Command, f *outreachFlags, name, lang string) (n outreach.NoticeInput, err error) {
	o, err := f.open(c)
	if err != nil {
		return n, err
	}
	defer o.Ledger.Close()
	a, err := o.account(c, name)
	if err != nil {
		return n, err
	}
	number := o.Ledger.Marks().Case(a.Name)
	item, findings, err := o.look(c, a)
	if err != nil {
		return n, err
	}
	b := o.brand(item.Brand)
	if err := noticesOf(b); err != nil {
		return n, err
	}
	now := o.now()
	n = outreach.NoticeInput{Account: a, Findings: findings, Brand: b, Lang: lang, T: outreach.NewSchedule(o.Config.Outreach).Date(findings, now), Case: number, Zone: o.Zone, Now: now}
	told := false
	for i := range findings {
		told = told || findings[i].Noticed()
	}
	if !told {
		return n, withHint(fmt.Errorf("there is nothing to tell %s: %s", printable(a.Name), item.Sentence), "`mailreeve outreach show %s` shows what is known of it", shellWord(a.Name))
	}
	if err := o.Ledger.Audit(c.Context(), "preview", a.Name); err != nil {
		return n, err
	}
	say := func(format string, args ...any) { fmt.Fprintf(c.ErrOrStderr(), "note: "+format+"\n", args...) }
	switch item.Reason {
	case outreach.ReasonDue:
	case outreach.ReasonCall, outreach.ReasonBounced, outreach.ReasonNoAddress:
		say("no mail goes to this account: %s", onOneLine(item.Sentence))
	default:
		say("it is not sent now: %s", onOneLine(item.Sentence))
	}
	if outreach.CutOff(a, findings, now) {
		say("no program of this account can fetch mail any more, so the customer sees this in webmail or not at all;\n      a letter or a call is surer, and `mailreeve outreach call %s` keeps such accounts for it", shellWord(a.Name))
	}
	return n, nil
}

// look says what is to be done about an account now.
func (o *outreachOf) look(c *cobra.Command, a *outreach.Account) (item outreach.Item, findings []outreach.Finding, err error) {
	if o.Config.Outreach.Notices == nil {
		return item, nil, withHint(errors.New("the configuration has no outreach.notices"), "add outreach: { notices: { server: 'HOST:587' } }; `mailreeve config example` explains it")
	}
	all, err := o.Ledger.Notices(c.Context(), a.Name)
	if err != nil {
		return item, nil, err
	}
	var past []outreach.Past
	for _, n := range all {
		past = append(past, n.Past)
	}
	item, findings = outreach.NewSchedule(o.Config.Outreach).Look(o.Policy, a, past, o.now())
	return item, findings, nil
}

// account finds an account by a name as a customer says it, or by a case number.
func (o *outreachOf) account(c *cobra.Command, heard string) (*outreach.Account, error) {
	heard = strings.ToLower(strings.TrimSpace(heard))
	names := []string{heard}
	if number, ok := outreach.ParseCase(heard); ok {
		of, err := o.Ledger.OfCase(c.Context(), number)
		if err != nil {
			return nil, err
		}
		if len(of) > 1 {
			return nil, withHint(fmt.Errorf("the case number %s is that of %s", number, printable(strings.Join(of, " and "))), "name the account")
		}
		names = append(of, names...)
	}
	for i := range o.Config.Brands {
		resolve, _, err := o.Config.Brands[i].Names() // what is wrong in the file is told by a check
		if err != nil {
			return nil, fmt.Errorf("reading the aliases of brand %s: %w", o.Config.Brands[i].Name, err)
		}
		if resolve != nil {
			name, _ := resolve.Resolve(heard)
			names = append(names, name)
		}
	}
	for _, name := range names {
		a, err := o.Ledger.Account(c.Context(), name)
		if !errors.Is(err, outreach.ErrUnknown) {
			return a, err
		}
	}
	return nil, withHint(fmt.Errorf("the ledger knows no %s", printable(heard)), "accounts are whole addresses, mostly; a case number is in each notice, like MR-7K2M-90QD")
}

// preview prints a notice.
func preview(c *cobra.Command, n outreach.NoticeInput, raw bool, page string) error {
	content, err := outreach.Write(n)
	if err != nil {
		return withHint(err, "`mailreeve outreach lint` looks at all templates")
	}
	from := mail.Address{Name: string(n.Brand.Notices.Sender), Address: string(n.Brand.Notices.From)}
	out := c.OutOrStdout()
	if page != "" {
		if err := os.WriteFile(page, []byte(content.HTML), 0o600); err != nil {
			return fmt.Errorf("writing the HTML: %w", err)
		}
	}
	if raw {
		_, domain, _ := strings.Cut(string(n.Brand.Notices.Envelope), "@")
		message, err := outreach.Compose(outreach.Mail{Content: content, From: from, To: n.Account.Name,
			MessageID: strings.ToLower(n.Case) + ".preview@" + domain, Date: n.Now})
		if err != nil {
			return err
		}
		_, err = out.Write(message)
		return err
	}
	_, err = fmt.Fprintf(out, "From:    %s <%s>\nTo:      %s\nSubject: %s\n\n%s", from.Name, from.Address, printable(n.Account.Name), content.Subject, content.Text)
	return err
}

func newOutreachLint() *cobra.Command {
	var f outreachFlags
	c := &cobra.Command{
		Use:   "lint",
		Short: "Look for what a notice must not have, or lacks",
		Long: `Print the notices of all brands, in both languages, with every mail program,
protocol, finding and step, and look in each for what makes it like phishing: links,
forms, images, a request for the password, haste, advertising, addresses; and for what it lacks:
the address of the help page spelled out, the case number, the date, the day and the protocol that
only you can know, the values to enter, webmail, the promise never to ask for a password.`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			o, err := f.read()
			if err != nil {
				return err
			}
			some := false
			for i := range o.Config.Brands {
				some = some || o.Config.Brands[i].Notices != nil
			}
			if !some {
				return noticesOf(&o.Config.Brands[0])
			}
			tried, problems := outreach.LintNotices(o.Config.Brands, o.Zone, o.now())
			if problems != nil {
				return problems
			}
			for i := range o.Config.Brands {
				if b := &o.Config.Brands[i]; b.Notices != nil {
					for _, lacks := range []struct{ what, key string }{{string(b.Notices.Webmail), "webmail"}, {string(b.Notices.Phone), "phone"}, {string(b.Notices.Signature), "signature"}} {
						if lacks.what == "" {
							fmt.Fprintf(c.ErrOrStderr(), "warning: brand %s: notices have no %s\n  hint: write it at brands.notices.%[2]s\n", b.Name, lacks.key)
						}
					}
				}
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "%s tried, all is well\n", count(tried, "notice"))
			return err
		},
	}
	f.add(c)
	return c
}

func newOutreachTemplate() *cobra.Command {
	return &cobra.Command{
		Use:   "template de|en",
		Short: "Print the program's own template of notices, to begin one of yours",
		Example: `  mailreeve outreach template de > /etc/mailreeve/notices/de.txt   and then set templates in the brand's notices
  mailreeve outreach lint -c FILE                                    afterwards`,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) == 1 && (args[0] == "de" || args[0] == "en") {
				return nil
			}
			return &hinted{err: fmt.Errorf("%s wants a language", c.CommandPath()), hint: fmt.Sprintf("`%s de` or `%[1]s en`", c.CommandPath()), usage: true}
		},
		RunE: func(c *cobra.Command, args []string) error {
			text, err := outreach.TemplateFile(args[0])
			if err != nil {
				return err
			}
			_, err = c.OutOrStdout().Write(text)
			return err
		},
	}
}
