package consul

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/0x1d/goplt/pkg/registry"
)

// requestPatience is what a request of a keeper that is to end may still take: one that was cut off could take effect after those that follow, but
// who deregisters has no more time than this to lose on an agent that hangs.
const requestPatience = time.Second

// keeper keeps one instance registered: it sends the signs of life of a TTL check, registers the instance again when the agent forgot it, as one
// does that restarts without its data, and makes the changes that its process asks for.
type keeper struct {
	agent    *agent
	id       string // at the agent
	check    CheckConfig
	interval time.Duration // at most between two signs of life, or two looks at the agent
	logger   *slog.Logger
	hurry    *rate.Limiter // on signs of life out of turn

	said    saying
	news    chan struct{}              // holds a value when said has changed and the agent is to know
	work    chan func(context.Context) // what the goroutine is to do between its own requests
	retired chan struct{}              // closed when nothing is kept up any more, for good
	retire  func()

	halt func(context.Context) // ends the goroutine; nil if there is none. Belongs to who has the slot's turn

	// What follows belongs to the goroutine while there is one, else to who has the slot's turn.
	instance registry.Instance // as the agent is to have it
	token    string            // with which the agent has it
	unsure   bool              // what the agent has may be a change that failed
	failures int               // in a row
	retryAt  time.Time         // after a failure
	denied   *string           // the token that the last failure refused, while it may become another one
	state    string            // of failure, as logged; empty when well
}

func newKeeper(agent *agent, instance registry.Instance, config *Config, logger *slog.Logger) *keeper {
	k := &keeper{
		agent: agent, id: agentID(instance), check: config.Check, interval: config.VerifyInterval, logger: logger,
		hurry: rate.NewLimiter(rate.Every(queryInterval), queryBurst),
		said:  saying{health: instance.Health}, news: make(chan struct{}, 1), work: make(chan func(context.Context)), retired: make(chan struct{}),
		instance: instance,
	}
	k.retire = sync.OnceFunc(func() { close(k.retired) })
	if k.check.Kind == CheckTTL {
		k.interval = k.check.TTL / 3
	}
	return k
}

// begin tells the agent of the instance for the first time. One without a check must not be left with that of an earlier process.
func (k *keeper) begin(ctx context.Context) error {
	if err := k.register(ctx, k.instance); err != nil || k.check.Kind != CheckNone {
		return err
	}
	return k.agent.removeCheck(ctx, checkID(k.id))
}

// register tells the agent of the instance, which with success is what is kept up.
func (k *keeper) register(ctx context.Context, instance registry.Instance) error {
	instance.Health, _ = k.said.get()
	token, err := k.agent.register(ctx, definition(instance, k.check))
	if err == nil {
		k.instance, k.token, k.unsure = instance, token, false
	}
	return err
}

// evict deregisters what a process that was killed left at the instance's place. It is not needed for the instance itself, and checks get there in
// the end, so a failure is logged only.
func (k *keeper) evict(ctx context.Context, instance registry.Instance) {
	ids, err := k.agent.others(ctx, instance)
	for _, id := range ids {
		if err = k.agent.deregister(ctx, id); err != nil {
			break
		}
		k.logger.Info("consul: deregistered what an earlier process left at the instance's address", "left", id)
	}
	if err != nil {
		k.logger.Warn("consul: what an earlier process may have left at the instance's address stays until its check fails", "error", err)
	}
}

// end ends the upkeep for good and deregisters.
func (k *keeper) end(ctx context.Context) error {
	k.retire()
	k.stop(ctx)
	return k.agent.deregister(ctx, k.id)
}

// start begins the upkeep.
func (k *keeper) start() {
	ctx, cancel := context.WithCancel(context.Background())
	quit, done := make(chan struct{}), make(chan struct{})
	k.halt = func(ctx context.Context) {
		close(quit)
		patience, end := context.WithTimeout(ctx, requestPatience)
		defer end()
		select {
		case <-done:
		case <-patience.Done():
		}
		cancel()
		<-done
	}
	k.tell() // a check that the agent has of an earlier registration keeps its status until a sign of life
	go func() {
		defer close(done)
		k.run(ctx, quit)
	}()
}

