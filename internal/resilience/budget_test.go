package resilience_test

import (
	"sync"
	"sync/atomic"
	"testing"

	"github.com/0x1d/goplt/internal/resilience"
)

// failures records failures until no retry is allowed any more, and returns how many were.
func failures(b *resilience.Budget) int {
	allowed := 0
	for b.Failed() {
		allowed++
	}
	return allowed
}

// TestBudget is the arithmetic of gRFC A6: each failure takes a token, and a retry is allowed while more than half are left after it.
func TestBudget(t *testing.T) {
	t.Parallel()
	for tokens, want := range map[float64]int{1: 0, 2: 0, 3: 1, 4: 1, 5: 2, 10: 4, 100: 49, 1000: 499} {
		b := resilience.NewBudget(tokens, 0.1)
		if got := failures(b); got != want {
			t.Errorf("%v tokens: %d retries, want %d", tokens, got, want)
		}
	}
}

// TestBudgetRefills: a success gives back its share and no more than there is room for.
func TestBudgetRefills(t *testing.T) {
	t.Parallel()
	b := resilience.NewBudget(10, 0.1)
	for range 1000 {
		b.Succeeded() // the bucket is full already
	}
	if got := failures(b); got != 4 { // 6 are left, the failure that was denied leaves 5
		t.Fatalf("%d retries of a full bucket, want 4", got)
	}
	for range 10 {
		b.Succeeded() // 6
	}
	if b.Failed() { // 5
		t.Error("a retry with half of the tokens left")
	}
	for range 11 {
		b.Succeeded() // 6.1
	}
	if !b.Failed() { // 5.1
		t.Error("no retry with more than half of the tokens left")
	}
	for range 100 { // far below nothing, were there such a thing
		b.Failed()
	}
	for range 61 {
		b.Succeeded() // 6.1
	}
	if !b.Failed() {
		t.Error("failures count beyond the empty bucket")
	}
	for range 1000 {
		b.Succeeded()
	}
	if got := failures(b); got != 4 {
		t.Errorf("%d retries of a bucket refilled, want 4", got)
	}
}

// TestBudgetSmallRatio: a ratio below the unit still refills.
func TestBudgetSmallRatio(t *testing.T) {
	t.Parallel()
	b := resilience.NewBudget(3, 0.000001)
	failures(b)
	for range 3000 {
		b.Succeeded()
	}
	if got := failures(b); got != 1 {
		t.Errorf("%d retries, want 1", got)
	}
}

// TestBudgetAtSteadyState is row 35 of the fault matrix: however long a service is in trouble, retries add at most the ratio.
func TestBudgetAtSteadyState(t *testing.T) {
	t.Parallel()
	b := resilience.NewBudget(100, 0.1)
	calls, retries := 0, 0
	for round := range 100_000 {
		calls++
		if round%2 == 0 { // half of the calls fail
			b.Succeeded()
		} else if b.Failed() {
			retries++
		}
	}
	if share := float64(retries) / float64(calls); share > 0.101 {
		t.Errorf("retries add %.3f to the load, want at most 0.1", share)
	}
}

// TestBudgetConcurrently: no token is lost or made.
func TestBudgetConcurrently(t *testing.T) {
	t.Parallel()
	b := resilience.NewBudget(1000, 0.5)
	var running sync.WaitGroup
	var allowed atomic.Int64
	for range 8 {
		running.Go(func() {
			for range 100 {
				if b.Failed() {
					allowed.Add(1)
				}
			}
		})
	}
	running.Wait() // 200 are left
	if got := allowed.Load(); got != 499 {
		t.Errorf("%d retries, want 499", got)
	}
	for range 8 {
		running.Go(func() {
			for range 100 {
				b.Succeeded()
			}
		})
	}
	running.Wait() // 600
	if got := failures(b); got != 99 {
		t.Errorf("%d retries, want 99", got)
	}
}

// TestBudgetSpend: who has no failure to show may spend a quarter of the bucket, and no more; asking in vain costs nothing. The next quarter is left
// to retries.
func TestBudgetSpend(t *testing.T) {
	t.Parallel()
	budget := resilience.NewBudget(10, 0.5)
	spent := 0
	for range 100 {
		if budget.Spend() {
			spent++
		}
	}
	if spent != 2 { // the third would leave less than three quarters
		t.Errorf("spent %d of 10 tokens, want 2", spent)
	}
	for round := range 10 { // from eight tokens on: half a token comes with each success, and every second pays for one
		budget.Succeeded()
		if got, want := budget.Spend(), round%2 == 1; got != want {
			t.Errorf("spent after success %d: %t, want %t", round+1, got, want)
		}
	}
	if got := failures(budget); got != 2 { // 8 are left
		t.Errorf("%d retries after all that could be spent, want 2", got)
	}
}
