package rpc

import (
	"context"
	"errors"
	"time"

	"connectrpc.com/connect/v2"

	"github.com/0x1d/goplt/internal/resilience"
)

// inTime gives a call no more time than its caller does, nor, if it is unary, than RequestTimeout. The earlier of the two is the deadline of
// the context that next is given, from which the calls that a handler makes have theirs.
//
// No work is done for a caller who waits no longer: one whose time was over on arrival, or who has gone, does not get to next, nor does a
// request message that came too late get to its handler. Interceptors have begun by then: they surround the arrival of the message too.
func (s *Server) inTime(next connect.ServerFunc) connect.ServerFunc {
	limit := s.config.RequestTimeout
	return func(ctx context.Context, spec connect.Spec, stream connect.ServerStream) error {
		if err := outOfTime(ctx, "before the call was served"); err != nil {
			return err
		}
		deadline, ok := ctx.Deadline()
		if limit == 0 || spec.StreamType != connect.StreamTypeUnary || ok && time.Until(deadline) <= limit {
			err := next(ctx, spec, &timelyStream{ServerStream: stream, ctx: ctx})
			if passedOnTheWay(ctx, err) {
				err = connect.NewError(connect.CodeDeadlineExceeded, "the caller's deadline has passed").WithCause(err)
			}
			return err
		}
		bounded, cancel := context.WithTimeout(ctx, limit)
		defer cancel()
		err := next(bounded, spec, &timelyStream{ServerStream: stream, ctx: bounded})
		passed := passedOnTheWay(bounded, err)
		if !passed && errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil && bounded.Err() != nil {
			_, chosen := errors.AsType[*connect.Error](err) // the handler's own words, then
			passed = !chosen
		}
		if passed {
			err = connect.Errorf(connect.CodeDeadlineExceeded, "the server's request_timeout of %s has passed", limit).WithCause(err)
		}
		return err
	}
}

// passedOnTheWay reports whether err is the deadline of a call in ctx, as another server saw it pass that the handler had called. A handler that
// returns it as it is means no other deadline than its own, while what other servers say does not reach its caller.
func passedOnTheWay(ctx context.Context, err error) bool {
	rpcErr, ok := errors.AsType[*connect.Error](err)
	if !ok || !rpcErr.IsRemote() || rpcErr.Code() != connect.CodeDeadlineExceeded {
		return false
	}
	deadline, ok := ctx.Deadline()
	return ok && time.Until(deadline) < timeoutRounding // which the other server was told less by
}

// timelyStream is the stream of a call, of which it hands over no message once the call's time is over.
type timelyStream struct {
	connect.ServerStream

	ctx     context.Context //nolint:containedctx // the call's
	permit  resilience.Permit
	awaited time.Time // since when the message is waited for of a call with a permit; zero before
	arrived bool      // whether it was there in time
}

// Receive receives a message in time, or fails.
func (s *timelyStream) Receive(message any) error {
	if s.permit.Given() && s.awaited.IsZero() {
		s.awaited = time.Now()
	}
	if err := s.ServerStream.Receive(message); err != nil {
		return err
	}
	if err := outOfTime(s.ctx, "before its message had arrived"); err != nil {
		return err
	}
	if s.permit.Given() {
		s.arrived = true
		deadline, _ := s.ctx.Deadline()
		s.permit.Begin(time.Since(s.awaited), deadline)
	}
	return nil
}

// outOfTime returns the error with which a call ends that is not worth its work any more, because its deadline has passed or its caller has
// gone, and nil for any other. The clock is asked too: a context learns of its deadline from a timer, which may be late on a busy machine.
func outOfTime(ctx context.Context, when string) error {
	err := ctx.Err()
	if err == nil {
		if deadline, ok := ctx.Deadline(); !ok || time.Until(deadline) > 0 {
			return nil
		}
		err = context.DeadlineExceeded
	}
	if isDeadline(err) {
		return connect.NewError(connect.CodeDeadlineExceeded, "the call's deadline passed "+when).WithCause(err)
	}
	return err
}
