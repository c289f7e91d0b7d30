package services_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/0x1d/goplt/pkg/services"
	"github.com/0x1d/goplt/pkg/servicestest"
)

// demo returns in-memory services with a few users, in place of clients that a factory or an injector would give.
func demo() *servicestest.Platform {
	return servicestest.NewPlatform(servicestest.WithDemoData(), servicestest.WithPasswordCost(servicestest.TestPasswordCost()))
}

// Sign a user in, check whose the access token is, and rotate the refresh token.
func ExampleAuthServiceClient() {
	ctx := context.Background()
	auth := demo().Auth() // A services.AuthServiceClient, as an injector or a factory gives it.

	tokens, err := auth.Login(ctx, "ada@example.com", "correct horse battery staple")
	if err != nil {
		fmt.Println(err)
		return
	}
	claims, err := auth.ValidateToken(ctx, tokens.AccessToken)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(tokens.TokenType, claims.UserID, claims.Roles)

	if _, err = auth.RefreshToken(ctx, tokens.RefreshToken); err != nil {
		fmt.Println(err)
		return
	}
	_, err = auth.RefreshToken(ctx, tokens.RefreshToken)
	fmt.Println(errors.Is(err, services.ErrUnauthenticated), err)
	// Output:
	// Bearer usr_ada [admin]
	// true unauthenticated: refresh token was used before: its session is ended
}

// Create a user, tell two failures apart, and verify the address by the token that was sent to it.
func ExampleIdentityServiceClient() {
	ctx := context.Background()
	platform := demo()
	identity := platform.Identity() // A services.IdentityServiceClient.

	user, err := identity.CreateUser(ctx, services.User{Email: "emmy@example.com", Name: "Emmy Noether", Password: "ideals and rings"})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(user.Email, user.EmailVerified)

	_, err = identity.CreateUser(ctx, services.User{Email: "Emmy@example.com", Name: "Another", Password: "ideals and rings"})
	switch {
	case errors.Is(err, services.ErrAlreadyExists):
		fmt.Println("taken:", err)
	case errors.Is(err, services.ErrInvalidArgument):
		fmt.Println("mend your input:", err)
	}

	token, _ := platform.LastToken("emmy@example.com", servicestest.EmailVerification)
	if err = identity.VerifyEmail(ctx, token); err != nil {
		fmt.Println(err)
		return
	}
	user, err = identity.GetUser(ctx, user.ID)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(user.Email, user.EmailVerified)
	// Output:
	// emmy@example.com false
	// taken: already exists: email is taken by another user
	// emmy@example.com true
}

// Let a user through or not, and list what a user may do.
func ExampleAuthzServiceClient() {
	ctx := context.Background()
	authz := demo().Authz() // A services.AuthzServiceClient.

	fmt.Println(authz.Authorize(ctx, "usr_grace", "invoices:approve"))
	fmt.Println(authz.Authorize(ctx, "usr_grace", "users:delete"))
	permissions, err := authz.GetUserPermissions(ctx, "usr_grace")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(permissions)
	// Output:
	// <nil>
	// permission denied: user "usr_grace" does not have the permission "users:delete"
	// [customers:read invoices:*]
}

// Record an action, which may be done twice, and ask for it.
func ExampleAuditServiceClient() {
	ctx := context.Background()
	audit := demo().Audit() // A services.AuditServiceClient.

	for range 2 {
		err := audit.Record(ctx, services.Action{
			ID: "act_7", UserID: "usr_grace", Action: "invoice.approve", Resource: "invoice/7", Metadata: map[string]string{"amount": "80.00 EUR"},
		})
		if err != nil {
			fmt.Println(err)
			return
		}
	}
	page, err := audit.Query(ctx, services.AuditFilters{Resource: "invoice/7"})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, entry := range page {
		fmt.Println(entry.ID, entry.UserID, entry.Action.Action, entry.Metadata["amount"])
	}
	// Output: act_7 usr_grace invoice.approve 80.00 EUR
}

// Walk all entries, whatever the size of a page.
func ExampleAllAuditLogs() {
	ctx := context.Background()
	audit := demo().Audit()

	for entry, err := range services.AllAuditLogs(ctx, audit, services.AuditFilters{UserID: "usr_ada", PageSize: 1}) {
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(entry.Action.Action, entry.Resource)
	}
	// Output:
	// user.create user/usr_grace
	// user.create user/usr_alan
}

// A server answers with an error whose text its callers may read.
func ExampleErrorf() {
	err := services.Errorf(services.ErrNotFound, "no invoice has the number %d", 42)
	fmt.Println(errors.Is(err, services.ErrNotFound))
	fmt.Println(err)
	// Output:
	// true
	// not found: no invoice has the number 42
}
