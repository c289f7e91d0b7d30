//go:build integration

package consul_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/consul/api"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/0x1d/goplt/internal/consultest"
	"github.com/0x1d/goplt/pkg/registry"
	"github.com/0x1d/goplt/pkg/registry/consul"
	"github.com/0x1d/goplt/pkg/registry/static"
	"github.com/0x1d/goplt/pkg/rpc"
)

// catalog asks an agent for what no watch shows.
func catalog(t *testing.T, address string) *api.Client {
	t.Helper()
	client, err := api.NewClient(&api.Config{Address: address, HttpClient: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}})
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// awaitEntries blocks until the servers know of the service what reached says, and returns that.
func awaitEntries(t *testing.T, address, service, wanted string, reached func([]*api.ServiceEntry) bool) []*api.ServiceEntry {
	t.Helper()
	client := catalog(t, address)
	for index := uint64(1); ; {
		entries, meta, err := client.Health().Service(service, "", false, (&api.QueryOptions{WaitIndex: index}).WithContext(t.Context()))
		if err != nil {
			t.Fatalf("waiting for %s: %v", wanted, err)
		}
		if reached(entries) {
			return entries
		}
		index = meta.LastIndex
	}
}

// weighing returns what awaitEntries wants of one instance with the given weight.
func weighing(weight int) func([]*api.ServiceEntry) bool {
	return func(entries []*api.ServiceEntry) bool {
		return len(entries) == 1 && entries[0].Service.Weights.Passing == weight
	}
}

// An update resets neither a check that is critical nor an operator's maintenance.
func TestIntegrationUpdateKeepsWhatIsSaidOfTheInstance(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t)
	t.Run("ttl", func(t *testing.T) {
		t.Parallel()
		r := overAgent(t, agent.Address)
		registration := register(t, r, instance())
		w := watch(t, r)
		await(t, w, "auth-1")
		registration.SetHealth(registry.HealthCritical, "no database")
		await(t, w)
		if err := registration.Update(t.Context(), 3, map[string]string{"stage": "canary"}); err != nil {
			t.Fatal(err)
		}
		updated := awaitEntries(t, agent.Address, "auth", "weight 3", weighing(3))[0]
		if got := updated.Checks.AggregatedStatus(); got != api.HealthCritical {
			t.Errorf("after the update it is %s", got)
		}
		registration.SetHealth(registry.HealthPassing, "")
		if back := await(t, w, "auth-1")[0]; back.Weight != 3 || back.Metadata["stage"] != "canary" {
			t.Errorf("back is %+v", back)
		}

		agent.Put("/v1/agent/service/maintenance/auth:auth-1?enable=true&reason=upgrade")
		await(t, w)
		if err := registration.Update(t.Context(), 4, nil); err != nil {
			t.Fatal(err)
		}
		updated = awaitEntries(t, agent.Address, "auth", "weight 4", weighing(4))[0]
		if got := updated.Checks.AggregatedStatus(); got != api.HealthMaint {
			t.Errorf("after the update it is %s", got)
		}
		agent.Put("/v1/agent/service/maintenance/auth:auth-1?enable=false")
		await(t, w, "auth-1")
	})
	t.Run("none", func(t *testing.T) {
		t.Parallel()
		given := instance()
		given.Service = "mail"
		client := catalog(t, agent.Address).Agent()
		checks := func() []string {
			t.Helper()
			all, err := client.ChecksWithFilter(`ServiceID == "mail:auth-1"`)
			if err != nil {
				t.Fatal(err)
			}
			return slices.Sorted(maps.Keys(all))
		}
		const ofEarlier, maintenance = "service:mail:auth-1", "_service_maintenance:mail:auth-1"
		earlier := &api.AgentServiceRegistration{
			ID: "mail:auth-1", Name: "mail", Check: &api.AgentServiceCheck{CheckID: ofEarlier, TTL: "1h", Status: api.HealthPassing},
		}
		if err := client.ServiceRegister(earlier); err != nil {
			t.Fatal(err)
		}
		if err := client.EnableServiceMaintenance(earlier.ID, "upgrade"); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{maintenance, ofEarlier}, checks()); diff != "" {
			t.Fatalf("checks (-want +got):\n%s", diff)
		}
		registration := register(t, overAgent(t, agent.Address, kind(consul.CheckNone)), given)
		if diff := cmp.Diff([]string{maintenance}, checks()); diff != "" {
			t.Errorf("checks after the registration (-want +got):\n%s", diff)
		}
		if err := registration.Update(t.Context(), 3, nil); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{maintenance}, checks()); diff != "" {
			t.Errorf("checks after the update (-want +got):\n%s", diff)
		}
	})
	t.Run("grpc", func(t *testing.T) {
		t.Parallel()
		var status atomic.Int32
		status.Store(notServing)
		r := overAgent(t, agent.Address, checkedByGRPC)
		given := instance()
		given.Service, given.Host, given.Port = "audit", "127.0.0.1", serveHealth(t, &status)
		registration := register(t, r, given)
		critical := func(entries []*api.ServiceEntry) bool {
			return len(entries) == 1 && entries[0].Checks.AggregatedStatus() == api.HealthCritical
		}
		awaitEntries(t, agent.Address, "audit", "the agent's own check", critical)
		if err := registration.Update(t.Context(), 3, nil); err != nil {
			t.Fatal(err)
		}
		if updated := awaitEntries(t, agent.Address, "audit", "weight 3", weighing(3)); !critical(updated) {
			t.Errorf("after the update it is %s", updated[0].Checks.AggregatedStatus())
		}
	})
}

