package rpc_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect/v2"

	authv1 "github.com/0x1d/goplt/gen/goplt/auth/v1"
	"github.com/0x1d/goplt/pkg/registry"
	"github.com/0x1d/goplt/pkg/rpc"
)

func TestNoInstances(t *testing.T) {
	for _, row := range []struct {
		name  string
		reg   func() *scripted
		text  string
		cause error
	}{
		{"empty set", func() *scripted { return newScripted() }, "unavailable: no instances of scripted:///auth", nil},
		{"registry error", func() *scripted {
			reg := silent()
			reg.Fail(errRegistry)
			return reg
		}, "unavailable: no instances of scripted:///auth: registry is away", errRegistry},
	} {
		t.Run(row.name, func(t *testing.T) {
			transport := newTransport(t, row.reg(), nil)
			began := time.Now()
			err := login(t.Context(), transport)
			expectCode(t, err, connect.CodeUnavailable)
			if !errors.Is(err, rpc.ErrNoInstances) || row.cause != nil && !errors.Is(err, row.cause) {
				t.Errorf("%v matches ErrNoInstances: %t", err, errors.Is(err, rpc.ErrNoInstances))
			}
			if fmt.Sprint(err) != row.text {
				t.Errorf("got %q, want %q", err, row.text)
			}
			if took := time.Since(began); took > time.Second {
				t.Errorf("took %v; want it at once", took)
			}
		})
	}
}

var errRegistry = errors.New("registry is away")

// TestWaitsForTheFirstAnswer: as long as the registry has said nothing, nobody knows that there are no instances.
func TestWaitsForTheFirstAnswer(t *testing.T) {
	handler := &authHandler{}
	addr := startHTTP(t, handler.mount(), http1And2).Listener.Addr().String()
	reg := silent()
	transport := newTransport(t, reg, nil)
	done := make(chan error)
	go func() { done <- login(t.Context(), transport) }()
	reg.Set(instanceAt(t, "one", addr))
	if err := <-done; err != nil {
		t.Error(err)
	}

	mute := newTransport(t, silent(), nil)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	err := login(ctx, mute)
	expectCode(t, err, connect.CodeDeadlineExceeded)
	if want := "deadline_exceeded: context deadline exceeded: waited for instances of scripted:///auth"; fmt.Sprint(err) != want {
		t.Errorf("got %q, want %q", err, want)
	}
}

func TestKeyWaitForInstances(t *testing.T) {
	handler := &authHandler{}
	addr := startHTTP(t, handler.mount(), http1And2).Listener.Addr().String()
	reg := newScripted()
	transport := newTransport(t, reg, func(config *rpc.ClientConfig) { config.WaitForInstances = true })

	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	began := time.Now()
	err := login(ctx, transport)
	expectCode(t, err, connect.CodeDeadlineExceeded)
	if took := time.Since(began); !errors.Is(err, rpc.ErrNoInstances) || !errors.Is(err, context.DeadlineExceeded) || took > time.Second {
		t.Errorf("got %v after %v", err, took)
	}

	reg.Fail(errRegistry)
	await(t, "the registry's error", func() bool { return transport.Status().Error != "" })
	short, stopShort := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer stopShort()
	if err := login(short, transport); !errors.Is(err, errRegistry) || !strings.HasSuffix(err.Error(), "scripted:///auth: "+errRegistry.Error()) {
		t.Errorf("got %v, want it to end with what is wrong with the registry", err)
	}

	done := make(chan error)
	go func() { done <- login(t.Context(), transport) }()
	reg.Set(instanceAt(t, "one", addr))
	if err := <-done; err != nil {
		t.Error(err)
	}

	cancelled, stop := context.WithCancel(t.Context())
	stop()
	reg.Set()
	await(t, "the set to be empty", func() bool { return len(transport.Status().Instances) == 0 })
	expectCode(t, login(cancelled, transport), connect.CodeCanceled)
}

