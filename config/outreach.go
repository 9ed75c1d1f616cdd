package config

import (
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unicode/utf8"

	"mailreeve/policy"
)

// Outreach is what is known of accounts over time, and how customers are told.
type Outreach struct {
	Ledger    string                  `yaml:"ledger" off:"/var/lib/mailreeve/ledger.db" doc:"Where the ledger is: a file of SQLite, or for several nodes the address of a PostgreSQL database like postgres:///mailreeve?host=/run/postgresql, without a password (PostgreSQL's own passfile has it). Default: ledger.db in state."`
	Campaign  Name                    `yaml:"campaign" required:"true" example:"tls-2027" doc:"Name of the campaign that the ledger belongs to. Each account gets each step of a campaign once."`
	Purpose   Purpose                 `yaml:"purpose" required:"true" example:"'Tell customers whose mail programs must be set anew before plaintext ends.'" doc:"What the ledger is kept for, in a sentence, for the record of processing."`
	End       Date                    `yaml:"end" required:"true" example:"'2027-03-31'" doc:"Last day of the campaign. 90 days later accounts are deleted from the ledger, and counts remain."`
	Follow    bool                    `yaml:"follow" default:"true" doc:"The running proxy reads its own events into the ledger. With false, outreach follow does it."`
	Timezone  Timezone                `yaml:"timezone" default:"Europe/Berlin" doc:"Time zone of the days in the ledger, and of office hours."`
	Networks  map[Name][]netip.Prefix `yaml:"networks" key:"dsl" off:"{ dsl: [198.51.100.0/24], mobile: [203.0.113.0/24] }" doc:"Classes of client networks, by name; what fits none is other. The ledger keeps the name of the class instead of an address."`
	Access    []Name                  `yaml:"access" off:"[dsl, mobile]" doc:"Classes of networks that are your own customers' lines; many accounts behind one address there are no collector."`
	Collector int                     `yaml:"collector" default:"50" min:"5" max:"100000" doc:"Accounts that log in from one address with the same kind of program in a day and are then taken for another provider's service that collects mail."`
	Notices   *Notices                `yaml:"notices" doc:"How notices are sent. Without it, none are."`
}

// Notices says how mails to customers are sent.
type Notices struct {
	Server       Address          `yaml:"server" required:"true" example:"10.0.0.6:587" doc:"Host and port of the submission server."`
	TLS          BackendTLS       `yaml:"tls" default:"starttls" doc:"How encryption towards it begins."`
	ServerName   Host             `yaml:"name" off:"smtp.internal" doc:"Host name that its certificate must have. Default: the host of the address."`
	CA           string           `yaml:"ca" off:"ca.pem" doc:"PEM file of the authorities that its certificate must come from. Default: those of the system."`
	User         string           `yaml:"user" off:"notices" doc:"User that logs in there. Default: no login."`
	PasswordFile string           `yaml:"password_file" off:"notices.secret" doc:"File with the password on its one line. Nobody but its owner may have rights to it."`
	PerMinute    int              `yaml:"per_minute" default:"20" min:"1" max:"100000" doc:"Most notices in a minute."`
	PerHour      int              `yaml:"per_hour" default:"200" min:"1" max:"1000000" doc:"Most notices in an hour."`
	PerDay       int              `yaml:"per_day" default:"500" min:"1" max:"10000000" doc:"Most notices in a day: what the hotline bears. One in ten customers calls, and an agent helps some forty a day."`
	Begin        policy.Clock     `yaml:"begin" default:"09:00" doc:"When the office opens: nothing is sent before."`
	Until        policy.Clock     `yaml:"until" default:"16:00" doc:"When sending ends, early enough that somebody still answers the telephone."`
	Days         []policy.Weekday `yaml:"days" off:"[mon, tue, wed, thu]" doc:"Days on which is sent. Default: Monday to Friday."`
	Steps        []int            `yaml:"steps" off:"[-112, -84, -56, -28, -14, -7, -2, 0, 3]" doc:"Days before (or with 3: after) the day on which an account is refused, at which it is told. Default: 112, 84, 56, 28, 14, 7 and 2 days before, on the day and 3 days after."`
	Gap          time.Duration    `yaml:"gap" default:"6d" min:"1d" max:"365d" doc:"Least time between two notices to an account, until a week before the day."`
	Most         int              `yaml:"most" default:"9" min:"1" max:"50" doc:"Most notices to an account in the campaign."`
}