// Fault 4, of the registration: what the agent forgot it is told again, as it was updated, under the same revision, and as ill as it is.
func TestIntegrationAgentLossKeepsUpdates(t *testing.T) {
	t.Parallel()
	for _, check := range []consul.CheckKind{consul.CheckNone, consul.CheckTTL} {
		t.Run(string(check), func(t *testing.T) {
			t.Parallel()
			agent := consultest.Start(t)
			r := overAgent(t, agent.Address, func(c *consul.Config) { c.Check.Kind, c.Check.TTL = check, 3*time.Second })
			registration := register(t, r, instance())
			if err := registration.Update(t.Context(), 3, map[string]string{"stage": "canary"}); err != nil {
				t.Fatal(err)
			}
			w := watch(t, r)
			before := await(t, w, "auth-1")[0]
			ill := instance()
			ill.ID, ill.Service, ill.Health = "ill", "audit", registry.HealthCritical
			illness := register(t, r, ill)
			agent.Kill()
			expectError(t, w, nil)
			agent.Restart()
			began := time.Now()
			after := await(t, watch(t, r), "auth-1")[0]
			t.Logf("registered again %v after the agent was back", time.Since(began))
			if diff := cmp.Diff(before, after); diff != "" {
				t.Errorf("(-before +after):\n%s", diff)
			}
			if check == consul.CheckTTL {
				known := func(entries []*api.ServiceEntry) bool { return len(entries) == 1 }
				if got := awaitEntries(t, agent.Address, "audit", "what is ill", known)[0].Checks.AggregatedStatus(); got != api.HealthCritical {
					t.Errorf("what was critical is registered again as %s", got)
				}
				illness.SetHealth(registry.HealthPassing, "")
				await(t, watch(t, r, "audit"), "ill")
			}
		})
	}
}

