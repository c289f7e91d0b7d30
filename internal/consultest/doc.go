// Package consultest gives integration tests a real Consul agent: one of their own, which they may stop, kill, pause and start again, or, to tests
// that need no such thing, the one at CONSUL_HTTP_ADDR. Agents of their own run in development mode, in memory, on free ports, so that many can
// run side by side. [StartCluster] starts several servers that elect a leader, [StartFederation] several datacenters. Package script has an agent
// that misbehaves as a real one cannot be made to.
//
// The agents belong to a [T], which a test is; a program that measures has one of its own.
//
// The consul command is built from the module in tools/consul, once; the first time takes minutes, later ones nothing.
package consultest
