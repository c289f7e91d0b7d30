package rpc_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	authv1 "github.com/0x1d/goplt/gen/goplt/auth/v1"
	"github.com/0x1d/goplt/gen/goplt/auth/v1/authv1connect"
	"github.com/0x1d/goplt/pkg/rpc"
)

const authService = "goplt.auth.v1.AuthService"

// hedged configures hedging of all methods of the service after a delay, and makes the choice of instances a matter of turns.
func hedged(hedge rpc.HedgeConfig) func(*rpc.ClientConfig) {
	return func(config *rpc.ClientConfig) {
		config.Methods = map[string]rpc.MethodConfig{authService: {Hedge: hedge}}
		config.Balancer.Policy = rpc.BalancerRoundRobin
	}
}

// relay is a service of several instances whose executions are told apart by their number, over all instances.
type relay struct {
	*fleet

	executed atomic.Int64
	mu       sync.Mutex
	at       []int    // which instance made each execution
	previous []string // what each was told of attempts before it
}

// startRelay starts instances whose executions are answered by answer.
func startRelay(t *testing.T, instances int, answer func(ctx context.Context, number int64) error) *relay {
	t.Helper()
	weights := make([]int, instances)
	for at := range weights {
		weights[at] = 1
	}
	r := &relay{fleet: startFleet(t, weights...)}
	for at, handler := range r.handlers {
		execute := func(ctx context.Context) (int64, error) {
			info, _ := connect.CallInfoForServerContext(ctx)
			r.mu.Lock()
			r.at = append(r.at, at)
			r.previous = append(r.previous, info.RequestHeader().Get("Grpc-Previous-Rpc-Attempts"))
			r.mu.Unlock()
			number := r.executed.Add(1)
			info.ResponseHeader().Set("Number", fmt.Sprint(number))
			return number, answer(ctx, number)
		}
		handler.validate = func(ctx context.Context, _ *authv1.ValidateTokenRequest) (*authv1.ValidateTokenResponse, error) {
			number, err := execute(ctx)
			return &authv1.ValidateTokenResponse{Claims: &authv1.TokenClaims{UserId: fmt.Sprint(number), Roles: []string{"of", fmt.Sprint(number)}}}, err
		}
		handler.login = func(ctx context.Context, request *authv1.LoginRequest) (*authv1.LoginResponse, error) {
			_, err := execute(ctx)
			return &authv1.LoginResponse{Tokens: &authv1.TokenPair{AccessToken: "access of " + request.GetEmail()}}, err
		}
	}
	return r
}

// first has the first execution hang until its attempt is cancelled, and the others be answered by then.
func first(then func(number int64) error) func(context.Context, int64) error {
	return func(ctx context.Context, number int64) error {
		if number > 1 {
			return then(number)
		}
		<-ctx.Done()
		return ctx.Err()
	}
}

func succeed(int64) error { return nil }

// expectRest waits until nothing is under way, as a cancelled call is on the client before it is on the server, and expects no failures.
func (r *relay) expectRest(t *testing.T, transport *rpc.Transport) {
	t.Helper()
	for _, instance := range transport.Status().Instances {
		if instance.InFlight != 0 || instance.Failures != 0 || instance.Breaker != "closed" {
			t.Errorf("%+v; want it at rest, without failures", instance)
		}
	}
}

func TestHedge(t *testing.T) {
	for _, spoken := range []rpc.Protocol{rpc.ProtocolGRPC, rpc.ProtocolHTTP} {
		t.Run(string(spoken), func(t *testing.T) {
			r := startRelay(t, 2, first(succeed))
			transport := newTransport(t, newScripted(r.instances...), func(config *rpc.ClientConfig) {
				hedged(rpc.HedgeConfig{Delay: time.Millisecond})(config)
				config.Protocol = spoken
			})
			ctx, info := connect.NewClientContext(t.Context())
			info.RequestHeader().Set("Caller", "test")
			request := &authv1.ValidateTokenRequest{Token: "t"}
			response, err := newAuthClient(transport).ValidateToken(ctx, request)
			if err != nil {
				t.Fatal(err)
			}
			request.Token = "the caller's again" // no attempt reads it any more
			if claims := response.GetClaims(); claims.GetUserId() != "2" || len(claims.GetRoles()) != 2 || claims.GetRoles()[1] != "2" {
				t.Errorf("claims %v; want those of the hedge", claims)
			}
			if got := info.ResponseHeader().Get("Number"); got != "2" {
				t.Errorf("header of execution %q; want that of the hedge", got)
			}
			if len(r.at) != 2 || r.at[0] == r.at[1] {
				t.Errorf("executed at %v; want two instances", r.at)
			}
			slices.Sort(r.previous) // which of them comes first depends on how long dialling takes
			if !slices.Equal(r.previous, []string{"", "1"}) {
				t.Errorf("told of %q attempts before, want none and 1", r.previous)
			}
			r.expectRest(t, transport)
		})
	}
}

