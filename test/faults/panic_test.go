//go:build integration

package faults_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	connectrpc "connectrpc.com/connect/v2"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/0x1d/goplt"
	"github.com/0x1d/goplt/config"
	authv1 "github.com/0x1d/goplt/gen/goplt/auth/v1"
	"github.com/0x1d/goplt/gen/goplt/auth/v1/authv1connect"
	"github.com/0x1d/goplt/internal/consultest"
	"github.com/0x1d/goplt/pkg/rpc"
	"github.com/0x1d/goplt/pkg/servicestest"
)

// TestRow37Handler: some calls make their handler panic. Their callers are told so, once, and the calls beside it, on the same connection, go on.
func TestRow37Handler(t *testing.T) {
	t.Parallel()
	for _, spoken := range byBoth {
		t.Run(string(spokenBy(spoken)), func(t *testing.T) {
			row(t)
			executions := newLedger()
			doomed := func(id string) bool { return strings.ContainsAny(id[len(id)-1:], "036") }
			server := host{before: func(_ context.Context, id string) error {
				if doomed(id) {
					panic("secret of the handler")
				}
				return nil
			}}.start(t, executions)
			transport := reach(t, inMemory(speaking(spoken), func(cfg *config.Config) {
				cfg.Defaults.Breaker.MinCalls, cfg.Defaults.Outlier.ConsecutiveFailures = 1, 1
			}), server.Addr())
			panicked := 0
			for range 4 {
				for _, made := range invokeAtOnce(transport, mixed, 32) {
					if !doomed(made.id) {
						made.expect(t, executions, 0, 1)
						continue
					}
					panicked++
					made.expect(t, executions, connectrpc.CodeInternal, 1)
					if made.err != nil && strings.Contains(made.err.Error(), "secret") {
						t.Errorf("the caller is told %q", made.err)
					}
				}
			}
			if panicked == 0 {
				t.Error("no handler panicked: the test tests nothing")
			}
			if conns := server.conns.Load(); spoken == rpc.ProtocolAuto && conns != 1 {
				t.Errorf("%d connections, want the one to go on", conns)
			}
			expectUntouched(t, transport, spokenBy(spoken))
		})
	}
}

// panicOf returns what do panics with, nil if it does not.
func panicOf(do func()) (reason any) {
	defer func() { reason = recover() }()
	do()
	return nil
}

// TestRow37Interceptor: an interceptor of the client's panics, before the call goes out or when it is back. That is its caller's to see, and nobody
// else's.
func TestRow37Interceptor(t *testing.T) {
	t.Parallel()
	for _, spoken := range byBoth {
		for _, where := range []string{"before", "sending", "receiving"} {
			t.Run(string(spokenBy(spoken))+" "+where, func(t *testing.T) {
				row(t)
				executions := newLedger()
				cfg := inMemory(speaking(spoken))
				reg := newRegistry(t, cfg)
				registerAt(t, reg, instanceID(0), host{}.start(t, executions).Addr())
				factory, closeFactory, err := goplt.NewFactory(cfg, reg, goplt.WithInterceptors(func(next connectrpc.ClientFunc) connectrpc.ClientFunc {
					return func(ctx context.Context, spec connectrpc.Spec) (connectrpc.ClientStream, error) {
						doomed, _ := ctx.Value(doomedKey{}).(bool)
						if doomed && where == "before" {
							panic(where)
						}
						stream, err := next(ctx, spec)
						if doomed {
							stream = &panickingStream{stream, where}
						}
						return stream, err
					}
				}))
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(closeFactory)
				clients, err := goplt.NewClients(factory)
				if err != nil {
					t.Fatal(err)
				}
				transport, err := factory.Transport(service)
				if err != nil {
					t.Fatal(err)
				}
				var calling sync.WaitGroup
				for caller := range 16 {
					ctx, doomed := t.Context(), caller%4 == 0
					if doomed {
						ctx = context.WithValue(ctx, doomedKey{}, true)
					}
					for number := range 8 {
						id := fmt.Sprintf("caller-%d-call-%d", caller, number)
						calling.Go(func() {
							reason := panicOf(func() {
								if tokens, err := clients.Auth.Login(ctx, id, "password"); err != nil || tokens.AccessToken != id {
									t.Errorf("%s: got %v, %v", id, tokens, err)
								}
							})
							want := map[bool]any{true: where}[doomed]
							if reason != want {
								t.Errorf("%s: panicked with %v, want %v", id, reason, want)
							}
							times := 1
							if doomed && where != "receiving" {
								times = 0
							}
							if got := executions.executions(id); got != times {
								t.Errorf("%s was executed %d times, want %d", id, got, times)
							}
						})
					}
				}
				calling.Wait()
				expectUntouched(t, transport, spokenBy(spoken))
			})
		}
	}
}

