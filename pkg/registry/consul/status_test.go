package consul_test

import (
	"errors"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/0x1d/goplt/pkg/registry/consul"
)

// statusOf returns the status of the only question, and fails unless it is in the wanted state.
func statusOf(t *testing.T, r *consul.Registry, want consul.WatchState) consul.WatchStatus {
	t.Helper()
	all := r.Status()
	if len(all) != 1 {
		t.Fatalf("%d statuses: %+v", len(all), all)
	}
	if all[0].State != want {
		t.Fatalf("the state is %q, want %q: %+v", all[0].State, want, all[0])
	}
	return all[0]
}

func TestStatus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeAgent(entry("1", 80), entry("2", 80))
		r, _ := open(t, f)
		w, other := watch(t, r, "consul:///auth?passing=true&dc=eu"), watch(t, r, "consul:///auth?dc=eu&passing=1")
		waiting := statusOf(t, r, consul.StateWaiting)
		if waiting.Target != "consul:///auth?dc=eu&passing=true" || waiting.Agent != "agent.test:8500" || waiting.Watchers != 2 || waiting.Queries != 0 ||
			!waiting.Answered.IsZero() {
			t.Errorf("before the first Next: %+v", waiting)
		}
		pass(time.Second) // of the test's own time
		began := time.Now()
		expect(t, w, "1", "2")
		synctest.Wait()
		ok := statusOf(t, r, consul.StateOK)
		if ok.Instances != 2 || ok.Err != nil || !ok.Since.Equal(began) || !ok.Answered.Equal(began) || ok.Index != 11 || ok.Queries != 2 {
			t.Errorf("when all is well: %+v", ok)
		}

		f.answerWith(func(*http.Request) (*http.Response, error) { return nil, errors.New("connection refused") })
		failed := expectError(t, w, nil)
		failing := statusOf(t, r, consul.StateFailing)
		if !errors.Is(failing.Err, failed) || failing.Instances != 2 || !failing.Answered.Equal(began) {
			t.Errorf("out of reach: %+v", failing)
		}
		f.answerWith(always(http.StatusForbidden, "no"))
		expectError(t, w, consul.ErrForbidden)
		statusOf(t, r, consul.StateForbidden)
		f.answerWith(always(http.StatusBadRequest, "no"))
		expectError(t, w, consul.ErrRefused)
		statusOf(t, r, consul.StateRefused)
		f.answerWith(nil)
		f.set()
		pass(time.Minute)
		if grace := statusOf(t, r, consul.StateEmptyGrace); grace.Instances != 2 || grace.Err != nil {
			t.Errorf("in the grace: %+v", grace)
		}
		expect(t, w)
		if empty := statusOf(t, r, consul.StateOK); empty.Instances != 0 {
			t.Errorf("empty: %+v", empty)
		}
		for _, closed := range []interface{ Close() error }{w, other} {
			if err := closed.Close(); err != nil {
				t.Error(err)
			}
		}
		if all := r.Status(); len(all) != 0 {
			t.Errorf("after the last Close: %+v", all)
		}
	})
}
