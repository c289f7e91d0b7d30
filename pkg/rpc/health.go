package rpc

import (
	"context"
	"sync"

	"connectrpc.com/connect/v2"

	"github.com/0x1d/goplt/pkg/registry"
)

// HealthStatus says whether a service takes calls. The numbers are those of grpc.health.v1.HealthCheckResponse.ServingStatus.
type HealthStatus int32

const (
	// HealthServing means that the service takes calls.
	HealthServing HealthStatus = 1
	// HealthNotServing means that it takes none.
	HealthNotServing HealthStatus = 2
	// HealthServiceUnknown means that the server does not know the service.
	HealthServiceUnknown HealthStatus = 3
)

// registered returns what a registry is told.
func (s HealthStatus) registered() registry.Health {
	if s == HealthNotServing {
		return registry.HealthCritical
	}
	return registry.HealthPassing
}

// Health is what a [Server] says of itself through grpc.health.v1.Health. It knows the server as a whole, whose name is empty, every
// protobuf service that the server hosts, such as "goplt.auth.v1.AuthService", and every name it registers under, such as "auth".
// All are serving from the start, and the state of one says nothing about the others.
//
// It also knows the ID of each instance that it registers, by which a registry's check tells this process from another one at its address.
// An instance is serving while its service and the server as a whole are: SetNotServing("auth") takes it out of the registry, which a server tells
// of each change, and which may ask by itself. Safe for concurrent use.
type Health struct {
	mu       sync.Mutex
	statuses map[string]HealthStatus
	stands   map[string]string // the service that an instance ID stands for
	changed  chan struct{}     // closed, and replaced, whenever a status changes
	stopping bool              // nothing is serving any more, whatever is set
	ended    chan struct{}     // closed when watches must end, so that they do not hold up a drain
}

func newHealth(services ...string) *Health {
	statuses := map[string]HealthStatus{"": HealthServing}
	for _, service := range services {
		statuses[service] = HealthServing
	}
	return &Health{statuses: statuses, stands: make(map[string]string), changed: make(chan struct{}), ended: make(chan struct{})}
}

// SetServing says that service takes calls; the empty name is the server as a whole. A name not known before is known from then on.
// It has no effect once the server is stopping.
func (h *Health) SetServing(service string) { h.set(service, HealthServing) }

// SetNotServing says that service takes no calls, for instance while something it depends on is missing; the empty name is the server as
// a whole. A name not known before is known from then on.
func (h *Health) SetNotServing(service string) { h.set(service, HealthNotServing) }

// Status returns the status of service, and [HealthServiceUnknown] for one that is not known.
func (h *Health) Status(service string) HealthStatus {
	status, _ := h.observe(service)
	return status
}

func (h *Health) set(service string, status HealthStatus) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.stopping {
		status = HealthNotServing
	}
	if h.statuses[service] == status {
		return
	}
	h.statuses[service] = status
	h.announce()
}

// standFor makes the instance ID known, with the status of service.
func (h *Health) standFor(instance, service string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.stands[instance] = service
	h.announce()
}

// stop makes everything not serving, for good.
func (h *Health) stop() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.stopping = true
	for service := range h.statuses {
		h.statuses[service] = HealthNotServing
	}
	h.announce()
}

// endWatches ends the watches under way and to come. It is called once, after stop.
func (h *Health) endWatches() { close(h.ended) }

func (h *Health) announce() {
	close(h.changed)
	h.changed = make(chan struct{})
}

// observe returns the status of service and a channel that is closed when some status has changed since.
func (h *Health) observe(service string) (HealthStatus, <-chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.statusOf(service), h.changed
}

func (h *Health) statusOf(name string) HealthStatus {
	if service, ok := h.stands[name]; ok {
		for _, needed := range []string{"", service, name} {
			if h.statuses[needed] == HealthNotServing {
				return HealthNotServing
			}
		}
		return HealthServing
	}
	if status, known := h.statuses[name]; known {
		return status
	}
	return HealthServiceUnknown
}

// watch calls send with the status of service now and again each time it differs, until send fails, ctx is done or the server stops.
func (h *Health) watch(ctx context.Context, service string, send func(HealthStatus) error) error {
	var sent HealthStatus
	for {
		status, changed := h.observe(service)
		if status != sent {
			if err := send(status); err != nil {
				return err
			}
			sent = status
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		case <-h.ended:
			// The change that stopping is may have come at the same time, and is what the watcher waits for.
			if status, _ := h.observe(service); status != sent {
				if err := send(status); err != nil {
					return err
				}
			}
			return connect.NewError(connect.CodeUnavailable, "the server is stopping")
		}
	}
}
