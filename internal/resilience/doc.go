// Package resilience decides what may follow a failed attempt, and what an overloaded server takes on.
//
//	Evidence ─ Classify ─▶ Verdict   was the request executed? the one source of truth for retry and fallback
//	Budget                           how much retries and hedges may add to the load (gRFC A6)
//	Latencies                        a quantile of them, after which to hedge
//	Limiter                          how many calls may be under way, by failsafe-go's bulkhead or adaptive limiter
//	Retrier                          backoff and the attempts' number, by failsafe-go, entered only after a first failure
//	NewBreaker                       a failsafe-go circuit breaker, used by hand, for one instance
//	Shedder                          bounds the calls in flight of a server whose calls run out of their time, and of no other
//
// A client's call that succeeds at once meets none of this but the breaker's two atomic operations and one of the budget.
package resilience
