package config_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/0x1d/goplt/config"
)

const everySource = `
timeout: 1h
discovery: {static: {"1.5": ["a:1", "[::1]:2"]}}
server: {zone: "5", tags: ["true", "# no comment", blue]}
services:
  auth: {target: "consul:///auth?tag=blue", retry: {max_attempts: 1}}
  billing: {timeout: 1h}
  audit: {}
`

func TestYAMLShowsValuesAndSources(t *testing.T) {
	loaded, err := config.Load(inFile(t, everySource), []string{"GOPLT_PROTOCOL=grpc", "GOPLT_SERVICES_AUTH_TIMEOUT=2m"})
	if err != nil {
		t.Fatal(err)
	}
	loaded.Log.Level = "warn"
	var text bytes.Buffer
	if err := loaded.YAML(&text); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"protocol: grpc # GOPLT_PROTOCOL\ntimeout: 1h # goplt.yaml line 2\nattempt_timeout: 3s # default\n",
		"  static:\n    \"1.5\": ['a:1', '[::1]:2'] # goplt.yaml line 3\n",
		"  zone: \"5\" # goplt.yaml line 4\n  tags: [\"true\", '# no comment', blue] # goplt.yaml line 4\n",
		"log:\n  level: warn # program\n  format: text # default\n",
		`
services:
  audit: {} # goplt.yaml line 8
  auth:
    target: consul:///auth?tag=blue # goplt.yaml line 6
    timeout: 2m # GOPLT_SERVICES_AUTH_TIMEOUT
    retry:
      max_attempts: 1 # goplt.yaml line 6
  billing:
    timeout: 1h # goplt.yaml line 7
`,
	} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("lacks:\n%s", want)
		}
	}
	if t.Failed() {
		t.Logf("got:\n%s", &text)
	}
	if loaded.String() != text.String() {
		t.Error("String differs from YAML")
	}
}

// What is written can be read again and says the same.
func TestYAMLCanBeLoaded(t *testing.T) {
	loaded := load(t, everySource, "GOPLT_PROTOCOL=grpc", "GOPLT_SERVICES_AUTH_TIMEOUT=2m")
	again := load(t, loaded.String())
	if diff := cmp.Diff(loaded, again, cmpopts.IgnoreUnexported(config.Config{})); diff != "" {
		t.Errorf("differs after a round trip (-before +after):\n%s", diff)
	}
}

func TestRedactedIsForOtherEncoders(t *testing.T) {
	encoded, err := json.Marshal(load(t, everySource).Redacted())
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`"timeout":"1h"`, `"max_attempts":3`,
		`"services":{"audit":{},"auth":{"retry":{"max_attempts":1},"target":"consul:///auth?tag=blue"},"billing":{"timeout":"1h"}}`,
		`"tags":["true","# no comment","blue"]`, `"budget_ratio":0.1`, `"static":{"1.5":["a:1","[::1]:2"]}`,
	} {
		if !strings.Contains(string(encoded), want) {
			t.Errorf("%s lacks %s", encoded, want)
		}
	}
	changed := config.Default()
	changed.Server.Tags = []string{"blue"}
	changed.Redacted()["server"].(map[string]any)["tags"].([]string)[0] = "red"
	if changed.Server.Tags[0] != "blue" {
		t.Error("a change of what Redacted returned changed the configuration")
	}
}

