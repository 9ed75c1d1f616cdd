package interop

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// Clients are the mail programs that the tests use, each once per protocol that it speaks.
var Clients = []Client{
	// By itself curl 7.88 begins with DIGEST-MD5, breaks it off since Dovecot's challenge has
	// "md5-sess" in quotes, and goes on with CRAM-MD5 on the same connection.
	{
		Name: "curl IMAP", Protocol: IMAP, Programs: []string{"curl"},
		Mechanisms: []string{"PLAIN", "LOGIN", "CRAM-MD5", "OAUTHBEARER"},
		List:       func(s *session) error { return s.curl("imap", "INBOX?ALL") },
		Fetch: func(s *session) error {
			return s.curlEach("imap", "INBOX?ALL", imapFound, func(numbers string) error {
				return s.curl("imap", "INBOX;MAILINDEX="+numbers)
			})
		},
		Append: func(message string) Action {
			return func(s *session) error { return s.curl("imap", "INBOX", "--upload-file", s.file("message", message)) }
		},
		Delete: func(s *session) error {
			if err := s.curl("imap", "INBOX", "--request", `STORE 1:* +FLAGS \Deleted`); err != nil {
				return err
			}
			return s.curl("imap", "INBOX", "--request", "EXPUNGE")
		},
	},
	{
		Name: "curl POP3", Protocol: POP3, Programs: []string{"curl"},
		Mechanisms: []string{"PLAIN", "LOGIN", "CRAM-MD5", "APOP", "OAUTHBEARER"},
		List:       func(s *session) error { return s.curl("pop3", "") },
		Fetch: func(s *session) error {
			return s.curlEach("pop3", "", pop3Listed, func(numbers string) error { return s.curl("pop3", numbers) })
		},
		Delete: func(s *session) error {
			return s.curlEach("pop3", "", pop3Listed, func(numbers string) error {
				return s.curl("pop3", numbers, "--head", "--request", "DELE")
			})
		},
	},
	{
		Name: "curl SMTP", Protocol: Submission, Programs: []string{"curl"},
		Mechanisms: []string{"PLAIN", "LOGIN", "CRAM-MD5", "OAUTHBEARER"},
		Send: func(from, to Account, message string) Action {
			return func(s *session) error {
				return s.curl("smtp", "client.example", "--mail-from", from.User, "--mail-rcpt", to.User,
					"--upload-file", s.file("message", message))
			}
		},
	},
	{
		Name: "fetchmail IMAP", Protocol: IMAP, Programs: []string{"fetchmail"},
		Mechanisms: []string{"CRAM-MD5"},
		List:       fetchmail("imap", "keep", "--check"),
		Fetch:      fetchmail("imap", "keep"),
		Delete:     fetchmail("imap", "no keep"),
	},
	{
		Name: "fetchmail POP3", Protocol: POP3, Programs: []string{"fetchmail"},
		Mechanisms: []string{"CRAM-MD5", "APOP"},
		List:       fetchmail("pop3", "keep", "--check"),
		Fetch:      fetchmail("pop3", "keep"),
		Delete:     fetchmail("pop3", "no keep"),
	},
	{
		Name: "mbsync", Protocol: IMAP, Programs: []string{"mbsync"},
		Mechanisms: []string{"PLAIN", "CRAM-MD5", "DIGEST-MD5", "SCRAM-SHA-1", "SCRAM-SHA-256"},
		List:       func(s *session) error { return s.mbsync("--list") },
		Fetch: func(s *session) error {
			defer s.say("mail/INBOX/*/*")
			return s.mbsync()
		},
		Append: func(message string) Action {
			return func(s *session) error {
				s.maildir("mail/INBOX")
				s.file("mail/INBOX/cur/1.interop:2,S", unix(message))
				return s.mbsync()
			}
		},
		Delete: func(s *session) error {
			if err := s.mbsync(); err != nil {
				return err
			}
			s.trash("mail/INBOX")
			return s.mbsync()
		},
	},
	// APOP it has, too, but mpop 1.4 does not believe in Dovecot's time stamps, as they have a
	// = in them.
	{
		Name: "mpop", Protocol: POP3, Programs: []string{"mpop"},
		Mechanisms: []string{"PLAIN", "LOGIN", "CRAM-MD5", "DIGEST-MD5", "SCRAM-SHA-1", "SCRAM-SHA-256"},
		List:       func(s *session) error { return s.mpop("keep on", "--status-only") },
		Fetch: func(s *session) error {
			defer s.say("mail/*/*")
			return s.mpop("keep on")
		},
		Delete: func(s *session) error { return s.mpop("keep off") },
	},
	{
		Name: "msmtp", Protocol: Submission, Programs: []string{"msmtp"},
		Mechanisms: []string{"PLAIN", "LOGIN", "CRAM-MD5", "DIGEST-MD5", "SCRAM-SHA-1", "SCRAM-SHA-256"},
		Send: func(from, to Account, message string) Action {
			return func(s *session) error {
				return s.run(message, "msmtp", "--debug", "--file", s.file("msmtprc", s.marlam()), "--from", from.User, "--", to.User)
			}
		},
	},
	// With a wrong password neomutt tries all that is offered on one connection: up to three
	// refusals for one login.
	{
		Name: "neomutt IMAP", Protocol: IMAP, Programs: []string{"neomutt", "python3"},
		Mechanisms: []string{"PLAIN"},
		List:       func(s *session) error { return s.neomutt("imap", s.mailbox("imap", "INBOX"), "") },
		Fetch: func(s *session) error {
			defer s.say("fetched")
			return s.neomutt("imap", s.mailbox("imap", "INBOX"), "<tag-pattern>~A<enter><tag-prefix><copy-message>"+s.home+"/fetched<enter>")
		},
		Append: func(message string) Action {
			return func(s *session) error {
				box := s.maildir("mail")
				s.file("mail/cur/1.interop:2,S", message)
				return s.neomutt("imap", box, "<copy-message><kill-line>"+s.mailbox("imap", "INBOX")+"<enter>")
			}
		},
		Delete: func(s *session) error {
			return s.neomutt("imap", s.mailbox("imap", "INBOX"), "<delete-pattern>~A<enter>")
		},
	},
	{
		Name: "neomutt POP3", Protocol: POP3, Programs: []string{"neomutt", "python3"},
		Mechanisms: []string{"APOP"},
		List:       func(s *session) error { return s.neomutt("pop", s.mailbox("pop", ""), "") },
		Fetch: func(s *session) error {
			defer s.say("fetched")
			return s.neomutt("pop", s.mailbox("pop", ""), "<tag-pattern>~A<enter><tag-prefix><copy-message>"+s.home+"/fetched<enter>")
		},
		Delete: func(s *session) error { return s.neomutt("pop", s.mailbox("pop", ""), "<delete-pattern>~A<enter>") },
	},
	{
		Name: "neomutt SMTP", Protocol: Submission, Programs: []string{"neomutt", "python3"},
		Mechanisms: []string{"PLAIN", "LOGIN"},
		Send: func(from, to Account, message string) Action {
			return func(s *session) error {
				// The sender is the one in the message. Without any input neomutt finds the message
				// empty.
				return s.run("\n", "neomutt", "-n", "-F", s.neomuttrc("smtp"), "-H", s.file("draft", unix(message)))
			}
		},
	},
	{
		Name: "Python IMAP", Protocol: IMAP, Programs: []string{"python3"}, ASCII: true,
		Mechanisms: []string{"PLAIN", "CRAM-MD5"},
		List:       python(IMAP, "list", ""),
		Fetch:      python(IMAP, "fetch", ""),
		Append:     func(message string) Action { return python(IMAP, "append", message) },
		Delete:     python(IMAP, "delete", ""),
	},
	{
		Name: "Python POP3", Protocol: POP3, Programs: []string{"python3"},
		Mechanisms: []string{"APOP"},
		List:       python(POP3, "list", ""),
		Fetch:      python(POP3, "fetch", ""),
		Delete:     python(POP3, "delete", ""),
	},
	{
		Name: "Python SMTP", Protocol: Submission, Programs: []string{"python3"}, ASCII: true,
		Mechanisms: []string{"PLAIN", "LOGIN", "CRAM-MD5"},
		Send: func(from, to Account, message string) Action {
			return python(Submission, "send", message, from.User, to.User)
		},
	},
	{
		Name: "swaks", Protocol: Submission, Programs: []string{"swaks"},
		Mechanisms: []string{"PLAIN", "LOGIN", "CRAM-MD5"},
		Send: func(from, to Account, message string) Action {
			return func(s *session) error { return s.swaks(from, to, message) }
		},
	},
}

