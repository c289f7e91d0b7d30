package consul_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/0x1d/goplt/pkg/registry"
	"github.com/0x1d/goplt/pkg/registry/consul"
)

const beatPath = "/v1/agent/check/update/service:auth:auth-1"

// found returns the one instance that a fresh watch sees.
func found(t *testing.T, r *consul.Registry) registry.Instance {
	t.Helper()
	w := watch(t, r)
	defer w.Close()
	set, err := w.Next(t.Context())
	if err != nil || len(set) != 1 {
		t.Fatalf("found %v, %v; want one instance", set, err)
	}
	return set[0]
}

// hang answers nothing until the request's context ends.
func hang(r *http.Request) (*http.Response, error) {
	<-r.Context().Done()
	return nil, r.Context().Err()
}

// What the agent forgets it is told again as it was updated, under the same revision: clients go on with what they know.
func TestForgottenIsRegisteredAgainAsUpdated(t *testing.T) {
	for _, check := range []consul.CheckKind{consul.CheckGRPC, consul.CheckTTL, consul.CheckNone} {
		t.Run(string(check), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFakeAgent()
				r, _ := open(t, f, kind(check))
				registration := register(t, r, instance())
				if err := registration.Update(t.Context(), 3, map[string]string{"stage": "canary"}); err != nil {
					t.Fatal(err)
				}
				before := found(t, r)
				if before.Weight != 3 || before.Metadata["stage"] != "canary" {
					t.Errorf("updated, it is %+v", before)
				}
				registration.SetHealth(registry.HealthCritical, "no database")
				f.set() // the agent forgets
				pass(10 * time.Second)
				sent := f.asked(registerPath)
				if last := sent[len(sent)-1].body; check != consul.CheckNone && !strings.Contains(last, `"Status":"critical"`) {
					t.Errorf("it is critical, and registered again as %s", last)
				}
				if check != consul.CheckNone {
					expect(t, watch(t, r))
				}
				registration.SetHealth(registry.HealthPassing, "")
				f.set()
				pass(10 * time.Second)
				after := found(t, r)
				if diff := cmp.Diff(before, after); diff != "" {
					t.Errorf("registered again it is another (-before +after):\n%s", diff)
				}
			})
		})
	}
}

// An update whose answer is lost has failed, so it is undone if the agent made it.
func TestUpdateWhoseAnswerIsLostIsUndone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeAgent()
		r, logged := open(t, f)
		registration := register(t, r, instance())
		before := found(t, r)
		f.answerWith(func(r *http.Request) (*http.Response, error) {
			if r.URL.Path != registerPath {
				return nil, nil // the fake agent answers
			}
			if sent := f.asked(registerPath); !strings.Contains(sent[len(sent)-1].body, `"Passing":9`) {
				return nil, nil
			}
			if _, err := f.register([]byte(f.asked(registerPath)[1].body)); err != nil {
				return nil, err
			}
			return reply(http.StatusInternalServerError, "the answer is lost"), nil
		})
		if err := registration.Update(t.Context(), 9, nil); err == nil || !strings.Contains(err.Error(), "the answer is lost") {
			t.Errorf("Update: %v", err)
		}
		if got := found(t, r).Weight; got != 9 {
			t.Fatalf("the agent has weight %d, so this proves nothing", got)
		}
		pass(time.Second)
		if diff := cmp.Diff(before, found(t, r)); diff != "" {
			t.Errorf("after an update that failed (-before +after):\n%s", diff)
		}
		pass(time.Minute)
		if got := len(f.asked(registerPath)); got != 3 {
			t.Errorf("registered %d times, want the first, the update and its undoing", got)
		}
		if got := logged.count("level="); got != 0 {
			t.Errorf("logged:\n%s", logged.lines.String())
		}
	})
}

func TestUpdateThatIsRefusedIsNotTriedAgain(t *testing.T) {
	for code, mark := range map[int]error{http.StatusForbidden: consul.ErrForbidden, http.StatusBadRequest: consul.ErrRefused} {
		synctest.Test(t, func(t *testing.T) {
			f := newFakeAgent()
			r, _ := open(t, f)
			registration := register(t, r, instance())
			f.answerWith(always(code, "no"))
			if err := registration.Update(t.Context(), 9, nil); !errors.Is(err, mark) {
				t.Errorf("Update: %v; want %v", err, mark)
			}
			f.answerWith(nil)
			pass(time.Minute)
			if got := len(f.asked(registerPath)); got != 2 {
				t.Errorf("registered %d times", got)
			}
			if err := registration.Update(t.Context(), 8, nil); err != nil || found(t, r).Weight != 8 {
				t.Errorf("the next update: %v", err)
			}
		})
	}
}

