package consul_test

import (
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/0x1d/goplt/pkg/registry"
	"github.com/0x1d/goplt/pkg/registry/consul"
)

const registerPath, deregisterPath = "/v1/agent/service/register", "/v1/agent/service/deregister/"

func kind(kind consul.CheckKind) func(*consul.Config) {
	return func(c *consul.Config) { c.Check.Kind = kind }
}

func instance() registry.Instance {
	return registry.Instance{ID: "auth-1", Service: "auth", Host: "::1", Port: 80, Weight: 7}
}

func register(t *testing.T, r *consul.Registry, instance registry.Instance) registry.Registration {
	t.Helper()
	registration, err := r.Register(t.Context(), instance)
	if err != nil {
		t.Fatal(err)
	}
	return registration
}

func TestRegisterDefinition(t *testing.T) {
	type object = map[string]any
	for name, row := range map[string]struct {
		config   func(*consul.Config)
		instance func(*registry.Instance)
		want     object
	}{
		"gRPC": {
			func(*consul.Config) {}, func(*registry.Instance) {},
			object{"Check": object{
				"CheckID": "service:auth:auth-1", "Name": "grpc.health.v1", "GRPC": "[::1]:80", "Interval": "5s", "Timeout": "2s", "Status": "passing",
				"DeregisterCriticalServiceAfter": "1m0s",
			}},
		},
		"gRPC with TLS": {
			func(c *consul.Config) {
				c.Check.TLS, c.Check.TLSServerName, c.Check.DeregisterCriticalAfter = true, "auth.internal", 0
			},
			func(i *registry.Instance) {
				i.Zone, i.Tags, i.Metadata = "eu", []string{"a"}, map[string]string{"protocol": "http"}
			},
			object{
				"Tags": []any{"a"}, "Meta": object{"goplt-zone": "eu", "protocol": "http"},
				"Check": object{
					"CheckID": "service:auth:auth-1", "Name": "grpc.health.v1", "GRPC": "[::1]:80", "Interval": "5s", "Timeout": "2s", "Status": "passing",
					"GRPCUseTLS": true, "TLSServerName": "auth.internal",
				},
			},
		},
		"gRPC, an instance with a health name of its own that speaks TLS": {
			func(*consul.Config) {},
			func(i *registry.Instance) {
				i.Metadata = map[string]string{"goplt-health": "auth-1", "goplt-tls": "true"}
			},
			object{
				"Meta": object{"goplt-health": "auth-1", "goplt-tls": "true"},
				"Check": object{
					"CheckID": "service:auth:auth-1", "Name": "grpc.health.v1", "GRPC": "[::1]:80/auth-1", "Interval": "5s", "Timeout": "2s",
					"Status": "passing", "DeregisterCriticalServiceAfter": "1m0s", "GRPCUseTLS": true, "TLSServerName": "::1",
				},
			},
		},
		"TTL": {
			kind(consul.CheckTTL), func(*registry.Instance) {},
			object{"Check": object{
				"CheckID": "service:auth:auth-1", "Name": "heartbeat of the process that registered the instance", "TTL": "15s", "Status": "passing",
				"DeregisterCriticalServiceAfter": "1m0s",
			}},
		},
		"none, weight 0": {
			kind(consul.CheckNone), func(i *registry.Instance) { i.Weight = 0 },
			object{"Check": nil, "Meta": object{"goplt-weight": "0"}, "Weights": object{"Passing": 1.0, "Warning": 0.0}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFakeAgent()
				r, _ := open(t, f, row.config)
				given := instance()
				row.instance(&given)
				register(t, r, given)
				want := object{
					"ID": "auth:auth-1", "Name": "auth", "Address": "::1", "Port": 80.0, "Weights": object{"Passing": 7.0, "Warning": 1.0}, "Checks": nil,
				}
				maps.Copy(want, row.want)
				sent := f.asked(registerPath)[0]
				var got object
				if err := json.Unmarshal([]byte(sent.body), &got); err != nil {
					t.Fatal(err)
				}
				meta, _ := got["Meta"].(object)
				if revision, _ := meta["goplt-revision"].(string); revision == "" || revision == "0" {
					t.Errorf("the revision is %q", revision)
				}
				delete(meta, "goplt-revision") // is random
				if len(meta) == 0 {
					delete(got, "Meta")
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("the definition (-want +got):\n%s", diff)
				}
				if sent.URL.Query().Has("replace-existing-checks") {
					t.Error("replaces all checks, and so would end an operator's maintenance")
				}
				found, err := watch(t, r).Next(t.Context())
				if err != nil || len(found) != 1 {
					t.Fatalf("found %v, %v", found, err)
				}
				given.Revision = found[0].Revision
				if check, _ := want["Check"].(object); check != nil {
					given.Health = registry.HealthPassing
				}
				if diff := cmp.Diff(given, found[0]); diff != "" {
					t.Errorf("what is found is not what was registered (-want +got):\n%s", diff)
				}
			})
		})
	}
}

func TestHeartbeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeAgent()
		r, _ := open(t, f, kind(consul.CheckTTL))
		began := time.Now()
		register(t, r, instance())
		pass(time.Minute)
		beats := f.asked("/v1/agent/check/update/service:auth:auth-1")
		if beats[0].at != began {
			t.Errorf("the first sign of life came after %v, want it at once: the agent may know the ID, as critical", beats[0].at.Sub(began))
		}
		for at, beat := range beats {
			if at > 1 && (beat.at.Sub(beats[at-1].at) > 5*time.Second || beat.at.Sub(beats[at-1].at) < 3750*time.Millisecond) {
				t.Errorf("sign of life %d came %v after the last, want up to a third of the TTL of 15s", at, beat.at.Sub(beats[at-1].at))
			}
			if !strings.Contains(beat.body, `"Status":"passing"`) {
				t.Errorf("the sign of life is %s", beat.body)
			}
		}
		if len(beats) < 12 || len(beats) > 17 {
			t.Errorf("%d signs of life in a minute, want 12 or a few more", len(beats))
		}
	})
}

func TestForgottenIsRegisteredAgain(t *testing.T) {
	for _, check := range []consul.CheckKind{consul.CheckGRPC, consul.CheckTTL, consul.CheckNone} {
		t.Run(string(check), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFakeAgent()
				r, logged := open(t, f, kind(check))
				register(t, r, instance())
				pass(time.Minute)
				if got := len(f.asked(registerPath)); got != 1 {
					t.Errorf("registered %d times before the agent forgot", got)
				}
				f.answerWith(always(http.StatusInternalServerError, "down")) // the agent is restarted, empty
				f.set()
				pass(time.Minute)
				f.answerWith(nil)
				pass(31 * time.Second)
				expect(t, watch(t, r), "auth-1")
				registered := f.asked(registerPath)
				if len(registered) != 2 || registered[0].body != registered[1].body {
					t.Errorf("registered %d times", len(registered))
				}
				for message, want := range map[string]int{"cannot be kept up": 1, "registered again": 1, "in order again": 1} {
					if got := logged.count(message); got != want {
						t.Errorf("%q is logged %d times, want %d", message, got, want)
					}
				}
			})
		})
	}
}

func TestDeregister(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeAgent()
		r, _ := open(t, f, kind(consul.CheckTTL))
		registration := register(t, r, instance())
		synctest.Wait() // for the first sign of life
		before := len(f.asked("/v1/agent/check/"))
		f.answerWith(always(http.StatusInternalServerError, "no"))
		want := `consul agent agent.test:8500: deregister "auth:auth-1": status 500: "no"`
		if err := registration.Deregister(t.Context()); err == nil || err.Error() != want {
			t.Errorf("got %v\nwant %s", err, want)
		}
		f.answerWith(nil)
		pass(time.Minute)
		if beats := f.asked("/v1/agent/check/"); len(beats) != before {
			t.Errorf("%d signs of life after Deregister", len(beats)-before)
		}
		for range 2 {
			if err := registration.Deregister(t.Context()); err != nil {
				t.Errorf("deregister again: %v", err)
			}
		}
		if got := len(f.asked(deregisterPath + "auth:auth-1")); got != 2 {
			t.Errorf("%d requests, want that which failed and one more", got)
		}
	})
}

func TestDeregisterWhatTheAgentForgot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeAgent()
		r, _ := open(t, f)
		registration := register(t, r, instance())
		f.set()
		if err := registration.Deregister(t.Context()); err != nil {
			t.Errorf("deregister: %v", err)
		}
	})
}

func TestRegisterErrors(t *testing.T) {
	for code, mark := range map[int]error{
		http.StatusForbidden: consul.ErrForbidden, http.StatusBadRequest: consul.ErrRefused, http.StatusInternalServerError: nil,
	} {
		synctest.Test(t, func(t *testing.T) {
			f := newFakeAgent()
			r, _ := open(t, f)
			f.answerWith(always(code, "why"))
			_, err := r.Register(t.Context(), instance())
			if err == nil || mark != nil && !errors.Is(err, mark) || !strings.Contains(err.Error(), `register "auth:auth-1": status`) {
				t.Errorf("%d: %v", code, err)
			}
			pass(time.Minute)
			if asked := f.asked("/v1/agent/"); len(asked) != 1 {
				t.Errorf("%d requests; a registration that failed has no upkeep", len(asked))
			}
		})
	}
}

// The registration that is to be replaced stays, with its upkeep, if the new one is refused.
func TestFailedReplacementKeepsTheFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeAgent()
		r, _ := open(t, f)
		first := register(t, r, instance())
		f.answerWith(always(http.StatusBadRequest, "no"))
		if _, err := r.Register(t.Context(), instance()); !errors.Is(err, consul.ErrRefused) {
			t.Fatalf("Register: %v", err)
		}
		f.answerWith(nil)
		f.set()
		pass(time.Minute)
		expect(t, watch(t, r), "auth-1")
		if err := first.Deregister(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// pass lets synthetic time pass.
func pass(d time.Duration) { <-time.NewTimer(d).C }