// BrandNotices are what a brand's notices say of the sender.
type BrandNotices struct {
	From      Email  `yaml:"from" required:"true" example:"service@example.org" doc:"Address that notices come from: one that your help page names, and that somebody reads."`
	Sender    Line   `yaml:"sender" required:"true" example:"Example Mail customer service" doc:"Name of the sender."`
	Envelope  Email  `yaml:"envelope" required:"true" example:"notices@bounces.example.org" doc:"Address for bounces. Each notice has its own: +code is put before the @, and mail to these goes to mailreeve outreach bounce."`
	Phone     Line   `yaml:"phone" off:"'0800 1234567 (Mon-Fri 8-18)'" doc:"Telephone number of the hotline, with its hours and what it costs."`
	Webmail   Line   `yaml:"webmail" off:"webmail.example.org" doc:"Where mail can be read without a program, as a customer types it."`
	Signature Line   `yaml:"signature" off:"'Example Mail, 1 Main Street, Example Town'" doc:"What stands below: who you are, as the law wants it."`
	Templates string `yaml:"templates" off:"notices" doc:"Folder with templates of your own, de.txt and en.txt; mailreeve outreach template prints those of the program."`
}

// Purpose is a sentence.
type Purpose string

// UnmarshalText reads a sentence of one line.
func (p *Purpose) UnmarshalText(text []byte) error {
	line, err := oneLine(text, 500)
	*p = Purpose(line)
	return err
}

// Line is a short text of one line.
type Line string

// UnmarshalText reads a line.
func (l *Line) UnmarshalText(text []byte) error {
	line, err := oneLine(text, 120)
	*l = Line(line)
	return err
}

func oneLine(text []byte, most int) (string, error) {
	s := strings.TrimSpace(string(text))
	switch {
	case s == "":
		return "", wrong{"it is empty", "write a line of text, or leave the key out"}
	case !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f || r == utf8.RuneError }):
		return "", wrong{quote(s) + " has characters that do not belong in a line", "write one line of plain text"}
	case utf8.RuneCountInString(s) > most:
		return "", wrong{fmt.Sprintf("it is longer than %d characters", most), "write less"}
	}
	return s, nil
}

// Date is a day.
type Date string

// UnmarshalText reads a day.
func (d *Date) UnmarshalText(text []byte) error {
	if _, err := time.Parse(time.DateOnly, string(text)); err != nil {
		return wrong{quote(string(text)) + " is not a day", "write one like 2027-03-31"}
	}
	*d = Date(text)
	return nil
}

// JSONSchema describes how a day is written.
func (Date) JSONSchema() map[string]any {
	return map[string]any{"type": "string", "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}$"}
}

// In is the first instant of the day.
func (d Date) In(zone *time.Location) time.Time {
	t, err := time.ParseInLocation(time.DateOnly, string(d), zone)
	if err != nil { // UnmarshalText has taken it
		return time.Time{}
	}
	return t
}

// Timezone is the name of a time zone.
type Timezone string

// UnmarshalText reads a name of the IANA database.
func (z *Timezone) UnmarshalText(text []byte) error {
	if _, err := zoneOf(string(text)); err != nil {
		return err
	}
	*z = Timezone(text)
	return nil
}

// Location is the time zone.
func (z Timezone) Location() *time.Location {
	zone, err := zoneOf(string(z))
	if err != nil { // made by a program
		return time.UTC
	}
	return zone
}

