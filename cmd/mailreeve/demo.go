package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap/zapcore"
	"golang.org/x/term"

	"mailreeve/certs"
	"mailreeve/demo"
	"mailreeve/proxy"
)

// demoPorts are the ports of the demo, each with its flag.
type demoPorts struct {
	imaps, pop3s, submissions, submission uint16

	cutover    bool // the following are there too
	imap, pop3 uint16
}

func newDemo() *cobra.Command {
	var dir string
	var pace time.Duration
	var ports demoPorts
	c := &cobra.Command{
		Use:   "demo",
		Short: "Try it: a small mail provider and the proxy before it, on this machine alone",
		Long: `Start a small IMAP, POP3 and submission server with two accounts, in memory, and
the proxy before it with certificates of its own, on 127.0.0.1. It prints what to
paste and then shows each session as one line, until Ctrl-C.

With --cutover there are IMAP and POP3 in clear too, and a policy that ends logins in
clear within minutes: observe, warn, tempfail, deny. It stands in policy.yaml beside
the configuration, and the commands under ` + "`mailreeve policy`" + ` can be tried on it.`,
		Example: `  mailreeve demo
  mailreeve demo --cutover
  mailreeve demo --cutover --pace 20s --dir /tmp/demo`,
		Args: noArgs,
	}
	c.Flags().BoolVar(&ports.cutover, "cutover", false, "show how logins in clear come to their end, within minutes")
	c.Flags().DurationVar(&pace, "pace", 75*time.Second, "with --cutover: `time` from stage to stage")
	c.RunE = func(c *cobra.Command, _ []string) error {
		switch {
		case pace < time.Second || pace > time.Hour:
			return &hinted{err: fmt.Errorf("--pace %v: it is no time from 1s to 1h", pace), hint: "write 20s, or leave it out", usage: true}
		case !ports.cutover:
			pace = 0
		}
		return runDemo(c, dir, ports, pace)
	}
	c.Flags().StringVar(&dir, "dir", "", "keep ca.pem, mailreeve.yaml and events.jsonl in this `directory`")
	for _, p := range allListeners(&ports) {
		*p.port = p.standard
		c.Flags().Var((*portFlag)(p.port), p.flag, "`port` for "+p.what)
	}
	return c
}

// demoListener is one port of the demo.
type demoListener struct {
	name, protocol, tls string
	flag, what          string
	standard            uint16
	port                *uint16
}

// demoListeners are those that are opened.
func demoListeners(p *demoPorts) []demoListener {
	all := allListeners(p)
	if !p.cutover {
		return all[:4]
	}
	return all
}

func allListeners(p *demoPorts) []demoListener {
	return []demoListener{
		{"imaps", "imap", "implicit", "imaps-port", "IMAP with TLS (993 in real life)", 9993, &p.imaps},
		{"pop3s", "pop3", "implicit", "pop3s-port", "POP3 with TLS (995)", 9995, &p.pop3s},
		{"submissions", "submission", "implicit", "submissions-port", "submission with TLS (465)", 9465, &p.submissions},
		{"submission", "submission", "starttls", "submission-port", "submission with STARTTLS (587)", 9587, &p.submission},
		{"imap", "imap", "starttls", "imap-port", "IMAP in clear, with --cutover (143)", 9143, &p.imap},
		{"pop3", "pop3", "starttls", "pop3-port", "POP3 in clear, with --cutover (110)", 9110, &p.pop3},
	}
}

// portFlag is a port on the command line.
type portFlag uint16

func (p *portFlag) String() string { return strconv.Itoa(int(*p)) }
func (p *portFlag) Type() string   { return "port" }

func (p *portFlag) Set(text string) error {
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil || n == 0 {
		return errors.New("it is no port; write a number from 1 to 65535")
	}
	*p = portFlag(n)
	return nil
}

