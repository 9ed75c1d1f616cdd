package interop

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// authority signs the certificates that the servers show, and on request those of a proxy
// in front of them.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

// newAuthority makes an authority and writes its certificate into the file.
func newAuthority(file string) (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	cert := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "Mailreeve interop tests"},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(24 * time.Hour),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, cert, key.Public(), key)
	if err != nil {
		return nil, err
	}
	if cert, err = x509.ParseCertificate(der); err != nil {
		return nil, err
	}
	a := &authority{cert, key, x509.NewCertPool()}
	a.pool.AddCert(cert)
	return a, writePEM(file, "CERTIFICATE", der)
}

// Certificate makes a certificate for the names that whoever trusts [Rig.CAFile] trusts,
// and returns the names of two PEM files.
func (rig *Rig) Certificate(t testing.TB, names ...string) (certFile, keyFile string) {
	t.Helper()
	return rig.certificate(t, x509.ECDSA, func(*x509.Certificate) {}, names...)
}

// certificate makes one for a key of ECDSA or RSA that is changed before it is signed.
func (rig *Rig) certificate(t testing.TB, kind x509.PublicKeyAlgorithm, change func(*x509.Certificate), names ...string) (certFile, keyFile string) {
	t.Helper()
	dir := t.TempDir()
	if err := rig.ca.issue(dir, "server", kind, change, names...); err != nil {
		t.Fatalf("making a certificate for %q: %v", names, err)
	}
	return filepath.Join(dir, "server.pem"), filepath.Join(dir, "server.key")
}

// issue writes base.pem and base.key into the directory.
func (a *authority) issue(dir, base string, kind x509.PublicKeyAlgorithm, change func(*x509.Certificate), names ...string) error {
	var key crypto.Signer
	var err error
	usage := x509.KeyUsageDigitalSignature
	if kind == x509.RSA {
		usage |= x509.KeyUsageKeyEncipherment // the old key exchange
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	} else {
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	if err != nil {
		return err
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		return err
	}
	cert := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: names[0]},
		DNSNames:     names,
		NotBefore:    a.cert.NotBefore,
		NotAfter:     a.cert.NotAfter,
		KeyUsage:     usage,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	change(cert)
	der, err := x509.CreateCertificate(rand.Reader, cert, a.cert, key.Public(), a.key)
	if err != nil {
		return err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	return errors.Join(err,
		writePEM(filepath.Join(dir, base+".pem"), "CERTIFICATE", der),
		writePEM(filepath.Join(dir, base+".key"), "PRIVATE KEY", secret),
	)
}

func writePEM(file, kind string, der []byte) error {
	return os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
}
