//go:build integration

package goplt_test

import (
	"context"
	"encoding/json"
	"errors"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/0x1d/goplt/internal/consultest"
)

// TestREADMEWithConsul executes the snippets with three instances and a Consul agent, the second as README says, once each instance has said that
// it is registered, and goes on calling while each of them in turn is killed and started again. The calls of ValidateToken never pause, so that one may be under way at an instance when it dies, and is sent again. Login is
// not idempotent, and one that was under way would rightly fail: it is called before, between and after.
func TestREADMEWithConsul(t *testing.T) {
	agent := consultest.Start(t)
	sh := newShell(t)
	var instances []*process
	var resolve, login string
	for _, s := range snippets(t) {
		if s.run != "consul" {
			continue
		}
		for line := range strings.Lines(strings.ReplaceAll(s.text, "127.0.0.1:8500", agent.Address)) {
			line = strings.ReplaceAll(strings.TrimSpace(line), "consul:///", "consul://"+agent.Address+"/")
			if background, ok := strings.CutSuffix(line, " &"); ok {
				instances = append(instances, sh.start(t, background))
				continue
			}
			for _, instance := range instances {
				instance.awaitRegistered(t)
			}
			t.Logf("%s\n%s", line, sh.mustRun(t, line))
			switch {
			case strings.HasPrefix(line, "goplt resolve "):
				resolve = line
			case strings.HasPrefix(line, "goplt call auth.Login "):
				login = line
			}
		}
	}
	if len(instances) != 3 || resolve == "" || login == "" {
		t.Fatalf("the snippet starts %d instances, resolves by %q and calls by %q", len(instances), resolve, login)
	}
	for _, instance := range instances {
		sh.awaitResolved(t, resolve, instance.addr)
	}
	validations := sh.validateOnAndOn(t, agent.Address, sh.mustRun(t, login))

	for _, instance := range instances {
		instance.kill(t)
		for range 5 {
			sh.mustRun(t, login)
		}
		validations.await(t, 3)
		instance.restart(t)
		for range 5 {
			sh.mustRun(t, login)
		}
		validations.await(t, 3)
		sh.awaitResolved(t, resolve, instance.addr) // else the next to be killed may be the last that Consul names
	}
	sh.awaitOnly(t, resolve, instances)
	validations.stop()
	t.Logf("%d calls of auth.ValidateToken", validations.made.Load())
}

// restart starts a killed process again, at the port it had.
func (p *process) restart(t *testing.T) {
	t.Helper()
	p.line = strings.Replace(p.line, "127.0.0.1:0", p.addr, 1)
	p.run(t)
}

// awaitResolved runs a goplt resolve until it shows an instance at addr.
func (sh *shell) awaitResolved(t *testing.T, resolve, addr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		out, err := sh.command(ctx, resolve).CombinedOutput()
		if ctx.Err() != nil {
			t.Fatalf("%s does not show %s: %v\n%s", resolve, addr, err, out)
		}
		if strings.Contains(string(out), addr+" ") {
			return
		}
	}
}

// awaitOnly runs a goplt resolve until it shows each of the instances once and nothing else, such as what they were before they were killed.
func (sh *shell) awaitOnly(t *testing.T, resolve string, instances []*process) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		out, err := sh.command(ctx, resolve).CombinedOutput()
		if ctx.Err() != nil {
			t.Fatalf("%s shows others than the %d instances: %v\n%s", resolve, len(instances), err, out)
		}
		if err == nil && strings.Count(string(out), "\n") == 1+len(instances) && // a head line, and a line each
			!slices.ContainsFunc(instances, func(p *process) bool { return !strings.Contains(string(out), p.addr+" ") }) {
			return
		}
	}
}

func (sh *shell) mustRun(t *testing.T, line string) string {
	t.Helper()
	out, err := sh.command(t.Context(), line).Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", line, err, stderr(err))
	}
	return string(out)
}

func stderr(err error) string {
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return string(exit.Stderr)
	}
	return ""
}

// validations are calls of auth.ValidateToken, one after the other, each by a process of its own. One that fails fails the test.
type validations struct {
	made     atomic.Int64
	progress chan struct{}
	stop     func()
}

// validateOnAndOn starts the calls, with the access token in what a login printed.
func (sh *shell) validateOnAndOn(t *testing.T, agent, login string) *validations {
	t.Helper()
	var answer struct{ Tokens struct{ AccessToken string } }
	if err := json.Unmarshal([]byte(login), &answer); err != nil || answer.Tokens.AccessToken == "" {
		t.Fatalf("no access token in what a login prints: %v\n%s", err, login)
	}
	line := "exec goplt call auth.ValidateToken '{\"token\":\"" + answer.Tokens.AccessToken + "\"}' --registry consul://" + agent
	ctx, cancel := context.WithCancel(t.Context())
	v := &validations{progress: make(chan struct{}, 1)}
	var caller sync.WaitGroup
	v.stop = func() {
		cancel()
		caller.Wait()
	}
	t.Cleanup(v.stop)
	caller.Go(func() {
		for ctx.Err() == nil {
			if _, err := sh.command(ctx, line).Output(); err != nil && ctx.Err() == nil {
				t.Errorf("auth.ValidateToken: %v\n%s", err, stderr(err))
			}
			v.made.Add(1)
			select {
			case v.progress <- struct{}{}:
			default:
			}
		}
	})
	return v
}

// await waits until so many further calls were made.
func (v *validations) await(t *testing.T, calls int64) {
	t.Helper()
	for until := v.made.Load() + calls; v.made.Load() < until; {
		select {
		case <-v.progress:
		case <-t.Context().Done():
			t.Fatal(t.Context().Err())
		}
	}
}

// TestREADMEWithTools executes the snippets that need the developer tools, against goplt serve.
func TestREADMEWithTools(t *testing.T) {
	sh := newShell(t)
	sh.serve(t)
	sh.prelude = "grpcurl() { go tool -modfile=tools/grpcurl/go.mod grpcurl \"$@\"; }; buf() { go tool -modfile=tools/go.mod buf \"$@\"; }; "
	for _, s := range snippets(t) {
		if s.run == "tools" {
			sh.execute(t, s)
		}
	}
}
