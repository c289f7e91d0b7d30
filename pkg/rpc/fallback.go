package rpc

import (
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/0x1d/goplt/internal/pool"
	grpcclient "github.com/0x1d/goplt/internal/services/grpc/client"
)

// fallback is by which protocol an instance is spoken to where the transport's is auto, and what of that is learned: from evidence in calls, and
// from probes on connections of their own. What a call shows, it tells by learn, blocked, doubt, trust and tried; none of them waits for anything.
//
//	gRPC, doubt ── learn: hard evidence, and Connect/JSON answered the same call ───▶ HTTP
//	gRPC, doubt ── blocked: hard evidence, and the call cannot be made again ───────▶ trial
//	gRPC ───────── doubt: soft evidence; a probe is made ───────────────────────────▶ doubt
//	doubt, trial ─ trust: a grpc-status ────────────────────────────────────────────▶ gRPC
//	doubt ──────── a probe finds that gRPC fails and Connect/JSON works ────────────▶ HTTP
//	doubt ──────── a probe cannot tell, and decisiveDoubts in a row ────────────────▶ trial; HTTP, if Connect/JSON has answered
//	trial ──────── tried: Connect/JSON answered, or did not ────────────────────────▶ HTTP, or gRPC
//	HTTP ───────── every minute at first, a probe: one disproves the evidence ──────▶ gRPC
//	any ────────── register: a new registration, or another hint ───────────────────▶ gRPC or HTTP, as it says
//
// What soft evidence shows is that gRPC is broken for a call, not for all of them. So the probe decides; and where the instance has no health service
// to probe, several calls in a row do, of which each began after the one before had failed, with no grpc-status in between: that is enough, as no
// gRPC call has then been seen to work at all. A wrong switch is safe in any case: each call goes by one protocol only, and it would have failed
// by the other. And it is not made unless Connect/JSON answers: it is on trial until it has.
//
// Evidence is of its time: what an exchange shows that began before the registration, or before gRPC was returned to, is void.
type fallback struct {
	probing // guarded by mu

	instance *instance
	probes   *fallbackProbes // nil if the transport's protocol is not auto, for then nothing is told
	state    atomic.Int32    // a fallbackState; set under mu

	mu         quietMutex
	hint       Protocol  // what the instance says of itself; empty if nothing
	resting    bool      // whether it is left in peace: the registry does not name it, or it is closed
	since      time.Time // from when on evidence counts; zero if all does
	suspicion  suspicion
	trialBegan time.Time
	noTrial    time.Time // until when there is none, as Connect/JSON has not answered
}

// fallbackState is by which protocol calls go, and why.
type fallbackState int32

const (
	stateGRPC  fallbackState = iota
	stateDoubt               // by gRPC, which may not get through
	stateTrial               // by Connect/JSON, to find out whether that answers
	stateHTTP                // by Connect/JSON
)

// suspicion is what speaks against gRPC since it last got through.
type suspicion struct {
	evidence error     // the latest
	until    finding   // the least that disproves it
	doubts   int       // how many calls in a row have shown soft evidence
	doubted  time.Time // when the latest of them was counted
	untold   bool      // whether a probe could not tell what the doubts are worth
	answered bool      // whether Connect/JSON has answered since they began
}

// decisiveDoubts is how many calls in a row have to show that gRPC does not get through where a probe cannot tell.
const decisiveDoubts = 3

func newFallback(of *instance, hint Protocol, probes *fallbackProbes) *fallback {
	f := &fallback{instance: of, probes: probes, hint: hint, probing: probing{ask: of.askApart, asking: make(chan struct{}, 1)}}
	f.state.Store(int32(stateOf(hint)))
	return f
}

// stateOf is where an instance begins that says of itself what hint is.
func stateOf(hint Protocol) fallbackState {
	if hint == ProtocolHTTP {
		return stateHTTP
	}
	return stateGRPC
}

// byHTTP reports whether calls go by Connect/JSON.
func (f *fallback) byHTTP() bool { return fallbackState(f.state.Load()) >= stateTrial }

func (f *fallback) is(state fallbackState) bool { return fallbackState(f.state.Load()) == state }

// register takes over what a registration says of the instance's protocol, and forgets what was learned. It reports whether the instance is spoken to
// differently for that.
func (f *fallback) register(hint Protocol) (differently bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	before := f.byHTTP()
	f.enterLocked(stateOf(hint))
	f.hint, f.noTrial, f.notBefore, f.pause, f.interval = hint, time.Time{}, time.Time{}, 0, 0
	return before != f.byHTTP()
}

// learn is told of hard evidence from an exchange by gRPC that began at began, after Connect/JSON has answered the same call.
func (f *fallback) learn(evidence error, began time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.is(stateHTTP) || f.voidLocked(began) {
		return
	}
	f.suspectLocked(evidence, disproof(evidence))
	f.learnLocked()
}

// blocked is told of hard evidence from an exchange that cannot be made again by Connect/JSON: whether that answers is for the next call to find out.
func (f *fallback) blocked(evidence error, began time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.byHTTP() || f.resting || f.voidLocked(began) || time.Now().Before(f.noTrial) {
		return
	}
	f.suspectLocked(evidence, disproof(evidence))
	f.tryLocked()
}

