package traffic

// Who there is: people, their programs, how these are set and by what habit they come.

import (
	"fmt"
	"slices"
	"strings"

	"mailreeve/fixes"
	"mailreeve/policy"
)

// Protocols as events call them.
const (
	imap       = "imap"
	pop3       = "pop3"
	submission = "submission"
)

// faults are what is wrong with settings.
type faults uint8

const (
	plaintext faults = 1 << iota
	oldTLS
	weak   // a mechanism that is to go
	legacy // an old server name, or one for another protocol
	bare
	port25
)

// finding is what each fault is called in a policy.
var finding = map[policy.Finding]faults{
	policy.Plaintext: plaintext, policy.TLSOld: oldTLS, policy.Mechanism: weak, policy.LegacyHostname: legacy,
	policy.FindingUserForm: bare, policy.FindingPort: port25,
}

// form is how a program shows itself in one protocol.
type form struct {
	class     fixes.Class
	called    string // in front of the version, where it is known
	versioned bool   // and the version is
	id        func(version string) map[string]string
	hello     func(*dice) guise
	mechanism string
	weak      []string // mechanisms under its setting "encrypted password" and the like
	nameless  bool     // it sends no server name
}

// guise is an argument of EHLO, and what is known by it.
type guise struct {
	hello  string
	class  fixes.Class
	called string
}

// program is something that people fetch and send mail with.
type program struct {
	name     string
	share    float64
	versions []string // the major one is what stands before the first dot
	tls      []string
	imap     *form
	pop3     *form
	send     *form
	habits   []habit
	lines    []line
	often    float64 // sessions on a day of its own
}

// habit is on which days a program comes.
type habit uint8

const (
	daily    habit = iota
	everyDay       // without fail
	workdays
	weekly
	monthly
	holiday // daily, but away for weeks
	gone    // daily, and then no more
	fresh   // daily, from some day on
)

// line is where it comes from.
type line uint8

const (
	home    line = iota // another address each day
	roaming             // at home, and on the way
	office              // one address for all
	cloud               // a vendor's servers log in for it
	rented              // a server of one's own
	fetched             // another provider's, which fetches the mail of many
)

func id(fields ...string) func(string) map[string]string {
	return func(version string) map[string]string {
		m := map[string]string{}
		for i := 0; i+1 < len(fields); i += 2 {
			if m[fields[i]] = fields[i+1]; m[fields[i]] == "" {
				m[fields[i]] = version
			}
		}
		return m
	}
}

func says(word string, class fixes.Class) func(*dice) guise {
	return func(*dice) guise { return guise{word, class, ""} }
}

// lan is an address in somebody's home, as Thunderbird shows it.
func lan(d *dice) guise {
	if d.happens(0.15) {
		return guise{fmt.Sprintf("[IPV6:fe80::%x:%x]", 1+d.below(0xffff), 1+d.below(0xffff)), fixes.Thunderbird, ""}
	}
	return guise{fmt.Sprintf("[192.168.%d.%d]", oneOf(d, []int{0, 1, 2, 178}), 2+d.below(250)), fixes.Thunderbird, ""}
}

const base32 = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"

func letters(d *dice, n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = base32[d.below(32)]
	}
	return string(b)
}

func windowsName(d *dice) guise {
	return guise{oneOf(d, []string{"DESKTOP-", "LAPTOP-"}) + letters(d, 7), fixes.Outlook, ""}
}

// ownName is that of a computer at home, which may be any program's.
func ownName(d *dice) guise {
	if d.happens(0.3) {
		return guise{"localhost.localdomain", fixes.Script, ""}
	}
	return guise{oneOf(d, []string{"server", "debian", "media", "raspberrypi"}) + oneOf(d, []string{".lan", ".fritz.box", ".local"}), fixes.Unknown, ""}
}

func printerName(d *dice) guise {
	kind := oneOf(d, []struct {
		prefix, maker string
		digits        int
	}{
		{"BRN", "Brother", 12}, {"BRW", "Brother", 12}, {"NPI", "HP", 6}, {"RNP", "Ricoh", 12}, {"KM", "Kyocera", 6}})
	return guise{fmt.Sprintf("%s%0*X", kind.prefix, kind.digits, d.next()>>(64-4*kind.digits)), fixes.Device, kind.maker}
}

