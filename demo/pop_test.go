package demo_test

import (
	"bufio"
	"strings"
	"testing"

	"github.com/emersion/go-imap/v2"
)

// Two messages of 39 octets each, with CRLF.
const (
	first  = "Subject: one\n\n.dot\nline two\nthree\n"
	second = "From: x\nSubject: two\n\nno end of line"
)

// loggedIn is the beginning of a POP3 script that is about something else.
const loggedIn = `
	S: +OK demo.example POP3 server ready
	C: USER carla
	S: +OK now the password
	C: PASS pass word 
	S: +OK 2 messages
`

func TestPOP3BeforeLogin(t *testing.T) {
	b := start(t)
	carla(t, b)
	script(t, b.POP3, `
		S: +OK demo.example POP3 server ready
		C: capa
		S: +OK capabilities follow
		S: TOP
		S: USER
		S: UIDL
		S: SASL PLAIN LOGIN
		S: RESP-CODES
		S: AUTH-RESP-CODE
		S: PIPELINING
		S: EXPIRE NEVER
		S: IMPLEMENTATION Mailreeve-demo
		S: .
		C: STAT
		S: -ERR STAT comes after login
		C: APOP carla 0123456789abcdef0123456789abcdef
		S: -ERR unknown command
		C:  
		S: -ERR bad line: one command, no control characters
		C: NO	OP
		S: -ERR bad line: one command, no control characters
		C: PASS x
		S: -ERR USER comes first
		C: USER
		S: -ERR name missing after USER
		C: USER carla
		S: +OK now the password
		C: PASS pass word
		S: -ERR [AUTH] authentication failed
		C: PASS pass word 
		S: -ERR USER comes first
		C: USER nobody
		S: +OK now the password
		C: PASS pass word 
		S: -ERR [AUTH] authentication failed
		C: USER carla@demo.example
		S: +OK now the password
		C: PASS pass word 
		S: +OK 0 messages
		C: USER carla
		S: -ERR USER comes before login
		C: STAT
		S: +OK 0 0
		C: LIST
		S: +OK list follows
		S: .
		C: RETR 1
		S: -ERR no such message, there are 0
		C: QUIT
		S: +OK bye
		EOF`)
	script(t, b.POP3, `
		S: +OK demo.example POP3 server ready
		C: QUIT
		S: +OK bye
		EOF`)
}

func TestPOP3Auth(t *testing.T) {
	b := start(t)
	for name, text := range map[string]string{
		"initial response": `
			C: AUTH PLAIN AGFubmEAZGVtbw==
			S: +OK 4 messages
			C: AUTH PLAIN AGFubmEAZGVtbw==
			S: -ERR AUTH comes before login`,
		"challenge": `
			C: auth plain
			S: + 
			C: AGFubmEAZGVtbw==
			S: +OK 4 messages`,
		"LOGIN": `
			C: AUTH LOGIN
			S: + VXNlcm5hbWU6
			C: YW5uYQ==
			S: + UGFzc3dvcmQ6
			C: ZGVtbw==
			S: +OK 4 messages`,
		"LOGIN with initial response": `
			C: AUTH LOGIN YW5uYQ==
			S: + UGFzc3dvcmQ6
			C: ZGVtbw==
			S: +OK 4 messages`,
		"wrong password": `
			C: AUTH PLAIN AGFubmEAd3Jvbmc=
			S: -ERR [AUTH] authentication failed`,
		"identity of another": `
			C: AUTH PLAIN YmVydABhbm5hAGRlbW8=
			S: -ERR [AUTH] authentication failed`,
		"empty initial response": `
			C: AUTH PLAIN =
			S: -ERR [AUTH] authentication failed`,
		"cancelled": `
			C: AUTH PLAIN
			S: + 
			C: *
			S: -ERR cancelled
			C: NOOP
			S: -ERR NOOP comes after login`,
		"malformed": `
			C: AUTH PLAIN !
			S: -ERR malformed base64
			C: AUTH PLAIN
			S: + 
			C: !
			S: -ERR malformed base64`,
		"unknown mechanism": `
			C: AUTH CRAM-MD5
			S: -ERR unknown mechanism, use one of PLAIN, LOGIN
			C: AUTH
			S: -ERR unknown mechanism, use one of PLAIN, LOGIN`,
	} {
		t.Run(name, func(t *testing.T) { script(t, b.POP3, "S: +OK ...\n"+text) })
	}
}

