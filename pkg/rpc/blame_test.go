package rpc_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"golang.org/x/net/http2"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/wrapperspb"

	authv1 "github.com/0x1d/goplt/gen/goplt/auth/v1"
	"github.com/0x1d/goplt/gen/goplt/auth/v1/authv1connect"
	"github.com/0x1d/goplt/pkg/registry"
	"github.com/0x1d/goplt/pkg/rpc"
)

// TestGoodbyeToEveryCall: an instance that says goodbye to every connection before it has served any call is a bad one, and kept out as any other.
func TestGoodbyeToEveryCall(t *testing.T) {
	for _, policy := range []rpc.Balancer{rpc.BalancerRoundRobin, rpc.BalancerP2C} {
		t.Run(string(policy), func(t *testing.T) {
			goodbye := func() string {
				return startH2Peer(t, func(_ int, conn *h2Conn) {
					conn.Greet()
					if _, ok := conn.Next(); ok {
						conn.GoAway(0, http2.ErrCodeNo)
					}
					conn.Drain()
				}).Addr
			}
			good := &authHandler{}
			transport := newTransport(t, newScripted(instanceAt(t, "a", goodbye()), instanceAt(t, "b", goodbye()),
				instanceAt(t, "c", startHTTP(t, good.mount(), http1And2).Listener.Addr().String())), func(config *rpc.ClientConfig) {
				config.Balancer.Policy, config.Protocol = policy, rpc.ProtocolGRPC
			})
			failed := 0
			for range 300 {
				if login(t.Context(), transport) != nil {
					failed++
				}
			}
			if failed > 30 {
				t.Errorf("%d of 300 calls fail: %+v", failed, transport.Status().Instances)
			}
		})
	}
}

// TestGoodbyeBeforeSending: the goodbye to a connection that has served calls comes when the next has reserved it, and has not been written.
func TestGoodbyeBeforeSending(t *testing.T) {
	var executed atomic.Int64
	bye := make(chan struct{})
	peer := startH2Peer(t, func(number int, conn *h2Conn) {
		conn.Greet()
		if number > 1 {
			conn.Serve(&executed)
			return
		}
		request, ok := conn.Next()
		if !ok {
			return
		}
		conn.AnswerAuth(request)
		<-bye
		conn.GoAway(request.Stream, http2.ErrCodeNo)
		conn.Drain()
	})
	transport, status := only(t, peer.Addr, protocol(rpc.ProtocolGRPC))
	if err := login(t.Context(), transport); err != nil {
		t.Fatal(err)
	}
	message := &slowMessage{LoginRequest: &authv1.LoginRequest{Email: "e"}, while: func() {
		close(bye)
		await(t, "a call over another connection", func() bool { return login(t.Context(), transport) == nil && executed.Load() > 0 })
	}}
	err := connect.NewClient(transport).CallUnary(t.Context(), connect.Spec{Procedure: authv1connect.AuthServiceLoginProcedure}, message,
		new(authv1.LoginResponse))
	if err != nil {
		t.Fatal(err)
	}
	if got := status(); got.Failures != 0 {
		t.Errorf("%+v; want no failures", got)
	}
}

// slowMessage is a message during whose first use something else happens.
type slowMessage struct {
	*authv1.LoginRequest

	once  sync.Once
	while func()
}

func (m *slowMessage) ProtoReflect() protoreflect.Message {
	m.once.Do(m.while)
	return m.LoginRequest.ProtoReflect()
}

