package main

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// sample is what a client process saw in one run.
type sample struct {
	Calls   int64         `json:"calls"`
	Elapsed time.Duration `json:"elapsed"`
	P50     time.Duration `json:"p50"`
	P99     time.Duration `json:"p99"`
	Usage   usage         `json:"usage"`
}

// errCallFailed is wrapped by the error of a run in which a call failed: rates of calls that fail mean nothing.
var errCallFailed = errors.New("a call failed")

// load runs callers in a closed loop for duration, each call with a deadline unless that is 0. The first failed call ends it.
func load(call func(context.Context) error, callers int, duration, deadline time.Duration) (sample, error) {
	var (
		running    sync.WaitGroup
		stopped    atomic.Bool
		failed     atomic.Pointer[error]
		histograms = make([]histogram, callers)
	)
	before := currentUsage()
	began := time.Now()
	timer := time.AfterFunc(duration, func() { stopped.Store(true) })
	defer timer.Stop()
	for i := range callers {
		running.Go(func() {
			latencies := &histograms[i]
			for !stopped.Load() {
				sent := time.Now()
				if err := callOnce(call, deadline); err != nil {
					failed.CompareAndSwap(nil, &err)
					stopped.Store(true)
					return
				}
				latencies.record(time.Since(sent))
			}
		})
	}
	running.Wait()
	elapsed := time.Since(began)
	used := currentUsage().since(before)
	if err := failed.Load(); err != nil {
		return sample{}, errors.Join(errCallFailed, *err)
	}
	var all histogram
	for i := range histograms {
		all.add(&histograms[i])
	}
	return sample{Calls: all.count, Elapsed: elapsed, P50: all.quantile(0.50), P99: all.quantile(0.99), Usage: used}, nil
}

func callOnce(call func(context.Context) error, deadline time.Duration) error {
	ctx := context.Background()
	if deadline > 0 {
		bounded, cancel := context.WithTimeout(ctx, deadline)
		defer cancel()
		ctx = bounded
	}
	return call(ctx)
}
