package proxy

// The sentences of refusals that are no policy's, in each language, and what makes
// any text fit for a line of a protocol. Policy's are in template.go. Codes are
// the fronts'.

import (
	"strings"
)

// maxText bounds the sentences: longer alerts are not read.
const maxText = 200

// Language of the sentences that reach people.
type Language string

const (
	German  Language = "de"
	English Language = "en"
)

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

// sentence returns the words for a class that is no policy's.
func (p place) sentence(class Class) string {
	words, ok := classWords[p.lang]
	if !ok {
		words = classWords[German]
	}
	return CleanText(p.fill(words[class]))
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
