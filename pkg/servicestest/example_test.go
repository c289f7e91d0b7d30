package servicestest_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"connectrpc.com/connect/v2"

	"github.com/0x1d/goplt/pkg/services"
	"github.com/0x1d/goplt/pkg/servicestest"
)

// Use the services in one process, without a network.
func ExampleNewPlatform() {
	ctx := context.Background()
	platform := servicestest.NewPlatform(servicestest.WithDemoData(), servicestest.WithPasswordCost(servicestest.TestPasswordCost()))

	tokens, err := platform.Auth().Login(ctx, "grace@example.com", servicestest.DemoPassword)
	if err != nil {
		fmt.Println(err)
		return
	}
	claims, err := platform.Auth().ValidateToken(ctx, tokens.AccessToken)
	fmt.Println(claims.UserID, claims.Roles, err)
	// Output: usr_grace [accountant] <nil>
}

// Test code that calls the services against a server of its own, and against that server's failures.
func ExampleStart() {
	// In a program this is func TestLogin(t *testing.T).
	testLogin := func(t *testing.T) {
		s := servicestest.Start(t, servicestest.WithDemoData())
		fault := s.Faults().Fail("auth.Login", connect.CodeResourceExhausted, servicestest.Times(1))

		_, err := s.Auth.Login(t.Context(), "ada@example.com", servicestest.DemoPassword)
		if !errors.Is(err, services.ErrResourceExhausted) || fault.Hits() != 1 {
			t.Errorf("got %v, want the fault", err)
		}
		if _, err = s.Auth.Login(t.Context(), "ada@example.com", servicestest.DemoPassword); err != nil {
			t.Error(err)
		}
	}
	_ = testLogin
}
