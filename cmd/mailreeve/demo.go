package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"go.uber.org/zap/zapcore"

	"mailreeve/certs"
	"mailreeve/demo"
	"mailreeve/proxy"
)

// demoPorts are the four ports of the demo, each with its flag.
type demoPorts struct {
	imaps, pop3s, submissions, submission uint16
}

func newDemo() *cobra.Command {
	var dir string
	var ports demoPorts
	c := &cobra.Command{
		Use:   "demo",
		Short: "Try it: a small mail provider and the proxy before it, on this machine alone",
		Long: `Start a small IMAP, POP3 and submission server with two accounts, in memory, and
the proxy before it with certificates of its own, on 127.0.0.1. It prints what to
paste and then shows each session as one line, until Ctrl-C.`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error { return runDemo(c, dir, ports) },
	}
	c.Flags().StringVar(&dir, "dir", "", "keep ca.pem, mailreeve.yaml and events.jsonl in this `directory`")
	for _, p := range demoListeners(&ports) {
		c.Flags().Uint16Var(p.port, p.flag, p.standard, fmt.Sprintf("`port` for %s", p.what))
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

func demoListeners(p *demoPorts) []demoListener {
	return []demoListener{
		{"imaps", "imap", "implicit", "imaps-port", "IMAP with TLS (993 in real life)", 9993, &p.imaps},
		{"pop3s", "pop3", "implicit", "pop3s-port", "POP3 with TLS (995)", 9995, &p.pop3s},
		{"submissions", "submission", "implicit", "submissions-port", "submission with TLS (465)", 9465, &p.submissions},
		{"submission", "submission", "starttls", "submission-port", "submission with STARTTLS (587)", 9587, &p.submission},
	}
}

func runDemo(c *cobra.Command, dir string, ports demoPorts) error {
	if dir == "" {
		temporary, err := os.MkdirTemp("", "mailreeve-demo-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(temporary)
		dir = temporary
	} else if err := os.MkdirAll(dir, 0o700); err != nil {
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
		return err
	}
	show := newScreen(c.OutOrStdout())
	show.ready = func() { fmt.Fprint(show.out, welcome(show, dir, ports)) }
	d := &daemonized{path: filepath.Join(dir, "mailreeve.yaml"), errors: zapcore.AddSync(c.ErrOrStderr())}
	return demoHint(d.run(show), ports)
}

// demoHint names the flag that changes a busy port.
func demoHint(err error, ports demoPorts) error {
	var l *proxy.ListenError
	if !errors.As(err, &l) || !errors.Is(err, syscall.EADDRINUSE) {
		return err
	}
	for _, p := range demoListeners(&ports) {
		if p.name == l.Listener {
			err = withHint(fmt.Errorf("port %d is in use, by another demo perhaps", *p.port),
				"`mailreeve demo --%s %d` takes another port", p.flag, *p.port+1000)
		}
	}
	return err
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
	fmt.Fprintf(&y, `# Written by "mailreeve demo", anew at each start.
version: 1
hostname: mail.demo.example
brands:
  - name: demo
    language: en
    help: https://help.demo.example/mail
    hosts:
      imap: [imap.demo.example, localhost]
      pop3: [pop.demo.example, localhost]
      submission: [smtp.demo.example, localhost]
    ports: { imap: %d, pop3: %d, submission: %d }
listeners:
`, ports.imaps, ports.pop3s, ports.submissions)
	for _, p := range demoListeners(&ports) {
		fmt.Fprintf(&y, "  - { name: %s, address: '127.0.0.1:%d', protocol: %s, tls: %s }\n", p.name, *p.port, p.protocol, p.tls)
	}
	fmt.Fprintf(&y, `certificates:
  files:
    - { cert: server.pem, key: server.key }
backends:
  imap: { addresses: ['%v'], tls: off }
  pop3: { addresses: ['%v'], tls: off }
  submission: { addresses: ['%v'], tls: off }
limits: { connections: 1000 }
events: { file: events.jsonl, keep: 7d }
drain: { goodbye: 0s, deadline: 2s }
log: { level: warn, format: console }
`, b.IMAP, b.POP3, b.Submission)
	return os.WriteFile(filepath.Join(dir, "mailreeve.yaml"), []byte(y.String()), 0o600)
}

// welcome says what to paste.
func welcome(s *screen, dir string, p demoPorts) string {
	ca := filepath.Join(dir, "ca.pem")
	return fmt.Sprintf(`%s

Accounts:  anna@demo.example, bert@demo.example   password: %s
CA file:   %s

Read mail:
  curl --cacert %s -u anna@demo.example:%s 'imaps://localhost:%d/INBOX;UID=1'
  curl --cacert %s -u anna@demo.example:%s pop3s://localhost:%d/1
Send mail (it arrives in bert's mailbox):
  printf 'Subject: Hello\r\n\r\nHello Bert\r\n' | curl --cacert %s -u anna@demo.example:%s \
    --mail-from anna@demo.example --mail-rcpt bert@demo.example -T - smtps://localhost:%d
Talk to it yourself:
  openssl s_client -CAfile %s -connect localhost:%d -crlf -quiet
  openssl s_client -CAfile %s -connect localhost:%d -starttls smtp -crlf -quiet
In a mail program (import the CA file as an authority first):
  incoming  IMAP  localhost, port %d, SSL/TLS, normal password
       or   POP3  localhost, port %d, SSL/TLS, normal password
  outgoing  SMTP  localhost, port %d, SSL/TLS, or port %d, STARTTLS; normal password
See a refusal: plaintext, and a server name of another service
  curl -u anna@demo.example:%s smtp://localhost:%d --mail-from anna@demo.example --mail-rcpt bert@demo.example -T /dev/null
  curl --cacert %s -u anna@demo.example:%s --resolve pop.demo.example:%d:127.0.0.1 imaps://pop.demo.example:%d/

Configuration and events are in %s. Ctrl-C ends the demo.

%s
`,
		s.paint(green, "Mailreeve stands before a small mail server on this machine."), demo.Password, ca,
		ca, demo.Password, p.imaps, ca, demo.Password, p.pop3s, ca, demo.Password, p.submissions,
		ca, p.imaps, ca, p.submission, p.imaps, p.pop3s, p.submissions, p.submission,
		demo.Password, p.submission, ca, demo.Password, p.imaps, p.imaps, dir,
		s.paint(dim, fmt.Sprintf("%-8s  %-10s %5s  %-8s  %-22s %-24s %s", "time", "protocol", "port", "security", "account", "program", "what became of it")))
}
