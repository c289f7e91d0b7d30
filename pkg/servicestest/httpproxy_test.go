package servicestest_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/0x1d/goplt/internal/testcert"
	"github.com/0x1d/goplt/pkg/servicestest"
)

// backend is a server behind a gateway: it executes, and answers "hello" with trailers.
type backend struct {
	*httptest.Server

	executed atomic.Int64
	answer   string
}

const procedure = "/shop.v1.OrdersService/Place"

func startBackend(t *testing.T) *backend {
	t.Helper()
	b := &backend{answer: "hello"}
	b.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return // that the client has gone
		}
		b.executed.Add(1)
		w.Header().Set("Trailer", "Grpc-Status")
		w.Header().Set("X-Request", fmt.Sprintf("%s %s %d bytes, te %q", r.Proto, r.Header.Get("X-Kept"), len(body), r.Header.Get("TE")))
		_, _ = io.WriteString(w, b.answer)
		w.Header().Set("Grpc-Status", "0")
		w.Header().Set(http.TrailerPrefix+"X-Unannounced", "1")
	}))
	b.Config.Protocols = new(http.Protocols)
	b.Config.Protocols.SetHTTP1(true)
	b.Config.Protocols.SetUnencryptedHTTP2(true)
	b.Start()
	t.Cleanup(b.Close)
	return b
}

// spoken are the ways to speak HTTP to a gateway in the clear.
var spoken = []string{"HTTP/1.1", "HTTP/2.0"}

// speaking returns a plain client that speaks one of them.
func speaking(t *testing.T, proto string) *http.Client {
	t.Helper()
	transport := &http.Transport{Protocols: new(http.Protocols), DisableCompression: true}
	transport.Protocols.SetHTTP1(proto == "HTTP/1.1")
	transport.Protocols.SetUnencryptedHTTP2(proto == "HTTP/2.0")
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 10 * time.Second}
}

// answered is a response as far as it came.
type answered struct {
	*http.Response

	body string
	err  error // of reading it
}

// post makes a call. The error is of a response that did not begin.
func post(t *testing.T, client *http.Client, url, contentType string) (*answered, error) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+procedure, strings.NewReader("a request"))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", contentType)
	request.Header.Set("X-Kept", "kept")
	request.Header.Set("TE", "trailers")
	request.GetBody = nil // so that net/http sends it once
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return &answered{response, string(body), err}, nil
}

const grpcType = "application/grpc+proto"

// eachProtocol runs a test over both versions of HTTP, with a gateway of its own. Each call has a connection of its own, since net/http may
// take some time to see that one has died.
func eachProtocol(t *testing.T, test func(t *testing.T, server *backend, gateway *servicestest.HTTPProxy, call func() (*answered, error))) {
	t.Helper()
	for _, proto := range spoken {
		t.Run(proto, func(t *testing.T) {
			server := startBackend(t)
			gateway := servicestest.StartHTTPProxy(t, server.URL)
			test(t, server, gateway, func() (*answered, error) { return post(t, speaking(t, proto), gateway.URL, grpcType) })
		})
	}
}

// expectHello checks that a call was answered by the server.
func expectHello(t *testing.T, call func() (*answered, error)) *answered {
	t.Helper()
	got, err := call()
	if err != nil {
		t.Fatal(err)
	}
	if got.err != nil || got.StatusCode != http.StatusOK || got.body != "hello" {
		t.Fatalf("got %s, %q, %v, want the server's answer", got.Status, got.body, got.err)
	}
	return got
}

func TestHTTPProxyPassesOn(t *testing.T) {
	eachProtocol(t, func(t *testing.T, server *backend, gateway *servicestest.HTTPProxy, _ func() (*answered, error)) {
		proto := t.Name()[strings.Index(t.Name(), "/")+1:]
		client := speaking(t, proto)
		call := func() (*answered, error) { return post(t, client, gateway.URL, grpcType) }
		got := expectHello(t, call)
		if got.Proto != proto {
			t.Errorf("the gateway speaks %s, want %s", got.Proto, proto)
		}
		if said, want := got.Header.Get("X-Request"), proto+` kept 9 bytes, te "trailers"`; said != want {
			t.Errorf("the server got %q, want %q", said, want)
		}
		if got.Trailer.Get("Grpc-Status") != "0" || got.Trailer.Get("X-Unannounced") != "1" {
			t.Errorf("trailers %v", got.Trailer)
		}
		expectHello(t, call)
		for name, want := range map[string]int{"*": 2, "orders": 2, "orders.Place": 2, procedure: 2, "orders.Cancel": 0} {
			if got := gateway.Requests(name); got != want {
				t.Errorf("%d requests of %q, want %d", got, name, want)
			}
		}
		if accepted := gateway.Accepted.Load(); accepted != 1 || server.executed.Load() != 2 {
			t.Errorf("%d connections, %d executions, want 1 and 2", accepted, server.executed.Load())
		}
	})
}

