package rpc_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connectproto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	authv1 "github.com/0x1d/goplt/gen/goplt/auth/v1"
	"github.com/0x1d/goplt/pkg/rpc"
)

// login makes a call that is not idempotent.
func login(ctx context.Context, transport connect.Transport) error {
	response, err := newAuthClient(transport).Login(ctx, &authv1.LoginRequest{Email: "e", Password: "secret-password"})
	if err == nil && response.GetTokens().GetAccessToken() == "" {
		return errors.New("login succeeded without a token")
	}
	return err
}

// validate makes a call that is idempotent.
func validate(ctx context.Context, transport connect.Transport) error {
	response, err := newAuthClient(transport).ValidateToken(ctx, &authv1.ValidateTokenRequest{Token: "secret-token"})
	if err == nil && response.GetClaims().GetUserId() == "" {
		return errors.New("token is valid, but of nobody")
	}
	return err
}

// only returns a transport to the one instance at addr, and a function that returns its status.
func only(t testing.TB, addr string, adjust func(*rpc.ClientConfig)) (*rpc.Transport, func() rpc.InstanceStatus) {
	t.Helper()
	transport := newTransport(t, newScripted(instanceAt(t, "one", addr)), adjust)
	await(t, "the instance to be known", func() bool { return len(transport.Status().Instances) == 1 })
	return transport, func() rpc.InstanceStatus {
		t.Helper()
		instances := transport.Status().Instances
		if len(instances) != 1 {
			t.Fatalf("status shows %d instances", len(instances))
		}
		return instances[0]
	}
}

