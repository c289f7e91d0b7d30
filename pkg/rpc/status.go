package rpc

import (
	"time"

	"github.com/0x1d/goplt/pkg/registry"
)

// Status is what a [Transport] knows of its target at one moment.
type Status struct {
	// Target is the text form of the target.
	Target string `json:"target"`
	// Instances are the instances known, sorted by ID.
	Instances []InstanceStatus `json:"instances"`
	// Updated is when the registry last brought a set; zero if it never did.
	Updated time.Time `json:"updated"`
	// Error is the registry's latest failure, empty since it last answered. The instances shown stand all the same.
	Error string `json:"error,omitempty"`
	// Panic says that so many instances are ejected that calls go to all of them again.
	Panic bool `json:"panic,omitempty"`
	// UnderWay is how many calls and streams are under way, and Limit how many [AdmissionConfig] lets be now; 0 if it bounds nothing.
	UnderWay int64 `json:"under_way"`
	Limit    int   `json:"limit,omitempty"`
	// Changes are the latest changes of instances, those that left included, the latest last.
	Changes []Change `json:"changes,omitempty"`
}

// InstanceStatus is what a [Transport] knows of one instance.
type InstanceStatus struct {
	// ID and Addr tell which instance it is.
	ID   string `json:"id"`
	Addr string `json:"addr"`
	// Zone and Weight are what the registry says.
	Zone   string `json:"zone,omitempty"`
	Weight int    `json:"weight"`
	// Health is what the registry's checks say of it; empty if unknown.
	Health registry.Health `json:"health,omitempty"`
	// Protocol is how the instance is spoken to now.
	Protocol Protocol `json:"protocol"`
	// Breaker is the state of its circuit breaker: "closed", "open", "half-open", or "disabled".
	Breaker string `json:"breaker"`
	// Ejection says whether it is kept out as an outlier: "serving", "ejected", "awaiting probe", or "disabled". EjectedUntil is when the ejection
	// will have passed, or the next probe is due.
	Ejection     string    `json:"ejection"`
	EjectedUntil time.Time `json:"ejected_until,omitzero"`
	// InFlight is how many attempts and streams are under way.
	InFlight int64 `json:"in_flight"`
	// Latency is what an answer is expected to take, a moving average that rises faster than it falls; 0 if too little is known. Failures in a row
	// raise it, up to 30s, until the next answer. In JSON, a number of nanoseconds.
	Latency time.Duration `json:"latency"`
	// Spare says that the instance is outside the subset that this client uses as long as enough of that can serve.
	Spare bool `json:"spare,omitempty"`
	// Probe is the latest probe of its health; nil if there was none.
	Probe *ProbeStatus `json:"probe,omitempty"`
	// Calls counts the attempts made since the instance is known, Failures those that failed to be served.
	Calls    uint64 `json:"calls"`
	Failures uint64 `json:"failures"`
	// Connections is how many connections are open to it.
	Connections int `json:"connections"`
	// Change is what happened to it last.
	Change Change `json:"change"`
}

// ProbeStatus is how a probe by grpc.health.v1 ended.
type ProbeStatus struct {
	// At is when it began, and Duration how long it took, with a new connection if it needed one. In JSON, a number of nanoseconds.
	At       time.Time     `json:"at"`
	Duration time.Duration `json:"duration"`
	// Error is why it failed; empty if the instance takes calls.
	Error string `json:"error,omitempty"`
}

// Status returns what the transport knows now. It begins to watch the target if nothing has yet. With the protocol inprocess there is
// nothing to know but the target.
func (t *Transport) Status() Status {
	if t.inProcess != nil {
		return Status{Target: t.name}
	}
	if !t.closed.Load() {
		t.start.Do(t.watch)
	}
	current := t.view.Load()
	status := Status{
		Target: t.name, UnderWay: t.active.Load(), Updated: current.updated, Changes: t.changes.all(),
		Instances: make([]InstanceStatus, 0, len(current.instances)),
	}
	if t.prober != nil {
		status.Panic = t.prober.detector.Panic()
	}
	if t.admission != nil {
		status.Limit = t.admission.Limit()
	}
	if current.err != nil {
		status.Error = current.err.Error()
	}
	for at, known := range current.instances {
		shown := known.status(t.config.Protocol)
		shown.Spare = !current.picker.InSubset(at)
		status.Instances = append(status.Instances, shown)
	}
	return status
}

// status tells what is known of the instance, but for what only a set tells.
func (i *instance) status(spoken Protocol) InstanceStatus {
	described := i.described.Load()
	status := InstanceStatus{
		ID: i.id, Addr: i.addr, Zone: described.Zone, Weight: described.Weight, Health: described.Health,
		Protocol: i.wireFor(spoken).protocol, Breaker: "disabled", Ejection: "disabled",
		InFlight: i.stats.InFlight(), Latency: i.stats.EWMA(), Calls: i.calls.Load(), Failures: i.fails.Load(),
		Connections: i.grpc.pool.Len() + i.http.pool.Len(), Probe: i.lastProbe.Load(), Change: *i.lastChange.Load(),
	}
	if i.breaker != nil {
		status.Breaker = i.breaker.State()
	}
	if i.host != nil {
		state := i.host.State()
		status.Ejection, status.EjectedUntil = state.Phase.String(), state.Until
	}
	return status
}
