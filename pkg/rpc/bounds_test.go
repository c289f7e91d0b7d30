package rpc_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect/v2"

	"github.com/0x1d/goplt/pkg/rpc"
)

// TestAttemptEndsOnTime: whatever an attempt waits for, it ends at the moment that its time is up, and the call at its own.
func TestAttemptEndsOnTime(t *testing.T) {
	silent := func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	}
	for _, row := range []struct {
		name  string
		serve http.HandlerFunc
		dial  func(context.Context, *pipeListener) (net.Conn, error)
		sent  bool
	}{
		{"an answer", silent, nil, true},
		{"the rest of an answer", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", r.Header.Get("Content-Type"))
			w.WriteHeader(http.StatusOK)
			_ = http.NewResponseController(w).Flush()
			silent(w, r)
		}, nil, true},
		{"a connection", silent, func(ctx context.Context, _ *pipeListener) (net.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}, false},
		{"a request to be taken", nil, func(context.Context, *pipeListener) (net.Conn, error) { return newDeafConn(), nil }, true},
	} {
		for _, spoken := range []rpc.Protocol{rpc.ProtocolGRPC, rpc.ProtocolHTTP} {
			if row.serve == nil && spoken == rpc.ProtocolGRPC {
				continue // a connection that takes nothing does not even come about
			}
			t.Run(row.name+", "+string(spoken), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					var executed atomic.Int64
					listener := newPipeListener()
					server := &http.Server{
						Protocols: new(http.Protocols), ReadHeaderTimeout: time.Minute,
						Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
							executed.Add(1)
							row.serve(w, r)
						}),
					}
					server.Protocols.SetHTTP1(true)
					server.Protocols.SetUnencryptedHTTP2(true)
					var serving sync.WaitGroup
					serving.Go(func() { _ = server.Serve(listener) })
					config := rpc.DefaultClientConfig()
					config.Protocol, config.Timeout, config.AttemptTimeout, config.Retry.MaxAttempts = spoken, 10*time.Second, 3*time.Second, 2
					config.Pool.DialTimeout, config.Retry.InitialBackoff = time.Minute, time.Nanosecond
					transport := dialerTransport(t, config, func(ctx context.Context, _, _ string) (net.Conn, error) {
						if row.dial != nil {
							return row.dial(ctx, listener)
						}
						return listener.dial()
					})
					began := time.Now()
					failure := callError(t, validate(t.Context(), transport))
					expectCode(t, failure, connect.CodeDeadlineExceeded)
					if took := time.Since(began); took != 10*time.Second {
						t.Errorf("the call took %v, want 10s", took)
					}
					if first := failure.Attempts[0]; first.Duration != 3*time.Second || first.Code != connect.CodeDeadlineExceeded {
						t.Errorf("attempt %v; want one that ends after 3s", first)
					}
					if row.sent && row.dial == nil {
						expectCount(t, "executions", &executed, 2)
					}
					for _, instance := range transport.Status().Instances {
						if instance.InFlight != 0 {
							t.Errorf("%d attempts in flight", instance.InFlight)
						}
					}
					if err := errors.Join(transport.Close(), server.Close()); err != nil {
						t.Error(err)
					}
					serving.Wait()
				})
			})
		}
	}
}

// newDeafConn returns a connection whose peer never reads.
func newDeafConn() net.Conn {
	ours, _ := net.Pipe()
	return ours
}

// TestAttemptTimeDoesNotEndTheNextCall: the time of an attempt that was answered ends nothing any more, least of all the call that has its connection now.
func TestAttemptTimeDoesNotEndTheNextCall(t *testing.T) {
	for _, spoken := range []rpc.Protocol{rpc.ProtocolGRPC, rpc.ProtocolHTTP} {
		t.Run(string(spoken), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				words, handlers := newWords()
				_, listener := startInBubble(t, handlers)
				var dials atomic.Int64
				config := rpc.DefaultClientConfig()
				config.Protocol, config.AttemptTimeout = spoken, time.Second
				transport := dialerTransport(t, config, func(context.Context, string, string) (net.Conn, error) {
					dials.Add(1)
					return listener.dial()
				})
				client := connect.NewClient(transport)
				if _, err := callText(t.Context(), client, specRead, "x"); err != nil {
					t.Fatal(err)
				}
				time.AfterFunc(5*time.Second, func() { close(words.release) })
				if _, err := callText(t.Context(), client, specHang, "x"); err != nil { // not idempotent, so it has all the time
					t.Error(err)
				}
				expectCount(t, "connections", &dials, 1)
				if err := transport.Close(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}
