package consul_test

import (
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/consul/api"

	"github.com/0x1d/goplt/pkg/registry"
)

// Fault 11, and what else an entry can look like.
func TestInstancesOfEntries(t *testing.T) {
	type (
		E = api.ServiceEntry
		I = registry.Instance
	)
	base := I{ID: "1", Service: "auth", Host: "10.0.0.1", Port: 80, Weight: 5, Revision: 3}
	with := func(change func(*I)) []I {
		changed := base
		change(&changed)
		return []I{changed}
	}
	none := []I{}
	at := func(host string, port int) []I { return with(func(i *I) { i.Host, i.Port = host, port }) }
	passes := func(i *I) { i.Health = registry.HealthPassing }
	warns := func(i *I) { i.Weight, i.Health = 2, registry.HealthWarning }
	for name, row := range map[string]struct {
		change func(*E)
		target string
		want   []I
		logged string // the reason that is logged
	}{
		"plain":                {func(*E) {}, "", []I{base}, ""},
		"service address":      {func(e *E) { e.Service.Address = "10.0.0.2" }, "", with(func(i *I) { i.Host = "10.0.0.2" }), ""},
		"IPv6":                 {func(e *E) { e.Service.Address = "2001:db8::1" }, "", with(func(i *I) { i.Host = "2001:db8::1" }), ""},
		"IPv6 in brackets":     {func(e *E) { e.Service.Address = "[::1]" }, "", with(func(i *I) { i.Host = "::1" }), ""},
		"no address at all":    {func(e *E) { e.Node.Address = "" }, "", none, `host \"\" is not a host name`},
		"no node":              {func(e *E) { e.Service.Address, e.Node = "h", nil }, "", with(func(i *I) { i.Host = "h" }), ""},
		"address that is none": {func(e *E) { e.Service.Address = "a/b" }, "", none, `host \"a/b\" is not a host name`},
		"port 0":               {func(e *E) { e.Service.Port = 0 }, "", none, "it has no port"},
		"port -1":              {func(e *E) { e.Service.Port = -1 }, "", none, `port \"-1\" is not within`},
		"port 65536":           {func(e *E) { e.Service.Port = 65536 }, "", none, `port \"65536\" is not within`},
		"named ports": {func(e *E) {
			e.Service.Ports = api.ServicePorts{{Name: "a", Port: 81}, {Name: "b", Port: 82, Default: true}}
		}, "", with(func(i *I) { i.Port = 82 }), ""},
		"no ID":         {func(e *E) { e.Service.ID = "" }, "", none, "it has no ID"},
		"no weights":    {func(e *E) { e.Service.Weights = api.AgentWeights{} }, "", with(func(i *I) { i.Weight = 1 }), ""},
		"weight 0":      {func(e *E) { e.Service.Weights.Passing = 0 }, "", with(func(i *I) { i.Weight = 0 }), ""},
		"weight 65535":  {func(e *E) { e.Service.Weights.Passing = 65535 }, "", with(func(i *I) { i.Weight = 65535 }), ""},
		"weight beyond": {func(e *E) { e.Service.Weights.Passing = 70000 }, "", with(func(i *I) { i.Weight = 65535 }), ""},
		"weight below":  {func(e *E) { e.Service.Weights.Passing = -1 }, "", with(func(i *I) { i.Weight = 0 }), ""},
		"weight 0 by metadata": {
			func(e *E) { e.Service.Meta = map[string]string{"goplt-weight": "0"} },
			"", with(func(i *I) { i.Weight = 0 }), "",
		},
		"passing":                  {checks(api.HealthPassing, api.HealthPassing), "", with(passes), ""},
		"warning":                  {checks(api.HealthPassing, api.HealthWarning), "", with(warns), ""},
		"warning, passing=false":   {checks(api.HealthWarning), "auth?passing=false", with(warns), ""},
		"warning, passing=true":    {checks(api.HealthWarning), "auth?passing=true", none, ""},
		"passing, passing=true":    {checks(api.HealthPassing), "auth?passing=true", with(passes), ""},
		"critical":                 {checks(api.HealthPassing, api.HealthCritical), "", none, ""},
		"a status that nobody set": {checks("new"), "", none, ""},
		"zone by metadata": {
			func(e *E) {
				e.Service.Meta = map[string]string{"goplt-zone": "a", "protocol": "http"}
				e.Service.Locality = &api.Locality{Zone: "b"}
			}, "", with(func(i *I) { i.Zone, i.Metadata = "a", map[string]string{"protocol": "http"} }), "",
		},
		"metadata that is no zone": {
			func(e *E) { e.Service.Meta = map[string]string{"zone": "a"} },
			"", with(func(i *I) { i.Metadata = map[string]string{"zone": "a"} }), "",
		},
		"an ID with the service before it": {func(e *E) { e.Service.ID = "auth:7" }, "", with(func(i *I) { i.ID = "7" }), ""},
		"zone by locality": {
			func(e *E) { e.Service.Locality = &api.Locality{Zone: "b"} }, "", with(func(i *I) { i.Zone = "b" }), "",
		},
		"zone by the node's locality": {
			func(e *E) { e.Node.Locality = &api.Locality{Zone: "c"} }, "", with(func(i *I) { i.Zone = "c" }), "",
		},
		"tagged address":                                 {tagged("", map[string]api.ServiceAddress{"wan": {Address: "h", Port: 9}}), "auth?address=wan", at("h", 9), ""},
		"tagged address without a port":                  {tagged("", map[string]api.ServiceAddress{"wan": {Address: "h"}}), "auth?address=wan", at("h", 80), ""},
		"another tagged address":                         {tagged("s", map[string]api.ServiceAddress{"wan": {Address: "h"}}), "auth?address=lan_ipv6", at("s", 80), ""},
		"tagged address of the node":                     {tagged("", nil), "auth?address=wan_ipv4", at("192.0.2.1", 80), ""},
		"the service's before the node's tagged address": {tagged("s", nil), "auth?address=wan_ipv4", at("s", 80), ""},
		"tagged address of nobody":                       {tagged("", nil), "auth?address=lan", at("10.0.0.1", 80), ""},
		"tagged address not asked for":                   {tagged("", map[string]api.ServiceAddress{"wan": {Address: "h"}}), "", []I{base}, ""},
		"tags":                                           {func(e *E) { e.Service.Tags = []string{"z", "a"} }, "", with(func(i *I) { i.Tags = []string{"z", "a"} }), ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				given := entry("1", 80)
				f := newFakeAgent(given)
				row.change(given)
				r, logged := open(t, f)
				target := "auth"
				if row.target != "" {
					target = "consul:///" + row.target
				}
				got, err := watch(t, r, target).Next(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(row.want, got); diff != "" {
					t.Errorf("the set (-want +got):\n%s", diff)
				}
				want := 0
				if row.logged != "" {
					want = 1
				}
				if logged.count("an instance is left out") != want || logged.count(row.logged) == 0 && want > 0 {
					t.Errorf("want %q logged %d times:\n%s", row.logged, want, logged.lines.String())
				}
			})
		})
	}
}

