package services

import "context"

// AuthzServiceClient answers whether a user holds a permission, written "resource:action". Safe for concurrent use.
type AuthzServiceClient interface {
	// Authorize returns nil if the user holds the permission and [ErrPermissionDenied] if not, an unknown user included. A malformed
	// permission is [ErrInvalidArgument].
	Authorize(ctx context.Context, userID, permission string) error

	// HasPermission tells whether the user holds the permission; an unknown user holds none. A malformed permission is
	// [ErrInvalidArgument].
	HasPermission(ctx context.Context, userID, permission string) (bool, error)

	// GetUserPermissions lists all that the user was granted, through roles and directly, sorted by resource, then action, without
	// repeats. An unknown user is [ErrNotFound].
	GetUserPermissions(ctx context.Context, userID string) ([]Permission, error)
}

// Permission is one thing that a user may do.
type Permission struct {
	// Resource is the kind of thing that it is about, such as "invoices", or "*" for all.
	Resource string
	// Action is what may be done with it, such as "read", or "*" for all.
	Action string
}

// String writes the permission as "resource:action", the form that [AuthzServiceClient] takes.
func (p Permission) String() string { return p.Resource + ":" + p.Action }
