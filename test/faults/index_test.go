//go:build integration

package faults_test

import (
	"context"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/0x1d/goplt/internal/consultest/script"
	"github.com/0x1d/goplt/pkg/rpc"
)

// scripted is a transport that finds three instances through a scripted agent, under calls.
type scripted struct {
	*load

	agent     *script.Agent
	transport *rpc.Transport
	servers   []*instance
}

// startScripted starts all that, and waits until the transport knows the first two instances and its watch waits for news.
func startScripted(t *testing.T) *scripted {
	t.Helper()
	executions := newLedger()
	s := &scripted{}
	for range 3 {
		s.servers = append(s.servers, host{}.start(t, executions))
	}
	s.agent = script.Start(t)
	s.setInstances(t, 2)
	s.transport = connect(t, settings(s.agent.Address))
	s.load = startLoad(t, s.transport, executions, mixed, 5*time.Second)
	awaitIDs(t, s.transport, instanceID(0), instanceID(1))
	await(t, "the watch to wait", func() bool { return s.agent.Waiting() == 1 })
	return s
}

// setInstances makes the agent know the first so many instances.
func (s *scripted) setInstances(t testing.TB, count int) {
	t.Helper()
	s.agent.Set(s.entries(t, count)...)
}

func (s *scripted) entries(t testing.TB, count int) []*api.ServiceEntry {
	t.Helper()
	var entries []*api.ServiceEntry
	for at, server := range s.servers[:count] {
		entries = append(entries, script.Instance(instanceID(at), "127.0.0.1", server.port(t)))
	}
	return entries
}

// TestRow01IndexBackwards: the agent's state was restored from a snapshot, and its index is one of before. Who goes on asking for what comes after
// the index that was would wait for long.
func TestRow01IndexBackwards(t *testing.T) {
	row(t)
	s := startScripted(t)
	before := len(s.agent.Asked())
	s.agent.Rewind(3, s.entries(t, 2)...)
	await(t, "the watch to wait again", func() bool { return len(s.agent.Asked()) == before+2 && s.agent.Waiting() == 1 })
	if got := s.agent.Asked()[before:]; got[0].Index != 0 || got[1].Index != 3 {
		t.Errorf("after the index went from 11 to 3, the next queries were at %d and %d, want 0 and 3", got[0].Index, got[1].Index)
	}
	began := time.Now()
	s.agent.Rewind(4, s.entries(t, 3)...)
	awaitIDs(t, s.transport, instanceID(0), instanceID(1), instanceID(2))
	expectWithin(t, time.Second, began, "the update")
	s.mustSucceed(t)
}

// TestRow02IndexUnusable: without an index there is nothing to wait for, but there is no reason to ask in a loop either.
func TestRow02IndexUnusable(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{"zero": "0", "absent": "", "garbage": "ninety", "negative": "-1"} {
		t.Run(name, func(t *testing.T) {
			row(t)
			s := startScripted(t)
			s.agent.SayIndex(func(uint64) string { return text })
			await(t, "a few queries", func() bool { return len(s.agent.Asked()) >= 5 })
			asked := s.agent.Asked()
			for _, query := range asked[len(asked)-2:] {
				if query.Index != 1 {
					t.Errorf("asked at index %d, want 1", query.Index)
				}
			}
			s.setInstances(t, 3)
			awaitIDs(t, s.transport, instanceID(0), instanceID(1), instanceID(2))
			s.expectBounded(t, 4*time.Second)
			s.mustSucceed(t)
		})
	}
}

// TestRow03IndexChurns: something else in Consul changes a thousand times a second, and wakes every query.
func TestRow03IndexChurns(t *testing.T) {
	row(t)
	s := startScripted(t)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	s.callers.Go(func() {
		ticker := time.NewTicker(time.Millisecond)
		defer ticker.Stop()
		for ctx.Err() == nil {
			s.agent.Churn()
			<-ticker.C
		}
	})
	s.expectBounded(t, 4*time.Second)
	s.setInstances(t, 3)
	awaitIDs(t, s.transport, instanceID(0), instanceID(1), instanceID(2))
	stop()
	s.mustSucceed(t)
}

// expectBounded lets time pass and fails if the agent was asked more than twice a second in it, and twice more at once.
func (s *scripted) expectBounded(t testing.TB, d time.Duration) {
	t.Helper()
	before, began := len(s.agent.Asked()), time.Now()
	pass(t, d)
	asked, most := len(s.agent.Asked())-before, int(2*time.Since(began).Seconds())+3
	t.Logf("%d queries in %v", asked, d)
	if asked > most {
		t.Errorf("the agent was asked %d times in %v, want at most %d", asked, d, most)
	}
	if asked == 0 {
		t.Errorf("the agent was not asked in %v", d)
	}
}
