package servicestest_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect/v2"

	"github.com/0x1d/goplt/pkg/registry"
	"github.com/0x1d/goplt/pkg/rpc"
	"github.com/0x1d/goplt/pkg/services"
	"github.com/0x1d/goplt/pkg/servicestest"
)

// TestFirstInstanceHangs is what a test of failover is like.
func TestFirstInstanceHangs(t *testing.T) {
	config := rpc.DefaultClientConfig()
	config.AttemptTimeout = 500 * time.Millisecond
	s := servicestest.Start(t, servicestest.WithDemoData(), servicestest.WithInstances(2), servicestest.WithClientConfig(config))
	hung := s.Instances[0].Faults().Delay("authz", time.Hour)
	for hung.Hits() == 0 { // Which instance a call is sent to first is up to the client.
		allowed, err := s.Authz.HasPermission(t.Context(), "usr_ada", "invoices:read")
		if err != nil || !allowed {
			t.Fatalf("allowed: %t, %v", allowed, err)
		}
	}
}

// query makes a call that may be tried again.
func query(t *testing.T, s *servicestest.Running) error {
	t.Helper()
	_, err := s.Audit.Query(t.Context(), services.AuditFilters{})
	return err
}

// TestFaultsOfInstances: each instance has faults of its own, and all have some in common, which count together.
func TestFaultsOfInstances(t *testing.T) {
	config := rpc.DefaultClientConfig()
	config.Retry.MaxAttempts = 2
	s := servicestest.Start(t, servicestest.WithInstances(2), servicestest.WithClientConfig(config))
	count := []*servicestest.Fault{s.Instances[0].Faults().Delay("audit", 0), s.Instances[1].Faults().Delay("audit", 0)}
	dropped := s.Faults().Drop("audit", servicestest.Times(1), servicestest.AfterExecution())
	if err := query(t, s); err != nil || dropped.Hits() != 1 || count[0].Hits() != 1 || count[1].Hits() != 1 {
		t.Errorf("got %v, %d connections dropped, %d and %d executions; want success, 1, and 1 at each", err, dropped.Hits(), count[0].Hits(), count[1].Hits())
	}
	if left := s.Faults().DropConnections(); left != 1 {
		t.Errorf("%d connections were left, want that to the other instance", left)
	}
	failed := s.Faults().Fail("audit", connect.CodeUnavailable)
	if err := query(t, s); !errors.Is(err, services.ErrUnavailable) || failed.Hits() != 2 {
		t.Errorf("got %v after %d failures, want unavailable after 2", err, failed.Hits())
	}
	if count[0].Hits() != 1 || count[1].Hits() != 1 {
		t.Errorf("%d and %d calls came past the fault of all", count[0].Hits(), count[1].Hits())
	}
	failed.Remove()
	if err := query(t, s); err != nil {
		t.Fatalf("got %v after the faults", err)
	}
	for at, counted := range count {
		if dropped := s.Instances[at].Faults().DropConnections(); counted.Hits() == 2 && dropped != 1 {
			t.Errorf("dropped %d connections of the instance that answered last, want 1", dropped)
		}
	}
}

// TestInstances: they have a registry, a platform and their services in common, and URLs and proxies of their own.
func TestInstances(t *testing.T) {
	s := servicestest.Start(t, servicestest.WithDemoData(), servicestest.WithInstances(3), servicestest.WithProxy())
	if len(s.Instances) != 3 || s.URL != s.Instances[0].URL || s.Proxy != s.Instances[0].Proxy {
		t.Fatalf("%d instances, URL %s, of the first %s", len(s.Instances), s.URL, s.Instances[0].URL)
	}
	client := speaking(t, "HTTP/1.1")
	for _, instance := range s.Instances {
		if got, err := post(t, client, instance.URL, "application/json"); err != nil || got.err != nil {
			t.Fatal(got, err)
		}
	}
	if dropped := s.Faults().DropConnections(); dropped != 3 {
		t.Errorf("dropped %d connections, want one of each instance", dropped)
	}
	watcher, err := s.Registry.Watch(registry.Target{Service: services.AuthzService})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = watcher.Close() }()
	known, err := watcher.Next(t.Context())
	if err != nil || len(known) != 3 {
		t.Fatalf("the registry knows %v, %v", known, err)
	}
	for at, instance := range known {
		if want := fmt.Sprintf("authz-%d", at+1); instance.ID != want || !strings.HasSuffix(s.Instances[at].Proxy.Addr, fmt.Sprintf(":%d", instance.Port)) {
			t.Errorf("the registry knows %+v, want %s at %s", instance, want, s.Instances[at].Proxy.Addr)
		}
	}
	bad := s.Instances[1].Proxy.InjectStatus("authz", http.StatusBadGateway)
	for requests := func() int { return s.Instances[2].Proxy.Requests("authz") }; bad.Hits() == 0 || requests() == 0; {
		if err := s.Authz.Authorize(t.Context(), "usr_ada", "invoices:read"); err != nil {
			t.Fatal(err)
		}
	}
}

func TestFaultOfUnknownProcedureAtAnInstance(t *testing.T) {
	tb := &recorder{TB: t}
	s := servicestest.Start(tb, servicestest.WithInstances(2), servicestest.WithProxy())
	for where, add := range map[string]func(){
		"server": func() { s.Instances[1].Faults().Fail("auth.Logn", connect.CodeAborted) },
		"proxy":  func() { s.Instances[1].Proxy.Drop("auth.Logn") },
	} {
		tb.fatal = ""
		add()
		if !strings.Contains(tb.fatal, `"auth.Logn"`) {
			t.Errorf("%s: got %q, want the name", where, tb.fatal)
		}
	}
}

// fatal is a test that panics with what it is ended by.
type fatal struct{ testing.TB }

func (fatal) Helper() {}

func (fatal) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }

func TestNoInstances(t *testing.T) {
	defer func() {
		if said := fmt.Sprint(recover()); said != "servicestest: WithInstances(0): want 1 or more" {
			t.Errorf("said %s", said)
		}
	}()
	servicestest.Start(fatal{t}, servicestest.WithInstances(0))
}