// TestHTTPProxyHopHeaders: what is of one connection only stays on it (RFC 9110, section 7.6.1), in both directions.
func TestHTTPProxyHopHeaders(t *testing.T) {
	got := make(chan http.Header, 1)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got <- r.Header
		w.Header().Set("Connection", "X-Of-The-Server")
		w.Header().Set("X-Of-The-Server", "1")
		w.Header().Set("X-Kept", "1")
	}))
	t.Cleanup(server.Close)
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, servicestest.StartHTTPProxy(t, server.URL).URL, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	request.Header = http.Header{
		"Connection": {"X-Of-The-Client, close"}, "X-Of-The-Client": {"1"}, "Keep-Alive": {"1"}, "Te": {"gzip"}, "X-Kept": {"1"}, "User-Agent": {""},
	}
	response, err := speaking(t, "HTTP/1.1").Do(request)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	passed := <-got
	delete(passed, "Accept-Encoding")
	if len(passed) != 1 || passed.Get("X-Kept") != "1" {
		t.Errorf("the server got %v, want X-Kept alone", passed)
	}
	if response.Header.Get("X-Of-The-Server") != "" || response.Header.Get("X-Kept") != "1" {
		t.Errorf("the client got %v", response.Header)
	}
}

// TestHTTPProxyStreams: both directions of a stream pass at the same time, message by message.
func TestHTTPProxyStreams(t *testing.T) {
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		flush := http.NewResponseController(w).Flush
		_ = flush()
		buffer := make([]byte, 64)
		for {
			n, err := r.Body.Read(buffer)
			_, _ = w.Write(bytes.ToUpper(buffer[:n]))
			_ = flush()
			if err != nil {
				return
			}
		}
	}))
	server.Config.Protocols = new(http.Protocols)
	server.Config.Protocols.SetUnencryptedHTTP2(true)
	server.Start()
	t.Cleanup(server.Close)
	gateway := servicestest.StartHTTPProxy(t, server.URL)
	out, in := io.Pipe()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, gateway.URL+procedure, out)
	if err != nil {
		t.Fatal(err)
	}
	response, err := speaking(t, "HTTP/2.0").Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	for _, message := range []string{"first", "second"} {
		if _, err := io.WriteString(in, message); err != nil {
			t.Fatal(err)
		}
		got, want := make([]byte, len(message)), strings.ToUpper(message)
		if _, err := io.ReadFull(response.Body, got); err != nil || string(got) != want {
			t.Fatalf("%q came back as %q, %v", message, got, err)
		}
	}
	in.Close()
	if rest, err := io.ReadAll(response.Body); len(rest) > 0 || err != nil {
		t.Errorf("then %q, %v", rest, err)
	}
}

func TestHTTPProxyTLS(t *testing.T) {
	authority := testcert.New(t)
	pair := authority.Issue(t, "127.0.0.1")
	certificate, err := tls.LoadX509KeyPair(pair.CertFile, pair.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	pem, err := os.ReadFile(authority.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	trusted := x509.NewCertPool()
	trusted.AppendCertsFromPEM(pem)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.Proto)
	}))
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)
	upstream := &tls.Config{RootCAs: server.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs}
	gateway := servicestest.StartHTTPProxy(t, server.URL,
		servicestest.ServeTLS(&tls.Config{Certificates: []tls.Certificate{certificate}}), servicestest.DialTLS(upstream))
	if !strings.HasPrefix(gateway.URL, "https://") {
		t.Errorf("URL %s", gateway.URL)
	}
	connect := func(want string) {
		t.Helper()
		transport := &http.Transport{
			TLSClientConfig: &tls.Config{RootCAs: trusted}, Protocols: new(http.Protocols),
		}
		transport.Protocols.SetHTTP1(true)
		transport.Protocols.SetHTTP2(true)
		defer transport.CloseIdleConnections()
		got, err := post(t, &http.Client{Transport: transport, Timeout: 10 * time.Second}, gateway.URL, grpcType)
		if err != nil || got.err != nil || got.Proto != want || got.body != want {
			t.Errorf("got %+v, %v, want %s on both ways", got, err, want)
		}
	}
	connect("HTTP/2.0")
	restore := gateway.HTTP1Only()
	connect("HTTP/1.1")
	restore()
	connect("HTTP/2.0")
	gateway.KillMidResponse("*", 3, servicestest.Times(1))
	transport := server.Client().Transport.(*http.Transport).Clone()
	transport.TLSClientConfig.RootCAs = trusted
	defer transport.CloseIdleConnections()
	if got, err := post(t, &http.Client{Transport: transport}, gateway.URL, grpcType); err != nil || got.err == nil || got.body != "HTT" {
		t.Errorf("killed within a response by TLS: got %+v, %v", got, err)
	}
}

