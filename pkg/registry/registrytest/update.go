package registrytest

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/go-cmp/cmp"

	"github.com/0x1d/goplt/pkg/registry"
)

// updateChangesInPlace: an update changes weight and metadata, and nothing else, so that clients go on with the instance that they know.
func (s *suite) updateChangesInPlace() {
	s.needsRegister()
	given := s.instance(s.service(), 1)
	given.Metadata["goplt-health"] = "reserved"
	registration := s.register(given)
	watcher := s.watch(s.Registry, s.target(given.Service))
	found := s.awaitAddresses(watcher, given.Addr())[0]
	for weight, metadata := range []map[string]string{
		1: {"protocol": "grpc", "stage": "canary", "goplt-health": "not to be changed", "goplt-new": "not to be brought"},
		2: nil,
		0: {"stage": "draining"},
	} {
		if err := registration.Update(s.Context(), weight, metadata); err != nil {
			s.Fatalf("update: %v", err)
		}
		want := found.Clone()
		want.Weight, want.Metadata = weight, map[string]string{"goplt-health": "reserved"}
		for key, value := range metadata {
			if !registry.IsReserved(key) {
				want.Metadata[key] = value
			}
		}
		got := s.await(watcher, fmt.Sprintf("weight %d", weight), func(set []registry.Instance) bool { return len(set) == 1 && set[0].Weight == weight })[0]
		if diff := cmp.Diff(want, got); diff != "" {
			s.Errorf("updated, the instance is not what it was but for weight and metadata (-want +got):\n%s", diff)
		}
	}
	if err := registration.Deregister(s.Context()); err != nil {
		s.Errorf("deregister what was updated: %v", err)
	}
	s.awaitAddresses(watcher)
}

// updateRefuses: an update that fails changes nothing, and one of what is gone brings nothing back.
func (s *suite) updateRefuses() {
	s.needsRegister()
	given := s.instance(s.service(), 1)
	replaced := s.register(given)
	current := s.register(given)
	watcher := s.watch(s.Registry, s.target(given.Service))
	before := s.awaitAddresses(watcher, given.Addr())[0]
	for _, weight := range []int{-1, registry.MaxWeight + 1} {
		if err := current.Update(s.Context(), weight, nil); !errors.Is(err, registry.ErrInvalidInstance) {
			s.Errorf("update to weight %d: %v; want ErrInvalidInstance", weight, err)
		}
	}
	ctx, cancel := context.WithCancel(s.Context())
	cancel()
	if err := current.Update(ctx, 1, nil); !errors.Is(err, context.Canceled) {
		s.Errorf("update with a cancelled context: %v", err)
	}
	replaced.SetHealth(registry.HealthCritical, "I was replaced")
	closed := func(when string, registration registry.Registration) {
		s.Helper()
		if err := registration.Update(s.Context(), 1, nil); !errors.Is(err, registry.ErrClosed) {
			s.Errorf("update %s: %v; want ErrClosed", when, err)
		}
	}
	closed("of what was replaced", replaced)
	if after := s.awaitAddresses(s.watch(s.Registry, s.target(given.Service)), given.Addr())[0]; !after.Equal(before) {
		s.Errorf("updates that were refused made %+v of %+v", after, before)
	}
	if err := current.Deregister(s.Context()); err != nil {
		s.Errorf("deregister: %v", err)
	}
	closed("after Deregister", current)
	current.SetHealth(registry.HealthPassing, "")
	s.awaitAddresses(watcher)
	last := s.register(given)
	if err := s.Registry.Close(); err != nil {
		s.Errorf("close: %v", err)
	}
	closed("after the registry's Close", last)
}

// criticalIsNotFound: an instance that says of itself that it is critical gets no calls, from the first on.
func (s *suite) criticalIsNotFound() {
	s.needsRegister()
	service := s.service()
	well, ill := s.instance(service, 1), s.instance(service, 2)
	ill.Health = registry.HealthCritical
	s.register(well)
	registration := s.register(ill)
	watcher := s.watch(s.Registry, s.target(service))
	s.awaitAddresses(watcher, well.Addr())
	registration.SetHealth(registry.HealthPassing, "")
	found := s.awaitAddresses(watcher, well.Addr(), ill.Addr())[1]
	if found.Health != settled(found.Health) {
		s.Errorf("well again, its health is %q", found.Health)
	}
	registration.SetHealth(registry.HealthWarning, "tired")
	registration.SetHealth(registry.HealthCritical, "ill")
	s.awaitAddresses(watcher, well.Addr())
	if err := registration.Update(s.Context(), ill.Weight, nil); err != nil {
		s.Errorf("update what is critical: %v", err)
	}
	s.awaitAddresses(s.watch(s.Registry, s.target(service)), well.Addr()) // is no recovery
	registration.SetHealth(registry.HealthUnknown, "")
	s.awaitAddresses(watcher, well.Addr(), ill.Addr())
}

// settled returns what the health of an instance that passes may be where got is what it is: a registry need not know of checks.
func settled(got registry.Health) registry.Health {
	if got == registry.HealthUnknown {
		return registry.HealthUnknown
	}
	return registry.HealthPassing
}