// The token is in no text form, nor in an error about it.
func TestSecretsAreHidden(t *testing.T) {
	const token = "b1gs7cr3t-f00d"
	loaded := load(t, "discovery: {consul: {token: "+token+"}}")
	var logged strings.Builder
	slog.New(slog.NewTextHandler(&logged, nil)).Info("loaded", "config", loaded, "value", *loaded)
	encoded, err := json.Marshal(loaded)
	if err != nil {
		t.Fatal(err)
	}
	_, badType := config.Load(inFile(t, "discovery: {consul: {token: 7381904455}}"), nil)
	_, both := config.Load("", []string{"GOPLT_DISCOVERY_CONSUL_TOKEN=" + token, "GOPLT_DISCOVERY_CONSUL_TOKEN_FILE=x"})
	_, control := config.Load("", []string{"GOPLT_DISCOVERY_CONSUL_TOKEN=" + token + " "})
	if badType == nil || both == nil || control == nil {
		t.Fatalf("errors are %v, %v, %v; want all three", badType, both, control)
	}
	if want := "discovery.consul.token in goplt.yaml line 1: [redacted] is not text; put it in quotes"; badType.Error() != want {
		t.Errorf("got %v, want %s", badType, want)
	}
	for name, text := range map[string]string{
		"String": loaded.String(), "%v": fmt.Sprintf("values: %v", *loaded), "%+v": fmt.Sprintf("%+v", loaded), "%#v": fmt.Sprintf("%#v", *loaded),
		"log": logged.String(), "JSON": string(encoded), "wrong type": badType.Error(), "two tokens": both.Error(), "space": control.Error(),
	} {
		if strings.Contains(text, token) || strings.Contains(text, "7381904455") {
			t.Errorf("%s shows the token: %s", name, text)
		}
	}
	if want := `"token":"[redacted]"`; !strings.Contains(string(encoded), want) {
		t.Errorf("JSON lacks %s", want)
	}
	if want := "    token: '[redacted]' # "; !strings.Contains(loaded.String(), want) {
		t.Errorf("String lacks %q", want)
	}
	if config.Default().Discovery.Consul.Token != "" || !strings.Contains(config.Default().String(), `    token: "" # default`) {
		t.Error("no token is shown as one")
	}
}

func TestLogHandler(t *testing.T) {
	for _, test := range []struct {
		log   config.LogConfig
		level slog.Level
		want  string
	}{
		{config.LogConfig{Level: "info", Format: "text"}, slog.LevelInfo, `level=INFO msg="it is" key=value` + "\n"},
		{config.LogConfig{Level: "info", Format: "text"}, slog.LevelDebug, ""},
		{config.LogConfig{Level: "debug", Format: "text"}, slog.LevelDebug, `level=DEBUG msg="it is" key=value` + "\n"},
		{config.LogConfig{Level: "error", Format: "json"}, slog.LevelWarn, ""},
		{config.LogConfig{Level: "warn", Format: "json"}, slog.LevelWarn, `"level":"WARN","msg":"it is","key":"value"}` + "\n"},
	} {
		var out strings.Builder
		slog.New(test.log.Handler(&out)).Log(t.Context(), test.level, "it is", "key", "value")
		if got := out.String(); !strings.HasSuffix(got, test.want) || test.want == "" && got != "" {
			t.Errorf("%+v at %s: %q, want %q", test.log, test.level, got, test.want)
		}
	}
}

func ExampleLoad() {
	directory, err := os.MkdirTemp("", "goplt")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(directory)
	path := filepath.Join(directory, "goplt.yaml")
	file := `
timeout: 5s
services:
  auth:
    target: consul:///auth?tag=blue
    timeout: 1s
`
	if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
		panic(err)
	}
	cfg, err := config.Load(path, []string{"GOPLT_SERVICES_AUTH_RETRY_MAX_ATTEMPTS=5"}) // or os.Environ()
	if err != nil {
		panic(err)
	}
	auth, audit := cfg.Client("auth"), cfg.Client("audit")
	fmt.Println(cfg.Target("auth"), auth.Timeout, auth.Retry.MaxAttempts)
	fmt.Println(cfg.Target("audit"), audit.Timeout, audit.Retry.MaxAttempts)

	_, err = config.Load("", []string{"GOPLT_RETRYS_MAX_ATTEMPTS=5", "GOPLT_TIMEOUT=30"})
	fmt.Println(err)
	// Output:
	// consul:///auth?tag=blue 1s 5
	// audit 5s 3
	// unknown environment variable GOPLT_RETRYS_MAX_ATTEMPTS: did you mean GOPLT_RETRY_MAX_ATTEMPTS?
	// timeout in GOPLT_TIMEOUT: "30" has no unit; want a duration such as 500ms, 30s or 1m30s
}
