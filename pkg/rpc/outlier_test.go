package rpc_test

import (
	"context"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect/v2"

	authv1 "github.com/0x1d/goplt/gen/goplt/auth/v1"
	"github.com/0x1d/goplt/pkg/registry"
	"github.com/0x1d/goplt/pkg/rpc"
)

// startSickFleet starts instances named a, b, and so on, behind gateways that can be made sick.
func startSickFleet(t *testing.T, count int) ([]*sick, []registry.Instance) {
	t.Helper()
	var fleet []*sick
	var instances []registry.Instance
	for at := range count {
		started := startSick(t)
		fleet, instances = append(fleet, started), append(instances, instanceAt(t, string(rune('a'+at)), started.addr))
	}
	return fleet, instances
}

// quickOutlier ejects after three failures in a row, for 50 ms, and nothing else keeps calls away.
func quickOutlier(config *rpc.ClientConfig) {
	config.Balancer.Policy, config.Breaker.Enabled, config.Retry.InitialBackoff = rpc.BalancerRoundRobin, false, time.Microsecond
	config.Outlier.ConsecutiveFailures, config.Outlier.BaseEjection = 3, 50*time.Millisecond
}

// TestEjection goes round: failures in a row eject an instance, it gets no calls, a probe that fails keeps it out, and one that succeeds lets it
// in again, slowly.
func TestEjection(t *testing.T) {
	fleet, instances := startSickFleet(t, 3)
	transport := newTransport(t, newScripted(instances...), func(config *rpc.ClientConfig) {
		quickOutlier(config)
		config.Balancer.SlowStart, config.Outlier.BaseEjection = time.Hour, 500*time.Millisecond // in which to look at it
	})
	logins(t.Context(), t, transport, 1)
	first := func() rpc.InstanceStatus { return transport.Status().Instances[0] }
	served := first().Calls
	fleet[0].sick.Store(true)
	for first().Ejection == "serving" {
		if err := validate(t.Context(), transport); err != nil {
			t.Fatal(err)
		}
	}
	if got := first(); got.Failures != 3 || got.Calls != served+3 || got.EjectedUntil.IsZero() || got.Change.What != "is ejected for 500ms: 3 calls in a row failed" {
		t.Errorf("status %+v", got)
	}
	met := fleet[0].met.Load()
	await(t, "a probe to find it sick still", func() bool { return fleet[0].met.Load() > met })
	for range 20 {
		if err := login(t.Context(), transport); err != nil { // would fail there, and must not be repeated
			t.Fatal(err)
		}
	}
	if got := first(); got.Calls != served+3 {
		t.Errorf("status %+v; want no calls while it is out", got)
	}
	fleet[0].sick.Store(false)
	await(t, "a probe to let it in again", func() bool {
		got := first()
		return got.Ejection == "serving" && got.Change.What == "serves again: a probe succeeded" // it serves before that is noted
	})
	logins(t.Context(), t, transport, 600)
	if got := first().Calls - 3 - served; got < 1 || got > 60 { // a tenth of its 200, give or take chance
		t.Errorf("%d calls of 600 after its return, want few", got)
	}
}

// TestKeyOutlierEnabled: without ejection nothing is kept out.
func TestKeyOutlierEnabled(t *testing.T) {
	fleet, instances := startSickFleet(t, 2)
	transport := newTransport(t, newScripted(instances...), func(config *rpc.ClientConfig) {
		quickOutlier(config)
		config.Outlier.Enabled = false
	})
	fleet[0].sick.Store(true)
	for range 20 { // idempotent, so each succeeds elsewhere
		if err := validate(t.Context(), transport); err != nil {
			t.Fatal(err)
		}
	}
	if got := transport.Status().Instances[0]; got.Calls < 8 || got.Ejection != "disabled" {
		t.Errorf("status %+v; want half of the calls", got)
	}
}

// TestKeyOutlierPanicPercent: when more instances are ejected than that leaves, calls go to all of them again.
func TestKeyOutlierPanicPercent(t *testing.T) {
	for _, row := range []struct {
		percent int
		panics  bool
	}{{50, true}, {0, false}} {
		fleet, instances := startSickFleet(t, 4)
		transport := newTransport(t, newScripted(instances...), func(config *rpc.ClientConfig) {
			quickOutlier(config)
			config.Outlier.MaxEjectedPercent, config.Outlier.BaseEjection, config.Outlier.MaxEjection = 100, time.Hour, time.Hour
			config.Outlier.PanicPercent = row.percent
		})
		for _, ill := range fleet[:3] {
			ill.sick.Store(true)
		}
		ejected := func() (count int) {
			for _, instance := range transport.Status().Instances {
				if instance.Ejection == "ejected" {
					count++
				}
			}
			return count
		}
		for ejected() < 3 {
			_ = validate(t.Context(), transport) // three attempts may all meet sick ones
		}
		before := transport.Status()
		if before.Panic != row.panics {
			t.Errorf("panic_percent %d: panic %t with 3 of 4 ejected", row.percent, before.Panic)
		}
		failed := 0
		for range 40 {
			if login(t.Context(), transport) != nil {
				failed++
			}
		}
		if (failed > 0) != row.panics {
			t.Errorf("panic_percent %d: %d of 40 calls failed", row.percent, failed)
		}
	}
}

