package outlier_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/0x1d/goplt/internal/outlier"
)

// TestCountedExactly: what is recorded while the set changes and sweeps run is neither lost nor counted twice.
func TestCountedExactly(t *testing.T) {
	t.Parallel()
	const callers, each = 8, 5000
	config := defaults()
	config.ConsecutiveFailures, config.FailurePercentage.MinHosts, config.SuccessRate.Enabled = 0, 1, false
	config.FailurePercentage.RequestVolume = callers * each
	d := outlier.New(config, func() {})
	hosts := []*outlier.Host{d.NewHost(nil), d.NewHost(nil)}
	d.SetHosts(hosts)
	hosts[1].Succeeded() // so that an interval runs
	d.Sweep(start)
	var calling, meddling sync.WaitGroup
	for range callers {
		calling.Go(func() {
			for call := range each {
				if call%10 == 0 {
					hosts[0].Succeeded()
				} else {
					hosts[0].Failed(start)
				}
			}
		})
	}
	done := make(chan struct{})
	meddling.Go(func() {
		for size := 0; ; size = 1 - size {
			select {
			case <-done:
				return
			default:
				d.SetHosts(hosts[size:])
				d.Sweep(start)
			}
		}
	})
	calling.Wait()
	close(done)
	meddling.Wait()
	d.SetHosts(hosts)
	d.Sweep(start.Add(config.Interval))
	if got, want := hosts[0].State().Reason, fmt.Sprintf("90.0%% of %d calls failed, above 85%%", callers*each); got != want {
		t.Errorf("reason %q, want %q", got, want)
	}
}

// TestRestMissesNoCall: however a call meets the end of an interval without any, an interval runs after it.
func TestRestMissesNoCall(t *testing.T) {
	t.Parallel()
	config := defaults()
	d := outlier.New(config, func() {})
	hosts := make([]*outlier.Host, 200) // the first of which is looked at long before the last
	for at := range hosts {
		hosts[at] = d.NewHost(nil)
	}
	d.SetHosts(hosts)
	host, now := hosts[0], start
	for round := range 3000 {
		host.Succeeded()
		d.Sweep(now)
		now = now.Add(config.Interval)
		d.Sweep(now) // one with a call, so another runs
		now = now.Add(config.Interval)
		var both sync.WaitGroup
		both.Go(host.Succeeded)
		d.Sweep(now)
		both.Wait()
		if d.Sweep(now).IsZero() {
			t.Fatalf("round %d: nothing is due after a call", round)
		}
	}
}

// TestEjectedOnce: however many failures come at a time, each ejection is made, reported to one caller, and told once.
func TestEjectedOnce(t *testing.T) {
	t.Parallel()
	config := defaults()
	var ejected, told atomic.Int64
	d := outlier.New(config, func() {})
	host := d.NewHost(func(outlier.Change) { told.Add(1) })
	d.SetHosts([]*outlier.Host{host, d.NewHost(nil)})
	var calling sync.WaitGroup
	for range 8 {
		calling.Go(func() {
			for range 2000 {
				if host.Failed(start) {
					ejected.Add(1)
				}
			}
		})
	}
	calling.Wait()
	if got := host.State(); ejected.Load() != 1 || told.Load() != 1 || got.Ejections != 1 || got.Until != start.Add(30*time.Second) {
		t.Errorf("reported %d times, told %d times, state %+v", ejected.Load(), told.Load(), got)
	}
}

// TestToldInOrder: changes of all hosts are told one at a time, each from the phase that the one before led to, with no lock held, and the last
// one told is the state.
func TestToldInOrder(t *testing.T) {
	t.Parallel()
	config := defaults()
	config.ConsecutiveFailures, config.MaxEjectedPercent, config.BaseEjection, config.MaxEjection = 1, 50, 1, 1
	var telling, changes atomic.Int64
	d := outlier.New(config, func() {})
	hosts, last := make([]*outlier.Host, 4), make([]outlier.Phase, 4)
	for at := range hosts {
		hosts[at] = d.NewHost(func(change outlier.Change) {
			if telling.Add(1) != 1 {
				t.Error("told by two at a time")
			}
			if change.From != last[at] || change.Phase == change.From {
				t.Errorf("host %d: %v to %v after %v", at, change.From, change.Phase, last[at])
			}
			last[at] = change.Phase
			hosts[at].State() // would not return if the lock were held
			changes.Add(1)
			telling.Add(-1)
		})
	}
	d.SetHosts(hosts)
	var running sync.WaitGroup
	for seed := range uint64(8) {
		running.Go(func() {
			random := rand.New(rand.NewPCG(seed, 0))
			now := start
			for range 2000 {
				now = now.Add(time.Second)
				host := hosts[random.IntN(len(hosts))]
				switch random.IntN(4) {
				case 0:
					host.Failed(now)
				case 1:
					d.Sweep(now)
				case 2:
					d.SetHosts(hosts)
				case 3:
					if host.BeginProbe(now) {
						host.Probed(now, nil)
					}
				}
			}
		})
	}
	running.Wait()
	for at, host := range hosts {
		if got := host.State().Phase; got != last[at] {
			t.Errorf("host %d: told last that it is %v, and it is %v", at, last[at], got)
		}
	}
	if changes.Load() < 100 {
		t.Errorf("%d changes: the test tests nothing", changes.Load())
	}
}

