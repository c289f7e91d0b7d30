package interop_test

import (
	"context"
	"strconv"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	authv1 "github.com/0x1d/goplt/gen/goplt/auth/v1"
	"github.com/0x1d/goplt/pkg/rpc"
)

// serveFull starts a server that takes on one call, and returns a connection to it and what makes that call and what ends it.
func serveFull(t *testing.T, options ...grpc.DialOption) (connection *grpc.ClientConn, fill, release func()) {
	t.Helper()
	entered, left := make(chan struct{}), make(chan struct{})
	server := serveStub(t, func(ctx context.Context, request *authv1.ValidateTokenRequest) (*authv1.ValidateTokenResponse, error) {
		if request.GetToken() == "stay" {
			entered <- struct{}{}
			<-left
		}
		return claims(ctx, request)
	}, func(config *rpc.ServerConfig) { config.MaxConcurrentCalls = 1 })
	connection = dialGRPCGo(t, "passthrough:///"+server.Addr(), options...)
	ended := make(chan error, 1)
	fill = func() {
		go func() {
			ended <- connection.Invoke(context.WithoutCancel(t.Context()), validateToken, &authv1.ValidateTokenRequest{Token: "stay"}, &authv1.ValidateTokenResponse{})
		}()
		<-entered
	}
	return connection, fill, func() {
		close(left)
		if err := <-ended; err != nil {
			t.Errorf("the call in flight: %v", err)
		}
	}
}

// TestServerShedsToGRPCGo: what grpc-go sees of a call that the server does not take on is code, text, pushback and RetryInfo; health is answered.
func TestServerShedsToGRPCGo(t *testing.T) {
	connection, fill, release := serveFull(t)
	fill()
	defer release()
	var trailer metadata.MD
	err := connection.Invoke(within(t), validateToken, &authv1.ValidateTokenRequest{}, &authv1.ValidateTokenResponse{}, grpc.Trailer(&trailer))
	got := status.Convert(err)
	if want := "the server sheds load: max_concurrent_calls is 1, and so many are in flight"; got.Code() != codes.ResourceExhausted || got.Message() != want {
		t.Errorf("got %v, %q, want ResourceExhausted, %q", got.Code(), got.Message(), want)
	}
	pushback := trailer.Get("grpc-retry-pushback-ms")
	if len(pushback) != 1 {
		t.Fatalf("trailer %v, want grpc-retry-pushback-ms", trailer)
	}
	milliseconds, err := strconv.Atoi(pushback[0])
	if err != nil || milliseconds < 250 || milliseconds > 750 {
		t.Errorf("pushback of %q ms, want 250 to 750", pushback[0])
	}
	if len(got.Details()) != 1 {
		t.Fatalf("details %v, want one", got.Details())
	}
	retry, ok := got.Details()[0].(*errdetails.RetryInfo)
	if !ok || retry.GetRetryDelay().AsDuration() != time.Duration(milliseconds)*time.Millisecond {
		t.Errorf("detail %v, want RetryInfo of %d ms", got.Details()[0], milliseconds)
	}
	health, err := grpc_health_v1.NewHealthClient(connection).Check(within(t), &grpc_health_v1.HealthCheckRequest{})
	if err != nil || health.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
		t.Errorf("health: %v, %v", health, err)
	}
}

// TestGRPCGoHeedsPushback: grpc-go's own retries wait as long as the server says, and succeed once it takes on calls again.
func TestGRPCGoHeedsPushback(t *testing.T) {
	connection, fill, release := serveFull(t, grpc.WithDefaultServiceConfig(`{"methodConfig":[{"name":[{}],"retryPolicy":{"maxAttempts":5,
		"initialBackoff":"0.001s","maxBackoff":"0.001s","backoffMultiplier":1,"retryableStatusCodes":["RESOURCE_EXHAUSTED"]}}]}`))
	fill()
	began := time.Now()
	done := make(chan error, 1)
	go func() {
		done <- connection.Invoke(within(t), validateToken, &authv1.ValidateTokenRequest{}, &authv1.ValidateTokenResponse{})
	}()
	select {
	case err := <-done:
		t.Errorf("ended after %v, with %v, while the server was full", time.Since(began), err)
		release()
		return
	case <-time.NewTimer(200 * time.Millisecond).C: // without heed, five attempts would have taken 4ms
	}
	release()
	if err := <-done; err != nil {
		t.Errorf("got %v after %v, want success", err, time.Since(began))
	}
	if took := time.Since(began); took < 250*time.Millisecond {
		t.Errorf("took %v, less than the least pushback", took)
	}
}
