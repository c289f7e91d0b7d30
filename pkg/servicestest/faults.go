package servicestest

import (
	"context"
	"iter"
	"time"

	"connectrpc.com/connect/v2"
)

// Faults makes a server fail on purpose: late, with an error, or by losing its connections. Put its [Faults.Interceptor] first on the
// [connect.Server], and its [Faults.Listener] between the HTTP server and the network; [Start] does both. Safe for concurrent use.
// [Fault] says which calls a fault strikes.
type Faults struct {
	conns connections
	set   faultSet
	among []*Faults // those of the instances that these are of, which have the connections
}

// serverEffect is what a fault does to a call in the server that has conns. An error ends the call. gone is closed when the fault is removed.
type serverEffect func(ctx context.Context, conns *connections, gone <-chan struct{}) error

// NewFaults returns faults of which there are none yet.
func NewFaults() *Faults { return &Faults{conns: newConnections()} }

// Fail fails calls with a status code and the message "injected fault".
func (f *Faults) Fail(procedure string, code connect.Code, opts ...FaultOption) *Fault {
	return f.add(procedure, opts, func(context.Context, *connections, <-chan struct{}) error {
		return connect.NewError(code, "injected fault")
	})
}

// Delay makes calls wait for d, or until their context ends, before they go on.
func (f *Faults) Delay(procedure string, d time.Duration, opts ...FaultOption) *Fault {
	return f.add(procedure, opts, func(ctx context.Context, _ *connections, gone <-chan struct{}) error { return delay(ctx, d, gone) })
}

// Drop resets the connection that a call came over instead of answering, which takes the other calls on it along. A call that came
// over no connection of the [Faults.Listener], such as one in the same process, fails with [connect.CodeUnavailable].
func (f *Faults) Drop(procedure string, opts ...FaultOption) *Fault {
	return f.add(procedure, opts, func(ctx context.Context, conns *connections, _ <-chan struct{}) error {
		if info, ok := connect.CallInfoForServerContext(ctx); ok {
			conns.reset(info.PeerAddr)
		}
		return connect.NewError(connect.CodeUnavailable, "injected fault: connection dropped")
	})
}

// DropConnections resets all connections that are open now, with the calls on them, and returns how many there were. New ones are
// accepted.
func (f *Faults) DropConnections() int {
	dropped := f.conns.resetAll()
	for _, one := range f.among {
		dropped += one.DropConnections()
	}
	return dropped
}

// Clear removes all faults.
func (f *Faults) Clear() { f.set.clear() }

func (f *Faults) add(procedure string, opts []FaultOption, effect serverEffect) *Fault {
	return f.set.add(&Fault{name: procedure, inServer: effect}, opts)
}

// delay waits for d, or until the fault is gone. It fails when ctx ends before.
func delay(ctx context.Context, d time.Duration, gone <-chan struct{}) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-gone:
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

// strike has faults strike a call, until one ends it.
func (c *connections) strike(ctx context.Context, faults iter.Seq[*Fault]) error {
	for fault := range faults {
		if err := fault.inServer(ctx, c, fault.gone); err != nil {
			return err
		}
	}
	return nil
}

// Interceptor returns what injects the faults into the calls of a server.
func (f *Faults) Interceptor() connect.ServerInterceptor { return f.interceptor(&f.conns) }

// interceptor injects the faults into the calls of a server that has conns.
func (f *Faults) interceptor(conns *connections) connect.ServerInterceptor {
	return func(next connect.ServerFunc) connect.ServerFunc {
		return func(ctx context.Context, spec connect.Spec, stream connect.ServerStream) error {
			call := struck{procedure: spec.Procedure}
			if info, ok := connect.CallInfoForServerContext(ctx); ok {
				call.grpc = info.Protocol == connect.ProtocolNameGRPC
			}
			if err := conns.strike(ctx, f.set.strike(call)); err != nil {
				return err
			}
			after := f.set.choose(call)
			if after.none() {
				return next(ctx, spec, stream)
			}
			defer after.release()
			// The answer is held back until it is clear that there is to be one: a call that was answered cannot fail any more.
			held := &heldStream{ServerStream: stream, ctx: ctx}
			answer := next(ctx, spec, held)
			if ctx.Err() != nil {
				return answer // to nobody
			}
			if err := conns.strike(ctx, after.strike()); err != nil {
				return err
			}
			if err := held.release(); err != nil {
				return err
			}
			return answer
		}
	}
}