// programs are those that German providers see, with what they do as clients.md has it: many
// say nothing of themselves, and then are of an unknown class.
var programs = []program{
	{name: "Thunderbird", share: 0.21, versions: []string{"153.7", "153.2.1", "140.10.0", "128.14.0", "115.18.0", "78.14.0"}, tls: []string{"1.3"},
		imap:   &form{class: fixes.Thunderbird, called: "Thunderbird", versioned: true, id: id("name", "Thunderbird", "version", ""), mechanism: "PLAIN", weak: []string{"CRAM-MD5", "NTLM"}},
		pop3:   &form{class: fixes.Unknown, mechanism: "PLAIN", weak: []string{"CRAM-MD5", "APOP"}},
		send:   &form{hello: lan, mechanism: "PLAIN", weak: []string{"CRAM-MD5"}},
		habits: []habit{daily, daily, daily, workdays, holiday, gone, fresh}, lines: []line{home, home, roaming, office}, often: 4},
	{name: "Outlook", share: 0.22, versions: []string{"16.0"}, tls: []string{"1.3", "1.2"},
		imap:   &form{class: fixes.Unknown, mechanism: "PLAIN", weak: []string{"NTLM", "DIGEST-MD5"}},
		pop3:   &form{class: fixes.Unknown, mechanism: policy.UserPass, weak: []string{"NTLM"}},
		send:   &form{hello: windowsName, mechanism: "LOGIN", weak: []string{"NTLM"}},
		habits: []habit{daily, workdays, workdays, holiday, gone}, lines: []line{home, office, office, roaming}, often: 6},
	{name: "old Outlook", share: 0.04, versions: []string{"12.0"}, tls: []string{"1.0", "1.2"},
		imap:   &form{class: fixes.Unknown, mechanism: policy.UserPass, weak: []string{"NTLM"}, nameless: true},
		pop3:   &form{class: fixes.Unknown, mechanism: policy.UserPass, weak: []string{"NTLM"}, nameless: true},
		send:   &form{hello: windowsName, mechanism: "LOGIN", weak: []string{"NTLM"}, nameless: true},
		habits: []habit{daily, workdays, weekly}, lines: []line{home, office}, often: 5},
	{name: "new Outlook", share: 0.05, versions: []string{"1.0"}, tls: []string{"1.3"},
		imap:   &form{class: fixes.OutlookNew, called: "Outlook", id: id("name", "Microsoft Outlook", "vendor", "Microsoft"), mechanism: "PLAIN", weak: nil},
		habits: []habit{daily}, lines: []line{cloud}, often: 8},
	{name: "Apple Mail", share: 0.09, versions: []string{"16.0 (3826.700.81)", "15.0 (3693.60.0.1.1)"}, tls: []string{"1.3"},
		imap:   &form{class: fixes.AppleMail, called: "Apple Mail", versioned: true, id: id("name", "Mac OS X Mail", "version", ""), mechanism: "PLAIN", weak: []string{"CRAM-MD5", "NTLM"}},
		send:   &form{hello: says("smtpclient.apple", "apple"), mechanism: "PLAIN", weak: []string{"CRAM-MD5"}},
		habits: []habit{daily, daily, workdays, holiday}, lines: []line{home, home, roaming}, often: 4},
	{name: "iOS", share: 0.19, versions: []string{"22F76", "21H446", "20H360"}, tls: []string{"1.3"},
		imap:   &form{class: fixes.IOSMail, called: "Mail, iOS 18", id: id("name", "iPhone Mail", "version", "", "os", "iOS", "os-version", "18.5"), mechanism: "PLAIN", weak: []string{"CRAM-MD5"}},
		send:   &form{hello: says("smtpclient.apple", "apple"), mechanism: "PLAIN", weak: []string{"CRAM-MD5"}},
		habits: []habit{daily, daily, daily, gone, fresh}, lines: []line{roaming}, often: 7},
	{name: "old iPhone", share: 0.02, versions: []string{"13G36"}, tls: []string{"1.2", "1.0"},
		imap:   &form{class: fixes.IOSMail, called: "Mail, iOS", id: id("name", "iPhone Mail", "version", ""), mechanism: "PLAIN", weak: []string{"CRAM-MD5"}, nameless: true},
		send:   &form{hello: says("smtpclient.apple", "apple"), mechanism: "PLAIN", weak: []string{"CRAM-MD5"}, nameless: true},
		habits: []habit{daily, weekly, holiday}, lines: []line{roaming}, often: 4},
	{name: "K-9", share: 0.06, versions: []string{"6.802", "5.807"}, tls: []string{"1.3", "1.2"},
		imap:   &form{class: "thunderbird-android", called: "K-9 Mail", versioned: true, id: id("name", "K-9 Mail", "version", ""), mechanism: "PLAIN", weak: []string{"CRAM-MD5"}},
		pop3:   &form{class: fixes.Unknown, mechanism: "PLAIN", weak: []string{"CRAM-MD5"}},
		send:   &form{hello: says("ehlo.thunderbird.net", "thunderbird-android"), mechanism: "PLAIN", weak: []string{"CRAM-MD5"}},
		habits: []habit{daily, daily, gone}, lines: []line{roaming}, often: 6},
	{name: "FairEmail", share: 0.02, versions: []string{"1.2290"}, tls: []string{"1.3"},
		imap:   &form{class: "fairemail", called: "FairEmail", versioned: true, id: id("name", "FairEmail", "version", ""), mechanism: "CRAM-MD5", weak: []string{"CRAM-MD5"}},
		send:   &form{hello: says("dummy.faircode.eu", "fairemail"), mechanism: "CRAM-MD5", weak: []string{"CRAM-MD5"}},
		habits: []habit{daily}, lines: []line{roaming}, often: 8},
	{name: "Windows Mail", share: 0.03, versions: []string{"16005"}, tls: []string{"1.2"},
		imap:   &form{class: fixes.Unknown, mechanism: policy.UserPass},
		pop3:   &form{class: fixes.Unknown, mechanism: policy.UserPass},
		habits: []habit{daily, weekly, holiday}, lines: []line{home}, often: 3},
	{name: "Evolution", share: 0.01, versions: []string{"3.56.1"}, tls: []string{"1.3"},
		imap:   &form{class: "evolution", called: "Evolution", versioned: true, id: id("name", "Evolution", "version", ""), mechanism: "PLAIN", weak: []string{"CRAM-MD5"}},
		habits: []habit{daily}, lines: []line{home}, often: 4},
	{name: "printer", share: 0.03, versions: []string{""}, tls: []string{"1.2", "1.0"},
		send:   &form{hello: printerName, mechanism: "LOGIN", weak: []string{"CRAM-MD5"}, nameless: true},
		habits: []habit{workdays, weekly, monthly, monthly}, lines: []line{office, home}, often: 2},
	{name: "fetchmail", share: 0.02, versions: []string{""}, tls: []string{"1.2", "1.3"},
		imap:   &form{class: fixes.Unknown, mechanism: "CRAM-MD5", weak: []string{"CRAM-MD5"}},
		pop3:   &form{class: fixes.Unknown, mechanism: policy.UserPass, weak: []string{"CRAM-MD5", "APOP"}},
		send:   &form{hello: ownName, mechanism: "PLAIN", weak: []string{"CRAM-MD5"}},
		habits: []habit{everyDay}, lines: []line{home, rented}, often: 12},
	{name: "POP3 program", share: 0.01, versions: []string{""}, tls: []string{"1.2", "1.1"},
		pop3:   &form{class: fixes.Unknown, mechanism: policy.UserPass, weak: []string{"APOP"}, nameless: true},
		habits: []habit{daily, weekly, monthly}, lines: []line{home}, often: 2},
}

