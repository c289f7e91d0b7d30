package registrytest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/0x1d/goplt/pkg/registry"
)

func (s *suite) registerRefusesInvalidInstances() {
	if !s.Registers {
		registration, err := s.Registry.Register(s.Context(), s.instance("auth", 1))
		if !errors.Is(err, registry.ErrUnsupported) {
			s.Errorf("Register = %v, %v; want ErrUnsupported", registration, err)
		}
		return
	}
	for field, change := range map[string]func(*registry.Instance){
		"ID":      func(i *registry.Instance) { i.ID = "" },
		"path ID": func(i *registry.Instance) { i.ID = "../kv/x" },
		"service": func(i *registry.Instance) { i.Service = "../kv/x" },
		"host":    func(i *registry.Instance) { i.Host = "" },
		"port":    func(i *registry.Instance) { i.Port = 0 },
		"weight":  func(i *registry.Instance) { i.Weight = -1 },
	} {
		instance := s.instance(s.service(), 1)
		change(&instance)
		if _, err := s.Registry.Register(s.Context(), instance); !errors.Is(err, registry.ErrInvalidInstance) {
			s.Errorf("Register with a wrong %s: %v; want ErrInvalidInstance", field, err)
		}
	}
	ctx, cancel := context.WithCancel(s.Context())
	cancel()
	if _, err := s.Registry.Register(ctx, s.instance(s.service(), 1)); !errors.Is(err, context.Canceled) {
		s.Errorf("Register with a cancelled context: %v", err)
	}
}

func (s *suite) setsAreCompleteAndSorted() {
	s.needsRegister()
	service := s.service()
	watchers := []registry.Watcher{s.watch(s.Registry, s.target(service)), s.watch(s.Registry, s.target(service))}
	one, two, three := s.instance(service, 1), s.instance(service, 2), s.instance(service, 3)
	other := s.instance(s.service(), 4)
	step := func(want ...string) {
		s.Helper()
		for _, watcher := range watchers {
			set := s.awaitAddresses(watcher, want...)
			if !slices.IsSortedFunc(set, cmpID) {
				s.Errorf("the set is not sorted by ID: %v", set)
			}
		}
	}
	step()
	kept := s.register(three)
	step(three.Addr())
	s.register(other)
	first := s.register(one)
	s.register(two)
	step(one.Addr(), two.Addr(), three.Addr())
	for range 2 {
		if err := first.Deregister(s.Context()); err != nil {
			s.Errorf("deregister: %v", err)
		}
	}
	step(two.Addr(), three.Addr())
	if err := kept.Deregister(s.Context()); err != nil {
		s.Errorf("deregister: %v", err)
	}
	step(two.Addr())
}

// oneIDInTwoServices: an ID is unique within its service only.
func (s *suite) oneIDInTwoServices() {
	s.needsRegister()
	one := s.instance(s.service(), 1)
	two := one.Clone()
	two.Service, two.Port, two.Zone = s.service(), one.Port+1, "" // the zone in its metadata is none
	first := s.register(one)
	s.register(two)
	s.awaitAddresses(s.watch(s.Registry, s.target(one.Service)), one.Addr())
	watcher := s.watch(s.Registry, s.target(two.Service))
	if found := s.awaitAddresses(watcher, two.Addr())[0]; found.ID != two.ID || found.Zone != "" {
		s.Errorf("found ID %q in zone %q, want %q in none", found.ID, found.Zone, two.ID)
	}
	if err := first.Deregister(s.Context()); err != nil {
		s.Errorf("deregister: %v", err)
	}
	s.awaitAddresses(s.watch(s.Registry, s.target(one.Service)))
	s.awaitAddresses(s.watch(s.Registry, s.target(two.Service)), two.Addr())
}

func (s *suite) registeringAgainReplaces() {
	s.needsRegister()
	before := s.instance(s.service(), 1)
	watcher := s.watch(s.Registry, s.target(before.Service))
	replaced := s.register(before)
	old := s.awaitAddresses(watcher, before.Addr())[0]
	after := before.Clone()
	after.Port++
	current := s.register(after)
	if found := s.awaitAddresses(watcher, after.Addr())[0]; found.Revision == old.Revision {
		s.Errorf("the revision is %d before and after", old.Revision)
	}
	if err := replaced.Deregister(s.Context()); err != nil {
		s.Errorf("deregister what was replaced: %v", err)
	}
	s.awaitAddresses(s.watch(s.Registry, s.target(before.Service)), after.Addr())
	if err := current.Deregister(s.Context()); err != nil {
		s.Errorf("deregister: %v", err)
	}
	s.awaitAddresses(watcher)
}

func (s *suite) closeDeregisters() {
	s.needsRegister()
	if s.Peer == nil {
		s.Skip("this registry shares its data with no other")
	}
	peer := s.Peer(s.T)
	s.Cleanup(func() {
		if err := peer.Close(); err != nil {
			s.Errorf("close the peer: %v", err)
		}
	})
	instance := s.instance(s.service(), 1)
	registration := s.register(instance)
	watcher := s.watch(peer, s.target(instance.Service))
	s.awaitAddresses(watcher, instance.Addr())
	if err := s.Registry.Close(); err != nil {
		s.Fatalf("close the registry: %v", err)
	}
	s.awaitAddresses(watcher)
	if err := registration.Deregister(s.Context()); err != nil {
		s.Errorf("deregister after Close: %v", err)
	}
}

func (s *suite) concurrentUse() {
	s.needsRegister()
	const writers, watchers = 4, 4
	service := s.service()
	var want []string
	var group sync.WaitGroup
	failures := make(chan error, writers)
	for number := range writers {
		instance := s.instance(service, number)
		want = append(want, instance.Addr())
		group.Go(func() {
			for range 2 {
				registration, err := s.Registry.Register(s.Context(), instance)
				if err == nil {
					err = s.useWhileDeregistering(registration)
				}
				if err == nil {
					_, err = s.Registry.Register(s.Context(), instance)
				}
				if err != nil {
					failures <- fmt.Errorf("register %q: %w", instance.ID, err)
					return
				}
			}
		})
	}
	results := make(chan registry.Watcher, watchers)
	for range watchers {
		group.Go(func() {
			watcher, err := s.Registry.Watch(s.target(service))
			if err == nil {
				_, err = watcher.Next(s.Context())
			}
			if err != nil {
				s.Errorf("watch while others register: %v", err)
				return
			}
			results <- watcher
		})
	}
	group.Wait()
	close(failures)
	close(results)
	for err := range failures {
		s.Error(err)
	}
	// Each watcher has read one set or another by now; whatever it was, all end at the same.
	for watcher := range results {
		if err := watcher.Close(); err != nil {
			s.Error(err)
		}
		s.awaitAddresses(s.watch(s.Registry, s.target(service)), want...)
	}
}

// useWhileDeregistering does all that a registration offers at once. Whether an update comes before or after the end, it brings nothing back.
func (s *suite) useWhileDeregistering(registration registry.Registration) error {
	var group sync.WaitGroup
	errs := make(chan error, 2)
	group.Go(func() {
		registration.SetHealth(registry.HealthWarning, "leaving")
		if err := registration.Update(s.Context(), 1, nil); err != nil && !errors.Is(err, registry.ErrClosed) {
			errs <- err
		}
	})
	group.Go(func() { errs <- registration.Deregister(s.Context()) })
	group.Wait()
	close(errs)
	var problems []error
	for err := range errs {
		problems = append(problems, err)
	}
	return errors.Join(problems...)
}

func cmpID(a, b registry.Instance) int { return strings.Compare(a.ID, b.ID) }
