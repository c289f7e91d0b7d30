package registrytest

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/0x1d/goplt/pkg/registry"
)

// Harness is one registry under test.
type Harness struct {
	// Registry is fresh. The suite closes it.
	Registry registry.ServiceRegistry
	// Scheme is that of its targets.
	Scheme string
	// Registers says that the registry can register, and goes by what an instance says of its health. If it cannot, Fixed is required.
	Registers bool
	// Fixed is a target whose set, not empty, never changes; FixedAddresses are the addresses of that set.
	Fixed          registry.Target
	FixedAddresses []string
	// Peer, if set, returns another registry over the same data, as another process has. The suite closes it.
	Peer func(t *testing.T) registry.ServiceRegistry
	// Within bounds how long a change may take to be seen. Default 20s.
	Within time.Duration
}

// Run runs the contract over the registries that fresh makes, one for each test.
func Run(t *testing.T, fresh func(t *testing.T) Harness) {
	t.Helper()
	for _, test := range []struct {
		name string
		run  func(*suite)
	}{
		{"WatchRefusesImpossibleTargets", (*suite).refusesImpossibleTargets},
		{"SetIsTheCallersToKeep", (*suite).setIsTheCallersToKeep},
		{"NextBlocksWithoutChange", (*suite).nextBlocksWithoutChange},
		{"WatcherCloseEndsNext", (*suite).watcherCloseEndsNext},
		{"RegistryCloseEndsNext", (*suite).registryCloseEndsNext},
		{"RegisterRefusesInvalidInstances", (*suite).registerRefusesInvalidInstances},
		{"UnknownServiceIsEmpty", (*suite).unknownServiceIsEmpty},
		{"RegisteredIsFoundInFull", (*suite).registeredIsFoundInFull},
		{"OneIDInTwoServices", (*suite).oneIDInTwoServices},
		{"SetsAreCompleteAndSorted", (*suite).setsAreCompleteAndSorted},
		{"RegisteringAgainReplaces", (*suite).registeringAgainReplaces},
		{"UpdateChangesInPlace", (*suite).updateChangesInPlace},
		{"UpdateRefuses", (*suite).updateRefuses},
		{"CriticalIsNotFound", (*suite).criticalIsNotFound},
		{"TagSelects", (*suite).tagSelects},
		{"CloseDeregisters", (*suite).closeDeregisters},
		{"ConcurrentUse", (*suite).concurrentUse},
	} {
		t.Run(test.name, func(t *testing.T) {
			harness := fresh(t)
			harness.Within = cmp.Or(harness.Within, 20*time.Second)
			t.Cleanup(func() {
				if err := harness.Registry.Close(); err != nil {
					t.Errorf("close the registry: %v", err)
				}
			})
			test.run(&suite{T: t, Harness: harness})
		})
	}
}

// suite is one test of the contract.
type suite struct {
	*testing.T
	Harness
}

// needsRegister skips the test for a registry that cannot register.
func (s *suite) needsRegister() {
	s.Helper()
	if !s.Registers {
		s.Skip("this registry cannot register")
	}
}

// service returns a name that no other test uses, as registries may be shared.
func (s *suite) service() string { return "contract-" + strings.ToLower(rand.Text()) }

func (s *suite) target(service string) registry.Target {
	return registry.Target{Scheme: s.Scheme, Service: service}
}

// instance returns a full instance; number tells instances apart.
func (s *suite) instance(service string, number int) registry.Instance {
	return registry.Instance{
		ID: fmt.Sprintf("%s-%d", service, number), Service: service, Host: "127.0.0.1", Port: 20000 + number, Weight: 7, Zone: "eu-1a",
		Tags: []string{"blue", "v2"}, Metadata: map[string]string{"protocol": "http", "zone": "not the zone"},
	}
}

// found returns a target whose set has instances and does not change by itself, and that set's addresses, sorted.
func (s *suite) found() (registry.Target, []string) {
	s.Helper()
	if !s.Registers {
		return s.Fixed, slices.Sorted(slices.Values(s.FixedAddresses))
	}
	service := s.service()
	one, two := s.instance(service, 1), s.instance(service, 2)
	s.register(one)
	s.register(two)
	return s.target(service), []string{one.Addr(), two.Addr()}
}

func (s *suite) register(instance registry.Instance) registry.Registration {
	s.Helper()
	registration, err := s.Registry.Register(s.Context(), instance)
	if err != nil {
		s.Fatalf("register %q: %v", instance.ID, err)
	}
	return registration
}

func (s *suite) watch(from registry.ServiceRegistry, target registry.Target) registry.Watcher {
	s.Helper()
	watcher, err := from.Watch(target)
	if err != nil {
		s.Fatalf("watch %q: %v", target, err)
	}
	s.Cleanup(func() {
		if err := watcher.Close(); err != nil {
			s.Errorf("close the watcher of %q: %v", target, err)
		}
	})
	return watcher
}

// await calls Next until the set satisfies reached, which wanted puts in words.
func (s *suite) await(watcher registry.Watcher, wanted string, reached func([]registry.Instance) bool) []registry.Instance {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.Context(), s.Within)
	defer cancel()
	for {
		set, err := watcher.Next(ctx)
		switch {
		case ctx.Err() != nil:
			s.Fatalf("%s is not seen within %v; last: %v", wanted, s.Within, err)
		case errors.Is(err, registry.ErrClosed):
			s.Fatalf("waiting for %s: %v", wanted, err)
		case err != nil:
			s.Logf("waiting for %s: %v", wanted, err) // an error is no end; the set stands
		case reached(set):
			return set
		default:
			s.Logf("waiting for %s: have %v", wanted, addresses(set))
		}
	}
}

func (s *suite) awaitAddresses(watcher registry.Watcher, want ...string) []registry.Instance {
	s.Helper()
	return s.await(watcher, fmt.Sprintf("the set %v", want), func(set []registry.Instance) bool { return slices.Equal(addresses(set), want) })
}

func addresses(set []registry.Instance) []string {
	addrs := make([]string, len(set))
	for at, instance := range set {
		addrs[at] = instance.Addr()
	}
	return addrs
}
