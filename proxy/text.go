package proxy

// The sentences that people read, in each language, and what makes any text fit
// for a line of a protocol. Codes are the fronts'.

import (
	"cmp"
	"strconv"
	"strings"

	"mailreeve/policy"
)

// maxText bounds the sentences: longer alerts are not read.
const maxText = 200

// Language of the sentences that reach people.
type Language string

const (
	German  Language = "de"
	English Language = "en"
)

// place is what a sentence can name: the right server for this protocol and
// brand, and where to get help.
type place struct {
	lang    Language
	host    string // canonical host name
	port    int    // of implicit TLS
	help    string // address of the help page, may be empty
	session string // session id
	room    int    // characters that are shown; 0: maxText
	word    string // what the protocol is called
	others  string // what the server name is for, where that are other protocols
}

// Beside the findings, these have words of their own.
const (
	otherService policy.Finding = "other_service" // a server name that is right, but not for this protocol
	otherFinding policy.Finding = ""              // one without words: what is certain
)

// policyWords are the sentences of a policy refusal: the first thing said is
// that the password is not wrong, since that is what people try to change. They
// are as short as leaves room for what follows them (see [Front.Room]), and name
// only what is right: "is out of date: server X" was read as if X were.
var policyWords = map[Language]map[policy.Finding]string{
	German: {
		policy.Plaintext:      "Passwort ist NICHT falsch. Verschluesselung fehlt: SSL/TLS, Server {host}, Port {port}.",
		policy.TLSOld:         "Passwort ist NICHT falsch. Programm ist veraltet: TLS 1.2 fehlt.",
		policy.Mechanism:      "Passwort ist NICHT falsch. Authentifizierung: \"Passwort, normal\" (SSL/TLS bleibt an, SPA aus).",
		policy.LegacyHostname: "Passwort ist NICHT falsch. Neuer Servername: {host}, Port {port}, SSL/TLS.",
		otherFinding:          "Passwort ist NICHT falsch. Bitte einstellen: {host}, Port {port}, SSL/TLS.",
		otherService:          "Passwort ist NICHT falsch. Servername gilt fuer {others}. {word}: {host}, Port {port}, SSL/TLS.",
	},
	English: {
		policy.Plaintext:      "Your password is NOT wrong. Encryption is missing: SSL/TLS, server {host}, port {port}.",
		policy.TLSOld:         "Your password is NOT wrong. The program is too old: TLS 1.2 is missing.",
		policy.Mechanism:      "Your password is NOT wrong. Set authentication to \"normal password\" (SSL/TLS on, SPA off).",
		policy.LegacyHostname: "Your password is NOT wrong. New server name: {host}, port {port}, SSL/TLS.",
		otherFinding:          "Your password is NOT wrong. Please set {host}, port {port}, SSL/TLS.",
		otherService:          "Your password is NOT wrong. Server name is for {others}. {word}: {host}, port {port}, SSL/TLS.",
	},
}

// classWords are the sentences of all other refusals. Those said in a greeting
// or as a last word are short: of 200 characters that Thunderbird shows of a BYE,
// its own preamble takes up to 120.
var classWords = map[Language]map[Class]string{
	German: {
		NeedLogin:     "Bitte im Programm die Anmeldung am Server einschalten (gleicher Benutzername, gleiches Passwort).",
		BadMech:       "Dieses Anmeldeverfahren gibt es hier nicht. Bitte \"Passwort, normal\" einstellen.",
		BadCredential: "Benutzername oder Passwort ist falsch.",
		NoAccess:      "Dieses Postfach ist derzeit nicht zugaenglich. Passwort ist NICHT falsch.",
		Unavailable:   "Der Mailserver ist gerade nicht erreichbar. Passwort ist NICHT falsch. Bitte spaeter erneut versuchen.",
		LimitReached:  "Zu viele Versuche. Bitte spaeter erneut verbinden.",
		Misspoken:     "Das ist nicht das Protokoll dieses Ports. Verbindung endet.",
		TooLate:       "Die Anmeldung hat zu lange gedauert. Bitte erneut verbinden.",
		ShuttingDown:  "Der Server startet neu. Bitte gleich erneut verbinden.",
		PlainOnTLS:    "Port {port} braucht SSL/TLS. Bitte im Programm SSL/TLS einschalten.",
	},
	English: {
		NeedLogin:     "Please switch on authentication for this server (same user name, same password).",
		BadMech:       "This authentication method does not exist here. Please set \"normal password\".",
		BadCredential: "User name or password is wrong.",
		NoAccess:      "This mailbox is not accessible at present. Your password is NOT wrong.",
		Unavailable:   "The mail server cannot be reached just now. Your password is NOT wrong. Please try again later.",
		LimitReached:  "Too many attempts. Please connect again later.",
		Misspoken:     "This is not the protocol of this port. Closing.",
		TooLate:       "The login took too long. Please connect again.",
		ShuttingDown:  "The server is restarting. Please connect again.",
		PlainOnTLS:    "Port {port} needs SSL/TLS. Please switch on SSL/TLS in your program.",
	},
}

// sentence returns the words for a class; for a policy refusal those of its
// finding, with help address and session id as far as they fit.
func (p place) sentence(class Class, finding policy.Finding) string {
	lang := p.lang
	if _, ok := classWords[lang]; !ok {
		lang = German
	}
	if class != PolicyDeny && class != PolicyTemp {
		return CleanText(p.fill(classWords[lang][class]))
	}
	if finding == policy.LegacyHostname && p.others != "" {
		finding = otherService
	}
	format, ok := policyWords[lang][finding]
	if !ok {
		format = policyWords[lang][otherFinding]
	}
	return p.tail(p.fill(format))
}

// fill puts names and port into a format; not every format wants them all.
func (p place) fill(format string) string {
	return strings.NewReplacer("{host}", p.host, "{port}", strconv.Itoa(p.port), "{word}", p.word, "{others}", p.others).Replace(format)
}

// tail adds the help address and the session id, what is less useful first to go.
func (p place) tail(text string) string {
	room := cmp.Or(p.room, maxText)
	if p.help != "" && len(text)+1+len(p.help) <= room {
		text += " " + p.help
	}
	if n := len(text) + 3 + len(p.session); p.session != "" && n <= room {
		text += " (" + p.session + ")"
	}
	return CleanText(text)
}

// CleanText makes a text fit for a line of a protocol or a log: printable
// ASCII, no percent sign (old programs take replies for formats), bounded. It
// is the last step for everything that goes into a reply, and the first for
// what a backend said.
func CleanText(text string) string {
	var b strings.Builder
	for _, c := range text {
		switch {
		case b.Len() == maxText:
			return b.String()
		case c < ' ' || c > '~' || c == '%':
			b.WriteByte('?')
		default:
			b.WriteRune(c)
		}
	}
	return b.String()
}

// CleanTextBut is CleanText for what a backend said to a credential. Some
// repeat a command that they did not understand: a text with one of the secrets
// is withheld whole, since stars in a well-known sentence would tell what stood
// there. Secrets of less than four bytes stand in any text and are not looked for.
func CleanTextBut(text string, secrets ...string) string {
	folded := strings.ToLower(text)
	for _, secret := range secrets {
		if len(secret) >= 4 && strings.Contains(folded, strings.ToLower(secret)) {
			return "(withheld: it repeats the credential)"
		}
	}
	return CleanText(text)
}
