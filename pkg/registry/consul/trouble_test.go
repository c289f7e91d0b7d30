package consul_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/0x1d/goplt/pkg/registry"
	"github.com/0x1d/goplt/pkg/registry/consul"
)

// Fault 6.
func TestServerErrorsKeepTheSet(t *testing.T) {
	for _, code := range []int{http.StatusInternalServerError, http.StatusTooManyRequests, http.StatusServiceUnavailable, http.StatusFound} {
		t.Run(strconv.Itoa(code), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFakeAgent(entry("1", 80))
				r, logged := open(t, f)
				w := watch(t, r)
				expect(t, w, "1")
				f.answerWith(always(code, "No cluster leader"))
				began := len(healthQueries(f))
				for range 12 {
					err := expectError(t, w, nil)
					if want := `consul agent agent.test:8500: query service "auth": status ` + strconv.Itoa(code) + `: "No cluster leader"`; err.Error() != want {
						t.Fatalf("got %s\nwant %s", err, want)
					}
				}
				queries := healthQueries(f)[began:]
				for at := 2; at < len(queries); at++ {
					gap := queries[at].at.Sub(queries[at-1].at)
					if low := min(30*time.Second, 500*time.Millisecond<<(at-2)) / 2; gap < low || gap > 30*time.Second {
						t.Errorf("the gap before try %d is %v, want %v to 30s", at, gap, low)
					}
				}
				f.answerWith(nil)
				untilQuiet(t, w, 40*time.Second) // well again, with the set that it had
				f.set(entry("1", 80), entry("2", 80))
				expect(t, w, "1", "2")
				for message, want := range map[string]int{"the watch fails": 1, "the watch works again": 1} {
					if got := logged.count(message); got != want {
						t.Errorf("%q is logged %d times, want %d", message, got, want)
					}
				}
			})
		})
	}
}

// Consul does not say which datacenter it is that it has no path to.
func TestUnknownDatacenterIsNamed(t *testing.T) {
	for _, row := range []struct{ name, target, configured, want string }{
		{"of the target", "consul:///auth?dc=us", "", `query service "auth" in datacenter "us"`},
		{"to fail over to", "consul:///auth?failover=us", "", `query service "auth" in datacenter "us"`},
		{"configured", "consul:///auth", "us", `query service "auth" in datacenter "us"`},
		{"of a prepared query", "consul:///auth?query=near&dc=us", "", `execute prepared query "near" in datacenter "us"`},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFakeAgent()
				f.answerWith(func(r *http.Request) (*http.Response, error) {
					if r.URL.Query().Get("dc") == "us" {
						return always(http.StatusInternalServerError, "No path to datacenter")(r)
					}
					return nil, nil
				})
				r, logged := open(t, f, func(c *consul.Config) { c.Datacenter = row.configured })
				target, err := registry.ParseTarget(row.target)
				if err != nil {
					t.Fatal(err)
				}
				w, err := r.Watch(target)
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = w.Close() }()
				if _, err = w.Next(t.Context()); err == nil || !strings.Contains(err.Error(), row.want+`: status 500: "No path to datacenter"`) {
					t.Errorf("got %v, want %s", err, row.want)
				}
				if logged.count("the watch fails; no instances are known yet") != 1 || logged.count("the last instances stand") != 0 {
					t.Error("the log does not say that there are no instances yet")
				}
			})
		})
	}
}

func TestRefusedIsSurfacedAndSeldomRetried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeAgent(entry("1", 80))
		r, _ := open(t, f)
		w := watch(t, r)
		expect(t, w, "1")
		f.answerWith(always(http.StatusBadRequest, `Invalid query parameter: "ns"`))
		err := expectError(t, w, consul.ErrRefused)
		want := `consul: request refused: consul agent agent.test:8500: query service "auth": status 400: "Invalid query parameter: \"ns\""`
		if err.Error() != want {
			t.Errorf("got %s\nwant %s", err, want)
		}
		before := len(healthQueries(f))
		untilQuiet(t, w, 2*time.Minute)
		if asked := len(healthQueries(f)) - before; asked < 1 || asked > 8 {
			t.Errorf("%d queries in two minutes after 400", asked)
		}
	})
}

