//go:build integration

package services_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect/v2"

	"github.com/0x1d/goplt/internal/consultest"
	internal "github.com/0x1d/goplt/internal/services"
	"github.com/0x1d/goplt/pkg/registry"
	"github.com/0x1d/goplt/pkg/registry/consul"
	"github.com/0x1d/goplt/pkg/rpc"
	"github.com/0x1d/goplt/pkg/services"
	"github.com/0x1d/goplt/pkg/servicestest"
)

// fleet is the core services, hosted by instances that share one platform, found through a real Consul agent.
type fleet struct {
	platform *servicestest.Platform
	registry *consul.Registry
	// unchecked instances are found at once, and go at once.
	unchecked bool
}

func newFleet(t *testing.T, address string, check consul.CheckKind, options ...servicestest.Option) *fleet {
	t.Helper()
	config := consul.DefaultConfig()
	config.Address = address
	config.Check.Kind = check
	config.Check.Interval = time.Second
	config.Logger = slog.New(slog.DiscardHandler)
	reg, err := consul.New(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := reg.Close(); err != nil {
			t.Error(err)
		}
	})
	options = append(options, servicestest.WithPasswordCost(servicestest.TestPasswordCost()))
	return &fleet{platform: servicestest.NewPlatform(options...), registry: reg, unchecked: check == consul.CheckNone}
}

// start starts an instance with all four services and registers it.
func (f *fleet) start(t *testing.T, names ...string) *rpc.Server {
	t.Helper()
	handlers := connect.NewServer()
	internal.RegisterAuth(handlers, f.platform.Auth(), nil)
	internal.RegisterIdentity(handlers, f.platform.Identity(), nil)
	internal.RegisterAuthz(handlers, f.platform.Authz(), nil)
	internal.RegisterAudit(handlers, f.platform.Audit(), nil)
	config := rpc.DefaultServerConfig()
	config.Listen = "127.0.0.1:0"
	if f.unchecked {
		config.DeregisterDelay = 0
	}
	server, err := rpc.NewServer(handlers, rpc.WithServerConfig(config), rpc.WithRegistration(f.registry, names...))
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return server
}

// clients returns a factory of clients that find the fleet in Consul.
func (f *fleet) clients(t *testing.T) *internal.Factory {
	t.Helper()
	factory, err := internal.NewFactory(internal.FactoryConfig{
		Registry: f.registry,
		Client: func(string) rpc.ClientConfig {
			config := rpc.DefaultClientConfig()
			config.WaitForInstances = true // a check has to pass before Consul names an instance
			config.Timeout = 30 * time.Second
			return config
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := factory.Close(); err != nil {
			t.Error(err)
		}
	})
	return factory
}

// await watches a service until its instances satisfy done.
func (f *fleet) await(t *testing.T, service, what string, done func([]registry.Instance) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	watcher, err := f.registry.Watch(registry.Target{Service: service})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = watcher.Close() }()
	for {
		found, err := watcher.Next(ctx)
		if ctx.Err() != nil {
			t.Fatalf("waited in vain for %s of %s", what, service)
		}
		if err == nil && done(found) {
			return
		}
	}
}

func count(wanted int) func([]registry.Instance) bool {
	return func(found []registry.Instance) bool { return len(found) == wanted }
}

