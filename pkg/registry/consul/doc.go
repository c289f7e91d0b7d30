// Package consul is a [registry.ServiceRegistry] over HashiCorp Consul: it watches the health of services by blocking queries, and registers
// instances with a check at the local agent.
//
//	          ┌ Watch ▶ watcher ─┐  one each
//	          ├ Watch ▶ watcher ─┴▶ feed ────┐  one for each question: one goroutine, one query
//	Registry ─┤                     evidence,│  under way, the last good set
//	          │                     back-off ├─▶ agent: one per address: turns, token, TLS, bounded
//	          └ Register ▶ keeper ───────────┘   answers, the headers that the API package drops
//	                       heartbeat, re-registration, updates              └──▶ Consul agent
//
// Targets are "consul:///auth", "consul://host:port/auth" for another agent than the configured one (which is sent the same token), or "auth".
// Parameters: tag selects instances by a tag, dc asks another datacenter, and passing=true leaves out instances whose checks warn. Without it they
// are included, with Consul's warning weight; instances in maintenance never are. One whose check becomes critical stays for [Config.RemovalGrace], as
// [registry.HealthCritical].
//
// At the agent an instance has the ID service:ID, as IDs there are unique among all services; that is the one to name to Consul's own commands. Its
// zone is in the service metadata goplt-zone, and what tells its registration from an earlier one of its ID in goplt-revision. A check by gRPC asks grpc.health.v1 for the name in goplt-health, which for an rpc.Server is the
// instance's ID: another process at its address does not know that name, so what a killed one left becomes critical and is removed after
// [CheckConfig.DeregisterCriticalAfter]. A server that does not set it registers all the same, and is asked about as a whole.
//
// What it promises, whatever Consul answers:
//   - An error never changes a set. What cannot be believed is an error: a truncated or oversized body, an index that is no number used as one, an
//     empty set from which access control may have withheld instances, an answer from a server that lost its leader too long ago.
//   - An empty set is believed after a second, consistent read, and takes effect after [Config.EmptyGrace]; after an outage, or where the state of
//     Consul was lost, after a minute, in which the instances register again.
//   - Removal by a check is damped, addition is immediate: a check that flaps changes an instance's health, and never the set's members.
//   - Watchers of the same question share one query, whose number no watcher adds to. It ends when the last of them closes. Queries are limited to two
//     at once and two a second for each question, failing ones to one in up to 30 s; see [ErrForbidden] and [ErrRefused].
//   - An agent that is out of reach is tried once a second, together for all questions. When it is back they return one after another, 50 a second.
//   - At most [Config.MaxQueries] queries wait at an agent. More questions than that take turns, each in 15 s.
//   - A registration lasts: what the agent forgot, as one does that restarts without its data, it is told again within [Config.VerifyInterval], as the
//     instance was last updated and as well as it is. Those who share an agent do not come at once. A failure is logged once for each reason.
//   - An update, and a registration of the same ID, changes neither the status of the agent's checks nor an operator's maintenance.
//   - The token is read again for every request where it is a file. A change is logged once, not each time it is noticed.
package consul
