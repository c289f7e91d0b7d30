package rpc

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/0x1d/goplt/internal/pool"
)

// tell tells of all that an exchange may show, as of one that began at began.
func tell(f *fallback, began time.Time) {
	for range 2 * decisiveDoubts {
		f.doubt(errNoTrailers, began)
	}
	f.blocked(errNoTrailers, began)
	f.learn(errNoTrailers, began)
	f.tried(true, nil, began)
	f.tried(false, errNoTrailers, began)
	f.trust(began)
}

// TestFallbackEvidenceOfBefore: what an exchange shows says nothing of a registration that came while it was under way.
func TestFallbackEvidenceOfBefore(t *testing.T) {
	inFallback(t, nil, func(t *testing.T, f *fallback, probes *script) {
		probes.find(foundStatus, foundAnswer)
		began := time.Now()
		pass(time.Second)
		f.register("")
		tell(f, began)
		pass(time.Hour)
		expectSpoken(t, f, ProtocolGRPC)
		expectProbes(t, probes, 0, 0)

		doubts(f, decisiveDoubts) // of its own
		expectProbes(t, probes, 1, 1)
		expectSpoken(t, f, ProtocolHTTP)
		tell(f, began)
		if !f.is(stateTrial) {
			t.Error("the trial was ended by what was before it")
		}
		f.register(ProtocolHTTP)
		tell(f, began)
		f.register("")
		expectSpoken(t, f, ProtocolGRPC)
		doubts(f, 1)
		f.trust(began)
		if !f.is(stateDoubt) {
			t.Error("a doubt was settled by what was before it")
		}
	})
}

// TestFallbackEvidenceOfOldConnections: what an exchange shows that went through what was in the way says nothing once gRPC gets through again.
func TestFallbackEvidenceOfOldConnections(t *testing.T) {
	inFallback(t, nil, func(t *testing.T, f *fallback, probes *script) {
		began := time.Now()
		pass(time.Second)
		f.learn(errNoTrailers, time.Now())
		probes.find(foundWorks, foundNothing)
		pass(72 * time.Second)
		expectSpoken(t, f, ProtocolGRPC)
		tell(f, began)
		pass(time.Hour)
		expectSpoken(t, f, ProtocolGRPC)
		expectProbes(t, probes, 1, 0)

		probes.find(foundStatus, foundAnswer)
		doubts(f, 1)
		f.tried(true, nil, began)
		doubts(f, decisiveDoubts)
		if !f.is(stateTrial) {
			t.Error("not on trial, though Connect/JSON has not answered of late")
		}
	})
}

// TestFallbackOutcomesOfBefore: a trial is not ended by a call that began before it, however that ended.
func TestFallbackOutcomesOfBefore(t *testing.T) {
	for _, answered := range []bool{true, false} {
		inFallback(t, nil, func(t *testing.T, f *fallback, _ *script) {
			before := time.Now()
			pass(time.Second)
			f.blocked(errNoTrailers, before) // it is the moment of the trial that counts, not that of its evidence
			f.tried(answered, errNoTrailers, before)
			if !f.is(stateTrial) {
				t.Errorf("answered %t: ended the trial", answered)
			}
			f.tried(answered, errNoTrailers, time.Now())
			if f.is(stateTrial) || f.byHTTP() != answered {
				t.Errorf("answered %t: still on trial, or not spoken to accordingly", answered)
			}
		})
	}
}

