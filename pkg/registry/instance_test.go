package registry_test

import (
	"errors"
	"maps"
	"slices"
	"testing"

	"github.com/0x1d/goplt/pkg/registry"
)

func sample() registry.Instance {
	return registry.Instance{
		ID: "auth-1", Service: "auth", Host: "2001:db8::1", Port: 8080, Weight: 10, Zone: "eu-1a",
		Tags: []string{"blue"}, Metadata: map[string]string{"protocol": "grpc"}, Revision: 7,
	}
}

func TestInstanceAddr(t *testing.T) {
	t.Parallel()
	for want, instance := range map[string]registry.Instance{
		"[2001:db8::1]:8080": sample(),
		"10.0.0.1:80":        {Host: "10.0.0.1", Port: 80},
		"auth.internal:443":  {Host: "auth.internal", Port: 443},
	} {
		if got := instance.Addr(); got != want {
			t.Errorf("Addr of %s:%d = %s, want %s", instance.Host, instance.Port, got, want)
		}
	}
}

func TestInstanceEqualSeesEveryField(t *testing.T) {
	t.Parallel()
	if !sample().Equal(sample().Clone()) {
		t.Fatal("an instance differs from its clone")
	}
	for field, change := range map[string]func(*registry.Instance){
		"ID":       func(i *registry.Instance) { i.ID = "auth-2" },
		"Service":  func(i *registry.Instance) { i.Service = "audit" },
		"Host":     func(i *registry.Instance) { i.Host = "::1" },
		"Port":     func(i *registry.Instance) { i.Port++ },
		"Weight":   func(i *registry.Instance) { i.Weight++ },
		"Zone":     func(i *registry.Instance) { i.Zone = "" },
		"Health":   func(i *registry.Instance) { i.Health = registry.HealthCritical },
		"Tags":     func(i *registry.Instance) { i.Tags[0] = "green" },
		"Metadata": func(i *registry.Instance) { i.Metadata["protocol"] = "http" },
		"Revision": func(i *registry.Instance) { i.Revision++ },
	} {
		original, changed := sample(), sample().Clone()
		change(&changed)
		if original.Equal(changed) {
			t.Errorf("a change of %s goes unseen", field)
		}
	}
}

func TestInstanceCloneSharesNothing(t *testing.T) {
	t.Parallel()
	original := sample()
	clone := original.Clone()
	clone.Tags[0], clone.Metadata["protocol"] = "green", "http"
	if !slices.Equal(original.Tags, []string{"blue"}) || !maps.Equal(original.Metadata, map[string]string{"protocol": "grpc"}) {
		t.Fatalf("a change of the clone reached the original: %+v", original)
	}
}

func TestInstanceValidate(t *testing.T) {
	t.Parallel()
	if err := sample().Validate(); err != nil {
		t.Fatalf("a good instance is refused: %v", err)
	}
	for _, row := range []struct {
		change func(*registry.Instance)
		want   string
	}{
		{func(i *registry.Instance) { i.ID = "" }, `"": ID is empty`},
		{func(i *registry.Instance) { i.ID = "a/../../kv/x" }, `"a/../../kv/x": ID "a/../../kv/x" is a path`},
		{func(i *registry.Instance) { i.ID = "a/b" }, `"a/b": ID "a/b" holds '/' at byte 1; want printable ASCII without space and '/'`},
		{func(i *registry.Instance) { i.Service = "../kv/x" }, `"auth-1": service name "../kv/x" holds ".."`},
		{func(i *registry.Instance) { i.Host = "[::1]" }, `"auth-1": host "[::1]" is not a host name or an IP address`},
		{func(i *registry.Instance) { i.Host = "a b" }, `"auth-1": host "a b" is not a host name or an IP address`},
		{func(i *registry.Instance) { i.Port = 0 }, `"auth-1": port 0 is not within 1 to 65535`},
		{func(i *registry.Instance) { i.Port = 65536 }, `"auth-1": port 65536 is not within 1 to 65535`},
		{func(i *registry.Instance) { i.Weight = -1 }, `"auth-1": weight -1 is not within 0 to 65535`},
		{func(i *registry.Instance) { i.Weight = 65536 }, `"auth-1": weight 65536 is not within 0 to 65535`},
		{func(i *registry.Instance) { i.Health = "well" }, `"auth-1": health "well" is none of passing, warning, critical`},
		{func(i *registry.Instance) { *i = registry.Instance{} }, `"": ID is empty; service name is empty; ` +
			`host "" is not a host name or an IP address; port 0 is not within 1 to 65535`},
	} {
		instance := sample()
		row.change(&instance)
		err := instance.Validate()
		if want := "registry: invalid instance " + row.want; !errors.Is(err, registry.ErrInvalidInstance) || err.Error() != want {
			t.Errorf("Validate\n got %v\nwant %s", err, want)
		}
	}
}

// The reserved keys are how others check the instance: no update takes them away, and none brings them.
func TestInstanceUpdated(t *testing.T) {
	t.Parallel()
	original := sample()
	original.Metadata = map[string]string{"protocol": "grpc", "goplt-health": "auth-1"}
	before := original.Clone()
	updated := original.Updated(9, map[string]string{"stage": "canary", "goplt-health": "x", "goplt-new": "y"})
	want := original.Clone()
	want.Weight, want.Metadata = 9, map[string]string{"stage": "canary", "goplt-health": "auth-1"}
	if !updated.Equal(want) {
		t.Errorf("got %+v, want %+v", updated, want)
	}
	if !original.Equal(before) {
		t.Errorf("the original is changed: %+v", original)
	}
	if got := original.Updated(9, nil).Metadata; !maps.Equal(got, map[string]string{"goplt-health": "auth-1"}) {
		t.Errorf("without metadata, what stays is %v", got)
	}
	if got := (registry.Instance{Metadata: map[string]string{"a": "b"}}).Updated(1, nil).Metadata; got != nil {
		t.Errorf("empty metadata is %#v, want nil", got)
	}
	if got := (registry.Instance{}).Updated(1, map[string]string{"a": "b"}).Metadata; !maps.Equal(got, map[string]string{"a": "b"}) {
		t.Errorf("the first metadata is %v", got)
	}
}
