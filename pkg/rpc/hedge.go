package rpc

import (
	"context"
	"runtime"
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
	r := &race{call: c, ctx: ctx, cancel: cancel, answer: dst.ProtoReflect().Type(), ended: make(chan *runner, 1+c.policy.hedge.most)}
	defer r.drain()
	r.start(chosen, permit, dst)
	r.wait()
	return r.finish(dst)
}

// race is the attempts of a hedged call that are under way at a time. It belongs to the goroutine of the call.
type race struct {
	call    *call
	ctx     context.Context //nolint:containedctx // of the attempts, below the call's own
	cancel  context.CancelFunc
	answer  protoreflect.MessageType
	runners []*runner // in the order of their start
	running int
	seen    int // how many of them the service may have seen
	ended   chan *runner
	winner  *runner // the first that was answered
	last    *runner // the latest that ended
}

// runner is one attempt. What is in it belongs to its goroutine until it has ended.
type runner struct {
	call     call // a copy, of which the attempts and counts are its own
	earlier  int  // how many instances were tried, or are being tried, besides its own
	chosen   *instance
	dst      proto.Message
	end      ending
	returned bool // whether the attempt came to its end, and did not panic or exit
	panicked any
}

// start makes an attempt.
func (r *race) start(chosen *instance, permit permit, dst proto.Message) {
	c, tried := r.call, r.tried()
	c.number++
	runner := &runner{chosen: chosen, dst: dst, earlier: len(tried), call: call{
		transport: c.transport, ctx: c.ctx, spec: c.spec, policy: c.policy, request: c.request, deadline: c.deadline,
		number: c.number, refused: c.refused, executed: c.executed + r.seen, tried: tried, apart: true,
	}}
	r.runners = append(r.runners, runner)
	r.running++
	r.seen++
	go func() {
		defer func() {
			runner.panicked = recover()
			r.ended <- runner
		}()
		began := time.Now()
		runner.end = runner.call.ask(r.ctx, chosen, permit, dst)
		c.policy.hedge.learn(time.Since(began), &runner.end)
		runner.returned = true
	}()
}

// tried returns the instances that another attempt is not to go to.
func (r *race) tried() []*instance {
	tried := slices.Clone(r.call.tried)
	for _, runner := range r.runners {
		tried = append(tried, runner.chosen)
	}
	return tried
}

// learn takes in how long an attempt took. One that was not answered would have taken longer still, which tells something if that is long. How soon
// an instance refuses to serve tells nothing.
func (h *hedge) learn(took time.Duration, end *ending) {
	if h.latencies == nil || end.outcome == outcomeBusy {
		return
	}
	if delay, ok := h.delay(); end.spoken() || ok && took >= delay {
		h.latencies.Add(took)
	}
}

// wait hedges until all attempts have ended. After one that failed where another may do better, the next hedge is due at once, or when the server
// wants it, if at all (gRFC A6).
func (r *race) wait() {
	var due <-chan time.Time
	delay, ok := r.call.policy.hedge.delay()
	timer := time.NewTimer(delay)
	defer timer.Stop()
	if ok {
		due = timer.C
	}
	for r.running > 0 {
		select {
		case r.last = <-r.ended:
			r.running--
			if r.last.unexecuted() {
				r.seen--
			}
			switch {
			case r.winner != nil:
			case r.last.settles():
				r.winner, due = r.last, nil
				r.cancel()
			case r.last.end.failed.never:
				due = nil
			case due != nil:
				timer.Reset(r.last.end.failed.delay)
			}
		case <-due:
			if !r.hedge() {
				due = nil
				continue
			}
			timer.Reset(delay)
		}
	}
}

// settles reports whether no other attempt is to be waited for.
func (r *runner) settles() bool {
	return !r.returned || r.end.failed == nil || !r.end.failed.passing
}

// unexecuted reports whether the service has not seen an attempt that has ended.
func (r *runner) unexecuted() bool {
	return r.returned && r.end.failed != nil && !slices.ContainsFunc(r.call.attempts, func(a Attempt) bool { return !a.unexecuted })
}

// hedge makes another attempt, if there may be one, an instance is there for it and the budget has a token, and reports whether it has.
func (r *race) hedge() bool {
	c := r.call
	if r.running == 0 || r.ctx.Err() != nil || len(r.runners) > c.policy.hedge.most || c.number >= c.transport.retrier.MaxAttempts() {
		return false
	}
	chosen, permit, ok := c.transport.another(c.transport.balanced(c.ctx), r.tried())
	if !ok {
		return false
	}
	if !c.transport.budget.Spend() {
		chosen.leave(permit)
		return false
	}
	r.start(chosen, permit, r.answer.New().Interface())
	return true
}

// drain ends the attempts, if the goroutine of the call is not to wait for their answer, as it panics.
func (r *race) drain() {
	r.cancel()
	for ; r.running > 0; r.running-- {
		<-r.ended
	}
}

// finish returns how the race ended, after all that it brought has become the call's.
func (r *race) finish(dst proto.Message) *failure {
	c := r.call
	for _, runner := range r.runners {
		switch {
		case runner.panicked != nil:
			panic(runner.panicked)
		case !runner.returned:
			runtime.Goexit() // as the attempt did
		}
		for at := range runner.call.attempts {
			runner.call.attempts[at].Hedge = runner != r.runners[0]
		}
		c.take(&runner.call, runner.earlier)
	}
	if r.winner == nil {
		c.adoptInfo(r.last.end.info)
		return r.failure()
	}
	c.adoptInfo(r.winner.end.info)
	if r.winner.end.failed == nil {
		if r.winner.dst != dst {
			move(dst, r.winner.dst)
		}
		c.transport.budget.Succeeded()
	}
	return r.winner.end.failed
}

// failure returns that of a race in which no attempt was answered for good: the latest, with what all of them say of another attempt.
func (r *race) failure() *failure {
	all := *r.last.end.failed
	for _, runner := range r.runners {
		failed := runner.end.failed
		all.retryable = all.retryable || failed.retryable
		all.resend = all.resend || failed.resend
		all.never = all.never || failed.never
		all.delay = max(all.delay, failed.delay)
	}
	all.resend = all.resend && all.delay == 0 && !all.never
	all.retryable = all.retryable && !all.never && (all.resend || r.call.number < r.call.transport.retrier.MaxAttempts())
	return &all
}

// take adds what came of one attempt to the call. earlier is how many instances it knew to be tried when it began.
func (c *call) take(part *call, earlier int) {
	c.attempts = append(c.attempts, part.attempts...)
	c.tried = append(c.tried, part.tried[earlier:]...)
	c.refused = max(c.refused, part.refused)
	for _, attempt := range part.attempts {
		if !attempt.unexecuted {
			c.executed++
		}
	}
}

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
