package consul_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/0x1d/goplt/pkg/registry"
	"github.com/0x1d/goplt/pkg/registry/consul"
)

// fakeAgent is a Consul agent, as far as the registry speaks to one: an [http.RoundTripper], so that time can be synthetic, and an [http.Handler].
type fakeAgent struct {
	mu       sync.Mutex
	index    uint64
	services map[string]*api.ServiceEntry
	remote   map[string]map[string]*api.ServiceEntry // by datacenter, where that has its own
	changed  chan struct{}
	requests []request
	script   func(*http.Request) (*http.Response, error) // answers instead, where it does not return nil
	headers  http.Header                                 // of health answers
}

// request is what the agent was asked.
type request struct {
	*http.Request

	body string
	at   time.Time
}

func newFakeAgent(entries ...*api.ServiceEntry) *fakeAgent {
	f := &fakeAgent{index: 10, changed: make(chan struct{})}
	f.set(entries...)
	return f
}

// entry is an instance of service auth whose checks have the given statuses.
func entry(id string, port int, statuses ...string) *api.ServiceEntry {
	e := &api.ServiceEntry{
		Node:    &api.Node{Node: "node-1", Address: "10.0.0.1"},
		Service: &api.AgentService{ID: id, Service: "auth", Port: port, Weights: api.AgentWeights{Passing: 5, Warning: 2}, ModifyIndex: 3},
	}
	for _, status := range statuses {
		e.Checks = append(e.Checks, &api.HealthCheck{CheckID: "service:" + id, Status: status})
	}
	return e
}

// set makes entries all that there is, at the next index.
func (f *fakeAgent) set(entries ...*api.ServiceEntry) {
	f.update(func() { f.services = byNode(entries) })
}

// setIn makes entries all that there is in a datacenter, at the next index.
func (f *fakeAgent) setIn(datacenter string, entries ...*api.ServiceEntry) {
	f.update(func() {
		if f.remote == nil {
			f.remote = make(map[string]map[string]*api.ServiceEntry)
		}
		f.remote[datacenter] = byNode(entries)
	})
}

func byNode(entries []*api.ServiceEntry) map[string]*api.ServiceEntry {
	all := make(map[string]*api.ServiceEntry)
	for _, e := range entries {
		all[e.Service.ID+"@"+e.Node.Node] = e
	}
	return all
}

// update changes the state and wakes who waits.
func (f *fakeAgent) update(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.index++
	change()
	close(f.changed)
	f.changed = make(chan struct{})
}

// answerWith lets script answer; nil ends that.
func (f *fakeAgent) answerWith(script func(*http.Request) (*http.Response, error)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.script = script
	close(f.changed) // a script is news to who waits
	f.changed = make(chan struct{})
}

func (f *fakeAgent) setHeader(name, value string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.headers = f.headers.Clone()
	if f.headers == nil {
		f.headers = make(http.Header)
	}
	f.headers.Set(name, value)
}

// asked returns the requests so far whose path begins with prefix.
func (f *fakeAgent) asked(prefix string) []request {
	f.mu.Lock()
	defer f.mu.Unlock()
	var found []request
	for _, r := range f.requests {
		if strings.HasPrefix(r.URL.Path, prefix) {
			found = append(found, r)
		}
	}
	return found
}

func (f *fakeAgent) RoundTrip(r *http.Request) (*http.Response, error) {
	var body []byte
	if r.Body != nil {
		var err error
		if body, err = io.ReadAll(r.Body); err != nil {
			return nil, err
		}
		if err := r.Body.Close(); err != nil {
			return nil, err
		}
	}
	f.mu.Lock()
	f.requests = append(f.requests, request{Request: r, body: string(body), at: time.Now()})
	script := f.script
	f.mu.Unlock()
	if script != nil {
		if response, err := script(r); response != nil || err != nil {
			return response, err
		}
	}
	path := r.URL.Path
	switch {
	case strings.HasPrefix(path, "/v1/health/service/"):
		return f.health(r)
	case strings.HasPrefix(path, "/v1/query/"):
		return f.execute(r)
	case path == "/v1/agent/services":
		return f.all()
	case path == "/v1/agent/service/register":
		return f.register(body)
	case strings.HasPrefix(path, "/v1/agent/service/deregister/"):
		return f.deregister(strings.TrimPrefix(path, "/v1/agent/service/deregister/"))
	case strings.HasPrefix(path, "/v1/agent/service/"):
		return f.known(strings.TrimPrefix(path, "/v1/agent/service/"))
	case strings.HasPrefix(path, "/v1/agent/check/update/service:"):
		return f.check(strings.TrimPrefix(path, "/v1/agent/check/update/service:"), body)
	}
	return reply(http.StatusNotFound, "no such path"), nil
}

