package consul_test

import (
	"errors"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/0x1d/goplt/pkg/registry"
	"github.com/0x1d/goplt/pkg/registry/consul"
)

func TestWatchQuery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeAgent(entry("1", 80), entry("2", 80))
		f.services["2@node-1"].Service.Tags = []string{"blue"}
		r, _ := open(t, f, func(c *consul.Config) {
			c.Wait, c.Token, c.Namespace, c.Partition = 20*time.Second, "secret", "ns1", "p1"
		})
		w := watch(t, r, "consul:///auth?tag=blue&dc=eu")
		expect(t, w, "2")
		untilQuiet(t, w, 30*time.Second)
		queries := healthQueries(f)
		if got, want := queries[0].URL.String(), "http://agent.test:8500/v1/health/service/auth?dc=eu&ns=ns1&partition=p1&stale=&tag=blue"; got != want {
			t.Errorf("the first query\n got %s\nwant %s", got, want)
		}
		if got := queries[1].URL.Query(); got.Get("index") != "11" || got.Get("wait") != "20000ms" {
			t.Errorf("the second query has %v", got)
		}
		if got := queries[1].Header.Get("X-Consul-Token"); got != "secret" {
			t.Errorf("the token sent is %q", got)
		}
		for _, q := range queries {
			if strings.Contains(q.URL.String(), "secret") || q.URL.Query().Has("near") {
				t.Errorf("the query is %s", q.URL)
			}
		}
	})
}

func TestOtherAgentByAuthority(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeAgent(entry("1", 80))
		r, _ := open(t, f)
		for target, want := range map[string]string{"consul://[::1]:8501/auth": "[::1]:8501", "consul://agent.test:8500/auth": "agent.test:8500"} {
			w := watch(t, r, target)
			expect(t, w, "1")
			if err := w.Close(); err != nil {
				t.Error(err)
			}
			if queries := healthQueries(f); queries[len(queries)-1].URL.Host != want {
				t.Errorf("asked was %s, want %s", queries[len(queries)-1].URL.Host, want)
			}
		}
	})
}

func TestParametersOfTheQuery(t *testing.T) {
	for target, want := range map[string]string{
		"consul:///auth":                        "dc=eu&ns=n&partition=p&stale=",
		"consul:///auth?ns=other&partition=q":   "dc=eu&ns=other&partition=q&stale=",
		"consul:///auth?consistency=default":    "dc=eu&ns=n&partition=p",
		"consul:///auth?consistency=consistent": "consistent=&dc=eu&ns=n&partition=p",
		"consul:///auth?dc=us&tag=a%26b":        "dc=us&ns=n&partition=p&stale=&tag=a%26b",
		`consul:///auth?filter=Service.Meta.v+==+"2"+and+%22x%26y%22+in+Service.Tags`: "dc=eu&filter=Service.Meta.v+%3D%3D+%222%22+and+%22x%26y%22+in+Service.Tags&ns=n&" +
			"partition=p&stale=",
	} {
		synctest.Test(t, func(t *testing.T) {
			f := newFakeAgent()
			r, _ := open(t, f, func(c *consul.Config) { c.Datacenter, c.Namespace, c.Partition = "eu", "n", "p" })
			w := watch(t, r, target)
			expect(t, w)
			if got := healthQueries(f)[0].URL.RawQuery; got != want {
				t.Errorf("%s asks\n got %s\nwant %s", target, got, want)
			}
			again, err := registry.ParseTarget(r.Status()[0].Target) // a target that asks the same
			if err != nil {
				t.Fatal(err)
			}
			if _, err := r.Watch(again); err != nil || len(r.Status()) != 1 {
				t.Errorf("%s is not the target %s: %v", again, target, err)
			}
		})
	}
}

// Fault 12.
func TestBadTargetsMakeNoRequest(t *testing.T) {
	f := newFakeAgent()
	r, _ := open(t, f)
	for text, want := range map[string]string{
		"../kv/x":                                  "",
		"a/../../kv/x":                             "",
		"auth?near=_agent":                         `parameter "near" is unknown; known are address, consistency, dc, failover, filter, ns, partition, passing, query, tag`,
		"auth?tag=":                                "parameter tag: it is empty; leave it out, or give it a value",
		"auth?passing=perhaps":                     `parameter passing: "perhaps" is not true or false`,
		"auth?passing=":                            "parameter passing: it is empty",
		"auth?filter=":                             "parameter filter: it is empty",
		"auth?dc=../eu":                            `parameter dc: "../eu" is not the name of a datacenter: 1 to 64 letters, digits, '-' and '_'`,
		"auth?ns=a%26b":                            `parameter ns: "a&b" is not the name of a namespace`,
		"auth?partition=a%20b":                     `parameter partition: "a b" is not the name of a partition`,
		"auth?consistency=eventual":                `parameter consistency: "eventual" is not one of stale, default, consistent`,
		"auth?address=public":                      `parameter address: "public" is not one of lan, lan_ipv4, lan_ipv6, wan, wan_ipv4, wan_ipv6`,
		"auth?query=../kv/x":                       `parameter query: "../kv/x" is not the name or ID of a prepared query: letters, digits`,
		"auth?query=q&tag=x":                       "parameter tag does not go with query",
		"auth?query=q&failover=x":                  "parameter failover does not go with query",
		"auth?failover=":                           "parameter failover: it is empty",
		"auth?failover=us,":                        `parameter failover: "" is not the name of a datacenter`,
		"auth?failover=us,ap,us":                   `parameter failover: datacenter "us" is there twice`,
		"auth?dc=eu&failover=us,eu":                `parameter failover: datacenter "eu" is there twice`,
		"auth?filter=" + strings.Repeat("x", 5000): "parameter filter: it is 5000 bytes long; at most 4096 are allowed",
	} {
		name, query, _ := strings.Cut(text, "?")
		target := registry.Target{Scheme: "consul", Service: name}
		if query != "" {
			values, err := url.ParseQuery(query)
			if err != nil {
				t.Fatal(err)
			}
			target.Params = make(map[string]string)
			for key := range values {
				target.Params[key] = values.Get(key)
			}
		}
		if _, err := r.Watch(target); !errors.Is(err, registry.ErrInvalidTarget) || !strings.Contains(err.Error(), want) {
			t.Errorf("Watch(%.100s)\n got %.300v\nwant %s", text, err, want)
		}
	}
	bad := registry.Instance{ID: "../kv/x", Service: "auth", Host: "h", Port: 1}
	if _, err := r.Register(t.Context(), bad); !errors.Is(err, registry.ErrInvalidInstance) {
		t.Errorf("Register: %v", err)
	}
	if asked := f.asked("/"); len(asked) != 0 || len(r.Status()) != 0 {
		t.Errorf("requested: %v", asked[0].URL)
	}
}
