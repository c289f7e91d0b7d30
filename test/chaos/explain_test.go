//go:build integration && linux

package chaos_test

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect/v2"

	"github.com/0x1d/goplt/pkg/rpc"
)

// problem reports that a promise is broken, and what was since it may have been.
func (w *world) problem(t *testing.T, what string, since time.Time) {
	w.mu.Lock()
	w.problems++
	first := w.problems <= 20
	w.mu.Unlock()
	text := fmt.Sprintf("%s\n\twhile %s", what, w.broken(since))
	w.diary.write("PROBLEM: " + text)
	if first {
		t.Errorf("seed %d, at %v: %s", w.seed, w.diary.now(), text)
	}
}

// failed is told of each call that failed, and whose failure is not its caller's doing. What was wrong with the instance that failed it has to explain it.
func (w *world) failed(t *testing.T, made *outcome) {
	w.diary.write(fmt.Sprintf("%s fails after %v of %v: %v; while %s", made.id, made.took.Round(time.Millisecond), made.timeout.Round(time.Millisecond),
		made.err, w.broken(made.began)))
	called, ok := errors.AsType[*rpc.CallError](made.err)
	if !ok || made.halted >= excusableHalt {
		return
	}
	if len(called.Attempts) == 0 {
		if made.route != visitor {
			w.problem(t, fmt.Sprintf("%s finds no instance: %v", made.id, made.err), made.began)
		}
		return
	}
	failing := called.Attempts[len(called.Attempts)-1]
	if connect.CodeOf(made.err) == connect.CodeDeadlineExceeded && failing.Duration < attemptTimeout { // what came before it has used the time
		failing = slices.MaxFunc(called.Attempts, func(a, b rpc.Attempt) int { return cmp.Compare(a.Duration, b.Duration) })
	}
	if unexplained := w.unexplained(failing.Addr, made.began); unexplained != "" {
		w.problem(t, fmt.Sprintf("%s fails after %v of %v at an instance with which nothing is wrong but that %s: %v",
			made.id, made.took, made.timeout, unexplained, made.err), made.began)
	}
}

// unexplained returns why what there was explains no failure at the instance at an address of a call that began at a time; empty if it does.
func (w *world) unexplained(addr string, began time.Time) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	why, restarted := "it is called", time.Time{}
	for _, p := range w.past {
		switch {
		case !p.over.IsZero() && p.over.Before(began.Add(-recovery)):
		case p.fault.target == agentTarget || w.instances[p.fault.target].proxy.Addr != addr:
		case !p.fault.kind.orderly:
			return ""
		default:
			why, restarted = "it is restarted in order", p.began
		}
	}
	for _, p := range w.past {
		if p.fault.target == agentTarget && !restarted.IsZero() && (p.over.IsZero() || p.over.After(restarted.Add(-news))) {
			return "" // nobody could say so
		}
	}
	if !restarted.IsZero() && stalls.Halted(restarted, time.Now()) >= excusableHalt {
		return "" // nobody could hear it in time
	}
	return why
}

// period is when something was broken.
type period struct {
	fault       *fault
	what        string
	began, over time.Time // over is zero while it is
}

// breaks notes that something is about to break.
func (w *world) breaks(f *fault, what string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.past = append(w.past, period{fault: f, what: what, began: time.Now()})
}

// healed notes that it has been put right.
func (w *world) healed(f *fault) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	for at := range w.past {
		if w.past[at].fault == f {
			w.past[at].over = now
		}
	}
	w.past = slices.DeleteFunc(w.past, func(p period) bool { return !p.over.IsZero() && now.Sub(p.over) > remembered })
}

// broken says what was broken since a time.
func (w *world) broken(since time.Time) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var all []string
	for _, p := range w.past {
		switch {
		case p.over.IsZero():
			all = append(all, fmt.Sprintf("%s (fault %d)", p.what, p.fault.number))
		case p.over.After(since):
			all = append(all, fmt.Sprintf("%s (fault %d, over for %v)", p.what, p.fault.number, time.Since(p.over).Round(time.Millisecond)))
		}
	}
	return cmp.Or(strings.Join(all, "; "), "nothing is broken")
}
