package interop_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connectproto"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	authv1 "github.com/0x1d/goplt/gen/goplt/auth/v1"
	"github.com/0x1d/goplt/gen/goplt/auth/v1/authv1connect"
	"github.com/0x1d/goplt/pkg/rpc"
)

const validateToken = authv1connect.AuthServiceValidateTokenProcedure

// claims answers with the token as the user's ID.
func claims(_ context.Context, request *authv1.ValidateTokenRequest) (*authv1.ValidateTokenResponse, error) {
	return &authv1.ValidateTokenResponse{Claims: &authv1.TokenClaims{UserId: request.GetToken()}}, nil
}

func TestServerErrorsReachGRPCGo(t *testing.T) {
	detail := &errdetails.ErrorInfo{Reason: "TOKEN_EXPIRED", Domain: "auth.goplt", Metadata: map[string]string{"at": "noon"}}
	const text = "naïve: 100 % wrong\n\x00done"
	var code connect.Code
	server := serveStub(t, func(context.Context, *authv1.ValidateTokenRequest) (*authv1.ValidateTokenResponse, error) {
		attached, err := connectproto.NewErrorDetail(detail)
		if err != nil {
			return nil, err
		}
		return nil, connect.NewError(code, text).WithDetail(attached)
	})
	connection := dialGRPCGo(t, "passthrough:///"+server.Addr())
	for code = connect.CodeCanceled; code <= connect.CodeUnauthenticated; code++ {
		err := connection.Invoke(within(t), validateToken, &authv1.ValidateTokenRequest{}, &authv1.ValidateTokenResponse{})
		got := status.Convert(err)
		if got.Code() != codes.Code(code) || got.Message() != text {
			t.Errorf("%v: got %v, %q, want text %q", code, got.Code(), got.Message(), text)
		}
		if len(got.Details()) != 1 {
			t.Fatalf("%v: details %v, want one", code, got.Details())
		}
		info, ok := got.Details()[0].(*errdetails.ErrorInfo)
		if !ok || info.GetReason() != detail.GetReason() || info.GetMetadata()["at"] != "noon" {
			t.Errorf("%v: detail %v, want %v", code, got.Details()[0], detail)
		}
	}
}

func TestServerHidesErrorsThatAreNotForCallers(t *testing.T) {
	server := serveStub(t, func(_ context.Context, request *authv1.ValidateTokenRequest) (*authv1.ValidateTokenResponse, error) {
		if request.GetToken() == "panic" {
			panic("password=hunter2")
		}
		return nil, errors.New("password=hunter2")
	})
	connection := dialGRPCGo(t, "passthrough:///"+server.Addr())
	for token, want := range map[string]codes.Code{"error": codes.Unknown, "panic": codes.Internal} {
		err := connection.Invoke(within(t), validateToken, &authv1.ValidateTokenRequest{Token: token}, &authv1.ValidateTokenResponse{})
		if status.Code(err) != want || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: got %v, want %v without the handler's text", token, err, want)
		}
	}
}

func TestServerKnowsNoSuchMethod(t *testing.T) {
	server := serveStub(t, claims)
	connection := dialGRPCGo(t, "passthrough:///"+server.Addr())
	for _, procedure := range []string{"/goplt.auth.v1.AuthService/Impersonate", "/goplt.nothing.v1.Service/Method"} {
		err := connection.Invoke(within(t), procedure, &authv1.ValidateTokenRequest{}, &authv1.ValidateTokenResponse{})
		if status.Code(err) != codes.Unimplemented {
			t.Errorf("%s: %v, want Unimplemented", procedure, err)
		}
	}
}

func TestServerHonoursTheClientsDeadline(t *testing.T) {
	const timeout = 200 * time.Millisecond
	type seen struct {
		remaining time.Duration
		err       error
	}
	handled := make(chan seen, 1)
	server := serveStub(t, func(ctx context.Context, _ *authv1.ValidateTokenRequest) (*authv1.ValidateTokenResponse, error) {
		deadline, _ := ctx.Deadline()
		remaining := time.Until(deadline)
		<-ctx.Done()
		handled <- seen{remaining, ctx.Err()}
		return nil, ctx.Err()
	})
	connection := dialGRPCGo(t, "passthrough:///"+server.Addr())
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	err := connection.Invoke(ctx, validateToken, &authv1.ValidateTokenRequest{}, &authv1.ValidateTokenResponse{})
	if status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("got %v, want DeadlineExceeded", err)
	}
	select {
	case got := <-handled:
		if got.remaining <= 0 || got.remaining > timeout || got.err == nil {
			t.Errorf("the handler had %v left of %v and then saw %v", got.remaining, timeout, got.err)
		}
	case <-within(t).Done():
		t.Error("the handler did not see the deadline pass")
	}
}