func TestRegistryErrorKeepsTheInstances(t *testing.T) {
	handler := &authHandler{}
	reg := newScripted(instanceAt(t, "one", startHTTP(t, handler.mount(), http1And2).Listener.Addr().String()))
	transport := newTransport(t, reg, nil)
	if err := login(t.Context(), transport); err != nil {
		t.Fatal(err)
	}
	reg.Fail(errRegistry)
	await(t, "the error to be known", func() bool { return transport.Status().Error == errRegistry.Error() })
	if err := login(t.Context(), transport); err != nil {
		t.Error(err)
	}
	if status := transport.Status(); len(status.Instances) != 1 || status.Updated.IsZero() || status.Instances[0].Calls != 2 {
		t.Errorf("status %+v", status)
	}
	reg.Set(instanceAt(t, "one", "127.0.0.1:1"))
	await(t, "the error to be over", func() bool { return transport.Status().Error == "" })
}

// TestRemovalLetsCallsFinish: an instance that the registry no longer names gets no further call, and finishes those it has.
func TestRemovalLetsCallsFinish(t *testing.T) {
	for _, spoken := range []rpc.Protocol{rpc.ProtocolGRPC, rpc.ProtocolHTTP} {
		t.Run(string(spoken), func(t *testing.T) {
			entered, release := make(chan struct{}, 1), make(chan struct{})
			gone := &authHandler{login: func(context.Context, *authv1.LoginRequest) (*authv1.LoginResponse, error) {
				entered <- struct{}{}
				<-release
				return &authv1.LoginResponse{Tokens: &authv1.TokenPair{AccessToken: "a"}}, nil
			}}
			other := &authHandler{}
			goneServer := startHTTP(t, gone.mount(), http1And2)
			reg := newScripted(instanceAt(t, "gone", goneServer.Listener.Addr().String()))
			transport := newTransport(t, reg, protocol(spoken))
			done := make(chan error)
			go func() { done <- login(t.Context(), transport) }()
			<-entered
			reg.Set(instanceAt(t, "other", startHTTP(t, other.mount(), http1And2).Listener.Addr().String()))
			await(t, "the new set", func() bool {
				instances := transport.Status().Instances
				return len(instances) == 1 && instances[0].ID == "other"
			})
			if err := login(t.Context(), transport); err != nil {
				t.Error(err)
			}
			close(release)
			if err := <-done; err != nil {
				t.Errorf("the call in flight: %v", err)
			}
			expectCount(t, "logins at the instance removed", &gone.logins, 1)
			expectCount(t, "logins at the other", &other.logins, 1)
		})
	}
}

// TestKeyPoolDrainTimeoutOfARemovedInstance: a removed instance's calls are let finish for so long and no longer.
func TestKeyPoolDrainTimeoutOfARemovedInstance(t *testing.T) {
	entered := make(chan struct{}, 1)
	gone := &authHandler{login: func(ctx context.Context, _ *authv1.LoginRequest) (*authv1.LoginResponse, error) {
		entered <- struct{}{}
		<-ctx.Done()
		return nil, ctx.Err()
	}}
	reg := newScripted(instanceAt(t, "gone", startHTTP(t, gone.mount(), http1And2).Listener.Addr().String()))
	transport := newTransport(t, reg, func(config *rpc.ClientConfig) { config.Pool.DrainTimeout = 20 * time.Millisecond })
	done := make(chan error)
	go func() { done <- login(t.Context(), transport) }()
	<-entered
	reg.Set()
	expectCode(t, <-done, connect.CodeUnavailable)
	expectCount(t, "logins", &gone.logins, 1)
}

