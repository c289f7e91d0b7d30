package resilience

import (
	"sync"
	"time"

	"github.com/failsafe-go/failsafe-go/adaptivethrottler"
)

// ShedderConfig configures [NewShedder]. All fields are required.
type ShedderConfig struct {
	// FailureRate is the share of calls out of time above which load is shed; below 1.
	FailureRate float64
	// MinCalls is how many calls the share needs to mean anything.
	MinCalls uint
	// Window is how long a call counts, to a twentieth, and for how long nothing must have been rejected for shedding to end.
	Window time.Duration
	// Least is how many calls in flight are never too many: one for each processor, of which calls that compute make full use.
	Least int
}

// Shedder bounds the calls that a server works on at a time, while it is overloaded and only then.
//
// The evidence of overload is calls that run out of their time: their work was for nothing. Nothing else is: not an application's errors, which
// are answers, nor a rise in latency, which has other reasons; nor a call with less time than any of its method takes, which no server could have
// served. failsafe-go's adaptive throttler judges the evidence (it is the one of https://sre.google/sre-book/handling-overload/). What then limits
// the load is no rate of rejections but a bound on the calls in flight, which follows at once what the server gets done, also where each call takes
// longer than the one before. It is found as TCP finds its window:
//
//	cut      to half of what is in flight, and of what the server can finish within the time that calls have (Little's law), whenever the calls
//	         admitted since the last cut run out of time too
//	give up  if they do as often as before the cut though most are in time: those that are not, are not for want of the server's
//	grow     by a twentieth at a time, while they do not and others are rejected; faster beyond what failed before
//	end      once nothing was rejected for the window
//
// Having given up, it has no limit for the window, and twice as long each time that it has to again, as long as most calls are in time.
//
// Safe for concurrent use. It starts no goroutine and allocates nothing per call.
type Shedder struct {
	throttler adaptivethrottler.AdaptiveThrottler[any]
	config    ShedderConfig
	began     time.Time

	mu       sync.Mutex
	inFlight int
	due      dueCalls
	done     peakRate // of calls in time
	limit    limit
}

// NewShedder returns a shedder that admits all calls until there is evidence.
func NewShedder(config ShedderConfig) *Shedder {
	return &Shedder{
		// The window consists of twenty slices, none of which may be empty.
		throttler: adaptivethrottler.NewBuilder[any]().
			WithFailureRateThreshold(config.FailureRate, config.MinCalls, max(config.Window, 20*time.Nanosecond)).Build(),
		config: config,
		began:  time.Now(),
		limit:  limit{least: config.Least},
	}
}

// Outcome is what the end of a call tells of the server's load.
type Outcome int

const (
	// Unknown tells nothing, such as the end of a call that its caller gave up.
	Unknown Outcome = iota
	// InTime is the end of a call that was answered before its deadline.
	InTime
	// ErrorInTime is the same with an error, which says nothing of how long a success takes.
	ErrorInTime
	// OutOfTime is the end of a call after its deadline.
	OutOfTime
)

// Permit lets one call in. Each is ended exactly once. The zero Permit is none.
type Permit struct {
	shedder    *Shedder
	method     *Method
	admitted   time.Duration
	waited     time.Duration // for the caller
	allowed    time.Duration // the time that the call has; 0 before it begins, and if it has no deadline
	slot       int64         // where it is among the due calls
	generation int           // of the limit that it was admitted under
	known      bool          // whether any of its method was in time before it began
}

// Given reports whether it is one.
func (p *Permit) Given() bool { return p.shedder != nil }

// Admit reports whether the server should take on a call of a method, and if so counts it in until the permit is ended.
func (s *Shedder) Admit(method *Method) (Permit, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Since(s.began)
	s.look(now)
	if s.limit.reached(s.inFlight) {
		s.limit.reject(now)
		return Permit{}, false
	}
	s.inFlight++
	return Permit{shedder: s, method: method, admitted: now, generation: s.limit.generation, slot: untracked}, true
}

// Begin says that the server has all it needs to serve the call, for which it has waited so long since the call was admitted: that is none of the
// time that the call has. It is called at most once. The zero deadline is none.
func (p *Permit) Begin(waited time.Duration, deadline time.Time) {
	s := p.shedder
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Since(s.began)
	s.look(now)
	p.waited, p.known = waited, p.method.known()
	if deadline.IsZero() {
		return
	}
	due := max(now, deadline.Sub(s.began))
	p.allowed = due - p.admitted - waited
	if due > now && !p.method.hopeless(p.allowed) {
		p.slot = s.due.add(due, p.late())
	}
}

// current reports whether the call was admitted under the limit in force, or the lack of one.
func (p *Permit) current() bool { return p.generation == p.shedder.limit.generation }

// late is how the call counts if it runs out of time.
func (p *Permit) late() lateCalls {
	late := lateCalls{calls: 1, allowed: p.allowed}
	if p.current() {
		if late.current = 1; p.known {
			late.known = 1
		}
	}
	return late
}

// End ends the call. A call that was still at work when its time ran out was counted as such then, whatever the outcome says now.
func (p *Permit) End(outcome Outcome) {
	s := p.shedder
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Since(s.began)
	s.look(now)
	s.inFlight--
	counted := !s.due.remove(p.slot, p.late())
	switch {
	case counted || outcome == Unknown:
	case outcome == OutOfTime:
		if !p.method.hopeless(p.allowed) {
			s.record(now, p.late())
		}
	default:
		if outcome == InTime {
			p.method.succeeded(now, now-p.admitted-p.waited)
		}
		s.throttler.RecordSuccess()
		s.done.add(now)
		if p.current() {
			s.limit.inTime++
		}
	}
}

// Load returns the number of calls in flight, and the bound on it, 0 while there is none.
func (s *Shedder) Load() (inFlight, limit int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.look(time.Since(s.began))
	return s.inFlight, s.limit.calls
}

// look notices what has happened by the mere passing of time.
func (s *Shedder) look(now time.Duration) {
	if late := s.due.sweep(now); late.calls > 0 {
		s.record(now, late)
	}
	switch s.limit.adapt(now, s.config) {
	case limitStands:
	case limitTooHigh:
		s.cut(now)
	case limitNeedless:
		s.limit.end()
		s.due.begin()
	}
}

// record notes calls out of time, and acts if they are too many.
func (s *Shedder) record(now time.Duration, late lateCalls) {
	for range late.calls {
		s.throttler.RecordFailure()
	}
	s.limit.late(late)
	if s.limit.calls > 0 {
		if s.limit.failing(s.config.FailureRate, int(s.config.MinCalls)) {
			s.cut(now)
		}
		return
	}
	if now < s.limit.tolerant {
		return
	}
	// Its rate is above nothing once too many fail. It is brought up to date only when a permit is asked for.
	s.throttler.TryAcquirePermit()
	if s.throttler.RejectionRate() > 0 {
		s.cut(now)
	}
}

// cut lowers the limit, or begins to have one, or gives it up. The calls in flight then say nothing of the new one.
func (s *Shedder) cut(now time.Duration) {
	if s.limit.vain() {
		s.limit.giveUp(now, s.config.Window)
	} else {
		s.limit.cut(now, s.inFlight, s.done.perSecond(now))
	}
	s.due.begin()
}
