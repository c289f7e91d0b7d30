package rpc

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	grpcclient "github.com/0x1d/goplt/internal/services/grpc/client"
	"github.com/0x1d/goplt/pkg/registry"
)

var errNoTrailers = errors.New("no trailers")

// script is what probes find, and when they were made.
type script struct {
	mu         sync.Mutex
	grpc, http finding
	takes      time.Duration
	began      []time.Time // of those by gRPC
	byHTTP     int
}

func (s *script) find(grpc, http finding) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.grpc, s.http = grpc, http
}

func (s *script) made() (byGRPC, byHTTP int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.began), s.byHTTP
}

func (s *script) ask(ctx context.Context, by Protocol) (finding, error) {
	s.mu.Lock()
	found := s.grpc
	if by == ProtocolHTTP {
		found = s.http
		s.byHTTP++
	} else {
		s.began = append(s.began, time.Now())
	}
	takes := s.takes
	s.mu.Unlock()
	timer := time.NewTimer(takes)
	defer timer.Stop()
	select {
	case <-timer.C:
		return found, nil
	case <-ctx.Done():
		return foundNothing, ctx.Err()
	}
}

// inFallback runs a test with an instance whose probes find what the script says.
func inFallback(t *testing.T, metadata map[string]string, test func(t *testing.T, f *fallback, probes *script)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		config := DefaultClientConfig()
		owner := newFallbackProbes(defaultFallbackPace())
		described := registry.Instance{ID: "a", Host: "192.0.2.1", Port: 1, Metadata: metadata}
		i := newInstance(described, &config, nil, &changes{logger: slog.New(slog.DiscardHandler)}, nil, owner)
		probes := &script{}
		i.fallback.ask = probes.ask
		defer i.close()
		defer owner.close()
		test(t, i.fallback, probes)
	})
}

// doubts is so many calls, one after the other, that show soft evidence.
func doubts(f *fallback, count int) {
	for range count {
		began := time.Now()
		pass(time.Millisecond)
		f.doubt(errNoTrailers, began)
	}
	synctest.Wait()
}

func pass(duration time.Duration) {
	time.Sleep(duration) //nolint:forbidigo // by the clock of the bubble
	synctest.Wait()
}

func expectSpoken(t *testing.T, f *fallback, want Protocol) {
	t.Helper()
	if got := f.instance.wireFor(ProtocolAuto).protocol; got != want {
		t.Fatalf("spoken to by %s, want %s; %+v", got, want, f.instance.changes.all())
	}
}

func expectProbes(t *testing.T, probes *script, byGRPC, byHTTP int) {
	t.Helper()
	if gotGRPC, gotHTTP := probes.made(); gotGRPC != byGRPC || gotHTTP != byHTTP {
		t.Fatalf("%d probes by gRPC, %d by HTTP; want %d and %d", gotGRPC, gotHTTP, byGRPC, byHTTP)
	}
}

// TestFallbackProbeDecides: only that gRPC fails and Connect works is a reason to switch.
func TestFallbackProbeDecides(t *testing.T) {
	for _, row := range []struct {
		name       string
		grpc, http finding
		byHTTP     int
		want       Protocol
	}{
		{"gRPC fails, Connect works", foundFails, foundWorks, 1, ProtocolHTTP},
		{"gRPC fails, Connect too", foundFails, foundNothing, 1, ProtocolGRPC},
		{"gRPC works", foundWorks, foundWorks, 0, ProtocolGRPC},
		{"gRPC is not reached", foundNothing, foundWorks, 0, ProtocolGRPC},
		{"neither has health", foundNoHealth, foundNoHealth, 1, ProtocolGRPC},
		{"no health by gRPC, and Connect works", foundNoHealth, foundWorks, 1, ProtocolGRPC},
		{"gRPC fails, no health by Connect", foundFails, foundNoHealth, 1, ProtocolGRPC},
	} {
		t.Run(row.name, func(t *testing.T) {
			inFallback(t, nil, func(t *testing.T, f *fallback, probes *script) {
				probes.find(row.grpc, row.http)
				doubts(f, 1)
				expectProbes(t, probes, 1, row.byHTTP)
				expectSpoken(t, f, row.want)
			})
		})
	}
}

