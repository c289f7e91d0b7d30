package consul_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/0x1d/goplt/pkg/registry"
	"github.com/0x1d/goplt/pkg/registry/consul"
)

func healthQueries(f *fakeAgent) []request { return f.asked("/v1/health/") }

// untilQuiet lets Next run for a time in which no set may come.
func untilQuiet(t *testing.T, w registry.Watcher, d time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	for {
		set, err := w.Next(ctx)
		if err == nil {
			t.Fatalf("a set came: %v", set)
		}
		if ctx.Err() != nil {
			return
		}
	}
}

func TestWatchQuery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeAgent(entry("1", 80), entry("2", 80))
		f.services["2@node-1"].Service.Tags = []string{"blue"}
		r, _ := open(t, f, func(c *consul.Config) {
			c.Wait, c.Token, c.Namespace, c.Partition = 20*time.Second, "secret", "ns1", "p1"
		})
		w := watch(t, r, "consul:///auth?tag=blue&dc=eu")
		expect(t, w, "2")
		untilQuiet(t, w, 30*time.Second)
		queries := healthQueries(f)
		if got, want := queries[0].URL.String(), "http://agent.test:8500/v1/health/service/auth?dc=eu&ns=ns1&partition=p1&stale=&tag=blue"; got != want {
			t.Errorf("the first query\n got %s\nwant %s", got, want)
		}
		if got := queries[1].URL.Query(); got.Get("index") != "11" || got.Get("wait") != "20000ms" {
			t.Errorf("the second query has %v", got)
		}
		if got := queries[1].Header.Get("X-Consul-Token"); got != "secret" {
			t.Errorf("the token sent is %q", got)
		}
		for _, q := range queries {
			if strings.Contains(q.URL.String(), "secret") || q.URL.Query().Has("near") {
				t.Errorf("the query is %s", q.URL)
			}
		}
	})
}

func TestOtherAgentByAuthority(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeAgent(entry("1", 80))
		r, _ := open(t, f)
		expect(t, watch(t, r, "consul://[::1]:8501/auth"), "1")
		expect(t, watch(t, r, "consul://agent.test:8500/auth"), "1")
		if queries := healthQueries(f); queries[0].URL.Host != "[::1]:8501" || queries[1].URL.Host != "agent.test:8500" {
			t.Errorf("asked were %s and %s", queries[0].URL.Host, queries[1].URL.Host)
		}
	})
}

// Fault 1.
func TestIndexGoesBackwards(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeAgent(entry("1", 80))
		f.index = 100
		r, _ := open(t, f)
		w := watch(t, r)
		expect(t, w, "1")
		go f.update(func() { f.index = 5 }) // the servers' state was restored; the content is the same
		untilQuiet(t, w, 5*time.Second)
		queries := healthQueries(f)
		if got := queries[len(queries)-2].URL.Query(); got.Has("index") {
			t.Errorf("after the index went backwards the query has index %s, want none, which is 0", got.Get("index"))
		}
		began := time.Now()
		f.set(entry("2", 80))
		expect(t, w, "2")
		if took := time.Since(began); took > time.Second {
			t.Errorf("the update was seen after %v", took)
		}
	})
}

// Fault 2.
func TestIndexUnusable(t *testing.T) {
	for _, index := range []string{"0", "", "garbage", "-1", "18446744073709551616"} {
		t.Run("index "+index, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFakeAgent(entry("1", 80))
				f.setHeader("X-Consul-Index", index)
				r, _ := open(t, f)
				w := watch(t, r)
				expect(t, w, "1")
				untilQuiet(t, w, time.Minute)
				queries := healthQueries(f)
				for _, q := range queries[1:] {
					if got := q.URL.Query().Get("index"); got != "1" {
						t.Fatalf("the query after has index %q, want 1", got)
					}
				}
				if len(queries) > 125 {
					t.Errorf("%d queries in a minute", len(queries))
				}
			})
		})
	}
}

// Fault 3.
func TestIndexChurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeAgent(entry("1", 80))
		r, _ := open(t, f)
		w := watch(t, r)
		expect(t, w, "1")
		churn, stop := context.WithCancel(t.Context())
		defer stop()
		go func() {
			for ticker := time.NewTicker(time.Millisecond); churn.Err() == nil; {
				select {
				case <-ticker.C:
					f.update(func() {})
				case <-churn.Done():
					ticker.Stop()
				}
			}
		}()
		before := len(healthQueries(f))
		untilQuiet(t, w, time.Minute)
		if asked := len(healthQueries(f)) - before; asked > 125 {
			t.Errorf("%d queries in a minute of churn", asked)
		}
		began := time.Now()
		f.set(entry("2", 80))
		expect(t, w, "2")
		if took := time.Since(began); took > time.Second {
			t.Errorf("a change in the churn was seen after %v", took)
		}
	})
}

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

// Fault 7.
func TestForbiddenRecoversWithTheTokenFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "token")
		write := func(token string) {
			if err := os.WriteFile(file, []byte(token+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		write("old")
		f := newFakeAgent(entry("1", 80))
		r, logged := open(t, f, func(c *consul.Config) { c.TokenFile = file })
		w := watch(t, r)
		expect(t, w, "1")
		f.answerWith(func(r *http.Request) (*http.Response, error) {
			if r.Header.Get("X-Consul-Token") == "new" {
				return nil, nil
			}
			return reply(http.StatusForbidden, "ACL not found"), nil
		})
		before := len(healthQueries(f))
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		for ctx.Err() == nil {
			if set, err := w.Next(ctx); ctx.Err() == nil && !errors.Is(err, consul.ErrForbidden) {
				t.Fatalf("Next = %v, %v; want ErrForbidden", set, err)
			}
		}
		if asked := len(healthQueries(f)) - before; asked > 60 {
			t.Errorf("%d queries in ten minutes of 403", asked)
		}
		if got := logged.count("level=ERROR"); got != 1 {
			t.Errorf("%d errors are logged, want 1", got)
		}
		f.set(entry("2", 80))
		write("new")
		began := time.Now()
		expect(t, w, "2")
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("the new token was used after %v", took)
		}
		if logged.count("new") != 0 {
			t.Error("the token is in the log")
		}
	})
}

func TestTokenFileThatComesAndGoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "token")
		f := newFakeAgent(entry("1", 80))
		r, logged := open(t, f, func(c *consul.Config) { c.TokenFile, c.Wait = file, time.Second })
		w := watch(t, r)
		if err := expectError(t, w, consul.ErrForbidden); !strings.Contains(err.Error(), file) || len(healthQueries(f)) != 0 {
			t.Errorf("without the file: %v after %d requests", err, len(healthQueries(f)))
		}
		if err := os.WriteFile(file, []byte("first"), 0o600); err != nil {
			t.Fatal(err)
		}
		expect(t, w, "1")
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
		untilQuiet(t, w, 10*time.Second)
		queries := healthQueries(f)
		if got := queries[len(queries)-1].Header.Get("X-Consul-Token"); got != "first" {
			t.Errorf("the token sent without a file is %q, want the last good one", got)
		}
		if got := logged.count("the token file cannot be read"); got != 1 {
			t.Errorf("logged %d times", got)
		}
	})
}

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
		began, before := time.Now(), len(healthQueries(f))
		f.set()
		expect(t, w)
		if took := time.Since(began); took < 3*time.Second || took > 4*time.Second {
			t.Errorf("the empty set came after %v, want the grace of 3s", took)
		}
		second := healthQueries(f)[before+1].URL.Query()
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
			f.index = 3
			f.set()
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFakeAgent(entry("1", 80), entry("2", 80))
				r, _ := open(t, f)
				w := watch(t, r)
				expect(t, w, "1", "2")
				outage(t, f, w)
				untilQuiet(t, w, 50*time.Second)
				f.set(entry("1", 80)) // the first is back
				expect(t, w, "1")
				began := time.Now()
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

// Fault 12.
func TestBadServiceNameMakesNoRequest(t *testing.T) {
	f := newFakeAgent()
	r, _ := open(t, f)
	for _, target := range []registry.Target{
		{Service: "../kv/x"},
		{Scheme: "consul", Service: "a/../../kv/x"},
		{Service: "auth", Params: map[string]string{"tag": ""}},
		{Service: "auth", Params: map[string]string{"passing": "perhaps"}},
		{Service: "auth", Params: map[string]string{"near": "_agent"}},
	} {
		if _, err := r.Watch(target); !errors.Is(err, registry.ErrInvalidTarget) {
			t.Errorf("Watch(%v): %v", target, err)
		}
	}
	bad := registry.Instance{ID: "../kv/x", Service: "auth", Host: "h", Port: 1}
	if _, err := r.Register(t.Context(), bad); !errors.Is(err, registry.ErrInvalidInstance) {
		t.Errorf("Register: %v", err)
	}
	if asked := f.asked("/"); len(asked) != 0 {
		t.Errorf("requested: %v", asked[0].URL)
	}
}

// Fault 13.
func TestMaintenance(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeAgent(entry("1", 80, api.HealthPassing), entry("2", 80, api.HealthPassing))
		r, _ := open(t, f)
		w := watch(t, r)
		expect(t, w, "1", "2")
		for _, check := range []string{"_service_maintenance:2", "_node_maintenance"} {
			in := entry("2", 80, api.HealthPassing)
			in.Checks = append(in.Checks, &api.HealthCheck{CheckID: check, Status: api.HealthCritical})
			began := time.Now()
			f.set(entry("1", 80, api.HealthPassing), in)
			expect(t, w, "1")
			if took := time.Since(began); took > time.Second {
				t.Errorf("maintenance was seen after %v", took)
			}
			f.set(entry("1", 80, api.HealthPassing), entry("2", 80, api.HealthPassing))
			expect(t, w, "1", "2")
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

func TestStaleBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeAgent(entry("1", 80))
		r, _ := open(t, f, func(c *consul.Config) { c.MaxStale = 5 * time.Second })
		f.setHeader("X-Consul-LastContact", "5001")
		expect(t, watch(t, r), "1")
		queries := healthQueries(f)
		if len(queries) != 2 || !queries[0].URL.Query().Has("stale") || queries[1].URL.Query().Has("stale") {
			t.Errorf("%d queries; want a stale one and one of the leader", len(queries))
		}
	})
	synctest.Test(t, func(t *testing.T) {
		f := newFakeAgent(entry("1", 80))
		r, _ := open(t, f, func(c *consul.Config) { c.Stale = false })
		expect(t, watch(t, r), "1")
		if queries := healthQueries(f); len(queries) != 1 || queries[0].URL.Query().Has("stale") {
			t.Errorf("%d queries; want one that is not stale", len(queries))
		}
	})
}

func TestCloseEndsTheQuery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeAgent(entry("1", 80))
		r, _ := open(t, f)
		w := watch(t, r)
		expect(t, w, "1")
		ended := make(chan error)
		go func() {
			_, err := w.Next(t.Context())
			ended <- err
		}()
		synctest.Wait() // until the query waits
		began := time.Now()
		go w.Close()
		if err := <-ended; !errors.Is(err, registry.ErrClosed) || time.Since(began) != 0 {
			t.Errorf("Next ended after %v: %v", time.Since(began), err)
		}
		queries := healthQueries(f)
		if queries[len(queries)-1].Context().Err() == nil {
			t.Error("the query goes on")
		}
	})
}
