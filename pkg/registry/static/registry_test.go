package static_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/0x1d/goplt/pkg/registry"
	"github.com/0x1d/goplt/pkg/registry/registrytest"
	"github.com/0x1d/goplt/pkg/registry/static"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestContract(t *testing.T) {
	t.Parallel()
	addresses := []string{"10.0.0.2:8080", "10.0.0.1:8080", "[2001:db8::1]:8080"}
	for name, target := range map[string]registry.Target{
		"Table": {Scheme: "static", Service: "auth"}, "Target": {Scheme: "static", Service: "10.0.0.1:8080,[2001:db8::1]:8080,10.0.0.2:8080"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			registrytest.Run(t, func(t *testing.T) registrytest.Harness {
				t.Helper()
				r, err := static.New(map[string][]string{"auth": addresses})
				if err != nil {
					t.Fatal(err)
				}
				return registrytest.Harness{Registry: r, Scheme: static.Scheme, Fixed: target, FixedAddresses: addresses}
			})
		})
	}
}

func TestInstances(t *testing.T) {
	t.Parallel()
	r, err := static.New(map[string][]string{"auth": {"[::1]:81", "auth.internal:80"}, "none": nil})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for text, want := range map[string][]registry.Instance{
		"auth": {
			{ID: "[::1]:81", Service: "auth", Host: "::1", Port: 81, Weight: 1},
			{ID: "auth.internal:80", Service: "auth", Host: "auth.internal", Port: 80, Weight: 1},
		},
		"static:///h:1": {{ID: "h:1", Host: "h", Port: 1, Weight: 1}},
		"none":          {},
	} {
		target, err := registry.ParseTarget(text)
		if err != nil {
			t.Fatal(err)
		}
		watcher, err := r.Watch(target)
		if err != nil {
			t.Fatal(err)
		}
		got, err := watcher.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", text, diff)
		}
		if err := watcher.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestErrors(t *testing.T) {
	t.Parallel()
	_, err := static.New(map[string][]string{"auth": {"h:1", "h:1", "bad"}, "a/b": {"::1"}})
	want := `static registry: service name "a/b" holds '/' at byte 1; want letters, digits, '-', '_' and '.', a letter or digit first
static registry: service "a/b": address "::1": an IPv6 address goes in brackets; want [::1]:port
static registry: service "auth": address "h:1" is given twice
address "bad" is not host:port (missing port in address)`
	if err == nil || err.Error() != want {
		t.Errorf("New\n got %v\nwant %s", err, want)
	}
	r, err := static.New(map[string][]string{"auth": {"h:1"}, "audit": {"h:2"}})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for want, target := range map[string]registry.Target{
		`registry: invalid target "static:///localhost": no addresses are configured for service "localhost"; known are [audit, auth]; ` +
			`addresses in a target are host:port`: {Scheme: "static", Service: "localhost"},
		`registry: invalid target "static:///h:1,h:1": address "h:1" is given twice`: {Scheme: "static", Service: "h:1,h:1"},
	} {
		if _, err := r.Watch(target); !errors.Is(err, registry.ErrInvalidTarget) || err.Error() != want {
			t.Errorf("Watch\n got %v\nwant %s", err, want)
		}
	}
	_, err = r.Register(t.Context(), registry.Instance{ID: "x"})
	want = `registry: not supported: a static registry cannot register instance "x"; its addresses are fixed`
	if !errors.Is(err, registry.ErrUnsupported) || err.Error() != want {
		t.Errorf("Register\n got %v\nwant %s", err, want)
	}
}

func Example() {
	r, err := static.New(map[string][]string{"auth": {"10.0.0.1:8080", "[2001:db8::1]:8080"}})
	if err != nil {
		panic(err)
	}
	defer r.Close()
	watcher, err := r.Watch(registry.Target{Service: "auth"})
	if err != nil {
		panic(err)
	}
	defer watcher.Close()
	instances, err := watcher.Next(context.Background())
	if err != nil {
		panic(err)
	}
	for _, instance := range instances {
		fmt.Println(instance.Addr())
	}
	// Output:
	// 10.0.0.1:8080
	// [2001:db8::1]:8080
}
