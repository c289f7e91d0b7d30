package rpc_test

import (
	"context"
	"log/slog"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect/v2"

	authv1 "github.com/0x1d/goplt/gen/goplt/auth/v1"
	"github.com/0x1d/goplt/pkg/registry"
	"github.com/0x1d/goplt/pkg/rpc"
	"github.com/0x1d/goplt/pkg/servicestest"
)

// startRace starts a relay whose first execution fails with a pushback once the second has begun; the second goes on when the client knows of that.
func startRace(t *testing.T, pushback string, second func() error) (r *relay, transport *rpc.Transport, pushed func() time.Time) {
	t.Helper()
	begun := make(chan struct{})
	var at atomic.Int64
	r = startRelay(t, 2, func(ctx context.Context, number int64) error {
		info, _ := connect.CallInfoForServerContext(ctx)
		switch number {
		case 1:
			<-begun
			at.Store(time.Now().UnixNano())
			info.ResponseTrailer().Set("Grpc-Retry-Pushback-Ms", pushback)
			return connect.NewError(connect.CodeUnavailable, "busy")
		case 2:
			close(begun)
			await(t, "the first attempt to be over", func() bool {
				instances := transport.Status().Instances
				return instances[0].Calls+instances[1].Calls == 1
			})
			return second()
		default:
			return nil
		}
	})
	transport = newTransport(t, newScripted(r.instances...), hedged(rpc.HedgeConfig{Delay: time.Millisecond}))
	return r, transport, func() time.Time { return time.Unix(0, at.Load()) }
}

// TestHedgePushback: the time that one of several attempts was told to stay away is heeded, whichever of them ends last.
func TestHedgePushback(t *testing.T) {
	r, transport, pushed := startRace(t, "300", func() error { return connect.NewError(connect.CodeUnavailable, "busy") })
	if err := validate(t.Context(), transport); err != nil {
		t.Error(err)
	}
	if took := time.Since(pushed()); took < 300*time.Millisecond {
		t.Errorf("came back %v after a pushback of 300ms", took)
	}
	expectCount(t, "executions", &r.executed, 3)
}

// TestHedgePushbackBeyondTheDeadline: no hedged call waits for what it will not live to see.
func TestHedgePushbackBeyondTheDeadline(t *testing.T) {
	_, transport, pushed := startRace(t, "120000", func() error { return connect.NewError(connect.CodeUnavailable, "busy") })
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	expectCode(t, validate(ctx, transport), connect.CodeUnavailable)
	if took := time.Since(pushed()); took > patience/2 {
		t.Errorf("came back %v after a pushback beyond the deadline", took)
	}
}

// TestHedgeMeetsAGateway: what something else says in the place of the service that a hedge is made at does not end an attempt that is under way.
func TestHedgeMeetsAGateway(t *testing.T) {
	for name, breaks := range map[string]func(*servicestest.HTTPProxy){
		"415": func(gateway *servicestest.HTTPProxy) {
			gateway.InjectStatus("*", http.StatusUnsupportedMediaType, servicestest.GRPCOnly())
		},
		"404":         func(gateway *servicestest.HTTPProxy) { gateway.InjectStatus("*", http.StatusNotFound) },
		"no trailers": func(gateway *servicestest.HTTPProxy) { gateway.StripTrailers("*") },
	} {
		t.Run(name, func(t *testing.T) {
			handler := &authHandler{}
			gateway := servicestest.StartHTTPProxy(t, startHTTP(t, (&authHandler{}).mount(), http1And2).URL)
			breaks(gateway)
			transport := newTransport(t, newScripted(
				instanceAt(t, "slow", startHTTP(t, handler.mount(), http1And2).Listener.Addr().String()), instanceAt(t, "gateway", gateway.Addr),
			), func(config *rpc.ClientConfig) {
				hedged(rpc.HedgeConfig{Delay: time.Millisecond})(config)
				config.Protocol, config.Outlier.Enabled, config.Breaker.Enabled, config.Retry.MaxAttempts = rpc.ProtocolGRPC, false, false, 2
			})
			failures := func() uint64 { // of the gateway, which is the first by its ID; none before the first call
				if instances := transport.Status().Instances; len(instances) > 0 {
					return instances[0].Failures
				}
				return 0
			}
			var before atomic.Uint64 // the call
			var met atomic.Bool
			handler.validate = func(ctx context.Context, _ *authv1.ValidateTokenRequest) (*authv1.ValidateTokenResponse, error) {
				for ; failures() == before.Load(); runtime.Gosched() { // until the gateway has answered
					if ctx.Err() != nil {
						return nil, ctx.Err()
					}
				}
				met.Store(true)
				return &authv1.ValidateTokenResponse{Claims: &authv1.TokenClaims{UserId: "u"}}, nil
			}
			for !met.Load() {
				before.Store(failures())
				if err := validate(t.Context(), transport); err != nil && len(callError(t, err).Attempts) > 1 { // else the gateway was the first to be asked
					t.Fatal(err)
				}
			}
		})
	}
}

