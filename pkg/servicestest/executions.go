package servicestest

import (
	"context"
	"crypto/rand"
	"maps"
	"slices"
	"sync"
	"testing"

	"connectrpc.com/connect/v2"
)

// CallIDHeader is the request header that has a call's ID, which all attempts at the call share.
const CallIDHeader = "X-Test-Call-Id"

// Executions proves how often calls were executed, whatever failed on the way: clients give each call an ID, which retries, hedges and
// fallbacks carry along, and servers count by ID. Servers may share one. Safe for concurrent use.
//
//	executions := servicestest.NewExecutions()
//	handlers := connect.NewServer(executions.CountExecutions())
//	client := connect.NewClient(transport, executions.IdentifyCalls())
//	// … calls, while things fail …
//	executions.ExpectAtMostOnce(t)
//
// Servers and clients by others than Connect v2 do the same with [CallIDHeader], [NewCallID] and [Executions.Count] in an interceptor of
// theirs; a call of gRPC's Go implementation has it in its metadata.
type Executions struct {
	mu    sync.Mutex
	times map[string]int
	// issued has the IDs that IdentifyCalls gave. A caller who uses one context for several calls shows it that of the call before.
	issued map[string]bool
}

// NewExecutions returns a count of none yet.
func NewExecutions() *Executions {
	return &Executions{times: make(map[string]int), issued: make(map[string]bool)}
}

// NewCallID returns an ID that no other call has.
func NewCallID() string { return rand.Text() }

// Count counts the execution of a call.
func (e *Executions) Count(id string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.times[id]++
}

// Of returns how often a call was executed.
func (e *Executions) Of(id string) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.times[id]
}

// Total returns how many executions there were of all calls.
func (e *Executions) Total() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	total := 0
	for _, times := range e.times {
		total += times
	}
	return total
}

// ExpectAtMostOnce fails the test for each call that was executed more than once, and for executions of calls without an ID, of which
// nothing can be proved.
func (e *Executions) ExpectAtMostOnce(tb testing.TB) {
	tb.Helper()
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, id := range slices.Sorted(maps.Keys(e.times)) {
		switch times := e.times[id]; {
		case id == "":
			tb.Errorf("%d executions of calls without the header %s", times, CallIDHeader)
		case times > 1:
			tb.Errorf("call %s was executed %d times", id, times)
		}
	}
}

// CountExecutions returns what counts the calls of a server. Put it last, so that it runs when the handler does.
func (e *Executions) CountExecutions() connect.ServerInterceptor {
	return func(next connect.ServerFunc) connect.ServerFunc {
		return func(ctx context.Context, spec connect.Spec, stream connect.ServerStream) error {
			id := ""
			if info, ok := connect.CallInfoForServerContext(ctx); ok {
				id = info.RequestHeader().Get(CallIDHeader)
			}
			e.Count(id)
			return next(ctx, spec, stream)
		}
	}
}

// IdentifyCalls returns what gives the calls of a client an ID each, unless the caller has set [CallIDHeader] already, by
// [connect.NewClientContext].
func (e *Executions) IdentifyCalls() connect.ClientInterceptor {
	return func(next connect.ClientFunc) connect.ClientFunc {
		return func(ctx context.Context, spec connect.Spec) (connect.ClientStream, error) {
			info, ok := connect.CallInfoForClientContext(ctx)
			if !ok {
				ctx, info = connect.NewClientContext(ctx)
			}
			if id := info.RequestHeader().Get(CallIDHeader); id == "" || e.issuedByUs(id) {
				info.RequestHeader().Set(CallIDHeader, e.issue())
			}
			return next(ctx, spec)
		}
	}
}

func (e *Executions) issue() string {
	id := NewCallID()
	e.mu.Lock()
	defer e.mu.Unlock()
	e.issued[id] = true
	return id
}

func (e *Executions) issuedByUs(id string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.issued[id]
}
