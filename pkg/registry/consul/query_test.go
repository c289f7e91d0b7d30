package consul_test

import (
	"net/http"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/0x1d/goplt/pkg/registry/consul"
)

const prepared = "consul:///nearest?query=auth&dc=eu"

func executions(f *fakeAgent) []request { return f.asked("/v1/query/") }

func TestPreparedQueryIsPolled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeAgent(entry("1", 80))
		r, _ := open(t, f, func(c *consul.Config) { c.Namespace = "n" })
		w := watch(t, r, prepared)
		expect(t, w, "1")
		f.set(entry("1", 80), entry("2", 80))
		began := time.Now()
		expect(t, w, "1", "2")
		if took := time.Since(began); took < 9*time.Second || took > 11*time.Second {
			t.Errorf("the change was seen after %v, want 10s and a tenth", took)
		}
		f.update(func() { delete(f.services, "2@node-1") })
		expect(t, w, "1")
		pass(10 * time.Minute) // of the test's own time
		queries := executions(f)
		if len(queries) < 58 || len(queries) > 66 {
			t.Errorf("%d executions in ten minutes", len(queries))
		}
		gaps := make(map[time.Duration]bool)
		for at := range queries[1:] {
			gaps[queries[at+1].at.Sub(queries[at].at)] = true
		}
		if len(gaps) < len(queries)/2 {
			t.Errorf("%d of %d gaps differ; want jitter", len(gaps), len(queries)-1)
		}
		if got := queries[0].URL; got.Path != "/v1/query/auth/execute" || got.RawQuery != "dc=eu&ns=n&stale=" {
			t.Errorf("the query is %s", got)
		}
	})
}

// The rules of evidence are those of any question.
func TestPreparedQueryThatFindsNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeAgent(entry("1", 80))
		r, _ := open(t, f, func(c *consul.Config) { c.Token = "secret" })
		w := watch(t, r, prepared)
		expect(t, w, "1")
		f.setHeader("X-Consul-Results-Filtered-By-Acls", "true")
		f.set()
		expectError(t, w, consul.ErrForbidden)
		f.setHeader("X-Consul-Results-Filtered-By-Acls", "false")
		expect(t, w)
		if !slices.ContainsFunc(executions(f), func(q request) bool { return q.URL.Query().Has("consistent") }) {
			t.Error("no consistent execution confirmed it")
		}
		f.set(entry("1", 80, api.HealthCritical), entry("2", 80))
		expect(t, w, "2")
		for name, script := range map[string]func(*http.Request) (*http.Response, error){
			"unknown": always(http.StatusNotFound, "Query not found"), "null": always(http.StatusOK, "null"), "no list": always(http.StatusOK, "{}"),
		} {
			f.answerWith(script)
			if err := expectError(t, w, nil); name == "unknown" && err.Error() !=
				`consul agent agent.test:8500: execute prepared query "auth" in datacenter "eu": status 404: "Query not found"` {
				t.Errorf("%s: %v", name, err)
			}
		}
		f.answerWith(nil)
		untilQuiet(t, w, time.Minute)
	})
}
