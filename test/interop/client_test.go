package interop_test

import (
	"context"
	"errors"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connectproto"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	_ "google.golang.org/grpc/encoding/gzip" // so that grpc-go's servers accept compressed requests
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	authv1 "github.com/0x1d/goplt/gen/goplt/auth/v1"
	"github.com/0x1d/goplt/gen/goplt/auth/v1/authv1connect"
	adapters "github.com/0x1d/goplt/internal/services"
	"github.com/0x1d/goplt/pkg/rpc"
	"github.com/0x1d/goplt/pkg/services"
)

func TestClientGetsErrorsOfGRPCGo(t *testing.T) {
	sentinels := map[codes.Code]error{
		codes.Canceled: services.ErrCanceled, codes.Unknown: services.ErrUnknown, codes.InvalidArgument: services.ErrInvalidArgument,
		codes.DeadlineExceeded: services.ErrDeadlineExceeded, codes.NotFound: services.ErrNotFound,
		codes.AlreadyExists: services.ErrAlreadyExists, codes.PermissionDenied: services.ErrPermissionDenied,
		codes.ResourceExhausted: services.ErrResourceExhausted, codes.FailedPrecondition: services.ErrFailedPrecondition,
		codes.Aborted: services.ErrAborted, codes.OutOfRange: services.ErrOutOfRange, codes.Unimplemented: services.ErrUnimplemented,
		codes.Internal: services.ErrInternal, codes.Unavailable: services.ErrUnavailable, codes.DataLoss: services.ErrDataLoss,
		codes.Unauthenticated: services.ErrUnauthenticated,
	}
	const text = "naïve: 100 % wrong\n\x00done"
	var code codes.Code
	var executed gauge
	_, addr := startGRPCGo(t, native{login: func(context.Context, *authv1.LoginRequest) (*authv1.LoginResponse, error) {
		executed.add(1)
		failed, err := status.New(code, text).WithDetails(&errdetails.ErrorInfo{Reason: "TEST"})
		if err != nil {
			return nil, err
		}
		return nil, failed.Err()
	}}.register)
	auth := adapters.NewAuthClient(connect.NewClient(transportTo(t, []string{addr})))
	for code = codes.Canceled; code <= codes.Unauthenticated; code++ {
		before := executed.value()
		_, err := auth.Login(within(t), "grace@example.com", "password")
		if !errors.Is(err, sentinels[code]) {
			t.Errorf("%v: %v, want one that matches %v", code, err, sentinels[code])
		}
		received, ok := errors.AsType[*connect.Error](err)
		if !ok || received.Message() != text || len(received.Details()) != 1 {
			t.Errorf("%v: %#v, want the text %q and one detail", code, received, text)
			continue
		}
		detail, err := connectproto.UnmarshalErrorDetail(received.Details()[0])
		if info, ok := detail.(*errdetails.ErrorInfo); !ok || info.GetReason() != "TEST" {
			t.Errorf("%v: detail %v, %v", code, detail, err)
		}
		if times := executed.value() - before; times != 1 {
			t.Errorf("%v: a login was executed %d times, want once", code, times)
		}
	}
}

func TestClientRepeatsWhatIsIdempotentOnly(t *testing.T) {
	var logins, validations gauge
	_, addr := startGRPCGo(t, native{
		login: func(context.Context, *authv1.LoginRequest) (*authv1.LoginResponse, error) {
			logins.add(1)
			return nil, status.Error(codes.Unavailable, "try again")
		},
		validate: func(ctx context.Context, request *authv1.ValidateTokenRequest) (*authv1.ValidateTokenResponse, error) {
			if validations.add(1) < 3 {
				return nil, status.Error(codes.Unavailable, "try again")
			}
			return claims(ctx, request)
		},
	}.register)
	auth := authv1connect.NewAuthServiceClient(connect.NewClient(transportTo(t, []string{addr})))
	if _, err := auth.Login(within(t), &authv1.LoginRequest{}); connect.CodeOf(err) != connect.CodeUnavailable || logins.value() != 1 {
		t.Errorf("login: %v after %d executions, want unavailable after 1", err, logins.value())
	}
	if _, err := auth.ValidateToken(within(t), &authv1.ValidateTokenRequest{}); err != nil || validations.value() != 3 {
		t.Errorf("validation: %v after %d executions, want success after 3", err, validations.value())
	}
}