// loopback reports whether nothing leaves this machine.
func (a Address) loopback() bool {
	ip, isIP := a.IP()
	return isIP && ip.IsLoopback() || a.Host == "localhost"
}

// PostgreSQL reports whether the ledger is a database and no file.
func (o *Outreach) PostgreSQL() bool {
	return strings.HasPrefix(o.Ledger, "postgres://") || strings.HasPrefix(o.Ledger, "postgresql://")
}

// defaultSteps are those of practice: from four months before the day until it has come.
var defaultSteps = []int{-112, -84, -56, -28, -14, -7, -2, 0, 3}

// completeOutreach sets what depends on other values.
func (c *Config) completeOutreach() {
	o := c.Outreach
	if o == nil {
		return
	}
	if o.Ledger == "" && c.State != "" {
		o.Ledger = filepath.Join(c.State, "ledger.db")
	}
	if n := o.Notices; n != nil {
		if n.Steps == nil {
			n.Steps = defaultSteps
		}
		if n.Days == nil {
			n.Days = []policy.Weekday{"mon", "tue", "wed", "thu", "fri"}
		}
	}
}

// Password reads the password of the user that sends, under the conditions of [Master.Password].
func (n *Notices) Password() (string, error) { return readSecret(n.PasswordFile, "password") }

// outreach looks at the ledger and the notices.
func (k *checker) outreach() {
	o := k.Outreach
	if o == nil {
		for i := range k.Brands {
			if k.Brands[i].Notices != nil {
				k.warn(child(element("brands", i), "notices"), "there is no outreach, so no notice is sent", "add outreach, or leave it out")
			}
		}
		return
	}
	switch {
	case o.Ledger == "":
		k.fail("outreach.ledger", "there is no place for the ledger", "set it, or state")
	case o.PostgreSQL():
		const cure = "write postgres://user@host/database?passfile=/etc/mailreeve/pgpass"
		if u, err := url.Parse(o.Ledger); err != nil {
			k.fail("outreach.ledger", "it is not the address of a database", cure) // the error might show a password
		} else if _, has := u.User.Password(); has || u.Query().Has("password") {
			k.fail("outreach.ledger", "there is a password in the address", cure)
		}
	case filepath.Dir(o.Ledger) == k.State: // it is made
	default:
		if info, err := os.Stat(filepath.Dir(o.Ledger)); err != nil || !info.IsDir() {
			k.fail("outreach.ledger", "there is no directory "+filepath.Dir(o.Ledger), "make it, and let the program's user write there")
		}
	}
	for _, a := range o.Access {
		if o.Networks[a] == nil {
			k.fail("outreach.access", string(a)+" is no class of networks", "name one of outreach.networks")
		}
	}
	n := o.Notices
	if n == nil {
		return
	}
	if n.Until <= n.Begin {
		k.fail("outreach.notices.until", "it is not later than begin", "write a later time of day")
	}
	if (n.User == "") != (n.PasswordFile == "") {
		k.fail("outreach.notices.user", "user and password_file belong together", "set both, or neither")
	} else if n.User != "" && n.TLS == Off && !n.Server.loopback() {
		k.fail("outreach.notices.tls", "the password would cross the network in clear", "write starttls or implicit")
	}
	if n.PasswordFile != "" {
		if _, err := n.Password(); err != nil {
			k.file("outreach.notices.password_file", err)
		}
	}
	for i, s := range n.Steps {
		if s < -365 || s > 60 || i > 0 && s <= n.Steps[i-1] {
			k.fail("outreach.notices.steps", fmt.Sprintf("%d is out of order, or out of -365 to 60", s), "write days in ascending order, like [-28, -14, -7, 0]")
			break
		}
	}
	for i := range k.Brands {
		if k.Brands[i].Notices == nil {
			k.fail(child(element("brands", i), "notices"), "it is missing, and notices are sent", "add it, like notices: { from: service@example.org, sender: Example Mail, envelope: notices@bounces.example.org }")
		}
	}
}
