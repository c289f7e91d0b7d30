package rpc

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// MethodConfig is what differs for one method, or for all methods of a protobuf service. What is zero is as for the rest of the client's. Where the
// program links the service's contract, [NewTransport] refuses a method that the service does not have, and a hedge where nothing may be hedged.
type MethodConfig struct {
	// Timeout is for these methods what [ClientConfig.Timeout] is for all. 0 means that one.
	Timeout time.Duration `koanf:"timeout"`
	// AttemptTimeout is for these methods what [ClientConfig.AttemptTimeout] is for all. 0 means that one.
	AttemptTimeout time.Duration `koanf:"attempt_timeout"`
	// Idempotency says whether a call may be executed more than once, where the method's own declaration is missing or wrong.
	Idempotency Idempotency `koanf:"idempotency"`
	// Hedge has another instance asked too where the first is slow.
	Hedge HedgeConfig `koanf:"hedge"`
}

// Idempotency says whether a method may be executed more than once for one call.
type Idempotency string

const (
	// IdempotencyDeclared is what the method declares by the option idempotency_level of its protobuf definition: without one, it may not.
	IdempotencyDeclared Idempotency = ""
	// IdempotencyIdempotent says that it may, whatever it declares.
	IdempotencyIdempotent Idempotency = "idempotent"
	// IdempotencyNotIdempotent says that it may not, whatever it declares.
	IdempotencyNotIdempotent Idempotency = "not_idempotent"
)

// HedgeConfig has a unary call that is slow made once more, to another instance, without the first being given up: the first answer counts, and the
// other attempt is cancelled. Hedged is only what is idempotent. A hedge takes a token of the retry budget, so that hedges and retries together add
// no more to the load than [RetryConfig.BudgetRatio] at steady state, and is made only while more than three quarters of the tokens are left, so that
// a delay too short leaves retries theirs. It counts as one of [RetryConfig.MaxAttempts].
type HedgeConfig struct {
	// Delay is how long an attempt may go without an answer before the next is made beside it. With a Quantile, it is the least delay. 0 without a
	// Quantile means that calls are not hedged. Default 0.
	Delay time.Duration `koanf:"delay"`
	// Quantile has the delay follow the latencies of the method's calls of late: 0.95 hedges the slowest twentieth. Nothing is hedged before enough
	// calls were made to tell. 0 means the fixed Delay. Default 0.
	Quantile float64 `koanf:"quantile"`
	// MaxHedges bounds the hedges of an attempt, each a delay after the one before: 1 to 4. 0 means 1. Default 0.
	MaxHedges int `koanf:"max_hedges"`
}

// enabled reports whether there is any hedging.
func (h HedgeConfig) enabled() bool { return h.Delay > 0 || h.Quantile > 0 }

// validateMethods checks the keys below "methods".
func validateMethods(methods map[string]MethodConfig, v *validation) {
	for _, name := range slices.Sorted(maps.Keys(methods)) {
		key, method := "methods."+name, methods[name]
		if !protoreflect.FullName(name).IsValid() {
			v.add(key, fmt.Sprintf("%q", name), "the full name of a method or service, such as goplt.auth.v1.AuthService.Login")
		}
		v.notNegative(key+".timeout", method.Timeout)
		v.notNegative(key+".attempt_timeout", method.AttemptTimeout)
		idempotency := fmt.Sprintf("%q", method.Idempotency)
		switch method.Idempotency {
		case IdempotencyDeclared, IdempotencyIdempotent:
		case IdempotencyNotIdempotent:
			v.check(key+".idempotency", !method.Hedge.enabled(), idempotency, "possible with a hedge, which may execute a call twice; "+
				"remove hedge.delay and hedge.quantile, or set them to 0")
		default:
			v.add(key+".idempotency", idempotency, `one of "idempotent", "not_idempotent" and "", which means what the method declares`)
		}
		v.notNegative(key+".hedge.delay", method.Hedge.Delay)
		v.check(key+".hedge.quantile", 0 <= method.Hedge.Quantile && method.Hedge.Quantile < 1, method.Hedge.Quantile, "at least 0 and below 1")
		v.check(key+".hedge.max_hedges", 0 <= method.Hedge.MaxHedges && method.Hedge.MaxHedges <= 4, method.Hedge.MaxHedges, "within 0 to 4")
	}
}
