package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"

	"github.com/0x1d/goplt"
	"github.com/0x1d/goplt/pkg/services"
	"github.com/0x1d/goplt/pkg/servicestest"
)

// methodStep calls one method and says what came of it.
type methodStep struct {
	name string
	call func(context.Context) (string, error)
}

// methodSteps call every method of the four services once, in an order in which each finds what it needs.
func methodSteps(clients *goplt.Clients, platform *servicestest.Platform) []methodStep {
	const email = "demo@example.com"
	var tokens *services.TokenResponse
	var user *services.User
	mailed := func(kind servicestest.TokenKind) (string, error) {
		token, ok := platform.LastToken(email, kind)
		if !ok {
			return "", fmt.Errorf("no %s token was sent to %s", kind, email)
		}
		return token, nil
	}
	return []methodStep{
		{"auth.Login", func(ctx context.Context) (shown string, err error) {
			tokens, err = clients.Auth.Login(ctx, "ada@example.com", servicestest.DemoPassword)
			return fmt.Sprint(tokens), err
		}},
		{"auth.ValidateToken", func(ctx context.Context) (string, error) {
			claims, err := clients.Auth.ValidateToken(ctx, tokens.AccessToken)
			if err != nil {
				return "", err
			}
			return fmt.Sprintf("%s <%s> %v", claims.UserID, claims.Email, claims.Roles), nil
		}},
		{"auth.RefreshToken", func(ctx context.Context) (shown string, err error) {
			tokens, err = clients.Auth.RefreshToken(ctx, tokens.RefreshToken)
			return fmt.Sprint(tokens), err
		}},
		{"identity.CreateUser", func(ctx context.Context) (shown string, err error) {
			user, err = clients.Identity.CreateUser(ctx, services.User{Email: email, Name: "Demo", Password: "a long enough password"})
			return fmt.Sprint(user), err
		}},
		{"identity.GetUser", func(ctx context.Context) (string, error) {
			found, err := clients.Identity.GetUser(ctx, user.ID)
			return fmt.Sprint(found), err
		}},
		{"identity.GetUserByEmail", func(ctx context.Context) (string, error) {
			found, err := clients.Identity.GetUserByEmail(ctx, email)
			return fmt.Sprint(found), err
		}},
		{"identity.UpdateUser", func(ctx context.Context) (string, error) {
			changed := *user
			changed.Roles = []string{"auditor"}
			found, err := clients.Identity.UpdateUser(ctx, user.ID, changed)
			return fmt.Sprint(found), err
		}},
		{"identity.VerifyEmail", func(ctx context.Context) (string, error) {
			token, err := mailed(servicestest.EmailVerification)
			if err != nil {
				return "", err
			}
			return "verified", clients.Identity.VerifyEmail(ctx, token)
		}},
		{"identity.RequestPasswordReset", func(ctx context.Context) (string, error) {
			return "token sent", clients.Identity.RequestPasswordReset(ctx, email)
		}},
		{"identity.ResetPassword", func(ctx context.Context) (string, error) {
			token, err := mailed(servicestest.PasswordReset)
			if err != nil {
				return "", err
			}
			return "password set", clients.Identity.ResetPassword(ctx, token, "another long password")
		}},
		{"authz.Authorize", func(ctx context.Context) (string, error) {
			if err := clients.Authz.Authorize(ctx, user.ID, "invoices:delete"); !errors.Is(err, services.ErrPermissionDenied) {
				return "", fmt.Errorf("an auditor may delete invoices: %w", err)
			}
			return "invoices:read allowed, invoices:delete denied", clients.Authz.Authorize(ctx, user.ID, "invoices:read")
		}},
		{"authz.HasPermission", func(ctx context.Context) (string, error) {
			allowed, err := clients.Authz.HasPermission(ctx, "usr_ada", "invoices:delete")
			return fmt.Sprintf("usr_ada invoices:delete: %t", allowed), err
		}},
		{"authz.GetUserPermissions", func(ctx context.Context) (string, error) {
			permissions, err := clients.Authz.GetUserPermissions(ctx, user.ID)
			return fmt.Sprint(permissions), err
		}},
		{"audit.Record", func(ctx context.Context) (string, error) {
			return "recorded", clients.Audit.Record(ctx, services.Action{UserID: user.ID, Action: "demo.run", Resource: "demo"})
		}},
		{"audit.Query", func(ctx context.Context) (string, error) {
			count := 0
			for _, err := range services.AllAuditLogs(ctx, clients.Audit, services.AuditFilters{PageSize: 2}) {
				if err != nil {
					return "", err
				}
				count++
			}
			return fmt.Sprintf("%d entries, page by page", count), nil
		}},
		{"identity.DeleteUser", func(ctx context.Context) (string, error) {
			return "deleted", clients.Identity.DeleteUser(ctx, user.ID)
		}},
	}
}

// splitAddr takes host:port apart.
func splitAddr(address string) (host string, port int, err error) {
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		return "", 0, err
	}
	port, err = strconv.Atoi(text)
	return host, port, err
}
