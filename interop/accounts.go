package interop

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Domain is the one domain that the servers keep mailboxes for.
const Domain = "example.test"

// Account is a customer's mailbox. The bare name before the @ logs in as well.
type Account struct{ User, Password string }

// The accounts that are always there.
var (
	Anna  = Account{"anna@example.test", "Geheim 1§"}    // a space and a character outside ASCII
	Bert  = Account{"bert@example.test", "kennwort"}     // nothing special
	Carla = Account{"carla@example.test", `"quote\d" %`} // what protocols quote and programs expand
)

// Master logs in as any customer, with a user name made by [Account.As].
var Master = Account{"master@example.test", "Meister 1"}

// Bare returns the user name without its domain.
func (a Account) Bare() string {
	name, _, _ := strings.Cut(a.User, "@")
	return name
}

// As returns the credentials with which a master user opens the customer's mailbox.
func (a Account) As(customer Account) Account {
	return Account{customer.User + "*" + a.User, a.Password}
}

// line returns the account as a line of a passwd-file; the password is stored readable, for
// CRAM-MD5 and its like.
func (a Account) line() string { return a.User + ":{PLAIN}" + a.Password + "::::::\n" }

// add lets the account log in from now on.
func (rig *Rig) add(a Account) error {
	return os.WriteFile(filepath.Join(rig.Dir, "users", a.User), []byte(a.line()), 0o644)
}

// NewAccount opens an empty mailbox with a user name never used before.
func (rig *Rig) NewAccount(t testing.TB, password string) Account {
	t.Helper()
	a := Account{fmt.Sprintf("kunde%d@%s", rig.made.Add(1), Domain), password}
	if err := rig.add(a); err != nil {
		t.Fatalf("adding %s: %v", a.User, err)
	}
	return a
}

// Maildir returns where the account's mail lies, once there has been any.
func (rig *Rig) Maildir(a Account) string { return filepath.Join(rig.Dir, "mail", a.Bare(), "Maildir") }

// tokenKey signs the tokens for OAUTHBEARER and XOAUTH2.
const tokenKey = "a key that is used for nothing but tests"

// Token returns a JSON Web Token (RFC 7519) that lets the user in until it expires.
func (rig *Rig) Token(user string, expires time.Time) string {
	claims, err := json.Marshal(map[string]any{"sub": user, "iat": time.Now().Add(-time.Hour).Unix(), "exp": expires.Unix()})
	if err != nil {
		panic(err) // strings and integers
	}
	encode := base64.RawURLEncoding.EncodeToString
	signed := encode([]byte(`{"alg":"HS256","typ":"JWT"}`)) + "." + encode(claims)
	mac := hmac.New(sha256.New, []byte(tokenKey))
	mac.Write([]byte(signed))
	return signed + "." + encode(mac.Sum(nil))
}
