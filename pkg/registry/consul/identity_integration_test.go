//go:build integration

package consul_test

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/hashicorp/consul/api"

	"github.com/0x1d/goplt/internal/consultest"
	"github.com/0x1d/goplt/internal/testcert"
	"github.com/0x1d/goplt/pkg/registry"
	"github.com/0x1d/goplt/pkg/registry/consul"
	"github.com/0x1d/goplt/pkg/rpc"
)

func checkedByGRPC(c *consul.Config) {
	c.Check.Kind, c.Check.Interval = consul.CheckGRPC, 200*time.Millisecond
}

// serve runs a server that registers as auth.
func serve(t *testing.T, r *consul.Registry, config rpc.ServerConfig) *rpc.Server {
	t.Helper()
	config.Listen, config.DeregisterDelay = "127.0.0.1:0", 0
	server, err := rpc.NewServer(connect.NewServer(), rpc.WithServerConfig(config), rpc.WithRegistration(r, "auth"))
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Stop(context.WithoutCancel(t.Context())); err != nil {
			t.Errorf("stop: %v", err)
		}
	})
	return server
}

// awaitOne waits until there is one instance, and returns it.
func awaitOne(t *testing.T, w registry.Watcher) registry.Instance {
	t.Helper()
	for {
		if set, err := w.Next(t.Context()); err == nil && len(set) == 1 {
			return set[0]
		}
	}
}

// awaitOutput waits until a check of the service is critical, and holds what it said against want.
func awaitOutput(t *testing.T, address, service, want string) {
	t.Helper()
	client, err := api.NewClient(&api.Config{Address: address, HttpClient: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}})
	if err != nil {
		t.Fatal(err)
	}
	for index := uint64(1); ; {
		found, meta, err := client.Health().Checks(service, (&api.QueryOptions{WaitIndex: index}).WithContext(t.Context()))
		if err != nil {
			t.Fatal(err)
		}
		for _, check := range found {
			if check.Status == api.HealthCritical {
				if !strings.Contains(check.Output, want) {
					t.Errorf("the check says %q, want %q", check.Output, want)
				}
				return
			}
		}
		index = meta.LastIndex
	}
}

// What a process that was killed left fails the check which its successor at the same address answers.
func TestIntegrationChecksProveIdentity(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t)
	r := overAgent(t, agent.Address, checkedByGRPC)
	w := watch(t, r)
	server := serve(t, r, rpc.DefaultServerConfig())
	live := awaitOne(t, w)

	dead := live.Clone()
	dead.ID, dead.Service = "killed", "ghost"
	dead.Metadata[registry.MetadataHealth] = dead.ID
	register(t, r, dead)
	awaitOutput(t, agent.Address, dead.Service, `unknown service "killed"`)

	server.Health().SetNotServing("auth")
	await(t, w)
	server.Health().SetServing("auth")
	await(t, w, live.ID)
}

func TestIntegrationRegisterEvictsTheDead(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t)
	unchecked := func(c *consul.Config) { c.Check.Kind, c.VerifyInterval = consul.CheckNone, time.Hour }
	dead, neighbour := instance(), instance()
	dead.ID, neighbour.ID, neighbour.Port = "killed", "neighbour", dead.Port+1
	r := overAgent(t, agent.Address, unchecked)
	register(t, r, dead)
	register(t, r, neighbour)
	given := instance()
	given.Metadata = map[string]string{registry.MetadataHealth: given.ID}
	register(t, r, given)
	await(t, watch(t, r), "auth-1", "neighbour")
}

// The server says that it speaks TLS, and the agent verifies its certificate. Not parallel: the agent trusts what the environment names.
func TestIntegrationGRPCCheckOverTLS(t *testing.T) {
	authority, config := testcert.New(t), rpc.DefaultServerConfig()
	pair := authority.Issue(t, "127.0.0.1")
	config.TLS = rpc.TLSConfig{Enabled: true, CertFile: pair.CertFile, KeyFile: pair.KeyFile}
	t.Setenv("SSL_CERT_FILE", authority.CAFile)
	r := overAgent(t, consultest.Start(t).Address, checkedByGRPC)
	w := watch(t, r)
	server := serve(t, r, config)
	live := awaitOne(t, w)
	server.Health().SetNotServing("auth")
	await(t, w)
	server.Health().SetServing("auth")
	await(t, w, live.ID) // passing by the agent's own call
}
