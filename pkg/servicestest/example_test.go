package servicestest_test

import (
	"context"
	"fmt"

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
