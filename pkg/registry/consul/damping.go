package consul

import (
	"slices"
	"strings"
	"time"

	"github.com/0x1d/goplt/pkg/registry"
)

// damping keeps an instance in the set for a grace after its check began to fail, so that a check that flaps tears down no connection. An instance is
// added at once, and one that was deregistered or is in maintenance leaves at once: somebody said so.
//
// A check that flaps at 5 Hz keeps its instance for as long as it flaps. Looks are 500 ms apart while the state changes, at least five of them in the
// default grace, and one that finds the check passing ends the grace. They cannot all meet the critical half of its period: 500 ms is 2.5 periods
// of 200 ms, so every other look falls into the other half, and 1.25 of 400 ms. At other frequencies looks may beat with the check; then its own
// index, which Consul raises with each change of status, tells that it was something else than critical in between. Where several checks fail, each
// has to have changed.
//
// It belongs to the goroutine of its feed.
type damping struct {
	grace time.Duration
	known map[string]held // by ID, what the last look had in the set
	// patient is until when nothing leaves, as there was an outage.
	patient time.Time
}

// outageGrace is how long instances stand after an outage whose checks fail then: those of an agent that was restarted with its data fail until they
// have run for the first time, up to an interval later.
const outageGrace = 15 * time.Second

// held is what is known of an instance in the set.
type held struct {
	addr   string
	weight int
	since  uint64    // since which index it fails
	until  time.Time // when it leaves, as its check fails; zero while that passes
}

// apply returns the set: what is live, and what fails but not for long. Both are sorted by ID, and the set is.
func (d *damping) apply(now time.Time, live, failing []checked) []registry.Instance {
	set, next := make([]registry.Instance, 0, len(live)), make(map[string]held, len(live))
	for _, instance := range live {
		set = append(set, instance.Instance)
		next[instance.ID] = held{addr: instance.Addr(), weight: instance.Weight}
	}
	for _, instance := range failing {
		was, ok := d.known[instance.ID]
		if !ok || d.grace == 0 || was.addr != instance.Addr() { // it never was well, or not where it is now
			continue
		}
		if was.until.IsZero() || was.since != instance.since {
			was.until, was.since = now.Add(max(d.grace, d.patient.Sub(now))), instance.since
		}
		if !now.Before(was.until) {
			continue
		}
		next[instance.ID] = was
		instance.Weight = was.weight
		set = append(set, instance.Instance)
	}
	d.known = next
	slices.SortFunc(set, func(a, b registry.Instance) int { return strings.Compare(a.ID, b.ID) })
	return set
}

// restart begins the graces anew: what happened meanwhile was not seen.
func (d *damping) restart(now time.Time) {
	d.patient = now.Add(outageGrace)
	for id, instance := range d.known {
		instance.until = time.Time{}
		d.known[id] = instance
	}
}

// earliest returns when the first instance is to leave, if its check fails still; zero if none is.
func (d *damping) earliest() (earliest time.Time) {
	for _, instance := range d.known {
		if !instance.until.IsZero() && (earliest.IsZero() || instance.until.Before(earliest)) {
			earliest = instance.until
		}
	}
	return earliest
}
