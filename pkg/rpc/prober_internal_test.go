package rpc

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/0x1d/goplt/internal/outlier"
)

// fakeTarget is an instance whose probes the test answers.
type fakeTarget struct {
	host   *outlier.Host
	answer func(context.Context) error
	spare  atomic.Bool   // whether it is beyond the subset
	load   *atomic.Int64 // probes under way, of all targets
	most   *atomic.Int64

	mu     sync.Mutex
	probed []time.Time
}

var _ probeTarget = (*fakeTarget)(nil)

func (f *fakeTarget) outlierHost() *outlier.Host { return f.host }
func (f *fakeTarget) inUse() bool                { return !f.spare.Load() }

func (f *fakeTarget) probe(ctx context.Context, _ Protocol) error {
	f.mu.Lock()
	f.probed = append(f.probed, time.Now())
	f.mu.Unlock()
	for now := f.load.Add(1); ; {
		if most := f.most.Load(); now <= most || f.most.CompareAndSwap(most, now) {
			break
		}
	}
	defer f.load.Add(-1)
	if f.answer == nil {
		return nil
	}
	return f.answer(ctx)
}

func (f *fakeTarget) probes() []time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.probed)
}

// proberFixture is a prober over fake targets.
type proberFixture struct {
	*prober

	t       *testing.T
	current atomic.Pointer[[]probeTarget]
	load    atomic.Int64
	most    atomic.Int64
}

func newProberFixture(t *testing.T, adjust func(*OutlierConfig)) *proberFixture {
	t.Helper()
	config := DefaultClientConfig().Outlier
	if adjust != nil {
		adjust(&config)
	}
	f := &proberFixture{t: t}
	f.current.Store(new([]probeTarget))
	f.prober = newProber(config, ProtocolAuto, func() []probeTarget { return *f.current.Load() })
	t.Cleanup(f.close)
	return f
}

// targets makes a set of so many targets, each with its own answer.
func (f *proberFixture) targets(size int, answer func(context.Context) error) []*fakeTarget {
	made, hosts, current := make([]*fakeTarget, size), make([]*outlier.Host, size), make([]probeTarget, size)
	for at := range size {
		made[at] = &fakeTarget{host: f.detector.NewHost(nil), answer: answer, load: &f.load, most: &f.most}
		hosts[at], current[at] = made[at].host, made[at]
	}
	f.current.Store(&current)
	f.detector.SetHosts(hosts)
	return made
}

func (f *proberFixture) works() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.running
}

// expectWorks waits until nothing happens any more without time passing, and checks whether there is a goroutine.
func (f *proberFixture) expectWorks(when string, want bool) {
	f.t.Helper()
	synctest.Wait()
	if f.works() != want {
		f.t.Errorf("%s: there is a goroutine: %t, want %t", when, !want, want)
	}
}

func eject(target *fakeTarget) {
	for range 5 {
		target.host.Failed(time.Now())
	}
}

// elapseFor lets time pass, in a bubble of synctest.
func elapseFor(duration time.Duration) {
	<-time.NewTimer(duration).C
	synctest.Wait()
}

var errSick = errors.New("sick")

// TestProberRests: there is a goroutine only while there is something to wait for.
func TestProberRests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newProberFixture(t, nil)
		f.expectWorks("at first", false)
		targets := f.targets(3, nil)
		f.expectWorks("without calls", false)
		targets[0].host.Succeeded()
		f.expectWorks("after a call", true)
		elapseFor(10 * time.Second)
		f.expectWorks("after an interval with a call", true)
		elapseFor(10 * time.Second)
		f.expectWorks("after one without", false)
		targets[0].host.Succeeded()
		f.expectWorks("after another call", true)
		elapseFor(time.Hour)
		f.expectWorks("an hour later", false)
		if got := targets[0].probes(); len(got) > 0 {
			t.Errorf("probed at %v, and nobody was ejected", got)
		}
	})
}