func runDemo(c *cobra.Command, dir string, ports demoPorts, pace time.Duration) error {
	if err := ports.distinct(); err != nil {
		return err
	}
	signals, stop := heed()
	defer stop()
	kept := dir != ""
	if !kept {
		temporary, err := os.MkdirTemp("", "mailreeve-demo-")
		if err != nil {
			return withHint(err, "`mailreeve demo --dir DIRECTORY` takes one of yours")
		}
		defer os.RemoveAll(temporary)
		dir = temporary
	} else if err := claim(dir); err != nil {
		return err
	}
	// Before anything is written: the files may be those of another demo, which
	// still runs.
	if err := ports.try(); err != nil {
		return err
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	backends, err := demo.Start(demo.Options{})
	if err != nil {
		return err
	}
	defer backends.Close()
	if err := writeDemo(dir, ports, backends); err != nil {
		return dirHint(err)
	}
	show := newScreen(c.OutOrStdout())
	d := &daemonized{path: filepath.Join(dir, "mailreeve.yaml"), errors: zapcore.AddSync(c.ErrOrStderr())}
	var plan *cutover
	if ports.cutover {
		plan = planCutover(dir, pace)
		if err := plan.write(); err != nil {
			return dirHint(err)
		}
		var players sync.WaitGroup
		defer players.Wait()
		play := func() { players.Go(func() { show.play(ports.imap) }) }
		d.heard = func(c coming) {
			show.stage(c)
			play()
		}
		show.begun = play
	}
	show.mu.Lock() // the first session may be over before the welcome is said
	show.ready = func() {
		fmt.Fprint(show.out, welcome(show, dir, kept, ports, plan))
		show.mu.Unlock()
		if show.begun != nil {
			show.begun()
		}
	}
	if show.terminal != nil {
		d.gone = func() bool { return !term.IsTerminal(int(show.terminal.Fd())) }
	}
	return demoHint(d.run(signals, show), ports)
}

// distinct refuses one port for two listeners.
func (p demoPorts) distinct() error {
	all := demoListeners(&p)
	for i, l := range all {
		for _, other := range all[:i] {
			if *other.port == *l.port {
				return &hinted{err: fmt.Errorf("--%s and --%s are both %d", other.flag, l.flag, *l.port),
					hint: "give each its own, or leave them out: `mailreeve demo`", usage: true}
			}
		}
	}
	return nil
}

// try opens and closes the ports, to find those that cannot be had.
func (p demoPorts) try() error {
	var busy []error
	var numbers, flags []string
	for _, l := range demoListeners(&p) {
		socket, err := net.Listen("tcp", l.address())
		switch {
		case errors.Is(err, syscall.EADDRINUSE):
			busy = append(busy, demoHint(&proxy.ListenError{Listener: l.name, Address: l.address(), Err: err}, p))
			numbers = append(numbers, fmt.Sprint(*l.port))
			flags = append(flags, fmt.Sprintf("--%s %d", l.flag, p.other(*l.port)))
		case err != nil:
			return demoHint(&proxy.ListenError{Listener: l.name, Address: l.address(), Err: err}, p)
		default:
			socket.Close()
		}
	}
	switch last := len(busy) - 1; last {
	case -1:
		return nil
	case 0:
		return busy[0]
	default:
		return withHint(fmt.Errorf("ports %s and %s are in use, by another demo perhaps", strings.Join(numbers[:last], ", "), numbers[last]),
			"`mailreeve demo %s` takes others", strings.Join(flags, " "))
	}
}

func (l *demoListener) address() string { return fmt.Sprintf("127.0.0.1:%d", *l.port) }

// demoHint names the flag that changes a port that cannot be had.
func demoHint(err error, ports demoPorts) error {
	var l *proxy.ListenError
	if !errors.As(err, &l) {
		return err
	}
	for _, p := range demoListeners(&ports) {
		switch {
		case p.name != l.Listener:
		case errors.Is(err, syscall.EADDRINUSE):
			return withHint(fmt.Errorf("port %d is in use, by another demo perhaps", *p.port),
				"`mailreeve demo --%s %d` takes another port", p.flag, ports.other(*p.port))
		case errors.Is(err, syscall.EACCES):
			return withHint(fmt.Errorf("port %d is not yours to use: those below 1024 want root", *p.port),
				"`mailreeve demo --%s %d` takes another port", p.flag, ports.other(*p.port))
		}
	}
	return err
}

// other is a port that can be had instead.
func (p demoPorts) other(than uint16) uint16 {
	all := demoListeners(&p)
	for _, port := range []uint16{than + 1000, than + 2000, than + 10000, than - 1000} {
		taken := slices.ContainsFunc(all, func(l demoListener) bool { return *l.port == port })
		if taken || port < 1024 {
			continue
		}
		l := demoListener{port: &port}
		if socket, err := net.Listen("tcp", l.address()); err == nil {
			socket.Close()
			return port
		}
	}
	return 19993 // as good a guess as any
}

// written is the first line of the demo's configuration, by which it is known.
const written = `# Written by "mailreeve demo", anew at each start.`

// claim makes a directory ready for the demo's files. It refuses one that holds
// somebody's real ones, which would be written over.
func claim(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return dirHint(err)
	}
	foreign := ""
	if data, err := os.ReadFile(filepath.Join(dir, "mailreeve.yaml")); err == nil {
		if strings.HasPrefix(string(data), written) {
			return nil
		}
		foreign = "mailreeve.yaml"
	}
	for _, name := range []string{"policy.yaml", "server.pem", "server.key", "ca.pem"} {
		if _, err := os.Lstat(filepath.Join(dir, name)); err == nil && foreign == "" {
			foreign = name
		}
	}
	if foreign == "" {
		return nil
	}
	return withHint(fmt.Errorf("%s is not of a demo", filepath.Join(dir, foreign)),
		"the demo writes over mailreeve.yaml, policy.yaml, server.pem, server.key and ca.pem; give it a --dir of its own")
}

// dirHint says what to do about a directory that cannot be used.
func dirHint(err error) error {
	return withHint(err, "--dir wants a directory that you may write to; `mailreeve demo` alone makes one for the time being")
}