// TestHedgeEnds: what the first attempt, and the hedge, have to answer for the call to end, and by what.
func TestHedgeEnds(t *testing.T) {
	busy, unknown := connect.NewError(connect.CodeUnavailable, "busy"), connect.NewError(connect.CodeNotFound, "unknown")
	for _, row := range []struct {
		name string
		// answer is for an execution, with a channel that is closed when the second begins.
		answer   func(ctx context.Context, number int64, second <-chan struct{}) error
		want     connect.Code // 0 for success
		winner   string
		executed int64
	}{
		{"the first is answered after the hedge began", func(ctx context.Context, number int64, second <-chan struct{}) error {
			if number == 1 {
				<-second
				return nil
			}
			<-ctx.Done()
			return ctx.Err()
		}, 0, "1", 2},
		{"the hedge fails where the first may still succeed", func(_ context.Context, number int64, second <-chan struct{}) error {
			if number == 1 {
				<-second
				return nil
			}
			return busy
		}, 0, "", 2},
		{"the hedge is answered with an error of the service's", func(ctx context.Context, number int64, _ <-chan struct{}) error {
			return first(func(int64) error { return unknown })(ctx, number)
		}, connect.CodeNotFound, "2", 2},
		{"the first is answered with an error of the service's at once", func(context.Context, int64, <-chan struct{}) error {
			return unknown
		}, connect.CodeNotFound, "1", 1},
	} {
		t.Run(row.name, func(t *testing.T) {
			second := make(chan struct{})
			r := startRelay(t, 3, func(ctx context.Context, number int64) error {
				if number == 2 {
					close(second)
				}
				return row.answer(ctx, number, second)
			})
			delay := time.Millisecond
			if row.executed == 1 {
				delay = time.Minute
			}
			transport := newTransport(t, newScripted(r.instances...), hedged(rpc.HedgeConfig{Delay: delay}))
			response, err := newAuthClient(transport).ValidateToken(t.Context(), &authv1.ValidateTokenRequest{Token: "t"})
			switch {
			case row.want == 0 && err != nil:
				t.Error(err)
			case row.want != 0:
				expectCode(t, err, row.want)
			case row.winner != "" && response.GetClaims().GetUserId() != row.winner:
				t.Errorf("answered by execution %s, want %s", response.GetClaims().GetUserId(), row.winner)
			}
			expectCount(t, "executions", &r.executed, row.executed)
			r.expectRest(t, transport)
		})
	}
}

