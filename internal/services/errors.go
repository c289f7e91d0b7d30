package services

import (
	"connectrpc.com/connect/v2"

	"github.com/0x1d/goplt/pkg/services"
)

// pairing is one row of the error table: a sentinel of the domain and the code that stands for it on the wire.
type pairing struct {
	code     connect.Code
	sentinel error
}

// errorTable is the one table of errors. Servers read it from sentinel to code, clients from code to sentinel.
func errorTable() [16]pairing {
	return [...]pairing{
		{connect.CodeCanceled, services.ErrCanceled},
		{connect.CodeUnknown, services.ErrUnknown},
		{connect.CodeInvalidArgument, services.ErrInvalidArgument},
		{connect.CodeDeadlineExceeded, services.ErrDeadlineExceeded},
		{connect.CodeNotFound, services.ErrNotFound},
		{connect.CodeAlreadyExists, services.ErrAlreadyExists},
		{connect.CodePermissionDenied, services.ErrPermissionDenied},
		{connect.CodeResourceExhausted, services.ErrResourceExhausted},
		{connect.CodeFailedPrecondition, services.ErrFailedPrecondition},
		{connect.CodeAborted, services.ErrAborted},
		{connect.CodeOutOfRange, services.ErrOutOfRange},
		{connect.CodeUnimplemented, services.ErrUnimplemented},
		{connect.CodeInternal, services.ErrInternal},
		{connect.CodeUnavailable, services.ErrUnavailable},
		{connect.CodeDataLoss, services.ErrDataLoss},
		{connect.CodeUnauthenticated, services.ErrUnauthenticated},
	}
}

// sentinelOf returns the sentinel of a code, and [services.ErrUnknown] for a code that no specification names.
func sentinelOf(code connect.Code) error {
	for _, row := range errorTable() {
		if row.code == code {
			return row.sentinel
		}
	}
	return services.ErrUnknown
}

// codeOf returns the code of err itself, not of what it wraps: err is a sentinel, or says by its Is method that it counts as one.
func codeOf(err error) (connect.Code, bool) {
	is, hasIs := err.(interface{ Is(target error) bool })
	for _, row := range errorTable() {
		if err == row.sentinel || hasIs && is.Is(row.sentinel) { //nolint:errorlint // of this error alone: the caller unwraps
			return row.code, true
		}
	}
	return 0, false
}