// collector is another provider's service, set by people who fetch their mail over there.
var collector = program{name: "collector", versions: []string{""}, tls: []string{"1.2"},
	pop3:   &form{class: fixes.Unknown, mechanism: policy.UserPass},
	habits: []habit{everyDay}, lines: []line{fetched}, often: 6}

// person is a mailbox and who owns it.
type person struct {
	account string
	domain  string
	brand   uint8
	address uint32 // of the office, or the seed of those at home
	v6      bool
	devices []device
}

// device is one program in one protocol.
type device struct {
	*program
	form     *form
	protocol string
	version  string
	habit    habit
	line     line
	starttls bool
	tls      string // when nothing is wrong with it
	weak     string
	oldTLS   string
	oldName  string
	host     string // policy.Legacy, OtherService or Unknown, which oldName is
	hello    string
	class    fixes.Class // as far as it can be known
	called   string      // and what it says it is
	fetcher  uint32      // address that it comes from, where that is not its owner's
	often    float64
	faults   faults
	rest     faults // what is left of them when its owner has mended it
	mended   int16  // on this day; -1: not
	relapsed int16  // and came back on this one; -1: not
	again    int16  // and was mended again; -1: not
	phase    int16  // which day of the week or month, or the first or last one of a change
	length   int16  // of a holiday
	probes   []int16
}

