package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/hashicorp/consul/api"
)

// changeKinds are the changes, in the order in which a service goes through them, again and again.
var changeKinds = []struct {
	name  string
	there bool // whether calls may go to the instance after it
	make  func(agent *api.Agent, moving *api.AgentServiceRegistration) error
}{
	{"registration", true, func(agent *api.Agent, moving *api.AgentServiceRegistration) error {
		return agent.ServiceRegister(moving)
	}},
	{"maintenance on", false, func(agent *api.Agent, moving *api.AgentServiceRegistration) error {
		return agent.EnableServiceMaintenance(moving.ID, "measured")
	}},
	{"maintenance off", true, func(agent *api.Agent, moving *api.AgentServiceRegistration) error {
		return agent.DisableServiceMaintenance(moving.ID)
	}},
	{"deregistration", false, func(agent *api.Agent, moving *api.AgentServiceRegistration) error {
		return agent.ServiceDeregister(moving.ID)
	}},
}

// The two instances of each service, by what they answer.
const (
	staying = "stays"
	moving  = "moves"
)

const (
	// changePause is from one change of a service to the next, or a bit more: what limits a client's queries is not what is measured.
	changePause = 1200 * time.Millisecond
	// changeTimeout is when a change that a client does not obey is given up.
	changeTimeout = 30 * time.Second
)

// changeSummary is how soon the clients obey a kind of change.
type changeSummary struct {
	Change  string        `json:"change"`
	Request time.Duration `json:"request_p50"` // how long the agent takes to answer the request that makes the change
	Clients []obedience   `json:"clients"`
}

// obedience is how soon one client obeys, from when the request that makes the change is sent.
type obedience struct {
	Client string        `json:"client"`
	P50    time.Duration `json:"p50"`
	P99    time.Duration `json:"p99"`
	Max    time.Duration `json:"max"`
	Calls  int           `json:"calls"`  // of all kinds of changes together
	Failed int           `json:"failed"` // of those
}

// changeSamples are the times of one kind of change.
type changeSamples struct {
	requests []time.Duration
	obeyed   [][]time.Duration // by client
}

// measureChanges has services change while clients call them. All clients of a service see the same changes at the same time.
func measureChanges(ctx context.Context, address string, agent *api.Client, p discoveryPlan, progress io.Writer) (_ []changeSummary, err error) {
	stays, err := hostAuth(named{name: staying})
	if err != nil {
		return nil, err
	}
	defer stays.stop()
	moves, err := hostAuth(named{name: moving})
	if err != nil {
		return nil, err
	}
	defer moves.stop()
	var lanes []*lane
	defer func() {
		for _, opened := range lanes {
			err = errors.Join(err, opened.close())
		}
	}()
	for at := range min(p.lanes, p.changes) {
		opened := &lane{agent: agent.Agent(), service: "change-" + strconv.Itoa(at), samples: make([]changeSamples, len(changeKinds))}
		lanes = append(lanes, opened)
		if err := opened.open(address, stays.addr, moves.addr); err != nil {
			return nil, err
		}
	}
	var group sync.WaitGroup
	errs := make(chan error, len(lanes))
	fmt.Fprintf(progress, "%d changes of each of %d kinds\n", p.changes, len(changeKinds))
	for at, changing := range lanes {
		rounds := p.changes / len(lanes)
		if at < p.changes%len(lanes) {
			rounds++
		}
		group.Go(func() { errs <- changing.run(ctx, rounds) })
	}
	group.Wait()
	close(errs)
	for failed := range errs {
		err = errors.Join(err, failed)
	}
	if err != nil {
		return nil, err
	}
	return summarizeChanges(lanes), nil
}

// lane is a service that changes, and its clients.
type lane struct {
	agent   *api.Agent
	service string
	staying *api.AgentServiceRegistration
	moving  *api.AgentServiceRegistration
	callers []*caller
	samples []changeSamples // by kind
}

// open registers the instance that stays and starts the clients.
func (l *lane) open(address, stays, moves string) error {
	var err error
	if l.staying, err = l.instance(staying, stays); err != nil {
		return err
	}
	if l.moving, err = l.instance(moving, moves); err != nil {
		return err
	}
	if err := l.agent.ServiceRegister(l.staying); err != nil {
		return err
	}
	for _, kind := range seekers() {
		dialed, err := kind.dial(address, l.service)
		if err != nil {
			return fmt.Errorf("%s: %w", kind.name, err)
		}
		l.callers = append(l.callers, startCaller(dialed))
	}
	for at := range l.samples {
		l.samples[at].obeyed = make([][]time.Duration, len(l.callers))
	}
	return nil
}

