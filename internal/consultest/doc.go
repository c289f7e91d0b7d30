// Package consultest gives integration tests a real Consul agent: the one at CONSUL_HTTP_ADDR, or one of their own that they may stop, kill, pause
// and start again. Agents of their own run in development mode, in memory, on free ports, so that many can run side by side.
//
// The consul command is built from the module in tools/consul, once; the first time takes minutes, later ones nothing.
package consultest
