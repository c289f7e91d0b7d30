package rpc_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/0x1d/goplt/pkg/registry"
	"github.com/0x1d/goplt/pkg/rpc"
)

// words is a service for the tests of the server: test.v1.Words, without generated code.
type words struct {
	entered chan string   // gets the procedure when Hang has begun
	release chan struct{} // Hang returns when it is closed
	left    chan error    // gets the context's error when Hang ends
}

func spec(method string, stream connect.StreamType) connect.Spec {
	return connect.Spec{Procedure: "/test.v1.Words/" + method, StreamType: stream}
}

var (
	specEcho  = spec("Echo", connect.StreamTypeUnary)
	specRead  = connect.Spec{Procedure: "/test.v1.Words/Read", IdempotencyLevel: connect.IdempotencyNoSideEffects}
	specFail  = spec("Fail", connect.StreamTypeUnary)
	specPanic = spec("Panic", connect.StreamTypeUnary)
	specHang  = spec("Hang", connect.StreamTypeUnary)
	specStay  = spec("Stay", connect.StreamTypeServer)
	specSplit = spec("Split", connect.StreamTypeServer)
	specJoin  = spec("Join", connect.StreamTypeClient)
	specChat  = spec("Chat", connect.StreamTypeBidi)
)

// newWords returns the service and a server that has it registered.
func newWords(interceptors ...connect.ServerInterceptor) (*words, *connect.Server) {
	w := &words{entered: make(chan string, 64), release: make(chan struct{}), left: make(chan error, 64)}
	server := connect.NewServer(interceptors...)
	server.Register(
		unary(specEcho, w.echo), unary(specRead, w.echo), unary(specFail, w.fail), unary(specPanic, w.panic), unary(specHang, w.hang),
		connect.Method{Spec: specStay, Handler: w.stay}, connect.Method{Spec: specSplit, Handler: w.split},
		connect.Method{Spec: specJoin, Handler: w.join}, connect.Method{Spec: specChat, Handler: w.chat},
	)
	return w, server
}

func unary(spec connect.Spec, serve func(context.Context, string) (string, error)) connect.Method {
	return connect.Method{Spec: spec, Handler: func(ctx context.Context, _ connect.Spec, stream connect.ServerStream) error {
		var request wrapperspb.StringValue
		if err := stream.Receive(&request); err != nil {
			return err
		}
		answer, err := serve(ctx, request.GetValue())
		if err != nil {
			return err
		}
		return stream.Send(wrapperspb.String(answer))
	}}
}

// echo returns the text, or n times "x" for "grow n", and tells in the header Seen how it was called.
func (w *words) echo(ctx context.Context, text string) (string, error) {
	info, _ := connect.CallInfoForServerContext(ctx)
	proto := "in process"
	if http, ok := connecthttp.ServerInfoForContext(ctx); ok {
		proto = http.RequestProto()
	}
	info.ResponseHeader().Set("Seen", strings.Join([]string{info.Protocol, info.Codec, proto, info.Spec.IdempotencyLevel.String()}, " "))
	var size int
	if _, err := fmt.Sscanf(text, "grow %d", &size); err == nil {
		return strings.Repeat("x", size), nil
	}
	return text, nil
}

func (w *words) fail(_ context.Context, text string) (string, error) {
	if text == "plain" {
		return "", errors.New("secret: the database password is wrong")
	}
	return "", connect.Errorf(connect.CodeNotFound, "no word %q", text)
}

func (w *words) panic(_ context.Context, text string) (string, error) {
	if text == "abort" {
		panic(http.ErrAbortHandler)
	}
	panic("out of " + text)
}

func (w *words) hang(ctx context.Context, text string) (string, error) {
	w.entered <- specHang.Procedure
	if text == "deaf" {
		ctx = context.WithoutCancel(ctx)
	}
	select {
	case <-w.release:
	case <-ctx.Done():
	}
	w.left <- ctx.Err()
	return text, ctx.Err()
}

