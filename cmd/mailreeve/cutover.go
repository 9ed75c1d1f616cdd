package main

// The demo's cutover: plaintext comes to its end within minutes, and a client that
// never changes shows what its user would meet.

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"mailreeve/demo"
	"mailreeve/policy"
)

// cutoverStages are what the demo goes through.
var cutoverStages = []struct {
	do   policy.Action
	what string
}{
	{policy.Observe, "nothing is to be seen, but the event says so"},
	{policy.Warn, "the login works; IMAP shows a sentence, once a day for each account and program (those without a name are one)"},
	{policy.TempFail, "a trial: it is refused for now, in words that are not those of a wrong password"},
	{policy.Deny, "it is refused; only TLS is left"},
}

// cutover is the plan of a demo.
type cutover struct {
	began time.Time
	pace  time.Duration // from stage to stage
	path  string        // of the policy
	zone  *time.Location
}

// planCutover makes a plan that begins now.
func planCutover(dir string, pace time.Duration) *cutover {
	return &cutover{began: time.Now().Truncate(time.Second), pace: pace, path: filepath.Join(dir, "policy.yaml"), zone: localZone()}
}

// localZone is the time zone of this machine by its name, or else UTC: a policy
// file wants a name.
func localZone() *time.Location {
	name := os.Getenv("TZ")
	if link, err := os.Readlink("/etc/localtime"); err == nil && name == "" {
		_, name, _ = strings.Cut(link, "zoneinfo/")
	}
	if zone, err := time.LoadLocation(name); err == nil && name != "Local" && !strings.ContainsAny(name, "'\n") {
		return zone // LoadLocation takes nothing for UTC
	}
	return time.UTC
}

// at is when a stage begins.
func (c *cutover) at(stage int) time.Time {
	return c.began.Add(time.Duration(stage) * c.pace).In(c.zone)
}

// write writes the policy file: what a provider would plan over months.
func (c *cutover) write() error {
	var y strings.Builder
	name := c.zone.String()
	fmt.Fprintf(&y, written+`
version: 1
timezone: %s
requirements:
  - id: encrypted
    finding: plaintext
    require: { tls: '>=1.2' }
    stages:
`, name)
	for i, s := range cutoverStages {
		fmt.Fprintf(&y, "      - { from: %s, do: %v }\n", c.at(i).Format(time.RFC3339), s.do)
	}
	y.WriteString(`  # What nobody shall do at all, as without a policy file:
  - id: modern-tls
    finding: tls_old
    require: { tls: { not_in: ['1.0', '1.1'] } }
    stages: [{ from: 2000-01-01, do: refuse }]
  - id: canonical-host
    finding: legacy_hostname
    require: { host: [canonical, absent] }
    stages: [{ from: 2000-01-01, do: deny }]
  - id: password-only
    finding: mechanism
    require: { mechanism: [PLAIN, LOGIN, USERPASS, XOAUTH2, OAUTHBEARER] }
    stages: [{ from: 2000-01-01, do: deny }]
never:
  - { match: { tls: '>=1.2', mechanism: PLAIN, host: canonical }, do: warn }
tests:
`)
	for i, s := range cutoverStages {
		fmt.Fprintf(&y, "  - { at: %s, is: { tls: none, mechanism: PLAIN }, expect: %v, by: [encrypted] }\n", c.at(i).Format(time.RFC3339), s.do)
	}
	y.WriteString(`  - { at: 2000-01-01, is: { tls: '1.1' }, expect: refuse, by: [modern-tls] }
  - { at: 2000-01-01, is: { tls: '1.3', host: legacy }, expect: deny, by: [canonical-host] }
  - { at: 2000-01-01, is: { tls: '1.3', mechanism: NTLM }, expect: deny, by: [password-only] }
`)
	return os.WriteFile(c.path, []byte(y.String()), 0o600)
}

