package script

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
)

// Agent is the agent. Safe for concurrent use.
type Agent struct {
	// Address is the host:port of its HTTP API.
	Address string

	mu        sync.Mutex
	entries   []*api.ServiceEntry
	index     uint64
	indexText func(index uint64) string // what is said instead of the index
	changed   chan struct{}
	answer    Answer // given instead
	times     int    // so often; negative for always
	asked     []Query
	requests  int
	waiting   int
}

// Query is one that the agent was asked for the instances of a service.
type Query struct {
	// Service is the name asked for.
	Service string
	// Index is the one after which the answer was wanted; 0 if at once.
	Index uint64
	// Wait is how long the agent might wait.
	Wait time.Duration
	// Consistent reports whether it asked for an answer that no server alone can give.
	Consistent bool
	// At is when it came.
	At time.Time
}

// Start starts an agent that knows these instances, at an index of 10, and ends it with the test.
func Start(t testing.TB, instances ...*api.ServiceEntry) *Agent {
	t.Helper()
	a := &Agent{index: 10, entries: instances, changed: make(chan struct{})}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/health/service/{name}", a.health)
	mux.HandleFunc("PUT /v1/agent/service/register", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("PUT /v1/agent/service/deregister/{id}", func(http.ResponseWriter, *http.Request) {})
	server := httptest.NewServer(a.counting(mux))
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	a.Address = strings.TrimPrefix(server.URL, "http://")
	return a
}

// Instance is an instance as an agent describes it, whose checks pass. The service that is asked for is the one it belongs to, and its weight 1.
func Instance(id, host string, port int) *api.ServiceEntry {
	return &api.ServiceEntry{
		Node:    &api.Node{Node: "node-1", Address: "127.0.0.1"},
		Service: &api.AgentService{ID: id, Address: host, Port: port, Weights: api.AgentWeights{Passing: 1, Warning: 1}, ModifyIndex: 3},
		Checks:  api.HealthChecks{{CheckID: "service:" + id, Status: api.HealthPassing}},
	}
}

// Set makes these all the instances there are, at the next index.
func (a *Agent) Set(instances ...*api.ServiceEntry) {
	a.update(func() { a.entries, a.index = instances, a.index+1 })
}

// Rewind makes these all the instances there are, at an index that may be one of before. Who waits is told, as when Consul restores a snapshot; who
// then asks for what comes after an index that is yet to come waits for it.
func (a *Agent) Rewind(index uint64, instances ...*api.ServiceEntry) {
	a.update(func() { a.entries, a.index = instances, index })
}

// Churn raises the index, and nothing else.
func (a *Agent) Churn() { a.update(func() { a.index++ }) }

// SayIndex has answers say what text makes of the index; an empty text leaves the header out. Nil ends that.
func (a *Agent) SayIndex(text func(index uint64) string) {
	a.update(func() { a.indexText = text })
}

// AnswerNext has the next queries answered by answer instead, so many of them, those that wait included.
func (a *Agent) AnswerNext(times int, answer Answer) {
	a.update(func() { a.answer, a.times = answer, times })
}

// AnswerAll has all queries answered by answer instead, those that wait included, until it is given nil.
func (a *Agent) AnswerAll(answer Answer) { a.AnswerNext(-1, answer) }

// update changes the state and wakes who waits.
func (a *Agent) update(change func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	change()
	close(a.changed)
	a.changed = make(chan struct{})
}

// Asked returns the queries so far.
func (a *Agent) Asked() []Query {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.asked)
}

// Requests returns how many requests of any kind came so far.
func (a *Agent) Requests() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.requests
}

// Waiting returns how many queries wait for a change now.
func (a *Agent) Waiting() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.waiting
}

func (a *Agent) counting(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.mu.Lock()
		a.requests++
		a.mu.Unlock()
		next.ServeHTTP(w, r)
	})
}

// health answers a query when there is something to answer.
func (a *Agent) health(w http.ResponseWriter, r *http.Request) {
	query := queryOf(r)
	timer := time.NewTimer(query.Wait)
	defer timer.Stop()
	a.mu.Lock()
	a.asked = append(a.asked, query)
	answer := a.takeLocked()
	if answer == nil && query.Index > 0 && a.index <= query.Index {
		changed := a.changed
		a.waiting++
		a.mu.Unlock()
		select {
		case <-changed: // is news, at whatever index
		case <-timer.C:
		case <-r.Context().Done():
		}
		a.mu.Lock()
		a.waiting--
		answer = a.takeLocked()
	}
	if answer == nil {
		answer = a.answerLocked(query.Service)
	}
	a.mu.Unlock()
	answer(w, r)
}

func queryOf(r *http.Request) Query {
	values := r.URL.Query()
	query := Query{Service: r.PathValue("name"), Consistent: values.Has("consistent"), At: time.Now()}
	query.Index, _ = strconv.ParseUint(values.Get("index"), 10, 64) // absent, or what an agent takes for 0 too
	var err error
	if query.Wait, err = time.ParseDuration(values.Get("wait")); err != nil {
		query.Wait = 5 * time.Minute // Consul's default
	}
	return query
}

// takeLocked returns what to answer instead, nil if nothing.
func (a *Agent) takeLocked() Answer {
	if a.times == 0 {
		return nil
	}
	if a.times > 0 {
		a.times--
	}
	return a.answer
}

// answerLocked returns the answer that says what there is.
func (a *Agent) answerLocked(service string) Answer {
	found := make([]*api.ServiceEntry, len(a.entries))
	for at, entry := range a.entries {
		named, described := *entry, *entry.Service
		described.Service = service
		named.Service = &described
		found[at] = &named
	}
	index := strconv.FormatUint(a.index, 10)
	if a.indexText != nil {
		index = a.indexText(a.index)
	}
	body, err := json.Marshal(found)
	if err != nil {
		panic(err) // of what the test itself made
	}
	return func(w http.ResponseWriter, _ *http.Request) {
		if index != "" {
			w.Header().Set("X-Consul-Index", index)
		}
		w.Header().Set("X-Consul-Lastcontact", "0")
		w.Header().Set("X-Consul-Knownleader", "true")
		_, _ = w.Write(body) // to who may have gone away
	}
}