// TestRevisionForgetsTheProtocol: what was learned of one registration's protocol says nothing of the next at the same address.
func TestRevisionForgetsTheProtocol(t *testing.T) {
	handler, listener := &authHandler{}, listen(t)
	serveOn(t, listener, handler.mount(), http1Only)
	instance := instanceAt(t, "one", listener.Addr().String())
	instance.Revision = 1
	reg := newScripted(instance)
	transport := newTransport(t, reg, nil)
	call := func(wantPrefaces int) {
		t.Helper()
		if err := login(t.Context(), transport); err != nil {
			t.Fatal(err)
		}
		if _, prefaces, _ := listener.begins(); prefaces != wantPrefaces {
			t.Errorf("%d HTTP/2 prefaces, want %d", prefaces, wantPrefaces)
		}
	}
	call(1)
	same := instance
	same.Weight, same.Zone = 7, "eu" // facts that change nothing of how it is spoken to
	reg.Set(same)
	await(t, "the new facts", func() bool {
		known := transport.Status().Instances[0]
		return known.Weight == 7 && known.Zone == "eu"
	})
	call(1)
	if known := transport.Status().Instances[0]; known.Calls != 2 || known.Protocol != rpc.ProtocolHTTP {
		t.Errorf("status %+v; want what was known before", known)
	}
	next := instance
	next.Revision = 2
	reg.Set(next)
	await(t, "the protocol to be forgotten", func() bool { return transport.Status().Instances[0].Protocol == rpc.ProtocolGRPC })
	call(2)
	// An update of the same registration, that says what was learned, and then no longer.
	for _, hint := range []string{"http", ""} {
		updated := next
		updated.Metadata, updated.Weight = map[string]string{"protocol": hint}, 1+len(hint)
		reg.Set(updated)
		await(t, "the update", func() bool { return transport.Status().Instances[0].Weight == updated.Weight })
		if got, want := transport.Status().Instances[0].Protocol, cmp.Or(rpc.Protocol(hint), rpc.ProtocolGRPC); got != want {
			t.Errorf("with the hint %q it is spoken to by %s, want %s", hint, got, want)
		}
	}
}

// TestReregistrationKeepsConnections: a registration that changes, for another weight for example, is of the same instance.
func TestReregistrationKeepsConnections(t *testing.T) {
	handler, listener := &authHandler{}, listen(t)
	serveOn(t, listener, handler.mount(), http1And2)
	instance := instanceAt(t, "one", listener.Addr().String())
	reg := newScripted(instance)
	transport := newTransport(t, reg, nil)
	for revision := range uint64(5) {
		instance.Revision, instance.Weight = revision, int(revision)+1
		reg.Set(instance)
		await(t, "the new weight", func() bool {
			instances := transport.Status().Instances
			return len(instances) == 1 && instances[0].Weight == instance.Weight
		})
		if err := login(t.Context(), transport); err != nil {
			t.Fatal(err)
		}
	}
	if known := transport.Status().Instances[0]; known.Calls != 5 || known.Connections != 1 || known.Change.What != "has weight 5 instead of 4" {
		t.Errorf("status %+v", known)
	}
	if _, prefaces, _ := listener.begins(); prefaces != 1 {
		t.Errorf("%d connections, want 1", prefaces)
	}
}

// TestFlappingKeepsConnections: an instance that the registry names again before the drain timeout goes on as if it had never been gone; after that
// it is a new one.
func TestFlappingKeepsConnections(t *testing.T) {
	handler, listener := &authHandler{}, listen(t)
	serveOn(t, listener, handler.mount(), http1And2)
	instance := instanceAt(t, "one", listener.Addr().String())
	reg := newScripted(instance)
	flap := func(transport *rpc.Transport) {
		t.Helper()
		reg.Set()
		await(t, "the instance to be gone", func() bool { return len(transport.Status().Instances) == 0 })
		if err := login(t.Context(), transport); !errors.Is(err, rpc.ErrNoInstances) {
			t.Errorf("got %v, want no instances", err)
		}
		reg.Set(instance)
		await(t, "the instance to be back", func() bool { return len(transport.Status().Instances) == 1 })
		if err := login(t.Context(), transport); err != nil {
			t.Error(err)
		}
	}
	for _, row := range []struct {
		drain          time.Duration
		calls          uint64
		newConnections int
		change         string
	}{{time.Hour, 4, 1, "came back"}, {0, 1, 4, "joined"}} {
		transport := newTransport(t, reg, func(config *rpc.ClientConfig) { config.Pool.DrainTimeout = row.drain })
		_, before, _ := listener.begins()
		if err := login(t.Context(), transport); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			flap(transport)
		}
		status := transport.Status()
		if known := status.Instances[0]; known.Calls != row.calls || known.Change.What != row.change {
			t.Errorf("drain timeout %v: status %+v", row.drain, known)
		}
		if _, prefaces, _ := listener.begins(); prefaces-before != row.newConnections {
			t.Errorf("drain timeout %v: %d connections, want %d", row.drain, prefaces-before, row.newConnections)
		}
		if len(status.Changes) != 7 || status.Changes[1].What != "left: the registry no longer names it" {
			t.Errorf("drain timeout %v: changes %+v", row.drain, status.Changes)
		}
	}
}