// TestProberSwitchedOff: nothing is ejected, probed, or waited for.
func TestProberSwitchedOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newProberFixture(t, func(config *OutlierConfig) { config.Enabled, config.Probe.Interval = false, time.Second })
		targets := f.targets(5, nil)
		for range 100 {
			targets[0].host.Failed(time.Now())
		}
		f.expectWorks("after calls", false)
		elapseFor(time.Minute)
		if got := len(targets[0].probes()); got > 0 || targets[0].host.Ejected() {
			t.Errorf("%d probes, ejected %t", got, targets[0].host.Ejected())
		}
	})
}

// TestOutlierKeys: what each key says reaches the detector.
func TestOutlierKeys(t *testing.T) {
	config := OutlierConfig{
		Interval: 1, BaseEjection: 2, MaxEjection: 3, MaxEjectedPercent: 4, PanicPercent: 5, ConsecutiveFailures: 6,
		SuccessRate:       SuccessRateConfig{Enabled: true, StdevFactor: 7, EnforcementPercent: 8, MinHosts: 9, RequestVolume: 10},
		FailurePercentage: FailurePercentageConfig{Enabled: true, Threshold: 11, EnforcementPercent: 12, MinHosts: 13, RequestVolume: 14},
	}
	want := outlier.Config{
		Interval: 1, BaseEjection: 2, MaxEjection: 3, MaxEjectedPercent: 4, PanicPercent: 5, ConsecutiveFailures: 6,
		SuccessRate:       outlier.SuccessRate{Enabled: true, StdevFactor: 7, EnforcementPercent: 8, MinHosts: 9, RequestVolume: 10},
		FailurePercentage: outlier.FailurePercentage{Enabled: true, Threshold: 11, EnforcementPercent: 12, MinHosts: 13, RequestVolume: 14},
	}
	if got := config.detection(); got != want {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

// TestProberReadmits: an instance is probed when its ejection has passed, again after failures, and is back when a probe succeeds. Then the
// prober rests.
func TestProberReadmits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newProberFixture(t, nil)
		targets := f.targets(3, nil)
		var asked atomic.Int64
		targets[0].answer = func(context.Context) error {
			if asked.Add(1) <= 2 {
				return errSick
			}
			return nil
		}
		started := time.Now()
		eject(targets[0])
		elapseFor(30*time.Second - 1)
		if got := targets[0].probes(); len(got) > 0 {
			t.Fatalf("probed after %v", got[0].Sub(started))
		}
		elapseFor(1)
		if got := targets[0].host.State(); got.Phase != outlier.AwaitingProbe || got.Reason != "the ejection has passed, but the probe failed: sick" {
			t.Fatalf("after the first probe: %+v", got)
		}
		elapseFor(time.Minute)
		probes := targets[0].probes()
		if len(probes) != 3 || targets[0].host.Ejected() {
			t.Fatalf("%d probes, %+v, want 3, and it serves", len(probes), targets[0].host.State())
		}
		for at, want := range []time.Duration{30 * time.Second, 5 * time.Second, 10 * time.Second} {
			got := probes[at].Sub(started)
			if (got-want).Abs() > want/5 || at == 0 && got != want {
				t.Errorf("probe %d came %v after the one before, want %v, give or take a fifth", at+1, got, want)
			}
			started = probes[at]
		}
		f.expectWorks("with all back", false)
		if len(targets[1].probes())+len(targets[2].probes()) > 0 {
			t.Error("instances that served were probed")
		}
	})
}

// TestProberBounds: few probes at a time, each in its time, and each instance gets its turn.
func TestProberBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newProberFixture(t, func(config *OutlierConfig) { config.MaxEjectedPercent = 100 })
		targets := f.targets(11, func(ctx context.Context) error {
			<-ctx.Done()
			return ctx.Err()
		})
		for _, target := range targets {
			eject(target) // all but the last
		}
		elapseFor(30 * time.Second)
		if got := f.load.Load(); got != maxProbes {
			t.Errorf("%d probes at a time, want %d", got, maxProbes)
		}
		elapseFor(3 * time.Second) // three rounds of four, each of a second
		for at, target := range targets[:10] {
			if len(target.probes()) == 0 {
				t.Errorf("instance %d was not probed", at)
			}
		}
		if got := f.most.Load(); got != maxProbes {
			t.Errorf("%d probes at a time, want %d", got, maxProbes)
		}
		if got := targets[0].host.State(); got.Phase != outlier.AwaitingProbe {
			t.Errorf("a probe that timed out: %+v", got)
		}
	})
}

