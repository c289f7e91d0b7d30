package rpc_test

import (
	"context"
	"testing"
	"time"

	"connectrpc.com/connect/v2"

	authv1 "github.com/0x1d/goplt/gen/goplt/auth/v1"
	"github.com/0x1d/goplt/pkg/rpc"
)

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
			unbounded, _ := only(t, server.Listener.Addr().String(), func(config *rpc.ClientConfig) { config.Timeout = 0 })
			began := time.Now()
			expectCode(t, validate(t.Context(), transport), connect.CodeUnavailable)
			expectCode(t, validate(t.Context(), unbounded), connect.CodeUnavailable) // no server may hold a caller for so long
			if took := time.Since(began); took > 10*time.Second {
				t.Errorf("took %v; want no wait for what is too late", took)
			}
			expectCount(t, "executions", &handler.validations, 2)
			expectAtRest(t, status(), rpc.ProtocolGRPC)
		})
	}
}
