package certs

import (
	"bytes"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"slices"
	"strings"
)

// maxFile bounds the size of a PEM file, so that a wrong path (a log, a device) does not
// fill memory. A long chain is some 10 KiB.
const maxFile = 1 << 20

// noKey is what is wrong with a file that lacks the private key.
const noKey = "there is no private key in it"

// Pair names the files of one certificate.
type Pair struct {
	Cert string // PEM: the certificate, then the intermediates that lead to the authority
	Key  string // PEM: the private key; empty if it stands in Cert
}

// keyFile is the file in which the key stands.
func (p Pair) keyFile() string {
	if p.Key == "" {
		return p.Cert
	}
	return p.Key
}

// Load reads all pairs into a store. It tries every pair; if any fails there is no store,
// and the error joins one [*Error] for each that failed. Dates are not judged, see
// [Info.Check]. No pairs make an empty store.
func Load(pairs []Pair) (*Store, error) {
	var all []*entry
	var failed []error
	for _, p := range pairs {
		e, err := p.load()
		if err != nil {
			failed = append(failed, err)
			continue
		}
		all = append(all, e)
	}
	if failed != nil {
		return nil, errors.Join(failed...)
	}
	return newStore(all), nil
}

// load reads one pair.
func (p Pair) load() (*entry, error) {
	chain, err := p.chain()
	if err != nil {
		return nil, err
	}
	key, err := p.key()
	if err != nil {
		return nil, err
	}
	leaf := chain[0]
	kind, ok := keyType(leaf)
	if !ok {
		return nil, &Error{File: p.Cert, Message: "the certificate's key is of an unknown kind",
			Cure: "use an ECDSA, RSA or Ed25519 key"}
	}
	if i := slices.IndexFunc(chain, func(c *x509.Certificate) bool { return matches(c, key) }); i > 0 {
		return nil, &Error{File: p.Cert, Message: "the certificates stand in the wrong order",
			Cure: "put the certificate of the host first and its authorities behind it"}
	} else if i < 0 {
		return nil, &Error{File: p.keyFile(), Message: "the key does not belong to the certificate in " + p.Cert,
			Cure: "name the key that the certificate was ordered with"}
	}
	var names []string
	for _, name := range leaf.DNSNames {
		if name = Fold(name); isPattern(name) {
			names = append(names, name)
		}
	}
	if len(names) == 0 && len(leaf.IPAddresses) == 0 {
		return nil, &Error{File: p.Cert, Message: "the certificate names no host in its subjectAltName",
			Cure: "order one that does: the common name alone has not counted for years"}
	}
	cert := tls.Certificate{PrivateKey: key, Leaf: leaf}
	for _, c := range chain {
		cert.Certificate = append(cert.Certificate, c.Raw)
	}
	return &entry{tls: cert, info: Info{
		Pair: p, Names: names, KeyType: kind, NotBefore: leaf.NotBefore, NotAfter: leaf.NotAfter,
		Bare: len(chain) == 1 && len(leaf.IssuingCertificateURL) > 0 && !bytes.Equal(leaf.RawIssuer, leaf.RawSubject),
	}}, nil
}

// isPattern says whether a folded name of a certificate is one that a client can ask for, or a
// wildcard. Any other text is possible there: an empty one would be for all clients that name no
// host, and control characters would reach the terminal of whoever lists certificates.
func isPattern(name string) bool {
	name = strings.TrimPrefix(name, "*.")
	return len(name) <= maxHost && !slices.ContainsFunc(strings.Split(name, "."), func(label string) bool {
		return label == "" || strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-_") != ""
	})
}

// chain reads the certificates; there is at least one.
func (p Pair) chain() ([]*x509.Certificate, error) {
	blocks, err := readPEM(p.Cert)
	if err != nil {
		return nil, err
	}
	var chain []*x509.Certificate
	for _, b := range blocks {
		if b.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(b.Bytes)
		if err != nil {
			return nil, &Error{File: p.Cert, Message: "a certificate cannot be read", Err: err,
				Cure: "copy it again from where it was issued"}
		}
		chain = append(chain, c)
	}
	if chain == nil {
		return nil, &Error{File: p.Cert, Message: "there is no certificate in it",
			Cure: "name a PEM file that holds one (-----BEGIN CERTIFICATE-----)"}
	}
	return chain, nil
}

