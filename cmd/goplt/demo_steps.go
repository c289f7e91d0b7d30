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

// demoEmail is the address of the user that each performance creates and deletes.
const demoEmail = "demo@example.com"

// methodStep calls one method and says what came of it.
type methodStep struct {
	name string
	call func(context.Context) (string, error)
}

// scene is what the steps share: who calls, and what earlier steps left for later ones.
type scene struct {
	clients  *goplt.Clients
	platform *servicestest.Platform
	tokens   *services.TokenResponse
	user     *services.User
}

// methodSteps call every method of the four services once, in an order in which each finds what it needs.
func methodSteps(clients *goplt.Clients, platform *servicestest.Platform) []methodStep {
	s := &scene{clients: clients, platform: platform}
	steps := append(s.auth(), s.identity()...)
	steps = append(steps, s.authz()...)
	steps = append(steps, s.audit()...)
	return append(steps, methodStep{"identity.DeleteUser", func(ctx context.Context) (string, error) {
		return "deleted", clients.Identity.DeleteUser(ctx, s.user.ID)
	}})
}

func (s *scene) auth() []methodStep {
	return []methodStep{
		{"auth.Login", func(ctx context.Context) (_ string, err error) {
			s.tokens, err = s.clients.Auth.Login(ctx, "ada@example.com", servicestest.DemoPassword)
			return shown(s.tokens, err)
		}},
		{"auth.ValidateToken", func(ctx context.Context) (string, error) {
			claims, err := s.clients.Auth.ValidateToken(ctx, s.tokens.AccessToken)
			if err != nil {
				return "", err
			}
			return fmt.Sprintf("%s <%s> %v", claims.UserID, claims.Email, claims.Roles), nil
		}},
		{"auth.RefreshToken", func(ctx context.Context) (_ string, err error) {
			s.tokens, err = s.clients.Auth.RefreshToken(ctx, s.tokens.RefreshToken)
			return shown(s.tokens, err)
		}},
	}
}

func (s *scene) identity() []methodStep {
	identity := s.clients.Identity
	return []methodStep{
		{"identity.CreateUser", func(ctx context.Context) (_ string, err error) {
			s.user, err = identity.CreateUser(ctx, services.User{Email: demoEmail, Name: "Demo", Password: "a long enough password"})
			return shown(s.user, err)
		}},
		{"identity.GetUser", func(ctx context.Context) (string, error) { return shown(identity.GetUser(ctx, s.user.ID)) }},
		{"identity.GetUserByEmail", func(ctx context.Context) (string, error) { return shown(identity.GetUserByEmail(ctx, demoEmail)) }},
		{"identity.UpdateUser", func(ctx context.Context) (string, error) {
			changed := *s.user
			changed.Roles = []string{"auditor"}
			return shown(identity.UpdateUser(ctx, s.user.ID, changed))
		}},
		{"identity.VerifyEmail", func(ctx context.Context) (string, error) {
			token, err := s.mailed(servicestest.EmailVerification)
			if err != nil {
				return "", err
			}
			return "verified", identity.VerifyEmail(ctx, token)
		}},
		{"identity.RequestPasswordReset", func(ctx context.Context) (string, error) {
			return "token sent", identity.RequestPasswordReset(ctx, demoEmail)
		}},
		{"identity.ResetPassword", func(ctx context.Context) (string, error) {
			token, err := s.mailed(servicestest.PasswordReset)
			if err != nil {
				return "", err
			}
			return "password set", identity.ResetPassword(ctx, token, "another long password")
		}},
	}
}

func (s *scene) authz() []methodStep {
	authz := s.clients.Authz
	return []methodStep{
		{"authz.Authorize", func(ctx context.Context) (string, error) {
			if err := authz.Authorize(ctx, s.user.ID, "invoices:delete"); !errors.Is(err, services.ErrPermissionDenied) {
				return "", fmt.Errorf("an auditor who deletes invoices is not told permission denied: %w", err)
			}
			return "invoices:read allowed, invoices:delete denied", authz.Authorize(ctx, s.user.ID, "invoices:read")
		}},
		{"authz.HasPermission", func(ctx context.Context) (string, error) {
			allowed, err := authz.HasPermission(ctx, "usr_ada", "invoices:delete")
			return fmt.Sprintf("usr_ada invoices:delete: %t", allowed), err
		}},
		{"authz.GetUserPermissions", func(ctx context.Context) (string, error) {
			permissions, err := authz.GetUserPermissions(ctx, s.user.ID)
			return fmt.Sprint(permissions), err
		}},
	}
}

func (s *scene) audit() []methodStep {
	audit := s.clients.Audit
	return []methodStep{
		{"audit.Record", func(ctx context.Context) (string, error) {
			return "recorded", audit.Record(ctx, services.Action{UserID: s.user.ID, Action: "demo.run", Resource: "demo"})
		}},
		{"audit.Query", func(ctx context.Context) (string, error) {
			count := 0
			for _, err := range services.AllAuditLogs(ctx, audit, services.AuditFilters{PageSize: 2}) {
				if err != nil {
					return "", err
				}
				count++
			}
			return fmt.Sprintf("%d entries, page by page", count), nil
		}},
	}
}

// mailed returns the token that was sent to the demo's user.
func (s *scene) mailed(kind servicestest.TokenKind) (string, error) {
	token, ok := s.platform.LastToken(demoEmail, kind)
	if !ok {
		return "", fmt.Errorf("no %s token was sent to %s", kind, demoEmail)
	}
	return token, nil
}

// shown returns a value in words, unless there was an error.
func shown(value fmt.Stringer, err error) (string, error) {
	if err != nil {
		return "", err
	}
	return value.String(), nil
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
