package memory_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/0x1d/goplt/pkg/registry"
	"github.com/0x1d/goplt/pkg/registry/memory"
	"github.com/0x1d/goplt/pkg/registry/registrytest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestContract(t *testing.T) {
	t.Parallel()
	registrytest.Run(t, func(*testing.T) registrytest.Harness {
		return registrytest.Harness{Registry: memory.New(), Scheme: memory.Scheme, Registers: true}
	})
}

func TestSetReplacesTheWholeSet(t *testing.T) {
	t.Parallel()
	r := memory.New()
	defer r.Close()
	one := registry.Instance{ID: "1", Service: "auth", Host: "127.0.0.1", Port: 1, Weight: 1, Revision: 41}
	two := registry.Instance{ID: "2", Host: "127.0.0.1", Port: 2} // gets its service's name
	if err := r.Set("auth", one); err != nil {
		t.Fatal(err)
	}
	watcher, err := r.Watch(registry.Target{Service: "auth"})
	if err != nil {
		t.Fatal(err)
	}
	defer watcher.Close()
	expect := func(want ...registry.Instance) {
		t.Helper()
		got, err := watcher.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("the set (-want +got):\n%s", diff)
		}
	}
	expect(one)
	registered, err := r.Register(t.Context(), registry.Instance{ID: "3", Service: "auth", Host: "127.0.0.1", Port: 3})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Set("auth", two, one); err != nil {
		t.Fatal(err)
	}
	two.Service = "auth"
	expect(one, two) // in one step, the registered instance gone
	if err := registered.Deregister(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := r.Set("auth"); err != nil {
		t.Fatal(err)
	}
	expect([]registry.Instance{}...)
}

func TestSetRefuses(t *testing.T) {
	t.Parallel()
	good := registry.Instance{ID: "1", Service: "auth", Host: "127.0.0.1", Port: 1}
	for want, set := range map[string][]registry.Instance{
		`registry: invalid instance "1": another instance has this ID`:         {good, good},
		`registry: invalid instance "1": it is of service "auth", not "audit"`: {good},
		`registry: invalid instance "1": port 0 is not within 1 to 65535`:      {{ID: "1", Host: "h"}},
	} {
		r := memory.New()
		service := "auth"
		if len(set) == 1 {
			service = "audit"
		}
		if err := r.Set(service, set...); !errors.Is(err, registry.ErrInvalidInstance) || err.Error() != want {
			t.Errorf("Set: %v; want %s", err, want)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		if err := r.Set("auth", good); !errors.Is(err, registry.ErrClosed) {
			t.Errorf("Set after Close: %v", err)
		}
	}
}

func TestWatchRefusesAuthority(t *testing.T) {
	t.Parallel()
	r := memory.New()
	defer r.Close()
	_, err := r.Watch(registry.Target{Scheme: "memory", Authority: "host:1", Service: "auth"})
	want := `registry: invalid target "memory://host:1/auth": "host:1" stands before the third slash; want memory:///auth`
	if !errors.Is(err, registry.ErrInvalidTarget) || err.Error() != want {
		t.Errorf("got %v\nwant %s", err, want)
	}
}

func Example() {
	ctx := context.Background()
	r := memory.New()
	defer r.Close()
	registration, err := r.Register(ctx, registry.Instance{ID: "auth-1", Service: "auth", Host: "127.0.0.1", Port: 8080, Weight: 1})
	if err != nil {
		panic(err)
	}
	watcher, err := r.Watch(registry.Target{Service: "auth"})
	if err != nil {
		panic(err)
	}
	defer watcher.Close()
	instances, err := watcher.Next(ctx)
	fmt.Println(len(instances), instances[0].Addr(), err)

	if err := registration.Deregister(ctx); err != nil {
		panic(err)
	}
	instances, err = watcher.Next(ctx) // blocks until the set differs
	fmt.Println(len(instances), err)
	// Output:
	// 1 127.0.0.1:8080 <nil>
	// 0 <nil>
}
