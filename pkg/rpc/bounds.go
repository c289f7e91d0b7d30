package rpc

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/0x1d/goplt/internal/pool"
)

// bounds has an exchange end by a deadline that its context does not have: an attempt's own.
//
// A context below the caller's would cost up to seven allocations and most of a microsecond, on each call. So what ends the exchange is an alarm that
// is used again and again. Over HTTP/1.1 it closes the connection, as net/http would because of a context; over HTTP/2 it closes the channel of
// [http.Request.Cancel], which net/http heeds wherever it heeds the context. To all who ask, the exchange is a context that has the deadline and ends
// with it. But what its Done returns is the caller's, so it is no context to wait with.
type bounds struct {
	deadline    time.Time // zero if the context has it
	connectBy   time.Time // when to give up waiting for a connection; zero if only the deadline bounds that
	whole       time.Time // when that ends which has to know soon whether the peer speaks HTTP/2; zero if nothing is in a hurry
	expired     atomic.Bool
	alarm       *alarm // nil while there is none
	reservation uint64 // of the connection, over HTTP/1.1
}

// endBy has the exchange end by a deadline.
func (e *exchange) endBy(deadline, now time.Time) {
	e.bounds.deadline = deadline
	e.bounds.expired.Store(!now.Before(deadline))
}

// acquire gets the exchange, which began to look for one just now, a connection by its deadline, over which the alarm watches from then on, until
// release.
func (e *exchange) acquire(wire *wire, alarms *alarms, now time.Time) (err error) {
	if e.Err() == nil {
		e.conn, e.began = wire.pool.TryAcquire(), now
	}
	if e.conn == nil {
		e.began = time.Time{}
		if e.conn, err = e.await(wire.pool); err != nil {
			return err
		}
		e.began = time.Now()
	}
	if wire.protocol == ProtocolHTTP {
		e.written = e.conn.BytesWritten()
	}
	if !e.bounds.deadline.IsZero() {
		if wire.protocol == ProtocolHTTP {
			e.bounds.reservation = e.conn.Reservation()
		}
		e.bounds.alarm = alarms.set(e, e.bounds.deadline.Sub(e.began))
	}
	return nil
}

// await waits for a connection.
func (e *exchange) await(connections *pool.Pool) (*pool.Conn, error) {
	until := e.bounds.connectBy // which is before the deadline
	if until.IsZero() {
		until = e.bounds.deadline
	}
	conn, err := awaitConnection(e, connections, until, e.bounds.whole)
	if noneInTime := errors.Is(err, errNoConnection); noneInTime || err != nil && e.Err() != nil {
		e.crowded = connections.Busy()
		if noneInTime && e.bounds.connectBy.IsZero() {
			e.bounds.expired.Store(true)
		}
	}
	return conn, err
}

// awaitConnection waits for a connection until some time, zero if only its context bounds that. How long a peer may be silent before it is taken
// for one without HTTP/2 depends on another, whole: what is not in a hurry may go elsewhere meanwhile, but must not take a slow peer for what it is
// not.
func awaitConnection(ctx context.Context, connections *pool.Pool, until, whole time.Time) (*pool.Conn, error) {
	bounded, cancel := ctx, context.CancelFunc(func() {})
	if !until.IsZero() {
		bounded, cancel = context.WithDeadline(ctx, until)
	}
	defer cancel()
	conn, err := connections.Acquire(hurry{bounded, whole})
	if err != nil && bounded.Err() != nil && ctx.Err() == nil {
		err = errNoConnection
	}
	return conn, err
}

// hurried returns the time by which one has to know whether the peer speaks HTTP/2 that waits for limit, until own, of a call that has until
// deadline: that, unless it leaves before a silent peer is taken for one without. Nobody would ever hear of it then.
func hurried(limit time.Duration, own, deadline time.Time) time.Time {
	if limit <= pool.SettingsTimeout {
		return own
	}
	return deadline
}

// hurry is a context whose deadline is not when it ends, but how much of a hurry there is.
type hurry struct {
	context.Context //nolint:containedctx // it is a context, but for its deadline

	deadline time.Time
}

// Deadline implements [context.Context].
func (h hurry) Deadline() (time.Time, bool) { return h.deadline, !h.deadline.IsZero() }

// errNoConnection is why an attempt is given up before its call is: it may be made elsewhere, as nothing of it was sent.
var errNoConnection = errors.New("no connection within attempt_timeout")

// release ends the watch over the deadline, once the exchange has ended.
func (e *exchange) release(alarms *alarms) {
	if e.bounds.alarm != nil {
		alarms.stop(e.bounds.alarm)
	}
}

// Deadline implements [context.Context].
func (e *exchange) Deadline() (time.Time, bool) {
	if !e.bounds.deadline.IsZero() {
		return e.bounds.deadline, true
	}
	return e.Context.Deadline()
}

// Err implements [context.Context].
func (e *exchange) Err() error {
	if err := e.Context.Err(); err != nil || !e.bounds.expired.Load() {
		return err
	}
	return context.DeadlineExceeded
}

// alarm ends the exchange that it is set for.
type alarm struct {
	timer *time.Timer
	rung  chan struct{} // closed when it rang, after which it is not used again
	of    atomic.Pointer[exchange]
}

// alarms are those of a transport that are not set.
type alarms struct{ unset sync.Pool }

// set has an alarm ring for an exchange after some time.
func (a *alarms) set(e *exchange, after time.Duration) *alarm {
	if used, ok := a.unset.Get().(*alarm); ok {
		used.of.Store(e)
		used.timer.Reset(after)
		return used
	}
	made := &alarm{rung: make(chan struct{})}
	made.of.Store(e)
	made.timer = time.AfterFunc(after, made.ring)
	return made
}

// stop unsets an alarm. One that rings already is left to itself: it is set for the same exchange for ever.
func (a *alarms) stop(set *alarm) {
	if set.timer.Stop() {
		set.of.Store(nil) // which may be large
		a.unset.Put(set)
	}
}

func (a *alarm) ring() {
	e := a.of.Load()
	e.bounds.expired.Store(true)
	close(a.rung)
	if e.bounds.reservation > 0 {
		e.conn.AbandonReservation(e.bounds.reservation)
	}
}
