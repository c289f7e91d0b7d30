// Package resilience decides what may follow a failed attempt.
//
//	Evidence ─ Classify ─▶ Verdict   was the request executed? the one source of truth for retry and fallback
//	Budget                           how much retries may add to the load (gRFC A6)
//	Retrier                          backoff and the attempts' number, by failsafe-go, entered only after a first failure
//	NewBreaker                       a standalone failsafe-go circuit breaker, for one instance
//
// The path of a call that succeeds at once meets none of this but the breaker's two atomic operations and one of the budget.
package resilience
