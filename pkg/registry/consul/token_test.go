package consul_test

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/0x1d/goplt/pkg/registry/consul"
)

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
