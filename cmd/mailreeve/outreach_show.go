package main

// The support desk's view: a customer is on the telephone.

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"mailreeve/config"
	"mailreeve/events"
	"mailreeve/fixes"
	"mailreeve/outreach"
	"mailreeve/policy"
)

func newOutreachShow() *cobra.Command {
	var f outreachFlags
	var lang string
	var try, asJSON bool
	var wait time.Duration
	c := &cobra.Command{
		Use:   "show ACCOUNT|CASE|CODE",
		Short: "What to tell a customer who calls: which device, what is wrong, what to do",
		Long: `Show by device what was seen of an account, what is wrong and from when on it is
refused, what to say, and the steps in that program's own words; then the notices that were
sent, what the proxy told last, and exceptions.

With --try-now the running proxy is watched: the customer fetches or sends mail, and each login
is shown as it happens, with what the customer sees and the next step. A login that is refused
before its account is known is found by the addresses that the account used within a day.

A code of 12 digits and letters, which a refused customer reads out, is looked for in the event log.

Each look is written into the audit.`,
		Example: `  mailreeve outreach show anna@example.org -c FILE
  mailreeve outreach show MR-7K2M-90QD -c FILE --try-now`,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) == 1 {
				return nil
			}
			return &hinted{err: fmt.Errorf("%s wants one account or case number", c.CommandPath()),
				hint: fmt.Sprintf("`%s anna@example.org -c FILE`", c.CommandPath()), usage: true}
		},
		RunE: func(c *cobra.Command, args []string) error {
			if err := knownLanguage(lang); err != nil {
				return err
			}
			if try && asJSON {
				return &hinted{err: errors.New("--try-now is for people, and --json for machines"), hint: "leave one of them out", usage: true}
			}
			o, err := f.open(c)
			if err != nil {
				return err
			}
			defer o.Ledger.Close()
			a, err := o.account(c, args[0])
			if err != nil && heardID(args[0]) {
				e, sought := findSession(eventsPath(o.Config), args[0])
				if sought != nil {
					return sought
				}
				if e.Account == "" {
					return withHint(fmt.Errorf("session %s of %s has no confirmed account: %s", e.ID, e.Time.In(o.Zone).Format("2006-01-02 15:04"),
						printable(strings.Join(slices.DeleteFunc([]string{protocolName(e.Protocol), e.Action, e.Refused, strings.Join(e.By, " ")}, func(s string) bool { return s == "" }), ", "))),
						"`mailreeve policy explain %s -c %s` shows why", e.ID, shellWord(f.path))
				}
				a, err = o.account(c, e.Account)
			}
			if err != nil {
				return err
			}
			s, brand, err := o.support(c, a, lang)
			if err != nil {
				return err
			}
			if err := o.Ledger.Audit(c.Context(), "show", a.Name); err != nil {
				return err
			}
			if asJSON {
				return writeJSON(c.OutOrStdout(), s)
			}
			showSupport(c.OutOrStdout(), s)
			if !try {
				return nil
			}
			t := &trial{out: c.OutOrStdout(), account: a.Name, brand: brand, lang: s.Lang, policy: o.Policy, zone: o.Zone}
			return t.run(c.Context(), o.Config, wait)
		},
	}
	f.add(c)
	c.Flags().StringVar(&lang, "lang", "", "`language`: de or en; default: that of the brand")
	c.Flags().BoolVar(&asJSON, "json", false, "print a JSON object")
	c.Flags().BoolVar(&try, "try-now", false, "and watch the customer try")
	c.Flags().DurationVar(&wait, "for", 5*time.Minute, "how long to watch")
	return c
}

// heardID reports whether what a customer reads out may be the id of a session.
func heardID(heard string) bool {
	id := sessionID(heard)
	return len(id) == 12 && strings.Trim(id, "0123456789ABCDEFGHJKMNPQRSTVWXYZ") == ""
}

// support is the view of an account.
func (o *outreachOf) support(c *cobra.Command, a *outreach.Account, lang string) (*outreach.Support, *config.Brand, error) {
	notices, err := o.Ledger.Notices(c.Context(), a.Name)
	if err != nil {
		return nil, nil, err
	}
	brand, last := "", outreach.Day(-1)
	for i := range a.Uses {
		if u := &a.Uses[i]; u.Last() > last {
			brand, last = u.Brand, u.Last()
		}
	}
	var s *outreach.Schedule
	if o.Config.Outreach.Notices != nil {
		s = outreach.NewSchedule(o.Config.Outreach)
	}
	b := o.brand(brand)
	return outreach.NewSupport(o.Policy, s, a, notices, o.Ledger.Marks().Case(a.Name), b, lang, o.Zone, o.now()), b, nil
}

