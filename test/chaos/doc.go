// Package chaos has a test that breaks whatever can break, at random but by a seed, under calls, and checks that the promises hold all the while.
//
//	32 callers ─▶ four transports ─▶  proxy or gateway ─▶ six instances, some in processes of their own
//	                     └──────────▶  Consul agent ◀──────────────┘
//
// The calls are unary ones that are idempotent (ValidateToken) and that are not (Login), and server streams, by the protocols grpc, http and auto,
// the latter with hedges and without. Further transports come and go under calls. What breaks are the network before an instance (refused, reset,
// frozen, in a black hole, dripping), a gateway before it (HTTP/1.1 only, no trailers, 415 and 502, late, killed within a response), its process
// (killed, stopped, restarted), its handlers (unavailable, late), and the agent (killed, restarted, stopped). It checks that
//   - a call that is not idempotent, or a stream, was executed at most once, and once if it succeeded, as told by the instances;
//   - each caller got the answer to its own call;
//   - no call outlived its deadline, or its caller's patience, by more than 50 ms;
//   - of the calls that are idempotent, 99.9 % succeeded by each protocol;
//   - each call that failed did so at an instance with which something was wrong, other than that it was being restarted in order;
//   - when all is well again, each transport calls every instance again within half a minute;
//   - no goroutine and no file is left.
//
// At any time one instance at least is healthy: nothing is wrong with it, nor was for some seconds, in which clients have time to find out. Which may
// be all that is: up to five of the six are broken at a time.
//
// It needs Linux and the build tag integration:
//
//	go test -race -tags=integration -run TestChaos ./test/chaos -v -chaos.for=5m -chaos.seed=7
//
// A seed determines what breaks, when, and for how long; not what comes of it, which is a matter of the machine. -chaos.log names a file for all that
// happens: faults, failed calls, and what the transports say of their instances.
package chaos