// TestKeyOutlierFailurePercentage: at the end of an interval, an instance of whose calls too many failed is ejected, also if they never failed
// in a row.
func TestKeyOutlierFailurePercentage(t *testing.T) {
	const hosts = 3
	var third atomic.Int64
	fleet, instances := startSickFleet(t, hosts)
	service := fleet[0].mount()
	instances[0] = instanceAt(t, "a", startHTTP(t, http.HandlerFunc(func(response http.ResponseWriter, request *http.Request) {
		if third.Add(1)%3 != 0 {
			http.Error(response, "bad gateway", http.StatusBadGateway)
			return
		}
		service.ServeHTTP(response, request)
	}), http1And2).Listener.Addr().String())
	transport := newTransport(t, newScripted(instances...), func(config *rpc.ClientConfig) {
		quickOutlier(config)
		config.Outlier.Interval, config.Outlier.BaseEjection, config.Outlier.MaxEjection = 20*time.Millisecond, time.Hour, time.Hour
		config.Outlier.SuccessRate.Enabled = false
		config.Outlier.FailurePercentage = rpc.FailurePercentageConfig{
			Enabled: true, Threshold: 50, EnforcementPercent: 100, MinHosts: hosts, RequestVolume: 1,
		}
	})
	if err := validate(t.Context(), transport); err != nil { // so that the instances are known
		t.Fatal(err)
	}
	for transport.Status().Instances[0].Ejection == "serving" {
		if err := validate(t.Context(), transport); err != nil {
			t.Fatal(err)
		}
	}
	for _, other := range transport.Status().Instances[1:] {
		if other.Ejection != "serving" {
			t.Errorf("status %+v", other)
		}
	}
}

// TestKeyOutlierProbeInterval: active probing finds an instance ill before any call does.
func TestKeyOutlierProbeInterval(t *testing.T) {
	fleet, instances := startSickFleet(t, 2)
	transport := newTransport(t, newScripted(instances...), func(config *rpc.ClientConfig) {
		quickOutlier(config)
		config.Outlier.Probe.Interval = 5 * time.Millisecond
		config.Outlier.BaseEjection = time.Hour
		config.Outlier.MaxEjection = time.Hour
	})
	transport.Status() // begins to watch
	await(t, "probes of both", func() bool { return fleet[0].met.Load() > 0 && fleet[1].met.Load() > 0 })
	fleet[0].sick.Store(true)
	await(t, "the ejection", func() bool { return transport.Status().Instances[0].Ejection == "ejected" })
	if got := transport.Status().Instances[0]; got.Calls != 0 {
		t.Errorf("status %+v; want probes to be no calls", got)
	}
}

// TestApplicationErrorsNeverEject: P5 of the reliability rules.
func TestApplicationErrorsNeverEject(t *testing.T) {
	handlers, instances := [2]*authHandler{{}, {}}, []registry.Instance{}
	for at, handler := range handlers {
		handler.login = func(context.Context, *authv1.LoginRequest) (*authv1.LoginResponse, error) {
			return nil, connect.NewError(connect.CodeUnavailable, "the database is away")
		}
		instances = append(instances, instanceAt(t, string(rune('a'+at)), startHTTP(t, handler.mount(), http1And2).Listener.Addr().String()))
	}
	transport := newTransport(t, newScripted(instances...), quickOutlier)
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 10 {
				expectCode(t, login(t.Context(), transport), connect.CodeUnavailable)
			}
		})
	}
	all.Wait()
	for _, instance := range transport.Status().Instances {
		if instance.Ejection != "serving" || instance.Failures > 0 {
			t.Errorf("status %+v", instance)
		}
	}
}

// TestEjectedIsTheLastResort: where nobody else may serve, because the breaker of the only other instance has given out its permits, calls go to
// that one and not to the one that is ejected.
func TestEjectedIsTheLastResort(t *testing.T) {
	fleet, instances := startSickFleet(t, 2)
	entered, release := make(chan struct{}), make(chan struct{})
	var hold atomic.Bool
	fleet[1].login = func(context.Context, *authv1.LoginRequest) (*authv1.LoginResponse, error) {
		if hold.CompareAndSwap(true, false) {
			entered <- struct{}{}
			<-release
		}
		return &authv1.LoginResponse{Tokens: &authv1.TokenPair{AccessToken: "a"}}, nil
	}
	transport := newTransport(t, newScripted(instances...), func(config *rpc.ClientConfig) {
		quickOutlier(config)
		config.Outlier.BaseEjection = time.Hour
		config.Outlier.MaxEjection = time.Hour
		config.Breaker = rpc.BreakerConfig{
			Enabled: true, FailureRate: 0.3, MinCalls: 5, Window: time.Minute, OpenFor: 1, HalfOpenSuccesses: 1,
		}
	})
	logins(t.Context(), t, transport, 2)
	fleet[0].sick.Store(true)
	for transport.Status().Instances[0].Ejection == "serving" {
		_ = validate(t.Context(), transport)
	}
	fleet[1].sick.Store(true)
	await(t, "the other one's breaker to open", func() bool {
		_ = login(t.Context(), transport)
		return transport.Status().Instances[1].Breaker != "closed"
	})
	fleet[1].sick.Store(false)
	hold.Store(true)
	held := make(chan error, 1)
	go func() { held <- login(t.Context(), transport) }() // takes the permit
	<-entered
	if got := transport.Status().Instances[1]; got.Breaker != "half-open" {
		t.Fatalf("status %+v", got)
	}
	met := fleet[0].met.Load()
	for range 20 {
		if err := login(t.Context(), transport); err != nil {
			t.Error(err)
		}
	}
	if got := fleet[0].met.Load() - met; got > 0 {
		t.Errorf("%d of 20 calls went to the instance that is ejected", got)
	}
	close(release)
	if err := <-held; err != nil {
		t.Error(err)
	}
}