// TestFallbackProbesOnce: however many calls doubt, one probe is under way, and after one that confirmed nothing the next waits longer and longer.
func TestFallbackProbesOnce(t *testing.T) {
	inFallback(t, nil, func(t *testing.T, f *fallback, probes *script) {
		probes.takes = 100 * time.Millisecond
		doubts(f, 50)
		expectProbes(t, probes, 1, 0)
		for range 60 * 10 {
			pass(time.Second)
			doubts(f, 2)
		}
		byGRPC, _ := probes.made()
		if byGRPC < 12 || byGRPC > 18 { // at 0, 1, 3, 7, 15, 31, 63 s and every minute from there
			t.Errorf("%d probes in 10 min", byGRPC)
		}
		pass(time.Hour)
		expectProbes(t, probes, byGRPC, 0) // none by themselves
		expectSpoken(t, f, ProtocolGRPC)
		doubts(f, 1)
		pass(1200 * time.Millisecond)
		doubts(f, 1)
		expectProbes(t, probes, byGRPC+2, 0) // after a long time in peace, the pause is short again
	})
}

// TestFallbackUndecidedProbe: where there is no health to be probed, doubts in a row decide, if Connect/JSON answers.
func TestFallbackUndecidedProbe(t *testing.T) {
	inFallback(t, nil, func(t *testing.T, f *fallback, probes *script) {
		probes.find(foundNoHealth, foundNoHealth)
		for range 20 { // gRPC that gets through now and then is no gRPC that does not
			doubts(f, decisiveDoubts-1)
			f.listen(grpcclient.Works, nil, time.Now())
		}
		expectSpoken(t, f, ProtocolGRPC)
		pass(5 * time.Minute)

		began := time.Now() // many calls that fail at one time are one doubt
		pass(time.Second)
		for range 2 * decisiveDoubts {
			f.doubt(errNoTrailers, began)
		}
		synctest.Wait()
		expectSpoken(t, f, ProtocolGRPC)
		doubts(f, decisiveDoubts-1)
		expectSpoken(t, f, ProtocolHTTP)
		if !f.trial.Load() {
			t.Fatal("learned before anything answered")
		}
		f.tried(true, nil)
		expectSpoken(t, f, ProtocolHTTP)
		if f.trial.Load() {
			t.Error("still on trial")
		}
	})
}

// TestFallbackTrial ends with the first answer, or with the first call that has none, or with a grpc-status.
func TestFallbackTrial(t *testing.T) {
	inFallback(t, nil, func(t *testing.T, f *fallback, probes *script) {
		probes.find(foundNoHealth, foundNoHealth)
		doubts(f, decisiveDoubts)
		expectSpoken(t, f, ProtocolHTTP)
		f.tried(false, errors.New("404"))
		f.tried(false, errors.New("404")) // of another call
		expectSpoken(t, f, ProtocolGRPC)
		doubts(f, 100)
		pass(50 * time.Second)
		doubts(f, 100)
		expectSpoken(t, f, ProtocolGRPC) // for a while
		expectProbes(t, probes, 1, 1)
		pass(10 * time.Second)
		doubts(f, decisiveDoubts)
		expectSpoken(t, f, ProtocolHTTP)
		f.trust()
		expectSpoken(t, f, ProtocolGRPC)
		if f.trial.Load() || f.doubts.Load() != 0 {
			t.Error("still on trial")
		}
	})
}

// TestFallbackAnsweredReplay: an idempotent call that Connect/JSON answered needs no trial.
func TestFallbackAnsweredReplay(t *testing.T) {
	inFallback(t, nil, func(t *testing.T, f *fallback, probes *script) {
		probes.find(foundNoHealth, foundNoHealth)
		for number := range decisiveDoubts {
			expectSpoken(t, f, ProtocolGRPC)
			doubts(f, 1)
			if number < decisiveDoubts-1 {
				f.tried(true, nil)
			}
		}
		expectSpoken(t, f, ProtocolHTTP)
		if f.trial.Load() {
			t.Error("on trial, though Connect/JSON has answered")
		}
	})
}

