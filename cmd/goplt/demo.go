package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/0x1d/goplt"
	"github.com/0x1d/goplt/config"
	"github.com/0x1d/goplt/pkg/registry"
	"github.com/0x1d/goplt/pkg/registry/memory"
	"github.com/0x1d/goplt/pkg/rpc"
	"github.com/0x1d/goplt/pkg/services"
	"github.com/0x1d/goplt/pkg/servicestest"
)

const (
	demoInstances = 3
	demoCallers   = 16
	// demoCalls is how many calls each caller makes in the third act, the kill coming after a third of them.
	demoCalls = 200
)

func (c *command) demoCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "demo",
		Short: "Show the whole library at work on this machine, in seconds",
		Long: "Start several instances of the in-memory core services on real sockets, and call them: every method by gRPC, the same through a proxy\n" +
			"that lets only HTTP/1.1 pass, and a load under which an instance is killed. It exits with 0 only if all of it worked.\n" +
			"It runs on the embedded defaults, whatever the environment, and takes none of the flags below but --help.",
		Args: between(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			var given string
			cmd.Flags().Visit(func(flag *pflag.Flag) { given = flag.Name })
			if given != "" {
				return usagef("demo runs on the embedded defaults and takes no --%s", given)
			}
			d := &demo{out: cmd.OutOrStdout(), config: config.Default()}
			return d.run(cmd.Context())
		},
	}
}

// demo is one performance.
type demo struct {
	out     io.Writer
	config  *config.Config
	servers []*demoServer
}

// demoServer is one instance: all four services on one socket. A plain httptest server hosts it, because it can be killed without warning.
type demoServer struct {
	*httptest.Server

	calls atomic.Int64
}

func (d *demo) run(ctx context.Context) (err error) {
	started := time.Now()
	logger := slog.New(slog.DiscardHandler)
	platform := servicestest.NewPlatform(servicestest.WithDemoData(), servicestest.WithPasswordCost(servicestest.TestPasswordCost()))
	defer func() {
		for _, server := range d.servers {
			server.Close()
		}
	}()
	for range demoInstances {
		server, err := startDemoServer(platform, logger)
		if err != nil {
			return err
		}
		d.servers = append(d.servers, server)
	}
	acts := []struct {
		title string
		play  func(context.Context, *servicestest.Platform) error
	}{
		{"every method of the four services by gRPC, over three instances", d.everyMethodByGRPC},
		{"the same through a proxy that lets only HTTP/1.1 pass", d.everyMethodThroughProxy},
		{"an instance killed under load", d.killUnderLoad},
	}
	for number, act := range acts {
		_, _ = fmt.Fprintf(d.out, "%d. %s\n", number+1, act.title)
		if err := act.play(ctx, platform); err != nil {
			_, _ = fmt.Fprintf(d.out, "   FAILED: %v\n", err)
			return fmt.Errorf("demo: %s: %w", act.title, err)
		}
	}
	_, err = fmt.Fprintf(d.out, "All of it held, in %v.\n", time.Since(started).Round(10*time.Millisecond))
	return err
}

func startDemoServer(platform *servicestest.Platform, logger *slog.Logger) (*demoServer, error) {
	handlers, err := host(platform, services.Names(), logger)
	if err != nil {
		return nil, err
	}
	server, err := rpc.NewServer(handlers)
	if err != nil {
		return nil, err
	}
	started := &demoServer{}
	handler := server.Handler()
	started.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		started.calls.Add(1)
		handler.ServeHTTP(w, r)
	}))
	started.Config.Protocols = new(http.Protocols)
	started.Config.Protocols.SetHTTP1(true)
	started.Config.Protocols.SetUnencryptedHTTP2(true)
	started.Start()
	return started, nil
}

// audience is clients that find every service at some addresses, in a registry in memory.
type audience struct {
	*goplt.Clients

	factory *goplt.Factory
	close   func()
}

func (d *demo) connectTo(ctx context.Context, addresses ...string) (*audience, error) {
	reg := memory.New()
	for _, name := range services.Names() {
		for number, address := range addresses {
			host, port, err := splitAddr(address)
			if err != nil {
				return nil, err
			}
			instance := registry.Instance{ID: fmt.Sprintf("%s-%d", name, number+1), Service: name, Host: host, Port: port, Weight: 1}
			if _, err := reg.Register(ctx, instance); err != nil {
				return nil, err
			}
		}
	}
	factory, closeFactory, err := goplt.NewFactory(d.config, reg)
	if err != nil {
		return nil, err
	}
	clients, err := goplt.NewClients(factory)
	if err != nil {
		return nil, err
	}
	return &audience{clients, factory, func() {
		closeFactory()
		_ = reg.Close()
	}}, nil
}

