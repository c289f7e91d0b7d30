package rpc_test

import (
	"context"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/0x1d/goplt/pkg/rpc"
)

// sick is a service behind a gateway that answers 502 in its place while it is sick.
type sick struct {
	authHandler

	addr string
	sick atomic.Bool
	met  atomic.Int64 // requests that reached the gateway
}

func startSick(t testing.TB) *sick {
	t.Helper()
	s := &sick{}
	service := s.mount()
	s.addr = startHTTP(t, http.HandlerFunc(func(response http.ResponseWriter, request *http.Request) {
		s.met.Add(1)
		if s.sick.Load() {
			http.Error(response, "bad gateway", http.StatusBadGateway)
			return
		}
		service.ServeHTTP(response, request)
	}), http1And2).Listener.Addr().String()
	return s
}

// quickBreaker opens after two failures and half-opens 50 ms later.
func quickBreaker(config *rpc.ClientConfig) {
	config.Breaker = rpc.BreakerConfig{
		Enabled: true, FailureRate: 1, MinCalls: 2, Window: time.Minute, OpenFor: 50 * time.Millisecond, HalfOpenSuccesses: 2,
	}
	config.Retry.MaxAttempts, config.Outlier.Enabled = 1, false
}

func TestBreakerKeepsCallsAway(t *testing.T) {
	ill, well := startSick(t), startSick(t)
	transport := newTransport(t, newScripted(instanceAt(t, "ill", ill.addr), instanceAt(t, "well", well.addr)), func(config *rpc.ClientConfig) {
		quickBreaker(config)
		config.Breaker.OpenFor = time.Hour
	})
	ill.sick.Store(true)
	state := func() rpc.InstanceStatus { return transport.Status().Instances[0] }
	failed := 0
	for state1 := ""; state1 != "open"; state1 = state().Breaker {
		if login(t.Context(), transport) != nil {
			failed++
		}
	}
	if failed != 2 {
		t.Errorf("%d calls failed until the breaker opened, want 2", failed)
	}
	for range 50 {
		if err := login(t.Context(), transport); err != nil {
			t.Fatal(err)
		}
	}
	expectCount(t, "requests to the instance whose breaker is open", &ill.met, 2)
}

func TestBreakerHalfOpensAndCloses(t *testing.T) {
	patient := startSick(t)
	transport, status := only(t, patient.addr, func(config *rpc.ClientConfig) {
		quickBreaker(config)
		config.Breaker.OpenFor = time.Second // in which to make a call
	})
	patient.sick.Store(true)
	for range 2 {
		expectCode(t, login(t.Context(), transport), connect.CodeUnavailable)
	}
	if got := status(); got.Breaker != "open" {
		t.Fatalf("status %+v; want the breaker open", got)
	}
	// All breakers are open: served from any all the same, and the breaker is not told.
	patient.sick.Store(false)
	if err := login(t.Context(), transport); err != nil {
		t.Errorf("all breakers open: %v", err)
	}
	if got := status(); got.Breaker != "open" {
		t.Errorf("status %+v; want the breaker open: this was no probe", got)
	}
	await(t, "the breaker to half-open and, after two successes, to close", func() bool {
		if err := login(t.Context(), transport); err != nil {
			t.Fatal(err)
		}
		return status().Breaker == "closed"
	})
}

// TestBreakerProbes: an instance that stays ill gets a probe now and then, and no other call.
func TestBreakerProbes(t *testing.T) {
	ill, well := startSick(t), startSick(t)
	ill.sick.Store(true)
	transport := newTransport(t, newScripted(instanceAt(t, "ill", ill.addr), instanceAt(t, "well", well.addr)), func(config *rpc.ClientConfig) {
		quickBreaker(config)
		config.Retry.MaxAttempts = 3
		config.Breaker.OpenFor = 20 * time.Millisecond
	})
	calls, began := 0, time.Now()
	for ; ill.met.Load() < 6; calls++ {
		if err := validate(t.Context(), transport); err != nil {
			t.Fatal(err)
		}
		if state := transport.Status().Instances[0]; ill.met.Load() > 2 && state.Breaker == "closed" {
			t.Fatalf("status %+v; want the breaker not to close on failures", state)
		}
	}
	// Two failures opened it, and each of four probes opened it again for at least 20 ms.
	if took := time.Since(began); took < 80*time.Millisecond {
		t.Errorf("%d requests reached the instance within %v, for %d calls", ill.met.Load(), took, calls)
	}
}

