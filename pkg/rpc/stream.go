package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"connectrpc.com/connect/v2"

	"github.com/0x1d/goplt/internal/pool"
	"github.com/0x1d/goplt/internal/resilience"
	grpcclient "github.com/0x1d/goplt/internal/services/grpc/client"
)

// stream is a client, server or bidirectional stream. It is opened by its first operation: until a connection is reserved, it may move
// from instance to instance and from gRPC to the other protocol, after that it stays. It implements [connect.ClientStream].
type stream struct {
	transport *Transport
	ctx       context.Context //nolint:containedctx // the stream's own, below the one given to NewClientStream
	cancel    context.CancelFunc
	spec      connect.Spec

	once    sync.Once
	inner   connect.ClientStream // set by once
	openErr error                // set by once

	place    resilience.Place // if admission is bounded
	chosen   *instance
	permit   permit
	exchange *exchange
	byHTTP   bool
	began    time.Time
	evidence error // that gRPC does not get through to chosen, until the other protocol has proved to
	ended    sync.Once
}

var _ connect.ClientStream = (*stream)(nil)

func newStream(ctx context.Context, transport *Transport, spec connect.Spec) *stream {
	s := &stream{transport: transport, spec: spec}
	s.ctx, s.cancel = context.WithCancel(ctx)
	return s
}

// SendHeaders opens the stream and sends its headers.
func (s *stream) SendHeaders() error {
	inner, err := s.open()
	if err != nil {
		return err
	}
	return s.sent(inner.SendHeaders())
}

// Send opens the stream if need be and sends a message.
func (s *stream) Send(message any) error {
	inner, err := s.open()
	if err != nil {
		return err
	}
	return s.sent(inner.Send(message))
}

// CloseSend opens the stream if need be and closes its sending side.
func (s *stream) CloseSend() error {
	inner, err := s.open()
	if err != nil {
		return err
	}
	return s.sent(inner.CloseSend())
}

// sent ends a server stream whose one request could not be sent: its caller gets the error and no stream that could be closed.
func (s *stream) sent(err error) error {
	if err != nil && s.spec.StreamType == connect.StreamTypeServer {
		if !s.byHTTP {
			s.heard(err)
		}
		err = s.explained(err)
		s.end(err)
		_ = s.inner.Close()
	}
	return err
}

// Receive opens the stream if need be and receives a message.
func (s *stream) Receive(message any) error {
	inner, err := s.open()
	if err != nil {
		return err
	}
	if err = inner.Receive(message); err != nil && s.ctx.Err() == nil { // else it may not have waited for what it is attributed by
		err = s.exchange.attributed(err)
	}
	s.heard(err)
	if err == nil && s.spec.StreamType != connect.StreamTypeClient {
		return nil
	}
	err = s.explained(err)
	s.end(err) // the answer to a client stream is its only one
	return err
}

// heard tells the instance what the end of a stream, or a message, shows of the protocol that it is spoken to by.
func (s *stream) heard(err error) {
	if s.transport.config.Protocol != ProtocolAuto {
		return
	}
	answered := err == nil || errors.Is(err, io.EOF) || isRemote(err)
	switch learned := s.chosen.fallback; {
	case s.evidence != nil && answered:
		learned.learn(s.evidence, s.began)
		s.evidence = nil
	case !s.byHTTP:
		if shown := s.exchange.takeEvidence(); shown != grpcclient.Blocked {
			learned.listen(shown, err, s.began)
		} else {
			learned.blocked(err, s.began) // the next stream may get through; this one's message is gone
		}
	case answered || s.ctx.Err() == nil:
		learned.tried(answered, err, s.began)
	}
}