// TestProberWaitsForRoom without turning in circles: probes that are due and have no room are taken up when others end.
func TestProberWaitsForRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var looks atomic.Int64
		f := newProberFixture(t, func(config *OutlierConfig) { config.MaxEjectedPercent, config.Probe.Timeout = 100, time.Hour })
		f.prober.targets = func() []probeTarget {
			looks.Add(1)
			return *f.current.Load()
		}
		release := make(chan struct{})
		targets := f.targets(9, func(context.Context) error {
			<-release
			return nil
		})
		for _, target := range targets {
			eject(target)
		}
		elapseFor(30 * time.Second)
		before := looks.Load()
		elapseFor(time.Minute)
		if got := looks.Load() - before; got > 10 {
			t.Errorf("looked %d times for what is due, and nothing could be done", got)
		}
		close(release)
		elapseFor(0)
		for at, target := range targets {
			if target.host.Ejected() {
				t.Errorf("instance %d is still out: %+v", at, target.host.State())
			}
		}
	})
}

// TestActiveProbing: every instance is probed each interval, give or take a fifth, without any call; one that fails five times in a row is
// ejected, and comes back like others.
func TestActiveProbing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newProberFixture(t, func(config *OutlierConfig) {
			config.Probe.Interval, config.BaseEjection = 10*time.Second, 5*time.Minute
		})
		f.expectWorks("without instances", false)
		targets := f.targets(6, nil)
		var sick atomic.Bool
		sick.Store(true)
		targets[5].answer = func(context.Context) error {
			if sick.Load() {
				return errSick
			}
			return nil
		}
		f.expectWorks("with instances", true)
		elapseFor(10 * time.Second)
		for range 6 {
			elapseFor(10 * time.Second)
		}
		for at, target := range targets {
			probes := target.probes()
			if at < 5 && (len(probes) < 5 || len(probes) > 9) {
				t.Errorf("instance %d was probed %d times in 70s, want about every 10s", at, len(probes))
			}
			for number := range len(probes) - 1 {
				if pause := probes[number+1].Sub(probes[number]); at < 5 && (pause < 8*time.Second || pause > 12*time.Second+1) {
					t.Errorf("instance %d was probed again after %v", at, pause)
				}
			}
			if got := target.host.Ejected(); got != (at == 5) {
				t.Errorf("instance %d is ejected: %t", at, got)
			}
		}
		if got := targets[5].host.State(); got.Cause != outlier.CauseFailedProbes || len(targets[5].probes()) != 5 {
			t.Errorf("after %d probes: %+v", len(targets[5].probes()), got)
		}
		sick.Store(false)
		elapseFor(5 * time.Minute)
		if targets[5].host.Ejected() {
			t.Errorf("still out: %+v", targets[5].host.State())
		}
		f.targets(0, nil)
		elapseFor(10 * time.Second)
		f.expectWorks("without instances again", false)
	})
}

// TestActiveProbingOfASubset: an instance beyond the subset is not probed while it serves, as that would cost the connection that the subset
// spares; one that was ejected is, as otherwise it would never serve again.
func TestActiveProbingOfASubset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newProberFixture(t, func(config *OutlierConfig) { config.Probe.Interval = time.Second })
		targets := f.targets(3, nil)
		targets[1].spare.Store(true)
		elapseFor(10 * time.Second)
		for at, target := range targets {
			if got := len(target.probes()); (got > 0) == target.spare.Load() {
				t.Errorf("instance %d was probed %d times", at, got)
			}
		}
		eject(targets[1])
		elapseFor(31 * time.Second)
		if got := targets[1]; got.host.Ejected() || len(got.probes()) != 1 {
			t.Errorf("%d probes of the spare one, %+v; want it re-admitted by one", len(got.probes()), got.host.State())
		}
	})
}

