package rpc_test

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"

	"github.com/0x1d/goplt/internal/testcert"
	"github.com/0x1d/goplt/pkg/rpc"
)

// TestTLSConfig: who is let in, by whom, with the client's side made of the same configuration.
func TestTLSConfig(t *testing.T) {
	t.Parallel()
	ours, theirs := testcert.New(t), testcert.New(t)
	pair, stranger := ours.Issue(t, "127.0.0.1", "words.example.org"), theirs.Issue(t, "127.0.0.1")
	expired := ours.IssueUntil(t, time.Now().Add(-time.Minute), "127.0.0.1")
	elsewhere := ours.Issue(t, "letters.example.org")
	config := func(pair testcert.Pair, caFile string) rpc.TLSConfig {
		return rpc.TLSConfig{Enabled: true, CertFile: pair.CertFile, KeyFile: pair.KeyFile, CAFile: caFile}
	}
	named := config(testcert.Pair{}, ours.CAFile)
	named.ServerName = "words.example.org"
	misnamed := named
	misnamed.ServerName = "letters.example.org"

	for _, row := range []struct {
		name           string
		server, client rpc.TLSConfig
		want           string // part of the error; empty for success
		logged         string // part of the server's log, if it is the server that refuses
	}{
		{"trusted server", config(pair, ""), config(testcert.Pair{}, ours.CAFile), "", ""},
		{"server of another authority", config(stranger, ""), config(testcert.Pair{}, ours.CAFile), "certificate signed by unknown authority", ""},
		{"server unknown to the system", config(pair, ""), rpc.TLSConfig{Enabled: true}, "certificate signed by unknown authority", ""},
		{"expired server", config(expired, ""), config(testcert.Pair{}, ours.CAFile), "certificate has expired", ""},
		{"server of another name", config(elsewhere, ""), config(testcert.Pair{}, ours.CAFile), "doesn't contain any IP SANs", ""},
		{"server_name", config(pair, ""), named, "", ""},
		{"wrong server_name", config(pair, ""), misnamed, "not letters.example.org", ""},
		{"mutual", config(pair, ours.CAFile), config(pair, ours.CAFile), "", ""},
		{"mutual, client without certificate", config(pair, ours.CAFile), config(testcert.Pair{}, ours.CAFile), "", "client didn't provide a certificate"},
		{"mutual, client of another authority", config(pair, ours.CAFile), config(stranger, ours.CAFile), "", "certificate signed by unknown authority"},
		{"mutual, expired client", config(pair, ours.CAFile), config(expired, ours.CAFile), "", "certificate has expired"},
	} {
		for _, version := range []int{1, 2} {
			t.Run(fmt.Sprintf("%s, HTTP/%d", row.name, version), func(t *testing.T) {
				t.Parallel()
				_, handlers := newWords()
				serverConfig := testConfig()
				serverConfig.TLS = row.server
				logged := make(chan string, 16)
				server := startServer(t, handlers, serverConfig, rpc.WithServerLogger(slog.New(slog.NewTextHandler(writerFunc(func(line string) {
					logged <- line
				}), nil))))
				client, err := rpc.NewClientTLS(row.client)
				if err != nil {
					t.Fatal(err)
				}
				transport := connecthttp.NewTransport(httpClient(t, version, client), "https://"+server.Addr())
				answer, err := callText(t.Context(), connect.NewClient(transport), specEcho, "x")
				switch {
				case row.logged != "":
					// With TLS 1.3 the client is through with its handshake when it is refused, so which error it sees is a race.
					if err == nil {
						t.Errorf("got %q, want the server to refuse", answer)
					}
					if line := <-logged; !strings.Contains(line, row.logged) {
						t.Errorf("log: got %s, want %q", line, row.logged)
					}
				case row.want == "" && (err != nil || answer != "x"):
					t.Errorf("got %q, %v", answer, err)
				case row.want != "" && (err == nil || !strings.Contains(err.Error(), row.want)):
					t.Errorf("got %v, want an error with %q", err, row.want)
				}
			})
		}
	}
}