func TestPOP3Read(t *testing.T) {
	b := start(t)
	carla(t, b, first, second)
	script(t, b.POP3, loggedIn+`
		C: STAT
		S: +OK 2 78
		C: LIST
		S: +OK list follows
		S: 1 39
		S: 2 39
		S: .
		C: LIST 2
		S: +OK 2 39
		C: LIST 3
		S: -ERR no such message, there are 2
		C: UIDL
		S: +OK list follows
		S: 1 1.1
		S: 2 1.2
		S: .
		C: UIDL 1
		S: +OK 1 1.1
		C: UIDL x
		S: -ERR no such message, there are 2
		C: RETR 1
		S: +OK 39 octets
		S: Subject: one
		S: 
		S: ..dot
		S: line two
		S: three
		S: .
		C: RETR 2
		S: +OK 39 octets
		S: From: x
		S: Subject: two
		S: 
		S: no end of line
		S: .
		C: RETR
		S: -ERR no such message, there are 2
		C: TOP 1 2
		S: +OK top of message follows
		S: Subject: one
		S: 
		S: ..dot
		S: line two
		S: .
		C: TOP 1 0
		S: +OK top of message follows
		S: Subject: one
		S: 
		S: .
		C: TOP 1 99
		S: +OK top of message follows
		S: Subject: one
		S: 
		S: ..dot
		S: line two
		S: three
		S: .
		C: TOP 1
		S: -ERR message number or number of lines missing after TOP
		C: TOP 1 -1
		S: -ERR message number or number of lines missing after TOP
		C: TOP 3 1
		S: -ERR no such message, there are 2
		C: NOOP
		S: +OK here
		C: QUIT
		S: +OK bye
		EOF`)
}

func TestPOP3Delete(t *testing.T) {
	b := start(t)
	carla(t, b, first, second)
	script(t, b.POP3, loggedIn+`
		C: DELE 1
		S: +OK message 1 will be deleted at QUIT
		C: DELE 1
		S: -ERR message 1 is deleted
		C: RETR 1
		S: -ERR message 1 is deleted
		C: TOP 1 1
		S: -ERR message 1 is deleted
		C: STAT
		S: +OK 1 39
		C: LIST
		S: +OK list follows
		S: 2 39
		S: .
		C: RSET
		S: +OK 2 messages
		C: STAT
		S: +OK 2 78
		C: DELE 2
		S: +OK message 2 will be deleted at QUIT`)
	// No QUIT: nothing is deleted.
	script(t, b.POP3, loggedIn+`
		C: DELE 1
		S: +OK message 1 will be deleted at QUIT
		C: DELE 3
		S: -ERR no such message, there are 2
		C: QUIT
		S: +OK bye
		EOF`)
	if got := inbox(t, b, "carla", "pass word "); len(got) != 1 || got[0] != second {
		t.Errorf("IMAP still sees %q", got)
	}
	script(t, b.POP3, `
		S: +OK ...
		C: USER carla
		S: +OK ...
		C: PASS pass word 
		S: +OK 1 messages
		C: UIDL
		S: +OK list follows
		S: 1 1.2
		S: .`)
}

// TestPOP3Gone reads and deletes a message that IMAP has removed meanwhile.
func TestPOP3Gone(t *testing.T) {
	b := start(t)
	carla(t, b, first, second)
	c := imapLogin(t, b, "carla", "pass word ", nil)
	if _, err := c.Select("INBOX", nil).Wait(); err != nil {
		t.Fatal(err)
	}
	remove := func(number uint32) {
		t.Helper()
		deleted := &imap.StoreFlags{Op: imap.StoreFlagsAdd, Flags: []imap.Flag{imap.FlagDeleted}}
		if err := c.Store(imap.SeqSetNum(number), deleted, nil).Close(); err != nil {
			t.Fatal(err)
		}
		if err := c.Expunge().Close(); err != nil {
			t.Fatal(err)
		}
	}
	pop := dial(t, b.POP3)
	r := bufio.NewReader(pop)
	talk(t, pop, r, loggedIn)
	remove(1)
	talk(t, pop, r, `
		C: RETR 1
		S: -ERR message 1 is gone, another session has removed it
		C: RETR 2
		S: +OK 39 octets
		S: From: x
		S: Subject: two
		S: 
		S: no end of line
		S: .
		C: DELE 2
		S: +OK ...`)
	remove(1)
	talk(t, pop, r, `
		C: QUIT
		S: +OK bye
		EOF`)
}

func TestPOP3Pipelining(t *testing.T) {
	b := start(t)
	carla(t, b, first, second)
	script(t, b.POP3, `
		C: USER carla
		C: PASS pass word 
		C: STAT
		C: DELE 1
		C: QUIT
		S: +OK demo.example POP3 server ready
		S: +OK now the password
		S: +OK 2 messages
		S: +OK 2 78
		S: +OK message 1 will be deleted at QUIT
		S: +OK bye
		EOF`)
}

func TestPOP3LineTooLong(t *testing.T) {
	b := start(t)
	script(t, b.POP3, `
		S: +OK ...
		C: AUTH PLAIN
		S: + 
		C: `+strings.Repeat("A", 2044)+`
		S: -ERR [AUTH] authentication failed
		C: USER `+strings.Repeat("x", 2041)+`
		S: +OK now the password
		C: USER `+strings.Repeat("x", 2042)+`
		S: -ERR line too long, 2048 octets are allowed`)
	script(t, b.POP3, `
		S: +OK ...
		C: AUTH PLAIN
		S: + 
		C: `+strings.Repeat("A", 4096)+`
		S: -ERR line too long, 2048 octets are allowed`)
}