// called returns what the clients know of the instances that they called.
func (a *audience) called() (instances []rpc.InstanceStatus, err error) {
	for _, name := range services.Names() {
		transport, err := a.factory.Transport(name)
		if err != nil {
			return nil, err
		}
		for _, instance := range transport.Status().Instances {
			if instance.Calls > 0 {
				instances = append(instances, instance)
			}
		}
	}
	return instances, nil
}

// everyMethodByGRPC is the first act.
func (d *demo) everyMethodByGRPC(ctx context.Context, platform *servicestest.Platform) error {
	var addresses []string
	for _, server := range d.servers {
		addresses = append(addresses, server.Listener.Addr().String())
	}
	return d.everyMethod(ctx, platform, rpc.ProtocolGRPC, addresses...)
}

// everyMethodThroughProxy is the second act.
func (d *demo) everyMethodThroughProxy(ctx context.Context, platform *servicestest.Platform) error {
	proxy, err := servicestest.NewHTTPProxy(d.servers[0].URL)
	if err != nil {
		return err
	}
	defer func() { _ = proxy.Close() }()
	proxy.HTTP1Only()
	return d.everyMethod(ctx, platform, rpc.ProtocolHTTP, proxy.Addr)
}

// everyMethod calls every method of every service and checks how the instances were spoken to.
func (d *demo) everyMethod(ctx context.Context, platform *servicestest.Platform, want rpc.Protocol, addresses ...string) error {
	audience, err := d.connectTo(ctx, addresses...)
	if err != nil {
		return err
	}
	defer audience.close()
	steps := methodSteps(audience.Clients, platform)
	for _, step := range steps {
		began := time.Now()
		shown, err := step.call(ctx)
		if err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
		_, _ = fmt.Fprintf(d.out, "   %-30s %-8s %s\n", step.name, time.Since(began).Round(10*time.Microsecond), shown)
	}
	called, err := audience.called()
	if err != nil {
		return err
	}
	for _, instance := range called {
		if instance.Protocol != want {
			return fmt.Errorf("%s was spoken to by %s, want %s", instance.ID, instance.Protocol, want)
		}
	}
	_, _ = fmt.Fprintf(d.out, "   %d methods; the protocol chosen by itself, for all %d instances called: %s\n", len(steps), len(called), want)
	return nil
}

// killUnderLoad is the third act: calls go on while an instance dies without warning.
func (d *demo) killUnderLoad(ctx context.Context, _ *servicestest.Platform) error {
	var addresses []string
	for _, server := range d.servers {
		addresses = append(addresses, server.Listener.Addr().String())
	}
	audience, err := d.connectTo(ctx, addresses...)
	if err != nil {
		return err
	}
	defer audience.close()
	victim := d.servers[len(d.servers)-1]
	before := victim.calls.Load()
	var made, failed atomic.Int64
	var firstErr atomic.Pointer[error]
	kill := sync.OnceFunc(func() {
		_ = victim.Listener.Close()
		victim.CloseClientConnections()
	})
	var callers sync.WaitGroup
	for range demoCallers {
		callers.Go(func() {
			for range demoCalls {
				if _, err := audience.Authz.HasPermission(ctx, "usr_ada", "invoices:read"); err != nil {
					failed.Add(1)
					firstErr.CompareAndSwap(nil, &err)
				}
				if made.Add(1) == demoCallers*demoCalls/3 {
					kill()
				}
			}
		})
	}
	callers.Wait()
	served := victim.calls.Load() - before
	switch {
	case failed.Load() > 0:
		return fmt.Errorf("%d of %d calls failed, the first with: %w", failed.Load(), made.Load(), *firstErr.Load())
	case served == 0:
		return errors.New("the instance that was killed had not served a call before")
	}
	called, err := audience.called()
	if err != nil {
		return err
	}
	var met uint64
	for _, instance := range called {
		if instance.Addr == victim.Listener.Addr().String() {
			met = instance.Failures
		}
	}
	const told = "   %d calls by %d callers; instance %d killed after it had served %d; %d attempts met it dead and went elsewhere; failed calls: 0\n"
	_, _ = fmt.Fprintf(d.out, told, made.Load(), demoCallers, len(d.servers), served, met)
	return nil
}
