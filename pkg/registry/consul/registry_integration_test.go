//go:build integration

package consul_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/0x1d/goplt/internal/consultest"
	"github.com/0x1d/goplt/pkg/registry"
	"github.com/0x1d/goplt/pkg/registry/consul"
	"github.com/0x1d/goplt/pkg/registry/registrytest"
)

// overAgent returns a registry over a real agent, with small times.
func overAgent(t *testing.T, address string, changes ...func(*consul.Config)) *consul.Registry {
	t.Helper()
	return over(t, address, append([]func(*consul.Config){func(c *consul.Config) {
		c.EmptyGrace, c.VerifyInterval, c.Check.Kind = 100*time.Millisecond, 200*time.Millisecond, consul.CheckTTL
	}}, changes...)...)
}

// await calls Next until the set has the wanted IDs. Errors of an agent that is down are no end.
func await(t *testing.T, w registry.Watcher, want ...string) []registry.Instance {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	for {
		set, err := w.Next(ctx)
		if ctx.Err() != nil {
			t.Fatalf("the set %v does not come: %v", want, err)
		}
		if err != nil {
			continue
		}
		ids := make([]string, len(set))
		for at, instance := range set {
			ids[at] = instance.ID
		}
		if slices.Equal(ids, want) {
			return set
		}
	}
}

func TestIntegrationContract(t *testing.T) {
	address := consultest.Address(t)
	registrytest.Run(t, func(t *testing.T) registrytest.Harness {
		t.Helper()
		connect := func(t *testing.T) registry.ServiceRegistry {
			t.Helper()
			config := consul.DefaultConfig()
			config.Address, config.EmptyGrace, config.Check.Kind = address, 10*time.Millisecond, consul.CheckTTL
			config.Logger = slog.New(slog.DiscardHandler)
			r, err := consul.New(config)
			if err != nil {
				t.Fatal(err)
			}
			return r
		}
		return registrytest.Harness{Registry: connect(t), Scheme: consul.Scheme, Registers: true, Peer: connect, Within: time.Minute}
	})
}

func TestIntegrationWeights(t *testing.T) {
	t.Parallel()
	r := overAgent(t, consultest.Start(t).Address)
	for id, weight := range map[string]int{"w0": 0, "w1": 1, "w65535": registry.MaxWeight} {
		given := instance()
		given.ID, given.Weight = id, weight
		register(t, r, given)
	}
	for _, found := range await(t, watch(t, r), "w0", "w1", "w65535") {
		if want := "w" + strconv.Itoa(found.Weight); found.ID != want || found.Metadata != nil {
			t.Errorf("%s has weight %d and metadata %v", found.ID, found.Weight, found.Metadata)
		}
	}
}

// Fault 4, in part: the agent is killed and comes back empty.
func TestIntegrationAgentRestartsEmpty(t *testing.T) {
	t.Parallel()
	for _, check := range []consul.CheckKind{consul.CheckNone, consul.CheckTTL} {
		t.Run(string(check), func(t *testing.T) {
			t.Parallel()
			agent := consultest.Start(t)
			r := overAgent(t, agent.Address, func(c *consul.Config) { c.Check.Kind, c.Check.TTL = check, time.Second })
			registration := register(t, r, instance())
			w := watch(t, r)
			before := await(t, w, "auth-1")[0]
			agent.Kill()
			err := expectError(t, w, nil)
			t.Logf("while the agent is down: %v", err)
			agent.Restart()
			fresh := watch(t, overAgent(t, agent.Address)) // knows nothing from before
			if after := await(t, fresh, "auth-1")[0]; after.Addr() != before.Addr() {
				t.Errorf("registered again is %v, not %v", after, before)
			}
			second := instance()
			second.ID = "auth-2"
			register(t, r, second)
			await(t, fresh, "auth-1", "auth-2")
			for set := []registry.Instance(nil); len(set) < 2; { // the watch that went through it saw the instances come, and never none
				if set, err = w.Next(t.Context()); err == nil && len(set) == 0 {
					t.Fatal("the restart emptied the set")
				}
			}
			if err := registration.Deregister(t.Context()); err != nil {
				t.Fatal(err)
			}
			await(t, fresh, "auth-2")
		})
	}
}

// Fault 5.
func TestIntegrationAgentHangs(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t)
	r := overAgent(t, agent.Address, func(c *consul.Config) { c.Wait = time.Second })
	register(t, r, instance())
	w := watch(t, r)
	await(t, w, "auth-1")
	agent.Pause()
	expectError(t, w, context.DeadlineExceeded)
	agent.Continue()
	second := instance()
	second.ID = "auth-2"
	register(t, r, second)
	await(t, w, "auth-1", "auth-2")
}

