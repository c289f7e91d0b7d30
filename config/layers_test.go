package config_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/0x1d/goplt/config"
	"github.com/0x1d/goplt/pkg/rpc"
)

func TestLayers(t *testing.T) {
	path := inFile(t, `
timeout: 5s
retry: {max_attempts: 2, budget_tokens: 50}
services:
  auth:
    target: consul:///auth?tag=blue
    timeout: 1s
    retry: {max_attempts: 1}
  user-import:
`)
	loaded, err := config.Load(path, []string{
		"HOME=/root", "GOPLT_CONFIG=elsewhere.yaml", "PATH", "GOPLT_SERVER_WEIGHT=2", "GOPLT_SERVER_WEIGHT=3",
		"GOPLT_TIMEOUT=4s", "GOPLT_SERVICES_AUTH_RETRY_MAX_ATTEMPTS=4", "GOPLT_SERVICES_USER_IMPORT_ATTEMPT_TIMEOUT=7s",
		"GOPLT_SERVICES_LEDGER_PROTOCOL=http",
	})
	if err != nil {
		t.Fatal(err)
	}
	defaults := rpc.DefaultClientConfig()
	defaults.Timeout, defaults.Retry.MaxAttempts, defaults.Retry.BudgetTokens = 4*time.Second, 2, 50
	auth := defaults
	auth.Timeout, auth.Retry.MaxAttempts = time.Second, 4
	userImport := defaults
	userImport.AttemptTimeout = 7 * time.Second
	ledger := defaults
	ledger.Protocol = rpc.ProtocolHTTP
	for service, want := range map[string]rpc.ClientConfig{"identity": defaults, "auth": auth, "user-import": userImport, "ledger": ledger} {
		if diff := cmp.Diff(want, loaded.Client(service)); diff != "" {
			t.Errorf("client of %s (-want +got):\n%s", service, diff)
		}
	}
	if loaded.Server.Weight != 3 {
		t.Errorf("weight %d, want that of the variable's last value", loaded.Server.Weight)
	}
	for service, want := range map[string]string{"auth": "consul:///auth?tag=blue", "identity": "identity", "user-import": "user-import"} {
		if got := loaded.Target(service); got != want {
			t.Errorf("target of %s is %q, want %q", service, got, want)
		}
	}
	for key, want := range map[string]string{
		"timeout":                              "GOPLT_TIMEOUT",
		"attempt_timeout":                      "default",
		"retry.max_attempts":                   "goplt.yaml line 3",
		"services.auth.target":                 "goplt.yaml line 6",
		"services.auth.retry.max_attempts":     "GOPLT_SERVICES_AUTH_RETRY_MAX_ATTEMPTS",
		"services.auth.retry.budget_tokens":    "goplt.yaml line 3",
		"services.auth.pool.idle_timeout":      "default",
		"services.user-import.attempt_timeout": "GOPLT_SERVICES_USER_IMPORT_ATTEMPT_TIMEOUT",
		"services.user-import.timeout":         "GOPLT_TIMEOUT",
		"nothing":                              "",
	} {
		if got := loaded.Source(key); got != want {
			t.Errorf("source of %s is %q, want %q", key, got, want)
		}
	}
}

// An alias is its anchor's value; a list replaces a list; what is commented out is not there.
func TestYAML(t *testing.T) {
	loaded := load(t, `
# a comment
pool:
server: {tags: []}
services:
  auth: &fast
    timeout: 1s
  audit: *fast
discovery:
  static:
    auth: ["10.0.0.1:80", &two "[::1]:80"]
    audit: [*two]
`, "GOPLT_SERVER_TAGS=")
	if got := loaded.Client("audit").Timeout; got != time.Second {
		t.Errorf("timeout of audit is %s, want that of the alias", got)
	}
	want := map[string][]string{"auth": {"10.0.0.1:80", "[::1]:80"}, "audit": {"[::1]:80"}}
	if diff := cmp.Diff(want, loaded.Discovery.Static); diff != "" {
		t.Errorf("static (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(rpc.DefaultClientConfig(), loaded.Defaults); diff != "" {
		t.Errorf("defaults (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(rpc.DefaultServerConfig(), loaded.Server); diff != "" {
		t.Errorf("server (-want +got):\n%s", diff)
	}
	for _, text := range []string{"", "# nothing\n", "---\n", "{}", "\ufefftimeout: 10s"} {
		if diff := cmp.Diff(config.Default().Defaults, load(t, text).Defaults); diff != "" {
			t.Errorf("of %q (-want +got):\n%s", text, diff)
		}
	}
}

// A name may have the length that registries allow.
func TestLongNames(t *testing.T) {
	service, method := strings.Repeat("s", 128), strings.Repeat("m", 253)+".M"
	loaded := load(t, "services: {"+service+": {timeout: 1s, methods: {"+method+": {timeout: 2s}}}}")
	if client := loaded.Client(service); client.Timeout != time.Second || client.Methods[method].Timeout != 2*time.Second {
		t.Errorf("got %+v", client)
	}
}

// Static addresses of a service can come from the environment; the file's names tell where a name ends.
func TestStaticFromEnvironment(t *testing.T) {
	loaded := load(t, "discovery: {static: {user-import: [a:1]}}",
		"GOPLT_DISCOVERY_STATIC_USER_IMPORT=b:2,c:3", "GOPLT_DISCOVERY_STATIC_LEDGER=d:4", "GOPLT_DISCOVERY_STATIC_AUTH= e:5 ",
		"GOPLT_DISCOVERY_PROVIDER=static")
	want := map[string][]string{"user-import": {"b:2", "c:3"}, "ledger": {"d:4"}, "auth": {"e:5"}}
	if diff := cmp.Diff(want, loaded.Discovery.Static); diff != "" {
		t.Errorf("static (-want +got):\n%s", diff)
	}
}

func TestChangesByTheProgram(t *testing.T) {
	changed := config.Default()
	changed.Defaults.Retry.MaxAttempts = 9
	auth := changed.Service("auth")
	auth.Client.Timeout = -1
	auth.Target = "memory:///other"
	changed.Services["auth"] = auth
	changed.Services["a b"] = config.ServiceConfig{Client: rpc.DefaultClientConfig()}
	changed.Discovery.Static = map[string][]string{"a b": {"x"}}
	err := changed.Validate()
	const want = `retry.max_attempts: 9 is not within 1 to 5
discovery.static.a b: service name "a b" holds ' ' at byte 1; want letters, digits, '-', '_' and '.', a letter or digit first
discovery.static.a b: "x" is not host:port
services.a b: service name "a b" holds ' ' at byte 1; want letters, digits, '-', '_' and '.', a letter or digit first
services.auth.timeout: -1ns is not 0 or more`
	if err == nil {
		t.Fatal("no error")
	}
	if diff := cmp.Diff(want, err.Error()); diff != "" {
		t.Errorf("error (-want +got):\n%s", diff)
	}
	for _, key := range []string{"retry.max_attempts", "services.auth.retry.max_attempts", "services.auth.timeout", "services.auth.target"} {
		if got := changed.Source(key); got != "program" {
			t.Errorf("source of %s is %q, want program", key, got)
		}
	}
	if got := changed.Source("services.auth.attempt_timeout"); got != "default" {
		t.Errorf("source of a key that was left alone is %q, want default", got)
	}
	if err := config.Default().Validate(); err != nil {
		t.Errorf("the defaults are invalid: %v", err)
	}
}
