package consul_test

import (
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/0x1d/goplt/pkg/registry/consul"
)

// over returns a registry that speaks over the network to address.
func over(t *testing.T, address string, changes ...func(*consul.Config)) *consul.Registry {
	t.Helper()
	config := consul.DefaultConfig()
	config.Address, config.Logger = address, slog.New(slog.DiscardHandler)
	for _, change := range changes {
		change(&config)
	}
	r, err := consul.New(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return r
}

func TestUnixSocket(t *testing.T) {
	t.Parallel()
	directory, err := os.MkdirTemp("", "consul") //nolint:usetesting // the path of a socket must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(directory) })
	path := filepath.Join(directory, "agent.sock")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(newFakeAgent(entry("1", 80)))
	if err := server.Listener.Close(); err != nil {
		t.Fatal(err)
	}
	server.Listener = listener
	server.Start()
	t.Cleanup(server.Close)
	expect(t, watch(t, over(t, "unix://"+path)), "1")
}

func TestPathOfTheAddress(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.StripPrefix("/behind/proxy", newFakeAgent(entry("1", 80))))
	t.Cleanup(server.Close)
	expect(t, watch(t, over(t, server.URL+"/behind/proxy/")), "1")
}

// A redirect would lead the token to wherever it points.
func TestRedirectIsNotFollowed(t *testing.T) {
	t.Parallel()
	elsewhere := newFakeAgent(entry("1", 80))
	thief := httptest.NewServer(elsewhere)
	t.Cleanup(thief.Close)
	server := httptest.NewServer(http.RedirectHandler(thief.URL+"/v1/health/service/auth", http.StatusTemporaryRedirect))
	t.Cleanup(server.Close)
	r := over(t, server.URL, func(c *consul.Config) { c.Token = "secret" })
	if err := expectError(t, watch(t, r), nil); !strings.Contains(err.Error(), "status 307") {
		t.Errorf("got %v", err)
	}
	if asked := elsewhere.asked("/"); len(asked) != 0 {
		t.Errorf("the redirect was followed, with token %q", asked[0].Header.Get("X-Consul-Token"))
	}
}

func TestAgentOutOfReach(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(newFakeAgent())
	server.Close()
	r := over(t, server.URL)
	err := expectError(t, watch(t, r), nil)
	if !strings.Contains(err.Error(), "connection refused") || !strings.Contains(err.Error(), server.Listener.Addr().String()) {
		t.Errorf("Next: %v", err)
	}
	if _, err := r.Register(t.Context(), instance()); err == nil || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("Register: %v", err)
	}
}
