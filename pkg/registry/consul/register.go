package consul

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"

	"github.com/0x1d/goplt/pkg/registry"
)

// Register implements [registry.ServiceRegistry] at the agent of the configuration. After an error the agent may have the instance all the same, if
// the answer was lost; its check then decides how long. Until its first check, the instance is what it says of itself: passing, if nothing. One of
// the same ID that the agent has already keeps its status until then, which with [CheckTTL] is at once.
//
// An instance with [registry.MetadataHealth] is checked under that name, and what else the agent has of the same service at the same host and
// port, left by a process that was killed, is deregistered. One whose [registry.MetadataTLS] demands client certificates cannot be checked by
// gRPC, which is an error that says so.
func (r *Registry) Register(ctx context.Context, instance registry.Instance) (registry.Registration, error) {
	if err := instance.Validate(); err != nil {
		return nil, err
	}
	if err := checkable(instance, r.config.Check.Kind); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("register %q: %w", instance.ID, err)
	}
	r.mu.Lock()
	agent, err := r.agent(r.home)
	if err != nil {
		r.mu.Unlock()
		return nil, err
	}
	id := agentID(instance)
	place, ok := r.slots[id]
	if !ok {
		place = &slot{turn: make(chan struct{}, 1)}
		place.leave = func() { r.leave(id, place) }
		r.slots[id] = place
	}
	place.users++
	r.mu.Unlock()

	instance = instance.Clone()
	instance.Revision = rand.Uint64()>>1 + 1 // never 0, and below the next power of two for those who read it as a signed number
	logger := r.logger.With("service", instance.Service, "instance", instance.ID, "agent", agent.where)
	made := &registration{slot: place, keeper: newKeeper(agent, instance, &r.config, logger)}
	if err := place.put(ctx, made); err != nil {
		place.leave()
		return nil, err
	}
	if instance.Metadata[registry.MetadataHealth] != "" {
		made.evict(ctx, instance)
	}
	return made, nil
}

// checkable reports why a check of the given kind can never pass.
func checkable(instance registry.Instance, kind CheckKind) error {
	if kind == CheckGRPC && instance.Metadata[registry.MetadataTLS] == registry.TLSMutual {
		return fmt.Errorf("consul: register %q: the instance demands client certificates (its tls.ca_file is set), and a check by gRPC presents "+
			"none, so it would never be healthy; set check.kind to ttl", instance.ID)
	}
	return nil
}

// leave ends one use of a slot, and forgets it after the last.
func (r *Registry) leave(id string, place *slot) {
	r.mu.Lock()
	defer r.mu.Unlock()
	place.users--
	if place.users == 0 {
		delete(r.slots, id)
	}
}

// slot is the place of an ID at the agent. What is done to the ID is done one after another.
type slot struct {
	users  int           // registrations that are here, or about to be; belongs to the registry's mutex
	leave  func()        // makes one user less
	closed atomic.Bool   // nothing may be put any more
	turn   chan struct{} // holds one value while someone has the turn

	current *registration // belongs to who has the turn
}

func (s *slot) take(ctx context.Context) error {
	select {
	case s.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *slot) release() { <-s.turn }

// put registers made in place of what is there.
func (s *slot) put(ctx context.Context, made *registration) error {
	if err := s.take(ctx); err != nil {
		return fmt.Errorf("register %q: %w", made.id, err)
	}
	defer s.release()
	if s.closed.Load() {
		return registry.ErrClosed
	}
	kept := s.current != nil && s.current.stop(ctx) // it must not bring the old definition back after the new one is there
	err := made.begin(ctx)
	if err == nil {
		if s.current != nil {
			s.current.retire()
			s.current.leave()
		}
		s.current = made
	}
	if err == nil || kept {
		s.current.start()
	}
	if s.closed.Load() { // meanwhile; Close may have given up waiting for the turn
		err = errors.Join(registry.ErrClosed, err)
		if ending := s.current; ending != nil {
			s.current = nil
			err = errors.Join(err, ending.end(ctx))
		}
	}
	return err
}

// remove deregisters the given registration, unless another one has its place.
func (s *slot) remove(ctx context.Context, given *registration) error {
	if err := s.take(ctx); err != nil {
		return fmt.Errorf("deregister %q: %w", given.id, err)
	}
	defer s.release()
	if s.current != given {
		return nil
	}
	err := given.end(ctx)
	if err == nil {
		s.current = nil
		given.leave()
	}
	return err
}

// close deregisters what is there, and lets nothing follow. A registration under way ends first, or deregisters itself if ctx ends before that.
func (s *slot) close(ctx context.Context) error {
	s.closed.Store(true)
	if err := s.take(ctx); err != nil {
		return fmt.Errorf("deregister: waiting for a registration under way: %w", err)
	}
	defer s.release()
	if s.current == nil {
		return nil
	}
	current := s.current
	s.current = nil
	return current.end(ctx)
}

// registration implements [registry.Registration].
type registration struct {
	*keeper

	slot *slot
}

func (h *registration) leave() { h.slot.leave() }

var _ registry.Registration = (*registration)(nil)

func (h *registration) Deregister(ctx context.Context) error { return h.slot.remove(ctx, h) }
