package consul

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"
)

// query is one question asked once.
type query struct {
	*question

	mode  Consistency
	index uint64        // answer when the state is later; 0: at once
	wait  time.Duration // or when this is over
}

// answer is what Consul says about the instances of a service.
type answer struct {
	entries     []*api.ServiceEntry
	index       uint64        // 0 if absent or garbage
	lastContact time.Duration // of the server with the leader; 0 if not reported
	withheld    bool          // access control may have left instances out
	token       string        // that was sent
}

// find asks for the instances of a service, whatever their checks say, or for those that a prepared query finds, of which Consul leaves out who is
// critical.
func (a *agent) find(ctx context.Context, q query) (answer, error) {
	timeout := agentTimeout
	if q.index > 0 {
		timeout += q.wait + q.wait/16 // Consul adds up to a sixteenth, so that not all watchers come back at once
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	ctx, exchange := withExchange(ctx)
	options := &api.QueryOptions{
		Datacenter: q.datacenter, Namespace: q.namespace, Partition: q.partition, Filter: q.filter,
		AllowStale: q.mode == ConsistencyStale, RequireConsistent: q.mode == ConsistencyConsistent, WaitIndex: q.index,
	}
	if q.index > 0 {
		options.WaitTime = q.wait
	}
	// The API package stops reading the headers at the first that it cannot parse, and says nothing: they are read from the exchange instead.
	var entries []*api.ServiceEntry
	var err error
	if q.prepared != "" {
		entries, err = a.execute(q.prepared, options.WithContext(ctx))
	} else {
		entries, _, err = a.client.Health().Service(q.service, q.tag, false, options.WithContext(ctx))
	}
	if err == nil && entries == nil {
		err = errors.New("the answer is null, not a list")
	}
	if exchange.header != nil {
		a.outage.reached()
	}
	if err != nil {
		err = a.explain(q.what(), err)
		if exchange.header != nil {
			err = &unusableError{err}
		}
		if answered, ok := errors.AsType[*answeredError](err); ok {
			answered.token = exchange.token
			// Consul 1.22 calls a wrong filter its own fault. No other answer tells it from a cluster without a leader.
			if q.filter != "" && answered.code == http.StatusInternalServerError && strings.Contains(answered.text, "boolean expression") {
				answered.mark = ErrRefused
			}
		}
		return answer{}, err
	}
	header := exchange.header
	return answer{
		entries: entries, token: exchange.token, index: number(header, "X-Consul-Index"),
		lastContact: time.Duration(min(number(header, "X-Consul-LastContact"), 24*60*60*1000)) * time.Millisecond, // a day, at most
		// Consul reports what it filtered only to those who sent a token (since 1.11), to tell strangers nothing.
		withheld: header.Get("X-Consul-Results-Filtered-By-Acls") == "true" ||
			exchange.token == "" && header.Get("X-Consul-Default-Acl-Policy") == "deny",
	}, nil
}

// execute executes a prepared query.
func (a *agent) execute(name string, options *api.QueryOptions) ([]*api.ServiceEntry, error) {
	found, _, err := a.client.PreparedQuery().Execute(name, options)
	if err != nil || found == nil || found.Nodes == nil {
		return nil, err
	}
	entries := make([]*api.ServiceEntry, len(found.Nodes))
	for at := range found.Nodes {
		entries[at] = &found.Nodes[at]
	}
	return entries, nil
}

// number returns the value of a header, 0 if it is absent or no number.
func number(header http.Header, name string) uint64 {
	value, err := strconv.ParseUint(header.Get(name), 10, 64)
	if err != nil {
		return 0
	}
	return value
}
