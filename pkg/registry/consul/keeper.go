package consul

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"github.com/hashicorp/consul/api"
)

// requestPatience is what a request of a keeper that is to end may still take: one that was cut off could take effect after those that follow, but
// who deregisters has no more time than this to lose on an agent that hangs.
const requestPatience = time.Second

// keeper keeps one instance registered: it sends the signs of life of a TTL check, and registers the instance again when the agent forgot it, as one
// does that restarts without its data.
type keeper struct {
	agent    *agent
	id       string // at the agent
	service  *api.AgentServiceRegistration
	kind     CheckKind
	interval time.Duration // between two signs of life, or two looks at the agent
	logger   *slog.Logger

	halt func(context.Context) // ends the goroutine; nil if there is none. Belongs to who has the slot's turn
}

// register tells the agent of the instance.
func (k *keeper) register(ctx context.Context) error {
	// Replacing all checks would also end a maintenance that an operator declared; but a registration without a check must not be left with the
	// one of an earlier process.
	return k.agent.register(ctx, k.service, api.ServiceRegisterOpts{ReplaceExistingChecks: k.kind == CheckNone})
}

// evict deregisters what a process that was killed left at the instance's place. It is not needed for the instance itself, and checks get there in
// the end, so a failure is logged only.
func (k *keeper) evict(ctx context.Context) {
	ids, err := k.agent.others(ctx, k.service)
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

// end ends the upkeep and deregisters.
func (k *keeper) end(ctx context.Context) error {
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
	timer := time.NewTimer(k.interval)
	defer timer.Stop()
	failures := 0
	for {
		select {
		case <-quit:
			return
		case <-timer.C:
		}
		err := k.keep(ctx)
		if ctx.Err() != nil {
			return
		}
		delay := k.interval
		switch {
		case err == nil && failures > 0:
			k.logger.Info("consul: the registration is in order again")
			failures = 0
		case err != nil:
			failures++
			if failures == 1 {
				k.logger.Warn("consul: the registration cannot be kept up; trying again", "error", err)
			}
			delay = min(backoff(failures), k.interval) // the agent is near, and who waits for it is not found
		}
		timer.Reset(delay)
	}
}

// keep makes sure once that the agent has the instance, and that a TTL check passes.
func (k *keeper) keep(ctx context.Context) error {
	var beaten error
	if k.kind == CheckTTL {
		if beaten = k.agent.beat(ctx, checkID(k.id)); beaten == nil {
			return nil
		}
	}
	known, err := k.agent.knows(ctx, k.id)
	if err != nil {
		return err
	}
	if known && status(beaten) != http.StatusNotFound {
		return beaten
	}
	if err := k.register(ctx); err != nil {
		return err
	}
	k.logger.Info("consul: the agent had forgotten the instance, which is registered again")
	return nil
}