// TestFallbackLooksAgain: after 60 s ± 20 %, then twice as long each time up to 10 min, until gRPC works.
func TestFallbackLooksAgain(t *testing.T) {
	inFallback(t, nil, func(t *testing.T, f *fallback, probes *script) {
		probes.find(foundNothing, foundNothing)
		learned := time.Now()
		f.learn(errNoTrailers)
		f.learn(errNoTrailers) // by another call: known already
		pass(time.Hour)
		last := learned
		for number, want := range []float64{1, 2, 4, 8, 10, 10} {
			if got := probes.began[number].Sub(last).Minutes(); got < want*0.8 || got > want*1.2 {
				t.Errorf("probe %d after %v min, want %v ± 20 %%", number+1, got, want)
			}
			last = probes.began[number]
		}
		for _, found := range []finding{foundFails, foundNoHealth, foundNothing} { // only a message and a trailer will do
			probes.find(found, foundWorks)
			pass(12 * time.Minute)
			expectSpoken(t, f, ProtocolHTTP)
		}
		probes.find(foundWorks, foundWorks)
		pass(12 * time.Minute)
		expectSpoken(t, f, ProtocolGRPC)
		if got := f.instance.lastChange.Load().What; got != "speaks gRPC again: a probe brought a message and a trailer" {
			t.Errorf("last change %q", got)
		}
		byGRPC, byHTTP := probes.made()
		if byHTTP != 0 {
			t.Errorf("%d probes by HTTP", byHTTP)
		}
		pass(24 * time.Hour)
		expectProbes(t, probes, byGRPC, 0) // nothing to do
		f.learn(errNoTrailers)
		pass(72 * time.Second)
		expectProbes(t, probes, byGRPC+1, 0) // the first interval again
	})
}

// TestFallbackRegistration: what was learned, suspected or is being found out of the last registration says nothing of the next.
func TestFallbackRegistration(t *testing.T) {
	inFallback(t, nil, func(t *testing.T, f *fallback, probes *script) {
		probes.find(foundFails, foundWorks)
		probes.takes = time.Second
		next := *f.instance.described.Load()
		doubts(f, 1)
		next.Revision++
		f.instance.describe(next)
		pass(time.Minute)
		expectSpoken(t, f, ProtocolGRPC)
		expectProbes(t, probes, 1, 1)

		doubts(f, 1)
		pass(5 * time.Second)
		expectSpoken(t, f, ProtocolHTTP)
		next.Weight = 7
		f.instance.describe(next)
		expectSpoken(t, f, ProtocolHTTP) // the same registration
		next.Revision++
		f.instance.describe(next)
		expectSpoken(t, f, ProtocolGRPC)
		if got := f.instance.lastChange.Load().What; !strings.HasPrefix(got, "registered anew") {
			t.Errorf("last change %q", got)
		}
		pass(time.Hour)
		expectProbes(t, probes, 2, 2)

		next.Metadata = map[string]string{"protocol": "http"}
		f.instance.describe(next)
		pass(time.Hour)
		expectSpoken(t, f, ProtocolHTTP)
		expectProbes(t, probes, 2, 2) // what the instance says is not looked into
		f.instance.fallback.rest()
		f.instance.fallback.wake()
		pass(time.Hour)
		expectProbes(t, probes, 2, 2)
	})
}

// TestFallbackLookIsVoid: a look at an instance that registers anew, or leaves, while it is looked at, changes nothing and has nothing looked at again.
func TestFallbackLookIsVoid(t *testing.T) {
	for _, row := range []struct {
		name      string
		meanwhile func(f *fallback)
		want      Protocol
	}{
		{"registers anew", func(f *fallback) { f.register("") }, ProtocolGRPC},
		{"leaves", (*fallback).rest, ProtocolHTTP},
	} {
		t.Run(row.name, func(t *testing.T) {
			for _, found := range []finding{foundWorks, foundFails} {
				inFallback(t, nil, func(t *testing.T, f *fallback, probes *script) {
					probes.find(found, foundNothing)
					probes.takes = defaultFallbackPace().timeout - 1
					f.learn(errNoTrailers)
					for byGRPC := 0; byGRPC == 0; byGRPC, _ = probes.made() {
						pass(time.Second)
					}
					row.meanwhile(f)
					before := f.instance.lastChange.Load()
					pass(time.Hour)
					expectSpoken(t, f, row.want)
					expectProbes(t, probes, 1, 0)
					if after := f.instance.lastChange.Load(); after != before {
						t.Errorf("%+v", after)
					}
				})
			}
		})
	}
}