// stay sends its request back, and ends when its context does or w.release is closed.
func (w *words) stay(ctx context.Context, _ connect.Spec, stream connect.ServerStream) error {
	var request wrapperspb.StringValue
	if err := stream.Receive(&request); err != nil {
		return err
	}
	if err := stream.Send(&request); err != nil {
		return err
	}
	w.entered <- specStay.Procedure
	select {
	case <-w.release:
		return stream.Send(&request)
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (w *words) split(_ context.Context, _ connect.Spec, stream connect.ServerStream) error {
	var request wrapperspb.StringValue
	if err := stream.Receive(&request); err != nil {
		return err
	}
	for word := range strings.FieldsSeq(request.GetValue()) {
		if err := stream.Send(wrapperspb.String(word)); err != nil {
			return err
		}
	}
	return nil
}

func (w *words) join(_ context.Context, _ connect.Spec, stream connect.ServerStream) error {
	var all []string
	for {
		var request wrapperspb.StringValue
		if err := stream.Receive(&request); errors.Is(err, io.EOF) {
			return stream.Send(wrapperspb.String(strings.Join(all, " ")))
		} else if err != nil {
			return err
		}
		all = append(all, request.GetValue())
	}
}

func (w *words) chat(_ context.Context, _ connect.Spec, stream connect.ServerStream) error {
	for {
		var request wrapperspb.StringValue
		if err := stream.Receive(&request); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if err := stream.Send(&request); err != nil {
			return err
		}
	}
}

// testConfig is the default on a free port, without waiting.
func testConfig() rpc.ServerConfig {
	config := rpc.DefaultServerConfig()
	config.Listen = "127.0.0.1:0"
	config.DeregisterDelay = 0
	return config
}

// startServer runs a server on a real socket until the test ends.
func startServer(t *testing.T, handlers *connect.Server, config rpc.ServerConfig, opts ...rpc.ServerOption) *rpc.Server {
	t.Helper()
	quiet := []rpc.ServerOption{rpc.WithServerConfig(config), rpc.WithServerLogger(slog.New(slog.DiscardHandler))}
	server, err := rpc.NewServer(handlers, append(quiet, opts...)...)
	if err != nil {
		t.Fatalf("new server: %v", err)
	}
	if err := server.Start(t.Context()); err != nil {
		t.Fatalf("start: %v", err)
	}
	t.Cleanup(func() {
		// The test's context is done by now; calls that the test left hanging are to be cut off.
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = server.Stop(ctx)
	})
	return server
}

// httpClient speaks one version of HTTP, over TLS if config is given.
func httpClient(t *testing.T, version int, config *tls.Config) *http.Client {
	t.Helper()
	var protocols http.Protocols
	switch {
	case version == 1:
		protocols.SetHTTP1(true)
	case config != nil:
		protocols.SetHTTP2(true)
	default:
		protocols.SetUnencryptedHTTP2(true)
	}
	transport := &http.Transport{Protocols: &protocols, TLSClientConfig: config.Clone(), DisableCompression: true}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

func baseURL(server *rpc.Server, secure *tls.Config) string {
	if secure != nil {
		return "https://" + server.Addr()
	}
	return "http://" + server.Addr()
}

// rpcClient is a Connect client for server in cleartext.
func rpcClient(t *testing.T, server *rpc.Server, version int, opts ...connecthttp.Option) *connect.Client {
	t.Helper()
	return connect.NewClient(connecthttp.NewTransport(httpClient(t, version, nil), baseURL(server, nil), opts...))
}

// rpcClientAt is a gRPC client for an address.
func rpcClientAt(t *testing.T, addr string) *connect.Client {
	t.Helper()
	return connect.NewClient(connecthttp.NewTransport(httpClient(t, 2, nil), "http://"+addr, connecthttp.WithGRPC()))
}

// callText makes a unary call.
func callText(ctx context.Context, client *connect.Client, spec connect.Spec, text string) (string, error) {
	var answer wrapperspb.StringValue
	err := client.CallUnary(ctx, spec, wrapperspb.String(text), &answer)
	return answer.GetValue(), err
}

// post sends one request by hand and returns the status, the body and the header of the answer.
func post(t *testing.T, client *http.Client, method, url, contentType, body string) (int, string, http.Header) {
	t.Helper()
	return exchange(t, client, method, url, strings.NewReader(body), "Content-Type", contentType)
}

// do is post with the headers given as names and values, for bodies of other kinds.
func do(t *testing.T, client *http.Client, url string, body io.Reader, header ...string) (int, string, http.Header) {
	t.Helper()
	return exchange(t, client, http.MethodPost, url, body, header...)
}

func exchange(t *testing.T, client *http.Client, method, url string, body io.Reader, header ...string) (int, string, http.Header) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	for at := 0; at < len(header); at += 2 {
		request.Header.Set(header[at], header[at+1])
	}
	response, err := client.Do(request)
	if err != nil {
		t.Fatalf("%s %s: %v", method, url, err)
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatalf("%s %s: read answer: %v", method, url, err)
	}
	return response.StatusCode, string(answer), response.Header
}

// plainRequest is a call as it goes over HTTP/1.1, with the text "x".
func plainRequest(procedure string) string {
	return "POST " + procedure + " HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 3\r\n\r\n\"x\""
}

// recordingRegistry is a registry that only registers, and tells what happened in order.
type recordingRegistry struct {
	registry.ServiceRegistry

	onRegister   func(registry.Instance) error
	onDeregister func(context.Context, registry.Instance) error
	onUpdate     func(ctx context.Context, updated registry.Instance) error
	onHealth     func(service string, health registry.Health, note string)

	mu           sync.Mutex
	registered   []registry.Instance
	deregistered []registry.Instance
}

func (r *recordingRegistry) Register(_ context.Context, instance registry.Instance) (registry.Registration, error) {
	if err := instance.Validate(); err != nil {
		return nil, err
	}
	if r.onRegister != nil {
		if err := r.onRegister(instance); err != nil {
			return nil, err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.registered = append(r.registered, instance)
	return recordedRegistration{r, instance}, nil
}

type recordedRegistration struct {
	registry *recordingRegistry
	instance registry.Instance
}

func (r recordedRegistration) Deregister(ctx context.Context) error {
	r.registry.mu.Lock()
	r.registry.deregistered = append(r.registry.deregistered, r.instance)
	r.registry.mu.Unlock()
	if r.registry.onDeregister != nil {
		return r.registry.onDeregister(ctx, r.instance)
	}
	return nil
}

func (r recordedRegistration) Update(ctx context.Context, weight int, metadata map[string]string) error {
	if r.registry.onUpdate != nil {
		return r.registry.onUpdate(ctx, r.instance.Updated(weight, metadata))
	}
	return nil
}

func (r recordedRegistration) SetHealth(health registry.Health, note string) {
	if r.registry.onHealth != nil {
		r.registry.onHealth(r.instance.Service, health, note)
	}
}

// pipeListener is a network in memory, for tests in a bubble of fake time.
type pipeListener struct {
	connections chan net.Conn
	closed      chan struct{}
	once        sync.Once
}

func newPipeListener() *pipeListener {
	return &pipeListener{connections: make(chan net.Conn), closed: make(chan struct{})}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case connection := <-l.connections:
		return connection, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

// refuses reports whether the listener is closed.
func (l *pipeListener) refuses() bool {
	select {
	case <-l.closed:
		return true
	default:
		return false
	}
}

func (l *pipeListener) Addr() net.Addr { return pipeAddr{} }

func (l *pipeListener) dial() (net.Conn, error) {
	client, server := net.Pipe()
	select {
	case l.connections <- server:
		return client, nil
	case <-l.closed:
		return nil, errors.New("connection refused")
	}
}

// client returns an HTTP client whose connections go to the listener.
func (l *pipeListener) client(t *testing.T, version int) *http.Client {
	t.Helper()
	client := httpClient(t, version, nil)
	client.Transport.(*http.Transport).DialContext = func(context.Context, string, string) (net.Conn, error) { return l.dial() }
	return client
}

type pipeAddr struct{}

func (pipeAddr) Network() string { return "memory" }
func (pipeAddr) String() string  { return "pipe" }

// handlerClient calls a handler directly, with a writer that knows no deadlines.
type handlerClient struct{ handler http.Handler }

func (c handlerClient) Do(request *http.Request) (*http.Response, error) {
	recorder := httptest.NewRecorder()
	c.handler.ServeHTTP(recorder, request)
	return recorder.Result(), nil
}
