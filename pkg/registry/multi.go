package registry

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// NewMulti returns a registry that asks, for each target, the registry of the target's scheme. Targets without a scheme or with one that
// byScheme lacks go to fallback, which must not be nil and which takes all registrations too. Closing it closes them all.
//
// A program that finds most services in Consul and some at fixed addresses says:
//
//	registry.NewMulti(consul, map[string]registry.ServiceRegistry{"static": static})
func NewMulti(fallback ServiceRegistry, byScheme map[string]ServiceRegistry) ServiceRegistry {
	return &multi{fallback: fallback, byScheme: maps.Clone(byScheme)}
}

// ByScheme returns the registry of a scheme among those that reg combines, by [NewMulti], or reg itself where it combines none; false if there is no
// such registry. A program that wants to know more of one than the interface says asserts its type:
//
//	if found, ok := registry.ByScheme(reg, consul.Scheme); ok {
//		watches := found.(*consul.Registry).Status()
func ByScheme(reg ServiceRegistry, scheme string) (ServiceRegistry, bool) {
	if combined, ok := reg.(*multi); ok {
		found, ok := combined.byScheme[scheme]
		return found, ok
	}
	return reg, true
}

type multi struct {
	fallback ServiceRegistry
	byScheme map[string]ServiceRegistry
}

var _ ServiceRegistry = (*multi)(nil)

func (m *multi) Watch(target Target) (Watcher, error) {
	if chosen, ok := m.byScheme[target.Scheme]; ok && target.Scheme != "" {
		return chosen.Watch(target)
	}
	watcher, err := m.fallback.Watch(target)
	if target.Scheme != "" && errors.Is(err, ErrInvalidTarget) {
		others := maps.Clone(m.byScheme)
		maps.DeleteFunc(others, func(_ string, other ServiceRegistry) bool { return other == m.fallback })
		if len(others) > 0 {
			return nil, fmt.Errorf("%w; other registries here: %s", err, strings.Join(slices.Sorted(maps.Keys(others)), ", "))
		}
	}
	return watcher, err
}

func (m *multi) Register(ctx context.Context, instance Instance) (Registration, error) {
	return m.fallback.Register(ctx, instance)
}

func (m *multi) Close() error {
	errs := []error{m.fallback.Close()}
	for _, scheme := range slices.Sorted(maps.Keys(m.byScheme)) {
		errs = append(errs, m.byScheme[scheme].Close()) // closing one that is the fallback too a second time is harmless
	}
	return errors.Join(errs...)
}