// supportHeads are the headings of the view.
var supportHeads = map[string]map[string]string{
	"de": {
		"say": "SAGEN", "account": "Konto", "case": "Vorgang", "seen": "gesehen", "to": "bis", "never": "nie gesehen", "steps": "Schritte", "values": "Werte",
		"open": "ZU ÄNDERN", "silent": "ZU ÄNDERN, länger nicht gesehen", "fixed": "erledigt", "exempt": "Ausnahme", "ok": "in Ordnung",
		"watched": "umgestellt", "changed": "umgestellt am %v, wird bis %v beobachtet: %s",
		"verify": "Zuerst prüfen, wer anruft; erst danach Geräte vorlesen.",
		"since":  "seit", "exception": "Ausnahme %s bis %s: %s (%s)", "right": "zuletzt richtig",
		"notices": "BENACHRICHTIGUNGEN", "none": "keine", "told": "PROXY SAGTE ZULETZT", "nothing": "nichts", "next": "nächste",
		"bounced": "eine Benachrichtigung kam zurück am", "call": "wird angerufen, seit",
	},
	"en": {
		"say": "SAY", "account": "Account", "case": "case", "seen": "seen", "to": "to", "never": "never seen", "steps": "Steps", "values": "Values",
		"open": "TO CHANGE", "silent": "TO CHANGE, not seen for a while", "fixed": "done", "exempt": "exception", "ok": "fine",
		"watched": "changed", "changed": "changed on %v, watched until %v: %s",
		"verify": "Check first who is calling, and read out devices only after that.",
		"since":  "since", "exception": "exception %s until %s: %s (%s)", "right": "last right on",
		"notices": "NOTICES", "none": "none", "told": "THE PROXY LAST SAID", "nothing": "nothing", "next": "next",
		"bounced": "a notice came back on", "call": "is called instead, since",
	},
}

const supportWidth = 92

// showSupport prints the view.
func showSupport(out io.Writer, s *outreach.Support) {
	w := supportHeads[s.Lang]
	seen := w["never"]
	if s.Last != 0 {
		seen = fmt.Sprintf("%s %v %s %v", w["seen"], s.First, w["to"], s.Last)
	}
	fmt.Fprintf(out, "%s\n\n%s %s, %s %s, %s\n\n%s\n", w["verify"], w["account"], printable(s.Account), w["case"], s.Case, seen, w["say"])
	for _, sentence := range s.Say {
		indented(out, "  ", "  ", sentence)
	}
	for i, d := range s.Devices {
		fmt.Fprintf(out, "\n%d. %s, %s: %s\n", i+1, printable(d.Name), protocolName(d.Protocol), w[d.State])
		for _, line := range d.Seen {
			indented(out, "   - ", "     ", line)
		}
		for _, f := range d.Wrong {
			showWrong(out, w, f)
		}
		if d.Change != "" {
			indented(out, "   ", "   ", d.Change)
		}
		if len(d.Steps) > 0 {
			fmt.Fprintf(out, "   %s\n", w["steps"])
			for i, step := range d.Steps {
				head := fmt.Sprintf("   %2d. ", i+1)
				indented(out, head, strings.Repeat(" ", len(head)), step)
			}
		}
		if len(d.Settings) > 0 {
			fmt.Fprintf(out, "   %s\n", w["values"])
			for _, v := range d.Settings {
				indented(out, "       ", "         ", v.Label+": "+v.Value)
			}
		}
	}
	fmt.Fprintf(out, "\n%s\n", w["told"])
	if s.Told == nil {
		fmt.Fprintf(out, "  %s\n", w["nothing"])
	} else {
		fmt.Fprintf(out, "  %v %v (%s)\n", s.Told.Day, s.Told.Action, printable(s.Told.Rule))
	}
	fmt.Fprintf(out, "\n%s\n", w["notices"])
	if len(s.Notices) == 0 {
		fmt.Fprintf(out, "  %s\n", w["none"])
	}
	for _, n := range s.Notices {
		line := fmt.Sprintf("%-6s %v %s", n.Step, n.Day, n.State)
		if n.Said != "" {
			line += ": " + n.Said
		}
		indented(out, "  ", "         ", line)
	}
	if s.Bounced != 0 {
		fmt.Fprintf(out, "  %s %v\n", w["bounced"], s.Bounced)
	}
	if s.Call != 0 {
		fmt.Fprintf(out, "  %s %v\n", w["call"], s.Call)
	}
	indented(out, "  ", "  ", w["next"]+": "+s.Next)
}

