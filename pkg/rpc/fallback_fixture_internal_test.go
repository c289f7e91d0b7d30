package rpc

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/0x1d/goplt/pkg/registry"
)

var errNoTrailers = errors.New("no trailers")

// script is what probes find, and when they were made.
type script struct {
	mu         sync.Mutex
	grpc, http finding
	takes      time.Duration
	lingers    time.Duration // that a probe takes to end that was stopped
	stubborn   bool          // whether a probe that was stopped brings what it would have found all the same
	began      []time.Time   // of those by gRPC
	byHTTP     int
	stopped    int // how many were
	now, most  int // how many are under way, and were at a time
}

func (s *script) find(grpc, http finding) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.grpc, s.http = grpc, http
}

func (s *script) made() (byGRPC, byHTTP int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.began), s.byHTTP
}

func (s *script) ask(ctx context.Context, by Protocol) (finding, error) {
	s.mu.Lock()
	found := s.grpc
	if by == ProtocolHTTP {
		found = s.http
		s.byHTTP++
	} else {
		s.began = append(s.began, time.Now())
	}
	s.now++
	s.most = max(s.most, s.now)
	takes, lingers, stubborn := s.takes, s.lingers, s.stubborn
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.now--
	}()
	timer := time.NewTimer(takes)
	defer timer.Stop()
	select {
	case <-timer.C:
		return found, nil
	case <-ctx.Done():
	}
	s.mu.Lock()
	s.stopped++
	s.mu.Unlock()
	time.Sleep(lingers) //nolint:forbidigo // by the clock of the bubble
	if stubborn {
		return found, nil
	}
	return foundNothing, ctx.Err()
}

// inFallback runs a test with an instance whose probes find what the script says.
func inFallback(t *testing.T, metadata map[string]string, test func(t *testing.T, f *fallback, probes *script)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		config := DefaultClientConfig()
		owner := newFallbackProbes(defaultFallbackPace())
		described := registry.Instance{ID: "a", Host: "192.0.2.1", Port: 1, Metadata: metadata}
		i := newInstance(described, &config, opening{}, &changes{logger: slog.New(slog.DiscardHandler)}, nil, owner)
		probes := &script{}
		i.fallback.ask = probes.ask
		defer i.close()
		defer owner.close()
		test(t, i.fallback, probes)
	})
}

// doubts is so many calls, one after the other, that show soft evidence.
func doubts(f *fallback, count int) {
	for range count {
		began := time.Now()
		pass(time.Millisecond)
		f.doubt(errNoTrailers, began)
	}
	synctest.Wait()
}

func pass(duration time.Duration) {
	time.Sleep(duration) //nolint:forbidigo // by the clock of the bubble
	synctest.Wait()
}

func expectSpoken(t *testing.T, f *fallback, want Protocol) {
	t.Helper()
	if got := f.instance.wireFor(ProtocolAuto).protocol; got != want {
		t.Fatalf("spoken to by %s, want %s; %+v", got, want, f.instance.changes.all())
	}
}

func expectProbes(t *testing.T, probes *script, byGRPC, byHTTP int) {
	t.Helper()
	if gotGRPC, gotHTTP := probes.made(); gotGRPC != byGRPC || gotHTTP != byHTTP {
		t.Fatalf("%d probes by gRPC, %d by HTTP; want %d and %d", gotGRPC, gotHTTP, byGRPC, byHTTP)
	}
}