// An update that the agent does not answer ends with its context, and keeps nobody from deregistering.
func TestUpdateAtAnAgentThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeAgent()
		r, _ := open(t, f)
		registration := register(t, r, instance())
		f.answerWith(func(r *http.Request) (*http.Response, error) {
			if r.URL.Path == registerPath {
				return hang(r)
			}
			return nil, nil // the fake agent answers
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		if err := registration.Update(ctx, 9, nil); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != time.Second {
			t.Errorf("Update = %v after %v, want the end of its context after 1s", err, time.Since(began))
		}
		updated := make(chan error, 1)
		go func() { updated <- registration.Update(t.Context(), 9, nil) }()
		synctest.Wait()
		began = time.Now()
		if err := registration.Deregister(t.Context()); err != nil || time.Since(began) != time.Second {
			t.Errorf("Deregister = %v after %v, want success after 1s", err, time.Since(began))
		}
		if err := <-updated; !errors.Is(err, registry.ErrClosed) {
			t.Errorf("the update that was cut off: %v; want ErrClosed", err)
		}
		if got := len(f.asked(deregisterPath)); got != 1 {
			t.Errorf("deregistered %d times", got)
		}
	})
}

// A TTL check hears of a change at once, and of its lasting with each sign of life. An agent that asks by itself is told nothing.
func TestSetHealth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeAgent()
		r, _ := open(t, f, kind(consul.CheckTTL), func(c *consul.Config) { c.RemovalGrace = 0 })
		registration := register(t, r, instance())
		w := watch(t, r)
		expect(t, w, "auth-1")
		for _, step := range []struct {
			health registry.Health
			note   string
			status string
			output string
			want   []string
		}{
			{registry.HealthCritical, "no database", "critical", "no database", []string{}},
			{registry.HealthWarning, "", "warning", "the process that registered the instance says so", []string{"auth-1"}},
			{registry.HealthCritical, "", "critical", "the process that registered the instance says so", []string{}},
			{registry.HealthUnknown, "", "passing", "the process that registered the instance lives", []string{"auth-1"}},
		} {
			pass(20 * time.Second)
			before, began := len(f.asked(beatPath)), time.Now()
			registration.SetHealth(step.health, step.note)
			registration.SetHealth(step.health, step.note) // is no change
			expect(t, w, step.want...)
			pass(20 * time.Second)
			beats := f.asked(beatPath)[before:]
			if beats[0].at != began {
				t.Errorf("the agent heard %q after %v", step.status, beats[0].at.Sub(began))
			}
			if len(beats) < 4 || len(beats) > 7 {
				t.Errorf("%d signs of life in 20s, where the TTL is 15s", len(beats))
			}
			for _, beat := range beats {
				if want := `{"Status":"` + step.status + `","Output":"` + step.output + `"}`; strings.TrimSpace(beat.body) != want {
					t.Errorf("the agent was told %s, want %s", beat.body, want)
				}
			}
		}
	})
	for _, check := range []consul.CheckKind{consul.CheckGRPC, consul.CheckNone} {
		synctest.Test(t, func(t *testing.T) {
			f := newFakeAgent()
			r, _ := open(t, f, kind(check))
			registration := register(t, r, instance())
			before := len(f.asked(""))
			registration.SetHealth(registry.HealthCritical, "no database")
			synctest.Wait()
			if told := len(f.asked("")) - before; told != 0 {
				t.Errorf("%s: told %d times, want none: it has no place for it, or asks by itself", check, told)
			}
		})
	}
}

// Whoever says something else every millisecond does not make the agent, and the servers behind it, hear that often; the last word gets through.
func TestHealthThatFlapsIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeAgent()
		r, _ := open(t, f, kind(consul.CheckTTL))
		registration := register(t, r, instance())
		for range 5000 {
			registration.SetHealth(registry.HealthCritical, "")
			pass(time.Millisecond)
			registration.SetHealth(registry.HealthPassing, "")
			pass(time.Millisecond)
		}
		if got := len(f.asked(beatPath)); got > 23 {
			t.Errorf("%d signs of life in 10s, want two a second", got)
		}
		registration.SetHealth(registry.HealthCritical, "at last")
		pass(501 * time.Millisecond)
		beats := f.asked(beatPath)
		if last := beats[len(beats)-1].body; !strings.Contains(last, "at last") {
			t.Errorf("half a second after the last word the agent has heard %s", last)
		}
	})
}

// A check of the same ID that the agent has from an earlier process keeps its status over a registration: a sign of life follows at once.
func TestRegisteringAgainIsPassing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeAgent(entry("auth:auth-1", 80, "critical"))
		r, _ := open(t, f, kind(consul.CheckTTL))
		register(t, r, instance())
		synctest.Wait()
		if got := found(t, r).ID; got != "auth-1" {
			t.Errorf("found %q", got)
		}
	})
}
