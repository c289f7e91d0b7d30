//go:build integration && linux

package chaos_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	connectrpc "connectrpc.com/connect/v2"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/0x1d/goplt"
	"github.com/0x1d/goplt/config"
	authv1 "github.com/0x1d/goplt/gen/goplt/auth/v1"
	"github.com/0x1d/goplt/gen/goplt/auth/v1/authv1connect"
	"github.com/0x1d/goplt/internal/testprocess"
	"github.com/0x1d/goplt/pkg/registry"
	"github.com/0x1d/goplt/pkg/registry/consul"
	"github.com/0x1d/goplt/pkg/rpc"
	"github.com/0x1d/goplt/pkg/servicestest"
)

// service is what all instances are of.
const service = "auth"

// attemptTimeout is how long an attempt may take where another may follow.
const attemptTimeout = 400 * time.Millisecond

// settings returns the configuration of both sides. It is the default one, but for what the callers are: in a hurry; and for times after which things
// are looked at again, or renewed, so that minutes suffice to see that they are.
func settings(agent string) *config.Config {
	cfg := config.Default()
	cfg.Discovery.Consul.Address = agent
	cfg.Discovery.Consul.Logger = slog.New(slog.DiscardHandler)
	cfg.Discovery.Consul.Check.Kind, cfg.Discovery.Consul.Check.Interval = consul.CheckGRPC, time.Second
	cfg.Discovery.Consul.VerifyInterval = time.Second
	cfg.Defaults.AttemptTimeout = attemptTimeout
	cfg.Defaults.Pool.MaxAge, cfg.Defaults.Pool.IdleTimeout = 5*time.Second, 2*time.Second
	cfg.Defaults.Breaker.OpenFor = 2 * time.Second
	cfg.Defaults.Outlier.BaseEjection, cfg.Defaults.Outlier.MaxEjection = 2*time.Second, 6*time.Second
	return cfg
}

// instance is a server of the service behind a proxy or a gateway, under whose address it is registered, over all its lives.
type instance struct {
	traits

	number  int
	place   place
	proxy   *servicestest.Proxy
	gateway *servicestest.HTTPProxy // nil behind a mere proxy
	ledger  *ledger

	process *testprocess.Child // if it is in a process of its own; else
	// server is in this process, and so are its registry and the faults of its handlers.
	server *rpc.Server
	reg    registry.ServiceRegistry
	faults *servicestest.Faults
}

// place is where a server is.
type place struct {
	// Listen is the address it listens on, Advertise the one under which it registers with Agent. Instances listen on addresses of this machine that
	// nobody connects from, so that no outgoing connection takes their ports while they are down.
	Listen, Advertise, Agent string
}

// newInstance starts an instance, which ends with the test.
func newInstance(t *testing.T, number int, of traits, agent string, reg registry.ServiceRegistry, executions *ledger) *instance {
	t.Helper()
	i := &instance{traits: of, number: number, reg: reg, faults: servicestest.NewFaults(), ledger: executions}
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", fmt.Sprintf("127.0.0.%d:0", 100+number))
	if err != nil {
		t.Fatal(err)
	}
	listen := listener.Addr().String()
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	if of.behindGateway {
		i.gateway = servicestest.StartHTTPProxy(t, listen)
		i.proxy = i.gateway.Proxy
	} else {
		i.proxy = servicestest.StartProxy(t, listen)
	}
	i.place = place{Listen: listen, Advertise: i.proxy.Addr, Agent: agent}
	i.start(t)
	return i
}

// name tells instances apart in logs.
func (i *instance) name() string {
	where, behind := "in this process", "proxy"
	if i.ownProcess {
		where = "in a process of its own"
	}
	if i.behindGateway {
		behind = "gateway"
	}
	return fmt.Sprintf("instance %d (%s, %s %s)", i.number, where, behind, i.proxy.Addr)
}

// start starts the server, and returns when it is registered.
func (i *instance) start(t *testing.T) {
	t.Helper()
	if i.ownProcess {
		i.startProcess(t)
		return
	}
	server, err := newServer(i.place, i.reg, i.faults, i.ledger.note)
	if err == nil {
		err = server.Start(t.Context())
	}
	if err != nil {
		t.Fatalf("%s does not start: %v", i.name(), err)
	}
	i.server = server
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = server.Stop(ctx) // what there is to say of stopping is said where it is tested
	})
}