// TestTLSOnly: a port with TLS takes no cleartext, of whichever protocol.
func TestTLSOnly(t *testing.T) {
	t.Parallel()
	_, handlers := newWords()
	_, config := securedConfig(t)
	server := startServer(t, handlers, config)
	if answer, err := callText(t.Context(), rpcClientAt(t, server.Addr()), specEcho, "x"); err == nil {
		t.Errorf("h2c: got %q", answer)
	}
	status, _, _ := post(t, httpClient(t, 1, nil), http.MethodPost, "http://"+server.Addr()+specEcho.Procedure, "application/json", `"x"`)
	if status != http.StatusBadRequest {
		t.Errorf("HTTP/1.1: got %d, want 400", status)
	}
	outdated := &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10}
	if connection, err := (&tls.Dialer{Config: outdated}).DialContext(t.Context(), "tcp", server.Addr()); err == nil {
		_ = connection.Close()
		t.Error("TLS 1.1 was accepted")
	}
}

// TestTLSFiles pins what is said of files that are missing or hold something else.
func TestTLSFiles(t *testing.T) {
	t.Parallel()
	authority := testcert.New(t)
	pair, other := authority.Issue(t, "a"), authority.Issue(t, "b")
	missing, junk := filepath.Join(t.TempDir(), "missing.pem"), filepath.Join(t.TempDir(), "junk.pem")
	if err := os.WriteFile(junk, bytes.Repeat([]byte("junk\n"), 10), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		config rpc.TLSConfig
		want   string
	}{
		{rpc.TLSConfig{CAFile: missing, CertFile: pair.CertFile, KeyFile: pair.KeyFile}, "tls.ca_file: open " + missing + ": no such file or directory"},
		{rpc.TLSConfig{CAFile: junk, CertFile: pair.CertFile, KeyFile: pair.KeyFile}, "tls.ca_file " + junk + ": holds no PEM certificate"},
		{rpc.TLSConfig{CertFile: missing, KeyFile: pair.KeyFile}, "tls.cert_file: open " + missing + ": no such file or directory"},
		{rpc.TLSConfig{CertFile: pair.CertFile, KeyFile: missing}, "tls.key_file: open " + missing + ": no such file or directory"},
		{
			rpc.TLSConfig{CertFile: junk, KeyFile: pair.KeyFile},
			"tls.cert_file " + junk + " with tls.key_file " + pair.KeyFile + ": tls: failed to find any PEM data in certificate input",
		},
		{
			rpc.TLSConfig{CertFile: pair.CertFile, KeyFile: junk},
			"tls.cert_file " + pair.CertFile + " with tls.key_file " + junk + ": tls: failed to find any PEM data in key input",
		},
		{
			rpc.TLSConfig{CertFile: pair.CertFile, KeyFile: other.KeyFile},
			"tls.cert_file " + pair.CertFile + " with tls.key_file " + other.KeyFile + ": tls: private key does not match public key",
		},
	} {
		row.config.Enabled = true
		if _, err := rpc.NewClientTLS(row.config); err == nil || err.Error() != row.want {
			t.Errorf("client: got %v\nwant %s", err, row.want)
		}
		_, handlers := newWords()
		config := testConfig()
		config.TLS = row.config
		server, err := rpc.NewServer(handlers, rpc.WithServerConfig(config))
		if err != nil {
			t.Fatal(err)
		}
		if err := server.Start(t.Context()); err == nil || err.Error() != "rpc: start server: "+row.want {
			t.Errorf("server: got %v\nwant rpc: start server: %s", err, row.want)
		}
	}
	if config, err := rpc.NewClientTLS(rpc.TLSConfig{CAFile: missing}); config != nil || err != nil {
		t.Errorf("TLS off: got %v, %v; want nothing, and no file opened", config, err)
	}
}
