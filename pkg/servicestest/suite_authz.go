package servicestest

import (
	"slices"
	"testing"

	"github.com/0x1d/goplt/pkg/services"
)

func authzSuite() []suiteTest {
	return []suiteTest{
		{"RolesAndGrants", testRolesAndGrants},
		{"RolesAreTheUsers", testRolesAreTheUsers},
		{"UnknownUser", func(t *testing.T, s Services) {
			for _, id := range []string{"", "usr_nobody"} {
				wantError(t, "authorize "+id, s.Authz.Authorize(t.Context(), id, "invoices:read"), services.ErrPermissionDenied)
				if allowed, err := s.Authz.HasPermission(t.Context(), id, "invoices:read"); allowed || err != nil {
					t.Errorf("has permission: got %t, %v; want false", allowed, err)
				}
				_, err := s.Authz.GetUserPermissions(t.Context(), id)
				wantError(t, "permissions of "+id, err, services.ErrNotFound, "no user has the ID")
			}
		}},
		{"MalformedPermission", testMalformedPermission},
		{"PermissionsAreSorted", testPermissionsAreSorted},
		{"NoPermissions", func(t *testing.T, s Services) {
			user := s.newUser(t, "ada@example.com", "a role that nobody defined")
			permissions, err := s.Authz.GetUserPermissions(t.Context(), user.ID)
			if err != nil || len(permissions) != 0 {
				t.Errorf("got %v, %v; want none", permissions, err)
			}
			wantError(t, "authorize", s.Authz.Authorize(t.Context(), user.ID, "invoices:read"), services.ErrPermissionDenied)
		}},
	}
}

// define defines a role.
func (s Services) define(t *testing.T, role string, permissions ...string) {
	t.Helper()
	if err := s.Controls.DefineRole(role, permissions...); err != nil {
		t.Fatalf("define the role %s: %v", role, err)
	}
}

// verdict is what both ways to ask are to say of a permission.
type verdict string

const (
	may    verdict = "may"
	mayNot verdict = "may not"
)

// wantVerdict checks what both ways to ask say of a permission.
func (s Services) wantVerdict(t *testing.T, user *services.User, permission string, want verdict) {
	t.Helper()
	got, err := s.Authz.HasPermission(t.Context(), user.ID, permission)
	if err != nil || got != (want == may) {
		t.Errorf("%s %s %s: has permission says %t, %v", user.Email, want, permission, got, err)
	}
	err = s.Authz.Authorize(t.Context(), user.ID, permission)
	switch {
	case want == mayNot:
		wantError(t, "authorize "+user.Email+" for "+permission, err, services.ErrPermissionDenied, "does not have the permission", permission)
	case err != nil:
		t.Errorf("authorize %s for %s: %v", user.Email, permission, err)
	}
}

func testRolesAndGrants(t *testing.T, s Services) {
	s.define(t, "admin", "*:*")
	s.define(t, "auditor", "*:read")
	s.define(t, "accountant", "invoices:*", "customers:read")
	admin := s.newUser(t, "admin@example.com", "admin")
	auditor := s.newUser(t, "auditor@example.com", "auditor")
	accountant := s.newUser(t, "accountant@example.com", "accountant")
	both := s.newUser(t, "both@example.com", "accountant", "auditor")
	guest := s.newUser(t, "guest@example.com")
	if err := s.Controls.Grant(guest.ID, "invoices:read"); err != nil {
		t.Fatalf("grant: %v", err)
	}
	for _, test := range []struct {
		permission                              string
		admin, auditor, accountant, both, guest verdict
	}{
		{"invoices:read", may, may, may, may, may},
		{"invoices:approve", may, mayNot, may, may, mayNot},
		{"customers:read", may, may, may, may, mayNot},
		{"customers:delete", may, mayNot, mayNot, mayNot, mayNot},
		{"orders:read", may, may, mayNot, may, mayNot},
		{"orders:write", may, mayNot, mayNot, mayNot, mayNot},
		// Names are compared whole and as they are written.
		{"invoices2:read", may, may, mayNot, may, mayNot},
		{"Invoices:approve", may, mayNot, mayNot, mayNot, mayNot},
		{"customers:reads", may, mayNot, mayNot, mayNot, mayNot},
		// Asking for all is met by nothing less than all.
		{"invoices:*", may, mayNot, may, may, mayNot},
		{"*:read", may, may, mayNot, may, mayNot},
		{"*:*", may, mayNot, mayNot, mayNot, mayNot},
	} {
		s.wantVerdict(t, admin, test.permission, test.admin)
		s.wantVerdict(t, auditor, test.permission, test.auditor)
		s.wantVerdict(t, accountant, test.permission, test.accountant)
		s.wantVerdict(t, both, test.permission, test.both)
		s.wantVerdict(t, guest, test.permission, test.guest)
	}
}

func testRolesAreTheUsers(t *testing.T, s Services) {
	s.define(t, "accountant", "invoices:read")
	user := s.newUser(t, "ada@example.com")
	s.wantVerdict(t, user, "invoices:read", mayNot)
	change := services.User{Email: user.Email, Name: user.Name, Roles: []string{"accountant"}}
	if _, err := s.Identity.UpdateUser(t.Context(), user.ID, change); err != nil {
		t.Fatalf("give the role: %v", err)
	}
	s.wantVerdict(t, user, "invoices:read", may)
	s.define(t, "accountant", "invoices:write")
	s.wantVerdict(t, user, "invoices:read", mayNot)
	s.wantVerdict(t, user, "invoices:write", may)
	change.Roles = nil
	if _, err := s.Identity.UpdateUser(t.Context(), user.ID, change); err != nil {
		t.Fatalf("take the role: %v", err)
	}
	s.wantVerdict(t, user, "invoices:write", mayNot)
}

func testMalformedPermission(t *testing.T, s Services) {
	s.define(t, "admin", "*:*")
	user := s.newUser(t, "ada@example.com", "admin")
	for _, permission := range []string{
		"", ":", "invoices", "invoices:", ":read", "a:b:c", "invoices :read", " invoices:read", "invoices:read ", "in*:read",
		"invoices:re*", "**:read", "invoices:read\n", "rechnungen:prüfen", "invoices;read",
	} {
		for _, id := range []string{user.ID, "usr_nobody"} {
			wantError(t, "authorize", s.Authz.Authorize(t.Context(), id, permission), services.ErrInvalidArgument, "malformed")
			allowed, err := s.Authz.HasPermission(t.Context(), id, permission)
			wantError(t, "has permission", err, services.ErrInvalidArgument, "malformed")
			if allowed {
				t.Errorf("the malformed permission %q is allowed", permission)
			}
		}
	}
}

func testPermissionsAreSorted(t *testing.T, s Services) {
	s.define(t, "accountant", "invoices:write", "invoices:read", "customers:read")
	s.define(t, "auditor", "*:read", "invoices:read")
	user := s.newUser(t, "ada@example.com", "accountant", "auditor")
	for _, permission := range []string{"invoices:read", "a.b/c-d_e:Run", "invoices:*"} {
		if err := s.Controls.Grant(user.ID, permission); err != nil {
			t.Fatalf("grant %s: %v", permission, err)
		}
	}
	got, err := s.Authz.GetUserPermissions(t.Context(), user.ID)
	want := []services.Permission{
		{Resource: "*", Action: "read"},
		{Resource: "a.b/c-d_e", Action: "Run"},
		{Resource: "customers", Action: "read"},
		{Resource: "invoices", Action: "*"},
		{Resource: "invoices", Action: "read"},
		{Resource: "invoices", Action: "write"},
	}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, %v; want %v", got, err, want)
	}
}
