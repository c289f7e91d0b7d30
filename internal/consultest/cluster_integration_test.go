//go:build integration

package consultest_test

import (
	"net/http"
	"testing"

	"github.com/0x1d/goplt/internal/consultest"
)

func TestClusterElectsAnotherLeader(t *testing.T) {
	t.Parallel()
	cluster := consultest.StartCluster(t, 3)
	client := cluster.Join()
	first := cluster.AwaitLeader()
	first.PutJSON("/v1/kv/kept", "by all")
	first.Kill()
	second := cluster.AwaitLeader()
	if second == first {
		t.Fatal("a killed server leads")
	}
	first.Restart()
	for _, agent := range append(cluster.Servers, client) {
		if code, err := status(t, agent.Address); code != http.StatusOK {
			t.Errorf("%s answers %d, %v", agent.Address, code, err)
		}
		if got := agent.Get("/v1/kv/kept?raw"); got != `"by all"` {
			t.Errorf("%s has %s", agent.Address, got)
		}
	}
}

func TestFederation(t *testing.T) {
	t.Parallel()
	agents := consultest.StartFederation(t, "eu", "us")
	agents[0].PutJSON("/v1/agent/service/register", map[string]any{"Name": "orders", "Port": 80})
	if got := agents[1].Get("/v1/health/service/orders?dc=eu"); got == "[]" {
		t.Error("the other datacenter does not show the service")
	}
	if got := agents[1].Get("/v1/health/service/orders"); got != "[]" {
		t.Errorf("the service is in both datacenters: %s", got)
	}
}
