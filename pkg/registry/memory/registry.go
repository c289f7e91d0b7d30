package memory

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/0x1d/goplt/pkg/registry"
)

// Scheme is the scheme of the targets of a [Registry].
const Scheme = "memory"

// Registry is a [registry.ServiceRegistry] in memory. Make one with [New]. It is safe for concurrent use.
type Registry struct {
	mu       sync.Mutex
	services map[string]*service
	revision uint64
	closed   chan struct{} // closed by Close
}

var _ registry.ServiceRegistry = (*Registry)(nil)

// service holds the instances of one service. Its fields belong to the registry's mutex.
type service struct {
	entries map[string]entry // by ID
	changed chan struct{}    // closed, and replaced, by every change of entries
}

// entry is an instance and the registration that keeps it; nil for one that came by Set.
type entry struct {
	instance registry.Instance
	owner    *registration
}

// usable reports whether the instance is found: not while it says of itself that it is critical. One that came by Set is, whatever it says.
func (e entry) usable() bool { return e.owner == nil || e.instance.Health != registry.HealthCritical }

// New returns an empty registry. It starts nothing; Close ends its watchers.
func New() *Registry {
	return &Registry{services: make(map[string]*service), closed: make(chan struct{})}
}

// Watch implements [registry.ServiceRegistry]. A service that nobody has registered has an empty set.
func (r *Registry) Watch(target registry.Target) (registry.Watcher, error) {
	if err := target.Check(Scheme, "tag"); err != nil {
		return nil, err
	}
	if target.Authority != "" {
		return nil, fmt.Errorf("%w %q: %q stands before the third slash; want memory:///auth", registry.ErrInvalidTarget, target, target.Authority)
	}
	if r.isClosed() {
		return nil, registry.ErrClosed
	}
	tag, tagged := target.Params["tag"]
	keep := func(instance registry.Instance) bool { return !tagged || slices.Contains(instance.Tags, tag) }
	return &watcher{registry: r, service: target.Service, keep: keep, closed: make(chan struct{})}, nil
}

// Register implements [registry.ServiceRegistry]. Each registration gets a revision of its own.
func (r *Registry) Register(ctx context.Context, instance registry.Instance) (registry.Registration, error) {
	if err := instance.Validate(); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("register %q: %w", instance.ID, err)
	}
	instance = instance.Clone()
	instance.Health = cmp.Or(instance.Health, registry.HealthPassing)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.isClosed() {
		return nil, registry.ErrClosed
	}
	r.revision++
	instance.Revision = r.revision
	handle := &registration{registry: r, service: instance.Service, id: instance.ID}
	found := r.service(instance.Service)
	found.entries[instance.ID] = entry{instance: instance, owner: handle}
	found.wake()
	return handle, nil
}

// Set makes instances the complete set of a service, as they are, revisions and health included, in one step that watchers see as one; no instances
// empties the set. Earlier registrations of the service have no effect any more. An instance without a service name gets this one. Instances that
// are invalid, of another service, or share an ID are an error, and then nothing changes.
func (r *Registry) Set(serviceName string, instances ...registry.Instance) error {
	if err := registry.ValidateServiceName(serviceName); err != nil {
		return fmt.Errorf("%w: %w", registry.ErrInvalidInstance, err)
	}
	entries := make(map[string]entry, len(instances))
	for _, instance := range instances {
		instance = instance.Clone()
		instance.Service = cmp.Or(instance.Service, serviceName)
		if err := instance.Validate(); err != nil {
			return err
		}
		if instance.Service != serviceName {
			return fmt.Errorf("%w %q: it is of service %q, not %q", registry.ErrInvalidInstance, instance.ID, instance.Service, serviceName)
		}
		if _, taken := entries[instance.ID]; taken {
			return fmt.Errorf("%w %q: another instance has this ID", registry.ErrInvalidInstance, instance.ID)
		}
		entries[instance.ID] = entry{instance: instance}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.isClosed() {
		return registry.ErrClosed
	}
	found := r.service(serviceName)
	found.entries = entries
	found.wake()
	return nil
}

// Close ends all watchers and removes all instances. It returns nil.
func (r *Registry) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.isClosed() {
		close(r.closed)
		clear(r.services)
	}
	return nil
}

func (r *Registry) isClosed() bool {
	select {
	case <-r.closed:
		return true
	default:
		return false
	}
}

// service returns the named service, which it makes if need be. The caller holds the mutex.
func (r *Registry) service(name string) *service {
	found, ok := r.services[name]
	if !ok {
		found = &service{entries: make(map[string]entry), changed: make(chan struct{})}
		r.services[name] = found
	}
	return found
}

// wake lets the watchers look again. The caller holds the registry's mutex.
func (s *service) wake() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// registration implements [registry.Registration].
type registration struct {
	registry    *Registry
	service, id string
}

var _ registry.Registration = (*registration)(nil)

// Update implements [registry.Registration]. The registry has the change at once.
func (h *registration) Update(ctx context.Context, weight int, metadata map[string]string) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("update %q: %w", h.id, err)
	}
	var err error
	if !h.change(func(instance *registry.Instance) {
		updated := instance.Updated(weight, metadata)
		if err = updated.Validate(); err == nil {
			*instance = updated
		}
	}) {
		return fmt.Errorf("update %q: %w", h.id, registry.ErrClosed)
	}
	return err
}

// SetHealth implements [registry.Registration]. Nobody is shown the note.
func (h *registration) SetHealth(health registry.Health, _ string) {
	h.change(func(instance *registry.Instance) { instance.Health = cmp.Or(health, registry.HealthPassing) })
}

// Deregister implements [registry.Registration]. It returns nil.
func (h *registration) Deregister(context.Context) error {
	h.registry.mu.Lock()
	defer h.registry.mu.Unlock()
	if found, ok := h.registry.services[h.service]; ok && found.entries[h.id].owner == h {
		delete(found.entries, h.id)
		found.wake()
	}
	return nil
}

// change changes the instance, and reports whether it is still the one of this registration.
func (h *registration) change(apply func(*registry.Instance)) bool {
	h.registry.mu.Lock()
	defer h.registry.mu.Unlock()
	found, ok := h.registry.services[h.service]
	if !ok || found.entries[h.id].owner != h {
		return false
	}
	changed := found.entries[h.id]
	apply(&changed.instance)
	found.entries[h.id] = changed
	found.wake()
	return true
}