// await waits until done holds.
func await(t testing.TB, what string, done func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// expectAtRest checks that an instance's breaker is closed, that nothing is under way and how it is spoken to.
func expectAtRest(t *testing.T, got rpc.InstanceStatus, spoken rpc.Protocol) {
	t.Helper()
	if got.Protocol != spoken || got.Breaker != "closed" || got.InFlight != 0 {
		t.Errorf("status %+v; want protocol %s, breaker closed and nothing in flight", got, spoken)
	}
}

// expectCode checks an error's code.
func expectCode(t *testing.T, err error, want connect.Code) {
	t.Helper()
	if err == nil || connect.CodeOf(err) != want {
		t.Errorf("got %v, want %v", err, want)
	}
}

// expectCount checks how often something happened.
func expectCount(t *testing.T, what string, got *atomic.Int64, want int64) {
	t.Helper()
	if got.Load() != want {
		t.Errorf("%s: %d, want %d", what, got.Load(), want)
	}
}

// blockGRPC is a proxy that lets everything through but gRPC, which it answers with status.
func blockGRPC(next http.Handler, status int, refused *atomic.Int64) http.Handler {
	return http.HandlerFunc(func(response http.ResponseWriter, request *http.Request) {
		if strings.HasPrefix(request.Header.Get("Content-Type"), "application/grpc") {
			refused.Add(1)
			http.Error(response, "this proxy does not know what that is", status)
			return
		}
		next.ServeHTTP(response, request)
	})
}

// TestFallbackNeedsOwnEvidence: that another call has found gRPC not to get through is no reason to send a call again which did.
func TestFallbackNeedsOwnEvidence(t *testing.T) {
	for _, ending := range []string{"answered", "cut off"} {
		t.Run(ending, func(t *testing.T) {
			entered, release := make(chan struct{}), make(chan struct{})
			handler := &authHandler{login: func(_ context.Context, request *authv1.LoginRequest) (*authv1.LoginResponse, error) {
				if request.GetEmail() == "second" {
					return &authv1.LoginResponse{}, nil
				}
				close(entered)
				<-release
				if ending == "cut off" {
					panic(http.ErrAbortHandler)
				}
				return nil, connect.NewError(connect.CodeUnauthenticated, "wrong password")
			}}
			var met, refused atomic.Int64
			proxy := blockGRPC(handler.mount(), http.StatusUnsupportedMediaType, &refused)
			server := startHTTP(t, http.HandlerFunc(func(response http.ResponseWriter, request *http.Request) {
				if met.Add(1) == 1 {
					handler.mount().ServeHTTP(response, request)
					return
				}
				proxy.ServeHTTP(response, request)
			}), http1And2)
			transport, status := only(t, server.Listener.Addr().String(), nil)
			client := newAuthClient(transport)
			first := make(chan error)
			go func() {
				_, err := client.Login(t.Context(), &authv1.LoginRequest{Email: "first"})
				first <- err
			}()
			<-entered
			if _, err := client.Login(t.Context(), &authv1.LoginRequest{Email: "second"}); err != nil {
				t.Fatal(err)
			}
			between := status()
			if between.Protocol != rpc.ProtocolHTTP || between.InFlight != 1 {
				t.Fatalf("status %+v", between)
			}
			close(release)
			err := <-first
			if ending == "answered" {
				expectCode(t, err, connect.CodeUnauthenticated)
			} else if err == nil {
				t.Error("the call that was cut off succeeded: it was sent again")
			}
			expectCount(t, "logins", &handler.logins, 2)
		})
	}
}

func TestProtocolGRPCNeverFallsBack(t *testing.T) {
	t.Run("HTTP/1.1-only server", func(t *testing.T) {
		handler, listener := &authHandler{}, listen(t)
		serveOn(t, listener, handler.mount(), http1Only)
		transport, status := only(t, listener.Addr().String(), protocol(rpc.ProtocolGRPC))
		err := login(t.Context(), transport)
		expectCode(t, err, connect.CodeUnavailable)
		if want := "peer does not speak HTTP/2: it answered with HTTP/1"; !strings.Contains(fmt.Sprint(err), want) {
			t.Errorf("got %v, want it to say %q", err, want)
		}
		expectCount(t, "logins", &handler.logins, 0)
		if _, _, http1 := listener.begins(); http1 != 0 {
			t.Errorf("%d calls over HTTP/1.1", http1)
		}
		expectAtRest(t, status(), rpc.ProtocolGRPC)
	})
	t.Run("proxy answers 415", func(t *testing.T) {
		var handler authHandler
		var refused atomic.Int64
		server := startHTTP(t, blockGRPC(handler.mount(), http.StatusUnsupportedMediaType, &refused), http1And2)
		transport, status := only(t, server.Listener.Addr().String(), protocol(rpc.ProtocolGRPC))
		expectCode(t, login(t.Context(), transport), connect.CodeUnknown)
		expectCount(t, "requests that met the proxy", &refused, 1) // it would answer the next one alike
		expectCount(t, "logins", &handler.logins, 0)
		expectAtRest(t, status(), rpc.ProtocolGRPC)
	})
}

func TestProtocolHTTPNeverTriesGRPC(t *testing.T) {
	handler, listener := &authHandler{}, listen(t)
	serveOn(t, listener, handler.mount(), http1And2)
	transport, status := only(t, listener.Addr().String(), protocol(rpc.ProtocolHTTP))
	for range 3 {
		if err := login(t.Context(), transport); err != nil {
			t.Fatal(err)
		}
	}
	expectCount(t, "logins", &handler.logins, 3)
	if all, http2, http1 := listener.begins(); all != 1 || http2 != 0 || http1 != 1 {
		t.Errorf("%d connections, %d HTTP/2, %d HTTP/1.1; want 1, 0, 1", all, http2, http1)
	}
	expectAtRest(t, status(), rpc.ProtocolHTTP)
}

// TestMetadataHintsProtocol: an instance that says of itself that gRPC does not get through is not asked.
func TestMetadataHintsProtocol(t *testing.T) {
	handler, listener := &authHandler{}, listen(t)
	serveOn(t, listener, handler.mount(), http1And2)
	hinted := instanceAt(t, "one", listener.Addr().String())
	hinted.Metadata = map[string]string{"protocol": "http"}
	for spoken, want := range map[rpc.Protocol]rpc.Protocol{rpc.ProtocolAuto: rpc.ProtocolHTTP, rpc.ProtocolGRPC: rpc.ProtocolGRPC} {
		transport := newTransport(t, newScripted(hinted), protocol(spoken))
		if err := login(t.Context(), transport); err != nil {
			t.Fatal(err)
		}
		expectAtRest(t, transport.Status().Instances[0], want)
	}
	if _, http2, http1 := listener.begins(); http2 != 1 || http1 != 1 {
		t.Errorf("%d connections by HTTP/2, %d by HTTP/1.1; want one of each", http2, http1)
	}
}

// deaf swallows connections that begin with an HTTP/2 preface, as some old proxies do, or all connections.
type deaf struct {
	net.Listener

	toAll bool
}

type deafConn struct {
	net.Conn

	toAll  bool
	closed chan struct{}
	once   sync.Once
}

func (l deaf) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &deafConn{Conn: conn, toAll: l.toAll, closed: make(chan struct{})}, nil
}