// doubt is told of soft evidence. The instance is then suspect and probed. An instance that says of itself that it speaks gRPC is not: its word
// outweighs a guess, though not the proof that learn is given.
func (f *fallback) doubt(evidence error, began time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.byHTTP() || f.hint == ProtocolGRPC || f.resting || f.voidLocked(began) {
		return
	}
	f.state.Store(int32(stateDoubt))
	f.suspectLocked(evidence, foundWorks)
	if !began.Before(f.suspicion.doubted) { // else it tells of the same moment as the doubt before
		f.suspicion.doubts++
		f.suspicion.doubted = time.Now()
	}
	if !f.decideLocked() {
		f.probeLocked()
	}
}

// trust is told of a grpc-status: gRPC gets through.
func (f *fallback) trust(began time.Time) {
	if f.is(stateGRPC) || f.is(stateHTTP) {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.voidLocked(began):
	case f.is(stateDoubt):
		f.settleLocked()
	case f.is(stateTrial):
		f.moveLockedf(stateGRPC, slog.LevelInfo, "is spoken to by gRPC again, as it has answered with a grpc-status")
	}
}

// tried is told how an exchange by Connect/JSON ended. It counts where gRPC may not get through; in a trial, only if it began in it.
func (f *fallback) tried(answered bool, err error, began time.Time) {
	if f.is(stateGRPC) || f.is(stateHTTP) {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.voidLocked(began):
	case f.is(stateDoubt):
		f.suspicion.answered = f.suspicion.answered || answered
		f.decideLocked()
	case !f.is(stateTrial) || began.Before(f.trialBegan):
	case answered:
		f.learnLocked()
	default:
		f.moveLockedf(stateGRPC, slog.LevelWarn, "is spoken to by gRPC again, as it does not answer to Connect/JSON either: %v", err)
		f.waitLocked(f.probes.pace.maxPause)
		f.noTrial = f.notBefore
	}
}

// listen takes evidence from an exchange by gRPC that began at began and ended by err.
func (f *fallback) listen(shown grpcclient.Evidence, err error, began time.Time) {
	switch shown {
	case grpcclient.Works:
		f.trust(began)
	case grpcclient.Doubtful:
		f.doubt(err, began)
	case grpcclient.None, grpcclient.Blocked:
	}
}

// rest leaves an instance in peace that the registry no longer names, or that is closed. wake ends that.
func (f *fallback) rest() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.resting = true
	f.stopLocked()
}

func (f *fallback) wake() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.resting = false
	if f.is(stateHTTP) {
		f.lookAgainLocked()
	}
}

func (f *fallback) voidLocked(began time.Time) bool { return began.Before(f.since) }

func (f *fallback) suspectLocked(evidence error, until finding) {
	f.suspicion.evidence, f.suspicion.until = evidence, until
}

// disproof returns what has to be found to disprove hard evidence.
func disproof(evidence error) finding {
	if errors.Is(evidence, pool.ErrNotHTTP2) {
		return foundAnswer
	}
	return foundStatus
}

// settleLocked ends doubts: gRPC gets through.
func (f *fallback) settleLocked() {
	f.state.Store(int32(stateGRPC))
	f.suspicion = suspicion{}
}

// decideLocked goes by what calls have shown, if a probe could not tell, and reports whether that was enough to go by.
func (f *fallback) decideLocked() bool {
	switch {
	case !f.suspicion.untold || f.suspicion.doubts < decisiveDoubts:
		return false
	case f.suspicion.answered:
		f.learnLocked()
	default:
		f.tryLocked()
	}
	return true
}

func (f *fallback) tryLocked() {
	f.moveLockedf(stateTrial, slog.LevelWarn, "is tried by Connect/JSON over HTTP/1.1, because gRPC does not get through: %v", f.suspicion.evidence)
}

func (f *fallback) learnLocked() {
	if f.interval > 0 && time.Since(f.since) < f.interval { // it was not worth going back
		f.interval = min(2*f.interval, f.probes.pace.longest)
	} else {
		f.interval = f.probes.pace.again
	}
	f.pause, f.notBefore = 0, time.Time{}
	f.moveLockedf(stateHTTP, slog.LevelWarn,
		"is spoken to by Connect/JSON over HTTP/1.1, because gRPC does not get through: %v", f.suspicion.evidence)
	f.lookAgainLocked()
}

// moveLockedf enters a state in which the instance is spoken to differently, and notes why: first, so that whoever sees the state finds the reason.
func (f *fallback) moveLockedf(to fallbackState, level slog.Level, format string, args ...any) {
	f.noteLockedf(level, format, args...)
	f.enterLocked(to)
	f.mu.later(func() { f.instance.keepWarm(ProtocolAuto) })
}

// enterLocked enters a state. What is being found out is not to be known any more.
func (f *fallback) enterLocked(state fallbackState) {
	f.stopLocked()
	f.state.Store(int32(state))
	switch state {
	case stateGRPC:
		f.since, f.suspicion = time.Now(), suspicion{}
	case stateTrial:
		f.trialBegan = time.Now()
	case stateDoubt, stateHTTP:
	}
}

// noteLockedf notes a change.
func (f *fallback) noteLockedf(level slog.Level, format string, args ...any) {
	f.mu.later(f.instance.changes.rememberf(level, f.instance, format, args...))
}
