package servicestest

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect/v2"
)

// Faults makes a server fail on purpose: late, with an error, or by losing its connections. Put its [Faults.Interceptor] first on the
// [connect.Server], and its [Faults.Listener] between the HTTP server and the network; [Start] does both. Safe for concurrent use.
//
// A fault strikes the calls whose procedure has a name, which is one of
//
//	auth.Login                           a method: the service's name without "Service", in lower case, and the method's
//	auth                                 a service: all its methods
//	/goplt.auth.v1.AuthService/Login     a procedure in full
//	*                                    everything
//
// Faults that strike the same call do so in the order in which they were added, those before its execution first, until one ends it.
type Faults struct {
	conns connections

	mu     sync.Mutex
	faults []*Fault
	// refuse is told of names that no procedure of the server has. Nil if the procedures are not known.
	refuse     func(name string, known []string)
	procedures []string
}

// NewFaults returns faults of which there are none yet.
func NewFaults() *Faults { return &Faults{conns: newConnections()} }

// Fault is one way to fail, once it is added to [Faults].
type Fault struct {
	procedure string
	when      moment
	act       func(ctx context.Context, f *Faults, gone <-chan struct{}) error

	faults *Faults
	left   int // Strikes left; negative for no end. Guarded by faults.mu, as is hits.
	hits   int
	gone   chan struct{} // Closed when the fault is removed.
	remove func()
}

// moment is when a fault strikes.
type moment int

const (
	beforeExecution moment = iota
	afterExecution
)

// FaultOption says when a fault strikes.
type FaultOption func(*Fault)

// Times lets a fault strike the next n calls only. By default, it strikes until it is removed.
func Times(n int) FaultOption { return func(fault *Fault) { fault.left = max(n, 0) } }

// AfterExecution lets the handler run before the fault strikes, so that the call had its effect and the answer is late or lost. By
// default, the fault strikes before the handler runs.
func AfterExecution() FaultOption { return func(fault *Fault) { fault.when = afterExecution } }

// Hits returns how many calls the fault struck.
func (f *Fault) Hits() int {
	f.faults.mu.Lock()
	defer f.faults.mu.Unlock()
	return f.hits
}

// Remove ends the fault. Calls that it delays go on at once. It may be called more than once.
func (f *Fault) Remove() { f.remove() }

// Fail fails calls with a status code and the message "injected fault".
func (f *Faults) Fail(procedure string, code connect.Code, opts ...FaultOption) *Fault {
	return f.add(procedure, opts, func(context.Context, *Faults, <-chan struct{}) error {
		return connect.NewError(code, "injected fault")
	})
}

// Delay makes calls wait for d, or until their context ends, before they go on.
func (f *Faults) Delay(procedure string, d time.Duration, opts ...FaultOption) *Fault {
	return f.add(procedure, opts, func(ctx context.Context, _ *Faults, gone <-chan struct{}) error {
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-gone:
		case <-ctx.Done():
			return ctx.Err()
		}
		return nil
	})
}

// Drop resets the connection that a call came over instead of answering, which takes the other calls on it along. A call that came
// over no connection of the [Faults.Listener], such as one in the same process, fails with [connect.CodeUnavailable].
func (f *Faults) Drop(procedure string, opts ...FaultOption) *Fault {
	return f.add(procedure, opts, func(ctx context.Context, f *Faults, _ <-chan struct{}) error {
		if info, ok := connect.CallInfoForServerContext(ctx); ok {
			f.conns.reset(info.PeerAddr)
		}
		return connect.NewError(connect.CodeUnavailable, "injected fault: connection dropped")
	})
}

// DropConnections resets all connections that are open now, with the calls on them, and returns how many there were. New ones are
// accepted.
func (f *Faults) DropConnections() int { return f.conns.resetAll() }

// Clear removes all faults.
func (f *Faults) Clear() {
	f.mu.Lock()
	faults := slices.Clone(f.faults)
	f.mu.Unlock()
	for _, fault := range faults {
		fault.Remove()
	}
}

func (f *Faults) add(procedure string, opts []FaultOption, act func(context.Context, *Faults, <-chan struct{}) error) *Fault {
	fault := &Fault{procedure: procedure, act: act, faults: f, left: -1, gone: make(chan struct{})}
	fault.remove = sync.OnceFunc(func() {
		close(fault.gone)
		f.mu.Lock()
		defer f.mu.Unlock()
		f.faults = slices.DeleteFunc(f.faults, func(other *Fault) bool { return other == fault })
	})
	for _, opt := range opts {
		opt(fault)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.refuse != nil && !slices.ContainsFunc(f.procedures, fault.strikes) {
		f.refuse(procedure, f.procedures)
	}
	f.faults = append(f.faults, fault)
	return fault
}

// strikes reports whether a procedure, such as "/goplt.auth.v1.AuthService/Login", has the fault's name.
func (f *Fault) strikes(procedure string) bool {
	if f.procedure == "*" || f.procedure == procedure {
		return true
	}
	service, method, ok := strings.Cut(strings.TrimPrefix(procedure, "/"), "/")
	if !ok {
		return false
	}
	short := strings.ToLower(strings.TrimSuffix(service[strings.LastIndexByte(service, '.')+1:], "Service"))
	return f.procedure == short || f.procedure == short+"."+method
}

// take counts a strike, if one is left.
func (f *Fault) take() bool {
	f.faults.mu.Lock()
	defer f.faults.mu.Unlock()
	if f.left == 0 {
		return false
	}
	if f.left > 0 {
		f.left--
	}
	f.hits++
	return true
}

// striking returns the faults that are to strike a call at a moment.
func (f *Faults) striking(procedure string, when moment) []*Fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	var striking []*Fault
	for _, fault := range f.faults {
		if fault.when == when && fault.left != 0 && fault.strikes(procedure) {
			striking = append(striking, fault)
		}
	}
	return striking
}

// strike has faults strike a call, until one ends it.
func (f *Faults) strike(ctx context.Context, faults []*Fault) error {
	for _, fault := range faults {
		if !fault.take() {
			continue
		}
		if err := fault.act(ctx, f, fault.gone); err != nil {
			return err
		}
	}
	return nil
}

// Interceptor returns what injects the faults into the calls of a server.
func (f *Faults) Interceptor() connect.ServerInterceptor {
	return func(next connect.ServerFunc) connect.ServerFunc {
		return func(ctx context.Context, spec connect.Spec, stream connect.ServerStream) error {
			if err := f.strike(ctx, f.striking(spec.Procedure, beforeExecution)); err != nil {
				return err
			}
			after := f.striking(spec.Procedure, afterExecution)
			if len(after) == 0 {
				return next(ctx, spec, stream)
			}
			// The answer is held back until it is clear that there is to be one: a call that was answered cannot fail any more.
			held := &heldStream{ServerStream: stream}
			if err := next(ctx, spec, held); err != nil {
				return err
			}
			if err := f.strike(ctx, after); err != nil {
				return err
			}
			return held.release()
		}
	}
}

// heldStream keeps the messages that a handler sends.
type heldStream struct {
	connect.ServerStream

	messages []any
}

func (s *heldStream) SendHeaders() error { return nil }

func (s *heldStream) Send(message any) error {
	s.messages = append(s.messages, message)
	return nil
}

func (s *heldStream) release() error {
	for _, message := range s.messages {
		if err := s.ServerStream.Send(message); err != nil {
			return err
		}
	}
	return nil
}
