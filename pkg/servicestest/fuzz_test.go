package servicestest_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/0x1d/goplt/pkg/services"
	"github.com/0x1d/goplt/pkg/servicestest"
)

func FuzzValidateToken(f *testing.F) {
	p := newPlatform(servicestest.WithDemoData())
	tokens, err := p.Auth().Login(f.Context(), "ada@example.com", servicestest.DemoPassword)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(tokens.AccessToken)
	for _, token := range []string{"", "..", "a.b.c", "eyJhbGciOiJub25lIn0.e30.", "eyJhbGciOiJIUzI1NiJ9.e30.AAAA"} {
		f.Add(token)
	}
	f.Fuzz(func(t *testing.T, token string) {
		claims, err := p.Auth().ValidateToken(t.Context(), token)
		if err == nil {
			if token != tokens.AccessToken || claims.UserID != "usr_ada" {
				t.Errorf("the forged token %q is valid: %+v", token, claims)
			}
			return
		}
		if !errors.Is(err, services.ErrUnauthenticated) || len(token) > 10 && strings.Contains(err.Error(), token) {
			t.Errorf("token %q: got %v", token, err)
		}
	})
}

func FuzzPageToken(f *testing.F) {
	p := newPlatform(servicestest.WithSecret("fuzz"), servicestest.WithDemoData())
	page, err := p.Audit().Query(f.Context(), services.AuditFilters{PageSize: 1})
	if err != nil {
		f.Fatal(err)
	}
	given := page[0].PageToken
	for _, token := range []string{given, "", "x", strings.Repeat("A", len(given)), given + "="} {
		f.Add(token)
	}
	f.Fuzz(func(t *testing.T, token string) {
		_, err := p.Audit().Query(t.Context(), services.AuditFilters{PageSize: 1, PageToken: token})
		if good := token == "" || token == given; good != (err == nil) || !good && !errors.Is(err, services.ErrInvalidArgument) {
			t.Errorf("page token %q: got %v", token, err)
		}
	})
}

func FuzzPermission(f *testing.F) {
	p := newPlatform(servicestest.WithDemoData())
	for _, permission := range []string{"invoices:read", "*:*", "", ":", "a:b:c", "in*:read", "invoices:read\x00"} {
		f.Add(permission)
	}
	f.Fuzz(func(t *testing.T, permission string) {
		allowed, err := p.Authz().HasPermission(t.Context(), "usr_ada", permission)
		if err != nil {
			if allowed || !errors.Is(err, services.ErrInvalidArgument) {
				t.Errorf("permission %q: got %t, %v", permission, allowed, err)
			}
			return
		}
		// An administrator may do all that can be written, which is just what a grant can be made of.
		if err := p.Grant("usr_grace", permission); !allowed || err != nil {
			t.Errorf("permission %q: got %t, and for a grant of it %v", permission, allowed, err)
		}
	})
}

func FuzzEmail(f *testing.F) {
	p := newPlatform()
	for _, email := range []string{
		"ada@example.com", " Ada@Example.com ", "", "@", "ada@[127.0.0.1]", "\"a b\"@example.com", "ada@exämple.com", "İ@example.com",
	} {
		f.Add(email)
	}
	f.Fuzz(func(t *testing.T, email string) {
		user, err := p.Identity().CreateUser(t.Context(), services.User{Email: email, Name: "Ada", Password: password})
		if err != nil {
			if !errors.Is(err, services.ErrInvalidArgument) {
				t.Errorf("create %q: %v", email, err)
			}
			return
		}
		defer func() {
			if err := p.Identity().DeleteUser(t.Context(), user.ID); err != nil {
				t.Errorf("delete %q: %v", email, err)
			}
		}()
		// Whatever was taken finds the user again, as does what became of it.
		for _, form := range []string{email, user.Email} {
			got, err := p.Identity().GetUserByEmail(t.Context(), form)
			if err != nil || got.ID != user.ID {
				t.Errorf("%q was created as %q but not found as %q: %v", email, user.Email, form, err)
			}
		}
	})
}
