package rpc_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"connectrpc.com/connect/v2"

	authv1 "github.com/0x1d/goplt/gen/goplt/auth/v1"
	"github.com/0x1d/goplt/pkg/rpc"
)

func TestFault36CallerCancels(t *testing.T) {
	soon := func(t *testing.T, cancelled time.Time, err error, status rpc.InstanceStatus) {
		t.Helper()
		if took := time.Since(cancelled); took > 250*time.Millisecond { // 10ms and what a busy machine adds
			t.Errorf("returned %v after the cancellation", took)
		}
		expectCode(t, err, connect.CodeCanceled)
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%v is not context.Canceled", err)
		}
		if status.Breaker != "closed" || status.InFlight != 0 {
			t.Errorf("status %+v", status)
		}
	}
	for _, spoken := range []rpc.Protocol{rpc.ProtocolGRPC, rpc.ProtocolHTTP} {
		t.Run("in a call by "+string(spoken), func(t *testing.T) {
			entered := make(chan struct{}, 1)
			handler := &authHandler{validate: func(ctx context.Context, _ *authv1.ValidateTokenRequest) (*authv1.ValidateTokenResponse, error) {
				entered <- struct{}{}
				<-ctx.Done()
				return nil, ctx.Err()
			}}
			server := startHTTP(t, handler.mount(), http1And2)
			transport, status := only(t, server.Listener.Addr().String(), func(config *rpc.ClientConfig) {
				config.Protocol, config.Breaker.MinCalls = spoken, 1
			})
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			done := make(chan error)
			go func() { done <- validate(ctx, transport) }()
			<-entered
			cancelled := time.Now()
			cancel()
			soon(t, cancelled, <-done, status())
			if got := status(); got.Failures != 0 {
				t.Errorf("%d failures, want 0", got.Failures)
			}
			expectCount(t, "executions", &handler.validations, 1)
		})
		t.Run("in a backoff by "+string(spoken), func(t *testing.T) {
			answered := make(chan struct{}, 1)
			handler := &authHandler{validate: func(ctx context.Context, _ *authv1.ValidateTokenRequest) (*authv1.ValidateTokenResponse, error) {
				info, _ := connect.CallInfoForServerContext(ctx)
				info.ResponseTrailer().Set("Grpc-Retry-Pushback-Ms", "5000") // within the call's time
				answered <- struct{}{}
				return nil, connect.NewError(connect.CodeUnavailable, "come back later")
			}}
			server := startHTTP(t, handler.mount(), http1And2)
			transport, status := only(t, server.Listener.Addr().String(), protocol(spoken))
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			done := make(chan error)
			go func() { done <- validate(ctx, transport) }()
			<-answered
			await(t, "the attempt to be over, so that only the backoff is left", func() bool { return status().Calls == 1 })
			cancelled := time.Now()
			cancel()
			err := <-done
			soon(t, cancelled, err, status())
			if attempts := callError(t, err).Attempts; len(attempts) != 1 || attempts[0].Code != connect.CodeUnavailable {
				t.Errorf("attempts %v; want the one that was unavailable", attempts)
			}
		})
	}
	t.Run("before the call", func(t *testing.T) {
		handler := &authHandler{}
		server := startHTTP(t, handler.mount(), http1And2)
		transport, status := only(t, server.Listener.Addr().String(), nil)
		if err := login(t.Context(), transport); err != nil { // so that a connection is there
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		for range 20 {
			soon(t, time.Now(), login(ctx, transport), status())
		}
		expectCount(t, "logins", &handler.logins, 1)
	})
}

// TestNoRetryBeyondTheDeadline: a call whose time ends before it may come back fails at once, with what the server said.
func TestNoRetryBeyondTheDeadline(t *testing.T) {
	for _, row := range []struct {
		name string
		ask  func(*connect.CallInfo, *connect.Error) *connect.Error
	}{
		{"pushback", func(info *connect.CallInfo, err *connect.Error) *connect.Error {
			info.ResponseTrailer().Set("Grpc-Retry-Pushback-Ms", "60000")
			return err
		}},
		{"RetryInfo", func(_ *connect.CallInfo, err *connect.Error) *connect.Error {
			return err.WithDetail(retryInfo(t, time.Minute))
		}},
		{"Retry-After", func(info *connect.CallInfo, err *connect.Error) *connect.Error {
			info.ResponseHeader().Set("Retry-After", "60")
			return err
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			handler := &authHandler{validate: func(ctx context.Context, _ *authv1.ValidateTokenRequest) (*authv1.ValidateTokenResponse, error) {
				info, _ := connect.CallInfoForServerContext(ctx)
				return nil, row.ask(info, connect.NewError(connect.CodeUnavailable, "come back later"))
			}}
			server := startHTTP(t, handler.mount(), http1And2)
			transport, status := only(t, server.Listener.Addr().String(), func(config *rpc.ClientConfig) { config.Timeout = 30 * time.Second })
			began := time.Now()
			expectCode(t, validate(t.Context(), transport), connect.CodeUnavailable)
			if took := time.Since(began); took > 10*time.Second {
				t.Errorf("took %v; want no wait for what is too late", took)
			}
			expectCount(t, "executions", &handler.validations, 1)
			expectAtRest(t, status(), rpc.ProtocolGRPC)
		})
	}
}