func (c *deafConn) Read(buffer []byte) (int, error) {
	n, err := c.Conn.Read(buffer)
	if c.toAll || strings.HasPrefix(string(buffer[:n]), "PRI") {
		<-c.closed
		return 0, net.ErrClosed
	}
	return n, err
}

func (c *deafConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

func TestPeerSilentToHTTP2Preface(t *testing.T) {
	handler, listener := &authHandler{}, listen(t)
	serveOn(t, deaf{Listener: listener}, handler.mount(), http1Only)
	transport, status := only(t, listener.Addr().String(), func(config *rpc.ClientConfig) { config.Timeout = 2 * time.Second })
	for range 3 {
		if err := login(t.Context(), transport); err != nil {
			t.Fatal(err)
		}
	}
	expectCount(t, "logins", &handler.logins, 3)
	expectAtRest(t, status(), rpc.ProtocolHTTP)
	if _, http2, http1 := listener.begins(); http2 != 1 || http1 != 1 {
		t.Errorf("%d connections by HTTP/2, %d by HTTP/1.1; want one of each", http2, http1)
	}
}

// TestPeerSilentToAll: a peer that answers nothing at all has not shown to prefer HTTP/1.1.
func TestPeerSilentToAll(t *testing.T) {
	listener := listen(t)
	serveOn(t, deaf{Listener: listener, toAll: true}, http.NotFoundHandler(), http1Only)
	transport, status := only(t, listener.Addr().String(), nil)
	ctx, cancel := context.WithTimeout(t.Context(), 400*time.Millisecond)
	defer cancel()
	began := time.Now()
	expectCode(t, login(ctx, transport), connect.CodeDeadlineExceeded)
	if took := time.Since(began); took > time.Second {
		t.Errorf("took %v, want the deadline of 400ms", took)
	}
	if got := status(); got.Protocol != rpc.ProtocolGRPC || got.InFlight != 0 || got.Failures != 1 {
		t.Errorf("status %+v; want protocol grpc and one failure", got)
	}
}

// TestApplicationErrors: whatever the service says, its words and details reach the caller as they are.
func TestApplicationErrors(t *testing.T) {
	for _, spoken := range []rpc.Protocol{rpc.ProtocolAuto, rpc.ProtocolHTTP} {
		for _, code := range []connect.Code{
			connect.CodeUnimplemented, connect.CodeUnknown, connect.CodeInternal, connect.CodeUnavailable, connect.CodeDeadlineExceeded,
			connect.CodeCanceled, connect.CodeResourceExhausted, connect.CodeAborted, connect.CodeUnauthenticated,
		} {
			t.Run(fmt.Sprintf("%s %s", spoken, code), func(t *testing.T) {
				detail, err := connectproto.NewErrorDetail(wrapperspb.String("detail"))
				if err != nil {
					t.Fatal(err)
				}
				handler := &authHandler{login: func(context.Context, *authv1.LoginRequest) (*authv1.LoginResponse, error) {
					return nil, connect.NewError(code, "the service's own words").WithDetail(detail)
				}}
				server := startHTTP(t, handler.withHealth(t), http1And2)
				transport, status := only(t, server.Listener.Addr().String(), func(config *rpc.ClientConfig) {
					config.Protocol, config.Breaker.MinCalls = spoken, 1
				})
				for range 5 {
					err := login(t.Context(), transport)
					answer, ok := errors.AsType[*connect.Error](err)
					if !ok || answer.Code() != code || answer.Message() != "the service's own words" || !answer.IsRemote() {
						t.Fatalf("got %v", err)
					}
					if details := answer.Details(); len(details) != 1 || details[0].Type != detail.Type || !slices.Equal(details[0].Value, detail.Value) {
						t.Errorf("details %v, want %v", details, detail)
					}
					if want := code.String() + ": the service's own words"; err.Error() != want {
						t.Errorf("text %q, want %q", err, want)
					}
				}
				expectCount(t, "logins", &handler.logins, 5)
				want := rpc.ProtocolGRPC
				if spoken == rpc.ProtocolHTTP {
					want = rpc.ProtocolHTTP
				}
				expectAtRest(t, status(), want)
				if got := status(); got.Calls != 5 || got.Failures != 0 {
					t.Errorf("%d calls, %d failures; want 5 and 0", got.Calls, got.Failures)
				}
				expectNoChange(t, transport, "probed")
			})
		}
	}
}
