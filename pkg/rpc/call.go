package rpc

import (
	"context"
	"errors"
	"io"
	"time"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/proto"

	"github.com/0x1d/goplt/internal/pool"
	grpcclient "github.com/0x1d/goplt/internal/services/grpc/client"
)

// call is one unary call. It keeps the request message until an attempt succeeds, so that a retry, or the other protocol, sends the
// message again and never bytes. It implements [connect.ClientStream].
type call struct {
	transport *Transport
	ctx       context.Context //nolint:containedctx // the call's own, given to NewClientStream
	spec      connect.Spec
	policy    *methodPolicy
	request   any
	received  bool

	at       time.Time   // when it began, until its first exchange does, or waits for something; reading the clock costs
	deadline time.Time   // of the whole call; zero if it has none
	number   int         // of the attempts begun, but for one that was sent again at once
	refused  int         // how many of them the peer refused
	executed int         // how many of them the service may have seen
	tried    []*instance // where they failed
	attempts []Attempt   // what became of them; an attempt by both protocols appears twice
	resent   bool        // whether one was made at once because the one before was provably not executed
	apart    bool        // whether this is one attempt of several at a time, of a call that is hedged

	first exchange // of the call: most have no other, and so need no more memory
	begun bool     // whether it was used
}

var _ connect.ClientStream = (*call)(nil)

// SendHeaders does nothing: headers go with the message.
func (c *call) SendHeaders() error { return nil }

// Send keeps the message for the attempts.
func (c *call) Send(message any) error {
	if c.request != nil {
		return connect.NewError(connect.CodeInternal, "unary call sends more than one message")
	}
	c.request = message
	return nil
}

// CloseSend does nothing: the message was the last.
func (c *call) CloseSend() error { return nil }

// Close does nothing: Receive leaves nothing open.
func (c *call) Close() error { return nil }

// Receive makes the call and stores the response in dst.
func (c *call) Receive(dst any) error {
	if c.received {
		return io.EOF
	}
	c.received = true
	if c.request == nil {
		return connect.NewError(connect.CodeInternal, "unary call without a message")
	}
	if !c.transport.begin() {
		return c.failed(unavailable(ErrClosed))
	}
	defer c.transport.end()
	c.at = time.Now()
	if timeout := c.policy.timeout; timeout > 0 {
		c.deadline = c.at.Add(timeout)
	}
	if own, ok := c.ctx.Deadline(); ok && (c.deadline.IsZero() || own.Before(c.deadline)) {
		c.deadline = own
	}
	if c.transport.admission != nil {
		return c.admitted(dst)
	}
	return c.complete(dst)
}

// complete makes attempts until one succeeds or none may follow.
func (c *call) complete(dst any) error {
	first := c.try(c.ctx, dst)
	if first == nil {
		return nil
	}
	if err := c.repeat(first, func(ctx context.Context) *failure { return c.try(ctx, dst) }); err != nil {
		return c.failed(err)
	}
	return nil
}

// try makes an attempt, or several at a time if the method is hedged, and it is known after what time.
func (c *call) try(ctx context.Context, dst any) *failure {
	if answer, ok := dst.(proto.Message); ok && c.policy.hedge != nil {
		if delay, known := c.policy.hedge.delay(); known {
			return c.hedged(ctx, answer, delay)
		}
	}
	return c.attempt(ctx, dst)
}

// repeat goes on after a first attempt that failed, for as long as that is allowed, and returns nil or how the call ended.
//
// The first attempt that was provably not executed is followed by another at once, which is not counted: whatever the configuration says of retries,
// the service saw but one (transparent retry, gRFC A6).
func (c *call) repeat(first *failure, again func(context.Context) *failure) error {
	resend := func(ctx context.Context, failed *failure) *failure {
		if failed == nil || !failed.resend || c.resent {
			return failed
		}
		c.resent = true
		c.number--
		return again(ctx)
	}
	if first = resend(c.ctx, first); first == nil {
		return nil
	}
	if !first.retryable {
		return first
	}
	ctx, cancel := c.bounded()
	defer cancel()
	err := c.transport.retrier.After(ctx, first, func() error {
		if failed := resend(ctx, again(ctx)); failed != nil {
			return failed
		}
		return nil
	})
	last, failed := err.(*failure) //nolint:errorlint // attempts return failures unwrapped
	switch {
	case failed && c.transport.ctx.Err() != nil && c.ctx.Err() == nil && !isRemote(last.err) && !errors.Is(last.err, ErrClosed):
		return cutOff(last.err)
	case failed && c.transport.ctx.Err() != nil && last.retryable:
		return cutOff(last.err)
	case failed && last.retryable && ctx.Err() != nil:
		// The time ran out, or the caller gave up, while a retry was waited for. That is how the call ended.
		return contextError(ctx.Err())
	}
	return err
}