// TestBreakerPermitsAreAnswered: however an attempt ends that was made by a probe's permit, the breaker gets its permit back.
func TestBreakerPermitsAreAnswered(t *testing.T) {
	for _, row := range []struct {
		name string
		call func(*testing.T, *rpc.Transport)
	}{
		{"cancelled", func(t *testing.T, transport *rpc.Transport) {
			ctx, cancel := context.WithCancel(t.Context())
			stop := time.AfterFunc(time.Millisecond, cancel)
			defer stop.Stop()
			_, _ = callText(ctx, connect.NewClient(transport), specHang, "x")
		}},
		{"not even written", func(t *testing.T, transport *rpc.Transport) {
			_, _ = callText(t.Context(), connect.NewClient(transport), specEcho, "\xff")
		}},
		{"panic of the codec", func(t *testing.T, transport *rpc.Transport) {
			defer func() { _ = recover() }()
			var request *wrapperspb.StringValue
			_ = connect.NewClient(transport).CallUnary(t.Context(), specEcho, request, (*wrapperspb.StringValue)(nil))
		}},
		{"stream that stays", func(t *testing.T, transport *rpc.Transport) {
			stream, err := connect.NewClient(transport).CallServerStream(t.Context(), specStay, wrapperspb.String("x"))
			if err == nil {
				t.Cleanup(func() { _ = stream.Close() })
			}
		}},
		{"stream that is closed at once", func(t *testing.T, transport *rpc.Transport) {
			if stream, err := connect.NewClient(transport).CallServerStream(t.Context(), specStay, wrapperspb.String("x")); err == nil {
				_ = stream.Close()
			}
		}},
		{"bidirectional stream over HTTP/1.1", func(t *testing.T, transport *rpc.Transport) {
			stream, err := transport.NewClientStream(t.Context(), specChat)
			if err != nil {
				t.Fatal(err)
			}
			_ = stream.Send(wrapperspb.String("x"))
			_ = stream.Close()
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			var ill atomic.Bool
			_, addr := wordsAt(t, func(next http.Handler) http.Handler {
				return http.HandlerFunc(func(response http.ResponseWriter, request *http.Request) {
					if ill.Load() {
						http.Error(response, "bad gateway", http.StatusBadGateway)
						return
					}
					next.ServeHTTP(response, request)
				})
			}, http1Only)
			transport, status := only(t, addr, func(config *rpc.ClientConfig) {
				quickBreaker(config)
				config.Breaker.OpenFor = time.Millisecond
			})
			client := connect.NewClient(transport)
			ill.Store(true)
			for range 2 {
				_, _ = callText(t.Context(), client, specEcho, "x")
			}
			if got := status(); got.Breaker == "closed" {
				t.Fatalf("status %+v; want the breaker to be open", got)
			}
			ill.Store(false)
			for range 20 { // more than there are permits
				row.call(t, transport)
			}
			await(t, "the breaker to close", func() bool {
				if _, err := callText(t.Context(), client, specEcho, "x"); err != nil {
					t.Fatal(err)
				}
				return status().Breaker == "closed"
			})
		})
	}
}

