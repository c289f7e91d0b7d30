package static

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/0x1d/goplt/pkg/registry"
)

// Scheme is the scheme of the targets of a [Registry].
const Scheme = registry.SchemeStatic

// Registry is a [registry.ServiceRegistry] over fixed addresses. Make one with [New]. It is safe for concurrent use.
type Registry struct {
	table  map[string][]registry.Instance // never changes
	once   sync.Once
	closed chan struct{}
}

var _ registry.ServiceRegistry = (*Registry)(nil)

// New returns a registry that finds each named service at its addresses, each host:port with IPv6 in brackets. A nil table is fine: targets
// that hold their addresses need none. A service without addresses has an empty set. All names and addresses that are wrong are in the error, joined.
func New(addresses map[string][]string) (*Registry, error) {
	table := make(map[string][]registry.Instance, len(addresses))
	var problems []error
	for _, service := range slices.Sorted(maps.Keys(addresses)) {
		if err := registry.ValidateServiceName(service); err != nil {
			problems = append(problems, fmt.Errorf("static registry: %w", err))
		}
		instances, err := resolve(service, addresses[service])
		if err != nil {
			problems = append(problems, fmt.Errorf("static registry: service %q: %w", service, err))
		}
		table[service] = instances
	}
	if err := errors.Join(problems...); err != nil {
		return nil, err
	}
	return &Registry{table: table, closed: make(chan struct{})}, nil
}

// Watch implements [registry.ServiceRegistry]. A service that the table lacks is an error that matches [registry.ErrInvalidTarget], as it can never
// come.
func (r *Registry) Watch(target registry.Target) (registry.Watcher, error) {
	if err := target.Check(Scheme); err != nil {
		return nil, err
	}
	select {
	case <-r.closed:
		return nil, registry.ErrClosed
	default:
	}
	instances, known := r.table[target.Service]
	if addresses := target.Addresses(); addresses != nil {
		var err error
		if instances, err = resolve("", addresses); err != nil {
			return nil, fmt.Errorf("%w %q: %w", registry.ErrInvalidTarget, target, err)
		}
	} else if !known {
		return nil, fmt.Errorf("%w %q: no addresses are configured for service %q; known are [%s]; addresses in a target are host:port",
			registry.ErrInvalidTarget, target, target.Service, strings.Join(slices.Sorted(maps.Keys(r.table)), ", "))
	}
	return &watcher{instances: instances, registry: r.closed, closed: make(chan struct{})}, nil
}

// Register returns an error that matches [registry.ErrUnsupported].
func (r *Registry) Register(_ context.Context, instance registry.Instance) (registry.Registration, error) {
	return nil, fmt.Errorf("%w: a static registry cannot register instance %q; its addresses are fixed", registry.ErrUnsupported, instance.ID)
}

// Close ends all watchers. It returns nil.
func (r *Registry) Close() error {
	r.once.Do(func() { close(r.closed) })
	return nil
}

// resolve makes an instance of each address, sorted by ID. An address that is given twice would get twice its share without anyone having said so.
func resolve(service string, addresses []string) ([]registry.Instance, error) {
	instances := make([]registry.Instance, 0, len(addresses))
	var problems []error
	for _, address := range addresses {
		if err := registry.ValidateAddress(address); err != nil {
			problems = append(problems, err)
			continue
		}
		host, port, err := net.SplitHostPort(address)
		if err != nil {
			return nil, err
		}
		number, err := strconv.Atoi(port)
		if err != nil {
			return nil, err
		}
		instance := registry.Instance{ID: address, Service: service, Host: host, Port: number, Weight: 1}
		if slices.ContainsFunc(instances, func(other registry.Instance) bool { return other.ID == instance.ID }) {
			problems = append(problems, fmt.Errorf("address %q is given twice", address))
			continue
		}
		instances = append(instances, instance)
	}
	slices.SortFunc(instances, func(a, b registry.Instance) int { return strings.Compare(a.ID, b.ID) })
	return instances, errors.Join(problems...)
}