// bounded returns a context that ends with the call's time, and when the transport is closed and its calls are cut off.
func (c *call) bounded() (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(c.ctx)
	if !c.deadline.IsZero() {
		cancel()
		ctx, cancel = context.WithDeadline(c.ctx, c.deadline)
	}
	detach := context.AfterFunc(c.transport.ctx, cancel)
	return ctx, func() {
		detach()
		cancel()
	}
}

// failed explains an error by the attempts that led to it.
func (c *call) failed(err error) error {
	if failure, ok := err.(*failure); ok { //nolint:errorlint // attempts return failures unwrapped
		err = failure.err
	}
	return &CallError{Procedure: c.spec.Procedure, Target: c.transport.name, Attempts: c.attempts, err: err}
}

// attempt tries one instance, by both protocols if it has to, and returns nil if it answered with success.
func (c *call) attempt(ctx context.Context, dst any) *failure {
	chosen, permit, failed := c.begin(ctx)
	if failed != nil {
		return failed
	}
	end := c.ask(ctx, chosen, permit, dst)
	if len(c.attempts) > 0 {
		c.adoptInfo(end.info)
	}
	if end.failed == nil {
		c.transport.budget.Succeeded()
	}
	return end.failed
}

// begin picks an instance for the next attempt.
func (c *call) begin(ctx context.Context) (chosen *instance, permit permit, failed *failure) {
	if err := ctx.Err(); err != nil {
		return nil, permitNone, &failure{err: contextError(err)}
	}
	if len(c.transport.view.Load().instances) == 0 {
		c.at = time.Time{} // there will be some to wait for
	}
	balanced := c.transport.balanced(c.ctx)
	balanced.Now = c.at
	chosen, permit, err := c.transport.pick(ctx, c.deadline, balanced, c.tried)
	if err != nil {
		return nil, permitNone, &failure{err: err}
	}
	c.number++
	return chosen, permit, nil
}

// ask makes an attempt at an instance that was picked for it, by both protocols if it has to.
func (c *call) ask(ctx context.Context, chosen *instance, permit permit, dst any) ending {
	var end ending // what a panic below is taken for: it says nothing of the instance
	defer func() {
		if end.ended.IsZero() {
			end.ended = time.Now()
		}
		chosen.finish(permit, end.outcome, end.latency, end.ended)
	}()
	end = c.exchange(ctx, chosen, chosen.wireFor(c.transport.config.Protocol), dst)
	began := end.began
	if c.transport.config.Protocol == ProtocolAuto {
		end = c.fallBack(ctx, chosen, end, dst)
	}
	if c.policy.hedge != nil {
		c.policy.hedge.learn(time.Since(began), &end)
	}
	if end.failed != nil {
		c.tried = append(c.tried, chosen)
	}
	return end
}

// fallBack tells the instance what an exchange showed of whether gRPC gets through. The same attempt then goes on by the other protocol, if this very
// exchange showed that gRPC does not: before it was executed, or where executing it again is safe. What another call has found out about the
// instance is no reason to send this one again.
func (c *call) fallBack(ctx context.Context, chosen *instance, end ending, dst any) ending {
	switch {
	case end.by == ProtocolHTTP:
		if end.spoken() || end.outcome != outcomeNone {
			chosen.fallback.tried(end.spoken(), end.error(), end.began)
		}
		return end
	case end.shown == grpcclient.Blocked:
		replayed := c.exchange(ctx, chosen, &chosen.http, dst)
		if replayed.spoken() {
			chosen.fallback.learn(end.failed.err, end.began)
		}
		return replayed
	case end.shown != grpcclient.Doubtful:
		chosen.fallback.listen(end.shown, nil, end.began)
		return end
	}
	chosen.fallback.doubt(end.failed.err, end.began)
	if !end.failed.retryable || end.failed.delay > 0 || ctx.Err() != nil {
		return end
	}
	replayed := c.exchange(ctx, chosen, &chosen.http, dst)
	switch {
	case replayed.spoken():
		chosen.fallback.tried(true, nil, replayed.began)
		return replayed
	case !replayed.unexecuted && !c.policy.idempotent:
		return replayed // whatever the first showed, this is what must not be made again
	}
	end.failed.resend = end.failed.resend && replayed.unexecuted
	return end // says more of what is wrong
}