// TestBreakerIgnoresWhatBeganBefore: the outcome of a call that began while the breaker was closed is no answer of a probe.
func TestBreakerIgnoresWhatBeganBefore(t *testing.T) {
	var ill atomic.Bool
	service, addr := wordsAt(t, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(response http.ResponseWriter, request *http.Request) {
			if ill.Load() {
				http.Error(response, "bad gateway", http.StatusBadGateway)
				return
			}
			next.ServeHTTP(response, request)
		})
	}, http1And2)
	transport, status := only(t, addr, quickBreaker)
	client := connect.NewClient(transport)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	const early = 3
	done, succeeded := make(chan error, early), make(chan error, 1)
	for range early {
		go func() {
			_, err := callText(ctx, client, specHang, "x")
			done <- err
		}()
	}
	go func() {
		_, err := callText(t.Context(), client, specHang, "x")
		succeeded <- err
	}()
	<-service.entered
	for range early {
		<-service.entered
	}
	ill.Store(true)
	for range 2 {
		_, _ = callText(t.Context(), client, specEcho, "x")
	}
	ill.Store(false)
	await(t, "the first of two probes", func() bool {
		if _, err := callText(t.Context(), client, specEcho, "x"); err != nil {
			t.Fatal(err)
		}
		return status().Breaker == "half-open"
	})
	cancel()
	for range early {
		expectCode(t, <-done, connect.CodeCanceled)
	}
	close(service.release)
	if err := <-succeeded; err != nil {
		t.Error(err)
	}
	if got := status(); got.Breaker != "half-open" {
		t.Errorf("status %+v; want the breaker half-open still", got)
	}
	if _, err := callText(t.Context(), client, specEcho, "x"); err != nil {
		t.Error(err)
	}
	if got := status(); got.Breaker != "closed" {
		t.Errorf("status %+v; want the breaker closed by the second probe", got)
	}
}

// TestBreakerProbesAfterACrowdFailed: of many calls in flight that fail together, the first ones open the breaker. The others must not have the
// balancer avoid the instance, or its breaker would wait for a probe until that is forgotten.
func TestBreakerProbesAfterACrowdFailed(t *testing.T) {
	const crowd = 20
	for _, row := range []struct {
		name     string
		outliers bool
	}{{"breaker alone", false}, {"with ejection", true}} {
		t.Run(row.name, func(t *testing.T) {
			well := startSick(t)
			service := (&authHandler{}).mount()
			var ill atomic.Bool
			arrived, release := make(chan struct{}, crowd), make(chan struct{})
			addr := startHTTP(t, http.HandlerFunc(func(response http.ResponseWriter, request *http.Request) {
				if ill.Load() {
					arrived <- struct{}{}
					<-release
					http.Error(response, "bad gateway", http.StatusBadGateway)
					return
				}
				service.ServeHTTP(response, request)
			}), http1And2).Listener.Addr().String()
			reg := newScripted(instanceAt(t, "well", well.addr))
			transport := newTransport(t, reg, func(config *rpc.ClientConfig) {
				quickBreaker(config)
				config.Retry.MaxAttempts = 3
				config.Outlier.Enabled = row.outliers
			})
			logins(t.Context(), t, transport, 10) // so that it is known how fast the other one is
			reg.Set(instanceAt(t, "ill", addr))
			await(t, "the other instance to leave", func() bool { return transport.Status().Instances[0].ID == "ill" })
			ill.Store(true)
			failed := make(chan error, crowd)
			for range crowd {
				go func() { failed <- login(t.Context(), transport) }()
			}
			for range crowd {
				<-arrived
			}
			close(release)
			for range crowd {
				expectCode(t, <-failed, connect.CodeUnavailable)
			}
			ill.Store(false)
			reg.Set(instanceAt(t, "ill", addr), instanceAt(t, "well", well.addr))
			await(t, "the breaker to close by calls that have another instance to go to", func() bool {
				if err := validate(t.Context(), transport); err != nil {
					t.Fatal(err)
				}
				status := transport.Status().Instances
				return len(status) == 2 && status[0].Breaker == "closed"
			})
		})
	}
}
