package registry_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/0x1d/goplt/pkg/registry"
	"github.com/0x1d/goplt/pkg/registry/memory"
	"github.com/0x1d/goplt/pkg/registry/registrytest"
	"github.com/0x1d/goplt/pkg/registry/static"
)

func newStatic(t *testing.T, addresses map[string][]string) *static.Registry {
	t.Helper()
	r, err := static.New(addresses)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestMultiKeepsTheContract(t *testing.T) {
	t.Parallel()
	registrytest.Run(t, func(t *testing.T) registrytest.Harness {
		t.Helper()
		fallback, fixed := memory.New(), newStatic(t, nil)
		return registrytest.Harness{
			Registry: registry.NewMulti(fallback, map[string]registry.ServiceRegistry{"static": fixed}), Scheme: "memory", Registers: true,
		}
	})
}

func TestMultiRoutesByScheme(t *testing.T) {
	t.Parallel()
	fallback, fixed := memory.New(), newStatic(t, map[string][]string{"auth": {"10.0.0.1:1"}})
	r := registry.NewMulti(fallback, map[string]registry.ServiceRegistry{"static": fixed})
	if _, err := r.Register(t.Context(), registry.Instance{ID: "1", Service: "auth", Host: "10.0.0.2", Port: 2}); err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		"auth": "10.0.0.2:2", "memory:///auth": "10.0.0.2:2", "static:///auth": "10.0.0.1:1", "static:///10.0.0.3:3": "10.0.0.3:3",
	} {
		target, err := registry.ParseTarget(text)
		if err != nil {
			t.Fatal(err)
		}
		watcher, err := r.Watch(target)
		if err != nil {
			t.Fatalf("watch %q: %v", text, err)
		}
		set, err := watcher.Next(t.Context())
		if err != nil || len(set) != 1 || set[0].Addr() != want {
			t.Errorf("%q gives %v, %v; want %s", text, set, err, want)
		}
	}
	_, err := r.Watch(registry.Target{Scheme: "dns", Service: "auth"})
	want := `registry: invalid target "dns:///auth": scheme "dns" is not that of this registry, "memory"; other registries here: static`
	if !errors.Is(err, registry.ErrInvalidTarget) || err.Error() != want {
		t.Errorf("an unknown scheme\n got %v\nwant %s", err, want)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	for name, closed := range map[string]registry.ServiceRegistry{"fallback": fallback, "static": fixed} {
		if _, err := closed.Watch(registry.Target{Service: "auth"}); !errors.Is(err, registry.ErrClosed) {
			t.Errorf("%s is still open: %v", name, err)
		}
	}
}

func TestByScheme(t *testing.T) {
	t.Parallel()
	fallback, fixed := memory.New(), newStatic(t, nil)
	both := registry.NewMulti(fallback, map[string]registry.ServiceRegistry{"memory": fallback, "static": fixed})
	for _, row := range []struct {
		reg    registry.ServiceRegistry
		scheme string
		want   registry.ServiceRegistry
		ok     bool
	}{{both, "static", fixed, true}, {both, "memory", fallback, true}, {both, "consul", nil, false}, {fixed, "static", fixed, true}} {
		if got, ok := registry.ByScheme(row.reg, row.scheme); got != row.want || ok != row.ok {
			t.Errorf("ByScheme(%T, %q) = %v, %t", row.reg, row.scheme, got, ok)
		}
	}
	if err := both.Close(); err != nil {
		t.Error(err)
	}
}

func ExampleParseTarget() {
	target, err := registry.ParseTarget("consul:///auth?tag=blue")
	fmt.Println(target.Scheme, target.Service, target.Params["tag"], err)
	_, err = registry.ParseTarget("static:///10.0.0.1:8080,2001:db8::1")
	fmt.Println(err)
	// Output:
	// consul auth blue <nil>
	// registry: invalid target "static:///10.0.0.1:8080,2001:db8::1": address "2001:db8::1": an IPv6 address goes in brackets; want [2001:db8::1]:port
}

func ExampleNewMulti() {
	services := memory.New()
	fixed, err := static.New(nil)
	if err != nil {
		panic(err)
	}
	r := registry.NewMulti(services, map[string]registry.ServiceRegistry{"static": fixed})
	defer r.Close() // closes both

	target, err := registry.ParseTarget("static:///10.0.0.1:8080")
	if err != nil {
		panic(err)
	}
	watcher, err := r.Watch(target)
	if err != nil {
		panic(err)
	}
	instances, err := watcher.Next(context.Background())
	if err != nil {
		panic(err)
	}
	fmt.Println(instances[0].Addr())
	// Output: 10.0.0.1:8080
}