// TestFallbackLookOfBefore: what a look found of the registration before says nothing of one of which the same was learned meanwhile.
func TestFallbackLookOfBefore(t *testing.T) {
	inFallback(t, nil, func(t *testing.T, f *fallback, probes *script) {
		probes.find(foundWorks, foundNothing)
		probes.takes = defaultFallbackPace().timeout - 1
		f.learn(errNoTrailers)
		for byGRPC := 0; byGRPC == 0; byGRPC, _ = probes.made() {
			pass(time.Second)
		}
		f.register("")
		f.learn(errNoTrailers)
		pass(10 * time.Second)
		expectSpoken(t, f, ProtocolHTTP)
		expectProbes(t, probes, 1, 0)
	})
}

// unwatched is a registry that never answers.
type unwatched struct{ registry.ServiceRegistry }

func (unwatched) Watch(registry.Target) (registry.Watcher, error) { return unwatched{}, nil }
func (unwatched) Close() error                                    { return nil }
func (unwatched) Next(ctx context.Context) ([]registry.Instance, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// TestFallbackFollowsTheRegistry: an instance that the registry does not name is left in peace, and looked at again when it is back.
func TestFallbackFollowsTheRegistry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		config := DefaultClientConfig()
		config.Pool.DrainTimeout = time.Hour
		transport, err := NewTransport("a", unwatched{}, WithClientConfig(config))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = transport.Close() }()
		set := []registry.Instance{{ID: "a", Host: "192.0.2.1", Port: 1}}
		transport.adopt(set)
		f, probes := transport.view.Load().instances[0].fallback, &script{}
		f.ask = probes.ask
		f.learn(errNoTrailers)
		transport.adopt(nil)
		pass(30 * time.Minute)
		expectProbes(t, probes, 0, 0)
		transport.adopt(set)
		pass(72 * time.Second)
		expectProbes(t, probes, 1, 0)
		if err := transport.Close(); err != nil {
			t.Error(err)
		}
		pass(time.Hour)
		expectProbes(t, probes, 1, 0)
	})
}

// TestFallbackHintGRPC: soft evidence does not outweigh the word of an instance; proof does.
func TestFallbackHintGRPC(t *testing.T) {
	inFallback(t, map[string]string{"protocol": "grpc"}, func(t *testing.T, f *fallback, probes *script) {
		probes.find(foundFails, foundWorks)
		doubts(f, 100)
		expectProbes(t, probes, 0, 0)
		expectSpoken(t, f, ProtocolGRPC)
		f.learn(errNoTrailers)
		expectSpoken(t, f, ProtocolHTTP)
		probes.find(foundWorks, foundWorks)
		pass(72 * time.Second)
		expectSpoken(t, f, ProtocolGRPC)
	})
}

// TestFallbackRests: an instance that left is not probed, and one that came back is again.
func TestFallbackRests(t *testing.T) {
	inFallback(t, nil, func(t *testing.T, f *fallback, probes *script) {
		f.wake() // nothing was learned
		pass(time.Hour)
		expectProbes(t, probes, 0, 0)
		f.learn(errNoTrailers)
		f.rest()
		pass(time.Hour)
		expectProbes(t, probes, 0, 0)
		f.wake()
		pass(72 * time.Second)
		expectProbes(t, probes, 1, 0)
		probes.mu.Lock()
		probes.grpc, probes.takes = foundWorks, time.Minute
		probes.mu.Unlock()
		f.instance.close()
		pass(time.Hour)
		expectProbes(t, probes, 1, 0)
		expectSpoken(t, f, ProtocolHTTP)
	})
}