// key reads the one private key.
func (p Pair) key() (crypto.Signer, error) {
	file := p.keyFile()
	blocks, err := readPEM(file)
	if err != nil {
		return nil, err
	}
	var key crypto.Signer
	for _, b := range blocks {
		if b.Type == "ENCRYPTED PRIVATE KEY" || b.Headers["DEK-Info"] != "" {
			return nil, &Error{File: file, Message: "the private key is encrypted",
				Cure: "decrypt it (openssl pkey) into a file with mode 0600"}
		}
		parse, isKey := keyParsers[b.Type]
		if !isKey {
			continue
		}
		if key != nil {
			return nil, &Error{File: file, Message: "there are several private keys in it",
				Cure: "leave the one that belongs to " + p.Cert}
		}
		parsed, err := parse(b.Bytes)
		if err != nil {
			return nil, &Error{File: file, Message: "the private key cannot be read", Err: err,
				Cure: "copy it again from where it was made"}
		}
		signer, ok := parsed.(crypto.Signer)
		if !ok {
			return nil, &Error{File: file, Message: "the private key cannot sign",
				Cure: "use an ECDSA, RSA or Ed25519 key"}
		}
		key = signer
	}
	if key == nil {
		return nil, &Error{File: file, Message: noKey,
			Cure: "name a PEM file that holds one (-----BEGIN PRIVATE KEY-----)"}
	}
	return key, nil
}

// keyParsers are the PEM types of private keys: RFC 5958 (PKCS #8), RFC 8017 appendix A.1.2
// (PKCS #1), RFC 5915 (SEC 1).
var keyParsers = map[string]func([]byte) (any, error){
	"PRIVATE KEY":     x509.ParsePKCS8PrivateKey,
	"RSA PRIVATE KEY": func(der []byte) (any, error) { return x509.ParsePKCS1PrivateKey(der) },
	"EC PRIVATE KEY":  func(der []byte) (any, error) { return x509.ParseECPrivateKey(der) },
}

// encodeKey makes the PEM form of a private key.
func encodeKey(key crypto.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// encodeChain makes the PEM form of certificates.
func encodeChain(chain ...[]byte) (out []byte) {
	for _, der := range chain {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	return out
}

// encodeCert makes the PEM form of a key and its chain.
func encodeCert(cert *tls.Certificate) ([]byte, error) {
	key, err := encodeKey(cert.PrivateKey)
	return append(key, encodeChain(cert.Certificate...)...), err
}

// matches says whether the key is the certificate's.
func matches(c *x509.Certificate, key crypto.Signer) bool {
	public, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool })
	return ok && public.Equal(c.PublicKey)
}

// readPEM reads all blocks of a file.
func readPEM(file string) ([]*pem.Block, error) {
	data, err := readFile(file, maxFile)
	switch {
	case errors.Is(err, errTooLarge):
		return nil, &Error{File: file, Message: "it is larger than 1 MiB, so hardly a certificate or key",
			Cure: "name the PEM file"}
	case err != nil:
		return nil, unreadable(file, "it", err)
	}
	empty := len(data) == 0
	var blocks []*pem.Block
	for {
		var b *pem.Block
		if b, data = pem.Decode(data); b == nil {
			break
		}
		blocks = append(blocks, b)
	}
	switch {
	case blocks != nil:
	case empty:
		return nil, &Error{File: file, Message: "it is empty", Cure: "write it anew; is the disk full?"}
	default:
		return nil, &Error{File: file, Message: "it is not in PEM form",
			Cure: "convert it (openssl x509 or openssl pkey, -inform DER; openssl pkcs12 -nodes for a .p12)"}
	}
	return blocks, nil
}

// unreadable is what the file system says of a file or folder.
func unreadable(file, what string, err error) error {
	return &Error{File: file, Message: what + " cannot be read", Err: cause(err),
		Cure: "correct the path, or let the program's user read it"}
}
