package consul_test

import (
	"context"
	"fmt"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/0x1d/goplt/pkg/registry"
	"github.com/0x1d/goplt/pkg/registry/consul"
	"github.com/0x1d/goplt/pkg/registry/registrytest"
)

func TestContractOverSockets(t *testing.T) {
	t.Parallel()
	registrytest.Run(t, func(t *testing.T) registrytest.Harness {
		t.Helper()
		server := httptest.NewServer(newFakeAgent())
		t.Cleanup(server.Close)
		connect := func(t *testing.T) registry.ServiceRegistry {
			t.Helper()
			config := consul.DefaultConfig()
			config.Address, config.EmptyGrace, config.Check.Kind = server.URL, 10*time.Millisecond, consul.CheckTTL
			r, err := consul.New(config)
			if err != nil {
				t.Fatal(err)
			}
			return r
		}
		return registrytest.Harness{Registry: connect(t), Scheme: consul.Scheme, Registers: true, Peer: connect}
	})
}

func Example() {
	ctx := context.Background()
	agent := httptest.NewServer(newFakeAgent()) // in a program: the agent at 127.0.0.1:8500
	defer agent.Close()

	config := consul.DefaultConfig()
	config.Address = agent.URL
	config.Check.Kind = consul.CheckTTL
	r, err := consul.New(config)
	if err != nil {
		panic(err)
	}
	defer r.Close() // deregisters

	_, err = r.Register(ctx, registry.Instance{ID: "auth-1", Service: "auth", Host: "10.0.0.1", Port: 8080, Weight: 1})
	if err != nil {
		panic(err)
	}
	watcher, err := r.Watch(registry.Target{Service: "auth"})
	if err != nil {
		panic(err)
	}
	defer watcher.Close()
	instances, err := watcher.Next(ctx)
	if err != nil {
		panic(err)
	}
	fmt.Println(instances[0].Addr())
	// Output: 10.0.0.1:8080
}
