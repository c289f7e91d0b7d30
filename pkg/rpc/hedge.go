package rpc

import (
	"context"
	"runtime"
	"slices"
	"sync"
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
func (c *call) hedged(ctx context.Context, dst proto.Message, delay time.Duration) *failure {
	answer := dst.ProtoReflect().Type() // which may panic, before there is anything to give back
	chosen, permit, failed := c.begin(ctx)
	if failed != nil {
		return failed
	}
	r := &race{
		call: c, number: c.number, executed: c.executed, refused: c.refused, tried: append(slices.Clip(c.tried), chosen), answer: answer,
		delay: delay, running: 1, seen: 1, ended: make(chan *runner, 1+c.policy.hedge.most),
		first: runner{call: c, earlier: len(c.attempts), dst: dst},
	}
	r.ctx, r.cancel = context.WithCancel(ctx)
	defer r.cancel()
	r.lead(chosen, permit)
	return r.finish(dst)
}

// race is the attempts of a hedged call that are under way at a time. While the first is alone, as it mostly is until its end, it belongs to the
// goroutine of the call, which makes it; from the first hedge on to the goroutine that hedges.
type race struct {
	call     *call // of the first attempt: to all others, only what does not change
	number   int   // of the attempts begun
	executed int   // how many attempts the service may have seen before these
	refused  int   // how many the peer refused before these
	tried    []*instance
	ctx      context.Context //nolint:containedctx // of the attempts, below the call's own
	cancel   context.CancelFunc
	answer   protoreflect.MessageType
	delay    time.Duration
	running  int
	seen     int // how many of them the service may have seen
	first    runner
	hedges   []*runner // in the order of their start
	ended    chan *runner
	hedging  sync.WaitGroup
	panicked any     // with what hedging ended
	winner   *runner // the first that was answered
	last     *runner // the latest that ended
}

// runner is one attempt. What is in it belongs to its goroutine until it has ended.
type runner struct {
	call     *call // if it is a hedge, a copy, of which the attempts and counts are its own
	earlier  int   // how many attempts there were before it, in its call
	known    int   // how many instances were tried, or are being tried, besides its own
	dst      proto.Message
	end      ending
	returned bool // whether the attempt came to its end, and did not panic or exit
	panicked any
}

// lead makes the first attempt, and returns when all have ended.
func (r *race) lead(chosen *instance, permit permit) {
	r.hedging.Add(1)
	delay := time.AfterFunc(r.delay, r.hedge)
	defer func() { // also if the attempt panics, or exits
		if delay.Stop() {
			r.take(&r.first)
			return
		}
		r.ended <- &r.first
		r.hedging.Wait()
	}()
	r.first.end = r.call.ask(r.ctx, chosen, permit, r.first.dst)
	r.first.returned = true
}

// start makes a hedge, whose answer is stored in dst.
func (r *race) start(chosen *instance, permit permit, dst proto.Message) {
	c := r.call
	r.number++
	hedge := &runner{known: len(r.tried), dst: dst, call: &call{
		transport: c.transport, ctx: c.ctx, spec: c.spec, policy: c.policy, request: c.request, deadline: c.deadline,
		number: r.number, refused: r.refused, executed: r.executed + r.seen, tried: slices.Clip(r.tried), apart: true,
	}}
	r.hedges = append(r.hedges, hedge)
	r.tried = append(r.tried, chosen)
	r.running++
	r.seen++
	go func() {
		defer func() {
			hedge.panicked = recover()
			r.ended <- hedge
		}()
		hedge.end = hedge.call.ask(r.ctx, chosen, permit, hedge.dst)
		hedge.returned = true
	}()
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

// hedge makes hedges, of which the first is due, until all attempts have ended. After one that failed where another may do better, the next is due at
// once, or when the server wants it, if at all (gRFC A6).
func (r *race) hedge() {
	defer r.hedging.Done()
	defer func() {
		r.panicked = recover()
		r.drain()
	}()
	timer := time.NewTimer(0)
	defer timer.Stop()
	due := timer.C
	for r.running > 0 {
		select {
		case ended := <-r.ended:
			r.take(ended)
			switch {
			case r.winner != nil, ended.end.failed.never:
				due = nil
			case due != nil && ended.end.failed.passing:
				timer.Reset(ended.end.failed.delay)
			}
		case <-due:
			if len(r.ended) > 0 { // which may have made it needless
				timer.Reset(0)
				continue
			}
			if !r.another() {
				due = nil
				continue
			}
			timer.Reset(r.delay)
		}
	}
}

// take notes that an attempt has ended.
func (r *race) take(ended *runner) {
	r.last = ended
	r.running--
	if ended.unexecuted() {
		r.seen--
	}
	if r.winner == nil && ended.settles() {
		r.winner = ended
		r.cancel()
	}
}

// settles reports whether no other attempt is to be waited for: what something else says in the service's place is no reason to give up one that
// may be answered.
func (r *runner) settles() bool {
	return !r.returned || r.end.spoken() && (r.end.failed == nil || !r.end.failed.passing)
}

// unexecuted reports whether the service has not seen an attempt that has ended.
func (r *runner) unexecuted() bool {
	return r.returned && r.end.failed != nil && !slices.ContainsFunc(r.call.attempts[r.earlier:], func(a Attempt) bool { return !a.unexecuted })
}

// another makes a hedge, if there may be one, an instance is there for it and the budget has a token, and reports whether it has.
func (r *race) another() bool {
	c := r.call
	if r.ctx.Err() != nil || len(r.hedges) >= c.policy.hedge.most || r.number >= c.transport.retrier.MaxAttempts() {
		return false
	}
	dst := r.answer.New().Interface() // which may panic, as above
	chosen, permit, ok := c.transport.another(c.transport.balanced(c.ctx), r.tried)
	if !ok {
		return false
	}
	if !c.transport.budget.Spend() {
		chosen.leave(permit)
		return false
	}
	r.start(chosen, permit, dst)
	return true
}

// drain ends the attempts, if they are not to be waited for as usual, because of a panic.
func (r *race) drain() {
	r.cancel()
	for ; r.running > 0; r.running-- {
		<-r.ended
	}
}

// finish returns how the race ended, after all that it brought has become the call's.
func (r *race) finish(dst proto.Message) *failure {
	c := r.call
	if r.panicked != nil {
		panic(r.panicked)
	}
	for _, hedge := range r.hedges {
		switch {
		case hedge.panicked != nil:
			panic(hedge.panicked)
		case !hedge.returned:
			runtime.Goexit() // as the attempt did
		}
		for at := range hedge.call.attempts {
			hedge.call.attempts[at].Hedge = true
		}
		c.join(hedge.call, hedge.known)
	}
	c.number = r.number
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
	for _, runner := range append(r.hedges, &r.first) {
		failed := runner.end.failed
		all.retryable = all.retryable || failed.retryable
		all.resend = all.resend || failed.resend
		all.never = all.never || failed.never
		all.delay = max(all.delay, failed.delay)
	}
	all.resend = all.resend && all.delay == 0 && !all.never
	all.retryable = all.retryable && !all.never && r.call.canAwait(all.delay) &&
		(all.resend && !r.call.resent || r.number < r.call.transport.retrier.MaxAttempts())
	return &all
}

// join adds what came of a hedge to the call. known is how many instances were tried before it.
func (c *call) join(hedge *call, known int) {
	c.attempts = append(c.attempts, hedge.attempts...)
	c.tried = append(c.tried, hedge.tried[known:]...)
	c.refused = max(c.refused, hedge.refused)
	for _, attempt := range hedge.attempts {
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