// TestFallbackDisproof: what is learned from evidence is forgotten at the first look that disproves it, and no sooner.
func TestFallbackDisproof(t *testing.T) {
	noHTTP2 := fmt.Errorf("dial: %w: no SETTINGS within 2s", pool.ErrNotHTTP2)
	for _, row := range []struct {
		name  string
		teach func(f *fallback, probes *script)
		until finding
	}{
		{"no HTTP/2", func(f *fallback, _ *script) { f.learn(noHTTP2, time.Now()) }, foundAnswer},
		{"no HTTP/2, by a trial", func(f *fallback, _ *script) {
			f.blocked(noHTTP2, time.Now())
			f.tried(true, nil, time.Now())
		}, foundAnswer},
		{"refused", func(f *fallback, _ *script) { f.learn(errNoTrailers, time.Now()) }, foundStatus},
		{"refused, by a trial", func(f *fallback, _ *script) {
			f.blocked(errNoTrailers, time.Now())
			f.tried(true, nil, time.Now())
		}, foundStatus},
		{"incomplete, by a probe", func(f *fallback, probes *script) {
			probes.find(foundFails, foundWorks)
			doubts(f, 1)
		}, foundWorks},
		{"incomplete, by a trial", func(f *fallback, probes *script) {
			probes.find(foundStatus, foundAnswer)
			doubts(f, decisiveDoubts)
			f.tried(true, nil, time.Now())
		}, foundWorks},
		{"incomplete, but not for certain, and then no HTTP/2", func(f *fallback, _ *script) {
			doubts(f, 1)
			f.learn(noHTTP2, time.Now())
		}, foundAnswer},
	} {
		for _, found := range []finding{foundNothing, foundFails, foundAnswer, foundStatus, foundWorks} {
			t.Run(fmt.Sprintf("%s: %v", row.name, found), func(t *testing.T) {
				inFallback(t, nil, func(t *testing.T, f *fallback, probes *script) {
					row.teach(f, probes)
					expectSpoken(t, f, ProtocolHTTP)
					probes.find(found, foundWorks)
					want := ProtocolHTTP
					if found >= row.until {
						want = ProtocolGRPC
					}
					pass(47 * time.Second)
					expectSpoken(t, f, ProtocolHTTP)
					pass(25 * time.Second) // 60 s ± 20 %
					expectSpoken(t, f, want)
					if got := f.instance.lastChange.Load().What; want == ProtocolGRPC && got != "speaks gRPC again: a probe "+found.String() {
						t.Errorf("last change %q", got)
					}
				})
			})
		}
	}
}

// TestFallbackStopsProbes: a probe under way is ended when what it finds out is not to be known any more.
func TestFallbackStopsProbes(t *testing.T) {
	for name, meanwhile := range map[string]func(f *fallback){
		"registers anew": func(f *fallback) { f.register("") },
		"leaves":         (*fallback).rest,
		"is closed":      func(f *fallback) { f.instance.close() },
		"is learned of":  func(f *fallback) { f.learn(errNoTrailers, time.Now()) },
		"is on trial":    func(f *fallback) { f.blocked(errNoTrailers, time.Now()) },
	} {
		t.Run(name, func(t *testing.T) {
			inFallback(t, nil, func(t *testing.T, f *fallback, probes *script) {
				probes.find(foundFails, foundWorks)
				probes.takes = time.Second
				doubts(f, 1)
				if probes.now != 1 {
					t.Fatalf("%d probes under way", probes.now)
				}
				meanwhile(f)
				synctest.Wait()
				if probes.now != 0 || probes.stopped != 1 {
					t.Errorf("%d probes under way, %d stopped", probes.now, probes.stopped)
				}
				expectProbes(t, probes, 1, 0)
			})
		})
	}
}

// TestFallbackProbesInTurn: a probe begins when the one before, of an earlier registration, has ended.
func TestFallbackProbesInTurn(t *testing.T) {
	inFallback(t, nil, func(t *testing.T, f *fallback, probes *script) {
		probes.find(foundFails, foundWorks)
		probes.takes, probes.lingers = time.Second, 3*time.Second
		for range 5 {
			doubts(f, 1)
			f.register("")
		}
		doubts(f, 1)
		pass(2 * time.Second)
		expectProbes(t, probes, 1, 0) // the first takes its time to end
		pass(10 * time.Second)
		expectProbes(t, probes, 2, 1) // and those that were stopped meanwhile were not made
		expectSpoken(t, f, ProtocolHTTP)
		if probes.most != 1 {
			t.Errorf("%d probes at a time", probes.most)
		}
	})
}