func TestServerSeesTheClientCancel(t *testing.T) {
	began, ended := make(chan struct{}), make(chan error, 1)
	server := serveStub(t, func(ctx context.Context, _ *authv1.ValidateTokenRequest) (*authv1.ValidateTokenResponse, error) {
		close(began)
		<-ctx.Done()
		ended <- ctx.Err()
		return nil, ctx.Err()
	})
	connection := dialGRPCGo(t, "passthrough:///"+server.Addr())
	ctx, cancel := context.WithCancel(within(t))
	failed := make(chan error, 1)
	go func() {
		failed <- connection.Invoke(ctx, validateToken, &authv1.ValidateTokenRequest{}, &authv1.ValidateTokenResponse{})
	}()
	<-began
	cancel()
	if err := <-failed; status.Code(err) != codes.Canceled {
		t.Errorf("got %v, want Canceled", err)
	}
	select {
	case err := <-ended:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("the handler saw %v, want it canceled", err)
		}
	case <-within(t).Done():
		t.Error("the handler did not see the cancellation")
	}
}

func TestServerMetadata(t *testing.T) {
	binary := string([]byte{0, 1, 254, 255})
	server := serveStub(t, func(ctx context.Context, request *authv1.ValidateTokenRequest) (*authv1.ValidateTokenResponse, error) {
		info, ok := connect.CallInfoForServerContext(ctx)
		if !ok {
			return nil, connect.NewError(connect.CodeInternal, "no call info")
		}
		sent, err := connect.DecodeBinaryHeader(info.RequestHeader().Get("trace-bin"))
		if err != nil || string(sent) != binary {
			return nil, connect.Errorf(connect.CodeInvalidArgument, "trace-bin is %q (%v)", sent, err)
		}
		info.ResponseHeader().SetValues("tenant", info.RequestHeader().Values("tenant"))
		info.ResponseTrailer().Set("cost-bin", connect.EncodeBinaryHeader([]byte(binary)))
		if request.GetToken() == "" {
			return nil, connect.NewError(connect.CodeUnauthenticated, "no token")
		}
		return claims(ctx, request)
	})
	connection := dialGRPCGo(t, "passthrough:///"+server.Addr())
	ctx := metadata.AppendToOutgoingContext(within(t), "tenant", "a", "tenant", "b", "trace-bin", binary)
	for token, want := range map[string]codes.Code{"t": codes.OK, "": codes.Unauthenticated} {
		var header, trailer metadata.MD
		err := connection.Invoke(ctx, validateToken, &authv1.ValidateTokenRequest{Token: token}, &authv1.ValidateTokenResponse{},
			grpc.Header(&header), grpc.Trailer(&trailer))
		if status.Code(err) != want {
			t.Errorf("token %q: %v, want %v", token, err, want)
		}
		// A failed call may be answered by trailers only, which grpc-go reports as such.
		if got := append(header.Get("tenant"), trailer.Get("tenant")...); !slices.Equal(got, []string{"a", "b"}) {
			t.Errorf("token %q: tenant came back as %q", token, got)
		}
		if got := trailer.Get("cost-bin"); !slices.Equal(got, []string{binary}) {
			t.Errorf("token %q: trailer cost-bin is %q, want %q", token, got, binary)
		}
	}
}

func TestServerLimitsMessages(t *testing.T) {
	server := serveStub(t, claims, func(c *rpc.ServerConfig) {
		c.MaxReceiveBytes, c.MaxSendBytes = 64<<10, 64<<10
		c.CompressMinBytes = 1 << 20 // what is sent is limited after compression
	})
	connection := dialGRPCGo(t, "passthrough:///"+server.Addr())
	for _, test := range []struct {
		name    string
		size    int
		options []grpc.CallOption
		want    codes.Code
	}{
		{"below", 60 << 10, nil, codes.OK},
		{"below, compressed", 60 << 10, []grpc.CallOption{grpc.UseCompressor(gzip.Name)}, codes.OK},
		{"above", 70 << 10, nil, codes.ResourceExhausted},
		{"above, compressed to less", 10 << 20, []grpc.CallOption{grpc.UseCompressor(gzip.Name)}, codes.ResourceExhausted},
		{"above, answer only", 64<<10 - 4, nil, codes.ResourceExhausted},
	} {
		token := strings.Repeat("x", test.size)
		response := new(authv1.ValidateTokenResponse)
		err := connection.Invoke(within(t), validateToken, &authv1.ValidateTokenRequest{Token: token}, response, test.options...)
		if status.Code(err) != test.want {
			t.Errorf("%s: %v, want %v", test.name, err, test.want)
		}
		if err == nil && response.GetClaims().GetUserId() != token {
			t.Errorf("%s: the answer is not the token", test.name)
		}
	}
}

func TestServerQueuesCallsBeyondItsStreamLimit(t *testing.T) {
	const limit, callers = 2, 64
	var concurrent, most gauge
	server := serveStub(t, func(ctx context.Context, request *authv1.ValidateTokenRequest) (*authv1.ValidateTokenResponse, error) {
		most.raiseTo(concurrent.add(1))
		defer concurrent.add(-1)
		return claims(ctx, request)
	}, func(c *rpc.ServerConfig) { c.MaxConcurrentStreams = limit })
	connection := dialGRPCGo(t, "passthrough:///"+server.Addr())
	err := together(callers, func(int) error {
		return connection.Invoke(within(t), validateToken, &authv1.ValidateTokenRequest{Token: "t"}, &authv1.ValidateTokenResponse{})
	})
	if err != nil {
		t.Error(err)
	}
	if got := most.value(); got > limit {
		t.Errorf("%d calls at a time, want at most %d", got, limit)
	}
}