// writeDemo writes authority, certificate and configuration of the demo: the
// same kind of file that a provider would write.
func writeDemo(dir string, ports demoPorts, b *demo.Backends) error {
	ca, err := certs.NewAuthority("Mailreeve demo")
	if err != nil {
		return err
	}
	cert, err := ca.Issue(certs.Order{Hosts: []string{"imap.demo.example", "pop.demo.example", "smtp.demo.example", "localhost", "127.0.0.1", "::1"}})
	if err != nil {
		return err
	}
	if err := ca.WriteCA(filepath.Join(dir, "ca.pem")); err != nil {
		return err
	}
	if err := certs.Write(cert, certs.Pair{Cert: filepath.Join(dir, "server.pem"), Key: filepath.Join(dir, "server.key")}); err != nil {
		return err
	}
	var y strings.Builder
	fmt.Fprintf(&y, written+`
version: 1
hostname: mail.demo.example
brands:
  - name: demo
    language: en
    help: https://help.demo.example/mail
    hosts:
      imap: [localhost, imap.demo.example]
      pop3: [localhost, pop.demo.example]
      submission: [localhost, smtp.demo.example]
    ports: { imap: %d, pop3: %d, submission: %d }
listeners:
`, ports.imaps, ports.pop3s, ports.submissions)
	for _, p := range demoListeners(&ports) {
		fmt.Fprintf(&y, "  - { name: %s, address: '127.0.0.1:%d', protocol: %s, tls: %s }\n", p.name, *p.port, p.protocol, p.tls)
	}
	staged := ""
	if ports.cutover {
		staged = "policy: policy.yaml\nhold: hold.json\n"
	}
	fmt.Fprintf(&y, `certificates:
  files:
    - { cert: server.pem, key: server.key }
%sbackends:
  imap: { addresses: ['%v'], tls: off }
  pop3: { addresses: ['%v'], tls: off }
  submission: { addresses: ['%v'], tls: off }
limits: { connections: 1000 }
events: { file: events.jsonl, keep: 7d }
drain: { goodbye: 0s, deadline: 2s }
log: { level: warn, format: console }
`, staged, b.IMAP, b.POP3, b.Submission)
	return os.WriteFile(filepath.Join(dir, "mailreeve.yaml"), []byte(y.String()), 0o600)
}

// welcome says what to paste.
func welcome(s *screen, dir string, kept bool, p demoPorts, plan *cutover) string {
	fate := "Ctrl-C ends the demo and deletes them; --dir keeps them."
	if kept {
		fate = "Ctrl-C ends the demo."
	}
	login := "--cacert " + shellWord(filepath.Join(dir, "ca.pem")) + " -u anna@demo.example:" + demo.Password
	letter := "--mail-from anna@demo.example --mail-rcpt bert@demo.example"
	staged, refusals := "", `plaintext, then a server name of another service
  printf 'Subject: Hello\r\n\r\n' | curl -sv -u anna@demo.example:{password} {letter} -T - smtp://localhost:{submission} 2>&1 | grep '^<'`
	if plan != nil {
		staged, refusals = plan.welcome(s, dir, p), "a server name of another service"
	}
	return strings.NewReplacer("{staged}", staged, "{title}", s.paint(green, "Mailreeve stands before a small mail server on this machine."),
		"{columns}", s.paint(dim, columns), "{password}", demo.Password, "{dir}", dir, "{fate}", fate, "{ca}", filepath.Join(dir, "ca.pem"),
		"{trust}", shellWord(filepath.Join(dir, "ca.pem")), "{login}", login, "{letter}", letter,
		"{imaps}", fmt.Sprint(p.imaps), "{pop3s}", fmt.Sprint(p.pop3s), "{submissions}", fmt.Sprint(p.submissions), "{submission}", fmt.Sprint(p.submission),
	).Replace(strings.Replace(welcomeText, "{refusals}", refusals, 1))
}

const welcomeText = `{title}

Accounts:  anna@demo.example, bert@demo.example   password: {password}
CA file:   {ca}

Read mail:
  curl -sS {login} 'imaps://localhost:{imaps}/INBOX;UID=1'
  curl -sS {login} pop3s://localhost:{pop3s}/1
Send mail (it arrives in bert's mailbox):
  printf 'Subject: Hello\r\n\r\nHello Bert\r\n' | curl -sS {login} {letter} -T - smtps://localhost:{submissions}
See a refusal, in words: {refusals}
  curl -sv {login} --connect-to ::localhost:{imaps} imaps://pop.demo.example:{imaps}/ 2>&1 | grep '^<'
Talk to it yourself (then type, for example, "a login anna@demo.example {password}" or "ehlo me"):
  openssl s_client -CAfile {trust} -connect localhost:{imaps} -crlf -quiet
  openssl s_client -CAfile {trust} -connect localhost:{submission} -starttls smtp -crlf -quiet
In a mail program (import the CA file as an authority first):
  incoming  IMAP  localhost, port {imaps}, SSL/TLS, normal password
       or   POP3  localhost, port {pop3s}, SSL/TLS, normal password
  outgoing  SMTP  localhost, port {submissions}, SSL/TLS, or port {submission}, STARTTLS; normal password

{staged}Configuration and events are in {dir}. {fate}
Each session is a line here when it ends:

{columns}
`