// welcome says what to look at.
func (c *cutover) welcome(s *screen, dir string, p demoPorts) string {
	var b strings.Builder
	b.WriteString(s.paint(green, "Logins in clear come to their end, by "+c.path+":") + "\n")
	for i, stage := range cutoverStages {
		fmt.Fprintf(&b, "  %s  %-9v %s\n", c.at(i).Format("15:04:05"), stage.do, stage.what)
	}
	program := "mailreeve"
	if _, err := exec.LookPath(program); err != nil {
		program = shellWord(executable())
	}
	conf := "-c " + shellWord(filepath.Join(dir, "mailreeve.yaml"))
	b.WriteString(strings.NewReplacer("{password}", demo.Password, "{user}", "-u anna@demo.example:"+demo.Password, "{imap}", fmt.Sprint(p.imap), "{pop3}", fmt.Sprint(p.pop3),
		"{submission}", fmt.Sprint(p.submission), "{ca}", shellWord(filepath.Join(dir, "ca.pem")), "{program}", program, "{conf}", conf).Replace(
		`Paste these again in each stage, in clear:
  curl -sv {user} 'imap://localhost:{imap}/INBOX;UID=1' 2>&1 | grep '^<'
  printf 'USER anna@demo.example\r\nPASS {password}\r\nSTAT\r\nQUIT\r\n' | curl -s telnet://localhost:{pop3}
  printf 'Subject: Hello\r\n\r\n' | curl -sv {user} --mail-from anna@demo.example --mail-rcpt bert@demo.example -T - smtp://localhost:{submission} 2>&1 | grep '^<'
or set a mail program so, without encryption, and let it log in anew (IMAP stays connected: restart the program):
  incoming  IMAP  localhost, port {imap}, or POP3, port {pop3}; normal password, in clear
  outgoing  SMTP  localhost, port {submission}; normal password, in clear
and this, over TLS, which works in all of them:
  curl -sv {user} --cacert {ca} --ssl-reqd 'imap://localhost:{imap}/INBOX;UID=1' 2>&1 | grep '^<'
See what is in force, stop it, let it go on, and ask why:
  {program} policy show {conf}
  {program} policy hold {conf} --cap notify --for 5m --reason 'too early'
  {program} policy lift {conf}
  {program} policy explain ID {conf}   (with the id at the end of a line below, in place of ID)
A client of bert's that never changes logs in by itself in each stage.

`))
	return b.String()
}

// play logs in to IMAP in clear, as an old program does, and shows what passes.
func (s *screen) play(port uint16) {
	say := func(mark, line string) {
		s.mu.Lock()
		defer s.mu.Unlock()
		fmt.Fprintln(s.out, s.paint(dim, "    "+mark+" "+shortened(onOneLine(line))))
	}
	conn, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", port), 5*time.Second)
	if err != nil {
		say("!", err.Error())
		return
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	lines := bufio.NewReader(io.LimitReader(conn, 64<<10))
	hear := func(tag string) error {
		for {
			line, err := lines.ReadString('\n')
			if err != nil {
				return err
			}
			line = strings.TrimRight(line, "\r\n")
			say("<", line)
			if strings.HasPrefix(line, tag+" ") {
				return nil
			}
		}
	}
	err = hear("*")
	for tag, command := range []string{"CAPABILITY", "LOGIN bert@demo.example " + demo.Password, "LOGOUT"} {
		if err != nil {
			break
		}
		name := fmt.Sprintf("a%d", tag+1)
		say(">", name+" "+command)
		if _, err = fmt.Fprintf(conn, "%s %s\r\n", name, command); err == nil {
			err = hear(name)
		}
	}
	if err != nil && !errors.Is(err, io.EOF) {
		say("!", err.Error())
	}
}

// stage tells that something of the policy has begun.
func (s *screen) stage(c coming) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Fprintln(s.out, s.paint(yellow, c.at.Local().Format("15:04:05")+"  policy     "+printable(c.text)))
}

// shortened leaves out what no honest server says in a line.
func shortened(line string) string {
	const most = 250
	if len(line) > most {
		return strings.ToValidUTF8(line[:most], "") + " ..."
	}
	return line
}
