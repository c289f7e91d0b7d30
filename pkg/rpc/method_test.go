package rpc_test

import (
	"context"
	"testing"
	"time"

	"connectrpc.com/connect/v2"

	authv1 "github.com/0x1d/goplt/gen/goplt/auth/v1"
	"github.com/0x1d/goplt/pkg/rpc"
)

func methods(of map[string]rpc.MethodConfig) func(*rpc.ClientConfig) {
	return func(config *rpc.ClientConfig) { config.Methods = of }
}

// TestKeyMethodsTimeout: a method's own bounds hold in place of the client's.
func TestKeyMethodsTimeout(t *testing.T) {
	handler := &authHandler{}
	handler.validate = func(ctx context.Context, _ *authv1.ValidateTokenRequest) (*authv1.ValidateTokenResponse, error) {
		deadline, _ := ctx.Deadline()
		return &authv1.ValidateTokenResponse{Claims: &authv1.TokenClaims{UserId: time.Until(deadline).Round(time.Minute).String()}}, nil
	}
	server := startHTTP(t, handler.mount(), http1And2)
	for _, row := range []struct {
		name    string
		methods map[string]rpc.MethodConfig
		want    string
	}{
		{"none", nil, "1m0s"},
		{"its attempts'", map[string]rpc.MethodConfig{authService + ".ValidateToken": {AttemptTimeout: 2 * time.Minute}}, "2m0s"},
		{"its own, below the attempt's", map[string]rpc.MethodConfig{authService + ".ValidateToken": {Timeout: 3 * time.Minute, AttemptTimeout: time.Hour}}, "3m0s"},
		{"its service's", map[string]rpc.MethodConfig{authService: {AttemptTimeout: 4 * time.Minute}}, "4m0s"},
		{"another's", map[string]rpc.MethodConfig{authService + ".Login": {AttemptTimeout: 4 * time.Minute}}, "1m0s"},
	} {
		t.Run(row.name, func(t *testing.T) {
			transport, _ := only(t, server.Listener.Addr().String(), func(config *rpc.ClientConfig) {
				config.Timeout, config.AttemptTimeout, config.Methods = 10*time.Minute, time.Minute, row.methods
			})
			for range 2 { // what was found is remembered
				response, err := newAuthClient(transport).ValidateToken(t.Context(), &authv1.ValidateTokenRequest{Token: "t"})
				if got := response.GetClaims().GetUserId(); err != nil || got != row.want {
					t.Errorf("the server was given %s, %v; want %s", got, err, row.want)
				}
			}
		})
	}
}

// TestKeyMethodsIdempotency: what the configuration says of a method is what counts.
func TestKeyMethodsIdempotency(t *testing.T) {
	unavailable := connect.NewError(connect.CodeUnavailable, "busy")
	for _, row := range []struct {
		method      string
		idempotency rpc.Idempotency
		call        func(context.Context, connect.Transport) error
		want        int64
	}{
		{".Login", rpc.IdempotencyDeclared, login, 1},
		{".Login", rpc.IdempotencyIdempotent, login, 2},
		{".ValidateToken", rpc.IdempotencyDeclared, validate, 2},
		{".ValidateToken", rpc.IdempotencyNotIdempotent, validate, 1},
		{"", rpc.IdempotencyIdempotent, login, 2},
	} {
		t.Run(row.method+" "+string(row.idempotency), func(t *testing.T) {
			handler := &authHandler{}
			executed := func() int64 { return handler.logins.Load() + handler.validations.Load() }
			handler.login = func(_ context.Context, request *authv1.LoginRequest) (*authv1.LoginResponse, error) {
				if executed() == 1 {
					return nil, unavailable
				}
				return &authv1.LoginResponse{Tokens: &authv1.TokenPair{AccessToken: "access of " + request.GetEmail()}}, nil
			}
			handler.validate = func(context.Context, *authv1.ValidateTokenRequest) (*authv1.ValidateTokenResponse, error) {
				if executed() == 1 {
					return nil, unavailable
				}
				return &authv1.ValidateTokenResponse{Claims: &authv1.TokenClaims{UserId: "u"}}, nil
			}
			server := startHTTP(t, handler.mount(), http1And2)
			transport, _ := only(t, server.Listener.Addr().String(), methods(map[string]rpc.MethodConfig{
				authService + row.method: {Idempotency: row.idempotency},
			}))
			if err := row.call(t.Context(), transport); (err == nil) != (row.want == 2) {
				t.Errorf("got %v", err)
			}
			if got := executed(); got != row.want {
				t.Errorf("%d executions, want %d", got, row.want)
			}
		})
	}
}

// TestPolicyAllocations: to find a method's policy costs a call nothing.
func TestPolicyAllocations(t *testing.T) {
	spec := connect.Spec{Procedure: "/" + authService + "/ValidateToken", IdempotencyLevel: connect.IdempotencyNoSideEffects}
	config := rpc.DefaultClientConfig()
	config.Methods = map[string]rpc.MethodConfig{authService: {Timeout: time.Second}}
	find := rpc.PolicyFinder(config)
	if n := testing.AllocsPerRun(100, func() { find(spec) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestPolicyByDeclaration: what one call says of a procedure is not taken for what another says.
func TestPolicyByDeclaration(t *testing.T) {
	handler := &authHandler{validate: func(context.Context, *authv1.ValidateTokenRequest) (*authv1.ValidateTokenResponse, error) {
		return nil, connect.NewError(connect.CodeUnavailable, "busy")
	}}
	transport, _ := only(t, startHTTP(t, handler.mount(), http1And2).Listener.Addr().String(), func(config *rpc.ClientConfig) {
		config.Methods = map[string]rpc.MethodConfig{"some.other.Service": {Timeout: time.Second}}
		config.Retry.InitialBackoff = time.Millisecond
	})
	spec := connect.Spec{Procedure: "/goplt.auth.v1.AuthService/ValidateToken", IdempotencyLevel: connect.IdempotencyNoSideEffects}
	client := connect.NewClient(transport)
	_ = client.CallUnary(t.Context(), spec, &authv1.ValidateTokenRequest{}, &authv1.ValidateTokenResponse{})
	expectCount(t, "executions of the idempotent call", &handler.validations, 3)
	handler.validations.Store(0)
	spec.IdempotencyLevel = connect.IdempotencyUnknown
	_ = client.CallUnary(t.Context(), spec, &authv1.ValidateTokenRequest{}, &authv1.ValidateTokenResponse{})
	expectCount(t, "executions of the call that is not", &handler.validations, 1)
}
