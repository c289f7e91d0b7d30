package rpc_test

import (
	"context"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connectproto"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/types/known/durationpb"

	authv1 "github.com/0x1d/goplt/gen/goplt/auth/v1"
	"github.com/0x1d/goplt/pkg/rpc"
)

func retryInfo(t *testing.T, delay time.Duration) *connect.ErrorDetail {
	t.Helper()
	detail, err := connectproto.NewErrorDetail(&errdetails.RetryInfo{RetryDelay: durationpb.New(delay)})
	if err != nil {
		t.Error(err) // may be another goroutine's
	}
	return detail
}

// TestRetryWhenTheServerSays: besides gRFC A6's header, the detail RetryInfo and the header Retry-After say when to come back, and so that it is
// worth it. The first says it best, and the last says it worst, as it knows seconds only.
func TestRetryWhenTheServerSays(t *testing.T) {
	const wait = 200 * time.Millisecond
	for _, spoken := range []rpc.Protocol{rpc.ProtocolGRPC, rpc.ProtocolHTTP} {
		for _, row := range []struct {
			name     string
			pushback string
			info     time.Duration // negative for none
			after    string
			least    time.Duration
			attempts int64
		}{
			{"RetryInfo", "", wait, "", wait, 2},
			{"RetryInfo of nothing", "", 0, "", 0, 2},
			{"Retry-After", "", -1, "1", time.Second, 2},
			{"Retry-After that is unreadable", "", -1, "soon", 0, 1},
			{"Retry-After that is past", "", -1, time.Unix(0, 0).UTC().Format("Mon, 02 Jan 2006 15:04:05 GMT"), 0, 2},
			{"RetryInfo and Retry-After", "", wait, "3600", wait, 2},
			{"all of them", "1", time.Hour, "3600", 0, 2},
			{"a pushback of never wins", "-1", wait, "1", 0, 1},
			{"nothing", "", -1, "", 0, 1},
		} {
			t.Run(string(spoken)+" "+row.name, func(t *testing.T) {
				handler := &authHandler{}
				handler.validate = func(ctx context.Context, _ *authv1.ValidateTokenRequest) (*authv1.ValidateTokenResponse, error) {
					if handler.validations.Load() > 1 {
						return &authv1.ValidateTokenResponse{Claims: &authv1.TokenClaims{UserId: "u"}}, nil
					}
					info, _ := connect.CallInfoForServerContext(ctx)
					if row.pushback != "" {
						info.ResponseTrailer().Set("Grpc-Retry-Pushback-Ms", row.pushback)
					}
					if row.after != "" {
						info.ResponseHeader().Set("Retry-After", row.after)
					}
					err := connect.NewError(connect.CodeResourceExhausted, "busy")
					if row.info >= 0 {
						err = err.WithDetail(retryInfo(t, row.info))
					}
					return nil, err
				}
				server := startHTTP(t, handler.mount(), http1And2)
				transport, status := only(t, server.Listener.Addr().String(), protocol(spoken))
				began := time.Now()
				err := validate(t.Context(), transport)
				if (err == nil) != (row.attempts == 2) {
					t.Errorf("got %v", err)
				}
				if took := time.Since(began); took < row.least {
					t.Errorf("came back after %v, want at least %v", took, row.least)
				}
				expectCount(t, "executions", &handler.validations, row.attempts)
				expectAtRest(t, status(), spoken)
			})
		}
	}
}

// TestPushbackTakesAToken: a failure that the server wants no other attempt after is one all the same to the budget (gRFC A6).
func TestPushbackTakesAToken(t *testing.T) {
	r := startRelay(t, 1, func(ctx context.Context, number int64) error {
		if number == 1 {
			info, _ := connect.CallInfoForServerContext(ctx)
			info.ResponseTrailer().Set("Grpc-Retry-Pushback-Ms", "-1")
		}
		if number <= 2 {
			return connect.NewError(connect.CodeUnavailable, "busy")
		}
		return nil
	})
	transport := newTransport(t, newScripted(r.instances...), func(config *rpc.ClientConfig) { config.Retry.BudgetTokens = 4 })
	for range 2 { // of four tokens, two have to be left after a failure for it to be retried, and more
		expectCode(t, validate(t.Context(), transport), connect.CodeUnavailable)
	}
	expectCount(t, "executions", &r.executed, 2)
}
