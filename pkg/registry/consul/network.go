package consul

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

const dialTimeout = 5 * time.Second

// network is the way to one agent. It uses no proxy: an agent is local, or close. Over TLS it is made anew when the files have changed, so that no
// connection outlives the credentials it was made with by more than the request that it carries.
type network struct {
	files TLSConfig
	at    address

	mu      sync.Mutex
	current *http.Transport
	seen    string // the fingerprint of the files when current was made
}

func newNetwork(files TLSConfig, at address) *network { return &network{files: files, at: at} }

// RoundTrip implements [http.RoundTripper].
func (n *network) RoundTrip(request *http.Request) (*http.Response, error) {
	return n.fresh().RoundTrip(request)
}

// CloseIdleConnections closes the connections that carry no request.
func (n *network) CloseIdleConnections() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.current != nil {
		n.current.CloseIdleConnections()
	}
}

// fresh returns the transport for the files as they are. Files that cannot be used, as when they are just being written, change nothing.
func (n *network) fresh() *http.Transport {
	n.mu.Lock()
	defer n.mu.Unlock()
	seen := n.fingerprint()
	if n.current != nil && seen == n.seen {
		return n.current
	}
	if previous := n.current; previous != nil {
		if _, err := n.files.load(); err != nil {
			return previous
		}
		previous.CloseIdleConnections() // and those that become idle
	}
	n.current, n.seen = n.transport(), seen
	return n.current
}

// fingerprint tells files from those that were there before, by their sizes and times. It reads none: it is taken for every request.
func (n *network) fingerprint() string {
	if n.at.scheme != "https" {
		return ""
	}
	var seen strings.Builder
	note := func(path string) {
		if path == "" {
			return
		}
		if info, err := os.Stat(path); err == nil {
			fmt.Fprintf(&seen, "%s %d %d\n", path, info.Size(), info.ModTime().UnixNano())
		}
	}
	note(n.files.CAFile)
	note(n.files.CertFile)
	note(n.files.KeyFile)
	if n.files.CAPath != "" && n.files.CAFile == "" {
		inside, _ := n.files.caFiles() // what is wrong with it, who dials is told
		for _, file := range inside {
			note(file)
		}
	}
	return seen.String()
}

func (n *network) transport() *http.Transport {
	dialer := &net.Dialer{Timeout: dialTimeout, KeepAlive: 15 * time.Second}
	transport := &http.Transport{
		DialContext:         dialer.DialContext,
		MaxIdleConnsPerHost: 8, // between two queries; turns that end hand their connections on
		IdleConnTimeout:     90 * time.Second,
	}
	switch n.at.scheme {
	case "unix":
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", n.at.host)
		}
	case "https":
		transport.DialTLSContext = func(ctx context.Context, network, address string) (net.Conn, error) {
			config, err := n.files.load()
			if err != nil {
				return nil, err
			}
			if config.ServerName == "" {
				if config.ServerName, _, err = net.SplitHostPort(address); err != nil {
					return nil, err
				}
			}
			ctx, cancel := context.WithTimeout(ctx, dialTimeout)
			defer cancel()
			return (&tls.Dialer{NetDialer: dialer, Config: config}).DialContext(ctx, network, address)
		}
	}
	return transport
}

// load reads the files as they are now.
func (c TLSConfig) load() (*tls.Config, error) {
	config := &tls.Config{ServerName: c.ServerName, MinVersion: tls.VersionTLS12}
	if c.CAFile != "" || c.CAPath != "" {
		roots, err := c.roots()
		if err != nil {
			return nil, err
		}
		config.RootCAs = roots
	}
	if c.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("tls.cert_file %s, tls.key_file %s: %w", c.CertFile, c.KeyFile, err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

func (c TLSConfig) roots() (*x509.CertPool, error) {
	key, files := "tls.ca_file", []string{c.CAFile}
	if c.CAFile == "" {
		var err error
		key = "tls.ca_path"
		if files, err = c.caFiles(); err != nil {
			return nil, fmt.Errorf("%s: %w", key, err)
		}
	}
	roots := x509.NewCertPool()
	for _, file := range files {
		pem, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", key, err)
		}
		if !roots.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s: %s holds no PEM certificate", key, file)
		}
	}
	return roots, nil
}

// caFiles returns the files of CAPath, sorted. A directory without any is an error: it would trust nobody.
func (c TLSConfig) caFiles() ([]string, error) {
	entries, err := os.ReadDir(c.CAPath)
	if err != nil {
		return nil, err
	}
	var files []string
	for _, entry := range entries {
		path := filepath.Join(c.CAPath, entry.Name())
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && !strings.HasPrefix(entry.Name(), ".") { // a link to a file counts
			files = append(files, path)
		}
	}
	if len(files) == 0 {
		return nil, errors.New(c.CAPath + " holds no file")
	}
	return files, nil
}
