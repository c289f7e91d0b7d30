package rpc

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"

	"github.com/0x1d/goplt/pkg/registry"
)

// SetWeight changes the weight of the running server in its registry, under all its names: the share of calls relative to other instances, 0 to
// [registry.MaxWeight], and with 0 none while others have more. Clients keep their connections. It returns once the registry has it; see
// [registry.Registration] for what holds after an error. A server that is not started, or stopped, or not registered has no weight to change, which
// is an error.
func (s *Server) SetWeight(ctx context.Context, weight int) error {
	return s.update(ctx, "weight", func(registered *registration) (int, map[string]string) { return weight, registered.metadata })
}

// SetMetadata changes what the running server says of itself in its registry, as SetWeight does the weight: to metadata, over what it says on its
// own accord, such as its version. Keys that begin with "goplt-" are the server's alone, which is an error.
func (s *Server) SetMetadata(ctx context.Context, metadata map[string]string) error {
	for key := range metadata {
		if registry.IsReserved(key) {
			return fmt.Errorf("rpc: set metadata: the key %q is reserved", key)
		}
	}
	return s.update(ctx, "metadata", func(registered *registration) (int, map[string]string) {
		all := maps.Clone(registered.instance.Metadata)
		if all == nil {
			all = make(map[string]string, len(metadata))
		}
		maps.Copy(all, metadata)
		return registered.weight, all
	})
}

// update changes all registrations at once; what it sets, in words, is for errors.
func (s *Server) update(ctx context.Context, what string, change func(*registration) (weight int, metadata map[string]string)) error {
	registrations, err := s.running()
	if err != nil {
		return fmt.Errorf("rpc: set %s: %w", what, err)
	}
	select {
	case s.updating <- struct{}{}: // a turn: weight and metadata go together, so of two that overlap one would undo the other
		defer func() { <-s.updating }()
	case <-ctx.Done():
		return fmt.Errorf("rpc: set %s: %w", what, ctx.Err())
	}
	problems := make([]error, len(registrations))
	var group sync.WaitGroup
	for at, registered := range registrations {
		group.Go(func() {
			weight, metadata := change(registered)
			if err := registered.handle.Update(ctx, weight, metadata); err != nil {
				problems[at] = fmt.Errorf("rpc: set %s of %s: %w", what, registered.instance.ID, err)
				return
			}
			registered.weight, registered.metadata = weight, metadata
		})
	}
	group.Wait()
	return errors.Join(problems...)
}

// running returns the registrations of a server that runs. It waits for a Start under way.
func (s *Server) running() ([]*registration, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.phase == phaseNew:
		return nil, errors.New("the server is not started")
	case s.phase == phaseStopped:
		return nil, errors.New("the server is stopped")
	case len(s.registrations) == 0:
		return nil, errors.New("the server is registered nowhere")
	}
	return s.registrations, nil
}

// report tells the registry, until the server stops, how an instance is, which began with the health that it had when it was registered.
func (s *Server) report(registered *registration) {
	s.reports.Go(func() {
		_ = s.health.watch(s.reporting, registered.instance.ID, func(status HealthStatus) error { // its end is that of the reports
			note := ""
			if status == HealthNotServing {
				note = fmt.Sprintf("the server says that it is not serving %q", registered.instance.Service)
			}
			registered.handle.SetHealth(status.registered(), note)
			return nil
		})
	})
}

// endReports ends the reports and waits for them: what follows, up to the deregistration, is not the registry's to hear.
func (s *Server) endReports() {
	s.endReporting()
	s.reports.Wait()
}
