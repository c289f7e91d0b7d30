package consul

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/0x1d/goplt/pkg/registry"
)

// lossGrace is how long instances stand that Consul lost with its state, and how long an empty set is not believed that follows an outage or a loss:
// whoever is registered notices within [Config.VerifyInterval] or so, and registers again.
const lossGrace = time.Minute

// loss keeps the instances that Consul lost with its state, until each is named again, another is at its address, or its time is over. They register
// again one after another; a set of those that have done so already would give all calls to the first. One that is named again and then gone has
// left, as ever.
//
// It belongs to the goroutine of its feed.
type loss struct {
	missing map[string]registry.Instance // by ID; those that were not named since
	until   time.Time
}

// begin notes that Consul lost its state, perhaps again, when last stood.
func (l *loss) begin(now time.Time, last []registry.Instance) {
	l.until, l.missing = now.Add(lossGrace), make(map[string]registry.Instance, len(last))
	for _, instance := range last {
		l.missing[instance.ID] = instance
	}
}

// apply returns set with those that are missing still, as critical, sorted by ID. An empty set stays so: it has a grace of its own.
func (l *loss) apply(now time.Time, set []registry.Instance, read *reading) []registry.Instance {
	if len(l.missing) == 0 {
		return set
	}
	for _, named := range [][]checked{read.live, read.failing} {
		for _, instance := range named {
			delete(l.missing, instance.ID)
		}
	}
	for id := range read.maintained {
		delete(l.missing, id)
	}
	if !now.Before(l.until) {
		l.missing = nil
	}
	if len(set) == 0 {
		return set
	}
	// Two processes cannot be at one address: the one that was there is gone, also when its successor has left or fails.
	for _, other := range set {
		maps.DeleteFunc(l.missing, func(_ string, instance registry.Instance) bool { return other.Addr() == instance.Addr() })
	}
	for _, instance := range l.missing {
		instance.Health = registry.HealthCritical
		set = append(set, instance)
	}
	slices.SortFunc(set, func(a, b registry.Instance) int { return strings.Compare(a.ID, b.ID) })
	return set
}

// ends returns when the missing leave; zero if none is.
func (l *loss) ends() time.Time {
	if len(l.missing) == 0 {
		return time.Time{}
	}
	return l.until
}
