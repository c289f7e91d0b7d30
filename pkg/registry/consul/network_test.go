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
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/0x1d/goplt/pkg/registry/consul"
)

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
		MinVersion: tls.VersionTLS12, MaxVersion: tls.VersionTLS12, // by 1.3 a client without a certificate learns of it after the handshake, if at all
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
	next := consul.TLSConfig{CAFile: files.CAFile + ".next", CertFile: files.CertFile + ".next", KeyFile: files.KeyFile + ".next"}
	current.write(t, next)
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
	for from, to := range map[string]string{next.CAFile: files.CAFile, next.CertFile: files.CertFile, next.KeyFile: files.KeyFile} {
		if err := os.Rename(from, to); err != nil { // before it tries again
			t.Fatal(err)
		}
	}
	expect(t, w, "1")
}

// A connection that is kept alive is not used on when the files have changed, and while they cannot be used the old ones hold.
func TestRotatedTLSFilesAreUsedOnKeptAliveConnections(t *testing.T) {
	t.Parallel()
	directory := t.TempDir()
	first, second := newAuthority(t), newAuthority(t)
	files := consul.TLSConfig{
		CAPath: filepath.Join(directory, "authorities"), CertFile: filepath.Join(directory, "cert.pem"), KeyFile: filepath.Join(directory, "key.pem"),
		ServerName: "agent",
	}
	if err := os.Mkdir(files.CAPath, 0o700); err != nil {
		t.Fatal(err)
	}
	put := func(by *authority, ca string) {
		by.write(t, consul.TLSConfig{CAFile: filepath.Join(files.CAPath, ca), CertFile: files.CertFile, KeyFile: files.KeyFile})
	}
	put(first, "first.pem")
	issuers := make(chan *x509.Certificate, 100) // of the client certificate of each request
	agent := newFakeAgent(entry("1", 80))
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		issuers <- r.TLS.VerifiedChains[0][1]
		agent.ServeHTTP(w, r)
	}))
	both := first.pool.Clone()
	both.AddCert(second.certificate)
	server.TLS = &tls.Config{
		Certificates: []tls.Certificate{first.issue(t, "agent")}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: both, MinVersion: tls.VersionTLS12,
	}
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	server.StartTLS()
	t.Cleanup(server.Close)
	w := watch(t, over(t, server.URL, func(c *consul.Config) { c.TLS, c.Wait = files, 100*time.Millisecond }))
	expect(t, w, "1")
	if got := <-issuers; !got.Equal(first.certificate) {
		t.Error("the first connection has not the first certificate")
	}

	if err := os.WriteFile(files.CertFile, []byte("half of a"), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 3 { // queries go on over the connection that there is
		if got := <-issuers; !got.Equal(first.certificate) {
			t.Error("a file that is no certificate ended the first")
		}
	}
	put(second, "second.pem")
	for used := range 10 {
		if got := <-issuers; got.Equal(second.certificate) {
			return
		} else if used == 9 {
			t.Error("the second certificate is not used")
		}
	}
}

// Not parallel: it sets the environment.
func TestAuthoritiesOfADirectoryInTheEnvironment(t *testing.T) {
	directory := t.TempDir()
	ca := newAuthority(t)
	ca.write(t, consul.TLSConfig{CAFile: filepath.Join(directory, "ca.pem"), CertFile: filepath.Join(t.TempDir(), "c"), KeyFile: filepath.Join(t.TempDir(), "k")})
	server := httptest.NewUnstartedServer(newFakeAgent(entry("1", 80)))
	server.TLS = &tls.Config{Certificates: []tls.Certificate{ca.issue(t, "agent")}, MinVersion: tls.VersionTLS12}
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	server.StartTLS()
	t.Cleanup(server.Close)
	t.Setenv("CONSUL_TLS_SERVER_NAME", "agent")
	t.Setenv("CONSUL_CAPATH", directory)
	expect(t, watch(t, over(t, server.URL)), "1")

	empty := t.TempDir()
	t.Setenv("CONSUL_CAPATH", empty)
	if err := expectError(t, watch(t, over(t, server.URL)), nil); !strings.Contains(err.Error(), "tls.ca_path: "+empty+" holds no file") {
		t.Errorf("an empty directory: %v", err)
	}
	t.Setenv("CONSUL_CAPATH", "")
	t.Setenv("CONSUL_HTTP_SSL_VERIFY", "false")
	logged := new(journal)
	r := over(t, server.URL, func(c *consul.Config) { c.Logger = slog.New(slog.NewTextHandler(logged, nil)) })
	if err := expectError(t, watch(t, r), nil); !strings.Contains(err.Error(), "certificate signed by unknown authority") {
		t.Errorf("the variable switches verification off: %v", err)
	}
	if logged.count("CONSUL_HTTP_SSL_VERIFY=false is ignored") != 1 {
		t.Errorf("nothing is said of it:\n%s", logged.lines.String())
	}
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