// tagged gives the service an address and tagged ones, and the node a tagged one.
func tagged(address string, addresses map[string]api.ServiceAddress) func(*api.ServiceEntry) {
	return func(e *api.ServiceEntry) {
		e.Service.Address, e.Service.TaggedAddresses = address, addresses
		e.Node.TaggedAddresses = map[string]string{"wan_ipv4": "192.0.2.1"}
	}
}

func checks(statuses ...string) func(*api.ServiceEntry) {
	return func(e *api.ServiceEntry) { e.Checks = entry(e.Service.ID, 80, statuses...).Checks }
}

// IDs are unique on a node of Consul, and here in a service.
func TestDuplicateIDs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		on := func(node, id string, port int) *api.ServiceEntry {
			e := entry(id, port)
			e.Node.Node = node
			return e
		}
		f := newFakeAgent(on("b", "1", 82), on("a", "1", 81), on("a", "2", 83))
		r, logged := open(t, f)
		w := watch(t, r)
		got, err := w.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		ids := make(map[string]int)
		for _, instance := range got {
			ids[instance.ID] = instance.Port
		}
		if diff := cmp.Diff(map[string]int{"1": 81, "1@b": 82, "2": 83}, ids); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		const twice = `[{"Node":{"Node":"a","Address":"h"},"Service":{"ID":"1","Service":"auth","Port":1}},` +
			`{"Node":{"Node":"a","Address":"h"},"Service":{"ID":"1","Service":"auth","Port":2}},` +
			`{"Node":{"Node":"a","Address":"h"},"Service":{"ID":"1","Service":"auth","Port":3}},null,{}]`
		f.answerWith(always(200, twice))
		expect(t, w, "1", "1@a")
		if logged.count("has the same ID") != 1 {
			t.Errorf("the third of an ID is not logged:\n%s", logged.lines.String())
		}
	})
}
