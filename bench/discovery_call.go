package main

import (
	"context"
	"sync"
	"time"
)

const (
	// quiet is how long no call must have gone to an instance that left, so that none will.
	quiet = 200 * time.Millisecond
	// dense is how long after a change calls are made without a pause, and sparse the pause between them later.
	dense  = 50 * time.Millisecond
	sparse = 2 * time.Millisecond
)

// caller makes calls all the time, and notes which instance answers.
type caller struct {
	client  *seeking
	cancel  context.CancelFunc
	running sync.WaitGroup

	mu      sync.Mutex
	changed time.Time // when the latest change began
	there   bool      // whether calls may go to the instance that moves now
	first   time.Time // when the first call began after which all obey; zero if there is none yet
	wrong   time.Time // when the last call ended that did not
	calls   int
	failed  int
}

func startCaller(client *seeking) *caller {
	ctx, cancel := context.WithCancel(context.Background())
	c := &caller{client: client, cancel: cancel, wrong: time.Now()}
	c.running.Go(func() { c.run(ctx) })
	return c
}

func (c *caller) close() {
	c.cancel()
	c.running.Wait()
	c.client.stop()
}

func (c *caller) run(ctx context.Context) {
	for ctx.Err() == nil {
		began := time.Now()
		bounded, cancel := context.WithTimeout(ctx, 5*time.Second)
		answered, err := c.client.call(bounded)
		cancel()
		if ctx.Err() != nil {
			return
		}
		if !c.note(began, answered, err) && rest(ctx, sparse) != nil {
			return
		}
	}
}

// expect begins the wait for a change.
func (c *caller) expect(changed time.Time, there bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.changed, c.there, c.first, c.wrong = changed, there, time.Time{}, changed
}

// note notes what a call came to, and reports whether the next is to follow at once. Where the instance comes, the first call that it answers obeys;
// where it goes, all obey after the last that it answers.
func (c *caller) note(began time.Time, answered string, err error) (hurry bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls++
	switch {
	case err != nil:
		c.failed++
	case began.Before(c.changed):
	case c.there && answered == moving || !c.there && answered == staying:
		if c.first.IsZero() {
			c.first = began
		}
	case !c.there:
		c.first, c.wrong = time.Time{}, time.Now()
	}
	return err == nil && time.Since(c.changed) < dense
}

// made returns how many calls were made, and how many of them failed.
func (c *caller) made() (calls, failed int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.calls, c.failed
}

// obeyed returns after what time calls obeyed the change, and whether they did.
func (c *caller) obeyed() (time.Duration, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.first.Sub(c.changed), !c.first.IsZero() && (c.there || time.Since(c.wrong) > quiet)
}

// rest waits, and returns the context's error if that ends before.
func rest(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
