package certs

import (
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// The state directory of ACME. Each directory URL has a folder of its own, so that another
// authority, or the staging service of the same one, never mixes with it:
//
//	current                                   name of the folder last used
//	acme-v02.api.letsencrypt.org-1a2b3c4d/
//	    account.key, account.json             the account; with external binding account-HASH.*
//	    names/imap.example.org.ecdsa.pem      key and chain
//	    names/imap.example.org.ecdsa.json     the record: tried, renewed, next ...
//	    answers/http-01+TOKEN                 answers to challenges under way
//	    leases/imap.example.org               who orders just now
//
// Folders have mode 0700, files 0600. Files are whole at any time, for several nodes too: see
// disk.go.

// Bounds of what is read back.
const (
	maxChain  = 64 << 10 // key and chain: a dozen certificates; a handshake could not bear more
	maxRecord = 4 << 10  // a record is some 500 bytes
	maxAnswer = 8 << 10  // a certificate of tls-alpn-01 with its key is under 2 KiB
	maxError  = 500      // the reason in a record: a few sentences

	// maxName leaves room for the endings above in the 255 bytes that a file's
	// name may have (DNS allows 253, RFC 1035 section 2.3.4).
	maxName = 230
)

// pair is what one certificate is for.
type pair struct {
	name string // folded host name, checked by validName
	kind KeyType
}

// file is the pair as the name of a file, without its ending.
func (p pair) file() string { return p.name + "." + strings.ToLower(p.kind.String()) }

// parsePair is the opposite of file.
func parsePair(file string) (pair, bool) {
	for _, kind := range []KeyType{ECDSA, RSA} {
		if name, ok := strings.CutSuffix(file, "."+strings.ToLower(kind.String())); ok && validName(name) {
			return pair{name, kind}, true
		}
	}
	return pair{}, false
}

// validName says whether a folded name is one that a public authority certifies and that may
// be a file's name: letters, digits and hyphens in two labels or more (RFC 5890 section
// 2.3.1), not an IP address (an all-numeric last label, RFC 3696 section 2).
func validName(name string) bool {
	labels := strings.Split(name, ".")
	if len(name) > maxName || len(labels) < 2 {
		return false
	}
	for _, l := range labels {
		if l == "" || len(l) > 63 || l[0] == '-' || l[len(l)-1] == '-' ||
			strings.Trim(l, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
			return false
		}
	}
	return strings.Trim(labels[len(labels)-1], "0123456789") != ""
}

// validToken says whether a challenge's token is base64url (RFC 8555 section 8.1) of
// a sane length, so that it may be a file's name.
func validToken(token string) bool {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	return token != "" && len(token) <= 128 && strings.Trim(token, alphabet) == ""
}

// record is what is known of a pair beside its certificate. It outlives the process, so that
// one that crashes and starts over and over does not order each time.
type record struct {
	Tried     time.Time `json:"tried,omitzero"`      // when an order was last begun
	Renewed   time.Time `json:"renewed,omitzero"`    // when an order last succeeded
	Next      time.Time `json:"next,omitzero"`       // not to be tried before
	Held      time.Time `json:"held,omitzero"`       // nor by an operator's wish: the authority said so
	Failures  int       `json:"failures,omitempty"`  // since the last success
	Error     string    `json:"error,omitempty"`     // of the last failure
	Challenge string    `json:"challenge,omitempty"` // the kind that last worked, to begin with
	Asked     time.Time `json:"asked,omitzero"`      // when a handshake last made an order; the budget counts these
	Used      time.Time `json:"used,omitzero"`       // day of the last handshake
	Lookup    bool      `json:"lookup,omitempty"`    // the name is ours only while the lookup says so
}

// parseRecord reads a record and mistrusts it: somebody may have edited it.
func parseRecord(data []byte) (record, error) {
	var r record
	if err := json.Unmarshal(data, &r); err != nil {
		return record{}, err
	}
	if r.Failures < 0 || r.Failures > 1e6 {
		return record{}, errors.New("the count of failures is out of range")
	}
	r.Error = cleaned(r.Error, maxError)
	return r, nil
}

// merge takes in what another node wrote.
func (r *record) merge(other record) {
	used, asked := later(r.Used, other.Used), later(r.Asked, other.Asked)
	if other.Tried.After(r.Tried) {
		*r = other
	}
	r.Used, r.Asked = used, asked
}

// later returns the later of two instants.
func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// parseCert reads the PEM form of a key and its chain, and holds it against the pair. Dates are
// not judged: an expired certificate is better than none.
func parseCert(p pair, data []byte) (*tls.Certificate, error) {
	cert, err := tls.X509KeyPair(data, data) // fails if the key is another one's
	if err != nil {
		return nil, err
	}
	return &cert, p.covered(&cert)
}

// covered says whether the certificate is for the pair, and can be planned with: one that
// ends before it begins never was valid, and nothing is a third of its life.
func (p pair) covered(cert *tls.Certificate) error {
	if kind, ok := keyType(cert.Leaf); !ok || kind != p.kind {
		return fmt.Errorf("the certificate's key is not of the kind %v", p.kind)
	}
	if err := cert.Leaf.VerifyHostname(p.name); err != nil {
		return fmt.Errorf("the certificate is not for this name: %w", err)
	}
	if !cert.Leaf.NotAfter.After(cert.Leaf.NotBefore) {
		return errors.New("it ends before it begins")
	}
	return nil
}

// state is the folder of one authority.
type state struct{ dir string }

// openState makes the folders that are missing.
func openState(dir, directory string) (*state, error) {
	u, err := url.Parse(directory)
	if err != nil || u.Host == "" {
		return nil, fmt.Errorf("the ACME directory %q is no URL; name one as https://acme.example.org/directory", directory)
	}
	host := strings.Map(func(r rune) rune {
		if strings.ContainsRune("abcdefghijklmnopqrstuvwxyz0123456789.-", r) {
			return r
		}
		return '_'
	}, strings.ToLower(u.Host))
	s := &state{dir: filepath.Join(dir, host[:min(len(host), 100)]+"-"+shortHash(directory))}
	for _, sub := range []string{"names", "answers", "leases"} {
		if err := os.MkdirAll(filepath.Join(s.dir, sub), 0o700); err != nil {
			return nil, fmt.Errorf("making the state directory of ACME: %w; let the program's user write there", err)
		}
	}
	return s, nil
}

// shortHash tells texts apart in names of files.
func shortHash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:4])
}

