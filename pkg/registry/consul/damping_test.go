package consul_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/0x1d/goplt/pkg/registry"
	"github.com/0x1d/goplt/pkg/registry/consul"
)

// expectHealth fails unless the next set has the given instances, each "ID health weight".
func expectHealth(t *testing.T, w registry.Watcher, want ...string) {
	t.Helper()
	set, err := w.Next(t.Context())
	if err != nil {
		t.Fatalf("Next: %v", err)
	}
	got := make([]string, len(set))
	for at, i := range set {
		got[at] = fmt.Sprintf("%s %s %d", i.ID, i.Health, i.Weight)
	}
	if !slices.Equal(got, want) {
		t.Fatalf("the set is %q, want %q", got, want)
	}
}

// twoWith returns instances 1 and 2 of service auth, where a check of the second has the given status.
func twoWith(status string) []*api.ServiceEntry {
	return []*api.ServiceEntry{entry("1", 80, api.HealthPassing), entry("2", 81, api.HealthPassing, status)}
}

func TestRemovalIsDampedAndAdditionIsNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeAgent(twoWith(api.HealthPassing)...)
		r, _ := open(t, f)
		w := watch(t, r)
		expectHealth(t, w, "1 passing 5", "2 passing 5")
		synctest.Wait()
		began := time.Now()
		f.set(twoWith(api.HealthCritical)...)
		expectHealth(t, w, "1 passing 5", "2 critical 5")
		if took := time.Since(began); took != 0 {
			t.Errorf("the check's failure was reported after %v", took)
		}
		expectHealth(t, w, "1 passing 5")
		if took := time.Since(began); took < 3*time.Second || took > 3600*time.Millisecond {
			t.Errorf("the instance left after %v, want 3s", took)
		}
		untilQuiet(t, w, time.Minute)
		began = time.Now()
		f.set(twoWith(api.HealthWarning)...)
		expectHealth(t, w, "1 passing 5", "2 warning 2")
		if took := time.Since(began); took != 0 {
			t.Errorf("the instance came back after %v", took)
		}

		f.set(twoWith(api.HealthCritical)...)
		expectHealth(t, w, "1 passing 5", "2 critical 2")
		pass(2 * time.Second) // of the test's own time
		f.set(twoWith(api.HealthPassing)...)
		expectHealth(t, w, "1 passing 5", "2 passing 5") // it never left
		untilQuiet(t, w, 10*time.Second)
	})
}

// Who was never well, or is not where it was, has no grace.
func TestNoGraceForWhatNeverPassed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeAgent(twoWith(api.HealthCritical)...)
		r, _ := open(t, f)
		w := watch(t, r)
		expect(t, w, "1")
		f.set(twoWith(api.HealthPassing)...)
		expect(t, w, "1", "2")
		moved := twoWith(api.HealthCritical)
		moved[1].Service.Port = 99
		f.set(moved...)
		expect(t, w, "1")
	})
	synctest.Test(t, func(t *testing.T) {
		f := newFakeAgent(twoWith(api.HealthPassing)...)
		r, _ := open(t, f, func(c *consul.Config) { c.RemovalGrace = 0 })
		w := watch(t, r)
		expect(t, w, "1", "2")
		f.set(twoWith(api.HealthCritical)...)
		expect(t, w, "1")
	})
}

// Deregistration is somebody's word, a failing check may be noise.
func TestDeregistrationIsNotDamped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeAgent(twoWith(api.HealthPassing)...)
		r, _ := open(t, f)
		w := watch(t, r)
		expect(t, w, "1", "2")
		f.set(twoWith(api.HealthCritical)...)
		expectHealth(t, w, "1 passing 5", "2 critical 5")
		began := time.Now()
		f.set(entry("1", 80, api.HealthPassing)) // in the grace
		expect(t, w, "1")
		if took := time.Since(began); took > time.Second {
			t.Errorf("the deregistered instance left after %v", took)
		}
	})
}

// Fault 14.
func TestFlappingCheckTearsDownNothing(t *testing.T) {
	for _, row := range []struct {
		period  time.Duration
		indexed bool
	}{
		{200 * time.Millisecond, false}, {400 * time.Millisecond, false}, // 5 Hz, either way to count
		{250 * time.Millisecond, true}, {500 * time.Millisecond, true}, {100 * time.Millisecond, true}, // with which looks may beat
	} {
		t.Run(row.period.String(), func(t *testing.T) {
			for _, offset := range []time.Duration{row.period / 8, row.period * 3 / 8, row.period * 5 / 8} { // never at the moment of a look
				synctest.Test(t, func(t *testing.T) {
					f := newFakeAgent(twoWith(api.HealthPassing)...)
					r, _ := open(t, f)
					w := watch(t, r)
					expect(t, w, "1", "2")
					pass(offset)
					var flapping sync.WaitGroup
					flapping.Go(func() {
						for at := range int(time.Minute / row.period * 2) {
							next := twoWith([]string{api.HealthCritical, api.HealthPassing}[at%2])
							if row.indexed {
								next[1].Checks[1].ModifyIndex = uint64(100 + at)
							}
							f.set(next...)
							pass(row.period / 2) // of the test's own time
						}
					})
					before := len(healthQueries(f))
					ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
					defer cancel()
					for {
						set, err := w.Next(ctx)
						if ctx.Err() != nil {
							break
						}
						if err != nil || len(set) != 2 {
							t.Errorf("the set is %v, %v", set, err)
						}
					}
					flapping.Wait()
					if asked := len(healthQueries(f)) - before; asked > 125 {
						t.Errorf("%d queries in a minute", asked)
					}
				})
			}
		})
	}
}