// explained adds to an error what the wire cannot know of it.
func (s *stream) explained(err error) error {
	if err == nil || errors.Is(err, io.EOF) || isRemote(err) {
		return err
	}
	if s.transport.ctx.Err() != nil {
		err = cutOff(err)
	}
	spoken := ProtocolGRPC
	if s.byHTTP {
		spoken = ProtocolHTTP
	}
	return &CallError{Procedure: s.spec.Procedure, Target: s.transport.name, err: err, Attempts: []Attempt{{
		Instance: s.chosen.id, Addr: s.chosen.addr, Protocol: spoken, Verdict: resilience.MaybeProcessed.String(), Code: connect.CodeOf(err),
		Duration: time.Since(s.began), Err: err,
	}}}
}

// Close ends the stream and gives back what it holds. Whatever is under way on it returns.
func (s *stream) Close() error {
	s.cancel() // first: it unblocks opening, and receiving from a peer that does not answer
	s.once.Do(func() { s.openErr = contextError(context.Canceled) })
	if s.openErr != nil {
		return nil //nolint:nilerr // it never opened, so there is nothing that could fail to close
	}
	// The inner stream's Close would send a request that was not sent yet, so its connection is given back first.
	s.end(context.Canceled)
	if err := s.inner.Close(); err != nil && connect.CodeOf(err) != connect.CodeCanceled {
		return err
	}
	return nil
}

// open opens the stream once.
func (s *stream) open() (connect.ClientStream, error) {
	s.once.Do(func() {
		s.openErr = connect.NewError(connect.CodeInternal, "the stream was not opened") // what a panic below leaves
		if s.openErr = s.connect(); s.openErr != nil {
			s.cancel()
		}
	})
	return s.inner, s.openErr
}

// connect finds an instance that takes the stream, within the time-out of a call.
func (s *stream) connect() error {
	if !s.transport.begin() {
		return unavailable(ErrClosed)
	}
	opener := &call{transport: s.transport, ctx: s.ctx, spec: s.spec, policy: s.transport.policies.of(s.spec)}
	if timeout := opener.policy.timeout; timeout > 0 {
		bounded, cancel := context.WithTimeout(s.ctx, timeout)
		defer cancel()
		opener.ctx = bounded
	}
	opener.deadline, _ = opener.ctx.Deadline()
	if err := s.admit(opener); err != nil {
		s.transport.end()
		return opener.failed(err)
	}
	opened := false
	defer func() {
		if !opened { // also if something panicked
			s.leave()
		}
	}()
	if first := s.tryInstance(opener.ctx, opener); first != nil {
		if err := opener.repeat(first, func(ctx context.Context) *failure { return s.tryInstance(ctx, opener) }); err != nil {
			return opener.failed(err)
		}
	}
	opened = true
	// A caller may abandon a stream by its context alone.
	context.AfterFunc(s.ctx, func() { s.end(context.Canceled) })
	return nil
}

// tryInstance reserves a connection to one instance, of the other protocol if gRPC provably does not get through.
func (s *stream) tryInstance(ctx context.Context, opener *call) *failure {
	if err := ctx.Err(); err != nil {
		return &failure{err: contextError(err)}
	}
	chosen, permit, err := s.transport.pick(ctx, opener.deadline, s.transport.balanced(s.ctx), opener.tried)
	if err != nil {
		return &failure{err: err}
	}
	finished, result := false, outcomeNone // what a panic below is taken for
	defer func() {
		if !finished {
			chosen.finish(permit, result, 0, time.Now())
		}
	}()
	started := time.Now()
	until, whole := time.Time{}, opener.deadline // as an attempt of a unary call waits that must not be repeated, and for the same reasons
	if limit := opener.policy.attemptTimeout; limit > 0 && opener.othersLeft() {
		until = started.Add(limit)
		whole = hurried(limit, until, whole)
	}
	wire, conn, err := s.reserve(ctx, chosen, until, whole)
	if err != nil {
		var failed *failure
		failed, result = s.judge(ctx, opener, err)
		if (ctx.Err() != nil || errors.Is(err, errNoConnection)) && wire.pool.Busy() {
			result = outcomeNone // our own streams are in the way
		}
		opener.tried = append(opener.tried, chosen)
		opener.attempts = append(opener.attempts, Attempt{
			Instance: chosen.id, Addr: chosen.addr, Protocol: wire.protocol, Verdict: resilience.NotSent.String(),
			Code: connect.CodeOf(failed.err), Duration: time.Since(started), Err: failed.err,
		})
		return failed
	}
	s.chosen, s.permit = chosen, permit
	s.exchange, s.byHTTP, s.began = &exchange{Context: s.ctx, conn: conn}, wire.protocol == ProtocolHTTP, started
	if s.inner, err = wire.transport.NewClientStream(s.exchange, s.spec); err != nil {
		s.exchange.finish()
		return &failure{err: err}
	}
	finished = true // by the stream's end
	if permit == permitProbe {
		// A stream may last for days. A half-open breaker cannot wait for it, and has its answer: the instance takes connections.
		chosen.record(permit, outcomeSuccess)
		s.permit = permitNone
	}
	return nil
}