// inborn are the faults that no setting of the program mends.
func (d *device) inborn() (f faults) {
	if d.tls == "1.0" || d.tls == "1.1" {
		f |= oldTLS
	}
	if d.form.mechanism == "CRAM-MD5" { // it chooses that where it is offered
		f |= weak
	}
	return f
}

// seen are the faults that show: in plaintext there is no TLS, and no name in it.
func (f faults) seen() faults {
	if f&plaintext != 0 {
		f &^= oldTLS | legacy
	}
	return f
}

// wrong is what is wrong with it on a day, before and after the hour at which its owner
// changes something.
func (d *device) wrong(day int) (before, after faults) {
	at := func(day int) faults {
		n := int16(day)
		if d.mended < 0 || n < d.mended || d.relapsed >= 0 && n >= d.relapsed && (d.again < 0 || n < d.again) {
			return d.faults
		}
		return d.rest
	}
	return at(day - 1), at(day)
}

// populate makes all people.
func (w *World) populate() {
	w.people = make([]person, w.Accounts)
	d := throw(w.Seed, 1)
	var domain string
	var left int
	for i := range w.people {
		p := &w.people[i]
		p.brand, p.domain = w.brand(&d), ""
		b := &w.Brands[p.brand]
		p.domain = b.Domain
		if d.happens(b.Owned) {
			if left == 0 {
				domain, left = fmt.Sprintf("kunde-%05d.example", i), 1+int(40*d.part()*d.part())
			}
			p.domain, left = domain, left-1
		}
		p.account = fmt.Sprintf("%s%d@%s", oneOf(&d, names), i, p.domain)
		p.v6 = d.happens(0.4)
		p.address = uint32(d.next())
		if p.owns(w) {
			of := dice(0)
			for _, c := range p.domain {
				of = throw(uint64(of), uint64(c))
			}
			p.address = uint32(of.next())
		}
		if d.happens(w.mix.Webmail) {
			continue
		}
		for n := 1 + oneOf(&d, []int{0, 0, 0, 0, 0, 0, 1, 1, 1, 2}); n > 0; n-- {
			w.install(p, &d, w.choose(&d))
		}
	}
	w.collect(&d)
	w.excuse(&d)
}

var names = []string{"anna.", "ben", "c.meier", "dieter", "elif", "familie.", "gabi", "h.schulz", "info", "jonas", "kontakt", "lena.", "m", "rechnung", "s.wolf", "verein"}

// owns says that the mailbox lies in a domain of the customer's own.
func (p *person) owns(w *World) bool { return p.domain != w.Brands[p.brand].Domain }

func (w *World) brand(d *dice) uint8 {
	sum := 0.0
	for _, b := range w.Brands {
		sum += b.Share
	}
	at := d.part() * sum
	for i, b := range w.Brands {
		if at -= b.Share; at < 0 {
			return uint8(i)
		}
	}
	return uint8(len(w.Brands) - 1)
}

func (w *World) choose(d *dice) *program {
	sum := 0.0
	for i := range programs {
		sum += programs[i].share
	}
	at := d.part() * sum
	for i := range programs {
		if at -= programs[i].share; at < 0 {
			return &programs[i]
		}
	}
	return &programs[0]
}