// TestFallbackClose cancels the probes under way, of either kind, waits for them, and lets none begin. A probe is bounded in time.
func TestFallbackClose(t *testing.T) {
	inFallback(t, nil, func(t *testing.T, f *fallback, probes *script) {
		probes.takes = time.Hour
		doubts(f, 1)
		pass(defaultFallbackPace().timeout)
		expectProbes(t, probes, 1, 0) // and it found nothing
		pass(defaultFallbackPace().pause)
		doubts(f, 1)
		expectProbes(t, probes, 2, 0)
		f.learn(errNoTrailers)
		began := time.Now()
		f.probes.close()
		f.probes.close()
		if took := time.Since(began); took != 0 {
			t.Errorf("close took %v", took)
		}
		pass(time.Hour)
		expectProbes(t, probes, 2, 0)
	})
}

// TestFallbackNotesUnlocked: a log handler may make calls by the transport whose changes it is told of.
func TestFallbackNotesUnlocked(t *testing.T) {
	inFallback(t, nil, func(t *testing.T, f *fallback, probes *script) {
		probes.find(foundNoHealth, foundNoHealth)
		told := 0
		f.instance.changes.logger = slog.New(callingHandler{Handler: slog.DiscardHandler, call: func() {
			told++
			if !f.mu.TryLock() {
				t.Error("a handler is called while the fallback is locked")
				return
			}
			f.mu.Unlock()
		}})
		doubts(f, decisiveDoubts) // is probed, and is tried
		f.trust()                 // is spoken to by gRPC again
		f.learn(errNoTrailers)
		probes.find(foundWorks, foundWorks)
		pass(2 * time.Minute) // speaks gRPC again
		if told != 5 {
			t.Errorf("told of %d changes, want 5: %+v", told, f.instance.changes.all())
		}
	})
}

// callingHandler is a log handler that calls.
type callingHandler struct {
	slog.Handler

	call func()
}

func (callingHandler) Enabled(context.Context, slog.Level) bool { return true }

func (h callingHandler) Handle(context.Context, slog.Record) error {
	h.call()
	return nil
}

// TestFallbackProbeWaits: a probe that waits for its turn is not made for an instance that was closed meanwhile.
func TestFallbackProbeWaits(t *testing.T) {
	inFallback(t, nil, func(t *testing.T, f *fallback, probes *script) {
		for range cap(f.probes.room) {
			f.probes.room <- struct{}{}
		}
		doubts(f, 1)
		f.close()
		<-f.probes.room
		synctest.Wait()
		expectProbes(t, probes, 0, 0)
	})
}

// TestFallbackProbeAfterTrust: that a call got a grpc-status during the probe, in the headers perhaps, does not keep its evidence from being told.
func TestFallbackProbeAfterTrust(t *testing.T) {
	inFallback(t, nil, func(t *testing.T, f *fallback, probes *script) {
		probes.find(foundFails, foundWorks)
		probes.takes = time.Second
		doubts(f, 1)
		f.trust()
		pass(2 * time.Second)
		expectSpoken(t, f, ProtocolHTTP)
		if last := f.instance.lastChange.Load().What; !strings.Contains(last, errNoTrailers.Error()) {
			t.Errorf("noted %q, without the evidence", last)
		}
	})
}

// TestFallbackBlocked: hard evidence that no call could follow up is not enough for good: Connect/JSON has to answer.
func TestFallbackBlocked(t *testing.T) {
	for _, answers := range []bool{true, false} {
		inFallback(t, nil, func(t *testing.T, f *fallback, _ *script) {
			f.blocked(errNoTrailers)
			expectSpoken(t, f, ProtocolHTTP)
			f.tried(answers, errors.New("404"))
			if answers {
				expectSpoken(t, f, ProtocolHTTP)
				if f.trial.Load() {
					t.Error("still on trial")
				}
				return
			}
			expectSpoken(t, f, ProtocolGRPC)
			f.blocked(errNoTrailers)
			expectSpoken(t, f, ProtocolGRPC) // for a while
			pass(time.Minute)
			f.blocked(errNoTrailers)
			expectSpoken(t, f, ProtocolHTTP)
		})
	}
}
