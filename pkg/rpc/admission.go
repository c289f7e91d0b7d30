package rpc

import (
	"errors"
	"fmt"
	"time"

	"connectrpc.com/connect/v2"

	"github.com/0x1d/goplt/internal/resilience"
)

// admitted makes a call once there is room for it.
func (c *call) admitted(dst any) error {
	place, err := c.admit()
	if err != nil {
		return c.failed(err)
	}
	telling := false // a panic tells nothing
	defer func() { place.Leave(telling) }()
	err = c.complete(dst)
	telling = c.number <= 1 && !c.resent && c.tells(err)
	return err
}

// tells reports whether the time that a call of one attempt took tells of the service's load: not if it was refused, which is fast, nor if the caller
// gave up, or gave less time than is configured.
func (c *call) tells(err error) bool {
	switch {
	case err == nil:
		return true
	case isRemote(err):
		return !refusesToServe(err)
	default:
		return isDeadline(err) && c.ctx.Err() == nil
	}
}

// admit waits until there is room for a call, within its time and until the transport is closed.
func (c *call) admit() (resilience.Place, error) {
	t := c.transport
	if place, ok := t.admission.TryAcquire(); ok {
		return place, nil
	}
	c.at = time.Time{} // from here on, it waits
	ctx, cancel := c.bounded()
	defer cancel()
	place, err := t.admission.Acquire(ctx)
	switch {
	case err == nil:
		return place, nil
	case t.ctx.Err() != nil:
		return place, cutOff(err)
	case errors.Is(err, resilience.ErrLimit):
		text := fmt.Sprintf("%v: admission.max_concurrent_calls of %s lets %d begin", ErrTooManyCalls, t.name, t.admission.Limit())
		return place, connect.NewError(connect.CodeResourceExhausted, text).WithCause(ErrTooManyCalls)
	default:
		return place, contextError(err)
	}
}

// admit waits until there is room for the stream that opener opens.
func (s *stream) admit(opener *call) (err error) {
	if s.transport.admission != nil {
		s.place, err = opener.admit()
	}
	return err
}

// leave counts the stream out. How long it lasted tells nothing of the service.
func (s *stream) leave() {
	if s.transport.admission != nil {
		s.place.Leave(false)
	}
	s.transport.end()
}