// stop ends the upkeep, waits for it, and reports whether there was any. Its request under way is cut off after [requestPatience], or with ctx.
func (k *keeper) stop(ctx context.Context) bool {
	if k.halt == nil {
		return false
	}
	k.halt(ctx)
	k.halt = nil
	return true
}

func (k *keeper) run(ctx context.Context, quit <-chan struct{}) {
	// Those that began together, as after a deployment, are spread over the interval.
	timer := time.NewTimer(rand.N(k.interval) + 1)
	defer timer.Stop()
	hurried := false // the timer was brought forward
	for {
		select {
		case <-quit:
			return
		case do := <-k.work:
			do(ctx)
			if k.unsure && !hurried {
				hurried = true
				timer.Reset(k.pace(1))
			}
			continue
		case <-k.news:
			if !hurried {
				hurried = true
				timer.Reset(k.hurry.Reserve().Delay())
			}
			continue
		case <-timer.C:
		}
		if left := time.Until(k.retryAt); left > 0 && k.denied != nil && !hurried && !k.rotated(*k.denied) {
			timer.Reset(min(left, tokenInterval))
			continue
		}
		hurried = false
		err := k.keep(ctx)
		if ctx.Err() != nil {
			return
		}
		k.note(err)
		delay := k.pace(k.failures)
		k.retryAt = time.Now().Add(delay)
		if k.denied != nil {
			delay = min(delay, tokenInterval)
		}
		timer.Reset(delay)
	}
}

// pace returns how long to wait after so many failures in a row, with jitter, so that those who share an agent do not come at once, least of all when
// it is back: at most the interval, as the agent is near, and who waits for it is not found.
func (k *keeper) pace(failures int) time.Duration {
	if failures == 0 {
		return k.interval - rand.N(k.interval/4+1)
	}
	return jitter(min(k.interval, maxBackoff, minBackoff<<min(failures-1, 10)))
}

// note counts failures, and logs changes of state.
func (k *keeper) note(err error) {
	k.denied = nil
	if err == nil {
		if k.state != "" {
			k.logger.Info("consul: the registration is in order again")
		}
		k.failures, k.state = 0, ""
		return
	}
	k.failures++
	state, level := "failing", slog.LevelWarn
	switch {
	case errors.Is(err, ErrForbidden):
		state, level = "forbidden", slog.LevelError
		if k.agent.tokens.rotates() {
			k.denied = new(string) // none, if the file could not be read
			if answered, ok := errors.AsType[*answeredError](err); ok {
				*k.denied = answered.token
			}
		}
	case errors.Is(err, ErrRefused):
		state, level = "refused", slog.LevelError
	}
	if k.state != state {
		k.state = state
		k.logger.Log(context.Background(), level, "consul: the registration cannot be kept up; trying again", "error", err)
	}
}

// rotated reports whether there is another token than the given one.
func (k *keeper) rotated(from string) bool {
	token, err := k.agent.tokens.current()
	return err == nil && token != from
}

// keep makes sure once that the agent has the instance, and that a TTL check says what the instance does.
func (k *keeper) keep(ctx context.Context) error {
	// The agent tells the servers of an instance with the token that it was registered with: once that is deleted, nothing more gets through.
	if k.unsure || k.rotated(k.token) {
		if err := k.register(ctx, k.instance); err != nil {
			return err
		}
	}
	var beaten error
	if k.check.Kind == CheckTTL {
		health, note := k.said.get()
		beaten = k.agent.beat(ctx, checkID(k.id), checkStatus(health), note)
		if code := status(beaten); beaten == nil || code == 0 || errors.Is(beaten, ErrForbidden) {
			return beaten // an agent that is away, or denies access, has no answer to another question either
		}
	}
	known, err := k.agent.knows(ctx, k.id)
	if err != nil {
		return err
	}
	if known && status(beaten) != http.StatusNotFound {
		return beaten
	}
	if err := k.register(ctx, k.instance); err != nil {
		return err
	}
	k.logger.Info("consul: the agent had forgotten the instance, which is registered again")
	return nil
}