// path joins the state's folder and elements that are checked already.
func (s *state) path(elem ...string) string {
	return filepath.Join(append([]string{s.dir}, elem...)...)
}

// cert and record are the files of a pair.
func (s *state) cert(p pair) string   { return s.path("names", p.file()+".pem") }
func (s *state) record(p pair) string { return s.path("names", p.file()+".json") }

// writeRecord keeps a record.
func (s *state) writeRecord(p pair, r record) error {
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return writeFile(s.record(p), append(data, '\n'))
}

// load reads what is kept of a pair. What is not there is nil or zero, and so is what cannot
// be used: an error by file tells why. If that is no [fs.PathError] the file is corrupt.
func (s *state) load(p pair) (cert *tls.Certificate, r record, bad map[string]error) {
	bad = map[string]error{}
	if data, err := readFile(s.cert(p), maxChain); err == nil {
		cert, err = parseCert(p, data)
		if err != nil {
			cert, bad[s.cert(p)] = nil, err
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		bad[s.cert(p)] = err
	}
	if data, err := readFile(s.record(p), maxRecord); err == nil {
		if r, err = parseRecord(data); err != nil {
			bad[s.record(p)] = err
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		bad[s.record(p)] = err
	}
	return cert, r, bad
}

// changed is when a file last came or went.
func (s *state) changed() (time.Time, error) {
	info, err := os.Stat(s.path("names"))
	if err != nil {
		return time.Time{}, err
	}
	return info.ModTime(), nil
}

// stamp tells whether a pair's files changed: sizes and times of both.
type stamp struct {
	certSize, recordSize int64
	certTime, recordTime time.Time
}

// stamps lists the pairs that have files.
func (s *state) stamps() (map[pair]stamp, error) {
	entries, err := os.ReadDir(s.path("names"))
	if err != nil {
		return nil, err
	}
	found := map[pair]stamp{}
	for _, e := range entries {
		ext := filepath.Ext(e.Name())
		p, ok := parsePair(strings.TrimSuffix(e.Name(), ext))
		if !ok || ext != ".pem" && ext != ".json" {
			continue
		}
		info, err := e.Info()
		if err != nil {
			continue // it vanished just now
		}
		st := found[p]
		if ext == ".pem" {
			st.certSize, st.certTime = info.Size(), info.ModTime()
		} else {
			st.recordSize, st.recordTime = info.Size(), info.ModTime()
		}
		found[p] = st
	}
	return found, nil
}

// account is what account.json holds.
type account struct {
	URL   string `json:"url"`   // the key id of all requests (RFC 8555 section 6.2)
	Email string `json:"email"` // as the authority was told last
}

// accountFile is the name of the account's files without ending. Another external binding
// is another account.
func (s *state) accountFile(eab *EAB) string {
	if eab == nil {
		return s.path("account")
	}
	return s.path("account-" + shortHash(eab.KeyID))
}

// accountKey reads the account's key, or makes it. Of two nodes that make one, the first to
// write wins, and the other takes it over. A key that cannot be kept is not used: each start
// would register anew, and authorities allow a handful of accounts in some hours. One that is
// corrupt is moved aside.
func (s *state) accountKey(eab *EAB) (key *ecdsa.PrivateKey, corrupt bool, err error) {
	path := s.accountFile(eab) + ".key"
	for range 3 {
		data, err := readFile(path, maxRecord)
		if errors.Is(err, fs.ErrNotExist) {
			if data, err = makeAccountKey(); err == nil {
				if err = createFile(path, data); errors.Is(err, fs.ErrExist) {
					continue
				}
			}
		}
		if err != nil {
			return nil, corrupt, fmt.Errorf("keeping the account key: %w", err)
		}
		if key, err := parseAccountKey(data); err == nil {
			return key, corrupt, nil
		}
		corrupt = true
		if err := os.Rename(path, path+".bad"); err != nil {
			return nil, corrupt, fmt.Errorf("the account key is corrupt, moving it aside: %w", err)
		}
		_ = os.Remove(s.accountFile(eab) + ".json") // the account goes with its key
	}
	return nil, corrupt, errors.New("the account key is made and replaced by somebody else all the time")
}

// makeAccountKey makes a key and its PEM form.
func makeAccountKey() ([]byte, error) {
	key, err := newKey(ECDSA)
	if err != nil {
		return nil, err
	}
	return encodeKey(key)
}

// parseAccountKey reads what makeAccountKey made.
func parseAccountKey(data []byte) (*ecdsa.PrivateKey, error) {
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, errors.New("it is not in PEM form")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	if ec, ok := key.(*ecdsa.PrivateKey); ok {
		return ec, nil
	}
	return nil, errors.New("it is not an ECDSA key")
}

// sweep removes what crashed processes left.
func (s *state) sweep(now time.Time) {
	for _, sub := range []string{"..", ".", "names"} {
		sweep(s.path(sub), newPrefix, now)
	}
	for _, sub := range []string{"answers", "leases"} { // in use for two minutes at most
		sweep(s.path(sub), "", now)
	}
}

// setCurrent notes which authority's folder is in use, for [ReadStatus].
func (s *state) setCurrent() error {
	path, name := filepath.Join(filepath.Dir(s.dir), "current"), filepath.Base(s.dir)+"\n"
	if data, err := readFile(path, maxRecord); err == nil && string(data) == name {
		return nil
	}
	return writeFile(path, []byte(name))
}

// ReadStatus reads from the ACME directory what [ACME.Status] would tell, whether or not the
// program runs: of the authority that was used last, every name that has a certificate or was
// tried, and of names (the canonical ones) also those that have nothing yet; with rsa they
// must have an RSA certificate too. It changes nothing.
func ReadStatus(dir string, names []string, rsa bool) ([]Status, error) {
	canonical := canonicalPairs(names, rsa)
	found := map[pair]stamp{}
	var s *state
	data, err := readFile(filepath.Join(dir, "current"), maxRecord)
	if err == nil {
		sub := strings.TrimSpace(string(data))
		if sub == "" || sub != filepath.Base(sub) || strings.HasPrefix(sub, ".") {
			return nil, fmt.Errorf("the file current in %s is corrupt; start the program, which writes it", dir)
		}
		s = &state{dir: filepath.Join(dir, sub)}
		found, err = s.stamps()
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("reading the state of ACME: %w", err)
	}
	var list []Status
	for p := range found {
		cert, r, bad := s.load(p)
		for path, err := range bad {
			if errors.Is(err, fs.ErrPermission) {
				return nil, fmt.Errorf("reading the state of ACME: %w", err)
			}
			r.Error = cleaned(filepath.Base(path)+" cannot be used: "+err.Error(), maxError)
		}
		list = append(list, s.status(p, cert, r, canonical[p]))
		delete(canonical, p)
	}
	for p := range canonical {
		list = append(list, s.status(p, nil, record{}, true))
	}
	sortStatus(list)
	return list, nil
}

// canonicalPairs are what canonical names need. Names that cannot be certified are left out;
// the check of the configuration tells of them.
func canonicalPairs(names []string, rsa bool) map[pair]bool {
	pairs := map[pair]bool{}
	for _, name := range names {
		if name = Fold(name); validName(name) {
			pairs[pair{name, ECDSA}] = true
			if rsa {
				pairs[pair{name, RSA}] = true
			}
		}
	}
	return pairs
}

// status describes a pair.
func (s *state) status(p pair, cert *tls.Certificate, r record, canonical bool) Status {
	st := Status{Name: p.name, Source: "acme", KeyType: p.kind, Canonical: canonical,
		Renewed: r.Renewed, Tried: r.Tried, Next: r.Next, Error: r.Error, Failures: r.Failures}
	if cert != nil {
		st.File = s.cert(p)
		st.Issuer = issuerOf(cert.Leaf)
		st.NotBefore, st.NotAfter = cert.Leaf.NotBefore, cert.Leaf.NotAfter
	}
	return st
}
