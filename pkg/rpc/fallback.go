package rpc

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"time"

	grpcclient "github.com/0x1d/goplt/internal/services/grpc/client"
)

// fallback is by which protocol an instance is spoken to where the transport's is auto, and what of that is learned: from evidence in calls, and
// from probes on connections of their own. What a call shows, it tells by learn, blocked, doubt, trust and tried; none of them waits for anything.
//
//	gRPC ── learn: hard evidence, and Connect/JSON answered the same call ─────────────────────▶ HTTP
//	gRPC ── blocked: hard evidence, and the call cannot be made again ─▶ trial ────────────────▶ HTTP, or gRPC again
//	gRPC ── doubt: soft evidence ─▶ probe: gRPC fails, Connect/JSON works ────────────────────▶ HTTP
//	                                 probe cannot tell ─▶ decisiveDoubts in a row ─▶ trial ───▶ HTTP, or back to gRPC
//	HTTP ── every minute at first: a probe by gRPC brings a message and a trailer ─────────────▶ gRPC
//	any  ── a new registration, or another hint ──────────────────────────────────────────────▶ as the instance says
//
// What soft evidence shows is that gRPC is broken for a call, not for all of them. So the probe decides; and where the instance has no health service
// to probe, several calls in a row do, of which each began after the one before had failed, with no grpc-status in between: that is enough, as no
// gRPC call has then been seen to work at all. A wrong switch is safe in any case: each call goes by one protocol only, and it would have failed
// by the other. And it is not made unless Connect/JSON answers: it is on trial until it has.
type fallback struct {
	instance *instance
	probes   *fallbackProbes // nil if nothing is learned from soft evidence, nor unlearned
	// ask probes by a protocol over a connection of its own.
	ask func(ctx context.Context, by Protocol) (finding, error)

	// http is whether calls go by Connect/JSON now, and trial whether that is only to find out if it answers.
	http, trial atomic.Bool
	// doubts counts the pieces of soft evidence since gRPC last got through.
	doubts atomic.Int32

	mu           quietMutex
	hint         Protocol // what the instance says of itself; empty if nothing
	registration int      // how often it was told anew; what a probe found out before is void
	closed       bool

	probing   bool          // whether a probe is under way, because of a doubt
	notBefore time.Time     // when the next may begin
	pause     time.Duration // that it waits for
	doubted   time.Time     // when the latest doubt was counted
	evidence  error         // the latest doubt
	untold    bool          // whether a probe could not tell, since the doubts began
	answered  bool          // whether Connect/JSON answered, since the doubts began

	reprobe  *time.Timer // not nil while what was learned is to be looked at again
	interval time.Duration
}

// decisiveDoubts is how many calls in a row have to show that gRPC does not get through where a probe cannot tell.
const decisiveDoubts = 3

func newFallback(of *instance, hint Protocol, probes *fallbackProbes) *fallback {
	f := &fallback{instance: of, probes: probes, ask: of.askApart, hint: hint}
	f.http.Store(hint == ProtocolHTTP)
	return f
}

// noteLockedf notes a change.
func (f *fallback) noteLockedf(level slog.Level, format string, args ...any) {
	f.mu.later(f.instance.changes.rememberf(level, f.instance, format, args...))
}

// learn remembers that gRPC provably does not get through to the instance, of which its other protocol has answered.
func (f *fallback) learn(evidence error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.http.Load() || f.trial.Load() {
		f.learnLocked(evidence)
	}
}

func (f *fallback) learnLocked(evidence error) {
	f.settleLocked()
	f.pause, f.notBefore = 0, time.Time{}
	f.http.Store(true)
	f.noteLockedf(slog.LevelWarn, "is spoken to by Connect/JSON over HTTP/1.1, because gRPC does not get through: %v", evidence)
	f.instance.keepWarm(ProtocolAuto)
	if f.probes != nil && !f.closed {
		f.interval = f.probes.pace.again
		f.lookAgainLocked()
	}
}

