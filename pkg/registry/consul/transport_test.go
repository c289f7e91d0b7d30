package consul_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/0x1d/goplt/pkg/registry/consul"
)

// over returns a registry that speaks over the network to address.
func over(t *testing.T, address string, changes ...func(*consul.Config)) *consul.Registry {
	t.Helper()
	config := consul.DefaultConfig()
	config.Address, config.Logger = address, slog.New(slog.DiscardHandler)
	for _, change := range changes {
		change(&config)
	}
	r, err := consul.New(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return r
}

func TestUnixSocket(t *testing.T) {
	t.Parallel()
	directory, err := os.MkdirTemp("", "consul") //nolint:usetesting // the path of a socket must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(directory) })
	path := filepath.Join(directory, "agent.sock")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(newFakeAgent(entry("1", 80)))
	if err := server.Listener.Close(); err != nil {
		t.Fatal(err)
	}
	server.Listener = listener
	server.Start()
	t.Cleanup(server.Close)
	expect(t, watch(t, over(t, "unix://"+path)), "1")
}

func TestPathOfTheAddress(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.StripPrefix("/behind/proxy", newFakeAgent(entry("1", 80))))
	t.Cleanup(server.Close)
	expect(t, watch(t, over(t, server.URL+"/behind/proxy/")), "1")
}

// A redirect would lead the token to wherever it points.
func TestRedirectIsNotFollowed(t *testing.T) {
	t.Parallel()
	elsewhere := newFakeAgent(entry("1", 80))
	thief := httptest.NewServer(elsewhere)
	t.Cleanup(thief.Close)
	server := httptest.NewServer(http.RedirectHandler(thief.URL+"/v1/health/service/auth", http.StatusTemporaryRedirect))
	t.Cleanup(server.Close)
	r := over(t, server.URL, func(c *consul.Config) { c.Token = "secret" })
	if err := expectError(t, watch(t, r), nil); !strings.Contains(err.Error(), "status 307") {
		t.Errorf("got %v", err)
	}
	if asked := elsewhere.asked("/"); len(asked) != 0 {
		t.Errorf("the redirect was followed, with token %q", asked[0].Header.Get("X-Consul-Token"))
	}
}

func TestAgentOutOfReach(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(newFakeAgent())
	server.Close()
	r := over(t, server.URL)
	err := expectError(t, watch(t, r), nil)
	if !strings.Contains(err.Error(), "connection refused") || !strings.Contains(err.Error(), server.Listener.Addr().String()) {
		t.Errorf("Next: %v", err)
	}
	if _, err := r.Register(t.Context(), instance()); err == nil || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("Register: %v", err)
	}
}

func TestTLSToTheAgent(t *testing.T) {
	t.Parallel()
	directory := t.TempDir()
	ca := newAuthority(t)
	files := consul.TLSConfig{
		CAFile: filepath.Join(directory, "ca.pem"), CertFile: filepath.Join(directory, "cert.pem"), KeyFile: filepath.Join(directory, "key.pem"),
		ServerName: "server.dc1.consul",
	}
	ca.write(t, files)
	server := httptest.NewUnstartedServer(newFakeAgent(entry("1", 80)))
	server.TLS = &tls.Config{
		Certificates: []tls.Certificate{ca.issue(t, "server.dc1.consul")}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: ca.pool,
		MinVersion: tls.VersionTLS12,
	}
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	server.StartTLS()
	t.Cleanup(server.Close)

	expect(t, watch(t, over(t, server.URL, func(c *consul.Config) { c.TLS = files })), "1")
	for want, change := range map[string]func(*consul.TLSConfig){
		"certificate is valid for server.dc1.consul, not other": func(c *consul.TLSConfig) { c.ServerName = "other" },
		"because it doesn't contain any IP SANs":                func(c *consul.TLSConfig) { c.ServerName = "" },
		"certificate signed by unknown authority":               func(c *consul.TLSConfig) { c.CAFile = "" },
		"tls: ": func(c *consul.TLSConfig) { c.CertFile, c.KeyFile = "", "" },
		"tls.ca_file: open " + directory + "/none: no such file": func(c *consul.TLSConfig) { c.CAFile = directory + "/none" },
		"holds no PEM certificate":                               func(c *consul.TLSConfig) { c.CAFile = files.KeyFile },
		"tls.cert_file " + directory + "/none, tls.key_file":     func(c *consul.TLSConfig) { c.CertFile = directory + "/none" },
	} {
		changed := files
		change(&changed)
		if err := expectError(t, watch(t, over(t, server.URL, func(c *consul.Config) { c.TLS = changed })), nil); !strings.Contains(err.Error(), want) {
			t.Errorf("got %v\nwant %s", err, want)
		}
	}
}

