package rpc_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/google/go-cmp/cmp"

	authv1 "github.com/0x1d/goplt/gen/goplt/auth/v1"
	"github.com/0x1d/goplt/pkg/rpc"
)

// TestAttemptTimeoutMovesOn: an idempotent call does not wait for an instance that is silent, another one may answer.
func TestAttemptTimeoutMovesOn(t *testing.T) {
	for _, spoken := range []rpc.Protocol{rpc.ProtocolGRPC, rpc.ProtocolHTTP} {
		t.Run(string(spoken), func(t *testing.T) {
			silentOne := &authHandler{validate: func(ctx context.Context, _ *authv1.ValidateTokenRequest) (*authv1.ValidateTokenResponse, error) {
				<-ctx.Done()
				return nil, ctx.Err()
			}}
			well := &authHandler{}
			transport := newTransport(t, newScripted(
				instanceAt(t, "silent", startHTTP(t, silentOne.mount(), http1And2).Listener.Addr().String()),
				instanceAt(t, "well", startHTTP(t, well.mount(), http1And2).Listener.Addr().String()),
			), func(config *rpc.ClientConfig) {
				config.Protocol, config.AttemptTimeout, config.Retry.InitialBackoff = spoken, 500*time.Millisecond, time.Millisecond
			})
			for silentOne.validations.Load() == 0 { // until the balancer has chosen it
				if err := validate(t.Context(), transport); err != nil {
					t.Fatal(err)
				}
			}
			for _, instance := range transport.Status().Instances {
				want := uint64(0)
				if instance.ID == "silent" {
					want = 1
				}
				if instance.Failures != want || instance.InFlight != 0 {
					t.Errorf("status %+v; want %d failures", instance, want)
				}
			}
		})
	}
}

// TestDeadlinesReachTheServer: a server knows how long its answer is waited for: the attempt's time while another attempt may follow, and
// all the call's time when none may.
func TestDeadlinesReachTheServer(t *testing.T) {
	for spoken, header := range map[rpc.Protocol]string{rpc.ProtocolGRPC: "Grpc-Timeout", rpc.ProtocolHTTP: "Connect-Timeout-Ms"} {
		t.Run(string(spoken), func(t *testing.T) {
			var left []time.Duration
			observe := func(ctx context.Context) {
				deadline, ok := ctx.Deadline()
				if !ok {
					t.Error("a call without a deadline")
				}
				left = append(left, time.Until(deadline))
			}
			handler := &authHandler{
				login: func(ctx context.Context, _ *authv1.LoginRequest) (*authv1.LoginResponse, error) {
					observe(ctx)
					return nil, connect.NewError(connect.CodeUnavailable, "no")
				},
				validate: func(ctx context.Context, _ *authv1.ValidateTokenRequest) (*authv1.ValidateTokenResponse, error) {
					observe(ctx)
					return nil, connect.NewError(connect.CodeUnavailable, "no")
				},
			}
			service := handler.mount()
			server := startHTTP(t, http.HandlerFunc(func(response http.ResponseWriter, request *http.Request) {
				if request.Header.Get(header) == "" {
					t.Errorf("a request without %s", header)
				}
				service.ServeHTTP(response, request)
			}), http1And2)
			transport, _ := only(t, server.Listener.Addr().String(), func(config *rpc.ClientConfig) {
				config.Protocol, config.Timeout, config.AttemptTimeout, config.Retry.InitialBackoff = spoken, time.Minute, 20*time.Second, time.Millisecond
			})
			expectCode(t, validate(t.Context(), transport), connect.CodeUnavailable)
			expectCode(t, login(t.Context(), transport), connect.CodeUnavailable)
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			expectCode(t, login(ctx, transport), connect.CodeUnavailable)
			want := []time.Duration{20 * time.Second, 20 * time.Second, time.Minute, time.Minute, 5 * time.Second}
			if len(left) != len(want) {
				t.Fatalf("deadlines %v, want %v", left, want)
			}
			for at := range want {
				if left[at] > want[at] || left[at] < want[at]*3/4 {
					t.Errorf("call %d: %v left, want %v", at, left[at], want[at])
				}
			}
		})
	}
}

