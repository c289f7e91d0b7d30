package services

import (
	"context"
	"errors"
	"strings"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/proto"
)

// call calls one procedure of a generated client and is what all methods of all clients share: a request that cannot be encoded is
// refused before it is sent, a response without what was asked for is the server's fault, and errors get their meaning. Passing the
// procedure as a method expression costs no allocation.
func call[C any, Req, Res proto.Message](
	ctx context.Context, operation string, client C, procedure func(C, context.Context, Req) (Res, error), request Req,
) (Res, error) {
	var none Res
	if err := encodable(request); err != nil {
		return none, newCallError(ctx, operation, connect.NewError(connect.CodeInvalidArgument, err.Error()))
	}
	response, err := procedure(client, ctx, request)
	if err != nil {
		return none, newCallError(ctx, operation, err)
	}
	if field := unset(response); field != "" {
		return none, newCallError(ctx, operation, connect.Errorf(connect.CodeInternal, "the response has no %s", field))
	}
	return response, nil
}

// callError is the error of a client's call: what the caller branches on, above all that is known of the reason.
//
// Under [errors.Is] it matches the sentinel of its code, and [context.Canceled] or [context.DeadlineExceeded] where the call's time or its
// caller's patience ran out. Under [errors.As] it holds a [*connect.Error], and whatever the transport wrapped around it.
type callError struct {
	operation string
	sentinel  error
	cause     error // is or wraps a *connect.Error
	ended     error // context.Canceled, context.DeadlineExceeded or nil
}

func newCallError(ctx context.Context, operation string, cause error) error {
	cause = coded(cause)
	code := connect.CodeOf(cause)
	failed := &callError{operation: operation, sentinel: sentinelOf(code), cause: cause}
	switch {
	case code == connect.CodeDeadlineExceeded:
		// Also if the server saw the deadline pass before we did, which is a matter of microseconds.
		failed.ended = context.DeadlineExceeded
	case code == connect.CodeCanceled && errors.Is(ctx.Err(), context.Canceled):
		// Only then: a proxy or a dying server can cancel a stream too, and code that ignores context.Canceled as its own doing must
		// not ignore that.
		failed.ended = context.Canceled
	}
	return failed
}

// coded makes sure that err holds a [*connect.Error], with a code that puts the blame where it belongs.
func coded(err error) error {
	status, ok := errors.AsType[*connect.Error](err)
	switch {
	case ok && status != nil:
		if status.Code() == connect.CodeInvalidArgument && !status.IsRemote() && status.Unwrap() != nil {
			// connecthttp's word for a response that does not decode or decompress. The caller's argument is not at fault.
			return connect.NewError(connect.CodeInternal, "the response cannot be read: "+status.Message()).WithCause(err)
		}
		return err
	case errors.Is(err, context.DeadlineExceeded):
		return connect.NewError(connect.CodeDeadlineExceeded, "").WithCause(err)
	case errors.Is(err, context.Canceled):
		return connect.NewError(connect.CodeCanceled, "").WithCause(err)
	default:
		return connect.NewError(connect.CodeUnknown, err.Error()).WithCause(err)
	}
}

// Error returns "operation: meaning: details" in one line.
func (e *callError) Error() string {
	text := e.operation + ": " + e.sentinel.Error()
	// The code is what the sentinel says already, and some servers send nothing but the sentinel's text.
	details := strings.TrimPrefix(e.cause.Error(), connect.CodeOf(e.cause).String())
	details = strings.TrimPrefix(details, ": ")
	if details == "" || details == e.sentinel.Error() {
		return text
	}
	return text + ": " + strings.Join(strings.FieldsFunc(details, isLineBreak), "; ")
}

// Unwrap returns the cause first, so that [errors.As] finds what the transport knows, then what [errors.Is] is asked for.
func (e *callError) Unwrap() []error {
	if e.ended == nil {
		return []error{e.cause, e.sentinel}
	}
	return []error{e.cause, e.sentinel, e.ended}
}

func isLineBreak(char rune) bool { return char == '\n' || char == '\r' }
