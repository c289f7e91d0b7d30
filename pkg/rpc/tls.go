package rpc

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
)

// newServerTLS reads the files of c and returns what a server presents and demands, or nil if TLS is off. Errors name the key and the file.
func newServerTLS(c TLSConfig) (*tls.Config, error) {
	if !c.Enabled {
		return nil, nil //nolint:nilnil // To net/http, no configuration is what says that TLS is off.
	}
	certificate, err := loadCertificate(c.CertFile, c.KeyFile)
	if err != nil {
		return nil, err
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{certificate}}
	if c.CAFile != "" {
		if config.ClientCAs, err = loadAuthorities(c.CAFile); err != nil {
			return nil, err
		}
		config.ClientAuth = tls.RequireAndVerifyClientCert
	}
	return config, nil
}

// newClientTLS reads the files of c and returns what a client presents and trusts, or nil if TLS is off. The caller adds the protocols of
// ALPN and, if ServerName is empty, the name of each instance's host. Errors name the key and the file.
func newClientTLS(c TLSConfig) (*tls.Config, error) {
	if !c.Enabled {
		return nil, nil //nolint:nilnil // To net/http, no configuration is what says that TLS is off.
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: c.ServerName}
	if c.CAFile != "" {
		var err error
		if config.RootCAs, err = loadAuthorities(c.CAFile); err != nil {
			return nil, err
		}
	}
	if c.CertFile != "" {
		certificate, err := loadCertificate(c.CertFile, c.KeyFile)
		if err != nil {
			return nil, err
		}
		config.Certificates = []tls.Certificate{certificate}
	}
	return config, nil
}

func loadCertificate(certFile, keyFile string) (tls.Certificate, error) {
	chain, err := os.ReadFile(certFile)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("tls.cert_file: %w", err)
	}
	key, err := os.ReadFile(keyFile)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("tls.key_file: %w", err)
	}
	certificate, err := tls.X509KeyPair(chain, key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("tls.cert_file %s with tls.key_file %s: %w", certFile, keyFile, err)
	}
	return certificate, nil
}

func loadAuthorities(caFile string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(caFile)
	if err != nil {
		return nil, fmt.Errorf("tls.ca_file: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("tls.ca_file %s: holds no PEM certificate", caFile)
	}
	return pool, nil
}
