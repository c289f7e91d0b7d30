package consul_test

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/consul/api"

	"github.com/0x1d/goplt/pkg/registry"
	"github.com/0x1d/goplt/pkg/registry/consul"
)

// IDs at an agent are unique among all services, and a second service with the same one would silently take the first one's place.
func TestOneIDInTwoServices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeAgent()
		r, _ := open(t, f)
		auth, audit := instance(), instance()
		audit.Service = "audit"
		register(t, r, auth)
		registration := register(t, r, audit)
		expect(t, watch(t, r), "auth-1")
		expect(t, watch(t, r, "audit"), "auth-1")
		if err := registration.Deregister(t.Context()); err != nil {
			t.Fatal(err)
		}
		expect(t, watch(t, r), "auth-1")
	})
}

// What an instance says of itself does not become what the registry keeps beside it.
func TestReservedMetadata(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeAgent()
		r, _ := open(t, f)
		given := instance()
		given.Metadata = map[string]string{"zone": "a", "goplt-zone": "b", "goplt-weight": "0"}
		register(t, r, given)
		found, err := watch(t, r).Next(t.Context())
		if err != nil || len(found) != 1 {
			t.Fatalf("found %v, %v", found, err)
		}
		given.Revision, given.Health, given.Metadata = found[0].Revision, registry.HealthPassing, map[string]string{"zone": "a"}
		if diff := cmp.Diff(given, found[0]); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

func TestDeregisterDoesNotWaitForASignOfLife(t *testing.T) {
	for name, check := range map[string]func(context.Context, *consul.Registry, registry.Registration) error{
		"deregister": func(ctx context.Context, _ *consul.Registry, r registry.Registration) error { return r.Deregister(ctx) },
		"close":      func(_ context.Context, r *consul.Registry, _ registry.Registration) error { return r.Close() },
		"replace": func(ctx context.Context, r *consul.Registry, _ registry.Registration) error {
			_, err := r.Register(ctx, instance())
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFakeAgent()
				r, _ := open(t, f, kind(consul.CheckTTL))
				registration := register(t, r, instance())
				synctest.Wait() // for the first sign of life
				before := len(f.asked("/v1/agent/check/update/"))
				f.answerWith(func(r *http.Request) (*http.Response, error) {
					if strings.HasPrefix(r.URL.Path, "/v1/agent/check/update/") {
						<-r.Context().Done()
						return nil, r.Context().Err()
					}
					return nil, nil // the fake agent answers
				})
				pass(6 * time.Second)
				if beats := f.asked("/v1/agent/check/update/"); len(beats) != before+1 {
					t.Fatalf("%d signs of life, want one under way", len(beats)-before)
				}
				began := time.Now()
				if err := check(t.Context(), r, registration); err != nil || time.Since(began) != time.Second {
					t.Errorf("got %v after %v, want success after 1s", err, time.Since(began))
				}
			})
		})
	}
}

// However much hangs, Close takes ten seconds: a sign of life, a deregistration, and a registration under way, which leaves nothing behind.
func TestCloseIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeAgent()
		r, _ := open(t, f, kind(consul.CheckTTL))
		register(t, r, instance())
		f.answerWith(func(r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			return nil, r.Context().Err()
		})
		pass(6 * time.Second)
		late := instance()
		late.ID = "late"
		failed := make(chan error, 2)
		for range cap(failed) { // one after another, so that the second ends after Close
			go func() {
				_, err := r.Register(t.Context(), late)
				failed <- err
			}()
		}
		pass(time.Second)
		began := time.Now()
		if err := r.Close(); err == nil || time.Since(began) != 10*time.Second {
			t.Errorf("Close returned %v after %v, want an error after 10s", err, time.Since(began))
		}
		f.answerWith(nil)
		for range cap(failed) {
			if err := <-failed; err == nil {
				t.Error("a registration outlives Close")
			}
		}
		asked := len(f.asked("/"))
		pass(time.Minute)
		if got := len(f.asked("/")); got != asked {
			t.Errorf("%d requests after Close", got-asked)
		}
	})
}

