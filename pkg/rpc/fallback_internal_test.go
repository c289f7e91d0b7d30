package rpc

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	grpcclient "github.com/0x1d/goplt/internal/services/grpc/client"
)

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
		{"neither has health", foundStatus, foundAnswer, 1, ProtocolGRPC},
		{"neither has health, nor a grpc-status", foundAnswer, foundAnswer, 1, ProtocolGRPC},
		{"no health by gRPC, and Connect works", foundStatus, foundWorks, 1, ProtocolGRPC},
		{"gRPC fails, no health by Connect", foundFails, foundAnswer, 1, ProtocolGRPC},
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
		probes.find(foundStatus, foundAnswer)
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
		if !f.is(stateTrial) {
			t.Fatal("learned before anything answered")
		}
		f.tried(true, nil, time.Now())
		expectSpoken(t, f, ProtocolHTTP)
		if f.is(stateTrial) {
			t.Error("still on trial")
		}
	})
}

// TestFallbackTrial ends with the first answer, or with the first call that has none, or with a grpc-status.
func TestFallbackTrial(t *testing.T) {
	inFallback(t, nil, func(t *testing.T, f *fallback, probes *script) {
		probes.find(foundStatus, foundAnswer)
		doubts(f, decisiveDoubts)
		expectSpoken(t, f, ProtocolHTTP)
		f.tried(false, errors.New("404"), time.Now())
		f.tried(false, errors.New("404"), time.Now()) // of another call
		expectSpoken(t, f, ProtocolGRPC)
		doubts(f, 100)
		pass(50 * time.Second)
		doubts(f, 100)
		expectSpoken(t, f, ProtocolGRPC) // for a while
		expectProbes(t, probes, 1, 1)
		pass(10 * time.Second)
		doubts(f, decisiveDoubts)
		expectSpoken(t, f, ProtocolHTTP)
		f.trust(time.Now())
		expectSpoken(t, f, ProtocolGRPC)
		if f.is(stateTrial) || f.suspicion.doubts != 0 {
			t.Error("still on trial")
		}
	})
}

// TestFallbackAnsweredReplay: an idempotent call that Connect/JSON answered needs no trial.
func TestFallbackAnsweredReplay(t *testing.T) {
	inFallback(t, nil, func(t *testing.T, f *fallback, probes *script) {
		probes.find(foundStatus, foundAnswer)
		for number := range decisiveDoubts {
			expectSpoken(t, f, ProtocolGRPC)
			doubts(f, 1)
			if number < decisiveDoubts-1 {
				f.tried(true, nil, time.Now())
			}
		}
		expectSpoken(t, f, ProtocolHTTP)
		if f.is(stateTrial) {
			t.Error("on trial, though Connect/JSON has answered")
		}
	})
}

// TestFallbackHintGRPC: soft evidence does not outweigh the word of an instance; proof does.
func TestFallbackHintGRPC(t *testing.T) {
	inFallback(t, map[string]string{"protocol": "grpc"}, func(t *testing.T, f *fallback, probes *script) {
		probes.find(foundFails, foundWorks)
		doubts(f, 100)
		expectProbes(t, probes, 0, 0)
		expectSpoken(t, f, ProtocolGRPC)
		f.learn(errNoTrailers, time.Now())
		expectSpoken(t, f, ProtocolHTTP)
		probes.find(foundWorks, foundWorks)
		pass(72 * time.Second)
		expectSpoken(t, f, ProtocolGRPC)
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
		f.learn(errNoTrailers, time.Now())
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
		probes.find(foundStatus, foundAnswer)
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
		f.trust(time.Now())       // is spoken to by gRPC again
		f.learn(errNoTrailers, time.Now())
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
		f.rest()
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
		f.trust(time.Now())
		pass(2 * time.Second)
		expectSpoken(t, f, ProtocolHTTP)
		if last := f.instance.lastChange.Load().What; !strings.Contains(last, errNoTrailers.Error()) {
			t.Errorf("noted %q, without the evidence", last)
		}
	})
}

// TestFallbackUntoldOfBefore: that a probe could not tell what doubts are worth says nothing of those that began after gRPC had got through.
func TestFallbackUntoldOfBefore(t *testing.T) {
	inFallback(t, nil, func(t *testing.T, f *fallback, probes *script) {
		probes.find(foundStatus, foundAnswer)
		probes.takes = time.Second
		doubts(f, 1)
		f.trust(time.Now())
		pass(2 * time.Second)
		doubts(f, decisiveDoubts)
		expectSpoken(t, f, ProtocolGRPC)
		pass(3 * time.Second)
		doubts(f, decisiveDoubts)
		pass(2 * time.Second)
		expectSpoken(t, f, ProtocolHTTP)
		expectProbes(t, probes, 2, 2)
	})
}

// TestFallbackBlocked: hard evidence that no call could follow up is not enough for good: Connect/JSON has to answer.
func TestFallbackBlocked(t *testing.T) {
	for _, answers := range []bool{true, false} {
		inFallback(t, nil, func(t *testing.T, f *fallback, _ *script) {
			f.blocked(errNoTrailers, time.Now())
			expectSpoken(t, f, ProtocolHTTP)
			f.tried(answers, errors.New("404"), time.Now())
			if answers {
				expectSpoken(t, f, ProtocolHTTP)
				if f.is(stateTrial) {
					t.Error("still on trial")
				}
				return
			}
			expectSpoken(t, f, ProtocolGRPC)
			f.blocked(errNoTrailers, time.Now())
			expectSpoken(t, f, ProtocolGRPC) // for a while
			pass(time.Minute)
			f.blocked(errNoTrailers, time.Now())
			expectSpoken(t, f, ProtocolHTTP)
		})
	}
}
