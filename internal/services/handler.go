package services

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/proto"

	"github.com/0x1d/goplt/pkg/rpc"
	"github.com/0x1d/goplt/pkg/services"
)

// internalText is all that a caller learns of a failure that is none of its business.
const internalText = "internal error"

// reply ends a call of a handler, and is what all methods of all handlers share: it gives the implementation's error the code and the
// text that the caller gets, and refuses a response that cannot be sent or does not hold what was asked for.
func reply[Res proto.Message](ctx context.Context, logger *slog.Logger, response Res, err error) (Res, error) {
	var none Res
	if err != nil {
		return none, verdict(ctx, logger, err)
	}
	if field := unset(response); field != "" {
		err = fmt.Errorf("the implementation returned neither %s nor an error", field)
	} else {
		err = encodable(response)
	}
	if err != nil {
		return none, report(ctx, logger, err, connect.NewError(connect.CodeInternal, internalText))
	}
	return response, nil
}

// verdict says what a caller gets for an implementation's error. It reports to the logger what the caller does not get and an operator
// must see.
//
// Words that the implementation chose for the caller are passed on: a [*connect.Error] of its own as it is but for its cause, a sentinel as its code,
// with the text of [services.Errorf] or else the sentinel's own. They are found wherever they are wrapped.
//
// What another service told the implementation was not meant for the caller: a user that identity does not know is not for Login
// to tell, and an implementation whose own token has expired does not mean that the caller has to sign in. So an error that came out of a
// client is never passed on, nor its text, unless the implementation wraps it in words of its own. Three things remain true on the way up:
// who gave up (only if it was this call's caller), that the time ran out, and that a service is unavailable now.
//
// Everything else is internal. A verdict that was reported is final: what comes through the adapters of the core services and then through
// [ServerErrors] is reported once, with its cause, by the first.
func verdict(ctx context.Context, logger *slog.Logger, err error) error {
	if _, ok := errors.AsType[*reportedError](err); ok {
		return err
	}
	if own := authored(err); own != nil {
		switch own.Code() {
		case connect.CodeInternal, connect.CodeUnknown, connect.CodeDataLoss:
			return report(ctx, logger, err, own)
		default:
			return own
		}
	}
	relayed := connect.CodeOf(err)
	timedOut := errors.Is(err, context.DeadlineExceeded) || relayed == connect.CodeDeadlineExceeded
	canceled := errors.Is(err, context.Canceled) || relayed == connect.CodeCanceled
	code, text := connect.CodeInternal, internalText
	switch ended := ctx.Err(); {
	case errors.Is(ended, context.Canceled) && (canceled || timedOut):
		return connect.NewError(connect.CodeCanceled, services.ErrCanceled.Error())
	case ended != nil && (canceled || timedOut):
		return connect.NewError(connect.CodeDeadlineExceeded, services.ErrDeadlineExceeded.Error())
	case timedOut:
		code, text = connect.CodeDeadlineExceeded, services.ErrDeadlineExceeded.Error()
	case relayed == connect.CodeUnavailable:
		code, text = connect.CodeUnavailable, services.ErrUnavailable.Error()
	}
	return report(ctx, logger, err, connect.NewError(code, text))
}

// authored returns the words that the implementation chose for the caller, the outermost and first if there are several, or nil.
//
//nolint:errorlint // errors.Is and errors.As do not stop where another service's error begins; this walk does
func authored(err error) *connect.Error {
	switch node := err.(type) {
	case nil, *callError, *rpc.CallError:
		return nil
	case *connect.Error:
		if node.IsRemote() || fromConnection(node) {
			return nil
		}
		return withoutCause(node)
	}
	if code, ok := codeOf(err); ok {
		return connect.NewError(code, sentinelOf(code).Error())
	}
	switch node := err.(type) {
	case interface{ Unwrap() error }:
		inner := node.Unwrap()
		// The one error that wraps a sentinel itself and has a public text is that of services.Errorf.
		if code, ok := codeOf(inner); ok {
			if text, ok := services.PublicText(err); ok {
				return connect.NewError(code, text)
			}
		}
		return authored(inner)
	case interface{ Unwrap() []error }:
		for _, inner := range node.Unwrap() {
			if own := authored(inner); own != nil {
				return own
			}
		}
	}
	return nil
}

// fromConnection reports whether a status that no peer sent was given by a client's transport to a failed connection: its text is nothing but that
// of its cause, a network error, and tells of addresses. Who chooses words of its own does not choose these.
func fromConnection(status *connect.Error) bool {
	cause := status.Unwrap()
	_, ok := errors.AsType[net.Error](cause)
	return ok && status.Message() == cause.Error()
}

// withoutCause removes what a call within the process would hand over to the caller and a wire would not.
func withoutCause(status *connect.Error) *connect.Error {
	if status.Unwrap() == nil {
		return status
	}
	public := connect.NewError(status.Code(), status.Message())
	for _, detail := range status.Details() {
		public = public.WithDetail(detail)
	}
	return public
}

// reportedError is a verdict on an error that operators have been told of. Transports send the status in it.
type reportedError struct{ status *connect.Error }

func (e *reportedError) Error() string { return e.status.Error() }

func (e *reportedError) Unwrap() error { return e.status }

// report tells operators of a failure that the caller learns nothing about but public, and returns that. Without a logger of its own it uses the
// program's, because an error that nobody sees is worse than one in the wrong place.
func report(ctx context.Context, logger *slog.Logger, err error, public *connect.Error) error {
	procedure := ""
	if info, ok := connect.CallInfoForServerContext(ctx); ok {
		procedure = info.Spec.Procedure
	}
	orDefault(logger).ErrorContext(ctx, "service call failed",
		slog.String("procedure", procedure), slog.String("code", public.Code().String()), slog.Any("error", err))
	return &reportedError{public}
}

// RecoverPanics returns an interceptor that makes a panic in an implementation fail its call with an internal error that tells the caller
// nothing, and logs the panic with its stack to logger, [slog.Default] if it is nil. The process and the connection live on. A panic with
// [http.ErrAbortHandler] is passed on: it is how a handler asks net/http to drop the connection. Put it first, so that it also covers the
// other interceptors.
func RecoverPanics(logger *slog.Logger) connect.ServerInterceptor {
	return func(next connect.ServerFunc) connect.ServerFunc {
		return func(ctx context.Context, spec connect.Spec, stream connect.ServerStream) (err error) {
			defer func() {
				switch reason := recover(); reason {
				case nil:
				case http.ErrAbortHandler:
					panic(reason)
				default:
					orDefault(logger).ErrorContext(ctx, "service call panicked", slog.String("procedure", spec.Procedure),
						slog.String("panic", fmt.Sprint(reason)), slog.String("stack", string(debug.Stack())))
					err = connect.NewError(connect.CodeInternal, internalText)
				}
			}()
			return next(ctx, spec, stream)
		}
	}
}

func orDefault(logger *slog.Logger) *slog.Logger {
	if logger == nil {
		return slog.Default()
	}
	return logger
}
