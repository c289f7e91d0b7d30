package consul_test

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/0x1d/goplt/pkg/registry"
	"github.com/0x1d/goplt/pkg/registry/consul"
)

// Fault 8.
func TestEmptyByAccessControl(t *testing.T) {
	for name, row := range map[string]struct {
		header, value, token string
		honoured             bool
	}{
		"filtered":              {"X-Consul-Results-Filtered-By-Acls", "true", "secret", false},
		"deny without a token":  {"X-Consul-Default-Acl-Policy", "deny", "", false},
		"deny with a token":     {"X-Consul-Default-Acl-Policy", "deny", "secret", true}, // Consul would say if it filtered
		"allow without a token": {"X-Consul-Default-Acl-Policy", "allow", "", true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFakeAgent(entry("1", 80))
				r, logged := open(t, f, func(c *consul.Config) { c.Token = row.token })
				w := watch(t, r)
				expect(t, w, "1")
				f.setHeader(row.header, row.value)
				f.setHeader("X-Consul-LastContact", "unparsable") // behind which the API package sees no header
				f.set()
				if row.honoured {
					expect(t, w)
					return
				}
				expectError(t, w, consul.ErrForbidden)
				untilQuiet(t, w, time.Minute)
				if got := logged.count("level=ERROR"); got != 1 {
					t.Errorf("%d errors are logged, want 1", got)
				}
			})
		})
	}
}

// The streaming backend of Consul, which answers blocking queries, does not report what access control withholds; the second read goes past it.
func TestEmptyByAccessControlIsFoundBySecondRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeAgent(entry("1", 80))
		r, _ := open(t, f, func(c *consul.Config) { c.Token = "secret" })
		w := watch(t, r)
		expect(t, w, "1")
		f.answerWith(func(r *http.Request) (*http.Response, error) {
			response := reply(http.StatusOK, "[]")
			response.Header.Set("X-Consul-Index", "50")
			if r.URL.Query().Has("consistent") {
				response.Header.Set("X-Consul-Results-Filtered-By-Acls", "true")
			}
			return response, nil
		})
		expectError(t, w, consul.ErrForbidden)
	})
}

// Fault 9.
func TestReallyEmpty(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeAgent(entry("1", 80))
		r, _ := open(t, f, func(c *consul.Config) { c.EmptyGrace = 3 * time.Second })
		w := watch(t, r)
		expect(t, w, "1")
		synctest.Wait() // until the query waits
		began, before := time.Now(), len(healthQueries(f))
		f.set()
		expect(t, w)
		if took := time.Since(began); took < 3*time.Second || took > 4*time.Second {
			t.Errorf("the empty set came after %v, want the grace of 3s", took)
		}
		second := healthQueries(f)[before].URL.Query()
		if !second.Has("consistent") || second.Has("stale") || second.Has("index") {
			t.Errorf("the confirming read has %v", second)
		}
		f.set(entry("2", 80))
		began = time.Now()
		expect(t, w, "2")
		if took := time.Since(began); took > 0 {
			t.Errorf("an addition took %v, want no grace", took)
		}
	})
}

// Instances that Consul lost stand until they are back, however many are back before them; not so one that came back and left, nor one whose
// address another has taken.
func TestLostStateComesBackBitByBit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeAgent(entry("1", 80), entry("2", 81), entry("3", 82))
		r, _ := open(t, f)
		w := watch(t, r)
		expect(t, w, "1", "2", "3")
		f.update(func() { f.index, f.services = 4, byNode([]*api.ServiceEntry{entry("3", 82)}) })
		expect(t, w, "1", "2", "3")
		f.set(entry("3", 82), entry("2", 81))
		expect(t, w, "1", "2", "3")
		pass(10 * time.Second)
		f.set(entry("3", 82))
		expect(t, w, "1", "3") // the second left
		f.set(entry("3", 82), entry("4", 80))
		expect(t, w, "3", "4") // where the first was
		// The state is lost a second time, when not all of it was back.
		f.update(func() { f.index, f.services = 3, byNode([]*api.ServiceEntry{entry("4", 80)}) })
		expect(t, w, "3", "4")
		pass(10 * time.Second)
		f.update(func() { f.index, f.services = 2, byNode([]*api.ServiceEntry{entry("3", 82)}) })
		expect(t, w, "3", "4")
		expect(t, w, "3")
		untilQuiet(t, w, 2*time.Minute)
	})
}

// One whose address another has taken does not rise again when that leaves, or fails.
func TestLostInstanceWithASuccessorIsGone(t *testing.T) {
	for name, ends := range map[string]func(*testing.T, *fakeAgent, registry.Watcher){
		"leaves": func(_ *testing.T, f *fakeAgent, _ registry.Watcher) { f.set(entry("2", 81)) },
		"fails": func(t *testing.T, f *fakeAgent, w registry.Watcher) {
			t.Helper()
			f.set(entry("2", 81), entry("3", 80, api.HealthCritical))
			expect(t, w, "2", "3")
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFakeAgent(entry("1", 80), entry("2", 81))
				r, _ := open(t, f)
				w := watch(t, r)
				expect(t, w, "1", "2")
				f.update(func() { f.index, f.services = 4, byNode([]*api.ServiceEntry{entry("2", 81)}) })
				expect(t, w, "1", "2")
				f.set(entry("2", 81), entry("3", 80))
				expect(t, w, "2", "3")
				pass(10 * time.Second)
				ends(t, f, w)
				expect(t, w, "2")
				untilQuiet(t, w, 2*time.Minute)
			})
		})
	}
}