// Under the names that Consul's own tools use; what is configured goes first. Not parallel: it sets the environment.
func TestTLSOfTheEnvironment(t *testing.T) {
	directory := t.TempDir()
	ca := newAuthority(t)
	files := consul.TLSConfig{
		CAFile: filepath.Join(directory, "ca.pem"), CertFile: filepath.Join(directory, "cert.pem"), KeyFile: filepath.Join(directory, "key.pem"),
	}
	ca.write(t, files)
	agent := newFakeAgent(entry("1", 80))
	server := httptest.NewUnstartedServer(agent)
	server.TLS = &tls.Config{
		Certificates: []tls.Certificate{ca.issue(t, "server.dc1.consul")}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: ca.pool,
		MinVersion: tls.VersionTLS12,
	}
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	server.StartTLS()
	t.Cleanup(server.Close)
	address := server.Listener.Addr().String()

	t.Setenv("CONSUL_HTTP_TOKEN", "s3cret")
	t.Setenv("CONSUL_CACERT", files.CAFile)
	t.Setenv("CONSUL_CLIENT_CERT", files.CertFile)
	t.Setenv("CONSUL_CLIENT_KEY", files.KeyFile)
	t.Setenv("CONSUL_TLS_SERVER_NAME", "server.dc1.consul")
	plain := httptest.NewServer(newFakeAgent(entry("2", 80)))
	t.Cleanup(plain.Close)
	expect(t, watch(t, over(t, plain.URL)), "2") // files alone demand no TLS

	t.Setenv("CONSUL_HTTP_SSL", "true")
	expect(t, watch(t, over(t, address)), "1")
	if got := healthQueries(agent)[0].Header.Get("X-Consul-Token"); got != "s3cret" {
		t.Errorf("asked with token %q", got)
	}
	err := expectError(t, watch(t, over(t, server.URL, func(c *consul.Config) { c.TLS.ServerName = "other" })), nil)
	if want := "certificate is valid for server.dc1.consul, not other"; !strings.Contains(err.Error(), want) {
		t.Errorf("got %v\nwant %s", err, want)
	}
	if err := expectError(t, watch(t, over(t, plain.URL)), nil); !strings.Contains(err.Error(), "tls") && !strings.Contains(err.Error(), "HTTPS") {
		t.Errorf("an agent without TLS: %v", err) // and the token stays here
	}
}

// The files are read for each connection, so that a rotation needs no restart.
func TestTLSFilesAreReadAgain(t *testing.T) {
	t.Parallel()
	directory := t.TempDir()
	old, current := newAuthority(t), newAuthority(t)
	files := consul.TLSConfig{
		CAFile: filepath.Join(directory, "ca.pem"), CertFile: filepath.Join(directory, "cert.pem"), KeyFile: filepath.Join(directory, "key.pem"),
		ServerName: "agent",
	}
	old.write(t, files)
	server := httptest.NewUnstartedServer(newFakeAgent(entry("1", 80)))
	server.TLS = &tls.Config{
		Certificates: []tls.Certificate{current.issue(t, "agent")}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: current.pool,
		MinVersion: tls.VersionTLS12,
	}
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	server.StartTLS()
	t.Cleanup(server.Close)
	w := watch(t, over(t, server.URL, func(c *consul.Config) { c.TLS = files }))
	expectError(t, w, nil)
	current.write(t, files)
	expect(t, w, "1")
}

// authority issues certificates for tests.
type authority struct {
	key         *ecdsa.PrivateKey
	certificate *x509.Certificate
	pool        *x509.CertPool
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	encoded, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(encoded)
	if err != nil {
		t.Fatal(err)
	}
	a := &authority{key: key, certificate: certificate, pool: x509.NewCertPool()}
	a.pool.AddCert(certificate)
	return a
}

func (a *authority) issue(t *testing.T, name string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	encoded, err := x509.CreateCertificate(rand.Reader, template, a.certificate, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{encoded}, PrivateKey: key}
}

// write writes the authority and a client certificate of its to files.
func (a *authority) write(t *testing.T, files consul.TLSConfig) {
	t.Helper()
	client := a.issue(t, "client")
	key, err := x509.MarshalPKCS8PrivateKey(client.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{
		files.CAFile:   {Type: "CERTIFICATE", Bytes: a.certificate.Raw},
		files.CertFile: {Type: "CERTIFICATE", Bytes: client.Certificate[0]},
		files.KeyFile:  {Type: "PRIVATE KEY", Bytes: key},
	} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
