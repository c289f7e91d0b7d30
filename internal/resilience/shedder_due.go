package resilience

import "time"

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
	current int           // how many of them were admitted under the limit in force
	allowed time.Duration // the time that they had, all together
}

// add counts a call that is due after now, and returns its slot. One that is due further away than the ring reaches is in none.
func (d *dueCalls) add(due, allowed time.Duration, current bool) int64 { //nolint:revive // current is what was found, not a mode
	if due > time.Duration(d.next+dueSlots-1)*dueLength {
		return untracked
	}
	slot := int64((due + dueLength - 1) / dueLength)
	at := &d.slots[slot%dueSlots]
	at.calls++
	at.allowed += allowed
	if current {
		at.current++
	}
	return slot
}

// remove takes out a call that ends, and reports false if its time was over and it has been counted as such.
func (d *dueCalls) remove(slot int64, allowed time.Duration, current bool) bool { //nolint:revive // current is what was found, not a mode
	switch {
	case slot == untracked:
		return true
	case slot < d.next:
		return false
	}
	at := &d.slots[slot%dueSlots]
	at.calls--
	at.allowed -= allowed
	if current {
		at.current--
	}
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
		late.calls += at.calls
		late.current += at.current
		late.allowed += at.allowed
		*at = lateCalls{}
	}
	return late
}

// begin says that from now on there is another limit.
func (d *dueCalls) begin() {
	for at := range d.slots {
		d.slots[at].current = 0
	}
}

// peakRate is the highest number of events in one second of the last minute.
type peakRate struct {
	seconds [60]int
	latest  int64
}

func (p *peakRate) add(now time.Duration) {
	second := int64(now / time.Second)
	p.seconds[p.advance(second)]++
}

// advance forgets the seconds without events up to the given one, and returns where that is.
func (p *peakRate) advance(second int64) int {
	size := int64(len(p.seconds))
	for p.latest = max(p.latest, second-size); p.latest < second; {
		p.latest++
		p.seconds[p.latest%size] = 0
	}
	return int(second % size)
}

// perSecond may be late to forget, where nothing was added since.
func (p *peakRate) perSecond() int {
	highest := 0
	for _, events := range p.seconds {
		highest = max(highest, events)
	}
	return highest
}
