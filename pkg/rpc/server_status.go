package rpc

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// ServerStatus is what a [Server] is doing at one moment.
type ServerStatus struct {
	// InFlight is how many requests are under way, open streams included, and those for health and reflection.
	InFlight int64 `json:"in_flight"`
	// Limit is how many unary calls at a time the server takes on while it is overloaded; 0 while it is not, or if shedding is not enabled.
	// [ServerConfig.MaxConcurrentCalls] holds besides.
	Limit int `json:"limit,omitempty"`
	// Shedding says that a call was rejected within the last 10s.
	Shedding bool `json:"shedding,omitempty"`
	// Rejected counts the calls rejected since the server was made.
	Rejected uint64 `json:"rejected,omitempty"`
}

// Status returns what the server is doing now.
func (s *Server) Status() ServerStatus {
	status := ServerStatus{InFlight: s.calls.count()}
	if s.admission == nil {
		return status
	}
	status.Shedding, status.Rejected = s.admission.news.shedding.Load(), s.admission.news.count.Load()
	if s.admission.shedder != nil {
		_, status.Limit = s.admission.shedder.Load()
	}
	return status
}

// sheddingQuiet is for how long no call must have been rejected for shedding to be over. So it is logged no more often than that.
const sheddingQuiet = 10 * time.Second

// sheddingNews logs when calls begin to be rejected, and when that is over.
type sheddingNews struct {
	logger   *slog.Logger
	count    atomic.Uint64
	latest   atomic.Pointer[time.Time]
	shedding atomic.Bool

	mu     sync.Mutex
	began  time.Time
	before uint64 // calls rejected before it began
	look   *time.Timer
	closed bool
}

// rejected counts a call that was rejected.
func (n *sheddingNews) rejected(reason string) {
	now := time.Now()
	n.latest.Store(&now)
	n.count.Add(1)
	if n.shedding.Load() {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed || n.shedding.Load() {
		return
	}
	n.began, n.before = now, n.count.Load()-1
	n.shedding.Store(true)
	n.look = time.AfterFunc(sheddingQuiet, n.over)
	n.logger.LogAttrs(context.Background(), slog.LevelWarn, "rpc: the server sheds load", slog.String("because", reason))
}

// over looks whether shedding is over.
func (n *sheddingNews) over() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return
	}
	latest := *n.latest.Load()
	if quiet := time.Since(latest); quiet < sheddingQuiet {
		n.look.Reset(sheddingQuiet - quiet)
		return
	}
	n.end(latest)
}

// close ends the news with the server.
func (n *sheddingNews) close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed = true; n.shedding.Load() {
		n.look.Stop()
		n.end(*n.latest.Load())
	}
}

func (n *sheddingNews) end(latest time.Time) {
	n.shedding.Store(false)
	n.logger.LogAttrs(context.Background(), slog.LevelInfo, "rpc: the server sheds load no more",
		slog.Uint64("rejected", n.count.Load()-n.before), slog.Duration("for", latest.Sub(n.began).Round(time.Millisecond)))
}
