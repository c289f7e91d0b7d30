package rpc

import (
	"context"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
)

// lateTimer is a context of which the deadline has passed, but whose timer has not fired yet, as on a busy machine.
type lateTimer struct{ context.Context }

func (lateTimer) Deadline() (time.Time, bool) { return time.Now().Add(-time.Millisecond), true }

// TestOutOfTimeByTheClock: a deadline has passed when the clock says so, whatever the context knows.
func TestOutOfTimeByTheClock(t *testing.T) {
	err := outOfTime(lateTimer{t.Context()}, "just now")
	if connect.CodeOf(err) != connect.CodeDeadlineExceeded {
		t.Errorf("got %v, want deadline_exceeded", err)
	}
	ahead, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	for _, ctx := range []context.Context{ahead, t.Context()} {
		if err := outOfTime(ctx, "just now"); err != nil {
			t.Errorf("in time: got %v", err)
		}
	}
}