// TestHedgeExplains: each attempt is in the error, and which was a hedge.
func TestHedgeExplains(t *testing.T) {
	begun := make(chan struct{})
	r := startRelay(t, 2, func(ctx context.Context, _ int64) error {
		if info, _ := connect.CallInfoForServerContext(ctx); info.RequestHeader().Get("Grpc-Previous-Rpc-Attempts") != "" {
			<-begun
			return connect.NewError(connect.CodeNotFound, "unknown")
		}
		close(begun)
		<-ctx.Done()
		return ctx.Err()
	})
	transport := newTransport(t, newScripted(r.instances...), hedged(rpc.HedgeConfig{Delay: time.Millisecond}))
	failure := callError(t, validate(t.Context(), transport))
	if len(failure.Attempts) != 2 || failure.Attempts[0].Hedge || !failure.Attempts[1].Hedge || failure.Attempts[0].Code != connect.CodeCanceled {
		t.Errorf("attempts %v; want a cancelled one and a hedge", failure.Attempts)
	}
	const want = "not_found: unknown [scripted:///auth; attempt 1: ID (ADDR) by grpc, maybe processed, TIME: canceled: context canceled; " +
		"attempt 2: ID (ADDR) by grpc, hedge, processed, TIME]"
	if got := strings.NewReplacer(" a (", " ID (", " b (", " ID (").Replace(pinned(failure.Error())); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// TestNoHedge: nothing is hedged that may not be executed twice, nor at the same instance, nor beyond the budget and the number of attempts.
func TestNoHedge(t *testing.T) {
	everything := rpc.HedgeConfig{Delay: time.Millisecond, MaxHedges: 4}
	for _, row := range []struct {
		name      string
		instances int
		call      func(context.Context, connect.Transport) error
		adjust    func(*rpc.ClientConfig)
		want      int64
	}{
		{"not idempotent", 5, login, nil, 1},
		{"said not to be idempotent", 5, validate, func(config *rpc.ClientConfig) {
			config.Methods = map[string]rpc.MethodConfig{authService: {Idempotency: rpc.IdempotencyNotIdempotent}}
		}, 1},
		{"said to be idempotent", 5, login, func(config *rpc.ClientConfig) {
			config.Methods = map[string]rpc.MethodConfig{authService: {Hedge: everything, Idempotency: rpc.IdempotencyIdempotent}}
		}, 3},
		{"another method's", 5, validate, func(config *rpc.ClientConfig) {
			config.Methods = map[string]rpc.MethodConfig{authService + ".Login": {Hedge: everything, Idempotency: rpc.IdempotencyIdempotent}}
		}, 1},
		{"the method's own wins over its service's", 5, validate, func(config *rpc.ClientConfig) {
			config.Methods[authService+".ValidateToken"] = rpc.MethodConfig{}
		}, 1},
		{"one instance", 1, validate, nil, 1},
		{"two instances", 2, validate, nil, 2},
		{"three attempts", 5, validate, nil, 3},
		{"five attempts", 5, validate, func(config *rpc.ClientConfig) { config.Retry.MaxAttempts = 5 }, 5},
		{"no budget", 5, validate, func(config *rpc.ClientConfig) { config.Retry.BudgetTokens = 1 }, 1},
		{"a budget for one", 5, validate, func(config *rpc.ClientConfig) { config.Retry.BudgetTokens = 5 }, 2},
	} {
		t.Run(row.name, func(t *testing.T) {
			released := make(chan struct{})
			r := startRelay(t, row.instances, func(ctx context.Context, number int64) error {
				if number == row.want {
					time.AfterFunc(50*time.Millisecond, func() { close(released) }) // those that are not to be made had their time too
				}
				select {
				case <-released:
				case <-ctx.Done():
				}
				return nil
			})
			transport := newTransport(t, newScripted(r.instances...), func(config *rpc.ClientConfig) {
				hedged(everything)(config)
				if row.adjust != nil {
					row.adjust(config)
				}
			})
			if err := row.call(t.Context(), transport); err != nil {
				t.Error(err)
			}
			expectCount(t, "executions", &r.executed, row.want)
			r.expectRest(t, transport)
		})
	}
}

// TestHedgeIsCancelled: who gives up the call gives up all its attempts, and waits for none of them.
func TestHedgeIsCancelled(t *testing.T) {
	second := make(chan struct{})
	r := startRelay(t, 2, func(ctx context.Context, number int64) error {
		if number == 2 {
			close(second)
		}
		<-ctx.Done()
		return ctx.Err()
	})
	transport := newTransport(t, newScripted(r.instances...), hedged(rpc.HedgeConfig{Delay: time.Millisecond}))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		<-second
		cancel()
	}()
	expectCode(t, validate(ctx, transport), connect.CodeCanceled)
	r.expectRest(t, transport)
}

func TestHedgeEndsByTheDeadline(t *testing.T) {
	r := startRelay(t, 2, func(ctx context.Context, _ int64) error {
		<-ctx.Done()
		return ctx.Err()
	})
	transport := newTransport(t, newScripted(r.instances...), hedged(rpc.HedgeConfig{Delay: time.Millisecond}))
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	began := time.Now()
	expectCode(t, validate(ctx, transport), connect.CodeDeadlineExceeded)
	if took := time.Since(began); took > time.Second {
		t.Errorf("took %v, want the deadline of 50ms", took)
	}
}

