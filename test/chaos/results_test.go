//go:build integration && linux

package chaos_test

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	connectrpc "connectrpc.com/connect/v2"

	"github.com/0x1d/goplt/pkg/rpc"
)

// results are what became of all calls.
type results struct {
	wrong func(problem string, since time.Time) // told at once of each promise that is broken
	tell  func(made *outcome)                   // told of each call that failed, and whose caller had not given up

	mu       sync.Mutex
	groups   map[group]*tally
	failures map[failure]*example
}

// group is calls of a sort by a protocol.
type group struct {
	route string
	sort  sort
}

// tally is what became of a group's calls.
type tally struct {
	calls, succeeded int
	excused          map[excuse]int
	codes            map[connectrpc.Code]int // of those that failed without an excuse
	took             latencies               // of those that succeeded
}

// excuse is why a call that failed counts for nothing.
type excuse string

const (
	// gaveUp is of calls whose callers did not wait for them.
	gaveUp excuse = "given up"
	// halted is of calls in whose time nothing of this process ran for so long that an attempt more would have had place.
	halted excuse = "halted"
	// closed is of calls that came when their transport was closed, of which no attempt was made.
	closed excuse = "closed"
)

// excusableHalt is how long a halt must be to excuse a failure.
const excusableHalt = 200 * time.Millisecond

// excuse returns why a call that failed counts for nothing; empty if it counts.
func (o *outcome) excuse() excuse {
	switch {
	case o.gaveUp:
		return gaveUp
	case o.halted >= excusableHalt:
		return halted
	case errors.Is(o.err, rpc.ErrClosed) && verdictOf(o.err) == noAttempt:
		return closed
	default:
		return ""
	}
}

// failure is a kind of failures.
type failure struct {
	group

	code    connectrpc.Code
	verdict string // of the last attempt
}

// example is one of the failures of a kind.
type example struct {
	count int
	text  string
}

func newResults(wrong func(string, time.Time), tell func(*outcome)) *results {
	return &results{wrong: wrong, tell: tell, groups: make(map[group]*tally), failures: make(map[failure]*example)}
}

