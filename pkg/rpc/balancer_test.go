package rpc_test

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect/v2"

	authv1 "github.com/0x1d/goplt/gen/goplt/auth/v1"
	"github.com/0x1d/goplt/pkg/registry"
	"github.com/0x1d/goplt/pkg/rpc"
)

// fleet is a number of instances that count their calls.
type fleet struct {
	handlers  []*authHandler
	instances []registry.Instance
}

// startFleet starts instances with the given weights, named a, b, c, and so on.
func startFleet(t *testing.T, weights ...int) *fleet {
	t.Helper()
	f := &fleet{}
	for at, weight := range weights {
		handler := &authHandler{}
		instance := instanceAt(t, string(rune('a'+at)), startHTTP(t, handler.mount(), http1And2).Listener.Addr().String())
		instance.Weight = weight
		f.handlers, f.instances = append(f.handlers, handler), append(f.instances, instance)
	}
	return f
}

// shares returns how many logins each instance served since the last time it was asked.
func (f *fleet) shares() []int64 {
	counts := make([]int64, len(f.handlers))
	for at, handler := range f.handlers {
		counts[at] = handler.logins.Swap(0)
	}
	return counts
}

func logins(ctx context.Context, t *testing.T, transport *rpc.Transport, count int) {
	t.Helper()
	for range count {
		if err := login(ctx, transport); err != nil {
			t.Fatal(err)
		}
	}
}

func TestKeyBalancerPolicyRoundRobin(t *testing.T) {
	f := startFleet(t, 1, 2, 3)
	transport := newTransport(t, newScripted(f.instances...), func(config *rpc.ClientConfig) { config.Balancer.Policy = rpc.BalancerRoundRobin })
	logins(t.Context(), t, transport, 60)
	if got, want := f.shares(), []int64{10, 20, 30}; !slices.Equal(got, want) {
		t.Errorf("shares %v, want %v", got, want)
	}
}

// TestKeyBalancerPolicies: whatever the policy, sequential calls get shares by weight, give or take chance.
func TestKeyBalancerPolicies(t *testing.T) {
	for _, policy := range []rpc.Balancer{
		rpc.BalancerP2C, rpc.BalancerRandom, rpc.BalancerLeastRequest, rpc.BalancerConsistentHash,
	} {
		t.Run(string(policy), func(t *testing.T) {
			f := startFleet(t, 1, 3)
			transport := newTransport(t, newScripted(f.instances...), func(config *rpc.ClientConfig) { config.Balancer.Policy = policy })
			for try := 1; ; try++ { // p2c also honours the latencies that a busy machine makes up
				logins(t.Context(), t, transport, 400)
				// 100 expected, with a standard deviation of 9 by chance alone.
				got := f.shares()
				if got[0] >= 50 && got[0] <= 150 {
					break
				}
				if try == 10 {
					t.Fatalf("shares %v, want about [100 300]", got)
				}
			}
		})
	}
}

// TestConsistentHash: calls with the same key go to the same instance, whether the program or a header gives it, and other keys elsewhere.
func TestConsistentHash(t *testing.T) {
	f := startFleet(t, 1, 1, 1, 1)
	reg := newScripted(f.instances...)
	transport := newTransport(t, reg, func(config *rpc.ClientConfig) {
		config.Balancer.Policy, config.Balancer.HashHeader = rpc.BalancerConsistentHash, "X-User"
	})
	owner := func(ctx context.Context) int {
		t.Helper()
		logins(ctx, t, transport, 5)
		got := f.shares()
		at := slices.Index(got, 5)
		if at < 0 {
			t.Errorf("shares %v, want all at one instance", got)
		}
		return at
	}
	withHeader := func(user string) context.Context {
		ctx, info := connect.NewClientContext(t.Context())
		info.RequestHeader().Set("X-User", user)
		return ctx
	}
	owners := make(map[string]int)
	used := make(map[int]bool)
	for user := range 40 {
		key := fmt.Sprint("user-", user)
		owners[key] = owner(rpc.WithHashKey(t.Context(), key))
		used[owners[key]] = true
		if by := owner(withHeader(key)); by != owners[key] {
			t.Errorf("%s: instance %d by the header, %d by the context", key, by, owners[key])
		}
		if by := owner(rpc.WithHashKey(withHeader("other"), key)); by != owners[key] {
			t.Errorf("%s: instance %d although the context's key wins over the header, want %d", key, by, owners[key])
		}
	}
	if len(used) != 4 {
		t.Errorf("40 keys use the instances %v, want all 4", used)
	}
	// An instance that leaves moves its own keys and no others.
	reg.Set(f.instances[:3]...)
	await(t, "the set of three", func() bool { return len(transport.Status().Instances) == 3 })
	for key, was := range owners {
		if now := owner(rpc.WithHashKey(t.Context(), key)); was != 3 && now != was {
			t.Errorf("%s moved from instance %d to %d, though only instance 3 left", key, was, now)
		}
	}
}