// TestHedgeByQuantile: calls are hedged that take longer than most did, once enough of them were made.
func TestHedgeByQuantile(t *testing.T) {
	const enough = 100 // for the 95th percentile
	var slow atomic.Bool
	r := startRelay(t, 2, func(ctx context.Context, _ int64) error {
		if slow.CompareAndSwap(true, false) {
			<-ctx.Done()
			return ctx.Err()
		}
		return nil
	})
	transport := newTransport(t, newScripted(r.instances...), func(config *rpc.ClientConfig) {
		hedged(rpc.HedgeConfig{Quantile: 0.95})(config)
		config.AttemptTimeout = time.Second
	})
	slow.Store(true)
	for range enough { // the first is slow, and times out: too little is known to hedge it
		if err := validate(t.Context(), transport); err != nil {
			t.Fatal(err)
		}
	}
	if got := r.executed.Load(); got < enough+1 {
		t.Errorf("%d executions of %d calls; want the first to be retried", got, enough)
	}
	before := r.executed.Load()
	slow.Store(true)
	began := time.Now()
	if err := validate(t.Context(), transport); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took >= time.Second {
		t.Errorf("took %v; want it to be hedged, not to time out", took)
	}
	expectCount(t, "executions", &r.executed, before+2)
}

// TestHedgePanics: a panic of an attempt, of the user's message here, is the caller's, as if there were no hedging, and leaves nothing under way.
func TestHedgePanics(t *testing.T) {
	handler := &authHandler{}
	server := startHTTP(t, handler.mount(), http1And2)
	transport, status := only(t, server.Listener.Addr().String(), func(config *rpc.ClientConfig) {
		hedged(rpc.HedgeConfig{Delay: time.Minute})(config)
		config.Breaker.MinCalls = 1
	})
	expectPanic(t, func() {
		err := connect.NewClient(transport).CallUnary(t.Context(), connect.Spec{
			Procedure: authv1connect.AuthServiceValidateTokenProcedure, IdempotencyLevel: connect.IdempotencyNoSideEffects,
		}, panickingMessage{}, &authv1.ValidateTokenResponse{})
		t.Errorf("ended with %v", err)
	})
	if got := status(); got.InFlight != 0 || got.Breaker != "closed" || got.Failures != 0 {
		t.Errorf("%+v; want nothing in flight, and nothing that the instance is blamed for", got)
	}
	expectCount(t, "executions", &handler.validations, 0)
}

// TestHedgePanickingAnswer: the same of a message that the answer is to be stored in.
func TestHedgePanickingAnswer(t *testing.T) {
	handler := &authHandler{}
	server := startHTTP(t, handler.mount(), http1And2)
	transport, status := only(t, server.Listener.Addr().String(), hedged(rpc.HedgeConfig{Delay: time.Minute}))
	expectPanic(t, func() {
		err := connect.NewClient(transport).CallUnary(t.Context(), connect.Spec{
			Procedure: authv1connect.AuthServiceValidateTokenProcedure, IdempotencyLevel: connect.IdempotencyNoSideEffects,
		}, &authv1.ValidateTokenRequest{}, panickingMessage{})
		t.Errorf("ended with %v", err)
	})
	if got := status(); got.InFlight != 0 || got.Failures != 0 {
		t.Errorf("%+v; want nothing in flight, and nothing that the instance is blamed for", got)
	}
}

// TestPanickingRequest: of a message that panics as it is written, nothing is sent, and the panic waits for no answer.
func TestPanickingRequest(t *testing.T) {
	for _, spoken := range []rpc.Protocol{rpc.ProtocolGRPC, rpc.ProtocolHTTP} {
		t.Run(string(spoken), func(t *testing.T) {
			var requests atomic.Int64
			silent := startHTTP(t, http.HandlerFunc(func(_ http.ResponseWriter, request *http.Request) {
				requests.Add(1)
				<-request.Context().Done()
			}), http1And2)
			transport, status := only(t, silent.Listener.Addr().String(), protocol(spoken))
			expectPanic(t, func() {
				_ = connect.NewClient(transport).CallUnary(t.Context(), connect.Spec{
					Procedure: authv1connect.AuthServiceLoginProcedure,
				}, panickingMessage{}, &authv1.LoginResponse{})
			})
			if got := status(); got.InFlight != 0 || got.Failures != 0 {
				t.Errorf("%+v; want nothing in flight, and nothing that the instance is blamed for", got)
			}
			_ = transport.Close() // and so waits for whatever was sent
			expectCount(t, "requests", &requests, 0)
		})
	}
}

// expectPanic expects the panic of a panickingMessage.
func expectPanic(t *testing.T, do func()) {
	t.Helper()
	defer func() {
		if got := recover(); got != "a user's message" {
			t.Errorf("recovered %v, want the panic of the message", got)
		}
	}()
	do()
}

// panickingMessage panics when it is looked at.
type panickingMessage struct{}

var _ proto.Message = panickingMessage{}

func (panickingMessage) ProtoReflect() protoreflect.Message { panic("a user's message") }