// Fault 7, of the registration. The agent tells the servers of an instance with the token that registered it: were it not registered with the new
// one, nothing that is said after the old one's end would get through, though each request is answered 200.
func TestIntegrationRegistrationOutlivesItsToken(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t, consultest.WithACL())
	writer := `service_prefix "" { policy = "write" } node_prefix "" { policy = "read" }`
	token := agent.CreateToken(writer)
	file, rotate := tokenFile(t, token)
	logged := new(journal)
	failed := telling{text: "cannot be kept up", told: make(chan struct{}, 8)}
	r := overAgent(t, agent.Address, func(c *consul.Config) {
		c.TokenFile, c.Logger = file, slog.New(slog.NewTextHandler(io.MultiWriter(logged, failed), nil))
	})
	registration := register(t, r, instance())
	w := watch(t, overAgent(t, agent.Address, func(c *consul.Config) { c.Token = consultest.ManagementToken }))
	await(t, w, "auth-1")

	next := agent.CreateToken(writer)
	rotate(next)
	agent.DeleteToken(token)
	registration.SetHealth(registry.HealthCritical, "after the rotation")
	await(t, w)
	registration.SetHealth(registry.HealthPassing, "")
	await(t, w, "auth-1")

	agent.DeleteToken(next) // before there is another
	registration.SetHealth(registry.HealthCritical, "without a token")
	<-failed.told
	if err := registration.Update(t.Context(), 3, nil); err == nil {
		t.Error("an update with a token that is deleted succeeds")
	}
	rotate(agent.CreateToken(writer))
	began := time.Now()
	await(t, w)
	t.Logf("recovered %v after the token file changed", time.Since(began))
	registration.SetHealth(registry.HealthPassing, "")
	if err := registration.Update(t.Context(), 3, nil); err != nil {
		t.Errorf("update with the new token: %v", err)
	}
	awaitWeight(t, w, 3)
	for text, want := range map[string]int{"cannot be kept up": 1, "in order again": 1} {
		if got := logged.count(text); got != want {
			t.Errorf("%q is logged %d times, want %d:\n%s", text, got, want, logged.lines.String())
		}
	}
}

// telling is a log that tells of the lines which hold a text.
type telling struct {
	text string
	told chan struct{}
}

func (t telling) Write(line []byte) (int, error) {
	if strings.Contains(string(line), t.text) {
		t.told <- struct{}{}
	}
	return len(line), nil
}

// awaitWeight calls Next until the one instance has the given weight.
func awaitWeight(t *testing.T, w registry.Watcher, weight int) {
	t.Helper()
	for {
		if set, err := w.Next(t.Context()); t.Context().Err() != nil {
			t.Fatalf("weight %d is not seen: %v", weight, err)
		} else if err == nil && len(set) == 1 && set[0].Weight == weight {
			return
		}
	}
}

var specEcho = connect.Spec{Procedure: "/test.v1.Words/Echo", StreamType: connect.StreamTypeUnary}

func echo(ctx context.Context, client *connect.Client) error {
	return client.CallUnary(ctx, specEcho, wrapperspb.String("x"), new(wrapperspb.StringValue))
}