// unix returns the message with the line ends of files.
func unix(message string) string { return strings.ReplaceAll(message, "\r\n", "\n") }

// secure appends an s to the name of a protocol that is to begin with TLS.
func (s *session) secure(scheme string) string {
	if s.Entry == Implicit {
		return scheme + "s"
	}
	return scheme
}

// onOff is how mpop and msmtp like to read it; yesNo is neomutt's taste.
var (
	onOff = map[bool]string{true: "on", false: "off"}
	yesNo = map[bool]string{true: "yes", false: "no"}
)

// curl opens the URL that ends in the path. It may be used with any host name.
func (s *session) curl(scheme, path string, args ...string) error {
	args = append(args, "--silent", "--show-error", "--verbose", "--cacert", s.CAFile,
		"--resolve", fmt.Sprintf("%s:%d:127.0.0.1", s.Host, s.Port))
	if s.Entry == StartTLS {
		args = append(args, "--ssl-reqd")
	}
	switch s.Mechanism {
	case "":
		args = append(args, "--user", s.User+":"+s.Password)
	case "APOP":
		args = append(args, "--user", s.User+":"+s.Password, "--login-options", "AUTH=+APOP")
	case "OAUTHBEARER":
		args = append(args, "--user", s.User+":", "--oauth2-bearer", s.Password, "--login-options", "AUTH=OAUTHBEARER")
	default:
		args = append(args, "--user", s.User+":"+s.Password, "--login-options", "AUTH="+s.Mechanism)
	}
	return s.run("", "curl", append(args, s.secure(scheme)+"://"+s.Addr()+"/"+path)...)
}