// TestMetadataOfRetries: each attempt carries the caller's headers, and the caller sees what the last one brought.
func TestMetadataOfRetries(t *testing.T) {
	for _, spoken := range []rpc.Protocol{rpc.ProtocolGRPC, rpc.ProtocolHTTP} {
		t.Run(string(spoken), func(t *testing.T) {
			var headers []http.Header
			handler := &authHandler{}
			handler.validate = func(ctx context.Context, _ *authv1.ValidateTokenRequest) (*authv1.ValidateTokenResponse, error) {
				number := handler.validations.Load()
				info, _ := connect.CallInfoForServerContext(ctx)
				info.ResponseHeader().Set("X-Attempt", strconv.FormatInt(number, 10))
				info.ResponseTrailer().Set("X-Trailer", strconv.FormatInt(number, 10))
				if number < 3 {
					info.ResponseHeader().Set("X-Stale", "yes")
					return nil, connect.NewError(connect.CodeUnavailable, "not yet")
				}
				return &authv1.ValidateTokenResponse{Claims: &authv1.TokenClaims{UserId: "u"}}, nil
			}
			service := handler.mount()
			server := startHTTP(t, http.HandlerFunc(func(response http.ResponseWriter, request *http.Request) {
				headers = append(headers, request.Header.Clone())
				service.ServeHTTP(response, request)
			}), http1And2)
			transport, _ := only(t, server.Listener.Addr().String(), protocol(spoken))
			ctx, info := connect.NewClientContext(t.Context())
			info.RequestHeader().SetValues("X-Of-The-Caller", []string{"a", "b"})
			if err := validate(ctx, transport); err != nil {
				t.Fatal(err)
			}
			if len(headers) != 3 {
				t.Fatalf("%d attempts, want 3", len(headers))
			}
			for at, previous := range []string{"", "1", "2"} {
				if diff := cmp.Diff([]string{"a", "b"}, headers[at].Values("X-Of-The-Caller")); diff != "" {
					t.Errorf("attempt %d: the caller's header (-want +got):\n%s", at+1, diff)
				}
				if got := headers[at].Get("Grpc-Previous-Rpc-Attempts"); got != previous {
					t.Errorf("attempt %d: previous attempts %q, want %q", at+1, got, previous)
				}
			}
			if got := info.ResponseHeader().Values("X-Attempt"); !cmp.Equal(got, []string{"3"}) || info.ResponseHeader().Has("X-Stale") {
				t.Errorf("response headers of attempts %v, stale %t; want those of attempt 3", got, info.ResponseHeader().Has("X-Stale"))
			}
			if got := info.ResponseTrailer().Values("X-Trailer"); !cmp.Equal(got, []string{"3"}) {
				t.Errorf("response trailers of attempts %v, want those of attempt 3", got)
			}
			if info.RequestHeader().Has("Grpc-Previous-Rpc-Attempts") {
				t.Error("the caller's own request header was changed")
			}
			if info.PeerAddr == "" || info.TransportInfo == nil || info.ReceiveStats.Size == 0 {
				t.Errorf("call info %+v; want the last attempt's", info)
			}
		})
	}
}

// TestMetadataIsOfTheErrorsAttempt: when the last attempt found nobody, no metadata of an earlier one stands beside its error.
func TestMetadataIsOfTheErrorsAttempt(t *testing.T) {
	var server *http.Server
	handler := &authHandler{validate: func(ctx context.Context, _ *authv1.ValidateTokenRequest) (*authv1.ValidateTokenResponse, error) {
		info, _ := connect.CallInfoForServerContext(ctx)
		info.ResponseHeader().Set("X-Attempt", "first")
		info.ResponseTrailer().Set("Grpc-Retry-Pushback-Ms", "1000")
		return nil, connect.NewError(connect.CodeUnavailable, "going down")
	}}
	listener := listen(t)
	server = serveOn(t, listener, handler.mount(), http1And2)
	transport, status := only(t, listener.Addr().String(), nil)
	ctx, info := connect.NewClientContext(t.Context())
	done := make(chan error)
	go func() { done <- validate(ctx, transport) }()
	await(t, "the first attempt to end", func() bool { return status().Calls >= 1 })
	if err := server.Close(); err != nil {
		t.Fatal(err)
	}
	err := <-done
	expectCode(t, err, connect.CodeUnavailable)
	if attempts := callError(t, err).Attempts; len(attempts) < 2 || !strings.Contains(attempts[len(attempts)-1].Err.Error(), "connection refused") {
		t.Errorf("attempts %v; want the last to find the connection refused", attempts)
	}
	if info.ResponseHeader().Has("X-Attempt") {
		t.Error("the response header of the first attempt stands beside the error of the last")
	}
}