// A server that stops is deregistered first, goes on serving while the news spreads, and then drains: callers that make one attempt and no more see no
// failure.
func TestIntegrationStopUnderCalls(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t)
	r := overAgent(t, agent.Address)
	handlers := connect.NewServer()
	handlers.Register(connect.Method{Spec: specEcho, Handler: func(_ context.Context, _ connect.Spec, stream connect.ServerStream) error {
		var text wrapperspb.StringValue
		if err := stream.Receive(&text); err != nil {
			return err
		}
		return stream.Send(&text)
	}})
	start := func() *rpc.Server {
		config := rpc.DefaultServerConfig()
		config.Listen, config.DeregisterDelay = "127.0.0.1:0", 3*time.Second
		server, err := rpc.NewServer(handlers, rpc.WithServerConfig(config), rpc.WithRegistration(r, "auth"))
		if err == nil {
			err = server.Start(t.Context())
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = server.Stop(context.WithoutCancel(t.Context())) })
		return server
	}
	leaving, staying := start(), start()
	dial := func(target string, reg registry.ServiceRegistry) *connect.Client {
		config := rpc.DefaultClientConfig()
		config.Retry.MaxAttempts = 1
		transport, err := rpc.NewTransport(target, reg, rpc.WithClientConfig(config))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = transport.Close() })
		return connect.NewClient(transport)
	}
	w := watch(t, r)
	for set := []registry.Instance(nil); len(set) != 2; {
		var err error
		if set, err = w.Next(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	fixed, err := static.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	client, direct := dial("consul:///auth", r), dial("static:///"+leaving.Addr(), fixed)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var callers sync.WaitGroup
	var made atomic.Int64
	going := make(chan struct{}, 1)
	for range 8 {
		callers.Go(func() {
			for ctx.Err() == nil {
				if err := echo(t.Context(), client); err != nil {
					t.Errorf("call: %v", err)
					return
				}
				if made.Add(1)%200 == 0 {
					select {
					case going <- struct{}{}:
					default:
					}
				}
			}
		})
	}
	<-going
	stopped := make(chan error, 1)
	go func() { stopped <- leaving.Stop(t.Context()) }()
	for set := []registry.Instance(nil); len(set) != 1 || set[0].Addr() != staying.Addr(); {
		var err error
		if set, err = w.Next(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case err := <-stopped:
		t.Errorf("Stop returned (%v) before the news had spread", err)
	default:
	}
	if err := echo(t.Context(), direct); err != nil {
		t.Errorf("a caller that has not heard of the deregistration: %v", err)
	}
	if err := <-stopped; err != nil {
		t.Errorf("stop: %v", err)
	}
	<-going
	<-going
	cancel()
	callers.Wait()
	if err := echo(t.Context(), direct); err == nil {
		t.Error("the server still serves after Stop")
	}
	t.Logf("%d calls", made.Load())
}

// What a process that is killed leaves is no longer found once its check fails, and gone from Consul after deregister_critical_after, whose minimum is
// a minute; Consul looks every 30 s. It takes two minutes or so.
func TestIntegrationKilledProcessDisappears(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes two minutes")
	}
	agent := consultest.Start(t)
	for _, check := range []consul.CheckKind{consul.CheckGRPC, consul.CheckTTL} {
		t.Run(string(check), func(t *testing.T) {
			t.Parallel()
			service := "killed-" + string(check)
			child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestIntegrationChild$", "-test.v")
			child.Env = append(os.Environ(), childAgent+"="+agent.Address, childService+"="+service, childCheck+"="+string(check))
			output, err := child.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := child.Start(); err != nil {
				t.Fatal(err)
			}
			var said strings.Builder
			for lines := bufio.NewScanner(output); ; {
				if !lines.Scan() {
					t.Fatalf("the child does not register:\n%s", said.String())
				}
				fmt.Fprintln(&said, lines.Text())
				if strings.Contains(lines.Text(), childRegistered) {
					break
				}
			}
			r := overAgent(t, agent.Address)
			w := watch(t, r, service)
			awaitOne(t, w)
			if err := child.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			_ = child.Wait() // was killed, of course
			await(t, w)
			t.Logf("not found any more after %v", time.Since(began))
			ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
			defer cancel()
			client := catalog(t, agent.Address)
			for index := uint64(1); ; {
				entries, meta, err := client.Catalog().Service(service, "", (&api.QueryOptions{WaitIndex: index}).WithContext(ctx))
				if err != nil {
					t.Fatalf("%v after the kill, Consul still has it: %v", time.Since(began), err)
				}
				if len(entries) == 0 {
					break
				}
				index = meta.LastIndex
			}
			if took := time.Since(began); took < time.Minute {
				t.Errorf("gone after %v, before deregister_critical_after", took)
			} else {
				t.Logf("gone after %v", took)
			}
		})
	}
}

const (
	childAgent, childService, childCheck = "GOPLT_TEST_CHILD_AGENT", "GOPLT_TEST_CHILD_SERVICE", "GOPLT_TEST_CHILD_CHECK"
	childRegistered                      = "the child is registered"
)

// TestIntegrationChild is the process that TestIntegrationKilledProcessDisappears kills, and nothing otherwise.
func TestIntegrationChild(t *testing.T) {
	address := os.Getenv(childAgent)
	if address == "" {
		t.Skip("is run by TestIntegrationKilledProcessDisappears")
	}
	r := overAgent(t, address, checkedByGRPC, func(c *consul.Config) {
		c.Check.Kind, c.Check.TTL = consul.CheckKind(os.Getenv(childCheck)), time.Second
	})
	config := rpc.DefaultServerConfig()
	config.Listen = "127.0.0.1:0"
	server, err := rpc.NewServer(connect.NewServer(), rpc.WithServerConfig(config), rpc.WithRegistration(r, os.Getenv(childService)))
	if err == nil {
		err = server.Start(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stdout.WriteString(childRegistered + "\n"); err != nil {
		t.Fatal(err)
	}
	<-t.Context().Done() // until it is killed
}
