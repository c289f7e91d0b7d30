// Package simulation shows what goplt's balancer, retries and hedges do to the callers and to the instances of a fleet, and its registry to Consul's
// agents, on the clock of testing/synctest and with fixed seeds: the same numbers each time, but where a table says otherwise, in a minute or two. It
// consists of tests, which print tables and fail where goplt does not do what it should:
//
//	go -C bench run . simulate
//	go -C bench test -v -run TestSimulationSlowInstance ./simulation
//
//	fleet_test.go          the model: servers with slots and a queue, clients that call at random times
//	slow_instance_test.go  one of ten instances ten times as slow: latency by policy
//	subset_test.go         connections of 100 clients to 1000 instances, and how many move when the set changes
//	slow_start_test.go     an instance joins whose caches are cold
//	zone_test.go           more load than the instances of the client's zone can take
//	service_test.go        a real service and its real client over connections in memory
//	amplification_test.go  a share of the answers is UNAVAILABLE: attempts per call, with goplt's budget and without one
//	hedging_test.go        one of a hundred answers 100 times as slow: latency and load by hedging
//	agent_test.go          the model of a Consul agent that can be away
//	herd_test.go           the agent of 1000 watchers restarts: queries per second when it is back
//
// A simulation to come is a file with a test named TestSimulation…, which prints by [testing.T.Output].
package simulation