// TestHedgeAttempts: hedges and the attempt that is made at once in place of one that was not executed make no more attempts than without hedging.
func TestHedgeAttempts(t *testing.T) {
	instances := make([]registry.Instance, 5)
	for at := range instances {
		instances[at] = instanceAt(t, string(rune('a'+at)), nobody(t))
	}
	for range 20 {
		transport := newTransport(t, newScripted(instances...), hedged(rpc.HedgeConfig{Delay: time.Nanosecond, MaxHedges: 2}))
		if attempts := callError(t, validate(t.Context(), transport)).Attempts; len(attempts) > 4 {
			t.Errorf("%d attempts; want 3, and the one that is not counted", len(attempts))
		}
	}
}

// TestHedgeNoMore: a server that wants no other attempt does not end the one that is under way.
func TestHedgeNoMore(t *testing.T) {
	r, transport, _ := startRace(t, "-1", func() error { return nil })
	if err := validate(t.Context(), transport); err != nil {
		t.Errorf("%v; want the answer of the attempt that was under way", err)
	}
	expectCount(t, "executions", &r.executed, 2)
	r, transport, _ = startRace(t, "-1", func() error { return connect.NewError(connect.CodeUnavailable, "busy") })
	expectCode(t, validate(t.Context(), transport), connect.CodeUnavailable)
	expectCount(t, "executions", &r.executed, 2)
}

// TestHedgeAfterAFailure: where one attempt has failed and another is under way, the next begins at once, and is told of both.
func TestHedgeAfterAFailure(t *testing.T) {
	second, third := make(chan struct{}), make(chan struct{})
	r := startRelay(t, 3, func(_ context.Context, number int64) error {
		switch number {
		case 1:
			<-second
			return connect.NewError(connect.CodeUnavailable, "busy")
		case 2:
			close(second)
			<-third
			return nil
		default:
			close(third)
			return nil
		}
	})
	transport := newTransport(t, newScripted(r.instances...), hedged(rpc.HedgeConfig{Delay: 500 * time.Millisecond, MaxHedges: 2}))
	if err := validate(t.Context(), transport); err != nil {
		t.Error(err)
	}
	if len(r.previous) != 3 || r.previous[2] != "2" {
		t.Errorf("told of %q attempts before; want the third to be told of 2", r.previous)
	}
}

// TestHedgeOrder: the attempts of an error are in the order in which they began.
func TestHedgeOrder(t *testing.T) {
	hedge := make(chan struct{})
	r := startRelay(t, 2, func(ctx context.Context, _ int64) error {
		if info, _ := connect.CallInfoForServerContext(ctx); info.RequestHeader().Get("Grpc-Previous-Rpc-Attempts") == "" {
			<-hedge
			return connect.NewError(connect.CodeNotFound, "unknown")
		}
		close(hedge)
		<-ctx.Done()
		return ctx.Err()
	})
	transport := newTransport(t, newScripted(r.instances...), hedged(rpc.HedgeConfig{Delay: time.Millisecond}))
	if attempts := callError(t, validate(t.Context(), transport)).Attempts; len(attempts) != 2 || attempts[0].Hedge || !attempts[1].Hedge {
		t.Errorf("attempts %v; want the hedge to be the second", attempts)
	}
}