// TestServicesThroughConsul runs the services' own suite over clients that found three instances through Consul.
func TestServicesThroughConsul(t *testing.T) {
	address := consultest.Address(t)
	servicestest.RunSuite(t, func(t *testing.T) servicestest.Services {
		t.Helper()
		// Instances of each subtest have service names of their own, because the agent may be shared.
		f := newFleet(t, address, consul.CheckNone) // there are many subtests, and a first check takes its time
		prefix := fmt.Sprintf("it-%d-", time.Now().UnixNano())
		var names []string
		for _, name := range services.Names() {
			names = append(names, prefix+name)
		}
		f.start(t, names...)
		factory, err := internal.NewFactory(internal.FactoryConfig{
			Registry: f.registry,
			Target:   func(service string) string { return "consul:///" + prefix + service },
			Client: func(string) rpc.ClientConfig {
				config := rpc.DefaultClientConfig()
				config.WaitForInstances = true
				return config
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = factory.Close() })
		return servicestest.Services{
			Auth: client(t, factory.Auth), Identity: client(t, factory.Identity), Authz: client(t, factory.Authz), Audit: client(t, factory.Audit),
			Controls: f.platform,
		}
	})
}

func client[C any](t *testing.T, construct func() (C, error)) C {
	t.Helper()
	made, err := construct()
	if err != nil {
		t.Fatal(err)
	}
	return made
}

// TestLifeOfAFleet is what happens to a service in production: instances come, one dies, the agent restarts and forgets, instances go.
func TestLifeOfAFleet(t *testing.T) {
	agent := consultest.Start(t)
	f := newFleet(t, agent.Address, consul.CheckGRPC, servicestest.WithDemoData(), servicestest.WithSecret(fleetSecret))
	servers := []*rpc.Server{f.start(t, services.Names()...), f.start(t, services.Names()...)}
	killed := startProcess(t, agent.Address)
	f.await(t, services.AuthService, "three instances", count(3))
	factory := f.clients(t)
	auth := client(t, factory.Auth)
	transport, err := factory.Transport(services.AuthService)
	if err != nil {
		t.Fatal(err)
	}

	login := func(ctx context.Context) (string, error) {
		tokens, err := auth.Login(ctx, "ada@example.com", servicestest.DemoPassword)
		if err != nil {
			return "", err
		}
		return tokens.AccessToken, nil
	}
	token, err := login(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Run("one of three is killed under load", func(t *testing.T) {
		// ValidateToken may be sent again when it was under way at the instance that dies; a Login that was would rightly fail.
		validations := startLoad(t, func(ctx context.Context) error {
			_, err := auth.ValidateToken(ctx, token)
			return err
		})
		for calls := uint64(0); calls < 50; calls = callsOf(transport.Status(), killed.addr) {
			validations.await(t, 1)
		}
		killed.kill(t)
		validations.await(t, 50)
		validations.stop(t)
	})
	load := startLoad(t, func(ctx context.Context) error { // while Consul may still name the dead instance
		_, err := login(ctx)
		return err
	})
	f.await(t, services.AuthService, "the two that live", count(2))
	servers = append(servers, f.start(t, services.Names()...))
	f.await(t, services.AuthService, "three instances", count(3))
	t.Run("one of three stops under load", func(t *testing.T) {
		load.await(t, 50)
		if err := servers[0].Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
		f.await(t, services.AuthService, "two instances", count(2))
		load.await(t, 50)
	})
	t.Run("the agent restarts and has forgotten everything", func(t *testing.T) {
		agent.Kill()
		load.await(t, 50)
		agent.Restart()
		f.await(t, services.AuthService, "two instances, registered again", count(2))
		load.await(t, 50)
	})
	t.Run("the agent is gone", func(t *testing.T) {
		agent.Kill()
		defer agent.Restart() // the servers deregister when they stop
		load.await(t, 200)
		if got := len(transport.Status().Instances); got != 2 {
			t.Errorf("%d instances kept, want 2", got)
		}
	})
	load.stop(t)
}

// instanceAgent is the variable that makes [TestInstanceProcess] host an instance, registered with the agent at the address that it holds.
const instanceAgent = "GOPLT_TEST_INSTANCE_AGENT"

// fleetSecret makes the tokens of one process valid at another.
const fleetSecret = "the secret that the processes of a test's fleet share"

// TestInstanceProcess is not a test but what [startProcess] has this program do in a process of its own: host an instance until it is killed,
// or standard input ends, as it does when the test process does.
func TestInstanceProcess(t *testing.T) {
	agent := os.Getenv(instanceAgent)
	if agent == "" {
		t.Skip("hosts an instance only when another test starts it")
	}
	f := newFleet(t, agent, consul.CheckGRPC, servicestest.WithDemoData(), servicestest.WithSecret(fleetSecret))
	fmt.Printf("listening on %s\n", f.start(t, services.Names()...).Addr()) //nolint:forbidigo // to the test that reads it
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// process is an instance in a process of its own.
type process struct {
	addr string
	cmd  *exec.Cmd
}

// startProcess starts an instance and waits until it listens. The process ends with the test.
func startProcess(t *testing.T, agent string) *process {
	t.Helper()
	cmd := exec.CommandContext(context.Background(), os.Args[0], "-test.run=^TestInstanceProcess$")
	cmd.Env = append(os.Environ(), instanceAgent+"="+agent)
	if _, err := cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &process{cmd: cmd}
	t.Cleanup(func() { p.kill(t) })
	if _, err := fmt.Fscanf(stdout, "listening on %s\n", &p.addr); err != nil {
		t.Fatalf("an instance in a process of its own: %v", err)
	}
	return p
}

// kill ends the process without a chance to do anything, and waits until it is gone, and its connections with it.
func (p *process) kill(t *testing.T) {
	t.Helper()
	if p.cmd == nil {
		return
	}
	if err := p.cmd.Process.Kill(); err != nil {
		t.Error(err)
	}
	_ = p.cmd.Wait() // that it was killed
	p.cmd = nil
}

// callsOf returns how many attempts were made at the instance at addr.
func callsOf(status rpc.Status, addr string) uint64 {
	for _, instance := range status.Instances {
		if instance.Addr == addr {
			return instance.Calls
		}
	}
	return 0
}

// TestDeregistration shows that a stopped service is gone from Consul, and that its callers are told so at once.
func TestDeregistration(t *testing.T) {
	agent := consultest.Start(t)
	f := newFleet(t, agent.Address, consul.CheckGRPC, servicestest.WithDemoData())
	server := f.start(t, services.AuthService)
	f.await(t, services.AuthService, "an instance", count(1))
	made, err := internal.NewServiceClient(services.AuthService, f.registry)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = made.Close() }()
	auth := made.(services.AuthServiceClient)
	if _, err := auth.Login(t.Context(), "ada@example.com", servicestest.DemoPassword); err != nil {
		t.Fatal(err)
	}
	if err := server.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.await(t, services.AuthService, "no instance", count(0))
	for {
		_, err := auth.Login(t.Context(), "ada@example.com", servicestest.DemoPassword)
		if err == nil {
			t.Fatal("a stopped server answered")
		}
		if errors.Is(err, rpc.ErrNoInstances) && errors.Is(err, services.ErrUnavailable) {
			return
		}
		if !errors.Is(err, services.ErrUnavailable) {
			t.Fatal(err)
		}
	}
}

// load is callers that call on and on.
type load struct {
	made, failed atomic.Int64
	first        atomic.Pointer[error]
	progress     chan struct{}
	cancel       context.CancelFunc
	callers      sync.WaitGroup
}

func startLoad(t *testing.T, call func(context.Context) error) *load {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	l := &load{cancel: cancel, progress: make(chan struct{}, 1)}
	for range 4 {
		l.callers.Go(func() {
			for ctx.Err() == nil {
				if err := call(ctx); err != nil && ctx.Err() == nil {
					l.failed.Add(1)
					l.first.CompareAndSwap(nil, &err)
				}
				l.made.Add(1)
				select {
				case l.progress <- struct{}{}:
				default:
				}
			}
		})
	}
	t.Cleanup(func() {
		cancel()
		l.callers.Wait()
	})
	return l
}

// await waits until so many further calls were made.
func (l *load) await(t *testing.T, calls int64) {
	t.Helper()
	for until := l.made.Load() + calls; l.made.Load() < until; {
		select {
		case <-l.progress:
		case <-t.Context().Done():
			t.Fatal(t.Context().Err())
		}
	}
}

// stop ends the load and fails the test if a call failed.
func (l *load) stop(t *testing.T) {
	t.Helper()
	l.cancel()
	l.callers.Wait()
	if failed := l.failed.Load(); failed > 0 {
		t.Errorf("%d of %d calls failed, the first with: %v", failed, l.made.Load(), *l.first.Load())
	}
	t.Logf("%d calls", l.made.Load())
}
