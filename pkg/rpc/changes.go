package rpc

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// maxChanges is how many changes a transport remembers, for whoever looks later.
const maxChanges = 64

// Change is something that happened to an instance and that calls may feel.
type Change struct {
	// At is when it happened.
	At time.Time `json:"at"`
	// Instance is the ID of the instance, and Addr its host:port.
	Instance string `json:"instance"`
	Addr     string `json:"addr"`
	// What says what happened and why, with the instance as its subject: "joined", "has weight 5 instead of 1", "is ejected: 5 failures in a row".
	What string `json:"what"`
}

// changes is what a transport remembers of its instances' changes. Safe for concurrent use.
type changes struct {
	logger *slog.Logger

	mu     sync.Mutex
	latest []Change // a ring once it is full
	next   int
}

// notef remembers a change of an instance and logs it. No lock is to be held.
func (c *changes) notef(level slog.Level, i *instance, format string, args ...any) {
	c.rememberf(level, i, format, args...)()
}

// rememberf remembers a change of an instance and returns what logs it, for when no lock is held; see quietMutex.
func (c *changes) rememberf(level slog.Level, i *instance, format string, args ...any) (log func()) {
	change := Change{At: time.Now(), Instance: i.id, Addr: i.addr, What: fmt.Sprintf(format, args...)}
	i.lastChange.Store(&change)
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.latest) < maxChanges {
		c.latest = append(c.latest, change)
	} else {
		c.latest[c.next] = change
		c.next = (c.next + 1) % maxChanges
	}
	return func() {
		c.logger.Log(context.Background(), level, "instance changed", "instance", i.id, "addr", i.addr, "what", change.What)
	}
}

// all returns the changes remembered, the latest last.
func (c *changes) all() []Change {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append(append(make([]Change, 0, len(c.latest)), c.latest[c.next:]...), c.latest[:c.next]...)
}