// TestOwnCallsInTheWay: who waits in vain for a connection because the client's own calls are on all that there may be, blames no instance.
func TestOwnCallsInTheWay(t *testing.T) {
	for name, call := range map[string]func(context.Context, connect.Transport) error{"idempotent": validate, "not idempotent": login} {
		t.Run(name, func(t *testing.T) {
			instances := startFleet(t, 1, 1)
			release, held := make(chan struct{}), make(chan struct{}, 2)
			for _, handler := range instances.handlers {
				handler.login = func(_ context.Context, request *authv1.LoginRequest) (*authv1.LoginResponse, error) {
					if request.GetEmail() == "hold" {
						held <- struct{}{}
						<-release
					}
					return new(authv1.LoginResponse), nil
				}
			}
			transport := newTransport(t, newScripted(instances.instances...), func(config *rpc.ClientConfig) {
				config.Protocol, config.Pool.MaxHTTPConnections, config.Balancer.Policy = rpc.ProtocolHTTP, 1, rpc.BalancerRoundRobin
				config.AttemptTimeout = 300 * time.Millisecond // enough for the dials of the calls that hold
			})
			var holding sync.WaitGroup
			for range 2 {
				holding.Go(func() {
					if _, err := newAuthClient(transport).Login(t.Context(), &authv1.LoginRequest{Email: "hold"}); err != nil {
						t.Error(err)
					}
				})
				<-held
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if err := call(ctx, transport); err == nil {
				t.Error("a call succeeded without a connection")
			}
			for _, instance := range transport.Status().Instances {
				if instance.Failures != 0 || instance.Breaker != "closed" {
					t.Errorf("%+v; want no failures", instance)
				}
			}
			close(release)
			holding.Wait()
		})
	}
}

// TestNoRoomAtAll: an instance whose connections take no calls is as bad as one that cannot be reached, and no stream waits for it while there is another.
func TestNoRoomAtAll(t *testing.T) {
	full := startH2Peer(t, func(_ int, conn *h2Conn) {
		conn.Greet(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 0})
		conn.Drain()
	})
	_, addr := wordsAt(t, nil, http1And2)
	transport := newTransport(t, newScripted(instanceAt(t, "full", full.Addr), instanceAt(t, "free", addr)), func(config *rpc.ClientConfig) {
		config.Protocol, config.Balancer.Policy, config.AttemptTimeout = rpc.ProtocolGRPC, rpc.BalancerRoundRobin, 500*time.Millisecond
		config.Timeout = patience
	})
	for range 2 { // one of them comes to the full one first
		stream, err := connect.NewClient(transport).CallServerStream(t.Context(), specSplit, wrapperspb.String("one two three"))
		if err != nil {
			t.Fatal(err)
		}
		if words, err := readAll(stream); err != nil || words != "one two three" {
			t.Errorf("got %q, %v", words, err)
		}
		_ = stream.Close()
	}
	for _, instance := range transport.Status().Instances {
		if (instance.Failures > 0) != (instance.ID == "full") {
			t.Errorf("%+v; want failures of the full one alone", instance)
		}
	}
}

// TestSlowGreeting: a peer that greets late is waited for, and not taken for one without HTTP/2 because the call could also go elsewhere.
func TestSlowGreeting(t *testing.T) {
	var executed atomic.Int64
	greet := make(chan struct{})
	greets := sync.OnceFunc(func() { close(greet) })
	slow := startH2Peer(t, func(_ int, conn *h2Conn) {
		time.AfterFunc(time.Second, greets) // more than a quarter of attempt_timeout, less than one of the call's time
		<-greet
		conn.Greet()
		conn.Serve(&executed)
	})
	other := &authHandler{}
	transport := newTransport(t, newScripted(
		instanceAt(t, "slow", slow.Addr), instanceAt(t, "other", startHTTP(t, other.mount(), http1And2).Listener.Addr().String()),
	), func(config *rpc.ClientConfig) { config.Balancer.Policy = rpc.BalancerRoundRobin })
	for range 2 { // one of them comes to the slow one first
		if err := login(t.Context(), transport); err != nil {
			t.Error(err)
		}
	}
	expectCount(t, "calls to the slow one", &executed, 1)
	for _, instance := range transport.Status().Instances {
		if instance.Protocol != rpc.ProtocolGRPC || instance.Failures != 0 {
			t.Errorf("%+v; want it to be spoken to by gRPC, without failures", instance)
		}
	}
}

// TestSilentToHTTP2Beside: with an attempt_timeout too short to wait for SETTINGS as long as the call could, a peer that keeps silent to HTTP/2 is
// found out all the same, by unary calls that must not be repeated and by streams.
func TestSilentToHTTP2Beside(t *testing.T) {
	streams := func(ctx context.Context, transport connect.Transport) error {
		stream, err := connect.NewClient(transport).CallServerStream(ctx, specSplit, wrapperspb.String("one"))
		if err != nil {
			return err
		}
		defer func() { _ = stream.Close() }()
		_, err = readAll(stream)
		return err
	}
	_, words := wordsAt(t, nil, http1Only)
	for name, row := range map[string]struct {
		call func(context.Context, connect.Transport) error
		addr string
	}{
		"unary": {login, startHTTP(t, (&authHandler{}).mount(), http1Only).Listener.Addr().String()}, "stream": {streams, words},
	} {
		t.Run(name, func(t *testing.T) {
			silent := startH2Peer(t, func(_ int, conn *h2Conn) { conn.Drain() })
			instances := make([]registry.Instance, 3)
			for at := range instances {
				instances[at] = instanceAt(t, fmt.Sprint(at), startForked(t, func() string { return silent.Addr }, func() string { return row.addr }))
			}
			transport := newTransport(t, newScripted(instances...), func(config *rpc.ClientConfig) {
				config.AttemptTimeout, config.Balancer.Policy = 500*time.Millisecond, rpc.BalancerRoundRobin
			})
			for range instances {
				if err := row.call(t.Context(), transport); err != nil {
					t.Error(err)
				}
			}
			for _, instance := range transport.Status().Instances {
				if instance.Protocol != rpc.ProtocolHTTP {
					t.Errorf("%+v; want it to be spoken to by HTTP", instance)
				}
			}
		})
	}
}