// TestWeights: two instances get calls by their weights, and one of weight 0 none unless all have it.
func TestWeights(t *testing.T) {
	for _, row := range []struct{ weights, want [2]int64 }{
		{[2]int64{2, 4}, [2]int64{10, 20}}, {[2]int64{1, 1}, [2]int64{15, 15}}, {[2]int64{0, 2}, [2]int64{0, 30}}, {[2]int64{0, 0}, [2]int64{15, 15}},
	} {
		t.Run(fmt.Sprint(row.weights), func(t *testing.T) {
			var handlers [2]authHandler
			var instances []registry.Instance
			release := make(chan struct{})
			for at := range handlers {
				handlers[at].login = func(context.Context, *authv1.LoginRequest) (*authv1.LoginResponse, error) {
					<-release
					return &authv1.LoginResponse{Tokens: &authv1.TokenPair{AccessToken: "a"}}, nil
				}
				instance := instanceAt(t, fmt.Sprint(at), startHTTP(t, handlers[at].mount(), http1And2).Listener.Addr().String())
				instance.Weight = int(row.weights[at])
				instances = append(instances, instance)
			}
			transport := newTransport(t, newScripted(instances...), nil)
			var all sync.WaitGroup
			for call := range int64(30) { // one after the other, so that each choice knows the ones before
				all.Go(func() {
					if err := login(t.Context(), transport); err != nil {
						t.Error(err)
					}
				})
				await(t, "the call to arrive", func() bool { return handlers[0].logins.Load()+handlers[1].logins.Load() == call+1 })
			}
			close(release)
			all.Wait()
			// All were in flight at once, so attempts in flight over weight were balanced.
			for at := range handlers {
				if got := handlers[at].logins.Load(); got < row.want[at]-1 || got > row.want[at]+1 || row.want[at] == 0 && got > 0 {
					t.Errorf("the instance of weight %d got %d calls of 30, want %d", row.weights[at], got, row.want[at])
				}
			}
		})
	}
}

// TestDuplicates: an instance that the registry names twice is one; two at one ID are two.
func TestDuplicates(t *testing.T) {
	handler := &authHandler{}
	addr := startHTTP(t, handler.mount(), http1And2).Listener.Addr().String()
	other := startHTTP(t, handler.mount(), http1And2).Listener.Addr().String()
	transport := newTransport(t, newScripted(instanceAt(t, "a", addr), instanceAt(t, "a", addr), instanceAt(t, "a", other)), nil)
	for range 4 {
		if err := login(t.Context(), transport); err != nil {
			t.Fatal(err)
		}
	}
	if instances := transport.Status().Instances; len(instances) != 2 || instances[0].Calls+instances[1].Calls != 4 {
		t.Errorf("status %+v; want two instances", instances)
	}
}

// TestInstancesComeAndGoUnderLoad: whatever the registry does with healthy instances, no call fails.
func TestInstancesComeAndGoUnderLoad(t *testing.T) {
	handler := &authHandler{}
	var instances []registry.Instance
	for at := range 3 {
		instances = append(instances, instanceAt(t, fmt.Sprint(at), startHTTP(t, handler.mount(), http1And2).Listener.Addr().String()))
	}
	reg := newScripted(instances...)
	transport := newTransport(t, reg, nil)
	ctx, stop := context.WithCancel(t.Context())
	var callers sync.WaitGroup
	for range 8 {
		callers.Go(func() {
			for ctx.Err() == nil {
				if err := login(t.Context(), transport); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for round := range 60 {
		before := handler.logins.Load()
		changed := instances[round%3]
		changed.Revision = uint64(round)
		reg.Set(changed, instances[(round+1)%3])
		await(t, "calls to go on", func() bool { return handler.logins.Load() > before+8 || t.Failed() })
	}
	stop()
	callers.Wait()
	expectReleased(t, transport)
}
