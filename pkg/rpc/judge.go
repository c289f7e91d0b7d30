package rpc

import (
	"context"
	"time"

	"connectrpc.com/connect/v2"

	"github.com/0x1d/goplt/internal/resilience"
	grpcclient "github.com/0x1d/goplt/internal/services/grpc/client"
)

// failure is a failed attempt.
type failure struct {
	err       error
	passing   bool // whether another attempt may do better, be it allowed or not
	never     bool // whether the server wants no other
	retryable bool // whether another may follow
	resend    bool // whether the one that follows may do so at once: this one provably was not executed
	delay     time.Duration
}

var _ resilience.Failure = (*failure)(nil)

func (f *failure) Error() string        { return f.err.Error() }
func (f *failure) Unwrap() error        { return f.err }
func (f *failure) Retryable() bool      { return f.retryable }
func (f *failure) Delay() time.Duration { return f.delay }

// verdict says whether the exchange was executed.
func (c *call) verdict(e *exchange, wire *wire) resilience.Verdict {
	if e.shown() == grpcclient.Blocked && (c.transport.config.Protocol == ProtocolAuto || c.othersLeft()) {
		return resilience.Refused // for its form, by something that never looked at the message; there is another to turn to
	}
	sent := e.sent()
	if sent && e.response == nil && wire.protocol == ProtocolHTTP {
		// The connection was this exchange's alone, so its bytes tell more than the body's having been read into a buffer.
		sent = e.conn.Abandon() > e.written
	}
	if e.response != nil {
		// Whoever answered may have seen the message.
		return resilience.Classify(resilience.Evidence{Sent: true, Answered: e.answered})
	}
	disowned := e.conn != nil && e.conn.Disowned()
	return resilience.Classify(resilience.Evidence{Sent: sent, Disowned: disowned, Err: e.err})
}

// judge decides what a failed exchange says of the instance, and whether another attempt may follow.
func (c *call) judge(parent context.Context, e *exchange, verdict resilience.Verdict, err error) (*failure, outcome) {
	failed := &failure{err: err}
	switch {
	case parent.Err() != nil && !isDeadline(parent.Err()):
		return failed, outcomeNone // the caller gave up
	case c.transport.ctx.Err() != nil && !isRemote(err):
		failed.err = cutOff(err)
		return failed, outcomeNone
	case !c.deadline.IsZero() && !time.Now().Before(c.deadline):
		if e.response != nil && e.answered || e.crowded {
			return failed, outcomeNone
		}
		return failed, outcomeFailure // silence up to the very end
	case e.unused:
		return failed, outcomeNone // the message could not be written: no instance would take it
	case verdict == resilience.NotSent && e.unsendable():
		failed.err = connect.NewError(connect.CodeInternal, "request cannot be sent: "+e.err.Error()).WithCause(e.err)
		return failed, outcomeNone
	}
	timedOut := e.timedOut(err)
	result := outcomeFailure
	doubtful := e.shown() == grpcclient.Doubtful
	if e.response != nil && e.answered && !e.broken && !timedOut && !doubtful {
		result = outcomeSuccess // an error of the service's own is an answer
		if refusesToServe(err) {
			result = outcomeBusy
		}
	}
	if e.crowded || verdict.Unexecuted() && e.response == nil && !isReset(e.err) && e.conn != nil && e.conn.SaidGoodbye() {
		result = outcomeNone // neither our own calls being in the way nor what crosses a goodbye to the connection says anything of the instance
	}
	if c.mayResend(verdict) {
		// Adds nothing to any instance's load, so the budget has no say.
		failed.passing, failed.retryable = true, true
		failed.resend = !e.began.IsZero() || c.othersLeft() // else the same connection would be refused again
		return failed, result
	}
	pushed := pushbackOf(e, err)
	replayable := doubtful && (c.transport.config.Protocol == ProtocolAuto || c.othersLeft()) // by the other protocol, or by another instance
	lost := timedOut || verdict == resilience.Refused || verdict == resilience.MaybeProcessed && e.response == nil
	if !c.policy.idempotent || !replayable && !e.broken && !retryableCode(err, pushed.asked, lost) {
		return failed, result
	}
	failed.passing, failed.never, failed.delay = true, pushed.never, pushed.delay
	allowed := c.transport.budget.Failed() // also of what is not to be retried (gRFC A6)
	failed.retryable = allowed && !pushed.never && c.canAwait(pushed.delay)
	return failed, result
}

// canAwait reports whether there would be time left for another attempt after a delay.
func (c *call) canAwait(delay time.Duration) bool { return delay <= 0 || delay < c.patience() }

// patience is how long the call may wait for another attempt: less than what is left of its time, and if that has no end, a minute. No server is to
// hold a caller for longer.
func (c *call) patience() time.Duration {
	if c.deadline.IsZero() {
		return time.Minute
	}
	return time.Until(c.deadline)
}

// othersLeft reports whether there are instances that were not tried, besides the one that an attempt is under way at.
func (c *call) othersLeft() bool { return len(c.transport.view.Load().instances) > len(c.tried)+1 }

// refusesToServe reports whether the service's own error says that it cannot serve now.
func refusesToServe(err error) bool {
	code := connect.CodeOf(err)
	return code == connect.CodeUnavailable || code == connect.CodeResourceExhausted
}

// mayResend reports whether an attempt may be repeated whatever the method, because it was not executed. Of what a peer refuses, only the first time:
// it may do so again and again.
func (c *call) mayResend(verdict resilience.Verdict) bool {
	if verdict == resilience.Refused {
		c.refused++
		return c.refused == 1
	}
	return verdict == resilience.NotSent
}

// retryableCode says which failures of an idempotent call are worth another attempt: the instance is unavailable, says itself when to come back, or
// was lost: it broke off, refused the attempt again, or kept silent for its time.
func retryableCode(err error, pushed, lost bool) bool {
	switch connect.CodeOf(err) {
	case connect.CodeUnavailable:
		return true
	case connect.CodeResourceExhausted:
		return pushed
	default:
		return lost
	}
}
