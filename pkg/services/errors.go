package services

import (
	"errors"
	"fmt"
)

// The ways in which a call fails that a caller may want to tell apart, each the counterpart of one status code of gRPC and Connect
// (https://connectrpc.com/docs/protocol#error-codes). They hold under [errors.Is] on both sides of the wire: a server returns one of
// them, alone or made by [Errorf] with text that callers should see, and the client's error matches the same one.
//
// A server's error that matches none of them reaches the caller as [ErrInternal] without its text.
var (
	// ErrInvalidArgument says that the request can never succeed, whatever the state of the system.
	ErrInvalidArgument = errors.New("invalid argument")
	// ErrUnauthenticated says that credentials or a token are missing, wrong, expired or used up.
	ErrUnauthenticated = errors.New("unauthenticated")
	// ErrPermissionDenied says that the caller is known and may not do this.
	ErrPermissionDenied = errors.New("permission denied")
	// ErrNotFound says that what the request names does not exist.
	ErrNotFound = errors.New("not found")
	// ErrAlreadyExists says that what the request would create exists.
	ErrAlreadyExists = errors.New("already exists")
	// ErrFailedPrecondition says that the system is not in the state that the request needs.
	ErrFailedPrecondition = errors.New("failed precondition")
	// ErrAborted says that a concurrent change got in the way; the whole operation may be tried again.
	ErrAborted = errors.New("aborted")
	// ErrOutOfRange says that the request reaches past the end of what there is.
	ErrOutOfRange = errors.New("out of range")
	// ErrResourceExhausted says that a quota or a limit is used up, a message's size included.
	ErrResourceExhausted = errors.New("resource exhausted")
	// ErrUnimplemented says that the server does not have this operation.
	ErrUnimplemented = errors.New("unimplemented")
	// ErrUnavailable says that the service cannot be reached or takes no calls now.
	ErrUnavailable = errors.New("unavailable")
	// ErrDeadlineExceeded says that the call's time ran out; the operation may have happened. Also matches
	// [context.DeadlineExceeded] on the client.
	ErrDeadlineExceeded = errors.New("deadline exceeded")
	// ErrCanceled says that the call was given up; the operation may have happened. Also matches [context.Canceled] on the client where
	// it was the client's own context that was canceled, and not a proxy or a server that dropped the call.
	ErrCanceled = errors.New("canceled")
	// ErrDataLoss says that data is lost or damaged for good.
	ErrDataLoss = errors.New("data loss")
	// ErrInternal says that the server broke, in a way that is not the caller's business.
	ErrInternal = errors.New("internal error")
	// ErrUnknown says that the other side gave no usable reason.
	ErrUnknown = errors.New("unknown error")
)

// Errorf returns an error that matches sentinel under [errors.Is] and whose text, unlike any other error's, is sent to the caller: do
// not put secrets in it. Use it in servers; sentinel must be one of this package's.
func Errorf(sentinel error, format string, args ...any) error {
	return &publicError{sentinel: sentinel, text: fmt.Sprintf(format, args...)}
}

// PublicText returns the text that an error made by [Errorf] shows to callers, and whether err is or wraps one.
func PublicText(err error) (string, bool) {
	if public, ok := errors.AsType[*publicError](err); ok {
		return public.text, true
	}
	return "", false
}

type publicError struct {
	sentinel error
	text     string
}

func (e *publicError) Error() string { return e.sentinel.Error() + ": " + e.text }
func (e *publicError) Unwrap() error { return e.sentinel }
