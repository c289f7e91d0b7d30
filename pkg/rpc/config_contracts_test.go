package rpc_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/0x1d/goplt/pkg/registry/memory"
	"github.com/0x1d/goplt/pkg/rpc"
)

// TestNewTransportKnowsTheMethods: all that is wrong with the methods by the contracts linked in is said when the transport is made.
func TestNewTransportKnowsTheMethods(t *testing.T) {
	t.Parallel()
	reg := memory.New()
	defer reg.Close()
	config := rpc.DefaultClientConfig()
	config.Timeout = -1
	config.Methods = map[string]rpc.MethodConfig{
		authService + ".Logn":          {Timeout: time.Second},
		authService + ".Login":         {Hedge: rpc.HedgeConfig{Delay: time.Second}},
		authService + ".ValidateToken": {Hedge: rpc.HedgeConfig{Delay: time.Second}},
		"shop.v1.Orders.Get":           {Hedge: rpc.HedgeConfig{Delay: time.Second}},
	}
	_, err := rpc.NewTransport("auth", reg, rpc.WithClientConfig(config))
	const want = `transport to "auth": timeout: -1ns is not 0 or more
methods.goplt.auth.v1.AuthService.Login.hedge: Login is not declared idempotent (option idempotency_level); set idempotency: idempotent if it is
methods.goplt.auth.v1.AuthService.Logn: AuthService has no method Logn; its methods are Login, RefreshToken, ValidateToken`
	if diff := cmp.Diff(want, fmt.Sprint(err)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	config.Timeout = 0
	delete(config.Methods, authService+".Logn")
	config.Methods[authService+".Login"] = rpc.MethodConfig{Idempotency: rpc.IdempotencyIdempotent, Hedge: rpc.HedgeConfig{Delay: time.Second}}
	transport, err := rpc.NewTransport("auth", reg, rpc.WithClientConfig(config))
	if err != nil {
		t.Fatal(err)
	}
	if err := transport.Close(); err != nil {
		t.Error(err)
	}
}
