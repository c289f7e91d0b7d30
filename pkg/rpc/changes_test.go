package rpc_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/0x1d/goplt/pkg/rpc"
)

// calling is a log handler that has something done for each record, and waits for it.
type calling struct {
	slog.Handler

	t    *testing.T
	do   func()
	busy *atomic.Bool // so that what is done is not told of what it causes
	mu   *sync.Mutex
	told *[]string
}

func (calling) Enabled(context.Context, slog.Level) bool { return true }
func (h calling) WithAttrs([]slog.Attr) slog.Handler     { return h }

func (h calling) Handle(_ context.Context, record slog.Record) error {
	what := record.Message
	record.Attrs(func(attribute slog.Attr) bool {
		if attribute.Key == "what" {
			what = attribute.Value.String()
		}
		return true
	})
	h.mu.Lock()
	*h.told = append(*h.told, what)
	h.mu.Unlock()
	if h.busy.Swap(true) {
		return nil
	}
	defer h.busy.Store(false)
	done := make(chan struct{})
	go func() {
		defer close(done)
		h.do()
	}()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
		h.t.Errorf("what a log handler did when it was told that an instance %q did not end", what)
	}
	return nil
}

// TestLogHandlersMayCall: a handler may make calls by the very transport that logs, whatever it is told of, and look at its status.
func TestLogHandlersMayCall(t *testing.T) {
	service := &authHandler{}
	addr := startHTTP(t, byContentType(healthAnswer(http.StatusUnsupportedMediaType, "text/html", ""), service.mount()), http1And2).Listener.Addr().String()
	instance := instanceAt(t, "one", addr)
	reg := newScripted(instance)
	var (
		transport *rpc.Transport
		mu        sync.Mutex
		told      []string
	)
	config := rpc.DefaultClientConfig()
	config.Pool.DrainTimeout = time.Hour
	handler := calling{Handler: slog.DiscardHandler, t: t, busy: new(atomic.Bool), mu: &mu, told: &told, do: func() {
		transport.Status()
		err := login(t.Context(), transport)
		if err != nil && !errors.Is(err, rpc.ErrNoInstances) && !errors.Is(err, rpc.ErrClosed) { // at the end of the test, it is closed
			t.Error(err)
		}
	}}
	transport, err := rpc.NewTransport("scripted:///auth", reg, rpc.WithClientConfig(config), rpc.WithLogger(slog.New(handler)))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = transport.Close() }()
	hears := func(what string) {
		t.Helper()
		await(t, what, func() bool {
			mu.Lock()
			defer mu.Unlock()
			return slices.Contains(told, what)
		})
	}
	transport.Status() // begins to watch
	hears("joined")
	instance.Weight, instance.Zone, instance.Health = 7, "eu", "passing"
	reg.Set(instance)
	hears("has weight 7 instead of 1")
	hears(`is in zone "eu" instead of ""`)
	hears("is passing in the registry, and was of unknown health")
	instance.Revision++
	reg.Set(instance)
	hears("registered anew: its protocol is what it says, not what was learned")
	reg.Set()
	hears("left: the registry no longer names it")
	reg.Set(instance)
	hears("came back")
	reg.Fail(errors.New("registry is away"))
	hears("registry does not answer; keeping the instances known")
}
