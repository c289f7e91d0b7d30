package registry

import (
	"context"
	"errors"
	"io"
)

// ErrClosed is returned by the operations of a registry, a watcher or a registration after its Close.
var ErrClosed = errors.New("registry: closed")

// ErrUnsupported is matched by the error of an operation that a kind of registry never offers, such as Register of fixed addresses.
var ErrUnsupported = errors.New("registry: not supported")

// ServiceRegistry finds the instances of services, and makes instances findable. Implementations are safe for concurrent use.
type ServiceRegistry interface {
	// Watch begins to watch a target. It does no I/O: the first answer, and every failure to get one, comes from [Watcher.Next]. A
	// target that this registry can never watch (another scheme, an impossible name, an unknown parameter) is an error at once that
	// matches [ErrInvalidTarget]. An empty scheme means this registry. The caller closes the watcher.
	Watch(target Target) (Watcher, error)

	// Register makes instance findable, and keeps it so until the registration or the registry is closed: what the registry forgets
	// is registered again. It returns once the registry has it. Registering an ID of a service a second time replaces the earlier instance, whose
	// registration then has no effect any more. An instance that [Instance.Validate] refuses is an error that matches [ErrInvalidInstance];
	// a kind of registry that cannot register returns one that matches [ErrUnsupported]. The registry sets the instance's revision. The instance's
	// health is what it says of itself to begin with.
	Register(ctx context.Context, instance Instance) (Registration, error)

	// Close ends all watchers and deregisters all registrations, and waits for what it started. It may be called more than once.
	io.Closer
}

// Watcher follows the set of instances of one target. One goroutine at a time may call Next; Close may be called at any time.
type Watcher interface {
	// Next returns the complete current set when it is called first, and after that blocks until the set differs from the one
	// returned last, or the registry answers again after an error. Sets are complete, never deltas, sorted by instance ID, and the
	// caller's to keep. An empty set is an answer: the registry knows of no usable instance.
	//
	// An error is not an empty set: the set returned last still stands, and Next may be called again at once, as it does its own
	// waiting between tries. Errors that end the watch are the context's and [ErrClosed].
	Next(ctx context.Context) ([]Instance, error)

	// Close ends the watch and waits for what it started. A Next under way returns [ErrClosed]. It may be called more than once.
	io.Closer
}

// Registration is one instance that is findable. Safe for concurrent use.
type Registration interface {
	// Update changes the instance's weight and metadata where it is, for good: what the registry forgets is registered again with them. All else
	// stays: the address, the revision, so that clients keep their connections, and what checks and operators say of the instance.
	// The metadata replaces what there is, but for reserved keys, which neither go nor come; see [Instance.Updated].
	//
	// Update returns once the registry has the change. After an error the instance is as it was; if the registry may have made the change all the
	// same, the upkeep undoes it. A weight that [Instance.Validate] refuses is an error that matches [ErrInvalidInstance]. The error matches
	// [ErrClosed] after Deregister, and once the instance was replaced or its registry closed.
	Update(ctx context.Context, weight int, metadata map[string]string) error

	// SetHealth says how the instance is by its own account; [HealthUnknown] means passing. The note, which may be empty, says why, for people. The
	// registry hears of it at once, in the background, and again for as long as it lasts: nobody waits, nothing is returned, and the last
	// word counts. An instance that is critical is not found until it is no longer. A registry that asks the instance by itself, as Consul does with
	// a gRPC check, goes by the answer it gets; one that has no check has no place for it. It has no effect where Update is refused with [ErrClosed].
	SetHealth(health Health, note string)

	// Deregister makes the instance unfindable and ends its upkeep, which has ended even when it returns an error. It may be called again after
	// an error; once it succeeded, or the instance was replaced or its registry closed, it returns nil.
	Deregister(ctx context.Context) error
}