func TestClientHonoursPushback(t *testing.T) {
	var executed gauge
	_, addr := startGRPCGo(t, native{
		validate: func(ctx context.Context, _ *authv1.ValidateTokenRequest) (*authv1.ValidateTokenResponse, error) {
			executed.add(1)
			if err := grpc.SetTrailer(ctx, metadata.Pairs("grpc-retry-pushback-ms", "-1")); err != nil {
				return nil, err
			}
			return nil, status.Error(codes.Unavailable, "do not try again")
		},
	}.register)
	auth := authv1connect.NewAuthServiceClient(connect.NewClient(transportTo(t, []string{addr})))
	if _, err := auth.ValidateToken(within(t), &authv1.ValidateTokenRequest{}); connect.CodeOf(err) != connect.CodeUnavailable {
		t.Errorf("got %v, want unavailable", err)
	}
	if got := executed.value(); got != 1 {
		t.Errorf("executed %d times, want once", got)
	}
}

func TestClientSendsItsDeadline(t *testing.T) {
	const timeout = 2 * time.Second // in which a busy machine connects
	remaining, ended := make(chan time.Duration, 1), make(chan error, 1)
	_, addr := startGRPCGo(t, native{login: func(ctx context.Context, _ *authv1.LoginRequest) (*authv1.LoginResponse, error) {
		deadline, _ := ctx.Deadline()
		remaining <- time.Until(deadline)
		<-ctx.Done()
		ended <- ctx.Err()
		return nil, ctx.Err()
	}}.register)
	auth := authv1connect.NewAuthServiceClient(connect.NewClient(transportTo(t, []string{addr})))
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	_, err := auth.Login(ctx, &authv1.LoginRequest{})
	if connect.CodeOf(err) != connect.CodeDeadlineExceeded {
		t.Errorf("got %v, want deadline exceeded", err)
	}
	select {
	case got := <-remaining:
		if got <= 0 || got > timeout {
			t.Errorf("the handler had %v left of %v", got, timeout)
		}
	case <-within(t).Done():
		t.Fatal("the call did not reach the handler")
	}
	select {
	case err := <-ended:
		if err == nil {
			t.Error("the handler's context ended without an error")
		}
	case <-within(t).Done():
		t.Fatal("the handler's context does not end")
	}
}

func TestClientMetadata(t *testing.T) {
	binary := string([]byte{0, 1, 254, 255})
	_, addr := startGRPCGo(t, native{
		validate: func(ctx context.Context, request *authv1.ValidateTokenRequest) (*authv1.ValidateTokenResponse, error) {
			received, _ := metadata.FromIncomingContext(ctx)
			if got := received.Get("trace-bin"); !slices.Equal(got, []string{binary}) {
				return nil, status.Errorf(codes.InvalidArgument, "trace-bin is %q", got)
			}
			header := metadata.MD{"tenant": received.Get("tenant")}
			if err := errors.Join(grpc.SetHeader(ctx, header), grpc.SetTrailer(ctx, metadata.Pairs("cost-bin", binary))); err != nil {
				return nil, err
			}
			return claims(ctx, request)
		},
	}.register)
	auth := authv1connect.NewAuthServiceClient(connect.NewClient(transportTo(t, []string{addr})))
	ctx, info := connect.NewClientContext(within(t))
	info.RequestHeader().SetValues("tenant", []string{"a", "b"})
	info.RequestHeader().Set("trace-bin", connect.EncodeBinaryHeader([]byte(binary)))
	if _, err := auth.ValidateToken(ctx, &authv1.ValidateTokenRequest{}); err != nil {
		t.Fatal(err)
	}
	if got := info.ResponseHeader().Values("tenant"); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("tenant came back as %q", got)
	}
	if got, err := connect.DecodeBinaryHeader(info.ResponseTrailer().Get("cost-bin")); err != nil || string(got) != binary {
		t.Errorf("trailer cost-bin is %q, %v, want %q", got, err, binary)
	}
}

