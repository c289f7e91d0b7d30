package consul

import (
	"context"
	"fmt"
	"net/http"
	"sync"

	"github.com/0x1d/goplt/pkg/registry"
)

// Update implements [registry.Registration]. The agent keeps the status of its checks, and an operator's maintenance.
func (k *keeper) Update(ctx context.Context, weight int, metadata map[string]string) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("update %q: %w", k.id, err)
	}
	result := make(chan error, 1)
	update := func(life context.Context) {
		both, cancel := context.WithCancel(life)
		defer cancel()
		defer context.AfterFunc(ctx, cancel)()
		result <- k.update(both, weight, metadata)
	}
	// Done by the goroutine: an update never meets a registration of the keeper's own, and who deregisters ends it as he ends those.
	select {
	case k.work <- update:
	case <-k.retired:
		return fmt.Errorf("update %q: %w", k.id, registry.ErrClosed)
	case <-ctx.Done():
		return fmt.Errorf("update %q: %w", k.id, ctx.Err())
	}
	err := <-result
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return fmt.Errorf("update %q: %w", k.id, ctx.Err())
	}
	select {
	case <-k.retired:
		return fmt.Errorf("update %q: %w: %w", k.id, registry.ErrClosed, err)
	default:
		return err
	}
}

func (k *keeper) update(ctx context.Context, weight int, metadata map[string]string) error {
	updated := k.instance.Updated(weight, metadata)
	if err := updated.Validate(); err != nil {
		return err
	}
	err := k.register(ctx, updated)
	if code := status(err); err != nil && (code == 0 || code >= http.StatusInternalServerError) {
		k.unsure = true // the answer, or the agent's last word to the servers, may have been lost
	}
	return err
}

// SetHealth implements [registry.Registration]. With [CheckTTL] the agent hears of it at once, and as often as of the instance's life; with
// [CheckGRPC] it asks the instance by itself. Whatever the check, it is what the instance is registered with when the agent forgot it.
func (k *keeper) SetHealth(health registry.Health, note string) {
	if k.said.set(health, note) {
		k.tell()
	}
}

// tell lets a TTL check hear out of turn.
func (k *keeper) tell() {
	if k.check.Kind != CheckTTL {
		return
	}
	select {
	case k.news <- struct{}{}:
	default:
	}
}

// saying is what an instance says of itself.
type saying struct {
	mu     sync.Mutex
	health registry.Health
	note   string
}

// set reports whether that is anything new.
func (s *saying) set(health registry.Health, note string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	changed := checkStatus(s.health) != checkStatus(health) || s.note != note
	s.health, s.note = health, note
	return changed
}

// get returns the health, and a note that is never empty.
func (s *saying) get() (health registry.Health, note string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.note != "":
		return s.health, s.note
	case checkStatus(s.health) == checkStatus(registry.HealthPassing):
		return s.health, "the process that registered the instance lives"
	default:
		return s.health, "the process that registered the instance says so"
	}
}