type doomedKey struct{}

// panickingStream is a call on which an interceptor panics.
type panickingStream struct {
	connectrpc.ClientStream

	where string
}

func (s *panickingStream) Send(message any) error {
	if s.where == "sending" {
		panic(s.where)
	}
	return s.ClientStream.Send(message)
}

func (s *panickingStream) Receive(message any) error {
	err := s.ClientStream.Receive(message)
	if s.where == "receiving" {
		panic(s.where)
	}
	return err
}

// TestRow37Message: the user's message panics in the middle of an attempt: when it is written, when the answer is read, or when the answer to a
// second attempt is. The attempt gives back what it holds, its connection and the permit of a half-open breaker.
func TestRow37Message(t *testing.T) {
	t.Parallel()
	for _, spoken := range byBoth {
		for _, where := range []string{"written", "read", "read again"} {
			t.Run(string(spokenBy(spoken))+" "+where, func(t *testing.T) {
				row(t)
				executions := newLedger()
				busy := &busyOnce{values: []string{"0"}, code: connectrpc.CodeUnavailable, ended: make(map[string]time.Time)}
				at := host{}
				if where == "read again" {
					at.before = busy.execute
				}
				gateway := servicestest.StartHTTPProxy(t, at.start(t, executions).Addr())
				transport := reach(t, inMemory(speaking(spoken), unhurried, func(cfg *config.Config) {
					cfg.Defaults.Breaker.MinCalls, cfg.Defaults.Breaker.OpenFor, cfg.Defaults.Breaker.HalfOpenSuccesses = 1, time.Millisecond, 1
					cfg.Defaults.Outlier.Enabled = false
					cfg.Defaults.Pool.MaxConnections, cfg.Defaults.Pool.MaxHTTPConnections = 1, 1
				}), gateway.Addr)
				client := connectrpc.NewClient(transport)
				gateway.InjectStatus("*", http.StatusBadGateway, servicestest.Times(1))
				invoke(t.Context(), transport, unrepeatable, patience).expect(t, executions, connectrpc.CodeUnavailable, 0)
				for range 10 { // more often than there are permits and connections
					id := fmt.Sprintf("call-%d", lastCall.Add(1))
					var request, response proto.Message = &authv1.ValidateTokenRequest{Token: id}, &panickingMessage{new(authv1.ValidateTokenResponse)}
					times := map[string]int{"read": 1, "read again": 2}[where]
					if where == "written" {
						request, response = &panickingMessage{request}, new(authv1.ValidateTokenResponse)
					}
					ctx, cancel := context.WithTimeout(t.Context(), patience)
					reason := panicOf(func() {
						err := client.CallUnary(ctx, connectrpc.Spec{
							Procedure: authv1connect.AuthServiceValidateTokenProcedure, IdempotencyLevel: connectrpc.IdempotencyNoSideEffects,
						}, request, response)
						t.Errorf("%s did not panic: %v", id, err)
					})
					cancel()
					if reason != thePanic {
						t.Errorf("%s panicked with %v, want %q", id, reason, thePanic)
					}
					if got := executions.executions(id); got != times {
						t.Errorf("%s was executed %d times, want %d", id, got, times)
					}
				}
				expectAtRest(t, transport)
				await(t, "the breaker to close", func() bool {
					made := invoke(t.Context(), transport, idempotent, patience)
					made.check(t, executions)
					return made.err == nil && statusOf(transport, instanceID(0)).Breaker == "closed"
				})
			})
		}
	}
}