// TestHTTPProxyConnectionFaults: a gateway has the faults of the proxy that it is.
func TestHTTPProxyConnectionFaults(t *testing.T) {
	eachProtocol(t, func(t *testing.T, _ *backend, gateway *servicestest.HTTPProxy, call func() (*answered, error)) {
		expectHello(t, call)
		held := func() <-chan error {
			requests, accepted, done := gateway.Requests("*"), gateway.Accepted.Load(), make(chan error, 1)
			go func() {
				_, err := call()
				done <- err
			}()
			awaitThat(t, "the call's own connection", func() bool { return gateway.Accepted.Load() > accepted })
			timer := time.NewTimer(20 * time.Millisecond)
			defer timer.Stop()
			select {
			case err := <-done:
				t.Errorf("the call ended with %v", err)
			case <-timer.C:
			}
			if gateway.Requests("*") != requests {
				t.Error("something passed")
			}
			return done
		}
		thaw := gateway.Freeze()
		done := held()
		thaw()
		if err := <-done; err != nil {
			t.Error(err)
		}
		gateway.Freeze()
		done = held()
		gateway.DropConnections()
		if err := <-done; !isReset(err) {
			t.Errorf("got %v, want a reset", err)
		}
		gateway.Clear()
		gateway.SlowDrip(64, time.Millisecond)
		expectHello(t, call)
	})
}

func TestHTTPProxyWithoutServer(t *testing.T) {
	server := startBackend(t)
	gateway := servicestest.StartHTTPProxy(t, server.URL)
	server.Close()
	for _, proto := range spoken {
		got, err := post(t, speaking(t, proto), gateway.URL, grpcType)
		if err != nil || got.StatusCode != http.StatusBadGateway {
			t.Errorf("%s: got %v, %v, want 502", proto, got, err)
		}
	}
}

// TestHTTPProxyCancel: a client that gives up cancels the call in the server.
func TestHTTPProxyCancel(t *testing.T) {
	entered, ended := make(chan struct{}), make(chan struct{})
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(entered)
		<-r.Context().Done()
		close(ended)
	}))
	server.Config.Protocols = new(http.Protocols)
	server.Config.Protocols.SetUnencryptedHTTP2(true)
	server.Start()
	t.Cleanup(server.Close)
	gateway := servicestest.StartHTTPProxy(t, server.URL)
	ctx, cancel := context.WithCancel(t.Context())
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, gateway.URL+procedure, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		<-entered
		cancel()
	}()
	if response, err := speaking(t, "HTTP/2.0").Do(request); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, %v, want canceled", response, err)
	}
	<-ended
}

// TestHTTPProxyClose: a call that is on its way ends with the gateway, whatever it waits for.
func TestHTTPProxyClose(t *testing.T) {
	eachProtocol(t, func(t *testing.T, server *backend, gateway *servicestest.HTTPProxy, call func() (*answered, error)) {
		fault := gateway.Delay("*", time.Hour)
		server.answer = strings.Repeat("x", 10<<20)
		done := make(chan struct{})
		go func() {
			defer close(done)
			_, _ = call() // How it ends depends on how far it comes.
		}()
		awaitThat(t, "the call to wait", func() bool { return fault.Hits() == 1 })
		for range 2 {
			if err := gateway.Close(); err != nil {
				t.Error(err)
			}
		}
		<-done
	})
}
