//go:build !race

package simulation_test

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"path"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	refusal  = time.Millisecond // how long a connection to an agent takes that is not there
	answered = time.Millisecond // how long an answer takes that nobody waits for
)

var (
	errRefused = errors.New("connection refused")
	errReset   = errors.New("connection reset")
)

// agent is a Consul agent as far as who watches services speaks to one: an [http.RoundTripper] which knows one instance of every service, and which
// can be away. It keeps its state over that, as an agent does that has a data directory.
type agent struct {
	mu      sync.Mutex
	random  *rand.Rand
	gone    chan struct{}        // closed while it is away
	back    time.Time            // when it came back
	queries []time.Time          // that reached it since then
	reached map[string]time.Time // when the first query for a service did
	refused int                  // connections
}

func newAgent() *agent {
	return &agent{random: rand.New(rand.NewPCG(42, 2)), gone: make(chan struct{}), reached: map[string]time.Time{}}
}

// leave breaks all connections, and refuses others until comeBack.
func (a *agent) leave() {
	a.mu.Lock()
	defer a.mu.Unlock()
	close(a.gone)
}

func (a *agent) comeBack() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.gone, a.back, a.queries, a.reached = make(chan struct{}), time.Now(), nil, map[string]time.Time{}
}

// RoundTrip answers a query when it is time to.
func (a *agent) RoundTrip(r *http.Request) (*http.Response, error) {
	a.mu.Lock()
	gone := a.gone
	select {
	case <-gone:
		a.refused++
		a.mu.Unlock()
		rest(r.Context(), refusal)
		return nil, errRefused
	default:
	}
	a.queries = append(a.queries, time.Now())
	service := path.Base(r.URL.Path)
	if a.reached[service].IsZero() {
		a.reached[service] = time.Now()
	}
	a.mu.Unlock()
	timer := time.NewTimer(a.holds(r))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-gone:
		return nil, errReset
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
	body := fmt.Sprintf(`[{"Node":{"Node":"node","Address":"10.0.0.1"},"Service":{"ID":%q,"Service":%[1]q,"Port":80,"Weights":{"Passing":1}}}]`, service)
	return &http.Response{
		StatusCode: http.StatusOK, Status: "200 OK", Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: r,
		Header: http.Header{"X-Consul-Index": {"10"}}, Body: io.NopCloser(strings.NewReader(body)),
	}, nil
}

// holds is how long a query is held: nothing ever changes, so one that waits for a change does for as long as it asks and up to a sixteenth more.
func (a *agent) holds(r *http.Request) time.Duration {
	query := r.URL.Query()
	if index := query.Get("index"); index == "" || index == "0" {
		return answered
	}
	wait, err := time.ParseDuration(query.Get("wait"))
	if err != nil {
		wait = 5 * time.Minute // Consul's default
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return wait + time.Duration(a.random.Int64N(int64(wait/16)+1))
}

// peak is the most queries in any window of that length since the agent is back.
func (a *agent) peak(window time.Duration) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	most, from := 0, 0
	for to, at := range a.queries {
		for at.Sub(a.queries[from]) >= window {
			from++
		}
		most = max(most, to-from+1)
	}
	return most
}

// recovery returns for how many services a query reached the agent since it is back, and how long that took half of those, and all.
func (a *agent) recovery() (services int, half, all time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.reached) == 0 {
		return 0, 0, 0
	}
	var took []time.Duration
	for _, at := range a.reached {
		took = append(took, at.Sub(a.back))
	}
	slices.Sort(took)
	return len(took), took[len(took)/2], took[len(took)-1]
}
