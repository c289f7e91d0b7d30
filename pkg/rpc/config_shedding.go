package rpc

import "time"

// SheddingConfig says when a [Server] is overloaded, whereupon it takes on no more calls at a time than it can finish in time, and rejects the
// others before their messages are read. The evidence is calls that run out of their time, which is their caller's or RequestTimeout, whichever ends
// earlier; not errors, nor latency, nor calls with less time than any of their method took within the last minutes. The time that interceptors take
// counts, that for which a call's message is waited for does not. So it is not for services whose unary calls wait for something until their
// deadline, as in long polling.
//
// Calls of grpc.health.v1 and grpc.reflection are never rejected, and streams, which have no time to run out of, only by MaxConcurrentCalls.
// Nor are calls in process, which come by no [Server].
type SheddingConfig struct {
	// Enabled switches it on. Default false.
	Enabled bool `koanf:"enabled"`
	// FailureRate is the share of calls out of time, within the window, above which the server is overloaded; above 0 and below 1. Calls that their
	// callers gave up are in no share. Default 0.1.
	FailureRate float64 `koanf:"failure_rate"`
	// MinCalls is how many calls within the window the share needs to mean anything. Default 20.
	MinCalls uint `koanf:"min_calls"`
	// Window is how long a call counts, and how long nothing must have been rejected for the server to be overloaded no more. Default 10s.
	Window time.Duration `koanf:"window"`
	// Pushback is how long a client whose call was rejected, be it for MaxConcurrentCalls, is told to wait before it tries again: half as long to half
	// as long again, at random, so that not all come back at a time. It is told by the trailer grpc-retry-pushback-ms (gRFC A6), by a detail
	// google.rpc.RetryInfo of the error, and in a unary answer of the Connect protocol by Retry-After. 0 tells it nothing. Default 500ms.
	Pushback time.Duration `koanf:"pushback"`
}

func defaultSheddingConfig() SheddingConfig {
	return SheddingConfig{FailureRate: 0.1, MinCalls: 20, Window: 10 * time.Second, Pushback: 500 * time.Millisecond}
}

// validate checks the keys below "shedding".
func (c *SheddingConfig) validate(v *validation) {
	v.check("shedding.failure_rate", c.FailureRate > 0 && c.FailureRate < 1, c.FailureRate, "above 0 and below 1")
	v.check("shedding.min_calls", c.MinCalls >= 1, c.MinCalls, "1 or more")
	v.positiveDuration("shedding.window", c.Window)
	v.notNegative("shedding.pushback", c.Pushback)
}