// install gives a person a program: one device for fetching, one for sending, of which
// people set, and mend, both alike for the most part.
func (w *World) install(p *person, d *dice, of *program) {
	common := device{program: of, version: oneOf(d, of.versions), habit: oneOf(d, of.habits), line: oneOf(d, of.lines),
		starttls: d.happens(0.2), tls: oneOf(d, of.tls), often: of.often * (0.5 + d.part()), mended: -1, relapsed: -1, again: -1}
	if common.line == office && !p.owns(w) {
		common.line = home
	}
	if common.line == rented || common.line == cloud {
		common.fetcher = uint32(d.next())
	}
	common.phase, common.length = int16(d.below(w.Days)), int16(7+d.below(21))
	wrong := w.wrong(d, p)
	var both []*device
	in, protocol := of.imap, imap
	if of.pop3 != nil && (in == nil || d.happens(0.3)) {
		in, protocol = of.pop3, pop3
	}
	if in != nil {
		one := common
		one.form, one.protocol = in, protocol
		w.set(&one, p, d, wrong&^port25)
		both = append(both, &one)
	}
	if of.send != nil {
		one := common
		one.form, one.protocol = of.send, submission
		if one.often /= 4; in == nil {
			one.often *= 4
		}
		if d.happens(0.3) {
			wrong = w.wrong(d, p)
		}
		w.set(&one, p, d, wrong)
		both = append(both, &one)
	}
	w.mend(both, d)
	for _, one := range both {
		if one.class == fixes.AppleMail {
			w.probe(one, d)
		}
		p.devices = append(p.devices, *one)
	}
}

// wrong draws what is wrong with a program.
func (w *World) wrong(d *dice, p *person) (f faults) {
	of := func(fault faults, share float64) {
		if d.happens(share) {
			f |= fault
		}
	}
	of(plaintext, w.mix.Plaintext)
	of(oldTLS, w.mix.OldTLS)
	of(weak, w.mix.Mechanism)
	of(bare, w.mix.Bare)
	of(port25, w.mix.Port25)
	if p.owns(w) {
		of(legacy, min(0.9, 5*w.mix.Legacy))
	} else {
		of(legacy, w.mix.Legacy)
	}
	return f
}

// set sets a device up, with those of the faults that can be seen in it.
func (w *World) set(d *device, p *person, by *dice, wrong faults) {
	d.oldTLS = oneOf(by, []string{"1.0", "1.0", "1.1"})
	if d.inborn()&oldTLS != 0 {
		d.oldTLS = d.tls
	}
	if len(d.form.weak) == 0 {
		wrong &^= weak
	} else {
		d.weak = oneOf(by, d.form.weak)
	}
	d.class, d.called = d.form.class, d.form.called
	if d.form.versioned {
		major, _, _ := strings.Cut(d.version, ".")
		d.called += " " + major
	}
	if d.form.hello != nil {
		g := d.form.hello(by)
		d.hello, d.class, d.called = g.hello, g.class, g.called
	}
	if d.form.nameless {
		wrong &^= legacy
	}
	if d.protocol != submission {
		wrong &^= port25
	}
	host := map[string]string{imap: "imap.", pop3: "pop.", submission: "smtp."}[d.protocol]
	brand := w.Brands[p.brand].Domain
	switch {
	case p.owns(w):
		d.oldName, d.host = host+p.domain, policy.Legacy
	case d.protocol != imap && by.happens(0.3):
		d.oldName, d.host = "imap."+brand, policy.OtherService
	case by.happens(0.05):
		d.oldName, d.host = "mx.server."+brand, policy.Unknown
	default:
		d.oldName, d.host = "mail."+brand, policy.Legacy
	}
	d.faults = wrong | d.inborn()
}