// note takes in a call that has ended.
func (r *results) note(made outcome) {
	if made.late > tolerance {
		r.wrong(fmt.Sprintf("%s took %v, and had %v: %v late, not counting what the machine had to wait: %v",
			made.id, made.took, made.timeout, made.late, made.err), made.began)
	}
	if errors.Is(made.err, errWrong) {
		r.wrong(fmt.Sprintf("%s: %v", made.id, made.err), made.began)
	}
	if errors.Is(made.err, rpc.ErrClosed) && made.sort != streamed && verdictOf(made.err) != noAttempt {
		r.wrong(fmt.Sprintf("%s was cut off, by a transport that waits for longer than it had time: %v", made.id, made.err), made.began)
	}
	why := excuse("")
	if made.err != nil {
		if why = made.excuse(); why != gaveUp {
			r.tell(&made)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	of := group{made.route, made.sort}
	t := r.groups[of]
	if t == nil {
		t = &tally{codes: make(map[connectrpc.Code]int), excused: make(map[excuse]int)}
		r.groups[of] = t
	}
	t.calls++
	switch {
	case made.err == nil:
		t.succeeded++
		t.took.note(made.took)
	case why != "":
		t.excused[why]++
	default:
		code := connectrpc.CodeOf(made.err)
		t.codes[code]++
		kind := failure{of, code, verdictOf(made.err)}
		if r.failures[kind] == nil {
			r.failures[kind] = &example{text: fmt.Sprintf("%s, after %v of %v: %v", made.id, made.took, made.timeout, made.err)}
		}
		r.failures[kind].count++
	}
}

const noAttempt = "no attempt"

// verdictOf returns what is known of the execution of a failed call, by its last attempt.
func verdictOf(err error) string {
	called, ok := errors.AsType[*rpc.CallError](err)
	switch {
	case !ok:
		return "no attempts told"
	case len(called.Attempts) == 0:
		return noAttempt
	default:
		return called.Attempts[len(called.Attempts)-1].Verdict
	}
}

// rate returns the share of calls that succeeded, of those that count; 1 if there were none.
func (t *tally) rate() float64 {
	counting := t.succeeded
	for _, failed := range t.codes {
		counting += failed
	}
	if counting == 0 {
		return 1
	}
	return float64(t.succeeded) / float64(counting)
}

// tolerated is how many idempotent calls by a protocol may fail of however few: all that are under way in one bad moment of a busy machine, in which the
// one instance that is healthy does not answer in an attempt's time either. Of five minutes' calls, a thousandth is several times as many.
const tolerated = 10

// tooFew says by which protocols too many idempotent calls failed.
func (r *results) tooFew(least float64) (problems []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for of, t := range r.groups {
		failed := 0
		for _, count := range t.codes {
			failed += count
		}
		if rate := t.rate(); of.sort == idempotent && of.route != visitor && failed > tolerated && rate < least {
			problems = append(problems, fmt.Sprintf("of the idempotent calls by %s, %.3f %% succeeded, want %.1f %%", of.route, 100*rate, 100*least))
		}
	}
	return problems
}

// table returns the results as text. attempts is how many there were by each route.
func (r *results) table(attempts map[string]uint64) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var text strings.Builder
	table := tabwriter.NewWriter(&text, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "by\tcalls\t\tok\t%\tp50\tp99\tmax\tfailed\texcused\t")
	calls := make(map[string]int)
	for _, of := range slices.SortedFunc(maps.Keys(r.groups), compareGroups) {
		t := r.groups[of]
		calls[of.route] += t.calls
		fmt.Fprintf(table, "%s\t%s\t%d\t%d\t%.3f\t%v\t%v\t%v\t%s\t%s\t\n", of.route, of.sort, t.calls, t.succeeded, 100*t.rate(),
			t.took.quantile(0.5), t.took.quantile(0.99), t.took.most.Round(10*time.Microsecond), counted(t.codes), counted(t.excused))
	}
	_ = table.Flush() // a builder takes all
	for _, by := range slices.Sorted(maps.Keys(attempts)) {
		fmt.Fprintf(&text, "%s: %d attempts at %d calls and streams, %.3f each\n", by, attempts[by], calls[by], float64(attempts[by])/float64(calls[by]))
	}
	return text.String()
}

// counted lists what was counted.
func counted[K cmp.Ordered](counts map[K]int) string {
	var text []string
	for _, what := range slices.Sorted(maps.Keys(counts)) {
		text = append(text, fmt.Sprintf("%d %v", counts[what], what))
	}
	return cmp.Or(strings.Join(text, ", "), "none")
}

func compareGroups(a, b group) int {
	return cmp.Or(cmp.Compare(a.route, b.route), cmp.Compare(a.sort, b.sort))
}

// explained returns each kind of failure with its number and an example.
func (r *results) explained() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var text strings.Builder
	for _, kind := range slices.SortedFunc(maps.Keys(r.failures), func(a, b failure) int {
		return cmp.Or(compareGroups(a.group, b.group), cmp.Compare(a.code, b.code), cmp.Compare(a.verdict, b.verdict))
	}) {
		one := r.failures[kind]
		fmt.Fprintf(&text, "%d %s by %s: %v, %s; such as %s\n", one.count, kind.sort, kind.route, kind.code, kind.verdict, one.text)
	}
	return text.String()
}

// latencies counts durations in steps of a tenth or so.
type latencies struct {
	counts map[int]int
	total  int
	most   time.Duration
}

// perDoubling is how many steps there are from a duration to twice as much.
const perDoubling = 8

func (l *latencies) note(took time.Duration) {
	if l.counts == nil {
		l.counts = make(map[int]int)
	}
	l.counts[int(perDoubling*math.Log2(float64(max(took, time.Microsecond))))]++
	l.total++
	l.most = max(l.most, took)
}

// quantile returns the duration that a share of all does not exceed, 0 if there are none.
func (l *latencies) quantile(share float64) time.Duration {
	seen := 0
	for _, step := range slices.Sorted(maps.Keys(l.counts)) {
		if seen += l.counts[step]; float64(seen) >= share*float64(l.total) {
			return min(l.most, time.Duration(math.Exp2(float64(step+1)/perDoubling))).Round(10 * time.Microsecond)
		}
	}
	return 0
}