// TestKeyBalancerZone: the instances of the client's zone get the calls, and the others when those cannot be reached.
func TestKeyBalancerZone(t *testing.T) {
	for _, policy := range []rpc.Balancer{
		rpc.BalancerP2C, rpc.BalancerRoundRobin, rpc.BalancerRandom, rpc.BalancerLeastRequest,
	} {
		t.Run(string(policy), func(t *testing.T) {
			f := startFleet(t, 1, 1, 1, 1)
			for at := range f.instances {
				f.instances[at].Zone = []string{"eu-1a", "eu-1b"}[at/2]
			}
			reg := newScripted(f.instances...)
			transport := newTransport(t, reg, func(config *rpc.ClientConfig) {
				config.Balancer.Policy, config.Balancer.Zone = policy, "eu-1b"
			})
			logins(t.Context(), t, transport, 100)
			if got := f.shares(); got[2]+got[3] != 100 || got[2] == 0 || got[3] == 0 {
				t.Errorf("shares %v, want all in zone eu-1b, which the last two are in", got)
			}
			reg.Set(f.instances[:2]...)
			await(t, "the set of the other zone", func() bool { return len(transport.Status().Instances) == 2 })
			logins(t.Context(), t, transport, 100)
			if got := f.shares(); got[0]+got[1] != 100 {
				t.Errorf("shares %v, want all to spill over", got)
			}
		})
	}
}

// TestKeyBalancerSubset: a client uses so many instances of the fleet and no more, others use others, and all are used where the subset cannot
// serve.
func TestKeyBalancerSubset(t *testing.T) {
	f := startFleet(t, 1, 1, 1, 1, 1, 1, 1, 1)
	subset := func(key string) []string {
		reg := newScripted(f.instances...)
		transport := newTransport(t, reg, func(config *rpc.ClientConfig) {
			config.Balancer.SubsetSize, config.Balancer.SubsetKey, config.Retry.MaxAttempts = 3, key, 5
		})
		logins(t.Context(), t, transport, 100)
		f.shares()
		var used, unused []registry.Instance
		var names []string
		for at, instance := range transport.Status().Instances {
			if (instance.Calls > 0) == instance.Spare {
				t.Errorf("%+v", instance)
			}
			if instance.Spare {
				unused = append(unused, f.instances[at])
				continue
			}
			used, names = append(used, f.instances[at]), append(names, instance.ID)
		}
		if len(used) != 3 {
			t.Errorf("client %q uses %d instances, want 3", key, len(used))
		}
		for at := range used {
			used[at].Host = "127.0.0.9" // where nobody listens
		}
		reg.Set(slices.Concat(used, unused)...)
		await(t, "the subset to be out of reach", func() bool {
			changes := transport.Status().Changes
			return changes[len(changes)-1].What == "left: the registry no longer names it"
		})
		logins(t.Context(), t, transport, 20)
		return names
	}
	one, again, other := subset("host-1"), subset("host-1"), subset("host-2")
	if !slices.Equal(one, again) || slices.Equal(one, other) {
		t.Errorf("host-1 uses %v, and then %v; host-2 uses %v", one, again, other)
	}
}