// settleLocked forgets all doubts, and what came of them.
func (f *fallback) settleLocked() {
	f.trial.Store(false)
	f.doubts.Store(0)
	f.untold, f.answered, f.evidence, f.doubted = false, false, nil, time.Time{}
}

// doubt is told of soft evidence from an exchange by gRPC that began at began. The instance is then suspect and probed. An instance that says of
// itself that it speaks gRPC is not: its word outweighs a guess, though not the proof that learn is given.
func (f *fallback) doubt(evidence error, began time.Time) {
	if f.probes == nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.http.Load() || f.hint == ProtocolGRPC || f.closed {
		return
	}
	f.evidence = evidence
	if !began.Before(f.doubted) { // else it tells of the same moment as the doubt before
		f.doubts.Add(1)
		f.doubted = time.Now()
	}
	now := time.Now()
	if f.decideLocked() || f.probing || now.Before(f.notBefore) {
		return
	}
	if now.Sub(f.notBefore) > f.probes.pace.maxPause {
		f.pause = 0 // the doubts of before are long over
	}
	f.noteLockedf(slog.LevelInfo, "is probed, because gRPC may not get through: %v", evidence)
	f.probing = true
	registration := f.registration
	f.probes.begin(func() { f.probe(registration, evidence) })
}

// trust is told of a grpc-status: gRPC gets through.
func (f *fallback) trust() {
	if f.doubts.Load() == 0 {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.trial.Load() {
		f.http.Store(false)
		f.noteLockedf(slog.LevelInfo, "is spoken to by gRPC again, as it has answered with a grpc-status")
		f.instance.keepWarm(ProtocolAuto)
	}
	f.settleLocked()
}

// tried is told how a call by Connect/JSON ended that was made where gRPC may not get through.
func (f *fallback) tried(answered bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.doubts.Load() == 0: // settled meanwhile
	case answered && f.trial.Load():
		f.learnLocked(f.evidence)
	case answered:
		f.answered = true
		f.decideLocked()
	case f.trial.Load():
		f.settleLocked()
		f.http.Store(false)
		f.waitLocked(f.probes.pace.maxPause)
		f.noteLockedf(slog.LevelWarn, "is spoken to by gRPC again, as it does not answer to Connect/JSON either: %v", err)
		f.instance.keepWarm(ProtocolAuto)
	}
}

// decideLocked goes by what calls have shown, if a probe could not tell, and reports whether that was enough to go by.
func (f *fallback) decideLocked() bool {
	switch {
	case !f.untold || f.doubts.Load() < decisiveDoubts:
		return false
	case f.answered:
		f.learnLocked(f.evidence)
	default:
		f.tryLocked()
	}
	return true
}

func (f *fallback) tryLocked() {
	f.http.Store(true)
	f.trial.Store(true)
	f.noteLockedf(slog.LevelWarn, "is tried by Connect/JSON over HTTP/1.1, because gRPC does not get through: %v", f.evidence)
	f.instance.keepWarm(ProtocolAuto)
}

// blocked is told of hard evidence from an exchange that cannot be made again by Connect/JSON: whether that answers is for the next call to find out.
func (f *fallback) blocked(evidence error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.http.Load() || f.closed || time.Now().Before(f.notBefore) { // the last because Connect/JSON has not answered lately
		return
	}
	f.evidence = evidence
	f.doubts.Add(1)
	f.doubted = time.Now()
	f.tryLocked()
}

