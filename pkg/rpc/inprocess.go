package rpc

import (
	"context"
	"errors"
	"sync"

	"connectrpc.com/connect/v2"
)

// newInProcessStream dispatches to a server in this process, under the same time-out and Close as calls over a network.
func (t *Transport) newInProcessStream(ctx context.Context, spec connect.Spec) (connect.ClientStream, error) {
	if !t.begin() {
		return nil, unavailable(ErrClosed)
	}
	callers := ctx
	var cancel context.CancelFunc
	if timeout := t.policies.of(spec).timeout; timeout > 0 && spec.StreamType == connect.StreamTypeUnary {
		ctx, cancel = context.WithTimeout(ctx, timeout)
	} else {
		ctx, cancel = context.WithCancel(ctx)
	}
	inner, err := t.inProcess.NewClientStream(ctx, spec)
	if err != nil {
		cancel()
		t.end()
		return nil, err
	}
	detach := context.AfterFunc(t.ctx, cancel) // Close cuts off what outlasts its drain
	s := &inProcessStream{ClientStream: inner, transport: t, ctx: callers}
	if spec.StreamType == connect.StreamTypeUnary {
		s.bounded = ctx
	}
	s.release = sync.OnceFunc(func() {
		detach()
		cancel()
		t.end()
	})
	if spec.StreamType != connect.StreamTypeUnary {
		context.AfterFunc(ctx, s.release)
	}
	return s, nil
}

// inProcessStream releases what its call holds when it ends.
type inProcessStream struct {
	connect.ClientStream

	transport *Transport
	ctx       context.Context //nolint:containedctx // the caller's own
	bounded   context.Context //nolint:containedctx // the call's, if it is unary and its handler has yet to run
	release   func()
}

// Receive releases at the end of the stream. Of a unary call it runs the handler, unless nobody waits for it any more.
func (s *inProcessStream) Receive(message any) error {
	var err error
	if s.bounded != nil {
		err = outOfTime(s.bounded, "before the call was served")
		s.bounded = nil
	}
	if err == nil {
		err = s.ClientStream.Receive(message)
	}
	if err == nil {
		return nil
	}
	if s.transport.ctx.Err() != nil && s.ctx.Err() == nil && isCancellation(err) {
		err = cutOff(err)
	}
	s.release()
	return err
}

// Close releases in any case.
func (s *inProcessStream) Close() error {
	defer s.release()
	return s.ClientStream.Close()
}

// isCancellation reports whether an error is what becomes of a cancelled context, be it in a handler's words.
func isCancellation(err error) bool {
	return errors.Is(err, context.Canceled) || connect.CodeOf(err) == connect.CodeCanceled
}