// reserve acquires a connection to an instance by gRPC, or by the other protocol where gRPC does not get through; see awaitConnection.
func (s *stream) reserve(ctx context.Context, chosen *instance, until, whole time.Time) (*wire, *pool.Conn, error) {
	wire := chosen.wireFor(s.transport.config.Protocol)
	s.evidence = nil
	if s.spec.StreamType == connect.StreamTypeBidi && s.transport.config.Protocol == ProtocolAuto && chosen.fallback.is(stateTrial) {
		wire = &chosen.grpc // it cannot find out whether the other protocol answers, so it must not end for that not being known
	}
	if wire == &chosen.grpc {
		conn, err := awaitConnection(ctx, wire.pool, until, whole)
		if !errors.Is(err, pool.ErrNotHTTP2) || s.transport.config.Protocol != ProtocolAuto {
			return wire, conn, err
		}
		s.evidence = err
		wire = &chosen.http
	}
	if s.spec.StreamType == connect.StreamTypeBidi {
		return wire, nil, errHTTP1Bidi
	}
	conn, err := awaitConnection(ctx, wire.pool, until, whole)
	return wire, conn, err
}

// errHTTP1Bidi is why a bidirectional stream cannot be opened to an instance to which gRPC does not get through.
var errHTTP1Bidi = errors.New("a bidirectional stream needs HTTP/2, and the instance is spoken to over HTTP/1.1")

// judge decides what it says of an instance that no connection to it could be had, and whether another may be tried.
func (s *stream) judge(ctx context.Context, opener *call, err error) (*failure, outcome) {
	ctxErr := ctx.Err()
	switch {
	case ctxErr != nil && !isDeadline(ctxErr):
		return &failure{err: contextError(ctxErr)}, outcomeNone
	case ctxErr != nil:
		return &failure{err: contextError(ctxErr)}, outcomeFailure
	case errors.Is(err, errHTTP1Bidi):
		others := opener.othersLeft() // which may speak gRPC
		failed := connect.NewError(connect.CodeUnimplemented, fmt.Sprintf("%s: %v", s.spec.Procedure, err)).WithCause(err)
		return &failure{err: failed, passing: others, retryable: others, resend: others}, outcomeNone
	default:
		return &failure{err: unavailable(err), passing: true, retryable: true, resend: opener.othersLeft()}, outcomeFailure
	}
}

// end gives back what the stream holds, once, when it ended by err; nil for success.
func (s *stream) end(err error) {
	s.ended.Do(func() {
		defer s.leave()
		result := outcomeSuccess
		switch {
		case err == nil || errors.Is(err, io.EOF) || isRemote(err):
		case s.ctx.Err() != nil || errors.Is(err, context.Canceled):
			result = outcomeNone
		case connect.CodeOf(err) == connect.CodeUnavailable, s.exchange.broken, s.exchange.response != nil && !s.exchange.answered:
			result = outcomeFailure
		}
		s.cancel()
		s.exchange.finish()
		s.chosen.finish(s.permit, result, 0, time.Now()) // how long a stream lasts says nothing of its instance
	})
}
