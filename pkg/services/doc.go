// Package services holds the contracts of the platform's core services: what callers inject and what servers implement.
//
//	AuthServiceClient      who is calling       Login, RefreshToken, ValidateToken
//	IdentityServiceClient  who exists           users, email verification, password reset
//	AuthzServiceClient     who may do what      Authorize, HasPermission, GetUserPermissions
//	AuditServiceClient     who did what         Record, Query, and AllAuditLogs over every page
//
// A server implements the same interface that a client offers, so a service moves in or out of a process without its callers
// changing. Nothing here names protobuf, Connect or HTTP: the types are plain, and safe to log, because their String and LogValue
// methods leave out secrets.
//
// Errors are told apart with [errors.Is] and the sentinels of this package ([ErrNotFound], [ErrUnauthenticated], …), on both sides of
// the wire. Every implementation is safe for concurrent use, takes a context first and returns by its deadline.
package services
