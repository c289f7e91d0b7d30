package consul_test

import (
	"context"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/0x1d/goplt/pkg/registry"
	"github.com/0x1d/goplt/pkg/registry/consul"
)

const chained = "consul:///auth?dc=eu&failover=us,ap"

// datacenters is an agent that knows one instance in each of eu, us and ap.
func datacenters() *fakeAgent {
	f := newFakeAgent()
	for _, name := range []string{"eu", "us", "ap"} {
		f.setIn(name, entry(name+"-1", 80))
	}
	return f
}

// cut lets the agent answer for no datacenter of those named.
func (f *fakeAgent) cut(names ...string) {
	f.answerWith(func(r *http.Request) (*http.Response, error) {
		for _, name := range names {
			if r.URL.Query().Get("dc") == name {
				return reply(http.StatusInternalServerError, "No path to datacenter"), nil
			}
		}
		return nil, nil
	})
}

// servingOf returns which question's instances stand, as the status says.
func servingOf(t *testing.T, r *consul.Registry) string {
	t.Helper()
	for _, status := range r.Status() {
		if status.Target == "consul:///auth?dc=eu&failover=us%2Cap" {
			return status.Serving
		}
	}
	t.Fatalf("no status of the target: %+v", r.Status())
	return ""
}

func TestFailover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := datacenters()
		r, logged := open(t, f)
		w := watch(t, r, chained)
		expect(t, w, "eu-1")
		synctest.Wait()
		if got := len(r.Status()); got != 4 {
			t.Errorf("%d statuses, want those of three datacenters and the target", got)
		}
		began := time.Now()
		f.setIn("eu")
		expect(t, w, "us-1")
		if took := time.Since(began); took < 2*time.Second || took > 3*time.Second {
			t.Errorf("failed over after %v, want the grace of an empty set", took)
		}
		if got := servingOf(t, r); got != "consul:///auth?dc=us" {
			t.Errorf("the status says that %q serves", got)
		}
		f.setIn("us", entry("us-1", 80), entry("us-2", 80))
		expect(t, w, "us-1", "us-2")
		f.setIn("us")
		expect(t, w, "ap-1")
		f.setIn("eu", entry("eu-2", 80))
		began = time.Now()
		expect(t, w, "eu-2")
		if took := time.Since(began); took > time.Second {
			t.Errorf("the first datacenter is back after %v", took)
		}
		f.setIn("eu")
		expect(t, w, "ap-1")
		f.setIn("ap")
		expect(t, w) // there are none anywhere
		f.setIn("us", entry("us-3", 80))
		expect(t, w, "us-3")
		for message, want := range map[string]int{"another datacenter takes over": 4, "the first datacenter serves again": 1} {
			if got := logged.count(message); got != want {
				t.Errorf("%q is logged %d times, want %d", message, got, want)
			}
		}
	})
}

// A datacenter that does not answer keeps its last good set: an error is not an empty set, and no reason to send calls across the world.
func TestFailoverIsNotForErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := datacenters()
		r, _ := open(t, f)
		w := watch(t, r, chained)
		expect(t, w, "eu-1")
		f.cut("eu")
		expectError(t, w, nil)
		untilQuiet(t, w, time.Minute)
		if got := servingOf(t, r); got != "consul:///auth?dc=eu" {
			t.Errorf("the status says that %q serves", got)
		}
		f.cut("us", "ap") // those in reserve are nobody's trouble
		untilQuiet(t, w, time.Minute)
		f.setIn("eu", entry("eu-2", 80))
		expect(t, w, "eu-2")
		for _, status := range r.Status() {
			if status.Target == "consul:///auth?dc=us" && status.State != consul.StateFailing {
				t.Errorf("the datacenter in reserve is %+v", status)
			}
		}
	})
}

