//go:build integration

package faults_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	connectrpc "connectrpc.com/connect/v2"

	authv1 "github.com/0x1d/goplt/gen/goplt/auth/v1"
	"github.com/0x1d/goplt/gen/goplt/auth/v1/authv1connect"
	"github.com/0x1d/goplt/pkg/rpc"
)

// kind is what a call may suffer.
type kind int

const (
	// idempotent calls are of ValidateToken.
	idempotent kind = iota
	// unrepeatable calls are of Login.
	unrepeatable
	// mixed are one or the other in turn.
	mixed
)

// String names the kind.
func (k kind) String() string { return [...]string{"idempotent", "unrepeatable", "mixed"}[k] }

const (
	// tolerance is by how much a call may outlive its deadline, and the time that it has to wait for a processor.
	tolerance = 50 * time.Millisecond
	// most is by how much it may whatever happens.
	most = 3 * time.Second
)

// lastCall numbers the calls of all tests.
var lastCall atomic.Int64

// outcome is what became of a call.
type outcome struct {
	id   string
	kind kind
	err  error
	took time.Duration
	// deadline is when the call had to have ended, and ended when it did.
	deadline, ended time.Time
}

// invoke makes one call, and fails if it got another's answer.
func invoke(ctx context.Context, transport *rpc.Transport, what kind, timeout time.Duration) outcome {
	client := authv1connect.NewAuthServiceClient(connectrpc.NewClient(transport))
	made := outcome{id: fmt.Sprintf("call-%d", lastCall.Add(1)), kind: what}
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var answer string
	if what == unrepeatable {
		var response *authv1.LoginResponse
		response, made.err = client.Login(ctx, &authv1.LoginRequest{Email: made.id})
		answer = response.GetTokens().GetAccessToken()
	} else {
		var response *authv1.ValidateTokenResponse
		response, made.err = client.ValidateToken(ctx, &authv1.ValidateTokenRequest{Token: made.id})
		answer = response.GetClaims().GetUserId()
	}
	made.ended = time.Now()
	made.took, made.deadline = made.ended.Sub(began), began.Add(timeout)
	if made.err == nil && answer != made.id {
		made.err = fmt.Errorf("the answer is %q", answer)
	}
	return made
}

// check fails the test where a call was executed more often than it may be, or ended late.
func (o outcome) check(t testing.TB, executions *ledger) {
	t.Helper()
	if o.err == nil { // what another process executed is heard of later
		await(t, "the execution of "+o.id+", which succeeded", func() bool { return executions.executions(o.id) > 0 })
	}
	if times := executions.executions(o.id); o.kind == unrepeatable && times > 1 {
		t.Errorf("%s, which is not idempotent, was executed %d times", o.id, times)
	}
	if late := o.ended.Sub(o.deadline); late > most || late > tolerance && late-stalls.Between(o.deadline, o.ended) > tolerance {
		t.Errorf("%s ended %v after its deadline: %v", o.id, late, o.err)
	}
}

// succeed makes one call that has to succeed.
func succeed(t testing.TB, transport *rpc.Transport, executions *ledger, what kind) outcome {
	t.Helper()
	made := invoke(t.Context(), transport, what, 10*time.Second)
	if made.err != nil {
		t.Fatalf("%s: %v", made.id, made.err)
	}
	made.check(t, executions)
	return made
}

// load makes calls, from several callers, until it is stopped.
type load struct {
	made       atomic.Int64
	executions *ledger
	stopped    context.CancelFunc
	callers    sync.WaitGroup

	mu       sync.Mutex
	outcomes []outcome
	failures []outcome
}

const (
	// callers is how many there are, and pause how often each of them calls, so that rows which run beside each other leave each other time.
	callers = 4
	pause   = 4 * time.Millisecond
	// crowd is how many callers there are where calls are to be under way at any time: each calls again at once.
	crowd = 16
)

// startLoad makes calls of the given kind, each with this time to succeed in. It ends with the test at the latest.
func startLoad(t testing.TB, transport *rpc.Transport, executions *ledger, what kind, timeout time.Duration) *load {
	t.Helper()
	return startCallers(t, callers, pause, executions, what, func(this kind) outcome {
		return invoke(context.Background(), transport, this, timeout) // those under way when the load ends are calls like the others
	})
}

// startCrowd is startLoad with calls under way at any time.
func startCrowd(t testing.TB, transport *rpc.Transport, executions *ledger, what kind, timeout time.Duration) *load {
	t.Helper()
	return startCallers(t, crowd, 0, executions, what, func(this kind) outcome {
		return invoke(context.Background(), transport, this, timeout)
	})
}

func startCallers(t testing.TB, callers int, pause time.Duration, executions *ledger, what kind, call func(kind) outcome) *load {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	l := &load{executions: executions, stopped: stop}
	for caller := range callers {
		l.callers.Go(func() {
			var next <-chan time.Time
			if pause > 0 {
				ticker := time.NewTicker(pause)
				defer ticker.Stop()
				next = ticker.C
			}
			for number := caller; ctx.Err() == nil; number++ {
				this := what
				if what == mixed {
					this = kind(number % 2)
				}
				l.note(call(this))
				if next != nil {
					<-next
				}
			}
		})
	}
	t.Cleanup(l.stop)
	return l
}

func (l *load) note(made outcome) {
	l.made.Add(1)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.outcomes = append(l.outcomes, made)
	if made.err != nil {
		l.failures = append(l.failures, made)
	}
}

func (l *load) stop() {
	l.stopped()
	l.callers.Wait()
}

// goOn waits until so many further calls were made.
func (l *load) goOn(t testing.TB, calls int64) {
	t.Helper()
	until := l.made.Load() + calls
	await(t, fmt.Sprintf("%d further calls", calls), func() bool { return l.made.Load() >= until })
}

// failed returns how many calls failed so far.
func (l *load) failed() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.failures)
}

// finish ends the load and checks each call. It returns those that failed.
func (l *load) finish(t testing.TB) []outcome {
	t.Helper()
	l.stop()
	for _, made := range l.outcomes {
		made.check(t, l.executions)
	}
	t.Logf("%d calls, %d failed", len(l.outcomes), len(l.failures))
	return l.failures
}

// mustSucceed ends the load, which must not have lost a call.
func (l *load) mustSucceed(t testing.TB) {
	t.Helper()
	for at, made := range l.finish(t) {
		if at == 3 {
			break
		}
		t.Errorf("%s failed after %v: %v", made.id, made.took, made.err)
	}
}