// TestHangingProbesLeaveRoom: one instance that lets each probe time out, later than the next is due, does not keep the others' from them.
func TestHangingProbesLeaveRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newProberFixture(t, func(config *OutlierConfig) {
			config.Probe.Interval, config.Probe.Timeout = 100*time.Millisecond, time.Second
		})
		targets := f.targets(3, nil)
		var most, now atomic.Int64
		targets[0].answer = func(ctx context.Context) error {
			most.Store(max(most.Load(), now.Add(1)))
			defer now.Add(-1)
			<-ctx.Done()
			return ctx.Err()
		}
		f.expectWorks("with instances", true)
		elapseFor(10*time.Second - 1)
		if got := most.Load(); got != 1 {
			t.Errorf("%d probes of one instance at a time, want 1", got)
		}
		for _, target := range targets[1:] {
			if got := len(target.probes()); got < 80 {
				t.Errorf("another one was probed %d times in 10 s, want each 100 ms", got)
			}
		}
		if state := targets[0].host.State(); state.Phase != outlier.Ejected || len(targets[0].probes()) != 5 {
			t.Errorf("after %d probes: %+v", len(targets[0].probes()), state)
		}
	})
}

// TestProberClose ends probes under way, without holding their end against the instance, and waits; nothing is started after it.
func TestProberClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newProberFixture(t, func(config *OutlierConfig) { config.Probe.Timeout = time.Hour })
		targets := f.targets(3, func(ctx context.Context) error {
			<-ctx.Done()
			return ctx.Err()
		})
		eject(targets[0])
		elapseFor(30 * time.Second)
		before := targets[0].host.State()
		if f.load.Load() != 1 {
			t.Fatal("no probe under way")
		}
		f.close()
		if got := f.load.Load(); got != 0 {
			t.Errorf("%d probes under way after close", got)
		}
		if got := targets[0].host.State(); got != before {
			t.Errorf("got  %+v\nwant %+v", got, before)
		}
		eject(targets[1])
		f.wake()
		elapseFor(time.Hour)
		if got := len(targets[0].probes()) + len(targets[1].probes()); got != 1 {
			t.Errorf("%d probes, want the one from before close", got)
		}
		f.close()
	})
}

// TestProberWokenOnItsWayOut: a wake that comes after the last look is not lost.
func TestProberWokenOnItsWayOut(t *testing.T) {
	f := newProberFixture(t, nil)
	f.running = true // a goroutine that has looked, and found nothing
	f.wake()
	if f.leave() {
		t.Error("it ended, and nobody looks at what it was woken for")
	}
	<-f.nudge
	if !f.leave() || f.works() {
		t.Error("it stays, though nobody woke it")
	}
}

// TestProberNeverMissesAWake: however wakes and rests meet, an instance that awaits its probe gets it.
func TestProberNeverMissesAWake(t *testing.T) {
	f := newProberFixture(t, func(config *OutlierConfig) {
		config.ConsecutiveFailures, config.BaseEjection, config.MaxEjection = 1, 1, 1
		config.SuccessRate.Enabled, config.FailurePercentage.Enabled, config.Interval = false, false, time.Nanosecond
	})
	readmitted := make(chan struct{}, 1)
	host := f.detector.NewHost(func(change outlier.Change) {
		if change.Phase == outlier.Serving {
			readmitted <- struct{}{}
		}
	})
	f.current.Store(&[]probeTarget{&fakeTarget{host: host, load: &f.load, most: &f.most}})
	f.detector.SetHosts([]*outlier.Host{host, f.detector.NewHost(nil)})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for round := range 2000 {
		if !host.Failed(time.Now()) {
			t.Fatalf("round %d: not ejected: %+v", round, host.State())
		}
		select {
		case <-readmitted:
		case <-ctx.Done():
			t.Fatalf("round %d: never re-admitted: %+v", round, host.State())
		}
	}
}