// ending is how an exchange ended.
type ending struct {
	by      Protocol
	failed  *failure            // nil if it succeeded
	outcome outcome             // what it says of the instance
	began   time.Time           // before there was a connection
	ended   time.Time           // zero if there was no connection
	latency time.Duration       // from when there was one until then; 0 if there was none
	shown   grpcclient.Evidence // of whether gRPC gets through
	// unexecuted says that it failed and was provably not executed.
	unexecuted bool
	info       context.Context //nolint:containedctx // holds the response metadata
}

// spoken reports whether the service itself answered in the protocol, be it with an error.
func (e *ending) spoken() bool { return e.failed == nil || isRemote(e.failed.err) }

// error is why the exchange failed; nil if it did not.
func (e *ending) error() error {
	if e.failed == nil {
		return nil
	}
	return e.failed.err
}

// exchange speaks one protocol to one instance once.
func (c *call) exchange(parent context.Context, chosen *instance, wire *wire, dst any) ending {
	started := c.takeTime()
	e := c.newExchange()
	c.bound(parent, e, started)
	defer e.release(&c.transport.alarms)
	err := c.run(e, wire, started, dst)
	end := ending{by: wire.protocol, began: started, shown: e.shown(), info: e}
	if !e.began.IsZero() {
		end.latency = max(time.Since(e.began), 1)
		end.ended = e.began.Add(end.latency)
	}
	if err == nil {
		end.outcome = outcomeSuccess
		return end
	}
	if errors.Is(err, pool.ErrNotHTTP2) {
		end.shown = grpcclient.Blocked
	}
	verdict := c.verdict(e, wire)
	if end.unexecuted = verdict.Unexecuted(); !end.unexecuted {
		c.executed++
	}
	end.failed, end.outcome = c.judge(parent, e, verdict, err)
	c.attempts = append(c.attempts, Attempt{
		Instance: chosen.id, Addr: chosen.addr, Protocol: wire.protocol, Verdict: verdict.String(), Code: connect.CodeOf(end.failed.err),
		Duration: time.Since(started), Err: end.failed.err, unexecuted: end.unexecuted,
	})
	return end
}

// takeTime returns the time, by the clock unless it was looked at just before.
func (c *call) takeTime() time.Time {
	at := c.at
	c.at = time.Time{}
	if at.IsZero() {
		return time.Now()
	}
	return at
}

// newExchange returns an exchange that nothing is known of.
func (c *call) newExchange() *exchange {
	if c.begun {
		return &exchange{unary: true}
	}
	c.begun = true
	c.first.unary = true
	return &c.first
}

// bound has an exchange end by the call's deadline, and by the attempt time-out if another attempt may follow. An attempt that must not be repeated
// has all the time there is once there is a connection; until then it may go elsewhere as any other, if there is an elsewhere.
func (c *call) bound(parent context.Context, e *exchange, now time.Time) {
	deadline := c.deadline
	e.bounds.whole = deadline
	if limit := c.policy.attemptTimeout; limit > 0 {
		switch own := now.Add(limit); {
		case !deadline.IsZero() && !own.Before(deadline):
		case c.policy.idempotent && c.number < c.transport.retrier.MaxAttempts():
			e.bounds.whole = hurried(limit, own, deadline)
			deadline, e.limit = own, own
		case c.othersLeft():
			e.bounds.connectBy = own
			e.bounds.whole = hurried(limit, own, deadline)
		}
	}
	e.Context = parent
	if c.apart || len(c.attempts) > 0 {
		e.Context = c.freshInfo(parent)
	}
	if current, ok := parent.Deadline(); !deadline.IsZero() && (!ok || deadline.Before(current)) {
		e.endBy(deadline, now)
	}
}

// run acquires a connection and makes the exchange.
func (c *call) run(e *exchange, wire *wire, started time.Time, dst any) error {
	if err := e.acquire(wire, &c.transport.alarms, started); err != nil {
		if ctxErr := e.Err(); ctxErr != nil {
			return contextError(ctxErr)
		}
		return unavailable(err)
	}
	defer e.finish()
	stream, err := wire.transport.NewClientStream(e, c.spec)
	if err != nil {
		return err
	}
	defer func() {
		e.finish() // before Close, which would send a request without a message if there is none yet: the message cannot be sent, or panics
		_ = stream.Close()
	}()
	if err := stream.Send(c.request); err != nil {
		return err
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	return e.attributed(stream.Receive(dst))
}