// TestHedgeLeavesProbesAlone: a breaker's probes are not for attempts that may not be made.
func TestHedgeLeavesProbesAlone(t *testing.T) {
	down := nobody(t)
	var hedges atomic.Bool
	begun, released := make(chan struct{}), make(chan struct{})
	handler := &authHandler{validate: func(context.Context, *authv1.ValidateTokenRequest) (*authv1.ValidateTokenResponse, error) {
		if hedges.Load() {
			close(begun)
			<-released
		}
		return &authv1.ValidateTokenResponse{Claims: &authv1.TokenClaims{UserId: "u"}}, nil
	}}
	transport := newTransport(t, newScripted(
		instanceAt(t, "down", down), instanceAt(t, "well", startHTTP(t, handler.mount(), http1And2).Listener.Addr().String()),
	), func(config *rpc.ClientConfig) {
		hedged(rpc.HedgeConfig{Delay: time.Millisecond})(config)
		config.Breaker.MinCalls, config.Breaker.OpenFor, config.Outlier.Enabled, config.AttemptTimeout = 1, time.Hour, false, 0
	})
	ill := func() rpc.InstanceStatus { return transport.Status().Instances[0] }
	for ok := true; ok; ok = ill().Breaker == "closed" {
		if err := validate(t.Context(), transport); err != nil {
			t.Fatal(err)
		}
	}
	hedges.Store(true)
	calls := ill().Calls
	go func() {
		<-begun
		time.AfterFunc(20*time.Millisecond, func() { close(released) }) // many times the delay
	}()
	if err := validate(t.Context(), transport); err != nil {
		t.Error(err)
	}
	if got := ill(); got.Calls != calls || got.Breaker != "open" {
		t.Errorf("%+v; want no hedge at it, after %d calls", got, calls)
	}
}

// TestHedgeLeavesTheAnswerAlone: what the first attempt writes to is not looked at by another, for its type. The race detector tells.
func TestHedgeLeavesTheAnswerAlone(t *testing.T) {
	down := nobody(t)
	handler := &authHandler{validate: func(ctx context.Context, _ *authv1.ValidateTokenRequest) (*authv1.ValidateTokenResponse, error) {
		ctx, cancel := context.WithTimeout(ctx, time.Millisecond)
		defer cancel()
		<-ctx.Done() // is as slow as the delay
		return &authv1.ValidateTokenResponse{Claims: &authv1.TokenClaims{UserId: "u"}}, nil
	}}
	transport := newTransport(t, newScripted(
		instanceAt(t, "well", startHTTP(t, handler.mount(), http1And2).Listener.Addr().String()), instanceAt(t, "down", down),
	), func(config *rpc.ClientConfig) {
		hedged(rpc.HedgeConfig{Delay: time.Millisecond})(config)
		config.Breaker.Enabled, config.Outlier.Enabled = false, false
		config.Retry.BudgetRatio = 1
	})
	for range 300 {
		if err := validate(t.Context(), transport); err != nil {
			t.Error(err)
		}
	}
}

// TestHedgeLogCalls: a log's handler may make calls by the transport that it is told of.
func TestHedgeLogCalls(t *testing.T) {
	down := nobody(t)
	config := rpc.DefaultClientConfig()
	hedged(rpc.HedgeConfig{Delay: time.Millisecond})(&config)
	config.Breaker.MinCalls, config.Breaker.OpenFor, config.Breaker.HalfOpenSuccesses = 1, time.Millisecond, 2
	var transport *rpc.Transport
	var depth atomic.Int64
	act := func() {
		if depth.Add(1) < 10 {
			_ = validate(context.Background(), transport)
			_ = login(context.Background(), transport)
			transport.Status()
		}
		depth.Add(-1)
	}
	handler := &authHandler{}
	transport, err := rpc.NewTransport("scripted:///auth", newScripted(
		instanceAt(t, "well", startHTTP(t, handler.mount(), http1And2).Listener.Addr().String()), instanceAt(t, "down", down),
	), rpc.WithClientConfig(config), rpc.WithLogger(slog.New(actingHandler{slog.DiscardHandler, act})))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = transport.Close() })
	var calls sync.WaitGroup
	for range 4 {
		calls.Go(func() {
			for range 50 {
				if err := validate(t.Context(), transport); err != nil {
					t.Error(err)
				}
			}
		})
	}
	calls.Wait()
}

// actingHandler does something when it is told of a breaker.
type actingHandler struct {
	slog.Handler

	act func()
}

func (h actingHandler) Enabled(context.Context, slog.Level) bool { return true }
func (h actingHandler) WithAttrs([]slog.Attr) slog.Handler       { return h }

func (h actingHandler) Handle(_ context.Context, record slog.Record) error {
	record.Attrs(func(attr slog.Attr) bool {
		if strings.Contains(attr.Value.String(), "breaker") {
			h.act()
		}
		return true
	})
	return nil
}