// TestUnreachableBesideACall: that a call of our own is on the one connection that there is excuses nobody who cannot be dialled.
func TestUnreachableBesideACall(t *testing.T) {
	handler := &authHandler{}
	held, release := make(chan struct{}), make(chan struct{})
	handler.login = func(_ context.Context, request *authv1.LoginRequest) (*authv1.LoginResponse, error) {
		if request.GetEmail() == "hold" {
			close(held)
			<-release
		}
		return new(authv1.LoginResponse), nil
	}
	bad := startHTTP(t, handler.mount(), http1And2).Listener.Addr().String()
	var hole atomic.Bool
	config := rpc.DefaultClientConfig()
	config.Protocol, config.AttemptTimeout, config.Balancer.Policy = rpc.ProtocolHTTP, 20*time.Millisecond, rpc.BalancerRoundRobin
	reg := newScripted(instanceAt(t, "bad", bad))
	transport, err := rpc.NewTransport("scripted:///auth", reg, rpc.WithClientConfig(config),
		rpc.WithDialer(func(ctx context.Context, network, addr string) (net.Conn, error) {
			if addr == bad && hole.Load() {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			return new(net.Dialer).DialContext(ctx, network, addr)
		}))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = transport.Close() }()
	var holding sync.WaitGroup
	holding.Go(func() {
		if _, err := newAuthClient(transport).Login(t.Context(), &authv1.LoginRequest{Email: "hold"}); err != nil {
			t.Error(err)
		}
	})
	<-held
	hole.Store(true)
	reg.Set(instanceAt(t, "bad", bad), instanceAt(t, "good", startHTTP(t, (&authHandler{}).mount(), http1And2).Listener.Addr().String()))
	await(t, "both instances", func() bool { return len(transport.Status().Instances) == 2 })
	for range 20 {
		if err := login(t.Context(), transport); err != nil {
			t.Error(err)
		}
	}
	if got := transport.Status().Instances[0]; got.Failures == 0 || got.Breaker == "closed" && got.Ejection == "serving" {
		t.Errorf("%+v; want it to be kept out", got)
	}
	close(release)
	holding.Wait()
}

// TestStalledApology: the body of a gateway's error does not come. That is waited for by nobody.
func TestStalledApology(t *testing.T) {
	for _, spoken := range []rpc.Protocol{rpc.ProtocolGRPC, rpc.ProtocolHTTP} {
		t.Run(string(spoken), func(t *testing.T) {
			stalls := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "text/plain")
				w.Header().Set("Content-Length", "100")
				w.WriteHeader(http.StatusServiceUnavailable)
				_, _ = w.Write([]byte("no healthy upstream\n"))
				_ = http.NewResponseController(w).Flush()
				<-r.Context().Done()
			})
			transport, status := only(t, startHTTP(t, stalls, http1And2).Listener.Addr().String(), protocol(spoken))
			began := time.Now()
			err := login(t.Context(), transport)
			expectCode(t, err, connect.CodeUnavailable)
			if took := time.Since(began); took > patience/2 || !strings.Contains(err.Error(), "no healthy upstream") {
				t.Errorf("%v after %v; want what has come of the text, soon", err, took)
			}
			if got := status(); got.Failures != 1 {
				t.Errorf("%+v; want a failure", got)
			}
		})
	}
}

// TestStreamAnsweredByAGateway: a page in place of a stream is the instance's failure, whatever its status.
func TestStreamAnsweredByAGateway(t *testing.T) {
	for _, status := range []int{http.StatusInternalServerError, http.StatusNotFound, http.StatusForbidden, http.StatusBadGateway} {
		for _, spoken := range []rpc.Protocol{rpc.ProtocolGRPC, rpc.ProtocolHTTP} {
			t.Run(fmt.Sprint(spoken, status), func(t *testing.T) {
				page := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no route", status) })
				transport, got := only(t, startHTTP(t, page, http1And2).Listener.Addr().String(), protocol(spoken))
				stream, err := connect.NewClient(transport).CallServerStream(t.Context(), specSplit, wrapperspb.String("one two three"))
				if err == nil {
					_, err = readAll(stream)
					_ = stream.Close()
				}
				if attempts := callError(t, err).Attempts; len(attempts) != 1 {
					t.Errorf("%v has %d attempts, want 1", err, len(attempts))
				}
				if got().Failures != 1 {
					t.Errorf("%+v; want a failure", got())
				}
			})
		}
	}
}
