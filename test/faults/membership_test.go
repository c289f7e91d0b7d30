//go:build integration

package faults_test

import (
	"context"
	"testing"
	"time"

	"github.com/0x1d/goplt/config"
	"github.com/0x1d/goplt/internal/consultest"
	"github.com/0x1d/goplt/pkg/registry/consul"
)

// TestRow13Maintenance: an operator takes an instance out while a call is under way at it.
func TestRow13Maintenance(t *testing.T) {
	row(t)
	agent := consultest.Start(t)
	cfg := settings(agent.Address)
	cfg.Defaults.Timeout = within // a call is held for as long as the row takes, however busy the machine
	reg, executions := newRegistry(t, cfg), newLedger()
	entered, leave := make(chan string, 1), make(chan struct{})
	hold := func(_ context.Context, id string) error {
		select {
		case entered <- id: // the first call only: nobody takes its ID out
			<-leave
		default:
		}
		return nil
	}
	servers := fleet(t, reg, executions, host{before: hold}, host{})
	transport := connect(t, cfg)
	awaitIDs(t, transport, instanceID(0), instanceID(1))
	l := startLoad(t, transport, executions, unrepeatable, within)
	await(t, "a call to be under way", func() bool { return len(entered) == 1 })
	l.goOn(t, 100)

	maintenance := "/v1/agent/service/maintenance/" + service + ":" + instanceID(0)
	began := time.Now()
	agent.Put(maintenance + "?enable=true&reason=a+test")
	awaitIDs(t, transport, instanceID(1))
	expectWithin(t, time.Second, began, "the news of the maintenance")
	before := settled(t, servers[0])
	l.goOn(t, 300)
	if got := servers[0].executed.Load(); got != before {
		t.Errorf("%d calls went to the instance in maintenance", got-before)
	}
	held := <-entered
	entered <- held // further calls must not be held either
	close(leave)
	agent.Put(maintenance + "?enable=false")
	awaitIDs(t, transport, instanceID(0), instanceID(1))
	await(t, "calls to the instance that is back", func() bool { return servers[0].executed.Load() > before })
	l.mustSucceed(t)
	if got := executions.executions(held); got != 1 {
		t.Errorf("the call that was under way was executed %d times", got)
	}
}

// settled waits until an instance that gets no calls any more has begun those that it was sent, and returns how many calls it began.
func settled(t testing.TB, server *instance) int64 {
	t.Helper()
	for {
		before := server.executed.Load()
		pass(t, 50*time.Millisecond)
		if server.executed.Load() == before {
			return before
		}
	}
}

// TestRow14CheckFlaps: the check of one of three instances fails and passes five times a second. Nothing is torn down for that.
func TestRow14CheckFlaps(t *testing.T) {
	row(t)
	agent := consultest.Start(t)
	cfg := settings(agent.Address, func(cfg *config.Config) { cfg.Discovery.Consul.Check.Kind = consul.CheckNone })
	executions := newLedger()
	var servers []*instance
	for at := range 3 {
		server := host{}.start(t, executions)
		agent.PutJSON("/v1/agent/service/register", entry{
			"ID": instanceID(at), "Name": service, "Address": "127.0.0.1", "Port": server.port(t),
			"Check": entry{"CheckID": "check-" + instanceID(at), "TTL": "10m", "Status": "passing"},
		})
		servers = append(servers, server)
	}
	transport := connect(t, cfg)
	l := startLoad(t, transport, executions, mixed, 5*time.Second)
	awaitIDs(t, transport, instanceID(0), instanceID(1), instanceID(2))
	for _, server := range servers {
		await(t, "a connection to each", func() bool { return server.executed.Load() > 0 })
	}
	var conns, executed []int64
	for _, server := range servers {
		conns, executed = append(conns, server.conns.Load()), append(executed, server.executed.Load())
	}

	flaps := time.NewTicker(200 * time.Millisecond)
	defer flaps.Stop()
	for at := range 25 {
		agent.Put("/v1/agent/check/" + []string{"fail", "pass"}[at%2] + "/check-" + instanceID(2))
		<-flaps.C
		expectIDs(t, transport, instanceID(0), instanceID(1), instanceID(2))
	}
	agent.Put("/v1/agent/check/pass/check-" + instanceID(2))
	for at, server := range servers {
		if got := server.conns.Load(); got != conns[at] {
			t.Errorf("%s accepted %d connections while a check flapped", instanceID(at), got-conns[at])
		}
		if server.executed.Load() == executed[at] {
			t.Errorf("%s got no calls while a check flapped", instanceID(at))
		}
	}
	l.mustSucceed(t)

	// What fails for good goes all the same.
	agent.Put("/v1/agent/check/fail/check-" + instanceID(2))
	awaitIDs(t, transport, instanceID(0), instanceID(1))
}
