package config

import (
	"bytes"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// An aliases file says which names are whose: an alias and an account in each line, # at the
// beginning of a word begins a comment. A customer database writes it, as it does the files of
// old host names.

// LoginName says under which name a backend is told whose login it is.
type LoginName string

// As the customer typed it, without the default domain, or as the whole address.
const (
	LoginAsTyped LoginName = "as_typed"
	LoginBare    LoginName = "bare"
	LoginAddress LoginName = "address"
)

// Values lists the choices.
func (LoginName) Values() []string { return []string{"as_typed", "bare", "address"} }

// TextFor is what a sentence is about: a finding of the policy, or one of its cases.
type TextFor string

// Values lists what there are sentences for.
func (TextFor) Values() []string {
	return []string{"plaintext", "tls_old", "mechanism", "legacy_hostname", "other_service", "user_form", "user_form_address", "submission_port"}
}

// TextAt is an action at which something is said.
type TextAt string

// Values lists the actions.
func (TextAt) Values() []string { return []string{"warn", "tempfail", "deny", "refuse"} }

// Text is a sentence. What it may hold is the program's to say.
type Text string

// Names says of a brand who is who.
type Names struct {
	domain  string            // of names that have none
	login   LoginName         // for the backend
	aliases map[string]string // alias to account, both folded and with a domain where there is one
}

// Names reads the aliases file of a brand. Lines that are wrong are left out, and the first of
// them are problems. It is nil where names are as they are typed.
func (b *Brand) Names() (*Names, Problems, error) {
	n, faults, err := b.names()
	if n != nil && n.domain == "" && n.aliases == nil {
		n = nil
	}
	return n, faults.told(), err
}

func (b *Brand) names() (*Names, faults, error) {
	n := &Names{domain: string(b.DefaultDomain), login: b.LoginName}
	if b.Aliases == "" {
		return n, faults{}, nil
	}
	data, err := readFile(b.Aliases, maxFile)
	if err != nil {
		return nil, faults{}, err
	}
	if len(data) > maxFile {
		return nil, faults{}, wrong{b.Aliases + " is larger than 16 MiB", "is it the right one?"}
	}
	return n, n.read(b.Aliases, data), nil
}

// read reads the lines of an aliases file.
func (n *Names) read(file string, data []byte) (bad faults) {
	n.aliases = map[string]string{}
	lines := map[string]int{}
	data = bytes.TrimPrefix(data, []byte("\ufeff")) // as some editors leave it
	line := 0
	for text := range bytes.Lines(data) {
		line++
		fail := func(message, cure string) {
			bad.add(func() Problem {
				return Problem{File: file, Line: line, Column: 1, Message: message, Cure: cure}
			})
		}
		if !utf8.Valid(text) {
			fail("it is not UTF-8", "save the file as UTF-8")
			continue
		}
		words := strings.Fields(string(text))
		for i, word := range words {
			if strings.HasPrefix(word, "#") {
				words = words[:i]
				break
			}
		}
		switch {
		case len(words) == 0:
			continue
		case len(words) != 2:
			fail(fmt.Sprintf("there are %d words", len(words)), "write an alias and its account, with a blank between them")
			continue
		case !isAccount(words[0]) || !isAccount(words[1]):
			fail("this is not an alias and its account", "write names like anna or anna@example.org")
			continue
		}
		alias, account := n.complete(words[0]), n.complete(words[1])
		if before, ok := n.aliases[alias]; ok && before != account {
			fail(fmt.Sprintf("%s is an alias of %s already, by line %d", quote(alias), quote(before), lines[alias]), "leave one of the two")
			continue
		}
		n.aliases[alias], lines[alias] = account, line
	}
	return bad
}

// isAccount says whether a word can be a name to log in with.
func isAccount(word string) bool {
	const most = 320 // RFC 5321 section 4.5.3.1
	return len(word) <= most && strings.TrimFunc(word, unicode.IsPrint) == "" && !strings.HasPrefix(word, "@") && !strings.HasSuffix(word, "@")
}

// complete folds a name and adds the default domain to a bare one.
func (n *Names) complete(name string) string {
	name = strings.ToLower(name)
	if n.domain != "" && !strings.Contains(name, "@") {
		name += "@" + n.domain
	}
	return name
}

// Resolve says whose mailbox a name is, and what a backend is told. The case of letters makes no
// other account.
func (n *Names) Resolve(typed string) (account, send string) {
	account = n.complete(typed)
	if of, ok := n.aliases[account]; ok {
		account = of
	}
	switch n.login {
	case LoginAddress:
		return account, account
	case LoginBare:
		// Without any other domain a name would be somebody else's.
		if bare, ok := strings.CutSuffix(account, "@"+n.domain); ok && n.domain != "" {
			return account, bare
		}
		return account, account
	}
	return account, typed
}

// accounts looks at the names of each brand.
func (k *checker) accounts() {
	for i := range k.Brands {
		b := &k.Brands[i]
		key := element("brands", i)
		if b.LoginName != LoginAsTyped && b.LoginName != "" && b.DefaultDomain == "" {
			k.fail(child(key, "login_name"), "it means something with default_domain only", "add default_domain, or leave it out")
		}
		_, bad, err := b.names()
		if err != nil {
			k.file(child(key, "aliases"), err)
		}
		k.elsewhere = append(k.elsewhere, bad.told()...)
	}
}