// curlEach lists the messages and, if there are any, takes the action with the range of
// their numbers, as curl writes it.
func (s *session) curlEach(scheme, path string, numbers *regexp.Regexp, act func(numbers string) error) error {
	if err := s.curl(scheme, path); err != nil {
		return err
	}
	n := 0
	for _, found := range numbers.FindAllSubmatch(s.output.Bytes(), -1) {
		n += len(bytes.Fields(found[1]))
	}
	if n == 0 {
		return nil
	}
	return act(fmt.Sprintf("[1-%d]", n))
}

var (
	imapFound  = regexp.MustCompile(`(?m)^\* SEARCH((?: \d+)+)`)
	pop3Listed = regexp.MustCompile(`(?m)^(\d+) \d+\r?$`)
)

// fetchmail fetches all messages and says them; keep is "keep" or "no keep".
func fetchmail(protocol, keep string, args ...string) Action {
	return func(s *session) error {
		protocol, auth := protocol, ""
		switch s.Mechanism {
		case "":
		case "APOP":
			protocol = "apop"
		default:
			auth = "auth " + strings.ToLower(s.Mechanism)
		}
		tls := map[Entry]string{Plain: `sslproto ""`, StartTLS: `sslproto "TLS1.2+"`, Implicit: "ssl"}[s.Entry]
		rc := s.file("fetchmailrc", fmt.Sprintf(`poll %s service %d protocol %s %s
	user "%s" password "%s" %s sslcertck sslcertfile %q
	%s fetchall mda "cat"
`, s.Host, s.Port, protocol, auth, hexEscape(s.User), hexEscape(s.Password), tls, s.CAFile, keep))
		err := s.run("", "fetchmail", append(args, "--verbose", "--nosyslog", "--pidfile", s.home+"/pid", "--fetchmailrc", rc)...)
		if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && exit.ExitCode() == 1 {
			return nil // there is no mail
		}
		return err
	}
}

// hexEscape writes every byte as fetchmail reads it inside quotes.
func hexEscape(text string) string {
	var b strings.Builder
	for _, c := range []byte(text) {
		fmt.Fprintf(&b, `\x%02x`, c)
	}
	return b.String()
}

// mbsync synchronises the inbox with the Maildir mail/INBOX.
func (s *session) mbsync(args ...string) error {
	mechanism := s.Mechanism
	if mechanism == "" {
		mechanism = "*"
	}
	tls := map[Entry]string{Plain: "None", StartTLS: "STARTTLS", Implicit: "IMAPS"}[s.Entry]
	s.maildir("mail/INBOX")
	rc := s.file("mbsyncrc", fmt.Sprintf(`IMAPAccount proxy
Host %s
Port %d
User %s
PassCmd "cat %s"
AuthMechs %s
SSLType %s
CertificateFile %s
SystemCertificates no

IMAPStore far
Account proxy

MaildirStore near
Inbox %[8]s/mail/INBOX

Channel inbox
Far :far:
Near :near:
Patterns INBOX
SyncState %[8]s/
Expunge Both
`, s.Host, s.Port, s.User, s.file("password", s.Password), mechanism, tls, s.CAFile, s.home))
	return s.run("", "mbsync", append(args, "--verbose", "--config", rc, "inbox")...)
}

