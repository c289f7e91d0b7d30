package servicestest

import (
	"fmt"

	"github.com/0x1d/goplt/pkg/services"
)

func authzSuite() []suiteTest {
	return []suiteTest{
		{"RolesAndGrants", testRolesAndGrants},
		{"RolesAreTheUsers", testRolesAreTheUsers},
		{"UnknownUser", func(s *suite) {
			for _, id := range []string{"", nobodyID} {
				s.wantError("authorize "+id, s.Authz.Authorize(s.Context(), id, "invoices:read"), services.ErrPermissionDenied)
				if allowed, err := s.Authz.HasPermission(s.Context(), id, "invoices:read"); allowed || err != nil {
					s.Errorf("has permission: got %t, %v; want false", allowed, err)
				}
				_, err := s.Authz.GetUserPermissions(s.Context(), id)
				s.wantError("permissions of "+id, err, services.ErrNotFound, "no user has the ID")
			}
		}},
		{"MalformedPermission", testMalformedPermission},
		{"PermissionsAreSorted", testPermissionsAreSorted},
		{"NoPermissions", func(s *suite) {
			user := s.newUser(ada, "a role that nobody defined")
			permissions, err := s.Authz.GetUserPermissions(s.Context(), user.ID)
			if err != nil || len(permissions) != 0 {
				s.Errorf("got %v, %v; want none", permissions, err)
			}
			s.wantError("authorize", s.Authz.Authorize(s.Context(), user.ID, "invoices:read"), services.ErrPermissionDenied)
		}},
	}
}

// define defines a role.
func (s *suite) define(role string, permissions ...string) {
	s.Helper()
	if err := s.Controls.DefineRole(role, permissions...); err != nil {
		s.Fatalf("define the role %s: %v", role, err)
	}
}

// verdict is what both ways to ask are to say of a permission.
type verdict string

const (
	may    verdict = "may"
	mayNot verdict = "may not"
)

// wantVerdict checks what both ways to ask say of a permission.
func (s *suite) wantVerdict(user *services.User, permission string, want verdict) {
	s.Helper()
	got, err := s.Authz.HasPermission(s.Context(), user.ID, permission)
	if err != nil || got != (want == may) {
		s.Errorf("%s %s %s: has permission says %t, %v", user.Email, want, permission, got, err)
	}
	err = s.Authz.Authorize(s.Context(), user.ID, permission)
	switch {
	case want == mayNot:
		s.wantError("authorize "+user.Email+" for "+permission, err, services.ErrPermissionDenied, "does not have the permission", permission)
	case err != nil:
		s.Errorf("authorize %s for %s: %v", user.Email, permission, err)
	}
}

func testRolesAndGrants(s *suite) {
	s.define("admin", "*:*")
	s.define("auditor", "*:read")
	s.define("accountant", "invoices:*", "customers:read")
	admin := s.newUser("admin@example.com", "admin")
	auditor := s.newUser("auditor@example.com", "auditor")
	accountant := s.newUser("accountant@example.com", "accountant")
	both := s.newUser("both@example.com", "accountant", "auditor")
	guest := s.newUser("guest@example.com")
	if err := s.Controls.Grant(guest.ID, "invoices:read"); err != nil {
		s.Fatalf("grant: %v", err)
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
		s.wantVerdict(admin, test.permission, test.admin)
		s.wantVerdict(auditor, test.permission, test.auditor)
		s.wantVerdict(accountant, test.permission, test.accountant)
		s.wantVerdict(both, test.permission, test.both)
		s.wantVerdict(guest, test.permission, test.guest)
	}
}

func testRolesAreTheUsers(s *suite) {
	s.define("accountant", "invoices:read")
	user := s.newUser(ada)
	s.wantVerdict(user, "invoices:read", mayNot)
	change := services.User{Email: user.Email, Name: user.Name, Roles: []string{"accountant"}}
	if _, err := s.Identity.UpdateUser(s.Context(), user.ID, change); err != nil {
		s.Fatalf("give the role: %v", err)
	}
	s.wantVerdict(user, "invoices:read", may)
	s.define("accountant", "invoices:write")
	s.wantVerdict(user, "invoices:read", mayNot)
	s.wantVerdict(user, "invoices:write", may)
	change.Roles = nil
	if _, err := s.Identity.UpdateUser(s.Context(), user.ID, change); err != nil {
		s.Fatalf("take the role: %v", err)
	}
	s.wantVerdict(user, "invoices:write", mayNot)
}

func testMalformedPermission(s *suite) {
	s.define("admin", "*:*")
	user := s.newUser(ada, "admin")
	for _, permission := range []string{
		"", ":", "invoices", "invoices:", ":read", "a:b:c", "invoices :read", " invoices:read", "invoices:read ", "in*:read",
		"invoices:re*", "**:read", "invoices:read\n", "rechnungen:prüfen", "invoices;read",
	} {
		for _, id := range []string{user.ID, nobodyID} {
			s.wantError("authorize", s.Authz.Authorize(s.Context(), id, permission), services.ErrInvalidArgument, "malformed")
			allowed, err := s.Authz.HasPermission(s.Context(), id, permission)
			s.wantError("has permission", err, services.ErrInvalidArgument, "malformed")
			if allowed {
				s.Errorf("the malformed permission %q is allowed", permission)
			}
		}
	}
}

func testPermissionsAreSorted(s *suite) {
	s.define("accountant", "invoices:write", "invoices:read", "customers:read")
	s.define("auditor", "*:read", "invoices:read")
	user := s.newUser(ada, "accountant", "auditor")
	for _, permission := range []string{"invoices:read", "a.b/c-d_e:Run", "invoices:*"} {
		if err := s.Controls.Grant(user.ID, permission); err != nil {
			s.Fatalf("grant %s: %v", permission, err)
		}
	}
	got, err := s.Authz.GetUserPermissions(s.Context(), user.ID)
	want := "[*:read a.b/c-d_e:Run customers:read invoices:* invoices:read invoices:write]"
	if err != nil || fmt.Sprint(got) != want {
		s.Errorf("got %v, %v; want %s", got, err, want)
	}
}