func showWrong(out io.Writer, w map[string]string, f outreach.SupportFinding) {
	line := fmt.Sprintf("%s, %s, %s %v: %s", w[string(f.State)], f.Rule, w["since"], f.First, f.Meaning)
	switch f.State {
	case outreach.Watched:
		line = fmt.Sprintf(w["changed"], f.Changed, f.Until, f.Rule)
	case outreach.Fixed:
		line = fmt.Sprintf("%s, %s: %s %v", w["fixed"], f.Rule, w["right"], f.Fixed)
	}
	indented(out, "   * ", "     ", line)
	if e := f.Exception; e != nil {
		indented(out, "     ", "     ", fmt.Sprintf(w["exception"], e.ID, e.Until, e.Reason, e.Owner))
	}
}

// protocolName is what people call a protocol.
func protocolName(protocol string) string {
	if protocol == string(config.Submission) {
		return "SMTP"
	}
	return strings.ToUpper(protocol)
}

// indented prints a text, wrapped.
func indented(out io.Writer, first, rest, text string) {
	for _, line := range wrap(onOneLine(text), supportWidth-len(rest)) {
		fmt.Fprintln(out, first+line)
		first = rest
	}
}

// trial is a customer trying while somebody watches.
type trial struct {
	out     io.Writer
	account string
	brand   *config.Brand
	lang    string
	policy  *policy.Policy
	zone    *time.Location

	shown map[string]string // by session: what was said of it last
}

var trialWords = map[string]map[string]string{
	"de": {
		"begin":    "Ich sehe jetzt %v lang jede Anmeldung. Bitten Sie den Kunden, E-Mails abzurufen und eine zu senden. Strg-C beendet.",
		"places":   "Abgewiesene Anmeldungen ohne Kontonamen: auch von den Adressen, die das Konto in den letzten 24 Stunden benutzte (%d).",
		"noplaces": "Das Konto hat sich seit 24 Stunden nicht angemeldet: Was ohne Kontonamen abgewiesen wird, ist hier nicht zu sehen.",
		"end":      "Die Zeit ist um.", "none": "Es kam keine Anmeldung an. Ist das Gerät mit dem Internet verbunden, und stimmt der Servername?",
		"whose": "von derselben Adresse, Konto unbekannt",
		"good":  "angemeldet, alles richtig", "good next": "Dieses Gerät ist fertig.",
		"kept": "angemeldet, aber die Einstellung ist veraltet", "kept sees": "Der Kunde sieht nichts Besonderes.",
		"warned sees":  "Der Kunde sieht vielleicht einen Hinweis; die Anmeldung gelingt.",
		"refused":      "abgewiesen, die Einstellung ist veraltet",
		"refused sees": "Der Kunde sieht eine Fehlermeldung, oft eine Frage nach dem Passwort. Am Passwort liegt es nicht.",
		"later":        "vorübergehend abgewiesen (Probe-Abschaltung)",
		"credential":   "Benutzername oder Passwort falsch", "credential sees": "Der Kunde sieht „Anmeldung fehlgeschlagen“ und wird nach dem Passwort gefragt.",
		"credential next": "Benutzername prüfen (ganze Adresse?), dann das Passwort neu eintippen lassen.",
		"mechanism":       "Anmeldeverfahren, das es hier nicht gibt", "mechanism next": "Authentifizierung auf normales Passwort stellen.",
		"no_access": "Passwort richtig, aber das Postfach ist zu", "no_access next": "Den Zustand des Kontos in der Kundenverwaltung ansehen.",
		"unavailable": "unser Mailserver ist nicht zu erreichen", "unavailable next": "Das liegt an uns: Betrieb verständigen, später noch einmal versuchen.",
		"login_needed": "das Programm meldet sich nicht an", "login_needed next": "Beim Postausgang die Authentifizierung einschalten.",
		"handshake": "keine verschlüsselte Verbindung zustande gekommen", "handshake sees": "Der Kunde sieht einen Zertifikats- oder Verbindungsfehler.",
		"handshake next": "Servernamen, Port und Verschlüsselung prüfen: %s.",
		"left":           "verbunden, aber keine Anmeldung", "left next": "Abwarten, ob das Programm es noch einmal versucht.",
	},
	"en": {
		"begin":    "Each login is shown for %v. Ask the customer to fetch mail and to send one. Ctrl-C ends it.",
		"places":   "Logins refused without an account: also from the addresses that the account used in the last 24 hours (%d).",
		"noplaces": "The account has not logged in for 24 hours: what is refused without an account is not seen here.",
		"end":      "The time is up.", "none": "No login arrived. Is the device on the Internet, and is the server name right?",
		"whose": "from the same address, account unknown",
		"good":  "logged in, all is right", "good next": "This device is done.",
		"kept": "logged in, but the setting is out of date", "kept sees": "The customer sees nothing unusual.",
		"warned sees":  "The customer may see a hint; the login succeeds.",
		"refused":      "refused, the setting is out of date",
		"refused sees": "The customer sees an error, often a question for the password. The password is not the reason.",
		"later":        "refused for now (a trial outage)",
		"credential":   "wrong user name or password", "credential sees": "The customer sees that the login failed, and is asked for the password.",
		"credential next": "Check the user name (the whole address?), then have the password typed anew.",
		"mechanism":       "a way to log in that there is not here", "mechanism next": "Set authentication to normal password.",
		"no_access": "right password, but the mailbox is closed", "no_access next": "Look at the state of the account in customer management.",
		"unavailable": "our mail server cannot be reached", "unavailable next": "That is ours: tell operations, and try again later.",
		"login_needed": "the program does not log in", "login_needed next": "Switch authentication on for outgoing mail.",
		"handshake": "no encrypted connection came about", "handshake sees": "The customer sees an error about a certificate or the connection.",
		"handshake next": "Check server name, port and encryption: %s.",
		"left":           "connected, and no login", "left next": "Wait whether the program tries again.",
	},
}

