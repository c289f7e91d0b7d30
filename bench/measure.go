package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"
)

// warmUpShare of a cell's duration is spent before it on calls that do not count: connections open, caches and the scheduler settle.
const warmUpShare = 5

// metric is what is measured of a peer.
type metric int

// The metrics, in the order in which they are printed.
const (
	metricRate metric = iota
	metricP50
	metricP99
	metricClientCPU
	metricServerCPU
	metricClientAllocs
	metricClientBytes
	metricServerAllocs
	metricServerBytes
	metricCount
)

// values holds one number per metric: calls per second, microseconds, and allocations and bytes per call.
type values [metricCount]float64

// cell is one peer at one number of callers.
type cell struct {
	peer    string
	callers int
}

// measured holds the values of each cell, one per round.
type measured map[cell][]values

// pair is the two processes of a peer.
type pair struct {
	peer           peer
	server, client *child
}

// measure starts all processes, measures every cell in every round, and stops the processes.
func measure(ctx context.Context, p plan, stderr io.Writer) (result measured, err error) {
	stderr = &lockedWriter{w: stderr}
	var pairs []pair
	defer func() {
		for _, started := range slices.Backward(pairs) {
			err = errors.Join(err, started.stop())
		}
		if ctx.Err() != nil {
			err = fmt.Errorf("stopped: %w", context.Cause(ctx))
		}
	}()
	for _, peer := range p.peers {
		started, err := startPair(ctx, p, peer, stderr)
		if err != nil {
			return nil, fmt.Errorf("start %s: %w", peer.name, err)
		}
		pairs = append(pairs, started)
	}
	result = measured{}
	for round := range p.rounds {
		for _, callers := range p.callers {
			fmt.Fprintf(stderr, "round %d of %d, %d callers\n", round+1, p.rounds, callers)
			for _, measuring := range pairs {
				got, err := measuring.run(p, callers)
				if err != nil {
					return nil, fmt.Errorf("round %d, %d callers: %w", round+1, callers, err)
				}
				at := cell{peer: measuring.peer.name, callers: callers}
				result[at] = append(result[at], got)
			}
		}
	}
	return result, nil
}

// lockedWriter is for what this process and its children write at the same time.
type lockedWriter struct {
	mu sync.Mutex
	w  io.Writer
}

// Write writes to the writer beneath, one call at a time.
func (l *lockedWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

func startPair(ctx context.Context, p plan, peer peer, stderr io.Writer) (pair, error) {
	serving, err := startChild(ctx, assignment{Peer: peer.name, Profile: profileOf(p.profiles, peer, "server")}, stderr)
	if err != nil {
		return pair{}, err
	}
	calling, err := startChild(ctx, assignment{
		Peer: peer.name, Addr: serving.addr, Callers: slices.Max(p.callers), Profile: profileOf(p.profiles, peer, "client"),
	}, stderr)
	if err != nil {
		return pair{}, errors.Join(err, serving.stop())
	}
	return pair{peer: peer, server: serving, client: calling}, nil
}

func (p pair) stop() error { return errors.Join(p.client.stop(), p.server.stop()) }

// run measures one cell.
func (p pair) run(wanted plan, callers int) (values, error) {
	warmUp := command{Callers: callers, Duration: wanted.duration / warmUpShare, Deadline: wanted.deadline}
	if _, err := p.client.do(warmUp); err != nil {
		return values{}, fmt.Errorf("warm-up: %w", err)
	}
	before, err := p.server.do(command{})
	if err != nil {
		return values{}, err
	}
	answer, err := p.client.do(command{Callers: callers, Duration: wanted.duration, Deadline: wanted.deadline})
	if err != nil {
		return values{}, err
	}
	after, err := p.server.do(command{})
	if err != nil {
		return values{}, err
	}
	return perCall(answer.Sample, after.Usage.since(before.Usage)), nil
}

func perCall(client sample, server usage) values {
	calls := float64(client.Calls)
	var v values
	v[metricRate] = calls / client.Elapsed.Seconds()
	v[metricP50] = microseconds(client.P50)
	v[metricP99] = microseconds(client.P99)
	v[metricClientCPU] = microseconds(client.Usage.CPU) / calls
	v[metricServerCPU] = microseconds(server.CPU) / calls
	v[metricClientAllocs] = float64(client.Usage.Mallocs) / calls
	v[metricClientBytes] = float64(client.Usage.Bytes) / calls
	v[metricServerAllocs] = float64(server.Mallocs) / calls
	v[metricServerBytes] = float64(server.Bytes) / calls
	return v
}

func microseconds(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
