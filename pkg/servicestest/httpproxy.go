package servicestest

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"testing"
)

// HTTPProxy is a gateway: it stands between clients and a server, speaks HTTP/1.1 and HTTP/2 with both, and passes on requests and
// responses, streams and trailers included, until it is told to fail some of them, by the names of their procedures. It knows nothing of
// what it passes on: any HTTP service can be behind it, gRPC, Connect or other. Safe for concurrent use.
//
// Being a [Proxy] in front, it has the faults of connections too.
type HTTPProxy struct {
	*Proxy

	upstream *url.URL
	http1    *http.Transport
	http2    *http.Transport
	faults   faultSet

	// Two servers on ports of their own: which one a connection is passed to decides what the proxy speaks.
	both, http1Only *gatewayServer

	mu        sync.Mutex
	demoted   int // how many faults want HTTP/1.1 only
	requests  map[string]int
	exchanges sync.WaitGroup // those on their way
	over      bool
}

// HTTPProxyOption configures an [HTTPProxy].
type HTTPProxyOption func(*httpProxySettings)

type httpProxySettings struct {
	serve, dial *tls.Config
}

// ServeTLS has clients connect by TLS, with the certificates of config. ALPN offers h2 and http/1.1, whatever config says, or less:
// see [HTTPProxy.HTTP1Only]. By default, an HTTPProxy is reached in the clear.
func ServeTLS(config *tls.Config) HTTPProxyOption {
	return func(s *httpProxySettings) { s.serve = config.Clone() }
}

// DialTLS is how to connect to an upstream whose URL is https. Default: with the certificate authorities of the system.
func DialTLS(config *tls.Config) HTTPProxyOption {
	return func(s *httpProxySettings) { s.dial = config.Clone() }
}

// StartHTTPProxy starts a gateway in front of a server, which is named by address ("127.0.0.1:8080") or URL. It is closed when the test
// ends.
//
//	gateway := servicestest.StartHTTPProxy(t, server.URL)
//	fault := gateway.StripTrailers("orders.Place")
//	// … a client of gateway.Addr makes calls …
//	if fault.Hits() != 1 {
func StartHTTPProxy(tb testing.TB, upstream string, opts ...HTTPProxyOption) *HTTPProxy {
	tb.Helper()
	proxy, err := NewHTTPProxy(upstream, opts...)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := proxy.Close(); err != nil {
			tb.Error(err)
		}
	})
	return proxy
}

// NewHTTPProxy is [StartHTTPProxy] for programs that are no tests. Close the proxy.
func NewHTTPProxy(upstream string, opts ...HTTPProxyOption) (*HTTPProxy, error) {
	target, err := parseUpstream(upstream)
	if err != nil {
		return nil, err
	}
	var settings httpProxySettings
	for _, opt := range opts {
		opt(&settings)
	}
	scheme := "http"
	if settings.serve != nil {
		scheme = "https"
	}
	front, err := newProxy(scheme)
	if err != nil {
		return nil, err
	}
	p := &HTTPProxy{Proxy: front, upstream: target, requests: make(map[string]int)}
	// What comes by HTTP/2 goes on by HTTP/2, and the rest by HTTP/1.1: gRPC needs it, and a server need not speak both.
	p.http1 = &http.Transport{DisableCompression: true, TLSClientConfig: settings.dial, Protocols: new(http.Protocols)}
	p.http1.Protocols.SetHTTP1(true)
	p.http2 = p.http1.Clone()
	p.http2.Protocols = new(http.Protocols)
	p.http2.Protocols.SetHTTP2(true)
	p.http2.Protocols.SetUnencryptedHTTP2(true)

	p.both, err = newGatewayServer(p, settings.serve, "h2", "http/1.1")
	if err == nil {
		p.http1Only, err = newGatewayServer(p, settings.serve, "http/1.1")
	}
	p.dial = p.dialGateway
	p.start()
	if err != nil {
		_ = p.Close() // It has failed already.
		return nil, err
	}
	return p, nil
}

// dialGateway connects to the server that speaks what the proxy is to speak now.
func (p *HTTPProxy) dialGateway(ctx context.Context) (net.Conn, error) {
	p.mu.Lock()
	server := p.both
	if p.demoted > 0 {
		server = p.http1Only
	}
	p.mu.Unlock()
	return new(net.Dialer).DialContext(ctx, "tcp", server.addr)
}

// Requests returns how many requests have arrived for procedures with a name as in [Fault], those that were never passed on included.
func (p *HTTPProxy) Requests(name string) int {
	p.mustBe()
	p.mu.Lock()
	defer p.mu.Unlock()
	count := 0
	for path, requests := range p.requests {
		if hasName(path, name) {
			count += requests
		}
	}
	return count
}

// Clear removes all faults, those of connections included.
func (p *HTTPProxy) Clear() {
	p.faults.clear()
	p.Proxy.Clear()
}

// Close ends all requests, connections and faults, waits until nothing of the proxy is left, and returns what went wrong with its faults.
// It may be called more than once.
func (p *HTTPProxy) Close() error {
	p.faults.clear()
	err := p.Proxy.Close()
	p.mu.Lock()
	p.over = true
	p.mu.Unlock()
	for _, server := range []*gatewayServer{p.both, p.http1Only} {
		if server != nil {
			server.close()
		}
	}
	p.exchanges.Wait()
	p.http1.CloseIdleConnections()
	p.http2.CloseIdleConnections()
	return err
}

// begin counts a request, and reports false if the proxy is closed.
func (p *HTTPProxy) begin(path string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.over {
		return false
	}
	p.requests[path]++
	p.exchanges.Add(1)
	return true
}

// relayFrom returns the relay whose connection to a gateway server is from an address.
func (p *HTTPProxy) relayFrom(addr string) *relay {
	p.Proxy.mu.Lock()
	defer p.Proxy.mu.Unlock()
	for r := range p.relays {
		if r.from() == addr {
			return r
		}
	}
	return nil
}

// gatewayServer is an HTTP server of the proxy's.
type gatewayServer struct {
	addr    string
	http    *http.Server
	serving sync.WaitGroup
}

// newGatewayServer starts a server, by TLS if it is given, that speaks protocols, which have the names of ALPN.
func newGatewayServer(p *HTTPProxy, secured *tls.Config, protocols ...string) (*gatewayServer, error) {
	listener, err := new(net.ListenConfig).Listen(p.ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("servicestest: %w", err)
	}
	server := &gatewayServer{addr: listener.Addr().String()}
	server.http = &http.Server{ //nolint:gosec // clients are as slow as they like: that is for tests to decide
		Handler:     p,
		ErrorLog:    slog.NewLogLogger(slog.DiscardHandler, slog.LevelError), // of connections that faults break
		Protocols:   new(http.Protocols),
		ConnContext: withWire,
	}
	server.http.Protocols.SetHTTP1(true)
	server.http.Protocols.SetUnencryptedHTTP2(slices.Contains(protocols, "h2"))
	if secured != nil {
		secured = secured.Clone()
		secured.NextProtos = protocols
	}
	server.serving.Go(func() {
		_ = server.http.Serve(wireListener{listener, secured}) // that it was closed
	})
	return server, nil
}

func (s *gatewayServer) close() {
	_ = s.http.Close() // Its connections are closed whether its listener can be or not.
	s.serving.Wait()
}