// probe finds out what a doubt is worth, unless the instance was closed, or registered anew, while the probe waited for its turn.
func (f *fallback) probe(registration int, evidence error) {
	if f.void(registration) {
		return
	}
	byGRPC, err := f.find(ProtocolGRPC)
	byHTTP := foundNothing
	if byGRPC == foundFails || byGRPC == foundNoHealth {
		byHTTP, _ = f.find(ProtocolHTTP)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.registration != registration {
		return
	}
	f.probing = false
	if f.http.Load() || f.closed || f.probes.ctx.Err() != nil {
		return
	}
	switch {
	case byGRPC == foundFails && byHTTP == foundWorks:
		f.learnLocked(fmt.Errorf("%w; and a probe found: %w", evidence, err))
		return
	case byGRPC == foundWorks:
		f.settleLocked() // whatever it was, it is not gRPC that does not get through
	case byHTTP == foundWorks || byHTTP == foundNoHealth:
		f.untold = f.doubts.Load() > 0
		f.answered = f.answered || byHTTP == foundWorks
		if f.decideLocked() {
			return
		}
	}
	f.waitLocked(max(f.probes.pace.pause, 2*f.pause))
}

// void reports whether nothing is to be found out any more for what a registration brought.
func (f *fallback) void(registration int) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.closed || f.registration != registration
}

// find probes by a protocol, for as long as that may take.
func (f *fallback) find(by Protocol) (finding, error) {
	ctx, cancel := context.WithTimeout(f.probes.ctx, f.probes.pace.timeout)
	defer cancel()
	return f.ask(ctx, by)
}

// waitLocked has the next probe wait.
func (f *fallback) waitLocked(pause time.Duration) {
	f.pause = min(pause, f.probes.pace.maxPause)
	f.notBefore = time.Now().Add(f.pause)
}

// lookAgainLocked has gRPC probed again after the interval.
func (f *fallback) lookAgainLocked() {
	f.stopLocked()
	spread := 1 + f.probes.pace.jitter*(2*rand.Float64()-1)
	registration := f.registration
	f.reprobe = time.AfterFunc(time.Duration(float64(f.interval)*spread), func() {
		f.probes.begin(func() { f.look(registration) })
	})
}

func (f *fallback) stopLocked() {
	if f.reprobe != nil {
		f.reprobe.Stop()
		f.reprobe = nil
	}
}

// look probes whether gRPC gets through again. Only a message and a trailer show that: an error in the headers alone has no trailers to lose. So an
// instance without health goes on by HTTP until it registers anew: its calls get through, and none is risked to find out more.
func (f *fallback) look(registration int) {
	found, _ := f.find(ProtocolGRPC)
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.registration != registration || f.reprobe == nil || f.probes.ctx.Err() != nil: // forgotten, or stopped
	case found == foundWorks:
		f.stopLocked()
		f.instance.grpc.pool.Renew() // connections of before may still go through what was in the way
		f.http.Store(false)
		f.noteLockedf(slog.LevelInfo, "speaks gRPC again: a probe brought a message and a trailer")
		f.instance.keepWarm(ProtocolAuto)
	default:
		f.interval = min(2*f.interval, f.probes.pace.longest)
		f.lookAgainLocked()
	}
}

// register takes over what a registration says of the instance's protocol, and forgets what was learned. It reports whether the instance is spoken to
// differently for that.
func (f *fallback) register(hint Protocol) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.registration++
	f.hint, f.probing = hint, false
	f.settleLocked()
	f.pause, f.notBefore = 0, time.Time{}
	f.stopLocked()
	return f.http.Swap(hint == ProtocolHTTP) != (hint == ProtocolHTTP)
}

// rest ends the looking again of an instance that the registry no longer names, and wake begins it anew.
func (f *fallback) rest() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stopLocked()
}

func (f *fallback) wake() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.probes != nil && !f.closed && f.http.Load() && !f.trial.Load() && f.hint != ProtocolHTTP {
		f.lookAgainLocked()
	}
}

// close has nothing be probed any more.
func (f *fallback) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	f.stopLocked()
}

// listen takes evidence from an exchange by gRPC that ended by err.
func (f *fallback) listen(shown grpcclient.Evidence, err error, began time.Time) {
	switch shown {
	case grpcclient.Works:
		f.trust()
	case grpcclient.Doubtful:
		f.doubt(err, began)
	case grpcclient.None, grpcclient.Blocked:
	}
}