// TestListenerPanics: the panic reaches who caused the change, and the detector goes on.
func TestListenerPanics(t *testing.T) {
	t.Parallel()
	d := outlier.New(defaults(), func() {})
	told := 0
	host := d.NewHost(func(outlier.Change) {
		told++
		if told == 1 {
			panic("user's")
		}
	})
	d.SetHosts([]*outlier.Host{host, d.NewHost(nil)})
	func() {
		defer func() {
			if recovered := recover(); recovered != "user's" {
				t.Errorf("recovered %v", recovered)
			}
		}()
		for range 5 {
			host.Failed(start)
		}
	}()
	d.Sweep(start.Add(30 * time.Second))
	if !host.BeginProbe(start.Add(30*time.Second)) || told != 2 {
		t.Errorf("after the panic: told %d times, state %+v", told, host.State())
	}
}

// TestNeverTooManyOut: whatever happens in whatever order, no ejection exceeds the maximum share, but for the one that is always allowed, or
// takes the last host that serves; and panic is what the numbers say.
func TestNeverTooManyOut(t *testing.T) {
	t.Parallel()
	ejections, panics := 0, 0
	for seed := range uint64(300) {
		random := rand.New(rand.NewPCG(seed, 7))
		config := defaults()
		config.MaxEjectedPercent, config.PanicPercent = random.IntN(101), random.IntN(101)
		config.ConsecutiveFailures = random.IntN(4)
		config.SuccessRate.MinHosts, config.SuccessRate.RequestVolume = 1+random.IntN(5), 1+random.IntN(20)
		config.FailurePercentage.MinHosts, config.FailurePercentage.RequestVolume = 1+random.IntN(5), 1+random.IntN(20)
		d := outlier.New(config, func() {})
		all := make([]*outlier.Host, 1+random.IntN(20))
		for at := range all {
			all[at] = d.NewHost(nil)
		}
		var set []*outlier.Host
		count := func() (out int) {
			for _, host := range set {
				if host.Ejected() {
					out++
				}
			}
			return out
		}
		now := start
		var log strings.Builder
		for range 400 {
			before := count()
			now = now.Add(time.Duration(random.IntN(10_000)) * time.Millisecond)
			host := all[random.IntN(len(all))]
			switch operation := random.IntN(20); {
			case operation == 0:
				random.Shuffle(len(all), func(a, b int) { all[a], all[b] = all[b], all[a] })
				set = all[:random.IntN(len(all)+1)]
				d.SetHosts(set)
				before = count()
				fmt.Fprintf(&log, "set of %d, %d out\n", len(set), before)
			case operation < 4:
				d.Sweep(now)
			case operation < 6:
				if host.BeginProbe(now) {
					host.Probed(now, [...]error{nil, errProbe}[random.IntN(2)])
				}
			case operation < 7:
				host.Probed(now, errProbe)
			case operation < 10:
				calls(host, now, random.IntN(30), 0)
			default:
				calls(host, now, random.IntN(3), random.IntN(30))
			}
			out := count()
			if out > before {
				ejections += out - before
				if out == len(set) || out > 1 && out*100 > config.MaxEjectedPercent*len(set) {
					t.Fatalf("seed %d: %d of %d are out, at most %d %% may be\n%s", seed, out, len(set), config.MaxEjectedPercent, log.String())
				}
			}
			if want := (len(set)-out)*100 < config.PanicPercent*len(set); d.Panic() != want {
				t.Fatalf("seed %d: %d of %d are out, panic below %d %%: %t\n%s", seed, out, len(set), config.PanicPercent, d.Panic(), log.String())
			} else if want {
				panics++
			}
		}
	}
	if ejections < 1000 || panics < 1000 {
		t.Errorf("%d ejections, %d moments of panic: the test tests nothing", ejections, panics)
	}
}

// TestAllocations: what a call does costs none, failures included.
func TestAllocations(t *testing.T) {
	config := defaults()
	config.ConsecutiveFailures = 1000
	d := outlier.New(config, func() {})
	host := d.NewHost(nil)
	d.SetHosts([]*outlier.Host{host, d.NewHost(nil)})
	if n := testing.AllocsPerRun(500, func() {
		host.Succeeded()
		host.Failed(start)
		if host.Ejected() || d.Panic() {
			t.Error("ejected")
		}
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkHost(b *testing.B) {
	d := outlier.New(defaults(), func() {})
	host := d.NewHost(nil)
	d.SetHosts([]*outlier.Host{host})
	b.Run("Succeeded", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			host.Succeeded()
		}
	})
	b.Run("Ejected", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if host.Ejected() {
				b.Fatal("ejected")
			}
		}
	})
}

// BenchmarkSweep is the end of an interval, which a service with calls has every ten seconds.
func BenchmarkSweep(b *testing.B) {
	for _, size := range []int{10, 1000, 10_000} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			d := outlier.New(defaults(), func() {})
			hosts := make([]*outlier.Host, size)
			for at := range hosts {
				hosts[at] = d.NewHost(nil)
			}
			d.SetHosts(hosts)
			hosts[0].Succeeded()
			now := start
			d.Sweep(now)
			b.ReportAllocs()
			for b.Loop() {
				b.StopTimer()
				for at, host := range hosts {
					calls(host, now, 100, at%3)
				}
				now = now.Add(10 * time.Second)
				b.StartTimer()
				d.Sweep(now)
			}
		})
	}
}
