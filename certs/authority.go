package certs

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"time"
)

// Authority is a certificate authority for the demo and for tests. Its key lives as long as
// the value does and is never written: a new run makes a new authority.
type Authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// NewAuthority makes an authority of the given name, with a P-256 key, valid from an hour
// ago (clocks differ) for ten years.
func NewAuthority(name string) (*Authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making the authority's key: %w", err)
	}
	now := time.Now()
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             now.Add(-time.Hour),
		NotAfter:              now.AddDate(10, 0, 0),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	cert, err := sign(template, template, &key.PublicKey, key)
	if err != nil {
		return nil, fmt.Errorf("signing the authority's certificate: %w", err)
	}
	return &Authority{cert: cert, key: key}, nil
}

// Order says what an [Authority] is to certify.
type Order struct {
	Hosts     []string  // DNS names, also wildcards, and IP addresses
	KeyType   KeyType   // of the new key; zero is ECDSA on P-256, RSA has 2048 bits
	NotBefore time.Time // zero is an hour ago
	NotAfter  time.Time // zero is 90 days after NotBefore
}

// Issue makes a key and certifies it for servers.
func (a *Authority) Issue(o Order) (tls.Certificate, error) {
	key, err := newKey(o.KeyType)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("making a key: %w", err)
	}
	if o.NotBefore.IsZero() {
		o.NotBefore = time.Now().Add(-time.Hour)
	}
	if o.NotAfter.IsZero() {
		o.NotAfter = o.NotBefore.AddDate(0, 0, 90)
	}
	template := &x509.Certificate{
		NotBefore:   o.NotBefore,
		NotAfter:    o.NotAfter,
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if o.KeyType == RSA {
		template.KeyUsage |= x509.KeyUsageKeyEncipherment // RSA key exchange, which old clients may need
	}
	for _, host := range o.Hosts {
		if ip := net.ParseIP(host); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	leaf, err := sign(template, a.cert, key.Public(), a.key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("signing a certificate for %q: %w", o.Hosts, err)
	}
	return tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: key, Leaf: leaf}, nil
}

// Pool is a pool of roots with this authority alone.
func (a *Authority) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

// WriteCA writes the authority's certificate, for clients that shall trust it; usually to ca.pem.
func (a *Authority) WriteCA(file string) error {
	return writeNew(file, encodeChain(a.cert.Raw), 0o644)
}

// Write writes a certificate and its key into the files of p, so that [Load] reads them.
// The file with the key has mode 0600.
func Write(cert tls.Certificate, p Pair) error {
	key, err := encodeKey(cert.PrivateKey)
	if err != nil {
		return fmt.Errorf("writing a key to %s: %w", p.keyFile(), err)
	}
	chain := encodeChain(cert.Certificate...)
	if p.Key == "" {
		return writeNew(p.Cert, append(chain, key...), 0o600)
	}
	if err := writeNew(p.Key, key, 0o600); err != nil {
		return err
	}
	return writeNew(p.Cert, chain, 0o644)
}

// sign certifies a public key; a serial number is drawn by the library (RFC 5280 section 4.1.2.2).
func sign(template, parent *x509.Certificate, public crypto.PublicKey, key crypto.Signer) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// newKey makes a private key.
func newKey(kind KeyType) (crypto.Signer, error) {
	switch kind {
	case ECDSA:
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case Ed25519:
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return key, err
	case RSA:
		return rsa.GenerateKey(rand.Reader, 2048)
	}
	return nil, fmt.Errorf("no such kind of key: %v", kind)
}

// writeNew writes a file anew. An old one is removed first: writing into it would keep its mode.
func writeNew(file string, data []byte, mode fs.FileMode) error {
	if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.WriteFile(file, data, mode)
}