func (i *instance) startProcess(t *testing.T) {
	t.Helper()
	place, err := json.Marshal(i.place)
	if err != nil {
		t.Fatal(err)
	}
	process, _, ok := testprocess.StartChild(t, placeVariable+"="+string(place), readyLine, func(line string) {
		if id, ok := strings.CutPrefix(line, executedPrefix); ok {
			i.ledger.note(id)
		}
	})
	if !ok {
		t.Fatalf("%s does not start", i.name())
	}
	i.process = process
}

// stop stops the server in order.
func (i *instance) stop() error {
	if i.ownProcess {
		return i.process.End()
	}
	return i.server.Stop(context.Background())
}

const (
	// placeVariable tells this program to be an instance, and not to test, in a process that a test can pause and kill.
	placeVariable  = "GOPLT_TEST_CHAOS_PLACE"
	readyLine      = "ready"
	executedPrefix = "executed "
)

// serve is what an instance does in a process of its own: it hosts the service until standard input ends, as it does when the test's process does, and
// says on standard output what it executes, before it does.
func serve(described string) error {
	var where place
	if err := json.Unmarshal([]byte(described), &where); err != nil {
		return err
	}
	reg, closeRegistry, err := goplt.NewRegistry(settings(where.Agent))
	if err != nil {
		return err
	}
	defer closeRegistry()
	server, err := newServer(where, reg, servicestest.NewFaults(), func(id string) { say(executedPrefix + id) })
	if err != nil {
		return err
	}
	if err := server.Start(context.Background()); err != nil {
		return err
	}
	say(readyLine)
	_, _ = io.Copy(io.Discard, os.Stdin)
	return server.Stop(context.Background())
}

// say writes a line by one system call, so that it is said whole or not at all, even if the process is killed, and by several goroutines at a time.
func say(line string) { _, _ = os.Stdout.WriteString(line + "\n") }

// newServer returns a server at a place, which tells of each call by its ID before it executes it.
func newServer(where place, reg registry.ServiceRegistry, faults *servicestest.Faults, executed func(id string)) (*rpc.Server, error) {
	listener, err := new(net.ListenConfig).Listen(context.Background(), "tcp", where.Listen)
	if err != nil {
		return nil, err
	}
	settings := config.Default().Server
	settings.Advertise = where.Advertise
	settings.DeregisterDelay = 2 * time.Second // as news travel slowly on a machine that is busy with breaking things
	handlers := connectrpc.NewServer(faults.Interceptor(), telling(executed))
	authv1connect.RegisterAuthServiceHandler(handlers, echo{})
	handlers.Register(connectrpc.Method{Spec: specCount, Handler: count})
	server, err := rpc.NewServer(handlers, rpc.WithServerConfig(settings), rpc.WithListener(faults.Listener(listener)),
		rpc.WithServerLogger(slog.New(slog.DiscardHandler)), rpc.WithRegistration(reg, service))
	if err != nil {
		_ = listener.Close()
	}
	return server, err
}

// telling tells of each call's ID when its handler is about to run.
func telling(executed func(id string)) connectrpc.ServerInterceptor {
	return func(next connectrpc.ServerFunc) connectrpc.ServerFunc {
		return func(ctx context.Context, spec connectrpc.Spec, stream connectrpc.ServerStream) error {
			id := ""
			if info, ok := connectrpc.CallInfoForServerContext(ctx); ok {
				id = info.RequestHeader().Get(servicestest.CallIDHeader)
			}
			executed(id)
			return next(ctx, spec, stream)
		}
	}
}

// echo answers each call with the ID that its message has.
type echo struct {
	authv1connect.UnimplementedAuthServiceHandler
}

func (echo) Login(_ context.Context, request *authv1.LoginRequest) (*authv1.LoginResponse, error) {
	return &authv1.LoginResponse{Tokens: &authv1.TokenPair{AccessToken: request.GetEmail()}}, nil
}

func (echo) ValidateToken(_ context.Context, request *authv1.ValidateTokenRequest) (*authv1.ValidateTokenResponse, error) {
	return &authv1.ValidateTokenResponse{Claims: &authv1.TokenClaims{UserId: request.GetToken()}}, nil
}

// specCount is of a server stream: the ID that the request has, countTo times, within a fifth of a second or so.
var specCount = connectrpc.Spec{Procedure: "/goplt.test.v1.ChaosService/Count", StreamType: connectrpc.StreamTypeServer}

const (
	countTo    = 4
	countPause = 50 * time.Millisecond
)

func count(ctx context.Context, _ connectrpc.Spec, stream connectrpc.ServerStream) error {
	var id wrapperspb.StringValue
	if err := stream.Receive(&id); err != nil {
		return err
	}
	ticker := time.NewTicker(countPause)
	defer ticker.Stop()
	for range countTo {
		if err := stream.Send(&id); err != nil {
			return err
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}