func (f *fakeAgent) health(r *http.Request) (*http.Response, error) {
	query := r.URL.Query()
	asked, _ := strconv.ParseUint(query.Get("index"), 10, 64)
	wait, err := time.ParseDuration(query.Get("wait"))
	if err != nil {
		wait = 5 * time.Minute // Consul's default
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for over := false; ; {
		f.mu.Lock()
		index, changed, script := f.index, f.changed, f.script
		f.mu.Unlock()
		if script != nil {
			if response, err := script(r); response != nil || err != nil {
				return response, err
			}
		}
		if asked < 1 || index != asked || over {
			return f.healthNow(strings.TrimPrefix(r.URL.Path, "/v1/health/service/"), query.Get("tag"), query.Get("dc"))
		}
		select {
		case <-changed:
		case <-timer.C:
			over = true
		case <-r.Context().Done():
			return nil, r.Context().Err()
		}
	}
}

func (f *fakeAgent) healthNow(service, tag, datacenter string) (*http.Response, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	services, ok := f.remote[datacenter]
	if !ok {
		services = f.services
	}
	found := []*api.ServiceEntry{}
	for _, e := range services {
		if e.Service.Service == service && (tag == "" || slices.Contains(e.Service.Tags, tag)) {
			found = append(found, e)
		}
	}
	body, err := json.Marshal(found)
	if err != nil {
		return nil, err
	}
	response := reply(http.StatusOK, string(body))
	response.Header.Set("X-Consul-Index", strconv.FormatUint(f.index, 10))
	response.Header.Set("X-Consul-Lastcontact", "0")
	response.Header.Set("X-Consul-Knownleader", "true")
	maps.Copy(response.Header, f.headers)
	return response, nil
}

// execute answers a prepared query by the name of a service, of which it leaves out who is critical.
func (f *fakeAgent) execute(r *http.Request) (*http.Response, error) {
	name := strings.TrimSuffix(strings.TrimPrefix(r.URL.Path, "/v1/query/"), "/execute")
	f.mu.Lock()
	defer f.mu.Unlock()
	found := api.PreparedQueryExecuteResponse{Service: name, Nodes: []api.ServiceEntry{}, Datacenter: "dc1"}
	for _, e := range f.services {
		if e.Service.Service == name && e.Checks.AggregatedStatus() != api.HealthCritical {
			found.Nodes = append(found.Nodes, *e)
		}
	}
	body, err := json.Marshal(found)
	response := reply(http.StatusOK, string(body))
	maps.Copy(response.Header, f.headers)
	return response, err
}

func (f *fakeAgent) register(body []byte) (*http.Response, error) {
	var given api.AgentServiceRegistration
	if err := json.Unmarshal(body, &given); err != nil {
		return reply(http.StatusBadRequest, err.Error()), nil
	}
	f.update(func() {
		if f.services == nil {
			f.services = make(map[string]*api.ServiceEntry)
		}
		var checks api.HealthChecks
		if earlier, ok := f.services[given.ID+"@node-1"]; ok && len(earlier.Checks) > 0 {
			checks = earlier.Checks // keeps its status, as with the real agent
		} else if given.Check != nil {
			checks = api.HealthChecks{{CheckID: given.Check.CheckID, Status: given.Check.Status}}
		}
		f.services[given.ID+"@node-1"] = &api.ServiceEntry{
			Checks: checks,
			Node:   &api.Node{Node: "node-1", Address: "10.0.0.1"},
			Service: &api.AgentService{
				ID: given.ID, Service: given.Name, Address: given.Address, Port: given.Port, Tags: given.Tags, Meta: given.Meta,
				Weights: *given.Weights, ModifyIndex: f.index,
			},
		}
	})
	return reply(http.StatusOK, ""), nil
}

// all answers with every registration: filters are the real agent's to test.
func (f *fakeAgent) all() (*http.Response, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	found := make(map[string]*api.AgentService)
	for _, e := range f.services {
		found[e.Service.ID] = e.Service
	}
	body, err := json.Marshal(found)
	return reply(http.StatusOK, string(body)), err
}

func (f *fakeAgent) deregister(id string) (*http.Response, error) {
	if response, err := f.known(id); response.StatusCode != http.StatusOK {
		return response, err
	}
	f.update(func() { delete(f.services, id+"@node-1") })
	return reply(http.StatusOK, ""), nil
}

// check changes the status of the check of a service instance.
func (f *fakeAgent) check(id string, body []byte) (*http.Response, error) {
	response, err := f.known(id)
	if response.StatusCode != http.StatusOK {
		return response, err
	}
	var given struct{ Status, Output string }
	if err := json.Unmarshal(body, &given); err != nil {
		return reply(http.StatusBadRequest, err.Error()), nil
	}
	f.update(func() {
		f.services[id+"@node-1"].Checks = api.HealthChecks{{CheckID: "service:" + id, Status: given.Status, Output: given.Output}}
	})
	return reply(http.StatusOK, ""), nil
}

func (f *fakeAgent) known(id string) (*http.Response, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if e, ok := f.services[id+"@node-1"]; ok {
		body, err := json.Marshal(e.Service)
		return reply(http.StatusOK, string(body)), err
	}
	return reply(http.StatusNotFound, "unknown service ID: "+id), nil
}

// ServeHTTP puts the agent on a socket.
func (f *fakeAgent) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	response, err := f.RoundTrip(r)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	maps.Copy(w.Header(), response.Header)
	w.WriteHeader(response.StatusCode)
	if _, err := io.Copy(w, response.Body); err != nil {
		panic(http.ErrAbortHandler)
	}
}