// Fault 13.
func TestIntegrationMaintenance(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t)
	r := overAgent(t, agent.Address)
	register(t, r, instance())
	other := instance()
	other.ID = "auth-2"
	register(t, r, other)
	w := watch(t, r)
	await(t, w, "auth-1", "auth-2")
	began := time.Now()
	agent.Put("/v1/agent/service/maintenance/auth:auth-1?enable=true")
	await(t, w, "auth-2")
	t.Logf("maintenance was seen after %v", time.Since(began))
	register(t, r, instance()) // a process that registers again does not end what an operator declared
	agent.Put("/v1/agent/service/maintenance/auth:auth-2?enable=true")
	await(t, w)
	agent.Put("/v1/agent/service/maintenance/auth:auth-1?enable=false")
	await(t, w, "auth-1")
}

// Faults 7 and 8: a token that may not see, one that was deleted, and one that may, from a file.
func TestIntegrationTokenFile(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t, consultest.WithACL())
	file := filepath.Join(t.TempDir(), "token")
	write := func(token string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(token), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	owner := overAgent(t, agent.Address, func(c *consul.Config) { c.Token = consultest.ManagementToken })
	register(t, owner, instance())

	stranger := watch(t, overAgent(t, agent.Address))
	expectError(t, stranger, consul.ErrForbidden) // an empty answer without a token, where tokens are needed

	reader := `service_prefix "" { policy = "read" } node_prefix "" { policy = "read" }`
	write(agent.CreateToken(`key_prefix "" { policy = "read" }`))
	r := overAgent(t, agent.Address, func(c *consul.Config) { c.TokenFile, c.Wait = file, time.Second })
	w := watch(t, r)
	err := expectError(t, w, consul.ErrForbidden)
	if !strings.Contains(err.Error(), "want a token with service:read and node:read") {
		t.Errorf("with a token that sees nothing: %v", err)
	}
	if _, err := r.Register(t.Context(), instance()); !errors.Is(err, consul.ErrForbidden) {
		t.Errorf("Register without service:write: %v", err)
	}

	first := agent.CreateToken(reader)
	write(first)
	await(t, w, "auth-1")
	agent.DeleteToken(first)
	expectError(t, w, consul.ErrForbidden)
	write(agent.CreateToken(reader))
	second := instance()
	second.ID = "auth-2"
	register(t, owner, second)
	await(t, w, "auth-1", "auth-2")

	unused, err := r.Watch(registry.Target{Service: "no-such-service"})
	if err != nil {
		t.Fatal(err)
	}
	await(t, unused) // a token that may see is told the truth, also where the default is to deny
}

// The agent calls the instance's health by gRPC.
func TestIntegrationGRPCCheck(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t)
	var status atomic.Int32
	status.Store(serving)
	port := serveHealth(t, &status)
	r := overAgent(t, agent.Address, func(c *consul.Config) { c.Check.Kind, c.Check.Interval = consul.CheckGRPC, 200*time.Millisecond })
	given := instance()
	given.Host, given.Port = "127.0.0.1", port
	register(t, r, given)
	w := watch(t, r)
	await(t, w, "auth-1")
	status.Store(notServing)
	await(t, w)
	status.Store(serving)
	await(t, w, "auth-1") // passing by the agent's own call, as nobody registered again
}

// The numbers of grpc.health.v1.HealthCheckResponse.ServingStatus.
const serving, notServing = 1, 2

// serveHealth serves grpc.health.v1.Health/Check, the least that a Consul agent calls, and returns its port.
func serveHealth(t *testing.T, status *atomic.Int32) (port int) {
	t.Helper()
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/grpc.health.v1.Health/Check" {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set("Trailer", "Grpc-Status")
		message := []byte{0, 0, 0, 0, 2, 1 << 3, byte(status.Load())} // uncompressed, 2 bytes: field 1, a number
		if _, err := w.Write(message); err != nil {
			t.Errorf("answer the check: %v", err)
		}
		w.Header().Set("Grpc-Status", "0")
	}))
	server.Config.Protocols = new(http.Protocols)
	server.Config.Protocols.SetUnencryptedHTTP2(true)
	server.Start()
	t.Cleanup(server.Close)
	return server.Listener.Addr().(*net.TCPAddr).Port
}