// TestKeyBalancerSlowStart: an instance that joins gets less than its share at first, and those of the first set do not.
func TestKeyBalancerSlowStart(t *testing.T) {
	f := startFleet(t, 1, 1, 1)
	for _, row := range []struct {
		slowStart time.Duration
		least     int64
		most      int64
	}{{time.Hour, 0, 40}, {0, 60, 140}} {
		reg := newScripted(f.instances[:2]...)
		transport := newTransport(t, reg, func(config *rpc.ClientConfig) {
			config.Balancer.Policy, config.Balancer.SlowStart = rpc.BalancerRandom, row.slowStart
		})
		logins(t.Context(), t, transport, 100)
		if got := f.shares(); got[0] < 25 || got[1] < 25 {
			t.Errorf("slow start %v: shares %v at first, want halves", row.slowStart, got)
		}
		reg.Set(f.instances...)
		await(t, "the third", func() bool { return len(transport.Status().Instances) == 3 })
		logins(t.Context(), t, transport, 300)
		if got := f.shares(); got[2] < row.least || got[2] > row.most {
			t.Errorf("slow start %v: shares %v, want the newcomer's within %d to %d", row.slowStart, got, row.least, row.most)
		}
	}
}

// TestKeyBalancerDecay: an instance that answered slowly is avoided by p2c, and tried again when what was measured has faded.
func TestKeyBalancerDecay(t *testing.T) {
	var slow atomic.Bool
	f := startFleet(t, 1, 1)
	f.handlers[0].login = func(ctx context.Context, _ *authv1.LoginRequest) (*authv1.LoginResponse, error) {
		if slow.Load() {
			bounded, cancel := context.WithTimeout(ctx, 50*time.Millisecond) // it is busy for so long
			defer cancel()
			<-bounded.Done()
		}
		return &authv1.LoginResponse{Tokens: &authv1.TokenPair{AccessToken: "a"}}, nil
	}
	for _, row := range []struct {
		decay time.Duration
		again bool
	}{{time.Hour, false}, {10 * time.Millisecond, true}} {
		transport := newTransport(t, newScripted(f.instances...), func(config *rpc.ClientConfig) { config.Balancer.Decay = row.decay })
		slow.Store(true)
		for f.handlers[0].logins.Load() < 2 || f.handlers[1].logins.Load() < 2 {
			logins(t.Context(), t, transport, 1)
		}
		slow.Store(false)
		f.shares()
		if row.again {
			for f.handlers[0].logins.Load() == 0 { // would go on for ever if it were not tried again
				logins(t.Context(), t, transport, 1)
			}
			continue
		}
		logins(t.Context(), t, transport, 200)
		if got := f.shares(); got[0] > 0 {
			t.Errorf("decay %v: shares %v, want none at the one that was slow", row.decay, got)
		}
	}
}

// TestBalancerIsNotDrawnToRefusals: an instance that refuses calls at once is not taken for the fastest.
func TestBalancerIsNotDrawnToRefusals(t *testing.T) {
	for _, code := range []connect.Code{connect.CodeUnavailable, connect.CodeResourceExhausted} {
		t.Run(code.String(), func(t *testing.T) {
			f := startFleet(t, 1, 1)
			f.handlers[0].login = func(context.Context, *authv1.LoginRequest) (*authv1.LoginResponse, error) {
				return nil, connect.NewError(code, "overloaded")
			}
			f.handlers[1].login = func(ctx context.Context, request *authv1.LoginRequest) (*authv1.LoginResponse, error) {
				ctx, cancel := context.WithTimeout(ctx, 2*time.Millisecond)
				defer cancel()
				<-ctx.Done() // is slow
				return &authv1.LoginResponse{Tokens: &authv1.TokenPair{AccessToken: "access of " + request.GetEmail()}}, nil
			}
			transport := newTransport(t, newScripted(f.instances...), nil)
			const calls = 200
			for range calls {
				_ = login(t.Context(), transport)
			}
			if shares := f.shares(); shares[1] < calls/4 {
				t.Errorf("shares %v; want the one that serves to have about half", shares)
			}
			if got := transport.Status().Instances[0]; got.Failures != 0 || got.Breaker != "closed" || got.Ejection != "serving" {
				t.Errorf("%+v; want the service's own errors to keep it in", got)
			}
		})
	}
}