// trash marks all messages of a Maildir as deleted.
func (s *session) trash(maildir string) {
	s.t.Helper()
	files, err := filepath.Glob(filepath.Join(s.home, maildir, "[nc][eu][wr]", "*"))
	must(s.t, err)
	for _, file := range files {
		name, _, _ := strings.Cut(filepath.Base(file), ":")
		must(s.t, os.Rename(file, filepath.Join(s.home, maildir, "cur", name+":2,T")))
	}
}

// mpop fetches all messages into the Maildir mail; keep is "keep on" or "keep off".
func (s *session) mpop(keep string, args ...string) error {
	rc := s.file("mpoprc", s.marlam()+fmt.Sprintf("delivery maildir %s\nuidls_file %s/uidls\n%s\n", s.maildir("mail"), s.home, keep))
	return s.run("", "mpop", append(args, "--debug", "--file", rc)...)
}

// marlam returns what msmtp and mpop, by the same author, have in common.
func (s *session) marlam() string {
	auth := "on"
	if s.Mechanism != "" {
		auth = strings.ToLower(s.Mechanism)
	}
	return fmt.Sprintf(`account default
host %s
port %d
user %s
passwordeval cat %s
auth %s
tls %s
tls_starttls %s
tls_trust_file %s
`, s.Host, s.Port, s.User, s.file("password", s.Password), auth, onOff[s.Entry != Plain], onOff[s.Entry == StartTLS], s.CAFile)
}

// mailbox returns the URL under which neomutt opens a mailbox.
func (s *session) mailbox(scheme, path string) string {
	return s.secure(scheme) + "://" + strings.ReplaceAll(s.User, "@", "%40") + "@" + s.Addr() + "/" + path
}

// neomutt opens a mailbox, types the keys and quits. Python gives it the terminal without
// which it does not start.
func (s *session) neomutt(protocol, mailbox, keys string) error {
	const terminal = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"
	err := s.run("", "python3", "-c", terminal, "neomutt", "-n", "-F", s.neomuttrc(protocol), "-f", mailbox, "-e", `push "`+keys+`<quit>"`)
	if err == nil && bytes.Contains(s.output.Bytes(), []byte("Unable to open mailbox")) {
		return errors.New("neomutt could not open the mailbox")
	}
	return err
}

// neomuttrc writes a configuration with which neomutt asks no questions.
func (s *session) neomuttrc(protocol string) string {
	rc := fmt.Sprintf(`set imap_user='%[1]s' pop_user='%[1]s'
set imap_pass='%[2]s' pop_pass='%[2]s' smtp_pass='%[2]s'
set smtp_url='%[3]s'
set ssl_ca_certificates_file='%[4]s'
set ssl_starttls=%[5]s ssl_force_tls=%[6]s
set folder='%[7]s' record='' copy=no
set quit=yes delete=yes confirmappend=no confirmcreate=no wait_key=no sleep_time=0
`, s.User, s.Password, s.mailbox("smtp", ""), s.CAFile, yesNo[s.Entry == StartTLS], yesNo[s.Entry != Plain], s.home)
	if s.Mechanism != "" {
		rc += fmt.Sprintf("set %s_authenticators=%s\n", protocol, strings.ToLower(s.Mechanism))
	}
	return s.file("neomuttrc", rc)
}

//go:embed client.py
var clientPy string

// python lets client.py do what the words say.
func python(protocol Protocol, action, message string, addresses ...string) Action {
	return func(s *session) error {
		task, err := json.Marshal(map[string]any{
			"protocol": protocol, "action": action, "host": s.Host, "port": s.Port, "entry": s.Entry, "ca": s.CAFile,
			"user": s.User, "password": s.Password, "mechanism": s.Mechanism,
			"message": message, "addresses": addresses,
		})
		must(s.t, err)
		return s.run(string(task), "python3", "-c", clientPy)
	}
}

func (s *session) swaks(from, to Account, message string) error {
	args := []string{"--server", s.Host, "--port", strconv.Itoa(s.Port), "--from", from.User, "--to", to.User,
		"--auth-user", s.User, "--auth-password", s.Password, "--data", "@" + s.file("message", message)}
	if s.Mechanism == "" {
		args = append(args, "--auth")
	} else {
		args = append(args, "--auth", s.Mechanism)
	}
	switch s.Entry {
	case StartTLS:
		args = append(args, "--tls", "--tls-verify", "--tls-ca-path", s.CAFile)
	case Implicit:
		args = append(args, "--tls-on-connect", "--tls-verify", "--tls-ca-path", s.CAFile)
	}
	return s.run("", "swaks", args...)
}
