package consul_test

import (
	"errors"
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

// Fault 12.
func TestBadServiceNameMakesNoRequest(t *testing.T) {
	f := newFakeAgent()
	r, _ := open(t, f)
	for _, target := range []registry.Target{
		{Service: "../kv/x"},
		{Scheme: "consul", Service: "a/../../kv/x"},
		{Service: "auth", Params: map[string]string{"tag": ""}},
		{Service: "auth", Params: map[string]string{"passing": "perhaps"}},
		{Service: "auth", Params: map[string]string{"near": "_agent"}},
	} {
		if _, err := r.Watch(target); !errors.Is(err, registry.ErrInvalidTarget) {
			t.Errorf("Watch(%v): %v", target, err)
		}
	}
	bad := registry.Instance{ID: "../kv/x", Service: "auth", Host: "h", Port: 1}
	if _, err := r.Register(t.Context(), bad); !errors.Is(err, registry.ErrInvalidInstance) {
		t.Errorf("Register: %v", err)
	}
	if asked := f.asked("/"); len(asked) != 0 {
		t.Errorf("requested: %v", asked[0].URL)
	}
}