const thePanic = "a user's message"

// panickingMessage panics when it is looked at.
type panickingMessage struct{ proto.Message }

// ProtoReflect implements [proto.Message].
func (*panickingMessage) ProtoReflect() protoreflect.Message { panic(thePanic) }

// TestRow37Logger: the handler of the log panics with each record: those of the watch, of Consul's, of a breaker that opens, of a fallback, of an
// ejection and of its end, which come from calls and from goroutines that are nobody's. The records are lost, and nothing else.
func TestRow37Logger(t *testing.T) {
	row(t)
	agent := consultest.Start(t)
	var records atomic.Int64
	cfg := settings(agent.Address, func(cfg *config.Config) {
		cfg.Discovery.Consul.Logger = nil // the one given as an option
		cfg.Discovery.Consul.VerifyInterval = 100 * time.Millisecond
		cfg.Defaults.Breaker.MinCalls, cfg.Defaults.Breaker.FailureRate, cfg.Defaults.Breaker.OpenFor = 1, 0.01, 50*time.Millisecond
		cfg.Defaults.Outlier.ConsecutiveFailures, cfg.Defaults.Outlier.BaseEjection = 1, 100*time.Millisecond
		cfg.Defaults.Outlier.MaxEjection = 100 * time.Millisecond
	})
	logging := goplt.WithLogger(slog.New(panickingHandler{&records}))
	reg, closeRegistry, err := goplt.NewRegistry(cfg, logging)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(closeRegistry)
	executions := newLedger()
	gateways := make([]*servicestest.HTTPProxy, 3)
	for at := range gateways {
		gateways[at] = servicestest.StartHTTPProxy(t, host{}.start(t, executions).Addr())
		registerAt(t, reg, instanceID(at), gateways[at].Addr)
	}
	transport, err := goplt.NewTransport(cfg, reg, service, logging)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := transport.Close(); err != nil {
			t.Error(err)
		}
	})
	awaitIDs(t, transport, instanceID(0), instanceID(1), instanceID(2))
	l := startLoad(t, transport, executions, idempotent, patience)
	happens := func(what string) {
		t.Helper()
		await(t, what, func() bool { return hasChange(transport, what) })
	}
	gateways[0].StripTrailers("*")
	happens("is spoken to by Connect/JSON over HTTP/1.1, because gRPC does not get through")
	gateways[1].InjectStatus("auth", http.StatusBadGateway, servicestest.Times(1))
	happens("has a circuit breaker that is open")
	happens("is ejected for")
	happens("serves again")
	happens("has a circuit breaker that is closed")
	agent.Kill()
	await(t, "the watch to fail", func() bool { return transport.Status().Error != "" })
	agent.Restart()
	await(t, "the watch to work again", func() bool { return transport.Status().Error == "" })
	awaitIDs(t, transport, instanceID(0), instanceID(1), instanceID(2))
	l.mustSucceed(t)
	expectAtRest(t, transport)
	if records.Load() < 10 {
		t.Errorf("%d records: the test tests nothing", records.Load())
	}
}

// panickingHandler is a handler of a log that counts the records it loses.
type panickingHandler struct{ records *atomic.Int64 }

func (panickingHandler) Enabled(context.Context, slog.Level) bool { return true }

func (h panickingHandler) Handle(_ context.Context, record slog.Record) error {
	h.records.Add(1)
	panic("the log of a user: " + record.Message)
}

func (h panickingHandler) WithAttrs([]slog.Attr) slog.Handler { return h }
func (h panickingHandler) WithGroup(string) slog.Handler      { return h }