func TestDatacenterThatNeverAnsweredIsPassedOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := datacenters()
		f.cut("eu")
		r, _ := open(t, f)
		w := watch(t, r, chained)
		began := time.Now()
		for { // the error of the first may come before
			set, err := w.Next(t.Context())
			if err == nil && set[0].ID == "us-1" {
				break
			}
		}
		if took := time.Since(began); took != 0 {
			t.Errorf("passed over after %v, want at once as it failed", took)
		}
		f.cut()
		for {
			set, err := w.Next(t.Context())
			if err == nil && set[0].ID == "eu-1" {
				break
			}
		}
	})
	synctest.Test(t, func(t *testing.T) { // or is silent
		f := datacenters()
		f.answerWith(func(r *http.Request) (*http.Response, error) {
			if r.URL.Query().Get("dc") != "eu" {
				return nil, nil
			}
			<-r.Context().Done()
			return nil, r.Context().Err()
		})
		r, _ := open(t, f)
		began := time.Now()
		expect(t, watch(t, r, chained), "us-1")
		if took := time.Since(began); took != 2*time.Second {
			t.Errorf("passed over after %v", took)
		}
	})
}

// None is known only where all say so.
func TestNoInstancesNeedsEachDatacenter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := datacenters()
		f.setIn("eu")
		f.setIn("ap")
		f.cut("us")
		r, _ := open(t, f)
		w := watch(t, r, chained)
		expectError(t, w, nil)
		untilQuiet(t, w, time.Minute)
		f.setIn("us")
		f.cut()
		expect(t, w)
		f.setIn("us", entry("us-1", 80))
		expect(t, w, "us-1")
	})
	synctest.Test(t, func(t *testing.T) { // but what served, and then says that it has none, is believed
		f := datacenters()
		f.cut("eu", "ap")
		r, _ := open(t, f)
		w := watch(t, r, chained)
		for {
			if set, err := w.Next(t.Context()); err == nil && set[0].ID == "us-1" {
				break
			}
		}
		f.setIn("us")
		for {
			set, err := w.Next(t.Context())
			if err == nil && len(set) == 0 {
				break
			} else if err == nil {
				t.Fatalf("the set is %v", set)
			}
		}
	})
}

func TestFailoverSharesItsDatacenters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := datacenters()
		r, _ := open(t, f, func(c *consul.Config) { c.Datacenter, c.Failover = "eu", []string{"us", "ap"} })
		watchers := []registry.Watcher{watch(t, r), watch(t, r, chained), watch(t, r, "consul:///auth?failover=us"), watch(t, r, "consul:///auth?dc=us")}
		for at, want := range []string{"eu-1", "eu-1", "eu-1", "us-1"} {
			expect(t, watchers[at], want)
		}
		synctest.Wait()
		if got := len(healthQueries(f)); got != 6 {
			t.Errorf("%d queries, want two for each of three datacenters", got)
		}
		for _, w := range watchers {
			if err := w.Close(); err != nil {
				t.Error(err)
			}
		}
		if all := r.Status(); len(all) != 0 {
			t.Errorf("left over: %+v", all)
		}
	})
}

// The error of a datacenter that is preferred lasts while another one serves: it is over when that one answers, and not news with each try.
func TestErrorOfThePreferredDatacenterLasts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := datacenters()
		f.cut("eu")
		r, _ := open(t, f)
		w := watch(t, r, chained).(*onlyNews).Watcher
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
		defer cancel()
		sets, errs := 0, 0
		for {
			set, err := w.Next(ctx)
			if ctx.Err() != nil {
				break
			}
			if err != nil {
				errs++
			} else {
				sets++
				if set[0].ID != "us-1" {
					t.Errorf("the set is %v", set)
				}
			}
			if sets == 1 && errs == 1 {
				f.setIn("us", entry("us-1", 81)) // wakes who serves
			}
			for _, status := range r.Status() {
				if status.Serving != "" && errs > 0 && status.Err == nil {
					t.Errorf("after %d errors and %d sets the status is %+v", errs, sets, status)
				}
			}
		}
		if sets != 2 || errs < 10 {
			t.Errorf("%d sets and %d errors, want 2 sets and an error with each try", sets, errs)
		}
		f.cut()
		if set, err := w.Next(t.Context()); err != nil || set[0].ID != "eu-1" {
			t.Errorf("Next = %v, %v", set, err)
		}
	})
}
