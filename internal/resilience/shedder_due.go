package resilience

import (
	"slices"
	"time"
)

const (
	dueSlots  = 1024
	dueLength = 50 * time.Millisecond // of a slot; all together look 51s ahead
	untracked = -1                    // is the slot of a call that is in none
)

// dueCalls counts the calls in flight by when their time is over, in slots of a ring. So calls that run out of time are noticed though they do
// not end: handlers that pay no heed to their deadline, and are too many to finish, would otherwise show nothing for long.
type dueCalls struct {
	slots [dueSlots]lateCalls
	next  int64 // the first slot that is not over
}

// lateCalls are calls that run out of time at about the same moment.
type lateCalls struct {
	calls   int
	allowed time.Duration // the time that they had, all together
	current int           // how many of them were admitted under the limit in force
	known   int           // how many of these are of methods that were seen to be in time
}

func (l *lateCalls) add(sign int, other lateCalls) {
	l.calls += sign * other.calls
	l.allowed += time.Duration(sign) * other.allowed
	l.current += sign * other.current
	l.known += sign * other.known
}

// add counts a call that is due after now, and returns its slot. One that is due further away than the ring reaches is in none.
func (d *dueCalls) add(due time.Duration, call lateCalls) int64 {
	if due > time.Duration(d.next+dueSlots-1)*dueLength {
		return untracked
	}
	slot := int64((due + dueLength - 1) / dueLength)
	d.slots[slot%dueSlots].add(1, call)
	return slot
}

// remove takes out a call that ends, and reports false if its time was over and it has been counted as such.
func (d *dueCalls) remove(slot int64, call lateCalls) bool {
	switch {
	case slot == untracked:
		return true
	case slot < d.next:
		return false
	}
	d.slots[slot%dueSlots].add(-1, call)
	return true
}

// sweep takes out the calls whose time is over.
func (d *dueCalls) sweep(now time.Duration) lateCalls {
	var late lateCalls
	over := int64(now / dueLength)
	for ; d.next <= over; d.next++ {
		if d.next+dueSlots <= over {
			d.next = over - dueSlots + 1 // no call is due further ahead of its admission than the ring is long
		}
		at := &d.slots[d.next%dueSlots]
		late.add(1, *at)
		*at = lateCalls{}
	}
	return late
}

// begin says that from now on there is another limit.
func (d *dueCalls) begin() {
	for at := range d.slots {
		d.slots[at].current, d.slots[at].known = 0, 0
	}
}

// peakRate is the highest number of events in one second of the last minute.
type peakRate struct {
	seconds [60]int
	latest  int64
}

func (p *peakRate) add(now time.Duration) {
	p.advance(now)
	p.seconds[p.latest%int64(len(p.seconds))]++
}

// advance forgets what was more than a minute ago.
func (p *peakRate) advance(now time.Duration) {
	second, size := int64(now/time.Second), int64(len(p.seconds))
	for p.latest = max(p.latest, second-size); p.latest < second; {
		p.latest++
		p.seconds[p.latest%size] = 0
	}
}

func (p *peakRate) perSecond(now time.Duration) int {
	p.advance(now)
	return slices.Max(p.seconds[:])
}