func TestNothingIsKeptOfWhatWasDeregistered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeAgent()
		r, _ := open(t, f)
		slots := func(when string, want int) {
			t.Helper()
			if got := r.Slots(); got != want {
				t.Errorf("%s: %d slots, want %d", when, got, want)
			}
		}
		first := register(t, r, instance())
		second := register(t, r, instance())
		slots("registered twice", 1)
		if err := first.Deregister(t.Context()); err != nil {
			t.Error(err)
		}
		slots("deregistered what was replaced", 1)
		f.answerWith(always(http.StatusInternalServerError, "no"))
		if err := second.Deregister(t.Context()); err == nil {
			t.Error("deregistered by an agent that refuses")
		}
		slots("not deregistered", 1)
		other := instance()
		other.ID = "auth-2"
		if _, err := r.Register(t.Context(), other); err == nil {
			t.Error("registered by an agent that refuses")
		}
		slots("not registered", 1)
		f.answerWith(nil)
		for range 2 {
			if err := second.Deregister(t.Context()); err != nil {
				t.Error(err)
			}
			slots("deregistered", 0)
		}
		third := register(t, r, instance())
		if err := second.Deregister(t.Context()); err != nil {
			t.Error(err)
		}
		expect(t, watch(t, r), "auth-1")
		slots("registered again", 1)
		if err := third.Deregister(t.Context()); err != nil {
			t.Error(err)
		}
		slots("all deregistered", 0)
	})
}

func TestCloseReportsWhatItCouldNotDeregister(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeAgent()
		r, _ := open(t, f)
		registration := register(t, r, instance())
		f.answerWith(func(r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			return nil, r.Context().Err()
		})
		began := time.Now()
		if err := r.Close(); err == nil || time.Since(began) != 10*time.Second {
			t.Errorf("Close returned %v after %v, want an error after 10s", err, time.Since(began))
		}
		if err := registration.Deregister(t.Context()); err != nil {
			t.Errorf("deregister after Close: %v", err)
		}
	})
}

// A process that was killed leaves its registration, which must not stand beside the one of its successor at the same port.
func TestRegisterEvictsTheDeadAtItsAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		at := func(id, service, host string, port int) *api.ServiceEntry {
			e := entry(id, port)
			e.Service.Service, e.Service.Address = service, host
			return e
		}
		f := newFakeAgent(at("dead", "auth", "::1", 80), at("port", "auth", "::1", 81), at("host", "auth", "::2", 80), at("service", "audit", "::1", 80))
		r, logged := open(t, f)
		stranger := instance()
		stranger.ID = "stranger" // does not say that it has its address for itself
		if err := register(t, r, stranger).Deregister(t.Context()); err != nil {
			t.Fatal(err)
		}
		expect(t, watch(t, r), "dead", "host", "port")
		given := instance()
		given.Metadata = map[string]string{registry.MetadataHealth: given.ID}
		registration := register(t, r, given)
		pass(time.Second) // of the test's own time, until the watch that is shared has seen it
		expect(t, watch(t, r), "auth-1", "host", "port")
		expect(t, watch(t, r, "audit"), "service")
		if got := logged.count("left=dead"); got != 1 {
			t.Errorf("the eviction is logged %d times:\n%s", got, logged.lines.String())
		}

		if err := registration.Deregister(t.Context()); err != nil {
			t.Fatal(err)
		}
		f.answerWith(func(r *http.Request) (*http.Response, error) {
			if r.URL.Path == "/v1/agent/services" {
				return reply(http.StatusForbidden, "no"), nil
			}
			return nil, nil // the fake agent answers
		})
		register(t, r, given) // does without what it may not see
		if got := logged.count("stays until its check fails"); got != 1 {
			t.Errorf("the failure is logged %d times:\n%s", got, logged.lines.String())
		}
	})
}

// An agent's check presents no certificate: such an instance would never be healthy, without a word.
func TestRegisterRefusesGRPCChecksOfMutualTLS(t *testing.T) {
	given := instance()
	given.Metadata = map[string]string{registry.MetadataTLS: registry.TLSMutual}
	for _, check := range []consul.CheckKind{consul.CheckGRPC, consul.CheckTTL, consul.CheckNone} {
		synctest.Test(t, func(t *testing.T) {
			f := newFakeAgent()
			r, _ := open(t, f, kind(check))
			_, err := r.Register(t.Context(), given)
			if check != consul.CheckGRPC {
				if err != nil {
					t.Errorf("%s: %v", check, err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), "demands client certificates") || !strings.Contains(err.Error(), "set check.kind to ttl") {
				t.Errorf("%s: %v", check, err)
			}
			if asked := f.asked(""); len(asked) != 0 {
				t.Errorf("%d requests", len(asked))
			}
		})
	}
}