// run watches until the time is up, or the user ends it.
func (t *trial) run(ctx context.Context, c *config.Config, wait time.Duration) error {
	if c.State == "" {
		return withHint(errors.New("the configuration has no state, so the running proxy cannot be watched"), "set state to a directory, and restart the proxy")
	}
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	now := time.Now()
	places, err := placesOf(eventsPath(c), t.account, now)
	if err != nil {
		return err
	}
	w, err := openWatch(ctx, watchSocket(c.State), t.account, places)
	if err != nil {
		return err
	}
	words := trialWords[t.lang]
	fmt.Fprintln(t.out)
	indented(t.out, "", "", fmt.Sprintf(words["begin"], wait))
	if len(places) > 0 {
		indented(t.out, "", "", fmt.Sprintf(words["places"], len(places)))
	} else {
		indented(t.out, "", "", words["noplaces"])
	}
	t.shown = map[string]string{}
	err = w.each(ctx, func(e *events.Session) bool { t.show(e); return true })
	if ctx.Err() == nil {
		return err
	}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		fmt.Fprintf(t.out, "\n%s\n", words["end"])
	}
	if len(t.shown) == 0 {
		fmt.Fprintln(t.out, words["none"])
	}
	return nil
}

// placesOf are the addresses, by IPv6 network of a line, that an account used within a day, the
// last first.
func placesOf(dir, account string, now time.Time) (places []netip.Prefix, err error) {
	const day = 24 * time.Hour
	files, err := filepath.Glob(filepath.Join(dir, "*.jsonl"))
	if err != nil {
		return nil, fmt.Errorf("reading events: %w", err)
	}
	slices.Sort(files)
	last := map[netip.Prefix]time.Time{}
	for _, file := range files {
		info, err := os.Stat(file)
		if err != nil || now.Sub(info.ModTime()) > day+time.Hour {
			continue // deleted meanwhile, or of other days
		}
		r := &events.Reader{Only: account}
		if err := r.FromPath(file, func(e *events.Session) bool {
			ip := e.IP.Unmap().WithZone("")
			if e.Account != account || !ip.IsValid() || now.Sub(e.Time) > day {
				return true
			}
			bits := 32
			if ip.Is6() {
				bits = 64
			}
			if p, err := ip.Prefix(bits); err == nil && e.Time.After(last[p]) {
				last[p] = e.Time
			}
			return true
		}); err != nil {
			return nil, eventsHint(err)
		}
	}
	for p := range last {
		places = append(places, p)
	}
	slices.SortFunc(places, func(a, b netip.Prefix) int { return cmp.Or(last[b].Compare(last[a]), a.Addr().Compare(b.Addr())) })
	return places[:min(len(places), mostNetworks)], nil
}

