package servicestest

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/0x1d/goplt/pkg/services"
)

// authzService is the authz service of a platform.
type authzService struct{ p *Platform }

var _ services.AuthzServiceClient = authzService{}

// wildcard stands for every resource or every action.
const wildcard = "*"

// parsePermission reads "resource:action", of which each part is "*" or made of ASCII letters, digits and "_-./".
func parsePermission(text string) (services.Permission, error) {
	resource, action, _ := strings.Cut(text, ":")
	if !isPermissionPart(resource) || !isPermissionPart(action) {
		return services.Permission{}, services.Errorf(services.ErrInvalidArgument,
			`permission %q is malformed: it must be like "invoices:read", with "*" for a whole part at most`, text)
	}
	return services.Permission{Resource: resource, Action: action}, nil
}

func isPermissionPart(part string) bool {
	if part == wildcard {
		return true
	}
	for _, c := range []byte(part) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', strings.IndexByte("_-./", c) >= 0:
		default:
			return false
		}
	}
	return part != ""
}

// covers reports whether who was granted the one may do the other. Asking for "invoices:*" is asking for every action, which only a
// wildcard covers.
func covers(granted, asked services.Permission) bool {
	return (granted.Resource == wildcard || granted.Resource == asked.Resource) &&
		(granted.Action == wildcard || granted.Action == asked.Action)
}

func parsePermissions(texts []string) ([]services.Permission, error) {
	permissions := make([]services.Permission, 0, len(texts))
	for _, text := range texts {
		permission, err := parsePermission(text)
		if err != nil {
			return nil, err
		}
		permissions = append(permissions, permission)
	}
	return permissions, nil
}

// DefineRole says what holders of a role may do, in place of what was said before. A user may have roles that nobody defined; they
// grant nothing. A malformed permission is [services.ErrInvalidArgument], and so is an empty role.
func (p *Platform) DefineRole(role string, permissions ...string) error {
	if role == "" {
		return services.Errorf(services.ErrInvalidArgument, "role is required")
	}
	parsed, err := parsePermissions(permissions)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.roles[role] = parsed
	return nil
}

// Grant gives a permission to a user directly. An unknown user is [services.ErrNotFound], a malformed permission
// [services.ErrInvalidArgument].
func (p *Platform) Grant(userID, permission string) error {
	parsed, err := parsePermission(permission)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := p.users[userID]; !ok {
		return errNoUserWithID(userID)
	}
	if p.grants[userID] == nil {
		p.grants[userID] = make(map[services.Permission]struct{})
	}
	p.grants[userID][parsed] = struct{}{}
	return nil
}

// Authorize implements [services.AuthzServiceClient].
func (s authzService) Authorize(ctx context.Context, userID, permission string) error {
	allowed, err := s.HasPermission(ctx, userID, permission)
	if err != nil {
		return err
	}
	if !allowed {
		return services.Errorf(services.ErrPermissionDenied, "user %q does not have the permission %q", userID, permission)
	}
	return nil
}

// HasPermission implements [services.AuthzServiceClient].
func (s authzService) HasPermission(ctx context.Context, userID, permission string) (bool, error) {
	if err := alive(ctx); err != nil {
		return false, err
	}
	asked, err := parsePermission(permission)
	if err != nil {
		return false, err
	}
	s.p.mu.RLock()
	defer s.p.mu.RUnlock()
	user, ok := s.p.users[userID]
	if !ok {
		return false, nil
	}
	for granted := range s.p.grants[userID] {
		if covers(granted, asked) {
			return true, nil
		}
	}
	for _, role := range user.Roles {
		for _, granted := range s.p.roles[role] {
			if covers(granted, asked) {
				return true, nil
			}
		}
	}
	return false, nil
}

// GetUserPermissions implements [services.AuthzServiceClient].
func (s authzService) GetUserPermissions(ctx context.Context, userID string) ([]services.Permission, error) {
	if err := alive(ctx); err != nil {
		return nil, err
	}
	s.p.mu.RLock()
	defer s.p.mu.RUnlock()
	user, ok := s.p.users[userID]
	if !ok {
		return nil, errNoUserWithID(userID)
	}
	permissions := slices.Collect(maps.Keys(s.p.grants[userID]))
	for _, role := range user.Roles {
		permissions = append(permissions, s.p.roles[role]...)
	}
	slices.SortFunc(permissions, func(a, b services.Permission) int {
		return cmp.Or(strings.Compare(a.Resource, b.Resource), strings.Compare(a.Action, b.Action))
	})
	return slices.Compact(permissions), nil
}
