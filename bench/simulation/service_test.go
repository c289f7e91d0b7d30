//go:build !race

package simulation_test

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"

	authv1 "github.com/0x1d/goplt/gen/goplt/auth/v1"
	"github.com/0x1d/goplt/gen/goplt/auth/v1/authv1connect"
	"github.com/0x1d/goplt/pkg/registry"
	"github.com/0x1d/goplt/pkg/registry/memory"
	"github.com/0x1d/goplt/pkg/rpc"
)

// service is instances of a real service, which a real client calls over connections in memory. What becomes of an execution is drawn by the number of
// its call and by how many executions that had before, so that it is the same whatever else happens, and in whatever order.
type service struct {
	authv1connect.UnimplementedAuthServiceHandler

	registry   *memory.Registry
	listeners  map[string]*pipeListener // by address
	servers    []*http.Server
	serving    sync.WaitGroup
	transports []*rpc.Transport
	answer     func(ctx context.Context, random *rand.Rand) error

	began      time.Time
	mu         sync.Mutex
	executions map[string]int // by call
	executed   []time.Duration
}

// startService starts instances that answer by answer, which may wait and may draw random numbers.
func startService(t *testing.T, instances int, answer func(ctx context.Context, random *rand.Rand) error) *service {
	t.Helper()
	s := &service{registry: memory.New(), listeners: map[string]*pipeListener{}, answer: answer, executions: map[string]int{}, began: time.Now()}
	handlers := connect.NewServer()
	authv1connect.RegisterAuthServiceHandler(handlers, s)
	mux := http.NewServeMux()
	connecthttp.Mount(mux, handlers, connecthttp.WithCompressMinBytes(1<<10))
	for number := range instances {
		described := registry.Instance{ID: strconv.Itoa(number), Service: "auth", Host: fmt.Sprintf("10.0.0.%d", 1+number), Port: 80, Weight: 1}
		listener := &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
		server := &http.Server{Handler: mux, Protocols: new(http.Protocols), ReadHeaderTimeout: time.Minute}
		server.Protocols.SetUnencryptedHTTP2(true)
		s.listeners[described.Addr()] = listener
		s.servers = append(s.servers, server)
		s.serving.Go(func() { _ = server.Serve(listener) }) // ends with Close
		if _, err := s.registry.Register(t.Context(), described); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// dial returns what calls the service by a client of its own, with the default configuration but for what configure changes.
func (s *service) dial(t *testing.T, configure func(*rpc.ClientConfig)) func(ctx context.Context, number string) error {
	t.Helper()
	config := rpc.DefaultClientConfig()
	configure(&config)
	transport, err := rpc.NewTransport("memory:///auth", s.registry, rpc.WithClientConfig(config),
		rpc.WithDialer(func(ctx context.Context, _, addr string) (net.Conn, error) { return s.listeners[addr].dial(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	s.transports = append(s.transports, transport)
	client := authv1connect.NewAuthServiceClient(connect.NewClient(transport))
	return func(ctx context.Context, number string) error {
		_, err := client.ValidateToken(ctx, &authv1.ValidateTokenRequest{Token: number})
		return err
	}
}

// close ends clients and instances.
func (s *service) close(t *testing.T) {
	t.Helper()
	var errs []error
	for _, transport := range s.transports {
		errs = append(errs, transport.Close())
	}
	for _, server := range s.servers {
		errs = append(errs, server.Close())
	}
	s.serving.Wait()
	if err := errors.Join(append(errs, s.registry.Close())...); err != nil {
		t.Error(err)
	}
}

// ValidateToken is an execution of the call whose number is the token.
func (s *service) ValidateToken(ctx context.Context, request *authv1.ValidateTokenRequest) (*authv1.ValidateTokenResponse, error) {
	number := request.GetToken()
	s.mu.Lock()
	s.executions[number]++
	nth := s.executions[number]
	s.executed = append(s.executed, time.Since(s.began))
	s.mu.Unlock()
	sum := fnv.New64a()
	_, _ = sum.Write([]byte(number))
	return &authv1.ValidateTokenResponse{}, s.answer(ctx, rand.New(rand.NewPCG(sum.Sum64(), uint64(nth))))
}

// observed is what became of the calls that began within some time, and how many executions did.
type observed struct {
	calls      []call
	failed     int
	executions int
}

// amplification is how many attempts there were per call.
func (o observed) amplification() float64 { return float64(o.executions) / float64(len(o.calls)) }

// failing is the share of the calls that failed.
func (o observed) failing() float64 { return float64(o.failed) / float64(len(o.calls)) }

// history is the calls that were made, and the executions.
type history struct {
	calls    []madeCall
	executed []time.Duration // since the beginning
}

type madeCall struct {
	call

	at     time.Duration // since the beginning
	failed bool
}

// between returns what happened from one time to another, since the beginning.
func (h *history) between(from, to time.Duration) observed {
	var seen observed
	for _, made := range h.calls {
		if from <= made.at && made.at < to {
			seen.calls = append(seen.calls, made.call)
			if made.failed {
				seen.failed++
			}
		}
	}
	for _, at := range h.executed {
		if from <= at && at < to {
			seen.executions++
		}
	}
	return seen
}

// load has calls performed at random times, at a rate, and waits for the answers.
func (s *service) load(rate float64, duration time.Duration, perform func(ctx context.Context, number string) error) *history {
	random := rand.New(rand.NewPCG(42, 4))
	var h history
	var mu sync.Mutex
	var all sync.WaitGroup
	for number := 0; time.Since(s.began) < duration; number++ {
		rest(context.Background(), time.Duration(random.ExpFloat64()/rate*float64(time.Second)))
		all.Go(func() {
			at := time.Since(s.began)
			err := perform(context.Background(), strconv.Itoa(number))
			mu.Lock()
			defer mu.Unlock()
			h.calls = append(h.calls, madeCall{call{latency: time.Since(s.began) - at}, at, err != nil})
		})
	}
	all.Wait()
	h.executed = s.executed
	return &h
}

// pipeListener listens for connections in memory.
type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (l *pipeListener) dial(ctx context.Context) (net.Conn, error) {
	ours, theirs := net.Pipe()
	select {
	case l.conns <- theirs:
		return ours, nil
	case <-l.closed:
		return nil, errors.New("connection refused")
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.conns:
		return conn, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *pipeListener) Addr() net.Addr { return &net.TCPAddr{} }
