// Package testcert makes certificates for tests, at run time, so that none is checked in to expire.
package testcert

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Authority issues certificates. Its files live as long as the test.
type Authority struct {
	// CAFile holds the authority's own certificate, in PEM.
	CAFile string

	directory   string
	certificate *x509.Certificate
	key         crypto.Signer
}

// Pair is a certificate and its key, in PEM files.
type Pair struct {
	CertFile, KeyFile string
}

// New returns an authority that nobody else trusts.
func New(tb testing.TB) *Authority {
	tb.Helper()
	a := &Authority{directory: tb.TempDir()}
	template := template(tb, "test authority")
	template.IsCA, template.BasicConstraintsValid = true, true
	template.KeyUsage = x509.KeyUsageCertSign
	a.key = newKey(tb)
	der, err := x509.CreateCertificate(rand.Reader, template, template, a.key.Public(), a.key)
	if err != nil {
		tb.Fatalf("testcert: create authority: %v", err)
	}
	if a.certificate, err = x509.ParseCertificate(der); err != nil {
		tb.Fatalf("testcert: parse authority: %v", err)
	}
	a.CAFile = write(tb, a.directory, "ca.pem", "CERTIFICATE", der)
	return a
}

// Issue returns a certificate for hosts, which are host names or IP addresses, valid for servers and clients for an hour around now.
func (a *Authority) Issue(tb testing.TB, hosts ...string) Pair {
	tb.Helper()
	return a.IssueUntil(tb, time.Now().Add(time.Hour), hosts...)
}

// IssueUntil is Issue for a certificate that expires at the given time, which may be past.
func (a *Authority) IssueUntil(tb testing.TB, expiry time.Time, hosts ...string) Pair {
	tb.Helper()
	template := template(tb, hosts[0])
	template.NotBefore, template.NotAfter = expiry.Add(-2*time.Hour), expiry
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	for _, host := range hosts {
		if ip := net.ParseIP(host); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	key := newKey(tb)
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, key.Public(), a.key)
	if err != nil {
		tb.Fatalf("testcert: create certificate: %v", err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		tb.Fatalf("testcert: marshal key: %v", err)
	}
	name := template.SerialNumber.Text(36)
	return Pair{
		CertFile: write(tb, a.directory, name+".pem", "CERTIFICATE", der),
		KeyFile:  write(tb, a.directory, name+".key", "PRIVATE KEY", keyDER),
	}
}

func newKey(tb testing.TB) crypto.Signer {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatalf("testcert: generate key: %v", err)
	}
	return key
}

func template(tb testing.TB, name string) *x509.Certificate {
	tb.Helper()
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		tb.Fatalf("testcert: serial number: %v", err)
	}
	return &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
	}
}

func write(tb testing.TB, directory, name, kind string, der []byte) string {
	tb.Helper()
	path := filepath.Join(directory, name)
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		tb.Fatalf("testcert: %v", err)
	}
	return path
}