// TestRequestThatCannotBeSent: a request that no instance could take is tried once, and blamed on none.
func TestRequestThatCannotBeSent(t *testing.T) {
	for _, row := range []struct {
		name    string
		request *authv1.ValidateTokenRequest
		header  string
		code    connect.Code
		text    string
	}{
		{"larger than the limit", &authv1.ValidateTokenRequest{Token: strings.Repeat("x", 2000)}, "ok", connect.CodeResourceExhausted, "exceeds sendMaxBytes 1000"},
		{"not UTF-8", &authv1.ValidateTokenRequest{Token: "\xff"}, "ok", connect.CodeInternal, "UTF-8"},
		{"header with a line break", &authv1.ValidateTokenRequest{}, "a\nb", connect.CodeInternal, "request cannot be sent: http: invalid header field value"},
		{"header larger than the server takes", &authv1.ValidateTokenRequest{}, strings.Repeat("x", 2<<20), connect.CodeInternal, "request cannot be sent: http2: request header list larger"},
	} {
		for _, spoken := range []rpc.Protocol{rpc.ProtocolGRPC, rpc.ProtocolHTTP} {
			if spoken == rpc.ProtocolHTTP && strings.HasPrefix(row.name, "header larger") {
				continue // HTTP/1.1 has no way to say how much is too much, but to answer 431
			}
			t.Run(row.name+" by "+string(spoken), func(t *testing.T) {
				handler, listener := &authHandler{}, listen(t)
				var met atomic.Int64
				service := handler.mount()
				serveOn(t, listener, http.HandlerFunc(func(response http.ResponseWriter, request *http.Request) {
					met.Add(1)
					service.ServeHTTP(response, request)
				}), http1And2)
				transport, status := only(t, listener.Addr().String(), func(config *rpc.ClientConfig) {
					config.Protocol, config.MaxSendBytes, config.Breaker.MinCalls = spoken, 1000, 1
				})
				if err := validate(t.Context(), transport); err != nil { // so that the peer's limits are known
					t.Fatal(err)
				}
				ctx, info := connect.NewClientContext(t.Context())
				info.RequestHeader().Set("X-Header", row.header)
				_, err := newAuthClient(transport).ValidateToken(ctx, row.request)
				expectCode(t, err, row.code)
				if err == nil || !strings.Contains(err.Error(), row.text) {
					t.Errorf("got %.300v, want it to say %q", err, row.text)
				}
				if attempts := callError(t, err).Attempts; len(attempts) != 1 || attempts[0].Verdict != "not sent" {
					t.Errorf("%d attempts; want one, not sent", len(attempts))
				}
				expectCount(t, "requests", &met, 1)
				expectAtRest(t, status(), spoken)
				if got := status(); got.Failures != 0 {
					t.Errorf("%d failures, want 0", got.Failures)
				}
				if err := validate(t.Context(), transport); err != nil {
					t.Errorf("the next call: %v", err)
				}
				if all, _, _ := listener.begins(); all != 1 {
					t.Errorf("%d connections, want the one to be reused", all)
				}
			})
		}
	}
}

// TestUnarySequence pins what a unary call makes of being driven by hand in another order than connect.Client's.
func TestUnarySequence(t *testing.T) {
	handler := &authHandler{}
	server := startHTTP(t, handler.mount(), http1And2)
	transport, _ := only(t, server.Listener.Addr().String(), nil)
	spec := connect.Spec{Procedure: "/goplt.auth.v1.AuthService/ValidateToken", IdempotencyLevel: connect.IdempotencyNoSideEffects}
	open := func() connect.ClientStream {
		stream, err := transport.NewClientStream(t.Context(), spec)
		if err != nil {
			t.Fatal(err)
		}
		return stream
	}
	var response authv1.ValidateTokenResponse
	stream := open()
	expectCode(t, stream.Receive(&response), connect.CodeInternal)
	stream = open()
	if err := errors.Join(stream.SendHeaders(), stream.Send(&authv1.ValidateTokenRequest{Token: "t"}), stream.CloseSend()); err != nil {
		t.Fatal(err)
	}
	expectCode(t, stream.Send(&authv1.ValidateTokenRequest{}), connect.CodeInternal)
	if err := stream.Receive(&response); err != nil || response.GetClaims().GetUserId() != "user of t" {
		t.Errorf("got %v, %v", &response, err)
	}
	if err := stream.Receive(&response); !errors.Is(err, io.EOF) {
		t.Errorf("second Receive: got %v, want EOF", err)
	}
	if err := errors.Join(stream.Close(), stream.Close()); err != nil {
		t.Error(err)
	}
	expectCount(t, "validations", &handler.validations, 1)
}

// TestLogger: changes of state are told, each once.
func TestLogger(t *testing.T) {
	var log lockedBuffer
	handler := &authHandler{}
	server := startHTTP(t, handler.mount(), http1Only)
	config := rpc.DefaultClientConfig()
	reg := newScripted(instanceAt(t, "one", server.Listener.Addr().String()))
	transport, err := rpc.NewTransport("scripted:///auth", reg, rpc.WithClientConfig(config),
		rpc.WithLogger(slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))))
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := login(t.Context(), transport); err != nil {
			t.Fatal(err)
		}
	}
	reg.Fail(errors.New("registry is away"))
	await(t, "the registry's error", func() bool { return transport.Status().Error != "" })
	if err := transport.Close(); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"what=joined", "is spoken to by Connect/JSON over HTTP/1.1, because gRPC does not get through", "registry is away"} {
		if got := strings.Count(log.String(), line); got != 1 {
			t.Errorf("%q is logged %d times, want once:\n%s", line, got, log.String())
		}
	}
	if strings.Contains(log.String(), "secret") {
		t.Errorf("a secret is in the log:\n%s", log.String())
	}
}

// lockedBuffer is a buffer for several goroutines.
type lockedBuffer struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.String()
}
