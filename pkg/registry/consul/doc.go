// Package consul is a [registry.ServiceRegistry] over HashiCorp Consul: it watches the health of services by blocking queries, and registers
// instances with a check at the local agent.
//
//	Registry ── Watch ───▶ watcher ─ query ─┐
//	    │                  sets, the index   │   agent: one per address: token, TLS,
//	    │                  rules, back-off   ├─▶ bounded answers, the headers that the
//	    └────── Register ▶ keeper ───────────┘   API package drops ──▶ Consul agent
//	                       heartbeat, re-registration
//
// Targets are "consul:///auth", "consul://host:port/auth" for another agent than the configured one (which is sent the same token), or "auth".
// Parameters: tag selects instances by a tag, dc asks another datacenter, and passing=true leaves out instances whose checks warn. Without it they
// are included, with Consul's warning weight; instances with a critical check or in maintenance never are.
//
// What it promises, whatever Consul answers:
//   - An error never changes a set. What cannot be believed is an error: a truncated or oversized body, an index that is no number used as one, an
//     empty set from which access control may have withheld instances, an answer from a server that lost its leader too long ago.
//   - An empty set is believed after a second, consistent read, and takes effect after [Config.EmptyGrace]; after an outage, or where the state of
//     Consul was lost, after a minute, in which the instances register again.
//   - Queries are limited to two at once and two a second for each watcher, failing ones to one in up to 30 s; see [ErrForbidden] and [ErrRefused].
//   - The token is read again for every request where it is a file. A change is logged once, not each time it is noticed.
package consul
