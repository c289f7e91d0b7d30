package interop_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
)

// gauge is a number that goroutines share.
type gauge struct{ n atomic.Int64 }

func (g *gauge) add(delta int64) int64 { return g.n.Add(delta) }
func (g *gauge) value() int64          { return g.n.Load() }

func (g *gauge) raiseTo(value int64) {
	for {
		current := g.n.Load()
		if value <= current || g.n.CompareAndSwap(current, value) {
			return
		}
	}
}

// together runs do in so many goroutines at once and joins their errors.
func together(goroutines int, do func(number int) error) error {
	var running sync.WaitGroup
	failures := make([]error, goroutines)
	for number := range goroutines {
		running.Go(func() { failures[number] = do(number) })
	}
	running.Wait()
	return errors.Join(failures...)
}

// loadUntil has callers call in a closed loop, numbering the calls, and runs event when each has made a few; when event has returned
// and each has made a few calls more, it ends. It returns the number of calls, and the errors of event and of all calls.
func loadUntil(ctx context.Context, callers int, call func(ctx context.Context, number int64) error, event func() error) (int64, error) {
	const few = 25
	var (
		calls    gauge
		warm     = make(chan struct{})
		happened = make(chan struct{})
		started  atomic.Int64
		result   error
	)
	go func() {
		defer close(happened)
		select {
		case <-warm:
			result = event()
		case <-ctx.Done():
			result = ctx.Err()
		}
	}()
	err := together(callers, func(int) error {
		var failed []error
		after := 0
		for made := 1; after < few && ctx.Err() == nil; made++ {
			number := calls.add(1)
			if err := call(ctx, number); err != nil {
				failed = append(failed, fmt.Errorf("call %d: %w", number, err))
			}
			if made == few && started.Add(1) == int64(callers) {
				close(warm)
			}
			select {
			case <-happened:
				after++
			default:
			}
		}
		return errors.Join(failed...)
	})
	<-happened
	return calls.value(), errors.Join(err, result)
}