// Fault 5.
func TestAgentHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeAgent(entry("1", 80))
		r, _ := open(t, f, func(c *consul.Config) { c.Wait = 32 * time.Second })
		w := watch(t, r)
		expect(t, w, "1")
		f.answerWith(func(r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			return nil, r.Context().Err()
		})
		began := time.Now()
		expectError(t, w, context.DeadlineExceeded)
		if took := time.Since(began); took != 44*time.Second {
			t.Errorf("the query was given up after %v, want wait + wait/16 + 10s = 44s", took)
		}
		f.answerWith(nil)
		f.set(entry("2", 80))
		expect(t, w, "2")
	})
}

// Fault 10.
func TestUnbelievableAnswers(t *testing.T) {
	huge := func(length int64) func(*http.Request) (*http.Response, error) {
		return func(*http.Request) (*http.Response, error) {
			body := io.MultiReader(strings.NewReader(`[{"Node":{"Node":"`), io.LimitReader(letters{}, 64<<20), strings.NewReader(`"}}]`))
			return &http.Response{StatusCode: http.StatusOK, Header: make(http.Header), Body: io.NopCloser(body), ContentLength: length}, nil
		}
	}
	for name, row := range map[string]struct {
		script func(*http.Request) (*http.Response, error)
		want   string
	}{
		"truncated":         {always(http.StatusOK, `[{"Node":{"Node":"n`), "unexpected EOF"},
		"no body":           {always(http.StatusOK, ``), "EOF"},
		"not JSON":          {always(http.StatusOK, `<html>`), "invalid character '<'"},
		"null":              {always(http.StatusOK, `null`), "the answer is null, not a list"},
		"another type":      {always(http.StatusOK, `{"a":1}`), "cannot unmarshal object"},
		"64 MiB":            {huge(-1), "the answer is larger than 32 MiB"},
		"64 MiB, announced": {huge(64 << 20), "the answer is larger than 32 MiB"},
		"64 MiB of error": {func(r *http.Request) (*http.Response, error) {
			response, _ := huge(-1)(r)
			response.StatusCode = 500
			return response, nil
		}, "status 500"},
		"connection is lost":  {func(*http.Request) (*http.Response, error) { return nil, io.ErrUnexpectedEOF }, "unexpected EOF"},
		"content and no list": {always(http.StatusOK, `"x"`), "cannot unmarshal string"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFakeAgent(entry("1", 80))
				r, _ := open(t, f)
				w := watch(t, r)
				expect(t, w, "1")
				f.answerWith(row.script)
				err := expectError(t, w, nil)
				if !strings.Contains(err.Error(), row.want) || !strings.HasPrefix(err.Error(), `consul agent agent.test:8500: query service "auth": `) {
					t.Errorf("got %v\nwant %s", err, row.want)
				}
				if len(err.Error()) > 4096 {
					t.Errorf("the error is %d bytes long", len(err.Error()))
				}
				f.answerWith(nil)
				untilQuiet(t, w, time.Minute)
			})
		})
	}
}

// letters reads as 'a' without end.
type letters struct{}

func (letters) Read(into []byte) (int, error) {
	for at := range into {
		into[at] = 'a'
	}
	return len(into), nil
}

// Consul 1.22 answers 500 to a filter that it cannot parse.
func TestWrongFilterIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeAgent()
		f.answerWith(always(http.StatusInternalServerError, `Failed to create boolean expression evaluator: 1:10 (9): no match found`))
		r, _ := open(t, f)
		expectError(t, watch(t, r, "consul:///auth?filter=Service.X"), consul.ErrRefused)
		if err := expectError(t, watch(t, r), nil); errors.Is(err, consul.ErrRefused) {
			t.Errorf("without a filter: %v", err)
		}
	})
}

// When Consul answers again the watcher is told, also where nothing has changed: else it would take the error for lasting.
func TestTheEndOfAnErrorIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeAgent(entry("1", 80))
		r, _ := open(t, f)
		w, err := r.Watch(registry.Target{Service: "auth"})
		if err != nil {
			t.Fatal(err)
		}
		expect(t, w, "1")
		f.answerWith(always(http.StatusInternalServerError, "no"))
		expectError(t, w, nil)
		f.answerWith(nil)
		expect(t, w, "1")
		untilQuiet(t, w, time.Minute) // once
	})
}
