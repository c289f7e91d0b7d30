package resilience

import "sync/atomic"

// Budget bounds the retries of one service, so that a service in trouble is not buried by its clients: a token bucket that retryable
// failures empty and successes fill (gRFC A6, retry throttling,
// https://github.com/grpc/proposal/blob/master/A6-client-retries.md#throttling-retry-attempts-and-hedged-rpcs). Safe for concurrent use.
type Budget struct {
	tokens atomic.Int64 // thousandths of a token
	limit  int64
	refill int64
}

const tokenUnit = 1000

// NewBudget returns a full bucket of tokens, to which each success gives back ratio of one.
func NewBudget(tokens, ratio float64) *Budget {
	b := &Budget{limit: int64(tokens * tokenUnit), refill: max(1, int64(ratio*tokenUnit))}
	b.tokens.Store(b.limit)
	return b
}

// Succeeded gives back for a success. On a full bucket it only reads.
func (b *Budget) Succeeded() {
	for {
		tokens := b.tokens.Load()
		if tokens >= b.limit {
			return
		}
		if b.tokens.CompareAndSwap(tokens, min(tokens+b.refill, b.limit)) {
			return
		}
	}
}

// Failed takes a token for a failure that could be retried, and reports whether it may be: whether more than half of the bucket is left.
func (b *Budget) Failed() bool {
	for {
		tokens := b.tokens.Load()
		left := max(tokens-tokenUnit, 0)
		if b.tokens.CompareAndSwap(tokens, left) {
			return left > b.limit/2
		}
	}
}

// Spend takes a token for an attempt beyond a call's first that no failure led to, if the bucket allows, and reports whether it did: more than three
// quarters of the bucket have to be left. The quarter below is for retries alone, or hedges that come too soon would take all that is ever given
// back: what is slow costs its caller time, but what fails and is not retried fails its caller.
func (b *Budget) Spend() bool {
	for {
		tokens := b.tokens.Load()
		if tokens-tokenUnit <= b.limit/4*3 {
			return false
		}
		if b.tokens.CompareAndSwap(tokens, tokens-tokenUnit) {
			return true
		}
	}
}