func reply(code int, body string) *http.Response {
	return &http.Response{
		StatusCode: code, Status: http.StatusText(code), Header: make(http.Header), Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body)),
	}
}

// always answers every request alike.
func always(code int, body string) func(*http.Request) (*http.Response, error) {
	return func(*http.Request) (*http.Response, error) { return reply(code, body), nil }
}

// journal keeps what is logged, a line for each record: level and message.
type journal struct {
	mu    sync.Mutex
	lines bytes.Buffer
}

func (j *journal) Write(line []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.lines.Write(line)
}

func (j *journal) count(text string) int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return strings.Count(j.lines.String(), text)
}

// open returns a registry over the fake agent, what it logs, and closes it with the test.
func open(t *testing.T, f *fakeAgent, changes ...func(*consul.Config)) (*consul.Registry, *journal) {
	t.Helper()
	logged := new(journal)
	config := consul.DefaultConfig()
	config.Address, config.Transport, config.Logger = "agent.test:8500", f, slog.New(slog.NewTextHandler(logged, nil))
	for _, change := range changes {
		change(&config)
	}
	r, err := consul.New(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return r, logged
}

// onlyNews leaves out the set that comes again, unchanged, when an error is over.
type onlyNews struct {
	registry.Watcher

	last []registry.Instance
}

func (w *onlyNews) Next(ctx context.Context) ([]registry.Instance, error) {
	for {
		set, err := w.Watcher.Next(ctx)
		if err != nil || w.last == nil || !slices.EqualFunc(set, w.last, registry.Instance.Equal) {
			if err == nil {
				w.last = set
			}
			return set, err
		}
	}
}

// watch watches service auth, or the given target.
func watch(t *testing.T, r *consul.Registry, texts ...string) registry.Watcher {
	t.Helper()
	text := "auth"
	if len(texts) > 0 {
		text = texts[0]
	}
	target, err := registry.ParseTarget(text)
	if err != nil {
		t.Fatal(err)
	}
	w, err := r.Watch(target)
	if err != nil {
		t.Fatal(err)
	}
	return &onlyNews{Watcher: w}
}

// next returns the IDs of the next set, which must come.
func next(t *testing.T, w registry.Watcher) []string {
	t.Helper()
	set, err := w.Next(t.Context())
	if err != nil {
		t.Fatalf("Next: %v", err)
	}
	ids := make([]string, len(set))
	for at, instance := range set {
		ids[at] = instance.ID
	}
	return ids
}

// expect fails unless the next set has the given IDs.
func expect(t *testing.T, w registry.Watcher, want ...string) {
	t.Helper()
	if got := next(t, w); !slices.Equal(got, want) {
		t.Fatalf("the set is %v, want %v", got, want)
	}
}

// expectError returns the next error, which must match want.
func expectError(t *testing.T, w registry.Watcher, want error) error {
	t.Helper()
	set, err := w.Next(t.Context())
	if err == nil || want != nil && !errors.Is(err, want) {
		t.Fatalf("Next = %v, %v; want an error that matches %v", set, err, want)
	}
	return err
}