// mend has people change their settings: after a notice more than else, some of them for
// fetching alone, some of them not for ever.
func (w *World) mend(both []*device, d *dice) {
	if !slices.ContainsFunc(both, func(one *device) bool { return one.faults != 0 }) || !d.happens(w.mix.Mended) {
		return
	}
	at := d.below(w.Days)
	if len(w.Notices) > 0 && d.happens(0.6) {
		for at = oneOf(d, w.Notices) + 1; d.happens(0.6); at++ {
		}
	}
	for i, one := range both {
		forgot := d.happens(w.mix.Forgot)
		if one.faults == 0 || at >= w.Days || forgot && i > 0 {
			continue
		}
		one.mended = int16(at)
		if forgot {
			one.rest = one.faults & (one.faults - 1) // all but one
		}
		one.rest |= one.inborn()
		if one.rest == one.faults {
			one.mended = -1
			continue
		}
		if d.happens(w.mix.Relapsed) {
			one.relapsed = one.mended + 1 + int16(d.below(5))
			if d.happens(0.7) {
				one.again = one.relapsed + 1 + int16(d.below(4))
			}
		}
	}
}

// probe lets an Apple Mail try all there is, on some days.
func (w *World) probe(one *device, d *dice) {
	days := 0
	switch {
	case d.happens(w.mix.Frantic):
		days = 3 + d.below(3)
	case d.happens(w.mix.Probing):
		days = 1 + d.below(2)
	}
	for range days {
		if day := int16(d.below(w.Days)); !slices.Contains(one.probes, day) {
			one.probes = append(one.probes, day)
		}
	}
}

// collect has other providers fetch the mail of some: two in large numbers, one of
// few.
func (w *World) collect(d *dice) {
	most := [3]int{}
	seen := 0
	for i := range w.people {
		if len(w.people[i].devices) > 0 {
			seen++
		}
	}
	if many := min(300, max(80, seen/20)); seen >= 8*many {
		most[0], most[1] = many, many
	}
	most[2] = min(20, seen/20)
	for tries := 0; most != [3]int{} && tries < 50*w.Accounts; tries++ {
		p := &w.people[d.below(len(w.people))]
		which := d.below(3)
		// Each is known among the customers of one brand.
		if most[which] == 0 || p.owns(w) || int(p.brand) != which%len(w.Brands) || p.fetched() {
			continue
		}
		most[which]--
		one := device{program: &collector, form: collector.pop3, protocol: pop3, habit: everyDay, line: fetched, tls: "1.2", often: collector.often,
			fetcher: uint32(which), mended: -1, relapsed: -1, again: -1}
		wrong := plaintext
		if which == 1 {
			wrong = legacy
		}
		if d.happens(w.mix.Bare) {
			wrong |= bare
		}
		w.set(&one, p, d, wrong)
		one.oldName, one.host = "mail."+w.Brands[p.brand].Domain, policy.Legacy
		if d.happens(0.1) {
			one.mended = int16(d.below(w.Days))
			one.rest = one.faults & bare // at the other provider nobody asks for the whole name
		}
		p.devices = append(p.devices, one)
	}
}

func (p *person) fetched() bool {
	return slices.ContainsFunc(p.devices, func(d device) bool { return d.line == fetched })
}

// excuse writes the exceptions: for accounts, all of a demand in one, and for a domain.
func (w *World) excuse(d *dice) {
	spared := map[string][]string{}
	for i := range w.people {
		p := &w.people[i]
		for _, one := range p.devices {
			if one.faults == 0 || !d.happens(w.mix.Exempted) {
				continue
			}
			demand := oneOf(d, w.Demands)
			for finding[demand.Fault]&one.faults == 0 {
				demand = oneOf(d, w.Demands)
			}
			if p.owns(w) {
				if !slices.Contains(w.exempt[p.domain], demand.ID) {
					w.exempt[p.domain] = append(w.exempt[p.domain], demand.ID)
					w.Exceptions = append(w.Exceptions, Exception{ID: fmt.Sprintf("domain-%d", len(w.Exceptions)), Demand: demand.ID, Domain: p.domain})
				}
			} else if !slices.Contains(w.exempt[p.account], demand.ID) {
				w.exempt[p.account] = append(w.exempt[p.account], demand.ID)
				spared[demand.ID] = append(spared[demand.ID], p.account)
			}
		}
	}
	for _, demand := range w.Demands {
		if spared[demand.ID] != nil {
			w.Exceptions = append(w.Exceptions, Exception{ID: "accounts-" + demand.ID, Demand: demand.ID, Accounts: spared[demand.ID]})
		}
	}
}
