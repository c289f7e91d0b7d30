package servicestest_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/0x1d/goplt/pkg/rpc"
	"github.com/0x1d/goplt/pkg/services"
	"github.com/0x1d/goplt/pkg/servicestest"
)

func TestRunningConforms(t *testing.T) {
	for _, protocol := range []rpc.Protocol{rpc.ProtocolAuto, rpc.ProtocolGRPC, rpc.ProtocolHTTP, rpc.ProtocolInProcess} {
		t.Run(string(protocol), func(t *testing.T) {
			servicestest.RunSuite(t, func(t *testing.T) servicestest.Services {
				t.Helper()
				return servicestest.Start(t, servicestest.WithProtocol(protocol)).Services()
			})
		})
	}
}

// TestRunningConformsThroughProxy: a gateway without faults changes nothing, by either protocol.
func TestRunningConformsThroughProxy(t *testing.T) {
	for _, protocol := range protocols() {
		t.Run(string(protocol), func(t *testing.T) {
			servicestest.RunSuite(t, func(t *testing.T) servicestest.Services {
				t.Helper()
				return servicestest.Start(t, servicestest.WithProtocol(protocol), servicestest.WithProxy()).Services()
			})
		})
	}
}

func TestStartWithProxy(t *testing.T) {
	s := servicestest.Start(t, servicestest.WithDemoData(), servicestest.WithProxy())
	if _, err := s.Auth.Login(t.Context(), "ada@example.com", servicestest.DemoPassword); err != nil {
		t.Fatal(err)
	}
	held := s.Proxy.Delay("authz", time.Hour)
	done := make(chan error, 1)
	go func() { done <- s.Authz.Authorize(t.Context(), "usr_ada", "invoices:read") }()
	awaitThat(t, "the call to wait", func() bool { return held.Hits() == 1 })
	s.Proxy.Clear()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if s.Proxy.Requests("auth.Login") != 1 || s.Proxy.Requests("authz") != 1 {
		t.Errorf("%d and %d requests, want 1 and 1", s.Proxy.Requests("auth.Login"), s.Proxy.Requests("authz"))
	}
	if plain := servicestest.Start(t); plain.Proxy != nil {
		t.Error("there is a proxy that nobody asked for")
	}
}

func TestStartAnswersCurl(t *testing.T) {
	s := servicestest.Start(t, servicestest.WithDemoData())
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL+"/goplt.authz.v1.AuthzService/HasPermission",
		strings.NewReader(`{"userId": "usr_ada", "permission": "invoices:read"}`))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK || strings.ReplaceAll(string(body), " ", "") != `{"allowed":true}` {
		t.Errorf("got %s, %s, %v; want allowed", response.Status, body, err)
	}
}

// denyAll is an authz service of a user's own.
type denyAll struct{ services.AuthzServiceClient }

func (denyAll) Authorize(context.Context, string, string) error {
	return services.Errorf(services.ErrPermissionDenied, "the office is closed")
}

func TestStartHostsServicesOfTheCaller(t *testing.T) {
	s := servicestest.Start(t, servicestest.WithDemoData(), servicestest.WithServices(servicestest.Services{Authz: denyAll{}}))
	err := s.Authz.Authorize(t.Context(), "usr_ada", "invoices:read")
	if !errors.Is(err, services.ErrPermissionDenied) || !strings.Contains(err.Error(), "the office is closed") {
		t.Errorf("got %v, want the error of the caller's service", err)
	}
	if _, err := s.Auth.Login(t.Context(), "ada@example.com", servicestest.DemoPassword); err != nil {
		t.Errorf("log in by the platform's service: %v", err)
	}
}

func TestStartRunsPerTest(t *testing.T) {
	first, second := servicestest.Start(t), servicestest.Start(t)
	user := services.User{Email: "ada@example.com", Name: "Ada", Password: "a long password"}
	for _, s := range []*servicestest.Running{first, second} {
		if _, err := s.Identity.CreateUser(t.Context(), user); err != nil {
			t.Errorf("create the same user on another server: %v", err)
		}
	}
	if first.URL == second.URL {
		t.Errorf("two servers have the URL %s", first.URL)
	}
}
