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
// are answers, nor a rise in latency, which has other reasons. failsafe-go's adaptive throttler judges the evidence (it is the one of
// https://sre.google/sre-book/handling-overload/). What then limits the load is no rate of rejections but a bound on the calls in flight, which
// follows at once what the server gets done, also where each call takes longer than the one before. It is found as TCP finds its window:
//
//	cut    to half of what is in flight, and of what the server can finish within the time that calls have (Little's law), whenever the calls
//	       admitted since the last cut run out of time too
//	grow   by a twentieth at a time, while they do not and others are rejected; faster beyond what failed before
//	end    once nothing was rejected for the window
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
	// InTime is the end of a call that was answered before its deadline, with whatever answer.
	InTime
	// OutOfTime is the end of a call after its deadline.
	OutOfTime
)

// Permit lets one call in. Each is ended exactly once. The zero Permit is none.
type Permit struct {
	shedder    *Shedder
	allowed    time.Duration // the time that the call has; 0 before it begins, and if it has no deadline
	slot       int64         // where it is among the due calls
	generation int           // of the limit that it was admitted under
}

// Admit reports whether the server should take on a call, and if so counts it in until the permit is ended.
func (s *Shedder) Admit() (Permit, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Since(s.began)
	s.look(now)
	if s.limit.reached(s.inFlight) {
		s.limit.reject(now)
		return Permit{}, false
	}
	s.inFlight++
	return Permit{shedder: s, generation: s.limit.generation, slot: untracked}, true
}

// Begin says that the server has all it needs to serve the call, which has from now on until its deadline. It is called once, and not for a call
// without a deadline.
func (p *Permit) Begin(deadline time.Time) {
	s := p.shedder
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Since(s.began)
	s.look(now)
	due := deadline.Sub(s.began) // which is no less than the most negative duration, and no more than the most positive one
	if due > now {
		p.allowed = due - now
		p.slot = s.due.add(due, p.allowed, p.generation == s.limit.generation)
	}
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
	current := p.generation == s.limit.generation
	counted := !s.due.remove(p.slot, p.allowed, current)
	switch {
	case counted || outcome == Unknown:
	case outcome == OutOfTime:
		late := lateCalls{calls: 1, allowed: p.allowed}
		if current {
			late.current = 1
		}
		s.record(now, late)
	default:
		s.throttler.RecordSuccess()
		s.done.add(now)
		if current {
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
	// Its rate is above nothing once too many fail. It is brought up to date only when a permit is asked for.
	s.throttler.TryAcquirePermit()
	if s.throttler.RejectionRate() > 0 {
		s.cut(now)
	}
}

// cut lowers the limit, or begins to have one. The calls in flight then say nothing of the new one.
func (s *Shedder) cut(now time.Duration) {
	s.limit.cut(now, s.inFlight, s.done.perSecond())
	s.due.begin()
}