// TestFallbackRestingIsNotProbed: what the calls show that an instance finishes when it has left has nothing be probed, until it is back.
func TestFallbackRestingIsNotProbed(t *testing.T) {
	inFallback(t, nil, func(t *testing.T, f *fallback, probes *script) {
		probes.find(foundFails, foundWorks)
		f.rest()
		doubts(f, 2*decisiveDoubts)
		f.blocked(errNoTrailers, time.Now())
		expectSpoken(t, f, ProtocolGRPC)
		if all := f.instance.changes.all(); len(all) > 0 {
			t.Errorf("changes %+v", all)
		}
		f.learn(errNoTrailers, time.Now())
		expectSpoken(t, f, ProtocolHTTP)
		pass(time.Hour)
		expectProbes(t, probes, 0, 0)
		probes.find(foundWorks, foundWorks)
		f.wake()
		pass(72 * time.Second)
		expectProbes(t, probes, 1, 0)
		expectSpoken(t, f, ProtocolGRPC)
	})
}

// TestFallbackBlockedDespitePause: that a probe has told nothing is no reason to go on by gRPC where hard evidence shows that it does not get through.
func TestFallbackBlockedDespitePause(t *testing.T) {
	inFallback(t, nil, func(t *testing.T, f *fallback, _ *script) {
		doubts(f, 1)
		f.blocked(errNoTrailers, time.Now())
		if !f.is(stateTrial) {
			t.Error("not on trial")
		}
	})
}

// TestFallbackUnderAll: whatever is told in whatever order, there is one probe at a time, none of a resting instance, and what remains is a state
// that can be left.
func TestFallbackUnderAll(t *testing.T) {
	for seed := range uint64(20) {
		inFallback(t, nil, func(t *testing.T, f *fallback, probes *script) {
			var all sync.WaitGroup
			for worker := range uint64(6) {
				all.Go(func() {
					random := rand.New(rand.NewPCG(seed, worker))
					for range 300 {
						began := time.Now()
						time.Sleep(time.Duration(random.Int64N(int64(3 * time.Second)))) //nolint:forbidigo // by the clock of the bubble
						switch random.IntN(20) {
						case 0:
							f.register("")
						case 1:
							f.rest()
						case 2, 3:
							f.wake()
						case 4:
							f.learn(errNoTrailers, began)
						case 5:
							f.blocked(errNoTrailers, began)
						case 6:
							f.trust(began)
						case 7, 8:
							f.tried(random.IntN(2) == 0, errors.New("404"), began)
						case 9:
							found := []finding{foundNothing, foundFails, foundAnswer, foundStatus, foundWorks}
							probes.find(found[random.IntN(len(found))], found[random.IntN(len(found))])
							probes.mu.Lock()
							probes.stubborn = random.IntN(2) == 0
							probes.takes, probes.lingers = time.Duration(random.Int64N(int64(6*time.Second))), time.Duration(random.Int64N(int64(time.Second)))
							probes.mu.Unlock()
						default:
							f.doubt(errNoTrailers, began)
						}
					}
				})
			}
			all.Wait()
			f.rest()
			pass(time.Minute)
			if probes.most != 1 {
				t.Errorf("seed %d: %d probes at a time", seed, probes.most)
			}
			byGRPC, byHTTP := probes.made()
			pass(time.Hour)
			expectProbes(t, probes, byGRPC, byHTTP)
			f.wake()
			probes.mu.Lock()
			probes.takes, probes.grpc = 0, foundWorks
			probes.mu.Unlock()
			f.learn(errNoTrailers, time.Now())
			pass(20 * time.Minute)
			f.tried(false, errNoTrailers, time.Now())
			pass(20 * time.Minute)
			expectSpoken(t, f, ProtocolGRPC)
		})
	}
}