func TestClientCompressesRequests(t *testing.T) {
	_, addr := startGRPCGo(t, native{validate: claims}.register)
	transport := transportTo(t, []string{addr}, func(c *rpc.ClientConfig) { c.CompressRequests = true })
	auth := authv1connect.NewAuthServiceClient(connect.NewClient(transport))
	token := strings.Repeat("x", 1<<20)
	ctx, info := connect.NewClientContext(within(t))
	response, err := auth.ValidateToken(ctx, &authv1.ValidateTokenRequest{Token: token})
	if err != nil || response.GetClaims().GetUserId() != token {
		t.Fatalf("answer of %d bytes, %v", len(response.GetClaims().GetUserId()), err)
	}
	if info.RequestEncoding != "gzip" || info.ResponseEncoding != "gzip" {
		t.Errorf("request %q, response %q, want both gzip", info.RequestEncoding, info.ResponseEncoding)
	}
}

func TestClientIsNotHeldUpByFewStreams(t *testing.T) {
	const streams, callers = 1, 100
	_, addr := startGRPCGo(t, native{validate: claims}.register, grpc.MaxConcurrentStreams(streams))
	auth := authv1connect.NewAuthServiceClient(connect.NewClient(transportTo(t, []string{addr})))
	err := together(callers, func(number int) error {
		for range 5 {
			want := strconv.Itoa(number)
			response, err := auth.ValidateToken(within(t), &authv1.ValidateTokenRequest{Token: want})
			if err != nil {
				return err
			}
			if got := response.GetClaims().GetUserId(); got != want {
				t.Errorf("caller %s got the answer of caller %s", want, got)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func TestClientSurvivesGracefulStopOfGRPCGo(t *testing.T) {
	// A login is not idempotent: none may fail, and none may be executed twice.
	var mu sync.Mutex
	executions := map[string]int{}
	handler := native{login: func(_ context.Context, request *authv1.LoginRequest) (*authv1.LoginResponse, error) {
		mu.Lock()
		defer mu.Unlock()
		executions[request.GetEmail()]++
		return &authv1.LoginResponse{Tokens: &authv1.TokenPair{AccessToken: request.GetEmail()}}, nil
	}}
	stopping, first := startGRPCGo(t, handler.register)
	_, second := startGRPCGo(t, handler.register)
	auth := authv1connect.NewAuthServiceClient(connect.NewClient(transportTo(t, []string{first, second})))

	calls, err := loadUntil(within(t), 16, func(ctx context.Context, number int64) error {
		response, err := auth.Login(ctx, &authv1.LoginRequest{Email: strconv.FormatInt(number, 10)})
		if err == nil && response.GetTokens().GetAccessToken() != strconv.FormatInt(number, 10) {
			return errors.New("got another call's answer")
		}
		return err
	}, func() error {
		stopping.GracefulStop()
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	mu.Lock()
	defer mu.Unlock()
	if int64(len(executions)) != calls {
		t.Errorf("%d of %d calls were executed", len(executions), calls)
	}
	for call, times := range executions {
		if times != 1 {
			t.Errorf("call %s was executed %d times", call, times)
		}
	}
}

func TestClientSeesStreamsEnd(t *testing.T) {
	_, addr := startGRPCGo(t, func(*grpc.Server) {}, grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
		request := new(authv1.ValidateTokenRequest)
		if err := stream.RecvMsg(request); err != nil {
			return err
		}
		for range 3 {
			if err := stream.SendMsg(&authv1.ValidateTokenResponse{}); err != nil {
				return err
			}
		}
		if request.GetToken() == "" {
			return nil
		}
		return status.Error(codes.DataLoss, request.GetToken())
	}))
	client := connect.NewClient(transportTo(t, []string{addr}))
	spec := connect.Spec{Procedure: "/test.Service/Stream", StreamType: connect.StreamTypeServer}
	for text, want := range map[string]connect.Code{"": 0, "the disk is gone": connect.CodeDataLoss} {
		stream, err := client.CallServerStream(within(t), spec, &authv1.ValidateTokenRequest{Token: text})
		if err != nil {
			t.Fatal(err)
		}
		received := 0
		for err = stream.Receive(new(authv1.ValidateTokenResponse)); err == nil; err = stream.Receive(new(authv1.ValidateTokenResponse)) {
			received++
		}
		if received != 3 {
			t.Errorf("%q: %d messages, want 3", text, received)
		}
		if want == 0 && !errors.Is(err, io.EOF) || want != 0 && (connect.CodeOf(err) != want || !strings.Contains(err.Error(), text)) {
			t.Errorf("%q: the stream ended with %v", text, err)
		}
		if err := stream.Close(); err != nil {
			t.Error(err)
		}
	}
}
