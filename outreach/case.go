package outreach

// The numbers by which a notice is known: to the customer on the telephone, to the mail
// servers, and to a bounce that comes back. All are made from the ledger's secret, so a notice
// that is sent a second time carries the same ones, and nobody can make up another's.

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base32"
	"fmt"
	"strings"
	"unicode"
)

// Key is what there is one notice of in a campaign.
type Key struct {
	Account string `json:"account"`
	Series  int    `json:"series"` // 0, and one more for each later date on which the account is refused
	Step    int    `json:"step"`   // days after that date, mostly negative; [Undated] and more where there is none
}

// Undated is added to the days since the first notice where an account is not refused on any date.
const Undated = 1000

// StepName is a step in short: T-28, T, T+3, or N+28 for 28 days after the first of those without a date.
func StepName(step int) string {
	name := "T"
	if step >= Undated {
		name, step = "N", step-Undated
	}
	if step == 0 {
		return name
	}
	return fmt.Sprintf("%s%+d", name, step)
}

// Marks makes the numbers of a campaign's notices.
type Marks struct {
	Secret   []byte
	Campaign string
}

const (
	caseBytes  = 5  // 8 digits: what somebody reads out on the telephone
	tokenBytes = 15 // 120 bits: what nobody guesses, in a local part of at most 64 letters (RFC 5321 section 4.5.3.1.1)
	tokenLen   = tokenBytes * 8 / 5
	casePrefix = "MR"
)

// crockford is his base 32: without I, L, O and U, which are misread or make words.
const crockford = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"

var digits = base32.NewEncoding(crockford).WithPadding(base32.NoPadding)

// of are the first bytes of a keyed hash, for one use of it. No part has a NUL in it.
func (m Marks) of(use string, n int, parts ...string) string {
	mac := hmac.New(sha256.New, m.Secret)
	mac.Write([]byte(strings.Join(append([]string{use, m.Campaign}, parts...), "\x00")))
	return digits.EncodeToString(mac.Sum(nil)[:n])
}

// Case is the number of an account's case in this campaign, like MR-7K2M-90QD. Two of a
// million accounts may share one.
func (m Marks) Case(account string) string {
	d := m.of("case", caseBytes, account)
	return casePrefix + "-" + d[:4] + "-" + d[4:]
}

// MessageID is that of a notice (RFC 5322 section 3.6.4), without angle brackets. Who looks at
// one sees the case and the step.
func (m Marks) MessageID(k Key, domain string) string {
	return strings.ToLower(fmt.Sprintf("%s.%s.%s@%s", m.Case(k.Account), StepName(k.Step), m.of("message", 10, k.parts()...), domain))
}

// Token is what tells a notice's bounces, in the address that they go to.
func (m Marks) Token(k Key) string { return m.of("bounce", tokenBytes, k.parts()...) }

func (k Key) parts() []string {
	return []string{k.Account, fmt.Sprint(k.Series), fmt.Sprint(k.Step)}
}

// ReturnPath is the address that a notice's bounces go to.
func ReturnPath(envelope, token string) string {
	at := strings.LastIndexByte(envelope, '@')
	if at < 0 {
		return envelope
	}
	return envelope[:at] + "+" + strings.ToLower(token) + envelope[at:]
}

// ParseToken finds a notice's token in an address. Servers on the way may have changed
// the case of its letters.
func ParseToken(address string) (string, bool) {
	local := address
	if at := strings.LastIndexByte(address, '@'); at >= 0 {
		local = address[:at]
	}
	plus := strings.LastIndexByte(local, '+')
	if plus < 0 {
		return "", false
	}
	token, ok := heard(local[plus+1:])
	return token, ok && len(token) == tokenLen
}

// ParseCase reads a case number as people write it: with or without its letters in
// front, dashes, spaces, in small letters, with O for 0 and I or L for 1.
func ParseCase(text string) (string, bool) {
	if len(text) > 64 {
		return "", false
	}
	d, ok := heard(strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) || unicode.Is(unicode.Pd, r) || r == '.' || r == '\u2212' {
			return -1
		}
		return r
	}, text))
	const n = caseBytes * 8 / 5
	if ok && len(d) == len(casePrefix)+n {
		d, ok = strings.CutPrefix(d, casePrefix)
	}
	if !ok || len(d) != n {
		return "", false
	}
	return casePrefix + "-" + d[:4] + "-" + d[4:], true
}

// heard brings digits into their one form.
func heard(text string) (string, bool) {
	ok := true
	d := strings.Map(func(r rune) rune {
		switch r = unicode.ToUpper(r); r {
		case 'O':
			return '0'
		case 'I', 'L':
			return '1'
		}
		ok = ok && strings.ContainsRune(crockford, r)
		return r
	}, text)
	return d, ok
}