// A check that stays critical is none that flaps, whatever the instance's other checks do.
func TestFlappingNeighbourOfACriticalCheck(t *testing.T) {
	for target, steady := range map[string]string{"consul:///auth": api.HealthCritical, "consul:///auth?passing=true": api.HealthWarning} {
		t.Run(target, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFakeAgent(entry("1", 80, api.HealthPassing), entry("2", 81, api.HealthPassing, api.HealthPassing))
				r, _ := open(t, f)
				w := watch(t, r, target)
				expect(t, w, "1", "2")
				var flapping sync.WaitGroup
				flapping.Go(func() {
					for at := range 60 {
						failing := entry("2", 81, steady, []string{api.HealthCritical, api.HealthPassing}[at%2])
						failing.Checks[0].ModifyIndex, failing.Checks[1].ModifyIndex = 50, uint64(100+at)
						f.set(entry("1", 80, api.HealthPassing), failing)
						pass(500 * time.Millisecond) // of the test's own time
					}
				})
				began := time.Now()
				for {
					set, err := w.Next(t.Context())
					if err != nil {
						t.Fatal(err)
					}
					if len(set) == 1 {
						break
					}
				}
				if took := time.Since(began); took > 4*time.Second {
					t.Errorf("the instance left after %v, want 3s", took)
				}
				flapping.Wait()
			})
		})
	}
}

// All checks fail at once: each has its grace, then the rules of an empty set hold.
func TestAllCriticalIsConfirmedAndHonoured(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeAgent(entry("1", 80, api.HealthPassing), entry("2", 80, api.HealthPassing))
		r, _ := open(t, f)
		w := watch(t, r)
		expect(t, w, "1", "2")
		began, before := time.Now(), len(healthQueries(f))
		f.set(entry("1", 80, api.HealthCritical), entry("2", 80, api.HealthCritical))
		expectHealth(t, w, "1 critical 5", "2 critical 5")
		expect(t, w)
		if took := time.Since(began); took < 5*time.Second || took > 6500*time.Millisecond {
			t.Errorf("the empty set came after %v, want 3s and 2s", took)
		}
		if !slices.ContainsFunc(healthQueries(f)[before:], func(q request) bool { return q.URL.Query().Has("consistent") }) {
			t.Error("no consistent read confirmed it")
		}
		f.set(entry("1", 80, api.HealthCritical), entry("2", 80, api.HealthPassing))
		expectHealth(t, w, "2 passing 5") // the first has had its grace
	})
}

// A target of passing instances alone takes a warning for a failure.
func TestWarningIsDampedWherePassingIsWanted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeAgent(twoWith(api.HealthPassing)...)
		r, _ := open(t, f)
		w := watch(t, r, "consul:///auth?passing=true")
		expect(t, w, "1", "2")
		f.set(twoWith(api.HealthWarning)...)
		expectHealth(t, w, "1 passing 5", "2 warning 5")
		expect(t, w, "1")
	})
}

// What happens while the agent is away is not seen, so it is no part of a grace.
func TestOutageRestartsTheGrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeAgent(twoWith(api.HealthPassing)...)
		r, _ := open(t, f)
		w := watch(t, r)
		expect(t, w, "1", "2")
		f.set(twoWith(api.HealthCritical)...)
		expectHealth(t, w, "1 passing 5", "2 critical 5")
		f.answerWith(func(*http.Request) (*http.Response, error) { return nil, errors.New("connection refused") })
		expectError(t, w, nil)
		pass(10 * time.Second) // of the test's own time
		f.answerWith(nil)
		began := time.Now()
		for {
			set, err := w.Next(t.Context())
			if err == nil && len(set) == 1 {
				break
			}
		}
		if took := time.Since(began); took < 13*time.Second || took > 16*time.Second {
			t.Errorf("the instance left %v after the outage, want the 15s of one", took)
		}
	})
}

// Fault 13.
func TestMaintenance(t *testing.T) {
	for name, others := range map[string][]*api.ServiceEntry{"of one": {entry("1", 80, api.HealthPassing)}, "of all": nil} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				well := append(slices.Clone(others), entry("2", 80, api.HealthPassing))
				f := newFakeAgent(well...)
				r, _ := open(t, f)
				w := watch(t, r)
				all, rest := []string{"1", "2"}, []string{"1"}
				if others == nil {
					all, rest = []string{"2"}, nil
				}
				expect(t, w, all...)
				for _, check := range []string{"_service_maintenance:2", "_node_maintenance"} {
					in := entry("2", 80, api.HealthPassing)
					in.Checks = append(in.Checks, &api.HealthCheck{CheckID: check, Status: api.HealthCritical})
					began := time.Now()
					f.set(append(slices.Clone(others), in)...)
					expect(t, w, rest...)
					if took := time.Since(began); took > time.Second {
						t.Errorf("maintenance was seen after %v", took)
					}
					f.set(well...)
					expect(t, w, all...)
				}
			})
		})
	}
}

// An agent that is back with its data says of each check that it fails, until it has run.
func TestChecksBeginAnewAfterAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeAgent(entry("1", 80), entry("2", 81))
		r, _ := open(t, f)
		w := watch(t, r)
		expect(t, w, "1", "2")
		f.answerWith(func(*http.Request) (*http.Response, error) { return nil, errors.New("connection refused") })
		expectError(t, w, nil)
		f.set(entry("1", 80, "critical"), entry("2", 81, "critical"))
		f.answerWith(nil)
		expect(t, w, "1", "2")
		pass(8 * time.Second)
		f.set(entry("1", 80), entry("2", 81, "critical"))
		expect(t, w, "1", "2")
		pass(2 * time.Second)
		f.set(entry("1", 80), entry("2", 81))
		expect(t, w, "1", "2")
		f.set(entry("1", 80), entry("2", 81, "critical"))
		expect(t, w, "1", "2")
		expect(t, w, "1") // in time, as ever
	})
}
