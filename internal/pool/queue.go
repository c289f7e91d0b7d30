package pool

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"time"
)

// sweepInterval is how often a free slot is looked for on behalf of those who wait, although nothing announced one. Slots are announced
// in all but the rarest cases; see [Conn.stateChanged].
const sweepInterval = 100 * time.Millisecond

// waiter is a caller who waits for a connection.
type waiter struct {
	place    *list.Element // in the queue; nil once the caller was answered or left; guarded by Pool.mu
	deadline time.Time     // zero if there is none
	answered chan answer   // takes one answer without blocking
}

type answer struct {
	conn *Conn
	err  error
}

// wait queues for a connection.
func (p *Pool) wait(ctx context.Context) (*Conn, error) {
	w := &waiter{answered: make(chan answer, 1)}
	w.deadline, _ = ctx.Deadline()
	if !p.enqueue(w) {
		return nil, ErrClosed
	}
	// Looked at only now, when this caller is in the queue, so that no slot that comes free between the two can go unseen.
	p.serve()
	select {
	case got := <-w.answered:
		return got.conn, got.err
	case <-ctx.Done():
	}
	if !p.leave(w) {
		if got := <-w.answered; got.conn != nil {
			got.conn.Release()
		}
	}
	return nil, fmt.Errorf("wait for a connection to %s: %w", p.config.Addr, ctx.Err())
}

func (p *Pool) enqueue(w *waiter) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false
	}
	w.place = p.queue.PushBack(w)
	p.queued.Add(1)
	if p.queueSweeps == nil {
		p.queueSweeps = time.AfterFunc(sweepInterval, p.sweepQueue)
	}
	return true
}

// leave takes a caller out of the queue, unless they have been answered.
func (p *Pool) leave(w *waiter) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if w.place == nil {
		return false
	}
	p.removeLocked(w)
	return true
}

func (p *Pool) removeLocked(w *waiter) {
	p.queue.Remove(w.place)
	w.place = nil
	p.queued.Add(-1)
}

// serve gives free slots to those who wait, in their order, and has connections opened for those who are left. It is called, with no
// lock held, whenever a slot or the place for a connection may have come free. One goroutine at a time does so, on behalf of all who ask
// meanwhile: two would each reserve a slot for the same waiter, and take the lack of a third for a reason to open a connection.
func (p *Pool) serve() {
	if p.queued.Load() == 0 || p.serving.Add(1) > 1 {
		return
	}
	for asked := int64(1); asked > 0; asked = p.serving.Add(-asked) {
		asked = p.serving.Load() // all of these are answered by what follows
		p.serveQueue()
	}
}

func (p *Pool) serveQueue() {
	for p.queued.Load() > 0 {
		conn := p.take()
		switch {
		case conn != nil && p.answerFirst(answer{conn: conn}):
		case conn != nil:
			conn.Release() // the waiter has left
		case p.grow():
			return
		}
	}
}

func (p *Pool) answerFirst(with answer) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.answerFirstLocked(with)
}

func (p *Pool) answerFirstLocked(with answer) bool {
	first := p.queue.Front()
	if first == nil {
		return false
	}
	p.answerLocked(first.Value.(*waiter), with) //nolint:errcheck,forcetypeassert // the queue holds nothing else
	return true
}

func (p *Pool) answerLocked(w *waiter, with answer) {
	p.removeLocked(w)
	w.answered <- with
}

// failLocked answers all who wait with an error, but for those whom it does not concern.
func (p *Pool) failLocked(err error) {
	for next := p.queue.Front(); next != nil; {
		w := next.Value.(*waiter) //nolint:errcheck,forcetypeassert // as above
		next = next.Next()
		if w.concerned(err) {
			p.answerLocked(w, answer{err: err})
		}
	}
}

// concerned reports whether a dial's failure is the caller's, too. A peer that was silent for as long as another could wait, who was in a hurry, has
// told nothing to one who has more time.
func (w *waiter) concerned(err error) bool {
	hurried, ok := errors.AsType[*hurriedError](err)
	switch {
	case !ok:
		return true
	case w.deadline.IsZero():
		return hurried.limit >= SettingsTimeout
	default:
		return hurried.limit >= greetingLimit(max(time.Until(w.deadline), time.Nanosecond))
	}
}

func (p *Pool) sweepQueue() {
	p.mu.Lock()
	if p.closed || p.queue.Len() == 0 {
		p.queueSweeps = nil
		p.mu.Unlock()
		return
	}
	p.queueSweeps.Reset(sweepInterval)
	p.mu.Unlock()
	p.serve()
}