// Fault 4: an agent that was away comes back empty; whoever was registered there is about to register again.
func TestEmptyAfterAnOutage(t *testing.T) {
	for name, outage := range map[string]func(*testing.T, *fakeAgent, registry.Watcher){
		"out of reach": func(t *testing.T, f *fakeAgent, w registry.Watcher) {
			t.Helper()
			f.answerWith(func(*http.Request) (*http.Response, error) { return nil, errors.New("connection refused") })
			expectError(t, w, nil)
			f.answerWith(nil)
			f.set()
		},
		"index goes backwards": func(_ *testing.T, f *fakeAgent, _ registry.Watcher) {
			f.update(func() { f.index, f.services = 4, nil })
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFakeAgent(entry("1", 80), entry("2", 81))
				r, _ := open(t, f)
				w := watch(t, r)
				expect(t, w, "1", "2")
				outage(t, f, w)
				untilQuiet(t, w, 50*time.Second)
				f.set(entry("1", 80)) // the first is back, and the second may be about to
				expect(t, w, "1", "2")
				began := time.Now()
				expect(t, w, "1")
				if took := time.Since(began); took < 5*time.Second || took > 15*time.Second {
					t.Errorf("the second left %v after the first was back, want a minute after the loss", took)
				}
				began = time.Now()
				f.set() // and the state is trusted again
				expect(t, w)
				if took := time.Since(began); took > 3*time.Second {
					t.Errorf("the empty set came after %v", took)
				}

				f.set(entry("1", 80))
				expect(t, w, "1")
				began = time.Now()
				outage(t, f, w)
				expect(t, w) // nobody comes back
				if took := time.Since(began); took < time.Minute || took > 63*time.Second {
					t.Errorf("the empty set came after %v, want a minute", took)
				}
			})
		})
	}
}

// Maintenance of one says nothing of those who are about to register again.
func TestMaintenanceAfterALossOfState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeAgent(entry("1", 80), entry("2", 80))
		r, _ := open(t, f)
		w := watch(t, r)
		expect(t, w, "1", "2")
		f.update(func() {
			f.index, f.services = 4, byNode([]*api.ServiceEntry{entry("1", 80)})
			f.services["1@node-1"].Checks = api.HealthChecks{{CheckID: "_service_maintenance:1", Status: api.HealthCritical}}
		})
		untilQuiet(t, w, 50*time.Second)
	})
}

func TestEmptyAtFirstNeedsNoGrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeAgent()
		r, _ := open(t, f)
		began := time.Now()
		expect(t, watch(t, r))
		if took := time.Since(began); took > 0 {
			t.Errorf("the first, empty set came after %v", took)
		}
		if queries := healthQueries(f); len(queries) != 2 || !queries[1].URL.Query().Has("consistent") {
			t.Errorf("%d queries; want a second, consistent one", len(queries))
		}
	})
}

func TestEmptyOnOneServerOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeAgent(entry("1", 80))
		r, _ := open(t, f)
		w := watch(t, r)
		expect(t, w, "1")
		f.answerWith(func(r *http.Request) (*http.Response, error) { // a server that lags says there are none
			if !r.URL.Query().Has("stale") {
				return nil, nil
			}
			response := reply(http.StatusOK, "[]")
			response.Header.Set("X-Consul-Index", "50")
			return response, nil
		})
		untilQuiet(t, w, 10*time.Second)
	})
}

func TestEmptyForLessThanTheGrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeAgent(entry("1", 80))
		r, _ := open(t, f)
		w := watch(t, r)
		expect(t, w, "1")
		f.set()
		time.AfterFunc(time.Second, func() { f.set(entry("1", 80)) })
		untilQuiet(t, w, 10*time.Second)
		f.set()
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond) // a context that ends in between takes no news away
		if _, err := w.Next(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Next in the grace: %v", err)
		}
		cancel()
		expect(t, w)
	})
}

func TestStaleBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeAgent(entry("1", 80))
		r, _ := open(t, f, func(c *consul.Config) { c.MaxStale = 5 * time.Second })
		f.setHeader("X-Consul-LastContact", "5001")
		expect(t, watch(t, r), "1")
		if q := healthQueries(f); !q[0].URL.Query().Has("stale") || q[1].URL.Query().Has("stale") || q[1].URL.Query().Has("index") {
			t.Errorf("asked were %v and %v; want a stale answer, and the leader's", q[0].URL, q[1].URL)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		f := newFakeAgent(entry("1", 80))
		r, _ := open(t, f, func(c *consul.Config) { c.Consistency = consul.ConsistencyDefault })
		expect(t, watch(t, r), "1")
		if q := healthQueries(f)[0].URL.Query(); q.Has("stale") {
			t.Errorf("the query has %v; want none that is stale", q)
		}
	})
}