// show prints a login, what the customer sees, and the next step. A session is told of when it
// logs in and when it ends: the same is not said twice.
func (t *trial) show(e *events.Session) {
	w := trialWords[t.lang]
	what, sees, next := t.judge(e)
	if t.shown[e.ID] == what {
		return
	}
	t.shown[e.ID] = what
	encryption := "-"
	switch e.TLS {
	case "":
	case policy.None:
		encryption = map[string]string{"de": "unverschlüsselt", "en": "unencrypted"}[t.lang]
	default:
		encryption = "TLS " + e.TLS
	}
	class, program := fixes.Classify(e.Protocol, e.ClientID, e.Hello, e.Mechanism)
	parts := []string{fmt.Sprintf("%s %d", protocolName(e.Protocol), e.Port), encryption}
	for _, p := range []string{e.SNI, e.Mechanism, outreach.ProgramName(class, program, t.lang)} {
		if p != "" {
			parts = append(parts, p)
		}
	}
	if e.Account != t.account {
		parts = append(parts, w["whose"])
	}
	fmt.Fprintf(t.out, "\n%s  %s\n", e.Time.In(t.zone).Format("15:04:05"), printable(strings.Join(parts, ", ")))
	indented(t.out, "  => ", "     ", what)
	if sees != "" {
		indented(t.out, "     ", "     ", sees)
	}
	for i, step := range next {
		head := "  -> "
		if len(next) > 1 {
			head = fmt.Sprintf("  %2d. ", i+1)
		}
		indented(t.out, head, strings.Repeat(" ", len(head)), step)
	}
}

// judge says what became of a login, what the customer sees, and what to do.
func (t *trial) judge(e *events.Session) (what, sees string, next []string) {
	w := trialWords[t.lang]
	by := ""
	if len(e.By) > 0 {
		by = " (" + strings.Join(e.By, ", ") + ")"
	}
	var action policy.Action
	if action.UnmarshalText([]byte(e.Action)) != nil {
		action = policy.Pass
	}
	own := func() (what, sees string, next []string) { // in the words of what has refused
		return w[e.Refused], cmp.Or(w[e.Refused+" sees"], w["refused sees"]), []string{w[e.Refused+" next"]}
	}
	switch {
	case slices.Contains([]string{"credential", "no_access", "unavailable"}, e.Refused): // by the backend, which over TLS is asked before policy refuses
		return own()
	case action == policy.TempFail:
		return w["later"] + by, w["refused sees"], t.steps(e)
	case action.Refuses():
		return w["refused"] + by, w["refused sees"], t.steps(e)
	case e.Verified && len(e.By) > 0:
		sees = w["kept sees"]
		if e.Told {
			sees = w["warned sees"]
		}
		return w["kept"] + by, sees, t.steps(e)
	case e.Verified:
		return w["good"], "", []string{w["good next"]}
	case w[e.Refused+" next"] != "":
		return own()
	case strings.HasPrefix(e.Reason, "handshake") || e.Alert != "":
		v := outreach.ValuesOf(t.brand, e.Protocol)
		settings := fixes.Settings(fixes.Unknown, e.Protocol, t.lang, v)
		var values []string
		for _, s := range settings[:3] { // server, port, security
			values = append(values, s.Label+" "+s.Value)
		}
		return w["handshake"], w["handshake sees"], []string{fmt.Sprintf(w["handshake next"], strings.Join(values, ", "))}
	}
	return w["left"], "", []string{w["left next"]}
}

// steps are what to do in the program, for what a login violated.
func (t *trial) steps(e *events.Session) (steps []string) {
	var kinds []policy.Finding
	for _, r := range t.policy.Requirements() {
		if f := outreach.Meant(r.Finding, e.TLS); slices.Contains(e.By, r.ID) && !slices.Contains(kinds, f) {
			kinds = append(kinds, f)
		}
	}
	class, _ := fixes.Classify(e.Protocol, e.ClientID, e.Hello, e.Mechanism)
	v := outreach.ValuesOf(t.brand, e.Protocol)
	if e.UserForm == "bare" && slices.Contains(kinds, policy.FindingUserForm) {
		v.User = t.account
	}
	for _, s := range fixes.Steps(class, e.Protocol, kinds, t.lang, v) {
		steps = append(steps, string(s))
	}
	return steps
}
