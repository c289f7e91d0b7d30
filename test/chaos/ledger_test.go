//go:build integration && linux

package chaos_test

import (
	"fmt"
	"sync"
	"time"
)

// ledger keeps how often each call was executed, over all instances and their lives, and compares that to what the callers know.
type ledger struct {
	wrong func(problem string, since time.Time) // told at once of each promise that is broken

	mu         sync.Mutex
	calls      map[string]*entry
	executions int
}

// entry is what is known of a call.
type entry struct {
	once       bool // it must not be executed twice
	executions int
	began      time.Time
	ended      time.Time // zero while it is under way
	succeeded  bool
}

// remembered is how long after its end a call may still be executed: whatever holds back what was sent lets go of it sooner.
const remembered = 2 * time.Minute

func newLedger(wrong func(problem string, since time.Time)) *ledger {
	return &ledger{wrong: wrong, calls: make(map[string]*entry)}
}

// begin notes a call that is about to be made.
func (l *ledger) begin(id string, once bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.calls[id] = &entry{once: once, began: time.Now()}
}

// note notes an execution.
func (l *ledger) note(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.executions++
	call := l.calls[id]
	if call == nil {
		l.wrong(fmt.Sprintf("call %q is executed, which nobody made, or which ended more than %v ago", id, remembered), time.Now())
		return
	}
	call.executions++
	if call.once && call.executions > 1 {
		l.wrong(fmt.Sprintf("%s, which must not be, is executed %d times", id, call.executions), call.began)
	}
}

// end notes the end of a call.
func (l *ledger) end(id string, succeeded bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	call := l.calls[id]
	call.ended, call.succeeded = time.Now(), succeeded
}

// settle checks the calls that ended before a time, and forgets them.
func (l *ledger) settle(before time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, call := range l.calls {
		if call.ended.IsZero() || call.ended.After(before) {
			continue
		}
		if call.succeeded && call.executions == 0 {
			l.wrong(id+" succeeded, but nobody executed it", call.began)
		}
		delete(l.calls, id)
	}
}

// total returns how many executions there were, and how many calls are not settled.
func (l *ledger) total() (executions, open int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.executions, len(l.calls)
}
