package rpc

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"connectrpc.com/connect/v2"

	"github.com/0x1d/goplt/internal/pool"
	"github.com/0x1d/goplt/internal/resilience"
)

// stream is a client, server or bidirectional stream. It is opened by its first operation: until a connection is reserved, it may move
// from instance to instance and from gRPC to the other protocol, after that it stays. It implements [connect.ClientStream].
type stream struct {
	transport *Transport
	ctx       context.Context //nolint:containedctx // the stream's own, given to NewClientStream
	spec      connect.Spec

	once    sync.Once
	inner   connect.ClientStream // set by once
	openErr error                // set by once

	chosen   *instance
	permit   bool
	exchange *exchange
	ended    sync.Once
	cancel   context.CancelFunc // of the exchange's context
}

var _ connect.ClientStream = (*stream)(nil)

// SendHeaders opens the stream and sends its headers.
func (s *stream) SendHeaders() error {
	inner, err := s.open()
	if err != nil {
		return err
	}
	return inner.SendHeaders()
}

// Send opens the stream if need be and sends a message.
func (s *stream) Send(message any) error {
	inner, err := s.open()
	if err != nil {
		return err
	}
	return inner.Send(message)
}

// CloseSend opens the stream if need be and closes its sending side.
func (s *stream) CloseSend() error {
	inner, err := s.open()
	if err != nil {
		return err
	}
	return inner.CloseSend()
}

// Receive opens the stream if need be and receives a message.
func (s *stream) Receive(message any) error {
	inner, err := s.open()
	if err != nil {
		return err
	}
	if err := inner.Receive(message); err != nil {
		s.end(err)
		return err
	}
	return nil
}

// Close ends the stream and gives back what it holds.
func (s *stream) Close() error {
	s.once.Do(func() { s.openErr = contextError(context.Canceled) })
	if s.openErr != nil {
		return nil
	}
	err := s.inner.Close()
	s.end(context.Canceled)
	return err
}

// open opens the stream once.
func (s *stream) open() (connect.ClientStream, error) {
	s.once.Do(func() { s.openErr = s.connect() })
	return s.inner, s.openErr
}

// connect finds an instance that takes the stream, within the time-out of a call.
func (s *stream) connect() error {
	if !s.transport.begin() {
		return unavailable(ErrClosed)
	}
	opener := &call{transport: s.transport, ctx: s.ctx, spec: s.spec}
	ctx := s.ctx
	if timeout := s.transport.config.Timeout; timeout > 0 {
		bounded, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		ctx = bounded
		opener.deadline, _ = ctx.Deadline()
	}
	var err error
	if first := s.tryInstance(ctx, opener); first != nil {
		err = first
		if first.retryable {
			err = s.transport.retrier.After(ctx, first, func() error {
				if failed := s.tryInstance(ctx, opener); failed != nil {
					return failed
				}
				return nil
			})
		}
	}
	if err != nil {
		s.transport.end()
		return opener.failed(err)
	}
	// A caller may abandon a stream by its context alone.
	context.AfterFunc(s.exchange.Context, func() { s.end(context.Canceled) })
	return nil
}

// tryInstance reserves a connection to one instance, of the other protocol if gRPC provably does not get through.
func (s *stream) tryInstance(ctx context.Context, opener *call) *failure {
	chosen, permit, err := s.transport.pick(ctx, opener.deadline, opener.tried)
	if err != nil {
		return &failure{err: err}
	}
	wire := chosen.wireFor(s.transport.config.Protocol)
	started := time.Now()
	conn, err := wire.pool.Acquire(ctx)
	if errors.Is(err, pool.ErrNotHTTP2) && s.transport.config.Protocol == ProtocolAuto {
		s.transport.learnHTTP(chosen, err)
		wire = &chosen.http
		conn, err = wire.pool.Acquire(ctx)
	}
	if err != nil {
		result := outcomeFailure
		failed := &failure{err: unavailable(err), retryable: true}
		if ctxErr := ctx.Err(); ctxErr != nil {
			failed = &failure{err: contextError(ctxErr)}
			if !isDeadline(ctxErr) {
				result = outcomeNone
			}
		}
		chosen.finish(permit, result)
		opener.tried = append(opener.tried, chosen)
		opener.attempts = append(opener.attempts, Attempt{
			Instance: chosen.id, Addr: chosen.addr, Protocol: wire.protocol, Verdict: resilience.NotSent.String(),
			Code: connect.CodeOf(failed.err), Duration: time.Since(started), Err: failed.err,
		})
		return failed
	}
	s.chosen, s.permit = chosen, permit
	owned, cancel := context.WithCancel(s.ctx)
	s.cancel = cancel
	s.exchange = &exchange{Context: owned, conn: conn}
	if s.inner, err = wire.transport.NewClientStream(s.exchange, s.spec); err != nil {
		cancel()
		s.exchange.finish()
		chosen.finish(permit, outcomeNone)
		return &failure{err: err}
	}
	return nil
}

// end gives back what the stream holds, once, when it ended by err.
func (s *stream) end(err error) {
	s.ended.Do(func() {
		result := outcomeSuccess
		switch {
		case errors.Is(err, io.EOF) || isRemote(err):
		case s.ctx.Err() != nil || errors.Is(err, context.Canceled):
			result = outcomeNone
		case connect.CodeOf(err) == connect.CodeUnavailable:
			result = outcomeFailure
		}
		s.cancel()
		s.exchange.finish()
		s.chosen.finish(s.permit, result)
		s.transport.end()
	})
}

// newInProcessStream dispatches to a server in this process, under the same time-out and Close as calls over a network.
func (t *Transport) newInProcessStream(ctx context.Context, spec connect.Spec) (connect.ClientStream, error) {
	if !t.begin() {
		return nil, unavailable(ErrClosed)
	}
	cancel := func() {}
	if timeout := t.config.Timeout; timeout > 0 && spec.StreamType == connect.StreamTypeUnary {
		ctx, cancel = context.WithTimeout(ctx, timeout)
	}
	inner, err := t.inProcess.NewClientStream(ctx, spec)
	if err != nil {
		cancel()
		t.end()
		return nil, err
	}
	s := &inProcessStream{ClientStream: inner}
	s.release = sync.OnceFunc(func() {
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

	release func()
}

// Receive releases at the end of the stream.
func (s *inProcessStream) Receive(message any) error {
	err := s.ClientStream.Receive(message)
	if err != nil {
		s.release()
	}
	return err
}

// Close releases in any case.
func (s *inProcessStream) Close() error {
	defer s.release()
	return s.ClientStream.Close()
}
