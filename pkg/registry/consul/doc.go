// Package consul is a [registry.ServiceRegistry] over HashiCorp Consul: it watches the health of services by blocking queries, and registers
// instances with a check at the local agent.
//
//	          ┌ Watch ▶ watcher ─┐  one each; of datacenters to fail over to, by a chain
//	          ├ Watch ▶ watcher ─┴▶ feed ────┐  one for each question: one goroutine, one query
//	Registry ─┤                     evidence,│  under way, the last good set, its snapshot
//	          │                     back-off ├─▶ agent: one per address: turns, token, TLS, bounded
//	          └ Register ▶ keeper ───────────┘   answers, the headers that the API package drops
//	                       heartbeat, re-registration, updates              └──▶ Consul agent
//
// Targets are "consul:///auth", "consul://host:port/auth" for another agent than the configured one (which is sent the same token), or "auth".
// Parameters, each of which is checked before any request, and where the configuration has a default goes before it:
//
//	tag=blue                  instances with a tag
//	filter=EXPRESSION         instances that a filter expression of Consul selects, as filter=Service.Meta.version == "2"; & and % escaped as in URLs
//	passing=true              no instances whose checks warn; without it they are there, with Consul's warning weight
//	dc=eu                     another datacenter than the agent's
//	failover=us,ap            datacenters to fail over to, in order: the set is that of the first that has instances, and each is watched
//	query=NAME                what a prepared query finds, asked every [Config.QueryInterval]; the service in the path is but a name then, as for
//	                          logs. With dc, passing, address and consistency only
//	address=lan|wan|…         the tagged address of that kind ([TaggedAddress]), where an instance has one
//	consistency=stale|…       which server may answer ([Consistency])
//	ns=NAME, partition=NAME   a namespace, an admin partition; Consul Enterprise only, other agents refuse them
//
// Instances in maintenance are never in the set. One whose check becomes critical stays for [Config.RemovalGrace], as [registry.HealthCritical]; it
// is not in what a prepared query finds, so there it leaves at once.
//
// At the agent an instance has the ID service:ID, as IDs there are unique among all services; that is the one to name to Consul's own commands. Its
// zone is in the service metadata goplt-zone, and what tells its registration from an earlier one of its ID in goplt-revision. A check by gRPC asks
// grpc.health.v1 for the name in goplt-health, which for an rpc.Server is the instance's ID: another process at its address does not know that name,
// so what a killed one left becomes critical and is removed after [CheckConfig.DeregisterCriticalAfter]. A server that does not set it registers all
// the same, and is asked about as a whole.
//
// What it promises, whatever Consul answers:
//   - An error never changes a set. What cannot be believed is an error: a truncated or oversized body, an index that is no number used as one, an
//     empty set from which access control may have withheld instances, an answer from a server that lost its leader too long ago.
//   - An empty set is believed after a second, consistent read, and takes effect after [Config.EmptyGrace]; after an outage, or where the state of
//     Consul was lost, after a minute, in which the instances register again. For so long those that are not back yet stand beside those that are.
//     That all are in maintenance takes effect at once.
//   - Removal by a check is damped, addition is immediate: a check that flaps changes an instance's health, and never the set's members.
//   - Another datacenter takes over where one has no instances by these rules, and gives back at once. That one does not answer is no reason to
//     switch, unless it never did.
//   - Watchers of the same question share one query, whose number no watcher adds to. It ends when the last of them closes. Queries are limited to
//     two at once and two a second for each question, failing ones to one in up to 30 s; see [ErrForbidden] and [ErrRefused].
//   - An agent that is out of reach is tried by one question each second or less, and by the others seldom, 50 a second together at most. When it is
//     back they return one after another, 50 a second.
//   - At most [Config.MaxQueries] queries wait at an agent. More questions than that take turns, each in 15 s: so late a change may be seen.
//   - A watch that begins while Consul does not answer has the instances of the snapshot, where [Config.Snapshot] keeps one.
//   - The token is read again for every request where it is a file, and TLS' files are looked at; see [TLSConfig].
//   - A change is logged once, not each time it is noticed. [Registry.Status] says how each watch fares, and so do the metrics: see
//     [Config.MeterProvider].
//   - A registration lasts: what the agent forgot, as one does that restarts without its data, it is told again within [Config.VerifyInterval], as
//     the instance was last updated and as well as it is. Those who share an agent do not come at once. A failure is logged once for each reason.
//   - An update, and a registration of the same ID, changes neither the status of the agent's checks nor an operator's maintenance.
package consul
