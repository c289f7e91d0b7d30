package rpc

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// deregisterTimeout bounds the deregistration, so that a registry which is down does not keep the server from stopping.
	deregisterTimeout = 5 * time.Second
	// returnGrace is how long Stop waits for the handlers of calls that were cut off: their contexts are done, so most return at once.
	returnGrace = time.Second
)

// Stop stops the server without failing calls: it reports not serving, deregisters, goes on serving for DeregisterDelay if it was
// registered, so that the news spreads, and then drains. To drain is to close the listener and idle connections, to send GOAWAY on HTTP/2,
// and to wait for the calls in flight. After DrainTimeout, or when ctx is done, whatever is left is cut off, and the
// error says how many calls that were. Watches of health end by themselves; other streams are calls in flight.
//
// Stopping a server that was not started makes it unstartable. Further calls of Stop wait for the first, or for their ctx, and return
// the same error.
func (s *Server) Stop(ctx context.Context) error {
	s.mu.Lock()
	switch s.phase {
	case phaseStarted:
		s.phase = phaseStopped
		s.mu.Unlock()
		s.stopErr = s.stop(ctx)
		close(s.stopped)
		return s.stopErr
	case phaseNew:
		s.phase = phaseStopped
		s.abandon()
	case phaseStopped:
	}
	s.mu.Unlock()
	select {
	case <-s.stopped:
		return s.stopErr
	case <-ctx.Done():
		return fmt.Errorf("rpc: waiting for the server on %s to stop: %w", s.Addr(), ctx.Err())
	}
}

// abandon ends a server that does not run.
func (s *Server) abandon() {
	s.endReporting()
	s.health.stop()
	s.health.endWatches()
	if s.listener != nil {
		_ = s.listener.Close()
	}
	close(s.stopped)
}

func (s *Server) stop(ctx context.Context) error {
	s.endReports()
	s.health.stop()
	s.draining.Store(true)
	err := s.deregister(ctx)
	if len(s.registrations) > 0 {
		s.linger(ctx)
	}
	s.health.endWatches()
	err = errors.Join(err, s.drain(ctx))
	<-s.served
	if s.admission != nil {
		s.admission.news.close()
	}
	return errors.Join(s.serveErr, err)
}

// deregister takes back all registrations at once.
func (s *Server) deregister(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, deregisterTimeout)
	defer cancel()
	problems := make([]error, len(s.registrations))
	var group sync.WaitGroup
	for at, registered := range s.registrations {
		group.Go(func() {
			if err := registered.handle.Deregister(ctx); err != nil {
				problems[at] = fmt.Errorf("rpc: deregistering %s: %w", registered.instance.ID, err)
			}
		})
	}
	group.Wait()
	return errors.Join(problems...)
}

// linger waits until the deregistration has spread.
func (s *Server) linger(ctx context.Context) {
	spread := time.NewTimer(s.config.DeregisterDelay)
	defer spread.Stop()
	select {
	case <-spread.C:
	case <-s.served:
	case <-ctx.Done():
	}
}

// drain waits for the calls in flight, and cuts off those that take too long.
func (s *Server) drain(ctx context.Context) error {
	began := time.Now()
	drainCtx, cancel := context.WithTimeout(ctx, s.config.DrainTimeout)
	defer cancel()
	if s.http.Shutdown(drainCtx) == nil {
		return nil
	}
	cut, drained := s.calls.count(), time.Since(began).Round(time.Millisecond)
	_ = s.http.Close()
	if cut == 0 { // Connections that their clients kept open, nothing else.
		return nil
	}
	s.calls.await(returnGrace)
	return fmt.Errorf("rpc: server on %s: calls in flight cut off after a drain of %s: %d", s.Addr(), drained, cut)
}

// callCount counts the calls in flight.
type callCount struct {
	inFlight *atomic.Int64
	none     chan struct{} // holds a value after the count came to zero
}

func newCallCount() callCount {
	return callCount{inFlight: new(atomic.Int64), none: make(chan struct{}, 1)}
}

func (c callCount) begin() { c.inFlight.Add(1) }

func (c callCount) end() {
	if c.inFlight.Add(-1) == 0 {
		select {
		case c.none <- struct{}{}:
		default:
		}
	}
}

func (c callCount) count() int64 { return c.inFlight.Load() }

// await waits until no call is in flight, at most for limit.
func (c callCount) await(limit time.Duration) {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	for c.count() > 0 {
		select {
		case <-c.none:
		case <-timer.C:
			return
		}
	}
}