func (l *lane) instance(name, addr string) (*api.AgentServiceRegistration, error) {
	host, text, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	port, err := strconv.Atoi(text)
	return &api.AgentServiceRegistration{ID: l.service + "-" + name, Name: l.service, Address: host, Port: port}, err
}

func (l *lane) close() error {
	for _, stopped := range l.callers {
		stopped.close()
	}
	if l.staying == nil || l.moving == nil {
		return nil
	}
	err := l.agent.ServiceDeregister(l.staying.ID)
	_ = l.agent.ServiceDeregister(l.moving.ID) // is there only if the run was cut short
	return err
}

// run makes all kinds of changes so many times. Before the first, each client has made a call.
func (l *lane) run(ctx context.Context, rounds int) error {
	if err := l.settle(ctx, time.Now(), time.Now(), "the first instance"); err != nil {
		return err
	}
	for range rounds {
		for at, kind := range changeKinds {
			began := time.Now()
			for _, calling := range l.callers {
				calling.expect(began, kind.there)
			}
			if err := kind.make(l.agent, l.moving); err != nil {
				return fmt.Errorf("%s: %w", kind.name, err)
			}
			took := time.Since(began)
			if err := l.settle(ctx, began, began.Add(changePause+rand.N(changePause/4)), kind.name); err != nil {
				return err
			}
			samples := &l.samples[at]
			samples.requests = append(samples.requests, took)
			for nth, calling := range l.callers {
				obeyed, _ := calling.obeyed()
				samples.obeyed[nth] = append(samples.obeyed[nth], obeyed)
			}
		}
	}
	return nil
}

// settle waits until all clients obey the change of a time, and until another time.
func (l *lane) settle(ctx context.Context, changed, until time.Time, what string) error {
	for {
		all := true
		for _, calling := range l.callers {
			_, ok := calling.obeyed()
			all = all && ok
		}
		now := time.Now()
		switch {
		case all && !now.Before(until):
			return nil
		case now.Sub(changed) > changeTimeout:
			return fmt.Errorf("%s of %s: not obeyed within %v", what, l.service, changeTimeout)
		}
		if err := rest(ctx, 10*time.Millisecond); err != nil {
			return err
		}
	}
}

func summarizeChanges(lanes []*lane) []changeSummary {
	var all []changeSummary
	for at, kind := range changeKinds {
		var requests []time.Duration
		for _, l := range lanes {
			requests = append(requests, l.samples[at].requests...)
		}
		summary := changeSummary{Change: kind.name, Request: quantileOf(requests, 0.5)}
		for nth, seeker := range seekers() {
			var obeyed []time.Duration
			seen := obedience{Client: seeker.name}
			for _, l := range lanes {
				obeyed = append(obeyed, l.samples[at].obeyed[nth]...)
				calls, failed := l.callers[nth].made()
				seen.Calls += calls
				seen.Failed += failed
			}
			seen.P50, seen.P99, seen.Max = quantileOf(obeyed, 0.5), quantileOf(obeyed, 0.99), slices.Max(obeyed)
			summary.Clients = append(summary.Clients, seen)
		}
		all = append(all, summary)
	}
	return all
}

// quantileOf returns the smallest of durations, of which there must be one or more, that a share q of them does not exceed.
func quantileOf(durations []time.Duration, q float64) time.Duration {
	sorted := slices.Sorted(slices.Values(durations))
	return sorted[min(len(sorted)-1, max(0, int(q*float64(len(sorted))+0.999999)-1))]
}

func writeChanges(out *strings.Builder, changes []changeSummary, p discoveryPlan) {
	fmt.Fprintf(out, "\n%d changes of each kind, of %d services at a time with 2 instances:\n"+
		"ms from when the request is sent to the first pick from which on all obey; instances in turn, without slow start\n\n",
		p.changes, min(p.lanes, p.changes))
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(table, "change\trequest p50\t")
	for _, client := range changes[0].Clients {
		fmt.Fprintf(table, "%s p50\tp99\tmax\t", client.Client)
	}
	for _, change := range changes {
		fmt.Fprintf(table, "\n%s\t%.1f\t", change.Change, inMilliseconds(change.Request))
		for _, client := range change.Clients {
			fmt.Fprintf(table, "%.1f\t%.1f\t%.1f\t", inMilliseconds(client.P50), inMilliseconds(client.P99), inMilliseconds(client.Max))
		}
	}
	fmt.Fprintln(table)
	_ = table.Flush() // out is a strings.Builder, which does not fail
	for _, client := range changes[0].Clients {
		fmt.Fprintf(out, "%s: %d of %d calls failed\n", client.Client, client.Failed, client.Calls)
	}
}

func inMilliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
