package rpc

import (
	"context"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/0x1d/goplt/internal/resilience"
)

// hedge is how the calls of one method are hedged.
type hedge struct {
	least     time.Duration         // before the next attempt is made beside the one before
	latencies *resilience.Latencies // nil if that is the delay
	most      int                   // of the hedges of an attempt
}

func newHedge(config HedgeConfig) *hedge {
	h := &hedge{least: config.Delay, most: max(1, config.MaxHedges)}
	if config.Quantile > 0 {
		h.latencies = resilience.NewLatencies(config.Quantile)
	}
	return h
}

// delay returns after what time without an answer to hedge; ok is false as long as too little is known.
func (h *hedge) delay() (delay time.Duration, ok bool) {
	if h.latencies == nil {
		return h.least, true
	}
	delay, ok = h.latencies.Quantile()
	return max(delay, h.least), ok
}

// hedged makes an attempt and, as long as none has been answered, others beside it, each at another instance and a delay after the one before. The
// first answer is that of all, and has the others cancelled; what only another attempt may mend is none. It returns when all have ended: they read
// the caller's message, and the first writes to its answer.
func (c *call) hedged(ctx context.Context, dst proto.Message) *failure {
	if err := ctx.Err(); err != nil {
		return &failure{err: contextError(err)}
	}
	chosen, permit, err := c.transport.pick(ctx, c.deadline, c.transport.balanced(c.ctx), c.tried)
	if err != nil {
		return &failure{err: err}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r := &race{call: c, ctx: ctx, ended: make(chan *runner, 1+c.policy.hedge.most)}
	r.start(chosen, permit, dst)
	r.wait(cancel)
	return r.finish(dst)
}

// race is the attempts of a hedged call that are under way at a time. It belongs to the goroutine of the call.
type race struct {
	call    *call
	ctx     context.Context //nolint:containedctx // of the attempts, below the call's own
	runners []*runner       // in the order of their start
	running int
	ended   chan *runner
	winner  *runner // the first that was answered
	last    *runner // the latest that ended
}

// runner is one attempt. What is in it belongs to its goroutine until it has ended.
type runner struct {
	call     call // a copy, of which the attempts and counts are its own
	chosen   *instance
	dst      proto.Message
	end      ending
	panicked any
}

// start makes an attempt.
func (r *race) start(chosen *instance, permit permit, dst proto.Message) {
	c := r.call
	c.number++
	runner := &runner{chosen: chosen, dst: dst, call: call{
		transport: c.transport, ctx: c.ctx, spec: c.spec, policy: c.policy, request: c.request, deadline: c.deadline,
		number: c.number, refused: c.refused, executed: c.executed + r.running, apart: true,
	}}
	r.runners = append(r.runners, runner)
	r.running++
	go func() {
		defer func() {
			runner.panicked = recover()
			r.ended <- runner
		}()
		began := time.Now()
		runner.end = runner.call.ask(r.ctx, chosen, permit, dst)
		c.policy.hedge.learn(time.Since(began), &runner.end)
	}()
}

// learn takes in how long an attempt took. One that was not answered would have taken longer still, which tells something if that is long.
func (h *hedge) learn(took time.Duration, end *ending) {
	if h.latencies == nil {
		return
	}
	if delay, ok := h.delay(); end.spoken() || ok && took >= delay {
		h.latencies.Add(took)
	}
}

// wait hedges until all attempts have ended.
func (r *race) wait(cancel context.CancelFunc) {
	var due <-chan time.Time
	delay, ok := r.call.policy.hedge.delay()
	if ok {
		timer := time.NewTicker(max(1, delay))
		defer timer.Stop()
		due = timer.C
	}
	for r.running > 0 {
		select {
		case r.last = <-r.ended:
			r.running--
			if r.winner == nil && r.last.settles() {
				r.winner, due = r.last, nil
				cancel()
			}
		case <-due:
			if !r.hedge() {
				due = nil
			}
		}
	}
}

// settles reports whether no other attempt is to be waited for.
func (r *runner) settles() bool {
	return r.panicked != nil || r.end.failed == nil || !r.end.failed.passing
}

// hedge makes another attempt, if there is an instance for it and the budget has a token, and reports whether there may be more.
func (r *race) hedge() bool {
	c := r.call
	if len(r.runners) > c.policy.hedge.most || c.number >= c.transport.retrier.MaxAttempts() {
		return false
	}
	tried := slices.Clone(c.tried)
	for _, runner := range r.runners {
		tried = append(tried, runner.chosen)
	}
	chosen, permit, ok := c.transport.another(c.transport.balanced(c.ctx), tried)
	if !ok {
		return true // there may be one next time
	}
	if !c.transport.budget.Spend() {
		chosen.leave(permit)
		return true
	}
	r.start(chosen, permit, newLike(r.runners[0].dst))
	return true
}

// finish returns how the race ended, after all that it brought has become the call's.
func (r *race) finish(dst proto.Message) *failure {
	c := r.call
	counts := r.winner
	if counts == nil {
		counts = r.last // has failed, as all have
	}
	for _, runner := range r.runners {
		if runner.panicked != nil {
			panic(runner.panicked)
		}
		for at := range runner.call.attempts {
			runner.call.attempts[at].Hedge = runner != r.runners[0]
		}
		if runner != counts {
			c.take(&runner.call)
		}
	}
	c.take(&counts.call)
	c.adoptInfo(counts.end.info)
	failed := counts.end.failed
	switch {
	case failed == nil:
		if counts.dst != dst {
			move(dst, counts.dst)
		}
		c.transport.budget.Succeeded()
	case c.number >= c.transport.retrier.MaxAttempts():
		failed.retryable = false
	}
	return failed
}

// take adds what came of one attempt to the call.
func (c *call) take(part *call) {
	c.attempts = append(c.attempts, part.attempts...)
	c.tried = append(c.tried, part.tried...)
	c.refused = max(c.refused, part.refused)
	for _, attempt := range part.attempts {
		if !attempt.unexecuted {
			c.executed++
		}
	}
}

// newLike returns an empty message of the type of an answer.
func newLike(answer proto.Message) proto.Message { return answer.ProtoReflect().New().Interface() }

// move gives one message the content of another, which is not used after that.
func move(to, from proto.Message) {
	proto.Reset(to)
	target, source := to.ProtoReflect(), from.ProtoReflect()
	source.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		target.Set(field, value)
		return true
	})
	target.SetUnknown(source.GetUnknown())
}
