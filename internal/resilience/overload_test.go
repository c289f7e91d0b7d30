package resilience_test

import (
	"container/heap"
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// What follows are servers that can be overloaded, in virtual time: each serves a call within its context's time, or returns its error.
type server func(ctx context.Context) error

// lengths draws how long calls take, around a mean, from a fixed seed.
func lengths(mean time.Duration) func() time.Duration {
	var mu sync.Mutex
	random := rand.New(rand.NewPCG(1, 2))
	return func() time.Duration {
		mu.Lock()
		defer mu.Unlock()
		return time.Duration(float64(mean) * (0.5 + random.Float64()))
	}
}

// queueing is a server with so many workers, such as the connections of a database, for which calls wait in line. Who is attentive leaves the
// line when its time is over.
func queueing(workers int, length func() time.Duration, attentive bool) server {
	free := make(chan struct{}, workers)
	return func(ctx context.Context) error {
		gone := ctx.Done()
		if !attentive {
			gone = nil
		}
		select {
		case free <- struct{}{}:
		case <-gone:
			return ctx.Err()
		}
		defer func() { <-free }()
		pass(length())
		return ctx.Err()
	}
}

// sharing is a server that computes: its processors work on all calls at a time, so that each of many takes long, and no call looks at its
// context.
func sharing(processors int, length func() time.Duration) server {
	s := &shared{processors: float64(processors), latest: time.Now()}
	return func(ctx context.Context) error {
		done := make(chan struct{})
		s.mu.Lock()
		s.advance()
		heap.Push(&s.jobs, job{s.work + length().Seconds(), done})
		s.advance()
		s.mu.Unlock()
		<-done
		return ctx.Err()
	}
}

// shared says of each job when it is done by how much work each job present will have got by then.
type shared struct {
	mu         sync.Mutex
	processors float64
	work       float64 // that each has got, in seconds
	latest     time.Time
	jobs       jobs
	next       *time.Timer
}

func (s *shared) advance() {
	now := time.Now()
	speed := func() float64 { return min(1, s.processors/float64(max(1, s.jobs.Len()))) }
	s.work += now.Sub(s.latest).Seconds() * speed()
	s.latest = now
	for s.jobs.Len() > 0 && s.jobs.all[0].until <= s.work+1e-9 {
		close(heap.Pop(&s.jobs).(job).done)
	}
	if s.next != nil {
		s.next.Stop()
	}
	if s.jobs.Len() > 0 {
		s.next = time.AfterFunc(time.Duration((s.jobs.all[0].until-s.work)/speed()*float64(time.Second))+1, func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.advance()
		})
	}
}

type job struct {
	until float64
	done  chan struct{}
}

// jobs is a heap of those that are done first.
type jobs struct{ all []job }

func (j *jobs) Len() int           { return len(j.all) }
func (j *jobs) Less(a, b int) bool { return j.all[a].until < j.all[b].until }
func (j *jobs) Swap(a, b int)      { j.all[a], j.all[b] = j.all[b], j.all[a] }
func (j *jobs) Push(added any)     { j.all = append(j.all, added.(job)) }

func (j *jobs) Pop() any {
	last := j.all[len(j.all)-1]
	j.all = j.all[:len(j.all)-1]
	return last
}

// admission decides about a call, and returns what to tell of its end, or nil if it is rejected.
type admission func(deadline time.Time) (ended func(error))

// traffic is what became of calls.
type traffic struct{ served, late, rejected atomic.Int64 }

// perSecond is the traffic of a time.
type perSecond struct{ served, late, rejected int }

// offer makes calls at a rate for a time, each with so much time to live, and returns what became of those that ended in the second half of it.
// It does not wait for the others.
func (t *traffic) offer(serve server, admit admission, rate float64, allowed, duration time.Duration) perSecond {
	random := rand.New(rand.NewPCG(3, 4))
	began, half := time.Now(), duration/2
	var served, late, rejected int64
	for halved := false; time.Since(began) < duration; {
		if !halved && time.Since(began) >= half {
			halved = true
			served, late, rejected = t.served.Load(), t.late.Load(), t.rejected.Load()
		}
		pass(time.Duration(random.ExpFloat64() / rate * float64(time.Second)))
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), allowed)
			defer cancel()
			deadline, _ := ctx.Deadline()
			ended := admit(deadline)
			if ended == nil {
				t.rejected.Add(1)
				return
			}
			err := serve(ctx)
			ended(err)
			if err != nil {
				t.late.Add(1)
			} else {
				t.served.Add(1)
			}
		}()
	}
	of := func(now *atomic.Int64, before int64) int { return int(float64(now.Load()-before)/half.Seconds() + 0.5) }
	return perSecond{of(&t.served, served), of(&t.late, late), of(&t.rejected, rejected)}
}
