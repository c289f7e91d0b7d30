package resilience_test

import (
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/0x1d/goplt/internal/resilience"
)

// TestLatencies: the estimate is the quantile of what was added, and at most a sixteenth, or a microsecond, above it.
func TestLatencies(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	for name, next := range map[string]func() time.Duration{
		"even": func() time.Duration { return time.Duration(random.IntN(int(100 * time.Millisecond))) },
		"long tail": func() time.Duration {
			return time.Duration(float64(time.Millisecond) * (1 + random.ExpFloat64()*random.ExpFloat64()*10))
		},
		"constant": func() time.Duration { return 7 * time.Millisecond },
		"tiny":     func() time.Duration { return time.Duration(random.IntN(20)) * 100 * time.Nanosecond },
		"beyond":   func() time.Duration { return 100 * time.Hour },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, quantile := range []float64{0.5, 0.95, 0.99} {
				l := resilience.NewLatencies(quantile)
				added := make([]time.Duration, 1600)
				for at := range added {
					added[at] = next()
					l.Add(added[at])
				}
				got, ok := l.Quantile()
				slices.Sort(added)
				want := added[int(quantile*float64(len(added)))]
				if name == "beyond" {
					want = (1 << 36) * time.Microsecond // as far as it counts
				}
				// The latest few, and those of a generation before the latest two, do not count.
				low, high := want*9/10-time.Microsecond, want*12/10+time.Microsecond
				if !ok || got < low || got > high {
					t.Errorf("quantile %v is %v, %t; want about %v", quantile, got, ok, want)
				}
			}
		})
	}
}

func TestLatenciesNeedEnough(t *testing.T) {
	t.Parallel()
	for quantile, enough := range map[float64]int{0.5: 50, 0.95: 100, 0.99: 500} {
		l := resilience.NewLatencies(quantile)
		for n := range enough {
			if got, ok := l.Quantile(); ok {
				t.Fatalf("quantile %v is %v after %d latencies, want none before %d", quantile, got, n, enough)
			}
			l.Add(time.Millisecond)
		}
		if got, ok := l.Quantile(); !ok || got < time.Millisecond {
			t.Errorf("quantile %v is %v, %t after %d latencies of 1ms", quantile, got, ok, enough)
		}
	}
}

// TestLatenciesForget: what is older than two generations does not count.
func TestLatenciesForget(t *testing.T) {
	t.Parallel()
	l := resilience.NewLatencies(0.5)
	for range 1000 {
		l.Add(time.Second)
	}
	for range 2 * 8 * 50 {
		l.Add(time.Millisecond)
	}
	if got, _ := l.Quantile(); got > 2*time.Millisecond {
		t.Errorf("half of 800 latencies of 1ms are above %v", got)
	}
}

func TestLatenciesConcurrently(t *testing.T) {
	t.Parallel()
	l := resilience.NewLatencies(0.9)
	var adding sync.WaitGroup
	for range 8 {
		adding.Go(func() {
			for range 1000 {
				l.Add(time.Millisecond)
				l.Quantile()
			}
		})
	}
	adding.Wait()
	if got, ok := l.Quantile(); !ok || got < time.Millisecond || got > 1100*time.Microsecond {
		t.Errorf("got %v, %t", got, ok)
	}
}

func BenchmarkLatencies(b *testing.B) {
	l := resilience.NewLatencies(0.95)
	b.ReportAllocs()
	for n := range b.N {
		l.Add(time.Duration(n) * time.Microsecond)
	}
}
