package consultest

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Cluster is a datacenter of several Consul servers, each at an address of its own, 127.0.0.1, 127.0.0.2 and so on, which Linux has without being
// told. The servers keep their state on disk, over [Agent.Restart]. It belongs to one goroutine.
type Cluster struct {
	// Servers are its servers.
	Servers []*Agent

	t T
}

// fastRaft makes a leader be missed after a second or so, as Consul advises for production.
const fastRaft = "performance { raft_multiplier = 1 }"

// StartCluster starts a cluster of so many servers, and waits until they have a leader and all know each other.
func StartCluster(t T, servers int) *Cluster {
	t.Helper()
	c := &Cluster{t: t}
	for at := range servers {
		c.Servers = append(c.Servers, newAgent(t, "127.0.0."+strconv.Itoa(at+1),
			"-server", "-bootstrap-expect", strconv.Itoa(servers), "-serf-wan-port", "-1",
			"-data-dir", filepath.Join(t.TempDir(), "data"), "-hcl", fastRaft))
	}
	for _, server := range c.Servers {
		server.args = append(server.args, c.joining(server)...)
		server.run()
	}
	for _, server := range c.Servers {
		server.awaitServers(servers)
	}
	return c
}

// Join starts a client agent, which keeps no state of the cluster but asks the servers, and waits until it is a member.
func (c *Cluster) Join() *Agent {
	c.t.Helper()
	client := newAgent(c.t, "127.0.0.1", "-data-dir", filepath.Join(c.t.TempDir(), "data"))
	client.args = append(client.args, c.joining(client)...)
	client.run()
	client.awaitServers(len(c.Servers))
	return client
}

// joining returns the arguments that make an agent join all servers but itself, for as long as it takes.
func (c *Cluster) joining(joins *Agent) []string {
	args := []string{"-retry-interval", "1s"}
	for _, server := range c.Servers {
		if server != joins {
			args = append(args, "-retry-join", server.gossip)
		}
	}
	return args
}

// awaitServers waits until the agent sees so many servers of its cluster, by way of a leader.
func (a *Agent) awaitServers(servers int) {
	a.t.Helper()
	a.await("to see its cluster", func(ctx context.Context) (bool, error) {
		body, err := a.request(ctx, http.MethodGet, "/v1/health/service/consul?passing", "")
		return strings.Count(body, `"CheckID":"serfHealth"`) >= servers, err
	})
}

// AwaitLeader waits until a server that runs says that a server which runs leads, and returns that one.
func (c *Cluster) AwaitLeader() *Agent {
	c.t.Helper()
	at := slices.IndexFunc(c.Servers, func(server *Agent) bool { return server.process != nil })
	if at < 0 {
		c.t.Fatal("no server of the cluster runs")
	}
	var leader *Agent
	c.Servers[at].await("to have a leader", func(ctx context.Context) (bool, error) {
		body, err := c.Servers[at].request(ctx, http.MethodGet, "/v1/status/leader", "")
		if err != nil {
			return false, err
		}
		var address string
		if err := json.Unmarshal([]byte(body), &address); err != nil {
			return false, err
		}
		leader = c.leading(address)
		return leader != nil, nil
	})
	return leader
}

// leading returns the server that runs at an address of raft, nil if none does.
func (c *Cluster) leading(address string) *Agent {
	for _, server := range c.Servers {
		if server.server == address && server.process != nil {
			return server
		}
	}
	return nil
}

// StartFederation starts a Consul server, in memory as by [Start], for each of the named datacenters, joined to each other over the WAN, and waits
// until each knows all. The agents come in the order of the names.
func StartFederation(t T, datacenters ...string) []*Agent {
	t.Helper()
	var agents []*Agent
	var gossip []string
	for _, datacenter := range datacenters {
		wan := freePorts(t, "127.0.0.1", 1)[0]
		agents = append(agents, newAgent(t, "127.0.0.1", "-dev", "-datacenter", datacenter, "-serf-wan-port", strconv.Itoa(wan),
			"-advertise-wan", "127.0.0.1", "-retry-interval-wan", "1s"))
		gossip = append(gossip, net.JoinHostPort("127.0.0.1", strconv.Itoa(wan)))
	}
	for at, agent := range agents {
		for other, address := range gossip {
			if other != at {
				agent.args = append(agent.args, "-retry-join-wan", address)
			}
		}
		agent.run()
	}
	for _, agent := range agents {
		agent.awaitLeader()
		for _, datacenter := range datacenters {
			agent.await("to reach datacenter "+datacenter, func(ctx context.Context) (bool, error) {
				body, err := agent.request(ctx, http.MethodGet, "/v1/health/service/consul?passing&dc="+datacenter, "")
				return strings.Contains(body, `"ServiceID"`), err
			})
		}
	}
	return agents
}
